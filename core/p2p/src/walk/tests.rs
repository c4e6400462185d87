//! Walkers, one step at a time, and what strangers can do with them.

use alloc::collections::BTreeMap;
use alloc::vec;

use kernel::Rng;
use proptest::prelude::*;

use super::*;
use crate::pending::{PENDING_MAX, RequestId};
use crate::protocol::{Effect, EffectOf, Input, InputOf, Keys, Protocol};

struct NoKeys;

impl Keys<u32> for NoKeys {
    fn key(&self, _: u32) -> Key {
        Key::default()
    }
}

type Node = Walks<u32>;

const WALK: WalkId = WalkId(7);
const KEY: Key = Key::from_words([1, 2, 3, 4]);

fn step(node: &mut Node, input: InputOf<Node>) -> Vec<EffectOf<Node>> {
    let mut out = Vec::new();
    node.step(Micros(0), &NoKeys, input, &mut out);
    out
}

fn search(turn: Turn) -> Walker<u32> {
    let errand = Errand::Search { key: KEY, turn };
    Walker { walk: WALK, origin: 99, left: 5, hops: 1, stride: 4, free: 2, errand }
}

fn sample(degree: u8) -> Walker<u32> {
    Walker { errand: Errand::Sample { drawn: Drawn::Evenly, degree }, ..search(Turn::Any) }
}

fn arrives(node: &mut Node, from: u32, walker: Walker<u32>) -> Vec<EffectOf<Node>> {
    step(node, Input::Told { from, body: Message::Step(walker) })
}

/// To whom a walker went on, if it did.
fn next(out: &[EffectOf<Node>]) -> Option<(u32, Walker<u32>)> {
    match out {
        [Effect::Tell { to, body: Message::Step(walker) }] => Some((*to, *walker)),
        _ => None,
    }
}

#[test]
fn a_walker_goes_on_ends_or_waits_as_its_numbers_say() {
    let walker = search(Turn::Any);
    let ends = Effect::Tell { to: 99, body: Message::Nothing(WALK) };
    let found = Effect::Tell { to: 99, body: Message::Here { walk: WALK, hops: 1 } };
    let mut node = Node::new(1, vec![2], Rng::new(1));
    let (to, gone) = next(&arrives(&mut node, 2, walker)).expect("it goes on");
    assert_eq!((to, gone.left, gone.hops, gone.free), (2, 4, 2, 1));
    assert_eq!(
        arrives(&mut node, 2, Walker { left: 0, ..walker }),
        core::slice::from_ref(&ends),
        "its steps are over"
    );
    let waits = arrives(&mut node, 2, Walker { free: 0, ..walker });
    let [Effect::Ask { to: 99, id, body: Message::Check(WALK) }] = waits[..] else { panic!("{waits:?}") };
    let goes = step(&mut node, Input::Answered { from: 99, id, body: Message::Goes(true) });
    assert_eq!(next(&goes).map(|(_, walker)| walker.free), Some(3), "and is checked again after its stride");
    assert!(step(&mut node, Input::Answered { from: 99, id, body: Message::Goes(true) }).is_empty(), "once");
    assert!(node.hold(KEY));
    assert_eq!(arrives(&mut node, 2, walker), [found], "what it searches is here");
    let mut lonely = Node::new(1, vec![], Rng::new(1));
    assert_eq!(arrives(&mut lonely, 2, walker), [ends], "there is nowhere to go");
}

#[test]
fn a_walker_that_its_origin_does_not_want_ends() {
    for input in [
        |id| Input::Answered { from: 99, id, body: Message::Goes(false) },
        |id| Input::Failed { to: 99, id },
        |id| Input::Answered { from: 99, id, body: Message::Nothing(WALK) },
    ] {
        let mut node = Node::new(1, vec![2], Rng::new(1));
        let waits = arrives(&mut node, 2, Walker { free: 0, ..search(Turn::Any) });
        let [Effect::Ask { id, .. }] = waits[..] else { panic!("{waits:?}") };
        assert!(step(&mut node, input(id)).is_empty());
        assert!(node.waiting.is_empty());
    }
}

