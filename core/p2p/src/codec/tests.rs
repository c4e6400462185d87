//! Every message reads back; arbitrary bytes are one within its limits, or an error.

use alloc::sync::Arc;
use alloc::vec;
use core::fmt::Debug;

use proptest::collection::vec as list;
use proptest::prelude::*;

use super::*;
use crate::key::Key;
use crate::{chord, flood, walk};

/// A peer with its own bytes.
type Known = (Vec<u8>, Vec<Vec<u8>>);

fn put((id, addresses): &Known, out: &mut Vec<u8>) {
    put_peer(out, id, addresses.iter().map(Vec::as_slice));
}

fn known(peer: Peer<'_>) -> Known {
    assert!((1..=PEER_ID_BYTES_MAX).contains(&peer.id.len()));
    let addresses: Vec<_> = peer.addresses().map(<[u8]>::to_vec).collect();
    assert!(addresses.len() <= ADDRESSES_MAX && addresses.iter().all(|one| one.len() <= ADDRESS_BYTES_MAX));
    (peer.id.to_vec(), addresses)
}

fn written<M: Wire<Known>>(head: Head, message: &M) -> Vec<u8> {
    let mut bytes = vec![7];
    encode(head, message, &mut bytes, &mut put).expect("it is short enough");
    assert_eq!(bytes.remove(0), 7, "what was there stays");
    bytes
}

fn read<M: Wire<Known>>(bytes: &[u8]) -> Result<(Head, M), DecodeError> {
    decode(bytes, &mut known)
}

/// What was written reads back, and as a whole only.
fn reads_back<M: Wire<Known> + Clone + PartialEq + Debug>(head: Head, message: &M) {
    let mut bytes = written(head, message);
    assert_eq!(read::<M>(&bytes), Ok((head, message.clone())));
    assert!(read::<M>(&bytes[..bytes.len() - 1]).is_err(), "{message:?} is cut");
    bytes.push(0);
    assert!(read::<M>(&bytes).is_err(), "something follows {message:?}");
}

/// Arbitrary bytes are no message, or one that reads back.
fn is_sound_or_refused<M: Wire<Known> + Clone + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok((head, message)) = read::<M>(bytes) {
        assert_eq!(read::<M>(&written(head, &message)), Ok((head, message)));
    }
}

fn heads() -> impl Strategy<Value = Head> {
    let id = || any::<u32>().prop_map(RequestId);
    prop_oneof![Just(Head::Tell), id().prop_map(Head::Ask), id().prop_map(Head::Answer)]
}

fn peers() -> impl Strategy<Value = Known> {
    (list(any::<u8>(), 1..=PEER_ID_BYTES_MAX), list(list(any::<u8>(), 0..20), 0..=ADDRESSES_MAX))
}

fn keys() -> impl Strategy<Value = Key> {
    any::<[u64; 4]>().prop_map(Key::from_words)
}

fn items() -> impl Strategy<Value = chord::Item> {
    (keys(), any::<u64>(), list(any::<u8>(), 0..40)).prop_map(|(key, version, value)| chord::Item {
        key,
        version,
        value: value.into(),
    })
}

fn digests() -> impl Strategy<Value = chord::Digest> {
    (any::<u32>(), any::<u64>()).prop_map(|(count, mix)| chord::Digest { count, mix })
}

fn chord_messages() -> impl Strategy<Value = chord::Message<Known>> {
    use chord::{Message, NEAR_MAX, Near, RING_MAX, Told};
    prop_oneof![
        (any::<u64>(), any::<u8>(), any::<u8>())
            .prop_map(|(point, before, owners)| Message::Find { point, told: Told { before, owners } }),
        any::<u64>().prop_map(|point| Message::Own { point }),
        prop::sample::select(vec![
            Message::Neighbours,
            Message::Alive,
            Message::Mine,
            Message::Yes,
            Message::Outside,
            Message::Notify,
            Message::Leaving,
            Message::Offer
        ]),
        items().prop_map(Message::Put),
        keys().prop_map(Message::Get),
        list(items(), 0..20).prop_map(Message::Copies),
        prop::option::of(peers()).prop_map(|predecessor| Message::NotMine { predecessor }),
        (list(peers(), 0..=NEAR_MAX), any::<u8>(), any::<bool>()).prop_map(|(nodes, owners, more)| {
            let owners = owners.min(nodes.len() as u8);
            Message::Near(Near { nodes: nodes.into(), owners, more })
        }),
        (prop::option::of(peers()), list(peers(), 0..=RING_MAX))
            .prop_map(|(predecessor, successors)| Message::Ring { predecessor, successors }),
        any::<u32>().prop_map(Message::Stored),
        (any::<u64>(), digests()).prop_map(|(after, digest)| Message::Check { after, digest }),
        prop::option::of(digests()).prop_map(|digest| Message::Differs { digest }),
        prop::option::of(items()).prop_map(Message::Value),
        peers().prop_map(Message::Meet),
    ]
}

