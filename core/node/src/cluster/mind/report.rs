//! What leaders of partitions see of them, on its way to the control group's leader: which of their groups have the members
//! that the state names, and how far their learners have come.

use super::*;
use crate::cluster::frames::{REPORTS_MAX, Report};

/// Reports that have changed are sent no more often than this, in milliseconds.
const REPORT_MS: u64 = 50;
/// All are sent again after this, in milliseconds: what was lost is made good.
const REFRESH_MS: u64 = 10_000;

/// Reports of this node's own partitions, and of all for who leads the control group.
#[derive(Default)]
pub(super) struct Reports {
    own: BTreeMap<GroupId, Report>,
    /// Those of the own that the leader may not have.
    fresh: BTreeSet<GroupId>,
    send_at: Micros,
    refresh_at: Micros,
    all: BTreeMap<GroupId, (NodeId, Report)>,
    /// Who leads a partition, in which term, as far as was heard.
    leaders: BTreeMap<GroupId, (Term, NodeId)>,
}

impl Reports {
    pub fn deadline(&self) -> Option<Micros> {
        if self.own.is_empty() {
            return None;
        }
        Some(if self.fresh.is_empty() { self.refresh_at } else { self.send_at })
    }

    /// The newest report on a partition.
    pub fn of(&self, group: GroupId) -> Option<&Report> {
        self.all.get(&group).map(|(_, report)| report)
    }

    /// Who was last heard to lead a partition.
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.leaders.get(&group).map(|&(_, node)| node)
    }

    pub fn leader_changed(&mut self, now: Micros) {
        self.fresh.extend(self.own.keys());
        (self.send_at, self.refresh_at) = (now, now.plus_millis(REFRESH_MS));
    }

    /// Partitions that are no more need no memory.
    pub fn forget_others(&mut self, state: &State) {
        let exists = |group: &GroupId| state.partition(*group).is_some();
        self.all.retain(|group, _| exists(group));
        self.leaders.retain(|group, _| exists(group));
    }

    fn led(&mut self, group: GroupId, term: Term, node: NodeId) {
        let newest = self.leaders.entry(group).or_insert((term, node));
        if term >= newest.0 {
            *newest = (term, node);
        }
    }

    /// Takes a report; true if it says something new.
    fn take(&mut self, group: GroupId, from: NodeId, report: Report) -> bool {
        self.led(group, report.term, from);
        if self.all.get(&group).is_some_and(|(_, known)| known.term > report.term || *known == report) {
            return false;
        }
        self.all.insert(group, (from, report));
        true
    }
}

impl Mind {
    /// What this node, which leads the partition, sees of it; `None` when it leads it no more. May be called as often as
    /// something may have changed: only news are sent, and not often.
    pub fn note(&mut self, group: GroupId, report: Option<Report>) {
        let Some(report) = report else {
            self.reports.own.remove(&group);
            self.reports.fresh.remove(&group);
            self.confirms.follows(group);
            return;
        };
        self.confirms.leads(self.now, group, report.term);
        if self.reports.own.get(&group) == Some(&report) {
            return;
        }
        self.reports.led(group, report.term, self.me);
        self.reports.own.insert(group, report);
        self.reports.fresh.insert(group);
    }

    /// Somebody was heard to lead a partition: a hint for [`Mind::directory`].
    pub fn heard_leader(&mut self, group: GroupId, term: Term, node: NodeId) {
        if self.state.partition(group).is_some() {
            self.reports.led(group, term, node);
        }
    }

    pub(super) fn take_reports(&mut self, from: NodeId, reports: Vec<(GroupId, Report)>) {
        for (group, report) in reports {
            if self.state.partition(group).is_some() && self.reports.take(group, from, report) {
                self.lead.look_again();
            }
        }
    }

    pub(super) fn send_reports(&mut self) {
        let now = self.now;
        if self.reports.own.is_empty() {
            return;
        }
        if self.reports.refresh_at <= now {
            self.reports.leader_changed(now);
        }
        if self.reports.fresh.is_empty() || now < self.reports.send_at {
            return;
        }
        self.reports.send_at = now.plus_millis(REPORT_MS);
        let leader = self.leader();
        let Some(leader) = leader.filter(|leader| *leader == self.me || self.up.contains(leader)) else {
            return;
        };
        let fresh = core::mem::take(&mut self.reports.fresh);
        let own = &self.reports.own;
        let all: Vec<(GroupId, Report)> =
            fresh.into_iter().filter_map(|group| own.get(&group).map(|it| (group, it.clone()))).collect();
        if leader == self.me {
            return self.take_reports(leader, all);
        }
        for some in all.chunks(REPORTS_MAX) {
            self.say(leader, &Said::Reports(some.to_vec()));
        }
    }
}
