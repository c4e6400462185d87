//! What a proxy sends on: heads by table, bodies in any pieces.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

const ONWARD: Onward<'_> = Onward {
    path: ("", "/x?y"),
    client: "192.0.2.7",
    scheme: "http",
    trusted: None,
    certificate: None,
    via: "archipel",
    trace: Trace::Kept,
    upgrade: false,
};

fn sent(text: &str, onward: &Onward<'_>) -> String {
    let mut room = Headers::new();
    let head = Request::parse(text.as_bytes(), &mut room).unwrap().unwrap();
    let mut out = Vec::new();
    request(&head, onward, &mut out);
    // What is sent is a request again, of the same length.
    let mut room = Headers::new();
    let again = Request::parse(&out, &mut room).unwrap().unwrap();
    assert_eq!((again.bytes, again.body, again.host), (out.len(), head.body, head.host));
    String::from_utf8(out).unwrap()
}

const BY: &str = "x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\n";

#[test]
fn requests_go_on_without_what_is_of_their_connection() {
    #[rustfmt::skip] // columns
    let table = [
        // fields of the request                                       fields that go on
        ("Accept: a\r\nX: 1\r\nx: 2",                                  "Accept: a\r\nX: 1\r\nx: 2\r\n"),
        ("Connection: keep-alive\r\nKeep-Alive: 5\r\nTE: trailers",    ""),
        ("Proxy-Connection: x\r\nTrailer: a\r\nUpgrade: h2c",          ""),
        ("Connection: close, X-Mine\r\nX-Mine: 1\r\nX-Other: 2",       "X-Other: 2\r\n"),
        ("Connection: x-mine\r\nX-Mine: 1\r\nx-mine: 2",               ""),
        ("X-Forwarded-For: 1.2.3.4\r\nForwarded: for=x",               ""),
        ("X-Real-IP: 1.2.3.4\r\nX-Forwarded-Host: a\r\nX-Forwarded-Proto: https", ""),
        ("Expect: 100-continue",                                       ""),
        ("Authorization: b",                                           "Authorization: b\r\n"),
        ("Traceparent: 00-1-2-3",                                      "Traceparent: 00-1-2-3\r\n"),
    ];
    for (fields, expected) in table {
        let text = format!("GET /x?y HTTP/1.1\r\nHost: a:80\r\n{fields}\r\n\r\n");
        let expected = format!("GET /x?y HTTP/1.1\r\nhost: a:80\r\n{expected}{BY}via: 1.1 archipel\r\n\r\n");
        assert_eq!(sent(&text, &ONWARD), expected, "{fields}");
    }
}

#[test]
fn framing_is_written_anew_from_what_was_understood() {
    let post = |fields: &str| sent(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), &ONWARD);
    let tail = format!("{BY}via: 1.1 archipel\r\n\r\n");
    let begin = "POST /x?y HTTP/1.1\r\nhost: a\r\n";
    #[rustfmt::skip] // columns
    let table = [
        ("Content-Length: 007\r\n",                            "content-length: 7\r\n"),
        ("Content-Length: 0\r\n",                              "content-length: 0\r\n"),
        ("",                                                   "content-length: 0\r\n"),
        ("Transfer-Encoding: Chunked\r\n",                     "transfer-encoding: chunked\r\n"),
        ("Connection: content-length\r\nContent-Length: 7\r\n", "content-length: 7\r\n"),
        ("Content-Length: 7\r\nExpect: 100-continue\r\n",      "Expect: 100-continue\r\ncontent-length: 7\r\n"),
    ];
    for (fields, expected) in table {
        assert_eq!(post(fields), format!("{begin}{expected}{tail}"), "{fields}");
    }
}

