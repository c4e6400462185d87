//! The durable home of partitions' objects: checkpoints in, objects out, over an LSM tree (fjall 3).
//!
//! The node's log is the durability of single writes. The engine takes a checkpoint, which is everything
//! that changed in one group up to exactly one applied index, as one atomic and synced batch, and answers
//! reads of objects that were evicted from memory. This module alone names the storage engine.
//!
//! The storage engine is not trusted. Opening it after damage to its journal succeeds with the batches up
//! to the damage, and its list of tables has no checksum. So every entry carries a CRC over its key and
//! content, and a group's [`Mark`] is written with the number of its objects and the wrapping sum of their
//! CRCs: [`Engine::load`] refuses a set of objects that is not exactly the one the mark was written with.
//! What remains is a whole, older checkpoint; the caller must refuse to start unless its log still has the
//! entry after [`Mark::index`]. Bodies in chunks are covered through the CRC in their object's entry and
//! are checked when they are read.
//!
//! One kind of damage has no error: the storage engine believes the counts in tables' footers and asserts
//! what its lists of tables (`v` files) say, so a flipped bit there can end the process while it opens.
//!
//! It does not decide when to checkpoint, and it keeps no object in memory besides the block cache.

mod commit;
mod cut;
mod entry;
mod error;
#[cfg(test)]
mod flips;
mod stage;
mod store;
pub(crate) mod stream;
mod sweep;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transfer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use fjall::Readable;
use kernel::limit::KEY_BYTES_MAX;
use kernel::{GroupId, Index, Term};

pub use self::cut::{CutInfo, Lot, Reader};
use self::entry::Body;
pub use self::entry::CHUNK_BYTES;
pub use self::error::{EngineError, Place};
pub use self::stage::{LOT_BYTES_MAX, NAME_BYTES_MAX, Progress};
use self::store::Store;
pub use self::sweep::Swept;

/// Longest head of an object, in bytes: heads stay in memory for every object.
pub const HEAD_BYTES_MAX: usize = 4 * 1024;
/// Longest body of an object, in bytes.
pub const BODY_BYTES_MAX: u64 = u32::MAX as u64;
/// Longest partition state in a mark, in bytes.
pub const STATE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Longest standing of a replica in a mark, in bytes.
pub const STANDING_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of keys, heads and bodies in one commit. The commit is held in memory about once.
pub const COMMIT_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;

/// How the engine uses memory and threads. All but `cache_bytes`, `inline_bytes_max` and `threads` are fixed
/// when the directory is created.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The block cache, in bytes.
    pub cache_bytes: u64,
    /// The write buffer, in bytes, at least 1 MiB; up to about three of them live at once.
    pub memtable_bytes: u64,
    /// Longest body that is kept in its object's entry and handed out by [`Engine::load`], in bytes.
    pub inline_bytes_max: usize,
    /// Background threads that flush and compact.
    pub threads: usize,
    /// Whether blocks of tables are compressed.
    pub compression: Compression,
}

/// Whether blocks of tables are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// With LZ4, from the third level on, where most of the data is.
    Lz4,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions {
            cache_bytes: 32 * 1024 * 1024,
            memtable_bytes: 8 * 1024 * 1024,
            inline_bytes_max: 2048,
            threads: 1,
            compression: Compression::None,
        }
    }
}

/// A group's checkpoint: the engine holds its objects exactly as they were after `index` was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The applied index of the cut.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Counts the times the partition was emptied at once (FLUSH, a snapshot installed).
    pub generation: u32,
    /// How many objects there are after this checkpoint.
    pub objects: u64,
    /// What a replica of a replicated group is, and what it must know of the group at this index, opaque to the engine;
    /// empty for a group of one node.
    pub standing: Vec<u8>,
    /// The partition's own state, opaque to the engine: time, counters, scripts.
    pub state: Vec<u8>,
}

/// What a checkpoint does to one object. No two changes of one commit may name the same key.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// The object is now this.
    Put {
        /// Its key.
        key: &'a [u8],
        /// The part that [`Engine::load`] always returns.
        head: &'a [u8],
        /// The part that may be left on the disk.
        body: &'a [u8],
    },
    /// The object is gone; nothing happens if it never was in a checkpoint.
    Delete {
        /// Its key.
        key: &'a [u8],
    },
}

