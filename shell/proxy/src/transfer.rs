//! Bytes of a request on their way to the endpoint, and of the response on their way back.
//!
//! At most one read and what stands before it waits in each direction: as long as the receiver takes nothing, nothing more
//! is read from the sender.

use mesh::Outcome;
use mesh::retry::Progress;
use wire::http1::{Body, Connection, Frame, Headers, Relay, Response, Version, frame, response};

use crate::answer::Reason;
use crate::conn::{Exchange, Method, State};
use crate::slab::Key;
use crate::socket::Got;
use crate::timers::Whose;
use crate::tries::Failed;
use crate::worker::{Loop, Step};

/// A request of up to so many bytes, head and body, is kept until its response begins, so that it can be sent again.
const REPLAY_BYTES_MAX: usize = 64 * 1024;
/// So many bytes of a body may wait for the endpoint before no more is read from the client.
const OUTGOING_BYTES_MAX: usize = 64 * 1024;

/// Reads of a request's body in one step; then the response and others have theirs.
const UPLOAD_READS_MAX: usize = 4;
/// A piece of a body up to this goes behind what stands before it, in one write of one buffer.
const COPY_BYTES_MAX: usize = 4 * 1024;

/// Why a request's body does not go on.
enum Broken {
    /// It breaks its grammar.
    Grammar,
    /// The client has gone.
    Client,
}

impl Loop {
    /// Goes on with a request: what waits for the client, then the request's body, then the response.
    pub fn exchange(&mut self, key: Key, x: &mut Exchange) -> Step {
        match x.state {
            State::Backoff if x.retry_at <= self.now => return self.try_once(key, x),
            State::Granted => return self.try_once(key, x),
            State::Displaced => return self.answered(key, x, Reason::Displaced, Some(1)),
            State::Backoff | State::Queued => return Step::Blocked,
            State::Connecting => match self.connected(key, x) {
                Ok(true) => {}
                Ok(false) => return Step::Blocked,
                Err(failed) => return self.failed(key, x, failed),
            },
            State::Waiting | State::Responding => {}
        }
        if x.method == Method::Raw || x.method == Method::Connect {
            return Step::On;
        }
        let Loop { clients, buffers, .. } = self;
        let Some(client) = clients.get(key) else { return Step::Finished };
        match client.socket.flush(&mut client.output) {
            Ok(moved) => x.moved |= moved,
            Err(_) => return self.left(key, x),
        }
        buffers.settle(&mut client.output);
        let more = match self.upload(key, x) {
            Ok(more) => more,
            Err(Broken::Grammar) => {
                self.abandon(x);
                if x.state == State::Responding {
                    return self.cut(key, x, Reason::BadBody);
                }
                x.close = true;
                return self.answered(key, x, Reason::BadBody, None);
            }
            Err(Broken::Client) => return self.left(key, x),
        };
        if x.mirrors {
            self.mirror(key, x);
        }
        let step = self.respond(key, x);
        let goes_on = step == Step::On && x.state == State::Responding && x.status != 101;
        if step == Step::Blocked || goes_on {
            self.arm(key, x);
        }
        if step == Step::Blocked && more { Step::On } else { step }
    }

    /// The client went away in the middle.
    fn left(&mut self, key: Key, x: &mut Exchange) -> Step {
        self.abandon(x);
        self.tell_of(x, None);
        self.close(key);
        Step::Finished
    }

