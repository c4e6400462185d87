//! One open instance of the storage engine: what [`Engine`](super::Engine) does, without the reopening.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Slice, Snapshot,
};

use super::entry::{Chunks, Object};
use super::*;

/// The one ordered space of all entries.
const SPACE: &str = "store";
/// Says that the space was created, so that its absence is damage and not a first start.
const CREATED_FILE: &str = "created";
/// The directory of the storage engine within ours.
const INNER_DIR: &str = "store";
/// The storage engine's least. A journal file is 64 MB before it is replaced.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;
const MEMTABLE_BYTES_MIN: u64 = 1024 * 1024;

pub struct Store {
    pub dir: PathBuf,
    pub database: Database,
    pub space: Keyspace,
    pub ledgers: Mutex<BTreeMap<GroupId, Ledger>>,
}

/// An object's new entry, before the batch is put in order.
struct Pending {
    key: Slice,
    /// `None` removes it.
    value: Option<(u32, Slice)>,
}

impl Store {
    pub fn open(dir: &Path, options: &EngineOptions) -> Result<Store, EngineError> {
        check(options)?;
        let place = || Place::Directory(dir.to_path_buf());
        let store = contain(dir, || {
            std::fs::create_dir_all(dir).map_err(|e| EngineError::io(place(), e))?;
            let database = Database::builder(dir.join(INNER_DIR))
                .cache_size(options.cache_bytes)
                .max_journaling_size(JOURNAL_BYTES)
                .journal_compression(CompressionType::None)
                .worker_threads(options.threads)
                .open()
                .map_err(|e| EngineError::from_engine(place(), e))?;
            let created = dir.join(CREATED_FILE).try_exists().map_err(|e| EngineError::io(place(), e))?;
            if created && !database.keyspace_exists(SPACE) {
                return Err(EngineError::corrupt(place(), "the space of all entries is missing"));
            }
            let space = database
                .keyspace(SPACE, || space_options(options))
                .map_err(|e| EngineError::from_engine(place(), e))?;
            if !created {
                note_creation(dir).map_err(|e| EngineError::io(place(), e))?;
            }
            Ok(Store { dir: dir.to_path_buf(), database, space, ledgers: Mutex::default() })
        })?;
        let ledgers = contain(dir, || store.marks())?.into_iter().map(|(group, ledger, _)| (group, ledger));
        *store.ledgers() = ledgers.collect();
        Ok(store)
    }

    /// All marks, verified.
    pub fn marks(&self) -> Result<Vec<(GroupId, Ledger, Vec<u8>)>, EngineError> {
        let mut marks = Vec::new();
        for guard in self.database.snapshot().prefix(&self.space, b"m") {
            let (key, value) = guard.into_inner().map_err(|e| self.refusal(e))?;
            let group = entry::mark_group(&key)
                .ok_or_else(|| EngineError::corrupt(self.place(), "a mark's key has the wrong length"))?;
            let (ledger, state) = read_mark(group, &key, &value)?;
            marks.push((group, ledger, state.to_vec()));
        }
        Ok(marks)
    }

