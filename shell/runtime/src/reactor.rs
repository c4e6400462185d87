//! The event loop of one worker.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use kernel::{ConnId, Lsn, Micros, WorkerId};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use node::{LogSink, Parcel, Worker};
use rustls::{ServerConfig, ServerConnection};
use telemetry::{Clock, WorkerMeters};
use thiserror::Error;

use crate::crowd::Crowd;
use crate::peers::{Begin, Peers};
use crate::socket::{Got, Socket};

mod post;

/// Why the loop cannot start or go on.
#[derive(Debug, Error)]
pub enum ReactorError {
    /// The kernel refused what every event loop needs.
    #[error("the event loop cannot {action}: {source}")]
    Poll {
        /// What was tried.
        action: &'static str,
        /// What came back.
        source: io::Error,
    },
}

/// A bound socket that takes clients, and the TLS settings if it speaks that.
pub struct Listener {
    /// Bound and listening, non-blocking.
    pub socket: std::net::TcpListener,
    /// TLS, unless plain.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whom it is for.
    pub clients: Clients,
}

/// What clients of a port know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// One server: it does what it is asked, wherever the data is.
    Plain,
    /// Redis Cluster: they are told where the data is.
    Cluster,
}

/// What other threads can ask of the loop.
pub enum Control {
    /// Run this with the worker, between turns.
    Call(Box<dyn FnOnce(&mut Worker) + Send>),
    /// The log failed for good: whoever waits for a sync is told so.
    LogFailed,
    /// The loops of all workers of the node, in their order; until then it keeps its parcels.
    Peers(Vec<Remote>),
    /// Parcels of another worker.
    Parcels(WorkerId, Vec<Parcel>),
    /// A client that another worker accepted.
    Admit(Box<Newcomer>),
    /// Take no new clients, answer what is pending, close all and return.
    Stop,
}

/// A client that was accepted and has no worker yet.
pub struct Newcomer {
    socket: Socket,
    peer: SocketAddr,
    clients: Clients,
}

/// The other threads' end of a loop.
#[derive(Clone)]
pub struct Remote {
    control: Sender<Control>,
    synced: Arc<AtomicU64>,
    waker: Arc<Waker>,
    meters: Arc<WorkerMeters>,
}

impl Remote {
    /// Hands in `control`. False if the loop has ended.
    pub fn send(&self, control: Control) -> bool {
        self.control.send(control).is_ok() && self.waker.wake().is_ok()
    }

    /// What the loop measures.
    #[must_use]
    pub fn meters(&self) -> &WorkerMeters {
        &self.meters
    }

    /// Tells that the log is synced up to `lsn`. Does not block.
    pub fn synced(&self, lsn: Lsn) {
        self.synced.fetch_max(lsn.0, Ordering::Release);
        // A loop that has ended needs no waking.
        let _ = self.waker.wake();
    }
}

/// Background work of the worker's thread, done a slice at a time between turns.
pub trait Tasks {
    /// Starts what other threads are to do for the turn that has ended. Does not wait.
    fn hand_out(&mut self, worker: &mut Worker);

    /// Does a bounded slice. True if there is more to do at once.
    fn run(&mut self, worker: &mut Worker, now: Micros) -> bool;
}

const WAKER: Token = Token(usize::MAX);
const LISTENERS: usize = 16;
/// The first token of the links: behind those of as many clients as there can be descriptors.
const PEERS: usize = 1 << 32;
const EVENTS_MAX: usize = 1024;
const SCRATCH_BYTES: usize = 64 * 1024;
/// Reads of one client in one turn; a client that sends more waits for the others.
const READS_MAX: usize = 4;
/// A client's output buffer larger than this is given back once it is sent.
const OUTPUT_BYTES_KEPT: usize = 16 * 1024;
/// What was sent is removed once it is this part of what was not: one in so many.
const OUTPUT_SENT_SHARE: usize = 8;
/// The loop looks around at least this often.
const IDLE_MILLIS: u64 = 100;
/// How long a stopping loop waits for clients to take their last answers.
const DRAIN_MICROS: u64 = 2_000_000;

/// The loop.
pub struct Reactor<L, T> {
    poll: Poll,
    listeners: Vec<(TcpListener, Option<Arc<ServerConfig>>, Clients)>,
    sockets: Vec<Option<Socket>>,
    open: usize,
    crowd: Arc<Crowd>,
    /// The loops of all workers, and which of them gets the next client.
    peers: Vec<Remote>,
    next: usize,
    /// The links to other nodes, if there are any.
    links: Option<Box<dyn Peers>>,
    worker: Worker,
    log: L,
    tasks: T,
    clock: Clock,
    checked: Micros,
    control: Receiver<Control>,
    synced: Arc<AtomicU64>,
    seen: u64,
    scratch: Box<[u8]>,
    flush: Vec<ConnId>,
    again: Vec<ConnId>,
    stopping: Option<Micros>,
    meters: Arc<WorkerMeters>,
    /// An append that is measured until it is durable: its end, and when it was made.
    probe: Option<(Lsn, Instant)>,
    /// The end of the last append that was measured.
    probed: Lsn,
    /// The worker's count of commands when it was last asked.
    commands: u64,
}

