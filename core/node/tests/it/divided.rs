//! Keyspaces of several partitions: what is divided, what is refused, and in which order it is answered.

use std::collections::BTreeSet;

use crate::harness::{Client, Node, Shape};
use crate::several::node;

/// Keyspace 0 has four partitions, 1 has two, the others one; `k0` is in the first of four, and so on.
const PARTITIONS: fn(u16) -> u16 = |id| match id {
    0 => 4,
    1 => 2,
    _ => 1,
};

/// All on one worker; on two; on three, with clients of all.
const SHAPES: [Shape; 3] = [
    Shape { workers: 1, owner: |_| 0, partitions: PARTITIONS, client: |_| 0 },
    Shape { workers: 2, owner: |id| id % 2, partitions: PARTITIONS, client: |_| 0 },
    Shape { workers: 3, owner: |id| id % 3, partitions: PARTITIONS, client: |number| (number + 1) % 3 },
];

fn on_all_shapes(rows: &[(&str, &str)]) {
    for shape in SHAPES {
        let mut node = node(shape);
        let client = node.client();
        node.table(client, rows);
    }
}

const CROSS: &str = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
const WHOLE: &str =
    "-ERR this command concerns all partitions of the database; scripts and transactions run in one\r\n";

#[test]
fn commands_on_keys_of_several_partitions_are_divided_and_answered_once() {
    // `a` is in partition 3, `b` in 0, `c` in 1, `d` in 2.
    on_all_shapes(&[
        ("MSET a 1 b 2 c 3 d 4", "+OK\r\n"),
        ("MGET d none a b c a", "*6\r\n$1\r\n4\r\n$-1\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n1\r\n"),
        ("GET a", "$1\r\n1\r\n"),
        ("EXISTS a b c d a none", ":5\r\n"),
        ("TOUCH a b none", ":2\r\n"),
        ("MSET a 5 a 6 b 7", "+OK\r\n"),
        ("MGET a b", "*2\r\n$1\r\n6\r\n$1\r\n7\r\n"),
        ("DBSIZE", ":4\r\n"),
        ("UNLINK a b", ":2\r\n"),
        ("DEL a c d none", ":2\r\n"),
        ("DBSIZE", ":0\r\n"),
        ("RANDOMKEY", "$-1\r\n"),
        ("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command\r\n"),
        ("MGET", "-ERR wrong number of arguments for 'mget' command\r\n"),
        ("SET a 1", "+OK\r\n"),
        ("RANDOMKEY", "$1\r\na\r\n"),
        ("FLUSHDB foo", "-ERR syntax error\r\n"),
        ("FLUSHDB ASYNC", "+OK\r\n"),
        ("EXISTS a", ":0\r\n"),
    ]);
}

#[test]
fn other_commands_on_several_partitions_are_refused_as_in_a_cluster() {
    on_all_shapes(&[
        ("RENAME a b", CROSS),
        ("MSETNX a 1 b 2", CROSS),
        ("SINTERSTORE a b c", CROSS),
        ("BLPOP a b 0", CROSS),
        ("BLMOVE a b LEFT RIGHT 0", CROSS),
        ("COPY a b", CROSS),
        ("EVAL x 2 a b 1", CROSS),
        ("SORT a STORE b", CROSS),
        ("WATCH a b", CROSS),
        // With one hash tag they are together.
        ("MSETNX {a}1 x {a}2 y", ":1\r\n"),
        ("RENAME {a}1 a", "+OK\r\n"),
        ("COPY a {a}3", ":1\r\n"),
        ("MGET a {a}2 {a}3", "*3\r\n$1\r\nx\r\n$1\r\ny\r\n$1\r\nx\r\n"),
        ("RPUSH {a}l 2 1", ":2\r\n"),
        ("SORT {a}l STORE {a}m", ":2\r\n"),
        ("BLPOP {a}none {a}m 0", "*2\r\n$4\r\n{a}m\r\n$1\r\n1\r\n"),
        (
            "SORT {a}l BY w*",
            "-ERR a BY or GET pattern of SORT needs the hash tag of the key, before its *, in a database of several partitions\r\n",
        ),
        ("SORT {a}l BY {a}w* GET #", "*2\r\n$1\r\n1\r\n$1\r\n2\r\n"),
    ]);
}

