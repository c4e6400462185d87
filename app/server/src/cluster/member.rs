//! A member's one worker, with everything that makes it one.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::channel;

use disk::engine::Engine;
use gateway::resp::Address;
use node::cluster;
use node::cluster::mind::Mind;
use runtime::{Clients, Clock, Crowd, Listener};

use super::desk::Desk;
use super::incarnation;
use super::links::LinkStart;
use super::recover::{Revived, recover};
use super::start::{ClusterError, Membership};
use crate::checkpoint::Checkpointer;
use crate::checkpoint::keeper::Keeper;
use crate::fetch::Fetchers;
use crate::log::SharedLog;
use crate::node::{NodeError, NodeOptions, Started, WorkerStart};
use crate::relay::SyncRelay;

/// What a worker's thread begins with, if it is that of a member.
pub(crate) struct MemberStart {
    /// Its replicas.
    pub start: cluster::Start,
    /// Its part in the control group.
    pub mind: Mind,
    /// Its links.
    pub links: LinkStart,
    /// Where cluster clients reach it.
    pub clients: Address,
    /// The port of its links.
    pub link_port: u16,
}

/// Recovers and starts a member. `seed` is the node's own.
///
/// # Errors
/// [`NodeError`]; no worker is left running, and threads beside them end when nobody can ask them any more.
pub(crate) fn start(
    options: &NodeOptions,
    mut member: Membership,
    seed: u64,
    engine: Arc<Engine>,
    relay: &Arc<SyncRelay>,
    socket: TcpListener,
) -> Result<Started, NodeError> {
    let dir = &options.data_dir;
    let incarnation = incarnation::next(dir)?;
    let (log, revived) = recover(options, &mut member, (incarnation, seed), &engine, Arc::clone(relay))?;
    let Revived { start, mind: mind_start, durable } = revived;
    let mind = Mind::new(Clock::new().now(), mind_start).map_err(ClusterError::NotMember)?;
    let Membership { identity, listener, about, cluster, .. } = member;
    let bound = listener.local_addr().map_err(|source| {
        NodeError::from(ClusterError::Listen { address: options.cluster.listen, source })
    })?;
    let desk = Arc::new(Desk::new(cluster, &identity, about.addresses.clone(), bound));
    let (meters, asked) = (Arc::default(), Arc::default());
    let spawn = |source| NodeError::File { path: dir.clone(), source };
    let (fetchers, to_fetchers) = Fetchers::start(&engine, &meters).map_err(spawn)?;
    let (checkpointer, to_checkpointer) = Checkpointer::start(
        options.checkpoint,
        Arc::clone(&log),
        Arc::clone(&engine),
        Vec::new(),
        Arc::clone(&meters),
        Arc::clone(&asked),
        fetchers,
    )
    .map_err(spawn)?;
    let (links, jobs) = channel();
    let checkpointer = checkpointer.keeping(Keeper {
        links,
        durable,
        dir: dir.clone(),
        engine: Arc::clone(&engine),
        meters: Arc::clone(&meters),
        wanted: BTreeSet::new(),
        seed: super::start::seed(cluster),
        budgets: options.budgets(),
        jobs: Vec::new(),
    });
    let spoken = mind.spoken();
    let desk_of_links = Arc::clone(&desk);
    let links = LinkStart { identity, incarnation, seed, spoken, listener, about, jobs, desk: desk_of_links };
    let refused = |source| {
        let address = options.cluster.clients;
        NodeError::from(ClusterError::ListenClients { address, source })
    };
    let port = TcpListener::bind(options.cluster.clients).map_err(refused)?;
    let reached = port.local_addr().map_err(refused)?;
    let ip = options.cluster.advertise_clients.unwrap_or_else(|| reached.ip());
    let clients = Address { host: ip.to_string(), port: reached.port() };
    let tls = options.redis_tls.clone();
    let worker = WorkerStart {
        settings: options.settings.clone(),
        partitions: Vec::new(),
        seed,
        log: SharedLog::new(Arc::clone(&log), Arc::clone(&meters)),
        checkpointer,
        listeners: vec![
            Listener { socket, tls: tls.clone(), clients: Clients::Plain },
            Listener { socket: port, tls, clients: Clients::Cluster },
        ],
        crowd: Arc::new(Crowd::new(options.clients_max)),
        pin: options.pin_workers,
        member: Some(Box::new(MemberStart { start, mind, links, clients, link_port: bound.port() })),
    };
    let (remote, thread) = worker.spawn(dir)?;
    to_fetchers.answer_to(remote.clone());
    // The thread waits for jobs, so it is there to take it.
    let _ = to_checkpointer.send(remote.clone());
    let threads = vec![(remote, thread)];
    Ok(Started { threads, log, engine, meters, asked, desk: Some(desk) })
}
