//! What the engine promises, over real files.

use std::collections::BTreeMap;

use kernel::{GroupId, Index, Rng, Term};
use tempfile::TempDir;

use super::*;

const GROUP: GroupId = GroupId(0x0003_0001);

/// What a test believes to be stored: key to (head, body).
type Objects = BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)>;

fn options() -> EngineOptions {
    EngineOptions { cache_bytes: 1 << 20, memtable_bytes: 1 << 20, ..EngineOptions::default() }
}

fn open(dir: &TempDir) -> Engine {
    Engine::open(dir.path(), options()).unwrap()
}

fn mark(index: u64, generation: u32, objects: u64) -> Mark {
    Mark {
        index: Index(index),
        term: Term(7),
        generation,
        objects,
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
fn contents(engine: &Engine, group: GroupId, generation: u32) -> Result<Objects, EngineError> {
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

fn bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.next_u64() as u8).collect()
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
