//! The overlay's loop: what happens on the network, what its owner asks for, and time, each brought to the machine.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kernel::{Micros, Rng};
use libp2p_core::{ConnectedPoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p_swarm::{ConnectionId, Swarm, SwarmEvent};
use p2p::RequestId;
use p2p::flood::{Flood, SEEN_MAX};
use p2p::kad::{self, Target, Token};
use p2p::{Input, Protocol as _};
use tokio::sync::{mpsc, oneshot};

use super::behaviour::{Behaviour, BehaviourEvent};
use super::buckets::{Buckets, PEER_QUESTIONS_BURST, PEER_QUESTIONS_PER_SECOND};
use super::directory::{Contact, Directory, OWN};
use super::drive::{Asked, Seeker, Watcher};
use super::exchange::{Errand, Exchange, Net, Returned};
use super::facade::{Connected, Heard, Located, Order, ReachError, Sought, Status, Table, now};
use super::facade::{DhtError, Hop, Quest};
use super::name::{Peer, Place};
use super::nat::Reach;
use super::reaching::options;
use super::records::{VALID, Valid};
use super::ring::Ring;
use super::serve::{self, Question, Reply};
use super::streams::{Event, Spoken, Ticket};
use super::walking::Walking;
use super::{tcp, words};

/// Questions of peers that wait for the loop; their streams wait with them.
const QUESTIONS_MAX: usize = 256;
/// What tasks on our own streams have brought back and the loop has not taken.
const RETURNS_MAX: usize = 256;
/// A node that knows nobody dials those that it was told of this often.
const REJOIN_MS: u64 = 15_000;
/// The peers are written down this often, and at the end.
const REMEMBER_MS: u64 = 5 * 60 * 1000;
/// Room in the directory is looked for no more often than this.
const ROOM_MS_MIN: u64 = 1000;
/// With so many peers connected, no more of the local network are dialled.
const LOCAL_PEERS_MAX: usize = 32;
/// How long handing over what the ring keeps here may take at the end.
const LEAVE_MS_MAX: u64 = 5000;

/// What the loop begins with.
pub(super) struct Start {
    pub swarm: Swarm<Behaviour>,
    /// Where the node can be reached, as it tells others.
    pub announced: Vec<Multiaddr>,
    /// We listen on a loopback address.
    pub local: bool,
    pub peers: Vec<Place>,
    /// Relays through which it is to be reached.
    pub relays: Vec<Place>,
    pub memory: Option<PathBuf>,
    pub seed: u64,
    /// How often the ring is kept in order, if the node stands on it.
    pub chord: Option<Duration>,
}

/// How an overlay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It hands over what it keeps, and writes down whom it knows.
    Leaves,
    /// At once.
    Killed,
}

/// Everything that the loop has.
pub(super) struct Host {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) directory: Directory,
    pub(super) dht: kad::Dht<Contact, Valid>,
    pub(super) exchange: Exchange,
    pub(super) out: kad::Out<Contact>,
    pub(super) asked: HashMap<Errand, Asked>,
    pub(super) owed: HashMap<RequestId, (words::Question, oneshot::Sender<Reply>)>,
    pub(super) seekers: HashMap<Token, Seeker>,
    pub(super) watchers: Vec<Watcher>,
    pub(super) flood: Flood<Contact>,
    pub(super) ring: Option<Ring>,
    pub(super) walking: Walking,
    pub(super) owed_ours: HashMap<RequestId, (RequestId, oneshot::Sender<Reply>)>,
    pub(super) listeners: Vec<mpsc::Sender<Heard>>,
    questions: Buckets<PeerId>,
    pub(super) announced: Vec<Multiaddr>,
    pub(super) reach: Reach,
    peers: Vec<Place>,
    memory: Option<PathBuf>,
    /// Who waits for a dial, then for the peer to say who it is.
    pub(super) dialled: HashMap<ConnectionId, oneshot::Sender<Result<Peer, ReachError>>>,
    pub(super) greeted: HashMap<PeerId, Vec<oneshot::Sender<Result<Peer, ReachError>>>>,
    pub(super) pings: HashMap<Ticket, (Peer, oneshot::Sender<Result<Duration, ReachError>>)>,
    arrivals: mpsc::Sender<Question>,
    pub(super) rng: Rng,
    next: u64,
    began: (Micros, Instant),
    rejoin: Micros,
    remember: Micros,
    room: Micros,
}

