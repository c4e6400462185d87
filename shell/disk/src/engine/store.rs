//! One open instance of the storage engine: what [`Engine`](super::Engine) does, without the reopening.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Slice, Snapshot};

use super::commit::Buffered;
use super::cut::Cuts;
use super::entry::{Chunks, Object};
use super::stage::Staging;
use super::sweep::Doomed;
use super::*;

/// The ordered space of objects and marks: together, so that damage cannot part them.
const OBJECTS: &str = "objects";
/// The ordered space of chunks and seals: apart, since bodies are numbered upwards, so that their tables
/// rarely overlap and are rarely rewritten.
const CHUNKS: &str = "chunks";
/// Says that the spaces were created, so that their absence is damage and not a first start.
const CREATED_FILE: &str = "created";
/// The directory of the storage engine within ours.
const INNER_DIR: &str = "store";
/// The storage engine's least. A journal file is 64 MB before it is replaced.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;
const MEMTABLE_BYTES_MIN: u64 = 1024 * 1024;

pub struct Store {
    pub dir: PathBuf,
    pub database: Database,
    pub objects: Keyspace,
    pub chunks: Keyspace,
    /// Held for as long as a commit takes, so commits are one after another.
    books: Mutex<Books>,
    pub buffered: Buffered,
    pub cuts: Cuts,
}

