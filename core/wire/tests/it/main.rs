//! What breaks when a rule of a proxy's messages is broken: each planted bug is seen by one check, which holds without it.

use kernel::planted::{Bug, choose};
use wire::http1::{Body, Frame, Headers, Onward, Relay, Request, Trace, request};
use wire::proxied::{Header, ProxyError};

const HEAD: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nKeep-Alive: 5\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n";

fn sent() -> String {
    let mut room = Headers::new();
    let head = Request::parse(HEAD, &mut room).expect("it is a request").expect("it is whole");
    let (path, client, scheme, via) = (("", "/"), "192.0.2.7", "http", "a");
    let mut out = Vec::new();
    let (trusted, certificate, trace, upgrade) = (None, None, Trace::Kept, false);
    let onward = Onward { path, client, scheme, trusted, certificate, via, trace, upgrade };
    request(&head, &onward, &mut out);
    String::from_utf8(out).expect("it is text")
}

fn what_is_of_the_connection_stays_there() -> bool {
    !sent().contains("Keep-Alive") && !sent().contains("close")
}

fn clients_do_not_say_who_they_are() -> bool {
    !sent().contains("1.2.3.4")
}

fn a_cut_body_is_never_whole() -> bool {
    let mut relay = Relay::new(Body::Length(10), Frame::Plain);
    relay.plain(5);
    !relay.close(&mut Vec::new())
}

fn what_is_behind_a_body_is_not_of_it() -> bool {
    Relay::new(Body::Length(10), Frame::Plain).plain(12) == 10
}

fn a_damaged_header_is_no_header() -> bool {
    // TCP over IPv4, and a checksum that is none of it.
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x13".to_vec();
    bytes.extend_from_slice(&[0; 12]);
    bytes.extend_from_slice(&[3, 0, 4, 0, 0, 0, 0]);
    Header::parse(&bytes) == Err(ProxyError::Checksum)
}

#[test]
fn every_planted_bug_is_found() {
    let checks: [(Bug, fn() -> bool); 5] = [
        (Bug::HopByHopForwarded, what_is_of_the_connection_stays_there),
        (Bug::ForwardedForBelieved, clients_do_not_say_who_they_are),
        (Bug::CutBodyIsWhole, a_cut_body_is_never_whole),
        (Bug::BodyRunsOver, what_is_behind_a_body_is_not_of_it),
        (Bug::ProxyChecksumIgnored, a_damaged_header_is_no_header),
    ];
    // Those before are found in `mesh`.
    assert_eq!(checks.map(|(bug, _)| bug), Bug::PROXY[6..]);
    for (bug, holds) in checks {
        assert!(holds(), "without {bug:?}");
        choose(bug);
        assert!(!holds(), "{bug:?} is not found");
        choose(Bug::None);
    }
}
