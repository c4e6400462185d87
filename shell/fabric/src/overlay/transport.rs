//! What connections of the overlay run over: TCP and, if wanted, QUIC, and circuits through relays.

use std::time::Duration;

use futures::future::Either;
use libp2p_core::muxing::StreamMuxerBox;
use libp2p_core::transport::{Boxed, Transport};
use libp2p_core::upgrade::Version;
use libp2p_identity::{Keypair, PeerId};

use super::tcp::Tcp;

/// How long TCP or a circuit, Noise and Yamux may take together.
const HANDSHAKE_SECONDS_MAX: u64 = 10;

/// Which transports there are beside TCP.
pub(super) struct Beside {
    pub circuits: libp2p_relay::client::Transport,
    pub quic: bool,
}

/// All transports of the node with `key`, as one.
pub(super) fn transport(key: &Keypair, tcp: Tcp, beside: Beside) -> Boxed<(PeerId, StreamMuxerBox)> {
    let wired = with_circuits(key, beside.circuits, secured(key, tcp));
    if !beside.quic {
        return wired;
    }
    let quic = libp2p_quic::tokio::Transport::new(libp2p_quic::Config::new(key));
    let both = wired.or_transport(quic).map(|either, _| match either {
        Either::Left(connection) => connection,
        Either::Right((peer, connection)) => (peer, StreamMuxerBox::new(connection)),
    });
    both.boxed()
}

/// Circuits beside `wired`.
pub(super) fn with_circuits(
    key: &Keypair,
    circuits: libp2p_relay::client::Transport,
    wired: Boxed<(PeerId, StreamMuxerBox)>,
) -> Boxed<(PeerId, StreamMuxerBox)> {
    // Circuits first: an address of one begins as one of its relay's does.
    secured(key, circuits).or_transport(wired).map(|either, _| either.into_inner()).boxed()
}

fn secured<T>(key: &Keypair, transport: T) -> Boxed<(PeerId, StreamMuxerBox)>
where
    T: Transport<Error: Send + Sync, Dial: Send, ListenerUpgrade: Send> + Send + Unpin + 'static,
    T::Output: futures::AsyncRead + futures::AsyncWrite + Unpin + Send + 'static,
{
    let noise = libp2p_noise::Config::new(key).expect("an Ed25519 key signs");
    transport
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(libp2p_yamux::Config::default())
        .timeout(Duration::from_secs(HANDSHAKE_SECONDS_MAX))
        .boxed()
}
