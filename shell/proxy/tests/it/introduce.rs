//! Whose a connection and a request are: PROXY headers before us and behind us, and what trusted proxies say.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;

use mesh::limit::Rate;
use mesh::source::Network;
use proxy::{KeyOf, ListenerKind, Plan, RatePlan, Sources};
use wire::http1::ForwardedBy;
use wire::proxied::{Header, Path, ProxyVersion};

use crate::http2::PREFACE;
use crate::tls::Authority;
use crate::world::{Backend, Client, World, listener, plan, read_head};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const LINE: &str = "PROXY TCP4 203.0.113.7 198.51.100.1 4711 80\r\n";

fn sources(networks: &[&str], accept_proxy: bool, by: ForwardedBy) -> Option<Arc<Sources>> {
    let trusted = networks.iter().map(|text| Network::read(text).unwrap()).collect();
    Some(Arc::new(Sources { trusted, accept_proxy, by }))
}

/// A proxy whose clients on the loopback must say whose they are.
fn introduced(endpoints: &[SocketAddr]) -> Plan {
    let mut plan = plan(endpoints);
    plan.listeners[0].sources = sources(&["127.0.0.0/8"], true, ForwardedBy::XForwardedFor);
    plan
}

fn binary(path: Option<Path>) -> Vec<u8> {
    let mut bytes = Vec::new();
    Header::write(ProxyVersion::V2, path.as_ref(), &mut bytes);
    bytes
}

