//! The worker's side of forwarding: what it hands other nodes, and what it does for them.
//!
//! Another node is a worker with a number beyond this node's own. A command for a partition that it leads goes there, and
//! the answer takes the command's place. Who does not lead says so and hands nothing on; see [`forward`](super::forward)
//! for what the origin does then.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use gateway::resp::{Address, Release, Sequence};
use kernel::codec::put_varint;
use kernel::{ConnId, GroupId, KeyspaceId, Micros, NodeId, WorkerId};
use storage::store::sessions::{OriginId, Tag};
use storage::{Kind, Reply};

use super::forward::{Entry, Errand, Fate, Forward, Sending};
use super::post::{self, Caller, Joiner, Letter, Run, Trail, frames};
use super::{Cluster, DOWN, DROPPED, Lane, NOBODY, Outgoing, UNKNOWN, kind};
use crate::parcel::{Asker, Guest, Parcel, Protocol, Question, Request, Telling};
use crate::partition::{Queued, What};
use crate::route::Place;
use crate::worker::Worker;

/// A command or an answer with more bytes is not handed to another node.
pub(super) const LETTER_BYTES_MAX: usize = post::BODY_BYTES_MAX / 2;
const TOO_LARGE: &str =
    "ERR more than 32 MiB cannot be handed to the node that leads this key; connect to that node";

/// Whose command it is that a connection of no client sends: a part of a whole.
pub(super) const NO_CLIENT: u64 = 0;

/// What is known of another node.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// Since when there is a link.
    pub since: Option<Micros>,
    /// Its incarnation, once it has written.
    pub life: u64,
    pub joiner: Joiner,
    pub address: Option<Address>,
    pub link_port: u16,
}

/// Where copies of a partition are, as the placement has them; the one that should lead is the first.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub nodes: Vec<NodeId>,
    /// Who was asked last while nobody was known to lead.
    pub asked: usize,
}

/// What a worker keeps of its correspondence.
#[derive(Debug, Default)]
pub(crate) struct Post {
    pub forward: Forward,
    pub peers: BTreeMap<WorkerId, Peer>,
    pub placed: BTreeMap<GroupId, Placed>,
    /// The epochs of partitions, as the placement has them.
    pub epochs: BTreeMap<GroupId, u64>,
    /// Letters of this turn.
    pub boxes: BTreeMap<WorkerId, Vec<u8>>,
    /// For each peer and partition the latest round seen, and the first that is not refused.
    pub rounds: BTreeMap<(WorkerId, GroupId), (u64, u64)>,
    /// Who was asked about a connection's watches, and has not told.
    pub asked: BTreeSet<(WorkerId, ConnId)>,
    /// Wholes of which a part was sent to a peer that has not said that it is done.
    pub joints: Vec<(WorkerId, u64)>,
    /// Numbers the parts of wholes.
    pub parts: u64,
    /// Where cluster clients reach this node, and where other nodes do.
    pub own: (Option<Address>, u16),
    /// The keyspace of cluster clients.
    pub keyspace: Option<KeyspaceId>,
}

impl Post {
    fn is_up(&self, worker: WorkerId) -> bool {
        self.peers.get(&worker).is_some_and(|peer| peer.since.is_some())
    }

    /// Puts a letter into the box of a peer; it is lost if there is no link.
    fn put(&mut self, to: WorkerId, life: u64, letter: &Letter<'_>) {
        if self.is_up(to) {
            let open = self.boxes.entry(to).or_default();
            if open.is_empty() {
                put_varint(open, life);
            }
            letter.put(open);
        }
    }
}

pub(super) const fn number(conn: ConnId) -> u64 {
    conn.0 & 0xFFFF_FFFF_FFFF
}

pub(super) const fn conn_of(worker: WorkerId, number: u64) -> ConnId {
    ConnId((worker.0 as u64) << 48 | number)
}

const fn caller(conn: ConnId, sequence: Sequence, part: Option<u16>) -> Caller {
    Caller { conn: number(conn), sequence: sequence.0, part }
}

impl Cluster {
    pub(super) fn life(&self) -> u64 {
        self.incarnation.0
    }

    pub(super) fn put(&mut self, to: WorkerId, letter: &Letter<'_>) {
        let life = self.life();
        self.post.put(to, life, letter);
        if self.post.boxes.get(&to).is_some_and(|open| open.len() >= post::FRAME_BYTES_MAX) {
            self.close_box(to);
        }
    }

