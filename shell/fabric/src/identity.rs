//! Who this node is: one Ed25519 key in the data directory, which is its `NodeId`, its libp2p `PeerId` and its TLS key.
//!
//! `node.key` is one line, `ed25519 <64 hex digits> crc <8 hex digits>`: the seed of the key (RFC 8032) and the
//! CRC-32 of what comes before ` crc`. Only its owner may read it.

use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernel::NodeId;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::SigningKey;
use thiserror::Error;

/// The file's name in the data directory.
pub const KEY_FILE: &str = "node.key";
/// A sound file is shorter; no more than this is read.
const FILE_BYTES_MAX: u64 = 256;
/// Permissions that nobody but the owner has.
const MODE: u32 = 0o600;
/// An Ed25519 private key in PKCS #8 (RFC 8410, section 7) up to the seed.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A node's key pair. It signs, and never shows its private half.
#[derive(Clone)]
pub struct Identity {
    id: NodeId,
    seed: [u8; 32],
    key: Arc<dyn SigningKey>,
}

/// Why a node has no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file cannot be read, made or made durable.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Others can read the key, or change it.
    #[error(
        "{} has mode {mode:04o}, so others can use this node's key: if nobody did, set it with `chmod 600`; \
         if somebody could have, remove the node from its cluster and let it join with a new key",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file does not carry its checksum.
    #[error(
        "{} is damaged: it does not have its checksum; restore this file from a backup of the data directory, \
         or remove this node from its cluster and let it join with a new data directory",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The system gave no random bytes.
    #[error("the system has no random bytes for a new key")]
    NoRandom,
}

impl Identity {
    /// The identity in `dir`, drawn when there is none; it is durable before it is returned.
    ///
    /// # Errors
    /// [`IdentityError`], which names the file and the next step. A file that is refused is never replaced.
    pub fn open(dir: &Path) -> Result<Identity, IdentityError> {
        let path = dir.join(KEY_FILE);
        match File::open(&path) {
            Ok(file) => load(&path, &file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(dir, &path),
            Err(source) => Err(IdentityError::File { action: "open", path, source }),
        }
    }

    /// A new identity that is in no file.
    ///
    /// # Errors
    /// [`IdentityError::NoRandom`].
    pub fn draw() -> Result<Identity, IdentityError> {
        Ok(Identity::from_seed(&draw_seed()?))
    }

    /// The identity whose private key has this seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Identity {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are an Ed25519 seed");
        let public = pair.public_key().as_ref();
        let id = NodeId(public.try_into().expect("an Ed25519 public key has 32 bytes"));
        let pkcs8 = [&PKCS8_PREFIX[..], seed].concat();
        let key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8))
            .expect("the prefix and a seed are a PKCS #8 key");
        Identity { id, seed: *seed, key }
    }

    /// The public half, which is the node's name.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// For libraries that take a key and not a signer.
    pub(crate) const fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// What signs with the private half, for TLS of others than links.
    #[must_use]
    pub fn signing_key(&self) -> Arc<dyn SigningKey> {
        Arc::clone(&self.key)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.id)
    }
}

fn draw_seed() -> Result<[u8; 32], IdentityError> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| IdentityError::NoRandom)?;
    Ok(seed)
}

fn load(path: &Path, file: &File) -> Result<Identity, IdentityError> {
    let failed = |source| IdentityError::File { action: "read", path: path.to_owned(), source };
    // Of the open file, so that it is the one that is read.
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & !0o700 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    let seed = parse(&bytes).ok_or_else(|| IdentityError::Damaged { path: path.to_owned() })?;
    Ok(Identity::from_seed(&seed))
}

fn create(dir: &Path, path: &Path) -> Result<Identity, IdentityError> {
    let failed = |source| IdentityError::File { action: "make", path: path.to_owned(), source };
    let seed = draw_seed()?;
    let part = path.with_extension("key.new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(MODE).open(&part).map_err(failed)?;
    // One that a crash left may have had other permissions.
    file.set_permissions(Permissions::from_mode(MODE)).map_err(failed)?;
    file.write_all(line(&seed).as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    Ok(Identity::from_seed(&seed))
}

fn line(seed: &[u8; 32]) -> String {
    // A `NodeId` shows 32 bytes as digits.
    let text = format!("ed25519 {}", NodeId(*seed));
    format!("{text} crc {:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// The seed of a line, if it is exactly what [`line`] makes of it.
fn parse(bytes: &[u8]) -> Option<[u8; 32]> {
    let digits = std::str::from_utf8(bytes.strip_prefix(b"ed25519 ")?.get(..64)?).ok()?;
    let mut seed = [0; 32];
    for (at, byte) in seed.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    (line(&seed).as_bytes() == bytes).then_some(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 1.
    #[test]
    fn the_id_is_the_public_key_of_the_seed() {
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert_eq!(Identity::from_seed(&seed).id(), NodeId(public));
    }

    fn hex(digits: &str) -> [u8; 32] {
        std::array::from_fn(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap())
    }

    #[test]
    fn a_key_is_drawn_once_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        // What a crash left behind.
        std::fs::write(dir.path().join("node.key.new"), "half").unwrap();
        let id = Identity::open(dir.path()).unwrap().id();
        assert_eq!(Identity::open(dir.path()).unwrap().id(), id);
        let mode = std::fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Identity::open(other.path()).unwrap().id(), id);
    }

    #[test]
    fn a_key_that_others_can_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Identity::open(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        let modes =
            [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false), (0o601, false)];
        for (mode, good) in modes {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            match Identity::open(dir.path()) {
                Ok(_) => assert!(good, "{mode:o}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!good && text.contains("node.key") && text.contains("chmod 600"), "{text}");
                }
            }
        }
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_refused_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        Identity::open(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        let good = std::fs::read(&path).unwrap();
        let flips = (0..good.len() * 8).map(|bit| {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        let cuts = (0..good.len()).map(|length| good[..length].to_vec());
        let longer = [[&good[..], b"x"].concat(), [&good[..], &good[..]].concat()];
        for bytes in flips.chain(cuts).chain(longer) {
            std::fs::write(&path, &bytes).unwrap();
            let error = Identity::open(dir.path()).unwrap_err().to_string();
            assert!(error.contains("node.key") && error.contains("damaged"), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }
}
