//! Streams of the overlay's protocols, as a libp2p behaviour: it opens those that are asked for, and hands on what arrives.
//!
//! What it does not do: read or write them. It tells which protocols of ours peers serve, as identify lists them, and
//! refuses connections of a network that makes too many.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use kernel::Micros;

use thiserror::Error;

use super::buckets::{Buckets, NETWORK_CONNECTIONS_BURST, NETWORK_CONNECTIONS_PER_SECOND};
use super::directory::{Contact, neighbourhood};
use super::tcp;
use libp2p_core::transport::PortUse;
use libp2p_core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo};
use libp2p_core::{Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, ProtocolsChange,
};
use libp2p_swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, StreamProtocol, SubstreamProtocol, ToSwarm,
};

/// Kademlia's protocol.
pub(super) const KAD: StreamProtocol = StreamProtocol::new(wire::kad::PROTOCOL);
/// The protocol that measures a round trip.
pub(super) const PING: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// Most streams of one connection that its peer opened and that are served at once; further ones are reset.
pub(super) const INBOUND_STREAMS_MAX: usize = 32;
/// How long the two ends may take to agree on a stream's protocol.
const NEGOTIATION_SECONDS_MAX: u64 = 10;

/// What a stream is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Ticket {
    /// What is asked of or told to a peer in a protocol.
    Line(Contact, Spoken),
    /// One measurement of a round trip.
    Ping(u64),
}

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A stream that was asked for is there; or it is not, because the peer does not speak the protocol or is gone.
    Opened { ticket: Ticket, stream: Option<Stream> },
    /// The peer opened a stream.
    Arrived { peer: PeerId, stream: Arrived },
    /// The peer serves a protocol, or does so no more.
    Serves { peer: PeerId, spoken: Spoken, serves: bool },
}

/// A stream that a peer opened. It counts among its connection's until this is dropped.
#[derive(Debug)]
pub(super) struct Arrived {
    pub stream: Stream,
    pub spoken: Spoken,
    /// One of the handler's places.
    _place: Arc<()>,
}

/// A protocol of questions, answers and what is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Spoken {
    Kad,
    Flood,
    Chord,
    Walk,
    Send,
}

impl Spoken {
    /// Each of them.
    pub const ALL: [Spoken; 5] = [Spoken::Kad, Spoken::Flood, Spoken::Chord, Spoken::Walk, Spoken::Send];

    /// As it is negotiated.
    pub const fn protocol(self) -> StreamProtocol {
        StreamProtocol::new(match self {
            Spoken::Kad => return KAD,
            Spoken::Flood => p2p::flood::PROTOCOL,
            Spoken::Chord => p2p::chord::PROTOCOL,
            Spoken::Walk => p2p::walk::PROTOCOL,
            Spoken::Send => super::ours::SEND_PROTOCOL,
        })
    }
}

/// Which protocols a node serves: all, but Chord only if it wants to stand on a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served {
    pub chord: bool,
}

impl Served {
    fn spoken(self) -> impl Iterator<Item = Spoken> {
        Spoken::ALL.into_iter().filter(move |spoken| self.chord || *spoken != Spoken::Chord)
    }
}

impl UpgradeInfo for Served {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.spoken().map(Spoken::protocol).collect::<Vec<_>>().into_iter()
    }
}

impl InboundUpgrade<Stream> for Served {
    type Output = (Stream, Spoken);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        let spoken = self.spoken().find(|spoken| spoken.protocol() == protocol);
        ready(Ok((stream, spoken.expect("only what is offered is agreed on"))))
    }
}

/// Which peers may be connected to; all without a list.
pub(super) type Allowed = Option<HashSet<PeerId>>;

/// The behaviour.
pub(super) struct Streams {
    out: VecDeque<ToSwarm<Event, Wanted>>,
    allowed: Allowed,
    /// Connections without a relay between, by which streams go if there are any.
    direct: HashMap<PeerId, Vec<ConnectionId>>,
    served: Served,
    doors: Buckets<u64>,
    began: Instant,
}

/// A peer's network has made as many connections as it may for now.
#[derive(Debug, Error)]
#[error("too many connections from {ip} in a short time")]
struct TooMany {
    ip: IpAddr,
}

/// A peer is not on the list of those that may be connected to.
#[derive(Debug, Error)]
#[error("{peer} is not in `p2p.allow`")]
struct Unlisted {
    peer: PeerId,
}

impl Streams {
    /// One that nobody is connected to.
    pub fn new(served: Served, allowed: Allowed) -> Streams {
        let doors = Buckets::new(NETWORK_CONNECTIONS_PER_SECOND, NETWORK_CONNECTIONS_BURST);
        Streams {
            out: VecDeque::new(),
            allowed,
            direct: HashMap::new(),
            served,
            doors,
            began: Instant::now(),
        }
    }

    /// Asks for a stream to a connected peer. If no connection is left when it would be opened nothing comes of it.
    pub fn open(&mut self, peer_id: PeerId, ticket: Ticket, protocol: StreamProtocol) {
        let event = Wanted { ticket, protocol };
        let direct = self.direct.get(&peer_id).and_then(|ids| ids.first());
        let handler = direct.map_or(NotifyHandler::Any, |id| NotifyHandler::One(*id));
        self.out.push_back(ToSwarm::NotifyHandler { peer_id, handler, event });
    }

    /// How many streams were asked for and not yet passed on.
    #[cfg(test)]
    pub fn asked(&self) -> usize {
        self.out.len()
    }