    fn close_box(&mut self, to: WorkerId) {
        let body = self.post.boxes.remove(&to).filter(|body| !body.is_empty());
        body.into_iter().for_each(|body| self.send_body(to, &body));
    }

    pub(super) fn tell_linked(&mut self, letter: &Letter<'_>) {
        let linked: Vec<WorkerId> = self.post.peers.keys().copied().collect();
        linked.into_iter().for_each(|to| self.put(to, letter));
    }
}

/// What leaves.
impl Worker {
    /// Hands on what goes to other nodes, in one frame for each.
    pub(crate) fn post(&mut self) {
        for (to, parcel) in self.others.take_abroad() {
            if !matches!(parcel, Parcel::Request(_) | Parcel::Watch { .. }) {
                // The end of watches, say, stays behind the EXEC that needs them.
                self.send_errands();
            }
            self.mail(to, parcel);
        }
        self.send_errands();
        self.take_home();
        let Some(cluster) = &mut self.cluster else { return };
        while let Some((&to, _)) = cluster.post.boxes.first_key_value() {
            cluster.close_box(to);
        }
    }

    fn mail(&mut self, to: WorkerId, parcel: Parcel) {
        let now = self.now;
        let Some(cluster) = &mut self.cluster else { return };
        match parcel {
            Parcel::Request(request) => {
                let group = GroupId::new(request.db, request.partition);
                if request.encoded.len() > LETTER_BYTES_MAX {
                    return self.others.answer(request.asker, |reply| reply.error(TOO_LARGE));
                }
                cluster.post.forward.accept(now, group, Errand::Run(request), None);
            }
            Parcel::Watch { asker, db, keys } => {
                let partition = keys.first().map_or(0, |key| self.routes.partition(db, key));
                let errand = Errand::Watch { asker, db, keys };
                cluster.post.forward.accept(now, GroupId::new(db, partition), errand, None);
            }
            Parcel::Reply { conn, sequence, guest, bytes } => {
                let too_large = alloc::format!("-{TOO_LARGE}\r\n");
                let bytes = if bytes.len() > LETTER_BYTES_MAX { too_large.as_bytes() } else { &bytes };
                let caller = caller(conn, sequence, guest.part);
                cluster.put(to, &Letter::Reply { caller, life: guest.life, bytes });
            }
            Parcel::Unwatch { conn } => cluster.put(to, &Letter::Unwatch { conn: number(conn) }),
            Parcel::Gone { conn } => cluster.put(to, &Letter::Gone { conn: number(conn) }),
            Parcel::Unblock { conn, release, part } => {
                let joint = part.map(|part| part.joint);
                if !cluster.post.is_up(to) {
                    return joint.into_iter().for_each(|joint| self.part_done(joint, None));
                }
                cluster.post.joints.extend(joint.map(|joint| (to, joint)));
                let error = release == Release::Error;
                cluster.put(to, &Letter::Unblock { conn: number(conn), error, joint });
            }
            Parcel::Done { joint, count, .. } => {
                let life = cluster.post.peers.get(&to).map_or(0, |peer| peer.life);
                cluster.put(to, &Letter::Done { life, joint, count });
            }
            Parcel::Ask { conn, question: Question::Watches } => {
                if !cluster.post.is_up(to) {
                    return self.hear(conn, Telling::Watches { broken: true });
                }
                cluster.post.asked.insert((to, conn));
                cluster.put(to, &Letter::Ask { conn: number(conn) });
            }
            Parcel::Told { conn, telling: Telling::Watches { broken } } => {
                let life = cluster.post.peers.get(&to).map_or(0, |peer| peer.life);
                cluster.put(to, &Letter::Told { life, conn: number(conn), broken });
            }
            // These stay within a node: they concern its own workers, of which a clustered one has one.
            Parcel::Ask { .. }
            | Parcel::Told { .. }
            | Parcel::Transfer { .. }
            | Parcel::Everywhere { .. }
            | Parcel::Deliver { .. }
            | Parcel::Propose { .. }
            | Parcel::Follow { .. }
            | Parcel::Kill { .. }
            | Parcel::Stalled { .. } => {}
        }
    }

