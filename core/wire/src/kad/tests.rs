//! Facts written by another encoder (Google's protobuf for Python), laws, and limits.

use super::*;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

type Told<'a> = (&'a [u8], &'a [&'a [u8]], Connection);

fn peers<'a>(told: &'a [Told<'a>]) -> Vec<PeerOut<'a, &'a [u8]>> {
    told.iter().map(|&(id, addresses, connection)| PeerOut { id, addresses, connection }).collect()
}

fn seen<'a>(peers: Peers<'a>) -> Vec<(&'a [u8], Vec<&'a [u8]>, Connection)> {
    peers.map(|peer| (peer.id, peer.addresses().collect(), peer.connection)).collect()
}

const FULL: Record<'_> =
    Record { key: b"k", value: b"v", received: b"2026-01-02T03:04:05Z", publisher: &[1, 2], ttl: 3600 };

#[test]
fn messages_are_the_bytes_that_another_encoder_writes() {
    let plain = Record { key: b"/pk/x", value: b"v1", ..Record::default() };
    let closer: &[Told<'_>] = &[
        (b"A", &[b"\x04\x7f\x00\x00\x01\x06\x1f\x90", b"\x35"], Connection::Yes),
        (b"B", &[], Connection::Cannot),
        (b"C", &[b"\x01"], Connection::No),
    ];
    let provider: &[Told<'_>] = &[(b"P", &[b"\x04\x0a\x00\x00\x01"], Connection::Can)];
    let near: &[Told<'_>] = &[(b"Q", &[], Connection::No)];
    #[rustfmt::skip] // columns
    let table: [(&str, Kind, &[u8], Option<Record<'_>>, &[Told<'_>], &[Told<'_>]); 5] = [
        ("0804120a00240801746172676574", Kind::FindNode, b"\x00\x24\x08\x01target", None, &[], &[]),
        ("12052f706b2f781a0b0a052f706b2f7812027631", Kind::PutValue, b"/pk/x", Some(plain), &[], &[]),
        ("12016b1a250a016b1201762a14323032362d30312d30325430333a30343a30355ad229020102c830901c",
            Kind::PutValue, b"k", Some(FULL), &[], &[]),
        ("080412016b42120a01411208047f000001061f90120135180142050a0142180342060a0143120101",
            Kind::FindNode, b"k", None, closer, &[]),
        ("080312016b42030a01514a0c0a01501205040a0000011802", Kind::GetProviders, b"k", None, near, provider),
    ];
    for (bytes, kind, key, record, closer, providers) in table {
        let message = hex(bytes);
        let read = Message::decode(&message).unwrap();
        assert_eq!((read.kind, read.key, read.record, read.level), (kind, key, record, 0), "{bytes}");
        for (list, told) in [(read.closer, closer), (read.providers, providers)] {
            let told: Vec<_> = told.iter().map(|&(id, a, c)| (id, a.to_vec(), c)).collect();
            assert_eq!(list.len(), told.len());
            assert_eq!(seen(list), told, "{bytes}");
        }
        let (closer, providers) = (peers(closer), peers(providers));
        let mut out = Vec::new();
        let listed = Outgoing { kind, key, record, closer: &closer, providers: &providers }.encode(&mut out);
        assert_eq!(listed, Ok(Listed { closer: closer.len(), providers: providers.len() }));
        assert_eq!(out, message, "{bytes}");
    }
}

#[test]
fn what_we_do_not_write_is_read_all_the_same() {
    let table = [
        ("", Kind::PutValue, &b""[..], 0),
        ("080550ffffffffffffffffff01", Kind::Ping, b"", -1), // a negative int32 has ten bytes
        ("08011201675007", Kind::GetValue, b"g", 7),
        // Unknown fields of each wire type behind the key.
        ("080212017aa206056c61746572a9060500000000000000b50606000000", Kind::AddProvider, b"z", 0),
        ("0801080412016112016b", Kind::FindNode, b"k", 0), // of a field that is there twice the last counts
        ("8880000412016b", Kind::FindNode, b"k", 0),       // a tag in more bytes than it needs
        ("80041201", Kind::FindNode, b"", 0),
    ];
    for (bytes, kind, key, level) in &table[..6] {
        let message = hex(bytes);
        let read = Message::decode(&message).map(|read| (read.kind, read.key, read.level));
        assert_eq!(read, Ok((*kind, *key, *level)), "{bytes}");
    }
    // The last row is cut.
    assert_eq!(Message::decode(&hex(table[6].0)), Err(DecodeError::Malformed));
}

#[test]
fn a_message_that_breaks_the_protocol_is_refused_with_the_reason() {
    #[rustfmt::skip] // columns
    let table = [
        ("0806",                   DecodeError::Kind { number: 6 }),
        ("08",                     DecodeError::Malformed), // cut in a number
        ("12056b",                 DecodeError::Malformed), // cut in bytes
        ("0000",                   DecodeError::Malformed), // field 0
        ("0b0c",                   DecodeError::Malformed), // a group
        ("0a0101",                 DecodeError::Malformed), // the kind as bytes
        ("1001",                   DecodeError::Malformed), // the key as a number
        ("0d00000000",             DecodeError::Malformed), // the kind as fixed 32 bits
        ("08ffffffffffffffffff02", DecodeError::Malformed), // a number over 64 bits
        ("1a030a016b1a030a016b",   DecodeError::Records),
        ("4200",                   DecodeError::PeerId { bytes: 0 }),
        ("42040a02414a08",         DecodeError::Malformed), // sound so far, then cut
        ("42030a0241",             DecodeError::Malformed), // an id that is longer than its peer
    ];
    for (bytes, error) in table {
        assert_eq!(Message::decode(&hex(bytes)), Err(error), "{bytes}");
    }
}

#[test]
fn each_limit_holds_at_its_border() {
    let find = |key: &[u8]| {
        let mut out = Vec::new();
        let none: &[PeerOut<'_, &[u8]>] = &[];
        Outgoing { kind: Kind::FindNode, key, record: None, closer: none, providers: none }
            .encode(&mut out)
            .map(|_| out)
    };
    assert!(Message::decode(&find(&[7; KEY_BYTES_MAX]).unwrap()).is_ok());
    assert_eq!(find(&[7; KEY_BYTES_MAX + 1]), Err(EncodeError::Key { bytes: KEY_BYTES_MAX + 1 }));

    let list = |n: usize, id: usize| {
        let mut out = Vec::new();
        for _ in 0..n {
            let mut peer = Vec::new();
            field::put_bytes(&mut peer, 1, &vec![7; id]);
            field::put_element(&mut out, decode::CLOSER, &peer);
        }
        Message::decode(&out).map(|message| message.closer.count())
    };
    assert_eq!(list(PEERS_MAX, PEER_ID_BYTES_MAX), Ok(PEERS_MAX));
    assert_eq!(list(PEERS_MAX + 1, 1), Err(DecodeError::Peers));
    assert_eq!(list(1, PEER_ID_BYTES_MAX + 1), Err(DecodeError::PeerId { bytes: PEER_ID_BYTES_MAX + 1 }));

    let long = vec![0; MESSAGE_BYTES_MAX + 1];
    assert_eq!(Message::decode(&long), Err(DecodeError::TooLong { bytes: MESSAGE_BYTES_MAX + 1 }));

    let mut many = Vec::new();
    field::put_bytes(&mut many, 1, b"A");
    field::put_element(&mut many, 2, &[1; ADDRESS_BYTES_MAX + 1]);
    for n in 0..=ADDRESSES_MAX as u8 {
        field::put_element(&mut many, 2, &[n; ADDRESS_BYTES_MAX]);
    }
    let mut message = Vec::new();
    field::put_element(&mut message, decode::CLOSER, &many);
    let peer = Message::decode(&message).unwrap().closer.next().unwrap();
    assert_eq!(peer.addresses().map(|a| a[0]).collect::<Vec<_>>(), (0..16).collect::<Vec<u8>>());
}

#[test]
fn a_full_message_leaves_out_the_farthest_peers() {
    let address = [9u8; ADDRESS_BYTES_MAX];
    let addresses = [&address[..]; ADDRESSES_MAX];
    let told: Vec<Told<'_>> = vec![(&[1u8; 34], &addresses, Connection::Yes); PEERS_MAX];
    let mut out = Vec::new();
    let all = peers(&told);
    let message =
        Outgoing { kind: Kind::GetValue, key: b"k", record: None, closer: &all, providers: &all[..1] };
    assert_eq!(message.encode(&mut out), Ok(Listed { closer: 2, providers: 1 }));
    assert!(out.len() <= MESSAGE_BYTES_MAX);
    assert_eq!(Message::decode(&out).unwrap().closer.count(), 2);

    let value = vec![0; MESSAGE_BYTES_MAX];
    let record = Some(Record { value: &value, ..FULL });
    let mut out = Vec::new();
    let refused = Outgoing { record, ..message }.encode(&mut out);
    assert!(matches!(refused, Err(EncodeError::Record { .. })), "{refused:?}");
    assert!(out.is_empty());
}

#[test]
fn a_frame_is_refused_by_its_length_alone() {
    #[rustfmt::skip] // columns
    let table: [(&[u8], Result<Option<(&[u8], usize)>, FrameError>); 10] = [
        (b"",                 Ok(None)),
        (b"\x00",             Ok(Some((b"", 1)))),
        (b"\x02ab",           Ok(Some((b"ab", 3)))),
        (b"\x02a",            Ok(None)),
        (b"\x02abc",          Ok(Some((b"ab", 3)))),
        (b"\x80",             Ok(None)),
        (b"\x80\x00",         Err(FrameError::Length)), // not minimal
        (b"\x80\x80\x01",     Ok(None)),                // 16384: the longest
        (b"\x81\x80\x01",     Err(FrameError::TooLong { bytes: 16385 })),
        (b"\x80\x80\x80\x01", Err(FrameError::Length)),
    ];
    for (bytes, expected) in table {
        assert_eq!(take_frame(bytes), expected, "{bytes:?}");
    }
}

type Owned = (Vec<u8>, Vec<Vec<u8>>, Connection);

fn out_of(list: &[Owned]) -> Vec<PeerOut<'_, Vec<u8>>> {
    list.iter()
        .map(|(id, addresses, connection)| PeerOut { id, addresses, connection: *connection })
        .collect()
}

prop_compose! {
    fn any_peer()(
        id in prop::collection::vec(any::<u8>(), 1..=PEER_ID_BYTES_MAX),
        addresses in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5),
        connection in 0u64..4,
    ) -> (Vec<u8>, Vec<Vec<u8>>, Connection) {
        (id, addresses, Connection::new(connection))
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        kind in 0u64..6, key in prop::collection::vec(any::<u8>(), 0..64),
        record in prop::option::of((prop::collection::vec(any::<u8>(), 0..64),
            prop::collection::vec(any::<u8>(), 0..512), prop::collection::vec(any::<u8>(), 0..40), any::<u32>())),
        closer in prop::collection::vec(any_peer(), 0..20), providers in prop::collection::vec(any_peer(), 0..20),
    ) {
        let record = record.as_ref().map(|(key, value, id, ttl)| Record {
            key, value, received: b"", publisher: id, ttl: *ttl,
        });
        let kind = Kind::new(kind).unwrap();
        let mut out = Vec::new();
        let listed = Outgoing {
            kind, key: &key, record, closer: &out_of(&closer), providers: &out_of(&providers),
        }.encode(&mut out).unwrap();
        prop_assert!(out.len() <= MESSAGE_BYTES_MAX);
        let read = Message::decode(&out).unwrap();
        prop_assert_eq!((read.kind, read.key, read.record), (kind, &key[..], record));
        let owned = |peers: Peers<'_>| peers
            .map(|p| (p.id.to_vec(), p.addresses().map(<[u8]>::to_vec).collect::<Vec<_>>(), p.connection))
            .collect::<Vec<_>>();
        prop_assert_eq!(owned(read.closer), closer[..listed.closer].to_vec());
        prop_assert_eq!(owned(read.providers), providers[..listed.providers].to_vec());
        // A cut message never reads as the whole one.
        for cut in 0..out.len() {
            prop_assert_ne!(Message::decode(&out[..cut]), Ok(read));
        }
        // Framed, it comes back whatever follows, and not before its last byte is there.
        let mut framed = Vec::new();
        put_frame(&out, &mut framed);
        let whole = framed.len();
        prop_assert_eq!(take_frame(&framed[..whole - 1]), Ok(None));
        framed.extend_from_slice(b"more");
        prop_assert_eq!(take_frame(&framed), Ok(Some((&out[..], whole))));
    }

    #[test]
    fn arbitrary_bytes_do_no_harm_and_stay_within_the_limits(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = Message::decode(&bytes) {
            for list in [message.closer, message.providers] {
                prop_assert_eq!(list.count(), list.len());
                for peer in list {
                    prop_assert!(peer.addresses().count() <= ADDRESSES_MAX);
                }
            }
        }
    }
}
