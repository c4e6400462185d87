//! A key of the store as an object of histories: text, numbers, lists, transactions on it, and expiry.
//!
//! When a key expires is decided by the group's time, which a history does not know. So a state is the set of what the
//! key may hold: where it holds something that expires, it may also hold nothing, and what is gone does not come back.

use std::collections::VecDeque;

use crate::linear::Object;

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// A string.
    Text(Vec<u8>),
    /// A list; never empty.
    List(VecDeque<Vec<u8>>),
}

/// A value, and whether it may expire at any moment.
type Held = Option<(Value, bool)>;

/// See the module's text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cell;

/// What is asked of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `GET`.
    Get,
    /// `SET`, or with `expires` `SET … PX`.
    Set {
        /// To this.
        value: Vec<u8>,
        /// With a time to live.
        expires: bool,
    },
    /// `DEL`.
    Delete,
    /// `INCR`.
    Increment,
    /// `APPEND`.
    Append(Vec<u8>),
    /// `WATCH`, a `GET` that showed `old`, then `SET` in a transaction. Only a success says anything.
    Exchange {
        /// What it must hold.
        old: Option<Vec<u8>>,
        /// What it is to hold.
        new: Vec<u8>,
    },
    /// `RPUSH`.
    Push(Vec<u8>),
    /// `LPOP`, or a `BLPOP` that got something.
    Pop,
    /// `LLEN`.
    Length,
    /// `LRANGE 0 -1`.
    Items,
    /// `EXEC` of these.
    All(Vec<Ask>),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `OK`.
    Done,
    /// A string, or nothing.
    Text(Option<Vec<u8>>),
    /// A number.
    Number(i64),
    /// Strings.
    Items(Vec<Vec<u8>>),
    /// The exchange took place.
    Exchanged,
    /// It did not. Clients may be told so for other reasons, so no history has it.
    Kept,
    /// Each command's.
    All(Vec<Answer>),
    /// Another type, or no number.
    Refused,
}

impl Object for Cell {
    /// Sorted, without repetitions.
    type State = Vec<Held>;
    type Ask = Ask;
    type Answer = Answer;

    fn initial(&self) -> Vec<Held> {
        vec![None]
    }

    fn step(&self, state: &Vec<Held>, ask: &Ask, answer: Option<&Answer>) -> Option<Vec<Held>> {
        let mut after = Vec::with_capacity(state.len() + 1);
        for held in state {
            let mut held = held.clone();
            let right = run(&mut held, ask);
            if answer.is_none_or(|answer| *answer == right) {
                after.push(held);
            }
        }
        // What may expire may have done so from now on; always said, so that equal states look the same.
        if after.iter().any(|held| held.as_ref().is_some_and(|(_, expires)| *expires)) {
            after.push(None);
        }
        after.sort_unstable();
        after.dedup();
        (!after.is_empty()).then_some(after)
    }

    fn only_looks(&self, ask: &Ask) -> bool {
        match ask {
            Ask::Get | Ask::Length | Ask::Items => true,
            Ask::All(asks) => asks.iter().all(|ask| self.only_looks(ask)),
            Ask::Set { .. }
            | Ask::Delete
            | Ask::Increment
            | Ask::Append(_)
            | Ask::Exchange { .. }
            | Ask::Push(_)
            | Ask::Pop => false,
        }
    }
}

/// Runs it on one possible content.
fn run(held: &mut Held, ask: &Ask) -> Answer {
    match ask {
        Ask::Get => match held {
            None => Answer::Text(None),
            Some((Value::Text(text), _)) => Answer::Text(Some(text.clone())),
            Some((Value::List(_), _)) => Answer::Refused,
        },
        Ask::Set { value, expires } => {
            *held = Some((Value::Text(value.clone()), *expires));
            Answer::Done
        }
        Ask::Delete => Answer::Number(i64::from(held.take().is_some())),
        Ask::Increment => increment(held),
        Ask::Append(more) => match held.get_or_insert_with(|| (Value::Text(Vec::new()), false)) {
            (Value::Text(text), _) => {
                text.extend_from_slice(more);
                Answer::Number(text.len() as i64)
            }
            (Value::List(_), _) => Answer::Refused,
        },
        Ask::Exchange { old, new } => {
            let now = match held {
                None => None,
                Some((Value::Text(text), _)) => Some(&*text),
                Some((Value::List(_), _)) => return Answer::Kept,
            };
            if now != old.as_ref() {
                return Answer::Kept;
            }
            *held = Some((Value::Text(new.clone()), false));
            Answer::Exchanged
        }
        Ask::Push(_) | Ask::Pop | Ask::Length | Ask::Items => run_list(held, ask),
        Ask::All(asks) => Answer::All(asks.iter().map(|ask| run(held, ask)).collect()),
    }
}

