//! SWAPDB: all of it or nothing, as clients see it and after a crash.

use consensus::{Durability, Solo};
use kernel::{GroupId, KeyspaceId, Lsn, Term};
use node::recover::naming;
use node::{Divisions, Partition, Recovery};
use storage::Store;
use storage::apply::NoScripts;

use crate::harness::{ALONE, Client, Node, SHAPE, Shape};

#[test]
fn two_keyspaces_are_exchanged() {
    let mut node = Node::new();
    let client = node.client();
    node.table(
        client,
        &[
            ("SET a zero", "+OK\r\n"),
            ("SELECT 1", "+OK\r\n"),
            ("SET b one PX 5000", "+OK\r\n"),
            ("SWAPDB 1 0", "+OK\r\n"),
            ("GET a", "$4\r\nzero\r\n"),
            ("EXISTS b", ":0\r\n"),
            ("SELECT 0", "+OK\r\n"),
            ("GET b", "$3\r\none\r\n"),
            ("PTTL b", ":5000\r\n"),
            ("DBSIZE", ":1\r\n"),
            ("SWAPDB 0 2", "+OK\r\n"),
            ("DBSIZE", ":0\r\n"),
            ("MOVE b 1", ":0\r\n"),
            ("SELECT 2", "+OK\r\n"),
            ("MOVE b 1", ":1\r\n"),
            ("SELECT 1", "+OK\r\n"),
            ("MGET a b", "*2\r\n$4\r\nzero\r\n$3\r\none\r\n"),
            ("FLUSHDB", "+OK\r\n"),
            ("DBSIZE", ":0\r\n"),
        ],
    );
}

#[test]
fn nobody_sees_an_exchange_before_it_is_durable_nor_half_of_it() {
    let mut node = Node::new();
    let (swapper, writer, reader) = (node.client(), node.client(), node.client());
    node.ask(swapper, "SET a old\r\nSELECT 1\r\nSET a new");
    node.feed(writer, "APPEND a +\r\n");
    node.feed(swapper, "SWAPDB 0 1\r\nGET a\r\n");
    node.feed(reader, "GET a\r\nSELECT 1\r\nGET a\r\n");
    for _ in 0..3 {
        node.worker.end_turn(node.now, &mut node.log);
        assert_eq!((node.read(swapper), node.read(reader)), (String::new(), String::new()));
    }
    // The writer's entry first, then the exchange's.
    node.worker.synced(Lsn(node.log.end));
    node.worker.end_turn(node.now, &mut node.log);
    assert_eq!((node.read(writer), node.read(reader)), (":4\r\n".into(), String::new()));
    node.settle();
    assert_eq!(node.read(swapper), "+OK\r\n$4\r\nold+\r\n");
    assert_eq!(node.read(reader), "$3\r\nnew\r\n+OK\r\n$4\r\nold+\r\n");
}

#[test]
fn an_exchange_breaks_watches_on_keys_that_are_there_before_or_after() {
    #[rustfmt::skip] // columns
    let table = [
        // set in 0, set in 1, watched in 0, EXEC
        (Some("x"), None,      "*-1\r\n"),
        (None,      Some("x"), "*-1\r\n"),
        (Some("x"), Some("x"), "*-1\r\n"),
        (None,      None,      "*1\r\n+PONG\r\n"),
        (Some("y"), Some("y"), "*1\r\n+PONG\r\n"),
    ];
    for (first, second, expected) in table {
        let mut node = Node::new();
        let (watcher, swapper) = (node.client(), node.client());
        for (db, key) in [(0, first), (1, second)] {
            if let Some(key) = key {
                node.ask(swapper, &format!("SELECT {db}\r\nSET {key} 1"));
            }
        }
        node.ask(watcher, "WATCH x");
        assert_eq!(node.ask(swapper, "SWAPDB 0 1"), "+OK\r\n");
        assert_eq!(node.ask(watcher, "MULTI\r\nPING\r\nEXEC"), format!("+OK\r\n+QUEUED\r\n{expected}"));
        // The watch has gone with it, wherever its keyspace is now.
        assert_eq!(node.worker.watched_keys().len(), 0);
    }
}

#[test]
fn a_watch_stays_with_its_keyspace() {
    let mut node = Node::new();
    let (watcher, writer) = (node.client(), node.client());
    node.ask(watcher, "WATCH x");
    node.ask(writer, "SWAPDB 0 1\r\nSELECT 1\r\nSET x 1");
    assert_eq!(node.ask(watcher, "MULTI\r\nPING\r\nEXEC"), "+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n");
    node.ask(watcher, "WATCH y");
    node.ask(writer, "SWAPDB 0 1\r\nSELECT 0\r\nSET y 1");
    assert_eq!(node.ask(watcher, "MULTI\r\nPING\r\nEXEC"), "+OK\r\n+QUEUED\r\n*-1\r\n");
}

#[test]
fn an_exchange_serves_who_waits_for_a_key_that_comes_with_it() {
    let mut node = Node::new();
    let (waiter, other, pusher) = (node.client(), node.client(), node.client());
    node.ask(pusher, "SELECT 1\r\nRPUSH k hello");
    node.ask(waiter, "SELECT 9\r\nBRPOP k 0");
    node.ask(other, "SELECT 1\r\nBLPOP m 0");
    assert_eq!(node.ask(pusher, "SWAPDB 1 9"), "+OK\r\n");
    assert_eq!(node.read(waiter), "*2\r\n$1\r\nk\r\n$5\r\nhello\r\n");
    // Who waited on in 1 is served there.
    assert_eq!(node.read(other), "");
    node.ask(pusher, "RPUSH m 5");
    assert_eq!(node.read(other), "*2\r\n$1\r\nm\r\n$1\r\n5\r\n");
    node.ask(waiter, "BLPOP k 0.5\r\n");
    node.ask(pusher, "SWAPDB 9 1\r\n");
    node.pass(600);
    assert_eq!(node.read(waiter), "*-1\r\n");
}

