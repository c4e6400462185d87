//! Rings that meet become one, and nothing that was kept is lost; with churn there is one ring as well.

use kernel::Rng;
use p2p::chord::{Command, Outcome, Settings};

use crate::chord_world::{MINUTE, SECOND, World};

/// How long uniting may take, in seconds of the world: some rounds of telling, a comparison each, and stabilizations.
const SECONDS_MAX: u64 = 600;
const VALUES: u64 = 12;

fn settings() -> Settings {
    Settings { successors: 4, ..Settings::default() }
}

/// Rings of these sizes, each with values of its own; a member of each but the first meets one of an earlier ring.
fn apart(seed: u64, sizes: &[u32], settings: Settings) -> World {
    let count = sizes.iter().sum();
    let mut world = World::new(seed, count, settings);
    // Points are drawn, so who is of which ring is.
    let (mut first, mut rings) = (0, Vec::new());
    for size in sizes {
        let members: Vec<u32> = (first..first + size).collect();
        world.ring(&members);
        rings.push(members);
        first += size;
    }
    for (ring, members) in rings.iter().enumerate() {
        for n in 0..VALUES {
            let node = members[world.rng.below(members.len() as u64) as usize];
            world.put(node, ring as u64 * VALUES + n);
        }
    }
    world.pass(20 * SECOND);
    for n in 1..rings.len() {
        let earlier = &rings[world.rng.below(n as u64) as usize];
        let node = rings[n][world.rng.below(rings[n].len() as u64) as usize];
        let peer = earlier[world.rng.below(earlier.len() as u64) as usize];
        world.command(node, Command::Meet { peer });
    }
    world
}

fn size(rng: &mut Rng) -> u32 {
    1 + rng.below(20) as u32
}

/// They become one, and every value of every ring is found from anywhere.
fn unites(seed: u64, sizes: &[u32]) -> u64 {
    let mut world = apart(seed, sizes, settings());
    let Some(took) = world.becomes_one(SECONDS_MAX) else {
        panic!("seed {seed}: rings of {sizes:?} are not one after {SECONDS_MAX} s");
    };
    // What lies elsewhere is brought to its owner with the next stabilizations.
    world.pass(MINUTE);
    let living = world.living();
    let node = living[world.rng.below(living.len() as u64) as usize];
    let missing = world.missing(node, 0..VALUES * sizes.len() as u64);
    assert_eq!(missing, [0; 0], "seed {seed}: values of rings of {sizes:?}");
    took
}

#[test]
fn two_rings_that_meet_once_become_one_and_lose_nothing() {
    let mut took: Vec<u64> = (0..500)
        .map(|seed| {
            let mut rng = Rng::new(seed).fork(1);
            let sizes = [size(&mut rng), size(&mut rng)];
            unites(seed, &sizes)
        })
        .collect();
    took.sort_unstable();
    println!("seconds to one ring: median {}, longest {}", took[250], took[499]);
}

#[test]
fn three_rings_become_one() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed).fork(2);
        unites(1000 + seed, &[size(&mut rng), size(&mut rng), size(&mut rng)]);
    }
}

#[test]
fn without_comparing_rings_that_meet_stay_apart() {
    let apart_still = (0..40).filter(|&seed| {
        let mut rng = Rng::new(seed).fork(1);
        let sizes = [size(&mut rng), size(&mut rng)];
        apart(seed, &sizes, Settings { unite_micros: 0, ..settings() }).becomes_one(SECONDS_MAX).is_none()
    });
    assert_eq!(apart_still.count(), 40);
}

#[test]
fn nodes_that_begin_alone_and_all_at_once_are_one_ring() {
    for seed in 0..200 {
        let count = 2 + seed as u32 % 9;
        let mut world = World::new(2000 + seed, count, settings());
        (0..count).for_each(|node| world.born(node, Command::Create));
        // Each meets an earlier one, and some others; whoever is met has met.
        for node in 1..count {
            let mut peers = vec![world.rng.below(u64::from(node)) as u32];
            peers
                .extend((0..count).filter(|peer| *peer != node && world.rng.chance(0.3)).collect::<Vec<_>>());
            for peer in peers {
                world.command(node, Command::Meet { peer });
                world.command(peer, Command::Meet { peer: node });
            }
        }
        assert!(world.becomes_one(SECONDS_MAX).is_some(), "seed {seed}: {count} nodes");
    }
}

