//! Clients between requests: heads are read, requests take their routes, and what is not sent on is answered here.

use std::net::IpAddr;
use std::rc::Rc;

use kernel::hash::KeyHasher;
use mesh::route::{Ask, FieldRule, rewritten};
use telemetry::trace::TRACEPARENT_BYTES;
use wire::http1::{Body, Frame, HEAD_BYTES_MAX, HeadError, Headers, Onward, Relay, Request, Target, request};

use crate::answer::{Answer, Reason};
use crate::conn::{Exchange, Method, Phase, Told};
use crate::mutual::Allowed;
use crate::plan::KeyOf;
use crate::slab::Key;
use crate::socket::Got;
use crate::spans::{Recorded, decided, onward};
use crate::telling::Refused;
use crate::timers::Whose;
use crate::worker::{Loop, Step, Table};

/// What a client that was refused may still send, in bytes, while it is given the time to read why.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// How long it has for that, in milliseconds.
const LINGER_MS: u64 = 2_000;
/// What this proxy calls itself in `Via`.
const VIA: &str = "archipel";
/// How a connection of HTTP/2 begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a head came to.
enum Taken {
    /// It is not whole.
    Partial,
    /// So many bytes were its; a request is under way, or it was answered.
    Head(usize),
    /// It cannot be read; the client was told.
    Refused,
    /// It is how HTTP/2 begins.
    Session,
}

impl Loop {
    /// Reads the head of a client's next request.
    pub fn open(&mut self, key: Key) -> Step {
        let rest_ms = self.table.plan.limits.idle_ms;
        if !self.flush_last(key, rest_ms) {
            self.close(key);
            return Step::Blocked;
        }
        let Loop { clients, scratch, .. } = self;
        let Some(client) = clients.get(key) else { return Step::Blocked };
        if client.is_behind() {
            return Step::Blocked;
        }
        if client.input.len() > client.partial {
            // What came behind the last request.
            let input = std::mem::take(&mut client.input);
            return self.take_head(key, input);
        }
        if !client.socket.readable {
            return Step::Blocked;
        }
        match client.socket.read(scratch) {
            Ok(Got::Bytes(n)) if client.input.is_empty() => {
                let scratch = std::mem::take(&mut self.scratch);
                let taken = self.head(key, &scratch[..n]);
                let rest = match taken {
                    Taken::Head(taken) => &scratch[taken..n],
                    Taken::Partial => &scratch[..n],
                    Taken::Refused => &[],
                    Taken::Session => {
                        self.begin_session(key, &scratch[..n]);
                        &[]
                    }
                };
                self.keep(key, rest, matches!(taken, Taken::Partial));
                self.scratch = scratch;
                Step::On
            }
            Ok(Got::Bytes(n)) => {
                client.input.extend_from_slice(&scratch[..n]);
                Step::On
            }
            Ok(Got::Nothing) => Step::Blocked,
            Ok(Got::End) | Err(_) => {
                self.close(key);
                Step::Blocked
            }
        }
    }

    fn take_head(&mut self, key: Key, mut input: Vec<u8>) -> Step {
        match self.head(key, &input) {
            Taken::Head(taken) => {
                input.drain(..taken);
            }
            Taken::Partial => {
                if let Some(client) = self.clients.get(key) {
                    client.partial = input.len();
                    client.input = input;
                }
                return Step::On;
            }
            Taken::Refused => input.clear(),
            Taken::Session => {
                self.begin_session(key, &input);
                input.clear();
            }
        }
        let Some(client) = self.clients.get(key) else { return Step::Blocked };
        client.partial = 0;
        if input.is_empty() {
            self.buffers.give(input);
        } else {
            client.input = input;
        }
        Step::On
    }

    fn keep(&mut self, key: Key, rest: &[u8], partial: bool) {
        let Some(client) = self.clients.get(key) else { return };
        if rest.is_empty() {
            return;
        }
        self.buffers.room(&mut client.input);
        client.input.extend_from_slice(rest);
        if partial {
            client.partial = rest.len();
        }
    }

