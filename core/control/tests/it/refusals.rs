//! Every refusal, each with what leads to it.

use std::collections::BTreeSet;

use control::*;
use kernel::{GroupId, KeyspaceId, Millis, NodeId};

use super::world::{World, admit, create, issue, name, node, settings};

const K: KeyspaceId = KeyspaceId(1);
const G: GroupId = GroupId::new(K, 0);

/// Three active members; node 3 joining, node 4 removed; keyspace 1 `orders` with two copies of one partition, and
/// keyspace 2 `lone` with one copy, of which node 0 has all.
fn cluster() -> World {
    let mut world = World::of(3);
    for (keyspace, settings) in [(1, settings("orders", 2, 1)), (2, settings("lone", 1, 1))] {
        world
            .ask(Operation::CreateKeyspace { keyspace: KeyspaceId(keyspace), settings })
            .expect("it is accepted");
    }
    for (keyspace, nodes) in [(1, vec![node(0), node(1)]), (2, vec![node(2)])] {
        let version = world.state.version();
        let wanted = vec![nodes];
        world
            .ask(Operation::Place { keyspace: KeyspaceId(keyspace), version, wanted })
            .expect("it is accepted");
    }
    for number in [3, 4] {
        world.join(number).expect("it is accepted");
    }
    world.ask(Operation::Remove { node: node(4) }).expect("it is accepted");
    world.ask(issue(200, 1_000)).expect("it is accepted");
    world
}

fn user(admin: bool) -> User {
    User { password: [0; 32], rights: Rights { admin, ..Rights::default() } }
}

fn refused(world: &mut World, operation: Operation) -> Refused {
    let text = format!("{operation}");
    world.ask(operation).expect_err(&text)
}

#[test]
fn what_is_wrong_with_members_is_refused() {
    let mut world = cluster();
    let standing = |number, standing, needed| Refused::Standing { node: node(number), standing, needed };
    let used = |number| Operation::Admit {
        token: TokenId([1; 8]),
        hash: [1; 32],
        node: node(number),
        zone: name("z"),
        addresses: vec!["127.0.0.1:1".parse().unwrap()],
    };
    let secret = Operation::Admit {
        token: TokenId([200; 8]),
        hash: [0; 32],
        node: node(9),
        zone: name("z"),
        addresses: vec!["127.0.0.1:1".parse().unwrap()],
    };
    let address = |count| Operation::SetMember {
        node: node(1),
        zone: name("z"),
        addresses: vec!["127.0.0.1:1".parse().unwrap(); count],
    };
    let voters = |numbers: &[u8]| Operation::SetVoters { voters: numbers.iter().map(|&n| node(n)).collect() };
    #[rustfmt::skip] // columns
    let table = [
        (create(9),                                   Refused::ClusterExists),
        (issue(200, 2_000),                           Refused::TokenExists),
        (issue(201, 1),                               Refused::TokenExpired),
        (Operation::RevokeToken { token: TokenId([99; 8]) }, Refused::TokenUnknown),
        (admit(99, 9, "z"),                           Refused::TokenUnknown),
        (secret,                                      Refused::TokenSecret),
        (used(9),                                     Refused::TokenUsed(node(1))),
        (admit(200, 1, "z"),                          Refused::IsMember(node(1))),
        (admit(200, 4, "z"),                          Refused::RemovedBefore(node(4))),
        (Operation::Activate { node: node(4) },       Refused::RemovedBefore(node(4))),
        (Operation::Activate { node: node(9) },       Refused::NotMember(node(9))),
        (Operation::Activate { node: node(1) },       standing(1, Standing::Active, "joining or leaving")),
        (address(0),                                  Refused::Addresses { node: node(1), count: 0 }),
        (address(9),                                  Refused::Addresses { node: node(1), count: 9 }),
        (voters(&[]),                                 Refused::VoterCount(0)),
        (voters(&[0, 1, 2, 5, 6, 7]),                 Refused::VoterCount(6)),
        (voters(&[0, 3]),                             standing(3, Standing::Joining, "active")),
        (voters(&[0, 1, 2]),                          Refused::VotersAtOnce { coming: 2, going: 0 }),
        (Operation::Remove { node: node(0) },         Refused::LastVoter(node(0))),
        (Operation::Remove { node: node(2) },         Refused::OnlyCopy { node: node(2), group: GroupId::new(KeyspaceId(2), 0) }),
        (Operation::Remove { node: node(1) },         Refused::HoldsCopies { node: node(1), copies: 1 }),
    ];
    for (operation, expected) in table {
        assert_eq!(refused(&mut world, operation.clone()), expected, "{operation}");
    }
    world.ask(voters(&[0, 1])).unwrap();
    assert_eq!(refused(&mut world, Operation::Remove { node: node(0) }), Refused::Votes(node(0)));
    world.ask(Operation::Leave { node: node(0) }).unwrap();
    let twice = refused(&mut world, Operation::Leave { node: node(0) });
    assert_eq!(twice, standing(0, Standing::Leaving, "joining or active"));
    world.ask(Operation::Leave { node: node(1) }).unwrap();
    assert_eq!(refused(&mut world, Operation::Leave { node: node(2) }), Refused::LastActive(node(2)));
    let late = Request {
        id: OperationId([9; 16]),
        by: name("late"),
        at: Millis(5_000),
        operation: admit(200, 9, "z"),
    };
    assert_eq!(world.ask_as(late), Err(Refused::TokenExpired));
    let mut nothing = State::new();
    let request = Request { id: OperationId([1; 16]), by: name("x"), at: Millis(0), operation: issue(1, 1) };
    assert_eq!(nothing.apply(&request), Err(Refused::NoCluster));
}

