//! The log on real files, with failures where the disk would have them.

mod archive;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use journal::Refusal;
use journal::record::{ENTRY_BYTES, HEADER_BYTES, MARK_BYTES};
use kernel::{GroupId, Index, Lsn, Micros, Term};
use tempfile::TempDir;

use super::files::{Files, Os};
use super::*;

const SEGMENT_BYTES: u64 = 64 << 10;
const OPTIONS: LogOptions =
    LogOptions { segment_bytes: SEGMENT_BYTES, reserve_bytes: 1 << 20, archived_bytes: 1 << 20 };
/// Where the first entry of a new log stands: the header is synced, so a mark comes before it.
const FIRST_ENTRY: u64 = (HEADER_BYTES + MARK_BYTES) as u64;
/// Only reached by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// The operating system, with switches for what goes wrong.
#[derive(Default)]
struct Faulty {
    sync_fails: AtomicBool,
    write_fails: AtomicBool,
    allocate_fails: AtomicBool,
    /// Bytes by which the disk is said to be fuller than it is.
    taken: AtomicU64,
    /// A disk of so many bytes for this directory's files.
    quota: Mutex<Option<(PathBuf, u64)>>,
    /// When there is a gate, a sync says that it began and waits until it is let through.
    gate: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

impl Files for Faulty {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.write_fails.load(Ordering::SeqCst) {
            Os.write(file, &bytes[..bytes.len() / 2], offset)?;
            return Err(io::Error::other("half of it was written"));
        }
        Os.write(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if let Some((began, go)) = &*self.gate.lock().unwrap() {
            began.send(()).unwrap();
            go.recv().unwrap();
        }
        if self.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is broken"));
        }
        Os.sync(file)
    }

    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        if self.allocate_fails.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Os.allocate(file, bytes)
    }

    fn free(&self, dir: &File) -> io::Result<u64> {
        if let Some((dir, quota)) = &*self.quota.lock().unwrap() {
            let files = fs::read_dir(dir)?.flatten().flat_map(|file| file.metadata());
            return Ok(quota.saturating_sub(files.map(|file| file.len()).sum()));
        }
        Ok(Os.free(dir)?.saturating_sub(self.taken.load(Ordering::SeqCst)))
    }
}

struct Opened {
    log: Log,
    recovered: Recovered,
    records: Vec<(u32, u64, Vec<u8>)>,
    events: Receiver<SyncEvent>,
    faults: Arc<Faulty>,
}

fn try_open(dir: &Path) -> Result<Opened, LogError> {
    let (send, events) = channel();
    let faults = Arc::new(Faulty::default());
    let mut records = Vec::new();
    let mut visit = |_, record: Record<'_>| {
        if let Record::Entry(entry) = record {
            records.push((entry.group.0, entry.index.0, entry.body.to_vec()));
        }
    };
    // A test that no longer listens has ended.
    let on_synced = Box::new(move |event| send.send(event).unwrap_or_default());
    let (log, recovered) =
        Log::open_on(Arc::clone(&faults) as Arc<dyn Files>, dir, OPTIONS, &mut visit, on_synced)?;
    Ok(Opened { log, recovered, records, events, faults })
}

fn open(dir: &Path) -> Opened {
    try_open(dir).expect("the log is sound")
}

fn entry(group: u32, index: u64, body: &[u8]) -> Record<'_> {
    Record::Entry(Entry {
        group: GroupId(group),
        term: Term(1),
        index: Index(index),
        semantics: 1,
        time: Micros(index),
        body,
    })
}

fn append(log: &Log, index: u64, body: &[u8]) -> Result<Lsn, LogError> {
    log.append(&[entry(1, index, body)], Durability::Always)
}

fn wait_synced(opened: &Opened, lsn: Lsn) {
    while opened.log.synced() < lsn {
        match opened.events.recv_timeout(PATIENCE).expect("the flusher tells") {
            SyncEvent::Synced(_) => {}
            SyncEvent::Failed => panic!("the sync failed"),
        }
    }
}

/// What a crash would leave: the files as they are now, without one that just got another name.
fn copy(dir: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        match fs::copy(entry.path(), copy.path().join(entry.file_name())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => assert!(copied.is_ok(), "{copied:?}"),
        }
    }
    copy
}

fn first_segment(dir: &Path) -> File {
    File::options().read(true).write(true).open(dir.join("0000000000000001.log")).unwrap()
}

