//! What other nodes hand this one: commands for partitions that it leads, and answers to its own.

use alloc::boxed::Box;

use gateway::resp::{Address, Release, Sequence};
use kernel::codec::{DecodeError, Reader};
use kernel::planted::{Bug, is};
use kernel::{GroupId, KeyspaceId, NodeId, WorkerId};
use storage::Reply;
use storage::store::sessions::{OriginId, Tag};

use super::courier::conn_of;
use super::forward::{Fate, Key};
use super::post::{Caller, Letter, Run, Trail, is_reply};
use super::{NOBODY, UNKNOWN};
use crate::parcel::{Asker, Guest, Parcel, Part, Protocol, Request, Telling};
use crate::route::Place;
use crate::worker::Worker;

/// An error reply that says that its command was not run; but an earlier try of it may have been.
fn is_refusal(bytes: &[u8]) -> bool {
    [&b"-MISCONF"[..], b"-OOM", b"-CLUSTERDOWN", b"-EXECABORT"].iter().any(|text| bytes.starts_with(text))
}

impl Worker {
    /// A frame of commands, answers and the like.
    pub(crate) fn take_parcels_frame(&mut self, from: NodeId, frame: &[u8]) {
        let Some(cluster) = &mut self.cluster else { return };
        let worker = cluster.peers.worker(from);
        let peer = cluster.post.peers.entry(worker).or_default();
        let mut joiner = core::mem::take(&mut peer.joiner);
        let taken = match joiner.take(frame) {
            Ok(Some(body)) => self.take_letters(worker, body.bytes()),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Some(cluster) = &mut self.cluster {
            cluster.dropped.malformed += u64::from(taken.is_err());
            if let Some(peer) = cluster.post.peers.get_mut(&worker) {
                peer.joiner = joiner;
            }
        }
    }

    fn take_letters(&mut self, from: WorkerId, body: &[u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(body);
        let life = reader.varint()?;
        let known =
            self.cluster.as_ref().and_then(|one| one.post.peers.get(&from)).map_or(0, |peer| peer.life);
        if life < known {
            return Ok(());
        }
        if life > known {
            self.forget_guests(from);
            if let Some(peer) = self.cluster.as_mut().and_then(|one| one.post.peers.get_mut(&from)) {
                peer.life = life;
            }
        }
        while !reader.is_empty() {
            let letter = Letter::read(&mut reader, &self.registry)?;
            self.take_letter(from, life, letter);
        }
        Ok(())
    }

    fn take_letter(&mut self, from: WorkerId, life: u64, letter: Letter<'_>) {
        let own = self.others.own;
        let Some(cluster) = &mut self.cluster else { return };
        let own_life = cluster.life();
        match letter {
            Letter::Run(run) => self.take_run(from, life, &run),
            Letter::Watch { caller, trail, db, partition, keys } => {
                self.take_watch(from, life, (caller, trail), (db, partition), &keys);
            }
            Letter::Reply { caller, life, bytes } if life == own_life => {
                let key = (conn_of(own, caller.conn), Sequence(caller.sequence), caller.part);
                self.take_answer(key, bytes);
            }
            Letter::Misdirected { caller, life, attempt, leader, .. } if life == own_life => {
                let key = (conn_of(own, caller.conn), Sequence(caller.sequence), caller.part);
                self.take_refusal(key, attempt, leader);
            }
            Letter::Unwatch { conn } => self.take_unwatch(conn_of(from, conn)),
            Letter::Gone { conn } => self.guest_gone(conn_of(from, conn)),
            Letter::Unblock { conn, error, joint } => {
                let release = if error { Release::Error } else { Release::Timeout };
                let part = joint.map(|joint| Part { worker: from, joint });
                self.unblock_for(conn_of(from, conn), release, part);
            }
            Letter::Done { life, joint, count } if life == own_life => {
                let joints = &mut cluster.post.joints;
                if let Some(at) = joints.iter().position(|one| *one == (from, joint)) {
                    joints.swap_remove(at);
                    self.count_part(joint, count);
                    self.part_done(joint, None);
                }
            }
            Letter::Ask { conn } => {
                let broken = self.guest_watch_broken(conn_of(from, conn));
                if let Some(cluster) = &mut self.cluster {
                    cluster.put(from, &Letter::Told { life, conn, broken });
                }
            }
            Letter::Told { life, conn, broken } if life == own_life => {
                let conn = conn_of(own, conn);
                if cluster.post.asked.remove(&(from, conn)) {
                    self.hear(conn, Telling::Watches { broken });
                }
            }
            Letter::Deliver { channel, payload } => {
                self.deliver(channel, payload, None);
            }
            Letter::Stalled { db, partition, stalled: true } => {
                if self.routes.find(db, partition) == Some(Place::Other(from)) {
                    self.others.stalled.entry((db, partition)).or_default();
                }
            }
            Letter::Stalled { db, partition, stalled: false } => self.let_writers_go((db, partition)),
            Letter::Greeting { host, port, link_port } => {
                if let Some(peer) = cluster.post.peers.get_mut(&from) {
                    peer.address = (!host.is_empty()).then(|| Address { host: host.into(), port });
                    peer.link_port = link_port;
                }
            }
            // What an earlier life of this node asked for.
            Letter::Reply { .. } | Letter::Misdirected { .. } | Letter::Done { .. } | Letter::Told { .. } => {
            }
        }
    }

    /// Whether this node runs a command of a peer for a partition: the place of that, or none, and then it was said so.
    fn admit(&mut self, asker: Asker, trail: Trail, group: GroupId) -> Option<usize> {
        let at = self.routes.own(group.keyspace(), group.partition());
        let cluster = self.cluster.as_mut()?;
        let (seen, refused) = cluster.post.rounds.entry((asker.conn.worker(), group)).or_default();
        *seen = trail.round.max(*seen);
        let in_order = trail.round >= *refused;
        let epoch = at.and_then(|at| self.partitions[at].seat.as_ref()).map_or(0, |seat| seat.epoch);
        let current = trail.epoch <= epoch || is(Bug::ForwardEpochIgnored);
        if in_order && current && at.is_some() {
            return at;
        }
        *refused = (*refused).max(trail.round + 1);
        self.send_back(asker, Some(group));
        None
    }

    fn take_run(&mut self, from: WorkerId, life: u64, run: &Run<'_>) {
        let Run { caller, trail, db, partition, resp3, alone, watching, tag, encoded } = *run;
        let protocol = if resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
        let guest = Guest { protocol, part: caller.part, life, attempt: trail.attempt };
        let asker = Asker { conn: conn_of(from, caller.conn), sequence: Sequence(caller.sequence), guest };
        let group = GroupId::new(db, partition);
        let elsewhere = match self.routes.find(db, partition) {
            Some(Place::Other(worker)) if worker != NOBODY && is(Bug::ForwardedTwice) => Some(worker),
            Some(_) | None => None,
        };
        if elsewhere.is_none() && self.admit(asker, trail, group).is_none() {
            return;
        }
        let Some(cluster) = &self.cluster else { return };
        let node = cluster.peers.node(from);
        let tag = node.zip(tag).map(|(node, (sequence, oldest))| Tag {
            origin: OriginId::of(node),
            incarnation: life,
            sequence,
            oldest,
            resp3,
        });
        let mut reader = Reader::new(encoded);
        let id = reader.varint().ok().and_then(|id| u16::try_from(id).ok());
        let Some(command) = id.and_then(|id| self.registry.by_id(id)) else { return };
        let encoded = encoded.to_vec();
        let request = Request { asker, db, partition, command, encoded, alone, watching, tag };
        match elsewhere {
            Some(worker) => self.others.push(worker, Parcel::Request(Box::new(request))),
            None => self.take_request(Box::new(request)),
        }
    }

    fn take_watch(
        &mut self,
        from: WorkerId,
        life: u64,
        (caller, trail): (Caller, Trail),
        (db, partition): (KeyspaceId, u16),
        keys: &[&[u8]],
    ) {
        let guest = Guest { protocol: Protocol::Resp2, part: caller.part, life, attempt: trail.attempt };
        let asker = Asker { conn: conn_of(from, caller.conn), sequence: Sequence(caller.sequence), guest };
        if self.admit(asker, trail, GroupId::new(db, partition)).is_none() {
            return;
        }
        for key in keys {
            self.watch_for(asker.conn, db, Box::from(*key));
        }
        self.others.answer(asker, |reply| reply.ok());
    }

    /// A command of this node was answered. What comes twice is dropped.
    fn take_answer(&mut self, key: Key, bytes: &[u8]) {
        let Some(cluster) = &mut self.cluster else { return };
        let group = cluster.post.forward.group(key);
        let Some(entry) = cluster.post.forward.answered(key) else { return };
        // Without a copy of its own a node learns from answers who leads.
        if let Some((group, to)) = group.zip(entry.to())
            && !cluster.groups.contains_key(&group)
            && self.routes.find(group.keyspace(), group.partition()) == Some(Place::Other(NOBODY))
        {
            self.reroute(group, Place::Other(to));
        }
        if !is_reply(bytes, key.2.is_some()) {
            return self.abandon(&entry, Fate::Unknown);
        }
        if entry.uncertain && is_refusal(bytes) {
            return self.abandon(&entry, Fate::Unknown);
        }
        match entry.joint {
            Some(joint) => self.part_done(joint, refused_part(bytes)),
            None => self.take_reply(key.0, key.1, key.2, bytes.to_vec()),
        }
    }

    /// The same for what this node ran for itself. True if the client is to be told.
    pub(crate) fn answer_errand(&mut self, key: Key, bytes: &[u8]) -> bool {
        let Some(entry) = self.cluster.as_mut().and_then(|one| one.post.forward.answered(key)) else {
            return false;
        };
        if entry.uncertain && is_refusal(bytes) {
            self.abandon(&entry, Fate::Unknown);
            return false;
        }
        if let Some(joint) = entry.joint {
            self.part_done(joint, refused_part(bytes));
        }
        entry.joint.is_none()
    }

    fn take_refusal(&mut self, key: Key, attempt: u8, leader: Option<NodeId>) {
        let now = self.now;
        let Some(cluster) = &mut self.cluster else { return };
        let leader = leader.map(|node| match node == cluster.node {
            true => self.others.own,
            false => cluster.peers.worker(node),
        });
        let group = cluster.post.forward.group(key);
        let given_up = cluster.post.forward.refused(now, key, attempt, leader);
        let known = group.is_some_and(|group| cluster.groups.contains_key(&group));
        if let (Some(group), false) = (group, known) {
            let leader = leader.filter(|&leader| leader != self.others.own);
            self.reroute(group, Place::Other(leader.unwrap_or(NOBODY)));
        }
        given_up.iter().for_each(|(entry, fate)| self.abandon(entry, *fate));
    }
}

/// A part of a whole is told no more than that it was refused.
fn refused_part(bytes: &[u8]) -> Option<&'static str> {
    const REFUSED: &str = "ERR a part of this command was refused; some of it may be done";
    match bytes.first() {
        Some(b'-') if bytes.starts_with(b"-UNKNOWN") => Some(UNKNOWN),
        Some(b'-') => Some(REFUSED),
        Some(_) | None => None,
    }
}
