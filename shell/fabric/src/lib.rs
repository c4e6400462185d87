//! What joins nodes: the node's key, the links between a cluster's members, the token a newcomer joins with, and the
//! overlay of peers that do not know each other.
//!
//! What decides (frames, admission, back-off, the settling of dials, deadlines, tokens) is a machine or a function
//! without sockets; `link` moves bytes for them on an event loop that it is given.

pub mod identity;
pub mod join;
pub mod link;
pub mod overlay;

pub use identity::{Identity, IdentityError};
