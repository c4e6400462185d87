//! The overlay: peers that do not know each other find one another, and a hash table among them, over libp2p.
//!
//! One thread has an executor and everything of libp2p; this folder alone names either. What decides is `p2p::kad`, a
//! machine; here its questions travel as `/ipfs/kad/1.0.0` (`wire::kad`) on streams over TCP, Noise and Yamux, and its
//! handles are the peers of a bounded directory. Others hold [`P2pNode`] and [`Dht`].
//!
//! What it does not do: DNS names and WebSockets; keys of its own other than Ed25519; being a client that serves nobody.

mod behaviour;
mod buckets;
mod directory;
mod drive;
mod exchange;
mod facade;
mod flooding;
mod frames;
mod gossip;
mod host;
mod limits;
mod memory;
mod name;
mod nat;
mod ours;
mod reaching;
mod records;
mod ring;
mod sending;
mod serve;
mod streams;
mod tcp;
mod transport;
mod walking;
mod words;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ::ring::rand::{SecureRandom, SystemRandom};
use kernel::NodeId;
use libp2p_core::Multiaddr;
use libp2p_identity::Keypair;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use self::behaviour::Parts;
pub use self::facade::{
    Connected, Dht, DhtError, HOPS_MAX, Heard, Hop, HopEnd, Located, P2pNode, ReachError, Reachable,
    RingStatus, Status, Table, Value, Via, WalkError,
};
pub use self::name::{ContentName, NameError, Peer, Place, ValueName};
use self::records::Signer;
use self::streams::Served;
use crate::Identity;

/// Orders that wait for the overlay's thread; who sends more waits.
const ORDERS_MAX: usize = 64;

/// Where the overlay is and whom it begins with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where others are told to reach the node, each as `/ip4/…/tcp/…`; without any, where it listens, if that is one address.
    pub announce: Vec<Place>,
    /// Peers that are dialled at the start, and while nobody is known.
    pub peers: Vec<Place>,
    /// The file in which known peers are written down for the next start.
    pub memory: Option<PathBuf>,
    /// Whether the node stands on the ring of Archipel's nodes.
    pub chord: bool,
    /// How often it looks after its neighbours on the ring, 0.1 s to an hour; values and fingers are looked after as much more
    /// rarely as with the five seconds of [`p2p::chord::Settings`].
    pub chord_period: Duration,
    /// Whether it takes and makes connections over QUIC too, at the same port of UDP.
    pub quic: bool,
    /// Whether it gossips.
    pub gossip: bool,
    /// Whether it looks for peers in the local network.
    pub mdns: bool,
    /// Whether it finds out if others can reach it, and dials those behind a NAT at once with them.
    pub nat: bool,
    /// Whether it relays for others that cannot be reached, and tests for them whether they can.
    pub relay: bool,
    /// Relays through which it is to be reached.
    pub relays: Vec<Place>,
    /// The only peers that it is connected to; all without a list.
    pub allow: Option<Vec<Peer>>,
}

impl Default for Options {
    /// TCP, gossip and the ring, and nobody to begin with.
    fn default() -> Options {
        Options {
            announce: Vec::new(),
            peers: Vec::new(),
            memory: None,
            chord: true,
            chord_period: Duration::from_secs(5),
            quic: false,
            gossip: true,
            mdns: false,
            nat: false,
            relay: false,
            relays: Vec::new(),
            allow: None,
        }
    }
}

/// Why there is no overlay.
#[derive(Debug, Error)]
pub enum OverlayError {
    /// The port is taken or not ours.
    #[error(
        "cannot listen on {address} for libp2p: {source}; stop what holds the port, or choose another with --port-offset 10 or the setting `p2p.port`"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// A relay without an id: a circuit needs to say who its relay is.
    #[error("the relay {relay} has no id, and a circuit needs one; write {relay}/p2p/ID in `p2p.relays`")]
    Nameless {
        /// As it was given.
        relay: String,
    },
    /// Its thread cannot be started.
    #[error("the overlay's thread cannot be started: {source}")]
    Thread {
        /// The reason.
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error("the system has no random bytes for the overlay")]
    NoRandom,
}

/// A running overlay.
pub struct Overlay {
    /// Where it listens.
    pub address: SocketAddr,
    orders: mpsc::Sender<facade::Order>,
    signer: Arc<Signer>,
    stop: oneshot::Sender<host::Ending>,
    thread: JoinHandle<()>,
}

