//! A node of its own becomes the first member of a new cluster, with its data.
//!
//! Each group of one becomes a replicated group with one member: its checkpoint, brought up to the end of the log, says so
//! from now on. Until the control group's checkpoint is there, which is written last, the directory is still that of a node
//! of its own: such a node does not look at what a checkpoint says of a replica, and its checkpoints have all that the log
//! had before that was set aside. So a crash on the way costs nothing, and the next start begins anew, or does not. What is
//! not needed any more goes only when the directory is a member's.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use consensus::ReplicaId;
use control::{CONTROL, State};
use disk::engine::{Engine, EngineError, Mark};
use disk::log::{Log, LogError};
use kernel::{GroupId, Index, KeyspaceId, NodeId};
use node::recover::{Stores, naming};
use node::{DivisionError, Divisions, RecoverError, Recovery, division};
use script::LuaEngine;
use storage::store::Naming;
use thiserror::Error;

use super::settle::{commit, settle};
use crate::divisions::recorded;
use crate::load::{LoadError, load};
use crate::node::{NodeError, NodeOptions};

/// Where the log of a node of its own is once its checkpoints have all of it.
const ASIDE: &str = "log.converted";

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

/// A durable step of a conversion. After each the directory is that of a node of its own, and after the last that of a
/// member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The group's checkpoint has all that the log has of it, and says which replica it is.
    Replica(GroupId, ReplicaId),
    /// The group's checkpoint has all that the log has of it. There is nothing in it, and no replica of it here.
    Empty(GroupId),
    /// The log, of which the checkpoints have all now, is set aside: a keyspace of the cluster that gets the number of one
    /// that was here must find nothing in it.
    Aside,
    /// The control group's checkpoint.
    Switch,
}

/// A node of its own on its way to be the first member of a cluster.
pub(super) struct Conversion<'a> {
    engine: &'a Engine,
    dir: &'a Path,
    stores: Stores,
    control: Mark,
    steps: VecDeque<Step>,
}

impl<'a> Conversion<'a> {
    /// Of the node in `dir` with these `stores`, which are to be the replicas of `node` that `state` names; `control` is the
    /// state's checkpoint.
    ///
    /// # Errors
    /// [`ConvertError::Homeless`] if there is data that the state does not name.
    pub fn new(
        engine: &'a Engine,
        dir: &'a Path,
        stores: Stores,
        (control, state): (Mark, &State),
        node: NodeId,
    ) -> Result<Conversion<'a>, ConvertError> {
        let mut steps = VecDeque::new();
        for (&group, (store, _)) in &stores {
            match state.partition(group).and_then(|partition| partition.replica(node)) {
                None if !store.is_empty() => return Err(ConvertError::Homeless(group)),
                // A group without an entry begins as any other.
                _ if store.applied() == Index(0) => {}
                None => steps.push_back(Step::Empty(group)),
                Some(replica) => steps.push_back(Step::Replica(group, replica.id)),
            }
        }
        steps.extend([Step::Aside, Step::Switch]);
        Ok(Conversion { engine, dir, stores, control, steps })
    }

    /// Takes all steps that are left.
    ///
    /// # Errors
    /// [`ConvertError`]; it may be begun anew.
    pub fn run(mut self) -> Result<(), ConvertError> {
        while self.step()? {}
        if !self.stores.is_empty() {
            tracing::info!(groups = self.stores.len(), "the data of a node of its own is a cluster's now");
        }
        Ok(())
    }

    /// Takes the next step; false if there is none.
    fn step(&mut self) -> Result<bool, ConvertError> {
        let Some(step) = self.steps.pop_front() else { return Ok(false) };
        match step {
            Step::Replica(group, replica) => {
                let (store, term) = self.stores.get_mut(&group).expect("a step is of a group that is there");
                settle(self.engine, group, (store, *term), replica)?;
            }
            Step::Empty(group) => {
                let (store, term) = self.stores.get_mut(&group).expect("a step is of a group that is there");
                commit(self.engine, group, (store, *term), Vec::new())?;
            }
            Step::Aside => {
                remove_aside(self.dir)?;
                let (log, aside) = (self.dir.join("log"), self.dir.join(ASIDE));
                let named = std::fs::rename(&log, &aside).or_else(absent);
                named.and_then(|()| File::open(self.dir)?.sync_all()).map_err(failed(&log))?;
            }
            Step::Switch => self.engine.commit(CONTROL, &self.control, std::iter::empty())?,
        }
        Ok(true)
    }
}