#[test]
fn what_a_proxy_before_us_says_is_kept_if_it_is_trusted_and_traces_are_begun() {
    let text = "GET / HTTP/1.0\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nVia: 1.1 x\r\n\r\n";
    let onward = Onward {
        trusted: Some(ForwardedBy::XForwardedFor),
        trace: Trace::Begun("00-aa-bb-01"),
        path: ("/v2", "/x"),
        ..ONWARD
    };
    let expected = "GET /v2/x HTTP/1.1\r\nhost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\
                    Via: 1.1 x\r\nx-forwarded-for: 192.0.2.7\r\nvia: 1.0 archipel\r\ntraceparent: 00-aa-bb-01\r\n\r\n";
    assert_eq!(sent(text, &onward), expected);
    for (client, own) in [("192.0.2.7", "for=192.0.2.7"), ("2001:db8::7", "for=\"[2001:db8::7]\"")] {
        let told = "GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=1.2.3.4\r\n\r\n";
        let lines = format!("forwarded: {own};proto=http\r\n");
        let made_up = sent(told, &Onward { client, ..onward });
        assert!(!made_up.to_ascii_lowercase().contains("\r\nforwarded:"), "{made_up}");
        let onward = Onward { client, trusted: Some(ForwardedBy::Forwarded), ..onward };
        assert!(
            sent(told, &onward).contains(&format!("Forwarded: for=1.2.3.4\r\nx-forwarded-for: {client}\r\n"))
        );
        assert!(sent(told, &onward).contains(&lines), "the last hop is told of");
        assert!(!sent(text, &onward).contains(&lines), "nobody reads it there");
        assert!(!sent(text, &onward).contains("1.2.3.4"), "nor is what a client may have made up");
    }
    // What a certificate has proven is said by who has seen it, whoever the client is.
    let proven = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: URI=made-up\r\n\r\n";
    for onward in [ONWARD, onward] {
        assert!(!sent(proven, &onward).to_ascii_lowercase().contains("client-cert"));
        let said = sent(proven, &Onward { certificate: Some("By=a;URI=b"), ..onward });
        assert!(said.contains("\r\nx-forwarded-client-cert: By=a;URI=b\r\n") && !said.contains("made-up"));
    }
    let traced = "GET / HTTP/1.1\r\nHost: a\r\ntraceparent: 00-1-2-3\r\n\r\n";
    assert_eq!(sent(traced, &onward).matches("traceparent").count(), 1);
}

