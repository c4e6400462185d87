//! What the answers of a command's parts make together.

use kernel::GroupId;

use crate::reply::first;

/// A part of a command on several partitions.
#[derive(Clone, Debug)]
pub struct Part {
    /// The group.
    pub group: GroupId,
    /// Its encoding.
    pub encoded: Vec<u8>,
    /// No other command has the same encoding.
    pub unique: bool,
}

/// How they are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Join {
    /// Numbers add up.
    Sum,
    /// All are the same.
    Same,
    /// Each key of the command has an element: the next of the array of this part.
    Keys(Vec<usize>),
}

impl Join {
    /// For each part one of its `possible` answers, so that together they make `reply`; if there are such.
    #[must_use]
    pub fn choose(&self, possible: &[Vec<Vec<u8>>], reply: &[u8]) -> Option<Vec<Vec<u8>>> {
        match self {
            Join::Same => possible
                .iter()
                .all(|part| part.iter().any(|answer| answer == reply))
                .then(|| possible.iter().map(|_| reply.to_vec()).collect()),
            Join::Sum => sum(possible, number(reply)?),
            Join::Keys(order) => {
                let parts = divide(order, possible.len(), reply)?;
                parts.iter().zip(possible).all(|(part, possible)| possible.contains(part)).then_some(parts)
            }
        }
    }
}

fn number(reply: &[u8]) -> Option<i64> {
    let digits = reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn sum(possible: &[Vec<Vec<u8>>], total: i64) -> Option<Vec<Vec<u8>>> {
    let Some((first, rest)) = possible.split_first() else { return (total == 0).then(Vec::new) };
    let mut tried = Vec::new();
    for answer in first {
        let Some(value) = number(answer).filter(|value| !tried.contains(value)) else { continue };
        tried.push(value);
        if let Some(mut chosen) = sum(rest, total - value) {
            chosen.insert(0, answer.clone());
            return Some(chosen);
        }
    }
    None
}

/// The arrays of the parts that were put together in `order`.
fn divide(order: &[usize], parts: usize, reply: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = reply.strip_prefix(format!("*{}\r\n", order.len()).as_bytes())?;
    let mut arrays = vec![(0, Vec::new()); parts];
    for &part in order {
        let length = first(rest).ok()??;
        let (count, elements) = &mut arrays[part];
        *count += 1;
        elements.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
    }
    let array =
        |(count, elements): (usize, Vec<u8>)| [format!("*{count}\r\n").into_bytes(), elements].concat();
    rest.is_empty().then(|| arrays.into_iter().map(array).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_possible_if_some_answers_of_the_parts_make_it() {
        let keys = || Join::Keys(vec![1, 0, 1]);
        #[rustfmt::skip] // columns
        let table: [(Join, &[&[&str]], &str, bool); 9] = [
            (Join::Sum,  &[&[":0\r\n", ":1\r\n"], &[":2\r\n"]], ":3\r\n",  true),
            (Join::Sum,  &[&[":0\r\n", ":1\r\n"], &[":2\r\n"]], ":4\r\n",  false),
            (Join::Sum,  &[&[":0\r\n"], &[]],                     ":0\r\n",  false), // a part has none
            (Join::Same, &[&["+OK\r\n"], &["+OK\r\n"]],           "+OK\r\n", true),
            (Join::Same, &[&["+OK\r\n"], &[]],                    "+OK\r\n", false), // too early
            (keys(), &[&["*1\r\n:5\r\n"], &["*2\r\n$1\r\na\r\n$-1\r\n"]], "*3\r\n$1\r\na\r\n:5\r\n$-1\r\n", true),
            (keys(), &[&["*1\r\n:5\r\n"], &["*2\r\n$1\r\na\r\n$-1\r\n"]], "*3\r\n$-1\r\n:5\r\n$1\r\na\r\n", false),
            (keys(), &[&["*1\r\n:6\r\n"], &["*2\r\n$1\r\na\r\n$-1\r\n"]], "*3\r\n$1\r\na\r\n:5\r\n$-1\r\n", false),
            (keys(), &[&["*1\r\n:5\r\n"], &["*2\r\n:1\r\n:2\r\n"]], "*2\r\n:1\r\n:5\r\n", false),
        ];
        for (at, (join, possible, reply, expected)) in table.into_iter().enumerate() {
            let possible: Vec<Vec<Vec<u8>>> = possible
                .iter()
                .map(|part| part.iter().map(|answer| answer.as_bytes().to_vec()).collect())
                .collect();
            assert_eq!(join.choose(&possible, reply.as_bytes()).is_some(), expected, "row {at}");
        }
    }
}
