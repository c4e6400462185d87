//! A service from its start to its end, within the program that asks it: `cargo run -p archipel --example service`.
//!
//! A node is started in this process, two instances of a service that says hello are registered at it and asked in turn. One
//! falls ill and gets nobody any more, which Consul's clients and DNS of the node tell, too; then all of it is stopped.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use archipel::service::{Hosted, LoadBalancer, Microservice};
use archipel::{Beginning, Handle, Health, Loaded, Outcome, Policy, Server, ServiceRegistry, Sources};

/// How often an instance is asked how it is.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long anything may take before the example gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Says its name to whoever connects.
struct Hello {
    name: &'static str,
    is_ill: Arc<AtomicBool>,
    serving: Option<(SocketAddr, Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Microservice for Hello {
    fn service_name(&self) -> &str {
        "hello"
    }

    fn start(&mut self) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let (address, name) = (listener.local_addr()?, self.name);
        let ending = Arc::<AtomicBool>::default();
        let is_ending = Arc::clone(&ending);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_ending.load(Ordering::SeqCst) {
                    return;
                }
                // A client that is gone needs no answer.
                let _ =
                    stream.and_then(|mut stream| stream.write_all(format!("hello from {name}").as_bytes()));
            }
        });
        self.serving = Some((address, ending, thread));
        Ok(address)
    }

    fn health_check(&mut self) -> Health {
        if self.is_ill.load(Ordering::SeqCst) { Health::Critical } else { Health::Passing }
    }

    fn stop(&mut self) {
        let Some((address, ending, thread)) = self.serving.take() else { return };
        ending.store(true, Ordering::SeqCst);
        // It waits for a connection.
        let _ = TcpStream::connect(address);
        let _ = thread.join();
    }
}

/// A node with a registry, on free ports, in this folder.
fn node(folder: &str) -> Result<Server, Box<dyn Error>> {
    let free = ["redis", "admin", "consul", "dns"].map(|port| (format!("{port}.port"), "0"));
    let more = [("services.enabled".to_owned(), "true"), ("data_dir".to_owned(), folder)];
    let flags = free.into_iter().chain(more);
    let flags = flags.map(|(key, value)| ("example".to_owned(), key, value.to_owned())).collect();
    let loaded = Loaded::load(&Sources { flags, ..Sources::default() })?;
    Ok(Server::start(&loaded, Beginning::Usual, || ())?)
}

/// Asks the service so often; how often each instance answered.
fn ask(balancer: &LoadBalancer<Handle>, times: usize) -> io::Result<BTreeMap<String, usize>> {
    let mut answers = BTreeMap::new();
    for _ in 0..times {
        let picked = balancer.next().ok_or_else(|| io::Error::other("no instance may get requests"))?;
        let mut answer = String::new();
        let asked = TcpStream::connect(picked.place()).and_then(|mut it| it.read_to_string(&mut answer));
        picked.report(if asked.is_ok() { Outcome::Success } else { Outcome::Failure });
        asked?;
        *answers.entry(answer).or_default() += 1;
    }
    Ok(answers)
}

/// Waits until so many instances may get requests.
fn until(registry: &Handle, count: usize) -> io::Result<()> {
    let end = std::time::Instant::now() + PATIENCE;
    let mut index = 0;
    while registry.discover("hello").len() != count {
        if std::time::Instant::now() > end {
            return Err(io::Error::other(format!("there are never {count} instances")));
        }
        (index, _) = registry.watch("hello", index, PATIENCE);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let server = node(&folder.path().to_string_lossy())?;
    let services = server.services.as_ref().expect("they are enabled");
    let registry = services.handle.clone();
    println!("a node serves in this process; ask it, too:");
    println!("  curl http://{}/v1/health/service/hello", services.consul);
    println!("  dig @{} -p {} hello.service.consul SRV", services.dns.ip(), services.dns.port());

    let ill = Arc::<AtomicBool>::default();
    let one = |name, is_ill| Hello { name, is_ill, serving: None };
    let first = Hosted::start(&registry, "hello-1", one("the first", Arc::clone(&ill)), INTERVAL)?;
    let second = Hosted::start(&registry, "hello-2", one("the second", Arc::default()), INTERVAL)?;

    let balancer = LoadBalancer::new(registry.clone(), "hello", Policy::RoundRobin);
    println!("both are well:     {:?}", ask(&balancer, 6)?);

    ill.store(true, Ordering::SeqCst);
    until(&registry, 1)?;
    println!("the first is ill:  {:?}", ask(&balancer, 6)?);

    ill.store(false, Ordering::SeqCst);
    until(&registry, 2)?;
    println!("both are well:     {:?}", ask(&balancer, 6)?);

    if io::stdin().is_terminal() {
        println!("press Enter to stop both");
        io::stdin().read_line(&mut String::new())?;
    }
    first.stop();
    second.stop();
    until(&registry, 0)?;
    println!(
        "both were stopped: {}",
        if balancer.next().is_none() { "nobody is found" } else { "somebody is" }
    );
    server.stop()?;
    Ok(())
}