/// An object as [`Engine::load`] finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its head.
    pub head: &'a [u8],
    /// Its body or the length of it.
    pub body: LoadedBody<'a>,
}

/// The body of a loaded object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadedBody<'a> {
    /// A short one.
    Inline(&'a [u8]),
    /// A long one, to be read with [`Engine::get`].
    OnDisk {
        /// Its length.
        bytes: u64,
    },
}

/// An object as [`Engine::get`] reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its head.
    pub head: Vec<u8>,
    /// Its whole body.
    pub body: Vec<u8>,
}

/// What the engine remembers of a group between commits: its mark without the state, and the sums that prove it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ledger {
    index: Index,
    term: Term,
    generation: u32,
    /// The first generation of which entries may still be on the disk.
    oldest: u32,
    objects: u64,
    /// The wrapping sum of the CRCs of all objects' entries.
    digest: u64,
    /// The number the next body in chunks gets.
    next_body: u64,
    /// The seals of this generation's commits that touched chunks, the latest last. Bodies and seals share numbers.
    seals: Vec<u64>,
    /// The last key the sweep of older generations removed. Not stored.
    cursor: Vec<u8>,
}

/// The engine of one node. Reads may run on any thread, beside a commit.
pub struct Engine {
    dir: PathBuf,
    options: EngineOptions,
    /// `None` only after a reopen failed.
    store: RwLock<Option<Arc<Store>>>,
    failed: AtomicBool,
}

impl Engine {
    /// Opens the engine in `dir`, creating it if it is not there.
    ///
    /// Reads the storage engine's journal (up to 64 MiB and one write buffer) and all marks.
    ///
    /// # Errors
    /// Another process has it, the disk refuses, or what is there is damaged.
    pub fn open(dir: &Path, options: EngineOptions) -> Result<Engine, EngineError> {
        let store = Store::open(dir, &options)?;
        Ok(Engine {
            dir: dir.to_path_buf(),
            options,
            store: RwLock::new(Some(Arc::new(store))),
            failed: AtomicBool::new(false),
        })
    }

    /// Opens the same directory again after a commit failed, so that commits are taken again.
    ///
    /// The caller then compares [`Engine::groups`] with what it believes to be committed: a failed commit may
    /// be there or not, whole. Waits for reads under way. Not for a failed sync: that disk is done.
    ///
    /// # Errors
    /// As [`Engine::open`]; the engine then refuses everything until a reopen succeeds.
    pub fn reopen(&self) -> Result<(), EngineError> {
        let mut slot = self.store.write().unwrap_or_else(PoisonError::into_inner);
        // The old store must be gone before the new one takes the lock file. No reader has a copy: they hold
        // the read lock for as long as they use it.
        drop(slot.take());
        *slot = Some(Arc::new(Store::open(&self.dir, &self.options)?));
        self.failed.store(false, Ordering::Release);
        Ok(())
    }

    /// All groups that have a checkpoint, in order, with the latest one.
    ///
    /// # Errors
    /// A mark is damaged or cannot be read.
    pub fn groups(&self) -> Result<Vec<(GroupId, Mark)>, EngineError> {
        self.reading(|store| {
            let marks = store.marks()?;
            Ok(marks.into_iter().map(|(group, _, mark)| (group, mark)).collect())
        })
    }