fn path(source: &str, destination: &str) -> Path {
    Path { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

#[test]
fn a_client_is_whom_the_proxy_before_us_says() {
    let backend = Backend::answering(OK);
    let world = World::new(introduced(&[backend.address]));
    let six = binary(Some(path("[2001:db8::7]:4711", "[2001:db8::1]:80")));
    for (header, expected) in [
        (LINE.as_bytes(), "203.0.113.7"),
        (&six, "2001:db8::7"),
        (&binary(None), "127.0.0.1"), // its own connection
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        // All at once, and byte by byte.
        let mut client = world.connect();
        client.send(&[header, GET.as_bytes()].concat());
        assert_eq!(client.reply("GET").status, 200);
        let mut client = world.connect();
        client.stream.set_nodelay(true).unwrap();
        [header, GET.as_bytes()].concat().iter().for_each(|byte| client.send(&[*byte]));
        assert_eq!(client.reply("GET").status, 200);
        client.send(GET.as_bytes());
        assert_eq!(client.reply("GET").status, 200, "the next request needs no header");
        let field = format!("x-forwarded-for: {expected}\r\n");
        assert_eq!(backend.seen().matches(&field).count(), 3, "{expected}: {}", backend.seen());
        backend.seen.lock().unwrap().clear();
    }
}

#[test]
fn who_does_not_say_whose_it_is_or_may_not_is_sent_away() {
    let backend = Backend::answering(OK);
    let mut one = introduced(&[backend.address]);
    one.limits.head_ms = 50;
    let world = World::new(one);
    let damaged = [&binary(Some(path("1.2.3.4:5", "6.7.8.9:10")))[..12], &[0x31, 0x11, 0, 0]].concat();
    let table: [&[u8]; 5] = [GET.as_bytes(), b"PROXY TCP4 a b c d\r\n", &damaged, b"PROXY TCP4 1.2.3.4", b""];
    for (count, bytes) in (1..).zip(table) {
        let mut client = world.connect();
        client.send(bytes);
        assert_eq!(client.rest().0, b"", "nothing is answered");
        world.until("it is counted", |meters| meters.sum(|one| one.unintroduced.get()) == count);
    }
    // The end comes instead of the rest.
    let client = world.connect();
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    world.until("it is counted", |meters| meters.sum(|one| one.unintroduced.get()) == 6);
    assert_eq!(world.meters.sum(|one| one.untrusted.get()), 0);

    let mut strict = introduced(&[backend.address]);
    strict.listeners[0].sources = sources(&["10.0.0.0/8"], true, ForwardedBy::XForwardedFor);
    let world = World::new(strict);
    let mut client = world.connect();
    // It may be gone before it has said anything.
    let _ = client.stream.write_all(&[LINE.as_bytes(), GET.as_bytes()].concat());
    assert_eq!(client.rest().0, b"");
    world.until("it is counted", |meters| meters.sum(|one| one.untrusted.get()) == 1);
    assert_eq!(backend.connections(), 0);
}

#[test]
fn limits_are_of_the_client_and_not_of_the_proxy_before_us() {
    #[rustfmt::skip] // columns
    let table = [
        // trusted         field                        what is said                                       the second one is
        ("127.0.0.0/8",    ForwardedBy::XForwardedFor,  ["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 2.2.2.2"],           200),
        ("127.0.0.0/8",    ForwardedBy::XForwardedFor,  ["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 9.9.9.9, 1.1.1.1"],  429),
        ("127.0.0.0/8",    ForwardedBy::XForwardedFor,  ["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 1.1.1.1, 127.0.0.9"], 429),
        ("127.0.0.0/8",    ForwardedBy::XForwardedFor,  ["Forwarded: for=1.1.1.1", "Forwarded: for=2.2.2.2"],               429),
        ("127.0.0.0/8",    ForwardedBy::Forwarded,      ["Forwarded: for=1.1.1.1", "Forwarded: for=2.2.2.2"],               200),
        ("127.0.0.0/8",    ForwardedBy::Forwarded,      ["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 2.2.2.2"],           429),
        ("10.0.0.0/8",     ForwardedBy::XForwardedFor,  ["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 2.2.2.2"],           429),
    ];
    for (row, (trusted, by, said, expected)) in table.into_iter().enumerate() {
        let backend = Backend::answering(OK);
        let mut plan = plan(&[backend.address]);
        plan.listeners[0].sources = sources(&[trusted], false, by);
        let rate = Rate::new(1, 1_000_000, 1).unwrap();
        plan.routes[0].rate = Some(RatePlan { rate, key: KeyOf::Client, keys_max: 10 });
        let world = World::new(plan);
        let [first, second] = said.map(|field| {
            let mut client = world.connect();
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n").as_bytes());
            client.reply("GET").status
        });
        assert_eq!((first, second), (200, expected), "row {row}");
        let is_read = said[0].starts_with("Forwarded") == (by == ForwardedBy::Forwarded);
        let (kept, expected) = (backend.seen().contains(said[0]), trusted == "127.0.0.0/8" && is_read);
        assert_eq!(kept, expected, "row {row}: what is trusted and read goes on, and nothing else");
    }
}

#[test]
fn whom_a_proxy_speaks_for_may_be_a_proxy_or_not() {
    let backend = Backend::answering(OK);
    let mut one = introduced(&[backend.address]);
    one.listeners[0].sources = sources(&["127.0.0.0/8", "10.0.0.0/8"], true, ForwardedBy::XForwardedFor);
    let world = World::new(one);
    for (source, believed) in [("10.0.0.1", true), ("203.0.113.7", false)] {
        let mut client = world.connect();
        client.send(format!("PROXY TCP4 {source} 10.0.0.2 1 2\r\n").as_bytes());
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n");
        assert_eq!(client.reply("GET").status, 200);
        assert_eq!(backend.seen().contains("1.1.1.1"), believed, "{source}");
        backend.seen.lock().unwrap().clear();
    }
}

#[test]
fn streams_of_http2_are_whose_their_connection_is() {
    let backend = Backend::answering(OK);
    let world = World::new(introduced(&[backend.address]));
    let mut client = world.connect();
    // Settings, and GET / of http://a, with fields that need no table.
    let headers: &[u8] = &[0x82, 0x84, 0x86, 0x41, 0x01, b'a'];
    let frame = [&[0, 0, headers.len() as u8, 1, 5, 0, 0, 0, 1], headers].concat();
    client.send(&[LINE.as_bytes(), PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0], &frame].concat());
    let end = std::time::Instant::now() + crate::world::PATIENCE;
    while !backend.seen().contains("x-forwarded-for: 203.0.113.7\r\n") {
        assert!(std::time::Instant::now() < end, "{}", backend.seen());
        std::thread::yield_now();
    }
}

/// Reads a header of the PROXY protocol, and nothing behind it.
fn read_header(stream: &mut TcpStream) -> Option<Header> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    loop {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
        if let Some(header) = Header::parse(&bytes).expect("a header") {
            return Some(header);
        }
    }
}

/// Answers each request with whose connection it came on.
fn telling() -> Backend {
    Backend::start(|stream, number| {
        let Some(header) = read_header(stream) else { return };
        let source = header.path.map_or_else(|| "nobody".to_owned(), |path| path.source.to_string());
        while read_head(stream).is_some() {
            let text = format!("{source} on {number}");
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        }
    })
}

fn asked(client: &mut Client) -> String {
    client.send(GET.as_bytes());
    client.reply("GET").text()
}

