//! The bytes of walkers and of what is said about them, behind [`crate::codec`]'s head.

use alloc::vec::Vec;

use kernel::codec::{DecodeError, Reader};

use super::message::{Drawn, Errand, Message, Turn, WalkId, Walker};
use crate::codec::{Peer, Wire, take_bool};
use crate::key::Key;

/// The protocol's name, as it is negotiated.
pub const PROTOCOL: &str = "/archipel/walk/1";

fn put_walker<C>(walker: &Walker<C>, out: &mut Vec<u8>, peer: &mut dyn FnMut(&C, &mut Vec<u8>)) {
    out.extend_from_slice(&walker.walk.0.to_le_bytes());
    peer(&walker.origin, out);
    out.extend_from_slice(&walker.left.to_le_bytes());
    out.extend_from_slice(&walker.hops.to_le_bytes());
    out.extend([walker.stride, walker.free]);
    match walker.errand {
        Errand::Search { key, turn } => {
            out.push(match turn {
                Turn::Any => 0,
                Turn::Onward => 1,
            });
            out.extend_from_slice(&key.to_bytes());
        }
        Errand::Sample { drawn, degree } => {
            let tag = match drawn {
                Drawn::Evenly => 2,
                Drawn::ByDegree => 3,
            };
            out.extend([tag, degree]);
        }
    }
}

fn take_walker<C>(
    reader: &mut Reader<'_>,
    peer: &mut dyn FnMut(Peer<'_>) -> C,
) -> Result<Walker<C>, DecodeError> {
    let walk = WalkId(reader.u64()?);
    let origin = peer(Peer::decode(reader)?);
    let (left, hops) = (reader.u16()?, reader.u16()?);
    let (stride, free) = (reader.u8()?, reader.u8()?);
    let errand = match reader.u8()? {
        0 => Errand::Search { turn: Turn::Any, key: reader.array().map(Key::from_bytes)? },
        1 => Errand::Search { turn: Turn::Onward, key: reader.array().map(Key::from_bytes)? },
        2 => Errand::Sample { drawn: Drawn::Evenly, degree: reader.u8()? },
        3 => Errand::Sample { drawn: Drawn::ByDegree, degree: reader.u8()? },
        _ => return Err(DecodeError::Invalid),
    };
    let walker = Walker { walk, origin, left, hops, stride, free, errand };
    if walker.is_sound() { Ok(walker) } else { Err(DecodeError::Overflow) }
}

impl<C> Wire<C> for Message<C> {
    type Bare = Message<()>;

    fn put(&self, out: &mut Vec<u8>, peer: &mut dyn FnMut(&C, &mut Vec<u8>)) {
        match self {
            Message::Step(walker) => {
                out.push(0);
                put_walker(walker, out, peer);
            }
            Message::Stay(walker) => {
                out.push(1);
                put_walker(walker, out, peer);
            }
            Message::Check(walk) => {
                out.push(2);
                out.extend_from_slice(&walk.0.to_le_bytes());
            }
            Message::Goes(goes) => out.extend([3, u8::from(*goes)]),
            Message::Here { walk, hops } => {
                out.push(4);
                out.extend_from_slice(&walk.0.to_le_bytes());
                out.extend_from_slice(&hops.to_le_bytes());
            }
            Message::Nothing(walk) => {
                out.push(5);
                out.extend_from_slice(&walk.0.to_le_bytes());
            }
        }
    }

    fn take(reader: &mut Reader<'_>, peer: &mut dyn FnMut(Peer<'_>) -> C) -> Result<Message<C>, DecodeError> {
        Ok(match reader.u8()? {
            0 => Message::Step(take_walker(reader, peer)?),
            1 => Message::Stay(take_walker(reader, peer)?),
            2 => Message::Check(WalkId(reader.u64()?)),
            3 => Message::Goes(take_bool(reader)?),
            4 => Message::Here { walk: WalkId(reader.u64()?), hops: reader.u16()? },
            5 => Message::Nothing(WalkId(reader.u64()?)),
            _ => return Err(DecodeError::Invalid),
        })
    }
}
