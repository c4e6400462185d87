//! The admin port: health, metrics, status and a checkpoint on demand, over HTTP/1.1.
//!
//! It has a thread of its own, so that it answers while the workers are busy; it asks them between turns.
//! Requests are small and few: what exceeds the limits below is refused.

mod answer;
mod backup;
mod cluster;
mod desired;
mod mesh;
mod metrics;
mod p2p;
mod proxied;
mod snapshot;

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use disk::backup::Origin;
use disk::engine::Engine;
use disk::log::Log;
use fabric::overlay::{Dht, P2pNode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use node::Divisions;
use runtime::Remote;
use telemetry::{Distribution, Exposition, Histogram, StorageMeters, WorkerMeters};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use self::answer::Answerer;
use crate::checkpoint::Asked;
use crate::cluster::desk::Desk;
use crate::keeping::Keeping;
use crate::otlp::OtlpMeters;
use crate::proxy::Proxied;
use crate::proxy::follow::Steering;
use crate::services::Handle;

/// Clients of the admin port at once; others wait.
const CLIENTS_MAX: usize = 64;
/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a client may take to send the head of its request.
const HEAD_SECONDS_MAX: u64 = 10;
/// How long a connection may live.
const CONNECTION_SECONDS_MAX: u64 = 300;
/// What a refused client may still send, in bytes, while it is given the time to read why.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long it has for that.
const LINGER_SECONDS_MAX: u64 = 10;

/// Who asks the cluster over this port if nobody says so, for those who look later.
pub const OPERATOR: &str = "admin";

/// Why there is no admin port.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The port is taken or not ours.
    #[error(
        "cannot listen on {address} for the admin port: {source}; stop what holds the port, or choose another with --port-offset 10 or the setting `admin.port`"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// Its thread cannot be started.
    #[error("the admin port's thread cannot be started: {source}")]
    Thread {
        /// The reason.
        source: io::Error,
    },
}

/// The node that is told of.
pub struct Subject {
    /// Its workers.
    pub remotes: Vec<Remote>,
    /// What its disk work measures.
    pub meters: Arc<StorageMeters>,
    /// Asks for a checkpoint of everything.
    pub checkpoint: Arc<Asked>,
    /// What its keyspaces are called, in their order.
    pub labels: Vec<String>,
    /// The overlay that it takes part in, if it does.
    pub overlay: Option<(P2pNode, Dht)>,
    /// What it is asked of its cluster, if it is in one.
    pub desk: Option<Arc<Desk>>,
    /// What its proxy counts, once it has one.
    pub proxy: Arc<proxy::Meters>,
    /// The proxy itself, once there is one.
    pub proxied: Proxied,
    /// What the proxy follows.
    pub steering: Steering,
    /// The registry of services, if the node takes part in it.
    pub services: Option<Handle>,
    /// Where backups are read from; gone when the node has stopped.
    pub engine: Weak<Engine>,
    /// Its log; gone likewise.
    pub log: Weak<Log>,
    /// Whose data that is.
    pub origin: Origin,
    /// What is kept of the log for backups.
    pub(crate) keeping: Arc<Keeping>,
    /// What is counted of what is sent to a collector, if anything is.
    pub(crate) otlp: Option<Arc<OtlpMeters>>,
    /// How the data of keyspaces is divided, if the node is in no cluster.
    pub divisions: Divisions,
}

impl Subject {
    /// What the keyspace is called here; by its number if the configuration does not know it.
    fn label(&self, id: u16) -> Cow<'_, str> {
        let known = self.labels.get(usize::from(id));
        known.map_or_else(|| Cow::Owned(format!("db{id}")), |label| Cow::Borrowed(label.as_str()))
    }

    /// A figure of all workers together.
    fn sum(&self, figure: fn(&WorkerMeters) -> u64) -> u64 {
        self.remotes.iter().map(|remote| figure(remote.meters())).sum()
    }

    /// What all workers measured of one thing.
    fn merged(&self, histogram: fn(&WorkerMeters) -> &Histogram) -> Distribution {
        let mut merged = Distribution::default();
        self.remotes.iter().for_each(|remote| histogram(remote.meters()).read(&mut merged));
        merged
    }
}

