//! One node: its threads from start to stop.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use consensus::{Durability, Solo};
use disk::log::{Log, LogError, LogOptions, SyncEvent};
use kernel::{GroupId, KeyspaceId, Micros, WorkerId};
use node::{Partition, Settings, Worker};
use runtime::{Control, Listener, Reactor, ReactorError, Remote, Tasks};
use storage::{Exec, Fault, Scripting, Store};
use thiserror::Error;

use crate::log::SharedLog;
use crate::recover::{RecoverError, Recovery};

/// One keyspace as configured.
#[derive(Clone, Debug)]
pub struct Keyspace {
    /// Its number, for `SELECT`.
    pub id: KeyspaceId,
    /// When a write is acknowledged.
    pub durability: Durability,
}

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Where its files are.
    pub data_dir: PathBuf,
    /// Where Redis clients connect.
    pub redis: SocketAddr,
    /// Its keyspaces.
    pub keyspaces: Vec<Keyspace>,
    /// Most clients at once.
    pub clients_max: usize,
}

/// Why a node did not start or stopped.
#[derive(Debug, Error)]
pub enum NodeError {
    /// A port is taken or not ours.
    #[error(
        "cannot listen on {address}: {source}. Stop what holds it, or choose another port with --port-offset or the setting `redis.port`"
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
    /// The data is damaged.
    #[error(transparent)]
    Recover(#[from] RecoverError),
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
    remote: Remote,
    worker: JoinHandle<Result<(), ReactorError>>,
    log: Arc<Log>,
    /// Where Redis clients connect.
    pub redis: SocketAddr,
}

struct NoTasks;

impl Tasks for NoTasks {
    fn run(&mut self, _: &mut Worker, _: Micros) -> bool {
        false
    }
}

struct NoScripting;

impl Scripting for NoScripting {
    fn eval(&mut self, _: &mut Exec<'_>, _: &[u8], _: &[&[u8]], _: &[&[u8]]) -> Result<(), Fault> {
        Err(Fault::Text("ERR scripting is not offered"))
    }
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
        let seed = 7;
        let target: Arc<Mutex<Option<Remote>>> = Arc::default();
        let told = Arc::clone(&target);
        let on_synced = move |event| {
            if let (SyncEvent::Synced(lsn), Ok(remote)) = (event, told.lock())
                && let Some(remote) = &*remote
            {
                remote.synced(lsn);
            }
        };
        let mut scripting = NoScripting;
        let mut recovery = Recovery::new(seed, &mut scripting, BTreeMap::new());
        let directory = options.data_dir.join("log");
        std::fs::create_dir_all(&directory)
            .map_err(|source| NodeError::File { path: directory.clone(), source })?;
        let (log, recovered) = Log::open(
            &directory,
            LogOptions::default(),
            &mut |_, record| recovery.record(record),
            Box::new(on_synced),
        )?;
        let (mut stores, replayed) = recovery.finish(&recovered.floors)?;
        tracing::info!(replayed, end = recovered.end.0, "recovered");
        let partitions = options
            .keyspaces
            .iter()
            .map(|keyspace| {
                let group = GroupId::new(keyspace.id, 0);
                let (store, term) =
                    stores.remove(&group).unwrap_or_else(|| (Store::new(seed), kernel::Term(1)));
                let solo = Solo::new(term, store.applied(), keyspace.durability);
                Partition::new(group, store, solo)
            })
            .collect();
        let log = Arc::new(log);
        let settings = Settings { worker: WorkerId(0), needs_password: false };
        let worker = Worker::new(settings, partitions, Box::new(NoScripting), seed);
        let listeners = vec![Listener { socket, tls: None }];
        let (reactor, remote) =
            Reactor::new(worker, SharedLog::new(Arc::clone(&log)), NoTasks, listeners, options.clients_max)?;
        if let Ok(mut target) = target.lock() {
            *target = Some(remote.clone());
        }
        let worker = std::thread::Builder::new()
            .name("worker-0".into())
            .spawn(move || reactor.run().map(|_| ()))
            .map_err(|source| NodeError::File { path: directory, source })?;
        Ok(Node { remote, worker, log, redis })
    }

    /// Stops taking clients, answers what is pending, syncs the log.
    ///
    /// # Errors
    /// The log could not be synced.
    pub fn stop(self) -> Result<(), NodeError> {
        self.remote.send(Control::Stop);
        self.worker.join().expect("the worker does not panic: a broken invariant aborts")?;
        if let Some(log) = Arc::into_inner(self.log) {
            log.close()?;
        }
        Ok(())
    }
}
