//! A body in chunks, in any pieces: what of it is content, and where it ends.

use core::ops::Range;

use thiserror::Error;

use super::head::is_token_byte;
use super::{CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};

/// Digits of a chunk's length: more would not fit a file either.
const DIGITS_MAX: u32 = 15;

/// The body breaks the grammar: it is never ended as if it were whole, and its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// A length that is none.
    #[error("a chunk's length is malformed")]
    Length,
    /// A line that does not end with CRLF, or content that is longer than its chunk.
    #[error("a chunk does not end where it says")]
    End,
    /// Extensions that are too long, or not printable.
    #[error("a chunk's extensions are malformed or longer than {CHUNK_LINE_BYTES_MAX} bytes")]
    Extension,
    /// Trailer fields that are too long or malformed.
    #[error("the trailer is malformed or longer than {TRAILER_BYTES_MAX} bytes")]
    Trailer,
}

/// What stands next in the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Content, at these places of what was handed in.
    Content(Range<usize>),
    /// Bytes of the trailer: fields in lines, in any pieces, up to the empty line that ends them.
    Trailer(Range<usize>),
    /// Nothing before more bytes come: all that was handed in is taken.
    More,
    /// The body has ended; what follows begins here.
    End(usize),
}

/// Where a reader is in a body. It keeps no bytes.
#[derive(Clone, Debug)]
pub struct Chunks {
    state: State,
    /// Bytes of the line or trailer so far.
    taken: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a length: its value and digits.
    Length(u64, u32),
    /// In extensions of a chunk of this length.
    Extension(u64),
    /// Behind the CR of a length line.
    LengthEnd(u64),
    /// So much content is left.
    Content(u64),
    /// Behind content: its CR comes,
    ContentCr,
    /// and its LF.
    ContentLf,
    /// At the start of a trailer line.
    TrailerStart,
    /// In a trailer field; whether its name has ended.
    Trailer {
        named: bool,
    },
    /// Behind a trailer line's CR.
    TrailerLf,
    /// Behind the last CR.
    LastLf,
    Ended,
}

impl Default for Chunks {
    fn default() -> Chunks {
        Chunks::new()
    }
}

impl Chunks {
    /// At the start of a body.
    #[must_use]
    pub const fn new() -> Chunks {
        Chunks { state: State::Length(0, 0), taken: 0 }
    }

    /// Whether the body has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// What stands next from `at` on. Call it with the end of the last content until it asks for more or ends.
    ///
    /// # Errors
    /// [`ChunkError`].
    pub fn next(&mut self, bytes: &[u8], mut at: usize) -> Result<Part, ChunkError> {
        loop {
            if self.state == State::Ended {
                return Ok(Part::End(at));
            }
            let Some(&byte) = bytes.get(at) else { return Ok(Part::More) };
            if let State::Content(left) = self.state {
                let here = left.min((bytes.len() - at) as u64);
                self.state = if here == left { State::ContentCr } else { State::Content(left - here) };
                return Ok(Part::Content(at..at + here as usize));
            }
            if self.is_in_trailer() {
                let from = at;
                while let (true, Some(&byte)) = (self.is_in_trailer(), bytes.get(at)) {
                    self.state = self.step(byte)?;
                    at += 1;
                }
                return Ok(Part::Trailer(from..at));
            }
            self.state = self.step(byte)?;
            at += 1;
        }
    }

    const fn is_in_trailer(&self) -> bool {
        matches!(self.state, State::TrailerStart | State::Trailer { .. } | State::TrailerLf | State::LastLf)
    }

    fn step(&mut self, byte: u8) -> Result<State, ChunkError> {
        self.taken += 1;
        Ok(match self.state {
            State::Length(length, digits) => return self.in_length(byte, length, digits),
            State::Extension(length) => match byte {
                b'\r' => State::LengthEnd(length),
                _ if self.taken > CHUNK_LINE_BYTES_MAX => return Err(ChunkError::Extension),
                b'\t' | 0x20..0x7F => State::Extension(length),
                _ => return Err(ChunkError::Extension),
            },
            State::LengthEnd(length) if byte == b'\n' => {
                self.taken = 0;
                if length == 0 { State::TrailerStart } else { State::Content(length) }
            }
            State::ContentCr if byte == b'\r' => State::ContentLf,
            State::ContentLf if byte == b'\n' => {
                self.taken = 0;
                State::Length(0, 0)
            }
            State::LengthEnd(_) | State::ContentCr | State::ContentLf => return Err(ChunkError::End),
            State::TrailerStart | State::Trailer { .. } | State::TrailerLf | State::LastLf => {
                return self.in_trailer(byte);
            }
            State::Content(_) | State::Ended => unreachable!("content and the end are no bytes to step over"),
        })
    }

    fn in_length(&self, byte: u8, length: u64, digits: u32) -> Result<State, ChunkError> {
        match (byte, char::from(byte).to_digit(16)) {
            (_, Some(_)) if digits == DIGITS_MAX => Err(ChunkError::Length),
            (_, Some(digit)) => Ok(State::Length(length << 4 | u64::from(digit), digits + 1)),
            (_, None) if digits == 0 => Err(ChunkError::Length),
            (b'\r', None) => Ok(State::LengthEnd(length)),
            (b';' | b' ' | b'\t', None) => Ok(State::Extension(length)),
            (_, None) => Err(ChunkError::Length),
        }
    }

    fn in_trailer(&self, byte: u8) -> Result<State, ChunkError> {
        if self.taken > TRAILER_BYTES_MAX {
            return Err(ChunkError::Trailer);
        }
        let token = is_token_byte(byte);
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::LastLf),
            (State::TrailerStart, _) if token => Ok(State::Trailer { named: false }),
            (State::Trailer { named: false }, b':') => Ok(State::Trailer { named: true }),
            (State::Trailer { named: false }, _) if token => Ok(State::Trailer { named: false }),
            (State::Trailer { named: true }, b'\r') => Ok(State::TrailerLf),
            (State::Trailer { named: true }, b'\t' | 0x20..=0x7E | 0x80..) => {
                Ok(State::Trailer { named: true })
            }
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::LastLf, b'\n') => Ok(State::Ended),
            _ => Err(ChunkError::Trailer),
        }
    }
}
