//! Which partition of its keyspace a command belongs to, by all keys that it names.
//!
//! Keys go to partitions by their Redis slot, so keys with the same hash tag are together. What names keys of
//! several partitions is refused with Redis Cluster's `CROSSSLOT`, unless its host can divide it.

use placement::slot::hashed_part;
use placement::{Partitions, Slot};

use crate::command::sort;
use crate::{Command, Fault, Flags, Store};

/// What a command is told whose keys are in different partitions.
pub const CROSS_SLOT: Fault = Fault::Text("CROSSSLOT Keys in request don't hash to the same slot");

const SORT_PATTERN: Fault = Fault::Text(
    "ERR a BY or GET pattern of SORT needs the hash tag of the key, before its *, in a database of several \
     partitions",
);

const SCRIPT_KEY: Fault = Fault::Text(
    "ERR Script attempted to access a key of another partition; declare all keys, with one hash tag",
);

const WHOLE: Fault = Fault::Text(
    "ERR this command concerns all partitions of the database; scripts and transactions run in one",
);

/// The partition of all keys that `command` names, by what has been checked of its arguments; `None` if it
/// names none. O(bytes of the keys).
///
/// # Errors
/// [`CROSS_SLOT`]; or SORT has a pattern that may lead anywhere.
pub fn place(command: &Command, args: &[&[u8]], partitions: Partitions) -> Result<Option<u16>, Fault> {
    let mut place = None;
    let mut join = |key: &[u8]| {
        let other = partitions.of(Slot::of(key));
        if *place.get_or_insert(other) == other { Ok(()) } else { Err(CROSS_SLOT) }
    };
    for at in command.key_positions(args) {
        join(args[at])?;
    }
    if matches!(command.id, sort::SORT | sort::SORT_RO) && !args.is_empty() {
        let (target, patterns) = sort::other_keys(args);
        target.map_or(Ok(()), &mut join)?;
        for pattern in patterns {
            join(fixed_tag(pattern).ok_or(SORT_PATTERN)?)?;
        }
    }
    Ok(place)
}

/// What decides the slot of every key that comes of a pattern: its hash tag, if that stands before the `*`.
fn fixed_tag(pattern: &[u8]) -> Option<&[u8]> {
    let star = pattern.iter().position(|&byte| byte == b'*')?;
    let before = &pattern[..star];
    let tag = hashed_part(before);
    // Without a tag all of it would be hashed, the element included.
    (tag.len() < before.len()).then_some(tag)
}

/// The partition that a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Into how many its keyspace is divided.
    pub partitions: Partitions,
    /// Which of them it is.
    pub own: u16,
}

impl Store {
    /// The same store as one of several partitions: what runs in it for scripts may not leave it. Belongs to
    /// the data like its seed: replay needs the same.
    #[must_use]
    pub const fn within(mut self, scope: Scope) -> Store {
        self.scope = if scope.partitions.count() > 1 { Some(scope) } else { None };
        self
    }

    /// Refuses a script's command that concerns keys of other partitions.
    ///
    /// # Errors
    /// It does.
    pub fn check_reach(&self, command: &Command, args: &[&[u8]]) -> Result<(), Fault> {
        let Some(Scope { partitions, own }) = self.scope else { return Ok(()) };
        if command.flags.has(Flags::KEYSPACE) {
            return Err(WHOLE);
        }
        match place(command, args, partitions) {
            Ok(None) => Ok(()),
            Ok(Some(place)) if place == own => Ok(()),
            Ok(Some(_)) => Err(SCRIPT_KEY),
            Err(fault) if fault == CROSS_SLOT => Err(SCRIPT_KEY),
            Err(fault) => Err(fault),
        }
    }
}

/// The partition of a transaction's command; `None` if it names no key.
///
/// # Errors
/// As [`place`]; or it concerns the whole keyspace.
pub fn place_in_transaction(
    command: &Command,
    args: &[&[u8]],
    partitions: Partitions,
) -> Result<Option<u16>, Fault> {
    if command.flags.has(Flags::KEYSPACE) { Err(WHOLE) } else { place(command, args, partitions) }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::Registry;

    #[test]
    fn a_command_is_where_all_its_keys_are() {
        // With 2 partitions: `b` (slot 3300) and `{b}…` are in 0, `a` (15495) and `{a}…` in 1.
        let partitions = Partitions::new(2).unwrap();
        #[rustfmt::skip] // columns
        let table: &[(&str, Result<Option<u16>, Fault>)] = &[
            ("get a",                               Ok(Some(1))),
            ("get b",                               Ok(Some(0))),
            ("dbsize",                              Ok(None)),
            ("mget a {a}x",                         Ok(Some(1))),
            ("mget a b",                            Err(CROSS_SLOT)),
            ("mset a b b a",                        Err(CROSS_SLOT)),
            ("mset a b {a} a",                      Ok(Some(1))),
            ("rename a b",                          Err(CROSS_SLOT)),
            ("blpop b a 0",                         Err(CROSS_SLOT)),
            ("blpop b {b} 0",                       Ok(Some(0))),
            ("eval x 0 a b",                        Ok(None)),
            ("eval x 1 a b",                        Ok(Some(1))),
            ("eval x 2 a b",                        Err(CROSS_SLOT)),
            ("zunionstore a 2 b c",                 Err(CROSS_SLOT)),
            ("sort a",                              Ok(Some(1))),
            ("sort a store {a}x",                   Ok(Some(1))),
            ("sort a store b",                      Err(CROSS_SLOT)),
            ("sort a by nosort get #",              Ok(Some(1))),
            ("sort a by w*",                        Err(SORT_PATTERN)),
            ("sort a by *{a}",                      Err(SORT_PATTERN)),
            ("sort a by {a}w* get {a}x*->f",        Ok(Some(1))),
            ("sort a get {b}w*",                    Err(CROSS_SLOT)),
            ("sort a nonsense",                     Ok(Some(1))),
        ];
        let registry = Registry::new();
        for (text, expected) in table {
            let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
            let command = registry.find(words[0]).unwrap();
            assert_eq!(place(command, &words[1..], partitions), *expected, "{text}");
        }
    }

    #[test]
    fn a_store_of_several_partitions_keeps_scripts_within_its_own() {
        let scope = |count, own| Scope { partitions: Partitions::new(count).unwrap(), own };
        let registry = Registry::new();
        #[rustfmt::skip] // columns
        let table: &[(&str, u16, Result<(), Fault>)] = &[
            ("get a",       1, Ok(())),
            ("get a",       0, Err(SCRIPT_KEY)),
            ("mget a b",    1, Err(SCRIPT_KEY)),
            ("dbsize",      1, Err(WHOLE)),
            ("sort a by w*", 1, Err(SORT_PATTERN)),
        ];
        for (text, own, expected) in table {
            let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
            let command = registry.find(words[0]).unwrap();
            let store = Store::new(1).within(scope(2, *own));
            assert_eq!(store.check_reach(command, &words[1..]), *expected, "{text} in {own}");
            // A keyspace of one partition has no such limit.
            assert_eq!(Store::new(1).within(scope(1, 0)).check_reach(command, &words[1..]), Ok(()));
        }
    }
}
