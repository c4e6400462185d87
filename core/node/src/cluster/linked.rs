//! Links to other nodes come and go; what concerns all nodes of the cluster.

use alloc::boxed::Box;
use alloc::vec::Vec;

use gateway::resp::{Address, Sequence};
use kernel::{ConnId, GroupId, KeyspaceId, Micros, NodeId, WorkerId};
use storage::Command;

use super::courier::{LETTER_BYTES_MAX, NO_CLIENT, Placed, conn_of, number};
use super::forward::Errand;
use super::post::Letter;
use super::{Cluster, NOBODY, PEERS_FIRST};
use crate::errand::Abroad;
use crate::keyspaces::{Answer, Waits};
use crate::parcel::{Asker, Guest, Protocol, Request, Telling};
use crate::route::Place;
use crate::worker::Worker;

/// Peers come and go, and time passes.
impl Worker {
    /// There is a (new) link to a peer: what was on its way is lost.
    pub(crate) fn post_up(&mut self, peer: NodeId) {
        let now = self.now;
        let Some(worker) = self.cluster.as_mut().map(|one| one.peers.worker(peer)) else { return };
        self.post_lost(worker);
        let Some(cluster) = &mut self.cluster else { return };
        let known = cluster.post.peers.entry(worker).or_default();
        known.since = Some(now);
        known.joiner.clear();
        let (address, link_port) = cluster.post.own.clone();
        greet(cluster, address.as_ref(), link_port, Some(worker));
        for partition in self.partitions.iter().filter(|one| one.leads && one.stalled) {
            let (db, partition) = (partition.keyspace(), partition.number());
            cluster.put(worker, &Letter::Stalled { db, partition, stalled: true });
        }
    }

    /// There is no link to a peer any more.
    pub(crate) fn post_down(&mut self, peer: NodeId) {
        let Some(worker) = self.cluster.as_mut().map(|one| one.peers.worker(peer)) else { return };
        if let Some(peer) = self.cluster.as_mut().and_then(|one| one.post.peers.get_mut(&worker)) {
            peer.since = None;
        }
        self.post_lost(worker);
    }

    fn post_lost(&mut self, worker: WorkerId) {
        self.forget_guests(worker);
        self.break_watches_at(|place| place == Place::Other(worker));
        let Some(cluster) = &mut self.cluster else { return };
        cluster.post.boxes.remove(&worker);
        let given_up = cluster.post.forward.lost(worker);
        let asked: Vec<ConnId> =
            cluster.post.asked.extract_if(.., |(asked, _)| *asked == worker).map(|(_, conn)| conn).collect();
        let joints: Vec<u64> =
            cluster.post.joints.extract_if(.., |(at, _)| *at == worker).map(|(_, joint)| joint).collect();
        self.abandon_all(given_up);
        let routes = &self.routes;
        let its =
            |(db, partition): &(KeyspaceId, u16)| routes.find(*db, *partition) == Some(Place::Other(worker));
        let stalled: Vec<_> = self.others.stalled.keys().copied().filter(its).collect();
        stalled.into_iter().for_each(|partition| self.let_writers_go(partition));
        asked.into_iter().for_each(|conn| self.hear(conn, Telling::Watches { broken: true }));
        joints.into_iter().for_each(|joint| self.part_done(joint, None));
    }

    /// What clients of a peer have here is over: that they watch, wait and read on.
    pub(super) fn forget_guests(&mut self, worker: WorkerId) {
        for conn in self.others.guests_of(worker) {
            self.guest_gone(conn);
            self.unwatch_for(conn);
        }
        for conn in self.readers_of(worker).into_iter().chain(self.fetchers_of(worker)) {
            self.guest_gone(conn);
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.post.rounds.retain(|(peer, _), _| *peer != worker);
        }
    }

    /// Who leads a partition has changed, as far as this node knows.
    pub(crate) fn rerouted(&mut self, group: GroupId, before: Place) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.post.forward.settled(group);
        if matches!(before, Place::Other(worker) if worker != NOBODY) {
            self.break_watches_of(group);
        }
    }

    pub(crate) fn reroute(&mut self, group: GroupId, place: Place) {
        let (db, partition) = (group.keyspace(), group.partition());
        let Some(before) = self.routes.find(db, partition).filter(|before| *before != place) else { return };
        self.routes.set(db, partition, place);
        self.let_writers_go((db, partition));
        self.rerouted(group, before);
    }

    /// Who led the partition knew what is watched; who leads now does not.
    fn break_watches_of(&mut self, group: GroupId) {
        let routes = &self.routes;
        for connection in self.connections.iter_mut().filter(|one| !one.watched.is_empty()) {
            let concerned = connection
                .watched
                .iter()
                .any(|(db, key)| *db == group.keyspace() && routes.partition(*db, key) == group.partition());
            connection.io.watch_broken |= concerned;
        }
    }

    fn break_watches_at(&mut self, at: impl Fn(Place) -> bool) {
        let routes = &self.routes;
        for connection in self.connections.iter_mut().filter(|one| !one.watched.is_empty()) {
            let concerned = connection.watched.iter().any(|(db, key)| at(routes.of_key(*db, key)));
            connection.io.watch_broken |= concerned;
        }
    }

    /// A connection of this node is gone.
    pub(crate) fn post_leave(&mut self, conn: ConnId) {
        let Some(cluster) = &mut self.cluster else { return };
        for worker in cluster.post.forward.forget(conn) {
            if worker.0 >= PEERS_FIRST {
                cluster.put(worker, &Letter::Gone { conn: number(conn) });
            }
        }
    }

    pub(crate) fn post_deadline(&self) -> Option<Micros> {
        self.cluster.as_ref().and_then(|one| one.post.forward.deadline())
    }

    pub(crate) fn wake_post(&mut self) {
        let now = self.now;
        let Some(cluster) = &mut self.cluster else { return };
        let over = cluster.post.forward.sweep(now);
        self.abandon_all(over);
    }
}

