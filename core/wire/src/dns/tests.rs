//! Messages as clients send them, and what may not be believed.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::from_text(text).unwrap()
}

/// A query as dig sends it: `id`, flags, one question, OPT with a payload of 1232.
fn dig(labels: &[u8], kind: u16) -> Vec<u8> {
    let mut bytes = vec![0xAB, 0xCD, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 1];
    bytes.extend_from_slice(labels);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes.extend_from_slice(&[0, 0, 41, 4, 0xD0, 0, 0, 0x80, 0, 0, 0]);
    bytes
}

#[test]
fn a_query_reads_as_it_was_asked() {
    let query = Query::decode(&dig(b"\x03Web\x07service\x06consul\0", 33)).unwrap();
    assert_eq!((query.id, query.kind, query.class), (0xABCD, Kind::SRV, 1));
    assert_eq!(query.name, name("web.SERVICE.consul."));
    assert_eq!(query.name.to_string(), "Web.service.consul.");
    assert!(query.recursion);
    let edns = query.edns.unwrap();
    assert_eq!((edns.payload, edns.version, edns.signatures), (1232, 0, true));
    assert_eq!(query.datagram_bytes_max(), 1232);
}

#[test]
fn what_is_no_query_is_refused_or_left_unanswered() {
    let good = dig(b"\x01a\0", 1);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    #[rustfmt::skip] // columns
    let table: [(Vec<u8>, Option<Rcode>); 12] = [
        (vec![],                       None),
        (good[..11].to_vec(),          None),
        (with(2, 0x81),                None),                  // a response
        (with(2, 0x11),                Some(Rcode::NotImp)),   // STATUS
        (with(5, 0),                   Some(Rcode::FormErr)),  // no question
        (with(5, 2),                   Some(Rcode::FormErr)),  // two
        (with(7, 1),                   Some(Rcode::FormErr)),  // an answer
        (with(11, 9),                  Some(Rcode::FormErr)),  // more records than are looked at
        (with(11, 2),                  Some(Rcode::FormErr)),  // fewer records than it says
        (with(12, 0x41),               Some(Rcode::FormErr)),  // a label type that nobody uses
        (with(12, 0xC0),               Some(Rcode::FormErr)),  // a pointer to itself or forward
        (good[..14].to_vec(),          Some(Rcode::FormErr)),  // cut in the question
    ];
    for (row, (bytes, expected)) in table.into_iter().enumerate() {
        let told = Query::decode(&bytes).expect_err("it is none").answer();
        assert_eq!(told.map(|(_, rcode)| rcode), expected, "row {row}");
    }
    let mut two = good.clone();
    two[11] = 2;
    two.extend_from_slice(&[0, 0, 41, 4, 0xD0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Query::decode(&two), Err(QueryError::Malformed { id: 0xABCD }), "two OPT records");
}

#[test]
fn names_have_limits_and_zones() {
    let long = "a".repeat(63);
    assert!(Name::from_text(&long).is_ok());
    assert_eq!(Name::from_text(&"a".repeat(64)), Err(NameError::Label { bytes: 64 }));
    assert_eq!(Name::from_text("a..b"), Err(NameError::Label { bytes: 0 }));
    let most = [&long[..], &long, &long, &long[..61]].join(".");
    assert_eq!(name(&most).bytes().len(), NAME_BYTES_MAX);
    let more = [&long[..], &long, &long, &long[..62]].join(".");
    assert_eq!(Name::from_text(&more), Err(NameError::TooLong));
    assert!(name("web.service.CONSUL").is_in(&name("consul")));
    assert!(!name("web.service.xconsul").is_in(&name("consul")));
    assert_eq!(name("web.service.consul").below(&name("service.consul")), Some(vec![&b"web"[..]]));
    assert_eq!(name("consul").below(&name("consul")), Some(vec![]));
    assert_eq!(name("other").below(&name("consul")), None);
    assert_eq!(name(".").to_string(), ".");
    assert_eq!(Name::new([&b"a.b"[..]]).unwrap().to_string(), "a\\046b.");
}

#[test]
fn a_response_is_what_the_rfcs_draw() {
    let query = Query::decode(&dig(b"\x03Web\x06consul\0", 1)).unwrap();
    let mut out = vec![7];
    let mut response = Response::new(&query, Rcode::NoError, 512, &mut out);
    response.authoritative();
    assert!(response.record(Section::Answer, &query.name, 5, &Data::A([10, 0, 0, 1])));
    assert!(response.record(Section::Additional, &name("x.consul"), 5, &Data::Txt(&[b"a", b""])));
    let length = response.finish();
    #[rustfmt::skip] // as in the drawings
    let expected = [
        0xAB, 0xCD, 0x85, 0x00, 0, 1, 0, 1, 0, 0, 0, 2,
        3, b'W', b'e', b'b', 6, b'c', b'o', b'n', b's', b'u', b'l', 0, 0, 1, 0, 1,
        0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 1,
        1, b'x', 0xC0, 16, 0, 16, 0, 1, 0, 0, 0, 5, 0, 3, 1, b'a', 0,
        0, 0, 41, 4, 0xD0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!((out[0], &out[1..], length), (7, &expected[..], expected.len()));
}

#[test]
fn what_does_not_fit_is_left_out_by_whole_records_and_said() {
    let query = Query::decode(&dig(b"\x03web\x06consul\0", 1)).unwrap();
    for section in [Section::Answer, Section::Additional] {
        let mut out = Vec::new();
        let mut response = Response::new(&query, Rcode::NoError, UDP_BYTES_MIN, &mut out);
        let fit =
            (0..100).filter(|&n| response.record(section, &query.name, 0, &Data::A([n, 0, 0, 1]))).count();
        let length = response.finish();
        // 28 bytes of header and question, 16 for each record, 11 for OPT.
        assert_eq!((fit, length), (29, 28 + 29 * 16 + 11));
        assert_eq!(out[2] & 2 != 0, section == Section::Answer, "the truncation bit");
    }
}

#[test]
fn names_point_at_the_same_bytes_only() {
    let query = Query::decode(&dig(b"\x03WEB\x06consul\0", 33)).unwrap();
    let mut out = Vec::new();
    let mut response = Response::new(&query, Rcode::NxDomain, 512, &mut out);
    let (server, mailbox) = (name("ns.consul"), name("hostmaster.ns.consul"));
    let soa = Data::Soa { server: &server, mailbox: &mailbox, serial: 1, negative_ttl: 0 };
    assert!(response.record(Section::Authority, &name("web.consul"), 0, &soa));
    response.finish();
    let (owner, _) = Name::read(&out, 28).unwrap();
    assert_eq!(owner.to_string(), "web.consul.");
    let (told, next) = Name::read(&out, 28 + 6 + 10).unwrap();
    assert_eq!(told, server);
    assert_eq!(Name::read(&out, next).unwrap().0.to_string(), "hostmaster.ns.consul.");
    assert_eq!(out[3] & 0xF, 3);
}

fn label() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"abAB-_.\0".to_vec()), 1..20)
}

