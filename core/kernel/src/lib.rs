//! The shared words of Archipel: identifiers, time, seeded chance, limits, the byte codec and Base58.
//!
//! Nothing here can reach a clock, a socket, a thread or unseeded chance.
#![no_std]
extern crate alloc;

pub mod base58;
pub mod chance;
pub mod codec;
pub mod hash;
pub mod id;
pub mod limit;
pub mod machine;
pub mod peer_id;
pub mod planted;
pub mod time;
pub mod version;

pub use chance::Rng;
pub use id::{ClusterId, ConnId, GroupId, Index, KeyspaceId, Lsn, NodeId, Term, TokenId, WorkerId};
pub use machine::Machine;
pub use peer_id::PeerId;
pub use time::{Micros, Millis};
pub use version::{Foreign, Spoken, Version};
