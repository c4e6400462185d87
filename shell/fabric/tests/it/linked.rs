//! Members: links come up, carry frames, hold back, break and come back.

use std::collections::BTreeSet;
use std::net::TcpListener;

use fabric::link::{Cause, Event, Lane, SendError};
use kernel::{Spoken, Version};

use crate::harness::{Node, World, identity};

#[test]
fn two_members_have_one_link_for_each_lane_and_frames_arrive_in_order() {
    let mut world = World::linked();
    world.rounds(50);
    let [a, b] = [world.ids()[0], world.ids()[1]];
    for n in 0..500u32 {
        for lane in Lane::ALL {
            let payload = vec![n as u8; n as usize * 7 % 3000];
            world.nodes[0].send(b, lane, &payload);
            world.nodes[1].send(a, lane, &payload);
        }
        if n % 50 == 0 {
            world.round();
        }
    }
    world.until("all arrived", |nodes| nodes.iter().all(|node| node.frames.len() == 1000));
    for (at, from) in [(0, b), (1, a)] {
        for lane in Lane::ALL {
            let of_lane: Vec<_> = world.nodes[at].frames.iter().filter(|(_, own, _)| *own == lane).collect();
            assert_eq!(of_lane.len(), 500);
            for (n, (sender, _, payload)) in of_lane.into_iter().enumerate() {
                assert_eq!((*sender, payload), (from, &vec![n as u8; n * 7 % 3000]));
            }
        }
    }
    for node in &world.nodes {
        assert_eq!((node.meters().connections.get(), node.meters().up.get()), (2, 2));
        assert_eq!(node.meters().handshakes.get(), 0);
        assert_eq!(node.meters().told.get(), 0);
    }
}

/// What a host has of a peer is over when a new link comes up, so it must hear of the link before it hears its frames.
#[test]
fn what_arrives_with_a_greeting_comes_behind_the_news_of_the_link() {
    let mut world = World::new(2);
    let [a, b] = [world.ids()[0], world.ids()[1]];
    let (now, address) = (world.now, world.nodes[1].address);
    world.nodes[0].loops.links.set_peer(now, b, vec![address]);
    world.until("the one that is dialled is up", |nodes| nodes[1].loops.links.is_up(a, Lane::Control));
    // Its answer is on its way, and the other one has had no turn since.
    world.nodes[0].stopped = true;
    for n in 0..3 {
        world.nodes[1].send(a, Lane::Control, &[n]);
    }
    world.rounds(3);
    world.nodes[0].stopped = false;
    world.until("all arrived", |nodes| nodes[0].frames.len() == 3);
    let payloads: Vec<&[u8]> = world.nodes[0].frames.iter().map(|(_, _, bytes)| &bytes[..]).collect();
    assert_eq!(payloads, [&[0][..], &[1], &[2]]);
}

#[test]
fn a_frame_as_large_as_may_be_arrives_whole() {
    let mut world = World::linked();
    let b = world.ids()[1];
    for lane in Lane::ALL {
        let limit = lane.frame_bytes_max();
        let payload: Vec<u8> = (0..limit).map(|at| (at / 251) as u8).collect();
        world.nodes[0].send(b, lane, &payload);
        let longer = vec![0; limit + 1];
        let refused = world.nodes[0].loops.links.send(b, lane, &longer);
        assert_eq!(refused, Err(SendError::TooLarge { bytes: limit + 1, limit }));
        world.until("it arrived", |nodes| !nodes[1].frames.is_empty());
        let (_, _, arrived) = world.nodes[1].frames.pop().unwrap();
        assert!(arrived == payload);
    }
}

#[test]
fn dials_at_one_moment_end_in_one_link_for_each_lane() {
    let mut settled = 0;
    for late in 0..24 {
        let mut world = World::new(2);
        let (mut first, mut second) = (0, 1);
        if world.ids()[0] < world.ids()[1] {
            std::mem::swap(&mut first, &mut second);
        }
        // The node with the larger id yields 200 ms; the other one hears of it that much later, more or less.
        let [large, small] = [first, second].map(|at| (world.nodes[at].id(), world.nodes[at].address));
        let now = world.now;
        world.nodes[first].loops.links.set_peer(now, small.0, vec![small.1]);
        world.pass(190);
        world.rounds(late);
        let now = world.now;
        world.nodes[second].loops.links.set_peer(now, large.0, vec![large.1]);
        world.until("both are up", |nodes| nodes[0].is_up(nodes[1].id()) && nodes[1].is_up(nodes[0].id()));
        world.rounds(20);
        world.until("one connection a lane", |nodes| {
            nodes.iter().all(|node| node.meters().connections.get() == 2 && node.meters().up.get() == 2)
        });
        let [a, b] = [world.ids()[0], world.ids()[1]];
        for lane in Lane::ALL {
            world.nodes[0].send(b, lane, b"ping");
            world.nodes[1].send(a, lane, b"pong");
        }
        world.until("frames pass", |nodes| nodes.iter().all(|node| node.frames.len() == 2));
        settled += world.nodes.iter().map(|node| node.ended(Cause::Settled)).sum::<u64>();
    }
    assert!(settled > 0, "no dials crossed, so nothing was tested");
}

