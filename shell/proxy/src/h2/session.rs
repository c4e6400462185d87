//! A client's connection of HTTP/2: each of its streams is a client by itself.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use wire::http1::{self, Body, Headers};

use super::body::{Broken, Inlet, Outlet};
use super::ends::{Bell, Ends, Flow};
use super::pipe::Pipe;
use super::websocket::{Asked, Purpose, Tunnel};
use super::{
    CONNECTION_WINDOW_BYTES, HEADER_LIST_BYTES_MAX, RESETS_MAX, SEND_BUFFER_BYTES, STREAMS_MAX, WINDOW_BYTES,
    message,
};
use crate::answer::{Answer, Reason as Why};
use crate::conn::Phase;
use crate::slab::Key;
use crate::socket::Socket;
use crate::spans::{TRACEPARENT, decided};
use crate::telling::Refused;
use crate::timers::Whose;
use crate::worker::{Loop, Step};

/// Reads of one connection in one turn; then others have theirs.
const READS_MAX: usize = 8;
/// How long a client has to answer that it knows of the end, and to take what is said last, in milliseconds.
const FAREWELL_MS: u64 = 5_000;
/// The same for a client without a request, when the proxy stops, in milliseconds: others wait for that.
const STOP_FAREWELL_MS: u64 = 1_000;

/// A client's connection.
pub(crate) struct Session {
    pipe: Pipe,
    state: State,
    streams: Vec<Stream>,
    bell: Bell,
    /// See [`RESETS_MAX`].
    resets: u32,
    /// For that.
    is_sent_away: bool,
    is_ending: bool,
    /// It has ended, and its client has some time to take the rest.
    is_leaving: bool,
}

enum State {
    Beginning(Handshake<Pipe, Bytes>),
    Up(Connection<Pipe, Bytes>),
    Ended,
}

struct Stream {
    client: Key,
    ends: Rc<RefCell<Ends>>,
    request: Inlet,
    out: Out,
    tunnel: Tunnel,
    is_head: bool,
    is_grpc: bool,
    /// Some of its response has gone since the connection was looked at.
    has_moved: bool,
}

/// How far a response has come.
enum Out {
    Head(SendResponse<Bytes>),
    Body(Outlet),
}

/// What has become of a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Finished,
    /// The client has reset it.
    Reset,
    /// We have.
    Cut,
}

impl Session {
    pub fn new(bell: Bell) -> Session {
        let pipe = Pipe::default();
        let handshake = Builder::new()
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .enable_connect_protocol()
            .handshake(pipe.clone());
        let (streams, state) = (Vec::new(), State::Beginning(handshake));
        Session {
            pipe,
            state,
            streams,
            bell,
            resets: 0,
            is_sent_away: false,
            is_ending: false,
            is_leaving: false,
        }
    }

    /// Takes no more requests.
    pub fn finish(&mut self) {
        self.is_ending = true;
        if let State::Up(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
    }

    pub fn clients(&self) -> impl Iterator<Item = Key> {
        self.streams.iter().map(|stream| stream.client)
    }

    pub fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    /// Has the crate go on; the requests that came of it. An error ends the connection.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<Vec<Came>, ()> {
        let mut came = Vec::new();
        loop {
            match &mut self.state {
                State::Beginning(handshake) => match Pin::new(handshake).poll(cx) {
                    Poll::Pending => return Ok(came),
                    Poll::Ready(Err(_)) => {
                        self.state = State::Ended;
                        return Err(());
                    }
                    Poll::Ready(Ok(mut connection)) => {
                        if self.is_ending {
                            connection.graceful_shutdown();
                        }
                        self.state = State::Up(connection);
                    }
                },
                State::Up(connection) => match connection.poll_accept(cx) {
                    Poll::Pending => return Ok(came),
                    Poll::Ready(Some(Ok(one))) => came.push(one),
                    Poll::Ready(Some(Err(_)) | None) => {
                        self.state = State::Ended;
                        return Ok(came);
                    }
                },
                State::Ended => return Err(()),
            }
        }
    }

