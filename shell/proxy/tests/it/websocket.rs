//! WebSocket on streams of HTTP/2 (RFC 8441), with services that speak HTTP/1.1.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{Reason, SendStream};
use http::{Method, Request};
use sha1::{Digest, Sha1};

use crate::http2::{address, ask, connect, content, request, send_all, within};
use crate::world::{Backend, World, plan, read_head};

/// A field of a head.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The proof for the key of a head, as a service gives it.
fn proof(head: &str) -> String {
    let key = field(head, "sec-websocket-key").unwrap();
    assert_eq!(STANDARD.decode(key).unwrap().len(), 16);
    STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")))
}

fn agree(stream: &mut TcpStream, head: &str) {
    let proof = proof(head);
    write!(
        stream,
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {proof}\r\n\
         Sec-WebSocket-Protocol: chat\r\n\r\n"
    )
    .unwrap();
}

/// A service that says back what comes, and `bye` at the end; the heads that it saw.
fn echo() -> (Backend, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&heads);
    let backend = Backend::start(move |stream, _| {
        let Some(head) = read_head(stream) else { return };
        agree(stream, &head);
        seen.lock().unwrap().push(head);
        let mut buffer = vec![0; 30_000];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
        let _ = stream.write_all(b"bye");
    });
    (backend, heads)
}

fn world(backend: &Backend, upgrade: bool) -> World {
    let mut plan = plan(&[backend.address]);
    plan.routes[0].upgrade = upgrade;
    World::new(plan)
}

/// What a client asks with.
fn opening(path: &str, protocol: &'static str) -> Request<()> {
    let mut request = request(Method::CONNECT, path);
    request.extensions_mut().insert(Protocol::from_static(protocol));
    let fields = request.headers_mut();
    fields.insert("sec-websocket-version", "13".parse().unwrap());
    fields.insert("sec-websocket-protocol", "chat".parse().unwrap());
    fields.insert("origin", "https://a.example".parse().unwrap());
    request
}

/// Waits for the setting that allows it.
async fn allowed(send: &SendRequest<Bytes>) {
    while !send.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
}

async fn open(send: &mut SendRequest<Bytes>, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
    allowed(send).await;
    send.send_request(opening(path, "websocket"), false).unwrap()
}

#[test]
fn bytes_go_both_ways_on_a_stream_and_each_way_ends_by_itself() {
    let (backend, heads) = echo();
    let world = world(&backend, true);
    within(async {
        let mut send = connect(address(&world)).await;
        let (response, mut out) = open(&mut send, "/chat?a=1").await;
        let (parts, mut recv) = response.await.unwrap().into_parts();
        assert_eq!(parts.status, 200);
        assert_eq!(parts.headers["sec-websocket-protocol"], "chat");
        // The proof was for the proxy, and what is of one connection of HTTP/1.1 stays there.
        for name in ["sec-websocket-accept", "upgrade", "connection"] {
            assert!(!parts.headers.contains_key(name), "{name}");
        }
        for word in ["one", "two"] {
            out.send_data(word.into(), false).unwrap();
            let came = recv.data().await.unwrap().unwrap();
            recv.flow_control().release_capacity(came.len()).unwrap();
            assert_eq!(came, word);
        }
        // Another request goes on the same connection meanwhile, and so does another tunnel.
        let (second, mut other) = open(&mut send, "/other").await;
        let mut second = second.await.unwrap().into_body();
        other.send_data("x".into(), true).unwrap();
        assert_eq!(content(&mut second).await.unwrap(), b"xbye");
        out.send_data(Bytes::new(), true).unwrap();
        assert_eq!(content(&mut recv).await.unwrap(), b"bye");
    });
    let heads = heads.lock().unwrap();
    assert!(heads[0].starts_with("GET /chat?a=1 HTTP/1.1\r\nhost: a.example\r\n"), "{}", heads[0]);
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("origin", "https://a.example"),
    ] {
        assert_eq!(field(&heads[0], name), Some(value), "{}", heads[0]);
    }
    assert_ne!(field(&heads[0], "sec-websocket-key"), field(&heads[1], "sec-websocket-key"));
    world.until("both are counted", |meters| meters.routes()[0].classes[1] == 2);
}

#[test]
fn a_client_goes_on_when_its_service_has_ended_first() {
    let came = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let told = Arc::clone(&came);
    let backend = Backend::start(move |stream, _| {
        let Some(head) = read_head(stream) else { return };
        agree(stream, &head);
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        // A reset would be an error, and nothing is told then.
        if stream.read_to_end(&mut rest).is_ok() {
            told.lock().unwrap().push(rest);
        }
    });
    let world = world(&backend, true);
    let sent: Bytes = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
    within(async {
        let mut send = connect(address(&world)).await;
        let (response, mut out) = open(&mut send, "/").await;
        let mut recv = response.await.unwrap().into_body();
        assert_eq!(content(&mut recv).await.unwrap(), b"bye");
        send_all(&mut out, sent.clone(), true).await.unwrap();
        let end = std::time::Instant::now() + crate::world::PATIENCE;
        while came.lock().unwrap().is_empty() {
            assert!(std::time::Instant::now() < end, "the service is told all");
            tokio::task::yield_now().await;
        }
    });
    assert!(came.lock().unwrap()[0] == sent);
    world.until("it is counted", |meters| meters.routes()[0].classes[1] == 1);
}