/// Removes what a conversion left in the directory of a member: groups that are none of its replicas, of which nothing is
/// in the engine but a mark, and the log of before. It may be done at each start.
///
/// # Errors
/// [`ConvertError`]; it may be tried again.
pub(super) fn tidy(engine: &Engine, dir: &Path) -> Result<(), ConvertError> {
    for (group, mark) in engine.groups()? {
        if group != CONTROL && mark.standing.is_empty() && mark.objects == 0 {
            engine.drop_group(group)?;
        }
    }
    remove_aside(dir)
}

/// Removes the log that was set aside. A node of its own may have one from a conversion that was broken off behind that, and
/// has all of it in its checkpoints.
///
/// # Errors
/// [`ConvertError`]; it may be tried again.
pub(super) fn remove_aside(dir: &Path) -> Result<(), ConvertError> {
    let aside = dir.join(ASIDE);
    std::fs::remove_dir_all(&aside).or_else(absent).map_err(failed(&aside))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ConvertError {
    let path = path.to_path_buf();
    move |source| ConvertError::Node(Box::new(NodeError::File { path, source }))
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use disk::log::{Entry, LogOptions, Record};
    use kernel::{Micros, Millis, Term};
    use node::cluster::formation::{Formation, keyspaces};
    use storage::Store;
    use storage::command::generic::DEL;
    use storage::entry::put_command;
    use storage::object::Value;
    use storage::store::Ttl;

    use super::*;
    use crate::config::{Loaded, Sources};
    use crate::held;
    use crate::load::load_group;

    const NODE: NodeId = NodeId([3; 32]);
    const SEED: u64 = 77;

    fn options(dir: &Path) -> NodeOptions {
        let flag = ("--set".to_owned(), "data_dir".to_owned(), dir.display().to_string());
        let sources = Sources { file: None, variables: Vec::new(), flags: vec![flag] };
        crate::serve::options(&Loaded::load(&sources).unwrap().config).unwrap()
    }

    /// A new cluster's first state, and its checkpoint.
    fn formed(cluster: u8) -> (Mark, State) {
        let formation = Formation {
            cluster: kernel::ClusterId([cluster; 16]),
            node: NODE,
            zone: control::Name::new("a").unwrap(),
            addresses: vec!["127.0.0.1:1".parse().unwrap()],
            keyspaces: keyspaces(BTreeMap::new()),
            at: Millis(5),
            seed: 3,
            version: kernel::Version::NEWEST,
        };
        let (mark, state) = formation.found().unwrap();
        let replica = *mark.members.voters().first().unwrap();
        let holding = node::cluster::Holding { replica, mark: Some(mark) };
        (held::empty_mark(&holding, state.encode()), state)
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
            commit(&engine, group(space), (&mut store, Term(1)), Vec::new()).unwrap();
        }
        engine
    }

    const fn group(space: u16) -> GroupId {
        GroupId::new(KeyspaceId(space), 0)
    }

    /// Appends an entry that deletes the key, behind the checkpoint.
    fn delete(dir: &Path, space: u16) {
        let home = crate::node::made(dir.join("log")).unwrap();
        let options = LogOptions { segment_bytes: 64 << 10, reserve_bytes: 0, ..LogOptions::default() };
        let (log, _) = Log::open(&home, options, &mut |_, _| (), Box::new(|_| ())).unwrap();
        let mut body = Vec::new();
        put_command(&mut body, DEL, &[b"key"]);
        let (group, term, index, time) = (group(space), Term(1), Index(2), Micros(10));
        let entry = Record::Entry(Entry { group, term, index, semantics: 1, time, body: &body });
        log.append(&[entry], disk::log::Durability::Always).unwrap();
        log.close().unwrap();
    }

    type Digests = BTreeMap<GroupId, u64>;

    /// What a start finds now, as a member of this state or as a node of its own: each group that has data, with its digest.
    fn started(options: &NodeOptions, engine: &Arc<Engine>, state: &State) -> (bool, Digests) {
        let marks = engine.groups().unwrap();
        if !marks.iter().any(|(group, _)| *group == CONTROL) {
            let begun = crate::cluster::start::begin(options, SEED, engine).unwrap();
            assert!(begun.is_none() && !options.data_dir.join(ASIDE).exists());
            let stores = gather(options, SEED, engine).unwrap();
            let full = stores.into_iter().filter(|(_, (store, _))| !store.is_empty());
            return (false, full.map(|(group, (store, _))| (group, store.digest().unwrap())).collect());
        }
        tidy(engine, &options.data_dir).unwrap();
        assert!(!options.data_dir.join("log").exists() && !options.data_dir.join(ASIDE).exists());
        let mut digests = Digests::new();
        for (group, mark) in engine.groups().unwrap().into_iter().filter(|(group, _)| *group != CONTROL) {
            let holding = held::holding(&mark).unwrap().expect("a member has replicas only");
            assert_eq!(holding.replica, state.partition(group).unwrap().replica(NODE).unwrap().id);
            let store = load_group(engine, (group, &mark), SEED, None).unwrap();
            if !store.is_empty() {
                digests.insert(group, store.digest().unwrap());
            }
        }
        (true, digests)
    }

    #[test]
    fn a_conversion_that_is_killed_at_any_step_leaves_a_node_of_its_own_or_a_member() {
        let mut ends = [0, 0];
        for killed in 0.. {
            let home = tempfile::tempdir().unwrap();
            let options = options(home.path());
            let engine = alone(home.path(), &[0, 5, 200]);
            // What the cluster would not have is empty, and only the log says so.
            delete(home.path(), 200);
            let before = gather(&options, SEED, &engine).unwrap();
            let full = before.iter().filter(|(_, (store, _))| !store.is_empty());
            let expected: Digests =
                full.map(|(group, (store, _))| (*group, store.digest().unwrap())).collect();
            assert_eq!(expected.len(), 2);
            let (mark, first) = formed(1);
            let mut conversion = Conversion::new(&engine, home.path(), before, (mark, &first), NODE).unwrap();
            let steps = conversion.steps.len();
            assert_eq!(steps, 5, "two replicas, an empty group, the log, the switch");
            if killed > steps {
                break;
            }
            (0..killed).for_each(|_| assert!(conversion.step().unwrap()));
            drop(conversion);
            let (is_member, found) = started(&options, &engine, &first);
            assert_eq!(found, expected, "killed after {killed} steps");
            ends[usize::from(is_member)] += 1;
            if is_member {
                continue;
            }
            // It goes on, into another cluster, and a second time after a member's first start was killed.
            let (mark, other) = formed(2);
            let stores = gather(&options, SEED, &engine).unwrap();
            Conversion::new(&engine, home.path(), stores, (mark, &other), NODE).unwrap().run().unwrap();
            for _ in 0..2 {
                assert_eq!(started(&options, &engine, &other), (true, expected.clone()));
            }
            assert_eq!(engine.groups().unwrap().len(), 3, "what is none of its replicas is gone");
        }
        assert_eq!(ends, [5, 1]);
    }

    #[test]
    fn a_keyspace_that_gets_the_number_of_one_that_was_there_finds_nothing_in_the_log() {
        let home = tempfile::tempdir().unwrap();
        let options = options(home.path());
        let engine = alone(home.path(), &[0, 200]);
        delete(home.path(), 200);
        let records = || {
            let mut seen = Vec::new();
            Log::read(&home.path().join("log"), &mut |_, record| seen.push(record.group())).unwrap();
            seen
        };
        assert_eq!(records(), [group(200)]);
        let stores = gather(&options, SEED, &engine).unwrap();
        let (mark, state) = formed(1);
        Conversion::new(&engine, home.path(), stores, (mark, &state), NODE).unwrap().run().unwrap();
        assert_eq!(records(), []);
    }

    #[test]
    fn data_that_the_cluster_would_not_have_is_refused_before_anything_is_changed() {
        let home = tempfile::tempdir().unwrap();
        let options = options(home.path());
        let engine = alone(home.path(), &[0, 200]);
        let marks = engine.groups().unwrap();
        let stores = gather(&options, SEED, &engine).unwrap();
        let (mark, state) = formed(1);
        let refused =
            Conversion::new(&engine, home.path(), stores, (mark, &state), NODE).map(|_| ()).unwrap_err();
        assert!(matches!(refused, ConvertError::Homeless(group) if group.keyspace() == KeyspaceId(200)));
        assert_eq!(engine.groups().unwrap(), marks);
        // Only data is served that somebody can vouch for.
        let (mark, state) = formed(2);
        Conversion::new(&engine, home.path(), Stores::new(), (mark, &state), NODE).unwrap().run().unwrap();
        tidy(&engine, home.path()).unwrap();
        assert_eq!(engine.groups().unwrap().len(), 3, "a mark with data is not taken away");
    }
}
