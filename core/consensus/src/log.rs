//! A group's log as the engine reads it: recent entries in memory, older ones from the host, terms of all.
//!
//! Whatever is above the applied index is in memory: the engine asks for it without being able to wait. Below, entries
//! stay while they fit a bound; a follower that needs older ones waits until the host has read them from the
//! node's log. Compaction follows the host's checkpoints.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use kernel::{Index, Term};
use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use crate::entry::Logged;
use crate::members::Mark;

/// Most reads of old entries that wait for the host at once: one a follower is enough.
const WAITING_MAX: usize = 64;

/// The log of one replica.
pub(crate) struct Log {
    initial: RaftState,
    /// The last entry that is given away, whose term is still known.
    base: (u64, u64),
    /// Where each term begins, above the base.
    terms: VecDeque<(u64, u64)>,
    last: u64,
    /// The entries up to `last`, without a hole.
    held: VecDeque<Entry>,
    bytes: usize,
    /// Old entries that the host has read.
    fetched: Vec<Entry>,
    /// Whether somebody asked for them since they came, or were looked at last.
    wanted: Cell<bool>,
    offer: Option<Snapshot>,
    asked: RefCell<Asked>,
}

/// What the engine asked for and did not get yet.
#[derive(Default)]
struct Asked {
    snapshot: bool,
    entries: Vec<(u64, u64, GetEntriesContext)>,
}

impl Log {
    /// The log behind `base`, of a replica whose state machine is at `mark`.
    pub fn new(hard: HardState, mark: &Mark, base: (Index, Term), entries: Vec<Logged>) -> Log {
        let mut log = Log {
            initial: RaftState::new(hard, mark.members.to_engine()),
            base: (base.0.0, base.1.0),
            terms: VecDeque::new(),
            last: base.0.0,
            held: VecDeque::new(),
            bytes: 0,
            fetched: Vec::new(),
            wanted: Cell::new(false),
            offer: None,
            asked: RefCell::default(),
        };
        log.append(entries.into_iter().map(|entry| entry.0).collect());
        log
    }

    /// The log of a replica that has nothing and knows nobody.
    pub fn empty(hard: HardState) -> Log {
        Log {
            initial: RaftState::new(hard, raft::eraftpb::ConfState::default()),
            base: (0, 0),
            terms: VecDeque::new(),
            last: 0,
            held: VecDeque::new(),
            bytes: 0,
            fetched: Vec::new(),
            wanted: Cell::new(false),
            offer: None,
            asked: RefCell::default(),
        }
    }

    fn held_first(&self) -> u64 {
        self.last + 1 - self.held.len() as u64
    }

    /// Gives back old entries that nobody has asked for since the last call.
    pub fn forget_unwanted(&mut self) {
        if !self.wanted.replace(false) {
            self.fetched = Vec::new();
        }
    }

