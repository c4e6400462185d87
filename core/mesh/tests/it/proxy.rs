//! What a proxy asks of routes and services, and what breaks it.

use kernel::planted::Bug;
use mesh::Outcome;
use mesh::balance::{Endpoint, Policy};
use mesh::limit::Priority;
use mesh::queue::{Queue, QueueOptions};
use mesh::route::{Ask, HostRule, PathRule, Routes, Rule};
use mesh::source::{Network, client};
use mesh::upstream::{Told, Upstream, UpstreamOptions};

use crate::NOW;

/// Those of `Bug::PROXY` that are in this crate; the others are in `wire`.
pub const CHECKS: [(Bug, fn() -> bool); 6] = [
    (Bug::PrefixEndsAnywhere, prefixes_end_with_their_segment),
    (Bug::ShortPrefixFirst, the_longest_prefix_takes_a_request),
    (Bug::ReportOnSuccessor, reports_on_who_is_gone_are_nobody_elses),
    (Bug::EjectedStillPicked, who_is_left_out_is_not_picked),
    (Bug::LeftmostBelieved, what_a_client_says_of_itself_is_not_believed),
    (Bug::QueueServesLast, who_waits_longest_goes_first),
];

fn prefix(path: &str) -> Rule {
    let path = PathRule::prefix(path).expect("it is a path");
    Rule { host: HostRule::Any, path, methods: Vec::new(), fields: Vec::new() }
}

fn taken(path: &str) -> Option<u32> {
    let routes = Routes::new(&[prefix("/a"), prefix("/a/b")]).expect("they are few");
    routes.find(&Ask { host: "", path, method: "GET" }, &|_| false)
}

fn prefixes_end_with_their_segment() -> bool {
    taken("/ab").is_none()
}

fn the_longest_prefix_takes_a_request() -> bool {
    taken("/a/b/c") == Some(1)
}

fn told(id: u32) -> Told {
    Told { id, endpoint: Endpoint { name: u64::from(id), weight: 1, zone: 0 }, healthy: true }
}

fn upstream(ids: std::ops::RangeInclusive<u32>) -> Upstream {
    let options = UpstreamOptions { policy: Policy::RoundRobin, ..UpstreamOptions::default() };
    let mut upstream = Upstream::new(options, NOW, 1);
    upstream.set_endpoints(NOW, &ids.map(told).collect::<Vec<_>>());
    upstream
}

fn reports_on_who_is_gone_are_nobody_elses() -> bool {
    let mut upstream = upstream(1..=3);
    let tickets: Vec<_> =
        (0..30).map(|_| upstream.enter(NOW, None, None).expect("three are usable")).collect();
    // The last one takes the place of the first.
    upstream.set_endpoints(NOW, &[told(2), told(3)]);
    for ticket in tickets.into_iter().filter(|ticket| ticket.id == 1) {
        upstream.leave(NOW, ticket, Outcome::Failure);
    }
    upstream.counted().ejections == 0
}

fn who_is_left_out_is_not_picked() -> bool {
    let mut upstream = upstream(1..=2);
    for _ in 0..40 {
        let ticket = upstream.enter(NOW, None, None).expect("one is usable");
        let outcome = if ticket.id == 1 { Outcome::Failure } else { Outcome::Success };
        upstream.leave(NOW, ticket, outcome);
    }
    upstream.counted().usable == 1
}

fn what_a_client_says_of_itself_is_not_believed() -> bool {
    let ours = [Network::read("10.0.0.0/8").expect("it is a network")];
    let [made_up, real, proxy] = [[1, 1, 1, 1], [2, 2, 2, 2], [10, 0, 0, 1]].map(std::net::IpAddr::from);
    client(&ours, proxy, [Some(made_up), Some(real)].into_iter()) == real
}

fn who_waits_longest_goes_first() -> bool {
    let mut queue = Queue::new(QueueOptions { places: 2, wait_ms: 1 });
    for who in 0..2 {
        let _ = queue.wait(NOW, Priority::Normal, who).expect("there are two places");
    }
    queue.grant(NOW, 0, 1) == Some(0)
}
