//! The messages of our own overlays, Chord's first: arbitrary bytes, and messages made of arbitrary fields, whole, cut and
//! damaged. Nothing panics, limits hold, peers are met in sound messages only, and what was written reads back.
#![no_main]

use std::fmt::Debug;

use fuzz::Bytes;
use p2p::chord::{self, Digest, Item, NEAR_MAX, Near, RING_MAX, Told, VALUE_BYTES_MAX};
use p2p::codec::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, Head, MESSAGE_BYTES_MAX, PEER_ID_BYTES_MAX, Peer, Wire, decode, encode, put_peer,
};
use p2p::walk::{Drawn, Errand, STEPS_MAX, STRIDE_MAX, Turn, WalkId, Walker};
use p2p::{Key, RequestId, flood, walk};

type Known = (Vec<u8>, Vec<Vec<u8>>);

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    match input.byte() % 4 {
        0 => {
            read::<chord::Message<Known>>(input.rest());
            read::<walk::Message<Known>>(input.rest());
            read::<flood::Message>(input.rest());
        }
        1 => {
            let (head, message) = (head(&mut input), of_chord(&mut input));
            written(&mut input, head, &message);
        }
        2 => {
            let (head, message) = (head(&mut input), of_walk(&mut input));
            written(&mut input, head, &message);
        }
        _ => {
            let (id, ttl) = (flood::MessageId(input.u64()), input.byte() % flood::TTL_MAX + 1);
            let message = flood::Message { id, ttl, hops: input.byte(), payload: input.piece().into() };
            if message.payload.len() <= flood::PAYLOAD_BYTES_MAX {
                written(&mut input, Head::Tell, &message);
            }
        }
    }
});

fn known(peer: Peer<'_>) -> Known {
    assert!((1..=PEER_ID_BYTES_MAX).contains(&peer.id.len()));
    let addresses: Vec<_> = peer.addresses().map(<[u8]>::to_vec).collect();
    assert!(addresses.len() <= ADDRESSES_MAX && addresses.iter().all(|one| one.len() <= ADDRESS_BYTES_MAX));
    (peer.id.to_vec(), addresses)
}

fn put((id, addresses): &Known, out: &mut Vec<u8>) {
    put_peer(out, id, addresses.iter().map(Vec::as_slice));
}

/// Whatever is read can be written, and reads the same; whatever is not read has shown no peer.
fn read<M: Wire<Known> + PartialEq + Debug>(bytes: &[u8]) {
    let mut met = 0;
    let Ok((head, message)) = decode::<Known, M>(bytes, &mut |peer| {
        met += 1;
        known(peer)
    }) else {
        return assert_eq!(met, 0, "a peer of a message that is none");
    };
    assert!(met <= RING_MAX + 1);
    let mut again = Vec::new();
    encode(head, &message, &mut again, &mut put).expect("a message that was read can be written");
    assert_eq!(decode::<Known, M>(&again, &mut known), Ok((head, message)));
}

/// A message reads back, unless it is too long; then one byte of it is changed, or its end is cut.
fn written<M: Wire<Known> + PartialEq + Debug>(input: &mut Bytes<'_>, head: Head, message: &M) {
    let mut bytes = Vec::new();
    if encode(head, message, &mut bytes, &mut put).is_err() {
        return assert!(bytes.is_empty(), "a refusal appends nothing");
    }
    assert!(bytes.len() <= MESSAGE_BYTES_MAX);
    let (same_head, same) = decode::<Known, M>(&bytes, &mut known).expect("what was written reads");
    assert_eq!((same_head, &same), (head, message));
    let at = input.u64() as usize % bytes.len();
    let mut damaged = bytes.clone();
    damaged[at] ^= input.byte();
    read::<M>(&damaged);
    read::<M>(&bytes[..at]);
}

fn head(input: &mut Bytes<'_>) -> Head {
    match input.byte() % 3 {
        0 => Head::Tell,
        1 => Head::Ask(RequestId(input.u64() as u32)),
        _ => Head::Answer(RequestId(input.u64() as u32)),
    }
}

