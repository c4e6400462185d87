//! What a reply says to the client that asked.

use super::Told;
use crate::cell::{Answer, Ask};
use crate::reply;

/// What an error says of its command.
pub(super) fn fault(whole: &[u8]) -> Result<Told, String> {
    /// These say that the command surely did not run.
    const NOT_RUN: [&str; 8] = [
        "-CLUSTERDOWN ",
        "-UNBLOCKED ",
        "-MOVED ",
        "-ASK ",
        "-TRYAGAIN ",
        "-EXECABORT ",
        "-MISCONF ",
        "-LOADING ",
    ];
    let text = String::from_utf8_lossy(whole);
    if text.starts_with("-UNKNOWN ") {
        return Ok(Told::Unknown);
    }
    if NOT_RUN.iter().any(|begin| text.starts_with(begin)) || text.contains("disk is full") {
        return Ok(Told::NotRun);
    }
    Err(format!("nobody is told {:?}", text.trim_end()))
}

/// Reads a reply as an answer to `ask`; `None` if it says nothing (nobody served a blocking command).
pub(super) fn answer(ask: &Ask, whole: &[u8]) -> Result<Option<Answer>, String> {
    let (answer, rest) = value(whole)?;
    if !rest.is_empty() {
        return Err(format!("{} is more than a reply", reply::shown(whole)));
    }
    Ok(Some(match (ask, answer) {
        (Ask::Set { .. }, Raw::Word(word)) if word == b"OK" => Answer::Done,
        (Ask::Get | Ask::Pop, Raw::Text(text)) => Answer::Text(text),
        (Ask::Pop, Raw::Items(None)) => return Ok(None),
        // Key and element.
        (Ask::Pop, Raw::Items(Some(mut items))) if items.len() == 2 => match items.pop() {
            Some(Raw::Text(text)) => Answer::Text(text),
            _ => return Err(format!("BLPOP is answered {}", reply::shown(whole))),
        },
        (Ask::Items, Raw::Items(Some(items))) => {
            let text = |item| if let Raw::Text(Some(text)) = item { Ok(text) } else { Err("an element") };
            Answer::Items(items.into_iter().map(text).collect::<Result<_, _>>()?)
        }
        (Ask::All(asks), Raw::Items(Some(items))) if asks.len() == items.len() => {
            let each = asks.iter().zip(items).map(|(ask, item)| match (ask, item) {
                (Ask::Get, Raw::Text(text)) => Ok(Answer::Text(text)),
                (Ask::Increment, Raw::Number(number)) => Ok(Answer::Number(number)),
                _ => Err("a transaction is answered otherwise"),
            });
            Answer::All(each.collect::<Result<_, _>>()?)
        }
        (_, Raw::Number(number)) => Answer::Number(number),
        _ => return Err(format!("{ask:?} is answered {}", reply::shown(whole))),
    }))
}

/// A reply, parsed.
enum Raw<'a> {
    Word(&'a [u8]),
    Number(i64),
    Text(Option<Vec<u8>>),
    Items(Option<Vec<Raw<'a>>>),
}

fn value(bytes: &[u8]) -> Result<(Raw<'_>, &[u8]), String> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n").ok_or("a line without an end")?;
    let (line, mut rest) = (&bytes[1..end], &bytes[end + 2..]);
    let number = || std::str::from_utf8(line).ok().and_then(|text| text.parse::<i64>().ok());
    let raw = match (bytes[0], number()) {
        (b'+', _) => Raw::Word(line),
        (b':', Some(number)) => Raw::Number(number),
        (b'$', Some(-1)) => Raw::Text(None),
        (b'$', Some(length)) => {
            let text = rest.get(..length as usize).ok_or("a string without an end")?;
            rest = &rest[length as usize + 2..];
            Raw::Text(Some(text.to_vec()))
        }
        (b'*', Some(-1)) => Raw::Items(None),
        (b'*', Some(count)) => {
            let mut items = Vec::new();
            for _ in 0..count {
                let (item, after) = value(rest)?;
                items.push(item);
                rest = after;
            }
            Raw::Items(Some(items))
        }
        _ => return Err(format!("{} is told to a client", reply::shown(bytes))),
    };
    Ok((raw, rest))
}
