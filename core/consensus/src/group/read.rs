//! Linearizable reads at the leader: by asking a majority (ReadIndex, dissertation 6.4), or by lease on request.
//!
//! All reads of a turn share one context (replica, life, sequence), which goes out when the turn ends. The engine may
//! lose it (no entry of this term is committed yet, leadership is lost, answers are lost), so it has a deadline.
//!
//! A lease lasts half an election timeout from when the majority was *asked*. Followers vote for nobody within an election
//! timeout of hearing the leader, so it holds while clocks run at most twice as fast as each other. It ends with sleep,
//! with every change of members, and for the rest of the term with a handover, whose election ignores leases.

use std::collections::VecDeque;

use kernel::planted::{Bug, is};
use kernel::{Index, Micros, Term};

use super::{Event, Replica};
use crate::codec::{ReadContext, Said};
use crate::members::{Incarnation, ReplicaId};

/// Rounds that wait for a majority at once; beyond it reads are refused.
pub const READS_MAX: usize = 1024;

/// Questions of one peer how far behind it is that wait at once; one that is honest has one.
const QUESTIONS_MAX: usize = 2;

/// A read of one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);

#[derive(Default)]
pub(super) struct Reads {
    sequence: u64,
    /// Those of this turn.
    open: Option<u64>,
    waiting: VecDeque<Round>,
    lease_until: Micros,
    /// No leases in this term any more.
    spoiled: u64,
}

struct Round {
    sequence: u64,
    asked: Option<Micros>,
    deadline: Micros,
    purpose: Purpose,
}

enum Purpose {
    /// The host's reads.
    Read,
    /// The lease is renewed.
    Lease,
    /// A peer that does not lead asks how far behind it is.
    HowFar { peer: ReplicaId, life: Incarnation, number: u64 },
    /// A peer that lost its tail asks how far it must come.
    Recover { peer: ReplicaId, life: Incarnation, index: Index },
}

impl Reads {
    pub fn is_empty(&self) -> bool {
        self.open.is_none() && self.waiting.iter().all(|round| matches!(round.purpose, Purpose::Lease))
    }
}

impl Replica {
    /// Asks for a linearizable read; the answer is an [`Event::Read`]. Reads of one turn get one id. `None` if this
    /// replica does not lead, or too many wait.
    pub fn read(&mut self, now: Micros) -> Option<ReadId> {
        self.now = now;
        if !self.leads() || self.reads.waiting.len() >= READS_MAX {
            return None;
        }
        self.awaken();
        if is(Bug::ReadWithoutIndex) {
            self.reads.sequence += 1;
            let id = ReadId(self.reads.sequence);
            let index = Some(Index(self.raw.raft.raft_log.committed));
            self.events.push_back(Event::Read { id, index });
            return Some(id);
        }
        let open = match self.reads.open {
            Some(open) => open,
            None => {
                let open = self.ask(Purpose::Read);
                self.reads.open = Some(open);
                open
            }
        };
        Some(ReadId(open))
    }

    /// The index at which a read may be answered at once by lease; `None`: ask with [`Replica::read`].
    pub fn read_by_lease(&mut self, now: Micros) -> Option<Index> {
        self.now = now;
        let raft = &self.raw.raft;
        let leads = self.config.leases && self.leads() && raft.commit_to_current_term();
        let asleep = self.is_asleep();
        let holds = now < self.reads.lease_until && !asleep || asleep && is(Bug::QuiescentLease);
        let unspoiled = self.reads.spoiled != raft.term && raft.lead_transferee.is_none();
        (leads && holds && unspoiled).then_some(Index(raft.raft_log.committed))
    }

    fn ask(&mut self, purpose: Purpose) -> u64 {
        self.reads.sequence += 1;
        let sequence = self.reads.sequence;
        let deadline = self.now + self.election_micros();
        self.reads.waiting.push_back(Round { sequence, asked: None, deadline, purpose });
        sequence
    }

