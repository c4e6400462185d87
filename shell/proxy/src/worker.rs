//! One thread of the proxy: its event loop, its listeners, and the plan that it follows.
//!
//! All of it is the thread's own; other threads send it plans and the wish to stop, and read its meters. Sockets are
//! registered once for edges, so a request on kept connections costs two reads, two writes and its share of a wait.

mod admit;
mod follow;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use kernel::hash::KeyHasher;
use kernel::{Micros, NodeId, Rng};
use mesh::breaker::Standing;
use mesh::limit::{Keyed, Priority};
use mesh::sticky::Name;
use mesh::upstream::Upstream;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use telemetry::Clock;

use crate::access::AccessLog;
use crate::buffers::Buffers;
use crate::conn::{Client, Conn, Exchange, Phase};
use crate::h2::Bells;
use crate::members::Members;
use crate::meters::{EndpointMeters, LoopMeters, Meters, RouteMeters, ServiceMeters};
use crate::plan::{EndpointPlan, ListenerPlan, Plan, RatePlan, ServicePlan};
use crate::slab::{Key, Slab};
use crate::socket::Socket;
use crate::spans::Spans;
use crate::timers::{Due, Timer, Timers, Whose};

/// What is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// How often figures of services are told, in milliseconds.
const LOOK_MS: u64 = 1_000;
/// Steps of one connection in one turn; then others have theirs.
const STEPS_MAX: usize = 16;
/// Times in one turn that connections of HTTP/2 are gone on with because their streams moved.
const ROUNDS_MAX: usize = 8;
/// Requests whose room is kept for later ones.
const SPARE_MAX: usize = 256;

/// What an event is about, in the two highest bits of its token.
const KIND_SHIFT: u32 = 62;
const WAKER: usize = 0;
const LISTENER: usize = 1;
const CLIENT: usize = 2;
const CONN: usize = 3;

/// The token by which other threads wake the loop.
pub(crate) const WAKE: Token = Token(WAKER << KIND_SHIFT);

/// What other threads ask of a loop.
pub(crate) enum Control {
    /// Follow this plan from now on, its number, and the sockets that it has and earlier ones had not.
    Plan(Arc<Plan>, u64, Vec<(ListenerPlan, std::net::TcpListener)>),
    /// Take no clients any more, finish what is under way, and end.
    Stop,
    /// The same, but clients without a request may ask once more: the answer tells them to go.
    Drain,
}

/// A plan, with this thread's places for what it names.
pub(crate) struct Table {
    pub plan: Arc<Plan>,
    /// For each service of the plan its slot.
    pub services: Vec<u32>,
    /// For each route of the plan its slot.
    pub routes: Vec<u32>,
    /// Endpoints of some service are told whose connections are.
    pub introduces: bool,
}

/// A service, also when later plans do not name it any more.
pub(crate) struct Service {
    pub plan: ServicePlan,
    pub upstream: Upstream,
    /// Its endpoints as cookies name them; none if there are no cookies.
    pub sticky_ids: BTreeMap<Name, u32>,
    meters: Arc<ServiceMeters>,
}

impl Service {
    /// A request waits for room.
    pub fn count_queued(&self) {
        self.meters.queued.increment();
    }

    /// A request of this importance is not sent, to spare the service.
    pub fn count_shed(&self, class: Priority) {
        self.meters.shed[class as usize].increment();
    }

    /// A client is told where to stay.
    pub fn count_stuck(&self) {
        self.meters.stuck.increment();
    }
}

/// An endpoint of a service.
pub(crate) struct Endpoint {
    service: u32,
    pub address: SocketAddr,
    weight: u16,
    /// Which node it must be, where that is proven.
    pub node: Option<NodeId>,
    /// Connections without a request; the last one is used first.
    pub idle: Vec<Key>,
    /// Connections of HTTP/2, which take many requests.
    pub trunks: Vec<Key>,
    /// Connections and tickets that name it.
    pub users: u32,
    retired: bool,
    meters: Option<Arc<EndpointMeters>>,
}

