//! The sending side of a snapshot: a checkpoint that is held while it is read, whatever is committed and swept meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fjall::{Readable, Slice, Snapshot};

use sha2::{Digest as _, Sha256};

use super::entry::{Chunks, Object};
use super::store::{Store, read_mark, read_object};
use super::stream::{Begin, Cursor, Item};
use super::*;

/// Cuts of one group that are held for followers at a time: the one that they read least recently goes first.
const CUTS_MAX: usize = 2;
/// Backups that read one group at a time; another one is refused.
const BACKUPS_MAX: usize = 4;
/// A backup that has read nothing of a cut for so long is thought to be gone, and holds it no more, in seconds.
const BACKUP_SILENCE_SECONDS_MAX: u64 = 120;
/// Bytes that are read at a time while a cut is measured.
const MEASURE_BYTES: usize = 256 * 1024;

/// Who reads a cut. It is held for each of its readers until that one releases it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Members that get it as a snapshot; whoever sends it to them releases it once for all, and with it what they read of
    /// the group before it.
    Followers,
    /// A backup under a number of its own. It may fall silent for two minutes and has lost its cut then.
    Backup(u64),
}

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

struct Held<C = Cut> {
    /// By group and generation.
    cuts: BTreeMap<(GroupId, u64), Kept<C>>,
    reads: u64,
    /// What was last measured for a backup, of each group.
    measured: BTreeMap<GroupId, (Print, Measure)>,
}

/// SHA-256 of a mark as it is on the disk. It has the index, the term, the sum of all objects' checksums and the state, and
/// one engine does not come back to an earlier one while it is open, so the same mark is the same checkpoint there.
type Print = [u8; 32];

/// How long a cut's stream is, and its checksum.
#[derive(Clone, Copy)]
struct Measure {
    bytes: u64,
    checksum: u64,
}

/// A cut with its readers; it goes with the last of them.
struct Kept<C> {
    cut: Arc<C>,
    /// The number of the followers' last read, if it is held for them.
    followers: Option<u64>,
    /// The backups that read it, and when they last did.
    backups: BTreeMap<u64, Instant>,
}

impl<C> Default for Held<C> {
    fn default() -> Held<C> {
        Held { cuts: BTreeMap::new(), reads: 0, measured: BTreeMap::new() }
    }
}

impl<C> Kept<C> {
    fn is_held(&self) -> bool {
        self.followers.is_some() || !self.backups.is_empty()
    }

    fn has(&self, reader: Reader) -> bool {
        match reader {
            Reader::Followers => self.followers.is_some(),
            Reader::Backup(number) => self.backups.contains_key(&number),
        }
    }

    fn note(&mut self, reader: Reader, reads: u64, now: Instant) {
        match reader {
            Reader::Followers => self.followers = Some(reads),
            Reader::Backup(number) => {
                self.backups.insert(number, now);
            }
        }
    }
}

impl<C> Held<C> {
    /// The cut, if it is held for anybody and there may be one more reader of it; from now on it is for this one too.
    fn read(&mut self, now: Instant, key: (GroupId, u64), reader: Reader) -> Option<Arc<C>> {
        let kept = self.cuts.get_mut(&key)?;
        let cut = Arc::clone(&kept.cut);
        if !kept.has(reader) {
            return self.keep(now, key, Arc::clone(&cut), reader).then_some(cut);
        }
        self.reads += 1;
        kept.note(reader, self.reads, now);
        Some(cut)
    }

