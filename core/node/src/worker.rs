//! One worker: the connections it serves and the partitions it owns, driven in turns.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use consensus::{Durability, Group, Proposed};
use gateway::resp::{Config, Io, Origin, Process, Release, Session, State, Users};
use journal::record::{Entry, Record};
use kernel::planted::{Bug, is};
use kernel::{ConnId, Lsn, Micros, Rng, WorkerId};
use storage::apply::Effects;
use storage::store::Counts;
use storage::{Registry, Scripting};

use crate::abroad::Others;
use crate::clients::Front;
use crate::cluster::Cluster;
use crate::connection::{Connection, Connections};
use crate::errand::Abroad;
use crate::fetching::Fetches;
use crate::host::View;
use crate::observer::{Nobody, Observer};
use crate::parcel::Parcel;
use crate::partition::{Batch, Partition};
use crate::route::{Elsewhere, Routes};
use crate::slices::{SliceSteps, Task};

/// Why the log did not take a turn's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// There is no space, and nothing was written; it may return.
    Full,
    /// The disk failed and is not used any more; whether the entries are on it is unknown.
    Failed,
    /// One entry is larger than the log takes.
    TooLarge,
}

/// The node's log, as the worker sees it.
pub trait LogSink {
    /// Writes `records` as one batch and returns where it ends. Durability `Always` asks for a sync at once.
    ///
    /// # Errors
    /// [`AppendError`]: nothing was written.
    fn append(&mut self, records: &[Record<'_>], durability: Durability) -> Result<Lsn, AppendError>;
}

/// What a worker is told of its node.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Which worker it is.
    pub worker: WorkerId,
    /// How many workers the node has; 0 is one.
    pub workers: u16,
    /// The partitions of the other workers.
    pub elsewhere: Vec<Elsewhere>,
    /// Who may enter; without users with passwords, everyone.
    pub users: Users,
    /// What clients read and change as settings.
    pub config: Config,
    /// What `INFO` tells of the process, until the host says otherwise.
    pub process: Process,
    /// When the node was started.
    pub started: Micros,
    /// Steps of work in each turn that may as well be done in later ones.
    pub slice_steps: SliceSteps,
}

/// The version of `apply` that new entries are written for.
pub const SEMANTICS: u16 = 1;

/// Rounds of "log, apply, let waiting clients go on" in one turn; the rest waits for the next turn.
pub(crate) const ROUNDS_MAX: usize = 8;

/// See the module's text.
pub struct Worker {
    pub(crate) front: Front,
    pub(crate) registry: Registry,
    pub(crate) scripting: Box<dyn Scripting>,
    pub(crate) connections: Connections,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) routes: Routes,
    pub(crate) effects: Effects,
    pub(crate) now: Micros,
    pub(crate) rng: Rng,
    pub(crate) waiters: u64,
    pub(crate) others: Others,
    pub(crate) fetches: Fetches,
    /// Connections with output.
    pub(crate) flush: Vec<ConnId>,
    /// Connections that may go on with their input.
    pub(crate) resume: Vec<ConnId>,
    /// Partitions with an open batch.
    pub(crate) opened: Vec<usize>,
    pub(crate) observer: Box<dyn Observer>,
    /// Since the observer was last told of something, nothing was done that is no read's work.
    pub(crate) reading: bool,
    commands: u64,
    /// How often each store command was run, by its number.
    calls: Vec<u64>,
    appended: Lsn,
    /// Connections of the other workers: now, and ever.
    elsewhere: (usize, u64),
    pub(crate) slice_steps: SliceSteps,
    /// Reads under way, in turn.
    pub(crate) tasks: VecDeque<Task>,
    /// Of a node in a cluster.
    pub(crate) cluster: Option<Box<Cluster>>,
}

impl Worker {
    /// A worker that owns `partitions`.
    #[must_use]
    pub fn new(
        settings: Settings,
        mut partitions: Vec<Partition>,
        scripting: Box<dyn Scripting>,
        seed: u64,
    ) -> Worker {
        for partition in &mut partitions {
            partition.store.set_pieces_at_once(settings.slice_steps.0);
        }
        let routes = Routes::new(&partitions, &settings.elsewhere);
        let others = Others::new(&settings);
        Worker {
            slice_steps: settings.slice_steps,
            tasks: VecDeque::new(),
            others,
            connections: Connections::new(settings.worker),
            front: Front::new(settings),
            registry: Registry::new(),
            scripting,
            partitions,
            routes,
            effects: Effects::default(),
            now: Micros(0),
            rng: Rng::new(seed),
            waiters: 0,
            fetches: Fetches::default(),
            flush: Vec::new(),
            resume: Vec::new(),
            opened: Vec::new(),
            observer: Box::new(Nobody),
            reading: false,
            commands: 0,
            calls: Vec::new(),
            appended: Lsn(0),
            elsewhere: (0, 0),
            cluster: None,
        }
    }

