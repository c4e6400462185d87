//! Lists: command lines and their replies; and what a command that finds nothing waits for.

use storage::apply::Block;

use crate::harness::{Db, check};

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

#[test]
#[rustfmt::skip] // columns
fn pushes_answer_the_length() {
    check(&[
        ("lpush l a", ":1"),
        ("lpush l b c", ":3"),
        ("rpush l d e", ":5"),
        ("lrange l 0 -1", r#"["c" "b" "a" "d" "e"]"#),
        ("llen l", ":5"),
        ("lpushx none a", ":0"),
        ("rpushx none a b", ":0"),
        ("exists none", ":0"),
        ("lpushx l f g", ":7"),
        ("rpushx l h", ":8"),
        ("lrange l 0 -1", r#"["g" "f" "c" "b" "a" "d" "e" "h"]"#),
        ("set s x", "OK"),
        ("lpush s a", WRONG_TYPE),
        ("rpushx s a", WRONG_TYPE),
        ("llen s", WRONG_TYPE),
        ("llen none", ":0"),
        ("lpush l", "-ERR wrong number of arguments for 'lpush' command"),
        ("rpush", "-ERR wrong number of arguments for 'rpush' command"),
        ("type l", "list"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn pops_take_from_the_ends() {
    check(&[
        ("rpush l a b c d e f", ":6"),
        ("lpop l", r#""a""#),
        ("rpop l", r#""f""#),
        ("lpop l 0", "[]"),
        ("lpop l 2", r#"["b" "c"]"#),
        ("rpop l 100", r#"["e" "d"]"#),
        ("exists l", ":0"),
        ("lpop l", "nil"),
        ("rpop l", "nil"),
        ("lpop l 3", "nil*"),
        ("rpop l 0", "nil*"),
        ("lpop l -1", "-ERR value is out of range, must be positive"),
        ("lpop none -1", "-ERR value is out of range, must be positive"),
        ("lpop l x", "-ERR value is out of range, must be positive"),
        ("lpop l 1 2", "-ERR wrong number of arguments for 'lpop' command"),
        ("rpop l 1 2", "-ERR wrong number of arguments for 'rpop' command"),
        ("set s x", "OK"),
        ("lpop s", WRONG_TYPE),
        ("rpop s 1", WRONG_TYPE),
        ("lpop s 0", WRONG_TYPE),
        ("lpop s -1", "-ERR value is out of range, must be positive"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn elements_are_read_by_index() {
    check(&[
        ("rpush l a b c", ":3"),
        ("lindex l 0", r#""a""#),
        ("lindex l -1", r#""c""#),
        ("lindex l 3", "nil"),
        ("lindex l -4", "nil"),
        ("lindex l x", "-ERR value is not an integer or out of range"),
        ("lindex none x", "nil"),
        ("lindex l 9223372036854775807", "nil"),
        ("lindex l -9223372036854775808", "nil"),
        ("lindex l 9223372036854775808", "-ERR value is not an integer or out of range"),
        ("set s x", "OK"),
        ("lindex s x", WRONG_TYPE),
        ("lindex s 0", WRONG_TYPE),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn ranges_are_clamped() {
    check(&[
        ("rpush l 1 2 3 4 5", ":5"),
        ("lrange l 0 -1", r#"["1" "2" "3" "4" "5"]"#),
        ("lrange l 1 3", r#"["2" "3" "4"]"#),
        ("lrange l -2 -1", r#"["4" "5"]"#),
        ("lrange l -100 100", r#"["1" "2" "3" "4" "5"]"#),
        ("lrange l 3 1", "[]"),
        ("lrange l 5 9", "[]"),
        ("lrange l 0 -6", "[]"),
        ("lrange none 0 -1", "[]"),
        ("lrange l a 1", "-ERR value is not an integer or out of range"),
        ("lrange l 0 b", "-ERR value is not an integer or out of range"),
        ("lrange none a b", "-ERR value is not an integer or out of range"),
        ("set s x", "OK"),
        ("lrange s 0 -1", WRONG_TYPE),
        ("lrange s a b", "-ERR value is not an integer or out of range"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn elements_are_replaced_by_index() {
    check(&[
        ("rpush l a b c", ":3"),
        ("lset l 0 x", "OK"),
        ("lset l -1 z", "OK"),
        ("lset l 3 q", "-ERR index out of range"),
        ("lset l -4 q", "-ERR index out of range"),
        ("lset l x q", "-ERR value is not an integer or out of range"),
        ("lset none 0 x", "-ERR no such key"),
        ("lset none x x", "-ERR no such key"),
        ("lrange l 0 -1", r#"["x" "b" "z"]"#),
        ("set s x", "OK"),
        ("lset s 0 a", WRONG_TYPE),
        ("lset s x a", WRONG_TYPE),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn elements_are_inserted_beside_the_first_pivot() {
    check(&[
        ("rpush l a b a c", ":4"),
        ("linsert l before a x", ":5"),
        ("linsert l after a y", ":6"),
        ("linsert l BEFORE c z", ":7"),
        ("linsert l after c end", ":8"),
        ("linsert l before nope x", ":-1"),
        ("linsert none before a x", ":0"),
        ("linsert l beside a x", "-ERR syntax error"),
        ("linsert none beside a x", "-ERR syntax error"),
        ("linsert l before a", "-ERR wrong number of arguments for 'linsert' command"),
        ("lrange l 0 -1", r#"["x" "a" "y" "b" "a" "z" "c" "end"]"#),
        ("set s x", "OK"),
        ("linsert s before a x", WRONG_TYPE),
        ("linsert s sideways a x", "-ERR syntax error"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn elements_are_removed_by_value() {
    check(&[
        ("rpush l a b a c a b a", ":7"),
        ("lrem l 1 a", ":1"),
        ("lrange l 0 -1", r#"["b" "a" "c" "a" "b" "a"]"#),
        ("lrem l -2 a", ":2"),
        ("lrange l 0 -1", r#"["b" "a" "c" "b"]"#),
        ("lrem l 0 b", ":2"),
        ("lrange l 0 -1", r#"["a" "c"]"#),
        ("lrem l 0 nope", ":0"),
        ("lrem none 0 a", ":0"),
        ("lrem none x a", "-ERR value is not an integer or out of range"),
        ("lrem l x a", "-ERR value is not an integer or out of range"),
        ("lrem l 0 a", ":1"),
        ("lrem l 5 c", ":1"),
        ("exists l", ":0"),
        ("set s x", "OK"),
        ("lrem s 0 a", WRONG_TYPE),
        ("rpush n 1 2 3 1 2 3", ":6"),
        ("lrem n -9223372036854775808 1", ":2"),
        ("lrange n 0 -1", r#"["2" "3" "2" "3"]"#),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn lists_are_trimmed() {
    check(&[
        ("rpush l 1 2 3 4 5 6 7 8 9", ":9"),
        ("ltrim l 1 -2", "OK"),
        ("lrange l 0 -1", r#"["2" "3" "4" "5" "6" "7" "8"]"#),
        ("ltrim l -3 100", "OK"),
        ("lrange l 0 -1", r#"["6" "7" "8"]"#),
        ("ltrim l 0 0", "OK"),
        ("lrange l 0 -1", r#"["6"]"#),
        ("ltrim l 0 -1", "OK"),
        ("ltrim l 5 1", "OK"),
        ("exists l", ":0"),
        ("ltrim none 0 1", "OK"),
        ("ltrim none x 1", "-ERR value is not an integer or out of range"),
        ("ltrim none 0 y", "-ERR value is not an integer or out of range"),
        ("set s x", "OK"),
        ("ltrim s 0 1", WRONG_TYPE),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn positions_are_found() {
    check(&[
        ("rpush l a b c 1 2 3 c c", ":8"),
        ("lpos l a", ":0"),
        ("lpos l c", ":2"),
        ("lpos l nope", "nil"),
        ("lpos l c rank 2", ":6"),
        ("lpos l c RANK 4", "nil"),
        ("lpos l c rank -1", ":7"),
        ("lpos l c rank -3", ":2"),
        ("lpos l c rank -4", "nil"),
        ("lpos l c count 0", "[:2 :6 :7]"),
        ("lpos l c count 1", "[:2]"),
        ("lpos l c count 2 rank 2", "[:6 :7]"),
        ("lpos l c count 0 rank -1", "[:7 :6 :2]"),
        ("lpos l c rank -2 count 2", "[:6 :2]"),
        ("lpos l c maxlen 1", "nil"),
        ("lpos l c maxlen 3", ":2"),
        ("lpos l c count 0 maxlen 0", "[:2 :6 :7]"),
        ("lpos l c count 0 maxlen 7", "[:2 :6]"),
        ("lpos l c rank -1 maxlen 1", ":7"),
        ("lpos l a rank -1 maxlen 3", "nil"),
        ("lpos l c count 0 rank -1 maxlen 2", "[:7 :6]"),
        ("lpos l nope count 0", "[]"),
        ("lpos l c rank 2 maxlen 7", ":6"),
        ("lpos l c rank 9223372036854775807", "nil"),
        ("lpos none c", "nil"),
        ("lpos none c count 1", "[]"),
        ("lpos l c rank 0", "-ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list"),
        ("lpos l c rank x", "-ERR value is not an integer or out of range"),
        ("lpos l c count -1", "-ERR COUNT can't be negative"),
        ("lpos l c count x", "-ERR COUNT can't be negative"),
        ("lpos l c maxlen -1", "-ERR MAXLEN can't be negative"),
        ("lpos l c maxlen", "-ERR syntax error"),
        ("lpos l c foo 1", "-ERR syntax error"),
        ("lpos l c foo", "-ERR syntax error"),
        ("lpos none c rank 0", "-ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list"),
        ("set s x", "OK"),
        ("lpos s c", WRONG_TYPE),
        ("lpos s c rank 0", "-ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn elements_move_between_lists() {
    check(&[
        ("rpush a 1 2 3 4", ":4"),
        ("lmove a b left right", r#""1""#),
        ("lmove a b right left", r#""4""#),
        ("lmove a b LEFT LEFT", r#""2""#),
        ("lrange a 0 -1", r#"["3"]"#),
        ("lrange b 0 -1", r#"["2" "4" "1"]"#),
        ("rpoplpush a b", r#""3""#),
        ("exists a", ":0"),
        ("rpoplpush a b", "nil"),
        ("lmove a b left left", "nil"),
        ("lrange b 0 -1", r#"["3" "2" "4" "1"]"#),
        ("lmove b b left right", r#""3""#),
        ("lrange b 0 -1", r#"["2" "4" "1" "3"]"#),
        ("rpoplpush b b", r#""3""#),
        ("lmove b b left left", r#""3""#),
        ("lmove b b right right", r#""1""#),
        ("lrange b 0 -1", r#"["3" "2" "4" "1"]"#),
        ("set s x", "OK"),
        ("lmove b s left left", WRONG_TYPE),
        ("lmove s b left left", WRONG_TYPE),
        ("rpoplpush b s", WRONG_TYPE),
        ("rpoplpush s b", WRONG_TYPE),
        ("lmove none s left left", "nil"),
        ("rpoplpush none s", "nil"),
        ("lrange b 0 -1", r#"["3" "2" "4" "1"]"#),
        ("lmove b c up left", "-ERR syntax error"),
        ("lmove b c left down", "-ERR syntax error"),
        ("lmove none c up left", "-ERR syntax error"),
        ("rpush one x", ":1"),
        ("lmove one one left right", r#""x""#),
        ("lrange one 0 -1", r#"["x"]"#),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn elements_pop_from_the_first_list() {
    check(&[
        ("lmpop 1 a left", "nil*"),
        ("lmpop 2 a b right count 3", "nil*"),
        ("rpush b 1 2 3 4 5", ":5"),
        ("lmpop 2 a b left", r#"["b" ["1"]]"#),
        ("lmpop 2 a b right COUNT 2", r#"["b" ["5" "4"]]"#),
        ("lmpop 1 b left count 10", r#"["b" ["2" "3"]]"#),
        ("exists b", ":0"),
        ("rpush a x", ":1"),
        ("rpush b y", ":1"),
        ("lmpop 2 b a left", r#"["b" ["y"]]"#),
        ("set s v", "OK"),
        ("lmpop 2 s a left", WRONG_TYPE),
        ("lmpop 2 a s left", r#"["a" ["x"]]"#),
        ("lmpop 2 a s left", WRONG_TYPE),
        ("lmpop 0 a left", "-ERR numkeys should be greater than 0"),
        ("lmpop -1 a left", "-ERR numkeys should be greater than 0"),
        ("lmpop x a left", "-ERR numkeys should be greater than 0"),
        ("lmpop 1 a up", "-ERR syntax error"),
        ("lmpop 2 a left", "-ERR syntax error"),
        ("lmpop 1 a left count", "-ERR syntax error"),
        ("lmpop 1 a left count 0", "-ERR count should be greater than 0"),
        ("lmpop 1 a left count -1", "-ERR count should be greater than 0"),
        ("lmpop 1 a left count x", "-ERR count should be greater than 0"),
        ("lmpop 1 a left count 1 count 1", "-ERR syntax error"),
        ("lmpop 1 a left foo 1", "-ERR syntax error"),
        ("lmpop 9223372036854775807 a left", "-ERR syntax error"),
        ("lmpop 1 a", "-ERR wrong number of arguments for 'lmpop' command"),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn a_blocking_command_answers_at_once_if_it_can() {
    check(&[
        ("rpush a 1 2 3", ":3"),
        ("rpush b x", ":1"),
        ("blpop a 0", r#"["a" "1"]"#),
        ("brpop a 0.5", r#"["a" "3"]"#),
        ("blpop none a b 1", r#"["a" "2"]"#),
        ("blpop none a b 1", r#"["b" "x"]"#),
        ("exists a b", ":0"),
        ("set s v", "OK"),
        ("blpop s 0", WRONG_TYPE),
        ("brpop none s 0", WRONG_TYPE),
        ("blpop none s 0", WRONG_TYPE),
        ("rpush a 1 2 3 4 5", ":5"),
        ("blpop a s 0", r#"["a" "1"]"#),
        ("blpop s a 0", WRONG_TYPE),
        ("blmove a b left right 0", r#""2""#),
        ("blmove a s left right 0", WRONG_TYPE),
        ("blmove s a left right 0", WRONG_TYPE),
        ("brpoplpush a b 0", r#""5""#),
        ("brpoplpush a s 0", WRONG_TYPE),
        ("brpoplpush s a 0", WRONG_TYPE),
        ("lrange b 0 -1", r#"["5" "2"]"#),
        ("blmpop 0 2 none a left count 2", r#"["a" ["3" "4"]]"#),
        ("rpush a 1 2", ":2"),
        ("blmpop 0 1 a right", r#"["a" ["2"]]"#),
        ("blmpop 1 2 s a left", WRONG_TYPE),
        ("blmpop 1 2 a s left", r#"["a" ["1"]]"#),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn a_bad_blocking_command_is_refused() {
    check(&[
        ("blpop a x", "-ERR timeout is not a float or out of range"),
        ("blpop a -1", "-ERR timeout is negative"),
        ("blpop a nan", "-ERR timeout is not a float or out of range"),
        ("blpop a inf", "-ERR timeout is negative"),
        ("blpop a 1e16", "-ERR timeout is negative"),
        ("blpop a", "-ERR wrong number of arguments for 'blpop' command"),
        ("blpop a b", "-ERR timeout is not a float or out of range"),
        ("brpop a -2", "-ERR timeout is negative"),
        ("blmove a b left right -1", "-ERR timeout is negative"),
        ("blmove a b left right x", "-ERR timeout is not a float or out of range"),
        ("blmove a b up right x", "-ERR syntax error"),
        ("blmove a b left right", "-ERR wrong number of arguments for 'blmove' command"),
        ("brpoplpush a b x", "-ERR timeout is not a float or out of range"),
        ("brpoplpush a b -1", "-ERR timeout is negative"),
        ("blmpop x 1 a left", "-ERR timeout is not a float or out of range"),
        ("blmpop x 2 a left", "-ERR syntax error"),
        ("blmpop -1 1 a left", "-ERR timeout is negative"),
        ("blmpop 0 0 a left", "-ERR numkeys should be greater than 0"),
        ("blmpop 0 1 a left count 0", "-ERR count should be greater than 0"),
        ("blmpop 0 1 a left bar 1", "-ERR syntax error"),
        ("blmpop 0 1 a", "-ERR wrong number of arguments for 'blmpop' command"),
    ]);
}

fn block(keys: &[&str], timeout_ms: Option<u64>) -> Option<Block> {
    let keys = keys.iter().map(|key| Box::from(key.as_bytes())).collect();
    Some(Block { keys, timeout_ms, null_bulk: false })
}

#[test]
fn a_command_that_finds_nothing_waits_for_its_keys() {
    #[rustfmt::skip] // columns
    let table = [
        ("blpop a b a 0",                  block(&["a", "b", "a"], None)),
        ("brpop a 1.5",                    block(&["a"], Some(1500))),
        ("blpop a 0.0001",                 block(&["a"], Some(1))),
        ("blpop a -0.0000001",             block(&["a"], None)),
        ("blpop a 0x10",                   block(&["a"], Some(16_000))),
        ("blmove a s left right 2",        block(&["a"], Some(2000))), // the target is not looked at yet
        ("brpoplpush a b 0",               block(&["a"], None)),
        ("blmpop 3 2 a b right count 5",   block(&["a", "b"], Some(3000))),
    ];
    for (line, expected) in table {
        let mut db = Db::new();
        db.run("set s x");
        assert_eq!(db.run(line), "", "{line}");
        assert_eq!(db.effects.block.take(), expected, "{line}");
    }
}

#[test]
fn nobody_waits_after_an_answer_or_an_error() {
    for line in ["blpop l 0", "blmove l m left right 0", "blmpop 0 1 l left", "blpop s 0", "blpop none -1"] {
        let mut db = Db::new();
        db.run("rpush l 1");
        db.run("set s x");
        assert_ne!(db.run(line), "", "{line}");
        assert_eq!(db.effects.block, None, "{line}");
    }
}

/// One command as in an entry's body.
fn encoded(line: &str) -> Vec<u8> {
    let words = crate::harness::split(line);
    let args: Vec<&[u8]> = words[1..].iter().map(Vec::as_slice).collect();
    let command = storage::Registry::new().find(&words[0]).expect("a command of ours").id;
    let mut body = Vec::new();
    storage::entry::put_command(&mut body, command, &args);
    body
}

#[test]
fn a_waiting_client_passes_over_keys_of_another_type() {
    #[rustfmt::skip] // columns
    let table = [
        // the command tried again           its answer, "" if it waits on
        ("blpop s 0",                        ""),
        ("blpop none s 5",                   ""),
        ("brpop s l 0",                      r#"["l" "2"]"#),
        ("blmpop 0 2 s l left count 2",      r#"["l" ["1" "2"]]"#),
        ("blmove s l left right 0",          ""),
        ("blmove l s left right 0",          WRONG_TYPE), // a target of another type is an error
        ("blmove l m left right 0",          r#""1""#),
        ("brpoplpush s l 0",                 ""),
    ];
    for (line, expected) in table {
        let mut db = Db::new();
        db.run("rpush l 1 2");
        db.run("set s x");
        assert_eq!(db.run_words(&[b"archipel.retry", &encoded(line)]), expected, "{line}");
        assert_eq!(db.effects.block.is_some(), expected.is_empty(), "{line}");
        assert_eq!(db.replayed().contents(), db.contents(), "{line}");
    }
}

#[test]
fn in_a_transaction_nobody_waits() {
    #[rustfmt::skip] // columns
    let table = [
        ("blpop a 0",               "[nil*]"),
        ("brpop a b 1",             "[nil*]"),
        ("blmpop 0 1 a left",       "[nil*]"),
        ("blmove a b left left 0",  "[nil]"),
        ("brpoplpush a b 0",        "[nil]"),
    ];
    for (line, expected) in table {
        let mut db = Db::new();
        assert_eq!(db.run_words(&[b"archipel.exec", &encoded(line)]), expected, "{line}");
        assert_eq!(db.effects.block, None, "{line}");
    }
}

#[test]
fn what_changes_nothing_touches_no_key() {
    let mut db = Db::new();
    db.run("rpush l a b");
    db.store.set_interest(true);
    for line in [
        "lpushx none x",
        "linsert l before nope x",
        "lrem l 0 nope",
        "ltrim l 0 -1",
        "lpop l 0",
        "lset l 9 x",
        "lmove none l left left",
        "lmove l l up left",
        "lmpop 1 none left",
        "blpop none 0",
    ] {
        db.run(line);
        assert!(!db.store.has_touched(), "{line}");
    }
    db.run("lpush l x");
    assert!(db.store.has_touched());
}

#[test]
#[rustfmt::skip] // columns
fn elements_are_bytes_and_counts_may_be_huge() {
    check(&[
        ("rpush l a b a", ":3"),
        ("lpos l a rank -9223372036854775807", "nil"),
        ("lpos l a maxlen 9223372036854775807", ":0"),
        ("lpos l a count 9223372036854775807", "[:0 :2]"),
        ("lpop l 9223372036854775807", r#"["a" "b" "a"]"#),
        ("linsert l before a a", ":0"),
        ("rpush l 1 01 1.0 +1", ":4"),
        ("lpos l 1", ":0"),
        ("lrem l 0 01", ":1"),
        (r#"lset l 0 """#, "OK"),
        ("lrange l 0 -1", r#"["" "1.0" "+1"]"#),
        (r#"lpos l """#, ":0"),
        (r#"linsert l after "" z"#, ":4"),
        ("lmpop 1 l left count 9223372036854775807", r#"["l" ["" "z" "1.0" "+1"]]"#),
    ]);
}

#[test]
fn a_rank_without_an_opposite_is_refused() {
    // Redis 7.0 negates it, which C leaves undefined; later versions refuse it with this text.
    let refusal =
        "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807";
    crate::harness::check_ours(&[("rpush l a", ":1"), ("lpos l a rank -9223372036854775808", refusal)]);
}
