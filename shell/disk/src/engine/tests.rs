//! What the engine promises, over real files.

use std::collections::BTreeMap;

use kernel::{GroupId, Index, Rng, Term};
use tempfile::TempDir;

use super::*;

const GROUP: GroupId = GroupId(0x0003_0001);

/// What a test believes to be stored: key to (head, body).
pub type Objects = BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)>;

pub fn options() -> EngineOptions {
    EngineOptions {
        cache_bytes: 1 << 20,
        memtable_bytes: 1 << 20,
        inline_bytes_max: 512,
        ..EngineOptions::default()
    }
}

fn open(dir: &TempDir) -> Engine {
    Engine::open(dir.path(), options()).unwrap()
}

pub fn mark(index: u64, generation: u32, objects: u64) -> Mark {
    Mark {
        index: Index(index),
        term: Term(7),
        generation,
        objects,
        standing: Vec::new(),
        state: format!("state {index}").into_bytes(),
    }
}

fn put<'a>(key: &'a str, head: &'a str, body: &'a [u8]) -> Change<'a> {
    Change::Put { key: key.as_bytes(), head: head.as_bytes(), body }
}

fn delete(key: &str) -> Change<'_> {
    Change::Delete { key: key.as_bytes() }
}

/// Everything the engine holds of a group, long bodies read back.
pub fn contents(engine: &Engine, group: GroupId, generation: u32) -> Result<Objects, EngineError> {
    let mut objects = Objects::new();
    let mut long = Vec::new();
    let count = engine.load(group, &mut |loaded| {
        let body = match loaded.body {
            LoadedBody::Inline(body) => body.to_vec(),
            LoadedBody::OnDisk { bytes } => {
                long.push((loaded.key.to_vec(), bytes));
                Vec::new()
            }
        };
        objects.insert(loaded.key.to_vec(), (loaded.head.to_vec(), body));
    })?;
    assert_eq!(count, objects.len() as u64);
    for (key, bytes) in long {
        let stored = engine.get(group, generation, &key)?;
        let stored =
            stored.ok_or_else(|| EngineError::corrupt(Place::Group(group), "a loaded object is gone"))?;
        assert_eq!(stored.body.len() as u64, bytes);
        objects.insert(key, (stored.head, stored.body));
    }
    Ok(objects)
}

pub fn bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

#[test]
fn a_rest_changes_nothing_but_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = open(&dir);
    let mut rng = Rng::new(3);
    let bodies: Vec<Vec<u8>> = (0..4_000).map(|n| bytes(&mut rng, 200 + n % 7 * 1_000)).collect();
    let names: Vec<String> = (0..bodies.len()).map(|n| format!("k{n}")).collect();
    for (turn, index) in [(0, 1), (1, 2)] {
        let changes = names.iter().zip(&bodies).map(|(key, body)| put(key, "h", &body[turn..]));
        engine.commit(GROUP, &mark(index, 1, bodies.len() as u64), changes).unwrap();
        let before = contents(&engine, GROUP, 1).unwrap();
        engine.rest().unwrap();
        assert_eq!(contents(&engine, GROUP, 1).unwrap(), before);
        engine.close().unwrap();
        engine = open(&dir);
        engine.rest().unwrap();
        assert_eq!(contents(&engine, GROUP, 1).unwrap(), before);
        assert_eq!(engine.groups().unwrap()[0].1.index, Index(index));
    }
}

#[test]
fn a_commit_is_there_after_a_reopen_and_the_group_keeps_its_mark() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    engine.commit(GROUP, &mark(5, 1, 2), [put("a", "ha", b"body"), put("b", "hb", b"")].into_iter()).unwrap();
    engine.commit(GroupId(9), &mark(1, 1, 0), std::iter::empty()).unwrap();
    engine.close().unwrap();

    let engine = open(&dir);
    assert_eq!(engine.groups().unwrap(), vec![(GroupId(9), mark(1, 1, 0)), (GROUP, mark(5, 1, 2))]);
    let objects = contents(&engine, GROUP, 1).unwrap();
    assert_eq!(objects[&b"a"[..]], (b"ha".to_vec(), b"body".to_vec()));
    assert_eq!(objects.len(), 2);
    assert_eq!(engine.get(GROUP, 1, b"c").unwrap(), None);
    assert!(matches!(engine.load(GroupId(8), &mut |_| ()), Err(EngineError::NoSuchGroup(GroupId(8)))));
}

#[test]
fn a_directory_has_one_engine() {
    let dir = tempfile::tempdir().unwrap();
    let _engine = open(&dir);
    assert!(matches!(Engine::open(dir.path(), options()), Err(EngineError::Locked(_))));
}