    /// The same, whose commands `observer` measures.
    #[must_use]
    pub fn observed_by(mut self, observer: Box<dyn Observer>) -> Worker {
        self.observer = observer;
        self
    }

    /// The partitions it owns.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Who may enter.
    #[must_use]
    pub const fn users(&self) -> &Users {
        &self.front.users
    }

    /// The same, for the checkpoint.
    pub fn partitions_mut(&mut self) -> &mut [Partition] {
        &mut self.partitions
    }

    /// Which worker of its node it is.
    #[must_use]
    pub const fn id(&self) -> WorkerId {
        self.others.own
    }

    /// Connections taken since the start.
    #[must_use]
    pub const fn accepted(&self) -> u64 {
        self.front.accepted
    }

    /// Connections open now.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Takes a new client; `None` when there are too many.
    pub fn connect(&mut self, now: Micros, peer: SocketAddr) -> Option<ConnId> {
        if self.connections.len() + self.elsewhere.0 >= self.front.config.maxclients() {
            self.front.rejected += 1;
            return None;
        }
        self.front.accepted += 1;
        self.front.connections += 1;
        let (trusted, number) = (self.front.users.is_open(), self.front.accepted + self.elsewhere.1);
        self.connections.add(|id| {
            Box::new(Connection {
                session: Session::new(Origin { id, number, peer, at: now }, trusted),
                io: Io::default(),
                input: Vec::new(),
                consumed: 0,
                resumed: false,
                held: false,
                closing: false,
                ended: false,
                cut: false,
                paused: false,
                fetching: false,
                watched: Vec::new(),
                waiter: None,
                abroad: Abroad::default(),
            })
        })
    }

    /// The client is gone. Its logged commands stay; nobody is answered.
    pub fn disconnect(&mut self, id: ConnId) {
        let Some(mut connection) = self.connections.take(id) else { return };
        self.leave(id, &mut connection);
        self.connections.put_back(id, connection);
        self.connections.remove(id);
        self.front.stalls.remove(&id);
    }

    /// A connection that is taken out of the table takes back what it has in the node.
    pub(crate) fn leave(&mut self, id: ConnId, connection: &mut Connection) {
        let Connection { session, io, watched, abroad, waiter, .. } = connection;
        session.close(&mut View { worker: self, connection: io, watched, abroad, id });
        if let Some((at, waiter)) = waiter.take() {
            self.partitions[at].forget_waiter(waiter);
        }
        match abroad.waits_at.take() {
            Some(owner) => self.others.push(owner, Parcel::Gone { conn: id }),
            // It may be a read in slices.
            None if io.pending() > 0 => self.others.tell_all(&Parcel::Gone { conn: id }),
            None => {}
        }
        if !self.tasks.is_empty() {
            self.drop_tasks(id);
        }
        self.forget_fetches(id);
        self.post_leave(id);
    }

    /// How many connections the other workers have, which count for `maxclients`, and how many they have
    /// ever taken: the next connection's number is behind theirs.
    pub const fn set_elsewhere(&mut self, connections: usize, accepted: u64) {
        self.elsewhere = (connections, accepted);
    }

    /// Bytes came from a client.
    #[inline]
    pub fn receive(&mut self, now: Micros, id: ConnId, bytes: &[u8]) {
        self.now = now;
        let Some(mut connection) = self.connections.take(id) else { return };
        if connection.closing {
            // Nothing that follows is read.
        } else if connection.held || connection.consumed < connection.input.len() {
            connection.input.extend_from_slice(bytes);
            if !connection.held {
                self.feed_input(id, &mut connection);
            }
        } else {
            let taken = self.feed(id, &mut connection, bytes);
            connection.input.clear();
            connection.consumed = 0;
            connection.input.extend_from_slice(&bytes[taken..]);
            if connection.input.is_empty() {
                connection.input = Vec::new();
            }
        }
        self.connections.put_back(id, connection);
    }

