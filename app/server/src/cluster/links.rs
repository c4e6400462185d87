//! The links of a member, in the loop of its one worker: frames to and fro, newcomers, and what the state says of where
//! this node is.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use control::{Name, Newcomer, Operation};
use fabric::Identity;
use fabric::join::JoinRequest;
use fabric::link::{Event, JoinId, Lane, Links, Members, SendError, Settings, TokenRange};
use kernel::{Micros, NodeId, Spoken};
use mio::Registry;
use node::Worker;
use node::cluster::formation::SELF;
use node::cluster::mind::{Answer, Ask, Mind, Ticket};
use node::cluster::{self, Outgoing, kind};
use runtime::{Clock, Peers};

use super::board::Post;
use super::desk::Desk;
use super::introduce::Unwelcome;
use super::join;
use crate::checkpoint::keeper::LinkJob;

/// Connections of other nodes at once: two for each member, and those that come and go.
const CONNECTIONS_MAX: usize = 4096;
/// How often it is looked whether the cluster knows where this node is, in milliseconds.
const ADDRESS_MS: u64 = 2_000;
/// For so long after its start a node may be behind its cluster, so that it does not know a token; in milliseconds.
const BEHIND_MS_MAX: u64 = 8_000;
/// Newcomers whose tokens are not known that wait meanwhile.
const WAITING_MAX: usize = 16;

/// What the links of a loop begin with.
pub(crate) struct LinkStart {
    /// The node's key.
    pub identity: Identity,
    /// Its life.
    pub incarnation: u64,
    /// Decides the jitter of dials.
    pub seed: u64,
    /// What it speaks.
    pub spoken: Spoken,
    /// The bound port.
    pub listener: std::net::TcpListener,
    /// Where others reach it, and what fails together with it.
    pub about: Newcomer,
    /// Links to have and to drop.
    pub jobs: Receiver<LinkJob>,
    /// Who asks what.
    pub desk: Arc<Desk>,
}

/// A newcomer whose request was not judged yet.
struct Waiting {
    id: JoinId,
    node: NodeId,
    address: SocketAddr,
    request: JoinRequest,
    binding: [u8; 32],
}

/// The links of a member.
pub(crate) struct MemberLinks {
    links: Links,
    members: Arc<Members>,
    /// The members that links are kept with, and this node.
    set: BTreeSet<NodeId>,
    jobs: Receiver<LinkJob>,
    desk: Arc<Desk>,
    about: Newcomer,
    frames: Vec<Outgoing>,
    events: Vec<Event>,
    answers: Vec<(Ticket, Answer)>,
    /// Newcomers that were not judged yet.
    waiting: Vec<Waiting>,
    /// When it was started: for a while after that it may not know tokens that its cluster knows.
    begun: Option<Micros>,
    /// Newcomers that wait for the cluster.
    joining: BTreeMap<Ticket, JoinId>,
    /// When it is next looked where the cluster has this node.
    address_at: Micros,
    /// What the operator must do was told.
    expelled: bool,
    outrun: bool,
    /// The revision of the proxies' settings that was told to who follows it.
    revision: u64,
}

impl MemberLinks {
    /// The links of one loop, whose sockets are watched under tokens from `first` on.
    ///
    /// # Errors
    /// The kernel refuses to watch the port.
    pub fn new(start: LinkStart, registry: Registry, first: usize) -> io::Result<MemberLinks> {
        let LinkStart { identity, incarnation, seed, spoken, listener, about, jobs, desk } = start;
        let set = BTreeSet::from([identity.id()]);
        let members = Arc::clone(&desk.members);
        let tokens = TokenRange { first, connections_max: CONNECTIONS_MAX };
        let settings = Settings { incarnation, seed, spoken };
        let links = Links::new(&identity, Arc::clone(&members), settings, tokens, registry, Some(listener))?;
        desk.count_links(links.meters());
        Ok(MemberLinks {
            links,
            members,
            set,
            jobs,
            desk,
            about,
            frames: Vec::new(),
            events: Vec::new(),
            answers: Vec::new(),
            waiting: Vec::new(),
            begun: None,
            joining: BTreeMap::new(),
            address_at: Micros(0),
            expelled: false,
            outrun: false,
            revision: 0,
        })
    }

    fn take_jobs(&mut self, now: Micros) {
        for job in self.jobs.try_iter() {
            match job {
                LinkJob::Have(node, addresses) => {
                    if self.set.insert(node) {
                        self.members.replace(self.set.clone());
                    }
                    self.links.set_peer(now, node, addresses);
                }
                LinkJob::Drop(node) => {
                    if self.set.remove(&node) {
                        self.members.replace(self.set.clone());
                    }
                    self.links.forget_peer(now, node);
                }
            }
        }
    }

