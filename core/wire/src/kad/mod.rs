//! Kademlia's messages as libp2p speaks them: `/ipfs/kad/1.0.0`.
//!
//! Specification: <https://github.com/libp2p/specs/blob/master/kad-dht/README.md> (proto3), with the two fields of
//! records that rust-libp2p adds (`publisher`, `ttl`). The codec is written by hand: a message is checked once from
//! its first to its last byte and then read where it lies, so that no input decides how much memory is taken.
//!
//! What it does not do: give a meaning to keys, peers or addresses; all of them are bytes here.

mod decode;
mod encode;
mod field;
mod frame;

pub use decode::{Addresses, DecodeError, Message, Peer, Peers};
pub use encode::{EncodeError, Listed, Outgoing, PeerOut};
pub use frame::{FrameError, put_frame, take_frame};

/// The protocol's name, as it is negotiated.
pub const PROTOCOL: &str = "/ipfs/kad/1.0.0";

/// Longest message, in bytes, without the length before it.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Most closer peers of a message, and most provider peers.
pub const PEERS_MAX: usize = 20;
/// Most addresses of a peer; those behind them are not looked at.
pub const ADDRESSES_MAX: usize = 16;
/// Longest address, in bytes; longer ones are skipped.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Longest peer id, in bytes: a multihash of 64 bytes with room for its prefix.
pub const PEER_ID_BYTES_MAX: usize = 80;
/// Longest key of a request or record, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// What a message asks for; an answer has the kind of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Store the record. As proto3's default it is not on the wire at all.
    #[default]
    PutValue = 0,
    /// Tell the record of a key, and closer peers.
    GetValue = 1,
    /// The sender provides the key.
    AddProvider = 2,
    /// Tell who provides the key, and closer peers.
    GetProviders = 3,
    /// Tell the closest peers.
    FindNode = 4,
    /// Deprecated; ping has a protocol of its own.
    Ping = 5,
}

impl Kind {
    const fn new(number: u64) -> Option<Kind> {
        Some(match number {
            0 => Kind::PutValue,
            1 => Kind::GetValue,
            2 => Kind::AddProvider,
            3 => Kind::GetProviders,
            4 => Kind::FindNode,
            5 => Kind::Ping,
            _ => return None,
        })
    }
}

/// How the sender is connected to a peer that it tells of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// Not connected; also what a value stands for that we do not know.
    #[default]
    No = 0,
    /// Connected now.
    Yes = 1,
    /// Was connected lately.
    Can = 2,
    /// Tried and failed.
    Cannot = 3,
}

impl Connection {
    const fn new(number: u64) -> Connection {
        match number {
            1 => Connection::Yes,
            2 => Connection::Can,
            3 => Connection::Cannot,
            _ => Connection::No,
        }
    }
}

/// A record as it travels. What is empty or 0 is not on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value; who may write it and which value is newer is the key's namespace's affair.
    pub value: &'a [u8],
    /// When the sender got it: RFC 3339 as the sender writes it, not checked here.
    pub received: &'a [u8],
    /// The peer that first stored it; rust-libp2p's field 666.
    pub publisher: &'a [u8],
    /// Seconds it has left to live, 0 if not told; rust-libp2p's field 777.
    pub ttl: u32,
}

#[cfg(test)]
mod tests;
