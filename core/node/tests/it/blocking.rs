//! Clients that wait for an element.

use kernel::Lsn;

use crate::harness::Node;

const POPPED: &str = "*2\r\n$1\r\nl\r\n$1\r\nx\r\n";

#[test]
pub fn waiting_clients_are_served_in_the_order_they_came() {
    let mut node = Node::new();
    let (a, b, pusher) = (node.client(), node.client(), node.client());
    assert_eq!(node.ask(a, "BLPOP l 0\r\nPING"), "");
    assert_eq!(node.ask(b, "BLPOP other l 0"), "");
    assert!(node.ask(pusher, "CLIENT LIST").contains(" flags=b "));
    assert!(node.ask(pusher, "INFO clients").contains("blocked_clients:2\r\n"));
    assert_eq!(node.ask(pusher, "RPUSH l x"), ":1\r\n");
    assert_eq!(node.read(a), format!("{POPPED}+PONG\r\n"));
    assert_eq!(node.read(b), "");
    assert_eq!(
        node.ask(pusher, "MULTI\r\nRPUSH l x\r\nLPOP l\r\nEXEC"),
        "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n$1\r\nx\r\n"
    );
    assert_eq!(node.read(b), "", "what a transaction took back was never there");
    node.ask(pusher, "RPUSH other x");
    assert_eq!(node.read(b), "*2\r\n$5\r\nother\r\n$1\r\nx\r\n");
    assert_eq!(node.ask(pusher, "EXISTS l other"), ":0\r\n");
}

#[test]
pub fn waiting_ends_in_time_or_by_another_client() {
    #[rustfmt::skip] // columns
    let table = [
        ("CLIENT UNBLOCK 1",         ":1\r\n", "*-1\r\n"),
        ("CLIENT UNBLOCK 1 TIMEOUT", ":1\r\n", "*-1\r\n"),
        ("CLIENT UNBLOCK 1 ERROR",   ":1\r\n", "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"),
        ("CLIENT UNBLOCK 2",         ":0\r\n", ""),
        ("RPUSH l x",                ":1\r\n", POPPED),
        ("SET l string",             "+OK\r\n", ""),
        ("CLIENT KILL ID 1",         ":1\r\n", ""),
    ];
    for (command, answer, released) in table {
        let mut node = Node::new();
        let (waiting, other) = (node.client(), node.client());
        node.ask(waiting, "BLPOP l 10");
        assert_eq!(node.ask(other, command), answer, "{command}");
        assert_eq!(node.read(waiting), released, "{command}");
        assert_eq!(
            node.ask(other, "CLIENT UNBLOCK 1"),
            if released.is_empty() && !command.contains("KILL") { ":1\r\n" } else { ":0\r\n" },
            "{command}"
        );
    }
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "BLPOP l 10");
    node.pass(9_999);
    assert_eq!(node.read(client), "");
    node.pass(1);
    assert_eq!(node.read(client), "*-1\r\n");
    assert_eq!(node.ask(client, "MULTI\r\nBLPOP l 0\r\nEXEC"), "+OK\r\n+QUEUED\r\n*1\r\n*-1\r\n");
}

#[test]
pub fn a_client_that_leaves_while_it_is_served_is_answered_once() {
    for leave in ["end", "unblock", "kill"] {
        let mut node = Node::new();
        let (waiting, other) = (node.client(), node.client());
        // In one turn, so that the push does not know of who will wait.
        node.feed(waiting, "BLPOP l 0\r\n");
        node.feed(other, "RPUSH l x\r\n");
        // The push is applied and the pop is logged, but not synced.
        node.worker.end_turn(node.now, &mut node.log);
        node.worker.synced(Lsn(node.log.end));
        node.worker.end_turn(node.now, &mut node.log);
        assert_eq!(node.read(other), ":1\r\n");
        let (answer, closing) = match leave {
            "end" => {
                node.of(waiting).end_of_input(waiting.0);
                (POPPED, true)
            }
            "unblock" => {
                node.feed(other, "CLIENT UNBLOCK 1\r\n");
                (POPPED, false)
            }
            _ => {
                node.feed(other, "CLIENT KILL ID 1\r\n");
                (POPPED, true)
            }
        };
        node.settle();
        assert_eq!(node.output(waiting), (answer.into(), closing), "{leave}");
        assert_eq!(node.read(other), if leave == "end" { "" } else { ":1\r\n" }, "{leave}");
    }
}

#[test]
pub fn who_waits_is_served_before_later_commands_of_the_same_turn() {
    let mut node = Node::new();
    let (waiting, next, pusher) = (node.client(), node.client(), node.client());
    node.ask(waiting, "BLPOP l 0");
    assert_eq!(node.ask(pusher, "RPUSH l x\r\nLPOP l"), ":1\r\n$-1\r\n");
    assert_eq!(node.read(waiting), POPPED);
    node.ask(waiting, "BLMOVE a b RIGHT LEFT 0");
    node.ask(next, "BLMOVE b c LEFT RIGHT 0");
    let told =
        node.ask(pusher, "MULTI\r\nRPUSH a x\r\nEXEC\r\nLRANGE a 0 -1\r\nLRANGE b 0 -1\r\nLPOP b\r\nLPOP c");
    let tail = told.strip_prefix("+OK\r\n+QUEUED\r\n*1\r\n:1\r\n");
    assert_eq!(tail, Some("*0\r\n*0\r\n$-1\r\n$1\r\nx\r\n"), "{told}");
    assert_eq!((node.read(waiting), node.read(next)), ("$1\r\nx\r\n".to_owned(), "$1\r\nx\r\n".to_owned()));
}

#[test]
pub fn a_write_that_serves_nobody_leaves_who_waits_waiting() {
    let mut node = Node::new();
    let (waiting, other) = (node.client(), node.client());
    node.ask(waiting, "BLPOP l 0");
    assert_eq!(node.ask(other, "LPOP l\r\nSET l string\r\nDEL l"), "$-1\r\n+OK\r\n:1\r\n");
    assert_eq!(node.read(waiting), "");
    node.ask(other, "RPUSH l x");
    assert_eq!(node.read(waiting), POPPED);
}
