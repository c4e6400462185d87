//! Reads too long for one turn: machines that go on a slice at a time and answer for the moment they began at.
//!
//! A machine lives in the store, which tells it of keys that appear and go: a walk over keys learns so what
//! changed before it came there. The host says how many steps each slice has (one is about one element looked at),
//! keeps what the machine has answered so far, and gives it up when nobody waits any more. Within an entry, a
//! transaction and a script the same machine runs in one go.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use kernel::Millis;
use kernel::planted::{Bug, is};

use super::Store;
use crate::object::table::Table;
use crate::{Exec, Fault, Origin, Reply};

/// Names one long read of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LongId(u64);

/// Steps that a slice has left.
#[derive(Debug)]
pub(crate) struct Steps(usize);

impl Steps {
    pub const fn new(steps: usize) -> Steps {
        Steps(steps)
    }

    pub const fn left(&self) -> usize {
        self.0
    }

    pub const fn take(&mut self, steps: usize) {
        self.0 = self.0.saturating_sub(steps);
    }
}

/// How far a slice of a long read got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Went {
    /// Steps that it did not need.
    pub left: usize,
    /// The whole answer is written.
    pub done: bool,
}

/// A read that goes on in slices. It finds its answer, and then tells it.
pub(crate) trait LongRead: Send {
    /// Goes on finding the answer for `steps`; true when it is found. `table` is the one it began with.
    ///
    /// # Errors
    /// What is answered instead. It is not called again.
    fn find(&mut self, table: &Table, steps: &mut Steps) -> Result<bool, Fault>;

    /// How many steps it takes to tell the answer.
    fn answers(&self) -> usize;

    /// Goes on telling the answer for `steps`; true when it is told.
    fn tell(&mut self, steps: &mut Steps, reply: &mut dyn Reply) -> bool;

    /// A key of its table appears.
    fn appeared(&mut self, _hash: u64, _key: &[u8]) {}

    /// A key of its table, which expires at `_expire_at` (0: never), goes.
    fn gone(&mut self, _hash: u64, _key: &[u8], _expire_at: u64) {}
}

/// The long reads of a store.
#[derive(Default)]
pub(crate) struct Longs {
    last: u64,
    running: BTreeMap<LongId, Running>,
    /// Tables that were flushed away under reads, by their generation.
    flushed: BTreeMap<u32, Flushed>,
}

struct Running {
    read: Box<dyn LongRead>,
    /// Which table it reads.
    generation: u32,
    found: bool,
}

struct Flushed {
    table: Table,
    bytes: usize,
    readers: usize,
}

impl Longs {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Bytes of the tables that are kept for reads.
    pub fn bytes(&self) -> usize {
        self.flushed.values().map(|flushed| flushed.bytes).sum()
    }

    /// The reads of the table of `generation`.
    fn readers(&mut self, generation: u32) -> impl Iterator<Item = &mut Running> {
        self.running.values_mut().filter(move |running| running.generation == generation)
    }

    #[cold]
    pub fn appeared(&mut self, generation: u32, hash: u64, key: &[u8]) {
        self.readers(generation).for_each(|running| running.read.appeared(hash, key));
    }

    #[cold]
    pub fn gone(&mut self, generation: u32, (hash, key): (u64, &[u8]), expire_at: u64) {
        if !is(Bug::LongReadMissesRemovals) {
            self.readers(generation).for_each(|running| running.read.gone(hash, key, expire_at));
        }
    }

    /// Keeps a flushed table of `bytes` for its readers; gives it back if there are none.
    pub fn keep(&mut self, generation: u32, table: Table, bytes: usize) -> Option<Table> {
        let readers = self.readers(generation).count();
        if readers == 0 {
            return Some(table);
        }
        self.flushed.insert(generation, Flushed { table, bytes, readers });
        None
    }

    /// A read of `generation` has ended; gives back what was kept for it alone.
    fn leave(&mut self, generation: u32) -> Option<(Table, usize)> {
        let flushed = self.flushed.get_mut(&generation)?;
        flushed.readers -= 1;
        if flushed.readers > 0 {
            return None;
        }
        self.flushed.remove(&generation).map(|Flushed { table, bytes, .. }| (table, bytes))
    }
}

impl core::fmt::Debug for Longs {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} long reads", self.running.len())
    }
}

impl Store {
    fn begin_long(&mut self, read: Box<dyn LongRead>, found: bool) -> LongId {
        let generation = self.generation;
        self.longs.last += 1;
        let id = LongId(self.longs.last);
        self.longs.running.insert(id, Running { read, generation, found });
        id
    }

    /// Long reads that have not answered yet.
    #[must_use]
    pub fn long_reads(&self) -> usize {
        self.longs.running.len()
    }

    /// Goes on with a long read for about `steps`; what it answers is appended to `reply`. When it is done, it is
    /// no more.
    pub fn go_on(&mut self, id: LongId, steps: usize, reply: &mut dyn Reply) -> Went {
        let mut steps = Steps(steps);
        let Some(running) = self.longs.running.get_mut(&id) else {
            return Went { left: steps.left(), done: true };
        };
        let table = self.longs.flushed.get(&running.generation).map_or(&self.table, |flushed| &flushed.table);
        if !running.found {
            match running.read.find(table, &mut steps) {
                Ok(found) => running.found = found,
                Err(fault) => {
                    reply.fault(&fault);
                    self.end_long(id);
                    return Went { left: steps.left(), done: true };
                }
            }
        }
        let done = running.found && running.read.tell(&mut steps, reply);
        if done {
            self.end_long(id);
        }
        Went { left: steps.left(), done }
    }

    /// Nobody waits for a long read any more.
    pub fn end_long(&mut self, id: LongId) {
        let Some(running) = self.longs.running.remove(&id) else { return };
        if let Some((table, bytes)) = self.longs.leave(running.generation) {
            self.graveyard.bury(table.into_pieces(), bytes, self.memory);
        }
    }

    /// The time of the running command, for a read that will go on later. If a key has expired by it and no entry
    /// says so yet, that counts as seen.
    pub(crate) fn observe_moment(&mut self) -> Millis {
        let logged = self.time.millis().0;
        let unlogged = (logged.saturating_add(1), 0, crate::object::table::Slot(0));
        let next = self.expiry.range(unlogged..).next();
        self.observed_expiry |= next.is_some_and(|&(at, _, _)| at <= self.now.0);
        self.now
    }
}

impl Exec<'_> {
    /// Answers with a long read: now, or if the host asks for slices and it needs more than one, later.
    pub(crate) fn answer_long(&mut self, mut read: Box<dyn LongRead>) -> Result<(), Fault> {
        let slice = self.effects.slice.filter(|_| self.origin == Origin::Direct).unwrap_or(usize::MAX);
        let found = read.find(&self.store.table, &mut Steps(slice))?;
        if found && read.answers() <= slice {
            read.tell(&mut Steps(usize::MAX), self.reply);
        } else {
            self.effects.long = Some(self.store.begin_long(read, found));
        }
        Ok(())
    }
}
