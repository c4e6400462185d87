//! Reading bodies back from the engine without waiting for it.
//!
//! Before a command runs or is proposed, the bodies of its keys that are only in the engine are asked for:
//! the host takes a [`Fetch`] for each and brings a [`Fetched`] in a later turn. Until then the command's
//! connection is held, so that its commands stay in their order; all others go on. What a connection has sent
//! already is looked at too, so that its next bodies are read together. A command that needs a body all the
//! same when it runs (a script that names no keys, a body that left again) reads the engine at once, as
//! replay does.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use gateway::resp::RespReply;
use kernel::codec::Reader;
use kernel::hash::KeyHasher;
use kernel::planted::{Bug, is};
use kernel::{ConnId, GroupId, WorkerId};
use smallvec::SmallVec;
use storage::command::generic::{EXEC, EXEC_READ};
use storage::entry::{Args, next_command};
use storage::object::table::Key;
use storage::store::{Installed, unreadable};
use storage::{Command, Flags, Kind, Reply, Value};
use wire::resp::Ahead;

use crate::parcel::Request;
use crate::worker::Worker;

/// Bodies of one worker on their way, at most. Commands that need more wait until some are here.
pub const FETCHES_MAX: usize = 1024;
/// How often a command is held before it reads the engine itself: its bodies leave as fast as they come.
const HOLDS_MAX: u32 = 8;
/// Bodies that were read for one command and stay while entries are on their way that may need them, at most.
const GUESTS_KEPT: usize = 1024;

/// A body to be read from the engine.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Which of the worker's partitions wants it.
    pub partition: usize,
    /// Whose checkpoint has it.
    pub group: GroupId,
    /// In which generation.
    pub generation: u32,
    /// Whose body it is.
    pub key: Key,
    /// Which question this is: only the last one about a key counts.
    pub ticket: u64,
    /// What orders members of decoded values.
    pub hasher: KeyHasher,
}

/// A body that was read, or why it was not.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// See [`Fetch::partition`].
    pub partition: usize,
    /// Whose body it is.
    pub key: Key,
    /// See [`Fetch::ticket`].
    pub ticket: u64,
    /// It, or a sentence for the client.
    pub body: Result<Value, String>,
}

impl Fetch {
    /// The answer, given the body as the last checkpoint wrote it.
    #[must_use]
    pub fn answer(self, body: Result<&[u8], String>) -> Fetched {
        let Fetch { partition, key, ticket, hasher, .. } = self;
        let decode = |body| Value::decode(body, &hasher).map_err(|error| format!("{error}"));
        Fetched { partition, key, ticket, body: body.and_then(decode) }
    }
}

/// Whether a command can run now.
pub(crate) enum Readiness {
    /// It can.
    Ready,
    /// Its connection is held until bodies are here.
    Waits,
    /// It changes something and needs a body that cannot be read: this is the answer.
    Unreadable(String),
}

/// Who waits for a body.
#[derive(Debug, Default)]
struct Awaited {
    ticket: u64,
    underway: bool,
    /// Those that count it among what is not here.
    owed: SmallVec<[ConnId; 2]>,
    /// Those for whom it is to stay.
    by: SmallVec<[ConnId; 2]>,
}

/// What a connection waits for.
#[derive(Debug, Default)]
struct Wait {
    keys: Vec<(usize, Key)>,
    /// Bodies that are not here.
    left: usize,
    /// How often its present command was held.
    holds: u32,
    /// Its present command must wait.
    held: bool,
    /// Bodies that could not be read, until its present command has been told.
    failures: Vec<(usize, Key, String)>,
}

/// Bodies on their way and who waits for them.
#[derive(Debug, Default)]
pub(crate) struct Fetches {
    tickets: u64,
    outbox: Vec<Fetch>,
    underway: usize,
    awaited: BTreeMap<(usize, Key), Awaited>,
    waits: BTreeMap<ConnId, Wait>,
    /// Held with too many bodies on their way.
    starved: Vec<ConnId>,
    /// Commands of other workers' clients, each behind one that waits.
    requests: BTreeMap<ConnId, VecDeque<Held>>,
}

/// What a client of another worker wants, and cannot have yet.
#[derive(Debug)]
enum Held {
    /// A command that waits for bodies, or for a command before it.
    Request(Box<Request>),
    /// The end of its watches, behind an EXEC that still needs them.
    Unwatch,
}

/// What the host does.
impl Worker {
    /// Takes the bodies to be read. Each must be answered by [`Worker::fetched`], in any order.
    pub fn take_fetches(&mut self, out: &mut Vec<Fetch>) {
        out.append(&mut self.fetches.outbox);
    }

