//! Snapshots from one engine to another, over real files: whole, resumed, abandoned, damaged, and cut short anywhere.

use std::path::Path;

use kernel::Rng;
use tempfile::TempDir;

use super::stream::{Begin, Item};
use super::tests::{Objects, bytes, contents, entries, mark, options, tamper};
use super::*;

const GROUP: GroupId = GroupId(0x0003_0001);
const OTHER: GroupId = GroupId(0x0003_0002);

fn open(dir: &Path) -> Engine {
    Engine::open(dir, options()).unwrap()
}

fn commit(engine: &Engine, group: GroupId, mark: &Mark, objects: &Objects) {
    let changes = objects.iter().map(|(key, (head, body))| Change::Put { key, head, body });
    engine.commit(group, mark, changes).unwrap();
}

/// Objects with short and long bodies, one with the empty key among them.
fn objects(rng: &mut Rng, count: u64) -> Objects {
    let sizes = [0, 10, 511, 513, 5_000, CHUNK_BYTES, CHUNK_BYTES + 1, 200_000];
    let object = |at| {
        let key = if at == 0 { Vec::new() } else { format!("key {at:04}").into_bytes() };
        let size = sizes[rng.below(if at % 16 == 0 { 8 } else { 4 }) as usize];
        (key, (bytes(rng, 4), bytes(rng, size)))
    };
    (0..count).map(object).collect()
}

/// A mark with a state of so many bytes.
fn stated(index: u64, objects: &Objects, state: usize) -> Mark {
    Mark { state: vec![b's'; state], standing: b"sender".to_vec(), ..mark(index, 3, objects.len() as u64) }
}

/// Stages everything from the receiver's cursor on.
fn pull(from: &Engine, to: &Engine, cut: &CutInfo, lot_bytes: usize) {
    let mut progress = to.begin_stage(GROUP, b"snapshot").unwrap();
    while let Some(cursor) = progress.cursor {
        let lot = from.read_cut(GROUP, cut.generation, &cursor, lot_bytes, Reader::Followers).unwrap();
        progress = to.stage(GROUP, &lot.bytes, lot.next.as_deref()).unwrap();
    }
}

/// The engine as a kill at this moment leaves it.
fn killed(dir: &Path) -> TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let copied = tempfile::tempdir().unwrap();
    copy(dir, copied.path());
    copied
}

#[test]
fn a_snapshot_is_the_checkpoint_whatever_happens_to_the_sender_meanwhile() {
    for (seed, lot_bytes, state) in
        [(1, 1, 10), (2, 3_000, 0), (3, 300_000, 150_000), (4, 1 << 20, CHUNK_BYTES)]
    {
        let mut rng = Rng::new(seed);
        let (from_dir, to_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, to) = (open(from_dir.path()), open(to_dir.path()));
        let sent = objects(&mut rng, 150);
        commit(&from, GROUP, &stated(9, &sent, state), &sent);
        let cut = from.make_cut(GROUP, Reader::Followers).unwrap();
        assert_eq!((cut.generation, &cut.mark), (9, &stated(9, &sent, state)));
        // The receiver had something else, and another group has its own.
        let old = objects(&mut rng, 20);
        commit(&to, GROUP, &mark(4, 1, 20), &old);
        commit(&to, OTHER, &mark(4, 1, 20), &old);

        let mut progress = to.begin_stage(GROUP, b"snapshot").unwrap();
        let (mut index, mut lots) = (9, 0);
        while let Some(cursor) = progress.cursor {
            let lot = from.read_cut(GROUP, cut.generation, &cursor, lot_bytes, Reader::Followers).unwrap();
            assert!(lot.bytes.len() < lot_bytes + stream::ITEM_BYTES_MAX);
            progress = to.stage(GROUP, &lot.bytes, lot.next.as_deref()).unwrap();
            lots += 1;
            if lots % 20 == 1 {
                // Emptied, overwritten and swept.
                index += 1;
                let now = objects(&mut rng, 10);
                let mark = Mark { generation: 3 + index as u32, ..stated(index, &now, 1) };
                commit(&from, GROUP, &mark, &now);
                while from.sweep(50).unwrap() == Swept::More {}
                commit(&to, GROUP, &mark_at(4 + index, &old), &old);
            }
        }
        assert_eq!(progress.bytes, cut.bytes);
        assert_eq!(contents(&to, GROUP, 1).unwrap(), old, "staged objects are nobody's");
        to.check_stage(GROUP, cut.bytes, cut.checksum).unwrap();
        let refused = to.install(GROUP, Index(8), b"receiver").unwrap_err().to_string();
        assert!(refused.contains("it is another one"), "{refused}");
        let behind = to.install(GROUP, Index(9), b"receiver");
        assert!(matches!(behind, Err(EngineError::Backwards { .. })), "its own checkpoint is newer");
    }
}

