//! Time as machines see it: handed in, never fetched.

use core::fmt;
use core::ops::{Add, Sub};

/// Microseconds since the Unix epoch, as the host tells them; never goes back within one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

/// Milliseconds since the Unix epoch: the unit of expiry in Redis's commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Micros {
    /// The whole milliseconds in it, rounded down.
    #[must_use]
    pub const fn millis(self) -> Millis {
        Millis(self.0 / 1000)
    }

    /// This moment plus `millis` milliseconds, or the end of time.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Micros {
        Micros(self.0.saturating_add(millis.saturating_mul(1000)))
    }

    /// Microseconds from `earlier` to this moment; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Micros) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Millis {
    /// The first microsecond of this millisecond.
    #[must_use]
    pub const fn micros(self) -> Micros {
        Micros(self.0.saturating_mul(1000))
    }
}

impl Add<u64> for Micros {
    type Output = Micros;
    fn add(self, micros: u64) -> Micros {
        Micros(self.0.saturating_add(micros))
    }
}

impl Sub<u64> for Micros {
    type Output = Micros;
    fn sub(self, micros: u64) -> Micros {
        Micros(self.0.saturating_sub(micros))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
