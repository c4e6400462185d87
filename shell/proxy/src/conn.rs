//! What there is of a client and of a connection to an endpoint: sockets, bytes under way, and the request between them.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use kernel::{Micros, NodeId};
use mesh::queue::Place;
use mesh::upstream::Ticket;
use wire::http1::{Body, Frame, Relay, Version};
use wire::proxied::Path;

use crate::buffers::Buffer;
use crate::greet::Greeting;
use crate::h2::{Session, Trunk};
use crate::introduce::{Arrival, Introduced};
use crate::members::Member;
use crate::plan::Sources;
use crate::slab::Key;
use crate::socket::Socket;
use crate::spans::Recorded;
use crate::sticky::Stays;
use crate::timers::Timer;
use crate::tls::ClientTls;
use crate::worker::Table;

/// What a client's connection is about at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Whose it is is awaited.
    Arriving,
    /// Its first message is awaited, which says whether its TLS is opened here.
    Hello,
    /// Its TLS is being agreed on.
    Shaking,
    /// A request may come, or a part of its head has.
    Open,
    /// A request is under way.
    Busy,
    /// It speaks HTTP/2: its requests are clients of their own.
    Streams,
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
    /// What is done with it when it has said whose it is.
    pub arrival: Option<Box<Arrival>>,
    /// Both ends of its connection, if somebody has asked for them.
    pub path: Option<Rc<Path>>,
    /// It is a proxy that is trusted.
    pub sources: Option<Arc<Sources>>,
    /// What its listener does with TLS, until that is done.
    pub greeting: Option<Box<Greeting>>,
    /// Its requests, if it speaks HTTP/2.
    pub session: Option<Box<Session>>,
    /// Its bytes come in TLS.
    pub is_secured: bool,
    /// It has proven to be a member of the cluster.
    pub member: Option<Rc<Member>>,
    /// It has asked for something.
    pub has_asked: bool,
    /// It is nobody: what is asked is a copy of another's request.
    pub is_mirror: bool,
}

impl Client {
    /// One that may ask for something.
    pub fn new(socket: Socket, peer: IpAddr, name: Box<str>, timer: Timer) -> Client {
        Client {
            socket,
            peer,
            name,
            phase: Phase::Open,
            input: Vec::new(),
            partial: 0,
            output: Buffer::default(),
            timer,
            linger: 0,
            exchange: None,
            arrival: None,
            path: None,
            sources: None,
            greeting: None,
            session: None,
            is_secured: false,
            member: None,
            has_asked: false,
            is_mirror: false,
        }
    }

    /// Whether something waits for it that its socket has not taken.
    pub fn is_behind(&self) -> bool {
        !self.output.is_empty() || self.socket.holds()
    }
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
    /// How it is secured.
    pub tls: Option<ClientTls>,
    /// Who has proven to be at its other end, where that is a member of the cluster.
    pub member: Option<NodeId>,
    /// What it begins with.
    pub introduced: Option<Box<Introduced>>,
    /// Its requests, if it is one of HTTP/2.
    pub trunk: Option<Box<Trunk>>,
    pub timer: Timer,
}

/// How far a request's try has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It waits to be tried again.
    Backoff,
    /// It waits for room at its service.
    Queued,
    /// It has room, and is tried in this turn.
    Granted,
    /// Its place in the queue is a more important one's, and its client is told in this turn.
    Displaced,
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

/// What is told of a request, if it is one of those of which something is.
pub(crate) struct Told {
    /// It has a line in the access log.
    pub is_logged: bool,
    /// It is a span.
    pub recorded: Option<Recorded>,
    /// Whose it is.
    pub client: IpAddr,
    /// It came in TLS.
    pub is_secured: bool,
    pub method: String,
    pub host: String,
    pub path: String,
    /// The member that has asked.
    pub member: Option<Rc<Member>>,
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
    /// Where it waits, or waited, for room that it has not used.
    pub place: Option<Place>,
    pub conn: Option<Key>,
    /// Where it should go, as its cookie says.
    pub stays: Stays,
    /// The endpoint that has failed.
    pub except: Option<u32>,
    /// What comes of its body.
    pub request: Relay,
    /// What goes to the endpoint: all of it from the first byte on, while it may be sent again.
    pub outgoing: Buffer,
    /// It is to be copied once it is whole.
    pub mirrors: bool,
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
            place: None,
            conn: None,
            stays: Stays::default(),
            except: None,
            request: Relay::new(Body::None, Frame::Plain),
            outgoing: Buffer::default(),
            mirrors: false,
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
