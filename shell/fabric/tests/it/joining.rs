//! Newcomers: a token lets one in, over a connection that can do nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fabric::join::{ClusterId, Invitation, JoinRequest, Redeemed, Refusal, Secret, Token, TokenId};
use fabric::link::frame::ANSWER_BYTES_MAX;
use fabric::link::stall::{JOIN_MS_MAX, Stalled};
use fabric::link::{Cause, Event, Members};
use kernel::{Millis, NodeId};

use crate::harness::{Node, World, identity};
use crate::raw::Raw;

/// The tokens that a cluster knows.
type Registry = BTreeMap<TokenId, Invitation>;

/// A cluster of one, and a newcomer that knows nobody.
fn world() -> (World, Token, Registry) {
    let mut world = World::new(1);
    let newcomer = Node::at(identity(2), "127.0.0.1:0", &[], 2);
    world.nodes.push(newcomer);
    let token = Token {
        cluster: ClusterId([4; 16]),
        introducer: world.nodes[0].id(),
        addresses: vec![world.nodes[0].address],
        secret: Secret([5; 16]),
        expires: world.now.plus_millis(60_000).millis(),
    };
    let registry = Registry::from([(token.id(), Invitation::of(&token))]);
    (world, token, registry)
}

fn redeem(
    registry: &mut Registry,
    now: Millis,
    node: NodeId,
    request: &JoinRequest,
    binding: &[u8; 32],
) -> Result<Redeemed, Refusal> {
    let invitation = registry.get_mut(&request.token).ok_or(Refusal::Unknown)?;
    let redeemed = invitation.redeem(now, node, request, binding)?;
    invitation.used = Some(node);
    Ok(redeemed)
}

/// Has the newcomer ask, and the introducer judge and answer.
fn ask(world: &mut World, token: &Token, registry: &mut Registry) -> Result<Redeemed, Refusal> {
    let now = world.now;
    world.nodes[1].loops.links.join(now, token, token.addresses[0], b"at 10.0.0.2".to_vec());
    world.until("it asks", |nodes| nodes[0].has_event(|event| matches!(event, Event::Joining { .. })));
    let asked = world.nodes[0].events.pop();
    let Some(Event::Joining { id, node, request, binding, .. }) = asked else { panic!("{asked:?}") };
    assert_eq!((node, &request.about[..]), (world.nodes[1].id(), &b"at 10.0.0.2"[..]));
    let judged = redeem(registry, world.now.millis(), node, &request, &binding);
    // A welcome tells of every member.
    let welcome = vec![7; ANSWER_BYTES_MAX];
    let answer: &[u8] = if judged.is_ok() { &welcome } else { b"refused" };
    assert!(world.nodes[0].loops.links.answer(id, answer));
    let introducer = world.nodes[0].id();
    let joined = Event::Joined { introducer, answer: answer.to_vec() };
    world.until("it hears", |nodes| nodes[1].has_event(|event| *event == joined));
    assert!(!world.nodes[0].loops.links.answer(id, answer), "a request is answered once");
    world.nodes[1].events.clear();
    judged
}

#[test]
fn a_token_lets_one_node_in_and_it_links_as_a_member() {
    let (mut world, token, mut registry) = world();
    assert_eq!(ask(&mut world, &token, &mut registry), Ok(Redeemed::Now));
    world.until("no connection is left", |nodes| {
        nodes.iter().all(|node| node.meters().connections.get() == 0)
    });
    assert_eq!(world.nodes[0].ended(Cause::Answered), 1);
    let ids = world.ids();
    world.nodes.iter().for_each(|node| node.members.replace(ids.iter().copied().collect::<BTreeSet<_>>()));
    world.introduce();
    world.until("they are linked", |nodes| nodes[0].is_up(ids[1]) && nodes[1].is_up(ids[0]));
}

#[test]
fn a_used_an_expired_and_a_foreign_token_are_refused() {
    let (mut world, token, mut registry) = world();
    let mut foreign = token.clone();
    foreign.secret = Secret([6; 16]);
    assert_eq!(ask(&mut world, &foreign, &mut registry), Err(Refusal::Unknown));
    let mut elsewhere = token.clone();
    elsewhere.cluster = ClusterId([9; 16]);
    assert_eq!(ask(&mut world, &elsewhere, &mut registry), Err(Refusal::Proof));
    assert_eq!(ask(&mut world, &token, &mut registry), Ok(Redeemed::Now));
    // Another node with the same text.
    world.nodes[1] = Node::at(identity(3), "127.0.0.1:0", &[], 3);
    assert_eq!(ask(&mut world, &token, &mut registry), Err(Refusal::Used));
    let mut late = token.clone();
    late.secret = Secret([7; 16]);
    late.expires = world.now.millis();
    registry.insert(late.id(), Invitation::of(&late));
    assert_eq!(ask(&mut world, &late, &mut registry), Err(Refusal::Expired));
}

