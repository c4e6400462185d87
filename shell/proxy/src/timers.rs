//! Deadlines of many connections, most of which pass unused.
//!
//! Moving a deadline back writes one field: what was scheduled for the earlier moment then looks again. So a request costs
//! no more than that, and a connection is looked at once in the shortest of its timeouts.

use std::collections::BTreeMap;

use kernel::Micros;

use crate::slab::Key;

/// The grain of deadlines, in microseconds: nothing expires before its time, and up to this later.
const TICK_MICROS: u64 = 4_000;

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Client(Key),
    Conn(Key),
}

/// A deadline. Beside the thing that it is of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timer {
    deadline: Micros,
    /// When it is looked at next; 0: never.
    tick: u64,
}

/// All that are scheduled.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    ticks: BTreeMap<u64, Vec<Whose>>,
    spare: Vec<Vec<Whose>>,
}

/// What is due when a timer is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Now,
    Later,
}

impl Timers {
    #[inline]
    pub fn set(&mut self, timer: &mut Timer, whose: Whose, deadline: Micros) {
        timer.deadline = deadline;
        let tick = deadline.0.div_ceil(TICK_MICROS).max(1);
        if timer.tick == 0 || tick < timer.tick {
            self.schedule(timer, whose, tick);
        }
    }

    fn schedule(&mut self, timer: &mut Timer, whose: Whose, tick: u64) {
        timer.tick = tick;
        let spare = &mut self.spare;
        self.ticks.entry(tick).or_insert_with(|| spare.pop().unwrap_or_default()).push(whose);
    }

    /// What was scheduled for a moment that has come, with that moment; give it back with [`Timers::recycle`].
    pub fn due(&mut self, now: Micros) -> Option<(u64, Vec<Whose>)> {
        let entry = self.ticks.first_entry()?;
        if entry.key().saturating_mul(TICK_MICROS) > now.0 { None } else { Some(entry.remove_entry()) }
    }

    pub fn recycle(&mut self, mut list: Vec<Whose>) {
        if self.spare.len() < 64 {
            list.clear();
            self.spare.push(list);
        }
    }

    /// Looks at a timer that was scheduled for `tick`.
    pub fn look(&mut self, timer: &mut Timer, whose: Whose, tick: u64, now: Micros) -> Due {
        if timer.tick != tick {
            return Due::Later;
        }
        timer.tick = 0;
        if timer.deadline <= now {
            return Due::Now;
        }
        self.set(timer, whose, timer.deadline);
        Due::Later
    }

    /// When [`Timers::due`] has something next.
    pub fn next(&self) -> Option<Micros> {
        self.ticks.first_key_value().map(|(tick, _)| Micros(tick.saturating_mul(TICK_MICROS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_move_both_ways_and_fire_once_and_never_early() {
        let at = |ms: u64| Micros(1_000_000_000).plus_millis(ms);
        let whose = Whose::Client(Key::from_bits(1));
        let (mut timers, mut timer, mut fired) = (Timers::default(), Timer::default(), Vec::new());
        timers.set(&mut timer, whose, at(1000));
        timers.set(&mut timer, whose, at(100));
        timers.set(&mut timer, whose, at(5000));
        timers.set(&mut timer, whose, at(300));
        for ms in 0..6000 {
            while let Some((tick, list)) = timers.due(at(ms)) {
                for whose in &list {
                    if timers.look(&mut timer, *whose, tick, at(ms)) == Due::Now {
                        fired.push(ms);
                    }
                }
                timers.recycle(list);
            }
        }
        assert_eq!(fired.len(), 1, "{fired:?}");
        assert!((300..=304).contains(&fired[0]), "{fired:?}");
        assert_eq!(timers.next(), None);
    }
}
