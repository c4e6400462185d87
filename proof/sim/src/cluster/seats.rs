//! Which node has which replica, as a placement would say it; and numbers that are never given twice.

use std::collections::BTreeMap;

use consensus::{Members, ReplicaId};
use kernel::{GroupId, KeyspaceId, NodeId};
use node::cluster::Seating;
use placement::Partitions;
use storage::store::Policy;

use crate::cluster::host::node_id;
use crate::cluster::plan::Plan;

/// One group's replicas.
#[derive(Clone, Debug)]
pub struct Table {
    /// Where they are, oldest first.
    pub seats: Vec<(usize, ReplicaId)>,
    /// One more with each change.
    epoch: u64,
    highest: u64,
}

/// All groups'.
pub struct Seats {
    tables: BTreeMap<GroupId, Table>,
    founders: Vec<ReplicaId>,
}

fn replica(number: u64) -> ReplicaId {
    ReplicaId::new(number).expect("counted from 1")
}

/// How many partitions a keyspace has.
pub fn partitions(plan: &Plan, db: KeyspaceId) -> Partitions {
    Partitions::new(plan.keyspaces[usize::from(db.0)]).expect("a keyspace has at least one")
}

impl Seats {
    /// Where the groups of the plan begin.
    pub fn new(plan: &Plan) -> Seats {
        let mut tables = BTreeMap::new();
        for (db, &partitions) in plan.keyspaces.iter().enumerate() {
            for part in 0..partitions {
                let first = tables.len();
                let seat = |at: usize| ((first + at) % plan.nodes, replica(at as u64 + 1));
                let table = Table {
                    seats: (0..plan.replicas).map(seat).collect(),
                    epoch: 1,
                    highest: plan.replicas as u64,
                };
                tables.insert(GroupId::new(KeyspaceId(db as u16), part), table);
            }
        }
        let founders = (1..=plan.replicas as u64).map(replica).collect();
        Seats { tables, founders }
    }

    /// The groups.
    pub fn groups(&self) -> Vec<GroupId> {
        self.tables.keys().copied().collect()
    }

    /// A group's replicas.
    pub fn of(&self, group: GroupId) -> &[(usize, ReplicaId)] {
        &self.tables[&group].seats
    }

    /// A group's replicas by the names of their nodes, and the epoch.
    pub fn named(&self, group: GroupId) -> (Vec<(NodeId, ReplicaId)>, u64) {
        let table = &self.tables[&group];
        (table.seats.iter().map(|&(node, id)| (node_id(node), id)).collect(), table.epoch)
    }

    /// A new replica of a group on a node.
    pub fn add(&mut self, group: GroupId, node: usize) {
        let table = self.tables.get_mut(&group).expect("the groups stay");
        table.highest += 1;
        table.epoch += 1;
        table.seats.push((node, replica(table.highest)));
    }

    /// A replica is no more.
    pub fn remove(&mut self, group: GroupId, id: ReplicaId) {
        let table = self.tables.get_mut(&group).expect("the groups stay");
        table.epoch += 1;
        table.seats.retain(|&(_, other)| other != id);
    }

    /// What the node of a replica is told of it.
    pub fn seating(&self, plan: &Plan, group: GroupId, id: ReplicaId) -> Seating {
        let founds = self.founders.contains(&id);
        let (nodes, epoch) = self.named(group);
        Seating {
            group,
            replica: id,
            nodes,
            founders: founds
                .then(|| Members::new(self.founders.iter().copied(), []).expect("a group has voters")),
            epoch,
            durability: plan.durability,
            partitions: partitions(plan, group.keyspace()),
            policy: Policy::NoEviction,
            memory: None,
        }
    }
}
