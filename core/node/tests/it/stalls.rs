//! Clients that do not read their replies.

use node::OUTPUT_STALL_MILLIS_MAX;

use crate::harness::{Client, Node};

/// A client with more unread output than is held for one, and commands behind it.
fn held() -> (Node, Client) {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "SETRANGE big 1500000 x");
    node.feed(client, "GET big\r\nGET big\r\nPING\r\n");
    node.settle();
    assert!(!node.of(client).wants_input(client.0), "it is held");
    (node, client)
}

/// Takes some bytes of the client's output, as a socket with little room does.
fn take(node: &mut Node, client: Client, bytes: usize) {
    let (out, _) = node.of(client).output(client.0).expect("it is connected");
    out.drain(..bytes);
    node.of(client).sent(client.0);
}

#[test]
pub fn a_client_that_takes_nothing_is_cut_and_no_other() {
    let (mut node, client) = held();
    let other = node.client();
    assert!(node.of(client).deadline().is_some());
    node.pass(OUTPUT_STALL_MILLIS_MAX - 1);
    assert!(!node.of(client).is_cut(client.0));
    node.pass(1);
    assert!(node.of(client).is_cut(client.0));
    assert_eq!(node.output(client), (String::new(), true), "its output is given up");
    node.of(client).disconnect(client.0);
    assert_eq!(node.of(client).deadline(), None);
    assert_eq!(node.ask(other, "PING"), "+PONG\r\n");
}

#[test]
pub fn a_client_that_reads_slowly_stays() {
    let (mut node, client) = held();
    for _ in 0..10 {
        node.pass(OUTPUT_STALL_MILLIS_MAX - 1);
        take(&mut node, client, 1);
    }
    assert!(!node.of(client).is_cut(client.0));
    let mut text = String::new();
    while !text.ends_with("+PONG\r\n") {
        let more = node.read(client);
        assert!(!more.is_empty(), "it goes on when it has read");
        text = more;
        node.settle();
    }
    assert_eq!(node.of(client).deadline(), None);
}

#[test]
pub fn a_client_that_has_read_everything_has_its_whole_time_again() {
    let (mut node, client) = held();
    node.pass(OUTPUT_STALL_MILLIS_MAX - 1);
    while !node.read(client).is_empty() {
        node.settle();
    }
    node.feed(client, "GET big\r\nPING\r\n");
    node.settle();
    node.pass(OUTPUT_STALL_MILLIS_MAX - 1);
    assert!(!node.of(client).is_cut(client.0));
    node.pass(1);
    assert!(node.of(client).is_cut(client.0));
}
