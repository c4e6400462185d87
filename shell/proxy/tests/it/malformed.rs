//! Requests that two servers could read differently, or that none should read: refused, closed, and not a byte sent on.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wire::http1::HEADERS_MAX;

use crate::world::{Backend, World, plan};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn post(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")
}

/// Fields that no request may have.
const FIELDS: &[&str] = &[
    "Content-Length: 4\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 4",
    "Content-Length: 4\r\nContent-Length: 5",
    "Content-Length: 4\r\nContent-Length: 4",
    "Content-Length: +4",
    "Content-Length: -4",
    "Content-Length: 4, 4",
    "Content-Length: 4 4",
    "Content-Length: 0x4",
    "Content-Length: 4;",
    "Content-Length:",
    "Content-Length: 18446744073709551616",
    "Content-Length : 4",
    "Content-Length\t: 4",
    " Content-Length: 4",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding:\u{b}chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding: ",
    "X: a\r\n folded",
    "X: a\r\n\tfolded",
    "X: a\0b",
    "X: a\u{1}b",
    "X: a\u{7f}b",
    "X\0: a",
    "X(: a",
    "X Y: a",
    "X: a\rb: c",
    "X: a\nContent-Length: 4",
    ": a",
    "no colon",
    "Host: b",
    "Expect: 200-maybe",
];

/// Whole heads that are none.
const WHOLE: &[&str] = &[
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\n",
    "GET / HTTP/1.1\nHost: a\r\n\r\n",
    "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /#f HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
    "GET / http/1.1\r\nHost: a\r\n\r\n",
    "GET /\r\n\r\n",
    "G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "PRI * HTTP/2.0\r\nHost: a\r\n\r\n",
    "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\r\n\r\n",
    "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
];

/// Heads that are refused.
fn heads() -> Vec<String> {
    let mut heads: Vec<String> = FIELDS.iter().map(|fields| post(fields)).collect();
    heads.extend(WHOLE.iter().map(|&head| head.to_owned()));
    heads.push(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(70_000)));
    heads.push(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(2 * HEADERS_MAX)));
    heads.push(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(17_000)));
    heads.push(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", "x,".repeat(40)));
    heads
}

#[test]
fn a_bad_head_is_refused_closed_and_not_sent_on() {
    let backend = Backend::answering(OK);
    let world = World::new(plan(&[backend.address]));
    let heads = heads();
    assert!(heads.len() > 60);
    for head in &heads {
        let mut client = world.connect();
        // What follows could be smuggled in as a request of its own.
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        // A long one may be refused before it was taken.
        let _ = client.stream.write_all(format!("{head}{smuggled}").as_bytes());
        let reply = client.reply("GET");
        assert!((400..600).contains(&reply.status), "{head:?}: {reply:?}");
        assert_eq!((reply.reason(), reply.field("connection")), ("malformed", Some("close")), "{head:?}");
        let (rest, _) = client.rest();
        assert!(rest.is_empty(), "{head:?} was answered twice: {rest:?}");
    }
    assert_eq!((backend.connections(), backend.seen().as_str()), (0, ""));
    // The control: a good one arrives.
    assert_eq!(world.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    assert_eq!(backend.connections(), 1);
}

/// Bodies in chunks that break their grammar behind a good beginning.
const BODIES: [&str; 14] = [
    "4\r\nwiki\r\nxyz\r\n",
    "4\r\nwikis\r\n",
    "3\r\nwiki\r\n",
    "4\nwiki\r\n0\r\n\r\n",
    "4\r\nwiki\n0\r\n\r\n",
    "+4\r\nwiki\r\n0\r\n\r\n",
    "-4\r\nwiki\r\n0\r\n\r\n",
    "0x4\r\nwiki\r\n0\r\n\r\n",
    "10000000000000000\r\nwiki",
    "fffffffffffffffff\r\nwiki",
    "4;a\nwiki\r\n0\r\n\r\n",
    "4;\u{1}\r\nwiki\r\n0\r\n\r\n",
    "0\r\nX : y\r\n\r\n",
    "0\r\n\n",
];

#[test]
fn a_bad_body_never_ends_cleanly_and_its_connection_is_never_used_again() {
    let ended = Arc::<AtomicBool>::default();
    let told = Arc::clone(&ended);
    let backend = Backend::start(move |stream, _| {
        // What arrives in a request's place is told in the answer's body.
        let mut count = 0;
        while let Some(head) = crate::world::read_head(stream) {
            if head.starts_with("POST") {
                // No good body is behind it, so there is no empty line before the connection's end.
                told.fetch_or(crate::world::read_head(stream).is_some(), Ordering::SeqCst);
                return;
            }
            count += 1;
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{count}");
        }
    });
    let world = World::new(plan(&[backend.address]));
    for body in BODIES {
        // A connection to the backend is there to be used.
        assert_eq!(world.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").text(), "1", "{body:?}");
        let mut client = world.connect();
        client.send(post("Transfer-Encoding: chunked").as_bytes());
        // The head is on its way before the body breaks.
        client.send(body.as_bytes());
        let reply = client.reply("POST");
        assert_eq!((reply.status, reply.reason()), (400, "bad-body"), "{body:?}");
        assert!(client.rest().0.is_empty());
    }
    assert!(!ended.load(Ordering::SeqCst), "a broken body came to an end");
}
