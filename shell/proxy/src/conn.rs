//! What there is of a client and of a connection to an endpoint: sockets, bytes under way, and the request between them.

use std::io::{self, IoSlice, Read, Write};
use std::net::IpAddr;
use std::rc::Rc;

use kernel::Micros;
use mesh::upstream::Ticket;
use mio::net::TcpStream;
use wire::http1::{Body, Frame, Relay, Version};

use crate::buffers::Buffer;
use crate::slab::Key;
use crate::timers::Timer;
use crate::worker::Table;

/// A socket and what is known of it between two events.
pub(crate) struct Socket {
    pub stream: TcpStream,
    /// The last read did not empty it, as far as is known.
    pub readable: bool,
    /// The last write was not refused.
    pub writable: bool,
    /// The other end has said that it sends no more; the bytes before that may still be to be read.
    pub closing: bool,
    /// That was read.
    pub ended: bool,
    /// We have said so.
    pub shut: bool,
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

impl Socket {
    pub fn new(stream: TcpStream) -> Socket {
        Socket { stream, readable: false, writable: true, closing: false, ended: false, shut: false }
    }

    /// Takes note of an event. Edges: what it says holds until a read or write says otherwise.
    pub fn note(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_error();
        self.closing |= event.is_read_closed() || event.is_error();
    }

    #[inline]
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<Got> {
        loop {
            match self.stream.read(into) {
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

    /// Sends both, in this order; returns how many bytes were taken.
    #[inline]
    pub fn write(&mut self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let (mut sent, all) = (0, first.len() + second.len());
        while sent < all && self.writable {
            let result = if sent >= first.len() {
                self.stream.write(&second[sent - first.len()..])
            } else if second.is_empty() {
                self.stream.write(&first[sent..])
            } else {
                self.stream.write_vectored(&[IoSlice::new(&first[sent..]), IoSlice::new(second)])
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

    /// Sends what waits.
    pub fn flush(&mut self, buffer: &mut Buffer) -> io::Result<()> {
        if !buffer.is_empty() && self.writable {
            let sent = self.write(buffer.waiting(), &[])?;
            buffer.advance(sent);
        }
        Ok(())
    }

    /// Says that nothing more is sent.
    pub fn shut(&mut self) {
        if !self.shut {
            self.shut = true;
            // One that is gone already needs no farewell.
            let _ = self.stream.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Has the other end see a reset when the socket is dropped: what it has is not whole.
    pub fn poison(&self) {
        // If it cannot be set the other end sees an end in the middle of a body, or one that was none.
        let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(std::time::Duration::ZERO));
    }
}

/// What a client's connection is about at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A request may come, or a part of its head has.
    Open,
    /// A request is under way.
    Busy,
    /// Bytes go through in both directions.
    Tunnel,
    /// It was answered and ends: what still comes is dropped, so that the answer arrives.
    Linger,
}

/// A client.
pub(crate) struct Client {
    pub socket: Socket,
    pub peer: IpAddr,
    /// The same as text, for those behind us.
    pub name: Box<str>,
    pub phase: Phase,
    /// What was read and is not yet understood.
    pub input: Vec<u8>,
    /// So much of `input` is the beginning of a head that is not whole.
    pub partial: usize,
    /// What the socket has not taken.
    pub output: Buffer,
    pub timer: Timer,
    /// Bytes that a lingering client may still send.
    pub linger: usize,
    pub exchange: Option<Box<Exchange>>,
}

/// A connection to an endpoint.
pub(crate) struct Conn {
    pub socket: Socket,
    /// The endpoint's id.
    pub endpoint: u32,
    /// Whose request it carries; nobody's: it is idle.
    pub client: Option<Key>,
    pub connected: bool,
    /// It carried a request before.
    pub reused: bool,
    pub timer: Timer,
}

/// How far a request's try has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It waits to be tried again.
    Backoff,
    /// Its connection is being made.
    Connecting,
    /// The response has not begun.
    Waiting,
    /// The client has the response's head.
    Responding,
}

/// What a request asks for, as far as its response depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Head,
    Connect,
    /// None: a connection that is passed through.
    Raw,
    Other,
}

impl Method {
    pub fn of(name: &str) -> Method {
        match name {
            "HEAD" => Method::Head,
            "CONNECT" => Method::Connect,
            _ => Method::Other,
        }
    }

    pub const fn word(self) -> &'static str {
        match self {
            Method::Head => "HEAD",
            Method::Connect => "CONNECT",
            Method::Raw | Method::Other => "GET",
        }
    }
}

/// What the access log is told of a request, if it is one of those that it is told of.
pub(crate) struct Told {
    pub method: String,
    pub host: String,
    pub path: String,
    /// Where the last try went.
    pub endpoint: Option<std::net::SocketAddr>,
}

/// A request under way.
pub(crate) struct Exchange {
    pub table: Rc<Table>,
    /// Its route's place in the plan.
    pub route: u32,
    /// Its service's slot.
    pub service: u32,
    pub method: Method,
    pub idempotent: bool,
    pub version: Version,
    /// The client's connection ends with it.
    pub close: bool,
    /// The client would have its connection changed, and may.
    pub upgrade: bool,
    /// When its head was whole.
    pub began: Micros,
    /// When all of it was.
    pub came: Micros,
    /// What keeps it at one endpoint.
    pub key: Option<u64>,
    pub tries: u8,
    pub state: State,
    /// When it is tried again, in [`State::Backoff`].
    pub retry_at: Micros,
    /// When all of it had been sent in this try.
    pub asked: Option<Micros>,
    /// The present try needs a connection that is made for it.
    pub fresh: bool,
    pub ticket: Option<Ticket>,
    pub conn: Option<Key>,
    /// The endpoint that has failed.
    pub except: Option<u32>,
    /// What comes of its body.
    pub request: Relay,
    /// What goes to the endpoint: all of it from the first byte on, while it may be sent again.
    pub outgoing: Buffer,
    /// It is all there.
    pub replayable: bool,
    /// Some of it was sent in this try.
    pub sent_any: bool,
    /// Something of it or of its response has moved since its deadline was set.
    pub moved: bool,
    /// A response's head that is not whole.
    pub incoming: Vec<u8>,
    pub response: Relay,
    pub status: u16,
    /// The connection to the endpoint can be used again, as far as the response says.
    pub reusable: bool,
    pub told: Option<Told>,
}

impl Exchange {
    /// One that goes to this service by this route and has nothing to send yet.
    pub fn new(table: Rc<Table>, route: u32, service: u32, now: Micros) -> Exchange {
        Exchange {
            table,
            route,
            service,
            method: Method::Other,
            idempotent: false,
            version: Version::Http11,
            close: false,
            upgrade: false,
            began: now,
            came: now,
            key: None,
            tries: 0,
            state: State::Backoff,
            retry_at: now,
            asked: None,
            fresh: false,
            ticket: None,
            conn: None,
            except: None,
            request: Relay::new(Body::None, Frame::Plain),
            outgoing: Buffer::default(),
            replayable: true,
            sent_any: false,
            moved: false,
            incoming: Vec::new(),
            response: Relay::new(Body::None, Frame::Plain),
            status: 0,
            reusable: false,
            told: None,
        }
    }
}
