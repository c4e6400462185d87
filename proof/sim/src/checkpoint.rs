//! Checkpoints at seeded moments: cut in slices between turns, committed once the log is synced up to the
//! cut, then the log behind it given back; and bodies evicted that the engine has.

use kernel::{GroupId, Index, Lsn, Rng, Term};
use node::Worker;
use node::cluster::Holding;

use crate::engine::{Engine, Job};
use crate::log::Log;

/// About this long for the engine to make a checkpoint durable, in microseconds.
const COMMIT_MICROS: u64 = 3_000;

/// How often what is done, per turn.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// A checkpoint begins, if none is under way.
    pub checkpoint: f64,
    /// Some bodies are evicted.
    pub evict: f64,
}

/// A checkpoint that became durable.
#[derive(Clone, Copy, Debug)]
pub struct Durable {
    /// The partition's place.
    pub at: usize,
    /// Its group.
    pub group: GroupId,
    /// The index of the cut.
    pub index: Index,
    /// How many objects changed.
    pub changes: usize,
}

/// A cut that is being written out.
struct Cutting {
    at: usize,
    group: GroupId,
    term: Term,
    /// The log must be synced up to here first.
    after: Lsn,
    holding: Option<Holding>,
}

/// The checkpoints of one process.
#[derive(Default)]
pub struct Checkpointer {
    cutting: Option<Cutting>,
    waiting: Option<(usize, Lsn, Job)>,
    committing: Option<(usize, u64, Job)>,
    /// The partition that must be cut next.
    wanted: Option<usize>,
}

impl Checkpointer {
    /// Goes on a step; returns a checkpoint that became durable.
    pub fn step(
        &mut self,
        worker: &mut Worker,
        log: &mut Log,
        engine: &Engine,
        rates: Rates,
        rng: &mut Rng,
    ) -> Option<Durable> {
        let mut news = None;
        if self.committing.as_ref().is_some_and(|(_, due, _)| *due <= log.now)
            && let Some((at, _, job)) = self.committing.take()
        {
            engine.commit(&job);
            worker.partitions_mut()[at].store_mut().cut_is_durable();
            log.commit.checkpoint(job.group, job.frame.index);
            news = Some(Durable { at, group: job.group, index: job.frame.index, changes: job.images.len() });
        }
        if self.committing.is_none()
            && self.waiting.as_ref().is_some_and(|(_, after, _)| *after <= log.commit.durable())
            && let Some((at, _, job)) = self.waiting.take()
        {
            self.committing = Some((at, log.now + rng.below(COMMIT_MICROS), job));
        }
        if !worker.partitions().is_empty() {
            self.cut(worker, rates, rng);
        }
        if worker.partitions().is_empty() {
            return news;
        }
        if rng.chance(rates.evict) {
            let at = rng.below(worker.partitions().len() as u64) as usize;
            worker.partitions_mut()[at].store_mut().evict_bodies(2_000, 8);
        }
        news
    }

    fn cut(&mut self, worker: &mut Worker, rates: Rates, rng: &mut Rng) {
        if let Some(cutting) = &self.cutting {
            let at = cutting.at;
            let store = worker.partitions_mut()[at].store_mut();
            match store.write_cut(1 + rng.below(400) as usize) {
                Some((frame, images)) => {
                    let Some(cutting) = self.cutting.take() else { return };
                    let Cutting { group, term, after, holding, .. } = cutting;
                    self.waiting = Some((at, after, Job { group, term, frame, images, holding }));
                }
                // A flush has undone it.
                None if !store.is_cutting() => self.cutting = None,
                None => {}
            }
            return;
        }
        if self.waiting.is_some() || self.committing.is_some() {
            return;
        }
        if self.wanted.is_none() && !rng.chance(rates.checkpoint) {
            return;
        }
        let drawn = rng.below(worker.partitions().len() as u64) as usize;
        let at = self.wanted.take().unwrap_or(drawn);
        let after = worker.appended();
        let partition = &mut worker.partitions_mut()[at];
        if partition.is_gone() || !partition.may_be_cut() || partition.store().is_cutting() {
            return;
        }
        let (group, term, holding) = (partition.group_id(), partition.term(), partition.cut());
        partition.store_mut().begin_cut();
        self.cutting = Some(Cutting { at, group, term, after, holding });
    }

    /// Partition `at` is cut as soon as nothing else is.
    pub const fn want(&mut self, at: usize) {
        self.wanted = Some(at);
    }

    /// Another state takes the place of partition `at`: a checkpoint of it that is under way is given up.
    pub fn give_up(&mut self, at: usize) {
        self.cutting = self.cutting.take().filter(|cutting| cutting.at != at);
        self.waiting = self.waiting.take().filter(|(other, ..)| *other != at);
        self.committing = self.committing.take().filter(|(other, ..)| *other != at);
    }

    /// When it must be looked at next.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        self.committing.as_ref().map(|(_, due, _)| *due)
    }

    /// Whether it has something to do at once.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.cutting.is_some() || self.wanted.is_some()
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
