//! Sets: command lines and their replies; and what random choices must satisfy.

use std::collections::BTreeSet;

use crate::harness::{Db, check};

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

#[test]
#[rustfmt::skip] // columns
fn members_are_added_and_removed() {
    check(&[
        ("sadd s 3 1 2", ":3"),
        ("sadd s 2 3 4", ":1"),
        ("sadd s 1", ":0"),
        ("smembers s", r#"["1" "2" "3" "4"]"#),
        ("scard s", ":4"),
        ("srem s 1 1 9", ":1"),
        ("srem s 9", ":0"),
        ("srem none a", ":0"),
        ("smembers s", r#"["2" "3" "4"]"#),
        ("srem s 2 3 4", ":3"),
        ("exists s", ":0"),
        ("scard s", ":0"),
        ("smembers none", "[]"),
        ("sadd t a", ":1"),
        ("sadd t a b 1", ":2"),
        ("scard t", ":3"),
        ("sadd t", "-ERR wrong number of arguments for 'sadd' command"),
        ("srem t", "-ERR wrong number of arguments for 'srem' command"),
        ("lpush l x", ":1"),
        ("sadd l a", WRONG_TYPE),
        ("srem l a", WRONG_TYPE),
        ("smembers l", WRONG_TYPE),
        ("scard l", WRONG_TYPE),
        ("type t", "set"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn membership_is_answered_for_each() {
    check(&[
        ("sadd s a 1 2", ":3"),
        ("sismember s a", ":1"),
        ("sismember s b", ":0"),
        ("sismember s 01", ":0"),
        ("sismember s 1", ":1"),
        ("smismember s a b 1 3", "[:1 :0 :1 :0]"),
        ("smismember none a b", "[:0 :0]"),
        ("sismember none a", ":0"),
        ("smismember s", "-ERR wrong number of arguments for 'smismember' command"),
        ("lpush l x", ":1"),
        ("sismember l a", WRONG_TYPE),
        ("smismember l a", WRONG_TYPE),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn popping_a_whole_set_removes_it() {
    check(&[
        ("sadd s 1 2 3", ":3"),
        ("spop s 0", "[]"),
        ("spop s 3", r#"["1" "2" "3"]"#),
        ("exists s", ":0"),
        ("sadd s 5 6", ":2"),
        ("spop s 100", r#"["5" "6"]"#),
        ("spop s", "nil"),
        ("spop s 5", "[]"),
        ("spop s -1", "-ERR value is out of range, must be positive"),
        ("spop none -1", "-ERR value is out of range, must be positive"),
        ("spop s x", "-ERR value is out of range, must be positive"),
        ("spop s 1 2", "-ERR syntax error"),
        ("sadd one x", ":1"),
        ("spop one", r#""x""#),
        ("exists one", ":0"),
        ("lpush l x", ":1"),
        ("spop l", WRONG_TYPE),
        ("spop l 1", WRONG_TYPE),
        ("spop l 0", WRONG_TYPE),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn random_members_are_counted() {
    check(&[
        ("sadd s 1", ":1"),
        ("srandmember s", r#""1""#),
        ("srandmember s 1", r#"["1"]"#),
        ("srandmember s 5", r#"["1"]"#),
        ("srandmember s -3", r#"["1" "1" "1"]"#),
        ("srandmember s 0", "[]"),
        ("sadd i 1 2 3", ":3"),
        ("srandmember i 3", r#"["1" "2" "3"]"#),
        ("srandmember i 9223372036854775807", r#"["1" "2" "3"]"#),
        ("srandmember none", "nil"),
        ("srandmember none 3", "[]"),
        ("srandmember none -3", "[]"),
        ("srandmember s x", "-ERR value is not an integer or out of range"),
        ("srandmember s 1 2", "-ERR syntax error"),
        ("srandmember s -9223372036854775808", "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"),
        ("srandmember none -9223372036854775808", "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"),
        ("srandmember s 9223372036854775808", "-ERR value is not an integer or out of range"),
        ("lpush l x", ":1"),
        ("srandmember l", WRONG_TYPE),
        ("srandmember l 1", WRONG_TYPE),
        ("srandmember l 0", WRONG_TYPE),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn members_move_between_sets() {
    check(&[
        ("sadd a 1 2 3 x", ":4"),
        ("sadd b 3 4", ":2"),
        ("smove a b 1", ":1"),
        ("smove a b 3", ":1"),
        ("smove a b 9", ":0"),
        ("smove a c x", ":1"),
        ("smembers a", r#"["2"]"#),
        ("smembers b", r#"["1" "3" "4"]"#),
        ("smembers c", r#"["x"]"#),
        ("smove c c x", ":1"),
        ("smove c c y", ":0"),
        ("smove none b 1", ":0"),
        ("smove c d x", ":1"),
        ("exists c", ":0"),
        ("smove a a 2", ":1"),
        ("lpush l x", ":1"),
        ("smove a l 2", WRONG_TYPE),
        ("smove a l 9", WRONG_TYPE),
        ("smove l a x", WRONG_TYPE),
        ("smove none l 2", ":0"),
        ("smove l none x", WRONG_TYPE),
        ("smembers a", r#"["2"]"#),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn sets_intersect() {
    check(&[
        ("sadd a 1 2 3 4 5", ":5"),
        ("sadd b 3 4 5 6", ":4"),
        ("sadd c 4 5 x", ":3"),
        ("sinter a b", r#"["3" "4" "5"]"#),
        ("sinter a", r#"["1" "2" "3" "4" "5"]"#),
        ("sinter a none", "[]"),
        ("sinter none", "[]"),
        ("sinter a a", r#"["1" "2" "3" "4" "5"]"#),
        ("sintercard 3 a b c", ":2"),
        ("sintercard 2 a b limit 0", ":3"),
        ("sintercard 2 a b limit 2", ":2"),
        ("sintercard 2 a b LIMIT 10", ":3"),
        ("sintercard 2 a b limit 1 limit 2", ":2"),
        ("sintercard 2 a none", ":0"),
        ("sintercard 1 a", ":5"),
        ("sinterstore d a b", ":3"),
        ("smembers d", r#"["3" "4" "5"]"#),
        ("sinterstore d a b c", ":2"),
        ("smembers d", r#"["4" "5"]"#),
        ("sinterstore a a b", ":3"),
        ("smembers a", r#"["3" "4" "5"]"#),
        ("sinterstore d a none", ":0"),
        ("exists d", ":0"),
        ("lpush l x", ":1"),
        ("sinter l none", WRONG_TYPE),
        ("sinter none l", WRONG_TYPE),
        ("sinter a l", WRONG_TYPE),
        ("sintercard 2 none l", WRONG_TYPE),
        ("sintercard 0 a", "-ERR numkeys should be greater than 0"),
        ("sintercard x a", "-ERR numkeys should be greater than 0"),
        ("sintercard 3 a b", "-ERR Number of keys can't be greater than number of args"),
        ("sintercard 1 a b", "-ERR syntax error"),
        ("sintercard 1 a limit", "-ERR syntax error"),
        ("sintercard 1 a limit -1", "-ERR LIMIT can't be negative"),
        ("sintercard 1 a limit x", "-ERR LIMIT can't be negative"),
        ("sintercard 1 a foo 1", "-ERR syntax error"),
        ("sintercard 1", "-ERR wrong number of arguments for 'sintercard' command"),
        ("sinterstore l a b", ":3"),
        ("type l", "set"),
        ("lpush m x", ":1"),
        ("sinterstore d a m", WRONG_TYPE),
        ("exists d", ":0"),
        ("sinterstore d", "-ERR wrong number of arguments for 'sinterstore' command"),
        ("sinter", "-ERR wrong number of arguments for 'sinter' command"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn sets_unite() {
    check(&[
        ("sadd a 1 2 3", ":3"),
        ("sadd b 3 4", ":2"),
        ("sunion a b", r#"["1" "2" "3" "4"]"#),
        ("sunion a none b", r#"["1" "2" "3" "4"]"#),
        ("sunion none", "[]"),
        ("sunionstore c a b", ":4"),
        ("smembers c", r#"["1" "2" "3" "4"]"#),
        ("sunionstore a a b", ":4"),
        ("smembers a", r#"["1" "2" "3" "4"]"#),
        ("sunionstore c none", ":0"),
        ("exists c", ":0"),
        ("sunionstore none none2", ":0"),
        ("lpush l x", ":1"),
        ("sunion a l", WRONG_TYPE),
        ("sunion none l", WRONG_TYPE),
        ("sunionstore c a l", WRONG_TYPE),
        ("sunionstore l a", ":4"),
        ("smembers l", r#"["1" "2" "3" "4"]"#),
        ("sadd x a", ":1"),
        ("sadd y a", ":1"),
        ("sunion x y", r#"["a"]"#),
        ("sunionstore d", "-ERR wrong number of arguments for 'sunionstore' command"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn sets_are_subtracted() {
    check(&[
        ("sadd a 1 2 3 4", ":4"),
        ("sadd b 2 3", ":2"),
        ("sadd c 4 x", ":2"),
        ("sdiff a b", r#"["1" "4"]"#),
        ("sdiff a b c", r#"["1"]"#),
        ("sdiff a", r#"["1" "2" "3" "4"]"#),
        ("sdiff a none", r#"["1" "2" "3" "4"]"#),
        ("sdiff none a", "[]"),
        ("sdiff a a", "[]"),
        ("sdiff c a", r#"["x"]"#),
        ("sdiffstore d a b", ":2"),
        ("smembers d", r#"["1" "4"]"#),
        ("sdiffstore a a b", ":2"),
        ("smembers a", r#"["1" "4"]"#),
        ("sdiffstore d a a", ":0"),
        ("exists d", ":0"),
        ("lpush l x", ":1"),
        ("sdiff a l", WRONG_TYPE),
        ("sdiff none l", WRONG_TYPE),
        ("sdiff l a", WRONG_TYPE),
        ("sdiffstore d a l", WRONG_TYPE),
        ("sdiffstore l a", ":2"),
        ("smembers l", r#"["1" "4"]"#),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn small_sets_are_scanned_whole() {
    check(&[
        ("sadd s 1 2 3 10", ":4"),
        ("sscan s 0", r#"["0" ["1" "2" "3" "10"]]"#),
        ("sscan s 0 count 1", r#"["0" ["1" "2" "3" "10"]]"#),
        ("sscan s 0 match 1*", r#"["0" ["1" "10"]]"#),
        ("sscan s 0 MATCH * COUNT 100", r#"["0" ["1" "2" "3" "10"]]"#),
        ("sscan s 0 match x", r#"["0" []]"#),
        ("sscan none 0", r#"["0" []]"#),
        ("sscan none 5 foo", r#"["0" []]"#),
        ("sscan s x", "-ERR invalid cursor"),
        ("sscan none x", "-ERR invalid cursor"),
        ("sscan s 0 count 0", "-ERR syntax error"),
        ("sscan s 0 count -1", "-ERR syntax error"),
        ("sscan s 0 count x", "-ERR value is not an integer or out of range"),
        ("sscan s 0 count", "-ERR syntax error"),
        ("sscan s 0 foo 1", "-ERR syntax error"),
        ("sscan s 18446744073709551616", "-ERR invalid cursor"),
        ("sadd t abc", ":1"),
        ("sscan t 0 match ?b[c-d]", r#"["0" ["abc"]]"#),
        ("lpush l x", ":1"),
        ("sscan l 0", WRONG_TYPE),
        ("sscan l x", "-ERR invalid cursor"),
        ("sscan l 0 count x", WRONG_TYPE),
        ("sscan s", "-ERR wrong number of arguments for 'sscan' command"),
    ]);
}

#[test]
fn a_stored_result_has_no_expiry() {
    for store in ["sunionstore", "sinterstore", "sdiffstore"] {
        let mut db = Db::new();
        db.run("sadd a 1");
        db.run("set d x ex 100");
        assert_eq!(db.run(&format!("{store} d a")), ":1");
        assert_eq!(db.store.expiry(b"d"), Some(None), "{store}");
    }
}

/// The byte strings of a reply, an array or one alone.
fn items(reply: &str) -> Vec<String> {
    reply.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Sets of each representation.
const SIZES: [usize; 4] = [1, 40, 200, 3000];

fn filled(size: usize, prefix: &str) -> (Db, BTreeSet<String>) {
    let mut db = Db::new();
    let members: BTreeSet<String> = (0..size).map(|n| format!("{prefix}{n}")).collect();
    members.iter().for_each(|member| assert_eq!(db.run(&format!("sadd s {member}")), ":1"));
    (db, members)
}

#[test]
fn popped_members_are_gone_and_were_there() {
    for (size, prefix) in SIZES.into_iter().flat_map(|size| [(size, ""), (size, "m")]) {
        let (mut db, mut left) = filled(size, prefix);
        let mut draw = 0;
        while !left.is_empty() {
            draw = draw % 97 + 1;
            let line = if draw == 1 { String::from("spop s") } else { format!("spop s {draw}") };
            let popped = items(&db.run(&line));
            assert_eq!(popped.len(), draw.min(left.len()), "{line} of {}", left.len());
            assert!(popped.iter().all(|member| left.remove(member)), "{line} gave {popped:?}");
            assert_eq!(db.run("scard s"), format!(":{}", left.len()));
        }
        assert_eq!(db.run("exists s"), ":0");
    }
}

#[test]
fn random_members_are_different_unless_the_count_is_negative() {
    for size in SIZES {
        let (mut db, members) = filled(size, "m");
        for count in [1, 5, size / 2, size.saturating_sub(1), size, size + 10] {
            let chosen = items(&db.run(&format!("srandmember s {count}")));
            assert_eq!(chosen.len(), count.min(size));
            assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
            assert!(chosen.iter().all(|member| members.contains(member)));
            let repeated = items(&db.run(&format!("srandmember s -{count}")));
            assert_eq!(repeated.len(), count);
            assert!(repeated.iter().all(|member| members.contains(member)));
        }
        assert_eq!(db.run("scard s"), format!(":{size}"));
    }
}

#[test]
fn large_sets_combine_as_small_ones_do() {
    let mut db = Db::new();
    for n in 0..2000 {
        if n % 2 == 0 {
            db.run(&format!("sadd two m{n}"));
        }
        if n % 3 == 0 {
            db.run(&format!("sadd three m{n}"));
        }
    }
    let in_both = (0..2000).filter(|n| n % 6 == 0).count();
    let in_any = (0..2000).filter(|n| n % 2 == 0 || n % 3 == 0).count();
    let in_two = (0..2000).filter(|n| n % 2 == 0 && n % 3 != 0).count();
    assert_eq!(items(&db.run("sinter two three")).len(), in_both);
    assert_eq!(db.run("sintercard 2 two three"), format!(":{in_both}"));
    assert_eq!(items(&db.run("sunion two three")).len(), in_any);
    assert_eq!(items(&db.run("sdiff two three")).len(), in_two);
    assert_eq!(db.run("sinterstore i two three"), format!(":{in_both}"));
    assert_eq!(db.run("sunionstore u two three"), format!(":{in_any}"));
    assert_eq!(db.run("sdiffstore two two three"), format!(":{in_two}"));
    assert_eq!(db.run("sintercard 2 two three"), ":0");
    assert_eq!(db.run("sintercard 3 u i three limit 7"), ":7");
}

#[test]
fn a_scan_of_a_large_set_visits_every_member() {
    let (mut db, members) = filled(3000, "m");
    let (mut seen, mut cursor, mut calls) = (BTreeSet::new(), String::from("0"), 0);
    loop {
        let mut found = items(&db.run(&format!("sscan s {cursor} count 50"))).into_iter();
        cursor = found.next().expect("a cursor");
        seen.extend(found);
        calls += 1;
        // Members that come and go meanwhile do not disturb it.
        db.run(&format!("sadd s other{calls}"));
        db.run(&format!("srem s other{}", calls - 1));
        if cursor == "0" {
            break;
        }
    }
    assert!(members.is_subset(&seen));
    assert!(calls >= 60, "{calls}");
}

#[test]
fn what_changes_nothing_touches_no_key() {
    let mut db = Db::new();
    db.run("sadd s a b");
    db.run("sadd t a");
    db.store.set_interest(true);
    for line in [
        "sadd s a b a",
        "srem s x",
        "srem none x",
        "smove s t x",
        "smove s s a",
        "smove none t a",
        "spop s 0",
        "spop none",
        "spop none 3",
        "sinterstore none none2 s",
    ] {
        db.run(line);
        assert!(!db.store.has_touched(), "{line}");
    }
    // The target has the member already: only the source changes.
    db.run("smove s t a");
    let mut touched = Vec::new();
    db.store.take_touched(&mut touched);
    assert_eq!(touched.iter().map(|key| key.as_slice()).collect::<Vec<_>>(), [b"s"]);
}

#[test]
fn a_boundless_answer_is_refused() {
    let mut db = Db::new();
    db.run("sadd s a");
    assert_eq!(db.run("srandmember s -9223372036854775807"), "-ERR value is out of range");
    assert_eq!(items(&db.run("srandmember s -100000")).len(), 100_000);
}

#[test]
#[rustfmt::skip] // columns
fn members_are_bytes_even_if_they_look_like_numbers() {
    check(&[
        ("sadd s 9223372036854775807 9223372036854775808 -9223372036854775808 007 7", ":5"),
        ("scard s", ":5"),
        ("sismember s 7", ":1"),
        ("sismember s 007", ":1"),
        ("srem s 007", ":1"),
        ("sismember s 7", ":1"),
        ("sintercard 2 s s limit 9223372036854775807", ":4"),
    ]);
}
