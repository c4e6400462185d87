//! The operator's way out of a lost quorum: what one stopped member has becomes a cluster of its own.
//!
//! Entries that this member has and of which it does not know whether they were agreed on are taken as agreed: whoever
//! acknowledged one may have counted this copy. What others agreed on without this member is lost, and nobody here can
//! know it; the report says where that can be.
//!
//! The steps, of which each is durable before the next: the file `recovery`, which keeps the node from starting; each
//! group's checkpoint, with all that the log has behind it, under a new number and as the group's only member; the new
//! state of the cluster, which is the moment at which it is another one; the log is set aside; the file goes. A crash
//! between them leaves a directory that does not start, and whose recovery goes on where it was.

mod found;
mod guard;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use consensus::Durability;
use consensus::replay::{Restored, Tail};
use control::codec::version_of;
use control::recover::Recovery;
use control::{CONTROL, Refused, Request, State};
use disk::engine::{Engine, EngineError, Mark};
use disk::log::{Log, LogError};
use kernel::codec::DecodeError;
use kernel::{ClusterId, Foreign, GroupId, Index, NodeId, PeerId, Spoken};
use node::cluster::{Holding, Past, store_seed};
use node::recover::{Replays, ReplicaError};
use runtime::Clock;
use script::LuaEngine;
use storage::Registry;
use storage::apply::{Effects, Machinery, apply_entry};
use storage::reach::Scope;
use thiserror::Error;

pub use self::found::{Found, FoundCopy, FoundPartition, Lacks, Other};
use self::found::{others, partitions};
pub(crate) use self::guard::is_unfinished;
use super::settle::settle;
use super::start::seed;
use crate::config::Loaded;
use crate::durable::replace;
use crate::held;
use crate::load::{LoadError, load_group};
use crate::lock::{DirectoryLock, LockError};
use crate::node::NodeOptions;
use crate::tls::TlsError;

/// Why nothing was recovered, or not all of it.
#[derive(Debug, Error)]
pub enum SurvivorError {
    /// The directory is in use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// There is nothing of a cluster.
    #[error(
        "{} is not the data directory of a cluster's member: name that of a member that is stopped with --data-dir",
        .0.display()
    )]
    NoMember(PathBuf),
    /// It was let in, and that is all.
    #[error(
        "this node was let into the cluster and never got anything of it, so there is nothing to recover: use another member"
    )]
    Empty,
    /// There is no majority missing.
    #[error(
        "{answering} of the {voters} members that vote still answer, which is a majority: the cluster is not lost, start this node instead; if what answers there is something else, add --even-if-others-answer"
    )]
    OthersAnswer {
        /// How many answer, this one not counted.
        answering: usize,
        /// How many there are.
        voters: usize,
    },
    /// The state refuses.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine's data is damaged.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A group's log contradicts itself.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The engine lacks what the log gave away.
    #[error(
        "group {group}: the engine has entries up to {engine}, but the log begins after {floor}: entries are missing"
    )]
    Gap {
        /// The group.
        group: GroupId,
        /// The engine's index.
        engine: Index,
        /// The log's.
        floor: Index,
    },
    /// What is on the disk is not understood.
    #[error("{what} cannot be read ({source}); was it written by another version?")]
    Unreadable {
        /// Which part.
        what: String,
        /// Why.
        source: DecodeError,
    },
    /// The cluster is at another version.
    #[error("the data directory is of a cluster at {0}")]
    Version(Foreign),
    /// A file.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// There are no random bytes.
    #[error("the system has no random bytes for a cluster's id")]
    NoRandom,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub struct Rescued {
    /// The cluster that it is now.
    pub cluster: ClusterId,
    /// Partitions that were kept.
    pub kept: usize,
    /// Partitions that begin empty.
    pub lost: usize,
}

/// A stopped member's directory, read and held.
pub struct Survivor {
    options: NodeOptions,
    engine: Arc<Engine>,
    guard: Option<(ClusterId, ClusterId)>,
    found: Found,
    state: State,
    /// Where the control group's log ends.
    end: (Index, kernel::Term),
    copies: BTreeMap<GroupId, (Mark, Restored)>,
    /// What the engine has of groups without anything that could be kept.
    needless: Vec<GroupId>,
    _lock: DirectoryLock,
}

