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
    /// Arrays follow each other, in the order of the parts.
    Follow,
    /// A step of SCAN in one partition: at its end the cursor is the beginning of the next one.
    Scan {
        /// What its cursors have above their own bits.
        base: u64,
        /// Where the next one begins, 0 if there is none.
        next: u64,
    },
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
            &Join::Scan { base, next } => {
                let [steps] = possible else { return None };
                let step = steps.iter().find(|step| scanned(step, base, next).as_deref() == Some(reply))?;
                Some(vec![step.clone()])
            }
            Join::Follow => {
                let line = reply.windows(2).position(|pair| pair == b"\r\n")? + 2;
                let (count, elements) = reply.split_at(line);
                let chosen = follow(possible, elements)?;
                let total: i64 = chosen.iter().map(|part| array(part).map_or(0, |(count, _)| count)).sum();
                (count == format!("*{total}\r\n").as_bytes()).then_some(chosen)
            }
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

/// What the host makes of a partition's step of SCAN.
fn scanned(step: &[u8], base: u64, next: u64) -> Option<Vec<u8>> {
    let mut lines = step.splitn(4, |&byte| byte == b'\n');
    let (_, _, cursor, rest) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
    let cursor: u64 = std::str::from_utf8(cursor.strip_suffix(b"\r")?).ok()?.parse().ok()?;
    let whole = if cursor == 0 { next } else { base | cursor }.to_string();
    Some([format!("*2\r\n${}\r\n{whole}\r\n", whole.len()).as_bytes(), rest].concat())
}

/// How many elements an array has, and their bytes.
fn array(answer: &[u8]) -> Option<(i64, &[u8])> {
    let line = answer.windows(2).position(|pair| pair == b"\r\n")?;
    let count = std::str::from_utf8(answer[..line].strip_prefix(b"*")?).ok()?.parse().ok()?;
    Some((count, &answer[line + 2..]))
}

/// Arrays, one of each part, whose elements are `elements` one behind the other.
fn follow(possible: &[Vec<Vec<u8>>], elements: &[u8]) -> Option<Vec<Vec<u8>>> {
    let Some((first, rest)) = possible.split_first() else { return elements.is_empty().then(Vec::new) };
    first.iter().find_map(|answer| {
        let (_, own) = array(answer)?;
        let mut chosen = follow(rest, elements.strip_prefix(own)?)?;
        chosen.insert(0, answer.clone());
        Some(chosen)
    })
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
        let table: [(Join, &[&[&str]], &str, bool); 18] = [
            (Join::Sum,  &[&[":0\r\n", ":1\r\n"], &[":2\r\n"]], ":3\r\n",  true),
            (Join::Sum,  &[&[":0\r\n", ":1\r\n"], &[":2\r\n"]], ":4\r\n",  false),
            (Join::Sum,  &[&[":0\r\n"], &[]],                     ":0\r\n",  false), // a part has none
            (Join::Same, &[&["+OK\r\n"], &["+OK\r\n"]],           "+OK\r\n", true),
            (Join::Same, &[&["+OK\r\n"], &[]],                    "+OK\r\n", false), // too early
            (keys(), &[&["*1\r\n:5\r\n"], &["*2\r\n$1\r\na\r\n$-1\r\n"]], "*3\r\n$1\r\na\r\n:5\r\n$-1\r\n", true),
            (keys(), &[&["*1\r\n:5\r\n"], &["*2\r\n$1\r\na\r\n$-1\r\n"]], "*3\r\n$-1\r\n:5\r\n$1\r\na\r\n", false),
            (keys(), &[&["*1\r\n:6\r\n"], &["*2\r\n$1\r\na\r\n$-1\r\n"]], "*3\r\n$1\r\na\r\n:5\r\n$-1\r\n", false),
            (keys(), &[&["*1\r\n:5\r\n"], &["*2\r\n:1\r\n:2\r\n"]], "*2\r\n:1\r\n:5\r\n", false),
            (Join::Follow, &[&["*0\r\n", "*1\r\n:5\r\n"], &["*1\r\n:1\r\n"]], "*2\r\n:5\r\n:1\r\n", true),
            (Join::Follow, &[&["*0\r\n", "*1\r\n:5\r\n"], &["*1\r\n:1\r\n"]], "*1\r\n:1\r\n", true),
            (Join::Follow, &[&["*0\r\n", "*1\r\n:5\r\n"], &["*1\r\n:1\r\n"]], "*2\r\n:1\r\n:5\r\n", false), // not in order
            (Join::Follow, &[&["*0\r\n", "*1\r\n:5\r\n"], &["*1\r\n:1\r\n"]], "*1\r\n:5\r\n:1\r\n", false), // counts wrongly
            (Join::Scan { base: 8, next: 16 }, &[&["*2\r\n$1\r\n3\r\n*0\r\n"]], "*2\r\n$2\r\n11\r\n*0\r\n", true),
            (Join::Scan { base: 8, next: 16 }, &[&["*2\r\n$1\r\n0\r\n*0\r\n"]], "*2\r\n$2\r\n16\r\n*0\r\n", true),
            (Join::Scan { base: 8, next: 16 }, &[&["*2\r\n$1\r\n0\r\n*0\r\n"]], "*2\r\n$1\r\n0\r\n*0\r\n", false),
            (Join::Scan { base: 8, next: 0 }, &[&["*2\r\n$1\r\n0\r\n*0\r\n"]], "*2\r\n$1\r\n0\r\n*0\r\n", true),
            (Join::Follow, &[&["*1\r\n:5\r\n"], &[]],           "*1\r\n:5\r\n", false),
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
