//! The engine's part of a recovery.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use disk::engine::{Engine, EngineError, Loaded, LoadedBody, Mark};
use kernel::GroupId;
use kernel::codec::DecodeError;
use node::recover::Stores;
use storage::Store;
use storage::apply::Fetch;
use storage::store::checkpoint::{Body, EVICT_BYTES_MIN, Frame};
use telemetry::StorageMeters;
use thiserror::Error;

/// Why the engine's data is not served.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The engine itself refuses.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An object or a partition's state that this version cannot read.
    #[error("group {group}: the checkpoint holds an object that cannot be read: {what}")]
    Unreadable {
        /// The group.
        group: GroupId,
        /// What is wrong.
        what: DecodeError,
    },
}

/// All partitions as their last checkpoints say, ready for the log behind them. `budget` tells the bytes of
/// memory that a group's entries may take: bodies beyond it stay in the engine.
///
/// One thread reads and verifies while the other builds the tables.
///
/// # Errors
/// [`LoadError`]: nothing of it may be served.
pub fn load(
    engine: &Arc<Engine>,
    seed: u64,
    budget: &dyn Fn(GroupId) -> Option<usize>,
) -> Result<Stores, LoadError> {
    let mut stores = Stores::new();
    for (group, mark) in engine.groups()? {
        let store = load_group(engine, (group, &mark), seed, budget(group))?;
        stores.insert(group, (store, mark.term));
    }
    Ok(stores)
}

/// One partition as its last checkpoint says; `mark.state` is the store's own.
///
/// # Errors
/// [`LoadError`]: nothing of it may be served.
pub(crate) fn load_group(
    engine: &Arc<Engine>,
    (group, mark): (GroupId, &Mark),
    seed: u64,
    budget: Option<usize>,
) -> Result<Store, LoadError> {
    let unreadable = |what| LoadError::Unreadable { group, what };
    let (index, generation, objects) = (mark.index, mark.generation, mark.objects);
    let frame = Frame { index, generation, objects, state: mark.state.clone() };
    let mut store = Store::restore(seed, &frame).map_err(unreadable)?;
    let budget = budget.unwrap_or(usize::MAX);
    std::thread::scope(|scope| {
        let (batches, read) = sync_channel(BATCHES_MAX);
        let reader = scope.spawn(move || read_group(engine, group, &batches));
        for batch in read {
            batch.restore(&mut store, budget).map_err(unreadable)?;
        }
        let read = reader.join().expect("the engine contains its panics");
        read.map_err(LoadError::from)
    })?;
    store.set_fetch(Box::new(EngineFetch { engine: Arc::clone(engine), group, meters: None }));
    Ok(store)
}

/// Bytes of a batch on its way from the reading thread.
const BATCH_BYTES: usize = 256 * 1024;
/// Most batches on their way.
const BATCHES_MAX: usize = 8;

/// Objects as they were read, one after another.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    objects: Vec<Lengths>,
}

/// What an object takes of a batch's bytes.
struct Lengths {
    key: usize,
    head: usize,
    /// The body's bytes here, or its length in the engine.
    body: Result<usize, u64>,
}

/// Sends all objects of `group`. The set is known to be whole only when this returns `Ok`.
fn read_group(engine: &Engine, group: GroupId, batches: &SyncSender<Batch>) -> Result<(), EngineError> {
    let mut batch = Batch::default();
    engine.load(group, &mut |object| {
        batch.push(&object);
        if batch.bytes.len() >= BATCH_BYTES {
            // Nobody listens after an error, which is then what counts.
            let _ = batches.send(std::mem::take(&mut batch));
        }
    })?;
    let _ = batches.send(batch);
    Ok(())
}

