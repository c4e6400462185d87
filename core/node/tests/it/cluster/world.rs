//! Several nodes, a network and disks, in one thread and virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use consensus::replay::Tail;
use consensus::{Durability, Incarnation, Members, ReplicaId};
use control::{ReadFrom, Reading};
use kernel::{ConnId, GroupId, KeyspaceId, Lsn, Micros, NodeId, Rng};
use node::cluster::transfer::{Options, Report, Staged, Task};
use node::cluster::{Done, Job, Outgoing, Seating, Start};
use node::{Settings, Worker};
use placement::Partitions;
use storage::apply::NoScripts;
use storage::store::Policy;

use super::disk::{Disk, Held};
use crate::harness::START;

/// Chance of stores, of all nodes.
pub const SEED: u64 = 77;
/// Microseconds of one step.
const STEP: u64 = 500;
/// Microseconds for which a process that goes on has not heard anybody yet, as its clients are faster.
const AFTER_PAUSE: u64 = 20_000;
/// Steps after which a test gives up waiting.
const PATIENCE: u64 = 60_000;

pub fn group(partition: u16) -> GroupId {
    GroupId::new(KeyspaceId(0), partition)
}

pub fn replica(node: usize) -> ReplicaId {
    ReplicaId::new(node as u64 + 1).expect("counted from 1")
}

pub fn node_id(node: usize) -> NodeId {
    NodeId([node as u8 + 1; 32])
}

/// A client, and which node has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client {
    pub node: usize,
    pub conn: ConnId,
}

#[derive(Default)]
pub struct Machine {
    pub worker: Option<Worker>,
    pub disk: Disk,
    pub lives: u64,
    /// Syncs of the log are held back.
    pub sync_held: bool,
    /// The process stands still until then; frames wait for it.
    pub paused: Micros,
}

pub struct World {
    pub now: Micros,
    pub machines: Vec<Machine>,
    pub cut: BTreeSet<(usize, usize)>,
    /// The most steps that a frame takes.
    pub delay: u64,
    pub rng: Rng,
    /// How often a frame is lost.
    pub loss: f64,
    net: BTreeMap<(Micros, u64), (usize, Outgoing)>,
    /// When the last frame between two arrives: those behind it do not overtake it.
    last: BTreeMap<(usize, NodeId), Micros>,
    /// Between whom frames were lost since the links began.
    torn: BTreeSet<(usize, usize)>,
    sequence: u64,
    /// Frames sent, ever.
    pub sent: u64,
    partitions: u16,
    /// Which nodes each group has replicas at; the founders are the first three.
    pub seats: BTreeMap<GroupId, Vec<(NodeId, ReplicaId)>>,
    pub founders: usize,
    /// What is added to the numbers of founders' replicas: they are others where a group begins anew.
    anew: u64,
    ports: u16,
    /// Milliseconds that the bytes of a snapshot take.
    pub fetching_takes: u64,
    fetched: Vec<(Micros, usize, Done)>,
    pub leases: bool,
    pub durability: Durability,
}

impl World {
    /// `nodes` nodes, of which the first three begin each of the `partitions` of keyspace 0.
    pub fn new(nodes: usize, partitions: u16) -> World {
        World::seeded(nodes, partitions, 1)
    }

    /// The same with so many founders.
    pub fn of(nodes: usize, founders: usize, partitions: u16) -> World {
        World::made(nodes, founders, partitions, 1)
    }

    pub fn seeded(nodes: usize, partitions: u16, seed: u64) -> World {
        World::made(nodes, nodes.min(3), partitions, seed)
    }

    fn made(nodes: usize, founders: usize, partitions: u16, seed: u64) -> World {
        let seats: Vec<_> = (0..founders).map(|node| (node_id(node), replica(node))).collect();
        let mut world = World {
            now: START,
            machines: (0..nodes).map(|_| Machine::default()).collect(),
            cut: BTreeSet::new(),
            delay: 1,
            rng: Rng::new(seed),
            loss: 0.0,
            net: BTreeMap::new(),
            last: BTreeMap::new(),
            torn: BTreeSet::new(),
            sequence: 0,
            sent: 0,
            partitions,
            seats: (0..partitions).map(|number| (group(number), seats.clone())).collect(),
            founders,
            anew: 0,
            ports: 0,
            fetching_takes: 0,
            fetched: Vec::new(),
            leases: false,
            durability: Durability::Always,
        };
        (0..nodes).for_each(|node| world.start(node));
        world
    }

