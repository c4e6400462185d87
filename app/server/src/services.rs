//! The services of a node: its part of the registry, Consul's HTTP API, DNS, and the checks of what is registered here.
//!
//! A thread of its own with an executor: it answers while the workers are busy, and what it does costs them nothing. A
//! registration is in the node's file before it is answered. Others read it through a [`Handle`], which hands out whole views.

mod file;
mod http;
mod members;
pub(crate) mod post;
mod probe;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use fabric::{Identity, IdentityError};
use gateway::consul::About;
use gateway::consul::access::{Access, Rights, Rules, Tokens};
use kernel::{Micros, Rng};
use mesh::health::{Agent, CheckError, Definition, How, Probe};
use mesh::registry::{
    Entry, Health, Instance, Node, RecordError, RegisterError, Registry, Service, ServiceRegistry, Topic,
    View, WaiterId,
};
use runtime::{Clock, Remote};
use thiserror::Error;
use tokio::sync::{Notify, oneshot, watch};

use self::file::{FileError, Kept};
pub(crate) use self::store::Entrance;
use self::store::Store;
use crate::cluster::desk::Desk;
use crate::config::{self, Config};
use crate::dns::{self, DnsSockets};

/// Why a node has no services.
#[derive(Debug, Error)]
pub enum ServicesError {
    /// A port is taken or not ours.
    #[error(
        "cannot listen on {address} for {what}: {source}; stop what holds the port, or choose another with --port-offset 10 or the setting `{key}`"
    )]
    Listen {
        /// For whom.
        what: &'static str,
        /// The setting of the port.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// Its thread cannot be started.
    #[error("the thread of the services cannot be started: {source}")]
    Thread {
        /// The reason.
        source: io::Error,
    },
    /// The node's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What the node says of itself.
    #[error("what the configuration says of this node cannot be registered: {0}")]
    Node(#[from] RecordError),
    /// The file of what is registered.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What waits and what works in the registry, behind one lock that is held for a moment only.
struct Core {
    clock: Clock,
    agent: Agent,
    incarnation: u64,
    waiting: BTreeMap<WaiterId, oneshot::Sender<()>>,
    /// Counts changes that must be in the file; the file has those up to `Shared::kept`.
    changes: u64,
    probes: Vec<Probe>,
    /// The thread that wakes who waits is gone.
    has_ended: bool,
}

struct Shared {
    core: Mutex<Core>,
    view: RwLock<Arc<View>>,
    index: AtomicU64,
    /// Something is to be done before it was planned.
    nudge: Notify,
    kept: watch::Sender<u64>,
    desk: Option<Arc<Desk>>,
    remote: Option<Remote>,
    /// Where keys and sessions are.
    store: Option<Store>,
}

/// The registry of a running node, for other threads. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// What is registered at all nodes, as it is known here now. It stays what it is while it is held.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.0.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The index of [`Handle::view`]: one atomic load, to see whether there is a newer one.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.0.index.load(Ordering::Acquire)
    }

    /// Registers an instance of this process, or replaces it. It counts as critical until [`Handle::renew`] says how it is, and again
    /// when that has said nothing for `ttl`.
    ///
    /// # Errors
    /// [`CheckError`]; nothing has changed.
    pub fn register_with_ttl(&self, instance: Instance, ttl: Duration) -> Result<(), CheckError> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let (id, name) = (check_of(&instance.id), "said by the service".to_owned());
        let check = Definition { id, name, how: How::Ttl { ttl_ms }, ..Definition::default() };
        self.act(|agent, now| agent.register(now, instance, vec![check], true))
    }

    /// Says how an instance is that was registered with a time to live.
    ///
    /// # Errors
    /// [`CheckError::Unknown`]
    pub fn renew(&self, instance: &str, health: Health, output: &str) -> Result<(), CheckError> {
        self.act(|agent, now| agent.renew(now, &check_of(instance), health, output.to_owned()))
    }

    /// What this node is called.
    pub(crate) fn node_name(&self) -> String {
        self.lock().agent.registry().node().name.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the registry, and what follows from it.
    pub(crate) fn act<T>(&self, what: impl FnOnce(&mut Agent, Micros) -> T) -> T {
        self.act_numbered(what).0
    }

    /// The same; and the number of the change that must be in the file before it is answered.
    fn act_numbered<T>(&self, what: impl FnOnce(&mut Agent, Micros) -> T) -> (T, u64) {
        let mut core = self.lock();
        let core = &mut *core;
        let now = core.clock.now();
        let before = core.agent.deadline();
        let result = what(&mut core.agent, now);
        if core.agent.take_changed() {
            core.changes += 1;
        }
        let mut woken = Vec::new();
        core.agent.registry_mut().take_woken(&mut woken);
        for waiter in woken.iter().filter_map(|id| core.waiting.remove(id)) {
            // It may have gone.
            let _ = waiter.send(());
        }
        let mut frames = Vec::new();
        core.agent.registry_mut().take_frames(&mut frames);
        core.agent.take_probes(&mut core.probes);
        let view = core.agent.registry().view();
        if view.index() != self.0.index.load(Ordering::Relaxed) {
            *self.0.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view.clone());
            self.0.index.store(view.index(), Ordering::Release);
        }
        let is_nudged =
            core.agent.deadline() < before || !core.probes.is_empty() || core.changes > *self.0.kept.borrow();
        if let (Some(desk), Some(remote)) = (&self.0.desk, &self.0.remote) {
            desk.post.send(frames, remote);
        }
        if is_nudged {
            self.0.nudge.notify_one();
        }
        (result, core.changes)
    }

    /// Waits until the change of that number is in the file. False if the node stops before.
    async fn kept(&self, change: u64) -> bool {
        let mut kept = self.0.kept.subscribe();
        kept.wait_for(|kept| *kept >= change).await.is_ok()
    }

    /// Begins to wait until `topic` has changed or `wait` is over.
    fn begin_wait(&self, topic: Topic, after: u64, wait: Duration) -> Waiting<'_> {
        let (sender, receiver) = oneshot::channel();
        let mut core = self.lock();
        if core.agent.registry().view().index_of(&topic) != after {
            return Waiting::Over;
        }
        let end = core.clock.now() + u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        let before = core.agent.deadline();
        let begun = if core.has_ended { None } else { core.agent.registry_mut().wait(topic, end) };
        let Some(id) = begun else { return Waiting::Refused };
        core.waiting.insert(id, sender);
        if core.agent.deadline() < before {
            self.0.nudge.notify_one();
        }
        Waiting::Until(Leaving { handle: self, id }, receiver)
    }

    /// Waits until `topic` has changed or `wait` is over; false if too many wait or the node stops.
    async fn wait(&self, topic: Topic, after: u64, wait: Duration) -> bool {
        match self.begin_wait(topic, after, wait) {
            Waiting::Over => true,
            Waiting::Refused => false,
            Waiting::Until(_leaving, receiver) => receiver.await.is_ok(),
        }
    }
}

