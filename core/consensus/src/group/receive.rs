//! Messages of peers: who may say what, and what the engine would not survive.
//!
//! The engine trusts its messages: a commit index beyond its log, a term of 0, a gap between entries or a
//! configuration that contradicts itself ends its process. Each such place that a message can reach has a check here,
//! before the message is stepped; the checks are listed in decision 0007.

use kernel::planted::{Bug, is};
use kernel::{Index, Micros, Term};
use raft::StateRole;

use super::{Replica, translate};
use crate::codec::{self, Candidacy, Message, Said, Unreadable};
use crate::entry::Logged;
use crate::members::ReplicaId;

/// Why a message was not taken. All are counted; none needs an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Not a message of a version that we know.
    Malformed,
    /// A proposal or a read request: peers have no right to them.
    Forbidden,
    /// For another group.
    OtherGroup,
    /// For another replica, perhaps one that this node was before its disk was wiped.
    OtherReplica,
    /// From nobody we know as a member.
    NoMember,
    /// From a replica that was removed.
    Removed,
    /// From an earlier life of its sender.
    Replaced,
    /// Of a term that is over.
    Stale,
    /// An answer to what was not asked, or about what was not sent.
    Unasked,
    /// Entries or members that contradict themselves.
    Inconsistent,
    /// The leader believes that this replica has, or committed, what it has not. It was wiped, or is another.
    BeyondLog,
    /// The leader's log differs where this replica's is committed.
    Diverged,
    /// This replica takes no part in elections until it has caught up.
    Recovering,
    /// This replica has just started: a lease that it granted before may hold.
    Leased,
    /// This replica has just asked for the same, and goes first.
    Rival,
    /// Too much waits for the disk, or a snapshot is being installed.
    Busy,
}

/// Ticks for which a replica that asks whether it would be elected goes before others.
const RIVAL_TICKS: u64 = 2;

const REFUSALS: usize = Refusal::Busy as usize + 1;

/// How often each reason was one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals([u64; REFUSALS]);

impl Refusals {
    /// How often it was `reason`.
    #[must_use]
    pub const fn count(&self, reason: Refusal) -> u64 {
        self.0[reason as usize]
    }
}

impl Replica {
    /// Takes a message of a peer.
    ///
    /// # Errors
    /// [`Refusal`]: it had no effect. No bytes make it panic.
    pub fn receive(&mut self, now: Micros, bytes: &[u8]) -> Result<(), Refusal> {
        self.now = now;
        let taken = match codec::decode(bytes) {
            Ok(message) => self.take_message(message),
            Err(Unreadable::Forbidden) => Err(Refusal::Forbidden),
            Err(Unreadable::Malformed(_) | Unreadable::Version(_)) => Err(Refusal::Malformed),
        };
        if let Err(reason) = taken {
            self.refusals.0[reason as usize] += 1;
        }
        taken
    }