    /// Sends commands to who leads their partitions; runs those whose partitions are led here by now.
    fn send_errands(&mut self) {
        let (now, own) = (self.now, self.others.own);
        let Some(cluster) = self.cluster.as_deref_mut().filter(|one| one.post.forward.is_ready()) else {
            return;
        };
        let Cluster { post, peers, groups, incarnation, node, .. } = cluster;
        let Post { forward, peers: linked, placed, epochs, boxes, .. } = post;
        let up = |worker: &WorkerId| linked.get(worker).is_some_and(|peer| peer.since.is_some());
        let (routes, partitions) = (&self.routes, &self.partitions);
        let place = |group: GroupId, hint: Option<WorkerId>| {
            let known = match routes.find(group.keyspace(), group.partition())? {
                Place::Own(_) => return Some(own),
                Place::Other(worker) => hint.unwrap_or(worker),
            };
            if known != NOBODY && known != own && up(&known) {
                return Some(known);
            }
            // With a copy here it is a matter of time until the group says who leads; without one somebody is asked.
            if groups.contains_key(&group) {
                return None;
            }
            let Placed { nodes, asked } = placed.get_mut(&group)?;
            let turns = nodes.len();
            let one = |turn| peers.known(nodes[(*asked + turn) % turns]);
            let found = (0..turns).filter_map(one).find(up);
            *asked = asked.wrapping_add(1);
            found
        };
        let (mut sent, mut here, mut full) = (Vec::new(), Vec::new(), Vec::new());
        forward.send(now, place, |sending| {
            if sending.to == own {
                here.push(at_home(&sending, *node, incarnation.0));
                return;
            }
            let open = boxes.entry(sending.to).or_default();
            if open.is_empty() {
                put_varint(open, incarnation.0);
            }
            let seat = groups.get(&sending.group).and_then(|&at| partitions[at].seat.as_ref());
            let epoch = seat.map(|seat| seat.epoch).or_else(|| epochs.get(&sending.group).copied());
            write_errand(&sending, epoch.unwrap_or(0), open);
            if open.len() >= post::FRAME_BYTES_MAX {
                full.push((sending.to, core::mem::take(open)));
            }
            sent.push((sending.to, sending.entry.errand.asker().conn));
        });
        for (to, body) in full {
            cluster.send_body(to, &body);
        }
        for (to, conn) in sent {
            if let Some(connection) = self.connections.get_mut(conn)
                && let Some(waits_at) = &mut connection.abroad.waits_at
            {
                *waits_at = to;
            }
        }
        here.into_iter().for_each(|errand| self.run_at_home(errand));
    }

    /// Runs a command of this node whose partition has come here meanwhile.
    fn run_at_home(&mut self, home: Home) {
        let (request, first) = match home {
            Home::Watch { asker, db, keys } => {
                let conn = asker.conn;
                for key in keys {
                    match self.routes.own_of_key(db, &key) {
                        Some(at) => self.add_watcher(at, &key, conn),
                        None => {
                            if let Some(connection) = self.connections.get_mut(conn) {
                                connection.io.watch_broken = true;
                            }
                        }
                    }
                }
                return self.others.answer(asker, |reply| reply.ok());
            }
            Home::Again(request) => (request, false),
            Home::First(request) => (request, true),
        };
        if !first {
            return self.take_request(request);
        }
        let Request { asker: Asker { conn, sequence, guest }, command, .. } = *request;
        let watching = request.watching;
        let Some(cluster) = &mut self.cluster else { return };
        cluster.post.forward.answered((conn, sequence, guest.part));
        let Some(at) = self.routes.own(request.db, request.partition) else { return };
        if let Some(connection) = self.connections.get_mut(conn)
            && connection.abroad.waits_at.take().is_some()
        {
            connection.io.blocked = false;
        }
        let reads = command.kind == Kind::Read;
        let item = Queued { conn, sequence, what: if reads { What::Read } else { What::Write } };
        if watching {
            return self.answer(item, |reply| reply.null_array());
        }
        if let Some(text) = self.refuses(at, command) {
            return self.answer(item, |reply| reply.error(&text));
        }
        self.open_any(at);
        let open = &mut self.partitions[at].open;
        let bytes = if reads { &mut open.reads } else { &mut open.body };
        bytes.extend_from_slice(&request.encoded);
        open.queued.push(item);
    }

    /// A command cannot be brought to its partition.
    pub(super) fn abandon(&mut self, entry: &Entry, fate: Fate) {
        let text = match fate {
            Fate::Undone => DOWN,
            Fate::Unknown => UNKNOWN,
            Fate::Dropped => DROPPED,
            Fate::Broken => {
                return self.others.answer(entry.errand.asker(), |reply| reply.null_array());
            }
        };
        match entry.joint {
            Some(joint) => self.part_done(joint, Some(text)),
            None => self.others.answer(entry.errand.asker(), |reply| reply.error(text)),
        }
    }

    pub(super) fn abandon_all(&mut self, entries: Vec<(Entry, Fate)>) {
        entries.iter().for_each(|(entry, fate)| self.abandon(entry, *fate));
    }

