//! One iterative lookup (Maymounkov & Mazières 2002, §2.3), on disjoint paths if wanted (Baumgart & Mies 2007,
//! "S/Kademlia", §4.4).
//!
//! A path keeps what it has heard of by distance and always has up to α questions on their way to the nearest not
//! yet asked; it has ended when the `k` nearest that did not fail have all answered. Paths ask no node twice
//! between them, so a liar is on one of them at most.
//!
//! Where we deviate: the paper sends α questions in rounds; here a new one goes as soon as an answer is in.

use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::{Contact, Keys};

/// Most candidates that a path remembers, in multiples of `k`; farther ones are forgotten.
const CANDIDATES_PER_K: usize = 4;
/// Most questions of one lookup: a peer that knows ever nearer ones cannot make it endless.
pub const ASKED_MAX: u16 = 1024;
/// Most paths of a lookup.
pub const PATHS_MAX: usize = 16;

/// What is known of a candidate. A failed one is removed and only remembered as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Asked,
    Answered,
    Failed,
    /// Another path asked it.
    Taken,
}

#[derive(Clone, Copy, Debug)]
struct Candidate<C> {
    distance: u64,
    contact: C,
    /// Of the shortest chain of those that told of it, and of the chain of the first that did.
    hops: u8,
    first_hops: u8,
    state: State,
}

/// One path: its candidates, nearest first.
#[derive(Clone, Debug)]
struct Path<C> {
    list: Vec<Candidate<C>>,
    flight: u8,
}

/// A lookup that goes on.
#[derive(Clone, Debug)]
pub struct Lookup<C> {
    me: C,
    target: u64,
    k: u8,
    alpha: u8,
    paths: SmallVec<[Path<C>; 1]>,
    asked: u16,
}

/// How a lookup is made. Invariant: `1 ≤ k ≤ 32`, `1 ≤ alpha ≤ 16`, `1 ≤ paths ≤ PATHS_MAX`, which
/// [`Config::new`](super::Config::new) checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    pub k: u8,
    pub alpha: u8,
    pub paths: u8,
}

impl<C: Contact> Lookup<C> {
    /// A lookup for `target` by `me` that begins with `known`, nearest first. With several paths
    /// each has one question on its way, and begins with its own part of them, the nearest together: liars that crowd a
    /// target are the nearest that many know, and in turns each path would begin with one of them.
    pub(super) fn new(me: C, target: u64, manner: Manner, known: &[(u64, C)]) -> Lookup<C> {
        let count = usize::from(manner.paths);
        let mut paths = SmallVec::with_capacity(count);
        for path in 0..count {
            let mut list = Vec::with_capacity(usize::from(manner.k) * 2);
            let share = known.len() * path / count..known.len() * (path + 1) / count;
            list.extend(known[share].iter().map(|&(distance, contact)| Candidate {
                distance,
                contact,
                hops: 1,
                first_hops: 1,
                state: State::New,
            }));
            paths.push(Path { list, flight: 0 });
        }
        let alpha = if count > 1 { 1 } else { manner.alpha };
        Lookup { me, target, k: manner.k, alpha, paths, asked: 0 }
    }

    /// The next contact to ask, and on which path; `None` while enough are on their way, or at the end.
    pub fn ask(&mut self) -> Option<(u8, C)> {
        (0..self.paths.len()).find_map(|path| {
            let contact = self.next_of(path)?;
            self.paths[path].flight += 1;
            self.asked = self.asked.saturating_add(1);
            Some((path as u8, contact))
        })
    }

    fn next_of(&mut self, path: usize) -> Option<C> {
        loop {
            if self.paths[path].flight >= self.alpha {
                return None;
            }
            let at = self.nearest_new(path)?;
            let contact = self.paths[path].list[at].contact;
            let taken = self.paths.len() > 1 && self.paths.iter().any(|other| other.has_asked(contact));
            let candidate = &mut self.paths[path].list[at];
            candidate.state = if taken { State::Taken } else { State::Asked };
            if !taken {
                return Some(contact);
            }
        }
    }

    /// The nearest candidate not asked yet among the `k` nearest that did not fail.
    fn nearest_new(&self, path: usize) -> Option<usize> {
        if self.asked >= ASKED_MAX {
            return None;
        }
        let mut sound = 0;
        for (at, candidate) in self.paths[path].list.iter().enumerate() {
            match candidate.state {
                State::New => return Some(at),
                State::Failed => {}
                State::Asked | State::Answered | State::Taken => sound += 1,
            }
            if sound == self.k {
                return None;
            }
        }
        None
    }