    pub fn worker(&mut self, node: usize) -> &mut Worker {
        self.machines[node].worker.as_mut().expect("the node runs")
    }

    fn seating(&self, group: GroupId, node: usize, replica: ReplicaId) -> Seating {
        let founders = (0..self.founders).map(|node| self.founder(node));
        let founder = node < self.founders && replica == self.founder(node);
        Seating {
            group,
            replica,
            nodes: self.seats[&group].clone(),
            founders: founder.then(|| Members::new(founders, []).expect("sound")),
            epoch: 1,
            durability: self.durability,
            partitions: Partitions::new(self.partitions).expect("some"),
            policy: Policy::NoEviction,
            memory: None,
        }
    }

    /// The number of a founder's replica.
    fn founder(&self, node: usize) -> ReplicaId {
        ReplicaId::new(replica(node).get() + self.anew).expect("counted from 1")
    }

    /// How `node` is told that keyspace 0 is read.
    pub fn read_from(&mut self, node: usize, from: ReadFrom) {
        self.worker(node).set_reading(KeyspaceId(0), Reading { from, ..Reading::default() });
    }

    /// A group's keyspace was dropped: no node has a replica of it.
    pub fn drop_group(&mut self, group: GroupId) {
        let now = self.now;
        for node in 0..self.machines.len() {
            self.worker(node).stop_replica(now, group);
            self.turn(node);
        }
    }

    /// The group begins once more, with the same founders under other numbers.
    pub fn begin_anew(&mut self, group: GroupId) {
        self.anew += 100;
        let seats: Vec<_> = (0..self.founders).map(|node| (node_id(node), self.founder(node))).collect();
        self.seats.insert(group, seats.clone());
        for (node, &(_, replica)) in seats.iter().enumerate() {
            self.seat(node, group, replica);
            self.turn(node);
        }
    }

    /// Starts a process on what its disk has.
    pub fn start(&mut self, node: usize) {
        let (now, leases) = (self.now, self.leases);
        let machine = &mut self.machines[node];
        machine.lives += 1;
        let start = Start {
            node: node_id(node),
            incarnation: Incarnation(machine.lives),
            seed: SEED,
            chance: self.rng.next_u64(),
            kept: machine.disk.recover(if self.durability == Durability::Always {
                Tail::Certain
            } else {
                Tail::Ambiguous
            }),
        };
        let settings = Settings { started: now, ..Settings::default() };
        let mut worker = Worker::new(settings, Vec::new(), Box::new(NoScripts), 7)
            .with_cluster(start)
            .with_transfers(Options::default());
        worker.lay(KeyspaceId(0), Partitions::new(self.partitions).expect("some"));
        if leases {
            worker.set_reading(KeyspaceId(0), Reading { from: ReadFrom::Lease, ..Reading::default() });
        }
        machine.worker = Some(worker);
        for other in (0..self.machines.len()).filter(|&other| other != node) {
            self.link(node, other);
        }
        for (group, seats) in self.seats.clone() {
            let nodes = seats.iter().map(|&(node, _)| node).collect();
            self.worker(node).place_copies(group, nodes, 1);
            if let Some(&(_, replica)) = seats.iter().find(|(other, _)| *other == node_id(node)) {
                self.seat(node, group, replica);
            }
        }
        self.turn(node);
    }

    fn seat(&mut self, node: usize, group: GroupId, replica: ReplicaId) {
        let (now, seating) = (self.now, self.seating(group, node, replica));
        self.worker(node).start_replica(now, &seating);
    }

    /// There is a new link between two nodes that run.
    pub fn link(&mut self, one: usize, two: usize) {
        let now = self.now;
        if self.machines[one].worker.is_some() && self.machines[two].worker.is_some() {
            self.worker(one).peer_up(now, node_id(two));
            self.worker(two).peer_up(now, node_id(one));
        }
    }

