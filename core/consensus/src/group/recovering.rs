//! A replica whose disk may have lost what it acknowledged: it votes for nobody until it has come as far again.
//!
//! Such a replica counts twice where it must not. As a voter it could elect a leader without an entry that was committed
//! with its help. And the leader remembers copies that are gone. So it asks the leader, who first forgets those copies and
//! then confirms with a majority *without the asker* that it still leads; whatever the asker can have acknowledged and
//! was committed is in that leader's log by then, at or below its last index. Once the asker has that index from that
//! leader, synced, it is as good as any other.
//!
//! Until then it stays out of elections and out of the majorities that confirm reads. It does say what it has synced
//! since, which is true, and by which the leader finds the rest. If a majority is recovering, no leader can be confirmed;
//! only the operator ends that, with [`Replica::end_recovery`].

use kernel::{Index, Micros, Term};
use raft::StateRole;
use raft::eraftpb::{Message as Raw, MessageType};

use super::receive::Refusal;
use super::{Event, Replica};
use crate::codec::Said;
use crate::members::{Incarnation, ReplicaId};

/// See the module's text.
#[derive(Default)]
pub(super) struct Recovering {
    /// How far it must come, in a leader's term.
    target: Option<(Term, Index)>,
    /// How far its synced log is the leader's, in a term.
    reached: (Term, Index),
    asked: Micros,
}

impl Replica {
    /// The operator decides that what this replica may have lost is lost.
    pub fn end_recovery(&mut self) {
        if self.recovering.take().is_some() {
            self.events.push_back(Event::Recovered);
        }
    }

    /// Asks the leader, again and again.
    pub(super) fn ask_recovery(&mut self) {
        let (term, now) = (self.term(), self.now);
        let leader = self.leader().filter(|_| self.raw.raft.state == StateRole::Follower);
        let pause = self.config.tick * self.config.heartbeat_ticks as u64;
        let (Some(recovering), Some(leader)) = (&mut self.recovering, leader) else { return };
        let answered = recovering.target.is_some_and(|(of, _)| of == term);
        if answered || now.since(recovering.asked) < pause {
            return;
        }
        recovering.asked = now;
        self.say(leader, term, Said::Recover);
    }

    /// A leader is asked by a peer that lost its tail.
    pub(super) fn take_recover(&mut self, from: ReplicaId, life: Incarnation) -> Result<(), Refusal> {
        if !self.leads() {
            return Err(Refusal::Stale);
        }
        let place = (self.term(), life);
        let last = self.raw.raft.raft_log.last_index();
        let Some(progress) = self.raw.raft.mut_prs().get_mut(from.get()) else {
            return Err(Refusal::NoMember);
        };
        if self.recovered_peers.get(&from) != Some(&place) {
            progress.become_probe();
            (progress.matched, progress.committed_index, progress.next_idx) = (0, 0, last + 1);
            self.recovered_peers.insert(from, place);
        }
        self.awaken();
        self.raw.raft.send_append(from.get());
        self.ask_for_peer(from, life);
        self.collect();
        Ok(())
    }

    pub(super) fn take_recover_to(
        &mut self,
        from: ReplicaId,
        term: Term,
        life: Incarnation,
        index: Index,
    ) -> Result<(), Refusal> {
        let follows = self.term() == term && self.leader() == Some(from);
        if !follows || life != self.config.incarnation {
            return Err(Refusal::Stale);
        }
        if let Some(recovering) = &mut self.recovering {
            recovering.target = Some((term, index));
        }
        self.check_recovered();
        Ok(())
    }

    /// A message that waited for the disk leaves: if it acknowledges an append, the log is the leader's so far.
    pub(super) fn note_acknowledged(&mut self, message: &Raw) {
        let Some(recovering) = &mut self.recovering else { return };
        if message.get_msg_type() != MessageType::MsgAppendResponse || message.reject {
            return;
        }
        let place = (Term(message.term), Index(message.index));
        if place.0 > recovering.reached.0 {
            recovering.reached = place;
        } else if place.0 == recovering.reached.0 {
            recovering.reached.1 = recovering.reached.1.max(place.1);
        }
        self.check_recovered();
    }

    fn check_recovered(&mut self) {
        let Some(recovering) = &self.recovering else { return };
        let Some((term, index)) = recovering.target else { return };
        if recovering.reached.0 == term && recovering.reached.1 >= index {
            self.recovering = None;
            self.events.push_back(Event::Recovered);
        }
    }
}
