//! Writes and reads on a leader that stays one.

use consensus::Durability;
use control::ReadFrom;
use kernel::planted::Bug;

use super::with_rules;
use super::world::{World, group};

#[test]
fn what_the_leader_acknowledged_all_apply() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let client = world.client(leader);
    #[rustfmt::skip] // columns
    let table = [
        ("SET a 1",             "+OK\r\n"),
        ("GET a",               "$1\r\n1\r\n"),
        ("INCR a",              ":2\r\n"),
        ("RPUSH l x y z",       ":3\r\n"),
        ("SPOP s",              "$-1\r\n"),
        ("SADD s 1 2 3 4 5 6",  ":6\r\n"),
        ("DBSIZE",              ":3\r\n"),
        ("EXISTS a l s none",   ":3\r\n"),
    ];
    for (command, expected) in table {
        assert_eq!(world.ask(client, command), expected, "{command}");
    }
    // Chance is the same on all replicas.
    world.ask(client, "SPOP s 3");
    world.level(group(0));
}

#[test]
fn a_connection_sees_its_commands_in_order() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let client = world.client(leader);
    world.feed(client, "GET k\r\nSET k 1\r\nGET k\r\nGET k\r\nINCR k\r\nGET k");
    world.feed(client, "GET k\r\nDEL k\r\nGET k");
    let mut answers = String::new();
    world.until("all is answered", |world| {
        answers += &world.read(client);
        answers.ends_with(":1\r\n$-1\r\n")
    });
    let expected = "$-1\r\n+OK\r\n$1\r\n1\r\n$1\r\n1\r\n:2\r\n$1\r\n2\r\n$1\r\n2\r\n:1\r\n$-1\r\n";
    assert_eq!(answers, expected);
}

#[test]
fn a_write_is_answered_when_a_majority_has_synced_it() {
    let _rules = with_rules(Bug::None);
    #[rustfmt::skip] // columns
    let table = [
        // leader holds its sync, followers that do, answered
        (false, 0, true),
        (false, 1, true),
        (false, 2, false),
        (true,  0, false), // it answers from its own state, which must be durable too
        (true,  2, false),
    ];
    for (own, others, expected) in table {
        let mut world = World::new(3, 1);
        let leader = world.leader(group(0));
        let client = world.client(leader);
        assert_eq!(world.ask(client, "SET k 0"), "+OK\r\n");
        world.machines[leader].sync_held = own;
        let followers: Vec<usize> = (0..3).filter(|&node| node != leader).take(others).collect();
        followers.iter().for_each(|&node| world.machines[node].sync_held = true);
        world.feed(client, "SET k 1");
        world.pass(100);
        let row = format!("leader {own}, followers {others}");
        assert_eq!(!world.read(client).is_empty(), expected, "{row}");
        (0..3).for_each(|node| world.machines[node].sync_held = false);
        (0..3).for_each(|node| world.turn(node));
        if !expected {
            world.until("it is answered after all", |world| world.read(client) == "+OK\r\n");
        }
    }
}

#[test]
fn a_read_alone_writes_nothing_and_asks_a_majority() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let client = world.client(leader);
    world.ask(client, "SET k 1");
    let entries = world.machines[leader].disk.log.len();
    assert_eq!(world.ask(client, "GET k"), "$1\r\n1\r\n");
    assert_eq!(world.machines[leader].disk.log.len(), entries, "no entry");
    world.isolate(leader);
    world.feed(client, "GET k");
    world.pass(50);
    assert_eq!(world.read(client), "", "nobody said that it still leads");
    world.heal();
    world.until("it is answered", |world| world.read(client) == "$1\r\n1\r\n");
}

#[test]
fn a_key_expires_on_all_at_the_logged_time() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let client = world.client(leader);
    world.ask(client, "SET k 1 PX 1000");
    world.ask(client, "SET stays 1 EX 100");
    world.pass(900);
    assert_eq!(world.ask(client, "GET k"), "$1\r\n1\r\n");
    assert_eq!(world.ask(client, "TTL stays"), ":99\r\n");
    world.pass(200);
    assert_eq!(world.ask(client, "GET k"), "$-1\r\n");
    world.pass(49_000);
    assert_eq!(world.ask(client, "TTL stays"), ":50\r\n", "an idle group's time goes on");
    world.level(group(0));
}

#[test]
fn a_lease_answers_at_once() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let client = world.client(leader);
    world.ask(client, "SET k 1");
    let now = "$1\r\n1\r\n";
    world.feed(client, "GET k");
    assert_eq!(world.read(client), "", "a majority is asked");
    world.pass(50);
    assert_eq!(world.read(client), now);
    // The setting is the leader's affair, and counts at once: the round that was just answered is a lease.
    world.read_from(leader, ReadFrom::Lease);
    world.feed(client, "GET k");
    assert_eq!(world.read(client), now, "without a step of time");
    // It is renewed while it is used.
    for _ in 0..10 {
        world.pass(400);
        world.feed(client, "GET k");
        assert_eq!(world.read(client), now, "without a step of time");
    }
    world.read_from(leader, ReadFrom::Leader);
    world.feed(client, "GET k");
    assert_eq!(world.read(client), "", "leases are not used any more");
    world.pass(50);
    assert_eq!(world.read(client), now);
    world.read_from(leader, ReadFrom::Lease);
    world.isolate(leader);
    world.pass(2_000);
    world.feed(client, "GET k");
    assert!(!world.read(client).starts_with('$'), "the lease is over");
}

