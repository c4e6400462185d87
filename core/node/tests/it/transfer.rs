//! Transfers of snapshots over a net that loses, repeats and breaks, between nodes that restart.

use std::collections::{BTreeMap, VecDeque};

use consensus::codec::Descriptor;
use consensus::{Mark, Members, ReplicaId};
use kernel::{GroupId, Index, Micros, NodeId, Rng, Term};
use node::cluster::transfer::*;

const NODES: usize = 3;
const GROUPS: u32 = 4;
const RATE: u64 = 4 << 20;
/// Faults end here, and everything must have arrived by [`END`].
const CALM: Micros = Micros(20_000_000);
const END: Micros = Micros(400_000_000);

fn id(node: usize) -> NodeId {
    NodeId([node as u8 + 1; 32])
}

/// A node: what a restart leaves of it, and the machine, which it does not.
struct Node {
    machine: Transfers,
    cuts: BTreeMap<GroupId, Vec<u8>>,
    staged: BTreeMap<GroupId, (Vec<u8>, Vec<u8>)>,
    /// What was fetched and checked.
    here: BTreeMap<GroupId, Vec<u8>>,
    tasks: VecDeque<(Micros, Task)>,
    read: u64,
    up_since: Micros,
    lives: u64,
}

struct World {
    seed: u64,
    rng: Rng,
    now: Micros,
    nodes: Vec<Node>,
    /// Frames on their way, in order for each pair.
    net: BTreeMap<(usize, usize), VecDeque<(Micros, Vec<u8>)>>,
    /// Broken links, until when.
    cut: BTreeMap<(usize, usize), Micros>,
    /// Fetches that a group's replica asks for again, by receiver and group.
    asks: BTreeMap<(usize, GroupId), Micros>,
    loss: f64,
    restaged: u64,
    failed: u64,
    restarts: u64,
    retracted: u64,
}

fn machine(seed: u64, life: u64) -> Transfers {
    Transfers::new(Options { bytes_per_second: RATE }, Rng::new(seed).fork(life).next_u64())
}

/// Node 0 has a snapshot of each group, which both others want.
fn world(seed: u64) -> World {
    let mut rng = Rng::new(seed);
    let node = |at: usize| Node {
        machine: machine(seed, at as u64),
        cuts: BTreeMap::new(),
        staged: BTreeMap::new(),
        here: BTreeMap::new(),
        tasks: VecDeque::new(),
        read: 0,
        up_since: Micros(0),
        lives: 0,
    };
    let mut nodes: Vec<Node> = (0..NODES).map(node).collect();
    let mut asks = BTreeMap::new();
    for group in (1..=GROUPS).map(GroupId) {
        let size = rng.below(3) * 700_000 + rng.below(50_000);
        let cut = (0..size).map(|at| (at % 251) as u8 ^ group.0 as u8).collect();
        nodes[0].cuts.insert(group, cut);
        for node in 1..NODES {
            asks.insert((node, group), Micros(rng.below(1_000_000)));
        }
    }
    let (net, cut) = (BTreeMap::new(), BTreeMap::new());
    let loss = rng.below(4) as f64 * 0.03;
    World {
        seed,
        rng,
        now: Micros(0),
        nodes,
        net,
        cut,
        asks,
        loss,
        restaged: 0,
        failed: 0,
        restarts: 0,
        retracted: 0,
    }
}

impl World {
    fn descriptor(&self, group: GroupId) -> Descriptor {
        let content = &self.nodes[0].cuts[&group];
        let members = Members::new(ReplicaId::new(1), []).expect("a group has a voter");
        let mark = Mark { index: Index(9), term: Term(2), members };
        let checksum = content.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
        Descriptor { generation: 9, size: content.len() as u64, checksum, mark }
    }

    fn is_calm(&self) -> bool {
        self.now >= CALM
    }

    fn is_done(&self) -> bool {
        (1..NODES).all(|node| self.nodes[node].here.len() == GROUPS as usize)
    }