/// Runs until `stop` is told or dropped.
pub(super) async fn run(
    start: Start,
    mut orders: mpsc::Receiver<Order>,
    mut stop: oneshot::Receiver<Ending>,
) {
    let (arrivals, mut questions) = mpsc::channel(QUESTIONS_MAX);
    let (returns, mut returned) = mpsc::channel(RETURNS_MAX);
    let mut host = Host::new(start, arrivals, returns);
    let (mut open, mut leaving) = (true, None::<Micros>);
    loop {
        let now = host.now();
        let due = leaving.map_or(host.deadline(), |until| until.min(host.deadline()));
        let wait = Duration::from_micros(due.since(now));
        tokio::select! {
            event = host.swarm.select_next_some() => host.on_event(event),
            Some(question) = questions.recv() => host.on_said(question),
            Some(returned) = returned.recv() => host.on_returned(returned),
            order = orders.recv(), if open => match order {
                Some(order) => host.on_order(order),
                None => open = false,
            },
            end = &mut stop, if leaving.is_none() => {
                if end == Ok(Ending::Killed) {
                    return;
                }
                let now = host.now();
                leaving = Some(now.plus_millis(LEAVE_MS_MAX));
                host.leave_ring(now);
            }
            () = tokio::time::sleep(wait) => {}
        }
        host.settle();
        if leaving.is_some_and(|until| until <= host.now() || !host.is_leaving()) {
            break;
        }
    }
    host.write_peers();
}

impl Host {
    fn new(start: Start, arrivals: mpsc::Sender<Question>, returns: mpsc::Sender<Returned>) -> Host {
        let Start { mut swarm, announced, local, peers, relays, memory, seed, chord } = start;
        let own = *swarm.local_peer_id();
        for address in &announced {
            swarm.add_external_address(address.clone());
            swarm.behaviour_mut().test(address);
        }
        let mut directory = Directory::new(own, local);
        directory.told(OWN, announced.clone());
        let config = kad::Config::new(20, 3, 1).expect("the numbers of the paper are in range");
        let rng = Rng::new(seed);
        let dht = kad::Dht::new(OWN, Target::named(&own.to_bytes()), config, VALID, rng.fork(1));
        let began = (now(), Instant::now());
        let ring = chord.map(|period| Ring::new(began.0, &directory, period, &rng));
        Host {
            swarm,
            directory,
            dht,
            exchange: Exchange::new(returns),
            out: Vec::new(),
            asked: HashMap::new(),
            owed: HashMap::new(),
            seekers: HashMap::new(),
            watchers: Vec::new(),
            flood: Flood::new(Vec::new(), SEEN_MAX, rng.fork(3)),
            ring,
            walking: Walking::new(&rng),
            owed_ours: HashMap::new(),
            listeners: Vec::new(),
            questions: Buckets::new(PEER_QUESTIONS_PER_SECOND, PEER_QUESTIONS_BURST),
            announced,
            reach: Reach::new(relays),
            peers,
            memory,
            dialled: HashMap::new(),
            greeted: HashMap::new(),
            pings: HashMap::new(),
            arrivals,
            rng: rng.fork(2),
            next: 0,
            began,
            rejoin: began.0,
            remember: began.0.plus_millis(REMEMBER_MS),
            room: began.0,
        }
    }