    /// Gives `node` a replica of `group`, which the leader is asked to add.
    pub fn join(&mut self, group: GroupId, node: usize, replica: ReplicaId) {
        self.seats.get_mut(&group).expect("it exists").push((node_id(node), replica));
        self.seat(node, group, replica);
        let (now, seats) = (self.now, self.seats[&group].clone());
        for node in 0..self.machines.len() {
            if let Some(worker) = &mut self.machines[node].worker {
                worker.reseat(now, group, &seats, 2);
            }
        }
    }

    /// The process ends; what is not synced may be lost.
    pub fn crash(&mut self, node: usize, lose: bool) {
        let machine = &mut self.machines[node];
        machine.worker = None;
        if lose {
            machine.disk.log.truncate(machine.disk.synced);
        }
        machine.disk.synced = machine.disk.log.len();
        machine.sync_held = false;
        self.net.retain(|_, (_, frame)| frame.to != node_id(node));
        let now = self.now;
        for other in (0..self.machines.len()).filter(|&other| other != node) {
            if let Some(worker) = &mut self.machines[other].worker {
                worker.peer_down(now, node_id(node));
            }
        }
    }

    /// No frame passes between `node` and the others, either way.
    pub fn isolate(&mut self, node: usize) {
        for other in 0..self.machines.len() {
            self.cut.extend([(node, other), (other, node)]);
        }
    }

