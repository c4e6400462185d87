//! The flusher thread: one sync at a time, for everybody.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use journal::commit::Sync;
use kernel::Micros;

use super::{AWAKE, Inner, NEVER, Shared, SyncEvent};

/// Syncs when it is due, until the log is stopped and all is synced.
pub(super) fn run(shared: &Shared) {
    let mut inner = shared.lock();
    loop {
        if inner.commit.is_poisoned() {
            let told = std::mem::replace(&mut inner.failure_told, true);
            if !told {
                drop(inner);
                (shared.on_synced)(SyncEvent::Failed);
                inner = shared.lock();
            }
            if inner.stop {
                return;
            }
            inner.flusher_wakes = AWAKE;
            inner = shared.flush.wait(inner).expect("nobody panics while holding the log's lock");
            continue;
        }
        let now = shared.now();
        if inner.stop {
            inner.commit.hurry(now);
        }
        let due = inner.commit.sync_due();
        if due.is_none() && idle(shared, &mut inner) {
            continue;
        }
        match due {
            Some(due) if due <= now => inner = sync(shared, inner),
            None if inner.stop => return,
            Some(_) | None => inner = sleep(shared, inner, due.unwrap_or(NEVER), now),
        }
    }
}

/// Writes the idle mark, if one is due; true if something else must be looked at first.
fn idle(shared: &Shared, inner: &mut Inner) -> bool {
    let Inner { commit, buffer, .. } = inner;
    let Some(written) = commit.mark(buffer) else { return false };
    // A failure has poisoned the log, and the next round tells.
    shared.write(inner, &written).is_err() || inner.stop
}

fn sleep<'a>(
    shared: &'a Shared,
    mut inner: std::sync::MutexGuard<'a, Inner>,
    until: Micros,
    now: Micros,
) -> std::sync::MutexGuard<'a, Inner> {
    inner.flusher_wakes = until;
    let mut inner = if until == NEVER {
        shared.flush.wait(inner).expect("nobody panics while holding the log's lock")
    } else {
        let time = Duration::from_micros(until.since(now));
        shared.flush.wait_timeout(inner, time).expect("nobody panics while holding the log's lock").0
    };
    inner.flusher_wakes = AWAKE;
    inner
}

fn sync<'a>(
    shared: &'a Shared,
    mut inner: std::sync::MutexGuard<'a, Inner>,
) -> std::sync::MutexGuard<'a, Inner> {
    let Some(Sync { end, segments }) = inner.commit.begin_sync() else { return inner };
    let files: Vec<Arc<File>> = segments
        .iter()
        .map(|id| Arc::clone(inner.segments.get(id).expect("a segment is open until it is synced")))
        .collect();
    // What is sealed is not written again, and this sync holds the files it needs.
    if let Some(active) = inner.commit.active() {
        inner.segments.retain(|&id, _| id >= active.id);
    }
    drop(inner);
    let synced = files.iter().try_for_each(|file| shared.files.sync(file));
    let mut inner = shared.lock();
    if synced.is_err() {
        inner.commit.fail();
        return inner;
    }
    inner.commit.synced(end);
    if inner.commit.is_poisoned() {
        return inner;
    }
    shared.synced.store(end.0, Ordering::Release);
    shared.retire(&mut inner);
    drop(inner);
    (shared.on_synced)(SyncEvent::Synced(end));
    shared.lock()
}
