//! Snapshots of replicated groups: the engine's side of what `node::cluster::transfer` decides, on the engine's thread.
//!
//! What is wrong with a snapshot is an answer; only what is wrong with the engine is an error.

use std::sync::Arc;

use consensus::codec::Descriptor;
use disk::engine::{Engine, EngineError, Progress, Reader as Of};
use kernel::codec::Reader;
use kernel::{GroupId, Index};
use node::cluster::Holding;
use node::cluster::transfer::{LOT_BYTES, Report, Staged, Task};
use storage::Store;
use storage::reach::Scope;

use crate::load::{LoadError, load_group};

/// A staged snapshot that becomes a group's state.
pub(crate) struct Install {
    /// Which of the worker's partitions.
    pub partition: usize,
    /// Its group.
    pub group: GroupId,
    /// The snapshot's index.
    pub index: Index,
    /// What the mark says of the replica from now on.
    pub standing: Vec<u8>,
    /// Decides the order of its keys.
    pub seed: u64,
    /// Bytes of memory that its entries may take.
    pub budget: Option<usize>,
    /// Which partition of its keyspace it is.
    pub scope: Scope,
}

/// Holds a group's last checkpoint; none if there is nothing that followers could use.
pub(crate) fn hold(engine: &Engine, group: GroupId) -> Result<Option<Descriptor>, EngineError> {
    let cut = match engine.make_cut(group, Of::Followers) {
        Ok(cut) => cut,
        Err(error) => return answerable(group, error).map(|()| None),
    };
    let holding = Holding::decode(&mut Reader::new(&cut.mark.standing)).ok();
    // A replica that has got nothing yet has a checkpoint of nothing.
    let mark = holding.and_then(|holding| holding.mark);
    Ok(mark.map(|mark| Descriptor {
        generation: cut.generation,
        size: cut.bytes,
        checksum: cut.checksum,
        mark,
    }))
}

/// Does one step of a transfer.
pub(crate) fn transfer(engine: &Engine, task: &Task) -> Result<Option<Report>, EngineError> {
    let staged = |ticket: u64, group: GroupId, done: Result<Progress, EngineError>| {
        let staged = match done {
            Ok(Progress { cursor, bytes, .. }) => Some(Staged { cursor, bytes }),
            Err(error) => answerable(group, error).map(|()| None)?,
        };
        Ok(Some(Report::Staged { ticket, staged }))
    };
    match task {
        Task::Begin { group, name, ticket } => staged(*ticket, *group, engine.begin_stage(*group, name)),
        Task::Stage { group, content, next, ticket } => {
            staged(*ticket, *group, engine.stage(*group, content, next.as_deref()))
        }
        &Task::Check { group, bytes, checksum, ticket } => {
            let sound = match engine.check_stage(group, bytes, checksum) {
                Ok(()) => true,
                Err(error) => answerable(group, error).map(|()| false)?,
            };
            Ok(Some(Report::Checked { ticket, sound }))
        }
        Task::Drop { group } => engine.drop_stage(*group).map(|()| None),
        Task::Read { group, generation, cursor, ticket } => {
            let lot = match engine.read_cut(*group, *generation, cursor, LOT_BYTES, Of::Followers) {
                Ok(lot) => Some((lot.bytes, lot.next)),
                Err(error) => answerable(*group, error).map(|()| None)?,
            };
            Ok(Some(Report::Read { ticket: *ticket, lot }))
        }
        Task::Release { group, generation } => {
            engine.release_cut(*group, *generation, Of::Followers);
            Ok(None)
        }
    }
}

/// Makes the staged snapshot the group's state, unless an earlier attempt has, and loads it.
pub(crate) fn install(engine: &Arc<Engine>, install: &Install) -> Result<Store, EngineError> {
    let Install { group, index, ref standing, seed, budget, scope, .. } = *install;
    let there = engine
        .groups()?
        .into_iter()
        .find(|(other, mark)| *other == group && mark.index == index && mark.standing == *standing);
    let mark = match there {
        Some((_, mark)) => mark,
        None => engine.install(group, index, standing)?,
    };
    let loaded = load_group(engine, (group, &mark), seed, budget);
    loaded.map(|store| store.within(scope)).map_err(|error| match error {
        LoadError::Engine(error) => error,
        LoadError::Unreadable { group, what } => {
            let source = std::io::Error::other(what.to_string());
            EngineError::Io { place: disk::engine::Place::Mark(group), source }
        }
    })
}

/// What a follower or a leader is simply told, or the engine's own trouble.
fn answerable(group: GroupId, error: EngineError) -> Result<(), EngineError> {
    match error {
        error @ (EngineError::Io { .. } | EngineError::Poisoned | EngineError::DiskFull(_)) => Err(error),
        error => {
            tracing::warn!(%group, %error, "a snapshot cannot be made or taken so");
            Ok(())
        }
    }
}