/// What the check of an instance is called, as Consul calls it.
fn check_of(instance: &str) -> String {
    format!("service:{instance}")
}

/// A wait that was begun, or was not.
enum Waiting<'a> {
    /// It has changed already.
    Over,
    /// Too many wait, or the node stops.
    Refused,
    /// Until something comes; it is left when the first of them goes.
    Until(Leaving<'a>, oneshot::Receiver<()>),
}

/// A client that goes while it waits waits no more.
struct Leaving<'a> {
    handle: &'a Handle,
    id: WaiterId,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut core = self.handle.lock();
        if core.waiting.remove(&self.id).is_some() {
            core.agent.registry_mut().leave(self.id);
        }
    }
}

/// What is done by its words is done in memory, and in the file soon after.
impl ServiceRegistry for Handle {
    fn register(&self, instance: Instance) -> Result<(), RegisterError> {
        self.act(|agent, now| agent.register(now, instance, Vec::new(), true)).map_err(|error| match error {
            CheckError::Register(error) => error,
            // It has no checks that could be wrong.
            CheckError::Time { .. }
            | CheckError::Runs { .. }
            | CheckError::Target { .. }
            | CheckError::Taken { .. }
            | CheckError::Unknown { .. }
            | CheckError::NoTtl { .. }
            | CheckError::Full => RegisterError::Full,
        })
    }

    fn discover(&self, service: &str) -> Vec<Arc<Entry>> {
        self.view().service(service).map_or_else(Vec::new, |it| it.usable().cloned().collect())
    }

    fn deregister(&self, id: &str) -> Result<(), RegisterError> {
        self.act(|agent, now| agent.deregister(now, id))
    }

    /// Must not be called within an executor: it blocks the thread.
    fn watch(&self, service: &str, after: u64, wait: Duration) -> (u64, Option<Arc<Service>>) {
        let topic = Topic::Service(service.into());
        if let Waiting::Until(_leaving, receiver) = self.begin_wait(topic.clone(), after, wait) {
            // It ends with the change, the time, or the node.
            let _ = receiver.blocking_recv();
        }
        let view = self.view();
        (view.index_of(&topic), view.service(service).cloned())
    }
}

/// Bound ports that are not served yet.
pub(crate) struct Bound {
    consul: std::net::TcpListener,
    dns: DnsSockets,
    kept: Kept,
    core: Core,
    port: http::Port,
    zone: dns::Zone,
    recursors: Vec<SocketAddr>,
}

