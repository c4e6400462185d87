//! What is told of requests: the access log and the meters.

use std::io::Write;
use std::net::Shutdown;

use http::{Method, Request};
use mesh::limit::Rate;
use mesh::route::Routes;
use proxy::{KeyOf, RatePlan, Reason, SpanPlan, Telling};

use crate::http2;
use crate::world::{Backend, World, nobody, plan, read_head, rule};

const GET: &str = "GET /there?q HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn the_log_has_a_line_for_what_the_proxy_answers_itself_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let backend = Backend::answering(OK);
    let mut plan = plan(&[backend.address]);
    plan.limits.head_ms = 50;
    plan.index = Routes::new(&[rule("*", "/there")]).unwrap();
    let rate = Rate::new(1, 1_000_000, 1).unwrap();
    plan.routes[0].rate = Some(RatePlan { rate, key: KeyOf::Route, keys_max: 10 });
    plan.telling = Telling { access_log: Some(path.clone()), access_sample: 1, ..Telling::default() };
    let world = World::new(plan);
    let asked = [
        (GET, 200),
        (GET, 429),
        ("GET /elsewhere HTTP/1.1\r\nHost: a\"b\r\n\r\n", 400),
        ("GET /elsewhere HTTP/1.1\r\nHost: b\r\n\r\n", 404),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 404),
        ("GET /", 408),
    ];
    for (text, status) in asked {
        assert_eq!(world.ask(text).status, status, "{text}");
    }
    world.proxy.stop();
    let log = std::fs::read_to_string(path).unwrap();
    let told = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("\"{name}\":")).unwrap_or_default();
        rest.trim_start_matches('"').split(['"', ',', '}']).next().unwrap_or_default().to_owned()
    };
    let found: Vec<Vec<String>> = log
        .lines()
        .map(|line| ["method", "path", "route", "reason", "status"].map(|name| told(line, name)).to_vec())
        .collect();
    #[rustfmt::skip] // columns
    let expected = [
        ["GET",     "/there?q",   "all", "",             "200"],
        ["GET",     "/there?q",   "all", "rate-limited", "429"],
        ["",        "",           "",    "malformed",    "400"],
        ["GET",     "/elsewhere", "",    "no-route",     "404"],
        ["CONNECT", "/",          "",    "no-route",     "404"],
        ["",        "",           "",    "slow-request", "408"],
    ];
    assert_eq!(found, expected.map(|row| row.map(str::to_owned).to_vec()), "{log}");
}

#[test]
fn a_request_of_http2_that_no_route_sees_is_told_of_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let mut plan = plan(&[nobody()]);
    plan.telling = Telling {
        access_log: Some(path.clone()),
        access_sample: 1,
        spans: Some(SpanPlan { sample: 1 }),
        ..Telling::default()
    };
    let world = World::new(plan);
    http2::within(async {
        let mut send = http2::connect(http2::address(&world)).await;
        let tunnel = Request::builder().method(Method::CONNECT).uri("a.example:1").body(()).unwrap();
        let (status, fields, _) = http2::ask(&mut send, tunnel).await.unwrap();
        assert_eq!((status, &fields["x-archipel-reason"]), (405, &"no-connect".parse().unwrap()));
        let mut two_hosts = http2::request(Method::GET, "/there?q");
        two_hosts.headers_mut().append("host", "b.example".parse().unwrap());
        let (status, fields, _) = http2::ask(&mut send, two_hosts).await.unwrap();
        assert_eq!((status, &fields["x-archipel-reason"]), (400, &"malformed".parse().unwrap()));
    });
    world.until("both have a span", |meters| meters.spans.len() == 2);
    for reason in [Reason::NoConnect, Reason::Malformed] {
        assert_eq!(world.meters.sum(|one| one.answered[reason as usize].get()), 1, "{reason:?}");
    }
    world.proxy.stop();
    let log = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    for (line, said) in lines.iter().zip([
        ["\"method\":\"CONNECT\"", "\"host\":\"a.example:1\"", "\"reason\":\"no-connect\"", "\"status\":405"],
        ["\"method\":\"GET\"", "\"path\":\"/there?q\"", "\"reason\":\"malformed\"", "\"status\":400"],
    ]) {
        assert!(said.iter().all(|part| line.contains(part)), "{line}");
    }
}

#[test]
fn a_kept_connection_that_closes_on_what_is_not_sent_again_is_a_failure() {
    // It answers the first request and ends the connection when the second has come.
    let backend = Backend::start(|stream, _| {
        let _ = read_head(stream);
        let _ = stream.write_all(OK.as_bytes());
        let _ = read_head(stream);
        let _ = stream.shutdown(Shutdown::Both);
    });
    for (method, status, failures) in [("POST", 502, 1), ("GET", 200, 0)] {
        let world = World::new(plan(&[backend.address]));
        let mut client = world.connect();
        client.send(GET.as_bytes());
        assert_eq!(client.reply("GET").status, 200);
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(client.reply(method).status, status, "{method}");
        assert_eq!(world.meters.endpoints()[0].counts[1], failures, "{method}");
    }
}
