//! One run: a node on a disk that lies within its rights, clients, crashes, and the judge.

mod bodies;
mod crash;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use check::judge::ClientId;
use check::{Judge, Violation};
use consensus::{Durability, Solo};
use journal::Salt;
use kernel::{ConnId, GroupId, KeyspaceId, Micros, Rng, Term, WorkerId};
use node::{Elsewhere, Partition, Settings, SliceSteps, Worker, owner, recover};
use script::LuaEngine;
use storage::Store;

use crate::checkpoint::{Checkpointer, Durable, Rates};
use crate::disk::Disk;
use crate::engine::Engine;
use crate::fetch::Desk;
use crate::log::{Asked, Log};
use crate::plan::{Ending, Plan};
use crate::post::Post;
use crate::trace::Trace;
use crate::work::{Scope, Sent, Work};

/// The node's clock at the simulation's start, in microseconds since the epoch.
const EPOCH_MICROS: u64 = 1_700_000_000_000_000;
/// Commands that a client may have on their way.
const PENDING_MAX: usize = 24;
/// Turns at one instant before the node is said to spin.
const SPIN_MAX: usize = 1000;

/// How soon a host looks again when something is overdue: about the least that it can sleep.
const OVERDUE_MICROS: u64 = 1_000;
/// Rounds of pushes after which nobody waits any more.
const SERVINGS_MAX: usize = 40;

/// What a run was.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The trace's hash.
    pub hash: u64,
    /// Events in it.
    pub events: u64,
    /// Replies that were checked.
    pub replies: u64,
    /// Restarts after crashes.
    pub crashes: u64,
    /// Checkpoints that became durable.
    pub checkpoints: u64,
    /// Bodies that were read back from the engine.
    pub misses: u64,
    /// Bodies that were read ahead of their commands.
    pub fetches: u64,
    /// Logs that were refused after damage.
    pub refusals: u64,
}

/// Runs the seed's plan; the trace is the caller's, so that it outlives a panic.
///
/// # Errors
/// The first promise that broke.
pub fn run(seed: u64, scope: Scope, trace: &mut Trace) -> Result<Outcome, Violation> {
    let mut world = World::new(seed, scope, trace);
    let lives = world.plan.lives.clone();
    for ending in lives {
        world.live(world.plan.life_micros)?;
        world.end(ending)?;
    }
    world.live(world.plan.life_micros)?;
    world.settle()?;
    world.end(Ending::Cut)?;
    world.check_digests()?;
    let (hash, events) = (world.trace.hash(), world.trace.events());
    let World { judge, outcome, .. } = world;
    Ok(Outcome { hash, events, replies: judge.replies, ..outcome })
}

struct Client {
    id: ClientId,
    conn: ConnId,
    db: u16,
    /// When it does something next.
    next: u64,
    /// Commands of a transaction that are sent later.
    later: Vec<Vec<Sent>>,
    /// Bytes that the node has not read.
    outbox: Vec<u8>,
    /// It leaves its answers unread for a while.
    unread_until: u64,
}

/// A worker with its background work.
struct Member {
    worker: Worker,
    checkpointer: Checkpointer,
}

struct Node {
    members: Vec<Member>,
    post: Post,
    desk: Desk,
    log: Log,
    /// The process's clock minus the simulation's.
    skew: i64,
    /// When the sync on its way ends, and how.
    sync: Option<(u64, bool)>,
    /// When it goes on with what it left to later turns.
    again: Option<u64>,
}

impl Node {
    fn clock(&self, now: u64) -> Micros {
        Micros((EPOCH_MICROS + now).saturating_add_signed(self.skew))
    }

    /// The worker that has the connection.
    fn of(&mut self, conn: ConnId) -> &mut Worker {
        &mut self.members[usize::from(conn.worker().0)].worker
    }

    fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.members.iter().flat_map(|member| member.worker.partitions())
    }
}

struct World<'t> {
    plan: Plan,
    scope: Scope,
    trace: &'t mut Trace,
    rng: Rng,
    faults: Rng,
    /// Where clients connect, and how long parcels take.
    spread: Rng,
    /// When bodies are read, and which cannot be.
    reading: Rng,
    now: u64,
    node: Node,
    clients: Vec<Client>,
    engine: Engine,
    work: Work,
    judge: Judge,
    next_client: u64,
    calm: bool,
    failed_at: Option<u64>,
    slowest_sync: u64,
    outcome: Outcome,
}

