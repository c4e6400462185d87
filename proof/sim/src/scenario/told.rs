//! What machines write, as people read it: entries as commands, replies as values.

use kernel::codec::Reader;
use storage::Registry;
use storage::command::generic::{EXEC, EXEC_READ};
use storage::command::list_blocking::RETRY;
use storage::entry::{Args, next_command};

/// A run of one letter from this length on is told as `x*40`.
const RUN_BYTES_MIN: usize = 32;

/// The commands of an entry's body.
pub fn commands(registry: &Registry, body: &[u8]) -> String {
    let (mut reader, mut args, mut all) = (Reader::new(body), Args::new(), Vec::new());
    while !reader.is_empty() {
        match next_command(&mut reader, &mut args) {
            Ok(id) => all.push(command(registry, id, &args)),
            Err(what) => {
                all.push(format!("unreadable: {what}"));
                break;
            }
        }
    }
    all.join(" | ")
}

fn command(registry: &Registry, id: u16, args: &[&[u8]]) -> String {
    let inner = || {
        let all: Vec<String> = args.iter().map(|body| commands(registry, body)).collect();
        all.join(" | ")
    };
    match id {
        EXEC | EXEC_READ => return format!("transaction [{}]", inner()),
        RETRY => return format!("retry of a waiting client's {}", inner()),
        _ => {}
    }
    let Some(command) = registry.by_id(id) else { return format!("unknown command {id}") };
    let own = command.name.strip_prefix("archipel.");
    let name = own.map_or_else(|| command.name.to_ascii_uppercase(), str::to_owned);
    let words = args.iter().map(|arg| word(arg));
    core::iter::once(name).chain(words).collect::<Vec<String>>().join(" ")
}

/// Bytes as one word.
pub fn word(bytes: &[u8]) -> String {
    match bytes {
        [] => "\"\"".into(),
        [first, rest @ ..] if bytes.len() >= RUN_BYTES_MIN && rest.iter().all(|byte| byte == first) => {
            format!("{}*{}", first.escape_ascii(), bytes.len())
        }
        _ => check::reply::shown(bytes),
    }
}

/// Whole replies in `bytes`, which may follow each other.
pub fn replies(mut bytes: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    while let Ok(Some(end)) = check::reply::first(bytes) {
        let mut rest = &bytes[..end];
        all.push(reply(&mut rest));
        bytes = &bytes[end..];
    }
    if !bytes.is_empty() {
        all.push(format!("and a part of a reply: {}", check::reply::shown(bytes)));
    }
    all
}

/// The reply that `rest` begins with, taken off it. It is known to be whole.
fn reply(rest: &mut &[u8]) -> String {
    let line = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| at + 1);
    let (head, behind) = rest.split_at(line);
    *rest = behind;
    let text = String::from_utf8_lossy(head.trim_ascii_end()).into_owned();
    let (kind, text) = text.split_at_checked(1).unwrap_or_default();
    let length: Option<usize> = text.parse().ok();
    match (kind, length) {
        ("+", _) => text.to_owned(),
        ("-", _) => format!("(error) {text}"),
        (":", _) => format!("(integer) {text}"),
        ("$", Some(length)) => {
            let (body, behind) = rest.split_at(length.min(rest.len()));
            *rest = behind.strip_prefix(b"\r\n").unwrap_or(behind);
            format!("\"{}\"", word(body))
        }
        ("*", Some(count)) => {
            let items: Vec<String> = (0..count).map(|_| reply(rest)).collect();
            format!("[{}]", items.join(", "))
        }
        ("$" | "*", None) => "(nil)".into(),
        _ => format!("{kind}{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::entry::put_command;

    #[test]
    fn replies_are_told_as_values() {
        #[rustfmt::skip] // columns
        let table: [(&[u8], &[&str]); 7] = [
            (b"+OK\r\n:1\r\n",                            &["OK", "(integer) 1"]),
            (b"-ERR no\r\n",                              &["(error) ERR no"]),
            (b"$2\r\nab\r\n$-1\r\n",                      &["\"ab\"", "(nil)"]),
            (b"$32\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", &["\"x*32\""]),
            (b"*2\r\n$1\r\nl\r\n*1\r\n:2\r\n+OK\r\n",     &["[\"l\", [(integer) 2]]", "OK"]),
            (b"*-1\r\n*0\r\n",                            &["(nil)", "[]"]),
            (b"+OK\r\n$5\r\nab",                          &["OK", "and a part of a reply: $5\\r\\nab"]),
        ];
        for (bytes, expected) in table {
            assert_eq!(replies(bytes), expected);
        }
    }

    #[test]
    fn entries_are_told_as_commands() {
        let registry = Registry::new();
        let set = registry.find(b"set").expect("it exists").id;
        let (mut inner, mut body) = (Vec::new(), Vec::new());
        put_command(&mut inner, set, &[b"k", b""]);
        put_command(&mut body, set, &[b"k", b"1"]);
        put_command(&mut body, EXEC, &[&inner, &inner]);
        assert_eq!(commands(&registry, &body), "SET k 1 | transaction [SET k \"\" | SET k \"\"]");
        body.truncate(body.len() - 1);
        assert!(commands(&registry, &body).contains("unreadable"), "a cut entry is no panic");
    }
}
