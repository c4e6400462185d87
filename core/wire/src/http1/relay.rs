//! A body on its way through a proxy: read by one framing, written by another, in any pieces.
//!
//! Chunks are written anew, so what a sender hides in extensions, blanks and trailers ends here. A body that breaks its
//! grammar or its connection is never ended: the next one must see that it is not whole.

use alloc::vec::Vec;
use core::str;

use kernel::planted::{Bug, is};

use super::forward::goes_behind;
use super::{Body, ChunkError, Chunks, Frame, Part, is_token};

/// Where a body is. It keeps no bytes but those of a trailer that goes on, at most [`super::TRAILER_BYTES_MAX`].
#[derive(Clone, Debug)]
pub struct Relay {
    from: From,
    chunked: bool,
    /// Fields behind the body, if they go on.
    trailers: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum From {
    Length(u64),
    Chunked(Chunks),
    UntilClose,
    Ended,
}

impl Relay {
    /// At the start of a body.
    #[must_use]
    pub const fn new(body: Body, to: Frame) -> Relay {
        let from = match body {
            Body::None => From::Ended,
            Body::Length(length) => From::Length(length),
            Body::Chunked => From::Chunked(Chunks::new()),
            Body::UntilClose => From::UntilClose,
        };
        Relay { from, chunked: matches!(to, Frame::Chunked), trailers: None }
    }

    /// The same, with trailer fields going on: for who has said that it wants them, as gRPC does.
    #[must_use]
    pub fn with_trailers(self) -> Relay {
        Relay { trailers: Some(Vec::new()), ..self }
    }

    /// The trailer's fields so far, in lines, without those that a trailer must not have. Empty without
    /// [`Relay::with_trailers`].
    pub fn trailers(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.trailers.iter().flat_map(|bytes| bytes.split_inclusive(|&byte| byte == b'\n'));
        lines.filter(|line| is_allowed_behind(line))
    }

    /// Whether it is whole.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self.from, From::Ended)
    }

    /// How many of the next `bytes` may be sent on as they are, without [`Relay::pass`]; they count as sent. 0: ask that.
    pub fn plain(&mut self, bytes: usize) -> usize {
        if self.chunked {
            return 0;
        }
        match &mut self.from {
            From::Length(left) => {
                let here = (*left).min(bytes as u64) as usize;
                *left -= here as u64;
                if *left == 0 {
                    self.from = From::Ended;
                }
                if is(Bug::BodyRunsOver) { bytes } else { here }
            }
            From::UntilClose => bytes,
            From::Chunked(_) | From::Ended => 0,
        }
    }

    /// Writes what `bytes` bring to the end of `out`, and the body's end if it is there. Returns how many were taken; those
    /// behind the end are not. At most 20 bytes for each chunk are added.
    ///
    /// # Errors
    /// [`ChunkError`]: the body is broken, and what was written to `out` is not to be followed by an end.
    pub fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, ChunkError> {
        if let From::Chunked(chunks) = &mut self.from {
            let mut at = 0;
            loop {
                match chunks.next(bytes, at)? {
                    Part::Content(range) => {
                        at = range.end;
                        write(&bytes[range], self.chunked, out);
                    }
                    Part::Trailer(range) => {
                        at = range.end;
                        if let Some(trailers) = &mut self.trailers {
                            trailers.extend_from_slice(&bytes[range]);
                        }
                    }
                    Part::More => return Ok(bytes.len()),
                    Part::End(end) => {
                        self.end(out);
                        return Ok(end);
                    }
                }
            }
        }
        let chunked = core::mem::take(&mut self.chunked);
        let taken = self.plain(bytes.len());
        self.chunked = chunked;
        if taken > 0 {
            write(&bytes[..taken], chunked, out);
        }
        if chunked && taken > 0 && self.has_ended() {
            out.extend_from_slice(LAST);
        }
        Ok(taken)
    }

    /// Its connection has said that no more comes. Whether the body is whole with that; if so its end is written.
    pub fn close(&mut self, out: &mut Vec<u8>) -> bool {
        if matches!(self.from, From::UntilClose) || is(Bug::CutBodyIsWhole) {
            self.end(out);
        }
        self.has_ended()
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.chunked && !self.has_ended() {
            out.extend_from_slice(b"0\r\n");
            self.trailers().for_each(|line| out.extend_from_slice(line));
            out.extend_from_slice(b"\r\n");
        }
        self.from = From::Ended;
    }
}

/// Whether a line is a field that may stand behind a body: nothing that frames, routes or is of one connection (RFC 9110,
/// 6.5.1).
fn is_allowed_behind(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    str::from_utf8(name).is_ok_and(|name| is_token(name) && goes_behind(name))
}

const LAST: &[u8] = b"0\r\n\r\n";

fn write(content: &[u8], chunked: bool, out: &mut Vec<u8>) {
    if !chunked {
        out.extend_from_slice(content);
        return;
    }
    let (mut digits, mut left, mut at) = ([0; 16], content.len(), 16);
    while left > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
    }
    for piece in [&digits[at..], b"\r\n", content, b"\r\n"] {
        out.extend_from_slice(piece);
    }
}