    fn head(&mut self, key: Key, bytes: &[u8]) -> Taken {
        let mut room = Headers::new();
        match Request::parse(bytes, &mut room) {
            Ok(Some(head)) => {
                let taken = head.bytes;
                self.begin(key, &head);
                Taken::Head(taken)
            }
            Ok(None) => {
                debug_assert!(
                    bytes.len() <= HEAD_BYTES_MAX + 2,
                    "a longer head is refused, an empty line apart"
                );
                self.partial(key)
            }
            Err(HeadError::Version)
                if bytes.starts_with(&PREFACE[..PREFACE.len().min(bytes.len())])
                    && self.clients.get(key).is_some_and(|one| !one.has_asked && !one.socket.is_stream()) =>
            {
                if bytes.len() < PREFACE.len() {
                    self.partial(key)
                } else {
                    Taken::Session
                }
            }
            Err(error) => {
                let answer = Answer { status: error.status(), close: true, ..Answer::of(Reason::Malformed) };
                self.unread(key, answer);
                Taken::Refused
            }
        }
    }

    /// A request whose head cannot be read is answered.
    fn unread(&mut self, key: Key, answer: Answer) {
        self.requests += 1;
        let recorded = decided(&mut self.rng, &self.table.plan.telling, &[]);
        self.tell_refused(key, &answer, Refused { recorded, ..Refused::default() });
        self.answer(key, answer);
    }

    /// The first piece of a head begins its time.
    fn partial(&mut self, key: Key) -> Taken {
        let head_ms = self.table.plan.limits.head_ms;
        let Some(client) = self.clients.get(key) else { return Taken::Partial };
        if client.partial == 0 {
            let deadline = self.now.plus_millis(head_ms);
            self.timers.set(&mut client.timer, Whose::Client(key), deadline);
        }
        Taken::Partial
    }

    /// A request takes its route.
    fn begin(&mut self, key: Key, head: &Request<'_, '_>) {
        self.requests += 1;
        if let Some(client) = self.clients.get(key) {
            client.has_asked = true;
        }
        let table = Rc::clone(&self.table);
        let whose = self.whose(key, head);
        let recorded = decided(&mut self.rng, &table.plan.telling, head.headers);
        let asked = Asked { recorded, ..Asked::of(head.target, whose) };
        let has = |rule: &FieldRule| {
            head.headers.iter().any(|field| {
                field.name.eq_ignore_ascii_case(&rule.name)
                    && rule.value.as_ref().is_none_or(|value| value.as_bytes() == field.value)
            })
        };
        let ask = Ask { host: head.host, path: asked.routed(), method: head.method };
        let method = Method::of(head.method);
        let close = !head.keep_alive || head.body != Body::None;
        let refused = |reason| Answer { close, bare: method == Method::Head, ..Answer::of(reason) };
        let asked_for = |route| Refused {
            client: Some(whose),
            method: head.method,
            host: head.host,
            path: asked.path,
            route,
            recorded,
        };
        let Some(route) = table.plan.index.find(&ask, &has) else {
            self.tell_refused(key, &refused(Reason::NoRoute), asked_for(""));
            return self.answer(key, refused(Reason::NoRoute));
        };
        let name = table.plan.routes[route as usize].name.as_str();
        if method == Method::Connect && !table.plan.routes[route as usize].connect {
            self.tell_refused(key, &refused(Reason::NoConnect), asked_for(name));
            return self.answer(key, refused(Reason::NoConnect));
        }
        if !self.is_allowed(key, &table.plan.routes[route as usize].allow) {
            self.tell_refused(key, &refused(Reason::NotAllowed), asked_for(name));
            return self.answer(key, refused(Reason::NotAllowed));
        }
        let slot = table.routes[route as usize];
        if let Err(seconds) = self.limited(slot, whose, head) {
            self.route_meters(slot).classes[4].increment();
            let retry_after = Some(seconds);
            self.tell_refused(key, &refused(Reason::RateLimited), asked_for(name));
            return self.answer(key, Answer { retry_after, ..refused(Reason::RateLimited) });
        }
        if let Some(exchange) = self.request_of(key, head, &table, route, asked) {
            self.start(key, exchange);
        }
    }

