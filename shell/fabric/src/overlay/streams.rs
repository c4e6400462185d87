//! Streams of the overlay's protocols, as a libp2p behaviour: it opens those that are asked for, and hands on what arrives.
//!
//! What it does not do: read or write them. It tells which peers serve Kademlia, as identify lists their protocols.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::directory::Contact;
use libp2p_core::transport::PortUse;
use libp2p_core::upgrade::ReadyUpgrade;
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
    /// Questions to a peer.
    Line(Contact),
    /// One measurement of a round trip.
    Ping(u64),
}

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A stream that was asked for is there; or it is not, because the peer does not speak the protocol or is gone.
    Opened { ticket: Ticket, stream: Option<Stream> },
    /// The peer opened a stream of Kademlia.
    Arrived { peer: PeerId, stream: Arrived },
    /// The peer serves Kademlia, or does so no more.
    Serves { peer: PeerId, serves: bool },
}

/// A stream that a peer opened. It counts among its connection's until this is dropped.
#[derive(Debug)]
pub(super) struct Arrived {
    pub stream: Stream,
    /// One of the handler's places.
    _place: Arc<()>,
}

/// The behaviour.
#[derive(Default)]
pub(super) struct Streams {
    out: VecDeque<ToSwarm<Event, Wanted>>,
}

impl Streams {
    /// Asks for a stream to a connected peer. If no connection is left when it would be opened nothing comes of it.
    pub fn open(&mut self, peer_id: PeerId, ticket: Ticket, protocol: StreamProtocol) {
        let event = Wanted { ticket, protocol };
        self.out.push_back(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event });
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, event: Happened) {
        let event = match event {
            Happened::Opened(ticket, stream) => Event::Opened { ticket, stream },
            Happened::Arrived(stream) => Event::Arrived { peer, stream },
            Happened::Serves(serves) => Event::Serves { peer, serves },
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
    Serves(bool),
}

/// One connection's part.
#[derive(Default)]
pub(super) struct Handler {
    wanted: VecDeque<Wanted>,
    happened: VecDeque<Happened>,
    /// One reference is the handler's own, each other one is a stream that is served.
    places: Arc<()>,
}

impl Handler {
    fn arrived(&mut self, stream: Stream) {
        if Arc::strong_count(&self.places) > INBOUND_STREAMS_MAX {
            // Dropped unread, which resets it.
            return;
        }
        let _place = Arc::clone(&self.places);
        self.happened.push_back(Happened::Arrived(Arrived { stream, _place }));
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Wanted;
    type ToBehaviour = Happened;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Ticket;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(KAD), ())
            .with_timeout(Duration::from_secs(NEGOTIATION_SECONDS_MAX))
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
                let (serves, named) = match change {
                    ProtocolsChange::Added(mut added) => (true, added.any(|protocol| *protocol == KAD)),
                    ProtocolsChange::Removed(mut removed) => {
                        (false, removed.any(|protocol| *protocol == KAD))
                    }
                };
                self.happened.extend(named.then_some(Happened::Serves(serves)));
            }
            // A stream that the peer opened and that came to nothing, an address, our own protocols.
            _ => {}
        }
    }
}
