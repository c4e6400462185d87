//! Finding a cluster through the overlay: its members publish where they are, and a newcomer with a token looks there.
//!
//! Each member that is told to publishes a record signed with its key, again when the members change. A newcomer looks for
//! the record of the member that its token names: that one may have moved, or be gone, and any other in its record lets the
//! newcomer in. What strangers publish is of no use to anybody: they cannot sign for that member.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fabric::join::{MEMBERS_MAX, Rendezvous, Token};
use fabric::overlay::{Dht, NameError, Overlay, ValueName};
use kernel::{ClusterId, NodeId, PeerId};
use runtime::Remote;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::ask::ask;
use crate::cluster::desk::Desk;

/// For how long a record is good; a member that is gone for longer is not found there.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// The members are looked at this often.
const LOOK_SECONDS: u64 = 10;
/// The record is published again this often, if nothing has changed.
const AGAIN_SECONDS: u64 = 3600;
/// How long a newcomer looks.
const FIND_SECONDS_MAX: u64 = 60;
/// A newcomer looks again after so long.
const FIND_PAUSE_MS: u64 = 500;

/// Why a cluster was not found.
#[derive(Debug, Error)]
pub enum FindError {
    /// There is no overlay to look in.
    #[error(
        "--find: the node takes no part in the overlay; set p2p.enabled=true, and p2p.peers to peers of it"
    )]
    NoOverlay,
    /// The token is another cluster's.
    #[error("--find: the token is of cluster {token}, and not of {wanted}")]
    Other {
        /// The token's.
        token: ClusterId,
        /// The one to be found.
        wanted: ClusterId,
    },
    /// Nobody told of it.
    #[error(
        "--find: no record of the member {member} of cluster {cluster} was found within {FIND_SECONDS_MAX} s ({known} peers of the \
         overlay are known); do its members run with cluster.rendezvous=true, and are p2p.peers peers of the same overlay?"
    )]
    NotFound {
        /// Of which cluster.
        cluster: ClusterId,
        /// Whom the token names.
        member: PeerId,
        /// Contacts of this node.
        known: usize,
    },
    /// The name of the record is none, which no token's is.
    #[error("--find: {0}")]
    Name(#[from] NameError),
    /// No thread or executor can be had.
    #[error("no thread for finding the cluster's members, or telling of them: {0}")]
    Executor(#[from] std::io::Error),
}

/// Where the members of the token's cluster are, as the member that it names tells in the overlay: each with its addresses,
/// that one first.
///
/// # Errors
/// [`FindError`].
pub(crate) fn find(
    overlay: Option<&Overlay>,
    wanted: ClusterId,
    token: &Token,
) -> Result<Vec<(NodeId, Vec<SocketAddr>)>, FindError> {
    if token.cluster != wanted {
        return Err(FindError::Other { token: token.cluster, wanted });
    }
    let overlay = overlay.ok_or(FindError::NoOverlay)?;
    let executor = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let name = ValueName::parse(&Rendezvous::name(wanted, token.introducer), overlay.node_id())?;
    let (node, dht) = (overlay.node(), overlay.dht());
    executor.block_on(async {
        let looking = async {
            loop {
                if let Some(told) = look(&dht, &name, wanted).await {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(FIND_PAUSE_MS)).await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(FIND_SECONDS_MAX), looking).await {
            Ok(mut members) => {
                members.sort_by_key(|(node, _)| *node != token.introducer);
                tracing::info!(cluster = %wanted, members = members.len(), "found through the overlay");
                Ok(members)
            }
            Err(_) => {
                let known = node.status().await.map_or(0, |status| status.contacts);
                let member = PeerId(token.introducer);
                Err(FindError::NotFound { cluster: wanted, member, known })
            }
        }
    })
}

async fn look(dht: &Dht, name: &ValueName, wanted: ClusterId) -> Option<Vec<(NodeId, Vec<SocketAddr>)>> {
    let (value, _) = dht.get(name).await.ok()?;
    let told = Rendezvous::decode(&value?.payload).ok()?;
    (told.cluster == wanted && !told.members.is_empty()).then_some(told.members)
}

/// A member that publishes where its cluster's members are, until it is dropped.
pub(crate) struct Publisher {
    /// Dropping it ends the thread.
    _stop: oneshot::Sender<()>,
}

impl Publisher {
    /// Begins to publish.
    ///
    /// # Errors
    /// No thread or executor can be had.
    pub fn start(dht: Dht, remote: Remote, desk: Arc<Desk>) -> std::io::Result<Publisher> {
        let executor = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (_stop, stopped) = oneshot::channel();
        let work = async move {
            tokio::select! {
                () = publish(&dht, &remote, &desk) => {}
                _ = stopped => {}
            }
        };
        std::thread::Builder::new().name("rendezvous".into()).spawn(move || executor.block_on(work))?;
        Ok(Publisher { _stop })
    }
}

/// Looks at the members, and publishes what has changed; ends with the worker.
async fn publish(dht: &Dht, remote: &Remote, desk: &Desk) {
    let name = Rendezvous::name(desk.cluster, desk.node);
    let name = ValueName::parse(&name, desk.node).expect("a member's label is a name");
    let mut last: Option<(Rendezvous, u64)> = None;
    for look in 0u64.. {
        let Some(mut members) = members(remote).await else { return };
        // What the cluster knows of this member may be older.
        let own = members.iter_mut().find(|(node, _)| *node == desk.node);
        own.into_iter().for_each(|(_, addresses)| addresses.clone_from(&desk.introducer.addresses));
        let told = Rendezvous { cluster: desk.cluster, members };
        let stale = last
            .as_ref()
            .is_none_or(|(before, at)| *before != told || (look - at) * LOOK_SECONDS >= AGAIN_SECONDS);
        if stale && !told.members.is_empty() {
            match dht.put(&name, &told.encode(), LIFE).await {
                Ok((kept, _)) => {
                    tracing::debug!(
                        kept,
                        members = told.members.len(),
                        "told the overlay where the members are"
                    );
                    last = Some((told, look));
                }
                // Nobody is known yet, or all refuse; the next look tries again.
                Err(error) => tracing::debug!(%error, "the overlay does not keep where the members are"),
            }
        }
        tokio::time::sleep(Duration::from_secs(LOOK_SECONDS)).await;
    }
}

/// The members that may be talked to, as the worker knows them; `None` if it has ended.
async fn members(remote: &Remote) -> Option<Vec<(NodeId, Vec<SocketAddr>)>> {
    let present = |worker: &mut node::Worker| {
        let state = worker.mind().map(|mind| mind.state());
        let members = state.into_iter().flat_map(|state| state.members());
        let present = members.filter(|(_, member)| member.is_present()).take(MEMBERS_MAX);
        present.map(|(node, member)| (*node, member.addresses.clone())).collect()
    };
    ask(remote, present).await
}
