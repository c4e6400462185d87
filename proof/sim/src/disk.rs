//! A disk made of memory: what programs read, what survives a power cut, and what lies between.
//!
//! A write reaches the cache; a sync makes the sectors that were dirty when it began durable when it
//! ends. A power cut leaves of each other dirty sector the old content, the new one, or a torn one. A
//! failed sync leaves sectors that the system believes clean although they are not on the disk (Rebello
//! et al. 2020): no later sync writes them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use journal::SegmentId;
use journal::record::{Frame, HEADER_BYTES, Header, Seed};
use kernel::Rng;

/// What the disk writes as one piece, in bytes.
pub const SECTOR_BYTES: usize = 512;
/// Most retired segments that are kept to be used again.
const SPARES_MAX: usize = 2;

/// One file.
#[derive(Clone, Debug, Default)]
struct File {
    cache: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

/// A sync on its way: the content that it will make durable.
#[derive(Clone, Debug, Default)]
pub struct Flight(Vec<(SegmentId, usize, Vec<u8>)>);

/// The log's files.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: BTreeMap<SegmentId, File>,
    spares: VecDeque<Vec<u8>>,
    /// No space is left for new segments.
    pub full: bool,
}

fn sectors(offset: usize, bytes: usize) -> std::ops::Range<usize> {
    offset / SECTOR_BYTES..(offset + bytes).div_ceil(SECTOR_BYTES)
}

impl File {
    fn sector(bytes: &[u8], at: usize) -> &[u8] {
        &bytes[at * SECTOR_BYTES..((at + 1) * SECTOR_BYTES).min(bytes.len())]
    }

    fn put(bytes: &mut [u8], at: usize, sector: &[u8]) {
        bytes[at * SECTOR_BYTES..][..sector.len()].copy_from_slice(sector);
    }
}

impl Disk {
    /// The segments in order, as programs read them.
    pub fn segments(&self) -> impl Iterator<Item = (SegmentId, &[u8])> {
        self.files.iter().map(|(&id, file)| (id, file.cache.as_slice()))
    }

    /// Makes segment `id`: of a spare one if there is, else of zeros. False if the disk is full.
    pub fn prepare(&mut self, id: SegmentId, bytes: u64) -> bool {
        let spare = self.spares.front().filter(|spare| spare.len() as u64 == bytes).is_some();
        let content = match spare.then(|| self.spares.pop_front()).flatten() {
            Some(content) => content,
            None if self.full => return false,
            None => vec![0; bytes as usize],
        };
        self.files.insert(id, File { cache: content.clone(), durable: content, dirty: BTreeSet::new() });
        true
    }

    /// A segment of zeros, over whatever had its name; recovery's doing, so never refused.
    pub fn make(&mut self, id: SegmentId, bytes: u64) {
        let content = vec![0; bytes as usize];
        self.files.insert(id, File { cache: content.clone(), durable: content, dirty: BTreeSet::new() });
    }

    /// Removes a segment, durably.
    pub fn remove(&mut self, id: SegmentId) {
        self.files.remove(&id);
    }

    /// Keeps a retired segment to be used again, if that pays.
    pub fn recycle(&mut self, id: SegmentId, usual: u64) {
        let Some(file) = self.files.remove(&id) else { return };
        if !self.full && self.spares.len() < SPARES_MAX && file.cache.len() as u64 == usual {
            self.spares.push_back(file.cache);
        }
    }

    /// Writes into the cache.
    pub fn write(&mut self, id: SegmentId, offset: usize, bytes: &[u8]) {
        let file = self.files.get_mut(&id).expect("a segment is prepared before it is written");
        file.cache[offset..offset + bytes.len()].copy_from_slice(bytes);
        for at in sectors(offset, bytes.len()) {
            if File::sector(&file.cache, at) != File::sector(&file.durable, at) {
                file.dirty.insert(at);
            }
        }
    }

    /// Fills a part of a segment with zeros.
    pub fn wipe(&mut self, id: SegmentId, range: std::ops::Range<u64>) {
        self.write(id, range.start as usize, &vec![0; (range.end - range.start) as usize]);
    }

    /// Begins to sync what is dirty in `ids`.
    #[must_use]
    pub fn begin_sync(&self, ids: &[SegmentId]) -> Flight {
        let mut flight = Flight::default();
        for id in ids {
            let Some(file) = self.files.get(id) else { continue };
            for &at in &file.dirty {
                flight.0.push((*id, at, File::sector(&file.cache, at).to_vec()));
            }
        }
        flight
    }

    /// The sync ended well.
    pub fn end_sync(&mut self, flight: &Flight) {
        for (id, at, content) in &flight.0 {
            let Some(file) = self.files.get_mut(id) else { continue };
            File::put(&mut file.durable, *at, content);
            if File::sector(&file.cache, *at) == content.as_slice() {
                file.dirty.remove(at);
            }
        }
    }

    /// The sync failed: each sector was written or not, and passes for clean.
    pub fn fail_sync(&mut self, flight: &Flight, rng: &mut Rng) {
        for (id, at, content) in &flight.0 {
            let Some(file) = self.files.get_mut(id) else { continue };
            if rng.chance(0.3) {
                File::put(&mut file.durable, *at, content);
            }
            file.dirty.remove(at);
        }
    }

    /// The process died: the system keeps what was written, but may have dropped clean pages.
    pub fn kill(&mut self, rng: &mut Rng) {
        for file in self.files.values_mut() {
            for at in 0..file.cache.len() / SECTOR_BYTES {
                let lost = !file.dirty.contains(&at)
                    && File::sector(&file.cache, at) != File::sector(&file.durable, at);
                if lost && rng.chance(0.5) {
                    let durable = File::sector(&file.durable, at).to_vec();
                    File::put(&mut file.cache, at, &durable);
                }
            }
        }
    }