#[test]
fn what_is_wrong_with_keyspaces_and_users_is_refused() {
    let mut world = cluster();
    let make = |keyspace, settings| Operation::CreateKeyspace { keyspace: KeyspaceId(keyspace), settings };
    let alter = |keyspace, settings| Operation::AlterKeyspace { keyspace: KeyspaceId(keyspace), settings };
    let other_mode = Settings { mode: Mode::Multi, ..settings("orders", 2, 1) };
    let fixed = |what| Refused::Fixed { keyspace: K, what };
    let taken = Refused::NameTaken { name: name("orders"), keyspace: K };
    let many: BTreeSet<KeyspaceId> = (0..65).map(KeyspaceId).collect();
    let broad = User { rights: Rights { keyspaces: Some(many), ..Rights::default() }, password: [0; 32] };
    world.ask(Operation::SetUser { name: name("ann"), user: user(true) }).unwrap();
    world.ask(Operation::SetUser { name: name("bob"), user: user(false) }).unwrap();
    #[rustfmt::skip] // columns
    let table = [
        (make(1, settings("new", 1, 1)),     Refused::KeyspaceExists(K)),
        (make(3, settings("orders", 1, 1)),  taken.clone()),
        (make(3, settings("new", 0, 1)),     Refused::Copies(0)),
        (make(3, settings("new", 17, 1)),    Refused::Copies(17)),
        (alter(9, settings("new", 1, 1)),    Refused::KeyspaceUnknown(KeyspaceId(9))),
        (alter(2, settings("orders", 1, 1)), taken),
        (alter(1, settings("orders", 2, 2)), fixed("number of partitions")),
        (alter(1, other_mode),               fixed("mode")),
        (Operation::DropKeyspace { keyspace: KeyspaceId(9), name: name("x") }, Refused::KeyspaceUnknown(KeyspaceId(9))),
        (Operation::DropKeyspace { keyspace: K, name: name("x") },
            Refused::OtherName { keyspace: K, name: name("x"), is: name("orders") }),
        (Operation::RemoveUser { name: name("eve") }, Refused::UserUnknown(name("eve"))),
        (Operation::RemoveUser { name: name("ann") }, Refused::LastAdmin(name("ann"))),
        (Operation::SetUser { name: name("ann"), user: user(false) }, Refused::LastAdmin(name("ann"))),
        (Operation::SetUser { name: name("eve"), user: broad }, Refused::Rights { user: name("eve"), count: 65 }),
    ];
    for (operation, expected) in table {
        assert_eq!(refused(&mut world, operation.clone()), expected, "{operation}");
    }
}

