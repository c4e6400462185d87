//! One node: its threads from start to stop.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use consensus::{Durability, Solo};
use control::CONTROL;
use disk::backup::Origin;
use disk::engine::{Engine, EngineError, EngineOptions, Mark};
use disk::log::{Log, LogError, LogOptions, SyncEvent};
use kernel::{GroupId, Index, KeyspaceId, Millis, WorkerId};
use node::cluster::formation::database;
use node::cluster::transfer;
use node::recover::{ReplicaError, Stores};
use node::{
    DivisionError, Divisions, Elsewhere, Partition, RecoverError, Recovery, Settings, Worker, division, owner,
};
use placement::Partitions;
use runtime::{Clients, Clock, Control, Core, Crowd, Listener, Reactor, ReactorError, Remote, Stopwatch};
use rustls::ServerConfig;
use script::LuaEngine;
use storage::Store;
use storage::store::{Naming, Policy};
use telemetry::StorageMeters;
use thiserror::Error;

use crate::checkpoint::{Asked, CheckpointOptions, Checkpointer};
use crate::cluster;
use crate::cluster::desk::Desk;
use crate::cluster::links::MemberLinks;
use crate::cluster::member::{self, MemberStart};
use crate::cluster::start::{ClusterError, ClusterOptions};
use crate::divisions::{record, recorded};
use crate::fetch::Fetchers;
use crate::housekeep::unix_millis;
use crate::identity::identity;
use crate::keeping;
use crate::load::{EngineFetch, LoadError, load};
use crate::log::SharedLog;
use crate::relay::SyncRelay;

/// How long a stopping member waits for others to lead what it leads, in milliseconds.
const RESIGN_MILLIS_MAX: u64 = 1_500;
/// How often it looks.
const RESIGN_LOOK_MILLIS: u64 = 10;

/// One keyspace as configured.
#[derive(Clone, Debug)]
pub struct Keyspace {
    /// Its number, for `SELECT`.
    pub id: KeyspaceId,
    /// What it is called.
    pub label: String,
    /// How many members of a cluster keep each of its partitions.
    pub copies: u8,
    /// Into how many its keys are divided.
    pub partitions: Partitions,
    /// Whether the configuration names it. One that it does not name is divided as its data is.
    pub is_named: bool,
    /// When a write is acknowledged.
    pub durability: Durability,
    /// Bytes of memory its entries may take; `None` for no limit.
    pub memory: Option<usize>,
    /// What happens at that limit besides leaving bodies on the disk.
    pub eviction: Policy,
}

impl Keyspace {
    /// Bytes of memory that each of its partitions may take: all the same.
    fn share(&self) -> Option<usize> {
        self.memory.map(|bytes| (bytes / usize::from(self.partitions.count())).max(1))
    }
}

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Where its files are.
    pub data_dir: PathBuf,
    /// Where Redis clients connect.
    pub redis: SocketAddr,
    /// TLS for them, unless plain.
    pub redis_tls: Option<Arc<ServerConfig>>,
    /// What sessions know of the node: users, settings.
    pub settings: Settings,
    /// Its keyspaces.
    pub keyspaces: Vec<Keyspace>,
    /// Threads that serve clients, each with a part of the keyspaces.
    pub workers: u16,
    /// Most clients at once.
    pub clients_max: usize,
    /// Each worker keeps to a core of its own, if there is one.
    pub pin_workers: bool,
    /// How the log is kept.
    pub log: LogOptions,
    /// How the engine is kept.
    pub engine: EngineOptions,
    /// When checkpoints are made.
    pub checkpoint: CheckpointOptions,
    /// Whether and how it is a member of a cluster.
    pub cluster: ClusterOptions,
}

impl NodeOptions {
    /// Bytes of memory that the entries of a group may take.
    pub(crate) fn share_of(&self, group: GroupId) -> Option<usize> {
        self.keyspaces.iter().find(|keyspace| keyspace.id == group.keyspace()).and_then(Keyspace::share)
    }

    /// The same, of all keyspaces that have a limit.
    pub(crate) fn budgets(&self) -> BTreeMap<KeyspaceId, usize> {
        self.keyspaces.iter().filter_map(|keyspace| Some((keyspace.id, keyspace.share()?))).collect()
    }