fn mark_at(index: u64, objects: &Objects) -> Mark {
    mark(index, 1, objects.len() as u64)
}

#[test]
fn a_kill_between_any_two_steps_leaves_what_goes_on_or_is_whole() {
    let mut rng = Rng::new(7);
    let (from_dir, first) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = open(from_dir.path());
    let (sent, old) = (objects(&mut rng, 60), objects(&mut rng, 20));
    let sender = stated(9, &sent, 100_000);
    commit(&from, GROUP, &sender, &sent);
    let cut = from.make_cut(GROUP, Reader::Followers).unwrap();
    let mut to = open(first.path());
    commit(&to, GROUP, &mark(4, 1, 20), &old);
    let mut dirs = vec![first];
    let mut progress = to.begin_stage(GROUP, b"snapshot").unwrap();
    let mut kill = |to: &mut Engine| {
        let next = killed(dirs.last().unwrap().path());
        *to = open(next.path());
        dirs.push(next);
    };
    let before = |to: &Engine| {
        assert_eq!(to.groups().unwrap(), [(GROUP, mark(4, 1, 20))]);
        assert_eq!(contents(to, GROUP, 1).unwrap(), old);
    };
    while let Some(cursor) = progress.cursor.clone() {
        kill(&mut to);
        before(&to);
        assert_eq!(to.staged(), [(GROUP, progress)], "nothing of it is fetched twice");
        let lot = from.read_cut(GROUP, cut.generation, &cursor, 120_000, Reader::Followers).unwrap();
        progress = to.stage(GROUP, &lot.bytes, lot.next.as_deref()).unwrap();
    }
    kill(&mut to);
    before(&to);
    to.check_stage(GROUP, cut.bytes, cut.checksum).unwrap();
    kill(&mut to);
    before(&to);
    let installed = to.install(GROUP, Index(9), b"receiver").unwrap();
    kill(&mut to);
    assert_eq!(
        (installed.state.as_slice(), installed.standing.as_slice()),
        (&sender.state[..], &b"receiver"[..])
    );
    assert_eq!(to.groups().unwrap(), [(GROUP, installed.clone())]);
    assert_eq!(contents(&to, GROUP, installed.generation).unwrap(), sent);
    assert_eq!(to.staged(), []);
    // It goes on as any other checkpoint, and what it replaced goes.
    let changed = Objects::from([(b"key 0001".to_vec(), (vec![], bytes(&mut rng, 100_000)))]);
    let next = Mark { generation: installed.generation, ..mark(10, 0, installed.objects) };
    commit(&to, GROUP, &next, &changed);
    while to.sweep(7).unwrap() == Swept::More {}
    kill(&mut to);
    let mut expected = sent;
    expected.extend(changed);
    assert_eq!(contents(&to, GROUP, installed.generation).unwrap(), expected);
    assert_eq!(entries(&to, b'o'), expected.len());
    let long = |body: &Vec<u8>| if body.len() > 512 { body.len().div_ceil(CHUNK_BYTES) } else { 0 };
    assert_eq!(entries(&to, b'c'), expected.values().map(|(_, body)| long(body)).sum::<usize>());
}