#[test]
fn an_endpoint_is_told_whose_each_connection_is_and_gets_no_others_requests_on_it() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let backend = telling();
        let mut plan = plan(&[backend.address]);
        plan.services[0].send_proxy = Some(version);
        let world = World::new(plan);
        let (mut one, mut other) = (world.connect(), world.connect());
        let [first, second] = [&one, &other].map(|client| client.stream.local_addr().unwrap());
        assert_eq!(asked(&mut one), format!("{first} on 0"));
        assert_eq!(asked(&mut other), format!("{second} on 1"));
        assert_eq!(asked(&mut one), format!("{first} on 0"), "it is kept for its client");
        assert_eq!(asked(&mut other), format!("{second} on 1"));
    }
}

#[test]
fn connections_of_clients_that_are_gone_make_room() {
    let backend = telling();
    let mut plan = plan(&[backend.address]);
    plan.services[0].send_proxy = Some(ProxyVersion::V2);
    plan.services[0].idle_max = 1;
    let world = World::new(plan);
    for number in 0..3 {
        let mut client = world.connect();
        let name = client.stream.local_addr().unwrap();
        assert_eq!(asked(&mut client), format!("{name} on {number}"));
        assert_eq!(asked(&mut client), format!("{name} on {number}"), "the newest is kept");
    }
}

#[test]
fn what_the_proxy_before_us_says_is_said_behind_us() {
    let backend = telling();
    let mut plan = introduced(&[backend.address]);
    plan.services[0].send_proxy = Some(ProxyVersion::V2);
    let mut raw = listener("raw", ListenerKind::Tcp { service: 0 });
    raw.sources.clone_from(&plan.listeners[0].sources);
    plan.listeners.push(raw);
    let world = World::new(plan);
    for (number, name) in ["web", "raw"].into_iter().enumerate() {
        let mut client = world.connect_to(name);
        client.send(LINE.as_bytes());
        assert_eq!(asked(&mut client), format!("203.0.113.7:4711 on {number}"), "{name}");
    }
    // What nobody knows the endpoint is not told either, but for where the proxy itself was met.
    let mut client = world.connect();
    let own = client.stream.local_addr().unwrap();
    client.send(b"PROXY UNKNOWN\r\n");
    assert_eq!(asked(&mut client), format!("{own} on 2"));
}

#[test]
fn an_endpoint_is_told_before_its_tls_begins_and_tunnels_agree_on_nothing() {
    let authority = Authority::new();
    let (told, hello) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let backend = Backend::start(move |stream, _| {
        let header = read_header(stream).expect("a header");
        let mut record = [0; 5];
        stream.read_exact(&mut record).unwrap();
        let mut message = vec![0; usize::from(u16::from_be_bytes([record[3], record[4]]))];
        stream.read_exact(&mut message).unwrap();
        told.lock().unwrap().send((header, record[0], message)).unwrap();
    });
    let mut plan = plan(&[backend.address]);
    plan.services[0].tls = Some(authority.http2_service());
    plan.services[0].send_proxy = Some(ProxyVersion::V1);
    plan.routes[0].connect = true;
    // It ends in the middle of the handshake, which is not to be tried again.
    (plan.services[0].retry.tries_max, plan.routes[0].retry.tries_max) = (1, 1);
    plan.listeners.push(listener("raw", ListenerKind::Tcp { service: 0 }));
    let world = World::new(plan);
    for name in ["raw", "web"] {
        let mut client = world.connect_to(name);
        client.send(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
        let (header, kind, message) = hello.recv_timeout(crate::world::PATIENCE).unwrap();
        assert_eq!(header.path.unwrap().source, client.stream.local_addr().unwrap());
        assert_eq!(kind, 22, "a handshake");
        // The whole extension by which HTTP/2 would be agreed on.
        let h2 = [0, 16, 0, 5, 0, 3, 2, b'h', b'2'];
        assert!(!message.windows(h2.len()).any(|bytes| bytes == h2), "{name}");
    }
}

#[test]
fn the_log_names_the_client_and_not_the_proxy_before_us() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let backend = Backend::answering(OK);
    let mut plan = plan(&[backend.address]);
    plan.listeners[0].sources = sources(&["127.0.0.1"], false, ForwardedBy::XForwardedFor);
    plan.telling.access_log = Some(log.clone());
    plan.index = mesh::route::Routes::new(&[crate::world::rule("a", "/")]).unwrap();
    let world = World::new(plan);
    for (host, status) in [("a", 200), ("b", 404)] {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n");
        assert_eq!(world.ask(&text).status, status);
    }
    world.proxy.stop();
    let lines = std::fs::read_to_string(log).unwrap();
    let client: IpAddr = "1.1.1.1".parse().unwrap();
    assert_eq!(lines.matches(&format!("\"client\":\"{client}\"")).count(), 2, "{lines}");
}
