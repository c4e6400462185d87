//! Whom a query's outcome concerns: the nearest, or where liars crowd them out the whole region; and what a lookup leaves
//! behind.

use alloc::vec::Vec;

use kernel::Micros;

use super::dht::{Dht, Out, Why};
use super::lookup::{Lookup, Manner};
use super::message::{Message, Target};
use super::query::{Goal, Phase, Query, REACH_AT_ONCE, REGION_CONTACTS_MAX, Votes};
use super::record::{Record, Validator};
use super::size::{self, SAMPLES_TRUSTED};
use super::store::TTL_MS_DEFAULT;
use super::table::Near;
use super::{Links, Region};
use crate::{Contact, Effect, Keys};

/// Shortest life of a value that a lookup leaves on its path, in seconds.
const CACHE_SECONDS_MIN: u32 = 60;
/// How many times nearer than they should be the nearest must be, to be taken for liars.
const CROWDED: f64 = 3.0;
/// Paths of each lookup through a crowded region, at least.
const CAREFUL_PATHS: u8 = 4;
/// Bits below the region's by which its places are told apart when it is swept.
const SWEEP_BITS: u32 = 2;

impl<C: Contact, V: Validator> Dht<C, V> {
    /// A lookup on several paths, for where liars are expected.
    pub(super) fn careful(&mut self, now: Micros, keys: &impl Keys<C>, probe: &Target) -> Lookup<C> {
        let Manner { k, alpha, paths } = self.config.manner;
        self.lookup(now, keys, probe.key.point(), Manner { k, alpha, paths: paths.max(CAREFUL_PATHS) })
    }

    /// True if the target's neighbourhood is too crowded to be trusted, and what is wanted was not found there.
    ///
    /// Of n nodes the k-th nearest is at k/n of the key space. A third of that happens to one key in a thousand by
    /// chance, and to every key that more liars surround than there are honest nodes beside them: where it is
    /// more, some of the k nearest are honest with all but e^(-k/3).
    pub(super) fn is_crowded(&self, now: Micros, keys: &impl Keys<C>, query: &Query<C>) -> bool {
        let k = self.config.k();
        if self.config.region == Region::Nearest || !query.is_empty_handed() || query.region.len() < k {
            return false;
        }
        // Samples may be of a smaller network than it is by now.
        let all = self.network_size(now, keys);
        let Some(size) = all.into_iter().chain(self.neighbourhood_size(keys)).reduce(f64::max) else {
            return false;
        };
        let farthest = query.region.last().map_or(0, |(distance, _)| *distance);
        size::part(farthest) < k as f64 / (CROWDED * size)
    }

    /// Begins to go through the target's region; first finds out how large that is, since liars near ourselves could
    /// have made us believe in any number.
    pub(super) fn sweep(&mut self, now: Micros, keys: &impl Keys<C>, query: &mut Query<C>) -> bool {
        if self.size.is_doubtful(now) && query.measured < SAMPLES_TRUSTED as u8 {
            query.measured += 1;
            let probe = self.place(0, 0);
            let lookup = self.careful(now, keys, &probe);
            query.phase = Phase::Measure { lookup, probe };
            return true;
        }
        let mut rest = self.places(now, keys, query);
        let Some(probe) = rest.pop() else { return self.concern(query) };
        let lookup = self.careful(now, keys, &probe);
        query.phase = Phase::Sweep { rest, lookup, probe };
        true
    }

    /// A place for each part of the target's region but its own.
    pub(super) fn places(&mut self, now: Micros, keys: &impl Keys<C>, query: &mut Query<C>) -> Vec<Target> {
        let Some(size) = self.network_size(now, keys) else { return Vec::new() };
        let target = query.target.key.point();
        let bits = size::region_bits(size, self.config.k()).min(64 - SWEEP_BITS);
        query.bits = bits as u8;
        let shift = 64 - SWEEP_BITS - bits;
        (1..1 << SWEEP_BITS).map(|part: u64| self.place(target ^ part << shift, bits + SWEEP_BITS)).collect()
    }