    /// Whether there are any to take.
    #[inline]
    #[must_use]
    pub const fn has_fetches(&self) -> bool {
        !self.fetches.outbox.is_empty()
    }

    /// Bodies were read; call [`Worker::end_turn`] afterwards.
    pub fn fetched(&mut self, bodies: impl IntoIterator<Item = Fetched>) {
        for fetched in bodies {
            self.fetches.underway -= 1;
            self.take_body(fetched);
        }
        for id in core::mem::take(&mut self.fetches.starved) {
            self.end_wait(id);
        }
    }
}

/// Before a command.
impl Worker {
    /// What these commands of a connection will need is asked for: the bits of `absent` say whose first keys'
    /// bodies are in the engine only.
    pub(crate) fn look_ahead(&mut self, id: ConnId, at: usize, commands: &[Ahead<'_>], absent: u64) {
        for (nth, (name, key)) in commands.iter().enumerate() {
            if absent & 1 << nth == 0 || self.fetches.underway >= FETCHES_MAX {
                continue;
            }
            let reads = |command: &Command| {
                !command.flags.has(Flags::BLIND) && !command.key_positions(&[key]).is_empty()
            };
            if self.registry.find(name).is_some_and(reads)
                && self.partitions[at].store.is_absent(key, self.now)
            {
                self.ask(id, at, key);
            }
        }
    }

    /// Whether a command of connection `id` can run on partition `at`; what it lacks is asked for.
    #[inline]
    pub(crate) fn fetch_for(
        &mut self,
        id: ConnId,
        at: usize,
        command: &Command,
        args: &[&[u8]],
    ) -> Readiness {
        if !self.partitions[at].store.evicts() {
            return Readiness::Ready;
        }
        self.fetch_needed(id, at, command, args)
    }

    fn fetch_needed(&mut self, id: ConnId, at: usize, command: &Command, args: &[&[u8]]) -> Readiness {
        let mut needed = SmallVec::new();
        self.collect_needed(command, args, &mut needed);
        self.fetch_keys(id, at, command.kind, &needed)
    }

    /// The same for a command that needs the values of `keys`.
    pub(crate) fn fetch_keys(&mut self, id: ConnId, at: usize, kind: Kind, keys: &[&[u8]]) -> Readiness {
        let store = &self.partitions[at].store;
        let absent: SmallVec<[&[u8]; 4]> =
            keys.iter().copied().filter(|key| store.is_absent(key, self.now)).collect();
        let readiness = self.fetch_absent(id, at, kind, &absent);
        if let Readiness::Ready = readiness {
            self.passes(id);
            if kind == Kind::Write {
                keys.iter().for_each(|key| self.partitions[at].store.use_soon(key));
            }
        }
        readiness
    }

    /// The same for the parts of one command, each with its partition, its command and its arguments.
    pub(crate) fn fetch_parts(
        &mut self,
        id: ConnId,
        kind: Kind,
        parts: &[(usize, &'static Command, Args<'_>)],
    ) -> Readiness {
        let mut waits = false;
        let mut all: SmallVec<[(usize, &[u8]); 8]> = SmallVec::new();
        for (at, command, args) in parts {
            let mut needed = SmallVec::new();
            self.collect_needed(command, args, &mut needed);
            let store = &self.partitions[*at].store;
            let absent: SmallVec<[&[u8]; 4]> =
                needed.iter().copied().filter(|key| store.is_absent(key, self.now)).collect();
            all.extend(needed.into_iter().map(|key| (*at, key)));
            match self.fetch_absent(id, *at, kind, &absent) {
                Readiness::Ready => {}
                Readiness::Waits => waits = true,
                unreadable @ Readiness::Unreadable(_) => return unreadable,
            }
        }
        if waits {
            return Readiness::Waits;
        }
        self.passes(id);
        if kind == Kind::Write {
            all.iter().for_each(|(at, key)| self.partitions[*at].store.use_soon(key));
        }
        Readiness::Ready
    }

    /// The keys whose values a command looks at.
    fn collect_needed<'a>(&self, command: &Command, args: &[&'a [u8]], needed: &mut SmallVec<[&'a [u8]; 4]>) {
        if command.id == EXEC || command.id == EXEC_READ {
            let mut inner = Args::new();
            for body in args {
                // What a session queues is one command and no other transaction.
                if let Ok(id) = next_command(&mut Reader::new(body), &mut inner)
                    && let Some(command) =
                        self.registry.by_id(id).filter(|one| ![EXEC, EXEC_READ].contains(&one.id))
                {
                    self.collect_needed(command, &inner, needed);
                }
            }
        } else if command.reads_values(args) {
            needed.extend(command.key_positions(args).into_iter().map(|position| args[position]));
        }
    }