    /// The request as it is sent on.
    fn request_of(
        &mut self,
        key: Key,
        head: &Request<'_, '_>,
        table: &Rc<Table>,
        route: u32,
        asked: Asked<'_>,
    ) -> Option<Exchange> {
        let plan = &table.plan.routes[route as usize];
        let service = table.services[plan.split.draw(&mut self.rng) as usize];
        let mut exchange = Exchange::new(Rc::clone(table), route, service, self.now);
        exchange.method = Method::of(head.method);
        let connects = exchange.method == Method::Connect;
        let telling = &table.plan.telling;
        if self.is_logged() || asked.recorded.is_some() {
            exchange.told = self.told(key, head, asked);
        }
        let client = self.clients.get(key)?;
        exchange.key = key_of(&plan.key, &asked.whose, head, &KeyHasher::new(0));
        exchange.idempotent = matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE" | "TRACE");
        exchange.version = head.version;
        // What comes behind CONNECT is no request, whatever becomes of it.
        exchange.close = !head.keep_alive || connects || self.stop_at.is_some();
        exchange.upgrade = plan.upgrade && head.upgrade.is_some();
        exchange.fresh = connects;
        exchange.outgoing.bytes = self.buffers.take();
        if connects {
            // A tunnel's bytes are no body.
            return Some(exchange);
        }
        let frame = if head.body == Body::Chunked { Frame::Chunked } else { Frame::Plain };
        exchange.request = Relay::new(head.body, frame);
        if client.socket.is_stream() && self.services[service as usize].plan.http2 {
            exchange.request = exchange.request.with_trailers();
        }
        exchange.stays = self.stays(key, service, head);
        let client = self.clients.get(key)?;
        let mut room = [0; TRACEPARENT_BYTES];
        let trace = onward(&mut self.rng, telling, asked.recorded, &mut room);
        let onward = Onward {
            path: asked.onward(plan.rewrite.as_ref()),
            client: &client.name,
            scheme: if client.is_secured { "https" } else { "http" },
            trusted: client.sources.as_ref().map(|sources| sources.by),
            certificate: client.member.as_ref().map(|member| member.told.as_str()),
            via: VIA,
            trace,
            upgrade: exchange.upgrade,
        };
        request(head, &onward, &mut exchange.outgoing.bytes);
        exchange.mirrors = plan.mirror.is_some() && !exchange.upgrade && self.is_mirrored(&exchange);
        Some(exchange)
    }

    /// What is remembered of a request to be told of when it is over.
    fn told(&mut self, key: Key, head: &Request<'_, '_>, asked: Asked<'_>) -> Option<Told> {
        let is_logged = self.is_logged();
        let client = self.clients.get(key)?;
        Some(Told {
            is_logged,
            recorded: asked.recorded,
            client: asked.whose,
            is_secured: client.is_secured,
            method: head.method.to_owned(),
            host: head.host.to_owned(),
            path: asked.path.to_owned(),
            member: client.member.clone(),
            endpoint: None,
        })
    }

    /// A connection that is passed through to the service in this slot, without a look at its bytes.
    pub fn begin_raw(&mut self, key: Key, service: u32) {
        let Some(client) = self.clients.get(key) else { return };
        let mut exchange = Exchange::new(Rc::clone(&self.table), u32::MAX, service, self.now);
        exchange.method = Method::Raw;
        (exchange.idempotent, exchange.close, exchange.fresh) = (true, true, true);
        exchange.key = Some(hash_ip(&KeyHasher::new(0), &client.peer));
        self.start(key, exchange);
    }

