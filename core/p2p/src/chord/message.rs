//! What nodes of the ring tell each other, and what their owners want and hear.

use alloc::sync::Arc;
use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::key::Key;

/// Most contacts in one answer to a lookup.
pub const NEAR_MAX: usize = 8;
/// Most successors in one answer about neighbours.
pub const RING_MAX: usize = super::SUCCESSORS_MAX as usize;

/// A value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where it belongs.
    pub key: Key,
    /// The larger version stays.
    pub version: u64,
    /// At most `VALUE_BYTES_MAX`.
    pub value: Arc<[u8]>,
}

/// How much of what a node knows about a point it has told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// So many of the nodes before the point.
    pub before: u8,
    /// So many of those at or after it.
    pub owners: u8,
}

/// What a node keeps between two points, in brief: who keeps the same has the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// How many values.
    pub count: u32,
    /// Their places and versions, mixed into one number. It finds what was lost, not what was forged.
    pub mix: u64,
}

/// Nodes on the way to a point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Near<C> {
    /// First the nodes before the point, nearest to it first; then those at or after it, nearest first.
    pub nodes: SmallVec<[C; NEAR_MAX]>,
    /// How many of the nodes are at or after the point: the first of them that lives owns it.
    pub owners: u8,
    /// The answerer knows more than it told.
    pub more: bool,
}

/// What nodes of the ring send each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<C> {
    /// Who is nearer to the point?
    Find {
        /// The point.
        point: u64,
        /// What the asker has from this node already, to be left out.
        told: Told,
    },
    /// Do you own this point?
    Own {
        /// The point.
        point: u64,
    },
    /// Who is before you, who after?
    Neighbours,
    /// Do you live?
    Alive,
    /// Keep this as its owner.
    Put(Item),
    /// What do you keep there?
    Get(Key),
    /// Keep these, as a successor or as their new owner.
    Copies(Vec<Item>),
    /// Do you keep what I own, behind this point and up to mine? Answered by `Yes`, or by `Differs`.
    Check {
        /// Who is before me stands here.
        after: u64,
        /// What I keep of my own.
        digest: Digest,
    },
    /// To `Find` or `Own`: the point is mine.
    Mine,
    /// To `Own`: it is not mine.
    NotMine {
        /// Who is before me.
        predecessor: Option<C>,
    },
    /// To `Find`.
    Near(Near<C>),
    /// To `Neighbours`.
    Ring {
        /// Who is before me.
        predecessor: Option<C>,
        /// Who is after me.
        successors: Vec<C>,
    },
    /// To `Check`: not the same. What I keep there is on its way to you, unless it was when we both kept what we keep now.
    Differs {
        /// What I keep there; `None` if I have not looked.
        digest: Option<Digest>,
    },
    /// To `Alive`, and to `Check` if it is the same.
    Yes,
    /// To anything: I am no member of the ring.
    Outside,
    /// To `Put`: how many nodes keep it now, as far as is known; to `Copies`: how many of them are kept now.
    Stored(u32),
    /// To `Get`.
    Value(Option<Item>),
    /// Told: I may be your predecessor.
    Notify,
    /// Told: I leave the ring now.
    Leaving,
    /// Told: I keep something that is yours; ask me by `Check` whether you have it.
    Offer,
    /// Told: this one may be of another ring than you; compare.
    Meet(C),
}

/// The owner's own name for a command, given back with its outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// What the owner of a node can want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<C> {
    /// Begin a ring.
    Create,
    /// Enter the ring of this node.
    Join {
        /// A member.
        seed: C,
    },
    /// This node speaks the protocol: it may be of another ring, which is to be one with ours then.
    Meet {
        /// The other node.
        peer: C,
    },
    /// Hand the values over and go.
    Leave,
    /// Who owns this key?
    Find {
        /// The command's name.
        tag: Tag,
        /// The key.
        key: Key,
    },
    /// Keep a value.
    Put {
        /// The command's name.
        tag: Tag,
        /// The value.
        item: Item,
    },
    /// Look a value up.
    Get {
        /// The command's name.
        tag: Tag,
        /// Its key.
        key: Key,
    },
}

/// What the owner of a node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<C> {
    /// It is a member now; or it was one, alone, and is so no more.
    Joined,
    /// Two rings met here: we are on both, and they become one.
    United,
    /// Another member stands at our point.
    PointTaken,
    /// The way in was not found, for the last time.
    JoinFailed,
    /// It left.
    Left,
    /// Every node it knew is gone. It goes on as a ring of one, and compares with whom it met and lost.
    CutOff,
    /// A lookup ended.
    Found {
        /// The command's name.
        tag: Tag,
        /// Who owns the key.
        owner: C,
        /// How many nodes the question passed, the owner included; 0 if we own it.
        hops: u8,
        /// Requests without an answer on the way.
        timeouts: u16,
    },
    /// Nobody on the way knew further.
    NotFound {
        /// The command's name.
        tag: Tag,
    },
    /// The value is at its owner and at so many of its successors that they are most of those that are to keep it.
    Stored {
        /// The command's name.
        tag: Tag,
        /// How many nodes keep it, as far as the owner knew when it said so.
        nodes: u32,
    },
    /// The owner has no room, or those that are to have copies have none or do not answer.
    Full {
        /// The command's name.
        tag: Tag,
    },
    /// The value is too large.
    TooLarge {
        /// The command's name.
        tag: Tag,
    },
    /// What is kept there, if anything.
    Value {
        /// The command's name.
        tag: Tag,
        /// The value.
        item: Option<Item>,
    },
}
