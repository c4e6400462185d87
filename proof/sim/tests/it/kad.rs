//! Kademlia's claims at the size that CI has time for. Full size: `--bin overlay`.

use sim::kad::{Claim, churn, eclipse, kademlia};

fn judged(claim: &Claim) {
    assert!(claim.holds(), "{:#?}", claim.figures);
    assert!(claim.control_fails(), "the control must fail: {:#?}", claim.control);
}

#[test]
fn lookups_in_a_static_network_are_exact_and_short() {
    let params = kademlia::Params { nodes: 3000, k: 20, alpha: 3, lookups: 500, seed: 1 };
    let claim = kademlia::run(&params);
    judged(&claim);
    assert_eq!(claim, kademlia::run(&params), "the same seed gives the same trace");
    assert_ne!(claim.hash, kademlia::run(&kademlia::Params { seed: 2, ..params }).hash);
}

#[test]
fn the_nearest_that_lives_is_found_while_nodes_come_and_go() {
    let params = churn::Params { nodes: 300, k: 20, alpha: 3, session: 60, warm: 30, lookups: 400, seed: 1 };
    judged(&churn::run(&params));
}

#[test]
fn liars_hide_neither_nodes_nor_a_key() {
    let params = eclipse::Params {
        nodes: 5000,
        sybil: 0.2,
        disjoint: 8,
        lookups: 300,
        keys: 12,
        key_nodes: 1000,
        seed: 1,
    };
    judged(&eclipse::run(&params));
}
