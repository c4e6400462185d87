//! The request parser: resumable, so that a command arriving byte by byte costs no more than at once.

use alloc::string::String;
use alloc::vec::Vec;

use kernel::limit::{ARGUMENTS_MAX, BULK_BYTES_MAX, INLINE_BYTES_MAX};
use memchr::memchr;
use smallvec::SmallVec;
use thiserror::Error;

/// What a client sent that is not RESP. The texts are those of Redis; the connection is closed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProtocolError {
    /// `*` was not followed by a count in range.
    #[error("ERR Protocol error: invalid multibulk length")]
    MultibulkLength,
    /// `$` was not followed by a length in range.
    #[error("ERR Protocol error: invalid bulk length")]
    BulkLength,
    /// Something else stood where an argument begins.
    #[error("ERR Protocol error: expected '$', got '{0}'")]
    ExpectedBulk(char),
    /// No line end within `INLINE_BYTES_MAX` after `*`.
    #[error("ERR Protocol error: too big mbulk count string")]
    BigCount,
    /// No line end within `INLINE_BYTES_MAX` after `$`.
    #[error("ERR Protocol error: too big bulk count string")]
    BigLength,
    /// An inline command without line end within `INLINE_BYTES_MAX`.
    #[error("ERR Protocol error: too big inline request")]
    BigInline,
    /// Quotes that are not closed in an inline command.
    #[error("ERR Protocol error: unbalanced quotes in request")]
    Quotes,
    /// Before authentication only small commands are read.
    #[error("ERR Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulk,
    /// Before authentication only small arguments are read.
    #[error("ERR Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulk,
}

/// Arguments while nothing is known of the client (Redis's limits before authentication).
const UNAUTHENTICATED_ARGUMENTS_MAX: i64 = 10;
const UNAUTHENTICATED_BULK_MAX: i64 = 16 * 1024;

/// Reads one command after another from a connection's bytes.
///
/// It remembers how far it got with an incomplete command, in offsets from that command's first byte;
/// the caller keeps those bytes and hands them in again, longer.
#[derive(Debug, Default)]
pub struct Parser {
    args: SmallVec<[(u32, u32); 8]>,
    inline: Vec<Vec<u8>>,
    position: usize,
    expected: usize,
    started: bool,
}

impl Parser {
    /// Reads the command that begins at `bytes[0]`. `Ok(Some(n))`: it is complete and took `n` bytes, see
    /// [`Parser::args`] (none: an empty line, to be ignored). `Ok(None)`: call again with more bytes.
    ///
    /// # Errors
    /// The bytes are not RESP; the connection cannot go on.
    #[inline]
    pub fn parse(&mut self, bytes: &[u8], trusted: bool) -> Result<Option<usize>, ProtocolError> {
        if !self.started {
            match bytes.first() {
                None => return Ok(None),
                Some(b'*') => {}
                Some(_) => return self.parse_inline(bytes),
            }
            self.args.clear();
            self.inline.clear();
            let Some((count, next)) =
                line_number(bytes, 1, ProtocolError::BigCount, ProtocolError::MultibulkLength)?
            else {
                return Ok(None);
            };
            if count > ARGUMENTS_MAX as i64 {
                return Err(ProtocolError::MultibulkLength);
            }
            if !trusted && count > UNAUTHENTICATED_ARGUMENTS_MAX {
                return Err(ProtocolError::UnauthenticatedMultibulk);
            }
            if count <= 0 {
                return Ok(Some(next));
            }
            self.started = true;
            self.expected = count as usize;
            self.position = next;
        }
        while self.args.len() < self.expected {
            let Some((start, length)) = next_bulk(bytes, self.position, trusted)? else { return Ok(None) };
            if bytes.len() < start + length + 2 {
                return Ok(None);
            }
            self.args.push((start as u32, length as u32));
            self.position = start + length + 2;
        }
        self.started = false;
        Ok(Some(self.position))
    }

