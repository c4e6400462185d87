//! Unions, intersections and differences of sorted sets and sets.

use crate::harness::check;

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

#[test]
#[rustfmt::skip] // columns
fn sorted_sets_are_united() {
    check(&[
        ("zadd a 1 a 2 b 3 c", ":3"),
        ("zadd b 1 b 2 c 3 d", ":3"),
        ("zunion 2 a b", r#"["a" "b" "d" "c"]"#),
        ("zunion 2 a b withscores", r#"["a" "1" "b" "3" "d" "3" "c" "5"]"#),
        ("zunion 2 a none withscores", r#"["a" "1" "b" "2" "c" "3"]"#),
        ("zunion 1 none", "[]"),
        ("zunion 1 none withscores", "[]"),
        ("zunion 2 a b weights 2 3 withscores", r#"["a" "2" "b" "7" "d" "9" "c" "12"]"#),
        ("zunion 2 a b aggregate min withscores", r#"["a" "1" "b" "1" "c" "2" "d" "3"]"#),
        ("zunion 2 a b aggregate max withscores", r#"["a" "1" "b" "2" "c" "3" "d" "3"]"#),
        ("zunion 2 a b aggregate sum WEIGHTS 2 -1.5 WITHSCORES", r#"["d" "-4.5" "a" "2" "b" "2.5" "c" "3"]"#),
        ("zunion 2 a a withscores", r#"["a" "2" "b" "4" "c" "6"]"#),
        ("zunion 3 a b a weights 1 10 100 aggregate max withscores", r#"["d" "30" "a" "100" "b" "200" "c" "300"]"#),
        ("zunion 1 a weights inf withscores", r#"["a" "inf" "b" "inf" "c" "inf"]"#),
        ("zunion 1 a weights 0 withscores", r#"["a" "0" "b" "0" "c" "0"]"#),
        ("zunion 1 a weights -0 withscores", r#"["a" "-0" "b" "-0" "c" "-0"]"#),
        ("zadd i inf x -inf y 0 z", ":3"),
        ("zadd j -inf x inf y", ":2"),
        ("zunion 2 i j withscores", r#"["x" "0" "y" "0" "z" "0"]"#),
        ("zunion 2 i j weights 0 0 withscores", r#"["x" "0" "y" "0" "z" "0"]"#),
        ("zunion 1 i weights inf withscores", r#"["y" "-inf" "z" "0" "x" "inf"]"#),
        ("zunion 2 i j aggregate min withscores", r#"["x" "-inf" "y" "-inf" "z" "0"]"#),
        ("zunion 2 i j aggregate max weights 1 0 withscores", r#"["y" "0" "z" "0" "x" "inf"]"#),
        ("sadd s a b x", ":3"),
        ("zunion 2 a s withscores", r#"["x" "1" "a" "2" "b" "3" "c" "3"]"#),
        ("zunion 2 s a weights 5 1 withscores", r#"["c" "3" "x" "5" "a" "6" "b" "7"]"#),
        ("sadd n 3 1 2", ":3"),
        ("zunion 2 n a withscores", r#"["1" "1" "2" "1" "3" "1" "a" "1" "b" "2" "c" "3"]"#),
        ("zunion 1 s withscores", r#"["a" "1" "b" "1" "x" "1"]"#),
        ("zunionstore d 2 a b", ":4"),
        ("zrange d 0 -1 withscores", r#"["a" "1" "b" "3" "d" "3" "c" "5"]"#),
        ("zunionstore d 2 a b weights 2 3 aggregate max", ":4"),
        ("zrange d 0 -1 withscores", r#"["a" "2" "b" "4" "c" "6" "d" "9"]"#),
        ("zunionstore d 2 a d", ":4"),
        ("zrange d 0 -1 withscores", r#"["a" "3" "b" "6" "c" "9" "d" "9"]"#),
        ("zunionstore d 1 none", ":0"),
        ("exists d", ":0"),
        ("set d v", "OK"),
        ("expire d 100", ":1"),
        ("zunionstore d 1 s", ":3"),
        ("ttl d", ":-1"),
        ("zrange d 0 -1 withscores", r#"["a" "1" "b" "1" "x" "1"]"#),
        ("zunionstore d 1 i weights 0", ":3"),
        ("zrange d 0 -1 withscores", r#"["x" "0" "y" "0" "z" "0"]"#),
        ("object encoding d", r#""listpack""#),
        ("set str v", "OK"),
        ("zunion 2 a str", WRONG_TYPE),
        ("zunion 2 a str foo", WRONG_TYPE),
        ("zunionstore d 2 a str", WRONG_TYPE),
        ("zcard d", ":3"),
        ("zunionstore str 1 a", ":3"),
        ("type str", "zset"),
        ("zadd t 0.1 m", ":1"),
        ("zadd u 0.2 m 1 n", ":2"),
        ("zadd v 0.3 m 1 n 2 o", ":3"),
        ("zunion 3 v u t withscores", r#"["m" "0.60000000000000009" "n" "2" "o" "2"]"#),
        ("zunion 3 t u v withscores", r#"["m" "0.60000000000000009" "n" "2" "o" "2"]"#),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn sorted_sets_are_intersected() {
    check(&[
        ("zadd a 1 a 2 b 3 c", ":3"),
        ("zadd b 1 b 2 c 3 d", ":3"),
        ("zinter 2 a b", r#"["b" "c"]"#),
        ("zinter 2 a b withscores", r#"["b" "3" "c" "5"]"#),
        ("zinter 2 a b weights 2 3 withscores", r#"["b" "7" "c" "12"]"#),
        ("zinter 2 a b weights 2 3 aggregate min withscores", r#"["b" "3" "c" "6"]"#),
        ("zinter 2 a b aggregate max withscores", r#"["b" "2" "c" "3"]"#),
        ("zinter 2 a none", "[]"),
        ("zinter 2 none a withscores", "[]"),
        ("zinter 1 a withscores", r#"["a" "1" "b" "2" "c" "3"]"#),
        ("zinter 2 a a withscores", r#"["a" "2" "b" "4" "c" "6"]"#),
        ("sadd s b c x", ":3"),
        ("zinter 2 a s withscores", r#"["b" "3" "c" "4"]"#),
        ("zinter 3 a b s weights 1 1 10 withscores", r#"["b" "13" "c" "15"]"#),
        ("sadd n 1 2 3", ":3"),
        ("zadd m 5 1 6 4", ":2"),
        ("zinter 2 n m withscores", r#"["1" "6"]"#),
        ("zadd i inf x -inf y 0 z", ":3"),
        ("zadd j -inf x inf y 0 z", ":3"),
        ("zinter 2 i j withscores", r#"["x" "0" "y" "0" "z" "0"]"#),
        ("zinter 2 i j weights 0 1 withscores", r#"["x" "-inf" "z" "0" "y" "inf"]"#),
        ("zinter 2 i j weights 1 0 withscores", r#"["x" "0" "y" "0" "z" "0"]"#),
        ("zinter 2 i j weights 1 0 aggregate min withscores", r#"["y" "-inf" "z" "0" "x" "inf"]"#),
        ("zinter 2 i j weights 1 0 aggregate max withscores", r#"["y" "-inf" "z" "0" "x" "inf"]"#),
        ("zinterstore d 2 a b", ":2"),
        ("zrange d 0 -1 withscores", r#"["b" "3" "c" "5"]"#),
        ("zinterstore d 2 a b weights 2 3 aggregate min", ":2"),
        ("zrange d 0 -1 withscores", r#"["b" "3" "c" "6"]"#),
        ("zinterstore d 2 a none", ":0"),
        ("exists d", ":0"),
        ("set str v", "OK"),
        ("zinter 2 a str", WRONG_TYPE),
        ("zinterstore d 2 none str", WRONG_TYPE),
        ("zinterstore a 2 a b", ":2"),
        ("zrange a 0 -1 withscores", r#"["b" "3" "c" "5"]"#),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn an_intersection_is_counted() {
    check(&[
        ("zadd a 1 a 2 b 3 c", ":3"),
        ("zadd b 1 b 2 c 3 d", ":3"),
        ("sadd s b x", ":2"),
        ("zintercard 2 a b", ":2"),
        ("zintercard 2 a b limit 1", ":1"),
        ("zintercard 2 a b limit 0", ":2"),
        ("zintercard 2 a b LIMIT 9", ":2"),
        ("zintercard 3 a b s", ":1"),
        ("zintercard 2 a none", ":0"),
        ("zintercard 1 a", ":3"),
        ("zintercard 1 a limit 2", ":2"),
        ("zintercard 2 a b limit 1 limit 2", ":2"),
        ("zintercard 2 a b limit -1", "-ERR LIMIT can't be negative"),
        ("zintercard 2 a b limit x", "-ERR LIMIT can't be negative"),
        ("zintercard 2 a b limit", "-ERR syntax error"),
        ("zintercard 2 a b weights 1 1", "-ERR syntax error"),
        ("zintercard 2 a b withscores", "-ERR syntax error"),
        ("zintercard 2 a b aggregate min", "-ERR syntax error"),
        ("zintercard 0 a", "-ERR at least 1 input key is needed for 'zintercard' command"),
        ("zintercard 3 a b", "-ERR syntax error"),
        ("zintercard x a", "-ERR value is not an integer or out of range"),
        ("zintercard 1", "-ERR wrong number of arguments for 'zintercard' command"),
        ("set str v", "OK"),
        ("zintercard 2 a str", WRONG_TYPE),
        ("zintercard 2 a str limit -1", WRONG_TYPE),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn sorted_sets_are_subtracted() {
    check(&[
        ("zadd a 1 a 2 b 3 c 4 d", ":4"),
        ("zadd b 9 b", ":1"),
        ("zadd c 9 c", ":1"),
        ("sadd s a", ":1"),
        ("zdiff 1 a", r#"["a" "b" "c" "d"]"#),
        ("zdiff 2 a b withscores", r#"["a" "1" "c" "3" "d" "4"]"#),
        ("zdiff 3 a b c withscores", r#"["a" "1" "d" "4"]"#),
        ("zdiff 2 a s withscores", r#"["b" "2" "c" "3" "d" "4"]"#),
        ("zdiff 2 s a withscores", "[]"),
        ("zdiff 2 s b withscores", r#"["a" "1"]"#),
        ("zdiff 2 a none withscores", r#"["a" "1" "b" "2" "c" "3" "d" "4"]"#),
        ("zdiff 2 none a withscores", "[]"),
        ("zdiff 2 a a", "[]"),
        ("zdiff 2 a b weights 1 2", "-ERR syntax error"),
        ("zdiff 2 a b aggregate min", "-ERR syntax error"),
        ("zdiff 2 a b limit 1", "-ERR syntax error"),
        ("zdiffstore d 2 a b", ":3"),
        ("zrange d 0 -1 withscores", r#"["a" "1" "c" "3" "d" "4"]"#),
        ("zdiffstore d 4 a b c s", ":1"),
        ("zrange d 0 -1 withscores", r#"["d" "4"]"#),
        ("zdiffstore d 2 a a", ":0"),
        ("exists d", ":0"),
        ("zdiffstore d 2 a b withscores", "-ERR syntax error"),
        ("zdiffstore a 2 a b", ":3"),
        ("zrange a 0 -1", r#"["a" "c" "d"]"#),
        ("set str v", "OK"),
        ("zdiff 2 a str", WRONG_TYPE),
        ("zdiffstore d 2 str a", WRONG_TYPE),
    ]);
}

#[test]
#[rustfmt::skip] // columns
fn a_bad_combination_is_refused() {
    check(&[
        ("zadd a 1 a", ":1"),
        ("zunion 0 a", "-ERR at least 1 input key is needed for 'zunion' command"),
        ("zunion -1 a", "-ERR at least 1 input key is needed for 'zunion' command"),
        ("zunion x a", "-ERR value is not an integer or out of range"),
        ("zunion 2 a", "-ERR syntax error"),
        ("zunion 1 a foo", "-ERR syntax error"),
        ("zunion 1 a weights", "-ERR syntax error"),
        ("zunion 1 a weights x", "-ERR weight value is not a float"),
        ("zunion 1 a weights nan", "-ERR weight value is not a float"),
        ("zunion 2 a a weights 1", "-ERR syntax error"),
        ("zunion 2 a a weights 1 withscores", "-ERR weight value is not a float"),
        ("zunion 1 a aggregate", "-ERR syntax error"),
        ("zunion 1 a aggregate foo", "-ERR syntax error"),
        ("zunion 1 a limit 1", "-ERR syntax error"),
        ("zunion 1 a weights 2 weights 3 withscores", r#"["a" "3"]"#),
        ("zunion 1 a aggregate min aggregate max withscores", r#"["a" "1"]"#),
        ("zunion 9223372036854775807 a", "-ERR syntax error"),
        ("zunion 1", "-ERR wrong number of arguments for 'zunion' command"),
        ("zunionstore d 0 a", "-ERR at least 1 input key is needed for 'zunionstore' command"),
        ("zunionstore d x a", "-ERR value is not an integer or out of range"),
        ("zunionstore d 1 a withscores", "-ERR syntax error"),
        ("zunionstore d 1", "-ERR wrong number of arguments for 'zunionstore' command"),
        ("zinter 0 a", "-ERR at least 1 input key is needed for 'zinter' command"),
        ("zinterstore d 0 a", "-ERR at least 1 input key is needed for 'zinterstore' command"),
        ("zinterstore d 1 a weights x", "-ERR weight value is not a float"),
        ("zdiff 0 a", "-ERR at least 1 input key is needed for 'zdiff' command"),
        ("zdiffstore d 0 a", "-ERR at least 1 input key is needed for 'zdiffstore' command"),
        ("zdiffstore d 2 a", "-ERR syntax error"),
        ("exists d", ":0"),
    ]);
}

#[test]
fn large_sets_are_combined_as_small_ones() {
    let line = |command: &str, word: &dyn Fn(u32) -> String| {
        (0..500).fold(command.to_owned(), |line, n| line + " " + &word(n))
    };
    let large = [
        (line("zadd a", &|n| format!("0.{n} m{n}")), ":500"),
        (line("zadd b", &|n| format!("{n} m{}", n * 2)), ":500"),
        (line("sadd s", &|n| format!("m{}", n * 3)), ":500"),
    ];
    let mut table: Vec<(&str, &str)> = large.iter().map(|(line, reply)| (line.as_str(), *reply)).collect();
    #[rustfmt::skip] // columns
    table.extend([
        ("zunionstore d 3 a b s",        ":1000"),
        ("zinterstore e 3 a b s",        ":84"),
        ("zintercard 3 a b s",           ":84"),
        ("zintercard 3 a b s limit 50",  ":50"),
        ("zdiffstore f 3 a b s",         ":167"),
        ("zmscore d m6 m996 m1497",      r#"["4.5999999999999996" "499" "1"]"#),
        ("zmscore e m6 m12",             r#"["4.5999999999999996" "7.1200000000000001"]"#),
        ("zscore f m1",                  r#""0.10000000000000001""#),
    ]);
    check(&table);
}
