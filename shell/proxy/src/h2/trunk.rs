//! A connection of HTTP/2 to an endpoint: each of its streams is a connection to the endpoint by itself, for one request.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use mesh::retry::Progress;
use wire::http1::{self, Headers};

use super::body::{Broken, Inlet, Outlet};
use super::ends::{Bell, Ends, Flow, StreamSocket};
use super::pipe::Pipe;
use super::{
    CONNECTION_WINDOW_BYTES, HEADER_LIST_BYTES_MAX, SEND_BUFFER_BYTES, STREAMS_MAX, WINDOW_BYTES, message,
};
use crate::conn::Conn;
use crate::slab::Key;
use crate::socket::Socket;
use crate::timers::{Timer, Whose};
use crate::worker::Loop;

/// Reads of one connection in one turn; then others have theirs.
const READS_MAX: usize = 8;

/// A connection that is never made ends so long after the call that it was begun for, in milliseconds: that one is told that
/// its time was over.
const BEHIND_MS: u64 = 10;

/// A connection to an endpoint.
pub(crate) struct Trunk {
    pipe: Pipe,
    state: State,
    calls: Vec<Call>,
    bell: Bell,
    /// It takes no more calls, and ends with the last one.
    is_closing: bool,
    /// Reads that brought something.
    heard: u64,
}

enum State {
    /// TCP and TLS are not there yet.
    Connecting,
    Up(Box<Up>),
}

struct Up {
    send: SendRequest<Bytes>,
    connection: Connection<Pipe, Bytes>,
}

struct Call {
    conn: Key,
    ends: Rc<RefCell<Ends>>,
    out: Out,
    response: Back,
    is_head: bool,
    /// What the connection had heard when it was asked.
    heard: u64,
}

enum Out {
    /// Its head has not been given.
    Waiting,
    Body(Outlet),
}

/// How far the response has come.
enum Back {
    None,
    Head(ResponseFuture),
    Body(Inlet),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Over,
    /// It was given up unanswered, and its connection has heard nothing at all since it was asked.
    Silent,
}

impl Trunk {
    fn new(bell: Bell) -> Trunk {
        let (pipe, calls) = (Pipe::default(), Vec::new());
        Trunk { pipe, state: State::Connecting, calls, bell, is_closing: false, heard: 0 }
    }

    /// Whether it can take another call.
    pub fn has_room(&self) -> bool {
        let most = match &self.state {
            State::Connecting => STREAMS_MAX as usize,
            State::Up(up) => up.connection.max_concurrent_send_streams().min(STREAMS_MAX as usize),
        };
        !self.is_closing && self.calls.len() < most
    }

    /// It takes no more calls. Whether it has none.
    pub fn finish(&mut self) -> bool {
        self.is_closing = true;
        self.calls.is_empty()
    }

    fn begin(&mut self, cx: &mut Context<'_>) -> Result<(), h2::Error> {
        let mut handshake = Box::pin(
            Builder::new()
                .enable_push(false)
                .max_header_list_size(HEADER_LIST_BYTES_MAX)
                .initial_window_size(WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_send_buffer_size(SEND_BUFFER_BYTES)
                .handshake(self.pipe.clone()),
        );
        // It only writes, and there is room.
        if let Poll::Ready(begun) = handshake.as_mut().poll(cx) {
            let (send, connection) = begun?;
            self.state = State::Up(Box::new(Up { send, connection }));
        }
        Ok(())
    }
}

impl Call {
    fn pump(&mut self, on: &mut Way<'_>, cx: &mut Context<'_>) -> (bool, Fate) {
        let ends = Rc::clone(&self.ends);
        let mut ends = ends.borrow_mut();
        if ends.is_dropped {
            if let Out::Body(outlet) = &mut self.out {
                // Of no effect if both directions have ended.
                outlet.stream().send_reset(Reason::CANCEL);
            }
            let unanswered = matches!(self.response, Back::Head(_));
            let silent = ends.is_late && unanswered && self.heard == on.heard;
            return (false, if silent { Fate::Silent } else { Fate::Over });
        }
        let moved = self.send(&mut ends, on, cx).and_then(|()| self.receive(&mut ends, cx));
        let Ok(moved) = moved else {
            ends.inward_flow = Flow::Cut;
            return (true, Fate::Over);
        };
        (moved, Fate::Open)
    }