#[test]
fn a_walker_turns_back_only_if_it_may_or_must() {
    let ways = |turn: Turn, neighbours: Vec<u32>, free: u8| {
        let mut node = Node::new(1, neighbours, Rng::new(1));
        let mut ways = BTreeMap::new();
        for _ in 0..3000 {
            let mut out = arrives(&mut node, 2, Walker { free, ..search(turn) });
            if let [Effect::Ask { id, .. }] = out[..] {
                out = step(&mut node, Input::Answered { from: 99, id, body: Message::Goes(true) });
            }
            *ways.entry(next(&out).expect("it goes on").0).or_insert(0) += 1;
        }
        ways
    };
    for free in [0, 2] {
        let any = ways(Turn::Any, vec![2, 3, 4], free);
        assert!([2, 3, 4].iter().all(|to| (850..1150).contains(&any[to])), "{any:?}");
        let onward = ways(Turn::Onward, vec![2, 3, 4], free);
        assert!(!onward.contains_key(&2) && [3, 4].iter().all(|to| (1350..1650).contains(&onward[to])));
        assert_eq!(ways(Turn::Onward, vec![2], free), BTreeMap::from([(2, 3000)]));
    }
}

#[test]
fn a_step_towards_more_neighbours_is_taken_as_often_as_metropolis_and_hastings_say() {
    #[rustfmt::skip] // columns
    let table = [
        // degree there, here  taken of 10,000
        (1, 4, 2500),
        (3, 4, 7500),
        (4, 4, 10_000),
        (9, 4, 10_000),
        (0, 4, 0),
    ];
    for (there, here, wanted) in table {
        let mut node = Node::new(1, (10..10 + here).collect(), Rng::new(5));
        let mut taken = 0;
        for _ in 0..10_000 {
            match arrives(&mut node, 2, sample(there))[..] {
                [Effect::Tell { body: Message::Step(Walker { errand, .. }), .. }] => {
                    let degree = here as u8;
                    assert_eq!(errand, Errand::Sample { drawn: Drawn::Evenly, degree });
                    taken += 1;
                }
                [Effect::Tell { to: 2, body: Message::Stay(walker) }] => assert_eq!(walker, sample(there)),
                ref out => panic!("{out:?}"),
            }
        }
        assert!(i64::abs(taken - wanted) < 200, "{there} to {here}: {taken}");
    }
    let mut node = Node::new(1, vec![2], Rng::new(1));
    let stays =
        step(&mut node, Input::Told { from: 2, body: Message::Stay(Walker { left: 0, ..sample(1) }) });
    assert_eq!(stays, [Effect::Tell { to: 99, body: Message::Here { walk: WALK, hops: 1 } }]);
}

fn begun(node: &mut Node, walkers: u8) -> WalkId {
    let command = Command::Search { tag: Tag(3), key: KEY, walkers, steps: 9, stride: 4, turn: Turn::Any };
    let out = step(node, Input::Commanded(command));
    assert_eq!(out.len(), usize::from(walkers));
    match out[0] {
        Effect::Tell { body: Message::Step(Walker { walk, left: 8, hops: 1, free: 3, .. }), .. } => walk,
        _ => panic!("{out:?}"),
    }
}

#[test]
fn a_search_reports_the_first_that_found_and_stops_the_others_at_their_check() {
    let mut node = Node::new(1, vec![2, 3], Rng::new(1));
    let walk = begun(&mut node, 3);
    let id = RequestId(0);
    let check = |node: &mut Node| step(node, Input::Asked { from: 8, id, body: Message::Check(walk) });
    let goes = |goes| Effect::Answer { to: 8, id, body: Message::Goes(goes) };
    assert_eq!(check(&mut node), [goes(true)]);
    let here = |from| Input::Told { from, body: Message::Here { walk, hops: 4 } };
    let found = Outcome::Found { tag: Tag(3), holder: 5, hops: 4 };
    assert_eq!(step(&mut node, here(5)), [Effect::Report(found)]);
    assert!(step(&mut node, here(6)).is_empty(), "only the first counts");
    assert_eq!(check(&mut node), [goes(false)]);
    assert!(node.walks.is_empty(), "all three have ended");
    assert_eq!(check(&mut node), [goes(false)]);
}

