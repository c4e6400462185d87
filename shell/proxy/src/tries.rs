//! The tries of a request: where it goes, when it goes again, and how it ends.

use kernel::Micros;
use mesh::Outcome;
use mesh::breaker::Refused;
use mesh::retry::{Progress, RetryOptions, Try, Verdict};
use mesh::upstream::{Refusal, Turn, Wanted};

use crate::answer::{Answer, Reason};
use crate::conn::{Exchange, Method, Phase, State};
use crate::introduce::Introduction;
use crate::mutual::not_taken;
use crate::slab::Key;
use crate::socket::Got;
use crate::timers::Whose;
use crate::tls::ClientTls;
use crate::worker::{Loop, Step};

/// How a try failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    pub reason: Reason,
    pub outcome: Outcome,
    pub progress: Progress,
}

impl Failed {
    pub const fn new(reason: Reason, progress: Progress) -> Failed {
        Failed { reason, outcome: Outcome::Failure, progress }
    }

    pub const fn late(progress: Progress) -> Failed {
        Failed { reason: Reason::Timeout, outcome: Outcome::Timeout, progress }
    }
}

impl Loop {
    /// Sends a request to an endpoint, for the first time or again.
    pub fn try_once(&mut self, key: Key, x: &mut Exchange) -> Step {
        let now = self.now;
        let turn = if x.place.take().is_none() { Turn::New } else { Turn::Granted };
        if turn == Turn::Granted {
            // The wait has a bound of its own, and is not the endpoint's.
            x.came = now;
        }
        let wanted = Wanted { key: x.key, stays: self.stays_at(x), except: x.except, turn };
        let upstream = &mut self.services[x.service as usize].upstream;
        let ticket = match upstream.enter_as(now, &wanted) {
            Ok(ticket) => ticket,
            Err(refusal) => return self.refused(key, x, refusal),
        };
        let id = ticket.id;
        let endpoint = self.endpoint(id);
        endpoint.users += 1;
        if let Some(told) = &mut x.told {
            told.endpoint = Some(endpoint.address);
        }
        (x.state, x.asked) = (State::Backoff, None);
        x.tries = x.tries.saturating_add(1);
        x.ticket = Some(ticket);
        (x.sent_any, x.outgoing.sent) = (false, 0);
        x.incoming.clear();
        let is_http1 = x.upgrade || matches!(x.method, Method::Raw | Method::Connect);
        let http2 = self.services[x.service as usize].plan.http2 && !is_http1;
        let said = self.introduction(key, x.service);
        // What rests there speaks HTTP/1.1: it was made for an upgrade that the service refused.
        if !x.fresh
            && !http2
            && let Some(conn) = self.pooled(id, said.as_ref(), x.idempotent)
        {
            self.join(key, conn, x);
            (x.state, x.moved) = (State::Waiting, true);
            // What came behind the head is not at hand here.
            return Step::On;
        }
        if let Err(refused) = self.services[x.service as usize].upstream.wait() {
            return self.refused(key, x, Refusal::Breaker(refused));
        }
        match if http2 { self.call(id) } else { self.connect(id) } {
            Ok(conn) => {
                self.join(key, conn, x);
                if is_http1 {
                    self.speak_no_http2(conn, x.upgrade);
                }
                if let Some(said) = said {
                    self.introduce(conn, said);
                }
                x.state = State::Connecting;
                self.arm(key, x);
                // A stream of a connection that is there already is told of by no event.
                if http2 { Step::On } else { Step::Blocked }
            }
            Err(error) => {
                self.waited(x);
                // Not the endpoint's fault.
                let ours = matches!(error.raw_os_error(), Some(23 | 24))
                    || error.kind() == std::io::ErrorKind::OutOfMemory;
                let failed = Failed::new(Reason::ConnectFailed, Progress::Unconnected);
                let outcome = if ours { Outcome::Abandoned } else { failed.outcome };
                let reason = if ours { Reason::NoDescriptors } else { failed.reason };
                self.failed(key, x, Failed { reason, outcome, ..failed })
            }
        }
    }

