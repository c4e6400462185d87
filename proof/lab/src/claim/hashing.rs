//! Keys spread as chance does, a ring of one token is as uneven as theory says, and a join moves no more than it must.

use std::collections::BTreeMap;

use kernel::Rng;
use kernel::hash::KeyHasher;
use placement::ring::{Member, Point, Ring, capacity};
use placement::solve::{Problem, Site, Zone, moves, solve};
use placement::{Partitions, Slot};

use crate::claim::{Bound, Claim, Control, Figure, Findings, Kind, Parameter, Run};
use crate::plot::{Axis, Mark, Plot, Series};

/// The claim.
pub static CLAIM: Claim = Claim {
    name: "hashing",
    statement: "CRC16 spreads keys over slots as chance does. On a ring with one token each, the fullest of k nodes \
                has H_k times the mean (the k-th harmonic number), with 256 tokens 1.10, 1.16 and 1.21 times for 10, \
                100 and 1000 nodes, and never more than its bound where loads are bounded. When an eleventh node \
                joins ten, a ring and the placement of partitions move at most 1.05 times what they must, and from \
                nobody to nobody else. Losing a zone leaves every partition a copy.",
    reference: "Karger et al. 1997, Consistent hashing and random trees; Mirrokni, Thorup & Zadimoghaddam 2018, \
                Consistent hashing with bounded loads; the Redis Cluster specification",
    parameters: &[
        Parameter {
            name: "rings",
            help: "Rings of 1000 nodes with one token each; smaller ones are drawn more often, fuller ones less",
            kind: Kind::Count { default: 1000, min: 100, max: 1_000_000 },
        },
        Parameter {
            name: "keys",
            help: "Keys that are spread and moved",
            kind: Kind::Count { default: 1_000_000, min: 100_000, max: 100_000_000 },
        },
        Parameter {
            name: "partitions",
            help: "Partitions that are placed on nodes",
            kind: Kind::Count { default: 256, min: 64, max: 4096 },
        },
    ],
    small: &[("rings", "200"), ("keys", "100000"), ("partitions", "64")],
    run: measure,
    control: Control {
        statement: "A key belongs to the node whose number is its hash modulo their count: nearly all keys move.",
        run: |run| {
            let join = Join::measure(run, |members| {
                let members = members.to_vec();
                move |key| members[(key.0 % members.len() as u64) as usize]
            });
            Findings { figures: join.figures().to_vec(), plot: None, trace_hash: join.hash }
        },
    },
};

/// Nodes before and after the join.
const BEFORE: usize = 10;
const AFTER: usize = BEFORE + 1;
/// Tokens of a node where balance matters.
const TOKENS: u16 = 256;
/// Rings in which a node joins; each has its part of the keys.
const JOINS: u64 = 50;
/// How much above the mean a node may be where loads are bounded, per cent.
const OVER: u32 = 25;
/// Copies of a partition.
const COPIES: usize = 3;

/// Rings of one kind, and how uneven they are foretold to be.
struct Row {
    name: &'static str,
    tokens: u16,
    nodes: usize,
    expected: f64,
    /// How many are drawn for each of `rings`, as a fraction.
    drawn: (u64, u64),
}

/// With one token the mean of the maximum is H_k; with 256 it is a maximum of k sums of 256 spacings.
const ROWS: [Row; 6] = [
    Row { name: "10 nodes, 1 token: max/mean", tokens: 1, nodes: 10, expected: 2.93, drawn: (10, 1) },
    Row { name: "100 nodes, 1 token: max/mean", tokens: 1, nodes: 100, expected: 5.19, drawn: (3, 1) },
    Row { name: "1000 nodes, 1 token: max/mean", tokens: 1, nodes: 1000, expected: 7.49, drawn: (1, 1) },
    Row { name: "10 nodes, 256 tokens: max/mean", tokens: TOKENS, nodes: 10, expected: 1.10, drawn: (1, 4) },
    Row {
        name: "100 nodes, 256 tokens: max/mean",
        tokens: TOKENS,
        nodes: 100,
        expected: 1.16,
        drawn: (1, 20),
    },
    Row {
        name: "1000 nodes, 256 tokens: max/mean",
        tokens: TOKENS,
        nodes: 1000,
        expected: 1.21,
        drawn: (1, 100),
    },
];
/// How far a mean over rings may be off.
const OFF: f64 = 0.03;
/// How much more than it must a join may move.
const MOVED_MAX: f64 = 1.05;

/// A node of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named([u8; 8]);

impl Member for Named {
    fn name(&self) -> &[u8] {
        &self.0
    }
}

fn named(rng: &mut Rng, count: usize) -> Vec<Named> {
    (0..count).map(|_| Named(rng.next_u64().to_be_bytes())).collect()
}

fn ring(members: &[Named], tokens: u16) -> Ring<Named> {
    Ring::new(members.iter().map(|&member| (member, tokens)))
}

