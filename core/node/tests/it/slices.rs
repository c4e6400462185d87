//! Work that is too much for one turn.

use std::collections::BTreeSet;

use node::{Settings, SliceSteps};

use crate::harness::{ALONE, Client, Node, SHAPE, START, Shape};

/// Steps of a slice in these tests.
const STEPS: usize = 10;

fn node() -> Node {
    Node::with(Settings { started: START, slice_steps: SliceSteps(STEPS), ..Settings::default() })
}

/// Sets three thousand keys.
fn fill(node: &mut Node, client: Client) {
    for some in 0..6 {
        let keys: Vec<String> = (0..500).map(|n| format!("key{} value-{n}", 500 * some + n)).collect();
        assert_eq!(node.ask(client, &format!("MSET {}", keys.join(" "))), "+OK\r\n");
    }
}

fn dead(node: &mut Node) -> usize {
    node.owner().partitions().iter().map(|partition| partition.store().dead_bytes()).sum()
}

#[test]
pub fn a_flush_is_freed_a_slice_in_each_turn_while_others_are_served() {
    let mut node = node();
    let client = node.client();
    fill(&mut node, client);
    let full = node.owner().partitions()[0].store().memory_bytes();
    assert_eq!(node.ask(client, "FLUSHALL"), "+OK\r\n");
    assert!(dead(&mut node) > full / 2, "the answer does not wait for it");
    assert_eq!(node.ask(client, "DBSIZE\r\nSET new 1\r\nGET new"), ":0\r\n+OK\r\n$1\r\n1\r\n");
    let mut turns = 0;
    while dead(&mut node) > 0 {
        assert!(node.turn(), "there is more to do at once");
        turns += 1;
    }
    assert!(turns > 5, "{turns}");
    while node.turn() {}
    assert_eq!(node.ask(client, "KEYS *"), "*1\r\n$3\r\nnew\r\n");
}

/// What a client got after the fewest turns.
fn await_answer(node: &mut Node, client: Client) -> (usize, String) {
    for turns in 1..10_000 {
        node.turn();
        let text = node.read(client);
        if !text.is_empty() {
            return (turns, text);
        }
    }
    panic!("no answer")
}

fn long_reads(node: &mut Node) -> usize {
    node.owner().partitions().iter().map(|partition| partition.store().long_reads()).sum()
}

/// A node with three thousand keys and a list of a thousand elements, and two clients.
fn filled() -> (Node, Client, Client) {
    let mut node = node();
    let (client, other) = (node.client(), node.client());
    fill(&mut node, client);
    let elements: Vec<String> = (0..1000).map(|n| (n * 7 % 1001).to_string()).collect();
    node.ask(client, &format!("RPUSH list {}", elements.join(" ")));
    (node, client, other)
}

#[test]
pub fn keys_and_sort_go_on_in_slices_while_others_are_served() {
    let (mut node, client, other) = filled();
    for (command, count, turns) in
        [("KEYS key*", 3000, 100), ("SORT list", 1000, 100), ("SORT_RO list", 1000, 100)]
    {
        node.feed(client, &format!("{command}\r\n"));
        for _ in 0..4 {
            node.turn();
        }
        assert_eq!(node.read(client), "", "{command}");
        // Another client changes what it reads: its answer is of the moment it began.
        node.ask(other, "DEL key1 key2 key3\r\nRPUSH list x");
        assert_eq!(node.ask(other, "GET key5"), "$7\r\nvalue-5\r\n");
        let (more, text) = await_answer(&mut node, client);
        assert!(more > turns / 4, "{command}: {more} turns");
        assert!(text.starts_with(&format!("*{count}\r\n")), "{command}: {}", &text[..10]);
        assert_eq!(text.matches('$').count(), count, "{command}");
        node.ask(other, "MSET key1 1 key2 2 key3 3\r\nRPOP list");
        assert_eq!(long_reads(&mut node), 0);
    }
}

#[test]
pub fn what_follows_a_long_read_is_answered_behind_it() {
    let (mut node, client, _) = filled();
    node.feed(client, "SET a 1\r\nKEYS key*\r\nSET b 2\r\nGET b\r\nKEYS b\r\nPING\r\n");
    let mut text = String::new();
    while !text.ends_with("+PONG\r\n") {
        node.settle();
        text += &node.read(client);
    }
    assert!(text.starts_with("+OK\r\n*3000\r\n$"), "{}", &text[..20]);
    assert!(
        text.ends_with("\r\n+OK\r\n$1\r\n2\r\n*1\r\n$1\r\nb\r\n+PONG\r\n"),
        "{}",
        &text[text.len() - 50..]
    );
}

