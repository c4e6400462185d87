//! Nodes that join, find, store and forget; and those that lie.

use kernel::{Micros, Rng};
use p2p::kad::{
    BUCKETS, Command, Config, ConfigError, Dht, Envelope, Message, Outcome, PUBLISHED_MAX, QUERIES_MAX,
    Record, Refusal, Region, Target,
};
use p2p::{Input, Key, Keys, Protocol, RequestId};

use crate::kad_world::{Points, T, VALID, World, config, found, record, sign, with};

fn key_at(rng: &mut Rng) -> Key {
    Key::from_words([rng.next_u64(), 0, 0, 0])
}

#[test]
fn after_joining_everyone_finds_the_nearest() {
    for paths in [1, 4] {
        let mut world = World::joined(1, 300, config(paths));
        let mut rng = Rng::new(2);
        for round in 0..60 {
            let (from, key) = (rng.below(300) as u32, key_at(&mut rng));
            let got = found(world.run(from, Command::FindNode(T, Target { key, name: None })));
            let wanted: Vec<u32> = world.nearest(key).into_iter().filter(|&n| n != from).take(20).collect();
            assert_eq!(got, wanted, "paths {paths}, round {round}");
        }
    }
}

#[test]
fn the_nearest_that_live_are_found_when_a_third_is_dead() {
    let mut world = World::joined(3, 300, config(1));
    let mut rng = Rng::new(4);
    (0..300).filter(|n| n % 3 == 1).for_each(|n| world.dead[n] = true);
    for _ in 0..60 {
        let (from, key) = (rng.below(100) as u32 * 3, key_at(&mut rng));
        let got = found(world.run(from, Command::FindNode(T, Target { key, name: None })));
        let nearest = world.nearest(key).into_iter().find(|&n| n != from);
        assert_eq!(got.first().copied(), nearest);
    }
}

#[test]
fn a_value_is_stored_at_the_nearest_and_found_from_anywhere() {
    let mut world = World::joined(5, 200, config(1));
    let value = record(9, b"label", 1, b"payload");
    let Outcome::Stored(T, at, _) = world.run(3, Command::Put(T, value.clone())) else { panic!() };
    assert_eq!(at, 20);
    let holders: Vec<u32> = world.nearest(value.key()).into_iter().filter(|&n| n != 3).take(20).collect();
    for &node in &holders {
        assert!(world.nodes[node as usize].store().get(world.now, &value.key()).is_some());
    }
    for from in [0, 17, 199] {
        let Outcome::Value(T, Some(got), _) = world.run(from, Command::Get(T, value.name.to_vec())) else {
            panic!("from {from}")
        };
        assert_eq!(got.value, value.value);
    }
    // Control: what nobody stored is not found.
    let other = record(9, b"other", 1, b"payload");
    let Outcome::Value(T, None, _) = world.run(0, Command::Get(T, other.name.to_vec())) else { panic!() };
}

#[test]
fn a_lookup_leaves_the_value_on_its_path() {
    let mut world = World::joined(6, 250, config(1));
    let value = record(9, b"popular", 1, b"payload");
    world.run(3, Command::Put(T, value.clone()));
    let count = |world: &World| {
        world.nodes.iter().filter(|node| node.store().get(world.now, &value.key()).is_some()).count()
    };
    let before = count(&world);
    for from in (0..250).step_by(5) {
        world.run(from, Command::Get(T, value.name.to_vec()));
    }
    assert!(count(&world) > before, "{before}");
}

