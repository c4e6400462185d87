//! A look at the commands that a pipelining client has already sent, before they are run.

use smallvec::SmallVec;

use super::parse::next_bulk;

/// Commands that are looked at together.
pub const AHEAD: usize = 16;

/// A command ahead: its first word, and its second, most often a key.
pub type Ahead<'a> = (&'a [u8], &'a [u8]);

/// The first two words of up to [`AHEAD`] complete multibulk commands at the front of `bytes`, and how many
/// bytes these take. Stops at anything else: it is a hint, and the parser judges.
#[must_use]
pub fn keys_ahead(bytes: &[u8]) -> (SmallVec<[Ahead<'_>; AHEAD]>, usize) {
    let mut keys = SmallVec::new();
    let mut end = 0;
    while keys.len() < AHEAD {
        let Some((words, next)) = command(bytes, end) else { break };
        keys.push(words);
        end = next;
    }
    (keys, end)
}

/// The first words of the command at `from`, and where the next command begins.
#[inline]
fn command(bytes: &[u8], from: usize) -> Option<(Ahead<'_>, usize)> {
    let (words, mut at) = match bytes.get(from..)? {
        [b'*', words @ b'2'..=b'9', b'\r', b'\n', ..] => (words - b'0', from + 4),
        _ => return None,
    };
    let (mut name, mut key): Ahead<'_> = (&[], &[]);
    for word in 0..words {
        let (start, length) = next_bulk(bytes, at, true).ok()??;
        match word {
            0 => name = bytes.get(start..start + length)?,
            1 => key = bytes.get(start..start + length)?,
            _ => {}
        }
        at = start + length + 2;
    }
    (at <= bytes.len()).then_some(((name, key), at))
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn complete_commands_are_seen_until_something_else_comes() {
        let get = b"*2\r\n$3\r\nGET\r\n$2\r\nk1\r\n".as_slice();
        let set = b"*3\r\n$3\r\nSET\r\n$2\r\nk2\r\n$12\r\nhello\r\nworld\r\n".as_slice();
        let both = [get, set].concat();
        let cut = &both[..both.len() - 1];
        let inline = [get, b"PING\r\n", set].concat();
        let short = [get, b"*1\r\n$4\r\nPING\r\n"].concat();
        let (negative, huge) = ([get, b"*2\r\n$-1\r\n"].concat(), [get, b"*2\r\n$999999999999\r\n"].concat());
        for (bytes, keys) in [
            (b"".as_slice(), vec![]),
            (get, vec!["k1"]),
            (&both, vec!["k1", "k2"]),
            (cut, vec!["k1"]),
            (&inline, vec!["k1"]),
            (&short, vec!["k1"]),
            (&negative, vec!["k1"]),
            (&huge, vec!["k1"]),
        ] {
            let (found, end) = keys_ahead(bytes);
            let name = |key: &str| if key == "k1" { b"GET" } else { b"SET" };
            let words: Vec<Ahead<'_>> = keys.iter().map(|key| (&name(key)[..], key.as_bytes())).collect();
            assert_eq!(found.as_slice(), words);
            let length =
                keys.iter().map(|&key| if key == "k1" { get.len() } else { set.len() }).sum::<usize>();
            assert_eq!(end, length);
        }
        let many = get.repeat(40);
        let (found, end) = keys_ahead(&many);
        assert_eq!((found.len(), end), (AHEAD, AHEAD * get.len()));
    }
}