    /// The client has sent all it will: it is closed once it is answered; one that waits in a blocking
    /// command waits for nothing any more.
    pub fn end_of_input(&mut self, id: ConnId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.ended = true;
        if let Some(owner) = connection.abroad.waits_at {
            let release = Release::Timeout;
            return self.others.push(owner, Parcel::Unblock { conn: id, release, part: None });
        }
        if !connection.held || connection.io.blocked {
            connection.closing = true;
        }
        self.unblock(id, Release::Timeout);
    }

    /// Whether the client's bytes should be read now: it neither waits nor has much unread already.
    #[must_use]
    pub fn wants_input(&mut self, id: ConnId) -> bool {
        self.connections.get_mut(id).is_some_and(|connection| !connection.held && !connection.closing)
    }

    fn feed_input(&mut self, id: ConnId, connection: &mut Connection) {
        let input = core::mem::take(&mut connection.input);
        let taken = self.feed(id, connection, &input[connection.consumed..]);
        connection.consumed += taken;
        connection.input = input;
        if connection.consumed == connection.input.len() {
            connection.input = Vec::new();
            connection.consumed = 0;
        } else if connection.consumed > 64 * 1024 {
            connection.input.drain(..connection.consumed);
            connection.consumed = 0;
        }
    }

    #[inline]
    fn feed(&mut self, id: ConnId, connection: &mut Connection, bytes: &[u8]) -> usize {
        let now = self.now;
        self.reading = false;
        let Connection { session, io, watched, abroad, .. } = connection;
        let fed = session.feed(now, bytes, &mut View { worker: self, connection: io, watched, abroad, id });
        connection.held = matches!(fed.state, State::Waiting | State::Paused | State::Full);
        connection.paused = fed.state == State::Paused;
        connection.fetching = self.settle_fetches(id);
        connection.closing = fed.state == State::Closing || connection.ended && !connection.held;
        if fed.state == State::Full {
            self.front.stalls.entry(id).or_insert(now);
        }
        if fed.state == State::Waiting && connection.may_resume() {
            connection.resumed = true;
            self.resume.push(id);
        }
        if (!connection.io.out.is_empty() || connection.closing) && !connection.io.listed {
            connection.io.listed = true;
            self.flush.push(id);
        }
        fed.consumed
    }

    /// Ends the turn: logs what it decided, applies what is committed, lets waiting clients go on, and does a
    /// slice of what is too much for one turn.
    ///
    /// Returns true if there is more to do at once (the host should not sleep).
    pub fn end_turn(&mut self, now: Micros, log: &mut dyn LogSink) -> bool {
        self.now = now;
        if self.cluster.is_some() {
            self.think(log);
            let more = self.take_replica_rounds(log);
            let more = self.work_off() || more;
            self.post();
            return more || self.is_ready();
        }
        let more = self.take_rounds(log);
        self.work_off() || more
    }

    fn take_rounds(&mut self, log: &mut dyn LogSink) -> bool {
        for _ in 0..ROUNDS_MAX {
            let proposes = !self.opened.is_empty();
            self.propose(log);
            if self.apply_committed() || proposes {
                self.retry_transfers();
            }
            self.advance_swap();
            self.retry_journeys();
            self.take_home();
            if !self.resume_waiting() && self.opened.is_empty() {
                self.let_guests_go();
                return false;
            }
        }
        self.let_guests_go();
        true
    }

    pub(crate) const fn note_appended(&mut self, end: Lsn) {
        self.appended = end;
    }

    /// Where the last entry that this worker logged ends.
    #[must_use]
    pub const fn appended(&self) -> Lsn {
        self.appended
    }

    /// Writers of partition `at` wait (true) or go on: it has more changes than checkpoints keep up with.
    pub fn set_stalled(&mut self, at: usize, stalled: bool) {
        self.partitions[at].stalled = stalled;
        self.tell_stalled(at, stalled);
        if !stalled {
            for id in core::mem::take(&mut self.partitions[at].stalled_writers) {
                self.drained(id);
            }
        }
    }

    /// The log is synced up to `lsn`; call [`Worker::end_turn`] afterwards.
    pub fn synced(&mut self, lsn: Lsn) {
        if self.cluster.is_some() {
            return self.synced_replicas(lsn);
        }
        for partition in &mut self.partitions {
            if !partition.flying.is_empty() {
                partition.group.synced(lsn);
            }
        }
    }

