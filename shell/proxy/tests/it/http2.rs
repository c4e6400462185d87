//! HTTP/2 at both edges: requests, bodies, trailers, calls of gRPC, and clients that mean no good.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response};
use mesh::route::Routes;
use tokio::runtime::{Builder, Runtime};

use crate::world::{Backend, Client, PATIENCE, World, nobody, plan, read_head, rule};

/// What a client of HTTP/2 begins with, before its settings.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-From: here\r\n\r\nok";

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub fn within<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("it ends") })
}

pub fn address(world: &World) -> SocketAddr {
    world.proxy.addresses()[0].1
}

/// A connection that knows what it will meet.
pub async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move {
        // How it ends shows in its streams.
        let _ = connection.await;
    });
    send.ready().await.unwrap()
}

pub fn request(method: Method, path: &str) -> Request<()> {
    let uri = format!("http://a.example{path}");
    Request::builder().method(method).uri(uri).body(()).unwrap()
}

pub async fn content(recv: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = recv.data().await {
        let data = match data {
            Ok(data) => data,
            // The rest of the request was not wanted, and the response is whole (RFC 9113, 8.1).
            Err(error) if error.reason() == Some(Reason::NO_ERROR) => break,
            Err(error) => return Err(error),
        };
        recv.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// What a request without a body is answered: status, fields, body.
pub async fn ask(
    send: &mut SendRequest<Bytes>,
    request: Request<()>,
) -> Result<(u16, HeaderMap, Vec<u8>), h2::Error> {
    let (response, _) = send.send_request(request, true)?;
    let (parts, mut recv) = response.await?.into_parts();
    let body = content(&mut recv).await?;
    Ok((parts.status.as_u16(), parts.headers, body))
}

/// A server of HTTP/2 without TLS; `serve` is called for each request.
pub fn service<F, W>(serve: F) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Fn(Request<RecvStream>, h2::server::SendResponse<Bytes>) -> W + Send + Sync + 'static,
    W: Future<Output = ()> + 'static,
{
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&connections);
    std::thread::spawn(move || {
        let tasks = tokio::task::LocalSet::new();
        runtime().block_on(tasks.run_until(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let serve = std::rc::Rc::new(serve);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let serve = std::rc::Rc::clone(&serve);
                tokio::task::spawn_local(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::task::spawn_local(serve(request, respond));
                    }
                });
            }
        }));
    });
    (address, connections)
}

/// Sends data when there is room for it.
pub async fn send_all(
    stream: &mut h2::SendStream<Bytes>,
    mut data: Bytes,
    end: bool,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(room) => room?,
            None => return Err(Reason::CANCEL.into()),
        };
        let piece = data.split_to(room.min(data.len()));
        stream.send_data(piece, end && data.is_empty())?;
    }
    Ok(())
}

/// A plan whose service speaks HTTP/2.
pub fn http2_plan(address: SocketAddr) -> proxy::Plan {
    let mut plan = plan(&[address]);
    plan.services[0].http2 = true;
    plan
}

#[test]
fn requests_of_many_streams_are_answered_each_with_its_own() {
    let backend = Backend::start(|stream, _| {
        while let Some(head) = read_head(stream) {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-From: here\r\n\r\n{path}",
                path.len()
            );
        }
    });
    let world = World::new(plan(&[backend.address]));
    within(async {
        let mut send = connect(address(&world)).await;
        let mut waiting = Vec::new();
        for number in 0..60 {
            let (response, _) =
                send.send_request(request(Method::GET, &format!("/{number}?q")), true).unwrap();
            waiting.push(response);
        }
        for (number, response) in waiting.into_iter().enumerate() {
            let (parts, mut recv) = response.await.unwrap().into_parts();
            assert_eq!((parts.status.as_u16(), &parts.headers["x-from"]), (200, &"here".parse().unwrap()));
            assert_eq!(content(&mut recv).await.unwrap(), format!("/{number}?q").into_bytes());
        }
        // The connection goes on.
        assert_eq!(ask(&mut send, request(Method::GET, "/x")).await.unwrap().2, b"/x");
        let (status, _, body) = ask(&mut send, request(Method::HEAD, "/x")).await.unwrap();
        assert_eq!((status, body), (200, Vec::new()));
    });
    let routes = world.meters.routes();
    assert_eq!(routes[0].classes[2], 62);
}

