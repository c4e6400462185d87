//! The sending side of a snapshot: a checkpoint that is held while it is read, whatever is committed and swept meanwhile.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fjall::{Readable, Slice, Snapshot};

use super::entry::{Chunks, Object};
use super::store::{Store, read_mark, read_object};
use super::stream::{Begin, Cursor, Item};
use super::*;

/// Cuts of one group that are held at a time: the least recently read one goes first.
const CUTS_MAX: usize = 2;
/// Bytes that are read at a time while a cut is measured.
const MEASURE_BYTES: usize = 256 * 1024;

/// What a held checkpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutInfo {
    /// Names it among the group's cuts of this engine; the same number is the same bytes.
    pub generation: u64,
    /// Bytes of its stream.
    pub bytes: u64,
    /// The stream's checksum.
    pub checksum: u64,
    /// The checkpoint's mark.
    pub mark: Mark,
}

/// A part of a cut's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lot {
    /// Whole items.
    pub bytes: Vec<u8>,
    /// Where the next lot begins; `None` at the end.
    pub next: Option<Vec<u8>>,
}

/// All held cuts.
#[derive(Default)]
pub struct Cuts(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// By group and generation, with the time of the last read.
    cuts: BTreeMap<(GroupId, u64), (u64, Arc<Cut>)>,
    reads: u64,
}

struct Cut {
    snapshot: Snapshot,
    ledger: Ledger,
    mark: Mark,
}

/// What was read of a cut, to be compared with its ledger.
#[derive(Default)]
struct Tally {
    objects: u64,
    digest: u64,
}

