//! What every overlay protocol is: a machine over contact handles.
//!
//! A handle is small and `Copy`: an index in the simulator, an interned peer in production. Its key is asked
//! of the host, so that a routing table at a million nodes costs four bytes a contact.
//!
//! It is `kernel::Machine` with the host's directory handed in. Two kinds of exchange: a *tell* is one message
//! without an answer, an *ask* is owed exactly one: the host hands in the answer, or [`Input::Failed`] when
//! the peer is out of reach or its patience has ended. So protocols keep no timer for each request.

use alloc::vec::Vec;
use core::fmt::Debug;
use core::hash::Hash;

use kernel::Micros;

use crate::key::Key;
use crate::pending::RequestId;

/// A handle of a peer.
pub trait Contact: Copy + Eq + Ord + Hash + Debug {}

impl<T: Copy + Eq + Ord + Hash + Debug> Contact for T {}

/// The host's directory: which key a handle stands for.
///
/// A handle that a machine has been given stays valid while the machine may hold it.
pub trait Keys<C> {
    /// The key of `contact`; the same for ever.
    fn key(&self, contact: C) -> Key;

    /// The key's first 64 bits. Hosts that keep them apart save a cache line.
    #[inline]
    fn point(&self, contact: C) -> u64 {
        self.key(contact).point()
    }

    /// The IP neighbourhood it is reached in: equal for addresses that are likely to be one owner's. `None` if that is
    /// not known or does not matter, as on one machine.
    #[inline]
    fn neighbourhood(&self, _contact: C) -> Option<u64> {
        None
    }

    /// Whether it answers questions. One that only asks, as libp2p's clients do, is answered and told to nobody.
    #[inline]
    fn serves(&self, _contact: C) -> bool {
        true
    }
}

/// What can happen to a machine. `M` is its message, `K` its command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<C, M, K> {
    /// A peer said something and expects no answer.
    Told {
        /// Who.
        from: C,
        /// What.
        body: M,
    },
    /// A peer asks: answer with [`Effect::Answer`], at once or later.
    Asked {
        /// Who.
        from: C,
        /// Its name for the request, to be given back.
        id: RequestId,
        /// What.
        body: M,
    },
    /// An answer came. It counts only if the request is pending at this peer.
    Answered {
        /// Who.
        from: C,
        /// Which request of ours.
        id: RequestId,
        /// What.
        body: M,
    },
    /// A request has no answer and will have none: unreachable or too late. The peer may have acted.
    Failed {
        /// Whom we asked.
        to: C,
        /// Which request of ours.
        id: RequestId,
    },
    /// The link to a neighbour is gone.
    Parted {
        /// Whose.
        peer: C,
    },
    /// The node's owner wants something.
    Commanded(K),
}

/// What a machine can ask of its host. `M` is its message, `O` its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<C, M, O> {
    /// Send a message without an answer.
    Tell {
        /// To whom.
        to: C,
        /// What.
        body: M,
    },
    /// Send a request; the host owes its answer or [`Input::Failed`].
    Ask {
        /// To whom.
        to: C,
        /// Our name for it.
        id: RequestId,
        /// What.
        body: M,
    },
    /// Answer a request.
    Answer {
        /// Who asked.
        to: C,
        /// Its name for it.
        id: RequestId,
        /// What.
        body: M,
    },
    /// Tell the node's owner what came of a command, or what happened.
    Report(O),
}

/// The inputs of protocol `P`.
pub type InputOf<P> = Input<<P as Protocol>::Contact, <P as Protocol>::Message, <P as Protocol>::Command>;
/// The effects of protocol `P`.
pub type EffectOf<P> = Effect<<P as Protocol>::Contact, <P as Protocol>::Message, <P as Protocol>::Outcome>;

/// One node's part in an overlay: deterministic, without socket, clock, task or chance of its own.
pub trait Protocol {
    /// The handle of a peer.
    type Contact: Contact;
    /// What peers send each other.
    type Message;
    /// What the node's owner can want.
    type Command;
    /// What the owner is told.
    type Outcome;

    /// Consumes one input; pushes what the host must do, in order, to `out`.
    fn step(
        &mut self,
        now: Micros,
        keys: &impl Keys<Self::Contact>,
        input: InputOf<Self>,
        out: &mut Vec<EffectOf<Self>>,
    );

    /// When [`Protocol::wake`] must next be called. Asked after every step, so a stale timer cannot exist.
    fn deadline(&self) -> Option<Micros>;

    /// Lets everything due at `now` happen.
    fn wake(&mut self, now: Micros, keys: &impl Keys<Self::Contact>, out: &mut Vec<EffectOf<Self>>);

    /// How many stages [`Protocol::warm`] has.
    const WARM_STAGES: u8 = 0;

    /// Reads some of what the machine will read when it is handed `message`, and returns something made of it. Changes
    /// nothing. A host with a million machines calls it for many messages before it hands in the first, stage after
    /// stage: what a stage follows a pointer to, the one before has read.
    fn warm(
        &self,
        _keys: &impl Keys<Self::Contact>,
        _from: Self::Contact,
        _message: &Self::Message,
        _stage: u8,
    ) -> u64 {
        0
    }
}