fn mix(hash: u64, value: u64) -> u64 {
    KeyHasher::new(hash).hash(&value.to_le_bytes())
}

fn measure(run: &Run<'_>) -> Findings {
    let mut figures = spread(run).to_vec();
    let mut hash = 0;
    let mut measured = Vec::new();
    for (n, row) in ROWS.iter().enumerate() {
        let uneven = row.measure(run, n as u64);
        hash = mix(hash, uneven.to_bits());
        measured.push((row, uneven));
        let bound = Bound::Within(row.expected * (1.0 - OFF), row.expected * (1.0 + OFF));
        figures.push(Figure::new(row.name, uneven, "times", bound));
    }
    figures.extend(bounded(run));
    let join = Join::measure(run, |members| {
        let ring = ring(members, TOKENS);
        move |key| ring.owner(key).expect("a ring of members has an owner for each key")
    });
    figures.extend(join.figures());
    let placed = Placed::measure(run);
    figures.extend(placed.figures());
    hash = mix(mix(hash, join.hash), placed.hash);
    Findings { figures, plot: Some(plot(&measured)), trace_hash: hash }
}

/// How evenly CRC16 puts keys into slots and partitions.
fn spread(run: &Run<'_>) -> [Figure; 2] {
    let (keys, mut rng) = (run.count("keys"), Rng::new(run.seed).fork(1));
    run.progress("slots", 0, 1);
    let mut slots = vec![0_u64; usize::from(Slot::COUNT)];
    let partitions = Partitions::new(64).expect("64 is a number of partitions");
    let mut filled = vec![0_u64; usize::from(partitions.count())];
    for _ in 0..keys {
        let slot = Slot::of(format!("user:{}:name", rng.next_u64()).as_bytes());
        slots[usize::from(slot.number())] += 1;
        filled[usize::from(partitions.of(slot))] += 1;
    }
    let mean = keys as f64 / slots.len() as f64;
    let squares: f64 = slots.iter().map(|&count| (count as f64 - mean).powi(2) / mean).sum();
    let free = (slots.len() - 1) as f64;
    let chi = squares / free;
    // Five standard deviations of what independent uniform keys show.
    let off = 5.0 * (2.0 / free).sqrt();
    let share = keys as f64 / filled.len() as f64;
    let fullest = filled.iter().copied().max().unwrap_or(0) as f64 / share;
    [
        Figure::new("keys in slots: chi² a degree of freedom", chi, "", Bound::Within(1.0 - off, 1.0 + off)),
        Figure::new(
            "keys in 64 partitions: max/mean",
            fullest,
            "times",
            Bound::AtMost(1.0 + 5.0 / share.sqrt()),
        ),
    ]
}

impl Row {
    /// The mean over rings of the fullest node's share, in means.
    fn measure(&self, run: &Run<'_>, stream: u64) -> f64 {
        let mut rng = Rng::new(run.seed).fork(100 + stream);
        let rings = (run.count("rings") * self.drawn.0 / self.drawn.1).max(4);
        let mut sum = 0.0;
        for n in 0..rings {
            if n % 64 == 0 {
                run.progress(self.name, n, rings);
            }
            let shares = ring(&named(&mut rng, self.nodes), self.tokens).shares();
            sum += shares.into_iter().fold(0.0, f64::max) * self.nodes as f64;
        }
        sum / rings as f64
    }
}

/// The fullest node of an uneven ring, with and without bounded loads.
fn bounded(run: &Run<'_>) -> [Figure; 2] {
    let mut rng = Rng::new(run.seed).fork(2);
    let keys = run.count("keys") / JOINS;
    let members = named(&mut rng, BEFORE);
    let ring = ring(&members, 16);
    let (mut loads, mut free) = (BTreeMap::new(), BTreeMap::new());
    for number in 0..keys {
        let key = Point(rng.next_u64());
        let most = capacity(number + 1, members.len(), OVER);
        let picked = ring.bounded(key, most, |one| loads.get(&one).copied().unwrap_or(0));
        *loads.entry(picked.expect("there is room for one more")).or_insert(0_u64) += 1;
        *free.entry(ring.owner(key)).or_insert(0_u64) += 1;
    }
    let mean = keys as f64 / members.len() as f64;
    let most = capacity(keys, members.len(), OVER) as f64 / mean;
    let fullest = loads.into_values().max().unwrap_or(0) as f64 / mean;
    let without = free.into_values().max().unwrap_or(0) as f64 / mean;
    [
        Figure::new("loads bounded at 1.25: max/mean", fullest, "times", Bound::AtMost(most)),
        Figure::new("the same ring without bounds: max/mean", without, "times", Bound::Told),
    ]
}

/// What moves when an eleventh node joins ten.
struct Join {
    moved: u64,
    /// From one old node to another.
    astray: u64,
    keys: u64,
    hash: u64,
}

