//! A cluster of one survivor: what it keeps, what it can never be confused with, and that it goes on.

use std::collections::BTreeSet;

use consensus::Role;
use control::plan::{self, View};
use control::recover::{NUMBERS_LEFT_OUT, Recovery};
use control::*;
use kernel::{GroupId, KeyspaceId, Millis};

use super::world::{World, name, node, settings};

const NEW: ClusterId = ClusterId([9; 16]);

fn recovery<'a>(number: u8, copies: &'a BTreeSet<GroupId>) -> Recovery<'a> {
    Recovery { cluster: NEW, node: node(number), copies, at: Millis(77) }
}

/// Five members with partitions everywhere, after a while.
fn five() -> World {
    let mut world = World::of(5);
    for (id, partitions) in [(0, 1), (1, 16)] {
        let settings = settings(&format!("k{id}"), 3, partitions);
        world.ask(Operation::CreateKeyspace { keyspace: KeyspaceId(id), settings }).expect("accepted");
    }
    world.settle();
    world
}

#[test]
fn a_survivor_keeps_what_it_has_and_nothing_of_it_can_be_taken_for_the_old() {
    let (before, mut some_lost) = (five().state, false);
    for survivor in 0..5 {
        let own = node(survivor);
        let copies: BTreeSet<GroupId> = before.kept_by(own).map(|(group, _)| group).collect();
        assert!(!copies.is_empty());
        some_lost |= copies.len() < 17;
        let state = before.recovered(&recovery(survivor, &copies)).unwrap();
        assert_eq!(State::decode(&state.encode()).unwrap(), state, "it is sound");
        assert_eq!(state.cluster(), Some(NEW));
        assert_eq!((state.users(), state.secrets().len()), (before.users(), 0));
        let given: u64 = before.members().values().map(|member| member.replica.get()).max().unwrap();
        for (other, member) in state.members() {
            if *other == own {
                assert_eq!((member.standing, member.role), (Standing::Active, Role::Voter));
                assert!(member.replica.get() > given + NUMBERS_LEFT_OUT);
            } else {
                assert_eq!((member.is_present(), member.role), (false, Role::Gone));
                assert_eq!(member.replica, before.members()[other].replica, "a tombstone keeps its number");
            }
        }
        for (group, partition) in state.partitions() {
            let old = before.partition(group).unwrap();
            assert!(partition.epoch > old.epoch && partition.moving.is_none());
            let has: Vec<_> = partition.replicas.iter().map(|replica| replica.node).collect();
            assert_eq!(has, if copies.contains(&group) { vec![own] } else { vec![] });
            assert!(partition.replicas.iter().all(|it| it.id.get() > given + NUMBERS_LEFT_OUT));
            assert_eq!(partition.founders(), None, "nobody begins it with nothing");
        }
        assert_eq!(state.audit().back().unwrap().id.0, NEW.0);
    }
    assert!(some_lost, "a survivor that has everything is the easy case");
}

#[test]
fn what_is_lost_begins_anew_and_others_join() {
    let mut world = five();
    let own: BTreeSet<GroupId> = world.state.kept_by(node(3)).map(|(group, _)| group).collect();
    assert!(own.len() < 17, "some are lost");
    let mut state = world.state.recovered(&recovery(3, &own)).unwrap();
    let view = View { settled: [CONTROL].into(), ..View::default() };
    for id in 100..110 {
        let Some(operation) = plan::placement(&state, &view).unwrap() else { break };
        let ask = Request { id: OperationId([id; 16]), by: name("test"), at: Millis(99), operation };
        state.apply(&ask).unwrap();
    }
    for (group, partition) in state.partitions() {
        assert_eq!(partition.replicas.len(), 1, "{group} has its copy");
        assert_eq!(
            partition.founders().is_none(),
            own.contains(&group),
            "{group}: only what is lost is founded"
        );
    }
    // The laws that hold for every cluster hold for this one.
    world.take_over(state);
    for number in 10..13 {
        world.join(number).unwrap();
    }
    world.settle();
    assert_eq!(world.state.active().count(), 4);
    assert!(world.state.partitions().all(|(_, partition)| partition.replicas.len() == 3));
    let back = world.join(1).unwrap_err();
    assert!(matches!(back, Refused::RemovedBefore(other) if other == node(1)), "{back}");
}

#[test]
fn who_is_no_member_recovers_nothing() {
    let state = five().state;
    let none = BTreeSet::new();
    assert_eq!(State::new().recovered(&recovery(0, &none)), Err(Refused::NoCluster));
    assert_eq!(state.recovered(&recovery(9, &none)), Err(Refused::NotMember(node(9))));
    let alone = state.recovered(&recovery(0, &none)).unwrap();
    assert_eq!(alone.recovered(&recovery(1, &none)), Err(Refused::RemovedBefore(node(1))));
}