    fn admit(&self, peer: PeerId) -> Result<(), ConnectionDenied> {
        match &self.allowed {
            Some(allowed) if !allowed.contains(&peer) => Err(ConnectionDenied::new(Unlisted { peer })),
            Some(_) | None => Ok(()),
        }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    /// Each public network has its share. What is not public is of one machine or site, whose nodes are many for good
    /// reasons; the limits of all connections are for it too.
    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(ip) = tcp::ip(remote) else { return Ok(()) };
        let Some(network) = neighbourhood(ip) else { return Ok(()) };
        let now = Micros(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX));
        if self.doors.take(now, network) { Ok(()) } else { Err(ConnectionDenied::new(TooMany { ip })) }
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        self.admit(peer)?;
        Ok(Handler::new(self.served))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        self.admit(peer)?;
        Ok(Handler::new(self.served))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(new) if !new.endpoint.is_relayed() => {
                self.direct.entry(new.peer_id).or_default().push(new.connection_id);
            }
            FromSwarm::ConnectionClosed(old) => {
                let Some(ids) = self.direct.get_mut(&old.peer_id) else { return };
                ids.retain(|id| *id != old.connection_id);
                if ids.is_empty() {
                    self.direct.remove(&old.peer_id);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, event: Happened) {
        let event = match event {
            Happened::Opened(ticket, stream) => Event::Opened { ticket, stream },
            Happened::Arrived(stream) => Event::Arrived { peer, stream },
            Happened::Serves(spoken, serves) => Event::Serves { peer, spoken, serves },
        };
        self.out.push_back(ToSwarm::GenerateEvent(event));
    }

    // The swarm polls after each call of the methods above, so nobody needs to be woken.
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, Wanted>> {
        self.out.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// A stream that is to be opened.
#[derive(Debug)]
pub(super) struct Wanted {
    ticket: Ticket,
    protocol: StreamProtocol,
}

/// What a connection tells.
#[derive(Debug)]
pub(super) enum Happened {
    Opened(Ticket, Option<Stream>),
    Arrived(Arrived),
    Serves(Spoken, bool),
}

/// One connection's part.
pub(super) struct Handler {
    served: Served,
    wanted: VecDeque<Wanted>,
    happened: VecDeque<Happened>,
    /// One reference is the handler's own, each other one is a stream that is served.
    places: Arc<()>,
}

impl Handler {
    fn new(served: Served) -> Handler {
        Handler { served, wanted: VecDeque::new(), happened: VecDeque::new(), places: Arc::default() }
    }

    fn arrived(&mut self, (stream, spoken): (Stream, Spoken)) {
        if Arc::strong_count(&self.places) > INBOUND_STREAMS_MAX {
            // Dropped unread, which resets it.
            return;
        }
        let _place = Arc::clone(&self.places);
        self.happened.push_back(Happened::Arrived(Arrived { stream, spoken, _place }));
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Wanted;
    type ToBehaviour = Happened;
    type InboundProtocol = Served;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Ticket;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(self.served, ()).with_timeout(Duration::from_secs(NEGOTIATION_SECONDS_MAX))
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Ticket, Happened>> {
        if let Some(happened) = self.happened.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(happened));
        }
        let Some(Wanted { ticket, protocol }) = self.wanted.pop_front() else { return Poll::Pending };
        let protocol = SubstreamProtocol::new(ReadyUpgrade::new(protocol), ticket)
            .with_timeout(Duration::from_secs(NEGOTIATION_SECONDS_MAX));
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
    }

    fn on_behaviour_event(&mut self, wanted: Wanted) {
        self.wanted.push_back(wanted);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Ticket>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.arrived(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                self.happened.push_back(Happened::Opened(info, Some(protocol)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, .. }) => {
                self.happened.push_back(Happened::Opened(info, None));
            }
            ConnectionEvent::RemoteProtocolsChange(change) => {
                let (named, serves): (Vec<&StreamProtocol>, bool) = match change {
                    ProtocolsChange::Added(added) => (added.collect(), true),
                    ProtocolsChange::Removed(removed) => (removed.collect(), false),
                };
                let ours = self.served.spoken().filter(|spoken| named.contains(&&spoken.protocol()));
                self.happened.extend(ours.map(|spoken| Happened::Serves(spoken, serves)));
            }
            // A stream that the peer opened and that came to nothing, an address, our own protocols.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comes(streams: &mut Streams, number: usize, from: &str) -> bool {
        let connection = ConnectionId::new_unchecked(number);
        let (here, from) = ("/ip4/0.0.0.0/tcp/1".parse().unwrap(), from.parse().unwrap());
        streams.handle_pending_inbound_connection(connection, &here, &from).is_ok()
    }

    #[test]
    fn a_public_network_makes_so_many_connections_and_one_machine_or_site_as_many_as_it_has_nodes() {
        let mut streams = Streams::new(Served { chord: true }, None);
        let many = 4 * NETWORK_CONNECTIONS_BURST as usize;
        // Its addresses are one network's, whichever they are.
        let mut came =
            |of: &dyn Fn(usize) -> String| (0..many).filter(|n| comes(&mut streams, *n, &of(*n))).count();
        let taken = came(&|n| format!("/ip4/9.8.7.{}/tcp/{n}", n % 200));
        // Some come into the bucket while this runs.
        assert!((NETWORK_CONNECTIONS_BURST as usize..many / 2).contains(&taken), "{taken}");
        let taken = came(&|n| format!("/ip6/2001:db8:1:{n:x}::1/tcp/1"));
        assert!((NETWORK_CONNECTIONS_BURST as usize..many / 2).contains(&taken), "{taken}");
        // Control: another network has its own, and what is not public none.
        assert!(came(&|_| "/ip4/9.8.6.1/tcp/1".to_owned()) >= NETWORK_CONNECTIONS_BURST as usize);
        for site in ["127.0.0.1", "10.1.2.3", "192.168.1.1"] {
            assert_eq!(came(&|n| format!("/ip4/{site}/tcp/{n}")), many, "{site}");
        }
    }
}
