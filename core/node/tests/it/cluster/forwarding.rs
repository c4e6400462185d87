//! Commands through nodes that do not lead, and what cluster clients are told.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use control::{ReadFrom, Reading};
use gateway::resp::Address;
use kernel::KeyspaceId;
use kernel::planted::Bug;

use super::with_rules;
use super::world::{Client, World, group, node_id};

/// Keys of the eight partitions, in their order.
const KEYS: [&str; 8] = ["aa", "b", "ad", "c", "ac", "d", "ab", "a"];

/// Four nodes, of which the last has no copies.
fn spread() -> World {
    let mut world = World::new(4, 8);
    (0..8).for_each(|number| _ = world.leader(group(number)));
    world
}

fn leaders(world: &mut World) -> Vec<usize> {
    (0..8).map(|number| world.leader(group(number))).collect()
}

#[test]
fn a_command_reaches_the_leader_through_any_node() {
    let _rules = with_rules(Bug::None);
    let mut world = spread();
    for node in 0..4 {
        let client = world.client(node);
        for key in KEYS {
            assert_eq!(world.ask(client, &format!("SET {key} {node}")), "+OK\r\n", "{key} at {node}");
            assert_eq!(world.ask(client, &format!("GET {key}")), format!("$1\r\n{node}\r\n"));
            assert_eq!(world.ask(client, &format!("APPEND {key} x")), ":2\r\n");
        }
        assert_eq!(world.worker(node).forwarded(), 0, "all is answered");
    }
}

