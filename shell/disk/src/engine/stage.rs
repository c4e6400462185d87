//! The receiving side of a snapshot: lots of its stream are kept under a generation that nobody reads, until all of it is
//! there and checked; then one batch makes it the group's.
//!
//! What was received is in a record beside the objects, written in the same batch as each lot, so that a crash leaves a
//! record that is true of what is there, and the transfer goes on at its cursor. A record is only replaced or removed
//! together with a note of its generation as doomed: a sweep gives the space back, now or after a restart.

use fjall::{OwnedWriteBatch, PersistMode, Readable, Slice};
use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};

use super::cut::checksum;
use super::entry::{Chunks, Object};
use super::store::{Books, Store, limit, read_object};
use super::stream::{self, Begin, Item};
use super::*;

/// Longest name of a staged snapshot, in bytes.
pub const NAME_BYTES_MAX: usize = 1024;
/// Most bytes of one lot.
pub const LOT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How far a staged generation is above the committed one: a partition that is emptied rarely gets there meanwhile.
const GENERATION_STEP: u32 = 4096;
/// The number of the staged state among the bodies.
const STATE_BODY: u64 = 0;
const RECORD_VERSION: u8 = 1;

const _: () = assert!(stream::ITEM_BYTES_MAX < LOT_BYTES_MAX);

/// How far a snapshot is staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What its receiver calls it.
    pub name: Vec<u8>,
    /// Where the next lot begins, in its sender's words; `None` once all of it is there.
    pub cursor: Option<Vec<u8>>,
    /// Bytes that are there.
    pub bytes: u64,
}

/// What is known of a snapshot that is being staged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Staging {
    name: Vec<u8>,
    pub generation: u32,
    cursor: Vec<u8>,
    bytes: u64,
    crc: u32,
    begin: Option<Begin>,
    state_at: u64,
    /// The last key; `None` before the first.
    key: Option<Vec<u8>>,
    long: Option<Long>,
    ended: bool,
    objects: u64,
    digest: u64,
    next_body: u64,
    /// All of it was read back and compared.
    checked: bool,
}

/// A long object of which some pieces are there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Long {
    head: Vec<u8>,
    chunks: Chunks,
    pieces: u32,
    /// CRC-32 of them.
    crc: u32,
}

/// A lot on its way into the engine.
struct Draft<'s> {
    store: &'s Store,
    group: GroupId,
    staging: Staging,
    batch: OwnedWriteBatch,
    inline_bytes_max: usize,
    object_bytes: u64,
    chunk_bytes: u64,
}

impl Store {
    /// Begins to stage the snapshot called `name`, or goes on with it. Another one that was being staged is given up.
    pub fn begin_stage(&self, group: GroupId, name: &[u8]) -> Result<Progress, EngineError> {
        limit("a snapshot's name", name.len() as u64, NAME_BYTES_MAX as u64)?;
        let mut books = self.books();
        if let Some(staging) = books.staged.get(&group).filter(|staging| staging.name == name) {
            return Ok(staging.progress());
        }
        self.give_up(&mut books, group)?;
        let doomed = books.doomed.range((group, 0)..=(group, u32::MAX)).map(|(_, doomed)| doomed.last).max();
        let committed = books.ledgers.get(&group).map(|ledger| ledger.generation);
        let mut above = committed.max(doomed).unwrap_or_default();
        if above > u32::MAX - GENERATION_STEP {
            // A dropped group's: all of it must be gone before it can begin anew.
            self.purge(&mut books, group)?;
            above = committed.unwrap_or_default();
        }
        let generation = above.checked_add(GENERATION_STEP).ok_or_else(|| {
            let reason = format!("its generation {above} is the last but {GENERATION_STEP}");
            EngineError::corrupt(Place::Mark(group), reason)
        })?;
        let next_body = STATE_BODY + 1;
        let staging = Staging { name: name.to_vec(), generation, next_body, ..Staging::default() };
        let mut batch = self.database.batch();
        self.put_record(&mut batch, group, &staging);
        batch.commit().map_err(|e| self.refusal(e))?;
        let progress = staging.progress();
        books.staged.insert(group, staging);
        Ok(progress)
    }

