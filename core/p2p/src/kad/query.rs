//! A query: a lookup, then perhaps its region, then those whom its outcome concerns.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::dht::{Cost, Token};
use super::lookup::Lookup;
use super::message::{Message, Target};
use super::record::{Record, Validator};
use crate::{Contact, Key};
use kernel::Micros;

/// Most nodes of a region that are reached for one record.
pub const REGION_CONTACTS_MAX: usize = 128;
/// Most nodes remembered that had a value, of those a lookup asked.
pub const HOLDERS_MAX: usize = 20;
/// Questions of one query on their way while it stores or looks in a region.
pub(super) const REACH_AT_ONCE: usize = 20;

/// Who waits for a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Owner(Token),
    Join,
    /// A place in a bucket's range.
    Refresh,
    /// Our own place, for all buckets of our neighbourhood.
    Around,
    Republish,
}

/// What a query is for.
#[derive(Clone, Debug)]
pub(super) enum Goal<C> {
    Node,
    Value(Votes<C>),
    Put(Record),
    Provide,
    Providers(BTreeSet<C>),
}

/// The values that a lookup has heard.
#[derive(Clone, Debug)]
pub(super) struct Votes<C> {
    pub best: Option<Record>,
    /// Who has the best one, and who an older one.
    pub holders: Vec<C>,
    pub behind: Vec<C>,
}

impl<C: Contact> Votes<C> {
    pub(super) const fn new() -> Votes<C> {
        Votes { best: None, holders: Vec::new(), behind: Vec::new() }
    }

    /// `from` has `record`. What is not valid, or not this key's, is not heard.
    pub(super) fn hear(
        &mut self,
        now: Micros,
        key: Key,
        from: Option<C>,
        record: Record,
        valid: &impl Validator,
    ) {
        if record.key() != key || valid.check(now, &record.name, &record.value).is_err() {
            return;
        }
        let order = match &self.best {
            None => Ordering::Greater,
            Some(best) => valid.order(&record.name, &record.value, &best.value),
        };
        match order {
            Ordering::Greater => {
                self.behind.append(&mut self.holders);
                self.best = Some(record);
                self.holders.extend(from);
            }
            Ordering::Equal => self.holders.extend(from),
            Ordering::Less => self.behind.extend(from),
        }
        self.behind.truncate(HOLDERS_MAX);
    }
}

/// How far a query is.
#[derive(Clone, Debug)]
pub(super) enum Phase<C> {
    /// The lookup for its target.
    Search,
    /// A lookup for any place, to judge how many nodes there are.
    Measure { lookup: Lookup<C>, probe: Target },
    /// Lookups for other places of the target's region; `lookup` is the one that goes on.
    Sweep { rest: Vec<Target>, lookup: Lookup<C>, probe: Target },
    /// All that concern the outcome, one after another.
    Reach { queue: Vec<C>, flight: usize, kept: usize, refused: usize },
}

/// A query that goes on.
#[derive(Clone, Debug)]
pub(super) struct Query<C> {
    pub id: u32,
    pub purpose: Purpose,
    pub goal: Goal<C>,
    pub target: Target,
    pub lookup: Lookup<C>,
    pub phase: Phase<C>,
    /// What a sweep has found in the region so far.
    pub region: Vec<(u64, C)>,
    /// The leading bits that the region shares.
    pub bits: u8,
    /// Lookups made to judge how many nodes there are.
    pub measured: u8,
    /// What it stores was withdrawn meanwhile.
    pub withdrawn: bool,
    pub cost: Cost,
}

impl<C: Contact> Query<C> {
    pub(super) fn new(
        id: u32,
        purpose: Purpose,
        goal: Goal<C>,
        target: Target,
        lookup: Lookup<C>,
    ) -> Query<C> {
        Query {
            id,
            purpose,
            goal,
            target,
            lookup,
            phase: Phase::Search,
            region: Vec::new(),
            bits: 0,
            measured: 0,
            withdrawn: false,
            cost: Cost::default(),
        }
    }

    /// Reads from each line of memory that an answer needs: see [`Protocol::warm`](crate::Protocol::warm).
    pub(super) fn warm(&self) -> u64 {
        let kinds =
            u64::from(matches!(self.goal, Goal::Node)) ^ u64::from(matches!(self.phase, Phase::Search));
        kinds ^ u64::from(self.id) ^ self.target.key.point() ^ u64::from(self.lookup.asked())
    }

    /// What the lookup for the target has cost so far.
    pub(super) fn note_cost(&mut self) {
        self.cost.asked = self.lookup.asked();
        (self.cost.hops, self.cost.first_hops) = self.lookup.hops();
    }

    /// The lookup that goes on, if one does.
    pub(super) fn current(&mut self) -> Option<&mut Lookup<C>> {
        match &mut self.phase {
            Phase::Search => Some(&mut self.lookup),
            Phase::Measure { lookup, .. } | Phase::Sweep { lookup, .. } => Some(lookup),
            Phase::Reach { .. } => None,
        }
    }

    /// What is asked of each candidate.
    pub(super) fn question(&self) -> Message<C> {
        match (&self.phase, &self.goal) {
            (Phase::Measure { probe, .. } | Phase::Sweep { probe, .. }, _) => {
                Message::FindNode(probe.clone())
            }
            (Phase::Search, Goal::Value(_)) | (Phase::Reach { .. }, Goal::Value(_)) => {
                Message::GetValue(self.target.clone())
            }
            (Phase::Search, Goal::Providers(_)) | (Phase::Reach { .. }, Goal::Providers(_)) => {
                Message::GetProviders(self.target.clone())
            }
            (Phase::Search, Goal::Node | Goal::Put(_) | Goal::Provide) => {
                Message::FindNode(self.target.clone())
            }
            (Phase::Reach { .. }, Goal::Put(record)) => Message::Put(record.clone()),
            (Phase::Reach { .. }, Goal::Provide) => Message::AddProvider(self.target.clone()),
            (Phase::Reach { .. }, Goal::Node) => Message::FindNode(self.target.clone()),
        }
    }

    /// True if what it heard is enough and nobody else need be asked.
    pub(super) fn is_satisfied(&self, quorum: usize) -> bool {
        match &self.goal {
            Goal::Value(votes) => quorum > 0 && votes.holders.len() >= quorum,
            Goal::Providers(found) => quorum > 0 && found.len() >= super::PROVIDERS_MAX,
            Goal::Node | Goal::Put(_) | Goal::Provide => false,
        }
    }

    /// True if it has heard nothing of what it looks for, so that the region is worth the way.
    pub(super) fn is_empty_handed(&self) -> bool {
        match &self.goal {
            Goal::Value(votes) => votes.best.is_none(),
            Goal::Providers(found) => found.is_empty(),
            Goal::Put(_) | Goal::Provide => true,
            Goal::Node => false,
        }
    }
}
