//! Broadcast by flooding: everyone tells everyone, once (Dalal & Metcalfe 1978; Gnutella 0.4).
//!
//! The origin tells all its neighbours; a node that hears a message for the first time tells all but the one it
//! heard it from. On a connected graph of `V` nodes and `E` edges that is exactly `2·E − V + 1` messages, if nobody
//! forgets what was seen and the TTL is large enough. [`gossip`] is the broadcast for larger payloads.
//!
//! Limits: a node remembers [`SEEN_MAX`] messages; one that comes around later than that is told again. With a
//! TTL and unequal latencies a node may hear first over a longer way and tell less far than it could.

mod codec;
pub mod gossip;
mod seen;

use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::{Micros, Rng};

use crate::protocol::{Contact, Effect, EffectOf, Input, InputOf, Keys, Protocol};
pub use codec::PROTOCOL;
pub use seen::Seen;

/// Most messages that a node remembers, so that it tells each once.
pub const SEEN_MAX: usize = 4096;
/// Most neighbours of one node.
pub const NEIGHBOURS_MAX: usize = 64;
/// Most edges that a message may pass.
pub const TTL_MAX: u8 = 16;
/// Longest payload, in bytes: with its header it fits a message of 16 KiB.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024 - 64;

/// Names one broadcast: 64 bits, drawn by its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// What neighbours tell each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which broadcast.
    pub id: MessageId,
    /// How many edges it may still pass, this one included: 1 is not told on.
    pub ttl: u8,
    /// How many edges it has passed, this one included.
    pub hops: u8,
    /// What is broadcast.
    pub payload: Arc<[u8]>,
}

/// What the owner of a node can want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<C> {
    /// Tell everyone within `ttl` edges.
    Broadcast {
        /// How far, at most [`TTL_MAX`].
        ttl: u8,
        /// What, at most [`PAYLOAD_BYTES_MAX`].
        payload: Arc<[u8]>,
    },
    /// Take a neighbour.
    Connect(C),
    /// Leave a neighbour.
    Disconnect(C),
}

/// What the owner of a node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A broadcast arrived, for the first time.
    Heard {
        /// Which.
        id: MessageId,
        /// Over how many edges.
        hops: u8,
        /// What.
        payload: Arc<[u8]>,
    },
    /// A broadcast of ours is on its way.
    Sent(MessageId),
    /// A command is beyond a limit: payload, TTL or neighbours.
    Refused,
}

/// One node that floods.
#[derive(Clone, Debug)]
pub struct Flood<C> {
    neighbours: Vec<C>,
    seen: Seen,
    rng: Rng,
}

impl<C: Contact> Flood<C> {
    /// A node with these neighbours (the first [`NEIGHBOURS_MAX`]) that remembers `seen` messages (at most
    /// [`SEEN_MAX`]). One that remembers none floods without end: see the lab's control.
    #[must_use]
    pub fn new(mut neighbours: Vec<C>, seen: usize, rng: Rng) -> Flood<C> {
        neighbours.truncate(NEIGHBOURS_MAX);
        Flood { neighbours, seen: Seen::new(seen.min(SEEN_MAX)), rng }
    }

    /// Its neighbours.
    #[must_use]
    pub fn neighbours(&self) -> &[C] {
        &self.neighbours
    }

    fn tell(&self, but: Option<C>, message: &Message, out: &mut Vec<EffectOf<Self>>) {
        for &to in self.neighbours.iter().filter(|&&to| Some(to) != but) {
            out.push(Effect::Tell { to, body: message.clone() });
        }
    }

    fn hear(&mut self, from: C, message: Message, out: &mut Vec<EffectOf<Self>>) {
        let fits = message.payload.len() <= PAYLOAD_BYTES_MAX;
        if !fits || !(1..=TTL_MAX).contains(&message.ttl) || !self.seen.insert(message.id) {
            return;
        }
        let Message { id, ttl, hops, payload } = message;
        out.push(Effect::Report(Outcome::Heard { id, hops, payload: Arc::clone(&payload) }));
        if ttl > 1 {
            let next = Message { id, ttl: ttl - 1, hops: hops.saturating_add(1), payload };
            self.tell(Some(from), &next, out);
        }
    }

