//! Laws over random lives of a cluster.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::RwLock;

use consensus::Role;
use control::plan::{self, Progress};
use control::*;
use kernel::planted::{self, Bug};
use kernel::{GroupId, KeyspaceId};

use super::world::{World, node, settings};

const SEEDS: u64 = 150;
const EVENTS: usize = 150;

/// A bug is planted in the whole process: who plants one is alone.
static PLANTED: RwLock<()> = RwLock::new(());

/// Lives through `seed`, checks every law after every request, then lets the cluster come to rest.
fn live(seed: u64) -> World {
    let mut world = World::new(seed);
    (0..EVENTS).for_each(|_| world.happen());
    world.view.down.clear();
    world.settle();
    world
}

#[test]
fn copies_never_fall_below_the_promise_and_the_placement_comes_to_rest() {
    let _alone = PLANTED.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut moved = 0;
    for seed in 0..SEEDS {
        let world = live(seed);
        let state = &world.state;
        assert!(Progress::total(state).is_done(), "seed {seed}");
        for (group, partition) in state.partitions() {
            let copies = state.keyspaces()[&group.keyspace()].settings.copies;
            assert_eq!(partition.replicas.len(), state.promised(copies), "seed {seed} {group}");
            assert!(
                partition.replicas.iter().all(|it| state.members()[&it.node].standing == Standing::Active)
            );
        }
        assert_eq!(state.voters(), plan::voters(state, &world.view), "seed {seed}");
        assert!(state.members().values().all(|member| member.standing != Standing::Leaving), "seed {seed}");
        moved += state.partitions().filter(|(_, it)| it.epoch > 3).count();
    }
    assert!(moved > 50, "only {moved} partitions moved: the lives are too quiet to say anything");
}

#[test]
fn the_same_requests_give_the_same_digest_and_a_snapshot_goes_on_as_its_state() {
    let _alone = PLANTED.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    for seed in 0..20 {
        let world = live(seed);
        let mut replayed = State::new();
        for (at, request) in world.log.iter().enumerate() {
            let _ = replayed.apply(&Request::decode(&request.encode()).expect("it reads back"));
            if at == world.log.len() / 2 {
                let snapshot = State::decode(&replayed.encode()).expect("it reads back");
                assert_eq!(snapshot, replayed);
                replayed = snapshot;
            }
        }
        assert_eq!(replayed.digest(), world.state.digest(), "seed {seed}");
        assert_ne!(replayed.digest(), State::new().digest());
    }
}

#[test]
fn every_planted_bug_is_noticed() {
    let _alone = PLANTED.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    for &bug in Bug::CONTROL {
        planted::choose(bug);
        let noticed = (0..SEEDS).any(|seed| catch_unwind(AssertUnwindSafe(|| live(seed))).is_err());
        planted::choose(Bug::None);
        assert!(noticed, "{bug:?}");
    }
}

#[test]
fn a_node_that_joins_gets_its_share_and_one_that_leaves_takes_nothing_along() {
    let _alone = PLANTED.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut world = World::of(3);
    let (keyspace, settings) = (KeyspaceId(1), settings("orders", 3, 12));
    world.ask(Operation::CreateKeyspace { keyspace, settings }).unwrap();
    world.settle();
    assert_eq!(world.state.voters().len(), 3);
    world.join(3).unwrap();
    world.settle();
    assert_eq!(world.state.members()[&node(3)].standing, Standing::Active);
    // It shares its zone with node 0: that every zone has a copy of each partition comes before even load.
    let kept = |number| world.state.kept_by(node(number)).count();
    assert_eq!([kept(0), kept(1), kept(2), kept(3)], [6, 12, 12, 6]);
    world.ask(Operation::Leave { node: node(0) }).unwrap();
    world.settle();
    let gone = &world.state.members()[&node(0)];
    assert!(matches!(gone.standing, Standing::Removed { .. }), "{gone:?}");
    assert_eq!((gone.role, world.state.kept_by(node(0)).count()), (Role::Gone, 0));
    assert_eq!(world.state.voters().len(), 3);
}

