//! Requests and what they are answered.

use alloc::vec;

use kernel::{Micros, NodeId};
use mesh::registry::{Node, Registry};
use proptest::prelude::*;

use super::*;

const NOW: Micros = Micros(1_700_000_000_000_000);

fn agent() -> Agent {
    let node = Node { name: "n1".into(), address: "10.0.0.1".into(), zone: "a".into(), ..Node::default() };
    let registry = Registry::new(NOW, NodeId([1; 32]), 1, 0, node, kernel::Rng::new(1)).unwrap();
    Agent::new(registry, kernel::Rng::new(2))
}

fn about() -> About {
    About {
        datacenter: "dc1".into(),
        version: "1".into(),
        leader: "10.0.0.1:7401".into(),
        peers: vec!["10.0.0.1:7401".into()],
    }
}

fn ask(agent: &mut Agent, method: Method, target: &str, body: &str, waited: bool) -> Answer {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    answer(
        agent,
        &about(),
        NOW,
        &Request { method, path, query, body: body.as_bytes() },
        &Grant::all(),
        waited,
    )
}

fn said(answer: Answer) -> Response {
    match answer {
        Answer::Now(response) => response,
        Answer::Wait { .. } => panic!("it waits"),
    }
}

fn get(agent: &mut Agent, target: &str) -> Response {
    said(ask(agent, Method::Get, target, "", false))
}

fn put(agent: &mut Agent, target: &str, body: &str) -> u16 {
    said(ask(agent, Method::Put, target, body, false)).code
}

fn json(response: &Response) -> Json {
    Json::parse(&response.body).unwrap()
}

/// How many things a list or object has.
fn count(agent: &mut Agent, target: &str) -> usize {
    match json(&get(agent, target)) {
        Json::List(list) => list.len(),
        Json::Object(pairs) => pairs.len(),
        other => panic!("{other:?}"),
    }
}

fn web(agent: &mut Agent) {
    let body = r#"{"Name":"web","ID":"w1","Port":80,"Tags":["v1"],"Check":{"TTL":"10s"}}"#;
    assert_eq!(put(agent, "/v1/agent/service/register", body), 200);
}