#[test]
fn a_newer_version_wins_and_reaches_those_that_had_the_older() {
    let mut all = config(1);
    all.quorum = 0;
    let mut world = World::joined(7, 100, all);
    let (old, new) = (record(9, b"v", 1, b"old"), record(9, b"v", 2, b"new"));
    world.run(3, Command::Put(T, old.clone()));
    let holders: Vec<u32> = world.nearest(old.key());
    // Half of the holders are away while the new one is stored.
    holders.iter().take(10).for_each(|&n| world.dead[n as usize] = true);
    world.run(holders[60], Command::Put(T, new.clone()));
    holders.iter().take(10).for_each(|&n| world.dead[n as usize] = false);
    let Outcome::Value(T, Some(got), _) = world.run(holders[70], Command::Get(T, new.name.to_vec())) else {
        panic!()
    };
    assert_eq!(got.value, new.value);
    let behind = |world: &World| {
        let held = holders.iter().filter_map(|&n| world.nodes[n as usize].store().get(world.now, &old.key()));
        held.filter(|held| held.value == old.value).count()
    };
    assert_eq!(behind(&world), 0);
    // Sent again, the old one is refused by all who have the new one.
    let Outcome::Stored(T, kept, _) = world.run(holders[80], Command::Put(T, old.clone())) else { panic!() };
    assert_eq!(kept, 0);
}

#[test]
fn providers_are_found_and_only_speak_for_themselves() {
    let mut world = World::joined(8, 150, config(1));
    for node in [4, 90] {
        let Outcome::Stored(T, told, _) = world.run(node, Command::Provide(T, b"file".to_vec())) else {
            panic!()
        };
        assert_eq!(told, 20);
    }
    let Outcome::Providers(T, mut got, _) = world.run(33, Command::FindProviders(T, b"file".to_vec())) else {
        panic!()
    };
    got.sort_unstable();
    assert_eq!(got, [4, 90]);
}

#[test]
fn values_outlive_their_holders_because_they_are_sent_on() {
    let mut world = World::joined(9, 70, config(1));
    let value = record(9, b"kept", 1, b"payload");
    world.run(3, Command::Put(T, value.clone()));
    world.dead[3] = true;
    // Every two hours a fifth of those that are nearest goes; far more than had the value at first.
    for _ in 0..8 {
        world.pass(130);
        world.nearest(value.key()).into_iter().take(4).for_each(|n| world.dead[n as usize] = true);
    }
    let from = world.nearest(value.key())[30];
    let Outcome::Value(T, got, _) = world.run(from, Command::Get(T, value.name.to_vec())) else { panic!() };
    assert_eq!(got.map(|got| got.value), Some(value.value.clone()));
    // Without its publisher it ends with its life.
    world.pass(60 * 25);
    let Outcome::Value(T, None, _) = world.run(from, Command::Get(T, value.name.to_vec())) else { panic!() };
}

#[test]
fn a_publisher_keeps_its_value_alive() {
    let mut world = World::joined(10, 40, config(1));
    let value = record(9, b"alive", 1, b"payload");
    world.run(3, Command::Put(T, value.clone()));
    world.pass(60 * 30);
    let Outcome::Value(T, got, _) = world.run(20, Command::Get(T, value.name.to_vec())) else { panic!() };
    assert!(got.is_some());
    world.command(3, Command::Withdraw(value.name.to_vec()));
    world.settle();
    world.pass(60 * 25);
    let Outcome::Value(T, None, _) = world.run(20, Command::Get(T, value.name.to_vec())) else { panic!() };
}

#[test]
fn an_answer_that_nobody_asked_for_changes_nothing() {
    let mut world = World::joined(11, 50, config(1));
    let before = world.nodes[5].table().len();
    let mut out = Vec::new();
    for id in 0..1000 {
        let body = Message::Nodes([1, 2, 3].into_iter().collect());
        let input = Input::Answered { from: 49, id: RequestId(id), body };
        world.nodes[5].step(world.now, &world.keys, input, &mut out);
    }
    assert!(out.is_empty());
    assert_eq!(world.nodes[5].table().len(), before);
}