fn greet(cluster: &mut Cluster, address: Option<&Address>, link_port: u16, only: Option<WorkerId>) {
    let (host, port) = address.map_or(("", 0), |address| (&*address.host, address.port));
    let letter = Letter::Greeting { host, port, link_port };
    match only {
        Some(worker) => cluster.put(worker, &letter),
        None => cluster.tell_linked(&letter),
    }
}

/// What concerns all nodes.
impl Worker {
    /// Where cluster clients and other nodes reach this node. Other nodes are told.
    pub fn set_addresses(&mut self, clients: Option<Address>, link_port: u16) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.post.own = (clients.clone(), link_port);
        greet(cluster, clients.as_ref(), link_port, None);
    }

    /// Commands of this node's clients that are with other nodes, or wait for somebody to lead.
    #[must_use]
    pub fn forwarded(&self) -> usize {
        self.cluster.as_ref().map_or(0, |cluster| cluster.post.forward.len())
    }

    /// The keyspace that cluster clients use, whatever its number. Without one it is the first that has several
    /// partitions, or else 0.
    pub fn set_cluster_keyspace(&mut self, db: Option<KeyspaceId>) {
        if let Some(cluster) = &mut self.cluster {
            cluster.post.keyspace = db;
        }
    }

    /// Where copies of a partition are to be; the one that should lead is the first. Who is asked if nobody is known
    /// to lead, and what CLUSTER SLOTS tells.
    pub fn place_copies(&mut self, group: GroupId, nodes: Vec<NodeId>, epoch: u64) {
        if let Some(cluster) = &mut self.cluster {
            for &node in &nodes {
                cluster.peers.worker(node);
            }
            cluster.post.epochs.insert(group, epoch);
            cluster.post.placed.insert(group, Placed { nodes, asked: 0 });
        }
    }

    /// A keyspace is no more: nobody has its partitions, and what waits for them is answered.
    pub(crate) fn drop_keyspace(&mut self, db: KeyspaceId) {
        let its: Vec<u16> = self.routes.all().filter(|(one, ..)| *one == db).map(|(_, at, _)| at).collect();
        for &partition in &its {
            self.reroute(GroupId::new(db, partition), Place::Other(NOBODY));
        }
        self.routes.drop_keyspace(db);
        let Some(cluster) = &mut self.cluster else { return };
        for partition in its {
            cluster.post.placed.remove(&GroupId::new(db, partition));
            cluster.post.epochs.remove(&GroupId::new(db, partition));
        }
        let over = cluster.post.forward.dropped(db);
        self.abandon_all(over);
    }

    /// Tells the other nodes that writers of a partition that is led here wait, or go on.
    pub(crate) fn broadcast_stall(&mut self, db: KeyspaceId, partition: u16, stalled: bool) {
        if let Some(cluster) = &mut self.cluster {
            cluster.tell_linked(&Letter::Stalled { db, partition, stalled });
        }
    }

    /// Hands a message to the subscribers of the other nodes. How many they are is not counted, as in Redis Cluster.
    pub(crate) fn broadcast(&mut self, channel: &[u8], payload: &[u8]) {
        if channel.len() + payload.len() <= LETTER_BYTES_MAX
            && let Some(cluster) = &mut self.cluster
        {
            cluster.tell_linked(&Letter::Deliver { channel, payload });
        }
    }

    /// Runs `command` in all partitions of the cluster but those of `except`; parts of `joint`, if there is one.
    pub(crate) fn submit_all_parts(
        &mut self,
        joint: Option<u64>,
        command: &'static Command,
        args: &[&[u8]],
        except: Option<KeyspaceId>,
    ) {
        let all: Vec<_> = self.routes.all().filter(|(db, ..)| Some(*db) != except).collect();
        let (now, own) = (self.now, self.others.own);
        for (db, partition, place) in all {
            if let Place::Own(at) = place {
                self.submit_part(joint, at, command, args);
                continue;
            }
            let mut encoded = Vec::new();
            storage::entry::put_command(&mut encoded, command.id, args);
            let Some(cluster) = &mut self.cluster else { return };
            cluster.post.parts += 1;
            let (conn, sequence) = (conn_of(own, NO_CLIENT), Sequence(cluster.post.parts));
            let asker = Asker { conn, sequence, guest: Guest::of(Protocol::Resp2, None) };
            let (alone, watching, tag) = (true, false, None);
            let request = Request { asker, db, partition, command, encoded, alone, watching, tag };
            let errand = Errand::Run(Box::new(request));
            cluster.post.forward.accept(now, GroupId::new(db, partition), errand, joint);
            joint.into_iter().for_each(|joint| self.expect_parts(joint, 1));
        }
    }

    /// Has `command` run in all partitions but those of `except`; false: the session is asked again when that is done.
    pub(crate) fn ask_all_parts(
        &mut self,
        conn: ConnId,
        abroad: &mut Abroad,
        command: &'static Command,
        args: &[&[u8]],
        except: KeyspaceId,
    ) -> bool {
        if self.routes.all().all(|(db, ..)| db == except) {
            return true;
        }
        abroad.spread = true;
        abroad.asking += 1;
        let joint = self.begin_joint(Waits::Asking(conn), Answer::Ok);
        self.submit_all_parts(Some(joint), command, args, Some(except));
        false
    }
}
