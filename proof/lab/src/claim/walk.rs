//! A random walk finds what a formula foretells, and one that Metropolis and Hastings steer draws nodes evenly.

use kernel::{Micros, Rng};
use p2p::Key;
use p2p::walk::{
    Command, Drawn, NEIGHBOURS_MAX, Outcome, STEPS_MAX, STRIDE_MAX, Tag, Turn, WALKERS_MAX, Walks,
};
use sim::swarm::{Swarm, Terms, Watcher};

use crate::claim::{Bound, Claim, Control, Figure, Findings, Kind, Parameter, Run};
use crate::graph::{Graph, shuffled};
use crate::plot::{Axis, Mark, Plot, Series};

/// The claim.
pub static CLAIM: Claim = Claim {
    name: "walk",
    statement: "In a random d-regular graph of n nodes of which r hold a key, random walkers that take T steps together \
                find it with a probability of 1 − exp(−(r/n)·T·(d−2)/(d−1)), within 2 points for every T: one step in \
                d−1 leads to a node already seen. Walkers that do not turn back find it with 1 − exp(−(r/n)·T). In a \
                graph with hubs, walkers steered as Metropolis and Hastings say end at every node equally often, by a \
                chi-square test at one in ten thousand.",
    reference: "Lv, Cao, Cohen, Li & Shenker 2002, Search and replication in unstructured peer-to-peer networks; Alon, \
                Benjamini, Lubetzky & Sodin 2007, Non-backtracking random walks mix faster; Hastings 1970",
    parameters: &[
        Parameter {
            name: "nodes",
            help: "Nodes of the regular graph",
            kind: Kind::Count { default: 20_000, min: 1000, max: 1_000_000 },
        },
        Parameter {
            name: "degree",
            help: "Neighbours of each node",
            kind: Kind::Count { default: 8, min: 3, max: 64 },
        },
        Parameter {
            name: "replicas",
            help: "Nodes that hold a key",
            kind: Kind::Count { default: 20, min: 1, max: 100_000 },
        },
        Parameter {
            name: "walkers",
            help: "Walkers of a search",
            kind: Kind::Count { default: 8, min: 1, max: WALKERS_MAX as u64 },
        },
        Parameter {
            name: "steps",
            help: "Steps of each walker",
            kind: Kind::Count { default: 256, min: 16, max: STEPS_MAX as u64 },
        },
        Parameter {
            name: "stride",
            help: "Steps between two checks with the origin",
            kind: Kind::Count { default: 16, min: 1, max: STRIDE_MAX as u64 },
        },
        Parameter {
            name: "searches",
            help: "Searches with each kind of walker",
            kind: Kind::Count { default: 10_000, min: 1000, max: 10_000_000 },
        },
        Parameter {
            name: "uneven",
            help: "Nodes of the graph with hubs",
            kind: Kind::Count { default: 500, min: 50, max: 100_000 },
        },
        Parameter {
            name: "samples",
            help: "Samples drawn from it, at least five for each of its nodes",
            kind: Kind::Count { default: 20_000, min: 250, max: 100_000_000 },
        },
        Parameter {
            name: "mixing",
            help: "Steps of a sample",
            kind: Kind::Count { default: 128, min: 1, max: STEPS_MAX as u64 },
        },
    ],
    small: &[
        ("nodes", "2000"),
        ("replicas", "20"),
        ("walkers", "2"),
        ("steps", "128"),
        ("searches", "6000"),
        ("uneven", "100"),
        ("samples", "2000"),
        ("mixing", "64"),
    ],
    run: measure,
    control: Control {
        statement: "Walkers that do not turn back, judged by the formula for those that do; and samples of a walk that \
                    nobody steers, which ends at a node as often as it has neighbours.",
        run: |run| {
            let searched = Searched::run(run, Turn::Onward);
            let sampled = Sampled::run(run, Drawn::ByDegree);
            let hash = searched.hash.rotate_left(7) ^ sampled.hash;
            let figures = vec![off(&searched, seen_of_any(run)), sampled.figure()];
            Findings { figures, plot: None, trace_hash: hash }
        },
    },
};

/// How many new nodes a step sees that may turn back.
fn seen_of_any(run: &Run<'_>) -> f64 {
    let degree = run.count("degree") as f64;
    (degree - 2.0) / (degree - 1.0)
}

/// A regular graph needs an even number of ends, and room.
fn nodes(run: &Run<'_>) -> u64 {
    let (nodes, degree) = (run.count("nodes"), run.count("degree"));
    nodes + nodes * degree % 2
}

fn off(searched: &Searched, seen: f64) -> Figure {
    let worst = searched.curve.iter().map(|(steps, share)| (share - searched.foretold(*steps, seen)).abs());
    let points = worst.fold(0.0, f64::max) * 100.0;
    Figure::new("farthest from the formula", points, "points", Bound::AtMost(2.0))
}

