//! Sorted sets: command lines and their replies; and what a pop that finds nothing waits for.

use storage::apply::Block;
use storage::entry::put_command;

use crate::harness::{Db, check, check_ours, split};

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

#[test]
#[rustfmt::skip] // columns
fn members_get_scores() {
    check(&[
        ("zadd z 10 x 20 y", ":2"),
        ("zadd z 30 z", ":1"),
        ("zrange z 0 -1 withscores", r#"["x" "10" "y" "20" "z" "30"]"#),
        ("zadd z 5 y", ":0"),
        ("zrange z 0 -1", r#"["y" "x" "z"]"#),
        ("zadd z 5 y", ":0"),
        ("zadd z 1 a 2 b 3 a", ":2"),
        ("zscore z a", r#""3""#),
        ("zcard z", ":5"),
        ("zcard none", ":0"),
        ("zscore z none", "nil"),
        ("zscore none a", "nil"),
        ("zmscore z a none y", r#"["3" nil "5"]"#),
        ("zmscore none a b", "[nil nil]"),
        ("zadd z inf max -inf min +inf max2", ":3"),
        ("zrange z 0 -1 withscores", r#"["min" "-inf" "b" "2" "a" "3" "y" "5" "x" "10" "z" "30" "max" "inf" "max2" "inf"]"#),
        ("zadd z 0x10 hex 1e3 exp .5 half 5. five -0 zero", ":5"),
        ("zmscore z hex exp half five zero", r#"["16" "1000" "0.5" "5" "0"]"#),
        ("zadd z 0.1 tenth 1e17 large 1e-7 small 3.0 three 123456789012345678 wide", ":5"),
        ("zmscore z tenth large small three wide", r#"["0.10000000000000001" "1e+17" "9.9999999999999995e-08" "3" "1.2345678901234568e+17"]"#),
        (r#"zadd z 1 "" 2 "\x00\xff" 3 "with space""#, ":3"),
        ("zrange z 2 4", r#"["small" "tenth" "half"]"#),
        (r#"zrem z "" "\x00\xff" nope"#, ":2"),
        ("zrem z a a", ":1"),
        ("zrem none a", ":0"),
        ("zadd z", "-ERR wrong number of arguments for 'zadd' command"),
        ("zadd z 1", "-ERR wrong number of arguments for 'zadd' command"),
        ("zadd z 1 a 2", "-ERR syntax error"),
        ("zadd z nan a", "-ERR value is not a valid float"),
        ("zadd z x a", "-ERR value is not a valid float"),
        (r#"zadd z 1 a " 2" b"#, "-ERR value is not a valid float"),
        ("zadd z 1 new 1e400 b", "-ERR value is not a valid float"),
        ("zscore z new", "nil"),
        (r#"zadd z "" b"#, "-ERR value is not a valid float"),
        ("zadd f 1.7976931348623157e308 max -1.7976931348623157e308 min 2.2250738585072014e-308 tiny", ":3"),
        ("zrange f 0 -1 withscores", r#"["min" "-1.7976931348623157e+308" "tiny" "2.2250738585072014e-308" "max" "1.7976931348623157e+308"]"#),
        ("object encoding f", r#""listpack""#),
        ("zadd e 1 a", ":1"),
        ("zrem e a", ":1"),
        ("exists e", ":0"),
        ("type z", "zset"),
        ("set s v", "OK"),
        ("zadd s 1 a", WRONG_TYPE),
        ("zadd s xx 1 a", WRONG_TYPE),
        ("zadd s x a", "-ERR value is not a valid float"),
        ("zincrby s 1 a", WRONG_TYPE),
        ("zrem s a", WRONG_TYPE),
        ("zcard s", WRONG_TYPE),
        ("zscore s a", WRONG_TYPE),
        ("zmscore s a", WRONG_TYPE),
        ("zrank s a", WRONG_TYPE),
        ("zrevrank s a", WRONG_TYPE),
        ("zrem z", "-ERR wrong number of arguments for 'zrem' command"),
        ("zmscore z", "-ERR wrong number of arguments for 'zmscore' command"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn options_say_which_scores_may_change() {
    check(&[
        ("zadd z xx 10 x 20 y", ":0"),
        ("exists z", ":0"),
        ("zadd z nx 10 x 20 y", ":2"),
        ("zadd z nx 11 x 21 w", ":1"),
        ("zrange z 0 -1 withscores", r#"["x" "10" "y" "20" "w" "21"]"#),
        ("zadd z xx 12 x 22 none", ":0"),
        ("zrange z 0 -1 withscores", r#"["x" "12" "y" "20" "w" "21"]"#),
        ("zadd z xx ch 13 x 22 none", ":1"),
        ("zadd z ch 13 x 23 y 1 one", ":2"),
        ("zadd z gt 12 x 24 y", ":0"),
        ("zadd z gt ch 14 x 20 y 5 five", ":2"),
        ("zrange z 0 -1 withscores", r#"["one" "1" "five" "5" "x" "14" "w" "21" "y" "24"]"#),
        ("zadd z lt ch 20 x 3 y 4 four", ":2"),
        ("zrange z 0 -1 withscores", r#"["one" "1" "y" "3" "four" "4" "five" "5" "x" "14" "w" "21"]"#),
        ("zadd z xx gt ch 30 x 30 none", ":1"),
        ("zadd z xx lt ch 1 x 30 none", ":1"),
        ("zadd z CH Xx 2 x", ":1"),
        ("zadd z gt ch 2 x", ":0"),
        ("zadd z lt ch 2 x", ":0"),
        ("zadd z xx nx 1 x", "-ERR XX and NX options at the same time are not compatible"),
        ("zadd z nx xx gt 1 x", "-ERR XX and NX options at the same time are not compatible"),
        ("zadd z gt nx 1 x", "-ERR GT, LT, and/or NX options at the same time are not compatible"),
        ("zadd z lt nx 1 x", "-ERR GT, LT, and/or NX options at the same time are not compatible"),
        ("zadd z gt lt 1 x", "-ERR GT, LT, and/or NX options at the same time are not compatible"),
        ("zadd z gt lt nx 1 x", "-ERR GT, LT, and/or NX options at the same time are not compatible"),
        ("zadd z incr 1 x 2 y", "-ERR INCR option supports a single increment-element pair"),
        ("zadd z nx incr 1 x 2 y", "-ERR INCR option supports a single increment-element pair"),
        ("zadd z xx nx", "-ERR syntax error"),
        ("zadd z gt lt", "-ERR syntax error"),
        ("zadd z nx 1", "-ERR syntax error"),
        ("zadd z incr x", "-ERR syntax error"),
        ("zadd z foo 1 x", "-ERR syntax error"),
        ("zadd z 1 nx 2 xx", ":2"),
        ("zscore z nx", r#""1""#),
        ("zadd z nx nx ch ch 1 nx", ":0"),
        ("zadd z 1 nx gt x", "-ERR value is not a valid float"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn increments_answer_the_new_score() {
    check(&[
        ("zincrby z 5 a", r#""5""#),
        ("zincrby z -2.5 a", r#""2.5""#),
        ("zincrby z 1e2 b", r#""100""#),
        ("zadd z incr 5 a", r#""7.5""#),
        ("zadd z nx incr 5 a", "nil"),
        ("zadd z nx incr 7 c", r#""7""#),
        ("zadd z xx incr 5 none", "nil"),
        ("zadd z xx incr 5 c", r#""12""#),
        ("zadd none xx incr 5 c", "nil"),
        ("exists none", ":0"),
        ("zadd z gt incr 5 c", r#""17""#),
        ("zadd z gt incr -5 c", "nil"),
        ("zadd z lt incr 5 c", "nil"),
        ("zadd z lt incr -5 c", r#""12""#),
        ("zadd z gt incr 0 c", "nil"),
        ("zadd z lt incr 0 c", "nil"),
        ("zadd z incr 0 c", r#""12""#),
        ("zadd z ch incr 1 c", r#""13""#),
        ("zincrby z inf a", r#""inf""#),
        ("zincrby z -inf a", "-ERR resulting score is not a number (NaN)"),
        ("zscore z a", r#""inf""#),
        ("zadd z incr -inf a", "-ERR resulting score is not a number (NaN)"),
        ("zadd z nx incr -inf a", "nil"),
        ("zadd z gt incr -inf a", "-ERR resulting score is not a number (NaN)"),
        ("zincrby z -inf new", r#""-inf""#),
        ("zincrby z inf new", "-ERR resulting score is not a number (NaN)"),
        ("zincrby z nan a", "-ERR value is not a valid float"),
        ("zincrby z x a", "-ERR value is not a valid float"),
        ("zincrby z nx a", "-ERR syntax error"),
        ("zincrby z nx xx", "-ERR syntax error"),
        ("zincrby z 1", "-ERR wrong number of arguments for 'zincrby' command"),
        ("zincrby z 1 a b", "-ERR wrong number of arguments for 'zincrby' command"),
        ("zincrby z 0.1 p", r#""0.10000000000000001""#),
        ("zincrby z 0.2 p", r#""0.30000000000000004""#),
        ("zincrby z -0 zero", r#""-0""#),
        ("zincrby none -0 zero", r#""-0""#),
        ("zincrby z 1e308 big", r#""1e+308""#),
        ("zincrby z 1e308 big", r#""inf""#),
        ("zrange z 0 -1 withscores", r#"["new" "-inf" "zero" "0" "p" "0.30000000000000004" "c" "13" "b" "100" "a" "inf" "big" "inf"]"#),
        ("zadd y +inf x -inf y", ":2"),
        ("zadd y lt incr 1 x", "nil"),
        ("zadd y gt incr -1 x", "nil"),
        ("zadd y lt incr -1 x", "nil"),
        ("zadd y gt incr 1 x", "nil"),
        ("zadd y lt incr 1 y", "nil"),
        ("zadd y gt incr -1 y", "nil"),
        ("zadd y incr 1 y", r#""-inf""#),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn ranks_count_from_both_ends() {
    check(&[
        ("zadd z 10 x 20 y 30 z 20 yy", ":4"),
        ("zrank z x", ":0"),
        ("zrank z y", ":1"),
        ("zrank z yy", ":2"),
        ("zrank z z", ":3"),
        ("zrank z none", "nil"),
        ("zrank none x", "nil"),
        ("zrevrank z x", ":3"),
        ("zrevrank z yy", ":1"),
        ("zrevrank z z", ":0"),
        ("zrevrank z none", "nil"),
        ("zrevrank none x", "nil"),
        ("zadd z 5 z", ":0"),
        ("zrank z z", ":0"),
        ("zrank z x withscore", "-ERR wrong number of arguments for 'zrank' command"),
        ("zrank z", "-ERR wrong number of arguments for 'zrank' command"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn members_are_popped_from_both_ends() {
    check(&[
        ("zadd z 1 a 2 b 3 c 4 d 5 e", ":5"),
        ("zpopmin z", r#"["a" "1"]"#),
        ("zpopmax z", r#"["e" "5"]"#),
        ("zpopmin z 0", "[]"),
        ("zpopmin z 2", r#"["b" "2" "c" "3"]"#),
        ("zpopmax z 10", r#"["d" "4"]"#),
        ("exists z", ":0"),
        ("zpopmin z", "[]"),
        ("zpopmax none 3", "[]"),
        ("zadd z 1 a 2 b 2 c", ":3"),
        ("zpopmax z 2", r#"["c" "2" "b" "2"]"#),
        ("zpopmin z -1", "-ERR value is out of range, must be positive"),
        ("zpopmin z x", "-ERR value is out of range, must be positive"),
        ("zpopmin z 9223372036854775808", "-ERR value is out of range, must be positive"),
        ("zpopmax z 1 2", "-ERR syntax error"),
        ("zpopmin", "-ERR wrong number of arguments for 'zpopmin' command"),
        ("set s v", "OK"),
        ("zpopmin s", WRONG_TYPE),
        ("zpopmax s 0", WRONG_TYPE),
        ("zpopmin s -1", "-ERR value is out of range, must be positive"),
        ("zadd z 1 a 2 b 3 c 4 d", ":3"),
        ("zmpop 1 none min", "nil*"),
        ("zmpop 2 none z min", r#"["z" [["a" "1"]]]"#),
        ("zmpop 2 none z max count 2", r#"["z" [["d" "4"] ["c" "3"]]]"#),
        ("zmpop 1 z min count 10", r#"["z" [["b" "2"]]]"#),
        ("exists z", ":0"),
        ("zadd z 1 a 2 b", ":2"),
        ("zadd y 1 c", ":1"),
        ("zmpop 2 y z MIN COUNT 1", r#"["y" [["c" "1"]]]"#),
        ("zmpop 2 y z max", r#"["z" [["b" "2"]]]"#),
        ("zmpop 2 s z min", WRONG_TYPE),
        ("zmpop 2 z s min", r#"["z" [["a" "1"]]]"#),
        ("zmpop 2 z s min", WRONG_TYPE),
        ("zmpop 0 z min", "-ERR numkeys should be greater than 0"),
        ("zmpop -1 z min", "-ERR numkeys should be greater than 0"),
        ("zmpop x z min", "-ERR numkeys should be greater than 0"),
        ("zmpop 1 z", "-ERR wrong number of arguments for 'zmpop' command"),
        ("zmpop 1 z foo", "-ERR syntax error"),
        ("zmpop 2 z min", "-ERR syntax error"),
        ("zmpop 1 z min count 0", "-ERR count should be greater than 0"),
        ("zmpop 1 z min count -1", "-ERR count should be greater than 0"),
        ("zmpop 1 z min count x", "-ERR count should be greater than 0"),
        ("zmpop 1 z min count", "-ERR syntax error"),
        ("zmpop 1 z min count 1 count 1", "-ERR syntax error"),
        ("zmpop 1 z min count x count 1", "-ERR count should be greater than 0"),
        ("zmpop 1 z min bar 1", "-ERR syntax error"),
        ("zmpop 9223372036854775807 z min", "-ERR syntax error"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn random_members_and_scans_answer_what_is_there() {
    check(&[
        ("zadd z 1 a", ":1"),
        ("zrandmember z", r#""a""#),
        ("zrandmember z 1", r#"["a"]"#),
        ("zrandmember z 5", r#"["a"]"#),
        ("zrandmember z 5 withscores", r#"["a" "1"]"#),
        ("zrandmember z -3", r#"["a" "a" "a"]"#),
        ("zrandmember z -2 withscores", r#"["a" "1" "a" "1"]"#),
        ("zrandmember z 0", "[]"),
        ("zrandmember none", "nil"),
        ("zrandmember none 3", "[]"),
        ("zrandmember none -3 withscores", "[]"),
        ("zrandmember z x", "-ERR value is not an integer or out of range"),
        ("zrandmember z 1 foo", "-ERR syntax error"),
        ("zrandmember z x foo", "-ERR value is not an integer or out of range"),
        ("zrandmember z 1 withscores foo", "-ERR syntax error"),
        ("zrandmember z -9223372036854775808", "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"),
        ("zrandmember z -9223372036854775807 withscores", "-ERR value is out of range"),
        ("zrandmember z 9223372036854775807 withscores", "-ERR value is out of range"),
        ("zrandmember none 9223372036854775807 withscores", "-ERR value is out of range"),
        ("zadd z 0.1 b 1e20 c inf d", ":3"),
        ("zscan z 0", r#"["0" ["b" "0.10000000000000001" "a" "1" "c" "1e+20" "d" "inf"]]"#),
        ("zscan z 0 match [ab] count 100", r#"["0" ["b" "0.10000000000000001" "a" "1"]]"#),
        ("zscan z 0 match *", r#"["0" ["b" "0.10000000000000001" "a" "1" "c" "1e+20" "d" "inf"]]"#),
        ("zscan z 0 count 0", "-ERR syntax error"),
        ("zscan z 0 count x", "-ERR value is not an integer or out of range"),
        ("zscan z 0 foo", "-ERR syntax error"),
        ("zscan z 0 foo 1", "-ERR syntax error"),
        ("zscan z 0 count", "-ERR syntax error"),
        ("zscan z x", "-ERR invalid cursor"),
        ("zscan none 0", r#"["0" []]"#),
        ("zscan none x", "-ERR invalid cursor"),
        ("zscan none 0 foo", r#"["0" []]"#),
        ("set s v", "OK"),
        ("zrandmember s", WRONG_TYPE),
        ("zrandmember s 1", WRONG_TYPE),
        ("zrandmember s x", "-ERR value is not an integer or out of range"),
        ("zscan s 0", WRONG_TYPE),
        ("zscan s x", "-ERR invalid cursor"),
        ("zscan s 0 foo", WRONG_TYPE),
        ("zscan z", "-ERR wrong number of arguments for 'zscan' command"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn a_pop_that_may_wait_answers_at_once_if_it_can() {
    check(&[
        ("zadd z 1 a 2 b 3 c 4 d", ":4"),
        ("zadd y 1 x", ":1"),
        ("bzpopmin z 0", r#"["z" "a" "1"]"#),
        ("bzpopmax z 0.5", r#"["z" "d" "4"]"#),
        ("bzpopmin none y z 1", r#"["y" "x" "1"]"#),
        ("exists y", ":0"),
        ("bzpopmax none z 1", r#"["z" "c" "3"]"#),
        ("set s v", "OK"),
        ("bzpopmin s 0", WRONG_TYPE),
        ("bzpopmax none s 0", WRONG_TYPE),
        ("bzpopmin z s 0", r#"["z" "b" "2"]"#),
        ("bzpopmin s z 0", WRONG_TYPE),
        ("exists z", ":0"),
        ("zadd z 1 a 2 b 3 c 4 d 5 e", ":5"),
        ("bzmpop 0 1 z min", r#"["z" [["a" "1"]]]"#),
        ("bzmpop 1 2 none z max count 2", r#"["z" [["e" "5"] ["d" "4"]]]"#),
        ("bzmpop 0 2 s z min", WRONG_TYPE),
        ("bzmpop 0 2 z s min count 9", r#"["z" [["b" "2"] ["c" "3"]]]"#),
        ("exists z", ":0"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn a_bad_pop_that_may_wait_is_refused() {
    check(&[
        ("bzpopmin a x", "-ERR timeout is not a float or out of range"),
        ("bzpopmin a -1", "-ERR timeout is negative"),
        ("bzpopmax a nan", "-ERR timeout is not a float or out of range"),
        ("bzpopmax a inf", "-ERR timeout is negative"),
        ("bzpopmin a", "-ERR wrong number of arguments for 'bzpopmin' command"),
        ("bzpopmin a b", "-ERR timeout is not a float or out of range"),
        ("bzmpop x 1 a min", "-ERR timeout is not a float or out of range"),
        ("bzmpop x 2 a min", "-ERR syntax error"),
        ("bzmpop -1 1 a min", "-ERR timeout is negative"),
        ("bzmpop -1 1 a foo", "-ERR syntax error"),
        ("bzmpop 0 0 a min", "-ERR numkeys should be greater than 0"),
        ("bzmpop 0 x a min", "-ERR numkeys should be greater than 0"),
        ("bzmpop 0 1 a min count 0", "-ERR count should be greater than 0"),
        ("bzmpop 0 1 a min count 1 count 2", "-ERR syntax error"),
        ("bzmpop 0 1 a min bar 1", "-ERR syntax error"),
        ("bzmpop 0 1 a left", "-ERR syntax error"),
        ("bzmpop 0 1 a", "-ERR wrong number of arguments for 'bzmpop' command"),
    ]);
}

fn block(keys: &[&str], timeout_ms: Option<u64>) -> Option<Block> {
    let keys = keys.iter().map(|key| Box::from(key.as_bytes())).collect();
    Some(Block { keys, timeout_ms, null_bulk: false })
}

#[test]
fn a_pop_that_finds_nothing_waits_for_its_keys() {
    #[rustfmt::skip] // columns
    let table = [
        ("bzpopmin a b a 0",               block(&["a", "b", "a"], None)),
        ("bzpopmax a 1.5",                 block(&["a"], Some(1500))),
        ("bzpopmin a 0.0001",              block(&["a"], Some(1))),
        ("bzmpop 3 2 a b max count 5",     block(&["a", "b"], Some(3000))),
    ];
    for (line, expected) in table {
        let mut db = Db::new();
        assert_eq!(db.run(line), "", "{line}");
        assert_eq!(db.effects.block.take(), expected, "{line}");
    }
}

#[test]
fn nobody_waits_after_an_answer_or_an_error() {
    for line in ["bzpopmin z 0", "bzmpop 0 1 z min", "bzpopmax s 0", "bzpopmin none -1"] {
        let mut db = Db::new();
        db.run("zadd z 1 a");
        db.run("set s x");
        assert_ne!(db.run(line), "", "{line}");
        assert_eq!(db.effects.block, None, "{line}");
    }
}

/// One command as in an entry's body.
fn encoded(line: &str) -> Vec<u8> {
    let words = split(line);
    let args: Vec<&[u8]> = words[1..].iter().map(Vec::as_slice).collect();
    let command = storage::Registry::new().find(&words[0]).expect("a command of ours").id;
    let mut body = Vec::new();
    put_command(&mut body, command, &args);
    body
}

#[test]
fn a_waiting_client_passes_over_keys_of_another_type() {
    #[rustfmt::skip] // columns
    let table = [
        // the command tried again            its answer, "" if it waits on
        ("bzpopmin s 0",                      ""),
        ("bzpopmax none s 5",                 ""),
        ("bzpopmax s z 0",                    r#"["z" "b" "2"]"#),
        ("bzmpop 0 2 s z min count 2",        r#"["z" [["a" "1"] ["b" "2"]]]"#),
        ("bzmpop 0 1 s min",                  ""),
    ];
    for (line, expected) in table {
        let mut db = Db::new();
        db.run("zadd z 1 a 2 b");
        db.run("set s x");
        assert_eq!(db.run_words(&[b"archipel.retry", &encoded(line)]), expected, "{line}");
        assert_eq!(db.effects.block.is_some(), expected.is_empty(), "{line}");
        assert_eq!(db.replayed().contents(), db.contents(), "{line}");
    }
}

#[test]
fn in_a_transaction_nobody_waits() {
    for line in ["bzpopmin a 0", "bzpopmax a b 1", "bzmpop 0 1 a min"] {
        let mut db = Db::new();
        assert_eq!(db.run_words(&[b"archipel.exec", &encoded(line)]), "[nil*]", "{line}");
        assert_eq!(db.effects.block, None, "{line}");
    }
}

#[test]
fn what_changes_nothing_touches_no_key() {
    let mut db = Db::new();
    db.run("zadd z 1 a 2 b");
    db.run("zadd inf inf a");
    db.store.set_interest(true);
    for line in [
        "zadd z 1 a 2 b",
        "zadd z nx 5 a",
        "zadd z xx 5 none",
        "zadd z gt 0 a",
        "zadd none xx 5 a",
        "zadd z 5 a x b",
        "zadd z xx incr 5 none",
        "zincrby z 0 a",
        "zincrby inf -inf a",
        "zrem z none",
        "zpopmin z 0",
        "zpopmin none",
        "zmpop 1 none min",
        "zremrangebyrank z 5 9",
        "zremrangebyscore z 7 9",
        "zremrangebylex z [x +",
        "zrangestore none z 5 9",
        "zunionstore none 1 nope",
        "bzpopmin none 0",
    ] {
        db.run(line);
        assert!(!db.store.has_touched(), "{line}");
    }
    for line in ["zadd z 3 a", "zincrby z 1 a", "zrem z a", "zpopmin z", "zadd z 1 a", "zunionstore y 1 z"] {
        db.run(line);
        assert!(db.store.has_touched(), "{line}");
        db.store.take_touched(&mut Vec::new());
    }
}

#[test]
fn a_large_set_answers_as_a_small_one() {
    let members = (0..1000).fold(String::from("zadd z"), |line, n| line + &format!(" {} m{n:03}", n / 10));
    #[rustfmt::skip] // columns
    check(&[
        (members.as_str(),                       ":1000"),
        ("object encoding z",                    r#""skiplist""#),
        ("zcard z",                              ":1000"),
        ("zcount z 10 19",                       ":100"),
        ("zcount z (10 (19",                     ":80"),
        ("zrank z m500",                         ":500"),
        ("zrevrank z m500",                      ":499"),
        ("zrange z 500 502",                     r#"["m500" "m501" "m502"]"#),
        ("zrange z 0 1 rev withscores",          r#"["m999" "99" "m998" "99"]"#),
        ("zrangebyscore z 50 50 limit 8 5",      r#"["m508" "m509"]"#),
        ("zrevrangebyscore z 50 50 limit 8 5",   r#"["m501" "m500"]"#),
        ("zpopmin z 2",                          r#"["m000" "0" "m001" "0"]"#),
        ("zpopmax z 2",                          r#"["m999" "99" "m998" "99"]"#),
        ("zremrangebyrank z 0 7",                ":8"),
        ("zremrangebyscore z -inf (98",          ":970"),
        ("zinterstore d 2 z z",                  ":18"),
        ("zrange d 0 0 withscores",              r#"["m980" "196"]"#),
        ("zunionstore z 2 z d weights 0 1",      ":18"),
        ("zremrangebylex z - +",                 ":18"),
        ("exists z",                             ":0"),
    ]);
}

#[test]
fn random_members_are_members() {
    let mut db = Db::new();
    for n in 0..300 {
        db.run(&format!("zadd z {n} m{n}"));
    }
    for (count, answered) in [(1, 1), (20, 20), (200, 200), (300, 300), (400, 300), (-20, 20), (-400, 400)] {
        let reply = db.run(&format!("zrandmember z {count} withscores"));
        let mut words: Vec<&str> = reply.trim_matches(['[', ']']).split(' ').collect();
        let (pairs, []) = words.as_chunks::<2>() else { panic!("{reply} has pairs") };
        assert_eq!(pairs.len(), answered, "{count}");
        for [member, score] in pairs {
            assert_eq!(member.replace('m', ""), *score, "{count}");
        }
        words.sort_unstable();
        words.dedup();
        assert!(count < 0 || words.len() == 2 * answered, "{count} answers different members");
    }
}

#[test]
fn a_scan_meets_every_member_once() {
    let mut db = Db::new();
    for n in 0..1000 {
        db.run(&format!("zadd z {n} m{n}"));
    }
    let (mut seen, mut cursor) = (Vec::new(), String::from("0"));
    loop {
        let reply = db.run(&format!("zscan z {cursor} count 50 match m*7"));
        let mut words = reply.split(['[', ' ', ']']).filter(|word| !word.is_empty());
        cursor = words.next().expect("a cursor").trim_matches('"').to_owned();
        seen.extend(words.map(str::to_owned));
        if cursor == "0" {
            break;
        }
    }
    let met = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((met, seen.len()), (200, 200));
}

#[test]
fn what_differs_from_redis_is_said() {
    let long = "k".repeat(70_000);
    let refusal = "-ERR key of 70000 bytes is longer than the limit of 61440 bytes; use a shorter key";
    let lines = ["zadd K 1 a", "zincrby K 1 a", "zrangestore K z 0 -1", "zunionstore K 1 z"];
    let lines = lines.map(|line| line.replace('K', &long));
    let mut table = vec![("zadd z 1 a", ":1")];
    table.extend(lines.iter().map(|line| (line.as_str(), refusal)));
    table.extend([
        ("dbsize", ":1"),
        // Redis has no limit, and would answer until the memory is full.
        ("zrandmember z -9000000000", "-ERR value is out of range"),
        // A zero keeps no sign; Redis keeps it in large sets only.
        ("zadd z -0 zero", ":1"),
        ("zscore z zero", "\"0\""),
    ]);
    check_ours(&table);
}
