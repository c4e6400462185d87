//! MULTI, EXEC, WATCH.

use crate::harness::Node;

#[test]
pub fn transactions_answer_as_redis_does() {
    let mut node = Node::new();
    let client = node.client();
    node.table(
        client,
        &[
            ("EXEC", "-ERR EXEC without MULTI\r\n"),
            ("DISCARD", "-ERR DISCARD without MULTI\r\n"),
            ("MULTI x", "-ERR wrong number of arguments for 'multi' command\r\n"),
            ("MULTI", "+OK\r\n"),
            ("MULTI", "-ERR MULTI calls can not be nested\r\n"),
            ("WATCH a", "-ERR WATCH inside MULTI is not allowed\r\n"),
            ("SET a b", "+QUEUED\r\n"),
            ("PING", "+QUEUED\r\n"),
            ("UNWATCH", "+QUEUED\r\n"),
            ("EXEC", "*3\r\n+OK\r\n+PONG\r\n+OK\r\n"),
            ("MULTI", "+OK\r\n"),
            ("EXEC", "*0\r\n"),
            ("MULTI", "+OK\r\n"),
            ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
            ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
            ("MULTI", "+OK\r\n"),
            ("NOSUCH", "-ERR unknown command 'NOSUCH', with args beginning with: \r\n"),
            ("SET a c", "+QUEUED\r\n"),
            ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
            ("GET a", "$1\r\nb\r\n"),
            ("MULTI", "+OK\r\n"),
            ("SAVE", "-ERR Command not allowed inside a transaction\r\n"),
            ("DISCARD", "+OK\r\n"),
            ("MULTI", "+OK\r\n"),
            (
                "EXEC foo",
                "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n",
            ),
            ("EXEC", "-ERR EXEC without MULTI\r\n"),
            ("MULTI", "+OK\r\n"),
            ("CLIENT SETNAME me", "+QUEUED\r\n"),
            ("CLIENT GETNAME", "+QUEUED\r\n"),
            ("CLIENT KILL ID x", "+QUEUED\r\n"),
            ("EXEC", "*3\r\n+OK\r\n$2\r\nme\r\n-ERR client-id should be greater than 0\r\n"),
            ("MULTI", "+OK\r\n"),
            ("CLIENT SETNAME other", "+QUEUED\r\n"),
            ("DISCARD", "+OK\r\n"),
            ("CLIENT GETNAME", "$2\r\nme\r\n"),
            ("MULTI", "+OK\r\n"),
            ("RESET", "+RESET\r\n"),
            ("EXEC", "-ERR EXEC without MULTI\r\n"),
        ],
    );
}

#[test]
pub fn a_transaction_stays_in_its_keyspace() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "MULTI");
    assert_eq!(node.ask(client, "SELECT 0"), "+QUEUED\r\n");
    assert!(node.ask(client, "SELECT 1").starts_with("-ERR SELECT of another database"));
    assert!(node.ask(client, "EXEC").starts_with("-EXECABORT"));
}

#[test]
pub fn a_message_in_a_transaction_is_sent_by_exec_after_its_writes() {
    let mut node = Node::new();
    let (listener, writer) = (node.client(), node.client());
    node.ask(listener, "SUBSCRIBE a");
    node.table(writer, &[("MULTI", "+OK\r\n"), ("SET k 1", "+QUEUED\r\n"), ("PUBLISH a x", "+QUEUED\r\n")]);
    assert_eq!(node.read(listener), "");
    node.feed(writer, "EXEC\r\n");
    assert_eq!(node.read(listener), "");
    node.settle();
    assert_eq!(node.read(writer), "*2\r\n+OK\r\n:1\r\n");
    assert_eq!(node.read(listener), "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n");
    // Without writes nothing is logged, and it is sent all the same.
    let logged = node.log.end;
    node.ask(writer, "MULTI\r\nPUBLISH a y");
    assert_eq!(node.ask(writer, "EXEC"), "*1\r\n:1\r\n");
    assert_eq!(node.read(listener), "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\ny\r\n");
    assert_eq!(node.log.end, logged);
}

