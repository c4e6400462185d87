//! Identifiers: one type for each thing that must not be mixed with another.

use core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A consensus group. A partition of a keyspace is one group: `keyspace << 16 | partition`.
    GroupId(u32)
}
number! {
    /// A keyspace: Redis's logical database number, `SELECT n`.
    KeyspaceId(u16)
}
number! {
    /// A Raft term.
    Term(u64)
}
number! {
    /// A position in one group's log; the first entry has index 1, 0 means "before all entries".
    Index(u64)
}
number! {
    /// A byte position in the node's one log, growing for ever across segments.
    Lsn(u64)
}
number! {
    /// A worker of this node, counted from 0.
    WorkerId(u16)
}
number! {
    /// A client connection of this node: unique while the process lives, never reused.
    ///
    /// From above: the worker that owns it (16 bits), a generation (28), the worker's slot (20).
    ConnId(u64)
}

/// A node: its Ed25519 public key. The same key is its libp2p `PeerId` and its TLS key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

impl fmt::Display for NodeId {
    /// All 64 digits, hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    /// The first eight digits, which tell nodes apart in traces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A cluster: drawn when it is made, and never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    /// All 32 digits, hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which join token: derived from its secret, and says nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 8]);

impl fmt::Display for TokenId {
    /// All 16 digits, hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl GroupId {
    /// The group that keeps `partition` of `keyspace`.
    #[must_use]
    pub const fn new(keyspace: KeyspaceId, partition: u16) -> GroupId {
        GroupId((keyspace.0 as u32) << 16 | partition as u32)
    }

    /// The keyspace this group belongs to.
    #[must_use]
    pub const fn keyspace(self) -> KeyspaceId {
        KeyspaceId((self.0 >> 16) as u16)
    }

    /// The partition within the keyspace.
    #[must_use]
    pub const fn partition(self) -> u16 {
        self.0 as u16
    }
}

impl ConnId {
    /// Bits of the slot: a worker has at most 2^20 connections at once.
    pub const SLOT_BITS: u32 = 20;

    /// The connection in `slot` of `worker`; `generation` counts the slot's connections.
    #[must_use]
    pub const fn new(worker: WorkerId, generation: u64, slot: u32) -> ConnId {
        let low = generation << Self::SLOT_BITS | slot as u64 & ((1 << Self::SLOT_BITS) - 1);
        ConnId((worker.0 as u64) << 48 | low & 0xFFFF_FFFF_FFFF)
    }

    /// The worker whose socket it is.
    #[must_use]
    pub const fn worker(self) -> WorkerId {
        WorkerId((self.0 >> 48) as u16)
    }

    /// Its place among the worker's connections.
    #[inline]
    #[must_use]
    pub const fn slot(self) -> usize {
        (self.0 & ((1 << Self::SLOT_BITS) - 1)) as usize
    }
}

impl Index {
    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Index {
        Index(self.0 + 1)
    }
}
