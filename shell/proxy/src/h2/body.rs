//! Bodies: out of frames into HTTP/1.1, and out of HTTP/1.1 into frames.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use wire::http1::{Body, Frame, Relay};

use super::ends::{Ends, Flow};
use super::message;

/// A body that comes in frames.
pub(super) struct Inlet {
    recv: RecvStream,
    chunked: bool,
    has_ended: bool,
}

impl Inlet {
    pub fn new(recv: RecvStream, chunked: bool) -> Inlet {
        let has_ended = recv.is_end_stream();
        Inlet { recv, chunked, has_ended }
    }

    /// Puts before the proxy what came, as long as there is room. True if something was.
    pub fn pump(&mut self, ends: &mut Ends, cx: &mut Context<'_>) -> Result<bool, h2::Error> {
        let mut moved = false;
        while !self.has_ended && ends.has_room() {
            match self.recv.poll_data(cx) {
                Poll::Pending => return Ok(moved),
                Poll::Ready(Some(data)) => {
                    let data = data?;
                    if self.chunked && !data.is_empty() {
                        ends.give(format!("{:x}\r\n", data.len()).as_bytes());
                    }
                    ends.give(&data);
                    if self.chunked && !data.is_empty() {
                        ends.give(b"\r\n");
                    }
                    // The room here is what bounds it from now on.
                    self.recv.flow_control().release_capacity(data.len())?;
                }
                Poll::Ready(None) => match self.recv.poll_trailers(cx) {
                    Poll::Pending => return Ok(moved),
                    Poll::Ready(trailers) => {
                        self.end(trailers?.as_ref(), ends);
                    }
                },
            }
            moved = true;
        }
        Ok(moved)
    }

    fn end(&mut self, trailers: Option<&HeaderMap>, ends: &mut Ends) {
        self.has_ended = true;
        if self.chunked {
            let mut last = b"0\r\n".to_vec();
            if let Some(trailers) = trailers {
                message::fields(trailers, &mut last);
            }
            last.extend_from_slice(b"\r\n");
            ends.give(&last);
        }
        ends.inward_flow = Flow::Ended;
    }
}

/// A body that goes out in frames.
pub(super) struct Outlet {
    send: SendStream<Bytes>,
    relay: Relay,
    /// Content that there was no room for.
    content: Bytes,
    has_ended: bool,
}

/// Why a body does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The other end of the connection will not have it.
    There,
    /// The proxy has cut it.
    Here,
}

impl Outlet {
    /// With `has_ended` the head has said that there is none.
    pub fn new(send: SendStream<Bytes>, body: Body, has_ended: bool) -> Outlet {
        Outlet {
            send,
            relay: Relay::new(body, Frame::Plain).with_trailers(),
            content: Bytes::new(),
            has_ended,
        }
    }

    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub fn stream(&mut self) -> &mut SendStream<Bytes> {
        &mut self.send
    }

    /// Sends what the proxy has given and the other end has room for. True if something was.
    pub fn pump(&mut self, ends: &mut Ends) -> Result<bool, Broken> {
        let mut moved = false;
        while !self.has_ended {
            if ends.outward_flow == Flow::Cut {
                return Err(Broken::Here);
            }
            if self.content.is_empty() && !ends.outward.is_empty() && !self.relay.has_ended() {
                let mut content = Vec::new();
                let taken =
                    self.relay.pass(ends.outward.waiting(), &mut content).map_err(|_| Broken::Here)?;
                ends.outward.advance(taken);
                self.content = Bytes::from(content);
                moved = true;
            }
            if self.content.is_empty() && !self.relay.has_ended() {
                if !ends.outward.is_empty() {
                    continue;
                }
                match ends.outward_flow {
                    Flow::Open if !ends.is_dropped => return Ok(moved),
                    Flow::Ended if self.relay.close(&mut Vec::new()) => {}
                    Flow::Open | Flow::Ended | Flow::Cut => return Err(Broken::Here),
                }
            }
            let wanted = self.content.len();
            self.send.reserve_capacity(wanted);
            let n = wanted.min(self.send.capacity());
            if n == 0 && wanted > 0 {
                return Ok(moved);
            }
            let data = self.content.split_to(n);
            let is_all = self.content.is_empty() && self.relay.has_ended();
            let trailers = if is_all { message::trailers(self.relay.trailers()) } else { None };
            let is_end = is_all && trailers.is_none();
            if n > 0 || is_end {
                self.send.send_data(data, is_end).map_err(|_| Broken::There)?;
            }
            if let Some(trailers) = trailers {
                self.send.send_trailers(trailers).map_err(|_| Broken::There)?;
            }
            (self.has_ended, moved) = (is_all, true);
        }
        Ok(moved)
    }
}