    fn take_message(&mut self, mut message: Message) -> Result<(), Refusal> {
        self.check_sender(&message)?;
        if let Said::Heartbeat { commit, .. } = &mut message.body
            && self.recovering.is_some()
        {
            // It is about copies that are gone: what stands there now may be an older, never committed tail.
            *commit = Index(0);
        }
        let (from, term) = (message.from, message.term);
        self.check_term(&message)?;
        match &message.body {
            Said::PreVote(candidacy) => {
                self.check_candidacy(candidacy, term)?;
                self.check_rival(from, candidacy)?;
            }
            Said::Vote(candidacy) => self.check_candidacy(candidacy, term)?,
            Said::PreVoted(_) => self.check_ballot(StateRole::PreCandidate)?,
            Said::Voted(_) => self.check_ballot(StateRole::Candidate)?,
            Said::Append { prev, prev_term, entries, .. } => {
                self.check_append((*prev, *prev_term), entries, term)?;
            }
            Said::Appended { index, .. } => self.check_known(*index)?,
            Said::Rejected { index, hint, .. } => {
                self.check_known(*index)?;
                self.check_known(*hint)?;
            }
            Said::Heartbeat { commit, .. } => self.check_commit(*commit)?,
            Said::TimeoutNow => self.check_handover()?,
            Said::Heard { .. } => self.check_known(Index(0))?,
            Said::Snapshot(descriptor) => {
                let descriptor = descriptor.clone();
                return self.take_descriptor(message, descriptor);
            }
            Said::SnapshotRefused { index } => return self.take_snapshot_refused(from, *index),
            Said::Quiesce { commit } => return self.take_quiesce(from, term, *commit),
            Said::Recover => return self.take_recover(from, message.incarnation),
            Said::RecoverTo { life, index } => return self.take_recover_to(from, term, *life, *index),
            Said::HowFar { life, number } => return self.take_how_far(from, *life, *number),
            Said::ThisFar { life, number, index } => {
                return self.take_this_far((from, term), *life, *number, *index);
            }
        }
        let answers = matches!(
            message.body,
            Said::Heard { .. } | Said::Appended { .. } | Said::Voted(_) | Said::PreVoted(_)
        );
        if !answers {
            self.awaken();
        }
        self.step(message)
    }

    /// Gives a checked message to the engine.
    pub(super) fn step(&mut self, message: Message) -> Result<(), Refusal> {
        let Some(raw) = translate::to_engine(message) else { return Ok(()) };
        let stepped = self.raw.step(raw);
        self.collect();
        stepped.map_err(|_| Refusal::NoMember)
    }

    fn check_sender(&mut self, message: &Message) -> Result<(), Refusal> {
        if message.group != self.config.group {
            return Err(Refusal::OtherGroup);
        }
        if message.to != self.config.id {
            return Err(Refusal::OtherReplica);
        }
        let from = message.from;
        if self.members.is_gone(from) && !self.introduced.contains(&from) {
            return Err(Refusal::Removed);
        }
        if from == self.config.id || !self.members.contains(from) && !self.introduced.contains(&from) {
            return Err(Refusal::NoMember);
        }
        let seen = self.incarnations.entry(from).or_insert(message.incarnation);
        if message.incarnation < *seen {
            return Err(Refusal::Replaced);
        }
        *seen = message.incarnation;
        Ok(())
    }

    /// Old terms are the engine's business where it answers them, so that a deposed leader learns of it.
    fn check_term(&self, message: &Message) -> Result<(), Refusal> {
        if message.term.0 >= self.raw.raft.term {
            return Ok(());
        }
        match message.body {
            Said::Append { .. } | Said::Heartbeat { .. } | Said::PreVote(_) => Ok(()),
            Said::Vote(_)
            | Said::PreVoted(_)
            | Said::Voted(_)
            | Said::Appended { .. }
            | Said::Rejected { .. }
            | Said::Heard { .. }
            | Said::Snapshot(_)
            | Said::SnapshotRefused { .. }
            | Said::TimeoutNow
            | Said::Quiesce { .. }
            | Said::Recover
            | Said::RecoverTo { .. }
            | Said::HowFar { .. }
            | Said::ThisFar { .. } => Err(Refusal::Stale),
        }
    }

    fn check_candidacy(&mut self, candidacy: &Candidacy, term: Term) -> Result<(), Refusal> {
        if self.recovering.is_some() && !is(Bug::RecoveringVotes) {
            return Err(Refusal::Recovering);
        }
        // Whoever hands over has given up its lease.
        if !self.has_waited() && !candidacy.handed_over && !is(Bug::VotesAtOnce) {
            // Ticks do not pass in sleep.
            self.awaken();
            return Err(Refusal::Leased);
        }
        let Candidacy { last, last_term, commit, commit_term, .. } = *candidacy;
        let ordered = last_term <= term && commit <= last && commit_term <= last_term;
        let founded = (last.0 == 0) == (last_term.0 == 0);
        if ordered && founded { Ok(()) } else { Err(Refusal::Inconsistent) }
    }

