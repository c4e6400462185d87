//! Between the loop of a member and those who ask something of its cluster: the admin port and newcomers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use fabric::Identity;
use fabric::link::{LinkMeters, Members};
use kernel::{ClusterId, NodeId};
use node::cluster::mind::{Answer, Ticket};
use proxy::{NodeTls, Roster, TlsError};
use tokio::sync::oneshot;

use super::board::Board;
use super::introduce::Introducer;
use crate::services::post::Post;

/// Questions that wait for their answer at once.
const WAITING_MAX: usize = 128;

/// See the module's text. One for each member, shared by its threads.
#[derive(Debug)]
pub struct Desk {
    /// Its cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Where it listens for other members.
    pub address: SocketAddr,
    identity: Identity,
    /// Whom links are kept with, and itself.
    pub(crate) members: Arc<Members>,
    /// Makes tokens and judges who has one.
    pub(crate) introducer: Introducer,
    next: AtomicU64,
    waiting: Mutex<BTreeMap<Ticket, oneshot::Sender<Answer>>>,
    meters: OnceLock<Arc<LinkMeters>>,
    /// Frames of the registry of services.
    pub(crate) post: Post,
    /// How far members' proxies follow the cluster's settings.
    pub(crate) board: Board,
}

impl Desk {
    /// Of the member of `cluster` that is `identity`, which others reach at `addresses`.
    pub(crate) fn new(
        cluster: ClusterId,
        identity: &Identity,
        addresses: Vec<SocketAddr>,
        address: SocketAddr,
    ) -> Desk {
        let node = identity.id();
        Desk {
            cluster,
            node,
            address,
            identity: identity.clone(),
            members: Arc::new(Members::new([node].into())),
            introducer: Introducer::new(cluster, node, addresses),
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            meters: OnceLock::new(),
            post: Post::default(),
            board: Board::default(),
        }
    }

    /// What this member proves to proxies of others, and how it judges them: by the set that its links are judged by.
    ///
    /// # Errors
    /// [`TlsError`]: the key cannot be used so.
    pub(crate) fn proof(&self) -> Result<NodeTls, TlsError> {
        let roster = Arc::new(Kept(Arc::clone(&self.members)));
        NodeTls::new(self.cluster, self.node, self.identity.signing_key(), roster)
    }

    /// A number for a question that the loop itself waits for.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A number for a question, and where its answer comes; `None` if too many wait.
    pub(crate) fn register(&self) -> Option<(Ticket, oneshot::Receiver<Answer>)> {
        let mut waiting = self.waiting();
        waiting.retain(|_, sender| !sender.is_closed());
        if waiting.len() >= WAITING_MAX {
            return None;
        }
        let (ticket, (sender, receiver)) = (self.ticket(), oneshot::channel());
        waiting.insert(ticket, sender);
        Some((ticket, receiver))
    }

    /// Hands an answer to who waits for it, if somebody does.
    pub(crate) fn answer(&self, ticket: Ticket, answer: Answer) {
        if let Some(sender) = self.waiting().remove(&ticket) {
            // Nobody may wait any more.
            let _ = sender.send(answer);
        }
    }

    /// What the links count, once there are any.
    #[must_use]
    pub fn links(&self) -> Option<&LinkMeters> {
        self.meters.get().map(Arc::as_ref)
    }

    pub(crate) fn count_links(&self, meters: &Arc<LinkMeters>) {
        // There is one loop with links.
        let _ = self.meters.set(Arc::clone(meters));
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Ticket, oneshot::Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The members that links are kept with, as the proxy asks for them.
#[derive(Debug)]
struct Kept(Arc<Members>);

impl Roster for Kept {
    fn version(&self) -> u64 {
        self.0.version()
    }

    fn contains(&self, node: NodeId) -> bool {
        self.0.contains(node)
    }
}