    fn fetch_absent(&mut self, id: ConnId, at: usize, kind: Kind, absent: &[&[u8]]) -> Readiness {
        if absent.is_empty() {
            return Readiness::Ready;
        }
        if let Some(wait) = self.fetches.waits.get_mut(&id) {
            let mut failures = core::mem::take(&mut wait.failures);
            failures.retain(|(partition, key, _)| *partition == at && absent.contains(&&**key));
            if !failures.is_empty() {
                return self.fails(at, kind, failures);
            }
            if wait.holds >= HOLDS_MAX {
                return Readiness::Ready;
            }
        }
        for key in absent {
            if self.fetches.underway >= FETCHES_MAX {
                break;
            }
            self.ask(id, at, key);
        }
        let wait = self.fetches.waits.entry(id).or_default();
        wait.holds += 1;
        wait.held = true;
        if wait.left == 0 {
            self.fetches.starved.push(id);
        }
        Readiness::Waits
    }

    /// A command whose bodies could not all be read: one that changes something is refused, or its partition
    /// would be damaged when it is applied. One that reads learns it when it comes to the key.
    fn fails(&mut self, at: usize, kind: Kind, failures: Vec<(usize, Key, String)>) -> Readiness {
        if kind == Kind::Write || is(Bug::FailedFetchIsAbsence) {
            let (_, key, why) = &failures[0];
            return Readiness::Unreadable(unreadable(key, why));
        }
        let failures = failures.into_iter().map(|(_, key, why)| (key, why)).collect();
        self.partitions[at].store.set_failures(failures);
        Readiness::Ready
    }

    /// Asks for the body of `key`, which is absent, on behalf of `id`.
    fn ask(&mut self, id: ConnId, at: usize, key: &[u8]) {
        let key = Key::from_slice(key);
        let store = &mut self.partitions[at].store;
        let first = store.ask(&key);
        let awaited = self.fetches.awaited.entry((at, key.clone())).or_default();
        if first || !awaited.underway {
            self.fetches.tickets += 1;
            self.fetches.underway += 1;
            (awaited.ticket, awaited.underway) = (self.fetches.tickets, true);
            self.fetches.outbox.push(Fetch {
                partition: at,
                group: self.partitions[at].group_id,
                generation: self.partitions[at].store.generation(),
                key: key.clone(),
                ticket: self.fetches.tickets,
                hasher: self.partitions[at].store.hasher(),
            });
        }
        if awaited.owed.contains(&id) {
            return;
        }
        awaited.owed.push(id);
        let wait = self.fetches.waits.entry(id).or_default();
        wait.left += 1;
        if !awaited.by.contains(&id) {
            awaited.by.push(id);
            wait.keys.push((at, key));
        }
    }

    /// A command of `id` runs: what it waited for is here, or is not waited for.
    #[inline]
    fn passes(&mut self, id: ConnId) {
        if self.fetches.waits.is_empty() {
            return;
        }
        if let Some(wait) = self.fetches.waits.get_mut(&id) {
            (wait.holds, wait.held) = (0, false);
            if wait.left == 0 {
                self.release_wait(id);
            }
        }
    }
}

/// After it.
impl Worker {
    /// The session of `id` has got as far as it can. True if it waits for bodies; else it waits for none.
    #[inline]
    pub(crate) fn settle_fetches(&mut self, id: ConnId) -> bool {
        if self.fetches.waits.is_empty() {
            return false;
        }
        self.settle_wait(id)
    }

    fn settle_wait(&mut self, id: ConnId) -> bool {
        match self.fetches.waits.get(&id) {
            None => false,
            Some(wait) if wait.held => true,
            Some(_) => {
                self.release_wait(id);
                false
            }
        }
    }

    fn release_wait(&mut self, id: ConnId) {
        let Some(wait) = self.fetches.waits.remove(&id) else { return };
        for place in wait.keys {
            let Some(awaited) = self.fetches.awaited.get_mut(&place) else { continue };
            awaited.by.retain(|other| *other != id);
            awaited.owed.retain(|other| *other != id);
            if awaited.by.is_empty() && !awaited.underway {
                self.fetches.awaited.remove(&place);
            }
        }
    }