#[test]
fn a_newcomer_talks_to_the_introducer_of_its_token_only() {
    let (mut world, mut token, _) = world();
    token.introducer = identity(8).id();
    let now = world.now;
    world.nodes[1].loops.links.join(now, &token, token.addresses[0], Vec::new());
    let failed = Event::JoinFailed { introducer: token.introducer, cause: Cause::Stranger };
    world.until("it gives up", |nodes| nodes[1].has_event(|event| *event == failed));
    assert!(!world.nodes[0].has_event(|event| matches!(event, Event::Joining { .. })));
}

#[test]
fn a_proof_that_was_overheard_is_worth_nothing_on_another_connection() {
    let (mut world, token, mut registry) = world();
    let now = world.now;
    world.nodes[1].loops.links.join(now, &token, token.addresses[0], Vec::new());
    world.until("it asks", |nodes| nodes[0].has_event(|event| matches!(event, Event::Joining { .. })));
    let Some(Event::Joining { request, node, binding, .. }) = world.nodes[0].events.pop() else { panic!() };
    // The same request by the same node on a second connection, as somebody who has its key and the record would.
    let mut raw = Raw::connect(world.nodes[0].address, 2, b"archipel-join/1");
    raw.say(&framed(4, &request));
    for _ in 0..20_000 {
        raw.pump();
        if world.nodes[0].has_event(|event| matches!(event, Event::Joining { .. })) {
            break;
        }
        world.round();
    }
    let Some(Event::Joining { request: again, node: same, binding: other, .. }) = world.nodes[0].events.pop()
    else {
        panic!("it is not asked")
    };
    assert_eq!((&again, same), (&request, node));
    let now = world.now.millis();
    assert_eq!(redeem(&mut registry, now, same, &again, &other), Err(Refusal::Proof));
    // The control: on its own connection it is good.
    assert_eq!(redeem(&mut registry, now, node, &request, &binding), Ok(Redeemed::Now));
}

fn framed(kind: u8, request: &JoinRequest) -> Vec<u8> {
    let mut payload = Vec::new();
    request.encode(&mut payload);
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.push(kind);
    frame.extend(payload);
    frame
}

#[test]
fn a_newcomer_that_sends_anything_else_is_cut() {
    let hello = [10, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for bytes in [&hello[..], &[0, 0, 0, 0, 2], &[0, 0, 0, 0, 3], &[3, 0, 0, 0, 4, 1, 2, 3]] {
        let (mut world, ..) = world();
        world.nodes.pop();
        // Whether or not it is a member does not matter.
        for seed in [1, 9] {
            let before = world.nodes[0].ended(Cause::Unexpected);
            let mut raw = Raw::connect(world.nodes[0].address, seed, b"archipel-join/1");
            raw.say(bytes);
            raw.until_closed(&mut world);
            assert_eq!(world.nodes[0].ended(Cause::Unexpected), before + 1, "{bytes:?}");
            assert!(world.nodes[0].frames.is_empty());
        }
    }
}

#[test]
fn a_request_that_nobody_answers_ends() {
    let (mut world, token, _) = world();
    let now = world.now;
    world.nodes[1].loops.links.join(now, &token, token.addresses[0], Vec::new());
    world.until("it asks", |nodes| nodes[0].has_event(|event| matches!(event, Event::Joining { .. })));
    world.pass(JOIN_MS_MAX);
    world.until("it is given up", |nodes| {
        nodes[1].has_event(|event| matches!(event, Event::JoinFailed { .. }))
    });
    assert_eq!(world.nodes[0].ended(Cause::Stalled(Stalled::Join)), 1);
    world.until("nothing stays", |nodes| nodes.iter().all(|node| node.meters().connections.get() == 0));
}

#[test]
fn a_stranger_without_a_token_is_no_member_by_asking() {
    let (mut world, ..) = world();
    let members: &Arc<Members> = &world.nodes[0].members;
    assert!(!members.contains(world.nodes[1].id()));
    let mut raw = Raw::connect(world.nodes[0].address, 2, b"archipel/1");
    raw.until_closed(&mut world);
    assert_eq!(world.nodes[0].ended(Cause::Stranger), 1);
}
