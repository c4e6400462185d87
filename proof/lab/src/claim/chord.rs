//! Chord routes in half of log2 N hops, finds every key with half of the nodes dead, and its ring stays a ring.

mod churn;
mod lookups;
mod meeting;
mod original;
mod zave;

use crate::claim::{Bound, Claim, Control, Figure, Findings, Kind, Parameter, Run};
use crate::plot::{Axis, Mark, Plot, Series};
use lookups::{Lookups, Settled};
use original::Original;
use p2p::chord::Chord;

/// The claim.
pub static CLAIM: Claim = Claim {
    name: "chord",
    statement: "A lookup in a settled ring of N nodes takes ½·log2 N hops on average, and at most one more with the \
                last hop to the owner counted and successor lists used. With half of the nodes dead at once and \
                nothing mended, every lookup still finds the first living node after its key. Under Zave's \
                assumptions the protocol keeps her invariant after every single event, and after churn with \
                delayed and lost messages the ring becomes ideal again. Two rings of which one node meets another \
                become one.",
    reference: "Stoica, Morris, Karger, Kaashoek & Balakrishnan 2001, Chord; Zave 2017, Reasoning about identifier \
                spaces: how to make Chord correct",
    parameters: &[
        Parameter {
            name: "nodes",
            help: "Nodes of the largest settled ring",
            kind: Kind::Count { default: 100_000, min: 1000, max: 4_000_000 },
        },
        Parameter {
            name: "lookups",
            help: "Lookups in each settled ring",
            kind: Kind::Count { default: 20_000, min: 100, max: 10_000_000 },
        },
        Parameter {
            name: "successors",
            help: "Length of the successor list",
            kind: Kind::Count { default: 2, min: 2, max: 32 },
        },
        Parameter {
            name: "fail",
            help: "The share of nodes that dies before the lookups",
            kind: Kind::Share { default: 0.0, max: 0.6 },
        },
        Parameter {
            name: "events",
            help: "Random events after each of which Zave's invariant is checked",
            kind: Kind::Count { default: 1_000_000, min: 1000, max: 10_000_000_000 },
        },
        Parameter {
            name: "churned",
            help: "Nodes of the ring that churns, with messages delayed and lost, and of the two rings that meet",
            kind: Kind::Count { default: 500, min: 20, max: 100_000 },
        },
    ],
    small: &[("nodes", "16000"), ("lookups", "8000"), ("events", "60000"), ("churned", "60")],
    run: measure,
    control: Control {
        statement: "The Chord of 2001 under the same random events: Zave's invariant is broken.",
        run: |run| {
            let found = zave::run::<Original>(run, run.count("events").min(200_000));
            Findings { figures: vec![invariant(&found)], plot: None, trace_hash: found.hash }
        },
    },
};

fn invariant(found: &zave::Found) -> Figure {
    Figure::new("events that broke Zave's invariant", found.broken as f64, "events", Bound::Exactly(0.0))
}

