//! What members tell each other, and its bytes.

use alloc::vec::Vec;

use kernel::NodeId;
use kernel::codec::{DecodeError, Reader, put_varint};

/// Updates that one message carries, at most.
pub const UPDATES_MAX: usize = 8;
/// Bytes of one message, at most.
pub const MESSAGE_BYTES_MAX: usize = 1 + 10 + 32 + 1 + UPDATES_MAX * UPDATE_BYTES_MAX;
const UPDATE_BYTES_MAX: usize = 32 + 10 + 1 + 32;

/// What is thought of a member, in the order in which it counts at one incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// It answers.
    Alive,
    /// It did not answer somebody, and has a while to object.
    Suspect,
    /// It did not object.
    Dead,
}

/// News of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// Whose.
    pub node: NodeId,
    /// Its own count of how often it had to object; a later one wins.
    pub incarnation: u64,
    /// What is thought of it.
    pub claim: Claim,
}

/// What an [`Update`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is alive. Only the member itself raises the incarnation.
    Alive,
    /// This member suspects it.
    Suspect(NodeId),
    /// It is dead.
    Dead,
}

impl Claim {
    /// The claim without its author.
    #[must_use]
    pub const fn liveness(self) -> Liveness {
        match self {
            Claim::Alive => Liveness::Alive,
            Claim::Suspect(_) => Liveness::Suspect,
            Claim::Dead => Liveness::Dead,
        }
    }
}

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answer with [`Kind::Ack`].
    Ping,
    /// Ping this member for me, and tell me.
    PingFor(NodeId),
    /// The answer to a ping.
    Ack,
    /// The member that was to be pinged has not answered yet; I have (Lifeguard).
    Nack,
}

/// A message between members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What for.
    pub kind: Kind,
    /// Which ping it is, or answers.
    pub number: u64,
    /// News, at most [`UPDATES_MAX`].
    pub updates: Vec<Update>,
}

impl Message {
    /// Appends its bytes, at most [`MESSAGE_BYTES_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.updates.len() <= UPDATES_MAX, "a message carries few updates");
        match self.kind {
            Kind::Ping => out.push(0),
            Kind::PingFor(node) => {
                out.push(1);
                out.extend_from_slice(&node.0);
            }
            Kind::Ack => out.push(2),
            Kind::Nack => out.push(3),
        }
        put_varint(out, self.number);
        out.push(self.updates.len() as u8);
        for Update { node, incarnation, claim } in &self.updates {
            out.extend_from_slice(&node.0);
            put_varint(out, *incarnation);
            match claim {
                Claim::Alive => out.push(0),
                Claim::Suspect(by) => {
                    out.push(1);
                    out.extend_from_slice(&by.0);
                }
                Claim::Dead => out.push(2),
            }
        }
    }

    /// The message that `bytes` are, all of them.
    ///
    /// # Errors
    /// They are not one, or it carries too much.
    pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
        let mut reader = Reader::new(bytes);
        let kind = match reader.u8()? {
            0 => Kind::Ping,
            1 => Kind::PingFor(NodeId(reader.array()?)),
            2 => Kind::Ack,
            3 => Kind::Nack,
            _ => return Err(DecodeError::Invalid),
        };
        let number = reader.varint()?;
        let count = usize::from(reader.u8()?);
        if count > UPDATES_MAX {
            return Err(DecodeError::Overflow);
        }
        let mut updates = Vec::with_capacity(count);
        for _ in 0..count {
            let (node, incarnation) = (NodeId(reader.array()?), reader.varint()?);
            let claim = match reader.u8()? {
                0 => Claim::Alive,
                1 => Claim::Suspect(NodeId(reader.array()?)),
                2 => Claim::Dead,
                _ => return Err(DecodeError::Invalid),
            };
            updates.push(Update { node, incarnation, claim });
        }
        if reader.is_empty() { Ok(Message { kind, number, updates }) } else { Err(DecodeError::Invalid) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes() -> impl Strategy<Value = NodeId> {
        any::<[u8; 32]>().prop_map(NodeId)
    }

    fn updates() -> impl Strategy<Value = Update> {
        let claims = prop_oneof![Just(Claim::Alive), nodes().prop_map(Claim::Suspect), Just(Claim::Dead)];
        (nodes(), any::<u64>(), claims).prop_map(|(node, incarnation, claim)| Update {
            node,
            incarnation,
            claim,
        })
    }

    fn messages() -> impl Strategy<Value = Message> {
        let kinds =
            prop_oneof![Just(Kind::Ping), nodes().prop_map(Kind::PingFor), Just(Kind::Ack), Just(Kind::Nack)];
        (kinds, any::<u64>(), proptest::collection::vec(updates(), 0..=UPDATES_MAX))
            .prop_map(|(kind, number, updates)| Message { kind, number, updates })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(message in messages()) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            prop_assert!(bytes.len() <= MESSAGE_BYTES_MAX);
            prop_assert_eq!(Message::decode(&bytes), Ok(message));
            bytes.push(0);
            prop_assert_eq!(Message::decode(&bytes), Err(DecodeError::Invalid));
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert!(message.updates.len() <= UPDATES_MAX);
            }
        }
    }
}
