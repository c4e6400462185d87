//! A service of this program, from its start to its end: it serves, is registered, says how it is, and is taken back.
//!
//! What is registered counts as critical until the service has said otherwise, and again when it has said nothing for three
//! times the interval: a service whose check hangs gets nobody any more.

mod balancer;

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use mesh::health::CheckError;
use mesh::registry::{Health, Instance, ServiceRegistry};
use server::services::Handle;
use thiserror::Error;

pub use self::balancer::{LoadBalancer, Picked};

/// After so many intervals without a word a service is critical.
const INTERVALS_MAX: u32 = 3;

/// What a program does so that others find it.
pub trait Microservice: Send {
    /// What it is found by.
    fn service_name(&self) -> &str;

    /// Begins to serve, and says where. With an unspecified address it is where its node is.
    ///
    /// # Errors
    /// It cannot serve, and is not registered.
    fn start(&mut self) -> io::Result<SocketAddr>;

    /// How it is. Called again and again, in a thread of its own.
    fn health_check(&mut self) -> Health;

    /// Serves no more. Called once, when nobody finds it any more at this node.
    fn stop(&mut self);
}

/// Why a service does not serve.
#[derive(Debug, Error)]
pub enum HostError {
    /// Its own start.
    #[error("the service {service} does not start: {source}")]
    Start {
        /// Which.
        service: String,
        /// The reason.
        source: io::Error,
    },
    /// It cannot be registered; it was stopped again.
    #[error("the service {service} cannot be registered: {source}")]
    Register {
        /// Which.
        service: String,
        /// The reason.
        source: CheckError,
    },
    /// There is no thread for its checks; it was stopped again.
    #[error("the service {service} cannot be watched over: {source}")]
    Thread {
        /// Which.
        service: String,
        /// The reason.
        source: io::Error,
    },
}

/// A service that serves and is registered. Dropped, it is taken back and stopped some time later.
pub struct Hosted {
    /// Where it serves.
    pub place: SocketAddr,
    /// Closed, the thread ends.
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Hosted {
    /// Starts `service` and registers it as the instance `id`. Its health is asked for now and then each `interval`, of at least a
    /// millisecond. It is found when this returns, if it is well.
    ///
    /// # Errors
    /// [`HostError`]; it serves no more then.
    pub fn start(
        registry: &Handle,
        id: &str,
        mut service: impl Microservice + 'static,
        interval: Duration,
    ) -> Result<Hosted, HostError> {
        let name = service.service_name().to_owned();
        let failed = |source| HostError::Start { service: name.clone(), source };
        let place = service.start().map_err(failed)?;
        let (ip, port) = (place.ip(), place.port());
        let address = if ip.is_unspecified() { String::new() } else { ip.to_string() };
        let (id, instance_id) = (id.to_owned(), id.to_owned());
        let instance =
            Instance { id: instance_id, service: name.clone(), address, port, ..Instance::default() };
        let health = service.health_check();
        if let Err(source) = registry.register_with_ttl(instance, interval.saturating_mul(INTERVALS_MAX)) {
            service.stop();
            return Err(HostError::Register { service: name, source });
        }
        let mut watched = Watched { registry: registry.clone(), id, service };
        // Dropped, it is taken back and stopped.
        if let Err(source) = registry.renew(&watched.id, health, "") {
            return Err(HostError::Register { service: name, source });
        }
        let (end, ended) = channel();
        let thread = std::thread::Builder::new().name("service".into()).spawn(move || {
            while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                watched.look();
            }
        });
        // A thread that is not there has dropped what it was given.
        let thread = thread.map_err(|source| HostError::Thread { service: name, source })?;
        Ok(Hosted { place, end, thread })
    }

    /// Takes it back, and waits until it serves no more.
    pub fn stop(self) {
        drop(self.end);
        if self.thread.join().is_err() {
            tracing::error!("a service ended badly");
        }
    }
}

/// A service that is watched over. However it ends, it is taken back first and stopped then.
struct Watched<S: Microservice> {
    registry: Handle,
    id: String,
    service: S,
}

impl<S: Microservice> Watched<S> {
    fn look(&mut self) {
        let health = self.service.health_check();
        if let Err(error) = self.registry.renew(&self.id, health, "") {
            tracing::warn!(id = self.id, %error, "a service could not say how it is");
        }
    }
}

impl<S: Microservice> Drop for Watched<S> {
    fn drop(&mut self) {
        // Somebody else may have taken it back.
        if let Err(error) = self.registry.deregister(&self.id) {
            tracing::debug!(id = self.id, %error, "a service was not registered any more");
        }
        self.service.stop();
    }
}
