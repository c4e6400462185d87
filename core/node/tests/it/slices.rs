//! Work that is too much for one turn.

use node::{Settings, SliceSteps};

use crate::harness::{Client, Node, START};

/// Steps of a slice in these tests.
const STEPS: usize = 50;

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
