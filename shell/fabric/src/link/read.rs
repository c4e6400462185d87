//! What arrives: bytes to TLS, plaintext to frames, frames to their stage.

use std::io::{BufRead, Read};

use kernel::{Micros, NodeId, Spoken};
use rustls::{AlertDescription, Connection, Error};

use super::connection::{Aim, Client, Conn, Dial, Stage, State, Tls, Up, Wire};
use super::event::{Event, JoinId};
use super::frame::{Frame, Kind};
use super::greeting::Hello;
use super::links::Links;
use super::settle::{self, Own, Side, Verdict};
use super::tls::{ALPN_JOIN, ALPN_LINK, binding_of, peer_of};
use super::{Cause, Lane};
use crate::join::JoinRequest;

/// Where frames of data go: from whom, on which lane, the payload.
type Receive<'a> = &'a mut dyn FnMut(NodeId, Lane, &[u8]);

/// Whoever sends so many frames at once sends more by the time these are taken: it is cheaper to look again than to
/// be woken for it, and to answer all at once.
const FRAMES_UNDER_LOAD: u64 = 2;

impl Links {
    /// Hands on what waited for the host to take the events before it.
    pub(super) fn hand_on_late(&mut self, receive: Receive<'_>) {
        if self.events.is_empty() {
            self.late.drain(..).for_each(|late| receive(late.node, late.lane, &late.bytes));
        }
    }

    /// Reads a connection, as much as is its share of a turn.
    pub(super) fn read(&mut self, slot: usize, now: Micros, receive: Receive<'_>) {
        if !self.late.is_empty() {
            // One connection's share waits already; nothing is to overtake it.
            self.again.push(slot);
            return;
        }
        // It is taken out, because what arrives on it may end others.
        let ready = self.conns.get_mut(slot).and_then(|place| place.take_if(|conn| !conn.state.held));
        let Some(mut conn) = ready else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        let outcome = self.read_some(slot, &mut conn, &mut scratch, now, receive);
        self.scratch = scratch;
        match outcome {
            Ok(()) => {
                self.conns[slot] = Some(conn);
                // What TLS or a stage has to say goes out with the turn.
                if self.conns[slot].as_ref().is_some_and(|conn| !conn.is_flushed()) {
                    self.mark(slot);
                }
            }
            Err(cause) => {
                // An alert tells the other end what is wrong; whether it arrives does not matter.
                let _ = conn.flush(0);
                self.end(slot, *conn, cause, now);
            }
        }
    }

    fn read_some(
        &mut self,
        slot: usize,
        conn: &mut Conn,
        scratch: &mut [u8],
        now: Micros,
        receive: Receive<'_>,
    ) -> Result<(), Cause> {
        let share = conn.state.lane().unwrap_or(Lane::Control).turn_bytes_max();
        let mut left = share;
        loop {
            let n = match conn.wire.stream.read(scratch) {
                Ok(0) => return Err(Cause::Lost),
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(Cause::Lost),
            };
            self.meters.bytes_in.add(n as u64);
            let before = self.meters.frames_in.get();
            let mut input = &scratch[..n];
            while !input.is_empty() {
                self.take_bytes(slot, conn, &mut input, now, receive)?;
            }
            if n < scratch.len() && self.meters.frames_in.get() - before < FRAMES_UNDER_LOAD {
                // The kernel had no more; what comes later is a new event.
                return Ok(());
            }
            left = left.saturating_sub(n);
            if left == 0 {
                self.again.push(slot);
                return Ok(());
            }
        }
    }

    /// Gives TLS some of `input`, and does what follows from it.
    fn take_bytes(
        &mut self,
        slot: usize,
        conn: &mut Conn,
        input: &mut &[u8],
        now: Micros,
        receive: Receive<'_>,
    ) -> Result<(), Cause> {
        let Conn { wire, state } = conn;
        let tls = match &mut wire.tls {
            Tls::Accepting(acceptor) => {
                acceptor.read_tls(input).map_err(|_| Cause::Garbage)?;
                match acceptor.accept() {
                    Ok(None) => {}
                    Ok(Some(accepted)) => {
                        let hello = accepted.client_hello();
                        let chosen = hello.alpn().and_then(|mut names| self.tls.server(&mut names));
                        let (_, config) = chosen.ok_or(Cause::Garbage)?;
                        let server = accepted.into_connection(config).map_err(|(error, mut alert)| {
                            let _ = alert.write_all(&mut wire.stream);
                            fault(&error)
                        })?;
                        wire.tls = Tls::Open(Box::new(Connection::Server(server)));
                    }
                    Err((_, mut alert)) => {
                        let _ = alert.write_all(&mut wire.stream);
                        return Err(Cause::Garbage);
                    }
                }
                return Ok(());
            }
            Tls::Open(tls) => tls,
        };
        // It refuses only when its buffers are full, and they are emptied below.
        tls.read_tls(input).map_err(|_| Cause::Garbage)?;
        let processed = tls.process_new_packets().map_err(|error| fault(&error))?;
        if matches!(state.stage, Stage::Handshake(_)) && !tls.is_handshaking() {
            self.shaken(tls, state)?;
        }
        if processed.plaintext_bytes_to_read() > 0 {
            self.plaintext(slot, wire, state, now, receive)?;
        }
        if processed.peer_has_closed() { Err(Cause::Lost) } else { Ok(()) }
    }

