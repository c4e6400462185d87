//! Everything that a stopped directory's log says of a group, brought into its engine: then the log is needed no more.
//!
//! For whoever changes what a directory is, while nothing runs on it.

use consensus::{Members, ReplicaId};
use disk::engine::{Change, Engine, EngineError, Mark};
use kernel::{GroupId, Term};
use node::cluster::Holding;
use storage::Store;
use storage::store::checkpoint::Image;

use crate::held;

/// Makes `store`, whose last entry was made in `term`, the checkpoint of its group, which from now on has one member:
/// `replica`. It is durable when this returns.
///
/// # Errors
/// The engine's; then the group's checkpoint is as it was.
pub(crate) fn settle(
    engine: &Engine,
    group: GroupId,
    (store, term): (&mut Store, Term),
    replica: ReplicaId,
) -> Result<(), EngineError> {
    let members = Members::new([replica], []).expect("one voter");
    let mark = consensus::Mark { index: store.applied(), term, members };
    let standing = held::standing(&Holding { replica, mark: Some(mark) });
    commit(engine, group, (store, term), standing)
}

/// The same with what its mark says of the replica.
pub(crate) fn commit(
    engine: &Engine,
    group: GroupId,
    (store, term): (&mut Store, Term),
    standing: Vec<u8>,
) -> Result<(), EngineError> {
    store.begin_cut();
    let (frame, images) = loop {
        if let Some(cut) = store.write_cut(usize::MAX) {
            break cut;
        }
    };
    let (index, generation, objects) = (frame.index, frame.generation, frame.objects);
    let mark = Mark { index, term, generation, objects, standing, state: frame.state };
    let changes = images.iter().map(|image| match image {
        Image::Put { key, head, body } => Change::Put { key, head, body },
        Image::Delete { key } => Change::Delete { key },
    });
    engine.commit(group, &mark, changes)?;
    store.cut_is_durable();
    Ok(())
}
