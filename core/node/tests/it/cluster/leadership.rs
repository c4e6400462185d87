//! Leaders come and go.

use kernel::planted::Bug;

use super::with_rules;
use super::world::{Client, World, group};

fn others(node: usize) -> Vec<usize> {
    (0..3).filter(|&other| other != node).collect()
}

/// Cuts the leader off, and waits for the next.
fn depose(world: &mut World, old: usize) -> usize {
    world.isolate(old);
    let mut new = None;
    world.until("another leads", |world| {
        new = world.serving(group(0)).filter(|&node| node != old);
        new.is_some()
    });
    new.expect("it was just found")
}

fn answer(world: &mut World, client: Client) -> String {
    let mut answer = String::new();
    world.until("it is answered", |world| {
        answer += &world.read(client);
        !answer.is_empty()
    });
    answer
}

#[test]
fn nothing_acknowledged_is_lost_when_the_leader_dies() {
    let _rules = with_rules(Bug::None);
    for lose in [false, true] {
        let mut world = World::new(3, 1);
        let leader = world.leader(group(0));
        let client = world.client(leader);
        for n in 0..20 {
            assert_eq!(world.ask(client, &format!("SET k{n} {n}")), "+OK\r\n");
        }
        world.crash(leader, lose);
        let next = world.leader(group(0));
        assert_ne!(next, leader);
        let client = world.client(next);
        for n in 0..20 {
            let text = n.to_string();
            assert_eq!(world.ask(client, &format!("GET k{n}")), format!("${}\r\n{text}\r\n", text.len()));
        }
        assert_eq!(world.ask(client, "INCR k0"), ":1\r\n");
        world.start(leader);
        world.pass(500);
        world.level(group(0));
    }
}

#[test]
fn a_deposed_leader_shows_nothing_old_and_its_write_goes_to_the_next() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let first = world.leader(group(0));
    let client = world.client(first);
    world.ask(client, "SET k old");
    let reader = world.client(first);
    world.isolate(first);
    world.feed(client, "SET k lost");
    world.feed(reader, "GET k");
    let new = depose(&mut world, first);
    let second = world.client(new);
    assert_eq!(world.ask(second, "SET k new"), "+OK\r\n");
    assert_eq!(world.read(reader), "", "what was not confirmed is not shown");
    world.heal();
    // Whether the write ran is decided when the new leader's entries arrive; it did not, so it is handed on.
    assert_eq!(answer(&mut world, client), "+OK\r\n");
    assert!(!answer(&mut world, reader).starts_with("$3\r\nold"));
    assert_eq!(world.ask(second, "GET k"), "$4\r\nlost\r\n");
    world.level(group(0));
}

#[test]
fn a_write_that_survived_its_leader_s_fall_is_answered_as_done() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let client = world.client(leader);
    // The followers get the entry; their answers do not come back, and they elect one of themselves.
    for other in others(leader) {
        world.cut.insert((other, leader));
    }
    world.feed(client, "SET k 1");
    world.pass(5);
    for other in others(leader) {
        world.cut.insert((leader, other));
    }
    world.until("another leads", |world| others(leader).into_iter().any(|node| world.leads(node, group(0))));
    assert_eq!(world.read(client), "");
    world.heal();
    assert_eq!(answer(&mut world, client), "+OK\r\n");
}

#[test]
fn who_waits_and_who_watches_is_told_that_the_leader_changed() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let (waits, watches) = (world.client(leader), world.client(leader));
    world.feed(waits, "BLPOP list 0");
    assert_eq!(world.ask(watches, "WATCH k"), "+OK\r\n");
    assert_eq!(world.ask(watches, "MULTI"), "+OK\r\n");
    assert_eq!(world.ask(watches, "SET k mine"), "+QUEUED\r\n");
    world.pass(100);
    let new = depose(&mut world, leader);
    assert!(answer(&mut world, waits).starts_with("-UNBLOCKED"));
    let client = world.client(new);
    world.ask(client, "SET k other");
    world.ask(client, "RPUSH list a");
    world.heal();
    world.pass(500);
    // Back in office it knows nothing of the watch any more, and must not believe that nothing happened.
    world.isolate(new);
    world.until("the first leads again, or the third", |world| {
        world.serving(group(0)).is_some_and(|one| one != new)
    });
    let exec = world.ask(watches, "EXEC");
    assert!(exec == "*-1\r\n" || exec.starts_with("-CLUSTERDOWN"), "{exec:?}");
    assert_eq!(world.ask(waits, "PING"), "+PONG\r\n");
}