    /// Holds a cut for a reader, whose other cuts of the group may go for it; false if too many backups read the group.
    fn keep(&mut self, now: Instant, key: (GroupId, u64), cut: Arc<C>, reader: Reader) -> bool {
        self.forget_silent(now);
        let group = key.0;
        if let Reader::Backup(number) = reader {
            let readers = self.of(group).flat_map(|(_, kept)| kept.backups.keys());
            let others: BTreeSet<u64> = readers.copied().filter(|other| *other != number).collect();
            if others.len() >= BACKUPS_MAX {
                return false;
            }
            // It goes on with another one.
            let own = self.cuts.range_mut((group, 0)..=(group, u64::MAX));
            for (_, kept) in own.filter(|(other, _)| **other != key) {
                kept.backups.remove(&number);
            }
        }
        self.reads += 1;
        let kept = self.cuts.entry(key).or_insert(Kept { cut, followers: None, backups: BTreeMap::new() });
        kept.note(reader, self.reads, now);
        let mut read: Vec<_> =
            self.of(group).filter_map(|(key, kept)| Some((kept.followers?, *key))).collect();
        read.sort_unstable();
        let surplus = read.len().saturating_sub(CUTS_MAX);
        for (_, key) in read.into_iter().take(surplus) {
            self.let_go(key, Reader::Followers);
        }
        self.cuts.retain(|_, kept| kept.is_held());
        true
    }

    fn of(&self, group: GroupId) -> impl Iterator<Item = (&(GroupId, u64), &Kept<C>)> {
        self.cuts.range((group, 0)..=(group, u64::MAX))
    }

    /// The reader needs the cut no more. Of followers it means all cuts up to this one: who sends them forgets older ones
    /// without a word.
    fn release(&mut self, key: (GroupId, u64), reader: Reader) {
        let (group, generation) = key;
        let first = match reader {
            Reader::Followers => 0,
            Reader::Backup(_) => generation,
        };
        let keys: Vec<_> = self.cuts.range((group, first)..=key).map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.let_go(key, reader));
    }

    fn let_go(&mut self, key: (GroupId, u64), reader: Reader) {
        let Some(kept) = self.cuts.get_mut(&key) else { return };
        match reader {
            Reader::Followers => kept.followers = None,
            Reader::Backup(number) => {
                kept.backups.remove(&number);
            }
        }
        if !kept.is_held() {
            self.cuts.remove(&key);
        }
    }

    /// Who has read nothing for too long holds nothing.
    fn forget_silent(&mut self, now: Instant) {
        let limit = Duration::from_secs(BACKUP_SILENCE_SECONDS_MAX);
        self.cuts.retain(|_, kept| {
            kept.backups.retain(|_, read| now.saturating_duration_since(*read) < limit);
            kept.is_held()
        });
    }
}

struct Cut {
    snapshot: Snapshot,
    ledger: Ledger,
    mark: Mark,
    print: Print,
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
    /// Holds the group's checkpoint as it is now for a reader, and reads all of it once, unless that was done for a backup.
    pub fn make_cut(&self, group: GroupId, reader: Reader) -> Result<CutInfo, EngineError> {
        let cut = Arc::new(self.hold(group)?);
        let (generation, mark) = (cut.mark.index.0, cut.mark.clone());
        // Before the work, so that a backup too many costs nothing.
        self.keep(group, Arc::clone(&cut), reader)?;
        let known = match reader {
            Reader::Followers => None,
            Reader::Backup(_) => self.cuts.lock().measured.get(&group).copied(),
        };
        let measured = match known.filter(|(print, _)| *print == cut.print) {
            Some((_, measure)) => Ok(measure),
            None => self.measure(group, &cut),
        };
        let Measure { bytes, checksum } =
            measured.inspect_err(|_| self.cuts.lock().let_go((group, generation), reader))?;
        if matches!(reader, Reader::Backup(_)) {
            self.cuts.lock().measured.insert(group, (cut.print, Measure { bytes, checksum }));
        }
        // Who waited for that was not silent.
        self.keep(group, cut, reader)?;
        Ok(CutInfo { generation, bytes, checksum, mark })
    }

