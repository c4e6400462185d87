//! The bytes of Chord's messages, behind [`crate::codec`]'s head.

use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};

use super::message::{Digest, Item, Message, NEAR_MAX, Near, RING_MAX, Told};
use super::store::{ITEM_BYTES_OVER, VALUE_BYTES_MAX};
use crate::codec::{MESSAGE_BYTES_MAX, Peer, Wire, put_list, put_option, take_bool, take_count, take_option};
use crate::key::Key;

/// The protocol's name, as it is negotiated.
pub const PROTOCOL: &str = "/archipel/chord/1";

/// Fewest bytes of an item: its key, a version and an empty value.
const ITEM_BYTES_MIN: usize = 32 + 1 + 1;
/// Most items of a message.
const ITEMS_MAX: usize = MESSAGE_BYTES_MAX / ITEM_BYTES_MIN;
// A value alone fits a message.
const _: () = assert!(VALUE_BYTES_MAX + ITEM_BYTES_OVER + 16 <= MESSAGE_BYTES_MAX);

fn put_item(item: &Item, out: &mut Vec<u8>) {
    out.extend_from_slice(&item.key.to_bytes());
    put_varint(out, item.version);
    put_bytes(out, &item.value);
}

fn take_item(reader: &mut Reader<'_>) -> Result<Item, DecodeError> {
    let (key, version, value) = (take_key(reader)?, reader.varint()?, reader.bytes()?);
    if value.len() > VALUE_BYTES_MAX {
        return Err(DecodeError::Overflow);
    }
    Ok(Item { key, version, value: Arc::from(value) })
}

fn put_digest(digest: &Digest, out: &mut Vec<u8>) {
    put_varint(out, u64::from(digest.count));
    out.extend_from_slice(&digest.mix.to_le_bytes());
}

fn take_digest(reader: &mut Reader<'_>) -> Result<Digest, DecodeError> {
    Ok(Digest { count: take_u32(reader)?, mix: reader.u64()? })
}

fn take_key(reader: &mut Reader<'_>) -> Result<Key, DecodeError> {
    reader.array().map(Key::from_bytes)
}

fn take_u32(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    u32::try_from(reader.varint()?).map_err(|_| DecodeError::Overflow)
}

impl<C> Wire<C> for Message<C> {
    type Bare = Message<()>;

    fn put(&self, out: &mut Vec<u8>, peer: &mut dyn FnMut(&C, &mut Vec<u8>)) {
        match self {
            Message::Find { point, told } => {
                out.push(0);
                out.extend_from_slice(&point.to_le_bytes());
                out.extend([told.before, told.owners]);
            }
            Message::Own { point } => {
                out.push(1);
                out.extend_from_slice(&point.to_le_bytes());
            }
            Message::Neighbours => out.push(2),
            Message::Alive => out.push(3),
            Message::Put(item) => {
                out.push(4);
                put_item(item, out);
            }
            Message::Get(key) => {
                out.push(5);
                out.extend_from_slice(&key.to_bytes());
            }
            Message::Copies(items) => {
                out.push(6);
                put_list(out, items, put_item);
            }
            Message::Mine => out.push(7),
            Message::NotMine { predecessor } => {
                out.push(8);
                put_option(out, predecessor.as_ref(), peer);
            }
            Message::Near(near) => {
                out.extend([9, near.owners, u8::from(near.more)]);
                put_list(out, &near.nodes, peer);
            }
            Message::Ring { predecessor, successors } => {
                out.push(10);
                put_option(out, predecessor.as_ref(), &mut *peer);
                put_list(out, successors, peer);
            }
            Message::Yes => out.push(11),
            Message::Outside => out.push(12),
            Message::Stored(count) => {
                out.push(13);
                put_varint(out, u64::from(*count));
            }
            Message::Value(item) => {
                out.push(14);
                put_option(out, item.as_ref(), put_item);
            }
            Message::Notify => out.push(15),
            Message::Leaving => out.push(16),
            Message::Meet(whom) => {
                out.push(17);
                peer(whom, out);
            }
            Message::Check { after, digest } => {
                out.push(18);
                out.extend_from_slice(&after.to_le_bytes());
                put_digest(digest, out);
            }
            Message::Differs { digest } => {
                out.push(19);
                put_option(out, digest.as_ref(), put_digest);
            }
            Message::Offer => out.push(20),
        }
    }

    fn take(reader: &mut Reader<'_>, peer: &mut dyn FnMut(Peer<'_>) -> C) -> Result<Message<C>, DecodeError> {
        let mut peer = |reader: &mut Reader<'_>| Peer::decode(reader).map(&mut *peer);
        Ok(match reader.u8()? {
            0 => {
                let point = reader.u64()?;
                Message::Find { point, told: Told { before: reader.u8()?, owners: reader.u8()? } }
            }
            1 => Message::Own { point: reader.u64()? },
            2 => Message::Neighbours,
            3 => Message::Alive,
            4 => Message::Put(take_item(reader)?),
            5 => Message::Get(take_key(reader)?),
            6 => {
                let count = take_count(reader, ITEMS_MAX.min(reader.rest().len() / ITEM_BYTES_MIN))?;
                Message::Copies((0..count).map(|_| take_item(reader)).collect::<Result<_, _>>()?)
            }
            7 => Message::Mine,
            8 => Message::NotMine { predecessor: take_option(reader, peer)? },
            9 => {
                let (owners, more) = (reader.u8()?, take_bool(reader)?);
                let count = take_count(reader, NEAR_MAX)?;
                if usize::from(owners) > count {
                    return Err(DecodeError::Overflow);
                }
                let nodes = (0..count).map(|_| peer(reader)).collect::<Result<_, _>>()?;
                Message::Near(Near { nodes, owners, more })
            }
            10 => {
                let predecessor = take_option(reader, &mut peer)?;
                let count = take_count(reader, RING_MAX)?;
                let successors = (0..count).map(|_| peer(reader)).collect::<Result<_, _>>()?;
                Message::Ring { predecessor, successors }
            }
            11 => Message::Yes,
            12 => Message::Outside,
            13 => Message::Stored(take_u32(reader)?),
            14 => Message::Value(take_option(reader, take_item)?),
            15 => Message::Notify,
            16 => Message::Leaving,
            17 => Message::Meet(peer(reader)?),
            18 => Message::Check { after: reader.u64()?, digest: take_digest(reader)? },
            19 => Message::Differs { digest: take_option(reader, take_digest)? },
            20 => Message::Offer,
            _ => return Err(DecodeError::Invalid),
        })
    }
}