#[test]
fn a_transaction_stays_in_one_partition() {
    on_all_shapes(&[
        ("MULTI", "+OK\r\n"),
        ("SET a 1", "+QUEUED\r\n"),
        ("SET {a}b 2", "+QUEUED\r\n"),
        ("PING", "+QUEUED\r\n"),
        ("GET a", "+QUEUED\r\n"),
        ("EXEC", "*4\r\n+OK\r\n+OK\r\n+PONG\r\n$1\r\n1\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SET a 2", "+QUEUED\r\n"),
        ("SET b 2", CROSS),
        ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
        ("MULTI", "+OK\r\n"),
        ("MGET a b", CROSS),
        ("DISCARD", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("DBSIZE", WHOLE),
        ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
        ("MULTI", "+OK\r\n"),
        (
            "FLUSHALL",
            "-ERR FLUSHALL is not allowed inside a transaction of a database of several partitions\r\n",
        ),
        ("DISCARD", "+OK\r\n"),
        ("GET a", "$1\r\n1\r\n"),
        // No command says where: it runs all the same.
        ("MULTI", "+OK\r\n"),
        ("ECHO x", "+QUEUED\r\n"),
        ("EXEC", "*1\r\n$1\r\nx\r\n"),
        ("MULTI", "+OK\r\n"),
        ("EXEC", "*0\r\n"),
    ]);
}

#[test]
fn a_transaction_depends_on_watched_keys_of_its_own_partition() {
    for shape in SHAPES {
        for (change, expected) in [("SET {a}w 2", "*-1\r\n"), ("SET b 2", "*1\r\n+OK\r\n")] {
            let mut node = node(shape);
            let (client, other) = (node.client(), node.client());
            node.table(client, &[("WATCH {a}w a", "+OK\r\n"), ("WATCH b", CROSS)]);
            node.ask(other, change);
            node.table(client, &[("MULTI", "+OK\r\n"), ("SET a 1", "+QUEUED\r\n"), ("EXEC", expected)]);
            // Watched here, to be run there.
            node.table(
                client,
                &[
                    ("WATCH a", "+OK\r\n"),
                    ("MULTI", "+OK\r\n"),
                    ("SET b 1", CROSS),
                    ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
                    ("WATCH b", "+OK\r\n"),
                    ("UNWATCH", "+OK\r\n"),
                ],
            );
            assert!((0..shape.workers).all(|number| node.nth(number).watched_keys().is_empty()));
        }
    }
}

#[test]
fn watched_keys_of_other_keyspaces_count_wherever_they_are() {
    for shape in SHAPES {
        for key in ["a", "b", "c", "d"] {
            for (change, expected) in [(key, "*-1\r\n"), ("other", "*1\r\n+OK\r\n")] {
                let mut node = node(shape);
                let (client, other) = (node.client(), node.client());
                node.ask(client, &format!("WATCH {key}\r\nSELECT 1\r\nWATCH a\r\nMULTI\r\nSET a 1"));
                node.ask(other, &format!("SET {change} 2"));
                assert_eq!(node.ask(client, "EXEC"), expected, "{key} watched, {change} set, {shape:?}");
            }
        }
    }
}

fn scan(node: &mut Node, client: Client, options: &str) -> Vec<String> {
    let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
    loop {
        let answer = node.ask(client, &format!("SCAN {cursor}{options}"));
        let mut lines = answer.split("\r\n");
        assert_eq!((lines.next(), lines.next().map(|line| &line[..1])), (Some("*2"), Some("$")), "{answer}");
        cursor = lines.next().expect("a cursor").to_owned();
        assert!(cursor.parse::<u64>().is_ok_and(|cursor| cursor < 1 << 53), "a double holds it");
        keys.extend(
            lines.skip(1).filter(|line| !line.starts_with('$') && !line.is_empty()).map(String::from),
        );
        if cursor == "0" {
            return keys;
        }
    }
}

#[test]
fn a_scan_goes_through_all_partitions_and_finds_every_key_that_stays() {
    for shape in SHAPES {
        let mut node = node(shape);
        let (client, other) = (node.client(), node.client());
        assert_eq!(scan(&mut node, client, ""), Vec::<String>::new());
        let names: BTreeSet<String> = (0..200).map(|number| format!("key{number}")).collect();
        names.iter().for_each(|name| {
            node.ask(client, &format!("SET {name} 1"));
        });
        for options in ["", " COUNT 1", " COUNT 1000", " MATCH key*", " TYPE string"] {
            let found = scan(&mut node, client, options);
            assert_eq!(found.len(), names.len(), "each once while nothing changes");
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), names, "{options} {shape:?}");
        }
        assert!(scan(&mut node, client, " MATCH nothing*").is_empty());
        let listed = node.ask(other, "KEYS key1*");
        assert!(listed.starts_with("*111\r\n"), "{listed}");
        node.table(
            client,
            &[
                ("SCAN x", "-ERR invalid cursor\r\n"),
                ("SCAN 0 COUNT 0", "-ERR syntax error\r\n"),
                ("SCAN 0 FOO", "-ERR syntax error\r\n"),
                // Of a partition that there is none of.
                ("SCAN 18446744073709551615", "*2\r\n$1\r\n0\r\n*0\r\n"),
            ],
        );
    }
}

