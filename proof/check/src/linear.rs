//! Linearizability: whether a history of calls and returns could have come from one copy that runs one
//! operation at a time, each at some moment between its call and its return.
//!
//! Wing & Gong 1993, "Testing and verifying concurrent objects", with the memory of visited configurations
//! of Lowe 2017, "Testing for linearizability". Objects are judged one by one: a history is linearizable
//! exactly if that of each object is (Herlihy & Wing 1990, theorem 1). The problem is NP-complete, so the
//! search has a bound, and a history beyond it is not judged.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;

/// What one copy of an object does.
pub trait Object {
    /// Its state.
    type State: Clone + Eq + Hash;
    /// What clients ask.
    type Ask: Debug;
    /// What they are answered.
    type Answer: Debug;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;
    /// The state after `ask`, if it may be answered `answer` in `state`; `None` for an answer that is not known
    /// stands for any.
    fn step(
        &self,
        state: &Self::State,
        ask: &Self::Ask,
        answer: Option<&Self::Answer>,
    ) -> Option<Self::State>;
}

/// An operation as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<A, R> {
    /// Who asked.
    pub client: u64,
    /// What.
    pub ask: A,
    /// When.
    pub called: u64,
    /// The answer and when it came. `None`: it is not known whether it took effect, or ever will.
    pub returned: Option<(u64, R)>,
}

/// The judgement of one history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order; the operations' numbers in it, without those that need not have taken effect.
    Linearizable(Vec<usize>),
    /// There is none.
    Violated {
        /// The longest order that was found.
        longest: Vec<usize>,
        /// The operation whose answer none of the states that can be reached explains.
        stuck: usize,
    },
    /// The search took more than [`STEPS_MAX`] steps.
    TooHard,
}

/// Steps that the search for an order may take.
pub const STEPS_MAX: u64 = 20_000_000;

/// Judges the history of one object. Times that are equal count as overlapping.
///
/// Memory grows with the number of different configurations: as many as the operations that overlap allow.
pub fn judge<O: Object>(object: &O, history: &[Operation<O::Ask, O::Answer>]) -> Verdict {
    Search::new(object, history).run()
}

/// What was done to one object.
pub type History<O> = Vec<Operation<<O as Object>::Ask, <O as Object>::Answer>>;

/// Judges each object of a history of many by itself; the first that is not linearizable, with its name.
///
/// # Errors
/// The name and the verdict on an object that is violated or too hard.
pub fn judge_all<O: Object, K: Ord + Clone>(
    object: &O,
    histories: &BTreeMap<K, History<O>>,
) -> Result<(), (K, Verdict)> {
    for (name, history) in histories {
        match judge(object, history) {
            Verdict::Linearizable(_) => {}
            verdict => return Err((name.clone(), verdict)),
        }
    }
    Ok(())
}

/// A place in the list of events that are not in the order yet.
#[derive(Clone, Copy, Debug)]
struct Event {
    operation: usize,
    is_return: bool,
    previous: usize,
    next: usize,
}

struct Search<'a, O: Object> {
    object: &'a O,
    history: &'a [Operation<O::Ask, O::Answer>],
    /// A circle through place 0, which is no event.
    events: Vec<Event>,
    /// The places of each operation's call and return; a return that never came is at 0.
    places: Vec<(usize, usize)>,
    /// Returns in the list.
    returns_left: usize,
    state: O::State,
    order: Vec<(usize, O::State)>,
    done: Vec<u64>,
    seen: HashSet<(Vec<u64>, O::State)>,
}