#[test]
pub fn exec_depends_on_watched_keys() {
    #[rustfmt::skip] // columns
    let table = [
        // between            exec
        ("",                  "*1\r\n+OK\r\n"),
        ("SET other 1",       "*1\r\n+OK\r\n"),
        ("SET watched 1",     "*-1\r\n"),
        ("DEL watched",       "*-1\r\n"),
        ("FLUSHALL",          "*-1\r\n"),
        ("MULTI\r\nSET watched 2\r\nEXEC", "*-1\r\n"),
    ];
    for (between, expected) in table {
        for unwatch in [None, Some("UNWATCH"), Some("MULTI\r\nDISCARD"), Some("MULTI\r\nEXEC")] {
            let mut node = Node::new();
            let (a, b) = (node.client(), node.client());
            node.ask(a, "SET watched 0");
            node.ask(a, "WATCH watched nothing");
            if let Some(unwatch) = unwatch {
                node.ask(a, unwatch);
            }
            if !between.is_empty() {
                node.ask(b, between);
            }
            node.ask(a, "MULTI\r\nSET k v");
            let expected = if unwatch.is_some() { "*1\r\n+OK\r\n" } else { expected };
            assert_eq!(node.ask(a, "EXEC"), expected, "{between} {unwatch:?}");
        }
    }
}

#[test]
pub fn flushall_in_a_transaction_is_done_in_its_place() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "SELECT 3\r\nSET elsewhere 1\r\nSELECT 0");
    node.ask(client, "MULTI\r\nSET before 1\r\nFLUSHALL\r\nSET after 1");
    assert_eq!(node.ask(client, "EXEC"), "*3\r\n+OK\r\n+OK\r\n+OK\r\n");
    assert_eq!(node.ask(client, "EXISTS before after"), ":1\r\n");
    assert_eq!(node.ask(client, "SELECT 3\r\nDBSIZE"), "+OK\r\n:0\r\n");
}

#[test]
pub fn a_stalled_keyspace_holds_writers_back_without_spinning() {
    let mut node = Node::new();
    let (writer, other, reader) = (node.client(), node.client(), node.client());
    node.ask(other, "SET watched 0");
    node.ask(other, "WATCH watched\r\nMULTI\r\nCLIENT SETNAME me\r\nSET k 2");
    node.owner().set_stalled(0, true);
    node.turns();
    node.feed(writer, "SET k 1\r\nGET k\r\n");
    node.feed(other, "EXEC\r\n");
    node.turns();
    assert!(!node.turn(), "there is nothing to do at once");
    node.settle();
    assert_eq!((node.read(writer), node.read(other)), (String::new(), String::new()));
    assert_eq!(node.ask(reader, "GET k"), "$-1\r\n");
    node.owner().set_stalled(0, false);
    node.settle();
    assert_eq!(node.read(writer), "+OK\r\n$1\r\n1\r\n");
    assert_eq!(node.read(other), "*2\r\n+OK\r\n+OK\r\n");
    assert_eq!(node.ask(reader, "GET k"), "$1\r\n2\r\n");
}

#[test]
pub fn a_stalled_transaction_still_depends_on_its_watched_keys() {
    let mut node = Node::new();
    let (watcher, writer) = (node.client(), node.client());
    node.ask(watcher, "SET watched 0\r\nWATCH watched\r\nMULTI\r\nSET k 1");
    node.owner().set_stalled(0, true);
    node.turns();
    assert_eq!(node.ask(writer, "SET watched 1"), "");
    assert_eq!(node.ask(watcher, "EXEC"), "");
    node.owner().set_stalled(0, false);
    node.settle();
    assert_eq!(node.read(writer), "+OK\r\n");
    assert_eq!(node.read(watcher), "*-1\r\n");
}

#[test]
pub fn a_flush_breaks_watches_on_the_keys_that_it_removes_only() {
    for (before, flush, broken) in [
        ("SET k 1", "FLUSHALL", true),
        ("SET k 1", "FLUSHDB", true),
        ("DEL k", "FLUSHALL", false),
        ("DEL k", "FLUSHDB", false),
        ("SET k 1", "SELECT 3\r\nFLUSHDB", false),
    ] {
        let mut node = Node::new();
        let (watcher, other) = (node.client(), node.client());
        node.ask(other, before);
        node.ask(watcher, "WATCH k");
        node.ask(other, flush);
        let told = node.ask(watcher, "MULTI\r\nPING\r\nEXEC");
        let end = if broken { "*-1\r\n" } else { "*1\r\n+PONG\r\n" };
        assert_eq!(told, format!("+OK\r\n+QUEUED\r\n{end}"), "{before}, {flush}");
    }
}

#[test]
fn a_watch_is_broken_by_a_sort_under_way_that_stores_there() {
    let mut node = Node::new();
    let (client, other) = (node.client(), node.client());
    node.ask(client, "RPUSH from 2 1\r\nWATCH to");
    node.feed(other, "SORT from STORE to\r\n");
    node.turn();
    node.feed(client, "MULTI\r\nRPUSH to mine\r\nEXEC\r\n");
    node.settle();
    assert!(node.read(client).ends_with("*-1\r\n"));
    assert_eq!(node.ask(client, "LLEN to"), ":2\r\n");
}
