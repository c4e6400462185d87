//! Work that does not fit a turn, a slice of it in each: freeing what large removals left.
//!
//! A slice is counted in steps and not in time, so that a seed decides what happens in which turn. A step is about
//! one element: visited, copied, compared or freed.

use crate::worker::Worker;

/// How many steps a turn spends on work that may wait for the next one: with what else a turn does, clients wait
/// for less than a millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceSteps(pub usize);

impl Default for SliceSteps {
    fn default() -> SliceSteps {
        SliceSteps(4096)
    }
}

impl Worker {
    /// Goes on with what did not fit the turns before. Returns true if there is more.
    #[inline]
    pub(crate) fn work_off(&mut self) -> bool {
        let SliceSteps(mut left) = self.slice_steps;
        for partition in &mut self.partitions {
            left -= partition.store.free_dead(left);
        }
        left == 0
    }
}
