//! Random commands: the same ones give the same replies and state, and no memory is lost count of.

use proptest::prelude::*;

use crate::harness::{Db, Oracle, check_ours};

/// Commands with holes: keys, texts, numbers (of modest size for `M`), fields of bits and offsets.
#[rustfmt::skip] // columns
const TEMPLATES: &[&str] = &[
    "get K", "set K T", "set K T nx", "set K T xx get", "set K T get", "set K T keepttl", "set K T ex 100",
    "setnx K T", "getset K T", "getdel K", "getex K persist", "getex K ex 100", "mget K K K",
    "mset K T K T", "msetnx K T K T", "append K T", "strlen K", "setrange K O T", "getrange K N N",
    "incr K", "decr K", "incrby K N", "decrby K N", "incrbyfloat K T", "incrbyfloat K 0.N", "lcs K K",
    "lcs K K idx withmatchlen", "lcs K K idx minmatchlen 2", "lcs K K len", "setbit K O 1", "setbit K O 0",
    "getbit K O", "bitcount K", "bitcount K N N", "bitcount K N N bit", "bitpos K 1", "bitpos K 0",
    "bitpos K 1 N", "bitpos K 0 N N", "bitpos K 1 N N bit", "bitpos K 0 N N bit", "bitop and K K K",
    "bitop or K K K", "bitop xor K K K", "bitop not K K", "bitfield K get F O", "bitfield K set F O M",
    "bitfield K incrby F O N get F O", "bitfield K overflow sat incrby F O N set F O M",
    "bitfield K overflow fail incrby F O N set F O M", "bitfield_ro K get F O", "del K", "unlink K K",
    "exists K K", "type K", "rename K K", "renamenx K K", "copy K K", "copy K K replace", "expire K 100",
    "expireat K 9999999999 gt", "pexpireat K 9999999999500 lt", "expire K 70 nx", "expire K -1",
    "persist K", "dbsize", "flushdb", "sort K", "sort K get K store K", "rpush d 3 1 2",
    "object encoding K", "touch K", "setex K 100 T", "psetex K 100000 T", "substr K N N",
];

/// Command lines whose replies depend neither on the order of hash tables nor on the time.
fn line() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec!["a", "b", "c", "d"]);
    let text = prop_oneof![
        "[a-c]{0,5}",
        "-?[0-9]{1,3}",
        prop::sample::select(vec![
            "9223372036854775807",
            "1e3",
            "0.1",
            "-0",
            "\"\"",
            "\"\\x00\\xff\\x80\"",
            "nan"
        ])
        .prop_map(String::from),
        "a{70,90}",
        "-?[0-9]{1,22}([.][0-9]{0,22})?(e-?[0-9]{1,2})?",
        "0x[0-9a-f]{1,18}([.][0-9a-f]{0,4})?(p-?[0-9]{1,2})?",
    ]
    .prop_map(|text| if text.is_empty() { String::from("\"\"") } else { text });
    let number = prop_oneof![
        4 => -12i64..40,
        1 => prop::sample::select(vec![i64::MIN, i64::MAX, 4_294_967_296, 600_000_000]),
    ];
    let field = "[iu]([1-9]|[1-5][0-9]|6[0-4])";
    let template = prop::sample::select(TEMPLATES);
    let holes =
        (prop::collection::vec(key, 3), prop::collection::vec(text, 2), prop::collection::vec(number, 4));
    (template, holes, prop::collection::vec(field, 2), 0u64..40).prop_map(
        |(template, (keys, texts, numbers), fields, offset)| {
            let (mut keys, mut texts) = (keys.into_iter().cycle(), texts.into_iter().cycle());
            let (mut numbers, mut fields) = (numbers.into_iter().cycle(), fields.into_iter().cycle());
            let mut fill = |word: &str| match word {
                "K" => keys.next().expect("cycles").to_owned(),
                "T" => texts.next().expect("cycles"),
                "N" => numbers.next().expect("cycles").to_string(),
                "0.N" => format!("{}e-2", numbers.next().expect("cycles")),
                "F" => fields.next().expect("cycles"),
                "O" => offset.to_string(),
                // Far outside the field Redis's own arithmetic overflows.
                "M" => (numbers.next().expect("cycles") % 1000).to_string(),
                word => word.to_owned(),
            };
            template.split(' ').map(&mut fill).collect::<Vec<_>>().join(" ")
        },
    )
}

proptest! {
    #[test]
    fn the_same_commands_give_the_same_replies_and_state(lines in prop::collection::vec(line(), 1..60)) {
        let (mut first, mut second, mut oracle) = (Db::new(), Db::new(), Oracle::from_environment());
        for (place, line) in lines.iter().enumerate() {
            // RPUSH would add to a list in Redis, where the harness makes a new one.
            if line.starts_with("rpush") && first.run("exists d") == ":1" {
                continue;
            }
            let reply = first.run(line);
            prop_assert_eq!(&reply, &second.run(line), "{}", line);
            if let Some(oracle) = &mut oracle {
                prop_assert_eq!(&reply, &oracle.run(line), "Redis, {} of {:?}", line, &lines[..place]);
            }
        }
        let contents = first.contents();
        prop_assert_eq!(&contents, &second.contents());
        prop_assert_eq!(&contents, &first.replayed().contents());
        for key in ["a", "b", "c", "d"] {
            first.run(&format!("del {key}"));
        }
        prop_assert_eq!(first.store.memory_bytes(), 0);
        prop_assert_eq!(first.store.expiring(), 0);
    }
}

