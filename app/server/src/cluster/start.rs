//! How a node becomes a member, or is one again: from what its data directory says, what it is asked for, and nothing else.
//!
//! | the data directory | `--cluster` | `--join` | neither |
//! |---|---|---|---|
//! | is empty | makes a cluster | joins one | a node of its own |
//! | has a member's data | is that member | refused | is that member |
//! | has a node's own data | makes a cluster with it | refused | a node of its own |

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use consensus::Durability;
use control::codec::version_of;
use control::{CONTROL, Mode, Name, Newcomer, Refused, Settings, State, Welcome};
use disk::engine::{Engine, EngineError, Mark};
use fabric::join::Token;
use fabric::{Identity, IdentityError};
use kernel::codec::DecodeError;
use kernel::{ClusterId, Foreign, GroupId, NodeId, Rng, Spoken};
use node::cluster::Holding;
use node::cluster::formation::{Formation, keyspaces};
use node::cluster::mind::StartError;
use node::recover::Stores;
use runtime::Clock;
use thiserror::Error;

use super::convert::{self, Conversion, ConvertError};
use super::join::{self, JoinError};
use super::{links, survivor};
use crate::held;
use crate::node::{Keyspace, NodeOptions};

/// How a node is asked to be a member.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// It is to be a member.
    pub enabled: bool,
    /// What it speaks.
    pub spoken: Spoken,
    /// It is to join with this.
    pub join: Option<Token>,
    /// Members that were found, to be asked if the token's does not answer.
    pub others: Vec<(NodeId, Vec<SocketAddr>)>,
    /// What fails together with it.
    pub zone: Name,
    /// Where it listens for other members.
    pub listen: SocketAddr,
    /// Where they reach it, if that is not there.
    pub advertise: Option<IpAddr>,
    /// Where it listens for clients that know Redis Cluster.
    pub clients: SocketAddr,
    /// Where they are told to reach it, if that is not there.
    pub advertise_clients: Option<IpAddr>,
}

