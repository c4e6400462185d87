//! What the cluster should be: members, keyspaces, who keeps which partition, users, what the proxies do; as a deterministic
//! state machine.
//!
//! The state is replicated by the control group. Each entry of that group is one [`Request`]; [`State::apply`] answers it,
//! the same on every replica. [`plan`] says what should be asked next, [`diff`] what one node has to do about a change.
//! The state leads and the groups follow: each state names the members that a group should have, and the plan goes on
//! when the host says that it has them.
#![no_std]
extern crate alloc;

mod apply;
pub mod codec;
pub mod diff;
pub mod mesh;
mod operation;
pub mod plan;
pub mod recover;
mod refused;
mod roster;
mod state;

pub use diff::{Diff, Duty, diff};
pub use mesh::{MeshSettings, Revision};
pub use operation::{Operation, OperationId, Request, Step};
pub use plan::View;
pub use refused::{Refused, Table};
pub use roster::{Newcomer, Roster, Welcome};
pub use state::{
    Audit, Digest, JoinSecret, Keyspace, Member, Mode, Move, Name, Outcome, Partition, ReadFrom, Reading,
    Replica, Rights, Settings, Standing, State, User,
};

pub use kernel::{ClusterId, TokenId};

use kernel::GroupId;

/// The group that replicates this state. No partition has this number: keyspaces have at most 16384 partitions.
pub const CONTROL: GroupId = GroupId(u32::MAX);
/// Members that were not removed.
pub const MEMBERS_MAX: usize = 1024;
/// Removed members that are remembered, so that none comes back.
pub const TOMBSTONES_MAX: usize = 16_384;
/// Addresses of one member.
pub const ADDRESSES_MAX: usize = 8;
/// Voters of the control group; the other members learn.
pub const VOTERS_MAX: usize = 5;
/// Join secrets, open or used; expired ones make room.
pub const SECRETS_MAX: usize = 256;
/// Keyspaces.
pub const KEYSPACES_MAX: usize = 1024;
/// Partitions of all keyspaces together.
pub const PARTITIONS_MAX: usize = 65_536;
/// Users.
pub const USERS_MAX: usize = 1024;
/// Keyspaces that one user's rights name.
pub const RIGHTS_KEYSPACES_MAX: usize = 64;
/// Requests that are remembered with their results: the audit trail, and what makes a retry harmless.
pub const AUDIT_MAX: usize = 1024;
/// Text of one line of the audit trail, in bytes; what is longer is cut.
pub const AUDIT_TEXT_BYTES_MAX: usize = 256;
/// A name of a zone, keyspace or user, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Moves of partitions that are under way at once. What they send is bounded by each node's own transfers. More would make
/// empty copies sooner, whose moves are mostly waiting for confirmations; but the leader's log keeps what follows each
/// snapshot that waits to be sent, so fewer are better where partitions are large.
pub const MOVES_MAX: usize = 16;
/// How far behind a copy that does not lead may be to answer reads, if nothing else is said, in milliseconds.
pub const STALE_MS_MAX: u32 = 10_000;
/// One encoded request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