    fn command(&mut self, command: Command<C>, out: &mut Vec<EffectOf<Self>>) {
        match command {
            Command::Broadcast { ttl, payload } => {
                if payload.len() > PAYLOAD_BYTES_MAX || !(1..=TTL_MAX).contains(&ttl) {
                    return out.push(Effect::Report(Outcome::Refused));
                }
                let id = MessageId(self.rng.next_u64());
                self.seen.insert(id);
                out.push(Effect::Report(Outcome::Sent(id)));
                self.tell(None, &Message { id, ttl, hops: 1, payload }, out);
            }
            Command::Connect(peer) if self.neighbours.contains(&peer) => {}
            Command::Connect(_) if self.neighbours.len() >= NEIGHBOURS_MAX => {
                out.push(Effect::Report(Outcome::Refused));
            }
            Command::Connect(peer) => self.neighbours.push(peer),
            Command::Disconnect(peer) => self.neighbours.retain(|own| *own != peer),
        }
    }
}

impl<C: Contact> Protocol for Flood<C> {
    type Contact = C;
    type Message = Message;
    type Command = Command<C>;
    type Outcome = Outcome;

    fn step(&mut self, _: Micros, _: &impl Keys<C>, input: InputOf<Self>, out: &mut Vec<EffectOf<Self>>) {
        match input {
            // Nothing is ever asked here; who asks is told nothing.
            Input::Asked { .. } | Input::Answered { .. } | Input::Failed { .. } => {}
            Input::Told { from, body } => self.hear(from, body, out),
            Input::Parted { peer } => self.neighbours.retain(|own| *own != peer),
            Input::Commanded(command) => self.command(command, out),
        }
    }

    fn deadline(&self) -> Option<Micros> {
        None
    }

    fn wake(&mut self, _: Micros, _: &impl Keys<C>, _: &mut Vec<EffectOf<Self>>) {}
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::Key;

    struct NoKeys;

    impl Keys<u32> for NoKeys {
        fn key(&self, _: u32) -> Key {
            Key::default()
        }
    }

    fn told(node: &mut Flood<u32>, from: u32, id: u64, ttl: u8) -> Vec<(u32, u8)> {
        let body = Message { id: MessageId(id), ttl, hops: 1, payload: Arc::from([]) };
        let mut out = Vec::new();
        node.step(Micros(0), &NoKeys, Input::Told { from, body }, &mut out);
        let told = out.iter().filter_map(|effect| match effect {
            Effect::Tell { to, body } => Some((*to, body.ttl)),
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn a_message_is_told_on_once_to_all_but_its_bringer_while_its_ttl_lasts() {
        #[rustfmt::skip] // columns
        let table = [
            // from id ttl  told
            (1,     7, 3,   vec![(2, 2), (3, 2)]),
            (2,     7, 3,   vec![]),              // seen
            (2,     8, 1,   vec![]),              // it may go no further
            (2,     9, 0,   vec![]),              // it should not have come so far
            (2,     9, 17,  vec![]),              // more than TTL_MAX
            (9,     9, 2,   vec![(1, 1), (2, 1), (3, 1)]), // a stranger's message is a message
        ];
        let mut node = Flood::new(vec![1, 2, 3], SEEN_MAX, Rng::new(1));
        for (from, id, ttl, expected) in table {
            assert_eq!(told(&mut node, from, id, ttl), expected, "from {from} id {id} ttl {ttl}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_told() {
        let mut node = Flood::new(vec![1], SEEN_MAX, Rng::new(1));
        for (ttl, bytes, refused) in
            [(1, 0, false), (0, 0, true), (17, 0, true), (1, PAYLOAD_BYTES_MAX + 1, true)]
        {
            let mut out = Vec::new();
            let command = Command::Broadcast { ttl, payload: vec![0; bytes].into() };
            node.step(Micros(0), &NoKeys, Input::Commanded(command), &mut out);
            assert_eq!(out.contains(&Effect::Report(Outcome::Refused)), refused, "{ttl} {bytes}");
            assert_eq!(out.iter().any(|effect| matches!(effect, Effect::Tell { .. })), !refused);
        }
        for peer in 0..NEIGHBOURS_MAX as u32 * 2 {
            node.step(Micros(0), &NoKeys, Input::Commanded(Command::Connect(peer)), &mut Vec::new());
        }
        assert_eq!(node.neighbours().len(), NEIGHBOURS_MAX);
    }
}