/// What is known of the groups without reading it.
#[derive(Default)]
pub struct Books {
    pub ledgers: BTreeMap<GroupId, Ledger>,
    pub staged: BTreeMap<GroupId, Staging>,
    /// Generations that are to be swept, by the first of them.
    pub doomed: BTreeMap<(GroupId, u32), Doomed>,
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
            let space = |name: &str, options: KeyspaceCreateOptions| {
                if created && !database.keyspace_exists(name) {
                    return Err(EngineError::corrupt(place(), format!("all {name} are missing")));
                }
                database.keyspace(name, || options).map_err(|e| EngineError::from_engine(place(), e))
            };
            let objects = space(OBJECTS, space_options(options))?;
            // A chunk is read only if its object says so: a filter would never say no.
            let chunks = space(CHUNKS, space_options(options).expect_point_read_hits(true))?;
            if !created {
                note_creation(dir).map_err(|e| EngineError::io(place(), e))?;
            }
            let buffered = Buffered::new(options.memtable_bytes);
            Ok(Store {
                dir: dir.to_path_buf(),
                database,
                objects,
                chunks,
                books: Mutex::default(),
                buffered,
                cuts: Cuts::default(),
            })
        })?;
        let books = contain(dir, || {
            let ledgers = store.marks()?.into_iter().map(|(group, ledger, _)| (group, ledger)).collect();
            let staged = store.stagings()?.into_iter().collect();
            Ok(Books { ledgers, staged, doomed: store.doomed()? })
        })?;
        *store.books() = books;
        Ok(store)
    }

    /// All marks, verified.
    pub fn marks(&self) -> Result<Vec<(GroupId, Ledger, Mark)>, EngineError> {
        let mut marks = Vec::new();
        for guard in self.database.snapshot().prefix(&self.objects, b"m") {
            let (key, value) = guard.into_inner().map_err(|e| self.refusal(e))?;
            let group = entry::mark_group(&key)
                .ok_or_else(|| EngineError::corrupt(self.place(), "a mark's key has the wrong length"))?;
            let (ledger, mark) = read_mark(group, &key, &value)?;
            marks.push((group, ledger, mark));
        }
        Ok(marks)
    }

    pub fn load(&self, group: GroupId, visit: &mut dyn FnMut(Loaded<'_>)) -> Result<u64, EngineError> {
        let snapshot = self.database.snapshot();
        let key = entry::mark_key(group);
        let mark =
            snapshot.get(&self.objects, key).map_err(|e| EngineError::from_engine(Place::Mark(group), e))?;
        let mark = mark.ok_or(EngineError::NoSuchGroup(group))?;
        let (ledger, _) = read_mark(group, &key, &mark)?;
        self.check_seal(&snapshot, group, &ledger)?;
        let (mut objects, mut digest) = (0u64, 0u64);
        let mut last = Slice::new(&[]);
        for guard in snapshot.prefix(&self.objects, entry::prefix(b'o', group, ledger.generation)) {
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

    /// Refuses objects and chunks of different commits, which [`Store::load`] does not see otherwise.
    pub fn check_seal(
        &self,
        snapshot: &Snapshot,
        group: GroupId,
        ledger: &Ledger,
    ) -> Result<(), EngineError> {
        let generation = ledger.generation;
        let (first, sealed) = match ledger.seals.last() {
            Some(&number) => (entry::seal_key(group, generation, number), 1),
            None => (entry::chunk_key(group, generation, 0, 0), 0),
        };
        let end = entry::seal_key(group, generation, u64::MAX);
        let (mut found, mut damaged) = (0, false);
        for guard in snapshot.range(&self.chunks, first..=end).take(2) {
            let (key, value) =
                guard.into_inner().map_err(|e| EngineError::from_engine(Place::Group(group), e))?;
            found += 1;
            damaged |= *key != first || entry::unseal(&key, &value).is_none();
        }
        if damaged || found != sealed {
            let reason = format!("the bodies are not those of the mark at index {}", ledger.index);
            return Err(EngineError::corrupt(Place::Group(group), reason));
        }
        Ok(())
    }

    pub fn get(&self, group: GroupId, generation: u32, key: &[u8]) -> Result<Option<Stored>, EngineError> {
        self.with_object(group, generation, key, |head, body| Stored {
            head: head.to_vec(),
            body: body.to_vec(),
        })
    }

    /// Hands head and body of one object to `take`.
    pub fn with_object<T>(
        &self,
        group: GroupId,
        generation: u32,
        key: &[u8],
        take: impl FnOnce(&[u8], &[u8]) -> T,
    ) -> Result<Option<T>, EngineError> {
        let place = || Place::Object { group, key: key.to_vec() };
        let mut engine_key = Vec::with_capacity(key.len() + 16);
        entry::object_key(&mut engine_key, group, generation, key);
        // One snapshot, so that a commit between the entry and its chunks cannot take the chunks away.
        let snapshot = self.database.snapshot();
        let found =
            snapshot.get(&self.objects, &engine_key).map_err(|e| EngineError::from_engine(place(), e))?;
        let Some(value) = found else { return Ok(None) };
        let (_, object) = read_object(group, &engine_key, &value)?;
        Ok(Some(match object.body {
            Body::Inline(body) => take(object.head, body),
            Body::Chunked(chunks) => {
                take(object.head, &self.body(&snapshot, group, generation, chunks, &place)?)
            }
        }))
    }

    pub fn body(
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
            let value = self.piece(snapshot, group, generation, chunks, number, place)?;
            body.extend_from_slice(entry::content(&value));
        }
        if body.len() as u64 != chunks.bytes || crc32fast::hash(&body) != chunks.crc {
            return Err(EngineError::corrupt(place(), "the body fails its checksum"));
        }
        Ok(body)
    }

    /// The value of one chunk of a body, its checksum compared.
    pub fn piece(
        &self,
        snapshot: &Snapshot,
        group: GroupId,
        generation: u32,
        chunks: Chunks,
        number: u32,
        place: &dyn Fn() -> Place,
    ) -> Result<Slice, EngineError> {
        let key = entry::chunk_key(group, generation, chunks.body, number);
        let found = snapshot.get(&self.chunks, key).map_err(|e| EngineError::from_engine(place(), e))?;
        let damaged = |how: &str| EngineError::corrupt(place(), format!("chunk {number} of the body {how}"));
        let value = found.ok_or_else(|| damaged("is missing"))?;
        entry::unseal(&key, &value).ok_or_else(|| damaged("fails its checksum"))?;
        Ok(value)
    }

    pub fn disk_bytes(&self) -> Result<u64, EngineError> {
        self.database.disk_space().map_err(|e| self.refusal(e))
    }

    pub fn sync(&self) -> Result<(), EngineError> {
        self.database.persist(PersistMode::SyncAll).map_err(|e| self.refusal(e))
    }

    pub fn books(&self) -> MutexGuard<'_, Books> {
        // What is in them is replaced whole and only after its commit, so it is sound even if a holder panicked.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn refusal(&self, error: fjall::Error) -> EngineError {
        EngineError::from_engine(self.place(), error)
    }

    pub fn place(&self) -> Place {
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

pub fn read_mark(group: GroupId, key: &[u8], value: &[u8]) -> Result<(Ledger, Mark), EngineError> {
    let damaged = |reason: String| EngineError::corrupt(Place::Mark(group), reason);
    let (_, content) = entry::unseal(key, value).ok_or_else(|| damaged("it fails its checksum".into()))?;
    let (ledger, standing, state) = entry::read_mark(content).map_err(|e| damaged(e.to_string()))?;
    let mark = entry::mark(&ledger, standing, state);
    Ok((ledger, mark))
}

pub fn read_object<'a>(
    group: GroupId,
    key: &[u8],
    value: &'a [u8],
) -> Result<(u32, Object<'a>), EngineError> {
    let damaged = |reason: String| {
        EngineError::corrupt(Place::Object { group, key: entry::user_key(key).to_vec() }, reason)
    };
    let (crc, content) = entry::unseal(key, value).ok_or_else(|| damaged("it fails its checksum".into()))?;
    Ok((crc, entry::read_object(content).map_err(|e| damaged(e.to_string()))?))
}

pub fn limit(what: &'static str, bytes: u64, limit: u64) -> Result<(), EngineError> {
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
