//! A socket and what is known of it between two events: plain, or with TLS around its bytes.

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use rustls::Connection;

use crate::buffers::Buffer;
use crate::h2::StreamSocket;

/// A socket and what is known of it between two events.
pub(crate) struct Socket {
    base: Base,
    tls: Option<Box<Connection>>,
    /// The last read did not empty it, as far as is known.
    pub readable: bool,
    /// The last write was not refused.
    pub writable: bool,
    /// The other end has said that it sends no more; the bytes before that may still be to be read.
    pub closing: bool,
    /// That was read.
    pub ended: bool,
    /// We have said so, or will as soon as what TLS holds is sent.
    shut: bool,
    /// The kernel had nothing more when TLS asked it last.
    drained: bool,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The other end has sent all.
    End,
}

/// Below TLS.
enum Base {
    Tcp(TcpStream),
    /// One stream of many on a connection of HTTP/2.
    Stream(StreamSocket),
    /// Who has sent all that it has to send, and takes everything.
    Nobody,
}

impl Socket {
    pub fn new(stream: TcpStream) -> Socket {
        Socket::over(Base::Tcp(stream))
    }

    pub fn of_stream(stream: StreamSocket) -> Socket {
        Socket::over(Base::Stream(stream))
    }

    /// The socket of nobody: what is written to it is gone.
    pub fn nobody() -> Socket {
        Socket { readable: true, ..Socket::over(Base::Nobody) }
    }

    fn over(base: Base) -> Socket {
        Socket {
            base,
            tls: None,
            readable: false,
            writable: true,
            closing: false,
            ended: false,
            shut: false,
            drained: false,
        }
    }

    /// Whether it is a stream of HTTP/2.
    pub const fn is_stream(&self) -> bool {
        matches!(self.base, Base::Stream(_))
    }

    /// Its stream, if it is one of HTTP/2.
    pub const fn as_stream(&self) -> Option<&StreamSocket> {
        match &self.base {
            Base::Tcp(_) | Base::Nobody => None,
            Base::Stream(stream) => Some(stream),
        }
    }

