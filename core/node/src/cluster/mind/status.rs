//! What a node can say of its cluster: for people, and for routing.

use control::plan::Progress;
use control::{Keyspace, Member, Move, Partition};
use kernel::ClusterId;
use placement::solve::SolveError;

use super::*;

/// The cluster, as this node sees it.
#[derive(Clone, Debug)]
pub struct Status {
    /// Which cluster; `None` for who was let in and has not got the state yet.
    pub cluster: Option<ClusterId>,
    /// Its state's version here.
    pub version: u64,
    /// The version of formats that it is at.
    pub speaks: Version,
    /// The control group's term.
    pub term: Term,
    /// Who leads it.
    pub leader: Option<NodeId>,
    /// All members, those that were removed too.
    pub members: Vec<MemberStatus>,
    /// What is being moved.
    pub moves: Vec<MoveStatus>,
    /// How much is left of that.
    pub progress: Progress,
    /// Why partitions cannot be placed; only its leader knows.
    pub trouble: Option<SolveError>,
}

/// A member.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// Who.
    pub node: NodeId,
    /// What the state says.
    pub member: Member,
    /// What this node thinks of it; `None` if it was removed.
    pub liveness: Option<Liveness>,
    /// Dead for so long that its copies are made elsewhere.
    pub down: bool,
    /// Copies that it keeps, in any role.
    pub copies: usize,
    /// What it is known to speak, while there is a link to it.
    pub spoken: Option<Spoken>,
}

/// A partition that is being moved.
#[derive(Clone, Debug)]
pub struct MoveStatus {
    /// Which.
    pub group: GroupId,
    /// The step.
    pub moving: Move,
    /// How much the new copy has, in thousandths, if this node was told.
    pub done: Option<u16>,
}

/// Where things are. Reads what is applied here, and costs nothing to make.
#[derive(Clone, Copy)]
pub struct Directory<'a>(&'a Mind);

/// Neighbouring slots of a keyspace and who has them.
#[derive(Clone, Copy, Debug)]
pub struct Shard<'a> {
    /// The partition.
    pub group: GroupId,
    /// The first slot, and the first behind them.
    pub slots: (u16, u16),
    /// Its copies and their changes.
    pub partition: &'a Partition,
    /// Who leads it: who was heard to, if it has a copy, else who should.
    pub leader: Option<NodeId>,
}

impl Mind {
    /// See [`Status`]. O(partitions).
    #[must_use]
    pub fn status(&self) -> Status {
        let members = self.state.members().iter().map(|(&node, member)| MemberStatus {
            node,
            member: member.clone(),
            liveness: self.liveness(node).filter(|_| member.is_present()),
            down: self.is_down(node),
            copies: self.state.kept_by(node).count(),
            spoken: self.spoken_by(node),
        });
        let moves = self.state.partitions().filter_map(|(group, partition)| {
            let moving = partition.moving?;
            let done = match moving {
                Move::Learning { new, .. } => {
                    let learners = self.reports.of(group).map(|report| &report.learners);
                    learners.and_then(|all| all.iter().find(|it| it.id == new.id)).map(|it| it.done)
                }
                Move::Removing { .. } | Move::Releasing { .. } => None,
            };
            Some(MoveStatus { group, moving, done })
        });
        Status {
            cluster: self.state.cluster().or(self.roster.as_ref().map(|roster| roster.cluster)),
            version: self.state.version(),
            speaks: self.state.speaks(),
            term: self.replica.term(),
            leader: self.leader(),
            members: members.collect(),
            moves: moves.collect(),
            progress: Progress::total(&self.state),
            trouble: self.lead.trouble(),
        }
    }

    /// What this node thinks of a member; `None` if it is none.
    #[must_use]
    pub fn liveness(&self, node: NodeId) -> Option<Liveness> {
        self.swim.liveness(node)
    }

    /// Where things are.
    #[must_use]
    pub const fn directory(&self) -> Directory<'_> {
        Directory(self)
    }
}

impl<'a> Directory<'a> {
    /// The keyspaces and what their owners set.
    pub fn keyspaces(self) -> impl Iterator<Item = (KeyspaceId, &'a Keyspace)> + 'a {
        self.0.state.keyspaces().iter().map(|(&keyspace, it)| (keyspace, it))
    }

    /// A partition.
    #[must_use]
    pub fn shard(self, group: GroupId) -> Option<Shard<'a>> {
        let space = self.0.state.keyspaces().get(&group.keyspace())?;
        let partition = space.partitions.get(usize::from(group.partition()))?;
        let slots = space.settings.partitions.slots(group.partition());
        let heard = self.0.reports.leader(group).filter(|&node| partition.replica(node).is_some());
        let leader = heard.or(partition.replicas.first().map(|replica| replica.node));
        Some(Shard { group, slots, partition, leader })
    }

    /// The partitions of a keyspace, by their slots; none if there is no such keyspace.
    pub fn shards(self, keyspace: KeyspaceId) -> impl Iterator<Item = Shard<'a>> + 'a {
        let count = self.0.state.keyspaces().get(&keyspace).map_or(0, |it| it.settings.partitions.count());
        (0..count).filter_map(move |at| self.shard(GroupId::new(keyspace, at)))
    }

    /// A member that was not removed, as far as this node knows.
    #[must_use]
    pub fn member(self, node: NodeId) -> Option<&'a Member> {
        self.0.members().find(|(member, _)| *member == node).map(|(_, member)| member)
    }

    /// The members that were not removed.
    pub fn members(self) -> impl Iterator<Item = (NodeId, &'a Member)> + 'a {
        self.0.members()
    }
}
