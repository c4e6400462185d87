//! A node's turn: what arrived, what it decides, what leaves, and what goes on beside.

use std::fmt;

use consensus::codec::Descriptor;
use kernel::hash::KeyHasher;
use kernel::{GroupId, NodeId};
use node::cluster::{Done, Job, Lane, Outgoing};

use super::{Phase, World};
use crate::checkpoint::Rates;
use crate::cluster::host::{Life, Machine, Work, node_id, number_of};
use crate::cluster::net::Arrival;
use crate::engine::Engine;
use crate::fetch::Read;
use crate::log::Asked;

/// Turns at one instant before a node is said to spin.
const SPIN_MAX: usize = 1000;

impl World<'_> {
    /// One turn of a node at the present instant.
    pub(super) fn turn(&mut self, number: usize) -> Result<(), String> {
        // Sockets are read in any order: clients may be heard before peers that have been waiting.
        if self.phase == Phase::Healing || self.rng.chance(0.7) {
            self.take_arrivals(number);
        }
        self.finish_works(number)?;
        self.hear_clients(number);
        let full = self.machines[number].full_until > self.now;
        let clock = self.machines[number].clock(self.now);
        let Machine { life: Some(life), engine, .. } = &mut self.machines[number] else { return Ok(()) };
        life.log.now = self.now;
        life.log.disk.full = full;
        life.again = None;
        if life.sync.is_some_and(|at| at <= self.now) {
            life.sync = None;
            let durable = life.log.finish_sync();
            life.worker.synced(durable);
            while let Some((_, group, index, term)) = life.unsynced.pop_front_if(|(end, ..)| *end <= durable)
            {
                self.judge.synced(number, group, index.0, term.0);
            }
        }
        for fetched in life.desk.done(self.now, life.worker.id(), engine) {
            life.worker.fetched([fetched]);
        }
        if life.worker.deadline().is_some_and(|deadline| deadline <= clock) {
            life.worker.wake(clock);
            life.last_wake = self.now;
        }
        for round in 0.. {
            if round > SPIN_MAX {
                return Err(format!("node {number} spins"));
            }
            let Some(life) = &mut self.machines[number].life else { return Ok(()) };
            let more = life.worker.end_turn(clock, &mut life.log);
            self.note_written(number);
            if self.machines[number].doomed {
                return self.die_in_turn(number);
            }
            self.post(number);
            self.take_jobs(number);
            self.answer_clients(number)?;
            self.hear_clients(number);
            self.judge_node(number)?;
            let Some(life) = &mut self.machines[number].life else { return Ok(()) };
            if !more && !life.worker.is_ready() {
                break;
            }
            if more && self.rng.chance(0.3) {
                life.again = Some(self.now + 1 + self.rng.below(300));
                break;
            }
        }
        self.background(number);
        self.answer_clients(number)
    }

    /// The process dies after it has logged, with some of what it would have sent.
    fn die_in_turn(&mut self, number: usize) -> Result<(), String> {
        if self.faults.chance(0.5) {
            self.post(number);
        }
        if self.faults.chance(0.5) {
            self.answer_clients(number)?;
        }
        self.judge_node(number)?;
        let cut = self.faults.chance(self.plan.power_cut);
        self.crash(number, cut);
        Ok(())
    }

    fn take_arrivals(&mut self, number: usize) {
        let clock = self.machines[number].clock(self.now);
        let Some(life) = &mut self.machines[number].life else { return };
        for (from, lane, arrival) in self.net.arrived(self.now, number) {
            match (arrival, lane) {
                (Arrival::Frame(bytes), _) => {
                    self.trace.event(self.now, format_args!("{from} to {number}: {}", Shown(&bytes)));
                    life.worker.peer_frame(clock, node_id(from), &bytes);
                }
                (Arrival::Up, Lane::Control) => {
                    self.trace.event(self.now, format_args!("{number} has a link to {from}"));
                    life.worker.peer_up(clock, node_id(from));
                }
                (Arrival::Down, Lane::Control) => {
                    self.trace.event(self.now, format_args!("{number} has no link to {from}"));
                    life.worker.peer_down(clock, node_id(from));
                }
                (Arrival::Up | Arrival::Down, Lane::Bulk) => {}
            }
        }
    }

    fn finish_works(&mut self, number: usize) -> Result<(), String> {
        let engines: Vec<_> = self.machines.iter().map(|machine| machine.engine.clone()).collect();
        let (now, net, lost) = (self.now, &self.net, self.plan.lost_snapshot);
        let faulty = self.phase == Phase::Faulty;
        let faults = &mut self.faults;
        let mut fetches = |own: &Engine, from: NodeId, group: GroupId, descriptor: &Descriptor| {
            let from = number_of(from);
            let passes = net.passes(from, number) && net.passes(number, from);
            let loses = faulty && faults.chance(lost);
            passes && !loses && own.fetch(&engines[from], group, descriptor)
        };
        let machine = &mut self.machines[number];
        for (group, index) in machine.finish(now, &self.plan, &mut self.rng, &mut fetches)? {
            self.trace.event(now, format_args!("node {number} switches {group} to a snapshot at {index}"));
            self.outcome.snapshots += 1;
            self.judge.begins(number, group, index);
        }
        Ok(())
    }

    fn note_written(&mut self, number: usize) {
        let Some(life) = &mut self.machines[number].life else { return };
        for asked in std::mem::take(&mut life.log.asked) {
            let Asked::Written { group, entry } = asked else { continue };
            let (index, term, time) = (entry.index, entry.term, entry.time);
            let bytes = entry.body.len();
            self.trace.event(
                self.now,
                format_args!(
                    "node {number} writes {group}:{index} term {term} time {} ({bytes} bytes)",
                    time.0
                ),
            );
            let own = life.entries.entry(group).or_default();
            own.split_off(&index.0);
            own.insert(index.0, (term.0, time.0, entry.body));
            life.unsynced.push_back((entry.end, group, index, term));
        }
    }

    fn post(&mut self, number: usize) {
        let mut frames = Vec::new();
        let Some(life) = &mut self.machines[number].life else { return };
        life.worker.take_frames(&mut frames);
        for Outgoing { to, lane, bytes } in frames {
            self.net.send(self.now, number, number_of(to), lane, bytes);
        }
    }

    fn take_jobs(&mut self, number: usize) {
        let mut jobs = Vec::new();
        let Some(life) = &mut self.machines[number].life else { return };
        life.worker.take_jobs(&mut jobs);
        for job in jobs {
            self.trace.event(self.now, format_args!("node {number}: {job:?}"));
            self.do_job(number, job);
        }
    }

    fn do_job(&mut self, number: usize, job: Job) {
        let soon = self.now + 200 + self.rng.below(5_000);
        let later = self.now + 1_000 + self.rng.below(60_000);
        let Machine { life: Some(life), engine, .. } = &mut self.machines[number] else { return };
        let work = match job {
            Job::Added { at, group, holding, fresh } => {
                life.worker.partitions_mut()[at].store_mut().set_fetch(engine.reader(group));
                if !fresh {
                    return;
                }
                (soon, Work::Add { at, group, holding })
            }
            Job::Removed { at, group } => {
                life.checkpointer.give_up(at);
                (soon, Work::Remove { at, group })
            }
            Job::MakeSnapshot { at } => {
                life.checkpointer.want(at);
                return life.snapshots.push(at);
            }
            Job::FetchSnapshot { at, group, from, descriptor } => {
                (later, Work::Fetch { at, group, from, descriptor })
            }
            Job::Transfer(_) => unreachable!("a worker without transfers asks for whole snapshots"),
            Job::Install { at, group, descriptor, holding } => {
                life.checkpointer.give_up(at);
                (soon, Work::Install { at, group, descriptor, holding })
            }
            Job::ReadEntries { at, group, first, last } => (soon, Work::Read { at, group, first, last }),
            Job::Link { .. } | Job::Unlink { .. } | Job::PersistControl { .. } | Job::Incarnation(_) => {
                return;
            }
        };
        life.works.push(work);
    }

    /// Checkpoints, syncs, bodies: what goes on beside the turns.
    fn background(&mut self, number: usize) {
        let rates = Rates { checkpoint: self.plan.checkpoint, evict: self.plan.evict };
        let slow = self.machines[number].slow_until > self.now
            || self.phase == Phase::Faulty && self.faults.chance(self.plan.slow_sync);
        let Machine { life: Some(life), engine, .. } = &mut self.machines[number] else { return };
        let Life { worker, log, checkpointer, snapshots, .. } = life;
        if let Some(durable) = checkpointer.step(worker, log, engine, rates, &mut self.faults) {
            self.outcome.checkpoints += 1;
            let (group, index) = (durable.group, durable.index);
            self.trace
                .event(self.now, format_args!("node {number}: checkpoint of {group} at {index} is durable"));
            worker.checkpointed(durable.at, index);
            if snapshots.contains(&durable.at) {
                snapshots.retain(|&at| at != durable.at);
                self.generation += 1;
                let descriptor = engine.keep(group, self.generation);
                let clock = self.machines[number].clock(self.now);
                let Some(life) = &mut self.machines[number].life else { return };
                life.worker.job_done(clock, Done::Made { at: durable.at, descriptor });
                life.again = Some(self.now + 1);
            }
        } else if let Some(&at) = snapshots.first()
            && !checkpointer.is_busy()
        {
            checkpointer.want(at);
        }
        let Machine { life: Some(life), engine, .. } = &mut self.machines[number] else { return };
        let Life { worker, log, desk, sync, checkpointer, again, .. } = life;
        let mut fetches = Vec::new();
        worker.take_fetches(&mut fetches);
        for fetch in fetches {
            let read = Read { now: self.now, micros: 2_000, failure: 0.0 };
            desk.take(read, worker.id(), fetch, engine, &mut self.rng);
        }
        log.tend();
        if sync.is_none() && log.start_sync() {
            let micros = if slow { 300_000 } else { self.plan.sync_micros };
            *sync = Some(self.now + micros / 2 + self.faults.below(micros));
        }
        if checkpointer.is_busy() && again.is_none() {
            *again = Some(self.now + 1_000);
        }
    }

    fn hear_clients(&mut self, number: usize) {
        let clock = self.machines[number].clock(self.now);
        let Some(life) = &mut self.machines[number].life else { return };
        for client in &mut self.clients {
            let Some((_, conn)) = client.conn.filter(|(node, _)| *node == number) else { continue };
            client.held = !life.worker.wants_input(conn);
            if client.outbox.is_empty() || client.held {
                continue;
            }
            let whole = self.rng.chance(0.9);
            let most = client.outbox.len();
            let bytes = if whole { most } else { 1 + self.rng.below(most as u64) as usize };
            for words in client.said.drain(..) {
                self.trace.event(self.now, format_args!("client {} to {number}: {words}", client.number));
            }
            life.worker.receive(clock, conn, &client.outbox[..bytes]);
            client.outbox.drain(..bytes);
            client.held = !life.worker.wants_input(conn);
        }
    }

    fn answer_clients(&mut self, number: usize) -> Result<(), String> {
        let mut ids = Vec::new();
        let Some(life) = &mut self.machines[number].life else { return Ok(()) };
        life.worker.take_flush(&mut ids);
        for client in &mut self.clients {
            let Some((_, conn)) = client.conn.filter(|(node, _)| *node == number) else { continue };
            let Some((out, closing)) = life.worker.output(conn) else {
                return Err(format!("node {number} has dropped client {}", client.number));
            };
            if !out.is_empty() {
                let bytes = std::mem::take(out);
                let shown = check::reply::shown(&bytes);
                self.trace.event(self.now, format_args!("client {} told {shown}", client.number));
                let told = client.told(self.now, &bytes, &mut self.history);
                let (answers, all) = told.map_err(|what| format!("client {}: {what}", client.number))?;
                client.served += answers;
                client.refused |= !all;
                life.worker.drained(conn);
                client.held = !life.worker.wants_input(conn);
            }
            if closing {
                return Err(format!("node {number} cuts client {} off", client.number));
            }
        }
        Ok(())
    }

    fn judge_node(&mut self, number: usize) -> Result<(), String> {
        let Some(life) = &self.machines[number].life else { return Ok(()) };
        let empty = Default::default();
        for partition in life.worker.partitions() {
            let (group, applied) = (partition.group_id(), partition.store().applied());
            let Some(replica) = partition.replica() else { continue };
            let entries = life.entries.get(&group).unwrap_or(&empty);
            if self.judge.look(number, group, replica, entries, applied)? {
                let digest = partition.store().digest().map_err(|fault| format!("unreadable: {fault:?}"))?;
                self.judge.state(number, group, applied, digest)?;
                self.outcome.applied += 1;
            }
        }
        Ok(())
    }
}

/// A frame in a few words.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = KeyHasher::new(0).hash(self.0);
        write!(f, "kind {} ({} bytes, {hash:016x})", self.0.first().copied().unwrap_or(0), self.0.len())
    }
}