    fn send(&mut self, ends: &mut Ends, on: &mut Way<'_>, cx: &mut Context<'_>) -> Result<(), Broken> {
        if matches!(self.out, Out::Waiting) {
            let mut room = Headers::new();
            let head = match http1::Request::parse(ends.outward.waiting(), &mut room) {
                Ok(Some(head)) => head,
                Ok(None) => return Ok(()),
                Err(_) => return Err(Broken::Here),
            };
            match on.send.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Broken::There),
                Poll::Pending => return Ok(()),
            }
            let request = message::request_out(&head, on.scheme).ok_or(Broken::Here)?;
            let (taken, body) = (head.bytes, head.body);
            self.is_head = head.method == "HEAD";
            let has_ended = body == http1::Body::None;
            let sent = on.send.send_request(request, has_ended);
            let (response, stream) = sent.map_err(|_| Broken::There)?;
            ends.outward.advance(taken);
            (ends.progress, self.heard) = (Progress::Sent, on.heard);
            self.out = Out::Body(Outlet::new(stream, body, has_ended));
            self.response = Back::Head(response);
        }
        let Out::Body(outlet) = &mut self.out else { return Ok(()) };
        match outlet.pump(ends) {
            Ok(_) => Ok(()),
            // The service may have answered before it had all.
            Err(Broken::There) if !matches!(self.response, Back::None) => Ok(()),
            Err(broken) => Err(broken),
        }
    }

    /// Puts the response before the proxy. Whether there is anything new.
    fn receive(&mut self, ends: &mut Ends, cx: &mut Context<'_>) -> Result<bool, Broken> {
        let mut moved = false;
        if let Back::Head(response) = &mut self.response {
            while let Poll::Ready(Some(Ok(early))) = response.poll_informational(cx) {
                let mut out = Vec::new();
                message::response_in(&early.into_parts().0, self.is_head, false, &mut out);
                ends.give(&out);
                moved = true;
            }
            match Pin::new(response).poll(cx) {
                Poll::Pending => return Ok(moved),
                Poll::Ready(Err(error)) => {
                    ends.progress = progress(&error);
                    return Err(Broken::There);
                }
                Poll::Ready(Ok(response)) => {
                    let (parts, recv) = response.into_parts();
                    let mut out = Vec::new();
                    let chunked = message::response_in(&parts, self.is_head, recv.is_end_stream(), &mut out);
                    ends.give(&out);
                    self.response = Back::Body(Inlet::new(recv, chunked));
                    moved = true;
                }
            }
        }
        let Back::Body(inlet) = &mut self.response else { return Ok(moved) };
        let more = inlet.pump(ends, cx).map_err(|_| Broken::There)?;
        Ok(moved || more)
    }
}

impl Loop {
    /// A stream to an endpoint, on a connection that there is or on one that is begun.
    pub fn call(&mut self, id: u32) -> std::io::Result<Key> {
        let trunks = self.endpoint(id).trunks.clone();
        let takes = |key: &Key| {
            let trunk = self.conns.get(*key).and_then(|conn| conn.trunk.as_ref());
            trunk.is_some_and(|trunk| trunk.has_room())
        };
        let key = match trunks.into_iter().find(takes) {
            Some(key) => key,
            None => self.begin_trunk(id)?,
        };
        let conn = self.conns.reserve();
        let Some(trunk) = self.conns.get(key).and_then(|one| one.trunk.as_mut()) else {
            self.conns.remove(conn);
            return Err(std::io::ErrorKind::NotConnected.into());
        };
        let ends = Ends::new(trunk.bell.clone());
        ends.borrow_mut().is_up = matches!(trunk.state, State::Up(..));
        let socket = Socket::stream(&ends);
        let (out, response) = (Out::Waiting, Back::None);
        trunk.calls.push(Call { conn, ends, out, response, is_head: false, heard: 0 });
        let timer = Timer::default();
        let (client, tls, member, introduced, trunk) = (None, None, None, None, None);
        let (endpoint, connected, reused) = (id, false, false);
        let one = Conn { socket, endpoint, client, connected, reused, tls, member, introduced, trunk, timer };
        self.conns.fill(conn, one);
        self.endpoint(id).users += 1;
        Ok(conn)
    }

