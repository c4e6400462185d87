//! Frames: four bytes of length (little-endian, of the payload), one byte of kind, the payload.
//!
//! The bytes may come in any pieces. A length is judged when its four bytes are there and before memory is taken;
//! afterwards memory is taken for what has arrived, not for what was announced.

use thiserror::Error;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 5;
/// Longest payload of what is no [`Kind::Data`], in bytes.
pub const SMALL_BYTES_MAX: usize = 4 * 1024;
/// Longest answer to a newcomer, in bytes: it tells of every member. Only who asked takes one so long.
pub const ANSWER_BYTES_MAX: usize = 512 * 1024;
/// A buffer of an incomplete frame that is larger than this is given back with the frame.
const PARTIAL_BYTES_KEPT: usize = 64 * 1024;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first frame of each side.
    Hello,
    /// What the link is for: opaque bytes.
    Data,
    /// Nothing, to show that the sender is alive.
    Beat,
    /// A node that is no member asks to become one.
    JoinRequest,
    /// The answer to that.
    JoinAnswer,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 5] = [Kind::Hello, Kind::Data, Kind::Beat, Kind::JoinRequest, Kind::JoinAnswer];

    const fn byte(self) -> u8 {
        match self {
            Kind::Hello => 1,
            Kind::Data => 2,
            Kind::Beat => 3,
            Kind::JoinRequest => 4,
            Kind::JoinAnswer => 5,
        }
    }

    fn of(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.byte() == byte)
    }
}

/// One whole frame, borrowed from where it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: Kind,
    /// What it carries.
    pub payload: &'a [u8],
}

/// What no honest peer sends. The link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A frame above the limit of its kind.
    #[error("a frame of {bytes} bytes, more than the {limit} that may be")]
    TooLarge {
        /// What the header says.
        bytes: u64,
        /// What may be.
        limit: usize,
    },
    /// A kind that no version has.
    #[error("a frame of the unknown kind {0}")]
    UnknownKind(u8),
}

/// Appends a frame.
///
/// # Panics
/// With a payload of 4 GiB or more; every sender has a lower limit.
#[inline]
pub fn encode(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).expect("a sender's limit is below 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.push(kind.byte());
    out.extend_from_slice(payload);
}

/// Takes bytes apart into frames, wherever they were cut.
#[derive(Debug)]
pub struct Decoder {
    /// The beginning of a frame that is not complete, or a frame that was returned.
    partial: Vec<u8>,
    returned: bool,
    data_bytes_max: usize,
}

impl Decoder {
    /// Takes data frames of at most `data_bytes_max`.
    #[must_use]
    pub const fn new(data_bytes_max: usize) -> Decoder {
        Decoder { partial: Vec::new(), returned: false, data_bytes_max }
    }

    /// From now on data frames of at most `bytes` are taken.
    pub const fn set_data_bytes_max(&mut self, bytes: usize) {
        self.data_bytes_max = bytes;
    }

    /// True while a frame is begun and not complete.
    #[must_use]
    pub const fn is_inside(&self) -> bool {
        !self.returned && !self.partial.is_empty()
    }

    /// Bytes of memory that are held.
    #[must_use]
    pub const fn memory(&self) -> usize {
        self.partial.capacity()
    }

    /// The next whole frame of `input`, which loses what was used; none when `input` is used up.
    ///
    /// A frame within `input` is not copied; one in pieces is put together in a buffer that grows with it.
    ///
    /// # Errors
    /// [`FrameError`]; nothing that follows can be understood.
    #[inline]
    pub fn next<'a, 'b: 'a>(&'a mut self, input: &mut &'b [u8]) -> Result<Option<Frame<'a>>, FrameError> {
        if !self.returned && self.partial.is_empty() {
            // The usual case: a frame that is all here.
            let Some((header, rest)) = input.split_first_chunk::<HEADER_BYTES>() else {
                return self.next_in_pieces(input);
            };
            let (kind, bytes) = self.judge(*header)?;
            if let Some((payload, rest)) = rest.split_at_checked(bytes) {
                *input = rest;
                return Ok(Some(Frame { kind, payload }));
            }
        }
        self.next_in_pieces(input)
    }