    /// A place that shares the first `bits` bits of `point`.
    pub(super) fn place(&mut self, point: u64, bits: u32) -> Target {
        match self.config.links {
            Links::Keys => {
                let rest = u64::MAX.checked_shr(bits).unwrap_or(0);
                Target::at(point & !rest | self.rng.next_u64() & rest)
            }
            Links::Names => Target::drawn(point, bits, &mut self.rng),
        }
    }

    /// Whom the outcome concerns: where to store, or whom a sweep found and the lookup did not ask. False if nobody.
    pub(super) fn concern(&mut self, query: &mut Query<C>) -> bool {
        let k = self.config.k();
        let wanted = match &query.goal {
            Goal::Node => return false,
            Goal::Value(_) | Goal::Providers(_) if !query.cost.swept => return false,
            Goal::Value(_) | Goal::Providers(_) => REGION_CONTACTS_MAX,
            Goal::Put(_) | Goal::Provide if query.cost.swept => REGION_CONTACTS_MAX,
            Goal::Put(_) | Goal::Provide => k,
        };
        if query.cost.swept {
            let bits = u32::from(query.bits);
            query.region.retain(|(distance, _)| distance.leading_zeros() >= bits);
        }
        // Asked from the end, so the nearest come first.
        let queue: Vec<C> = query.region.iter().take(wanted).rev().map(|(_, contact)| *contact).collect();
        query.phase = Phase::Reach { queue, flight: 0, kept: 0, refused: 0 };
        true
    }

    /// Reaches the next ones. True when all have been reached.
    pub(super) fn reach(&mut self, query: &mut Query<C>, out: &mut Out<C>) -> bool {
        let body = query.question();
        let Phase::Reach { queue, flight, kept, refused } = &mut query.phase else {
            return true;
        };
        while *flight < REACH_AT_ONCE {
            let Some(to) = queue.pop() else { break };
            if let Message::AddProvider(_) = body {
                *kept += 1;
                out.push(Effect::Tell { to, body: body.clone() });
            } else if let Some(id) = self.pending.issue(to, Why::Query { id: query.id, path: 0 }) {
                *flight += 1;
                query.cost.asked = query.cost.asked.saturating_add(1);
                out.push(Effect::Ask { to, id, body: body.clone() });
            } else {
                *refused += 1;
            }
        }
        *flight == 0 && queue.is_empty()
    }

    /// As many nodes as our own neighbourhood speaks for.
    pub(super) fn neighbourhood_size(&self, keys: &impl Keys<C>) -> Option<f64> {
        let mut near = Near::new();
        self.table.closest(keys, self.own.key.point(), self.config.k(), None, &mut near);
        size::judge(near.iter().map(|(distance, _)| *distance))
    }

    /// Leaves a found value at the nearest node that did not have it, for a time that halves with each `k` nodes
    /// nearer to the key (§2.3), and brings those up to date that had an older one.
    pub(super) fn leave_on_path(
        &mut self,
        now: Micros,
        lookup: &Lookup<C>,
        votes: &Votes<C>,
        out: &mut Out<C>,
    ) {
        let Some(best) = &votes.best else { return };
        let has = |contact: &C| votes.holders.contains(contact) || votes.behind.contains(contact);
        let near = lookup.nearest(self.config.k());
        let next = near.iter().find(|(_, contact)| !has(contact));
        let nodes = self.size.estimate(now, None).unwrap_or(1.0);
        let cached = next.map(|(distance, contact)| {
            let nearer = size::part(*distance) * nodes / self.config.k() as f64;
            let ttl = (TTL_MS_DEFAULT / 1000) as u32 >> (nearer as u32).min(31);
            (*contact, ttl.max(CACHE_SECONDS_MIN).min(best.ttl.max(CACHE_SECONDS_MIN)))
        });
        let behind = votes.behind.iter().map(|contact| (*contact, best.ttl));
        for (to, ttl) in cached.into_iter().chain(behind) {
            if let Some(id) = self.pending.issue(to, Why::Aside) {
                let record = Record { ttl, ..best.clone() };
                out.push(Effect::Ask { to, id, body: Message::Put(record) });
            }
        }
    }
}
