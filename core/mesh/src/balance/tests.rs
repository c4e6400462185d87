//! The policies, by table and by a simulated service.

use alloc::vec;

use super::*;

const POLICIES: [Policy; 8] = [
    Policy::RoundRobin,
    Policy::WeightedRoundRobin,
    Policy::Random,
    Policy::LeastRequests,
    Policy::TwoChoices,
    Policy::PeakEwma,
    Policy::Maglev,
    Policy::Ring,
];

fn at(ms: u64) -> Micros {
    Micros(1_000_000_000).plus_millis(ms)
}

fn balancer(policy: Policy, weights: &[u16]) -> Balancer {
    let mut balancer = Balancer::new(policy, Zones::default(), 0, 11);
    for (number, &weight) in (1..).zip(weights) {
        balancer.add(at(0), Endpoint { name: number * 7919, weight, zone: 0 });
    }
    balancer
}

fn ask(ms: u64) -> Ask {
    Ask { now: at(ms), key: None, except: None }
}

/// How often each endpoint is picked, of so many requests that end at once after 10 ms.
fn shares(balancer: &mut Balancer, requests: usize) -> Vec<usize> {
    let mut counts = vec![0; balancer.len()];
    for number in 0..requests {
        let place = balancer.pick(&ask(number as u64)).unwrap();
        balancer.report(at(number as u64), place, 10_000, Outcome::Success);
        counts[place] += 1;
    }
    counts
}

#[test]
fn every_policy_uses_all_equal_endpoints_and_only_usable_ones() {
    for policy in POLICIES {
        let mut all = balancer(policy, &[1; 5]);
        let counts = shares(&mut all, 5_000);
        assert!(counts.iter().all(|&count| count > 700), "{policy:?} {counts:?}");
        all.set_usable(at(0), 2, false);
        assert_eq!(all.usable(), 4);
        assert_eq!(shares(&mut all, 1_000)[2], 0, "{policy:?}");
        all.swap_remove(0);
        // The last one has its place now, and what was the third is still not usable.
        let counts = shares(&mut all, 1_000);
        assert_eq!((counts.len(), counts[2]), (4, 0), "{policy:?}");
        (0..4).for_each(|place| all.set_usable(at(0), place, false));
        assert_eq!(all.pick(&ask(0)), None, "{policy:?}");
    }
}

#[test]
fn an_endpoint_that_failed_a_request_does_not_get_it_again() {
    for policy in POLICIES {
        let mut all = balancer(policy, &[1; 3]);
        for number in 0..300 {
            let ask = Ask { key: Some(number), ..ask(0) };
            let first = all.pick(&ask).unwrap();
            let second = all.pick(&Ask { except: Some(first), ..ask }).unwrap();
            assert_ne!(first, second, "{policy:?}");
            [first, second].into_iter().for_each(|place| all.report(at(0), place, 1000, Outcome::Success));
        }
        let mut one = balancer(policy, &[1]);
        assert_eq!(one.pick(&Ask { except: Some(0), ..ask(0) }), Some(0), "{policy:?}: there is no other");
    }
}

#[test]
fn smooth_weights_are_exact_and_never_come_in_bursts() {
    let mut all = balancer(Policy::WeightedRoundRobin, &[5, 1, 1]);
    let picks: Vec<usize> = (0..7).map(|_| all.pick(&ask(0)).unwrap()).collect();
    // nginx's own example.
    assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
    let counts = shares(&mut balancer(Policy::Random, &[6, 3, 1]), 100_000);
    assert!(
        counts.iter().zip([60_000, 30_000, 10_000]).all(|(&count, wanted)| count.abs_diff(wanted) < 1_000)
    );
    let mut loaded = balancer(Policy::LeastRequests, &[4, 2, 1]);
    assert!((0..70).all(|_| loaded.pick(&ask(0)).is_some()));
    assert_eq!([0, 1, 2].map(|place| loaded.under_way(place)), [40, 20, 10]);
}

#[test]
fn a_new_endpoint_starts_slowly() {
    let mut all = Balancer::new(Policy::WeightedRoundRobin, Zones::default(), 10_000, 3);
    (1..=2).for_each(|name| all.add(at(0), Endpoint { name, weight: 1, zone: 0 }));
    all.set_usable(at(0), 1, false);
    all.set_usable(at(0), 1, true);
    for (ms, share) in [(0, 91), (1_000, 91), (5_000, 333), (10_000, 500), (60_000, 500)] {
        let picked = (0..1000).filter(|_| all.pick(&ask(ms)) == Some(1)).count();
        assert!(picked.abs_diff(share) <= 2, "after {ms} ms {picked} of a thousand");
    }
}