#[test]
pub fn a_long_read_of_a_client_that_leaves_is_given_up() {
    let (mut node, client, other) = filled();
    node.feed(client, "KEYS *\r\n");
    node.feed(other, "KEYS *\r\n");
    node.turns();
    assert_eq!(long_reads(&mut node), 2);
    node.of(client).disconnect(client.0);
    node.turns();
    assert_eq!(long_reads(&mut node), 1);
    node.ask(other, "");
    assert!(await_answer(&mut node, other).1.starts_with("*3001\r\n"));
    assert_eq!(long_reads(&mut node), 0);
    while node.turn() {}
}

#[test]
pub fn within_a_transaction_a_read_runs_whole() {
    let (mut node, client, _) = filled();
    node.ask(client, "MULTI\r\nKEYS *\r\nDEL key1\r\nKEYS *\r\nSORT list LIMIT 0 1");
    let text = node.ask(client, "EXEC");
    assert!(text.starts_with("*4\r\n*3001\r\n"), "{}", &text[..20]);
    assert!(text.contains("\r\n:1\r\n*3000\r\n"));
    assert!(text.ends_with("*1\r\n$1\r\n0\r\n"));
}

#[test]
pub fn a_client_that_sends_no_more_gets_its_long_answer() {
    let (mut node, client, _) = filled();
    node.feed(client, "KEYS *\r\n");
    node.turns();
    node.of(client).end_of_input(client.0);
    assert!(await_answer(&mut node, client).1.starts_with("*3001\r\n"));
    assert!(node.output(client).1, "it is closed then");
}

#[test]
pub fn a_flush_does_not_take_away_what_is_read() {
    let (mut node, client, other) = filled();
    node.feed(client, "KEYS key*\r\n");
    node.turns();
    assert_eq!(node.ask(other, "FLUSHALL\r\nSET key1 new\r\nDBSIZE"), "+OK\r\n+OK\r\n:1\r\n");
    assert!(await_answer(&mut node, client).1.starts_with("*3000\r\n"));
    while node.turn() {}
    assert_eq!(dead(&mut node), 0);
}

/// Every partition of the node with its unfinished reads.
fn reads_of_all(node: &mut Node) -> usize {
    (0..node.shape.workers)
        .map(|number| node.nth(number).partitions().iter().map(|one| one.store().long_reads()).sum::<usize>())
        .sum()
}

#[test]
fn keys_of_several_partitions_are_read_in_slices_each_at_one_moment() {
    for workers in [1, 2, 3] {
        let owner = |id| id % 3;
        let owner: fn(u16) -> u16 = if workers == 3 { owner } else { |_| 0 };
        SHAPE.set(Shape { workers, owner, partitions: |id| if id == 0 { 4 } else { 1 }, client: |_| 0 });
        let mut node = node();
        SHAPE.set(ALONE);
        let (client, other, leaver) = (node.client(), node.client(), node.client());
        fill(&mut node, client);
        node.feed(leaver, "KEYS *\r\n");
        node.feed(client, "SET before 1\r\nKEYS key*\r\nSET after 1\r\nKEYS after\r\nPING\r\n");
        node.settle();
        assert!(reads_of_all(&mut node) >= 4, "{workers} workers: the walks are under way");
        node.of(leaver).disconnect(leaver.0);
        // What goes and comes behind the beginning is in no partition's answer, or in its own moment's.
        assert_eq!(node.ask(other, "DEL key1 key2 key3 key4\r\nMSET keyA 1 keyB 2"), ":4\r\n+OK\r\n");
        let mut text = String::new();
        for _ in 0..10_000 {
            node.settle();
            text += &node.read(client);
            if text.ends_with("+PONG\r\n") {
                break;
            }
        }
        assert!(text.starts_with("+OK\r\n*3000\r\n$"), "{workers} workers: {}", &text[..20.min(text.len())]);
        assert!(text.ends_with("\r\n+OK\r\n*1\r\n$5\r\nafter\r\n+PONG\r\n"), "{workers} workers");
        let keys: BTreeSet<&str> = text.split("\r\n").filter(|line| line.starts_with("key")).collect();
        assert_eq!(keys.len(), 3000, "{workers} workers: each once");
        assert!(keys.contains("key1") && !keys.contains("keyA"), "{workers} workers");
        assert_eq!(reads_of_all(&mut node), 0, "{workers} workers: nothing is left of who left");
    }
}
