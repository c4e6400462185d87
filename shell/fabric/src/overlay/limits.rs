//! How many connections there may be. It is the first of the behaviours: what is beyond its limits is refused before another part
//! takes anything for it.
//!
//! Our own and not `libp2p-connection-limits`: that one (0.6) keeps an entry for every peer that it ever met, so that each
//! stranger with a fresh id takes memory for good.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p_core::transport::PortUse;
use libp2p_core::{Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p_swarm::dummy::ConnectionHandler;
use libp2p_swarm::{
    ConnectionDenied, ConnectionId, DialFailure, FromSwarm, ListenFailure, NetworkBehaviour, ToSwarm,
};
use thiserror::Error;

/// The most there may be of each at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections that peers opened and that are not authenticated yet.
    pub handshakes: usize,
    /// Connections that we are about to open.
    pub dials: usize,
    /// Connections that peers opened.
    pub inbound: usize,
    /// Connections to one peer.
    pub peer: usize,
    /// Connections.
    pub all: usize,
}

/// The connections of a swarm, counted.
///
/// Invariant: `peers` has those with a connection and no others; its counts add up to `inbound` and `outbound`.
#[derive(Debug)]
pub(super) struct Limits {
    bounds: Bounds,
    handshakes: HashSet<ConnectionId>,
    dials: HashSet<ConnectionId>,
    inbound: usize,
    outbound: usize,
    peers: HashMap<PeerId, usize>,
}

/// There are as many as may be.
#[derive(Debug, Error)]
#[error("there are {most} {what}, and may not be more")]
struct Exceeded {
    most: usize,
    what: &'static str,
}

impl Limits {
    /// Those of a swarm without connections.
    pub fn new(bounds: Bounds) -> Limits {
        Limits {
            bounds,
            handshakes: HashSet::new(),
            dials: HashSet::new(),
            inbound: 0,
            outbound: 0,
            peers: HashMap::new(),
        }
    }

    /// May one more connection to `peer` be there?
    fn established(&self, peer: PeerId) -> Result<ConnectionHandler, ConnectionDenied> {
        let with = self.peers.get(&peer).copied().unwrap_or(0);
        check(with, self.bounds.peer, "connections to this peer")?;
        check(self.inbound + self.outbound, self.bounds.all, "connections")?;
        Ok(ConnectionHandler)
    }

    fn opened(&mut self, ConnectionEstablished { peer_id, endpoint, .. }: &ConnectionEstablished<'_>) {
        *if endpoint.is_listener() { &mut self.inbound } else { &mut self.outbound } += 1;
        *self.peers.entry(*peer_id).or_default() += 1;
    }

    fn closed(&mut self, ConnectionClosed { peer_id, endpoint, .. }: &ConnectionClosed<'_>) {
        let count = if endpoint.is_listener() { &mut self.inbound } else { &mut self.outbound };
        *count = count.checked_sub(1).expect("what is closed was opened");
        let with = self.peers.get_mut(peer_id).expect("what is closed was opened");
        *with -= 1;
        if *with == 0 {
            self.peers.remove(peer_id);
        }
    }
}

fn check(there: usize, most: usize, what: &'static str) -> Result<(), ConnectionDenied> {
    if there < most { Ok(()) } else { Err(ConnectionDenied::new(Exceeded { most, what })) }
}

