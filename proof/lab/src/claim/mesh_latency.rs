//! What a request waits for is the endpoints' queues, and these grow as queueing theory says.

use kernel::hash::KeyHasher;
use mesh::balance::Policy;
use mesh::breaker::BreakerOptions;
use mesh::upstream::UpstreamOptions;

use crate::claim::{Bound, Claim, Control, Figure, Findings, Kind, Parameter, Run};
use crate::plot::{Axis, Mark, Plot, Series};
use crate::service::{Mood, Service};

/// The claim.
pub static CLAIM: Claim = Claim {
    name: "mesh-latency",
    statement: "The mesh itself adds no wait: a request takes what queueing theory says of its endpoints. At random over n \
                endpoints of one worker each is an M/M/1 queue, 1/(1-load) times the work; the emptier of two drawn has \
                the sum of load^(2^i-2) times it, which is 1.9 and not 5 at a load of 0.8; one endpoint of four workers \
                has what Erlang's C formula says.",
    reference: "Erlang 1917; Mitzenmacher 2001, The power of two choices in randomized load balancing",
    parameters: &[
        Parameter {
            name: "requests",
            help: "Requests at each load",
            kind: Kind::Count { default: 2_000_000, min: 200_000, max: 100_000_000 },
        },
        Parameter {
            name: "endpoints",
            help: "Endpoints; the theory of two choices is that of infinitely many",
            kind: Kind::Count { default: 200, min: 100, max: 1000 },
        },
    ],
    small: &[("requests", "200000"), ("endpoints", "100")],
    run: |run| measure(run, Policy::TwoChoices),
    control: Control {
        statement: "Where the emptier of two should be taken, one is taken by chance.",
        run: |run| measure(run, Policy::Random),
    },
};

/// What an endpoint takes for a request, in microseconds.
const TIME: f64 = 10_000.0;
/// Workers of the endpoint that Erlang's formula is about.
const WORKERS: u32 = 4;

/// A load, what the figures of its mean are called, and how far they may be off: long queues are correlated, so their means
/// are known less well.
const LOADS: [(f64, [&str; 3], f64); 3] = [
    (
        0.5,
        [
            "random, load 0.5: mean/theory",
            "two choices, load 0.5: mean/theory",
            "4 workers, load 0.5: mean/theory",
        ],
        0.04,
    ),
    (
        0.7,
        [
            "random, load 0.7: mean/theory",
            "two choices, load 0.7: mean/theory",
            "4 workers, load 0.7: mean/theory",
        ],
        0.07,
    ),
    (
        0.8,
        [
            "random, load 0.8: mean/theory",
            "two choices, load 0.8: mean/theory",
            "4 workers, load 0.8: mean/theory",
        ],
        0.11,
    ),
];

fn measure(run: &Run<'_>, two: Policy) -> Findings {
    let (mut figures, mut hash) = (Vec::new(), 0);
    let mut measured: [Vec<(f64, f64)>; 3] = Default::default();
    let many = run.count("endpoints") as usize;
    for (load, names, off) in LOADS {
        let kinds = [
            (Policy::Random, many, 1, alone(load)),
            (two, many, 1, choices(load)),
            (two, 1, WORKERS, erlang(load)),
        ];
        for (((policy, endpoints, workers, theory), name), points) in
            kinds.into_iter().zip(names).zip(&mut measured)
        {
            run.progress(name, 0, 1);
            // Nobody is refused: theory knows no breakers.
            let breaker = BreakerOptions { requests_max: u32::MAX, ..BreakerOptions::default() };
            let options = UpstreamOptions { policy, breaker, ..UpstreamOptions::default() };
            let rate = load * endpoints as f64 * f64::from(workers) * 1e6 / TIME;
            let service =
                Service { options, endpoints, workers, time: TIME, rate, mood: |_, _| Mood::Takes(1.0) };
            let seen = service.run(KeyHasher::new(run.seed).hash(name.as_bytes()), run.count("requests"));
            let mean = seen.mean() * 1000.0 / TIME;
            hash = KeyHasher::new(hash).hash(&seen.hash.to_le_bytes());
            points.push((load, mean));
            figures.push(Figure::new(name, mean / theory, "times", Bound::Within(1.0 - off, 1.0 + off)));
        }
    }
    Findings { figures, plot: Some(plot(measured)), trace_hash: hash }
}

/// Time in an M/M/1 queue, in means of the work.
fn alone(load: f64) -> f64 {
    1.0 / (1.0 - load)
}

/// Time at the emptier of two of infinitely many (Mitzenmacher 2001, theorem 4 with d = 2).
fn choices(load: f64) -> f64 {
    (1..=10).map(|i| libm::pow(load, libm::pow(2.0, f64::from(i)) - 2.0)).sum()
}

/// Time in an M/M/c queue of [`WORKERS`].
fn erlang(load: f64) -> f64 {
    let c = f64::from(WORKERS);
    let offered = load * c;
    let (mut term, mut sum) = (1.0, 0.0);
    for n in 0..WORKERS {
        sum += term;
        term *= offered / f64::from(n + 1);
    }
    let waits = term / (1.0 - load);
    1.0 + waits / (sum + waits) / (c * (1.0 - load))
}

fn plot(measured: [Vec<(f64, f64)>; 3]) -> Plot {
    let line = |theory: fn(f64) -> f64| {
        (1..=18).map(|n| f64::from(n) * 0.05).map(|load| (load, theory(load))).collect()
    };
    let theories: [(&str, fn(f64) -> f64); 3] =
        [("one by chance", alone), ("the emptier of two", choices), ("four workers", erlang)];
    let mut series = Vec::new();
    for ((name, theory), points) in theories.into_iter().zip(measured) {
        series.push(Series { name: name.into(), mark: Mark::Points, points });
        series.push(Series { name: format!("{name}, theory"), mark: Mark::Line, points: line(theory) });
    }
    Plot {
        title: "What a request takes, beside the work that it is".into(),
        x: Axis::linear("load"),
        y: Axis::log("time / work"),
        series,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formulas_are_those_of_the_tables() {
        // Erlang C of 4 servers at 3.6 erlangs is 0.7878; Mitzenmacher's table has 2.6141 for a load of 0.9.
        assert!((erlang(0.9) - (1.0 + 0.7878 / 0.4)).abs() < 1e-3, "{}", erlang(0.9));
        assert!((choices(0.9) - 2.614).abs() < 1e-2, "{}", choices(0.9));
        assert!((alone(0.9) - 10.0).abs() < 1e-9);
    }
}