    /// `from` answered on `path` and told of `closer`; what is no news to the path is left out.
    pub fn answered(&mut self, keys: &impl Keys<C>, path: u8, from: C, closer: &[C]) {
        let (me, target) = (self.me, self.target);
        let most = usize::from(self.k) * CANDIDATES_PER_K;
        let Some(path) = self.paths.get_mut(usize::from(path)) else {
            return;
        };
        let Some((hops, first_hops)) = path.settle(keys.point(from) ^ target, from, State::Answered) else {
            return;
        };
        let (hops, first_hops) = (hops.saturating_add(1), first_hops.saturating_add(1));
        // Answers come nearest first, so each one's place is behind the last one's: one walk finds all of them.
        let (mut at, mut last) = (0, 0);
        for &contact in closer {
            if contact != me {
                let distance = keys.point(contact) ^ target;
                if distance < last {
                    at = 0;
                }
                last = distance;
                at = path.add(Candidate { distance, contact, hops, first_hops, state: State::New }, most, at);
            }
        }
    }

    /// `from` did not answer on `path`.
    pub fn failed(&mut self, keys: &impl Keys<C>, path: u8, from: C) {
        let distance = keys.point(from) ^ self.target;
        if let Some(path) = self.paths.get_mut(usize::from(path)) {
            path.settle(distance, from, State::Failed);
        }
    }

    /// True when nothing is on its way and no path has whom to ask.
    #[must_use]
    pub fn is_done(&self) -> bool {
        (0..self.paths.len()).all(|path| self.paths[path].flight == 0 && self.nearest_new(path).is_none())
    }

    /// The `n` nearest that answered, nearest first, each with its distance.
    #[must_use]
    pub fn nearest(&self, n: usize) -> Vec<(u64, C)> {
        let mut all = Vec::with_capacity(n * self.paths.len());
        for path in &self.paths {
            all.extend(path.answered().map(|candidate| (candidate.distance, candidate.contact)).take(n));
        }
        // One path's are in order already.
        if self.paths.len() > 1 {
            all.sort_unstable();
            all.truncate(n);
        }
        all
    }

    /// Hops to the nearest that answered, by the shortest chain of those that told of it and by the chain of the first
    /// that did: 1 for a contact of our own table, 0 if none answered.
    #[must_use]
    pub fn hops(&self) -> (u8, u8) {
        let nearest = self.paths.iter().filter_map(|path| path.answered().next());
        let nearest = nearest.min_by_key(|candidate| (candidate.distance, candidate.contact));
        nearest.map_or((0, 0), |candidate| (candidate.hops, candidate.first_hops))
    }

    /// Everyone it has heard of and not forgotten.
    pub(super) fn candidates(&self) -> impl Iterator<Item = C> {
        self.paths.iter().flat_map(|path| path.list.iter().map(|candidate| candidate.contact))
    }

    /// Reads what an answer on the first path will: see [`Protocol::warm`](crate::Protocol::warm).
    pub(super) fn warm(&self) -> u64 {
        // A line of memory has 4 candidates.
        let known = self.paths.iter().take(1).flat_map(|path| path.list.iter().step_by(4));
        known.fold(0, |read, candidate| read ^ candidate.distance)
    }

    /// How many questions it has asked.
    #[must_use]
    pub const fn asked(&self) -> u16 {
        self.asked
    }
}

impl<C: Contact> Path<C> {
    fn has_asked(&self, contact: C) -> bool {
        let asked = |state| matches!(state, State::Asked | State::Answered | State::Failed);
        self.list.iter().any(|candidate| candidate.contact == contact && asked(candidate.state))
    }

    /// Where a candidate is, or would be.
    fn place(&self, distance: u64, contact: C) -> Result<usize, usize> {
        self.list.binary_search_by(|own| (own.distance, own.contact).cmp(&(distance, contact)))
    }

    /// Those that answered, nearest first.
    fn answered(&self) -> impl Iterator<Item = &Candidate<C>> {
        self.list.iter().filter(|candidate| candidate.state == State::Answered)
    }

    /// A question has come back: the hops to `from`, if it was asked here.
    fn settle(&mut self, distance: u64, from: C, state: State) -> Option<(u8, u8)> {
        self.flight = self.flight.saturating_sub(1);
        let at = self.place(distance, from).ok()?;
        let candidate = &mut self.list[at];
        candidate.state = state;
        Some((candidate.hops, candidate.first_hops))
    }

    /// Remembers a candidate, whose place is not before `from`, and returns its place or where it would be.
    fn add(&mut self, candidate: Candidate<C>, most: usize, from: usize) -> usize {
        let order = (candidate.distance, candidate.contact);
        let nearer = self.list[from..].iter().take_while(|own| (own.distance, own.contact) < order);
        let at = from + nearer.count();
        if let Some(known) = self.list.get_mut(at).filter(|own| own.contact == candidate.contact) {
            // Another one told of it before: the shorter way to it counts.
            known.hops = known.hops.min(candidate.hops);
            return at;
        }
        if self.list.len() >= most {
            // The farthest goes, unless its answer is awaited: then there is one more for a while.
            match self.list.last() {
                _ if at >= most => return at,
                Some(last) if last.state == State::New => drop(self.list.pop()),
                Some(_) | None => {}
            }
        }
        self.list.insert(at, candidate);
        at
    }
}
