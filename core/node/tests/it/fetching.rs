//! Bodies that are in the engine only: who waits for them, who does not, and what is said when they cannot
//! be read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use node::Fetch;
use node::fetching::FETCHES_MAX;
use storage::store::checkpoint::Image;

use crate::harness::{ALONE, Client, Node, SHAPE, Shape};

/// The client at one worker, its keyspaces at another.
const APART: Shape = Shape { workers: 2, owner: |_| 1, partitions: |_| 1, client: |_| 0 };

/// Longer than what stays in memory in any case.
const LONG: usize = 100;

/// What the last checkpoint has, and how often it was read while the worker waited.
#[derive(Clone, Default)]
struct Engine(Arc<(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>, AtomicUsize)>);

impl storage::Fetch for Engine {
    fn fetch(&self, _: u32, key: &[u8]) -> Result<Vec<u8>, String> {
        self.0.1.fetch_add(1, Ordering::Relaxed);
        self.read(key)
    }
}

impl Engine {
    fn read(&self, key: &[u8]) -> Result<Vec<u8>, String> {
        self.0
            .0
            .lock()
            .expect("no test panics with it")
            .get(key)
            .cloned()
            .ok_or_else(|| "it is not there".into())
    }

    fn waited(&self) -> usize {
        self.0.1.load(Ordering::Relaxed)
    }
}

struct Cold {
    node: Node,
    client: Client,
    engine: Engine,
}

