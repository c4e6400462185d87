//! What a service still does when more is asked of it than it can do, and who gets it.

use std::collections::{BTreeMap, VecDeque};

use kernel::hash::KeyHasher;
use kernel::{Micros, Rng};
use mesh::Outcome;
use mesh::balance::Endpoint;
use mesh::breaker::{BreakerOptions, Refused};
use mesh::limit::{AdaptiveOptions, Priority};
use mesh::queue::{Place, QueueOptions};
use mesh::upstream::{Refusal, Ticket, Told, Turn, Upstream, UpstreamOptions, Wanted};

use crate::claim::{Bound, Claim, Control, Figure, Findings, Kind, Parameter, Run, median};
use crate::plot::{Axis, Mark, Plot, Series};

/// The claim.
pub static CLAIM: Claim = Claim {
    name: "overload",
    statement: "A service that is asked for three times what it can do still ends nine tenths of what it ends at best within \
                the tenth of a second that its clients wait: the mesh learns how many requests it works on at once, lets no \
                more in, and says no to the others early. One of five requests is important; of these 99 of 100 take no \
                more than twice what they take of an idle service, and next to none is sent away.",
    reference: "Heiss and Wagner 1991, Adaptive load control in transaction processing systems; Netflix's concurrency-limits",
    parameters: &[
        Parameter {
            name: "seconds",
            help: "How long each load lasts, in virtual time; the first quarter is not counted",
            kind: Kind::Count { default: 80, min: 20, max: 100_000 },
        },
        Parameter {
            name: "seeds",
            help: "How often all of it is run; a figure is the median",
            kind: Kind::Count { default: 5, min: 5, max: 1000 },
        },
        Parameter {
            name: "workers",
            help: "Requests that the service works on at once, which the mesh does not know",
            kind: Kind::Count { default: 8, min: 4, max: 1000 },
        },
    ],
    small: &[("seconds", "20")],
    run: |run| measure(run, learnt()),
    control: Control {
        statement: "All that comes is let in, and waits at the service.",
        run: |run| measure(run, unbounded()),
    },
};

/// The mean time of a request; each takes half to one and a half times as long, in microseconds.
const TIME: f64 = 10_000.0;
/// What a client waits for an answer, in microseconds: later ones are worth nothing.
const PATIENCE: u64 = 100_000;
/// How long a request may wait in the mesh, in milliseconds.
const WAIT_MS: u64 = 50;
/// Requests that may.
const PLACES: u32 = 64;
/// The share of important requests.
const HIGH: f64 = 0.2;
/// What is asked for, as a share of what the service can do.
const LOADS: [f64; 7] = [0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0];
/// The load of an idle service.
const IDLE: f64 = 0.1;

fn learnt() -> UpstreamOptions {
    UpstreamOptions {
        adaptive: Some(AdaptiveOptions::default()),
        queue: QueueOptions { places: PLACES, wait_ms: WAIT_MS },
        ..UpstreamOptions::default()
    }
}

fn unbounded() -> UpstreamOptions {
    let breaker = BreakerOptions { requests_max: u32::MAX, ..BreakerOptions::default() };
    UpstreamOptions { breaker, ..UpstreamOptions::default() }
}

fn measure(run: &Run<'_>, options: UpstreamOptions) -> Findings {
    let idle = Runs::new(run, "idle", options, IDLE);
    let all = LOADS.map(|load| Runs::new(run, "judged", options, load));
    let peak = |seed: usize| all.iter().map(|runs| runs.0[seed].goodput()).fold(0.0, f64::max);
    let last = &all[LOADS.len() - 1];
    let of_peak = median((0..last.0.len()).map(|seed| last.0[seed].goodput() / peak(seed)));
    let slower = median(last.0.iter().zip(&idle.0).map(|(seen, idle)| seen.high_p99() / idle.high_p99()));
    let told = |name, value, unit| Figure::new(name, value, unit, Bound::Told);
    let figures = vec![
        told("idle: p99 of important requests", median(idle.0.iter().map(Seen::high_p99)) / 1e3, "ms"),
        told("load 1: in time, of what it can do", all[2].middle(Seen::goodput), "times"),
        Figure::new("load 3: in time / the most of any load", of_peak, "times", Bound::AtLeast(0.9)),
        Figure::new("load 3: p99 of important requests / idle", slower, "times", Bound::AtMost(2.0)),
        Figure::new(
            "load 3: important requests sent away",
            last.middle(|seen| seen.shed_percent(Priority::High)),
            "%",
            Bound::AtMost(0.5),
        ),
        told("load 3: others sent away", last.middle(|seen| seen.shed_percent(Priority::Normal)), "%"),
        told("load 3: answers that come too late", last.middle(Seen::late_percent), "%"),
        told("load 3: the limit / what it works on at once", last.middle(|seen| seen.limit), "times"),
    ];
    let hash = [&idle].into_iter().chain(&all).fold(0, |hash, runs| runs.mix_into(hash));
    Findings { figures, plot: Some(plot(run, &all)), trace_hash: hash }
}

