//! One simulated machine of a cluster: a disk, an engine, a clock, and mostly a process on them.

use std::collections::{BTreeMap, VecDeque};

use consensus::codec::Descriptor;
use consensus::replay::Tail;
use consensus::{Durability, Incarnation, Logged};
use control::{ReadFrom, Reading};
use journal::{Record, Salt};
use kernel::{GroupId, Index, KeyspaceId, Lsn, Micros, NodeId, Rng, Term};
use node::cluster::{Done, Holding, Kept, Past, Start};
use node::{Replays, Settings, SliceSteps, Worker};
use script::LuaEngine;
use storage::reach::Scope;

use crate::checkpoint::Checkpointer;
use crate::cluster::plan::Plan;
use crate::cluster::seats::{Seats, partitions};
use crate::disk::Disk;
use crate::engine::Engine;
use crate::fetch::Desk;
use crate::log::Log;

/// The clocks at the simulation's start, in microseconds since the epoch.
const EPOCH_MICROS: u64 = 1_700_000_000_000_000;
/// The chance that all nodes' stores share.
const SEED: u64 = 11;

/// An entry as a node has it in its log: term, time and body.
pub type Found = (u64, u64, Vec<u8>);
/// A group's log on one node.
pub type Entries = BTreeMap<u64, Found>;

/// What the host of a process is doing for its worker.
pub enum Work {
    /// See [`node::cluster::Job::Added`]: the engine is to hold this.
    Add { at: usize, group: GroupId, holding: Holding },
    /// The data is to be deleted.
    Remove { at: usize, group: GroupId },
    /// A snapshot is on its way.
    Fetch { at: usize, group: GroupId, from: NodeId, descriptor: Descriptor },
    /// A snapshot is switched to.
    Install { at: usize, group: GroupId, descriptor: Descriptor, holding: Holding },
    /// Old entries are read.
    Read { at: usize, group: GroupId, first: Index, last: Index },
}

/// A process.
pub struct Life {
    /// Its worker.
    pub worker: Worker,
    /// Its log.
    pub log: Log,
    /// Its checkpoints.
    pub checkpointer: Checkpointer,
    /// Bodies that are read.
    pub desk: Desk,
    /// When the sync on its way ends.
    pub sync: Option<u64>,
    /// When it goes on with what it left to later turns.
    pub again: Option<u64>,
    /// When it was last woken.
    pub last_wake: u64,
    /// What it does for its worker, and when that is done.
    pub works: Vec<(u64, Work)>,
    /// Partitions of which a snapshot is to be made.
    pub snapshots: Vec<usize>,
    /// Each group's entries in its log.
    pub entries: BTreeMap<GroupId, Entries>,
    /// Those that are not synced, in the order of the log: where each ends there, its group, index and term.
    pub unsynced: VecDeque<(Lsn, GroupId, Index, Term)>,
}

/// A machine.
pub struct Machine {
    /// Its place among the machines.
    pub number: usize,
    /// The process, if one runs.
    pub life: Option<Life>,
    /// The log's files while no process has them.
    pub disk: Option<Disk>,
    /// The engine.
    pub engine: Engine,
    /// Processes so far.
    pub lives: u64,
    /// Its process is stopped until then.
    pub paused_until: u64,
    /// Syncs take long until then.
    pub slow_until: u64,
    /// The disk is full until then.
    pub full_until: u64,
    /// The process dies in its next turn.
    pub doomed: bool,
    /// The clock runs so many thousandths as fast as time.
    rate: u64,
    /// What it showed at the beginning.
    offset: u64,
}

/// The node of this number.
#[must_use]
pub fn node_id(number: usize) -> NodeId {
    NodeId([number as u8 + 1; 32])
}

/// The number of this node.
#[must_use]
pub const fn number_of(node: NodeId) -> usize {
    node.0[0] as usize - 1
}

