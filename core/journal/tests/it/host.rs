//! A host that performs what the journal asks, on a disk made of memory.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;

use journal::commit::{Need, SEGMENT_BYTES_MIN, State, Sync, Written};
use journal::record::{Frame, HEADER_BYTES, Header, Seed};
use journal::{
    Commit, Durability, Entry, HardState, Record, Recover, Recovered, Refusal, Refused, Salt, SegmentId,
};
use kernel::{GroupId, Index, Lsn, Micros, Rng, Term};

pub const SALT: Salt = Salt(0x5EED);
const SECTOR_BYTES: usize = 512;

/// A record that owns its body.
#[derive(Clone, PartialEq, Eq)]
pub enum Owned {
    Entry { group: u32, index: u64, body: Vec<u8> },
    HardState { group: u32, term: u64, vote: u64 },
    Reset { group: u32, index: u64, term: u64 },
    Abandon { group: u32 },
    Committed { group: u32, index: u64 },
}

impl std::fmt::Debug for Owned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Owned::Entry { group, index, body } => write!(f, "{group}:{index} ({} bytes)", body.len()),
            Owned::HardState { group, term, vote } => write!(f, "{group}:term {term} vote {vote}"),
            Owned::Reset { group, index, term } => write!(f, "{group}:reset {index} of term {term}"),
            Owned::Abandon { group } => write!(f, "{group}:abandon"),
            Owned::Committed { group, index } => write!(f, "{group}:committed {index}"),
        }
    }
}

impl Owned {
    pub fn record(&self) -> Record<'_> {
        match self {
            Owned::Entry { group, index, body } => Record::Entry(Entry {
                group: GroupId(*group),
                term: Term(1),
                index: Index(*index),
                semantics: 1,
                time: Micros(*index),
                body,
            }),
            Owned::HardState { group, term, vote } => Record::HardState(HardState {
                group: GroupId(*group),
                term: Term(*term),
                vote: NonZeroU64::new(*vote),
            }),
            Owned::Reset { group, index, term } => {
                Record::Reset { group: GroupId(*group), index: Index(*index), term: Term(*term) }
            }
            Owned::Abandon { group } => Record::Abandon { group: GroupId(*group) },
            Owned::Committed { group, index } => {
                Record::Committed { group: GroupId(*group), index: Index(*index) }
            }
        }
    }
}

impl From<Record<'_>> for Owned {
    fn from(record: Record<'_>) -> Owned {
        match record {
            Record::Entry(Entry { group, index, body, .. }) => {
                Owned::Entry { group: group.0, index: index.0, body: body.to_vec() }
            }
            Record::HardState(HardState { group, term, vote }) => {
                Owned::HardState { group: group.0, term: term.0, vote: vote.map_or(0, NonZeroU64::get) }
            }
            Record::Reset { group, index, term } => {
                Owned::Reset { group: group.0, index: index.0, term: term.0 }
            }
            Record::Abandon { group } => Owned::Abandon { group: group.0 },
            Record::Committed { group, index } => Owned::Committed { group: group.0, index: index.0 },
        }
    }
}

pub type Segments = BTreeMap<SegmentId, Vec<u8>>;

