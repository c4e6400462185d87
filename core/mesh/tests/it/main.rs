//! What breaks when a rule is broken: each planted bug is seen by one check, which holds without it.

mod gossip;
mod overload;
mod proxy;

use std::collections::BTreeSet;

use kernel::planted::{Bug, choose};
use kernel::{Micros, Rng};
use mesh::Outcome;
use mesh::balance::{Ask, Balancer, Endpoint, Policy, Zones};
use mesh::breaker::{Breaker, BreakerOptions};
use mesh::outlier::{OutlierOptions, Outliers};
use mesh::registry::{Outgoing, Registry, Topic};
use mesh::retry::{Budget, Progress, RetryOptions, Try, Verdict, verdict};

const NOW: Micros = Micros(1_000_000_000);

fn a_breaker_tries_again_after_a_while() -> bool {
    let options = BreakerOptions { requests_min: 1, ..BreakerOptions::default() };
    let mut breaker = Breaker::new(options);
    let pass = breaker.enter(NOW).expect("a new breaker is closed");
    breaker.leave(NOW, pass, Outcome::Failure);
    breaker.enter(NOW).is_err() && breaker.enter(NOW.plus_millis(options.open_ms)).is_ok()
}

fn failed(idempotent: bool, number: u8) -> Try {
    let (outcome, progress) = (Outcome::Failure, Progress::Sent);
    Try { number, outcome, idempotent, replayable: true, progress, came: NOW }
}

fn an_outage_gets_few_retries() -> bool {
    let (mut budget, mut rng, options) = (Budget::new(20, 1), Rng::new(1), RetryOptions::default());
    let mut again = |_| verdict(NOW, &options, &mut budget, &mut rng, &failed(true, 1)) != Verdict::Stop;
    (0..100).filter(|n| again(*n)).count() == 1
}

fn what_may_be_done_once_is_done_once() -> bool {
    let (mut budget, mut rng) = (Budget::default(), Rng::new(1));
    verdict(NOW, &RetryOptions::default(), &mut budget, &mut rng, &failed(false, 1)) == Verdict::Stop
}

fn who_only_fails_is_left_out() -> bool {
    let mut outliers = Outliers::new(OutlierOptions::default(), 3, NOW);
    (0..5).for_each(|_| outliers.report(NOW, 1, Outcome::Failure));
    !outliers.is_in(1)
}

fn who_is_gone_is_not_picked() -> bool {
    let mut balancer = Balancer::new(Policy::RoundRobin, Zones::default(), 0, 1);
    (1..=3).for_each(|name| balancer.add(NOW, Endpoint { name, weight: 1, zone: 0 }));
    balancer.swap_remove(2);
    balancer.usable() == 2
}

fn registry(number: usize, incarnation: u64) -> Registry {
    let (id, node) = (gossip::id(number), gossip::node(number));
    let mut registry = Registry::new(NOW, id, incarnation, 0, node, Rng::new(1)).expect("it is a node");
    registry.set_members(NOW, BTreeSet::from([gossip::id(1 - number)]), BTreeSet::new());
    registry
}

/// What `from` has to say to the other is heard there.
fn hear(from: &mut Registry, to: &mut Registry) {
    let mut frames = Vec::new();
    from.take_frames(&mut frames);
    for Outgoing { bytes, .. } in frames {
        to.receive(NOW, from.me(), &bytes).expect("it is a frame");
    }
}

fn a_pair(incarnation: u64, service: &str) -> (Registry, Registry) {
    let (mut owner, mut other) = (registry(0, incarnation), registry(1, 1));
    owner.register(NOW, gossip::instance("i", service, 80)).expect("it is registered");
    for _ in 0..3 {
        hear(&mut other, &mut owner);
        hear(&mut owner, &mut other);
    }
    (owner, other)
}

fn a_dead_nodes_instances_are_critical_at_once() -> bool {
    let (owner, mut other) = a_pair(1, "web");
    let usable = |it: &Registry| it.view().service("web").map_or(0, |service| service.usable().count());
    let before = usable(&other);
    let members = BTreeSet::from([owner.me()]);
    other.set_members(NOW, members.clone(), members.clone());
    let dead = usable(&other);
    other.set_members(NOW, members, BTreeSet::new());
    (before, dead, usable(&other)) == (1, 0, 1)
}

fn an_index_does_not_fall_with_the_clock() -> bool {
    let mut registry = registry(0, 1);
    registry.register(NOW, gossip::instance("i", "web", 80)).expect("it is registered");
    let before = registry.view().index_of(&Topic::Service("web".into()));
    registry.deregister(NOW - 1_000_000, "i").expect("it was registered");
    registry.view().index_of(&Topic::Service("web".into())) > before
}

fn an_earlier_life_is_not_believed() -> bool {
    let (_, mut other) = a_pair(2, "new");
    let mut earlier = registry(0, 1);
    earlier.register(NOW, gossip::instance("j", "old", 80)).expect("it is registered");
    let mut asking = registry(1, 0);
    hear(&mut asking, &mut earlier);
    hear(&mut earlier, &mut other);
    other.view().service("new").is_some() && other.view().service("old").is_none()
}

fn who_waits_for_the_list_hears_of_a_new_service() -> bool {
    let mut registry = registry(0, 1);
    let waiter = registry.wait(Topic::Catalog, NOW.plus_millis(60_000)).expect("there is room");
    registry.register(NOW, gossip::instance("i", "web", 80)).expect("it is registered");
    let mut woken = Vec::new();
    registry.take_woken(&mut woken);
    woken == [waiter]
}

#[test]
fn every_planted_bug_is_found() {
    let checks: [(Bug, fn() -> bool); 12] = [
        (Bug::BreakerNeverHalfOpens, a_breaker_tries_again_after_a_while),
        (Bug::BudgetIgnored, an_outage_gets_few_retries),
        (Bug::PostRetried, what_may_be_done_once_is_done_once),
        (Bug::BlackHoleKept, who_only_fails_is_left_out),
        (Bug::StaleEndpointKept, who_is_gone_is_not_picked),
        (Bug::DeadNodeServes, a_dead_nodes_instances_are_critical_at_once),
        (Bug::IndexFalls, an_index_does_not_fall_with_the_clock),
        (Bug::RemovalForgotten, gossip::what_was_removed_long_ago_stays_removed),
        (Bug::OldLifeBelieved, an_earlier_life_is_not_believed),
        (Bug::GapIgnored, gossip::a_gap_is_filled),
        (Bug::LeftoverKept, gossip::what_was_removed_long_ago_stays_removed),
        (Bug::WaiterForgotten, who_waits_for_the_list_hears_of_a_new_service),
    ];
    assert_eq!(checks.map(|(bug, _)| bug), Bug::MESH);
    // Those behind are found in `wire`.
    assert_eq!(proxy::CHECKS.map(|(bug, _)| bug), Bug::PROXY[..proxy::CHECKS.len()]);
    assert_eq!(overload::CHECKS.map(|(bug, _)| bug), Bug::OVERLOAD);
    // One after the other: what is chosen is chosen for the whole process.
    for (bug, holds) in checks.into_iter().chain(proxy::CHECKS).chain(overload::CHECKS) {
        assert!(holds(), "without {bug:?}");
        choose(bug);
        assert!(!holds(), "{bug:?} is not found");
        choose(Bug::None);
    }
    // Each is chosen in turn in one process: nothing of it stays.
    let ask = Ask { now: NOW, key: None, except: None };
    assert_eq!(Balancer::new(Policy::Random, Zones::default(), 0, 1).pick(&ask), None);
}
