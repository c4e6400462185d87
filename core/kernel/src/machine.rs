//! What every protocol is: a value that is told what happened and says what to do.

use alloc::vec::Vec;

use crate::Micros;

/// A deterministic protocol without socket, clock, task or chance of its own.
pub trait Machine {
    /// What can happen to it.
    type Input;
    /// What it can ask of its host.
    type Effect;
    /// Consumes one input; pushes what the host must do, in order, to `out`.
    fn step(&mut self, now: Micros, input: Self::Input, out: &mut Vec<Self::Effect>);
    /// When `wake` must next be called. Asked after every step, so a stale timer cannot exist.
    fn deadline(&self) -> Option<Micros>;
    /// Lets everything due at `now` happen.
    fn wake(&mut self, now: Micros, out: &mut Vec<Self::Effect>);
}
