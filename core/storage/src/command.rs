//! The table of commands: what each is called, what it touches, and the handler that runs it.
//!
//! One file per family. A command's `id` is written into logs and never changes or is reused.

pub(crate) mod argument;
pub mod bitfield;
pub mod bits;
pub mod dump;
pub mod expire;
pub mod generic;
pub mod hash;
pub mod inspect;
pub mod keys;
pub mod lcs;
pub mod list;
pub mod list_blocking;
pub(crate) mod sample;
pub mod script;
pub mod session;
pub mod set;
pub mod sort;
pub mod string;
pub mod summary;
pub mod tagged;
pub mod zset;
pub mod zset_blocking;
pub mod zset_range;
pub mod zset_store;

use alloc::vec::Vec;

use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::{Exec, Fault};

/// Runs a command. `args` are its arguments without its name; the arity has been checked.
///
/// A handler answers exactly once through `exec.reply`, or returns the fault to be answered, or
/// (blocking commands) registers with `exec.effects.block` and answers nothing. It must check all of its
/// arguments before its first change, so that a refused command changes nothing.
pub type Handler = fn(&mut Exec<'_>, &[&[u8]]) -> Result<(), Fault>;

/// Whether a command may change the state, and so goes through the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs on the applied state; never changes it.
    Read,
    /// Is logged, then applied.
    Write,
}

/// Where a command's keys stand among its arguments. Positions count the command's name as 0.
#[derive(Clone, Copy)]
pub enum Keys {
    /// It names no key; it runs in the connection's keyspace as a whole.
    None,
    /// From `first` to `last` (negative: from the end, as in `COMMAND`) in steps of `step`.
    Range {
        /// First position.
        first: i8,
        /// Last position, -1 for the last argument.
        last: i8,
        /// Distance between keys.
        step: i8,
    },
    /// The argument at this position says how many keys follow it.
    Counted(u8),
    /// One key at position 1, and the one behind the option `STORE`, as SORT has it.
    OneAndStored,
    /// One fixed key at the first position, and a counted list whose count is at the second.
    OneAndCounted(u8, u8),
}

/// One key at position 1.
pub const ONE: Keys = Keys::Range { first: 1, last: 1, step: 1 };
/// Two keys at positions 1 and 2.
pub const TWO: Keys = Keys::Range { first: 1, last: 2, step: 1 };
/// Every argument is a key.
pub const ALL: Keys = Keys::Range { first: 1, last: -1, step: 1 };
/// Keys and values alternate.
pub const PAIRS: Keys = Keys::Range { first: 1, last: -1, step: 2 };
/// Every argument but the last, which is a timeout.
pub const ALL_BUT_LAST: Keys = Keys::Range { first: 1, last: -2, step: 1 };

/// What else there is to know about a command, as a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// None of them.
    pub const NONE: Flags = Flags(0);
    /// O(1) or O(log n).
    pub const FAST: Flags = Flags(1);
    /// May wait for data.
    pub const BLOCKING: Flags = Flags(2);
    /// Not from a script.
    pub const NO_SCRIPT: Flags = Flags(4);
    /// Refused when the keyspace is over its memory budget and may not evict.
    pub const DENY_OOM: Flags = Flags(8);
    /// Only written by the node itself; no client may send it.
    pub const INTERNAL: Flags = Flags(16);
    /// Looks at every partition of the keyspace.
    pub const KEYSPACE: Flags = Flags(32);
    /// The front-end looks at it first: some of its subcommands or options are not the store's.
    pub const SESSION: Flags = Flags(64);
    /// Does not look at what its keys hold, so nothing needs to be read back from the engine for it.
    pub const BLIND: Flags = Flags(128);
    /// May be divided by its keys among partitions: what the parts answer adds up, or is the same, or is one
    /// element for each key.
    pub const DIVISIBLE: Flags = Flags(256);

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// True if all of `other` are set.
    #[must_use]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One row of the table.
pub struct Command {
    /// Its number in log entries. For ever.
    pub id: u16,
    /// Lower case.
    pub name: &'static str,
    /// Redis's arity: arguments with the name; negative is "at least".
    pub arity: i8,
    /// Read or write.
    pub kind: Kind,
    /// Where its keys are.
    pub keys: Keys,
    /// Its other properties.
    pub flags: Flags,
    /// What runs it.
    pub handler: Handler,
}

impl core::fmt::Debug for Command {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name)
    }
}

impl Command {
    /// A reading command.
    pub const fn read(id: u16, name: &'static str, arity: i8, keys: Keys, handler: Handler) -> Command {
        Command { id, name, arity, kind: Kind::Read, keys, flags: Flags::NONE, handler }
    }

    /// A writing command.
    pub const fn write(id: u16, name: &'static str, arity: i8, keys: Keys, handler: Handler) -> Command {
        Command { id, name, arity, kind: Kind::Write, keys, flags: Flags::NONE, handler }
    }

