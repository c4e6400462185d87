//! SELECT, FLUSHALL, MOVE and their kin.

use crate::harness::Node;

#[test]
pub fn keyspaces_are_chosen_and_refused_as_in_redis() {
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
pub fn flushall_empties_every_keyspace_and_answers_once() {
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
pub fn flushall_is_refused_as_a_whole_when_the_log_is_full() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "SET a 1");
    node.log.full = true;
    assert!(node.ask(client, "FLUSHALL").starts_with("-MISCONF"));
    node.log.full = false;
    assert_eq!(node.ask(client, "GET a"), "$1\r\n1\r\n");
}

#[test]
pub fn keys_go_from_one_keyspace_to_another() {
    let mut node = Node::new();
    let client = node.client();
    node.table(
        client,
        &[
            ("SET a 1 PX 5000", "+OK\r\n"),
            ("COPY a b", ":1\r\n"),
            ("COPY a b DB 0", ":0\r\n"),
            ("COPY a b DB 0 REPLACE", ":1\r\n"),
            ("COPY a b DB 2", ":1\r\n"),
            ("COPY a b DB 2", ":0\r\n"),
            ("SET a 2 PX 5000", "+OK\r\n"),
            ("COPY a b REPLACE DB 2", ":1\r\n"),
            ("COPY nothing b DB 2", ":0\r\n"),
            ("MOVE a 2", ":1\r\n"),
            ("MOVE a 2", ":0\r\n"),
            ("EXISTS a", ":0\r\n"),
            ("SET a 3", "+OK\r\n"),
            ("MOVE a 2", ":0\r\n"),
            ("GET a", "$1\r\n3\r\n"),
            ("SELECT 2", "+OK\r\n"),
            ("GET a", "$1\r\n2\r\n"),
            ("GET b", "$1\r\n2\r\n"),
            ("PTTL a", ":5000\r\n"),
            ("PTTL b", ":5000\r\n"),
            ("MEMORY USAGE nothing", "$-1\r\n"),
            ("MEMORY USAGE", "-ERR wrong number of arguments for 'memory|usage' command\r\n"),
            ("MEMORY NOSUCH", "-ERR unknown subcommand 'NOSUCH'. Try MEMORY HELP.\r\n"),
        ],
    );
}

#[test]
pub fn a_move_follows_the_writes_under_way_and_breaks_watches() {
    let mut node = Node::new();
    let (mover, writer, watcher) = (node.client(), node.client(), node.client());
    node.ask(watcher, "SELECT 4\r\nWATCH a\r\nMULTI\r\nPING");
    node.feed(writer, "SET a 1\r\nAPPEND a 2\r\n");
    node.turns();
    node.feed(mover, "MOVE a 4\r\nGET a\r\nSELECT 4\r\nGET a\r\n");
    node.settle();
    node.settle();
    assert_eq!(node.read(mover), ":1\r\n$-1\r\n+OK\r\n$2\r\n12\r\n");
    assert_eq!(node.ask(watcher, "EXEC"), "*-1\r\n");
    node.ask(writer, "SET b 1");
    node.log.full = true;
    assert!(node.ask(writer, "MOVE b 4").starts_with("-MISCONF"));
    node.log.full = false;
    assert_eq!(node.ask(writer, "GET b"), "$1\r\n1\r\n");
}

#[test]
pub fn a_moved_key_is_logged_there_before_it_is_removed_here() {
    let mut node = Node::new();
    let (x, y, z) = (node.client(), node.client(), node.client());
    node.ask(x, "SET there-and 1\r\nSELECT 1\r\nSET and-back 2");
    node.log.entries.clear();
    // The first keyspace has an entry in this turn already, and two keys cross.
    node.feed(y, "SET other 1\r\n");
    node.feed(z, "MOVE there-and 1\r\n");
    node.feed(x, "MOVE and-back 0\r\n");
    node.settle();
    node.settle();
    assert_eq!((node.read(z), node.read(x)), (":1\r\n".into(), ":1\r\n".into()));
    for (key, from, to) in [("there-and", 0, 1), ("and-back", 1, 0)] {
        let naming = |keyspace: u16| {
            let names = |body: &[u8]| body.windows(key.len()).any(|window| window == key.as_bytes());
            node.log.entries.iter().position(|(of, body)| *of == keyspace && names(body))
        };
        let (restored, removed) = (naming(to).expect("it is logged"), naming(from).expect("it is logged"));
        assert!(restored < removed, "{key}: restored by entry {restored}, removed by {removed}");
    }
}

#[test]
pub fn that_nothing_is_moved_is_told_when_the_expiry_is_logged() {
    let mut node = Node::new();
    let client = node.client();
    for command in ["MOVE a 4", "COPY a b DB 4", "COPY a b DB 4 REPLACE"] {
        node.ask(client, "SET a 1 PX 10");
        let before = node.log.kept.len();
        // Nobody was woken for the key yet.
        node.now = node.now.plus_millis(20);
        node.log.full = true;
        assert!(node.ask(client, command).starts_with("-MISCONF the disk is full"), "{command}");
        assert_eq!(node.log.kept.len(), before);
        node.log.full = false;
        node.feed(client, &format!("{command}\r\n"));
        node.turns();
        assert_eq!(node.read(client), "", "{command}: it is not durable yet");
        node.settle();
        assert_eq!(node.read(client), ":0\r\n", "{command}");
        assert!(node.log.kept[before..].iter().any(|entry| entry.time >= node.now), "{command}");
        // Now it is known.
        let logged = node.log.kept.len();
        assert_eq!(node.ask(client, command), ":0\r\n", "{command}");
        assert_eq!(node.log.kept.len(), logged, "{command} of a key that is gone logs nothing");
    }
}

#[test]
fn a_move_that_waits_for_writes_under_way_lets_the_worker_sleep() {
    let mut node = Node::new();
    let (writer, mover) = (node.client(), node.client());
    node.feed(writer, "SET a 1\r\n");
    node.turn();
    node.feed(mover, "MOVE a 4\r\n");
    for _ in 0..3 {
        assert!(!node.turn(), "nothing is to be done before the sync");
        assert!(!node.worker.is_ready());
    }
    node.settle();
    assert_eq!(node.read(mover), ":1\r\n");
}