#[test]
fn a_peer_that_knows_ever_nearer_ones_does_not_make_a_lookup_endless() {
    // All but the first are liars who tell of 20 that are nearer than themselves.
    let mut world = World::new(12, 3000, config(1));
    let key = Key::from_words([0, 0, 0, 0]);
    let order = world.nearest(key);
    for (rank, &node) in order.iter().enumerate() {
        world.liars.insert(node, order[rank.saturating_sub(20)..rank].to_vec());
    }
    let me = order[2999];
    world.liars.remove(&me);
    let (now, far) = (world.now, order[2998]);
    world.nodes[me as usize].admit(now, &world.keys, far);
    let Outcome::Found(T, _, cost) = world.run(me, Command::FindNode(T, Target { key, name: None })) else {
        panic!()
    };
    assert!(cost.asked <= p2p::kad::ASKED_MAX, "{}", cost.asked);
}

/// How many of `rounds` keys, each surrounded by 40 liars, are found after they were stored.
fn found_among_liars(region: Region, rounds: u64) -> usize {
    let honest = 400;
    (0..rounds)
        .filter(|round| {
            let value = record(9, &round.to_be_bytes(), 1, b"payload");
            let mut rng = Rng::new(*round);
            let mut keys: Vec<Key> = (0..honest).map(|_| key_at(&mut rng)).collect();
            // Nearer than any honest node: 50 bits of the key's own.
            keys.extend((0..40).map(|n| Key::from_words([value.key().point() ^ n << 8, 0, 0, 0])));
            let mut world = World::at(keys, rng.clone(), with(region, 1));
            // Everyone knows everyone, as far as buckets go.
            for n in 0..honest + 40 {
                for _ in 0..600 {
                    let other = rng.below(u64::from(honest + 40)) as u32;
                    world.nodes[n as usize].admit(world.now, &world.keys, other);
                }
                for other in world.nearest(world.keys.key(n)).into_iter().take(41) {
                    world.nodes[n as usize].admit(world.now, &world.keys, other);
                }
            }
            let liars: Vec<u32> = (honest..honest + 40).collect();
            liars.iter().for_each(|&liar| drop(world.liars.insert(liar, liars.clone())));
            world.run(1, Command::Put(T, value.clone()));
            let Outcome::Value(T, got, _) = world.run(2, Command::Get(T, value.name.to_vec())) else {
                panic!()
            };
            got.is_some()
        })
        .count()
}

#[test]
fn a_key_that_liars_surround_is_found_in_its_region_and_lost_without() {
    assert_eq!(found_among_liars(Region::Whole, 20), 20);
    assert!(found_among_liars(Region::Nearest, 20) <= 2);
}

#[test]
fn commands_that_cannot_be_begun_are_refused_with_the_reason() {
    let mut world = World::joined(13, 30, config(1));
    let forged = Record { value: b"nonsense"[..].into(), ..record(9, b"x", 1, b"y") };
    assert_eq!(world.run(1, Command::Put(T, forged)), Outcome::Refused(T, Refusal::Forged));
    let large = record(9, b"x", 1, &vec![0; 13_000]);
    let size = large.value.len();
    assert_eq!(world.run(1, Command::Put(T, large)), Outcome::Refused(T, Refusal::TooLarge { bytes: size }));
    let mut out = Vec::new();
    let node = &mut world.nodes[1];
    for n in 0..QUERIES_MAX + 1 {
        let command = Command::FindNode(T, Target::named(&n.to_be_bytes()));
        node.step(world.now, &world.keys, Input::Commanded(command), &mut out);
    }
    assert_eq!(node.queries(), QUERIES_MAX);
    assert_eq!(out.pop(), Some(p2p::Effect::Report(Outcome::Refused(T, Refusal::Full))));
    let mut world = World::joined(14, 3, config(1));
    for n in 0..PUBLISHED_MAX {
        world.run(1, Command::Provide(T, n.to_be_bytes().to_vec()));
    }
    assert_eq!(world.run(1, Command::Provide(T, b"more".to_vec())), Outcome::Refused(T, Refusal::Full));
}

/// A record that is not valid any more at `expires`.
fn until(expires: Micros, label: &[u8]) -> Record {
    let publisher = [9; 32];
    let name = Envelope::name(&publisher, label);
    let signature = sign(&publisher, &Envelope::signed_bytes(&name, 1, expires, b"p"));
    let mut value = Vec::new();
    Envelope { publisher, sequence: 1, expires, payload: b"p", signature }.encode(&mut value);
    Record::new(&name, &value)
}