    /// Keeps one lot, which begins at the staged snapshot's cursor; `next` is the cursor behind it.
    pub fn stage(
        &self,
        group: GroupId,
        lot: &[u8],
        next: Option<&[u8]>,
        inline_bytes_max: usize,
    ) -> Result<Progress, EngineError> {
        limit("a lot", lot.len() as u64, LOT_BYTES_MAX as u64)?;
        limit("a cursor", next.map_or(0, <[u8]>::len) as u64, (KEY_BYTES_MAX + NAME_BYTES_MAX) as u64)?;
        let mut books = self.books();
        let unfit = |reason| EngineError::Unstageable { group, reason };
        let staging = books.staged.get(&group).cloned().ok_or(unfit("none was begun"))?;
        let batch = self.database.batch();
        let mut draft =
            Draft { store: self, group, staging, batch, inline_bytes_max, object_bytes: 0, chunk_bytes: 0 };
        let mut reader = Reader::new(lot);
        while !reader.is_empty() {
            let item = stream::decode(&mut reader).map_err(|_| unfit("it is no stream of objects"))?;
            draft.take(item).map_err(unfit)?;
        }
        let staging = &mut draft.staging;
        if staging.ended != next.is_none() {
            return Err(unfit("its end is not where it is said to be"));
        }
        let mut crc = crc32fast::Hasher::new_with_initial(staging.crc);
        crc.update(lot);
        staging.crc = crc.finalize();
        staging.bytes += lot.len() as u64;
        staging.cursor = next.unwrap_or_default().to_vec();
        let staging = draft.finish()?;
        let progress = staging.progress();
        books.staged.insert(group, staging);
        Ok(progress)
    }

    /// Compares what was staged with what was to come, and reads all of it back.
    pub fn read_stage(&self, group: GroupId, bytes: u64, sum: u64) -> Result<Staging, EngineError> {
        let unfit = |reason| EngineError::Unstageable { group, reason };
        let mut staging = self.books().staged.get(&group).cloned().ok_or(unfit("none was begun"))?;
        if !staging.ended {
            return Err(unfit("its end is missing"));
        }
        if staging.bytes != bytes || checksum(staging.crc, staging.objects) != sum {
            return Err(unfit("it is not what was announced"));
        }
        self.read_back(group, &staging)?;
        staging.checked = true;
        Ok(staging)
    }

    /// Makes what was read back durable, if it is still what is staged.
    pub fn keep_checked(&self, group: GroupId, checked: Staging) -> Result<(), EngineError> {
        let mut books = self.books();
        let is_it = |staging: &Staging| Staging { checked: true, ..staging.clone() } == checked;
        if !books.staged.get(&group).is_some_and(is_it) {
            return Err(EngineError::Unstageable { group, reason: "another one was begun" });
        }
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        self.put_record(&mut batch, group, &checked);
        batch.commit().map_err(|e| self.refusal(e))?;
        books.staged.insert(group, checked);
        Ok(())
    }

    /// Makes the staged snapshot the group's checkpoint, in one synced batch. What the group had is swept later.
    pub fn install(
        &self,
        group: GroupId,
        index: Index,
        standing: &[u8],
        state: &[u8],
    ) -> Result<Mark, EngineError> {
        limit("a standing", standing.len() as u64, STANDING_BYTES_MAX as u64)?;
        let mut books = self.books();
        let unfit = |reason| EngineError::Unstageable { group, reason };
        let staging = books.staged.get(&group).filter(|it| it.checked).ok_or(unfit("it was not checked"))?;
        let begin = staging.begin.filter(|begin| begin.index == index.0).ok_or(unfit("it is another one"))?;
        let generation = staging.generation;
        let old = books.ledgers.get(&group);
        if let Some(old) = old.filter(|old| old.index > index || old.generation >= generation) {
            let (committed, committed_generation) = (old.index, old.generation);
            return Err(EngineError::Backwards { group, committed, committed_generation, index, generation });
        }
        if state.len() as u64 != begin.state_bytes {
            return Err(unfit("another one was begun"));
        }
        let chunks = Chunks { body: STATE_BODY, bytes: begin.state_bytes, crc: 0 }.count();
        let mut ledger = Ledger {
            index,
            term: Term(begin.term),
            generation,
            oldest: old.map_or(generation, |old| old.oldest),
            objects: staging.objects,
            digest: staging.digest,
            next_body: staging.next_body,
            seals: Vec::new(),
            cursor: Vec::new(),
        };
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for number in 0..chunks {
            batch.remove(&self.chunks, entry::chunk_key(group, generation, STATE_BODY, number));
        }
        let mut value = Vec::new();
        if staging.next_body > STATE_BODY + 1 {
            let key = entry::seal_key(group, generation, ledger.next_body);
            entry::seal(&mut value, &key, |_| ());
            batch.insert(&self.chunks, key, Slice::new(&value));
            ledger.seals.push(ledger.next_body);
            ledger.next_body += 1;
        }
        let key = entry::mark_key(group);
        entry::seal(&mut value, &key, |out| entry::put_mark(out, &ledger, standing, state));
        batch.insert(&self.objects, key, Slice::new(&value));
        batch.remove(&self.objects, entry::stage_key(group));
        batch.commit().map_err(|e| self.refusal(e))?;
        let mark = entry::mark(&ledger, standing, state);
        books.staged.remove(&group);
        books.ledgers.insert(group, ledger);
        Ok(mark)
    }

