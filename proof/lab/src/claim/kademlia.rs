//! Static Kademlia networks: the nearest node is found exactly, in O(log n) hops.
//!
//! What a hop is: Maymounkov and Mazières ask in rounds of α questions, and the model of Roos, Salah and Strufe counts
//! rounds. In rounds a node is first told of over the shortest chain of those that were asked. Our lookups have no rounds:
//! a question goes as soon as an answer is in, and quick answers over a longer chain may tell of a node first. So `hops` is
//! the shortest chain, which is what rounds would have taken; the chain of the first that told is printed beside it, and
//! the greedy walk to the nearest known node, which is what Cai and Devroye's theorem is about.

use kernel::{Micros, Rng};
use p2p::Keys;
use p2p::kad::{Command, Near, Outcome, Region, Target, Token};
use sim::kad::network::{BEGIN, Node, Ranks, manner, newborn};
use sim::swarm::{Swarm, Terms, Watcher};

use crate::claim::{Bound, Claim, Control, Figure, Findings, Kind, Parameter, Run};
use crate::plot::{Axis, Mark, Plot, Series};

/// The claim.
pub static CLAIM: Claim = Claim {
    name: "kademlia",
    statement: "In a settled network of N nodes with full k-buckets every lookup finds the nearest node, in at most \
                ln N / H_k hops on average (H_k: the k-th harmonic number), and in at most 3.6 with k = 20, α = 3 and a \
                million nodes; it asks at most k + 7 nodes.",
    reference: "Maymounkov & Mazières 2002, Kademlia; Cai & Devroye 2013, A probabilistic analysis of Kademlia \
                networks; Roos, Salah & Strufe 2013, Comprehending Kademlia routing",
    parameters: &[
        Parameter {
            name: "nodes",
            help: "Nodes of the largest network",
            kind: Kind::Count { default: 100_000, min: 1000, max: 4_000_000 },
        },
        Parameter {
            name: "k",
            help: "Contacts in a bucket and an answer",
            kind: Kind::Count { default: 20, min: 1, max: 32 },
        },
        Parameter {
            name: "alpha",
            help: "Questions of a lookup at once",
            kind: Kind::Count { default: 3, min: 1, max: 16 },
        },
        Parameter {
            name: "lookups",
            help: "Lookups of drawn places from drawn nodes, in the largest network",
            kind: Kind::Count { default: 20_000, min: 100, max: 10_000_000 },
        },
    ],
    small: &[("nodes", "3000"), ("lookups", "500")],
    run: measure,
    control: Control {
        statement: "Nodes that know nobody in the deeper parts of their own half of the network: lookups go astray.",
        run: |run| {
            let nodes = run.count("nodes").min(10_000);
            let found = Lookups::run(run, nodes, run.count("lookups").min(1000), KNOWN_BITS_OF_CONTROL);
            Findings { figures: found.judged(run), plot: None, trace_hash: found.hash }
        },
    },
};

/// Bits of their own place that the control's tables go down to.
const KNOWN_BITS_OF_CONTROL: u32 = 6;
/// Lookups in a network that is smaller than the largest, at most.
const LOOKUPS_BESIDE: u64 = 10_000;
/// Lookups that begin within one second of virtual time: so few that what is under way fits a cache.
const LOOKUPS_A_SECOND: u64 = 1000;
/// Most hops with a million nodes.
const HOPS_MAX: f64 = 3.6;

/// `ln N / H_k`.
fn foretold(nodes: f64, k: u64) -> f64 {
    libm::log(nodes) / (1..=k).map(|n| 1.0 / n as f64).sum::<f64>()
}

fn measure(run: &Run<'_>) -> Findings {
    let (nodes, lookups) = (run.count("nodes"), run.count("lookups"));
    let mut points = Vec::new();
    let mut hash = 0u64;
    for size in [1000, 10_000, 100_000].into_iter().filter(|&size| size < nodes) {
        let one = Lookups::run(run, size, lookups.min(LOOKUPS_BESIDE), u64::BITS);
        hash = hash.rotate_left(7) ^ one.hash;
        points.push((size as f64, one));
    }
    let last = Lookups::run(run, nodes, lookups, u64::BITS);
    hash = hash.rotate_left(7) ^ last.hash;
    let mut figures = last.judged(run);
    figures.extend([
        Figure::new("hops by the first that told", last.first.mean(), "hops", Bound::Told),
        Figure::new("hops of the greedy walk", last.greedy.mean(), "hops", Bound::Told),
        Figure::new("ln N / H_k", foretold(nodes as f64, run.count("k")), "hops", Bound::Told),
        Figure::new("all k nearest found", last.share(last.whole), "%", Bound::Told),
        Figure::new("lookups", last.ended as f64, "lookups", Bound::Exactly(lookups as f64)),
        Figure::new("messages delivered", last.delivered as f64, "messages", Bound::Told),
    ]);
    points.push((nodes as f64, last));
    Findings { figures, plot: Some(plot(run, &points)), trace_hash: hash }
}

/// A mean that grows.
#[derive(Clone, Copy, Default)]
struct Mean {
    sum: u64,
    count: u64,
}

impl Mean {
    fn add(&mut self, value: u64) {
        self.sum += value;
        self.count += 1;
    }

    fn mean(self) -> f64 {
        self.sum as f64 / self.count as f64
    }
}

/// What lookups came to in one network.
#[derive(Default)]
struct Lookups {
    nodes: u64,
    wanted: u64,
    ended: u64,
    hops: Mean,
    first: Mean,
    greedy: Mean,
    asked: Mean,
    /// Lookups that found the nearest, and all of the `k` nearest in their order.
    exact: u64,
    whole: u64,
    delivered: u64,
    hash: u64,
}

