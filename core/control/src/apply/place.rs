//! Placement: who should keep a partition, and the steps that lead there.
//!
//! Copies that count never fall below what is promised: a copy is added, learns, counts, and only then another goes.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use consensus::ReplicaId;
use kernel::planted::{self, Bug};
use kernel::{GroupId, KeyspaceId, NodeId};
use placement::solve::COPIES_MAX;

use super::Changed;
use crate::MOVES_MAX;
use crate::operation::Step;
use crate::refused::Refused;
use crate::state::{Move, Partition, Replica, State};

impl State {
    pub(super) fn place(&mut self, keyspace: KeyspaceId, version: u64, wanted: &[Vec<NodeId>]) -> Changed {
        let space = self.keyspaces.get(&keyspace).ok_or(Refused::KeyspaceUnknown(keyspace))?;
        if version != self.version {
            return Err(Refused::OtherVersion { planned: version, is: self.version });
        }
        if wanted.len() != space.partitions.len() {
            let (given, has) = (wanted.len(), space.partitions.len());
            return Err(Refused::PlacementCount { keyspace, given, has });
        }
        let promised = self.promised(space.settings.copies);
        let fresh = space.partitions.iter().filter(|it| it.replicas.is_empty()).count();
        for (at, nodes) in (0..).zip(wanted) {
            let different = nodes.iter().collect::<BTreeSet<_>>().len();
            if different != promised || nodes.len() != promised {
                let group = GroupId::new(keyspace, at);
                return Err(Refused::PlacementCopies { group, copies: different, promised });
            }
            nodes.iter().try_for_each(|&node| self.must_be_active(node))?;
        }
        let mut next = self.allot((fresh * promised) as u64)?;
        if let Some(space) = self.keyspaces.get_mut(&keyspace) {
            for (partition, nodes) in space.partitions.iter_mut().zip(wanted) {
                partition.wanted.clone_from(nodes);
                if partition.replicas.is_empty() {
                    partition.found(next);
                    next += promised as u64;
                } else {
                    partition.lead_by_wish();
                }
            }
        }
        Ok(None)
    }

    pub(super) fn step(&mut self, group: GroupId, epoch: u64, step: Step) -> Changed {
        let at = self.at_epoch(group, epoch)?.clone();
        match (step, at.moving) {
            (Step::Add { .. } | Step::Drop { .. }, Some(_)) => Err(Refused::MoveUnderWay(group)),
            (Step::Add { .. } | Step::Drop { .. }, None) if self.moves() >= MOVES_MAX => {
                Err(Refused::MovesAtOnce)
            }
            (Step::Add { new, old }, None) => self.add(group, &at, new, old),
            (Step::Drop { old }, None) => {
                self.may_go(group, &at, old)?;
                Ok(self.put(group, Partition { moving: Some(Move::Removing { old }), ..at }))
            }
            (Step::Promote, Some(Move::Learning { new, old })) => {
                self.must_be_active(new.node)?;
                let mut next = Partition { moving: old.map(|old| Move::Removing { old }), ..at };
                next.replicas.push(new);
                next.prefer();
                Ok(self.put(group, next))
            }
            (Step::Finish, Some(Move::Removing { old })) => {
                self.may_go(group, &at, old)?;
                let moving = at.replica(old).map(|old| Move::Releasing { old });
                let mut next = Partition { moving, ..at };
                next.replicas.retain(|replica| replica.node != old);
                next.prefer();
                Ok(self.put(group, next))
            }
            (Step::Forget, Some(Move::Releasing { .. })) => {
                Ok(self.put(group, Partition { moving: None, ..at }))
            }
            (Step::Abort, Some(Move::Learning { .. } | Move::Removing { .. })) => {
                if planted::is(Bug::ReplicaNumberReused) && matches!(at.moving, Some(Move::Learning { .. })) {
                    self.next_replica -= 1;
                }
                Ok(self.put(group, Partition { moving: None, ..at }))
            }
            (Step::Promote, _) => Err(Refused::NoSuchMove { group, needs: "has a learner" }),
            (Step::Finish, _) => Err(Refused::NoSuchMove { group, needs: "has a copy that goes" }),
            (Step::Forget, _) => Err(Refused::NoSuchMove { group, needs: "has a copy that was let go" }),
            (Step::Abort, Some(Move::Releasing { .. }) | None) => {
                Err(Refused::NoSuchMove { group, needs: "can be given up" })
            }
        }
    }

