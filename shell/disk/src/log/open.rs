//! The opening: reads the log back, cleans up behind its end, and makes a new one where there is none.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use journal::commit::{Commit, Durability, Need, PAGE_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, State};
use journal::record::{HEADER_BYTES, Header};
use journal::{Record, Recover, Refusal, Salt, SegmentId};
use kernel::{Lsn, Micros};

use super::files::{Directory, Files, Name, zero};
use super::prepare::{self, SPARES_MAX};
use super::{LogError, LogOptions, Recovered};

/// Everything that [`super::Log`] goes on with.
pub(super) struct Opened {
    pub(super) files: Arc<dyn Files>,
    pub(super) dir: Directory,
    pub(super) commit: Commit,
    pub(super) segments: BTreeMap<SegmentId, Arc<File>>,
    pub(super) spares: VecDeque<SegmentId>,
    pub(super) recovered: Recovered,
}

pub(super) fn open(
    files: Arc<dyn Files>,
    path: &Path,
    options: LogOptions,
    visit: &mut dyn FnMut(Lsn, Record<'_>),
) -> Result<Opened, LogError> {
    let LogOptions { segment_bytes: bytes, .. } = options;
    let (min, max) = (SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
    if !bytes.is_multiple_of(PAGE_BYTES) || !(min..=max).contains(&bytes) {
        return Err(LogError::SegmentBytes { bytes, min, max });
    }
    let dir = Directory::open(path)?;
    let names = dir.names().map_err(failed(path, "list"))?;
    let ids = segments(&names);
    let found = scan(&dir, &ids, visit)?;
    let spares = keep_spares(&dir, &names, bytes, found.is_none())?;
    let (commit, segments, recovered) = match found {
        None => create(&*files, &dir, options)?,
        Some(found) => go_on(&*files, &dir, options, &ids, found)?,
    };
    Ok(Opened { files, dir, commit, segments, spares, recovered })
}

/// Reads every segment. Changes nothing.
fn scan(
    dir: &Directory,
    ids: &[SegmentId],
    visit: &mut dyn FnMut(Lsn, Record<'_>),
) -> Result<Option<journal::Recovered>, LogError> {
    let refused = |source| LogError::Refused { dir: dir.path().to_path_buf(), source };
    let mut recover = Recover::new();
    let mut bytes = Vec::new();
    for &id in ids {
        bytes.clear();
        let name = Name::Segment(id);
        dir.open_file(name)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(failed(&dir.join(name), "read"))?;
        recover.segment(id, &bytes, &mut |lsn, record| visit(lsn, record)).map_err(refused)?;
    }
    recover.finish().map_err(refused)
}

/// Reads the log in `path` and changes nothing, not even what is torn; `None` if there is none.
pub(super) fn read(
    path: &Path,
    visit: &mut dyn FnMut(Lsn, Record<'_>),
) -> Result<Option<Recovered>, LogError> {
    if !path.try_exists().map_err(failed(path, "look for"))? {
        return Ok(None);
    }
    let dir = Directory::open(path)?;
    let names = dir.names().map_err(failed(path, "list"))?;
    let ids = segments(&names);
    Ok(scan(&dir, &ids, visit)?.map(|found| told(&found, ids.len())))
}

fn segments(names: &[Name]) -> Vec<SegmentId> {
    names.iter().filter_map(|name| if let Name::Segment(id) = name { Some(*id) } else { None }).collect()
}

/// What the host is told of a scan of so many segments.
fn told(found: &journal::Recovered, segments: usize) -> Recovered {
    Recovered {
        end: found.state.end,
        marked: found.state.marked,
        torn: found.torn,
        complete: found.is_complete(),
        floors: found.floors.clone(),
        segments: segments - found.discard.len(),
    }
}

/// Sorts out what is not a segment of the log.
fn keep_spares(
    dir: &Directory,
    names: &[Name],
    segment_bytes: u64,
    fresh: bool,
) -> Result<VecDeque<SegmentId>, LogError> {
    let mut spares = VecDeque::new();
    for &name in names {
        let id = match name {
            Name::Segment(_) => continue,
            // A spare is a segment that was retired, and one that was not retired must have followed it.
            Name::Spare(id) if fresh => {
                let source = Refusal::Missing { segment: id.next() };
                return Err(LogError::Refused { dir: dir.path().to_path_buf(), source });
            }
            Name::Spare(id) => {
                let bytes = fs::metadata(dir.join(name)).map_err(failed(&dir.join(name), "inspect"))?.len();
                (spares.len() < SPARES_MAX && bytes == segment_bytes).then_some(id)
            }
            Name::Unfinished => None,
        };
        match id {
            Some(id) => spares.push_back(id),
            None => dir.remove(name).map_err(failed(&dir.join(name), "remove"))?,
        }
    }
    Ok(spares)
}

type Ready = (Commit, BTreeMap<SegmentId, Arc<File>>, Recovered);

/// Makes a new log. Its first segment gets its name once its header is durable, so that a crash here
/// leaves either a log or none.
fn create(files: &dyn Files, dir: &Directory, options: LogOptions) -> Result<Ready, LogError> {
    let salt = Salt(RandomState::new().build_hasher().finish());
    let mut commit = Commit::new(options.segment_bytes, State::fresh(salt));
    let need = Need { id: SegmentId::FIRST, bytes: options.segment_bytes };
    commit.prepared(need);
    let mut buffer = Vec::new();
    let written = commit
        .append(Micros(0), &[], Durability::Always, &mut buffer)
        .expect("an empty batch fits a prepared segment");
    let make = || -> io::Result<File> {
        let free = files.free(dir.file())?;
        if free < need.bytes.saturating_add(options.reserve_bytes) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = dir.create(Name::Unfinished)?;
        files.allocate(&file, need.bytes)?;
        files.write(&file, &buffer[written.batch.bytes.clone()], written.batch.offset)?;
        zero(files, &file, written.batch.bytes.len() as u64, need.bytes)?;
        file.sync_all()?;
        dir.rename(Name::Unfinished, Name::Segment(need.id))?;
        Ok(file)
    };
    let file = make().map_err(failed(&dir.join(Name::Segment(need.id)), "create"))?;
    let sync = commit.begin_sync().expect("the header was written");
    commit.synced(sync.end);
    let recovered = Recovered {
        end: commit.end(),
        marked: commit.end(),
        torn: None,
        complete: true,
        floors: BTreeMap::new(),
        segments: 0,
    };
    Ok((commit, BTreeMap::from([(need.id, Arc::new(file))]), recovered))
}

/// Cleans up behind the end of what was found, and makes all of it durable.
fn go_on(
    files: &dyn Files,
    dir: &Directory,
    options: LogOptions,
    ids: &[SegmentId],
    found: journal::Recovered,
) -> Result<Ready, LogError> {
    let kept = ids.len() - found.discard.len();
    let recovered = told(&found, ids.len());
    let next = Need { id: found.state.next, bytes: options.segment_bytes };
    let active = found.state.active;
    let fresh_next = active.is_none();
    for &id in found.discard.iter().rev().filter(|&&id| !(fresh_next && id == next.id)) {
        let name = Name::Segment(id);
        dir.remove(name).map_err(failed(&dir.join(name), "remove"))?;
    }
    let mut segments = BTreeMap::new();
    if let Some(active) = active {
        let name = Name::Segment(active.id);
        let clean = || -> io::Result<File> {
            let file = dir.open_file(name)?;
            let len = file.metadata()?.len();
            if len < active.capacity {
                zero(files, &file, len.max(active.offset), active.capacity)?;
            }
            if let Some(wipe) = found.wipe {
                zero(files, &file, wipe.start, wipe.end)?;
            }
            Ok(file)
        };
        let file = clean().map_err(failed(&dir.join(name), "clean"))?;
        segments.insert(active.id, Arc::new(file));
    }
    for &id in &ids[..kept] {
        let name = Name::Segment(id);
        harden(files, dir, id, &found.state).map_err(failed(&dir.join(name), "sync"))?;
    }
    let mut commit = Commit::new(options.segment_bytes, found.state);
    if fresh_next {
        // The segment before is sealed, so this one must exist at all times: it is replaced, not removed.
        let name = Name::Segment(next.id);
        let file = prepare::make(files, dir, next).map_err(failed(&dir.join(name), "make"))?;
        segments.insert(next.id, Arc::new(file));
        commit.prepared(next);
    }
    Ok((commit, segments, recovered))
}

/// Makes the part of a segment durable that the log does not state to be.
///
/// It is written again first: after a failed sync the page cache may hold bytes that are neither on the
/// disk nor due to be written.
fn harden(files: &dyn Files, dir: &Directory, id: SegmentId, state: &State) -> io::Result<()> {
    let mut file = dir.open_file(Name::Segment(id))?;
    let mut head = [0; HEADER_BYTES];
    file.read_exact(&mut head)?;
    let header = Header::decode(id, &head).map_err(|reason| io::Error::other(reason.to_string()))?;
    let from = state.marked.0.saturating_sub(header.start.0);
    let to = state.end.0.saturating_sub(header.start.0).min(header.capacity);
    if from >= to {
        return Ok(());
    }
    let mut bytes = Vec::new();
    io::Seek::seek(&mut file, io::SeekFrom::Start(from))?;
    file.by_ref().take(to - from).read_to_end(&mut bytes)?;
    files.write(&file, &bytes, from)?;
    files.sync(&file)
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> LogError {
    move |source| LogError::File { action, path: path.to_path_buf(), source }
}
