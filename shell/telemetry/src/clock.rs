//! An event loop's clock: wall time that never goes back.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kernel::Micros;

/// Wall time read at the start and carried on by the monotonic clock; it follows the wall clock forward
/// when that jumps ahead, and never backward.
#[derive(Debug)]
pub struct Clock {
    wall: Micros,
    since: Instant,
    last: Micros,
}

/// A difference between the clocks that is followed; smaller ones are drift.
const JUMP_MICROS: u64 = 500_000;

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

impl Clock {
    /// A clock that starts at the system's time.
    #[must_use]
    pub fn new() -> Clock {
        Clock { wall: system(), since: Instant::now(), last: Micros(0) }
    }

    /// The time; not before any earlier answer.
    pub fn now(&mut self) -> Micros {
        let elapsed = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last = self.last.max(self.wall + elapsed);
        self.last
    }

    /// Compares with the system's clock and follows a jump forward. Returns how far the system's clock is
    /// ahead (positive) or behind, in microseconds, if that is more than drift. Call it about once a second.
    pub fn check(&mut self) -> Option<i64> {
        let (now, system) = (self.now(), system());
        let ahead = system.0 as i64 - now.0 as i64;
        if ahead.unsigned_abs() < JUMP_MICROS {
            return None;
        }
        if ahead > 0 {
            self.wall = system;
            self.since = Instant::now();
        }
        Some(ahead)
    }
}

fn system() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let mut clock = Clock::new();
        let first = clock.now();
        clock.wall = clock.wall - 10_000_000;
        assert!(clock.now() >= first);
        assert!(clock.check().is_none_or(|ahead| ahead > 0));
    }
}