    fn step(&mut self) {
        self.now = self.now + 1_000 + self.rng.below(4_000);
        if !self.is_calm() {
            self.harm();
        }
        let mended: Vec<_> =
            self.cut.iter().filter(|(_, until)| **until <= self.now).map(|(at, _)| *at).collect();
        for (a, b) in mended {
            self.cut.remove(&(a, b));
            self.nodes[a].machine.peer_up(self.now, id(b));
            self.nodes[b].machine.peer_up(self.now, id(a));
        }
        let asked: Vec<_> =
            self.asks.iter().filter(|(_, at)| **at <= self.now).map(|(ask, _)| *ask).collect();
        for (node, group) in asked {
            self.asks.remove(&(node, group));
            // As a leader does that is asked for a snapshot.
            self.nodes[0].machine.offer(self.now, group, 9);
            let descriptor = self.descriptor(group);
            self.nodes[node].machine.fetch(self.now, group.0 as usize, group, id(0), &descriptor);
        }
        for at in 0..NODES {
            self.arrive(at);
            self.work(at);
            if self.nodes[at].machine.deadline().is_some_and(|deadline| deadline <= self.now) {
                self.nodes[at].machine.wake(self.now);
            }
            self.act(at);
        }
    }

    fn harm(&mut self) {
        let (a, b) = (0, 1 + self.rng.below(NODES as u64 - 1) as usize);
        if self.rng.chance(0.001) {
            self.break_link(a, b);
        }
        if self.rng.chance(0.001) {
            let at = self.rng.below(NODES as u64) as usize;
            self.restart(at);
        }
    }

    fn break_link(&mut self, a: usize, b: usize) {
        let until = self.now + self.rng.below(6_000_000);
        self.cut.insert((a, b), until);
        self.net.remove(&(a, b));
        self.net.remove(&(b, a));
        self.nodes[a].machine.peer_down(id(b));
        self.nodes[b].machine.peer_down(id(a));
    }

    fn restart(&mut self, at: usize) {
        self.restarts += 1;
        for other in (0..NODES).filter(|other| *other != at) {
            self.break_link(at.min(other), at.max(other));
        }
        let node = &mut self.nodes[at];
        node.lives += 1;
        node.machine = machine(self.seed, 1000 * node.lives + at as u64);
        node.tasks.clear();
        (node.read, node.up_since) = (0, self.now);
        if at > 0 {
            let missing = (1..=GROUPS).map(GroupId).filter(|group| !self.nodes[at].here.contains_key(group));
            let missing: Vec<GroupId> = missing.collect();
            for group in missing {
                let when = self.now + self.rng.below(1_000_000);
                self.asks.insert((at, group), when);
            }
        }
    }

    fn arrive(&mut self, to: usize) {
        for from in (0..NODES).filter(|from| *from != to) {
            let due = |queue: &VecDeque<(Micros, Vec<u8>)>, now| queue.front().is_some_and(|it| it.0 <= now);
            while self.net.get(&(from, to)).is_some_and(|queue| due(queue, self.now)) {
                let frame = self.net.get_mut(&(from, to)).and_then(VecDeque::pop_front);
                let (_, bytes) = frame.expect("it is due");
                if self.rng.chance(if self.is_calm() { 0.0 } else { self.loss }) {
                    continue;
                }
                for _ in 0..1 + u32::from(self.rng.chance(self.loss)) {
                    self.nodes[to].machine.take_frame(self.now, id(from), &bytes).expect("a peer's frame");
                }
            }
        }
    }