#[test]
fn what_was_abandoned_is_swept_also_after_a_restart() {
    let mut rng = Rng::new(5);
    let (from_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = open(from_dir.path());
    let sent = objects(&mut rng, 60);
    commit(&from, GROUP, &stated(9, &sent, 10), &sent);
    let cut = from.make_cut(GROUP, Reader::Followers).unwrap();
    let to = open(dir.path());
    pull(&from, &to, &cut, 100_000);
    assert_eq!(entries(&to, b'o'), 60);
    to.close().unwrap();

    let to = open(dir.path());
    assert_eq!(to.staged().len(), 1);
    assert_eq!(to.sweep(1000).unwrap(), Swept::Done);
    assert_eq!(entries(&to, b'o'), 60, "what may be gone on with is kept");
    let again = to.begin_stage(GROUP, b"another").unwrap();
    assert_eq!((again.bytes, again.cursor.as_deref()), (0, Some(&b""[..])));
    assert_eq!(to.sweep(20).unwrap(), Swept::More);
    to.close().unwrap();

    let to = open(dir.path());
    assert!(matches!(to.check_stage(GROUP, cut.bytes, cut.checksum), Err(EngineError::Unstageable { .. })));
    while to.sweep(20).unwrap() == Swept::More {}
    assert_eq!((entries(&to, b'o'), entries(&to, b'c')), (0, 0));
    to.drop_stage(GROUP).unwrap();
    pull(&from, &to, &cut, 100_000);
    to.check_stage(GROUP, cut.bytes, cut.checksum).unwrap();
    let installed = to.install(GROUP, Index(9), b"").unwrap();
    while to.sweep(20).unwrap() == Swept::More {}
    assert_eq!(contents(&to, GROUP, installed.generation).unwrap(), sent);
    to.reopen().unwrap();
    assert_eq!(contents(&to, GROUP, installed.generation).unwrap(), sent);
}

#[test]
fn a_dropped_group_is_gone_at_once_and_may_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut rng, engine) = (Rng::new(1), open(dir.path()));
    let (old, new) = (objects(&mut rng, 40), objects(&mut rng, 3));
    for group in [GROUP, OTHER] {
        commit(&engine, group, &mark(9, 0, 40), &old);
    }
    engine.begin_stage(GROUP, b"snapshot").unwrap();
    engine.drop_group(GROUP).unwrap();
    engine.drop_group(GroupId(77)).unwrap();
    let after = killed(dir.path());
    for path in [dir.path(), after.path()] {
        let other;
        let engine = if path == dir.path() {
            &engine
        } else {
            other = open(path);
            &other
        };
        assert_eq!(engine.groups().unwrap(), [(OTHER, mark(9, 0, 40))]);
        assert_eq!(engine.staged(), []);
        engine.sweep(10).unwrap();
        // Below what it had, with the same generation.
        commit(engine, GROUP, &mark(1, 0, 3), &new);
        assert_eq!(contents(engine, GROUP, 0).unwrap(), new);
        while engine.sweep(10).unwrap() == Swept::More {}
        engine.reopen().unwrap();
        assert_eq!(contents(engine, GROUP, 0).unwrap(), new);
        assert_eq!(contents(engine, OTHER, 0).unwrap(), old);
        assert_eq!(entries(engine, b'o'), 43);
    }
}

#[test]
fn a_partition_that_is_emptied_into_a_staged_generation_does_not_find_it() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [from, to] = [open(dirs[0].path()), open(dirs[1].path())];
    let mut rng = Rng::new(2);
    let sent = objects(&mut rng, 30);
    commit(&from, GROUP, &stated(9, &sent, 10), &sent);
    let cut = from.make_cut(GROUP, Reader::Followers).unwrap();
    commit(&to, GROUP, &mark(1, 0, 0), &Objects::new());
    pull(&from, &to, &cut, 100_000);
    let own = objects(&mut rng, 2);
    commit(&to, GROUP, &mark(2, 4096, 2), &own);
    assert_eq!(contents(&to, GROUP, 4096).unwrap(), own);
    assert_eq!(to.staged(), []);
}

#[test]
fn a_cut_is_read_again_after_a_restart_as_long_as_it_is_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let sent = objects(&mut Rng::new(3), 30);
    commit(&engine, GROUP, &stated(9, &sent, 10), &sent);
    let cut = engine.make_cut(GROUP, Reader::Followers).unwrap();
    let first = engine.read_cut(GROUP, 9, b"", 1000, Reader::Followers).unwrap();
    engine.release_cut(GROUP, 9, Reader::Followers);
    engine.reopen().unwrap();
    assert_eq!(engine.read_cut(GROUP, 9, b"", 1000, Reader::Followers).unwrap(), first);
    for index in [10, 11] {
        commit(&engine, GROUP, &stated(index, &sent, 10), &Objects::new());
        assert_eq!(engine.make_cut(GROUP, Reader::Followers).unwrap().bytes, cut.bytes);
    }
    let gone = |generation, cursor: &[u8]| {
        matches!(
            engine.read_cut(GROUP, generation, cursor, 1000, Reader::Followers),
            Err(EngineError::NoSuchCut { .. })
        )
    };
    assert!(gone(9, b""), "two are held");
    assert!(!gone(10, b"") && !gone(11, b""));
    assert!(gone(11, b"\x04") && gone(11, b"\x03\x00no such key") && gone(12, b""));
    assert!(!gone(11, b"\x02zzz"), "behind everything is the end");
}