#[test]
fn what_is_wrong_with_placements_and_moves_is_refused() {
    let mut world = cluster();
    let version = world.state.version();
    let place = |version, wanted| Operation::Place { keyspace: K, version, wanted };
    let step = |epoch, step| Operation::Step { group: G, epoch, step };
    let add = |new, old: Option<u8>| Step::Add { new: node(new), old: old.map(node) };
    let shape = |copies| Refused::PlacementCopies { group: G, copies, promised: 2 };
    let (gone, joining) = (node(4), node(3));
    let must = Refused::Standing { node: joining, standing: Standing::Joining, needed: "active" };
    let none = GroupId::new(K, 5);
    let leader = |number| Operation::MoveLeader { group: G, epoch: 1, node: node(number) };
    #[rustfmt::skip] // columns
    let table = [
        (place(version - 1, vec![vec![]]),               Refused::OtherVersion { planned: version - 1, is: version }),
        (place(version, vec![]),                         Refused::PlacementCount { keyspace: K, given: 0, has: 1 }),
        (place(version, vec![vec![node(0)]]),            shape(1)),
        (place(version, vec![vec![node(0), node(0)]]),   shape(1)),
        (place(version, vec![vec![node(0), node(1), node(2)]]), shape(3)),
        (place(version, vec![vec![node(0), joining]]),   must.clone()),
        (place(version, vec![vec![node(0), gone]]),      Refused::RemovedBefore(gone)),
        (step(0, Step::Promote),                         Refused::OtherEpoch { group: G, planned: 0, is: 1 }),
        (step(1, Step::Promote),                         Refused::NoSuchMove { group: G, needs: "has a learner" }),
        (step(1, Step::Forget),                          Refused::NoSuchMove { group: G, needs: "has a copy that was let go" }),
        (step(1, Step::Finish),                          Refused::NoSuchMove { group: G, needs: "has a copy that goes" }),
        (step(1, Step::Abort),                           Refused::NoSuchMove { group: G, needs: "can be given up" }),
        (step(1, add(0, None)),                          Refused::HasCopy { node: node(0), group: G }),
        (step(1, add(2, Some(3))),                       Refused::HasNoCopy { node: joining, group: G }),
        (step(1, add(3, Some(0))),                       must),
        (step(1, Step::Drop { old: node(2) }),           Refused::HasNoCopy { node: node(2), group: G }),
        (step(1, Step::Drop { old: node(1) }),           Refused::TooFewCopies { group: G, left: 1, promised: 2 }),
        (Operation::Step { group: none, epoch: 1, step: Step::Abort }, Refused::PartitionUnknown(none)),
        (leader(2),                                      Refused::HasNoCopy { node: node(2), group: G }),
    ];
    for (operation, expected) in table {
        assert_eq!(refused(&mut world, operation.clone()), expected, "{operation}");
    }
    world.ask(leader(1)).unwrap();
    assert_eq!(world.state.partition(G).unwrap().replicas[0].node, node(1));
    world.ask(step(2, add(2, Some(0)))).unwrap();
    assert_eq!(refused(&mut world, step(3, add(2, Some(1)))), Refused::MoveUnderWay(G));
    assert_eq!(refused(&mut world, step(3, Step::Drop { old: node(0) })), Refused::MoveUnderWay(G));
    let (keyspace, settings) = (KeyspaceId(3), settings("new", 2, 1));
    world.ask(Operation::CreateKeyspace { keyspace, settings }).unwrap();
    let group = GroupId::new(keyspace, 0);
    let early = Operation::Step { group, epoch: 0, step: Step::Abort };
    assert_eq!(refused(&mut world, early), Refused::NotPlaced(group));
}

