//! Cookies that keep a client at an endpoint.

use std::net::SocketAddr;

use mesh::sticky::Names;
use proxy::{Plan, StickyPlan};

use crate::world::{Backend, Reply, World, nobody, plan};

const REPLIES: [&str; 3] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n0",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2",
];

fn sticky(endpoints: &[SocketAddr], ttl_seconds: u64) -> Plan {
    let mut plan = plan(endpoints);
    let cookie = "where".into();
    plan.services[0].sticky = Some(StickyPlan { cookie, ttl_seconds, names: Names::of(b"secret") });
    plan
}

fn ask(world: &World, cookie: &str) -> Reply {
    world.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\n{cookie}\r\n"))
}

/// The cookie that an answer sets, as a field of the next request.
fn set(reply: &Reply) -> Option<String> {
    let value = reply.field("set-cookie")?.split(';').next()?.to_owned();
    Some(format!("Cookie: other=1; {value}\r\n"))
}

#[test]
fn a_client_stays_where_its_first_request_went() {
    let backends = REPLIES.map(Backend::answering);
    let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
    let world = World::new(sticky(&addresses, 60));
    let mut seen = Vec::new();
    for _ in 0..3 {
        let first = ask(&world, "");
        let field = first.field("set-cookie").expect("a cookie").to_owned();
        let ends = "; Path=/; HttpOnly; SameSite=Lax; Max-Age=60";
        assert!(field.starts_with("where=") && field.ends_with(ends), "{field}");
        assert!(!addresses.iter().any(|one| field.contains(&one.port().to_string())), "{field}");
        for _ in 0..4 {
            let again = ask(&world, &set(&first).unwrap());
            assert_eq!((again.text(), again.field("set-cookie")), (first.text(), None));
        }
        seen.push(first.text());
    }
    seen.sort();
    assert_eq!(seen, ["0", "1", "2"], "those without a cookie are divided as before");
    // What is no cookie of ours is none.
    for wrong in ["where=", "where=0000000000000000", "where=127.0.0.1", "Where=x"] {
        assert!(set(&ask(&world, &format!("Cookie: {wrong}\r\n"))).is_some(), "{wrong}");
    }
}

#[test]
fn who_is_gone_or_left_out_is_stood_in_for_and_the_client_is_told() {
    let backends = [REPLIES[0], REPLIES[1]].map(Backend::answering);
    let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
    let mut world = World::new(sticky(&addresses, 0));
    let at_zero = loop {
        let reply = ask(&world, "");
        if reply.text() == "0" {
            break set(&reply).unwrap();
        }
    };
    world.proxy.follow(sticky(&addresses[1..], 0)).unwrap();
    world.until("the plan is followed", |meters| meters.largest_generation() == 2);
    let moved = ask(&world, &at_zero);
    assert_eq!(moved.text(), "1");
    let at_one = set(&moved).expect("another cookie");
    assert_eq!(ask(&world, &at_one).field("set-cookie"), None);
    // It comes back, and is where it was.
    world.proxy.follow(sticky(&addresses, 0)).unwrap();
    world.until("the plan is followed", |meters| meters.largest_generation() == 3);
    assert_eq!(ask(&world, &at_zero).text(), "0");

    // An endpoint that takes no connections is left out after some failures; meanwhile each request is tried elsewhere.
    let dead = nobody();
    let world = World::new(sticky(&[addresses[0], dead], 0));
    let name = Names::of(b"secret").name("one", dead);
    for _ in 0..10 {
        let reply = ask(&world, &format!("Cookie: where={name}\r\n"));
        assert_eq!((reply.status, reply.text().as_str()), (200, "0"));
        assert!(set(&reply).is_some());
    }
    let failures = world.meters.endpoints().iter().map(|one| one.counts[1]).sum::<u64>();
    assert_eq!(failures, 5, "it is left out after five, and asked no more");
}

#[test]
fn the_cookie_is_for_secure_connections_only_where_there_are_such() {
    let backend = Backend::answering(REPLIES[0]);
    for (trusted, said, secure) in [(true, "https", true), (true, "http", false), (false, "https", false)] {
        let mut plan = sticky(&[backend.address], 0);
        if trusted {
            let ours = mesh::source::Network::read("127.0.0.0/8").unwrap();
            let sources = proxy::Sources { trusted: vec![ours], ..proxy::Sources::default() };
            plan.listeners[0].sources = Some(std::sync::Arc::new(sources));
        }
        let reply = ask(&World::new(plan), &format!("X-Forwarded-Proto: {said}\r\n"));
        assert_eq!(reply.field("set-cookie").unwrap().contains("; Secure"), secure, "{trusted} {said}");
    }
}