    pub(crate) fn divisions(&self) -> Divisions {
        let mut divisions = Divisions::default();
        self.keyspaces.iter().for_each(|keyspace| divisions.set(keyspace.id, keyspace.partitions));
        divisions
    }

    /// The same with the keyspaces that the data has and the configuration does not name, as they are divided there: a
    /// backup of a cluster may have more than those that every node has.
    fn with_those_of(mut self, divisions: &Divisions, marks: &[(GroupId, Mark)]) -> NodeOptions {
        for keyspace in self.keyspaces.iter_mut().filter(|keyspace| !keyspace.is_named) {
            keyspace.partitions = divisions.of(keyspace.id);
        }
        let found = marks.iter().map(|(group, _)| group.keyspace()).chain(divisions.iter().map(|(id, _)| id));
        for id in found {
            if !self.keyspaces.iter().any(|keyspace| keyspace.id == id) {
                let settings = database(id);
                tracing::info!(
                    keyspace = id.0,
                    "the data has a keyspace that is not configured; it is served"
                );
                self.keyspaces.push(Keyspace {
                    id,
                    label: settings.name.as_str().to_owned(),
                    copies: settings.copies,
                    partitions: divisions.of(id),
                    is_named: false,
                    durability: settings.durability,
                    memory: None,
                    eviction: settings.eviction,
                });
            }
        }
        self
    }
}