    fn send(&mut self, worker: &mut Worker) {
        worker.take_frames(&mut self.frames);
        for Outgoing { to, lane, bytes } in self.frames.drain(..) {
            match self.links.send(to, lane_of(lane), &bytes) {
                // What is lost is sent again by who needs it; both are counted by the links.
                Ok(()) | Err(SendError::Down | SendError::Full { .. }) => {}
                Err(error @ SendError::TooLarge { .. }) => {
                    tracing::error!(peer = ?to, %error, "a frame cannot be sent");
                }
            }
        }
        for mesh::registry::Outgoing { to, bytes } in self.desk.post.take() {
            let frame = [&[kind::SERVICES], &bytes[..]].concat();
            // What is lost is made good by a later digest.
            let _ = self.links.send(to, Lane::Bulk, &frame);
        }
        for post in self.desk.board.take() {
            let (to, bytes) = match post {
                Post::All(bytes) => (self.set.iter().copied().collect::<Vec<NodeId>>(), bytes),
                Post::One(to, bytes) => (vec![to], bytes),
            };
            let (frame, own) = ([&[kind::MESH], &bytes[..]].concat(), self.links.id());
            for to in to.into_iter().filter(|to| *to != own) {
                // What is lost is told again.
                let _ = self.links.send(to, Lane::Control, &frame);
            }
        }
    }

    /// Tells who follows the proxies' settings what is in force now.
    fn revise(&mut self, worker: &Worker) {
        let Some(revision) = worker.mind().and_then(|mind| mind.state().revision()) else { return };
        if std::mem::replace(&mut self.revision, revision.number) != revision.number {
            self.desk.board.revise(Arc::clone(revision));
        }
    }

    fn attend(&mut self, now: Micros, worker: &mut Worker) {
        self.links.take_events(&mut self.events);
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Up { node, lane: Lane::Control, spoken, .. } => {
                    tracing::debug!(peer = ?node, %spoken, "linked");
                    worker.peer_speaks(node, spoken);
                    worker.peer_up(now, node);
                }
                Event::Down { node, lane: Lane::Control, cause } => {
                    tracing::debug!(peer = ?node, %cause, "not linked any more");
                    worker.peer_down(now, node);
                }
                Event::Up { lane: Lane::Bulk, .. } | Event::Down { lane: Lane::Bulk, .. } => {}
                Event::Room { .. } => {}
                Event::Joining { id, node, address, request, binding } => {
                    self.waiting.push(Waiting { id, node, address, request, binding });
                }
                // A member asks nobody to be let in.
                Event::Joined { .. } | Event::JoinFailed { .. } => {}
            }
        }
    }

    /// A cluster that rose is not spoken with in older versions.
    fn follow_version(&mut self, now: Micros, worker: &Worker) {
        let Some(spoken) = worker.mind().map(Mind::spoken).filter(|spoken| *spoken != self.links.spoken())
        else {
            return;
        };
        tracing::info!(cluster = %spoken.oldest(), node = %spoken, "the cluster's version");
        self.links.speak(now, spoken);
    }

    /// Judges who asks to join; whose token is not known waits while this node may be behind.
    fn judge(&mut self, now: Micros, worker: &mut Worker) {
        let behind = now < self.begun.get_or_insert(now).plus_millis(BEHIND_MS_MAX);
        for one in std::mem::take(&mut self.waiting) {
            let Some(mind) = worker.mind() else { return };
            let asked = (one.node, &one.request, &one.binding);
            let judged = self.desk.introducer.examine(now.millis(), mind.state(), asked);
            match judged {
                Ok(admission) => {
                    let ticket = self.desk.ticket();
                    self.joining.insert(ticket, one.id);
                    worker.admit_newcomer(now, ticket, admission);
                }
                Err(Unwelcome::Unknown) if behind && self.waiting.len() < WAITING_MAX => {
                    self.waiting.push(one);
                }
                Err(reason) => {
                    let Waiting { id, node, address, .. } = one;
                    let reason = reason.to_string();
                    tracing::warn!(peer = ?node, %address, reason, "a node may not join");
                    self.links.answer(id, &join::Answer::Refused(reason).encode());
                }
            }
        }
    }

    /// Hands on what the cluster answered. True if a newcomer is to be told something.
    fn answer(&mut self, worker: &mut Worker) -> bool {
        worker.take_answers(&mut self.answers);
        let mut told = false;
        for (ticket, answer) in self.answers.drain(..) {
            let Some(id) = self.joining.remove(&ticket) else {
                self.desk.answer(ticket, answer);
                continue;
            };
            told |= self.links.answer(id, &to_newcomer(answer));
        }
        told
    }

    /// Has the cluster know where this node is, if it was moved since it was here last.
    fn tell_address(&mut self, now: Micros, worker: &mut Worker) {
        if now < self.address_at {
            return;
        }
        self.address_at = now.plus_millis(ADDRESS_MS);
        if worker.is_expelled() && !std::mem::replace(&mut self.expelled, true) {
            tracing::error!(
                "this node was removed from its cluster: stop it, and start it with an empty data directory and a \
                 new token to join again"
            );
        }
        if worker.mind().is_some_and(Mind::is_outrun) && !std::mem::replace(&mut self.outrun, true) {
            tracing::error!(
                spoken = %Spoken::ALL,
                "the cluster was raised to a version that this node does not speak, and goes on without it: start it \
                 with a newer archipel, and without the setting `cluster.version`"
            );
        }
        let node = self.links.id();
        let Some(member) = worker.mind().and_then(|mind| mind.state().members().get(&node)) else { return };
        let Newcomer { zone, addresses } = &self.about;
        if !member.is_present() || (member.zone == *zone && member.addresses == *addresses) {
            return;
        }
        let operation = Operation::SetMember { node, zone: zone.clone(), addresses: addresses.clone() };
        let by = Name::new(SELF).expect("it is a name");
        // Nobody waits for the answer: it is looked at again.
        worker.ask_cluster(Ask { ticket: self.desk.ticket(), id: None, by, operation });
    }
}

