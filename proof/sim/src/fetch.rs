//! Bodies on their way from the engine: read at some moment, brought at another, in any order, or not
//! readable.

use kernel::{Rng, WorkerId};
use node::{Fetch, Fetched};

use crate::engine::Engine;

/// Bodies that a process has asked for. They are gone with it.
#[derive(Default)]
pub struct Desk {
    underway: Vec<Errand>,
}

struct Errand {
    due: u64,
    worker: WorkerId,
    fetch: Fetch,
    /// What was read, if that is done: the engine may have something newer by the time it is brought.
    read: Option<Result<Vec<u8>, String>>,
}

/// How the engine's disk is.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// The present, in microseconds since the simulation's start.
    pub now: u64,
    /// At most this long for a body.
    pub micros: u64,
    /// The chance that one cannot be read.
    pub failure: f64,
}

impl Desk {
    /// Begins to read a body for `worker`.
    pub fn take(&mut self, disk: Read, worker: WorkerId, fetch: Fetch, engine: &Engine, rng: &mut Rng) {
        let due = disk.now + rng.below(disk.micros + 1);
        let read = if rng.chance(disk.failure) {
            Some(Err("the simulated disk says no".into()))
        } else {
            rng.chance(0.5).then(|| engine.read(fetch.group, fetch.generation, &fetch.key))
        };
        self.underway.push(Errand { due, worker, fetch, read });
    }

    /// When the next one is done.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        self.underway.iter().map(|errand| errand.due).min()
    }

    /// What is done by `now` for `worker`, in the order in which it is.
    pub fn done(&mut self, now: u64, worker: WorkerId, engine: &Engine) -> Vec<Fetched> {
        let is_done = |errand: &mut Errand| errand.due <= now && errand.worker == worker;
        let mut done: Vec<Errand> = self.underway.extract_if(.., is_done).collect();
        done.sort_by_key(|errand| errand.due);
        let answer = |Errand { fetch, read, .. }: Errand| {
            let body = read.unwrap_or_else(|| engine.read(fetch.group, fetch.generation, &fetch.key));
            fetch.answer(body.as_deref().map_err(Clone::clone))
        };
        done.into_iter().map(answer).collect()
    }
}