/// The services of a running node.
pub struct Services {
    /// Where Consul's clients connect.
    pub consul: SocketAddr,
    /// Where questions of DNS are answered.
    pub dns: SocketAddr,
    /// Its registry.
    pub handle: Handle,
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Takes the ports and reads what was registered, if the configuration wants services.
pub(crate) fn bind(config: &Config) -> Result<Option<Bound>, ServicesError> {
    if !config.services.enabled {
        return Ok(None);
    }
    let address = config.consul_address();
    let failed =
        |source| ServicesError::Listen { what: "Consul's clients", key: "consul.port", address, source };
    let consul = std::net::TcpListener::bind(address).map_err(failed)?;
    consul.set_nonblocking(true).map_err(failed)?;
    let address = config.dns_address();
    let sockets = DnsSockets::bind(address).map_err(|source| ServicesError::Listen {
        what: "questions of DNS",
        key: "dns.port",
        address,
        source,
    })?;
    let identity = Identity::open(&config.data_dir)?;
    let id = identity.id();
    let node = node(config, id);
    let (kept, saved) = Kept::open(&config.data_dir)?;
    let mut clock = Clock::new();
    let now = clock.now();
    // A life above every earlier one, also when the clock has gone back.
    let incarnation = now.0.max(saved.incarnation.saturating_add(1));
    let seed = u64::from_le_bytes(*id.0.first_chunk().expect("a key has 32 bytes")) ^ incarnation;
    let registry = Registry::new(now, id, incarnation, saved.index.saturating_add(1), node, Rng::new(seed))?;
    let mut agent = Agent::new(registry, Rng::new(seed).fork(1));
    saved.restore(now, &mut agent);
    let mut core = Core {
        clock,
        agent,
        incarnation,
        waiting: BTreeMap::new(),
        changes: 1,
        probes: Vec::new(),
        has_ended: false,
    };
    core.agent.take_changed();
    // The life is in the file before anybody hears of it.
    kept.write(&core.saved())?;
    let about = About {
        datacenter: config.services.datacenter.as_str().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        leader: config.cluster_address().to_string(),
        peers: vec![config.cluster_address().to_string()],
    };
    let (zone, recursors) = (zone(config), config.dns.recursors.get().iter().map(|it| it.0).collect());
    let port = http::Port { about, tokens: tokens(config) };
    Ok(Some(Bound { consul, dns: sockets, kept, core, port, zone, recursors }))
}

/// Who may ask, as the configuration says.
fn tokens(config: &Config) -> Tokens {
    let access = |access| match access {
        config::Access::None => Access::None,
        config::Access::Read => Access::Read,
        config::Access::Write => Access::Write,
    };
    let rules = |others, prefixes: &[config::Prefixed]| {
        let all = Rules::all(access(others));
        prefixes.iter().fold(all, |rules, one| rules.with(&one.prefix, access(one.access)))
    };
    let anonymous = rules(config.consul.anonymous, &[]);
    let open = Tokens::open().with_anonymous(Rights { services: anonymous.clone(), keys: anonymous });
    config.consul.tokens.iter().fold(open, |tokens, token| {
        let services = rules(token.of_services(), &token.service_prefix.0);
        let rights = Rights { services, keys: rules(token.keys, &token.key_prefix.0) };
        tokens.with(token.name.as_str(), token.secret.expose(), rights)
    })
}

fn zone(config: &Config) -> dns::Zone {
    let seconds = |ttl: u64| u32::try_from(ttl).unwrap_or(u32::MAX);
    let (domain, datacenter) = (config.dns.domain.as_str(), config.services.datacenter.as_str());
    let (ttl, negative_ttl) = (seconds(config.dns.ttl.get()), seconds(config.dns.negative_ttl.get()));
    dns::Zone::new(domain, datacenter, ttl, negative_ttl).expect("a checked configuration has a domain")
}

/// What the node says of itself.
fn node(config: &Config, id: kernel::NodeId) -> Node {
    let digits: String = id.to_string().chars().take(8).collect();
    let name = config.services.node_name.as_ref();
    let address = config.services.address.or(config.cluster.advertise).map(crate::config::Address::get);
    let bound = [config.cluster.bind, config.consul.bind].into_iter().find(|ip| !ip.is_unspecified());
    Node {
        name: name.map_or_else(|| format!("archipel-{digits}"), |name| name.as_str().to_owned()),
        address: address.or(bound).map_or_else(|| "127.0.0.1".to_owned(), |ip| ip.to_string()),
        zone: config.cluster.zone.as_str().to_owned(),
        ..Node::default()
    }
}

impl Core {
    /// Nobody waits any more. What is registered, as the file has it.
    fn end(&mut self) -> Vec<u8> {
        self.has_ended = true;
        self.waiting.clear();
        self.saved()
    }

