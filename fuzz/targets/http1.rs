//! What clients and servers send a proxy: heads and bodies, in any pieces. What goes on is read by whoever gets it as it
//! was read here, or a request could be smuggled in it.
#![no_main]

use fuzz::Bytes;
use wire::http1::{
    Body, Chunks, Connection, ForwardedBy, Frame, Headers, Onward, Part, Relay, Request, Response, Target,
    Trace, frame, request, response,
};

/// A `traceparent` of the proxy's own.
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    match input.byte() % 4 {
        0 => asked(&mut input),
        1 => answered(&mut input),
        2 => carried(&mut input),
        _ => raw(&mut input),
    }
});

/// Fields as clients, and those who would fool a proxy, send them.
const LINES: &[&str] = &[
    "host: a\r\n",
    "host: b:80\r\n",
    "content-length: 0\r\n",
    "content-length: 7\r\n",
    "Content-Length: +4\r\n",
    "content-length: 7, 7\r\n",
    "transfer-encoding: chunked\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "transfer-encoding: chunked, identity\r\n",
    "transfer-encoding : chunked\r\n",
    "connection: close, x-own\r\n",
    "connection: content-length, transfer-encoding\r\n",
    "connection: host\r\n",
    "connection: upgrade\r\n",
    "upgrade: websocket\r\n",
    "x-own: 1\r\n",
    "x-forwarded-for: 10.0.0.1\r\n",
    "expect: 100-continue\r\n",
    "te: trailers\r\n",
    " folded\r\n",
    "x-bare: 1\n",
    "x-cr: 1\r2\r\n",
    "trailer: host\r\n",
    "keep-alive: 5\r\n",
];