/// Why a node did not start or stopped.
#[derive(Debug, Error)]
pub enum NodeError {
    /// A port is taken or not ours.
    #[error(
        "cannot listen on {address} for Redis clients: {source}; stop what holds the port, or choose another with --port-offset 10 or the setting `redis.port`"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The engine cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine's data is damaged.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The data is damaged.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// A replica's data is damaged.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// It is no member of a cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A keyspace has another number of partitions than its data.
    #[error(transparent)]
    Division(#[from] DivisionError),
    /// The event loop.
    #[error(transparent)]
    Reactor(#[from] ReactorError),
    /// A file of the data directory.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// A running node.
pub struct Node {
    remotes: Vec<Remote>,
    workers: Vec<JoinHandle<Result<(), ReactorError>>>,
    log: Arc<Log>,
    engine: Arc<Engine>,
    /// What its disk work measures.
    pub meters: Arc<StorageMeters>,
    /// Asks for a checkpoint of everything.
    pub checkpoint: Arc<Asked>,
    /// Where Redis clients connect.
    pub redis: SocketAddr,
    /// What it is asked of its cluster, if it is in one.
    pub desk: Option<Arc<Desk>>,
    /// Whose data it has.
    pub origin: Origin,
}

impl Node {
    /// Recovers the data and starts serving.
    ///
    /// # Errors
    /// [`NodeError`]; nothing is left running.
    pub fn start(options: NodeOptions) -> Result<Node, NodeError> {
        let listen = |source| NodeError::Listen { address: options.redis, source };
        let socket = TcpListener::bind(options.redis).map_err(listen)?;
        let redis = socket.local_addr().map_err(listen)?;
        let dir = options.data_dir.clone();
        let seed = identity(&dir)?;
        let engine = Arc::new(Engine::open(&made(options.data_dir.join("engine"))?, options.engine.clone())?);
        let relay = Arc::new(SyncRelay::new());
        let marks = engine.groups()?;
        // A member serves what its cluster says.
        let options = match marks.iter().any(|(group, _)| *group == CONTROL) {
            true => options,
            false => options.with_those_of(&recorded(&dir)?, &marks),
        };
        let member = cluster::start::begin(&options, seed, &engine)?;
        let started = match member {
            Some(member) => member::start(&options, member, seed, engine, &relay, socket)?,
            None => start_alone(&options, seed, engine, &relay, socket)?,
        };
        let Started { threads, log, engine, meters, asked, desk } = started;
        let (remotes, workers): (Vec<Remote>, Vec<_>) = threads.into_iter().unzip();
        if remotes.len() > 1 {
            for remote in &remotes {
                remote.send(Control::Peers(remotes.clone()));
            }
        }
        let told = remotes.clone();
        relay.attach(Box::new(move |event| {
            for remote in &told {
                match event {
                    SyncEvent::Synced(lsn) => remote.synced(lsn),
                    SyncEvent::Failed => {
                        // A loop that has ended waits for nothing.
                        let _ = remote.send(Control::LogFailed);
                    }
                }
            }
        }));
        let origin = origin(desk.as_deref(), seed);
        Ok(Node { remotes, workers, log, engine, meters, checkpoint: asked, redis, desk, origin })
    }

    /// Its engine, for who reads it as long as it is there.
    #[must_use]
    pub fn engine(&self) -> Weak<Engine> {
        Arc::downgrade(&self.engine)
    }

    /// Its log, likewise.
    #[must_use]
    pub fn log(&self) -> Weak<Log> {
        Arc::downgrade(&self.log)
    }

    /// The other threads' ends of its workers.
    #[must_use]
    pub fn remotes(&self) -> Vec<Remote> {
        self.remotes.clone()
    }

    /// Stops taking clients, answers what is pending, checkpoints, syncs the log.
    ///
    /// # Errors
    /// The log could not be synced.
    pub fn stop(self) -> Result<(), NodeError> {
        if self.desk.is_some() {
            self.resign();
        }
        for remote in &self.remotes {
            remote.send(Control::Stop);
        }
        let ended: Vec<_> = self.workers.into_iter().map(JoinHandle::join).collect();
        for worker in ended {
            worker.expect("a worker does not panic: a broken invariant aborts")?;
        }
        if let Some(engine) = Arc::into_inner(self.engine) {
            engine.close()?;
        }
        if let Some(log) = Arc::into_inner(self.log) {
            log.close()?;
        }
        Ok(())
    }
}

impl Node {
    /// Has other members lead what this one leads, so that their clients need not wait until it is missed.
    fn resign(&self) {
        let end = Instant::now() + Duration::from_millis(RESIGN_MILLIS_MAX);
        let mut clock = Clock::new();
        while let Some(remote) = self.remotes.first().filter(|_| Instant::now() < end) {
            let (now, (tell, told)) = (clock.now(), channel());
            remote.send(Control::Call(Box::new(move |worker| {
                worker.resign(now);
                // The stopping thread waits for it, or not any more.
                let _ = tell.send(worker.leads_any());
            })));
            match told.recv_timeout(Duration::from_millis(RESIGN_MILLIS_MAX)) {
                Ok(true) => std::thread::sleep(Duration::from_millis(RESIGN_LOOK_MILLIS)),
                Ok(false) | Err(_) => return,
            }
        }
    }
}

/// The cluster, or the seed of a node that is in none.
fn origin(desk: Option<&Desk>, seed: u64) -> Origin {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&seed.to_le_bytes());
    desk.map_or(Origin { id, is_cluster: false }, |desk| Origin { id: desk.cluster.0, is_cluster: true })
}

/// What runs, and what it has in common.
pub(crate) struct Started {
    pub threads: Vec<Running>,
    pub log: Arc<Log>,
    pub engine: Arc<Engine>,
    pub meters: Arc<StorageMeters>,
    pub asked: Arc<Asked>,
    pub desk: Option<Arc<Desk>>,
}

/// Recovers and starts a node that is in no cluster.
fn start_alone(
    options: &NodeOptions,
    seed: u64,
    engine: Arc<Engine>,
    relay: &Arc<SyncRelay>,
    socket: TcpListener,
) -> Result<Started, NodeError> {
    let known = recorded(&options.data_dir)?;
    let (log, mut stores) = recover(options, seed, &engine, &known, Arc::clone(relay))?;
    let (marks, naming) = (engine.groups()?, node::recover::naming(&stores));
    let durable = marks.iter().map(|(group, mark)| (*group, mark.index)).collect();
    let divisions = division::divide(&known, &options.divisions(), &naming, &stores, &durable)?;
    if divisions != known {
        record(&options.data_dir, &divisions)?;
    }
    let mut shared = Shared {
        options,
        seed,
        log: Arc::clone(&log),
        engine: Arc::clone(&engine),
        meters: Arc::default(),
        asked: Arc::default(),
        crowd: Arc::new(Crowd::new(options.clients_max)),
        marks,
        naming,
        divisions,
    };
    let mut socket = Some(socket);
    let mut threads = Vec::new();
    for number in 0..options.workers {
        // The first worker accepts for all.
        let tls = options.redis_tls.clone();
        let listeners = socket
            .take()
            .map(|socket| Listener { socket, tls, clients: Clients::Plain })
            .into_iter()
            .collect();
        match shared.start(WorkerId(number), &mut stores, listeners) {
            Ok(running) => threads.push(running),
            Err(error) => {
                end(threads);
                return Err(error);
            }
        }
    }
    let Shared { meters, asked, .. } = shared;
    Ok(Started { threads, log, engine, meters, asked, desk: None })
}

/// Ends workers of a node that does not start after all.
fn end(threads: Vec<Running>) {
    for (remote, thread) in threads {
        remote.send(Control::Stop);
        // Why the node does not start is told already.
        let _ = thread.join();
    }
}

/// What the workers of a node have in common while they are started.
struct Shared<'a> {
    options: &'a NodeOptions,
    seed: u64,
    log: Arc<Log>,
    engine: Arc<Engine>,
    meters: Arc<StorageMeters>,
    asked: Arc<Asked>,
    crowd: Arc<Crowd>,
    marks: Vec<(GroupId, Mark)>,
    naming: Naming,
    divisions: Divisions,
}

/// A worker's loop and its thread.
pub(crate) type Running = (Remote, JoinHandle<Result<(), ReactorError>>);

impl Shared<'_> {
    /// Starts a worker with the partitions that are its own.
    fn start(
        &mut self,
        number: WorkerId,
        stores: &mut Stores,
        listeners: Vec<Listener>,
    ) -> Result<Running, NodeError> {
        let options = self.options;
        let (mut durable, mut partitions, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new());
        for keyspace in &options.keyspaces {
            for partition in 0..keyspace.partitions.count() {
                let worker = owner(keyspace.id, partition, options.workers);
                if worker == number {
                    let (mark, partition) = self.partition(keyspace, partition, stores);
                    durable.push((partition.group_id(), mark));
                    partitions.push(partition);
                } else {
                    elsewhere.push(Elsewhere { keyspace: keyspace.id, partition, worker });
                }
            }
        }
        let spawn = |source| NodeError::File { path: options.data_dir.clone(), source };
        let (fetchers, to_fetchers) = Fetchers::start(&self.engine, &self.meters).map_err(spawn)?;
        let (checkpointer, to_checkpointer) = Checkpointer::start(
            options.checkpoint,
            Arc::clone(&self.log),
            Arc::clone(&self.engine),
            durable,
            Arc::clone(&self.meters),
            Arc::clone(&self.asked),
            fetchers,
        )
        .map_err(spawn)?;
        let workers = options.workers;
        let start = WorkerStart {
            settings: Settings { worker: number, workers, elsewhere, ..options.settings.clone() },
            partitions,
            seed: self.seed ^ u64::from(number.0),
            log: SharedLog::new(Arc::clone(&self.log), Arc::clone(&self.meters)),
            checkpointer,
            listeners,
            crowd: Arc::clone(&self.crowd),
            pin: options.pin_workers,
            member: None,
        };
        let (remote, thread) = start.spawn(&options.data_dir)?;
        to_fetchers.answer_to(remote.clone());
        // The thread waits for jobs, so it is there to take it.
        let _ = to_checkpointer.send(remote.clone());
        Ok((remote, thread))
    }