fn value(letter: char) -> String {
    letter.to_string().repeat(LONG)
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

impl Cold {
    /// A node that ran `commands`, and has left what it could to the engine.
    fn after(commands: &[&str]) -> Cold {
        let mut node = Node::new();
        let client = node.client();
        for command in commands {
            let answer = node.ask(client, command);
            assert!(!answer.starts_with('-'), "{command}: {answer}");
        }
        let mut cold = Cold { node, client, engine: Engine::default() };
        cold.node.owner().partitions_mut()[0].store_mut().set_fetch(Box::new(cold.engine.clone()));
        cold.freeze();
        cold
    }

    /// Makes a checkpoint and evicts all it can.
    fn freeze(&mut self) {
        let store = self.node.owner().partitions_mut()[0].store_mut();
        store.begin_cut();
        let (_, images) = store.write_cut(usize::MAX).expect("nothing undoes it");
        let mut kept = self.engine.0.0.lock().expect("no test panics with it");
        for image in images.iter() {
            match image {
                Image::Put { key, body, .. } => _ = kept.insert(key.to_vec(), body.to_vec()),
                Image::Delete { key } => _ = kept.remove(key),
            }
        }
        store.cut_is_durable();
        while store.evict_bodies(usize::MAX, 100) > 0 {}
    }

    fn asked(&mut self) -> Vec<Fetch> {
        let mut fetches = Vec::new();
        self.node.owner().take_fetches(&mut fetches);
        fetches
    }

    /// Answers what was asked, or refuses to.
    fn bring(&mut self, fetches: Vec<Fetch>, readable: bool) {
        for fetch in fetches {
            let body = if readable { self.engine.read(&fetch.key) } else { Err("it is torn".into()) };
            let fetched = fetch.answer(body.as_deref().map_err(Clone::clone));
            self.node.owner().fetched([fetched]);
        }
        self.node.settle();
    }

    /// Sends a command, brings every body it asks for, and says how many that were and what was answered.
    fn ask(&mut self, command: &str) -> (usize, String) {
        self.node.feed(self.client, &format!("{command}\r\n"));
        self.node.settle();
        let mut count = 0;
        loop {
            let fetches = self.asked();
            if fetches.is_empty() {
                return (count, self.node.read(self.client));
            }
            count += fetches.len();
            self.bring(fetches, true);
        }
    }
}

/// Runs a test with everything on one worker, and with the keyspaces at another than the clients.
fn everywhere(test: fn()) {
    for shape in [ALONE, APART] {
        SHAPE.set(shape);
        test();
    }
    SHAPE.set(ALONE);
}

#[test]
fn a_command_asks_for_what_it_looks_at_and_waits_for_nothing_else() {
    everywhere(|| {
        let (a, b) = (value('a'), value('b'));
        let (strings, list) = (format!("MSET a {a} b {b} small 1"), format!("RPUSH l {a} {b}"));
        #[rustfmt::skip] // columns
        let table = [
            ("GET a",               1, bulk(&a)),
            ("GET small",           0, bulk("1")),
            ("GET none",            0, "$-1\r\n".into()),
            ("MGET a none b a",     2, format!("*4\r\n{}$-1\r\n{}{}", bulk(&a), bulk(&b), bulk(&a))),
            ("STRLEN a",            1, format!(":{LONG}\r\n")),
            ("APPEND a x",          1, format!(":{}\r\n", LONG + 1)),
            ("LRANGE l 0 0",        1, format!("*1\r\n{}", bulk(&a))),
            ("LPOP l",              1, bulk(&a)),
            ("LMOVE l l LEFT RIGHT",1, bulk(&a)),
            ("GETDEL a",            1, bulk(&a)),
            ("SET a 1 GET",         1, bulk(&a)),
            ("RENAME a c",          1, "+OK\r\n".into()),
            ("COPY a c",            1, ":1\r\n".into()),
            ("LPUSH a 1",           1, "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n".into()),
            ("EXPIRE a 100",        1, ":1\r\n".into()),
            ("BLPOP l 0",           1, format!("*2\r\n{}{}", bulk("l"), bulk(&a))),
            ("EVAL x 2 a b c",      2, ":1\r\n".into()),
            ("SET a 1",             0, "+OK\r\n".into()),
            ("SETNX a 1",           0, ":0\r\n".into()),
            ("MSET a 1 b 2",        0, "+OK\r\n".into()),
            ("DEL a b l",           0, ":3\r\n".into()),
            ("EXISTS a b",          0, ":2\r\n".into()),
            ("TYPE l",              0, "+list\r\n".into()),
            ("TTL a",               0, ":-1\r\n".into()),
            ("OBJECT IDLETIME a",   0, ":0\r\n".into()),
            ("FLUSHDB",             0, "+OK\r\n".into()),
            // A pipeline's bodies are read together: those of its first command in any case.
            ("MULTI\r\nAPPEND a x\r\nGET b\r\nEXEC", 2,
             format!("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:{}\r\n{}", LONG + 1, bulk(&b))),
            ("MULTI\r\nGET a\r\nEXEC", 1, format!("+OK\r\n+QUEUED\r\n*1\r\n{}", bulk(&a))),
        ];
        for (command, fetches, answer) in table {
            let mut cold = Cold::after(&[&strings, &list]);
            assert_eq!(cold.ask(command), (fetches, answer), "{command}");
            assert_eq!(cold.engine.waited(), 0, "{command}: the worker waited");
        }
    });
}

#[test]
fn who_waits_for_a_body_keeps_order_and_holds_nobody_else() {
    everywhere(|| {
        let a = value('a');
        let mut cold = Cold::after(&[&format!("MSET a {a} hot 1")]);
        let other = cold.node.client();
        let early = cold.node.ask(cold.client, "GET hot\r\nGET a\r\nSET hot 2\r\nGET hot");
        assert_eq!(early, bulk("1"), "what is before it is answered");
        assert_eq!(cold.node.ask(other, "GET hot"), bulk("1"), "what is behind it has not run");
        assert_eq!(cold.node.ask(other, "SET hot 3"), "+OK\r\n", "others go on");
        let fetches = cold.asked();
        assert_eq!(fetches.len(), 1);
        cold.bring(fetches, true);
        assert_eq!(cold.node.read(cold.client), format!("{}+OK\r\n{}", bulk(&a), bulk("2")));
    });
}

#[test]
fn the_bodies_of_a_pipeline_are_read_together() {
    let (a, b) = (value('a'), value('b'));
    let mut cold = Cold::after(&[&format!("MSET a {a} b {b} c {a}")]);
    let get = |key: &str| format!("*2\r\n$3\r\nGET\r\n$1\r\n{key}\r\n");
    let set = "*3\r\n$3\r\nSET\r\n$1\r\nc\r\n$1\r\n1\r\n";
    cold.node.feed(cold.client, &[get("a"), set.into(), get("b")].concat());
    let fetches = cold.asked();
    let keys: Vec<&[u8]> = fetches.iter().map(|fetch| &*fetch.key).collect();
    assert_eq!(keys, [b"a", b"b"], "both that are looked at, in one turn");
    cold.bring(fetches, true);
    assert_eq!(cold.node.read(cold.client), format!("{}+OK\r\n{}", bulk(&a), bulk(&b)));
    assert!(cold.asked().is_empty());
}

#[test]
fn a_body_is_read_once_for_all_who_wait_and_never_over_a_newer_value() {
    everywhere(|| {
        let (a, b) = (value('a'), value('b'));
        let mut cold = Cold::after(&[&format!("SET a {a}")]);
        let (second, writer) = (cold.node.client(), cold.node.client());
        assert_eq!(cold.node.ask(cold.client, "GET a"), "");
        assert_eq!(cold.node.ask(second, "GET a"), "");
        let fetches = cold.asked();
        assert_eq!(fetches.len(), 1);
        assert_eq!(cold.node.ask(writer, &format!("SET a {b}")), "+OK\r\n");
        // It leaves again before the old body comes.
        cold.freeze();
        let late = fetches.into_iter().map(|fetch| fetch.answer(Err("it was replaced".into())));
        let late: Vec<_> = late.collect();
        cold.node.owner().fetched(late);
        cold.node.settle();
        let again = cold.asked();
        assert_eq!(again.len(), 1, "the new one is read");
        cold.bring(again, true);
        assert_eq!([cold.client, second].map(|client| cold.node.read(client)), [bulk(&b), bulk(&b)]);
    });
}

#[test]
fn a_body_that_cannot_be_read_is_the_answer_of_its_command_alone() {
    everywhere(|| {
        let unreadable = "-MISCONF the value of 'a' cannot be read back from disk: it is torn\r\n";
        let a = value('a');
        #[rustfmt::skip] // columns
        let table = [
            ("GET a",                       unreadable.to_owned()),
            ("MGET hot a",                  format!("*2\r\n{}{unreadable}", bulk("1"))),
            ("APPEND a x",                  unreadable.to_owned()),
            ("MULTI\r\nGET hot\r\nGET a\r\nEXEC", format!("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n{}{unreadable}", bulk("1"))),
            ("MULTI\r\nSET hot 5\r\nGET a\r\nEXEC", format!("+OK\r\n+QUEUED\r\n+QUEUED\r\n{unreadable}")),
        ];
        for (command, answer) in table {
            let mut cold = Cold::after(&[&format!("MSET a {a} hot 1")]);
            let logged = cold.node.log.entries.len();
            cold.node.feed(cold.client, &format!("{command}\r\nGET hot\r\n"));
            cold.node.settle();
            let fetches = cold.asked();
            cold.bring(fetches, false);
            assert_eq!(cold.node.read(cold.client), format!("{answer}{}", bulk("1")), "{command}");
            assert_eq!(cold.node.log.entries.len(), logged, "{command}: nothing is logged");
            assert_eq!(cold.engine.waited(), 0, "{command}: it is not tried again at once");
            assert_eq!(cold.ask("GET a"), (1, bulk(&a)), "{command}: the next command tries again");
        }
    });
}

#[test]
fn a_watch_is_judged_when_exec_runs_and_not_when_it_waits() {
    everywhere(|| {
        let mut cold = Cold::after(&[&format!("SET a {}", value('a'))]);
        let other = cold.node.client();
        let queued = cold.node.ask(cold.client, "WATCH a\r\nMULTI\r\nAPPEND a x\r\nEXEC");
        assert_eq!(queued, "+OK\r\n+OK\r\n+QUEUED\r\n");
        assert_eq!(cold.node.ask(other, "SET a 1"), "+OK\r\n");
        let fetches = cold.asked();
        cold.bring(fetches, true);
        assert_eq!(cold.node.read(cold.client), "*-1\r\n");
    });
}

#[test]
fn more_bodies_than_may_be_on_their_way_come_one_after_another() {
    everywhere(|| {
        let count = FETCHES_MAX + 200;
        let names: Vec<String> = (0..count).map(|n| format!("key{n}")).collect();
        let pairs: Vec<String> = names.iter().map(|name| format!("{name} {}", value('v'))).collect();
        let sets: Vec<String> = pairs.chunks(100).map(|some| format!("MSET {}", some.join(" "))).collect();
        let mut cold = Cold::after(&sets.iter().map(String::as_str).collect::<Vec<_>>());
        let (names, other) = (names.join(" "), cold.node.client());
        cold.node.feed(cold.client, &format!("MGET {names}\r\n"));
        cold.node.settle();
        let first = cold.asked();
        assert_eq!(first.len(), FETCHES_MAX);
        assert_eq!(cold.node.ask(other, "GET key1100"), "", "there is no room for one more");
        cold.bring(first, true);
        let rest = cold.asked();
        assert_eq!(rest.len(), 200);
        cold.bring(rest, true);
        let all = format!("*{count}\r\n{}", bulk(&value('v')).repeat(count));
        assert_eq!(cold.node.read(cold.client), all);
        assert_eq!(cold.node.read(other), bulk(&value('v')));
        assert_eq!(cold.engine.waited(), 0);
    });
}

#[test]
fn a_client_that_leaves_takes_nothing_with_it() {
    everywhere(|| {
        let a = value('a');
        let mut cold = Cold::after(&[&format!("SET a {a}")]);
        let other = cold.node.client();
        cold.node.feed(cold.client, "GET a\r\n");
        cold.node.settle();
        assert_eq!(cold.node.ask(other, "GET a"), "");
        let id = cold.client.0;
        cold.node.of(cold.client).disconnect(id);
        let fetches = cold.asked();
        cold.bring(fetches, true);
        assert_eq!(cold.node.read(other), bulk(&a));
    });
}

#[test]
fn a_body_stays_until_the_write_is_applied_that_needs_it() {
    let a = value('a');
    let mut cold = Cold::after(&[&format!("MSET a {a} b {a}")]);
    // It was not used for an hour: its body does not stay.
    cold.node.pass(3_600_000);
    cold.node.feed(cold.client, "APPEND a x\r\n");
    cold.node.turn();
    for fetch in cold.asked() {
        let body = cold.engine.read(&fetch.key);
        cold.node.owner().fetched([fetch.answer(body.as_deref().map_err(Clone::clone))]);
    }
    // Proposed, and not synced for some turns.
    cold.node.turn();
    cold.node.turn();
    cold.node.settle();
    assert_eq!(cold.node.read(cold.client), format!(":{}\r\n", LONG + 1));
    assert_eq!(cold.engine.waited(), 0);
    assert_eq!(cold.ask("GET b"), (1, bulk(&a)));
    assert_eq!(cold.ask("GET b"), (1, bulk(&a)), "it had not been used for an hour");
    assert_eq!(cold.ask("GET b").0, 0, "it was used lately");
}