/// A head of known lines and arbitrary bytes.
fn head(first: &[u8], input: &mut Bytes<'_>) -> Vec<u8> {
    let mut bytes = first.to_vec();
    bytes.extend_from_slice(b"\r\n");
    for _ in 0..input.byte() % 12 {
        match input.byte() {
            255 => bytes.extend_from_slice(input.piece()),
            254 => {
                bytes.extend_from_slice(input.piece());
                bytes.extend_from_slice(b": ");
                bytes.extend_from_slice(input.piece());
                bytes.extend_from_slice(b"\r\n");
            }
            n => bytes.extend_from_slice(LINES[usize::from(n) % LINES.len()].as_bytes()),
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(input.piece());
    bytes
}

fn asked(input: &mut Bytes<'_>) {
    const FIRST: &[&str] = &[
        "GET / HTTP/1.1",
        "POST /a?b HTTP/1.1",
        "HEAD http://c:1/d HTTP/1.1",
        "GET http://c?e HTTP/1.0",
        "OPTIONS * HTTP/1.1",
        "CONNECT c:443 HTTP/1.1",
        "PUT /%00 HTTP/1.0",
    ];
    let first = match input.byte() {
        255 => input.piece(),
        n => FIRST[usize::from(n) % FIRST.len()].as_bytes(),
    };
    let bytes = head(first, input);
    one_request(&bytes, input.byte() % 2 == 0);
}

fn raw(input: &mut Bytes<'_>) {
    let trusted = input.byte() % 2 == 0;
    one_request(input.rest(), trusted);
}

fn one_request(bytes: &[u8], trusted: bool) {
    let mut room = Headers::new();
    let Ok(Some(head)) = Request::parse(bytes, &mut room) else { return };
    for cut in [0, 1, head.bytes / 2, head.bytes - 1] {
        let mut room = Headers::new();
        let before = Request::parse(&bytes[..cut], &mut room);
        assert!(matches!(before, Ok(None)), "a part of a sound head is not refused");
    }
    let path = match head.target {
        Target::Path(path) => ("", path),
        Target::Absolute { path, .. } if path.starts_with('/') => ("", path),
        Target::Absolute { path, .. } => ("/", path),
        Target::Asterisk => ("", "*"),
        // Neither is sent on as a request.
        Target::Authority(_) => return,
    };
    if head.host.is_empty() {
        return;
    }
    let onward = Onward {
        path,
        client: "10.9.8.7",
        scheme: "http",
        trusted: trusted.then_some(ForwardedBy::XForwardedFor),
        certificate: None,
        via: "proxy",
        trace: [Trace::Begun(TRACE), Trace::Joined(TRACE), Trace::Anew(TRACE)][head.headers.len() % 3],
        upgrade: head.upgrade.is_some(),
    };
    let mut out = Vec::new();
    request(&head, &onward, &mut out);
    let mut room = Headers::new();
    match Request::parse(&out, &mut room) {
        Ok(Some(next)) => {
            assert_eq!(next.bytes, out.len(), "it is one head and nothing else");
            assert_eq!((next.method, next.host, next.body), (head.method, head.host, head.body));
            assert!(head.lists || next.expects_continue == head.expects_continue);
            assert!(next.upgrade == head.upgrade && next.keep_alive);
            let names = || next.headers.iter().map(|one| one.name);
            let count = |name: &str| names().filter(|one| one.eq_ignore_ascii_case(name)).count();
            assert_eq!(count("host"), 1);
            assert!(count("content-length") + count("transfer-encoding") <= 1);
            assert!(trusted || count("x-forwarded-for") == 1, "a stranger is not believed");
            for hop in ["te", "trailer", "keep-alive", "proxy-connection"] {
                assert_eq!(count(hop), 0, "{hop} is of one connection");
            }
        }
        // What is added may make it too large for another of our kind, and no more than that.
        Err(error) => assert_eq!(error.status(), 431, "{error}"),
        Ok(None) => panic!("a head that has no end was sent on"),
    }
}

fn answered(input: &mut Bytes<'_>) {
    const FIRST: &[&str] = &[
        "HTTP/1.1 200 OK",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 204 No Content",
        "HTTP/1.1 304 Not Modified",
        "HTTP/1.1 101 Switching Protocols",
        "HTTP/1.1 100 Continue",
        "HTTP/1.1 999",
    ];
    let method = ["GET", "HEAD", "CONNECT", "POST"][usize::from(input.byte() % 4)];
    let first = match input.byte() {
        255 => input.piece(),
        n => FIRST[usize::from(n) % FIRST.len()].as_bytes(),
    };
    let bytes = head(first, input);
    let mut room = Headers::new();
    let Ok(Some(head)) = Response::parse(method, &bytes, &mut room) else { return };
    for client in [wire::http1::Version::Http10, wire::http1::Version::Http11] {
        let to = frame(head.body, client);
        let mut out = Vec::new();
        response(&head, to, Connection::Default, &mut out);
        let mut room = Headers::new();
        match Response::parse(method, &out, &mut room) {
            Ok(Some(next)) => {
                assert_eq!((next.bytes, next.status), (out.len(), head.status));
                let body = match to {
                    Frame::Plain => head.body,
                    Frame::Chunked => Body::Chunked,
                    Frame::UntilClose => Body::UntilClose,
                };
                assert_eq!(next.body, body);
            }
            Err(error) => assert_eq!(error.status(), 431, "{error}"),
            Ok(None) => panic!("a head that has no end was sent on"),
        }
    }
}

/// What a relay made of a body.
#[derive(Debug, PartialEq, Eq)]
struct Carried {
    content: Vec<u8>,
    /// How many bytes it took, and whether it ended; `None`: it is broken.
    end: Option<(usize, bool)>,
    /// Lines of the trailer that go on.
    trailers: Vec<u8>,
}

fn relay(mut relay: Relay, to: Frame, bytes: &[u8], cuts: &mut Bytes<'_>) -> Carried {
    let (mut out, mut taken) = (Vec::new(), 0);
    while taken < bytes.len() && !relay.has_ended() {
        let left = bytes.len() - taken;
        let length = if cuts.is_empty() { left } else { usize::from(cuts.byte()).clamp(1, left) };
        let Ok(some) = relay.pass(&bytes[taken..taken + length], &mut out) else {
            return Carried { content: content(to, &out, false), end: None, trailers: Vec::new() };
        };
        assert!(some == length || relay.has_ended(), "what is left over is behind the end");
        taken += some;
    }
    let ended = relay.has_ended();
    let trailers: Vec<u8> = if ended { relay.trailers().flatten().copied().collect() } else { Vec::new() };
    if to == Frame::Chunked && ended && !out.is_empty() {
        let mut next = Relay::new(Body::Chunked, Frame::Plain).with_trailers();
        let read = next.pass(&out, &mut Vec::new());
        assert!(read == Ok(out.len()) && next.has_ended(), "who is next reads what was written");
        assert!(next.trailers().flatten().eq(&trailers), "and the same behind it");
    }
    Carried { content: content(to, &out, ended && !out.is_empty()), end: Some((taken, ended)), trailers }
}

/// The content of what was written, which is whole if it is said to be.
fn content(to: Frame, out: &[u8], whole: bool) -> Vec<u8> {
    if to != Frame::Chunked {
        return out.to_vec();
    }
    let (mut chunks, mut at, mut content) = (Chunks::new(), 0, Vec::new());
    loop {
        match chunks.next(out, at).expect("what was written is sound") {
            Part::Content(range) => {
                at = range.end;
                content.extend_from_slice(&out[range]);
            }
            Part::Trailer(range) => at = range.end,
            Part::More => break,
            Part::End(end) => {
                assert_eq!(end, out.len(), "nothing is behind the end");
                break;
            }
        }
    }
    assert_eq!(chunks.has_ended(), whole, "it ends if the body did, and only then");
    content
}

fn carried(input: &mut Bytes<'_>) {
    let body = match input.byte() % 4 {
        0 => Body::Length(input.u64().max(1)),
        1 => Body::UntilClose,
        _ => Body::Chunked,
    };
    let cuts = input.piece().to_vec();
    let bytes = if input.byte() % 2 == 0 { written(input) } else { input.rest().to_vec() };
    let ones = vec![1; bytes.len()];
    for trailers in [false, true] {
        let of = |to| {
            let relay = Relay::new(body, to);
            if trailers { relay.with_trailers() } else { relay }
        };
        let plain = relay(of(Frame::Plain), Frame::Plain, &bytes, &mut Bytes::new(&[]));
        for (to, cuts) in [(Frame::Plain, &cuts), (Frame::Chunked, &cuts), (Frame::Chunked, &ones)] {
            assert_eq!(plain, relay(of(to), to, &bytes, &mut Bytes::new(cuts)));
        }
        assert!(trailers || plain.trailers.is_empty(), "they go on only if they are asked for");
        for line in plain.trailers.split_inclusive(|&byte| byte == b'\n') {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default().to_ascii_lowercase();
            let framing: [&[u8]; 5] =
                [b"content-length", b"transfer-encoding", b"host", b"connection", b"te"];
            assert!(!framing.contains(&&name[..]), "nothing that frames or routes stands behind a body");
        }
    }
}

/// Chunks that are mostly sound.
fn written(input: &mut Bytes<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !input.is_empty() {
        let piece = input.piece();
        match input.byte() {
            0 => bytes.extend_from_slice(piece),
            1 => bytes.extend_from_slice(format!("{:x};a=b\r\n", piece.len()).as_bytes()),
            _ => bytes.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes()),
        }
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
        if input.byte() % 8 == 0 {
            bytes.extend_from_slice(b"0\r\n");
            for _ in 0..input.byte() % 4 {
                bytes.extend_from_slice(LINES[usize::from(input.byte()) % LINES.len()].as_bytes());
            }
            bytes.extend_from_slice(b"\r\n");
        }
    }
    bytes
}