    pub fn commit<'a>(
        &self,
        group: GroupId,
        mark: &Mark,
        changes: impl Iterator<Item = Change<'a>>,
        inline_bytes_max: usize,
    ) -> Result<(), EngineError> {
        limit("a state", mark.state.len() as u64, STATE_BYTES_MAX as u64)?;
        let mut ledgers = self.ledgers();
        let mut ledger = next_ledger(ledgers.get(&group), group, mark)?;
        let fresh = ledgers.get(&group).is_none_or(|old| old.generation != mark.generation);
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        let mut pending = self.encode(group, &mut ledger, changes, inline_bytes_max, &mut batch)?;
        // In order: repeated keys are neighbours, and the reads and inserts that follow touch memory in order.
        pending.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        if let Some(pair) = pending.windows(2).find(|pair| pair[0].key == pair[1].key) {
            let key = entry::user_key(&pair[0].key).to_vec();
            return Err(EngineError::Repeated(Place::Object { group, key }));
        }
        for Pending { key, value } in pending {
            let old = if fresh { None } else { self.old(group, &key)? };
            if let Some((crc, chunks)) = old {
                ledger.objects = ledger.objects.wrapping_sub(1);
                ledger.digest = ledger.digest.wrapping_sub(u64::from(crc));
                for number in 0..chunks.map_or(0, |chunks| chunks.count()) {
                    let body = chunks.map_or(0, |chunks| chunks.body);
                    batch.remove(&self.space, entry::chunk_key(group, mark.generation, body, number));
                }
            }
            match value {
                Some((crc, value)) => {
                    ledger.objects = ledger.objects.wrapping_add(1);
                    ledger.digest = ledger.digest.wrapping_add(u64::from(crc));
                    batch.insert(&self.space, key, value);
                }
                None if old.is_some() => batch.remove(&self.space, key),
                None => {}
            }
        }
        if ledger.objects != mark.objects {
            return Err(EngineError::Miscounted { group, claimed: mark.objects, actual: ledger.objects });
        }
        let mut value = Vec::with_capacity(mark.state.len() + 128);
        let key = entry::mark_key(group);
        entry::seal(&mut value, &key, |out| entry::put_mark(out, &ledger, &mark.state));
        batch.insert(&self.space, key, value);
        batch.commit().map_err(|e| self.refusal(e))?;
        ledgers.insert(group, ledger);
        Ok(())
    }

    /// Encodes all changes; the chunks of long bodies go straight to the batch, under numbers never used before.
    fn encode<'a>(
        &self,
        group: GroupId,
        ledger: &mut Ledger,
        changes: impl Iterator<Item = Change<'a>>,
        inline_bytes_max: usize,
        batch: &mut OwnedWriteBatch,
    ) -> Result<Vec<Pending>, EngineError> {
        let generation = ledger.generation;
        let mut pending = Vec::with_capacity(changes.size_hint().0.min(1 << 20));
        let (mut engine_key, mut value, mut total) = (Vec::new(), Vec::new(), 0u64);
        for change in changes {
            let (Change::Put { key, .. } | Change::Delete { key }) = change;
            limit("a key", key.len() as u64, KEY_BYTES_MAX as u64)?;
            entry::object_key(&mut engine_key, group, generation, key);
            total += key.len() as u64;
            let value = match change {
                Change::Delete { .. } => None,
                Change::Put { head, body, .. } => {
                    limit("a head", head.len() as u64, HEAD_BYTES_MAX as u64)?;
                    limit("a body", body.len() as u64, BODY_BYTES_MAX)?;
                    total += head.len() as u64 + body.len() as u64;
                    limit("a commit", total, COMMIT_BYTES_MAX)?;
                    let body = if body.len() <= inline_bytes_max {
                        Body::Inline(body)
                    } else {
                        Body::Chunked(self.put_chunks(group, ledger, body, batch))
                    };
                    let crc = entry::seal(&mut value, &engine_key, |out| {
                        entry::put_object(out, &Object { head, body });
                    });
                    Some((crc, Slice::new(&value)))
                }
            };
            limit("a commit", total, COMMIT_BYTES_MAX)?;
            pending.push(Pending { key: Slice::new(&engine_key), value });
        }
        Ok(pending)
    }

    fn put_chunks(
        &self,
        group: GroupId,
        ledger: &mut Ledger,
        body: &[u8],
        batch: &mut OwnedWriteBatch,
    ) -> Chunks {
        let chunks = Chunks { body: ledger.next_body, bytes: body.len() as u64, crc: crc32fast::hash(body) };
        ledger.next_body += 1;
        let mut value = Vec::new();
        for (number, piece) in (0u32..).zip(body.chunks(CHUNK_BYTES)) {
            let key = entry::chunk_key(group, ledger.generation, chunks.body, number);
            entry::seal(&mut value, &key, |out| out.extend_from_slice(piece));
            batch.insert(&self.space, key, Slice::new(&value));
        }
        chunks
    }

    /// The CRC and chunks of the committed entry under `key`.
    fn old(&self, group: GroupId, key: &[u8]) -> Result<Option<(u32, Option<Chunks>)>, EngineError> {
        let place = || Place::Object { group, key: entry::user_key(key).to_vec() };
        let found = self.space.get(key).map_err(|e| EngineError::from_engine(place(), e))?;
        let Some(value) = found else { return Ok(None) };
        let (crc, object) = read_object(group, key, &value)?;
        Ok(Some(match object.body {
            Body::Inline(_) => (crc, None),
            Body::Chunked(chunks) => (crc, Some(chunks)),
        }))
    }

    pub fn load(&self, group: GroupId, visit: &mut dyn FnMut(Loaded<'_>)) -> Result<u64, EngineError> {
        let snapshot = self.database.snapshot();
        let key = entry::mark_key(group);
        let mark =
            snapshot.get(&self.space, key).map_err(|e| EngineError::from_engine(Place::Mark(group), e))?;
        let mark = mark.ok_or(EngineError::NoSuchGroup(group))?;
        let (ledger, _) = read_mark(group, &key, &mark)?;
        let (mut objects, mut digest) = (0u64, 0u64);
        let mut last = Slice::new(&[]);
        for guard in snapshot.prefix(&self.space, entry::prefix(b'o', group, ledger.generation)) {
            let (key, value) = guard.into_inner().map_err(|e| {
                let key = entry::user_key(&last).to_vec();
                EngineError::from_engine(Place::After { group, key }, e)
            })?;
            let (crc, object) = read_object(group, &key, &value)?;
            let body = match object.body {
                Body::Inline(body) => LoadedBody::Inline(body),
                Body::Chunked(chunks) => LoadedBody::OnDisk { bytes: chunks.bytes },
            };
            visit(Loaded { key: entry::user_key(&key), head: object.head, body });
            objects += 1;
            digest = digest.wrapping_add(u64::from(crc));
            last = key;
        }
        if objects != ledger.objects {
            let reason =
                format!("{objects} objects where the mark at index {} has {}", ledger.index, ledger.objects);
            return Err(EngineError::corrupt(Place::Group(group), reason));
        }
        if digest != ledger.digest {
            let reason = format!("the objects are not those of the mark at index {}", ledger.index);
            return Err(EngineError::corrupt(Place::Group(group), reason));
        }
        Ok(objects)
    }

    pub fn get(&self, group: GroupId, generation: u32, key: &[u8]) -> Result<Option<Stored>, EngineError> {
        let place = || Place::Object { group, key: key.to_vec() };
        let mut engine_key = Vec::with_capacity(key.len() + 16);
        entry::object_key(&mut engine_key, group, generation, key);
        // One snapshot, so that a commit between the entry and its chunks cannot take the chunks away.
        let snapshot = self.database.snapshot();
        let found =
            snapshot.get(&self.space, &engine_key).map_err(|e| EngineError::from_engine(place(), e))?;
        let Some(value) = found else { return Ok(None) };
        let (_, object) = read_object(group, &engine_key, &value)?;
        let body = match object.body {
            Body::Inline(body) => body.to_vec(),
            Body::Chunked(chunks) => self.body(&snapshot, group, generation, chunks, &place)?,
        };
        Ok(Some(Stored { head: object.head.to_vec(), body }))
    }

    fn body(
        &self,
        snapshot: &Snapshot,
        group: GroupId,
        generation: u32,
        chunks: Chunks,
        place: &dyn Fn() -> Place,
    ) -> Result<Vec<u8>, EngineError> {
        limit("a body", chunks.bytes, BODY_BYTES_MAX)?;
        let mut body = Vec::with_capacity(chunks.bytes as usize);
        for number in 0..chunks.count() {
            let key = entry::chunk_key(group, generation, chunks.body, number);
            let found = snapshot.get(&self.space, key).map_err(|e| EngineError::from_engine(place(), e))?;
            let damaged =
                |how: &str| EngineError::corrupt(place(), format!("chunk {number} of the body {how}"));
            let value = found.ok_or_else(|| damaged("is missing"))?;
            let (_, piece) = entry::unseal(&key, &value).ok_or_else(|| damaged("fails its checksum"))?;
            body.extend_from_slice(piece);
        }
        if body.len() as u64 != chunks.bytes || crc32fast::hash(&body) != chunks.crc {
            return Err(EngineError::corrupt(place(), "the body fails its checksum"));
        }
        Ok(body)
    }

    pub fn disk_bytes(&self) -> Result<u64, EngineError> {
        self.database.disk_space().map_err(|e| self.refusal(e))
    }

    pub fn sync(&self) -> Result<(), EngineError> {
        self.database.persist(PersistMode::SyncAll).map_err(|e| self.refusal(e))
    }

    pub fn ledgers(&self) -> MutexGuard<'_, BTreeMap<GroupId, Ledger>> {
        // A ledger is replaced whole and only after its commit, so it is sound even if a holder panicked.
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn refusal(&self, error: fjall::Error) -> EngineError {
        EngineError::from_engine(self.place(), error)
    }

    fn place(&self) -> Place {
        Place::Directory(self.dir.clone())
    }
}