    fn next_in_pieces<'a, 'b: 'a>(
        &'a mut self,
        input: &mut &'b [u8],
    ) -> Result<Option<Frame<'a>>, FrameError> {
        if self.returned {
            self.returned = false;
            self.partial.clear();
            if self.partial.capacity() > PARTIAL_BYTES_KEPT {
                self.partial = Vec::new();
            }
            return self.next(input);
        }
        self.take(HEADER_BYTES, input);
        let Some(header) = self.partial.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let (kind, bytes) = self.judge(*header)?;
        self.take(HEADER_BYTES + bytes, input);
        if self.partial.len() < HEADER_BYTES + bytes {
            return Ok(None);
        }
        self.returned = true;
        Ok(Some(Frame { kind, payload: &self.partial[HEADER_BYTES..] }))
    }

    /// Moves bytes of `input` until `length` are together.
    fn take(&mut self, length: usize, input: &mut &[u8]) {
        let missing = length.saturating_sub(self.partial.len()).min(input.len());
        let (head, rest) = input.split_at(missing);
        self.partial.extend_from_slice(head);
        *input = rest;
    }

    fn judge(&self, [a, b, c, d, kind]: [u8; HEADER_BYTES]) -> Result<(Kind, usize), FrameError> {
        let length = u32::from_le_bytes([a, b, c, d]);
        let kind = Kind::of(kind).ok_or(FrameError::UnknownKind(kind))?;
        let limit = match kind {
            Kind::Data => self.data_bytes_max,
            Kind::Hello | Kind::Beat | Kind::JoinRequest => SMALL_BYTES_MAX,
            Kind::JoinAnswer => self.data_bytes_max.clamp(SMALL_BYTES_MAX, ANSWER_BYTES_MAX),
        };
        match usize::try_from(length) {
            Ok(bytes) if bytes <= limit => Ok((kind, bytes)),
            _ => Err(FrameError::TooLarge { bytes: u64::from(length), limit }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    type Read = (Vec<(Kind, Vec<u8>)>, Option<FrameError>);

    /// Everything in `pieces`, up to the first error.
    fn read<'a>(limit: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
        let mut decoder = Decoder::new(limit);
        let mut frames = Vec::new();
        for mut piece in pieces {
            loop {
                match decoder.next(&mut piece) {
                    Ok(Some(frame)) => frames.push((frame.kind, frame.payload.to_vec())),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
            assert!(piece.is_empty());
        }
        (frames, None)
    }

    #[test]
    fn a_header_is_judged_before_its_payload_arrives() {
        #[rustfmt::skip] // columns
        let table = [
            // length       kind  what comes of it
            (0,             2,    None),
            (100,           2,    None),
            (101,           2,    Some(FrameError::TooLarge { bytes: 101, limit: 100 })),
            (u32::MAX,      2,    Some(FrameError::TooLarge { bytes: u64::from(u32::MAX), limit: 100 })),
            (4096,          1,    None),
            (4097,          1,    Some(FrameError::TooLarge { bytes: 4097, limit: 4096 })),
            (4097,          4,    Some(FrameError::TooLarge { bytes: 4097, limit: 4096 })),
            (0,             0,    Some(FrameError::UnknownKind(0))),
            (0,             6,    Some(FrameError::UnknownKind(6))),
        ];
        for (length, kind, expected) in table {
            let mut bytes = u32::to_le_bytes(length).to_vec();
            bytes.push(kind);
            assert_eq!(read(100, [&bytes[..]]).1, expected, "{length} {kind}");
            assert_eq!(read(100, bytes.chunks(1)).1, expected, "{length} {kind} byte by byte");
        }
    }

    #[test]
    fn memory_follows_what_has_arrived_and_not_what_was_announced() {
        let mut decoder = Decoder::new(1 << 30);
        let mut header = u32::to_le_bytes(1 << 30).to_vec();
        header.extend([2, 0, 0]);
        let mut input = &header[..];
        assert_eq!(decoder.next(&mut input), Ok(None));
        assert!(decoder.is_inside());
        assert!(decoder.memory() < 64, "{}", decoder.memory());
    }

    #[test]
    fn a_large_buffer_is_given_back() {
        let mut bytes = Vec::new();
        encode(Kind::Data, &vec![7; 1 << 20], &mut bytes);
        let mut decoder = Decoder::new(1 << 20);
        for mut piece in bytes.chunks(1000) {
            while decoder.next(&mut piece).unwrap().is_some() {}
        }
        assert!(!decoder.is_inside());
        assert!(decoder.memory() <= PARTIAL_BYTES_KEPT);
    }

    proptest! {
        #[test]
        fn split_anywhere_is_the_same_as_whole(
            frames in vec((0usize..5, vec(any::<u8>(), 0..300)), 0..12),
            cuts in vec(1usize..40, 1..60),
        ) {
            let mut bytes = Vec::new();
            let frames: Vec<_> = frames.into_iter().map(|(kind, payload)| (Kind::ALL[kind], payload)).collect();
            for (kind, payload) in &frames {
                encode(*kind, payload, &mut bytes);
            }
            prop_assert_eq!(read(300, [&bytes[..]]), (frames.clone(), None));
            let mut pieces = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(read(300, pieces), (frames, None));
        }

        #[test]
        fn arbitrary_bytes_give_the_same_in_any_pieces(bytes in vec(0u8..8, 0..400), size in 1usize..9) {
            prop_assert_eq!(read(9, [&bytes[..]]), read(9, bytes.chunks(size)));
        }
    }
}