impl Join {
    /// `owners` makes of members what says the owner of each key.
    fn measure<F: Fn(Point) -> Named>(run: &Run<'_>, owners: impl Fn(&[Named]) -> F) -> Join {
        let mut rng = Rng::new(run.seed).fork(3);
        let each = run.count("keys") / JOINS;
        let mut join = Join { moved: 0, astray: 0, keys: each * JOINS, hash: 0 };
        for n in 0..JOINS {
            run.progress("joins", n, JOINS);
            let members = named(&mut rng, AFTER);
            let (before, after) = (owners(&members[..BEFORE]), owners(&members));
            for _ in 0..each {
                let key = Point(rng.next_u64());
                let (old, new) = (before(key), after(key));
                join.moved += u64::from(old != new);
                join.astray += u64::from(old != new && new != members[BEFORE]);
            }
            join.hash = mix(join.hash, join.moved);
        }
        join
    }

    fn figures(&self) -> [Figure; 3] {
        let share = self.moved as f64 / self.keys as f64;
        [
            Figure::new(
                "keys moved by a join, in ideals",
                share * AFTER as f64,
                "times",
                Bound::AtMost(MOVED_MAX),
            ),
            Figure::new("keys moved by a join", share * 100.0, "%", Bound::Told),
            Figure::new("keys moved between old nodes", self.astray as f64, "keys", Bound::Exactly(0.0)),
        ]
    }
}

/// What the placement of partitions does with joins and losses.
struct Placed {
    moved: f64,
    fullest: f64,
    leading: f64,
    bare: u64,
    hash: u64,
}

impl Placed {
    fn measure(run: &Run<'_>) -> Placed {
        let partitions = run.count("partitions") as usize;
        run.progress("placement", 0, 2);
        let site = |zones: u16| move |node: u16| Site { node, zone: Zone(node % zones), load: 0, leads: 0 };
        let place = |sites: &[Site<u16>], current: &[Vec<u16>]| {
            let problem = Problem { sites, copies: COPIES, current };
            solve(&problem).expect("the parameters are within the solver's bounds")
        };
        let sites: Vec<_> = (0..AFTER as u16).map(site(1)).collect();
        let before = place(&sites[..BEFORE], &vec![Vec::new(); partitions]);
        let after = place(&sites, &before);
        let copies = (partitions * COPIES) as f64;
        run.progress("placement", 1, 2);
        let zoned: Vec<_> = (0..9).map(site(3)).collect();
        let spread = place(&zoned, &vec![Vec::new(); partitions]);
        let bare =
            |zone: u16| spread.iter().filter(|has| has.iter().all(|node| node % 3 == zone)).count() as u64;
        let words = after.iter().flatten().chain(spread.iter().flatten());
        Placed {
            moved: moves(&before, &after) as f64 * AFTER as f64 / copies,
            fullest: fullest(after.iter().flatten()) * AFTER as f64 / copies,
            leading: fullest(after.iter().filter_map(|has| has.first())) * AFTER as f64 / partitions as f64,
            bare: (0..3).map(bare).sum(),
            // The placement depends on the problem alone, which no seed changes.
            hash: words.fold(0, |hash, &node| mix(hash, u64::from(node))),
        }
    }

    fn figures(&self) -> [Figure; 4] {
        [
            Figure::new("copies moved by a join, in ideals", self.moved, "times", Bound::AtMost(MOVED_MAX)),
            Figure::new("copies on 11 nodes: max/mean", self.fullest, "times", Bound::AtMost(1.06)),
            Figure::new("partitions led by 11 nodes: max/mean", self.leading, "times", Bound::Told),
            Figure::new(
                "partitions without a copy, a zone lost",
                self.bare as f64,
                "partitions",
                Bound::Exactly(0.0),
            ),
        ]
    }
}

/// How often the node that is named most is.
fn fullest<'a>(nodes: impl Iterator<Item = &'a u16>) -> f64 {
    let mut counts = BTreeMap::new();
    nodes.for_each(|node| *counts.entry(node).or_insert(0_u32) += 1);
    f64::from(counts.into_values().max().unwrap_or(0))
}

fn plot(measured: &[(&Row, f64)]) -> Plot {
    let points = |tokens: u16| {
        let own = measured.iter().filter(|(row, _)| row.tokens == tokens);
        own.map(|(row, uneven)| (row.nodes as f64, *uneven)).collect()
    };
    let harmonic = |nodes: u32| (f64::from(nodes), (1..=nodes).map(|n| 1.0 / f64::from(n)).sum());
    Plot {
        title: "How much more than the mean the fullest node has".into(),
        x: Axis::log("nodes"),
        y: Axis::linear("max/mean of what nodes own"),
        series: vec![
            Series { name: "1 token".into(), mark: Mark::Points, points: points(1) },
            Series {
                name: "H_k".into(),
                mark: Mark::Line,
                points: [10, 18, 32, 56, 100, 178, 316, 562, 1000].map(harmonic).to_vec(),
            },
            Series { name: "256 tokens".into(), mark: Mark::Points, points: points(TOKENS) },
        ],
    }
}
