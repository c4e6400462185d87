//! Background checkpoints, the memory budget and cache eviction: the worker's work between turns.
//!
//! A cut is written out in slices on the worker's thread; an engine thread makes it durable, one of all
//! workers at a time; then the log behind it is given back. A cut reaches the engine only after the log up
//! to it is synced, so the engine is never ahead of the log.

pub(crate) mod keeper;

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use disk::engine::{Engine, Mark};
use disk::log::Log;
use kernel::{GroupId, Index, Lsn, Micros, Term};
use node::Worker;
use node::cluster::Holding;
use runtime::{Remote, Tasks};
use storage::store::Policy;
use storage::store::checkpoint::Frame;
use telemetry::StorageMeters;

use self::keeper::Keeper;
use crate::fetch::Fetchers;
use crate::held;
use crate::persist::{Cut, Done, Job, Persister};

/// When checkpoints are made and what memory may be used.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointOptions {
    /// A partition with more changed bytes than this is checkpointed.
    pub dirty_bytes: usize,
    /// A log larger than this is shortened by checkpoints.
    pub log_bytes: u64,
}

impl Default for CheckpointOptions {
    fn default() -> CheckpointOptions {
        CheckpointOptions { dirty_bytes: 16 << 20, log_bytes: 256 << 20 }
    }
}

/// Bytes of a cut written out between two turns.
const SLICE_BYTES: usize = 128 * 1024;
/// How often conditions are looked at.
const LOOK_MICROS: u64 = 5_000;
/// With this many halves of `dirty_bytes` changed, writers wait for the checkpoint.
const STALL_HALVES: usize = 3;
/// A cut writes each changed object as a whole: it waits until what was written is this part of that, or a
/// large list that grows would be written again and again.
const WRITTEN_SHARE: u64 = 2;
/// Keys deleted by a cache's policy between two turns.
const EVICT_STEPS: usize = 64;
/// Bodies that leave memory between two turns: more than one turn can bring back.
const EVICT_BODIES: usize = 4096;

/// One partition's checkpoints.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// A group that begins here once the engine is ready for it.
    coming: Option<GroupId>,
    /// Whose they are. None: there is nothing at this place to be checkpointed.
    group: Option<GroupId>,
    durable: Index,
    underway: bool,
    stalled: bool,
    /// What the partition had written when its last cut began.
    written_at_cut: u64,
}

impl Progress {
    /// Of a partition whose last checkpoint is at `durable`.
    const fn begin(group: GroupId, durable: Index) -> Progress {
        Progress {
            coming: None,
            group: Some(group),
            durable,
            underway: false,
            stalled: false,
            written_at_cut: 0,
        }
    }
}

/// What changed since a partition's last cut began.
#[derive(Clone, Copy, Debug)]
struct Changes {
    /// Bytes of the objects that changed.
    dirty: usize,
    /// Bytes of the writes that changed them.
    written: u64,
}

impl Changes {
    /// A cut is worth its cost.
    const fn are_enough(self, limit: usize) -> bool {
        self.dirty > limit && self.written >= self.dirty as u64 / WRITTEN_SHARE
    }

    /// Writers are ahead of the cut that is under way.
    const fn are_too_many(self, limit: usize) -> bool {
        let most = limit / 2 * STALL_HALVES;
        self.dirty > most && self.written > most as u64
    }
}

/// The worker's background tasks. See the module's text.
pub struct Checkpointer {
    options: CheckpointOptions,
    log: Arc<Log>,
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    /// Dropped to have no checkpoint tried again.
    patience: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    waiting: VecDeque<Cut>,
    progress: Vec<Progress>,
    looked: Micros,
    /// The latest turn's time.
    now: Micros,
    cutting: Option<Cutting>,
    /// Partitions asked for regardless of size.
    requested: VecDeque<usize>,
    meters: Arc<StorageMeters>,
    /// Other threads want all partitions checkpointed, and how often that was done.
    asked: Arc<Asked>,
    answered: u64,
    /// Its share of the figure of running checkpoints.
    running: u64,
    /// The partition that is the first to be kept to a budget.
    first: usize,
    fetchers: Fetchers,
    /// What it does for a cluster, if the node is in one.
    keeper: Option<Keeper>,
}

