//! The preparer thread: segments ahead of need, and what becomes of retired ones.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, MutexGuard};

use journal::SegmentId;
use journal::commit::Need;

use super::files::{Directory, Files, Name, is_full, zero};
use super::{Inner, PREPARE_RETRY_MICROS, Shared};

/// Most retired segments that are kept to be used again.
pub(super) const SPARES_MAX: usize = 2;

enum Job {
    Recycle(SegmentId),
    RemoveSpare(SegmentId),
    Prepare(Need),
}

/// Prepares and recycles until the log is stopped.
pub(super) fn run(shared: &Shared, mut spares: VecDeque<SegmentId>) {
    let mut inner = shared.lock();
    while !inner.stop {
        inner.spares = spares.len();
        let Some(job) = next(shared, &mut inner, &mut spares) else {
            inner = shared.prepare.wait(inner).expect("nobody panics while holding the log's lock");
            continue;
        };
        let full = inner.is_short;
        inner.is_removing = matches!(job, Job::Recycle(_) | Job::RemoveSpare(_));
        drop(inner);
        inner = match job {
            Job::Recycle(id) => {
                let recycled = recycle(shared, id, full, &mut spares);
                let mut inner = shared.lock();
                if recycled.is_err() {
                    // Never the younger before the older: the log on disk must stay one piece.
                    inner.retired.insert(0, id);
                    inner.prepare_after = shared.now() + PREPARE_RETRY_MICROS;
                }
                inner
            }
            Job::RemoveSpare(id) => {
                shared.dir.remove(Name::Spare(id)).ok();
                shared.lock()
            }
            Job::Prepare(need) => {
                let prepared = prepare(shared, need, &mut spares);
                report(shared, shared.lock(), need, prepared)
            }
        };
        inner.is_removing = false;
    }
    inner.wanted = None;
    shared.ready.notify_all();
}

fn next(shared: &Shared, inner: &mut Inner, spares: &mut VecDeque<SegmentId>) -> Option<Job> {
    let calm = shared.now() >= inner.prepare_after;
    if calm && !inner.retired.is_empty() {
        return Some(Job::Recycle(inner.retired.remove(0)));
    }
    if let Some(need) = inner.wanted {
        return Some(Job::Prepare(need));
    }
    if inner.is_short
        && let Some(id) = spares.pop_front()
    {
        return Some(Job::RemoveSpare(id));
    }
    inner.commit.wants().filter(|_| calm).map(Job::Prepare)
}

fn report<'a>(
    shared: &Shared,
    mut inner: MutexGuard<'a, Inner>,
    need: Need,
    prepared: io::Result<File>,
) -> MutexGuard<'a, Inner> {
    match prepared {
        Ok(file) => {
            inner.segments.insert(need.id, Arc::new(file));
            inner.commit.prepared(need);
            // A larger one may have been asked for meanwhile.
            if inner.wanted.is_some_and(|wanted| wanted.id == need.id && wanted.bytes > need.bytes) {
                return inner;
            }
        }
        // What is kept for backups goes before writes are refused; then there is a spare segment.
        Err(error) if is_full(error.kind()) && shared.give_up(&mut inner) => return inner,
        Err(error) => {
            inner.prepare_after = shared.now() + PREPARE_RETRY_MICROS;
            inner.prepare_failures = (inner.prepare_failures.0 + 1, error.kind());
        }
    }
    inner.wanted = None;
    shared.ready.notify_all();
    inner
}

fn recycle(shared: &Shared, id: SegmentId, full: bool, spares: &mut VecDeque<SegmentId>) -> io::Result<()> {
    let usual = shared.dir.join(Name::Segment(id)).metadata()?.len() == shared.options.segment_bytes;
    if full || !usual || spares.len() >= SPARES_MAX {
        return shared.dir.remove(Name::Segment(id));
    }
    shared.dir.rename(Name::Segment(id), Name::Spare(id))?;
    spares.push_back(id);
    Ok(())
}

fn prepare(shared: &Shared, need: Need, spares: &mut VecDeque<SegmentId>) -> io::Result<File> {
    if need.bytes == shared.options.segment_bytes
        && let Some(spare) = spares.pop_front()
    {
        // Its old frames have another id in their checksums and never read back.
        shared.dir.rename(Name::Spare(spare), Name::Segment(need.id))?;
        return shared.dir.open_file(Name::Segment(need.id));
    }
    let free = shared.files.free(shared.dir.file())?;
    if free < need.bytes.saturating_add(shared.options.reserve_bytes) {
        return Err(io::ErrorKind::StorageFull.into());
    }
    make(&*shared.files, &shared.dir, need)
}

/// Makes a segment of zeros under a name of its own, then gives it its own, over what had it.
pub(super) fn make(files: &dyn Files, dir: &Directory, need: Need) -> io::Result<File> {
    let file = dir.create(Name::Unfinished)?;
    let made = files
        .allocate(&file, need.bytes)
        .and_then(|()| zero(files, &file, 0, need.bytes))
        .and_then(|()| file.sync_all())
        .and_then(|()| dir.rename(Name::Unfinished, Name::Segment(need.id)));
    match made {
        Ok(()) => Ok(file),
        Err(error) => {
            if is_full(error.kind()) {
                // Gives the space back at once; if this fails too, the next try truncates the file.
                dir.remove(Name::Unfinished).ok();
            }
            Err(error)
        }
    }
}