    pub(super) fn ask_for_peer(&mut self, peer: ReplicaId, life: Incarnation) {
        let index = self.last();
        let waits =
            |round: &Round| matches!(round.purpose, Purpose::Recover { peer: other, .. } if other == peer);
        if self.reads.waiting.len() < READS_MAX && !self.reads.waiting.iter().any(waits) {
            self.ask(Purpose::Recover { peer, life, index });
        }
    }

    pub(super) fn ask_how_far(&mut self, peer: ReplicaId, life: Incarnation, number: u64) {
        let its = |round: &&Round| matches!(round.purpose, Purpose::HowFar { peer: of, .. } if of == peer);
        let asked = self.reads.waiting.iter().filter(its).count();
        if self.reads.waiting.len() < READS_MAX && asked < QUESTIONS_MAX {
            self.ask(Purpose::HowFar { peer, life, number });
        }
    }

    /// The turn's reads go out, once an entry of this term is committed: the engine drops them before.
    pub(super) fn issue_reads(&mut self) {
        self.reads.open = None;
        if !self.raw.raft.commit_to_current_term() || !self.leads() {
            return;
        }
        let (replica, incarnation) = (self.config.id, self.config.incarnation);
        for round in &mut self.reads.waiting {
            if round.asked.is_none() {
                round.asked = Some(self.now);
                let sequence = round.sequence;
                self.raw.read_index(ReadContext { replica, incarnation, sequence }.to_bytes());
            }
        }
    }

    /// A majority answered this context, and so all before it.
    pub(super) fn read_confirmed(&mut self, context: &[u8], index: u64) {
        let Some(context) = ReadContext::from_bytes(context) else { return };
        let Some(at) = self.reads.waiting.iter().position(|round| round.sequence == context.sequence) else {
            return;
        };
        let Some(round) = self.reads.waiting.remove(at) else { return };
        let factor = if is(Bug::LeaseTooLong) { 16 } else { 1 };
        if let Some(asked) = round.asked {
            let until = asked + self.election_micros() / 2 * factor;
            self.reads.lease_until = self.reads.lease_until.max(until);
        }
        match round.purpose {
            Purpose::Read => {
                let (id, index) = (ReadId(round.sequence), Some(Index(index)));
                self.events.push_back(Event::Read { id, index });
            }
            Purpose::Lease => {}
            Purpose::HowFar { peer, life, number } => {
                let said = Said::ThisFar { life, number, index: Index(index) };
                self.say(peer, Term(self.raw.raft.term), said);
            }
            Purpose::Recover { peer, life, index } => {
                self.say(peer, Term(self.raw.raft.term), Said::RecoverTo { life, index });
            }
        }
    }

    pub(super) fn reads_deadline(&self) -> Option<Micros> {
        self.reads.waiting.iter().map(|round| round.deadline).min()
    }

    pub(super) fn expire_reads(&mut self) {
        let now = self.now;
        self.fail_reads(|round| round.deadline <= now);
    }

    fn fail_reads(&mut self, fails: impl Fn(&Round) -> bool) {
        let events = &mut self.events;
        self.reads.waiting.retain(|round| {
            let failed = fails(round);
            if failed && matches!(round.purpose, Purpose::Read) {
                events.push_back(Event::Read { id: ReadId(round.sequence), index: None });
            }
            !failed
        });
        let open = self.reads.open;
        self.reads.open = open.filter(|open| self.reads.waiting.iter().any(|round| round.sequence == *open));
    }

    pub(super) fn lose_leadership(&mut self) {
        self.end_lease();
        self.fail_reads(|_| true);
        self.recovered_peers.clear();
    }

    pub(super) fn end_lease(&mut self) {
        self.reads.lease_until = Micros(0);
    }

    pub(super) fn spoil_lease(&mut self) {
        self.end_lease();
        self.reads.spoiled = self.raw.raft.term;
    }

    pub(super) fn renew_lease(&mut self) {
        let waits = self.reads.waiting.iter().any(|round| matches!(round.purpose, Purpose::Lease));
        if self.config.leases && self.leads() && !waits && !self.is_asleep() {
            self.ask(Purpose::Lease);
            self.issue_reads();
        }
    }
}
