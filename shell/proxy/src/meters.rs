//! What a proxy counts: requests, errors and durations of each route and endpoint, and why requests were refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use mesh::limit::Priority;
use telemetry::trace::SpanQueue;
use telemetry::{Counter, Distribution, Gauge, Histogram};

use crate::answer::Reason;

/// What one thread counts. Its thread is the only writer.
#[derive(Debug, Default)]
pub struct LoopMeters {
    /// Clients taken.
    pub accepted: Counter,
    /// Clients now.
    pub clients: Gauge,
    /// Connections to endpoints now.
    pub conns: Gauge,
    /// Connections to endpoints that were begun.
    pub connects: Counter,
    /// Times that accepting was paused: too many clients, or no descriptors.
    pub pauses: Counter,
    /// Times that the thread looked at what had happened.
    pub turns: Counter,
    /// Bytes sent to clients.
    pub output_bytes: Counter,
    /// Requests that were tried again.
    pub retries: Counter,
    /// Requests that were answered here, by [`Reason`].
    pub answered: [Counter; Reason::ALL.len()],
    /// Clients that were sent away because they opened and reset streams.
    pub sent_away: Counter,
    /// Clients that were refused because they are not trusted to say whose they are.
    pub untrusted: Counter,
    /// Clients that were trusted and did not say it, or not in time.
    pub unintroduced: Counter,
    /// Requests of which a copy was sent elsewhere.
    pub mirrored: Counter,
    /// Those of which none was: too large, or too many copies under way.
    pub mirrors_dropped: Counter,
    /// Copies that no endpoint has answered.
    pub mirrors_failed: Counter,
    /// TLS connections of clients that were agreed on.
    pub handshakes: Counter,
    /// Those that were not.
    pub handshake_failures: Counter,
    /// Of those: clients of ports for members of the cluster that have proven to be none that may come.
    pub strangers: Counter,
    /// Connections that were ended because the node at their other end is no member any more.
    pub expelled: Counter,
    /// The number of the plan in force.
    pub generation: Gauge,
}

/// What one thread counts of a route.
#[derive(Debug, Default)]
pub struct RouteMeters {
    /// Responses, by the first digit of their status; 0: none, the client went away.
    pub classes: [Counter; 6],
    /// Microseconds from a request's head to the end of its response.
    pub micros: Histogram,
}

/// What one thread counts of an endpoint.
#[derive(Debug, Default)]
pub struct EndpointMeters {
    /// Tries.
    pub requests: Counter,
    /// Those that failed, timeouts included.
    pub failures: Counter,
    /// Those that took too long.
    pub timeouts: Counter,
    /// Tries under way, once a second.
    pub under_way: Gauge,
    /// 1: it is left out because it misbehaves, once a second.
    pub out: Gauge,
    /// Microseconds of a try.
    pub micros: Histogram,
}

/// What one thread tells of a service, once a second.
#[derive(Debug, Default)]
pub struct ServiceMeters {
    /// Tries under way.
    pub requests: Gauge,
    /// Tries that may be under way.
    pub limit: Gauge,
    /// Requests that were not sent to it to spare it, by [`Priority`].
    pub shed: [Counter; Priority::ALL.len()],
    /// Requests that wait for room.
    pub waiting: Gauge,
    /// Requests that have waited or do.
    pub queued: Counter,
    /// Cookies that were set.
    pub stuck: Counter,
    /// Endpoints.
    pub endpoints: Gauge,
    /// Those that may be picked.
    pub usable: Gauge,
    /// Times that an endpoint was left out.
    pub ejections: Counter,
    /// Requests that went to all endpoints because too few were left.
    pub panics: Counter,
    /// 0: the breaker is closed, 1: half-open, 2: open.
    pub breaker: Gauge,
}

type Named<T> = Mutex<BTreeMap<String, Vec<Arc<T>>>>;

/// All figures of a proxy; threads add theirs when something is used for the first time.
#[derive(Debug, Default)]
pub struct Meters {
    loops: Mutex<Vec<Arc<LoopMeters>>>,
    routes: Named<RouteMeters>,
    services: Named<ServiceMeters>,
    endpoints: Mutex<BTreeMap<(String, String), Vec<Arc<EndpointMeters>>>>,
    /// Spans of requests, for who sends them on.
    pub spans: Arc<SpanQueue>,
    /// Configurations that were refused.
    pub refused: Counter,
    /// Times that changed certificates could not be used.
    pub keys_refused: Counter,
}

