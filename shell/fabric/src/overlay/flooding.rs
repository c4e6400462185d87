//! Messages among connected peers, driven: `p2p::flood` over `/archipel/flood/1`, and single ones to a neighbour.
//!
//! A message is a frame on a stream that is opened for it. Who sent it is known of the last hop only: nothing in it is signed.

use std::sync::Arc;
use std::time::Duration;

use futures::AsyncWriteExt;
use kernel::Micros;
use libp2p_identity::PeerId;
use libp2p_swarm::Stream;
use p2p::flood::{self, MessageId, PAYLOAD_BYTES_MAX, TTL_MAX};
use p2p::{Effect, Input, Protocol as _};
use tokio::sync::oneshot;
use wire::kad::put_frame;

use super::directory::Contact;
use super::facade::{Heard, ReachError};
use super::host::Host;
use super::name::Peer;
use super::streams::{FLOOD, Ticket};

/// Messages that wait for their streams; further ones are left out, as any may be.
const TELLS_MAX: usize = 1024;
/// How long a message may take to be written.
const WRITE_SECONDS_MAX: u64 = 10;
/// Most that listen to what arrives.
const LISTENERS_MAX: usize = 16;

type Flooded = Effect<Contact, flood::Message, flood::Outcome>;

impl Host {
    /// A neighbour's message.
    pub(super) fn on_flood(&mut self, now: Micros, from: PeerId, bytes: &[u8]) {
        let (Some(contact), Some(body)) = (self.directory.find(&from), flood::Message::decode(bytes)) else {
            return;
        };
        self.flood(now, Some(from), Input::Told { from: contact, body });
    }

    /// A peer takes messages from now on, or no more.
    pub(super) fn on_neighbour(&mut self, now: Micros, contact: Contact, is_one: bool) {
        let command =
            if is_one { flood::Command::Connect(contact) } else { flood::Command::Disconnect(contact) };
        self.flood(now, None, Input::Commanded(command));
    }

    /// Sends one message to one neighbour.
    pub(super) fn send_to(
        &mut self,
        peer: Peer,
        payload: Arc<[u8]>,
        reply: oneshot::Sender<Result<(), ReachError>>,
    ) {
        let bytes = payload.len();
        let contact =
            self.directory.find(&peer.0).filter(|contact| self.flood.neighbours().contains(contact));
        let _ = reply.send(match contact {
            _ if bytes > PAYLOAD_BYTES_MAX => Err(ReachError::TooLarge { bytes }),
            None => Err(ReachError::NotConnected { peer }),
            Some(contact) => {
                let id = MessageId(self.rng.next_u64());
                // It may pass one edge, the one to the neighbour.
                self.tell(contact, &flood::Message { id, ttl: 1, hops: 1, payload });
                Ok(())
            }
        });
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

    /// Hands what arrives to one more listener.
    pub(super) fn listen(&mut self, heard: tokio::sync::mpsc::Sender<Heard>) {
        self.listeners.retain(|listener| !listener.is_closed());
        if self.listeners.len() < LISTENERS_MAX {
            self.listeners.push(heard);
        }
    }

    fn flood(&mut self, now: Micros, from: Option<PeerId>, input: p2p::InputOf<flood::Flood<Contact>>) {
        let mut out: Vec<Flooded> = Vec::new();
        self.flood.step(now, &self.directory, input, &mut out);
        for effect in out {
            match effect {
                Effect::Tell { to, body } => self.tell(to, &body),
                Effect::Report(flood::Outcome::Heard { hops, payload, .. }) => {
                    let Some(from) = from.map(Peer) else { continue };
                    for listener in &self.listeners {
                        // One who does not read misses it: nobody waits for a listener.
                        let _ = listener.try_send(Heard { from, hops, payload: Arc::clone(&payload) });
                    }
                }
                // Beyond the most neighbours a peer is none; nothing here is asked or answered.
                Effect::Report(flood::Outcome::Sent(_) | flood::Outcome::Refused)
                | Effect::Ask { .. }
                | Effect::Answer { .. } => {}
            }
        }
    }

    fn tell(&mut self, to: Contact, message: &flood::Message) {
        let Some(id) = self.directory.get(to).map(|peer| peer.id) else { return };
        if self.tells.len() >= TELLS_MAX {
            return tracing::debug!(peer = %id, "a message was left out");
        }
        let (mut bytes, mut framed) = (Vec::new(), Vec::new());
        message.encode(&mut bytes);
        put_frame(&bytes, &mut framed);
        let ticket = Ticket::Tell(self.number());
        self.tells.insert(ticket, (id, framed));
        self.swarm.behaviour_mut().streams.open(id, ticket, FLOOD);
    }

    /// The stream of a message is there, or will not be.
    pub(super) fn on_tell(&mut self, ticket: Ticket, stream: Option<Stream>) {
        let (Some((_, bytes)), Some(mut stream)) = (self.tells.remove(&ticket), stream) else { return };
        drop(tokio::spawn(async move {
            let written = async {
                stream.write_all(&bytes).await?;
                stream.close().await
            };
            // What is lost is lost: a broadcast goes by many ways.
            let _ = tokio::time::timeout(Duration::from_secs(WRITE_SECONDS_MAX), written).await;
        }));
    }
}