#[test]
fn what_is_sent_on_is_what_was_understood() {
    let backend = Backend::answering(OK);
    let world = World::new(plan(&[backend.address]));
    within(async {
        let mut send = connect(address(&world)).await;
        let mut one = request(Method::GET, "/p");
        one.headers_mut().append("cookie", "a=1".parse().unwrap());
        one.headers_mut().append("cookie", "b=2".parse().unwrap());
        one.headers_mut().append("te", "trailers".parse().unwrap());
        one.headers_mut().append("x-forwarded-for", "9.9.9.9".parse().unwrap());
        assert_eq!(ask(&mut send, one).await.unwrap().0, 200);
    });
    let seen = backend.seen();
    assert!(seen.starts_with("GET /p HTTP/1.1\r\nhost: a.example\r\n"), "{seen}");
    assert!(
        seen.contains("cookie: a=1; b=2\r\n") && seen.contains("x-forwarded-for: 127.0.0.1\r\n"),
        "{seen}"
    );
    assert!(!seen.contains("te: ") && !seen.contains("9.9.9.9"), "{seen}");
}

#[test]
fn large_bodies_go_through_both_ways_within_the_windows() {
    let backend = Backend::start(|stream, _| {
        while let Some(head) = read_head(stream) {
            let mut client = Client { stream: stream.try_clone().unwrap() };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let body = match length {
                None => client.chunked_body(),
                Some(length) => {
                    let mut body = vec![0; length.parse().unwrap()];
                    stream.read_exact(&mut body).unwrap();
                    body
                }
            };
            if length.is_none() {
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(&body);
            } else {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for piece in body.chunks(50_000) {
                    let _ = write!(stream, "{:x}\r\n", piece.len());
                    let _ = stream.write_all(piece);
                    let _ = stream.write_all(b"\r\n");
                }
                let _ = stream.write_all(b"0\r\n\r\n");
            }
        }
    });
    let world = World::new(plan(&[backend.address]));
    let body: Bytes = (0..2_000_000_u32).map(|at| (at * 7 % 251) as u8).collect::<Vec<u8>>().into();
    within(async {
        let mut send = connect(address(&world)).await;
        for says_length in [false, true] {
            let mut one = request(Method::POST, "/");
            if says_length {
                one.headers_mut().append("content-length", body.len().into());
            }
            let (response, mut stream) = send.send_request(one, false).unwrap();
            let sent = body.clone();
            let sending = async { send_all(&mut stream, sent, true).await.unwrap() };
            let (back, ()) = tokio::join!(
                async {
                    let (_, mut recv) = response.await.unwrap().into_parts();
                    content(&mut recv).await.unwrap()
                },
                sending
            );
            assert!(back == body, "it comes back as it was, of {}", back.len());
        }
    });
}

