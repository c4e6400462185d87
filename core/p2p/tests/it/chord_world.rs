//! A small world for rings: messages take their time and may be lost, the dead do not answer, and a wall may stand between
//! two sides.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernel::{Micros, Rng};
use p2p::chord::{Chord, Command, Item, Message, Outcome, Settings, Tag};
use p2p::{Effect, EffectOf, Input, InputOf, Key, Keys, Protocol, RequestId};

pub const SECOND: u64 = 1_000_000;
pub const MINUTE: u64 = 60 * SECOND;
/// How long a request waits for its answer.
const PATIENCE: u64 = 2 * SECOND;
/// How long a slow message takes at most.
const SLOW: u64 = 3 * SECOND / 2;
/// How long one that leaves hands over what it keeps before its process ends.
const LEAVING: u64 = 5 * SECOND;

type Node = Chord<u32>;

/// The keys of all nodes, by index.
pub struct Points(pub Vec<Key>);

impl Keys<u32> for Points {
    fn key(&self, contact: u32) -> Key {
        self.0[contact as usize]
    }
}

enum Event {
    Step(InputOf<Node>),
    /// A request reaches its receiver; until then its sender waits.
    Ask {
        from: u32,
        id: RequestId,
        body: Message<u32>,
    },
    Wake,
    /// The process ends.
    End,
}

pub struct World {
    pub now: Micros,
    pub keys: Points,
    /// `None`: not born, or dead.
    pub nodes: Vec<Option<Node>>,
    /// On which side of the wall each node stands, while there is one.
    pub wall: Option<Vec<bool>>,
    /// The share of messages that are lost.
    pub loss: f64,
    /// The share of messages that take up to [`SLOW`], so that some answers come too late.
    pub slow: f64,
    pub settings: Settings,
    pub rng: Rng,
    /// What nodes reported that nobody has taken yet.
    pub outcomes: Vec<(u32, Outcome<u32>)>,
    pub delivered: u64,
    events: BTreeMap<(Micros, u64), (u32, u64, Event)>,
    /// How many lives each node has had: what was meant for an earlier one does not reach it.
    lives: Vec<u64>,
    armed: Vec<Option<Micros>>,
    waiting: BTreeMap<(u32, RequestId), (u32, Micros)>,
    next: u64,
}

impl World {
    /// Room for `count` nodes at drawn places, none of which is there yet.
    pub fn new(seed: u64, count: u32, settings: Settings) -> World {
        let mut rng = Rng::new(seed);
        let keys = (0..count).map(|n| Key::from_words([rng.next_u64(), 0, 0, u64::from(n)])).collect();
        World {
            now: Micros(SECOND),
            keys: Points(keys),
            nodes: (0..count).map(|_| None).collect(),
            wall: None,
            loss: 0.0,
            slow: 0.0,
            settings,
            rng,
            outcomes: Vec::new(),
            delivered: 0,
            events: BTreeMap::new(),
            lives: vec![0; count as usize],
            armed: vec![None; count as usize],
            waiting: BTreeMap::new(),
            next: 0,
        }
    }

    fn machine(&mut self, node: u32) -> Node {
        let at = node as usize;
        self.lives[at] += 1;
        self.armed[at] = None;
        Chord::new(
            node,
            self.keys.key(node),
            self.settings,
            self.rng.fork(1000 * self.lives[at] + u64::from(node)),
        )
    }

    /// `node` comes to life and is told this.
    pub fn born(&mut self, node: u32, command: Command<u32>) {
        let machine = self.machine(node);
        self.nodes[node as usize] = Some(machine);
        self.command(node, command);
    }

    /// These come to life on an ideal ring of their own.
    pub fn ring(&mut self, members: &[u32]) {
        let mut ring = members.to_vec();
        ring.sort_by_key(|&node| self.keys.point(node));
        if ring.len() == 1 {
            return self.born(ring[0], Command::Create);
        }
        for (n, &node) in ring.iter().enumerate() {
            let at = |ahead: usize| ring[(n + ahead) % ring.len()];
            let kept = usize::from(self.settings.successors).min(ring.len() - 1);
            let after: Vec<u32> = (1..=kept).map(at).collect();
            let (now, before) = (self.now, at(ring.len() - 1));
            let machine = self.machine(node).settled(now, before, &after, &[]);
            self.nodes[node as usize] = Some(machine);
            self.arm(node);
        }
    }

