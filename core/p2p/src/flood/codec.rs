//! The bytes of flooded messages, behind [`crate::codec`]'s head.

use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::codec::{DecodeError, Reader};

use super::{Message, MessageId, PAYLOAD_BYTES_MAX, TTL_MAX};
use crate::codec::{HEAD_BYTES_MAX, MESSAGE_BYTES_MAX, Peer, Wire};

/// The protocol's name, as it is negotiated.
pub const PROTOCOL: &str = "/archipel/flood/1";

const _: () = assert!(HEAD_BYTES_MAX + 8 + 1 + 1 + PAYLOAD_BYTES_MAX <= MESSAGE_BYTES_MAX);

impl<C> Wire<C> for Message {
    type Bare = Message;

    fn put(&self, out: &mut Vec<u8>, _: &mut dyn FnMut(&C, &mut Vec<u8>)) {
        out.extend_from_slice(&self.id.0.to_le_bytes());
        out.extend([self.ttl, self.hops]);
        out.extend_from_slice(&self.payload);
    }

    fn take(reader: &mut Reader<'_>, _: &mut dyn FnMut(Peer<'_>) -> C) -> Result<Message, DecodeError> {
        let id = MessageId(reader.u64()?);
        let (ttl, hops) = (reader.u8()?, reader.u8()?);
        let length = reader.rest().len();
        if !(1..=TTL_MAX).contains(&ttl) || length > PAYLOAD_BYTES_MAX {
            return Err(DecodeError::Overflow);
        }
        Ok(Message { id, ttl, hops, payload: Arc::from(reader.take(length)?) })
    }
}
