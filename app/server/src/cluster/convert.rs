//! A node of its own becomes the first member of a new cluster, with its data.
//!
//! Each group of one becomes a replicated group with one member: its checkpoint, brought up to the end of the log, says so
//! from now on. Until the control group's checkpoint is there, which is written last, the directory is still that of a node
//! of its own: such a node does not look at what a checkpoint says of a replica. So a crash on the way costs nothing, and
//! the next start begins anew. The log stays: of its entries the checkpoints have all, and replay finds nothing to do.

use std::path::Path;
use std::sync::Arc;

use control::State;
use disk::engine::{Engine, EngineError};
use disk::log::{Log, LogError};
use kernel::{GroupId, KeyspaceId, NodeId};
use node::recover::{Stores, naming};
use node::{DivisionError, Divisions, RecoverError, Recovery, division};
use script::LuaEngine;
use storage::store::Naming;
use thiserror::Error;

use super::settle::settle;
use crate::divisions::recorded;
use crate::load::{LoadError, load};
use crate::node::{NodeError, NodeOptions};

/// Why a node of its own does not become a member.
#[derive(Debug, Error)]
pub enum ConvertError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Its data is damaged.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The data is damaged.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// A keyspace has another number of partitions than its data.
    #[error(transparent)]
    Division(#[from] DivisionError),
    /// A file of the directory.
    #[error(transparent)]
    Node(Box<NodeError>),
    /// SWAPDB was used.
    #[error(
        "keyspace {0} was exchanged with another by SWAPDB, which a cluster does not offer: start without --cluster, exchange them back, and try again"
    )]
    Exchanged(KeyspaceId),
    /// There is data of a keyspace that the cluster would not have.
    #[error(
        "there is data in partition {} of keyspace {}, which is not configured: configure it, or start without --cluster and remove its data",
        .0.partition(), .0.keyspace()
    )]
    Homeless(GroupId),
}

/// All data of the directory, as its engine and its log have it.
pub(super) fn gather(options: &NodeOptions, seed: u64, engine: &Arc<Engine>) -> Result<Stores, ConvertError> {
    let dir: &Path = &options.data_dir;
    let known: Divisions = recorded(dir).map_err(|error| ConvertError::Node(Box::new(error)))?;
    let mut scripting = LuaEngine::new();
    let budget = |group: GroupId| options.share_of(group);
    let mut recovery = Recovery::new(seed, &mut scripting, load(engine, seed, &budget)?, &known);
    let found = Log::read(&dir.join("log"), &mut |_, record| recovery.record(record))?;
    let floors = found.map(|found| found.floors).unwrap_or_default();
    let (stores, _) = recovery.finish(&floors)?;
    let naming: Naming = naming(&stores);
    if let Some(exchanged) = naming.moved().next() {
        return Err(ConvertError::Exchanged(exchanged));
    }
    let durable = engine.groups()?.into_iter().map(|(group, mark)| (group, mark.index)).collect();
    division::divide(&known, &options.divisions(), &naming, &stores, &durable)?;
    Ok(stores)
}