    fn saved(&self) -> Vec<u8> {
        mesh::health::Saved::of(&self.agent, self.incarnation).encode()
    }
}

impl Bound {
    /// Serves. With a desk and the worker behind it, what is registered is what all members of the cluster have. With an
    /// entrance there are keys and sessions.
    ///
    /// # Errors
    /// [`ServicesError::Thread`], [`ServicesError::Listen`]
    pub fn serve(
        self,
        desk: Option<Arc<Desk>>,
        remote: Option<Remote>,
        entrance: Option<Entrance>,
    ) -> Result<Services, ServicesError> {
        let thread = |source| ServicesError::Thread { source };
        let Bound { consul, dns, kept, core, port, zone, recursors } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(thread)?;
        let (consul_address, dns_address) = (consul.local_addr().map_err(thread)?, dns.address);
        let view = Arc::new(core.agent.registry().view().clone());
        let shared = Shared {
            index: AtomicU64::new(view.index()),
            view: RwLock::new(view),
            core: Mutex::new(core),
            nudge: Notify::new(),
            kept: watch::Sender::new(1),
            desk,
            remote,
            store: entrance.map(Store::new),
        };
        let handle = Handle(Arc::new(shared));
        let consul = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(consul).map_err(thread)?
        };
        let (end, ended) = oneshot::channel();
        let served = handle.clone();
        let thread = std::thread::Builder::new()
            .name("services".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = run(&served, &kept) => {}
                        () = http::accept(consul, served.clone(), port) => {}
                        () = dns::serve(dns, served.clone(), zone, &recursors) => {}
                        () = members::follow(&served) => {}
                        () = sessions(&served) => {}
                        _ = ended => {}
                    }
                });
                // A write that is under way ends first: both write the same file.
                drop(runtime);
                // What was given out as an index is not given out again.
                let saved = served.lock().end();
                if let Err(error) = kept.write(&saved) {
                    tracing::error!(%error, "what is registered could not be kept");
                }
            })
            .map_err(thread)?;
        Ok(Services { consul: consul_address, dns: dns_address, handle, end, thread })
    }
}

impl Services {
    /// Ends the thread and closes the ports.
    pub fn stop(self) {
        // A thread that has ended does not listen.
        let _ = self.end.send(());
        if self.thread.join().is_err() {
            tracing::error!("the thread of the services ended badly");
        }
    }
}

/// Looks after keys and sessions, if there are any.
async fn sessions(handle: &Handle) {
    match &handle.0.store {
        Some(store) => store.follow(handle).await,
        None => std::future::pending().await,
    }
}

/// Probes at once, at most; others wait.
const PROBES_MAX: usize = 256;

/// Lets time pass, makes probes, keeps changes.
async fn run(handle: &Handle, kept: &Kept) {
    let places = Arc::new(tokio::sync::Semaphore::new(PROBES_MAX));
    loop {
        let (wait, probes, changes) = {
            let mut core = handle.lock();
            let (now, due) = (core.clock.now(), core.agent.deadline());
            (Duration::from_micros(due.since(now)), std::mem::take(&mut core.probes), core.changes)
        };
        for probe in probes {
            let (handle, places) = (handle.clone(), Arc::clone(&places));
            tokio::spawn(async move {
                // After its time it has failed already, and its result is nobody's.
                let place = tokio::time::timeout(probe.timeout, places.acquire()).await;
                let Ok(Ok(_place)) = place else { return };
                let (status, output) = probe::make(&probe).await;
                handle.act(|agent, now| agent.probed(now, &probe.check, probe.number, status, output));
            });
        }
        if changes > *handle.0.kept.borrow() {
            keep(handle, kept).await;
        } else {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = handle.0.nudge.notified() => {}
            }
        }
        handle.act(|agent, now| agent.wake(now));
    }
}

/// How long after a failed write it is tried again.
const AGAIN_MILLIS: u64 = 1000;

/// Writes what is registered, with all changes that came until now.
async fn keep(handle: &Handle, kept: &Kept) {
    let (changes, saved) = {
        let core = handle.lock();
        (core.changes, core.saved())
    };
    let file = kept.clone();
    let written = tokio::task::spawn_blocking(move || file.write(&saved)).await;
    match written {
        Ok(Ok(())) => drop(handle.0.kept.send_replace(changes)),
        Ok(Err(error)) => {
            tracing::error!(%error, "what is registered could not be kept, and is tried again; who registers waits");
            tokio::time::sleep(Duration::from_millis(AGAIN_MILLIS)).await;
        }
        Err(error) => tracing::error!(%error, "the thread that keeps what is registered ended badly"),
    }
}
