//! What was written, and what a crash may take of it.

use kernel::{Index, Lsn, Micros, Term};

use crate::{Violation, violated};

/// What `everysec` may lose, in microseconds, besides the time that syncs take.
pub const EVERYSEC_LOSS_MICROS: u64 = 1_000_000;

/// An entry as it was handed to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its index in the group.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Its stamp.
    pub time: Micros,
    /// Its commands.
    pub body: Vec<u8>,
    /// Where it ends in the log.
    pub end: Lsn,
    /// When it was written, by the simulation's clock.
    pub at: u64,
}

/// An entry as recovery found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its index in the group.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Its stamp.
    pub time: Micros,
    /// Its commands.
    pub body: Vec<u8>,
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// When, by the simulation's clock.
    pub at: u64,
    /// What was not synced may be gone: the power was cut, or a sync failed.
    pub lossy: bool,
    /// The log's own word for what is durable.
    pub durable: Lsn,
    /// How long the longest sync took, in microseconds.
    pub slowest_sync: u64,
}

/// One group's entries, the first with index 1, without a gap.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: Vec<Written>,
}

impl Ledger {
    /// Every entry.
    #[must_use]
    pub fn entries(&self) -> &[Written] {
        &self.entries
    }

    /// The last index; 0 without entries.
    #[must_use]
    pub fn last(&self) -> Index {
        Index(self.entries.len() as u64)
    }

    /// The entry with `index`.
    #[must_use]
    pub fn get(&self, index: Index) -> Option<&Written> {
        self.entries.get(usize::try_from(index.0.checked_sub(1)?).ok()?)
    }

    /// Adds what the log took.
    ///
    /// # Errors
    /// Indexes have a gap, the group's time or its term goes back.
    pub fn push(&mut self, entry: Written) -> Result<(), Violation> {
        if entry.index != self.last().next() {
            return violated(
                "entries follow each other",
                format!("entry {} was written after {}", entry.index, self.last()),
            );
        }
        if let Some(last) = self.entries.last()
            && (entry.time < last.time || entry.term < last.term || entry.end < last.end)
        {
            let place = |entry: &Written| (entry.time.0, entry.term.0, entry.end.0);
            return violated(
                "group time, term and log position never go back",
                format!("{:?} after {:?}", place(&entry), place(last)),
            );
        }
        self.entries.push(entry);
        Ok(())
    }

    /// The last index that must be found after `crash`, if the group had applied (and so shown) up to
    /// `applied`. `always`: everything shown; else only what the crash could not take.
    #[must_use]
    pub fn must_survive(&self, crash: &Crash, applied: Index, always: bool) -> Index {
        if !crash.lossy {
            return self.last();
        }
        let loss = EVERYSEC_LOSS_MICROS + crash.slowest_sync;
        let safe = |entry: &&Written| entry.end <= crash.durable || entry.at.saturating_add(loss) <= crash.at;
        let safe = self.entries.iter().rev().find(safe).map_or(Index(0), |entry| entry.index);
        if always { safe.max(applied) } else { safe }
    }

    /// Compares what was found with what was written, and forgets what is gone. `engine` is the index of
    /// the checkpoint that it continues, `end` the log's: of a torn batch, some entries may be whole.
    ///
    /// # Errors
    /// An entry is lost, was never written, or is another one.
    pub fn recovered(
        &mut self,
        engine: Index,
        found: &[Found],
        end: Lsn,
        must: Index,
    ) -> Result<(), Violation> {
        for entry in found {
            let same = self.get(entry.index).is_some_and(|written| {
                (written.term, written.time, &written.body) == (entry.term, entry.time, &entry.body)
            });
            if !same {
                let what = match self.get(entry.index) {
                    Some(_) => "is not the one that was written",
                    None => "was never written, or lost in an earlier crash",
                };
                return violated(
                    "recovery finds what was written and nothing else",
                    format!("entry {} {what}", entry.index),
                );
            }
        }
        if let Some(pair) = found.windows(2).find(|pair| pair[1].index != pair[0].index.next()) {
            return violated(
                "recovery finds each entry once, in order",
                format!("entry {} follows {}", pair[1].index, pair[0].index),
            );
        }
        let last = found.last().map_or(engine, |entry| engine.max(entry.index));
        if last < must {
            return violated(
                "what was promised survives",
                format!("entries up to {must} were durable by promise, only those up to {last} were found"),
            );
        }
        self.entries.truncate(last.0 as usize);
        self.entries.iter_mut().for_each(|entry| entry.end = entry.end.min(end));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(index: u64, at: u64) -> Written {
        Written {
            index: Index(index),
            term: Term(1),
            time: Micros(at),
            body: vec![index as u8],
            end: Lsn(index * 10),
            at,
        }
    }

    fn found(index: u64, body: u64) -> Found {
        Found { index: Index(index), term: Term(1), time: Micros(index * 500_000), body: vec![body as u8] }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for index in 1..=6 {
            ledger.push(written(index, index * 500_000)).expect("they are in order");
        }
        ledger
    }

    #[test]
    fn a_crash_may_take_what_was_not_promised() {
        let crash = |lossy, durable| Crash { at: 3_000_000, lossy, durable: Lsn(durable), slowest_sync: 0 };
        #[rustfmt::skip] // columns
        let table = [
            // crash            applied always  must
            (crash(false, 0),   0,      true,   6), // the system keeps what was written
            (crash(true, 0),    0,      false,  4), // written a second ago or earlier
            (crash(true, 0),    5,      false,  4),
            (crash(true, 0),    5,      true,   5), // shown
            (crash(true, 60),   5,      false,  6), // synced
        ];
        for (crash, applied, always, must) in table {
            assert_eq!(ledger().must_survive(&crash, Index(applied), always), Index(must), "{crash:?}");
        }
    }

    #[test]
    fn losses_inventions_and_changes_are_found() {
        let all = |n: u64| (1..=n).map(|index| found(index, index)).collect::<Vec<_>>();
        #[rustfmt::skip] // columns
        let table = [
            // engine found                             must  holds
            (0,       all(6),                           6,    true),
            (0,       all(4),                           4,    true),
            (0,       all(4),                           5,    false), // lost
            (4,       vec![],                           4,    true),
            (2,       all(6)[2..].to_vec(),             6,    true),
            (0,       all(7),                           6,    false), // invented
            (0,       vec![found(2, 2), found(1, 1)],   1,    false), // again
            (0,       vec![found(1, 1), found(2, 9)],   2,    false), // changed
        ];
        for (engine, found, must, holds) in table {
            let mut ledger = ledger();
            assert_eq!(
                ledger.recovered(Index(engine), &found, Lsn(60), Index(must)).is_ok(),
                holds,
                "{found:?}"
            );
        }
    }

    #[test]
    fn gaps_and_time_that_goes_back_are_found() {
        let mut ledger = ledger();
        assert!(ledger.push(written(8, 9_000_000)).is_err());
        assert!(ledger.push(Written { time: Micros(1), ..written(7, 9_000_000) }).is_err());
        assert!(ledger.push(written(7, 9_000_000)).is_ok());
    }
}
