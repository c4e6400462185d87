//! What the node's workers say of themselves at one moment.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway::resp::Behind;
use node::Worker;
use p2p::swim::Liveness;
use runtime::Remote;

use super::cluster::{health, leader};
use crate::ask::ask;

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
    /// What the node sees of its cluster, if it is in one.
    pub cluster: Option<ClusterFigures>,
}

/// A member's cluster in figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterFigures {
    pub version: u64,
    pub term: u64,
    pub leads_control: bool,
    /// It is at a version that this node does not speak.
    pub outrun: bool,
    /// How many members are thought to be so.
    pub members: [(&'static str, usize); 3],
    pub partitions: usize,
    pub led: usize,
    pub replicas: usize,
    pub leads: usize,
    pub moves: usize,
    pub copies: Behind,
    pub dropped: [(&'static str, u64); 6],
}

impl ClusterFigures {
    fn of(worker: &Worker) -> Option<ClusterFigures> {
        let mind = worker.mind()?;
        let members = [Liveness::Alive, Liveness::Suspect, Liveness::Dead].map(|liveness| {
            let so = mind.directory().members().filter(|(node, _)| mind.liveness(*node) == Some(liveness));
            (health(liveness), so.count())
        });
        let groups: Vec<_> = mind.state().partitions().map(|(group, _)| group).collect();
        let led =
            groups.iter().filter(|group| leader(worker, mind, group.keyspace(), group.partition()).is_some());
        let own = || worker.partitions().iter().filter(|partition| partition.replica().is_some());
        let (dropped, strange) = (worker.dropped(), mind.dropped());
        Some(ClusterFigures {
            version: mind.state().version(),
            term: mind.replica().term().0,
            leads_control: mind.replica().leads(),
            outrun: mind.is_outrun(),
            members,
            partitions: groups.len(),
            led: led.count(),
            replicas: own().count(),
            leads: own().filter(|partition| partition.leads()).count(),
            moves: mind.state().partitions().filter(|(_, partition)| partition.moving.is_some()).count(),
            copies: worker.copies_of(None),
            dropped: [
                ("malformed", dropped.malformed + strange.malformed),
                ("unknown", dropped.unknown),
                ("homeless", dropped.homeless),
                ("impostor", dropped.impostor + strange.strange),
                ("refused", dropped.refused + strange.refused),
                ("unreadable", dropped.unreadable + strange.unreadable),
            ],
        })
    }
}

impl Snapshot {
    /// Asks the workers between two turns; `None` if one does not answer in time.
    pub async fn take(remotes: &[Remote]) -> Option<Snapshot> {
        let mut calls: BTreeMap<&'static str, u64> = BTreeMap::new();
        let (mut keyspaces, mut cluster) = (Vec::new(), None);
        for remote in remotes {
            let one = Snapshot::of_one(remote).await?;
            one.calls.into_iter().for_each(|(name, count)| *calls.entry(name).or_default() += count);
            keyspaces.extend(one.keyspaces);
            cluster = cluster.or(one.cluster);
        }
        let keyspaces = together(keyspaces);
        Some(Snapshot { calls: calls.into_iter().collect(), keyspaces, cluster })
    }

    async fn of_one(remote: &Remote) -> Option<Snapshot> {
        let told = ask(remote, |worker| Snapshot::of(worker));
        tokio::time::timeout(Duration::from_secs(WORKER_SECONDS_MAX), told).await.ok()?
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
        let there = worker.partitions().iter().filter(|partition| !partition.is_gone());
        let keyspaces = together(there.map(figures).collect());
        Snapshot { calls: worker.calls().collect(), keyspaces, cluster: ClusterFigures::of(worker) }
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