    /// The same with `flags` too.
    #[must_use]
    pub const fn with(mut self, flags: Flags) -> Command {
        self.flags = self.flags.and(flags);
        self
    }

    /// Whether `count` arguments, the name excluded, fit.
    #[must_use]
    pub const fn takes(&self, count: usize) -> bool {
        let with_name = count + 1;
        if self.arity >= 0 { with_name == self.arity as usize } else { with_name >= -self.arity as usize }
    }

    /// Whether it looks at what its keys hold. `SET` does so only when it answers the old value.
    #[must_use]
    pub fn reads_values(&self, args: &[&[u8]]) -> bool {
        !self.flags.has(Flags::BLIND)
            || self.id == string::SET
                && args
                    .get(2..)
                    .is_some_and(|options| options.iter().any(|word| word.eq_ignore_ascii_case(b"get")))
    }

    /// The positions of its keys in `args` (name excluded). Nonsense counts give what is there.
    #[must_use]
    pub fn key_positions(&self, args: &[&[u8]]) -> SmallVec<[usize; 4]> {
        let counted = |at: usize, keys: &mut SmallVec<[usize; 4]>| {
            let count = args.get(at - 1).and_then(|n| core::str::from_utf8(n).ok()?.parse::<usize>().ok());
            let end = count.unwrap_or(0).saturating_add(at).min(args.len());
            keys.extend(at..end);
        };
        let mut keys = SmallVec::new();
        match self.keys {
            Keys::None => {}
            Keys::Range { first, last, step } => {
                let end = if last < 0 { args.len() as isize + 1 + last as isize } else { last as isize };
                let end = end.min(args.len() as isize);
                let mut at = first as isize;
                while at <= end {
                    keys.push(at as usize - 1);
                    at += step as isize;
                }
            }
            Keys::Counted(at) => counted(at as usize, &mut keys),
            Keys::OneAndStored => {
                keys.extend((!args.is_empty()).then_some(0));
                keys.extend(stored(args));
            }
            Keys::OneAndCounted(one, at) => {
                if args.len() >= one as usize {
                    keys.push(one as usize - 1);
                }
                counted(at as usize, &mut keys);
            }
        }
        keys
    }
}

/// Where the key behind SORT's last `STORE` is.
fn stored(args: &[&[u8]]) -> Option<usize> {
    let (mut at, mut found) = (1, None);
    while let Some(word) = args.get(at) {
        let is = |option: &str| word.eq_ignore_ascii_case(option.as_bytes());
        at += match () {
            () if is("limit") => 3,
            () if is("by") || is("get") => 2,
            () if is("store") => {
                found = Some(at + 1).filter(|&at| at < args.len());
                2
            }
            () => 1,
        };
    }
    found
}

/// Every family's commands. Internal ones have ids below 16.
const FAMILIES: &[&[Command]] = &[
    generic::COMMANDS,
    session::COMMANDS,
    keys::COMMANDS,
    string::COMMANDS,
    lcs::COMMANDS,
    bits::COMMANDS,
    bitfield::COMMANDS,
    expire::COMMANDS,
    inspect::COMMANDS,
    dump::COMMANDS,
    sort::COMMANDS,
    zset::COMMANDS,
    zset_range::COMMANDS,
    zset_store::COMMANDS,
    zset_blocking::COMMANDS,
    list::COMMANDS,
    list_blocking::COMMANDS,
    set::COMMANDS,
    hash::COMMANDS,
    script::COMMANDS,
    tagged::COMMANDS,
];

/// Finds commands by name and by id. Built once per worker.
pub struct Registry {
    by_name: HashTable<&'static Command>,
    by_id: Vec<Option<&'static Command>>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new()
    }
}

impl Registry {
    /// All commands of the store.
    #[must_use]
    pub fn new() -> Registry {
        let mut registry = Registry { by_name: HashTable::with_capacity(512), by_id: Vec::new() };
        for command in FAMILIES.iter().copied().flatten() {
            let id = usize::from(command.id);
            if registry.by_id.len() <= id {
                registry.by_id.resize(id + 1, None);
            }
            assert!(registry.by_id[id].is_none(), "command ids are unique: {} {id}", command.name);
            registry.by_id[id] = Some(command);
            let hash = fold(command.name.as_bytes());
            registry.by_name.insert_unique(hash, command, |command| fold(command.name.as_bytes()));
        }
        registry
    }

