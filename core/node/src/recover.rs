//! Bringing partitions back: the engine's last checkpoint, then the log behind it.

use alloc::collections::BTreeMap;

use journal::{Entry, Record};
use kernel::planted::{Bug, is};
use kernel::{GroupId, Index, Term};
use storage::apply::{Effects, Machinery, apply_entry};
use storage::store::Naming;
use storage::{Registry, Scripting, Store};
use thiserror::Error;

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