#[test]
fn a_backup_that_is_done_leaves_the_cut_to_the_follower_that_still_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let sent = objects(&mut Rng::new(5), 30);
    commit(&engine, GROUP, &stated(9, &sent, 10), &sent);
    let (whole, backup) = (engine.make_cut(GROUP, Reader::Followers).unwrap(), Reader::Backup(1));
    assert_eq!(engine.make_cut(GROUP, backup).unwrap(), whole);
    let first = engine.read_cut(GROUP, 9, b"", 1000, Reader::Followers).unwrap();
    // The checkpoint is another one now, so what is let go is gone.
    commit(&engine, GROUP, &stated(10, &sent, 10), &Objects::new());
    engine.release_cut(GROUP, 9, backup);
    let next = first.next.unwrap();
    engine.read_cut(GROUP, 9, &next, 1000, Reader::Followers).unwrap();
    engine.release_cut(GROUP, 9, Reader::Followers);
    let gone = engine.read_cut(GROUP, 9, &next, 1000, Reader::Followers);
    assert!(matches!(gone, Err(EngineError::NoSuchCut { .. })));
}

/// Damages one object's entry past the storage engine's own checksums.
fn damage(engine: &Engine) {
    let mut key = Vec::new();
    entry::object_key(&mut key, GROUP, 3, b"key 0001");
    tamper(engine, &key, Some(b"nothing of ours"));
}

#[test]
fn a_backup_too_many_is_refused_before_anything_is_read_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let sent = objects(&mut Rng::new(5), 30);
    for index in [9, 10, 11, 12] {
        commit(&engine, GROUP, &stated(index, &sent, 10), &sent);
        engine.make_cut(GROUP, Reader::Backup(index)).unwrap();
    }
    commit(&engine, GROUP, &stated(13, &sent, 10), &sent);
    damage(&engine);
    let refused = engine.make_cut(GROUP, Reader::Backup(13));
    assert!(matches!(refused, Err(EngineError::CutsInUse { .. })), "{refused:?}");
    // One that may read finds the damage, and holds nothing then.
    engine.release_cut(GROUP, 9, Reader::Backup(9));
    for reader in [13, 14] {
        let damaged = engine.make_cut(GROUP, Reader::Backup(reader));
        assert!(matches!(damaged, Err(EngineError::Corrupt { .. })), "{damaged:?}");
    }
}

#[test]
fn a_checkpoint_is_measured_once_for_all_backups_until_there_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let sent = objects(&mut Rng::new(5), 30);
    commit(&engine, GROUP, &stated(9, &sent, 10), &sent);
    let first = engine.make_cut(GROUP, Reader::Backup(1)).unwrap();
    // Whoever reads all of it again is seen by what they find.
    damage(&engine);
    assert_eq!(engine.make_cut(GROUP, Reader::Backup(2)).unwrap(), first);
    let is_damaged = |reader| matches!(engine.make_cut(GROUP, reader), Err(EngineError::Corrupt { .. }));
    assert!(is_damaged(Reader::Followers), "what followers get is always read first");
    // The same entry with another state is another checkpoint.
    commit(&engine, GROUP, &stated(9, &sent, 11), &Objects::new());
    assert!(is_damaged(Reader::Backup(3)));
    engine.drop_group(GROUP).unwrap();
    let few = objects(&mut Rng::new(6), 20);
    commit(&engine, GROUP, &stated(9, &few, 10), &few);
    assert_ne!(engine.make_cut(GROUP, Reader::Backup(4)).unwrap().bytes, first.bytes);
}

