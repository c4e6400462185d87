//! Bringing partitions back: the engine's last checkpoint, then the log behind it.
//!
//! A group of one has all of its log applied at once ([`Recovery`]). Of a replicated group the log only says what may
//! have been agreed on; its entries are applied when a leader says that they are committed ([`Replays`]).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use consensus::replay::{Replay, ReplayError, Tail};
use consensus::{Logged, ReplicaId};
use journal::{Entry, Record};
use kernel::planted::{Bug, is};
use kernel::{GroupId, Index, Term};
use storage::apply::{Effects, Machinery, apply_entry};
use storage::store::Naming;
use storage::{Registry, Scripting, Store};
use thiserror::Error;

use crate::cluster::{Holding, Past};
use crate::division::Divisions;

/// Why the data on disk is not served.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// The log begins after what the engine has.
    #[error(
        "group {group}: the engine has entries up to {engine}, but the log begins after {floor}: entries are missing"
    )]
    Gap {
        /// The group.
        group: GroupId,
        /// The engine's last applied index.
        engine: Index,
        /// The last index that the log gave away.
        floor: Index,
    },
    /// Two neighbouring entries are not.
    #[error("group {group}: entry {found} follows entry {applied} in the log: entries are missing")]
    Hole {
        /// The group.
        group: GroupId,
        /// The last applied.
        applied: Index,
        /// The next found.
        found: Index,
    },
    /// An entry that this version cannot read.
    #[error("group {group}, entry {index}: {what}; was it written by a newer version?")]
    Unreadable {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
        /// What is wrong with it.
        what: kernel::codec::DecodeError,
    },
}

/// Each group's state and the term of its last entry.
pub type Stores = BTreeMap<GroupId, (Store, Term)>;

/// The names of the keyspaces, as the newest exchange that any group was told of left them.
#[must_use]
pub fn naming(stores: &Stores) -> Naming {
    let all = stores.values().map(|(store, _)| store.naming());
    all.max_by_key(|naming| naming.swaps()).cloned().unwrap_or_default()
}

/// Partitions on their way back.
pub struct Recovery<'a> {
    registry: Registry,
    scripting: &'a mut dyn Scripting,
    effects: Effects,
    /// Each group's state and the term of its last entry.
    pub stores: Stores,
    seed: u64,
    divisions: &'a Divisions,
    replayed: u64,
    error: Option<RecoverError>,
}

impl<'a> Recovery<'a> {
    /// Starts from the engine's states of data that is divided as `divisions` says.
    pub fn new(
        seed: u64,
        scripting: &'a mut dyn Scripting,
        stores: Stores,
        divisions: &'a Divisions,
    ) -> Self {
        let (registry, effects) = (Registry::new(), Effects::default());
        let within = |(group, (store, term)): (GroupId, (Store, Term))| {
            (group, (store.within(divisions.scope(group)), term))
        };
        let stores = stores.into_iter().map(within).collect();
        Recovery { registry, scripting, effects, stores, seed, divisions, replayed: 0, error: None }
    }

    /// Takes the next record of the log.
    pub fn record(&mut self, record: Record<'_>) {
        if let (Record::Entry(entry), None) = (record, &self.error)
            && let Err(error) = self.entry(&entry)
        {
            self.error = Some(error);
        }
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), RecoverError> {
        let group = entry.group;
        let fresh = || (Store::new(self.seed).within(self.divisions.scope(group)), Term(1));
        let (store, term) = self.stores.entry(group).or_insert_with(fresh);
        let applied = store.applied();
        if entry.index <= applied {
            return Ok(());
        }
        if entry.index != applied.next() {
            return Err(RecoverError::Hole { group, applied, found: entry.index });
        }
        *term = entry.term;
        let mut machinery =
            Machinery { registry: &self.registry, scripting: self.scripting, effects: &mut self.effects };
        let twice;
        let body = match entry.body {
            body if is(Bug::ReplayDuplicates) => {
                twice = [body, body].concat();
                twice.as_slice()
            }
            _ if is(Bug::ReplaySkips) && entry.index.0.is_multiple_of(8) => &[],
            body => body,
        };
        apply_entry(store, &mut machinery, entry.index, entry.time, body)
            .map_err(|what| RecoverError::Unreadable { group, index: entry.index, what })?;
        self.replayed += 1;
        Ok(())
    }

    /// Ends the replay: the states, and how many entries were applied.
    ///
    /// # Errors
    /// The first thing that was wrong with the log, or a gap between it and the engine.
    pub fn finish(self, floors: &BTreeMap<GroupId, Index>) -> Result<(Stores, u64), RecoverError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        for (&group, &floor) in floors {
            let engine = self.stores.get(&group).map_or(Index(0), |(store, _)| store.applied());
            if engine < floor {
                return Err(RecoverError::Gap { group, engine, floor });
            }
        }
        Ok((self.stores, self.replayed))
    }
}

/// A replicated group whose log contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("group {group}: {error}")]
pub struct ReplicaError {
    /// The group.
    pub group: GroupId,
    /// What is wrong.
    #[source]
    pub error: ReplayError,
}

/// Replicas on their way back. Groups of which the engine holds nothing are not taken up: what the log has of them is
/// left from replicas that are gone.
pub struct Replays(BTreeMap<GroupId, Replaying>);

struct Replaying {
    replica: ReplicaId,
    hard: (Term, Option<ReplicaId>),
    /// None as long as the replica has got nothing: then all its entries are void.
    replay: Option<Replay>,
}

impl Replays {
    /// Starts from what the engine holds of each group, the control group among them.
    #[must_use]
    pub fn new(holdings: impl IntoIterator<Item = (GroupId, Holding)>) -> Replays {
        let begin = |(group, Holding { replica, mark }): (GroupId, Holding)| {
            (group, Replaying { replica, hard: (Term(0), None), replay: mark.map(Replay::new) })
        };
        Replays(holdings.into_iter().map(begin).collect())
    }

    /// Takes the next record of the log.
    pub fn record(&mut self, record: Record<'_>) {
        let Some(Replaying { hard, replay, .. }) = self.0.get_mut(&record.group()) else { return };
        if let Record::HardState(state) = record
            && state.term >= hard.0
        {
            *hard = (state.term, state.vote.and_then(|vote| ReplicaId::new(vote.get())));
        }
        let Some(replay) = replay else { return };
        match record {
            Record::Entry(Entry { term, index, semantics, time, body, .. }) => {
                replay.entry(Logged::new(term, index, semantics, time, body));
            }
            Record::HardState(_) => replay.hard_state(hard.0, hard.1),
            Record::Reset { index, term, .. } => replay.reset(index, term),
            Record::Abandon { .. } => replay.abandon(),
            Record::Committed { index, .. } => replay.committed(index),
        }
    }

    /// Ends the replay: which replica each is, and how far it had come. `tail` says whether the log may have lost its end.
    ///
    /// # Errors
    /// The log of a group contradicts itself, or the engine.
    pub fn finish(self, tail: Tail) -> Result<BTreeMap<GroupId, (ReplicaId, Past)>, ReplicaError> {
        let end = |(group, Replaying { replica, hard, replay }): (GroupId, Replaying)| {
            let past = match replay {
                Some(replay) => {
                    let restored = replay.finish(tail).map_err(|error| ReplicaError { group, error })?;
                    Past::Restored(Box::new(restored))
                }
                None => Past::Joining { hard },
            };
            Ok((group, (replica, past)))
        };
        self.0.into_iter().map(end).collect()
    }
}
