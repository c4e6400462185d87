//! A whole server: the directory's lock, TLS, the node and its admin port, from one configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use consensus::Durability;
use control::Name;
use disk::engine::EngineOptions;
use disk::log::LogOptions;
use fabric::join::Token;
use fabric::overlay::Overlay;
use gateway::resp::users::DEFAULT_USER;
use gateway::resp::{Secret, Users};
use kernel::{ClusterId, KeyspaceId, Millis, NodeId};
use node::Settings;
use placement::Partitions;
use proxy::{Meters, Plan, Proxy, ProxyError};
use storage::store::Policy;
use thiserror::Error;

use crate::admin::{self, Admin, AdminError, Subject};
use crate::checkpoint::CheckpointOptions;
use crate::cluster::incarnation;
use crate::cluster::start::ClusterOptions;
use crate::config::items::One;
use crate::config::{self, Config, ConfigError, Loaded};
use crate::divisions::recorded;
use crate::housekeep::{self, Housekeeper, Housekeeping, unix_millis};
use crate::keeping::Keeping;
use crate::lock::{DirectoryLock, LockError};
use crate::node::{Keyspace, Node, NodeError, NodeOptions};
use crate::otlp::{self, Exporter, OtlpMeters};
use crate::p2p::{self, P2pError};
use crate::proxy::follow::{self, Follower, Steering};
use crate::proxy::tls::Own;
use crate::proxy::{Discovery, Proxied, check_files_of, plan_of};
use crate::rendezvous::{self, FindError, Publisher};
use crate::services::{self, Entrance, Services, ServicesError};
use crate::takeover::{Handed, Heir, Place, TakeoverError};
use crate::tls::{self, TlsError};