#[test]
fn a_full_log_refuses_an_exchange_and_lets_everybody_go_on() {
    let mut node = Node::new();
    let (swapper, reader) = (node.client(), node.client());
    node.ask(swapper, "SET a 1");
    node.log.full = true;
    node.feed(reader, "PING\r\n");
    assert!(node.ask(swapper, "SWAPDB 0 1").starts_with("-MISCONF"));
    assert_eq!(node.ask(reader, "GET a"), "+PONG\r\n$1\r\n1\r\n");
    node.log.full = false;
    assert_eq!(node.ask(swapper, "SWAPDB 0 1\r\nGET a"), "+OK\r\n$-1\r\n");
}

#[test]
fn an_exchange_is_not_part_of_a_transaction() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "MULTI");
    assert_eq!(node.ask(client, "SWAPDB 0 1"), "-ERR Command not allowed inside a transaction\r\n");
    assert!(node.ask(client, "EXEC").starts_with("-EXECABORT"));
}

#[test]
fn settings_stay_with_the_keyspace_and_not_with_its_data() {
    let mut node = Node::with_memory(&[(0, 1000), (1, 2000)]);
    let client = node.client();
    let budgets = |node: &Node| {
        let all = node.worker.partitions().iter().enumerate();
        let one = |db: u16| all.clone().find(|(_, partition)| partition.keyspace() == KeyspaceId(db));
        [0, 1].map(|db| node.worker.budget(one(db).expect("it exists").0))
    };
    node.ask(client, "SWAPDB 0 1");
    assert_eq!(budgets(&node), [Some(1000), Some(2000)]);
}

/// The node that comes back from what `node` logged, but for the last `lost` entries.
fn restarted(node: &Node, lost: usize) -> Node {
    let mut scripting = NoScripts;
    let divisions = Divisions::default();
    let mut recovery = Recovery::new(7, &mut scripting, Default::default(), &divisions);
    node.log.records(lost).for_each(|record| recovery.record(record));
    let (mut stores, _) = recovery.finish(&Default::default()).expect("the log is whole");
    let naming = naming(&stores);
    Node::holding((0..16).map(|id| {
        let group = GroupId::new(naming.home(KeyspaceId(id)), 0);
        let (store, term) = stores.remove(&group).unwrap_or_else(|| (Store::new(7), Term(1)));
        let solo = Solo::new(term, store.applied(), Durability::Always);
        Partition::new(group, store, solo).serving(KeyspaceId(id))
    }))
}

fn contents(node: &mut Node, client: Client) -> Vec<String> {
    (0..3).map(|db| node.ask(client, &format!("SELECT {db}\r\nKEYS *"))).collect()
}

#[test]
fn after_a_crash_both_are_exchanged_or_neither() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "SET a 1\r\nSELECT 1\r\nSET b 1\r\nSELECT 2\r\nSET c 1");
    for swap in ["SWAPDB 0 1", "SWAPDB 1 2", "SWAPDB 0 2", "SWAPDB 2 0"] {
        let before = contents(&mut node, client);
        assert_eq!(node.ask(client, swap), "+OK\r\n");
        let after = contents(&mut node, client);
        assert_ne!(before, after);
        for (lost, expected) in [(0, &after), (1, &before)] {
            let mut again = restarted(&node, lost);
            let client = again.client();
            assert_eq!(&contents(&mut again, client), expected, "{swap}, {lost} entries lost");
        }
    }
}

#[test]
fn exchanged_keyspaces_open_on_any_number_of_workers() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "SET a 1\r\nSELECT 1\r\nSET b 1\r\nSELECT 2\r\nSET c 1\r\nSWAPDB 0 1\r\nSWAPDB 0 2");
    let expected = contents(&mut node, client);
    for workers in 1..4 {
        let owners: [fn(u16) -> u16; 3] = [|_| 0, |id| id % 2, |id| id % 3];
        SHAPE.set(Shape {
            workers,
            owner: owners[usize::from(workers) - 1],
            partitions: |_| 1,
            client: |_| 0,
        });
        let mut again = restarted(&node, 0);
        SHAPE.set(ALONE);
        let client = again.client();
        assert_eq!(contents(&mut again, client), expected, "{workers} workers");
        // FLUSHALL spares none, and a flush of one spares the others.
        again.ask(client, "SELECT 1\r\nFLUSHDB");
        let left = contents(&mut again, client);
        assert_eq!([&left[0], &left[2]], [&expected[0], &expected[2]], "{workers} workers");
        again.ask(client, "SELECT 1\r\nSET f 1\r\nSELECT 0\r\nMULTI\r\nFLUSHALL\r\nSET e 1\r\nEXEC");
        let left = contents(&mut again, client);
        assert_eq!(left, ["+OK\r\n*1\r\n$1\r\ne\r\n", "+OK\r\n*0\r\n", "+OK\r\n*0\r\n"], "{workers} workers");
    }
}