fn count(dir: &Path, kind: &str) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(kind)).count()
}

#[test]
fn a_closed_log_reads_back_and_is_complete() {
    let dir = TempDir::new().unwrap();
    let body = vec![7; 1000];
    let opened = open(dir.path());
    assert!(opened.records.is_empty());
    for index in 1..=300 {
        append(&opened.log, index, &body).unwrap();
    }
    opened.log.close().unwrap();
    let opened = open(dir.path());
    let expected: Vec<_> = (1..=300).map(|index| (1, index, body.clone())).collect();
    assert!(opened.records == expected);
    assert!(opened.recovered.complete);
    assert!(opened.recovered.segments > 4);
    assert_eq!(opened.recovered.torn, None);
    // And it goes on.
    append(&opened.log, 301, &body).unwrap();
    opened.log.close().unwrap();
    assert_eq!(open(dir.path()).records.len(), 301);
}

#[test]
fn what_was_synced_survives_a_crash_and_a_torn_tail_is_cut() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    let synced = append(&opened.log, 1, b"kept").unwrap();
    wait_synced(&opened, synced);
    let crashed = copy(dir.path());
    // Behind the first entry, over the idle mark if that is there already: half a frame.
    let at = FIRST_ENTRY + (ENTRY_BYTES + 8) as u64;
    first_segment(crashed.path()).write_all_at(&[0xAB; 20], at).unwrap();
    let reopened = open(crashed.path());
    assert_eq!(reopened.records, [(1, 1, b"kept".to_vec())]);
    let torn = reopened.recovered.torn.expect("the tail is torn");
    assert_eq!((torn.segment, torn.offset), (SegmentId::FIRST, at));
    assert!(!reopened.recovered.complete);
    append(&reopened.log, 2, b"next").unwrap();
    reopened.log.close().unwrap();
    assert_eq!(open(crashed.path()).records.len(), 2);
}

#[test]
fn reading_a_log_changes_nothing_of_what_its_opening_finds() {
    let dir = TempDir::new().unwrap();
    assert!(Log::read(&dir.path().join("none"), &mut |_, _| ()).unwrap().is_none());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is made by looking");
    let opened = open(dir.path());
    let synced = append(&opened.log, 1, b"kept").unwrap();
    wait_synced(&opened, synced);
    let crashed = copy(dir.path());
    let at = FIRST_ENTRY + (ENTRY_BYTES + 8) as u64;
    first_segment(crashed.path()).write_all_at(&[0xAB; 20], at).unwrap();
    let bytes = |dir: &Path| fs::read(dir.join("0000000000000001.log")).unwrap();
    let before = bytes(crashed.path());
    let mut seen = 0;
    let found = Log::read(crashed.path(), &mut |_, _| seen += 1).unwrap().unwrap();
    assert!(bytes(crashed.path()) == before);
    let reopened = open(crashed.path());
    assert_eq!((seen, found), (reopened.records.len(), reopened.recovered.clone()));
    assert!(!reopened.recovered.complete, "that its end may be lost is still known");
}

#[test]
fn a_segment_cut_short_by_the_file_system_is_made_whole_again() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    append(&opened.log, 1, b"kept").unwrap();
    let crashed = copy(dir.path());
    let end = FIRST_ENTRY + (ENTRY_BYTES + 8) as u64;
    first_segment(crashed.path()).set_len(end).unwrap();
    let reopened = open(crashed.path());
    assert_eq!(reopened.recovered.end, Lsn(end));
    assert_eq!(first_segment(crashed.path()).metadata().unwrap().len(), SEGMENT_BYTES);
    append(&reopened.log, 2, b"next").unwrap();
    reopened.log.close().unwrap();
    assert_eq!(open(crashed.path()).records.len(), 2);
}

#[test]
fn a_crash_between_seal_and_header_goes_on_in_the_next_segment() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    let mut index = 0;
    while opened.log.bytes().total() == SEGMENT_BYTES {
        index += 1;
        opened.log.append(&[entry(1, index, &[1; 1000])], Durability::EverySec).unwrap();
    }
    let crashed = copy(dir.path());
    let second = File::options().write(true).open(crashed.path().join("0000000000000002.log")).unwrap();
    second.write_all_at(&[0; 4096], 0).unwrap();
    let reopened = open(crashed.path());
    assert_eq!(reopened.records.len() as u64, index - 1);
    append(&reopened.log, index, b"again").unwrap();
    reopened.log.close().unwrap();
    let records = open(crashed.path()).records;
    assert_eq!(records.last(), Some(&(1, index, b"again".to_vec())));
    assert_eq!(records.len() as u64, index);
}

