//! Requests that wait for their answer: what makes an unasked answer worthless.

use core::fmt;

use kernel::Rng;
use smallvec::SmallVec;

/// Names one request of one node, so that its answer is known when it comes.
///
/// Numbers begin at a drawn place, so that an answer to a node's earlier life does not fit a later one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u32);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Most requests that one machine has on their way at once.
pub const PENDING_MAX: usize = 1024;

/// The requests on their way, each with what it is for.
///
/// Finding one costs a walk over all, which is right for the few dozen that a node has.
/// Invariant: at most [`PENDING_MAX`], each id once.
#[derive(Clone, Debug)]
pub struct Pending<C, T> {
    next: u32,
    /// As many as one lookup has on its way lie in the machine itself: one place less in memory to go to with each answer.
    waiting: SmallVec<[(RequestId, C, T); 3]>,
}

impl<C: Copy + Eq, T> Pending<C, T> {
    /// None, with ids that begin where `rng` says.
    #[must_use]
    pub fn new(rng: &mut Rng) -> Pending<C, T> {
        Pending { next: rng.next_u64() as u32, waiting: SmallVec::new() }
    }

    /// Remembers a request to `to`; `None` when [`PENDING_MAX`] wait already: then ask later, or fail.
    #[must_use]
    pub fn issue(&mut self, to: C, what: T) -> Option<RequestId> {
        if self.waiting.len() >= PENDING_MAX {
            return None;
        }
        let id = RequestId(self.next);
        self.next = self.next.wrapping_add(1);
        self.waiting.push((id, to, what));
        Some(id)
    }

    /// Takes what the request was for, once, and only if it went to `peer`.
    #[must_use]
    pub fn settle(&mut self, peer: C, id: RequestId) -> Option<T> {
        let at = self.waiting.iter().position(|(own, to, _)| *own == id && *to == peer)?;
        Some(self.waiting.swap_remove(at).2)
    }

    /// Forgets the requests for which `keep` is false; their answers will not be accepted.
    pub fn retain(&mut self, mut keep: impl FnMut(C, &T) -> bool) {
        self.waiting.retain(|(_, to, what)| keep(*to, what));
    }

    /// The requests on their way.
    pub fn iter(&self) -> impl Iterator<Item = (C, &T)> {
        self.waiting.iter().map(|(_, to, what)| (*to, what))
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True when none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_and_only_from_who_was_asked() {
        let mut pending = Pending::new(&mut Rng::new(1));
        let id = pending.issue(7u32, "find").unwrap();
        assert_eq!(pending.settle(8, id), None);
        assert_eq!(pending.settle(7, RequestId(id.0.wrapping_add(1))), None);
        assert_eq!(pending.settle(7, id), Some("find"));
        assert_eq!(pending.settle(7, id), None);
    }

    #[test]
    fn there_is_a_most() {
        let mut pending = Pending::new(&mut Rng::new(1));
        for _ in 0..PENDING_MAX {
            assert!(pending.issue(1u32, ()).is_some());
        }
        assert!(pending.issue(1, ()).is_none());
        assert_eq!(pending.len(), PENDING_MAX);
    }
}
