//! Whether a partition's leader knows enough of the desired state to change its group.
//!
//! A new leader may have applied less of the state than the one before it, which has already given the group newer members. If
//! it went by what it knows it would take them away, and their numbers are never used again. So in each term of a group it
//! first learns the partition's epoch, from the control group's leader, by a linearizable read after it was elected. From
//! then on nobody else changes the group in this term, so what it applies itself is new enough.

use consensus::group::ReadId;

use super::*;
use crate::cluster::frames::REPORTS_MAX;

/// What was not confirmed is asked again after this, in milliseconds.
const AGAIN_MS: u64 = 500;
/// Questions that wait at the control group's leader; beyond it they are asked again.
const WAITING_MAX: usize = 1024;

/// Questions of this node, and of others that it leads.
#[derive(Default)]
pub(super) struct Confirms {
    /// The term in which this node leads a group, and the epoch that was confirmed for it.
    own: BTreeMap<GroupId, (Term, Option<u64>)>,
    again: Micros,
    waiting: Vec<(ReadId, NodeId, Vec<(GroupId, Term)>)>,
    /// Reads that are confirmed, with what must be applied first.
    ready: Vec<(Index, NodeId, Vec<(GroupId, Term)>)>,
}

impl Confirms {
    pub fn deadline(&self) -> Option<Micros> {
        self.own.values().any(|(_, epoch)| epoch.is_none()).then_some(self.again)
    }

    pub fn leads(&mut self, now: Micros, group: GroupId, term: Term) {
        if self.own.get(&group).is_none_or(|(known, _)| *known != term) {
            self.own.insert(group, (term, None));
            self.again = now;
        }
    }

    pub fn follows(&mut self, group: GroupId) {
        self.own.remove(&group);
    }
}

impl Mind {
    /// Whether this node, which leads the group in `term`, may give it the members of its duty at `epoch`. To be asked
    /// before each [`consensus::Replica::change`] of a partition; it becomes true soon after the first [`Mind::note`] of a
    /// term.
    #[must_use]
    pub fn may_change(&self, group: GroupId, term: Term, epoch: u64) -> bool {
        let confirmed = self.confirms.own.get(&group).is_some_and(|(known, confirmed)| {
            *known == term && confirmed.is_some_and(|confirmed| epoch >= confirmed)
        });
        confirmed || is(Bug::StaleDutyFollowed)
    }

    /// Asks for what is not confirmed.
    pub(super) fn ask_whether(&mut self) {
        let now = self.now;
        if self.confirms.deadline().is_none_or(|due| due > now) {
            return;
        }
        self.confirms.again = now.plus_millis(AGAIN_MS);
        let open = self.confirms.own.iter().filter(|(_, (_, epoch))| epoch.is_none());
        let open: Vec<(GroupId, Term)> = open.map(|(&group, &(term, _))| (group, term)).collect();
        let Some(leader) = self.leader() else { return };
        for some in open.chunks(REPORTS_MAX) {
            if leader == self.me {
                self.take_whether(leader, some.to_vec());
            } else if self.up.contains(&leader) {
                self.say(leader, &Said::Whether(some.to_vec()));
            }
        }
    }

    pub(super) fn take_whether(&mut self, from: NodeId, groups: Vec<(GroupId, Term)>) {
        if self.confirms.waiting.len() >= WAITING_MAX {
            return;
        }
        // Who does not lead gives no answer; it is asked again.
        if let Some(read) = self.replica.read(self.now) {
            self.confirms.waiting.push((read, from, groups));
            self.replica.turn(self.now);
        }
    }

    pub(super) fn read_confirmed(&mut self, id: ReadId, index: Option<Index>) {
        let answered = self.confirms.waiting.extract_if(.., |(read, ..)| *read == id);
        let ready = answered.filter_map(|(_, from, groups)| index.map(|index| (index, from, groups)));
        self.confirms.ready.extend(ready);
    }

    /// Answers what is read and applied.
    pub(super) fn confirm(&mut self) {
        let applied = self.replica.last_applied();
        let ready: Vec<_> = self.confirms.ready.extract_if(.., |(index, ..)| *index <= applied).collect();
        for (_, from, groups) in ready {
            let epoch = |(group, term)| Some((group, term, self.state.partition(group)?.epoch));
            let confirmed: Vec<_> = groups.into_iter().filter_map(epoch).collect();
            if from == self.me {
                self.take_confirmed(confirmed);
            } else {
                self.say(from, &Said::Confirmed(confirmed));
            }
        }
    }

    pub(super) fn take_confirmed(&mut self, confirmed: Vec<(GroupId, Term, u64)>) {
        for (group, term, epoch) in confirmed {
            if let Some(own) = self.confirms.own.get_mut(&group).filter(|own| own.0 == term) {
                own.1.get_or_insert(epoch);
            }
        }
    }
}
