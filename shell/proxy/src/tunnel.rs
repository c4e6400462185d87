//! Bytes that go through in both directions without a look at them: TCP, CONNECT, and connections that were upgraded.
//!
//! Each direction ends by itself: an end that was read is passed on when all before it was sent. A reset is passed on as one.

use mesh::Outcome;
use mesh::retry::Progress;
use wire::http1::{Connection, Frame, Response, response};

use crate::answer::Reason;
use crate::buffers::{Buffer, Buffers};
use crate::conn::{Exchange, Method, Phase};
use crate::slab::Key;
use crate::socket::{Got, Socket};
use crate::timers::Whose;
use crate::tries::Failed;
use crate::worker::{Loop, Step};

impl Loop {
    /// The connection to the endpoint is there, and from now on it is the client's.
    pub fn tunnelled(&mut self, key: Key, x: &mut Exchange) {
        x.status = 200;
        self.lasts(x);
        let Some(client) = self.clients.get(key) else { return };
        client.phase = Phase::Tunnel;
        let deadline = self.now.plus_millis(x.table.plan.limits.tunnel_ms);
        self.timers.set(&mut client.timer, Whose::Client(key), deadline);
        if x.method == Method::Connect {
            self.buffers.extend(&mut client.output, b"HTTP/1.1 200 Connection Established\r\n\r\n");
        }
        let input = std::mem::take(&mut client.input);
        self.buffers.extend(&mut x.outgoing, &input);
        self.buffers.give(input);
    }

    /// The endpoint changes the protocol, which it may if it was asked to.
    pub fn switched(&mut self, key: Key, x: &mut Exchange, head: &Response<'_, '_>, rest: &[u8]) -> Step {
        if !x.upgrade || !x.request.has_ended() || !x.outgoing.is_empty() {
            return self.failed(key, x, Failed::new(Reason::BadResponse, Progress::Sent));
        }
        x.status = 101;
        self.lasts(x);
        x.outgoing.bytes.clear();
        x.outgoing.sent = 0;
        let mut out = std::mem::take(&mut self.head);
        out.clear();
        response(head, Frame::Plain, Connection::Upgrade, &mut out);
        out.extend_from_slice(rest);
        if let Some(client) = self.clients.get(key) {
            self.buffers.extend(&mut client.output, &out);
            client.phase = Phase::Tunnel;
            let deadline = self.now.plus_millis(x.table.plan.limits.tunnel_ms);
            self.timers.set(&mut client.timer, Whose::Client(key), deadline);
            let input = std::mem::take(&mut client.input);
            self.buffers.extend(&mut x.outgoing, &input);
            self.buffers.give(input);
        }
        self.head = out;
        Step::On
    }

    /// Moves what there is in both directions.
    pub fn tunnel(&mut self, key: Key, x: &mut Exchange) -> Step {
        let Loop { clients, conns, scratch, buffers, timers, now, .. } = self;
        let Some(client) = clients.get(key) else { return Step::Finished };
        let Some(conn) = x.conn.and_then(|conn| conns.get(conn)) else { return self.broken(key, x) };
        let there = pump(&mut client.socket, &mut conn.socket, &mut x.outgoing, scratch, buffers);
        let back = pump(&mut conn.socket, &mut client.socket, &mut client.output, scratch, buffers);
        let (Ok(there), Ok(back)) = (there, back) else { return self.broken(key, x) };
        if client.socket.is_shut() && conn.socket.is_shut() {
            return self.passed(key, x);
        }
        if there || back {
            let deadline = now.plus_millis(x.table.plan.limits.tunnel_ms);
            timers.set(&mut client.timer, Whose::Client(key), deadline);
            return Step::On;
        }
        Step::Blocked
    }

    /// Both directions have ended.
    fn passed(&mut self, key: Key, x: &mut Exchange) -> Step {
        self.drop_conn(x);
        self.end_tunnel(x, Outcome::Success);
        self.close(key);
        Step::Finished
    }

    /// One end was reset, so the other is.
    fn broken(&mut self, key: Key, x: &mut Exchange) -> Step {
        if let Some(conn) = x.conn.and_then(|conn| self.conns.get(conn)) {
            conn.socket.poison();
        }
        self.drop_conn(x);
        self.end_tunnel(x, Outcome::Abandoned);
        if let Some(client) = self.clients.get(key) {
            client.socket.poison();
        }
        self.close(key);
        Step::Finished
    }
}

/// Moves what there is from one socket to the other. Whether anything was.
fn pump(
    from: &mut Socket,
    to: &mut Socket,
    buffer: &mut Buffer,
    scratch: &mut [u8],
    buffers: &mut Buffers,
) -> std::io::Result<bool> {
    let mut moved = to.flush(buffer)?;
    buffers.settle(buffer);
    if buffer.is_empty() && !to.holds() && from.readable && !from.ended {
        match from.read(scratch)? {
            Got::Bytes(n) => {
                let sent = to.write(&scratch[..n], &[])?;
                buffers.extend(buffer, &scratch[sent..n]);
                moved = true;
            }
            Got::Nothing => {}
            Got::End => moved = true,
        }
    }
    if from.ended && buffer.is_empty() && !to.is_shutting() {
        to.shut();
        moved = true;
    }
    Ok(moved)
}