    fn act(&mut self, at: usize) {
        let mut effects = Vec::new();
        self.nodes[at].machine.take_effects(&mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, bytes } => {
                    let to = (0..NODES).find(|node| id(*node) == to).expect("a node");
                    if !self.cut.contains_key(&(at.min(to), at.max(to))) {
                        let when = self.now + self.rng.below(20_000);
                        let queue = self.net.entry((at, to)).or_default();
                        let when = queue.back().map_or(when, |last| last.0.max(when));
                        queue.push_back((when, bytes));
                    }
                }
                Effect::Do(task) => {
                    let last = self.nodes[at].tasks.back().map_or(self.now, |last| last.0);
                    let when = last.max(self.now) + self.rng.below(30_000);
                    self.nodes[at].tasks.push_back((when, task));
                }
                Effect::Retract { group, generation } => {
                    assert_eq!((at, generation), (0, 9), "group {group}");
                    self.retracted += 1;
                }
                Effect::Progressed { to, .. } => assert!(at == 0 && to != id(0)),
                Effect::Fetched { at: place, group, generation, here } => {
                    assert_eq!((place, generation), (group.0 as usize, 9));
                    let staged = self.nodes[at].staged.get(&group).map(|(_, bytes)| bytes.clone());
                    if here {
                        let staged = staged.expect("what is here was staged");
                        assert!(staged == self.nodes[0].cuts[&group], "seed {}: other bytes", self.seed);
                        let again = self.nodes[at].here.insert(group, staged);
                        assert!(again.is_none(), "seed {}: it ended twice", self.seed);
                    } else {
                        self.failed += 1;
                        let when = self.now + 500_000;
                        self.asks.insert((at, group), when);
                    }
                }
            }
        }
    }

    /// The host's engine, in order.
    fn work(&mut self, at: usize) {
        let cursor = |at: usize| (at as u64).to_le_bytes().to_vec();
        while self.nodes[at].tasks.front().is_some_and(|(when, _)| *when <= self.now) {
            let now = self.now;
            let node = &mut self.nodes[at];
            let (_, task) = node.tasks.pop_front().expect("it is due");
            let report = match task {
                Task::Begin { group, name, ticket } => {
                    let staged = node.staged.entry(group).or_insert_with(|| (name.clone(), Vec::new()));
                    if staged.0 != name {
                        *staged = (name, Vec::new());
                    }
                    let bytes = staged.1.len();
                    let whole = self.nodes[0].cuts[&group].len();
                    let next = (bytes == 0 || bytes < whole)
                        .then(|| if bytes == 0 { vec![] } else { cursor(bytes) });
                    Report::Staged { ticket, staged: Some(Staged { cursor: next, bytes: bytes as u64 }) }
                }
                Task::Stage { group, content, next, ticket } => {
                    assert!(!node.here.contains_key(&group), "it is staged although it is here");
                    let staged = &mut node.staged.get_mut(&group).expect("it was begun").1;
                    staged.extend(content);
                    Report::Staged {
                        ticket,
                        staged: Some(Staged { cursor: next, bytes: staged.len() as u64 }),
                    }
                }
                Task::Check { group, bytes, ticket, .. } => {
                    let sound = node.staged[&group].1.len() as u64 == bytes;
                    assert!(sound, "seed {}: lots were staged twice or left out", self.seed);
                    Report::Checked { ticket, sound }
                }
                Task::Drop { group } => {
                    self.restaged += 1;
                    node.staged.remove(&group);
                    continue;
                }
                Task::Read { group, generation, cursor: from, ticket } => {
                    assert_eq!(generation, 9);
                    let from = from.try_into().map_or(0, u64::from_le_bytes) as usize;
                    let rest = &node.cuts[&group][from..];
                    let lot = &rest[..rest.len().min(LOT_BYTES)];
                    node.read += lot.len() as u64;
                    let elapsed = now.since(node.up_since);
                    let allowed = RATE * elapsed / 1_000_000 + LOT_BYTES as u64;
                    assert!(node.read <= allowed, "seed {}: {} bytes in {elapsed} µs", self.seed, node.read);
                    let next = (lot.len() < rest.len()).then(|| cursor(from + lot.len()));
                    Report::Read { ticket, lot: Some((lot.to_vec(), next)) }
                }
                Task::Release { .. } => continue,
            };
            self.nodes[at].machine.report(now, report);
        }
    }

    /// What is on the way to each receiver stays within the window.
    fn check_window(&self) {
        for ((from, to), queue) in &self.net {
            let bytes: usize = queue.iter().map(|(_, bytes)| bytes.len()).sum();
            let most = 2 * RECEIVE_MAX * (WINDOW_BYTES + LOT_BYTES);
            assert!(bytes <= most, "seed {}: {bytes} bytes from {from} to {to}", self.seed);
        }
    }
}

fn run(seed: u64) -> World {
    let mut world = world(seed);
    while !world.is_done() && world.now < END {
        world.step();
        world.check_window();
    }
    let missing = (1..NODES).map(|node| GROUPS as usize - world.nodes[node].here.len()).sum::<usize>();
    assert_eq!(missing, 0, "seed {seed}: {missing} did not arrive");
    world
}

#[test]
fn every_snapshot_arrives_whole_and_once_whatever_the_net_and_the_nodes_do() {
    let (mut restarts, mut failed, mut retracted) = (0, 0, 0);
    for seed in 0..60 {
        let world = run(seed);
        assert_eq!(world.restaged, 0, "seed {seed}: something was given up although nothing was damaged");
        restarts += world.restarts;
        failed += world.failed;
        retracted += world.retracted;
    }
    assert!(restarts > 60, "only {restarts} restarts: too quiet to say anything");
    assert!(failed > 10 && retracted > 10, "{failed} transfers failed and {retracted} were refused: too few");
}