#[test]
fn nobody_knows_what_became_of_a_write_without_a_majority() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let client = world.client(leader);
    world.ask(client, "SET k 1");
    for other in others(leader) {
        world.crash(other, false);
    }
    world.feed(client, "SET k 2\r\nGET k");
    let before = world.now;
    let first = answer(&mut world, client);
    assert!(first.starts_with("-UNKNOWN"), "{first}");
    let mut both = first;
    world.until("the read is given up too", |world| {
        both += &world.read(client);
        both.contains("-CLUSTERDOWN")
    });
    assert!(world.now.since(before) < 8_000_000, "both in bounded time");
    world.start(others(leader)[0]);
    let leader = world.leader(group(0));
    let client = world.client(leader);
    let found = world.ask(client, "GET k");
    assert!(["$1\r\n1\r\n", "$1\r\n2\r\n"].contains(&found.as_str()), "{found}");
}

#[test]
fn leadership_is_handed_over_without_loss() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let client = world.client(leader);
    world.ask(client, "SET k 1");
    let to = others(leader)[0];
    let now = world.now;
    let replica = world.worker(leader).replica_mut(group(0)).expect("it is there");
    replica.hand_over(now, super::world::replica(to)).expect("it leads and the other votes");
    world.turn(leader);
    world.until("the other leads", |world| world.serving(group(0)) == Some(to));
    let other = world.client(to);
    assert_eq!(world.ask(other, "INCR k"), ":2\r\n");
    world.level(group(0));
}

#[test]
fn a_leader_that_stood_still_shows_nothing_old() {
    // With the rule and without: the negative control shows that there is something old to be shown.
    for (bug, shown) in [(Bug::None, false), (Bug::ReadUnconfirmed, true)] {
        let _rules = with_rules(bug);
        let mut world = World::new(3, 1);
        let old = world.leader(group(0));
        let client = world.client(old);
        world.ask(client, "SET k old");
        world.pass(50);
        world.machines[old].paused = world.now.plus_millis(3_000);
        let mut new = old;
        world.until("another leads", |world| {
            let found = others(old).into_iter().find(|&node| world.leads(node, group(0)));
            new = found.unwrap_or(old);
            found.is_some()
        });
        let other = world.client(new);
        assert_eq!(world.ask(other, "SET k new"), "+OK\r\n");
        world.until("the old one goes on", |world| !world.is_paused(old));
        world.feed(client, "GET k");
        let answer = answer(&mut world, client);
        assert_eq!(answer == "$3\r\nold\r\n", shown, "{bug:?}: {answer}");
    }
}

#[test]
fn what_comes_during_a_handover_waits_without_spinning() {
    let _rules = with_rules(Bug::None);
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let client = world.client(leader);
    world.ask(client, "SET k 1");
    // The one that is to lead does not hear of it: the handover is given up after an election timeout.
    let to = others(leader)[0];
    world.cut.insert((leader, to));
    let now = world.now;
    let replica = world.worker(leader).replica_mut(group(0)).expect("it is there");
    replica.hand_over(now, super::world::replica(to)).expect("it leads and the other votes");
    world.turn(leader);
    // `World::turn` fails if a worker never comes to rest.
    world.feed(client, "INCR k");
    world.pass(100);
    assert_eq!(world.read(client), "", "nothing is proposed meanwhile");
    world.heal();
    assert!(answer(&mut world, client).starts_with(":2"));
}