#[test]
fn one_move_too_many_at_once_is_refused() {
    let mut world = World::of(4);
    let partitions = MOVES_MAX as u16 + 1;
    world.ask(Operation::CreateKeyspace { keyspace: K, settings: settings("wide", 2, partitions) }).unwrap();
    world.settle();
    let mut last = Ok(());
    for at in 0..partitions {
        assert_eq!(last, Ok(()), "{at}");
        let group = GroupId::new(K, at);
        let partition = world.state.partition(group).unwrap();
        let new = (0..4).map(node).find(|&node| partition.replica(node).is_none()).unwrap();
        let (epoch, step) = (partition.epoch, Step::Add { new, old: None });
        last = world.ask(Operation::Step { group, epoch, step }).map(drop);
    }
    assert_eq!(last, Err(Refused::MovesAtOnce));
}

#[test]
fn full_tables_refuse_and_expired_tokens_make_room() {
    let mut world = World::of(1);
    let full = |table, limit: usize| Refused::Full { table, limit: limit as u64 };
    for (count, keyspace) in [(16_384, 0), (16_384, 1), (16_384, 2), (16_384, 3), (1, 4)] {
        let settings = settings(&format!("k{keyspace}"), 1, count);
        let asked = world.ask(Operation::CreateKeyspace { keyspace: KeyspaceId(keyspace), settings });
        let expected = if keyspace == 4 { Some(full(Table::Partitions, PARTITIONS_MAX)) } else { None };
        assert_eq!(asked.err(), expected);
    }
    let mut state = World::of(1).state;
    let mut asked = 0_u64;
    let mut ask = |at: u64, operation| {
        asked += 1;
        let mut id = [255; 16];
        id[..8].copy_from_slice(&asked.to_le_bytes());
        state.apply(&Request { id: OperationId(id), by: name("x"), at: Millis(at), operation })
    };
    let token = |number: u64| {
        let (mut token, number) = ([0; 8], number.to_le_bytes());
        token.copy_from_slice(&number);
        Operation::IssueToken { token: TokenId(token), hash: [0; 32], expires: Millis(100) }
    };
    for number in 0..SECRETS_MAX as u64 {
        ask(1, token(number)).unwrap();
    }
    assert_eq!(ask(1, token(900)), Err(full(Table::Secrets, SECRETS_MAX)));
    assert_eq!(ask(100, token(901)), Err(Refused::TokenExpired));
    ask(100, issue(250, 200)).expect("the expired ones make room");
    let person = |number: usize| Operation::SetUser { name: name(&format!("u{number}")), user: user(true) };
    for number in 0..USERS_MAX {
        ask(100, person(number)).unwrap();
    }
    assert_eq!(ask(100, person(USERS_MAX)), Err(full(Table::Users, USERS_MAX)));
    assert_eq!(state.audit().len(), AUDIT_MAX);
    assert_eq!(State::decode(&state.encode()), Ok(state));
}

#[test]
fn a_retry_gets_the_same_answer_and_changes_nothing() {
    let mut world = cluster();
    let last = |world: &World| world.log.last().cloned().unwrap();
    let first = world.ask(admit(200, 9, "z")).unwrap();
    let (request, digest) = (last(&world), world.state.digest());
    assert_eq!(world.ask_as(request), Ok(first));
    assert_eq!(world.state.digest(), digest);
    let again = world.ask(admit(200, 9, "z")).unwrap();
    assert_eq!(again.replica, first.replica, "it did not hear the answer and asks through another member");
    let line = world.state.audit().back().unwrap();
    assert_eq!((line.by.as_str(), line.what.as_str()), ("test", "admit 09090909 in zone z"));
    let _ = world.ask(Operation::Remove { node: NodeId([0; 32]) });
    let line = world.state.audit().back().unwrap();
    assert!(line.result.as_ref().is_err_and(|text| text.contains("last voter")), "{line:?}");
}

#[test]
fn a_refused_request_stays_refused_although_it_would_be_accepted_now() {
    let mut world = World::of(1);
    let refused = world.ask(Operation::Leave { node: node(0) }).unwrap_err();
    let request = world.log.last().cloned().unwrap();
    world.join(1).unwrap();
    world.ask(Operation::Activate { node: node(1) }).unwrap();
    assert_eq!(world.ask_as(request), Err(Refused::Before(refused.to_string())));
    assert!(
        world.ask(Operation::Leave { node: node(0) }).is_ok(),
        "the control: another request is another matter"
    );
}

