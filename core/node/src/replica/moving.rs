//! Snapshots between this node's replicas and others', if the worker moves them itself.

use alloc::boxed::Box;
use alloc::vec::Vec;

use consensus::codec::Descriptor;
use kernel::{GroupId, Micros, NodeId};

use crate::cluster::transfer::{Effect, Options, Progress, Report, Transfers};
use crate::cluster::{Done, Job, Lane, Outgoing, kind};
use crate::worker::Worker;

impl Worker {
    /// The same; it moves snapshots over the bulk links itself, and asks its host for [`Job::Transfer`]s. Without this the
    /// host gets them its own way, for [`Job::FetchSnapshot`].
    ///
    /// # Panics
    /// If it is in no cluster.
    #[must_use]
    pub fn with_transfers(mut self, options: Options) -> Worker {
        let cluster = self.cluster.as_mut().expect("snapshots move within a cluster");
        // Runs of an earlier life are told apart by the incarnation.
        let chance = kernel::Rng::new(cluster.chance).fork(cluster.incarnation.0).next_u64();
        cluster.transfers = Some(Box::new(Transfers::new(options, chance)));
        self
    }

    /// What is moved at the moment.
    #[must_use]
    pub fn transfers(&self) -> Vec<Progress> {
        let transfers = self.cluster.as_ref().and_then(|cluster| cluster.transfers.as_ref());
        transfers.map(|transfers| transfers.progress().collect()).unwrap_or_default()
    }

    pub(super) fn fetch_snapshot(&mut self, at: usize, group: GroupId, from: NodeId, descriptor: Descriptor) {
        let now = self.now;
        if self.move_with(|transfers| transfers.fetch(now, at, group, from, &descriptor)).is_none() {
            self.ask_host(Job::FetchSnapshot { at, group, from, descriptor });
        }
    }

    /// The host holds a snapshot.
    pub(super) fn hold_out(&mut self, group: GroupId, generation: u64) {
        let now = self.now;
        self.move_with(|transfers| transfers.offer(now, group, generation));
    }

    /// There is no replica of the group here any more.
    pub(super) fn stop_moving(&mut self, group: GroupId) {
        let now = self.now;
        self.move_with(|transfers| transfers.forget(now, group));
    }

    pub(super) fn take_snapshot_frame(&mut self, from: NodeId, bytes: &[u8]) {
        let now = self.now;
        let taken = self.move_with(|transfers| transfers.take_frame(now, from, bytes));
        if let Some(cluster) = &mut self.cluster {
            match taken {
                Some(Ok(())) => {}
                Some(Err(_)) => cluster.dropped.malformed += 1,
                None => cluster.dropped.unknown += 1,
            }
        }
    }

    /// A follower gets on with its snapshot: the leader waits for it.
    fn progressed(&mut self, to: NodeId, group: GroupId) {
        let at = self.cluster.as_ref().and_then(|cluster| cluster.groups.get(&group)).copied();
        let Some(partition) = at.map(|at| &mut self.partitions[at]) else { return };
        let nodes = partition.seat.as_ref().map(|seat| &seat.nodes);
        let peer = nodes.and_then(|nodes| nodes.iter().find(|(_, node)| **node == to)).map(|(id, _)| *id);
        if let (Some(peer), Some(replica)) = (peer, partition.group.replica_mut()) {
            replica.snapshot_progressed(peer);
        }
    }

    pub(super) fn transferred(&mut self, report: Report) {
        let now = self.now;
        self.move_with(|transfers| transfers.report(now, report));
    }

    pub(super) fn move_over(&mut self, peer: NodeId, up: bool) {
        let now = self.now;
        self.move_with(|transfers| if up { transfers.peer_up(now, peer) } else { transfers.peer_down(peer) });
    }

    pub(super) fn transfers_deadline(&self) -> Option<Micros> {
        self.cluster.as_ref()?.transfers.as_ref()?.deadline()
    }

    pub(super) fn wake_transfers(&mut self) {
        let now = self.now;
        if self.transfers_deadline().is_some_and(|deadline| deadline <= now) {
            self.move_with(|transfers| transfers.wake(now));
        }
    }

    /// Does something with the transfers, and then what they say. `None` if the host moves snapshots.
    fn move_with<T>(&mut self, act: impl FnOnce(&mut Transfers) -> T) -> Option<T> {
        let cluster = self.cluster.as_mut()?;
        let transfers = cluster.transfers.as_mut()?;
        let result = act(transfers);
        let mut effects = Vec::new();
        transfers.take_effects(&mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, bytes: content } => {
                    let mut bytes = Vec::with_capacity(content.len() + 1);
                    bytes.push(kind::SNAPSHOT);
                    bytes.extend_from_slice(&content);
                    if let Some(cluster) = &mut self.cluster {
                        cluster.frames.push(Outgoing { to, lane: Lane::Bulk, bytes });
                    }
                }
                Effect::Do(task) => self.ask_host(Job::Transfer(task)),
                Effect::Retract { group, generation } => {
                    if let Some(replica) = self.replica_mut(group) {
                        replica.retract_snapshot(generation);
                    }
                }
                Effect::Progressed { to, group } => self.progressed(to, group),
                Effect::Fetched { at, generation, here, .. } => {
                    let now = self.now;
                    self.job_done(now, Done::Fetched { at, generation, here });
                }
            }
        }
        Some(result)
    }
}