/// Figures of a route from all threads.
#[derive(Debug)]
pub struct RouteFigures {
    /// Its name.
    pub name: String,
    /// See [`RouteMeters::classes`].
    pub classes: [u64; 6],
    /// See [`RouteMeters::micros`].
    pub micros: Distribution,
}

/// Figures of an endpoint from all threads.
#[derive(Debug)]
pub struct EndpointFigures {
    /// Its service.
    pub service: String,
    /// Its address.
    pub address: String,
    /// Tries, failures, timeouts.
    pub counts: [u64; 3],
    /// Tries under way.
    pub under_way: u64,
    /// Threads that leave it out, of those that have tried it.
    pub out: (u64, u64),
    /// See [`EndpointMeters::micros`].
    pub micros: Distribution,
}

fn held<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is behind it is a list that is whole at any time.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Meters {
    pub(crate) fn of_loop(&self) -> Arc<LoopMeters> {
        let meters = Arc::<LoopMeters>::default();
        held(&self.loops).push(Arc::clone(&meters));
        meters
    }

    pub(crate) fn route(&self, name: &str) -> Arc<RouteMeters> {
        let meters = Arc::<RouteMeters>::default();
        held(&self.routes).entry(name.to_owned()).or_default().push(Arc::clone(&meters));
        meters
    }

    pub(crate) fn service(&self, name: &str) -> Arc<ServiceMeters> {
        let meters = Arc::<ServiceMeters>::default();
        held(&self.services).entry(name.to_owned()).or_default().push(Arc::clone(&meters));
        meters
    }

    pub(crate) fn endpoint(&self, service: &str, address: &str) -> Arc<EndpointMeters> {
        let meters = Arc::<EndpointMeters>::default();
        let key = (service.to_owned(), address.to_owned());
        held(&self.endpoints).entry(key).or_default().push(Arc::clone(&meters));
        meters
    }

    /// A thread has done with an endpoint: its figures go.
    pub(crate) fn forget_endpoint(&self, service: &str, address: &str, meters: &Arc<EndpointMeters>) {
        let mut endpoints = held(&self.endpoints);
        let key = (service.to_owned(), address.to_owned());
        if let Some(list) = endpoints.get_mut(&key) {
            list.retain(|one| !Arc::ptr_eq(one, meters));
            if list.is_empty() {
                endpoints.remove(&key);
            }
        }
    }

    /// A figure of all threads together.
    pub fn sum(&self, figure: impl Fn(&LoopMeters) -> u64) -> u64 {
        held(&self.loops).iter().map(|one| figure(one)).sum()
    }

    /// The number of the plan that is followed; 0: there is none.
    #[must_use]
    pub fn largest_generation(&self) -> u64 {
        held(&self.loops).iter().map(|one| one.generation.get()).max().unwrap_or_default()
    }

    /// Routes that had a request, by name.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteFigures> {
        let figures = |(name, list): (&String, &Vec<Arc<RouteMeters>>)| {
            let mut figures =
                RouteFigures { name: name.clone(), classes: [0; 6], micros: Distribution::default() };
            for one in list {
                figures.classes.iter_mut().zip(&one.classes).for_each(|(sum, class)| *sum += class.get());
                one.micros.read(&mut figures.micros);
            }
            figures
        };
        held(&self.routes).iter().map(figures).collect()
    }

    /// Endpoints that had a request.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointFigures> {
        let figures = |((service, address), list): (&(String, String), &Vec<Arc<EndpointMeters>>)| {
            let (mut counts, mut micros) = ([0; 3], Distribution::default());
            let under_way = list.iter().map(|one| one.under_way.get()).sum();
            let out = (list.iter().map(|one| one.out.get()).sum(), list.len() as u64);
            for one in list {
                let here = [&one.requests, &one.failures, &one.timeouts];
                counts.iter_mut().zip(here).for_each(|(sum, count)| *sum += count.get());
                one.micros.read(&mut micros);
            }
            let (service, address) = (service.clone(), address.clone());
            EndpointFigures { service, address, counts, under_way, out, micros }
        };
        held(&self.endpoints).iter().map(figures).collect()
    }

    /// Services, by name, with a figure of all threads: their sum, or the largest.
    #[must_use]
    pub fn services(&self, figure: fn(&ServiceMeters) -> u64, largest: bool) -> Vec<(String, u64)> {
        let of = |(name, list): (&String, &Vec<Arc<ServiceMeters>>)| {
            let figures = list.iter().map(|one| figure(one));
            (name.clone(), if largest { figures.max().unwrap_or_default() } else { figures.sum() })
        };
        held(&self.services).iter().map(of).collect()
    }
}
