//! What joins nodes to a cluster: the node's key, the links between members, and the token a newcomer joins with.
//!
//! What decides (frames, admission, back-off, the settling of dials, deadlines, tokens) is a machine or a function
//! without sockets; `link` moves bytes for them on an event loop that it is given.

pub mod identity;
pub mod join;
pub mod link;

pub use identity::{Identity, IdentityError};
