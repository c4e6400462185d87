//! A service in virtual time: requests come as chance has it, go where the mesh sends them, and wait at an endpoint until one
//! of its workers is free.

use std::collections::{BTreeMap, VecDeque};

use kernel::hash::KeyHasher;
use kernel::{Micros, Rng};
use mesh::Outcome;
use mesh::balance::Endpoint;
use mesh::upstream::{Ticket, Told, Upstream, UpstreamOptions};

/// A service and what befalls it.
#[derive(Clone, Copy)]
pub struct Service {
    /// What decides where a request goes.
    pub options: UpstreamOptions,
    /// How many endpoints.
    pub endpoints: usize,
    /// Requests that one of them works on at once.
    pub workers: u32,
    /// The mean time for a request, which is drawn from an exponential distribution, in microseconds.
    pub time: f64,
    /// Requests that come in a second, in all, as a Poisson process.
    pub rate: f64,
    /// How an endpoint is at a time.
    pub mood: fn(usize, Micros) -> Mood,
}

/// How an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    /// It takes so many times as long as usual.
    Takes(f64),
    /// It answers with a failure at once, nearly.
    Fails,
}

/// What an endpoint takes for a failure, in microseconds.
const FAILURE: f64 = 1000.0;

/// What became of requests.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// From coming to the answer, of those that were answered well, in microseconds, ascending.
    pub micros: Vec<u64>,
    /// Those that failed, or were not let in.
    pub failed: u64,
    /// Of everything that happened.
    pub hash: u64,
}

impl Seen {
    /// The time in milliseconds that so large a share of the requests is below.
    #[must_use]
    pub fn millis(&self, share: f64) -> f64 {
        let at = (self.micros.len() as f64 * share) as usize;
        let at = at.min(self.micros.len().saturating_sub(1));
        self.micros.get(at).map_or(f64::NAN, |&micros| micros as f64 / 1000.0)
    }

    /// The mean in milliseconds.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.micros.iter().sum::<u64>() as f64 / self.micros.len() as f64 / 1000.0
    }

    /// Failures in per cent.
    #[must_use]
    pub fn failed_percent(&self) -> f64 {
        self.failed as f64 * 100.0 / (self.failed + self.micros.len() as u64) as f64
    }
}

/// A request at an endpoint.
struct Request {
    came: Micros,
    ticket: Ticket,
}

enum Happening {
    Comes,
    /// One of an endpoint's workers is done with it.
    Done(usize, Request, Outcome),
}

struct World<'a> {
    service: &'a Service,
    upstream: Upstream,
    rng: Rng,
    now: Micros,
    /// By time, and in the order in which they were foreseen.
    ahead: BTreeMap<(Micros, u64), Happening>,
    foreseen: u64,
    free: Vec<u32>,
    waiting: Vec<VecDeque<Request>>,
    seen: Seen,
}

impl Service {
    /// So many requests, the first tenth of which is not counted: the service learns.
    #[must_use]
    pub fn run(&self, seed: u64, requests: u64) -> Seen {
        let mut upstream = Upstream::new(self.options, Micros(0), seed);
        let told = |id: u32| Told {
            id,
            endpoint: Endpoint { name: u64::from(id), weight: 1, zone: 0 },
            healthy: true,
        };
        upstream.set_endpoints(Micros(0), &(0..self.endpoints as u32).map(told).collect::<Vec<_>>());
        let mut world = World {
            service: self,
            upstream,
            rng: Rng::new(seed).fork(1),
            now: Micros(0),
            ahead: BTreeMap::new(),
            foreseen: 0,
            free: vec![self.workers; self.endpoints],
            waiting: (0..self.endpoints).map(|_| VecDeque::new()).collect(),
            seen: Seen::default(),
        };
        world.foresee(0.0, Happening::Comes);
        let mut left = requests + requests / 10;
        while let Some(((now, _), happening)) = world.ahead.pop_first() {
            world.now = now;
            match happening {
                Happening::Comes => {
                    left -= 1;
                    if left == requests {
                        world.seen = Seen { hash: world.seen.hash, ..Seen::default() };
                    }
                    world.comes();
                    if left > 0 {
                        let gap = world.exponential(1e6 / self.rate);
                        world.foresee(gap, Happening::Comes);
                    }
                }
                Happening::Done(at, request, outcome) => world.done(at, request, outcome),
            }
        }
        world.seen.micros.sort_unstable();
        world.seen
    }
}

impl World<'_> {
    fn foresee(&mut self, micros: f64, happening: Happening) {
        self.foreseen += 1;
        // Rounded: cut off, many short gaps would come to more load than is asked for.
        self.ahead.insert((self.now + (micros + 0.5) as u64, self.foreseen), happening);
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        // From 53 bits, and never 0.
        let unit = ((self.rng.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -libm::log(unit) * mean
    }

    fn comes(&mut self) {
        self.upstream.request();
        match self.upstream.enter(self.now, None, None) {
            Ok(ticket) => {
                let at = ticket.id as usize;
                let request = Request { came: self.now, ticket };
                if self.free[at] > 0 {
                    self.free[at] -= 1;
                    self.work(at, request);
                } else {
                    self.waiting[at].push_back(request);
                }
            }
            Err(_) => self.seen.failed += 1,
        }
    }

    fn work(&mut self, at: usize, request: Request) {
        let (micros, outcome) = match (self.service.mood)(at, self.now) {
            Mood::Takes(times) => (self.exponential(self.service.time * times), Outcome::Success),
            Mood::Fails => (FAILURE, Outcome::Failure),
        };
        self.foresee(micros, Happening::Done(at, request, outcome));
    }

    fn done(&mut self, at: usize, request: Request, outcome: Outcome) {
        self.upstream.leave(self.now, request.ticket, outcome);
        let micros = self.now.since(request.came);
        let words = [self.seen.hash, at as u64, micros].map(u64::to_le_bytes).concat();
        self.seen.hash = KeyHasher::new(0).hash(&words);
        if outcome == Outcome::Success {
            self.seen.micros.push(micros);
        } else {
            self.seen.failed += 1;
        }
        match self.waiting[at].pop_front() {
            Some(next) => self.work(at, next),
            None => self.free[at] += 1,
        }
    }
}
