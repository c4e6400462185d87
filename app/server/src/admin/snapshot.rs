//! What the node's workers say of themselves at one moment.

use std::collections::BTreeMap;
use std::time::Duration;

use node::Worker;
use runtime::{Control, Remote};
use tokio::sync::oneshot;

/// How long a worker may be busy before its silence is an answer.
const WORKER_SECONDS_MAX: u64 = 2;

/// One keyspace in figures.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyspaceFigures {
    pub id: u16,
    pub keys: usize,
    pub expiring: usize,
    pub memory_bytes: usize,
    pub dirty_bytes: usize,
    pub applied: u64,
}

/// The workers in figures.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// Command names and how often each was run.
    pub calls: Vec<(&'static str, u64)>,
    pub keyspaces: Vec<KeyspaceFigures>,
}

impl Snapshot {
    /// Asks the workers between two turns; `None` if one does not answer in time.
    pub async fn take(remotes: &[Remote]) -> Option<Snapshot> {
        let mut calls: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut keyspaces = Vec::new();
        for remote in remotes {
            let one = Snapshot::of_one(remote).await?;
            one.calls.into_iter().for_each(|(name, count)| *calls.entry(name).or_default() += count);
            keyspaces.extend(one.keyspaces);
        }
        keyspaces.sort_unstable_by_key(|figures| figures.id);
        Some(Snapshot { calls: calls.into_iter().collect(), keyspaces })
    }

    async fn of_one(remote: &Remote) -> Option<Snapshot> {
        let (tell, told) = oneshot::channel();
        let call = move |worker: &mut Worker| {
            // Nobody may wait any more.
            let _ = tell.send(Snapshot::of(worker));
        };
        if !remote.send(Control::Call(Box::new(call))) {
            return None;
        }
        tokio::time::timeout(Duration::from_secs(WORKER_SECONDS_MAX), told).await.ok()?.ok()
    }

    fn of(worker: &Worker) -> Snapshot {
        let figures = |partition: &node::Partition| {
            let store = partition.store();
            KeyspaceFigures {
                id: partition.keyspace().0,
                keys: store.len(),
                expiring: store.expiring(),
                memory_bytes: store.memory_bytes(),
                dirty_bytes: store.dirty_bytes(),
                applied: store.applied().0,
            }
        };
        let mut keyspaces: Vec<KeyspaceFigures> = worker.partitions().iter().map(figures).collect();
        // In the order of the names that they are shown under.
        keyspaces.sort_unstable_by_key(|keyspace| keyspace.id);
        Snapshot { calls: worker.calls().collect(), keyspaces }
    }
}