fn measure(run: &Run<'_>) -> Findings {
    let any = Searched::run(run, Turn::Any);
    let onward = Searched::run(run, Turn::Onward);
    let sampled = Sampled::run(run, Drawn::Evenly);
    let mut hash = 0u64;
    for one in [any.hash, onward.hash, sampled.hash] {
        hash = hash.rotate_left(7) ^ one;
    }
    let found = |one: &Searched| one.curve.last().map_or(f64::NAN, |(_, share)| share * 100.0);
    let figures = vec![
        off(&any, seen_of_any(run)),
        Figure { name: "farthest, not turning back", ..off(&onward, 1.0) },
        Figure::new("found in all steps", found(&any), "%", Bound::Told),
        Figure::new("found in all steps, not turning back", found(&onward), "%", Bound::Told),
        Figure::new("messages a search, checks too", any.messages, "messages", Bound::Told),
        Figure::new("messages a search, not turning back", onward.messages, "messages", Bound::Told),
        Figure::new(
            "messages without a check",
            run.count("walkers") as f64 * run.count("steps") as f64,
            "messages",
            Bound::Told,
        ),
        Figure::new(
            "walks without an end",
            (any.lost + onward.lost + sampled.lost) as f64,
            "walks",
            Bound::Exactly(0.0),
        ),
        sampled.figure(),
        Figure::new("samples", sampled.drawn as f64, "samples", Bound::Told),
        Figure::new("messages a sample", sampled.messages, "messages", Bound::Told),
    ];
    Findings { figures, plot: Some(plot(run, &any, &onward)), trace_hash: hash }
}

/// Microseconds of every edge: walkers keep step, so that the first to find is the one with the fewest steps.
const EDGE_MICROS: u64 = 1000;
/// Points of the curve.
const POINTS: u64 = 16;
/// Keys, each held by replicas of its own.
const KEYS: u64 = 256;
/// Searches and samples that go on together.
const AT_ONCE: u64 = 64;

/// What searches came to.
struct Searched {
    /// The share that had found after so many steps of all walkers.
    curve: Vec<(f64, f64)>,
    /// Replicas a node.
    share: f64,
    messages: f64,
    lost: u64,
    hash: u64,
}

impl Searched {
    /// The probability that `steps` steps together find it, if each sees `seen` new nodes.
    fn foretold(&self, steps: f64, seen: f64) -> f64 {
        1.0 - libm::exp(-self.share * steps * seen)
    }

    fn run(run: &Run<'_>, turn: Turn) -> Searched {
        let count = nodes(run);
        let mut rng = Rng::new(run.seed).fork(1);
        let graph = Graph::regular(count as u32, run.count("degree") as u32, &mut rng);
        let mut swarm = walkers(&graph, run.seed);
        let keys: Vec<Key> = (0..KEYS).map(|n| Key::of(&n.to_be_bytes())).collect();
        let replicas = run.count("replicas").min(count / 2);
        for &key in &keys {
            let mut held = 0;
            while held < replicas {
                let node = swarm.node_mut(rng.below(count) as u32);
                held += u64::from(!node.holds(key) && node.hold(key));
            }
        }
        let (k, steps) = (run.count("walkers"), run.count("steps"));
        let searches = run.count("searches");
        let mut ends = Ends { by_hops: vec![0; steps as usize + 1], ..Ends::default() };
        let mut begun = 0;
        while begun < searches {
            run.progress("searching", begun, searches);
            for _ in 0..AT_ONCE.min(searches - begun) {
                let key = keys[rng.below(KEYS) as usize];
                let node = drawn(count, &swarm, key, &mut rng);
                let command = Command::Search {
                    tag: Tag(begun),
                    key,
                    walkers: k as u8,
                    steps: steps as u16,
                    stride: run.count("stride") as u8,
                    turn,
                };
                swarm.command(swarm.now() + 1, node, command);
                begun += 1;
            }
            // Time for every step and for every check on its way.
            swarm.run(swarm.now() + (steps * 3 + 8) * EDGE_MICROS, &mut ends);
        }
        let mut found = 0;
        let mut curve = Vec::new();
        for (hops, count) in ends.by_hops.iter().enumerate().skip(1) {
            found += count;
            let hops = hops as u64;
            if hops * POINTS / steps > (hops - 1) * POINTS / steps {
                curve.push(((hops * k) as f64, found as f64 / searches as f64));
            }
        }
        Searched {
            curve,
            share: replicas as f64 / count as f64,
            messages: swarm.counts().delivered as f64 / searches as f64,
            lost: searches - ends.ended,
            hash: swarm.hash(),
        }
    }
}

/// A node that does not hold `key`.
fn drawn(count: u64, swarm: &Swarm<Walks<u32>>, key: Key, rng: &mut Rng) -> u32 {
    loop {
        let node = rng.below(count) as u32;
        if !swarm.node(node).holds(key) {
            return node;
        }
    }
}