/// Turns a panic of the storage engine, which damaged files can cause, into an error that names the place.
///
/// A binary that aborts on panics stops instead; nothing damaged is served either way.
pub fn contain<T>(dir: &Path, run: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        let reason = format!("the storage engine gave up: {said}");
        Err(EngineError::corrupt(Place::Directory(dir.to_path_buf()), reason))
    })
}

/// The ledger before the changes, moved to the mark; empty if the mark begins a generation.
fn next_ledger(old: Option<&Ledger>, group: GroupId, mark: &Mark) -> Result<Ledger, EngineError> {
    let (index, term, generation) = (mark.index, mark.term, mark.generation);
    let Some(old) = old else {
        let (oldest, cursor) = (generation, Vec::new());
        return Ok(Ledger { index, term, generation, oldest, objects: 0, digest: 0, next_body: 0, cursor });
    };
    if generation < old.generation || index < old.index {
        return Err(EngineError::Backwards {
            group,
            committed: old.index,
            committed_generation: old.generation,
            index,
            generation,
        });
    }
    let mut ledger = Ledger { index, term, generation, ..old.clone() };
    if generation > old.generation {
        (ledger.objects, ledger.digest) = (0, 0);
        ledger.cursor.clear();
    }
    Ok(ledger)
}

fn read_mark<'a>(group: GroupId, key: &[u8], value: &'a [u8]) -> Result<(Ledger, &'a [u8]), EngineError> {
    let damaged = |reason: String| EngineError::corrupt(Place::Mark(group), reason);
    let (_, content) = entry::unseal(key, value).ok_or_else(|| damaged("it fails its checksum".into()))?;
    entry::read_mark(content).map_err(|e| damaged(e.to_string()))
}