impl Machine {
    /// A machine that is switched off and has nothing.
    #[must_use]
    pub fn new(number: usize, plan: &Plan, rng: &mut Rng) -> Machine {
        let rate = 1000 - plan.drift + rng.below(2 * plan.drift + 1);
        let offset = EPOCH_MICROS + rng.below(plan.skew_micros + 1);
        Machine {
            number,
            life: None,
            disk: None,
            engine: Engine::default(),
            lives: 0,
            paused_until: 0,
            slow_until: 0,
            full_until: 0,
            doomed: false,
            rate,
            offset,
        }
    }

    /// The time on its clock.
    #[must_use]
    pub const fn clock(&self, now: u64) -> Micros {
        Micros(self.offset + now * self.rate / 1000)
    }

    /// When its clock shows `at`.
    #[must_use]
    pub const fn when(&self, at: Micros) -> u64 {
        (at.0.saturating_sub(self.offset) * 1000).div_ceil(self.rate)
    }

    /// A process begins on what the disk has.
    ///
    /// # Errors
    /// The disk is refused, which an undamaged one must not be.
    pub fn start(&mut self, now: u64, plan: &Plan, seats: &Seats, rng: &mut Rng) -> Result<(), String> {
        self.lives += 1;
        let clock = self.clock(now);
        let mut entries = BTreeMap::new();
        let (log, kept) = match self.disk.take() {
            None => (Log::create(Disk::default(), Salt(rng.next_u64())), BTreeMap::new()),
            Some(disk) => self.recover(disk, plan, &mut entries, rng)?,
        };
        let start = Start {
            node: node_id(self.number),
            incarnation: Incarnation(self.lives),
            seed: SEED,
            chance: rng.next_u64(),
            kept,
        };
        let settings =
            Settings { started: clock, slice_steps: SliceSteps(plan.slice_steps), ..Settings::default() };
        let scripts = Box::new(LuaEngine::new());
        let mut worker = Worker::new(settings, Vec::new(), scripts, rng.next_u64()).with_cluster(start);
        for db in (0..plan.keyspaces.len() as u16).map(KeyspaceId) {
            worker.lay(db, partitions(plan, db));
            if plan.leases {
                worker.set_reading(db, Reading { from: ReadFrom::Lease, ..Reading::default() });
            }
        }
        for group in seats.groups() {
            if let Some(&(_, id)) = seats.of(group).iter().find(|(node, _)| *node == self.number) {
                worker.start_replica(clock, &seats.seating(plan, group, id));
            }
        }
        self.life = Some(Life {
            worker,
            log,
            checkpointer: Checkpointer::default(),
            desk: Desk::default(),
            sync: None,
            again: Some(now),
            last_wake: now,
            works: Vec::new(),
            snapshots: Vec::new(),
            entries,
            unsynced: VecDeque::new(),
        });
        Ok(())
    }

    fn recover(
        &self,
        disk: Disk,
        plan: &Plan,
        entries: &mut BTreeMap<GroupId, Entries>,
        rng: &mut Rng,
    ) -> Result<(Log, BTreeMap<GroupId, Kept>), String> {
        let mut replays = Replays::new(self.engine.holdings());
        let opened = Log::open(disk, &mut |record| {
            note(entries, &record);
            replays.record(record);
        });
        let (log, _) = opened.map_err(|(_, refusal)| refusal.to_string())?;
        let tail = if plan.durability == Durability::Always { Tail::Certain } else { Tail::Ambiguous };
        let found = replays.finish(tail).map_err(|error| error.to_string())?;
        let mut kept = BTreeMap::new();
        for (group, (replica, past)) in found {
            let store = self.load(group, plan, rng)?;
            if let Past::Restored(restored) = &past
                && store.applied() != restored.mark.index
            {
                let (state, mark) = (store.applied(), restored.mark.index);
                return Err(format!("group {group}: the state is at {state} and its mark at {mark}"));
            }
            kept.insert(group, Kept { replica, store, past });
        }
        Ok((log, kept))
    }

    /// What the engine has of a group.
    fn load(&self, group: GroupId, plan: &Plan, rng: &mut Rng) -> Result<storage::Store, String> {
        let mut store = self.engine.load_replica(group, SEED, rng)?;
        store.set_fetch(self.engine.reader(group));
        let partitions = partitions(plan, group.keyspace());
        Ok(store.within(Scope { partitions, own: group.partition() }))
    }