fn peer(input: &mut Bytes<'_>) -> Known {
    let id = input.piece();
    let id = if id.is_empty() { &[1] } else { &id[..id.len().min(PEER_ID_BYTES_MAX)] };
    let short = |piece: &[u8]| piece[..piece.len().min(ADDRESS_BYTES_MAX)].to_vec();
    let addresses = (0..input.byte() % (ADDRESSES_MAX as u8 + 1)).map(|_| short(input.piece())).collect();
    (id.to_vec(), addresses)
}

fn peers(input: &mut Bytes<'_>, most: usize) -> Vec<Known> {
    (0..usize::from(input.byte()) % (most + 1)).map(|_| peer(input)).collect()
}

fn maybe<T>(input: &mut Bytes<'_>, make: impl FnOnce(&mut Bytes<'_>) -> T) -> Option<T> {
    (input.byte() % 2 == 0).then(|| make(input))
}

fn key(input: &mut Bytes<'_>) -> Key {
    Key::from_words([input.u64(), input.u64(), input.u64(), input.u64()])
}

fn item(input: &mut Bytes<'_>) -> Item {
    let (key, version, value) = (key(input), input.u64(), input.piece());
    Item { key, version, value: value[..value.len().min(VALUE_BYTES_MAX)].into() }
}

fn of_chord(input: &mut Bytes<'_>) -> chord::Message<Known> {
    use chord::Message;
    match input.byte() % 21 {
        0 => Message::Find { point: input.u64(), told: Told { before: input.byte(), owners: input.byte() } },
        1 => Message::Own { point: input.u64() },
        2 => Message::Neighbours,
        3 => Message::Alive,
        4 => Message::Put(item(input)),
        5 => Message::Get(key(input)),
        6 => Message::Copies((0..input.byte() % 32).map(|_| item(input)).collect()),
        7 => Message::Mine,
        8 => Message::NotMine { predecessor: maybe(input, peer) },
        9 => {
            let nodes = peers(input, NEAR_MAX);
            let owners = input.byte() % (nodes.len() as u8 + 1);
            Message::Near(Near { nodes: nodes.into(), owners, more: input.byte() % 2 == 0 })
        }
        10 => Message::Ring { predecessor: maybe(input, peer), successors: peers(input, RING_MAX) },
        11 => Message::Yes,
        12 => Message::Outside,
        13 => Message::Stored(input.u64() as u32),
        14 => Message::Value(maybe(input, item)),
        15 => Message::Notify,
        16 => Message::Leaving,
        17 => Message::Meet(peer(input)),
        18 => {
            Message::Check { after: input.u64(), digest: digest(input) }
        }
        19 => Message::Differs { digest: maybe(input, digest) },
        _ => Message::Offer,
    }
}

fn digest(input: &mut Bytes<'_>) -> Digest {
    Digest { count: input.u64() as u32, mix: input.u64() }
}

fn of_walk(input: &mut Bytes<'_>) -> walk::Message<Known> {
    use walk::Message;
    match input.byte() % 6 {
        0 => Message::Step(walker(input)),
        1 => Message::Stay(walker(input)),
        2 => Message::Check(WalkId(input.u64())),
        3 => Message::Goes(input.byte() % 2 == 0),
        4 => Message::Here { walk: WalkId(input.u64()), hops: input.u64() as u16 },
        _ => Message::Nothing(WalkId(input.u64())),
    }
}

fn walker(input: &mut Bytes<'_>) -> Walker<Known> {
    let left = input.u64() as u16 % (STEPS_MAX + 1);
    let stride = input.byte() % STRIDE_MAX + 1;
    let errand = match input.byte() % 4 {
        0 => Errand::Search { key: key(input), turn: Turn::Any },
        1 => Errand::Search { key: key(input), turn: Turn::Onward },
        2 => Errand::Sample { drawn: Drawn::Evenly, degree: input.byte() },
        _ => Errand::Sample { drawn: Drawn::ByDegree, degree: input.byte() },
    };
    Walker {
        walk: WalkId(input.u64()),
        origin: peer(input),
        left,
        hops: input.u64() as u16 % (STEPS_MAX - left + 1),
        stride,
        free: input.byte() % stride,
        errand,
    }
}
