//! What holds for every lookup, whatever it is told: it ends, asks nobody twice, and drawn names are where they should be.

use std::collections::BTreeSet;

use kernel::Rng;
use p2p::kad::{Command, Target, judge, region_bits};
use p2p::{Effect, Input, Keys, Protocol, RequestId};
use proptest::prelude::*;

use crate::kad_world::{T, World, config};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_lookup_ends_and_asks_nobody_twice_on_any_number_of_paths(
        seed: u64, paths in 1u8..9, answers in prop::collection::vec((any::<bool>(), prop::collection::vec(0u32..200, 0..25)), 1..50),
    ) {
        let mut world = World::new(seed, 200, config(paths));
        for contact in 1..60 {
            world.nodes[0].admit(world.now, &world.keys, contact);
        }
        let key = world.keys.key(199);
        let mut out = Vec::new();
        let command = Input::Commanded(Command::FindNode(T, Target { key, name: None }));
        world.nodes[0].step(world.now, &world.keys, command, &mut out);
        let (mut asked, mut answers) = (BTreeSet::new(), answers.iter().cycle());
        let mut waiting: Vec<(u32, RequestId)> = Vec::new();
        let mut rng = Rng::new(seed);
        let mut ended = false;
        loop {
            for effect in out.drain(..) {
                match effect {
                    Effect::Ask { to, id, .. } => {
                        prop_assert!(asked.insert(to), "{to} was asked twice");
                        prop_assert!(to != 0, "nobody asks itself");
                        waiting.push((to, id));
                    }
                    Effect::Report(_) => ended = true,
                    Effect::Tell { .. } | Effect::Answer { .. } => prop_assert!(false, "a lookup only asks"),
                }
            }
            if waiting.is_empty() {
                break;
            }
            prop_assert!(waiting.len() <= usize::from(paths).max(3));
            let (from, id) = waiting.swap_remove(rng.below(waiting.len() as u64) as usize);
            let (fails, told) = answers.next().unwrap();
            let input = if *fails {
                Input::Failed { to: from, id }
            } else {
                Input::Answered { from, id, body: p2p::kad::Message::Nodes(told.iter().copied().collect()) }
            };
            world.nodes[0].step(world.now, &world.keys, input, &mut out);
        }
        prop_assert!(ended);
    }
}

#[test]
fn a_drawn_name_has_its_place_where_it_was_wanted() {
    let mut rng = Rng::new(1);
    for bits in 0..=12 {
        let point = rng.next_u64();
        let target = Target::drawn(point, bits, &mut rng);
        assert!((target.key.point() ^ point).leading_zeros() >= bits, "{bits}");
        assert_eq!(target, Target::named(&target.name.clone().unwrap()));
    }
}

#[test]
fn the_size_of_a_network_is_judged_within_a_tenth_on_average() {
    let mut rng = Rng::new(2);
    for nodes in [100u64, 10_000, 1_000_000] {
        let sum: f64 = (0..200)
            .map(|_| {
                // The nearest of n: exponential gaps of mean 1/n are what evenly spread nodes have.
                let mut at = 0.0;
                let mut distances = Vec::new();
                for _ in 0..20 {
                    at += -(1.0 - rng.unit()).ln() / nodes as f64;
                    distances.push((at * u64::MAX as f64) as u64);
                }
                judge(distances.into_iter()).unwrap()
            })
            .sum();
        let mean = sum / 200.0 / nodes as f64;
        assert!((mean - 1.0).abs() < 0.1, "{nodes}: {mean}");
    }
    assert_eq!(judge([1, 2, 3].into_iter()), None);
}

#[test]
fn a_region_has_k_to_2k_nodes() {
    for (size, k) in [(40.0, 20), (79.0, 20), (80.0, 20), (1e6, 20), (1e9, 8), (3.0, 20)] {
        let expected = size / f64::from(1 << region_bits(size, k));
        assert!(expected < 2.0 * k as f64, "{size}");
        assert!(expected >= k as f64 || region_bits(size, k) == 0, "{size}");
    }
}
