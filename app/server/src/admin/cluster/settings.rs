//! Changes of keyspaces and users while the cluster runs, and the trail of all changes.

use consensus::Durability;
use control::{Audit, Mode, Name, Operation, ReadFrom, Reading, Rights, Settings, User};
use hyper::StatusCode;
use kernel::KeyspaceId;
use node::PARTITIONS_MAX;
use node::cluster::formation::database;
use placement::Partitions;
use serde_json::{Value, json};
use storage::store::Policy;

use super::{Attempt, Clerk, JSON, Page, Query, TEXT, no, page, told};

/// Highest number of a keyspace: clients name them by SELECT.
const KEYSPACE_MAX: u16 = 1023;

/// The word for it in settings.
pub(super) const fn word(durability: Durability) -> &'static str {
    match durability {
        Durability::Always => "always",
        Durability::EverySec => "everysec",
    }
}

/// Who answers reads, as it is said.
pub(super) const fn reads(from: ReadFrom) -> &'static str {
    match from {
        ReadFrom::Leader => "leader",
        ReadFrom::Lease => "lease",
        ReadFrom::Any => "any",
    }
}

/// What is asked of a keyspace; what is not said stays, or is as of a database of which nothing was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    name: Option<Name>,
    copies: Option<u8>,
    durability: Option<Durability>,
    partitions: Option<Partitions>,
    memory: Option<u64>,
    eviction: Option<Policy>,
    reads: Option<ReadFrom>,
    stale_ms_max: Option<u32>,
}

impl Wanted {
    fn of(query: &Query<'_>) -> Attempt<Wanted> {
        Ok(Wanted {
            name: query.maybe("name", "a name", Name::new)?,
            copies: query.maybe("copies", "a number of copies", |text| text.parse().ok())?,
            durability: query.maybe("durability", "always or everysec", |text| {
                [Durability::Always, Durability::EverySec].into_iter().find(|&one| word(one) == text)
            })?,
            // Beyond that SCAN has no cursors, and no node of its own serves what is restored from a backup.
            partitions: query.maybe("partitions", &format!("1 to {PARTITIONS_MAX}"), |text| {
                let count = text.parse().ok().filter(|count| *count <= PARTITIONS_MAX)?;
                Partitions::new(count).ok()
            })?,
            memory: query.maybe("memory", "a number of bytes", |text| text.parse().ok())?,
            eviction: query.maybe("eviction", "a policy of eviction", Policy::from_name)?,
            reads: query.maybe("reads", "leader, lease or any", |text| {
                [ReadFrom::Leader, ReadFrom::Lease, ReadFrom::Any].into_iter().find(|&one| reads(one) == text)
            })?,
            stale_ms_max: query.maybe("stale_ms_max", "milliseconds", |text| text.parse().ok())?,
        })
    }

    fn on(self, was: Settings) -> Settings {
        Settings {
            name: self.name.unwrap_or(was.name),
            mode: Mode::Primary,
            copies: self.copies.unwrap_or(was.copies),
            durability: self.durability.unwrap_or(was.durability),
            partitions: self.partitions.unwrap_or(was.partitions),
            memory: self.memory.unwrap_or(was.memory),
            eviction: self.eviction.unwrap_or(was.eviction),
            reading: Reading {
                from: self.reads.unwrap_or(was.reading.from),
                stale_ms_max: self.stale_ms_max.unwrap_or(was.reading.stale_ms_max),
            },
        }
    }
}

impl Query<'_> {
    /// What `read` makes of the value called `name`, if there is one; it must be `what`.
    fn maybe<T>(&self, name: &str, what: &str, read: impl FnOnce(&str) -> Option<T>) -> Attempt<Option<T>> {
        let Some((_, text)) = self.0.iter().find(|(key, _)| *key == name) else { return Ok(None) };
        match read(text) {
            Some(value) => Ok(Some(value)),
            None => no(StatusCode::BAD_REQUEST, format!("`{name}` is {text:?}, and must be {what}")),
        }
    }

    fn keyspace(&self) -> Attempt<(KeyspaceId, Wanted)> {
        let number = self.number("keyspace")?;
        if number > KEYSPACE_MAX {
            return no(StatusCode::BAD_REQUEST, format!("keyspaces have numbers up to {KEYSPACE_MAX}"));
        }
        Ok((KeyspaceId(number), Wanted::of(self)?))
    }

    fn user(&self) -> Attempt<Name> {
        let name = self.maybe("name", "a name", Name::new)?;
        name.map_or_else(|| no(StatusCode::BAD_REQUEST, "`name` is missing"), Ok)
    }
}