    /// A connection that is being made is for HTTP/1.1, which alone can change to another protocol, or for bytes of which
    /// nothing is known, whatever its service is asked in otherwise.
    fn speak_no_http2(&mut self, key: Key, http1: bool) {
        let Some(conn) = self.conns.get(key) else { return };
        let otherwise = if http1 { ClientTls::for_http1 } else { ClientTls::for_bytes };
        conn.tls = conn.tls.as_ref().map(otherwise);
    }

    /// A connection to the endpoint that waits for a request.
    fn pooled(&mut self, id: u32, said: Option<&Introduction>, idempotent: bool) -> Option<Key> {
        loop {
            let key = match said {
                None => self.endpoint(id).idle.pop()?,
                Some(said) => self.pooled_of(id, said)?,
            };
            let Some(conn) = self.conns.get(key) else { continue };
            // What must not be sent twice is not sent on a connection that is closed already.
            if (conn.socket.readable || !idempotent) && !self.is_quiet(key) {
                self.remove_conn(key);
                continue;
            }
            return Some(key);
        }
    }

    fn join(&mut self, client: Key, key: Key, x: &mut Exchange) {
        x.conn = Some(key);
        if let Some(conn) = self.conns.get(key) {
            conn.client = Some(client);
        }
    }

    /// Whether nothing has come on a connection that waits for a request, not even its end.
    pub fn is_quiet(&mut self, key: Key) -> bool {
        self.conns.get(key).is_some_and(|conn| matches!(conn.socket.read(&mut [0]), Ok(Got::Nothing)))
    }

    pub fn remove_conn(&mut self, key: Key) {
        if let Some(conn) = self.conns.remove(key) {
            self.let_go(conn.endpoint);
        }
    }

    pub fn drop_idle(&mut self, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        let endpoint = conn.endpoint;
        self.endpoint(endpoint).idle.retain(|other| *other != key);
        self.remove_conn(key);
    }

    /// The connection of a request that was not refused for the last time waits no more to be made.
    fn waited(&mut self, x: &Exchange) {
        if let Some(ticket) = &x.ticket {
            self.services[x.service as usize].upstream.waited(ticket);
        }
    }

    /// Whether the connection is there by now; an error if it will not be.
    pub fn connected(&mut self, key: Key, x: &mut Exchange) -> Result<bool, Failed> {
        let failed = Failed::new(Reason::ConnectFailed, Progress::Unconnected);
        let Some(conn) = x.conn else { return Err(failed) };
        if !self.secured(conn)? {
            return Ok(false);
        }
        if let Some(conn) = self.conns.get(conn) {
            conn.connected = true;
        }
        self.waited(x);
        (x.state, x.moved) = (State::Waiting, true);
        match x.method {
            Method::Raw | Method::Connect => self.tunnelled(key, x),
            Method::Head | Method::Other => {}
        }
        Ok(true)
    }

    /// Whether a connection that was begun is there, with its TLS if it has any.
    pub fn secured(&mut self, key: Key) -> Result<bool, Failed> {
        let failed = Failed::new(Reason::ConnectFailed, Progress::Unconnected);
        let Some(endpoint) = self.conns.get(key).map(|conn| conn.endpoint) else { return Err(failed) };
        let (address, node) = (self.endpoint(endpoint).address, self.endpoint(endpoint).node);
        let Some(conn) = self.conns.get(key) else { return Err(failed) };
        if conn.socket.tls().is_none() {
            if !conn.socket.is_connected().map_err(|_| failed)? {
                return Ok(false);
            }
            if !conn.say_first().map_err(|_| failed)? {
                return Ok(false);
            }
            if let Some(tls) = &conn.tls {
                conn.socket.wrap(tls.begin(address.ip(), node).map_err(|_| failed)?);
            }
        }
        let shaken = conn.socket.shake().map_err(|error| {
            match not_taken(&error) {
                Some(reason) => {
                    tracing::warn!(%reason, %address, "an endpoint is not the node that it must be")
                }
                None => tracing::debug!(%error, %address, "an endpoint's TLS cannot be agreed on"),
            }
            Failed { reason: Reason::TlsFailed, ..failed }
        })?;
        if shaken {
            self.name_conn(key).map_err(|_| Failed { reason: Reason::TlsFailed, ..failed })?;
        }
        Ok(shaken)
    }

