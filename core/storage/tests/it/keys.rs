//! Keys of any type.

use crate::harness::{Db, check};

#[test]
fn keys_are_deleted_and_counted() {
    check(&[
        ("mset a 1 b 2 c 3", "OK"),
        ("exists a b nokey a", ":3"),
        ("touch a b nokey", ":2"),
        ("del a nokey a", ":1"),
        ("exists a", ":0"),
        ("unlink b c", ":2"),
        ("dbsize", ":0"),
        ("del", "-ERR wrong number of arguments for 'del' command"),
        ("exists", "-ERR wrong number of arguments for 'exists' command"),
        ("lpush l 1", ":1"),
        ("sadd s 1", ":1"),
        ("hset h f v", ":1"),
        ("zadd z 1 m", ":1"),
        ("set x 1", "OK"),
        ("type l", "list"),
        ("type s", "set"),
        ("type h", "hash"),
        ("type z", "zset"),
        ("type x", "string"),
        ("type nokey", "none"),
        ("dbsize", ":5"),
        ("flushdb foo", "-ERR syntax error"),
        ("flushdb sync async", "-ERR syntax error"),
        ("flushdb async", "OK"),
        ("dbsize", ":0"),
    ]);
}

#[test]
fn keys_are_renamed() {
    check(&[
        ("set a 1 ex 100", "OK"),
        ("set b 2", "OK"),
        ("rename a b", "OK"),
        ("exists a", ":0"),
        ("ttl b", ":100"),
        ("get b", r#""1""#),
        ("rename nokey b", "-ERR no such key"),
        ("rename b b", "OK"),
        ("rename nokey nokey", "-ERR no such key"),
        ("renamenx b b", ":0"),
        ("renamenx nokey nokey", "-ERR no such key"),
        ("renamenx nokey b", "-ERR no such key"),
        ("set c 3", "OK"),
        ("renamenx b c", ":0"),
        ("get c", r#""3""#),
        ("renamenx b d", ":1"),
        ("get d", r#""1""#),
        ("ttl d", ":100"),
        ("rename c d", "OK"),
        ("ttl d", ":-1"),
        ("get d", r#""3""#),
        ("lpush l 1", ":1"),
        ("rename l d", "OK"),
        ("type d", "list"),
        ("rename a", "-ERR wrong number of arguments for 'rename' command"),
    ]);
}

#[test]
fn keys_are_copied() {
    check(&[
        ("set a 1 ex 100", "OK"),
        ("copy a b", ":1"),
        ("get b", r#""1""#),
        ("ttl b", ":100"),
        ("incr b", ":2"),
        ("get a", r#""1""#),
        ("copy a b", ":0"),
        ("copy a b replace", ":1"),
        ("get b", r#""1""#),
        ("copy a a", "-ERR source and destination objects are the same"),
        ("copy a a replace", "-ERR source and destination objects are the same"),
        ("copy nokey b", ":0"),
        ("copy nokey nokey", "-ERR source and destination objects are the same"),
        ("copy a c foo", "-ERR syntax error"),
        ("copy a c db abc", "-ERR value is not an integer or out of range"),
        ("copy a c replace replace", ":1"),
        ("copy a c REPLACE foo", "-ERR syntax error"),
        ("lpush l 1 2", ":2"),
        ("copy l m", ":1"),
        ("type m", "list"),
        ("copy l a replace", ":1"),
        ("type a", "list"),
        ("ttl a", ":-1"),
        ("hset h f v", ":1"),
        ("zadd z 1 m", ":1"),
        ("sadd s 1 x", ":2"),
        ("copy h h2", ":1"),
        ("copy z z2", ":1"),
        ("copy s s2", ":1"),
        ("type h2", "hash"),
        ("type z2", "zset"),
        ("type s2", "set"),
    ]);
}

#[test]
fn keys_are_listed() {
    check(&[
        ("keys *", "[]"),
        ("scan 0", r#"["0" []]"#),
        ("randomkey", "nil"),
        ("set one 1", "OK"),
        ("keys *", r#"["one"]"#),
        ("keys o?e", r#"["one"]"#),
        ("keys o[a-m]e", "[]"),
        ("keys [^x]ne", r#"["one"]"#),
        ("keys two", "[]"),
        ("keys ONE", "[]"),
        (r#"keys o\ne"#, r#"["one"]"#),
        ("scan 0", r#"["0" ["one"]]"#),
        ("scan 0 match o*", r#"["0" ["one"]]"#),
        ("scan 0 match x*", r#"["0" []]"#),
        ("scan 0 type string", r#"["0" ["one"]]"#),
        ("scan 0 type STRING", r#"["0" ["one"]]"#),
        ("scan 0 type list", r#"["0" []]"#),
        ("scan 0 type foo", r#"["0" []]"#),
        ("scan 0 count 100 match * type string", r#"["0" ["one"]]"#),
        ("scan 0 count 0", "-ERR syntax error"),
        ("scan 0 count -1", "-ERR syntax error"),
        ("scan 0 count x", "-ERR value is not an integer or out of range"),
        ("scan 0 count", "-ERR syntax error"),
        ("scan 0 match", "-ERR syntax error"),
        ("scan 0 foo bar", "-ERR syntax error"),
        ("scan abc", "-ERR invalid cursor"),
        (r#"scan " 1""#, "-ERR invalid cursor"),
        ("scan 1x", "-ERR invalid cursor"),
        ("scan 99999999999999999999999", "-ERR invalid cursor"),
        ("randomkey", r#""one""#),
        ("lpush l 1", ":1"),
        ("scan 0 type list", r#"["0" ["l"]]"#),
        ("set e 1 px 20", "OK"),
        ("%advance 50", "OK"),
        ("scan 0 type string", r#"["0" ["one"]]"#),
        ("keys e*", "[]"),
    ]);
}

#[test]
fn expiries_are_given_and_taken() {
    check(&[
        ("set a 1", "OK"),
        ("ttl a", ":-1"),
        ("pttl a", ":-1"),
        ("expiretime a", ":-1"),
        ("pexpiretime a", ":-1"),
        ("ttl nokey", ":-2"),
        ("pttl nokey", ":-2"),
        ("expiretime nokey", ":-2"),
        ("pexpiretime nokey", ":-2"),
        ("expire a 100", ":1"),
        ("ttl a", ":100"),
        ("persist a", ":1"),
        ("persist a", ":0"),
        ("persist nokey", ":0"),
        ("ttl a", ":-1"),
        ("pexpire a 100000", ":1"),
        ("ttl a", ":100"),
        ("pexpire a 1500", ":1"),
        ("ttl a", ":2"),
        ("expireat a 9999999999", ":1"),
        ("expiretime a", ":9999999999"),
        ("pexpireat a 9999999999499", ":1"),
        ("expiretime a", ":9999999999"),
        ("pexpireat a 9999999999500", ":1"),
        ("expiretime a", ":10000000000"),
        ("pexpiretime a", ":9999999999500"),
        ("expire nokey 10", ":0"),
        ("expire a abc", "-ERR value is not an integer or out of range"),
        ("expire a 1.5", "-ERR value is not an integer or out of range"),
        ("expire nokey abc", "-ERR value is not an integer or out of range"),
        ("expire a 9223372036854775807", "-ERR invalid expire time in 'expire' command"),
        ("expire a 9223372036854775", "-ERR invalid expire time in 'expire' command"),
        ("expire a -9223372036854775808", "-ERR invalid expire time in 'expire' command"),
        ("expire a -9223372036854775", ":1"),
        ("exists a", ":0"),
        ("set a 1", "OK"),
        ("pexpire a 9223372036854775807", "-ERR invalid expire time in 'pexpire' command"),
        ("expireat a 9223372036854776", "-ERR invalid expire time in 'expireat' command"),
        ("expireat a 9223372036854775", ":1"),
        ("expiretime a", ":9223372036854775"),
        ("pexpireat a 9223372036854775807", ":1"),
        ("pexpiretime a", ":9223372036854775807"),
        ("pexpireat a -9223372036854775808", ":1"),
        ("exists a", ":0"),
        ("set a 1", "OK"),
        ("expire a 0", ":1"),
        ("exists a", ":0"),
        ("set a 1", "OK"),
        ("expire a -1", ":1"),
        ("get a", "nil"),
        ("set a 1", "OK"),
        ("expireat a 1", ":1"),
        ("get a", "nil"),
        ("set a 1", "OK"),
        ("pexpireat a -5", ":1"),
        ("dbsize", ":0"),
        ("lpush l 1", ":1"),
        ("expire l 100", ":1"),
        ("ttl l", ":100"),
        ("persist l", ":1"),
    ]);
}

#[test]
fn expiries_are_given_on_conditions() {
    check(&[
        ("set a 1", "OK"),
        ("expire a 100 xx", ":0"),
        ("expire a 100 gt", ":0"),
        ("ttl a", ":-1"),
        ("expire a 100 lt", ":1"),
        ("ttl a", ":100"),
        ("expire a 200 nx", ":0"),
        ("expire a 200 lt", ":0"),
        ("expire a 200 gt", ":1"),
        ("ttl a", ":200"),
        ("expire a 150 gt", ":0"),
        ("expire a 150 lt", ":1"),
        ("ttl a", ":150"),
        ("expire a 300 xx", ":1"),
        ("ttl a", ":300"),
        ("expire a 400 xx gt", ":1"),
        ("expire a 300 xx gt", ":0"),
        ("expire a 300 xx lt", ":1"),
        ("ttl a", ":300"),
        ("persist a", ":1"),
        ("expire a 100 nx", ":1"),
        ("ttl a", ":100"),
        ("expire a 10 nx xx", "-ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("expire a 10 nx gt", "-ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("expire a 10 nx lt", "-ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("expire a 10 gt lt", "-ERR GT and LT options at the same time are not compatible"),
        ("expire a 10 foo", "-ERR Unsupported option foo"),
        ("expire a 10 nx foo", "-ERR Unsupported option foo"),
        ("expire a abc nx xx", "-ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("expire a abc foo", "-ERR Unsupported option foo"),
        ("expire a 10 NX NX", ":0"),
        ("persist a", ":1"),
        ("expire a -1 gt", ":0"),
        ("expire a -1 xx", ":0"),
        ("exists a", ":1"),
        ("expire a -1 lt", ":1"),
        ("exists a", ":0"),
        ("expire nokey 10 nx", ":0"),
        ("pexpire nokey 10 xx", ":0"),
    ]);
}

#[test]
fn keys_show_how_they_are_kept() {
    check(&[
        ("set i 123", "OK"),
        ("set e short", "OK"),
        ("set l 12345678901234567890123456789012345678901234", "OK"),
        ("set r 123456789012345678901234567890123456789012345", "OK"),
        ("object encoding i", r#""int""#),
        ("object encoding e", r#""embstr""#),
        ("object encoding l", r#""embstr""#),
        ("object encoding r", r#""raw""#),
        ("object encoding nokey", "nil"),
        ("object ENCODING i", r#""int""#),
        ("append e x", ":6"),
        ("object encoding e", r#""raw""#),
        ("set big 9223372036854775808", "OK"),
        ("object encoding big", r#""embstr""#),
        ("object refcount e", ":1"),
        ("object refcount nokey", "nil"),
        ("object idletime e", ":0"),
        ("object idletime nokey", "nil"),
        (
            "object freq e",
            "-ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ),
        ("object freq nokey", "nil"),
        (
            "object help",
            "[OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are: ENCODING <key>     Return the kind of internal representation used in order to store the value     associated with a <key>. FREQ <key>     Return the access frequency index of the <key>. The returned integer is     proportional to the logarithm of the recent access frequency of the key. IDLETIME <key>     Return the idle time of the <key>, that is the approximated number of     seconds elapsed since the last access to the key. REFCOUNT <key>     Return the number of references of the value associated with the specified     <key>. HELP     Prints this help.]",
        ),
        ("object help x", "-ERR wrong number of arguments for 'object|help' command"),
        ("object encoding", "-ERR wrong number of arguments for 'object|encoding' command"),
        ("object encoding a b", "-ERR wrong number of arguments for 'object|encoding' command"),
        ("object foo", "-ERR unknown subcommand 'foo'. Try OBJECT HELP."),
        ("object foo bar", "-ERR unknown subcommand 'foo'. Try OBJECT HELP."),
        ("object", "-ERR wrong number of arguments for 'object' command"),
        ("sadd s 1 2", ":2"),
        ("object encoding s", r#""intset""#),
        ("sadd t x", ":1"),
        ("hset h f v", ":1"),
        ("object encoding h", r#""listpack""#),
        ("zadd z 1 m", ":1"),
        ("object encoding z", r#""listpack""#),
        ("memory usage nokey", "nil"),
        ("memory usage", "-ERR wrong number of arguments for 'memory|usage' command"),
        ("memory usage nokey samples", "-ERR syntax error"),
        ("memory usage i samples", "-ERR syntax error"),
        ("memory usage i samples -1", "-ERR syntax error"),
        ("memory usage i samples x", "-ERR value is not an integer or out of range"),
        ("memory usage i foo 1", "-ERR syntax error"),
        ("memory foo", "-ERR unknown subcommand 'foo'. Try MEMORY HELP."),
        ("memory", "-ERR wrong number of arguments for 'memory' command"),
        ("memory help x", "-ERR wrong number of arguments for 'memory|help' command"),
    ]);
}

#[test]
fn restore_refuses_what_dump_did_not_make() {
    check(&[
        ("restore a 0 abc", "-ERR DUMP payload version or checksum are wrong"),
        (r#"restore a 0 """#, "-ERR DUMP payload version or checksum are wrong"),
        ("restore a -1 abc", "-ERR Invalid TTL value, must be >= 0"),
        ("restore a x abc", "-ERR value is not an integer or out of range"),
        ("restore a 0 abc foo", "-ERR syntax error"),
        ("restore a 0 abc idletime -1", "-ERR Invalid IDLETIME value, must be >= 0"),
        ("restore a 0 abc idletime x", "-ERR value is not an integer or out of range"),
        ("restore a 0 abc idletime", "-ERR syntax error"),
        ("restore a 0 abc freq 256", "-ERR Invalid FREQ value, must be >= 0 and <= 255"),
        ("restore a 0 abc freq -1", "-ERR Invalid FREQ value, must be >= 0 and <= 255"),
        ("restore a 0 abc freq 1 idletime 1", "-ERR syntax error"),
        ("restore a 0 abc idletime 1 freq 1", "-ERR syntax error"),
        ("restore a 0 abc idletime 1 idletime 2", "-ERR DUMP payload version or checksum are wrong"),
        ("set b 1", "OK"),
        ("restore b 0 abc", "-BUSYKEY Target key name already exists."),
        ("restore b x abc", "-BUSYKEY Target key name already exists."),
        ("restore b x abc replace", "-ERR value is not an integer or out of range"),
        ("restore b 0 abc replace", "-ERR DUMP payload version or checksum are wrong"),
        ("get b", r#""1""#),
        ("dump nokey", "nil"),
        ("restore a", "-ERR wrong number of arguments for 'restore' command"),
    ]);
}

#[test]
fn the_keys_of_a_slot_are_told_and_counted() {
    use storage::command::keys::{SLOT_COUNT, SLOT_KEYS};
    let mut db = Db::new();
    for key in ["foo", "{foo}a", "{foo}b", "bar", "{bar}x"] {
        db.run(&format!("set {key} 1"));
    }
    db.run("del {foo}a");
    let mut told = |id: u16, args: &[&str]| {
        let words: Vec<&[u8]> = args.iter().map(|word| word.as_bytes()).collect();
        db.run_id(id, &words)
    };
    assert_eq!(told(SLOT_COUNT, &["12182"]), ":2");
    assert_eq!(told(SLOT_COUNT, &["0"]), ":0");
    assert_eq!(told(SLOT_COUNT, &["16384"]), "-ERR value is out of range");
    assert_eq!(told(SLOT_KEYS, &["12182", "0"]), "[]");
    assert_eq!(told(SLOT_KEYS, &["12182", "1"]).matches("foo").count(), 1);
    assert_eq!(told(SLOT_KEYS, &["12182", "10"]).matches("foo").count(), 2);
    assert_eq!(told(SLOT_KEYS, &["12182", "-1"]), "-ERR value is out of range, must be positive");
}
