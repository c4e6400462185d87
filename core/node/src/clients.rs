//! What a worker keeps for its sessions besides data: settings, users, subscriptions, pauses, the slow
//! log; and what one client may do to another.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use gateway::resp::{
    Client, Config, DEFAULT_USER, Facts, Keyspace, Latency, Pause, Process, Release, Request, Sequence, Slow,
    Slowlog, Survey, Users, slowlog,
};
use kernel::{ConnId, Micros};
use storage::{Command, Flags, Reply};

use crate::keyspaces::Joint;
use crate::pubsub::PubSub;
use crate::swap::Swap;
use crate::worker::{Settings, Worker};

/// Requests to the process that wait to be taken; more of the same kind are one.
const REQUESTS_MAX: usize = 16;

/// How often idle clients are looked for.
const IDLE_CHECK_MS: u64 = 1000;

/// A client that is held because it does not read its replies, and takes not a byte for so long, is cut.
/// Redis holds replies for such a client without a limit.
pub const OUTPUT_STALL_MILLIS_MAX: u64 = 60_000;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Front {
    pub config: Config,
    pub users: Users,
    pub pubsub: PubSub,
    pub process: Process,
    pub slowlog: Slowlog,
    pub latency: Latency,
    pub started: Micros,
    pub accepted: u64,
    pub connections: u64,
    pub rejected: u64,
    pub pause: Pause,
    pub pause_until: Micros,
    /// What is held back now: by a pause, or by an exchange of keyspaces.
    pub gate: Pause,
    pub swap: Option<Swap>,
    /// Bytes for all keyspaces of this worker together, once a client said so; 0 for no limit.
    pub limit: Option<usize>,
    /// Keys deleted by policies.
    pub evicted: u64,
    pub joints: BTreeMap<u64, Joint>,
    pub last_joint: u64,
    /// Clients whose transfer waits for the writes under way.
    pub transfers: Vec<ConnId>,
    /// Clients held for their unread output, and when they last took some of it.
    pub stalls: BTreeMap<ConnId, Micros>,
    sleepers: BTreeSet<(Micros, ConnId, u64)>,
    requests: VecDeque<Request>,
    suspect: Option<Suspect>,
    idle_check: Micros,
}

/// The heaviest command of this turn, by its kind.
#[derive(Debug)]
struct Suspect {
    weight: u8,
    id: ConnId,
    name: &'static str,
    words: Vec<Box<[u8]>>,
}

impl Front {
    pub fn new(settings: Settings) -> Front {
        Front {
            config: settings.config,
            users: settings.users,
            process: settings.process,
            started: settings.started,
            slowlog: Slowlog::new(settings.worker.0.into(), settings.workers.max(1).into()),
            ..Front::default()
        }
    }

    /// Notes a command that may be why this turn takes long.
    #[inline]
    pub fn suspect(&mut self, id: ConnId, command: &'static Command, args: &[&[u8]]) {
        let weight = match command.flags {
            flags if flags.has(Flags::KEYSPACE) => 2,
            flags if flags.has(Flags::FAST) => 0,
            _ => 1,
        };
        if self.suspect.as_ref().is_none_or(|suspect| suspect.weight < weight) {
            // Arguments are copied only where that costs little beside the command itself.
            let words = if weight == 2 { slowlog::cut(command.name, args) } else { Vec::new() };
            self.suspect = Some(Suspect { weight, id, name: command.name, words });
        }
    }

    pub fn request(&mut self, request: Request) {
        if !self.requests.contains(&request) && self.requests.len() < REQUESTS_MAX {
            self.requests.push_back(request);
        }
    }

    /// An exchange of keyspaces holds everything.
    pub fn settle_gate(&mut self) {
        self.gate = if self.swap.is_some() { Pause::All } else { self.pause };
    }

    pub fn sleep(&mut self, until: Micros, id: ConnId, sequence: Sequence) {
        self.sleepers.insert((until, id, sequence.0));
    }

    pub fn deadline(&self) -> Option<Micros> {
        let pause = (self.pause != Pause::Off).then_some(self.pause_until);
        let idle = (self.config.idle_secs() > 0).then_some(self.idle_check);
        let sleeper = self.sleepers.first().map(|&(until, ..)| until);
        let stall = self.stalls.values().min().map(|since| since.plus_millis(OUTPUT_STALL_MILLIS_MAX));
        [pause, idle, sleeper, stall].into_iter().flatten().min()
    }
}

