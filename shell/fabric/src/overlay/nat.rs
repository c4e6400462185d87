//! Whether others can reach this node, and how they do if it is behind a NAT: through relays, and then directly by both
//! dialling at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::transport::ListenerId;
use libp2p_identity::PeerId;
use libp2p_swarm::{ConnectionId, Swarm};

use super::behaviour::Behaviour;
use super::directory::OWN;
use super::facade::Reachable;
use super::host::Host;
use super::name::Place;

/// Addresses whose last test is remembered.
const TESTED_MAX: usize = 16;
/// Addresses of ours that are told to others beside those of the configuration.
const CONFIRMED_MAX: usize = 8;

/// What is known of how this node is reached.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Relays through which others are to reach it, and the listener at each.
    relays: Vec<Place>,
    at_relays: HashMap<ListenerId, usize>,
    /// Whether a test of an address came through, the last one.
    tested: BTreeMap<Multiaddr, bool>,
    /// Addresses that were found to be right, beside those of the configuration.
    confirmed: BTreeSet<Multiaddr>,
    /// Circuits to peers.
    circuits: HashMap<ConnectionId, PeerId>,
}

impl Reach {
    /// Nothing is known yet; `relays` are to be asked.
    pub fn new(relays: Vec<Place>) -> Reach {
        Reach { relays, ..Reach::default() }
    }

    /// What the tests have shown.
    pub fn told(&self) -> Reachable {
        if self.tested.values().any(|came_through| *came_through) {
            Reachable::Directly
        } else if self.tested.is_empty() {
            Reachable::Unknown
        } else if self.confirmed.iter().any(is_circuit) {
            Reachable::ByRelay
        } else {
            Reachable::No
        }
    }

    /// Asks the relays that are not listened at.
    pub fn ask_relays(&mut self, swarm: &mut Swarm<Behaviour>) {
        for (at, relay) in self.relays.iter().enumerate() {
            if self.at_relays.values().any(|known| *known == at) {
                continue;
            }
            let Some(peer) = relay.peer else { continue };
            let address = relay.address.clone().with(Protocol::P2p(peer)).with(Protocol::P2pCircuit);
            match swarm.listen_on(address) {
                Ok(listener) => drop(self.at_relays.insert(listener, at)),
                Err(error) => tracing::debug!(%error, relay = %peer, "a relay cannot be asked"),
            }
        }
    }

    /// A listener has ended; true if it was one at a relay, which is asked again later.
    pub fn ended(&mut self, listener: ListenerId) -> bool {
        self.at_relays.remove(&listener).is_some()
    }

    /// A connection is there.
    pub fn connected(&mut self, id: ConnectionId, peer: PeerId, relayed: bool) {
        if relayed {
            self.circuits.insert(id, peer);
        }
    }

    /// It is gone.
    pub fn parted(&mut self, id: ConnectionId) {
        self.circuits.remove(&id);
    }

    /// Whether there is a circuit to this peer.
    pub fn is_relayed(&self, peer: &PeerId) -> bool {
        self.circuits.values().any(|known| known == peer)
    }
}

/// Whether an address leads through a relay.
pub(super) fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

impl Host {
    /// An address was tested: a server dialled it, or could not.
    pub(super) fn on_tested(&mut self, event: &libp2p_autonat::v2::client::Event) {
        let tested = &mut self.reach.tested;
        if tested.len() < TESTED_MAX || tested.contains_key(&event.tested_addr) {
            tested.insert(event.tested_addr.clone(), event.result.is_ok());
        }
        tracing::debug!(address = %event.tested_addr, server = %event.server, through = event.result.is_ok(), "an address was tested");
    }

    /// An address of ours is right, or is not any more: others are told.
    pub(super) fn on_own_address(&mut self, address: Multiaddr, holds: bool) {
        let confirmed = &mut self.reach.confirmed;
        if holds && confirmed.len() < CONFIRMED_MAX && !self.announced.contains(&address) {
            confirmed.insert(address);
        } else if !holds {
            confirmed.remove(&address);
        }
        let all = self.own_addresses();
        self.directory.told(OWN, all);
    }

    /// Where others are told to reach this node.
    pub(super) fn own_addresses(&self) -> Vec<Multiaddr> {
        self.announced.iter().chain(&self.reach.confirmed).cloned().collect()
    }

    /// Both ends dialled at once: with a direct connection the circuit is given up.
    pub(super) fn on_punched(&mut self, event: &libp2p_dcutr::Event) {
        match &event.result {
            Ok(_) => {
                tracing::info!(peer = %event.remote_peer_id, "a direct connection replaces a circuit");
                let circuits: Vec<ConnectionId> = self
                    .reach
                    .circuits
                    .iter()
                    .filter(|(_, peer)| **peer == event.remote_peer_id)
                    .map(|(id, _)| *id)
                    .collect();
                for id in circuits {
                    self.swarm.close_connection(id);
                }
            }
            Err(error) => tracing::info!(peer = %event.remote_peer_id, %error, "no direct connection"),
        }
    }
}
