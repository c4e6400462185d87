//! Liars in Kademlia: a share of all nodes, or 40 around one key; with the defences, and without them as control.
//!
//! Liars know each other and answer everything with those of them that are nearest. Disjoint paths are the defence
//! against the first, the region against the second.

use std::rc::Rc;

use kernel::{Micros, Rng};
use p2p::kad::{Command, Config, Outcome, Record, Region, Target, Token};
use p2p::{Key, Keys};
use sim::kad::network::{Accomplices, BEGIN, Peer, Ranks, manner, newborn};
use sim::swarm::{Swarm, Terms, Watcher};

use crate::claim::{Bound, Claim, Control, Figure, Findings, Kind, Parameter, Run};
use crate::plot::{Axis, Mark, Plot, Series};

/// The claim.
pub static CLAIM: Claim = Claim {
    name: "eclipse",
    statement: "With a fifth of the nodes lying in concert, lookups on 8 disjoint paths find the nearest honest node in at \
                least 99 % of cases. A key that 40 liars surround, each nearer than any honest node, is stored and found \
                in at least 99 % of cases where a crowded neighbourhood is answered by going to its whole region.",
    reference: "Baumgart & Mies 2007, S/Kademlia; Sridhar et al. 2023, Content censorship in the InterPlanetary file \
                system",
    parameters: &[
        Parameter {
            name: "nodes",
            help: "Nodes, liars among them",
            kind: Kind::Count { default: 10_000, min: 1000, max: 1_000_000 },
        },
        Parameter { name: "sybil", help: "The share of liars", kind: Kind::Share { default: 0.2, max: 0.9 } },
        Parameter {
            name: "disjoint",
            help: "Disjoint paths of a lookup",
            kind: Kind::Count { default: 8, min: 1, max: 16 },
        },
        Parameter {
            name: "lookups",
            help: "Lookups among the liars",
            kind: Kind::Count { default: 2000, min: 100, max: 1_000_000 },
        },
        Parameter {
            name: "keys",
            help: "Networks in each of which one key is surrounded",
            kind: Kind::Count { default: 300, min: 10, max: 100_000 },
        },
        Parameter {
            name: "around",
            help: "Honest nodes of each of these",
            kind: Kind::Count { default: 2000, min: 100, max: 100_000 },
        },
    ],
    small: &[("nodes", "5000"), ("lookups", "300"), ("keys", "12"), ("around", "1000")],
    run: measure,
    control: Control {
        statement: "The same with the defences off: one path with three questions at once, and the k nearest whoever they \
                    are.",
        run: |run| {
            let among = Found::among(run, 1, run.share("sybil"));
            let around = Found::around(run, Region::Nearest);
            Findings {
                figures: vec![among.judged(AMONG), around.judged(AROUND)],
                plot: None,
                trace_hash: among.hash.rotate_left(7) ^ around.hash,
            }
        },
    },
};

const AMONG: &str = "nearest honest found among liars";
const AROUND: &str = "surrounded key found";
/// Liars around one key.
const SURROUNDING: u64 = 40;
/// Shares of liars that are plotted beside the run's.
const SHARES_BESIDE: [f64; 3] = [0.1, 0.3, 0.5];
/// Lookups for each point of the plot.
const LOOKUPS_BESIDE: u64 = 500;

fn measure(run: &Run<'_>) -> Findings {
    let (paths, sybil) = (run.count("disjoint") as u8, run.share("sybil"));
    let among = Found::among(run, paths, sybil);
    let around = Found::around(run, Region::Whole);
    let (bare, open) = (Found::among(run, 1, sybil), Found::around(run, Region::Nearest));
    let mut hash = 0u64;
    for one in [&among, &around, &bare, &open] {
        hash = hash.rotate_left(7) ^ one.hash;
    }
    let figures = vec![
        among.judged(AMONG),
        Figure::new("among liars, on one path", bare.share(), "%", Bound::Told),
        around.judged(AROUND),
        Figure::new("surrounded, by the nearest only", open.share(), "%", Bound::Told),
        Figure::new("questions among liars", among.questions(), "RPCs", Bound::Told),
        Figure::new("questions among liars, on one path", bare.questions(), "RPCs", Bound::Told),
        Figure::new("questions to put and get a surrounded key", around.questions(), "RPCs", Bound::Told),
        Figure::new("questions to do so by the nearest only", open.questions(), "RPCs", Bound::Told),
    ];
    let (mut with, mut without) = (vec![(sybil * 100.0, among.share())], vec![(sybil * 100.0, bare.share())]);
    for share in SHARES_BESIDE {
        for (paths, curve) in [(paths, &mut with), (1, &mut without)] {
            let lookups = run.count("lookups").min(LOOKUPS_BESIDE);
            let found = Found::among_some(run, paths, share, lookups);
            hash = hash.rotate_left(7) ^ found.hash;
            curve.push((share * 100.0, found.share()));
        }
    }
    for curve in [&mut with, &mut without] {
        curve.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    }
    Findings { figures, plot: Some(plot(paths, with, without)), trace_hash: hash }
}

