//! Clients as they come: from listeners, and as streams of connections that there are.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use mesh::source::trusts;
use mio::net::TcpStream;
use mio::{Interest, Token};

use super::{CLIENT, KIND_SHIFT, Loop};
use crate::conn::Client;
use crate::greet::Greeting;
use crate::introduce::Arrival;
use crate::plan::{ListenerKind, ListenerPlan};
use crate::slab::Key;
use crate::socket::Socket;
use crate::timers::{Timer, Whose};

/// Clients that are accepted in one turn.
const ACCEPTS_MAX: usize = 64;
/// How long accepting pauses when there are no descriptors or too many clients, in milliseconds.
const PAUSE_MS: u64 = 100;

impl Loop {
    pub(super) fn accept(&mut self, key: Key) {
        for _ in 0..ACCEPTS_MAX {
            if self.guests() >= self.clients_max {
                return self.pause();
            }
            let Some(listening) = self.listeners.get(key) else { return };
            match listening.socket.accept() {
                Ok((stream, peer)) => {
                    let plan = Rc::clone(&listening.plan);
                    self.admit(stream, peer.ip().to_canonical(), &plan);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        tracing::warn!(%error, "accepting clients pauses");
                        return self.pause();
                    }
                },
            }
        }
        // The rest waits for the next turn, without another edge.
        self.accept_at = Some(self.now);
    }

    /// Others must go first. Clients wait in the kernel meanwhile.
    fn pause(&mut self) {
        self.meters.pauses.increment();
        self.accept_at = Some(self.now.plus_millis(PAUSE_MS));
    }

    fn admit(&mut self, mut stream: TcpStream, peer: IpAddr, plan: &ListenerPlan) {
        let trusted = plan.sources.as_ref().filter(|sources| trusts(&sources.trusted, peer));
        if trusted.is_none() && plan.sources.as_ref().is_some_and(|sources| sources.accept_proxy) {
            tracing::debug!(%peer, listener = plan.name, "a client is refused that is not trusted to say whose it is");
            return self.meters.untrusted.increment();
        }
        let key = self.clients.reserve();
        let token = Token(CLIENT << KIND_SHIFT | key.to_bits());
        let both = Interest::READABLE | Interest::WRITABLE;
        // A client that is gone already is as good as none.
        let taken =
            stream.set_nodelay(true).and_then(|()| self.poll.registry().register(&mut stream, token, both));
        if let Err(error) = taken {
            tracing::debug!(%error, "a client could not be taken");
            self.clients.remove(key);
            return;
        }
        self.meters.accepted.increment();
        let mut timer = Timer::default();
        let deadline = self.now.plus_millis(self.table.plan.limits.head_ms);
        self.timers.set(&mut timer, Whose::Client(key), deadline);
        let name = peer.to_string().into_boxed_str();
        let mut client = Client::new(Socket::new(stream), peer, name, timer);
        client.sources = trusted.cloned();
        self.clients.fill(key, client);
        let (kind, tls, table) = (plan.kind, plan.tls.clone(), Rc::clone(&self.table));
        match (trusted.filter(|sources| sources.accept_proxy).cloned(), tls) {
            (Some(sources), tls) => self.begin_introduced(key, Arrival { kind, tls, sources, table }),
            (None, Some(tls)) => self.begin_tls(key, Greeting { kind, tls, table }),
            (None, None) => self.begin_plain(key, kind),
        }
    }

    /// A stream of a client, which is a client by itself. `None`: there are too many.
    pub fn admit_stream(&mut self, of: Key, socket: Socket) -> Option<Key> {
        if self.guests() >= self.clients_max {
            return None;
        }
        let key = self.clients.reserve();
        let (mut timer, deadline) = (Timer::default(), self.now.plus_millis(self.table.plan.limits.head_ms));
        self.timers.set(&mut timer, Whose::Client(key), deadline);
        // A stream has no ends of its own to be asked for.
        let path = if self.table.introduces { self.path(of) } else { None };
        let Some(client) = self.clients.get(of) else {
            self.clients.remove(key);
            return None;
        };
        let (is_secured, member) = (client.is_secured, client.member.clone());
        let mut stream = Client::new(socket, client.peer, client.name.clone(), timer);
        (stream.path, stream.sources) = (path.or_else(|| client.path.clone()), client.sources.clone());
        (stream.is_secured, stream.member, stream.socket.readable) = (is_secured, member, true);
        self.clients.fill(key, stream);
        Some(key)
    }

    /// A client whose bytes are at hand.
    fn begin_plain(&mut self, key: Key, kind: ListenerKind) {
        if let ListenerKind::Tcp { service } = kind {
            self.begin_raw(key, self.table.services[service as usize]);
        }
    }
}