    /// Moves the request's body on, at most [`UPLOAD_READS_MAX`] reads of it. True if there may be more at once.
    fn upload(&mut self, key: Key, x: &mut Exchange) -> Result<bool, Broken> {
        let Loop { clients, conns, scratch, buffers, now, .. } = self;
        let Some(client) = clients.get(key) else { return Err(Broken::Client) };
        for _ in 0..=UPLOAD_READS_MAX {
            if let Some(conn) = x.conn.and_then(|conn| conns.get(conn)) {
                let before = x.outgoing.sent;
                if conn.socket.flush(&mut x.outgoing).is_err() {
                    // It may have answered before it closed: the read will tell.
                    (conn.socket.writable, conn.socket.readable, conn.socket.closing) = (false, true, true);
                }
                let sent = x.outgoing.sent > before;
                (x.sent_any, x.moved) = (x.sent_any || sent, x.moved || sent);
            }
            if x.request.has_ended() {
                return Ok(false);
            }
            if x.outgoing.waiting().len() >= OUTGOING_BYTES_MAX {
                return Ok(false);
            }
            if x.outgoing.bytes.len() >= REPLAY_BYTES_MAX && x.outgoing.sent > 0 {
                x.replayable = false;
            }
            if !x.replayable {
                x.outgoing.compact();
            }
            buffers.room(&mut x.outgoing.bytes);
            if client.input.is_empty() {
                if !client.socket.readable {
                    return Ok(false);
                }
                match client.socket.read(scratch) {
                    Ok(Got::Bytes(n)) => {
                        x.moved = true;
                        let taken = x.request.pass(&scratch[..n], &mut x.outgoing.bytes);
                        let taken = taken.map_err(|_| Broken::Grammar)?;
                        if taken < n {
                            buffers.room(&mut client.input);
                            client.input.extend_from_slice(&scratch[taken..n]);
                        }
                    }
                    Ok(Got::Nothing) => return Ok(false),
                    Ok(Got::End) | Err(_) => return Err(Broken::Client),
                }
            } else {
                let taken =
                    x.request.pass(&client.input, &mut x.outgoing.bytes).map_err(|_| Broken::Grammar)?;
                client.input.drain(..taken);
                if client.input.is_empty() {
                    buffers.give(std::mem::take(&mut client.input));
                }
            }
            if x.request.has_ended() {
                x.came = *now;
            }
        }
        Ok(true)
    }