#[test]
fn a_lease_reads_what_is_applied_while_others_write() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    world.read_from(leader, ReadFrom::Lease);
    let (reader, writer) = (world.client(leader), world.client(leader));
    world.ask(writer, "SET k 1");
    world.ask(reader, "GET k");
    world.feed(writer, "SET k 2");
    world.feed(writer, "GET k");
    world.feed(reader, "GET k");
    assert_eq!(world.read(reader), "$1\r\n1\r\n", "it waits for no write of others");
    assert_eq!(world.read(writer), "", "and for its own");
    world.pass(50);
    assert_eq!(world.read(writer), "+OK\r\n$1\r\n2\r\n");
}

/// Leases keep no group awake, and the first read after its sleep asks a majority.
#[test]
fn a_group_that_may_use_leases_sleeps() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    (0..3).for_each(|node| world.read_from(node, ReadFrom::Lease));
    let leader = world.leader(group(0));
    let client = world.client(leader);
    world.ask(client, "SET k 1");
    world.ask(client, "GET k");
    world.pass(6_000);
    let asleep =
        |world: &mut World| world.worker(leader).replica_mut(group(0)).expect("it leads").is_asleep();
    assert!(asleep(&mut world));
    let sent = world.sent;
    world.pass(10_000);
    assert_eq!(world.sent, sent, "nothing is said in sleep");
    world.feed(client, "GET k");
    assert_eq!(world.read(client), "", "there is no lease in sleep");
    world.pass(50);
    assert_eq!(world.read(client), "$1\r\n1\r\n");
    world.feed(client, "GET k");
    assert_eq!(world.read(client), "$1\r\n1\r\n", "without a step of time");
}

#[test]
fn a_full_disk_refuses_writes_and_lets_reads_through() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let client = world.client(leader);
    world.ask(client, "SET k 1");
    world.machines[leader].disk.full = true;
    assert!(world.ask(client, "SET k 2").starts_with("-MISCONF"));
    assert_eq!(world.ask(client, "GET k"), "$1\r\n1\r\n");
    world.machines[leader].disk.full = false;
    assert_eq!(world.ask(client, "INCR k"), ":2\r\n");
    world.level(group(0));
}

fn set(key: &str, bytes: usize) -> String {
    format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${bytes}\r\n{}", key.len(), "x".repeat(bytes))
}

#[test]
fn large_turns_are_several_entries_and_what_no_link_carries_is_refused() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let client = world.client(leader);
    let many: Vec<String> = (0..8).map(|n| set(&format!("k{n}"), 400_000)).collect();
    let before = world.machines[leader].disk.log.len();
    world.feed(client, &(many.join("\r\n") + "\r\nDBSIZE"));
    let mut answers = String::new();
    world.until("all is answered", |world| {
        answers += &world.read(client);
        answers.ends_with(":8\r\n")
    });
    assert_eq!(answers, "+OK\r\n".repeat(8) + ":8\r\n");
    let entries = world.machines[leader].disk.log.len() - before;
    assert!((3..=5).contains(&entries), "{entries} entries");
    world.feed(
        client,
        &[set("big", 5 << 20), set("bigger", 17 << 20), "INCR n".into(), "GET n".into()].join("\r\n"),
    );
    let mut answers = String::new();
    world.until("all is answered", |world| {
        answers += &world.read(client);
        answers.ends_with("$1\r\n1\r\n")
    });
    let refused = "-ERR the commands of one turn are larger than one log entry may be; send less at once\r\n";
    assert_eq!(answers, format!("+OK\r\n{refused}:1\r\n$1\r\n1\r\n"));
    world.level(group(0));
}

#[test]
fn a_disk_that_fails_lets_others_lead() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let client = world.client(leader);
    world.ask(client, "SET k 1");
    world.machines[leader].sync_held = true;
    world.feed(client, "SET k 2");
    let now = world.now;
    world.worker(leader).log_failed(now);
    world.machines[leader].disk.full = true;
    assert!(world.read(client).starts_with("-UNKNOWN"));
    world.until("another leads", |world| world.serving(group(0)).is_some_and(|node| node != leader));
    let next = world.leader(group(0));
    let other = world.client(next);
    assert!(world.ask(other, "GET k").starts_with("$1\r\n"));
}

#[test]
fn everysec_answers_what_a_majority_has_written_and_recovers_what_one_lost() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    world.durability = Durability::EverySec;
    (0..3).for_each(|node| world.crash(node, false));
    (0..3).for_each(|node| world.machines[node].disk.engine.clear());
    (0..3).for_each(|node| world.start(node));
    let leader = world.leader(group(0));
    let client = world.client(leader);
    world.ask(client, "SET k 0");
    (0..3).for_each(|node| world.machines[node].sync_held = true);
    assert_eq!(world.ask(client, "SET k 1"), "+OK\r\n", "nobody has synced it");
    world.machines[leader].sync_held = false;
    let loser = (leader + 1) % 3;
    world.crash(loser, true);
    world.start(loser);
    (0..3).for_each(|node| world.machines[node].sync_held = false);
    world.pass(2_000);
    world.level(group(0));
    world.crash(leader, false);
    let next = world.leader(group(0));
    let client = world.client(next);
    assert_eq!(world.ask(client, "GET k"), "$1\r\n1\r\n");
}