    /// Gives up what is staged for `group`, if anything is.
    pub fn drop_stage(&self, group: GroupId) -> Result<(), EngineError> {
        self.give_up(&mut self.books(), group)
    }

    pub(super) fn give_up(&self, books: &mut Books, group: GroupId) -> Result<(), EngineError> {
        let Some(staging) = books.staged.get(&group) else { return Ok(()) };
        let generation = staging.generation;
        let mut batch = self.database.batch();
        batch.remove(&self.objects, entry::stage_key(group));
        self.doom(&mut batch, group, generation..=generation);
        batch.commit().map_err(|e| self.refusal(e))?;
        books.staged.remove(&group);
        books.doom(group, generation..=generation);
        Ok(())
    }

    fn put_record(&self, batch: &mut OwnedWriteBatch, group: GroupId, staging: &Staging) {
        let (key, mut value) = (entry::stage_key(group), Vec::new());
        entry::seal(&mut value, &key, |out| staging.encode(out));
        batch.insert(&self.objects, key, Slice::new(&value));
    }

    /// The records of all staged snapshots, verified.
    pub fn stagings(&self) -> Result<Vec<(GroupId, Staging)>, EngineError> {
        let mut stagings = Vec::new();
        for guard in self.database.snapshot().prefix(&self.objects, b"s") {
            let (key, value) = guard.into_inner().map_err(|e| self.refusal(e))?;
            let damaged =
                |reason: &str| EngineError::corrupt(self.place(), format!("a staged snapshot {reason}"));
            let group = entry::stage_group(&key).ok_or_else(|| damaged("has a key of the wrong length"))?;
            let (_, content) = entry::unseal(&key, &value).ok_or_else(|| damaged("fails its checksum"))?;
            let staging = Staging::decode(content).map_err(|_| damaged("cannot be read"))?;
            stagings.push((group, staging));
        }
        Ok(stagings)
    }

    /// All objects and bodies of a staged generation, as its record says.
    fn read_back(&self, group: GroupId, staging: &Staging) -> Result<(), EngineError> {
        let snapshot = self.database.snapshot();
        let generation = staging.generation;
        let (mut objects, mut digest) = (0u64, 0u64);
        for guard in snapshot.prefix(&self.objects, entry::prefix(b'o', group, generation)) {
            let (key, value) =
                guard.into_inner().map_err(|e| EngineError::from_engine(Place::Group(group), e))?;
            let (crc, object) = read_object(group, &key, &value)?;
            if let Body::Chunked(chunks) = object.body {
                let place = || Place::Object { group, key: entry::user_key(&key).to_vec() };
                self.body(&snapshot, group, generation, chunks, &place)?;
            }
            objects += 1;
            digest = digest.wrapping_add(u64::from(crc));
        }
        if (objects, digest) != (staging.objects, staging.digest) {
            let reason = "the objects of its staged snapshot are not those that were staged";
            return Err(EngineError::corrupt(Place::Group(group), reason));
        }
        Ok(())
    }

    /// The state of a staged and checked snapshot.
    pub fn staged_state(&self, group: GroupId) -> Result<Vec<u8>, EngineError> {
        let staging = self.books().staged.get(&group).filter(|it| it.checked).cloned();
        let staging = staging.ok_or(EngineError::Unstageable { group, reason: "it was not checked" })?;
        let bytes = staging.begin.unwrap_or_default().state_bytes;
        let chunks = Chunks { body: STATE_BODY, bytes, crc: 0 };
        let snapshot = self.database.snapshot();
        let mut state = Vec::with_capacity(bytes as usize);
        for number in 0..chunks.count() {
            let place = || Place::Mark(group);
            let piece = self.piece(&snapshot, group, staging.generation, chunks, number, &place)?;
            state.extend_from_slice(entry::content(&piece));
        }
        Ok(state)
    }
}

