//! Agreement in groups, behind one trait: who may propose, and what is committed.
//!
//! [`Solo`] is a group of one and commits what its own disk has. [`Replica`] is one of several: Raft (Ongaro &
//! Ousterhout 2014, Ongaro's dissertation for what is beyond the paper), with the crate `raft` inside as a
//! deterministic engine. This crate alone names that engine; decision 0007 says what it is trusted with and what not.
//!
//! A replica is a machine: bytes of peers, time and chance come in, records for the node's one log, messages and
//! committed entries come out. It never reads a clock, never parses a peer's bytes with the engine's codec, and checks
//! every message against the engine's panics before the engine sees it.

pub mod codec;
mod entry;
pub mod group;
mod log;
pub mod members;
pub mod replay;
mod solo;

pub use entry::{Body, Logged};
pub use group::{Config, Replica};
pub use members::{Change, Incarnation, Mark, Members, ReplicaId, Role};
pub use solo::Solo;

use kernel::{Index, Lsn, Micros, Term};

/// When an entry counts as committed on this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it is synced to disk: an acknowledged write survives power loss.
    Always,
    /// When the operating system has it; synced within a second. Redis's `everysec`.
    EverySec,
}

/// A proposal that the node's log has taken: what followers are told.
#[derive(Clone, Copy, Debug)]
pub struct Proposed<'a> {
    /// The index that [`Group::propose`] gave.
    pub index: Index,
    /// The version of `apply` that it is meant for; not 0, which marks a group's own entries.
    pub semantics: u16,
    /// The group's time when it was proposed.
    pub time: Micros,
    /// Opaque here.
    pub body: &'a [u8],
}

/// One replica's view of a group.
///
/// In a turn: [`Group::propose`] at most once, then the append to the node's log, then [`Group::written`] or
/// [`Group::withdraw`], with nothing else in between.
pub trait Group {
    /// The term and index of the next entry, if this replica may propose.
    fn propose(&mut self) -> Option<(Term, Index)>;
    /// The entry just proposed was refused by the disk and is nowhere; its index is free again.
    fn withdraw(&mut self, index: Index);
    /// The entry just proposed is in the operating system and ends at `end` in the node's log; it goes to the followers.
    fn written(&mut self, proposed: &Proposed<'_>, end: Lsn);
    /// The node's log is synced up to `lsn`.
    fn synced(&mut self, lsn: Lsn);
    /// The last index that is as durable as promised.
    fn committed(&self) -> Index;
    /// The durability it promises.
    fn durability(&self) -> Durability;
}
