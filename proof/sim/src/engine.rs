//! The storage engine made of memory: checkpoints go in whole or not at all, bodies come out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kernel::{GroupId, Index, Rng, Term};
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
}

/// Generation and key.
type Place = (u32, Vec<u8>);
/// Head and body.
type Object = (Vec<u8>, Vec<u8>);

#[derive(Debug, Default)]
struct Kept {
    term: Term,
    frame: Option<Frame>,
    objects: BTreeMap<Place, Object>,
}

type Groups = BTreeMap<GroupId, Kept>;

/// Everything that is durable in the engine. A handle; copies share the content.
#[derive(Clone, Debug, Default)]
pub struct Engine(Arc<Mutex<Groups>>);

impl Engine {
    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a checkpoint durable, as one step.
    pub fn commit(&self, job: &Job) {
        let mut groups = self.groups();
        let kept = groups.entry(job.group).or_default();
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
    }

    /// The index of the group's last checkpoint; 0 without.
    #[must_use]
    pub fn index(&self, group: GroupId) -> Index {
        self.groups().get(&group).and_then(|kept| kept.frame.as_ref()).map_or(Index(0), |frame| frame.index)
    }

    /// Every group as its last checkpoint says; `rng` decides which bodies are left behind.
    ///
    /// # Errors
    /// A checkpoint is not what its mark says.
    pub fn load(&self, seed: u64, rng: &mut Rng) -> Result<BTreeMap<GroupId, (Store, Term)>, String> {
        let mut stores = BTreeMap::new();
        for (&group, kept) in self.groups().iter() {
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
        let groups = self.groups();
        let kept = groups.get(&group).ok_or("the group was never checkpointed")?;
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