proptest! {
    #[test]
    fn names_that_are_written_read_back(names in prop::collection::vec(prop::collection::vec(label(), 0..8), 1..12)) {
        let names: Vec<Name> = names
            .iter()
            .filter_map(|labels| Name::new(labels.iter().map(Vec::as_slice)).ok())
            .collect();
        let query = Query::decode(&dig(b"\x01a\0", 2)).unwrap();
        let mut out = Vec::new();
        let mut response = Response::new(&query, Rcode::NoError, TCP_BYTES_MAX, &mut out);
        for name in &names {
            prop_assert!(response.record(Section::Answer, name, 0, &Data::Ptr(name)));
        }
        response.finish();
        let mut at = HEADER_BYTES + 3 + 4;
        for name in &names {
            let (owner, next) = Name::read(&out, at).unwrap();
            prop_assert_eq!(owner.bytes(), name.bytes());
            let (target, end) = Name::read(&out, next + 10).unwrap();
            prop_assert_eq!(target.bytes(), name.bytes());
            let length = usize::from(out[next + 8]) << 8 | usize::from(out[next + 9]);
            prop_assert_eq!(end, next + 10 + length);
            at = end;
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 0usize..60) {
        let _ = Query::decode(&bytes);
        let mut query = dig(b"\x03web\x06consul\0", 33);
        for (at, byte) in bytes.iter().take(8).enumerate() {
            let len = query.len();
            query[(usize::from(*byte) * 7 + at) % len] ^= bytes[at];
        }
        query.truncate(60 - cut.min(20));
        if let Ok(query) = Query::decode(&query) {
            let mut out = Vec::new();
            let response = Response::new(&query, Rcode::Refused, 512, &mut out);
            prop_assert!(response.finish() <= 512);
            prop_assert!(query.name.bytes().len() <= NAME_BYTES_MAX);
        }
    }
}

proptest! {
    #[test]
    fn a_query_that_is_written_is_read(
        id: u16, recursion: bool, unchecked: bool, labels in proptest::collection::vec("[a-zA-Z0-9_-]{1,9}", 0..5),
        kind: u16, class: u16, edns in proptest::option::of((any::<u16>(), any::<u8>(), any::<bool>())),
    ) {
        let edns = edns.map(|(payload, version, signatures)| Edns { payload, version, signatures });
        let name = Name::new(labels.iter().map(|label| label.as_bytes())).unwrap();
        let query = Query { id, recursion, unchecked, name, kind: Kind(kind), class, edns };
        let mut bytes = Vec::new();
        query.encode(&mut bytes);
        prop_assert_eq!(Query::decode(&bytes), Ok(query.clone()));
        prop_assert_eq!(query.answered(&bytes), Err(NoAnswer), "a query is no answer");
        bytes[2] |= 0x80;
        prop_assert_eq!(query.answered(&bytes), Ok(Answered { cut: false, rcode: 0 }));
    }

    #[test]
    fn no_bytes_break_what_is_taken_as_an_answer(bytes: Vec<u8>) {
        let _ = Query::decode(&dig(b"\x01a\0", 1)).unwrap().answered(&bytes);
    }
}

#[test]
fn an_answer_is_one_to_the_query_that_was_sent() {
    let query = Query::decode(&dig(b"\x01a\0", 1)).unwrap();
    let mut good = dig(b"\x01A\0", 1);
    good[2] |= 0x80;
    #[rustfmt::skip] // columns
    let table = [
        (0,  0xAB, Some((false, 0))),  // as it is: case does not matter
        (3,  0x83, Some((false, 3))),
        (2,  0x83, Some((true, 0))),   // cut
        (0,  0xAC, None),              // another id
        (2,  0x01, None),              // no response
        (2,  0x91, None),              // another operation
        (5,  0,    None),              // no question
        (13, b'b', None),              // another name
        (16, 28,   None),              // another type
        (18, 3,    None),              // another class
    ];
    for (at, byte, expected) in table {
        let mut bytes = good.clone();
        bytes[at] = byte;
        let seen = query.answered(&bytes).ok().map(|it| (it.cut, it.rcode));
        assert_eq!(seen, expected, "byte {at} is {byte}");
    }
    for length in 0..19 {
        assert_eq!(query.answered(&good[..length]), Err(NoAnswer), "{length} bytes");
    }
}