    fn begin_trunk(&mut self, id: u32) -> std::io::Result<Key> {
        let key = self.connect(id)?;
        let bell = Bell::new(Whose::Conn(key), &self.bells);
        let service = self.endpoint(id).service();
        let connect_ms = self.services[service as usize].plan.connect_ms;
        let deadline = self.now.plus_millis(connect_ms.saturating_add(BEHIND_MS));
        if let Some(conn) = self.conns.get(key) {
            conn.trunk = Some(Box::new(Trunk::new(bell)));
            self.timers.set(&mut conn.timer, Whose::Conn(key), deadline);
        }
        self.endpoint(id).trunks.push(key);
        Ok(key)
    }

    /// Goes on with a connection and all of its calls.
    pub fn trunk(&mut self, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        let Some(mut trunk) = conn.trunk.take() else { return };
        trunk.bell.answer();
        let had_calls = !trunk.calls.is_empty();
        let is_there = self.go_on(key, &mut trunk);
        let over =
            is_there.is_err() || (trunk.is_closing && trunk.calls.is_empty() && !trunk.pipe.is_behind());
        if over {
            return self.end_trunk(key, *trunk);
        }
        let Some(conn) = self.conns.get(key) else { return };
        // One that is being made has its time for that.
        let is_idle = had_calls && trunk.calls.is_empty() && matches!(trunk.state, State::Up(..));
        let endpoint = conn.endpoint;
        if is_idle {
            trunk.pipe.shrink();
        }
        conn.trunk = Some(trunk);
        if is_idle {
            let idle_ms = self.idle_ms(endpoint);
            let deadline = self.now.plus_millis(idle_ms);
            if let Some(conn) = self.conns.get(key) {
                self.timers.set(&mut conn.timer, Whose::Conn(key), deadline);
            }
        }
    }

    /// Ends a connection; its calls are cut.
    fn end_trunk(&mut self, key: Key, trunk: Trunk) {
        let Some(conn) = self.conns.get(key) else { return };
        let endpoint = conn.endpoint;
        self.endpoint(endpoint).trunks.retain(|other| *other != key);
        self.remove_conn(key);
        for call in trunk.calls {
            call.ends.borrow_mut().inward_flow = Flow::Cut;
            self.tell_caller(call.conn);
        }
    }

    /// Ends a connection, whatever is under way on it.
    pub fn cut_trunk(&mut self, key: Key) {
        if let Some(trunk) = self.conns.get(key).and_then(|conn| conn.trunk.take()) {
            self.end_trunk(key, *trunk);
        }
    }

    /// A connection's time is over: ends it if nothing is asked on it, or if it is still being made.
    pub fn trunk_expired(&mut self, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        let ends =
            |trunk: &mut Box<Trunk>| trunk.calls.is_empty() || matches!(trunk.state, State::Connecting);
        if let Some(trunk) = conn.trunk.take_if(ends) {
            self.end_trunk(key, *trunk);
        }
    }

    /// An endpoint's connections take no more calls.
    pub fn finish_trunks(&mut self, id: u32) {
        for key in self.endpoint(id).trunks.clone() {
            let trunk = self.conns.get(key).and_then(|conn| conn.trunk.as_mut());
            if trunk.is_some_and(|trunk| trunk.finish()) {
                self.trunk_expired(key);
            }
        }
    }

