//! Whoever looks on while a worker runs commands, and has a clock.
//!
//! A machine reads no clock. It says what it does, and an observer of the host's measures it; what was
//! measured comes back only to be told to clients.

use gateway::resp::Histograms;

/// Measures how long commands take. Nothing may depend on what it measured.
pub trait Observer {
    /// What is done from now on is a command's work.
    fn begin(&mut self);
    /// What was done since the last call of [`Observer::begin`] or of this was one run of the command of the
    /// store with the number `id`, which is called `name`.
    fn ran(&mut self, id: u16, name: &'static str);
    /// The same of a command that sessions answer themselves.
    fn ran_own(&mut self, name: &'static str);
    /// What was measured.
    fn histograms(&self) -> Histograms;
    /// Forgets it.
    fn reset(&mut self);
}

/// Measures nothing.
pub(crate) struct Nobody;

impl Observer for Nobody {
    fn begin(&mut self) {}
    fn ran(&mut self, _: u16, _: &'static str) {}
    fn ran_own(&mut self, _: &'static str) {}
    fn histograms(&self) -> Histograms {
        Histograms::default()
    }
    fn reset(&mut self) {}
}
