//! What one node has to do about a change of the desired state.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::SocketAddr;

use consensus::{Members, ReplicaId, Role};
use kernel::{GroupId, KeyspaceId, NodeId};

use crate::CONTROL;
use crate::state::{Name, Replica, State};

/// A group in which a node has a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duty {
    /// The node's replica.
    pub replica: ReplicaId,
    /// What the replica should do. One that is [`Role::Gone`] goes on until the group has let it go: it may be needed
    /// for that.
    pub role: Role,
    /// All members that the group should have, the preferred leader first, the node itself among them unless it goes.
    pub members: Vec<(NodeId, ReplicaId, Role)>,
    /// The members that the group began with, if this replica is one of them; else it begins empty, as a learner.
    pub founders: Option<Members>,
    /// The partition's epoch; 0 for the control group.
    pub epoch: u64,
}

/// What one node has to do. Applied in this order: stop, keyspaces, open, start, change, close, users,
/// mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Replicas that are no more: their data is deleted.
    pub stop: Vec<(GroupId, ReplicaId)>,
    /// Keyspaces that came, went, or have other settings.
    pub keyspaces: Vec<KeyspaceId>,
    /// Links to have, with where the other end listens; also those whose addresses changed.
    pub open: Vec<(NodeId, Vec<SocketAddr>)>,
    /// Replicas that are new here.
    pub start: Vec<(GroupId, Duty)>,
    /// Replicas whose group should have other members, roles, or another leader.
    pub change: Vec<(GroupId, Duty)>,
    /// Links to have no more.
    pub close: Vec<NodeId>,
    /// Users that came, went, or have other rights.
    pub users: Vec<Name>,
    /// The proxies are to do something else.
    pub mesh: bool,
}

/// What `node` has to do, so that what was right for `before` is right for `after`.
///
/// For a start, `before` is [`State::new`]. A replica that is stopped and one that is started in the same group have
/// different numbers: the node had a copy, lost it, and gets another.
#[must_use]
pub fn diff(before: &State, after: &State, node: NodeId) -> Diff {
    let mut diff = Diff::default();
    let (had, has) = (duties(before, node), duties(after, node));
    for (&group, duty) in &had {
        if has.get(&group).is_none_or(|now| now.replica != duty.replica) {
            diff.stop.push((group, duty.replica));
        }
    }
    for (group, duty) in has {
        match had.get(&group) {
            Some(before) if *before == duty => {}
            Some(before) if before.replica == duty.replica => diff.change.push((group, duty)),
            Some(_) | None => diff.start.push((group, duty)),
        }
    }
    let (had, has) = (links(before, node), links(after, node));
    diff.close.extend(had.keys().filter(|peer| !has.contains_key(*peer)));
    let other = has.into_iter().filter(|(peer, addresses)| had.get(peer) != Some(addresses));
    diff.open.extend(other.map(|(peer, addresses)| (peer, addresses.to_vec())));
    let settings = |state: &State, keyspace| state.keyspaces().get(keyspace).map(|it| it.settings.clone());
    let keyspaces: BTreeSet<&KeyspaceId> =
        before.keyspaces().keys().chain(after.keyspaces().keys()).collect();
    let other =
        keyspaces.into_iter().filter(|keyspace| settings(before, keyspace) != settings(after, keyspace));
    diff.keyspaces.extend(other);
    let users: BTreeSet<&Name> = before.users().keys().chain(after.users().keys()).collect();
    let other = users.into_iter().filter(|name| before.users().get(*name) != after.users().get(*name));
    diff.users.extend(other.cloned());
    diff.mesh = before.revision_number() != after.revision_number();
    diff
}

/// The groups in which `node` has a replica, the control group among them.
#[must_use]
pub fn duties(state: &State, node: NodeId) -> BTreeMap<GroupId, Duty> {
    let mut duties = BTreeMap::new();
    let first = state.members().values().map(|member| member.replica).min();
    let all = state.members().iter().filter(|(_, member)| member.is_present());
    let members: Vec<_> = all.map(|(&node, member)| (node, member.replica, member.role)).collect();
    let founders = first.and_then(|first| Members::new([first], []).ok());
    duties.extend(duty(node, members, founders, 0).map(|duty| (CONTROL, duty)));
    for (group, partition) in state.kept_by(node) {
        let members = partition.members().map(|(replica, role)| (replica.node, replica.id, role)).collect();
        let goes = partition.released().filter(|old| old.node == node);
        let duty = match goes {
            Some(Replica { id: replica, .. }) => {
                let founders = partition.founders().filter(|founders| founders.contains(replica));
                Some(Duty { replica, role: Role::Gone, members, founders, epoch: partition.epoch })
            }
            None => duty(node, members, partition.founders(), partition.epoch),
        };
        duties.extend(duty.map(|duty| (group, duty)));
    }
    duties
}

fn duty(
    node: NodeId,
    members: Vec<(NodeId, ReplicaId, Role)>,
    founders: Option<Members>,
    epoch: u64,
) -> Option<Duty> {
    let &(_, replica, role) = members.iter().find(|(member, _, _)| *member == node)?;
    let founders = founders.filter(|founders| founders.contains(replica));
    Some(Duty { replica, role, members, founders, epoch })
}

/// Everybody else, if `node` is a member itself.
fn links(state: &State, node: NodeId) -> BTreeMap<NodeId, &[SocketAddr]> {
    let is_member = |node: &NodeId| state.members().get(node).is_some_and(|member| member.is_present());
    if !is_member(&node) {
        return BTreeMap::new();
    }
    let peers = state.members().iter().filter(|(peer, _)| **peer != node && is_member(peer));
    peers.map(|(&peer, member)| (peer, member.addresses.as_slice())).collect()
}
