//! Broadcasts by gossipsub: each message is signed by its origin, and its bytes pass an edge of a mesh and not all edges.
//!
//! There is one topic, and others are refused, so that no peer can make us keep tables of names.

use std::collections::HashSet;
use std::sync::Arc;

use libp2p_gossipsub::{
    Behaviour, ConfigBuilder, Event, IdentTopic, IdentityTransform, MessageAuthenticity, PublishError,
    ValidationMode, WhitelistSubscriptionFilter,
};
use libp2p_identity::Keypair;
use p2p::flood::PAYLOAD_BYTES_MAX;
use tokio::sync::oneshot;

use super::facade::{ReachError, Via};
use super::host::Host;

/// Longest message with what gossipsub puts around it, in bytes.
const TRANSMIT_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 1024;
/// Messages of one peer's packet that are looked at.
const PACKET_MESSAGES_MAX: usize = 64;

/// Gossipsub over our topic.
pub(super) type Gossip = Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

fn topic() -> IdentTopic {
    IdentTopic::new("archipel/broadcast/1")
}

/// The behaviour of the node with `key`.
pub(super) fn gossip(key: &Keypair) -> Gossip {
    let config = ConfigBuilder::default()
        .max_transmit_size(TRANSMIT_BYTES_MAX)
        .validation_mode(ValidationMode::Strict)
        .max_messages_per_rpc(Some(PACKET_MESSAGES_MAX))
        .build()
        .expect("the numbers of the configuration fit each other");
    let signed = MessageAuthenticity::Signed(key.clone());
    let only = WhitelistSubscriptionFilter(HashSet::from([topic().hash()]));
    let mut gossip = Behaviour::new_with_subscription_filter(signed, config, only)
        .expect("signing and strict checks agree");
    let _new = gossip.subscribe(&topic()).expect("the filter lets our own topic pass");
    gossip
}

impl Host {
    /// Tells everyone who gossips; answers how many peers of ours do.
    pub(super) fn gossip(&mut self, payload: &[u8], reply: oneshot::Sender<Result<usize, ReachError>>) {
        let bytes = payload.len();
        let gossip = self.swarm.behaviour_mut().gossip.as_mut();
        let result = match gossip {
            _ if bytes > PAYLOAD_BYTES_MAX => Err(ReachError::TooLarge { bytes }),
            None => Err(ReachError::NoGossip),
            Some(gossip) => {
                let topic = topic().hash();
                let peers = gossip.all_peers().filter(|(_, topics)| topics.contains(&&topic)).count();
                match gossip.publish(topic, payload) {
                    Ok(_) => Ok(peers),
                    Err(PublishError::NoPeersSubscribedToTopic) => Ok(0),
                    Err(error) => {
                        tracing::debug!(%error, "a broadcast was not sent");
                        Err(ReachError::Busy)
                    }
                }
            }
        };
        // Who asked may have left.
        let _ = reply.send(result);
    }

    pub(super) fn on_gossip(&mut self, event: Event) {
        let Event::Message { message, .. } = event else { return };
        // Strict checks let nothing pass that is not signed by its source.
        let Some(source) = message.source.filter(|_| message.data.len() <= PAYLOAD_BYTES_MAX) else { return };
        self.heard_broadcast(source, Via::Gossip, Arc::from(message.data));
    }
}