/// Why a server does not start or did not stop well.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Its directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The admin port.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The node itself.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The overlay.
    #[error(transparent)]
    P2p(#[from] P2pError),
    /// The cluster is not found in it.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The registry of services.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// The configuration, in what is only seen when it is put to use.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// What sends to a collector.
    #[error("the thread that sends to the collector (`otlp.endpoint`) cannot be started: {source}")]
    Otlp {
        /// The reason.
        source: std::io::Error,
    },
    /// Its key cannot prove who it is.
    #[error(transparent)]
    Proof(#[from] proxy::TlsError),
    /// Taking over, or handing over.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// What the node must draw.
    #[error("the system has no random bytes for the node's own password")]
    NoRandom,
}

/// How a node joins a cluster.
#[derive(Clone, Debug)]
pub struct Joining {
    /// What lets it in.
    pub token: Token,
    /// The cluster, if it is to be looked for in the overlay: the token's addresses may be old.
    pub find: Option<ClusterId>,
}

/// How a server begins.
#[derive(Clone, Debug)]
pub enum Beginning {
    /// On its data directory, as what that says it is.
    Usual,
    /// As a new member of a cluster.
    Join(Joining),
    /// In the place of the process that runs on the data directory, if one does.
    TakeOver,
}

impl Joining {
    /// Where the cluster's members are, if they are to be looked for.
    fn others(&self, overlay: Option<&Overlay>) -> Result<Vec<(NodeId, Vec<SocketAddr>)>, FindError> {
        self.find.map_or(Ok(Vec::new()), |cluster| rendezvous::find(overlay, cluster, &self.token))
    }
}

/// Tells the overlay where the members of this node's cluster are, if it is to.
fn publisher(
    config: &Config,
    overlay: Option<&Overlay>,
    node: &Node,
) -> Result<Option<Publisher>, FindError> {
    let parts = overlay.zip(node.desk.as_ref()).zip(node.remotes().into_iter().next());
    let Some(((overlay, desk), remote)) = parts.filter(|_| config.cluster.rendezvous) else {
        return Ok(None);
    };
    Ok(Some(Publisher::start(overlay.dht(), remote, Arc::clone(desk))?))
}

/// What is there before the node is, and serves once it does.
struct Ground {
    admin: admin::Bound,
    services: Option<services::Bound>,
    /// The password with which the node enters its own store.
    own: String,
    on_stop: Box<dyn Fn() + Send>,
}

/// What runs beside a node. Each of its threads ends when this is dropped.
struct Beside {
    admin: Admin,
    housekeeper: Housekeeper,
    _publisher: Option<Publisher>,
    services: Option<Services>,
    discovery: Option<Discovery>,
    exporter: Option<Exporter>,
}

impl Ground {
    fn serve(
        self,
        loaded: &Loaded,
        node: &Node,
        overlay: Option<&Overlay>,
        (proxy, proxy_meters, steering): (&Proxied, &Arc<Meters>, &Steering),
    ) -> Result<Beside, ServeError> {
        let config = &loaded.config;
        let remote = node.remotes().into_iter().next();
        let entrance = entrance(config, node.redis, self.own);
        let services = self.services.map(|bound| bound.serve(node.desk.clone(), remote, entrance));
        let services = services.transpose()?;
        let keeping = Arc::new(Keeping::new(&config.data_dir, Millis(unix_millis()), node.log()));
        let housekeeper = Housekeeper::start(Housekeeping {
            remotes: node.remotes(),
            meters: Arc::clone(&node.meters),
            checkpoint: Arc::clone(&node.checkpoint),
            dir: config.data_dir.clone(),
            quota: config.storage.disk_quota.get(),
            keeping: Arc::clone(&keeping),
            process: housekeep::process(node.redis, loaded.file.as_deref()),
            on_stop: self.on_stop,
        })
        .map_err(|source| AdminError::Thread { source })?;
        let collector = config.otlp.endpoint.as_ref().map(|One(one)| (one, Arc::<OtlpMeters>::default()));
        let admin = self.admin.serve(Subject {
            otlp: collector.as_ref().map(|(_, meters)| Arc::clone(meters)),
            remotes: node.remotes(),
            meters: Arc::clone(&node.meters),
            checkpoint: Arc::clone(&node.checkpoint),
            labels: config.keyspaces().iter().map(config::Keyspace::label).collect(),
            overlay: overlay.map(|overlay| (overlay.node(), overlay.dht())),
            desk: node.desk.clone(),
            proxy: Arc::clone(proxy_meters),
            proxied: proxy.clone(),
            steering: steering.clone(),
            services: services.as_ref().map(|services| services.handle.clone()),
            engine: node.engine(),
            log: node.log(),
            origin: node.origin,
            keeping,
            divisions: recorded(&config.data_dir)?,
        })?;
        let discovery =
            services.as_ref().map(|services| Discovery::start(services.handle.clone(), proxy.clone()));
        let discovery = discovery.transpose().map_err(|source| ProxyError::Thread { source })?;
        let _publisher = publisher(config, overlay, node)?;
        let exporter = collector.map(|(collector, meters)| {
            let instance = otlp::instance(node, services.as_ref());
            otlp::begin(collector, &config.otlp, instance, proxy_meters, meters, &admin)
        });
        let exporter = exporter.transpose().map_err(|source| ServeError::Otlp { source })?;
        Ok(Beside { admin, housekeeper, _publisher, services, discovery, exporter })
    }
}

/// A running server.
pub struct Server {
    node: Node,
    admin: Admin,
    housekeeper: Housekeeper,
    /// Tells the overlay where the cluster's members are, if it is to.
    _publisher: Option<Publisher>,
    overlay: Option<Overlay>,
    /// Its part of the registry of services, with Consul's HTTP API and DNS, if it has one.
    pub services: Option<Services>,
    proxy: Proxied,
    /// What the proxy follows.
    steering: Steering,
    follower: Option<Follower>,
    discovery: Option<Discovery>,
    exporter: Option<Exporter>,
    proxy_meters: Arc<Meters>,
    /// Where those ask who take over, if they can.
    place: Option<Place>,
    /// What it was started with, and the proxy's settings that are followed now.
    config: Config,
    /// Where Redis clients connect.
    pub redis: SocketAddr,
    /// Where the admin port is.
    pub admin_address: SocketAddr,
    /// Where peers of the overlay connect, if it takes part in one.
    pub p2p: Option<SocketAddr>,
    /// Given back last, when nothing uses the directory any more.
    _lock: DirectoryLock,
}

impl Server {
    /// Starts everything that `loaded` asks for. It serves when this returns. `on_stop` is called, from a thread of the server, when
    /// a client asks for its end, or another process takes over; it should lead to [`Server::stop`].
    ///
    /// # Errors
    /// [`ServeError`]; the node has stopped then, and threads beside it end by themselves.
    pub fn start(
        loaded: &Loaded,
        beginning: Beginning,
        on_stop: impl Fn() + Clone + Send + 'static,
    ) -> Result<Server, ServeError> {
        let config = &loaded.config;
        let mut options = options(config)?;
        // What is wrong with the configuration is to be seen before another process stops for it.
        let is_alone = !may_be_member(config, &beginning);
        let own = if is_alone { Own::Nobody } else { Own::Unknown };
        check_files_of(loaded, own)?;
        let (lock, handed) = enter(&config.data_dir, &beginning)?;
        let planned = plan_of(loaded, config.proxy.workers.get(), own)?;
        let admin = Admin::bind(config.admin_address())?;
        let proxy_meters = Arc::<Meters>::default();
        let proxy = Proxied::default();
        // A member may have to do what its cluster says, and not what its file does.
        let is_early = handed.is_none() && is_alone;
        *proxy.lock() = proxying(config, planned, &proxy_meters, is_early)?;
        let steering = Steering::new(loaded, proxy.clone(), Arc::clone(&proxy_meters));
        let overlay = p2p::start(config)?;
        let services = services::bind(config)?;
        if let Beginning::Join(joining) = beginning {
            options.cluster.others = joining.others(overlay.as_ref())?;
            options.cluster.join = Some(joining.token);
        }
        let own = own_password(&mut options.settings)?;
        let node = Node::start(options)?;
        let ground = Ground { admin, services, own, on_stop: Box::new(on_stop.clone()) };
        let parts = (&proxy, &proxy_meters, &steering);
        let beside = ground.serve(loaded, &node, overlay.as_ref(), parts);
        let beside = beside.and_then(|beside| {
            if let Some(desk) = &node.desk {
                steering.prove(desk.proof()?);
            }
            if !is_early {
                take_place(&node, &steering, handed)?;
            }
            // Another may have the name.
            let place = Place::open(&config.data_dir, proxy.clone(), on_stop);
            let told =
                |error: &TakeoverError| tracing::warn!(%error, "no process can take over from this one");
            Ok((beside, place.inspect_err(told).ok(), follower(&node, &steering)?))
        });
        let (beside, place, follower) = match beside {
            Ok(beside) => beside,
            Err(error) => {
                // Why it does not start is what the caller is told.
                if let Err(error) = node.stop() {
                    tracing::error!(%error, "the node did not stop well");
                }
                return Err(error);
            }
        };
        let Beside { admin, housekeeper, _publisher, services, discovery, exporter } = beside;
        let (redis, admin_address) = (node.redis, admin.address);
        let p2p = overlay.as_ref().map(|overlay| overlay.address);
        let config = config.clone();
        Ok(Server {
            node,
            admin,
            housekeeper,
            _publisher,
            overlay,
            services,
            proxy,
            steering,
            follower,
            discovery,
            exporter,
            proxy_meters,
            place,
            config,
            redis,
            admin_address,
            p2p,
            _lock: lock,
        })
    }

    /// Where the proxy listens, by the names of its listeners.
    #[must_use]
    pub fn proxy(&self) -> Vec<(String, SocketAddr)> {
        self.proxy.lock().as_ref().map(Proxy::addresses).unwrap_or_default()
    }

    /// Follows what changed of the proxy's settings, without a connection lost. Whether other settings differ too, which
    /// the next start takes.
    ///
    /// # Errors
    /// [`ServeError`]; nothing changes.
    pub fn reload(&mut self, loaded: &Loaded) -> Result<bool, ServeError> {
        self.steering.reload(loaded)?;
        self.steering.tell(&mut self.config);
        Ok(self.config != loaded.config)
    }

    /// Counts a configuration that could not be loaded: the last good one stays in force.
    pub fn reload_refused(&self) {
        self.proxy_meters.refused.increment();
    }

    /// Stops in order: health says so, clients are answered, a checkpoint is written, the log is synced. If another process takes
    /// over, the proxy serves until that one does.
    ///
    /// # Errors
    /// What could not be made durable, or that nobody took over who said so.
    pub fn stop(self) -> Result<(), ServeError> {
        let heir = self.place.as_ref().and_then(Place::close);
        drop(self.place);
        self.admin.stopping();
        self.housekeeper.stop();
        self.overlay.into_iter().for_each(Overlay::stop);
        self.follower.into_iter().for_each(Follower::stop);
        self.services.into_iter().for_each(Services::stop);
        self.discovery.into_iter().for_each(Discovery::stop);
        if heir.is_none() {
            self.proxy.lock().take().into_iter().for_each(Proxy::stop);
        }
        self.node.stop()?;
        self.admin.stop();
        drop(self._lock);
        let served = heir.as_ref().map_or(Ok(()), Heir::wait_serving);
        self.proxy.lock().take().into_iter().for_each(Proxy::drain);
        // The last requests have ended by now.
        self.exporter.into_iter().for_each(Exporter::stop);
        Ok(served?)
    }
}

/// Lets the node enter its own store, and says with which password: neither the configuration nor the cluster's users need
/// say how.
fn own_password(settings: &mut Settings) -> Result<String, ServeError> {
    let own = fabric::join::Secret::draw().ok_or(ServeError::NoRandom)?;
    let own: String = own.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let users = std::mem::take(&mut settings.users);
    settings.users = users.with_own(OWN_USER.as_bytes(), Secret::Plain(own.as_bytes().into()));
    Ok(own)
}

/// Under which name the node is a client of its own store.
const OWN_USER: &str = "archipel-services";

/// How the node's own Redis port is entered with this password; not at all if it asks for TLS.
fn entrance(config: &Config, redis: SocketAddr, password: String) -> Option<Entrance> {
    let ip = if redis.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { redis.ip() };
    config.redis.tls_cert.is_none().then(|| Entrance {
        address: SocketAddr::new(ip, redis.port()),
        user: (OWN_USER.to_owned(), password),
        keyspace: config.consul.keyspace.get(),
    })
}

/// How long the process before may take to give its directory back: it writes a checkpoint.
const HANDED_MAX: Duration = Duration::from_secs(300);
/// How long services that the process before had found may take to be found here: the registry is told within a second.
const FOUND_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether they are.
const FOUND_LOOK: Duration = Duration::from_millis(5);

/// Takes the data directory, from the process that has it if this one is to take its place.
fn enter(dir: &Path, beginning: &Beginning) -> Result<(DirectoryLock, Option<Handed>), ServeError> {
    let handed = match beginning {
        Beginning::TakeOver => Handed::ask(dir)?,
        Beginning::Usual | Beginning::Join(_) => None,
    };
    let lock = match &handed {
        Some(_) => DirectoryLock::wait(dir, HANDED_MAX)?,
        None => DirectoryLock::take(dir)?,
    };
    Ok((lock, handed))
}

/// Whether what is started on the data directory is, or may be, a cluster's member.
fn may_be_member(config: &Config, beginning: &Beginning) -> bool {
    let was = config.data_dir.join(incarnation::NAME).exists();
    config.cluster.enabled || was || matches!(beginning, Beginning::Join(_))
}

/// Has the proxy listen and follow what the cluster says, if it says anything, or the file. The sockets of the process before
/// are taken once the proxy can answer whatever that one could.
fn take_place(node: &Node, steering: &Steering, handed: Option<Handed>) -> Result<(), ServeError> {
    let remote = node.desk.as_ref().and_then(|_| node.remotes().into_iter().next());
    let revisions = remote.map(|remote| follow::revisions(&remote)).unwrap_or_default();
    let mut handed = handed;
    let mut end = None;
    steering.begin(&revisions, |proxied| {
        let Some(handed) = &mut handed else { return };
        // All that is tried has this time together: the process before waits.
        let end = *end.get_or_insert_with(|| Instant::now() + FOUND_MAX);
        while proxied.lock().as_ref().is_some_and(|proxy| !handed.is_found(proxy)) && Instant::now() < end {
            std::thread::sleep(FOUND_LOOK);
        }
        // A configuration without listeners is handed sockets for nothing, and a plan that failed leaves them where they are.
        let sockets = std::mem::take(&mut handed.sockets);
        if let Some(proxy) = proxied.lock().as_mut().filter(|_| !sockets.is_empty()) {
            proxy.inherit(sockets);
        }
    })?;
    if let Some(Err(error)) = handed.as_ref().map(Handed::serving) {
        // It has ended already: what it listened on is here, and nobody else serves.
        tracing::warn!(%error, "the process before did not wait until this one served");
    }
    Ok(())
}

/// Follows what the cluster says from now on, if there is one.
fn follower(node: &Node, steering: &Steering) -> Result<Option<Follower>, ServeError> {
    let parts = node.desk.as_ref().zip(node.remotes().into_iter().next());
    let started =
        parts.map(|(desk, remote)| Follower::start(steering.clone(), Arc::clone(desk), remote)).transpose();
    Ok(started.map_err(|source| ProxyError::Thread { source })?)
}

/// The proxy, if the configuration has a listener of it; they listen at once, or with another plan.
fn proxying(
    config: &Config,
    mut planned: Plan,
    meters: &Arc<Meters>,
    listens: bool,
) -> Result<Option<Proxy>, ServeError> {
    let proxy = &config.proxy;
    if proxy.listener.is_empty() {
        return Ok(None);
    }
    let workers = usize::try_from(proxy.workers.get()).expect("there are at most 16 workers");
    if !listens {
        planned.listeners.clear();
    }
    Ok(Some(Proxy::start(planned, workers, Arc::clone(meters))?))
}

pub(crate) fn options(config: &Config) -> Result<NodeOptions, TlsError> {
    let redis_tls = match (&config.redis.tls_cert, &config.redis.tls_key) {
        (Some(cert), Some(key)) => Some(tls::server_config(cert, key)?),
        // One without the other was refused when the configuration was checked.
        (Some(_) | None, None) | (None, Some(_)) => None,
    };
    let storage = &config.storage;
    let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Ok(NodeOptions {
        data_dir: config.data_dir.clone(),
        redis: config.redis_address(),
        redis_tls,
        settings: settings(config),
        keyspaces: config.keyspaces().iter().map(|one| keyspace(config, one)).collect(),
        workers: u16::try_from(storage.workers.get()).expect("there are at most 16 workers"),
        clients_max: bytes(config.redis.clients_max.get()),
        pin_workers: config.storage.pin_workers,
        log: LogOptions {
            segment_bytes: storage.segment_bytes.get(),
            reserve_bytes: storage.reserve_bytes.get(),
            archived_bytes: storage.archived_log_bytes.get(),
        },
        engine: engine_options(config),
        cluster: cluster(config),
        checkpoint: CheckpointOptions {
            log_bytes: storage.checkpoint_bytes.get(),
            ..CheckpointOptions::default()
        },
    })
}

/// What whoever makes a backup tells, if the configuration has it: the password of all Redis clients, or that of the first
/// user.
#[must_use]
pub fn password(config: &Config) -> Option<&str> {
    let named = config.redis.users.first().map(|user| &user.password);
    config.redis.requirepass.as_ref().or(named).map(config::Secret::expose)
}

/// How the engine is kept.
#[must_use]
pub fn engine_options(config: &Config) -> EngineOptions {
    EngineOptions { cache_bytes: config.storage.cache_bytes.get(), ..EngineOptions::default() }
}

fn cluster(config: &Config) -> ClusterOptions {
    let cluster = &config.cluster;
    ClusterOptions {
        enabled: cluster.enabled,
        spoken: cluster.spoken().expect("the configuration was checked"),
        join: None,
        others: Vec::new(),
        zone: Name::new(cluster.zone.as_str()).expect("a name of the configuration is one of the cluster"),
        listen: config.cluster_address(),
        advertise: cluster.advertise.map(config::Address::get),
        clients: config.cluster_clients_address(),
        advertise_clients: cluster
            .advertise
            .map(config::Address::get)
            .filter(|_| !config.redis.bind.is_loopback()),
    }
}

/// What sessions tell and ask: Redis's names for our settings, and the users.
fn settings(config: &Config) -> Settings {
    let secret = |secret: &config::Secret| Secret::Plain(secret.expose().as_bytes().into());
    let mut users = Users::open();
    if let Some(password) = &config.redis.requirepass {
        users = users.with(DEFAULT_USER, secret(password));
    }
    for user in &config.redis.users {
        users = users.with(user.name.as_str().as_bytes(), secret(&user.password));
    }
    let first = config.keyspaces().into_iter().next().expect("there are sixteen keyspaces");
    let address = config.redis_address();
    let tls_port = if config.redis.tls_cert.is_some() { address.port() } else { 0 };
    let overrides = [
        ("appendfsync", first.durability.word().to_owned()),
        ("bind", address.ip().to_string()),
        ("databases", config::KEYSPACES.to_string()),
        ("dir", config.data_dir.display().to_string()),
        ("maxclients", config.redis.clients_max.get().to_string()),
        ("maxmemory", first.memory.get().to_string()),
        ("maxmemory-policy", first.eviction.word().to_owned()),
        ("port", address.port().to_string()),
        ("tls-port", tls_port.to_string()),
    ];
    Settings { users, config: gateway::resp::Config::new(&overrides), ..Settings::default() }
}

fn keyspace(config: &Config, keyspace: &config::Keyspace) -> Keyspace {
    let memory = keyspace.memory.get();
    let partitions = u16::try_from(keyspace.partitions.get()).ok();
    let partitions = partitions.and_then(|count| Partitions::new(count).ok());
    Keyspace {
        partitions: partitions.expect("the configuration bounds them"),
        is_named: config.keyspace.iter().any(|named| named.id == keyspace.id),
        id: KeyspaceId(u16::try_from(keyspace.id.get()).expect("a keyspace's number is below 16")),
        label: keyspace.label(),
        copies: u8::try_from(keyspace.copies.get()).expect("there are at most 16 copies"),
        durability: match keyspace.durability {
            config::Durability::Always => Durability::Always,
            config::Durability::Everysec => Durability::EverySec,
        },
        memory: (memory > 0).then(|| usize::try_from(memory).unwrap_or(usize::MAX)),
        eviction: Policy::from_name(keyspace.eviction.word()).expect("both lists are Redis's policies"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Eviction, Sources};

    /// A node on free ports that is or becomes a cluster's member.
    fn member(dir: &Path) -> Loaded {
        let data_dir = dir.display().to_string();
        let ports = ["redis.port", "admin.port", "cluster.port", "cluster.redis_port"].map(|it| (it, "0"));
        let others =
            [("data_dir", &*data_dir), ("cluster.enabled", "true"), ("storage.segment_bytes", "1MiB")];
        let set = ports.into_iter().chain(others);
        let flags = set.map(|(key, value)| ("--set".to_owned(), key.to_owned(), value.to_owned())).collect();
        Loaded::load(&Sources { file: None, variables: Vec::new(), flags }).unwrap()
    }

    #[test]
    fn a_server_that_does_not_start_has_stopped_its_node() {
        let home = tempfile::tempdir().unwrap();
        let loaded = member(home.path());
        let start = || Server::start(&loaded, Beginning::Usual, || ());
        start().unwrap().stop().unwrap();
        // A member looks at this file only when its node runs already.
        let record = home.path().join("partitions");
        std::fs::write(&record, "keyspace 1 partitions 2").unwrap();
        assert!(matches!(start(), Err(ServeError::Node(NodeError::File { .. }))));
        std::fs::remove_file(&record).unwrap();
        start().unwrap().stop().unwrap();
    }

    #[test]
    fn every_eviction_that_can_be_configured_is_a_policy_of_the_store() {
        for eviction in Eviction::ALL {
            assert!(Policy::from_name(eviction.word()).is_some(), "{eviction:?}");
        }
    }
}