/// A cut that is being written out.
#[derive(Clone, Debug)]
struct Cutting {
    at: usize,
    term: Term,
    /// The log must be synced up to here before it may reach the engine.
    after: Lsn,
    /// What a replicated group's mark says besides.
    holding: Option<Holding>,
}

/// What the checkpoints of all workers of a node share.
#[derive(Debug, Default)]
pub struct Asked {
    times: AtomicU64,
    disk: Mutex<Disk>,
}

/// Whether the engine's disk can be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Disk {
    /// It can.
    #[default]
    Sound,
    /// A sync failed, which is final for all workers.
    Failed,
}

impl Asked {
    /// Asks for a checkpoint of every partition of the node.
    pub fn ask(&self) {
        self.times.fetch_add(1, Ordering::AcqRel);
    }

    fn times(&self) -> u64 {
        self.times.load(Ordering::Acquire)
    }

    /// While this is held, no other worker's checkpoint is in the engine.
    pub(crate) fn engine(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checkpointer {
    /// Starts the engine thread. `durable` holds each partition's last checkpoint, in the worker's order; `remote`
    /// wakes the worker when a checkpoint is durable.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        options: CheckpointOptions,
        log: Arc<Log>,
        engine: Arc<Engine>,
        durable: Vec<(GroupId, Index)>,
        meters: Arc<StorageMeters>,
        asked: Arc<Asked>,
        fetchers: Fetchers,
    ) -> std::io::Result<(Checkpointer, Sender<Remote>)> {
        let (jobs, queue) = channel::<Job>();
        let (answers, done) = channel();
        let (remotes, remote) = channel::<Remote>();
        let (patience, ended) = channel();
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn({
            let (log, meters, asked) = (Arc::clone(&log), Arc::clone(&meters), Arc::clone(&asked));
            let persister = Persister { engine, log, ended, meters, asked, failed: Cell::new(0) };
            move || persister.run(&queue, &answers, &remote)
        })?;
        let progress = durable.into_iter().map(|(group, durable)| Progress::begin(group, durable)).collect();
        let checkpointer = Checkpointer {
            options,
            log,
            jobs: Some(jobs),
            done,
            patience: Some(patience),
            thread: Some(thread),
            waiting: VecDeque::new(),
            progress,
            looked: Micros(0),
            now: Micros(0),
            cutting: None,
            requested: VecDeque::new(),
            meters,
            answered: asked.times(),
            asked,
            running: 0,
            first: 0,
            fetchers,
            keeper: None,
        };
        Ok((checkpointer, remotes))
    }

    /// Asks for a checkpoint of every partition that has something new.
    pub fn request_all(&mut self, worker: &Worker) {
        let news = |at: &usize| self.has_news(worker, *at);
        self.requested = (0..self.progress.len()).filter(news).collect();
    }

    /// Checkpoints everything and waits until it is durable: the end of a graceful stop. What the engine
    /// does not take now is left to the log.
    pub fn finish(mut self, worker: &mut Worker) {
        self.request_all(worker);
        while !self.requested.is_empty() || self.cutting.is_some() || self.progress.iter().any(|p| p.underway)
        {
            self.advance(worker);
            if self.cutting.is_none() && self.requested.is_empty() {
                // The log is synced by now or within a second, the engine answers each job.
                if let Ok(done) = self.done.recv_timeout(std::time::Duration::from_millis(20)) {
                    self.durable(worker, done);
                } else if self.meters.checkpoint_failed.get() > 0
                    || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
                {
                    break;
                }
            }
        }
        self.fetchers.end();
        (self.jobs, self.patience) = (None, None);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread ended badly");
        }
    }

    fn advance(&mut self, worker: &mut Worker) -> bool {
        while let Ok(done) = self.done.try_recv() {
            self.durable(worker, done);
        }
        self.hand_over();
        if let Some(cutting) = self.cutting.clone() {
            return self.write(worker, cutting);
        }
        let Some(at) = self.requested.pop_front() else { return false };
        let Some(partition) = worker.partitions_mut().get_mut(at) else { return true };
        if partition.store().is_cutting() || !partition.may_be_cut() {
            self.requested.push_back(at);
            return false;
        }
        let (term, holding) = (partition.term(), partition.cut());
        partition.store_mut().begin_cut();
        self.progress[at].written_at_cut = partition.written();
        self.progress[at].underway = true;
        self.cutting = Some(Cutting { at, term, after: worker.appended(), holding });
        // Synced while the cut is written out; a keyspace with `everysec` would let it wait for its second.
        self.log.hurry();
        true
    }

