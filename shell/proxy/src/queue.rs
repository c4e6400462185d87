//! Requests that wait for room at their service, which has as many under way as it may have.
//!
//! Nothing is read of a client whose request waits: it waits in the kernel. Who has room goes on at the end of the turn.

use mesh::limit::Priority;
use mesh::queue::NoPlace;

use crate::answer::Reason;
use crate::conn::{Exchange, State};
use crate::slab::Key;
use crate::timers::Whose;
use crate::worker::{Loop, Step};

/// A client is told to come again in no more than this, in seconds: overloads end.
const RETRY_SECONDS_MAX: u64 = 30;

/// How important a request is. Connections that are passed through are as most are.
fn class(x: &Exchange) -> Priority {
    x.table.plan.routes.get(x.route as usize).map_or(Priority::Normal, |route| route.priority)
}

impl Loop {
    /// A request that found no room waits for it, if it may. The reason why not, and after how many seconds it may go
    /// better.
    pub fn queue_up(&mut self, key: Key, x: &mut Exchange) -> Result<Step, (Reason, u64)> {
        let now = self.now;
        let service = &mut self.services[x.service as usize];
        let options = service.upstream.waiting().options();
        if options.places == 0 {
            return Err((Reason::TooMany, 1));
        }
        let waits = service.upstream.queue(now, class(x), key.to_bits() as u64).map_err(|why| match why {
            NoPlace::Full { .. } => (Reason::QueueFull, 1),
            NoPlace::Late { micros } => {
                (Reason::QueueLate, micros.div_ceil(1_000_000).min(RETRY_SECONDS_MAX))
            }
        })?;
        service.count_queued();
        (x.state, x.place) = (State::Queued, Some(waits.place));
        if let Some(who) = waits.displaced {
            self.displaced(Key::from_bits(who as usize));
        }
        if let Some(client) = self.clients.get(key) {
            self.timers.set(&mut client.timer, Whose::Client(key), now.plus_millis(options.wait_ms));
        }
        Ok(Step::Blocked)
    }

    /// A request waits no more, or does not use the room that it was granted.
    pub fn leave_queue(&mut self, x: &mut Exchange) {
        if let Some(place) = x.place.take() {
            self.services[x.service as usize].upstream.unqueue(place);
            self.grant(x.service);
        }
    }

    /// Has those go on who wait for a service and have room now.
    #[inline]
    pub fn grant(&mut self, service: u32) {
        while let Some(who) = self.services[service as usize].upstream.grant(self.now) {
            self.granted(Key::from_bits(who as usize));
        }
    }

    /// A tunnel does not take room of those whose requests end.
    pub fn lasts(&mut self, x: &mut Exchange) {
        if let Some(ticket) = &mut x.ticket {
            self.services[x.service as usize].upstream.lasts(self.now, ticket);
            self.grant(x.service);
        }
    }

    /// Counts a request that was not sent to its service, if that was to spare it.
    pub fn count_shed(&self, x: &Exchange, reason: Reason) {
        if reason.is_shed() {
            self.services[x.service as usize].count_shed(class(x));
        }
    }

    fn displaced(&mut self, key: Key) {
        let exchange = self.clients.get(key).and_then(|client| client.exchange.as_mut());
        let exchange = exchange.expect("who waits has said so when it left");
        (exchange.state, exchange.place) = (State::Displaced, None);
        self.again.push(key);
    }

    fn granted(&mut self, key: Key) {
        let exchange = self.clients.get(key).and_then(|client| client.exchange.as_mut());
        exchange.expect("who waits has said so when it left").state = State::Granted;
        self.again.push(key);
    }
}
