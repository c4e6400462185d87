//! One client's socket, plain or TLS.

use std::io::{self, Read, Write};

use mio::net::TcpStream;
use rustls::ServerConnection;

use kernel::ConnId;

/// A connected client.
pub(crate) struct Socket {
    pub id: ConnId,
    pub stream: TcpStream,
    pub tls: Option<Box<ServerConnection>>,
    /// Bytes may be waiting in the kernel: the last read did not empty it.
    pub readable: bool,
    /// Waits for the kernel to take more.
    pub writing: bool,
    /// How many bytes at the front of the worker's output were sent and not yet removed.
    pub sent: usize,
}

/// What a read brought.
pub(crate) enum Got {
    /// This many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The client has sent all it will.
    End,
}

impl Socket {
    /// Reads what there is into `buffer`.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Got> {
        match &mut self.tls {
            None => got(self.stream.read(buffer)),
            Some(tls) => read_tls(tls, &mut self.stream, buffer),
        }
    }

    /// Sends from `out`; returns how many bytes were taken.
    pub fn write(&mut self, out: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => sent(self.stream.write(out)),
            Some(tls) => {
                // rustls buffers what the socket does not take; never more than one piece of it.
                if tls.wants_write() {
                    push(tls, &mut self.stream)?;
                }
                if tls.wants_write() {
                    return Ok(0);
                }
                let taken = tls.writer().write(&out[..out.len().min(64 * 1024)])?;
                push(tls, &mut self.stream)?;
                Ok(taken)
            }
        }
    }

    /// True while TLS itself holds bytes for the socket.
    pub fn holds_output(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Sends what TLS holds (handshake messages, alerts).
    pub fn push(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => Ok(()),
            Some(tls) => push(tls, &mut self.stream),
        }
    }
}

fn got(result: io::Result<usize>) -> io::Result<Got> {
    match result {
        Ok(0) => Ok(Got::End),
        Ok(n) => Ok(Got::Bytes(n)),
        Err(error) if is_passing(&error) => Ok(Got::Nothing),
        Err(error) => Err(error),
    }
}

fn sent(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if is_passing(&error) => Ok(0),
        other => other,
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn read_tls(tls: &mut ServerConnection, stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Got> {
    loop {
        match got(tls.reader().read(buffer))? {
            Got::Bytes(n) => return Ok(Got::Bytes(n)),
            Got::End => return Ok(Got::End),
            Got::Nothing => {}
        }
        match tls.read_tls(stream) {
            Ok(0) => return Ok(Got::End),
            Ok(_) => {}
            Err(error) if is_passing(&error) => return Ok(Got::Nothing),
            Err(error) => return Err(error),
        }
        let processed = tls.process_new_packets();
        // Handshake answers and alerts go out whether or not it went well.
        push(tls, stream)?;
        processed.map_err(io::Error::other)?;
    }
}

fn push(tls: &mut ServerConnection, stream: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(stream) {
            Ok(_) => {}
            Err(error) if is_passing(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
