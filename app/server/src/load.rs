//! The engine's part of a recovery.

use std::sync::Arc;

use disk::engine::{Engine, EngineError, LoadedBody};
use kernel::GroupId;
use kernel::codec::DecodeError;
use node::recover::Stores;
use storage::Store;
use storage::apply::Fetch;
use storage::store::checkpoint::{Body, Frame};
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

/// All partitions as their last checkpoints say, ready for the log behind them.
///
/// # Errors
/// [`LoadError`]: nothing of it may be served.
pub fn load(engine: &Arc<Engine>, seed: u64) -> Result<Stores, LoadError> {
    let mut stores = Stores::new();
    for (group, mark) in engine.groups()? {
        let unreadable = |what| LoadError::Unreadable { group, what };
        let frame = Frame {
            index: mark.index,
            generation: mark.generation,
            objects: mark.objects,
            state: mark.state,
        };
        let mut store = Store::restore(seed, &frame).map_err(unreadable)?;
        let mut failed = None;
        engine.load(group, &mut |object| {
            let body = match object.body {
                LoadedBody::Inline(bytes) => Body::Whole(bytes),
                LoadedBody::OnDisk { bytes } => Body::Left { bytes },
            };
            if let Err(what) = store.restore_object(object.key, object.head, body) {
                failed.get_or_insert(what);
            }
        })?;
        if let Some(what) = failed {
            return Err(unreadable(what));
        }
        store.set_fetch(Box::new(EngineFetch { engine: Arc::clone(engine), group, meters: None }));
        stores.insert(group, (store, mark.term));
    }
    Ok(stores)
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
            meters.misses.increment();
        }
        match self.engine.get(self.group, generation, key) {
            Ok(Some(stored)) => Ok(stored.body),
            Ok(None) => Err("the engine does not have it".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}
