//! Scripts as part of the state: remembered bodies, read-only runs, and the same log on two nodes.

use kernel::codec::Reader;
use storage::store::scripts::{ScriptId, Scripts};

use crate::harness::Node;

const LOCK_RELEASE: &str = "local token = redis.call('get', KEYS[1])\n\
     if not token or token ~= ARGV[1] then\n  return 0\nend\nredis.call('del', KEYS[1])\nreturn 1";
const QUEUE: &str = "local opts = cmsgpack.unpack(ARGV[1])\n\
     local job = cjson.decode(ARGV[2])\nlocal id = (redis.call('GET', KEYS[1]) or 0) + 1\n\
     redis.call('SET', KEYS[1], id)\n\
     redis.call('SET', KEYS[1] .. ':' .. id, cjson.encode({name = opts['name'], data = job.data, at = id}))\n\
     return id .. ''";

#[test]
fn evaluated_and_loaded_scripts_are_found_by_their_name() {
    let mut node = Node::new();
    let id = ScriptId::of(b"return ARGV[1]").to_string();
    let missing = "-NOSCRIPT No matching script. Please use EVAL.";
    assert_eq!(node.run(&[b"evalsha", id.as_bytes(), b"0", b"x"]), missing);
    assert_eq!(node.run(&[b"eval", b"return ARGV[1]", b"0", b"x"]), "\"x\"");
    assert_eq!(node.run(&[b"evalsha", id.to_uppercase().as_bytes(), b"0", b"y"]), "\"y\"");
    assert_eq!(node.run(&[b"script", b"exists", id.as_bytes(), b"nonsense"]), "*2 :1 :0");
    let mut bytes = Vec::new();
    node.store.scripts().encode(&mut bytes);
    let mut restarted = Node::new();
    *restarted.store.scripts_mut() = Scripts::decode(&mut Reader::new(&bytes)).unwrap();
    assert_eq!(restarted.run(&[b"evalsha", id.as_bytes(), b"0", b"z"]), "\"z\"");
    assert_eq!(node.run(&[b"SCRIPT", b"FLUSH"]), "+OK");
    assert_eq!(node.run(&[b"evalsha", id.as_bytes(), b"0", b"x"]), missing);
    assert_eq!(node.run(&[b"script", b"load", b"return ARGV[1]"]), format!("\"{id}\""));
    assert_eq!(node.run(&[b"evalsha_ro", id.as_bytes(), b"0", b"x"]), "\"x\"");
    assert_eq!(node.run(&[b"script", b"kill"]), "-NOTBUSY No scripts in execution right now.");
    assert_eq!(node.run(&[b"script", b"nosuch"]), "-ERR unknown subcommand 'nosuch'. Try SCRIPT HELP.");
}

#[test]
fn a_read_only_script_cannot_write() {
    let mut node = Node::new();
    let refused = "-ERR Write commands are not allowed from read-only scripts.";
    for body in ["return redis.call('set','x',1)", "return redis.call('publish','x',1)"] {
        assert!(node.run(&[b"eval_ro", body.as_bytes(), b"0"]).starts_with(refused));
    }
    let flagged = node.eval("#!lua flags=no-writes\nlocal r = redis.call('set','a',1) return r");
    assert!(flagged.starts_with(refused), "{flagged}");
    assert_eq!(node.eval("#!lua flags=zzz\nreturn 1"), "-ERR Unexpected flag in script shebang: zzz");
    assert_eq!(node.eval("#!py\nreturn 1"), "-ERR Unexpected engine in script shebang: #!py");
    assert!(node.store.is_empty());
}

#[test]
fn wrong_key_counts_are_refused_as_redis_refuses_them() {
    #[rustfmt::skip] // columns
    let table = [
        ("2", "-ERR Number of keys can't be greater than number of args"),
        ("-1", "-ERR Number of keys can't be negative"),
        ("x", "-ERR value is not an integer or out of range"),
    ];
    let mut node = Node::new();
    for (count, expected) in table {
        assert_eq!(node.run(&[b"eval", b"return 1", count.as_bytes(), b"a"]), expected);
    }
}

/// Runs one sequence of scripts: its answers.
fn sequence(node: &mut Node) -> Vec<String> {
    let mut answers = Vec::new();
    for n in 0..20u32 {
        let token = format!("token{n}");
        answers.push(node.run(&[b"set", b"lock", token.as_bytes()]));
        answers.push(node.run(&[b"eval", LOCK_RELEASE.as_bytes(), b"1", b"lock", b"token7"]));
        let options = b"\x81\xa4name\xa4mail";
        answers.push(node.run(&[
            b"eval",
            QUEUE.as_bytes(),
            b"1",
            b"jobs",
            options,
            b"{\"data\": {\"n\": 1}}",
        ]));
        answers.push(node.eval("return {tostring(math.random()), redis.call('time'), tostring({})}"));
        answers.push(node.eval("local t = {} for w in ('a b c d e f g'):gmatch('%w') do t[w] = #t end local r = {} for k in pairs(t) do r[#r+1] = k end return r"));
    }
    answers
}

#[test]
fn the_same_log_gives_the_same_answers_and_state_on_a_used_engine() {
    let (mut one, mut two) = (Node::new(), Node::new());
    let mut other = Node::new();
    for n in 0..100 {
        other.eval(&format!("local t = {{}} for i = 1, 500 do t['k' .. i .. '{n}'] = {{}} end return #t"));
    }
    std::mem::swap(&mut two.engine, &mut other.engine);
    assert_eq!(sequence(&mut one), sequence(&mut two));
    let state = |node: &mut Node| {
        let mut keys = Vec::new();
        assert_eq!(node.store.scan(0, 1000, &mut |key, _| keys.push(key.to_vec())), 0);
        keys.into_iter().map(|key| (node.run(&[b"get", &key]), key)).collect::<Vec<_>>()
    };
    let (first, second) = (state(&mut one), state(&mut two));
    assert_eq!(first, second);
    assert!(first.iter().any(|(body, key)| key == b"jobs:20" && body.contains("mail")), "{first:?}");
}
