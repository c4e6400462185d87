//! The groups of partitions, played: who leads follows who is there, members follow what the leader was told, learners
//! learn. One truth for all nodes.

use std::collections::{BTreeMap, BTreeSet};

use consensus::{ReplicaId, Role};
use control::plan::Progress;
use control::{CONTROL, Duty, State};
use kernel::{GroupId, NodeId, Rng, Term};
use node::cluster::frames::{DONE, Learner, Report};

#[derive(Default)]
pub struct Groups(BTreeMap<GroupId, Group>);

struct Group {
    members: BTreeMap<ReplicaId, (NodeId, Role)>,
    done: BTreeMap<ReplicaId, u16>,
    /// Numbers that were members and are none any more: they never are again.
    gone: BTreeSet<ReplicaId>,
    term: u64,
    leader: Option<NodeId>,
}

/// What a node does in its groups.
pub type Duties = BTreeMap<GroupId, Duty>;

impl Groups {
    /// A node begins a replica.
    pub fn begin(&mut self, group: GroupId, duty: &Duty) {
        let Some(founders) = &duty.founders else { return };
        self.0.entry(group).or_insert_with(|| {
            let of = |id: ReplicaId| duty.members.iter().find(|(_, member, _)| *member == id);
            let members = founders.iter().filter_map(of).map(|&(node, id, _)| (id, (node, Role::Voter)));
            let (done, gone) = (BTreeMap::new(), BTreeSet::new());
            Group { members: members.collect(), done, gone, term: 1, leader: None }
        });
    }

    /// Lets time pass for all groups: `here` are the nodes that run, `linked` says who reaches whom. What leaders report.
    pub fn pass(
        &mut self,
        rng: &mut Rng,
        here: &BTreeMap<NodeId, &Duties>,
        linked: impl Fn(NodeId, NodeId) -> bool,
        may_change: impl Fn(NodeId, GroupId, Term, u64) -> bool,
    ) -> Vec<(NodeId, GroupId, Option<Report>)> {
        let mut reports = Vec::new();
        for (&group, it) in &mut self.0 {
            let runs = |id: &ReplicaId, node: &NodeId| {
                here.get(node).and_then(|duties| duties.get(&group)).is_some_and(|duty| duty.replica == *id)
            };
            let voters: Vec<NodeId> = (it.members.iter())
                .filter(|(id, (node, role))| *role == Role::Voter && runs(id, node))
                .map(|(_, (node, _))| *node)
                .collect();
            let all = it.members.values().filter(|(_, role)| *role == Role::Voter).count();
            let elected = |node: &NodeId| {
                voters.contains(node)
                    && voters.iter().filter(|other| linked(*node, **other)).count() * 2 > all
            };
            let before = it.leader;
            if !it.leader.as_ref().is_some_and(elected) {
                it.leader = voters.iter().copied().find(elected);
                it.term += u64::from(it.leader.is_some());
            }
            if let Some(before) = before.filter(|_| before != it.leader) {
                reports.push((before, group, None));
            }
            let Some(leader) = it.leader else { continue };
            let duty = &here[&leader][&group];
            it.learn(rng, &runs, |node| linked(leader, node));
            if may_change(leader, group, Term(it.term), duty.epoch) {
                it.follow(duty);
            }
            reports.push((leader, group, Some(it.report(duty))));
        }
        reports
    }

    /// What is counted by the state must vote in the group when a copy has gone.
    pub fn judge(&self, before: &State, after: &State) -> Result<(), String> {
        for (group, now) in after.partitions() {
            let Some(then) = before.partition(group) else { continue };
            let gone = then.replicas.iter().any(|replica| now.replica(replica.node) != Some(*replica));
            let Some(it) = self.0.get(&group).filter(|_| gone && group != CONTROL) else { continue };
            for replica in &now.replicas {
                let votes = it.members.get(&replica.id).is_some_and(|(_, role)| *role == Role::Voter);
                if !votes {
                    return Err(format!("{group}: a copy went before {replica:?} voted"));
                }
            }
        }
        Ok(())
    }

    /// What is known of partitions that are not where they are wanted.
    pub fn describe(&self, state: &State) -> String {
        let off = state.partitions().filter(|(_, it)| !Progress::of(it).is_done());
        let one = |(group, partition): (GroupId, &control::Partition)| match self.0.get(&group) {
            Some(Group { members, leader, term, .. }) => {
                format!("{group}: {members:?} led by {leader:?} in {term}, {partition:?}")
            }
            None => format!("{group}: nobody began it, {partition:?}"),
        };
        off.map(one).collect::<Vec<_>>().join("; ")
    }

    /// A group that does not have the members that `state` names, in words.
    pub fn unsettled(&self, state: &State) -> Option<String> {
        state.partitions().find_map(|(group, partition)| {
            let named: BTreeSet<_> = partition.members().map(|(it, _)| (it.id, it.node)).collect();
            let it = self.0.get(&group)?;
            let has: BTreeSet<_> = it.members.iter().map(|(&id, &(node, _))| (id, node)).collect();
            let Group { members, done, term, leader, .. } = it;
            (named != has).then(|| {
                format!("{group}: {members:?} {done:?} term {term} led by {leader:?}, not {partition:?}")
            })
        })
    }
}

impl Group {
    fn learn(
        &mut self,
        rng: &mut Rng,
        runs: &impl Fn(&ReplicaId, &NodeId) -> bool,
        reached: impl Fn(NodeId) -> bool,
    ) {
        for (id, (node, role)) in &self.members {
            if *role == Role::Learner && runs(id, node) && reached(*node) {
                let done = self.done.entry(*id).or_default();
                *done = DONE.min(*done + rng.below(400) as u16);
            }
        }
    }

    fn follow(&mut self, duty: &Duty) {
        let mut members = BTreeMap::new();
        for &(node, id, role) in &duty.members {
            // Who has not caught up does not vote, whatever is asked for.
            let has = self.members.get(&id).is_some_and(|(_, role)| *role == Role::Voter);
            let ready = has || self.done.get(&id) == Some(&DONE);
            members.insert(id, (node, if ready { role } else { Role::Learner }));
        }
        if members.keys().any(|id| self.gone.contains(id)) {
            return;
        }
        self.gone.extend(self.members.keys().filter(|id| !members.contains_key(id)));
        self.members = members;
    }

    fn report(&self, duty: &Duty) -> Report {
        let named = duty.members.iter().map(|&(node, id, role)| (id, (node, role)));
        let settled = named.collect::<BTreeMap<_, _>>() == self.members;
        let learners = self.members.iter().filter(|(_, (_, role))| *role == Role::Learner);
        let learner =
            |(&id, _): (&ReplicaId, _)| Learner { id, done: self.done.get(&id).copied().unwrap_or(0) };
        let learners = learners.map(learner).take(4).collect();
        Report { term: Term(self.term), epoch: duty.epoch, settled, learners }
    }
}
