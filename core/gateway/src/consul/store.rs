//! The script on a store with its engine: transactions against a model, and events.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use kernel::{Index, Micros};
use proptest::prelude::*;
use script::LuaEngine;
use storage::apply::{Effects, Machinery, apply_command};
use storage::{Registry, Store};

use super::access::{Access, Rules};
use super::event::EVENTS_MAX;
use super::json::Json;
use super::kv::{self, Reply, Task};
use super::{Method, Request, Response};

/// Replies as values; lists that are not complete yet wait in `open`.
#[derive(Default)]
struct Collector {
    open: Vec<(usize, Vec<Reply>)>,
    done: Option<Reply>,
}

impl Collector {
    fn push(&mut self, mut reply: Reply) {
        while let Some((left, list)) = self.open.last_mut() {
            list.push(reply);
            *left -= 1;
            if *left > 0 {
                return;
            }
            reply = Reply::List(self.open.pop().expect("it was there").1);
        }
        self.done = Some(reply);
    }
}

impl storage::Reply for Collector {
    fn raw(&mut self, _: &[u8]) {
        unreachable!("a script answers in values");
    }
    fn simple(&mut self, text: &str) {
        self.push(Reply::Bytes(text.as_bytes().to_vec()));
    }
    fn error(&mut self, text: &str) {
        self.push(Reply::Error(text.to_string()));
    }
    fn int(&mut self, value: i64) {
        self.push(Reply::Int(value));
    }
    fn bulk(&mut self, bytes: &[u8]) {
        self.push(Reply::Bytes(bytes.to_vec()));
    }
    fn null(&mut self) {
        self.push(Reply::Nil);
    }
    fn null_array(&mut self) {
        self.push(Reply::Nil);
    }
    fn array(&mut self, len: usize) {
        if len == 0 { self.push(Reply::List(Vec::new())) } else { self.open.push((len, Vec::new())) }
    }
    fn map(&mut self, len: usize) {
        self.array(2 * len);
    }
    fn set(&mut self, len: usize) {
        self.array(len);
    }
    fn double(&mut self, _: f64) {
        unreachable!("no reply of RESP2 is a fraction or a truth");
    }
    fn boolean(&mut self, _: bool) {
        unreachable!("no reply of RESP2 is a fraction or a truth");
    }
    fn resp3(&self) -> bool {
        false
    }
}

/// The keyspace of the keys.
struct Keys {
    store: Store,
    engine: LuaEngine,
    effects: Effects,
    registry: Registry,
    index: u64,
}

impl Keys {
    fn new() -> Keys {
        Keys {
            store: Store::new(7),
            engine: LuaEngine::new(),
            effects: Effects::default(),
            registry: Registry::new(),
            index: 0,
        }
    }

    fn command(&mut self, words: &[&[u8]]) -> Reply {
        self.index += 1;
        let index = Index(self.index);
        self.store.begin_entry(index, Micros(1_700_000_000_000_000 + self.index * 1000));
        let (command, args) = self.registry.resolve(words[0], &words[1..]).expect("the command exists");
        let mut reply = Collector::default();
        let mut machinery =
            Machinery { registry: &self.registry, scripting: &mut self.engine, effects: &mut self.effects };
        apply_command(&mut self.store, &mut machinery, (index, 0), command, args, &mut reply);
        self.store.end_entry();
        reply.done.expect("it is answered")
    }

    fn run(&mut self, task: &Task) -> Reply {
        let name: &[u8] = if task.writes { b"eval" } else { b"eval_ro" };
        let mut words: Vec<&[u8]> = vec![name, kv::SCRIPT.as_bytes(), b"1", kv::PLACE.as_bytes()];
        words.extend(task.arguments.iter().map(Vec::as_slice));
        self.command(&words)
    }

    /// What a request is answered.
    fn ask(&mut self, method: Method, target: &str, body: &str) -> Response {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Request { method, path, query, body: body.as_bytes() };
        let number = u8::try_from(self.index % 256).unwrap();
        match kv::plan(&request, "n1", "dc1", [number; 16]) {
            Ok(task) => {
                let reply = self.run(&task);
                task.answer(&reply)
            }
            Err(response) => response,
        }
    }