impl Cuts {
    fn lock(&self) -> MutexGuard<'_, Held> {
        // A cut is added or removed whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Holds the group's checkpoint as it is now and reads all of it once.
    pub fn make_cut(&self, group: GroupId) -> Result<CutInfo, EngineError> {
        let cut = Arc::new(self.hold(group)?);
        let (mut crc, mut bytes) = (crc32fast::Hasher::new(), 0u64);
        let (mut cursor, mut tally) = (Cursor::Begin, Tally::default());
        let mut out = Vec::new();
        loop {
            out.clear();
            let next = self.read(group, &cut, &cursor, MEASURE_BYTES, &mut out, &mut tally)?;
            crc.update(&out);
            bytes += out.len() as u64;
            match next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        let Ledger { objects, digest, .. } = cut.ledger;
        if (tally.objects, tally.digest) != (objects, digest) {
            let reason = format!("the objects are not those of the mark at index {}", cut.mark.index);
            return Err(EngineError::corrupt(Place::Group(group), reason));
        }
        let checksum = checksum(crc.finalize(), objects);
        let (generation, mark) = (cut.mark.index.0, cut.mark.clone());
        self.keep(group, cut);
        Ok(CutInfo { generation, bytes, checksum, mark })
    }

    /// Reads on at `cursor`. The cut is held anew if it was let go and the checkpoint is still the same.
    pub fn read_cut(
        &self,
        group: GroupId,
        generation: u64,
        cursor: &[u8],
        bytes_max: usize,
    ) -> Result<Lot, EngineError> {
        let none = || EngineError::NoSuchCut { group, generation };
        let cursor = Cursor::decode(cursor).map_err(|_| none())?;
        let held = {
            let mut held = self.cuts.lock();
            held.reads += 1;
            let reads = held.reads;
            held.cuts.get_mut(&(group, generation)).map(|(read, cut)| {
                *read = reads;
                Arc::clone(cut)
            })
        };
        let cut = match held {
            Some(cut) => cut,
            None => {
                let cut = Arc::new(self.hold(group)?);
                if cut.mark.index.0 != generation {
                    return Err(none());
                }
                self.keep(group, Arc::clone(&cut));
                cut
            }
        };
        let mut bytes = Vec::with_capacity(bytes_max);
        let next = self.read(group, &cut, &cursor, bytes_max, &mut bytes, &mut Tally::default())?;
        Ok(Lot { bytes, next: next.map(|cursor| cursor.encode()) })
    }

    /// Lets one of the group's cuts go.
    pub fn release_cut(&self, group: GroupId, generation: u64) {
        self.cuts.lock().cuts.remove(&(group, generation));
    }

    /// Lets the group's cuts go.
    pub fn release_cuts(&self, group: GroupId) {
        self.cuts.lock().cuts.retain(|(other, _), _| *other != group);
    }

    fn hold(&self, group: GroupId) -> Result<Cut, EngineError> {
        let snapshot = self.database.snapshot();
        let key = entry::mark_key(group);
        let found =
            snapshot.get(&self.objects, key).map_err(|e| EngineError::from_engine(Place::Mark(group), e))?;
        let found = found.ok_or(EngineError::NoSuchGroup(group))?;
        let (ledger, mark) = read_mark(group, &key, &found)?;
        self.check_seal(&snapshot, group, &ledger)?;
        Ok(Cut { snapshot, ledger, mark })
    }

    fn keep(&self, group: GroupId, cut: Arc<Cut>) {
        let mut held = self.cuts.lock();
        held.reads += 1;
        let reads = held.reads;
        held.cuts.insert((group, cut.mark.index.0), (reads, cut));
        let own = held.cuts.range((group, 0)..=(group, u64::MAX));
        let surplus = own.clone().count().saturating_sub(CUTS_MAX);
        let mut oldest: Vec<_> = own.map(|(key, (read, _))| (*read, *key)).collect();
        oldest.sort_unstable();
        for (_, key) in oldest.into_iter().take(surplus) {
            held.cuts.remove(&key);
        }
    }

    /// Appends items from `cursor` on until there are `bytes_max` bytes or more.
    fn read(
        &self,
        group: GroupId,
        cut: &Cut,
        cursor: &Cursor,
        bytes_max: usize,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> Result<Option<Cursor>, EngineError> {
        let mut cursor = cursor.clone();
        loop {
            let next = match &cursor {
                Cursor::Begin => {
                    let (index, term) = (cut.mark.index.0, cut.mark.term.0);
                    let (objects, state_bytes) = (cut.mark.objects, cut.mark.state.len() as u64);
                    Item::Begin(Begin { index, term, objects, state_bytes }).encode(out);
                    Cursor::State(0)
                }
                Cursor::State(at) => match cut.mark.state.get(*at as usize..) {
                    Some(rest) if !rest.is_empty() => {
                        let piece = &rest[..rest.len().min(CHUNK_BYTES)];
                        Item::State(piece).encode(out);
                        Cursor::State(at + piece.len() as u64)
                    }
                    Some(_) | None => match self.read_objects(group, cut, None, bytes_max, out, tally)? {
                        Some(next) => next,
                        None => return Ok(None),
                    },
                },
                Cursor::After(key) => {
                    match self.read_objects(group, cut, Some(key), bytes_max, out, tally)? {
                        Some(next) => next,
                        None => return Ok(None),
                    }
                }
                Cursor::Within(key, piece) => self.read_body(group, cut, key, *piece, bytes_max, out)?,
            };
            if out.len() >= bytes_max {
                return Ok(Some(next));
            }
            cursor = next;
        }
    }

    /// Appends the objects behind `after` up to the first long one, or the end if there are no more.
    fn read_objects(
        &self,
        group: GroupId,
        cut: &Cut,
        after: Option<&[u8]>,
        bytes_max: usize,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> Result<Option<Cursor>, EngineError> {
        let generation = cut.ledger.generation;
        let mut first = Vec::new();
        entry::object_key(&mut first, group, generation, after.unwrap_or_default());
        let start = if after.is_none() { Bound::Included(&first[..]) } else { Bound::Excluded(&first[..]) };
        let end = entry::beyond(b'o', group, generation);
        let range = (start.map(Slice::new), Bound::Excluded(Slice::new(&end)));
        let mut last = Slice::new(&first);
        for guard in cut.snapshot.range(&self.objects, range) {
            let (found, value) = guard.into_inner().map_err(|e| {
                let key = entry::user_key(&last).to_vec();
                EngineError::from_engine(Place::After { group, key }, e)
            })?;
            let (crc, object) = read_object(group, &found, &value)?;
            tally.objects += 1;
            tally.digest = tally.digest.wrapping_add(u64::from(crc));
            let (key, head) = (entry::user_key(&found), object.head);
            match object.body {
                Body::Inline(body) => Item::Object { key, head, body }.encode(out),
                Body::Chunked(Chunks { bytes, crc, .. }) => {
                    Item::Long { key, head, bytes, crc }.encode(out);
                    return Ok(Some(Cursor::Within(key.to_vec(), 0)));
                }
            }
            if out.len() >= bytes_max {
                return Ok(Some(Cursor::After(key.to_vec())));
            }
            last = found;
        }
        Item::End.encode(out);
        Ok(None)
    }

    /// Appends pieces of a long body.
    fn read_body(
        &self,
        group: GroupId,
        cut: &Cut,
        key: &[u8],
        first: u32,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<Cursor, EngineError> {
        let place = || Place::Object { group, key: key.to_vec() };
        let generation = cut.ledger.generation;
        let mut name = Vec::new();
        entry::object_key(&mut name, group, generation, key);
        let found =
            cut.snapshot.get(&self.objects, &name).map_err(|e| EngineError::from_engine(place(), e))?;
        // Only a peer can have made the cursor up.
        let none = || EngineError::NoSuchCut { group, generation: cut.mark.index.0 };
        let found = found.ok_or_else(none)?;
        let (_, Object { body: Body::Chunked(chunks), .. }) = read_object(group, &name, &found)? else {
            return Err(none());
        };
        for number in first..chunks.count() {
            let piece = self.piece(&cut.snapshot, group, generation, chunks, number, &place)?;
            Item::Piece(entry::content(&piece)).encode(out);
            if out.len() >= bytes_max && number + 1 < chunks.count() {
                return Ok(Cursor::Within(key.to_vec(), number + 1));
            }
        }
        Ok(Cursor::After(key.to_vec()))
    }
}

/// The checksum of a stream with so many objects.
pub fn checksum(crc: u32, objects: u64) -> u64 {
    objects << 32 | u64::from(crc)
}