fn increment(held: &mut Held) -> Answer {
    let (value, _) = held.get_or_insert_with(|| (Value::Text(b"0".to_vec()), false));
    let Value::Text(text) = value else { return Answer::Refused };
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    let Some(number) = number.and_then(|number| number.checked_add(1)) else { return Answer::Refused };
    *text = number.to_string().into_bytes();
    Answer::Number(number)
}

fn run_list(held: &mut Held, ask: &Ask) -> Answer {
    let empty = (Value::List(VecDeque::new()), false);
    let (mut list, expires) = match held.take().unwrap_or(empty) {
        (Value::List(list), expires) => (list, expires),
        text => {
            *held = Some(text);
            return Answer::Refused;
        }
    };
    let answer = match ask {
        Ask::Push(value) => {
            list.push_back(value.clone());
            Answer::Number(list.len() as i64)
        }
        Ask::Pop => Answer::Text(list.pop_front()),
        Ask::Length => Answer::Number(list.len() as i64),
        _ => Answer::Items(list.iter().cloned().collect()),
    };
    *held = (!list.is_empty()).then_some((Value::List(list), expires));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{Operation, Verdict, judge};

    fn text(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    fn set(value: &str, expires: bool) -> Ask {
        Ask::Set { value: text(value), expires }
    }

    fn got(value: Option<&str>) -> Answer {
        Answer::Text(value.map(text))
    }

    /// One after another, or with no answer: unknown.
    fn holds(history: Vec<(Ask, Option<Answer>)>) -> bool {
        let mut operations = Vec::new();
        for (at, (ask, answer)) in (0..).step_by(2).zip(history) {
            let returned = answer.map(|answer| (at + 1, answer));
            operations.push(Operation { client: 0, ask, called: at, returned });
        }
        matches!(judge(&Cell, &operations), Verdict::Linearizable(_))
    }

    #[test]
    fn histories_of_a_key_are_judged() {
        let done = || Some(Answer::Done);
        let exchange = |old: Option<&str>, new| Ask::Exchange { old: old.map(text), new: text(new) };
        let push = |value| Ask::Push(text(value));
        #[rustfmt::skip] // columns
        let table = [
            ("numbers", true, vec![(Ask::Increment, Some(Answer::Number(1))), (Ask::Get, Some(got(Some("1"))))]),
            ("a lost increment", false,
                vec![(Ask::Increment, Some(Answer::Number(1))), (Ask::Increment, Some(Answer::Number(1)))]),
            ("an append done twice", false,
                vec![(Ask::Append(text("a")), Some(Answer::Number(1))), (Ask::Get, Some(got(Some("aa"))))]),
            ("an exchange", true,
                vec![(set("a", false), done()), (exchange(Some("a"), "b"), Some(Answer::Exchanged)),
                     (Ask::Get, Some(got(Some("b"))))]),
            ("an exchange of what was not there", false,
                vec![(set("a", false), done()), (exchange(None, "b"), Some(Answer::Exchanged))]),
            ("an unknown exchange took place", true,
                vec![(exchange(None, "b"), None), (Ask::Get, Some(got(Some("b"))))]),
            ("what may expire does", true, vec![(set("a", true), done()), (Ask::Get, Some(got(None)))]),
            ("and does not come back", false,
                vec![(set("a", true), done()), (Ask::Get, Some(got(None))), (Ask::Get, Some(got(Some("a"))))]),
            ("what may not expire does not", false, vec![(set("a", false), done()), (Ask::Get, Some(got(None)))]),
            ("a list is a queue", true,
                vec![(push("a"), Some(Answer::Number(1))), (push("b"), Some(Answer::Number(2))),
                     (Ask::Pop, Some(got(Some("a")))), (Ask::Items, Some(Answer::Items(vec![text("b")]))),
                     (Ask::Delete, Some(Answer::Number(1))), (Ask::Length, Some(Answer::Number(0)))]),
            ("an element given twice", false,
                vec![(push("a"), Some(Answer::Number(1))), (Ask::Pop, Some(got(Some("a")))),
                     (Ask::Pop, Some(got(Some("a"))))]),
            ("a transaction is one step", true,
                vec![(Ask::All(vec![Ask::Increment, Ask::Get]),
                     Some(Answer::All(vec![Answer::Number(1), got(Some("1"))])))]),
            ("half a transaction", false,
                vec![(Ask::All(vec![Ask::Increment, Ask::Append(text("5"))]), None),
                     (Ask::Get, Some(got(Some("1"))))]),
        ];
        for (name, expected, history) in table {
            assert_eq!(holds(history), expected, "{name}");
        }
    }
}