    /// A client's request goes on its way.
    pub fn start(&mut self, key: Key, exchange: Exchange) {
        let mut exchange = match self.spare.pop() {
            Some(mut room) => {
                *room = exchange;
                room
            }
            None => Box::new(exchange),
        };
        let Some(client) = self.clients.get(key) else { return };
        client.phase = Phase::Busy;
        self.services[exchange.service as usize].upstream.request();
        let step = self.try_once(key, &mut exchange);
        match self.clients.get(key) {
            Some(client) if step != Step::Finished => client.exchange = Some(exchange),
            _ => self.recycle(exchange),
        }
    }

    /// Whether a client is one of those that may ask.
    fn is_allowed(&mut self, key: Key, allowed: &Allowed) -> bool {
        *allowed == Allowed::Anybody
            || self
                .clients
                .get(key)
                .is_some_and(|client| allowed.takes(client.member.as_ref().map(|member| member.node)))
    }

    /// Whether the route's rate allows the request; if not, after how many seconds it may be asked again.
    fn limited(&mut self, slot: u32, whose: IpAddr, head: &Request<'_, '_>) -> Result<(), u64> {
        let Some((rate, keyed)) = &mut self.routes[slot as usize].keyed else { return Ok(()) };
        let hash = key_of(&rate.key, &whose, head, &self.secret).unwrap_or_default();
        keyed.take(hash, self.now, 1).map_err(|early| early.wait_micros.div_ceil(1_000_000).max(1))
    }

    /// Answers here. With `close` the connection ends, when the answer has had its time to arrive.
    pub fn answer(&mut self, key: Key, answer: Answer) {
        let is_mirror = self.clients.get(key).is_some_and(|client| client.is_mirror);
        let meters = &self.meters;
        let counter =
            if is_mirror { &meters.mirrors_failed } else { &meters.answered[answer.reason as usize] };
        counter.increment();
        let (now, idle_ms) = (self.now, self.table.plan.limits.idle_ms);
        let Loop { clients, buffers, timers, .. } = self;
        let Some(client) = clients.get(key) else { return };
        buffers.room(&mut client.output.bytes);
        answer.write(&mut client.output.bytes);
        if client.socket.flush(&mut client.output).is_err() {
            return self.close(key);
        }
        buffers.settle(&mut client.output);
        if answer.close {
            return self.last(key);
        }
        client.phase = Phase::Open;
        timers.set(&mut client.timer, Whose::Client(key), now.plus_millis(idle_ms));
    }

    /// Nothing is answered to this client behind what waits for it.
    pub fn last(&mut self, key: Key) {
        let Some(client) = self.clients.get(key) else { return };
        client.phase = Phase::Linger;
        client.linger = LINGER_BYTES_MAX;
        self.buffers.give(std::mem::take(&mut client.input));
        client.partial = 0;
        self.rest(key, LINGER_MS);
    }

    /// Gives a client with no request under way its time: to take what is left of its answer, or else to rest.
    pub fn rest(&mut self, key: Key, rest_ms: u64) {
        let Some(client) = self.clients.get(key) else { return };
        let ms = if client.is_behind() { self.table.plan.limits.body_ms } else { rest_ms };
        self.timers.set(&mut client.timer, Whose::Client(key), self.now.plus_millis(ms));
    }

    /// Sends what is left of a client's answer; a client that takes some of it has its time anew. False: it is gone.
    fn flush_last(&mut self, key: Key, rest_ms: u64) -> bool {
        let Loop { clients, buffers, .. } = self;
        let Some(client) = clients.get(key) else { return false };
        let Ok(moved) = client.socket.flush(&mut client.output) else { return false };
        buffers.settle(&mut client.output);
        if moved {
            self.rest(key, rest_ms);
        }
        true
    }

