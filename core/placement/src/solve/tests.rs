//! Tables and laws of placement.

use super::*;
use proptest::prelude::*;

fn sites(zones: &[u16]) -> Vec<Site<u16>> {
    let site = |(node, &zone): (usize, &u16)| Site { node: node as u16, zone: Zone(zone), load: 0, leads: 0 };
    zones.iter().enumerate().map(site).collect()
}

fn place(sites: &[Site<u16>], copies: usize, current: &[Vec<u16>]) -> Vec<Vec<u16>> {
    solve(&Problem { sites, copies, current }).unwrap()
}

fn loads(sites: &[Site<u16>], placed: &[Vec<u16>]) -> Vec<usize> {
    let of = |site: &Site<u16>| placed.iter().filter(|nodes| nodes.contains(&site.node)).count();
    sites.iter().map(of).collect()
}

fn leads(sites: &[Site<u16>], placed: &[Vec<u16>]) -> Vec<usize> {
    let of = |site: &Site<u16>| placed.iter().filter(|nodes| nodes[0] == site.node).count();
    sites.iter().map(of).collect()
}

fn spread(loads: &[usize]) -> usize {
    loads.iter().max().unwrap() - loads.iter().min().unwrap()
}

#[test]
fn an_eleventh_node_takes_its_share_and_nothing_else_moves() {
    let before = place(&sites(&[0; 10]), 3, &vec![Vec::new(); 256]);
    let eleven = sites(&[0; 11]);
    let after = place(&eleven, 3, &before);
    // 768 copies on 11 nodes: 69 or 70 each, so no fewer than 69 move; the ideal is 768 / 11 = 69.8.
    assert_eq!(moves(&before, &after), 69);
    assert_eq!(spread(&loads(&eleven, &after)), 1);
    assert!(spread(&leads(&eleven, &after)) <= 1);
}

#[test]
fn losing_a_zone_leaves_every_partition_a_copy() {
    #[rustfmt::skip] // columns
    let table: [(&[u16], usize); 5] = [
        (&[0, 0, 0, 1, 1, 1, 2, 2, 2], 3),
        (&[0, 0, 0, 0, 0, 0, 0, 1],    2), // the small zone has a copy of everything
        (&[0, 0, 1, 1],                3),
        (&[0, 1, 2, 3, 4],             3),
        (&[0, 0, 0, 1, 2, 2],          5),
    ];
    for (zones, copies) in table {
        let sites = sites(zones);
        for nodes in place(&sites, copies, &vec![Vec::new(); 64]) {
            let mut seen: Vec<u16> = nodes.iter().map(|&node| zones[usize::from(node)]).collect();
            seen.sort_unstable();
            seen.dedup();
            let all = zones.iter().collect::<alloc::collections::BTreeSet<_>>().len();
            assert_eq!(seen.len(), all.min(copies), "{zones:?} {nodes:?}");
        }
    }
}

#[test]
fn a_node_that_leaves_is_replaced_and_the_rest_stays() {
    let five = sites(&[0, 1, 2, 0, 1]);
    let before = place(&five, 3, &vec![Vec::new(); 60]);
    let lost = loads(&five, &before)[3];
    let four: Vec<Site<u16>> = five.iter().copied().filter(|site| site.node != 3).collect();
    let after = place(&four, 3, &before);
    assert!(after.iter().all(|nodes| nodes.len() == 3 && !nodes.contains(&3)));
    assert!(moves(&before, &after) >= lost);
    assert_eq!(place(&four, 3, &after), after, "what is placed well stays");
}

#[test]
fn fewer_nodes_than_copies_have_one_each() {
    let placed = place(&sites(&[0, 0]), 3, &vec![Vec::new(); 4]);
    assert!(placed.iter().all(|nodes| nodes.len() == 2));
    assert_eq!(leads(&sites(&[0, 0]), &placed), [2, 2]);
}

#[test]
fn the_load_of_other_keyspaces_counts() {
    let mut all = sites(&[0; 4]);
    all[0].load = 10;
    all[2].load = 10;
    let placed = place(&all, 1, &vec![Vec::new(); 2]);
    assert_eq!(loads(&all, &placed), [0, 1, 0, 1]);
    // Evenness within the keyspace counts more.
    assert_eq!(loads(&all, &place(&all, 1, &vec![Vec::new(); 4])), [1, 1, 1, 1]);
}