    /// The handshake is over: both keys are proven.
    fn shaken(&self, tls: &Connection, state: &mut State) -> Result<(), Cause> {
        let node = peer_of(tls).ok_or(Cause::Garbage)?;
        let Stage::Handshake(dial) = std::mem::replace(&mut state.stage, Stage::Ending) else {
            unreachable!("it is called in the handshake")
        };
        state.stage = match dial {
            None => match tls.alpn_protocol() {
                Some(ALPN_LINK) => Stage::Greeting(Client::Member(node)),
                Some(ALPN_JOIN) => {
                    let binding = binding_of(tls).ok_or(Cause::Garbage)?;
                    Stage::Greeting(Client::Newcomer { node, binding })
                }
                _ => return Err(Cause::Garbage),
            },
            Some(dial) => {
                // A server that chose no protocol is none of ours.
                let (expected, frame) = match &dial.aim {
                    Aim::Link(lane) => {
                        let hello = self.hello(*lane);
                        (ALPN_LINK, (Kind::Hello, hello.encode()))
                    }
                    Aim::Join(ask) => {
                        let binding = binding_of(tls).ok_or(Cause::Garbage)?;
                        let request = JoinRequest::new(
                            &ask.0,
                            (self.id, self.settings.spoken),
                            &binding,
                            ask.1.clone(),
                        );
                        let mut payload = Vec::new();
                        request.encode(&mut payload);
                        (ALPN_JOIN, (Kind::JoinRequest, payload))
                    }
                };
                if tls.alpn_protocol() != Some(expected) {
                    state.stage = Stage::Handshake(Some(dial));
                    return Err(Cause::Garbage);
                }
                state.queue(frame.0, &frame.1);
                Stage::Greeted(dial)
            }
        };
        Ok(())
    }

    fn plaintext(
        &mut self,
        slot: usize,
        wire: &mut Wire,
        state: &mut State,
        now: Micros,
        receive: Receive<'_>,
    ) -> Result<(), Cause> {
        let Wire { tls: Tls::Open(tls), decoder, .. } = wire else { return Ok(()) };
        let mut reader = tls.reader();
        let mut any = false;
        let mut data = 0;
        while let Ok(chunk) = reader.fill_buf()
            && !chunk.is_empty()
        {
            let (length, mut rest) = (chunk.len(), chunk);
            while let Some(frame) = decoder.next(&mut rest).map_err(Cause::Frame)? {
                any = true;
                if let (Stage::Up(up), Kind::Data) = (&state.stage, frame.kind) {
                    data += 1;
                    if self.events.is_empty() {
                        receive(up.node, up.lane, frame.payload);
                    } else {
                        let (node, lane) = (up.node, up.lane);
                        self.late.push(Late { slot, node, lane, bytes: frame.payload.to_vec() });
                    }
                } else if let Some(limit) = self.take_frame(slot, state, frame, now)? {
                    decoder.set_data_bytes_max(limit);
                }
            }
            reader.consume(length);
        }
        self.meters.frames_in.add(data);
        state.watch.heard(now, any, decoder.is_inside());
        Ok(())
    }

    /// A frame that is not data of a link: what it means depends on the stage. Returns the limit of data
    /// frames from here on, if it changes.
    fn take_frame(
        &mut self,
        slot: usize,
        state: &mut State,
        frame: Frame<'_>,
        now: Micros,
    ) -> Result<Option<usize>, Cause> {
        match (&state.stage, frame.kind) {
            (Stage::Up(_), Kind::Beat) => Ok(None),
            (Stage::Greeting(Client::Member(node)), Kind::Hello) => {
                let node = *node;
                let hello = understood(frame.payload, self.settings.spoken)?;
                self.greet(slot, state, node, hello, now).map(Some)
            }
            (Stage::Greeted(Dial { node, aim: Aim::Link(lane) }), Kind::Hello) => {
                let (node, lane) = (*node, *lane);
                let hello = understood(frame.payload, self.settings.spoken)?;
                if hello.lane != lane {
                    return Err(Cause::Unexpected);
                }
                self.bring_up(slot, state, Side::Us, node, hello, now);
                Ok(Some(lane.frame_bytes_max()))
            }
            (Stage::Greeting(Client::Newcomer { node, binding }), Kind::JoinRequest) => {
                let request = JoinRequest::decode(frame.payload).map_err(|_| Cause::Unexpected)?;
                let (node, binding) = (*node, *binding);
                let id = JoinId { slot, serial: state.serial };
                self.joining(
                    state,
                    Event::Joining { id, node, address: state.address, request, binding },
                    now,
                )?;
                Ok(None)
            }
            (Stage::Greeted(Dial { node, aim: Aim::Join(_) }), Kind::JoinAnswer) => {
                self.events.push(Event::Joined { introducer: *node, answer: frame.payload.to_vec() });
                Err(Cause::Answered)
            }
            _ => Err(Cause::Unexpected),
        }
    }

