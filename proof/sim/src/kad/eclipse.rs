//! Liars: a share of all nodes, or 40 around one key; with the defence, and without it as control.
//!
//! Liars know each other and answer everything with those of them that are nearest. Disjoint paths (Baumgart & Mies
//! 2007) are the defence against the first, the region (Sridhar et al. 2023) against the second.

use std::rc::Rc;

use kernel::{Micros, Rng};
use p2p::kad::{Command, Config, Outcome, Record, Region, Target, Token};
use p2p::{Key, Keys};

use super::network::{Accomplices, BEGIN, Peer, Ranks, manner, newborn};
use super::{Bound, Claim, Figure};
use crate::swarm::{Swarm, Terms, Watcher};

/// A run.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// Nodes, liars among them.
    pub nodes: usize,
    /// The share of liars.
    pub sybil: f64,
    /// Disjoint paths.
    pub disjoint: u8,
    /// Lookups among the share of liars.
    pub lookups: usize,
    /// Networks with a surrounded key each.
    pub keys: usize,
    /// Nodes of each of these.
    pub key_nodes: usize,
    /// Decides everything.
    pub seed: u64,
}

/// Liars around one key.
pub const SURROUNDING: u64 = 40;

#[derive(Default)]
struct Ends {
    wanted: Vec<u32>,
    right: u64,
    ended: u64,
    asked: u64,
}

impl Watcher<Peer> for Ends {
    fn reported(&mut self, _: Micros, _: u32, outcome: Outcome<u32>) {
        let (right, cost) = match outcome {
            Outcome::Found(Token(n), found, cost) => (found.contains(&self.wanted[n as usize]), cost),
            Outcome::Value(_, value, cost) => (value.is_some(), cost),
            Outcome::Joined { .. } | Outcome::Stored(..) | Outcome::Providers(..) | Outcome::Refused(..) => {
                return;
            }
        };
        self.right += u64::from(right);
        self.ended += 1;
        self.asked += u64::from(cost.asked);
    }
}

/// Runs the claim, and the same with the defences off as its control.
#[must_use]
pub fn run(params: &Params) -> Claim {
    let (mut figures, first, some) = among(params, params.disjoint);
    let (around, second, more) = surrounded(params, Region::Whole);
    figures.extend(around);
    let (mut control, _, _) = among(params, 1);
    control.extend(surrounded(params, Region::Nearest).0);
    let hash = first.rotate_left(1) ^ second;
    Claim { name: "eclipse", figures, control, hash, delivered: some + more }
}

/// A network of these nodes, of which some lie: each index of `liars` is a gang's.
fn network(ranks: &Ranks, liars: &[bool], config: Config, rng: &mut Rng, seed: u64) -> Swarm<Peer> {
    let gang = (0..liars.len() as u32).filter(|contact| liars[*contact as usize]);
    let gang = Rc::new(Accomplices::new(gang.map(|contact| (ranks.point(contact), contact)).collect()));
    let mut swarm = Swarm::new(Terms { seed, ..Terms::default() });
    for me in 0..liars.len() as u32 {
        let peer = if liars[me as usize] {
            Peer::Liar(gang.clone())
        } else {
            let mut node = newborn(me, ranks.key(me), config, rng.fork(u64::from(me)));
            ranks.fill(&mut node, me, config.k(), u64::BITS, rng);
            Peer::Honest(Box::new(node))
        };
        swarm.add(ranks.key(me), peer);
    }
    swarm
}

fn honest(liars: &[bool], rng: &mut Rng) -> u32 {
    loop {
        let contact = rng.below(liars.len() as u64) as usize;
        if !liars[contact] {
            return contact as u32;
        }
    }
}

fn percent(part: u64, whole: usize) -> f64 {
    part as f64 * 100.0 / whole as f64
}

/// Honest nodes look drawn places up: is the nearest honest node among what they find?
fn among(params: &Params, paths: u8) -> (Vec<Figure>, u64, u64) {
    let mut rng = Rng::new(params.seed);
    let ranks = Ranks::drawn(params.nodes, &mut rng);
    let liars: Vec<bool> = ranks.0.iter().map(|_| rng.chance(params.sybil)).collect();
    let mut swarm = network(&ranks, &liars, manner(20, 3, paths, Region::Nearest), &mut rng, params.seed);
    let (mut ends, mut at) = (Ends::default(), BEGIN);
    for n in 0..params.lookups {
        let (from, target) = (honest(&liars, &mut rng), rng.next_u64());
        let counts = |contact: u32| contact != from && !liars[contact as usize];
        ends.wanted.extend(ranks.nearest(target, 1, counts));
        at = at.plus_millis(1);
        swarm.command(at, from, Command::FindNode(Token(n as u64), Target::at(target)));
    }
    swarm.run(at.plus_millis(600_000), &mut ends);
    let figures = vec![
        Figure {
            name: "nearest honest found among liars",
            value: percent(ends.right, params.lookups),
            unit: "%",
            bound: Bound::AtLeast(99.0),
        },
        Figure {
            name: "mean questions among liars",
            value: ends.asked as f64 / ends.ended as f64,
            unit: "RPCs",
            bound: Bound::None,
        },
    ];
    (figures, swarm.hash(), swarm.counts().delivered)
}

/// In each of many networks one key is surrounded, then a value is stored under it and looked for.
fn surrounded(params: &Params, region: Region) -> (Vec<Figure>, u64, u64) {
    let (mut found, mut asked, mut hash, mut delivered) = (0, 0, 0u64, 0);
    for n in 0..params.keys as u64 {
        let mut rng = Rng::new(params.seed).fork(n);
        let name = format!("key {n}").into_bytes();
        let point = Key::of(&name).point();
        let mut points: Vec<u64> = (0..params.key_nodes).map(|_| rng.next_u64()).collect();
        // Nearer than any honest node will ever be: they share some 46 bits with the key.
        points.extend((1..=SURROUNDING).map(|liar| point ^ liar << 12));
        let ranks = Ranks::of(points);
        let liars: Vec<bool> = ranks.0.iter().map(|own| (own ^ point) >> 18 == 0).collect();
        let seed = params.seed ^ n << 32;
        let mut swarm = network(&ranks, &liars, manner(20, 3, 1, region), &mut rng, seed);
        let mut ends = Ends::default();
        let put = Command::Put(Token(0), Record::new(&name, b"value"));
        swarm.command(BEGIN, honest(&liars, &mut rng), put);
        let then = BEGIN.plus_millis(600_000);
        swarm.run(then, &mut ends);
        swarm.command(then, honest(&liars, &mut rng), Command::Get(Token(0), name));
        swarm.run(then.plus_millis(600_000), &mut ends);
        found += ends.right;
        asked += ends.asked;
        hash = hash.rotate_left(7) ^ swarm.hash();
        delivered += swarm.counts().delivered;
    }
    let figures = vec![
        Figure {
            name: "surrounded key found",
            value: percent(found, params.keys),
            unit: "%",
            bound: Bound::AtLeast(99.0),
        },
        Figure {
            name: "mean questions for a surrounded key",
            value: asked as f64 / params.keys as f64,
            unit: "RPCs",
            bound: Bound::None,
        },
    ];
    (figures, hash, delivered)
}