fn read_object<'a>(group: GroupId, key: &[u8], value: &'a [u8]) -> Result<(u32, Object<'a>), EngineError> {
    let damaged = |reason: String| {
        EngineError::corrupt(Place::Object { group, key: entry::user_key(key).to_vec() }, reason)
    };
    let (crc, content) = entry::unseal(key, value).ok_or_else(|| damaged("it fails its checksum".into()))?;
    Ok((crc, entry::read_object(content).map_err(|e| damaged(e.to_string()))?))
}

fn limit(what: &'static str, bytes: u64, limit: u64) -> Result<(), EngineError> {
    if bytes > limit { Err(EngineError::TooLarge { what, bytes, limit }) } else { Ok(()) }
}

fn check(options: &EngineOptions) -> Result<(), EngineError> {
    let least = |what, value: u64, least| {
        if value < least { Err(EngineError::BadOption { what, least }) } else { Ok(()) }
    };
    least("the engine's threads", options.threads as u64, 1)?;
    least("the engine's write buffer", options.memtable_bytes, MEMTABLE_BYTES_MIN)
}

fn space_options(options: &EngineOptions) -> KeyspaceCreateOptions {
    let bits = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(10.0));
    let compression = match options.compression {
        Compression::None => CompressionPolicy::all(CompressionType::None),
        Compression::Lz4 => {
            CompressionPolicy::new([CompressionType::None, CompressionType::None, CompressionType::Lz4])
        }
    };
    KeyspaceCreateOptions::default()
        .max_memtable_size(options.memtable_bytes)
        .filter_policy(FilterPolicy::all(bits))
        .data_block_compression_policy(compression)
}

fn note_creation(dir: &Path) -> std::io::Result<()> {
    std::fs::File::create(dir.join(CREATED_FILE))?.sync_all()?;
    std::fs::File::open(dir)?.sync_all()
}
