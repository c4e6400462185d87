//! Takes one checkpoint: changes and mark as one synced batch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use fjall::{Keyspace, OwnedWriteBatch, PersistMode, Slice};

use super::entry::{Body, Chunks, Object};
use super::store::{Books, Store, limit, read_object};
use super::*;

/// What an entry costs in the write buffer besides its bytes, about.
const ENTRY_OVERHEAD_BYTES: u64 = 128;
/// A rest gives back at least this much, about.
const REST_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// Most seals of a group.
const SEALS_MAX: usize = 256;
/// How often a commit that waits for the background threads looks again.
const SETTLE_INTERVAL: Duration = Duration::from_millis(1);

/// How much of each space is in its write buffer.
pub struct Buffered {
    limit: u64,
    pub objects: AtomicU64,
    pub chunks: AtomicU64,
    /// What was committed since the last rest: some of it is still in memory.
    unrested: AtomicU64,
}

impl Buffered {
    pub fn new(limit: u64) -> Buffered {
        let zero = || AtomicU64::new(0);
        Buffered { limit, objects: zero(), chunks: zero(), unrested: zero() }
    }
}

/// An object's new entry, before the batch is put in order.
struct Pending {
    key: Slice,
    /// `None` removes it.
    value: Option<(u32, Slice)>,
}

/// A batch in the making, and the ledger as it will be after it.
struct Draft<'s> {
    store: &'s Store,
    group: GroupId,
    ledger: Ledger,
    batch: OwnedWriteBatch,
    chunk_changes: u64,
    object_bytes: u64,
    chunk_bytes: u64,
}

