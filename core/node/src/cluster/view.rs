//! What clients are told of the cluster, and where those are sent that came by the port of cluster clients.

use alloc::vec::Vec;
use core::net::SocketAddr;

use gateway::resp::{Address, ClusterNode, ClusterView, Copies, Io, cluster};
use kernel::{ConnId, GroupId, KeyspaceId, Micros, WorkerId};
use placement::{Partitions, Slot};
use storage::reach::place;
use storage::{Command, Fault, Flags};

use super::NOBODY;
use super::courier::Peer;
use crate::route::{Place, Route};
use crate::worker::Worker;

impl Worker {
    /// Takes a new client by the port of cluster clients; `None` when there are too many, or the node is in no cluster.
    pub fn connect_cluster_client(&mut self, now: Micros, peer: SocketAddr) -> Option<ConnId> {
        let db = self.cluster_keyspace()?;
        let id = self.connect(now, peer)?;
        let connection = self.connections.get_mut(id)?;
        connection.io.cluster = true;
        connection.session.enter(db);
        Some(id)
    }

    /// The keyspace of cluster clients: the one that was set, else the first of several partitions, else 0.
    fn cluster_keyspace(&self) -> Option<KeyspaceId> {
        let chosen = self.cluster.as_ref()?.post.keyspace.filter(|&db| self.routes.exists(db));
        let divided = || self.routes.all().find(|&(_, partition, _)| partition > 0).map(|(db, ..)| db);
        Some(chosen.or_else(divided).unwrap_or(KeyspaceId(0)))
    }

    /// The cluster, as clients of `db` are told of it. O(nodes + partitions).
    pub(crate) fn cluster_view(&self, db: KeyspaceId) -> Option<ClusterView> {
        let cluster = self.cluster.as_ref()?;
        let post = &cluster.post;
        let partitions = match self.routes.get(db)? {
            Route::Whole(_) => Partitions::ONE,
            Route::Spread(spread) => spread.partitions,
        };
        let groups = (0..partitions.count()).map(|partition| GroupId::new(db, partition));
        let address = &post.own;
        // Members that were removed are remembered as peers, and have neither copies nor a link.
        let placed = |worker: WorkerId| {
            let node = cluster.peers.node(worker);
            post.placed.values().any(|placed| placed.nodes.iter().any(|&one| Some(one) == node))
        };
        let others = post.peers.iter().filter(|(worker, peer)| peer.since.is_some() || placed(**worker));
        let others: Vec<(WorkerId, &Peer)> = others.map(|(&worker, peer)| (worker, peer)).collect();
        let mut nodes = alloc::vec![ClusterNode {
            id: cluster.node,
            address: address.0.clone(),
            link_port: address.1,
            up: true,
            linked: None,
        }];
        nodes.extend(others.iter().filter_map(|(worker, peer)| {
            Some(ClusterNode {
                id: cluster.peers.node(*worker)?,
                address: peer.address.clone(),
                link_port: peer.link_port,
                up: peer.since.is_some(),
                linked: peer.since,
            })
        }));
        let at = |node| nodes.iter().position(|one| one.id == node);
        let copies = groups.map(|group| {
            let leader = match self.routes.find(db, group.partition()) {
                Some(Place::Own(_)) => Some(0),
                Some(Place::Other(worker)) => {
                    self.presumed(group, worker).and_then(|worker| cluster.peers.node(worker)).and_then(at)
                }
                None => None,
            };
            let placed = post.placed.get(&group).map_or(&[][..], |placed| &placed.nodes);
            let others = placed.iter().filter_map(|&node| at(node)).filter(|&at| Some(at) != leader);
            Copies { leader, others: others.collect() }
        });
        let copies = copies.collect();
        let epoch = post.epochs.values().copied().max().unwrap_or(0);
        Some(ClusterView { nodes, own: 0, epoch, partitions, copies })
    }

    /// Who is taken for the leader of a partition, if `known` says nobody: without a copy here, the one of those up that
    /// should lead rather than others.
    fn presumed(&self, group: GroupId, known: WorkerId) -> Option<WorkerId> {
        let cluster = self.cluster.as_ref()?;
        let up = |worker: &WorkerId| cluster.post.peers.get(worker).is_some_and(|peer| peer.since.is_some());
        if known != NOBODY {
            return Some(known).filter(up);
        }
        let placed = cluster.post.placed.get(&group).filter(|_| !cluster.groups.contains_key(&group))?;
        placed.nodes.iter().filter_map(|&node| cluster.peers.known(node)).find(up)
    }

    /// Whether a command of a cluster client runs here, and else what to answer.
    pub(crate) fn steer(
        &self,
        io: &Io,
        db: KeyspaceId,
        command: &Command,
        args: &[&[u8]],
    ) -> Result<(), Fault> {
        if command.flags.has(Flags::KEYSPACE)
            || command.flags.has(Flags::SESSION) && command.name.contains('|')
        {
            return Ok(());
        }
        let partitions = self.routes.spread(db).map_or(Partitions::ONE, |spread| spread.partitions);
        let Some(partition) = place(command, args, partitions)? else { return Ok(()) };
        let first = command.key_positions(args).first().copied();
        let Some(slot) = first.map(|at| Slot::of(args[at])) else { return Ok(()) };
        self.steer_slot(io, (db, partition), slot, command.kind == storage::Kind::Write)
    }

    /// The same for all that belongs to a partition.
    pub(crate) fn steer_to(
        &self,
        io: &Io,
        db: KeyspaceId,
        partition: u16,
        writes: bool,
    ) -> Result<(), Fault> {
        let partitions = self.routes.spread(db).map_or(Partitions::ONE, |spread| spread.partitions);
        let slot = Slot::new(partitions.slots(partition).0).unwrap_or_default();
        self.steer_slot(io, (db, partition), slot, writes)
    }

    fn steer_slot(
        &self,
        io: &Io,
        (db, partition): (KeyspaceId, u16),
        slot: Slot,
        writes: bool,
    ) -> Result<(), Fault> {
        let Place::Other(worker) = self.routes.place(db, partition) else { return Ok(()) };
        if !writes && self.reads_copies(io, db) && self.local(db, partition).is_some() {
            return Ok(());
        }
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let leader = self.presumed(GroupId::new(db, partition), worker);
        // While nobody leads it waits here, as any command does, until somebody does or its time is over.
        let Some(peer) = leader.and_then(|leader| cluster.post.peers.get(&leader)) else { return Ok(()) };
        // A node that takes no cluster clients is reached by way of this one.
        let sent = |address: &Address| Err(cluster::moved(slot, address));
        peer.address.as_ref().map_or(Ok(()), sent)
    }
}