    pub fn kill(&mut self, node: u32) {
        self.nodes[node as usize] = None;
        self.lives[node as usize] += 1;
        self.waiting.retain(|(from, _), _| *from != node);
    }

    /// `node` hands over what it keeps, as one that is stopped does, and is gone.
    pub fn leave(&mut self, node: u32) {
        self.command(node, Command::Leave);
        self.push(self.now + LEAVING, node, Event::End);
    }

    pub fn command(&mut self, node: u32, command: Command<u32>) {
        self.step(node, Input::Commanded(command));
    }

    fn push(&mut self, at: Micros, node: u32, event: Event) {
        self.next += 1;
        self.events.insert((at, self.next), (node, self.lives[node as usize], event));
    }

    fn arm(&mut self, node: u32) {
        let due =
            self.nodes[node as usize].as_ref().and_then(Protocol::deadline).map(|due| due.max(self.now));
        if let Some(due) = due
            && self.armed[node as usize].is_none_or(|armed| armed > due)
        {
            self.armed[node as usize] = Some(due);
            self.push(due, node, Event::Wake);
        }
    }

    fn step(&mut self, node: u32, input: InputOf<Node>) {
        let Some(machine) = &mut self.nodes[node as usize] else { return };
        let mut out = Vec::new();
        machine.step(self.now, &self.keys, input, &mut out);
        self.act(node, out);
    }

    fn act(&mut self, node: u32, out: Vec<EffectOf<Node>>) {
        for effect in out {
            match effect {
                Effect::Tell { to, body } => {
                    self.send(node, to, Event::Step(Input::Told { from: node, body }))
                }
                Effect::Ask { to, id, body } => {
                    let until = self.now + PATIENCE;
                    self.waiting.insert((node, id), (to, until));
                    self.push(until, node, Event::Step(Input::Failed { to, id }));
                    self.send(node, to, Event::Ask { from: node, id, body });
                }
                Effect::Answer { to, id, body } => {
                    self.send(node, to, Event::Step(Input::Answered { from: node, id, body }));
                }
                Effect::Report(outcome) => self.outcomes.push((node, outcome)),
            }
        }
        self.arm(node);
    }

    fn send(&mut self, from: u32, to: u32, event: Event) {
        let apart = |wall: &Vec<bool>| wall[from as usize] != wall[to as usize];
        if self.wall.as_ref().is_some_and(apart) || self.rng.chance(self.loss) {
            return;
        }
        let most = if self.slow > 0.0 && self.rng.chance(self.slow) { SLOW } else { 60_000 };
        let took = 5_000 + self.rng.below(most);
        self.push(self.now + took, to, event);
    }

