//! Where requests go when an endpoint is slow, when slowness moves, and when one fails faster than the others work.

use kernel::Micros;
use kernel::hash::KeyHasher;
use mesh::balance::Policy;
use mesh::outlier::OutlierOptions;
use mesh::upstream::UpstreamOptions;

use crate::claim::{Bound, Claim, Control, Figure, Findings, Kind, Parameter, Run, median};
use crate::plot::{Axis, Mark, Plot, Series};
use crate::service::{Mood, Seen, Service};

/// The claim.
pub static CLAIM: Claim = Claim {
    name: "balance",
    statement: "Of five endpoints one is four times slower. Where requests go to the least expected wait (peak EWMA), 99 of \
                100 are answered in half the time that round robin takes, under which the slow one is overloaded, and \
                in four fifths of what the fewest requests under way take. When another endpoint is slow every five \
                seconds it takes half and no more. Where all are alike it is no worse. An endpoint that fails in a millisecond, and so always looks idle, takes less \
                than 2 of 100 requests with it.",
    reference: "Mitzenmacher 2001, The power of two choices in randomized load balancing; Finagle's peak EWMA",
    parameters: &[
        Parameter {
            name: "requests",
            help: "Requests of each policy, in each of the four scenarios, for each seed",
            kind: Kind::Count { default: 50_000, min: 5_000, max: 10_000_000 },
        },
        Parameter {
            name: "seeds",
            help: "How often all of it is run; a figure is the median",
            kind: Kind::Count { default: 5, min: 5, max: 1000 },
        },
        Parameter {
            name: "load",
            help: "Requests, as a share of what the endpoints can do with one of them slow",
            kind: Kind::Share { default: 0.5, max: 0.9 },
        },
    ],
    small: &[("requests", "20000")],
    run: |run| measure(run, Policy::PeakEwma, OutlierOptions::default()),
    control: Control {
        statement: "Requests go to one endpoint after the other, and none is left out that fails.",
        run: |run| {
            let never = OutlierOptions { consecutive: 0, deviations_tenths: 0, ..OutlierOptions::default() };
            measure(run, Policy::RoundRobin, never)
        },
    },
};

const ENDPOINTS: usize = 5;
const WORKERS: u32 = 4;
/// What an ordinary endpoint takes for a request, in microseconds.
const TIME: f64 = 10_000.0;
/// How many times as long the slow one takes.
const SLOW: f64 = 4.0;
/// Which one is slow, or fails.
const THIRD: usize = 2;
/// How long slowness stays at one endpoint, in microseconds.
const STAYS: u64 = 5_000_000;

