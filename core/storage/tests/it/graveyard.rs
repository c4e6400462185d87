//! Large values are gone at once, and freed a piece at a time.

use storage::store::Policy;

use crate::harness::Db;

/// Members of a large value.
const MEMBERS: usize = 3000;

fn text(n: usize) -> String {
    format!("a-member-that-is-not-short-{n}")
}

/// Makes a large value of each type.
fn large(db: &mut Db, command: &str, key: &str) {
    let mut words = vec![command.to_owned(), key.to_owned()];
    for n in 0..MEMBERS {
        match command {
            "HSET" => words.extend([format!("f{n}"), text(n)]),
            "ZADD" => words.extend([n.to_string(), text(n)]),
            "RPUSH" => words.push(text(n).repeat(40)),
            _ => words.push(text(n)),
        }
    }
    let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
    assert_eq!(db.run_words(&words), format!(":{MEMBERS}"));
}

/// Frees what is dead, `steps` at a time; how many calls that took.
fn bury(db: &mut Db, steps: usize) -> usize {
    let mut calls = 0;
    loop {
        let before = db.store.dead_bytes();
        let freed = db.store.free_dead(steps);
        assert!(freed <= steps);
        assert!(db.store.dead_bytes() <= before);
        if freed == 0 {
            return calls;
        }
        calls += 1;
    }
}

#[test]
fn whatever_removes_a_large_value_it_is_gone_at_once_and_its_memory_later() {
    #[rustfmt::skip] // columns
    let table = [
        ("RPUSH", "DEL k",                       "nil"),
        ("SADD",  "UNLINK k",                    "nil"),
        ("HSET",  "SET k v",                     "\"v\""),
        ("ZADD",  "RENAME other k",              "\"o\""),
        ("SADD",  "COPY other k REPLACE",        "\"o\""),
        ("ZADD",  "SUNIONSTORE k none",          "nil"),
        ("HSET",  "SET k w EX 10",               "\"w\""),
        ("SADD",  "PEXPIRE k 0",                 "nil"),
        ("HSET",  "FLUSHDB",                     "nil"),
    ];
    for (make, remove, left) in table {
        let mut db = Db::new();
        db.run("SET other o");
        let empty = db.store.memory_bytes();
        large(&mut db, make, "k");
        let full = db.store.memory_bytes();
        db.run(remove);
        assert_eq!(db.run("GET k"), left, "{make}, {remove}");
        assert!(db.store.dead_bytes() > (full - empty) / 2, "{make}, {remove}: {}", db.store.dead_bytes());
        assert!(db.store.memory_bytes() + full / 8 > full, "{make}, {remove}: what is dead is still memory");
        let calls = bury(&mut db, 50);
        assert!(calls > 3, "{make}, {remove}: {calls}");
        assert_eq!(db.store.dead_bytes(), 0);
        assert!(db.store.memory_bytes() < empty + 1000, "{make}, {remove}: {}", db.store.memory_bytes());
    }
}

#[test]
fn an_expired_large_value_is_freed_a_piece_at_a_time() {
    let mut db = Db::new();
    large(&mut db, "ZADD", "k");
    db.run("PEXPIRE k 100");
    db.advance(200);
    db.run("SET x 1");
    assert_eq!(db.store.len(), 1);
    assert!(bury(&mut db, 50) >= MEMBERS / 50);
}

#[test]
fn a_small_value_is_freed_at_once() {
    let mut db = Db::new();
    db.run("RPUSH k a b c");
    db.run("SADD s a b c");
    db.run("DEL k s");
    assert_eq!(db.store.dead_bytes(), 0);
    assert_eq!(db.store.free_dead(1), 0);
}

#[test]
fn a_flush_leaves_its_keys_to_be_freed_and_new_ones_do_not_mix_with_them() {
    let mut db = Db::new();
    for n in 0..2000 {
        db.run(&format!("SET key{n} {}", text(n)));
    }
    large(&mut db, "SADD", "k");
    let full = db.store.memory_bytes();
    db.run("FLUSHDB");
    assert_eq!(db.run("DBSIZE"), ":0");
    assert!(db.store.dead_bytes() > full / 2, "{} of {full}", db.store.dead_bytes());
    db.run("SET key1 new");
    assert!(bury(&mut db, 100) >= (2000 + MEMBERS - 256) / 100);
    assert_eq!(db.run("GET key1"), "\"new\"");
    assert_eq!(db.run("DBSIZE"), ":1");
}

#[test]
fn what_is_still_to_be_freed_is_no_part_of_the_state() {
    let digest = |steps: usize| {
        let mut db = Db::new();
        for round in 0..3 {
            large(&mut db, "SADD", "k");
            db.run("SPOP k 10");
            large(&mut db, "HSET", &format!("h{round}"));
            db.run(if round == 1 { "FLUSHDB" } else { "DEL k" });
            db.store.free_dead(steps);
        }
        db.store.digest().expect("it is in memory")
    };
    assert_eq!(digest(0), digest(usize::MAX));
    assert_eq!(digest(7), digest(usize::MAX));
}

#[test]
fn values_that_are_replaced_faster_than_they_are_freed_take_no_more_memory() {
    let mut db = Db::new();
    large(&mut db, "SADD", "source");
    let one = db.store.memory_bytes();
    let mut most = 0;
    for _ in 0..1000 {
        db.run("SUNIONSTORE target source");
        most = most.max(db.store.memory_bytes());
    }
    assert!(1000 * one > 3 * (64 << 20), "they would take much more: {one} each");
    assert!(most < 2 * one + (65 << 20), "{most}");
}

#[test]
fn an_evicted_large_body_is_freed_a_piece_at_a_time() {
    let mut db = Db::new();
    db.store.set_policy(Policy::NoEviction);
    large(&mut db, "SADD", "k");
    db.store.begin_cut();
    assert!(db.store.write_cut(usize::MAX).is_some());
    db.store.cut_is_durable();
    assert!(db.store.evict_bodies(usize::MAX, 10) > 0);
    assert!(db.store.dead_bytes() > 0);
    assert!(bury(&mut db, 100) >= MEMBERS / 100);
}