#[test]
fn leaders_of_many_keyspaces_are_even_over_the_nodes_and_stay_so() {
    let _alone = PLANTED.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut world = World::of(1);
    for keyspace in 0..16 {
        let settings = settings(&format!("k{keyspace}"), 3, if keyspace == 1 { 64 } else { 1 });
        world.ask(Operation::CreateKeyspace { keyspace: KeyspaceId(keyspace), settings }).unwrap();
    }
    world.settle();
    for number in 1..3 {
        world.join(number).unwrap();
        world.settle();
    }
    let leads = |world: &World, only: Option<KeyspaceId>| {
        let of = |number| {
            let its = world.state.partitions().filter(|(_, it)| it.replicas[0].node == node(number));
            its.filter(|(group, _)| only.is_none_or(|only| group.keyspace() == only)).count()
        };
        [of(0), of(1), of(2)]
    };
    let all = leads(&world, None);
    assert_eq!((all.iter().sum::<usize>(), all.iter().min()), (79, Some(&26)), "{all:?}");
    let within = leads(&world, Some(KeyspaceId(1)));
    assert_eq!(within.iter().min(), Some(&21), "{within:?}");
    let before = world.state.version();
    world.settle();
    assert_eq!(world.state.version(), before, "nothing is moved for the sake of leaders");
}

#[test]
fn copies_of_a_node_that_is_down_are_made_elsewhere_if_there_is_a_place() {
    let _alone = PLANTED.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    for (members, moved) in [(3, false), (4, true)] {
        let mut world = World::of(members);
        let (keyspace, settings) = (KeyspaceId(1), settings("orders", 3, 4));
        world.ask(Operation::CreateKeyspace { keyspace, settings }).unwrap();
        world.settle();
        world.view.down.insert(node(1));
        world.settle();
        assert_eq!(world.state.kept_by(node(1)).count() == 0, moved, "{members} members");
        assert_eq!(world.state.members()[&node(1)].standing, Standing::Active, "it may come back");
        assert_eq!(world.state.voters().contains(&node(1)), !moved, "{members} members");
    }
}

#[test]
fn nothing_is_planned_on_what_the_host_has_not_seen() {
    let _alone = PLANTED.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut world = World::of(3);
    let (keyspace, settings) = (KeyspaceId(1), settings("orders", 2, 1));
    world.ask(Operation::CreateKeyspace { keyspace, settings }).unwrap();
    world.settle();
    let group = GroupId::new(keyspace, 0);
    let partition = world.state.partition(group).unwrap().clone();
    let new = (0..3).map(node).find(|&node| partition.replica(node).is_none()).unwrap();
    let old = partition.replicas[0].node;
    world.ask(Operation::Leave { node: old }).unwrap();
    let [place] = &plan::next(&world.state, &World::of(1).view).unwrap()[..] else { panic!("one placement") };
    world.ask(place.clone()).unwrap();
    world.see_all();
    world.view.settled.remove(&CONTROL);
    let step = |world: &World| match &plan::next(&world.state, &world.view).unwrap()[..] {
        [Operation::Step { step, .. }] => Some(*step),
        [] => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(step(&world), Some(Step::Add { new, old: Some(old) }));
    let epoch = world.state.partition(group).unwrap().epoch;
    let add = Step::Add { new, old: Some(old) };
    let id = world.ask(Operation::Step { group, epoch, step: add }).unwrap().replica.expect("a new copy");
    assert_eq!(step(&world), None, "the learner has not caught up");
    world.view.caught_up.insert(id);
    assert_eq!(step(&world), Some(Step::Promote));
    world.ask(Operation::Step { group, epoch: epoch + 1, step: Step::Promote }).unwrap();
    world.view.settled.remove(&group);
    assert_eq!(step(&world), None, "the new copy may not vote yet");
    world.view.settled.insert(group);
    assert_eq!(step(&world), Some(Step::Finish));
    world.ask(Operation::Step { group, epoch: epoch + 2, step: Step::Finish }).unwrap();
    let going = duties(&world, old);
    assert_eq!((going.role, going.members.len()), (Role::Gone, 2), "it goes on while its group may need it");
    world.view.settled.remove(&group);
    assert_eq!(step(&world), None, "the group has not let it go");
    let abort = Operation::Step { group, epoch: epoch + 3, step: Step::Abort };
    assert!(matches!(world.ask(abort), Err(Refused::NoSuchMove { .. })), "it is too late for that");
    world.view.settled.insert(group);
    assert_eq!(step(&world), Some(Step::Forget));
    let late = &duties(&world, new);
    assert_eq!(late.founders, None, "who came later learns");
    assert!(duties(&world, old).founders.is_some(), "who was there began the group");
}

fn duties(world: &World, of: kernel::NodeId) -> Duty {
    control::diff::duties(&world.state, of)[&GroupId::new(KeyspaceId(1), 0)].clone()
}
