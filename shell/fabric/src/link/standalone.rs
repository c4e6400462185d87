//! Links with an event loop of their own: for tests and benches, and for a node that only joins.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use kernel::{Micros, NodeId};
use mio::{Events, Poll, Token, Waker};

use super::links::{Links, Settings, TokenRange};
use super::{Lane, Members};
use crate::identity::Identity;

const WAKER: Token = Token(0);
const EVENTS_MAX: usize = 256;

/// A loop for links.
pub struct Standalone {
    poll: Poll,
    events: Events,
    /// The links.
    pub links: Links,
}

impl Standalone {
    /// Links of `identity` with the `members`, at most `connections_max` connections at once.
    ///
    /// # Errors
    /// The kernel refused what every event loop needs.
    pub fn new(
        identity: &Identity,
        members: &Arc<Members>,
        settings: Settings,
        connections_max: usize,
        listener: Option<TcpListener>,
    ) -> io::Result<Standalone> {
        let poll = Poll::new()?;
        members.watch(Arc::new(Waker::new(poll.registry(), WAKER)?));
        let tokens = TokenRange { first: 1, connections_max };
        let registry = poll.registry().try_clone()?;
        let links = Links::new(identity, Arc::clone(members), settings, tokens, registry, listener)?;
        Ok(Standalone { poll, events: Events::with_capacity(EVENTS_MAX), links })
    }

    /// Waits at most `wait`, then does one turn at `now()`. The caller sends in between, and calls
    /// [`Standalone::end_turn`].
    ///
    /// # Errors
    /// The kernel refused to wait.
    pub fn begin_turn(
        &mut self,
        wait: Duration,
        now: impl FnOnce() -> Micros,
        receive: &mut dyn FnMut(NodeId, Lane, &[u8]),
    ) -> io::Result<Micros> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let now = now();
        for event in self.events.iter().filter(|event| event.token() != WAKER) {
            self.links.ready(now, event, receive);
        }
        Ok(now)
    }

    /// Ends the turn; see [`Links::end_turn`].
    pub fn end_turn(&mut self, now: Micros, receive: &mut dyn FnMut(NodeId, Lane, &[u8])) -> bool {
        self.links.end_turn(now, receive)
    }
}