    /// Of two that ask at one moment whether they would be elected, one does not hear that it would be, or both would ask for
    /// votes and divide them. The one with the lower number gives way, unless it has a longer log, and for a moment only: who
    /// does not hear this replica must not wait for it.
    fn check_rival(&self, from: ReplicaId, candidacy: &Candidacy) -> Result<(), Refusal> {
        let raft = &self.raw.raft;
        let asks = raft.state == StateRole::PreCandidate && self.ticks_asking() < RIVAL_TICKS;
        let level = (candidacy.last_term.0, candidacy.last.0)
            <= (raft.raft_log.last_term(), raft.raft_log.last_index());
        if asks && from < self.config.id && level { Err(Refusal::Rival) } else { Ok(()) }
    }

    /// The request that this answers has left only if all before it is durable; the engine relies on that.
    fn check_ballot(&self, role: StateRole) -> Result<(), Refusal> {
        let asked = self.raw.raft.state == role && self.desk.is_clear();
        if asked { Ok(()) } else { Err(Refusal::Unasked) }
    }

    /// What followers say is for who leads, and about entries that it has. Who does not lead would take nothing but a higher
    /// term from it, and forget with that whom it hears, and so whose lease it granted.
    fn check_known(&self, index: Index) -> Result<(), Refusal> {
        if self.leads() && index <= self.last() { Ok(()) } else { Err(Refusal::Unasked) }
    }

    fn check_commit(&self, commit: Index) -> Result<(), Refusal> {
        if commit > self.last() { Err(Refusal::BeyondLog) } else { Ok(()) }
    }

    /// The commit index of an append needs no check: the engine cuts it at what the append covers.
    fn check_append(
        &self,
        (prev, prev_term): (Index, Term),
        entries: &[Logged],
        term: Term,
    ) -> Result<(), Refusal> {
        // Term 0 would match whatever the log has not.
        if (prev.0 == 0) != (prev_term.0 == 0)
            || prev_term > term
            || prev.0 + entries.len() as u64 > NUMBER_END
        {
            return Err(Refusal::Inconsistent);
        }
        let mut before = prev_term;
        for entry in entries {
            if entry.term() < before || entry.term() > term || entry.term().0 == 0 {
                return Err(Refusal::Inconsistent);
            }
            before = entry.term();
        }
        if !entries.is_empty() && self.desk.is_full() {
            return Err(Refusal::Busy);
        }
        let committed = self.raw.raft.raft_log.committed;
        let contradicts = |entry: &Logged| {
            entry.index().0 <= committed && self.term_at(entry.index()).is_some_and(|own| own != entry.term())
        };
        let prev_contradicts =
            prev.0 <= committed && self.term_at(prev).is_some_and(|own| own != prev_term && prev.0 > 0);
        if term.0 >= self.raw.raft.term && (prev_contradicts || entries.iter().any(contradicts)) {
            return Err(Refusal::Diverged);
        }
        Ok(())
    }

    /// An election needs a log that is durable and a state that is installed.
    fn check_handover(&self) -> Result<(), Refusal> {
        if self.recovering.is_some() {
            return Err(Refusal::Recovering);
        }
        if self.desk.is_clear() { Ok(()) } else { Err(Refusal::Busy) }
    }

    /// The host's word for a peer ends when the log says that it is gone.
    pub(super) fn forget_removed(&mut self) {
        let members = &self.members;
        self.introduced.retain(|&id| !members.is_gone(id));
        self.incarnations.retain(|&id, _| !members.is_gone(id));
    }

    /// The leader that this follower follows in its term.
    pub(super) fn leader(&self) -> Option<ReplicaId> {
        ReplicaId::new(self.raw.raft.leader_id)
    }
}

/// The highest index that an append may reach.
const NUMBER_END: u64 = crate::members::NUMBER_MAX;
