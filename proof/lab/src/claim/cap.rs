//! A split net: the majority goes on, the minority says no in bounded time, and nothing acknowledged is lost.

use check::client::How;
use sim::cluster::split::{Divided, Side, Terms, Told, run as divide};

use crate::claim::{Bound, Claim, Control, Figure, Findings, Kind, Parameter, Run};
use crate::plot::{Axis, Mark, Plot, Series};

/// The claim.
pub static CLAIM: Claim = Claim {
    name: "cap",
    statement: "No store is linearizable and answers at every node while messages are lost. A `primary` keyspace is \
                linearizable: while the net is split the majority goes on after a new leader is chosen, the minority \
                answers nothing and says so within a bound, to readers too, and after the split every node answers \
                again and nothing that was acknowledged is lost.",
    reference: "Gilbert & Lynch 2002, Brewer's conjecture and the feasibility of consistent, available, \
                partition-tolerant web services",
    parameters: &[
        Parameter { name: "mode", help: "How the keyspace is kept", kind: Kind::Choice(&["primary"]) },
        Parameter {
            name: "runs",
            help: "Clusters whose net is split, each with a seed of its own",
            kind: Kind::Count { default: 200, min: 10, max: 100_000 },
        },
        Parameter {
            name: "nodes",
            help: "Nodes of each; the smaller half is cut off",
            kind: Kind::Count { default: 3, min: 3, max: 9 },
        },
        Parameter {
            name: "clients",
            help: "Clients of each node",
            kind: Kind::Count { default: 2, min: 1, max: 8 },
        },
        Parameter {
            name: "seconds",
            help: "How long the net is split",
            kind: Kind::Count { default: 15, min: 13, max: 120 },
        },
    ],
    small: &[("runs", "10"), ("seconds", "13")],
    run: |run| measure(run, Reads::Linearizable, run.count("runs")),
    control: Control {
        statement: "Clients say READONLY, so that each node answers from the copy it has: the minority goes on \
                    reading, and what it reads is stale.",
        run: |run| measure(run, Reads::Copies, run.count("runs").min(50)),
    },
};

/// Who answers reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// Who leads, once a majority says that it does.
    Linearizable,
    /// Any copy.
    Copies,
}

/// Before the split, and after it.
const CALM_MICROS: u64 = 5_000_000;
/// Who led stands down after an election timeout of at most 1.2 s, and clients wait five seconds more; who looks for a
/// leader does so for five seconds. The rest is that of clocks and the net.
const WAIT_SECONDS_MAX: f64 = 7.0;
/// After this long the majority has a leader that all of it know.
const CHOSEN_MICROS: u64 = 5_000_000;
/// One point of the plot.
const STEP_MICROS: u64 = 500_000;

fn measure(run: &Run<'_>, reads: Reads, runs: u64) -> Findings {
    let terms = Terms {
        nodes: run.count("nodes") as usize,
        clients: run.count("clients") as usize,
        calm_micros: CALM_MICROS,
        split_micros: run.count("seconds") * 1_000_000,
        copies: reads == Reads::Copies,
    };
    let mut found = Found::new(terms);
    let mut seeds = kernel::Rng::new(run.seed).fork(1);
    for n in 0..runs {
        run.progress("splits", n, runs);
        match divide(seeds.next_u64(), terms) {
            Ok(divided) => found.take(&divided),
            Err(_) => found.broken += 1,
        }
    }
    Findings { figures: found.figures(), plot: Some(found.plot()), trace_hash: found.hash }
}

/// How many of those that were asked were answered.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    asked: u64,
    answered: u64,
}

impl Share {
    fn count(&mut self, told: &Told) {
        self.asked += 1;
        self.answered += u64::from(told.how == How::Answered);
    }

    fn of_one(self) -> f64 {
        self.answered as f64 / self.asked as f64
    }
}

/// What the runs showed.
struct Found {
    cut: u64,
    mend: u64,
    anomalies: u64,
    broken: u64,
    hard: u64,
    hash: u64,
    operations: u64,
    /// Unknown ends at the majority and at the minority.
    unknown: [u64; 2],
    /// Asked at the minority and answered, both while it was cut off.
    answered_alone: u64,
    /// The longest that anybody there waited while it was cut off, and the sum over runs of the first refusals.
    waited: u64,
    refused_first: u64,
    refused_runs: u64,
    /// Of the majority, once it had time to choose; and the longest until it answered something asked after the cut.
    going_on: Share,
    chosen: u64,
    /// The longest after the split until a client of the minority was answered.
    back: u64,
    /// By the time of asking, of the majority and the minority.
    steps: Vec<[Share; 2]>,
}

