//! Replicas come and go in the middle of it, as a placement would have them: a new one learns, then votes, then an old one
//! goes; its data is deleted when all others know durably that it is gone.

use consensus::{ReplicaId, Role};
use kernel::GroupId;
use node::Partition;

use super::World;

impl World<'_> {
    /// A group is to have another replica on a node that has none, mostly in the place of one that it has.
    pub(super) fn add_replica(&mut self) {
        let groups = self.seats.groups();
        let group = groups[self.faults.below(groups.len() as u64) as usize];
        let seats = self.seats.of(group);
        let spare: Vec<usize> = (0..self.machines.len())
            .filter(|&node| self.machines[node].life.is_some() && seats.iter().all(|&(seat, _)| seat != node))
            .collect();
        // One exchange at a time.
        if spare.is_empty() || seats.len() > self.plan.replicas {
            return;
        }
        let node = spare[self.faults.below(spare.len() as u64) as usize];
        self.seats.add(group, node);
        let &(_, id) = self.seats.of(group).last().expect("it was just added");
        self.trace.event(self.now, format_args!("node {node} is to have {group} as {id}"));
        self.tell_seats(group);
        let seating = self.seats.seating(&self.plan, group, id);
        let clock = self.machines[node].clock(self.now);
        if let Some(life) = &mut self.machines[node].life {
            life.worker.start_replica(clock, &seating);
        }
    }

    fn tell_seats(&mut self, group: GroupId) {
        let (nodes, epoch) = self.seats.named(group);
        for machine in &mut self.machines {
            let clock = machine.clock(self.now);
            if let Some(life) = &mut machine.life {
                life.worker.reseat(clock, group, &nodes, epoch);
                life.again = Some(self.now);
            }
        }
    }

    /// A step towards what the seats say, for each group.
    pub(super) fn reconcile(&mut self) {
        for group in self.seats.groups() {
            let Some(leader) = self.leader_of(group) else { continue };
            let roles = self.wanted(group, leader);
            if !roles.is_empty() {
                let clock = self.machines[leader].clock(self.now);
                let Some(life) = &mut self.machines[leader].life else { continue };
                life.again = Some(self.now);
                let asked = life.worker.replica_mut(group).map(|replica| replica.change(clock, &roles));
                self.trace.event(self.now, format_args!("{group} is to change {roles:?}: {asked:?}"));
                self.outcome.changes += u64::from(asked.is_some_and(|asked| asked.is_ok()));
            }
            self.retire(group);
        }
    }

    /// Who leads a group for its clients, in the highest term.
    pub(super) fn leader_of(&self, group: GroupId) -> Option<usize> {
        let leads = |node: &usize| self.partition(*node, group).filter(|partition| partition.leads());
        (0..self.machines.len())
            .filter(|node| self.machines[*node].paused_until <= self.now && leads(node).is_some())
            .max_by_key(|&node| self.partition(node, group).map(Partition::term))
    }

    pub(super) fn partition(&self, node: usize, group: GroupId) -> Option<&Partition> {
        let life = self.machines[node].life.as_ref()?;
        life.worker
            .partitions()
            .iter()
            .find(|partition| partition.group_id() == group && !partition.is_gone())
    }

    /// The change that the leader is to be asked for.
    fn wanted(&mut self, group: GroupId, leader: usize) -> Vec<(ReplicaId, Role)> {
        let Some(partition) = self.partition(leader, group) else { return Vec::new() };
        let Some(replica) = partition.replica() else { return Vec::new() };
        let (members, applied) = (replica.members(), partition.store().applied().0);
        if members.is_joint() {
            return Vec::new();
        }
        for &(node, id) in self.seats.of(group) {
            if !members.contains(id) && !members.is_gone(id) {
                return vec![(id, Role::Learner)];
            }
            let behind = |applied_there: u64| applied_there == 0 || applied_there + 20 < applied;
            let own = self.partition(node, group);
            let behind = own.is_none_or(|own| behind(own.store().applied().0));
            if members.learners().contains(&id) && !behind {
                let mut roles = vec![(id, Role::Voter)];
                let oldest = members.voters().first().copied();
                // An exchange in one step, through a joint configuration.
                roles.extend(oldest.filter(|_| self.rng.chance(0.5)).map(|oldest| (oldest, Role::Gone)));
                return roles;
            }
        }
        let oldest = members.voters().first().copied();
        let many = members.voters().len() > self.plan.replicas;
        oldest.filter(|_| many).map(|oldest| (oldest, Role::Gone)).into_iter().collect()
    }

    /// Replicas that all others know durably to be gone are deleted.
    fn retire(&mut self, group: GroupId) {
        let seats = self.seats.of(group).to_vec();
        for &(node, id) in &seats {
            let knows = |&(other, own): &(usize, ReplicaId)| {
                let Some(life) = &self.machines[other].life else { return false };
                let durable = life.log.commit.durable() >= life.worker.appended();
                let replica = self.partition(other, group).and_then(Partition::replica);
                durable && replica.is_some_and(|one| one.members().is_gone(id) || one.members().is_gone(own))
            };
            let gone = seats.len() > 1 && seats.iter().filter(|(_, other)| *other != id).all(knows);
            if !gone || self.machines[node].life.is_none() {
                continue;
            }
            self.trace.event(self.now, format_args!("node {node} gives {id} of {group} up"));
            let clock = self.machines[node].clock(self.now);
            if let Some(life) = &mut self.machines[node].life {
                life.worker.stop_replica(clock, group);
                life.again = Some(self.now);
            }
            self.judge.left(node, group);
            // This world has no directory: the node would not know whom to hand its clients' commands to.
            for client in 0..self.clients.len() {
                if let Some((_, conn)) = self.clients[client].conn.filter(|(other, _)| *other == node) {
                    if let Some(life) = &mut self.machines[node].life {
                        life.worker.disconnect(conn);
                    }
                    self.lose(client);
                }
            }
            self.seats.remove(group, id);
            self.tell_seats(group);
            return;
        }
    }
}
