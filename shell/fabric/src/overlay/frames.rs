//! Messages on one stream: each behind its length, whatever pieces they arrive in.

use std::io;

use futures::{AsyncRead, AsyncReadExt};
use wire::kad::{MESSAGE_BYTES_MAX, take_frame};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 4096;

/// What has arrived and was not taken yet.
///
/// Invariant: less than one message of the largest size, its length and one chunk.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// The next message without its length; `None` when the peer has closed its end between two messages.
    ///
    /// # Errors
    /// The stream's, and `InvalidData` or `UnexpectedEof` for what is no message.
    pub async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
        loop {
            let taken =
                take_frame(&self.bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if let Some((message, end)) = taken {
                let message = message.to_vec();
                self.bytes.drain(..end);
                return Ok(Some(message));
            }
            let start = self.bytes.len();
            assert!(start <= MESSAGE_BYTES_MAX + 3, "a longer message was refused by its length");
            self.bytes.resize(start + CHUNK_BYTES, 0);
            let read = stream.read(&mut self.bytes[start..]).await;
            self.bytes.truncate(start + *read.as_ref().unwrap_or(&0));
            match read? {
                0 if start == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    }

    /// True if more has arrived than was taken.
    pub const fn has_rest(&self) -> bool {
        !self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures::executor::block_on;
    use wire::kad::put_frame;

    use super::*;

    /// Gives `step` bytes at a time.
    struct Pieces<'a>(&'a [u8], usize);

    impl AsyncRead for Pieces<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            out: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let n = self.0.len().min(self.1).min(out.len());
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Poll::Ready(Ok(n))
        }
    }

    #[test]
    fn messages_are_the_same_in_whatever_pieces_they_arrive() {
        let messages = [vec![1; 5], vec![], vec![2; MESSAGE_BYTES_MAX], vec![3; 300]];
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| put_frame(message, &mut bytes));
        for step in [1, 2, 3, 700, 4096, 1 << 20] {
            let (mut frames, mut pieces) = (Frames::default(), Pieces(&bytes, step));
            for message in &messages {
                assert_eq!(block_on(frames.next(&mut pieces)).unwrap().as_ref(), Some(message), "{step}");
            }
            assert!(!frames.has_rest());
            assert_eq!(block_on(frames.next(&mut pieces)).unwrap(), None);
        }
    }

    #[test]
    fn a_length_that_is_too_large_and_a_cut_message_are_refused() {
        let mut long = Vec::new();
        kernel::codec::put_varint(&mut long, MESSAGE_BYTES_MAX as u64 + 1);
        for (bytes, kind) in [
            (&long[..], io::ErrorKind::InvalidData),
            (&[0xff; 8][..], io::ErrorKind::InvalidData),
            (&[9, 1, 2][..], io::ErrorKind::UnexpectedEof),
            (&[0x80][..], io::ErrorKind::UnexpectedEof),
        ] {
            let error = block_on(Frames::default().next(&mut Pieces(bytes, 1))).unwrap_err();
            assert_eq!(error.kind(), kind, "{bytes:?}");
        }
    }
}
