//! How far a replica that does not lead is behind, in time: it asks the leader, and reckons from when it asked.
//!
//! The leader confirms with a majority that it still leads, as for any read, and answers with what was committed then.
//! Once that is applied here, the state has everything that was committed when the question left. So the bound is of this
//! replica's own clock and of no other's, and a slow way of the answer makes it worse and never wrong.

use kernel::{Index, Micros, Term};

use super::receive::Refusal;
use super::{Replica, Standing};
use crate::codec::Said;
use crate::members::{Incarnation, ReplicaId};

/// Who is not asked for so long is not known to be silent, in milliseconds.
const PAUSE_MS: u64 = 10_000;

/// See the module's text.
#[derive(Default)]
pub(super) struct Fresh {
    number: u64,
    /// The question that is not answered, and when it was asked last.
    asked: Option<(u64, Micros)>,
    /// When somebody last wanted to know.
    tried: Micros,
    /// Since when questions were not answered.
    unanswered: Option<Micros>,
    /// What must be applied, and for when that stands.
    target: Option<(Index, Micros)>,
    /// The state has everything that was committed then.
    of: Option<Micros>,
}

impl Replica {
    /// Asks the leader how far this replica must come to have all that is committed now; [`Replica::fresh_of`] tells. A
    /// question that was asked less than an election timeout ago is not asked again. For a group whose other members all
    /// speak version 3.
    pub fn ask_fresh(&mut self, now: Micros) {
        self.now = now;
        let before = core::mem::replace(&mut self.fresh.tried, now);
        if now.since(before) >= PAUSE_MS * 1000 {
            // Nobody has wanted to know: that no answer came says nothing.
            self.fresh.unanswered = None;
        }
        self.fresh.unanswered.get_or_insert(now);
        let Standing::Follower(Some(leader)) = self.standing() else { return };
        if self.fresh.asked.is_some_and(|(_, at)| now.since(at) < self.election_micros()) {
            return;
        }
        self.fresh.number += 1;
        let (number, life) = (self.fresh.number, self.config.incarnation);
        self.fresh.asked = Some((number, now));
        self.say(leader, self.term(), Said::HowFar { life, number });
    }

    /// The last moment of which it is known that the applied state has everything that was committed then; `None` if
    /// nobody has answered yet. For a replica that does not lead.
    #[must_use]
    pub const fn fresh_of(&self) -> Option<Micros> {
        self.fresh.of
    }

    /// Since when nobody answers; `None` if nothing is asked.
    #[must_use]
    pub const fn unanswered_since(&self) -> Option<Micros> {
        self.fresh.unanswered
    }

    /// A leader is asked.
    pub(super) fn take_how_far(
        &mut self,
        from: ReplicaId,
        life: Incarnation,
        number: u64,
    ) -> Result<(), Refusal> {
        if !self.leads() {
            return Err(Refusal::Stale);
        }
        self.awaken();
        self.ask_how_far(from, life, number);
        Ok(())
    }

    pub(super) fn take_this_far(
        &mut self,
        (from, term): (ReplicaId, Term),
        life: Incarnation,
        number: u64,
        index: Index,
    ) -> Result<(), Refusal> {
        let follows = self.term() == term && self.leader() == Some(from);
        let asked = self.fresh.asked.filter(|(asked, _)| *asked == number && life == self.config.incarnation);
        let (true, Some((_, at))) = (follows, asked) else { return Err(Refusal::Stale) };
        (self.fresh.asked, self.fresh.unanswered, self.fresh.target) = (None, None, Some((index, at)));
        self.check_fresh(Index(self.raw.raft.raft_log.applied));
        Ok(())
    }

    /// Everything up to `applied` is applied.
    pub(super) fn check_fresh(&mut self, applied: Index) {
        if let Some((_, at)) = self.fresh.target.take_if(|(index, _)| *index <= applied) {
            self.fresh.of = self.fresh.of.max(Some(at));
        }
    }
}
