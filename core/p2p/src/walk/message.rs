//! What walkers carry, what nodes tell each other about them, and what their owners want and hear.

use alloc::vec::Vec;

use crate::key::Key;

/// Names a walk of one node: 64 bits that it drew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalkId(pub u64);

/// The owner's own name for a command, given back with its outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// Where a searching walker may turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// To any neighbour, back too: the walk of the theorems. In a random `d`-regular graph it sees `(d−2)/(d−1)` new
    /// nodes a step.
    Any,
    /// Not back where it came from, unless there is nowhere else: it sees nearly one new node a step (Alon, Benjamini,
    /// Lubetzky & Sodin 2007).
    Onward,
}

/// How a sample is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawn {
    /// Each node as likely as any other: Metropolis–Hastings.
    Evenly,
    /// Each node by its number of neighbours: the plain walk.
    ByDegree,
}

/// What a walker is out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// A node that holds the key.
    Search {
        /// The key.
        key: Key,
        /// Where it may turn.
        turn: Turn,
    },
    /// The node at its end.
    Sample {
        /// How steps are refused.
        drawn: Drawn,
        /// How many neighbours the node has that it comes from.
        degree: u8,
    },
}

/// A walker, as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walker<C> {
    /// Which walk of its origin's.
    pub walk: WalkId,
    /// Who wants it.
    pub origin: C,
    /// Steps it may still take, this one not counted.
    pub left: u16,
    /// Steps it has taken, this one included.
    pub hops: u16,
    /// Steps between two checks.
    pub stride: u8,
    /// Steps until the next check, this one not counted.
    pub free: u8,
    /// What for.
    pub errand: Errand,
}

/// What nodes tell each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<C> {
    /// Told: a walker takes a step to you.
    Step(Walker<C>),
    /// Told: the step that you proposed is refused, and the walker stays with you.
    Stay(Walker<C>),
    /// Asked: does this walk of yours go on?
    Check(WalkId),
    /// To `Check`.
    Goes(bool),
    /// Told: a walker of yours has ended here, where what it searched is held, or as a sample.
    Here {
        /// Which walk.
        walk: WalkId,
        /// After so many steps.
        hops: u16,
    },
    /// Told: a searching walker of yours has ended here with nothing.
    Nothing(WalkId),
}

/// What the owner of a node can want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<C> {
    /// Who holds this key?
    Search {
        /// The command's name.
        tag: Tag,
        /// The key.
        key: Key,
        /// So many walkers, 1 to [`WALKERS_MAX`](super::WALKERS_MAX).
        walkers: u8,
        /// So many steps each, 1 to [`STEPS_MAX`](super::STEPS_MAX).
        steps: u16,
        /// So many steps between two checks, 1 to [`STRIDE_MAX`](super::STRIDE_MAX).
        stride: u8,
        /// Where they may turn.
        turn: Turn,
    },
    /// Any nodes, drawn.
    Sample {
        /// The command's name.
        tag: Tag,
        /// So many, 1 to [`WALKERS_MAX`](super::WALKERS_MAX): one walker each.
        count: u8,
        /// So many steps each, 1 to [`STEPS_MAX`](super::STEPS_MAX): enough to forget where they began.
        steps: u16,
        /// How.
        drawn: Drawn,
    },
    /// Be found with this key.
    Hold(Key),
    /// Take a neighbour.
    Connect(C),
    /// Leave a neighbour.
    Disconnect(C),
}

/// What the owner of a node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<C> {
    /// A search ended: who was found first, and after how many steps; 0 if we hold it ourselves.
    Found {
        /// The command's name.
        tag: Tag,
        /// Who holds it.
        holder: C,
        /// Steps of the walker that found it.
        hops: u16,
    },
    /// A search ended with nothing.
    NotFound {
        /// The command's name.
        tag: Tag,
    },
    /// A sample ended. Some walkers may have been lost.
    Sampled {
        /// The command's name.
        tag: Tag,
        /// Where walkers ended.
        nodes: Vec<C>,
    },
    /// A number is out of its range, or there are [`WALKS_MAX`](super::WALKS_MAX) walks.
    Refused {
        /// The command's name; that of no command for neighbours and keys.
        tag: Tag,
    },
}