impl NetworkBehaviour for Limits {
    type ConnectionHandler = ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        check(self.handshakes.len(), self.bounds.handshakes, "handshakes")?;
        self.handshakes.insert(connection);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<ConnectionHandler, ConnectionDenied> {
        self.handshakes.remove(&connection);
        check(self.inbound, self.bounds.inbound, "connections that peers opened")?;
        self.established(peer)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        check(self.dials.len(), self.bounds.dials, "dials")?;
        self.dials.insert(connection);
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<ConnectionHandler, ConnectionDenied> {
        self.dials.remove(&connection);
        self.established(peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(opened) => self.opened(&opened),
            FromSwarm::ConnectionClosed(closed) => self.closed(&closed),
            FromSwarm::DialFailure(DialFailure { connection_id, .. }) => {
                self.dials.remove(&connection_id);
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.handshakes.remove(&connection_id);
            }
            // Addresses and listeners are not counted.
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Infallible>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use kernel::NodeId;
    use libp2p_core::ConnectedPoint;

    use super::super::name::Peer;
    use super::*;

    const BOUNDS: Bounds = Bounds { handshakes: 3, dials: 2, inbound: 4, peer: 2, all: 5 };

    fn id(n: u16) -> PeerId {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        Peer::from(NodeId(key)).0
    }

    fn address() -> Multiaddr {
        "/ip4/127.0.0.1/tcp/1".parse().unwrap()
    }

    /// A connection that a peer opens; false if it is refused.
    fn accept(limits: &mut Limits, number: usize, peer: PeerId) -> bool {
        let (connection, at) = (ConnectionId::new_unchecked(number), address());
        if limits.handle_pending_inbound_connection(connection, &at, &at).is_err() {
            return false;
        }
        if let Err(error) = limits.handle_established_inbound_connection(connection, peer, &at, &at) {
            let error = libp2p_swarm::ListenError::Denied { cause: error };
            limits.on_swarm_event(FromSwarm::ListenFailure(ListenFailure {
                local_addr: &at,
                send_back_addr: &at,
                error: &error,
                connection_id: connection,
                peer_id: Some(peer),
            }));
            return false;
        }
        limits.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: connection,
            endpoint: &ConnectedPoint::Listener { local_addr: at.clone(), send_back_addr: at },
            failed_addresses: &[],
            other_established: 0,
        }));
        true
    }

    fn close(limits: &mut Limits, number: usize, peer: PeerId) {
        limits.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: peer,
            connection_id: ConnectionId::new_unchecked(number),
            endpoint: &ConnectedPoint::Listener { local_addr: address(), send_back_addr: address() },
            cause: None,
            remaining_established: 0,
        }));
    }

    #[test]
    fn nothing_is_kept_of_strangers_that_came_and_went() {
        let mut limits = Limits::new(BOUNDS);
        for n in 0..2000 {
            assert!(accept(&mut limits, usize::from(n), id(n)));
            close(&mut limits, usize::from(n), id(n));
        }
        assert_eq!((limits.peers.len(), limits.handshakes.len(), limits.inbound), (0, 0, 0));
    }

    #[test]
    fn each_limit_holds_at_its_border() {
        let mut limits = Limits::new(BOUNDS);
        // One peer, then others.
        assert_eq!([1, 2, 3].map(|n| accept(&mut limits, n, id(1))), [true, true, false]);
        assert_eq!([4, 5, 6].map(|n| accept(&mut limits, n, id(n as u16))), [true, true, false]);
        let (at, from) = (address(), Endpoint::Dialer);
        let dial = |limits: &mut Limits, n| {
            limits.handle_pending_outbound_connection(ConnectionId::new_unchecked(n), None, &[], from).is_ok()
        };
        assert_eq!([10, 11, 12].map(|n| dial(&mut limits, n)), [true, true, false]);
        let reached = |limits: &mut Limits, n| {
            let connection = ConnectionId::new_unchecked(n);
            limits.handle_established_outbound_connection(connection, id(9), &at, from, PortUse::New).is_ok()
        };
        // One more fits among all; it is counted when the swarm says that it is there.
        assert!(reached(&mut limits, 10));
        assert!(dial(&mut limits, 13));
        limits.outbound = 1;
        assert!(!reached(&mut limits, 11));
        close(&mut limits, 1, id(1));
        assert!(accept(&mut limits, 20, id(20)));
        let waits = |limits: &mut Limits, n| {
            limits.handle_pending_inbound_connection(ConnectionId::new_unchecked(n), &at, &at).is_ok()
        };
        assert_eq!([30, 31, 32, 33].map(|n| waits(&mut limits, n)), [true, true, true, false]);
    }
}