    /// Takes what a client still sends: a socket that is closed with unread bytes is reset, and the client might lose
    /// the answer that says why.
    pub fn linger(&mut self, key: Key) -> Step {
        let flushed = self.flush_last(key, LINGER_MS);
        let Loop { clients, scratch, .. } = self;
        let Some(client) = clients.get(key) else { return Step::Blocked };
        if flushed && client.is_behind() {
            return Step::Blocked;
        }
        if flushed {
            client.socket.shut();
            if !client.socket.readable {
                return Step::Blocked;
            }
            match client.socket.read(scratch) {
                Ok(Got::Bytes(n)) if n <= client.linger => {
                    client.linger -= n;
                    return Step::On;
                }
                Ok(Got::Nothing) => return Step::Blocked,
                Ok(Got::Bytes(_) | Got::End) | Err(_) => {}
            }
        }
        self.close(key);
        Step::Blocked
    }

    /// Closes a client's connection; with a reset if it has not taken all of its answer, which would look whole.
    pub fn close_short(&mut self, key: Key) {
        if let Some(client) = self.clients.get(key)
            && (client.exchange.is_some() || client.is_behind())
        {
            client.socket.poison();
        }
        self.close(key);
    }

    /// A client's time is over.
    pub fn expired(&mut self, key: Key) {
        let Some(client) = self.clients.get(key) else { return };
        match client.phase {
            Phase::Arriving => {
                self.meters.unintroduced.increment();
                self.close(key);
            }
            Phase::Hello | Phase::Shaking => {
                self.meters.handshake_failures.increment();
                self.close(key);
            }
            Phase::Streams => self.session_expired(key),
            Phase::Open if client.partial > 0 => {
                let answer = Answer { close: true, ..Answer::of(Reason::SlowRequest) };
                self.unread(key, answer);
                self.drive(key);
            }
            Phase::Open | Phase::Linger => self.close_short(key),
            Phase::Busy => {
                let Some(mut exchange) = client.exchange.take() else { return };
                let step = self.late(key, &mut exchange);
                match self.clients.get(key) {
                    Some(client) if step != Step::Finished => client.exchange = Some(exchange),
                    _ => self.recycle(exchange),
                }
                self.drive(key);
            }
            Phase::Tunnel => self.gone(key),
        }
    }
}

/// What a request asks for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    /// Whose request it is.
    whose: IpAddr,
    /// A slash that is missing before `path`: a whole URI may have a query and no path.
    slash: &'static str,
    path: &'a str,
    /// Its span, if it is to be one.
    recorded: Option<Recorded>,
}

impl<'a> Asked<'a> {
    fn of(target: Target<'a>, whose: IpAddr) -> Asked<'a> {
        let (slash, path) = match target {
            Target::Path(path) | Target::Absolute { path, .. } if path.is_empty() => ("/", path),
            Target::Path(path) | Target::Absolute { path, .. } if path.starts_with('?') => ("/", path),
            Target::Path(path) | Target::Absolute { path, .. } => ("", path),
            Target::Authority(_) => ("", "/"),
            Target::Asterisk => ("", "*"),
        };
        Asked { whose, slash, path, recorded: None }
    }

    /// By what it takes its route.
    const fn routed(self) -> &'a str {
        if self.slash.is_empty() { self.path } else { self.slash }
    }

    /// What is asked for behind the proxy, in two pieces.
    fn onward(self, rewrite: Option<&'a (String, String)>) -> (&'a str, &'a str) {
        match rewrite {
            Some((prefix, by)) if self.slash.is_empty() => rewritten(self.path, prefix, by),
            Some((_, by)) => (by, self.path),
            None => (self.slash, self.path),
        }
    }
}

fn key_of(key: &KeyOf, peer: &IpAddr, head: &Request<'_, '_>, hasher: &KeyHasher) -> Option<u64> {
    match key {
        KeyOf::Route => None,
        KeyOf::Client => Some(hash_ip(hasher, peer)),
        KeyOf::Field(name) => {
            let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
            field.map(|field| hasher.hash(field.value))
        }
    }
}

fn hash_ip(hasher: &KeyHasher, peer: &IpAddr) -> u64 {
    match peer {
        IpAddr::V4(ip) => hasher.hash(&ip.octets()),
        IpAddr::V6(ip) => hasher.hash(&ip.octets()),
    }
}
