//! Groups of replicas in a world of simulated links, disks and clocks; every planted bug must be caught there.

mod codec;
mod disk;
mod figure8;
mod guards;
mod judge;
mod node;
mod planted;
mod seeds;
mod snapshots;
mod world;

use std::sync::{Mutex, MutexGuard, PoisonError};

use kernel::planted::{Bug, choose};

/// The rules are those of the whole process, so only one test runs groups at a time.
pub fn with_rules(bug: Bug) -> Rules {
    static LOCK: Mutex<()> = Mutex::new(());
    let guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    choose(bug);
    Rules(guard)
}

/// While this lives, the chosen rule is broken.
pub struct Rules(#[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl Drop for Rules {
    fn drop(&mut self) {
        choose(Bug::None);
    }
}