    /// Takes one read of the response.
    fn respond(&mut self, key: Key, x: &mut Exchange) -> Step {
        let Some(client) = self.clients.get(key) else { return Step::Finished };
        if client.is_behind() {
            return Step::Blocked;
        }
        let Some(conn) = x.conn.and_then(|conn| self.conns.get(conn)) else { return Step::Blocked };
        if !conn.connected || !conn.socket.readable {
            return Step::Blocked;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let step = match conn.socket.read(&mut scratch) {
            Ok(Got::Bytes(n)) => {
                x.moved = true;
                self.received(key, x, &scratch[..n])
            }
            Ok(Got::Nothing) => Step::Blocked,
            Ok(Got::End) => self.ended(key, x, true),
            Err(_) => self.ended(key, x, false),
        };
        self.scratch = scratch;
        step
    }

    /// The endpoint's connection has ended: well, or by a reset.
    fn ended(&mut self, key: Key, x: &mut Exchange, well: bool) -> Step {
        x.reusable = false;
        if x.state == State::Responding {
            let mut end = std::mem::take(&mut self.head);
            end.clear();
            let whole = well && x.response.close(&mut end);
            let step = if whole { self.send(key, x, &end, &[]) } else { None };
            self.head = end;
            return match step {
                Some(step) => step,
                None if whole => self.finished(key, x),
                None => self.failed(key, x, Failed::new(Reason::EndpointReset, Progress::Answering)),
            };
        }
        let conn = x.conn.and_then(|conn| self.conns.get(conn));
        let reused = conn.as_ref().is_some_and(|conn| conn.reused);
        let stream = conn.as_ref().and_then(|conn| conn.socket.as_stream());
        let progress = match (stream, reused && x.incoming.is_empty(), x.sent_any) {
            (Some(stream), _, _) => stream.progress(),
            (None, true, _) => Progress::Stale,
            (None, false, true) => Progress::Sent,
            (None, false, false) => Progress::Unconnected,
        };
        let mut failed = Failed::new(Reason::EndpointReset, progress);
        let closed = progress == Progress::Unread || progress == Progress::Stale && x.idempotent;
        if closed && x.tries == 1 && x.replayable {
            // That a server closes connections that wait is nobody's failure, where it costs no more than another try.
            failed.outcome = Outcome::Abandoned;
        }
        self.failed(key, x, failed)
    }

    fn received(&mut self, key: Key, x: &mut Exchange, bytes: &[u8]) -> Step {
        if x.state == State::Responding {
            let mut out = std::mem::take(&mut self.head);
            out.clear();
            let step = self.content(key, x, &mut out, bytes);
            self.head = out;
            return step;
        }
        if x.incoming.is_empty() {
            return self.response_head(key, x, bytes);
        }
        let mut incoming = std::mem::take(&mut x.incoming);
        incoming.extend_from_slice(bytes);
        let step = self.response_head(key, x, &incoming);
        self.buffers.give(incoming);
        step
    }

    /// Reads heads until there is one that is final.
    fn response_head(&mut self, key: Key, x: &mut Exchange, mut bytes: &[u8]) -> Step {
        loop {
            let mut room = Headers::new();
            let head = match Response::parse(x.method.word(), bytes, &mut room) {
                Ok(Some(head)) => head,
                Ok(None) => {
                    self.buffers.room(&mut x.incoming);
                    x.incoming.extend_from_slice(bytes);
                    return Step::On;
                }
                Err(_) => return self.failed(key, x, Failed::new(Reason::BadResponse, Progress::Sent)),
            };
            bytes = &bytes[head.bytes..];
            if head.status == 101 {
                return self.switched(key, x, &head, bytes);
            }
            if head.status >= 200 {
                return self.final_head(key, x, &head, bytes);
            }
            if x.version == Version::Http11 {
                let mut out = std::mem::take(&mut self.head);
                out.clear();
                response(&head, Frame::Plain, Connection::Default, &mut out);
                let step = self.send(key, x, &out, &[]);
                self.head = out;
                if let Some(step) = step {
                    return step;
                }
            }
            if bytes.is_empty() {
                return Step::On;
            }
        }
    }

    fn final_head(&mut self, key: Key, x: &mut Exchange, head: &Response<'_, '_>, bytes: &[u8]) -> Step {
        let route = x.table.plan.routes.get(x.route as usize);
        let again = route.is_some_and(|route| route.retry_statuses.contains(&head.status));
        if again
            && x.idempotent
            && x.replayable
            && x.request.has_ended()
            && x.tries < self.retry_options(x).tries_max
        {
            let failed = Failed::new(Reason::EndpointReset, Progress::Sent);
            return self.instead(key, x, head, bytes, failed);
        }
        self.answer_head(key, x, head, bytes)
    }

    /// Tries again instead of handing on a failure, if the budget allows it.
    fn instead(
        &mut self,
        key: Key,
        x: &mut Exchange,
        head: &Response<'_, '_>,
        bytes: &[u8],
        failed: Failed,
    ) -> Step {
        let (now, options) = (self.now, self.retry_options(x));
        let last = mesh::retry::Try {
            number: x.tries,
            outcome: failed.outcome,
            idempotent: true,
            replayable: true,
            progress: failed.progress,
            came: x.came,
        };
        let verdict = self.services[x.service as usize].upstream.again(now, &options, &last);
        let at = match verdict {
            mesh::retry::Verdict::Stop => return self.answer_head(key, x, head, bytes),
            mesh::retry::Verdict::Fresh => now,
            mesh::retry::Verdict::Again(at) => at,
        };
        self.retry_at(key, x, failed.outcome, at)
    }

    fn answer_head(&mut self, key: Key, x: &mut Exchange, head: &Response<'_, '_>, bytes: &[u8]) -> Step {
        let to = frame(head.body, x.version);
        x.status = head.status;
        x.close |= to == Frame::UntilClose || !x.request.has_ended() || self.stop_at.is_some();
        x.reusable = head.keep_alive && head.body != Body::UntilClose;
        x.response = Relay::new(head.body, to);
        if self.clients.get(key).is_some_and(|client| client.socket.is_stream()) {
            x.response = x.response.clone().with_trailers();
        }
        x.state = State::Responding;
        let connection = match (x.close, x.version) {
            (true, _) => Connection::Close,
            (false, Version::Http10) => Connection::KeepAlive,
            (false, Version::Http11) => Connection::Default,
        };
        let mut out = std::mem::take(&mut self.head);
        out.clear();
        response(head, to, connection, &mut out);
        self.stick(x, &mut out);
        let step = self.content(key, x, &mut out, bytes);
        self.head = out;
        step
    }

    /// Sends `out` and what the bytes bring of the body.
    fn content(&mut self, key: Key, x: &mut Exchange, out: &mut Vec<u8>, bytes: &[u8]) -> Step {
        let plain = x.response.plain(bytes.len());
        let rest = &bytes[plain..];
        let (second, taken) = if plain > 0 {
            (&bytes[..plain], 0)
        } else {
            match x.response.pass(rest, out) {
                Ok(taken) => (&bytes[..0], taken),
                Err(_) => return self.failed(key, x, Failed::new(Reason::BadResponse, Progress::Answering)),
            }
        };
        if taken < rest.len() {
            // What is behind the end is no answer to anything.
            x.reusable = false;
        }
        let second = if second.len() <= COPY_BYTES_MAX && !out.is_empty() {
            out.extend_from_slice(second);
            &bytes[..0]
        } else {
            second
        };
        if let Some(step) = self.send(key, x, out, second) {
            return step;
        }
        if x.response.has_ended() { self.finished(key, x) } else { Step::On }
    }

    /// Sends to the client; what it does not take waits. A step if the client has gone.
    fn send(&mut self, key: Key, x: &mut Exchange, first: &[u8], second: &[u8]) -> Option<Step> {
        let Loop { clients, buffers, meters, .. } = self;
        let Some(client) = clients.get(key) else { return Some(Step::Finished) };
        if !client.is_mirror {
            meters.output_bytes.add((first.len() + second.len()) as u64);
        }
        let sent = if client.output.is_empty() { client.socket.write(first, second) } else { Ok(0) };
        match sent {
            Ok(sent) => {
                buffers.extend(&mut client.output, &first[sent.min(first.len())..]);
                buffers.extend(&mut client.output, &second[sent.saturating_sub(first.len())..]);
                None
            }
            Err(_) => Some(self.left(key, x)),
        }
    }

    /// Sets the moment at which this request has waited too long.
    pub fn arm(&mut self, key: Key, x: &mut Exchange) {
        let limits = &x.table.plan.limits;
        let options = self.retry_options(x);
        let connect_ms = self.services[x.service as usize].plan.connect_ms;
        let whole = x.request.has_ended() && x.outgoing.is_empty();
        let deadline = match x.state {
            State::Backoff | State::Queued | State::Granted | State::Displaced => return,
            State::Connecting => self.now.plus_millis(connect_ms),
            State::Waiting if whole => {
                let asked = *x.asked.get_or_insert(self.now);
                asked.plus_millis(options.try_ms).min(x.came.plus_millis(options.total_ms))
            }
            // What keeps a connection from being given up is bytes that move, not events that move none.
            State::Waiting | State::Responding if !std::mem::take(&mut x.moved) => return,
            State::Waiting | State::Responding => self.now.plus_millis(limits.body_ms),
        };
        if let Some(client) = self.clients.get(key) {
            self.timers.set(&mut client.timer, Whose::Client(key), deadline);
        }
    }

    /// It has waited too long.
    pub fn late(&mut self, key: Key, x: &mut Exchange) -> Step {
        let Some(client) = self.clients.get(key) else { return Step::Finished };
        match x.state {
            State::Backoff => self.try_once(key, x),
            State::Queued => {
                self.leave_queue(x);
                self.answered(key, x, Reason::QueueTimeout, Some(1))
            }
            // Its turn is at the end of this one.
            State::Granted | State::Displaced => Step::Blocked,
            State::Connecting => self.failed(key, x, Failed::late(Progress::Unconnected)),
            State::Waiting if x.outgoing.is_empty() && !x.request.has_ended() => {
                self.abandon(x);
                x.close = true;
                self.answered(key, x, Reason::SlowRequest, None)
            }
            State::Waiting => {
                let conn = x.conn.and_then(|conn| self.conns.get(conn));
                let stream = conn.as_ref().and_then(|conn| conn.socket.as_stream());
                stream.inspect(|stream| stream.note_late());
                let unread = stream.is_some_and(|stream| stream.progress() == Progress::Unread);
                let progress = if x.sent_any && !unread { Progress::Sent } else { Progress::Unconnected };
                self.failed(key, x, Failed::late(progress))
            }
            State::Responding if client.is_behind() => {
                self.abandon(x);
                self.cut(key, x, Reason::SlowRequest)
            }
            State::Responding => self.failed(key, x, Failed::late(Progress::Answering)),
        }
    }
}