#[test]
fn a_walk_ends_when_all_walkers_have_or_at_its_deadline() {
    let not_found = [Effect::Report(Outcome::NotFound { tag: Tag(3) })];
    let mut node = Node::new(1, vec![2, 3], Rng::new(1));
    let walk = begun(&mut node, 2);
    let nothing = |from| Input::Told { from, body: Message::Nothing(walk) };
    assert!(step(&mut node, nothing(5)).is_empty());
    assert_eq!(step(&mut node, nothing(6)), not_found);
    begun(&mut node, 2);
    let until = node.deadline().expect("a walk has a deadline");
    let mut out = Vec::new();
    node.wake(Micros(until.0 - 1), &NoKeys, &mut out);
    assert!(out.is_empty());
    node.wake(until, &NoKeys, &mut out);
    assert_eq!(out, not_found);
    assert_eq!(node.deadline(), None);
}

#[test]
fn what_is_out_of_range_is_refused() {
    let sound = Walker { left: STEPS_MAX - 1, hops: 1, stride: STRIDE_MAX, ..search(Turn::Any) };
    let mut node = Node::new(1, vec![2], Rng::new(1));
    assert!(next(&arrives(&mut node, 2, sound)).is_some());
    for walker in [
        Walker { left: STEPS_MAX, ..sound },
        Walker { hops: 2, ..sound },
        Walker { left: u16::MAX, hops: u16::MAX, ..sound },
        Walker { stride: 0, ..sound },
        Walker { stride: STRIDE_MAX + 1, ..sound },
        Walker { free: STRIDE_MAX, ..sound },
    ] {
        assert!(arrives(&mut node, 2, walker).is_empty(), "{walker:?}");
        assert!(step(&mut node, Input::Told { from: 2, body: Message::Stay(walker) }).is_empty());
    }
    for (walkers, steps, stride) in [
        (0, 1, 1),
        (WALKERS_MAX + 1, 1, 1),
        (1, 0, 1),
        (1, STEPS_MAX + 1, 1),
        (1, 1, 0),
        (1, 1, STRIDE_MAX + 1),
    ] {
        let command = Command::Search { tag: Tag(1), key: KEY, walkers, steps, stride, turn: Turn::Any };
        let refused = [Effect::Report(Outcome::Refused { tag: Tag(1) })];
        assert_eq!(step(&mut node, Input::Commanded(command)), refused, "{walkers} {steps} {stride}");
    }
    for n in 0..2 * WALKS_MAX {
        let command = Command::Sample { tag: Tag(1), count: 1, steps: 9, drawn: Drawn::Evenly };
        let out = step(&mut node, Input::Commanded(command));
        assert_eq!(out.contains(&Effect::Report(Outcome::Refused { tag: Tag(1) })), n >= WALKS_MAX);
    }
    for peer in 0..2 * NEIGHBOURS_MAX as u32 {
        step(&mut node, Input::Commanded(Command::Connect(peer)));
    }
    assert_eq!(node.neighbours().len(), NEIGHBOURS_MAX);
}

fn walkers() -> impl Strategy<Value = Walker<u32>> {
    let errands = prop_oneof![
        any::<bool>()
            .prop_map(|on| Errand::Search { key: KEY, turn: if on { Turn::Onward } else { Turn::Any } }),
        (any::<bool>(), any::<u8>()).prop_map(|(even, degree)| Errand::Sample {
            drawn: if even { Drawn::Evenly } else { Drawn::ByDegree },
            degree,
        }),
    ];
    (0..4u64, 0..4u32, any::<u16>(), any::<u16>(), any::<u8>(), 0..3u8, errands).prop_map(
        |(walk, origin, left, hops, stride, free, errand)| Walker {
            walk: WalkId(walk),
            origin,
            left: left / 8,
            hops: hops / 8,
            stride: stride / 4 + 1,
            free,
            errand,
        },
    )
}

proptest! {
    /// One message causes at most one: what a stranger sends is never multiplied, and all that is kept is bounded.
    #[test]
    fn one_message_causes_at_most_one(told in proptest::collection::vec((0..4u32, walkers(), any::<bool>()), 0..200)) {
        let mut node = Node::new(1, vec![2, 3], Rng::new(9));
        for (from, walker, stays) in told {
            let body = if stays { Message::Stay(walker) } else { Message::Step(walker) };
            let out = step(&mut node, Input::Told { from, body });
            prop_assert!(out.len() <= 1);
            for effect in &out {
                if let Effect::Tell { body: Message::Step(next), .. } = effect {
                    prop_assert!(next.left < walker.left && next.is_sound());
                }
            }
            prop_assert!(node.waiting.len() <= PENDING_MAX && node.walks.is_empty());
        }
    }
}
