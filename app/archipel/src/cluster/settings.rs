//! What is asked of keyspaces and users, as the admin port takes it; and the trail of all changes.

use std::io::{BufRead, IsTerminal};

use anyhow::{Context, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::command::{KeyspaceArgs, KeyspaceCommand};

/// The path that makes or changes a keyspace.
pub fn keyspace(what: &KeyspaceCommand) -> anyhow::Result<String> {
    let (verb, id, partitions, settings) = match what {
        KeyspaceCommand::Create { id, partitions, settings } => ("create", id, *partitions, settings),
        KeyspaceCommand::Alter { id, settings } => ("alter", id, None, settings),
    };
    let KeyspaceArgs { name, copies, durability, memory, eviction } = settings;
    let name = name.as_deref().map(plain).transpose()?.map(str::to_owned);
    let eviction = eviction.as_deref().map(plain).transpose()?.map(str::to_owned);
    let said = [
        ("name", name),
        ("partitions", partitions.map(|count| count.to_string())),
        ("copies", copies.map(|count| count.to_string())),
        ("durability", durability.clone()),
        ("memory", memory.map(|bytes| bytes.to_string())),
        ("eviction", eviction),
    ];
    let said = said.into_iter().filter_map(|(name, value)| Some(format!("&{name}={}", value?)));
    Ok(format!("/cluster/keyspace/{verb}?keyspace={id}{}", said.collect::<String>()))
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
        let at = utc(one["at"].as_u64().unwrap_or_default());
        out.push_str(&format!("{at}  {:<8}  {}  ({came})\n", text("by"), text("what")));
    }
    out
}

/// Milliseconds since 1970 as `2026-01-31 12:00:00`. Howard Hinnant's `civil_from_days`, for days after 1970.
fn utc(millis: u64) -> String {
    let seconds = millis / 1000;
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let day = day - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_keyspace_is_asked_for() {
        let settings =
            KeyspaceArgs { copies: Some(5), durability: Some("always".into()), ..KeyspaceArgs::default() };
        let alter = keyspace(&KeyspaceCommand::Alter { id: 3, settings }).unwrap();
        assert_eq!(alter, "/cluster/keyspace/alter?keyspace=3&copies=5&durability=always");
        let settings = KeyspaceArgs { name: Some("orders".into()), ..KeyspaceArgs::default() };
        let create = keyspace(&KeyspaceCommand::Create { id: 20, partitions: Some(64), settings }).unwrap();
        assert_eq!(create, "/cluster/keyspace/create?keyspace=20&name=orders&partitions=64");
        for name in ["", "a b", "a&b", "a=b", "ä"] {
            let settings = KeyspaceArgs { name: Some(name.into()), ..KeyspaceArgs::default() };
            assert!(keyspace(&KeyspaceCommand::Alter { id: 3, settings }).is_err(), "{name:?}");
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
    fn times_are_told_in_utc() {
        let table = [
            (0, "1970-01-01 00:00:00"),
            (951_782_399_000, "2000-02-28 23:59:59"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_700_000_000_999, "2023-11-14 22:13:20"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
        ];
        for (millis, text) in table {
            assert_eq!(utc(millis), text);
        }
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
