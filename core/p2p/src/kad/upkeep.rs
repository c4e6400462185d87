//! What a node does unasked: fills its buckets, refreshes those without lookups (Maymounkov & Mazières 2002, §2.3), and
//! sends on what it publishes and keeps.

use alloc::vec::Vec;

use kernel::Micros;

use super::dht::{Dht, Out, PUBLISH_MS, Published, QUERIES_MAX};
use super::message::Target;
use super::query::{Goal, Purpose};
use super::record::Validator;
use super::table::Near;
use crate::{Contact, Keys};

/// Others' values that are sent on at one wake.
const REPUBLISHED_AT_ONCE: usize = 4;
/// With so many queries going on nothing is sent on: the others are for who asks. It waits until one has ended.
const SENDING_QUERIES_MAX: usize = QUERIES_MAX / 2;

impl<C: Contact, V: Validator> Dht<C, V> {
    /// What is due at `now`: a bucket that is stale, and what is to be sent again.
    pub(super) fn keep_up(&mut self, now: Micros, keys: &impl Keys<C>, out: &mut Out<C>) {
        self.send_on(now, keys, out);
        let age = u64::from(self.refresh_ms) * 1000;
        let stale = self.table.stalest().filter(|(_, at)| now.since(*at) >= age);
        if let (false, Some((bucket, _))) = (self.is_refreshing(), stale) {
            self.refresh(now, keys, bucket, out);
        }
        self.schedule(now);
    }

    /// Fills the next bucket, from the deepest up, that has less than half of what it can have.
    pub(super) fn fill(&mut self, now: Micros, keys: &impl Keys<C>, out: &mut Out<C>) {
        while self.filling > 0 {
            self.filling -= 1;
            let bucket = usize::from(self.filling);
            if self.table.live(bucket) * 2 < self.config.k() {
                let target = self.place(self.table.point_in(bucket, 0), bucket as u32 + 1);
                return self.begin(now, keys, Purpose::Refresh, Goal::Node, target, out);
            }
        }
    }

    fn is_refreshing(&self) -> bool {
        let refreshes = |purpose| matches!(purpose, Purpose::Refresh | Purpose::Around);
        self.filling > 0 || self.queries.iter().any(|query| refreshes(query.purpose))
    }

    /// The first of the buckets whose whole range is nearer than the `k`-th nearest contact, so that one lookup of our own
    /// place goes through all of them; `None` with fewer than `k` contacts.
    pub(super) fn neighbourhood(&self, keys: &impl Keys<C>) -> Option<usize> {
        let mut near = Near::new();
        self.table.closest(keys, self.own.key.point(), self.config.k(), None, &mut near);
        let (farthest, _) = near.get(self.config.k() - 1)?;
        Some(farthest.leading_zeros() as usize + 1)
    }

    /// Looks up a place in the range of `bucket`, or our own for it and all others of our neighbourhood: they are a third
    /// of a table's buckets, and their ranges have fewer nodes than one answer.
    fn refresh(&mut self, now: Micros, keys: &impl Keys<C>, bucket: usize, out: &mut Out<C>) {
        if let Some(first) = self.neighbourhood(keys).filter(|first| bucket >= *first) {
            self.table.touch_from(now, first);
            return self.begin(now, keys, Purpose::Around, Goal::Node, self.own.clone(), out);
        }
        let target = self.place(self.table.point_in(bucket, 0), bucket as u32 + 1);
        self.begin(now, keys, Purpose::Refresh, Goal::Node, target, out);
    }

    /// Finds out when something is to be done next.
    pub(super) fn schedule(&mut self, now: Micros) {
        let refresh = self.table.stalest().filter(|_| !self.is_refreshing());
        let refresh = refresh.map(|(_, at)| at.plus_millis(u64::from(self.refresh_ms)).max(now + 1));
        // Who finds no room is woken by the end of a query, which comes here too.
        let publish = self.published.values().map(|published| published.again).min();
        let publish = publish.filter(|_| self.sending_room() > 0);
        self.due = [refresh, publish, self.store.due()].into_iter().flatten().min();
    }

    /// How many more queries may send something on.
    fn sending_room(&self) -> usize {
        SENDING_QUERIES_MAX.saturating_sub(self.queries.len())
    }

    fn send_on(&mut self, now: Micros, keys: &impl Keys<C>, out: &mut Out<C>) {
        let mut records = Vec::new();
        if self.store.due().is_some_and(|at| at <= now) {
            let most = REPUBLISHED_AT_ONCE.min(self.sending_room());
            self.store.sweep(now, most, &mut records);
        }
        for record in records {
            let target = Target { key: record.key(), name: Some(record.name.clone()) };
            self.begin(now, keys, Purpose::Republish, Goal::Put(record), target, out);
        }
        let most = REPUBLISHED_AT_ONCE.min(self.sending_room());
        let (mut again, mut over) = (Vec::new(), Vec::new());
        let Dht { published, valid, .. } = self;
        let due = |published: &&mut Published| published.again <= now;
        for published in published.values_mut().filter(due).take(most) {
            if !published.is_valid(now, valid) {
                over.push(published.target.key);
                continue;
            }
            published.again = now.plus_millis(PUBLISH_MS);
            let goal = published.record.clone().map_or(Goal::Provide, Goal::Put);
            again.push((goal, published.target.clone()));
        }
        for key in over {
            self.published.remove(&key);
        }
        for (goal, target) in again {
            self.begin(now, keys, Purpose::Republish, goal, target, out);
        }
    }
}