#[test]
fn replies_keep_their_order_and_reads_see_the_connections_own_writes() {
    for shape in SHAPES {
        let mut node = node(shape);
        let client = node.client();
        let text = "SET a 1\r\nGET b\r\nMSET a 2 b 3\r\nGET a\r\nMGET a b c\r\nINCR a\r\nPING\r\nDEL a b\r\nEXISTS a b\r\n";
        node.feed(client, text);
        node.settle();
        let expected =
            "+OK\r\n$-1\r\n+OK\r\n$1\r\n2\r\n*3\r\n$1\r\n2\r\n$1\r\n3\r\n$-1\r\n:3\r\n+PONG\r\n:2\r\n:0\r\n";
        assert_eq!(node.read(client), expected, "{shape:?}");
    }
}

#[test]
fn a_divided_write_is_answered_when_its_last_part_is_durable() {
    for shape in SHAPES {
        let mut node = node(shape);
        let client = node.client();
        node.feed(client, "MSET a 1 b 2 c 3 d 4\r\n");
        node.turns();
        assert_eq!(node.read(client), "", "nothing is synced");
        node.settle();
        assert_eq!(node.read(client), "+OK\r\n");
        // Those that leave before are answered nothing, and what they sent is done.
        node.feed(client, "DEL a b c d\r\n");
        node.of(client).disconnect(client.0);
        node.settle();
        let other = node.client();
        assert_eq!(node.ask(other, "DBSIZE"), ":0\r\n");
    }
}

#[test]
fn a_part_that_is_refused_is_the_answer() {
    for shape in SHAPES {
        let mut node = node(shape);
        let client = node.client();
        node.log.full = true;
        let told = node.ask(client, "MSET a 1 b 2");
        assert!(told.starts_with("-MISCONF the disk is full") && told.lines().count() == 1, "{told}");
        node.log.full = false;
        assert_eq!(node.ask(client, "MSET a 1 b 2"), "+OK\r\n");
    }
}

