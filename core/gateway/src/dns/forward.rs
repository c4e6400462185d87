//! Questions for others: which are asked of them, how, and what of their answers is handed on.
//!
//! A question is written anew from what was understood of the client's: its options stay here. An answer is taken when it has the
//! id and the question that were sent, and handed on as it is, under the client's id; what a datagram does not hold is
//! asked again over TCP. Nothing is kept.

use alloc::vec::Vec;

use mesh::registry::View;
use wire::dns::{Edns, Query, Rcode, Response, TCP_BYTES_MAX};

use super::{Found, Transport, Zone};

/// What a server says that did not do what it was asked: another one is.
const UNABLE: [u8; 3] = [2, 4, 5];

/// A client's question for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    client: Query,
    sent: Query,
    transport: Transport,
}

/// What a message of another server is to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// None to this question: it is still waited for.
    Foreign,
    /// It could not be answered there; another server is asked.
    Unable,
    /// The answer.
    Taken,
}

impl Zone {
    /// The question in `message`, if it is one for others: it wants recursion, and is none of the zone. `id` is drawn by chance.
    #[must_use]
    pub fn forwarded(&self, view: &View, message: &[u8], transport: Transport, id: u16) -> Option<Forwarded> {
        let client = Query::decode(message).ok()?;
        let is_known = client.edns.is_none_or(|edns| edns.version == 0);
        if !self.forwards || !client.recursion || client.class != 1 || !is_known {
            return None;
        }
        if !matches!(self.find(view, &client.name), Found::Foreign) {
            return None;
        }
        let bytes_max = u16::try_from(client.datagram_bytes_max()).unwrap_or(u16::MAX);
        // Who does not speak EDNS is not answered in it (RFC 6891, 7).
        let edns = client.edns.map(|edns| Edns { payload: bytes_max, ..edns });
        let sent = Query { id, edns, ..client.clone() };
        Some(Forwarded { client, sent, transport })
    }
}

impl Forwarded {
    /// What is sent.
    pub fn question(&self, out: &mut Vec<u8>) {
        self.sent.encode(out);
    }

    /// What `message`, from the server that was asked, is.
    #[must_use]
    pub fn judge(&self, message: &[u8]) -> Verdict {
        match self.sent.answered(message) {
            Err(_) => Verdict::Foreign,
            Ok(answered) if UNABLE.contains(&answered.rcode) => Verdict::Unable,
            Ok(_) => Verdict::Taken,
        }
    }

    /// What the client is told when `message` was taken; without one, that it could not be answered. Never more than it takes.
    pub fn answer(&self, message: Option<&[u8]>, out: &mut Vec<u8>) {
        let bytes_max = match self.transport {
            Transport::Udp => self.client.datagram_bytes_max(),
            Transport::Tcp => TCP_BYTES_MAX,
        };
        match message {
            Some(message) if message.len() <= bytes_max && message.len() > 2 => {
                out.extend_from_slice(&self.client.id.to_be_bytes());
                out.extend_from_slice(&message[2..]);
            }
            told => {
                let rcode = if told.is_some() { Rcode::NoError } else { Rcode::ServFail };
                let mut response = Response::new(&self.client, rcode, bytes_max, out);
                response.recursion_available();
                if told.is_some() {
                    response.truncated();
                }
                response.finish();
            }
        }
    }
}