fn plot(run: &Run<'_>, all: &[Runs]) -> Plot {
    let points = |runs: &[Runs]| -> Vec<(f64, f64)> {
        LOADS.into_iter().zip(runs.iter().map(|runs| runs.middle(Seen::goodput))).collect()
    };
    let without = LOADS.map(|load| Runs::new(run, "without a limit", unbounded(), load));
    let ideal = LOADS.into_iter().map(|load| (load, load.min(1.0))).collect();
    let one = |name: &str, mark, points| Series { name: name.into(), mark, points };
    Plot {
        title: "What is answered in time, by what is asked for".into(),
        x: Axis::linear("asked for / what the service can do"),
        y: Axis::linear("answered in time / what the service can do"),
        series: vec![
            one("judged", Mark::Points, points(all)),
            one("without a limit", Mark::Line, points(&without)),
            one("ideal", Mark::Dashes, ideal),
        ],
    }
}

/// One load, with each seed.
struct Runs(Vec<Seen>);

impl Runs {
    fn new(run: &Run<'_>, what: &str, options: UpstreamOptions, load: f64) -> Runs {
        let seeds = run.count("seeds");
        let one = |n: u64| {
            run.progress(what, n, seeds);
            let seed = KeyHasher::new(run.seed).hash(&n.to_le_bytes());
            World::new(options, run.count("workers") as usize, load, seed).run(run.count("seconds"))
        };
        Runs((0..seeds).map(one).collect())
    }

    fn middle(&self, figure: impl Fn(&Seen) -> f64) -> f64 {
        median(self.0.iter().map(figure))
    }

    fn mix_into(&self, hash: u64) -> u64 {
        self.0.iter().fold(hash, |hash, seen| KeyHasher::new(hash).hash(&seen.hash.to_le_bytes()))
    }
}

/// What became of requests.
#[derive(Default)]
struct Seen {
    /// What the service could have ended.
    could: f64,
    in_time: u64,
    late: u64,
    /// Of important requests that were answered, in microseconds.
    high: Vec<u64>,
    /// By priority.
    came: [u64; 3],
    shed: [u64; 3],
    /// The mean of the limit, by what the service works on at once.
    limit: f64,
    hash: u64,
}

impl Seen {
    fn goodput(&self) -> f64 {
        self.in_time as f64 / self.could
    }

    fn high_p99(&self) -> f64 {
        let mut micros = self.high.clone();
        micros.sort_unstable();
        micros.get(micros.len() * 99 / 100).map_or(f64::NAN, |&micros| micros as f64)
    }

    fn shed_percent(&self, class: Priority) -> f64 {
        self.shed[class as usize] as f64 * 100.0 / self.came[class as usize] as f64
    }

    fn late_percent(&self) -> f64 {
        self.late as f64 * 100.0 / (self.late + self.in_time) as f64
    }
}

#[derive(Clone, Copy)]
struct Request {
    came: Micros,
    class: Priority,
}

enum Happening {
    Comes,
    Done(Request, Ticket),
    /// A request has waited for as long as it may.
    GivesUp(u64),
}

struct World {
    upstream: Upstream,
    rng: Rng,
    workers: usize,
    /// Between two requests, in microseconds.
    gap: f64,
    now: Micros,
    /// By time, and in the order in which they were foreseen.
    ahead: BTreeMap<(Micros, u64), Happening>,
    number: u64,
    /// In the mesh.
    waiting: BTreeMap<u64, (Request, Place)>,
    /// At the service.
    inside: VecDeque<(Request, Ticket)>,
    busy: usize,
    seen: Seen,
}

impl World {
    fn new(options: UpstreamOptions, workers: usize, load: f64, seed: u64) -> World {
        let mut upstream = Upstream::new(options, Micros(0), seed);
        let endpoint = Endpoint { name: 1, weight: 1, zone: 0 };
        upstream.set_endpoints(Micros(0), &[Told { id: 1, endpoint, healthy: true }]);
        World {
            upstream,
            rng: Rng::new(seed).fork(1),
            workers,
            gap: TIME / workers as f64 / load,
            now: Micros(0),
            ahead: BTreeMap::new(),
            number: 0,
            waiting: BTreeMap::new(),
            inside: VecDeque::new(),
            busy: 0,
            seen: Seen::default(),
        }
    }

