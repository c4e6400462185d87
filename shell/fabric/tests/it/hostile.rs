//! Strangers, liars and those who stall: refused or cut, told once, counted; and nothing of them stays.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use fabric::link::stall::{FRAME_MS_MAX, HANDSHAKE_MS_MAX, Stalled};
use fabric::link::{Cause, door, frame};

use crate::harness::World;
use crate::raw::{Raw, config};

/// A world of one node with itself and the node of seed 2 as members.
fn alone() -> World {
    let mut world = World::new(2);
    world.nodes.pop();
    world
}

fn nothing_stays(world: &mut World) {
    world.until("nothing stays", |nodes| nodes[0].meters().connections.get() == 0);
    assert_eq!(world.nodes[0].meters().handshakes.get(), 0);
}

#[test]
fn a_key_that_is_no_members_is_refused_told_once_and_counted() {
    let mut world = alone();
    for n in 1..=5 {
        let mut raw = Raw::connect(world.nodes[0].address, 9, b"archipel/1");
        raw.until_closed(&mut world);
        assert!(raw.heard.is_empty());
        assert_eq!(world.nodes[0].ended(Cause::Stranger), n);
    }
    assert_eq!(world.nodes[0].meters().told.get(), 1);
    world.pass(door::WINDOW_MS);
    Raw::connect(world.nodes[0].address, 9, b"archipel/1").until_closed(&mut world);
    assert_eq!(world.nodes[0].meters().told.get(), 2);
    nothing_stays(&mut world);
    // The control: a member's key is taken.
    drop(Raw::link(&mut world, 2, 0));
}

#[test]
fn a_dial_that_reaches_another_node_is_given_up_on_both_ends() {
    let mut world = World::new(3);
    let (b, c) = (world.ids()[1], world.nodes[2].address);
    let now = world.now;
    world.nodes[0].loops.links.set_peer(now, b, vec![c]);
    world.until("it is seen", |nodes| {
        nodes[0].ended(Cause::Stranger) > 0 && nodes[2].ended(Cause::Refused) > 0
    });
    assert_eq!(world.nodes[0].meters().up.get(), 0);
    assert_eq!(world.nodes[2].meters().opened.get(), 0);
}