#[test]
fn what_concerns_all_partitions_is_divided_among_the_nodes() {
    let _rules = with_rules(Bug::None);
    let mut world = spread();
    let (one, other) = (world.client(3), world.client(0));
    let pairs: Vec<String> = KEYS.iter().map(|key| format!("{key} v{key}")).collect();
    assert_eq!(world.ask(one, &format!("MSET {}", pairs.join(" "))), "+OK\r\n");
    assert_eq!(world.ask(other, "MGET a b none"), "*3\r\n$2\r\nva\r\n$2\r\nvb\r\n$-1\r\n");
    assert_eq!(world.ask(other, "DBSIZE"), ":8\r\n");
    assert_eq!(world.ask(one, "EXISTS a b x"), ":2\r\n");
    assert_eq!(world.ask(one, "KEYS [ab]").len(), "*2\r\n$1\r\na\r\n$1\r\nb\r\n".len());
    let (mut cursor, mut found) = (String::from("0"), 0);
    for _ in 0..100 {
        let page = world.ask(other, &format!("SCAN {cursor}"));
        cursor = page.split("\r\n").nth(2).expect("a cursor").to_owned();
        found += KEYS.iter().filter(|key| page.contains(&format!("\r\n{key}\r\n"))).count();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!((cursor.as_str(), found), ("0", 8));
    assert_eq!(world.ask(one, "FLUSHALL"), "+OK\r\n");
    assert_eq!(world.ask(other, "DBSIZE"), ":0\r\n");
    let leads = leaders(&mut world);
    assert!(leads.iter().all(|&node| node < 3));
    for (command, refused) in [("SWAPDB 0 0", "+OK"), ("MOVE a 0", "-ERR source and destination")] {
        assert!(world.ask(one, command).starts_with(refused), "{command}");
    }
}

#[test]
fn clients_wait_watch_and_listen_across_nodes() {
    let _rules = with_rules(Bug::None);
    let mut world = spread();
    let (waits, pushes) = (world.client(3), world.client(1));
    world.feed(waits, "BLPOP a 0");
    world.pass(50);
    assert_eq!(world.read(waits), "");
    assert_eq!(world.ask(pushes, "RPUSH a one two"), ":2\r\n");
    let mut popped = String::new();
    world.until("it is served", |world| {
        popped += &world.read(waits);
        !popped.is_empty()
    });
    assert_eq!(popped, "*2\r\n$1\r\na\r\n$3\r\none\r\n");
    assert_eq!(world.ask(pushes, "LLEN a"), ":1\r\n");
    // A client that is gone takes nothing.
    world.feed(waits, "BLPOP b 0");
    world.pass(50);
    let conn = waits.conn;
    world.worker(3).disconnect(conn);
    world.turn(3);
    world.pass(50);
    assert_eq!(world.ask(pushes, "RPUSH b one"), ":1\r\n");
    assert_eq!(world.ask(pushes, "LLEN b"), ":1\r\n");

    let watches = world.client(3);
    for (between, expected) in [(None, "*1\r\n+OK\r\n"), (Some("SET e other"), "*-1\r\n")] {
        assert_eq!(world.ask(watches, "WATCH e"), "+OK\r\n");
        assert_eq!(world.ask(watches, "MULTI"), "+OK\r\n");
        assert_eq!(world.ask(watches, "SET e mine"), "+QUEUED\r\n");
        if let Some(command) = between {
            world.ask(pushes, command);
        }
        assert_eq!(world.ask(watches, "EXEC"), expected);
    }

    let listens = world.client(2);
    assert!(world.ask(listens, "SUBSCRIBE news").starts_with("*3\r\n"));
    assert_eq!(world.ask(pushes, "PUBLISH news hello"), ":0\r\n", "who listens here");
    let mut heard = String::new();
    world.until("it is heard", |world| {
        heard += &world.read(listens);
        !heard.is_empty()
    });
    assert_eq!(heard, "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
}

#[test]
fn watches_and_waits_end_with_the_link_to_their_leader() {
    let _rules = with_rules(Bug::None);
    let mut world = spread();
    let leader = leaders(&mut world)[7];
    let (waits, watches) = (world.client(3), world.client(3));
    world.feed(waits, "BLPOP a 0");
    assert_eq!(world.ask(watches, "WATCH a"), "+OK\r\n");
    assert_eq!(world.ask(watches, "MULTI"), "+OK\r\n");
    assert_eq!(world.ask(watches, "SET a mine"), "+QUEUED\r\n");
    world.pass(50);
    world.crash(leader, false);
    world.turn(3);
    assert!(world.read(waits).starts_with("-UNKNOWN"), "an element may have been popped for it");
    world.leader(group(7));
    let exec = world.ask(watches, "EXEC");
    assert_eq!(exec, "*-1\r\n");
    let other = world.client(3);
    assert_eq!(world.ask(other, "RPUSH a one"), ":1\r\n");
    assert_eq!(world.ask(other, "LLEN a"), ":1\r\n");
}

#[test]
fn a_pipeline_is_done_in_its_order_while_leaders_change() {
    let _rules = with_rules(Bug::None);
    let mut world = spread();
    let leader = leaders(&mut world)[7];
    let client = world.client(3);
    let commands: Vec<String> = (0..40).map(|n| format!("RPUSH a {n}")).collect();
    let now = world.now;
    let (first, rest) = commands.split_at(20);
    world.worker(3).receive(now, client.conn, format!("{}\r\n", first.join("\r\n")).as_bytes());
    world.turn(3);
    world.step();
    world.crash(leader, false);
    world.feed(client, &rest.join("\r\n"));
    let mut answers = String::new();
    world.until("all is answered", |world| {
        answers += &world.read(client);
        answers.matches("\r\n").count() == 40
    });
    let expected: String = (1..=40).map(|n| format!(":{n}\r\n")).collect();
    assert_eq!(answers, expected);
    let list = world.ask(client, "LRANGE a 0 -1");
    let elements: Vec<usize> =
        list.split("\r\n").skip(2).step_by(2).filter_map(|word| word.parse().ok()).collect();
    assert_eq!(elements, (0..40).collect::<Vec<_>>());
}

#[test]
fn without_a_leader_clients_are_told_in_bounded_time() {
    let _rules = with_rules(Bug::None);
    let mut world = spread();
    let client = world.client(3);
    assert_eq!(world.ask(client, "SET a 1"), "+OK\r\n");
    (0..3).for_each(|node| world.crash(node, false));
    let before = world.now;
    assert!(world.ask(client, "SET a 2").starts_with("-CLUSTERDOWN"));
    assert!(world.ask(client, "GET a").starts_with("-CLUSTERDOWN"));
    assert!(world.now.since(before) < 11_000_000);
    (0..3).for_each(|node| world.start(node));
    world.leader(group(7));
    assert_eq!(world.ask(client, "GET a"), "$1\r\n1\r\n");
}

/// Counts through a node without copies while answers are lost. Panics if a count is answered twice, or one that nobody
/// was told of is missing from what was said to be unknown.
fn count_on(seed: u64) {
    let mut world = World::seeded(4, 1, seed);
    world.leader(group(0));
    let client = world.client(3);
    let (mut least, mut most) = (0, 0);
    for round in 0..6 {
        let leader = world.leader(group(0));
        world.feed(client, "INCR n");
        for _ in 0..world.rng.below(6) {
            world.step();
        }
        if world.rng.chance(0.7) {
            // The command arrives, or has; its answer does not.
            world.cut.insert((leader, 3));
            world.pass(20);
            world.heal();
        }
        if round % 3 == 2 {
            world.crash(leader, false);
            world.leader(group(0));
            world.start(leader);
        }
        let mut answer = String::new();
        world.until("it is answered", |world| {
            answer += &world.read(client);
            !answer.is_empty()
        });
        if answer.starts_with("-UNKNOWN") {
            most += 1;
        } else {
            let count: u64 =
                answer[1..].trim_end().parse().unwrap_or_else(|_| panic!("seed {seed}: {answer}"));
            assert!((least + 1..=most + 1).contains(&count), "seed {seed}: {count} after {least} to {most}");
            (least, most) = (count, count);
        }
    }
    world.level(group(0));
}

/// Lives of the test below; more find nothing else.
const SEEDS: u64 = 12;

#[test]
fn a_forwarded_write_is_done_once_whatever_is_lost() {
    let _rules = with_rules(Bug::None);
    (0..SEEDS).for_each(count_on);
}

fn partitions_move_on() {
    let mut world = World::new(4, 1);
    let leader = world.leader(group(0));
    let other = (0..3).find(|&node| node != leader).expect("three have copies");
    let client = world.client(other);
    assert_eq!(world.ask(client, "SET a 1"), "+OK\r\n");
    // The placement moves on, and only the origin has heard of it.
    let (now, seats) = (world.now, world.seats[&group(0)].clone());
    world.worker(other).reseat(now, group(0), &seats, 9);
    world.feed(client, "SET a 2");
    world.pass(200);
    assert_eq!(world.read(client), "", "a leader that is behind takes nothing");
    let now = world.now;
    world.worker(leader).reseat(now, group(0), &seats, 9);
    world.until("it is answered", |world| world.read(client) == "+OK\r\n");
}

fn the_wrong_node_is_asked() {
    let mut world = World::new(4, 1);
    let leader = world.leader(group(0));
    let wrong = (0..3).find(|&node| node != leader).expect("three have copies");
    world.worker(3).place_copies(group(0), vec![node_id(wrong)], 1);
    let client = world.client(3);
    assert_eq!(world.ask(client, "SET a 1"), "+OK\r\n");
    assert_eq!(world.ask(client, "GET a"), "$1\r\n1\r\n");
    assert_eq!(world.worker(wrong).forwarded(), 0, "it hands nothing on");
}

#[test]
fn who_does_not_lead_says_so_and_hands_nothing_on() {
    let _rules = with_rules(Bug::None);
    the_wrong_node_is_asked();
}

#[test]
fn a_leader_that_is_behind_the_placement_takes_nothing() {
    let _rules = with_rules(Bug::None);
    partitions_move_on();
}

#[test]
fn every_planted_bug_of_forwarding_is_noticed() {
    for &bug in Bug::FORWARD {
        let _rules = with_rules(bug);
        let all = || {
            the_wrong_node_is_asked();
            partitions_move_on();
            (0..SEEDS).for_each(count_on);
        };
        assert!(catch_unwind(AssertUnwindSafe(all)).is_err(), "{bug:?}");
    }
}

/// A client by the port of cluster clients.
fn cluster_client(world: &mut World, node: usize, port: u16) -> Client {
    let (now, peer) = (world.now, SocketAddr::from(([127, 0, 0, 2], port)));
    let conn = world.worker(node).connect_cluster_client(now, peer).expect("there is room");
    Client { node, conn }
}

#[test]
fn cluster_clients_are_sent_to_the_leader() {
    let _rules = with_rules(Bug::None);
    let mut world = spread();
    for node in 0..4 {
        let address = Address { host: format!("10.0.0.{node}"), port: 6380 };
        world.worker(node).set_addresses(Some(address), 7000);
        world.turn(node);
    }
    world.pass(50);
    let leads = leaders(&mut world);
    // A node without a copy presumes; by now it knows.
    let plain = world.client(3);
    KEYS.iter().for_each(|key| assert_eq!(world.ask(plain, &format!("SET {key} v")), "+OK\r\n"));
    let clients: Vec<Client> = (0..4).map(|node| cluster_client(&mut world, node, node as u16 + 1)).collect();
    for (key, &leader) in KEYS.iter().zip(&leads) {
        for &client in &clients {
            let answer = world.ask(client, &format!("SET {key} v"));
            if client.node == leader {
                assert_eq!(answer, "+OK\r\n", "{key}");
                continue;
            }
            let moved = answer.strip_prefix("-MOVED ").unwrap_or_else(|| panic!("{key}: {answer}"));
            assert!(moved.ends_with(&format!(" 10.0.0.{leader}:6380\r\n")), "{key}: {answer}");
            let slot = world.ask(client, &format!("CLUSTER KEYSLOT {key}"));
            assert_eq!(moved.split(' ').next(), slot[1..].split("\r\n").next());
        }
    }
    let client = clients[3];
    assert!(world.ask(client, "MGET a b").starts_with("-CROSSSLOT"));
    assert!(world.ask(client, "WATCH a").starts_with("-MOVED"));
    assert_eq!(world.ask(client, "MULTI"), "+OK\r\n");
    assert!(world.ask(client, "SET a 1").starts_with("-MOVED"));
    assert!(world.ask(client, "EXEC").starts_with("-EXECABORT"));
    assert!(world.ask(client, "INFO cluster").contains("cluster_enabled:1"));
    assert!(world.ask(client, "SELECT 1").starts_with("-ERR SELECT is not allowed"));
    let info = world.ask(client, "CLUSTER INFO");
    assert!(info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4"), "{info}");
    // Each tells of what it leads.
    let sizes: i64 = clients
        .iter()
        .filter(|client| leads.contains(&client.node))
        .map(|&client| world.ask(client, "DBSIZE")[1..].trim_end().parse::<i64>().expect("a number"))
        .sum();
    assert_eq!(sizes, 8);
    let slots = world.ask(client, "CLUSTER SLOTS");
    for &leader in &leads {
        assert!(slots.contains(&format!("10.0.0.{leader}")), "{slots}");
    }
    // Nobody leads, and nobody is named.
    (0..3).for_each(|node| world.crash(node, false));
    world.turn(3);
    assert_eq!(world.ask(client, "GET a"), format!("-{}\r\n", node::cluster::DOWN));
    assert_eq!(world.ask(client, "CLUSTER SLOTS"), "*0\r\n");
}

#[test]
fn any_copy_answers_a_reader_that_takes_it() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let follower = (leader + 1) % 3;
    let (writes, reads) = (world.client(leader), world.client(follower));
    assert_eq!(world.ask(writes, "SET k 1"), "+OK\r\n");
    world.level(group(0));
    assert_eq!(world.ask(reads, "READONLY"), "+OK\r\n");
    world.isolate(follower);
    assert_eq!(world.ask(writes, "SET k 2"), "+OK\r\n");
    assert_eq!(world.ask(reads, "GET k"), "$1\r\n1\r\n", "what it has, without asking");
    world.heal();
    assert_eq!(world.ask(reads, "READWRITE"), "+OK\r\n");
    assert_eq!(world.ask(reads, "GET k"), "$1\r\n2\r\n");
}

/// Its leader answers how far it must come, so it knows its age by its own clock.
#[test]
fn a_copy_knows_how_old_it_is_and_refuses_what_is_older_than_its_keyspace_allows() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let follower = (leader + 1) % 3;
    let (writes, reads) = (world.client(leader), world.client(follower));
    let reading = Reading { from: ReadFrom::Leader, stale_ms_max: 3_000 };
    world.worker(follower).set_reading(KeyspaceId(0), reading);
    assert_eq!(world.ask(writes, "SET k 1"), "+OK\r\n");
    assert_eq!(world.ask(reads, "READONLY"), "+OK\r\n");
    // Nobody has said how old it is: the leader answers, and says it.
    assert_eq!(world.worker(follower).behind(0), None);
    assert!(world.ask(reads, "INFO replication").contains("copies:1\r\ncopies_of_known_age:0\r\n"));
    assert_eq!(world.ask(reads, "GET k"), "$1\r\n1\r\n");
    world.until("it is told", |world| world.worker(follower).behind(0).is_some());
    let known = world.worker(follower).behind(0).expect("it is told");
    world.isolate(follower);
    assert_eq!(world.ask(writes, "SET k 2"), "+OK\r\n");
    assert_eq!(world.ask(reads, "GET k"), "$1\r\n1\r\n", "young enough");
    let before = world.worker(follower).behind(0).expect("it is known");
    world.pass(1_000);
    let after = world.worker(follower).behind(0).expect("it is known");
    // As of the worker's last turn.
    assert!(
        (900_000..=1_000_000).contains(&(after - before)),
        "it grows with its own clock: {before} to {after}"
    );
    assert!(after > known);
    assert_eq!(world.ask(reads, "GET k"), "$1\r\n1\r\n", "young enough, and asks");
    world.pass(2_500);
    // Its leader is silent once it was asked a while in vain; who reads meanwhile waits for it.
    let mut refused = String::new();
    for _ in 0..20 {
        let one = world.client(follower);
        assert_eq!(world.ask(one, "READONLY"), "+OK\r\n");
        world.feed(one, "GET k");
        refused = world.read(one);
        if refused.starts_with('-') {
            break;
        }
        world.pass(100);
    }
    assert!(
        refused.starts_with("-MASTERDOWN this copy may be ") && refused.contains("allows 3000"),
        "{refused}"
    );
    let told = world.ask(reads, "INFO replication");
    assert!(told.contains("copies_of_known_age:1\r\ncopies_behind_ms_max:"), "{told}");
    // What may be at any age is answered.
    world.worker(follower).set_reading(KeyspaceId(0), Reading { stale_ms_max: 0, ..reading });
    assert_eq!(world.ask(reads, "GET k"), "$1\r\n1\r\n");
    world.worker(follower).set_reading(KeyspaceId(0), reading);
    world.heal();
    world.until("it is young again", |world| {
        world.ask(reads, "GET k") == "$1\r\n2\r\n"
            && world.worker(follower).behind(0).is_some_and(|it| it < 1_000_000)
    });
}

#[test]
fn a_keyspace_may_let_any_copy_answer_all_clients() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let follower = (leader + 1) % 3;
    let (writes, reads) = (world.client(leader), world.client(follower));
    let reading = Reading { from: ReadFrom::Any, stale_ms_max: 60_000 };
    world.worker(follower).set_reading(KeyspaceId(0), reading);
    assert_eq!(world.ask(writes, "SET k 1"), "+OK\r\n");
    assert_eq!(world.ask(reads, "GET k"), "$1\r\n1\r\n");
    world.until("it knows its age", |world| world.worker(follower).behind(0).is_some());
    world.level(group(0));
    world.isolate(follower);
    assert_eq!(world.ask(writes, "SET k 2"), "+OK\r\n");
    assert_eq!(world.ask(reads, "GET k"), "$1\r\n1\r\n");
}

