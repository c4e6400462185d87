//! One connection: its socket, its TLS, and how far it has come.

use std::io::{self, Write};
use std::net::SocketAddr;

use kernel::{Micros, NodeId, Spoken};
use mio::net::TcpStream;
use rustls::Connection;
use rustls::server::Acceptor;

use super::Lane;
use super::door::Source;
use super::frame::{self, Decoder, Kind};
use super::settle::Side;
use super::stall::Watch;
use crate::join::Token;

/// TLS gets the queue in pieces of so many bytes, and holds no more of it.
const PIECE_BYTES: usize = 64 * 1024;
/// A queue's memory above this is given back when it is empty.
const QUEUE_BYTES_KEPT: usize = 256 * 1024;

/// A connection of any kind and stage.
pub(crate) struct Conn {
    pub wire: Wire,
    pub state: State,
}

/// What bytes go through.
pub(crate) struct Wire {
    pub stream: TcpStream,
    pub tls: Tls,
    pub decoder: Decoder,
}

/// The TLS of a connection.
pub(crate) enum Tls {
    /// Nothing was read that tells which protocol the client wants.
    Accepting(Box<Acceptor>),
    Open(Box<Connection>),
}

/// What is known of a connection.
pub(crate) struct State {
    pub stage: Stage,
    pub address: SocketAddr,
    /// Unique in the process.
    pub serial: u64,
    /// The door counts its handshake for this source.
    pub admitted: Option<Source>,
    pub watch: Watch,
    /// Frames that TLS has not taken; the first `sent` bytes it has.
    pub out: Vec<u8>,
    pub sent: usize,
    /// It is on the list of those that are written at the end of the turn.
    pub dirty: bool,
    /// A frame was refused because too many bytes waited.
    pub refused: bool,
    /// The host takes no frames now.
    pub held: bool,
}

/// What this node wants of a connection that it began.
#[derive(Clone)]
pub(crate) struct Dial {
    pub node: NodeId,
    pub aim: Aim,
}

#[derive(Clone)]
pub(crate) enum Aim {
    Link(Lane),
    Join(Box<(Token, Vec<u8>)>),
}

/// How far it has come.
pub(crate) enum Stage {
    /// We dialled; TCP is not connected.
    Connecting(Dial),
    /// TLS is not done; of a dial, or of a client.
    Handshake(Option<Dial>),
    /// A client has proven its key, and its first frame is awaited.
    Greeting(Client),
    /// We have sent our first frame and await the answer.
    Greeted(Dial),
    /// A link.
    Up(Up),
    /// A client's request to join waits for the cluster's answer.
    Joining,
    /// It is closed when its last bytes are sent.
    Ending,
}

/// A client that has proven its key.
#[derive(Clone, Copy)]
pub(crate) enum Client {
    Member(NodeId),
    Newcomer { node: NodeId, binding: [u8; 32] },
}

/// A link.
#[derive(Clone, Copy)]
pub(crate) struct Up {
    pub node: NodeId,
    pub lane: Lane,
    pub dialled: Side,
    pub incarnation: u64,
    pub spoken: Spoken,
    pub since: Micros,
}

/// What a flush did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flushed {
    /// Bytes that the socket took.
    pub bytes: usize,
    /// The socket takes no more now.
    pub waiting: bool,
    /// The turn's share is used, and the socket would take more.
    pub more: bool,
}

impl State {
    pub fn new(stage: Stage, address: SocketAddr, serial: u64, now: Micros) -> State {
        State {
            stage,
            address,
            serial,
            admitted: None,
            watch: Watch::new(now),
            out: Vec::new(),
            sent: 0,
            dirty: false,
            refused: false,
            held: false,
        }
    }

    /// Bytes of frames that TLS has not taken.
    #[inline]
    pub fn queued(&self) -> usize {
        self.out.len() - self.sent
    }

    pub fn queue(&mut self, kind: Kind, payload: &[u8]) {
        frame::encode(kind, payload, &mut self.out);
    }

    /// The lane, of a link.
    pub fn lane(&self) -> Option<Lane> {
        match &self.stage {
            Stage::Up(up) => Some(up.lane),
            _ => None,
        }
    }

    /// The member at the other end, once it is known or claimed. Newcomers are nobody yet.
    pub fn member(&self) -> Option<NodeId> {
        match &self.stage {
            Stage::Up(up) => Some(up.node),
            Stage::Greeting(Client::Member(node)) => Some(*node),
            Stage::Connecting(dial) | Stage::Handshake(Some(dial)) | Stage::Greeted(dial) => match dial.aim {
                Aim::Link(_) => Some(dial.node),
                Aim::Join(_) => None,
            },
            Stage::Handshake(None)
            | Stage::Greeting(Client::Newcomer { .. })
            | Stage::Joining
            | Stage::Ending => None,
        }
    }

    /// Removes what TLS has taken.
    fn compact(&mut self) {
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
            if self.out.capacity() > QUEUE_BYTES_KEPT {
                self.out = Vec::new();
            }
        } else if self.sent > self.out.len() / 2 {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }
}

impl Conn {
    /// Writes what waits, at most about `budget` bytes of frames.
    pub fn flush(&mut self, budget: usize) -> io::Result<Flushed> {
        let mut flushed = Flushed::default();
        let Tls::Open(tls) = &mut self.wire.tls else { return Ok(flushed) };
        let mut left = budget;
        loop {
            while tls.wants_write() {
                match tls.write_tls(&mut self.wire.stream) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(n) => flushed.bytes += n,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        flushed.waiting = true;
                        self.state.compact();
                        return Ok(flushed);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            let piece = self.state.queued().min(PIECE_BYTES).min(left);
            if piece == 0 {
                flushed.more = self.state.queued() > 0;
                self.state.compact();
                return Ok(flushed);
            }
            let from = self.state.sent;
            let taken = tls.writer().write(&self.state.out[from..from + piece])?;
            self.state.sent += taken;
            left -= taken;
        }
    }

    /// True when nothing waits to be sent.
    pub fn is_flushed(&self) -> bool {
        let held = matches!(&self.wire.tls, Tls::Open(tls) if tls.wants_write());
        !held && self.state.queued() == 0
    }
}