    /// How many are under way.
    fn moves(&self) -> usize {
        self.partitions().filter(|(_, partition)| partition.moving.is_some()).count()
    }

    fn add(&mut self, group: GroupId, at: &Partition, new: NodeId, old: Option<NodeId>) -> Changed {
        self.must_be_active(new)?;
        if at.replica(new).is_some() {
            return Err(Refused::HasCopy { node: new, group });
        }
        if at.replicas.len() > COPIES_MAX || (old.is_none() && at.replicas.len() == COPIES_MAX) {
            return Err(Refused::TooManyCopies(group));
        }
        if let Some(node) = old.filter(|&old| at.replica(old).is_none()) {
            return Err(Refused::HasNoCopy { node, group });
        }
        let id = ReplicaId::new(self.allot(1)?).expect("what is allotted is a number of a replica");
        let moving = Some(Move::Learning { new: Replica { node: new, id }, old });
        let mut next = Partition { moving, ..at.clone() };
        if planted::is(Bug::OldCopyGoesFirst) {
            next.replicas.retain(|replica| Some(replica.node) != old);
        }
        self.put(group, next);
        Ok(Some(id))
    }

    pub(super) fn move_leader(&mut self, group: GroupId, epoch: u64, node: NodeId) -> Changed {
        let mut next = self.at_epoch(group, epoch)?.clone();
        let Some(place) = next.replicas.iter().position(|replica| replica.node == node) else {
            return Err(Refused::HasNoCopy { node, group });
        };
        next.replicas[..=place].rotate_right(1);
        if let Some(place) = next.wanted.iter().position(|&wanted| wanted == node) {
            next.wanted[..=place].rotate_right(1);
        }
        Ok(self.put(group, next))
    }

    /// A placed partition, if it is still at `epoch`.
    fn at_epoch(&self, group: GroupId, epoch: u64) -> Result<&Partition, Refused> {
        let partition = self.partition(group).ok_or(Refused::PartitionUnknown(group))?;
        if partition.replicas.is_empty() {
            return Err(Refused::NotPlaced(group));
        }
        if partition.epoch != epoch {
            return Err(Refused::OtherEpoch { group, planned: epoch, is: partition.epoch });
        }
        Ok(partition)
    }

    /// Refuses unless enough copies count without the one of `node`.
    pub(crate) fn may_go(&self, group: GroupId, at: &Partition, node: NodeId) -> Result<(), Refused> {
        if at.replica(node).is_none() {
            return Err(Refused::HasNoCopy { node, group });
        }
        let copies = self.keyspaces.get(&group.keyspace()).map_or(1, |space| space.settings.copies);
        let (left, promised) = (at.replicas.len() - 1, self.promised(copies));
        if left < promised && !planted::is(Bug::CopiesNotCounted) {
            return Err(Refused::TooFewCopies { group, left, promised });
        }
        Ok(())
    }

    /// Replaces a partition, one epoch later.
    fn put(&mut self, group: GroupId, next: Partition) -> Option<ReplicaId> {
        let at = usize::from(group.partition());
        let space = self.keyspaces.get_mut(&group.keyspace());
        if let Some(partition) = space.and_then(|space| space.partitions.get_mut(at)) {
            *partition = Partition { epoch: next.epoch.saturating_add(1), ..next };
        }
        None
    }
}

impl Partition {
    /// Its first copies, with the numbers from `first` on, on all who are wanted.
    fn found(&mut self, first: u64) {
        let ids = (first..).filter_map(ReplicaId::new);
        self.replicas = self.wanted.iter().zip(ids).map(|(&node, id)| Replica { node, id }).collect();
        self.founders = (first, self.replicas.len() as u8);
        self.epoch = self.epoch.saturating_add(1);
    }

    /// A new wish may ask for another leader; that is a new epoch.
    fn lead_by_wish(&mut self) {
        let before = self.replicas.first().copied();
        self.prefer();
        if self.replicas.first().copied() != before {
            self.epoch = self.epoch.saturating_add(1);
        }
    }
}