impl<'a, O: Object> Search<'a, O> {
    fn new(object: &'a O, history: &'a [Operation<O::Ask, O::Answer>]) -> Search<'a, O> {
        let mut times: Vec<(u64, bool, usize)> = Vec::with_capacity(history.len() * 2);
        for (number, operation) in history.iter().enumerate() {
            times.push((operation.called, false, number));
            if let Some((at, _)) = operation.returned {
                assert!(at >= operation.called, "an operation returns after its call");
                times.push((at, true, number));
            }
        }
        // At one time calls come first, so that what touches overlaps.
        times.sort_unstable();
        let mut events = vec![Event { operation: 0, is_return: false, previous: times.len(), next: 1 }];
        let mut places = vec![(0, 0); history.len()];
        for (at, &(_, is_return, operation)) in times.iter().enumerate() {
            let next = if at + 1 == times.len() { 0 } else { at + 2 };
            events.push(Event { operation, is_return, previous: at, next });
            let place = &mut places[operation];
            *(if is_return { &mut place.1 } else { &mut place.0 }) = at + 1;
        }
        if times.is_empty() {
            events[0].next = 0;
        }
        Search {
            object,
            history,
            events,
            places,
            returns_left: times.iter().filter(|(_, is_return, _)| *is_return).count(),
            state: object.initial(),
            order: Vec::new(),
            done: vec![0; history.len().div_ceil(64)],
            seen: HashSet::new(),
        }
    }

    fn run(mut self) -> Verdict {
        let mut at = self.events[0].next;
        let (mut longest, mut stuck) = (Vec::new(), 0);
        for _ in 0..STEPS_MAX {
            if self.returns_left == 0 {
                return Verdict::Linearizable(self.numbers());
            }
            let Event { operation, is_return, next, .. } = self.events[at];
            if !is_return && at != 0 {
                at = if self.try_next(operation) { self.events[0].next } else { next };
                continue;
            }
            // This return (or the end) comes before anything else can be next: what was put last is wrong.
            if self.order.len() >= longest.len() {
                (longest, stuck) = (self.numbers(), operation);
            }
            match self.take_back() {
                Some(call) => at = self.events[call].next,
                None => return Verdict::Violated { longest, stuck },
            }
        }
        Verdict::TooHard
    }

    fn numbers(&self) -> Vec<usize> {
        self.order.iter().map(|(operation, _)| *operation).collect()
    }

    /// Puts `operation` next in the order, unless its answer does not fit or this was tried before.
    fn try_next(&mut self, operation: usize) -> bool {
        let Operation { ask, returned, .. } = &self.history[operation];
        let answer = returned.as_ref().map(|(_, answer)| answer);
        let Some(state) = self.object.step(&self.state, ask, answer) else { return false };
        self.done[operation / 64] |= 1 << (operation % 64);
        if !self.seen.insert((self.done.clone(), state.clone())) {
            self.done[operation / 64] &= !(1 << (operation % 64));
            return false;
        }
        self.order.push((operation, core::mem::replace(&mut self.state, state)));
        let (call, end) = self.places[operation];
        self.lift(call);
        if end != 0 {
            self.lift(end);
            self.returns_left -= 1;
        }
        true
    }

    /// Takes the last of the order back; the place of its call.
    fn take_back(&mut self) -> Option<usize> {
        let (operation, state) = self.order.pop()?;
        self.state = state;
        self.done[operation / 64] &= !(1 << (operation % 64));
        let (call, end) = self.places[operation];
        if end != 0 {
            self.put_back(end);
            self.returns_left += 1;
        }
        self.put_back(call);
        Some(call)
    }

    fn lift(&mut self, at: usize) {
        let Event { previous, next, .. } = self.events[at];
        self.events[previous].next = next;
        self.events[next].previous = previous;
    }

    fn put_back(&mut self, at: usize) {
        let Event { previous, next, .. } = self.events[at];
        self.events[previous].next = at;
        self.events[next].previous = at;
    }
}

/// A register that holds a number, or nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register;

/// What a [`Register`] is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// What it holds.
    Get,
    /// To hold this.
    Set(u64),
    /// To hold nothing.
    Delete,
    /// To hold the second if it holds the first.
    CompareAndSet(u64, u64),
    /// To hold one more than it does; nothing counts as 0.
    Increment,
}

/// What a [`Register`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// What it holds, or holds now.
    Value(Option<u64>),
    /// Whether it did it.
    Did(bool),
}

impl Object for Register {
    type State = Option<u64>;
    type Ask = Ask;
    type Answer = Answer;

    fn initial(&self) -> Option<u64> {
        None
    }

    fn step(&self, state: &Option<u64>, ask: &Ask, answer: Option<&Answer>) -> Option<Option<u64>> {
        let (after, right) = match *ask {
            Ask::Get => (*state, Answer::Value(*state)),
            Ask::Set(value) => (Some(value), Answer::Done),
            Ask::Delete => (None, Answer::Did(state.is_some())),
            Ask::CompareAndSet(old, new) if *state == Some(old) => (Some(new), Answer::Did(true)),
            Ask::CompareAndSet(..) => (*state, Answer::Did(false)),
            Ask::Increment => {
                let value = Some(state.unwrap_or(0) + 1);
                (value, Answer::Value(value))
            }
        };
        answer.is_none_or(|answer| *answer == right).then_some(after)
    }
}

#[cfg(test)]
mod tests;
