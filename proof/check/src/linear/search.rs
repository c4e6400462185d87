//! The search for an order.
//!
//! Depth first over configurations: what is in the order, and the state behind it. What is not tried:
//! - A look whose answer fits and leaves the state as it is, is taken at once and for good. Any order in which it
//!   comes later stays one when it comes now.
//! - Operations whose end is unknown owe nobody a return. Of two configurations that differ only in them, the one that
//!   used fewer can go on in every way in which the other can; so the other is given up. They are tried last, and looks
//!   among them never.
//! - Of those that ask the same, the earlier one is used first: whenever the later may be next, the earlier may too.

use std::collections::HashMap;

use super::{Object, Operation, STEPS_MAX, Verdict};

/// A place in the list of calls and returns that are not in the order yet; those without a return are not in it.
#[derive(Clone, Copy, Debug)]
struct Event {
    at: u64,
    operation: usize,
    is_return: bool,
    previous: usize,
    next: usize,
}

/// What may be next.
#[derive(Clone, Copy, Debug)]
enum Choice {
    /// An operation that returned.
    Known(usize),
    /// The next of a class of unknown operations.
    Unknown(usize),
}

/// A configuration on the way to the present one.
struct Frame<S> {
    /// How long the order was, and the state, before what led here.
    length: usize,
    before: S,
    choices: Vec<Choice>,
    next: usize,
}

/// The operations that returned and are in the order, without what all of them have: the first word that is not
/// full, and the words from there to the last that is not empty.
type Done = (usize, Box<[u64]>);

pub(super) struct Search<'a, O: Object> {
    object: &'a O,
    history: &'a [Operation<O::Ask, O::Answer>],
    /// A circle through place 0, which is no event.
    events: Vec<Event>,
    /// The places of each operation's call and return.
    places: Vec<(usize, usize)>,
    /// Returns in the list.
    returns_left: usize,
    /// Each operation's number among its equals: in order of calls, or its class.
    ranks: Vec<usize>,
    /// Unknown operations that ask the same, in order of their calls.
    classes: Vec<Vec<usize>>,
    /// How many of each class are in the order.
    used: Vec<u32>,
    done: Vec<u64>,
    state: O::State,
    order: Vec<usize>,
    frames: Vec<Frame<O::State>>,
    /// What was used where a configuration with the same operations done and the same state was tried.
    seen: HashMap<(Done, O::State), Vec<Box<[u32]>>>,
}

