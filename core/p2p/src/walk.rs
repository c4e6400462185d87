//! Random walks: search without flooding, and samples of the nodes (Lv, Cao, Cohen, Li & Shenker 2002).
//!
//! A search sends `k` walkers that go from neighbour to drawn neighbour until one stands where the key is held. Every
//! few steps a walker's node *checks* with the origin whether the walk goes on, so that the others end soon after the
//! first has found something. A sample is where one walker stands at its end: drawn evenly from all nodes if it refuses
//! steps towards nodes with more neighbours as Metropolis and Hastings say, or by degree if it does not.
//!
//! The proposed node judges a Metropolis–Hastings step and sends the walker back if it refuses: so no node keeps its
//! neighbours' degrees, and none can be out of date. Steps that were refused count.
//!
//! Limits: a walker that is not checked for [`STRIDE_MAX`] steps ends, so what a stranger can cause with one message is
//! that many messages and one question to whom it names as origin, who knows of no such walk. A lost walker is lost; the
//! walk ends by its deadline at the latest. Whoever a walker meets may lie about it: what was found is to be fetched from
//! its holder, and a sample is as good as the nodes that the walkers passed.

mod codec;
mod machine;
mod message;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use kernel::{Micros, Rng};

use crate::key::Key;
use crate::pending::Pending;
use crate::protocol::Contact;
pub use codec::PROTOCOL;
pub use message::{Command, Drawn, Errand, Message, Outcome, Tag, Turn, WalkId, Walker};

/// Most neighbours of one node.
pub const NEIGHBOURS_MAX: usize = 64;
/// Most keys that a node holds.
pub const HELD_MAX: usize = 4096;
/// Most walkers of one walk.
pub const WALKERS_MAX: u8 = 64;
/// Most steps of one walker.
pub const STEPS_MAX: u16 = 4096;
/// Most steps between two checks.
pub const STRIDE_MAX: u8 = 64;
/// Most walks of one node at once.
pub const WALKS_MAX: usize = 64;
/// How long a step may take, in microseconds: a walk ends when its steps and checks should all have.
pub const STEP_MICROS_MAX: u64 = 500_000;

/// A walk of ours.
#[derive(Clone, Debug)]
struct Walk<C> {
    id: WalkId,
    tag: Tag,
    /// True while it wants to go on: a search that has found something does not.
    open: bool,
    /// Walkers whose end we have not heard of.
    out: u8,
    /// Where walkers of a sample have ended.
    sample: Vec<C>,
    until: Micros,
    /// It searches, and does not sample.
    search: bool,
}

/// A walker that waits for its origin's word.
#[derive(Clone, Copy, Debug)]
struct Waiting<C> {
    walker: Walker<C>,
    /// Where it came from, so that it does not turn back.
    from: Option<C>,
}

/// One node of an overlay in which walkers walk.
#[derive(Clone, Debug)]
pub struct Walks<C> {
    me: C,
    neighbours: Vec<C>,
    held: BTreeSet<Key>,
    walks: Vec<Walk<C>>,
    waiting: Pending<C, Waiting<C>>,
    rng: Rng,
}

impl<C: Contact> Walks<C> {
    /// A node with these neighbours, the first [`NEIGHBOURS_MAX`] of them. `me` is its own handle.
    #[must_use]
    pub fn new(me: C, mut neighbours: Vec<C>, mut rng: Rng) -> Walks<C> {
        neighbours.truncate(NEIGHBOURS_MAX);
        let waiting = Pending::new(&mut rng);
        Walks { me, neighbours, held: BTreeSet::new(), walks: Vec::new(), waiting, rng }
    }

    /// Its neighbours.
    #[must_use]
    pub fn neighbours(&self) -> &[C] {
        &self.neighbours
    }

    /// From now on walkers that look for `key` find it here; false if [`HELD_MAX`] keys are held already.
    pub fn hold(&mut self, key: Key) -> bool {
        let room = self.held.len() < HELD_MAX || self.held.contains(&key);
        if room {
            self.held.insert(key);
        }
        room
    }

    /// Is `key` held here?
    #[must_use]
    pub fn holds(&self, key: Key) -> bool {
        self.held.contains(&key)
    }

    /// Calls `hold` with every handle that the node may still name. O(all of them).
    pub fn held(&self, hold: &mut impl FnMut(C)) {
        hold(self.me);
        self.neighbours.iter().copied().for_each(&mut *hold);
        for (to, waiting) in self.waiting.iter() {
            [Some(to), Some(waiting.walker.origin), waiting.from].into_iter().flatten().for_each(&mut *hold);
        }
        self.walks.iter().flat_map(|walk| walk.sample.iter().copied()).for_each(hold);
    }
}

#[cfg(test)]
mod tests;
