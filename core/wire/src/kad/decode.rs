//! Bytes to messages: one pass checks everything, then lists are read where they lie.

use super::field::{self, Value};
use super::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, Connection, KEY_BYTES_MAX, Kind, MESSAGE_BYTES_MAX, PEER_ID_BYTES_MAX,
    PEERS_MAX, Record,
};
use kernel::codec::Reader;
use thiserror::Error;

const TYPE: u32 = 1;
const KEY: u32 = 2;
const RECORD: u32 = 3;
/// The field of closer peers.
pub(super) const CLOSER: u32 = 8;
/// The field of provider peers.
pub(super) const PROVIDERS: u32 = 9;
const LEVEL: u32 = 10;

/// The peer's message breaks the protocol or a limit; it is dropped and its stream closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It is cut, a number overflows, or a field has another type than in the schema.
    #[error("the bytes are no message of this protocol")]
    Malformed,
    /// A kind that no version has.
    #[error("a message of unknown kind {number}")]
    Kind {
        /// What it says.
        number: u64,
    },
    /// Longer than a message may be.
    #[error("a message of {bytes} bytes, where {MESSAGE_BYTES_MAX} are the most")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A key or a record's key that is too long.
    #[error("a key of {bytes} bytes, where {KEY_BYTES_MAX} are the most")]
    Key {
        /// Its length.
        bytes: usize,
    },
    /// More closer peers, or more providers, than a message may have.
    #[error("more than {PEERS_MAX} peers in one list")]
    Peers,
    /// A peer without an id, or with one that is too long.
    #[error("a peer id of {bytes} bytes, where 1 to {PEER_ID_BYTES_MAX} are allowed")]
    PeerId {
        /// Its length.
        bytes: usize,
    },
    /// Two records in one message. Protobuf would merge them; no honest sender writes them.
    #[error("two records in one message")]
    Records,
}

impl From<kernel::codec::DecodeError> for DecodeError {
    fn from(_: kernel::codec::DecodeError) -> DecodeError {
        DecodeError::Malformed
    }
}

/// A message that was read: everything in it has been checked, nothing was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it asks for or answers.
    pub kind: Kind,
    /// The key it is about; empty in PING.
    pub key: &'a [u8],
    /// The record, in PUT_VALUE and in answers to GET_VALUE.
    pub record: Option<Record<'a>>,
    /// The coral cluster level; nobody uses it, it is kept for those who ask.
    pub level: i32,
    /// Peers closer to the key.
    pub closer: Peers<'a>,
    /// Peers that provide the key.
    pub providers: Peers<'a>,
}

impl<'a> Message<'a> {
    /// Reads one message without its length. Fields that no version knows are skipped; of a field that is there
    /// twice the last counts. O(bytes), allocates nothing.
    ///
    /// # Errors
    /// [`DecodeError`] at the first byte that breaks the protocol or a limit.
    pub fn decode(bytes: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(DecodeError::TooLong { bytes: bytes.len() });
        }
        let (mut kind, mut key, mut record, mut level) = (0, &bytes[..0], None, 0);
        let (mut closer, mut providers) = (0, 0);
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = field::next(&mut reader)? {
            match number {
                // Enumerations and int32 are the low 32 bits of their varint.
                TYPE => kind = value.number()? & u64::from(u32::MAX),
                KEY => key = key_of(value)?,
                RECORD if record.is_some() => return Err(DecodeError::Records),
                RECORD => record = Some(read_record(value.bytes()?)?),
                CLOSER => count(&mut closer, value.bytes()?)?,
                PROVIDERS => count(&mut providers, value.bytes()?)?,
                LEVEL => level = value.number()? as i32,
                _ => {}
            }
        }
        let kind = Kind::new(kind).ok_or(DecodeError::Kind { number: kind })?;
        let peers = |field, left| Peers { rest: Reader::new(bytes), field, left };
        let (closer, providers) = (peers(CLOSER, closer), peers(PROVIDERS, providers));
        Ok(Message { kind, key, record, level, closer, providers })
    }
}

