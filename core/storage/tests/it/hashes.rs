//! Hashes: command lines and their replies; and what random choices must satisfy.

use std::collections::BTreeSet;

use crate::harness::{Db, check};

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

#[test]
#[rustfmt::skip] // columns
fn fields_are_set_and_read() {
    check(&[
        ("hset h a 1 b 2", ":2"),
        ("hset h a 3 c 4", ":1"),
        ("hset h a 3", ":0"),
        ("hget h a", r#""3""#),
        ("hget h x", "nil"),
        ("hget none a", "nil"),
        ("hmget h a x c a", r#"["3" nil "4" "3"]"#),
        ("hmget none a b", "[nil nil]"),
        ("hgetall h", r#"["a" "3" "b" "2" "c" "4"]"#),
        ("hkeys h", r#"["a" "b" "c"]"#),
        ("hvals h", r#"["3" "2" "4"]"#),
        ("hlen h", ":3"),
        ("hgetall none", "[]"),
        ("hkeys none", "[]"),
        ("hvals none", "[]"),
        ("hlen none", ":0"),
        ("hexists h a", ":1"),
        ("hexists h x", ":0"),
        ("hexists none a", ":0"),
        ("hstrlen h a", ":1"),
        ("hstrlen h x", ":0"),
        ("hstrlen none a", ":0"),
        (r#"hset h long "a value of some length""#, ":1"),
        ("hstrlen h long", ":22"),
        ("hmset h d 5 e 6", "OK"),
        ("hmset h d 7", "OK"),
        ("hget h d", r#""7""#),
        ("hset h a a a b", ":0"),
        ("hget h a", r#""b""#),
        ("hset h same 1 same 2", ":1"),
        ("hget h same", r#""2""#),
        ("hset h a", "-ERR wrong number of arguments for 'hset' command"),
        ("hset h a 1 b", "-ERR wrong number of arguments for 'hset' command"),
        ("hmset h a 1 b", "-ERR wrong number of arguments for 'hmset' command"),
        ("hmset h a", "-ERR wrong number of arguments for 'hmset' command"),
        ("hmget h", "-ERR wrong number of arguments for 'hmget' command"),
        ("hset nope a 1 b", "-ERR wrong number of arguments for 'hset' command"),
        ("exists nope", ":0"),
        (r#"hset e "" """#, ":1"),
        (r#"hget e """#, r#""""#),
        ("hgetall e", r#"["" ""]"#),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn a_field_is_set_once() {
    check(&[
        ("hsetnx h a 1", ":1"),
        ("hsetnx h a 2", ":0"),
        ("hsetnx h b 2", ":1"),
        ("hgetall h", r#"["a" "1" "b" "2"]"#),
        ("hsetnx h a", "-ERR wrong number of arguments for 'hsetnx' command"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn fields_are_removed() {
    check(&[
        ("hset h a 1 b 2 c 3", ":3"),
        ("hdel h a x a", ":1"),
        ("hdel h x", ":0"),
        ("hdel none a", ":0"),
        ("hgetall h", r#"["b" "2" "c" "3"]"#),
        ("hdel h b c", ":2"),
        ("exists h", ":0"),
        ("hdel h", "-ERR wrong number of arguments for 'hdel' command"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn another_type_is_refused() {
    check(&[
        ("lpush l x", ":1"),
        ("hset l a 1", WRONG_TYPE),
        ("hmset l a 1", WRONG_TYPE),
        ("hsetnx l a 1", WRONG_TYPE),
        ("hget l a", WRONG_TYPE),
        ("hmget l a b", WRONG_TYPE),
        ("hgetall l", WRONG_TYPE),
        ("hkeys l", WRONG_TYPE),
        ("hvals l", WRONG_TYPE),
        ("hlen l", WRONG_TYPE),
        ("hexists l a", WRONG_TYPE),
        ("hdel l a", WRONG_TYPE),
        ("hincrby l a 1", WRONG_TYPE),
        ("hincrby l a x", "-ERR value is not an integer or out of range"),
        ("hincrbyfloat l a 1", WRONG_TYPE),
        ("hincrbyfloat l a x", "-ERR value is not a valid float"),
        ("hstrlen l a", WRONG_TYPE),
        ("hrandfield l", WRONG_TYPE),
        ("hrandfield l 1", WRONG_TYPE),
        ("hrandfield l 0", WRONG_TYPE),
        ("hrandfield l x", "-ERR value is not an integer or out of range"),
        ("hscan l 0", WRONG_TYPE),
        ("hscan l x", "-ERR invalid cursor"),
        ("hscan l 0 count x", WRONG_TYPE),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn integers_are_counted() {
    check(&[
        ("hincrby h a 5", ":5"),
        ("hincrby h a -7", ":-2"),
        ("hget h a", r#""-2""#),
        ("hincrby h b 9223372036854775807", ":9223372036854775807"),
        ("hincrby h b 1", "-ERR increment or decrement would overflow"),
        ("hincrby h b -1", ":9223372036854775806"),
        ("hset h c -9223372036854775808", ":1"),
        ("hincrby h c -1", "-ERR increment or decrement would overflow"),
        ("hincrby h c x", "-ERR value is not an integer or out of range"),
        ("hincrby h c 1.5", "-ERR value is not an integer or out of range"),
        ("hincrby h c 9223372036854775808", "-ERR value is not an integer or out of range"),
        ("hincrby none c x", "-ERR value is not an integer or out of range"),
        ("exists none", ":0"),
        (r#"hset h d x e "1 " f " 1" g 1.0 i 01 j """#, ":6"),
        ("hincrby h d 1", "-ERR hash value is not an integer"),
        ("hincrby h e 1", "-ERR hash value is not an integer"),
        ("hincrby h f 1", "-ERR hash value is not an integer"),
        ("hincrby h g 1", "-ERR hash value is not an integer"),
        ("hincrby h i 1", "-ERR hash value is not an integer"),
        ("hincrby h j 1", "-ERR hash value is not an integer"),
        ("hincrby h c", "-ERR wrong number of arguments for 'hincrby' command"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn floats_are_counted() {
    check(&[
        ("hincrbyfloat h a 10.5", r#""10.5""#),
        ("hincrbyfloat h a 0.1", r#""10.6""#),
        ("hincrbyfloat h a -5", r#""5.6""#),
        ("hincrbyfloat h a 5.0e3", r#""5005.60000000000000009""#),
        ("hget h a", r#""5005.60000000000000009""#),
        ("hincrbyfloat h b 0.1", r#""0.1""#),
        ("hincrbyfloat h b 0.2", r#""0.3""#),
        ("hincrbyfloat h c 3", r#""3""#),
        ("hincrbyfloat h c -3", r#""0""#),
        ("hincrbyfloat h c 17179869184", r#""17179869184""#),
        ("hincrbyfloat h c 1e20", r#""100000000017179869184""#),
        ("hincrbyfloat h d 1.23e-10", r#""0.000000000123""#),
        ("hincrbyfloat h e 0", r#""0""#),
        ("hincrbyfloat h e -0.5", r#""-0.5""#),
        ("hincrbyfloat h f 0x10", r#""16""#),
        (r#"hset h x abc y " 1" z "1 " i inf n nan o """#, ":6"),
        ("hincrbyfloat h x 1", "-ERR hash value is not a float"),
        ("hincrbyfloat h y 1", "-ERR hash value is not a float"),
        ("hincrbyfloat h z 1", "-ERR hash value is not a float"),
        ("hincrbyfloat h i 1", "-ERR increment would produce NaN or Infinity"),
        ("hincrbyfloat h n 1", "-ERR hash value is not a float"),
        ("hincrbyfloat h o 1", "-ERR hash value is not a float"),
        ("hincrbyfloat h a x", "-ERR value is not a valid float"),
        (r#"hincrbyfloat h a """#, "-ERR value is not a valid float"),
        ("hincrbyfloat h a inf", "-ERR value is NaN or Infinity"),
        ("hincrbyfloat h a -inf", "-ERR value is NaN or Infinity"),
        ("hincrbyfloat h a nan", "-ERR value is not a valid float"),
        (r#"hincrbyfloat h a " 1""#, "-ERR value is not a valid float"),
        ("hincrbyfloat none a x", "-ERR value is not a valid float"),
        ("hincrbyfloat none a inf", "-ERR value is NaN or Infinity"),
        ("exists none", ":0"),
        ("hset h big 1.7976931348623157e308", ":1"),
        ("hincrbyfloat h big 0", r#""179769313486231569995921046774104434048386446944329178485314420765176628523124396354701868608387085564428793419425520689308708363451136055357897278026477617073498977686288394835618163294045594434929537447290627480669417384648879122776218333598953852832103282504751611691208117720159985926376802466863339536384""#),
        ("hincrby h a 1", "-ERR hash value is not an integer"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn random_fields_are_counted() {
    check(&[
        ("hset h a 1", ":1"),
        ("hrandfield h", r#""a""#),
        ("hrandfield h 1", r#"["a"]"#),
        ("hrandfield h 5", r#"["a"]"#),
        ("hrandfield h 5 withvalues", r#"["a" "1"]"#),
        ("hrandfield h -2", r#"["a" "a"]"#),
        ("hrandfield h -2 WITHVALUES", r#"["a" "1" "a" "1"]"#),
        ("hrandfield h 0", "[]"),
        ("hrandfield h 0 withvalues", "[]"),
        ("hset g a 1 b 2 c 3", ":3"),
        ("hrandfield g 3", r#"["a" "b" "c"]"#),
        ("hrandfield g 9 withvalues", r#"["a" "1" "b" "2" "c" "3"]"#),
        ("hrandfield none", "nil"),
        ("hrandfield none 3", "[]"),
        ("hrandfield none -3 withvalues", "[]"),
        ("hrandfield h x", "-ERR value is not an integer or out of range"),
        ("hrandfield h x withvalues", "-ERR value is not an integer or out of range"),
        ("hrandfield h 1 foo", "-ERR syntax error"),
        ("hrandfield h x foo", "-ERR value is not an integer or out of range"),
        ("hrandfield h 1 withvalues 2", "-ERR syntax error"),
        ("hrandfield h -9223372036854775808", "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"),
        ("hrandfield h -9223372036854775808 withvalues", "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"),
        ("hrandfield h -9223372036854770000 withvalues", "-ERR value is out of range"),
        ("hrandfield h -4611686018427387904 withvalues", "-ERR value is out of range"),
        ("hrandfield h 4611686018427387904 withvalues", "-ERR value is out of range"),
        ("hrandfield h 9223372036854775807", r#"["a"]"#),
        ("hrandfield none -9223372036854770000 withvalues", "-ERR value is out of range"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn small_hashes_are_scanned_whole() {
    check(&[
        ("hset h a 1 b 2 ab 3", ":3"),
        ("hscan h 0", r#"["0" ["a" "1" "b" "2" "ab" "3"]]"#),
        ("hscan h 0 count 1", r#"["0" ["a" "1" "b" "2" "ab" "3"]]"#),
        ("hscan h 0 match a*", r#"["0" ["a" "1" "ab" "3"]]"#),
        ("hscan h 0 match 1", r#"["0" []]"#),
        ("hscan h 0 MATCH * COUNT 100", r#"["0" ["a" "1" "b" "2" "ab" "3"]]"#),
        ("hscan none 0", r#"["0" []]"#),
        ("hscan none 5 foo", r#"["0" []]"#),
        ("hscan h x", "-ERR invalid cursor"),
        ("hscan h 0 count 0", "-ERR syntax error"),
        ("hscan h 0 count x", "-ERR value is not an integer or out of range"),
        ("hscan h 0 match", "-ERR syntax error"),
        ("hscan h 0 novalues", "-ERR syntax error"),
        ("hscan h", "-ERR wrong number of arguments for 'hscan' command"),
    ]);
}

/// The byte strings of a reply, an array or one alone.
fn items(reply: &str) -> Vec<String> {
    reply.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn filled(size: usize) -> Db {
    let mut db = Db::new();
    (0..size).for_each(|n| assert_eq!(db.run(&format!("hset h f{n} v{n}")), ":1"));
    db
}

#[test]
fn random_fields_are_different_unless_the_count_is_negative() {
    for size in [1, 40, 200, 3000] {
        let mut db = filled(size);
        let exists = |field: &String| field[1..].parse::<usize>().is_ok_and(|n| n < size);
        for count in [1, 5, size / 2, size.saturating_sub(1), size, size + 10] {
            let chosen = items(&db.run(&format!("hrandfield h {count}")));
            assert_eq!(chosen.len(), count.min(size));
            assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
            assert!(chosen.iter().all(exists));
            let pairs = items(&db.run(&format!("hrandfield h -{count} withvalues")));
            assert_eq!(pairs.len(), 2 * count);
            assert!(pairs.chunks(2).all(|pair| exists(&pair[0]) && pair[0][1..] == pair[1][1..]));
        }
    }
}

#[test]
fn a_scan_of_a_large_hash_visits_every_field() {
    let mut db = filled(3000);
    let (mut seen, mut cursor, mut calls) = (BTreeSet::new(), String::from("0"), 0);
    loop {
        let found = items(&db.run(&format!("hscan h {cursor} count 50")));
        cursor.clone_from(&found[0]);
        seen.extend(found[1..].chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())));
        calls += 1;
        db.run(&format!("hset h other{calls} x"));
        db.run(&format!("hdel h other{}", calls - 1));
        if cursor == "0" {
            break;
        }
    }
    assert!((0..3000).all(|n| seen.contains(&(format!("f{n}"), format!("v{n}")))));
    assert!(calls >= 60, "{calls}");
}

#[test]
fn what_changes_nothing_touches_no_key() {
    let mut db = Db::new();
    db.run("hset h a x");
    db.store.set_interest(true);
    for line in [
        "hset h a",
        "hsetnx h a 2",
        "hdel h x",
        "hdel none x",
        "hincrby h a 1",
        "hincrby none a x",
        "hincrbyfloat h a 1",
        "hincrbyfloat none a inf",
    ] {
        db.run(line);
        assert!(!db.store.has_touched(), "{line}");
    }
    db.run("hset h a x");
    assert!(db.store.has_touched());
}

#[test]
#[rustfmt::skip] // columns
fn sums_keep_the_digits_of_a_long_double() {
    check(&[
        ("hset h f 0x1p3", ":1"),
        ("hincrbyfloat h f 1", r#""9""#),
        ("hincrbyfloat h g 1e17", r#""100000000000000000""#),
        ("hincrbyfloat h g 0.5", r#""100000000000000000.5""#),
        ("hincrbyfloat h g -1e17", r#""0.5""#),
        ("hincrbyfloat h k 3.14159265358979323846", r#""3.14159265358979324""#),
        ("hincrbyfloat h m 1e-17", r#""0.00000000000000001""#),
        ("hincrbyfloat h m 1e-18", r#""0.00000000000000001""#),
        ("hincrbyfloat h n -0", r#""0""#),
        ("hincrbyfloat h n -0.0", r#""0""#),
    ]);
}