/// The space in which entries of one kind are.
fn space(engine: &Engine, kind: u8) -> fjall::Keyspace {
    let slot = engine.store.read().unwrap();
    let store = slot.as_ref().unwrap();
    if kind == b'c' { store.chunks.clone() } else { store.objects.clone() }
}

/// How many raw entries of one kind there are, seals left out.
pub fn entries(engine: &Engine, kind: u8) -> usize {
    let keys = space(engine, kind).prefix([kind]).map(|guard| guard.key().unwrap());
    keys.filter(|key| kind != b'c' || !key.ends_with(&[0xFF; 4])).count()
}

/// Writes an entry past the engine, as damage would.
pub fn tamper(engine: &Engine, key: &[u8], value: Option<&[u8]>) {
    match value {
        Some(value) => space(engine, key[0]).insert(key, value).unwrap(),
        None => space(engine, key[0]).remove(key).unwrap(),
    }
}

fn raw(engine: &Engine, key: &[u8]) -> Vec<u8> {
    space(engine, key[0]).get(key).unwrap().unwrap().to_vec()
}

/// Puts everything that is in memory into tables.
pub fn flush(engine: &Engine) {
    space(engine, b'o').rotate_memtable_and_wait().unwrap();
    space(engine, b'c').rotate_memtable_and_wait().unwrap();
}

#[test]
fn whatever_was_committed_is_read_back_exactly_whatever_the_order() {
    let sizes = [0, 1, 511, 512, 513, 2000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES];
    for seed in 0..8 {
        let mut rng = Rng::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let mut engine = open(&dir);
        let (mut objects, mut generation) = (Objects::new(), 0);
        for index in 1..40 {
            if rng.chance(0.1) {
                generation += 1 + rng.below(2) as u32;
                objects.clear();
            }
            let mut touched = BTreeMap::new();
            for _ in 0..rng.below(12) {
                let key = format!("key {}", rng.below(20)).into_bytes();
                let size = sizes[rng.below(sizes.len() as u64) as usize];
                let object = (bytes(&mut rng, 5), bytes(&mut rng, size));
                touched.insert(key, rng.chance(0.7).then_some(object));
            }
            for (key, object) in &touched {
                match object {
                    Some(object) => objects.insert(key.clone(), object.clone()),
                    None => objects.remove(key),
                };
            }
            let changes = touched.iter().map(|(key, object)| match object {
                Some((head, body)) => Change::Put { key, head, body },
                None => Change::Delete { key },
            });
            engine.commit(GROUP, &mark(index, generation, objects.len() as u64), changes).unwrap();
            match rng.below(8) {
                0 => {
                    engine.close().unwrap();
                    engine = open(&dir);
                }
                1 => flush(&engine),
                2 => while engine.sweep(7).unwrap() == Swept::More {},
                _ => {}
            }
            assert_eq!(contents(&engine, GROUP, generation).unwrap(), objects, "seed {seed} index {index}");
            assert_eq!(engine.groups().unwrap(), [(GROUP, mark(index, generation, objects.len() as u64))]);
        }
        while engine.sweep(100).unwrap() == Swept::More {}
        let long = |body: &Vec<u8>| if body.len() > 512 { body.len().div_ceil(CHUNK_BYTES) } else { 0 };
        assert_eq!(entries(&engine, b'o'), objects.len(), "seed {seed}");
        assert_eq!(entries(&engine, b'c'), objects.values().map(|(_, body)| long(body)).sum(), "seed {seed}");
    }
}

#[test]
fn a_long_body_leaves_no_chunk_behind_when_it_shrinks_or_goes() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let mut rng = Rng::new(1);
    let long = bytes(&mut rng, 5_000_000);
    #[rustfmt::skip] // columns
    let table = [
        // body                  chunks
        (Some(&long[..]),        77),
        (Some(&long[1..]),       77),
        (Some(&long[..100_000]), 2),
        (Some(&long[..512]),     0),
        (Some(&long[..]),        77),
        (None,                   0),
    ];
    for (index, (body, chunks)) in (1..).zip(table) {
        let change = body.map_or(delete("k"), |body| put("k", "", body));
        engine.commit(GROUP, &mark(index, 0, u64::from(body.is_some())), std::iter::once(change)).unwrap();
        let stored = engine.get(GROUP, 0, b"k").unwrap().map(|stored| stored.body);
        assert_eq!(stored.as_deref(), body, "index {index}");
        assert_eq!(entries(&engine, b'c'), chunks, "index {index}");
    }
}

