//! The overlay of a server, from its configuration.

use fabric::overlay::{Options, Overlay, OverlayError};
use fabric::{Identity, IdentityError};
use thiserror::Error;

use crate::config::Config;

/// The file of the data directory in which the overlay keeps whom it knew.
const MEMORY_FILE: &str = "overlay.peers";

/// Why a server has no overlay.
#[derive(Debug, Error)]
pub enum P2pError {
    /// The node's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The overlay itself.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
}

/// The overlay, if the configuration wants one.
pub(crate) fn start(config: &Config) -> Result<Option<Overlay>, P2pError> {
    let p2p = &config.p2p;
    if !p2p.enabled {
        return Ok(None);
    }
    let identity = Identity::open(&config.data_dir)?;
    let options = Options {
        announce: p2p.announce.get().to_vec(),
        peers: p2p.peers.get().to_vec(),
        memory: Some(config.data_dir.join(MEMORY_FILE)),
        chord: p2p.chord,
        quic: p2p.quic,
        gossip: p2p.gossip,
        mdns: p2p.mdns,
        nat: p2p.nat,
        relay: p2p.relay,
        relays: p2p.relays.get().to_vec(),
        allow: (!p2p.allow.get().is_empty()).then(|| p2p.allow.get().to_vec()),
        ..Options::default()
    };
    Ok(Some(Overlay::start(&identity, config.p2p_address(), options)?))
}
