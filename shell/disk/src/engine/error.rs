//! What can go wrong in the engine, grouped by who must act.

use std::fmt;
use std::path::PathBuf;

use kernel::{GroupId, Index};
use thiserror::Error;

/// Why the engine did not do what it was asked.
///
/// The caller's faults leave the engine as it was. After [`EngineError::DiskFull`], [`EngineError::Io`] or
/// [`EngineError::Poisoned`] from a commit, no commit is taken until [`super::Engine::reopen`]; reads go on.
#[derive(Debug, Error)]
pub enum EngineError {
    // The caller's.
    /// A key, head, body, state or whole commit is above its limit.
    #[error("{what} of {bytes} bytes is above the limit of {limit}")]
    TooLarge {
        /// Which part it is: "a key", "a head", …
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// Two changes of one commit name the same key.
    #[error("two changes of one commit name {0}")]
    Repeated(Place),
    /// The new mark lies before the committed one.
    #[error(
        "group {group} is at index {committed} of generation {committed_generation}, \
         not before {index} of generation {generation}"
    )]
    Backwards {
        /// The group.
        group: GroupId,
        /// Its committed index.
        committed: Index,
        /// Its committed generation.
        committed_generation: u32,
        /// The index of the refused mark.
        index: Index,
        /// The generation of the refused mark.
        generation: u32,
    },
    /// The mark's `objects` is not what the changes make of the committed state.
    #[error("the mark of group {group} counts {claimed} objects, the changes make {actual}")]
    Miscounted {
        /// The group.
        group: GroupId,
        /// The mark's figure.
        claimed: u64,
        /// What committed objects and changes add up to.
        actual: u64,
    },
    /// The group has no mark.
    #[error("group {0} has no checkpoint")]
    NoSuchGroup(GroupId),
    /// No such cut is held, or none with such a place: it is to be made anew.
    #[error("group {group} has no snapshot {generation} to be read there")]
    NoSuchCut {
        /// The group.
        group: GroupId,
        /// The cut's generation.
        generation: u64,
    },
    /// The most are being read.
    #[error("{backups} backups are reading group {group}: wait until one of them is done")]
    CutsInUse {
        /// The group.
        group: GroupId,
        /// How many there may be.
        backups: usize,
    },
    /// What came is not the next part of the snapshot that is being staged, or that is not whole.
    #[error("the staged snapshot of group {group} is refused: {reason}")]
    Unstageable {
        /// The group.
        group: GroupId,
        /// What is wrong.
        reason: &'static str,
    },
    /// The options cannot be used.
    #[error("{what} must be at least {least}")]
    BadOption {
        /// The option.
        what: &'static str,
        /// The least value.
        least: u64,
    },

    // The world's.
    /// The disk has no room. Nothing was committed; reopen when there is room.
    #[error("the disk is full at {0}")]
    DiskFull(Place),
    /// The operating system refused a read, write or sync. A failed sync is final for the disk.
    #[error("{place}: {source}")]
    Io {
        /// What was read or written.
        place: Place,
        /// The refusal.
        source: std::io::Error,
    },
    /// Another process, or another engine of this one, has the directory.
    #[error("{0} is in use by another process")]
    Locked(Place),
    /// An earlier commit or background write failed; the engine must be reopened.
    #[error("an earlier write failed; the engine must be reopened")]
    Poisoned,
    /// What is on the disk is not what was written. It is never served; repair comes from replicas.
    #[error("corrupt data at {place}: {reason}")]
    Corrupt {
        /// What is damaged.
        place: Place,
        /// How it was seen.
        reason: String,
    },
}

/// Where in the engine something is. Keys are shown escaped and cut to 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The whole engine.
    Directory(PathBuf),
    /// The mark of a group.
    Mark(GroupId),
    /// Some object of a group.
    Group(GroupId),
    /// One object.
    Object {
        /// Its group.
        group: GroupId,
        /// Its key.
        key: Vec<u8>,
    },
    /// The object, unreadable, that follows a readable one.
    After {
        /// Its group.
        group: GroupId,
        /// The key before it.
        key: Vec<u8>,
    },
}

/// Longest part of a key that an error shows.
const SHOWN_BYTES_MAX: usize = 64;

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |key: &[u8]| {
            let cut = if key.len() > SHOWN_BYTES_MAX { "…" } else { "" };
            format!("\"{}{cut}\"", key[..key.len().min(SHOWN_BYTES_MAX)].escape_ascii())
        };
        match self {
            Place::Directory(path) => write!(f, "engine {}", path.display()),
            Place::Mark(group) => write!(f, "the mark of group {group}"),
            Place::Group(group) => write!(f, "group {group}"),
            Place::Object { group, key } => write!(f, "group {group} key {}", shown(key)),
            Place::After { group, key } => write!(f, "group {group} after key {}", shown(key)),
        }
    }
}

impl EngineError {
    /// Whether commits must stop until the engine is reopened: everything but the caller's faults.
    pub(super) fn poisons(&self) -> bool {
        match self {
            EngineError::TooLarge { .. }
            | EngineError::Repeated(_)
            | EngineError::Backwards { .. }
            | EngineError::Miscounted { .. }
            | EngineError::NoSuchGroup(_)
            | EngineError::NoSuchCut { .. }
            | EngineError::CutsInUse { .. }
            | EngineError::Unstageable { .. }
            | EngineError::BadOption { .. } => false,
            EngineError::DiskFull(_)
            | EngineError::Io { .. }
            | EngineError::Locked(_)
            | EngineError::Poisoned
            | EngineError::Corrupt { .. } => true,
        }
    }

    pub(super) fn corrupt(place: Place, reason: impl Into<String>) -> EngineError {
        EngineError::Corrupt { place, reason: reason.into() }
    }

    pub(super) fn io(place: Place, source: std::io::Error) -> EngineError {
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                EngineError::DiskFull(place)
            }
            // A missing file, or an offset or length that no file of ours has, is damage and not a refusal.
            std::io::ErrorKind::UnexpectedEof
            | std::io::ErrorKind::NotFound
            | std::io::ErrorKind::InvalidInput
            | std::io::ErrorKind::InvalidData => EngineError::corrupt(place, source.to_string()),
            _ => EngineError::Io { place, source },
        }
    }

    /// Sorts the storage engine's errors by who must act.
    pub(super) fn from_engine(place: Place, error: fjall::Error) -> EngineError {
        match error {
            fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => {
                EngineError::io(place, source)
            }
            fjall::Error::Poisoned => EngineError::Poisoned,
            fjall::Error::Locked => EngineError::Locked(place),
            // All that is left is a checksum, tag, length or version that does not hold.
            other => EngineError::corrupt(place, other.to_string()),
        }
    }
}