    /// Takes note of an event. Edges: what it says holds until a read or write says otherwise.
    pub fn note(&mut self, event: &mio::event::Event) {
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            (self.readable, self.drained) = (true, false);
        }
        self.writable |= event.is_writable() || event.is_error();
        self.closing |= event.is_read_closed() || event.is_error();
    }

    /// Whether a connection that we began is there by now.
    ///
    /// # Errors
    /// It will not be.
    pub fn is_connected(&mut self) -> io::Result<bool> {
        if !self.writable && !self.is_stream() {
            return Ok(false);
        }
        let stream = match &self.base {
            Base::Tcp(stream) => stream,
            Base::Stream(stream) => return stream.is_connected(),
            Base::Nobody => return Ok(true),
        };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        if stream.peer_addr().is_err() {
            self.writable = false;
            return Ok(false);
        }
        // If it cannot be set, small requests wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        Ok(true)
    }

    /// From now on its bytes are TLS's.
    pub fn wrap(&mut self, tls: Connection) {
        self.tls = Some(Box::new(tls));
    }

    pub const fn is_secured(&self) -> bool {
        self.tls.is_some()
    }

    pub fn tls(&mut self) -> Option<&mut Connection> {
        self.tls.as_deref_mut()
    }

    /// Both ends of its connection, the other's first; `None` if it is a stream, or gone.
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        match &self.base {
            Base::Tcp(stream) => Some((stream.peer_addr().ok()?, stream.local_addr().ok()?)),
            Base::Stream(_) | Base::Nobody => None,
        }
    }

    /// Looks at what there is before TLS, and leaves it there. Of no use for streams.
    pub fn peek(&mut self, into: &mut [u8]) -> io::Result<Got> {
        let Base::Tcp(stream) = &self.base else { return Ok(Got::Nothing) };
        loop {
            match stream.peek(into) {
                Ok(0) => return Ok(Got::End),
                Ok(n) => return Ok(Got::Bytes(n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(Got::Nothing);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    #[inline]
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<Got> {
        if self.tls.is_some() {
            return self.open(into);
        }
        loop {
            let read = match &mut self.base {
                Base::Tcp(stream) => stream.read(into),
                Base::Stream(stream) => {
                    let got = stream.read(into)?;
                    // More may come with each look at it, and nobody tells of an edge.
                    self.readable = matches!(got, Got::Bytes(_));
                    self.ended |= got == Got::End;
                    return Ok(got);
                }
                Base::Nobody => Ok(0),
            };
            match read {
                Ok(0) => {
                    (self.readable, self.ended) = (false, true);
                    return Ok(Got::End);
                }
                Ok(n) => {
                    // A short read has emptied it (epoll(7)), unless its end comes behind.
                    self.readable = n == into.len() || self.closing;
                    return Ok(Got::Bytes(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(Got::Nothing);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what TLS opens. An end that TLS was not told of is an error: somebody may have cut it.
    fn open(&mut self, into: &mut [u8]) -> io::Result<Got> {
        loop {
            let Some(tls) = &mut self.tls else { return Ok(Got::Nothing) };
            match tls.reader().read(into) {
                Ok(0) => {
                    (self.readable, self.ended) = (false, true);
                    return Ok(Got::End);
                }
                Ok(n) => {
                    // A short read has emptied TLS, unless its end comes behind.
                    self.readable = n == into.len() || !self.drained || self.closing;
                    return Ok(Got::Bytes(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if !self.take()? {
                return Ok(Got::Nothing);
            }
        }
    }

    /// Has TLS take what the kernel has. False: there is nothing now.
    fn take(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else { return Ok(false) };
        if self.drained {
            self.readable = false;
            return Ok(false);
        }
        let Base::Tcp(stream) = &mut self.base else { return Ok(false) };
        let mut from = Short { stream, is_short: false };
        match tls.read_tls(&mut from) {
            Ok(_) => self.drained = from.is_short && !self.closing,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                (self.readable, self.drained) = (false, true);
                return Ok(false);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        }
        let processed = tls.process_new_packets();
        self.closing |= processed.as_ref().is_ok_and(rustls::IoState::peer_has_closed);
        // Handshake answers and alerts go out whether or not it went well.
        self.push()?;
        processed.map(|_| true).map_err(io::Error::other)
    }

    /// Goes on with a handshake. True if there is none, or none any more.
    ///
    /// # Errors
    /// It failed, or the socket did.
    pub fn shake(&mut self) -> io::Result<bool> {
        self.push()?;
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            if !self.take()? {
                return Ok(false);
            }
            if self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) && self.ended_early() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(true)
    }

    /// Whether the other end has gone in the middle of a handshake.
    fn ended_early(&mut self) -> bool {
        let Some(tls) = &mut self.tls else { return false };
        matches!(tls.reader().read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::UnexpectedEof)
    }

    /// Sends both, in this order; returns how many bytes were taken. TLS may hold some of them, see [`Socket::holds`].
    #[inline]
    pub fn write(&mut self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        if self.tls.is_some() {
            return self.seal(first, second);
        }
        let (mut sent, all) = (0, first.len() + second.len());
        let stream = match &mut self.base {
            Base::Tcp(stream) => stream,
            Base::Stream(stream) => {
                let sent = stream.write(first, second)?;
                self.writable = sent == all;
                return Ok(sent);
            }
            Base::Nobody => return Ok(all),
        };
        while sent < all && self.writable {
            let result = if sent >= first.len() {
                stream.write(&second[sent - first.len()..])
            } else if second.is_empty() {
                stream.write(&first[sent..])
            } else {
                stream.write_vectored(&[IoSlice::new(&first[sent..]), IoSlice::new(second)])
            };
            match result {
                Ok(n) => sent += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    fn seal(&mut self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        self.push()?;
        let (mut sent, all) = (0, first.len() + second.len());
        while sent < all && !self.holds() {
            let Some(tls) = &mut self.tls else { break };
            // TLS takes at most its own bound of this.
            let pieces = [
                IoSlice::new(&first[sent.min(first.len())..]),
                IoSlice::new(&second[sent.saturating_sub(first.len())..]),
            ];
            let taken = tls.writer().write_vectored(&pieces)?;
            if taken == 0 {
                break;
            }
            sent += taken;
            self.push()?;
        }
        Ok(sent)
    }

    /// Sends what TLS holds. Whether any of it went.
    pub fn push(&mut self) -> io::Result<bool> {
        let (Some(tls), Base::Tcp(stream)) = (&mut self.tls, &mut self.base) else { return Ok(false) };
        let mut moved = false;
        while tls.wants_write() && self.writable {
            match tls.write_tls(stream) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => moved = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if moved && self.shut && !tls.wants_write() {
            // One that is gone already needs no farewell.
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        Ok(moved)
    }

    /// Whether TLS has bytes that the kernel has not taken.
    pub fn holds(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Sends what waits. Whether any of it went.
    pub fn flush(&mut self, buffer: &mut Buffer) -> io::Result<bool> {
        let mut moved = self.push()?;
        if !buffer.is_empty() && self.writable {
            let sent = self.write(buffer.waiting(), &[])?;
            buffer.advance(sent);
            moved |= sent > 0;
        }
        Ok(moved)
    }

    /// Says that nothing more is sent.
    pub fn shut(&mut self) {
        if self.shut {
            return;
        }
        self.shut = true;
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // If it does not go now it goes when the socket can be written to; an error shows there too.
            let _ = self.push();
            return;
        }
        match &mut self.base {
            // One that is gone already needs no farewell.
            Base::Tcp(stream) => drop(stream.shutdown(std::net::Shutdown::Write)),
            Base::Stream(stream) => stream.shut(),
            Base::Nobody => {}
        }
    }

    /// Whether we have said that nothing more is sent.
    pub fn is_shut(&self) -> bool {
        self.shut && !self.holds()
    }

    /// Whether that was asked for.
    pub fn is_shutting(&self) -> bool {
        self.shut
    }

    /// Has the other end see a reset when the socket is dropped: what it has is not whole.
    pub fn poison(&self) {
        let stream = match &self.base {
            Base::Tcp(stream) => stream,
            Base::Stream(stream) => return stream.poison(),
            Base::Nobody => return,
        };
        // If it cannot be set the other end sees an end in the middle of a body, or one that was none.
        let _ = rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO));
    }
}

/// A socket that remembers whether it was read to its end.
struct Short<'a> {
    stream: &'a mut TcpStream,
    is_short: bool,
}

impl Read for Short<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(into)?;
        self.is_short = n < into.len();
        Ok(n)
    }
}