impl Overlay {
    /// Takes the port and takes part with `identity`, in a thread of its own.
    ///
    /// # Errors
    /// [`OverlayError`]; nothing is left running.
    pub fn start(identity: &Identity, listen: SocketAddr, options: Options) -> Result<Overlay, OverlayError> {
        if let Some(relay) = options.relays.iter().find(|relay| relay.peer.is_none()) {
            return Err(OverlayError::Nameless { relay: relay.to_string() });
        }
        let failed = |source| OverlayError::Listen { address: listen, source };
        let bound = TcpListener::bind(listen).map_err(failed)?;
        bound.set_nonblocking(true).map_err(failed)?;
        let address = bound.local_addr().map_err(failed)?;
        if options.nat {
            tcp::share_port(&bound).map_err(failed)?;
        }
        let udp = if options.quic { Some(free_udp(listen, address).map_err(failed)?) } else { None };
        let mut seed = [0; 8];
        SystemRandom::new().fill(&mut seed).map_err(|_| OverlayError::NoRandom)?;
        let failed = |source| OverlayError::Thread { source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let key = Keypair::ed25519_from_bytes(*identity.seed()).expect("every 32 bytes are an Ed25519 seed");
        let announced = announced(&options.announce, address, udp);
        if announced.is_empty() {
            tracing::warn!(%address, "the overlay tells nobody where it is: set `p2p.announce`");
        }
        let remembered = options.memory.as_deref().map(memory::read).unwrap_or_default();
        let peers = options.peers.into_iter().chain(remembered).collect();
        let parts = Parts {
            served: Served { chord: options.chord },
            allowed: options.allow.map(|peers| peers.into_iter().map(|peer| peer.0).collect()),
            quic: options.quic,
            gossip: options.gossip,
            mdns: options.mdns,
            nat: options.nat,
            relay: options.relay,
        };
        let (orders, taken) = mpsc::channel(ORDERS_MAX);
        let (stop, stopped) = oneshot::channel();
        let work = async move {
            let mut swarm = behaviour::swarm(&key, bound, parts);
            swarm.listen_on(tcp::multiaddr(address)).expect("the transport was given a listener");
            if let Some(Err(error)) = udp.map(|udp| swarm.listen_on(tcp::quic_multiaddr(udp))) {
                tracing::error!(%error, "the overlay does not listen for QUIC");
            }
            let (local, memory) = (address.ip().is_loopback(), options.memory);
            let (seed, relays) = (u64::from_ne_bytes(seed), options.relays);
            let chord = options.chord.then_some(options.chord_period);
            host::run(
                host::Start { swarm, announced, local, peers, relays, memory, seed, chord },
                taken,
                stopped,
            )
            .await;
        };
        let thread = std::thread::Builder::new()
            .name("overlay".into())
            .spawn(move || runtime.block_on(work))
            .map_err(failed)?;
        let signer = Arc::new(Signer::new(identity.id(), identity.seed()));
        Ok(Overlay { address, orders, signer, stop, thread })
    }

    /// This node as a peer.
    #[must_use]
    pub fn node(&self) -> P2pNode {
        P2pNode { orders: self.orders.clone(), id: self.node_id() }
    }

    /// The hash table.
    #[must_use]
    pub fn dht(&self) -> Dht {
        Dht { orders: self.orders.clone(), signer: Arc::clone(&self.signer), hops: None, table: Table::Kad }
    }

    /// Who this node is.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.signer.id
    }

    /// Writes the peers down, closes all connections and ends the thread.
    pub fn stop(self) {
        self.end(host::Ending::Leaves);
    }

    /// Ends the thread as the process would be that is killed: nothing is handed over or written down, and nobody is told.
    pub fn kill(self) {
        self.end(host::Ending::Killed);
    }

    fn end(self, how: host::Ending) {
        // A thread that has ended does not listen.
        let _ = self.stop.send(how);
        if self.thread.join().is_err() {
            tracing::error!("the overlay's thread ended badly");
        }
    }
}

/// Where UDP is free for QUIC: the port of TCP, or any if that one was any.
fn free_udp(wanted: SocketAddr, tcp: SocketAddr) -> io::Result<SocketAddr> {
    let bound = match UdpSocket::bind(tcp) {
        Err(_) if wanted.port() == 0 => UdpSocket::bind(wanted),
        bound => bound,
    };
    bound?.local_addr()
}

/// Where others are told that the node is.
fn announced(told: &[Place], address: SocketAddr, quic: Option<SocketAddr>) -> Vec<Multiaddr> {
    if told.is_empty() && !address.ip().is_unspecified() {
        return [tcp::multiaddr(address)].into_iter().chain(quic.map(tcp::quic_multiaddr)).collect();
    }
    told.iter().map(|place| place.address.clone()).collect()
}
