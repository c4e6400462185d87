//! The measure of the world: each rule of groups, when it is broken, is seen to be broken.

use kernel::planted::Bug;

use crate::world::{run, run_beyond, run_mistrusting};
use crate::{figure8, with_rules};

/// Seeds within which a broken rule must show: fewer than a test run has. `CONSENSUS_BUG=name` plants only one.
const BUDGET: u64 = 1500;

#[test]
fn every_planted_bug_is_caught() {
    let mut missed = Vec::new();
    // What breaks says so by failing; its text is not news.
    std::panic::set_hook(Box::new(|_| {}));
    let only = std::env::var("CONSENSUS_BUG").ok();
    for &bug in Bug::GROUP {
        if only.as_ref().is_some_and(|only| *only != format!("{bug:?}")) {
            continue;
        }
        let _rules = with_rules(bug);
        // What takes four elections in the right order is played, not waited for.
        if let Ok(Err(what)) = std::panic::catch_unwind(figure8::play) {
            println!("{bug:?}: caught by figure 8: {what}");
            continue;
        }
        // What must not rest on clocks is not seen where clocks are right.
        let run = if bug == Bug::ConfirmByLease { run_mistrusting } else { run };
        match (0..BUDGET).find_map(|seed| run(seed).err().map(|what| (seed, what))) {
            Some((seed, what)) => println!("{bug:?}: caught after {} seeds: {what:.200}", seed + 1),
            None => missed.push(bug),
        }
    }
    let _ = std::panic::take_hook();
    assert!(Bug::GROUP.len() >= 8, "there are too few planted bugs to measure anything");
    assert!(missed.is_empty(), "not caught within {BUDGET} seeds: {missed:?}");
}

#[test]
fn what_a_majority_confirms_does_not_rest_on_clocks() {
    let _rules = with_rules(Bug::None);
    let mut reads = 0;
    for seed in 0..BUDGET / 3 {
        match run_mistrusting(seed) {
            Ok(outcome) => {
                reads += outcome.reads;
                assert_eq!(outcome.lease_reads, 0, "seed {seed}");
            }
            // Groups with such clocks may elect one leader after the other; that is none of it.
            Err(what) => assert!(!what.contains("although a write"), "{what}"),
        }
    }
    assert!(reads > BUDGET, "too little is read: {reads}");
}

/// Leases rest on clocks, and only on what is said of them.
#[test]
fn clocks_that_are_further_apart_than_leases_allow_are_noticed() {
    let _rules = with_rules(Bug::None);
    // Groups with such clocks may elect one leader after the other; that is none of it.
    let stale = |what: &String| what.contains("although a write");
    let caught = (0..BUDGET).find_map(|seed| run_beyond(seed).err().filter(stale).map(|what| (seed, what)));
    let (seed, what) = caught.expect("leases do not rest on the clocks");
    println!("caught after {} seeds: {what:.200}", seed + 1);
}
