//! Reaching peers: dials and who waits for them, and the time of a round trip.

use std::time::{Duration, Instant};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p_identity::PeerId;
use libp2p_swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p_swarm::{ConnectionId, DialError, Stream};
use tokio::sync::oneshot;

use super::directory::Contact;
use super::facade::ReachError;
use super::host::Host;
use super::name::{Peer, Place};
use super::streams::{PING, Ticket};

/// Orders to connect and to measure a round trip that go on at once, each.
const REACHES_MAX: usize = 64;
/// How long a ping's echo may take.
const PING_SECONDS_MAX: u64 = 10;
/// Bytes of a ping.
const PING_BYTES: usize = 32;

impl Host {
    /// Dials a place, unless its peer is connected; who asked is told when the peer has said who it is.
    pub(super) fn connect(&mut self, place: Place, reply: oneshot::Sender<Result<Peer, ReachError>>) {
        if let Some(peer) = place.peer.filter(|peer| self.swarm.is_connected(peer)) {
            let _ = reply.send(Ok(Peer(peer)));
            return;
        }
        if self.dialled.len() >= REACHES_MAX {
            let _ = reply.send(Err(ReachError::Busy));
            return;
        }
        let dial = options(place);
        let connection = dial.connection_id();
        match self.swarm.dial(dial) {
            Ok(()) => drop(self.dialled.insert(connection, reply)),
            Err(error) => {
                let _ = reply.send(Err(ReachError::Unreachable { reason: reason(&error) }));
            }
        }
    }

    /// A dial came to nothing, or to a connection that one of our own limits refused.
    pub(super) fn on_unreached(&mut self, connection: ConnectionId, id: Option<PeerId>, error: &DialError) {
        if let Some(reply) = self.dialled.remove(&connection) {
            let told = match id.filter(|id| self.swarm.is_connected(id)) {
                // There are connections enough to it: that is what was wanted.
                Some(id) => Ok(Peer(id)),
                None => Err(ReachError::Unreachable { reason: reason(error) }),
            };
            let _ = reply.send(told);
        }
        let contact = id.and_then(|id| self.directory.find(&id));
        let gone = |contact: &Contact| self.directory.get(*contact).is_some_and(|peer| peer.connections == 0);
        if let Some(contact) = contact.filter(gone) {
            self.exchange.unreachable(contact);
        }
    }

    /// Tells those who waited for a peer to say who it is.
    pub(super) fn greet(&mut self, id: PeerId, result: Result<Peer, ReachError>) {
        for reply in self.greeted.remove(&id).into_iter().flatten() {
            // Who asked may have left.
            let _ = reply.send(result.clone());
        }
    }

    /// Begins to measure a round trip.
    pub(super) fn ping(&mut self, peer: Peer, reply: oneshot::Sender<Result<Duration, ReachError>>) {
        // Those whose asker has left wait for nothing.
        self.pings.retain(|_, (_, reply)| !reply.is_closed());
        if !self.swarm.is_connected(&peer.0) {
            let _ = reply.send(Err(ReachError::NotConnected { peer }));
        } else if self.pings.len() >= REACHES_MAX {
            let _ = reply.send(Err(ReachError::Busy));
        } else {
            let ticket = Ticket::Ping(self.number());
            self.pings.insert(ticket, (peer, reply));
            self.swarm.behaviour_mut().streams.open(peer.0, ticket, PING);
        }
    }

    /// The stream of a ping is there, or will not be.
    pub(super) fn on_ping_opened(&mut self, ticket: Ticket, stream: Option<Stream>) {
        let Some((peer, reply)) = self.pings.remove(&ticket) else { return };
        let mut bytes = [0; PING_BYTES];
        for chunk in bytes.as_chunks_mut::<8>().0 {
            *chunk = self.rng.next_u64().to_ne_bytes();
        }
        drop(tokio::spawn(async move {
            let _ = reply.send(echo(peer, stream, bytes).await);
        }));
    }
}

/// Why a dial came to nothing. What one of our own limits says is the cause of a denial, which says nothing itself.
fn reason(error: &DialError) -> String {
    let DialError::Denied { cause } = error else { return error.to_string() };
    let mut innermost: &dyn std::error::Error = cause;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// How a place is dialled.
pub(super) fn options(place: Place) -> DialOpts {
    match place.peer {
        Some(peer) => {
            DialOpts::peer_id(peer).addresses(vec![place.address]).condition(PeerCondition::Always).build()
        }
        None => DialOpts::unknown_peer_id().address(place.address).build(),
    }
}

/// Measures one round trip.
async fn echo(peer: Peer, stream: Option<Stream>, bytes: [u8; PING_BYTES]) -> Result<Duration, ReachError> {
    let silent = ReachError::Silent { peer };
    let mut stream = stream.ok_or_else(|| silent.clone())?;
    stream.ignore_for_keep_alive();
    let sent = Instant::now();
    let mut echoed = [0; PING_BYTES];
    let trip = async {
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        stream.read_exact(&mut echoed).await
    };
    match tokio::time::timeout(Duration::from_secs(PING_SECONDS_MAX), trip).await {
        Ok(Ok(())) if echoed == bytes => Ok(sent.elapsed()),
        Ok(Ok(()) | Err(_)) | Err(_) => Err(silent),
    }
}