    /// A command that came to this node was not run, because it does not lead its partition. Nothing further is run of it
    /// that the origin sent before it knew.
    pub(crate) fn misdirected_from(&mut self, asker: Asker, group: GroupId) {
        if let Some(cluster) = &mut self.cluster
            && let Some((seen, refused)) = cluster.post.rounds.get_mut(&(asker.conn.worker(), group))
        {
            *refused = (*refused).max(*seen + 1);
        }
        self.send_back(asker, Some(group));
    }

    pub(super) fn send_back(&mut self, Asker { conn, sequence, guest }: Asker, group: Option<GroupId>) {
        let now = self.now;
        let Some(cluster) = &mut self.cluster else {
            return self.others.reply(conn, sequence, guest, |reply| reply.error(DOWN));
        };
        let (to, Guest { part, life, attempt, .. }) = (conn.worker(), guest);
        if to == self.others.own && life == 0 {
            // A part of a command that ran here from the beginning.
            return self.others.reply(conn, sequence, guest, |reply| reply.error(DOWN));
        }
        if to == self.others.own {
            let given_up = cluster.post.forward.refused(now, (conn, sequence, part), attempt, None);
            return given_up.iter().for_each(|(entry, fate)| self.abandon(entry, *fate));
        }
        let place = group.and_then(|group| self.routes.find(group.keyspace(), group.partition()));
        let leader = match place {
            Some(Place::Other(worker)) => cluster.peers.node(worker),
            Some(Place::Own(_)) => Some(cluster.node),
            None => None,
        };
        let seat = group.and_then(|group| cluster.groups.get(&group));
        let epoch = seat.and_then(|&at| self.partitions[at].seat.as_ref()).map_or(0, |seat| seat.epoch);
        let caller = caller(conn, sequence, part);
        cluster.put(to, &Letter::Misdirected { caller, life, attempt, leader, epoch });
    }
}

impl Cluster {
    fn send_body(&mut self, to: WorkerId, body: &[u8]) {
        let Some(node) = self.peers.node(to) else { return };
        frames(kind::PARCELS, body, |bytes| {
            self.frames.push(Outgoing { to: node, lane: Lane::Control, bytes });
        });
    }
}

/// What is run here after all.
enum Home {
    /// It was never sent.
    First(Box<Request>),
    /// It may have been done by an earlier try, or is a part of a whole.
    Again(Box<Request>),
    Watch {
        asker: Asker,
        db: KeyspaceId,
        keys: Vec<Box<[u8]>>,
    },
}

fn at_home(sending: &Sending<'_>, node: NodeId, life: u64) -> Home {
    let entry = sending.entry;
    match &entry.errand {
        Errand::Watch { asker, db, keys } => {
            let mut asker = *asker;
            asker.guest.life = life;
            Home::Watch { asker, db: *db, keys: keys.clone() }
        }
        Errand::Run(request) => {
            let mut request = request.clone();
            request.asker.guest.attempt = entry.attempt;
            // Its answer counts while it is on its way, and not once it was given up.
            request.asker.guest.life = life;
            let whole = entry.joint.is_none() && request.asker.guest.part.is_none();
            if whole && !entry.uncertain {
                return Home::First(request);
            }
            let resp3 = request.asker.guest.protocol == Protocol::Resp3;
            request.tag = entry.number.map(|sequence| Tag {
                origin: OriginId::of(node),
                incarnation: life,
                sequence,
                oldest: sending.oldest,
                resp3,
            });
            Home::Again(request)
        }
    }
}

fn write_errand(sending: &Sending<'_>, epoch: u64, out: &mut Vec<u8>) {
    let Sending { entry, round, oldest, .. } = *sending;
    let trail = Trail { attempt: entry.attempt, round, epoch };
    let Asker { conn, sequence, guest } = entry.errand.asker();
    let caller = caller(conn, sequence, guest.part);
    match &entry.errand {
        Errand::Run(request) => Letter::Run(Run {
            caller,
            trail,
            db: request.db,
            partition: request.partition,
            resp3: guest.protocol == Protocol::Resp3,
            alone: request.alone,
            watching: request.watching,
            tag: entry.number.map(|number| (number, oldest)),
            encoded: &request.encoded,
        })
        .put(out),
        Errand::Watch { db, keys, .. } => Letter::Watch {
            caller,
            trail,
            db: *db,
            partition: sending.group.partition(),
            keys: keys.iter().map(|key| &**key).collect(),
        }
        .put(out),
    }
}
