//! The bytes of our own protocols: `/archipel/chord/1`, `/archipel/flood/1` and `/archipel/walk/1`.
//!
//! Each message type has its codec beside it; here is what they share: how a peer is written, the head that says whether
//! a message is told, asked or an answer, and the limits. Nothing is kept of a message before all of it has been checked
//! against them, and a peer is read where it lies.
//!
//! What it does not do: the length before each message on a stream, which is the host's affair, and the meaning of peer
//! ids and addresses; both are bytes here.

use alloc::vec::Vec;

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};
use thiserror::Error;

use crate::pending::RequestId;

/// Longest message, in bytes, with its head.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Longest head, in bytes.
pub const HEAD_BYTES_MAX: usize = 5;
/// Longest peer id, in bytes: a multihash of 64 bytes with room for its prefix.
pub const PEER_ID_BYTES_MAX: usize = 80;
/// Most addresses of a peer.
pub const ADDRESSES_MAX: usize = 16;
/// Longest address, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;

/// A message of ours that cannot be written: the peers that it tells of have too many or too long addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a message of {bytes} bytes, where {MESSAGE_BYTES_MAX} are the most")]
pub struct TooLong {
    /// How long it would be.
    pub bytes: usize,
}

/// Whether a message expects an answer, or is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// It expects none.
    Tell,
    /// It expects an answer under this name.
    Ask(RequestId),
    /// It is the answer to the request of this name.
    Answer(RequestId),
}

impl Head {
    /// Appends its bytes, at most [`HEAD_BYTES_MAX`].
    pub fn encode(self, out: &mut Vec<u8>) {
        let (tag, id) = match self {
            Head::Tell => return out.push(0),
            Head::Ask(id) => (1, id),
            Head::Answer(id) => (2, id),
        };
        out.push(tag);
        out.extend_from_slice(&id.0.to_le_bytes());
    }

    /// The head that `reader` stands before.
    ///
    /// # Errors
    /// There is none.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Head, DecodeError> {
        match reader.u8()? {
            0 => Ok(Head::Tell),
            1 => reader.u32().map(|id| Head::Ask(RequestId(id))),
            2 => reader.u32().map(|id| Head::Answer(RequestId(id))),
            _ => Err(DecodeError::Invalid),
        }
    }
}

/// A peer that a message tells of, as it lies in the message. Its id and addresses are within the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer<'a> {
    /// Who, 1 to [`PEER_ID_BYTES_MAX`] bytes.
    pub id: &'a [u8],
    count: u8,
    /// The addresses, each behind its length.
    addresses: &'a [u8],
}

impl<'a> Peer<'a> {
    /// Where it can be reached, at most [`ADDRESSES_MAX`] addresses of at most [`ADDRESS_BYTES_MAX`] bytes.
    pub fn addresses(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut reader = Reader::new(self.addresses);
        (0..self.count).map_while(move |_| reader.bytes().ok())
    }

    /// The peer that `reader` stands before.
    ///
    /// # Errors
    /// There is none, or it is beyond a limit.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Peer<'a>, DecodeError> {
        let id = reader.bytes()?;
        let count = reader.u8()?;
        if id.is_empty() || id.len() > PEER_ID_BYTES_MAX || usize::from(count) > ADDRESSES_MAX {
            return Err(DecodeError::Overflow);
        }
        let from = reader.rest();
        for _ in 0..count {
            if reader.bytes()?.len() > ADDRESS_BYTES_MAX {
                return Err(DecodeError::Overflow);
            }
        }
        let (addresses, _) = from.split_at(from.len() - reader.rest().len());
        Ok(Peer { id, count, addresses })
    }
}