#[test]
fn keys_stay_when_others_come_and_go() {
    for policy in [Policy::Maglev, Policy::Ring] {
        let mut all = balancer(policy, &[1; 10]);
        let of = |all: &mut Balancer, key: u64| {
            let place = all.pick(&Ask { key: Some(key), ..ask(0) }).unwrap();
            all.report(at(0), place, 1000, Outcome::Success);
            all.endpoint(place).name
        };
        let mut rng = Rng::new(1);
        let keys: Vec<u64> = (0..2_000).map(|_| rng.next_u64()).collect();
        let before: Vec<u64> = keys.iter().map(|&key| of(&mut all, key)).collect();
        all.set_usable(at(0), 4, false);
        let down = all.endpoint(4).name;
        let moved = |all: &mut Balancer| {
            keys.iter().zip(&before).filter(|&(&key, &name)| name != down && of(all, key) != name).count()
        };
        assert_eq!(moved(&mut all), 0, "{policy:?}");
        all.swap_remove(4);
        assert!(moved(&mut all) < 60, "{policy:?}: a few more than none may move");
    }
}

#[test]
fn a_ring_spills_what_would_overload_an_endpoint() {
    let mut all = balancer(Policy::Ring, &[1; 4]);
    assert!((0..100).all(|_| all.pick(&Ask { key: Some(42), ..ask(0) }).is_some()));
    let most = (0..4).map(|place| all.under_way(place)).max().unwrap();
    assert!((25..=33).contains(&most), "{most}");
}

#[test]
fn a_load_that_an_endpoint_tells_counts_for_a_while() {
    let mut all = balancer(Policy::LeastRequests, &[1; 2]);
    all.report_load(at(0), 0, 50);
    assert!((0..50).all(|_| all.pick(&ask(500)) == Some(1)));
    assert!((0..40).all(|_| all.pick(&ask(1_001)) == Some(0)), "it is too old to be believed");
}

/// Requests at an open rate against endpoints that work on four at once for so many milliseconds each; returns the p99
/// of the latencies in milliseconds, and the share of failures. An endpoint with 0 ms answers errors at once.
fn service(policy: Policy, work: &[u64], seed: u64) -> (u64, f64) {
    let mut all = Balancer::new(policy, Zones::default(), 0, seed);
    for (name, _) in (1..).zip(work) {
        all.add(at(0), Endpoint { name, weight: 1, zone: 0 });
    }
    let mut rng = Rng::new(seed);
    // When each of the four places of each endpoint is free, in microseconds.
    let mut free = vec![[0_u64; 4]; work.len()];
    let mut ends: Vec<(u64, usize, u64, Outcome)> = Vec::new();
    let (mut now, mut latencies, mut failures) = (0_u64, Vec::new(), 0.0);
    let rate: f64 =
        work.iter().filter(|&&ms| ms > 0).map(|&ms| 4.0 / (ms as f64 * 1000.0)).sum::<f64>() * 0.5;
    let requests = 20_000;
    for _ in 0..requests {
        now += (-libm::log(1.0 - rng.unit()) / rate) as u64;
        ends.sort_by_key(|end| end.0);
        while ends.first().is_some_and(|end| end.0 <= now) {
            let (end, place, took, outcome) = ends.remove(0);
            all.report(Micros(1_000_000_000 + end), place, took, outcome);
        }
        let place = all.pick(&Ask { now: Micros(1_000_000_000 + now), key: None, except: None }).unwrap();
        let slot = free[place].iter_mut().min().unwrap();
        let end = if work[place] == 0 {
            failures += 1.0;
            ends.push((now + 1000, place, 1000, Outcome::Failure));
            continue;
        } else {
            (*slot).max(now) + (work[place] as f64 * 2000.0 * rng.unit()) as u64
        };
        *slot = end;
        latencies.push((end - now) / 1000);
        ends.push((end, place, end - now, Outcome::Success));
    }
    latencies.sort_unstable();
    (latencies[latencies.len() * 99 / 100], failures / f64::from(requests))
}

#[test]
fn with_one_slow_endpoint_peak_ewma_has_half_of_round_robins_p99() {
    for seed in 1..=5 {
        let work = [10, 10, 10, 10, 40];
        let [turns, least, ewma] = [Policy::RoundRobin, Policy::LeastRequests, Policy::PeakEwma]
            .map(|policy| service(policy, &work, seed).0);
        assert!(ewma * 2 <= turns, "seed {seed}: {ewma} ms beside {turns} ms");
        assert!(ewma <= least, "seed {seed}: {ewma} ms beside {least} ms");
    }
}

#[test]
fn a_black_hole_does_not_draw_requests_under_peak_ewma() {
    for seed in 1..=5 {
        let work = [20, 20, 20, 20, 0];
        let (_, failing) = service(Policy::PeakEwma, &work, seed);
        assert!(failing < 0.02, "seed {seed}: {failing}");
        // Counting requests alone, it looks like the fastest.
        assert!(service(Policy::LeastRequests, &work, seed).1 > 0.2, "seed {seed}");
    }
}