    /// A member that dialled us greets: is its connection the link?
    fn greet(
        &mut self,
        slot: usize,
        state: &mut State,
        node: NodeId,
        hello: Hello,
        now: Micros,
    ) -> Result<usize, Cause> {
        let lane = hello.lane;
        let (id, place) = (self.id, &self.peer(now, node).lanes[lane.index()]);
        let (dial, up) = (place.dial, place.up);
        let own = match (
            up.and_then(|up| self.conns[up].as_ref()),
            dial.and_then(|dial| self.conns[dial].as_ref()),
        ) {
            (Some(conn), _) => match &conn.state.stage {
                Stage::Up(up) => Own::Up(settle::Link {
                    dialled: up.dialled,
                    incarnation: up.incarnation,
                    age_ms: now.since(up.since) / 1000,
                }),
                _ => Own::Nothing,
            },
            (None, Some(conn)) if matches!(conn.state.stage, Stage::Greeted(_)) => Own::Greeted,
            (None, Some(_)) => Own::Dialling,
            (None, None) => Own::Nothing,
        };
        match settle::settle(id, node, own, hello.incarnation) {
            Verdict::Refuse => Err(Cause::Settled),
            Verdict::Take => {
                dial.into_iter().chain(up).for_each(|slot| self.close(slot, Cause::Settled, now));
                let answer = self.hello(lane);
                state.queue(Kind::Hello, &answer.encode());
                self.bring_up(slot, state, Side::Peer, node, hello, now);
                Ok(lane.frame_bytes_max())
            }
        }
    }

    /// The connection is the link now.
    fn bring_up(
        &mut self,
        slot: usize,
        state: &mut State,
        dialled: Side,
        node: NodeId,
        hello: Hello,
        now: Micros,
    ) {
        let Hello { spoken, lane, incarnation } = hello;
        self.release(&mut state.admitted, now);
        let place = &mut self.peer(now, node).lanes[lane.index()];
        assert!(place.up.is_none(), "a lane has one link");
        place.dial = None;
        place.up = Some(slot);
        place.redial.succeed(now);
        state.stage = Stage::Up(Up { node, lane, dialled, incarnation, spoken, since: now });
        state.watch.up(now);
        self.wake_at = self.wake_at.min(state.watch.deadline());
        self.meters.opened.increment();
        self.meters.up.set(self.meters.up.get() + 1);
        self.events.push(Event::Up { node, lane, incarnation, spoken });
    }

    /// What is spoken here.
    #[must_use]
    pub const fn spoken(&self) -> Spoken {
        self.settings.spoken
    }

    /// From now on this is spoken here: a cluster that rose leaves older versions behind, and links of those who speak
    /// only these are closed.
    pub fn speak(&mut self, now: Micros, spoken: Spoken) {
        self.settings.spoken = spoken;
        let left_behind: Vec<(usize, Spoken)> = (self.conns.iter().enumerate())
            .filter_map(|(slot, conn)| match &conn.as_ref()?.state.stage {
                Stage::Up(up) if spoken.agree(up.spoken).is_none() => Some((slot, up.spoken)),
                _ => None,
            })
            .collect();
        for (slot, theirs) in left_behind {
            self.close(slot, Cause::Version { theirs, ours: spoken }, now);
        }
    }

    fn hello(&self, lane: Lane) -> Hello {
        Hello { spoken: self.settings.spoken, lane, incarnation: self.settings.incarnation }
    }
}

/// A greeting in a version that this node speaks too.
fn understood(payload: &[u8], ours: Spoken) -> Result<Hello, Cause> {
    let hello = Hello::decode(payload).map_err(|_| Cause::Unexpected)?;
    let theirs = hello.spoken;
    ours.agree(theirs).map(|_| hello).ok_or(Cause::Version { theirs, ours })
}

/// A data frame that arrived behind an event which the host has not been told: it might take the frame for one of an
/// earlier link, and forget it together with what it had of that.
#[derive(Debug)]
pub(super) struct Late {
    /// The connection that it came on.
    pub slot: usize,
    node: NodeId,
    lane: Lane,
    bytes: Vec<u8>,
}

/// Whose fault it is that TLS cannot go on.
fn fault(error: &Error) -> Cause {
    match error {
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented => Cause::Stranger,
        // What our own verifier sends; the others' differs in nothing.
        Error::AlertReceived(AlertDescription::AccessDenied) => Cause::Refused,
        Error::AlertReceived(_) => Cause::Lost,
        _ => Cause::Garbage,
    }
}