#[test]
fn what_is_not_our_protocol_is_garbage() {
    let hello_of_another_version = {
        let mut bytes = Vec::new();
        let mut raw = Raw::connect(World::new(1).nodes[0].address, 2, b"archipel/9");
        raw.tls.write_tls(&mut bytes).unwrap();
        bytes
    };
    let hello_without_alpn = {
        let mut bytes = Vec::new();
        let mut raw = Raw::connect(World::new(1).nodes[0].address, 2, b"");
        raw.tls.write_tls(&mut bytes).unwrap();
        bytes
    };
    let table: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        &[0; 4096],
        &[0x16, 3, 1, 0xFF, 0xFF, 1, 2, 3, 4, 5, 6, 7],
        &hello_of_another_version,
        &hello_without_alpn,
    ];
    for (row, bytes) in table.into_iter().enumerate() {
        let mut world = alone();
        let mut stream = TcpStream::connect(world.nodes[0].address).unwrap();
        stream.write_all(bytes).unwrap();
        world.until(&format!("row {row} is refused"), |nodes| nodes[0].ended(Cause::Garbage) == 1);
        assert_eq!(world.nodes[0].meters().told.get(), 1);
        nothing_stays(&mut world);
        // Closed or reset, perhaps behind an alert.
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

#[test]
fn a_connection_that_is_closed_at_once_leaves_nothing() {
    let mut world = alone();
    for _ in 0..20 {
        let stream = TcpStream::connect(world.nodes[0].address).unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
    }
    world.until("all came", |nodes| nodes[0].meters().accepted.get() == 20);
    nothing_stays(&mut world);
}

#[test]
fn a_stalled_handshake_is_cut_at_its_deadline_wherever_it_stalls() {
    let hello = {
        let mut bytes = Vec::new();
        let mut raw = Raw::connect(World::new(1).nodes[0].address, 2, b"archipel/1");
        raw.tls.write_tls(&mut bytes).unwrap();
        bytes
    };
    let stalled = Cause::Stalled(Stalled::Handshake);
    for length in [0, 1, hello.len() / 2, hello.len()] {
        let mut world = alone();
        let mut stream = TcpStream::connect(world.nodes[0].address).unwrap();
        stream.write_all(&hello[..length]).unwrap();
        world.until("it came", |nodes| nodes[0].meters().bytes_in.get() == length as u64);
        world.until("it is a handshake", |nodes| nodes[0].meters().handshakes.get() == 1);
        world.pass(HANDSHAKE_MS_MAX - 1000);
        assert_eq!(world.nodes[0].ended(stalled), 0, "{length}");
        world.pass(1000);
        assert_eq!(world.nodes[0].ended(stalled), 1, "{length}");
        nothing_stays(&mut world);
    }
    // TLS is done, and the greeting does not come.
    let mut world = alone();
    let mut raw = Raw::connect(world.nodes[0].address, 2, b"archipel/1");
    for _ in 0..20_000 {
        raw.pump();
        if !raw.tls.is_handshaking() && !raw.tls.wants_write() {
            break;
        }
        world.round();
    }
    assert!(!raw.tls.is_handshaking());
    world.rounds(20);
    world.pass(HANDSHAKE_MS_MAX);
    raw.until_closed(&mut world);
    assert_eq!(world.nodes[0].ended(stalled), 1);
}

#[test]
fn a_member_that_breaks_the_frames_rules_is_cut() {
    let over = (frame::SMALL_BYTES_MAX + 1) as u32;
    let with = |length: u32, kind: u8| [&length.to_le_bytes()[..], &[kind]].concat();
    let frames = |cause: &Cause| matches!(cause, Cause::Frame(_));
    let unexpected = |cause: &Cause| *cause == Cause::Unexpected;
    let table: [(Vec<u8>, fn(&Cause) -> bool); 6] = [
        (with(u32::MAX, 2), frames),
        (with(4 * 1024 * 1024 + 1, 2), frames),
        (with(over, 3), frames),
        (with(0, 9), frames),
        ([with(10, 1), vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat(), unexpected), // a second greeting
        (with(0, 5), unexpected),
    ];
    for (row, (bytes, cause)) in table.into_iter().enumerate() {
        let mut world = alone();
        let mut raw = Raw::link(&mut world, 2, 0);
        raw.say(&bytes);
        raw.until_closed(&mut world);
        let down = |event: &fabric::link::Event| match event {
            fabric::link::Event::Down { cause: own, .. } => cause(own),
            _ => false,
        };
        assert!(world.nodes[0].has_event(down), "row {row}: {:?}", world.nodes[0].events);
        assert_eq!(world.nodes[0].meters().told.get(), 1, "row {row}");
        nothing_stays(&mut world);
    }
}

#[test]
fn a_member_that_sends_data_before_its_greeting_is_cut() {
    let mut world = alone();
    let mut raw = Raw::connect(world.nodes[0].address, 2, b"archipel/1");
    raw.say(&[0, 0, 0, 0, 2]);
    raw.until_closed(&mut world);
    assert_eq!(world.nodes[0].ended(Cause::Unexpected), 1);
    assert_eq!(world.nodes[0].meters().opened.get(), 0);
    assert!(world.nodes[0].frames.is_empty());
}

#[test]
fn a_member_that_stalls_within_a_frame_is_cut_although_it_drips() {
    let mut world = alone();
    let mut raw = Raw::link(&mut world, 2, 0);
    raw.say(&[100, 0, 0, 0, 2]);
    let mut waited = 0;
    // Some turns take a millisecond each besides.
    while waited < FRAME_MS_MAX - 2000 {
        raw.speak(&mut world, b".");
        world.pass(1000);
        waited += 1200;
        assert_eq!(world.nodes[0].meters().up.get(), 1, "after {waited} ms");
    }
    for _ in 0..40 {
        if world.nodes[0].meters().up.get() == 0 {
            break;
        }
        raw.speak(&mut world, b".");
        world.pass(1000);
    }
    let cut = |event: &fabric::link::Event| {
        matches!(event, fabric::link::Event::Down { cause: Cause::Stalled(Stalled::Frame), .. })
    };
    assert!(world.nodes[0].has_event(cut), "{:?}", world.nodes[0].events);
    raw.until_closed(&mut world);
    nothing_stays(&mut world);
}

#[test]
fn a_member_that_does_not_read_is_cut() {
    let mut world = alone();
    let mut raw = Raw::link(&mut world, 2, 1);
    let node = crate::harness::identity(2).id();
    let piece = vec![7; 1024 * 1024];
    // Until the kernel's buffers are full.
    while world.nodes[0].loops.links.queued(node, fabric::link::Lane::Bulk) < 8 * piece.len() {
        world.nodes[0].send(node, fabric::link::Lane::Bulk, &piece);
        world.rounds(4);
    }
    let cut = |event: &fabric::link::Event| {
        matches!(event, fabric::link::Event::Down { cause: Cause::Stalled(Stalled::Write), .. })
    };
    // It goes on speaking, and reads nothing. The kernels may still move some bytes at first.
    for _ in 0..60 {
        if world.nodes[0].has_event(cut) {
            break;
        }
        raw.speak(&mut world, &[0, 0, 0, 0, 3]);
        world.pass(999);
    }
    assert!(world.nodes[0].has_event(cut), "{:?}", world.nodes[0].events);
    nothing_stays(&mut world);
}

#[test]
fn handshakes_of_one_source_are_bounded_and_others_come_in() {
    let mut world = alone();
    let address = world.nodes[0].address;
    let many = door::HANDSHAKES_PER_SOURCE_MAX + 5;
    let held: Vec<TcpStream> = (0..many).map(|_| TcpStream::connect(address).unwrap()).collect();
    world.until("all came", |nodes| nodes[0].meters().accepted.get() == many as u64);
    let turned = Cause::Turned(door::Turned::SourceFull);
    assert_eq!(world.nodes[0].ended(turned), 5);
    assert_eq!(world.nodes[0].meters().handshakes.get(), door::HANDSHAKES_PER_SOURCE_MAX as u64);
    assert_eq!(world.nodes[0].meters().told.get(), 1);
    drop(held);
    nothing_stays(&mut world);
}

#[test]
fn no_session_can_be_resumed_and_the_cipher_is_the_fast_one() {
    let mut world = alone();
    let mut settings = config(2, b"archipel/1");
    settings.resumption = rustls::client::Resumption::in_memory_sessions(8);
    settings.enable_early_data = true;
    for _ in 0..2 {
        let mut raw = Raw::with(world.nodes[0].address, settings.clone());
        assert!(raw.tls.early_data().is_none());
        for _ in 0..20_000 {
            raw.pump();
            if !raw.tls.is_handshaking() && !raw.tls.wants_write() {
                break;
            }
            world.round();
        }
        world.rounds(20);
        raw.pump();
        assert_eq!(raw.tls.tls13_tickets_received(), 0);
        assert_eq!(raw.tls.handshake_kind(), Some(rustls::HandshakeKind::Full));
        let suite = raw.tls.negotiated_cipher_suite().unwrap().suite();
        // The client's choice among ours; it prefers AES-256, which a link does not speak.
        assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    }
}

/// `cargo run --release -p fabric --example hostile -- 100000` does so with more of them, and judges memory.
#[test]
fn nothing_stays_of_hostile_attempts_and_each_is_counted_for_what_it_was() {
    let outcome = crate::campaign::run(600);
    assert_eq!((outcome.attempts, outcome.left), (600, (0, 0)));
    let ended: u64 = outcome.endings.iter().map(|(_, count)| count).sum();
    assert_eq!(ended, 600, "{outcome:?}");
    for label in ["stranger", "garbage", "frame", "stalled", "lost", "answered"] {
        assert!(outcome.endings.contains(&(label, 100)), "{label}: {outcome:?}");
    }
    // Four attempts a source, one line of the log a source and minute, 64 a minute in all.
    assert!((50..=200).contains(&outcome.told), "{outcome:?}");
    // Loose here, where allocators still grow; the command judges the long run.
    assert!(outcome.resident.1 < outcome.resident.0 + (64 << 20), "{outcome:?}");
}
