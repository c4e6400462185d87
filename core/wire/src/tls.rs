//! The first message of a TLS connection, as far as one must read it to pass the connection on unopened: the name that the
//! client asks for (RFC 8446, 4.1.2; RFC 6066, 3).
//!
//! Nothing is negotiated here and nothing is kept: whoever terminates TLS reads the same bytes again.

use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

/// A first message, records' heads included, in bytes. Those of browsers with post-quantum keys have about 2 KiB.
pub const HELLO_BYTES_MAX: usize = 32 * 1024;
/// Longest name that can be asked for, in bytes (RFC 1035, 2.3.4).
pub const NAME_BYTES_MAX: usize = 255;

/// Most bytes of one record's content (RFC 8446, 5.1).
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// Bytes before a record's content.
const RECORD_HEAD_BYTES: usize = 5;
/// Bytes before a handshake message's content.
const MESSAGE_HEAD_BYTES: usize = 4;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// Why bytes are no first message of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HelloError {
    /// Something else than TLS.
    #[error("no TLS handshake")]
    NotTls,
    /// It contradicts itself.
    #[error("the client's hello is malformed")]
    Malformed,
    /// It is longer than anybody's.
    #[error("a client's hello of more than {HELLO_BYTES_MAX} bytes")]
    TooLarge,
    /// The name is none, or there are several.
    #[error("the server name is none")]
    Name,
}

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The name that it asks for, in lower case; `None`: it names nobody.
    pub name: Option<String>,
}

impl Hello {
    /// The hello at the start of `bytes`; `None` if it is not whole yet. Ask again with all bytes that there are.
    ///
    /// # Errors
    /// [`HelloError`]. What comes behind the first message is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Option<Hello>, HelloError> {
        match message(bytes)? {
            Some(message) => read(&message).map(Some),
            None if bytes.len() > HELLO_BYTES_MAX => Err(HelloError::TooLarge),
            None => Ok(None),
        }
    }
}

/// The content of the first handshake message, from as many records as it was cut into.
fn message(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, HelloError> {
    let mut all = Vec::new();
    loop {
        // The first bytes tell whether it is TLS at all, before there is a whole head.
        if bytes.first().is_some_and(|&kind| kind != HANDSHAKE)
            || bytes.get(1).is_some_and(|&major| major != 3)
        {
            return Err(HelloError::NotTls);
        }
        let Some((head, rest)) = bytes.split_at_checked(RECORD_HEAD_BYTES) else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if length == 0 || length > RECORD_BYTES_MAX {
            return Err(HelloError::Malformed);
        }
        let here = &rest[..length.min(rest.len())];
        all.extend_from_slice(here);
        if all.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
            return Err(HelloError::NotTls);
        }
        if let [_, a, b, c, ..] = all[..] {
            let wanted = MESSAGE_HEAD_BYTES + usize::from(a) * 65_536 + usize::from(b) * 256 + usize::from(c);
            if wanted > HELLO_BYTES_MAX {
                return Err(HelloError::TooLarge);
            }
            if all.len() >= wanted {
                all.truncate(wanted);
                all.drain(..MESSAGE_HEAD_BYTES);
                return Ok(Some(all));
            }
        }
        if here.len() < length {
            return Ok(None);
        }
        bytes = &rest[length..];
    }
}

fn read(message: &[u8]) -> Result<Hello, HelloError> {
    let mut from = Reader(message);
    let _version_and_random = from.take(2 + 32)?;
    let session = from.short()?;
    let suites = from.long()?;
    let compressions = from.short()?;
    if session.len() > 32 || suites.is_empty() || suites.len() % 2 != 0 || compressions.is_empty() {
        return Err(HelloError::Malformed);
    }
    if from.0.is_empty() {
        // TLS 1.2 has hellos without extensions.
        return Ok(Hello { name: None });
    }
    let mut extensions = Reader(from.long()?);
    if !from.0.is_empty() {
        return Err(HelloError::Malformed);
    }
    let mut hello = Hello { name: None };
    let mut named = false;
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let content = extensions.long()?;
        if kind == SERVER_NAME {
            if core::mem::replace(&mut named, true) {
                return Err(HelloError::Name);
            }
            hello.name = Some(name(content)?);
        }
    }
    Ok(hello)
}