    /// A keyspace's partition, which is that of the group that has its data since the last `SWAPDB`, and the
    /// index of its last checkpoint.
    fn partition(&self, keyspace: &Keyspace, number: u16, stores: &mut Stores) -> (Index, Partition) {
        let group = GroupId::new(self.naming.home(keyspace.id), number);
        let fresh = || (Store::new(self.seed), kernel::Term(1));
        let (mut store, term) = stores.remove(&group).unwrap_or_else(fresh);
        store = store.within(self.divisions.scope(group));
        store.set_policy(keyspace.eviction);
        store.set_fetch(Box::new(EngineFetch {
            engine: Arc::clone(&self.engine),
            group,
            meters: Some(Arc::clone(&self.meters)),
        }));
        let mark = self.marks.iter().find(|(other, _)| *other == group).map(|(_, mark)| mark.index);
        let solo = Solo::new(term, store.applied(), keyspace.durability);
        let partition = Partition::new(group, store, solo);
        (mark.unwrap_or_default(), partition.serving(keyspace.id).with_memory(keyspace.share()))
    }
}

/// What a worker's thread begins with. The worker itself is made in its thread: a script engine stays
/// where it was made.
pub(crate) struct WorkerStart {
    pub settings: Settings,
    pub partitions: Vec<Partition>,
    pub seed: u64,
    pub log: SharedLog,
    pub checkpointer: Checkpointer,
    pub listeners: Vec<Listener>,
    pub crowd: Arc<Crowd>,
    pub pin: bool,
    /// What makes it that of a cluster's member.
    pub member: Option<Box<MemberStart>>,
}

