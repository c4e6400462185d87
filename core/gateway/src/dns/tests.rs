//! Questions as dig asks them, and what is answered.

use alloc::vec;

use kernel::{Micros, NodeId};
use mesh::registry::{Check, Health, Instance, Node, Registry};
use proptest::prelude::*;

use super::*;

const NOW: Micros = Micros(1_700_000_000_000_000);

fn registry() -> Registry {
    let meta = [("rack".to_string(), "r1".to_string())].into();
    let node = Node { name: "n1".into(), address: "10.0.0.1".into(), meta, ..Node::default() };
    let mut registry = Registry::new(NOW, NodeId([1; 32]), 1, 0, node, kernel::Rng::new(1)).unwrap();
    let web = |id: &str, address: &str, tag: &str, status| Instance {
        id: id.to_string(),
        service: "web".to_string(),
        address: address.to_string(),
        port: 8080,
        tags: vec![tag.to_string()],
        meta: [("version".to_string(), id.to_string())].into(),
        checks: vec![Check { id: id.to_string(), status, ..Check::default() }],
        ..Instance::default()
    };
    for instance in [
        web("w1", "", "v1", Health::Passing),
        web("w2", "10.0.0.2", "v2", Health::Warning),
        web("w3", "10.0.0.3", "v2", Health::Critical),
        web("w4", "fd00::4", "v6", Health::Passing),
        Instance { service: "down".to_string(), ..web("d1", "10.0.0.9", "a", Health::Critical) },
        Instance { service: "Large".to_string(), ..web("l1", "10.0.0.5", "a", Health::Passing) },
        Instance { service: "named".to_string(), ..web("h1", "db.example.org", "a", Health::Passing) },
    ] {
        registry.register(NOW, instance).unwrap();
    }
    registry
}

