//! Linearizable reads at the leader: by asking a majority (ReadIndex, dissertation 6.4), or by lease on request.
//!
//! All reads of a turn share one context (replica, life, sequence), which goes out when the turn ends. The engine may
//! lose it (no entry of this term is committed yet, leadership is lost, answers are lost), so it has a deadline.
//!
//! Any round that a majority answers grants a lease, counted from when it was *asked*. Voters vote for nobody within an
//! election timeout of hearing the leader, or of their own start, because they do not remember whose lease they granted;
//! whether anybody uses leases they need not know. A lease is so much shorter that it holds while no clock runs more than
//! [`CLOCK_RATIO_MAX`] times as fast as another. It ends with sleep, with every change of members, and for the rest of the
//! term with a handover, whose election ignores leases. It is renewed while there are reads; see decision 0013.

use std::collections::VecDeque;

use kernel::planted::{Bug, is};
use kernel::{Index, Micros, Term};

use super::clock::TICKS_AT_ONCE_MAX;
use super::{Event, Replica};
use crate::codec::{ReadContext, Said};
use crate::members::{Incarnation, ReplicaId};

/// Rounds that wait for a majority at once; beyond it reads are refused.
pub const READS_MAX: usize = 1024;

/// Questions of one peer how far behind it is that wait at once; one that is honest has one.
const QUESTIONS_MAX: usize = 2;

/// Leases hold while no member's clock runs more than so many times as fast as another's.
pub const CLOCK_RATIO_MAX: u64 = 2;
/// A lease is renewed for so many ticks after a read.
const LEASE_TICKS: u64 = 20;

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
    /// When there was a read last.
    wanted: Option<Micros>,
    /// When the host's last turn ended: see [`Bug::LeaseAtOldTime`].
    turned: Micros,
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
        let committed = Index(self.raw.raft.raft_log.committed);
        let known = self.read_by_lease(now).or(is(Bug::ReadWithoutIndex).then_some(committed));
        self.awaken();
        if known.is_some() {
            self.reads.sequence += 1;
            let id = ReadId(self.reads.sequence);
            self.events.push_back(Event::Read { id, index: known });
            return Some(id);
        }
        Some(self.ask_with_turn())
    }

    /// As [`Replica::read`], but a majority is asked in any case: the answer says that this replica led after this call
    /// whatever any clock does. It is still the leader of the term in which it was called when an index comes.
    pub fn confirm(&mut self, now: Micros) -> Option<ReadId> {
        self.now = now;
        if !self.leads() || self.reads.waiting.len() >= READS_MAX {
            return None;
        }
        self.awaken();
        if is(Bug::ConfirmByLease)
            && let Some(index) = self.read_by_lease(now)
        {
            self.reads.sequence += 1;
            let id = ReadId(self.reads.sequence);
            self.events.push_back(Event::Read { id, index: Some(index) });
            return Some(id);
        }
        Some(self.ask_with_turn())
    }

    /// The round of this turn, which goes out when it ends.
    fn ask_with_turn(&mut self) -> ReadId {
        let open = match self.reads.open {
            Some(open) => open,
            None => {
                let open = self.ask(Purpose::Read);
                self.reads.open = Some(open);
                open
            }
        };
        ReadId(open)
    }

    /// The index at which a read may be answered at once by lease; `None`: ask with [`Replica::read`], which is answered at
    /// once too if there is a lease by then.
    ///
    /// `now` must have been read from the clock after the read arrived: the lease says that nobody else leads at `now`, and
    /// of what was acknowledged later it says nothing.
    pub fn read_by_lease(&mut self, now: Micros) -> Option<Index> {
        self.now = now;
        if !self.config.leases || !self.leads() {
            return None;
        }
        self.reads.wanted = Some(now);
        let now = if is(Bug::LeaseAtOldTime) { self.reads.turned } else { now };
        let raft = &self.raw.raft;
        let asleep = self.is_asleep();
        let holds = now < self.reads.lease_until && !asleep || asleep && is(Bug::QuiescentLease);
        let unspoiled = self.reads.spoiled != raft.term && raft.lead_transferee.is_none();
        let index = Index(raft.raft_log.committed);
        if !holds || !unspoiled || !raft.commit_to_current_term() {
            return None;
        }
        self.timing.keep_awake();
        Some(index)
    }

    /// Whether this replica answers reads by lease while it leads, from now on. Its voters need not know.
    pub const fn set_leases(&mut self, leases: bool) {
        self.config.leases = leases;
    }

    /// What is granted by a majority that was asked at `asked`. Of the election timeout that a voter waits, ticks may have
    /// passed before it heard the question: those that it makes up for, and the one that was under way.
    fn lease_until(&self, asked: Micros) -> Micros {
        let ticks = self.config.election_ticks as u64;
        let ticks =
            if is(Bug::LeaseTooLong) { 16 * ticks } else { ticks.saturating_sub(TICKS_AT_ONCE_MAX + 1) };
        asked + self.config.tick * ticks / CLOCK_RATIO_MAX
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
        if let Some(asked) = round.asked {
            self.reads.lease_until = self.reads.lease_until.max(self.lease_until(asked));
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

    pub(super) const fn note_turn(&mut self) {
        self.reads.turned = self.now;
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
        let wanted = |at: Micros| self.now.since(at) < self.config.tick * LEASE_TICKS;
        let wanted = self.config.leases && self.reads.wanted.is_some_and(wanted);
        if wanted && self.leads() && !waits && !self.is_asleep() {
            self.ask(Purpose::Lease);
            self.issue_reads();
        }
    }
}
