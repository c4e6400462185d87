//! The shapes of RESP3 replies: sets, maps and nested pairs instead of flat arrays.

use kernel::{Index, Micros};
use storage::apply::{Machinery, NoScripts, apply_command};
use storage::command::Kind;
use storage::{Effects, Registry, Reply, Store};

use crate::harness::split;

/// Writes a reply's tokens as RESP3 names them, one after another.
#[derive(Default)]
struct Tokens(Vec<String>);

impl Reply for Tokens {
    fn simple(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
    fn error(&mut self, text: &str) {
        self.0.push(format!("-{text}"));
    }
    fn int(&mut self, value: i64) {
        self.0.push(format!(":{value}"));
    }
    fn bulk(&mut self, bytes: &[u8]) {
        self.0.push(bytes.escape_ascii().to_string());
    }
    fn null(&mut self) {
        self.0.push(String::from("_"));
    }
    fn null_array(&mut self) {
        self.0.push(String::from("_*"));
    }
    fn array(&mut self, len: usize) {
        self.0.push(format!("*{len}"));
    }
    fn map(&mut self, len: usize) {
        self.0.push(format!("%{len}"));
    }
    fn set(&mut self, len: usize) {
        self.0.push(format!("~{len}"));
    }
    fn double(&mut self, value: f64) {
        self.0.push(format!(",{value}"));
    }
    fn boolean(&mut self, value: bool) {
        self.0.push(format!("#{value}"));
    }
    fn raw(&mut self, _: &[u8]) {}
    fn resp3(&self) -> bool {
        true
    }
}

/// Runs each row's command line on one new store and compares the tokens of its reply.
fn check(table: &[(&str, &str)]) {
    let (mut store, registry, mut effects) = (Store::new(7), Registry::new(), Effects::default());
    for (place, (line, expected)) in (1u64..).zip(table) {
        let words = split(line);
        let args: Vec<&[u8]> = words[1..].iter().map(Vec::as_slice).collect();
        let command = registry.find(&words[0]).expect("a command of ours");
        let (now, mut tokens) = (Micros(1), Tokens::default());
        match command.kind {
            Kind::Write => store.begin_entry(Index(place), now),
            Kind::Read => store.begin_reads(now),
        }
        let mut machinery =
            Machinery { registry: &registry, scripting: &mut NoScripts, effects: &mut effects };
        apply_command(&mut store, &mut machinery, (Index(place), 0), command, &args, &mut tokens);
        store.end_entry();
        assert_eq!(tokens.0.join(" "), *expected, "{line}");
    }
}

#[test]
fn containers_are_answered_in_their_own_shapes() {
    #[rustfmt::skip] // columns
    check(&[
        ("rpush l a b",              ":2"),
        ("lrange l 0 -1",            "*2 a b"),
        ("lpop none",                "_"),
        ("lpop none 2",              "_*"),
        ("lpop l 1",                 "*1 a"),
        ("lmpop 1 l left count 9",   "*2 l *1 b"),
        ("lmpop 1 l left",           "_*"),
        ("lpos none a",              "_"),
        ("lpos none a count 0",      "*0"),
        ("sadd s 1 2 3",             ":3"),
        ("sadd t 2",                 ":1"),
        ("smembers s",               "~3 1 2 3"),
        ("smembers none",            "~0"),
        ("sismember s 1",            ":1"),
        ("smismember s 1 5",         "*2 :1 :0"),
        ("srandmember s 3",          "*3 1 2 3"),
        ("srandmember none 3",       "*0"),
        ("sinter s t",               "~1 2"),
        ("sinter s none",            "~0"),
        ("sunion s t",               "~3 1 2 3"),
        ("sdiff s t",                "~2 1 3"),
        ("sscan s 0",                "*2 0 *3 1 2 3"),
        ("spop s 3",                 "~3 1 2 3"),
        ("spop s 3",                 "~0"),
        ("spop s",                   "_"),
        ("hset h a 1 b 2",           ":2"),
        ("hgetall h",                "%2 a 1 b 2"),
        ("hgetall none",             "%0"),
        ("hkeys h",                  "*2 a b"),
        ("hvals h",                  "*2 1 2"),
        ("hmget h a x",              "*2 1 _"),
        ("hrandfield h 2",           "*2 a b"),
        ("hrandfield h 2 withvalues", "*2 *2 a 1 *2 b 2"),
        ("hrandfield none 2 withvalues", "*0"),
        ("hscan h 0",                "*2 0 *4 a 1 b 2"),
        ("hincrbyfloat h a 0.5",     "1.5"),
    ]);
}

#[test]
fn scores_are_doubles_beside_their_members() {
    #[rustfmt::skip] // columns
    check(&[
        ("zadd z 1 a 2 b 3 c",       ":3"),
        ("zadd z incr 0.5 a",        ",1.5"),
        ("zadd z nx incr 1 a",       "_"),
        ("zincrby z -0.5 a",         ",1"),
        ("zscore z a",               ",1"),
        ("zscore z none",            "_"),
        ("zmscore z a none",         "*2 ,1 _"),
        ("zrank z none",             "_"),
        ("zrange z 0 1",             "*2 a b"),
        ("zrange z 0 1 withscores",  "*2 *2 a ,1 *2 b ,2"),
        ("zrange none 0 1 withscores", "*0"),
        ("zrevrangebyscore z 2 1 withscores", "*2 *2 b ,2 *2 a ,1"),
        ("zunion 1 z",               "*3 a b c"),
        ("zunion 1 z withscores",    "*3 *2 a ,1 *2 b ,2 *2 c ,3"),
        ("zdiff 2 z none withscores", "*3 *2 a ,1 *2 b ,2 *2 c ,3"),
        ("zrandmember z 3 withscores", "*3 *2 a ,1 *2 b ,2 *2 c ,3"),
        ("zscan z 0",                "*2 0 *6 a 1 b 2 c 3"),
        ("zpopmin z",                "*2 a ,1"),
        ("zpopmax z 1",              "*1 *2 c ,3"),
        ("zpopmax z 0",              "*0"),
        ("zpopmin none 1",           "*0"),
        ("zmpop 1 none min",         "_*"),
        ("zmpop 1 z min",            "*2 z *1 *2 b ,2"),
        ("zadd z 1 a 2 b",           ":2"),
        ("bzpopmin z 0",             "*3 z a ,1"),
        ("bzmpop 0 1 z min",         "*2 z *1 *2 b ,2"),
    ]);
}
