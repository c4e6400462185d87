//! Single messages, over `/archipel/send/1`: a frame with the message, answered by a frame of one byte that says how many
//! listen at the receiver.
//!
//! The sender is who the connection's keys say, so nothing in a message need be signed. An answer says that the message was
//! handed on to so many listeners; without one it may have been, or not.

use std::sync::Arc;

use kernel::Micros;
use libp2p_identity::PeerId;
use p2p::flood::PAYLOAD_BYTES_MAX;
use tokio::sync::{mpsc, oneshot};
use wire::kad::put_frame;

use super::drive::Asked;
use super::exchange::Ended;
use super::facade::{Heard, ReachError, Via};
use super::host::Host;
use super::name::Peer;
use super::serve::{Question, Reply};
use super::streams::Spoken;

/// Most that listen to what arrives.
pub(super) const LISTENERS_MAX: usize = 16;

impl Host {
    /// Sends one message to one peer, which is dialled if it is known and not connected.
    pub(super) fn send_to(
        &mut self,
        now: Micros,
        peer: Peer,
        payload: &[u8],
        reply: oneshot::Sender<Result<usize, ReachError>>,
    ) {
        let bytes = payload.len();
        let known = self.directory.find(&peer.0).filter(|contact| {
            self.directory
                .get(*contact)
                .is_some_and(|peer| peer.connections > 0 || !peer.dialable().is_empty())
        });
        let refused = match known {
            _ if bytes > PAYLOAD_BYTES_MAX => ReachError::TooLarge { bytes },
            _ if peer.0 == *self.swarm.local_peer_id() => ReachError::Own,
            None => ReachError::NotConnected { peer },
            Some(contact) => {
                let mut framed = Vec::new();
                put_frame(payload, &mut framed);
                return self.dispatch(now, (contact, Spoken::Send), framed, Asked::Message(peer, reply));
            }
        };
        let _ = reply.send(Err(refused));
    }

    /// A message was answered, or was not.
    pub(super) fn on_sent(peer: Peer, ended: Ended, reply: oneshot::Sender<Result<usize, ReachError>>) {
        let result = match ended {
            Ended::Answered(bytes) => match bytes[..] {
                [listeners] if usize::from(listeners) <= LISTENERS_MAX => Ok(usize::from(listeners)),
                _ => Err(ReachError::Silent { peer }),
            },
            Ended::Refused => Err(ReachError::Refused { peer }),
            Ended::Failed => Err(ReachError::Silent { peer }),
        };
        // Who asked may have left.
        let _ = reply.send(result);
    }

    /// A peer's message.
    pub(super) fn on_message(&mut self, question: Question) {
        let Question { from, bytes, reply, .. } = question;
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return;
        }
        let told = self.tell_listeners(Heard { from: Peer(from), via: Via::Direct, payload: bytes.into() });
        let mut framed = Vec::new();
        put_frame(&[told as u8], &mut framed);
        let _ = reply.send(Reply::Answer(framed));
    }

    /// Hands what arrives to one more listener.
    pub(super) fn listen(
        &mut self,
        heard: mpsc::Sender<Heard>,
        reply: oneshot::Sender<Result<(), ReachError>>,
    ) {
        self.listeners.retain(|listener| !listener.is_closed());
        let room = self.listeners.len() < LISTENERS_MAX;
        if room {
            self.listeners.push(heard);
        }
        let _ = reply.send(if room { Ok(()) } else { Err(ReachError::Busy) });
    }

    /// Gives what arrived to those who listen, and how many took it. One who does not read misses it: nobody waits for a
    /// listener.
    pub(super) fn tell_listeners(&mut self, heard: Heard) -> usize {
        self.listeners.retain(|listener| !listener.is_closed());
        self.listeners.iter().filter(|listener| listener.try_send(heard.clone()).is_ok()).count()
    }

    /// A broadcast arrived.
    pub(super) fn heard_broadcast(&mut self, from: PeerId, via: Via, payload: Arc<[u8]>) {
        let _ = self.tell_listeners(Heard { from: Peer(from), via, payload });
    }
}
