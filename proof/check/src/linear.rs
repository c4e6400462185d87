//! Linearizability: whether a history of calls and returns could have come from one copy that runs one
//! operation at a time, each at some moment between its call and its return.
//!
//! Wing & Gong 1993, "Testing and verifying concurrent objects", with the memory of visited configurations
//! of Lowe 2017, "Testing for linearizability". Objects are judged one by one: a history is linearizable
//! exactly if that of each object is (Herlihy & Wing 1990, theorem 1). The problem is NP-complete, so the
//! search has a bound, and a history beyond it is not judged. What it need not try, `linear/search.rs` says.

mod search;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;

/// What one copy of an object does.
pub trait Object {
    /// Its state.
    type State: Clone + Eq + Hash;
    /// What clients ask. What is equal does the same.
    type Ask: Debug + PartialEq;
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
    /// True if `ask` changes no state: an answer to it can only say what the state was, and where it leaves the state
    /// of [`Object::step`] as it is, it might as well have been asked at any moment of that state.
    fn only_looks(&self, ask: &Self::Ask) -> bool;
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
    search::Search::new(object, history).run()
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

    fn only_looks(&self, ask: &Ask) -> bool {
        *ask == Ask::Get
    }
}

#[cfg(test)]
mod tests;
