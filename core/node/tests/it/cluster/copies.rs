//! Reads from copies that must know how old they are: when their leader counts as silent, and what is told of their age.

use control::{ReadFrom, Reading};
use kernel::KeyspaceId;
use kernel::planted::Bug;

use super::with_rules;
use super::world::{Client, World, group};

/// A cluster whose copies answer reads while they are at most `stale_ms_max` behind, one of them that knows its age, and
/// clients of the leader and of that copy.
fn read_copies(stale_ms_max: u32) -> (World, usize, Client, Client) {
    let mut world = World::new(3, 1);
    let leader = world.leader(group(0));
    let follower = (leader + 1) % 3;
    let (writes, reads) = (world.client(leader), world.client(follower));
    let reading = Reading { from: ReadFrom::Any, stale_ms_max };
    world.worker(follower).set_reading(KeyspaceId(0), reading);
    assert_eq!(world.ask(writes, "SET k 1"), "+OK\r\n");
    world.ask(reads, "GET k");
    world.until("it knows its age", |world| world.worker(follower).behind(0).is_some());
    world.level(group(0));
    (world, follower, writes, reads)
}

#[test]
fn a_leader_is_not_silent_because_one_question_was_lost_long_ago() {
    let _rules = with_rules(Bug::None);
    for millis in [1_800, 3_000, 5_000, 9_000] {
        let (mut world, follower, writes, reads) = read_copies(2_000);
        world.pass(1_200);
        world.isolate(follower);
        assert_eq!(world.ask(reads, "GET k"), "$1\r\n1\r\n", "young enough, and asks in vain");
        world.pass(100);
        world.heal();
        assert_eq!(world.ask(writes, "SET k 2"), "+OK\r\n");
        world.pass(millis);
        assert_eq!(world.ask(reads, "GET k"), "$1\r\n2\r\n", "after {millis} ms its leader is well");
    }
}

#[test]
fn a_leader_that_is_asked_all_the_time_and_does_not_answer_is_silent() {
    let _rules = with_rules(Bug::None);
    let (mut world, follower, _, reads) = read_copies(100);
    world.isolate(follower);
    // Each on a connection of its own: the first ones wait for the leader.
    let mut refused = None;
    for asked in 0..40 {
        let one = world.client(follower);
        world.feed(one, "GET k");
        let answer = world.read(one);
        if answer.starts_with("-MASTERDOWN") {
            refused = Some(asked);
            break;
        }
        world.pass(100);
    }
    let refused = refused.expect("it is silent at last");
    assert!(refused >= 10, "{refused}: it had no time to answer");
    assert!(world.ask(reads, "GET k").starts_with("-MASTERDOWN"), "at once from now on");
    world.heal();
    world.until("it is asked again, and answers", |world| world.ask(reads, "GET k") == "$1\r\n1\r\n");
}

#[test]
fn a_copy_that_is_not_read_has_no_age_to_tell() {
    let _rules = with_rules(Bug::None);
    let (mut world, follower, _, reads) = read_copies(2_000);
    let known = |world: &mut World| {
        let told = world.ask(reads, "INFO replication");
        assert!(told.contains("copies:1\r\n"), "{told}");
        told.contains("copies_of_known_age:1\r\n")
    };
    world.pass(8_000);
    assert!(known(&mut world), "it was read a while ago");
    world.pass(3_000);
    assert!(!known(&mut world), "it grows, and nobody cares");
    assert!(world.ask(reads, "INFO replication").contains("copies_behind_ms_max:0\r\n"));
    world.ask(reads, "GET k");
    world
        .until("it is read again", |world| world.worker(follower).behind(0).is_some_and(|it| it < 1_000_000));
    assert!(known(&mut world));
}