impl Found {
    fn new(terms: Terms) -> Found {
        let (cut, mend) = (terms.calm_micros, terms.calm_micros + terms.split_micros);
        let steps = vec![[Share::default(); 2]; ((mend + cut) / STEP_MICROS) as usize];
        Found {
            cut,
            mend,
            anomalies: 0,
            broken: 0,
            hard: 0,
            hash: 0,
            operations: 0,
            unknown: [0; 2],
            answered_alone: 0,
            waited: 0,
            refused_first: 0,
            refused_runs: 0,
            going_on: Share::default(),
            chosen: 0,
            back: 0,
            steps,
        }
    }

    fn take(&mut self, divided: &Divided) {
        let Divided { outcome, told, anomaly } = divided;
        self.anomalies += u64::from(anomaly.is_some());
        self.hard += outcome.hard;
        self.hash = self.hash.rotate_left(7) ^ outcome.hash;
        self.operations += told.len() as u64;
        for one in told {
            let side = usize::from(one.side == Side::Minority);
            self.unknown[side] += u64::from(one.how == How::Unknown);
            if let Some(step) = self.steps.get_mut((one.called / STEP_MICROS) as usize) {
                step[side].count(one);
            }
            match one.side {
                Side::Majority if one.called >= self.cut + CHOSEN_MICROS && one.called < self.mend => {
                    self.going_on.count(one);
                }
                Side::Majority => {}
                Side::Minority => self.alone(one),
            }
        }
        // Whoever is never answered again is so until the end of time.
        let first = |side: Side, after: u64| {
            let mut own = told.iter().filter(|one| one.side == side && one.called >= after);
            own.find(|one| one.how == How::Answered).map_or(u64::MAX, |one| one.at - after)
        };
        self.chosen = self.chosen.max(first(Side::Majority, self.cut));
        self.back = self.back.max(first(Side::Minority, self.mend));
        let refused = told.iter().find(|one| {
            one.side == Side::Minority && one.at >= self.cut && one.at < self.mend && one.how == How::Refused
        });
        if let Some(refused) = refused {
            self.refused_first += refused.at - self.cut;
            self.refused_runs += 1;
        }
    }

    /// An operation at the minority, as far as it was cut off meanwhile.
    fn alone(&mut self, one: &Told) {
        let (from, until) = (one.called.max(self.cut), one.at.min(self.mend));
        self.waited = self.waited.max(until.saturating_sub(from));
        let whole = one.called >= self.cut && one.at < self.mend;
        self.answered_alone += u64::from(whole && one.how == How::Answered);
    }

    fn figures(&self) -> Vec<Figure> {
        let count = |name, value: u64, unit, bound| Figure::new(name, value as f64, unit, bound);
        let seconds = |name, micros: f64, bound| Figure::new(name, micros / 1e6, "s", bound);
        let none = Bound::Exactly(0.0);
        vec![
            count("histories that are not linearizable", self.anomalies, "runs", none),
            count("histories too hard to judge", self.hard, "keys", none),
            count("runs that broke another promise", self.broken, "runs", none),
            count("answered by a minority", self.answered_alone, "answers", none),
            seconds("longest wait at a minority", self.waited as f64, Bound::AtMost(WAIT_SECONDS_MAX)),
            seconds(
                "until a minority first refuses, on average",
                self.refused_first as f64 / self.refused_runs as f64,
                Bound::AtMost(WAIT_SECONDS_MAX),
            ),
            Figure::new(
                "answered by a majority, 5 s after the split",
                self.going_on.of_one(),
                "share",
                Bound::AtLeast(0.99),
            ),
            seconds("longest until a majority answers", self.chosen as f64, Bound::AtMost(5.0)),
            seconds("longest until a minority answers again", self.back as f64, Bound::AtMost(5.0)),
            count("unknown at a majority", self.unknown[0], "outcomes", Bound::Told),
            count("unknown at a minority", self.unknown[1], "outcomes", Bound::Told),
            count("operations", self.operations, "operations", Bound::Told),
        ]
    }

    fn plot(&self) -> Plot {
        let line = |side: usize| {
            let middle = |at: usize| (at as f64 + 0.5) * STEP_MICROS as f64;
            let steps = self.steps.iter().enumerate().filter(|(_, step)| step[side].asked > 0);
            steps
                .map(|(at, step)| ((middle(at) - self.cut as f64) / 1e6, step[side].of_one() * 100.0))
                .collect()
        };
        let split = (self.mend - self.cut) as f64 / 1e6;
        let series = |name: &str, mark, points| Series { name: name.into(), mark, points };
        Plot {
            title: "What each side of a split net is answered".into(),
            x: Axis::linear("asked so many seconds after the split"),
            y: Axis::linear("answered, percent"),
            series: vec![
                series("majority", Mark::Line, line(0)),
                series("minority", Mark::Points, line(1)),
                series("split", Mark::Dashes, vec![(0.0, 0.0), (0.0, 100.0), (split, 100.0), (split, 0.0)]),
            ],
        }
    }
}
