//! Which endpoint a request goes to.
//!
//! A [`Balancer`] has the endpoints of one service for one worker. Endpoints are known by their place, `0..len`. Which of
//! them may be used at all (health checks, [`crate::outlier`]) is told when it changes, so that a pick looks at usable ones
//! only: O(1) for all policies but those whose text says otherwise.

mod ewma;
mod subset;
mod table;
mod zone;

pub use subset::subset;
pub use zone::Zones;

use alloc::vec::Vec;

use kernel::planted::{Bug, is};
use kernel::{Micros, Rng};
use placement::ring;

use crate::Outcome;
use ewma::Ewma;
use table::Table;
use zone::Usable;

/// Endpoints to which peak-EWMA looks all through; above it two are drawn.
pub const SCAN_MAX: usize = 16;
/// How much above the mean an endpoint of a ring may be loaded, in per cent, before the next one is taken.
pub const RING_OVER_PERCENT: u32 = 25;
/// The least part of its weight that an endpoint has in slow start, in per cent.
const SLOW_START_PERCENT_MIN: u64 = 10;

/// How one endpoint of several is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// One after the other.
    RoundRobin,
    /// Smooth weighted round robin, nginx's: in each cycle as often as the weight says, never in bursts. O(endpoints).
    WeightedRoundRobin,
    /// By chance, by weight. O(endpoints).
    Random,
    /// The fewest requests under way for its weight; among equals one after the other. O(endpoints).
    LeastRequests,
    /// The one of two drawn with fewer requests under way for its weight (Mitzenmacher 2001).
    TwoChoices,
    /// The least expected wait: a moving average of the latency that rises at once and falls slowly, times the requests
    /// under way (Finagle's peak EWMA). O(min(endpoints, [`SCAN_MAX`])).
    #[default]
    PeakEwma,
    /// Maglev hashing of the request's key: the same endpoint while it is there.
    Maglev,
    /// A ring of virtual nodes with bounded loads: the same endpoint unless it is overloaded.
    Ring,
}

/// What is known of an endpoint from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A number of its own, the same on all nodes: a hash of its address or name.
    pub name: u64,
    /// How much it can take beside the others; at least 1.
    pub weight: u16,
    /// Where it is.
    pub zone: u16,
}

/// What a pick may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Now.
    pub now: Micros,
    /// A hash of what should stay at one endpoint (a cookie, a header, an address), for the policies that hash.
    pub key: Option<u64>,
    /// Not this one: it has just failed for this request. Taken all the same if there is no other.
    pub except: Option<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub endpoint: Endpoint,
    /// Requests of this worker under way.
    under_way: u32,
    /// Requests of others under way, as it said itself, and when.
    reported: (u32, Micros),
    ewma: Ewma,
    /// Credit of the weighted round robin.
    credit: i64,
    /// In slow start since then.
    since: Option<Micros>,
}

/// The endpoints of one service. See the module's text.
#[derive(Clone, Debug)]
pub struct Balancer {
    policy: Policy,
    slow_start_ms: u64,
    members: Vec<Member>,
    usable: Usable,
    /// For the policies that hash; made anew when endpoints come or go.
    table: Option<Table>,
    turn: usize,
    rng: Rng,
    total: u64,
}

/// How long a load that an endpoint told of itself counts, in milliseconds.
pub const REPORT_MS_MAX: u64 = 1_000;