    /// The machine's time when the loop began, and what has passed since: it never goes back.
    pub(super) fn now(&self) -> Micros {
        let passed = u64::try_from(self.began.1.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.began.0 + passed
    }

    /// A number that was not given before.
    pub(super) const fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn deadline(&self) -> Micros {
        let machines = [self.dht.deadline(), self.exchange.deadline()].into_iter().flatten();
        let machines =
            machines.chain(self.walking.walks.deadline()).chain(self.ring.as_ref().map(Ring::deadline));
        machines.chain([self.rejoin, self.remember]).min().expect("two of them are always there")
    }

    /// True while what it hands to the ring is on its way.
    fn is_leaving(&self) -> bool {
        self.ring.as_ref().is_some_and(|ring| !ring.is_quiet())
            || self.asked.values().any(|asked| matches!(asked, Asked::Ring { .. } | Asked::Told))
    }

    /// Lets everything happen that is due or follows from what happened.
    fn settle(&mut self) {
        let now = self.now();
        if self.rejoin <= now {
            self.rejoin = now.plus_millis(REJOIN_MS);
            self.reach.ask_relays(&mut self.swarm);
            if self.dht.table().is_empty() {
                self.peers.clone().into_iter().for_each(|place| drop(self.swarm.dial(options(place))));
            }
        }
        if self.remember <= now {
            self.remember = now.plus_millis(REMEMBER_MS);
            self.write_peers();
        }
        self.drive(now);
    }

    /// Forgets peers that nobody needs, if there are many.
    pub(super) fn make_room(&mut self, now: Micros) {
        if !self.directory.wants_room() || self.room > now {
            return;
        }
        self.room = now.plus_millis(ROOM_MS_MIN);
        let mut held: HashSet<Contact> = self.exchange.peers().collect();
        let mut hold = |contact| {
            held.insert(contact);
        };
        self.dht.held(&mut hold);
        self.walking.walks.held(&mut hold);
        if let Some(ring) = &self.ring {
            ring.chord.held(&mut hold);
        }
        self.directory.make_room(&held);
    }

    fn write_peers(&self) {
        let Some(path) = &self.memory else { return };
        let places = self.dht.table().iter().filter_map(|contact| {
            let peer = self.directory.get(contact)?;
            let address = peer.dialable().into_iter().next()?;
            Some(Place { peer: Some(peer.id), address })
        });
        if let Err(error) = super::memory::write(path, places) {
            tracing::warn!(%error, path = %path.display(), "the overlay's peers cannot be written down");
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let now = self.now();
        self.make_room(now);
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.reach.connected(connection_id, peer_id, endpoint.is_relayed());
                self.on_connected(peer_id, connection_id, endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, .. } => {
                self.reach.parted(connection_id);
                self.on_parted(peer_id, num_established);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.on_unreached(connection_id, peer_id, &error);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Streams(event)) => self.on_stream(now, event),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => self.on_identify(event),
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a peer of the overlay could not be accepted");
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                if self.reach.ended(listener_id) {
                    tracing::info!(?reason, "a relay does not take this node in any more; it is asked again");
                } else {
                    tracing::error!(?reason, "the overlay's port is closed");
                }
            }
            SwarmEvent::ExternalAddrConfirmed { address } => self.on_own_address(address, true),
            SwarmEvent::ExternalAddrExpired { address } => self.on_own_address(address, false),
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => self.on_gossip(event),
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(event)) => self.on_local(event),
            SwarmEvent::Behaviour(BehaviourEvent::Reach(event)) => self.on_tested(&event),
            SwarmEvent::Behaviour(BehaviourEvent::Punch(event)) => self.on_punched(&event),
            // Attempts of others, our own addresses, and pings, which matter to the peer alone.
            _ => {}
        }
    }

    fn on_connected(&mut self, id: PeerId, connection: ConnectionId, endpoint: ConnectedPoint) {
        if let Some(reply) = self.dialled.remove(&connection) {
            self.greeted.entry(id).or_default().push(reply);
        }
        let Some(contact) = self.directory.know(id) else {
            // Nobody could be told of it, ask it or count its connections.
            self.swarm.close_connection(connection);
            return self.greet(id, Err(ReachError::Busy));
        };
        let (dialled, remote) = match endpoint {
            ConnectedPoint::Dialer { address, .. } => (Some(address.clone()), address),
            ConnectedPoint::Listener { send_back_addr, .. } => (None, send_back_addr),
        };
        let seen_at: Option<IpAddr> = tcp::ip(&remote);
        self.directory.connected(contact, dialled, seen_at);
        let Host { swarm, directory, exchange, .. } = self;
        exchange.connected(&mut Net { swarm, directory }, contact);
    }

    fn on_parted(&mut self, id: PeerId, left: u32) {
        let Some(contact) = self.directory.find(&id) else { return };
        if let Some(peer) = self.directory.get_mut(contact) {
            peer.connections = left;
        }
        // Streams that the closed one was to open will not come, whether or not there is another.
        let Host { swarm, directory, exchange, .. } = self;
        exchange.parted(&mut Net { swarm, directory }, contact);
        if left > 0 {
            // Who waits to hear from the one that was closed is told of those that are left.
            return self.greet(id, Ok(Peer(id)));
        }
        self.greet(id, Err(ReachError::Silent { peer: Peer(id) }));
        // Who waits for an echo is told that none comes.
        self.pings.retain(|_, (peer, _)| peer.0 != id);
        let now = self.now();
        self.on_neighbour(now, contact, false);
        self.on_walk_peer(now, contact, false);
        self.on_ring_peer(now, contact, false);
    }

    /// Peers of the local network were found: some are dialled.
    fn on_local(&mut self, event: libp2p_mdns::Event) {
        let libp2p_mdns::Event::Discovered(found) = event else { return };
        for (peer, address) in found.into_iter().take(LOCAL_PEERS_MAX) {
            if self.directory.iter().filter(|(_, peer)| peer.connections > 0).count() >= LOCAL_PEERS_MAX {
                return;
            }
            let Some(contact) = self.directory.know(peer) else { return };
            self.directory.hear(contact, address.clone());
            let dial = DialOpts::peer_id(peer)
                .addresses(vec![address])
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .build();
            // One that is connected or being dialled will do.
            let _ = self.swarm.dial(dial);
        }
    }

    fn on_identify(&mut self, event: libp2p_identify::Event) {
        match event {
            libp2p_identify::Event::Received { peer_id, info, .. } => {
                if let Some(contact) = self.directory.find(&peer_id) {
                    self.directory.told(contact, info.listen_addrs);
                }
                self.greet(peer_id, Ok(Peer(peer_id)));
            }
            // It is connected all the same.
            libp2p_identify::Event::Error { peer_id, .. } => self.greet(peer_id, Ok(Peer(peer_id))),
            libp2p_identify::Event::Sent { .. } | libp2p_identify::Event::Pushed { .. } => {}
        }
    }

    fn on_stream(&mut self, now: Micros, event: Event) {
        match event {
            Event::Arrived { peer, stream } => {
                drop(tokio::spawn(serve::serve(peer, stream, self.arrivals.clone())));
            }
            Event::Serves { peer, spoken, serves } => {
                let Some(contact) = self.directory.find(&peer) else { return };
                match spoken {
                    Spoken::Kad => self.on_serves(now, contact, serves),
                    Spoken::Flood => self.on_neighbour(now, contact, serves),
                    Spoken::Chord => self.on_ring_peer(now, contact, serves),
                    Spoken::Walk => self.on_walk_peer(now, contact, serves),
                    // Who does not is told when something is to be sent.
                    Spoken::Send => {}
                }
            }
            Event::Opened { ticket: Ticket::Line(contact, spoken), stream } => {
                let Host { swarm, directory, exchange, .. } = self;
                exchange.opened(now, &mut Net { swarm, directory }, (contact, spoken), stream);
            }
            Event::Opened { ticket, stream } => self.on_ping_opened(ticket, stream),
        }
    }

    /// A peer serves Kademlia, or does so no more.
    fn on_serves(&mut self, now: Micros, contact: Contact, serves: bool) {
        if let Some(known) = self.directory.get_mut(contact) {
            known.serves = Some(serves);
        }
        if serves && self.dht.table().is_empty() {
            let join = Input::Commanded(kad::Command::Join(contact));
            self.dht.step(now, &self.directory, join, &mut self.out);
        } else if serves {
            self.dht.meet(now, &self.directory, contact, &mut self.out);
        }
    }

    /// A peer says something. What it says too often is dropped, and its stream reset.
    fn on_said(&mut self, question: Question) {
        let now = self.now();
        if !self.questions.take(now, question.from) {
            return;
        }
        self.make_room(now);
        match question.spoken {
            Spoken::Kad => self.on_question(now, question),
            Spoken::Flood => self.on_flood(now, question),
            Spoken::Chord => self.on_ring_said(now, question),
            Spoken::Walk => self.on_walk_said(now, question),
            Spoken::Send => self.on_message(question),
        }
    }

    fn on_returned(&mut self, returned: Returned) {
        let now = self.now();
        self.make_room(now);
        let Host { swarm, directory, exchange, .. } = self;
        exchange.returned(now, &mut Net { swarm, directory }, returned);
    }

    fn on_order(&mut self, order: Order) {
        let now = self.now();
        match order {
            Order::Connect(place, reply) => self.connect(place, reply),
            Order::Disconnect(peer, reply) => {
                let closed = self.swarm.disconnect_peer_id(peer.0);
                let _ = reply.send(closed.map_err(|()| ReachError::NotConnected { peer }));
            }
            Order::Ping(peer, reply) => self.ping(peer, reply),
            Order::Status(reply) => {
                let _ = reply.send(self.status(now));
            }
            Order::Send(peer, payload, reply) => self.send_to(now, peer, &payload, reply),
            Order::Walk(wanted, reply) => self.walk(now, wanted, reply),
            Order::Broadcast(payload, reply) => self.broadcast(now, payload, reply),
            Order::Gossip(payload, reply) => self.gossip(&payload, reply),
            Order::Listen(heard, reply) => self.listen(heard, reply),
            Order::Seek { table: Table::Kad, quest, hops, reply } => self.seek(now, quest, hops, reply),
            Order::Seek { table: Table::Chord, quest, hops, reply } => {
                self.seek_on_ring(now, quest, hops, reply);
            }
        }
    }

    fn seek(
        &mut self,
        now: Micros,
        quest: Quest,
        hops: Option<mpsc::Sender<Hop>>,
        reply: oneshot::Sender<Result<Sought, DhtError>>,
    ) {
        let token = Token(self.number());
        if let Quest::Provide(name) = &quest {
            // Walkers find it too.
            self.hold(now, p2p::Key::of(name));
        }
        let (key, command) = match quest {
            Quest::Node(name) => {
                let target = Target::named(&name);
                (target.key, kad::Command::FindNode(token, target))
            }
            Quest::Get(name) => (p2p::Key::of(&name), kad::Command::Get(token, name)),
            Quest::Put(record) => (record.key(), kad::Command::Put(token, record)),
            Quest::Provide(name) => (p2p::Key::of(&name), kad::Command::Provide(token, name)),
            Quest::Providers(name) => (p2p::Key::of(&name), kad::Command::FindProviders(token, name)),
        };
        self.seekers.insert(token, Seeker { reply });
        self.watchers.extend(hops.map(|hops| Watcher { token, key, began: now, hops }));
        self.dht.step(now, &self.directory, Input::Commanded(command), &mut self.out);
    }

    fn status(&self, now: Micros) -> Status {
        let connected = self.directory.iter().filter(|(_, peer)| peer.connections > 0);
        let connected = connected.map(|(contact, peer)| Connected {
            located: self.located(contact),
            serves: peer.serves,
            relayed: self.reach.is_relayed(&peer.id),
            key: p2p::Keys::key(&self.directory, contact),
        });
        Status {
            peer: Peer(*self.swarm.local_peer_id()),
            addresses: self.own_addresses().iter().map(ToString::to_string).collect(),
            reachable: self.reach.told(),
            connected: connected.collect(),
            contacts: self.dht.table().len(),
            known: self.directory.len() - 1,
            values: self.dht.store().held(),
            network_size: self.dht.network_size(now, &self.directory),
            ring: self.ring.as_ref().map(|ring| ring.status(&self.directory)),
        }
    }

    /// Who and where a contact is.
    pub(super) fn located(&self, contact: Contact) -> Located {
        let peer = self.directory.get(contact).expect("a handle that a machine tells is in the directory");
        Located { peer: Peer(peer.id), addresses: peer.addresses().iter().map(ToString::to_string).collect() }
    }
}

#[cfg(test)]
mod tests;