/// Why a node is no member.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// A port is taken or not ours.
    #[error(
        "cannot listen on {address} for other members: {source}; stop what holds the port, or choose another with --port-offset 10 or the setting `cluster.port`"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// A port is taken or not ours.
    #[error(
        "cannot listen on {address} for clients of Redis Cluster: {source}; stop what holds the port, or choose another with --port-offset 10 or the setting `cluster.redis_port`"
    )]
    ListenClients {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// The data is of a node of its own.
    #[error(
        "the data directory has data of a node that is in no cluster, which cannot join one: give an empty --data-dir, or make it the first member of a new cluster with --cluster"
    )]
    Alone,
    /// The data is of a member already.
    #[error(
        "the data directory is that of a member of cluster {0} already: start it without --join, or give an empty --data-dir"
    )]
    Member(ClusterId),
    /// It must be finished first.
    #[error(
        "the recovery of this data directory was interrupted: run `archipel cluster recover` on it again, which goes on where it was"
    )]
    Unfinished,
    /// A file of the data directory.
    #[error("cannot use the data directory: {0}")]
    Directory(#[source] io::Error),
    /// Its data cannot be a cluster's.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// Joining failed.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Its key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The first state was refused.
    #[error("a cluster cannot be made so: {0}")]
    Formation(#[from] Refused),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What the engine holds of the cluster.
    #[error(
        "what the data directory says of its cluster cannot be read ({0}); was it written by another version?"
    )]
    Unreadable(#[from] DecodeError),
    /// The cluster was raised since, or is too old.
    #[error("the data directory is of a cluster at {0}")]
    Version(Foreign),
    /// It is none, by the state itself.
    #[error(transparent)]
    NotMember(#[from] StartError),
    /// There are no random bytes.
    #[error("the system has no random bytes for a cluster's id")]
    NoRandom,
}

/// What a member begins with.
pub(crate) struct Membership {
    /// Its key.
    pub identity: Identity,
    /// The bound port.
    pub listener: TcpListener,
    /// Where others reach it.
    pub about: Newcomer,
    /// Its cluster.
    pub cluster: ClusterId,
    /// What the engine holds of the control group.
    pub holding: Holding,
    /// The rest of that.
    pub known: Known,
    /// The replicas that the engine holds, the control group not among them.
    pub replicas: BTreeMap<GroupId, (Holding, Mark)>,
}

/// What is known of the cluster.
pub(crate) enum Known {
    /// Its state, as of the last checkpoint.
    State(Box<State>),
    /// What a newcomer was told.
    Welcome(Welcome),
}

impl Membership {
    /// This node.
    pub const fn node(&self) -> NodeId {
        self.identity.id()
    }

    /// When entries of a group count, as far as is known.
    pub fn durability(&self, group: GroupId) -> Durability {
        match &self.known {
            Known::State(state) => {
                let keyspace = state.keyspaces().get(&group.keyspace());
                keyspace.map_or(Durability::Always, |keyspace| keyspace.settings.durability)
            }
            Known::Welcome(_) => Durability::Always,
        }
    }
}

/// What the node in `dir` is, after it has become what it is asked to be; none if it is in no cluster. What it begins with
/// is durable.
///
/// # Errors
/// [`ClusterError`]; it may be started again in the same way.
pub(crate) fn begin(
    node: &NodeOptions,
    seed: u64,
    engine: &Arc<Engine>,
) -> Result<Option<Membership>, ClusterError> {
    let (options, dir): (_, &Path) = (&node.cluster, &node.data_dir);
    if survivor::is_unfinished(dir).map_err(ClusterError::Directory)? {
        return Err(ClusterError::Unfinished);
    }
    let marks = engine.groups()?;
    let is_member = marks.iter().any(|(group, _)| *group == CONTROL);
    if !is_member && !options.enabled && options.join.is_none() {
        convert::remove_aside(dir)?;
        return Ok(None);
    }
    let has_data = !is_member && (!marks.is_empty() || dir.join("log").exists());
    if has_data && options.join.is_some() {
        return Err(ClusterError::Alone);
    }
    let failed = |source| ClusterError::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let about = links::about(options.zone.clone(), bound, options.advertise);
    let identity = Identity::open(dir)?;
    if !is_member {
        match &options.join {
            Some(token) => {
                let mark =
                    accept(&join::join_any((&identity, options.spoken), token, &options.others, &about)?);
                engine.commit(CONTROL, &mark, std::iter::empty())?;
            }
            None => {
                // What is refused is refused before anything is changed.
                let stores = if has_data { convert::gather(node, seed, engine)? } else { Stores::new() };
                let (mark, state) = form(&identity, &about, node)?;
                Conversion::new(engine, dir, stores, (mark, &state), identity.id())?.run()?;
            }
        }
    }
    convert::tidy(engine, dir)?;
    let membership = resume(identity, listener, about, engine.groups()?)?;
    if is_member && options.join.is_some() {
        return Err(ClusterError::Member(membership.cluster));
    }
    Ok(Some(membership))
}

/// What a newcomer begins with: what it was told is its state until it has one.
fn accept(welcome: &Welcome) -> Mark {
    let cluster = welcome.roster.cluster;
    tracing::info!(%cluster, members = welcome.roster.members.len(), "joined");
    held::empty_mark(&Holding { replica: welcome.replica, mark: None }, welcome.encode())
}

/// What the first member of a new cluster begins with.
fn form(identity: &Identity, about: &Newcomer, node: &NodeOptions) -> Result<(Mark, State), ClusterError> {
    let random = || fabric::join::Secret::draw().map(|secret| secret.0).ok_or(ClusterError::NoRandom);
    let (cluster, seed) = (ClusterId(random()?), random()?);
    let seed = u64::from_le_bytes(*seed.first_chunk().expect("sixteen bytes are more than eight"));
    let configured = node.keyspaces.iter().map(|space| (space.id, settings(space))).collect();
    let formation = Formation {
        cluster,
        node: identity.id(),
        zone: about.zone.clone(),
        addresses: about.addresses.clone(),
        keyspaces: keyspaces(configured),
        at: Clock::new().now().millis(),
        seed,
        version: node.cluster.spoken.newest(),
    };
    let (mark, state) = formation.found()?;
    let replica = *mark.members.voters().first().expect("the first member votes");
    tracing::info!(%cluster, "formed");
    Ok((held::empty_mark(&Holding { replica, mark: Some(mark) }, state.encode()), state))
}

fn settings(space: &Keyspace) -> Settings {
    Settings {
        name: Name::new(&space.label).expect("a name of the configuration is one of the cluster"),
        mode: Mode::Primary,
        copies: space.copies,
        durability: space.durability,
        partitions: space.partitions,
        memory: space.memory.map_or(0, |bytes| bytes as u64),
        eviction: space.eviction,
        reading: control::Reading::default(),
    }
}

/// What the engine holds.
fn resume(
    identity: Identity,
    listener: TcpListener,
    about: Newcomer,
    marks: Vec<(GroupId, Mark)>,
) -> Result<Membership, ClusterError> {
    let (mut control, mut replicas) = (None, BTreeMap::new());
    for (group, mark) in marks {
        match held::holding(&mark)? {
            Some(holding) if group == CONTROL => control = Some((holding, mark.state)),
            Some(holding) => drop(replicas.insert(group, (holding, mark))),
            None => return Err(ClusterError::Alone),
        }
    }
    let (holding, own) = control.ok_or(ClusterError::Unreadable(DecodeError::Invalid))?;
    let known = match holding.mark {
        Some(_) => match version_of(&own).and_then(|wrote| Foreign::of(wrote, Spoken::ALL)) {
            Some(foreign) => return Err(ClusterError::Version(foreign)),
            None => Known::State(Box::new(State::decode(&own)?)),
        },
        None => Known::Welcome(Welcome::decode(&own)?),
    };
    let cluster = match &known {
        Known::State(state) => state.cluster().ok_or(ClusterError::Unreadable(DecodeError::Invalid))?,
        Known::Welcome(welcome) => welcome.roster.cluster,
    };
    Ok(Membership { identity, listener, about, cluster, holding, known, replicas })
}

/// The chance that all replicas of a cluster's partitions share.
pub(crate) fn seed(cluster: ClusterId) -> u64 {
    let (first, second) = cluster.0.split_at(8);
    let number = |bytes: &[u8]| u64::from_le_bytes(*bytes.first_chunk().expect("half of sixteen bytes"));
    Rng::new(number(first)).fork(number(second)).next_u64()
}
