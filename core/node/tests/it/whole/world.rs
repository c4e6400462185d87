//! The world of whole nodes: links, disks and checkpoint threads that take their time, in one thread and virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use consensus::group::Refusal;
use consensus::replay::Restored;
use consensus::{Durability, Group, Incarnation, Mark, ReplicaId};
use control::plan::Progress;
use control::{CONTROL, Name, Newcomer, Operation, Standing, State, Welcome};
use gateway::resp::Address;
use kernel::{ClusterId, GroupId, KeyspaceId, Lsn, Micros, NodeId, Rng, Term, TokenId};
use node::cluster::formation::{self, Formation};
use node::cluster::frames::group_of;
use node::cluster::mind::{Admission, Answer, Ask, Begin, Mind, Options, Start as Birth, Ticket};
use node::cluster::transfer::{self, Report, Staged, Task};
use node::cluster::{Done, Job, Outgoing, Start, kind};
use node::{Settings, Worker};
use placement::Partitions;
use storage::apply::NoScripts;

use crate::cluster::disk::{Disk, Held};
use crate::cluster::world::SEED;
use crate::harness::START;

/// Microseconds of one step.
const STEP: u64 = 500;
/// Steps after which a test gives up waiting.
const PATIENCE: u64 = 120_000;
/// How often in a step a process stands still, and for how many milliseconds at most: other programs are busy.
const PAUSES: f64 = 0.001;
const PAUSE_MS: u64 = 400;
/// How often in a step a link breaks, and for how many milliseconds at most: what was on its way is lost.
const BREAKS: f64 = 0.002;
const BREAK_MS: u64 = 30;
/// Partitions of the divided keyspace; besides it there are a few with one.
const PARTITIONS: u16 = 24;
const SINGLE: u16 = 5;

/// A node and its host.
struct Host {
    worker: Worker,
    disk: Disk,
    /// What the log has up to here is synced then.
    syncing: Option<(Micros, usize)>,
    /// What the checkpoint thread does, one after another, and when it is done with the first.
    jobs: VecDeque<Job>,
    busy_until: Option<Micros>,
    links: BTreeSet<NodeId>,
    /// What keyspaces promise by the state that is durable here.
    said: BTreeMap<KeyspaceId, Durability>,
    /// Up to where the log was written while a group promised less than to be on disk.
    weak: BTreeMap<GroupId, usize>,
    /// The process stands still until then; what comes waits for it.
    paused: Micros,
}

pub struct World {
    pub now: Micros,
    pub rng: Rng,
    hosts: Vec<Host>,
    net: BTreeMap<(Micros, u64), (NodeId, Outgoing)>,
    last: BTreeMap<(NodeId, NodeId), Micros>,
    sequence: u64,
    /// A node that hears nothing of the control group: as after links that broke at the wrong moments.
    pub deaf: Option<usize>,
    /// Links that are broken, and until when.
    broken: BTreeMap<(usize, usize), Micros>,
    /// The longest that a sync, a job and a frame take, in microseconds.
    takes: [u64; 3],
}

fn said(state: &State) -> BTreeMap<KeyspaceId, Durability> {
    state.keyspaces().iter().map(|(&db, keyspace)| (db, keyspace.settings.durability)).collect()
}

impl Host {
    /// A restart believes the durable state: whose keyspace promises to be on disk must do so, and all that it wrote before is.
    fn judge_promises(&mut self) {
        for partition in self.worker.partitions() {
            let (group, Some(replica)) = (partition.group_id(), partition.replica()) else { continue };
            let durable = self.said.get(&group.keyspace()) != Some(&Durability::EverySec);
            if replica.durability() == Durability::EverySec {
                assert!(!durable, "{group} promises less than the state on disk says");
                self.weak.insert(group, self.disk.log.len());
            } else if durable {
                let weak = self.weak.get(&group).copied().unwrap_or_default();
                assert!(weak <= self.disk.synced, "{group} promises more on disk than was kept");
            }
        }
    }
}

fn id(node: usize) -> NodeId {
    NodeId([node as u8 + 1; 32])
}

fn is_of_control(frame: &[u8]) -> bool {
    frame
        .split_first()
        .is_some_and(|(first, rest)| *first == kind::CONSENSUS && group_of(rest) == Some(CONTROL))
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a sound name")
}

fn about(node: usize) -> Newcomer {
    let address = format!("127.0.0.1:{}", 7401 + node).parse().expect("an address");
    Newcomer { zone: name("z"), addresses: vec![address] }
}