/// Makes `stores` the replicas of `node` that `state` names. What the state does not name is empty, or nothing is done.
pub(super) fn convert(
    engine: &Engine,
    mut stores: Stores,
    state: &State,
    node: NodeId,
) -> Result<(), ConvertError> {
    let replica = |group: GroupId| state.partition(group).and_then(|partition| partition.replica(node));
    let homeless = stores.iter().find(|(group, (store, _))| replica(**group).is_none() && !store.is_empty());
    if let Some((&group, _)) = homeless {
        return Err(ConvertError::Homeless(group));
    }
    for (&group, (store, term)) in &mut stores {
        match replica(group) {
            // A group without an entry begins as any other.
            Some(_) if store.applied() == kernel::Index(0) => engine.drop_group(group)?,
            Some(replica) => settle(engine, group, (store, *term), replica.id)?,
            None => engine.drop_group(group)?,
        }
    }
    if !stores.is_empty() {
        tracing::info!(groups = stores.len(), "the data of a node of its own is a cluster's now");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use control::CONTROL;
    use kernel::{Index, Micros, Millis, Term};
    use node::cluster::formation::{Formation, keyspaces};
    use storage::Store;
    use storage::object::Value;
    use storage::store::Ttl;

    use super::*;
    use crate::config::{Loaded, Sources};
    use crate::held;

    const NODE: NodeId = NodeId([3; 32]);
    const SEED: u64 = 77;

    fn options(dir: &Path) -> NodeOptions {
        let flag = ("--set".to_owned(), "data_dir".to_owned(), dir.display().to_string());
        let sources = Sources { file: None, variables: Vec::new(), flags: vec![flag] };
        crate::serve::options(&Loaded::load(&sources).unwrap().config).unwrap()
    }

    fn state(cluster: u8) -> State {
        let formation = Formation {
            cluster: kernel::ClusterId([cluster; 16]),
            node: NODE,
            zone: control::Name::new("a").unwrap(),
            addresses: vec!["127.0.0.1:1".parse().unwrap()],
            keyspaces: keyspaces(BTreeMap::new()),
            at: Millis(5),
            seed: 3,
        };
        formation.found().unwrap().1
    }

    /// The engine of a node of its own with a key in each of these keyspaces.
    fn alone(dir: &Path, spaces: &[u16]) -> Arc<Engine> {
        let home = crate::node::made(dir.join("engine")).unwrap();
        let engine = Arc::new(Engine::open(&home, Default::default()).unwrap());
        for &space in spaces {
            let mut store = Store::new(SEED);
            store.begin_entry(Index(1), Micros(9));
            store.set(b"key", Value::from_bytes(&space.to_le_bytes()), Ttl::Clear).unwrap();
            store.end_entry();
            let group = GroupId::new(KeyspaceId(space), 0);
            super::super::settle::commit(&engine, group, (&mut store, Term(1)), Vec::new()).unwrap();
        }
        engine
    }

    #[test]
    fn a_conversion_that_is_killed_leaves_a_node_of_its_own_and_can_be_made_again() {
        let home = tempfile::tempdir().unwrap();
        let options = options(home.path());
        let engine = alone(home.path(), &[0, 5]);
        let digests = |stores: &Stores| -> Vec<u64> {
            stores.values().map(|(store, _)| store.digest().unwrap()).collect()
        };
        let before = gather(&options, SEED, &engine).unwrap();
        let expected = digests(&before);
        // Killed before the control group's checkpoint: all replicas are there, and no cluster.
        convert(&engine, before, &state(1), NODE).unwrap();
        assert!(engine.groups().unwrap().iter().all(|(group, _)| *group != CONTROL));
        let again = gather(&options, SEED, &engine).unwrap();
        assert_eq!(digests(&again), expected, "it is served as before");
        let other = state(2);
        convert(&engine, again, &other, NODE).unwrap();
        let marks = engine.groups().unwrap();
        assert_eq!(marks.len(), 2);
        for (group, mark) in marks {
            let holding = held::holding(&mark).unwrap().unwrap();
            assert_eq!(holding.replica, other.partition(group).unwrap().replica(NODE).unwrap().id);
            assert_eq!((mark.index, mark.objects), (Index(1), 1));
        }
    }

    #[test]
    fn data_that_the_cluster_would_not_have_is_refused_before_anything_is_changed() {
        let home = tempfile::tempdir().unwrap();
        let options = options(home.path());
        let engine = alone(home.path(), &[0, 200]);
        let marks = engine.groups().unwrap();
        let stores = gather(&options, SEED, &engine).unwrap();
        let refused = convert(&engine, stores, &state(1), NODE).unwrap_err();
        assert!(matches!(refused, ConvertError::Homeless(group) if group.keyspace() == KeyspaceId(200)));
        assert_eq!(engine.groups().unwrap(), marks);
    }
}
