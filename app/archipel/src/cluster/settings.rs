//! What is asked of keyspaces and users, as the admin port takes it; and the trail of all changes.

use std::io::{BufRead, IsTerminal};

use anyhow::{Context, bail};
use serde_json::Value;
use server::kernel::Millis;
use sha2::{Digest, Sha256};

use crate::command::{KeyspaceArgs, KeyspaceCommand};
use crate::moment::utc;

/// The path that makes, changes or drops a keyspace of the cluster whose status this is.
pub fn keyspace(
    what: &KeyspaceCommand,
    status: &dyn Fn() -> anyhow::Result<Value>,
) -> anyhow::Result<String> {
    let (verb, id, partitions, settings) = match what {
        KeyspaceCommand::Drop { name, yes } => return drop_of(name, yes.as_deref(), &status()?),
        KeyspaceCommand::Create { id, partitions, settings } => ("create", id, *partitions, settings),
        KeyspaceCommand::Alter { id, settings } => ("alter", id, None, settings),
    };
    let KeyspaceArgs { name, copies, durability, memory, eviction, reads, stale_ms_max } = settings;
    let name = name.as_deref().map(plain).transpose()?.map(str::to_owned);
    let eviction = eviction.as_deref().map(plain).transpose()?.map(str::to_owned);
    let said = [
        ("name", name),
        ("partitions", partitions.map(|count| count.to_string())),
        ("copies", copies.map(|count| count.to_string())),
        ("durability", durability.clone()),
        ("memory", memory.map(|bytes| bytes.to_string())),
        ("eviction", eviction),
        ("reads", reads.clone()),
        ("stale_ms_max", stale_ms_max.map(|ms| ms.to_string())),
    ];
    let said = said.into_iter().filter_map(|(name, value)| Some(format!("&{name}={}", value?)));
    Ok(format!("/cluster/keyspace/{verb}?keyspace={id}{}", said.collect::<String>()))
}

/// The path that drops the keyspace called `name`, if it was named twice.
fn drop_of(name: &str, yes: Option<&str>, status: &Value) -> anyhow::Result<String> {
    let all = status["keyspaces"].as_array().into_iter().flatten();
    let found = all.into_iter().find(|it| it["name"] == name);
    let Some(found) = found else {
        bail!("there is no keyspace called {name:?}: `archipel cluster status` shows their names");
    };
    let (id, partitions) = (&found["id"], &found["partitions"]);
    match yes {
        Some(yes) if yes == name => Ok(format!("/cluster/keyspace/drop?keyspace={id}&name={}", plain(name)?)),
        Some(yes) => bail!("--yes names {yes:?} and not {name:?}: nothing is dropped"),
        None => bail!(
            "this deletes keyspace {id}, {name}, with all data of its {partitions} partitions at all members, for good: \
             say it with --yes {name}"
        ),
    }
}

/// The path that makes a user with a password.
pub fn user(name: &str, password: &str) -> anyhow::Result<String> {
    let digest: String = Sha256::digest(password).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("/cluster/user/set?name={}&sha256={digest}", plain(name)?))
}

/// A password from a line of stdin.
pub fn password() -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprint!("password (it is shown): ");
    }
    let mut line = String::new();
    stdin.lock().read_line(&mut line).context("the password cannot be read from stdin")?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!("stdin has no password");
    }
    Ok(password.to_owned())
}

/// A name that can be asked for as it is.
pub fn plain(name: &str) -> anyhow::Result<&str> {
    let sound = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if name.is_empty() || !name.chars().all(sound) {
        bail!("{name:?} is no name: use letters, digits, `.`, `_` and `-`");
    }
    Ok(name)
}