/// What befalls the endpoints.
struct Scenario {
    mood: fn(usize, Micros) -> Mood,
    /// The 99th percentile with each of [`POLICIES`].
    told: [&'static str; POLICIES.len()],
}

/// The policies of the table; the first is the one that others are held against.
const POLICIES: [(Policy, &str); 4] = [
    (Policy::RoundRobin, "round robin"),
    (Policy::Random, "random"),
    (Policy::LeastRequests, "fewest under way"),
    (Policy::TwoChoices, "two choices"),
];
/// Of these.
const ROBIN: usize = 0;
const LEAST: usize = 2;

const ALIKE: Scenario = Scenario {
    mood: |_, _| Mood::Takes(1.0),
    told: [
        "alike: p99, round robin",
        "alike: p99, random",
        "alike: p99, fewest under way",
        "alike: p99, two choices",
    ],
};
const ONE_SLOW: Scenario = Scenario {
    mood: |at, _| Mood::Takes(if at == THIRD { SLOW } else { 1.0 }),
    told: [
        "one slow: p99, round robin",
        "one slow: p99, random",
        "one slow: p99, fewest under way",
        "one slow: p99, two choices",
    ],
};
const MOVING: Scenario = Scenario {
    mood: |at, now| Mood::Takes(if (now.0 / STAYS) as usize % ENDPOINTS == at { SLOW } else { 1.0 }),
    told: [
        "slowness moves: p99, round robin",
        "slowness moves: p99, random",
        "slowness moves: p99, fewest under way",
        "slowness moves: p99, two choices",
    ],
};
/// Figures of the policy that is judged: its p99, and beside round robin and the fewest under way.
const JUDGED: [(&Scenario, [&str; 3], [Bound; 2]); 3] = [
    (
        &ALIKE,
        ["alike: p99, judged", "alike: p99 / round robin", "alike: p99 / fewest under way"],
        // As good, but for chance.
        [Bound::AtMost(1.1), Bound::AtMost(1.1)],
    ),
    (
        &ONE_SLOW,
        ["one slow: p99, judged", "one slow: p99 / round robin", "one slow: p99 / fewest under way"],
        [Bound::AtMost(0.5), Bound::AtMost(0.8)],
    ),
    (
        &MOVING,
        [
            "slowness moves: p99, judged",
            "slowness moves: p99 / round robin",
            "slowness moves: p99 / fewest under way",
        ],
        [Bound::AtMost(0.5), Bound::AtMost(1.0)],
    ),
];

fn measure(run: &Run<'_>, policy: Policy, outliers: OutlierOptions) -> Findings {
    let judged = UpstreamOptions { policy, outliers, ..UpstreamOptions::default() };
    let (mut figures, mut hash, mut plot) = (Vec::new(), 0, None);
    for (scenario, names, bounds) in JUDGED {
        let ours = Runs::new(run, names[0], judged, scenario.mood);
        let others = POLICIES.map(|(policy, name)| {
            Runs::new(run, name, UpstreamOptions { policy, ..UpstreamOptions::default() }, scenario.mood)
        });
        figures.push(Figure::new(names[0], ours.p99(), "ms", Bound::Told));
        for (runs, name) in others.iter().zip(scenario.told) {
            figures.push(Figure::new(name, runs.p99(), "ms", Bound::Told));
        }
        for ((peer, name), bound) in [ROBIN, LEAST].into_iter().zip(&names[1..]).zip(bounds) {
            figures.push(Figure::new(name, ours.beside(&others[peer]), "times", bound));
        }
        hash = others.iter().chain([&ours]).fold(hash, Runs::mix);
        if plot.is_none() && names[0] == JUDGED[1].1[0] {
            plot = Some(tail(&ours, &others));
        }
    }
    let hole =
        Runs::new(run, "one fails", judged, |at, _| if at == THIRD { Mood::Fails } else { Mood::Takes(1.0) });
    figures.push(Figure::new(
        "one fails at once: failed requests",
        hole.failed_percent(),
        "%",
        Bound::AtMost(2.0),
    ));
    Findings { figures, plot, trace_hash: hole.mix_into(hash) }
}

/// One policy in one scenario, with each seed.
struct Runs(Vec<Seen>);

impl Runs {
    fn new(run: &Run<'_>, what: &str, options: UpstreamOptions, mood: fn(usize, Micros) -> Mood) -> Runs {
        let capacity = f64::from(WORKERS) * ((ENDPOINTS - 1) as f64 + 1.0 / SLOW) * 1e6 / TIME;
        let rate = capacity * run.share("load");
        let service = Service { options, endpoints: ENDPOINTS, workers: WORKERS, time: TIME, rate, mood };
        let seeds = run.count("seeds");
        let one = |n| {
            run.progress(what, n, seeds);
            service.run(KeyHasher::new(run.seed).hash(&n.to_le_bytes()), run.count("requests"))
        };
        Runs((0..seeds).map(one).collect())
    }

    fn p99(&self) -> f64 {
        median(self.0.iter().map(|seen| seen.millis(0.99)))
    }

    fn beside(&self, other: &Runs) -> f64 {
        median(self.0.iter().zip(&other.0).map(|(us, other)| us.millis(0.99) / other.millis(0.99)))
    }

    fn failed_percent(&self) -> f64 {
        median(self.0.iter().map(Seen::failed_percent))
    }

    fn mix(hash: u64, runs: &Runs) -> u64 {
        runs.mix_into(hash)
    }

    fn mix_into(&self, hash: u64) -> u64 {
        self.0.iter().fold(hash, |hash, seen| KeyHasher::new(hash).hash(&seen.hash.to_le_bytes()))
    }
}

/// How many requests take longer than so long, with one endpoint slow.
fn tail(ours: &Runs, others: &[Runs]) -> Plot {
    let points = |runs: &Runs| -> Vec<(f64, f64)> {
        let share = |step: i32| 1.0 - libm::pow(10.0, -f64::from(step) / 4.0);
        runs.0[..1]
            .iter()
            .flat_map(|seen| (1..=12).map(move |step| (seen.millis(share(step)), 1.0 - share(step))))
            .collect()
    };
    let named = POLICIES.iter().map(|(_, name)| (*name).to_owned());
    let mut series = vec![Series { name: "judged".into(), mark: Mark::Points, points: points(ours) }];
    let lines = others.iter().zip(named);
    series.extend(lines.map(|(runs, name)| Series { name, mark: Mark::Line, points: points(runs) }));
    Plot {
        title: "With one of five endpoints four times slower".into(),
        x: Axis::log("milliseconds"),
        y: Axis::log("share of the requests that take longer"),
        series,
    }
}
