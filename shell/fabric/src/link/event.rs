//! What the links tell their host besides frames, and why they refuse a frame.

use std::net::SocketAddr;

use kernel::{NodeId, Spoken};
use thiserror::Error;

use super::{Cause, Lane};
use crate::join::JoinRequest;

/// Why a frame is not sent. The caller still has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// There is no link to this node on this lane now.
    #[error("there is no link to the node now")]
    Down,
    /// Too many bytes wait; [`Event::Room`] tells when half of them are gone.
    #[error("{queued} bytes wait for the node already")]
    Full {
        /// How many.
        queued: usize,
    },
    /// No frame of this lane may be so large.
    #[error("a frame of {bytes} bytes, more than the {limit} of its lane")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The lane's limit.
        limit: usize,
    },
}

/// A request to join that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinId {
    pub(super) slot: usize,
    pub(super) serial: u64,
}

/// What happened to links, besides frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link came up. Frames queued before were lost, and none is on its way.
    Up {
        /// The other end.
        node: NodeId,
        /// The lane.
        lane: Lane,
        /// Which life of the other end.
        incarnation: u64,
        /// What it speaks.
        spoken: Spoken,
    },
    /// A link ended; what was queued or under way is lost.
    Down {
        /// The other end.
        node: NodeId,
        /// The lane.
        lane: Lane,
        /// Why.
        cause: Cause,
    },
    /// After [`SendError::Full`]: half of the queue is free.
    Room {
        /// The other end.
        node: NodeId,
        /// The lane.
        lane: Lane,
    },
    /// A node that is no member asks to become one; [`Links::answer`](super::Links::answer) is awaited.
    Joining {
        /// What the answer names.
        id: JoinId,
        /// The key that it has proven.
        node: NodeId,
        /// Where it comes from.
        address: SocketAddr,
        /// What it asks.
        request: JoinRequest,
        /// What its proof is over, for [`crate::join::Invitation::redeem`].
        binding: [u8; 32],
    },
    /// Our own request to join was answered.
    Joined {
        /// By this member.
        introducer: NodeId,
        /// The answer, as [`Links::answer`](super::Links::answer) was given it there.
        answer: Vec<u8>,
    },
    /// Our own request to join was not answered.
    JoinFailed {
        /// By this member.
        introducer: NodeId,
        /// The reason.
        cause: Cause,
    },
}
