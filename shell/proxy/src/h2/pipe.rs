//! What the `h2` crate takes for a socket: bytes that were read from one, and room for those that are to be written.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffers::Buffer;
use crate::socket::{Got, Socket};

/// Bytes that may wait for the socket; then frames wait.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Both directions.
#[derive(Default)]
struct Queues {
    input: Buffer,
    ended: bool,
    output: Buffer,
}

/// One end of it: the connection has the other.
#[derive(Clone, Default)]
pub(super) struct Pipe(Rc<RefCell<Queues>>);

impl Pipe {
    /// Reads once, if all that was read before is taken. True if there may be more.
    pub fn fill(&self, socket: &mut Socket, scratch: &mut [u8]) -> io::Result<bool> {
        let mut queues = self.0.borrow_mut();
        if !queues.input.is_empty() || !socket.readable || queues.ended {
            return Ok(false);
        }
        match socket.read(scratch)? {
            Got::Bytes(n) => {
                queues.input.bytes.clear();
                queues.input.sent = 0;
                queues.input.bytes.extend_from_slice(&scratch[..n]);
                Ok(true)
            }
            Got::Nothing => Ok(false),
            Got::End => {
                queues.ended = true;
                Ok(true)
            }
        }
    }

    /// Puts what was read already before the crate.
    pub fn begin(&self, bytes: &[u8]) {
        self.0.borrow_mut().input.bytes.extend_from_slice(bytes);
    }

    /// Bytes that were read and are not taken. The crate takes none while what it has to say finds no room.
    pub fn untaken(&self) -> usize {
        self.0.borrow().input.waiting().len()
    }

    /// Writes what waits. True if room came of it.
    pub fn flush(&self, socket: &mut Socket) -> io::Result<bool> {
        let mut queues = self.0.borrow_mut();
        let moved = socket.flush(&mut queues.output)?;
        if queues.output.is_empty() {
            queues.output.bytes.clear();
            queues.output.sent = 0;
        }
        Ok(moved)
    }

    /// Whether something waits to be written.
    pub fn is_behind(&self) -> bool {
        !self.0.borrow().output.is_empty()
    }

    /// Gives the room of an idle connection back.
    pub fn shrink(&self) {
        let mut queues = self.0.borrow_mut();
        let Queues { input, output, .. } = &mut *queues;
        for buffer in [input, output] {
            if buffer.is_empty() {
                *buffer = Buffer::default();
            }
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut queues = self.0.borrow_mut();
        let waiting = queues.input.waiting();
        let n = waiting.len().min(into.remaining());
        if n == 0 && !queues.ended {
            return Poll::Pending;
        }
        into.put_slice(&waiting[..n]);
        queues.input.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut queues = self.0.borrow_mut();
        let room = OUTPUT_BYTES_MAX.saturating_sub(queues.output.waiting().len());
        let n = bytes.len().min(room);
        if n == 0 && !bytes.is_empty() {
            return Poll::Pending;
        }
        queues.output.bytes.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