/// A bound admin port that does not answer yet.
pub struct Bound {
    socket: std::net::TcpListener,
    address: SocketAddr,
}

/// A served admin port.
pub struct Admin {
    /// Where it is.
    pub address: SocketAddr,
    stopping: Arc<AtomicBool>,
    answerer: Arc<Answerer>,
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Takes the port.
    ///
    /// # Errors
    /// [`AdminError::Listen`]
    pub fn bind(address: SocketAddr) -> Result<Bound, AdminError> {
        let failed = |source| AdminError::Listen { address, source };
        let socket = std::net::TcpListener::bind(address).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Bound { socket, address })
    }

    /// What `/metrics` says, for who sends it elsewhere; also when the port is closed.
    pub(crate) fn figures(&self) -> impl AsyncFn() -> Exposition + Send + use<> {
        let answerer = Arc::clone(&self.answerer);
        async move || answerer.figures().await
    }

    /// From now on the node is not healthy: balancers should send nobody here.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Ends the thread and closes the port.
    pub fn stop(self) {
        // A thread that has ended does not listen.
        let _ = self.end.send(());
        if self.thread.join().is_err() {
            tracing::error!("the admin port's thread ended badly");
        }
    }
}

impl Bound {
    /// Answers for `subject`.
    ///
    /// # Errors
    /// [`AdminError::Thread`]
    pub fn serve(self, subject: Subject) -> Result<Admin, AdminError> {
        let failed = |source| AdminError::Thread { source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let answerer = Arc::new(Answerer::new(subject, Arc::clone(&stopping)));
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(self.socket).map_err(failed)?
        };
        let (end, ended) = oneshot::channel();
        let answers = Arc::clone(&answerer);
        let thread = std::thread::Builder::new()
            .name("admin".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, answers) => {}
                        _ = ended => {}
                    }
                });
            })
            .map_err(failed)?;
        Ok(Admin { address: self.address, stopping, answerer, end, thread })
    }
}

async fn accept(listener: TcpListener, answerer: Arc<Answerer>) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answerer = Arc::clone(&answerer);
                tokio::spawn(async move {
                    serve(stream, answerer).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a client of the admin port could not be accepted");
                // Out of descriptors: others must go first.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(mut stream: TcpStream, answerer: Arc<Answerer>) {
    let lasting = Arc::new(AtomicBool::new(false));
    let lasts = Arc::clone(&lasting);
    let service = service_fn(move |request| {
        let (answerer, lasts) = (Arc::clone(&answerer), Arc::clone(&lasts));
        async move { Ok::<_, std::convert::Infallible>(p2p::answer(&answerer, request, &lasts).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEAD_SECONDS_MAX))
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(&mut stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = loop {
        let limit = Duration::from_secs(CONNECTION_SECONDS_MAX);
        match tokio::time::timeout(limit, connection.as_mut()).await {
            // Listeners stay until they leave; the overlay has few places for them.
            Err(_) if lasting.load(Ordering::Relaxed) => {}
            ended => break ended,
        }
    };
    // What a client does wrong is its own affair, and it was answered where that is possible.
    if matches!(ended, Ok(Err(error)) if error.is_parse()) {
        let _ = tokio::time::timeout(Duration::from_secs(LINGER_SECONDS_MAX), linger(&mut stream)).await;
    }
}

/// Says that nothing more is sent and takes what still comes: a socket that is closed with unread bytes is
/// reset, and the client might lose the answer that says why it was refused.
async fn linger(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut scratch = [0; 4096];
    let mut left = LINGER_BYTES_MAX;
    while left > 0 {
        match stream.read(&mut scratch).await? {
            0 => break,
            taken => left = left.saturating_sub(taken),
        }
    }
    Ok(())
}