/// Two machines and no net: what is asked of the host, frame by frame.
struct Pair {
    sender: Transfers,
    receiver: Transfers,
}

const GROUP: GroupId = GroupId(7);

fn descriptor() -> Descriptor {
    let members = Members::new(ReplicaId::new(1), []).expect("a group has a voter");
    let mark = Mark { index: Index(9), term: Term(2), members };
    Descriptor { generation: 9, size: 4, checksum: 1, mark }
}

impl Pair {
    /// The receiver has begun to pull; returns that frame.
    fn pulling() -> (Pair, Vec<u8>) {
        let mut pair = Pair { sender: machine(1, 1), receiver: machine(1, 2) };
        pair.receiver.fetch(Micros(0), 3, GROUP, id(0), &descriptor());
        let [Effect::Do(Task::Begin { ticket, .. })] = &pair.effects(false)[..] else { panic!("it begins") };
        let staged = Some(Staged { cursor: Some(vec![]), bytes: 0 });
        pair.receiver.report(Micros(0), Report::Staged { ticket: *ticket, staged });
        let [Effect::Send { bytes, .. }] = &pair.effects(false)[..] else { panic!("it pulls") };
        let bytes = bytes.clone();
        (pair, bytes)
    }

    fn effects(&mut self, sender: bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        if sender { &mut self.sender } else { &mut self.receiver }.take_effects(&mut effects);
        effects
    }

    fn lot(&mut self, pull: &[u8], content: &[u8]) -> Vec<u8> {
        self.sender.offer(Micros(0), GROUP, 9);
        self.sender.take_frame(Micros(0), id(1), pull).expect("a pull is read");
        let [Effect::Do(Task::Read { ticket, .. })] = &self.effects(true)[..] else { panic!("it reads") };
        let lot = Some((content.to_vec(), None));
        self.sender.report(Micros(0), Report::Read { ticket: *ticket, lot });
        let [Effect::Send { bytes, .. }] = &self.effects(true)[..] else { panic!("it sends") };
        bytes.clone()
    }
}

#[test]
fn nobody_but_the_named_sender_is_listened_to_and_nothing_counts_twice() {
    let (mut pair, pull) = Pair::pulling();
    let lot = pair.lot(&pull, b"1234");
    pair.receiver.take_frame(Micros(1), id(2), &lot).unwrap();
    assert_eq!(pair.effects(false), [], "another node sent it");
    pair.receiver.take_frame(Micros(1), id(0), &lot).unwrap();
    pair.receiver.take_frame(Micros(1), id(0), &lot).unwrap();
    let effects = pair.effects(false);
    let [Effect::Do(Task::Stage { content, next: None, ticket, .. })] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(content, b"1234");
    let staged = Some(Staged { cursor: None, bytes: 4 });
    pair.receiver.report(Micros(1), Report::Staged { ticket: ticket + 1, staged: staged.clone() });
    assert_eq!(pair.effects(false), [], "nobody asked for that");
    pair.receiver.report(Micros(1), Report::Staged { ticket: *ticket, staged });
    let effects = pair.effects(false);
    let [Effect::Send { .. }, Effect::Do(Task::Check { bytes: 4, checksum: 1, ticket, .. })] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    pair.receiver.report(Micros(1), Report::Checked { ticket: *ticket, sound: true });
    assert_eq!(pair.effects(false), [Effect::Fetched { at: 3, group: GROUP, generation: 9, here: true }]);
    assert_eq!((pair.receiver.deadline(), pair.receiver.progress().count()), (None, 0));
}

#[test]
fn who_has_no_such_snapshot_says_so_and_the_receiver_gives_up() {
    let (mut pair, pull) = Pair::pulling();
    pair.sender.take_frame(Micros(0), id(1), &pull).unwrap();
    let [Effect::Retract { group: GROUP, generation: 9 }, Effect::Send { to, bytes }] =
        &pair.effects(true)[..]
    else {
        panic!("it answers")
    };
    assert_eq!(*to, id(1));
    pair.receiver.take_frame(Micros(1), id(0), bytes).unwrap();
    let effects = pair.effects(false);
    assert!(matches!(effects[..], [Effect::Send { .. }, Effect::Fetched { here: false, .. }]), "{effects:?}");
}

