//! Connections of HTTP/2 to endpoints: how they are left when they close, break or fall silent, and which calls go again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use proxy::Plan;

use crate::http2::{PREFACE, frame, http2_plan};
use crate::tls::Authority;
use crate::world::{Backend, PATIENCE, World, plan, read_head};

/// Kinds of frames.
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;

/// An answer without a body.
fn ok(stream: u32) -> Vec<u8> {
    frame(HEADERS, 5, stream, &[0x88])
}

fn go_away(last: u32) -> Vec<u8> {
    frame(GO_AWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())
}

/// The next frame: its kind and stream. `None`: the connection has ended.
pub fn next(stream: &mut TcpStream) -> Option<(u8, u32)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let mut content = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut content).ok()?;
    Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
}

/// A service of frames: `answer` has what is written for each call, by the connection's number and the call's stream.
fn scripted(answer: impl Fn(usize, u32) -> Vec<u8> + Send + Sync + 'static) -> Backend {
    ending(answer, channel().0)
}

/// The same, which tells the numbers of connections that have ended.
fn ending(answer: impl Fn(usize, u32) -> Vec<u8> + Send + Sync + 'static, ended: Sender<usize>) -> Backend {
    let ended = Mutex::new(ended);
    Backend::start(move |stream, number| {
        let mut preface = [0; PREFACE.len()];
        if stream.read_exact(&mut preface).is_err() || stream.write_all(&frame(SETTINGS, 0, 0, &[])).is_err()
        {
            return;
        }
        while let Some((kind, id)) = next(stream) {
            if kind == HEADERS && stream.write_all(&answer(number, id)).is_err() {
                break;
            }
        }
        // Most tests do not listen.
        let _ = ended.lock().unwrap().send(number);
    })
}

/// The same with one try for each request, and nothing to spend on more.
fn world(backend: &Backend, tries_max: u8) -> World {
    let mut plan = http2_plan(backend.address);
    plan.routes[0].retry.tries_max = tries_max;
    (plan.services[0].options.budget_percent, plan.services[0].options.budget_max) = (0, 0);
    World::new(plan)
}

fn asked(world: &World, method: &str) -> u16 {
    world.ask(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).status
}

