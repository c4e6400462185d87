//! Copies of requests, for a service whose answers nobody gets.
//!
//! A copy is a client by itself, whose socket is nobody's: it has limits, a breaker, a queue and tries of its own service,
//! and nothing that becomes of it is seen by the request that it was made of. It is made when that request is whole and has
//! been sent on its way, of the bytes that are kept for another try; one that is too large for that is not copied.

use std::rc::Rc;

use wire::http1::{Body, Frame, Relay};

use crate::conn::{Client, Exchange};
use crate::slab::Key;
use crate::socket::Socket;
use crate::timers::Timer;
use crate::worker::Loop;

/// Copies under way at once, of one thread.
const MIRRORS_MAX: usize = 256;

impl Loop {
    /// Whether a request by this route is to be copied.
    pub fn is_mirrored(&mut self, x: &Exchange) -> bool {
        let mirror = x.table.plan.routes.get(x.route as usize).and_then(|route| route.mirror);
        mirror.is_some_and(|mirror| mirror.percent >= 100 || self.rng.below(100) < u64::from(mirror.percent))
    }

    /// Sends a copy of a request to the service that its route names, if the request is whole by now.
    pub fn mirror(&mut self, key: Key, x: &mut Exchange) {
        if !x.request.has_ended() {
            return;
        }
        x.mirrors = false;
        let Some(mirror) = x.table.plan.routes.get(x.route as usize).and_then(|route| route.mirror) else {
            return;
        };
        if !x.replayable || self.mirrors >= MIRRORS_MAX {
            return self.meters.mirrors_dropped.increment();
        }
        let service = x.table.services[mirror.service as usize];
        let told = self.services[service as usize].plan.send_proxy.is_some();
        let path = if told { self.path(key) } else { None };
        let Some(client) = self.clients.get(key) else { return };
        let mut copy = Client::new(Socket::nobody(), client.peer, client.name.clone(), Timer::default());
        (copy.is_mirror, copy.path) = (true, path);
        let copied = self.clients.reserve();
        self.clients.fill(copied, copy);
        self.mirrors += 1;
        self.meters.mirrored.increment();
        let mut exchange = Exchange::new(Rc::clone(&x.table), u32::MAX, service, self.now);
        (exchange.method, exchange.key, exchange.close) = (x.method, x.key, true);
        exchange.request = Relay::new(Body::None, Frame::Plain);
        self.buffers.extend(&mut exchange.outgoing, &x.outgoing.bytes);
        self.start(copied, exchange);
        self.again.push(copied);
    }

    /// Clients that are somebody.
    pub fn guests(&self) -> usize {
        self.clients.len() - self.mirrors
    }
}
