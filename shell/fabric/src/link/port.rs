//! The port: who comes is judged at the door before anything is done for it.

use std::io;
use std::net::SocketAddr;

use kernel::Micros;
use mio::net::TcpStream;
use rustls::server::Acceptor;

use super::Cause;
use super::connection::{Stage, Tls, Wire};
use super::door::{Source, Standing};
use super::frame::Decoder;
use super::links::Links;

/// Connections taken from the port in one turn.
const ACCEPTS_MAX: usize = 64;
/// After the system refused a connection (out of descriptors), the next try, in milliseconds.
const ACCEPT_WAIT_MS: u64 = 100;

impl Links {
    pub(super) fn accept(&mut self, now: Micros) {
        self.accepting = None;
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, address)) => self.admit(stream, address, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_of_one_client(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection between nodes could not be accepted");
                    self.accepting = Some(now.plus_millis(ACCEPT_WAIT_MS));
                    return;
                }
            }
        }
        self.accepting = Some(now);
    }

    fn admit(&mut self, stream: TcpStream, address: SocketAddr, now: Micros) {
        self.meters.accepted.increment();
        let source = Source::of(address.ip());
        let standing = if self.homes.contains(&source) { Standing::Member } else { Standing::Stranger };
        if let Err(turned) = self.door.admit(now, source, standing) {
            self.tell(now, address, Cause::Turned(turned));
            return;
        }
        let tls = Tls::Accepting(Box::<Acceptor>::default());
        let mut state = self.state(Stage::Handshake(None), address, now);
        state.admitted = Some(source);
        if let Err(state) = self.place(Wire { stream, tls, decoder: Decoder::new(0) }, state) {
            self.release(&mut state.admitted.clone(), now);
            self.meters.end(Cause::NoRoom);
        }
        self.meters.handshakes.set(self.door.handshakes() as u64);
    }
}

/// Errors that are about one connection that came, and not about the port.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), Interrupted | ConnectionAborted | ConnectionReset)
}