/// The journal and its disk. `cache` is what programs read, `durable` what a power cut leaves for sure.
pub struct Host {
    pub commit: Commit,
    pub cache: Segments,
    pub durable: Segments,
    pub retired: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Host {
    pub fn new() -> Host {
        let mut host = Host::of(State::fresh(SALT), Segments::new());
        host.append(&[]);
        host.sync();
        host
    }

    fn of(state: State, disk: Segments) -> Host {
        let commit = Commit::new(SEGMENT_BYTES_MIN, state);
        Host { commit, cache: disk.clone(), durable: disk, retired: VecDeque::new(), buffer: Vec::new() }
    }

    pub fn append(&mut self, records: &[Owned]) -> Lsn {
        let records: Vec<Record<'_>> = records.iter().map(Owned::record).collect();
        loop {
            match self.commit.append(Micros(0), &records, Durability::Always, &mut self.buffer) {
                Ok(written) => {
                    self.write(&written);
                    return written.end;
                }
                Err(Refused::Unprepared(need)) => self.prepare(need),
                Err(refused) => panic!("{refused}"),
            }
        }
    }

    pub fn mark(&mut self) {
        if let Some(written) = self.commit.mark(&mut self.buffer) {
            self.write(&written);
        }
    }

    fn write(&mut self, written: &Written) {
        for write in written.seal.iter().chain([&written.batch]) {
            let bytes = &self.buffer[write.bytes.clone()];
            let file = self.cache.get_mut(&write.segment).expect("written after it was prepared");
            file[write.offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
    }

    fn prepare(&mut self, need: Need) {
        let recycled = (need.bytes == SEGMENT_BYTES_MIN).then(|| self.retired.pop_front()).flatten();
        let bytes = recycled.unwrap_or_else(|| vec![0; need.bytes as usize]);
        self.cache.insert(need.id, bytes.clone());
        self.durable.insert(need.id, bytes);
        self.commit.prepared(need);
    }

    pub fn sync(&mut self) {
        let Some(Sync { end, segments }) = self.commit.begin_sync() else { return };
        for id in segments {
            self.durable.insert(id, self.cache[&id].clone());
        }
        self.commit.synced(end);
    }

    /// Checkpoints `group` and recycles what that frees.
    pub fn checkpoint(&mut self, group: u32, index: u64) {
        self.commit.checkpoint(GroupId(group), Index(index));
        while let Some(id) = self.commit.retire() {
            self.durable.remove(&id);
            let bytes = self.cache.remove(&id).expect("a retired segment was kept until now");
            if bytes.len() as u64 == SEGMENT_BYTES_MIN {
                self.retired.push_back(bytes);
            }
        }
    }

    /// What a power cut leaves: of what was not synced, each sector may be there or not; or each file is
    /// new up to one place and old behind it.
    pub fn power_cut(&self, rng: &mut Rng) -> Segments {
        let mut disk = self.durable.clone();
        let (kept, torn) = (rng.unit(), rng.chance(0.5));
        for (id, bytes) in &mut disk {
            let new = &self.cache[id];
            if torn {
                let changed = |(old, new): (&u8, &u8)| old != new;
                let first = bytes.iter().zip(new).position(changed).unwrap_or(0);
                let last = bytes.iter().zip(new).rposition(changed).unwrap_or(0);
                let tear = (first + rng.below((last - first) as u64 + 1) as usize).next_multiple_of(8);
                let tear = tear.min(bytes.len());
                bytes[..tear].copy_from_slice(&new[..tear]);
                continue;
            }
            for (old, new) in bytes.chunks_mut(SECTOR_BYTES).zip(new.chunks(SECTOR_BYTES)) {
                if old != new && rng.chance(kept) {
                    old.copy_from_slice(new);
                }
            }
        }
        disk
    }

    /// Reads `disk` back, cleans up as told, and goes on.
    pub fn reopen(mut disk: Segments, retired: VecDeque<Vec<u8>>) -> Result<(Host, Vec<Owned>), Refusal> {
        let (found, records) = recover(&disk)?;
        let Recovered { state, wipe, discard, .. } = found;
        let next = state.next;
        for id in discard.iter().rev() {
            if state.active.is_none() && *id == next {
                disk.insert(next, vec![0; SEGMENT_BYTES_MIN as usize]);
            } else {
                disk.remove(id);
            }
        }
        if let (Some(active), Some(wipe)) = (state.active, wipe) {
            let file = disk.get_mut(&active.id).expect("the active segment was read");
            file[wipe.start as usize..wipe.end as usize].fill(0);
        }
        let mut host = Host::of(state, disk);
        host.retired = retired;
        if host.commit.active().is_none() {
            host.commit.prepared(Need { id: next, bytes: SEGMENT_BYTES_MIN });
        }
        Ok((host, records))
    }
}

/// Reads the segments back as they are.
pub fn recover(disk: &Segments) -> Result<(Recovered, Vec<Owned>), Refusal> {
    let mut recover = Recover::new();
    let mut records = Vec::new();
    for (&id, bytes) in disk {
        recover.segment(id, bytes, &mut |_, record| records.push(Owned::from(record)))?;
    }
    Ok((recover.finish()?.expect("the disk has a segment"), records))
}

/// A batch whose entries all take the same room, so that frames of different lives line up.
pub fn even_batch(rng: &mut Rng, next: &mut [u64; 4]) -> Vec<Owned> {
    (0..4 * rng.below(4))
        .map(|_| {
            next[0] += 1;
            Owned::Entry { group: 0, index: next[0], body: vec![rng.next_u64() as u8; 512 - 40] }
        })
        .collect()
}

/// The records without the copies that begin each segment. Terms must be unique for this.
pub fn originals(records: Vec<Owned>) -> Vec<Owned> {
    let mut seen = Vec::new();
    records
        .into_iter()
        .filter(|record| {
            let Owned::HardState { term, .. } = record else { return true };
            let new = !seen.contains(term);
            seen.push(*term);
            new
        })
        .collect()
}

/// A header or frame of an intact log.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub segment: SegmentId,
    pub offset: usize,
    pub bytes: usize,
    pub lsn: u64,
    /// What it states to be synced.
    pub states: u64,
    pub is_record: bool,
}

/// Every header and frame of an intact log, in order.
pub fn pieces(disk: &Segments) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (&id, bytes) in disk {
        let Ok(header) = Header::decode(id, bytes) else { break };
        let (seed, mut offset) = (Seed::new(SALT, id), HEADER_BYTES);
        let start = header.start.0;
        let piece = |offset: usize, bytes, states, is_record| Piece {
            segment: id,
            offset,
            bytes,
            lsn: start + offset as u64,
            states,
            is_record,
        };
        pieces.push(piece(0, HEADER_BYTES, header.synced.0, false));
        while let Ok(frame) = Frame::decode(seed, offset as u64, &bytes[offset..]) {
            let states = if let Frame::Mark(synced) = frame { synced.0 } else { 0 };
            let is_record = matches!(frame, Frame::Record(_));
            pieces.push(piece(offset, frame.bytes(), states, is_record));
            offset += frame.bytes();
            if frame == Frame::Seal {
                break;
            }
        }
    }
    pieces
}

/// A batch drawn from `rng`: `next` counts the indexes of each of four groups.
pub fn batch(rng: &mut Rng, next: &mut [u64; 4]) -> Vec<Owned> {
    (0..rng.below(5))
        .map(|_| {
            let group = rng.below(4) as u32;
            if rng.chance(0.15) {
                return Owned::HardState { group, term: rng.next_u64(), vote: rng.below(4) };
            }
            if rng.chance(0.15) {
                let index = next[group as usize] + rng.below(3);
                return match rng.below(3) {
                    0 => {
                        next[group as usize] = index;
                        Owned::Reset { group, index, term: rng.next_u64() }
                    }
                    1 => Owned::Abandon { group },
                    _ => Owned::Committed { group, index: next[group as usize] },
                };
            }
            next[group as usize] += 1;
            let bytes = if rng.chance(0.01) { 40_000 } else { rng.below(900) as usize };
            Owned::Entry { group, index: next[group as usize], body: vec![rng.next_u64() as u8; bytes] }
        })
        .collect()
}
