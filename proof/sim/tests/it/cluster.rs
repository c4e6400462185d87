//! Whole clusters: clean runs, repeatable traces, and what the world must notice.

use check::client::How;
use kernel::Rng;
use kernel::planted::Bug;
use sim::cluster::split::{self, Side, Terms};
use sim::cluster::{Outcome, attempt, run};

use crate::seeds::commit;
use crate::with_rules;

/// Seeds of one run in CI; a quarter is a fixed corpus, the others derive from the commit. `CLUSTER_SEEDS=n` runs as many.
const SEEDS: u64 = 2000;
/// Seeds within which a broken rule must show.
const BUDGET: u64 = 400;

/// The rules whose breach a cluster shows soon with the faults that this world has; the others have worlds of their own.
const SHOWN: &[Bug] = &[
    Bug::VoteBeforeSync,
    Bug::VoteForgotten,
    Bug::AppendAckBeforeSync,
    Bug::LeaderCountsUnsynced,
    Bug::LeaderCountsAlone,
    Bug::SnapshotWithoutMembers,
    Bug::SnapshotWithoutTerm,
    Bug::SnapshotAckEarly,
    Bug::StaleTailKept,
    Bug::OtherTermAnswered,
    Bug::AnsweredBeforeCommit,
    Bug::SnapshotWithoutSessions,
    Bug::GuestsProposeWhenStill,
    Bug::ConfirmBeforeAllHeld,
];

/// Seeds at which a judge was wrong: others applied a change of the members before the leader, whose disk was slow, did,
/// and the next entry was decided by the members before it.
const MISJUDGED: &[u64] = &[62_135_452_406_019];

#[test]
fn clusters_keep_every_promise_whatever_the_seed() {
    let _rules = with_rules(Bug::None);
    let seeds = std::env::var("CLUSTER_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    let mut fresh = Rng::new(commit().unwrap_or(0));
    let mut total = Outcome::default();
    let corpus = MISJUDGED.iter().copied().chain(0..seeds / 4);
    let fresh = (seeds / 4..seeds).map(|_| fresh.next_u64() >> 16);
    for seed in corpus.chain(fresh) {
        match run(seed) {
            Ok(outcome) => total.add(&outcome),
            Err(failure) => panic!("{}", failure.told(true)),
        }
    }
    println!("{seeds} seeds: {total:?}");
    assert!(total.answered > 20 * seeds, "too little is answered to show anything: {total:?}");
    assert!(total.unknown > seeds / 2, "nothing is ever unknown: {total:?}");
    assert!(total.crashes > seeds, "too few crashes to show anything: {total:?}");
    assert!(total.checkpoints > seeds, "too few checkpoints to show anything: {total:?}");
    assert!(total.snapshots > seeds / 10, "too few snapshots to show anything: {total:?}");
    assert!(total.handovers > seeds / 20, "too few handovers to show anything: {total:?}");
    assert!(total.changes > seeds / 4, "too few changes of members to show anything: {total:?}");
    assert!(total.marks > seeds && total.unmarked > seeds / 2, "too few marks to show anything: {total:?}");
    assert!(total.hard < seeds / 20, "too many histories are not judged: {total:?}");
}

#[test]
fn every_planted_bug_that_a_cluster_shows_is_caught() {
    let mut missed = Vec::new();
    // What breaks says so by failing; its text is not news.
    std::panic::set_hook(Box::new(|_| {}));
    for &bug in SHOWN {
        let _rules = with_rules(bug);
        match (0..BUDGET).find_map(|seed| attempt(seed, false).err()) {
            Some(failure) => {
                println!("{bug:?}: caught after {} seeds: {:.200}", failure.seed + 1, failure.what);
            }
            None => missed.push(bug),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not caught within {BUDGET} seeds: {missed:?}");
}

#[test]
fn the_same_seed_is_the_same_cluster() {
    let _rules = with_rules(Bug::None);
    for seed in 0..10 {
        let one = run(seed).unwrap_or_else(|failure| panic!("{}", failure.told(true)));
        let other = run(seed).unwrap_or_else(|failure| panic!("{}", failure.told(true)));
        assert_eq!(one, other, "seed {seed}");
    }
}

/// A cluster of three whose net is split for a while.
const TERMS: Terms =
    Terms { nodes: 3, clients: 2, calm_micros: 5_000_000, split_micros: 13_000_000, copies: false };

/// Whether the minority answered while it was cut off, or clients were told what no order explains.
fn shows(seed: u64, terms: Terms) -> bool {
    let (cut, mend) = (terms.calm_micros, terms.calm_micros + terms.split_micros);
    let divided = split::run(seed, terms).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    let alone = |told: &split::Told| {
        told.side == Side::Minority && told.called >= cut && told.at < mend && told.how == How::Answered
    };
    divided.anomaly.is_some() || divided.told.iter().any(alone)
}

#[test]
fn a_minority_answers_nothing() {
    let _rules = with_rules(Bug::None);
    for terms in [TERMS, Terms { nodes: 5, clients: 1, ..TERMS }] {
        for seed in 0..10 {
            assert!(!shows(seed, terms), "seed {seed} {terms:?}");
        }
    }
}

#[test]
fn a_leader_that_asks_nobody_before_it_reads_is_caught_in_a_split() {
    let _rules = with_rules(Bug::ReadUnconfirmed);
    assert!((0..10).any(|seed| shows(seed, TERMS)));
}

#[test]
fn copies_that_answer_reads_are_caught_in_a_split() {
    let _rules = with_rules(Bug::None);
    assert!(shows(0, Terms { copies: true, ..TERMS }));
}