#[test]
fn a_response_that_is_cut_is_reset_and_never_ends_well() {
    let backend = Backend::start(|stream, _| {
        let _ = read_head(stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart");
    });
    let world = World::new(plan(&[backend.address]));
    within(async {
        let mut send = connect(address(&world)).await;
        let answer = ask(&mut send, request(Method::GET, "/")).await;
        assert!(answer.is_err(), "{answer:?}");
    });
}

#[test]
fn what_cannot_be_routed_or_read_is_answered_and_the_connection_goes_on() {
    let mut plan = plan(&[nobody()]);
    plan.index = mesh::route::Routes::new(&[crate::world::rule("*", "/there")]).unwrap();
    plan.routes[0].retry.tries_max = 1;
    let world = World::new(plan);
    within(async {
        let mut send = connect(address(&world)).await;
        let (status, fields, _) = ask(&mut send, request(Method::GET, "/elsewhere")).await.unwrap();
        assert_eq!((status, &fields["x-archipel-reason"]), (404, &"no-route".parse().unwrap()));
        let (status, fields, _) = ask(&mut send, request(Method::GET, "/there")).await.unwrap();
        assert_eq!((status, &fields["x-archipel-reason"]), (502, &"connect-failed".parse().unwrap()));
        let mut two_hosts = request(Method::GET, "/there");
        two_hosts.headers_mut().append("host", "b.example".parse().unwrap());
        assert_eq!(ask(&mut send, two_hosts).await.unwrap().0, 400);
        for second in ["a.example", "b.example"] {
            // The first agrees with what the request is for; who reads the second is none of ours.
            let mut many_hosts = request(Method::GET, "/there");
            many_hosts.headers_mut().append("host", "a.example".parse().unwrap());
            many_hosts.headers_mut().append("host", second.parse().unwrap());
            assert_eq!(ask(&mut send, many_hosts).await.unwrap().0, 400, "{second}");
        }
        let tunnel = Request::builder().method(Method::CONNECT).uri("a.example:1").body(()).unwrap();
        assert_eq!(ask(&mut send, tunnel).await.unwrap().0, 405);
        let mut many = request(Method::GET, "/there");
        for number in 0..150 {
            let name: http::HeaderName = format!("x-{number}").parse().unwrap();
            many.headers_mut().append(name, "y".parse().unwrap());
        }
        assert_eq!(ask(&mut send, many).await.unwrap().0, 431);
        let mut large = request(Method::GET, "/there");
        large.headers_mut().append("x-large", "y".repeat(40_000).parse().unwrap());
        let answer = ask(&mut send, large).await;
        assert!(answer.is_err() || answer.unwrap().0 == 431, "a list of fields has a bound");
        // A call of gRPC is told in its own way.
        let mut call = request(Method::POST, "/there/x");
        call.headers_mut().append("content-type", "application/grpc+proto".parse().unwrap());
        let (status, fields, _) = ask(&mut send, call).await.unwrap();
        assert_eq!((status, &fields["grpc-status"]), (200, &"14".parse().unwrap()));
        assert_eq!(fields["grpc-message"], "connect-failed");
    });
}

#[test]
fn calls_of_grpc_go_through_with_trailers_and_stream_both_ways() {
    let seen = Arc::<Mutex<Vec<HeaderMap>>>::default();
    let here = Arc::clone(&seen);
    let (backend, connections) = service(move |request, mut respond| {
        let here = Arc::clone(&here);
        async move {
            let (parts, mut recv) = request.into_parts();
            here.lock().unwrap().push(parts.headers);
            let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut send = respond.send_response(response, false).unwrap();
            // Each message is answered before the next one comes.
            while let Some(data) = recv.data().await {
                let data = data.unwrap();
                recv.flow_control().release_capacity(data.len()).unwrap();
                send_all(&mut send, data, false).await.unwrap();
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "7".parse().unwrap());
            trailers.insert("grpc-message", "no".parse().unwrap());
            send.send_trailers(trailers).unwrap();
        }
    });
    let world = World::new(http2_plan(backend));
    within(async {
        let mut send = connect(address(&world)).await;
        for _ in 0..3 {
            let mut call = request(Method::POST, "/pkg.Service/Call");
            call.headers_mut().append("content-type", "application/grpc".parse().unwrap());
            let (response, mut stream) = send.send_request(call, false).unwrap();
            let (parts, mut recv) = response.await.unwrap().into_parts();
            assert_eq!(parts.headers["content-type"], "application/grpc");
            for number in 0..5_u8 {
                let message = Bytes::from(vec![number; 10]);
                send_all(&mut stream, message.clone(), false).await.unwrap();
                let mut back = Vec::new();
                while back.len() < message.len() {
                    let data = recv.data().await.unwrap().unwrap();
                    recv.flow_control().release_capacity(data.len()).unwrap();
                    back.extend_from_slice(&data);
                }
                assert_eq!(back, message);
            }
            stream.send_data(Bytes::new(), true).unwrap();
            assert!(content(&mut recv).await.unwrap().is_empty());
            let trailers = recv.trailers().await.unwrap().expect("trailers");
            assert_eq!(
                (&trailers["grpc-status"], &trailers["grpc-message"]),
                (&"7".parse().unwrap(), &"no".parse().unwrap())
            );
        }
    });
    let seen = seen.lock().unwrap();
    assert_eq!((seen.len(), connections.load(Ordering::SeqCst)), (3, 1), "all calls share a connection");
    assert!(seen.iter().all(|fields| fields["te"] == "trailers"));
}

#[test]
fn trailers_of_a_call_come_behind_a_body_whose_length_was_said() {
    let (backend, _) = service(|request, mut respond| async move {
        let grpc = request.uri().path() == "/grpc";
        let response = Response::builder()
            .header("content-type", if grpc { "application/grpc" } else { "text/plain" })
            .header("content-length", "5");
        let mut send = respond.send_response(response.body(()).unwrap(), false).unwrap();
        send_all(&mut send, Bytes::from_static(b"hello"), !grpc).await.unwrap();
        if grpc {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            send.send_trailers(trailers).unwrap();
        }
    });
    let world = World::new(http2_plan(backend));
    within(async {
        let mut send = connect(address(&world)).await;
        for (path, trailed) in [("/grpc", true), ("/plain", false)] {
            let (response, _) = send.send_request(request(Method::POST, path), true).unwrap();
            let (parts, mut recv) = response.await.unwrap().into_parts();
            assert_eq!(content(&mut recv).await.unwrap(), b"hello");
            let status = recv.trailers().await.unwrap().map(|trailers| trailers["grpc-status"].clone());
            assert_eq!(status, trailed.then(|| "0".parse().unwrap()), "{path}");
            // Others keep their length, by which a client knows how far it is.
            assert_eq!(parts.headers.contains_key("content-length"), !trailed, "{path}");
        }
    });
}

#[test]
fn a_client_of_http1_is_answered_by_a_service_of_http2() {
    let (backend, _) = service(|request, mut respond| async move {
        let body = request.uri().path().to_owned();
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        send_all(&mut send, body.into(), true).await.unwrap();
    });
    let world = World::new(http2_plan(backend));
    let mut client = world.connect();
    for path in ["/a", "/bc"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let reply = client.reply("GET");
        assert_eq!((reply.status, reply.text().as_str()), (200, path));
    }
    client.send(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.reply("POST").text(), "/up");
}

#[test]
fn an_answer_that_comes_before_its_request_is_whole_arrives_and_then_the_rest_is_refused() {
    let backend = Backend::answering(OK);
    let mut some = plan(&[backend.address]);
    some.index = Routes::new(&[rule("a.example", "/")]).unwrap();
    let world = World::new(some);
    within(async {
        let mut send = connect(address(&world)).await;
        for (host, status, body) in [("a.example", 200, "ok"), ("b.example", 404, "")] {
            let uri = format!("http://{host}/");
            let upload = Request::builder().method(Method::POST).uri(uri).body(()).unwrap();
            let (response, mut out) = send.send_request(upload, false).unwrap();
            let (parts, mut recv) = response.await.expect(host).into_parts();
            assert_eq!(parts.status, status);
            let came = content(&mut recv).await.unwrap();
            assert!(came.starts_with(body.as_bytes()), "{host}: {came:?}");
            assert_eq!(poll_fn(|cx| out.poll_reset(cx)).await.unwrap(), Reason::NO_ERROR, "{host}");
        }
        assert_eq!(ask(&mut send, request(Method::GET, "/")).await.unwrap().0, 200);
    });
}

#[test]
fn who_opens_and_resets_streams_is_sent_away() {
    let backend = Backend::answering(OK);
    let world = World::new(plan(&[backend.address]));
    const OPENED: usize = 2_000;
    within(async {
        let mut send = connect(address(&world)).await;
        let mut opened = 0;
        for _ in 0..OPENED {
            if poll_fn(|cx| send.poll_ready(cx)).await.is_err() {
                break;
            }
            let Ok((response, mut stream)) = send.send_request(request(Method::POST, "/"), false) else {
                break;
            };
            opened += 1;
            // It was sent before it is reset.
            tokio::task::yield_now().await;
            stream.send_reset(Reason::CANCEL);
            drop(response);
        }
        assert!(opened < OPENED || poll_fn(|cx| send.poll_ready(cx)).await.is_err(), "opened {opened}");
        let mut other = connect(address(&world)).await;
        assert_eq!(ask(&mut other, request(Method::GET, "/")).await.unwrap().0, 200, "others are served");
    });
}

#[test]
fn who_is_sent_away_for_resets_is_counted_once() {
    // What was answered before it is reset does not count as one, so nothing is.
    let backend = Backend::start(|stream, _| while read_head(stream).is_some() {});
    let world = World::new(plan(&[backend.address]));
    let mut stream = world.connect().stream;
    stream.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).unwrap();
    for id in (1..=201).step_by(2) {
        // The request is taken before it is reset, or it would be counted by the crate alone.
        let open = frame(1, 4, id, &[0x83, 0x84, 0x86, 0x41, 1, b'a']);
        stream.write_all(&[open, frame(6, 0, 0, b"archipel")].concat()).unwrap();
        while crate::trunks::next(&mut stream).expect("it is not sent away yet") != (6, 0) {}
        stream.write_all(&frame(3, 0, id, &[0, 0, 0, 8])).unwrap();
    }
    while crate::trunks::next(&mut stream).is_some() {}
    world.until("it has gone", |meters| meters.sum(|m| m.sent_away.get()) == 1);
}

