//! The proxy's part of the metrics: rate, errors and duration of routes and endpoints.

use mesh::limit::Priority;
use proxy::{LoopMeters, Meters, Reason};
use telemetry::{Exposition, Unit};

use crate::cluster::board::Standing;

type LoopFigure = fn(&LoopMeters) -> u64;

/// Name, kind, help and figure of each metric of the proxy's threads.
const LOOPS: [(&str, &str, &str, LoopFigure); 18] = [
    ("archipel_proxy_accepted_total", "counter", "Clients taken.", |m| m.accepted.get()),
    ("archipel_proxy_clients", "gauge", "Clients connected.", |m| m.clients.get()),
    ("archipel_proxy_connections", "gauge", "Connections to endpoints.", |m| m.conns.get()),
    ("archipel_proxy_connects_total", "counter", "Connections begun to endpoints.", |m| m.connects.get()),
    ("archipel_proxy_accept_pauses_total", "counter", "Times that accepting paused.", |m| m.pauses.get()),
    ("archipel_proxy_turns_total", "counter", "Looks of a thread at what happened.", |m| m.turns.get()),
    ("archipel_proxy_output_bytes_total", "counter", "Bytes of responses.", |m| m.output_bytes.get()),
    ("archipel_proxy_handshakes_total", "counter", "Clients' TLS agreed on.", |m| m.handshakes.get()),
    ("archipel_proxy_handshake_failures_total", "counter", "Clients' TLS that was not.", |m| {
        m.handshake_failures.get()
    }),
    ("archipel_proxy_strangers_total", "counter", "Clients that are no members, where members come.", |m| {
        m.strangers.get()
    }),
    ("archipel_proxy_expelled_total", "counter", "Connections of nodes that were members, ended.", |m| {
        m.expelled.get()
    }),
    ("archipel_proxy_untrusted_total", "counter", "Clients that may not say whose they are.", |m| {
        m.untrusted.get()
    }),
    (
        "archipel_proxy_unintroduced_total",
        "counter",
        "Clients that must say whose they are and did not.",
        |m| m.unintroduced.get(),
    ),
    ("archipel_proxy_mirrored_total", "counter", "Requests copied for another service.", |m| {
        m.mirrored.get()
    }),
    ("archipel_proxy_mirrors_dropped_total", "counter", "Copies not made: too large, or too many.", |m| {
        m.mirrors_dropped.get()
    }),
    ("archipel_proxy_mirrors_failed_total", "counter", "Copies that no endpoint answered.", |m| {
        m.mirrors_failed.get()
    }),
    ("archipel_proxy_sent_away_total", "counter", "Clients that opened and reset streams.", |m| {
        m.sent_away.get()
    }),
    ("archipel_proxy_retries_total", "counter", "Tries that followed a failed one.", |m| m.retries.get()),
];

type ServiceFigure = fn(&proxy::ServiceMeters) -> u64;

/// Name, kind, help, whether the largest of all threads counts instead of the sum, and figure of each metric of services.
const SERVICES: [(&str, &str, &str, bool, ServiceFigure); 10] = [
    ("archipel_proxy_service_requests", "gauge", "Tries under way.", false, |m| m.requests.get()),
    ("archipel_proxy_service_limit", "gauge", "Tries that may be under way.", false, |m| m.limit.get()),
    ("archipel_proxy_service_waiting", "gauge", "Requests that wait for room.", false, |m| m.waiting.get()),
    ("archipel_proxy_service_queued_total", "counter", "Requests that waited for room.", false, |m| {
        m.queued.get()
    }),
    ("archipel_proxy_service_cookies_total", "counter", "Clients told where to stay.", false, |m| {
        m.stuck.get()
    }),
    ("archipel_proxy_service_endpoints", "gauge", "Endpoints.", true, |m| m.endpoints.get()),
    ("archipel_proxy_service_usable", "gauge", "Endpoints that may be picked.", true, |m| m.usable.get()),
    ("archipel_proxy_service_ejections_total", "counter", "Endpoints left out so far.", false, |m| {
        m.ejections.get()
    }),
    (
        "archipel_proxy_service_panics_total",
        "counter",
        "Requests that went to all, for few were left.",
        false,
        |m| m.panics.get(),
    ),
    ("archipel_proxy_service_breaker", "gauge", "0 closed, 1 half-open, 2 open.", true, |m| m.breaker.get()),
];

