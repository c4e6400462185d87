//! Requests that wait for room at their service, which has as many under way as it may have.
//!
//! Nothing is read of a client whose request waits: it waits in the kernel. Who has room goes on at the end of the turn.

use mesh::limit::Priority;

use crate::answer::Reason;
use crate::conn::{Exchange, State};
use crate::slab::Key;
use crate::timers::Whose;
use crate::worker::{Loop, Step};

impl Loop {
    /// A request that found no room waits for it, if it may. The reason why not.
    pub fn queue_up(&mut self, key: Key, x: &mut Exchange) -> Result<Step, Reason> {
        let now = self.now;
        let service = &mut self.services[x.service as usize];
        let options = service.upstream.waiting().options();
        if options.places == 0 {
            return Err(Reason::TooMany);
        }
        let class =
            x.table.plan.routes.get(x.route as usize).map_or(Priority::Normal, |route| route.priority);
        let place = service.upstream.queue(class, key.to_bits() as u64).map_err(|_| Reason::QueueFull)?;
        service.count_queued();
        (x.state, x.place) = (State::Queued, Some(place));
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
        while let Some(who) = self.services[service as usize].upstream.grant() {
            self.granted(Key::from_bits(who as usize));
        }
    }

    fn granted(&mut self, key: Key) {
        let exchange = self.clients.get(key).and_then(|client| client.exchange.as_mut());
        exchange.expect("who waits has said so when it left").state = State::Granted;
        self.again.push(key);
    }
}
