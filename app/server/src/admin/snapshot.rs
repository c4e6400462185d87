//! What the node's workers say of themselves at one moment.

use std::collections::BTreeMap;
use std::time::Duration;

use node::Worker;
use runtime::{Control, Remote};
use tokio::sync::oneshot;

/// How long a worker may be busy before its silence is an answer.
const WORKER_SECONDS_MAX: u64 = 2;

/// One keyspace in figures: those of its partitions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyspaceFigures {
    pub id: u16,
    pub partitions: usize,
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
        let keyspaces = together(keyspaces);
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
                partitions: 1,
                keys: store.len(),
                expiring: store.expiring(),
                memory_bytes: store.memory_bytes(),
                dirty_bytes: store.dirty_bytes(),
                applied: store.applied().0,
            }
        };
        let keyspaces = together(worker.partitions().iter().map(figures).collect());
        Snapshot { calls: worker.calls().collect(), keyspaces }
    }
}

/// The figures of each keyspace once, in the order of the names that they are shown under.
fn together(mut all: Vec<KeyspaceFigures>) -> Vec<KeyspaceFigures> {
    all.sort_by_key(|figures| figures.id);
    all.dedup_by(|next, sum| {
        let same = next.id == sum.id;
        if same {
            sum.partitions += next.partitions;
            sum.keys += next.keys;
            sum.expiring += next.expiring;
            sum.memory_bytes += next.memory_bytes;
            sum.dirty_bytes += next.dirty_bytes;
            sum.applied += next.applied;
        }
        same
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_a_keyspace_are_shown_as_one() {
        let one = |id, keys| KeyspaceFigures {
            id,
            partitions: 1,
            keys,
            expiring: 1,
            memory_bytes: 10,
            dirty_bytes: 2,
            applied: 3,
        };
        let all = together(vec![one(1, 5), one(0, 7), one(1, 6), one(2, 0)]);
        let sum = KeyspaceFigures {
            partitions: 2,
            keys: 11,
            expiring: 2,
            memory_bytes: 20,
            dirty_bytes: 4,
            applied: 6,
            ..one(1, 0)
        };
        assert_eq!(all, [one(0, 7), sum, one(2, 0)]);
    }
}
