//! Connections that begin with whose they are: the PROXY header of a client that is a proxy, and the one that an endpoint gets.
//!
//! A header is looked at where it lies and only its own bytes are taken, so what comes behind it is read by whoever would
//! have read it without one: TLS, HTTP, or an endpoint. It has the time of a request's head.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use mesh::source::{client, trusts};
use wire::http1::{Request, hops};
use wire::proxied::{HEADER_BYTES_MAX, Header, Path, ProxyVersion};

use crate::buffers::Buffer;
use crate::conn::{Conn, Phase};
use crate::greet::Greeting;
use crate::plan::{ListenerKind, Sources, TlsPlan};
use crate::slab::Key;
use crate::socket::Got;
use crate::worker::{Loop, Step, Table};

/// What is done with a client once it has said whose it is.
pub(crate) struct Arrival {
    pub kind: ListenerKind,
    pub tls: Option<Arc<TlsPlan>>,
    pub sources: Arc<Sources>,
    /// The plan that `kind` is of.
    pub table: Rc<Table>,
}

/// What an endpoint is told of a connection before its own bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Introduction {
    pub version: ProxyVersion,
    /// `None`: nobody knows.
    pub path: Option<Path>,
}

/// The same, on its way.
pub(crate) struct Introduced {
    pub said: Introduction,
    waiting: Buffer,
}

impl Loop {
    /// A client begins with whose it is.
    pub fn begin_introduced(&mut self, key: Key, arrival: Arrival) {
        let Some(client) = self.clients.get(key) else { return };
        client.phase = Phase::Arriving;
        client.arrival = Some(Box::new(arrival));
    }

    /// Reads whose a client's connection is.
    pub fn arriving(&mut self, key: Key) -> Step {
        let Loop { clients, scratch, .. } = self;
        let Some(client) = clients.get(key) else { return Step::Blocked };
        if !client.socket.readable {
            return Step::Blocked;
        }
        let seen = match client.socket.peek(&mut scratch[..HEADER_BYTES_MAX]) {
            Ok(Got::Bytes(n)) => &scratch[..n],
            Ok(Got::Nothing) => return Step::Blocked,
            Ok(Got::End) | Err(_) => return self.unintroduced(key, None),
        };
        let header = match Header::parse(seen) {
            Ok(Some(header)) => header,
            // There is no more to come.
            Ok(None) if client.socket.closing => return self.unintroduced(key, None),
            Ok(None) => {
                // What has come is looked at again when more has, of which another edge tells.
                client.socket.readable = false;
                return Step::Blocked;
            }
            Err(error) => return self.unintroduced(key, Some(&error)),
        };
        match client.socket.read(&mut scratch[..header.bytes]) {
            Ok(Got::Bytes(n)) if n == header.bytes => {}
            Ok(_) | Err(_) => return self.unintroduced(key, None),
        }
        let Some(arrival) = client.arrival.take() else { return Step::Blocked };
        // Of whom nobody says anything nobody is believed.
        client.sources = None;
        if let Some(path) = header.path {
            let peer = path.source.ip().to_canonical();
            (client.peer, client.name) = (peer, peer.to_string().into_boxed_str());
            client.path = Some(Rc::new(path));
            client.sources = trusts(&arrival.sources.trusted, peer).then(|| Arc::clone(&arrival.sources));
        }
        client.phase = Phase::Open;
        let Arrival { kind, tls, table, .. } = *arrival;
        match (tls, kind) {
            (Some(tls), _) => self.begin_tls(key, Greeting { kind, tls, table }),
            (None, ListenerKind::Tcp { service }) => self.begin_raw(key, table.services[service as usize]),
            (None, ListenerKind::Http) => {}
        }
        Step::On
    }

    /// A client says nothing that could be believed.
    fn unintroduced(&mut self, key: Key, error: Option<&(dyn std::error::Error + 'static)>) -> Step {
        if let (Some(error), Some(client)) = (error, self.clients.get(key)) {
            tracing::debug!(%error, client = %client.name, "a client does not say whose its connection is");
        }
        self.meters.unintroduced.increment();
        self.close(key);
        Step::Blocked
    }

    /// Whose a request is: its client's, or whose that says if it is trusted.
    pub fn whose(&mut self, key: Key, head: &Request<'_, '_>) -> std::net::IpAddr {
        let Some(asking) = self.clients.get(key) else { return std::net::Ipv4Addr::UNSPECIFIED.into() };
        match &asking.sources {
            None => asking.peer,
            Some(sources) => client(&sources.trusted, asking.peer, hops(sources.by, head.headers)),
        }
    }

    /// What an endpoint of the service in this slot is told of a client's connection, if it is told anything.
    pub fn introduction(&mut self, key: Key, service: u32) -> Option<Introduction> {
        let version = self.services[service as usize].plan.send_proxy?;
        Some(Introduction { version, path: self.path(key).map(|path| *path) })
    }

    /// Both ends of a client's connection, which it may have been told of.
    pub fn path(&mut self, key: Key) -> Option<Rc<Path>> {
        let client = self.clients.get(key)?;
        if client.path.is_none() {
            let (source, destination) = client.socket.ends()?;
            let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
            let (source, destination) = (canonical(source), canonical(destination));
            client.path = Some(Rc::new(Path { source, destination }));
        }
        client.path.clone()
    }

    /// A connection that waits for a request of the same client as this one: another's was introduced as another's.
    pub fn pooled_of(&mut self, id: u32, said: &Introduction) -> Option<Key> {
        let idle = std::mem::take(&mut self.endpoint(id).idle);
        let is_same = |key: &Key| self.conns.get(*key).is_some_and(|conn| conn.is_introduced_as(Some(said)));
        let found = idle.iter().copied().rev().find(is_same);
        self.endpoint(id).idle = idle;
        self.endpoint(id).idle.retain(|one| Some(*one) != found);
        found
    }

    /// This is the first that a connection says.
    pub fn introduce(&mut self, key: Key, said: Introduction) {
        let mut waiting = Buffer::default();
        Header::write(said.version, said.path.as_ref(), &mut waiting.bytes);
        if let Some(conn) = self.conns.get(key) {
            conn.introduced = Some(Box::new(Introduced { said, waiting }));
        }
    }
}

impl Conn {
    /// Sends what is said first. False: not all of it has gone.
    pub fn say_first(&mut self) -> std::io::Result<bool> {
        let Some(introduced) = &mut self.introduced else { return Ok(true) };
        self.socket.flush(&mut introduced.waiting)?;
        Ok(introduced.waiting.is_empty())
    }

    /// Whether it is that, or nothing, which was said first.
    pub fn is_introduced_as(&self, said: Option<&Introduction>) -> bool {
        self.introduced.as_ref().map(|introduced| &introduced.said) == said
    }

    /// In which version something was said first.
    pub fn introduced_in(&self) -> Option<ProxyVersion> {
        self.introduced.as_ref().map(|introduced| introduced.said.version)
    }
}
