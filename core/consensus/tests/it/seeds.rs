//! Thousands of seeds of honest groups.

use kernel::planted::Bug;

use crate::with_rules;
use crate::world::{Outcome, run};

/// Seeds of a test run; `CONSENSUS_SEEDS=n` runs as many, `CONSENSUS_FROM=n` begins with another.
const SEEDS: u64 = 2000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn agreement_holds_whatever_the_world_does() {
    let _rules = with_rules(Bug::None);
    let (from, seeds) = (number("CONSENSUS_FROM", 0), number("CONSENSUS_SEEDS", SEEDS));
    let mut total = Outcome::default();
    let mut failures = Vec::new();
    for seed in from..from + seeds {
        match run(seed) {
            Ok(outcome) => add(&mut total, &outcome),
            Err(what) => {
                eprintln!("{what}");
                failures.push(seed);
            }
        }
    }
    println!("{seeds} seeds: {total:?}");
    assert!(failures.is_empty(), "seeds that failed: {failures:?}");
    if seeds >= SEEDS {
        assert!(total.acknowledged > seeds * 20, "the world lets nothing be done: {total:?}");
        let rare = [total.lease_reads, total.lossy, total.changes, total.snapshots, total.handovers];
        assert!(rare.iter().all(|&count| count > seeds / 10), "something never happens: {total:?}");
        assert!(total.small > seeds && total.everysec > seeds, "something never happens: {total:?}");
        assert!(total.forgotten > seeds / 20, "no voter forgets: {total:?}");
        assert!(total.toppled > seeds / 10, "no leader falls young: {total:?}");
        assert!(total.fetches > 0 && total.recoveries > 0, "something never happens: {total:?}");
    }
}

fn add(total: &mut Outcome, one: &Outcome) {
    total.hash = total.hash.rotate_left(1) ^ one.hash;
    total.events += one.events;
    total.acknowledged += one.acknowledged;
    total.reads += one.reads;
    total.lease_reads += one.lease_reads;
    total.crashes += one.crashes;
    total.lossy += one.lossy;
    total.changes += one.changes;
    total.snapshots += one.snapshots;
    total.handovers += one.handovers;
    total.fetches += one.fetches;
    total.recoveries += one.recoveries;
    total.small += one.small;
    total.everysec += one.everysec;
    total.toppled += one.toppled;
    total.forgotten += one.forgotten;
}

#[test]
fn the_same_seed_is_the_same_run() {
    let _rules = with_rules(Bug::None);
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