#[test]
fn a_connection_that_goes_away_gets_no_new_calls_and_ends_with_its_last() {
    let ((came, coming), (ended, endings)) = (channel(), channel());
    let came = Mutex::new(came);
    let answer = move |number, id| match (number, id) {
        (0, 1) => {
            came.lock().unwrap().send(()).unwrap();
            Vec::new()
        }
        // It has told that it closes before anything else can be asked of it.
        (0, 3) => [ok(3), go_away(3)].concat(),
        (0, _) => Vec::new(),
        (_, id) => ok(id),
    };
    let backend = ending(answer, ended);
    let world = world(&backend, 1);
    let mut long = world.connect();
    long.send(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    coming.recv_timeout(PATIENCE).unwrap();
    assert_eq!(asked(&world, "GET"), 200);
    for _ in 0..3 {
        assert_eq!(asked(&world, "POST"), 200);
    }
    assert_eq!(
        (backend.connections(), endings.try_recv().ok()),
        (2, None),
        "a call is under way on the first"
    );
    long.reset();
    assert_eq!(endings.recv_timeout(PATIENCE), Ok(0));
}

#[test]
fn calls_that_a_closing_connection_has_not_read_go_again_whatever_they_ask_for() {
    let backend = scripted(|number, id| if number == 0 { go_away(0) } else { ok(id) });
    let world = world(&backend, 1);
    assert_eq!(asked(&world, "POST"), 200);
    assert_eq!(backend.connections(), 2);
    assert_eq!(world.meters.endpoints()[0].counts[1], 0, "that is nobody's failure");
}

#[test]
fn calls_that_a_closing_connection_may_have_read_go_again_only_if_they_may_be_done_twice() {
    let backend = Backend::start(|stream, _| {
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
        while next(stream).is_some_and(|(kind, _)| kind != HEADERS) {}
        // All up to this call may have been done; then the connection ends.
        let _ = stream.write_all(&go_away(1));
    });
    let world = world(&backend, 3);
    assert_eq!((asked(&world, "POST"), backend.connections()), (502, 1));
}

#[test]
fn a_call_that_is_refused_goes_again_within_the_budget() {
    let refused = |number: usize, id: u32| {
        if number == 0 && id == 1 { frame(RESET, 0, 1, &[0, 0, 0, 7]) } else { ok(id) }
    };
    let backend = scripted(refused);
    let mut plan = http2_plan(backend.address);
    plan.routes[0].retry_statuses.clear();
    assert_eq!(asked(&World::new(plan), "POST"), 200, "nothing was done for it");
    let backend = scripted(refused);
    assert_eq!(asked(&world(&backend, 3), "POST"), 502, "a service with too much to do gets no more of it");
}

#[test]
fn a_retry_on_a_connection_that_is_there_waits_for_nothing() {
    // 503 is not in HPACK's table: a literal value of ":status" (RFC 7541, 6.2.2).
    let busy = |id| frame(HEADERS, 5, id, &[&[0x08, 3][..], b"503"].concat());
    let backend = scripted(move |_, id| if id == 1 { busy(1) } else { ok(id) });
    let mut plan = http2_plan(backend.address);
    plan.services[0].connect_ms = 600_000;
    let world = World::new(plan);
    assert_eq!((asked(&world, "GET"), backend.connections()), (200, 1));
}

#[test]
fn a_service_that_reads_nothing_costs_no_turns() {
    let backend = Backend::start(|stream, number| {
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).unwrap();
        let window = |stream: u32| frame(8, 0, stream, &0x7000_0000_u32.to_be_bytes());
        let wide = frame(SETTINGS, 0, 0, &[0, 4, 0x7F, 0xFF, 0xFF, 0xFF]);
        stream.write_all(&[wide, window(0)].concat()).unwrap();
        while next(stream).is_some_and(|(kind, _)| kind != HEADERS) {}
        // From now on it asks for answers and takes none.
        let ping = frame(6, 0, 0, &[number as u8; 8]);
        while stream.write_all(&ping).is_ok() {}
    });
    let mut plan = http2_plan(backend.address);
    plan.limits.body_ms = 700;
    plan.routes[0].retry.tries_max = 1;
    let world = World::new(plan);
    let mut client = world.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    let mut sink = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let piece = vec![b'x'; 64 * 1024];
        while sink.write_all(&piece).is_ok() {}
    });
    let (_, _) = client.rest();
    sending.join().unwrap();
    let turns = world.meters.sum(|m| m.turns.get());
    assert!(turns < 20_000, "{turns}");
}

/// A service of HTTP/2 in TLS that never answers what TLS begins with, who hears when each of its connections has ended, and
/// the plan with it.
fn unanswered() -> (Backend, Receiver<()>, Plan) {
    let (ended, ending) = channel();
    let ended = Mutex::new(ended);
    let backend = Backend::start(move |stream, _| {
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink);
        let _ = ended.lock().unwrap().send(());
    });
    let mut plan = http2_plan(backend.address);
    plan.services[0].tls = Some(Authority::new().http2_service());
    (backend, ending, plan)
}

#[test]
fn a_connection_that_is_never_made_ends_in_its_time() {
    let (backend, ending, mut plan) = unanswered();
    plan.services[0].connect_ms = 200;
    plan.routes[0].retry.tries_max = 1;
    let world = World::new(plan);
    assert_eq!(asked(&world, "GET"), 504);
    ending.recv_timeout(PATIENCE).expect("it is given up");
    assert_eq!((asked(&world, "GET"), backend.connections()), (504, 2), "the next one begins anew");
}

#[test]
fn calls_that_are_given_up_are_not_waited_for_by_a_connection_that_is_being_made() {
    let (backend, ending, mut plan) = unanswered();
    plan.services[0].connect_ms = 600_000;
    let mut world = World::new(plan.clone());
    let mut client = world.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    world.until("it is being made", |_| backend.connections() == 1);
    client.reset();
    world.until("it is given up", |meters| meters.routes().iter().any(|route| route.classes[0] == 1));
    plan.services[0].endpoints.clear();
    world.proxy.follow(plan).unwrap();
    ending.recv_timeout(PATIENCE).expect("nobody needs it");
}

