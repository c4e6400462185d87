//! All links of one event loop.
//!
//! The loop hands in readiness, time and frames to send; [`Links::end_turn`] writes each connection once. Only
//! sockets are handled here: who may come, who stays, when to dial and when to cut is asked of `door`, `settle`,
//! `redial` and `stall`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use kernel::{Micros, NodeId, Rng, Spoken};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use super::connection::{Aim, Conn, Dial, Stage, State, Tls as ConnTls, Wire};
use super::door::{Door, Source};
use super::event::{Event, SendError};
use super::frame::{ANSWER_BYTES_MAX, Decoder, HEADER_BYTES, Kind};
use super::read::Late;
use super::redial::Redial;
use super::tls::{Purpose, Tls};
use super::{Cause, Lane, LinkMeters, Members};
use crate::identity::Identity;

/// The node with the larger id waits so long, in milliseconds, for the other to dial first.
const YIELD_MS: u64 = 200;
/// The socket's bytes are read in pieces of so many.
const SCRATCH_BYTES: usize = 64 * 1024;

/// What a node knows of itself when its links begin.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Drawn when the process starts: tells its lives apart.
    pub incarnation: u64,
    /// Decides the jitter of dials.
    pub seed: u64,
    /// What is spoken here; see [`Links::speak`].
    pub spoken: Spoken,
}

/// Which of the loop's tokens are the links'.
#[derive(Clone, Copy, Debug)]
pub struct TokenRange {
    /// The first: the port's. The connections' follow.
    pub first: usize,
    /// Connections at once, of all kinds.
    pub connections_max: usize,
}

/// What the links know of a node.
#[derive(Debug)]
pub(super) struct Peer {
    addresses: Vec<SocketAddr>,
    /// Which address is dialled next, of each lane.
    next: [usize; 2],
    pub(super) lanes: [PeerLane; 2],
}

#[derive(Debug)]
pub(super) struct PeerLane {
    pub redial: Redial,
    /// Our dial that is not a link yet.
    pub dial: Option<usize>,
    /// The link.
    pub up: Option<usize>,
}

/// The links of one loop.
pub struct Links {
    pub(super) id: NodeId,
    pub(super) tls: Tls,
    pub(super) members: Arc<Members>,
    /// The version of the members that all links were checked against.
    checked: u64,
    pub(super) settings: Settings,
    tokens: TokenRange,
    registry: Registry,
    pub(super) listener: Option<TcpListener>,
    /// More connections may wait at the port; not before this moment.
    pub(super) accepting: Option<Micros>,
    pub(super) conns: Vec<Option<Box<Conn>>>,
    free: Vec<usize>,
    open: usize,
    serial: u64,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// Sources where members live.
    pub(super) homes: BTreeSet<Source>,
    pub(super) door: Door,
    pub(super) meters: Arc<LinkMeters>,
    pub(super) events: Vec<Event>,
    /// What arrived behind them, of one connection; not read further before it is handed on.
    pub(super) late: Vec<Late>,
    dirty: Vec<usize>,
    /// Memory for the next `dirty`.
    spare: Vec<usize>,
    /// Connections whose sockets may hold more than this turn's share.
    pub(super) again: Vec<usize>,
    /// No deadline of any connection or dial is before this moment.
    pub(super) wake_at: Micros,
    pub(super) scratch: Box<[u8]>,
}

impl Links {
    /// No links yet. `listener` is bound; without one this node only dials.
    ///
    /// # Errors
    /// The kernel refused to watch the port.
    pub fn new(
        identity: &Identity,
        members: Arc<Members>,
        settings: Settings,
        tokens: TokenRange,
        registry: Registry,
        listener: Option<std::net::TcpListener>,
    ) -> io::Result<Links> {
        let mut bound = None;
        if let Some(listener) = listener {
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            registry.register(&mut listener, Token(tokens.first), Interest::READABLE)?;
            bound = Some(listener);
        }
        Ok(Links {
            id: identity.id(),
            tls: Tls::new(identity, Arc::clone(&members)),
            checked: members.version(),
            members,
            settings,
            tokens,
            registry,
            listener: bound,
            accepting: None,
            conns: Vec::new(),
            free: Vec::new(),
            open: 0,
            serial: 0,
            peers: BTreeMap::new(),
            homes: BTreeSet::new(),
            door: Door::new(),
            meters: Arc::default(),
            events: Vec::new(),
            late: Vec::new(),
            dirty: Vec::new(),
            spare: Vec::new(),
            again: Vec::new(),
            wake_at: Micros(u64::MAX),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
        })
    }

