//! What breaks when a rule is broken: each planted bug is seen by one check, which holds without it.

mod proxy;

use kernel::planted::{Bug, choose};
use kernel::{Micros, Rng};
use mesh::Outcome;
use mesh::balance::{Ask, Balancer, Endpoint, Policy, Zones};
use mesh::breaker::{Breaker, BreakerOptions};
use mesh::outlier::{OutlierOptions, Outliers};
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

#[test]
fn every_planted_bug_is_found() {
    let checks: [(Bug, fn() -> bool); 5] = [
        (Bug::BreakerNeverHalfOpens, a_breaker_tries_again_after_a_while),
        (Bug::BudgetIgnored, an_outage_gets_few_retries),
        (Bug::PostRetried, what_may_be_done_once_is_done_once),
        (Bug::BlackHoleKept, who_only_fails_is_left_out),
        (Bug::StaleEndpointKept, who_is_gone_is_not_picked),
    ];
    assert_eq!(checks.map(|(bug, _)| bug), Bug::MESH);
    // Those behind are found in `wire`.
    assert_eq!(proxy::CHECKS.map(|(bug, _)| bug), Bug::PROXY[..proxy::CHECKS.len()]);
    // One after the other: what is chosen is chosen for the whole process.
    for (bug, holds) in checks.into_iter().chain(proxy::CHECKS) {
        assert!(holds(), "without {bug:?}");
        choose(bug);
        assert!(!holds(), "{bug:?} is not found");
        choose(Bug::None);
    }
    // Each is chosen in turn in one process: nothing of it stays.
    let ask = Ask { now: NOW, key: None, except: None };
    assert_eq!(Balancer::new(Policy::Random, Zones::default(), 0, 1).pick(&ask), None);
}
