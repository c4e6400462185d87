//! When what a keyspace promises changes: the disk never says that more was promised than was kept.
//!
//! After a restart the durable state says whether a group's entries waited for a sync before they counted, and so whether a
//! log that lost its end may have lost some that did. Therefore a stronger promise is kept before it is durable, and what
//! was logged under the weaker one is synced before it is; and a weaker one is used only once it is durable.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use consensus::{Durability, Mark};
use control::State;
use kernel::planted::{Bug, is};
use kernel::{Index, KeyspaceId, Lsn};

use super::{Thinking, share};
use crate::cluster::{Holding, Job};
use crate::worker::Worker;

/// What keyspaces promise.
pub(crate) type Promised = BTreeMap<KeyspaceId, Durability>;

/// What they promise in a state.
pub(crate) fn promised(state: &State) -> Promised {
    state.keyspaces().iter().map(|(&db, keyspace)| (db, keyspace.settings.durability)).collect()
}

/// What keyspaces promise, on disk and on the way there.
#[derive(Default)]
pub(crate) struct Pledges {
    durable: Promised,
    /// Of checkpoints that are not durable yet, the oldest first.
    coming: VecDeque<(Index, Promised)>,
    /// Checkpoints that wait until the log is synced up to there.
    held: VecDeque<(Lsn, Job)>,
    /// Up to where the log has what was written while a keyspace promised less than it does now.
    weak: Lsn,
    synced: Lsn,
}

impl Pledges {
    /// Of a node that begins with a durable state, or with none.
    pub fn new(state: &State) -> Pledges {
        Pledges { durable: promised(state), ..Pledges::default() }
    }

    /// What replicas of a keyspace may promise now, if its owner wants `wanted`.
    pub fn may(&self, db: KeyspaceId, wanted: Durability) -> Durability {
        let all = self.coming.iter().map(|(_, said)| said).chain([&self.durable]);
        let weaker = all.into_iter().all(|said| said.get(&db) == Some(&Durability::EverySec));
        if weaker || is(Bug::PledgeWeakAtOnce) { wanted } else { Durability::Always }
    }

    /// Everything up to `lsn` is durable: what waited for that.
    pub fn synced(&mut self, lsn: Lsn) -> Vec<Job> {
        self.synced = self.synced.max(lsn);
        let due = self.held.iter().take_while(|(fence, _)| *fence <= self.synced).count();
        self.held.drain(..due).map(|(_, job)| job).collect()
    }

    /// The checkpoint at `index` is durable.
    pub fn persisted(&mut self, index: Index) {
        while let Some((_, said)) = self.coming.pop_front_if(|(at, _)| *at <= index) {
            self.durable = said;
        }
    }
}

impl Worker {
    /// What the state says of keyspaces takes effect on their replicas here, as far as it may.
    pub(super) fn keep_pledges(&mut self, thinking: &mut Thinking) {
        let (mut stronger, mut waits) = (false, false);
        for (group, at) in self.groups() {
            let db = group.keyspace();
            let Some(keyspace) = thinking.mind.state().keyspaces().get(&db) else { continue };
            let settings = &keyspace.settings;
            let durability = thinking.pledges.may(db, settings.durability);
            waits |= durability != settings.durability;
            let partition = &mut self.partitions[at];
            partition.memory = share(settings);
            if partition.store.policy() != settings.eviction {
                partition.store.set_policy(settings.eviction);
                // Whether it still is, the host's next look at the budget tells.
                partition.full = false;
            }
            let Some(seat) = partition.seat_mut() else { continue };
            if seat.durability == durability {
                continue;
            }
            seat.durability = durability;
            stronger |= durability == Durability::Always;
            if let Some(replica) = partition.group.replica_mut() {
                replica.set_durability(durability);
            }
            self.make_busy(at);
        }
        if stronger {
            thinking.pledges.weak = self.appended();
        }
        if waits || stronger {
            thinking.mind.checkpoint();
        }
    }

    /// Has the host keep a checkpoint of the control group, as soon as that is true of what was logged.
    pub(super) fn persist_control(
        &mut self,
        thinking: &mut Thinking,
        mark: Mark,
        state: Vec<u8>,
        promised: Promised,
    ) {
        thinking.pledges.coming.push_back((mark.index, promised));
        self.keep_pledges(thinking);
        let holding = Holding { replica: thinking.mind.replica().id(), mark: Some(mark) };
        let job = Job::PersistControl { holding, state };
        let pledges = &mut thinking.pledges;
        let waits = pledges.synced < pledges.weak && !is(Bug::PledgeBeforeSync);
        if waits || !pledges.held.is_empty() {
            pledges.held.push_back((pledges.weak, job));
        } else {
            self.ask_host(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const DB: KeyspaceId = KeyspaceId(3);

    fn said(durability: Durability) -> Promised {
        BTreeMap::from([(DB, durability)])
    }

    #[test]
    fn a_weaker_promise_is_used_only_where_every_state_that_may_be_on_disk_says_so() {
        use Durability::{Always, EverySec};
        #[rustfmt::skip] // columns
        let table = [
            // on disk        on its way                wanted    may
            (Some(EverySec),  vec![],                   EverySec, EverySec),
            (Some(EverySec),  vec![],                   Always,   Always),
            (Some(Always),    vec![],                   EverySec, Always),
            (None,            vec![],                   EverySec, Always), // the state on disk is older than the keyspace
            (Some(EverySec),  vec![Always],             EverySec, Always),
            (Some(Always),    vec![EverySec],           EverySec, Always),
            (Some(EverySec),  vec![EverySec, EverySec], EverySec, EverySec),
        ];
        for (row, (durable, coming, wanted, expected)) in table.into_iter().enumerate() {
            let coming = (1..).zip(coming).map(|(at, one)| (Index(at), said(one))).collect();
            let pledges =
                Pledges { durable: durable.map(said).unwrap_or_default(), coming, ..Pledges::default() };
            assert_eq!(pledges.may(DB, wanted), expected, "row {row}");
        }
    }

    #[test]
    fn what_is_on_disk_is_the_newest_checkpoint_that_is() {
        let coming = [(Index(4), said(Durability::EverySec)), (Index(9), said(Durability::Always))];
        let mut pledges = Pledges { coming: coming.into(), ..Pledges::default() };
        pledges.persisted(Index(4));
        assert_eq!((pledges.durable.get(&DB), pledges.coming.len()), (Some(&Durability::EverySec), 1));
        pledges.persisted(Index(9));
        assert_eq!((pledges.durable.get(&DB), pledges.coming.len()), (Some(&Durability::Always), 0));
    }

    #[test]
    fn a_checkpoint_that_is_held_goes_when_the_log_is_synced() {
        let holding = || Holding { replica: consensus::ReplicaId::new(1).expect("a number"), mark: None };
        let job = |byte| Job::PersistControl { holding: holding(), state: vec![byte] };
        let mut pledges = Pledges::default();
        pledges.held.extend([(Lsn(5), job(1)), (Lsn(9), job(2))]);
        assert_eq!(pledges.synced(Lsn(4)).len(), 0);
        assert_eq!(pledges.synced(Lsn(5)).len(), 1);
        assert_eq!(pledges.synced(Lsn(20)).len(), 1);
    }
}
