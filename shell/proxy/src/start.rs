//! A proxy as the rest of a process sees it: threads that follow a plan, until they are stopped.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Poll, Waker};
use rustix::net::sockopt::{set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
use thiserror::Error;

use crate::meters::Meters;
use crate::plan::{EndpointPlan, ListenerPlan, Plan};
use crate::tls::{ClientTls, Keys};
use crate::worker::{Control, Loop, WAKE};

/// Connections that the kernel keeps for a listener that is slow to take them.
const BACKLOG: i32 = 1024;
/// How often the files of certificates are looked at, in milliseconds.
const WATCH_MS: u64 = 1_000;

/// Why a proxy does not do what it is asked.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// A port is taken or not ours.
    #[error(
        "cannot listen on {address} for the proxy's listener `{name}`: {source}; stop what holds the port, or choose another"
    )]
    Listen {
        /// The listener.
        name: String,
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("a thread of the proxy cannot be started: {source}")]
    Thread {
        /// The reason.
        source: io::Error,
    },
}

struct Thread {
    control: Sender<Control>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// What it listens on, as planned and as it came to be.
struct Listening {
    plan: ListenerPlan,
    address: SocketAddr,
    /// Those of the threads once more, to be handed on.
    sockets: Vec<TcpListener>,
}

/// A socket that listens and goes from one process to the next.
#[derive(Debug)]
pub struct Passed {
    /// The name of its listener.
    pub name: String,
    /// The address that its listener was told; its port may be 0.
    pub address: SocketAddr,
    /// It itself.
    pub socket: TcpListener,
}

/// A running proxy.
pub struct Proxy {
    threads: Vec<Thread>,
    watch: Watch,
    listening: Vec<Listening>,
    /// Sockets of the process before, which no plan has asked for by now.
    inherited: Vec<Passed>,
    /// Clients without a request are told with their next answer to go.
    drains: bool,
    generation: u64,
    plan: Arc<Plan>,
    meters: Arc<Meters>,
}

impl Proxy {
    /// Starts `workers` threads that follow `plan` and count in `meters`. They serve when this returns.
    ///
    /// # Errors
    /// [`ProxyError`]; nothing is left running.
    pub fn start(plan: Plan, workers: usize, meters: Arc<Meters>) -> Result<Proxy, ProxyError> {
        let failed = |source| ProxyError::Thread { source };
        let watch = Watch::start(Arc::clone(&meters)).map_err(failed)?;
        let mut proxy = Proxy {
            threads: Vec::new(),
            watch,
            listening: Vec::new(),
            inherited: Vec::new(),
            drains: false,
            generation: 0,
            plan: Arc::default(),
            meters,
        };
        for number in 0..workers {
            let poll = Poll::new().map_err(failed)?;
            let waker = Waker::new(poll.registry(), WAKE).map_err(failed)?;
            let (control, told) = channel();
            let meters = Arc::clone(&proxy.meters);
            let thread = std::thread::Builder::new()
                .name(format!("proxy-{number}"))
                .spawn(move || Loop::new(poll, told, workers as u32, meters).run())
                .map_err(failed)?;
            proxy.threads.push(Thread { control, waker, thread: Some(thread) });
        }
        proxy.follow(plan)?;
        Ok(proxy)
    }

    /// Has all threads follow another plan. Ports that it shares with the one before stay open meanwhile.
    ///
    /// # Errors
    /// [`ProxyError::Listen`]; the plan before stays in force.
    pub fn follow(&mut self, mut plan: Plan) -> Result<(), ProxyError> {
        let known = self.plan.services.iter().filter(|service| service.discovered);
        let known: BTreeMap<&str, _> = known.map(|service| (&*service.name, &service.endpoints)).collect();
        for service in plan.services.iter_mut().filter(|service| service.discovered) {
            service.endpoints = known.get(&*service.name).copied().cloned().unwrap_or_default();
        }
        self.take(plan)
    }

