//! SELECT, FLUSHALL, MOVE and their kin.

use crate::harness::Node;

#[test]
fn keyspaces_are_chosen_and_refused_as_in_redis() {
    let mut node = Node::new();
    let client = node.client();
    node.table(
        client,
        &[
            ("SELECT x", "-ERR value is not an integer or out of range\r\n"),
            ("SELECT 16", "-ERR DB index is out of range\r\n"),
            ("SELECT -1", "-ERR DB index is out of range\r\n"),
            ("SELECT 99999999999999999999", "-ERR value is not an integer or out of range\r\n"),
            ("SELECT 15", "+OK\r\n"),
            ("SELECT 0", "+OK\r\n"),
            ("SWAPDB x 1", "-ERR invalid first DB index\r\n"),
            ("SWAPDB 0 x", "-ERR invalid second DB index\r\n"),
            ("SWAPDB 0 99", "-ERR DB index is out of range\r\n"),
            ("SWAPDB 0 0", "+OK\r\n"),
            ("MOVE a 0", "-ERR source and destination objects are the same\r\n"),
            ("MOVE a x", "-ERR value is not an integer or out of range\r\n"),
            ("MOVE a 99", "-ERR DB index is out of range\r\n"),
            ("COPY a b DB 99", "-ERR DB index is out of range\r\n"),
            ("COPY a b DB x", "-ERR value is not an integer or out of range\r\n"),
            ("FLUSHALL foo", "-ERR syntax error\r\n"),
        ],
    );
}

#[test]
fn flushall_empties_every_keyspace_and_answers_once() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "SET a 1\r\nSELECT 5\r\nSET b 2");
    node.feed(client, "FLUSHALL ASYNC\r\nDBSIZE\r\n");
    assert_eq!(node.read(client), "");
    node.settle();
    assert_eq!(node.read(client), "+OK\r\n:0\r\n");
    assert_eq!(node.ask(client, "SELECT 0\r\nDBSIZE"), "+OK\r\n:0\r\n");
}

#[test]
fn flushall_is_refused_as_a_whole_when_the_log_is_full() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "SET a 1");
    node.log.full = true;
    assert!(node.ask(client, "FLUSHALL").starts_with("-MISCONF"));
    node.log.full = false;
    assert_eq!(node.ask(client, "GET a"), "$1\r\n1\r\n");
}