impl Worker {
    /// The live settings, as clients changed them.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.front.config
    }

    /// What `INFO` tells of the process; the host keeps it fresh.
    pub const fn process_mut(&mut self) -> &mut Process {
        &mut self.front.process
    }

    /// Takes what clients asked of the process since the last call, oldest first.
    pub fn take_requests(&mut self, out: &mut Vec<Request>) {
        out.extend(self.front.requests.drain(..));
    }

    /// The host measured the turn that ends at `now`: it took `micros`. Slow ones are logged. To be called
    /// at the end of every turn, so that the command named is one of this turn.
    pub fn turn_took(&mut self, now: Micros, micros: u64) {
        let suspect = self.front.suspect.take();
        let millis = micros / 1000;
        self.spike("command", now, millis);
        let slow = self.front.config.slower_than().is_some_and(|threshold| micros >= threshold);
        let Some(suspect) = suspect.filter(|_| slow) else { return };
        let most = self.front.config.slowlog_len();
        let client = self.connections.get_mut(suspect.id).map(|c| c.session.client(&c.io));
        let words = match suspect.words {
            words if words.is_empty() => slowlog::cut(suspect.name, &[]),
            words => words,
        };
        let (peer, name) = client.map_or((None, Box::default()), |client| (Some(client.peer), client.name));
        self.front.slowlog.push(Slow { at: now, micros, words, peer, name }, most);
    }

    /// Notes that something of the host's took long (`log-sync`, `checkpoint`), if it counts as a spike.
    pub fn spike(&mut self, event: &'static str, now: Micros, millis: u64) {
        let threshold = self.front.config.latency_threshold_ms();
        if threshold > 0 && millis >= threshold {
            self.front.latency.push(event, now, millis);
        }
    }

    /// What this worker tells of itself.
    pub(crate) fn survey(&self) -> Survey {
        let [channels, patterns] = self.front.pubsub.counts();
        Survey {
            facts: self.facts(),
            clients: self.clients(),
            channels,
            patterns,
            slowlog: self.front.slowlog.clone(),
            latency: self.front.latency.clone(),
            histograms: self.observer.histograms(),
        }
    }

    pub(crate) fn facts(&self) -> Facts {
        let front = &self.front;
        let counts = || self.partitions.iter().map(|partition| partition.store().counts());
        let keyspaces = self.partitions.iter().map(|partition| Keyspace {
            id: partition.keyspace(),
            keys: partition.store().len(),
            expires: partition.store().expiring(),
        });
        Facts {
            process: front.process.clone(),
            now: self.now,
            started: front.started,
            clients: self.connections.len(),
            blocked: self.connections.iter().filter(|connection| connection.io.blocked).count(),
            connections: front.connections,
            rejected: front.rejected,
            commands: self.commands(),
            hits: counts().map(|one| one.hits).sum(),
            misses: counts().map(|one| one.misses).sum(),
            expired: counts().map(|one| one.expired).sum(),
            evicted: front.evicted,
            channels: front.pubsub.channel_count(),
            patterns: front.pubsub.pattern_count(),
            object_bytes: self.partitions.iter().map(|partition| partition.store().memory_bytes()).sum(),
            keyspaces: joined(keyspaces.filter(|keyspace| keyspace.keys > 0).collect()),
            cluster: false,
            copies: self.copies_of(None),
        }
    }

    /// All connections but the one that is taken out of the table.
    pub(crate) fn clients(&self) -> Vec<Client> {
        let alive = self.connections.iter().filter(|connection| !connection.cut);
        alive.map(|connection| connection.session.client(&connection.io)).collect()
    }

    /// The cluster has this user with a password of this SHA-256, or none of that name. Who has entered as somebody whose
    /// password is another now, or without one where one is asked for now, is cut.
    pub(crate) fn share_user(&mut self, name: &[u8], password: Option<[u8; 32]>) {
        let was_open = self.front.users.is_open();
        if !self.front.users.share(name, password) {
            return;
        }
        let closes = was_open && !self.front.users.is_open();
        let stale = |user: &[u8]| user == name || closes && user == DEFAULT_USER;
        let connections = self.connections.iter().filter(|one| one.session.user().is_some_and(stale));
        let gone: Vec<ConnId> = connections.map(|one| one.session.origin().id).collect();
        gone.into_iter().for_each(|id| self.kill(id));
    }

    /// Cuts a connection: it gets nothing any more, and the host closes it.
    pub(crate) fn kill(&mut self, id: ConnId) {
        let Some(mut connection) = self.connections.take(id) else { return };
        self.front.stalls.remove(&id);
        (connection.cut, connection.closing) = (true, true);
        connection.io.out = Vec::new();
        self.leave(id, &mut connection);
        if !connection.io.listed {
            connection.io.listed = true;
            self.flush.push(id);
        }
        self.connections.put_back(id, connection);
    }

    /// Lets a client go that waits in a blocking command; false if it does not wait.
    pub(crate) fn unblock(&mut self, id: ConnId, release: Release) -> bool {
        match self.connections.get_mut(id).and_then(|connection| connection.waiter) {
            Some(waiter) => self.let_go(waiter, release),
            None => false,
        }
    }

    /// Lets a waiter of a partition go.
    pub(crate) fn let_go(&mut self, (at, waiter): (usize, u64), release: Release) -> bool {
        let Some(found) = self.partitions[at].waiters.get_mut(&waiter) else { return false };
        if found.trying {
            // A key it waits for has changed: it gets that, or else its time has passed.
            found.expired = true;
            return true;
        }
        self.release(at, waiter, |reply, null_bulk| match (release, null_bulk) {
            (Release::Error, _) => reply.error("UNBLOCKED client unblocked via CLIENT UNBLOCK"),
            (Release::Timeout, true) => reply.null(),
            (Release::Timeout, false) => reply.null_array(),
        });
        true
    }

    pub(crate) fn pause(&mut self, pause: Pause, until: Micros) {
        let front = &mut self.front;
        if pause == Pause::Off {
            front.pause = Pause::Off;
            front.settle_gate();
            self.resume_paused();
        } else {
            // Of two pauses the stricter one and the later end hold, as in Redis.
            front.pause_until = if front.pause == Pause::Off { until } else { front.pause_until.max(until) };
            front.pause = front.pause.max(pause);
            front.settle_gate();
        }
    }

    pub(crate) fn resume_paused(&mut self) {
        for connection in self.connections.iter_mut() {
            if core::mem::take(&mut connection.paused) && !connection.resumed {
                connection.resumed = true;
                self.resume.push(connection.session.origin().id);
            }
        }
    }

    /// Ends pauses and sleeps whose time has come, and cuts idle clients and those that do not read.
    pub(crate) fn wake_clients(&mut self) {
        let now = self.now;
        if self.front.pause != Pause::Off && self.front.pause_until <= now {
            self.pause(Pause::Off, now);
        }
        while let Some(&(until, id, sequence)) = self.front.sleepers.first() {
            if until > now {
                break;
            }
            self.front.sleepers.pop_first();
            if let Some(connection) = self.connections.get_mut(id) {
                connection.io.blocked = false;
                connection.io.answer(Sequence(sequence), |reply| reply.ok());
            }
            self.answered(id);
        }
        let stalled = |since: Micros| since.plus_millis(OUTPUT_STALL_MILLIS_MAX) <= now;
        let over = self.front.stalls.iter().filter(|&(_, &since)| stalled(since));
        for id in over.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.kill(id);
        }
        let idle = self.front.config.idle_secs();
        if idle > 0 && self.front.idle_check <= now {
            self.front.idle_check = now.plus_millis(IDLE_CHECK_MS);
            let idle = idle.saturating_mul(1_000_000);
            let over = self.connections.iter().filter(|connection| {
                let session = &connection.session;
                !connection.io.blocked && !session.is_subscriber() && now.since(session.active()) > idle
            });
            let over: Vec<ConnId> = over.map(|connection| connection.session.origin().id).collect();
            for id in over {
                self.kill(id);
            }
        }
    }
}

fn joined(mut keyspaces: Vec<Keyspace>) -> Vec<Keyspace> {
    Keyspace::join(&mut keyspaces);
    keyspaces
}