#[test]
fn what_is_registered_is_found_when_it_is_well() {
    let mut agent = agent();
    web(&mut agent);
    #[rustfmt::skip] // columns
    let table = [
        ("/v1/agent/services", 1), ("/v1/agent/checks", 1), ("/v1/agent/members", 1), ("/v1/catalog/services", 1),
        ("/v1/catalog/nodes", 1), ("/v1/catalog/datacenters", 1), ("/v1/catalog/service/web", 1),
        ("/v1/catalog/service/web?tag=v1", 1), ("/v1/catalog/service/web?tag=v2", 0), ("/v1/catalog/service/none", 0),
        ("/v1/health/service/web", 1), ("/v1/health/service/web?passing", 0), ("/v1/health/service/web?passing=false", 1),
        ("/v1/health/checks/web", 1), ("/v1/health/node/n1", 2), ("/v1/health/node/nobody", 0),
        ("/v1/health/state/critical", 1), ("/v1/health/state/any", 2), ("/v1/health/state/passing", 1),
        ("/prometheus/targets", 1), ("/prometheus/targets?service=web&tag=v1", 1), ("/prometheus/targets?service=other", 0),
        ("/prometheus/targets?tag=v2", 0), ("/v1/status/peers", 1), ("/v1/agent/services?filter=Port+==+80", 1), ("/v1/agent/services?filter=Port+==+81", 0),
        ("/v1/health/service/web?filter=v1+in+Service.Tags", 1), ("/v1/health/service/web?filter=v2+in+Service.Tags", 0),
        ("/v1/catalog/service/web?near=_agent&dc=dc1&stale&cached", 1), ("/v1/catalog/service/web?node-meta=a:b", 0),
    ];
    for (target, expected) in table {
        assert_eq!(count(&mut agent, target), expected, "{target}");
    }
    // Of a node the filter chooses from the services, and the node stays.
    for (target, expected) in [
        ("/v1/catalog/node/n1?filter=Service+==+web", 1),
        ("/v1/catalog/node/n1?filter=Service+==+x", 0),
        ("/v1/catalog/node-services/n1?filter=Service+==+web", 1),
        ("/v1/catalog/node-services/n1?filter=Service+==+x", 0),
    ] {
        let page = json(&get(&mut agent, target));
        assert_eq!(page.exactly("Node").unwrap().exactly("Node"), Some(&"n1".into()), "{target}");
        let count = match page.exactly("Services").unwrap() {
            Json::List(list) => list.len(),
            Json::Object(pairs) => pairs.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(count, expected, "{target}");
    }
    assert_eq!(get(&mut agent, "/v1/catalog/services?filter=Service+==+web").code, 400);
    assert_eq!(put(&mut agent, "/v1/agent/check/pass/service:w1?note=fine", ""), 200);
    assert_eq!(count(&mut agent, "/v1/health/service/web?passing"), 1);
    let healthy = json(&get(&mut agent, "/v1/health/service/web?passing=1"));
    let Json::List(list) = healthy else { panic!("a list") };
    let text = |of: &str, key: &str| list[0].exactly(of).unwrap().exactly(key).unwrap().clone();
    assert_eq!(text("Node", "Address"), "10.0.0.1".into());
    assert_eq!((text("Service", "ID"), text("Service", "Port")), ("w1".into(), Json::Int(80)));
    assert_eq!(put(&mut agent, "/v1/agent/service/maintenance/w1?enable=true&reason=why", ""), 200);
    assert_eq!(count(&mut agent, "/v1/health/service/web?passing"), 0);
    assert_eq!(put(&mut agent, "/v1/agent/service/maintenance/w1?enable=false", ""), 200);
    assert_eq!(
        put(&mut agent, "/v1/agent/check/update/service:w1", r#"{"Status":"warning","Output":"slow"}"#),
        200
    );
    assert_eq!(get(&mut agent, "/v1/agent/health/service/id/w1").code, 429);
    assert_eq!(put(&mut agent, "/v1/agent/service/deregister/w1", ""), 200);
    assert_eq!(count(&mut agent, "/v1/catalog/services"), 0);
    assert_eq!(get(&mut agent, "/v1/agent/health/service/name/web").code, 404);
}

#[test]
fn a_query_waits_for_its_index_and_is_answered_when_that_is_not_ours() {
    let mut agent = agent();
    web(&mut agent);
    let index = get(&mut agent, "/v1/health/service/web").index.unwrap();
    let wait = |index: u64, more: &str| alloc::format!("/v1/health/service/web?index={index}{more}");
    let topic = Topic::Service("web".into());
    let waits = |answer: Answer| {
        if let Answer::Wait { topic, wait_ms } = answer { Some((topic, wait_ms)) } else { None }
    };
    let mut asked = |target: &str, waited| ask(&mut agent, Method::Get, target, "", waited);
    assert_eq!(waits(asked(&wait(index, ""), false)), Some((topic.clone(), WAIT_MS)));
    assert_eq!(waits(asked(&wait(index, "&wait=5s"), false)), Some((topic.clone(), 5000)));
    assert_eq!(waits(asked(&wait(index, "&wait=1h"), false)), Some((topic, WAIT_MS_MAX)));
    for (target, waited) in [
        (wait(index, ""), true),
        (wait(index - 1, ""), false),
        (wait(index + 1, ""), false),
        (wait(0, ""), false),
    ] {
        assert_eq!(said(asked(&target, waited)).index, Some(index), "{target}");
    }
    assert_eq!(said(asked("/v1/health/service/web?index=x", false)).code, 400);
    assert_eq!(said(asked(&wait(index, "&wait=x"), false)).code, 400);
    // A change of another service does not end it, one of this does.
    assert_eq!(put(&mut agent, "/v1/agent/service/register", r#"{"Name":"other"}"#), 200);
    assert!(waits(ask(&mut agent, Method::Get, &wait(index, ""), "", false)).is_some());
    assert_eq!(put(&mut agent, "/v1/agent/check/pass/service:w1", ""), 200);
    assert!(said(ask(&mut agent, Method::Get, &wait(index, ""), "", false)).index > Some(index));
}

#[test]
fn what_is_wrong_is_said_and_what_is_not_offered_too() {
    let mut agent = agent();
    web(&mut agent);
    #[rustfmt::skip] // columns
    let table = [
        (Method::Get,    "/v1/agent/service/none",                "",   404),
        (Method::Put,    "/v1/agent/service/deregister/none",     "",   404),
        (Method::Put,    "/v1/agent/service/maintenance/none?enable=true", "", 404),
        (Method::Put,    "/v1/agent/service/maintenance/w1",      "",   400),
        (Method::Put,    "/v1/agent/check/pass/none",             "",   404),
        (Method::Put,    "/v1/agent/service/register",            "{",  400),
        (Method::Put,    "/v1/agent/service/register",            "{}", 400),
        (Method::Get,    "/v1/agent/service/register",            "",   405),
        (Method::Put,    "/v1/health/service/web",                "",   405),
        (Method::Get,    "/v1/catalog/service/web?filter=((",     "",   400),
        (Method::Get,    "/v1/catalog/service/web?dc=other",      "",   500),
        (Method::Get,    "/v1/catalog/service/%zz",               "",   400),
        (Method::Get,    "/v1/catalog/service/%ff",               "",   400),
        (Method::Get,    "/v1/health/state/good",                 "",   400),
        (Method::Get,    "/v1/nothing",                           "",   404),
        (Method::Get,    "/v1/agent/nothing",                     "",   404),
        (Method::Get,    "/",                                     "",   404),
        (Method::Get,    "/v1/kv/a",                              "",   501),
        (Method::Put,    "/v1/session/create",                    "{}", 501),
        (Method::Put,    "/v1/txn",                               "[]", 200),
        (Method::Get,    "/v1/txn",                               "[]", 405),
        (Method::Put,    "/v1/txn",                               "{",  400),
        (Method::Put,    "/v1/txn", r#"[{"Service":{"Verb":"set","Node":"n1","Service":{"Service":"a","Port":-1}}}]"#, 400),
        (Method::Put,    "/v1/txn", r#"[{"Node":{"Verb":"set","Node":{"Node":"n1"}}}]"#, 501),
        (Method::Put,    "/v1/event/fire/a",                      "",   501),
        (Method::Get,    "/v1/acl/tokens",                        "",   501),
        (Method::Get,    "/v1/connect/ca/roots",                  "",   501),
        (Method::Put,    "/v1/catalog/register", r#"{"Node":"x","Service":{"Service":"a"}}"#, 501),
        (Method::Put,    "/v1/catalog/register", r#"{"Node":"n1","Service":{"Service":"a"}}"#, 200),
        (Method::Put,    "/v1/catalog/deregister", r#"{"Node":"n1","ServiceID":"a"}"#, 200),
    ];
    for (method, target, body, code) in table {
        let response = said(ask(&mut agent, method, target, body, false));
        assert_eq!(response.code, code, "{target}: {}", String::from_utf8_lossy(&response.body));
        assert!(code == 200 || !response.body.is_empty(), "{target}");
    }
}

#[test]
fn a_transaction_of_services_is_done_whole_or_not_at_all() {
    let mut agent = agent();
    web(&mut agent);
    let index = |agent: &mut Agent| {
        let Json::List(list) = json(&get(agent, "/v1/catalog/service/web")) else { panic!("a list") };
        let Json::Int(index) = list[0].exactly("ModifyIndex").unwrap() else { panic!("a number") };
        *index
    };
    let first = index(&mut agent);
    let service = |verb: &str, id: &str, more: &str| {
        alloc::format!(
            r#"{{"Service":{{"Verb":"{verb}","Node":"n1","Service":{{"Service":"web","ID":"{id}"{more}}}}}}}"#
        )
    };
    let check = |verb: &str, id: &str, status: &str| {
        alloc::format!(
            r#"{{"Check":{{"Verb":"{verb}","Check":{{"Node":"n1","CheckID":"{id}","Status":"{status}"}}}}}}"#
        )
    };
    let is_at = alloc::format!(r#","ModifyIndex":{first}"#);
    let absent = r#"{"Node":{"Verb":"get","Node":{"Node":"n2"}}}"#;
    #[rustfmt::skip] // columns
    let table = [
        // operations, the status, results and errors, and then the instances of the service and those that are passing
        (vec![service("set", "w2", ""), service("get", "w3", "")],                         409, (0, 1), (1, 0)),
        (vec![service("delete", "w1", ""), absent.into()],                                 409, (0, 1), (1, 0)),
        (vec![check("set", "service:w1", "passing"), service("cas", "w1", r#","ModifyIndex":1"#)], 409, (0, 1), (1, 0)),
        (vec![check("set", "none", "passing"), check("set", "service:w1", "good")],        409, (0, 2), (1, 0)),
        (vec![service("raise", "w1", ""), check("raise", "x", ""), check("get", "x", "")], 409, (0, 3), (1, 0)),
        (vec![service("delete-cas", "w1", r#","ModifyIndex":1"#)],                         409, (0, 1), (1, 0)),
        (vec![service("get", "w1", ""), check("get", "service:w1", "")],                   200, (2, 0), (1, 0)),
        (vec![service("cas", "w1", &is_at), check("set", "service:w1", "passing"), service("set", "w2", "")], 200, (3, 0), (2, 2)),
        (vec![service("cas", "w3", r#","ModifyIndex":0"#), service("delete", "w2", ""), service("delete", "w2", "")], 200, (1, 0), (2, 2)),
        (vec![check("delete", "service:w1", ""), service("delete-cas", "w3", r#","ModifyIndex":0"#)], 409, (0, 1), (2, 2)),
        (vec![check("delete", "service:w1", ""), service("delete", "w3", "")],             200, (0, 0), (1, 1)),
    ];
    for (operations, code, told, found) in table {
        let body = alloc::format!("[{}]", operations.join(","));
        let before = (get(&mut agent, "/v1/catalog/service/web"), get(&mut agent, "/v1/agent/checks"));
        let response = said(ask(&mut agent, Method::Put, "/v1/txn", &body, false));
        assert_eq!(response.code, code, "{body}: {}", String::from_utf8_lossy(&response.body));
        let page = json(&response);
        let count = |key: &str| match page.exactly(key).unwrap() {
            Json::List(list) => list.len(),
            _ => 0,
        };
        assert_eq!((count("Results"), count("Errors")), told, "{body}");
        assert_eq!(self::count(&mut agent, "/v1/catalog/service/web"), found.0, "{body}");
        assert_eq!(self::count(&mut agent, "/v1/health/service/web?passing"), found.1, "{body}");
        if code == 409 {
            let after = (get(&mut agent, "/v1/catalog/service/web"), get(&mut agent, "/v1/agent/checks"));
            assert_eq!(after, before, "{body}");
        }
    }
}

proptest! {
    #[test]
    fn no_request_breaks_it(path: String, query: String, body: Vec<u8>, put: bool) {
        let mut agent = agent();
        let method = if put { Method::Put } else { Method::Get };
        for path in [path.clone(), alloc::format!("/v1/agent/service/{path}"), alloc::format!("/v1/health/{path}")] {
            let request = Request { method, path: &path, query: &query, body: &body };
            let _ = answer(&mut agent, &about(), NOW, &request, &Grant::all(), true);
        }
    }
}

/// Whether a request changes something, if its token lets it be done.
fn changes(tokens: &access::Tokens, secret: &str, method: Method, target: &str, body: &str) -> bool {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request { method, path, query, body: body.as_bytes() };
    let headers = access::Headers { token: Some(secret.as_bytes()), authorization: None };
    let Ok(grant) = tokens.judge(&request, headers) else { return false };
    if kv::is_for_store(path, body.as_bytes()) {
        return kv::plan(&request, "n1", "dc1", [7; 16]).is_ok_and(|task| task.writes);
    }
    let mut agent = agent();
    web(&mut agent);
    agent.take_changed();
    answer(&mut agent, &about(), NOW, &request, &grant, false);
    agent.take_changed()
}

#[test]
fn who_may_only_read_changes_nothing_in_whatever_way_it_is_asked() {
    let all = access::Rules::all;
    let rights = |access| access::Rights { services: all(access), keys: all(access) };
    let tokens = access::Tokens::open().with("reader", "r", rights(access::Access::Read)).with(
        "writer",
        "w",
        rights(access::Access::Write),
    );
    let set = r#"[{"Service":{"Verb":"set","Node":"n1","Service":{"Service":"a"}}}]"#;
    #[rustfmt::skip] // columns
    let targets = [
        ("/v1/agent/service/register", r#"{"Name":"a"}"#), ("/v1/agent/service/deregister/w1", ""),
        ("/v1/agent/service/maintenance/w1?enable=true", ""), ("/v1/agent/maintenance?enable=true", ""),
        ("/v1/agent/check/register", r#"{"Name":"a","TTL":"10s"}"#), ("/v1/agent/check/pass/service:w1", ""),
        ("/v1/catalog/register", r#"{"Node":"n1","Service":{"Service":"a"}}"#), ("/v1/txn", set),
        ("/v1/catalog/deregister", r#"{"Node":"n1","ServiceID":"w1"}"#),
        ("/v1/txn", r#"[{"KV":{"Verb":"set","Key":"a","Value":"YQ=="}}]"#), ("/v1/kv/a", "v"),
        ("/v1/kv/a?acquire=s", "v"), ("/v1/session/create", ""), ("/v1/session/renew/x", ""), ("/v1/event/fire/a", ""),
        // As they are not written, but understood or not.
        ("/v1/%61gent/service/deregister/w1", ""), ("/v1/agent/service%2fderegister/w1", ""), ("/v1//kv/a", "v"),
    ];
    let mut done = 0;
    for (target, body) in targets {
        for method in [Method::Get, Method::Put, Method::Delete, Method::Other] {
            assert!(!changes(&tokens, "r", method, target, body), "{method:?} {target}");
            assert!(!changes(&tokens, "", method, target, body), "{method:?} {target}");
            done += usize::from(changes(&tokens, "w", method, target, body));
        }
    }
    // The control: the same requests do change something for who may.
    assert!(done >= 15, "{done} of them change something for a writer");
}

/// A node with `web-a`, `db-a` and `hidden`, each with a check.
fn three(agent: &mut Agent) {
    for (name, id) in [("web-a", "a"), ("db-a", "d"), ("hidden", "h")] {
        let body = alloc::format!(r#"{{"Name":"{name}","ID":"{id}","Port":80,"Check":{{"TTL":"10s"}}}}"#);
        assert_eq!(put(agent, "/v1/agent/service/register", &body), 200);
    }
}

/// What whoever may change `web-` and read `db-` is answered.
fn ask_as_some(agent: &mut Agent, method: Method, target: &str, body: &str) -> (u16, String) {
    let rules = access::Rules::all(access::Access::None);
    let services = rules.with("web-", access::Access::Write).with("db-", access::Access::Read);
    let rights = access::Rights { services, keys: access::Rules::default() };
    let tokens = access::Tokens::open().with("some", "s", rights);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request { method, path, query, body: body.as_bytes() };
    let headers = access::Headers { token: Some(b"s"), authorization: None };
    let response = match tokens.judge(&request, headers) {
        Ok(grant) => said(answer(agent, &about(), NOW, &request, &grant, false)),
        Err(response) => response,
    };
    (response.code, String::from_utf8(response.body).unwrap())
}

#[test]
fn lists_have_the_services_that_a_token_may_read() {
    let mut agent = agent();
    three(&mut agent);
    let targets = [
        "/v1/catalog/services",
        "/v1/catalog/node/n1",
        "/v1/catalog/node-services/n1",
        "/v1/agent/services",
        "/v1/agent/checks",
        "/v1/health/node/n1",
        "/v1/health/state/any",
        "/v1/health/state/critical",
        "/prometheus/targets",
    ];
    for target in targets {
        let all = String::from_utf8(get(&mut agent, target).body).unwrap();
        assert!(all.contains("hidden"), "the control: {target}: {all}");
        let (code, seen) = ask_as_some(&mut agent, Method::Get, target, "");
        assert_eq!(code, 200, "{target}");
        assert!(
            seen.contains("web-a") && seen.contains("db-a") && !seen.contains("hidden"),
            "{target}: {seen}"
        );
    }
    let targets = [
        "/v1/catalog/service/",
        "/v1/health/service/",
        "/v1/health/checks/",
        "/v1/agent/health/service/name/",
        "/prometheus/targets?service=",
    ];
    for target in targets {
        let mut one =
            |name: &str| ask_as_some(&mut agent, Method::Get, &alloc::format!("{target}{name}"), "");
        assert!(one("db-a").1.contains("db-a"), "{target}");
        let (code, seen) = one("hidden");
        let is_list = target.starts_with("/prom");
        assert_eq!((code, seen.as_str()), if is_list { (200, "[]") } else { (403, LACKS_READ) }, "{target}");
    }
    for target in ["/v1/agent/service/h", "/v1/agent/health/service/id/h"] {
        assert_eq!(ask_as_some(&mut agent, Method::Get, target, ""), (403, LACKS_READ.into()), "{target}");
    }
}

const LACKS_READ: &str = r#"Permission denied: token "some" lacks permission 'service:read' on "hidden""#;

#[test]
fn services_are_changed_by_who_may_change_those_of_their_name() {
    let service = |verb: &str, name: &str, id: &str| {
        alloc::format!(
            r#"[{{"Service":{{"Verb":"set","Node":"n1","Service":{{"Service":"web-t"}}}}}},
            {{"Service":{{"Verb":"{verb}","Node":"n1","Service":{{"Service":"{name}","ID":"{id}"}}}}}}]"#
        )
    };
    let check = |verb: &str, id: &str| {
        alloc::format!(
            r#"[{{"Check":{{"Verb":"{verb}","Check":{{"Node":"n1","CheckID":"service:{id}","Status":"passing"}}}}}}]"#
        )
    };
    let (db, hidden, all) = ("'service:write' on \"db-a\"", "on \"hidden\"", "'agent:write'");
    #[rustfmt::skip] // columns
    let table = [
        // what is asked, its body, and what is said if it is refused
        ("/v1/agent/service/register",                    r#"{"Name":"web-b"}"#.to_string(),          ""),
        ("/v1/agent/service/register",                    r#"{"Name":"hidden"}"#.into(),              hidden),
        ("/v1/agent/service/register",                    r#"{"Name":"db-a"}"#.into(),                db),
        // In the place of another's.
        ("/v1/agent/service/register",                    r#"{"Name":"web-b","ID":"d"}"#.into(),      db),
        ("/v1/agent/service/register",                    r#"{"Name":"db-a","ID":"a"}"#.into(),       db),
        ("/v1/agent/service/register",                    r#"{"Service":"web-b","Name":"db-a"}"#.into(), db),
        ("/v1/agent/service/deregister/a",                String::new(),                              ""),
        ("/v1/agent/service/deregister/d",                String::new(),                              db),
        ("/v1/agent/service/maintenance/a?enable=true",   String::new(),                              ""),
        ("/v1/agent/service/maintenance/d?enable=true",   String::new(),                              db),
        ("/v1/agent/maintenance?enable=true",             String::new(),                              all),
        ("/v1/agent/check/register",                      r#"{"Name":"c","TTL":"9s"}"#.into(),        all),
        ("/v1/agent/check/register",                      r#"{"Name":"c","TTL":"9s","ServiceID":"a"}"#.into(), ""),
        ("/v1/agent/check/register",                      r#"{"Name":"c","TTL":"9s","ServiceID":"d"}"#.into(), db),
        ("/v1/agent/check/pass/service:a",                String::new(),                              ""),
        ("/v1/agent/check/pass/service:d",                String::new(),                              db),
        ("/v1/agent/check/update/service:d",              r#"{"Status":"passing"}"#.into(),           db),
        ("/v1/agent/check/deregister/service:d",          String::new(),                              db),
        ("/v1/catalog/register",   r#"{"Node":"n1","Service":{"Service":"web-b"}}"#.into(),           ""),
        ("/v1/catalog/register",   r#"{"Node":"n1","Service":{"Service":"hidden"}}"#.into(),          hidden),
        ("/v1/catalog/deregister", r#"{"Node":"n1","ServiceID":"a"}"#.into(),                         ""),
        ("/v1/catalog/deregister", r#"{"Node":"n1","ServiceID":"d"}"#.into(),                         db),
        ("/v1/catalog/deregister", r#"{"Node":"n1","CheckID":"service:d"}"#.into(),                   db),
        ("/v1/txn",                service("set", "web-b", "b"),                                      ""),
        ("/v1/txn",                service("set", "web-b", "d"),                                      db),
        ("/v1/txn",                service("set", "db-a", "d"),                                       db),
        ("/v1/txn",                service("delete", "web-a", "d"),                                   db),
        ("/v1/txn",                service("get", "web-a", "h"),                                      hidden),
        ("/v1/txn",                check("set", "a"),                                                 ""),
        ("/v1/txn",                check("set", "d"),                                                 db),
        ("/v1/txn",                check("delete", "d"),                                              db),
        ("/v1/txn",                check("get", "h"),                                                 hidden),
    ];
    for (target, body, refused) in table {
        let mut agent = agent();
        three(&mut agent);
        let pages = ["/v1/agent/services", "/v1/agent/checks", "/v1/catalog/services"];
        let before = pages.map(|page| get(&mut agent, page).body);
        let (code, said) = ask_as_some(&mut agent, Method::Put, target, &body);
        let after = pages.map(|page| get(&mut agent, page).body);
        if refused.is_empty() {
            assert_eq!(code, 200, "{target} {body}: {said}");
            assert_ne!(after, before, "{target} {body}");
        } else {
            assert!(code == 403 && said.contains(refused), "{target} {body}: {code} {said}");
            assert_eq!(after, before, "{target} {body}");
        }
    }
}
