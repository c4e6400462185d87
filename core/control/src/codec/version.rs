//! The first byte of requests, states and rosters: the version that wrote them.

use kernel::codec::DecodeError;
use kernel::{Spoken, Version};

/// The byte of the first format: of version 2, and of all that has not changed since. Later ones are their version.
pub const FORMAT: u8 = 1;

/// The first byte of what is written in `version`.
pub(super) const fn byte(version: Version) -> u8 {
    if version.0 <= 2 { FORMAT } else { version.0 }
}

/// The version that wrote a request or a state, from its first byte, whether it is known here or not; `None` if no
/// version writes such.
#[must_use]
pub const fn version_of(bytes: &[u8]) -> Option<Version> {
    match bytes {
        [FORMAT, ..] => Some(Version(2)),
        [0 | 2, ..] | [] => None,
        [later, ..] => Some(Version(*later)),
    }
}

/// The version that wrote the state in `bytes`, if it is one that is spoken here.
pub(super) fn known(bytes: &[u8]) -> Result<Version, DecodeError> {
    version_of(bytes).filter(|version| Spoken::ALL.knows(*version)).ok_or(DecodeError::Invalid)
}