    /// Cuts streams whose response is whole here, and of which the client has taken nothing since the last look.
    fn cut_forgotten(&mut self) {
        for stream in &mut self.streams {
            let mut ends = stream.ends.borrow_mut();
            if !std::mem::take(&mut stream.has_moved) && ends.is_dropped {
                ends.outward_flow = Flow::Cut;
            }
        }
        self.bell.ring();
    }

    fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// What it says last goes as far as it goes.
    fn say_last(&mut self, socket: &mut Socket) -> Step {
        if self.pipe.flush(socket).is_err() {
            // Nobody takes it.
            self.pipe = Pipe::default();
        }
        Step::Finished
    }
}

type Came = (Request<RecvStream>, SendResponse<Bytes>);

impl Stream {
    /// Moves what can be moved. Whether the proxy has something new to read, and what has become of the stream.
    fn pump(&mut self, cx: &mut Context<'_>) -> (bool, Fate) {
        let ends = Rc::clone(&self.ends);
        let mut ends = ends.borrow_mut();
        let reset = match &mut self.out {
            Out::Head(respond) => respond.poll_reset(cx),
            Out::Body(outlet) => outlet.stream().poll_reset(cx),
        };
        if reset.is_ready() {
            ends.inward_flow = Flow::Cut;
            return (true, Fate::Reset);
        }
        let read = self.tunnel.reads();
        let mut news = if read { self.request.pump(&mut ends, cx) } else { Ok(false) };
        let fate = if news.is_ok() { self.respond(&mut ends) } else { Fate::Reset };
        if !read && self.tunnel.reads() {
            // What the client has sent meanwhile.
            news = self.request.pump(&mut ends, cx);
        }
        let Ok(news) = news else {
            ends.inward_flow = Flow::Cut;
            return (true, Fate::Reset);
        };
        drop(ends);
        if fate == Fate::Cut {
            self.reset(Reason::INTERNAL_ERROR);
        }
        // If the rest of a request is not wanted (RFC 9113, 8.1), the crate says so behind the response, once the stream is
        // dropped. A reset from here would go before what is left of that.
        (news, fate)
    }

    fn reset(&mut self, reason: Reason) {
        match &mut self.out {
            Out::Head(respond) => respond.send_reset(reason),
            Out::Body(outlet) => outlet.stream().send_reset(reason),
        }
    }

    fn respond(&mut self, ends: &mut Ends) -> Fate {
        while let Out::Head(respond) = &mut self.out {
            let (outward_flow, is_dropped) = (ends.outward_flow, ends.is_dropped);
            let mut room = Headers::new();
            let method = if self.is_head { "HEAD" } else { "GET" };
            let head = match http1::Response::parse(method, ends.outward.waiting(), &mut room) {
                Ok(Some(head)) => head,
                Ok(None) if outward_flow == Flow::Open && !is_dropped => return Fate::Open,
                Ok(None) | Err(_) => return Fate::Cut,
            };
            let taken = head.bytes;
            let Some((response, body, has_ended)) = answer(&head, &mut self.tunnel, self.is_grpc) else {
                return Fate::Cut;
            };
            let sent = if response.status().is_informational() {
                respond.send_informational(response).map(|()| None)
            } else {
                respond.send_response(response, has_ended).map(Some)
            };
            ends.outward.advance(taken);
            match sent {
                Ok(Some(send)) => self.out = Out::Body(Outlet::new(send, body, has_ended)),
                Ok(None) => {}
                Err(_) => return Fate::Reset,
            }
        }
        let Out::Body(outlet) = &mut self.out else { return Fate::Open };
        match outlet.pump(ends) {
            // A tunnel's other direction ends by itself: the proxy drops its end when all has gone to the service.
            Ok(_) if outlet.has_ended() && self.tunnel.is_open() && !ends.is_dropped => Fate::Open,
            Ok(_) if outlet.has_ended() => Fate::Finished,
            Ok(moved) => {
                self.has_moved |= moved;
                Fate::Open
            }
            Err(Broken::Here) => Fate::Cut,
            Err(Broken::There) => Fate::Reset,
        }
    }
}