/// What was looked for among liars.
struct Found {
    wanted: u64,
    right: u64,
    asked: u64,
    hash: u64,
}

impl Found {
    fn share(&self) -> f64 {
        self.right as f64 * 100.0 / self.wanted as f64
    }

    fn questions(&self) -> f64 {
        self.asked as f64 / self.wanted as f64
    }

    fn judged(&self, name: &'static str) -> Figure {
        Figure::new(name, self.share(), "%", Bound::AtLeast(99.0))
    }

    fn among(run: &Run<'_>, paths: u8, sybil: f64) -> Found {
        Found::among_some(run, paths, sybil, run.count("lookups"))
    }

    /// Honest nodes look drawn places up: is the nearest honest node among what they find?
    fn among_some(run: &Run<'_>, paths: u8, sybil: f64, lookups: u64) -> Found {
        let mut rng = Rng::new(run.seed);
        let ranks = Ranks::drawn(run.count("nodes") as usize, &mut rng);
        let liars: Vec<bool> = ranks.0.iter().map(|_| rng.chance(sybil)).collect();
        run.progress("among liars", 0, 1);
        let mut swarm = network(&ranks, &liars, manner(20, 3, paths, Region::Nearest), &mut rng, run.seed);
        let (mut ends, mut at) = (Ends::default(), BEGIN);
        for n in 0..lookups {
            let (from, target) = (honest(&liars, &mut rng), rng.next_u64());
            let counts = |contact: u32| contact != from && !liars[contact as usize];
            ends.wanted.extend(ranks.nearest(target, 1, counts));
            at = at.plus_millis(1);
            swarm.command(at, from, Command::FindNode(Token(n), Target::at(target)));
        }
        swarm.run(at.plus_millis(600_000), &mut ends);
        Found { wanted: lookups, right: ends.right, asked: ends.asked, hash: swarm.hash() }
    }

    /// In each of many networks one key is surrounded, then a value is stored under it and looked for.
    fn around(run: &Run<'_>, region: Region) -> Found {
        let keys = run.count("keys");
        let mut found = Found { wanted: keys, right: 0, asked: 0, hash: 0 };
        for n in 0..keys {
            run.progress("around a key", n, keys);
            let mut rng = Rng::new(run.seed).fork(n);
            let name = format!("key {n}").into_bytes();
            let point = Key::of(&name).point();
            let mut points: Vec<u64> = (0..run.count("around")).map(|_| rng.next_u64()).collect();
            // Nearer than any honest node will ever be: they share some 46 bits with the key.
            points.extend((1..=SURROUNDING).map(|liar| point ^ liar << 12));
            let ranks = Ranks::of(points);
            let liars: Vec<bool> = ranks.0.iter().map(|own| (own ^ point) >> 18 == 0).collect();
            let seed = run.seed ^ n << 32;
            let mut swarm = network(&ranks, &liars, manner(20, 3, 1, region), &mut rng, seed);
            let mut ends = Ends::default();
            let put = Command::Put(Token(0), Record::new(&name, b"value"));
            swarm.command(BEGIN, honest(&liars, &mut rng), put);
            let then = BEGIN.plus_millis(600_000);
            swarm.run(then, &mut ends);
            swarm.command(then, honest(&liars, &mut rng), Command::Get(Token(0), name));
            swarm.run(then.plus_millis(600_000), &mut ends);
            found.right += ends.right;
            found.asked += ends.asked;
            found.hash = found.hash.rotate_left(7) ^ swarm.hash();
        }
        found
    }
}

#[derive(Default)]
struct Ends {
    wanted: Vec<u32>,
    right: u64,
    asked: u64,
}

impl Watcher<Peer> for Ends {
    fn reported(&mut self, _: Micros, _: u32, outcome: Outcome<u32>) {
        let (right, cost) = match outcome {
            Outcome::Found(Token(n), found, cost) => (found.contains(&self.wanted[n as usize]), cost),
            Outcome::Value(_, value, cost) => (value.is_some(), cost),
            Outcome::Stored(_, _, cost) => (false, cost),
            Outcome::Joined { .. } | Outcome::Providers(..) | Outcome::Refused(..) => return,
        };
        self.right += u64::from(right);
        self.asked += u64::from(cost.asked);
    }
}

/// A network of these nodes, of which those lie for which `liars` says so.
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

fn plot(paths: u8, with: Vec<(f64, f64)>, without: Vec<(f64, f64)>) -> Plot {
    let bound = with.iter().map(|(at, _)| (*at, 99.0)).collect();
    Plot {
        title: "Lookups that found the nearest honest node".into(),
        x: Axis::linear("liars, percent"),
        y: Axis::linear("found, percent"),
        series: vec![
            Series { name: format!("{paths} disjoint paths"), mark: Mark::Points, points: with },
            Series { name: "one path".into(), mark: Mark::Line, points: without },
            Series { name: "99 %".into(), mark: Mark::Dashes, points: bound },
        ],
    }
}
