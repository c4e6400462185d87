//! Replicated partitions on several nodes.

mod copies;
pub mod disk;
mod forwarding;
mod leadership;
mod placing;
mod seeds;
mod standstill;
pub mod world;
mod writing;

use std::sync::{Mutex, MutexGuard, PoisonError};

use kernel::planted::{Bug, choose};

/// While this lives, the chosen rule is broken for all tests of this process, which therefore wait for each other.
pub struct Rules(#[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

pub fn with_rules(bug: Bug) -> Rules {
    static LOCK: Mutex<()> = Mutex::new(());
    let guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    choose(bug);
    Rules(guard)
}

impl Drop for Rules {
    fn drop(&mut self) {
        choose(Bug::None);
    }
}

/// What a run says, with its seed; a panic is a failure too.
pub fn guarded<T>(seed: u64, run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|what| format!("seed {seed}: {what}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(format!("seed {seed}: panic: {}", text.unwrap_or_default()))
        }
    }
}