impl Survivor {
    /// Takes the directory and reads it; nothing of what it says is changed.
    ///
    /// # Errors
    /// [`SurvivorError`].
    pub fn open(loaded: &Loaded) -> Result<Survivor, SurvivorError> {
        let dir = &loaded.config.data_dir;
        let none = || SurvivorError::NoMember(dir.clone());
        if !dir.join("engine").is_dir() {
            return Err(none());
        }
        let lock = DirectoryLock::take(dir)?;
        let options = crate::serve::options(&loaded.config)?;
        let guard = guard::read(dir)?;
        let engine = Arc::new(Engine::open(&dir.join("engine"), options.engine.clone())?);
        let mut marks: BTreeMap<GroupId, Mark> = engine.groups()?.into_iter().collect();
        let mark = marks.remove(&CONTROL).ok_or_else(none)?;
        let holding = holding(CONTROL, &mark)?.ok_or_else(none)?;
        if holding.mark.is_none() {
            return Err(SurvivorError::Empty);
        }
        let foreign = version_of(&mark.state).and_then(|wrote| Foreign::of(wrote, Spoken::ALL));
        if let Some(foreign) = foreign {
            return Err(SurvivorError::Version(foreign));
        }
        let state = State::decode(&mark.state).map_err(unreadable("the cluster's state"))?;
        let read = read_log(dir, &state, holding, &marks)?;
        let Read { control, mut pasts, needless, complete } = read;
        let (state, end) = replayed(state, (&mark, control))?;
        let own = whose(&state, &mark)?;
        let mut copies = BTreeMap::new();
        for (group, past) in std::mem::take(&mut pasts) {
            if let Some(mark) = marks.remove(&group) {
                copies.insert(group, (mark, past));
            }
        }
        let cluster = state.cluster().ok_or_else(none)?;
        let found = Found {
            cluster: guard.map_or(cluster, |(_, before)| before),
            node: PeerId(own),
            version: state.version(),
            others: others(&state, own),
            partitions: partitions(&state, own, &copies, complete)?,
            begun_before: guard.is_some(),
        };
        Ok(Survivor { options, engine, guard, found, state, end, copies, needless, _lock: lock })
    }

    /// What is there.
    #[must_use]
    pub const fn found(&self) -> &Found {
        &self.found
    }

    /// Refuses if a majority of the voters answers without this node.
    ///
    /// # Errors
    /// [`SurvivorError::OthersAnswer`].
    pub fn must_be_alone(&self) -> Result<(), SurvivorError> {
        let others: Vec<&Other> = self.found.others.iter().filter(|other| other.votes).collect();
        let answering = others.iter().filter(|other| other.answers).count();
        let voters = others.len() + usize::from(self.state.voters().contains(&self.found.node.0));
        if answering > voters / 2 { Err(SurvivorError::OthersAnswer { answering, voters }) } else { Ok(()) }
    }

    /// Makes it a cluster of its own. It is durable when this returns.
    ///
    /// # Errors
    /// [`SurvivorError`]; it may be tried again.
    pub fn recover(self) -> Result<Rescued, SurvivorError> {
        let dir = self.options.data_dir.clone();
        let before = self.found.cluster;
        let cluster = match self.guard {
            Some((cluster, _)) => cluster,
            None => {
                let secret = fabric::join::Secret::draw().ok_or(SurvivorError::NoRandom)?;
                ClusterId(secret.0)
            }
        };
        let failed = |path: PathBuf| move |source| SurvivorError::File { path, source };
        replace(&dir, guard::NAME, guard::line(cluster, before).as_bytes())
            .map_err(failed(dir.join(guard::NAME)))?;
        let (kept, lost) = if self.state.cluster() == Some(cluster) {
            // The crash came after the moment at which it became another cluster.
            let has = |it: &&FoundPartition| it.copy.is_some();
            let kept = self.found.partitions.iter().filter(has).count();
            (kept, self.found.partitions.len() - kept)
        } else {
            self.switch(cluster)?
        };
        let Survivor { engine, _lock: lock, .. } = self;
        if let Some(engine) = Arc::into_inner(engine) {
            engine.close()?;
        }
        let aside = set_aside(&dir, cluster);
        std::fs::rename(dir.join("log"), &aside)
            .or_else(absent)
            .and_then(|()| std::fs::File::open(&dir)?.sync_all())
            .map_err(failed(aside))?;
        std::fs::remove_file(dir.join(guard::NAME))
            .and_then(|()| std::fs::File::open(&dir)?.sync_all())
            .map_err(failed(dir.join(guard::NAME)))?;
        drop(lock);
        Ok(Rescued { cluster, kept, lost })
    }