    fn write(&mut self, worker: &mut Worker, Cutting { at, term, after, holding }: Cutting) -> bool {
        let partition = &mut worker.partitions_mut()[at];
        let group = partition.group_id();
        match partition.store_mut().write_cut(SLICE_BYTES) {
            Some((Frame { index, generation, objects, state }, images)) => {
                let standing = holding.as_ref().map(held::standing).unwrap_or_default();
                let mark = Mark { index, term, generation, objects, standing, state };
                self.waiting.push_back(Cut { partition: at, group, mark, images, after });
                self.cutting = None;
                self.hand_over();
            }
            None if !partition.store().is_cutting() => {
                // A flush has undone it.
                self.progress[at].underway = false;
                self.cutting = None;
            }
            None => {}
        }
        true
    }

    fn hand_over(&mut self) {
        let synced = self.log.synced();
        while self.waiting.front().is_some_and(|cut| cut.after <= synced) {
            if let Some(cut) = self.waiting.pop_front() {
                self.give(Job::Cut(cut));
            }
        }
    }

    fn give(&self, job: Job) {
        if let Some(jobs) = &self.jobs
            && jobs.send(job).is_err()
        {
            tracing::error!("the engine has failed; no more checkpoints are made");
        }
    }

    fn durable(&mut self, worker: &mut Worker, done: Done) {
        match done {
            Done::Cut(at, group, index) => self.cut_is_durable(worker, at, group, index),
            Done::Kept => {}
            done => self.tell(worker, done),
        }
    }

    fn cut_is_durable(&mut self, worker: &mut Worker, at: usize, group: GroupId, index: Index) {
        // The replica that it was made of may have gone meanwhile.
        if self.progress[at].group != Some(group) || !self.progress[at].underway {
            return;
        }
        worker.partitions_mut()[at].store_mut().cut_is_durable();
        // A snapshot on its way to a follower needs the entries behind it.
        let needless = worker.checkpointed(at, index);
        self.log.checkpointed(group, needless);
        self.hold_if_wanted(at, group);
        self.progress[at].durable = index;
        self.progress[at].underway = false;
        // Whoever waits for it goes on now, and not with the next event.
        self.looked = Micros(0);
    }

    fn look(&mut self, worker: &mut Worker) {
        let asked = self.asked.times();
        if std::mem::replace(&mut self.answered, asked) < asked {
            (0..self.progress.len()).for_each(|at| self.request(worker, at));
        }
        let log_bytes = self.log.bytes();
        self.meters.log_bytes.set(log_bytes.total());
        self.meters.log_reserved_bytes.set(log_bytes.reserved);
        let running = self.progress.iter().filter(|p| p.underway).count() as u64;
        self.meters.checkpoint_running.shift(std::mem::replace(&mut self.running, running), running);
        if log_bytes.needed > self.options.log_bytes
            && let Some(group) = self.log.lagging_group()
            && let Some(at) = worker.partitions().iter().position(|partition| partition.group_id() == group)
        {
            self.request(worker, at);
        }
        let taken = worker.memory_shared();
        for at in 0..self.progress.len() {
            if self.progress[at].group.is_none() {
                continue;
            }
            let store = worker.partitions()[at].store();
            let dirty = store.dirty_bytes();
            let written = worker.partitions()[at].written() - self.progress[at].written_at_cut;
            let changes = Changes { dirty, written };
            let budget = worker.budget_of(at, taken);
            // Bodies can leave memory only after a checkpoint.
            let pressed = budget.is_some_and(|budget| worker.memory_after(at) > budget && dirty > budget / 8);
            if changes.are_enough(self.options.dirty_bytes) || pressed {
                self.request(worker, at);
            }
            let stalled = changes.are_too_many(self.options.dirty_bytes) && self.progress[at].underway;
            if stalled != self.progress[at].stalled {
                self.progress[at].stalled = stalled;
                worker.set_stalled(at, stalled);
            }
        }
    }

    fn request(&mut self, worker: &Worker, at: usize) {
        let idle = !self.progress[at].underway && !self.requested.contains(&at);
        if idle && self.has_news(worker, at) {
            self.requested.push_back(at);
        }
    }

    /// Whether a checkpoint of partition `at` would say something new.
    fn has_news(&self, worker: &Worker, at: usize) -> bool {
        let Progress { group, durable, .. } = self.progress[at];
        group.is_some() && worker.partitions()[at].store().applied() > durable
    }

