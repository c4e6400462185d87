//! What is left of a cluster when a majority is lost for good: one member, which the operator makes a cluster of its own.
//!
//! Consensus cannot say this: nobody is left to agree. So it is no [`crate::Operation`] but a new state, made of what the
//! survivor has, and its safety is in what it cannot be confused with. The cluster gets another identity. The other
//! members become tombstones, whose keys are never accepted again. All replicas get new numbers, so far above what the
//! survivor knows that no lost majority can have given them meanwhile.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use consensus::{ReplicaId, Role};
use kernel::{ClusterId, GroupId, Millis, NodeId};

use crate::TOMBSTONES_MAX;
use crate::apply::cut;
use crate::operation::OperationId;
use crate::refused::{Refused, Table};
use crate::state::{Audit, Name, Outcome, Partition, Replica, Standing, State};

/// Numbers of replicas that are left out: more than a majority that the survivor did not hear can have given.
pub const NUMBERS_LEFT_OUT: u64 = 1 << 32;
/// Who asks, in the audit trail.
const OPERATOR: &str = "recover";

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Recovery<'a> {
    /// What the cluster is from now on.
    pub cluster: ClusterId,
    /// The one member.
    pub node: NodeId,
    /// The groups of which it has a copy. All other partitions begin empty.
    pub copies: &'a BTreeSet<GroupId>,
    /// When.
    pub at: Millis,
}

impl State {
    /// The state of the cluster that `recovery.node` is alone.
    ///
    /// Keyspaces and users stay. Join secrets go: who issued them may be gone. Partitions without a copy are not placed,
    /// so that the plan begins them anew.
    ///
    /// # Errors
    /// [`Refused`] if there is no cluster, the node is not in it, or a table is full.
    pub fn recovered(&self, recovery: &Recovery<'_>) -> Result<State, Refused> {
        let (node, mut state) = (recovery.node, self.clone());
        let before = state.cluster.ok_or(Refused::NoCluster)?;
        match state.members.get(&node) {
            None => return Err(Refused::NotMember(node)),
            Some(member) if !member.is_present() => return Err(Refused::RemovedBefore(node)),
            Some(_) => {}
        }
        if state.members.len() - 1 > TOMBSTONES_MAX {
            return Err(Refused::Full { table: Table::Tombstones, limit: TOMBSTONES_MAX as u64 });
        }
        state.now = state.now.max(recovery.at);
        let first = state.allot(NUMBERS_LEFT_OUT)?.saturating_add(NUMBERS_LEFT_OUT);
        let own = number(state.allot(1)?);
        let at = state.now;
        for (&other, member) in &mut state.members {
            if other == node {
                (member.replica, member.standing, member.role) = (own, Standing::Active, Role::Voter);
            } else if member.is_present() {
                (member.standing, member.role) = (Standing::Removed { at }, Role::Gone);
                member.addresses = Vec::new();
            }
        }
        let groups: Vec<GroupId> = state.partitions().map(|(group, _)| group).collect();
        for group in groups {
            let kept = recovery.copies.contains(&group);
            let id = if kept { Some(number(state.allot(1)?)) } else { None };
            let space = state.keyspaces.get_mut(&group.keyspace());
            if let Some(it) = space.and_then(|space| space.partitions.get_mut(usize::from(group.partition())))
            {
                *it = alone(it, node, id);
            }
        }
        state.secrets.clear();
        state.cluster = Some(recovery.cluster);
        state.version = state.version.saturating_add(1);
        debug_assert!(first <= own.get(), "numbers are left out");
        state.note(recovery, before, own);
        Ok(state)
    }

    /// The line of the audit trail: its id is that of the cluster, which nobody else draws.
    fn note(&mut self, recovery: &Recovery<'_>, before: ClusterId, own: ReplicaId) {
        if self.audit.len() >= crate::AUDIT_MAX {
            self.audit.pop_front();
        }
        self.audit.push_back(Audit {
            id: OperationId(recovery.cluster.0),
            by: Name::new(OPERATOR).expect("it is a name"),
            at: self.now,
            what: cut(alloc::format!("recover cluster {before} with node {} alone", recovery.node)),
            result: Ok(Outcome { version: self.version, replica: Some(own) }),
        });
    }
}

fn number(allotted: u64) -> ReplicaId {
    ReplicaId::new(allotted).expect("what is allotted is a number of a replica")
}

/// A partition of which `node` has the only copy, under a new number; or nobody has any.
fn alone(before: &Partition, node: NodeId, id: Option<ReplicaId>) -> Partition {
    Partition {
        replicas: id.map(|id| Replica { node, id }).into_iter().collect(),
        wanted: id.map(|_| node).into_iter().collect(),
        moving: None,
        epoch: before.epoch.saturating_add(1),
        // Nobody began with it: it is there, or its group begins anew when it is placed.
        founders: (0, 0),
    }
}