#[test]
fn who_lets_its_requests_end_may_cancel_some() {
    let backend = Backend::answering(OK);
    let world = World::new(plan(&[backend.address]));
    within(async {
        let mut send = connect(address(&world)).await;
        for _ in 0..150 {
            assert_eq!(ask(&mut send, request(Method::GET, "/")).await.unwrap().0, 200);
            let (_, mut stream) = send.send_request(request(Method::POST, "/"), false).unwrap();
            stream.send_reset(Reason::CANCEL);
        }
    });
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let mut out = (content.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(content);
    out
}

#[test]
fn floods_and_frames_that_may_not_be_end_the_connection() {
    let backend = Backend::answering(OK);
    let mut plan = plan(&[backend.address]);
    plan.limits.head_ms = 500;
    let world = World::new(plan);
    let preface = [PREFACE, &frame(4, 0, 0, &[])].concat();
    let headers = frame(1, 0, 1, &[0x82, 0x84, 0x86, 0x41, 1, b'a']);
    let field = [&[0x40, 4][..], b"x-ab", &[100], &[b'y'; 100]].concat();
    let continued: Vec<u8> = (0..20_000).flat_map(|_| frame(9, 0, 1, &field)).collect();
    let empty: Vec<u8> = (0..100_000).flat_map(|_| frame(9, 0, 1, &[])).collect();
    #[rustfmt::skip] // columns
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("fields without end",      [&headers[..], &continued].concat()),
        ("continuations of none",   [&headers[..], &empty].concat()),
        ("a frame too long",        frame(0, 0, 1, &[0; 20_000])),
        ("data of no stream",       frame(0, 0, 0, b"x")),
        ("a compressed nonsense",   frame(1, 5, 1, &[0xFF; 30])),
        ("an even stream",          frame(1, 5, 2, &[0x82, 0x84, 0x86])),
        ("a preface cut short",     Vec::new()),
    ];
    for (name, bytes) in table {
        let mut stream = TcpStream::connect(address(&world)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let cut = &preface[..20];
        let begin = if name == "a preface cut short" { cut } else { &preface[..] };
        // It may be gone before it has all.
        let _ = stream.write_all(begin).and_then(|()| stream.write_all(&bytes));
        let mut sink = Vec::new();
        let ended = stream.read_to_end(&mut sink);
        assert!(!matches!(ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "{name}");
    }
    assert_eq!(backend.connections(), 0);
    // The first line of HTTP/2 behind a request is no request.
    let mut client = world.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply("GET").status, 200);
    client.send(&preface);
    assert_eq!(client.reply("GET").status, 505);
}

#[test]
fn a_client_that_takes_nothing_is_cut_and_costs_a_bounded_room() {
    let backend = Backend::start(|stream, _| {
        while read_head(stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n");
            let piece = vec![b'x'; 50_000];
            for _ in 0..1_000 {
                if stream.write_all(&piece).is_err() {
                    return;
                }
            }
        }
    });
    let mut plan = plan(&[backend.address]);
    plan.limits.body_ms = 300;
    let world = World::new(plan);
    within(async {
        let mut send = connect(address(&world)).await;
        let (response, _) = send.send_request(request(Method::GET, "/"), true).unwrap();
        let (_, mut recv) = response.await.unwrap().into_parts();
        // What came within the window is kept; no more is asked for.
        let mut came = 0;
        let error = loop {
            match recv.data().await {
                Some(Ok(data)) => came += data.len(),
                Some(Err(error)) => break error,
                None => panic!("it never ends well"),
            }
        };
        assert!(came <= 65_535, "{came}");
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    });
    let sent = world.meters.sum(|m| m.output_bytes.get());
    assert!(sent < 1_000_000, "{sent}");
}

#[test]
fn a_proxy_that_stops_lets_streams_under_way_end() {
    let backend = Backend::start(|stream, _| {
        let _ = read_head(stream);
        let mut byte = [0];
        // It answers when the test says so, by another connection.
        let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
        let _ = stream.read(&mut byte);
        let _ = stream.write_all(OK.as_bytes());
    });
    let world = World::new(plan(&[backend.address]));
    let World { proxy, .. } = world;
    let address = proxy.addresses()[0].1;
    within(async {
        let mut send = connect(address).await;
        let (response, _) = send.send_request(request(Method::GET, "/"), true).unwrap();
        while backend.connections() == 0 {
            tokio::task::yield_now().await;
        }
        let stopping = std::thread::spawn(move || proxy.stop());
        let (parts, mut recv) = response.await.unwrap().into_parts();
        assert_eq!((parts.status.as_u16(), content(&mut recv).await.unwrap()), (200, b"ok".to_vec()));
        stopping.join().unwrap();
        assert!(send.ready().await.is_err(), "it takes no more");
    });
}

#[test]
fn a_client_that_does_not_answer_the_farewell_does_not_hold_up_a_stop() {
    let backend = Backend::answering(OK);
    let mut plan = plan(&[backend.address]);
    plan.limits.drain_ms = 24 * 3600 * 1000;
    let world = World::new(plan);
    let mut client = world.connect();
    client.send(&[PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat());
    // Settings come back: it is one of HTTP/2 by now.
    client.stream.read_exact(&mut [0; 9]).unwrap();
    let (told, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        world.proxy.stop();
        let _ = told.send(());
    });
    ended.recv_timeout(PATIENCE).expect("it ends, although the client says nothing and stays");
}