#[test]
fn a_trace_goes_on_as_it_is_said_and_its_state_only_with_what_was_before() {
    let told = "traceparent: 00-c\r\nTracestate: a=b\r\n";
    let twice = "traceparent: 00-c\r\ntraceparent: 00-d\r\ntracestate: a=b\r\n";
    let ours = "traceparent: 00-p\r\n";
    #[rustfmt::skip] // columns
    let table = [
        // trace                  fields  before what the proxy says     behind it
        (Trace::Kept,            told,   told,                          ""),
        (Trace::Kept,            twice,  twice,                         ""),
        (Trace::Kept,            "",     "",                            ""),
        (Trace::Begun("00-p"),   told,   told,                          ""),
        (Trace::Begun("00-p"),   "",     "",                            ours),
        (Trace::Joined("00-p"),  told,   "Tracestate: a=b\r\n",         ours),
        (Trace::Anew("00-p"),    told,   "",                            ours),
        (Trace::Anew("00-p"),    twice,  "",                            ours),
        (Trace::Anew("00-p"),    "",     "",                            ours),
    ];
    for (trace, fields, before, behind) in table {
        let text = format!("GET /x?y HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let expected =
            format!("GET /x?y HTTP/1.1\r\nhost: a\r\n{before}{BY}via: 1.1 archipel\r\n{behind}\r\n");
        assert_eq!(sent(&text, &Onward { trace, ..ONWARD }), expected, "{trace:?} {fields}");
    }
}

#[test]
fn an_upgrade_goes_on_only_where_it_may() {
    let text = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert!(!sent(text, &ONWARD).contains("upgrade"));
    let upgraded = sent(text, &Onward { upgrade: true, ..ONWARD });
    assert!(upgraded.ends_with("connection: upgrade\r\nupgrade: websocket\r\n\r\n"), "{upgraded}");
}

#[test]
fn more_connection_fields_than_are_looked_for_are_refused() {
    let text = |count| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", "x,".repeat(count));
    let mut room = Headers::new();
    assert!(Request::parse(text(CONNECTION_FIELDS_MAX).as_bytes(), &mut room).is_ok());
    let mut room = Headers::new();
    let many = text(CONNECTION_FIELDS_MAX + 1);
    assert_eq!(Request::parse(many.as_bytes(), &mut room).unwrap_err(), HeadError::TooLarge);
}

#[test]
fn responses_are_framed_for_the_client() {
    use Version::{Http10, Http11};
    #[rustfmt::skip] // columns
    let table = [
        // to       client  status and fields of the server                            fields for the client
        ("GET",     Http11, "200 OK\r\nContent-Length: 3",                             "Content-Length: 3"),
        ("GET",     Http11, "200 OK\r\nTransfer-Encoding: chunked\r\nA: b",            "A: b\r\ntransfer-encoding: chunked"),
        ("GET",     Http10, "200 OK\r\nTransfer-Encoding: chunked\r\nA: b",            "A: b"),
        ("GET",     Http11, "200 OK\r\nA: b",                                          "A: b\r\ntransfer-encoding: chunked"),
        ("GET",     Http10, "200 OK\r\nA: b",                                          "A: b"),
        ("HEAD",    Http11, "200 OK\r\nContent-Length: 3",                             "Content-Length: 3"),
        ("GET",     Http11, "304 Not\r\nContent-Length: 3\r\nEtag: x",                 "Content-Length: 3\r\nEtag: x"),
        ("GET",     Http11, "204 No\r\nContent-Length: 0\r\nA: b",                     "A: b"),
        ("GET",     Http11, "200 OK\r\nContent-Length: 3\r\nConnection: close, a\r\nA: b\r\nKeep-Alive: x", "Content-Length: 3"),
        ("GET",     Http11, "200 OK\r\nContent-Length: 3\r\nConnection: content-length", "Content-Length: 3"),
        ("GET",     Http11, "103 Early\r\nLink: x",                                    "Link: x"),
    ];
    for (method, client, text, expected) in table {
        let text = format!("HTTP/1.1 {text}\r\n\r\n");
        let mut room = Headers::new();
        let head = Response::parse(method, text.as_bytes(), &mut room).unwrap().unwrap();
        let mut out = Vec::new();
        response(&head, frame(head.body, client), Connection::Default, &mut out);
        let out = String::from_utf8(out).unwrap();
        let (_, fields) = out.split_once("\r\n").unwrap();
        assert_eq!(fields, expected.to_string() + "\r\n\r\n", "{method} {text}");
    }
}

/// What comes out, whether it is whole, and what was not taken.
fn relayed(body: Body, to: Frame, pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, Vec<u8>), ChunkError> {
    let (mut relay, mut out, mut rest) = (Relay::new(body, to), Vec::new(), Vec::new());
    for piece in pieces {
        let plain = relay.plain(piece.len());
        out.extend_from_slice(&piece[..plain]);
        let taken = relay.pass(&piece[plain..], &mut out)?;
        rest.extend_from_slice(&piece[plain + taken..]);
    }
    Ok((out, relay.has_ended(), rest))
}

#[test]
fn bodies_change_their_framing_and_end_where_they_end() {
    use Frame::{Chunked, Plain, UntilClose};
    #[rustfmt::skip] // columns
    let table: [(Body, Frame, &str, &str, bool, &str); 9] = [
        // from             to          comes                                goes                            whole  rest
        (Body::None,        Plain,      "x",                                 "",                             true,  "x"),
        (Body::Length(3),   Plain,      "abcd",                              "abc",                          true,  "d"),
        (Body::Length(3),   Plain,      "ab",                                "ab",                           false, ""),
        (Body::Length(3),   Chunked,    "abc",                               "3\r\nabc\r\n0\r\n\r\n",        true,  ""),
        (Body::Chunked,     Chunked,    "3;x=y \r\nabc\r\n0\r\nT: u\r\n\r\nz", "3\r\nabc\r\n0\r\n\r\n",      true,  "z"),
        (Body::Chunked,     Chunked,    "3\r\nab",                           "2\r\nab\r\n",                  false, ""),
        (Body::Chunked,     UntilClose, "3\r\nabc\r\n0\r\n\r\n",             "abc",                          true,  ""),
        (Body::UntilClose,  Chunked,    "abc",                               "3\r\nabc\r\n",                 false, ""),
        (Body::UntilClose,  UntilClose, "abc",                               "abc",                          false, ""),
    ];
    for (body, to, comes, goes, whole, rest) in table {
        let found = relayed(body, to, &[comes.as_bytes()]).unwrap();
        assert_eq!(found, (goes.into(), whole, rest.into()), "{body:?} {to:?} {comes:?}");
    }
    assert!(relayed(Body::Chunked, Chunked, &[b"3\r\nabcd\r\n"]).is_err());
}

#[test]
fn only_a_body_as_long_as_its_connection_ends_with_it() {
    for (body, whole) in [(Body::UntilClose, true), (Body::Length(3), false), (Body::Chunked, false)] {
        let (mut relay, mut out) = (Relay::new(body, Frame::Chunked), Vec::new());
        assert_eq!(relay.close(&mut out), whole, "{body:?}");
        assert_eq!(out.is_empty(), !whole);
    }
}

proptest! {
    #[test]
    fn a_body_is_relayed_the_same_in_any_pieces(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8),
        cuts in prop::collection::vec(0usize..500, 0..12),
        behind in prop::collection::vec(any::<u8>(), 0..10),
    ) {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes.extend_from_slice(&behind);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|two| &bytes[two[0]..two[1]]).collect();
        let (plain, whole, rest) = relayed(Body::Chunked, Frame::UntilClose, &pieces).unwrap();
        prop_assert_eq!((plain, whole, rest), (chunks.concat(), true, behind));
        // What was written in chunks reads the same again.
        let (again, ..) = relayed(Body::Chunked, Frame::Chunked, &pieces).unwrap();
        let (content, whole, rest) = relayed(Body::Chunked, Frame::UntilClose, &[&again]).unwrap();
        prop_assert_eq!((content, whole, rest), (chunks.concat(), true, vec![]));
    }
}

#[test]
fn trailers_go_on_where_they_are_wanted_without_what_they_must_not_have() {
    let body = b"3\r\nabc\r\n0\r\ngrpc-status: 0\r\nContent-Length: 9\r\nHost: x\r\nx-sum:1\r\n\r\nNEXT";
    for piece in [1, 2, 7, 100] {
        let (mut plain, mut kept) = (Vec::new(), Vec::new());
        let mut without = Relay::new(Body::Chunked, Frame::Chunked);
        let mut with = Relay::new(Body::Chunked, Frame::Chunked).with_trailers();
        let mut taken = 0;
        for bytes in body.chunks(piece) {
            let _ = without.pass(bytes, &mut plain);
            taken += with.pass(bytes, &mut kept).unwrap();
        }
        assert!(plain.ends_with(b"0\r\n\r\n"));
        let kept = alloc::string::String::from_utf8(kept).unwrap();
        assert!(kept.ends_with("0\r\ngrpc-status: 0\r\nx-sum:1\r\n\r\n"), "{kept}");
        assert_eq!((taken, with.has_ended()), (body.len() - 4, true));
        assert_eq!(with.trailers().count(), 2);
        assert_eq!(without.trailers().count(), 0);
    }
}