impl Peers for MemberLinks {
    fn ready(&mut self, clock: &mut Clock, event: &mio::event::Event, worker: &mut Worker) {
        let (now, desk) = (clock.now(), &self.desk);
        self.links.ready(now, event, &mut |from, _, bytes| hand_on(desk, clock.now(), worker, from, bytes));
    }

    fn end_turn(&mut self, clock: &mut Clock, worker: &mut Worker) -> bool {
        let now = clock.now();
        self.take_jobs(now);
        self.follow_version(now, worker);
        self.revise(worker);
        self.tell_address(now, worker);
        let told = self.answer(worker);
        self.send(worker);
        let (mut arrived, desk) = (false, Arc::clone(&self.desk));
        let mut receive = |from: NodeId, _: Lane, bytes: &[u8]| {
            arrived = true;
            hand_on(&desk, clock.now(), worker, from, bytes);
        };
        let more = self.links.end_turn(now, &mut receive);
        let now = clock.now();
        self.attend(now, worker);
        self.judge(now, worker);
        more || told || arrived || worker.is_ready()
    }

    fn deadline(&self) -> Option<Micros> {
        self.links.deadline().into_iter().chain([self.address_at]).min()
    }
}

/// A frame goes to whom it is for. `now` was read since it arrived.
fn hand_on(desk: &Desk, now: Micros, worker: &mut Worker, from: NodeId, bytes: &[u8]) {
    match bytes.split_first() {
        Some((&kind::SERVICES, rest)) => desk.post.arrived(from, rest),
        Some((&kind::MESH, rest)) => {
            if let Err(error) = desk.board.arrived(from, rest) {
                tracing::warn!(peer = ?from, %error, "a frame about the proxies' settings cannot be read");
            }
        }
        Some(_) | None => worker.peer_frame(now, from, bytes),
    }
}

const fn lane_of(lane: cluster::Lane) -> Lane {
    match lane {
        cluster::Lane::Control => Lane::Control,
        cluster::Lane::Bulk => Lane::Bulk,
    }
}

/// What a newcomer is told of what came of its admission.
fn to_newcomer(answer: Answer) -> Vec<u8> {
    let refused = |reason: &str| join::Answer::Refused(reason.to_owned()).encode();
    match answer {
        Answer::Welcome(welcome) => join::welcome(&welcome),
        Answer::Refused(reason) => refused(&reason),
        Answer::NoLeader => {
            refused("the cluster has no leader now that could let it in; try again with the same token")
        }
        Answer::Busy => refused("the cluster is busy now; try again with the same token"),
        Answer::Unknown => refused(
            "the cluster did not answer in time, and may have let it in; try again with the same token",
        ),
        Answer::Done(_) => refused("the cluster answered something else; try again with the same token"),
    }
}

/// Where a member listens, as others are told.
pub(crate) fn about(zone: Name, bound: SocketAddr, advertise: Option<std::net::IpAddr>) -> Newcomer {
    let ip = advertise.unwrap_or_else(|| bound.ip());
    Newcomer { zone, addresses: vec![SocketAddr::new(ip, bound.port())] }
}