#[test]
fn a_missing_segment_is_refused_and_named() {
    for missing in 2..=4 {
        let dir = TempDir::new().unwrap();
        let opened = open(dir.path());
        (1..=250).for_each(|index| assert!(append(&opened.log, index, &[1; 1000]).is_ok()));
        opened.log.close().unwrap();
        fs::remove_file(dir.path().join(format!("{missing:016x}.log"))).unwrap();
        let Err(error) = try_open(dir.path()) else { panic!("segment {missing} was not missed") };
        let missing = Refusal::Missing { segment: SegmentId(missing) };
        assert!(matches!(error, LogError::Refused { source, .. } if source == missing), "{missing}");
    }
}

#[test]
fn a_flipped_bit_in_synced_bytes_is_refused_and_the_place_named() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    for index in 1..=3 {
        append(&opened.log, index, &[1; 100]).unwrap();
    }
    opened.log.close().unwrap();
    let at = FIRST_ENTRY + ENTRY_BYTES as u64 + 10;
    let file = first_segment(dir.path());
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    let before = fs::read(dir.path().join("0000000000000001.log")).unwrap();
    let Err(error) = try_open(dir.path()) else { panic!("the damage was not seen") };
    assert!(error.to_string().contains("segment 1 is corrupt at byte 88"), "{error}");
    match error {
        LogError::Refused { source: Refusal::Corruption { segment, offset, .. }, .. } => {
            assert_eq!((segment, offset), (SegmentId::FIRST, FIRST_ENTRY));
        }
        other => panic!("{other}"),
    }
    let after = fs::read(dir.path().join("0000000000000001.log")).unwrap();
    assert!(before == after, "a refused log is not touched");
}

#[test]
fn a_failed_sync_is_final() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    let synced = opened.log.synced();
    opened.faults.sync_fails.store(true, Ordering::SeqCst);
    append(&opened.log, 1, b"lost").unwrap();
    assert_eq!(opened.events.recv_timeout(PATIENCE), Ok(SyncEvent::Failed));
    opened.faults.sync_fails.store(false, Ordering::SeqCst);
    assert!(matches!(append(&opened.log, 2, b"late"), Err(LogError::Poisoned)));
    assert_eq!(opened.log.synced(), synced);
    assert!(matches!(opened.log.close(), Err(LogError::Poisoned)));
}

#[test]
fn a_failed_write_is_final_and_told() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    opened.faults.write_fails.store(true, Ordering::SeqCst);
    assert!(matches!(append(&opened.log, 1, &[1; 500]), Err(LogError::Poisoned)));
    assert_eq!(opened.events.recv_timeout(PATIENCE), Ok(SyncEvent::Failed));
    opened.faults.write_fails.store(false, Ordering::SeqCst);
    assert!(matches!(append(&opened.log, 2, b"late"), Err(LogError::Poisoned)));
    assert!(matches!(opened.log.close(), Err(LogError::Poisoned)));
    assert!(open(dir.path()).records.is_empty());
}

