//! A small world for Kademlia's nodes: messages take a millisecond, the dead do not answer, liars say what they want.

use std::collections::{BTreeMap, VecDeque};

use kernel::{Micros, Rng};
use p2p::kad::{
    Command, Config, Dht, Envelope, Links, Message, Nodes, Outcome, Record, Region, Signed, Target, Token,
};
use p2p::{Effect, Input, Key, Keys, Protocol};

/// A toy signature: enough to tell whose it is and over what. The real one is the host's.
pub fn sign(publisher: &[u8; 32], message: &[u8]) -> [u8; 64] {
    let half = Key::of(&[publisher, message].concat()).to_bytes();
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&half);
    signature
}

pub type Verify = fn(&[u8; 32], &[u8], &[u8; 64]) -> bool;
pub const VALID: Signed<Verify> =
    Signed(|publisher, message, signature| sign(publisher, message) == *signature);

/// A valid record of `publisher` under `label`.
pub fn record(publisher: u8, label: &[u8], sequence: u64, payload: &[u8]) -> Record {
    let publisher = [publisher; 32];
    let name = Envelope::name(&publisher, label);
    let expires = Micros(u64::MAX / 2);
    let signature = sign(&publisher, &Envelope::signed_bytes(&name, sequence, expires, payload));
    let mut value = Vec::new();
    Envelope { publisher, sequence, expires, payload, signature }.encode(&mut value);
    Record::new(&name, &value)
}

/// The keys of all nodes, by index.
pub struct Points(pub Vec<Key>);

impl Keys<u32> for Points {
    fn key(&self, contact: u32) -> Key {
        self.0[contact as usize]
    }
}

pub type Node = Dht<u32, Signed<Verify>>;
type In = Input<u32, Message<u32>, Command<u32>>;

pub struct World {
    pub now: Micros,
    pub keys: Points,
    pub nodes: Vec<Node>,
    pub dead: Vec<bool>,
    /// Nodes that answer every question with these, whatever is asked, and keep nothing.
    pub liars: BTreeMap<u32, Vec<u32>>,
    pub outcomes: Vec<(u32, Outcome<u32>)>,
    pub delivered: u64,
    queue: VecDeque<(u32, In)>,
}

pub fn config(paths: u8) -> Config {
    let mut config = Config::new(20, 3, paths).expect("the tests keep to the ranges");
    config.links = Links::Keys;
    config
}

impl World {
    /// `count` nodes at places that `seed` draws, none of which knows another.
    pub fn new(seed: u64, count: u32, config: Config) -> World {
        let mut rng = Rng::new(seed);
        let keys = (0..count).map(|_| Key::from_words([rng.next_u64(), 1, 1, 1])).collect();
        World::at(keys, rng, config)
    }

    /// Nodes at these places, none of which knows another.
    pub fn at(keys: Vec<Key>, rng: Rng, config: Config) -> World {
        let count = keys.len() as u32;
        let node = |n: u32| {
            let own = Target { key: keys[n as usize], name: None };
            Dht::new(n, own, config, VALID, rng.fork(u64::from(n)))
        };
        let nodes = (0..count).map(node).collect();
        World {
            now: Micros(1_000_000),
            nodes,
            keys: Points(keys),
            dead: vec![false; count as usize],
            liars: BTreeMap::new(),
            outcomes: Vec::new(),
            delivered: 0,
            queue: VecDeque::new(),
        }
    }

    /// All join by one node, one after another.
    pub fn joined(seed: u64, count: u32, config: Config) -> World {
        let mut world = World::new(seed, count, config);
        for node in 1..count {
            world.command(node, Command::Join(node / 2));
            world.settle();
        }
        world.outcomes.clear();
        world
    }

    pub fn command(&mut self, node: u32, command: Command<u32>) {
        self.queue.push_back((node, Input::Commanded(command)));
    }

    /// Runs a command to its end and gives its one outcome.
    pub fn run(&mut self, node: u32, command: Command<u32>) -> Outcome<u32> {
        self.outcomes.clear();
        self.command(node, command);
        self.settle();
        let mut own: Vec<_> = self.outcomes.drain(..).filter(|(at, _)| *at == node).collect();
        assert_eq!(own.len(), 1, "a command has one outcome");
        own.remove(0).1
    }

    /// Delivers until nothing is on its way.
    pub fn settle(&mut self) {
        while let Some((to, input)) = self.queue.pop_front() {
            self.deliver(to, input);
        }
    }

    pub fn deliver(&mut self, to: u32, input: In) {
        self.now = self.now + 1000;
        self.delivered += 1;
        if self.dead[to as usize] {
            if let Input::Asked { from, id, .. } = input {
                self.queue.push_back((from, Input::Failed { to, id }));
            }
            return;
        }
        if let (Some(told), Input::Asked { from, id, body }) = (self.liars.get(&to), &input) {
            let closer: Nodes<u32> = told.iter().copied().take(20).collect();
            let body = match body {
                Message::GetValue(_) => Message::Value { record: None, closer },
                Message::GetProviders(_) => {
                    Message::Providers { providers: Default::default(), closer: closer.into_vec() }
                }
                Message::Put(_) => Message::Stored(Ok(())),
                _ => Message::Nodes(closer),
            };
            return self.queue.push_back((*from, Input::Answered { from: to, id: *id, body }));
        }
        let mut out = Vec::new();
        self.nodes[to as usize].step(self.now, &self.keys, input, &mut out);
        self.act(to, out);
    }

    /// Does what a node wants.
    pub fn act(&mut self, at: u32, out: Vec<Effect<u32, Message<u32>, Outcome<u32>>>) {
        for effect in out {
            match effect {
                Effect::Tell { to, body } => self.queue.push_back((to, Input::Told { from: at, body })),
                Effect::Ask { to, id, body } => {
                    self.queue.push_back((to, Input::Asked { from: at, id, body }))
                }
                Effect::Answer { to, id, body } => {
                    self.queue.push_back((to, Input::Answered { from: at, id, body }));
                }
                Effect::Report(outcome) => self.outcomes.push((at, outcome)),
            }
        }
    }

    /// Lets time pass, minute by minute, with every wake that is due.
    pub fn pass(&mut self, minutes: u64) {
        for _ in 0..minutes {
            self.now = self.now.plus_millis(60_000);
            for node in 0..self.nodes.len() {
                if !self.dead[node] && self.nodes[node].deadline().is_some_and(|due| due <= self.now) {
                    let mut out = Vec::new();
                    self.nodes[node].wake(self.now, &self.keys, &mut out);
                    self.act(node as u32, out);
                }
            }
            self.settle();
        }
    }

    /// The living nodes, nearest to `key` first.
    pub fn nearest(&self, key: Key) -> Vec<u32> {
        let mut all: Vec<u32> = (0..self.nodes.len() as u32).filter(|&n| !self.dead[n as usize]).collect();
        all.sort_by_key(|&n| self.keys.key(n).distance(key));
        all
    }
}

pub fn found(outcome: Outcome<u32>) -> Vec<u32> {
    match outcome {
        Outcome::Found(_, nodes, _) => nodes,
        other => panic!("{other:?}"),
    }
}

pub const T: Token = Token(7);

pub fn with(region: Region, paths: u8) -> Config {
    let mut config = config(paths);
    config.region = region;
    config
}