impl WorkerStart {
    /// Starts the thread; it serves when this returns.
    pub fn spawn(self, dir: &Path) -> Result<Running, NodeError> {
        let spawn = |source| NodeError::File { path: dir.to_path_buf(), source };
        let (ready, started) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{}", self.settings.worker))
            .spawn(move || self.run(&ready))
            .map_err(spawn)?;
        match started.recv() {
            Ok(remote) => Ok((remote, thread)),
            Err(_) => {
                let ended = thread.join().expect("the worker does not panic: a broken invariant aborts");
                let nothing = || spawn(io::Error::other("the worker ended"));
                Err(ended.err().map_or_else(nothing, NodeError::from))
            }
        }
    }

    /// Serves until it is stopped, then checkpoints everything.
    fn run(self, ready: &Sender<Remote>) -> Result<(), ReactorError> {
        let core = if self.pin { Core::claim() } else { None };
        tracing::debug!(core = core.as_ref().map(|core| core.number), "worker");
        let worker = Worker::new(self.settings, self.partitions, Box::new(LuaEngine::new()), self.seed)
            .observed_by(Box::new(Stopwatch::default()));
        let (worker, mut links) = match self.member {
            None => (worker, None),
            Some(member) => {
                let MemberStart { start, mind, links, clients, link_port } = *member;
                (
                    worker
                        .with_cluster(start)
                        .with_transfers(transfer::Options::default())
                        .with_mind(mind)
                        .reached_at(clients, link_port),
                    Some(links),
                )
            }
        };
        let (mut reactor, remote) =
            Reactor::new(worker, self.log, self.checkpointer, self.listeners, self.crowd)?;
        if links.is_some() {
            reactor = reactor.linked(&mut |registry, first| {
                let start = links.take().expect("links are made once");
                Ok(Box::new(MemberLinks::new(start, registry, first)?))
            })?;
        }
        // The starting thread waits for it.
        let _ = ready.send(remote);
        let (mut worker, checkpointer) = reactor.run()?;
        checkpointer.finish(&mut worker);
        Ok(())
    }
}

/// Opens the log and replays what is behind the engine's checkpoints.
fn recover(
    options: &NodeOptions,
    seed: u64,
    engine: &Arc<Engine>,
    divisions: &Divisions,
    relay: Arc<SyncRelay>,
) -> Result<(Arc<Log>, Stores), NodeError> {
    let on_synced = move |event| relay.tell(event);
    let mut scripting = LuaEngine::new();
    let started = std::time::Instant::now();
    let budget = |group: GroupId| options.share_of(group);
    let mut recovery = Recovery::new(seed, &mut scripting, load(engine, seed, &budget)?, divisions);
    let loaded = started.elapsed();
    let directory = made(options.data_dir.join("log"))?;
    let visit = &mut |_, record: disk::log::Record<'_>| recovery.record(record);
    let (log, recovered) = Log::open(&directory, options.log, visit, Box::new(on_synced))?;
    keeping::resume(&options.data_dir, Millis(unix_millis()), &log);
    let (stores, replayed) = recovery.finish(&recovered.floors)?;
    let millis = started.elapsed().as_millis() as u64;
    let load_millis = loaded.as_millis() as u64;
    tracing::info!(replayed, load_millis, millis, end = recovered.end.0, torn = ?recovered.torn, "recovered");
    Ok((Arc::new(log), stores))
}

pub(crate) fn made(path: PathBuf) -> Result<PathBuf, NodeError> {
    match std::fs::create_dir_all(&path) {
        Ok(()) => Ok(path),
        Err(source) => Err(NodeError::File { path, source }),
    }
}