impl World {
    /// A cluster of one.
    pub fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let takes = [1_000 + rng.below(20_000), 1_000 + rng.below(30_000), 500 + rng.below(20_000)];
        let mut world = World {
            now: START,
            rng,
            hosts: Vec::new(),
            net: BTreeMap::new(),
            last: BTreeMap::new(),
            sequence: 0,
            deaf: None,
            broken: BTreeMap::new(),
            takes,
        };
        let keyspaces = (0..SINGLE).map(KeyspaceId).map(|db| (db, formation::database(db)));
        let mut keyspaces: BTreeMap<_, _> = keyspaces.collect();
        let partitions = Partitions::new(PARTITIONS).expect("some");
        keyspaces.get_mut(&KeyspaceId(1)).expect("it is there").partitions = partitions;
        let Newcomer { zone, addresses } = about(0);
        let cluster = ClusterId([7; 16]);
        let (node, at) = (id(0), START.millis());
        let version = kernel::Version::NEWEST;
        let formation = Formation { cluster, node, zone, addresses, keyspaces, at, seed, version };
        let (mark, state): (Mark, State) = formation.found().expect("it is sound");
        let restored = Box::new(Restored::first(mark));
        world.start(Begin::Resume { restored, state: Box::new(state) });
        world.until("it leads itself", |world| {
            world.hosts[0].worker.mind().is_some_and(|mind| mind.leader().is_some())
        });
        world
    }

    fn start(&mut self, begin: Begin) {
        let node = self.hosts.len();
        let chance = self.rng.next_u64();
        let start =
            Start { node: id(node), incarnation: Incarnation(1), seed: SEED, chance, kept: BTreeMap::new() };
        let birth =
            Birth { node: id(node), incarnation: 1, seed: chance, options: Options::default(), begin };
        let mind = Mind::new(self.now, birth).expect("a member");
        let said = said(mind.state());
        let settings = Settings { started: self.now, ..Settings::default() };
        let worker = Worker::new(settings, Vec::new(), Box::new(NoScripts), 7)
            .with_cluster(start)
            .with_transfers(transfer::Options::default())
            .with_mind(mind)
            .reached_at(Address { host: "127.0.0.1".into(), port: 6380 + node as u16 }, 7401 + node as u16);
        self.hosts.push(Host {
            worker,
            disk: Disk::default(),
            syncing: None,
            jobs: VecDeque::new(),
            busy_until: None,
            links: BTreeSet::new(),
            said,
            weak: BTreeMap::new(),
            paused: Micros(0),
        });
        self.turn(node);
    }

    /// Another node joins through the first, and has begun when this returns.
    pub fn join(&mut self, newcomer: usize) {
        let (hash, token, ticket) =
            ([newcomer as u8; 32], TokenId([newcomer as u8; 8]), Ticket(newcomer as u64));
        let expires = self.now.plus_millis(60_000).millis();
        self.ask(ticket, Operation::IssueToken { token, hash, expires });
        let admission = Admission { token, hash, node: id(newcomer), newcomer: about(newcomer) };
        let now = self.now;
        self.hosts[0].worker.admit_newcomer(now, ticket, admission);
        let Answer::Welcome(bytes) = self.answer(ticket) else { panic!("it is let in") };
        let welcome = Welcome::decode(&bytes).expect("a welcome");
        self.start(Begin::Join { welcome, hard: (Term(0), None) });
    }

    fn ask(&mut self, ticket: Ticket, operation: Operation) {
        self.hosts[0].worker.ask_cluster(Ask { ticket, id: None, by: name("test"), operation });
        assert!(matches!(self.answer(ticket), Answer::Done(_)));
    }

    /// The owner of a keyspace with one partition wants another durability; clients write while that comes to be.
    pub fn promise(&mut self, db: KeyspaceId, durability: Durability) {
        let settings = &self.state(0).keyspaces()[&db].settings;
        let settings = control::Settings { durability, ..settings.clone() };
        let ticket = Ticket(self.now.0);
        self.ask(ticket, Operation::AlterKeyspace { keyspace: db, settings });
        let address = ([127, 0, 0, 1], 1).into();
        let client = self.hosts[0].worker.connect(self.now, address).expect("there is room");
        self.until("all promise that", |world| {
            let now = world.now;
            world.hosts[0].worker.receive(now, client, format!("SELECT {db}\r\nSET k v\r\n").as_bytes());
            world.turn(0);
            if let Some((output, _)) = world.hosts[0].worker.output(client) {
                output.clear();
                world.hosts[0].worker.drained(client);
            }
            let promises = |host: &Host| {
                let at = host.worker.local(db, 0).expect("everybody has a copy");
                let replica = host.worker.partitions()[at].replica();
                replica.is_some_and(|replica| replica.durability() == durability)
            };
            world.hosts.iter().all(promises)
        });
        self.hosts[0].worker.disconnect(client);
    }

    fn answer(&mut self, ticket: Ticket) -> Answer {
        self.turn(0);
        let mut found = None;
        self.until("it is answered", |world| {
            let mut answers = Vec::new();
            world.hosts[0].worker.take_answers(&mut answers);
            found = answers.into_iter().find(|(own, _)| *own == ticket).map(|(_, answer)| answer);
            found.is_some()
        });
        found.expect("it was just found")
    }

    /// A node hands over what it leads, as before it stops.
    pub fn resign(&mut self, node: usize) {
        let now = self.now;
        self.hosts[node].worker.resign(now);
        self.turn(node);
    }

    /// The first node hands over all that it leads while a client of its writes to all partitions of a keyspace. Who was told to
    /// lead, of each group that it led.
    pub fn resign_under_writes(&mut self, db: KeyspaceId) -> BTreeMap<GroupId, BTreeSet<ReplicaId>> {
        let client =
            self.hosts[0].worker.connect(self.now, ([127, 0, 0, 1], 1).into()).expect("there is room");
        let mut told: BTreeMap<GroupId, BTreeSet<ReplicaId>> = BTreeMap::new();
        let mut number = 0;
        for resigning in core::iter::repeat_n(false, 40).chain(core::iter::repeat_n(true, 400)) {
            let mut text = format!("SELECT {db}\r\n");
            for _ in 0..PARTITIONS {
                number += 1;
                text += &format!("SET k{number} v\r\n");
            }
            self.hosts[0].worker.receive(self.now, client, text.as_bytes());
            self.turn(0);
            if let Some((output, _)) = self.hosts[0].worker.output(client) {
                output.clear();
                self.hosts[0].worker.drained(client);
            }
            if resigning {
                self.resign(0);
                for partition in self.hosts[0].worker.partitions() {
                    if let Some(replica) = partition.replica() {
                        told.entry(partition.group_id()).or_default().extend(replica.handing_to());
                    }
                }
                if !self.hosts[0].worker.leads_any() {
                    break;
                }
            }
            self.pass(5);
        }
        self.hosts[0].worker.disconnect(client);
        told
    }

    /// The desired state, as a node has it.
    pub fn state(&self, node: usize) -> &State {
        self.hosts[node].worker.mind().expect("it is a member").state()
    }

    pub fn number(&self, node: NodeId) -> usize {
        (0..self.hosts.len()).find(|&at| id(at) == node).expect("it exists")
    }

    /// Who serves each partition.
    pub fn leaders(&self) -> Vec<(GroupId, Option<NodeId>)> {
        let leads = |host: &Host, group: GroupId| {
            let at = host.worker.local(group.keyspace(), group.partition());
            at.is_some_and(|at| host.worker.partitions()[at].leads())
        };
        let groups = self.state(0).partitions().map(|(group, _)| group);
        let leader = |group| (0..self.hosts.len()).find(|&at| leads(&self.hosts[at], group)).map(id);
        groups.map(|group| (group, leader(group))).collect()
    }

    /// All know that all are active, every partition has its copies, its group has them too, and nothing moves.
    pub fn is_whole(&mut self) -> bool {
        let nodes = self.hosts.len();
        let settled = |node: usize| {
            let state = self.state(node);
            let active = state.members().values().all(|member| member.standing == Standing::Active);
            let copies = state.partitions().all(|(_, it)| it.replicas.len() == nodes.min(3));
            state.members().len() == nodes && active && copies && Progress::total(state).is_done()
        };
        let in_effect = |(group, leader): &(GroupId, Option<NodeId>)| {
            let Some(host) = leader.map(|leader| &self.hosts[self.number(leader)]) else { return false };
            let at = host.worker.local(group.keyspace(), group.partition()).expect("it leads it");
            let replica = host.worker.partitions()[at].replica().expect("it leads it");
            replica.members().voters().len() == nodes.min(3) && !replica.members().is_joint()
        };
        (0..nodes).all(settled) && self.leaders().iter().all(in_effect)
    }

    /// Frames of members that could not be read.
    pub fn malformed(&self) -> u64 {
        let of = |host: &Host| {
            let mind = host.worker.mind().expect("it is a member");
            let messages = mind.replica().refusals().count(Refusal::Malformed);
            messages + mind.dropped().malformed + host.worker.dropped().malformed
        };
        self.hosts.iter().map(of).sum()
    }

    /// What is not as it should be.
    pub fn trouble(&self) -> String {
        let state = self.state(0);
        let moving = state.partitions().filter(|(_, it)| !Progress::of(it).is_done());
        let moving: Vec<String> = moving.map(|(group, it)| format!("{group}: {:?}", it.moving)).collect();
        format!("not whole: {}", moving.join("; "))
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
        panic!("it never came to be that {why}: {}", self.trouble());
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        self.break_links();
        if self.rng.chance(PAUSES) {
            let (node, millis) = (self.rng.below(self.hosts.len() as u64), self.rng.below(PAUSE_MS));
            self.hosts[node as usize].paused = self.now.plus_millis(millis);
        }
        let mut touched = BTreeSet::new();
        while let Some(entry) = self.net.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (from, frame) = entry.remove();
            let to = self.number(frame.to);
            let until = self.hosts[to].paused;
            if until > self.now {
                self.sequence += 1;
                let last = self.last.entry((from, frame.to)).or_default();
                *last = until.max(*last);
                self.net.insert((*last, self.sequence), (from, frame));
                continue;
            }
            if self.deaf == Some(to) && is_of_control(&frame.bytes) {
                continue;
            }
            self.hosts[to].worker.peer_frame(self.now, from, &frame.bytes);
            touched.insert(to);
        }
        for node in 0..self.hosts.len() {
            let host = &mut self.hosts[node];
            if host.paused > self.now {
                continue;
            }
            if let Some((_, upto)) = host.syncing.take_if(|(due, _)| *due <= self.now) {
                host.disk.synced = upto;
                host.worker.synced(Lsn(upto as u64));
                touched.insert(node);
            }
            if host.busy_until.take_if(|due| *due <= self.now).is_some() {
                let job = host.jobs.pop_front().expect("it was begun");
                self.work(node, job);
                touched.insert(node);
            }
            let host = &mut self.hosts[node];
            if host.worker.deadline().is_some_and(|due| due <= self.now) {
                host.worker.wake(self.now);
                touched.insert(node);
            }
            if touched.contains(&node) || host.worker.is_ready() {
                self.turn(node);
            }
        }
    }

    /// Ends a node's turns until it has nothing to do at once.
    fn turn(&mut self, node: usize) {
        if self.hosts[node].paused > self.now {
            return;
        }
        for _ in 0..64 {
            let [sync, ..] = self.takes;
            let host = &mut self.hosts[node];
            let more = host.worker.end_turn(self.now, &mut host.disk);
            if host.syncing.is_none() && host.disk.synced < host.disk.log.len() {
                host.syncing = Some((self.now + 1 + self.rng.below(sync), host.disk.log.len()));
            }
            host.judge_promises();
            let (mut frames, mut jobs) = (Vec::new(), Vec::new());
            host.worker.take_frames(&mut frames);
            host.worker.take_jobs(&mut jobs);
            frames.into_iter().for_each(|frame| self.send(node, frame));
            for job in jobs {
                match job {
                    Job::Link { node: peer, .. } => self.link(node, peer),
                    job => self.hosts[node].jobs.push_back(job),
                }
            }
            self.begin_job(node);
            if !more {
                return;
            }
        }
        panic!("node {node} does not come to rest");
    }

    fn begin_job(&mut self, node: usize) {
        let [_, takes, _] = self.takes;
        let host = &mut self.hosts[node];
        if host.busy_until.is_none() && !host.jobs.is_empty() {
            host.busy_until = Some(self.now + 1 + self.rng.below(takes));
        }
    }

    /// A link is up when both ends want it.
    fn link(&mut self, node: usize, peer: NodeId) {
        self.hosts[node].links.insert(peer);
        let Some(other) = (0..self.hosts.len()).find(|&at| id(at) == peer) else { return };
        if self.are_linked(node, other) {
            self.tell_link(node, other, true);
        }
    }

    fn are_linked(&self, one: usize, two: usize) -> bool {
        let wants = |from: usize, to: usize| self.hosts[from].links.contains(&id(to));
        wants(one, two) && wants(two, one) && !self.broken.contains_key(&(one.min(two), one.max(two)))
    }

    fn tell_link(&mut self, one: usize, two: usize, up: bool) {
        let now = self.now;
        for (node, peer) in [(one, id(two)), (two, id(one))] {
            let worker = &mut self.hosts[node].worker;
            if up { worker.peer_up(now, peer) } else { worker.peer_down(now, peer) }
        }
    }

    fn break_links(&mut self) {
        let now = self.now;
        for (pair, _) in self.broken.extract_if(.., |_, until| *until <= now).collect::<Vec<_>>() {
            self.tell_link(pair.0, pair.1, true);
        }
        let (one, two) = (self.rng.below(3) as usize, self.rng.below(3) as usize);
        let pair = (one.min(two), one.max(two));
        if one == two || pair.1 >= self.hosts.len() || !self.rng.chance(BREAKS) || !self.are_linked(one, two)
        {
            return;
        }
        let ends = [(id(one), id(two)), (id(two), id(one))];
        self.net.retain(|_, (from, frame)| !ends.contains(&(*from, frame.to)));
        self.tell_link(one, two, false);
        let millis = 1 + self.rng.below(BREAK_MS);
        self.broken.insert(pair, now.plus_millis(millis));
    }

    fn send(&mut self, from: usize, frame: Outgoing) {
        let [.., takes] = self.takes;
        let other = (0..self.hosts.len()).find(|&at| id(at) == frame.to);
        if !other.is_some_and(|other| self.are_linked(from, other)) {
            return;
        }
        self.sequence += 1;
        let last = self.last.entry((id(from), frame.to)).or_default();
        *last = (self.now + 1 + self.rng.below(takes)).max(*last);
        self.net.insert((*last, self.sequence), (id(from), frame));
    }

    fn work(&mut self, node: usize, job: Job) {
        let now = self.now;
        let done = match job {
            Job::Added { at, group, holding, fresh } => {
                let held = Held { holding, frame: None, objects: BTreeMap::new() };
                if fresh {
                    self.hosts[node].disk.engine.insert(group, held);
                }
                fresh.then_some(Done::Added { at })
            }
            Job::Removed { at, group } => {
                self.hosts[node].disk.engine.remove(&group);
                Some(Done::Removed { at })
            }
            Job::MakeSnapshot { at } => Some(self.make_snapshot(node, at)),
            Job::Transfer(task) => self.transfer(node, task).map(Done::Transferred),
            Job::FetchSnapshot { .. } => panic!("the worker moves snapshots itself"),
            Job::Install { at, group, descriptor, holding } => {
                let disk = &mut self.hosts[node].disk;
                let held = disk.snapshots[&(group, descriptor.generation)].clone();
                disk.engine.insert(group, Held { holding, ..held });
                Some(Done::Installed { at, store: Box::new(disk.engine[&group].store(group)) })
            }
            // As the real host: what is not in memory is given away.
            Job::ReadEntries { at, last, .. } => Some(Done::Entries { at, last, entries: Vec::new() }),
            Job::PersistControl { holding, state } => {
                let index = holding.mark.expect("a checkpoint has a mark").index;
                self.hosts[node].said = said(&State::decode(&state).expect("a state"));
                self.hosts[node].judge_promises();
                Some(Done::ControlPersisted { index })
            }
            Job::Link { .. } | Job::Unlink { .. } | Job::Incarnation(_) => None,
        };
        if let Some(done) = done {
            self.hosts[node].worker.job_done(now, done);
        }
        self.begin_job(node);
    }

    fn make_snapshot(&mut self, node: usize, at: usize) -> Done {
        let Host { worker, disk, .. } = &mut self.hosts[node];
        let partition = &mut worker.partitions_mut()[at];
        let (group, Some(holding)) = (partition.group_id(), partition.cut()) else {
            return Done::Made { at, descriptor: None };
        };
        let store = partition.store_mut();
        store.begin_cut();
        let (frame, images) = store.write_cut(usize::MAX / 2).expect("it is whole");
        store.cut_is_durable();
        let index = frame.index;
        disk.commit(group, holding, frame, &images);
        worker.checkpointed(at, index);
        Done::Made { at, descriptor: Some(disk.keep(group)) }
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
                let held = self.hosts[number(from) as usize].disk.snapshots.get(&key).cloned();
                self.hosts[node].disk.snapshots.extend(held.map(|held| (key, held)));
                Some(Report::Staged { ticket, staged: Some(Staged { cursor: None, bytes: 16 }) })
            }
            Task::Check { ticket, .. } => Some(Report::Checked { ticket, sound: true }),
            Task::Read { group, generation, ticket, .. } => {
                let held = self.hosts[node].disk.snapshots.contains_key(&(group, generation));
                let content = [(node as u64).to_le_bytes(), generation.to_le_bytes()].concat();
                Some(Report::Read { ticket, lot: held.then_some((content, None)) })
            }
            Task::Drop { .. } | Task::Release { .. } => None,
        }
    }
}