    /// Tells the endpoints of all services whose endpoints are found elsewhere. Costs as much as another plan if any differ.
    ///
    /// # Errors
    /// [`ProxyError`]; the plan before stays in force.
    pub fn discover(&mut self, find: impl Fn(&str) -> Vec<EndpointPlan>) -> Result<(), ProxyError> {
        let mut found = Vec::new();
        for (at, service) in self.plan.services.iter().enumerate().filter(|(_, one)| one.discovered) {
            let mut endpoints = find(&service.name);
            if service.tls.as_ref().and_then(ClientTls::node).is_none() {
                // Whose they are matters to nobody.
                endpoints.iter_mut().for_each(|one| one.node = None);
            }
            if endpoints != service.endpoints {
                found.push((at, endpoints));
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        let mut plan = Plan::clone(&self.plan);
        for (at, endpoints) in found {
            plan.services[at].endpoints = endpoints;
        }
        self.take(plan)
    }

    fn take(&mut self, plan: Plan) -> Result<(), ProxyError> {
        let known = |one: &ListenerPlan| self.listening.iter().find(|other| other.plan.is_same_socket(one));
        let mut sockets: Vec<Vec<(ListenerPlan, TcpListener)>> =
            (0..self.threads.len()).map(|_| Vec::new()).collect();
        let mut listening = Vec::new();
        for one in &plan.listeners {
            let failed = |source| ProxyError::Listen { name: one.name.clone(), address: one.address, source };
            let inherited = || {
                self.inherited
                    .iter()
                    .filter(|passed| one.is_at(&passed.name, passed.address))
                    .map(|passed| &passed.socket)
            };
            listening.push(
                match known(one) {
                    Some(other) => other.again(one),
                    None if inherited().next().is_some() => {
                        dealt(one, &inherited().collect::<Vec<_>>(), &mut sockets)
                    }
                    None => bound(one, &mut sockets),
                }
                .map_err(failed)?,
            );
        }
        let plan = Arc::new(plan);
        self.generation += 1;
        for (thread, sockets) in self.threads.iter().zip(sockets) {
            // A thread that has ended listens to nobody.
            let _ = thread.control.send(Control::Plan(Arc::clone(&plan), self.generation, sockets));
            thread.waker.wake().map_err(|source| ProxyError::Thread { source })?;
        }
        self.watch.of(&plan);
        self.listening = listening;
        if !plan.listeners.is_empty() {
            // A plan without any only waits for one that has: until then the other process's sockets are kept.
            self.inherited.clear();
        }
        self.plan = plan;
        Ok(())
    }

    /// Where its listeners are, by name.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.listening.iter().map(|one| (one.plan.name.clone(), one.address)).collect()
    }

    /// Its sockets once more, for the process that comes after this one.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn passed(&self) -> io::Result<Vec<Passed>> {
        let of = |one: &Listening| {
            let (name, address) = (one.plan.name.clone(), one.plan.address);
            one.sockets
                .iter()
                .map(|socket| Ok((name.clone(), address, socket.try_clone()?)))
                .collect::<Vec<_>>()
        };
        let all = self.listening.iter().flat_map(of);
        all.map(|one| one.map(|(name, address, socket)| Passed { name, address, socket })).collect()
    }

    /// The next plan's listeners use these, where they fit, and no others are kept.
    pub fn inherit(&mut self, passed: Vec<Passed>) {
        self.inherited = passed;
    }

    /// Services whose endpoints are found elsewhere, and whether any are by now.
    pub fn found(&self) -> impl Iterator<Item = (&str, bool)> {
        let discovered = self.plan.services.iter().filter(|service| service.discovered);
        discovered.map(|service| (&*service.name, !service.endpoints.is_empty()))
    }

