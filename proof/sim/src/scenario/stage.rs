//! Where a scenario happens: a disk, an engine, and the node that runs on them, or does not.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use consensus::{Durability, Solo};
use journal::{Record, Salt};
use kernel::{ConnId, GroupId, Index, KeyspaceId, Lsn, Micros, Rng, Term};
use node::{Divisions, Partition, Recovery, Settings, Worker};
use storage::apply::NoScripts;
use storage::store::checkpoint::Image;
use storage::{Registry, Store};

use super::step::{Step, StepError};
use super::told;
use crate::disk::Disk;
use crate::engine::{Engine, Job};
use crate::log::{Asked, Log};

/// The node's clock at the beginning, in microseconds since the epoch.
const EPOCH_MICROS: u64 = 1_700_000_000_000_000;
/// Every scenario's chance.
const SEED: u64 = 7;
/// Slices of a turn after which the node is said to spin.
const SPIN_MAX: usize = 1000;

const NO_NODE: StepError = StepError::Untimely("no node runs");

/// The whole scene.
#[derive(Default)]
pub struct Stage {
    registry: Registry,
    durability: Option<Durability>,
    /// Microseconds since the beginning.
    now: u64,
    engine: Engine,
    process: Option<Process>,
    /// While no process has it.
    disk: Option<Disk>,
    lines: Vec<String>,
}

/// A node that runs.
struct Process {
    worker: Worker,
    log: Log,
    clients: Vec<Client>,
    /// Where each entry that this process logged ends.
    ends: Vec<(Index, Lsn)>,
    syncing: bool,
    checkpoint: Checkpoint,
}

enum Checkpoint {
    None,
    /// In this term, to be made durable once the log is synced up to there.
    Begun(Term, Lsn),
    Written(Lsn, Box<Job>),
}

struct Client {
    name: String,
    conn: ConnId,
    /// Commands without a reply.
    waiting: usize,
}

/// The one group.
fn group() -> GroupId {
    GroupId::new(KeyspaceId(0), 0)
}

fn process(log: Log, engine: &Engine, durability: Durability, stored: Option<(Store, Term)>) -> Process {
    let fresh = || (Store::new(SEED).within(Divisions::default().scope(group())), Term(1));
    let (mut store, term) = stored.unwrap_or_else(fresh);
    store.set_fetch(engine.reader(group()));
    let solo = Solo::new(term, store.applied(), durability);
    let partitions = vec![Partition::new(group(), store, solo)];
    let worker = Worker::new(Settings::default(), partitions, Box::new(NoScripts), SEED);
    let (clients, ends) = (Vec::new(), Vec::new());
    Process { worker, log, clients, ends, syncing: false, checkpoint: Checkpoint::None }
}

impl Process {
    /// The last entry before `lsn`.
    fn entry_before(&self, lsn: Lsn) -> String {
        let last = self.ends.iter().rev().find(|(_, end)| *end <= lsn);
        last.map_or_else(|| "all that was there at the start".into(), |(index, _)| format!("entry {index}"))
    }

    fn applied(&self) -> Index {
        self.worker.partitions()[0].store().applied()
    }
}

impl Stage {
    /// Does a step and says what came of it.
    ///
    /// # Errors
    /// It cannot be done at this point.
    pub fn perform(&mut self, step: &Step) -> Result<Vec<String>, StepError> {
        match step {
            Step::Start(durability) => self.start(*durability)?,
            Step::Send { client, command } => self.send(client, command)?,
            Step::Leave { client } => self.leave(client)?,
            Step::Turn => self.turn()?,
            Step::SyncEnds => self.sync_ends()?,
            Step::SyncFails => self.sync_fails()?,
            Step::Pass(micros) => self.pass(*micros),
            Step::DiskFull => self.running()?.log.disk.full = true,
            Step::DiskHasSpace => self.running()?.log.disk.full = false,
            Step::CheckpointBegins => self.checkpoint_begins()?,
            Step::CheckpointWritten => self.checkpoint_written()?,
            Step::CheckpointDurable => self.checkpoint_durable()?,
            Step::Kill => {
                let mut disk = self.end()?;
                disk.kill(&mut Rng::new(SEED));
                self.disk = Some(disk);
            }
            Step::PowerCut(kept) => {
                let mut disk = self.end()?;
                let count = disk.cut_behind(*kept);
                if *kept > count {
                    return Err(StepError::Untimely("fewer sectors than that were not synced"));
                }
                self.tell("disk", format!("has {kept} of the sectors that were not synced ({count})"));
                self.disk = Some(disk);
            }
            Step::BitFlips => self.flip()?,
            Step::Restart => self.restart()?,
        }
        Ok(std::mem::take(&mut self.lines))
    }