    /// Runs for so many microseconds.
    pub fn pass(&mut self, micros: u64) {
        let until = self.now + micros;
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), (node, life, event)) = entry.remove_entry();
            self.now = at;
            if self.lives[node as usize] == life {
                self.happen(node, event);
            }
        }
        self.now = until;
    }

    fn happen(&mut self, node: u32, event: Event) {
        match event {
            Event::Wake => {
                self.armed[node as usize] = None;
                let Some(machine) = &mut self.nodes[node as usize] else { return };
                let mut out = Vec::new();
                if machine.deadline().is_some_and(|due| due <= self.now) {
                    machine.wake(self.now, &self.keys, &mut out);
                }
                self.act(node, out);
            }
            Event::End => self.kill(node),
            Event::Ask { from, id, body } => {
                self.delivered += 1;
                self.step(node, Input::Asked { from, id, body });
            }
            // The first of the answer and the end of patience counts.
            Event::Step(input @ (Input::Answered { id, .. } | Input::Failed { id, .. })) => {
                if self.waiting.remove(&(node, id)).is_some() {
                    self.delivered += 1;
                    self.step(node, input);
                }
            }
            Event::Step(input) => {
                self.delivered += 1;
                self.step(node, input);
            }
        }
    }

    /// The living nodes in the ring's order.
    pub fn living(&self) -> Vec<u32> {
        let mut living: Vec<u32> =
            (0..self.nodes.len() as u32).filter(|&node| self.nodes[node as usize].is_some()).collect();
        living.sort_by_key(|&node| self.keys.point(node));
        living
    }

    /// Who owns value `n` among the living.
    pub fn owner(&self, n: u64) -> u32 {
        let (point, living) = (World::key(n).point(), self.living());
        *living.iter().find(|&&node| self.keys.point(node) >= point).unwrap_or(&living[0])
    }

    /// Are these, in the ring's order, one ring in which everybody knows its neighbours?
    pub fn is_ideal(&self, ring: &[u32]) -> bool {
        let kept = usize::from(self.settings.successors).min(ring.len() - 1);
        ring.iter().enumerate().all(|(n, &node)| {
            let at = |ahead: usize| ring[(n + ahead) % ring.len()];
            let Some(machine) = &self.nodes[node as usize] else { return false };
            machine.is_member()
                && machine.successors().iter().copied().eq((1..=kept).map(at))
                && (ring.len() == 1 || machine.predecessor() == Some(at(ring.len() - 1)))
        })
    }

    /// Runs until all who live are one ideal ring, in steps of a second; how many seconds it took, or `None` after `most`.
    pub fn becomes_one(&mut self, most: u64) -> Option<u64> {
        let living = self.living();
        (0..=most).find(|&second| {
            if second > 0 {
                self.pass(SECOND);
            }
            self.is_ideal(&living)
        })
    }

    pub fn key(n: u64) -> Key {
        Key::of(&n.to_le_bytes())
    }

    /// `node` puts value `n`; whether it was stored is not waited for.
    pub fn put(&mut self, node: u32, n: u64) {
        let item = Item { key: World::key(n), version: 1, value: Arc::from(&n.to_le_bytes()[..]) };
        self.command(node, Command::Put { tag: Tag(n), item });
    }

    /// Which of these values are in nobody's store.
    pub fn gone(&self, values: std::ops::Range<u64>) -> Vec<u64> {
        let keeps = |node: &Node, n| node.store().is_some_and(|store| store.get(World::key(n)).is_some());
        values.filter(|n| !self.nodes.iter().flatten().any(|node| keeps(node, *n))).collect()
    }

    /// Each living node looks for each of these values; who does not find which.
    pub fn missed(&mut self, values: &[u64]) -> Vec<(u32, u64)> {
        let living = self.living();
        let mut missed: Vec<(u32, u64)> =
            living.into_iter().flat_map(|node| values.iter().map(move |n| (node, *n))).collect();
        self.outcomes.clear();
        for (node, n) in missed.clone() {
            self.command(node, Command::Get { tag: Tag(n), key: World::key(n) });
        }
        self.pass(MINUTE / 2);
        for (node, outcome) in std::mem::take(&mut self.outcomes) {
            if let Outcome::Value { tag: Tag(n), item: Some(_) } = outcome {
                missed.retain(|one| *one != (node, n));
            }
        }
        missed
    }

    /// Which of these values `node` does not find.
    pub fn missing(&mut self, node: u32, values: std::ops::Range<u64>) -> Vec<u64> {
        let mut missing = Vec::new();
        for n in values {
            self.outcomes.clear();
            self.command(node, Command::Get { tag: Tag(n), key: World::key(n) });
            let found = (0..60).find_map(|_| {
                if self.outcomes.is_empty() {
                    self.pass(SECOND / 2);
                }
                self.outcomes.iter().find_map(|(_, outcome)| match outcome {
                    Outcome::Value { tag, item } if *tag == Tag(n) => Some(item.is_some()),
                    Outcome::NotFound { tag } if *tag == Tag(n) => Some(false),
                    _ => None,
                })
            });
            if found != Some(true) {
                missing.push(n);
            }
        }
        missing
    }
}