fn walkers() -> impl Strategy<Value = walk::Walker<Known>> {
    use walk::{Drawn, Errand, STEPS_MAX, STRIDE_MAX, Turn, WalkId, Walker};
    let turn = prop::sample::select(vec![Turn::Any, Turn::Onward]);
    let drawn = prop::sample::select(vec![Drawn::Evenly, Drawn::ByDegree]);
    let errand = prop_oneof![
        (keys(), turn).prop_map(|(key, turn)| Errand::Search { key, turn }),
        (drawn, any::<u8>()).prop_map(|(drawn, degree)| Errand::Sample { drawn, degree }),
    ];
    (any::<u64>(), peers(), 0..=STEPS_MAX, any::<u16>(), 1..=STRIDE_MAX, any::<u8>(), errand).prop_map(
        |(id, origin, left, hops, stride, free, errand)| Walker {
            walk: WalkId(id),
            origin,
            left,
            hops: hops % (STEPS_MAX - left + 1),
            stride,
            free: free % stride,
            errand,
        },
    )
}

fn walk_messages() -> impl Strategy<Value = walk::Message<Known>> {
    use walk::{Message, WalkId};
    let id = || any::<u64>().prop_map(WalkId);
    prop_oneof![
        walkers().prop_map(Message::Step),
        walkers().prop_map(Message::Stay),
        id().prop_map(Message::Check),
        any::<bool>().prop_map(Message::Goes),
        (id(), any::<u16>()).prop_map(|(walk, hops)| Message::Here { walk, hops }),
        id().prop_map(Message::Nothing),
    ]
}

proptest! {
    #[test]
    fn what_is_written_of_chord_is_read(head in heads(), message in chord_messages()) {
        reads_back(head, &message);
    }

    #[test]
    fn what_is_written_of_walks_is_read(head in heads(), message in walk_messages()) {
        reads_back(head, &message);
    }

    #[test]
    fn what_is_flooded_is_read(
        head in heads(), id: u64, ttl in 1..=flood::TTL_MAX, hops: u8, payload in list(any::<u8>(), 0..300),
    ) {
        let message = flood::Message { id: flood::MessageId(id), ttl, hops, payload: payload.into() };
        // A payload goes to the end of the message, so any end is one.
        prop_assert_eq!(read::<flood::Message>(&written(head, &message)), Ok((head, message)));
    }

    #[test]
    fn any_bytes_are_a_message_within_its_limits_or_an_error(
        tag in 0u8..3, kind in 0u8..23, rest in list(any::<u8>(), 0..300),
    ) {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(if tag == 0 { &[] } else { &[1, 2, 3, 4] });
        bytes.push(kind);
        bytes.extend(rest);
        is_sound_or_refused::<chord::Message<Known>>(&bytes);
        is_sound_or_refused::<walk::Message<Known>>(&bytes);
        is_sound_or_refused::<flood::Message>(&bytes);
    }

    #[test]
    fn one_changed_byte_is_another_message_or_an_error(
        message in chord_messages(), walker in walk_messages(), at: usize, with in 1u8..,
    ) {
        let mut bytes = written(Head::Tell, &message);
        let at_chord = at % bytes.len();
        bytes[at_chord] ^= with;
        is_sound_or_refused::<chord::Message<Known>>(&bytes);
        let mut bytes = written(Head::Tell, &walker);
        let at_walk = at % bytes.len();
        bytes[at_walk] ^= with;
        is_sound_or_refused::<walk::Message<Known>>(&bytes);
    }
}

