//! Histories whose judgement is known, and histories of copies that are right or broken on purpose.

use super::*;
use kernel::Rng;
use proptest::prelude::*;

type Seen = Operation<Ask, Answer>;

const GOT: fn(u64) -> Answer = |value| Answer::Value(Some(value));

fn op(client: u64, called: u64, returned: u64, ask: Ask, answer: Answer) -> Seen {
    Operation { client, ask, called, returned: Some((returned, answer)) }
}

fn unknown(client: u64, called: u64, ask: Ask) -> Seen {
    Operation { client, ask, called, returned: None }
}

#[test]
fn histories_of_a_register_are_judged() {
    use Ask::{CompareAndSet, Delete, Get, Set};
    const NONE: Answer = Answer::Value(None);
    #[rustfmt::skip] // columns
    let table: Vec<(&str, bool, Vec<Seen>)> = vec![
        ("nothing happened", true, vec![]),
        ("a read sees the write before it", true,
            vec![op(1, 0, 1, Set(1), Answer::Done), op(2, 2, 3, Get, GOT(1))]),
        ("a stale read", false,
            vec![op(1, 0, 1, Set(1), Answer::Done), op(1, 2, 3, Set(2), Answer::Done), op(2, 4, 5, Get, GOT(1))]),
        ("what overlaps may be seen or not", true,
            vec![op(1, 0, 9, Set(1), Answer::Done), op(2, 1, 2, Get, NONE), op(2, 3, 4, Get, GOT(1))]),
        ("but not seen and then unseen", false,
            vec![op(1, 0, 9, Set(1), Answer::Done), op(2, 1, 2, Get, GOT(1)), op(2, 3, 4, Get, NONE)]),
        ("nor unseen by another that came later", false,
            vec![op(1, 0, 9, Set(1), Answer::Done), op(2, 1, 2, Get, GOT(1)), op(3, 3, 4, Get, NONE)]),
        ("equal times overlap", true,
            vec![op(1, 0, 5, Set(1), Answer::Done), op(2, 5, 6, Get, NONE)]),
        ("an unknown write may take effect late", true,
            vec![unknown(1, 0, Set(1)), op(2, 1, 2, Get, NONE), op(2, 8, 9, Get, GOT(1))]),
        ("or never", true,
            vec![unknown(1, 0, Set(1)), op(2, 8, 9, Get, NONE)]),
        ("but only once", false,
            vec![unknown(1, 0, Set(1)), op(2, 1, 2, Get, GOT(1)), op(2, 3, 4, Set(2), Answer::Done),
                 op(2, 5, 6, Get, GOT(1))]),
        ("and not before its call", false,
            vec![op(2, 0, 1, Get, GOT(1)), unknown(1, 2, Set(1))]),
        ("a lost write", false,
            vec![op(1, 0, 1, Set(1), Answer::Done), op(1, 2, 3, Get, NONE)]),
        ("only one of two exchanges succeeds", false,
            vec![op(1, 0, 1, Set(1), Answer::Done), op(1, 2, 9, CompareAndSet(1, 2), Answer::Did(true)),
                 op(2, 2, 9, CompareAndSet(1, 3), Answer::Did(true))]),
        ("one deletes", true,
            vec![op(1, 0, 1, Set(1), Answer::Done), op(1, 2, 9, Delete, Answer::Did(false)),
                 op(2, 2, 9, Delete, Answer::Did(true))]),
    ];
    for (name, holds, history) in table {
        let verdict = judge(&Register, &history);
        assert_eq!(matches!(verdict, Verdict::Linearizable(_)), holds, "{name}: {verdict:?}");
    }
}

#[test]
fn a_violation_names_the_answer_that_nothing_explains() {
    let history = [op(1, 0, 1, Ask::Set(1), Answer::Done), op(2, 2, 3, Ask::Get, GOT(7))];
    assert_eq!(judge(&Register, &history), Verdict::Violated { longest: vec![0], stuck: 1 });
}

#[test]
fn every_object_is_judged_by_itself() {
    let right = vec![op(1, 0, 1, Ask::Set(1), Answer::Done)];
    let wrong = vec![op(1, 0, 1, Ask::Get, GOT(1))];
    let all = BTreeMap::from([("a", right.clone()), ("b", wrong), ("c", right)]);
    assert!(matches!(judge_all(&Register, &all), Err(("b", Verdict::Violated { .. }))));
}

