//! What runs on the overlay's connections, and their limits.

use std::time::Duration;

use libp2p_identity::{Keypair, PeerId};
use libp2p_swarm::behaviour::toggle::Toggle;
use libp2p_swarm::behaviour::{FromSwarm, NewExternalAddrCandidate};
use libp2p_swarm::{NetworkBehaviour, Swarm};

use super::gossip::{Gossip, gossip};
use super::limits::{Bounds, Limits};
use super::streams::{Allowed, Served, Streams};
use super::tcp::Tcp;
use super::transport::{Beside, transport};

/// Most connections at once, and most of them that peers opened.
pub(super) const CONNECTIONS_MAX: usize = 512;
/// Most connections at once that peers opened.
pub(super) const INBOUND_CONNECTIONS_MAX: usize = 384;
/// Most connections to one peer: one each way, when both dial at once, and one that is being given up.
const PEER_CONNECTIONS_MAX: usize = 3;
/// Most connections at once that peers opened and that are not authenticated yet.
const HANDSHAKES_MAX: usize = 64;
/// Most connections at once that we are about to open.
const DIALS_MAX: usize = 128;
/// A connection without a stream is closed after this.
const IDLE_SECONDS_MAX: u64 = 60;
/// Streams of one connection at once whose protocol is being agreed on.
const NEGOTIATIONS_MAX: usize = 32;
/// The version of the family of protocols, as all of libp2p's Kademlia says it.
const FAMILY: &str = "ipfs/0.1.0";

/// What runs on every connection. The limits come first: a connection beyond them is refused before another part takes
/// anything for it.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p_swarm::derive_prelude")]
pub(super) struct Behaviour {
    limits: Limits,
    pub streams: Streams,
    identify: libp2p_identify::Behaviour,
    ping: libp2p_ping::Behaviour,
    pub gossip: Toggle<Gossip>,
    mdns: Toggle<libp2p_mdns::tokio::Behaviour>,
    circuits: libp2p_relay::client::Behaviour,
    relay: Toggle<libp2p_relay::Behaviour>,
    punch: Toggle<libp2p_dcutr::Behaviour>,
    reach: Toggle<libp2p_autonat::v2::client::Behaviour>,
    reach_of_others: Toggle<libp2p_autonat::v2::server::Behaviour>,
}

/// What a node takes part in beside TCP, streams, identify and pings, which all do.
pub(super) struct Parts {
    pub served: Served,
    pub allowed: Allowed,
    pub quic: bool,
    pub gossip: bool,
    pub mdns: bool,
    /// It finds out whether it can be reached, and dials those behind a NAT from its own port.
    pub nat: bool,
    /// It helps others to be reached.
    pub relay: bool,
}

/// The swarm of the node with `key`, which will listen on `bound`. Its tasks run on the executor it is made in.
pub(super) fn swarm(key: &Keypair, bound: std::net::TcpListener, parts: Parts) -> Swarm<Behaviour> {
    let id = key.public().to_peer_id();
    let (circuits, client) = libp2p_relay::client::new(id);
    let tcp = Tcp::new(bound, parts.nat);
    let transport = transport(key, tcp, Beside { circuits, quic: parts.quic });
    assemble(transport, key, client, parts)
}

/// The same over another transport, without circuits.
#[cfg(test)]
pub(super) fn over(
    transport: libp2p_core::transport::Boxed<(PeerId, libp2p_core::muxing::StreamMuxerBox)>,
    key: &Keypair,
    parts: Parts,
) -> Swarm<Behaviour> {
    let (circuits, client) = libp2p_relay::client::new(key.public().to_peer_id());
    assemble(super::transport::with_circuits(key, circuits, transport), key, client, parts)
}

fn assemble(
    transport: libp2p_core::transport::Boxed<(PeerId, libp2p_core::muxing::StreamMuxerBox)>,
    key: &Keypair,
    client: libp2p_relay::client::Behaviour,
    parts: Parts,
) -> Swarm<Behaviour> {
    let id = key.public().to_peer_id();
    let config = libp2p_swarm::Config::with_executor(|task| drop(tokio::spawn(task)))
        .with_idle_connection_timeout(Duration::from_secs(IDLE_SECONDS_MAX))
        .with_max_negotiating_inbound_streams(NEGOTIATIONS_MAX);
    Swarm::new(transport, behaviour(key, id, client, parts), id, config)
}

fn behaviour(
    key: &Keypair,
    id: PeerId,
    circuits: libp2p_relay::client::Behaviour,
    parts: Parts,
) -> Behaviour {
    let limits = Bounds {
        handshakes: HANDSHAKES_MAX,
        dials: DIALS_MAX,
        inbound: INBOUND_CONNECTIONS_MAX,
        peer: PEER_CONNECTIONS_MAX,
        all: CONNECTIONS_MAX,
    };
    let agent = concat!("archipel/", env!("CARGO_PKG_VERSION"));
    let identify = libp2p_identify::Config::new(FAMILY.to_owned(), key.public())
        .with_agent_version(agent.to_owned())
        // Only where we say that we can be reached, which `announce` is for.
        .with_hide_listen_addrs(true)
        .with_cache_size(0);
    Behaviour {
        limits: Limits::new(limits),
        streams: Streams::new(parts.served, parts.allowed),
        identify: libp2p_identify::Behaviour::new(identify),
        ping: libp2p_ping::Behaviour::default(),
        gossip: parts.gossip.then(|| gossip(key)).into(),
        mdns: parts.mdns.then(|| mdns(id)).flatten().into(),
        circuits,
        relay: parts.relay.then(|| libp2p_relay::Behaviour::new(id, libp2p_relay::Config::default())).into(),
        punch: parts.nat.then(|| libp2p_dcutr::Behaviour::new(id)).into(),
        reach: parts.nat.then(libp2p_autonat::v2::client::Behaviour::default).into(),
        reach_of_others: parts.relay.then(libp2p_autonat::v2::server::Behaviour::default).into(),
    }
}

impl Behaviour {
    /// Has it tested whether others reach this address. The swarm would not ask for one that the configuration names: it
    /// takes that for true.
    pub(super) fn test(&mut self, address: &libp2p_core::Multiaddr) {
        let candidate = NewExternalAddrCandidate { addr: address };
        self.reach.on_swarm_event(FromSwarm::NewExternalAddrCandidate(candidate));
    }
}

/// Without the machine's list of interfaces there is no local network to look at; the rest goes on.
fn mdns(id: PeerId) -> Option<libp2p_mdns::tokio::Behaviour> {
    let made = libp2p_mdns::tokio::Behaviour::new(libp2p_mdns::Config::default(), id);
    made.inspect_err(|error| tracing::warn!(%error, "peers of the local network are not looked for")).ok()
}