#[test]
fn a_new_generation_hides_all_older_objects_at_once_and_a_sweep_removes_them() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let body = vec![1; 100_000];
    engine.commit(GROUP, &mark(1, 0, 2), [put("a", "", b"old"), put("b", "", &body)].into_iter()).unwrap();
    engine.commit(GroupId(1), &mark(1, 0, 1), [put("a", "", &body)].into_iter()).unwrap();
    engine.commit(GROUP, &mark(2, 1, 1), [put("a", "", b"new")].into_iter()).unwrap();
    assert_eq!(contents(&engine, GROUP, 1).unwrap().len(), 1);
    assert_eq!(engine.get(GROUP, 1, b"b").unwrap(), None);

    engine.reopen().unwrap();
    assert_eq!((entries(&engine, b'o'), entries(&engine, b'c')), (4, 4));
    assert_eq!(engine.sweep(2).unwrap(), Swept::More);
    assert_eq!(engine.sweep(100).unwrap(), Swept::Done);
    assert_eq!((entries(&engine, b'o'), entries(&engine, b'c')), (2, 2));
    assert_eq!(contents(&engine, GROUP, 1).unwrap()[&b"a"[..]].1, b"new");
    assert_eq!(contents(&engine, GroupId(1), 0).unwrap()[&b"a"[..]].1, body);
}

#[test]
fn a_refused_commit_changes_nothing_and_the_next_one_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    engine.commit(GROUP, &mark(5, 2, 1), [put("a", "", b"1")].into_iter()).unwrap();
    let (long_key, long_head) = ("k".repeat(KEY_BYTES_MAX + 1), "h".repeat(HEAD_BYTES_MAX + 1));
    #[rustfmt::skip] // columns
    let table = [
        // mark           changes                                     says
        (mark(4, 2, 1),   vec![],                                     "not before 4"),
        (mark(6, 1, 0),   vec![],                                     "not before 6 of generation 1"),
        (mark(6, 2, 2),   vec![put("a", "", b"2")],                   "counts 2 objects, the changes make 1"),
        (mark(6, 2, 1),   vec![put("b", "", b"2")],                   "counts 1 objects, the changes make 2"),
        (mark(6, 2, 1),   vec![delete("a")],                          "counts 1 objects, the changes make 0"),
        (mark(6, 2, 1),   vec![put("a", "", b"2"), delete("a")],      "two changes of one commit name"),
        (mark(6, 3, 1),   vec![],                                     "counts 1 objects, the changes make 0"),
        (mark(6, 2, 2),   vec![put(&long_key, "", b"2")],             "a key of 61441 bytes"),
        (mark(6, 2, 1),   vec![put("a", &long_head, b"2")],           "a head of 4097 bytes"),
    ];
    for (mark, changes, says) in table {
        let error = engine.commit(GROUP, &mark, changes.into_iter()).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }
    let longest = "k".repeat(KEY_BYTES_MAX);
    engine.commit(GROUP, &mark(6, 2, 2), [put(&longest, "", &[1; 2000])].into_iter()).unwrap();
    assert_eq!(engine.get(GROUP, 2, longest.as_bytes()).unwrap().map(|stored| stored.body.len()), Some(2000));
    assert_eq!(contents(&engine, GROUP, 2).unwrap()[&b"a"[..]].1, b"1");
}