impl Store {
    pub fn commit<'a>(
        &self,
        group: GroupId,
        mark: &Mark,
        changes: impl Iterator<Item = Change<'a>>,
        inline_bytes_max: usize,
    ) -> Result<(), EngineError> {
        limit("a state", mark.state.len() as u64, STATE_BYTES_MAX as u64)?;
        limit("a standing", mark.standing.len() as u64, STANDING_BYTES_MAX as u64)?;
        let mut books = self.books();
        self.make_way(&mut books, group, mark.generation)?;
        let old = books.ledgers.get(&group);
        let fresh = old.is_none_or(|old| old.generation != mark.generation);
        let mut draft = Draft {
            store: self,
            group,
            ledger: next_ledger(old, group, mark)?,
            batch: self.database.batch().durability(Some(PersistMode::SyncAll)),
            chunk_changes: 0,
            object_bytes: 0,
            chunk_bytes: 0,
        };
        let mut pending = draft.encode(changes, inline_bytes_max)?;
        // In order: repeated keys are neighbours, and the reads and inserts that follow touch memory in order.
        pending.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        if let Some(pair) = pending.windows(2).find(|pair| pair[0].key == pair[1].key) {
            let key = entry::user_key(&pair[0].key).to_vec();
            return Err(EngineError::Repeated(Place::Object { group, key }));
        }
        for change in pending {
            let old = if fresh { None } else { self.old(group, &change.key)? };
            draft.replace(old, change);
        }
        let claimed = mark.objects;
        if draft.ledger.objects != claimed {
            return Err(EngineError::Miscounted { group, claimed, actual: draft.ledger.objects });
        }
        let ledger = draft.finish(mark)?;
        books.ledgers.insert(group, ledger);
        Ok(())
    }

    /// Sees to it that no entry of `generation` is there but the group's own.
    fn make_way(&self, books: &mut Books, group: GroupId, generation: u32) -> Result<(), EngineError> {
        // The partition was emptied more often than a snapshot takes: that one is too old by far.
        if books.staged.get(&group).is_some_and(|staging| staging.generation <= generation) {
            self.give_up(books, group)?;
        }
        let doomed =
            books.doomed.range((group, 0)..=(group, generation)).any(|(_, it)| it.last >= generation);
        if doomed { self.purge(books, group) } else { Ok(()) }
    }

    /// The CRC and chunks of the committed entry under `key`.
    fn old(&self, group: GroupId, key: &[u8]) -> Result<Option<(u32, Option<Chunks>)>, EngineError> {
        let place = || Place::Object { group, key: entry::user_key(key).to_vec() };
        let found = self.objects.get(key).map_err(|e| EngineError::from_engine(place(), e))?;
        let Some(value) = found else { return Ok(None) };
        let (crc, object) = read_object(group, key, &value)?;
        Ok(Some(match object.body {
            Body::Inline(_) => (crc, None),
            Body::Chunked(chunks) => (crc, Some(chunks)),
        }))
    }

    /// Hands a full write buffer over and waits until at most one waits to become a table.
    ///
    /// The storage engine has no bound of its own here while its thread compacts, and neither has its journal.
    pub fn settle(&self, space: &Keyspace, buffered: &AtomicU64, added: u64) -> Result<(), EngineError> {
        self.buffered.unrested.fetch_add(added, Ordering::Relaxed);
        if buffered.fetch_add(added, Ordering::Relaxed) + added < self.buffered.limit {
            return Ok(());
        }
        buffered.store(0, Ordering::Relaxed);
        self.rotate(space, 1)
    }

    /// Gives the memory of write buffers back, if there is much of it. See [`Engine::rest`].
    pub fn rest(&self) -> Result<(), EngineError> {
        // No commit and no sweep meanwhile.
        let _books = self.books();
        let buffered = &self.buffered;
        if buffered.unrested.load(Ordering::Relaxed) < REST_BYTES_MIN {
            return Ok(());
        }
        for (space, bytes) in [(&self.objects, &buffered.objects), (&self.chunks, &buffered.chunks)] {
            bytes.store(0, Ordering::Relaxed);
            self.rotate(space, 0)?;
            // The storage engine lets the versions before a flush, and the buffers they name, go with the next
            // flush. So there is one more, of an entry as it is.
            let Some(first) = space.iter().next() else { continue };
            let (key, value) = first.into_inner().map_err(|e| self.refusal(e))?;
            space.insert(key, value).map_err(|e| self.refusal(e))?;
            self.rotate(space, 0)?;
        }
        buffered.unrested.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Hands the write buffer over and waits until no more than `sealed` wait to become a table.
    fn rotate(&self, space: &Keyspace, sealed: usize) -> Result<(), EngineError> {
        space.rotate_memtable().map_err(|e| self.refusal(e))?;
        while space.sealed_memtable_count() > sealed {
            // Says so if the background thread died, which would make this wait for ever.
            self.database.persist(PersistMode::Buffer).map_err(|e| self.refusal(e))?;
            sleep(SETTLE_INTERVAL);
        }
        Ok(())
    }
}