impl Balancer {
    /// No endpoints yet. New ones get their full share only after `slow_start_ms`; 0: at once.
    #[must_use]
    pub fn new(policy: Policy, zones: Zones, slow_start_ms: u64, seed: u64) -> Balancer {
        let mut rng = Rng::new(seed);
        // Workers and nodes do not begin their rounds at the same endpoint.
        let turn = rng.next_u64() as usize >> 8;
        let usable = Usable::new(zones);
        Balancer { policy, slow_start_ms, members: Vec::new(), usable, table: None, turn, rng, total: 0 }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What is at this place.
    #[must_use]
    pub fn endpoint(&self, at: usize) -> Endpoint {
        self.members[at].endpoint
    }

    /// Requests of this worker under way at it.
    #[must_use]
    pub fn under_way(&self, at: usize) -> u32 {
        self.members[at].under_way
    }

    /// One more endpoint, behind the others, usable. O(1), but for policies that hash the next pick is O(endpoints).
    pub fn add(&mut self, now: Micros, endpoint: Endpoint) {
        assert!(endpoint.weight > 0, "an endpoint has a weight");
        let since = (self.slow_start_ms > 0 && !self.members.is_empty()).then_some(now);
        let (ewma, reported) = (Ewma::default(), (0, Micros(0)));
        self.members.push(Member { endpoint, under_way: 0, reported, ewma, credit: 0, since });
        self.usable.add(endpoint.zone);
        self.table = None;
    }

    /// The endpoint is none any more; the last one takes its place. What is under way there is not reported on.
    pub fn swap_remove(&mut self, at: usize) {
        self.total -= u64::from(self.members[at].under_way);
        self.members.swap_remove(at);
        if !is(Bug::StaleEndpointKept) {
            self.usable.swap_remove(at);
        }
        self.table = None;
    }

    /// Whether requests may go to it from now on. One that comes back starts slowly.
    pub fn set_usable(&mut self, now: Micros, at: usize, usable: bool) {
        if self.usable.set(at, usable) && usable && self.slow_start_ms > 0 {
            self.members[at].since = Some(now);
        }
    }

    /// How many are usable.
    #[must_use]
    pub fn usable(&self) -> usize {
        self.usable.all().len()
    }

    /// Where the request goes; `None` if no endpoint is usable. It counts as under way from now on, and must be given
    /// back with [`Balancer::report`].
    pub fn pick(&mut self, ask: &Ask) -> Option<usize> {
        let local = self.usable.stays_local(&mut self.rng);
        let at = self.pick_from(ask, local)?;
        self.members[at].under_way += 1;
        self.total += 1;
        Some(at)
    }

    /// The request goes to this one, which must be usable, whatever the policy. As [`Balancer::pick`].
    pub fn pick_at(&mut self, at: usize) -> usize {
        self.members[at].under_way += 1;
        self.total += 1;
        at
    }

    fn pick_from(&mut self, ask: &Ask, local: bool) -> Option<usize> {
        let places = self.usable.list(local);
        let count = places.len();
        match count {
            0 => return None,
            1 => return places.first().map(|&at| at as usize),
            _ => {}
        }
        let at = match self.policy {
            Policy::RoundRobin => self.next_turn(local),
            Policy::WeightedRoundRobin => self.smooth(ask, local),
            Policy::Random => self.random(ask, local),
            Policy::LeastRequests => self.least(ask, local),
            Policy::TwoChoices => self.two(ask, local, Self::load),
            Policy::PeakEwma if count > SCAN_MAX => self.two(ask, local, Self::cost),
            Policy::PeakEwma => self.scan(ask, local, Self::cost),
            Policy::Maglev | Policy::Ring => self.hashed(ask),
        };
        // Policies that look at loads leave it out by themselves; for the others the next in turn stands in.
        if Some(at) == ask.except { Some(self.beside(at, local)) } else { Some(at) }
    }

    /// A request to it has ended after so many microseconds.
    pub fn report(&mut self, now: Micros, at: usize, micros: u64, outcome: Outcome) {
        let member = &mut self.members[at];
        assert!(member.under_way > 0, "what ends has begun");
        member.under_way -= 1;
        self.total -= 1;
        match outcome {
            Outcome::Success => member.ewma.sample(now, micros),
            // A quick failure is no sign of speed.
            Outcome::Failure | Outcome::Timeout => member.ewma.penalize(now, micros),
            Outcome::Abandoned => {}
        }
    }

    /// It said itself, with an answer, how many requests it has from all; those of this worker among them.
    pub fn report_load(&mut self, now: Micros, at: usize, requests: u32) {
        let member = &mut self.members[at];
        member.reported = (requests.saturating_sub(member.under_way), now);
    }

    fn next_turn(&mut self, local: bool) -> usize {
        let places = self.usable.list(local);
        self.turn = self.turn.wrapping_add(1);
        places[self.turn % places.len()] as usize
    }

    fn beside(&mut self, at: usize, local: bool) -> usize {
        let other = self.next_turn(local);
        if other == at { self.next_turn(local) } else { other }
    }

    /// The weight in thousandths, less in slow start.
    fn weight(&self, at: usize, now: Micros) -> u64 {
        let member = &self.members[at];
        let full = u64::from(member.endpoint.weight) * 1000;
        let Some(since) = member.since else { return full };
        let percent = now.since(since) / 10 / self.slow_start_ms.max(1);
        if percent >= 100 { full } else { full * percent.max(SLOW_START_PERCENT_MIN) / 100 }
    }

    fn smooth(&mut self, ask: &Ask, local: bool) -> usize {
        let (mut best, mut total) = (None, 0);
        for number in 0..self.usable.list(local).len() {
            let at = self.usable.list(local)[number] as usize;
            let weight = self.weight(at, ask.now) as i64;
            total += weight;
            let credit = self.members[at].credit + weight;
            self.members[at].credit = credit;
            if best.is_none_or(|(most, _)| credit > most) {
                best = Some((credit, at));
            }
        }
        let (_, at) = best.expect("there are at least two");
        self.members[at].credit -= total;
        at
    }

    fn random(&mut self, ask: &Ask, local: bool) -> usize {
        let places = self.usable.list(local);
        let weight = |&at: &u32| self.weight(at as usize, ask.now);
        let total: u64 = places.iter().map(weight).sum();
        let mut drawn = self.rng.below(total.max(1));
        let places = self.usable.list(local);
        for &at in places {
            let weight = self.weight(at as usize, ask.now);
            if drawn < weight {
                return at as usize;
            }
            drawn -= weight;
        }
        places[places.len() - 1] as usize
    }

    /// Requests under way for its weight, of which one more would be.
    fn load(&self, at: usize, now: Micros) -> f64 {
        let member = &self.members[at];
        let (reported, when) = member.reported;
        let others = if now.since(when) <= REPORT_MS_MAX * 1000 { reported } else { 0 };
        (f64::from(member.under_way) + f64::from(others) + 1.0) / self.weight(at, now) as f64
    }

    fn cost(&self, at: usize, now: Micros) -> f64 {
        self.load(at, now) * self.members[at].ewma.micros(now)
    }

    fn least(&mut self, ask: &Ask, local: bool) -> usize {
        self.turn = self.turn.wrapping_add(1);
        self.scan(ask, local, Self::load)
    }

    /// The cheapest of all, but not what failed before; the first in turn among equals.
    fn scan(&mut self, ask: &Ask, local: bool, cost: fn(&Self, usize, Micros) -> f64) -> usize {
        self.turn = self.turn.wrapping_add(1);
        let places = self.usable.list(local);
        let from = self.turn % places.len();
        let (before, after) = places.split_at(from);
        let others = after.iter().chain(before).map(|&at| at as usize).filter(|&at| Some(at) != ask.except);
        let costs = others.map(|at| (cost(self, at, ask.now), at));
        let cheapest = costs.reduce(|best, other| if other.0 < best.0 { other } else { best });
        cheapest.map_or(places[0] as usize, |(_, at)| at)
    }

    fn two(&mut self, ask: &Ask, local: bool, cost: fn(&Self, usize, Micros) -> f64) -> usize {
        let count = self.usable.list(local).len() as u64;
        let first = self.rng.below(count);
        let second = (first + 1 + self.rng.below(count - 1)) % count;
        let places = self.usable.list(local);
        let (first, second) = (places[first as usize] as usize, places[second as usize] as usize);
        match ask.except {
            Some(except) if except == first => second,
            Some(except) if except == second => first,
            _ if cost(self, second, ask.now) < cost(self, first, ask.now) => second,
            _ => first,
        }
    }

    /// Keys stay at their endpoint whatever its zone; a request without a key goes anywhere.
    fn hashed(&mut self, ask: &Ask) -> usize {
        let key = ask.key.unwrap_or_else(|| self.rng.next_u64());
        let policy = self.policy;
        let members = &self.members;
        let table = self.table.get_or_insert_with(|| Table::new(policy, members));
        let usable = &self.usable;
        let found = match table {
            // The next slots stand in for one that may not be used, the same for every worker.
            Table::Maglev(maglev) => (0..members.len() as u64 * 4)
                .filter_map(|more| maglev.pick(key.wrapping_add(more.wrapping_mul(0x9E37_79B9_7F4A_7C15))))
                .map(|slot| slot.at())
                .find(|&at| usable.has(at)),
            Table::Ring(ring) => {
                let capacity = ring::capacity(self.total + 1, usable.all().len(), RING_OVER_PERCENT);
                let load = |slot: table::Slot| {
                    let at = slot.at();
                    if usable.has(at) { u64::from(members[at].under_way) } else { u64::MAX }
                };
                ring.bounded(ring::Point(key), capacity, load).map(|slot| slot.at())
            }
        };
        found.unwrap_or_else(|| self.next_turn(false))
    }
}

#[cfg(test)]
mod tests;