#[test]
fn much_goes_both_ways_within_the_windows() {
    let (backend, _) = echo();
    let world = world(&backend, true);
    let sent: Bytes = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
    within(async {
        let mut send = connect(address(&world)).await;
        let (response, mut out) = open(&mut send, "/").await;
        let mut recv = response.await.unwrap().into_body();
        let (done, came) = tokio::join!(send_all(&mut out, sent.clone(), true), content(&mut recv));
        done.unwrap();
        let came = came.unwrap();
        assert_eq!(came.strip_suffix(b"bye"), Some(&sent[..]));
    });
}

#[test]
fn who_does_not_agree_gives_no_tunnel() {
    #[rustfmt::skip] // columns
    let table = [
        // what the service answers                                             what the client is told
        ("HTTP/1.1 426 x\r\nContent-Length: 3\r\n\r\nold",                       426, "old"),
        ("HTTP/1.1 403 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", 403, "no"),
        ("HTTP/1.1 302 x\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n",          302, ""),
        // A client would take these for its tunnel.
        ("HTTP/1.1 200 x\r\nContent-Length: 4\r\n\r\npage",                      502, ""),
        ("HTTP/1.1 204 x\r\n\r\n",                                               502, ""),
        ("HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",  502, ""),
        ("HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", 502, ""),
    ];
    for (reply, status, body) in table {
        let backend = Backend::answering(reply);
        let world = world(&backend, true);
        within(async {
            let mut send = connect(address(&world)).await;
            let (response, mut out) = open(&mut send, "/first").await;
            // What comes before the service has agreed is nobody's, and no request.
            out.send_data("GET /second HTTP/1.1\r\nHost: a\r\n\r\n".into(), false).unwrap();
            let (parts, mut recv) = response.await.unwrap().into_parts();
            assert_eq!(
                (parts.status.as_u16(), content(&mut recv).await.unwrap()),
                (status, body.into()),
                "{reply}"
            );
            // The connection goes on, and the service has been asked for nothing else.
            let last = ask(&mut send, request(Method::GET, "/last")).await;
            assert!(last.is_ok() || status == 502, "{reply}: {last:?}");
        });
        let seen = backend.seen();
        assert!(seen.contains("/first") && !seen.contains("/second"), "{seen}");
    }
}

#[test]
fn what_is_sent_before_the_service_agrees_comes_behind_its_head() {
    let (backend, _) = echo();
    let world = world(&backend, true);
    within(async {
        let mut send = connect(address(&world)).await;
        let (response, mut out) = open(&mut send, "/").await;
        out.send_data("early".into(), true).unwrap();
        let mut recv = response.await.unwrap().into_body();
        assert_eq!(content(&mut recv).await.unwrap(), b"earlybye");
    });
}

#[test]
fn other_openings_are_refused_and_so_is_one_where_the_route_does_not_allow_it() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let open_to = world(&backend, true);
    within(async {
        let mut send = connect(address(&open_to)).await;
        let status = async |send: &mut SendRequest<Bytes>, request: Request<()>, end: bool| {
            let (response, _out) = send.send_request(request, end).unwrap();
            response.await.unwrap().status().as_u16()
        };
        allowed(&send).await;
        assert_eq!(status(&mut send, opening("/", "echo"), false).await, 501);
        assert_eq!(status(&mut send, opening("/", "websocket"), true).await, 400);
        let tunnel = Request::builder().method(Method::CONNECT).uri("a.example:1").body(()).unwrap();
        assert_eq!(status(&mut send, tunnel, false).await, 405);
    });
    assert_eq!(backend.seen(), "");
    let refused = world(&backend, false);
    within(async {
        let mut send = connect(address(&refused)).await;
        let (response, _out) = open(&mut send, "/").await;
        // The service was asked for a page and had one.
        assert_eq!(response.await.unwrap().status(), 502);
    });
    let seen = backend.seen();
    assert!(seen.starts_with("GET / HTTP/1.1\r\n") && !seen.contains("upgrade"), "{seen}");
}

#[test]
fn a_service_that_breaks_off_resets_the_stream_and_a_client_that_does_resets_the_service() {
    let ends = Arc::<Mutex<Vec<Result<usize, ErrorKind>>>>::default();
    let told = Arc::clone(&ends);
    let backend = Backend::start(move |stream, number| {
        let Some(head) = read_head(stream) else { return };
        agree(stream, &head);
        let mut word = [0; 4];
        stream.read_exact(&mut word).unwrap();
        if number == 0 {
            rustix::net::sockopt::set_socket_linger(&*stream, Some(std::time::Duration::ZERO)).unwrap();
        } else {
            stream.write_all(&word).unwrap();
            // The client cannot send its reset while this holds the lock.
            let end = stream.read(&mut word).map_err(|error| error.kind());
            told.lock().unwrap().push(end);
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
    let world = world(&backend, true);
    within(async {
        let mut send = connect(address(&world)).await;
        let (response, mut out) = open(&mut send, "/").await;
        let mut recv = response.await.unwrap().into_body();
        out.send_data("word".into(), false).unwrap();
        assert!(content(&mut recv).await.unwrap_err().is_reset());
        let (response, mut out) = open(&mut send, "/").await;
        let mut recv = response.await.unwrap().into_body();
        out.send_data("word".into(), false).unwrap();
        assert_eq!(recv.data().await.unwrap().unwrap(), "word");
        out.send_reset(Reason::CANCEL);
        let end = std::time::Instant::now() + crate::world::PATIENCE;
        while ends.lock().unwrap().is_empty() {
            assert!(std::time::Instant::now() < end, "the service is told");
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(*ends.lock().unwrap(), [Err(ErrorKind::ConnectionReset)]);
}