#[test]
fn a_stalled_partition_holds_back_the_whole_of_a_divided_write() {
    for shape in SHAPES {
        let mut node = node(shape);
        let client = node.client();
        let number = ((shape.owner)(0) + 3) % shape.workers;
        let at =
            node.nth(number).partitions().iter().position(|one| (one.keyspace().0, one.number()) == (0, 3));
        let at = at.expect("the owner has it");
        node.nth(number).set_stalled(at, true);
        node.turns();
        node.feed(client, "MSET a 1 b 2\r\n");
        node.settle();
        assert_eq!(node.read(client), "");
        let other = node.client();
        assert_eq!(node.ask(other, "MGET a b"), "*2\r\n$-1\r\n$-1\r\n", "no part is done, reads go on");
        assert_eq!(node.ask(other, "SET b 5"), "+OK\r\n", "other partitions take writes");
        node.nth(number).set_stalled(at, false);
        node.settle();
        assert_eq!(node.read(client), "+OK\r\n");
        assert_eq!(node.ask(other, "MGET a b"), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    }
}

#[test]
fn keys_go_between_keyspaces_of_one_worker() {
    let mut node = node(SHAPES[0]);
    let client = node.client();
    node.table(
        client,
        &[
            ("MSET a 1 b 2", "+OK\r\n"),
            ("MOVE a 1", ":1\r\n"),
            ("EXISTS a b", ":1\r\n"),
            ("COPY b c DB 5", ":1\r\n"),
            ("SELECT 1", "+OK\r\n"),
            ("MGET a b", "*2\r\n$1\r\n1\r\n$-1\r\n"),
            ("MOVE a 0", ":1\r\n"),
            ("SELECT 5", "+OK\r\n"),
            ("GET c", "$1\r\n2\r\n"),
            ("SELECT 0", "+OK\r\n"),
            ("MGET a b", "*2\r\n$1\r\n1\r\n$1\r\n2\r\n"),
            ("SWAPDB 0 5", "-ERR SWAPDB is not offered for a database of several partitions\r\n"),
            ("SWAPDB 5 1", "-ERR SWAPDB is not offered for a database of several partitions\r\n"),
            ("SWAPDB 5 6", "+OK\r\n"),
            ("FLUSHALL", "+OK\r\n"),
            ("DBSIZE", ":0\r\n"),
        ],
    );
}

#[test]
fn a_keyspace_is_told_as_one() {
    for shape in SHAPES {
        let mut node = node(shape);
        let client = node.client();
        node.ask(client, "MSET a 1 b 2 c 3 d 4\r\nEXPIRE a 100");
        let told = node.ask(client, "INFO keyspace");
        assert!(told.contains("db0:keys=4,expires=1,avg_ttl=0\r\n"), "{told}");
        assert_eq!(told.matches("db0:").count(), 1, "{told}");
    }
}

#[test]
fn who_waits_in_one_partition_is_served_there() {
    for shape in SHAPES {
        let mut node = node(shape);
        let (waiting, other) = (node.client(), node.client());
        node.feed(waiting, "BLPOP {c}1 c 0\r\n");
        node.settle();
        node.table(other, &[("RPUSH a x", ":1\r\n"), ("RPUSH c y", ":1\r\n"), ("LLEN c", ":0\r\n")]);
        assert_eq!(node.read(waiting), "*2\r\n$1\r\nc\r\n$1\r\ny\r\n");
    }
}

#[test]
fn a_script_is_loaded_into_every_partition() {
    for shape in SHAPES {
        let mut node = node(shape);
        let client = node.client();
        let id = node.ask(client, "SCRIPT LOAD \"return 1\"").lines().nth(1).map(String::from).unwrap();
        assert_eq!(node.ask(client, &format!("SCRIPT EXISTS {id} {}", "0".repeat(40))), "*2\r\n:1\r\n:0\r\n");
        for key in ["a", "b", "c", "d"] {
            assert_eq!(node.ask(client, &format!("EVALSHA {id} 1 {key} x")), ":1\r\n");
        }
        assert_eq!(node.ask(client, "SCRIPT FLUSH"), "+OK\r\n");
        assert_eq!(node.ask(client, &format!("SCRIPT EXISTS {id}")), "*1\r\n:0\r\n");
    }
}

#[test]
fn a_worker_whose_parts_have_answered_does_not_sleep() {
    let mut node = node(SHAPES[0]);
    let client = node.client();
    node.feed(client, "DBSIZE\r\n");
    assert!(node.worker.is_ready(), "the parts have answered, and nobody has joined them");
    node.turn();
    assert!(!node.worker.is_ready());
    assert_eq!(node.read(client), ":0\r\n");
}