    /// Each group's checkpoint, then the state.
    fn switch(&self, cluster: ClusterId) -> Result<(usize, usize), SurvivorError> {
        let copies: BTreeSet<GroupId> = self.copies.keys().copied().collect();
        let node = self.found.node.0;
        let at = Clock::new().now().millis();
        let next = self.state.recovered(&Recovery { cluster, node, copies: &copies, at })?;
        for (&group, copy) in &self.copies {
            match next.partition(group).and_then(|partition| partition.replica(node)) {
                Some(replica) => self.keep(group, copy, replica.id)?,
                // Its keyspace was dropped.
                None => self.engine.drop_group(group)?,
            }
        }
        self.needless.iter().try_for_each(|group| self.engine.drop_group(*group))?;
        let own = next.members()[&node].replica;
        let members = consensus::Members::new([own], []).expect("one voter");
        let (index, term) = self.end;
        let mark = consensus::Mark { index, term, members };
        let mark = held::empty_mark(&Holding { replica: own, mark: Some(mark) }, next.encode());
        self.engine.commit(CONTROL, &mark, std::iter::empty())?;
        let kept = next.partitions().filter(|(_, it)| !it.replicas.is_empty()).count();
        Ok((kept, next.partitions().count() - kept))
    }

    /// Brings one copy up to the end of its log and gives it its new number.
    fn keep(
        &self,
        group: GroupId,
        (mark, past): &(Mark, Restored),
        replica: consensus::ReplicaId,
    ) -> Result<(), SurvivorError> {
        // Chance as it was: what was drawn in the log and acknowledged must come out the same.
        let cluster = self.state.cluster().expect("it was looked at");
        let chance = store_seed(seed(cluster), group);
        let budget = self.options.share_of(group);
        let mut store = load_group(&self.engine, (group, mark), chance, budget)?;
        if let Some(space) = self.state.keyspaces().get(&group.keyspace()) {
            let partitions = space.settings.partitions;
            store = store.within(Scope { partitions, own: group.partition() });
        }
        let (registry, mut scripting, mut effects) = (Registry::new(), LuaEngine::new(), Effects::default());
        let mut term = mark.term;
        for entry in past.entries.iter().filter(|entry| entry.index() > mark.index) {
            let mut machinery =
                Machinery { registry: &registry, scripting: &mut scripting, effects: &mut effects };
            // The store counts the group's own entries too.
            let (time, body) = match entry.semantics() {
                0 => (store.time(), &[][..]),
                _ => (entry.time(), entry.body()),
            };
            apply_entry(&mut store, &mut machinery, entry.index(), time, body)
                .map_err(unreadable(format!("group {group}, entry {}", entry.index())))?;
            term = entry.term();
        }
        Ok(settle(&self.engine, group, (&mut store, term), replica)?)
    }
}

/// What the log has behind the engine's checkpoints.
struct Read {
    control: Restored,
    pasts: BTreeMap<GroupId, Restored>,
    needless: Vec<GroupId>,
    complete: bool,
}