    /// The service does not take it now.
    fn refused(&mut self, key: Key, x: &mut Exchange, refusal: Refusal) -> Step {
        let now = self.now;
        self.end_try(x, Outcome::Abandoned);
        // What it was granted it has not used.
        self.grant(x.service);
        let (reason, until) = match refusal {
            Refusal::Breaker(Refused::Open { until }) => (Reason::BreakerOpen, Some(until)),
            Refusal::Breaker(Refused::Probing) => (Reason::BreakerOpen, None),
            Refusal::Breaker(Refused::TooMany { .. }) => match self.queue_up(key, x) {
                Ok(step) => return step,
                Err((reason, seconds)) => return self.answered(key, x, reason, Some(seconds)),
            },
            Refusal::Breaker(Refused::TooManyPending { .. }) => (Reason::TooMany, None),
            Refusal::NoEndpoint => (Reason::NoEndpoint, None),
        };
        let seconds = |until: Micros| until.since(now).div_ceil(1_000_000).max(1);
        self.answered(key, x, reason, until.map(seconds).or(Some(1)))
    }

    /// A try has failed: the request goes again, or its client is told.
    pub fn failed(&mut self, key: Key, x: &mut Exchange, failed: Failed) -> Step {
        let now = self.now;
        if x.state == State::Connecting {
            self.waited(x);
        }
        let endpoint = x.ticket.as_ref().map(|ticket| ticket.id);
        self.drop_conn(x);
        self.end_try(x, failed.outcome);
        if x.state == State::Responding {
            return self.cut(key, x, failed.reason);
        }
        let last = Try {
            number: x.tries,
            outcome: if failed.outcome.is_failure() { failed.outcome } else { Outcome::Failure },
            idempotent: x.idempotent,
            replayable: x.replayable,
            progress: failed.progress,
            came: x.came,
        };
        let options = self.retry_options(x);
        match self.services[x.service as usize].upstream.again(now, &options, &last) {
            Verdict::Stop => self.answered(key, x, failed.reason, None),
            Verdict::Fresh => {
                x.fresh = true;
                self.later(key, x, now)
            }
            Verdict::Again(at) => {
                x.except = endpoint;
                self.later(key, x, at)
            }
        }
    }

    pub fn retry_options(&self, x: &Exchange) -> RetryOptions {
        match x.table.plan.routes.get(x.route as usize) {
            Some(route) => route.retry,
            None => self.services[x.service as usize].plan.retry,
        }
    }

    /// The client is told in the place of the service.
    pub fn answered(&mut self, key: Key, x: &mut Exchange, reason: Reason, retry_after: Option<u64>) -> Step {
        self.drop_conn(x);
        self.count_shed(x, reason);
        let answer = Answer { retry_after, bare: x.method == Method::Head, ..Answer::of(reason) };
        x.status = answer.status;
        self.tell_of(x, Some(reason));
        if x.method == Method::Raw {
            self.meters.answered[reason as usize].increment();
            if let Some(client) = self.clients.get(key) {
                client.socket.poison();
            }
            self.close(key);
            return Step::Finished;
        }
        self.answer(key, Answer { close: x.close || !x.request.has_ended(), ..answer });
        Step::Finished
    }

    /// The client has a part of the response and does not get the rest: it must not take that for the whole.
    pub fn cut(&mut self, key: Key, x: &mut Exchange, reason: Reason) -> Step {
        self.drop_conn(x);
        self.tell_of(x, Some(reason));
        if let Some(client) = self.clients.get(key) {
            client.socket.poison();
        }
        self.close(key);
        Step::Finished
    }

