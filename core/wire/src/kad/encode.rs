//! Messages to bytes, in the order of field numbers that other encoders write.

use super::decode::{CLOSER, PROVIDERS};
use super::field::{element_len, put_bytes, put_element, put_number, varint_len};
use super::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, Connection, KEY_BYTES_MAX, Kind, MESSAGE_BYTES_MAX, PEER_ID_BYTES_MAX,
    PEERS_MAX, Record,
};
use alloc::vec::Vec;
use kernel::codec::put_varint;
use thiserror::Error;

/// The caller's message cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The key alone is too long.
    #[error("a key of {bytes} bytes, where {KEY_BYTES_MAX} are the most")]
    Key {
        /// Its length.
        bytes: usize,
    },
    /// Key and record alone are longer than a message.
    #[error("a record of {bytes} bytes does not fit a message of {MESSAGE_BYTES_MAX}")]
    Record {
        /// What they would take.
        bytes: usize,
    },
}

/// A peer to tell of.
#[derive(Clone, Copy, Debug)]
pub struct PeerOut<'a, A> {
    /// Its id, 1 to [`PEER_ID_BYTES_MAX`] bytes; with another one it is left out.
    pub id: &'a [u8],
    /// Its addresses in binary multiaddr form, best first; those over the limits are left out.
    pub addresses: &'a [A],
    /// How we are connected to it.
    pub connection: Connection,
}

/// A message to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a, A> {
    /// What it asks for or answers.
    pub kind: Kind,
    /// The key it is about.
    pub key: &'a [u8],
    /// The record, in PUT_VALUE and in answers to GET_VALUE.
    pub record: Option<Record<'a>>,
    /// Peers closer to the key, the closest first.
    pub closer: &'a [PeerOut<'a, A>],
    /// Peers that provide the key.
    pub providers: &'a [PeerOut<'a, A>],
}

/// How many peers from the front of each list found room; those with an unsound id are among them, and left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Of the closer peers.
    pub closer: usize,
    /// Of the providers.
    pub providers: usize,
}

impl<A: AsRef<[u8]>> Outgoing<'_, A> {
    /// Appends the message without its length. Providers are written before there is room for closer peers, each
    /// list until the message is full or has [`PEERS_MAX`].
    ///
    /// # Errors
    /// [`EncodeError`] if key and record do not fit; nothing is appended.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<Listed, EncodeError> {
        if let Some(bytes) = [Some(self.key), self.record.map(|record| record.key)]
            .into_iter()
            .flatten()
            .map(<[u8]>::len)
            .find(|&bytes| bytes > KEY_BYTES_MAX)
        {
            return Err(EncodeError::Key { bytes });
        }
        let record = self.record.map(|record| (record, record_len(&record)));
        let fixed = 2 + element_len(2, self.key.len()) + record.map_or(0, |(_, len)| element_len(3, len));
        if fixed > MESSAGE_BYTES_MAX {
            return Err(EncodeError::Record { bytes: fixed });
        }
        let (providers, room) = fit(self.providers, MESSAGE_BYTES_MAX - fixed);
        let (closer, _) = fit(self.closer, room);
        put_number(out, 1, self.kind as u64);
        put_bytes(out, 2, self.key);
        if let Some((record, len)) = record {
            put_varint(out, 3 << 3 | 2);
            put_varint(out, len as u64);
            put_record(out, &record);
        }
        put_peers(out, CLOSER, &self.closer[..closer]);
        put_peers(out, PROVIDERS, &self.providers[..providers]);
        Ok(Listed { closer, providers })
    }
}

fn record_len(record: &Record<'_>) -> usize {
    let len = |field, bytes: &[u8]| if bytes.is_empty() { 0 } else { element_len(field, bytes.len()) };
    let ttl = if record.ttl == 0 { 0 } else { varint_len(777 << 3) + varint_len(u64::from(record.ttl)) };
    len(1, record.key) + len(2, record.value) + len(5, record.received) + len(666, record.publisher) + ttl
}

fn put_record(out: &mut Vec<u8>, record: &Record<'_>) {
    put_bytes(out, 1, record.key);
    put_bytes(out, 2, record.value);
    put_bytes(out, 5, record.received);
    put_bytes(out, 666, record.publisher);
    put_number(out, 777, u64::from(record.ttl));
}

/// How many peers from the front of the list fit `room` bytes, and the room behind them.
fn fit<A: AsRef<[u8]>>(peers: &[PeerOut<'_, A>], mut room: usize) -> (usize, usize) {
    let mut listed = 0;
    for peer in peers.iter().take(PEERS_MAX) {
        let len = if peer.sound() { element_len(CLOSER, peer.len()) } else { 0 };
        if len > room {
            break;
        }
        room -= len;
        listed += 1;
    }
    (listed, room)
}

fn put_peers<A: AsRef<[u8]>>(out: &mut Vec<u8>, field: u32, peers: &[PeerOut<'_, A>]) {
    for peer in peers.iter().filter(|peer| peer.sound()) {
        put_varint(out, u64::from(field << 3 | 2));
        put_varint(out, peer.len() as u64);
        put_bytes(out, 1, peer.id);
        peer.listed().for_each(|address| put_element(out, 2, address));
        put_number(out, 3, peer.connection as u64);
    }
}

impl<A: AsRef<[u8]>> PeerOut<'_, A> {
    fn sound(&self) -> bool {
        (1..=PEER_ID_BYTES_MAX).contains(&self.id.len())
    }

    fn listed(&self) -> impl Iterator<Item = &[u8]> {
        let within = |address: &&[u8]| address.len() <= ADDRESS_BYTES_MAX;
        self.addresses.iter().map(AsRef::as_ref).filter(within).take(ADDRESSES_MAX)
    }

    fn len(&self) -> usize {
        let connection = if self.connection == Connection::No { 0 } else { 2 };
        let addresses: usize = self.listed().map(|address| element_len(2, address.len())).sum();
        element_len(1, self.id.len()) + addresses + connection
    }
}
