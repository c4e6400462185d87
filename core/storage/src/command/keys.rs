//! `KEYS`, and the keys of a slot: the keys of one moment that match, walked in the order of their hashes.
//!
//! The answer is the one Redis would give at the moment the command began, to the byte the same whether the walk
//! was one or went on over many turns: a key that came since is left out, and one that went before the walk came to
//! it is put in where it was.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use kernel::Millis;
use kernel::codec::{Reader, put_bytes};
use placement::Slot;

use crate::command::{Command, Flags};
use crate::object::glob::{Case, matches};
use crate::object::parse_canonical;
use crate::object::table::{CURSOR_SHIFT, Key, Table};
use crate::store::long::{LongRead, Steps};
use crate::{Exec, Fault, Reply};

/// The id of a slot's keys: its number, and how many at most.
pub const SLOT_KEYS: u16 = 9;
/// The id of the number of a slot's keys.
pub const SLOT_COUNT: u16 = 10;

/// The rows that only the front-end sends.
pub const COMMANDS: &[Command] = &[
    Command::read(SLOT_KEYS, "archipel.slot-keys", 3, super::Keys::None, slot_keys).with(Flags::INTERNAL),
    Command::read(SLOT_COUNT, "archipel.slot-count", 2, super::Keys::None, slot_count).with(Flags::INTERNAL),
];

pub(super) fn keys(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    walk(exec, Filter::Pattern(args[0].into()), Tell::All)
}

fn slot_keys(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let most = parse_canonical(args[1]).ok_or(Fault::NotInteger)?;
    let filter = Filter::slot(args[0])?;
    walk(exec, filter, Tell::Most(usize::try_from(most).map_err(|_| Fault::NotPositive)?))
}

fn slot_count(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    walk(exec, Filter::slot(args[0])?, Tell::Count)
}

fn walk(exec: &mut Exec<'_>, filter: Filter, tell: Tell) -> Result<(), Fault> {
    let most = match tell {
        Tell::All => usize::MAX,
        Tell::Most(most) => most,
        Tell::Count => 0,
    };
    let at = exec.store.observe_moment();
    exec.answer_long(Box::new(Keys {
        filter,
        tell,
        at,
        cursor: 0,
        walked: false,
        appeared: BTreeSet::new(),
        gone: BTreeSet::new(),
        found: Found { most, bytes: Vec::new(), count: 0 },
        told: None,
    }))
}

/// Which keys are meant.
enum Filter {
    Pattern(Box<[u8]>),
    Slot(Slot),
}

impl Filter {
    fn slot(word: &[u8]) -> Result<Filter, Fault> {
        let number = parse_canonical(word).and_then(|number| u16::try_from(number).ok());
        number.and_then(Slot::new).map(Filter::Slot).ok_or(Fault::OutOfRange)
    }

    fn takes(&self, key: &[u8]) -> bool {
        match self {
            Filter::Pattern(pattern) => matches(pattern, key, Case::Exact),
            Filter::Slot(slot) => Slot::of(key) == *slot,
        }
    }
}

/// What is told of the keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tell {
    All,
    Most(usize),
    Count,
}

struct Keys {
    filter: Filter,
    tell: Tell,
    /// The moment it answers for.
    at: Millis,
    /// Where the walk goes on; see [`Table::scan`].
    cursor: u64,
    walked: bool,
    /// Keys before it that were not there at the moment.
    appeared: BTreeSet<Key>,
    /// Keys before it that were there at the moment, match, and are gone; by their hash.
    gone: BTreeSet<(u64, Key)>,
    found: Found,
    told: Option<usize>,
}

/// Keys one behind another.
struct Found {
    bytes: Vec<u8>,
    /// How many were found.
    count: usize,
    /// How many of them are kept at most.
    most: usize,
}

impl Found {
    fn push(&mut self, key: &[u8]) {
        if self.count < self.most {
            put_bytes(&mut self.bytes, key);
        }
        self.count += 1;
    }

    /// Those that are gone and whose hash is below `until`; `None` for all.
    fn push_gone(&mut self, gone: &mut BTreeSet<(u64, Key)>, until: Option<u64>) {
        while gone.first().is_some_and(|(hash, _)| until.is_none_or(|until| *hash < until)) {
            let first = gone.pop_first();
            self.push(&first.expect("there is a first").1);
        }
    }
}

impl Keys {
    /// Whether the walk is still to come to `hash`.
    const fn is_ahead(&self, hash: u64) -> bool {
        !self.walked && hash >> CURSOR_SHIFT >= self.cursor
    }

    const fn was_alive(&self, expire_at: u64) -> bool {
        expire_at == 0 || expire_at > self.at.0
    }
}

impl LongRead for Keys {
    fn find(&mut self, table: &Table, steps: &mut Steps) -> Result<bool, Fault> {
        while !self.walked && steps.left() > 0 {
            let Keys { filter, appeared, gone, found, at, .. } = self;
            let mut passed = 0;
            let next = table.scan(self.cursor, steps.left().min(WALK_KEYS_MAX), &mut |_, entry| {
                passed += 1;
                if !gone.is_empty() {
                    found.push_gone(gone, Some(table.hash(&entry.key)));
                }
                let new = !appeared.is_empty() && appeared.remove(&entry.key);
                let alive = entry.expire_at == 0 || entry.expire_at > at.0;
                if !new && alive && filter.takes(&entry.key) {
                    found.push(&entry.key);
                }
            });
            // One for the call: places without keys are passed by, too.
            steps.take(passed + 1);
            self.walked = next == 0 || self.tell != Tell::Count && self.found.count >= self.found.most;
            self.cursor = next;
            let until = (!self.walked).then_some(next << CURSOR_SHIFT);
            self.found.push_gone(&mut self.gone, until);
        }
        Ok(self.walked)
    }

    fn answers(&self) -> usize {
        self.found.count.min(self.found.most)
    }

    fn tell(&mut self, steps: &mut Steps, reply: &mut dyn Reply) -> bool {
        if self.tell == Tell::Count {
            reply.int(self.found.count as i64);
            return true;
        }
        let kept = self.answers();
        let from = *self.told.get_or_insert_with(|| {
            reply.array(kept);
            0
        });
        let mut reader = Reader::new(&self.found.bytes[from..]);
        while !reader.is_empty() && steps.left() > 0 {
            reply.bulk(reader.bytes().expect("keys are read as they were put there"));
            steps.take(1);
        }
        self.told = Some(self.found.bytes.len() - reader.rest().len());
        reader.is_empty()
    }

    fn appeared(&mut self, hash: u64, key: &[u8]) {
        if self.is_ahead(hash) {
            self.appeared.insert(Key::from_slice(key));
        }
    }

    fn gone(&mut self, hash: u64, key: &[u8], expire_at: u64) {
        if self.is_ahead(hash)
            && !self.appeared.remove(key)
            && self.was_alive(expire_at)
            && self.filter.takes(key)
        {
            self.gone.insert((hash, Key::from_slice(key)));
        }
    }
}

/// Keys that the table is asked for at a time.
const WALK_KEYS_MAX: usize = 1024;
