//! What the checkpointer does for a cluster: partitions come and go, and the control group has a checkpoint too.
//!
//! Everything that must be durable goes to the engine thread, behind the cuts that it has already; what the worker waits
//! for comes back as [`node::cluster::Done`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use consensus::Logged;
use control::CONTROL;
use disk::engine::Engine;
use disk::log::OldEntry;
use kernel::{GroupId, Index, KeyspaceId, NodeId};
use node::Worker;
use node::cluster::{Done, Holding, Job, store_seed};
use storage::reach::Scope;
use telemetry::StorageMeters;

use super::{Checkpointer, Progress};
use crate::cluster::incarnation;
use crate::load::EngineFetch;
use crate::snapshot::Install;
use crate::{held, persist};

/// A link to have, or not to have any more.
#[derive(Debug)]
pub(crate) enum LinkJob {
    /// To this node, at one of these addresses.
    Have(NodeId, Vec<SocketAddr>),
    /// None to this node.
    Drop(NodeId),
}

/// What is needed for it.
pub(crate) struct Keeper {
    /// The links of the same loop.
    pub links: Sender<LinkJob>,
    /// The last checkpoint of each group that the engine has.
    pub durable: BTreeMap<GroupId, Index>,
    /// The data directory.
    pub dir: PathBuf,
    /// Where bodies are read from.
    pub engine: Arc<Engine>,
    /// What that is counted in.
    pub meters: Arc<StorageMeters>,
    /// Partitions whose next checkpoint is held for followers.
    pub wanted: BTreeSet<usize>,
    /// The chance that all replicas of the cluster share.
    pub seed: u64,
    /// Bytes of memory that the entries of a keyspace's partitions may take.
    pub budgets: BTreeMap<KeyspaceId, usize>,
    /// Memory for the worker's jobs.
    pub jobs: Vec<Job>,
}

impl Checkpointer {
    /// The same for a node in a cluster.
    #[must_use]
    pub(crate) fn keeping(mut self, keeper: Keeper) -> Checkpointer {
        self.keeper = Some(keeper);
        self
    }

    /// Begins what the worker asks of its host.
    #[cold]
    pub(super) fn take_jobs(&mut self, worker: &mut Worker) {
        let Some(keeper) = &mut self.keeper else { return };
        let mut jobs = std::mem::take(&mut keeper.jobs);
        worker.take_jobs(&mut jobs);
        for job in jobs.drain(..) {
            self.begin(worker, job);
        }
        if let Some(keeper) = &mut self.keeper {
            keeper.jobs = jobs;
        }
    }

    fn begin(&mut self, worker: &mut Worker, job: Job) {
        let Some(keeper) = &mut self.keeper else { return };
        match job {
            Job::Link { node, addresses } => {
                // A loop that ends has no links.
                let _ = keeper.links.send(LinkJob::Have(node, addresses));
            }
            Job::Unlink { node } => {
                let _ = keeper.links.send(LinkJob::Drop(node));
            }
            Job::Added { at, group, holding, fresh } => self.add(worker, (at, group), &holding, fresh),
            Job::Removed { at, group } => {
                self.remove(at);
                self.give(persist::Job::End { partition: at, group });
            }
            Job::PersistControl { holding, state } => {
                self.give(persist::Job::Control(held::empty_mark(&holding, state)));
            }
            Job::MakeSnapshot { at } => self.hold(worker, at),
            Job::Transfer(task) => self.give(persist::Job::Transfer(task)),
            // The worker moves snapshots itself.
            Job::FetchSnapshot { at, descriptor, .. } => {
                let generation = descriptor.generation;
                worker.job_done(self.now, Done::Fetched { at, generation, here: false });
            }
            Job::Install { at, group, descriptor, holding } => {
                let Some(scope) = scope(worker, group) else { return };
                let (seed, db) = (store_seed(keeper.seed, group), group.keyspace());
                let install = Install {
                    partition: at,
                    group,
                    index: descriptor.mark.index,
                    standing: held::standing(&holding),
                    seed,
                    budget: keeper.budgets.get(&db).copied(),
                    scope,
                };
                self.remove(at);
                self.give(persist::Job::Install(install));
            }
            Job::ReadEntries { at, group, first, last } => {
                self.give(persist::Job::Read { partition: at, group, first, last });
            }
            Job::Incarnation(number) => {
                let (dir, bytes) = (keeper.dir.clone(), incarnation::line(number).into_bytes());
                self.give(persist::Job::Keep { dir, name: incarnation::NAME, bytes });
            }
        }
    }

