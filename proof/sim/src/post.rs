//! The parcels between the workers of the simulated node: each pair's arrive in order, after a while.

use std::collections::{BTreeMap, VecDeque};

use kernel::{Rng, WorkerId};
use node::Parcel;

/// Parcels on their way.
#[derive(Default)]
pub struct Post {
    ways: BTreeMap<(WorkerId, WorkerId), VecDeque<(u64, Parcel)>>,
}

impl Post {
    /// Takes a parcel at `now`; it arrives within `micros`, behind those before it.
    pub fn send(
        &mut self,
        now: u64,
        from: WorkerId,
        to: WorkerId,
        parcel: Parcel,
        micros: u64,
        rng: &mut Rng,
    ) {
        let way = self.ways.entry((from, to)).or_default();
        let before = way.back().map_or(0, |(due, _)| *due);
        let due = (now + rng.below(micros + 1)).max(before);
        way.push_back((due, parcel));
    }

    /// When the next one arrives.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        self.ways.values().filter_map(|way| way.front()).map(|(due, _)| *due).min()
    }

    /// What has arrived at `to` by `now`, with its sender.
    pub fn arrived(&mut self, now: u64, to: WorkerId) -> Vec<(WorkerId, Parcel)> {
        let mut all = Vec::new();
        for (&(from, _), way) in self.ways.iter_mut().filter(|((_, other), _)| *other == to) {
            while way.front().is_some_and(|(due, _)| *due <= now) {
                all.extend(way.pop_front().map(|(_, parcel)| (from, parcel)));
            }
        }
        all
    }
}