    /// The arguments of the command just completed, of which `bytes` are the bytes.
    #[inline]
    #[must_use]
    pub fn args<'a>(&'a self, bytes: &'a [u8]) -> SmallVec<[&'a [u8]; 8]> {
        if self.inline.is_empty() {
            self.args.iter().map(|&(start, len)| &bytes[start as usize..(start + len) as usize]).collect()
        } else {
            self.inline.iter().map(Vec::as_slice).collect()
        }
    }

    /// Bytes that the incomplete command surely still needs beyond `have`, for the caller's buffer.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.started
    }

    #[cold]
    fn parse_inline(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        self.args.clear();
        self.inline.clear();
        let Some(end) = memchr(b'\n', bytes) else {
            return if bytes.len() > INLINE_BYTES_MAX { Err(ProtocolError::BigInline) } else { Ok(None) };
        };
        if end > INLINE_BYTES_MAX {
            return Err(ProtocolError::BigInline);
        }
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        self.inline = split_line(line).ok_or(ProtocolError::Quotes)?;
        Ok(Some(end + 1))
    }
}

/// The header of the bulk string at `from`: where its bytes start and how many they are.
#[inline]
pub(super) fn next_bulk(
    bytes: &[u8],
    from: usize,
    trusted: bool,
) -> Result<Option<(usize, usize)>, ProtocolError> {
    match bytes.get(from) {
        None => return Ok(None),
        Some(b'$') => {}
        Some(&other) => return Err(ProtocolError::ExpectedBulk(other as char)),
    }
    let line = line_number(bytes, from + 1, ProtocolError::BigLength, ProtocolError::BulkLength)?;
    let Some((length, start)) = line else { return Ok(None) };
    if length < 0 || length > BULK_BYTES_MAX as i64 {
        return Err(ProtocolError::BulkLength);
    }
    if !trusted && length > UNAUTHENTICATED_BULK_MAX {
        return Err(ProtocolError::UnauthenticatedBulk);
    }
    Ok(Some((start, length as usize)))
}

/// The number on the line that starts at `from`, and where the next line starts.
#[inline]
fn line_number(
    bytes: &[u8],
    from: usize,
    too_big: ProtocolError,
    wrong: ProtocolError,
) -> Result<Option<(i64, usize)>, ProtocolError> {
    // Almost all lengths have one or two digits.
    let rest = &bytes[from.min(bytes.len())..];
    match rest {
        [a @ b'0'..=b'9', b'\r', b'\n', ..] => return Ok(Some((i64::from(a - b'0'), from + 3))),
        [a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => {
            return Ok(Some((i64::from(a - b'0') * 10 + i64::from(b - b'0'), from + 4)));
        }
        _ => {}
    }
    let Some(end) = memchr(b'\r', rest) else {
        return if rest.len() > INLINE_BYTES_MAX { Err(too_big) } else { Ok(None) };
    };
    if rest.len() < end + 2 {
        return Ok(None);
    }
    let text = core::str::from_utf8(&rest[..end]).map_err(|_| wrong.clone())?;
    // `parse` would take a plus sign and leading zeros, which Redis does not.
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_canonical = text == "0" || matches!(digits.as_bytes(), [b'1'..=b'9', ..]);
    let number = if is_canonical { text.parse::<i64>().ok() } else { None };
    Ok(Some((number.ok_or(wrong)?, from + end + 2)))
}

/// Splits an inline command as `sdssplitargs` does: quotes, `\xHH` and C escapes in double quotes.
fn split_line(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut args = Vec::new();
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        if at >= line.len() {
            return Some(args);
        }
        let mut arg = Vec::new();
        while let Some(&byte) = line.get(at) {
            match byte {
                b'"' => at = quoted(line, at + 1, &mut arg)?,
                b'\'' => at = single_quoted(line, at + 1, &mut arg)?,
                byte if byte.is_ascii_whitespace() => break,
                byte => {
                    arg.push(byte);
                    at += 1;
                    continue;
                }
            }
            // A closing quote must end the argument.
            if line.get(at).is_some_and(|byte| !byte.is_ascii_whitespace()) {
                return None;
            }
        }
        args.push(arg);
    }
}

fn quoted(line: &[u8], mut at: usize, arg: &mut Vec<u8>) -> Option<usize> {
    loop {
        match (line.get(at)?, line.get(at + 1)) {
            (b'"', _) => return Some(at + 1),
            (b'\\', Some(b'x')) if hex(line, at + 2).is_some() => {
                arg.push(hex(line, at + 2)?);
                at += 4;
            }
            (b'\\', Some(&escaped)) => {
                arg.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                });
                at += 2;
            }
            (&byte, _) => {
                arg.push(byte);
                at += 1;
            }
        }
    }
}

