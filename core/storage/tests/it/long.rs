//! Reads in slices answer what they would have answered at once, when they began.

use proptest::prelude::*;

use crate::harness::{Db, Long};

/// A store with keys `k0` to `kN`.
fn filled(keys: usize) -> Db {
    let mut db = Db::new();
    for n in 0..keys {
        db.run(&format!("set k{n} v{n}"));
    }
    db
}

fn begun(db: &mut Db, line: &str, slice: usize) -> Long {
    match db.begin(line, slice) {
        Err(long) => long,
        Ok(reply) => panic!("{line} was answered at once: {reply}"),
    }
}

/// Its answer, in slices of `slice`.
fn ended(db: &mut Db, mut long: Long, slice: usize) -> String {
    for _ in 0..100_000 {
        if let (Some(reply), _) = db.go_on(&mut long, slice) {
            return reply;
        }
    }
    panic!("it does not end")
}

#[test]
fn what_fits_a_slice_is_answered_at_once() {
    let mut db = filled(10);
    db.run("rpush l 3 1 2");
    db.run("del k0 k1 k2 k3 k4 k5 k6");
    assert_eq!(db.begin("sort_ro l", 100).ok().as_deref(), Some(r#"["1" "2" "3"]"#));
    assert!(db.begin("keys *", 100).is_ok());
    assert_eq!(db.store.long_reads(), 0);
}

#[test]
fn a_slice_takes_no_more_steps_than_it_has() {
    let mut db = filled(3000);
    let texts: Vec<String> = (0..3000).map(|n| format!("{}", n * 7919 % 3001)).collect();
    db.run(&format!("rpush l {}", texts.join(" ")));
    for (line, more) in [("keys *", 100), ("sort_ro l", 2100), ("sort_ro l alpha desc", 2100)] {
        let whole = db.run(line);
        for slice in [10, 100, 1000] {
            let mut long = begun(&mut db, line, slice);
            let mut calls = 0;
            let reply = loop {
                calls += 1;
                if let (Some(reply), _) = db.go_on(&mut long, slice) {
                    break reply;
                }
            };
            assert_eq!(reply, whole, "{line} in slices of {slice}");
            // To walk and to tell each takes a step; a slice may end some steps late, in the middle of a segment
            // or behind a run.
            assert!(calls >= 2 * 3000 / (slice + more), "{line} in slices of {slice}: {calls}");
        }
    }
    assert_eq!(db.store.long_reads(), 0);
}

#[test]
fn keys_that_come_and_go_behind_its_back_do_not_change_the_answer() {
    #[rustfmt::skip] // columns
    let table = [
        vec!["del k7"],
        vec!["del k7", "set k7 again"],
        vec!["del k7", "set k7 again", "del k7"],
        vec!["set new 1"],
        vec!["set new 1", "del new"],
        vec!["rename k7 k8"],
        vec!["rename k7 new"],
        vec!["pexpire k7 5", "%advance 10", "set x 1"],
        vec!["pexpire k7 5", "persist k7"],
        vec!["set k7 other px 5", "%advance 10"],
        vec!["flushdb"],
        vec!["flushdb", "set new 1", "set k7 1"],
        vec!["del k7", "flushdb", "flushdb"],
        vec!["%advance 200", "set x 1"],
    ];
    for changes in table {
        // However far it has come: it is before, at, and behind the keys that change.
        for first in (0..60).step_by(4) {
            let mut db = filled(60);
            db.run("pexpire k3 100");
            let whole = db.run("keys k*");
            let mut long = begun(&mut db, "keys k*", 1);
            for _ in 0..first {
                assert_eq!(db.go_on(&mut long, 1).0, None);
            }
            for change in &changes {
                db.run(change);
            }
            assert_eq!(ended(&mut db, long, 3), whole, "{changes:?} after {first} steps");
            while db.store.free_dead(10) > 0 {}
            assert_eq!(db.store.dead_bytes(), 0);
        }
    }
}

#[test]
fn an_expiry_that_an_earlier_entry_sets_does_not_reach_back() {
    let mut db = filled(60);
    db.advance(1000);
    let whole = db.run("keys *");
    let long = begun(&mut db, "keys *", 1);
    // The entry was on its way when the read began: its time is earlier, the key expires before the read's moment.
    db.retreat(1000);
    db.run("pexpire k7 500");
    db.run("pexpire k8 2000");
    db.advance(1000);
    assert_eq!(ended(&mut db, long, 5), whole);
}

#[test]
fn a_sort_goes_on_over_what_the_collection_was() {
    for (make, change) in
        [("rpush", "lpush c 0"), ("sadd", "del c"), ("zadd", "flushdb"), ("sadd", "spop c 100")]
    {
        let mut db = Db::new();
        let members: Vec<String> =
            (0..2000)
                .map(|n| {
                    if make == "zadd" {
                        format!("{n} {}", n * 31 % 2003)
                    } else {
                        format!("{}", n * 31 % 2003)
                    }
                })
                .collect();
        db.run(&format!("{make} c {}", members.join(" ")));
        for line in ["sort_ro c", "sort_ro c desc limit 5 700", "sort_ro c alpha get # get #"] {
            if db.run("exists c") == ":0" {
                continue;
            }
            let whole = db.run(line);
            let long = begun(&mut db, line, 20);
            if line.contains("get") {
                db.run(change);
            }
            assert_eq!(ended(&mut db, long, 20), whole, "{make}, {change}: {line}");
        }
    }
}

#[test]
fn a_sort_that_fails_answers_its_error() {
    let mut db = Db::new();
    let members: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
    db.run(&format!("rpush l {} word", members.join(" ")));
    let error = "-ERR One or more scores can't be converted into double";
    assert_eq!(db.run("sort_ro l"), error);
    let long = begun(&mut db, "sort_ro l", 50);
    assert_eq!(ended(&mut db, long, 50), error);
    assert_eq!(db.store.long_reads(), 0);
}

#[test]
fn a_read_that_is_given_up_leaves_nothing() {
    let mut db = filled(1000);
    let long = begun(&mut db, "keys *", 5);
    let other = begun(&mut db, "keys k1*", 5);
    db.run("flushdb");
    let kept = db.store.dead_bytes();
    assert!(kept > 1000 * 10, "what it reads is still memory: {kept}");
    db.store.end_long(long.id);
    assert_eq!(db.store.dead_bytes(), kept, "another reads it");
    db.store.end_long(other.id);
    assert_eq!(db.store.long_reads(), 0);
    while db.store.free_dead(100) > 0 {}
    assert_eq!(db.store.dead_bytes(), 0);
}

/// What may happen between two slices.
fn change() -> impl Strategy<Value = String> {
    (0u32..10, 0u32..80, 0u32..80, 1u32..60).prop_map(|(kind, a, b, time)| match kind {
        0 | 1 => format!("set k{a} v"),
        2 | 3 => format!("del k{a}"),
        4 => format!("rename k{a} k{b}"),
        5 => format!("pexpire k{a} {time}"),
        6 => format!("persist k{a}"),
        7 => format!("%advance {time}"),
        8 => format!("set k{a} v px {time}"),
        _ => String::from(if time > 55 { "flushdb" } else { "dbsize" }),
    })
}

proptest! {
    #[test]
    fn keys_are_those_of_the_moment_whatever_happens(
        changes in prop::collection::vec(change(), 1..150),
        slice in 1usize..12,
        pace in 1usize..4,
    ) {
        let mut db = filled(60);
        let mut running: Vec<(Long, String)> = Vec::new();
        for (place, change) in changes.iter().enumerate() {
            db.run(change);
            if place % 7 == 0 {
                let whole = db.run("keys k*");
                match db.begin("keys k*", slice) {
                    Ok(reply) => prop_assert_eq!(reply, whole),
                    Err(long) => running.push((long, whole)),
                }
            }
            if place % pace == 0 {
                let (mut done, mut all) = (Vec::new(), core::mem::take(&mut running));
                for (mut long, whole) in all.drain(..) {
                    match db.go_on(&mut long, slice) {
                        (Some(reply), _) => done.push((reply, whole)),
                        (None, _) => running.push((long, whole)),
                    }
                }
                for (reply, whole) in done {
                    prop_assert_eq!(reply, whole);
                }
            }
        }
        for (long, whole) in running {
            prop_assert_eq!(ended(&mut db, long, slice), whole);
        }
        prop_assert_eq!(db.store.long_reads(), 0);
    }
}