/// A response as it goes to the client, with what its body is and whether there is none. `None`: it cannot be said.
fn answer(
    head: &http1::Response<'_, '_>,
    tunnel: &mut Tunnel,
    is_grpc: bool,
) -> Option<(Response<()>, Body, bool)> {
    let is_final = head.status >= 200 || head.status == 101;
    if let (Tunnel::Asked(asked), true) = (&*tunnel, is_final) {
        if asked.is_agreed(head) {
            *tunnel = Tunnel::Open;
            return Some((message::opened_out(head)?, Body::UntilClose, false));
        }
        *tunnel = Tunnel::Refused;
        if head.status < 300 {
            // The client would take this for its tunnel.
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            return Some((response, Body::None, true));
        }
    }
    let (response, has_ended) = message::response_out(head, is_grpc)?;
    Some((response, head.body, has_ended))
}

impl Loop {
    /// A client speaks HTTP/2 from here on.
    pub fn begin_session(&mut self, key: Key, bytes: &[u8]) {
        let bell = Bell::new(Whose::Client(key), &self.bells);
        let Some(client) = self.clients.get(key) else { return };
        client.phase = Phase::Streams;
        let session = Session::new(bell);
        session.pipe.begin(bytes);
        client.session = Some(Box::new(session));
    }

    /// Goes on with a client's connection of HTTP/2 and all of its streams.
    pub fn session(&mut self, key: Key) -> Step {
        let Some(client) = self.clients.get(key) else { return Step::Blocked };
        let Some(mut session) = client.session.take() else { return Step::Blocked };
        session.bell.answer();
        let was_idle = session.is_idle();
        let step = self.streams(key, &mut session);
        let idle_ms = self.table.plan.limits.idle_ms;
        // One that is asked to end does so by itself, when its client has said that it knows: what that has sent before then
        // is answered.
        if step == Step::Finished {
            self.leave(key, session);
            return Step::Blocked;
        }
        let Some(client) = self.clients.get(key) else { return Step::Blocked };
        if session.is_idle() && !was_idle {
            session.pipe.shrink();
            let rest_ms = if self.stop_at.is_some() { STOP_FAREWELL_MS } else { idle_ms };
            self.timers.set(&mut client.timer, Whose::Client(key), self.now.plus_millis(rest_ms));
        }
        client.session = Some(session);
        step
    }

    /// A connection has ended here. Its socket follows when it has taken what is said last.
    fn leave(&mut self, key: Key, mut session: Box<Session>) {
        session.streams.drain(..).for_each(|stream| self.gone(stream.client));
        let deadline = self.now.plus_millis(FAREWELL_MS.min(self.table.plan.limits.idle_ms));
        let Some(client) = self.clients.get(key) else { return };
        let waits = session.has_ended() && (session.pipe.is_behind() || client.socket.holds());
        if waits && !session.is_leaving {
            session.is_leaving = true;
            self.timers.set(&mut client.timer, Whose::Client(key), deadline);
        }
        client.session = Some(session);
        if !waits {
            self.end_session(key);
        }
    }

    /// The proxy stops: a client's connection ends with its requests, or, without any, when the client has said that it
    /// knows of the end or has had the time for that.
    pub fn stop_session(&mut self, key: Key) {
        let deadline = self.now.plus_millis(STOP_FAREWELL_MS);
        let Some(client) = self.clients.get(key) else { return };
        let Some(session) = &mut client.session else { return };
        session.finish();
        if session.is_idle() {
            self.timers.set(&mut client.timer, Whose::Client(key), deadline);
        }
        self.drive(key);
    }