fn single_quoted(line: &[u8], mut at: usize, arg: &mut Vec<u8>) -> Option<usize> {
    loop {
        match (line.get(at)?, line.get(at + 1)) {
            (b'\'', _) => return Some(at + 1),
            (b'\\', Some(b'\'')) => {
                arg.push(b'\'');
                at += 2;
            }
            (&byte, _) => {
                arg.push(byte);
                at += 1;
            }
        }
    }
}

fn hex(line: &[u8], at: usize) -> Option<u8> {
    let digits = String::from_utf8(line.get(at..at + 2)?.into()).ok()?;
    u8::from_str_radix(&digits, 16).ok().filter(|_| !digits.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8], chunk: usize) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let (mut parser, mut buffer, mut commands) = (Parser::default(), Vec::new(), Vec::new());
        for piece in bytes.chunks(chunk.max(1)) {
            buffer.extend_from_slice(piece);
            while let Some(taken) = parser.parse(&buffer, true)? {
                commands.push(parser.args(&buffer).iter().map(|arg| arg.to_vec()).collect());
                buffer.drain(..taken);
            }
        }
        Ok(commands)
    }

    fn encode(commands: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for command in commands {
            bytes.extend(alloc::format!("*{}\r\n", command.len()).bytes());
            for arg in command {
                bytes.extend(alloc::format!("${}\r\n", arg.len()).bytes());
                bytes.extend(arg);
                bytes.extend(b"\r\n");
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn split_anywhere_equals_whole(
            commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..12), 0..8),
            chunk in 1usize..50,
        ) {
            let bytes = encode(&commands);
            prop_assert_eq!(&all(&bytes, bytes.len()).expect("it is valid"), &commands);
            prop_assert_eq!(&all(&bytes, chunk).expect("it is valid"), &commands);
        }

        #[test]
        fn garbage_is_refused_or_read(bytes: Vec<u8>, chunk in 1usize..9) {
            let _ = all(&bytes, chunk);
        }
    }

    #[test]
    fn inline_commands_split_as_in_redis() {
        type Words<'a> = Option<Vec<&'a [u8]>>;
        #[rustfmt::skip]
        let table: [(&[u8], Words<'_>); 8] = [
            (b"PING\r\n", Some(vec![b"PING"])),
            (b"SET  a 'b c'\n", Some(vec![b"SET", b"a", b"b c"])),
            (b"SET a \"x\\x41\\n\"\r\n", Some(vec![b"SET", b"a", b"xA\n"])),
            (b"SET a \"\"\r\n", Some(vec![b"SET", b"a", b""])),
            (b"SET a 'it\\'s'\r\n", Some(vec![b"SET", b"a", b"it's"])),
            (b"SET a \"b\r\n", None),
            (b"SET a \"b\"c\r\n", None),
            (b"SET a 'b\r\n", None),
        ];
        for (line, expected) in table {
            let got = all(line, 1000);
            match expected {
                Some(args) => assert_eq!(got.expect("it is balanced")[0], args, "{line:?}"),
                None => assert_eq!(got, Err(ProtocolError::Quotes), "{line:?}"),
            }
        }
    }

    #[test]
    fn wrong_lengths_get_the_error_redis_gives() {
        let table: [(&[u8], ProtocolError); 13] = [
            (b"*x\r\n", ProtocolError::MultibulkLength),
            (b"*1048577\r\n", ProtocolError::MultibulkLength),
            (b"*99999999999999999999\r\n", ProtocolError::MultibulkLength),
            (b"*1\r\nfoo\r\n", ProtocolError::ExpectedBulk('f')),
            (b"*1\r\n$-1\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$+1\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$536870913\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$9223372036854775807\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$\r\n", ProtocolError::BulkLength),
            (b"*01\r\n", ProtocolError::MultibulkLength),
            (b"*-0\r\n", ProtocolError::MultibulkLength),
            (b"*1\r\n$04\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$-\r\n", ProtocolError::BulkLength),
        ];
        for (bytes, expected) in table {
            assert_eq!(all(bytes, 1000), Err(expected.clone()), "{bytes:?}");
            assert_eq!(all(bytes, 1), Err(expected), "{bytes:?}");
        }
        assert_eq!(all(b"*-1\r\n*0\r\n", 1000).expect("null commands are ignored").concat().len(), 0);
        let long = [b"*".as_slice(), &[b'1'; INLINE_BYTES_MAX + 10]].concat();
        assert_eq!(all(&long, 4096), Err(ProtocolError::BigCount));
    }
}