    /// The power failed: what was not synced is there, or not, or torn, sector by sector.
    pub fn cut(&mut self, rng: &mut Rng) {
        let (kept, tear) = (rng.unit(), rng.chance(0.3));
        for file in self.files.values_mut() {
            for at in std::mem::take(&mut file.dirty) {
                if !rng.chance(kept) {
                    continue;
                }
                let new = File::sector(&file.cache, at).to_vec();
                let end = if tear && rng.chance(0.3) { rng.below(64) as usize * 8 } else { new.len() };
                File::put(&mut file.durable, at, &new[..end.min(new.len())]);
            }
            file.cache.clone_from(&file.durable);
        }
    }

    /// The power failed, and of what was not synced the first `kept` sectors are on the disk, whole. Says how
    /// many there were.
    pub fn cut_behind(&mut self, kept: usize) -> usize {
        let mut count = 0;
        for file in self.files.values_mut() {
            for at in std::mem::take(&mut file.dirty) {
                if count < kept {
                    let new = File::sector(&file.cache, at).to_vec();
                    File::put(&mut file.durable, at, &new);
                }
                count += 1;
            }
            file.cache.clone_from(&file.durable);
        }
        count
    }

    /// Flips one bit at a seeded place that the log itself states to be synced. False if there is none.
    pub fn flip(&mut self, rng: &mut Rng) -> Option<(SegmentId, usize)> {
        let (marked, ends) = self.marked();
        let places: Vec<(SegmentId, usize)> = ends
            .iter()
            .filter(|(_, start, end)| *start < marked.min(*end))
            .map(|&(id, start, end)| (id, (marked.min(end) - start) as usize))
            .collect();
        let total: usize = places.iter().map(|(_, bytes)| bytes).sum();
        let mut at = rng.below(total as u64) as usize;
        for (id, bytes) in places {
            if at < bytes {
                let file = self.files.get_mut(&id)?;
                let bit = 1 << rng.below(8);
                file.cache[at] ^= bit;
                file.durable[at] ^= bit;
                return Some((id, at));
            }
            at -= bytes;
        }
        None
    }

    /// The highest position that the log states to be synced, and each segment's first and last.
    fn marked(&self) -> (u64, Vec<(SegmentId, u64, u64)>) {
        let (mut marked, mut ends) = (0, Vec::new());
        for (&id, file) in &self.files {
            let Ok(header) = Header::decode(id, &file.cache) else { break };
            let (seed, mut offset) = (Seed::new(header.salt, id), HEADER_BYTES);
            marked = marked.max(header.synced.0);
            while let Ok(frame) = Frame::decode(seed, offset as u64, &file.cache[offset..]) {
                if let Frame::Mark(synced) = frame {
                    marked = marked.max(synced.0);
                }
                offset += frame.bytes();
                if frame == Frame::Seal {
                    break;
                }
            }
            ends.push((id, header.start.0, header.start.0 + offset as u64));
        }
        (marked, ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SegmentId = SegmentId(1);

    fn disk() -> Disk {
        let mut disk = Disk::default();
        assert!(disk.prepare(A, 2048));
        disk
    }

    fn read(disk: &Disk, at: usize) -> u8 {
        disk.segments().next().expect("there is one").1[at]
    }

    #[test]
    fn what_was_synced_survives_and_what_was_not_may_not() {
        let (mut kept, mut lost) = (0, 0);
        for seed in 0..50 {
            let mut disk = disk();
            disk.write(A, 0, &[1; 10]);
            let flight = disk.begin_sync(&[A]);
            disk.write(A, 600, &[2; 10]);
            disk.end_sync(&flight);
            disk.cut(&mut Rng::new(seed));
            assert_eq!(read(&disk, 0), 1);
            if read(&disk, 600) == 2 { kept += 1 } else { lost += 1 }
        }
        assert!(kept > 5 && lost > 5, "{kept} kept, {lost} lost");
    }

    #[test]
    fn a_cut_behind_so_many_sectors_keeps_just_those() {
        for kept in 0..4 {
            let mut disk = disk();
            disk.write(A, 0, &[1; 3 * SECTOR_BYTES]);
            assert_eq!(disk.cut_behind(kept), 3);
            let found = [0, SECTOR_BYTES, 2 * SECTOR_BYTES].map(|at| usize::from(read(&disk, at)));
            assert_eq!(found.iter().sum::<usize>(), kept.min(3), "{found:?}");
            assert!(found.is_sorted_by(|a, b| a >= b), "{found:?}");
        }
    }

    #[test]
    fn after_a_failed_sync_the_next_one_writes_nothing() {
        let mut lost = 0;
        for seed in 0..50 {
            let (mut disk, mut rng) = (disk(), Rng::new(seed));
            disk.write(A, 0, &[1; 10]);
            let flight = disk.begin_sync(&[A]);
            disk.fail_sync(&flight, &mut rng);
            let again = disk.begin_sync(&[A]);
            disk.end_sync(&again);
            assert_eq!(read(&disk, 0), 1, "the cache still has it");
            disk.cut(&mut rng);
            lost += usize::from(read(&disk, 0) == 0);
        }
        assert!(lost > 20, "{lost} lost");
    }

    #[test]
    fn a_killed_process_loses_nothing_that_it_wrote() {
        let mut disk = disk();
        disk.write(A, 0, &[1; 10]);
        disk.kill(&mut Rng::new(1));
        assert_eq!(read(&disk, 0), 1);
    }
}