fn read_log(
    dir: &Path,
    state: &State,
    control: Holding,
    marks: &BTreeMap<GroupId, Mark>,
) -> Result<Read, SurvivorError> {
    let (mut certain, mut others) = (Vec::from([(CONTROL, control)]), Vec::new());
    let mut needless = Vec::new();
    for (&group, mark) in marks {
        let space = state.keyspaces().get(&group.keyspace());
        match holding(group, mark)?.filter(|holding| holding.mark.is_some()) {
            None => needless.push(group),
            Some(holding) => match space.map(|space| space.settings.durability) {
                Some(Durability::EverySec) => others.push((group, holding)),
                Some(Durability::Always) | None => certain.push((group, holding)),
            },
        }
    }
    let (mut certain, mut others) = (Replays::new(certain), Replays::new(others));
    let found = Log::read(&dir.join("log"), &mut |_, record| {
        certain.record(record);
        others.record(record);
    })?;
    let complete = found.as_ref().is_none_or(|found| found.complete);
    let mut pasts = certain.finish(Tail::Certain)?;
    pasts.append(&mut others.finish(if complete { Tail::Certain } else { Tail::Ambiguous })?);
    let taken_up = |(group, (_, past))| match past {
        Past::Restored(restored) => (group, *restored),
        Past::Joining { .. } => unreachable!("only replicas with a checkpoint were taken up"),
    };
    let mut pasts: BTreeMap<GroupId, Restored> = pasts.into_iter().map(taken_up).collect();
    for (&group, &floor) in found.iter().flat_map(|found| &found.floors) {
        if let Some(engine) = pasts.get(&group).map(|past| past.mark.index).filter(|engine| *engine < floor) {
            return Err(SurvivorError::Gap { group, engine, floor });
        }
    }
    let control = pasts.remove(&CONTROL).expect("it has a checkpoint");
    Ok(Read { control, pasts, needless, complete })
}

/// The state with all that the log has of it, and where that ends.
fn replayed(
    mut state: State,
    (mark, past): (&Mark, Restored),
) -> Result<(State, (Index, kernel::Term)), SurvivorError> {
    let mut end = (mark.index, mark.term);
    for entry in past.entries.iter().filter(|entry| entry.index() > mark.index) {
        end = (entry.index(), entry.term());
        if entry.semantics() != 0
            && let Ok(request) = Request::decode(entry.body())
        {
            // A refusal is in the audit trail.
            let _ = state.apply(&request);
        }
    }
    Ok((state, end))
}

/// The member whose replica of the control group this is.
fn whose(state: &State, mark: &Mark) -> Result<NodeId, SurvivorError> {
    let replica = holding(CONTROL, mark)?.map(|holding| holding.replica);
    let mut members = state.members().iter();
    let own = members.find(|(_, member)| Some(member.replica) == replica).map(|(&node, _)| node);
    own.ok_or(SurvivorError::Unreadable { what: "who this node is".to_owned(), source: DecodeError::Invalid })
}

fn holding(group: GroupId, mark: &Mark) -> Result<Option<Holding>, SurvivorError> {
    held::holding(mark).map_err(unreadable(format!("the checkpoint of group {group}")))
}

fn unreadable(what: impl Into<String>) -> impl FnOnce(DecodeError) -> SurvivorError {
    let what = what.into();
    move |source| SurvivorError::Unreadable { what, source }
}

