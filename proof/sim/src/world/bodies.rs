//! Bodies that workers ask for, and are brought.

use kernel::WorkerId;

use super::World;
use crate::fetch::Read;

impl World<'_> {
    /// Starts to read the bodies that a worker asks for.
    pub(super) fn fetch(&mut self, at: usize, own: WorkerId) {
        let mut fetches = Vec::new();
        self.node.members[at].worker.take_fetches(&mut fetches);
        let (micros, failure) =
            if self.calm { (0, 0.0) } else { (self.plan.fetch_micros, self.plan.fetch_failure) };
        for fetch in fetches {
            self.outcome.fetches += 1;
            self.trace.event(self.now, format_args!("worker {own} fetches {:?}", fetch.key));
            let read = Read { now: self.now, micros, failure };
            self.node.desk.take(read, own, fetch, &self.engine, &mut self.reading);
        }
    }

    /// Brings a worker the bodies that have been read.
    pub(super) fn bring(&mut self, at: usize, own: WorkerId) {
        for fetched in self.node.desk.done(self.now, own, &self.engine) {
            self.trace.event(self.now, format_args!("worker {own} is brought {fetched:?}"));
            if fetched.body.is_err() {
                self.judge.unreadable(&fetched.key);
            }
            self.node.members[at].worker.fetched([fetched]);
        }
    }
}