/// The stores, the clock's error and the worker's seed.
type Beginning = (BTreeMap<GroupId, (Store, Term)>, i64, u64);

fn start(plan: &Plan, log: Log, engine: &Engine, (mut stores, skew, seed): Beginning) -> Node {
    let (naming, divisions) = (recover::naming(&stores), plan.divisions());
    let mut partition = |keyspace: KeyspaceId, number: u16, durability: Durability| {
        let group = GroupId::new(naming.home(keyspace), number);
        let fresh = || (Store::new(plan.data_seed).within(divisions.scope(group)), Term(1));
        let (mut store, term) = stores.remove(&group).unwrap_or_else(fresh);
        store.set_fetch(engine.reader(group));
        let solo = Solo::new(term, store.applied(), durability);
        Partition::new(group, store, solo).serving(keyspace)
    };
    let member = |number: u16| {
        let owner = |db, part| owner(db, part, plan.workers);
        let own = plan.all().filter(|&(db, part, _)| owner(db, part) == WorkerId(number));
        let partitions = own.map(|(db, part, durability)| partition(db, part, durability)).collect();
        let others = plan.all().filter(|&(db, part, _)| owner(db, part) != WorkerId(number));
        let elsewhere = others.map(|(keyspace, partition, _)| {
            let worker = owner(keyspace, partition);
            Elsewhere { keyspace, partition, worker }
        });
        let settings = Settings {
            worker: WorkerId(number),
            workers: plan.workers,
            elsewhere: elsewhere.collect(),
            slice_steps: SliceSteps(plan.slice_steps),
            ..Settings::default()
        };
        let worker = Worker::new(settings, partitions, Box::new(LuaEngine::new()), seed ^ u64::from(number));
        Member { worker, checkpointer: Checkpointer::default() }
    };
    let members = (0..plan.workers).map(member).collect();
    let (post, desk) = (Post::default(), Desk::default());
    Node { members, post, desk, log, skew, sync: None, again: None }
}