impl Endpoint {
    /// Its service's slot.
    pub const fn service(&self) -> u32 {
        self.service
    }

    /// As it was planned.
    const fn plan(&self) -> EndpointPlan {
        EndpointPlan { address: self.address, weight: self.weight, node: self.node }
    }
}

/// What is remembered of a route.
pub(crate) struct RouteState {
    name: String,
    pub keyed: Option<(RatePlan, Keyed)>,
    meters: Option<Arc<RouteMeters>>,
}

struct Listening {
    plan: Rc<ListenerPlan>,
    socket: TcpListener,
}

/// Whether there is more to do for a connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Something was done, and more may be possible.
    On,
    /// Nothing can be done before an event comes.
    Blocked,
    /// The request is over.
    Finished,
}

/// One thread's all. See the module's text.
pub(crate) struct Loop {
    poll: Poll,
    control: Receiver<Control>,
    clock: Clock,
    pub now: Micros,
    pub table: Rc<Table>,
    listeners: Slab<Listening>,
    pub clients: Slab<Client>,
    pub conns: Slab<Conn>,
    pub services: Vec<Service>,
    service_names: BTreeMap<String, u32>,
    pub routes: Vec<RouteState>,
    route_names: BTreeMap<String, u32>,
    endpoints: Vec<Option<Endpoint>>,
    free_endpoints: Vec<u32>,
    pub timers: Timers,
    pub scratch: Vec<u8>,
    /// The head that is just written.
    pub head: Vec<u8>,
    pub buffers: Buffers,
    /// Rooms for requests; a room moves as a whole.
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    pub spare: Vec<Box<Exchange>>,
    /// Clients that are gone on with at the end of the turn.
    pub again: Vec<Key>,
    /// Connections of HTTP/2 whose streams have something for them.
    pub bells: Bells,
    accept_at: Option<Micros>,
    look_at: Micros,
    /// Clients of this thread at once.
    clients_max: usize,
    /// Clients that are nobody, who count as none.
    pub mirrors: usize,
    pub workers: u32,
    /// Nobody outside knows it: for keys that clients choose.
    pub secret: KeyHasher,
    pub rng: Rng,
    all_meters: Arc<Meters>,
    pub meters: Arc<LoopMeters>,
    pub access: Option<AccessLog>,
    pub spans: Spans,
    pub requests: u64,
    pub members: Members,
    /// The loop ends then, or when no client is left.
    pub stop_at: Option<Micros>,
}

impl Loop {
    pub fn new(poll: Poll, control: Receiver<Control>, workers: u32, all_meters: Arc<Meters>) -> Loop {
        let mut clock = Clock::new();
        let now = clock.now();
        let seed = || RandomState::new().build_hasher().finish();
        let table =
            Table { plan: Arc::default(), services: Vec::new(), routes: Vec::new(), introduces: false };
        Loop {
            poll,
            control,
            clock,
            now,
            table: Rc::new(table),
            listeners: Slab::new(),
            clients: Slab::new(),
            conns: Slab::new(),
            services: Vec::new(),
            service_names: BTreeMap::new(),
            routes: Vec::new(),
            route_names: BTreeMap::new(),
            endpoints: Vec::new(),
            free_endpoints: Vec::new(),
            timers: Timers::default(),
            scratch: vec![0; READ_BYTES],
            head: Vec::new(),
            buffers: Buffers::default(),
            spare: Vec::new(),
            again: Vec::new(),
            bells: Bells::default(),
            accept_at: None,
            look_at: now,
            clients_max: 0,
            mirrors: 0,
            workers,
            secret: KeyHasher::new(seed()),
            rng: Rng::new(seed()),
            meters: all_meters.of_loop(),
            spans: Spans::new(&all_meters.spans),
            all_meters,
            access: None,
            requests: 0,
            members: Members::default(),
            stop_at: None,
        }
    }