/// The one name of a list: RFC 6066 allows one of each kind, and has one kind.
fn name(content: &[u8]) -> Result<String, HelloError> {
    let mut outer = Reader(content);
    let mut list = Reader(outer.long()?);
    let kind = list.take(1)?[0];
    let name = list.long()?;
    if !outer.0.is_empty() || !list.0.is_empty() || kind != HOST_NAME {
        return Err(HelloError::Name);
    }
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.iter().all(allowed) {
        return Err(HelloError::Name);
    }
    Ok(name.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect())
}

/// Vectors behind their lengths.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], HelloError> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(HelloError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, HelloError> {
        self.take(2).map(|two| u16::from_be_bytes([two[0], two[1]]))
    }

    /// Behind a length of one byte.
    fn short(&mut self) -> Result<&'a [u8], HelloError> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }

    /// Behind a length of two bytes.
    fn long(&mut self) -> Result<&'a [u8], HelloError> {
        let length = self.number()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn long(bytes: &[u8]) -> Vec<u8> {
        let mut out = (bytes.len() as u16).to_be_bytes().to_vec();
        out.extend_from_slice(bytes);
        out
    }

    fn listed(kind: u8, name: &[u8]) -> Vec<u8> {
        let mut entry = vec![kind];
        entry.extend(long(name));
        long(&entry)
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        let mut out = kind.to_be_bytes().to_vec();
        out.extend(long(content));
        out
    }

    /// A hello with these extensions, in records of at most `piece` bytes.
    fn hello(extensions: &[Vec<u8>], piece: usize) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(long(&extensions.concat()));
        let mut message = vec![1, 0];
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(body);
        let mut out = Vec::new();
        for piece in message.chunks(piece) {
            out.extend([22, 3, 1]);
            out.extend(long(piece));
        }
        out
    }

    #[test]
    fn the_name_is_found_behind_other_extensions_in_any_records() {
        let other = extension(43, &[2, 3, 4]);
        let named = extension(0, &listed(0, b"Shop.Example"));
        for piece in [1, 5, 60, 10_000] {
            let bytes = hello(&[other.clone(), named.clone(), other.clone()], piece);
            let found = Hello::parse(&bytes).unwrap().unwrap();
            assert_eq!(found.name.as_deref(), Some("shop.example"));
            // What comes behind it is nobody's business here.
            assert_eq!(Hello::parse(&[&bytes[..], b"\x00more"].concat()), Ok(Some(found)));
            assert_eq!(
                Hello::parse(&hello(core::slice::from_ref(&other), piece)),
                Ok(Some(Hello { name: None }))
            );
        }
    }

    #[test]
    fn what_is_no_hello_is_refused_as_soon_as_that_is_known() {
        let named = |content: &[u8]| hello(&[extension(0, content)], 9_000);
        let once = extension(0, &listed(0, b"a"));
        #[rustfmt::skip] // columns
        let table: Vec<(Vec<u8>, HelloError)> = vec![
            (b"G".to_vec(),                                  HelloError::NotTls),
            (vec![22, 2],                                    HelloError::NotTls),
            (vec![22, 3, 1, 0, 0],                           HelloError::Malformed),
            (vec![22, 3, 1, 0x40, 1],                        HelloError::Malformed),
            (vec![22, 3, 1, 0, 1, 2],                        HelloError::NotTls),
            (vec![22, 3, 1, 1, 0, 1, 1, 0, 0],               HelloError::TooLarge),
            (named(&listed(0, b"")),                         HelloError::Name),
            (named(&listed(1, b"a")),                        HelloError::Name),
            (named(&listed(0, b"a b")),                      HelloError::Name),
            (named(&listed(0, b"a\0b")),                     HelloError::Name),
            (named(&listed(0, &[b'a'; 256])),                HelloError::Name),
            (named(&[0]),                                    HelloError::Malformed),
            (named(&[0, 9, 0, 0, 1, b'a']),                  HelloError::Malformed),
            (hello(&[once.clone(), once], 9_000),            HelloError::Name),
        ];
        for (bytes, expected) in table {
            assert_eq!(Hello::parse(&bytes), Err(expected), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn a_hello_is_not_whole_before_its_last_byte_and_no_bytes_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            at in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
            piece in 1usize..80,
        ) {
            let _ = Hello::parse(&bytes);
            let mut whole = hello(&[extension(0, &listed(0, b"shop.example"))], piece);
            for cut in 0..whole.len() {
                prop_assert_eq!(Hello::parse(&whole[..cut]), Ok(None), "cut at {}", cut);
            }
            let at = at.index(whole.len());
            whole[at] = byte;
            let _ = Hello::parse(&whole);
        }
    }
}
