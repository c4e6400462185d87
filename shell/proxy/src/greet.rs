//! Clients whose connections begin with TLS: for whom they are, and whether their TLS is opened here.
//!
//! A hello is read before anything is answered only where some connections are passed on unopened. It has the time of a
//! request's head, and so has what follows it until TLS is agreed on.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustls::Connection;
use wire::tls::Hello;

use crate::conn::Phase;
use crate::mutual::not_taken;
use crate::plan::{ListenerKind, TlsPlan};
use crate::slab::Key;
use crate::socket::Got;
use crate::timers::Whose;
use crate::worker::{Loop, Step, Table};

/// What is done with a client that begins.
pub(crate) struct Greeting {
    pub kind: ListenerKind,
    pub tls: Arc<TlsPlan>,
    /// The plan that `tls` is of.
    pub table: Rc<Table>,
}

impl Loop {
    /// A client begins with TLS.
    pub fn begin_tls(&mut self, key: Key, greeting: Greeting) {
        let Some(client) = self.clients.get(key) else { return };
        client.phase = Phase::Hello;
        if greeting.tls.passthrough.is_empty() {
            client.phase = Phase::Shaking;
            match greeting.tls.terminate.as_ref().map(|tls| tls.begin()) {
                Some(Ok(tls)) => client.socket.wrap(tls),
                Some(Err(_)) | None => return self.unsecured(key, None),
            }
        }
        client.greeting = Some(Box::new(greeting));
    }

    /// Reads for whom a client is.
    pub fn hello(&mut self, key: Key) -> Step {
        let Loop { clients, scratch, .. } = self;
        let Some(client) = clients.get(key) else { return Step::Blocked };
        if !client.socket.readable {
            return Step::Blocked;
        }
        match client.socket.read(scratch) {
            Ok(Got::Bytes(n)) => client.input.extend_from_slice(&scratch[..n]),
            Ok(Got::Nothing) => return Step::Blocked,
            Ok(Got::End) | Err(_) => {
                self.unsecured(key, None);
                return Step::Blocked;
            }
        }
        let hello = match Hello::parse(&client.input) {
            Ok(Some(hello)) => hello,
            Ok(None) => return Step::On,
            Err(error) => {
                self.unsecured(key, Some(&error));
                return Step::Blocked;
            }
        };
        let Some(greeting) = &client.greeting else { return Step::Blocked };
        if let Some(service) = greeting.tls.passes(hello.name.as_deref()) {
            let slot = greeting.table.services[service as usize];
            client.greeting = None;
            self.begin_raw(key, slot);
            return Step::On;
        }
        let Some(Ok(mut tls)) = greeting.tls.terminate.as_ref().map(|tls| tls.begin()) else {
            self.unsecured(key, None);
            return Step::Blocked;
        };
        let input = std::mem::take(&mut client.input);
        let fed = feed(&mut tls, &input);
        client.socket.wrap(tls);
        client.phase = Phase::Shaking;
        self.buffers.give(input);
        if let Err(error) = fed {
            self.unsecured(key, Some(&error));
            return Step::Blocked;
        }
        Step::On
    }

    /// Goes on with what a client and we agree on.
    pub fn shaking(&mut self, key: Key) -> Step {
        let deadline = self.now.plus_millis(self.table.plan.limits.head_ms);
        let Some(client) = self.clients.get(key) else { return Step::Blocked };
        match client.socket.shake() {
            Ok(true) => {}
            Ok(false) => return Step::Blocked,
            Err(error) => {
                self.unsecured(key, Some(&error));
                return Step::Blocked;
            }
        }
        let member = client.greeting.as_ref().and_then(|greeting| greeting.tls.terminate.as_ref()?.node());
        if let Some(node) = member.cloned()
            && !self.name_client(key, &node)
        {
            self.unsecured(key, None);
            return Step::Blocked;
        }
        self.meters.handshakes.increment();
        let Some(client) = self.clients.get(key) else { return Step::Blocked };
        client.is_secured = true;
        client.phase = Phase::Open;
        let is_http2 = client.socket.tls().and_then(|tls| tls.alpn_protocol()) == Some(b"h2");
        self.timers.set(&mut client.timer, Whose::Client(key), deadline);
        let Some(greeting) = client.greeting.take() else { return Step::On };
        if is_http2 {
            self.begin_session(key, &[]);
        } else if let ListenerKind::Tcp { service } = greeting.kind {
            self.begin_raw(key, greeting.table.services[service as usize]);
        }
        Step::On
    }

    /// Nothing could be agreed on; an alert that says why has gone as far as it goes.
    fn unsecured(&mut self, key: Key, error: Option<&(dyn std::error::Error + 'static)>) {
        if let (Some(error), Some(client)) = (error, self.clients.get(key)) {
            // If the alert cannot be sent the client sees an end.
            let _ = client.socket.push();
            tracing::debug!(%error, client = %client.name, "a client's TLS cannot be agreed on");
            if let Some(reason) = not_taken(error) {
                let name = client.name.clone();
                self.tell_stranger(&name, reason);
            }
        }
        self.meters.handshake_failures.increment();
        self.close(key);
    }
}

/// Gives TLS what was read already.
fn feed(tls: &mut Connection, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes)?;
        tls.process_new_packets().map_err(io::Error::other)?;
    }
    Ok(())
}