    /// A connection's time without a request is over.
    pub fn session_expired(&mut self, key: Key) {
        let deadline = self.now.plus_millis(self.table.plan.limits.idle_ms);
        let farewell = self.now.plus_millis(FAREWELL_MS.min(self.table.plan.limits.idle_ms));
        let Some(client) = self.clients.get(key) else { return };
        match &mut client.session {
            // Streams have times of their own.
            Some(session) if !session.is_idle() => {
                session.cut_forgotten();
                self.timers.set(&mut client.timer, Whose::Client(key), deadline);
            }
            Some(session) if !session.is_ending && !session.has_ended() => {
                session.finish();
                self.timers.set(&mut client.timer, Whose::Client(key), farewell);
                self.drive(key);
            }
            Some(_) | None => self.end_session(key),
        }
    }

    /// Ends a connection with all of its streams.
    pub fn end_session(&mut self, key: Key) {
        let session = self.clients.get(key).and_then(|client| client.session.take());
        for stream in session.iter().flat_map(|session| session.clients()) {
            self.gone(stream);
        }
        if let Some(client) = self.clients.get(key) {
            client.socket.shut();
        }
        self.close(key);
    }

    fn streams(&mut self, key: Key, session: &mut Session) -> Step {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..READS_MAX {
            let Loop { clients, scratch, .. } = self;
            let Some(client) = clients.get(key) else { return Step::Finished };
            if session.has_ended() {
                return session.say_last(&mut client.socket);
            }
            let Ok(read) = session.pipe.fill(&mut client.socket, scratch) else { return Step::Finished };
            let untaken = session.pipe.untaken();
            let Ok(came) = session.poll(&mut cx) else {
                return session.say_last(&mut client.socket);
            };
            for one in came {
                self.stream(key, session, one);
            }
            self.pump_streams(session, &mut cx);
            if session.resets > RESETS_MAX && !session.is_sent_away {
                session.is_sent_away = true;
                self.meters.sent_away.increment();
                if let State::Up(connection) = &mut session.state {
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
            }
            // What the streams have said is put into frames.
            let polled = session.poll(&mut cx);
            let Some(client) = self.clients.get(key) else { return Step::Finished };
            let Ok(moved) = session.pipe.flush(&mut client.socket) else { return Step::Finished };
            match polled {
                Ok(came) => came.into_iter().for_each(|one| self.stream(key, session, one)),
                Err(()) => return Step::Finished,
            }
            if session.has_ended() {
                return Step::Finished;
            }
            if !read && !moved && session.pipe.untaken() == untaken {
                return Step::Blocked;
            }
        }
        Step::On
    }

    /// A request has come.
    fn stream(&mut self, key: Key, session: &mut Session, (request, mut respond): Came) {
        let (mut parts, recv) = request.into_parts();
        let (head, chunked, tunnel) = match self.head_of(&mut parts, !recv.is_end_stream()) {
            Ok(head) => head,
            Err(status) => return self.refuse_stream(key, &parts, status, respond),
        };
        let ends = Ends::new(session.bell.clone());
        ends.borrow_mut().give(&head);
        if recv.is_end_stream() {
            ends.borrow_mut().inward_flow = Flow::Ended;
        }
        let Some(client) = self.admit_stream(key, Socket::stream(&ends)) else {
            return respond.send_reset(Reason::REFUSED_STREAM);
        };
        session.streams.push(Stream {
            client,
            ends,
            request: Inlet::new(recv, chunked),
            out: Out::Head(respond),
            tunnel,
            is_head: parts.method == Method::HEAD,
            is_grpc: message::is_grpc(&parts.headers),
            has_moved: true,
        });
        self.drive(client);
    }

    /// Answers a request that no route sees, and tells of it as of any other.
    fn refuse_stream(
        &mut self,
        key: Key,
        parts: &Parts,
        status: StatusCode,
        mut respond: SendResponse<Bytes>,
    ) {
        let reason = match status {
            StatusCode::METHOD_NOT_ALLOWED => Why::NoConnect,
            _ => Why::Malformed,
        };
        let answer = Answer { status: status.as_u16(), ..Answer::of(reason) };
        self.requests += 1;
        self.meters.answered[reason as usize].increment();
        let traces = parts.headers.get_all(TRACEPARENT).iter();
        let traces: Vec<_> =
            traces.map(|value| httparse::Header { name: TRACEPARENT, value: value.as_bytes() }).collect();
        let asked = Refused {
            method: parts.method.as_str(),
            host: parts.uri.authority().map_or("", |authority| authority.as_str()),
            path: parts.uri.path_and_query().map_or("", |path| path.as_str()),
            recorded: decided(&mut self.rng, &self.table.plan.telling, &traces),
            ..Refused::default()
        };
        self.tell_refused(key, &answer, asked);
        let mut response = Response::new(());
        *response.status_mut() = status;
        let word = HeaderValue::from_static(reason.word());
        response.headers_mut().insert("x-archipel-reason", word);
        // A client that is gone needs no answer.
        let _ = respond.send_response(response, true);
    }

    /// What the proxy reads of a request, and whether its body is in chunks.
    fn head_of(&mut self, parts: &mut Parts, has_body: bool) -> Result<(Vec<u8>, bool, Tunnel), StatusCode> {
        let mut head = Vec::new();
        match Purpose::of(&parts.method, &parts.extensions) {
            Purpose::Request => {
                let chunked = message::request_in(parts, has_body, &mut head);
                Ok((head, chunked.ok_or(StatusCode::BAD_REQUEST)?, Tunnel::None))
            }
            // One whose client says nothing is none.
            Purpose::WebSocket if !has_body => Err(StatusCode::BAD_REQUEST),
            Purpose::WebSocket => {
                let asked = Asked::draw(&mut self.rng);
                parts.headers.remove(http::header::SEC_WEBSOCKET_KEY);
                message::websocket_in(parts, &asked.key, &mut head).ok_or(StatusCode::BAD_REQUEST)?;
                Ok((head, false, Tunnel::Asked(asked)))
            }
            Purpose::Unknown => Err(StatusCode::NOT_IMPLEMENTED),
            Purpose::Tunnel => Err(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    fn pump_streams(&mut self, session: &mut Session, cx: &mut Context<'_>) {
        let mut at = 0;
        while at < session.streams.len() {
            let stream = &mut session.streams[at];
            let (news, fate) = stream.pump(cx);
            let client = stream.client;
            if news && let Some(client) = self.clients.get(client) {
                client.socket.readable = true;
            }
            if fate == Fate::Open {
                if news || self.wants_drive(client) {
                    self.drive(client);
                }
                at += 1;
                continue;
            }
            let stream = session.streams.swap_remove(at);
            stream.ends.borrow_mut().inward_flow =
                if fate == Fate::Finished { Flow::Ended } else { Flow::Cut };
            session.resets = match fate {
                Fate::Reset => session.resets.saturating_add(1),
                Fate::Open | Fate::Finished | Fate::Cut => session.resets.saturating_sub(1),
            };
            // If its request is finished this only closes what is left of it.
            if fate == Fate::Finished {
                if let Some(client) = self.clients.get(client) {
                    client.socket.readable = true;
                }
                // It closes by itself, unless its request is not whole: nobody waits for the rest.
                self.drive(client);
            }
            self.gone(client);
        }
    }

    /// Whether a stream's client waits for room that is there by now.
    fn wants_drive(&mut self, key: Key) -> bool {
        let Some(client) = self.clients.get(key) else { return false };
        let was_full = !client.socket.writable;
        client.socket.writable = true;
        was_full || client.is_behind()
    }
}
