//! Whole nodes, mind and replicas in one worker: nodes join an empty cluster, and it comes to have all its copies.

mod world;

use consensus::Durability;
use control::plan::Progress;
use kernel::planted::Bug;
use kernel::{GroupId, KeyspaceId};

use super::cluster::with_rules;
use world::World;

/// Formations of a test run; each has other disks, other ways, and nodes that join at other moments.
const SEEDS: u64 = 12;
/// Formations within which a broken rule must show.
const BUDGET: u64 = 60;
/// Milliseconds of the world's time within which a cluster is whole: fewer than the 18 s after which a leader takes a snapshot
/// for lost that it hears nothing of, so nothing that is lost may wait for that.
const PATIENCE: u64 = 15_000;
/// Milliseconds between two joins, at most: then the first node hands partitions to the second.
const BETWEEN: u64 = 8_000;

/// Three nodes become one cluster. How long that took after the last had joined, in milliseconds; or what is wrong.
fn form(seed: u64) -> Result<u64, String> {
    let mut world = World::new(seed);
    world.join(1);
    let pause = world.rng.below(BETWEEN);
    world.pass(pause);
    world.join(2);
    become_whole(&mut world).map_err(|what| format!("seed {seed}: {what}"))
}

/// Waits until all copies are there. How long that took, in milliseconds; or what is wrong.
fn become_whole(world: &mut World) -> Result<u64, String> {
    let began = world.now;
    while !world.is_whole() {
        world.pass(20);
        if world.now > began.plus_millis(PATIENCE) {
            return Err(world.trouble());
        }
    }
    match world.malformed() {
        0 => Ok(world.now.since(began) / 1000),
        frames => Err(format!("{frames} frames could not be read")),
    }
}

/// A fourth node joins, and while copies are made for it, partitions are handed to a node that has not heard of that.
fn hand_over_to_who_knows_less(seed: u64) -> Result<u64, String> {
    let mut world = World::new(seed);
    (1..3).for_each(|newcomer| world.join(newcomer));
    become_whole(&mut world)?;
    world.deaf = Some(1);
    world.join(3);
    world.until("copies are made", |world| Progress::total(world.state(0)).moving > 3);
    let pause = world.rng.below(300);
    world.pass(pause);
    world.resign(0);
    world.pass(2_000);
    world.deaf = None;
    become_whole(&mut world).map_err(|what| format!("seed {seed}: {what}"))
}

#[test]
fn nodes_that_join_one_after_another_have_all_copies_and_say_nothing_that_cannot_be_read() {
    let _rules = with_rules(Bug::None);
    let took: Vec<u64> = (0..SEEDS).map(|seed| form(seed).expect("it becomes whole")).collect();
    println!("whole after {took:?} ms");
}

#[test]
fn who_leads_a_partition_and_knows_less_takes_nobody_away() {
    let _rules = with_rules(Bug::None);
    for seed in 0..SEEDS {
        hand_over_to_who_knows_less(seed).expect("it becomes whole");
    }
}

#[test]
fn who_stops_tells_one_of_each_group_to_lead() {
    let _rules = with_rules(Bug::None);
    let (mut groups, mut twice) = (0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        (1..3).for_each(|newcomer| world.join(newcomer));
        become_whole(&mut world).expect("it becomes whole");
        let told = world.resign_under_writes(KeyspaceId(1));
        groups += told.values().filter(|told| !told.is_empty()).count();
        // Two of them would ask for votes at once, and nobody could be elected.
        twice += told.values().filter(|told| told.len() > 1).count();
    }
    println!("{groups} groups were handed over, {twice} to two");
    // Another is told when the first is taken for dead, as after a pause.
    assert!(twice * 10 < groups, "{twice} of {groups} groups are handed to two");
    assert!(groups > 50, "too little is handed over: {groups}");
}

/// A keyspace comes to promise less and then more, several times.
fn change_durability(seed: u64) {
    let mut world = World::new(seed);
    (1..3).for_each(|newcomer| world.join(newcomer));
    world.until("it is whole", World::is_whole);
    for _ in 0..3 {
        world.promise(KeyspaceId(2), Durability::EverySec);
        world.promise(KeyspaceId(2), Durability::Always);
    }
    world.pass(500);
}

#[test]
fn what_is_on_disk_never_promises_more_than_was_kept() {
    let _rules = with_rules(Bug::None);
    (0..SEEDS).for_each(change_durability);
}

#[test]
fn every_planted_bug_of_whole_nodes_is_caught() {
    // What breaks may say so by failing; its text is not news.
    std::panic::set_hook(Box::new(|_| {}));
    let live = |bug, seed| match bug {
        Bug::PledgeBeforeSync | Bug::PledgeWeakAtOnce => {
            change_durability(seed);
            None
        }
        _ => form(seed).and_then(|_| hand_over_to_who_knows_less(seed)).err(),
    };
    let noticed = |bug, seed| {
        std::panic::catch_unwind(|| live(bug, seed)).unwrap_or_else(|_| Some("it panicked".into()))
    };
    let mut missed = Vec::new();
    for &bug in Bug::WHOLE {
        let _rules = with_rules(bug);
        match (0..BUDGET).find_map(|seed| noticed(bug, seed)) {
            Some(what) => println!("{bug:?}: caught: {what:.200}"),
            None => missed.push(bug),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn who_is_wanted_to_lead_leads_and_leaders_are_even() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3);
    (1..3).for_each(|newcomer| world.join(newcomer));
    world.until("it is whole", World::is_whole);
    world.until("everybody leads what it should", |world| {
        let wanted = |group: GroupId| world.state(0).partition(group).map(|it| it.wanted[0]);
        world.leaders().iter().all(|&(group, leader)| leader.is_some() && leader == wanted(group))
    });
    let mut leads = [0; 3];
    for (_, leader) in world.leaders() {
        leads[world.number(leader.expect("all are led"))] += 1;
    }
    let (most, least) = (leads.iter().max(), leads.iter().min());
    assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{leads:?}");
}
