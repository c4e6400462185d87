//! Replicas begin, come back, come and go.

use consensus::{ReplicaId, Role};
use kernel::planted::Bug;
use kernel::{GroupId, Index, Micros};

use super::disk::Kind;
use super::with_rules;
use super::world::{World, group, replica};

fn fill(world: &mut World, from: u64, count: u64) {
    let leader = world.leader(group(0));
    let client = world.client(leader);
    for n in from..from + count {
        assert_eq!(world.ask(client, &format!("SET k{n} {n}")), "+OK\r\n");
    }
}

fn change(world: &mut World, of: GroupId, roles: &[(ReplicaId, Role)]) {
    world.until("the change is taken", |world| {
        let leader = world.leader(of);
        let now = world.now;
        let asked = world.worker(leader).replica_mut(of).is_some_and(|one| one.change(now, roles).is_ok());
        world.turn(leader);
        asked
    });
}

#[test]
fn a_node_comes_back_with_what_its_log_and_its_checkpoint_have() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    fill(&mut world, 0, 10);
    assert!(world.checkpoint(0, 0) && world.checkpoint(1, 0));
    fill(&mut world, 10, 10);
    world.level(group(0));
    let before = world.state(0, group(0));
    (0..3).for_each(|node| world.crash(node, true));
    (0..3).for_each(|node| world.start(node));
    world.leader(group(0));
    world.level(group(0));
    let (after, before) = (world.state(0, group(0)).expect("it runs"), before.expect("it ran"));
    assert_eq!(after.1, before.1, "the same data");
    assert!(after.0 > before.0, "and the new leader's entry");
    fill(&mut world, 20, 1);
}

#[test]
fn who_joins_late_gets_a_snapshot_and_then_counts() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(4, 1);
    fill(&mut world, 0, 20);
    let leader = world.leader(group(0));
    world.checkpoint(leader, 0);
    fill(&mut world, 20, 5);
    let new = ReplicaId::new(9).expect("a number");
    world.join(group(0), 3, new);
    change(&mut world, group(0), &[(new, Role::Learner)]);
    world.level(group(0));
    assert!(world.state(3, group(0)).is_some_and(|(applied, _)| applied > 20));
    change(&mut world, group(0), &[(new, Role::Voter), (replica(leader), Role::Gone)]);
    world.until("another leads", |world| world.serving(group(0)).is_some_and(|node| node != leader));
    let now = world.now;
    world.worker(leader).stop_replica(now, group(0));
    world.turn(leader);
    assert!(world.machines[leader].disk.engine.is_empty(), "its data is gone");
    fill(&mut world, 30, 5);
    world.level(group(0));
    // It comes back from its own disk as what it is now.
    world.crash(3, true);
    world.start(3);
    fill(&mut world, 40, 1);
    world.level(group(0));
}

#[test]
fn a_follower_behind_the_log_gets_a_snapshot_and_a_little_behind_gets_entries() {
    let _rules = with_rules(Bug::None);
    for (count, compacted) in [(5, false), (5, true)] {
        let mut world = World::new(3, 1);
        fill(&mut world, 0, 3);
        let leader = world.leader(group(0));
        let behind = (leader + 1) % 3;
        world.crash(behind, false);
        fill(&mut world, 3, count);
        if compacted {
            world.checkpoint(leader, 0);
        }
        world.start(behind);
        world.pass(1_000);
        world.level(group(0));
        let installed = world.machines[behind].disk.engine[&group(0)].frame.is_some();
        assert_eq!(installed, compacted, "a snapshot only where it is needed");
        world.crash(behind, true);
        world.start(behind);
        world.pass(1_000);
        world.level(group(0));
    }
}

#[test]
fn a_snapshot_that_takes_long_is_followed_by_entries_and_not_by_another() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    fill(&mut world, 0, 3);
    let leader = world.leader(group(0));
    let behind = (leader + 1) % 3;
    world.crash(behind, false);
    fill(&mut world, 3, 5);
    world.checkpoint(leader, 0);
    world.fetching_takes = 3_000;
    world.start(behind);
    world.pass(1_000);
    // More is written and checkpointed while the snapshot is on its way.
    for round in 0..4 {
        fill(&mut world, 10 + round, 1);
        world.checkpoint(leader, 0);
        world.pass(300);
    }
    world.pass(2_000);
    world.level(group(0));
    let made = world.machines[leader].disk.snapshots.len();
    assert_eq!(made, 1, "one snapshot was enough");
    fill(&mut world, 20, 1);
    world.checkpoint(leader, 0);
    assert!(world.machines[leader].disk.floors[&group(0)].0 > 12, "and then the log gives them away");
}