#[test]
fn two_sides_of_a_partition_that_heals_are_one_ring_again() {
    for seed in 0..60 {
        let count = 6 + seed as u32 % 20;
        let mut world = World::new(3000 + seed, count, settings());
        let all: Vec<u32> = (0..count).collect();
        world.ring(&all);
        (0..VALUES).for_each(|n| world.put(n as u32 % count, n));
        world.pass(MINUTE);
        // Half of them, wherever they stand.
        let side: Vec<bool> = all.iter().map(|node| node % 2 == 0).collect();
        world.wall = Some(side.clone());
        world.pass((2 + seed % 10) * MINUTE);
        for wanted in [true, false] {
            let living = world.living();
            let ring: Vec<u32> = living.into_iter().filter(|node| side[*node as usize] == wanted).collect();
            assert!(world.is_ideal(&ring), "seed {seed}: a side of {count} nodes is no ring");
        }
        // Each side has values of its own that are in no copy on the other.
        (0..VALUES).for_each(|n| world.put((2 * n as u32 + n as u32 % 2) % count, VALUES + n));
        world.pass(10 * SECOND);
        world.wall = None;
        // Nobody meets anybody: it is remembered who was lost.
        let healed = world.becomes_one(60 * 60);
        assert!(healed.is_some(), "seed {seed}: {count} nodes, parted for {} min", 2 + seed % 10);
        world.pass(MINUTE);
        let node = world.living()[0];
        assert_eq!(world.missing(node, 0..2 * VALUES), [0; 0], "seed {seed}");
    }
}

#[test]
fn churn_leaves_one_ring() {
    let (mut deaths, mut united) = (0, 0);
    for seed in 0..100 {
        let count = 30;
        let mut world = World::new(4000 + seed, count, settings());
        world.loss = 0.01;
        world.ring(&(0..count / 2).collect::<Vec<_>>());
        // Who is met and lost is compared with all the time.
        for _ in 0..600 {
            world.outcomes.clear();
            let node = world.rng.below(u64::from(count)) as u32;
            let peer = world.rng.below(u64::from(count)) as u32;
            let living = world.living();
            let seed = living[world.rng.below(living.len() as u64) as usize];
            match (world.nodes[node as usize].is_some(), world.rng.below(10)) {
                (true, 0) if living.len() > 12 => {
                    world.kill(node);
                    deaths += 1;
                }
                (true, _) => world.command(node, Command::Meet { peer }),
                (false, 0..4) if seed != node => world.born(node, Command::Join { seed }),
                (false, _) => {}
            }
            world.pass(SECOND);
            let outcomes = std::mem::take(&mut world.outcomes);
            united += outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::United).count();
        }
        world.loss = 0.0;
        for node in 0..count {
            let outside = world.nodes[node as usize].as_ref().is_some_and(|node| !node.is_member());
            if outside {
                // It was on its way in through one that has died.
                world.kill(node);
            }
        }
        let living = world.living();
        assert!(world.becomes_one(SECONDS_MAX).is_some(), "seed {seed}: {} live", living.len());
    }
    assert!(deaths > 1000, "{deaths} deaths are no churn");
    println!("{deaths} deaths, {united} nearer successors by comparing");
}

#[test]
fn in_a_ring_at_rest_comparing_finds_nothing() {
    for seed in 0..50 {
        let mut world = World::new(5000 + seed, 25, settings());
        world.ring(&(0..25).collect::<Vec<_>>());
        for _ in 0..200 {
            let (node, peer) = (world.rng.below(25) as u32, world.rng.below(25) as u32);
            world.command(node, Command::Meet { peer });
            world.pass(SECOND);
        }
        assert_eq!(world.outcomes, [], "seed {seed}");
        let living = world.living();
        assert!(world.is_ideal(&living));
    }
}