impl Draft<'_> {
    fn take(&mut self, item: Item<'_>) -> Result<(), &'static str> {
        let staging = &self.staging;
        let begun = staging.begin;
        let open = staging.long.is_some();
        match (item, begun) {
            _ if staging.ended => Err("something follows its end"),
            (Item::Begin(begin), None) if begin.state_bytes > STATE_BYTES_MAX as u64 => {
                Err("its state is too long")
            }
            (Item::Begin(begin), None) => {
                self.staging.begin = Some(begin);
                Ok(())
            }
            (Item::Begin(_), Some(_)) => Err("it begins twice"),
            (_, None) => Err("it has no beginning"),
            (Item::State(piece), Some(begin)) => self.take_state(piece, begin.state_bytes),
            (_, Some(begin)) if staging.state_at < begin.state_bytes => Err("its state ends early"),
            (Item::Piece(piece), Some(_)) => self.take_piece(piece),
            (_, Some(_)) if open => Err("a body ends early"),
            (Item::Object { key, head, body }, Some(_)) => self.take_object(key, head, body),
            (Item::Long { key, head, bytes, crc }, Some(_)) => {
                self.take_key(key, head)?;
                if bytes == 0 || bytes > BODY_BYTES_MAX {
                    return Err("a body is too long");
                }
                let chunks = Chunks { body: self.staging.next_body, bytes, crc };
                self.staging.next_body += 1;
                self.staging.long = Some(Long { head: head.to_vec(), chunks, pieces: 0, crc: 0 });
                Ok(())
            }
            (Item::End, Some(begin)) if staging.objects != begin.objects => {
                Err("it has another number of objects")
            }
            (Item::End, Some(_)) => {
                self.staging.ended = true;
                Ok(())
            }
        }
    }

    fn take_state(&mut self, piece: &[u8], whole: u64) -> Result<(), &'static str> {
        let at = self.staging.state_at;
        let left = whole - at;
        if piece.len() as u64 != left.min(CHUNK_BYTES as u64) {
            return Err("a piece of its state has the wrong length");
        }
        let number = u32::try_from(at / CHUNK_BYTES as u64).map_err(|_| "its state is too long")?;
        self.put_chunk(STATE_BODY, number, piece);
        self.staging.state_at = at + piece.len() as u64;
        Ok(())
    }

    fn take_key(&mut self, key: &[u8], head: &[u8]) -> Result<(), &'static str> {
        if key.len() > KEY_BYTES_MAX || head.len() > HEAD_BYTES_MAX {
            return Err("a key or head is too long");
        }
        if self.staging.key.as_deref().is_some_and(|last| last >= key) {
            return Err("its keys do not ascend");
        }
        self.staging.key = Some(key.to_vec());
        Ok(())
    }

    fn take_object(&mut self, key: &[u8], head: &[u8], body: &[u8]) -> Result<(), &'static str> {
        self.take_key(key, head)?;
        if body.len() > CHUNK_BYTES {
            return Err("a short body is long");
        }
        let body = if body.len() <= self.inline_bytes_max {
            Body::Inline(body)
        } else {
            let chunks =
                Chunks { body: self.staging.next_body, bytes: body.len() as u64, crc: crc32fast::hash(body) };
            self.staging.next_body += 1;
            self.put_chunk(chunks.body, 0, body);
            Body::Chunked(chunks)
        };
        self.put_object(key, head, body);
        Ok(())
    }

    fn take_piece(&mut self, piece: &[u8]) -> Result<(), &'static str> {
        let Some(Long { head, chunks, pieces, crc }) = self.staging.long.take() else {
            return Err("a piece belongs to no body");
        };
        let left = chunks.bytes - u64::from(pieces) * CHUNK_BYTES as u64;
        if piece.len() as u64 != left.min(CHUNK_BYTES as u64) {
            return Err("a piece of a body has the wrong length");
        }
        self.put_chunk(chunks.body, pieces, piece);
        let mut hasher = crc32fast::Hasher::new_with_initial(crc);
        hasher.update(piece);
        let (pieces, crc) = (pieces + 1, hasher.finalize());
        if pieces < chunks.count() {
            self.staging.long = Some(Long { head, chunks, pieces, crc });
            return Ok(());
        }
        if crc != chunks.crc {
            return Err("a body fails its checksum");
        }
        let key = self.staging.key.clone().ok_or("a piece belongs to no body")?;
        self.put_object(&key, &head, Body::Chunked(chunks));
        Ok(())
    }

    fn put_chunk(&mut self, body: u64, number: u32, piece: &[u8]) {
        let (key, mut value) =
            (entry::chunk_key(self.group, self.staging.generation, body, number), Vec::new());
        entry::seal(&mut value, &key, |out| out.extend_from_slice(piece));
        self.chunk_bytes += value.len() as u64;
        self.batch.insert(&self.store.chunks, key, Slice::new(&value));
    }

    fn put_object(&mut self, key: &[u8], head: &[u8], body: Body<'_>) {
        let (mut name, mut value) = (Vec::new(), Vec::new());
        entry::object_key(&mut name, self.group, self.staging.generation, key);
        let crc = entry::seal(&mut value, &name, |out| entry::put_object(out, &Object { head, body }));
        self.object_bytes += (name.len() + value.len()) as u64;
        self.batch.insert(&self.store.objects, Slice::new(&name), Slice::new(&value));
        self.staging.objects += 1;
        self.staging.digest = self.staging.digest.wrapping_add(u64::from(crc));
    }

    fn finish(mut self) -> Result<Staging, EngineError> {
        let store = self.store;
        store.put_record(&mut self.batch, self.group, &self.staging);
        self.batch.commit().map_err(|e| store.refusal(e))?;
        store.settle(&store.objects, &store.buffered.objects, self.object_bytes)?;
        store.settle(&store.chunks, &store.buffered.chunks, self.chunk_bytes)?;
        Ok(self.staging)
    }
}