/// The audit trail, a request a line: the time in UTC, who, what, and what came of it.
pub fn trail(audit: &Value) -> String {
    let mut out = String::new();
    for one in audit["operations"].as_array().into_iter().flatten() {
        let text = |name: &str| one[name].as_str().unwrap_or_default();
        let came = match (one["version"].as_u64(), one["refused"].as_str()) {
            (Some(version), _) => format!("state {version}"),
            (None, refused) => format!("refused: {}", refused.unwrap_or_default()),
        };
        let at = utc(Millis(one["at"].as_u64().unwrap_or_default()));
        out.push_str(&format!("{at}  {:<8}  {}  ({came})\n", text("by"), text("what")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_keyspace_is_asked_for() {
        let settings =
            KeyspaceArgs { copies: Some(5), durability: Some("always".into()), ..KeyspaceArgs::default() };
        let none = || unreachable!("nobody asks");
        let alter = keyspace(&KeyspaceCommand::Alter { id: 3, settings }, &none).unwrap();
        assert_eq!(alter, "/cluster/keyspace/alter?keyspace=3&copies=5&durability=always");
        let settings =
            KeyspaceArgs { reads: Some("any".into()), stale_ms_max: Some(0), ..KeyspaceArgs::default() };
        let alter = keyspace(&KeyspaceCommand::Alter { id: 3, settings }, &none).unwrap();
        assert_eq!(alter, "/cluster/keyspace/alter?keyspace=3&reads=any&stale_ms_max=0");
        let settings = KeyspaceArgs { name: Some("orders".into()), ..KeyspaceArgs::default() };
        let create = KeyspaceCommand::Create { id: 20, partitions: Some(64), settings };
        let create = keyspace(&create, &none).unwrap();
        assert_eq!(create, "/cluster/keyspace/create?keyspace=20&name=orders&partitions=64");
        for name in ["", "a b", "a&b", "a=b", "ä"] {
            let settings = KeyspaceArgs { name: Some(name.into()), ..KeyspaceArgs::default() };
            assert!(keyspace(&KeyspaceCommand::Alter { id: 3, settings }, &none).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_keyspace_is_dropped_when_it_is_named_twice() {
        let status = serde_json::json!({"keyspaces": [
            {"id": 3, "name": "3", "partitions": 1}, {"id": 20, "name": "orders", "partitions": 64},
        ]});
        #[rustfmt::skip] // columns
        let table = [
            ("orders", Some("orders"), Ok("/cluster/keyspace/drop?keyspace=20&name=orders")),
            ("3",      Some("3"),      Ok("/cluster/keyspace/drop?keyspace=3&name=3")),
            ("orders", None,           Err("all data of its 64 partitions")),
            ("orders", Some("order"),  Err("nothing is dropped")),
            ("20",     Some("20"),     Err("no keyspace called")), // it is named by its name
            ("",       Some(""),       Err("no keyspace called")),
        ];
        for (name, yes, expected) in table {
            let (name, yes) = (name.to_owned(), yes.map(str::to_owned));
            let asked = keyspace(&KeyspaceCommand::Drop { name, yes }, &|| Ok(status.clone()));
            match expected {
                Ok(path) => assert_eq!(asked.unwrap(), path),
                Err(text) => {
                    let error = asked.unwrap_err().to_string();
                    assert!(error.contains(text), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_password_leaves_as_its_digest() {
        let path = user("ann", "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(path, format!("/cluster/user/set?name=ann&sha256={digest}"));
        assert!(user("ann&name=bob", "abc").is_err());
    }

    #[test]
    fn the_trail_says_who_asked_for_what_and_what_came_of_it() {
        let trail = trail(&serde_json::json!({"operations": [
            {"at": 0, "by": "admin", "what": "alter keyspace 3", "version": 9, "refused": null},
            {"at": 1000, "by": "admin", "what": "remove user ann", "version": null, "refused": "there is no user ann"},
        ]}));
        assert_eq!(
            trail,
            "1970-01-01 00:00:00  admin     alter keyspace 3  (state 9)\n\
             1970-01-01 00:00:01  admin     remove user ann  (refused: there is no user ann)\n"
        );
    }
}