    fn tell(&mut self, who: &str, what: impl AsRef<str>) {
        self.lines.push(format!("{who:<9} {}", what.as_ref()));
    }

    fn running(&mut self) -> Result<&mut Process, StepError> {
        self.process.as_mut().ok_or(NO_NODE)
    }

    const fn clock(&self) -> Micros {
        Micros(EPOCH_MICROS + self.now)
    }

    fn start(&mut self, durability: Durability) -> Result<(), StepError> {
        if self.durability.is_some() {
            return Err(StepError::Untimely("the node was started already; after its end, `restart`"));
        }
        self.durability = Some(durability);
        let log = Log::create(Disk::default(), Salt(SEED));
        self.process = Some(process(log, &self.engine, durability, None));
        Ok(())
    }

    fn send(&mut self, name: &str, command: &str) -> Result<(), StepError> {
        let clock = self.clock();
        let process = self.running()?;
        let at = match process.clients.iter().position(|client| client.name == name) {
            Some(at) => at,
            None => {
                let peer = SocketAddr::from(([127, 0, 0, 1], 1));
                let conn = process.worker.connect(clock, peer);
                let conn = conn.ok_or(StepError::Untimely("the node takes no more clients"))?;
                process.clients.push(Client { name: name.to_owned(), conn, waiting: 0 });
                process.clients.len() - 1
            }
        };
        let client = &mut process.clients[at];
        client.waiting += 1;
        process.worker.receive(clock, client.conn, format!("{command}\r\n").as_bytes());
        Ok(())
    }

    fn leave(&mut self, name: &str) -> Result<(), StepError> {
        let process = self.running()?;
        let at = process.clients.iter().position(|client| client.name == name);
        let at = at.ok_or(StepError::Untimely("there is no such client"))?;
        let client = process.clients.remove(at);
        process.worker.disconnect(client.conn);
        Ok(())
    }

    /// As in production: what is due wakes, slices follow each other, sockets are written last, and the
    /// flusher begins when a sync is due.
    fn turn(&mut self) -> Result<(), StepError> {
        let (clock, now) = (self.clock(), self.now);
        let process = self.process.as_mut().ok_or(NO_NODE)?;
        process.log.now = now;
        let ready = process.worker.is_ready();
        if process.worker.deadline().is_some_and(|deadline| deadline <= clock) {
            process.worker.wake(clock);
            // What was under way in any case is not the timer's doing.
            if !ready && process.worker.is_ready() {
                self.tell("timer", "wakes the node");
            }
        }
        for round in 0.. {
            let process = self.running()?;
            let more = process.worker.end_turn(clock, &mut process.log);
            let ready = process.worker.is_ready();
            self.tell_log();
            self.start_sync();
            self.tell_clients();
            if !more && !ready {
                break;
            }
            assert!(round < SPIN_MAX, "a turn ends");
        }
        self.running()?.log.tend();
        if self.lines.is_empty() {
            self.tell("node", "has nothing to do");
        }
        Ok(())
    }

    fn tell_log(&mut self) {
        let asked = self.process.as_mut().map(|process| std::mem::take(&mut process.log.asked));
        for asked in asked.into_iter().flatten() {
            match asked {
                Asked::Written { entry, .. } => {
                    let millis = (entry.time.0 - EPOCH_MICROS) / 1000;
                    let body = told::commands(&self.registry, &entry.body);
                    self.tell("log", format!("entry {} at +{millis} ms: {body}", entry.index));
                    if let Some(process) = &mut self.process {
                        process.ends.push((entry.index, entry.end));
                    }
                }
                Asked::Refused { body, .. } => {
                    let body = told::commands(&self.registry, &body);
                    self.tell("log", format!("refuses {body}"));
                }
            }
        }
    }