#[test]
fn damage_past_the_storage_engines_own_checksums_is_named_and_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let body = vec![7; 100_000];
    engine.commit(GROUP, &mark(1, 0, 2), [put("a", "", b"1"), put("b", "", b"2")].into_iter()).unwrap();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    entry::object_key(&mut a, GROUP, 0, b"a");
    entry::object_key(&mut b, GROUP, 0, b"b");
    let older = raw(&engine, &a);
    let changes = [put("a", "", b"3"), put("c", "", &body)];
    engine.commit(GROUP, &mark(2, 0, 3), changes.into_iter()).unwrap();
    let chunk = entry::chunk_key(GROUP, 0, 0, 1);
    let flipped = |key: &[u8], at: usize| {
        let mut value = raw(&engine, key);
        value[at] ^= 4;
        value
    };
    let (flipped_a, flipped_chunk) = (flipped(&a, 6), flipped(&chunk, 1000));
    let flipped_mark = flipped(&entry::mark_key(GROUP), 9);
    #[rustfmt::skip] // columns
    let table = [
        // entry                      becomes               says
        (a.clone(),                   None,                 "group 196609: 2 objects where the mark at index 2 has 3"),
        (a.clone(),                   Some(older),          "group 196609: the objects are not those of the mark at index 2"),
        (a.clone(),                   Some(raw(&engine, &b)), "group 196609 key \"a\": it fails its checksum"),
        (a.clone(),                   Some(flipped_a),      "group 196609 key \"a\": it fails its checksum"),
        (a.clone(),                   Some(vec![]),         "group 196609 key \"a\": it fails its checksum"),
        (chunk.to_vec(),              None,                 "group 196609 key \"c\": chunk 1 of the body is missing"),
        (chunk.to_vec(),              Some(flipped_chunk),  "group 196609 key \"c\": chunk 1 of the body fails its checksum"),
        (entry::seal_key(GROUP, 0, 1).to_vec(), None,             "group 196609: the bodies are not those of the mark at index 2"),
        (entry::mark_key(GROUP).to_vec(), Some(flipped_mark), "the mark of group 196609: it fails its checksum"),
    ];
    for (key, value, says) in table {
        let good = raw(&engine, &key);
        tamper(&engine, &key, value.as_deref());
        let error = contents(&engine, GROUP, 0).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
        tamper(&engine, &key, Some(&good));
        assert_eq!(contents(&engine, GROUP, 0).unwrap().len(), 3);
    }
}

/// Set in the process that [`a_commit_the_disk_cuts_short_is_not_there_after_a_reopen_and_the_next_one_is_taken`] starts.
const LIMITED: &str = "ENGINE_TEST_LIMITED_DIR";

/// A limit on file sizes stands for a full disk. It is one of the process, and a shell must first see to it that
/// the signal is ignored; so the test runs itself again.
#[test]
fn a_commit_the_disk_cuts_short_is_not_there_after_a_reopen_and_the_next_one_is_taken() {
    if let Some(dir) = std::env::var_os(LIMITED) {
        return limited(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let name =
        "engine::tests::a_commit_the_disk_cuts_short_is_not_there_after_a_reopen_and_the_next_one_is_taken";
    let child = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$1\" --exact --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(LIMITED, dir.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
}

fn limited(dir: &Path) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limits = getrlimit(Resource::Fsize);
    let set = |bytes| setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum: limits.maximum }).unwrap();
    let engine = Engine::open(dir, options()).unwrap();
    engine.commit(GROUP, &mark(1, 0, 1), [put("a", "", b"1")].into_iter()).unwrap();
    let long = vec![1; 3_000_000];

    set(Some(1 << 20));
    let changes = [put("a", "", b"2"), put("b", "", &long)];
    let error = engine.commit(GROUP, &mark(2, 0, 2), changes.into_iter()).unwrap_err();
    assert!(matches!(error, EngineError::Io { .. }), "{error}");
    let error = engine.commit(GROUP, &mark(2, 0, 1), [put("a", "", b"2")].into_iter()).unwrap_err();
    assert!(matches!(error, EngineError::Poisoned), "{error}");
    assert_eq!(engine.get(GROUP, 0, b"a").unwrap().map(|stored| stored.body), Some(b"1".to_vec()));

    set(limits.current);
    engine.reopen().unwrap();
    assert_eq!(engine.groups().unwrap(), [(GROUP, mark(1, 0, 1))]);
    engine.commit(GROUP, &mark(2, 0, 2), changes.into_iter()).unwrap();
    engine.reopen().unwrap();
    let objects = contents(&engine, GROUP, 0).unwrap();
    assert_eq!((objects[&b"a"[..]].1.as_slice(), objects[&b"b"[..]].1 == long), (&b"2"[..], true));
}

#[test]
fn seals_stay_few_and_a_newer_chunk_space_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let body = [1; 600];
    for index in 1..=600 {
        engine.commit(GROUP, &mark(index, 0, 1), [put("a", "", &body)].into_iter()).unwrap();
    }
    engine.reopen().unwrap();
    assert_eq!(contents(&engine, GROUP, 0).unwrap().len(), 1);
    assert_eq!(entries(&engine, b'c'), 1);
    let seals = space(&engine, b'c').prefix(b"c").count() - 1;
    assert!((1..=256).contains(&seals), "{seals} seals");

    // What a commit that the objects' space has lost would have left: bodies and seals share 600 + 600 numbers.
    tamper(&engine, &entry::chunk_key(GROUP, 0, 1200, 0), Some(b"newer"));
    let error = contents(&engine, GROUP, 0).unwrap_err().to_string();
    assert!(error.contains("the bodies are not those of the mark at index 600"), "{error}");
}
