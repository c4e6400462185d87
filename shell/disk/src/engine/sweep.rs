//! Gives back the space of generations that a newer mark has hidden, or that were never to be read.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};

use fjall::{OwnedWriteBatch, PersistMode, Readable, Slice};
use kernel::GroupId;
use kernel::codec::{Reader, put_varint};

use super::store::{Books, Store};
use super::{EngineError, entry};

/// Entries removed at a time where nobody can go on before all are gone.
const PURGE_ENTRIES: usize = 10_000;

/// Whether a sweep has anything left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// Entries of older generations may be left.
    More,
    /// Every entry belongs to a current generation.
    Done,
}

/// Generations of a group that are to be swept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doomed {
    /// The last of them.
    pub last: u32,
    /// The last key that the sweep removed. Not stored.
    cursor: Vec<u8>,
}

impl Books {
    pub fn doom(&mut self, group: GroupId, generations: RangeInclusive<u32>) {
        let doomed = Doomed { last: *generations.end(), cursor: Vec::new() };
        self.doomed.insert((group, *generations.start()), doomed);
    }
}

impl Store {
    /// Removes entries of older and of doomed generations, one group after another, `entries_max` at most.
    pub fn sweep(&self, entries_max: usize) -> Result<Swept, EngineError> {
        let mut books = self.books();
        let mut budget = entries_max;
        for (&group, ledger) in
            books.ledgers.iter_mut().filter(|(_, ledger)| ledger.oldest < ledger.generation)
        {
            let generations = ledger.oldest..=ledger.generation - 1;
            let removed = self.sweep_generations(group, generations, &mut ledger.cursor, budget)?;
            if removed == budget {
                return Ok(Swept::More);
            }
            budget -= removed;
            // On the disk with the next mark; until then a restart looks through the tombstones once more.
            ledger.oldest = ledger.generation;
            ledger.cursor.clear();
        }
        while let Some((group, first)) = books.doomed.keys().next().copied() {
            let removed = self.sweep_doomed(&mut books, group, first, budget)?;
            if removed == budget {
                return Ok(Swept::More);
            }
            budget -= removed;
        }
        Ok(Swept::Done)
    }

    /// Removes all doomed generations of a group.
    pub fn purge(&self, books: &mut Books, group: GroupId) -> Result<(), EngineError> {
        while let Some((_, first)) =
            books.doomed.range((group, 0)..=(group, u32::MAX)).next().map(|(key, _)| *key)
        {
            self.sweep_doomed(books, group, first, PURGE_ENTRIES)?;
        }
        Ok(())
    }

    /// Forgets a group: its checkpoint and what is staged for it are gone when this returns, their space later.
    pub fn drop_group(&self, group: GroupId) -> Result<(), EngineError> {
        let mut books = self.books();
        let known = books.ledgers.contains_key(&group) || books.staged.contains_key(&group);
        if !known {
            return Ok(());
        }
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        batch.remove(&self.objects, entry::mark_key(group));
        batch.remove(&self.objects, entry::stage_key(group));
        for (group, first) in books.doomed.range((group, 0)..=(group, u32::MAX)).map(|(key, _)| *key) {
            batch.remove(&self.objects, entry::doomed_key(group, first));
        }
        self.doom(&mut batch, group, 0..=u32::MAX);
        batch.commit().map_err(|e| self.refusal(e))?;
        books.ledgers.remove(&group);
        books.staged.remove(&group);
        books.doomed.retain(|(other, _), _| *other != group);
        books.doom(group, 0..=u32::MAX);
        drop(books);
        self.release_cuts(group);
        Ok(())
    }

    /// Notes that these generations are to be swept.
    pub fn doom(&self, batch: &mut OwnedWriteBatch, group: GroupId, generations: RangeInclusive<u32>) {
        let (key, mut value) = (entry::doomed_key(group, *generations.start()), Vec::new());
        entry::seal(&mut value, &key, |out| put_varint(out, u64::from(*generations.end())));
        batch.insert(&self.objects, key, Slice::new(&value));
    }

    /// All notes of doomed generations, verified.
    pub fn doomed(&self) -> Result<BTreeMap<(GroupId, u32), Doomed>, EngineError> {
        let mut all = BTreeMap::new();
        for guard in self.database.snapshot().prefix(&self.objects, b"x") {
            let (key, value) = guard.into_inner().map_err(|e| self.refusal(e))?;
            let damaged = || EngineError::corrupt(self.place(), "a note of doomed generations is damaged");
            let place = entry::doomed(&key).ok_or_else(damaged)?;
            let (_, content) = entry::unseal(&key, &value).ok_or_else(damaged)?;
            let last = Reader::new(content).varint().map_err(|_| damaged())?;
            let last = u32::try_from(last).map_err(|_| damaged())?;
            all.insert(place, Doomed { last, cursor: Vec::new() });
        }
        Ok(all)
    }

    /// As [`Store::sweep_generations`]; the note goes with the last entries.
    fn sweep_doomed(
        &self,
        books: &mut Books,
        group: GroupId,
        first: u32,
        budget: usize,
    ) -> Result<usize, EngineError> {
        let Some(doomed) = books.doomed.get_mut(&(group, first)) else { return Ok(0) };
        let removed = self.sweep_generations(group, first..=doomed.last, &mut doomed.cursor, budget)?;
        if removed < budget {
            let mut batch = self.database.batch();
            batch.remove(&self.objects, entry::doomed_key(group, first));
            batch.commit().map_err(|e| self.refusal(e))?;
            books.doomed.remove(&(group, first));
        }
        Ok(removed)
    }

    /// Returns how many entries it removed: fewer than `budget` only if no more are left. `cursor` is the last of them.
    fn sweep_generations(
        &self,
        group: GroupId,
        generations: RangeInclusive<u32>,
        cursor: &mut Vec<u8>,
        budget: usize,
    ) -> Result<usize, EngineError> {
        let mut batch = self.database.batch();
        let mut last = cursor.clone();
        let snapshot = self.database.snapshot();
        for (kind, space) in [(b'c', &self.chunks), (b'o', &self.objects)] {
            let start = entry::prefix(kind, group, *generations.start());
            let end = entry::beyond(kind, group, *generations.end());
            // The cursor spares walking over the tombstones of earlier slices.
            let start = match cursor.as_slice() {
                cursor if cursor >= &end[..] => continue,
                cursor if cursor > &start[..] => Bound::Excluded(cursor),
                _ => Bound::Included(&start[..]),
            };
            let range = (start.map(Slice::new), Bound::Excluded(Slice::new(&end)));
            for guard in snapshot.range(space, range).take(budget - batch.len()) {
                let key = guard.key().map_err(|e| self.refusal(e))?;
                last = key.to_vec();
                batch.remove(space, key);
            }
        }
        let removed = batch.len();
        batch.commit().map_err(|e| self.refusal(e))?;
        *cursor = last;
        Ok(removed)
    }
}
