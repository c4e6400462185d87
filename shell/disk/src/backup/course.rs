//! Which of the entries that a log was given one after another hold in the end.
//!
//! A replica's log takes suffixes back: an entry that comes again at its index takes the place of the one that was there, and
//! voids what was behind. Entries are told apart by their ordinals, from 0 in the order in which they came. It knows nothing
//! of what they say.

use kernel::{Index, Micros};
use thiserror::Error;

/// Most spans of a course: each suffix that was taken back makes one more at most.
pub const SPANS_MAX: usize = 1 << 20;

/// More suffixes were taken back than are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("more than {SPANS_MAX} suffixes of one log were taken back")]
pub struct TooMany;

/// Entries that followed each other directly, by ordinal and by index.
#[derive(Clone, Copy, Debug)]
struct Span {
    index: u64,
    ordinal: u64,
    count: u64,
    /// The highest time of those before it.
    before: Micros,
    /// The highest time with its own.
    time: Micros,
}

/// The entries that hold, without a hole from the first to the last.
#[derive(Clone, Debug, Default)]
pub struct Course {
    spans: Vec<Span>,
    taken: u64,
}

impl Course {
    /// Takes the next entry. One that neither takes the place of another nor follows the last is the first of a new course.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn take(&mut self, index: Index, time: Micros) -> Result<(), TooMany> {
        let ordinal = self.taken;
        self.taken += 1;
        if self.starts_anew(index) {
            self.spans.clear();
        }
        while let Some(span) = self.spans.last_mut() {
            if span.index >= index.0 {
                self.spans.pop();
                continue;
            }
            if span.index + span.count > index.0 {
                span.count = index.0 - span.index;
                // Those that stay may be older than those that went; which is not known any more.
                span.time = span.before;
            }
            break;
        }
        let (before, has_room) = (self.time(), self.spans.len() < SPANS_MAX);
        match self.spans.last_mut() {
            Some(span) if span.ordinal + span.count == ordinal => {
                span.count += 1;
                span.time = before.max(time);
            }
            Some(_) | None if has_room => {
                let time = before.max(time);
                self.spans.push(Span { index: index.0, ordinal, count: 1, before, time });
            }
            Some(_) | None => return Err(TooMany),
        }
        Ok(())
    }

    /// Whether an entry at `index` would be the first of a new course, because it has no place in this one.
    #[must_use]
    pub fn starts_anew(&self, index: Index) -> bool {
        let follows = self.last().is_some_and(|last| index <= last.next());
        self.first().is_none_or(|first| index < first || !follows)
    }

    /// The first entry that holds.
    #[must_use]
    pub fn first(&self) -> Option<Index> {
        self.spans.first().map(|span| Index(span.index))
    }

    /// The last.
    #[must_use]
    pub fn last(&self) -> Option<Index> {
        self.spans.last().map(|span| Index(span.index + span.count - 1))
    }

    /// The highest time of those that hold, or earlier, where a suffix was taken back.
    #[must_use]
    pub fn time(&self) -> Micros {
        self.spans.last().map_or(Micros(0), |span| span.time)
    }

    /// How many were taken.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether the entry that came as this one holds. O(log spans).
    #[must_use]
    pub fn holds(&self, ordinal: u64) -> bool {
        let behind = self.spans.partition_point(|span| span.ordinal <= ordinal);
        let span = behind.checked_sub(1).map(|at| self.spans[at]);
        span.is_some_and(|span| ordinal < span.ordinal + span.count)
    }
}

#[cfg(test)]
mod tests {
    use kernel::Rng;

    use super::*;

    /// The ordinals that hold, and the index of the first, found by keeping all of them.
    fn naive(entries: &[u64]) -> (Option<u64>, Vec<u64>) {
        let (mut first, mut held): (Option<u64>, Vec<u64>) = (None, Vec::new());
        for (ordinal, &index) in entries.iter().enumerate() {
            match first {
                Some(begin) if (begin..=begin + held.len() as u64).contains(&index) => {
                    held.truncate((index - begin) as usize);
                }
                Some(_) | None => {
                    held.clear();
                    first = Some(index);
                }
            }
            held.push(ordinal as u64);
        }
        (first, held)
    }

    #[test]
    fn what_holds_is_what_a_log_has_that_keeps_every_entry() {
        for seed in 0..2_000 {
            let mut rng = Rng::new(seed);
            let (mut entries, mut next) = (Vec::new(), 1 + rng.below(5));
            for _ in 0..rng.below(60) {
                match rng.below(10) {
                    0 => next = next.saturating_sub(rng.below(8)).max(1),
                    1 if rng.chance(0.3) => next += rng.below(4),
                    _ => {}
                }
                entries.push(next);
                next += 1;
            }
            let mut course = Course::default();
            for &index in &entries {
                course.take(Index(index), Micros(index)).unwrap();
            }
            let (first, held) = naive(&entries);
            assert_eq!(course.first().map(|it| it.0), first, "seed {seed}");
            let last = first.map(|first| first + held.len() as u64 - 1);
            assert_eq!(course.last().map(|it| it.0), last, "seed {seed}");
            let found: Vec<u64> = (0..entries.len() as u64).filter(|&it| course.holds(it)).collect();
            assert_eq!(found, held, "seed {seed}: {entries:?}");
            assert_eq!(course.taken(), entries.len() as u64);
            assert!(course.time() <= Micros(last.unwrap_or_default()), "seed {seed}");
        }
    }

    #[test]
    fn its_time_is_the_highest_of_all_where_nothing_was_taken_back() {
        let mut course = Course::default();
        for (index, time) in [(3, 50), (4, 0), (5, 40)] {
            course.take(Index(index), Micros(time)).unwrap();
        }
        assert_eq!(course.time(), Micros(50));
        course.take(Index(5), Micros(60)).unwrap();
        assert_eq!(course.time(), Micros(60));
    }
}