    /// The process is gone; what the system keeps of its writes, it keeps.
    pub fn end(&mut self, power_cut: bool, rng: &mut Rng) {
        let Some(mut life) = self.life.take() else { return };
        life.checkpointer.end(&self.engine, rng);
        for (_, work) in std::mem::take(&mut life.works) {
            // Each step of the engine is durable as a whole or not at all.
            if rng.chance(0.5) {
                self.engine_step(&work);
            }
        }
        self.engine.end();
        let mut disk = life.log.disk;
        if power_cut {
            disk.cut(rng)
        } else {
            disk.kill(rng)
        }
        disk.full = false;
        self.disk = Some(disk);
        (self.paused_until, self.slow_until, self.full_until, self.doomed) = (0, 0, 0, false);
    }

    fn engine_step(&self, work: &Work) -> bool {
        match work {
            Work::Add { group, holding, .. } => self.engine.begin(*group, holding.clone()),
            Work::Remove { group, .. } => self.engine.forget(*group),
            Work::Install { group, descriptor, holding, .. } => {
                return self.engine.install(*group, descriptor.generation, holding.clone());
            }
            Work::Fetch { .. } | Work::Read { .. } => {}
        }
        true
    }

    /// Does what is done by now; `fetches` says whether a snapshot could be had. Gives the groups whose state was
    /// exchanged, with its index.
    ///
    /// # Errors
    /// The engine does not have what it must.
    pub fn finish(
        &mut self,
        now: u64,
        plan: &Plan,
        rng: &mut Rng,
        fetches: &mut dyn FnMut(&Engine, NodeId, GroupId, &Descriptor) -> bool,
    ) -> Result<Vec<(GroupId, Index)>, String> {
        let clock = self.clock(now);
        let Some(life) = &mut self.life else { return Ok(Vec::new()) };
        let mut installed = Vec::new();
        let done: Vec<Work> =
            life.works.extract_if(.., |(due, _)| *due <= now).map(|(_, work)| work).collect();
        for work in done {
            if !self.engine_step(&work) {
                return Err("the snapshot that is switched to is not there".into());
            }
            let done = match work {
                Work::Add { at, .. } => Done::Added { at },
                Work::Remove { at, .. } => Done::Removed { at },
                Work::Fetch { at, group, from, descriptor } => {
                    let here = fetches(&self.engine, from, group, &descriptor);
                    Done::Fetched { at, generation: descriptor.generation, here }
                }
                Work::Install { at, group, .. } => {
                    let store = self.load(group, plan, rng)?;
                    installed.push((group, store.applied()));
                    Done::Installed { at, store: Box::new(store) }
                }
                Work::Read { at, group, first, last } => {
                    let entries = self.read(group, first, last);
                    Done::Entries { at, last, entries }
                }
            };
            let Some(life) = &mut self.life else { break };
            life.worker.job_done(clock, done);
        }
        Ok(installed)
    }

    /// Old entries out of the log; none if it begins behind the first.
    fn read(&self, group: GroupId, first: Index, last: Index) -> Vec<Logged> {
        let Some(life) = &self.life else { return Vec::new() };
        let mut found: BTreeMap<u64, Logged> = BTreeMap::new();
        // What is on its way to the disk is read back as it is in the cache.
        let read = Log::read(&life.log.disk, &mut |record| {
            if let Record::Entry(entry) = &record
                && entry.group == group
            {
                found.retain(|&index, _| index < entry.index.0);
                let logged = Logged::new(entry.term, entry.index, entry.semantics, entry.time, entry.body);
                found.insert(entry.index.0, logged);
            }
        });
        if read.is_err() {
            return Vec::new();
        }
        (first.0..=last.0).map_while(|index| found.remove(&index)).collect()
    }
}

/// Takes note of what a log has.
pub fn note(entries: &mut BTreeMap<GroupId, Entries>, record: &Record<'_>) {
    if let Record::Entry(entry) = record {
        let own = entries.entry(entry.group).or_default();
        own.retain(|&index, _| index < entry.index.0);
        own.insert(entry.index.0, (entry.term.0, entry.time.0, entry.body.to_vec()));
    }
}
