//! What Kademlia's nodes say to each other, as values. Their bytes are the links' affair.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::Rng;
use smallvec::SmallVec;

use super::record::{Record, Refusal};
use crate::Key;

/// A list of contacts in an answer.
pub type Nodes<C> = SmallVec<[C; 20]>;

/// What a lookup is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its place.
    pub key: Key,
    /// The bytes whose SHA-256 the place is, where links carry names, as libp2p's do.
    pub name: Option<Arc<[u8]>>,
}

/// Most leading bits that a drawn name's place is made to share; one bit more doubles the work (2^18 SHA-256 are
/// some ten milliseconds).
pub const DRAWN_BITS_MAX: u32 = 18;

impl Target {
    /// The place of `name`.
    #[must_use]
    pub fn named(name: &[u8]) -> Target {
        Target { key: Key::of(name), name: Some(name.into()) }
    }

    /// A place whose first 64 bits are `point`, for links that carry keys.
    #[must_use]
    pub const fn at(point: u64) -> Target {
        Target { key: Key::from_words([point, 0, 0, 0]), name: None }
    }

    /// A name whose place shares the first `bits` bits of `point`, at most [`DRAWN_BITS_MAX`] of them: found by
    /// trying 2^bits names on average, and given up after 16 times as many.
    #[must_use]
    pub fn drawn(point: u64, bits: u32, rng: &mut Rng) -> Target {
        let bits = bits.min(DRAWN_BITS_MAX);
        let mut name = [0; 16];
        for _ in 0..16u64 << bits {
            name[..8].copy_from_slice(&rng.next_u64().to_be_bytes());
            name[8..].copy_from_slice(&rng.next_u64().to_be_bytes());
            if (Key::of(&name).point() ^ point).leading_zeros() >= bits {
                break;
            }
        }
        Target::named(&name)
    }
}

/// A question, or the answer to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<C> {
    /// Who is nearest? Answered with [`Message::Nodes`].
    FindNode(Target),
    /// What is the value? Answered with [`Message::Value`].
    GetValue(Target),
    /// Keep this. Answered with [`Message::Stored`].
    Put(Record),
    /// Who provides it? Answered with [`Message::Providers`].
    GetProviders(Target),
    /// I provide it. Told, without an answer; nobody can say it for another.
    AddProvider(Target),
    /// The nearest that the answerer knows, nearest first.
    Nodes(Nodes<C>),
    /// The value, if the answerer has it, and the nearest it knows.
    Value {
        /// The value.
        record: Option<Box<Record>>,
        /// The nearest.
        closer: Nodes<C>,
    },
    /// Whether it was kept.
    Stored(Result<(), Refusal>),
    /// Who provides it, and the nearest it knows.
    Providers {
        /// The providers.
        providers: Vec<C>,
        /// The nearest.
        closer: Vec<C>,
    },
}

// A simulation has a hundred thousand on their way, and each is moved a few times: what is seldom said is kept apart.
const _: () = assert!(size_of::<Message<u32>>() <= 104);
