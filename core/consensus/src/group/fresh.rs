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

/// A leader that was not asked for so long may have been well meanwhile, in milliseconds: then the count of its lost
/// questions begins anew. More than a second, so that who reads once a second asks all the time.
const PAUSE_MS: u64 = 1_500;
/// So many questions in a row, each without an answer for an election timeout, are not lost by chance: the leader is silent.
const LOST_MIN: u32 = 2;

/// A question, and what became of it.
#[derive(Clone, Copy)]
struct Question {
    number: u64,
    at: Micros,
    /// Who was asked, as the leader of which term; `None`: nobody was known to lead.
    of: Option<(ReplicaId, Term)>,
    answered: bool,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Fresh {
    number: u64,
    /// The last question, unless it is of no account any more.
    question: Option<Question>,
    /// How many in a row before it were lost.
    lost: u32,
    /// When somebody last wanted to know.
    tried: Option<Micros>,
    /// What must be applied, and for when that stands. It is kept until it is reached: a replica that is always a little
    /// behind would never reach one that moves.
    goal: Option<(Index, Micros)>,
    /// The state has everything that was committed then.
    of: Option<Micros>,
}

impl Replica {
    /// Asks the leader how far this replica must come to have all that is committed now; [`Replica::fresh_of`] tells.
    ///
    /// Cheap to call with each read: there is at most one question an election timeout while one is open, or while what was
    /// answered is not applied yet. For a group whose other members all speak version 3.
    pub fn ask_fresh(&mut self, now: Micros) {
        self.now = now;
        let before = self.fresh.tried.replace(now);
        let leader = match self.standing() {
            Standing::Follower(leader) => leader.map(|leader| (leader, self.term())),
            Standing::Candidate => None,
            Standing::Leader => return,
        };
        let paused = before.is_none_or(|before| now.since(before) > PAUSE_MS * 1000);
        // One that was not asked is not silent, whoever led before it.
        let another = leader.is_some() && self.fresh.question.is_some_and(|last| last.of != leader);
        if paused || another {
            (self.fresh.question, self.fresh.lost) = (None, 0);
        }
        if let Some(last) = self.fresh.question {
            let open = !last.answered || self.fresh.goal.is_some();
            if open && now.since(last.at) < self.election_micros() {
                return;
            }
            self.fresh.lost = if last.answered { 0 } else { self.fresh.lost.saturating_add(1) };
        }
        self.fresh.number += 1;
        let (number, life) = (self.fresh.number, self.config.incarnation);
        self.fresh.question = Some(Question { number, at: now, of: leader, answered: false });
        if let Some((leader, term)) = leader {
            self.say(leader, term, Said::HowFar { life, number });
        }
    }

    /// The last moment of which it is known that the applied state has everything that was committed then; `None` if
    /// nobody has answered yet. For a replica that does not lead.
    #[must_use]
    pub const fn fresh_of(&self) -> Option<Micros> {
        self.fresh.of
    }

    /// When [`Replica::ask_fresh`] was last called; `None` if it never was.
    #[must_use]
    pub const fn fresh_asked(&self) -> Option<Micros> {
        self.fresh.tried
    }

    /// Whether the leader, or whoever should be it, has left so many questions in a row without an answer that it is not to
    /// be waited for. Not known of one that is asked too seldom.
    #[must_use]
    pub const fn is_leader_silent(&self) -> bool {
        self.fresh.lost >= LOST_MIN
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
        if !follows || life != self.config.incarnation {
            return Err(Refusal::Stale);
        }
        // Late or not, it is there.
        self.fresh.lost = 0;
        let asked = self.fresh.question.as_mut().filter(|asked| asked.number == number && !asked.answered);
        let Some(asked) = asked else { return Err(Refusal::Stale) };
        asked.answered = true;
        let at = asked.at;
        self.fresh.goal.get_or_insert((index, at));
        self.check_fresh(Index(self.raw.raft.raft_log.applied));
        Ok(())
    }