    /// A partition came: from now on it is checkpointed.
    fn add(&mut self, worker: &mut Worker, (at, group): (usize, GroupId), holding: &Holding, fresh: bool) {
        let Some(keeper) = &self.keeper else { return };
        if self.progress.len() <= at {
            self.progress.resize_with(at + 1, Progress::default);
        }
        if fresh {
            self.progress[at] = Progress { coming: Some(group), ..Progress::default() };
            let mark = held::empty_mark(holding, worker.partitions()[at].store().encode_state());
            return self.give(persist::Job::Begin { partition: at, group, mark });
        }
        let durable = keeper.durable.get(&group).copied().unwrap_or_default();
        self.progress[at] = Progress::begin(group, durable);
        self.read_through(worker, at, group);
    }

    /// Has a checkpoint of partition `at` held for followers: the last one, or a new one if there is news.
    fn hold(&mut self, worker: &Worker, at: usize) {
        if !self.has_news(worker, at) && !self.progress[at].underway {
            let group = worker.partitions()[at].group_id();
            return self.give(persist::Job::Hold { partition: at, group });
        }
        self.request(worker, at);
        if let Some(keeper) = &mut self.keeper {
            keeper.wanted.insert(at);
        }
    }

    /// A checkpoint of partition `at` is durable: if one was wanted for followers, it is held.
    pub(super) fn hold_if_wanted(&mut self, at: usize, group: GroupId) {
        if self.keeper.as_mut().is_some_and(|keeper| keeper.wanted.remove(&at)) {
            self.give(persist::Job::Hold { partition: at, group });
        }
    }

    /// Bodies of partition `at` that are not in memory are in the engine.
    fn read_through(&self, worker: &mut Worker, at: usize, group: GroupId) {
        let Some(Keeper { engine, meters, .. }) = &self.keeper else { return };
        let (engine, meters) = (Arc::clone(engine), Some(Arc::clone(meters)));
        let fetch = EngineFetch { engine, group, meters };
        worker.partitions_mut()[at].store_mut().set_fetch(Box::new(fetch));
    }

    /// A partition went: what was to be made durable of it is not any more.
    fn remove(&mut self, at: usize) {
        self.cutting.take_if(|cutting| cutting.at == at);
        self.waiting.retain(|cut| cut.partition != at);
        self.requested.retain(|other| *other != at);
        if let Some(keeper) = &mut self.keeper {
            keeper.wanted.remove(&at);
        }
        if let Some(progress) = self.progress.get_mut(at) {
            *progress = Progress::default();
        }
    }

    /// Tells the worker what is durable now.
    pub(super) fn tell(&mut self, worker: &mut Worker, done: persist::Done) {
        let now = self.now;
        match done {
            persist::Done::Begun(at, group) => {
                // It may have gone before it began; that it went is told next.
                if self.progress[at].coming != Some(group) {
                    return;
                }
                let begun = worker.partitions()[at].store().applied();
                self.progress[at] = Progress::begin(group, begun);
                // What the log says of its beginning is no reason to keep the log.
                self.log.checkpointed(group, begun);
                self.read_through(worker, at, group);
                worker.job_done(now, Done::Added { at });
            }
            persist::Done::Ended(at, group) => {
                self.log.forget(group);
                worker.job_done(now, Done::Removed { at });
            }
            persist::Done::Control(index) => {
                self.log.checkpointed(CONTROL, index);
                worker.job_done(now, Done::ControlPersisted { index });
            }
            persist::Done::Held(at, group, descriptor) => {
                if worker.partitions()[at].group_id() == group {
                    worker.job_done(now, Done::Made { at, descriptor });
                }
            }
            persist::Done::Transferred(report) => {
                if let Some(report) = report {
                    worker.job_done(now, Done::Transferred(report));
                }
            }
            persist::Done::Read(at, group, last, entries) => {
                if worker.partitions()[at].group_id() == group {
                    let logged =
                        |it: OldEntry| Logged::new(it.term, it.index, it.semantics, it.time, &it.body);
                    let entries = entries.into_iter().map(logged).collect();
                    worker.job_done(now, Done::Entries { at, last, entries });
                }
            }
            persist::Done::Installed(at, group, store) => {
                // It may have gone meanwhile; that it went is told next.
                if worker.partitions()[at].group_id() != group {
                    return;
                }
                self.progress[at] = Progress::begin(group, store.applied());
                worker.job_done(now, Done::Installed { at, store });
                self.read_through(worker, at, group);
            }
            persist::Done::Cut(..) | persist::Done::Kept => {}
        }
    }
}

/// Which partition of its keyspace a group keeps; none if the cluster has no such keyspace any more.
fn scope(worker: &Worker, group: GroupId) -> Option<Scope> {
    let keyspace = worker.mind()?.state().keyspaces().get(&group.keyspace())?;
    Some(Scope { partitions: keyspace.settings.partitions, own: group.partition() })
}
