//! Who may enter: names and passwords. Every user that enters may do everything; nobody else may do
//! anything.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

/// A password as the configuration keeps it.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// Itself.
    Plain(Box<[u8]>),
    /// SHA-256 of `salt` followed by the password.
    Salted {
        /// What stands before the password in the digest.
        salt: Box<[u8]>,
        /// The digest.
        digest: [u8; 32],
    },
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Whether `password` is it. The time taken does not depend on how much of it is right.
    #[must_use]
    pub fn is(&self, password: &[u8]) -> bool {
        match self {
            Secret::Plain(plain) => equal(&digest(&[], plain), &digest(&[], password)),
            Secret::Salted { salt, digest: expected } => equal(expected, &digest(salt, password)),
        }
    }

    /// The digest that `ACL LIST` shows: of the plain password, or the salted one.
    #[must_use]
    pub fn shown(&self) -> [u8; 32] {
        match self {
            Secret::Plain(plain) => digest(&[], plain),
            Secret::Salted { digest, .. } => *digest,
        }
    }
}

fn digest(salt: &[u8], password: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(password).finalize().into()
}

fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b));
    core::hint::black_box(difference) == 0
}

/// The name a connection has that gives none.
pub const DEFAULT_USER: &[u8] = b"default";

/// The users of a node: those of its configuration, and those that its cluster has. Without any, everyone enters as
/// `default`.
#[derive(Clone, Debug, Default)]
pub struct Users {
    /// All of them. Invariant: nobody is in it without a secret.
    secrets: BTreeMap<Box<[u8]>, Vec<Secret>>,
    /// What of that is the cluster's.
    shared: BTreeMap<Box<[u8]>, Secret>,
    /// A user of the node itself, who enters beside all others and closes the door to nobody.
    own: Option<(Box<[u8]>, Secret)>,
}

impl Users {
    /// Nobody has a password; connections are `default` from the start.
    #[must_use]
    pub fn open() -> Users {
        Users::default()
    }

    /// The same with one more secret for `name`; any of a user's secrets lets it in.
    #[must_use]
    pub fn with(mut self, name: &[u8], secret: Secret) -> Users {
        self.secrets.entry(name.into()).or_default().push(secret);
        self
    }

    /// The same with a user of the node itself: what of it is a client of its own store.
    #[must_use]
    pub fn with_own(mut self, name: &[u8], secret: Secret) -> Users {
        self.own = Some((name.into(), secret));
        self
    }

    /// The cluster has a user `name` with the password that has this SHA-256, or none of that name any more. False if that
    /// is no news. Secrets that the configuration has for `name` stay.
    pub fn share(&mut self, name: &[u8], password: Option<[u8; 32]>) -> bool {
        let secret = password.map(|digest| Secret::Salted { salt: [].into(), digest });
        if self.shared.get(name) == secret.as_ref() {
            return false;
        }
        let secrets = self.secrets.entry(name.into()).or_default();
        if let Some(old) = self.shared.remove(name)
            && let Some(at) = secrets.iter().rposition(|secret| *secret == old)
        {
            secrets.remove(at);
        }
        if let Some(secret) = secret {
            secrets.push(secret.clone());
            self.shared.insert(name.into(), secret);
        }
        if secrets.is_empty() {
            self.secrets.remove(name);
        }
        true
    }