fn walkers(graph: &Graph, seed: u64) -> Swarm<Walks<u32>> {
    let mut swarm = Swarm::new(Terms { seed, flat: Some(EDGE_MICROS), ..Terms::default() });
    let rng = Rng::new(seed).fork(2);
    for node in 0..graph.nodes() {
        let own = rng.fork(u64::from(node));
        swarm.add(Key::of(&node.to_be_bytes()), Walks::new(node, graph.of(node).to_vec(), own));
    }
    swarm
}

#[derive(Default)]
struct Ends {
    by_hops: Vec<u64>,
    samples: Vec<u64>,
    ended: u64,
}

impl Watcher<Walks<u32>> for Ends {
    fn reported(&mut self, _: Micros, _: u32, outcome: Outcome<u32>) {
        match outcome {
            Outcome::Found { hops, .. } => self.by_hops[usize::from(hops)] += 1,
            Outcome::NotFound { .. } => {}
            Outcome::Sampled { nodes, .. } => {
                nodes.iter().for_each(|&node| self.samples[node as usize] += 1);
            }
            Outcome::Refused { .. } => return,
        }
        self.ended += 1;
    }
}

/// What samples came to.
struct Sampled {
    chi_square: f64,
    most: f64,
    drawn: u64,
    messages: f64,
    lost: u64,
    hash: u64,
}

impl Sampled {
    /// Draws nodes of a graph with hubs, all from one node: what does not mix shows.
    fn run(run: &Run<'_>, drawn: Drawn) -> Sampled {
        let mut rng = Rng::new(run.seed).fork(3);
        let count = run.count("uneven");
        let graph = Graph::preferential(count as u32, 3, NEIGHBOURS_MAX, &mut rng);
        let mut swarm = walkers(&graph, run.seed);
        let mut ends = Ends { samples: vec![0; count as usize], ..Ends::default() };
        let wanted = run.count("samples").max(5 * count).div_ceil(AT_ONCE);
        let (origin, steps) = (shuffled(count as u32, &mut rng)[0], run.count("mixing"));
        for n in 0..wanted {
            run.progress("sampling", n, wanted);
            let command = Command::Sample { tag: Tag(n), count: AT_ONCE as u8, steps: steps as u16, drawn };
            swarm.command(swarm.now() + 1, origin, command);
            // A step that is refused takes two edges.
            swarm.run(swarm.now() + (steps * 4 + 8) * EDGE_MICROS, &mut ends);
        }
        let drawn: u64 = ends.samples.iter().sum();
        let expected = drawn as f64 / count as f64;
        let chi_square = ends.samples.iter().map(|&seen| {
            let off = seen as f64 - expected;
            off * off / expected
        });
        Sampled {
            chi_square: chi_square.sum(),
            most: chi_square_quantile(count as f64 - 1.0),
            drawn,
            messages: swarm.counts().delivered as f64 / drawn as f64,
            lost: wanted - ends.ended,
            hash: swarm.hash(),
        }
    }

    fn figure(&self) -> Figure {
        Figure::new("chi-square of even sampling", self.chi_square, "", Bound::AtMost(self.most))
    }
}

/// What chi-square with so many degrees of freedom exceeds once in ten thousand times (Wilson & Hilferty 1931).
fn chi_square_quantile(freedom: f64) -> f64 {
    /// The normal distribution's quantile.
    const Z: f64 = 3.719;
    let part = 2.0 / (9.0 * freedom);
    let root = 1.0 - part + Z * part.sqrt();
    freedom * root * root * root
}

fn plot(run: &Run<'_>, any: &Searched, onward: &Searched) -> Plot {
    let most = (run.count("walkers") * run.count("steps")) as f64;
    let line = |seen: f64| {
        let steps = (0..=40).map(|n| f64::from(n) / 40.0 * most);
        steps.map(|steps| (steps, any.foretold(steps, seen) * 100.0)).collect()
    };
    let points = |one: &Searched| one.curve.iter().map(|(steps, share)| (*steps, share * 100.0)).collect();
    Plot {
        title: "Searches that found".into(),
        x: Axis::linear("steps of all walkers"),
        y: Axis::linear("found, percent"),
        series: vec![
            Series { name: "measured".into(), mark: Mark::Points, points: points(any) },
            Series { name: "foretold".into(), mark: Mark::Line, points: line(seen_of_any(run)) },
            Series { name: "not turning back".into(), mark: Mark::Points, points: points(onward) },
            Series { name: "foretold for it".into(), mark: Mark::Dashes, points: line(1.0) },
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_is_that_of_the_tables() {
        for (freedom, table) in [(50.0, 95.97), (100.0, 161.32), (500.0, 626.24)] {
            let quantile = chi_square_quantile(freedom);
            assert!((quantile / table - 1.0).abs() < 0.003, "{freedom}: {quantile}");
        }
    }
}
