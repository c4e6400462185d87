//! The storage engine made of memory: checkpoints go in whole or not at all, bodies come out; and snapshots of replicated
//! groups are kept, fetched from other nodes' engines, and switched to as one step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use consensus::codec::Descriptor;
use kernel::hash::KeyHasher;
use kernel::{GroupId, Index, Micros, Rng, Term};
use node::cluster::{Holding, store_seed};
use storage::Store;
use storage::apply::Fetch;
use storage::store::checkpoint::{Body, Frame, Image, Images};

/// Bodies at least this long may be left in the engine when a store comes back, in bytes.
const LEFT_BYTES_MIN: usize = 64;

/// A checkpoint on its way.
#[derive(Debug)]
pub struct Job {
    /// The group.
    pub group: GroupId,
    /// The term of its last entry.
    pub term: Term,
    /// What it says of the partition.
    pub frame: Frame,
    /// What changed.
    pub images: Images,
    /// Of a replicated group.
    pub holding: Option<Holding>,
}

/// Generation and key.
type Place = (u32, Vec<u8>);
/// Head and body.
type Object = (Vec<u8>, Vec<u8>);

#[derive(Clone, Debug, Default)]
struct Kept {
    term: Term,
    frame: Option<Frame>,
    objects: BTreeMap<Place, Object>,
    holding: Option<Holding>,
}

type Groups = BTreeMap<GroupId, Kept>;

#[derive(Debug, Default)]
struct Content {
    groups: Groups,
    /// Those made here for others, and those fetched and not switched to. They are gone with the process.
    snapshots: BTreeMap<(GroupId, u64), Kept>,
}

/// Everything that is in the engine. A handle; copies share the content.
#[derive(Clone, Debug, Default)]
pub struct Engine(Arc<Mutex<Content>>);

impl Kept {
    /// The state of a replicated group.
    fn store(&self, group: GroupId, seed: u64, rng: &mut Rng) -> Result<Store, String> {
        let (seed, unreadable) = (store_seed(seed, group), |what| format!("group {group}: {what}"));
        let Some(frame) = &self.frame else {
            let mut store = Store::new(seed);
            if let Some(mark) = self.holding.as_ref().and_then(|holding| holding.mark.as_ref()) {
                // A group begins with its mark in the place of a first entry.
                store.begin_entry(mark.index, Micros(0));
                store.end_entry();
            }
            return Ok(store);
        };
        if self.objects.len() as u64 != frame.objects {
            let found = self.objects.len();
            return Err(format!("group {group}: {found} objects, the checkpoint says {}", frame.objects));
        }
        let mut store = Store::restore(seed, frame).map_err(unreadable)?;
        for ((_, key), (head, body)) in &self.objects {
            let left = body.len() >= LEFT_BYTES_MIN && rng.chance(0.5);
            let body = if left { Body::Left } else { Body::Whole(body) };
            store.restore_object(key, head, body).map_err(unreadable)?;
        }
        Ok(store)
    }

    fn checksum(&self) -> u64 {
        let hasher = KeyHasher::new(0);
        self.objects.iter().fold(0, |sum: u64, ((_, key), (head, body))| {
            let parts = [key, head, body].map(|part| hasher.hash(part));
            parts.into_iter().fold(sum, |sum, part| sum.rotate_left(5) ^ part)
        })
    }
}

impl Engine {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine forgets what it has of a replicated group, and holds this, as one step.
    pub fn begin(&self, group: GroupId, holding: Holding) {
        self.content().groups.insert(group, Kept { holding: Some(holding), ..Kept::default() });
    }

    /// The engine has nothing of this group any more.
    pub fn forget(&self, group: GroupId) {
        self.content().groups.remove(&group);
    }

    /// What it holds of replicated groups.
    #[must_use]
    pub fn holdings(&self) -> Vec<(GroupId, Holding)> {
        let content = self.content();
        let holding = |(&group, kept): (&GroupId, &Kept)| Some((group, kept.holding.clone()?));
        content.groups.iter().filter_map(holding).collect()
    }

    /// The state of a replicated group as its last checkpoint says; `rng` decides which bodies are left behind.
    ///
    /// # Errors
    /// The checkpoint is not what its mark says, or there is none.
    pub fn load_replica(&self, group: GroupId, seed: u64, rng: &mut Rng) -> Result<Store, String> {
        let content = self.content();
        let kept = content.groups.get(&group).ok_or("the engine has nothing of the group")?;
        kept.store(group, seed, rng)
    }