impl<'t> World<'t> {
    fn new(seed: u64, scope: Scope, trace: &'t mut Trace) -> World<'t> {
        let root = Rng::new(seed);
        let plan = Plan::draw(&mut root.fork(1));
        trace.event(0, format_args!("plan {plan:?}"));
        let groups: Vec<(GroupId, bool)> = plan
            .all()
            .map(|(db, part, durability)| (GroupId::new(db, part), durability == Durability::Always))
            .collect();
        let log = Log::create(Disk::default(), Salt(root.fork(2).next_u64()));
        let engine = Engine::default();
        let node = start(&plan, log, &engine, (BTreeMap::new(), 0, seed));
        World {
            judge: Judge::new(&groups, plan.data_seed),
            rng: root.fork(3),
            faults: root.fork(4),
            spread: root.fork(5),
            reading: root.fork(6),
            now: 0,
            node,
            clients: Vec::new(),
            engine,
            work: Work::new(plan.divisions()),
            next_client: 0,
            calm: false,
            failed_at: None,
            slowest_sync: 0,
            outcome: Outcome::default(),
            scope,
            plan,
            trace,
        }
    }

    /// Lets the node run for `micros`, with clients.
    fn live(&mut self, micros: u64) -> Result<(), Violation> {
        let until = self.now + micros;
        while self.clients.len() < self.plan.clients {
            self.connect();
        }
        while let Some(at) = self.next_event().filter(|&at| at < until) {
            self.now = self.now.max(at) + self.rng.below(self.plan.turn_micros);
            self.turn()?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    fn next_event(&mut self) -> Option<u64> {
        let Node { members, log, skew, sync, post, desk, again } = &self.node;
        let deadlines = members.iter().filter_map(|member| member.worker.deadline());
        let wake = deadlines.min().map(|at| {
            let at = at.0.saturating_sub(EPOCH_MICROS).saturating_add_signed(-*skew);
            // What is overdue waits for something else, and hosts do not spin meanwhile.
            if at > self.now { at } else { self.now + OVERDUE_MICROS }
        });
        let sync = sync.map(|(at, _)| at).or_else(|| log.commit.sync_due().map(|due| due.0));
        let clients = self.clients.iter().map(|client| client.next).min();
        let unread =
            self.clients.iter().map(|client| client.unread_until).filter(|&until| until > self.now).min();
        [wake, sync, clients, unread, post.due(), desk.due(), *again].into_iter().flatten().min()
    }

    /// One turn of the node at the present instant.
    fn turn(&mut self) -> Result<(), Violation> {
        self.node.log.now = self.now;
        self.node.again = None;
        self.finish_sync();
        self.toggle_space();
        for at in 0..self.clients.len() {
            if self.clients[at].next <= self.now {
                self.act(at);
            }
        }
        self.deliver();
        let clock = self.node.clock(self.now);
        for at in 0..self.node.members.len() {
            self.work(at, clock)?;
        }
        self.node.log.tend();
        if self.node.sync.is_none() && self.node.log.start_sync() {
            self.schedule_sync();
        }
        Ok(())
    }

    /// One worker's part of a turn.
    fn work(&mut self, at: usize, clock: Micros) -> Result<(), Violation> {
        let own = WorkerId(at as u16);
        for (from, parcel) in self.node.post.arrived(self.now, own) {
            self.trace.event(self.now, format_args!("worker {from} to {own}: {parcel:?}"));
            self.node.members[at].worker.accept(clock, from, parcel);
        }
        self.bring(at, own);
        let worker = &mut self.node.members[at].worker;
        if worker.deadline().is_some_and(|deadline| deadline <= clock) {
            worker.wake(clock);
        }
        for round in 0.. {
            if round > SPIN_MAX {
                return Err(Violation { rule: "a turn ends", what: "the node spins".into() });
            }
            let more = self.node.members[at].worker.end_turn(clock, &mut self.node.log);
            self.dispatch(at);
            self.judge_turn(clock)?;
            self.deliver();
            if !more && !self.node.members[at].worker.is_ready() {
                break;
            }
            if more && self.spread.chance(self.plan.between_slices) {
                self.node.again = Some(self.now + 1 + self.spread.below(300));
                break;
            }
        }
        let Member { worker, checkpointer } = &mut self.node.members[at];
        let rates = Rates { checkpoint: self.plan.checkpoint, evict: self.plan.evict };
        let news = checkpointer.step(worker, &mut self.node.log, &self.engine, rates, &mut self.faults);
        // A stalled or damaged partition has something to tell, too.
        self.dispatch(at);
        self.fetch(at, own);
        if let Some(Durable { group, index, changes, .. }) = news {
            self.outcome.checkpoints += 1;
            let what = format_args!("checkpoint of {group} at {index} is durable, {changes} changes");
            self.trace.event(self.now, what);
        }
        Ok(())
    }

    /// Takes what a worker has for the others.
    fn dispatch(&mut self, at: usize) {
        let mut parcels = Vec::new();
        self.node.members[at].worker.take_parcels(&mut parcels);
        let micros = if self.calm { 0 } else { self.plan.parcel_micros };
        for (to, parcel) in parcels {
            self.node.post.send(self.now, WorkerId(at as u16), to, parcel, micros, &mut self.spread);
        }
    }

    fn finish_sync(&mut self) {
        let Some((_, fails)) = self.node.sync.filter(|(at, _)| *at <= self.now) else { return };
        self.node.sync = None;
        if fails {
            self.trace.event(self.now, format_args!("sync fails"));
            self.failed_at.get_or_insert(self.now);
            self.node.log.fail_sync(&mut self.faults);
            // Unless a planted bug has made the log go on.
            if self.node.log.commit.is_poisoned() {
                let clock = self.node.clock(self.now);
                self.judge.log_failed(clock);
                self.node.members.iter_mut().for_each(|member| member.worker.log_failed(clock));
            }
        } else {
            let durable = self.node.log.finish_sync();
            self.trace.event(self.now, format_args!("synced {durable}"));
            self.node.members.iter_mut().for_each(|member| member.worker.synced(durable));
        }
    }

    fn schedule_sync(&mut self) {
        let slow = !self.calm && self.faults.chance(self.plan.slow_sync);
        let micros = if slow { 200_000 } else { self.plan.sync_micros };
        let micros = micros / 2 + self.faults.below(micros);
        let fails = !self.calm && self.faults.chance(self.plan.sync_failure);
        self.slowest_sync = self.slowest_sync.max(micros);
        self.node.sync = Some((self.now + micros, fails));
    }

    fn toggle_space(&mut self) {
        let full = self.node.log.disk.full;
        let toggles = if full {
            self.calm || self.faults.chance(0.1)
        } else {
            !self.calm && self.faults.chance(self.plan.full_disk)
        };
        if toggles {
            self.node.log.disk.full = !full;
            self.trace.event(self.now, format_args!("disk full: {}", !full));
        }
    }

    /// Shows the judge what the log was asked, what was applied, and what clients were told.
    fn judge_turn(&mut self, clock: Micros) -> Result<(), Violation> {
        for asked in std::mem::take(&mut self.node.log.asked) {
            match asked {
                Asked::Written { group, entry } => {
                    let (index, end, time) = (entry.index, entry.end, entry.time);
                    let bytes = entry.body.len();
                    self.trace.event(
                        self.now,
                        format_args!("written {group}:{index} time {} end {end} ({bytes} bytes)", time.0),
                    );
                    self.judge.written(group, entry)?;
                }
                Asked::Refused { group, body } => {
                    self.trace.event(self.now, format_args!("refused {group} ({} bytes)", body.len()));
                    self.judge.refused(clock, group, &body);
                }
            }
        }
        for partition in self.node.partitions() {
            let (group, applied) = (partition.group_id(), partition.store().applied());
            let memory = partition.store().memory_bytes();
            if memory > 1 << 30 {
                return Err(Violation { rule: "memory is accounted for", what: format!("{memory} bytes") });
            }
            self.judge.applied(group, applied)?;
        }
        self.flush(clock)
    }

    /// Takes what the node has for its clients.
    fn flush(&mut self, clock: Micros) -> Result<(), Violation> {
        let mut ids = Vec::new();
        self.node.members.iter_mut().for_each(|member| member.worker.take_flush(&mut ids));
        for client in &self.clients {
            if !ids.contains(&client.conn) {
                ids.push(client.conn);
            }
        }
        for conn in ids {
            let Some(client) = self.clients.iter().find(|client| client.conn == conn) else { continue };
            if client.unread_until > self.now {
                continue;
            }
            let Some((out, closing)) = self.node.of(conn).output(conn) else { continue };
            if out.is_empty() {
                continue;
            }
            let bytes = std::mem::take(out);
            let id = client.id;
            self.trace.event(self.now, format_args!("client {} told {}", id.0, check::reply::shown(&bytes)));
            self.judge.received(clock, id, &bytes)?;
            self.node.of(conn).drained(conn);
            if closing {
                return Err(Violation { rule: "nobody is cut off", what: format!("client {}", id.0) });
            }
        }
        Ok(())
    }

    fn deliver(&mut self) {
        let clock = self.node.clock(self.now);
        for client in &mut self.clients {
            if client.outbox.is_empty() || !self.node.of(client.conn).wants_input(client.conn) {
                continue;
            }
            // A packet may end anywhere.
            let whole = self.calm || self.rng.chance(0.8);
            let bytes = if whole {
                client.outbox.len()
            } else {
                1 + self.rng.below(client.outbox.len() as u64) as usize
            };
            self.node.of(client.conn).receive(clock, client.conn, &client.outbox[..bytes]);
            client.outbox.drain(..bytes);
            if !client.outbox.is_empty() {
                client.next = client.next.min(self.now + 50);
            }
        }
    }

    fn connect(&mut self) {
        let clock = self.node.clock(self.now);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let at = self.spread.below(self.plan.workers.into()) as usize;
        let conn = self.node.members[at].worker.connect(clock, peer).expect("there are few clients");
        self.next_client += 1;
        let id = ClientId(self.next_client);
        let db = self.rng.below(self.plan.keyspaces.len() as u64) as u16;
        self.trace.event(self.now, format_args!("client {} connects", id.0));
        self.judge.connected(id);
        let next = self.now + self.rng.below(self.plan.think_micros);
        let client = Client { id, conn, db, next, later: Vec::new(), outbox: Vec::new(), unread_until: 0 };
        self.clients.push(client);
        let at = self.clients.len() - 1;
        self.send(at, &[Work::select(db)]);
    }

    fn send(&mut self, at: usize, all: &[Sent]) {
        let clock = self.node.clock(self.now);
        let client = &mut self.clients[at];
        for sent in all {
            self.trace.event(self.now, format_args!("client {} sends {}", client.id.0, sent.text));
            self.judge.sent(clock, client.id, sent.call.clone(), sent.text.clone());
            client.outbox.extend_from_slice(&sent.bytes);
        }
    }

    /// A client does something.
    fn act(&mut self, at: usize) {
        let pause = if self.rng.chance(0.02) { 2_000_000 } else { self.plan.think_micros };
        let wait = self.rng.below(pause) + 1;
        let client = &mut self.clients[at];
        client.next = self.now + wait;
        if self.rng.chance(self.plan.disconnect) && client.unread_until <= self.now {
            let client = self.clients.remove(at);
            self.trace.event(self.now, format_args!("client {} leaves", client.id.0));
            self.judge.disconnected(client.id);
            self.node.of(client.conn).disconnect(client.conn);
            self.connect();
            return;
        }
        if self.rng.chance(0.02) {
            client.unread_until = self.now + self.rng.below(20_000);
        }
        let (id, db) = (client.id, client.db);
        for _ in 0..1 + self.rng.below(self.plan.pipeline) {
            if self.judge.pending(id) >= PENDING_MAX {
                return;
            }
            if self.clients[at].later.is_empty() {
                let shared = (self.plan.keyspaces.len() as u16, self.plan.workers);
                let mut drawn = self.work.draw_in(self.scope, &mut self.rng, db, shared);
                drawn.reverse();
                self.clients[at].later = drawn;
            }
            let Some(sent) = self.clients[at].later.pop() else { return };
            self.send(at, &sent);
            if !self.clients[at].later.is_empty() {
                return;
            }
        }
    }

    /// No more faults, and nobody begins anything new: everyone who asked must be answered.
    fn settle(&mut self) -> Result<(), Violation> {
        self.trace.event(self.now, format_args!("calm"));
        self.calm = true;
        if self.node.sync.is_some_and(|(_, fails)| fails) || self.node.log.commit.is_poisoned() {
            self.end(Ending::Kill)?;
        }
        for client in &mut self.clients {
            client.next = u64::MAX;
            client.unread_until = 0;
        }
        self.run_until_quiet()?;
        self.check_waiters()?;
        // Those who wait for ever are served by pushes to every list, and may then wait again.
        self.connect();
        for _ in 0..SERVINGS_MAX {
            for db in 0..self.plan.keyspaces.len() as u16 {
                self.push_all(db);
            }
            self.run_until_quiet()?;
            self.check_waiters()?;
            if self.judge.waiting().is_empty() {
                break;
            }
        }
        match self.judge.waiting().first() {
            Some((id, text)) => Err(Violation {
                rule: "everyone is answered in the end",
                what: format!("client {} still waits for {text}", id.0),
            }),
            None => self.check_digests(),
        }
    }

    fn check_waiters(&mut self) -> Result<(), Violation> {
        match self.judge.starving() {
            None => Ok(()),
            Some((id, text)) => Err(Violation {
                rule: "who waits is served",
                what: format!("client {} waits for {text}, and there is something", id.0),
            }),
        }
    }

    fn push_all(&mut self, db: u16) {
        let mut all = vec![Work::select(db)];
        for _ in 0..2 {
            all.extend(self.work.pushes(db));
        }
        self.send(self.clients.len() - 1, &all);
    }

    fn run_until_quiet(&mut self) -> Result<(), Violation> {
        let until = self.now + 5_000_000;
        self.turn()?;
        while let Some(at) = self.next_event().filter(|&at| at < until) {
            self.now = self.now.max(at) + 1;
            for client in &mut self.clients {
                client.next = u64::MAX;
            }
            self.turn()?;
        }
        self.now = until;
        self.turn()
    }

    fn check_digests(&mut self) -> Result<(), Violation> {
        for partition in self.node.partitions() {
            let group = partition.group_id();
            let digest = partition
                .store()
                .digest()
                .map_err(|fault| Violation { rule: "the state can be read", what: format!("{fault:?}") })?;
            let (applied, expected) = self.judge.digest(group);
            if digest != expected || partition.store().applied() != applied {
                let what =
                    format!("group {group} at {applied}: digest {digest:016x}, replayed {expected:016x}");
                return Err(Violation { rule: "the same entries give the same state", what });
            }
        }
        Ok(())
    }
}