    /// Takes entries that follow, or replace a tail that was never committed.
    pub fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        assert!(first > self.base.0 && first <= self.last + 1, "entries follow what the log has");
        while self.last >= first {
            let Some(entry) = self.held.pop_back() else { break };
            self.bytes -= size(&entry);
            self.last -= 1;
        }
        self.last = first - 1;
        while self.terms.back().is_some_and(|&(start, _)| start >= first) {
            self.terms.pop_back();
        }
        for entry in entries {
            if self.terms.back().is_none_or(|&(_, term)| term != entry.term) {
                self.terms.push_back((entry.index, entry.term));
            }
            self.last = entry.index;
            self.bytes += size(&entry);
            self.held.push_back(Logged::settled(entry).0);
        }
    }

    /// Gives memory back: entries up to `applied` that do not fit the bound.
    pub fn evict(&mut self, applied: u64, bytes_max: usize) {
        while self.bytes > bytes_max && self.held_first() <= applied {
            let Some(entry) = self.held.pop_front() else { return };
            self.bytes -= size(&entry);
        }
    }

    /// Everything up to `index` is in a checkpoint and will not be asked for any more.
    pub fn compact(&mut self, index: u64) {
        let Some(term) = self.term_of(index) else { return };
        while self.held_first() <= index {
            let Some(entry) = self.held.pop_front() else { break };
            self.bytes -= size(&entry);
        }
        while self.terms.get(1).is_some_and(|&(start, _)| start <= index + 1) {
            self.terms.pop_front();
        }
        if let Some(run) = self.terms.front_mut() {
            run.0 = run.0.max(index + 1);
        }
        if self.terms.front().is_some_and(|&(start, _)| start > self.last) {
            self.terms.clear();
        }
        self.base = (index, term);
    }

    /// The log begins anew behind a snapshot.
    pub fn reset(&mut self, index: u64, term: u64) {
        self.held.clear();
        self.terms.clear();
        self.fetched.clear();
        (self.base, self.last, self.bytes, self.offer) = ((index, term), index, 0, None);
    }

    /// The term at `index`, if the log has or had it last.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        if index < self.base.0 || index > self.last {
            return None;
        }
        let run = self.terms.partition_point(|&(start, _)| start <= index);
        self.terms.get(run.checked_sub(1)?).map(|&(_, term)| term)
    }

    /// Followers far behind get this snapshot, if the log still follows it.
    pub fn offer(&mut self, snapshot: Snapshot) -> bool {
        let index = snapshot.get_metadata().index;
        let newer = self.offer.as_ref().is_none_or(|old| old.get_metadata().index <= index);
        if index < self.base.0 || !newer {
            return false;
        }
        self.offer = Some(snapshot);
        true
    }

    /// Takes an offer back.
    pub fn retract(&mut self, is_it: impl Fn(&Snapshot) -> bool) {
        self.offer.take_if(|offer| is_it(offer));
    }

    /// Whether a follower needs a snapshot that was not there; asked once.
    pub fn take_snapshot_asked(&mut self) -> bool {
        std::mem::take(&mut self.asked.get_mut().snapshot)
    }

    /// The oldest and newest entries that followers wait for.
    pub fn entries_asked(&self) -> Option<(Index, Index)> {
        let asked = self.asked.borrow();
        let first = asked.entries.first()?;
        Some((Index(first.0), Index((first.1 - 1).min(self.held_first().saturating_sub(1)))))
    }

    /// The host has read old entries, or could not; who waited asks again.
    pub fn take_waiting(&mut self, entries: Vec<Entry>) -> Vec<GetEntriesContext> {
        self.fetched = entries;
        self.wanted.set(true);
        std::mem::take(&mut self.asked.get_mut().entries).into_iter().map(|(_, _, context)| context).collect()
    }
}

fn size(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + size_of::<Entry>()
}

/// As many clones of `entries` as fit `max` bytes, at least one.
fn copies<'a>(entries: impl Iterator<Item = &'a Entry>, max: u64) -> Vec<Entry> {
    let mut bytes = 0;
    let mut copies = Vec::new();
    for entry in entries {
        bytes += (entry.data.len() + entry.context.len()) as u64;
        if bytes > max && !copies.is_empty() {
            break;
        }
        copies.push(entry.clone());
    }
    copies
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let max = max_size.into().unwrap_or(u64::MAX);
        if low <= self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let first = self.held_first();
        if low >= first {
            let (from, to) = ((low - first) as usize, (high - first) as usize);
            return Ok(copies(self.held.range(from..to), max));
        }
        if let Some(start) = self.fetched.first().map(|entry| entry.index)
            && low >= start
            && low < start + self.fetched.len() as u64
        {
            self.wanted.set(true);
            let (from, to) = ((low - start) as usize, ((high - start) as usize).min(self.fetched.len()));
            return Ok(copies(self.fetched[from..to].iter(), max));
        }
        let mut asked = self.asked.borrow_mut();
        if context.can_async() && asked.entries.len() < WAITING_MAX {
            asked.entries.push((low, high, context));
        }
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let missing = if index < self.base.0 { StorageError::Compacted } else { StorageError::Unavailable };
        self.term_of(index).ok_or(Error::Store(missing))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last)
    }

    /// The offer, if the log still follows it and `to` is a member in it: who was added later would be told by it that it
    /// is none.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let fits = |snapshot: &&Snapshot| {
            let (index, members) = (snapshot.get_metadata().index, snapshot.get_metadata().get_conf_state());
            let sets = [&members.voters, &members.learners, &members.voters_outgoing];
            index >= request_index && index >= self.base.0 && sets.iter().any(|set| set.contains(&to))
        };
        if let Some(snapshot) = self.offer.as_ref().filter(fits) {
            return Ok(snapshot.clone());
        }
        self.asked.borrow_mut().snapshot = true;
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

