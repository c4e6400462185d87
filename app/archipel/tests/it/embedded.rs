//! A node in a program of its own, and services of that program.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use archipel::service::{HostError, Hosted, LoadBalancer, Microservice};
use archipel::{Beginning, Handle, Health, Loaded, Policy, Server, ServiceRegistry, Sources};

const INTERVAL: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(60);

fn node(dir: &Path) -> Server {
    let free = ["redis.port", "admin.port", "consul.port", "dns.port"].map(|key| (key, "0"));
    let folder = dir.to_string_lossy();
    let more = [("services.enabled", "true"), ("data_dir", &folder), ("storage.segment_bytes", "256KiB")];
    let flags = free.into_iter().chain(more);
    let flags = flags.map(|(key, value)| ("test".into(), key.into(), value.into())).collect();
    let loaded = Loaded::load(&Sources { flags, ..Sources::default() }).unwrap();
    Server::start(&loaded, Beginning::Usual, || ()).unwrap()
}

/// What a test says to its service, and hears of it.
#[derive(Clone)]
struct Strings {
    registry: Handle,
    health: Arc<Mutex<Health>>,
    /// Its check does not return as long as this is so.
    hangs: Arc<(Mutex<bool>, Condvar)>,
    /// It was stopped, and whether somebody found it then.
    stopped: Arc<Mutex<Option<bool>>>,
    starts: Arc<AtomicBool>,
}

impl Strings {
    fn of(registry: &Handle) -> Strings {
        Strings {
            registry: registry.clone(),
            health: Arc::new(Mutex::new(Health::Passing)),
            hangs: Arc::default(),
            stopped: Arc::default(),
            starts: Arc::new(AtomicBool::new(true)),
        }
    }

    fn hang(&self, hangs: bool) {
        *self.hangs.0.lock().unwrap() = hangs;
        self.hangs.1.notify_all();
    }
}

struct Puppet(Strings);

impl Microservice for Puppet {
    fn service_name(&self) -> &str {
        "puppet"
    }

    fn start(&mut self) -> io::Result<SocketAddr> {
        let refused = || io::Error::other("not today");
        self.0.starts.load(Ordering::SeqCst).then_some(([0, 0, 0, 0], 7).into()).ok_or_else(refused)
    }

    fn health_check(&mut self) -> Health {
        let (lock, changed) = &*self.0.hangs;
        let hangs = changed.wait_while(lock.lock().unwrap(), |hangs| *hangs).unwrap();
        drop(hangs);
        *self.0.health.lock().unwrap()
    }

    fn stop(&mut self) {
        let found = !self.0.registry.discover("puppet").is_empty();
        *self.0.stopped.lock().unwrap() = Some(found);
    }
}

/// Waits until so many instances may get requests.
fn until(registry: &Handle, count: usize) {
    let (end, mut index) = (Instant::now() + PATIENCE, 0);
    while registry.discover("puppet").len() != count {
        assert!(Instant::now() < end, "there are never {count}");
        (index, _) = registry.watch("puppet", index, PATIENCE);
    }
}

#[test]
fn a_service_is_found_while_it_is_well_and_stopped_when_nobody_finds_it_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let server = node(dir.path());
    let registry = server.services.as_ref().unwrap().handle.clone();
    let strings = Strings::of(&registry);
    let balancer = LoadBalancer::new(registry.clone(), "puppet", Policy::RoundRobin);
    assert!(balancer.next().is_none());
    let hosted = Hosted::start(&registry, "p1", Puppet(strings.clone()), INTERVAL).unwrap();
    // Where it serves everywhere, it is found where its node is.
    // On a busy machine it may be late with its next word, and be missed for a moment.
    let end = Instant::now() + PATIENCE;
    let place = loop {
        assert!(Instant::now() < end, "nobody is found");
        if let Some(picked) = balancer.next() {
            break picked.place();
        }
    };
    assert_eq!(place, "127.0.0.1:7");
    *strings.health.lock().unwrap() = Health::Critical;
    until(&registry, 0);
    assert!(balancer.next().is_none());
    *strings.health.lock().unwrap() = Health::Passing;
    until(&registry, 1);
    // A check that says nothing is as bad as one that says so.
    strings.hang(true);
    until(&registry, 0);
    strings.hang(false);
    until(&registry, 1);
    assert_eq!(*strings.stopped.lock().unwrap(), None);
    hosted.stop();
    assert_eq!(*strings.stopped.lock().unwrap(), Some(false), "it was taken back before it was stopped");
    assert!(registry.discover("puppet").is_empty());
    server.stop().unwrap();
}

#[test]
fn a_service_that_cannot_start_or_be_registered_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let server = node(dir.path());
    let registry = server.services.as_ref().unwrap().handle.clone();
    let strings = Strings::of(&registry);
    strings.starts.store(false, Ordering::SeqCst);
    let refused = Hosted::start(&registry, "p1", Puppet(strings.clone()), INTERVAL);
    assert!(matches!(refused, Err(HostError::Start { .. })));
    assert_eq!(*strings.stopped.lock().unwrap(), None, "what was not started is not stopped");
    strings.starts.store(true, Ordering::SeqCst);
    let refused = Hosted::start(&registry, "", Puppet(strings.clone()), INTERVAL);
    assert!(matches!(refused, Err(HostError::Register { .. })));
    assert_eq!(*strings.stopped.lock().unwrap(), Some(false));
    server.stop().unwrap();
}
