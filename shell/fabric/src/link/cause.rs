//! Why a connection ended, and whose fault that is.

use std::fmt;

use kernel::Spoken;

use super::door::Turned;
use super::frame::FrameError;
use super::stall::Stalled;

/// Why a connection ended or never began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was closed as it came: too many handshakes, or too fast.
    Turned(Turned),
    /// It proved a key that is no member's, or not the dialled node's.
    Stranger,
    /// It spoke something else than our TLS and ALPN.
    Garbage,
    /// It sent a frame that may not be.
    Frame(FrameError),
    /// It sent a frame that has no place there, or one whose payload cannot be read.
    Unexpected,
    /// It missed a deadline.
    Stalled(Stalled),
    /// It is no member any more.
    Removed,
    /// Another connection of the same two nodes took its place.
    Settled,
    /// The other end closed it, or the network did.
    Lost,
    /// A request to join was answered.
    Answered,
    /// This node has no room for a connection.
    NoRoom,
    /// This node closed it.
    Closed,
    /// The other end does not take this node's key: we are no member there.
    Refused,
    /// It speaks other versions than this node, or than their cluster is at.
    Version {
        /// What it speaks.
        theirs: Spoken,
        /// What this node speaks, and its cluster.
        ours: Spoken,
    },
}

impl Cause {
    /// Labels of the meters, in the order of [`Cause::index`].
    pub const LABELS: [&'static str; 14] = [
        "turned",
        "stranger",
        "garbage",
        "frame",
        "unexpected",
        "stalled",
        "removed",
        "settled",
        "lost",
        "answered",
        "no_room",
        "closed",
        "refused",
        "version",
    ];

    /// Its place among the meters.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Cause::Turned(_) => 0,
            Cause::Stranger => 1,
            Cause::Garbage => 2,
            Cause::Frame(_) => 3,
            Cause::Unexpected => 4,
            Cause::Stalled(_) => 5,
            Cause::Removed => 6,
            Cause::Settled => 7,
            Cause::Lost => 8,
            Cause::Answered => 9,
            Cause::NoRoom => 10,
            Cause::Closed => 11,
            Cause::Refused => 12,
            Cause::Version { .. } => 13,
        }
    }

    /// True if the other end did what no honest and living member does, so that the log should tell.
    #[must_use]
    pub const fn is_misdeed(self) -> bool {
        match self {
            Cause::Turned(_)
            | Cause::Stranger
            | Cause::Garbage
            | Cause::Frame(_)
            | Cause::Unexpected
            | Cause::Stalled(_)
            // No misdeed, and nothing that goes by: the operator must hear of it.
            | Cause::Version { .. } => true,
            Cause::Removed
            | Cause::Settled
            | Cause::Lost
            | Cause::Answered
            | Cause::NoRoom
            | Cause::Closed
            | Cause::Refused => false,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Turned(Turned::Full) => "there are too many handshakes",
            Cause::Turned(Turned::SourceFull) => "its source has too many handshakes",
            Cause::Turned(Turned::TooFast) => "its source begins handshakes too fast",
            Cause::Stranger => "its key is not a member's, or not the dialled node's",
            Cause::Garbage => "it does not speak the link protocol",
            Cause::Frame(error) => return error.fmt(f),
            Cause::Unexpected => "it sent a frame that has no place there",
            Cause::Stalled(Stalled::Handshake) => "it did not finish the handshake in time",
            Cause::Stalled(Stalled::Frame) => "it did not finish a frame in time",
            Cause::Stalled(Stalled::Write) => "it takes nothing of what waits for it",
            Cause::Stalled(Stalled::Silence) => "it says nothing",
            Cause::Stalled(Stalled::Join) => "its request to join was not answered in time",
            Cause::Removed => "it is no member any more",
            Cause::Settled => "another connection took its place",
            Cause::Lost => "it was closed by the other end or the network",
            Cause::Answered => "its request to join was answered",
            Cause::NoRoom => "there is no room for another connection",
            Cause::Closed => "this node closed it",
            Cause::Refused => "the other end does not take this node's key",
            Cause::Version { theirs, ours } => {
                return write!(
                    f,
                    "it speaks {theirs} of the formats, and this node {ours} in its cluster: members may be one version \
                     apart, so exchange the older one next"
                );
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_a_place_and_a_label_of_its_own() {
        let all = [
            Cause::Turned(Turned::Full),
            Cause::Stranger,
            Cause::Garbage,
            Cause::Frame(FrameError::UnknownKind(9)),
            Cause::Unexpected,
            Cause::Stalled(Stalled::Frame),
            Cause::Removed,
            Cause::Settled,
            Cause::Lost,
            Cause::Answered,
            Cause::NoRoom,
            Cause::Closed,
            Cause::Refused,
            Cause::Version { theirs: Spoken::ALL, ours: Spoken::ALL },
        ];
        for (at, cause) in all.into_iter().enumerate() {
            assert_eq!(cause.index(), at);
            assert!(!cause.to_string().is_empty());
        }
        assert_eq!(all.len(), Cause::LABELS.len());
    }
}