    fn run(mut self, seconds: u64) -> Seen {
        let (begin, end) = (Micros(seconds * 250_000), Micros(seconds * 1_000_000));
        let (mut counted, mut sum, mut samples) = (false, 0.0, 0.0);
        self.foresee(0.0, Happening::Comes);
        while let Some(((now, _), happening)) = self.ahead.pop_first() {
            if now >= end {
                break;
            }
            self.now = now;
            if now >= begin && !counted {
                (counted, self.seen) = (true, Seen { hash: self.seen.hash, ..Seen::default() });
            }
            match happening {
                Happening::Comes => {
                    self.comes();
                    let gap = -libm::log(self.unit()) * self.gap;
                    self.foresee(gap, Happening::Comes);
                    (sum, samples) = (sum + f64::from(self.upstream.limit()), samples + f64::from(counted));
                    sum *= f64::from(counted);
                }
                Happening::Done(request, ticket) => self.done(request, ticket),
                Happening::GivesUp(id) => {
                    if let Some((request, place)) = self.waiting.remove(&id) {
                        self.upstream.unqueue(place);
                        self.seen.shed[request.class as usize] += 1;
                        self.grant();
                    }
                }
            }
        }
        self.seen.could = self.workers as f64 * end.since(begin) as f64 / TIME;
        self.seen.limit = sum / samples / self.workers as f64;
        self.seen
    }

    /// From 53 bits, and never 0.
    fn unit(&mut self) -> f64 {
        ((self.rng.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    fn foresee(&mut self, micros: f64, happening: Happening) {
        self.number += 1;
        // Rounded: cut off, many short gaps would come to more load than is asked for.
        self.ahead.insert((self.now + (micros + 0.5) as u64, self.number), happening);
    }

    fn comes(&mut self) {
        let class = if self.unit() <= HIGH { Priority::High } else { Priority::Normal };
        let request = Request { came: self.now, class };
        self.seen.came[class as usize] += 1;
        self.upstream.request();
        match self.upstream.enter_as(self.now, &Wanted::default()) {
            Ok(ticket) => self.let_in(request, ticket),
            Err(Refusal::Breaker(Refused::TooMany { .. })) => self.wait(request),
            Err(_) => self.seen.shed[class as usize] += 1,
        }
    }

    fn wait(&mut self, request: Request) {
        let id = self.number;
        match self.upstream.queue(self.now, request.class, id) {
            Ok(waits) => {
                let gone = waits.displaced.and_then(|who| self.waiting.remove(&who));
                gone.into_iter().for_each(|(gone, _)| self.seen.shed[gone.class as usize] += 1);
                self.waiting.insert(id, (request, waits.place));
                self.foresee((WAIT_MS * 1_000) as f64, Happening::GivesUp(id));
            }
            Err(_) => self.seen.shed[request.class as usize] += 1,
        }
    }

    fn grant(&mut self) {
        while let Some(who) = self.upstream.grant(self.now) {
            let (request, _) = self.waiting.remove(&who).expect("who is granted room waits");
            let granted = Wanted { turn: Turn::Granted, ..Wanted::default() };
            match self.upstream.enter_as(self.now, &granted) {
                Ok(ticket) => self.let_in(request, ticket),
                Err(_) => self.seen.shed[request.class as usize] += 1,
            }
        }
    }

    fn let_in(&mut self, request: Request, ticket: Ticket) {
        self.inside.push_back((request, ticket));
        self.work();
    }

    fn work(&mut self) {
        while self.busy < self.workers {
            let Some((request, ticket)) = self.inside.pop_front() else { return };
            self.busy += 1;
            let micros = TIME * (0.5 + self.unit());
            self.foresee(micros, Happening::Done(request, ticket));
        }
    }

    fn done(&mut self, request: Request, ticket: Ticket) {
        self.busy -= 1;
        self.upstream.leave(self.now, ticket, Outcome::Success);
        let micros = self.now.since(request.came);
        let words = [self.seen.hash, request.class as u64, micros].map(u64::to_le_bytes).concat();
        self.seen.hash = KeyHasher::new(0).hash(&words);
        if micros <= PATIENCE {
            self.seen.in_time += 1;
        } else {
            self.seen.late += 1;
        }
        if request.class == Priority::High {
            self.seen.high.push(micros);
        }
        self.work();
        self.grant();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_loses_no_request() {
        for (options, load) in [(learnt(), 3.0), (learnt(), 0.5), (unbounded(), 2.0)] {
            let seen = World::new(options, 8, load, 1).run(20);
            let [came, shed] = [&seen.came, &seen.shed].map(|counts| counts.iter().sum::<u64>());
            // What came before it was counted ends afterwards, and the other way round.
            let at_once = if load > 1.5 && shed == 0 { came } else { 200 };
            assert!((seen.in_time + seen.late + shed).abs_diff(came) <= at_once, "{load}");
            let could = seen.could as u64;
            assert!(seen.in_time + seen.late <= could + could / 50, "it ends no more than it can");
        }
    }
}
