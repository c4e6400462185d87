//! Copies of requests for a service whose answers nobody gets.

use std::io::{Read, Write};

use mesh::route::Split;
use proxy::{MirrorPlan, Plan};

use crate::world::{Backend, World, nobody, plan, read_head, service};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET /there HTTP/1.1\r\nHost: a\r\nX-Own: 1\r\n\r\n";

/// The requests for the first service are copied to one at this address.
fn mirrored(real: &Backend, shadow: std::net::SocketAddr, percent: u8) -> Plan {
    let mut plan = plan(&[real.address]);
    plan.services.push(service("shadow", &[shadow]));
    plan.routes[0].split = Split::new(&[(0, 1)]).unwrap();
    plan.routes[0].mirror = Some(MirrorPlan { service: 1, percent });
    plan.telling.trace = false;
    plan
}

fn post(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length))
}

/// Reads requests with their bodies, and answers them; keeps all that came.
fn reading() -> Backend {
    let seen = std::sync::Arc::<std::sync::Mutex<Vec<u8>>>::default();
    let here = std::sync::Arc::clone(&seen);
    let mut backend = Backend::start(move |stream, _| {
        while let Some(head) = read_head(stream) {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |text| text.parse().unwrap())];
            stream.read_exact(&mut body).unwrap();
            let mut seen = here.lock().unwrap();
            seen.extend_from_slice(head.as_bytes());
            seen.extend_from_slice(&body);
            drop(seen);
            let _ = stream.write_all(OK.as_bytes());
        }
    });
    backend.seen = seen;
    backend
}

#[test]
fn a_copy_is_the_request_as_it_was_sent_on() {
    let (real, shadow) = (reading(), reading());
    let world = World::new(mirrored(&real, shadow.address, 100));
    let mut client = world.connect();
    let long = post(10_000);
    for (count, text) in (1..).zip([GET, GET, &long]) {
        client.send(text.as_bytes());
        assert_eq!(client.reply("GET").status, 200);
        world.until("it is copied and answered", |meters| {
            meters.endpoints().iter().any(|one| one.service == "shadow" && one.counts[0] == count)
        });
    }
    assert_eq!(shadow.seen(), real.seen());
    assert!(real.seen().contains("X-Own: 1") && real.seen().ends_with("xxx"));
    assert_eq!(shadow.connections(), 1, "its connections are kept, too");
    assert_eq!(
        world.meters.routes()[0].classes.iter().sum::<u64>(),
        3,
        "copies are no requests of the route"
    );
}

#[test]
fn whatever_becomes_of_a_copy_nobody_sees() {
    let real = Backend::answering(OK);
    // One that is not there, one that answers with a failure, one that ends in the middle, one that says nothing.
    let failing = Backend::answering("HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno");
    let cut = Backend::start(|stream, _| {
        let _ = read_head(stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nno");
    });
    let silent = Backend::start(|stream, _| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    for shadow in [nobody(), failing.address, cut.address, silent.address] {
        let world = World::new(mirrored(&real, shadow, 100));
        let mut client = world.connect();
        for _ in 0..20 {
            client.send(GET.as_bytes());
            let reply = client.reply("GET");
            assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
        }
        assert_eq!(world.meters.sum(|one| one.mirrored.get()), 20);
        let answered = world.meters.sum(|one| one.answered.iter().map(telemetry::Counter::get).sum());
        assert_eq!(answered, 0, "what copies are told is not told to clients");
        // It does not wait for copies.
        drop(client);
        world.proxy.stop();
    }
}

#[test]
fn what_is_too_large_is_not_copied_and_counted() {
    let (real, shadow) = (reading(), reading());
    let world = World::new(mirrored(&real, shadow.address, 100));
    let mut client = world.connect();
    client.send(post(300_000).as_bytes());
    assert_eq!(client.reply("POST").status, 200);
    client.send(GET.as_bytes());
    assert_eq!(client.reply("GET").status, 200);
    world.until("the other is copied", |meters| meters.sum(|one| one.mirrored.get()) == 1);
    assert_eq!(world.meters.sum(|one| one.mirrors_dropped.get()), 1);
    world.until("it is answered", |meters| meters.endpoints().iter().any(|one| one.service == "shadow"));
    assert!(shadow.seen().starts_with("GET /there"), "{}", shadow.seen());
}

#[test]
fn a_share_of_requests_is_copied() {
    let (real, shadow) = (Backend::answering(OK), Backend::answering(OK));
    let world = World::new(mirrored(&real, shadow.address, 50));
    let mut client = world.connect();
    for _ in 0..400 {
        client.send(GET.as_bytes());
        assert_eq!(client.reply("GET").status, 200);
    }
    let copied = world.meters.sum(|one| one.mirrored.get() + one.mirrors_dropped.get());
    // Of 400 fair draws so few or so many are as likely as one in a billion.
    assert!((140..=260).contains(&copied), "{copied}");
}