    /// This node.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// The figures, for other threads to read.
    #[must_use]
    pub const fn meters(&self) -> &Arc<LinkMeters> {
        &self.meters
    }

    /// Is this token one of the links'?
    #[must_use]
    pub const fn owns(&self, token: Token) -> bool {
        token.0 >= self.tokens.first && token.0 - self.tokens.first <= self.tokens.connections_max
    }

    /// Is there a link to `node` on `lane`?
    #[must_use]
    pub fn is_up(&self, node: NodeId, lane: Lane) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.lanes[lane.index()].up.is_some())
    }

    /// Bytes that wait for `node` on `lane`.
    #[must_use]
    pub fn queued(&self, node: NodeId, lane: Lane) -> usize {
        let slot = self.peers.get(&node).and_then(|peer| peer.lanes[lane.index()].up);
        slot.and_then(|slot| self.conns[slot].as_ref()).map_or(0, |conn| conn.state.queued())
    }

    /// Keeps links to `node`, which listens at `addresses`, while it is a member.
    pub fn set_peer(&mut self, now: Micros, node: NodeId, addresses: Vec<SocketAddr>) {
        if node == self.id {
            return;
        }
        let (known, peer) = (self.peers.contains_key(&node), self.peer(now, node));
        if known && peer.addresses == addresses {
            return;
        }
        peer.addresses = addresses;
        peer.next = [0; 2];
        if known {
            peer.lanes.iter_mut().for_each(|lane| lane.redial.hurry(now));
        }
        self.homes =
            self.peers.values().flat_map(|peer| &peer.addresses).map(|home| Source::of(home.ip())).collect();
        self.wake_at = self.wake_at.min(now);
    }

    /// Keeps no links to `node` any more, and closes those there are.
    pub fn forget_peer(&mut self, now: Micros, node: NodeId) {
        let slots: Vec<usize> = self.slots(|conn| conn.state.member() == Some(node)).collect();
        slots.into_iter().for_each(|slot| self.close(slot, Cause::Closed, now));
        self.peers.remove(&node);
    }

    /// Queues a frame for the end of the turn. One copy; nothing is written.
    ///
    /// # Errors
    /// [`SendError`]; nothing is queued.
    #[inline]
    pub fn send(&mut self, to: NodeId, lane: Lane, payload: &[u8]) -> Result<(), SendError> {
        let limit = lane.frame_bytes_max();
        if payload.len() > limit {
            return Err(SendError::TooLarge { bytes: payload.len(), limit });
        }
        let slot = self.peers.get(&to).and_then(|peer| peer.lanes[lane.index()].up).ok_or(SendError::Down)?;
        let conn = self.conns[slot].as_mut().ok_or(SendError::Down)?;
        let queued = conn.state.queued();
        if queued + HEADER_BYTES + payload.len() > lane.queue_bytes_max() {
            conn.state.refused = true;
            self.meters.refused.increment();
            return Err(SendError::Full { queued });
        }
        conn.state.queue(Kind::Data, payload);
        self.meters.frames_out.increment();
        if !conn.state.dirty {
            conn.state.dirty = true;
            self.dirty.push(slot);
        }
        Ok(())
    }

    /// Reads no more from `node` on `lane` until [`Links::resume`]: its bytes wait in the kernels and then at their sender,
    /// whose own senders are refused. A frame or some that were read already may still come. A hold is short: a
    /// peer whose bytes nobody takes for [`WRITE_MS_MAX`](super::stall::WRITE_MS_MAX) cuts the link.
    pub fn hold(&mut self, node: NodeId, lane: Lane) {
        if let Some(conn) = self.link_mut(node, lane) {
            conn.state.held = true;
            conn.state.watch.hold(true);
        }
    }

    /// Reads again after [`Links::hold`], in the turn that ends next.
    pub fn resume(&mut self, now: Micros, node: NodeId, lane: Lane) {
        let Some(conn) = self.link_mut(node, lane) else { return };
        if std::mem::take(&mut conn.state.held) {
            conn.state.watch.hold(false);
            conn.state.watch.heard(now, false, conn.wire.decoder.is_inside());
            let slot = self.peers.get(&node).and_then(|peer| peer.lanes[lane.index()].up);
            self.again.extend(slot);
        }
    }

    fn link_mut(&mut self, node: NodeId, lane: Lane) -> Option<&mut Conn> {
        let slot = self.peers.get(&node).and_then(|peer| peer.lanes[lane.index()].up)?;
        self.conns[slot].as_deref_mut()
    }

    /// Handles one readiness of a token that [`Links::owns`]; frames go to `receive`, in order. Those behind an event wait
    /// until it is taken, and come with the next call.
    pub fn ready(
        &mut self,
        now: Micros,
        event: &mio::event::Event,
        receive: &mut dyn FnMut(NodeId, Lane, &[u8]),
    ) {
        self.hand_on_late(receive);
        self.check_members(now);
        let at = event.token().0 - self.tokens.first;
        let Some(slot) = at.checked_sub(1) else {
            self.accept(now);
            return;
        };
        let Some(Some(conn)) = self.conns.get_mut(slot) else { return };
        if matches!(conn.state.stage, Stage::Connecting(_)) && !self.connected(slot, now) {
            return;
        }
        if event.is_writable() {
            self.mark(slot);
        }
        if event.is_readable() {
            self.read(slot, now, receive);
        }
    }

    /// Ends the turn: reads what was left over, does what is due, and writes each connection once, control
    /// lanes first. True if there is more to do at once.
    pub fn end_turn(&mut self, now: Micros, receive: &mut dyn FnMut(NodeId, Lane, &[u8])) -> bool {
        self.hand_on_late(receive);
        self.check_members(now);
        if self.accepting.is_some_and(|at| at <= now) {
            self.accept(now);
        }
        for slot in std::mem::take(&mut self.again) {
            self.read(slot, now, receive);
        }
        if self.wake_at <= now {
            self.wake(now);
        }
        // What a flush marks again is for the next turn.
        let spare = std::mem::take(&mut self.spare);
        let mut dirty = std::mem::replace(&mut self.dirty, spare);
        for bulk in [false, true] {
            for &slot in &dirty {
                if self.is_bulk(slot) == bulk {
                    self.flush(slot, now);
                }
            }
        }
        dirty.clear();
        self.spare = dirty;
        let waits = !self.late.is_empty() || !self.again.is_empty();
        !self.dirty.is_empty() || waits || self.accepting.is_some_and(|at| at <= now)
    }

    /// When [`Links::end_turn`] must be called again, although nothing is ready.
    #[must_use]
    pub fn deadline(&self) -> Option<Micros> {
        let at = self.accepting.unwrap_or(self.wake_at).min(self.wake_at);
        (at != Micros(u64::MAX)).then_some(at)
    }

    /// Appends what happened since the last call. To be called after each turn: frames wait behind events.
    pub fn take_events(&mut self, out: &mut Vec<Event>) {
        out.append(&mut self.events);
    }

    fn is_bulk(&self, slot: usize) -> bool {
        self.conns[slot].as_ref().is_some_and(|conn| conn.state.lane() == Some(Lane::Bulk))
    }

    pub(super) fn slots(&self, which: impl Fn(&Conn) -> bool) -> impl Iterator<Item = usize> {
        let conns = self.conns.iter().enumerate();
        conns.filter_map(move |(slot, conn)| conn.as_ref().is_some_and(|conn| which(conn)).then_some(slot))
    }

    pub(super) fn peer(&mut self, now: Micros, node: NodeId) -> &mut Peer {
        let first = if self.id < node { now } else { now.plus_millis(YIELD_MS) };
        let seed = node.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let rng = Rng::new(self.settings.seed).fork(seed);
        self.peers.entry(node).or_insert_with(|| Peer {
            addresses: Vec::new(),
            next: [0; 2],
            lanes: Lane::ALL.map(|lane| PeerLane {
                redial: Redial::new(rng.fork(lane.index() as u64), first),
                dial: None,
                up: None,
            }),
        })
    }

    /// Closes what belongs to nodes that are no members any more.
    #[inline]
    fn check_members(&mut self, now: Micros) {
        let version = self.members.version();
        if version == self.checked {
            return;
        }
        self.checked = version;
        let members = self.members.get();
        let removed = |conn: &Conn| conn.state.member().is_some_and(|node| !members.contains(&node));
        let slots: Vec<usize> = self.slots(removed).collect();
        slots.into_iter().for_each(|slot| self.close(slot, Cause::Removed, now));
        // New members are dialled now.
        self.wake_at = self.wake_at.min(now);
    }

    pub(super) fn state(&mut self, stage: Stage, address: SocketAddr, now: Micros) -> State {
        self.serial += 1;
        State::new(stage, address, self.serial, now)
    }

    /// Gives a connection a slot and has its socket watched.
    pub(super) fn place(&mut self, mut wire: Wire, state: State) -> Result<usize, Box<State>> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.conns.len() < self.tokens.connections_max => {
                self.conns.push(None);
                self.conns.len() - 1
            }
            None => return Err(Box::new(state)),
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(self.tokens.first + 1 + slot);
        let _ = wire.stream.set_nodelay(true);
        if self.registry.register(&mut wire.stream, token, interest).is_err() {
            self.free.push(slot);
            return Err(Box::new(state));
        }
        self.wake_at = self.wake_at.min(state.watch.deadline());
        self.conns[slot] = Some(Box::new(Conn { wire, state }));
        self.open += 1;
        self.meters.connections.set(self.open as u64);
        Ok(slot)
    }

    /// Begins a connection. False if it failed at once.
    pub(super) fn dial(&mut self, dial: Dial, address: SocketAddr, now: Micros) -> Option<usize> {
        let (purpose, data_bytes_max) = match dial.aim {
            Aim::Link(_) => (Purpose::Link, 0),
            Aim::Join(_) => (Purpose::Join, ANSWER_BYTES_MAX),
        };
        self.meters.dialled.increment();
        let tls = self.tls.client(dial.node, purpose).ok()?;
        let stream = TcpStream::connect(address).ok()?;
        let state = self.state(Stage::Connecting(dial), address, now);
        let tls = ConnTls::Open(Box::new(tls));
        let decoder = Decoder::new(data_bytes_max);
        self.place(Wire { stream, tls, decoder }, state).ok()
    }

    /// What TCP says of a dial. True once it is connected.
    fn connected(&mut self, slot: usize, now: Micros) -> bool {
        let Some(conn) = &mut self.conns[slot] else { return false };
        let failed = conn.wire.stream.take_error().unwrap_or_else(Some).is_some();
        if failed {
            self.close(slot, Cause::Lost, now);
            return false;
        }
        if conn.wire.stream.peer_addr().is_err() {
            return false;
        }
        if let Stage::Connecting(dial) = std::mem::replace(&mut conn.state.stage, Stage::Ending) {
            conn.state.stage = Stage::Handshake(Some(dial));
        }
        self.mark(slot);
        true
    }

    /// Has a connection written at the end of the turn.
    pub(super) fn mark(&mut self, slot: usize) {
        if let Some(Some(conn)) = self.conns.get_mut(slot)
            && !conn.state.dirty
        {
            conn.state.dirty = true;
            self.dirty.push(slot);
        }
    }

    fn flush(&mut self, slot: usize, now: Micros) {
        let Some(conn) = &mut self.conns[slot] else { return };
        conn.state.dirty = false;
        if matches!(conn.state.stage, Stage::Connecting(_)) {
            return;
        }
        let lane = conn.state.lane();
        let Ok(flushed) = conn.flush(lane.unwrap_or(Lane::Control).turn_bytes_max()) else {
            self.close(slot, Cause::Lost, now);
            return;
        };
        self.meters.bytes_out.add(flushed.bytes as u64);
        let took = flushed.bytes > 0;
        if took || flushed.waiting {
            conn.state.watch.wrote(now, took, flushed.waiting);
        }
        if let (Stage::Up(up), true) = (&conn.state.stage, conn.state.refused)
            && conn.state.queued() <= up.lane.queue_bytes_max() / 2
        {
            self.events.push(Event::Room { node: up.node, lane: up.lane });
            conn.state.refused = false;
        }
        if matches!(conn.state.stage, Stage::Ending) && conn.is_flushed() {
            self.close(slot, Cause::Answered, now);
        } else if flushed.more {
            self.mark(slot);
        }
    }

    /// Cuts who stalls, sends beats, dials what is due, and finds the next moment to do so.
    fn wake(&mut self, now: Micros) {
        let mut next = Micros(u64::MAX);
        for slot in 0..self.conns.len() {
            let Some(conn) = &mut self.conns[slot] else { continue };
            if let Some(stalled) = conn.state.watch.verdict(now) {
                self.close(slot, Cause::Stalled(stalled), now);
                continue;
            }
            if conn.state.watch.beat_due(now) {
                conn.state.queue(Kind::Beat, &[]);
                // Not due again until the socket has taken it or has refused to.
                conn.state.watch.wrote(now, true, false);
                next = next.min(conn.state.watch.deadline());
                self.mark(slot);
            } else {
                next = next.min(conn.state.watch.deadline());
            }
        }
        self.wake_at = next;
        for (node, lane, address) in self.due(now) {
            let dialled = self.dial(Dial { node, aim: Aim::Link(lane) }, address, now);
            let place = &mut self.peer(now, node).lanes[lane.index()];
            place.redial.begin();
            place.dial = dialled;
            if dialled.is_none() {
                place.redial.fail(now);
            }
        }
        let dials = self.peers.iter().filter(|(node, _)| self.members.contains(**node));
        let dials = dials.filter(|(_, peer)| !peer.addresses.is_empty()).flat_map(|(_, peer)| &peer.lanes);
        let next = dials.filter_map(|lane| lane.redial.deadline()).min().unwrap_or(Micros(u64::MAX));
        self.wake_at = self.wake_at.min(next);
    }

    /// The dials that are due, each with the address whose turn it is.
    fn due(&mut self, now: Micros) -> Vec<(NodeId, Lane, SocketAddr)> {
        let members = self.members.get();
        let mut due = Vec::new();
        for (node, peer) in self.peers.iter_mut().filter(|(node, _)| members.contains(node)) {
            for lane in Lane::ALL {
                let at = lane.index();
                if peer.lanes[at].redial.deadline().is_some_and(|at| at <= now) && !peer.addresses.is_empty()
                {
                    let address = peer.addresses[peer.next[at] % peer.addresses.len()];
                    peer.next[at] = peer.next[at].wrapping_add(1);
                    due.push((*node, lane, address));
                }
            }
        }
        due
    }

    /// Ends a connection.
    pub(super) fn close(&mut self, slot: usize, cause: Cause, now: Micros) {
        if let Some(conn) = self.conns[slot].take() {
            self.end(slot, *conn, cause, now);
        }
    }

    /// Ends a connection that was taken out of its slot.
    pub(super) fn end(&mut self, slot: usize, mut conn: Conn, cause: Cause, now: Micros) {
        // Closing removes it from the poll in any case.
        let _ = self.registry.deregister(&mut conn.wire.stream);
        self.free.push(slot);
        self.late.retain(|late| late.slot != slot);
        self.open -= 1;
        self.meters.connections.set(self.open as u64);
        self.release(&mut conn.state.admitted, now);
        self.tell(now, conn.state.address, cause);
        match &conn.state.stage {
            Stage::Up(up) => {
                let place = &mut self.peer(now, up.node).lanes[up.lane.index()];
                if place.up == Some(slot) {
                    place.up = None;
                    place.redial.fail(now);
                }
                self.meters.up.set(self.meters.up.get() - 1);
                self.events.push(Event::Down { node: up.node, lane: up.lane, cause });
            }
            Stage::Connecting(dial) | Stage::Handshake(Some(dial)) | Stage::Greeted(dial) => match dial.aim {
                Aim::Link(lane) => {
                    let place = &mut self.peer(now, dial.node).lanes[lane.index()];
                    if place.dial == Some(slot) {
                        place.dial = None;
                        if place.up.is_none() {
                            place.redial.fail(now);
                        }
                    }
                }
                Aim::Join(_) if cause == Cause::Answered => {}
                Aim::Join(_) => self.events.push(Event::JoinFailed { introducer: dial.node, cause }),
            },
            Stage::Handshake(None) | Stage::Greeting(_) | Stage::Joining | Stage::Ending => {}
        }
        // A lost link is dialled when its wait is over.
        self.wake_at = self.wake_at.min(now.plus_millis(super::redial::WAIT_MS_MIN / 2));
    }

    /// The door counts this handshake no more.
    pub(super) fn release(&mut self, admitted: &mut Option<Source>, now: Micros) {
        if let Some(source) = admitted.take() {
            self.door.done(now, source);
            self.meters.handshakes.set(self.door.handshakes() as u64);
        }
    }

    pub(super) fn tell(&mut self, now: Micros, address: SocketAddr, cause: Cause) {
        self.meters.end(cause);
        if !cause.is_misdeed() {
            return;
        }
        if let Some(untold) = self.door.report(now, Source::of(address.ip())) {
            self.meters.told.increment();
            tracing::warn!(%address, %cause, untold, "a connection between nodes was refused or cut");
        }
    }
}