impl Lookups {
    fn share(&self, part: u64) -> f64 {
        part as f64 * 100.0 / self.wanted as f64
    }

    fn judged(&self, run: &Run<'_>) -> Vec<Figure> {
        let k = run.count("k");
        let mut most = foretold(self.nodes as f64, k);
        if k >= 20 && self.nodes <= 1_000_000 {
            most = most.min(HOPS_MAX);
        }
        vec![
            Figure::new("mean hops", self.hops.mean(), "hops", Bound::AtMost(most)),
            Figure::new("mean questions", self.asked.mean(), "RPCs", Bound::AtMost(k as f64 + 7.0)),
            Figure::new("nearest found", self.share(self.exact), "%", Bound::Exactly(100.0)),
        ]
    }

    /// Looks drawn places up in a network of `nodes`, whose tables know nothing below `depth` bits.
    fn run(run: &Run<'_>, nodes: u64, lookups: u64, depth: u32) -> Lookups {
        let mut rng = Rng::new(run.seed).fork(nodes);
        let ranks = Ranks::drawn(nodes as usize, &mut rng);
        let nodes = ranks.0.len() as u64;
        let k = run.count("k");
        let config = manner(k as u8, run.count("alpha") as u8, 1, Region::Nearest);
        let mut swarm = Swarm::new(Terms { seed: run.seed, ..Terms::default() });
        for me in 0..nodes as u32 {
            if me % 1024 == 0 {
                run.progress("building the network", u64::from(me), nodes);
            }
            let mut node = newborn(me, ranks.key(me), config, rng.fork(u64::from(me)));
            ranks.fill(&mut node, me, config.k(), depth, &mut rng);
            swarm.add(ranks.key(me), node);
        }
        let mut watch = Watch::default();
        run.progress("drawing lookups", 0, 1);
        let mut begun = Vec::new();
        for _ in 0..lookups {
            let (from, target) = (rng.below(nodes) as u32, rng.next_u64());
            watch.wanted.extend(ranks.nearest(target, k as usize, |contact| contact != from));
            watch.ends.push(watch.wanted.len());
            watch.found.greedy.add(greedy(&swarm, from, target));
            begun.push((from, target, rng.below(1_000_000)));
        }
        let mut at = BEGIN;
        for (chunk, some) in begun.chunks(LOOKUPS_A_SECOND as usize).enumerate() {
            run.swarm("looking up", chunk as u64 * LOOKUPS_A_SECOND, lookups, swarm.counts());
            for (n, &(from, target, after)) in some.iter().enumerate() {
                let token = Token(chunk as u64 * LOOKUPS_A_SECOND + n as u64);
                swarm.command(at + after, from, Command::FindNode(token, Target::at(target)));
            }
            at = at.plus_millis(1000);
            swarm.run(at, &mut watch);
        }
        swarm.run(at.plus_millis(60_000), &mut watch);
        let counts = swarm.counts();
        run.swarm("looking up", lookups, lookups, counts);
        Lookups { nodes, wanted: lookups, delivered: counts.delivered, hash: swarm.hash(), ..watch.found }
    }
}

/// Steps to the nearest node if each asks the one node that it knows nearest to the target.
fn greedy(swarm: &Swarm<Node>, from: u32, target: u64) -> u64 {
    let (mut at, mut steps) = (from, 0);
    let mut near = Near::new();
    loop {
        swarm.node(at).table().closest(swarm.places(), target, 1, Some(from), &mut near);
        let nearer =
            near.first().filter(|(distance, _)| at == from || *distance < swarm.places().point(at) ^ target);
        let Some(&(_, next)) = nearer else { return steps };
        (at, steps) = (next, steps + 1);
    }
}

#[derive(Default)]
struct Watch {
    /// The nodes nearest to each target, one list behind the other.
    wanted: Vec<u32>,
    /// Where each list ends.
    ends: Vec<usize>,
    found: Lookups,
}

impl Watcher<Node> for Watch {
    fn reported(&mut self, _: Micros, _: u32, outcome: Outcome<u32>) {
        let Outcome::Found(Token(n), nodes, cost) = outcome else { return };
        let n = n as usize;
        let begin = if n == 0 { 0 } else { self.ends[n - 1] };
        let wanted = &self.wanted[begin..self.ends[n]];
        let found = &mut self.found;
        found.ended += 1;
        found.hops.add(u64::from(cost.hops));
        found.first.add(u64::from(cost.first_hops));
        found.asked.add(u64::from(cost.asked));
        found.exact += u64::from(nodes.first() == wanted.first());
        found.whole += u64::from(nodes == wanted);
    }
}

fn plot(run: &Run<'_>, points: &[(f64, Lookups)]) -> Plot {
    let measured = |of: fn(&Lookups) -> f64| points.iter().map(|(nodes, one)| (*nodes, of(one))).collect();
    let line = points.iter().map(|(nodes, _)| (*nodes, foretold(*nodes, run.count("k")))).collect();
    Plot {
        title: "Hops of a lookup".into(),
        x: Axis::log("nodes"),
        y: Axis::linear("mean hops"),
        series: vec![
            Series {
                name: "shortest chain".into(),
                mark: Mark::Points,
                points: measured(|one| one.hops.mean()),
            },
            Series {
                name: "first that told".into(),
                mark: Mark::Points,
                points: measured(|one| one.first.mean()),
            },
            Series {
                name: "greedy walk".into(),
                mark: Mark::Dashes,
                points: measured(|one| one.greedy.mean()),
            },
            Series { name: "ln N / H_k".into(), mark: Mark::Line, points: line },
        ],
    }
}
