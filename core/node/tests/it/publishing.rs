//! Channels and patterns.

use crate::harness::Node;

#[test]
pub fn subscribers_get_messages_in_both_protocols() {
    let mut node = Node::new();
    let (two, three, publisher) = (node.client(), node.client(), node.client());
    node.ask(three, "HELLO 3");
    assert_eq!(
        node.ask(two, "SUBSCRIBE a b"),
        "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n"
    );
    assert_eq!(node.ask(two, "PSUBSCRIBE a*"), "*3\r\n$10\r\npsubscribe\r\n$2\r\na*\r\n:3\r\n");
    assert_eq!(node.ask(three, "SUBSCRIBE a"), ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    assert_eq!(node.ask(publisher, "PUBLISH a hi"), ":3\r\n");
    assert_eq!(
        node.read(two),
        "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n*4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$1\r\na\r\n$2\r\nhi\r\n"
    );
    assert_eq!(node.read(three), ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n");
    node.table(
        publisher,
        &[
            ("PUBSUB NUMPAT", ":1\r\n"),
            ("PUBSUB NUMSUB a b c", "*6\r\n$1\r\na\r\n:2\r\n$1\r\nb\r\n:1\r\n$1\r\nc\r\n:0\r\n"),
            ("PUBSUB CHANNELS", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
            ("PUBSUB CHANNELS b*", "*1\r\n$1\r\nb\r\n"),
            ("PUBSUB FOO", "-ERR unknown subcommand 'FOO'. Try PUBSUB HELP.\r\n"),
            ("PUBSUB", "-ERR wrong number of arguments for 'pubsub' command\r\n"),
        ],
    );
    node.of(two).disconnect(two.0);
    node.of(three).disconnect(three.0);
    assert_eq!(node.ask(publisher, "PUBSUB CHANNELS"), "*0\r\n");
    assert_eq!(node.ask(publisher, "PUBLISH a hi"), ":0\r\n");
}

#[test]
pub fn a_resp2_subscriber_may_only_listen() {
    let refused = |name: &str| {
        format!(
            "-ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed \
             in this context\r\n"
        )
    };
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "SUBSCRIBE z");
    node.table(
        client,
        &[
            ("GET x", &refused("get")),
            ("CLIENT ID", &refused("client|id")),
            ("MULTI", &refused("multi")),
            ("HELLO 3", &refused("hello")),
            ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
            ("PING", "*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
            ("PING x", "*2\r\n$4\r\npong\r\n$1\r\nx\r\n"),
            ("UNSUBSCRIBE", "*3\r\n$11\r\nunsubscribe\r\n$1\r\nz\r\n:0\r\n"),
            ("PUNSUBSCRIBE", "*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n"),
            ("GET x", "$-1\r\n"),
            ("SUBSCRIBE", "-ERR wrong number of arguments for 'subscribe' command\r\n"),
            (
                "SUBSCRIBE z z",
                "*3\r\n$9\r\nsubscribe\r\n$1\r\nz\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nz\r\n:1\r\n",
            ),
            ("RESET", "+RESET\r\n"),
            ("GET x", "$-1\r\n"),
            ("PUBSUB NUMSUB z", "*2\r\n$1\r\nz\r\n:0\r\n"),
        ],
    );
}

#[test]
pub fn a_resp3_subscriber_may_do_everything_and_hears_itself() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "HELLO 3");
    node.ask(client, "SUBSCRIBE a");
    node.table(
        client,
        &[
            ("PUBLISH a x", ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n:1\r\n"),
            ("GET x", "_\r\n"),
            ("UNSUBSCRIBE zz", ">3\r\n$11\r\nunsubscribe\r\n$2\r\nzz\r\n:1\r\n"),
            ("UNSUBSCRIBE a", ">3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n"),
        ],
    );
}

#[test]
pub fn a_message_follows_the_writes_before_it() {
    let mut node = Node::new();
    let (listener, writer) = (node.client(), node.client());
    node.ask(listener, "SUBSCRIBE a");
    node.feed(writer, "SET k 1\r\nPUBLISH a done\r\n");
    assert_eq!(node.read(listener), "", "the write is not applied yet");
    node.settle();
    assert_eq!(node.read(listener), "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\ndone\r\n");
    assert_eq!(node.read(writer), "+OK\r\n:1\r\n");
}

#[test]
pub fn a_subscriber_that_does_not_read_is_cut() {
    let mut node = Node::new();
    let (listener, writer) = (node.client(), node.client());
    node.ask(listener, "SUBSCRIBE a");
    let message = "x".repeat(8 * 1024 * 1024);
    let command = format!("*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n${}\r\n{message}\r\n", message.len());
    for _ in 0..3 {
        node.feed(writer, &command);
        node.settle();
        assert_eq!(node.read(writer), ":1\r\n");
    }
    let (out, closing) = node.of(listener).output(listener.0).expect("it is there");
    assert!(out.len() > 24 * 1024 * 1024);
    assert!(!closing);
    node.feed(writer, &command);
    node.settle();
    let (out, closing) = node.of(listener).output(listener.0).expect("it is there");
    assert!(out.is_empty());
    assert!(closing);
    assert_eq!(node.ask(writer, "PUBLISH a x"), ":1\r\n:0\r\n");
}

#[test]
pub fn a_message_from_a_script_is_sent_when_it_is_applied() {
    let mut node = Node::new();
    let (listener, writer) = (node.client(), node.client());
    node.ask(listener, "PSUBSCRIBE a*");
    node.feed(writer, "EVAL whatever 1 abc hi\r\n");
    assert_eq!(node.read(listener), "");
    node.settle();
    assert_eq!(node.read(writer), ":1\r\n");
    assert_eq!(node.read(listener), "*4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$3\r\nabc\r\n$2\r\nhi\r\n");
}