fn measure(run: &Run<'_>) -> Findings {
    let (nodes, fail) = (run.count("nodes"), run.share("fail"));
    let half = |nodes: f64| nodes.log2() / 2.0;
    let mut hash = 0u64;
    let mut found = Vec::new();
    let sizes = if fail > 0.0 { vec![nodes] } else { sizes(nodes) };
    for (n, &size) in sizes.iter().enumerate() {
        let lookups = Lookups::run(run, &Settled::draw(size, run), n as u64);
        hash = hash.rotate_left(7) ^ lookups.hash;
        found.push(lookups);
    }
    let last = found.last().expect("there is at least one size");
    let half_last = half(nodes as f64);
    let (mean, p99) = (last.mean(), last.quantile(0.99));
    let bounds = if fail > 0.0 {
        // Stoica's figure for a thousand nodes, half of them dead: what is left of the fingers leads around.
        (Bound::AtMost(half_last + 0.52), Bound::Told)
    } else {
        (Bound::Within(half_last, half_last + 1.0), Bound::AtMost(17.0))
    };
    let all = |of: fn(&Lookups) -> u64| found.iter().map(of).sum::<u64>() as f64;
    let mut figures = vec![
        Figure::new("mean hops", mean, "hops", bounds.0),
        Figure::new("99th percentile of hops", p99, "hops", bounds.1),
        Figure::new("wrong owners", all(|one| one.wrong), "lookups", Bound::Exactly(0.0)),
        Figure::new("failed lookups", all(|one| one.failed), "lookups", Bound::Exactly(0.0)),
        Figure::new("lookups", all(|one| one.ended()), "lookups", Bound::Told),
        Figure::new("timeouts a lookup", last.timeouts as f64 / last.ended() as f64, "timeouts", Bound::Told),
        Figure::new("mean time of a lookup", last.mean_ms(), "ms", Bound::Told),
    ];
    if sizes.len() > 1 {
        let points: Vec<_> =
            sizes.iter().zip(&found).map(|(&size, one)| ((size as f64).log2(), one.mean())).collect();
        figures.push(Figure::new("slope of hops over log2 N", slope(&points), "", Bound::Within(0.48, 0.52)));
    }
    let atomic = zave::run::<Chord<u32>>(run, run.count("events"));
    let churn = churn::run(run);
    let meeting = meeting::run(run);
    hash = hash.rotate_left(7) ^ atomic.hash.rotate_left(7) ^ churn.hash ^ meeting.hash.rotate_left(11);
    figures.extend([
        invariant(&atomic),
        Figure::new("random events", atomic.events as f64, "events", Bound::Told),
        Figure::new("rings not ideal when left alone", atomic.unhealed as f64, "rings", Bound::Exactly(0.0)),
        Figure::new("sessions ended by churn", churn.deaths as f64, "sessions", Bound::Told),
        Figure::new("nodes off the ideal ring after churn", churn.off as f64, "nodes", Bound::Exactly(0.0)),
        Figure::new("nodes off the one ring after two met", meeting.off as f64, "nodes", Bound::Exactly(0.0)),
        Figure::new("time until two rings are one", meeting.seconds as f64, "s", Bound::Told),
    ]);
    let measured = sizes.iter().zip(&found).map(|(&size, one)| (size as f64, one.mean())).collect();
    let ends = [sizes[0] as f64, nodes as f64];
    Findings { figures, plot: Some(plot(measured, ends, half)), trace_hash: hash }
}

/// Powers of ten from a thousand on, half steps between, and `nodes` itself.
fn sizes(nodes: u64) -> Vec<u64> {
    let steps = [1_000, 3_162, 10_000, 31_623, 100_000, 316_228, 1_000_000, 3_162_278];
    let mut sizes: Vec<u64> = steps.into_iter().filter(|&size| size < nodes).collect();
    sizes.push(nodes);
    sizes
}

/// The slope of the line through `points` with the least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
    let (over, under) = points.iter().fold((0.0, 0.0), |(over, under), point| {
        (over + (point.0 - x) * (point.1 - y), under + (point.0 - x) * (point.0 - x))
    });
    over / under
}

fn plot(measured: Vec<(f64, f64)>, ends: [f64; 2], half: impl Fn(f64) -> f64) -> Plot {
    let line = |more: f64| ends.iter().map(|&nodes| (nodes, half(nodes) + more)).collect();
    Plot {
        title: "Hops of a lookup".into(),
        x: Axis::log("nodes"),
        y: Axis::linear("mean hops"),
        series: vec![
            Series { name: "measured".into(), mark: Mark::Points, points: measured },
            Series { name: "½·log2 N".into(), mark: Mark::Line, points: line(0.0) },
            Series { name: "½·log2 N + 1".into(), mark: Mark::Dashes, points: line(1.0) },
        ],
    }
}