#[test]
fn a_snapshot_that_is_not_what_was_announced_is_dropped() {
    let (mut pair, pull) = Pair::pulling();
    let lot = pair.lot(&pull, b"1234");
    pair.receiver.take_frame(Micros(1), id(0), &lot).unwrap();
    let [Effect::Do(Task::Stage { ticket, .. })] = &pair.effects(false)[..] else { panic!("it is staged") };
    pair.receiver.report(
        Micros(1),
        Report::Staged { ticket: *ticket, staged: Some(Staged { cursor: None, bytes: 4 }) },
    );
    let effects = pair.effects(false);
    let [_, Effect::Do(Task::Check { ticket, .. })] = &effects[..] else { panic!("{effects:?}") };
    pair.receiver.report(Micros(1), Report::Checked { ticket: *ticket, sound: false });
    let gone = Effect::Fetched { at: 3, group: GROUP, generation: 9, here: false };
    assert_eq!(pair.effects(false), [Effect::Do(Task::Drop { group: GROUP }), gone]);
}

#[test]
fn lots_that_the_host_refuses_are_pulled_again_a_few_times() {
    let (mut pair, mut pull) = Pair::pulling();
    for refusal in 1..=REFUSALS_MAX {
        let lot = pair.lot(&pull, b"1234");
        pair.receiver.take_frame(Micros(1), id(0), &lot).unwrap();
        let [Effect::Do(Task::Stage { ticket, .. })] = &pair.effects(false)[..] else {
            panic!("it is staged")
        };
        pair.receiver.report(Micros(1), Report::Staged { ticket: *ticket, staged: None });
        let effects = pair.effects(false);
        match &effects[..] {
            [Effect::Send { bytes, .. }] if refusal < REFUSALS_MAX => pull = bytes.clone(),
            [Effect::Do(Task::Drop { .. }), Effect::Send { .. }, Effect::Fetched { here: false, .. }] => {
                assert_eq!(refusal, REFUSALS_MAX);
            }
            _ => panic!("{effects:?}"),
        }
    }
}

#[test]
fn silence_is_pulled_through_and_then_given_up() {
    let (mut pair, _) = Pair::pulling();
    let (mut pulls, mut now) = (0, Micros(0));
    loop {
        now = pair.receiver.deadline().expect("it waits for something").max(now);
        pair.receiver.wake(now);
        let effects = pair.effects(false);
        if effects.iter().any(|effect| matches!(effect, Effect::Fetched { here: false, .. })) {
            break;
        }
        pulls += effects.len();
    }
    assert_eq!((now, pulls), (Micros(GIVE_UP_MICROS), (GIVE_UP_MICROS / SILENCE_MICROS) as usize - 1));
}

#[test]
fn few_are_received_at_a_time_and_an_offer_that_nobody_pulls_ends() {
    let mut machine = machine(1, 1);
    for group in 1..=RECEIVE_MAX as u32 + 2 {
        machine.fetch(Micros(0), 0, GroupId(group), id(0), &descriptor());
    }
    let mut effects = Vec::new();
    machine.take_effects(&mut effects);
    assert_eq!(effects.len(), RECEIVE_MAX);
    machine.forget(Micros(0), GroupId(1));
    effects.clear();
    machine.take_effects(&mut effects);
    assert!(matches!(effects[..], [Effect::Do(Task::Begin { group: GroupId(3), .. })]), "{effects:?}");
    machine.offer(Micros(5), GROUP, 1);
    machine.wake(Micros(OFFER_MICROS + 4));
    machine.wake(Micros(OFFER_MICROS + 5));
    effects.clear();
    machine.take_effects(&mut effects);
    let retract = Effect::Retract { group: GROUP, generation: 1 };
    assert_eq!(effects, [retract, Effect::Do(Task::Release { group: GROUP, generation: 1 })]);
}

#[test]
fn any_frame_is_judged_without_a_panic() {
    let mut rng = Rng::new(5);
    let (mut pair, pull) = Pair::pulling();
    let lot = pair.lot(&pull, b"1234");
    for _ in 0..20_000 {
        let mut bytes = if rng.chance(0.5) { pull.clone() } else { lot.clone() };
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = rng.next_u64() as u8;
        }
        bytes.truncate(bytes.len() - rng.below(2) as usize);
        let _ = pair.sender.take_frame(Micros(1), id(1), &bytes);
        let _ = pair.receiver.take_frame(Micros(1), id(0), &bytes);
        let _ = pair.effects(false);
        let _ = pair.effects(true);
    }
}