    /// Everything: keys with all that is known of them, their order, the indexes, who has which locks.
    fn all(&mut self, sessions: &[String]) -> Vec<Reply> {
        let mut all = vec![self.run(&kv::poll()), self.command(&[b"get", b"{consul}:gone"])];
        all.push(self.command(&[b"zrange", b"{consul}:keys", b"0", b"-1"]));
        for key in KEYS {
            all.push(self.command(&[b"hgetall", format!("{{consul}}:k:{key}").as_bytes()]));
        }
        for session in sessions {
            let Reply::List(mut keys) =
                self.command(&[b"smembers", format!("{{consul}}:locks:{session}").as_bytes()])
            else {
                panic!("a set")
            };
            keys.sort_by_key(|key| format!("{key:?}"));
            all.push(Reply::List(keys));
        }
        all
    }

    fn session(&mut self) -> String {
        let body = r#"{"LockDelay":"0s"}"#;
        let response = self.ask(Method::Put, "/v1/session/create", body);
        json(&response).exactly("ID").and_then(Json::text).unwrap().to_string()
    }
}

const KEYS: [&str; 4] = ["a", "a/1", "a/2", "b"];

fn json(response: &Response) -> Json {
    Json::parse(&response.body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&response.body)))
}

fn said(response: &Response) -> (u16, String) {
    (response.code, String::from_utf8(response.body.clone()).unwrap())
}

