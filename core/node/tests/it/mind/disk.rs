//! A node's disk: a log of which a crash keeps the synced records and some of the others, and the checkpoint.

use consensus::group::Write;
use consensus::replay::{Replay, Tail};
use consensus::{Mark, ReplicaId};
use control::{State, Welcome};
use kernel::{Lsn, Rng, Term};
use node::cluster::mind::Begin;

#[derive(Default)]
pub struct Disk {
    records: Vec<(u64, Write)>,
    written: u64,
    pub synced: u64,
    pub checkpoint: Option<(Mark, Vec<u8>)>,
    pub welcome: Option<Vec<u8>>,
    pub incarnation: u64,
}

impl Disk {
    pub fn append(&mut self, writes: &[Write]) -> Lsn {
        for write in writes {
            self.written += 1;
            self.records.push((self.written, write.clone()));
        }
        Lsn(self.written)
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn is_dirty(&self) -> bool {
        self.synced < self.written
    }

    /// A power cut: a torn tail is cut somewhere behind the synced end.
    pub fn crash(&mut self, rng: &mut Rng) {
        let kept = self.synced + rng.below(self.written - self.synced + 1);
        self.records.retain(|(lsn, _)| *lsn <= kept);
        (self.written, self.synced) = (kept, kept);
    }

    /// A checkpoint is durable, and the log gives away what it covers.
    pub fn persist(&mut self, mark: Mark, state: Vec<u8>) {
        let index = mark.index;
        self.checkpoint = Some((mark, state));
        let covered = |(lsn, write): &(u64, Write)| {
            *lsn <= self.synced && matches!(write, Write::Entry(entry) if entry.index() <= index)
        };
        let Some(at) = self.records.iter().rposition(covered) else { return };
        let floor = self.records[at].0;
        self.records.retain(|(lsn, write)| *lsn > floor || matches!(write, Write::HardState { .. }));
    }

    /// What the next life begins with.
    pub fn begin(&self) -> Begin {
        let Some((mark, state)) = &self.checkpoint else {
            let welcome = self.welcome.as_ref().expect("who has no checkpoint was let in");
            let welcome = Welcome::decode(welcome).expect("a welcome");
            return Begin::Join { welcome, hard: self.hard() };
        };
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
        let restored = Box::new(replay.finish(Tail::Certain).expect("a sound log"));
        let state = Box::new(State::decode(state).expect("a state"));
        Begin::Resume { restored, state }
    }

    fn hard(&self) -> (Term, Option<ReplicaId>) {
        let hard = self.records.iter().rev().find_map(|(_, write)| match write {
            Write::HardState { term, vote } => Some((*term, *vote)),
            Write::Entry(_) | Write::Reset { .. } | Write::Abandon | Write::Committed(_) => None,
        });
        hard.unwrap_or((Term(0), None))
    }
}