    /// The plan that is followed.
    #[must_use]
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan)
    }

    /// The number of the plan that is followed, from 1.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes no more clients, lets requests under way end for as long as the plan says, and ends.
    pub fn stop(self) {
        drop(self);
    }

    /// The same when another process listens on the same sockets: clients without a request are not sent away, but told to go with
    /// the answer to their next one. It lasts until all have gone, or for as long as the plan says.
    pub fn drain(mut self) {
        self.drains = true;
        drop(self);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Nobody is to connect to a socket that no thread looks at.
        self.listening.clear();
        self.inherited.clear();
        for thread in &self.threads {
            // One that has ended needs no word.
            let _ = thread.control.send(if self.drains { Control::Drain } else { Control::Stop });
            if let Err(error) = thread.waker.wake() {
                tracing::error!(%error, "a thread of the proxy cannot be woken");
            }
        }
        for thread in self.threads.iter_mut().filter_map(|thread| thread.thread.take()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the proxy ended badly");
            }
        }
    }
}

/// The thread that reads certificates again when their files change. It ends when this is dropped.
struct Watch {
    keys: Arc<Mutex<Vec<Arc<Keys>>>>,
    /// Dropped to end it.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(meters: Arc<Meters>) -> io::Result<Watch> {
        let keys = Arc::<Mutex<Vec<Arc<Keys>>>>::default();
        let (end, ended) = channel();
        let watched = Arc::clone(&keys);
        let run = move || {
            while ended.recv_timeout(Duration::from_millis(WATCH_MS)) == Err(RecvTimeoutError::Timeout) {
                let now = watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
                now.iter().for_each(|keys| refresh(keys, &meters));
            }
        };
        let thread = std::thread::Builder::new().name("proxy-keys".into()).spawn(run)?;
        Ok(Watch { keys, end: Some(end), thread: Some(thread) })
    }

    /// These are the keys of the plan that is followed.
    fn of(&self, plan: &Plan) {
        let mut keys: Vec<Arc<Keys>> = Vec::new();
        for shown in plan.listeners.iter().filter_map(|one| one.tls.as_ref()?.terminate.as_ref()?.keys()) {
            if !keys.iter().any(|one| Arc::ptr_eq(one, shown)) {
                keys.push(Arc::clone(shown));
            }
        }
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }
}

fn refresh(keys: &Keys, meters: &Meters) {
    match keys.refresh() {
        Ok(false) => {}
        Ok(true) => tracing::info!("certificates of the proxy were read again"),
        Err(error) => {
            meters.keys_refused.increment();
            tracing::error!(%error, "changed certificates of the proxy cannot be used; the last good ones stay");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.end.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that watches the proxy's certificates ended badly");
        }
    }
}

impl Listening {
    /// The same socket by another plan.
    fn again(&self, plan: &ListenerPlan) -> io::Result<Listening> {
        let sockets = self.sockets.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
        Ok(Listening { plan: plan.clone(), address: self.address, sockets })
    }
}

/// Deals out the sockets of the process before: each thread has one at least, and each has a thread.
fn dealt(
    plan: &ListenerPlan,
    passed: &[&TcpListener],
    sockets: &mut [Vec<(ListenerPlan, TcpListener)>],
) -> io::Result<Listening> {
    let threads = sockets.len();
    for at in 0..threads.max(passed.len()) {
        sockets[at % threads].push((plan.clone(), passed[at % passed.len()].try_clone()?));
    }
    let address = passed[0].local_addr()?;
    let sockets = passed.iter().map(|socket| socket.try_clone()).collect::<io::Result<_>>()?;
    Ok(Listening { plan: plan.clone(), address, sockets })
}

/// A socket for each thread.
fn bound(plan: &ListenerPlan, sockets: &mut [Vec<(ListenerPlan, TcpListener)>]) -> io::Result<Listening> {
    let several = sockets.len() > 1;
    let mut address = plan.address;
    if several {
        // Others of this user could share the port with us; whoever has it already is seen by this.
        address = opened(address, false)?.local_addr()?;
    }
    let mut all = Vec::new();
    for of_thread in sockets {
        let socket = opened(address, several)?;
        address = socket.local_addr()?;
        all.push(socket.try_clone()?);
        of_thread.push((plan.clone(), socket));
    }
    Ok(Listening { plan: plan.clone(), address, sockets: all })
}

fn opened(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    set_socket_reuseaddr(&socket, true)?;
    if shared {
        set_socket_reuseport(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}