    /// The response is whole, and the client has it or will have.
    pub fn finished(&mut self, key: Key, x: &mut Exchange) -> Step {
        let outcome = if x.status >= 500 { Outcome::Failure } else { Outcome::Success };
        self.end_try(x, outcome);
        self.release(x);
        self.tell_of(x, None);
        let idle_ms = self.table.plan.limits.idle_ms;
        let stopping = self.stop_at.is_some();
        let Some(client) = self.clients.get(key) else { return Step::Finished };
        if x.close || !x.request.has_ended() || stopping {
            self.last(key);
            return Step::Finished;
        }
        client.phase = Phase::Open;
        self.rest(key, idle_ms);
        Step::Finished
    }

    /// The connection waits for the next request, if nothing is left on it.
    fn release(&mut self, x: &mut Exchange) {
        let Some(key) = x.conn.take() else { return };
        let service = &self.services[x.service as usize].plan;
        let (idle_ms, idle_max, send_proxy) = (service.idle_ms, service.idle_max, service.send_proxy);
        let clean = x.reusable && x.request.has_ended() && x.outgoing.is_empty() && idle_ms > 0;
        let Some(conn) = self.conns.get(key) else { return };
        let id = conn.endpoint;
        let otherwise = conn.tls != service.tls || conn.introduced_in() != send_proxy;
        let stale = conn.socket.closing || conn.socket.holds() || conn.socket.is_stream() || otherwise;
        if clean && !stale && send_proxy.is_some() && self.endpoint(id).idle.len() >= idle_max {
            // Those that wait are of clients of which many are gone.
            self.endpoint(id).idle.first().copied().into_iter().for_each(|oldest| self.drop_idle(oldest));
        }
        if !clean || stale || self.is_retired(id) || self.endpoint(id).idle.len() >= idle_max {
            return self.remove_conn(key);
        }
        let deadline = self.now.plus_millis(idle_ms);
        let Some(conn) = self.conns.get(key) else { return };
        (conn.client, conn.reused) = (None, true);
        self.timers.set(&mut conn.timer, Whose::Conn(key), deadline);
        self.endpoint(id).idle.push(key);
    }

    /// Nothing more comes or goes on the connection of this try.
    pub fn drop_conn(&mut self, x: &mut Exchange) {
        if let Some(key) = x.conn.take() {
            self.remove_conn(key);
        }
    }

    fn end_try(&mut self, x: &mut Exchange, outcome: Outcome) {
        let Some(ticket) = x.ticket.take() else { return };
        let id = ticket.id;
        let micros = self.services[x.service as usize].upstream.leave(self.now, ticket, outcome);
        self.grant(x.service);
        let meters = self.endpoint_meters(id);
        if outcome != Outcome::Abandoned {
            meters.requests.increment();
            meters.micros.record(micros);
        }
        if outcome.is_failure() {
            meters.failures.increment();
        }
        if outcome == Outcome::Timeout {
            meters.timeouts.increment();
        }
        self.let_go(id);
    }

    /// Tries again at this moment, elsewhere if that can be.
    pub fn retry_at(&mut self, key: Key, x: &mut Exchange, outcome: Outcome, at: Micros) -> Step {
        x.except = x.ticket.as_ref().map(|ticket| ticket.id);
        self.drop_conn(x);
        self.end_try(x, outcome);
        self.later(key, x, at)
    }

    /// The next try begins at this moment, and not from within the end of the last one.
    fn later(&mut self, key: Key, x: &mut Exchange, at: Micros) -> Step {
        self.meters.retries.increment();
        (x.state, x.retry_at) = (State::Backoff, at);
        if at <= self.now {
            self.again.push(key);
        } else if let Some(client) = self.clients.get(key) {
            self.timers.set(&mut client.timer, Whose::Client(key), at);
        }
        Step::Blocked
    }

    /// A tunnel has ended.
    pub fn end_tunnel(&mut self, x: &mut Exchange, outcome: Outcome) {
        self.end_try(x, outcome);
        self.tell_of(x, None);
    }

    /// The client went away.
    pub fn abandon(&mut self, x: &mut Exchange) {
        if x.state == State::Connecting {
            self.waited(x);
        }
        self.leave_queue(x);
        self.drop_conn(x);
        self.end_try(x, Outcome::Abandoned);
        x.status = 0;
    }
}
