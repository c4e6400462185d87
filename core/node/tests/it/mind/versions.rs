//! Members are exchanged one by one for ones that speak the next version, and back, until all do.

use std::collections::BTreeSet;

use control::mesh::Part;
use control::{MeshSettings, Operation};
use kernel::planted::Bug;
use kernel::{KeyspaceId, PeerId, Spoken, Version};
use node::cluster::mind::Answer;

use super::scenes::join_as;
use super::with_rules;
use super::world::{SECOND, World, settings};

fn older() -> Spoken {
    Spoken::pinned(Version::OLDEST).expect("it is known")
}

/// Three members that speak the older version.
fn cluster(seed: u64) -> World {
    let mut world = World::beginning_at(seed, Version::OLDEST);
    world.until(10 * SECOND, |world| world.leader().is_some()).expect("it comes");
    for via in 0..2 {
        join_as(&mut world, via, older());
        world.come_to_rest().expect("it comes");
    }
    world
}

/// A change that only the newer version has words for.
fn newer() -> Operation {
    let service = Part { name: "shop".into(), uses: BTreeSet::new(), text: "tries = 2\n".into() };
    Operation::SetMesh {
        after: Some(0),
        settings: MeshSettings { services: vec![service], ..MeshSettings::default() },
    }
}

fn asked(world: &mut World, node: usize, operation: Operation) -> Answer {
    let ticket = world.ask(node, operation);
    world.until(10 * SECOND, |world| world.answer(ticket).is_some()).expect("it comes");
    world.answer(ticket).cloned().expect("it came")
}

fn exchange(world: &mut World, node: usize, spoken: Spoken) {
    world.stop(node, false);
    world.hosts[node].spoken = spoken;
    world.start(node).expect("it starts");
    world.come_to_rest().expect("it comes");
}

fn all_at(world: &World, version: Version) -> bool {
    (0..3).all(|node| world.is_live(node) && world.mind(node).state().speaks() == version)
}

#[test]
fn a_cluster_is_raised_once_its_last_member_is_exchanged_and_not_before() {
    let _rules = with_rules(Bug::None);
    let mut world = cluster(1);
    let create = |at| Operation::CreateKeyspace { keyspace: KeyspaceId(at), settings: settings(at, 2, 4) };
    for (node, at) in [(0, 30), (1, 31)] {
        exchange(&mut world, node, Spoken::ALL);
        world.run(20 * SECOND).unwrap();
        assert!(all_at(&world, Version::OLDEST), "{node} is exchanged, and others are not");
        // Whoever leads and whoever asks, they work together.
        for via in 0..3 {
            let answer = asked(&mut world, via, create(at + 10 * via as u16));
            assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
        }
        // What is new is refused, and it is said because of whom.
        let Answer::Refused(text) = asked(&mut world, node, newer()) else { panic!("it is too early") };
        let last = PeerId(world.hosts[2].id).to_string();
        assert!(text.contains("version 4") && text.contains(&last), "{text}");
        assert!(!text.contains(&PeerId(world.hosts[node].id).to_string()), "{text}");
        world.come_to_rest().unwrap();
    }
    // Back and forth, as long as one is left.
    exchange(&mut world, 0, older());
    exchange(&mut world, 2, Spoken::ALL);
    world.run(20 * SECOND).unwrap();
    assert!(all_at(&world, Version::OLDEST));
    exchange(&mut world, 0, Spoken::ALL);
    world.until(20 * SECOND, |world| all_at(world, Version::NEWEST)).unwrap();
    let raised = world.mind(0).state().audit().iter().filter(|line| line.what.starts_with("raise")).count();
    assert_eq!(raised, 1);
    assert!(matches!(asked(&mut world, 1, newer()), Answer::Done(_)));
    world.come_to_rest().unwrap();
    assert!((0..3).all(|node| revised(&world, node)));
    // A restart, and a newcomer that gets all of it as a snapshot.
    exchange(&mut world, 1, Spoken::ALL);
    let fourth = join_as(&mut world, 1, Spoken::ALL);
    world.come_to_rest().unwrap();
    assert_eq!(world.mind(fourth).state().speaks(), Version::NEWEST);
    assert!(revised(&world, 1) && revised(&world, fourth));
}

#[test]
fn a_member_that_is_away_keeps_its_cluster_from_rising() {
    let _rules = with_rules(Bug::None);
    let mut world = cluster(2);
    exchange(&mut world, 0, Spoken::ALL);
    exchange(&mut world, 1, Spoken::ALL);
    world.stop(2, false);
    world.run(60 * SECOND).unwrap();
    assert_eq!(world.mind(0).state().speaks(), Version::OLDEST, "nobody knows what it will come back as");
    world.start(2).unwrap();
    world.come_to_rest().unwrap();
    assert!(all_at(&world, Version::OLDEST));
}

#[test]
fn who_is_exchanged_back_after_the_rise_does_not_start_or_hears_nothing_more() {
    let _rules = with_rules(Bug::None);
    let mut world = cluster(3);
    exchange(&mut world, 0, Spoken::ALL);
    exchange(&mut world, 1, Spoken::ALL);
    world.stop(2, false);
    world.hosts[2].spoken = Spoken::ALL;
    world.start(2).unwrap();
    // It is stopped in the moment in which the others rise, so its disk knows nothing of that yet.
    let rose = |world: &World| (0..2).any(|node| world.mind(node).state().speaks() == Version::NEWEST);
    while !rose(&world) {
        world.run(200).unwrap();
    }
    assert_eq!(world.mind(2).state().speaks(), Version::OLDEST);
    world.stop(2, false);
    world.hosts[2].spoken = older();
    world.start(2).unwrap();
    world.run(20 * SECOND).unwrap();
    assert!(world.is_live(2));
    assert_eq!(world.mind(2).state().speaks(), Version::OLDEST);
    let others = [world.hosts[0].id, world.hosts[1].id];
    assert!(others.iter().all(|&other| world.mind(2).spoken_by(other).is_none()), "nobody is linked to it");
    // A link that came up before others knew of the rise: it does not go on as if nothing had been decided.
    world.careless = true;
    world.run(5 * SECOND).unwrap();
    assert_eq!(world.mind(2).dropped().unreadable, 1);
    assert!(world.mind(2).is_outrun() && !world.mind(0).is_outrun(), "and says so");
    assert_eq!(world.mind(2).state().speaks(), Version::OLDEST);
    world.careless = false;
    // The others go on.
    assert!(matches!(asked(&mut world, 0, newer()), Answer::Done(_)));
    // Exchanged once more, it is a member like the others; and once a checkpoint has it, there is no way back.
    exchange(&mut world, 2, Spoken::ALL);
    assert!(revised(&world, 2) && !world.mind(2).is_outrun());
    world.until(60 * SECOND, |world| checkpointed(world, 2)).unwrap();
    world.stop(2, false);
    world.hosts[2].spoken = older();
    world.start(2).unwrap();
    assert!(!world.is_live(2), "it refuses to start");
}

/// Has the revision that was asked for.
fn revised(world: &World, node: usize) -> bool {
    let revision = world.mind(node).state().revision();
    let settings = revision.and_then(|revision| revision.settings.as_ref());
    settings.is_some_and(|settings| settings.services.iter().any(|one| one.name == "shop"))
}

/// Has the state at the newest version on its disk.
fn checkpointed(world: &World, node: usize) -> bool {
    let checkpoint = world.hosts[node].disk.checkpoint.as_ref();
    checkpoint.is_some_and(|(_, state)| control::codec::version_of(state) == Some(Version::NEWEST))
}
