//! The node's one log as a machine: what its bytes mean, where the next ones go, what a crash left.
//!
//! Every group, stream and queue of a node shares this log, so that one `fdatasync` serves them all.
//! Nothing here touches a file: [`Commit`] says what to write and what to sync, [`Recover`] is fed
//! segments and judges them, and the host (a disk, or the simulator) moves the bytes.
#![no_std]
extern crate alloc;

pub mod commit;
pub mod ledger;
pub mod passage;
pub mod record;
pub mod recover;
pub mod reserve;
pub mod truncate;

pub use commit::{Commit, Durability, Refused};
pub use ledger::Ledger;
pub use passage::{Cursor, Passage};
pub use record::{Entry, HardState, Record, Salt, SegmentId};
pub use recover::{Recover, Recovered, Refusal};
pub use reserve::{Keeper, Positions};
pub use truncate::Truncate;
