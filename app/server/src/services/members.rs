//! Who is a member and who is dead, as the worker's mind knows, for the registry; and the frames of other registries.

use std::collections::BTreeSet;
use std::time::Duration;

use kernel::NodeId;
use node::Worker;
use p2p::swim::Liveness;

use super::Handle;
use crate::ask::ask;

/// How often the mind is asked, in milliseconds.
const LOOK_MILLIS: u64 = 200;

/// Follows the cluster for ever; without one, does nothing for ever.
pub(super) async fn follow(handle: &Handle) {
    let (Some(desk), Some(remote)) = (&handle.0.desk, &handle.0.remote) else {
        return std::future::pending().await;
    };
    let Some(mut arrived) = desk.post.open() else { return std::future::pending().await };
    let mut look = tokio::time::interval(Duration::from_millis(LOOK_MILLIS));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = (BTreeSet::new(), BTreeSet::new());
    loop {
        tokio::select! {
            _ = look.tick() => {
                let Some(now_known) = ask(remote, |worker| members(worker)).await else {
                    return std::future::pending().await;
                };
                if now_known != known {
                    known.clone_from(&now_known);
                    let (members, down) = now_known;
                    handle.act(|agent, now| agent.registry_mut().set_members(now, members, down));
                }
            }
            Some((from, bytes)) = arrived.recv() => {
                let taken = handle.act(|agent, now| agent.registry_mut().receive(now, from, &bytes));
                if let Err(error) = taken {
                    tracing::warn!(peer = ?from, %error, "a frame about services cannot be read");
                }
            }
        }
    }
}

/// The other members, and who of them is dead.
fn members(worker: &Worker) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
    let Some(mind) = worker.mind() else { return Default::default() };
    let others = || mind.directory().members().map(|(node, _)| node).filter(|node| *node != mind.node());
    let down = others().filter(|node| mind.liveness(*node) == Some(Liveness::Dead));
    (others().collect(), down.collect())
}