fn key_of(value: Value<'_>) -> Result<&[u8], DecodeError> {
    let key = value.bytes()?;
    if key.len() > KEY_BYTES_MAX {
        return Err(DecodeError::Key { bytes: key.len() });
    }
    Ok(key)
}

fn read_record(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    let mut record = Record::default();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = field::next(&mut reader)? {
        match number {
            1 => record.key = key_of(value)?,
            2 => record.value = value.bytes()?,
            5 => record.received = value.bytes()?,
            666 => record.publisher = value.bytes()?,
            777 => record.ttl = value.number()? as u32,
            _ => {}
        }
    }
    match record.publisher.len() {
        0..=PEER_ID_BYTES_MAX => Ok(record),
        bytes => Err(DecodeError::PeerId { bytes }),
    }
}

/// Checks one more peer of a list.
fn count(peers: &mut usize, bytes: &[u8]) -> Result<(), DecodeError> {
    if *peers == PEERS_MAX {
        return Err(DecodeError::Peers);
    }
    *peers += 1;
    let peer = Peer::read(bytes)?;
    match peer.id.len() {
        1..=PEER_ID_BYTES_MAX => Ok(()),
        bytes => Err(DecodeError::PeerId { bytes }),
    }
}

/// A peer that a message tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer<'a> {
    /// Its id, 1 to [`PEER_ID_BYTES_MAX`] bytes.
    pub id: &'a [u8],
    /// How the sender is connected to it.
    pub connection: Connection,
    addresses: &'a [u8],
}

impl<'a> Peer<'a> {
    fn read(bytes: &'a [u8]) -> Result<Peer<'a>, DecodeError> {
        let mut peer = Peer { id: &bytes[..0], connection: Connection::No, addresses: bytes };
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = field::next(&mut reader)? {
            match number {
                1 => peer.id = value.bytes()?,
                2 => drop(value.bytes()?),
                3 => peer.connection = Connection::new(value.number()?),
                _ => {}
            }
        }
        Ok(peer)
    }

    /// Its addresses in binary multiaddr form: the first [`ADDRESSES_MAX`] that have at most
    /// [`ADDRESS_BYTES_MAX`] bytes. A peer with more is honest, so the rest is left out and the message kept.
    pub const fn addresses(&self) -> Addresses<'a> {
        Addresses { rest: Reader::new(self.addresses), left: ADDRESSES_MAX }
    }
}

/// The peers of one list, in the sender's order. At most [`PEERS_MAX`].
#[derive(Clone, Copy, Debug)]
pub struct Peers<'a> {
    rest: Reader<'a>,
    field: u32,
    left: usize,
}

impl PartialEq for Peers<'_> {
    /// The same peers in the same order.
    fn eq(&self, other: &Self) -> bool {
        Iterator::eq(*self, *other)
    }
}

impl Eq for Peers<'_> {}

impl<'a> Iterator for Peers<'a> {
    type Item = Peer<'a>;

    fn next(&mut self) -> Option<Peer<'a>> {
        while self.left > 0 {
            let (number, value) = field::next(&mut self.rest).ok()??;
            if let (true, Value::Bytes(bytes)) = (number == self.field, value) {
                self.left -= 1;
                return Peer::read(bytes).ok();
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Peers<'_> {}

/// A peer's addresses. At most [`ADDRESSES_MAX`].
#[derive(Clone, Copy, Debug)]
pub struct Addresses<'a> {
    rest: Reader<'a>,
    left: usize,
}

impl<'a> Iterator for Addresses<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while self.left > 0 {
            let (number, value) = field::next(&mut self.rest).ok()??;
            match value {
                Value::Bytes(address) if number == 2 && address.len() <= ADDRESS_BYTES_MAX => {
                    self.left -= 1;
                    return Some(address);
                }
                Value::Bytes(_) | Value::Number(_) | Value::Fixed => {}
            }
        }
        None
    }
}