impl<'a, O: Object> Search<'a, O> {
    pub(super) fn new(object: &'a O, history: &'a [Operation<O::Ask, O::Answer>]) -> Search<'a, O> {
        let mut calls: Vec<usize> = (0..history.len()).collect();
        calls.sort_by_key(|&number| history[number].called);
        let mut ranks = vec![0; history.len()];
        let mut times: Vec<(u64, bool, usize)> = Vec::with_capacity(history.len() * 2);
        let mut classes: Vec<Vec<usize>> = Vec::new();
        for number in calls {
            let Operation { ask, called, returned, .. } = &history[number];
            if let Some((at, _)) = returned {
                assert!(at >= called, "an operation returns after its call");
                ranks[number] = times.len() / 2;
                times.extend([(*called, false, number), (*at, true, number)]);
            } else if !object.only_looks(ask) {
                let class = classes.iter().position(|class| history[class[0]].ask == *ask);
                ranks[number] = class.unwrap_or(classes.len());
                match class {
                    Some(class) => classes[class].push(number),
                    None => classes.push(vec![number]),
                }
            }
        }
        let known = times.len() / 2;
        // At one time calls come first, so that what touches overlaps.
        times.sort_unstable();
        let last = times.len();
        let mut events = vec![Event { at: 0, operation: 0, is_return: false, previous: last, next: 1 }];
        let mut places = vec![(0, 0); history.len()];
        for (place, &(at, is_return, operation)) in (1..).zip(&times) {
            let next = if place == last { 0 } else { place + 1 };
            events.push(Event { at, operation, is_return, previous: place - 1, next });
            let own = &mut places[operation];
            *(if is_return { &mut own.1 } else { &mut own.0 }) = place;
        }
        if times.is_empty() {
            events[0].next = 0;
        }
        Search {
            object,
            history,
            events,
            places,
            returns_left: known,
            ranks,
            used: vec![0; classes.len()],
            classes,
            done: vec![0; known.div_ceil(64)],
            state: object.initial(),
            order: Vec::new(),
            frames: Vec::new(),
            seen: HashMap::new(),
        }
    }

    pub(super) fn run(mut self) -> Verdict {
        let (mut longest, mut stuck) = (None::<Vec<usize>>, 0);
        let state = self.state.clone();
        self.enter(0, state);
        for _ in 0..STEPS_MAX {
            if self.returns_left == 0 {
                return Verdict::Linearizable(self.order);
            }
            let Some(frame) = self.frames.last_mut() else {
                return Verdict::Violated { longest: longest.unwrap_or_default(), stuck };
            };
            if let Some(&choice) = frame.choices.get(frame.next) {
                frame.next += 1;
                self.choose(choice);
                continue;
            }
            // The first return comes before anything else can be next: what was put last is wrong.
            if longest.as_ref().is_none_or(|longest| self.order.len() > longest.len()) {
                longest = Some(self.order.clone());
                stuck = self.events[self.first_return()].operation;
            }
            self.leave();
        }
        Verdict::TooHard
    }

    /// Puts `choice` next in the order, unless its answer does not fit or what follows was tried before.
    fn choose(&mut self, choice: Choice) {
        let operation = match choice {
            Choice::Known(operation) => operation,
            Choice::Unknown(class) => self.classes[class][self.used[class] as usize],
        };
        let Operation { ask, returned, .. } = &self.history[operation];
        let answer = returned.as_ref().map(|(_, answer)| answer);
        let Some(state) = self.object.step(&self.state, ask, answer) else { return };
        let length = self.order.len();
        let before = core::mem::replace(&mut self.state, state);
        self.put(operation);
        self.enter(length, before);
    }

    /// Goes on from a configuration, unless there is no need.
    fn enter(&mut self, length: usize, before: O::State) {
        self.look();
        let fresh = self.returns_left > 0 && self.is_fresh();
        let choices = if fresh { self.choices() } else { Vec::new() };
        self.frames.push(Frame { length, before, choices, next: 0 });
        if !fresh && self.returns_left > 0 {
            self.leave();
        }
    }

    /// Back to the configuration before.
    fn leave(&mut self) {
        let Some(Frame { length, before, .. }) = self.frames.pop() else { return };
        self.state = before;
        while self.order.len() > length {
            self.take_back();
        }
    }

    /// Takes what only looks, can be next, and leaves the state as it is.
    fn look(&mut self) {
        let mut at = self.events[0].next;
        while at != 0 && !self.events[at].is_return {
            let Event { operation, next, .. } = self.events[at];
            let Operation { ask, returned, .. } = &self.history[operation];
            let answer = returned.as_ref().map(|(_, answer)| answer);
            if self.object.only_looks(ask)
                && self.object.step(&self.state, ask, answer).is_some_and(|state| state == self.state)
            {
                let (_, end) = self.places[operation];
                // The return may be what follows.
                at = if end == next { self.events[end].next } else { next };
                self.put(operation);
            } else {
                at = next;
            }
        }
    }

    /// What can be next: what returned, soonest returned first, and then what did not.
    fn choices(&self) -> Vec<Choice> {
        let end = self.first_return();
        let mut known = Vec::new();
        let mut at = self.events[0].next;
        while at != end {
            known.push(self.events[at].operation);
            at = self.events[at].next;
        }
        known.sort_unstable_by_key(|&operation| self.places[operation].1);
        let latest = self.events[end].at;
        let unknown = self.classes.iter().enumerate().filter(|&(class, operations)| {
            let next = operations.get(self.used[class] as usize);
            next.is_some_and(|&operation| self.history[operation].called <= latest)
        });
        let unknown = unknown.map(|(class, _)| Choice::Unknown(class));
        known.into_iter().map(Choice::Known).chain(unknown).collect()
    }

    /// The place of the first return; there is one.
    fn first_return(&self) -> usize {
        let mut at = self.events[0].next;
        while !self.events[at].is_return {
            at = self.events[at].next;
        }
        at
    }

    /// Whether no configuration was tried that could go on in every way in which this one can.
    fn is_fresh(&mut self) -> bool {
        let first = self.done.iter().position(|word| *word != u64::MAX).unwrap_or(self.done.len());
        let end = self.done.iter().rposition(|word| *word != 0).map_or(first, |last| last + 1);
        let done = self.done[first..end.max(first)].into();
        let tried = self.seen.entry(((first, done), self.state.clone())).or_default();
        if tried.iter().any(|tried| tried.iter().zip(&self.used).all(|(tried, used)| tried <= used)) {
            return false;
        }
        tried.push(self.used.as_slice().into());
        true
    }

    fn put(&mut self, operation: usize) {
        self.order.push(operation);
        let rank = self.ranks[operation];
        let (call, end) = self.places[operation];
        if end == 0 {
            self.used[rank] += 1;
            return;
        }
        self.done[rank / 64] |= 1 << (rank % 64);
        self.lift(call);
        self.lift(end);
        self.returns_left -= 1;
    }

    fn take_back(&mut self) {
        let Some(operation) = self.order.pop() else { return };
        let rank = self.ranks[operation];
        let (call, end) = self.places[operation];
        if end == 0 {
            self.used[rank] -= 1;
            return;
        }
        self.done[rank / 64] &= !(1 << (rank % 64));
        self.put_back(end);
        self.put_back(call);
        self.returns_left += 1;
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
