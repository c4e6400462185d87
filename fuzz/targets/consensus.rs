//! Messages between replicas: arbitrary bytes read back as they are written or are refused; no sequence of them makes a
//! replica panic, whatever its host's disk does meanwhile.
#![no_main]

use consensus::codec::{decode, encode};
use consensus::group::Event;
use consensus::replay::{Restored, Tail};
use consensus::{Config, Group, Incarnation, Logged, Mark, Members, Replica, ReplicaId};
use fuzz::Bytes;
use kernel::{GroupId, Index, Lsn, Micros, Term};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    match input.byte() % 3 {
        0 => raw(input.rest()),
        _ => replica(&mut input),
    }
});

fn raw(bytes: &[u8]) {
    let Ok(message) = decode(bytes) else { return };
    let mut again = Vec::new();
    encode(&message, &mut again);
    assert_eq!(decode(&again), Ok(message));
}

/// Replica 2 of three, with five entries, three of them committed.
fn follower(tail: Tail) -> Replica {
    let members = Members::new((1..=3).filter_map(ReplicaId::new), []).expect("three voters");
    let entry = |index| Logged::new(Term(3), Index(index), 1, Micros(0), b"body");
    let restored = Restored {
        hard: (Term(3), None),
        mark: Mark { index: Index(3), term: Term(3), members },
        base: (Index(1), Term(1)),
        entries: (2..6).map(entry).collect(),
        committed: Index(3),
        tail,
        repair: None,
    };
    let id = ReplicaId::new(2).expect("not 0");
    Replica::new(Config::new(GroupId(7), id, Incarnation(1), 9), Micros(0), restored)
}

fn replica(input: &mut Bytes<'_>) {
    let tail = if input.byte() % 4 == 0 { Tail::Ambiguous } else { Tail::Certain };
    let mut replica = follower(tail);
    let (mut now, mut end) = (Micros(10_000_000), 0);
    while !input.is_empty() {
        let (sender, term, does) = (1 + 2 * (input.byte() % 2), 1 + input.byte() % 8, input.byte());
        // A sound head, so that bodies are reached: version, group, from, incarnation, to, term.
        let mut bytes = vec![1, 7, 0, 0, 0, sender, 1, 2, term];
        bytes.extend_from_slice(input.piece());
        let _ = replica.receive(now, &bytes);
        now = now + u64::from(does) * 1000;
        replica.wake(now);
        if does & 1 == 0 {
            end += replica.writes().len() as u64;
            replica.wrote(Lsn(end));
        }
        if does & 2 == 0 {
            replica.synced(Lsn(end));
        }
        if does & 12 == 12 {
            replica.read(now);
        }
        replica.turn(now);
        while let Some(event) = replica.next_event() {
            match event {
                Event::FetchSnapshot { descriptor, .. } => _ = replica.snapshot_staged(descriptor.generation),
                Event::InstallSnapshot(descriptor) => replica.snapshot_installed(descriptor.mark.index),
                _ => {}
            }
        }
        while let Some(committed) = replica.next_committed() {
            replica.applied(committed.index);
        }
        replica.take_messages(&mut Vec::new());
    }
}
