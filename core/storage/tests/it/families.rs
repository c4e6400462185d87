//! Random commands on lists, sets and hashes: the same ones give the same replies and state, replay
//! gives that state, too, and no memory is lost count of.

use proptest::prelude::*;
use proptest::strategy::Union;

use crate::harness::{Db, Oracle};

/// What stands in a command line: `K` a key, `E` an element, `F` a number, `N` a count.
const SHAPES: &[&str] = &[
    "lpush K E",
    "rpush K E E E",
    "lpushx K E",
    "rpushx K E E",
    "lpop K",
    "rpop K",
    "lpop K N",
    "rpop K N",
    "llen K",
    "lindex K N",
    "lset K N E",
    "linsert K before E E",
    "linsert K after E E",
    "lrange K N N",
    "lrem K N E",
    "ltrim K N N",
    "lpos K E",
    "lpos K E rank N count N maxlen N",
    "lmove K K left right",
    "lmove K K right left",
    "lmove K K left left",
    "rpoplpush K K",
    "lmpop 2 K K left count N",
    "lmpop 1 K right",
    "blpop K K 0",
    "brpop K 0.5",
    "blmove K K left right 0",
    "brpoplpush K K 1",
    "blmpop 0 2 K K right count N",
    "sadd K E",
    "sadd K E E E F",
    "srem K E E",
    "sismember K E",
    "smismember K E F",
    "smembers K",
    "scard K",
    "spop K",
    "spop K N",
    "srandmember K",
    "srandmember K N",
    "smove K K E",
    "sinter K K",
    "sinterstore K K K",
    "sintercard 2 K K limit N",
    "sunion K K",
    "sunionstore K K K",
    "sdiff K K",
    "sdiffstore K K K",
    "sscan K 0 count 1000",
    "sscan K 0 match a* count 1000",
    "hset K E E",
    "hset K E F E E",
    "hmset K E F",
    "hsetnx K E E",
    "hget K E",
    "hmget K E E",
    "hgetall K",
    "hkeys K",
    "hvals K",
    "hlen K",
    "hexists K E",
    "hdel K E E",
    "hincrby K E N",
    "hincrbyfloat K E F",
    "hstrlen K E",
    "hrandfield K",
    "hrandfield K N",
    "hrandfield K N withvalues",
    "hscan K 0 count 1000",
    "hscan K 0 match a* count 1000",
    "del K",
    "expire K 100",
];

/// Each family has keys of its own most of the time, so that types differ now and then.
const FAMILIES: [&str; 3] = ["l", "s", "h"];

fn line() -> impl Strategy<Value = String> {
    let shape = prop::sample::select(SHAPES);
    let words = (1u8..4, prop::collection::vec((element(), number(), count(), 0u8..40), 8));
    (shape, words).prop_map(|(shape, (home, words))| {
        let family = FAMILIES.iter().find(|family| shape.starts_with(**family)).unwrap_or(&"l");
        let fill = |(word, (element, number, count, stray)): (&str, &(String, String, String, u8))| match word
        {
            "K" => match usize::from(*stray) {
                stray @ 0..3 => format!("{}{home}", FAMILIES[stray]),
                stray => format!("{family}{}", stray % 3),
            },
            "E" => element.clone(),
            "F" => number.clone(),
            "N" => count.clone(),
            word => word.to_owned(),
        };
        shape.split(' ').zip(words.iter().cycle()).map(fill).collect::<Vec<_>>().join(" ")
    })
}

fn element() -> impl Strategy<Value = String> {
    Union::new_weighted(vec![
        (6, "[ab]{1,2}".boxed()),
        (4, "[0-9]".boxed()),
        (1, "x{60,70}".boxed()),
        (1, "-?[0-9]{17,20}".boxed()),
        (1, Just(String::from("\"\"")).boxed()),
    ])
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof!["-?[0-9]{1,3}", "[0-9]\\.[0-9]", Just(String::from("1e3")), Just(String::from("0.1"))]
}

fn count() -> impl Strategy<Value = String> {
    prop_oneof![8 => (-5i64..20).prop_map(|n| n.to_string()), 1 => Just(i64::MAX.to_string()), 1 => Just(String::from("x"))]
}

/// A reply whose order is a hash table's, put in order.
fn in_order(line: &str, reply: &str) -> String {
    if line.starts_with('l') || line.starts_with('b') || line.starts_with("hmget") || line.starts_with("smis")
    {
        return reply.to_owned();
    }
    let mut words: Vec<&str> = reply.split(&['[', ' ', ']'][..]).filter(|word| !word.is_empty()).collect();
    words.sort_unstable();
    words.join(" ")
}

fn is_random(line: &str) -> bool {
    ["spop", "srandmember", "hrandfield"].iter().any(|name| line.starts_with(name))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_same_commands_give_the_same_replies_and_state(lines in prop::collection::vec(line(), 1..120)) {
        let (mut first, mut second, mut oracle) = (Db::new(), Db::new(), Oracle::from_environment());
        for (place, line) in lines.iter().enumerate() {
            // Redis draws other members.
            if oracle.is_some() && is_random(line) {
                continue;
            }
            let reply = first.run(line);
            prop_assert_eq!(&reply, &second.run(line), "{}", line);
            prop_assert_eq!(reply.is_empty(), first.effects.block.is_some(), "{}", line);
            prop_assert_eq!(first.effects.block.take(), second.effects.block.take());
            if let Some(oracle) = oracle.as_mut().filter(|_| !reply.is_empty()) {
                let (ours, theirs) = (in_order(line, &reply), in_order(line, &oracle.run(line)));
                prop_assert_eq!(ours, theirs, "Redis, {} of {:?}", line, &lines[..place]);
            }
        }
        let contents = first.contents();
        prop_assert_eq!(&contents, &second.contents());
        prop_assert_eq!(&contents, &first.replayed().contents());
        for key in FAMILIES.iter().flat_map(|family| (0..4).map(move |n| format!("{family}{n}"))) {
            first.run(&format!("del {key}"));
        }
        prop_assert_eq!(first.store.len(), 0);
        prop_assert_eq!(first.store.memory_bytes(), 0);
    }
}