    /// Keeps what it has of a group as a snapshot of this number.
    #[must_use]
    pub fn keep(&self, group: GroupId, generation: u64) -> Option<Descriptor> {
        let mut content = self.content();
        let kept = content.groups.get(&group)?.clone();
        let mark = kept.holding.as_ref()?.mark.clone()?;
        let descriptor =
            Descriptor { generation, size: kept.objects.len() as u64, checksum: kept.checksum(), mark };
        content.snapshots.insert((group, generation), kept);
        Some(descriptor)
    }

    /// Fetches a snapshot out of another node's engine. False if that has it no more.
    #[must_use]
    pub fn fetch(&self, from: &Engine, group: GroupId, descriptor: &Descriptor) -> bool {
        let place = (group, descriptor.generation);
        let sent = from.content().snapshots.get(&place).cloned();
        let sent = sent.filter(|kept| kept.checksum() == descriptor.checksum);
        let here = sent.is_some();
        self.content().snapshots.extend(sent.map(|kept| (place, kept)));
        here
    }

    /// Switches a group to a snapshot that was fetched, as one step. False if it is not there.
    #[must_use]
    pub fn install(&self, group: GroupId, generation: u64, holding: Holding) -> bool {
        let mut content = self.content();
        let Some(kept) = content.snapshots.remove(&(group, generation)) else { return false };
        content.groups.insert(group, Kept { holding: Some(holding), ..kept });
        true
    }

    /// The process is gone.
    pub fn end(&self) {
        self.content().snapshots.clear();
    }

    /// Makes a checkpoint durable, as one step.
    pub fn commit(&self, job: &Job) {
        let mut content = self.content();
        let kept = content.groups.entry(job.group).or_default();
        let generation = job.frame.generation;
        if kept.frame.as_ref().is_none_or(|old| old.generation != generation) {
            kept.objects.clear();
        }
        for image in job.images.iter() {
            match image {
                Image::Put { key, head, body } => {
                    kept.objects.insert((generation, key.to_vec()), (head.to_vec(), body.to_vec()));
                }
                Image::Delete { key } => {
                    kept.objects.remove(&(generation, key.to_vec()));
                }
            }
        }
        kept.term = job.term;
        kept.frame = Some(job.frame.clone());
        kept.holding.clone_from(&job.holding);
    }

    /// The index of the group's last checkpoint; 0 without.
    #[must_use]
    pub fn index(&self, group: GroupId) -> Index {
        let content = self.content();
        let frame = content.groups.get(&group).and_then(|kept| kept.frame.as_ref());
        frame.map_or(Index(0), |frame| frame.index)
    }

    /// Every group as its last checkpoint says; `rng` decides which bodies are left behind.
    ///
    /// # Errors
    /// A checkpoint is not what its mark says.
    pub fn load(&self, seed: u64, rng: &mut Rng) -> Result<BTreeMap<GroupId, (Store, Term)>, String> {
        let mut stores = BTreeMap::new();
        for (&group, kept) in &self.content().groups {
            let Some(frame) = &kept.frame else { continue };
            if kept.objects.len() as u64 != frame.objects {
                let (found, said) = (kept.objects.len(), frame.objects);
                return Err(format!("group {group}: {found} objects, the checkpoint says {said}"));
            }
            let unreadable = |what| format!("group {group}: {what}");
            let mut store = Store::restore(seed, frame).map_err(unreadable)?;
            for ((_, key), (head, body)) in &kept.objects {
                let left = body.len() >= LEFT_BYTES_MIN && rng.chance(0.5);
                let body = if left { Body::Left } else { Body::Whole(body) };
                store.restore_object(key, head, body).map_err(unreadable)?;
            }
            stores.insert(group, (store, kept.term));
        }
        Ok(stores)
    }

    /// The body of an object of a group's last checkpoint.
    ///
    /// # Errors
    /// A sentence: there is no such object.
    pub fn read(&self, group: GroupId, generation: u32, key: &[u8]) -> Result<Vec<u8>, String> {
        let content = self.content();
        let kept = content.groups.get(&group).ok_or("the group was never checkpointed")?;
        let object = kept.objects.get(&(generation, key.to_vec()));
        object.map(|(_, body)| body.clone()).ok_or_else(|| "the engine does not have it".into())
    }

    /// What reads the group's evicted bodies back.
    #[must_use]
    pub fn reader(&self, group: GroupId) -> Box<dyn Fetch> {
        Box::new(Reader { engine: self.clone(), group })
    }
}

struct Reader {
    engine: Engine,
    group: GroupId,
}

impl Fetch for Reader {
    fn fetch(&self, generation: u32, key: &[u8]) -> Result<Vec<u8>, String> {
        self.engine.read(self.group, generation, key)
    }
}