impl<L: LogSink, T: Tasks> Reactor<L, T> {
    /// A loop for `worker` and the other threads' end of it. Its clients are of the node's `crowd`.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn new(
        worker: Worker,
        log: L,
        tasks: T,
        listeners: Vec<Listener>,
        crowd: Arc<Crowd>,
    ) -> Result<(Self, Remote), ReactorError> {
        let failed = |action| move |source| ReactorError::Poll { action, source };
        let poll = Poll::new().map_err(failed("open a poll"))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(failed("make a waker"))?;
        let mut bound = Vec::new();
        for (at, listener) in listeners.into_iter().enumerate() {
            listener.socket.set_nonblocking(true).map_err(failed("make a listener non-blocking"))?;
            let mut socket = TcpListener::from_std(listener.socket);
            poll.registry()
                .register(&mut socket, Token(at), Interest::READABLE)
                .map_err(failed("register a listener"))?;
            bound.push((socket, listener.tls, listener.clients));
        }
        assert!(bound.len() <= LISTENERS, "a worker has few listeners");
        let (sender, control) = channel();
        let synced = Arc::new(AtomicU64::new(0));
        let remote = Remote {
            control: sender,
            synced: synced.clone(),
            waker: Arc::new(waker),
            meters: Arc::default(),
        };
        let meters = Arc::clone(&remote.meters);
        let reactor = Reactor {
            poll,
            listeners: bound,
            sockets: Vec::new(),
            open: 0,
            crowd,
            peers: Vec::new(),
            next: 0,
            links: None,
            worker,
            log,
            tasks,
            clock: Clock::new(),
            checked: Micros(0),
            control,
            synced,
            seen: 0,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            flush: Vec::new(),
            again: Vec::new(),
            stopping: None,
            meters,
            probe: None,
            probed: Lsn(0),
            commands: 0,
        };
        Ok((reactor, remote))
    }

    /// The loop with the links that `begin` makes.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn linked(mut self, begin: Begin<'_>) -> Result<Self, ReactorError> {
        let failed = |source| ReactorError::Poll { action: "watch the links", source };
        let registry = self.poll.registry().try_clone().map_err(failed)?;
        self.links = Some(begin(registry, PEERS).map_err(failed)?);
        Ok(self)
    }

    /// Runs until it is stopped, and gives the worker back.
    ///
    /// # Errors
    /// The kernel refused to wait.
    pub fn run(mut self) -> Result<(Worker, T), ReactorError> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut busy = false;
        loop {
            let timeout = self.timeout(busy);
            if let Err(source) = self.poll.poll(&mut events, Some(timeout))
                && source.kind() != io::ErrorKind::Interrupted
            {
                return Err(ReactorError::Poll { action: "wait", source });
            }
            let began = self.clock.now();
            let now = began;
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(at) if at < LISTENERS => self.accept(at, now),
                    Token(at) if at < PEERS => {
                        self.ready(at - LISTENERS, event.is_readable(), event.is_writable(), now);
                    }
                    Token(_) => {
                        if let Some(links) = &mut self.links {
                            links.ready(&mut self.clock, event, &mut self.worker);
                        }
                    }
                }
            }
            for id in std::mem::take(&mut self.again) {
                self.read(id.slot(), now);
            }
            let now = self.time(now);
            self.hear(now);
            if self.worker.deadline().is_some_and(|deadline| deadline <= now) {
                self.worker.wake(now);
            }
            busy = self.worker.end_turn(now, &mut self.log);
            self.count();
            self.tasks.hand_out(&mut self.worker);
            self.post();
            if let Some(links) = &mut self.links {
                // Before the clients: other nodes answer while those are served.
                busy |= links.end_turn(&mut self.clock, &mut self.worker);
            }
            let now = self.time(now);
            self.send();
            self.measure(began, !events.is_empty());
            busy |= self.tasks.run(&mut self.worker, now);
            self.post();
            if let Some(since) = self.stopping
                && (self.crowd.is_empty() || now.since(since) > DRAIN_MICROS)
            {
                return Ok((self.worker, self.tasks));
            }
        }
    }

    /// The time after input was taken. The turn began at `now`, and if the process was stopped since, then that was before
    /// some of the input arrived. Only leases rest on the difference, and a node without links has none.
    #[inline]
    fn time(&mut self, now: Micros) -> Micros {
        if self.links.is_some() { self.clock.now() } else { now }
    }

    /// Counts the turn's commands before they are answered, so that a client that was answered is counted.
    fn count(&mut self) {
        let commands = self.worker.commands();
        // Clients may set the worker's own count back to 0.
        let batch = if commands < self.commands { commands } else { commands - self.commands };
        self.commands = commands;
        if batch > 0 {
            self.meters.commands.add(batch);
            self.meters.batch.record(batch);
        }
        if self.probe.is_none() && self.worker.appended() > self.probed {
            self.probed = self.worker.appended();
            self.probe = Some((self.probed, Instant::now()));
        }
    }

    fn measure(&mut self, began: Micros, woken: bool) {
        if !woken {
            return;
        }
        let ended = self.clock.now();
        let micros = ended.since(began);
        self.meters.turn_micros.record(micros);
        self.worker.turn_took(ended, micros);
    }

    fn timeout(&mut self, busy: bool) -> Duration {
        if busy || self.worker.is_ready() || !self.again.is_empty() {
            return Duration::ZERO;
        }
        let idle = IDLE_MILLIS * 1000;
        let linked = self.links.as_ref().and_then(|links| links.deadline());
        let due = self.worker.deadline().into_iter().chain(linked).min();
        let micros = match due {
            None => idle,
            Some(deadline) => deadline.since(self.clock.now()).clamp(1, idle),
        };
        // The kernel's unit is the millisecond; waking too early would spin.
        Duration::from_millis(micros.div_ceil(1000))
    }

    fn hear(&mut self, now: Micros) {
        let synced = self.synced.load(Ordering::Acquire);
        if synced > self.seen {
            self.seen = synced;
            if let Some((_, since)) = self.probe.take_if(|(end, _)| end.0 <= synced) {
                let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.meters.sync_micros.record(micros);
                self.worker.spike("log-sync", now, micros / 1000);
            }
            self.worker.synced(Lsn(synced));
        }
        while let Ok(control) = self.control.try_recv() {
            match control {
                Control::Call(call) => {
                    self.worker.tell_time(now);
                    call(&mut self.worker);
                }
                Control::LogFailed => self.worker.log_failed(now),
                Control::Peers(peers) => self.peers = peers,
                Control::Parcels(from, parcels) => {
                    for parcel in parcels {
                        self.worker.accept(now, from, parcel);
                    }
                }
                Control::Admit(newcomer) => self.admit(*newcomer, now),
                Control::Stop => self.stop(now),
            }
        }
        if now.since(self.checked) > 1_000_000 {
            self.checked = now;
            if let Some(ahead) = self.clock.check() {
                tracing::warn!(ahead_micros = ahead, "the system clock jumped");
            }
        }
    }

    fn stop(&mut self, now: Micros) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now);
        self.listeners.clear();
        for slot in 0..self.sockets.len() {
            if let Some(socket) = &self.sockets[slot] {
                let id = socket.id;
                self.worker.end_of_input(id);
                self.flush.push(id);
            }
        }
    }

    fn accept(&mut self, at: usize, now: Micros) {
        while let Some((listener, tls, clients)) = self.listeners.get(at) {
            let clients = *clients;
            let (stream, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors, or the client left: the next event tries again.
                    tracing::warn!(%error, "a client could not be accepted");
                    return;
                }
            };
            let tls = match tls.clone().map(ServerConnection::new).transpose() {
                Ok(tls) => tls.map(Box::new),
                Err(error) => {
                    tracing::warn!(%error, "TLS could not be started");
                    continue;
                }
            };
            let socket = Socket { id: ConnId(0), stream, tls, readable: false, writing: false, sent: 0 };
            self.place(Newcomer { socket, peer, clients }, now);
        }
    }

    /// Gives clients to the workers in turn.
    fn place(&mut self, newcomer: Newcomer, now: Micros) {
        let own = usize::from(self.worker.id().0);
        let taker = if self.peers.is_empty() { own } else { self.next % self.peers.len() };
        self.next = self.next.wrapping_add(1);
        if taker == own {
            return self.admit(newcomer, now);
        }
        // A loop that has ended is one of a node that ends.
        let _ = self.peers[taker].send(Control::Admit(Box::new(newcomer)));
    }

    fn admit(&mut self, Newcomer { mut socket, peer, clients }: Newcomer, now: Micros) {
        if self.stopping.is_some() {
            return;
        }
        let _ = socket.stream.set_nodelay(true);
        let place = self.crowd.enter();
        let id = place.and_then(|(open, ever)| {
            self.worker.set_elsewhere(open - self.open, ever - self.worker.accepted());
            match clients {
                Clients::Plain => self.worker.connect(now, peer),
                Clients::Cluster => self.worker.connect_cluster_client(now, peer),
            }
        });
        let Some(id) = id else {
            if place.is_some() {
                self.crowd.leave();
            }
            self.meters.rejected.increment();
            // As Redis does: said without waiting, then closed.
            let _ = socket.write(b"-ERR max number of clients reached\r\n");
            return;
        };
        let slot = id.slot();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut socket.stream, Token(slot + LISTENERS), interest).is_err() {
            self.worker.disconnect(id);
            self.crowd.leave();
            return;
        }
        socket.id = id;
        if self.sockets.len() <= slot {
            self.sockets.resize_with(slot + 1, || None);
        }
        self.sockets[slot] = Some(socket);
        self.open += 1;
        self.meters.accepted.increment();
        self.meters.connections.set(self.open as u64);
    }

    fn ready(&mut self, slot: usize, readable: bool, writable: bool, now: Micros) {
        let Some(Some(socket)) = self.sockets.get_mut(slot) else { return };
        let id = socket.id;
        if writable && (socket.writing || socket.holds_output()) {
            socket.writing = false;
            self.flush.push(id);
        }
        if readable {
            self.read(slot, now);
        }
    }

    fn read(&mut self, slot: usize, now: Micros) {
        for _ in 0..READS_MAX {
            let Some(Some(socket)) = self.sockets.get_mut(slot) else { return };
            let id = socket.id;
            // A client that must wait is not read: the kernel's buffer holds it back.
            if !self.worker.wants_input(id) {
                socket.readable = true;
                return;
            }
            match socket.read(&mut self.scratch) {
                Ok(Got::Bytes(n)) => {
                    self.meters.input_bytes.add(n as u64);
                    let now = if self.links.is_some() { self.clock.now() } else { now };
                    self.worker.receive(now, id, &self.scratch[..n]);
                    if n < self.scratch.len() && socket.tls.is_none() {
                        socket.readable = false;
                        return;
                    }
                }
                Ok(Got::Nothing) => {
                    socket.readable = false;
                    return;
                }
                Ok(Got::End) => {
                    socket.readable = false;
                    self.worker.end_of_input(id);
                    self.flush.push(id);
                    return;
                }
                Err(_) => return self.close(id),
            }
        }
        if let Some(Some(socket)) = self.sockets.get(slot) {
            self.again.push(socket.id);
        }
    }

    fn send(&mut self) {
        self.worker.take_flush(&mut self.flush);
        let mut flush = std::mem::take(&mut self.flush);
        for id in flush.drain(..) {
            self.send_to(id);
        }
        self.flush = flush;
    }

    fn send_to(&mut self, id: ConnId) {
        let Some(Some(socket)) = self.sockets.get_mut(id.slot()) else { return };
        if socket.id != id {
            return;
        }
        let Some((out, closing)) = self.worker.output(id) else { return };
        // The worker gives up the output of a client that it cuts.
        let from = socket.sent.min(out.len());
        let mut sent = from;
        while sent < out.len() && !socket.writing {
            match socket.write(&out[sent..]) {
                Ok(0) => socket.writing = true,
                Ok(n) => sent += n,
                Err(_) => return self.close(id),
            }
        }
        self.meters.output_bytes.add((sent - from) as u64);
        if sent < out.len() {
            socket.sent = sent;
            // Not at each write: the rest of a large reply would be moved again and again.
            if sent >= (out.len() - sent) / OUTPUT_SENT_SHARE {
                out.drain(..sent);
                socket.sent = 0;
            }
            if sent > from {
                self.worker.sent(id);
            }
            return;
        }
        socket.sent = 0;
        out.clear();
        if out.capacity() > OUTPUT_BYTES_KEPT {
            *out = Vec::new();
        }
        let failed = socket.push().is_err();
        if failed || closing && (!socket.holds_output() || self.worker.is_cut(id)) {
            return self.close(id);
        }
        self.worker.drained(id);
        let Some(Some(socket)) = self.sockets.get(id.slot()) else { return };
        if socket.readable {
            self.again.push(id);
        }
    }

    fn close(&mut self, id: ConnId) {
        self.worker.disconnect(id);
        if let Some(place) = self.sockets.get_mut(id.slot())
            && let Some(mut socket) = place.take_if(|socket| socket.id == id)
        {
            // It goes away with the descriptor in any case.
            let _ = self.poll.registry().deregister(&mut socket.stream);
            self.open -= 1;
            self.crowd.leave();
            self.meters.connections.set(self.open as u64);
        }
    }
}