    /// Everything up to `applied` is applied.
    pub(super) fn check_fresh(&mut self, applied: Index) {
        if let Some((_, at)) = self.fresh.goal.take_if(|(index, _)| *index <= applied) {
            self.fresh.of = self.fresh.of.max(Some(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use kernel::GroupId;

    use super::*;
    use crate::replay::Restored;
    use crate::{Config, Mark, Members};

    const LIFE: Incarnation = Incarnation(1);

    fn id(number: u64) -> ReplicaId {
        ReplicaId::new(number).unwrap()
    }

    /// Replica 1 of three, which follows replica 2 in term 5.
    fn follower() -> Replica {
        let config = Config::new(GroupId(7), id(1), LIFE, 1);
        let members = Members::new((1..=3).map(id), []).unwrap();
        let mut replica = Replica::new(config, Micros(0), Restored::first(Mark::first(members)));
        replica.raw.raft.become_follower(5, 2);
        replica
    }

    fn millis(at: u64) -> Micros {
        Micros(at * 1000)
    }

    /// The number of the question that is on its way, taken from there, and who is asked.
    fn question(replica: &mut Replica) -> Option<(u64, u64)> {
        let sent = std::mem::take(&mut replica.outbox);
        let mut numbers = sent.iter().filter_map(|message| match message.body {
            Said::HowFar { number, .. } => Some((number, message.to.get())),
            _ => None,
        });
        let one = numbers.next();
        assert_eq!(numbers.next(), None, "two questions at once");
        one
    }

    fn asks(replica: &mut Replica, at: u64) -> Option<(u64, u64)> {
        replica.ask_fresh(millis(at));
        question(replica)
    }

    fn answer(replica: &mut Replica, number: u64, index: u64) -> Result<(), Refusal> {
        let (leader, term) = (replica.leader().unwrap(), replica.term());
        replica.take_this_far((leader, term), LIFE, number, Index(index))
    }

    #[test]
    fn a_leader_is_silent_after_two_lost_questions_if_it_was_asked_all_the_time() {
        #[rustfmt::skip] // columns
        let table: &[(&[u64], bool)] = &[
            // asked at, in milliseconds                    silent
            (&[0],                                          false),
            (&[0, 599, 600, 1_199],                         false), // the second may still be answered
            (&[0, 600, 1_200],                              true),
            (&[0, 100, 550, 1_500],                         false), // the second has only left
            (&[0, 1_000, 2_000],                            true),  // once a second is all the time
            (&[0, 5_000],                                   false),
            (&[0, 5_000, 5_600],                            false), // the first says nothing any more
            (&[0, 9_000, 18_000, 27_000],                   false),
            (&[0, 5_000, 5_600, 6_200],                     true),
            (&[0, 600, 1_200, 9_000],                       false), // it was, and may be well by now
        ];
        for (asked, silent) in table {
            let mut replica = follower();
            asked.iter().for_each(|&at| _ = asks(&mut replica, at));
            assert_eq!(replica.is_leader_silent(), *silent, "{asked:?}");
        }
    }

    #[test]
    fn any_answer_ends_the_silence_and_only_one_in_time_tells_an_age() {
        let mut replica = follower();
        let (first, _) = asks(&mut replica, 0).unwrap();
        assert!(asks(&mut replica, 600).is_some());
        let (third, _) = asks(&mut replica, 1_200).unwrap();
        assert!(replica.is_leader_silent());
        assert_eq!(answer(&mut replica, first, 1), Err(Refusal::Stale));
        assert!(!replica.is_leader_silent(), "it is there");
        assert_eq!(replica.fresh_of(), None, "nobody remembers when that was asked");
        replica.check_fresh(Index(3));
        assert_eq!((answer(&mut replica, third, 1), replica.fresh_of()), (Ok(()), Some(millis(1_200))));
        assert_eq!(answer(&mut replica, third, 1), Err(Refusal::Stale), "twice");
    }

    #[test]
    fn who_leads_next_is_asked_at_once_and_not_blamed() {
        let mut replica = follower();
        [0, 600, 1_200].iter().for_each(|&at| _ = asks(&mut replica, at));
        replica.raw.raft.become_follower(6, 3);
        assert!(matches!(asks(&mut replica, 1_300), Some((_, 3))));
        assert!(!replica.is_leader_silent());
        // Nobody can be asked, and nobody answers.
        replica.raw.raft.become_follower(6, 0);
        [1_900, 2_500].iter().for_each(|&at| assert_eq!(asks(&mut replica, at), None));
        assert!(replica.is_leader_silent());
    }

    #[test]
    fn a_goal_is_kept_until_it_is_reached_however_often_is_asked() {
        let mut replica = follower();
        let (first, _) = asks(&mut replica, 0).unwrap();
        answer(&mut replica, first, 50).unwrap();
        // While it waits, a question an election timeout: only to hear whether the leader is there.
        for at in 1..2_000 {
            if let Some((number, _)) = asks(&mut replica, at) {
                assert_eq!(at % 600, 0, "{at}");
                answer(&mut replica, number, 50 + at).unwrap();
            }
            assert!(!replica.is_leader_silent());
        }
        replica.check_fresh(Index(49));
        assert_eq!(replica.fresh_of(), None);
        replica.check_fresh(Index(50));
        assert_eq!(replica.fresh_of(), Some(millis(0)));
        // One that dies meanwhile is noticed all the same.
        let (last, _) = asks(&mut replica, 2_400).unwrap();
        answer(&mut replica, last, 9_000).unwrap();
        [3_000, 3_600, 4_200].iter().for_each(|&at| assert!(asks(&mut replica, at).is_some()));
        assert!(replica.is_leader_silent());
    }
}