    /// Makes `changes` and `mark` durable, all or nothing; they are on the disk when this returns.
    ///
    /// A mark of a higher generation makes all older generations' objects invisible in the same batch; the
    /// changes are then all there is. [`Engine::sweep`] gives their space back. Costs one read of the old
    /// entry for each change, besides the write and one sync. Commits of all groups are one after another.
    ///
    /// # Errors
    /// The caller's faults change nothing. After any other error, nothing is committed until
    /// [`Engine::reopen`].
    pub fn commit<'a>(
        &self,
        group: GroupId,
        mark: &Mark,
        changes: impl Iterator<Item = Change<'a>>,
    ) -> Result<(), EngineError> {
        self.writing(|store| store.commit(group, mark, changes, self.options.inline_bytes_max))
    }

    /// Visits every object of the group's current generation, in key order, and returns how many there are.
    ///
    /// What was visited may be used only if this returns `Ok`: only at the end is it known that the set is the
    /// one that was committed. Reads a snapshot, so commits may go on.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] if an entry is damaged or the objects are not those of the mark.
    pub fn load(&self, group: GroupId, visit: &mut dyn FnMut(Loaded<'_>)) -> Result<u64, EngineError> {
        self.reading(|store| store.load(group, visit))
    }

    /// One object, `None` if the checkpoint has no such object.
    ///
    /// A caller that knows of the object must take `None` for damage.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] naming the key if the entry or a chunk of the body is damaged or missing.
    pub fn get(&self, group: GroupId, generation: u32, key: &[u8]) -> Result<Option<Stored>, EngineError> {
        if key.len() > KEY_BYTES_MAX {
            return Ok(None);
        }
        self.reading(|store| store.get(group, generation, key))
    }

    /// Hands the body of one object to `take`, without a copy if it is kept in its object's entry; `None` if
    /// the checkpoint has no such object.
    ///
    /// A caller that knows of the object must take `None` for damage.
    ///
    /// # Errors
    /// As [`Engine::get`].
    pub fn with_body<T>(
        &self,
        group: GroupId,
        generation: u32,
        key: &[u8],
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, EngineError> {
        if key.len() > KEY_BYTES_MAX {
            return Ok(None);
        }
        self.reading(|store| store.with_object(group, generation, key, |_, body| take(body)))
    }

    /// Removes up to `entries_max` entries of generations that no mark names any more.
    ///
    /// To be called beside commits until it returns [`Swept::Done`]. Needs no sync: what a crash brings back is
    /// swept again.
    ///
    /// # Errors
    /// As [`Engine::commit`].
    pub fn sweep(&self, entries_max: usize) -> Result<Swept, EngineError> {
        self.writing(|store| {
            store.release_silent();
            store.sweep(entries_max)
        })
    }

    /// Forgets a group: its checkpoint and what is staged for it, durably. Sweeps give the space back; if it comes back
    /// before that, its first commit waits for them.
    ///
    /// # Errors
    /// As [`Engine::commit`].
    pub fn drop_group(&self, group: GroupId) -> Result<(), EngineError> {
        self.writing(|store| store.drop_group(group))
    }

    /// Holds the group's checkpoint as it is now, to be read by [`Engine::read_cut`] while commits and sweeps go on.
    ///
    /// Reads all of it once, but for a backup not if a backup had the same checkpoint last. It is held until each of its
    /// readers has released it; for followers the last two cuts of a group are. What they hide takes space until then.
    ///
    /// # Errors
    /// [`EngineError::CutsInUse`], else as [`Engine::load`].
    pub fn make_cut(&self, group: GroupId, reader: Reader) -> Result<CutInfo, EngineError> {
        self.reading(|store| store.make_cut(group, reader))
    }

    /// About `bytes_max` bytes, and at most one item more, of a cut from `cursor` on; an empty one is the beginning.
    ///
    /// After a restart a cut can be read on for as long as its checkpoint is the group's last.
    ///
    /// # Errors
    /// [`EngineError::NoSuchCut`] if it is gone, or there is no such place in it; else as [`Engine::load`].
    pub fn read_cut(
        &self,
        group: GroupId,
        generation: u64,
        cursor: &[u8],
        bytes_max: usize,
        reader: Reader,
    ) -> Result<Lot, EngineError> {
        self.reading(|store| store.read_cut(group, generation, cursor, bytes_max, reader))
    }

    /// Holds one cut of a group no more for a reader, and for followers none before it; who else reads it goes on.
    pub fn release_cut(&self, group: GroupId, generation: u64, reader: Reader) {
        // Without a store there is none.
        let _ = self.reading(|store| {
            store.release_cut(group, generation, reader);
            Ok(())
        });
    }

    /// The index of the group's last checkpoint; none if it has none.
    ///
    /// # Errors
    /// There is no store.
    pub fn index_of(&self, group: GroupId) -> Result<Option<Index>, EngineError> {
        self.reading(|store| Ok(store.books().ledgers.get(&group).map(|ledger| ledger.index)))
    }

    /// Begins to stage a snapshot of `group` under a name, at most [`NAME_BYTES_MAX`] bytes, or goes on with it if that
    /// is what is staged, also after a restart. Another one is given up.
    ///
    /// # Errors
    /// As [`Engine::commit`].
    pub fn begin_stage(&self, group: GroupId, name: &[u8]) -> Result<Progress, EngineError> {
        self.writing(|store| store.begin_stage(group, name))
    }

    /// Keeps one lot of [`Engine::read_cut`], at most [`LOT_BYTES_MAX`] bytes, where the staged snapshot ends; `next` is
    /// the lot's. It is there after a crash or not, as a whole.
    ///
    /// # Errors
    /// [`EngineError::Unstageable`] if it does not belong there, and then nothing has changed; else as
    /// [`Engine::commit`].
    pub fn stage(&self, group: GroupId, lot: &[u8], next: Option<&[u8]>) -> Result<Progress, EngineError> {
        self.writing(|store| store.stage(group, lot, next, self.options.inline_bytes_max))
    }

    /// Compares all that is staged with the length and checksum of its cut, reads it back, and makes it durable.
    ///
    /// # Errors
    /// [`EngineError::Unstageable`] if it is not that snapshot; else as [`Engine::load`] and [`Engine::commit`].
    pub fn check_stage(&self, group: GroupId, bytes: u64, checksum: u64) -> Result<(), EngineError> {
        // Damage to what nobody uses yet is no reason to take no commits.
        let checked = self.reading(|store| store.read_stage(group, bytes, checksum))?;
        self.writing(|store| store.keep_checked(group, checked))
    }

    /// Makes the staged and checked snapshot the group's checkpoint, with `standing` in its mark, in one durable step.
    ///
    /// # Errors
    /// [`EngineError::Unstageable`] if it was not checked or has another index, [`EngineError::Backwards`] if the group's
    /// checkpoint is newer; else as [`Engine::commit`].
    pub fn install(&self, group: GroupId, index: Index, standing: &[u8]) -> Result<Mark, EngineError> {
        let state = self.reading(|store| store.staged_state(group))?;
        self.writing(|store| store.install(group, index, standing, &state))
    }

    /// Gives up what is staged for `group`. Sweeps give its space back.
    ///
    /// # Errors
    /// As [`Engine::commit`].
    pub fn drop_stage(&self, group: GroupId) -> Result<(), EngineError> {
        self.writing(|store| store.drop_stage(group))
    }

    /// The groups with a staged snapshot, and how far it is.
    #[must_use]
    pub fn staged(&self) -> Vec<(GroupId, Progress)> {
        let staged = self.reading(|store| {
            Ok(store.books().staged.iter().map(|(group, staging)| (*group, staging.progress())).collect())
        });
        staged.unwrap_or_default()
    }

    /// Gives back the memory of write buffers: the last ones, and one that was written out before them, else
    /// stay until enough other changes come.
    ///
    /// To be called when no commits are expected for a while. Writes out what is buffered, if that is more than
    /// a few MiB, and waits for it.
    ///
    /// # Errors
    /// As [`Engine::commit`].
    pub fn rest(&self) -> Result<(), EngineError> {
        self.writing(Store::rest)
    }

    /// Bytes of tables and journals, the unused part of the current journal (up to 64 MiB) included.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.reading(|store| store.disk_bytes()).unwrap_or(0)
    }

    /// Waits for everything to be on the disk and ends the background threads.
    ///
    /// # Errors
    /// The last sync failed, or an earlier write did.
    pub fn close(self) -> Result<(), EngineError> {
        self.writing(Store::sync)
    }

    fn reading<T>(&self, read: impl FnOnce(&Store) -> Result<T, EngineError>) -> Result<T, EngineError> {
        let slot = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let store = slot.as_deref().ok_or(EngineError::Poisoned)?;
        store::contain(&self.dir, || read(store))
    }

    fn writing<T>(&self, write: impl FnOnce(&Store) -> Result<T, EngineError>) -> Result<T, EngineError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(EngineError::Poisoned);
        }
        let result = self.reading(write);
        if let Err(error) = &result
            && error.poisons()
        {
            self.failed.store(true, Ordering::Release);
        }
        result
    }
}

/// What a stream of [`Engine::read_cut`] that begins with `bytes` announces: index, term and number of objects; none if it
/// does not begin so.
#[must_use]
pub fn announced(bytes: &[u8]) -> Option<(Index, Term, u64)> {
    match stream::decode(&mut kernel::codec::Reader::new(bytes)) {
        Ok(stream::Item::Begin(begin)) => Some((Index(begin.index), Term(begin.term), begin.objects)),
        Ok(_) | Err(_) => None,
    }
}
