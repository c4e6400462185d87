//! A host of one replica, with a register machine as its state.

use std::collections::{BTreeMap, VecDeque};

use consensus::group::{Committed, ReadId};
use consensus::{Body, Replica, ReplicaId};
use kernel::codec::Reader;
use kernel::{Index, Micros, Term};

use crate::disk::Disk;

/// Registers, each with the index of its last write, and a digest of everything that was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub applied: u64,
    pub digest: u64,
    pub registers: BTreeMap<u8, (u64, u64)>,
}

impl State {
    /// Applies an entry.
    pub fn apply(&mut self, committed: &Committed) {
        assert_eq!(committed.index.0, self.applied + 1, "entries are applied without a hole");
        self.applied = committed.index.0;
        let mut word = committed.term.0 << 32 ^ committed.index.0;
        match &committed.body {
            Body::Nothing => {}
            Body::Change(change) => {
                let mut bytes = Vec::new();
                change.encode(&mut bytes);
                word = bytes.iter().fold(word, |word, &byte| word.rotate_left(7) ^ u64::from(byte));
            }
            Body::Commands(entry) => {
                for (register, value) in writes(entry.body()) {
                    self.registers.insert(register, (value, self.applied));
                    word = word.rotate_left(9) ^ value ^ u64::from(register);
                }
            }
        }
        self.digest = (self.digest ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
    }
}

/// The writes of an entry: a register and a value each.
pub fn writes(body: &[u8]) -> Vec<(u8, u64)> {
    let mut reader = Reader::new(body);
    std::iter::from_fn(|| Some((reader.u8().ok()?, reader.u64().ok()?))).collect()
}

/// A client's request.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    Write { register: u8, value: u64 },
    Read { register: u8, floor: u64, lease: bool },
}

/// A read that waits: for its index, then for the state.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub register: u8,
    pub floor: u64,
    pub index: Option<u64>,
}

/// A process that runs.
pub struct Live {
    pub replica: Replica,
    pub state: State,
    /// Writes in entries that this life proposed.
    pub flying: BTreeMap<(Term, Index), Vec<(u8, u64)>>,
    pub queued: VecDeque<Request>,
    pub reads: BTreeMap<ReadId, Vec<Waiting>>,
    pub confirmed: Vec<Waiting>,
    pub syncing: bool,
    pub turn_due: bool,
    pub wake_at: Option<u64>,
}

impl Live {
    pub fn new(replica: Replica, state: State) -> Live {
        Live {
            replica,
            state,
            flying: BTreeMap::new(),
            queued: VecDeque::new(),
            reads: BTreeMap::new(),
            confirmed: Vec::new(),
            syncing: false,
            turn_due: false,
            wake_at: None,
        }
    }
}

/// A machine with a disk and a clock of its own.
pub struct Node {
    pub id: ReplicaId,
    pub disk: Disk,
    pub live: Option<Live>,
    /// Counts starts and stops: what was meant for an earlier life is void.
    pub epoch: u64,
    /// The clock runs so many thousandths as fast as time.
    pub rate: u64,
    pub offset: u64,
    pub paused_until: u64,
    pub slow_until: u64,
    pub full_until: u64,
    /// Snapshots that it can send, lost with the process.
    pub snapshots: BTreeMap<u64, State>,
    /// Removed from the group: it does not come back.
    pub retired: bool,
}

impl Node {
    /// The time on its clock.
    pub fn clock(&self, now: u64) -> Micros {
        Micros(self.offset + now * self.rate / 1000)
    }

    /// When its clock shows `at`.
    pub fn when(&self, at: Micros) -> u64 {
        (at.0.saturating_sub(self.offset) * 1000).div_ceil(self.rate)
    }
}