/// Appends a peer. Addresses that are too long, and those behind the [`ADDRESSES_MAX`]-th, are left out.
///
/// # Panics
/// If the id is empty or longer than [`PEER_ID_BYTES_MAX`]: no peer that we are connected to has such a one.
pub fn put_peer<'a>(out: &mut Vec<u8>, id: &[u8], addresses: impl Iterator<Item = &'a [u8]> + Clone) {
    assert!((1..=PEER_ID_BYTES_MAX).contains(&id.len()), "a peer id has 1 to PEER_ID_BYTES_MAX bytes");
    let addresses = addresses.filter(|address| address.len() <= ADDRESS_BYTES_MAX).take(ADDRESSES_MAX);
    put_bytes(out, id);
    out.push(addresses.clone().count() as u8);
    addresses.for_each(|address| put_bytes(out, address));
}

/// Messages whose bytes are our own affair. `C` is the host's handle of a peer.
pub trait Wire<C>: Sized {
    /// The same without peers, to find out whether bytes are a message at all.
    type Bare: Wire<()>;

    /// Appends its bytes without a head; `peer` appends those of a peer, with [`put_peer`].
    fn put(&self, out: &mut Vec<u8>, peer: &mut dyn FnMut(&C, &mut Vec<u8>));

    /// The message that `reader` stands before; `peer` gives the handle of a peer.
    ///
    /// # Errors
    /// There is none, or it is beyond a limit.
    fn take(reader: &mut Reader<'_>, peer: &mut dyn FnMut(Peer<'_>) -> C) -> Result<Self, DecodeError>;
}

/// Appends a message with its head. On an error `out` is as it was.
///
/// # Errors
/// [`TooLong`], which only messages that tell of peers can be.
pub fn encode<C, M: Wire<C>>(
    head: Head,
    message: &M,
    out: &mut Vec<u8>,
    peer: &mut dyn FnMut(&C, &mut Vec<u8>),
) -> Result<(), TooLong> {
    let from = out.len();
    head.encode(out);
    message.put(out, peer);
    let bytes = out.len() - from;
    if bytes > MESSAGE_BYTES_MAX {
        out.truncate(from);
        return Err(TooLong { bytes });
    }
    Ok(())
}

/// The message that `bytes` are, all of them, with its head.
///
/// `peer` is called only for messages that are sound as a whole: it may remember whom it is told of.
///
/// # Errors
/// They are not one, or it is beyond a limit.
pub fn decode<C, M: Wire<C>>(
    bytes: &[u8],
    peer: &mut dyn FnMut(Peer<'_>) -> C,
) -> Result<(Head, M), DecodeError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(DecodeError::Overflow);
    }
    let mut reader = Reader::new(bytes);
    let head = Head::decode(&mut reader)?;
    let mut ahead = reader;
    M::Bare::take(&mut ahead, &mut |_| ())?;
    if !ahead.is_empty() {
        return Err(DecodeError::Invalid);
    }
    Ok((head, M::take(&mut reader, peer)?))
}

/// Appends `value`, or that there is none.
pub(crate) fn put_option<T>(out: &mut Vec<u8>, value: Option<&T>, put: impl FnOnce(&T, &mut Vec<u8>)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(value, out);
    }
}

/// What [`put_option`] wrote.
pub(crate) fn take_option<'a, T>(
    reader: &mut Reader<'a>,
    take: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if take_bool(reader)? { take(reader).map(Some) } else { Ok(None) }
}

/// A byte that is 0 or 1.
pub(crate) fn take_bool(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Invalid),
    }
}

/// Appends how many there are, then each.
pub(crate) fn put_list<T>(out: &mut Vec<u8>, list: &[T], mut put: impl FnMut(&T, &mut Vec<u8>)) {
    put_varint(out, list.len() as u64);
    list.iter().for_each(|one| put(one, out));
}

/// How many follow, at most `most`.
pub(crate) fn take_count(reader: &mut Reader<'_>, most: usize) -> Result<usize, DecodeError> {
    let count = reader.len()?;
    if count <= most { Ok(count) } else { Err(DecodeError::Overflow) }
}

#[cfg(test)]
mod tests;
