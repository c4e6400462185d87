//! A replica's disk: a log of records, of which a crash keeps the synced ones and some of the others, and an engine.

use std::collections::BTreeMap;

use consensus::codec::Descriptor;
use consensus::group::Write;
use consensus::replay::{Replay, ReplayError, Restored, Tail};
use consensus::{Incarnation, Logged, Mark, Members, ReplicaId};
use kernel::{Index, Lsn, Rng, Term};

use crate::node::State;

/// What a disk has.
pub struct Disk {
    records: Vec<(u64, Write)>,
    written: u64,
    pub synced: u64,
    /// The checkpoint; `None` while the replica joins.
    pub engine: Option<(Mark, State)>,
    /// The snapshot that is being fetched, complete and checked.
    pub staged: Option<(Descriptor, State)>,
    /// Acknowledged entries may be missing.
    pub ambiguous: bool,
    pub incarnation: Incarnation,
}

impl Disk {
    pub fn new(engine: Option<(Mark, State)>) -> Disk {
        Disk {
            records: Vec::new(),
            written: 0,
            synced: 0,
            engine,
            staged: None,
            ambiguous: false,
            incarnation: Incarnation(0),
        }
    }

    pub fn append(&mut self, writes: impl Iterator<Item = Write>) -> Lsn {
        for write in writes {
            self.written += 1;
            self.records.push((self.written, write));
        }
        Lsn(self.written)
    }

    pub fn is_dirty(&self) -> bool {
        self.synced < self.written
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    /// A power cut: a torn tail is cut somewhere behind the synced end.
    pub fn crash(&mut self, rng: &mut Rng) {
        let kept = self.synced + rng.below(self.written - self.synced + 1);
        self.records.retain(|(lsn, _)| *lsn <= kept);
        (self.written, self.synced) = (kept, kept);
    }

    /// The disk lost synced entries at its end; terms and votes are safe elsewhere. False if it has no such entries.
    pub fn lose_tail(&mut self, count: usize) -> bool {
        let reset =
            self.records.iter().rposition(|(_, write)| matches!(write, Write::Reset { .. } | Write::Abandon));
        let entries: Vec<usize> = (reset.map_or(0, |at| at + 1)..self.records.len())
            .filter(|&at| matches!(self.records[at].1, Write::Entry(_)))
            .collect();
        if let Some(&first) = entries.get(entries.len().saturating_sub(count)) {
            let first = self.records[first].0;
            self.records.retain(|(lsn, write)| *lsn < first || matches!(write, Write::HardState { .. }));
        }
        self.ambiguous |= !entries.is_empty();
        !entries.is_empty()
    }

    /// The log is given away up to the last entry at or before `index`, as far as it is synced; terms and votes stay.
    pub fn compact(&mut self, index: Index) {
        let covered = |(lsn, write): &(u64, Write)| {
            *lsn <= self.synced && matches!(write, Write::Entry(entry) if entry.index() <= index)
        };
        let Some(at) = self.records.iter().rposition(covered) else { return };
        let floor = self.records[at].0;
        self.records.retain(|(lsn, write)| *lsn > floor || matches!(write, Write::HardState { .. }));
    }

    /// The newest entries at these indexes, as far as there is no hole.
    pub fn entries(&self, first: Index, last: Index) -> Vec<Logged> {
        let mut found = BTreeMap::new();
        for (_, write) in &self.records {
            if let Write::Entry(entry) = write {
                found.retain(|index, _| *index < entry.index().0);
                found.insert(entry.index().0, entry.clone());
            }
        }
        (first.0..=last.0).map_while(|index| found.get(&index).cloned()).collect()
    }

    /// What the next life takes up.
    pub fn restore(&self) -> Result<Option<(Restored, State)>, ReplayError> {
        let Some((mark, state)) = &self.engine else { return Ok(None) };
        let mut replay = Replay::new(mark.clone());
        for (_, write) in &self.records {
            match write {
                Write::Entry(entry) => replay.entry(entry.clone()),
                Write::HardState { term, vote } => replay.hard_state(*term, *vote),
                Write::Reset { index, term } => replay.reset(*index, *term),
                Write::Abandon => replay.abandon(),
                Write::Committed(index) => replay.committed(*index),
            }
        }
        let tail = if self.ambiguous { Tail::Ambiguous } else { Tail::Certain };
        replay.finish(tail).map(|restored| Some((restored, state.clone())))
    }

    /// The last term and vote of a replica that has nothing else.
    pub fn hard(&self) -> (Term, Option<ReplicaId>) {
        let hard = self.records.iter().rev().find_map(|(_, write)| match write {
            Write::HardState { term, vote } => Some((*term, *vote)),
            Write::Entry(_) | Write::Reset { .. } | Write::Abandon | Write::Committed(_) => None,
        });
        hard.unwrap_or((Term(0), None))
    }
}

/// Members of a new group.
pub fn first_members(count: u64) -> Members {
    Members::new((1..=count).filter_map(ReplicaId::new), []).expect("a group has a voter")
}