    fn go_on(&mut self, key: Key, trunk: &mut Trunk) -> Result<(), ()> {
        let mut cx = Context::from_waker(Waker::noop());
        if matches!(trunk.state, State::Connecting) {
            trunk.calls.retain(|call| !call.ends.borrow().is_dropped);
            if !self.secured(key).map_err(drop)? {
                return Ok(());
            }
            let tls = self.conns.get(key).and_then(|conn| conn.socket.tls());
            if tls.is_some_and(|tls| tls.alpn_protocol() != Some(b"h2")) {
                tracing::debug!("an endpoint does not speak HTTP/2 in TLS");
                return Err(());
            }
            trunk.begin(&mut cx).map_err(drop)?;
            for call in &trunk.calls {
                call.ends.borrow_mut().is_up = true;
            }
            let callers: Vec<Key> = trunk.calls.iter().map(|call| call.conn).collect();
            callers.into_iter().for_each(|conn| self.tell_caller(conn));
        }
        for _ in 0..READS_MAX {
            let Loop { conns, scratch, .. } = self;
            let Some(conn) = conns.get(key) else { return Err(()) };
            let scheme = if conn.socket.is_secured() { "https" } else { "http" };
            let read = trunk.pipe.fill(&mut conn.socket, scratch).map_err(drop)?;
            trunk.heard += u64::from(read);
            let untaken = trunk.pipe.untaken();
            let mut has_ended = trunk.poll(&mut cx);
            self.pump_calls(trunk, scheme, &mut cx);
            has_ended |= trunk.poll(&mut cx);
            let Some(conn) = self.conns.get(key) else { return Err(()) };
            let moved = trunk.pipe.flush(&mut conn.socket).map_err(drop)?;
            if has_ended {
                // What had come for its calls was put before them.
                return Err(());
            }
            if !read && !moved && trunk.pipe.untaken() == untaken {
                return Ok(());
            }
        }
        trunk.bell.ring();
        Ok(())
    }

    fn pump_calls(&mut self, trunk: &mut Trunk, scheme: &str, cx: &mut Context<'_>) {
        let State::Up(up) = &mut trunk.state else { return };
        // It goes away (GOAWAY), or has no more numbers for streams: what is under way may end.
        trunk.is_closing |= matches!(up.send.poll_ready(cx), Poll::Ready(Err(_)));
        let mut way = Way { send: &mut up.send, scheme, heard: trunk.heard };
        let mut at = 0;
        while at < trunk.calls.len() {
            let call = &mut trunk.calls[at];
            let (news, fate) = call.pump(&mut way, cx);
            let conn = call.conn;
            match fate {
                Fate::Open => at += 1,
                Fate::Over => drop(trunk.calls.swap_remove(at)),
                Fate::Silent => {
                    trunk.calls.swap_remove(at);
                    // Its host may be gone without a word, which TCP finds after many minutes. It is not asked by a PING:
                    // servers of gRPC count those, and end the connection with all of its calls.
                    trunk.is_closing = true;
                }
            }
            if news || self.conns.get(conn).is_some_and(|conn| !conn.socket.writable) {
                self.tell_caller(conn);
            }
        }
    }

    /// Has the request on a stream go on.
    fn tell_caller(&mut self, conn: Key) {
        let Some(conn) = self.conns.get(conn) else { return };
        (conn.socket.readable, conn.socket.writable) = (true, true);
        if let Some(client) = conn.client {
            self.drive(client);
        }
    }
}

/// What a call goes by.
struct Way<'a> {
    send: &'a mut SendRequest<Bytes>,
    scheme: &'a str,
    /// See [`Trunk::heard`].
    heard: u64,
}

/// How far a call had come that ended with this instead of a response.
fn progress(error: &h2::Error) -> Progress {
    if error.is_go_away() && error.is_remote() {
        // Calls up to the last one that it has read do not see this (RFC 9113, 6.8).
        Progress::Unread
    } else if error.reason() == Some(Reason::REFUSED_STREAM) {
        // Nothing was done (RFC 9113, 8.7), perhaps because there is too much to do.
        Progress::Unconnected
    } else {
        Progress::Sent
    }
}

impl Trunk {
    /// Has the crate go on. True if the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.state {
            State::Connecting => false,
            State::Up(up) => Pin::new(&mut up.connection).poll(cx).is_ready(),
        }
    }
}

impl Socket {
    /// The proxy's end of a stream.
    pub(super) fn stream(ends: &Rc<RefCell<Ends>>) -> Socket {
        Socket::of_stream(StreamSocket(Rc::clone(ends)))
    }
}
