//! What the overlay's connections are made of, from the socket up, and their limits.

use std::time::Duration;

use libp2p_core::muxing::StreamMuxerBox;
use libp2p_core::transport::{Boxed, Transport};
use libp2p_core::upgrade::Version;
use libp2p_identity::{Keypair, PeerId};
use libp2p_swarm::{NetworkBehaviour, Swarm};

use super::limits::{Bounds, Limits};
use super::streams::{Served, Streams};
use super::tcp::Tcp;

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
/// How long TCP, Noise and Yamux may take together.
const HANDSHAKE_SECONDS_MAX: u64 = 10;
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
}

/// The swarm of the node with `key`, which will listen on `bound`. Its tasks run on the executor it is made in.
pub(super) fn swarm(key: &Keypair, bound: std::net::TcpListener, served: Served) -> Swarm<Behaviour> {
    let config = libp2p_swarm::Config::with_executor(|task| drop(tokio::spawn(task)))
        .with_idle_connection_timeout(Duration::from_secs(IDLE_SECONDS_MAX))
        .with_max_negotiating_inbound_streams(NEGOTIATIONS_MAX);
    Swarm::new(transport(key, bound), behaviour(key, served), key.public().to_peer_id(), config)
}

fn transport(key: &Keypair, bound: std::net::TcpListener) -> Boxed<(PeerId, StreamMuxerBox)> {
    let noise = libp2p_noise::Config::new(key).expect("an Ed25519 key signs");
    Tcp::new(bound)
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(libp2p_yamux::Config::default())
        .timeout(Duration::from_secs(HANDSHAKE_SECONDS_MAX))
        .boxed()
}

fn behaviour(key: &Keypair, served: Served) -> Behaviour {
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
        streams: Streams::new(served),
        identify: libp2p_identify::Behaviour::new(identify),
        ping: libp2p_ping::Behaviour::default(),
    }
}