    /// The connection is gone.
    pub(crate) fn forget_fetches(&mut self, id: ConnId) {
        if !self.fetches.waits.is_empty() {
            self.release_wait(id);
        }
        self.fetches.requests.remove(&id);
    }

    fn take_body(&mut self, Fetched { partition: at, key, ticket, body }: Fetched) {
        let place = (at, key);
        let Some(awaited) = self.fetches.awaited.get_mut(&place) else { return };
        if awaited.ticket != ticket {
            return;
        }
        awaited.underway = false;
        let owed = core::mem::take(&mut awaited.owed);
        if awaited.by.is_empty() {
            self.fetches.awaited.remove(&place);
        }
        let store = &mut self.partitions[at].store;
        store.begin_reads(self.now);
        let failure = match body.map(|value| store.install(&place.1, value)) {
            Ok(Installed::Done | Installed::Stale) => None,
            Ok(Installed::Unfit(why)) => Some(String::from(why)),
            Err(why) => store.give_up(&place.1).then_some(why),
        };
        for id in owed {
            let Some(wait) = self.fetches.waits.get_mut(&id) else { continue };
            wait.left -= 1;
            if let Some(why) = &failure {
                wait.failures.push((at, place.1.clone(), why.clone()));
            }
            if wait.left == 0 {
                self.end_wait(id);
            }
        }
    }

    /// All bodies are here that `id` waits for: its command is tried again.
    fn end_wait(&mut self, id: ConnId) {
        if let Some(wait) = self.fetches.waits.get_mut(&id) {
            wait.held = false;
        }
        if id.worker() != self.others.own {
            return self.run_requests(id);
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !core::mem::take(&mut connection.fetching) {
            return;
        }
        if !connection.io.listed {
            connection.io.listed = true;
            // Even if it answers nothing, it is to be read from again.
            self.flush.push(id);
        }
        if connection.may_be_fed() {
            connection.resumed = true;
            self.resume.push(id);
        }
    }

    /// Bodies that were read for one command leave, unless someone waits for them or an entry is on its way
    /// that may be about them.
    pub(crate) fn let_guests_go(&mut self) {
        for at in 0..self.partitions.len() {
            let partition = &mut self.partitions[at];
            if partition.is_quiet() {
                partition.store.all_applied();
            }
            if partition.store.guests() == 0
                || !partition.flying.is_empty() && partition.store.guests() < GUESTS_KEPT
            {
                continue;
            }
            let awaited = &self.fetches.awaited;
            partition.store.let_guests_go(|key| awaited.contains_key(&(at, Key::from_slice(key))));
        }
    }
}

/// Commands of other workers' clients.
impl Worker {
    /// Runs a request, or keeps it until its bodies are here or what is before it has run.
    pub(crate) fn take_request(&mut self, request: Box<Request>) {
        let id = request.asker.conn;
        let behind = self.is_behind(id) && !is(Bug::HeldRequestOvertaken);
        if behind || !self.run_request(&request) {
            self.fetches.requests.entry(id).or_default().push_back(Held::Request(request));
        } else if !self.is_behind(id) {
            self.settle_fetches(id);
        }
    }

    /// A client watches nothing any more, once what it sent before is done.
    pub(crate) fn take_unwatch(&mut self, id: ConnId) {
        match self.fetches.requests.get_mut(&id) {
            Some(held) => held.push_back(Held::Unwatch),
            None => self.unwatch_for(id),
        }
    }

    /// The clients of another worker that wait for bodies here.
    pub(crate) fn fetchers_of(&self, worker: WorkerId) -> Vec<ConnId> {
        self.fetches.requests.keys().copied().filter(|conn| conn.worker() == worker).collect()
    }

    /// Whether a command of this client waits here.
    fn is_behind(&self, id: ConnId) -> bool {
        !self.fetches.requests.is_empty() && self.fetches.requests.contains_key(&id)
    }

    fn run_requests(&mut self, id: ConnId) {
        while let Some(held) = self.fetches.requests.get_mut(&id).and_then(VecDeque::pop_front) {
            match held {
                Held::Request(request) => {
                    if !self.run_request(&request) {
                        self.fetches.requests.entry(id).or_default().push_front(Held::Request(request));
                        return;
                    }
                }
                Held::Unwatch => self.unwatch_for(id),
            }
        }
        self.fetches.requests.remove(&id);
        self.settle_fetches(id);
    }
}

/// Answers a command whose keys' bodies cannot be read.
pub(crate) fn refuse_unreadable(reply: &mut RespReply<'_>, text: &str) {
    if is(Bug::FailedFetchIsAbsence) {
        return reply.null();
    }
    reply.error(text);
}