#[test]
fn a_connection_that_fell_silent_gets_no_new_calls() {
    let backend = scripted(|number, id| if number == 0 && id > 1 { Vec::new() } else { ok(id) });
    let mut plan = http2_plan(backend.address);
    (plan.routes[0].retry.tries_max, plan.routes[0].retry.try_ms) = (1, 2_000);
    let world = World::new(plan);
    assert_eq!([(); 3].map(|()| asked(&world, "GET")), [200, 504, 200]);
    assert_eq!(backend.connections(), 2);
}

#[test]
fn a_slow_call_is_no_reason_to_leave_a_connection_that_answers_others_nor_is_a_client_that_leaves() {
    let (came, coming) = channel();
    let came = Mutex::new(came);
    let backend = scripted(move |_, id| {
        came.lock().unwrap().send(()).unwrap();
        // The first and the fifth stand still.
        if id == 1 || id == 9 { Vec::new() } else { ok(id) }
    });
    let mut plan = http2_plan(backend.address);
    (plan.routes[0].retry.tries_max, plan.routes[0].retry.try_ms) = (1, 2_000);
    let world = World::new(plan);
    let begin = || {
        let mut client = world.connect();
        client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        coming.recv_timeout(PATIENCE).unwrap();
        client
    };
    let mut slow = begin();
    assert_eq!((asked(&world, "GET"), asked(&world, "GET"), asked(&world, "GET")), (200, 200, 200));
    assert_eq!(slow.reply("GET").status, 504);
    (0..3).for_each(|_| coming.recv_timeout(PATIENCE).unwrap());
    begin().reset();
    world.until("it is given up", |meters| meters.routes()[0].classes[0] == 1);
    assert_eq!((asked(&world, "GET"), backend.connections()), (200, 1));
}

#[test]
fn what_a_refused_upgrade_leaves_takes_no_calls_of_http2() {
    let began = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&began);
    // Without an upgrade it is spoken to in HTTP/2, of which it takes the first bytes and no more.
    let backend = Backend::start(move |stream, _| {
        let mut first = [0; 3];
        while stream.read_exact(&mut first).is_ok() {
            seen.lock().unwrap().push(first);
            if &first == b"PRI" || read_head(stream).is_none() {
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let mut plan = http2_plan(backend.address);
    plan.routes[0].upgrade = true;
    plan.routes[0].retry.tries_max = 1;
    let world = World::new(plan);
    let refused =
        world.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").status;
    assert_eq!((refused, asked(&world, "GET")), (426, 502));
    assert_eq!(*began.lock().unwrap(), [*b"GET", *b"PRI"]);
}

#[test]
fn a_client_that_reads_nothing_costs_no_turns() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut plan = plan(&[backend.address]);
    (plan.limits.head_ms, plan.limits.idle_ms) = (700, 300);
    let world = World::new(plan);
    let mut stream = world.connect().stream;
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // It asks for answers and takes none, until it is sent away.
    let ping = frame(6, 0, 0, b"archipel").repeat(1000);
    while stream.write_all(&ping).is_ok() {}
    let turns = world.meters.sum(|m| m.turns.get());
    assert!(turns < 20_000, "{turns}");
}

#[test]
fn a_proxy_that_stops_takes_what_was_asked_before_its_client_knew() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut plan = plan(&[backend.address]);
    plan.limits.drain_ms = 600_000;
    let World { proxy, .. } = World::new(plan);
    let mut stream = TcpStream::connect(proxy.addresses()[0].1).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
    // It is one of HTTP/2 by now.
    while next(&mut stream) != Some((SETTINGS, 0)) {}
    let stopping = std::thread::spawn(move || proxy.stop());
    let mut kinds = Vec::new();
    while !(kinds.contains(&GO_AWAY) && kinds.contains(&6)) {
        kinds.push(next(&mut stream).expect("it says so first").0);
    }
    // This was on its way; then what the proxy has asked is answered: it is the last that comes.
    let request = frame(HEADERS, 5, 1, &[0x82, 0x84, 0x86, 0x41, 1, b'a']);
    let known = frame(6, 1, 0, &[0x0B, 0x7B, 0xA2, 0xF0, 0x8B, 0x9B, 0xFE, 0x54]);
    stream.write_all(&[request, known].concat()).unwrap();
    let mut rest = Vec::new();
    while let Some(one) = next(&mut stream) {
        rest.push(one);
    }
    assert!(rest.contains(&(HEADERS, 1)) && rest.contains(&(0, 1)), "{rest:?}");
    stopping.join().unwrap();
}