    /// Keeps all partitions to their budgets. True if there is more that can be done at once. A limit that they
    /// share is kept by all: each time another one is the first to lose something.
    fn relieve_all(&mut self, worker: &mut Worker) -> bool {
        let (mut more, mut taken, count) = (false, worker.memory_shared(), self.progress.len());
        self.first = if self.first + 1 < count { self.first + 1 } else { 0 };
        for at in (self.first..count).chain(0..self.first) {
            let before = worker.memory_after(at);
            more |= self.relieve(worker, at, taken);
            taken = (taken + worker.memory_after(at)).saturating_sub(before);
        }
        more
    }

    /// Keeps partition `at` to its budget. True if it is still over it and something can be done at once.
    fn relieve(&mut self, worker: &mut Worker, at: usize, taken: usize) -> bool {
        let budget = worker.budget_of(at, taken);
        let over = match budget {
            Some(budget) => worker.memory_after(at).saturating_sub(budget),
            None => 0,
        };
        if over == 0 {
            let room = budget.is_none_or(|budget| worker.memory_after(at) < budget - budget / 16);
            if room {
                worker.partitions_mut()[at].store_mut().make_room();
            }
            worker.set_full(at, false);
            return false;
        }
        let leads = worker.partitions()[at].leads();
        let store = worker.partitions_mut()[at].store_mut();
        if store.policy() != Policy::NoEviction && !leads {
            // Who leads deletes keys, and this copy with it.
            worker.set_full(at, false);
            return false;
        }
        if store.policy() != Policy::NoEviction {
            let mut left = over;
            for _ in 0..EVICT_STEPS {
                let store = worker.partitions_mut()[at].store_mut();
                let Some(key) = store.victim() else { break };
                let bytes = store.usage(&key).unwrap_or(0);
                worker.evict(at, &key, bytes);
                self.meters.evicted_keys.add_among_others(1);
                left = left.saturating_sub(bytes);
                if left == 0 {
                    break;
                }
            }
            let hopeless = left > 0 && worker.partitions_mut()[at].store_mut().victim().is_none();
            worker.set_full(at, hopeless);
            return left > 0 && !hopeless;
        }
        let freed = store.evict_bodies(over, EVICT_BODIES);
        self.meters.evicted_bytes.add_among_others(freed as u64);
        let searched = freed > 0 || store.is_barren();
        let hopeless = freed == 0 && searched && !store.is_dirty() && !store.is_cutting();
        worker.set_full(at, hopeless);
        freed < over && (freed > 0 || !searched)
    }
}

impl Tasks for Checkpointer {
    fn hand_out(&mut self, worker: &mut Worker) {
        if worker.has_fetches() {
            self.fetchers.take(worker);
        }
        if self.keeper.is_some() {
            self.take_jobs(worker);
        }
    }

    fn run(&mut self, worker: &mut Worker, now: Micros) -> bool {
        self.now = now;
        let mut more = self.advance(worker);
        more |= self.relieve_all(worker);
        if now.since(self.looked) >= LOOK_MICROS {
            self.looked = now;
            self.look(worker);
            more |= self.cutting.is_none() && !self.requested.is_empty();
        }
        // Writers that were stalled, or deletions, are for the worker's next turn, which nothing else starts.
        more || worker.is_ready()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_object_that_grows_is_not_cut_again_and_again() {
        const MIB: usize = 1 << 20;
        #[rustfmt::skip] // columns
        let table = [
            // changed, written         enough  too many
            (15 * MIB, 15 * MIB,        false,  false),
            (17 * MIB, 15 * MIB,        true,   false),
            (25 * MIB, 25 * MIB,        true,   true),
            // One list of 70 MiB.
            (70 * MIB, MIB,             false,  false),
            (70 * MIB, 34 * MIB,        false,  true),
            (70 * MIB, 36 * MIB,        true,   true),
            // The same keys over and over.
            (11 * MIB, 400 * MIB,       false,  false),
        ];
        for (dirty, written, enough, too_many) in table {
            let changes = Changes { dirty, written: written as u64 };
            let found = (changes.are_enough(16 * MIB), changes.are_too_many(16 * MIB));
            assert_eq!(found, (enough, too_many), "{changes:?}");
        }
    }
}
