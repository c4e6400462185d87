//! What the two ends of a transfer say to each other, behind the frame's kind.
//!
//! ```text
//! message = what u8 | group u32 | generation u64 | run u64 | fields
//! pull  (1): cursor
//! lot   (2): number u32 | 0 or 1, then the cursor behind it | content
//! taken (3): lots u32
//! gone  (4)
//! stop  (5)
//! ```
//!
//! Numbers are little-endian; a cursor or content is its length as a varint and its bytes.

use alloc::vec::Vec;

use kernel::GroupId;
use kernel::codec::{DecodeError, Reader, put_bytes};
use kernel::limit::KEY_BYTES_MAX;

/// Longest cursor, in bytes: a key and what says where in its body.
pub const CURSOR_BYTES_MAX: usize = KEY_BYTES_MAX + 16;
/// Longest lot, in bytes.
pub const LOT_BYTES_MAX: usize = 512 * 1024;

/// Which transfer a message is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The group.
    pub group: GroupId,
    /// The snapshot, among the sender's of this group.
    pub generation: u64,
    /// Drawn by the receiver each time it begins to pull, so that an earlier pull's lots are told apart.
    pub run: u64,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Send lots from this cursor on.
    Pull(&'a [u8]),
    /// One lot.
    Lot {
        /// Counts the lots of the run, from 0.
        number: u32,
        /// Where the next begins; `None` if it is the last.
        next: Option<&'a [u8]>,
        /// Its content.
        content: &'a [u8],
    },
    /// So many lots of the run are durable here.
    Taken(u32),
    /// There is no such snapshot, or no such place in it.
    Gone,
    /// Nobody wants it any more.
    Stop,
}

/// Appends a message.
pub fn encode(run: Run, message: &Message<'_>, out: &mut Vec<u8>) {
    out.push(match message {
        Message::Pull(_) => 1,
        Message::Lot { .. } => 2,
        Message::Taken(_) => 3,
        Message::Gone => 4,
        Message::Stop => 5,
    });
    out.extend_from_slice(&run.group.0.to_le_bytes());
    out.extend_from_slice(&run.generation.to_le_bytes());
    out.extend_from_slice(&run.run.to_le_bytes());
    match *message {
        Message::Pull(cursor) => put_bytes(out, cursor),
        Message::Lot { number, next, content } => {
            out.extend_from_slice(&number.to_le_bytes());
            out.push(u8::from(next.is_some()));
            if let Some(next) = next {
                put_bytes(out, next);
            }
            put_bytes(out, content);
        }
        Message::Taken(lots) => out.extend_from_slice(&lots.to_le_bytes()),
        Message::Gone | Message::Stop => {}
    }
}

/// Reads what [`encode`] wrote, all of it. Allocates nothing.
///
/// # Errors
/// [`DecodeError`] if it is none, or above [`CURSOR_BYTES_MAX`] or [`LOT_BYTES_MAX`].
pub fn decode(bytes: &[u8]) -> Result<(Run, Message<'_>), DecodeError> {
    let mut reader = Reader::new(bytes);
    let what = reader.u8()?;
    let run = Run { group: GroupId(reader.u32()?), generation: reader.u64()?, run: reader.u64()? };
    let message = match what {
        1 => Message::Pull(limited(&mut reader, CURSOR_BYTES_MAX)?),
        2 => Message::Lot {
            number: reader.u32()?,
            next: match reader.u8()? {
                0 => None,
                1 => Some(limited(&mut reader, CURSOR_BYTES_MAX)?),
                _ => return Err(DecodeError::Invalid),
            },
            content: limited(&mut reader, LOT_BYTES_MAX)?,
        },
        3 => Message::Taken(reader.u32()?),
        4 => Message::Gone,
        5 => Message::Stop,
        _ => return Err(DecodeError::Invalid),
    };
    if reader.is_empty() { Ok((run, message)) } else { Err(DecodeError::Invalid) }
}

fn limited<'a>(reader: &mut Reader<'a>, limit: usize) -> Result<&'a [u8], DecodeError> {
    let bytes = reader.bytes()?;
    if bytes.len() > limit { Err(DecodeError::Invalid) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_message_reads_back_and_nothing_shorter_or_longer_does(
            numbers: (u32, u64, u64, u32), what in 0u8..5, cursor: Vec<u8>, content: Vec<u8>, last: bool,
        ) {
            let (group, generation, run, number) = numbers;
            let run = Run { group: GroupId(group), generation, run };
            let message = match what {
                0 => Message::Pull(&cursor),
                1 => Message::Lot { number, next: (!last).then_some(&cursor[..]), content: &content },
                2 => Message::Taken(number),
                3 => Message::Gone,
                _ => Message::Stop,
            };
            let mut bytes = Vec::new();
            encode(run, &message, &mut bytes);
            prop_assert_eq!(decode(&bytes), Ok((run, message)));
            for cut in 0..bytes.len() {
                prop_assert!(decode(&bytes[..cut]).is_err());
            }
            bytes.push(0);
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes: Vec<u8>) {
            if let Ok((run, message)) = decode(&bytes) {
                let mut again = Vec::new();
                encode(run, &message, &mut again);
                // Only a length may have been written in more bytes than it needs.
                prop_assert!(again.len() <= bytes.len());
                prop_assert_eq!(decode(&again), Ok((run, message)));
            }
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let run = Run { group: GroupId(1), generation: 1, run: 1 };
        let (cursor, content) = (vec![0; CURSOR_BYTES_MAX + 1], vec![0; LOT_BYTES_MAX + 1]);
        for (message, sound) in [
            (Message::Pull(&cursor), false),
            (Message::Pull(&cursor[1..]), true),
            (Message::Lot { number: 0, next: Some(&cursor), content: b"" }, false),
            (Message::Lot { number: 0, next: None, content: &content }, false),
            (Message::Lot { number: 0, next: Some(&cursor[1..]), content: &content[1..] }, true),
        ] {
            let mut bytes = Vec::new();
            encode(run, &message, &mut bytes);
            assert_eq!(decode(&bytes).is_ok(), sound);
        }
    }
}