    /// The log failed for good: whoever waits for a sync is told that nobody knows. The host flushes then.
    pub fn log_failed(&mut self, now: Micros) {
        self.now = now;
        if self.cluster.is_some() {
            self.retire();
        }
        for at in 0..self.partitions.len() {
            for batch in core::mem::take(&mut self.partitions[at].flying) {
                self.refuse(at, batch, AppendError::Failed);
            }
        }
        self.take_home();
        self.retry_transfers();
    }

    fn propose(&mut self, log: &mut dyn LogSink) {
        if self.opened.is_empty() {
            return;
        }
        let (now, mut opened) = (self.now, core::mem::take(&mut self.opened));
        opened.retain(|&at| !self.partitions[at].parks(now));
        if opened.is_empty() {
            return;
        }
        let mut durability = Durability::EverySec;
        let mut terms = Vec::with_capacity(opened.len());
        for &at in &opened {
            let partition = &mut self.partitions[at];
            let logged = if is(Bug::GroupTimeGoesBack) { self.now } else { partition.store.time() };
            let time = logged.max(self.now);
            let (term, index) = partition.group.propose().expect("a group of one always leads");
            (partition.open.index, partition.open.time) = (index, time);
            if partition.group.durability() == Durability::Always {
                durability = Durability::Always;
            }
            terms.push(term);
        }
        let records: Vec<Record<'_>> = opened
            .iter()
            .zip(&terms)
            .map(|(&at, &term)| {
                let partition = &self.partitions[at];
                let Batch { index, time, body, .. } = &partition.open;
                let (index, time) = (*index, *time);
                Record::Entry(Entry {
                    group: partition.group_id,
                    term,
                    index,
                    semantics: SEMANTICS,
                    time,
                    body,
                })
            })
            .collect();
        let appended = log.append(&records, durability);
        drop(records);
        for at in opened {
            let partition = &mut self.partitions[at];
            let spare = partition.spare.pop().unwrap_or_default();
            let batch = core::mem::replace(&mut partition.open, spare);
            match appended {
                Ok(end) => {
                    self.appended = end;
                    let Batch { index, time, body, .. } = &batch;
                    let proposed = Proposed { index: *index, semantics: SEMANTICS, time: *time, body };
                    partition.group.written(&proposed, end);
                    partition.flying.push_back(batch);
                    if partition.untried {
                        self.try_all(at);
                    }
                }
                Err(error) => {
                    partition.group.withdraw(batch.index);
                    self.refuse(at, batch, error);
                }
            }
        }
    }

    /// True if some client can go on without anything happening first.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.resume.is_empty()
            || !self.opened.is_empty()
            || self.others.has_answers()
            || self.has_busy()
            || self.mind_deadline().is_some_and(|due| due <= self.now)
    }

    /// Store commands run since the start.
    #[must_use]
    pub const fn commands(&self) -> u64 {
        self.commands
    }

    /// How often each command of the store was run since the start; those that never were are left out.
    pub fn calls(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let named = |(id, &calls): (usize, &u64)| {
            let command = self.registry.by_id(u16::try_from(id).ok()?)?;
            (calls > 0).then_some((command.name, calls))
        };
        self.calls.iter().enumerate().filter_map(named)
    }

    #[inline]
    pub(crate) fn count_call(&mut self, id: u16) {
        self.commands += 1;
        let at = usize::from(id);
        if self.calls.len() <= at {
            self.calls.resize(at + 1, 0);
        }
        self.calls[at] += 1;
    }

    pub(crate) fn reset_counters(&mut self) {
        (self.commands, self.front.connections, self.front.rejected) = (0, 0, 0);
        self.front.evicted = 0;
        self.observer.reset();
        for partition in &mut self.partitions {
            *partition.store.counts_mut() = Counts::default();
        }
    }

    #[inline]
    pub(crate) fn count_command(&mut self, name: &'static str) {
        self.commands += 1;
        self.observer.ran_own(name);
        self.reading = false;
    }

    pub(crate) fn resume_waiting(&mut self) -> bool {
        if self.resume.is_empty() {
            return false;
        }
        for id in core::mem::take(&mut self.resume) {
            let Some(mut connection) = self.connections.take(id) else { continue };
            connection.resumed = false;
            connection.held = false;
            if !connection.cut {
                self.feed_input(id, &mut connection);
            }
            self.connections.put_back(id, connection);
        }
        true
    }
}