fn query(name: &str, kind: Kind, edns: Option<(u16, u8)>, class: u16) -> Vec<u8> {
    let mut bytes = vec![0xAB, 0xCD, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
    bytes.extend_from_slice(Name::from_text(name).unwrap().bytes());
    bytes.extend_from_slice(&kind.0.to_be_bytes());
    bytes.extend_from_slice(&class.to_be_bytes());
    if let Some((payload, version)) = edns {
        bytes.extend_from_slice(&[0, 0, 41]);
        bytes.extend_from_slice(&payload.to_be_bytes());
        bytes.extend_from_slice(&[0, version, 0, 0, 0, 0]);
    }
    bytes
}

/// The code, whether it was cut and is ours, and how many records each section has.
#[derive(Debug, PartialEq)]
struct Seen {
    rcode: u8,
    cut: bool,
    ours: bool,
    records: [u16; 3],
}

fn seen(out: &[u8]) -> Seen {
    let two = |at: usize| u16::from_be_bytes([out[at], out[at + 1]]);
    Seen {
        rcode: out[3] & 0xF,
        cut: out[2] & 2 != 0,
        ours: out[2] & 4 != 0,
        records: [two(6), two(8), two(10)],
    }
}

fn zone() -> Zone {
    Zone::new("consul", "dc1", 0, 0).unwrap()
}

fn ask(registry: &Registry, name: &str, kind: Kind) -> (Seen, Vec<u8>) {
    let mut out = Vec::new();
    assert!(zone().answer(registry.view(), &query(name, kind, None, 1), Transport::Tcp, 7, &mut out));
    (seen(&out), out)
}

#[test]
fn each_name_has_its_records_and_nothing_is_told_from_no_such_name() {
    let registry = registry();
    let txt = Kind::TXT;
    #[rustfmt::skip] // columns
    let table = [
        // name                              type        code  answers authority additional
        ("web.service.consul",               Kind::A,    0, [2, 0, 0]),
        ("WEB.Service.Consul",               Kind::A,    0, [2, 0, 0]),
        ("large.service.consul",             Kind::A,    0, [1, 0, 0]),
        ("LARGE.service.consul",             Kind::A,    0, [1, 0, 0]),
        ("web.service.dc1.consul",           Kind::A,    0, [2, 0, 0]),
        ("web.service.consul",               Kind::AAAA, 0, [1, 0, 0]),
        ("web.service.consul",               Kind::SRV,  0, [3, 0, 3]),
        ("web.service.consul",               txt,        0, [3, 0, 0]),
        ("web.service.consul",               Kind::ANY,  0, [9, 0, 3]),
        ("web.service.consul",               Kind::PTR,  0, [0, 1, 0]),
        ("v2.web.service.consul",            Kind::A,    0, [1, 0, 0]),
        ("v3.web.service.consul",            Kind::A,    3, [0, 1, 0]),
        ("_web._tcp.service.consul",         Kind::SRV,  0, [3, 0, 3]),
        ("_web._v1.service.consul",          Kind::SRV,  0, [1, 0, 1]),
        ("_web._v3.service.consul",          Kind::SRV,  3, [0, 1, 0]),
        ("down.service.consul",              Kind::A,    3, [0, 1, 0]),
        ("named.service.consul",             Kind::A,    0, [1, 0, 0]),
        ("named.service.consul",             Kind::SRV,  0, [1, 0, 0]),
        ("none.service.consul",              Kind::A,    3, [0, 1, 0]),
        ("a.b.c.service.consul",             Kind::A,    3, [0, 1, 0]),
        ("web.service.dc2.consul",           Kind::A,    3, [0, 1, 0]),
        ("service.consul",                   Kind::A,    0, [0, 1, 0]),
        ("consul",                           Kind::SOA,  0, [1, 0, 0]),
        ("consul",                           Kind::NS,   0, [1, 0, 0]),
        ("consul",                           Kind::A,    0, [0, 1, 0]),
        ("ns.consul",                        Kind::A,    0, [1, 0, 0]),
        ("n1.node.consul",                   Kind::A,    0, [1, 0, 0]),
        ("N1.node.dc1.consul",               Kind::A,    0, [1, 0, 0]),
        ("n1.node.consul",                   Kind::AAAA, 0, [0, 1, 0]),
        ("n1.node.consul",                   txt,        0, [1, 0, 0]),
        ("n2.node.consul",                   Kind::A,    3, [0, 1, 0]),
        ("0a000002.addr.dc1.consul",         Kind::A,    0, [1, 0, 0]),
        ("0a0000.addr.consul",               Kind::A,    3, [0, 1, 0]),
        ("fd000000000000000000000000000004.addr.consul", Kind::AAAA, 0, [1, 0, 0]),
        ("1.0.0.10.in-addr.arpa",            Kind::PTR,  0, [1, 0, 0]),
        ("9.9.9.9.in-addr.arpa",             Kind::PTR,  5, [0, 0, 0]),
        ("example.org",                      Kind::A,    5, [0, 0, 0]),
    ];
    for (name, kind, rcode, records) in table {
        let (seen, _) = ask(&registry, name, kind);
        assert_eq!((seen.rcode, seen.records, seen.cut), (rcode, records, false), "{name} {kind:?}");
        assert_eq!(seen.ours, rcode != 5, "{name} {kind:?}");
    }
}

#[test]
fn equal_records_come_in_another_order_by_chance() {
    let registry = registry();
    let mut firsts = Vec::new();
    for chance in 0..32 {
        let mut out = Vec::new();
        zone().answer(
            registry.view(),
            &query("web.service.consul", Kind::A, None, 1),
            Transport::Udp,
            chance,
            &mut out,
        );
        // The last byte of the last address.
        firsts.push(out[out.len() - 1]);
    }
    assert!(firsts.contains(&1) && firsts.contains(&2));
}

#[test]
fn what_does_not_fit_a_datagram_is_cut_by_whole_records_and_comes_over_tcp() {
    let mut registry = registry();
    for number in 0..100_u8 {
        let id = format!("m{number}");
        let address = format!("10.1.0.{number}");
        let many = Instance { id, service: "many".into(), address, port: 1, ..Instance::default() };
        registry.register(NOW, many).unwrap();
    }
    let size = |kind, edns, transport| {
        let mut out = Vec::new();
        zone().answer(registry.view(), &query("many.service.consul", kind, edns, 1), transport, 7, &mut out);
        (seen(&out).cut, seen(&out).records[0], out.len())
    };
    let (cut, records, bytes) = size(Kind::A, None, Transport::Udp);
    assert!(cut && bytes <= 512 && records > 10, "{records} records, {bytes} bytes");
    let (cut, records, bytes) = size(Kind::A, Some((4096, 0)), Transport::Udp);
    assert!(cut && bytes <= 1232 && bytes > 512, "{records} records, {bytes} bytes");
    assert_eq!(size(Kind::A, None, Transport::Tcp).1, 100);
    let (cut, records, _) = size(Kind::SRV, None, Transport::Tcp);
    assert_eq!((cut, records), (false, 100));
}

#[test]
fn other_versions_and_classes_are_not_answered() {
    let (registry, mut out) = (registry(), Vec::new());
    let mut code = |message: &[u8]| {
        out.clear();
        let answers = zone().answer(registry.view(), message, Transport::Udp, 7, &mut out);
        if answers { Some(seen(&out).rcode) } else { None }
    };
    assert_eq!(code(&query("web.service.consul", Kind::A, Some((1232, 0)), 1)), Some(0));
    // BADVERS is 16: its low bits are in the header.
    assert_eq!(code(&query("web.service.consul", Kind::A, Some((1232, 1)), 1)), Some(0));
    assert_eq!(code(&query("web.service.consul", Kind::A, None, 3)), Some(5));
    assert_eq!(code(&query("web.service.consul", Kind::A, None, 255)), Some(0));
    assert_eq!(code(&[0; 11]), None);
    let mut response = query("web.service.consul", Kind::A, None, 1);
    response[2] |= 0x80;
    assert_eq!(code(&response), None);
}

proptest! {
    #[test]
    fn no_message_breaks_it_and_none_is_answered_beyond_its_size(
        bytes: Vec<u8>, labels in proptest::collection::vec("[a-z0-9_.]{0,9}", 0..5), kind: u16
    ) {
        let registry = registry();
        let mut out = Vec::new();
        zone().answer(registry.view(), &bytes, Transport::Udp, 1, &mut out);
        let text = format!("{}.consul", labels.join("."));
        if Name::from_text(&text).is_ok() {
            out.clear();
            prop_assert!(zone().answer(registry.view(), &query(&text, Kind(kind), None, 1), Transport::Udp, 1, &mut out));
            prop_assert!(out.len() <= 512);
        }
    }
}

#[test]
fn what_is_of_others_is_asked_of_them_and_handed_on_under_the_clients_id() {
    use super::forward::Verdict;

    let registry = registry();
    let forwards = Zone { forwards: true, ..zone() };
    let edns = Some((4096, 0));
    let with = |at: usize, byte: u8| {
        let mut bytes = query("example.org", Kind::A, edns, 1);
        bytes[at] = byte;
        bytes
    };
    #[rustfmt::skip] // columns
    let table = [
        (query("example.org", Kind::A, edns, 1),            true),
        (query("8.8.8.8.in-addr.arpa", Kind::PTR, edns, 1), true),
        (query("1.0.0.10.in-addr.arpa", Kind::PTR, edns, 1), false), // known here
        (query("web.service.consul", Kind::A, edns, 1),     false),
        (query("none.service.consul", Kind::A, edns, 1),    false),
        (query("example.org", Kind::A, edns, 3),            false), // another class
        (query("example.org", Kind::A, Some((4096, 1)), 1), false), // another version of EDNS
        (with(2, 0),                                        false), // no recursion is wanted
        (with(2, 0x81),                                     false), // a response
    ];
    for (message, expected) in table {
        let asked = forwards.forwarded(registry.view(), &message, Transport::Udp, 7);
        assert_eq!(asked.is_some(), expected, "{message:?}");
        assert_eq!(zone().forwarded(registry.view(), &message, Transport::Udp, 7), None, "nobody is asked");
    }
    for (transport, edns, size, is_whole) in [
        (Transport::Udp, Some((4096, 0)), 1232, true),
        (Transport::Udp, Some((4096, 0)), 1233, false),
        (Transport::Udp, None, 512, true),
        (Transport::Udp, None, 513, false),
        (Transport::Tcp, None, 60_000, true),
    ] {
        let message = query("example.org", Kind::A, edns, 1);
        let asked = forwards.forwarded(registry.view(), &message, transport, 0x0708).unwrap();
        let mut sent = Vec::new();
        asked.question(&mut sent);
        assert_eq!(sent[..2], [7, 8], "the client's id is not told");
        assert_eq!(sent.len(), message.len());
        assert_eq!(asked.judge(&sent), Verdict::Foreign, "a question is no answer");
        let mut reply = sent.clone();
        reply[2] |= 0x80;
        reply.resize(size, 0xEE);
        assert_eq!(asked.judge(&reply), Verdict::Taken);
        let mut told = Vec::new();
        asked.answer(Some(&reply), &mut told);
        assert_eq!(told[..2], message[..2]);
        if is_whole {
            assert_eq!(told[2..], reply[2..]);
        } else {
            assert!(told.len() < 100 && seen(&told).cut, "it is asked again over TCP");
        }
        reply[3] |= 5;
        assert_eq!(asked.judge(&reply), Verdict::Unable);
        told.clear();
        asked.answer(None, &mut told);
        assert_eq!(seen(&told).rcode, 2);
    }
}