/// What a copy of at most so many milliseconds answers is as new as everything that was acknowledged so long ago,
/// whatever the network does; and a copy of any age is older now and then.
#[test]
fn no_copy_answers_with_what_is_older_than_it_may_be() {
    let _rules = with_rules(Bug::None);
    let mut older = 0;
    for seed in 0..12 {
        for stale_ms_max in [400, 0] {
            let mut world = World::seeded(3, 1, seed);
            let leader = world.leader(group(0));
            let follower = (leader + 1 + seed as usize % 2) % 3;
            let reading = Reading { from: ReadFrom::Any, stale_ms_max };
            world.worker(follower).set_reading(KeyspaceId(0), reading);
            (world.delay, world.loss) = (1 + seed * 10, if seed % 3 == 0 { 0.05 } else { 0.0 });
            let (writes, reads) = (world.client(leader), world.client(follower));
            let mut acknowledged = vec![(world.now, 0)];
            for n in 1..60_u64 {
                match n % 20 {
                    7 => world.isolate(follower),
                    17 => world.heal(),
                    _ => {}
                }
                if world.ask(writes, &format!("SET k {n}")) == "+OK\r\n" {
                    acknowledged.push((world.now, n));
                }
                world.pass(40);
                let asked = world.now;
                let answer = world.ask(reads, "GET k");
                let Some(value) = answer.strip_prefix('$').and_then(|rest| rest.split("\r\n").nth(1)) else {
                    continue;
                };
                let value: u64 = value.parse().unwrap_or(0);
                let limit = asked.0.saturating_sub(400_000);
                let least = acknowledged.iter().rev().find(|(at, _)| at.0 <= limit).map_or(0, |&(_, n)| n);
                let fresh = value >= least;
                assert!(
                    fresh || stale_ms_max == 0,
                    "seed {seed}: {value} at {asked:?}, acknowledged {acknowledged:?}"
                );
                older += u64::from(!fresh);
            }
        }
    }
    assert!(older > 0, "no copy was old, so nothing was tested");
}