    /// Whether a connection is let in as `default` without a password: only while no user has one.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.secrets.is_empty()
    }

    /// Whether `name` may enter with `password`.
    #[must_use]
    pub fn admits(&self, name: &[u8], password: &[u8]) -> bool {
        if self.own.as_ref().is_some_and(|(own, secret)| **own == *name && secret.is(password)) {
            return true;
        }
        match self.secrets.get(name) {
            Some(secrets) => secrets.iter().fold(false, |found, secret| found | secret.is(password)),
            None => self.is_open() && name == DEFAULT_USER,
        }
    }

    /// Whether somebody may enter with `password`, or anybody without one.
    #[must_use]
    pub fn admit_by(&self, password: &[u8]) -> bool {
        let secrets = self.secrets.values().flatten();
        self.is_open() || secrets.fold(false, |found, secret| found | secret.is(password))
    }

    /// Whether `name` can be entered as at all.
    #[must_use]
    pub fn exists(&self, name: &[u8]) -> bool {
        self.secrets.contains_key(name) || self.is_open() && name == DEFAULT_USER
    }

    /// All users with their secrets; none means that no password is asked for.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[Secret])> {
        let open = self.is_open().then_some((DEFAULT_USER, &[] as &[Secret]));
        open.into_iter().chain(self.secrets.iter().map(|(name, secrets)| (&**name, secrets.as_slice())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_the_cluster_come_and_go_beside_those_of_the_configuration() {
        let hash = |text: &[u8]| Some(digest(&[], text));
        let mut users = Users::open().with(b"ann", Secret::Plain(b"own".as_slice().into()));
        let admitted = |users: &Users| {
            let pairs: [(&[u8], &[u8]); 4] =
                [(b"ann", b"own"), (b"ann", b"new"), (b"bob", b"old"), (b"bob", b"new")];
            pairs.map(|(name, password)| users.admits(name, password))
        };
        #[rustfmt::skip] // columns
        let table: [(&[u8], _, bool, [bool; 4]); 6] = [
            (b"bob", hash(b"old"), true,  [true, false, true,  false]),
            (b"bob", hash(b"old"), false, [true, false, true,  false]),
            (b"bob", hash(b"new"), true,  [true, false, false, true]),
            (b"ann", hash(b"new"), true,  [true, true,  false, true]),
            (b"ann", None,         true,  [true, false, false, true]),
            (b"bob", None,         true,  [true, false, false, false]),
        ];
        for (row, (name, password, news, expected)) in table.into_iter().enumerate() {
            assert_eq!(users.share(name, password), news, "row {row}");
            assert_eq!(admitted(&users), expected, "row {row}");
        }
        let mut users = Users::open().with_own(b"node", Secret::Plain(b"drawn".as_slice().into()));
        let own = |users: &Users| {
            [users.admits(b"node", b"drawn"), users.admits(b"node", b""), users.admit_by(b"drawn")]
        };
        assert!(users.is_open() && users.iter().all(|(name, _)| name == DEFAULT_USER));
        assert_eq!(own(&users), [true, false, true]);
        assert!(!users.share(b"bob", None));
        users.share(b"bob", hash(b"old"));
        assert!(!users.is_open());
        assert_eq!(own(&users), [true, false, false], "it lets nobody in but itself");
        assert!(users.admit_by(b"old") && !users.admit_by(b"new"));
        users.share(b"bob", None);
        assert!(users.is_open());
    }

    #[test]
    fn a_user_enters_with_its_own_password_only() {
        let salted = Secret::Salted { salt: b"salt".as_slice().into(), digest: digest(b"salt", b"open") };
        let users = Users::open()
            .with(b"default", Secret::Plain(b"first".as_slice().into()))
            .with(b"default", Secret::Plain(b"second".as_slice().into()))
            .with(b"ann", salted);
        #[rustfmt::skip] // columns
        let table: [(&[u8], &[u8], bool); 8] = [
            (b"default", b"first", true),
            (b"default", b"second", true),
            (b"default", b"open", false),
            (b"default", b"", false),
            (b"ann", b"open", true),
            (b"ann", b"first", false),
            (b"Ann", b"open", false),
            (b"bob", b"first", false),
        ];
        for (name, password, expected) in table {
            assert_eq!(users.admits(name, password), expected, "{name:?} {password:?}");
        }
        assert!(!users.is_open());
        assert!(Users::open().admits(b"default", b"whatever"));
        assert!(!Users::open().admits(b"ann", b"open"));
    }
}
