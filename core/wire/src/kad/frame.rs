//! The length before each message: an unsigned varint, as multiformats defines it.

use super::MESSAGE_BYTES_MAX;
use alloc::vec::Vec;
use kernel::codec::put_varint;
use thiserror::Error;

/// The peer's bytes are no frame; the stream is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The message is longer than any may be.
    #[error("a message of {bytes} bytes, where {MESSAGE_BYTES_MAX} are the most")]
    TooLong {
        /// What its length says.
        bytes: u32,
    },
    /// A length in more bytes than it needs, which multiformats forbids, or than a message's can have.
    #[error("the length before a message is no minimal varint")]
    Length,
}

/// Most bytes of a length: three hold 21 bits.
const LENGTH_BYTES_MAX: usize = 3;
const _: () = assert!(MESSAGE_BYTES_MAX < 1 << (7 * LENGTH_BYTES_MAX));

/// The first message in `bytes`, and how many bytes it took with its length; `None` if more must arrive.
///
/// A length above [`MESSAGE_BYTES_MAX`] is refused by its first bytes, before anyone keeps the message.
///
/// # Errors
/// [`FrameError`]; nothing behind it can be read.
pub fn take_frame(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, FrameError> {
    let mut length = 0u32;
    for (at, &byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        length |= u32::from(byte & 0x7F) << (7 * at);
        if byte < 0x80 {
            if byte == 0 && at > 0 {
                return Err(FrameError::Length);
            }
            if length as usize > MESSAGE_BYTES_MAX {
                return Err(FrameError::TooLong { bytes: length });
            }
            let start = at + 1;
            let end = start + length as usize;
            return Ok(bytes.get(start..end).map(|message| (message, end)));
        }
    }
    if bytes.len() < LENGTH_BYTES_MAX { Ok(None) } else { Err(FrameError::Length) }
}

/// Appends `message` behind its length.
///
/// # Panics
/// If it is longer than [`MESSAGE_BYTES_MAX`], which no [`Outgoing`](super::Outgoing) is.
pub fn put_frame(message: &[u8], out: &mut Vec<u8>) {
    assert!(message.len() <= MESSAGE_BYTES_MAX, "a message is encoded within its limit");
    put_varint(out, message.len() as u64);
    out.extend_from_slice(message);
}
