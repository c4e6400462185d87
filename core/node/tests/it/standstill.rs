//! A node of its own stands still: writers wait, and nothing else.

use kernel::{GroupId, Index, KeyspaceId, Micros, Term};
use node::standstill::{Moved, STILL_MS_MAX, Still, TICKETS_MAX};

use crate::harness::Node;

const DB: KeyspaceId = KeyspaceId(0);
const GROUP: GroupId = GroupId::new(DB, 0);

fn hold(node: &mut Node, ticket: u64, millis: u64) -> Result<Vec<Still>, Moved> {
    let now = node.now;
    let held = node.worker.still(now, ticket, DB, Some(now.plus_millis(millis)));
    held.map_err(|(group, moved)| {
        assert_eq!(group, GROUP);
        moved
    })
}

fn go_on(node: &mut Node, ticket: u64) -> Result<(), Moved> {
    let now = node.now;
    node.worker.go_on(now, ticket).map_err(|(_, moved)| moved)
}

fn settled(node: &Node, ticket: u64) -> Result<Option<Vec<Index>>, Moved> {
    let settled = node.worker.settled(ticket).map_err(|(_, moved)| moved)?;
    Ok(settled.map(|stills| stills.iter().map(|still| still.index).collect()))
}

#[test]
fn writers_wait_until_it_goes_on_and_nothing_is_logged_meanwhile() {
    let mut node = Node::new();
    let (client, other) = (node.client(), node.client());
    node.ask(client, "SET a 1");
    node.ask(client, "SET a 2");
    let (applied, time) = (Index(2), node.now);
    let still = Still { group: GROUP, index: Index(2), term: Term(1), applied, time };
    assert_eq!(hold(&mut node, 7, 400), Ok(vec![still]));
    let logged = node.log.end;
    assert_eq!(node.ask(client, "GET a"), "$1\r\n2\r\n", "who only reads does not wait");
    assert_eq!(node.ask(client, "SET a 3"), "");
    assert_eq!(node.ask(other, "INCR a"), "");
    assert_eq!(node.ask(other, "PING"), "", "answers keep their order");
    assert_eq!(node.log.end, logged, "nothing is proposed");
    let elsewhere = node.client();
    assert_eq!(node.ask(elsewhere, "SELECT 1"), "+OK\r\n");
    assert_eq!(node.ask(elsewhere, "SET a 1"), "+OK\r\n", "another keyspace does not stand still");
    assert_eq!(settled(&node, 7), Ok(None));
    assert_eq!(go_on(&mut node, 7), Ok(()));
    node.settle();
    assert_eq!(node.read(client), "+OK\r\n");
    assert_eq!(node.read(other), ":4\r\n+PONG\r\n");
    assert_eq!(settled(&node, 7), Ok(Some(vec![Index(2)])), "what came later is not in it");
    node.worker.forget_still(7);
    assert_eq!(settled(&node, 7), Ok(Some(vec![])), "nothing is known of it any more");
}

#[test]
fn what_was_not_synced_when_it_stood_still_is_waited_for() {
    let mut node = Node::new();
    let client = node.client();
    node.feed(client, "SET a 1\r\n");
    node.turn();
    let stills = hold(&mut node, 7, 400).expect("it stands");
    assert_eq!((stills[0].index, stills[0].applied), (Index(1), Index(0)));
    assert_eq!(go_on(&mut node, 7), Ok(()));
    assert_eq!(settled(&node, 7), Ok(None));
    node.settle();
    assert_eq!(settled(&node, 7), Ok(Some(vec![Index(1)])));
}

#[test]
fn it_goes_on_by_itself_and_is_worth_nothing_then() {
    let mut node = Node::new();
    let client = node.client();
    hold(&mut node, 7, 400).expect("it stands");
    assert_eq!(node.ask(client, "SET a 1"), "");
    assert_eq!(node.worker.deadline(), Some(node.now.plus_millis(400)));
    node.pass(399);
    assert_eq!(node.read(client), "");
    node.pass(1);
    assert_eq!(node.read(client), "+OK\r\n");
    assert_eq!(go_on(&mut node, 7), Err(Moved::Expired));
    assert_eq!(go_on(&mut node, 8), Ok(()), "of what it never heard it has nothing to say");
    assert_eq!(settled(&node, 8), Ok(Some(vec![])));
}

