//! Bytes of any kind.

use control::plan::{self, View};
use control::*;
use kernel::{KeyspaceId, Millis, NodeId};
use proptest::prelude::*;

use super::world::{World, issue, name, node, settings};

fn lived(seed: u64) -> State {
    let mut world = World::new(seed);
    (0..60).for_each(|_| world.happen());
    world.state
}

/// A state that was read, however odd, can be worked with.
fn use_all(mut state: State) {
    let view = View { down: [node(3)].into(), ..View::default() };
    let planned = plan::next(&state, &view).unwrap_or_default();
    let others = [
        issue(1, u64::MAX),
        Operation::Leave { node: node(1) },
        Operation::Remove { node: node(2) },
        Operation::CreateKeyspace { keyspace: KeyspaceId(9), settings: settings("nine", 3, 16) },
    ];
    for (at, operation) in (0_u8..).zip(planned.into_iter().chain(others)) {
        let request = Request { id: OperationId([at; 16]), by: name("x"), at: Millis(u64::MAX), operation };
        let _ = state.apply(&request);
    }
    let _ = diff(&State::new(), &state, NodeId([1; 32]));
    assert_eq!(State::decode(&state.encode()), Ok(state));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_are_read_or_refused(mut bytes: Vec<u8>, later: bool) {
        if let Some(first) = bytes.first_mut() {
            *first = if later { kernel::Version::NEWEST.0 } else { codec::FORMAT };
        }
        if let Ok(request) = Request::decode(&bytes) {
            let _ = State::new().apply(&request);
        }
        if let Ok(state) = State::decode(&bytes) {
            use_all(state);
        }
    }

    #[test]
    fn changed_states_are_refused_or_can_be_worked_with(seed in 0..8_u64, at: usize, with: u8) {
        let mut bytes = lived(seed).encode();
        let at = at % bytes.len();
        bytes[at] = with;
        if let Ok(state) = State::decode(&bytes) {
            use_all(state);
        }
    }

    #[test]
    fn rosters_newcomers_and_welcomes_read_back_and_arbitrary_ones_are_refused(seed in 0..8_u64, mut bytes: Vec<u8>) {
        let roster = lived(seed).roster().expect("there is a cluster");
        prop_assert_eq!(Roster::decode(&roster.encode()), Ok(roster.clone()));
        let (&node, member) = roster.members.first_key_value().expect("it has members");
        let newcomer = Newcomer { zone: member.zone.clone(), addresses: member.addresses.clone() };
        prop_assert_eq!(Newcomer::decode(&newcomer.encode()), Ok(newcomer));
        let welcome = Welcome::new(roster, node).expect("it is a member");
        prop_assert_eq!(Welcome::decode(&welcome.encode()), Ok(welcome));
        if let Some(first) = bytes.first_mut() {
            *first = codec::FORMAT;
        }
        let _ = (Roster::decode(&bytes), Newcomer::decode(&bytes), Welcome::decode(&bytes));
    }

    #[test]
    fn cut_bytes_and_other_versions_are_refused(seed in 0..8_u64, at: usize) {
        let mut bytes = lived(seed).encode();
        prop_assert!(State::decode(&bytes[..at % bytes.len()]).is_err());
        bytes[0] += 1;
        prop_assert!(State::decode(&bytes).is_err());
    }
}