impl Clerk<'_> {
    /// Makes a keyspace.
    pub async fn create_keyspace(&self, query: &Query<'_>) -> Page {
        let (keyspace, wanted) = match query.keyspace() {
            Ok(parsed) => parsed,
            Err(page) => return *page,
        };
        let settings = wanted.on(database(keyspace));
        let created = self.change(move |_| Ok(Operation::CreateKeyspace { keyspace, settings })).await;
        told(created, || format!("keyspace {keyspace} is made; its partitions are placed now"))
    }

    /// Changes a keyspace; what is not said stays.
    pub async fn alter_keyspace(&self, query: &Query<'_>) -> Page {
        let (keyspace, wanted) = match query.keyspace() {
            Ok(parsed) => parsed,
            Err(page) => return *page,
        };
        if wanted == Wanted::default() {
            let text =
                "say what is to change: name, copies, durability, memory, eviction, reads or stale_ms_max\n";
            return page(StatusCode::BAD_REQUEST, TEXT, text);
        }
        let altered = self
            .change(move |state| match state.keyspaces().get(&keyspace) {
                Some(space) => {
                    let settings = wanted.on(space.settings.clone());
                    Ok(Operation::AlterKeyspace { keyspace, settings })
                }
                None => Err(format!("there is no keyspace {keyspace}")),
            })
            .await;
        told(altered, || {
            format!("keyspace {keyspace} is changed; `archipel cluster status` shows what still moves for it")
        })
    }

    /// Deletes a keyspace, which must be named by its number and its name.
    pub async fn drop_keyspace(&self, query: &Query<'_>) -> Page {
        let parsed = query.keyspace().and_then(|(keyspace, wanted)| match wanted.name {
            Some(_) if keyspace == KeyspaceId(0) => {
                no(StatusCode::CONFLICT, "keyspace 0 stays: all clients begin in it; FLUSHDB empties it")
            }
            Some(name) => Ok((keyspace, name)),
            None => no(StatusCode::BAD_REQUEST, "`name` is missing: the keyspace's name, to be sure"),
        });
        let (keyspace, name) = match parsed {
            Ok(parsed) => parsed,
            Err(page) => return *page,
        };
        let shown = name.clone();
        let dropped = self.change(move |_| Ok(Operation::DropKeyspace { keyspace, name })).await;
        told(dropped, || format!("keyspace {keyspace}, {shown}, is dropped; the members delete its data now"))
    }

    /// Makes a user, or gives one another password.
    pub async fn set_user(&self, query: &Query<'_>) -> Page {
        let parsed = query.user().and_then(|name| {
            let password = query.maybe("sha256", "a SHA-256 in hexadecimal", digest)?;
            match password {
                Some(password) => Ok((name, password)),
                None => no(StatusCode::BAD_REQUEST, "`sha256` is missing"),
            }
        });
        let (name, password) = match parsed {
            Ok(parsed) => parsed,
            Err(page) => return *page,
        };
        // Sessions know no lesser rights yet.
        let rights = Rights { read: true, write: true, admin: true, keyspaces: None };
        let (shown, user) = (name.clone(), User { password, rights });
        let set = self.change(move |_| Ok(Operation::SetUser { name, user })).await;
        told(set, || format!("{shown} may enter at every member with this password"))
    }

    /// Removes a user.
    pub async fn remove_user(&self, query: &Query<'_>) -> Page {
        let name = match query.user() {
            Ok(name) => name,
            Err(page) => return *page,
        };
        let shown = name.clone();
        let removed = self.change(move |_| Ok(Operation::RemoveUser { name })).await;
        told(removed, || format!("{shown} may not enter any more"))
    }

    /// What was asked of the cluster lately, the oldest first.
    pub async fn audit(&self) -> Page {
        let trail = self.ask_worker(|worker| {
            let mind = worker.mind()?;
            Some(mind.state().audit().iter().map(line).collect::<Vec<Value>>())
        });
        match trail.await {
            Ok(Some(trail)) => {
                page(StatusCode::OK, JSON, json!({"schema": 1, "operations": trail}).to_string())
            }
            Ok(None) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the worker is in no cluster\n"),
            Err(page) => *page,
        }
    }
}

/// One request as JSON.
fn line(audit: &Audit) -> Value {
    json!({
        "at": audit.at.0,
        "by": audit.by.as_str(),
        "what": audit.what.as_str(),
        "version": audit.result.as_ref().ok().map(|outcome| outcome.version),
        "refused": audit.result.as_ref().err(),
    })
}

/// 32 bytes out of 64 hexadecimal digits.
fn digest(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_of_a_keyspace_stays() {
        let was = Settings { copies: 2, memory: 7, ..database(KeyspaceId(3)) };
        let asked = |text| Wanted::of(&Query::of(Some(text))).map(|wanted| wanted.on(was.clone()));
        #[rustfmt::skip] // columns
        let table = [
            ("keyspace=3",                          was.clone()),
            ("copies=5",                            Settings { copies: 5, ..was.clone() }),
            ("durability=everysec&memory=0",        Settings { durability: Durability::EverySec, memory: 0, ..was.clone() }),
            ("eviction=allkeys-lru&name=cache",
                Settings { eviction: Policy::AllKeysLru, name: Name::new("cache").unwrap(), ..was.clone() }),
        ];
        for (text, expected) in table {
            assert_eq!(asked(text).unwrap(), expected, "{text}");
        }
        let any = Reading { from: ReadFrom::Any, ..was.reading };
        assert_eq!(asked("reads=any").unwrap().reading, any);
        let lease = Reading { from: ReadFrom::Lease, ..was.reading };
        assert_eq!(asked("reads=lease").unwrap().reading, lease);
        let young = Reading { stale_ms_max: 7, ..was.reading };
        assert_eq!(asked("stale_ms_max=7").unwrap().reading, young);
        for text in [
            "reads=some",
            "stale_ms_max=-1",
            "copies=x",
            "durability=never",
            "partitions=0",
            "partitions=1025",
            "memory=-1",
            "eviction=some",
            "name=",
        ] {
            assert_eq!(asked(text).unwrap_err().status(), StatusCode::BAD_REQUEST, "{text}");
        }
    }

    #[test]
    fn a_digest_is_sixty_four_hexadecimal_digits() {
        assert_eq!(digest(&"0f".repeat(32)), Some([15; 32]));
        for text in ["", "0f", &"0g".repeat(32), &"+f".repeat(32), &"0f".repeat(33)] {
            assert_eq!(digest(text), None, "{text}");
        }
    }
}