    fn measure(&self, group: GroupId, cut: &Cut) -> Result<Measure, EngineError> {
        let (mut crc, mut bytes) = (crc32fast::Hasher::new(), 0u64);
        let (mut cursor, mut tally) = (Cursor::Begin, Tally::default());
        let mut out = Vec::new();
        loop {
            out.clear();
            let next = self.read(group, cut, &cursor, MEASURE_BYTES, &mut out, &mut tally)?;
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
        Ok(Measure { bytes, checksum: checksum(crc.finalize(), objects) })
    }

    /// Reads on at `cursor`. The cut is held anew if it was let go and the checkpoint is still the same.
    pub fn read_cut(
        &self,
        group: GroupId,
        generation: u64,
        cursor: &[u8],
        bytes_max: usize,
        reader: Reader,
    ) -> Result<Lot, EngineError> {
        let none = || EngineError::NoSuchCut { group, generation };
        let cursor = Cursor::decode(cursor).map_err(|_| none())?;
        let held = self.cuts.lock().read(Instant::now(), (group, generation), reader);
        let cut = match held {
            Some(cut) => cut,
            None => {
                let cut = Arc::new(self.hold(group)?);
                if cut.mark.index.0 != generation {
                    return Err(none());
                }
                self.keep(group, Arc::clone(&cut), reader)?;
                cut
            }
        };
        let mut bytes = Vec::with_capacity(bytes_max);
        let next = self.read(group, &cut, &cursor, bytes_max, &mut bytes, &mut Tally::default())?;
        Ok(Lot { bytes, next: next.map(|cursor| cursor.encode()) })
    }

    /// Holds one of the group's cuts no more for a reader.
    pub fn release_cut(&self, group: GroupId, generation: u64, reader: Reader) {
        self.cuts.lock().release((group, generation), reader);
    }

    /// Holds no more what nobody reads any more.
    pub fn release_silent(&self) {
        self.cuts.lock().forget_silent(Instant::now());
    }

    /// Lets the group's cuts go.
    pub fn release_cuts(&self, group: GroupId) {
        let mut held = self.cuts.lock();
        held.measured.remove(&group);
        held.cuts.retain(|(other, _), _| *other != group);
    }

    fn hold(&self, group: GroupId) -> Result<Cut, EngineError> {
        let snapshot = self.database.snapshot();
        let key = entry::mark_key(group);
        let found =
            snapshot.get(&self.objects, key).map_err(|e| EngineError::from_engine(Place::Mark(group), e))?;
        let found = found.ok_or(EngineError::NoSuchGroup(group))?;
        let (ledger, mark) = read_mark(group, &key, &found)?;
        self.check_seal(&snapshot, group, &ledger)?;
        let print = Sha256::digest(&found).into();
        Ok(Cut { snapshot, ledger, mark, print })
    }

    fn keep(&self, group: GroupId, cut: Arc<Cut>, reader: Reader) -> Result<(), EngineError> {
        let key = (group, cut.mark.index.0);
        let kept = self.cuts.lock().keep(Instant::now(), key, cut, reader);
        if kept { Ok(()) } else { Err(EngineError::CutsInUse { group, backups: BACKUPS_MAX }) }
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

#[cfg(test)]
mod tests {
    use kernel::KeyspaceId;

    use super::*;

    const GROUP: GroupId = GroupId::new(KeyspaceId(1), 0);

    /// A reader's act on the cut of an index, this many seconds after the beginning.
    enum Act {
        Keep(u64, Reader, u64),
        Read(u64, Reader, u64),
        Release(u64, Reader),
        Tidy(u64),
    }

    /// The indexes whose cuts are held in the end; of what was refused, nothing is.
    fn held(acts: &[Act]) -> Vec<u64> {
        let (start, mut held) = (Instant::now(), Held::<()>::default());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        for act in acts {
            match *act {
                Act::Keep(index, reader, then) => {
                    held.keep(at(then), (GROUP, index), Arc::new(()), reader);
                }
                Act::Read(index, reader, then) => drop(held.read(at(then), (GROUP, index), reader)),
                Act::Release(index, reader) => held.release((GROUP, index), reader),
                Act::Tidy(then) => held.forget_silent(at(then)),
            }
        }
        held.cuts.keys().map(|(_, index)| *index).collect()
    }

    #[test]
    fn a_cut_is_held_until_each_of_its_readers_has_released_it_or_fallen_silent() {
        use Act::{Keep, Read, Release, Tidy};
        use Reader::{Backup, Followers};
        let late = BACKUP_SILENCE_SECONDS_MAX;
        #[rustfmt::skip] // columns
        let table = [
            (vec![Keep(9, Followers, 0), Keep(9, Backup(1), 0), Release(9, Backup(1))],                 vec![9]),
            (vec![Keep(9, Followers, 0), Keep(9, Backup(1), 0), Release(9, Followers)],                 vec![9]),
            (vec![Keep(9, Backup(1), 0), Keep(9, Backup(2), 0), Release(9, Backup(1))],                 vec![9]),
            (vec![Keep(9, Followers, 0), Keep(9, Backup(1), 0), Release(9, Followers), Release(9, Backup(1))], vec![]),
            (vec![Keep(9, Backup(1), 0), Release(9, Backup(2)), Release(8, Backup(1))],                 vec![9]),
            // Backups do not push out what followers read, nor followers each other's but the oldest.
            (vec![Keep(1, Followers, 0), Keep(2, Backup(1), 0), Keep(3, Backup(2), 0), Keep(4, Backup(3), 0)], vec![1, 2, 3, 4]),
            (vec![Keep(1, Followers, 0), Keep(2, Followers, 0), Keep(3, Followers, 0)],                 vec![2, 3]),
            (vec![Keep(1, Followers, 0), Keep(2, Followers, 0), Read(1, Followers, 0), Keep(3, Followers, 0)], vec![1, 3]),
            // Whoever sends them may know only the last of them, and what was read before it is not read any more.
            (vec![Keep(1, Followers, 0), Keep(2, Followers, 0), Read(1, Followers, 0), Keep(3, Followers, 0), Release(2, Followers), Release(3, Followers)], vec![]),
            (vec![Keep(1, Followers, 0), Keep(2, Followers, 0), Release(1, Followers)],                 vec![2]),
            (vec![Keep(1, Backup(1), 0), Keep(2, Followers, 0), Release(2, Followers)],                 vec![1]),
            // A backup has one cut of a group, and there are so many backups of it at once.
            (vec![Keep(1, Backup(1), 0), Keep(2, Backup(1), 0)],                                        vec![2]),
            ((1..=BACKUPS_MAX as u64 + 1).map(|n| Keep(n, Backup(n), 0)).collect(),                     vec![1, 2, 3, 4]),
            // Who is silent is gone, at the latest when somebody else comes.
            (vec![Keep(1, Backup(1), 0), Tidy(late - 1)],                                               vec![1]),
            (vec![Keep(1, Backup(1), 0), Tidy(late)],                                                   vec![]),
            (vec![Keep(1, Backup(1), 0), Read(1, Backup(1), late - 1), Tidy(late)],                     vec![1]),
            (vec![Keep(1, Backup(1), 0), Read(1, Followers, 5), Tidy(late)],                            vec![1]),
            (vec![Keep(1, Backup(1), 0), Keep(2, Backup(2), late)],                                     vec![2]),
        ];
        for (row, (acts, expected)) in table.into_iter().enumerate() {
            assert_eq!(held(&acts), expected, "row {row}");
        }
    }

    #[test]
    fn whoever_reads_a_cut_for_the_first_time_is_counted() {
        let (now, mut held) = (Instant::now(), Held::<()>::default());
        assert!(held.keep(now, (GROUP, 1), Arc::new(()), Reader::Followers));
        let others = BACKUPS_MAX as u64;
        let admitted =
            (1..=others + 3).filter(|&n| held.read(now, (GROUP, 1), Reader::Backup(n)).is_some()).count();
        assert_eq!(admitted, BACKUPS_MAX);
        assert!(held.read(now, (GROUP, 1), Reader::Backup(1)).is_some(), "it goes on");
        assert!(held.read(now, (GROUP, 1), Reader::Followers).is_some(), "they are not counted");
        held.release((GROUP, 1), Reader::Backup(1));
        assert!(held.keep(now, (GROUP, 2), Arc::new(()), Reader::Backup(others + 3)));
    }
}