impl Draft<'_> {
    /// Encodes all changes; the chunks of long bodies go straight to the batch, under numbers never used before.
    fn encode<'a>(
        &mut self,
        changes: impl Iterator<Item = Change<'a>>,
        inline_bytes_max: usize,
    ) -> Result<Vec<Pending>, EngineError> {
        let mut pending = Vec::with_capacity(changes.size_hint().0.min(1 << 20));
        let (mut engine_key, mut value, mut total) = (Vec::new(), Vec::new(), 0u64);
        for change in changes {
            let (Change::Put { key, .. } | Change::Delete { key }) = change;
            limit("a key", key.len() as u64, KEY_BYTES_MAX as u64)?;
            entry::object_key(&mut engine_key, self.group, self.ledger.generation, key);
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
                        Body::Chunked(self.put_chunks(body))
                    };
                    let write = |out: &mut Vec<u8>| entry::put_object(out, &Object { head, body });
                    let crc = entry::seal(&mut value, &engine_key, write);
                    Some((crc, Slice::new(&value)))
                }
            };
            limit("a commit", total, COMMIT_BYTES_MAX)?;
            pending.push(Pending { key: Slice::new(&engine_key), value });
        }
        Ok(pending)
    }

    fn put_chunks(&mut self, body: &[u8]) -> Chunks {
        let chunks =
            Chunks { body: self.ledger.next_body, bytes: body.len() as u64, crc: crc32fast::hash(body) };
        self.ledger.next_body += 1;
        let mut value = Vec::new();
        for (number, piece) in (0u32..).zip(body.chunks(CHUNK_BYTES)) {
            let key = entry::chunk_key(self.group, self.ledger.generation, chunks.body, number);
            entry::seal(&mut value, &key, |out| out.extend_from_slice(piece));
            self.chunk_changes += 1;
            self.chunk_bytes += value.len() as u64;
            self.batch.insert(&self.store.chunks, key, Slice::new(&value));
        }
        chunks
    }

    /// Puts one change in the batch and moves the ledger from the old entry to the new one.
    fn replace(&mut self, old: Option<(u32, Option<Chunks>)>, change: Pending) {
        let objects = &self.store.objects;
        if let Some((crc, chunks)) = old {
            self.ledger.objects = self.ledger.objects.wrapping_sub(1);
            self.ledger.digest = self.ledger.digest.wrapping_sub(u64::from(crc));
            if let Some(chunks) = chunks {
                self.remove_chunks(chunks);
            }
        }
        self.object_bytes += change.key.len() as u64 + ENTRY_OVERHEAD_BYTES;
        match change.value {
            Some((crc, value)) => {
                self.ledger.objects = self.ledger.objects.wrapping_add(1);
                self.ledger.digest = self.ledger.digest.wrapping_add(u64::from(crc));
                self.object_bytes += value.len() as u64;
                self.batch.insert(objects, change.key, value);
            }
            None if old.is_some() => self.batch.remove(objects, change.key),
            None => {}
        }
    }

    fn remove_chunks(&mut self, chunks: Chunks) {
        for number in 0..chunks.count() {
            let key = entry::chunk_key(self.group, self.ledger.generation, chunks.body, number);
            self.chunk_changes += 1;
            self.batch.remove(&self.store.chunks, key);
        }
    }

    /// A chunk space that is older than the mark lacks the mark's last seal, a newer one has another after it.
    ///
    /// Older seals are removed many at a time: a removed key makes this commit's table overlap an older one.
    fn add_seal(&mut self) {
        let (chunks, generation) = (&self.store.chunks, self.ledger.generation);
        if self.ledger.seals.len() >= SEALS_MAX {
            for old in self.ledger.seals.drain(..) {
                self.batch.remove(chunks, entry::seal_key(self.group, generation, old));
            }
        }
        let (key, mut value) = (entry::seal_key(self.group, generation, self.ledger.next_body), Vec::new());
        entry::seal(&mut value, &key, |_| ());
        self.batch.insert(chunks, key, value);
        self.ledger.seals.push(self.ledger.next_body);
        self.ledger.next_body += 1;
    }

    /// Adds seal and mark, and makes all of it durable.
    fn finish(mut self, mark: &Mark) -> Result<Ledger, EngineError> {
        let store = self.store;
        let mut value = Vec::with_capacity(mark.state.len() + mark.standing.len() + 128);
        if self.chunk_changes > 0 {
            self.add_seal();
        }
        let key = entry::mark_key(self.group);
        entry::seal(&mut value, &key, |out| entry::put_mark(out, &self.ledger, &mark.standing, &mark.state));
        self.batch.insert(&store.objects, key, value);
        self.batch.commit().map_err(|e| store.refusal(e))?;
        store.settle(&store.objects, &store.buffered.objects, self.object_bytes)?;
        let chunk_bytes = self.chunk_bytes + self.chunk_changes * ENTRY_OVERHEAD_BYTES;
        store.settle(&store.chunks, &store.buffered.chunks, chunk_bytes)?;
        Ok(self.ledger)
    }
}

/// The ledger before the changes, moved to the mark; empty if the mark begins a generation.
fn next_ledger(old: Option<&Ledger>, group: GroupId, mark: &Mark) -> Result<Ledger, EngineError> {
    let (index, term, generation) = (mark.index, mark.term, mark.generation);
    let Some(old) = old else {
        return Ok(Ledger { index, term, generation, oldest: generation, ..Ledger::default() });
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
        ledger.seals.clear();
        ledger.cursor.clear();
    }
    Ok(ledger)
}