    fn tell_clients(&mut self) {
        let Some(process) = &mut self.process else { return };
        // Asked in the order of their connections, so that the text does not depend on the flush list.
        process.worker.take_flush(&mut Vec::new());
        let (mut lines, mut gone) = (Vec::new(), Vec::new());
        for client in &mut process.clients {
            let Some((out, closing)) = process.worker.output(client.conn) else { continue };
            let bytes = std::mem::take(out);
            let who = format!("client {}", client.name);
            for reply in told::replies(&bytes) {
                client.waiting = client.waiting.saturating_sub(1);
                lines.push((who.clone(), reply));
            }
            if !bytes.is_empty() {
                process.worker.drained(client.conn);
            }
            if closing {
                lines.push((who, "is disconnected".into()));
                gone.push(client.conn);
            }
        }
        for conn in gone {
            process.worker.disconnect(conn);
            process.clients.retain(|client| client.conn != conn);
        }
        for (who, what) in lines {
            self.tell(&who, what);
        }
    }

    fn start_sync(&mut self) {
        let Some(process) = &mut self.process else { return };
        process.log.now = self.now;
        if process.log.start_sync() {
            process.syncing = true;
            let end = process.worker.appended();
            let covered = process.entry_before(end);
            self.tell("sync", format!("begins, up to {covered}"));
        }
    }

    fn sync_ends(&mut self) -> Result<(), StepError> {
        let process = self.running()?;
        if !std::mem::take(&mut process.syncing) {
            return Err(StepError::Untimely("no sync is under way"));
        }
        let durable = process.log.finish_sync();
        process.worker.synced(durable);
        let covered = process.entry_before(durable);
        self.tell("sync", format!("has made {covered} durable"));
        self.start_sync();
        Ok(())
    }

    fn sync_fails(&mut self) -> Result<(), StepError> {
        let clock = self.clock();
        let process = self.running()?;
        if !std::mem::take(&mut process.syncing) {
            return Err(StepError::Untimely("no sync is under way"));
        }
        process.log.fail_sync(&mut Rng::new(SEED));
        process.worker.log_failed(clock);
        self.tell("log", "takes nothing any more");
        Ok(())
    }

    /// The flusher has a clock of its own; the worker acts in its next turn.
    fn pass(&mut self, micros: u64) {
        self.now += micros;
        self.start_sync();
    }

    fn checkpoint_begins(&mut self) -> Result<(), StepError> {
        let process = self.running()?;
        if !matches!(process.checkpoint, Checkpoint::None) {
            return Err(StepError::Untimely("a checkpoint is under way"));
        }
        let after = process.worker.appended();
        let partition = &mut process.worker.partitions_mut()[0];
        process.checkpoint = Checkpoint::Begun(partition.term(), after);
        partition.store_mut().begin_cut();
        let applied = process.applied();
        self.tell("cut", format!("at entry {applied}"));
        Ok(())
    }

    fn checkpoint_written(&mut self) -> Result<(), StepError> {
        let process = self.running()?;
        let Checkpoint::Begun(term, after) = process.checkpoint else {
            return Err(StepError::Untimely("no checkpoint has begun"));
        };
        let store = process.worker.partitions_mut()[0].store_mut();
        let written = loop {
            match store.write_cut(usize::MAX / 2) {
                Some(written) => break Some(written),
                None if !store.is_cutting() => break None,
                None => {}
            }
        };
        let Some((frame, images)) = written else {
            process.checkpoint = Checkpoint::None;
            self.tell("cut", "is undone by a flush");
            return Ok(());
        };
        let changes: Vec<String> = images
            .iter()
            .map(|image| match image {
                Image::Put { key, .. } => told::word(key),
                Image::Delete { key } => format!("{} is gone", told::word(key)),
            })
            .collect();
        process.checkpoint =
            Checkpoint::Written(after, Box::new(Job { group: group(), term, frame, images, holding: None }));
        self.tell("cut", format!("holds {}", changes.join(", ")));
        Ok(())
    }

