//! Gives back the space of generations that a newer mark has hidden.

use std::ops::Bound;

use fjall::{Readable, Slice};
use kernel::GroupId;

use super::store::Store;
use super::{EngineError, Ledger, entry};

/// Whether a sweep has anything left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// Entries of older generations may be left.
    More,
    /// Every entry belongs to a current generation.
    Done,
}

impl Store {
    /// Removes entries of older generations, one group after another, `entries_max` at most.
    pub fn sweep(&self, entries_max: usize) -> Result<Swept, EngineError> {
        let mut ledgers = self.ledgers();
        let mut budget = entries_max;
        for (&group, ledger) in ledgers.iter_mut().filter(|(_, ledger)| ledger.oldest < ledger.generation) {
            let removed = self.sweep_group(group, ledger, budget)?;
            if removed == budget {
                return Ok(Swept::More);
            }
            budget -= removed;
            // On the disk with the next mark; until then a restart looks through the tombstones once more.
            ledger.oldest = ledger.generation;
            ledger.cursor.clear();
        }
        Ok(Swept::Done)
    }

    /// Returns how many entries it removed: fewer than `budget` only if no more are left.
    fn sweep_group(&self, group: GroupId, ledger: &mut Ledger, budget: usize) -> Result<usize, EngineError> {
        let mut batch = self.database.batch();
        let mut cursor = ledger.cursor.clone();
        let snapshot = self.database.snapshot();
        for (kind, space) in [(b'c', &self.chunks), (b'o', &self.objects)] {
            let start = entry::prefix(kind, group, ledger.oldest);
            let end = entry::prefix(kind, group, ledger.generation);
            // The cursor spares walking over the tombstones of earlier slices.
            let start = match ledger.cursor.as_slice() {
                cursor if cursor >= &end[..] => continue,
                cursor if cursor > &start[..] => Bound::Excluded(cursor),
                _ => Bound::Included(&start[..]),
            };
            let range = (start.map(Slice::new), Bound::Excluded(Slice::new(&end)));
            for guard in snapshot.range(space, range).take(budget - batch.len()) {
                let key = guard.key().map_err(|e| self.refusal(e))?;
                cursor = key.to_vec();
                batch.remove(space, key);
            }
        }
        let removed = batch.len();
        batch.commit().map_err(|e| self.refusal(e))?;
        ledger.cursor = cursor;
        Ok(removed)
    }
}