#[test]
fn a_dump_restores_to_the_same_dump() {
    let mut db = Db::new();
    for line in [
        "set i 12",
        "set s hello",
        "set e \"\"",
        "append s x",
        "rpush list a b c",
        "sadd ints 1 2 3",
        "sadd words x y z",
        "hset hash f v g w",
        "zadd zset 1 a 2.5 b inf c",
    ] {
        db.run(line);
    }
    for key in ["i", "s", "e", "list", "ints", "words", "hash", "zset"] {
        let dump = db.run(&format!("dump {key}"));
        assert_eq!(db.run(&format!("restore copy 0 {dump} replace")), "OK", "{key}");
        assert_eq!(db.run("dump copy"), dump, "{key}");
        assert_eq!(db.run("type copy"), db.run(&format!("type {key}")), "{key}");
        assert_eq!(db.run(&format!("restore copy 0 {dump}")), "-BUSYKEY Target key name already exists.");
    }
}

#[test]
fn a_damaged_dump_is_refused() {
    let mut db = Db::new();
    db.run("rpush list a b c");
    let value = db.store.value(b"list").expect("it is in memory").expect("it exists");
    let payload = storage::command::dump::payload(value);
    for at in 0..payload.len() {
        for bit in 0..8 {
            let mut damaged = payload.clone();
            damaged[at] ^= 1 << bit;
            let reply = db.run_words(&[b"restore", b"copy", b"0", &damaged]);
            assert_eq!(reply, "-ERR DUMP payload version or checksum are wrong", "bit {bit} of byte {at}");
        }
        let reply = db.run_words(&[b"restore", b"copy", b"0", &payload[..at]]);
        assert_eq!(reply, "-ERR DUMP payload version or checksum are wrong", "cut at {at}");
    }
}

#[test]
fn a_restored_key_gets_its_expiry_and_its_idle_time() {
    let mut db = Db::new();
    db.run("set a 1");
    let dump = db.run("dump a");
    for (options, ttl) in [("0", -1), ("5000", 5000), ("1700000001000 ABSTTL", 1000), ("0 absttl", -1)] {
        let (ms, rest) = options.split_once(' ').unwrap_or((options, ""));
        assert_eq!(db.run(&format!("restore b {ms} {dump} replace {rest}")), "OK", "{options}");
        assert_eq!(db.run("pttl b"), format!(":{ttl}"), "{options}");
    }
    // A moment that has passed leaves no key behind.
    assert_eq!(db.run(&format!("restore b 1 {dump} replace absttl")), "OK");
    assert_eq!(db.run("exists b"), ":0");
    assert_eq!(db.run(&format!("restore b 0 {dump} idletime 77")), "OK");
    assert_eq!(db.run("object idletime b"), ":77");
    assert_eq!(db.run(&format!("restore c 0 {dump} freq 5")), "OK");
}

#[test]
fn a_scan_meets_every_key_once() {
    let mut db = Db::new();
    for n in 0..3000 {
        db.run(&format!("set key:{n} {n}"));
    }
    let (mut seen, mut cursor) = (Vec::new(), String::from("0"));
    loop {
        let reply = db.run(&format!("scan {cursor} count 50 match key:*7"));
        let mut words = reply.trim_matches(['[', ']']).split([' ', '[', ']']).filter(|word| !word.is_empty());
        cursor = words.next().expect("a cursor").trim_matches('"').to_owned();
        seen.extend(words.map(str::to_owned));
        if cursor == "0" {
            break;
        }
    }
    seen.sort_unstable();
    let met = seen.len();
    seen.dedup();
    assert_eq!((met, seen.len()), (300, 300));
}

#[test]
fn what_differs_from_redis_is_said() {
    let long = "k".repeat(70_000);
    let refusal = "-ERR key of 70000 bytes is longer than the limit of 61440 bytes; use a shorter key";
    let lines = [
        format!("set {long} 1"),
        format!("mset a 1 {long} 2"),
        format!("msetnx a 1 {long} 2"),
        format!("append {long} x"),
        format!("incr {long}"),
        format!("incrbyfloat {long} 1"),
        format!("setbit {long} 0 1"),
        format!("bitfield {long} set u8 0 1"),
        format!("bitop or {long} b"),
        format!("rename b {long}"),
        format!("renamenx b {long}"),
        format!("copy b {long}"),
        format!("getset {long} 1"),
        format!("setnx {long} 1"),
        format!("sort nokey store {long}"),
        format!("set {long} 1 get"),
    ];
    let mut table = vec![("set b 1", "OK")];
    table.extend(lines.iter().map(|line| (line.as_str(), refusal)));
    table.extend([
        ("dbsize", ":1"),
        ("get b", "\"1\""),
        (
            "copy b c db 1",
            "-ERR COPY to another DB is not supported; leave out the DB option to copy within this one",
        ),
        ("copy b c db x", "-ERR value is not an integer or out of range"),
        ("bitfield b set u8 4294967295 1", "-ERR bit offset is not an integer or out of range"),
        ("get b", "\"1\""),
    ]);
    check_ours(&table);
}
