//! Broadcasts by flooding, driven: `p2p::flood` over `/archipel/flood/1`.
//!
//! Who sent a message is known of the last hop only: nothing in it is signed.

use std::sync::Arc;

use kernel::Micros;
use libp2p_identity::PeerId;
use p2p::codec::Head;
use p2p::flood::{self, Flood, PAYLOAD_BYTES_MAX, TTL_MAX};
use p2p::{Effect, EffectOf, Input, InputOf, Protocol as _};
use tokio::sync::oneshot;

use super::directory::Contact;
use super::drive::Asked;
use super::facade::{ReachError, Via};
use super::host::Host;
use super::ours;
use super::serve::{Question, Reply};
use super::streams::Spoken;

impl Host {
    /// A neighbour's message.
    pub(super) fn on_flood(&mut self, now: Micros, question: Question) {
        let Question { from, bytes, reply, .. } = question;
        let said = ours::decode::<flood::Message>(&mut self.directory, &bytes, 0);
        // What is dropped here is a stream that is reset.
        let (Some((Head::Tell, body)), Some(contact)) = (said, self.directory.find(&from)) else { return };
        self.flood(now, Some(from), Input::Told { from: contact, body });
        let _ = reply.send(Reply::Nothing);
    }

    /// A peer takes messages from now on, or no more.
    pub(super) fn on_neighbour(&mut self, now: Micros, contact: Contact, is_one: bool) {
        let command =
            if is_one { flood::Command::Connect(contact) } else { flood::Command::Disconnect(contact) };
        self.flood(now, None, Input::Commanded(command));
    }

    /// Tells everyone that messages reach; answers how many neighbours it was told to.
    pub(super) fn broadcast(
        &mut self,
        now: Micros,
        payload: Arc<[u8]>,
        reply: oneshot::Sender<Result<usize, ReachError>>,
    ) {
        let bytes = payload.len();
        if bytes > PAYLOAD_BYTES_MAX {
            let _ = reply.send(Err(ReachError::TooLarge { bytes }));
            return;
        }
        let _ = reply.send(Ok(self.flood.neighbours().len()));
        self.flood(now, None, Input::Commanded(flood::Command::Broadcast { ttl: TTL_MAX, payload }));
    }

    fn flood(&mut self, now: Micros, from: Option<PeerId>, input: InputOf<Flood<Contact>>) {
        let mut out: Vec<EffectOf<Flood<Contact>>> = Vec::new();
        self.flood.step(now, &self.directory, input, &mut out);
        // One step tells all neighbours the same, so it is written once.
        let mut written: Option<Option<Vec<u8>>> = None;
        for effect in out {
            match effect {
                Effect::Tell { to, body } => {
                    let bytes =
                        written.get_or_insert_with(|| ours::encode(&self.directory, Head::Tell, &body));
                    if let Some(bytes) = bytes.clone() {
                        self.dispatch(now, (to, Spoken::Flood), bytes, Asked::Told);
                    }
                }
                Effect::Report(flood::Outcome::Heard { hops, payload, .. }) => {
                    if let Some(from) = from {
                        self.heard_broadcast(from, Via::Flood { hops }, payload);
                    }
                }
                // Beyond the most neighbours a peer is none; nothing here is asked or answered.
                Effect::Report(flood::Outcome::Sent(_) | flood::Outcome::Refused)
                | Effect::Ask { .. }
                | Effect::Answer { .. } => {}
            }
        }
    }
}