#[test]
fn a_full_disk_refuses_and_goes_on_without_a_restart_once_there_is_space() {
    type Switch = fn(&Faulty, bool);
    let no_space: Switch = |faults, on| faults.taken.store(if on { u64::MAX } else { 0 }, Ordering::SeqCst);
    let no_blocks: Switch = |faults, on| faults.allocate_fails.store(on, Ordering::SeqCst);
    let table: [(&str, Switch); 2] = [("below the reserve", no_space), ("allocation fails", no_blocks)];
    for (name, full) in table {
        let dir = TempDir::new().unwrap();
        let opened = open(dir.path());
        let body = vec![3; 1000];
        let mut taken = 0;
        let until = |taken: &mut u64, wanted: fn(&Result<Lsn, LogError>) -> bool| loop {
            let result = append(&opened.log, *taken + 1, &body);
            if wanted(&result) {
                return;
            }
            match result {
                Ok(_) => *taken += 1,
                Err(LogError::Full) => std::thread::yield_now(),
                Err(other) => panic!("{name}: {other}"),
            }
        };
        full(&opened.faults, true);
        until(&mut taken, |result| matches!(result, Err(LogError::Full)));
        full(&opened.faults, false);
        until(&mut taken, Result::is_ok);
        taken += 1;
        opened.log.close().unwrap();
        let indexes: Vec<u64> = open(dir.path()).records.iter().map(|record| record.1).collect();
        assert_eq!(indexes, (1..=taken).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn checkpointed_segments_are_recycled_and_what_they_held_is_known() {
    let dir = TempDir::new().unwrap();
    let body = vec![5; 1000];
    let opened = open(dir.path());
    let mut end = Lsn(0);
    for index in 1..=1000 {
        end = append(&opened.log, index, &body).unwrap();
        if index % 50 == 0 {
            wait_synced(&opened, end);
            assert!(opened.log.lagging_group().is_none_or(|group| group == GroupId(1)));
            opened.log.checkpointed(GroupId(1), Index(index));
            assert_eq!(opened.log.lagging_group(), None);
        }
    }
    wait_synced(&opened, end);
    assert!(opened.log.bytes().total() <= 2 * SEGMENT_BYTES);
    opened.log.close().unwrap();
    assert!(count(dir.path(), ".spare") <= prepare::SPARES_MAX);
    let opened = open(dir.path());
    let first = opened.records.first().map_or(1001, |record| record.1);
    assert!(first > 800, "the log was truncated");
    assert_eq!(opened.recovered.floors[&GroupId(1)], Index(first - 1));
    let indexes: Vec<u64> = opened.records.iter().map(|record| record.1).collect();
    assert_eq!(indexes, (first..=1000).collect::<Vec<_>>());
}

#[test]
fn a_group_that_is_not_checkpointed_holds_the_log_and_is_named() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    opened.log.append(&[entry(9, 1, b"slow")], Durability::EverySec).unwrap();
    let mut end = Lsn(0);
    for index in 1..=200 {
        end = append(&opened.log, index, &[5; 1000]).unwrap();
    }
    wait_synced(&opened, end);
    opened.log.checkpointed(GroupId(1), Index(200));
    let held = opened.log.bytes().total();
    assert_eq!(opened.log.lagging_group(), Some(GroupId(9)));
    opened.log.checkpointed(GroupId(9), Index(1));
    assert_eq!(opened.log.lagging_group(), None);
    assert!(opened.log.bytes().total() < held);
}

#[test]
fn everysec_is_synced_without_being_asked_again_and_a_vote_at_once() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    let end = opened.log.append(&[entry(1, 1, b"soon")], Durability::EverySec).unwrap();
    wait_synced(&opened, end);
    let vote = HardState { group: GroupId(1), term: Term(2), vote: None };
    let end = opened.log.append(&[Record::HardState(vote)], Durability::EverySec).unwrap();
    wait_synced(&opened, end);
}

#[test]
fn appends_go_on_while_a_sync_runs() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    let (began_send, began) = channel();
    let (go, go_receive) = channel();
    *opened.faults.gate.lock().unwrap() = Some((began_send, go_receive));
    let first = append(&opened.log, 1, b"one").unwrap();
    began.recv_timeout(PATIENCE).unwrap();
    let second = append(&opened.log, 2, b"two").unwrap();
    assert!(opened.log.synced() < first);
    go.send(()).unwrap();
    began.recv_timeout(PATIENCE).unwrap(); // the second sync
    assert!((first..second).contains(&opened.log.synced()));
    go.send(()).unwrap();
    wait_synced(&opened, second);
    *opened.faults.gate.lock().unwrap() = None;
}

#[test]
fn several_workers_and_large_batches_share_one_log() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    let large = vec![8; 3 * SEGMENT_BYTES as usize];
    std::thread::scope(|scope| {
        for group in 1..=4 {
            let (log, large) = (&opened.log, &large);
            scope.spawn(move || {
                for index in 1..=200 {
                    let body = if index % 100 == 0 { &large[..] } else { &large[..500] };
                    log.append(&[entry(group, index, body)], Durability::Always).unwrap();
                }
            });
        }
    });
    opened.log.close().unwrap();
    let records = open(dir.path()).records;
    for group in 1..=4 {
        let of_group = records.iter().filter(|record| record.0 == group);
        let indexes: Vec<u64> = of_group.map(|record| record.1).collect();
        assert_eq!(indexes, (1..=200).collect::<Vec<_>>(), "group {group}");
    }
}