    fn checkpoint_durable(&mut self) -> Result<(), StepError> {
        let engine = self.engine.clone();
        let process = self.running()?;
        let Checkpoint::Written(after, job) = std::mem::replace(&mut process.checkpoint, Checkpoint::None)
        else {
            return Err(StepError::Untimely("no checkpoint is written"));
        };
        if after > process.log.commit.durable() {
            return Err(StepError::Untimely("the engine takes a cut once the log is synced up to it"));
        }
        engine.commit(&job);
        process.worker.partitions_mut()[0].store_mut().cut_is_durable();
        process.log.commit.checkpoint(job.group, job.frame.index);
        self.tell("engine", format!("is at entry {}", job.frame.index));
        Ok(())
    }

    /// The process is no more, and its connections with it.
    fn end(&mut self) -> Result<Disk, StepError> {
        let process = self.process.take().ok_or(NO_NODE)?;
        for client in &process.clients {
            let who = format!("client {}", client.name);
            match client.waiting {
                0 => self.tell(&who, "is disconnected"),
                1 => self.tell(&who, "is disconnected and does not know what became of 1 command"),
                many => {
                    self.tell(
                        &who,
                        format!("is disconnected and does not know what became of {many} commands"),
                    );
                }
            }
        }
        let mut disk = process.log.disk;
        disk.full = false;
        Ok(disk)
    }

    fn flip(&mut self) -> Result<(), StepError> {
        let disk = self.disk.as_mut().ok_or(StepError::Untimely("the node runs; end it first"))?;
        let place = disk.flip(&mut Rng::new(SEED));
        let (segment, byte) = place.ok_or(StepError::Untimely("nothing is synced"))?;
        self.tell("disk", format!("has lost a bit at byte {byte} of segment {segment}"));
        Ok(())
    }

    fn restart(&mut self) -> Result<(), StepError> {
        let untimely = StepError::Untimely("there is no node that has ended: it runs, or was never started");
        let durability = self.durability.filter(|_| self.process.is_none()).ok_or(untimely.clone())?;
        let disk = self.disk.take().ok_or(untimely)?;
        let stores = match self.engine.load(SEED, &mut Rng::new(SEED)) {
            Ok(stores) => stores,
            Err(what) => return self.refused(disk, &what),
        };
        let had = stores.get(&group()).map(|(store, _)| (store.applied(), store.len()));
        if let Some((index, keys)) = had {
            self.tell("engine", format!("is at entry {index} (keys: {keys})"));
        }
        self.replay(disk, stores, durability)
    }

    fn replay(
        &mut self,
        disk: Disk,
        mut stores: BTreeMap<GroupId, (Store, Term)>,
        durability: Durability,
    ) -> Result<(), StepError> {
        for (&group, (store, _)) in &mut stores {
            store.set_fetch(self.engine.reader(group));
        }
        let engine = self.engine.index(group());
        let (mut scripts, divisions) = (NoScripts, Divisions::default());
        let mut recovery = Recovery::new(SEED, &mut scripts, stores, &divisions);
        let mut found = Vec::new();
        let opened = Log::open(disk, &mut |record| {
            if let Record::Entry(entry) = &record {
                let body = told::commands(&self.registry, entry.body);
                let known = if entry.index <= engine { " (the engine has it)" } else { "" };
                found.push(format!("entry {}: {body}{known}", entry.index));
            }
            recovery.record(record);
        });
        let (log, recovered) = match opened {
            Ok(opened) => opened,
            Err((disk, refusal)) => return self.refused(disk, &refusal.to_string()),
        };
        for entry in found {
            self.tell("log", entry);
        }
        if let Some(torn) = recovered.torn {
            let (segment, byte) = (torn.segment, torn.offset);
            self.tell("log", format!("is cut at byte {byte} of segment {segment}: {}", torn.reason));
        }
        let (mut stores, replayed) = match recovery.finish(&recovered.floors) {
            Ok(finished) => finished,
            Err(error) => return self.refused(log.disk, &error.to_string()),
        };
        let process = process(log, &self.engine, durability, stores.remove(&group()));
        let (applied, keys) = (process.applied(), process.worker.partitions()[0].store().len());
        self.process = Some(process);
        self.tell("node", format!("is at entry {applied} (replayed: {replayed}, keys: {keys})"));
        Ok(())
    }

    fn refused(&mut self, disk: Disk, what: &str) -> Result<(), StepError> {
        self.disk = Some(disk);
        self.tell("node", format!("does not start: {what}"));
        Ok(())
    }
}