#[test]
fn many_members_link_each_with_each() {
    let mut world = World::new(5);
    world.introduce();
    let ids = world.ids();
    world.until("all are up", |nodes| {
        nodes.iter().all(|node| ids.iter().all(|id| *id == node.id() || node.is_up(*id)))
    });
    world.rounds(300);
    for node in &world.nodes {
        assert_eq!(node.meters().up.get(), 8);
        assert_eq!(node.meters().connections.get(), 8);
    }
}

#[test]
fn a_full_queue_refuses_and_tells_when_there_is_room_and_control_goes_on() {
    let mut world = World::linked();
    let b = world.ids()[1];
    let piece = vec![7; 1024 * 1024];
    // The other end takes no turns, so that everything stays in queues.
    world.nodes[1].stopped = true;
    let mut sent = 0;
    let queued = loop {
        match world.nodes[0].loops.links.send(b, Lane::Bulk, &piece) {
            Ok(()) => sent += 1,
            Err(SendError::Full { queued }) => {
                world.rounds(3);
                // Only once the kernel's buffers are full too.
                if world.nodes[0].loops.links.queued(b, Lane::Bulk) == queued {
                    break queued;
                }
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(queued <= Lane::Bulk.queue_bytes_max(), "{queued}");
    assert!(queued + piece.len() + 5 > Lane::Bulk.queue_bytes_max(), "{queued}");
    assert!(!world.nodes[0].has_event(|event| matches!(event, Event::Room { .. })));
    world.nodes[0].send(b, Lane::Control, b"first");
    world.nodes[1].stopped = false;
    world.until("control arrived", |nodes| nodes[1].frames.iter().any(|(_, lane, _)| *lane == Lane::Control));
    let before = world.nodes[1].frames.iter().filter(|(_, lane, _)| *lane == Lane::Bulk).count();
    assert!(before < sent / 2, "control came behind {before} of {sent} bulk frames");
    world.until("there is room", |nodes| {
        nodes[0].has_event(|event| *event == Event::Room { node: b, lane: Lane::Bulk })
    });
    world.until("all arrived", |nodes| nodes[1].frames.len() == sent + 1);
}

#[test]
fn a_host_that_takes_no_frames_holds_the_sender_back_and_loses_nothing() {
    let mut world = World::linked();
    let [a, b] = [world.ids()[0], world.ids()[1]];
    world.nodes[1].loops.links.hold(a, Lane::Bulk);
    let piece = vec![7; 1024 * 1024];
    let mut sent = 0;
    loop {
        match world.nodes[0].loops.links.send(b, Lane::Bulk, &piece) {
            Ok(()) => sent += 1,
            Err(SendError::Full { queued }) => {
                world.rounds(3);
                if world.nodes[0].loops.links.queued(b, Lane::Bulk) == queued {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(world.nodes[1].frames.is_empty());
    // The other lane goes on, and the silence is ours: nobody is cut for it.
    world.nodes[0].send(b, Lane::Control, b"on");
    world.until("control arrived", |nodes| nodes[1].frames.len() == 1);
    (0..5).for_each(|_| world.pass(999));
    let now = world.now;
    world.nodes[1].loops.links.resume(now, a, Lane::Bulk);
    world.until("all arrived", |nodes| nodes[1].frames.len() == sent + 1);
    assert_eq!(world.nodes[1].meters().opened.get(), 2);
}

#[test]
fn a_restarted_node_is_linked_again_and_known_for_another_life() {
    for restarted in 0..2 {
        let mut world = World::linked();
        let (ids, address) = (world.ids(), world.nodes[restarted].address);
        let other = 1 - restarted;
        drop(world.nodes.remove(restarted));
        world.until("the loss is seen", |nodes| {
            nodes[0].has_event(|event| matches!(event, Event::Down { cause: Cause::Lost, .. }))
        });
        world.nodes[0].events.clear();
        let again = Node::at(identity(restarted as u8 + 1), &address.to_string(), &ids, 99);
        world.nodes.insert(restarted, again);
        world.until("both are up", |nodes| nodes[0].is_up(ids[1]) && nodes[1].is_up(ids[0]));
        assert!(world.nodes[other].has_event(|event| matches!(event, Event::Up { incarnation: 99, .. })));
    }
}

#[test]
fn a_node_that_is_away_is_dialled_less_and_less_often() {
    let mut world = World::new(1);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let absent = identity(2).id();
    let ids = world.ids();
    world.nodes[0].members.replace(BTreeSet::from([ids[0], absent]));
    let now = world.now;
    world.nodes[0].loops.links.set_peer(now, absent, vec![gone]);
    let mut dials = Vec::new();
    for _ in 0..3 {
        let before = world.nodes[0].meters().dialled.get();
        (0..100).for_each(|_| world.pass(99));
        dials.push(world.nodes[0].meters().dialled.get() - before);
    }
    // Two lanes, ten seconds each time: some dials at first, then one in five to ten seconds.
    assert!(dials[0] >= 12, "{dials:?}");
    assert!((2..=6).contains(&dials[2]), "{dials:?}");
}

#[test]
fn a_removed_member_loses_its_links_at_once_and_its_frames_are_not_taken() {
    let mut world = World::linked();
    let [a, b] = [world.ids()[0], world.ids()[1]];
    // Sent and written, but not read yet when the removal comes.
    world.nodes[0].stopped = true;
    world.nodes[1].send(a, Lane::Control, b"too late");
    world.rounds(20);
    world.nodes[0].stopped = false;
    world.nodes[0].members.replace(BTreeSet::from([a]));
    world.round();
    assert!(world.nodes[0].frames.is_empty());
    assert!(!Lane::ALL.into_iter().any(|lane| world.nodes[0].loops.links.is_up(b, lane)));
    let removed = |lane| Event::Down { node: b, lane, cause: Cause::Removed };
    assert!(Lane::ALL.into_iter().all(|lane| world.nodes[0].events.contains(&removed(lane))));
    // It is refused when it comes back, and taken when it is a member again.
    world.until("it is refused, and knows", |nodes| {
        nodes[0].ended(Cause::Stranger) > 0 && nodes[1].ended(Cause::Refused) > 0
    });
    world.nodes[0].members.replace(BTreeSet::from([a, b]));
    world.until("it is back", |nodes| nodes[0].is_up(b) && nodes[1].is_up(a));
}

#[test]
fn an_idle_link_lives_on_beats_and_a_silent_one_is_cut() {
    let mut world = World::linked();
    let before: u64 = world.nodes[0].meters().bytes_out.get();
    (0..30).for_each(|_| world.pass_and_hear(2000, &[0, 1]));
    assert!(world.nodes.iter().all(|node| node.meters().up.get() == 2));
    let minute = world.nodes[0].meters().bytes_out.get() - before;
    assert!((500..5000).contains(&minute), "{minute} bytes a minute on two lanes");
    assert!(world.nodes.iter().all(|node| node.frames.is_empty()), "a beat is no frame of data");
    world.nodes[1].stopped = true;
    (0..12).for_each(|_| world.pass(999));
    let b = world.ids()[1];
    let silent = Cause::Stalled(fabric::link::stall::Stalled::Silence);
    assert!(world.nodes[0].events.contains(&Event::Down { node: b, lane: Lane::Control, cause: silent }));
}

#[test]
fn members_one_version_apart_are_linked_until_their_cluster_rises() {
    let mut world = World::new(2);
    let [a, b] = [world.ids()[0], world.ids()[1]];
    let (older, now) = (Spoken::pinned(Version::OLDEST).unwrap(), world.now);
    world.nodes[1].loops.links.speak(now, older);
    world.introduce();
    world.until("both are up", |nodes| nodes[0].is_up(b) && nodes[1].is_up(a));
    let told = |of, what| move |event: &Event| matches!(event, Event::Up { node, spoken, .. } if *node == of && *spoken == what);
    assert!(world.nodes[0].has_event(told(b, older)) && world.nodes[1].has_event(told(a, Spoken::ALL)));
    // The cluster is at the version that both speak, and nothing changes.
    let now = world.now;
    world.nodes[0].loops.links.speak(now, Spoken::ALL.at(Version::OLDEST));
    world.rounds(20);
    assert!(world.nodes[0].is_up(b) && world.nodes[1].is_up(a));
    // It is at the next one, and who does not speak that is cut and stays away; both are told why.
    let (now, ours) = (world.now, Spoken::ALL.at(Version::NEWEST));
    world.nodes[0].loops.links.speak(now, ours);
    let (cut, refused) =
        (Cause::Version { theirs: older, ours }, Cause::Version { theirs: ours, ours: older });
    world.until("it is cut", |nodes| !nodes[1].is_up(a) && nodes[0].ended(cut) >= 2);
    assert!(world.nodes[0].has_event(|event| matches!(event, Event::Down { cause, .. } if *cause == cut)));
    let before = world.nodes[0].ended(cut);
    for _ in 0..200 {
        world.pass(100);
        assert!(!world.nodes[0].is_up(b) && !world.nodes[1].is_up(a));
    }
    assert!(world.nodes[0].ended(cut) + world.nodes[1].ended(refused) > before, "nobody has dialled again");
    // Exchanged, it is a member like the others.
    let now = world.now;
    world.nodes[1].loops.links.speak(now, Spoken::ALL);
    for _ in 0..600 {
        world.pass(100);
        if world.nodes[0].is_up(b) && world.nodes[1].is_up(a) {
            return;
        }
    }
    panic!("they are not linked again");
}