#[test]
fn a_crash_at_any_moment_leaves_a_log_that_opens() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    let mut crashes = Vec::new();
    for index in 1..=400 {
        append(&opened.log, index, &[1; 700]).unwrap();
        if index % 40 == 0 {
            // Syncs and preparations go on while the files are copied, but nothing is appended.
            crashes.push((index, copy(dir.path())));
        }
    }
    for (index, crashed) in crashes {
        let records = open(crashed.path()).records;
        assert_eq!(records.len() as u64, index);
    }
}

#[test]
fn segments_out_of_bounds_are_refused() {
    for segment_bytes in [0, 4096, 16 * 1024 + 1, 2 << 30] {
        let dir = TempDir::new().unwrap();
        let options = LogOptions { segment_bytes, ..LogOptions::default() };
        let opened = Log::open(dir.path(), options, &mut |_, _| {}, Box::new(|_| {}));
        assert!(matches!(opened, Err(LogError::SegmentBytes { bytes, .. }) if bytes == segment_bytes));
    }
}

#[test]
fn old_entries_are_those_that_count_wherever_they_are() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    let mut rng = kernel::Rng::new(4);
    // By index: the term, and the body's length.
    let mut model: Vec<(u64, usize)> = Vec::new();
    let mut end = Lsn(0);
    let mut term = 1;
    for _ in 0..400 {
        if rng.chance(0.1) {
            // A new leader has other entries from somewhere on.
            term += 1;
            model.truncate(model.len() - rng.below(model.len().min(20) as u64 + 1) as usize);
        }
        let length = rng.below(1500) as usize;
        model.push((term, length));
        let body = vec![term as u8; length];
        let Record::Entry(entry) = entry(1, model.len() as u64, &body) else { unreachable!() };
        let noise = Record::Committed { group: GroupId(2), index: Index(1) };
        end = opened
            .log
            .append(&[noise, Record::Entry(Entry { term: Term(term), ..entry })], Durability::EverySec)
            .unwrap();
    }
    assert!(count(dir.path(), ".log") > 3, "one segment shows little");
    let read = |first: u64, last: u64, bytes_max: usize| {
        opened.log.entries(GroupId(1), (Index(first), Index(last)), bytes_max).unwrap()
    };
    for _ in 0..100 {
        let first = 1 + rng.below(model.len() as u64);
        let last = first + rng.below(60);
        let bytes_max = if rng.chance(0.5) { usize::MAX } else { rng.below(20_000) as usize };
        let found = read(first, last, bytes_max);
        let told: Vec<_> = found.iter().map(|it| (it.index.0, it.term.0, it.body.len())).collect();
        let there =
            (first..=last).filter_map(|index| model.get(index as usize - 1).map(|it| (index, it.0, it.1)));
        let mut left = bytes_max;
        let expected: Vec<_> = there
            .enumerate()
            .take_while(|(at, it)| {
                let fits = *at == 0 || it.2 <= left;
                left = left.saturating_sub(it.2);
                fits
            })
            .map(|(_, it)| it)
            .collect();
        assert_eq!(told, expected, "{first} to {last}, {bytes_max} bytes");
    }
    assert_eq!(read(model.len() as u64 + 1, u64::MAX, 1000), []);
    assert_eq!(opened.log.entries(GroupId(3), (Index(1), Index(9)), 1000).unwrap(), []);
    wait_synced(&opened, end);
    opened.log.checkpointed(GroupId(1), Index(model.len() as u64));
    opened.log.checkpointed(GroupId(2), Index(1));
    assert_eq!(read(1, 9, 1000), [], "what was given away is not there");
    let reset = Record::Reset { group: GroupId(1), index: Index(900), term: Term(term) };
    opened.log.append(&[reset, entry(1, 901, b"new")], Durability::EverySec).unwrap();
    assert_eq!(read(901, 901, 1000), [], "behind a reset nothing is certain");
    // But a group that begins there is a new one for ever.
    let begins = Record::Reset { group: GroupId(1), index: Index(1), term: Term(1) };
    let records = [begins, entry(1, 2, b"two"), entry(1, 3, b"three")];
    opened.log.append(&records, Durability::EverySec).unwrap();
    let found: Vec<Vec<u8>> = read(2, 9, 1000).into_iter().map(|it| it.body).collect();
    assert_eq!(found, [b"two".to_vec(), b"three".to_vec()]);
}