#[test]
fn full_tables_of_members_keyspaces_copies_and_numbers_refuse() {
    let full = |table, limit: u64| Err(Refused::Full { table, limit });
    let mut state = World::of(1).state;
    let mut asked = 0_u64;
    let mut ask = |state: &mut State, operation| {
        asked += 1;
        let mut id = [255; 16];
        id[..8].copy_from_slice(&asked.to_le_bytes());
        // Each token has expired when the next one is issued.
        state.apply(&Request { id: OperationId(id), by: name("x"), at: Millis(asked * 10), operation })
    };
    for number in 0..=MEMBERS_MAX as u64 {
        let (mut bytes, token, hash) = ([1; 32], TokenId(number.to_le_bytes()), [0; 32]);
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let expires = Millis((2 * number + 2) * 10 + 1);
        ask(&mut state, Operation::IssueToken { token, hash, expires }).expect("the others have expired");
        let (zone, addresses) = (name("z"), vec!["127.0.0.1:1".parse().unwrap()]);
        let admitted =
            ask(&mut state, Operation::Admit { token, hash, node: NodeId(bytes), zone, addresses });
        // The first member makes one more.
        let last = number + 1 >= MEMBERS_MAX as u64;
        assert_eq!(admitted.is_err(), last, "{number}");
        assert!(!last || admitted == full(Table::Members, MEMBERS_MAX as u64));
    }
    for keyspace in 0..=KEYSPACES_MAX as u16 {
        let settings = settings(&format!("k{keyspace}"), 1, 1);
        let made = ask(&mut state, Operation::CreateKeyspace { keyspace: KeyspaceId(keyspace), settings });
        let last = usize::from(keyspace) == KEYSPACES_MAX;
        assert!(made.is_ok() != last && (!last || made == full(Table::Keyspaces, KEYSPACES_MAX as u64)));
    }
    let mut world = World::of(17);
    world.ask(Operation::CreateKeyspace { keyspace: K, settings: settings("wide", 16, 1) }).unwrap();
    world.settle();
    let partition = world.state.partition(G).unwrap();
    let new = (0..17).map(node).find(|&node| partition.replica(node).is_none()).unwrap();
    let (epoch, step) = (partition.epoch, Step::Add { new, old: None });
    let add = Operation::Step { group: G, epoch, step };
    assert_eq!(refused(&mut world, add), Refused::TooManyCopies(G));

    // Behind the format, the cluster, the version and the time, one byte each but the cluster, is the next number.
    let mut bytes = World::of(1).state.encode();
    assert_eq!(bytes[20], 2, "the first member has number 1");
    let mut last = Vec::new();
    kernel::codec::put_varint(&mut last, consensus::members::NUMBER_MAX);
    bytes.splice(20..21, last);
    let mut state = State::decode(&bytes).expect("a sound state");
    let end = Millis(u64::MAX);
    ask(&mut state, Operation::IssueToken { token: TokenId([1; 8]), hash: [1; 32], expires: end }).unwrap();
    assert_eq!(ask(&mut state, admit(1, 9, "z")), full(Table::Replicas, consensus::members::NUMBER_MAX));
}

#[test]
fn the_largest_placement_fits_a_request() {
    let mut nodes = (0..MEMBERS_MAX as u64).map(|number| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        NodeId(bytes)
    });
    let all: Vec<NodeId> = nodes.by_ref().collect();
    let wanted: Vec<Vec<NodeId>> =
        (0..16_384).map(|at| (0..16).map(|copy| all[(at + copy * 61) % all.len()]).collect()).collect();
    let operation = Operation::Place { keyspace: K, version: u64::MAX, wanted };
    let request = Request { id: OperationId([0; 16]), by: name("x"), at: Millis(0), operation };
    let bytes = request.encode();
    assert!(bytes.len() <= REQUEST_BYTES_MAX, "{}", bytes.len());
    assert_eq!(Request::decode(&bytes), Ok(request));
}