#[test]
fn a_lot_that_does_not_belong_there_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let begin = |objects, state_bytes| Item::Begin(Begin { index: 9, term: 2, objects, state_bytes });
    let object = |key| Item::Object { key, head: b"", body: b"b" };
    let long = |bytes| Item::Long { key: b"k", head: b"", bytes, crc: 1 };
    let (piece, huge, key) = (vec![1; CHUNK_BYTES], vec![1; CHUNK_BYTES + 1], vec![1; KEY_BYTES_MAX + 1]);
    #[rustfmt::skip] // columns
    let table: Vec<(Vec<Item<'_>>, &str)> = vec![
        (vec![object(b"k")],                                              "it has no beginning"),
        (vec![begin(0, 0), begin(0, 0)],                                  "it begins twice"),
        (vec![begin(0, u64::MAX)],                                        "its state is too long"),
        (vec![begin(0, 9), object(b"k")],                                 "its state ends early"),
        (vec![begin(0, 9), Item::State(b"12345678")],                     "a piece of its state has the wrong length"),
        (vec![begin(0, 0), Item::State(b"1")],                            "a piece of its state has the wrong length"),
        (vec![begin(2, 0), object(b"k"), object(b"k")],                   "its keys do not ascend"),
        (vec![begin(2, 0), object(b"k"), object(b"j")],                   "its keys do not ascend"),
        (vec![begin(1, 0), object(&key)],                                 "a key or head is too long"),
        (vec![begin(1, 0), Item::Object { key: b"k", head: b"", body: &huge }], "a short body is long"),
        (vec![begin(1, 0), long(u64::MAX)],                               "a body is too long"),
        (vec![begin(1, 0), long(0)],                                      "a body is too long"),
        (vec![begin(1, 0), long(9), object(b"l")],                        "a body ends early"),
        (vec![begin(1, 0), long(9), Item::Piece(b"12345678")],            "a piece of a body has the wrong length"),
        (vec![begin(1, 0), long(CHUNK_BYTES as u64), Item::Piece(&piece)], "a body fails its checksum"),
        (vec![begin(1, 0), Item::Piece(b"1")],                            "a piece belongs to no body"),
        (vec![begin(1, 0), Item::End],                                    "it has another number of objects"),
        (vec![begin(0, 0), Item::End, object(b"k")],                      "something follows its end"),
        (vec![begin(1, 0), object(b"k")],                                 "its end is not where it is said to be"),
    ];
    let refused = engine.stage(GROUP, b"", Some(b"next")).unwrap_err().to_string();
    assert!(refused.contains("none was begun"), "{refused}");
    let before = engine.begin_stage(GROUP, b"snapshot").unwrap();
    for (items, says) in table {
        let mut lot = Vec::new();
        items.iter().for_each(|item| item.encode(&mut lot));
        let refused = engine.stage(GROUP, &lot, None).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused:?} does not say {says:?}");
        assert_eq!(engine.staged(), [(GROUP, before.clone())]);
    }
    for noise in [&b"\x07"[..], b"\x03\xff\xff\xff\xff\x0f", b"\x01"] {
        assert!(matches!(engine.stage(GROUP, noise, None), Err(EngineError::Unstageable { .. })));
    }
    let long = vec![0; LOT_BYTES_MAX + 1];
    assert!(matches!(engine.stage(GROUP, &long, None), Err(EngineError::TooLarge { .. })));
    assert!(matches!(engine.check_stage(GROUP, 0, 0), Err(EngineError::Unstageable { .. })));
    assert_eq!(entries(&engine, b'o') + entries(&engine, b'c'), 0);
}

#[test]
fn a_flipped_bit_on_the_way_or_on_the_disk_is_refused() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [from, to] = [open(dirs[0].path()), open(dirs[1].path())];
    let mut rng = Rng::new(11);
    let sent = objects(&mut rng, 20);
    commit(&from, GROUP, &stated(9, &sent, 100), &sent);
    let cut = from.make_cut(GROUP, Reader::Followers).unwrap();
    for round in 0..150 {
        to.drop_stage(GROUP).unwrap();
        let mut progress = to.begin_stage(GROUP, b"snapshot").unwrap();
        let flip = rng.below(cut.bytes);
        let mut refused = false;
        while let Some(cursor) = progress.cursor.filter(|_| !refused) {
            let mut lot = from.read_cut(GROUP, 9, &cursor, 10_000, Reader::Followers).unwrap();
            let at = flip.wrapping_sub(progress.bytes);
            if let Some(byte) = lot.bytes.get_mut(at as usize) {
                *byte ^= 1 << rng.below(8);
            }
            let staged = to.stage(GROUP, &lot.bytes, lot.next.as_deref());
            refused = staged.is_err();
            progress = staged.unwrap_or_else(|_| Progress { name: vec![], cursor: None, bytes: 0 });
        }
        let passed = !refused && to.check_stage(GROUP, cut.bytes, cut.checksum).is_ok();
        assert!(!passed, "round {round}: byte {flip} was flipped and nobody saw it");
    }
    to.drop_stage(GROUP).unwrap();
    pull(&from, &to, &cut, 10_000);
    let generation = to.reading(|store| Ok(store.books().staged[&GROUP].generation)).unwrap();
    let mut key = Vec::new();
    entry::object_key(&mut key, GROUP, generation, b"key 0003");
    tamper(&to, &key, None);
    let error = to.check_stage(GROUP, cut.bytes, cut.checksum).unwrap_err().to_string();
    assert!(error.contains("are not those that were staged"), "{error}");
    commit(&to, OTHER, &mark(1, 0, 0), &Objects::new());
    assert!(matches!(to.install(GROUP, Index(9), b""), Err(EngineError::Unstageable { .. })));
}