    /// Serves until it is stopped.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        while !self.has_ended() {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "a thread of the proxy cannot wait for events and ends");
                    return;
                }
            }
            self.now = self.clock.now();
            self.meters.turns.increment();
            self.look_at_members();
            for event in &events {
                let bits = event.token().0;
                let key = Key::from_bits(bits & !(0b11 << KIND_SHIFT));
                match bits >> KIND_SHIFT {
                    // One more client is no reason to end a pause.
                    LISTENER if self.accept_at.is_some() => {}
                    LISTENER => self.accept(key),
                    CLIENT => self.client_event(key, event),
                    CONN => self.conn_event(key, event),
                    _ => self.controlled(),
                }
            }
            self.end_turn();
        }
        self.clients.keys().into_iter().for_each(|key| self.close_short(key));
    }

    fn end_turn(&mut self) {
        while let Some((tick, list)) = self.timers.due(self.now) {
            for &whose in &list {
                self.look(whose, tick);
            }
            self.timers.recycle(list);
        }
        for key in std::mem::take(&mut self.again) {
            self.drive(key);
        }
        for _ in 0..ROUNDS_MAX {
            let rung = self.bells.take();
            if rung.is_empty() {
                break;
            }
            for whose in rung {
                match whose {
                    Whose::Client(key) => self.drive(key),
                    Whose::Conn(key) => self.trunk(key),
                }
            }
        }
        if self.accept_at.is_some_and(|at| at <= self.now) {
            self.accept_at = None;
            self.listeners.keys().into_iter().for_each(|key| self.accept(key));
        }
        if self.look_at <= self.now {
            self.look_at = self.now.plus_millis(LOOK_MS);
            self.tell();
        }
        if let Some(access) = &mut self.access {
            access.flush();
        }
        self.spans.hand_over();
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.again.is_empty() || !self.bells.borrow().is_empty() {
            return Some(Duration::ZERO);
        }
        let moments = [Some(self.look_at), self.accept_at, self.timers.next(), self.stop_at];
        let next = moments.into_iter().flatten().min()?;
        // Rounded up by the kernel's millisecond, so that nothing is looked at before its time again and again.
        Some(Duration::from_micros(next.since(self.now) + 1))
    }

    fn has_ended(&self) -> bool {
        self.stop_at.is_some_and(|at| at <= self.now || self.guests() == 0)
    }

    fn controlled(&mut self) {
        loop {
            match self.control.try_recv() {
                Ok(Control::Plan(plan, number, sockets)) => self.follow(plan, number, sockets),
                Ok(Control::Stop) | Err(TryRecvError::Disconnected) => return self.stop(),
                Ok(Control::Drain) => return self.take_no_more(),
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    /// Closes what listens. From now on each answer is the last on its connection.
    fn take_no_more(&mut self) {
        let drain = self.table.plan.limits.drain_ms;
        self.stop_at.get_or_insert(self.now.plus_millis(drain));
        for key in self.listeners.keys() {
            self.listeners.remove(key);
        }
        for key in self.clients.keys() {
            if self.clients.get(key).is_some_and(|client| client.phase == Phase::Streams) {
                self.stop_session(key);
            }
        }
    }

    fn stop(&mut self) {
        if self.stop_at.is_some() {
            return;
        }
        self.take_no_more();
        for key in self.clients.keys() {
            let Some(client) = self.clients.get(key) else { continue };
            match client.phase {
                Phase::Arriving | Phase::Hello | Phase::Shaking => self.close(key),
                Phase::Open if client.partial == 0 && client.is_behind() => self.last(key),
                Phase::Open if client.partial == 0 => self.close(key),
                Phase::Streams | Phase::Open | Phase::Busy | Phase::Tunnel | Phase::Linger => {}
            }
        }
    }

    fn tell(&mut self) {
        self.clock.check();
        self.meters.clients.set(self.guests() as u64);
        self.meters.conns.set(self.conns.len() as u64);
        for Service { upstream, meters, .. } in &mut self.services {
            for one in upstream.members() {
                let endpoint = self.endpoints[one.id as usize].as_ref();
                let Some(meters) = endpoint.and_then(|endpoint| endpoint.meters.as_ref()) else { continue };
                meters.under_way.set(u64::from(one.under_way));
                meters.out.set(u64::from(!one.usable));
            }
            let counted = upstream.counted();
            meters.requests.set(u64::from(upstream.requests()));
            meters.waiting.set(upstream.waiting().len() as u64);
            meters.limit.set(u64::from(upstream.limit()));
            meters.endpoints.set(counted.endpoints as u64);
            meters.usable.set(counted.usable as u64);
            meters.ejections.set(counted.ejections);
            meters.panics.set(counted.panics);
            meters.breaker.set(match upstream.standing(self.now) {
                Standing::Closed => 0,
                Standing::HalfOpen => 1,
                Standing::Open(_) => 2,
            });
        }
    }
}

impl Loop {
    fn client_event(&mut self, key: Key, event: &mio::event::Event) {
        let Some(client) = self.clients.get(key) else { return };
        client.socket.note(event);
        // It reset the connection, or both ends have closed it. A tunnel may still have bytes to be read.
        if client.phase != Phase::Tunnel && (event.is_error() || event.is_write_closed()) {
            return self.gone(key);
        }
        self.drive(key);
    }

    fn conn_event(&mut self, key: Key, event: &mio::event::Event) {
        let Some(conn) = self.conns.get(key) else { return };
        conn.socket.note(event);
        if conn.trunk.is_some() {
            return self.trunk(key);
        }
        match (conn.client, conn.socket.readable) {
            (Some(client), _) => self.drive(client),
            (None, true) if !self.is_quiet(key) => self.drop_idle(key),
            (None, true | false) => {}
        }
    }

    /// Goes on with a client for as long as something can be done.
    pub fn drive(&mut self, key: Key) {
        for _ in 0..STEPS_MAX {
            let Some(client) = self.clients.get(key) else { return };
            let step = match client.phase {
                Phase::Arriving => self.arriving(key),
                Phase::Hello => self.hello(key),
                Phase::Shaking => self.shaking(key),
                Phase::Streams => self.session(key),
                Phase::Open => self.open(key),
                Phase::Busy | Phase::Tunnel => self.busy(key),
                Phase::Linger => self.linger(key),
            };
            if step == Step::Blocked {
                return;
            }
        }
        self.again.push(key);
    }

    fn busy(&mut self, key: Key) -> Step {
        let Some(client) = self.clients.get(key) else { return Step::Blocked };
        let tunnel = client.phase == Phase::Tunnel;
        let Some(mut exchange) = client.exchange.take() else { return Step::Blocked };
        let step = if tunnel { self.tunnel(key, &mut exchange) } else { self.exchange(key, &mut exchange) };
        if self.put_back(key, exchange, step) { step } else { Step::On }
    }

    /// A request under way is its client's again. False if it is over.
    pub fn put_back(&mut self, key: Key, exchange: Box<Exchange>, step: Step) -> bool {
        match self.clients.get(key) {
            Some(client) if step != Step::Finished => {
                client.exchange = Some(exchange);
                true
            }
            _ => {
                self.recycle(exchange);
                false
            }
        }
    }

    /// Takes back the rooms of a request that is over.
    pub fn recycle(&mut self, mut exchange: Box<Exchange>) {
        self.buffers.give_buffer(&mut exchange.outgoing);
        self.buffers.give(std::mem::take(&mut exchange.incoming));
        exchange.told = None;
        // It is no reason to keep an old plan.
        exchange.table = Rc::clone(&self.table);
        if self.spare.len() < SPARE_MAX {
            self.spare.push(exchange);
        }
    }

    fn look(&mut self, whose: Whose, tick: u64) {
        let now = self.now;
        match whose {
            Whose::Client(key) => {
                let Some(client) = self.clients.get(key) else { return };
                if self.timers.look(&mut client.timer, whose, tick, now) == Due::Now {
                    self.expired(key);
                }
            }
            Whose::Conn(key) => {
                let Some(conn) = self.conns.get(key) else { return };
                let due = self.timers.look(&mut conn.timer, whose, tick, now) == Due::Now;
                match &conn.trunk {
                    Some(_) if due => self.trunk_expired(key),
                    None if due && conn.client.is_none() => self.drop_idle(key),
                    Some(_) | None => {}
                }
            }
        }
    }

    /// Ends a client's connection and what it has under way.
    pub fn gone(&mut self, key: Key) {
        if self.clients.get(key).is_some_and(|client| client.session.is_some()) {
            return self.end_session(key);
        }
        let is_tunnel = self.clients.get(key).is_some_and(|client| client.phase == Phase::Tunnel);
        let exchange = self.clients.get(key).and_then(|client| client.exchange.take());
        if let Some(mut exchange) = exchange {
            let conn = exchange.conn.filter(|_| is_tunnel).and_then(|conn| self.conns.get(conn));
            if let Some(conn) = conn {
                // What came through it may not be whole, and nothing else would tell the service so.
                conn.socket.poison();
            }
            self.abandon(&mut exchange);
            self.tell_of(&exchange, None);
            self.recycle(exchange);
        }
        self.close(key);
    }

    /// Closes a client's socket. Its request is not its own any more.
    pub fn close(&mut self, key: Key) {
        if let Some(mut client) = self.clients.remove(key) {
            self.mirrors -= usize::from(client.is_mirror);
            self.buffers.give_buffer(&mut client.output);
            self.buffers.give(client.input);
        }
    }

    pub fn connect(&mut self, endpoint: u32) -> io::Result<Key> {
        let (address, service) = (self.endpoint(endpoint).address, self.endpoint(endpoint).service);
        let tls = self.services[service as usize].plan.tls.clone();
        let mut stream = TcpStream::connect(address)?;
        let key = self.conns.reserve();
        let token = Token(CONN << KIND_SHIFT | key.to_bits());
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, token, both) {
            self.conns.remove(key);
            return Err(error);
        }
        self.meters.connects.increment();
        let mut socket = Socket::new(stream);
        // The first time that it can be written to says that it is connected.
        socket.writable = false;
        let timer = Timer::default();
        let (client, member, introduced, trunk) = (None, None, None, None);
        let (connected, reused) = (false, false);
        let conn =
            Conn { socket, endpoint, client, connected, reused, tls, member, introduced, trunk, timer };
        self.conns.fill(key, conn);
        self.endpoint(endpoint).users += 1;
        Ok(key)
    }

    pub fn endpoint(&mut self, id: u32) -> &mut Endpoint {
        self.endpoints[id as usize].as_mut().expect("an endpoint stays while it is named")
    }

    /// One connection or ticket less names it.
    pub fn let_go(&mut self, id: u32) {
        let endpoint = self.endpoint(id);
        endpoint.users -= 1;
        if endpoint.retired && endpoint.users == 0 {
            let gone = self.endpoints[id as usize].take();
            self.free_endpoints.push(id);
            if let Some(Endpoint { service, address, meters: Some(meters), .. }) = gone {
                let service = &self.services[service as usize].plan.name;
                self.all_meters.forget_endpoint(service, &address.to_string(), &meters);
            }
        }
    }

    /// How long a connection to this endpoint is kept without a request, in milliseconds.
    pub fn idle_ms(&mut self, endpoint: u32) -> u64 {
        let service = self.endpoint(endpoint).service;
        self.services[service as usize].plan.idle_ms
    }

    pub fn endpoint_meters(&mut self, id: u32) -> Arc<EndpointMeters> {
        let (service, address) = (self.endpoint(id).service, self.endpoint(id).address);
        if let Some(meters) = &self.endpoint(id).meters {
            return Arc::clone(meters);
        }
        let name = &self.services[service as usize].plan.name;
        let meters = self.all_meters.endpoint(name, &address.to_string());
        self.endpoint(id).meters = Some(Arc::clone(&meters));
        meters
    }

    pub fn route_meters(&mut self, slot: u32) -> &RouteMeters {
        let RouteState { name, meters, .. } = &mut self.routes[slot as usize];
        meters.get_or_insert_with(|| self.all_meters.route(name))
    }
}
