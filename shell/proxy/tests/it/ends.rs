//! When connections end, and how: by time, by a stop, and what must not be taken for a request.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use proxy::ListenerKind;

use crate::world::{Backend, PATIENCE, World, listener, nobody, plan, read_head};

/// A backend that sends without end until nobody takes it.
fn endless() -> Backend {
    Backend::start(|stream, _| {
        if read_head(stream).is_some_and(|head| head.starts_with("GET /small")) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            return;
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 65_536]).is_ok() {}
    })
}

#[test]
fn a_connection_that_is_passed_through_may_be_silent_for_longer_than_connecting_may_take() {
    let backend = Backend::start(|stream, _| {
        let mut byte = [0];
        if stream.read_exact(&mut byte).is_ok() {
            let _ = stream.write_all(&byte);
        }
    });
    let mut one = plan(&[backend.address]);
    one.listeners.push(listener("raw", ListenerKind::Tcp { service: 0 }));
    one.services[0].connect_ms = 20;
    let world = World::new(one);
    let mut client = world.connect_to("raw");
    client.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let nothing = client.stream.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(nothing, Err(ErrorKind::WouldBlock), "it is still there");
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send(b"a");
    assert_eq!(client.rest(), (b"a".to_vec(), true));
}

#[test]
fn what_comes_behind_a_refused_connect_is_no_request() {
    let mut one = plan(&[nobody()]);
    one.routes[0].connect = true;
    let world = World::new(one);
    let mut client = world.connect();
    client.send(
        b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 27\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert!(client.reply("GET").status >= 500);
    assert_eq!(client.rest().0, b"", "one request, one answer");
}

#[test]
fn an_answer_that_a_stop_cuts_short_does_not_end_cleanly() {
    let backend = endless();
    let mut one = plan(&[backend.address]);
    one.limits.drain_ms = 50;
    let world = World::new(one);
    let mut client = world.connect();
    client.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(read_head(&mut client.stream).unwrap().starts_with("HTTP/1."));
    world.proxy.stop();
    assert!(!client.rest().1, "without a length a clean end says that this was all");
}

#[test]
fn a_client_that_takes_nothing_is_given_up_although_it_sends() {
    let backend = endless();
    let mut one = plan(&[backend.address]);
    one.limits.body_ms = 100;
    let world = World::new(one);
    let mut client = world.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let until = Instant::now() + PATIENCE;
    while client.stream.write_all(b"G").is_ok() {
        assert!(Instant::now() < until, "it holds its connection for as long as it likes");
        assert_eq!(world.ask("GET /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").text(), "ok");
    }
}

#[test]
fn listeners_on_any_free_port_are_told_apart_by_their_names() {
    let backend = Backend::start(|stream, _| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let _ = stream.write_all(&all);
    });
    let mut one = plan(&[backend.address]);
    one.listeners.push(listener("raw", ListenerKind::Tcp { service: 0 }));
    let mut world = World::new(one.clone());
    let before = world.proxy.addresses();
    world.proxy.follow(one).unwrap();
    assert_eq!(world.proxy.addresses(), before);
    let until = Instant::now() + PATIENCE;
    while world.meters.largest_generation() < world.proxy.generation() {
        assert!(Instant::now() < until, "the plan is followed");
        std::thread::yield_now();
    }
    let mut client = world.connect_to("raw");
    client.send(b"no HTTP");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest(), (b"no HTTP".to_vec(), true));
}