/// Writes them, if there is or was a proxy.
pub(super) fn write(page: &mut Exposition, meters: &Meters) {
    let generation = meters.largest_generation();
    page.counter(
        "archipel_proxy_refused_configurations_total",
        "Configurations refused.",
        meters.refused.get(),
    );
    page.counter(
        "archipel_proxy_refused_certificates_total",
        "Changed certificates that could not be used.",
        meters.keys_refused.get(),
    );
    if generation == 0 {
        return;
    }
    page.gauge("archipel_proxy_generation", "Number of the configuration that is followed.", generation);
    for (name, kind, help, figure) in LOOPS {
        page.family(name, kind, help);
        page.sample(name, &[], meters.sum(figure));
    }
    let name = "archipel_proxy_answered_total";
    page.family(name, "counter", "Requests that the proxy answered itself, by reason.");
    for reason in Reason::ALL {
        page.sample(name, &[("reason", reason.word())], meters.sum(|m| m.answered[reason as usize].get()));
    }
    for (name, kind, help, largest, figure) in SERVICES {
        page.family(name, kind, help);
        for (service, value) in meters.services(figure, largest) {
            page.sample(name, &[("service", &service)], value);
        }
    }
    let name = "archipel_proxy_service_shed_total";
    page.family(name, "counter", "Requests not sent to spare the service, by priority.");
    for (class, figure) in SHED {
        for (service, value) in meters.services(figure, false) {
            page.sample(name, &[("service", &service), ("priority", class.word())], value);
        }
    }
    routes(page, meters);
    endpoints(page, meters);
}

/// What was shed of each priority.
pub(super) const SHED: [(Priority, ServiceFigure); 3] = [
    (Priority::High, |m| m.shed[Priority::High as usize].get()),
    (Priority::Normal, |m| m.shed[Priority::Normal as usize].get()),
    (Priority::Low, |m| m.shed[Priority::Low as usize].get()),
];

/// How far the proxy follows its cluster's settings.
pub(super) fn write_standing(page: &mut Exposition, standing: &Standing) {
    page.gauge(
        "archipel_proxy_revision_wanted",
        "The cluster's revision of the proxies' settings; 0: none.",
        standing.wanted,
    );
    page.gauge(
        "archipel_proxy_revision",
        "The revision that is followed; 0: the node's own file.",
        standing.follows,
    );
    page.gauge(
        "archipel_proxy_revision_refused",
        "1 while this node cannot follow the cluster's revision.",
        u8::from(standing.why.is_some()),
    );
}

/// What a class of statuses is called.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

fn routes(page: &mut Exposition, meters: &Meters) {
    let routes = meters.routes();
    let name = "archipel_proxy_requests_total";
    page.family(name, "counter", "Requests by route and class of their status; none: the client went away.");
    for route in &routes {
        for (class, count) in CLASSES.iter().zip(route.classes) {
            page.sample(name, &[("route", &route.name), ("class", class)], count);
        }
    }
    let name = "archipel_proxy_request_seconds";
    page.family(name, "histogram", "Time from a request's head to the end of its response.");
    for route in &routes {
        page.buckets(name, &[("route", &route.name)], Unit::Micros, &route.micros);
    }
}

fn endpoints(page: &mut Exposition, meters: &Meters) {
    let endpoints = meters.endpoints();
    let kinds = [
        ("archipel_proxy_tries_total", "Tries of requests, by endpoint."),
        ("archipel_proxy_failures_total", "Tries that failed, timeouts included."),
        ("archipel_proxy_timeouts_total", "Tries that took too long."),
    ];
    for (at, (name, help)) in kinds.into_iter().enumerate() {
        page.family(name, "counter", help);
        for one in &endpoints {
            page.sample(name, &[("service", &one.service), ("endpoint", &one.address)], one.counts[at]);
        }
    }
    let name = "archipel_proxy_try_seconds";
    page.family(name, "histogram", "Time of a try.");
    for one in &endpoints {
        let labels = [("service", one.service.as_str()), ("endpoint", one.address.as_str())];
        page.buckets(name, &labels, Unit::Micros, &one.micros);
    }
}