#[test]
fn keyspaces_of_one_partition_are_led_by_different_nodes() {
    #[rustfmt::skip] // columns
    let table: [([u32; 3], Vec<Vec<u16>>, u16); 5] = [
        // leads of others   the copies now       who is to lead
        ([0, 0, 0],          vec![vec![2, 0, 1]], 2), // who leads goes on
        ([5, 4, 5],          vec![vec![0, 1, 2]], 1), // one fewer, although another one leads
        ([5, 4, 4],          vec![vec![0, 2, 1]], 1), // of two the first
        ([5, 5, 5],          vec![vec![2, 0, 1]], 2), // nothing is won by a change
        ([9, 0, 3],          vec![vec![0]],       1), // also one that has nothing yet
    ];
    for (others, current, leader) in table {
        let mut all = sites(&[0; 3]);
        all.iter_mut().zip(others).for_each(|(site, leads)| site.leads = leads);
        assert_eq!(place(&all, 3, &current)[0][0], leader, "{others:?} {current:?}");
    }
}

#[test]
fn leaders_within_a_keyspace_are_even_before_those_of_all_are() {
    let mut all = sites(&[0; 3]);
    (all[0].leads, all[1].leads) = (60_000, 7);
    let placed = place(&all, 3, &vec![Vec::new(); 64]);
    assert_eq!(leads(&all, &placed), [21, 21, 22], "who leads least elsewhere has the odd one");
    let again = place(&all, 3, &placed);
    assert_eq!(again, placed, "and keeps it");
}

#[test]
fn a_wrong_problem_is_refused() {
    let twice = [sites(&[0])[0]; 2];
    let none = Problem { sites: &sites(&[]), copies: 3, current: &[vec![1]] };
    assert_eq!(solve(&none), Err(SolveError::NoSite));
    assert_eq!(solve(&Problem { sites: &twice, ..none.clone() }), Err(SolveError::TwiceNamed(1)));
    assert_eq!(solve(&Problem { copies: 17, ..none }), Err(SolveError::TooLarge));
}

/// The best that can be done, by trying everything.
fn best(sites: &[Site<u16>], copies: usize, current: &[Vec<u16>]) -> (usize, usize, usize) {
    let mut sets: Vec<Vec<u16>> = vec![Vec::new()];
    for site in sites {
        let with: Vec<Vec<u16>> = sets.iter().map(|set| [&set[..], &[site.node]].concat()).collect();
        sets.extend(with);
    }
    sets.retain(|set| set.len() == copies);
    let mut all: Vec<Vec<Vec<u16>>> = vec![Vec::new()];
    for _ in current {
        all = all
            .iter()
            .flat_map(|one| sets.iter().map(|set| [&one[..], core::slice::from_ref(set)].concat()))
            .collect();
    }
    all.iter().map(|placed| cost(sites, placed, current)).min().unwrap()
}

/// Zones in squares, loads in squares, moves: less is better, in this order.
fn cost(sites: &[Site<u16>], placed: &[Vec<u16>], current: &[Vec<u16>]) -> (usize, usize, usize) {
    let zone = |node: &u16| sites.iter().find(|site| site.node == *node).unwrap().zone;
    let squares = |counts: &[usize]| counts.iter().map(|count| count * count).sum::<usize>();
    let in_zones = |nodes: &Vec<u16>| {
        let mut counts = BTreeMap::new();
        nodes.iter().for_each(|node| *counts.entry(zone(node)).or_insert(0) += 1);
        squares(&counts.into_values().collect::<Vec<_>>())
    };
    (placed.iter().map(in_zones).sum(), squares(&loads(sites, placed)), moves(current, placed))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn small_problems_are_solved_as_well_as_they_can_be(
        zones in proptest::collection::vec(0..3_u16, 1..5),
        copies in 1..4_usize,
        current in proptest::collection::vec(proptest::collection::btree_set(0..6_u16, 0..4), 1..4),
    ) {
        let sites = sites(&zones);
        let current: Vec<Vec<u16>> = current.into_iter().map(|set| set.into_iter().collect()).collect();
        let placed = place(&sites, copies, &current);
        let copies = copies.min(sites.len());
        prop_assert!(placed.iter().all(|nodes| nodes.len() == copies));
        prop_assert_eq!(cost(&sites, &placed, &current), best(&sites, copies, &current));
    }

    #[test]
    fn what_is_placed_stays_when_nothing_changed(
        zones in proptest::collection::vec(0..4_u16, 1..9), copies in 1..4_usize, partitions in 1..40_usize,
    ) {
        let sites = sites(&zones);
        let placed = place(&sites, copies, &vec![Vec::new(); partitions]);
        prop_assert_eq!(&place(&sites, copies, &placed), &placed);
    }
}
