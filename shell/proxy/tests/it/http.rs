//! Requests and responses as they go through.

use std::io::{Read, Write};
use std::net::Shutdown;

use proxy::{ListenerKind, RatePlan};

use crate::world::{Backend, World, listener, nobody, plan, read_head, route, rule, service};

const GET: &str = "GET /x?y HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-From: here\r\n\r\nok";

#[test]
fn requests_on_a_kept_connection_use_one_kept_connection() {
    let backend = Backend::answering(OK);
    let world = World::new(plan(&[backend.address]));
    let mut client = world.connect();
    for _ in 0..20 {
        client.send(GET.as_bytes());
        let reply = client.reply("GET");
        assert_eq!((reply.status, reply.text().as_str(), reply.field("x-from")), (200, "ok", Some("here")));
    }
    assert_eq!(backend.connections(), 1);
    let seen = backend.seen();
    let first = &seen[..seen.find("\r\n\r\n").unwrap()];
    assert!(first.starts_with("GET /x?y HTTP/1.1\r\nhost: a\r\n"), "{first}");
    for field in ["x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "via: 1.1 archipel"] {
        assert!(first.lines().any(|line| line == field), "{field} is not in {first}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_in_any_pieces() {
    let backend = Backend::start(|stream, _| {
        while let Some(head) = read_head(stream) {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
        }
    });
    let world = World::new(plan(&[backend.address]));
    for piece in [1, 7, 1000] {
        let mut client = world.connect();
        let all: String = (0..5).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        for bytes in all.as_bytes().chunks(piece) {
            client.send(bytes);
        }
        for n in 0..5 {
            assert_eq!(client.reply("GET").text(), format!("/{n}"), "pieces of {piece}");
        }
    }
}

#[test]
fn bodies_go_through_in_both_directions_whatever_their_framing() {
    // Reads a request with a body and sends it back in the other framing.
    let backend = Backend::start(|stream, _| {
        while let Some(head) = read_head(stream) {
            let mut client = crate::world::Client { stream: stream.try_clone().unwrap() };
            // A request is read as a response is.
            let chunked = head.contains("transfer-encoding: chunked");
            let body = if chunked {
                client.chunked_body()
            } else {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                let mut body = vec![0; length.parse().unwrap()];
                stream.read_exact(&mut body).unwrap();
                body
            };
            if chunked {
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(&body);
            } else {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for piece in body.chunks(30_000) {
                    let _ = write!(stream, "{:x};x=y\r\n", piece.len());
                    let _ = stream.write_all(piece);
                    let _ = stream.write_all(b"\r\n");
                }
                let _ = stream.write_all(b"0\r\nX-Sum: 1\r\n\r\n");
            }
        }
    });
    let world = World::new(plan(&[backend.address]));
    let mut client = world.connect();
    for size in [1, 100, 65_535, 65_536, 3_000_000] {
        let body: Vec<u8> = (0..size).map(|n| (n * 7 % 251) as u8).collect();
        let mut sender = client.stream.try_clone().unwrap();
        let copy = body.clone();
        let sent = std::thread::spawn(move || {
            write!(sender, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n").unwrap();
            sender.write_all(&copy).unwrap();
        });
        assert!(client.reply("POST").body == body, "a length of {size}");
        sent.join().unwrap();
        let (mut sender, copy) = (client.stream.try_clone().unwrap(), body.clone());
        let sent = std::thread::spawn(move || {
            sender.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            for piece in copy.chunks(50_000) {
                write!(sender, "{:X}\r\n", piece.len()).unwrap();
                sender.write_all(piece).unwrap();
                sender.write_all(b"\r\n").unwrap();
            }
            sender.write_all(b"0\r\n\r\n").unwrap();
        });
        assert!(client.reply("POST").body == body, "chunks of {size}");
        sent.join().unwrap();
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn responses_without_a_body_leave_the_connection_in_step() {
    let backend = Backend::start(|stream, _| {
        while let Some(head) = read_head(stream) {
            let reply = match head.split(' ').nth(1).unwrap() {
                "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                "/0" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                "/early" => {
                    "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                }
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            };
            let _ = stream.write_all(reply.as_bytes());
        }
    });
    let world = World::new(plan(&[backend.address]));
    let mut client = world.connect();
    #[rustfmt::skip] // columns
    let table = [
        // method  path      statuses
        ("HEAD",   "/head",  &[200][..]),
        ("GET",    "/204",   &[204]),
        ("GET",    "/304",   &[304]),
        ("GET",    "/0",     &[200]),
        ("GET",    "/early", &[103, 200]),
    ];
    for (method, path, statuses) in table {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        for status in statuses {
            assert_eq!(client.reply(method).status, *status, "{path}");
        }
        client.send(b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.reply("GET").text(), "ok", "after {path}");
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_client_that_waits_for_100_gets_it_from_the_service() {
    let backend = Backend::start(|stream, _| {
        while let Some(head) = read_head(stream) {
            assert!(head.contains("Expect: 100-continue"));
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            let mut body = [0; 4];
            stream.read_exact(&mut body).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").unwrap();
            stream.write_all(&body).unwrap();
        }
    });
    let world = World::new(plan(&[backend.address]));
    let mut client = world.connect();
    for _ in 0..3 {
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(client.reply("POST").status, 100);
        client.send(b"wiki");
        assert_eq!(client.reply("POST").text(), "wiki");
    }
}

#[test]
fn clients_of_http_1_0_get_bodies_that_they_can_read() {
    let backend =
        Backend::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    let world = World::new(plan(&[backend.address]));
    let reply = world.ask("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!((reply.text().as_str(), reply.field("transfer-encoding")), ("ok", None));
    // As long as its connection there, in chunks here.
    let backend = Backend::start(|stream, _| {
        let _ = read_head(stream);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nok");
    });
    let world = World::new(plan(&[backend.address]));
    let mut client = world.connect();
    for _ in 0..2 {
        client.send(GET.as_bytes());
        let reply = client.reply("GET");
        assert_eq!((reply.text().as_str(), reply.field("transfer-encoding")), ("ok", Some("chunked")));
    }
}

#[test]
fn a_response_that_is_cut_is_never_whole() {
    // What the endpoint sends before it ends its connection, or resets it.
    let table: [(&'static str, bool); 6] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxx\r\n", false),
        ("HTTP/1.1 200 OK\r\n\r\nhalf", true),
    ];
    for (sends, resets) in table {
        let backend = Backend::start(move |stream, _| {
            let _ = read_head(stream);
            stream.write_all(sends.as_bytes()).unwrap();
            if resets {
                // The other end reads what was sent before it is reset.
                let mut byte = [0];
                let _ = stream.set_read_timeout(Some(std::time::Duration::from_millis(100)));
                let _ = stream.read(&mut byte);
                rustix::net::sockopt::set_socket_linger(&*stream, Some(std::time::Duration::ZERO)).unwrap();
            }
        });
        let world = World::new(plan(&[backend.address]));
        for version in ["1.1", "1.0"] {
            let mut client = world.connect();
            client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes());
            let (bytes, clean) = client.rest();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(text.contains("half") || !clean, "{text}");
            assert!(!clean, "{sends:?} to a {version} client ended as if it were whole: {text}");
            assert!(!text.ends_with("0\r\n\r\n"), "{text}");
        }
    }
}

#[test]
fn what_cannot_be_sent_on_is_answered_with_the_reason() {
    let (silent, garbage) = (
        Backend::start(|stream, _| drop(stream.read_to_end(&mut Vec::new()))),
        Backend::answering("SSH-2.0\r\n\r\n"),
    );
    let closes = Backend::start(|stream, _| drop(read_head(stream)));
    let mut one = plan(&[]);
    one.services = vec![
        service("silent", &[silent.address]),
        service("garbage", &[garbage.address]),
        service("closes", &[closes.address]),
        service("nobody", &[nobody()]),
        service("none", &[]),
    ];
    let paths = ["/silent", "/garbage", "/closes", "/nobody", "/none"];
    one.routes = (0..5).map(|at| route(paths[at as usize], at)).collect();
    one.routes[0].retry.try_ms = 50;
    one.routes[0].retry.tries_max = 1;
    one.index = mesh::route::Routes::new(&paths.map(|path| rule("*", path))).unwrap();
    let world = World::new(one);
    #[rustfmt::skip] // columns
    let table = [
        ("/silent",  504, "timeout"),
        ("/garbage", 502, "bad-response"),
        ("/closes",  502, "endpoint-reset"),
        ("/nobody",  502, "connect-failed"),
        ("/none",    503, "no-endpoint"),
        ("/other",   404, "no-route"),
    ];
    let mut client = world.connect();
    for (path, status, reason) in table {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let reply = client.reply("GET");
        assert_eq!((reply.status, reply.reason()), (status, reason), "{path}");
        assert!(!reply.body.is_empty());
    }
    client.send(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
    assert_eq!(client.reply("CONNECT").status, 404, "the path of a tunnel is /");
}

#[test]
fn a_failed_try_goes_elsewhere_if_it_may() {
    let (good, bad) =
        (Backend::answering(OK), Backend::answering("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"));
    let closes = Backend::start(|stream, _| drop(read_head(stream)));
    for other in [bad.address, closes.address, nobody()] {
        let world = World::new(plan(&[good.address, other]));
        for _ in 0..8 {
            assert_eq!(world.ask(GET).status, 200, "{other}");
        }
    }
    // What must not be done twice is not, once it may have been read.
    let world = World::new(plan(&[closes.address, closes.address]));
    let before = closes.connections();
    let reply = world.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!((reply.status, closes.connections() - before), (502, 1));
    let world = World::new(plan(&[bad.address]));
    assert_eq!(world.ask("POST / HTTP/1.1\r\nHost: a\r\n\r\n").status, 503);
}

#[test]
fn a_connection_that_was_closed_meanwhile_costs_nothing() {
    // One request for each connection, without a word about that.
    let backend = Backend::start(|stream, _| {
        let _ = read_head(stream);
        let _ = stream.write_all(OK.as_bytes());
    });
    let world = World::new(plan(&[backend.address]));
    let mut client = world.connect();
    for n in 0..50 {
        client.send(GET.as_bytes());
        assert_eq!(client.reply("GET").status, 200, "request {n}");
    }
    assert!(world.meters.endpoints().iter().all(|one| one.counts[1] == 0), "{:?}", world.meters.endpoints());
}

#[test]
fn a_breaker_that_opens_answers_at_once_and_lets_others_through_later() {
    let bad = Backend::answering("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    let mut one = plan(&[bad.address]);
    one.services[0].options.breaker.requests_min = 5;
    one.services[0].options.breaker.open_ms = 60_000;
    one.services[0].options.outliers.consecutive = 0;
    let world = World::new(one);
    let replies: Vec<(u16, String)> = (0..10)
        .map(|_| {
            let reply = world.ask(GET);
            (reply.status, reply.reason().to_owned())
        })
        .collect();
    assert_eq!(replies[4], (500, String::new()));
    assert_eq!(replies[5], (503, "breaker-open".to_owned()));
    assert_eq!(replies[9].0, 503);
}

#[test]
fn a_rate_that_is_used_up_is_told_with_the_time_to_wait() {
    let backend = Backend::answering(OK);
    let mut one = plan(&[backend.address]);
    let rate = mesh::limit::Rate::new(1, 60_000, 3).unwrap();
    one.routes[0].rate = Some(RatePlan { rate, key: proxy::KeyOf::Field("x-user".into()), keys_max: 64 });
    let world = World::new(one);
    let mut client = world.connect();
    let mut ask = |user: &str| {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n").as_bytes());
        client.reply("GET")
    };
    assert_eq!((0..5).map(|_| ask("ann").status).collect::<Vec<_>>(), [200, 200, 200, 429, 429]);
    let refused = ask("ann");
    let seconds: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(ask("ben").status, 200);
}

#[test]
fn slow_clients_are_cut_and_told() {
    let backend = Backend::start(|stream, _| drop(stream.read_to_end(&mut Vec::new())));
    let mut one = plan(&[backend.address]);
    (one.limits.head_ms, one.limits.body_ms) = (50, 50);
    let world = World::new(one);
    for begun in ["GET / HT", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nha"] {
        let reply = world.ask(begun);
        assert_eq!((reply.status, reply.reason()), (408, "slow-request"), "{begun:?}");
    }
    // Who has sent nothing is told nothing.
    assert_eq!(world.connect().rest(), (Vec::new(), true));
}

#[test]
fn a_plan_is_exchanged_between_two_requests_of_a_connection() {
    let (old, new) =
        (Backend::answering(OK), Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew"));
    let mut world = World::new(plan(&[old.address]));
    let mut client = world.connect();
    client.send(GET.as_bytes());
    assert_eq!(client.reply("GET").text(), "ok");
    let mut next = plan(&[new.address]);
    world.proxy.follow(next.clone()).unwrap();
    // The threads follow when they are woken: from some request on, and not back.
    let mut texts = Vec::new();
    while texts.last().is_none_or(|text: &String| text != "new") {
        client.send(GET.as_bytes());
        texts.push(client.reply("GET").text());
    }
    client.send(GET.as_bytes());
    assert_eq!(client.reply("GET").text(), "new");
    // One that cannot be followed changes nothing.
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut bad = listener("other", ListenerKind::Http);
    bad.address = taken.local_addr().unwrap();
    next.listeners.push(bad);
    assert!(world.proxy.follow(next).unwrap_err().to_string().contains("`other`"));
    client.send(GET.as_bytes());
    assert_eq!(client.reply("GET").text(), "new");
    assert_eq!(world.proxy.generation(), 2);
}

#[test]
fn a_changed_protocol_goes_through_in_both_directions() {
    let backend = Backend::start(|stream, _| {
        let head = read_head(stream).unwrap();
        if !head.contains("upgrade: echo") {
            let _ = stream.write_all(OK.as_bytes());
            return;
        }
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhi")
            .unwrap();
        let mut buffer = [0; 100];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..n]).unwrap();
        }
        let _ = stream.write_all(b"bye");
    });
    let asks = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nfirst";
    let mut one = plan(&[backend.address]);
    let world = World::new(one.clone());
    let mut client = world.connect();
    client.send(asks);
    assert_eq!(client.reply("GET").status, 200, "without the route's leave it is a request like others");
    one.routes[0].upgrade = true;
    let world = World::new(one);
    let mut client = world.connect();
    client.send(asks);
    let reply = client.reply("GET");
    assert_eq!((reply.status, reply.field("upgrade")), (101, Some("echo")));
    let mut came = [0; 7];
    client.stream.read_exact(&mut came).unwrap();
    assert_eq!(&came, b"hifirst");
    client.send(b"second");
    client.stream.read_exact(&mut came[..6]).unwrap();
    assert_eq!(&came[..6], b"second");
    // One direction ends, the other goes on.
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), (b"bye".to_vec(), true));
}

#[test]
fn connections_are_passed_through_with_their_ends() {
    let backend = Backend::start(|stream, _| {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).is_ok() {
            all.reverse();
            let _ = stream.write_all(&all);
        }
    });
    let mut one = plan(&[backend.address]);
    one.listeners.push(listener("raw", ListenerKind::Tcp { service: 0 }));
    one.listeners.push(listener("dead", ListenerKind::Tcp { service: 1 }));
    one.services.push(service("dead", &[nobody()]));
    one.routes[0].connect = true;
    let world = World::new(one);
    let mut client = world.connect_to("raw");
    let body: Vec<u8> = (0..1_000_000).map(|n| (n % 251) as u8).collect();
    client.send(&body);
    client.stream.shutdown(Shutdown::Write).unwrap();
    let (came, clean) = client.rest();
    assert!(clean && came.iter().rev().eq(body.iter()));
    // CONNECT is the same behind an answer.
    let mut client = world.connect();
    client.send(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nabc");
    assert_eq!(read_head(&mut client.stream).unwrap(), "HTTP/1.1 200 Connection Established\r\n\r\n");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), (b"cba".to_vec(), true));
    // Nobody is there: that is no end of a conversation.
    assert!(!world.connect_to("dead").rest().1);
}

#[test]
fn a_proxy_that_stops_finishes_what_is_under_way() {
    let (tell, told) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let backend = Backend::start(move |stream, _| {
        let _ = read_head(stream);
        tell.send(()).unwrap();
        gone.lock().unwrap().recv().unwrap();
        let _ = stream.write_all(OK.as_bytes());
    });
    let world = World::new(plan(&[backend.address]));
    let (mut client, mut idle) = (world.connect(), world.connect());
    client.send(GET.as_bytes());
    told.recv().unwrap();
    let stopping = std::thread::spawn(move || world.proxy.stop());
    assert_eq!(idle.rest(), (Vec::new(), true), "who waits for nothing is closed");
    go.send(()).unwrap();
    let reply = client.reply("GET");
    assert_eq!((reply.text().as_str(), reply.field("connection")), ("ok", Some("close")));
    drop(client);
    stopping.join().unwrap();
}

#[test]
fn routes_rewrite_and_split() {
    let (one, two) =
        (Backend::answering(OK), Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"));
    let mut plan = plan(&[one.address]);
    plan.services.push(service("two", &[two.address]));
    plan.routes = vec![route("one", 0), route("two", 1), route("both", 0)];
    plan.routes[1].rewrite = Some(("/two".into(), "/".into()));
    plan.routes[2].split = mesh::route::Split::new(&[(0, 1), (1, 1)]).unwrap();
    let rules = [rule("*", "/"), rule("*", "/two"), rule("*.example.org", "/")];
    plan.index = mesh::route::Routes::new(&rules).unwrap();
    let world = World::new(plan);
    let ask =
        |host: &str, path: &str| world.ask(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).text();
    assert_eq!(
        (ask("a", "/x").as_str(), ask("a", "/two/x?y").as_str(), ask("a", "/twofold").as_str()),
        ("ok", "two", "ok")
    );
    assert!(two.seen().starts_with("GET /x?y HTTP/1.1\r\n"), "{}", two.seen());
    assert_eq!(ask("a", "http://b/two?z"), "two");
    assert!(two.seen().contains("GET /?z HTTP/1.1\r\nhost: b\r\n"), "{}", two.seen());
    let texts: Vec<String> = (0..40).map(|_| ask("x.example.org", "/")).collect();
    assert!(["ok", "two"].iter().all(|text| texts.iter().any(|found| found == text)), "{texts:?}");
}

#[test]
fn more_clients_than_there_may_be_wait_until_one_leaves() {
    let backend = Backend::answering(OK);
    let mut one = plan(&[backend.address]);
    one.limits.clients_max = 2;
    let world = World::new(one);
    let (mut first, mut second, mut third) = (world.connect(), world.connect(), world.connect());
    for client in [&mut first, &mut second] {
        client.send(GET.as_bytes());
        assert_eq!(client.reply("GET").status, 200);
    }
    third.send(GET.as_bytes());
    drop(first);
    assert_eq!(third.reply("GET").status, 200);
    assert!(world.meters.sum(|meters| meters.pauses.get()) > 0);
    second.send(GET.as_bytes());
    assert_eq!(second.reply("GET").status, 200);
}

#[test]
fn an_endpoint_that_dies_under_load_costs_no_request() {
    let dead = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
    let served = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let order = std::sync::atomic::Ordering::SeqCst;
    let backends: Vec<Backend> = (0..5)
        .map(|number| {
            let (dead, served) = (dead.clone(), served.clone());
            Backend::start(move |stream, _| {
                while read_head(stream).is_some() {
                    // From then on it ends its connections in the middle of requests, and new ones at once.
                    if number == 0 && dead.load(order) {
                        return;
                    }
                    served.fetch_add(1, order);
                    let _ = stream.write_all(OK.as_bytes());
                }
            })
        })
        .collect();
    let world = World::new(plan(&backends.iter().map(|backend| backend.address).collect::<Vec<_>>()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = world.connect();
                for n in 0..200 {
                    client.send(GET.as_bytes());
                    assert_eq!(client.reply("GET").status, 200, "request {n}");
                    dead.fetch_or(served.load(order) > 200, order);
                }
            });
        }
    });
    // The control: some tries did fail.
    let failures: u64 = world.meters.endpoints().iter().map(|one| one.counts[1]).sum();
    assert!(failures > 0);
}

#[test]
fn endpoints_that_are_found_elsewhere_come_and_go() {
    let (one, two) =
        (Backend::answering(OK), Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"));
    let mut next = plan(&[]);
    next.services[0].discovered = true;
    let mut world = World::new(next.clone());
    assert_eq!(world.ask(GET).reason(), "no-endpoint");
    for (address, text) in [(one.address, "ok"), (two.address, "two")] {
        world.proxy.discover(|_| vec![proxy::EndpointPlan { address, weight: 1, node: None }]).unwrap();
        // The threads follow when they are woken.
        while world.ask(GET).text() != text {}
    }
    // Another plan keeps what was found.
    next.limits.idle_ms = 50_000;
    world.proxy.follow(next).unwrap();
    let before = world.proxy.generation();
    world
        .proxy
        .discover(|_| vec![proxy::EndpointPlan { address: two.address, weight: 1, node: None }])
        .unwrap();
    assert_eq!(world.proxy.generation(), before, "nothing was new");
    assert_eq!(world.ask(GET).text(), "two");
    world.proxy.discover(|_| Vec::new()).unwrap();
    while world.ask(GET).reason() != "no-endpoint" {}
}