impl Batch {
    fn push(&mut self, object: &Loaded<'_>) {
        let body = match object.body {
            LoadedBody::Inline(bytes) => Ok(bytes),
            LoadedBody::OnDisk { bytes } => Err(bytes),
        };
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(BATCH_BYTES + BATCH_BYTES / 8);
        }
        for part in [object.key, object.head, body.unwrap_or_default()] {
            self.bytes.extend_from_slice(part);
        }
        let body = body.map(<[u8]>::len);
        self.objects.push(Lengths { key: object.key.len(), head: object.head.len(), body });
    }

    fn restore(&self, store: &mut Store, budget: usize) -> Result<(), DecodeError> {
        let mut rest = self.bytes.as_slice();
        for lengths in &self.objects {
            let (key, after) = rest.split_at(lengths.key);
            let (head, after) = after.split_at(lengths.head);
            let (bytes, after) = after.split_at(lengths.body.unwrap_or_default());
            rest = after;
            let body = match lengths.body {
                Ok(length) if length < EVICT_BYTES_MIN || store.memory_bytes() <= budget => {
                    Body::Whole(bytes)
                }
                Ok(_) | Err(_) => Body::Left,
            };
            store.restore_object(key, head, body)?;
        }
        Ok(())
    }
}

/// Reads evicted bodies of one group back.
pub struct EngineFetch {
    /// The engine.
    pub engine: Arc<Engine>,
    /// The group.
    pub group: GroupId,
    /// Where it counts what was read back, if that is counted.
    pub meters: Option<Arc<StorageMeters>>,
}

impl Fetch for EngineFetch {
    fn fetch(&self, generation: u32, key: &[u8]) -> Result<Vec<u8>, String> {
        if let Some(meters) = &self.meters {
            meters.misses.add_among_others(1);
            meters.blocking_misses.add_among_others(1);
        }
        match self.engine.get(self.group, generation, key) {
            Ok(Some(stored)) => Ok(stored.body),
            Ok(None) => Err("the engine does not have it".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use disk::engine::{Change, EngineOptions};
    use kernel::{KeyspaceId, Micros};
    use storage::object::Value;
    use storage::store::Ttl;
    use storage::store::checkpoint::Image;

    use super::*;

    const KEYS: u64 = 5_000;
    const GROUP: GroupId = GroupId::new(KeyspaceId(0), 0);

    fn value(n: u64) -> Vec<u8> {
        n.to_le_bytes().repeat(50)
    }

    /// An engine with a checkpoint of `KEYS` strings of 400 bytes.
    fn filled(dir: &std::path::Path) -> Arc<Engine> {
        let mut store = Store::new(1);
        store.begin_entry(kernel::Index(1), Micros(1));
        for n in 0..KEYS {
            store.set(&n.to_be_bytes(), Value::from_bytes(&value(n)), Ttl::Clear).unwrap();
        }
        store.end_entry();
        store.begin_cut();
        let (frame, images) = store.write_cut(usize::MAX).unwrap();
        let engine = Engine::open(dir, EngineOptions::default()).unwrap();
        let Frame { index, generation, objects, state } = frame;
        let term = kernel::Term(1);
        let mark = Mark { index, term, generation, objects, standing: Vec::new(), state };
        let changes = images.iter().map(|image| match image {
            Image::Put { key, head, body } => Change::Put { key, head, body },
            Image::Delete { key } => Change::Delete { key },
        });
        engine.commit(GROUP, &mark, changes).unwrap();
        Arc::new(engine)
    }

    #[test]
    fn a_load_keeps_to_the_budget_and_every_key_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let engine = filled(dir.path());
        for budget in [None, Some(1_000_000), Some(0)] {
            let mut stores = load(&engine, 1, &|_| budget).unwrap();
            let (store, _) = stores.get_mut(&GROUP).unwrap();
            let whole = KEYS as usize * 400;
            match budget {
                None => assert!(store.memory_bytes() > whole),
                // A stub takes less than a hundred bytes, its key's entry included.
                Some(budget) => assert!(store.memory_bytes() < budget + KEYS as usize * 100 + 500),
            }
            store.begin_reads(Micros(2));
            for n in 0..KEYS {
                let mut scratch = Default::default();
                let read = store.string(&n.to_be_bytes(), &mut scratch).unwrap();
                assert_eq!(read, Some(value(n).as_slice()), "key {n}");
            }
        }
    }
}
