//! The links between the members of a cluster: frames on TCP and TLS 1.3, both ends proven by their node keys.
//!
//! Two connections join two members: [`Lane::Control`] for what must be quick, [`Lane::Bulk`] for what is large, so
//! that a snapshot never stands before a heartbeat. Within a turn frames are queued; at its end each
//! connection is written once. Frames of one lane arrive in order and at most once; what was under way when a link
//! broke is lost, and the break is told. See `docs/decisions/0005` for the keys and the TLS.

pub mod door;
pub mod frame;
pub mod members;
pub mod redial;
pub mod settle;
pub mod stall;

mod answer;
mod cause;
mod connection;
mod event;
mod greeting;
mod links;
mod meters;
mod port;
mod read;
mod standalone;
mod tls;

pub use cause::Cause;
pub use event::{Event, JoinId, SendError};
pub use links::{Links, Settings, TokenRange};
pub use members::Members;
pub use meters::LinkMeters;
pub use standalone::Standalone;

/// One of the two connections between two members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Small frames that must not wait: consensus, liveness, forwarded commands.
    Control,
    /// Large frames that can: snapshots, moves of partitions.
    Bulk,
}

impl Lane {
    /// Both.
    pub const ALL: [Lane; 2] = [Lane::Control, Lane::Bulk];

    /// Longest payload of a frame, in bytes.
    #[must_use]
    pub const fn frame_bytes_max(self) -> usize {
        match self {
            Lane::Control => 4 * 1024 * 1024,
            Lane::Bulk => 16 * 1024 * 1024,
        }
    }

    /// Bytes of frames that may wait for one peer. A frame that does not fit is refused, and the sender waits.
    #[must_use]
    pub const fn queue_bytes_max(self) -> usize {
        match self {
            Lane::Control => 8 * 1024 * 1024,
            Lane::Bulk => 32 * 1024 * 1024,
        }
    }

    /// Bytes that one connection may write in one turn, and about as many it may read: the others' turn comes.
    #[must_use]
    pub const fn turn_bytes_max(self) -> usize {
        match self {
            Lane::Control => 1024 * 1024,
            Lane::Bulk => 256 * 1024,
        }
    }

    const fn index(self) -> usize {
        match self {
            Lane::Control => 0,
            Lane::Bulk => 1,
        }
    }
}
