//! Which endpoints may be used, and whether a request stays in the worker's zone.
//!
//! Requests stay while enough of the zone's endpoints are usable. Below that a part of them leaves, as large as what the
//! zone lacks, so that the endpoints that are left are not overrun; how many leave changes without a jump.

use alloc::vec::Vec;

use kernel::Rng;

/// The worker's zone, and when requests stay in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zones {
    /// Its own; `None`: zones do not matter.
    pub own: Option<u16>,
    /// All stay while so many per cent of the zone's endpoints are usable; 1 to 100.
    pub local_percent_min: u8,
    /// None stays while the zone has fewer endpoints than this.
    pub local_min: u32,
}

impl Default for Zones {
    /// Zones do not matter; 70 %, 2 endpoints.
    fn default() -> Zones {
        Zones { own: None, local_percent_min: 70, local_min: 2 }
    }
}

/// The usable places, all and those of the own zone.
#[derive(Clone, Debug)]
pub(super) struct Usable {
    zones: Zones,
    /// For each place whether it is in the own zone, and where it stands in the lists.
    states: Vec<State>,
    all: Vec<u32>,
    local: Vec<u32>,
    /// Endpoints of the own zone, usable or not.
    local_total: u32,
}

#[derive(Clone, Copy, Debug)]
struct State {
    local: bool,
    usable: bool,
}

impl Usable {
    pub const fn new(zones: Zones) -> Usable {
        Usable { zones, states: Vec::new(), all: Vec::new(), local: Vec::new(), local_total: 0 }
    }

    pub fn add(&mut self, zone: u16) {
        let local = self.zones.own == Some(zone);
        let at = self.states.len() as u32;
        self.states.push(State { local, usable: true });
        self.local_total += u32::from(local);
        self.all.push(at);
        if local {
            self.local.push(at);
        }
    }

    pub fn swap_remove(&mut self, at: usize) {
        let gone = self.states.swap_remove(at);
        self.local_total -= u32::from(gone.local);
        self.rebuild();
    }

    /// True if it changed.
    pub fn set(&mut self, at: usize, usable: bool) -> bool {
        let changed = self.states[at].usable != usable;
        self.states[at].usable = usable;
        if changed {
            self.rebuild();
        }
        changed
    }

    pub fn has(&self, at: usize) -> bool {
        self.states.get(at).is_some_and(|state| state.usable)
    }

    pub fn all(&self) -> &[u32] {
        &self.all
    }

    pub fn list(&self, local: bool) -> &[u32] {
        if local { &self.local } else { &self.all }
    }

    /// Whether the next request stays in the zone.
    pub fn stays_local(&self, rng: &mut Rng) -> bool {
        let usable = self.local.len() as u64;
        if usable == 0 || self.local_total < self.zones.local_min {
            return false;
        }
        // What the zone can take, as a part of what it must be able to: 1 or more, and all stay.
        let wanted = u64::from(self.local_total) * u64::from(self.zones.local_percent_min);
        usable * 100 >= wanted || rng.below(wanted) < usable * 100
    }

    /// Rare: health changes. O(endpoints).
    fn rebuild(&mut self) {
        let states = self.states.iter().zip(0..);
        self.all.clear();
        self.all.extend(states.clone().filter(|(state, _)| state.usable).map(|(_, at)| at));
        self.local.clear();
        self.local
            .extend(states.filter(|(state, _)| state.usable && state.local).map(|(_, at): (_, u32)| at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_leave_the_zone_as_far_as_it_lacks_endpoints() {
        let zones = Zones { own: Some(1), ..Zones::default() };
        #[rustfmt::skip] // columns
        let table = [
            // of ten in the zone, usable   stay, in per cent
            (10, 100),
            (7,  100),
            (6,  86),
            (3,  43),
            (0,  0),
        ];
        for (count, stay) in table {
            let mut usable = Usable::new(zones);
            (0..20).for_each(|n| usable.add(n % 2));
            // The odd ones are in the zone.
            assert!((count..10).all(|n| usable.set(n * 2 + 1, false)));
            let mut rng = Rng::new(9);
            let stayed = (0..100_000).filter(|_| usable.stays_local(&mut rng)).count();
            assert!(stayed.abs_diff(stay * 1000) < 700, "{count} usable: {stayed}");
            assert_eq!(usable.all().len(), 10 + count);
        }
        let mut alone = Usable::new(zones);
        [1, 0, 0].into_iter().for_each(|zone| alone.add(zone));
        assert!(!alone.stays_local(&mut Rng::new(1)), "one endpoint is not overrun by its zone");
    }
}