fn ring(successors: usize, addresses: usize, address: usize) -> chord::Message<Known> {
    let peer: Known = (vec![1; 38], vec![vec![2; address]; addresses]);
    chord::Message::Ring { predecessor: None, successors: vec![peer; successors] }
}

#[test]
fn what_is_beyond_a_limit_is_refused_before_a_peer_is_known() {
    let peer = |id: usize, count: u8, address: usize| {
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, &vec![1; id]);
        bytes.push(count);
        (0..count).for_each(|_| put_bytes(&mut bytes, &vec![2; address]));
        bytes
    };
    let not_mine = |peer: Vec<u8>| [vec![0, 8, 1], peer].concat();
    #[rustfmt::skip] // columns
    let table = [
        ("a peer at its limits",     not_mine(peer(80, 16, 256)),                    true),
        ("an id of nothing",         not_mine(peer(0, 0, 0)),                        false),
        ("a long id",                not_mine(peer(81, 0, 0)),                       false),
        ("many addresses",           not_mine(peer(1, 17, 1)),                       false),
        ("a long address",           not_mine(peer(1, 1, 257)),                      false),
        ("an unknown head",          vec![3, 7],                                     false),
        ("an unknown kind",          vec![0, 17],                                    false),
        ("neither yes nor no",       vec![0, 8, 2],                                  false),
        ("more owners than nodes",   vec![0, 9, 1, 0, 0],                            false),
        ("more copies than bytes",   vec![0, 6, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F],       false),
        ("nine nodes",               [vec![0, 9, 0, 0, 9], peer(1, 0, 0).repeat(9)].concat(), false),
        ("33 successors",            [vec![0, 10, 0, 33], peer(1, 0, 0).repeat(33)].concat(), false),
        ("32 successors",            [vec![0, 10, 0, 32], peer(1, 0, 0).repeat(32)].concat(), true),
        ("a peer, then too much",    [not_mine(peer(1, 0, 0)), vec![0]].concat(),    false),
    ];
    for (what, bytes, sound) in table {
        let mut met = 0;
        let read = decode::<(), chord::Message<()>>(&bytes, &mut |_| met += 1);
        assert_eq!(read.is_ok(), sound, "{what}: {read:?}");
        assert_eq!(met > 0, sound, "{what}: {met} peers");
    }
    let long = vec![0; MESSAGE_BYTES_MAX + 1];
    assert_eq!(read::<flood::Message>(&long).err(), Some(DecodeError::Overflow));
    let far = [vec![0], vec![0; 8], vec![flood::TTL_MAX + 1, 0]].concat();
    assert_eq!(read::<flood::Message>(&far).err(), Some(DecodeError::Overflow));
    let walker = walk::Walker {
        walk: walk::WalkId(1),
        origin: (vec![1], vec![]),
        left: walk::STEPS_MAX,
        hops: 1,
        stride: 1,
        free: 0,
        errand: walk::Errand::Sample { drawn: walk::Drawn::Evenly, degree: 1 },
    };
    let bytes = written(Head::Tell, &walk::Message::Step(walker));
    assert_eq!(read::<walk::Message<Known>>(&bytes).err(), Some(DecodeError::Overflow));
}

#[test]
fn a_message_that_is_too_long_is_refused_and_leaves_nothing_behind() {
    assert!(written(Head::Tell, &ring(32, 8, 50)).len() <= MESSAGE_BYTES_MAX);
    let mut out = vec![1, 2];
    let error = encode(Head::Tell, &ring(32, 16, 256), &mut out, &mut put).err();
    assert!(error.is_some_and(|error| error.bytes > MESSAGE_BYTES_MAX));
    assert_eq!(out, [1, 2]);
}

#[test]
fn the_longest_batch_and_value_fit_a_message() {
    let item = |bytes: usize| chord::Item {
        key: Key::from_words([u64::MAX; 4]),
        version: u64::MAX,
        value: Arc::from(vec![1; bytes]),
    };
    let head = Head::Ask(RequestId(u32::MAX));
    written(head, &chord::Message::Put(item(chord::VALUE_BYTES_MAX)));
    for bytes in [0, 1, 200] {
        // As many as a node puts into one message.
        let count = chord::BATCH_BYTES_MAX / (bytes + 45);
        written(head, &chord::Message::Copies(vec![item(bytes); count]));
    }
}
