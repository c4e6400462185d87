//! The store of one partition: typed values, expiry, and a deterministic `apply`.
//!
//! A command is a name with byte-string arguments (Redis's vocabulary); how it travels is the
//! gateway's business. The same handler runs on the leader, on a follower and in replay: time and
//! chance are inputs, so the same entries give the same state and the same replies.
#![no_std]
extern crate alloc;

pub mod apply;
pub mod command;
pub mod entry;
pub mod fault;
pub mod object;
pub mod reach;
mod recorded;
pub mod reply;
pub mod store;

pub use apply::{Access, Effects, Exec, Fetch, Origin, Script, Scripting};
pub use command::{Command, Flags, Keys, Kind, Registry};
pub use fault::Fault;
pub use object::Value;
pub use reply::{Reply, Silence};
pub use store::Store;