/// What the client is told of a key of an earlier group with the same number, after all nodes were killed when the new one
/// had just begun. `told`: the log says that it begins.
fn of_an_earlier_group(told: bool) -> String {
    let mut world = World::new(3, 1);
    fill(&mut world, 0, 10);
    world.level(group(0));
    world.drop_group(group(0));
    assert!(world.machines.iter().all(|machine| machine.disk.engine.is_empty()), "its data is gone");
    world.begin_anew(group(0));
    for node in 0..3 {
        world.crash(node, true);
        let log = &mut world.machines[node].disk.log;
        log.retain(|it| told || !matches!(it.kind, Kind::Reset { index: Index(1), .. }));
        world.machines[node].disk.synced = world.machines[node].disk.log.len();
    }
    (0..3).for_each(|node| world.start(node));
    let leader = world.leader(group(0));
    let client = world.client(leader);
    world.ask(client, "GET k3")
}

#[test]
fn a_group_that_begins_anew_has_nothing_of_an_earlier_one_with_its_number() {
    let _rules = with_rules(Bug::None);
    assert_eq!(of_an_earlier_group(true), "$-1\r\n");
    assert_eq!(of_an_earlier_group(false), "$1\r\n3\r\n", "only because the log says so");
}

#[test]
fn a_founder_begins_when_its_log_has_said_so_durably() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    fill(&mut world, 0, 1);
    world.drop_group(group(0));
    for machine in &mut world.machines {
        (machine.sync_held, machine.disk.full) = (true, true);
    }
    world.begin_anew(group(0));
    let begun =
        |world: &World| world.machines.iter().filter(|one| one.disk.engine.contains_key(&group(0))).count();
    world.pass(1_000);
    assert_eq!(begun(&world), 0, "the log takes nothing");
    world.machines.iter_mut().for_each(|machine| machine.disk.full = false);
    world.pass(1_000);
    assert_eq!(begun(&world), 0, "it is not synced");
    // One of them is taken back before it has begun.
    let now = world.now;
    world.worker(2).stop_replica(now, group(0));
    world.machines.iter_mut().for_each(|machine| machine.sync_held = false);
    // Nothing else wakes a worker whose log is synced.
    (0..3).for_each(|node| world.turn(node));
    world.pass(1_000);
    assert_eq!(begun(&world), 2);
    fill(&mut world, 5, 1);
}

#[test]
fn a_place_is_taken_again_once_the_host_has_cleaned_it() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 4);
    (0..4).for_each(|number| {
        world.leader(group(number));
    });
    let now = world.now;
    let places = world.worker(2).partitions().len();
    world.worker(2).stop_replica(now, group(1));
    world.turn(2);
    assert!(world.worker(2).partitions()[1].is_gone());
    let again = ReplicaId::new(12).expect("a number");
    world.join(group(1), 2, again);
    change(&mut world, group(1), &[(again, Role::Learner)]);
    world.turn(2);
    assert_eq!(world.worker(2).partitions().len(), places, "the same place");
    world.level(group(1));
}

#[test]
fn sixty_four_sleeping_groups_cost_nothing() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 64);
    (0..64).for_each(|number| {
        world.leader(group(number));
    });
    world.pass(10_000);
    let sent = world.sent;
    for node in 0..3 {
        assert_eq!(world.worker(node).deadline(), None, "node {node} has nothing to wait for");
    }
    world.pass(60_000);
    assert_eq!(world.sent, sent, "nobody says anything");
    let leader = world.leader(group(5));
    let suspect = world.machines[leader].worker.as_ref().map(|worker| worker.partitions().len());
    assert_eq!(suspect, Some(64));
    world.crash(leader, false);
    let now: Micros = world.now;
    let node = kernel::NodeId([leader as u8 + 1; 32]);
    for (other, link_broke) in (0..3).filter(|&other| other != leader).zip([false, true]) {
        // What membership suspects, or the link itself tells.
        if link_broke {
            world.worker(other).peer_down(now, node)
        } else {
            world.worker(other).rouse(now, node)
        }
        world.turn(other);
    }
    (0..64).for_each(|number| assert_ne!(world.leader(group(number)), leader));
}

#[test]
fn a_group_of_one_grows_to_three_and_survives_its_founder() {
    let _rules = with_rules(Bug::None);
    let mut world = World::of(3, 1, 1);
    fill(&mut world, 0, 5);
    world.crash(0, true);
    world.start(0);
    fill(&mut world, 5, 5);
    for (node, number) in [(1, 5), (2, 6)] {
        let new = ReplicaId::new(number).expect("a number");
        world.join(group(0), node, new);
        change(&mut world, group(0), &[(new, Role::Learner)]);
        world.level(group(0));
        change(&mut world, group(0), &[(new, Role::Voter)]);
        fill(&mut world, 10 + number, 1);
    }
    world.pass(1_000);
    let leader = world.leader(group(0));
    world.crash(leader, true);
    fill(&mut world, 30, 1);
    let leader = world.leader(group(0));
    let client = world.client(leader);
    assert_eq!(world.ask(client, "DBSIZE"), ":13\r\n");
}
