//! A cluster's version: it rises once, and everything is written in words that all members have.

use control::codec::{FORMAT, version_of};
use control::plan::{self, View};
use control::*;
use kernel::codec::DecodeError;
use kernel::{KeyspaceId, Millis, NodeId, Version};
use proptest::prelude::*;

use super::world::{World, issue, name, node, settings};

const K: KeyspaceId = KeyspaceId(1);

fn later(text: &str) -> Settings {
    let reading = Reading { from: ReadFrom::Any, stale_ms_max: 250 };
    Settings { reading, ..settings(text, 2, 3) }
}

fn request(operation: Operation) -> Request {
    Request { id: OperationId([3; 16]), by: name("x"), at: Millis(9), operation }
}

#[test]
fn a_request_is_written_in_the_oldest_version_that_has_words_for_it() {
    let (first, third, newest) = (Version(2), Version(3), Version::NEWEST);
    let lease = Reading { from: ReadFrom::Lease, ..Reading::default() };
    let lease = Settings { reading: lease, ..settings("a", 2, 3) };
    let same = Settings { reading: Reading::default(), ..later("a") };
    let set = Operation::SetMesh { after: Some(4), settings: MeshSettings::default() };
    #[rustfmt::skip] // columns
    let table = [
        (issue(1, 5),                                                            first),
        (Operation::RemoveUser { name: name("a") },                              first),
        (Operation::CreateKeyspace { keyspace: K, settings: same.clone() },      first),
        (Operation::AlterKeyspace { keyspace: K, settings: same },               first),
        (Operation::CreateKeyspace { keyspace: K, settings: later("a") },        third),
        (Operation::AlterKeyspace { keyspace: K, settings: later("a") },         third),
        (Operation::CreateKeyspace { keyspace: K, settings: lease.clone() },     third),
        (Operation::AlterKeyspace { keyspace: K, settings: lease },              third),
        (Operation::Raise { to: third },                                         third),
        (Operation::Raise { to: newest },                                        newest),
        (set,                                                                    Version(4)),
        (Operation::RestoreMesh { after: None, to: 3 },                          Version(4)),
    ];
    for (operation, needs) in table {
        let text = operation.to_string();
        assert_eq!(operation.needs(), needs, "{text}");
        let mut bytes = request(operation.clone()).encode();
        assert_eq!(version_of(&bytes), Some(needs), "{text}");
        assert_eq!(Request::decode(&bytes), Ok(request(operation)), "{text}");
        // Under another version's byte it is nobody's.
        bytes[0] = if needs == first { newest.0 } else { FORMAT };
        assert_eq!(Request::decode(&bytes), Err(DecodeError::Invalid), "{text}");
        bytes[0] = newest.0 + 1;
        assert_eq!(
            (version_of(&bytes), Request::decode(&bytes)),
            (Some(Version(newest.0 + 1)), Err(DecodeError::Invalid))
        );
    }
}

#[test]
fn what_is_new_is_refused_until_the_cluster_rises_and_it_rises_once() {
    let mut world = World::of(2);
    assert_eq!(world.state.speaks(), Version::OLDEST);
    world.ask(Operation::CreateKeyspace { keyspace: K, settings: settings("a", 2, 3) }).unwrap();
    let (needs, is) = (Version::NEWEST, Version::OLDEST);
    let set = Operation::SetMesh { after: None, settings: MeshSettings::default() };
    assert_eq!(world.ask(set.clone()), Err(Refused::NeedsVersion { needs, is }));
    let restore = Operation::RestoreMesh { after: None, to: 0 };
    assert_eq!(world.ask(restore), Err(Refused::NeedsVersion { needs, is }));
    let before = world.state.encode();
    assert_eq!((before[0], State::decode(&before)), (is.0, Ok(world.state.clone())));
    // The plan asks for it when all are heard to speak it, before anything else.
    let heard = |spoken| View { spoken, ..View::default() };
    assert_ne!(plan::next(&world.state, &heard(is)), Ok(vec![Operation::Raise { to: needs }]));
    assert_eq!(plan::next(&world.state, &heard(needs)), Ok(vec![Operation::Raise { to: needs }]));
    world.ask(Operation::Raise { to: needs }).unwrap();
    assert_eq!(world.state.speaks(), needs);
    assert_ne!(plan::next(&world.state, &heard(needs)), Ok(vec![Operation::Raise { to: needs }]));
    for to in [needs, is] {
        assert_eq!(world.ask(Operation::Raise { to }), Err(Refused::AtVersion(needs)));
    }
    world.ask(set).unwrap();
    assert_eq!(world.state.revision_number(), 1);
    let after = world.state.encode();
    assert_eq!((after[0], State::decode(&after)), (needs.0, Ok(world.state.clone())));
    // What the first version's words are for is still said in them, and means the default.
    world.ask(Operation::AlterKeyspace { keyspace: K, settings: later("a") }).unwrap();
    world.ask(Operation::AlterKeyspace { keyspace: K, settings: settings("a", 2, 3) }).unwrap();
    assert_eq!(world.state.keyspaces()[&K].settings.reading, Reading::default());
}

#[test]
fn members_that_apply_the_same_requests_are_equal_across_the_rise() {
    let mut world = World::of(3);
    world.ask(Operation::CreateKeyspace { keyspace: K, settings: settings("a", 2, 3) }).unwrap();
    let mut other = State::decode(&world.state.encode()).unwrap();
    let more = [
        Operation::Raise { to: Version::NEWEST },
        Operation::AlterKeyspace { keyspace: K, settings: later("a") },
        Operation::SetMesh { after: Some(0), settings: MeshSettings::default() },
        Operation::Leave { node: node(2) },
    ];
    for operation in more {
        world.ask(operation).unwrap();
        let last = world.log.last().unwrap();
        other.apply(&Request::decode(&last.encode()).unwrap()).unwrap();
        assert_eq!(other.digest(), world.state.digest());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn states_of_both_versions_read_back_and_differ_in_nothing_else(seed in 0..32_u64) {
        let mut world = World::new(seed);
        (0..40).for_each(|_| world.happen());
        let state = world.state.clone();
        let encoded = state.encode();
        prop_assert_eq!(version_of(&encoded), Some(state.speaks()));
        prop_assert_eq!(State::decode(&encoded), Ok(state.clone()));
        if state.speaks() == Version::OLDEST {
            world.ask(Operation::Raise { to: Version::NEWEST }).expect("it may");
            let raised = State::decode(&world.state.encode()).expect("it reads back");
            prop_assert_eq!(&raised, &world.state);
            prop_assert_eq!(raised.members(), state.members());
            prop_assert_eq!(raised.keyspaces(), state.keyspaces());
            prop_assert_eq!(raised.users(), state.users());
            let _ = diff(&state, &raised, NodeId([0; 32]));
        }
    }
}
