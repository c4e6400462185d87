//! When a worker must be woken, and what time does to it.

use kernel::Micros;

use crate::partition::Partition;
use crate::worker::Worker;

impl Worker {
    /// When [`Worker::wake`] should be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Micros> {
        let expiry = |partition: &Partition| {
            // A leader that cannot log, or a follower, reaps nothing when the time comes.
            if partition.replicated && !(partition.leads && partition.is_quiet()) {
                return None;
            }
            // Nor does one that stands still.
            let not_before =
                partition.still_until().map_or(partition.tick_after, |until| until.max(partition.tick_after));
            partition.store.next_expiry().map(|at| at.micros().max(not_before))
        };
        let waiter =
            |partition: &Partition| partition.waiters.values().filter_map(|waiter| waiter.deadline).min();
        let untried = |partition: &Partition| partition.untried.then_some(partition.tick_after);
        let all = |one: &Partition| [expiry(one), waiter(one), untried(one), one.still_until()];
        let partitions = self.partitions.iter().flat_map(all);
        partitions
            .flatten()
            .chain(self.front.deadline())
            .chain(self.replicas_deadline())
            .chain(self.post_deadline())
            .min()
    }

    /// Lets time pass: waiting clients time out, expired keys are reaped by a logged tick.
    pub fn wake(&mut self, now: Micros) {
        self.now = now;
        self.wake_clients();
        self.wake_replicas();
        self.wake_post();
        for at in 0..self.partitions.len() {
            self.wake_still(at);
            self.expire_waiters(at);
            if self.partitions[at].untried && now >= self.partitions[at].tick_after {
                self.try_all(at);
            }
            let partition = &self.partitions[at];
            if !partition.leads {
                continue;
            }
            let due = partition.store.next_expiry().is_some_and(|expiry| expiry <= now.millis());
            if due && now >= partition.tick_after && partition.is_quiet() {
                self.tick(at);
            }
        }
    }
}