impl Staging {
    pub fn progress(&self) -> Progress {
        let cursor = (!self.ended).then(|| self.cursor.clone());
        Progress { name: self.name.clone(), cursor, bytes: self.bytes }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        put_bytes(out, &self.name);
        put_varint(out, u64::from(self.generation));
        put_bytes(out, &self.cursor);
        put_varint(out, self.bytes);
        put_varint(out, u64::from(self.crc));
        out.push(
            u8::from(self.begin.is_some())
                | u8::from(self.key.is_some()) << 1
                | u8::from(self.long.is_some()) << 2
                | u8::from(self.ended) << 3
                | u8::from(self.checked) << 4,
        );
        let begin = self.begin.unwrap_or_default();
        for number in [begin.index, begin.term, begin.objects, begin.state_bytes, self.state_at, self.objects]
        {
            put_varint(out, number);
        }
        out.extend_from_slice(&self.digest.to_le_bytes());
        put_varint(out, self.next_body);
        put_bytes(out, self.key.as_deref().unwrap_or_default());
        if let Some(Long { head, chunks, pieces, crc }) = &self.long {
            put_bytes(out, head);
            for number in [chunks.body, chunks.bytes, chunks.crc.into(), (*pieces).into(), (*crc).into()] {
                put_varint(out, number);
            }
        }
    }

    fn decode(content: &[u8]) -> Result<Staging, DecodeError> {
        let mut reader = Reader::new(content);
        if reader.u8()? != RECORD_VERSION {
            return Err(DecodeError::Invalid);
        }
        let small = |number: u64| u32::try_from(number).map_err(|_| DecodeError::Overflow);
        let name = reader.bytes()?.to_vec();
        let generation = small(reader.varint()?)?;
        let cursor = reader.bytes()?.to_vec();
        let (bytes, crc, flags) = (reader.varint()?, small(reader.varint()?)?, reader.u8()?);
        let has = |flag: u8| flags >> flag & 1 == 1;
        let begin = Begin {
            index: reader.varint()?,
            term: reader.varint()?,
            objects: reader.varint()?,
            state_bytes: reader.varint()?,
        };
        let (state_at, objects, digest) = (reader.varint()?, reader.varint()?, reader.u64()?);
        let (next_body, key) = (reader.varint()?, reader.bytes()?.to_vec());
        let long = if has(2) {
            let head = reader.bytes()?.to_vec();
            let (body, bytes, crc) = (reader.varint()?, reader.varint()?, small(reader.varint()?)?);
            let chunks = Chunks { body, bytes, crc };
            Some(Long { head, chunks, pieces: small(reader.varint()?)?, crc: small(reader.varint()?)? })
        } else {
            None
        };
        if !reader.is_empty() {
            return Err(DecodeError::Invalid);
        }
        Ok(Staging {
            name,
            generation,
            cursor,
            bytes,
            crc,
            begin: has(0).then_some(begin),
            state_at,
            key: has(1).then_some(key),
            long,
            ended: has(3),
            objects,
            digest,
            next_body,
            checked: has(4),
        })
    }
}