    /// All frames pass again.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.mend_links();
    }

    /// Where frames were lost the link broke: what else is on it is lost too, and there is a new one once frames pass.
    fn mend_links(&mut self) {
        let torn: Vec<(usize, usize)> = self.torn.iter().copied().collect();
        for (one, two) in torn {
            let cut = self.cut.contains(&(one, two)) || self.cut.contains(&(two, one));
            if cut || self.is_paused(one) || self.is_paused(two) {
                continue;
            }
            self.torn.remove(&(one, two));
            let ends = [(one, node_id(two)), (two, node_id(one))];
            self.net.retain(|_, (from, frame)| !ends.contains(&(*from, frame.to)));
            self.link(one, two);
            self.turn(one);
            self.turn(two);
        }
    }

    /// Ends a node's turns until it has nothing to do at once, and does what it asks.
    pub fn turn(&mut self, node: usize) {
        if self.is_paused(node) {
            return;
        }
        for _ in 0..64 {
            let machine = &mut self.machines[node];
            let Some(worker) = &mut machine.worker else { return };
            let mut more = worker.end_turn(self.now, &mut machine.disk);
            if !machine.sync_held && machine.disk.synced < machine.disk.log.len() {
                machine.disk.synced = machine.disk.log.len();
                worker.synced(Lsn(machine.disk.synced as u64));
                more = true;
            }
            let (mut frames, mut jobs) = (Vec::new(), Vec::new());
            worker.take_frames(&mut frames);
            worker.take_jobs(&mut jobs);
            for frame in frames {
                self.send(node, frame);
            }
            more |= !jobs.is_empty();
            jobs.into_iter().for_each(|job| self.work(node, job));
            if !more {
                return;
            }
        }
        panic!("node {node} does not come to rest");
    }

    fn send(&mut self, from: usize, frame: Outgoing) {
        self.sent += 1;
        let steps = 1 + self.rng.below(self.delay);
        self.sequence += 1;
        let last = self.last.entry((from, frame.to)).or_default();
        *last = (self.now + steps * STEP).max(*last);
        self.net.insert((*last, self.sequence), (from, frame));
    }

    /// A snapshot's stream says who has it and its generation; whoever has that finds the rest there.
    fn transfer(&mut self, node: usize, task: Task) -> Option<Report> {
        match task {
            Task::Begin { ticket, .. } => {
                Some(Report::Staged { ticket, staged: Some(Staged { cursor: Some(Vec::new()), bytes: 0 }) })
            }
            Task::Stage { group, content, ticket, .. } => {
                let (from, generation) = content.split_at(8);
                let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
                let key = (group, number(generation));
                let held = self.machines[number(from) as usize].disk.snapshots.get(&key).cloned();
                self.machines[node].disk.snapshots.extend(held.map(|held| (key, held)));
                Some(Report::Staged { ticket, staged: Some(Staged { cursor: None, bytes: 16 }) })
            }
            Task::Check { ticket, .. } if self.fetching_takes > 0 => {
                let done = Done::Transferred(Report::Checked { ticket, sound: true });
                self.fetched.push((self.now.plus_millis(self.fetching_takes), node, done));
                None
            }
            Task::Check { ticket, .. } => Some(Report::Checked { ticket, sound: true }),
            Task::Read { group, generation, ticket, .. } => {
                let held = self.machines[node].disk.snapshots.contains_key(&(group, generation));
                let content = [(node as u64).to_le_bytes(), generation.to_le_bytes()].concat();
                Some(Report::Read { ticket, lot: held.then_some((content, None)) })
            }
            Task::Drop { .. } | Task::Release { .. } => None,
        }
    }

    fn work(&mut self, node: usize, job: Job) {
        let now = self.now;
        let done = match job {
            Job::Added { at, group, holding, fresh } => {
                let held = Held { holding, frame: None, objects: BTreeMap::new() };
                if fresh {
                    self.machines[node].disk.engine.insert(group, held);
                    Some(Done::Added { at })
                } else {
                    None
                }
            }
            Job::Removed { at, group } => {
                self.machines[node].disk.engine.remove(&group);
                Some(Done::Removed { at })
            }
            Job::MakeSnapshot { at } => {
                let group = self.worker(node).partitions()[at].group_id();
                self.checkpoint(node, at);
                Some(Done::Made { at, descriptor: Some(self.machines[node].disk.keep(group)) })
            }
            Job::Transfer(task) => self.transfer(node, task).map(Done::Transferred),
            Job::FetchSnapshot { .. } => panic!("the worker moves snapshots itself"),
            Job::Install { at, group, descriptor, holding } => {
                let disk = &mut self.machines[node].disk;
                let held = disk.snapshots[&(group, descriptor.generation)].clone();
                disk.engine.insert(group, Held { holding, ..held });
                Some(Done::Installed { at, store: Box::new(disk.engine[&group].store(group)) })
            }
            Job::ReadEntries { at, group, first, last } => {
                let entries = self.machines[node].disk.entries(group, first, last);
                Some(Done::Entries { at, last, entries })
            }
            Job::Link { .. } | Job::Unlink { .. } | Job::PersistControl { .. } | Job::Incarnation(_) => None,
        };
        if let Some(done) = done {
            self.worker(node).job_done(now, done);
        }
    }

    /// Checkpoints a partition; false if it must not be now.
    pub fn checkpoint(&mut self, node: usize, at: usize) -> bool {
        let machine = &mut self.machines[node];
        let worker = machine.worker.as_mut().expect("the node runs");
        let partition = &mut worker.partitions_mut()[at];
        let (group, Some(holding)) = (partition.group_id(), partition.cut()) else { return false };
        let store = partition.store_mut();
        store.begin_cut();
        let (frame, images) = store.write_cut(usize::MAX / 2).expect("it is whole");
        store.cut_is_durable();
        let index = frame.index;
        machine.disk.commit(group, holding, frame, &images);
        let given_away = worker.checkpointed(at, index);
        machine.disk.floors.insert(group, given_away);
        true
    }

    /// Lets one step of time pass.
    pub fn step(&mut self) {
        self.now = self.now + STEP;
        let mut touched = BTreeSet::new();
        let now = self.now;
        for (_, node, done) in self.fetched.extract_if(.., |(due, ..)| *due <= now).collect::<Vec<_>>() {
            if let Some(worker) = &mut self.machines[node].worker {
                worker.job_done(now, done);
                touched.insert(node);
            }
        }
        while let Some(entry) = self.net.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (from, frame) = entry.remove();
            let to = (0..self.machines.len()).find(|&node| node_id(node) == frame.to).expect("it exists");
            let until = self.machines[to].paused;
            if until > self.now {
                // In the order in which they came, a while after it goes on.
                self.sequence += 1;
                let last = self.last.entry((from, frame.to)).or_default();
                *last = (until + AFTER_PAUSE).max(*last);
                self.net.insert((until + AFTER_PAUSE, self.sequence), (from, frame));
                continue;
            }
            if self.cut.contains(&(from, to)) || self.rng.chance(self.loss) {
                self.torn.insert((from.min(to), from.max(to)));
                continue;
            }
            if let Some(worker) = &mut self.machines[to].worker {
                worker.peer_frame(self.now, node_id(from), &frame.bytes);
                touched.insert(to);
            }
        }
        self.mend_links();
        for node in 0..self.machines.len() {
            if self.is_paused(node) {
                continue;
            }
            let Some(worker) = &mut self.machines[node].worker else { continue };
            if worker.deadline().is_some_and(|deadline| deadline <= self.now) {
                worker.wake(self.now);
                touched.insert(node);
            }
            if touched.contains(&node) || worker.is_ready() {
                self.turn(node);
            }
        }
    }

    /// Whether a process stands still.
    pub fn is_paused(&self, node: usize) -> bool {
        self.machines[node].paused > self.now
    }

    pub fn pass(&mut self, millis: u64) {
        let until = self.now.plus_millis(millis);
        while self.now < until {
            self.step();
        }
    }

    /// Steps until `what` holds.
    pub fn until(&mut self, why: &str, mut what: impl FnMut(&mut World) -> bool) {
        for _ in 0..PATIENCE {
            if what(self) {
                return;
            }
            self.step();
        }
        panic!("it never came to be that {why}");
    }

    /// The node that serves a group, once there is one.
    pub fn leader(&mut self, group: GroupId) -> usize {
        let mut found = None;
        self.until("somebody leads", |world| {
            found = world.serving(group);
            found.is_some()
        });
        found.expect("it was just found")
    }

    /// The node that serves a group and is not cut off.
    pub fn serving(&self, group: GroupId) -> Option<usize> {
        (0..self.machines.len()).find(|&node| {
            let cut = self.cut.iter().any(|&(from, _)| from == node)
                && self.cut.iter().filter(|&&(from, _)| from == node).count() >= self.machines.len();
            !cut && self.leads(node, group)
        })
    }

    /// Whether a node believes that it serves a group.
    pub fn leads(&self, node: usize, group: GroupId) -> bool {
        let worker = self.machines[node].worker.as_ref();
        let place = worker.and_then(|worker| worker.local(group.keyspace(), group.partition()));
        worker.zip(place).is_some_and(|(worker, at)| worker.partitions()[at].leads())
    }

    pub fn client(&mut self, node: usize) -> Client {
        self.ports += 1;
        let (now, peer) = (self.now, SocketAddr::from(([127, 0, 0, 1], self.ports)));
        let conn = self.worker(node).connect(now, peer).expect("there is room");
        Client { node, conn }
    }

    /// Hands in a command and ends the turn.
    pub fn feed(&mut self, client: Client, command: &str) {
        let now = self.now;
        self.worker(client.node).receive(now, client.conn, format!("{command}\r\n").as_bytes());
        self.turn(client.node);
    }

    /// What there is for a client, taken out.
    pub fn read(&mut self, client: Client) -> String {
        let Some(worker) = &mut self.machines[client.node].worker else { return String::new() };
        let Some((out, _)) = worker.output(client.conn) else { return String::new() };
        let text = String::from_utf8_lossy(out).into_owned();
        out.clear();
        if !text.is_empty() {
            worker.drained(client.conn);
            self.turn(client.node);
        }
        text
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self, client: Client, command: &str) -> String {
        self.feed(client, command);
        let mut answer = String::new();
        self.until(command, |world| {
            answer = world.read(client);
            !answer.is_empty()
        });
        answer
    }

    /// What a node's replica of a group has applied, and a digest of it.
    pub fn state(&self, node: usize, group: GroupId) -> Option<(u64, u64)> {
        let worker = self.machines[node].worker.as_ref()?;
        let at = worker.local(group.keyspace(), group.partition())?;
        let store = worker.partitions()[at].store();
        Some((store.applied().0, store.digest().expect("nothing is evicted")))
    }

    /// Waits until all that run have applied the same.
    pub fn level(&mut self, group: GroupId) {
        self.until("all have applied the same", |world| {
            let states: BTreeSet<_> =
                (0..world.machines.len()).filter_map(|node| world.state(node, group)).collect();
            states.len() == 1
        });
    }
}
