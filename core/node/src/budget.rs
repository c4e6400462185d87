//! Memory budgets: as configured for each keyspace, or one for all together once a client sets `maxmemory`,
//! of which each worker has an equal share for its own.
//!
//! Beyond its budget a keyspace leaves bodies on the disk, or a cache loses keys; the host does both. What
//! is decided here is what a budget is, and that writes which need memory are refused at once where a
//! client's limit is below what the keys alone need.

use storage::command::generic::DEL;
use storage::object::table::Table;
use storage::store::Policy;

use crate::partition::{Partition, Queued, What};
use crate::worker::Worker;

impl Worker {
    /// Bytes that the entries of partition `at` may take now; `None` for no limit.
    #[must_use]
    pub fn budget(&self, at: usize) -> Option<usize> {
        self.budget_of(at, self.memory_shared())
    }

    /// The same, given [`Worker::memory_shared`] for all partitions to be looked at.
    #[must_use]
    pub fn budget_of(&self, at: usize, taken: usize) -> Option<usize> {
        let partition = &self.partitions[at];
        // Keys that a policy deletes go by entries, which only a leader writes.
        if !partition.leads && partition.store.policy() != Policy::NoEviction {
            return None;
        }
        let Some(limit) = self.front.limit else { return partition.memory };
        (limit > 0).then(|| limit.saturating_sub(taken.saturating_sub(self.memory_after(at))))
    }

    /// Bytes that all partitions together take of a limit that they share, by [`Worker::memory_after`]; 0 if each
    /// has a budget of its own. O(partitions).
    #[must_use]
    pub fn memory_shared(&self) -> usize {
        match self.front.limit {
            Some(_) => (0..self.partitions.len()).map(|at| self.memory_after(at)).sum(),
            None => 0,
        }
    }

    /// Bytes that the entries of partition `at` will take once the deletions on their way are applied and what
    /// was removed is freed.
    #[must_use]
    pub fn memory_after(&self, at: usize) -> usize {
        let Partition { store, leaving, .. } = &self.partitions[at];
        let leaving = usize::try_from(*leaving).unwrap_or(usize::MAX);
        (store.memory_bytes() - store.dead_bytes()).saturating_sub(leaving)
    }

    /// Clients changed settings: those on memory take effect.
    pub(crate) fn take_settings(&mut self) {
        let config = &self.front.config;
        let limit = config.changed("maxmemory").map(|_| config.maxmemory());
        let limit = limit.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let limit = limit.map(|bytes| self.share(bytes));
        let policy = config.changed("maxmemory-policy").and_then(Policy::from_name);
        let moved = limit != self.front.limit;
        self.front.limit = limit;
        for partition in &mut self.partitions {
            let other = policy.filter(|&policy| policy != partition.store.policy());
            if let Some(policy) = other {
                partition.store.set_policy(policy);
            }
            partition.limited = limit.is_some_and(|bytes| bytes > 0);
            if moved || other.is_some() {
                // Whether it still is, the host's next look at the budget tells.
                partition.full = false;
            }
        }
    }

    /// This worker's share of a limit for the node: all have the same, and 0 stays no limit.
    fn share(&self, bytes: usize) -> usize {
        (bytes / self.others.count()).max(bytes.min(1))
    }

    /// Whether commands that need memory are refused in partition `at`.
    pub(crate) fn is_out_of_memory(&self, at: usize) -> bool {
        let partition = &self.partitions[at];
        if partition.full || !partition.limited {
            return partition.full;
        }
        let keys: usize = self.partitions.iter().map(|partition| partition.store.len()).sum();
        // One more key, for the command itself.
        let least = (keys + 1).saturating_mul(Table::ENTRY_BYTES);
        let stays = partition.store.policy() == Policy::NoEviction;
        let limit = self.front.limit.unwrap_or(usize::MAX);
        stays && least > limit || self.partitions.iter().any(|partition| partition.full)
    }

    /// Writes that need memory are refused (true) in partition `at`: its keys alone are over the budget.
    pub fn set_full(&mut self, at: usize, full: bool) {
        self.partitions[at].full = full;
    }

    /// Deletes `key` of partition `at`, which weighs `bytes`, by a logged command: a cache's eviction.
    pub fn evict(&mut self, at: usize, key: &[u8], bytes: usize) {
        if !self.partitions[at].leads {
            return;
        }
        self.submit_own(at, DEL, &[key]);
        let partition = &mut self.partitions[at];
        partition.leaving += bytes as u64;
        let last = partition.open.queued.last_mut().expect("it was just queued");
        *last = Queued { what: What::Evict(bytes as u64), ..*last };
    }

    /// A deletion is applied and removed so many `keys`, or is refused by the log.
    pub(crate) fn evicted(&mut self, at: usize, bytes: u64, keys: u64) {
        self.front.evicted += keys;
        self.partitions[at].leaving -= bytes;
    }
}
