//! Clients and endpoints that have proven to be nodes of this node's cluster: for as long as they are members, and no longer.
//!
//! The members are looked at when a handshake ends, and when their version has changed, before anything that came since is
//! read. So a node that was removed is served nothing more, and nothing of it is believed.

use std::rc::Rc;
use std::sync::Arc;

use kernel::NodeId;
use mesh::retry::Progress;
use mesh::spiffe::NodeName;

use crate::answer::Reason;
use crate::conn::{Phase, State};
use crate::mutual::{NodeTls, NotTaken};
use crate::slab::Key;
use crate::tries::Failed;
use crate::worker::Loop;

/// Strangers are told of at most once in so long, in milliseconds; all are counted.
const TOLD_MS: u64 = 1_000;

/// A client that has proven to be a member.
pub(crate) struct Member {
    pub node: NodeId,
    /// Its name, for the log.
    pub name: String,
    /// What those behind us are told of it.
    pub told: String,
}

/// What a loop knows of members.
#[derive(Default)]
pub(crate) struct Members {
    /// Who judges them, once a plan has somebody prove anything.
    tls: Option<Arc<NodeTls>>,
    /// The version that was looked at last.
    version: u64,
    told_at: kernel::Micros,
}

impl Loop {
    /// These are judged by what this plan has, if it has any; those of an earlier plan are judged by its.
    pub fn follow_members(&mut self) {
        if let Some(tls) = self.table.plan.node() {
            self.members.tls = Some(Arc::clone(tls));
        }
    }

    /// Ends what nodes have that are no members any more.
    pub fn look_at_members(&mut self) {
        let Some(tls) = &self.members.tls else { return };
        let version = tls.version();
        if std::mem::replace(&mut self.members.version, version) == version {
            return;
        }
        let tls = Arc::clone(tls);
        let is_gone = |node: Option<NodeId>| node.is_some_and(|node| !tls.contains(node));
        for key in self.clients.keys() {
            let Some(client) = self.clients.get(key) else { continue };
            if !is_gone(client.member.as_ref().map(|member| member.node)) {
                continue;
            }
            if !client.socket.is_stream() {
                self.meters.expelled.increment();
                tracing::info!(client = %client.name, "a client's node is no member any more: its connection ends");
            }
            client.socket.poison();
            self.gone(key);
        }
        for key in self.conns.keys() {
            let Some(conn) = self.conns.get(key) else { continue };
            if is_gone(conn.member) {
                self.meters.expelled.increment();
                self.expel(key);
            }
        }
    }

    /// Ends a connection to an endpoint whose node is no member any more.
    fn expel(&mut self, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        if conn.trunk.is_some() {
            return self.cut_trunk(key);
        }
        let Some(client) = conn.client else { return self.drop_idle(key) };
        let Some(asking) = self.clients.get(client) else { return self.remove_conn(key) };
        if asking.phase == Phase::Tunnel {
            asking.socket.poison();
            return self.gone(client);
        }
        let Some(mut exchange) = asking.exchange.take() else { return self.remove_conn(key) };
        let progress = match exchange.state {
            State::Responding => Progress::Answering,
            _ if exchange.sent_any => Progress::Sent,
            _ => Progress::Unconnected,
        };
        let step = self.failed(client, &mut exchange, Failed::new(Reason::EndpointReset, progress));
        self.put_back(client, exchange, step);
        self.drive(client);
    }

    /// Who a client is whose TLS is agreed on. False: it is nobody that may stay, by now.
    pub fn name_client(&mut self, key: Key, tls: &Arc<NodeTls>) -> bool {
        let Some(client) = self.clients.get(key) else { return false };
        let shown = client.socket.tls().and_then(|tls| tls.peer_certificates()).unwrap_or_default();
        // It was judged in the handshake, and the members may be others since.
        let Ok(name) = tls.judge(shown) else { return false };
        let Some(certificate) = shown.first() else { return false };
        let text = name.to_string();
        let told = tls.told(certificate, &text);
        client.member = Some(Rc::new(Member { node: name.node, name: text, told }));
        true
    }

    /// Which node an endpoint's connection leads to whose TLS is agreed on; `Err`: to none that may be asked, by now.
    pub fn name_conn(&mut self, key: Key) -> Result<(), NotTaken> {
        let Some(conn) = self.conns.get(key) else { return Ok(()) };
        let Some(node) = conn.tls.as_ref().and_then(|tls| tls.node()).filter(|_| conn.member.is_none())
        else {
            return Ok(());
        };
        let shown = conn.socket.tls().and_then(|tls| tls.peer_certificates()).unwrap_or_default();
        let NodeName { node, .. } = node.judge(shown)?;
        conn.member = Some(node);
        Ok(())
    }

    /// A client of a port for members was none that may come.
    pub fn tell_stranger(&mut self, client: &str, reason: &NotTaken) {
        self.meters.strangers.increment();
        if self.members.told_at <= self.now {
            self.members.told_at = self.now.plus_millis(TOLD_MS);
            tracing::warn!(%reason, client, "a client is refused where members of the cluster come");
        }
    }
}