fn set_aside(dir: &Path, cluster: ClusterId) -> PathBuf {
    dir.join(format!("log.before-{cluster}"))
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap as Map;

    use kernel::{KeyspaceId, Micros, Term};
    use node::cluster::formation::{Formation, keyspaces};
    use storage::Store;
    use storage::object::Value;
    use storage::store::Ttl;

    use super::*;
    use crate::config::Sources;

    const OLD: ClusterId = ClusterId([1; 16]);
    const NEW: ClusterId = ClusterId([2; 16]);
    const NODE: NodeId = NodeId([3; 32]);
    const WITH_DATA: [GroupId; 2] = [GroupId::new(KeyspaceId(0), 0), GroupId::new(KeyspaceId(7), 0)];

    fn loaded(dir: &Path) -> Loaded {
        let flag = |key: &str, value: String| ("--set".to_owned(), key.to_owned(), value);
        let flags = vec![flag("data_dir", dir.display().to_string())];
        Loaded::load(&Sources { file: None, variables: Vec::new(), flags }).unwrap()
    }

    /// The directory of a stopped member that has copies of two partitions; the other fourteen are elsewhere.
    fn member(dir: &Path) {
        std::fs::create_dir_all(dir.join("engine")).unwrap();
        std::fs::create_dir_all(dir.join("log")).unwrap();
        let formation = Formation {
            cluster: OLD,
            node: NODE,
            zone: control::Name::new("a").unwrap(),
            addresses: vec!["127.0.0.1:1".parse().unwrap()],
            keyspaces: keyspaces(Map::new()),
            at: kernel::Millis(5),
            seed: 3,
            version: kernel::Version::NEWEST,
        };
        let (mark, state) = formation.found().unwrap();
        let engine = Engine::open(&dir.join("engine"), disk::engine::EngineOptions::default()).unwrap();
        for (n, group) in WITH_DATA.into_iter().enumerate() {
            let mut store = Store::new(1);
            store.begin_entry(Index(2), Micros(5_000_000));
            store.set(&[n as u8], Value::from_bytes(b"value"), Ttl::Clear).unwrap();
            store.end_entry();
            let replica = state.partition(group).unwrap().replica(NODE).unwrap().id;
            settle(&engine, group, (&mut store, Term(4)), replica).unwrap();
        }
        let replica = *mark.members.voters().first().unwrap();
        let mark = held::empty_mark(&Holding { replica, mark: Some(mark) }, state.encode());
        engine.commit(CONTROL, &mark, std::iter::empty()).unwrap();
        engine.close().unwrap();
    }

    /// What must be so once a recovery has come to its end, however often it was begun.
    fn judge(dir: &Path, rescued: Rescued) {
        assert_eq!((rescued.cluster, rescued.kept, rescued.lost), (NEW, 2, 14));
        assert!(!dir.join(guard::NAME).exists() && !dir.join("log").exists());
        assert!(dir.join(format!("log.before-{NEW}")).is_dir(), "the old log is kept");
        let engine = Engine::open(&dir.join("engine"), disk::engine::EngineOptions::default()).unwrap();
        let marks: Map<GroupId, Mark> = engine.groups().unwrap().into_iter().collect();
        let state = State::decode(&marks[&CONTROL].state).unwrap();
        assert_eq!(state.cluster(), Some(NEW));
        let own = |group: GroupId| match group {
            CONTROL => state.members()[&NODE].replica,
            group => state.partition(group).unwrap().replica(NODE).unwrap().id,
        };
        for (&group, mark) in &marks {
            let holding = held::holding(mark).unwrap().unwrap();
            assert_eq!(holding.replica, own(group), "{group}");
            let members = holding.mark.unwrap().members;
            assert!(members.voters().iter().eq([&holding.replica]), "{group} has one voter");
            assert!(holding.replica.get() > control::recover::NUMBERS_LEFT_OUT);
        }
        assert_eq!(marks.len(), 3, "what it has no copy of it does not have");
        for group in WITH_DATA {
            assert_eq!((marks[&group].objects, marks[&group].index), (1, Index(2)));
        }
    }

    /// How far a recovery had come when the process was killed.
    #[derive(Clone, Copy, Debug)]
    enum Killed {
        Guarded,
        OneCopy,
        Switched,
        LogAside,
    }

    #[test]
    fn a_recovery_that_is_killed_anywhere_is_finished_by_the_next() {
        for killed in [Killed::Guarded, Killed::OneCopy, Killed::Switched, Killed::LogAside] {
            let home = tempfile::tempdir().unwrap();
            let dir = home.path();
            member(dir);
            let loaded = loaded(dir);
            let first = Survivor::open(&loaded).unwrap();
            assert!(!first.found().begun_before);
            assert_eq!(first.found().partitions.iter().filter(|it| it.copy.is_some()).count(), 2);
            assert!(!is_unfinished(dir).unwrap(), "looking changes nothing");
            replace(dir, guard::NAME, guard::line(NEW, OLD).as_bytes()).unwrap();
            match killed {
                Killed::Guarded => {}
                Killed::OneCopy => {
                    let (group, copy) = first.copies.iter().next().unwrap();
                    first.keep(*group, copy, consensus::ReplicaId::new(1 << 40).unwrap()).unwrap();
                }
                Killed::Switched | Killed::LogAside => drop(first.switch(NEW).unwrap()),
            }
            drop(first);
            if matches!(killed, Killed::LogAside) {
                std::fs::rename(dir.join("log"), set_aside(dir, NEW)).unwrap();
            }
            assert!(is_unfinished(dir).unwrap(), "{killed:?}: until then it does not start");
            let second = Survivor::open(&loaded).unwrap();
            assert!(second.found().begun_before, "{killed:?}");
            assert_eq!(second.found().cluster, OLD, "{killed:?}: it is confirmed by the same id");
            judge(dir, second.recover().unwrap());
        }
    }
}
