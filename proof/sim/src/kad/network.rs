//! Kademlia networks in the swarm: nodes with the tables that long-lived ones have, liars, and what is true of all.

use std::cmp::Ordering;
use std::rc::Rc;

use kernel::{Micros, Rng};
use p2p::kad::{Command, Config, Dht, Links, Message, Nodes, Outcome, Refusal, Region, Target, Validator};
use p2p::{Effect, EffectOf, Input, InputOf, Key, Keys, Protocol};

/// Any value may be stored under any name: these claims are about finding.
#[derive(Clone, Copy, Debug)]
pub struct Open;

impl Validator for Open {
    fn check(&self, _: Micros, _: &[u8], _: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }

    fn order(&self, _: &[u8], a: &[u8], b: &[u8]) -> Ordering {
        a.cmp(b)
    }
}

/// An honest node.
pub type Node = Dht<u32, Open>;

/// When a network begins: not at 0, so that an hour ago is a moment too.
pub const BEGIN: Micros = Micros(3_600_000_000);

/// How nodes take part: links of the swarm carry keys.
///
/// # Panics
/// If a number is out of its range; the command line has checked them.
#[must_use]
pub fn manner(k: u8, alpha: u8, paths: u8, region: Region) -> Config {
    let mut config = Config::new(k, alpha, paths).expect("the numbers were checked");
    (config.links, config.region) = (Links::Keys, region);
    config
}

/// The points of all nodes in rising order: a node's handle is its rank.
pub struct Ranks(pub Vec<u64>);

impl Keys<u32> for Ranks {
    fn key(&self, contact: u32) -> Key {
        Key::from_words([self.0[contact as usize], 0, 0, 0])
    }

    #[inline]
    fn point(&self, contact: u32) -> u64 {
        self.0[contact as usize]
    }
}

impl Ranks {
    /// `count` places, drawn evenly.
    #[must_use]
    pub fn drawn(count: usize, rng: &mut Rng) -> Ranks {
        Ranks::of((0..count).map(|_| rng.next_u64()).collect())
    }

    /// These places, each once.
    #[must_use]
    pub fn of(mut points: Vec<u64>) -> Ranks {
        points.sort_unstable();
        points.dedup();
        Ranks(points)
    }

    /// The two halves of `range`, whose points agree before `bit`: those with a 0 there, and those with a 1.
    fn halves(&self, range: (usize, usize), bit: u32) -> [(usize, usize); 2] {
        let ones = self.0[range.0..range.1].partition_point(|point| point >> (63 - bit) & 1 == 0);
        [(range.0, range.0 + ones), (range.0 + ones, range.1)]
    }

    /// The `n` nearest to `target` of those for which `counts` holds, nearest first.
    pub fn nearest(&self, target: u64, n: usize, counts: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut found = Vec::new();
        self.gather((0, self.0.len()), 0, target, n, &counts, &mut found);
        found.sort_unstable_by_key(|contact| self.point(*contact) ^ target);
        found.truncate(n);
        found
    }

    fn gather(
        &self,
        range: (usize, usize),
        bit: u32,
        target: u64,
        n: usize,
        counts: &impl Fn(u32) -> bool,
        found: &mut Vec<u32>,
    ) {
        if range.1 - range.0 <= n || bit == 64 {
            found.extend((range.0 as u32..range.1 as u32).filter(|contact| counts(*contact)));
            return;
        }
        let halves = self.halves(range, bit);
        let own = (target >> (63 - bit) & 1) as usize;
        // All of the nearer half are nearer than any of the other.
        self.gather(halves[own], bit + 1, target, n, counts, found);
        if found.len() < n {
            self.gather(halves[1 - own], bit + 1, target, n, counts, found);
        }
    }

    /// Fills a node's table through its own door with what it would know after a long life: of each bucket's range, all
    /// nodes or `k` drawn ones. Ranges below `depth` bits stay empty.
    pub fn fill(&self, node: &mut Node, me: u32, k: usize, depth: u32, rng: &mut Rng) {
        let point = self.point(me);
        let (mut range, mut buckets) = ((0, self.0.len()), Vec::new());
        for bit in 0..depth.min(64) {
            if range.1 - range.0 <= 1 {
                break;
            }
            let halves = self.halves(range, bit);
            let own = (point >> (63 - bit) & 1) as usize;
            range = halves[own];
            buckets.push(halves[1 - own]);
        }
        // From the deepest: a table has those first.
        for (bucket, (low, high)) in buckets.into_iter().enumerate().rev() {
            if high - low <= k {
                for other in low..high {
                    node.admit(BEGIN, self, other as u32);
                }
            } else {
                while node.table().live(bucket) < k {
                    let other = low as u64 + rng.below((high - low) as u64);
                    node.admit(BEGIN, self, other as u32);
                }
            }
        }
    }
}

/// A node of a network with liars.
pub enum Peer {
    /// It keeps to the protocol.
    Honest(Box<Node>),
    /// It tells of its accomplices nearest to what is asked, and says it keeps what it drops.
    Liar(Rc<Accomplices>),
}

/// Liars that know of each other, by rising points.
pub struct Accomplices {
    ranks: Ranks,
    handles: Vec<u32>,
}

impl Accomplices {
    /// Those with these points and handles.
    #[must_use]
    pub fn new(mut members: Vec<(u64, u32)>) -> Accomplices {
        members.sort_unstable();
        let (points, handles) = members.into_iter().unzip();
        Accomplices { ranks: Ranks(points), handles }
    }

    fn lie(&self, target: u64) -> impl Iterator<Item = u32> {
        let near = self.ranks.nearest(target, 20, |_| true);
        near.into_iter().map(|rank| self.handles[rank as usize])
    }
}

impl Protocol for Peer {
    type Contact = u32;
    type Message = Message<u32>;
    type Command = Command<u32>;
    type Outcome = Outcome<u32>;

    fn step(
        &mut self,
        now: Micros,
        keys: &impl Keys<u32>,
        input: InputOf<Peer>,
        out: &mut Vec<EffectOf<Peer>>,
    ) {
        let liars = match self {
            Peer::Honest(node) => return node.step(now, keys, input, out),
            Peer::Liar(liars) => liars,
        };
        let Input::Asked { from, id, body } = input else { return };
        let near = |target: &Target| liars.lie(target.key.point()).collect::<Nodes<u32>>();
        let body = match &body {
            Message::FindNode(target) => Message::Nodes(near(target)),
            Message::GetValue(target) => Message::Value { record: None, closer: near(target) },
            Message::GetProviders(target) => {
                Message::Providers { providers: Default::default(), closer: near(target).into_vec() }
            }
            Message::Put(_) => Message::Stored(Ok(())),
            _ => return,
        };
        out.push(Effect::Answer { to: from, id, body });
    }

    fn deadline(&self) -> Option<Micros> {
        match self {
            Peer::Honest(node) => node.deadline(),
            Peer::Liar(_) => None,
        }
    }

    fn wake(&mut self, now: Micros, keys: &impl Keys<u32>, out: &mut Vec<EffectOf<Peer>>) {
        if let Peer::Honest(node) = self {
            node.wake(now, keys, out);
        }
    }
}

/// A node without contacts.
#[must_use]
pub fn newborn(me: u32, key: Key, config: Config, rng: Rng) -> Node {
    Dht::new(me, Target { key, name: None }, config, Open, rng)
}
