//! Entries of a backup, applied to a partition as its members applied them, up to a point or to a moment.
//!
//! What random commands drew, and the order of members, came from the seed of those who wrote the log: replay takes theirs, and
//! only what is made durable here belongs to the new directory, with a seed of its own. Expiry goes by the entries' stamps.
//! One partition is in memory at a time, and its changes go to the engine whenever there are many.

use std::collections::BTreeMap;
use std::sync::Arc;

use disk::backup::{Archive, History, Origin, Point, ReadOn};
use disk::engine::{Engine, Mark, Reader};
use disk::log::OldEntry;
use kernel::{ClusterId, GroupId, Index, Micros, Millis, Term};
use node::cluster::store_seed;
use node::worker::SEMANTICS;
use script::LuaEngine;
use storage::apply::{Effects, Machinery, apply_entry};
use storage::reach::Scope;
use storage::{Registry, Store};

use super::RestoreError;
use crate::cluster::settle::commit;
use crate::cluster::start;
use crate::load::load_group;

/// Bytes of bodies that are read when a partition is loaded; others are when they are asked for.
const LOADED_BYTES_MAX: usize = 1 << 30;
/// With so many changed bytes the engine gets them.
const DIRTY_BYTES_MAX: usize = 64 << 20;

/// What replay is done with.
pub(super) struct Player {
    registry: Registry,
    scripting: LuaEngine,
    effects: Effects,
    origin: Origin,
    moment: Option<Millis>,
    /// What the partition that is played must be at these entries.
    expected: Checkpoints,
    entries: u64,
    met: u64,
}

/// A checkpoint that replay must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// The backup that has it.
    pub number: u64,
    /// That of its stream.
    pub checksum: u64,
}

/// Checkpoints of a partition, by their entries.
pub(super) type Checkpoints = BTreeMap<Index, Checkpoint>;

/// Where a partition is, and how it came there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Which.
    pub group: GroupId,
    /// The entry of the checkpoint that it began with; without one 0, or 1 of a cluster's.
    pub base: Index,
    /// The last entry that it has.
    pub index: Index,
    /// The group's time there.
    pub time: Micros,
    /// Its objects.
    pub objects: u64,
}

/// A partition's entries in the backups that lead to the moment, oldest first, each with its backup's number.
pub(super) type Histories<'a> = &'a [(u64, &'a History)];

/// The seed with which the members of `origin` applied the entries of `group`.
fn seed_of(origin: Origin, group: GroupId) -> u64 {
    if origin.is_cluster {
        return store_seed(start::seed(ClusterId(origin.id)), group);
    }
    let (seed, _) = origin.id.split_first_chunk().expect("sixteen bytes are more than eight");
    u64::from_le_bytes(*seed)
}

impl Player {
    /// Plays entries of `origin`: up to `moment`, or all.
    pub fn new(origin: Origin, moment: Option<Millis>) -> Player {
        let (registry, scripting) = (Registry::new(), LuaEngine::new());
        let (effects, expected) = (Effects::default(), Checkpoints::new());
        Player { registry, scripting, effects, origin, moment, expected, entries: 0, met: 0 }
    }

    /// The partition that is played next must be this, wherever it comes to one of these entries.
    pub fn expect(&mut self, checkpoints: Checkpoints) {
        self.expected = checkpoints;
    }

    /// How many entries were played, and how many checkpoints it has come to as was expected.
    pub const fn tally(&self) -> (u64, u64) {
        (self.entries, self.met)
    }

    /// Brings a partition, which the engine has as `mark` says or not at all, as far as it goes. It is durable there then.
    pub fn play(
        &mut self,
        (engine, archive): (&Arc<Engine>, &mut Archive),
        (group, scope): (GroupId, Scope),
        mark: Option<&Mark>,
        histories: Histories<'_>,
    ) -> Result<Reached, RestoreError> {
        let seed = seed_of(self.origin, group);
        let (store, mut term) = match mark {
            Some(mark) => (load_group(engine, (group, mark), seed, Some(LOADED_BYTES_MAX))?, mark.term),
            None => (Store::new(seed), Term(0)),
        };
        let mut store = store.within(scope);
        // All first members of a cluster's group begin so.
        if mark.is_none() && histories.first().is_some_and(|(_, first)| first.from == Point::FOUNDING.index) {
            store.begin_entry(Point::FOUNDING.index, Micros(0));
            store.end_entry();
        }
        let base = store.applied();
        for &(number, history) in histories.iter().filter(|(_, history)| history.to > base) {
            let mut is_over = false;
            archive.entries((number, group), history, store.applied(), &mut |entry| {
                let time = store.time().max(entry.time);
                if self.moment.is_some_and(|moment| time.millis() > moment) {
                    is_over = true;
                    return Ok(ReadOn::Enough);
                }
                self.apply((group, &mut store), &entry)?;
                term = entry.term;
                self.entries += 1;
                if let Some(&expected) = self.expected.get(&entry.index) {
                    commit(engine, group, (&mut store, term), Vec::new())?;
                    meet(engine, (group, entry.index), expected)?;
                    self.met += 1;
                }
                if store.dirty_bytes() > DIRTY_BYTES_MAX {
                    commit(engine, group, (&mut store, term), Vec::new())?;
                }
                Ok::<ReadOn, RestoreError>(ReadOn::On)
            })?;
            if is_over {
                break;
            }
            if store.applied() != history.to {
                return Err(RestoreError::Hole { group, after: store.applied(), found: history.to });
            }
        }
        if store.applied() > base {
            commit(engine, group, (&mut store, term), Vec::new())?;
        }
        Ok(Reached { group, base, index: store.applied(), time: store.time(), objects: store.len() as u64 })
    }

    fn apply(&mut self, (group, store): (GroupId, &mut Store), entry: &OldEntry) -> Result<(), RestoreError> {
        let OldEntry { index, semantics, time, body, .. } = entry;
        let (index, after) = (*index, store.applied());
        if index != after.next() {
            return Err(RestoreError::Hole { group, after, found: index });
        }
        // The group's own entries say nothing to the store, which counts them.
        let (time, commands) = match *semantics {
            0 => (store.time(), &[][..]),
            SEMANTICS => (*time, &body[..]),
            semantics => return Err(RestoreError::Semantics { group, index, semantics }),
        };
        let Player { registry, scripting, effects, .. } = self;
        let mut machinery = Machinery { registry, scripting, effects };
        apply_entry(store, &mut machinery, index, time, commands)
            .map_err(|what| RestoreError::Unreadable { group, index, what })?;
        match store.damaged() {
            Some(why) => Err(RestoreError::Damaged { group, index, why: why.to_owned() }),
            None => Ok(()),
        }
    }
}

/// Compares the checkpoint that the engine has now.
fn meet(engine: &Engine, (group, index): (GroupId, Index), expected: Checkpoint) -> Result<(), RestoreError> {
    let reader = Reader::Backup(expected.number);
    let cut = engine.make_cut(group, reader)?;
    engine.release_cut(group, cut.generation, reader);
    if cut.mark.index == index && cut.checksum == expected.checksum {
        return Ok(());
    }
    Err(RestoreError::Apart { group, index, number: expected.number })
}

#[cfg(test)]
mod tests;
