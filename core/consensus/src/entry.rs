//! An entry of a replicated group, as the log, the links and the engine carry it: one block of bytes, shared.
//!
//! In front of the body stand its semantics version and time. Semantics 0 marks the group's own entries: without a
//! body one that a new leader begins with, with one a change of the members in our codec.

use std::fmt;

use kernel::codec::DecodeError;
use kernel::{Index, Micros, Term};
use raft::eraftpb::{Entry, EntryType};

use crate::members::Change;

/// Bytes before the body: semantics and time.
const HEAD_BYTES: usize = 10;

/// One entry of a group's log.
#[derive(Clone, PartialEq)]
pub struct Logged(pub(crate) Entry);

impl Logged {
    /// An entry. Semantics 0 is a group's own: empty, or a [`Change`].
    #[must_use]
    pub fn new(term: Term, index: Index, semantics: u16, time: Micros, body: &[u8]) -> Logged {
        let mut entry = Entry::default();
        (entry.term, entry.index) = (term.0, index.0);
        if semantics != 0 {
            let mut data = Vec::with_capacity(HEAD_BYTES + body.len());
            data.extend_from_slice(&semantics.to_le_bytes());
            data.extend_from_slice(&time.0.to_le_bytes());
            data.extend_from_slice(body);
            entry.data = data.into();
        } else if !body.is_empty() {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            entry.context = body.to_vec().into();
        }
        Logged(entry)
    }

    /// The term it was proposed in.
    #[must_use]
    pub const fn term(&self) -> Term {
        Term(self.0.term)
    }

    /// Its index.
    #[must_use]
    pub const fn index(&self) -> Index {
        Index(self.0.index)
    }

    /// The version of `apply` that it is meant for; 0 for the group's own.
    #[must_use]
    pub fn semantics(&self) -> u16 {
        self.0.data.first_chunk().map_or(0, |head| u16::from_le_bytes(*head))
    }

    /// The group's time when it was proposed; 0 for the group's own.
    #[must_use]
    pub fn time(&self) -> Micros {
        let time = self.0.data.get(2..).and_then(|rest| rest.first_chunk());
        Micros(time.map_or(0, |time| u64::from_le_bytes(*time)))
    }

    /// The body, opaque here.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        if self.is_change() { &self.0.context } else { self.0.data.get(HEAD_BYTES..).unwrap_or(&[]) }
    }

    /// Bytes it takes in memory and on a link, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.data.len() + self.0.context.len() + 24
    }

    pub(crate) fn is_change(&self) -> bool {
        self.0.get_entry_type() == EntryType::EntryConfChangeV2
    }

    /// What an entry of the engine is for us: the engine's own encoding of a change, which only its leader
    /// looks at, is dropped.
    pub(crate) fn settled(mut entry: Entry) -> Logged {
        if entry.get_entry_type() == EntryType::EntryConfChangeV2 {
            entry.data = Vec::new().into();
        }
        Logged(entry)
    }

    /// What it says.
    pub(crate) fn into_body(self) -> Result<Body, DecodeError> {
        if self.is_change() {
            return Change::decode(&self.0.context).map(Body::Change);
        }
        if self.0.data.is_empty() { Ok(Body::Nothing) } else { Ok(Body::Commands(self)) }
    }
}

impl fmt::Debug for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}({} bytes)", self.0.index, self.0.term, self.body().len())
    }
}

/// What a committed entry says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Nothing: a new leader's first entry, or a change that was refused.
    Nothing,
    /// Commands for the state machine: see [`Logged::body`], [`Logged::semantics`] and [`Logged::time`].
    Commands(Logged),
    /// The members changed, and the replica has followed.
    Change(Change),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_what_it_was_made_of() {
        for (semantics, time, body) in [(1, 7, &b"SET"[..]), (3, u64::MAX, b""), (0, 0, b""), (0, 0, &[0])] {
            let entry = Logged::new(Term(2), Index(9), semantics, Micros(time), body);
            assert_eq!((entry.term(), entry.index()), (Term(2), Index(9)));
            assert_eq!((entry.semantics(), entry.time(), entry.body()), (semantics, Micros(time), body));
        }
    }
}