fn value(world: &mut World, at: u32, record: &Record) -> Option<Record> {
    match world.run(at, Command::Get(T, record.name.to_vec())) {
        Outcome::Value(T, got, _) => got,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_refused_or_found_no_place_is_not_published() {
    let mut world = World::joined(15, 3, config(1));
    let (refused, lost, kept) =
        (record(9, b"refused", 1, b"x"), record(9, b"lost", 1, b"x"), record(9, b"kept", 1, b"x"));
    let mut out = Vec::new();
    for n in 0..QUERIES_MAX {
        let command = Command::FindNode(T, Target::named(&n.to_be_bytes()));
        world.nodes[1].step(world.now, &world.keys, Input::Commanded(command), &mut out);
    }
    let put = Input::Commanded(Command::Put(T, refused.clone()));
    world.nodes[1].step(world.now, &world.keys, put, &mut out);
    assert_eq!(out.last(), Some(&p2p::Effect::Report(Outcome::Refused(T, Refusal::Full))));
    world.act(1, out);
    world.settle();
    (world.dead[0], world.dead[2]) = (true, true);
    assert!(matches!(world.run(1, Command::Put(T, lost.clone())), Outcome::Stored(T, 0, _)));
    (world.dead[0], world.dead[2]) = (false, false);
    world.pass(61);
    assert!(matches!(world.run(1, Command::Put(T, kept.clone())), Outcome::Stored(T, 1.., _)));
    // What is published is sent again within half a day, and then lives on.
    world.pass(60 * 30);
    assert_eq!([&refused, &lost].map(|record| value(&mut world, 2, record)), [None, None]);
    // Control.
    assert!(value(&mut world, 2, &kept).is_some());
}

#[test]
fn of_two_versions_the_newer_one_is_published_whichever_ends_last() {
    for order in [[2, 1], [1, 2]] {
        let mut world = World::joined(17, 3, config(1));
        // They say that they keep it, as if each version had gone its own way.
        world.liars.extend([(0, Vec::new()), (2, Vec::new())]);
        for sequence in order {
            let put = world.run(1, Command::Put(T, record(9, b"menu", sequence, &[sequence as u8])));
            assert!(matches!(put, Outcome::Stored(T, 1.., _)), "{put:?}");
        }
        world.liars.clear();
        world.pass(60 * 13);
        let newer = record(9, b"menu", 2, &[2]);
        let got = value(&mut world, 2, &newer).map(|got| got.value);
        assert_eq!(got, Some(newer.value), "{order:?}");
    }
}

#[test]
fn what_has_expired_gives_its_place_back() {
    let mut world = World::joined(16, 3, config(1));
    let expires = world.now.plus_millis(3600 * 1000);
    const RECORDS: usize = 100;
    for n in 0..RECORDS {
        let stored = world.run(1, Command::Put(T, until(expires, &n.to_be_bytes())));
        assert!(matches!(stored, Outcome::Stored(T, 1.., _)), "{stored:?}");
    }
    for n in RECORDS..PUBLISHED_MAX {
        world.run(1, Command::Provide(T, n.to_be_bytes().to_vec()));
    }
    assert_eq!(world.run(1, Command::Provide(T, b"more".to_vec())), Outcome::Refused(T, Refusal::Full));
    world.pass(61);
    for n in 0..RECORDS {
        let told = world.run(1, Command::Provide(T, [&b"more"[..], &n.to_be_bytes()].concat()));
        assert!(matches!(told, Outcome::Stored(T, 1.., _)), "{told:?}");
    }
    assert_eq!(world.run(1, Command::Provide(T, b"more".to_vec())), Outcome::Refused(T, Refusal::Full));
}

#[test]
fn what_is_to_be_sent_again_leaves_queries_to_those_who_ask() {
    let mut world = World::joined(17, 3, config(1));
    for n in 0..PUBLISHED_MAX {
        world.run(1, Command::Provide(T, n.to_be_bytes().to_vec()));
    }
    world.now = world.now.plus_millis(13 * 3600 * 1000);
    let mut rounds = 0;
    while world.nodes[1].deadline().is_some_and(|due| due <= world.now) {
        let mut out = Vec::new();
        while world.nodes[1].deadline().is_some_and(|due| due <= world.now) {
            world.nodes[1].wake(world.now, &world.keys, &mut out);
            assert!(world.nodes[1].queries() < QUERIES_MAX, "nobody could ask");
        }
        world.act(1, out);
        world.settle();
        rounds += 1;
    }
    // All were sent, and not one after another.
    assert!((PUBLISHED_MAX / QUERIES_MAX..PUBLISHED_MAX / 8).contains(&rounds), "{rounds}");
}

#[test]
fn a_manner_out_of_its_range_is_refused() {
    #[rustfmt::skip] // columns
    let table = [
        (0,  3,  1,  Some(ConfigError::K { k: 0 })),
        (33, 3,  1,  Some(ConfigError::K { k: 33 })),
        (20, 0,  1,  Some(ConfigError::Alpha { alpha: 0 })),
        (20, 17, 1,  Some(ConfigError::Alpha { alpha: 17 })),
        (20, 3,  0,  Some(ConfigError::Paths { paths: 0 })),
        (20, 3,  17, Some(ConfigError::Paths { paths: 17 })),
        (20, 3,  8,  None),
    ];
    for (k, alpha, paths, error) in table {
        assert_eq!(Config::new(k, alpha, paths).err(), error);
    }
}

#[test]
fn each_bucket_is_looked_into_within_the_hour() {
    let mut world = World::joined(15, 60, config(1));
    let before = world.delivered;
    world.pass(61);
    assert!(world.delivered > before);
    for node in &world.nodes {
        let (_, at) = node.table().stalest().unwrap();
        assert!(world.now.since(at) <= 2 * 3_600_000_000, "{at:?}");
        assert!(node.deadline() > Some(Micros(0)));
    }
}

#[test]
fn one_lookup_an_hour_goes_through_our_whole_neighbourhood() {
    let mut world = World::joined(16, 200, config(1));
    // What joining has left stale is over.
    world.pass(61);
    let k = config(1).k();
    let before = world.delivered;
    // Buckets that are at least half full, one more that may be, and all deeper ones together.
    let lookups = |node: &Dht<u32, _>| (0..BUCKETS).filter(|&n| node.table().live(n) * 2 >= k).count() + 2;
    let most: usize = world.nodes.iter().map(lookups).sum();
    let depth: usize = world.nodes.iter().map(|node| node.table().depth()).sum();
    world.pass(60);
    let cost = (world.delivered - before) as usize;
    assert!(cost > 0 && cost <= most * 2 * (k + 8), "{cost} messages, {most} lookups at most");
    assert!(most * 3 < depth * 2, "{most} lookups, where a lookup for each bucket were {depth}");
}

#[test]
fn nodes_that_began_together_do_not_refresh_together() {
    const MINUTE: u64 = 60_000_000;
    let keys = Points((0..21).map(|n| Key::of(&[n])).collect());
    let now = Micros(3600 * 1_000_000);
    let mut minutes = [0; 61];
    for seed in 0..600 {
        let own = Target { key: keys.0[20], name: None };
        let mut node = Dht::new(20, own, config(1), VALID, Rng::new(seed));
        for other in 0..20 {
            node.admit(now, &keys, other);
        }
        // Woken when it wants to be, until it asks: that is its refresh.
        let mut out = Vec::new();
        let mut at = now;
        while out.is_empty() {
            at = node.deadline().unwrap();
            node.wake(at, &keys, &mut out);
        }
        minutes[(at.since(now) / MINUTE) as usize] += 1;
    }
    // 20 a minute, if they are even over the second half of the hour.
    assert_eq!(minutes[..29].iter().sum::<u32>(), 0);
    assert!(minutes.iter().all(|count| *count < 60), "{minutes:?}");
}
