//! Kademlia's messages: arbitrary bytes, and messages made of arbitrary fields, whole, cut and damaged. Nothing panics,
//! limits hold, and what was written reads back.
#![no_main]

use fuzz::Bytes;
use wire::kad::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, Connection, Kind, MESSAGE_BYTES_MAX, Message, Outgoing, PEER_ID_BYTES_MAX,
    PEERS_MAX, PeerOut, Record, put_frame, take_frame,
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    match input.byte() % 3 {
        0 => read(input.rest()),
        1 => frames(input.rest()),
        _ => fields(&mut input),
    }
});

/// Whatever is read keeps the limits, and written again it reads the same.
fn read(bytes: &[u8]) {
    let Ok(message) = Message::decode(bytes) else { return };
    let mut lists = Vec::new();
    for list in [message.closer, message.providers] {
        assert!(list.len() <= PEERS_MAX);
        assert_eq!(list.count(), list.len(), "a list has as many peers as were counted");
        let peers: Vec<_> = list.map(|peer| (peer, peer.addresses().collect::<Vec<_>>())).collect();
        for (peer, addresses) in &peers {
            assert!((1..=PEER_ID_BYTES_MAX).contains(&peer.id.len()));
            assert!(addresses.len() <= ADDRESSES_MAX);
            assert!(addresses.iter().all(|address| address.len() <= ADDRESS_BYTES_MAX));
        }
        lists.push(peers);
    }
    let [closer, providers] = [0, 1].map(|n| {
        let peers = lists[n].iter();
        peers
            .map(|(peer, addresses)| PeerOut { id: peer.id, addresses, connection: peer.connection })
            .collect::<Vec<_>>()
    });
    let mut again = Vec::new();
    let outgoing = Outgoing {
        kind: message.kind,
        key: message.key,
        record: message.record,
        closer: &closer,
        providers: &providers,
    };
    let listed = outgoing.encode(&mut again).expect("a message that was read can be written");
    assert_eq!((listed.closer, listed.providers), (closer.len(), providers.len()), "it was short enough before");
    let same = Message::decode(&again).expect("what was written reads");
    assert_eq!((same.kind, same.key, same.record), (message.kind, message.key, message.record));
    for (list, told) in [(same.closer, &lists[0]), (same.providers, &lists[1])] {
        assert_eq!(list.len(), told.len());
        for (peer, (old, addresses)) in list.zip(told) {
            assert_eq!((peer.id, peer.connection), (old.id, old.connection));
            assert!(peer.addresses().eq(addresses.iter().copied()));
        }
    }
}

/// A stream of frames ends, each within the limit.
fn frames(mut bytes: &[u8]) {
    while let Ok(Some((message, taken))) = take_frame(bytes) {
        assert!(message.len() <= MESSAGE_BYTES_MAX);
        let mut again = Vec::new();
        put_frame(message, &mut again);
        assert_eq!(again, bytes[..taken], "a frame can be written in one way only");
        read(message);
        bytes = &bytes[taken..];
    }
}

/// A message of arbitrary fields reads back; then one byte of it is changed.
fn fields(input: &mut Bytes<'_>) {
    let kind = [Kind::PutValue, Kind::GetValue, Kind::AddProvider, Kind::GetProviders, Kind::FindNode, Kind::Ping]
        [usize::from(input.byte()) % 6];
    let key = input.piece();
    let record = (input.byte() % 2 == 0).then(|| Record {
        key: input.piece(),
        value: input.piece(),
        received: input.piece(),
        publisher: &b"publisher"[..usize::from(input.byte()) % 10],
        ttl: input.u64() as u32,
    });
    let mut lists: [Vec<(&[u8], Vec<&[u8]>, Connection)>; 2] = [Vec::new(), Vec::new()];
    for list in &mut lists {
        for _ in 0..input.byte() % 24 {
            let id = input.piece();
            let addresses = (0..input.byte() % 20).map(|_| input.piece()).collect();
            let connection = [Connection::No, Connection::Yes, Connection::Can, Connection::Cannot]
                [usize::from(input.byte()) % 4];
            list.push((id, addresses, connection));
        }
    }
    let [closer, providers] = [0, 1].map(|n| {
        let peers = lists[n].iter();
        peers
            .map(|(id, addresses, connection)| PeerOut { id, addresses, connection: *connection })
            .collect::<Vec<_>>()
    });
    let mut bytes = Vec::new();
    let outgoing = Outgoing { kind, key, record, closer: &closer, providers: &providers };
    if outgoing.encode(&mut bytes).is_err() {
        return assert!(bytes.is_empty(), "a refusal appends nothing");
    }
    assert!(bytes.len() <= MESSAGE_BYTES_MAX);
    let message = Message::decode(&bytes).expect("what was written reads");
    assert_eq!((message.kind, message.key, message.record), (kind, key, record));
    read(&bytes);
    if !bytes.is_empty() {
        let at = input.u64() as usize % bytes.len();
        bytes[at] ^= input.byte();
        read(&bytes);
    }
}