#[cfg(test)]
mod tests {
    use kernel::Micros;

    use super::*;
    use crate::members::{Members, ReplicaId};

    fn log(terms: &[u64]) -> Log {
        let mark = Mark::first(Members::new(ReplicaId::new(1), []).expect("sound"));
        let entry =
            |(at, &term): (usize, &u64)| Logged::new(Term(term), Index(at as u64 + 2), 1, Micros(0), b"body");
        let entries = terms.iter().enumerate().map(entry).collect();
        Log::new(HardState::default(), &mark, (Index(1), Term(1)), entries)
    }

    fn terms(log: &Log) -> Vec<Option<u64>> {
        (0..=log.last + 1).map(|index| log.term_of(index)).collect()
    }

    #[test]
    fn terms_are_known_after_compaction_and_overwriting() {
        let mut log = log(&[1, 2, 2, 3]);
        assert_eq!(terms(&log), [None, Some(1), Some(1), Some(2), Some(2), Some(3), None]);
        log.compact(3);
        assert_eq!(terms(&log), [None, None, None, Some(2), Some(2), Some(3), None]);
        log.append(vec![Logged::new(Term(5), Index(5), 1, Micros(0), b"").0]);
        assert_eq!(terms(&log), [None, None, None, Some(2), Some(2), Some(5), None]);
        log.compact(5);
        assert_eq!((log.first_index(), log.last), (Ok(6), 5));
        assert_eq!(log.term_of(5), Some(5));
        log.append(vec![Logged::new(Term(6), Index(6), 1, Micros(0), b"").0]);
        assert_eq!(log.term_of(6), Some(6));
    }

    #[test]
    fn what_left_memory_is_asked_of_the_host_and_then_served() {
        let mut log = log(&[1; 9]);
        log.evict(5, 0);
        assert_eq!(log.held_first(), 6, "what is not applied stays");
        let waiting = log.entries(3, 8, None, GetEntriesContext::empty(true));
        assert_eq!(waiting, Err(Error::Store(StorageError::LogTemporarilyUnavailable)));
        assert_eq!(log.entries_asked(), Some((Index(3), Index(5))));
        let read = (2..6).map(|at| Logged::new(Term(1), Index(at), 1, Micros(0), b"body").0).collect();
        assert_eq!(log.take_waiting(read).len(), 1);
        let served = log.entries(3, 8, None, GetEntriesContext::empty(true)).expect("served");
        assert_eq!(served.iter().map(|entry| entry.index).collect::<Vec<_>>(), [3, 4, 5]);
        log.forget_unwanted();
        assert!(log.entries(3, 8, None, GetEntriesContext::empty(false)).is_ok(), "they were wanted");
        log.forget_unwanted();
        log.forget_unwanted();
        assert!(log.entries(3, 8, None, GetEntriesContext::empty(false)).is_err(), "they were not");
    }

    #[test]
    fn an_offer_that_was_taken_back_is_asked_for_again() {
        let mut log = log(&[1; 3]);
        log.compact(4);
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().index = 4;
        snapshot.mut_metadata().mut_conf_state().voters = vec![1];
        assert!(log.offer(snapshot));
        assert!(log.snapshot(0, 1).is_ok() && !log.take_snapshot_asked());
        log.retract(|_| false);
        assert!(log.snapshot(0, 1).is_ok(), "another one was meant");
        log.retract(|_| true);
        assert!(log.snapshot(0, 1).is_err() && log.take_snapshot_asked());
    }
}
