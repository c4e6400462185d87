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
    /// The upper 16 bits are the worker that owns it, the lower 48 count upwards.
    ConnId(u64)
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
    /// The `count`-th connection of `worker`.
    #[must_use]
    pub const fn new(worker: WorkerId, count: u64) -> ConnId {
        ConnId((worker.0 as u64) << 48 | count & 0xFFFF_FFFF_FFFF)
    }

    /// The worker whose socket it is.
    #[must_use]
    pub const fn worker(self) -> WorkerId {
        WorkerId((self.0 >> 48) as u16)
    }
}

impl Index {
    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Index {
        Index(self.0 + 1)
    }
}