#[test]
fn a_hold_over_which_something_was_proposed_is_broken_whatever_the_clock_says() {
    let mut node = Node::new();
    let client = node.client();
    hold(&mut node, 7, 400).expect("it stands");
    let then = node.now;
    node.now = then.plus_millis(400);
    // Nobody woke it: it is seen when something is to be proposed.
    assert_eq!(node.ask(client, "SET a 1"), "+OK\r\n");
    node.now = then;
    assert_eq!(go_on(&mut node, 7), Err(Moved::Expired));
}

#[test]
fn who_finds_a_hold_that_is_over_lets_its_writers_go() {
    let mut node = Node::new();
    let client = node.client();
    hold(&mut node, 7, 400).expect("it stands");
    assert_eq!(node.ask(client, "SET a 1"), "");
    node.now = node.now.plus_millis(400);
    // Nobody woke it, and nobody will: it has no deadline any more.
    assert_eq!(hold(&mut node, 8, 400), Err(Moved::Busy));
    node.settle();
    assert_eq!(node.read(client), "+OK\r\n");
}

#[test]
fn an_expiry_waits_with_its_readers() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "SET a 1 PX 100");
    hold(&mut node, 7, 400).expect("it stands");
    let logged = node.log.end;
    node.pass(200);
    assert_eq!(node.log.end, logged, "it is not reaped");
    assert_eq!(
        node.worker.deadline(),
        Some(node.now.plus_millis(200)),
        "nor is it asked for again and again"
    );
    assert!(!node.worker.is_ready(), "there is nothing to do at once");
    assert_eq!(node.ask(client, "GET a"), "", "what is not logged is not shown");
    assert_eq!(go_on(&mut node, 7), Ok(()));
    node.settle();
    assert_eq!(node.read(client), "$-1\r\n");
}

#[test]
fn writers_have_two_thirds_of_the_time() {
    let mut node = Node::new();
    hold(&mut node, 1, 400).expect("it stands");
    node.pass(100);
    assert_eq!(go_on(&mut node, 1), Ok(()));
    assert_eq!(hold(&mut node, 2, 400), Err(Moved::Busy));
    let now = node.now;
    assert!(node.worker.still(now, 3, DB, None).is_ok(), "what does not hold may be asked at any time");
    node.pass(199);
    assert_eq!(hold(&mut node, 2, 400), Err(Moved::Busy));
    node.pass(1);
    assert!(hold(&mut node, 2, 400).is_ok());
    node.worker.forget_still(1);
    node.worker.forget_still(3);
    // One behind the other, they hold no longer than one.
    node.pass(300);
    hold(&mut node, 4, STILL_MS_MAX).expect("it stands with the other");
    node.pass(1600);
    hold(&mut node, 5, STILL_MS_MAX).expect("it still does");
    assert_eq!(node.worker.deadline(), Some(node.now.plus_millis(100)));
    node.pass(100);
    assert_eq!(go_on(&mut node, 4), Err(Moved::Expired));
    assert_eq!(hold(&mut node, 6, 400), Err(Moved::Busy));
}

#[test]
fn so_many_may_hold_it_and_all_must_let_it_go() {
    let mut node = Node::new();
    let client = node.client();
    let most = TICKETS_MAX as u64;
    for ticket in 0..most {
        assert!(hold(&mut node, ticket, 400).is_ok());
    }
    assert_eq!(hold(&mut node, most, 400), Err(Moved::TooMany));
    assert_eq!(node.ask(client, "SET a 1"), "");
    for ticket in 1..most {
        node.worker.forget_still(ticket);
        node.settle();
        assert_eq!(node.read(client), "");
    }
    assert_eq!(hold(&mut node, 0, 400), Err(Moved::Busy), "it is not held twice under one ticket");
    node.worker.forget_still(0);
    node.settle();
    assert_eq!(node.read(client), "+OK\r\n");
    // Those that nobody forgets are forgotten by themselves.
    let now = node.now;
    for ticket in 0..most {
        node.worker.still(now, ticket, DB, None).expect("it does not hold");
    }
    assert_eq!(hold(&mut node, most, 400), Err(Moved::TooMany));
    node.pass(60_000);
    assert!(hold(&mut node, most, 400).is_ok());
}

#[test]
fn an_empty_partition_has_come_to_nothing() {
    let mut node = Node::new();
    let still = Still { group: GROUP, index: Index(0), term: Term(0), applied: Index(0), time: Micros(0) };
    assert_eq!(hold(&mut node, 7, 400), Ok(vec![still]));
    assert_eq!(go_on(&mut node, 7), Ok(()));
    assert_eq!(settled(&node, 7), Ok(Some(vec![Index(0)])));
}