/// A run of clients on one copy that answers at a moment between call and return. With `stale`, reads
/// answer what was there two changes ago.
fn history(seed: u64, clients: u64, operations: usize, stale: bool) -> Vec<Seen> {
    let mut rng = Rng::new(seed);
    let mut free = vec![0; clients as usize];
    let mut plan: Vec<(u64, u64, u64, u64, Ask)> = Vec::new();
    for number in 0..operations as u64 {
        let client = rng.below(clients);
        let called = free[client as usize] + rng.below(20);
        let effect = called + rng.below(30);
        let returned = effect + rng.below(30);
        free[client as usize] = returned + 1;
        let ask = match rng.below(6) {
            0 | 1 => Ask::Get,
            2 | 3 => Ask::Set(number),
            4 => Ask::CompareAndSet(rng.below(number + 1), number),
            _ => Ask::Increment,
        };
        plan.push((effect, client, called, returned, ask));
    }
    plan.sort_by_key(|&(effect, ..)| effect);
    let mut states = vec![None];
    let mut seen = Vec::new();
    for (_, client, called, returned, ask) in plan {
        let state = *states.last().unwrap();
        let old = if stale && states.len() > 2 { states[states.len() - 3] } else { state };
        let answers = [Answer::Done, Answer::Did(true), Answer::Did(false), Answer::Value(old)];
        let increment = Answer::Value(Some(state.unwrap_or(0) + 1));
        let answer = if ask == Ask::Get {
            Answer::Value(old)
        } else {
            let fits = |one: &Answer| Register.step(&state, &ask, Some(one)).is_some();
            answers.into_iter().chain([increment]).find(fits).unwrap()
        };
        let after = Register.step(&state, &ask, None).unwrap();
        if after != state {
            states.push(after);
        }
        let lost = rng.chance(0.05);
        let ask_back = (!lost).then_some((returned, answer));
        seen.push(Operation { client, ask, called, returned: ask_back });
    }
    seen
}

proptest! {
    #[test]
    fn one_copy_is_linearizable_and_the_order_found_proves_it(seed: u64, clients in 1..8_u64) {
        let history = history(seed, clients, 120, false);
        let Verdict::Linearizable(order) = judge(&Register, &history) else { panic!("seed {seed}") };
        let mut state = None;
        let mut latest_call = 0;
        for &number in &order {
            let Operation { ask, called, returned, .. } = &history[number];
            state = Register.step(&state, ask, returned.as_ref().map(|(_, answer)| answer)).unwrap();
            // Real time: nothing in the order returned before something earlier in it was called.
            latest_call = latest_call.max(*called);
            prop_assert!(returned.is_none_or(|(at, _)| at >= latest_call));
        }
        let answered = (0..history.len()).filter(|&number| history[number].returned.is_some());
        prop_assert!(answered.into_iter().all(|number| order.contains(&number)));
    }
}

#[test]
fn copies_that_answer_stale_reads_are_caught() {
    let caught = (0..200)
        .filter(|&seed| matches!(judge(&Register, &history(seed, 3, 60, true)), Verdict::Violated { .. }));
    // A stale read is no violation where the change it missed overlaps it; most runs have one that is.
    let caught = caught.count();
    assert!(caught > 190, "{caught} of 200");
}

/// Whether any order at all explains the history: every one is tried.
fn explained(state: Option<u64>, left: &[Seen]) -> bool {
    let first_return = left.iter().filter_map(|one| one.returned).map(|(at, _)| at).min();
    let Some(first_return) = first_return else { return true };
    (0..left.len()).any(|at| {
        let Operation { ask, called, returned, .. } = &left[at];
        let answer = returned.as_ref().map(|(_, answer)| answer);
        let rest = [&left[..at], &left[at + 1..]].concat();
        *called <= first_return
            && Register.step(&state, ask, answer).is_some_and(|state| explained(state, &rest))
    })
}

/// A few operations that answer something that is often wrong, and often nothing.
fn few(seed: u64) -> Vec<Seen> {
    let mut rng = Rng::new(seed);
    let value = |rng: &mut Rng| Answer::Value(rng.chance(0.8).then(|| 1 + rng.below(2)));
    let one = |client| {
        let called = rng.below(12);
        let (ask, answer) = match rng.below(5) {
            0 => (Ask::Get, value(&mut rng)),
            1 => (Ask::Set(1 + rng.below(2)), Answer::Done),
            2 => (Ask::Delete, Answer::Did(rng.chance(0.5))),
            3 => (Ask::CompareAndSet(1 + rng.below(2), 1), Answer::Did(rng.chance(0.5))),
            _ => (Ask::Increment, value(&mut rng)),
        };
        let returned = rng.chance(0.6).then(|| (called + rng.below(8), answer));
        Operation { client, ask, called, returned }
    };
    (0..7).map(one).collect()
}

#[test]
fn what_is_not_tried_would_not_have_helped() {
    let (mut right, mut wrong) = (0, 0);
    for seed in 0..4000 {
        let history = few(seed);
        let expected = explained(None, &history);
        let verdict = judge(&Register, &history);
        assert_eq!(
            matches!(verdict, Verdict::Linearizable(_)),
            expected,
            "seed {seed}: {history:?} {verdict:?}"
        );
        (right, wrong) = (right + u64::from(expected), wrong + u64::from(!expected));
    }
    assert!(right > 400 && wrong > 400, "{right} right and {wrong} wrong show too little");
}
