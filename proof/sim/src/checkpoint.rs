//! Checkpoints at seeded moments: cut in slices between turns, committed once the log is synced up to the
//! cut, then the log behind it given back; and bodies evicted that the engine has.

use kernel::{Lsn, Rng, Term};
use node::Worker;

use crate::engine::{Engine, Job};
use crate::log::Log;
use crate::plan::Plan;

/// About this long for the engine to make a checkpoint durable, in microseconds.
const COMMIT_MICROS: u64 = 3_000;

/// The checkpoints of one process.
#[derive(Default)]
pub struct Checkpointer {
    cutting: Option<(usize, Term, Lsn)>,
    waiting: Option<(usize, Lsn, Job)>,
    committing: Option<(usize, u64, Job)>,
}

impl Checkpointer {
    /// Goes on a step; returns the group and index of a checkpoint that became durable.
    pub fn step(
        &mut self,
        worker: &mut Worker,
        log: &mut Log,
        engine: &Engine,
        plan: &Plan,
        rng: &mut Rng,
    ) -> Option<String> {
        let mut news = None;
        if self.committing.as_ref().is_some_and(|(_, at, _)| *at <= log.now)
            && let Some((at, _, job)) = self.committing.take()
        {
            engine.commit(&job);
            worker.partitions_mut()[at].store_mut().cut_is_durable();
            log.commit.checkpoint(job.group, job.frame.index);
            let (count, index) = (job.images.len(), job.frame.index);
            news = Some(format!("checkpoint of {} at {index} is durable, {count} changes", job.group));
        }
        if self.committing.is_none()
            && self.waiting.as_ref().is_some_and(|(_, after, _)| *after <= log.commit.durable())
            && let Some((at, _, job)) = self.waiting.take()
        {
            self.committing = Some((at, log.now + rng.below(COMMIT_MICROS), job));
        }
        if !worker.partitions().is_empty() {
            self.cut(worker, plan, rng);
        }
        if worker.partitions().is_empty() {
            return news;
        }
        if rng.chance(plan.evict) {
            let at = rng.below(worker.partitions().len() as u64) as usize;
            worker.partitions_mut()[at].store_mut().evict_bodies(2_000, 8);
        }
        news
    }

    fn cut(&mut self, worker: &mut Worker, plan: &Plan, rng: &mut Rng) {
        if let Some((at, term, after)) = self.cutting {
            let partition = &mut worker.partitions_mut()[at];
            let group = partition.group_id();
            match partition.store_mut().write_cut(1 + rng.below(400) as usize) {
                Some((frame, images)) => {
                    self.waiting = Some((at, after, Job { group, term, frame, images }));
                    self.cutting = None;
                }
                // A flush has undone it.
                None if !partition.store().is_cutting() => self.cutting = None,
                None => {}
            }
            return;
        }
        if self.waiting.is_some() || self.committing.is_some() || !rng.chance(plan.checkpoint) {
            return;
        }
        let at = rng.below(worker.partitions().len() as u64) as usize;
        let after = worker.appended();
        let partition = &mut worker.partitions_mut()[at];
        if !partition.store().is_cutting() {
            let term = partition.term();
            partition.store_mut().begin_cut();
            self.cutting = Some((at, term, after));
        }
    }

    /// The process ends: a commit on its way is durable or not at all.
    pub fn end(&mut self, engine: &Engine, rng: &mut Rng) {
        if let Some((_, _, job)) = self.committing.take()
            && rng.chance(0.5)
        {
            engine.commit(&job);
        }
    }
}