#[test]
fn a_transaction_is_answered_as_consul_answers_it() {
    let mut keys = Keys::new();
    let absent = r#"{"Results":null,"Errors":[{"OpIndex":1,"What":"key \"b\" doesn't exist"}]}"#;
    let set = r#"{"KV":{"Verb":"set","Key":"a","Value":"aGk=","Flags":7}}"#;
    let row = |body: &str| format!("[{body}]");
    #[rustfmt::skip] // columns
    let table = [
        ("[]".to_string(), 200, r#"{"Results":[],"Errors":null}"#),
        (row(&format!(r#"{set},{{"KV":{{"Verb":"get","Key":"b"}}}}"#)), 409, absent),
        (row(&format!(r#"{set},{{"KV":{{"Verb":"get","Key":"a"}}}}"#)), 200,
            r#"{"Results":[{"KV":{"LockIndex":0,"Key":"a","Flags":7,"Value":null,"CreateIndex":2,"ModifyIndex":2}},{"KV":{"LockIndex":0,"Key":"a","Flags":7,"Value":"aGk=","CreateIndex":2,"ModifyIndex":2}}],"Errors":null}"#),
        (row(r#"{"KV":{"Verb":"check-index","Key":"a","Index":9}}"#), 409,
            r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"failed index check for key \"a\", current modify index 2 != 9"}]}"#),
        (row(r#"{"KV":{"Verb":"lock","Key":"a","Session":"x"}}"#), 409,
            r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"invalid session \"x\""}]}"#),
        (row(r#"{"KV":{"Verb":"cas","Key":"a","Index":1}},{"KV":{"Verb":"delete-cas","Key":"a","Index":1}},{"KV":{"Verb":"unlock","Key":"a","Session":"x"}}"#), 409,
            r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"failed to set key \"a\", index is stale"},{"OpIndex":1,"What":"failed to delete key \"a\", index is stale"},{"OpIndex":2,"What":"failed to unlock key \"a\", lock isn't held, or is held by another session"}]}"#),
        (row(r#"{"KV":{"Verb":"check-not-exists","Key":"a"}},{"KV":{"Verb":"check-session","Key":"a","Session":"x"}},{"KV":{"Verb":"check-session","Key":"no","Session":"x"}}"#), 409,
            r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"key \"a\" exists"},{"OpIndex":1,"What":"failed session check for key \"a\", current session \"\" != \"x\""},{"OpIndex":2,"What":"failed to check session, key \"no\" doesn't exist"}]}"#),
        (row(r#"{"KV":{"Verb":"raise","Key":"a"}},{"KV":{"Verb":"get"}}"#), 409,
            r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"unknown KV verb \"raise\""},{"OpIndex":1,"What":"Must provide key"}]}"#),
        (row(r#"{"KV":{"Verb":"get-or-empty","Key":"no"}},{"KV":{"Verb":"check-not-exists","Key":"no"}}"#), 200,
            r#"{"Results":[{"KV":{"LockIndex":0,"Key":"no","Flags":0,"Value":null,"CreateIndex":0,"ModifyIndex":0}}],"Errors":null}"#),
        (row(r#"{"KV":{"Verb":"delete-tree","Key":""}},{"KV":{"Verb":"get-tree","Key":""}}"#), 200, r#"{"Results":[],"Errors":null}"#),
    ];
    for (body, code, expected) in table {
        // The last of them is of no key, which is the registry's to answer.
        if body == "[]" {
            assert!(!kv::is_for_store("/v1/txn", body.as_bytes()));
            continue;
        }
        assert!(kv::is_for_store("/v1/txn", body.as_bytes()));
        assert_eq!(said(&keys.ask(Method::Put, "/v1/txn", &body)), (code, expected.to_string()), "{body}");
    }
}

#[test]
fn what_is_no_transaction_is_refused() {
    let mut keys = Keys::new();
    let many =
        format!("[{}]", vec![r#"{"KV":{"Verb":"get","Key":"a"}}"#; super::OPERATIONS_MAX + 1].join(","));
    #[rustfmt::skip] // columns
    let table = [
        (Method::Get, "[]",                                                    405),
        (Method::Put, "{}",                                                    400),
        (Method::Put, "[1]",                                                   400),
        (Method::Put, "[{}]",                                                  400),
        (Method::Put, r#"[{"KV":{},"Node":{}}]"#,                              400),
        (Method::Put, r#"[{"KV":{}},{"Service":{}}]"#,                         501),
        (Method::Put, r#"[{"KV":{}},{"Session":{}}]"#,                         501),
        (Method::Put, r#"[{"KV":{"Verb":"set","Key":"a","Value":"a"}}]"#,      400),
        (Method::Put, r#"[{"KV":{"Verb":"set","Key":"a","Value":"a==="}}]"#,   400),
        (Method::Put, r#"[{"KV":{"Verb":"set","Key":"a","Value":"a=b="}}]"#,   400),
        (Method::Put, r#"[{"KV":{"Verb":"set","Key":"a","Index":-1}}]"#,       400),
        (Method::Put, many.as_str(),                                           413),
    ];
    for (method, body, code) in table {
        assert_eq!(keys.ask(method, "/v1/txn", body).code, code, "{body}");
    }
}

#[test]
fn a_transaction_that_changes_too_many_keys_is_taken_back() {
    let mut keys = Keys::new();
    for key in KEYS {
        assert_eq!(keys.ask(Method::Put, &format!("/v1/kv/{key}"), "v").code, 200);
    }
    let before = keys.all(&[]);
    let words = ["txn", "3", "delete-tree", "", "", "0", "0", ""];
    let task = Task::of_transaction(true, words.iter().map(|word| word.as_bytes().to_vec()).collect());
    let reply = keys.run(&task);
    assert_eq!(task.answer(&reply).code, 409);
    assert_eq!(keys.all(&[]), before);
}

#[test]
fn a_transaction_that_keeps_too_much_is_taken_back() {
    let mut keys = Keys::new();
    let large = "v".repeat(512 * 1024);
    for number in 0..130 {
        assert_eq!(keys.ask(Method::Put, &format!("/v1/kv/big/{number}"), &large).code, 200);
    }
    let before = keys.all(&[]);
    for verb in ["delete-tree", "get-tree"] {
        let set = r#"{"KV":{"Verb":"set","Key":"a","Value":"aGk="}}"#;
        let body = format!(r#"[{set},{{"KV":{{"Verb":"{verb}","Key":"big/"}}}},{set}]"#);
        let response = keys.ask(Method::Put, "/v1/txn", &body);
        assert_eq!(response.code, 409, "{verb}");
        assert!(keys.all(&[]) == before, "{verb} left something");
    }
}

#[test]
fn the_last_events_are_listed_and_their_index_does_not_fall() {
    let mut keys = Keys::new();
    let fire = |keys: &mut Keys, name: &str, payload: &str| {
        let response = keys.ask(Method::Put, &format!("/v1/event/fire/{name}"), payload);
        assert_eq!(response.code, 200);
        json(&response).exactly("ID").and_then(Json::text).unwrap().to_string()
    };
    let list = |keys: &mut Keys, name: &str| {
        let response = keys.ask(Method::Get, &format!("/v1/event/list?name={name}"), "");
        let Json::List(list) = json(&response) else { panic!("a list") };
        (list, response.index.unwrap())
    };
    assert_eq!(list(&mut keys, ""), (Vec::new(), 1));
    let id = fire(&mut keys, "deploy", "hi");
    let (told, deployed) = list(&mut keys, "deploy");
    assert_eq!(told[0].exactly("ID").and_then(Json::text), Some(id.as_str()));
    assert_eq!(told[0].exactly("Payload"), Some(&"aGk=".into()));
    fire(&mut keys, "other", "");
    assert_eq!(list(&mut keys, "deploy").1, deployed, "another event is none of this name");
    assert!(list(&mut keys, "").1 > deployed);
    let (mut last, mut counts) = (deployed, vec![1]);
    for _ in 0..EVENTS_MAX {
        fire(&mut keys, "other", "");
        let (told, index) = list(&mut keys, "deploy");
        assert!(index >= last, "an index fell");
        (last, counts) = (index, [counts, vec![told.len()]].concat());
    }
    assert_eq!(counts.last(), Some(&0), "the oldest went first");
    assert_eq!(list(&mut keys, "").0.len(), EVENTS_MAX);
    for (method, target, body, code) in [
        (Method::Put, "/v1/event/fire/", "", 400),
        (Method::Get, "/v1/event/fire/a", "", 405),
        (Method::Put, "/v1/event/list", "", 405),
        (Method::Put, "/v1/event/fire/a?node=n1", "", 501),
        (Method::Put, "/v1/event/fire/a", &"x".repeat(513), 413),
        (Method::Get, "/v1/event/what", "", 404),
    ] {
        assert_eq!(keys.ask(method, target, body).code, code, "{target}");
    }
}

/// A key as the model has it.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    value: u8,
    modified: u64,
    locked: u64,
    holder: Option<usize>,
}

/// An operation: verb, key, value, by which index it goes (0, what was there before, or another), session.
type Drawn = (usize, usize, u8, u8, usize);

const VERBS: [&str; 12] = [
    "set",
    "cas",
    "lock",
    "unlock",
    "delete",
    "delete-cas",
    "delete-tree",
    "get",
    "get-tree",
    "check-index",
    "check-session",
    "check-not-exists",
];

/// What an operation does to the model; false if it does not hold.
fn modelled(model: &mut BTreeMap<String, Known>, next: u64, drawn: Drawn, index: u64) -> bool {
    let (verb, key, value, _, session) = drawn;
    let (verb, key) = (VERBS[verb], KEYS[key]);
    let old = model.get(key).cloned();
    let fresh = |locked, holder| Known { value, modified: next, locked, holder };
    let (locked, holder) = old.as_ref().map_or((0, None), |old| (old.locked, old.holder));
    let at = old.as_ref().map_or(0, |old| old.modified);
    match verb {
        "set" => drop(model.insert(key.into(), fresh(locked, holder))),
        "cas" if at == index => drop(model.insert(key.into(), fresh(locked, holder))),
        "lock" if holder.is_none() => drop(model.insert(key.into(), fresh(locked + 1, Some(session)))),
        "lock" if holder == Some(session) => drop(model.insert(key.into(), fresh(locked, holder))),
        "unlock" if holder == Some(session) => drop(model.insert(key.into(), fresh(locked, None))),
        "delete" => drop(model.remove(key)),
        "delete-cas" if old.is_none() || at == index => drop(model.remove(key)),
        "delete-tree" => model.retain(|name, _| !name.starts_with(key)),
        "get" if old.is_some() => {}
        "get-tree" => {}
        "check-index" if old.is_some() && at == index => {}
        "check-session" if old.is_some() && holder == Some(session) => {}
        "check-not-exists" if old.is_none() => {}
        _ => return false,
    }
    true
}

fn written(drawn: Drawn, index: u64, sessions: &[String]) -> String {
    let (verb, key, value, _, session) = drawn;
    let value = kv::base64(&[value]);
    let (verb, key, session) = (VERBS[verb], KEYS[key], &sessions[session]);
    format!(
        r#"{{"KV":{{"Verb":"{verb}","Key":"{key}","Value":"{value}","Index":{index},"Session":"{session}"}}}}"#
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_transaction_is_done_whole_or_not_at_all(
        transactions in proptest::collection::vec(
            proptest::collection::vec((0..VERBS.len(), 0..KEYS.len(), any::<u8>(), 0..3_u8, 0..2_usize), 1..6),
            1..12,
        )
    ) {
        let mut keys = Keys::new();
        let sessions = [keys.session(), keys.session()];
        let mut model: BTreeMap<String, Known> = BTreeMap::new();
        for transaction in transactions {
            let before = keys.all(&sessions);
            let next = kv::polled(&before[0]).unwrap().0 + 1;
            let (mut after, mut holds, mut body) = (model.clone(), true, Vec::new());
            for drawn in transaction {
                let index = match drawn.3 {
                    0 => 0,
                    1 => after.get(KEYS[drawn.1]).map_or(0, |old| old.modified),
                    _ => 1_000_000,
                };
                body.push(written(drawn, index, &sessions));
                holds &= modelled(&mut after, next, drawn, index);
            }
            let body = format!("[{}]", body.join(","));
            let response = keys.ask(Method::Put, "/v1/txn", &body);
            prop_assert_eq!(response.code, if holds { 200 } else { 409 }, "{}: {:?}", body, said(&response));
            if !holds {
                prop_assert_eq!(keys.all(&sessions), before, "{}", body);
                continue;
            }
            model = after;
            let response = keys.ask(Method::Get, "/v1/kv/?recurse", "");
            let list = if response.code == 404 { Json::List(Vec::new()) } else { json(&response) };
            let Json::List(list) = list else { panic!("a list") };
            let told: Vec<_> = list.iter().map(|it| (
                it.exactly("Key").and_then(Json::text).unwrap().to_string(),
                it.exactly("Value").and_then(Json::text).unwrap().to_string(),
                it.exactly("ModifyIndex").unwrap().clone(),
                it.exactly("LockIndex").unwrap().clone(),
                it.exactly("Session").and_then(Json::text).map(String::from),
            )).collect();
            let expected: Vec<_> = model.iter().map(|(key, it)| (
                key.clone(),
                kv::base64(&[it.value]),
                it.modified.into(),
                it.locked.into(),
                it.holder.map(|at| sessions[at].clone()),
            )).collect();
            prop_assert_eq!(told, expected, "{}", body);
            for (at, session) in sessions.iter().enumerate() {
                let held = keys.command(&[b"scard", format!("{{consul}}:locks:{session}").as_bytes()]);
                let count = model.values().filter(|it| it.holder == Some(at)).count();
                prop_assert_eq!(held, Reply::Int(i64::try_from(count).unwrap()), "{}", body);
            }
        }
    }
}

#[test]
fn of_keys_that_are_listed_a_token_has_those_that_it_may_read() {
    let mut keys = Keys::new();
    for key in ["a/1", "a/2", "a/s/3", "b/1"] {
        assert_eq!(keys.ask(Method::Put, &format!("/v1/kv/{key}"), "v").code, 200);
    }
    let rules = Rules::all(Access::None).with("a/", Access::Write).with("a/s/", Access::None);
    let tree = r#"[{"KV":{"Verb":"get-tree","Key":""}},{"KV":{"Verb":"set","Key":"a/1","Value":"dg=="}}]"#;
    #[rustfmt::skip] // columns
    let table = [
        (Method::Get, "/v1/kv/?recurse",              "",   ["a/1", "a/2"].as_slice()),
        (Method::Get, "/v1/kv/a/?recurse",            "",   &["a/1", "a/2"]),
        (Method::Get, "/v1/kv/?keys",                 "",   &["a/1", "a/2"]),
        (Method::Get, "/v1/kv/b/?keys",               "",   &[]),
        (Method::Get, "/v1/kv/b?recurse",             "",   &[]),
        (Method::Get, "/v1/kv/a/1",                   "",   &["a/1"]),
        (Method::Get, "/v1/kv/b/1",                   "",   &[]),
        (Method::Put, "/v1/txn",                      tree, &["a/1", "a/2"]),
    ];
    for (method, target, body, expected) in table {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Request { method, path, query, body: body.as_bytes() };
        let task = kv::plan(&request, "n1", "dc1", [7; 16]).unwrap();
        let reply = keys.run(&task);
        let response = task.answer(&task.seen_by(reply.clone(), &rules));
        let text = String::from_utf8(response.body).unwrap();
        assert_eq!(response.code, if expected.is_empty() { 404 } else { 200 }, "{target}: {text}");
        for key in ["a/1", "a/2", "a/s/3", "b/1"] {
            let is_seen = text.contains(&format!("\"{key}\""));
            assert_eq!(is_seen, expected.contains(&key), "{target}: {text}");
        }
        // Whoever may read all sees what there is.
        assert_eq!(task.seen_by(reply.clone(), &Rules::all(Access::Read)), reply, "{target}");
    }
}