    /// The command called `name`, in any case.
    #[inline]
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&'static Command> {
        self.by_name.find(fold(name), |command| command.name.as_bytes().eq_ignore_ascii_case(name)).copied()
    }

    /// The command that a client's `name` and `args` ask for, and its arguments. A subcommand has a row
    /// of its own, called `container|sub`, whose arguments do not repeat the subcommand's name.
    #[must_use]
    pub fn resolve<'a, 'b>(
        &self,
        name: &[u8],
        args: &'a [&'b [u8]],
    ) -> Option<(&'static Command, &'a [&'b [u8]])> {
        if name.contains(&b'|') {
            return None;
        }
        let command = self.find(name)?;
        if let (script::CONTAINER, [sub, rest @ ..]) = (command.id, args) {
            let mut joined: SmallVec<[u8; 32]> = SmallVec::from_slice(command.name.as_bytes());
            joined.push(b'|');
            joined.extend_from_slice(&sub[..sub.len().min(32)]);
            if let Some(found) = self.find(&joined) {
                return Some((found, rest));
            }
        }
        Some((command, args))
    }

    /// The command an entry names.
    #[inline]
    #[must_use]
    pub fn by_id(&self, id: u16) -> Option<&'static Command> {
        self.by_id.get(usize::from(id)).copied().flatten()
    }

    /// The command that does the same as `command` with `args` without a log, where there is one; else itself.
    #[inline]
    #[must_use]
    pub fn unlogged(&self, command: &'static Command, args: &[&[u8]]) -> &'static Command {
        let reads = command.id == sort::SORT && sort::only_reads(args);
        if reads { self.by_id(sort::SORT_RO).unwrap_or(command) } else { command }
    }

    /// All commands that clients may send.
    pub fn iter(&self) -> impl Iterator<Item = &'static Command> + '_ {
        self.by_id.iter().flatten().copied().filter(|command| !command.flags.has(Flags::INTERNAL))
    }
}

/// A hash that ignores ASCII case: names are short, so their first and last eight bytes and length do.
#[inline]
fn fold(name: &[u8]) -> u64 {
    let mut first = 0u64;
    for &byte in name.iter().take(8) {
        first = first << 8 | u64::from(byte | 0x20);
    }
    let mut last = name.len() as u64;
    for &byte in name.iter().skip(8).take(8) {
        last = last << 8 | u64::from(byte | 0x20);
    }
    let mixed = (first ^ last.rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_any_case() {
        let registry = Registry::new();
        for command in registry.iter() {
            let upper = command.name.to_ascii_uppercase();
            assert_eq!(registry.find(upper.as_bytes()).map(|found| found.id), Some(command.id));
            assert_eq!(registry.by_id(command.id).map(|found| found.name), Some(command.name));
        }
        assert!(registry.find(b"nosuchcommand").is_none());
        assert!(registry.find(b"").is_none());
    }

    #[test]
    fn a_subcommand_is_found_behind_its_container() {
        let registry = Registry::new();
        let resolve = |name: &str, args: &[&[u8]]| {
            registry.resolve(name.as_bytes(), args).map(|(command, args)| (command.name, args.len()))
        };
        assert_eq!(resolve("SCRIPT", &[b"Load", b"x"]), Some(("script|load", 1)));
        assert_eq!(resolve("script", &[b"nosuch", b"x"]), Some(("script", 2)));
        assert_eq!(resolve("script", &[]), Some(("script", 0)));
        assert_eq!(resolve("script|load", &[b"x"]), None);
        assert_eq!(resolve("get", &[b"load"]), Some(("get", 1)));
        assert_eq!(resolve("nosuch", &[]), None);
    }

    #[test]
    fn keys_stand_where_redis_says() {
        let args: Vec<&[u8]> = alloc::vec![b"a", b"2", b"b", b"c", b"d"];
        let positions = |keys| {
            let command = Command::read(1, "x", -1, keys, |_, _| Ok(()));
            command.key_positions(&args).to_vec()
        };
        assert_eq!(positions(ONE), [0]);
        assert_eq!(positions(ALL), [0, 1, 2, 3, 4]);
        assert_eq!(positions(PAIRS), [0, 2, 4]);
        assert_eq!(positions(ALL_BUT_LAST), [0, 1, 2, 3]);
        assert_eq!(positions(Keys::Counted(2)), [2, 3]);
        #[rustfmt::skip] // columns
        let sorts: [(&[&str], &[usize]); 5] = [
            (&["l"],                                         &[0]),
            (&["l", "ALPHA", "store", "d"],                  &[0, 3]),
            (&["l", "BY", "store", "GET", "store"],          &[0]),
            (&["l", "LIMIT", "0", "1", "STORE", "d", "ASC"], &[0, 5]),
            (&["l", "STORE"],                                &[0]),
        ];
        for (words, expected) in sorts {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            let command = Command::write(0, "sort", -2, Keys::OneAndStored, |_, _| Ok(()));
            assert_eq!(command.key_positions(&words).as_slice(), expected, "{words:?}");
        }
        assert_eq!(positions(Keys::OneAndCounted(1, 2)), [0, 2, 3]);
        assert!(positions(Keys::None).is_empty());
    }
}
