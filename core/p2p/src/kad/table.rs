//! The routing table: k-buckets (Maymounkov & Mazières 2002, §2.2, §2.4, §4.1).
//!
//! Bucket `i` has the contacts that share exactly `i` leading bits with us. A contact leaves only when it failed and
//! another one waits for its place: nodes that were long alive are likely to stay, and a flood of new ones cannot
//! wash the table out.

use alloc::vec::Vec;
use core::iter;
use core::ops::Range;

use kernel::Micros;
use smallvec::SmallVec;

use super::message::Nodes;
use crate::{Contact, Keys};

/// Buckets of a table. Points have 64 bits; who shares all of them with us is in the last bucket.
pub const BUCKETS: usize = 64;
/// Most contacts of a bucket, `k`.
pub const BUCKET_CONTACTS_MAX: usize = 32;
/// Contacts that wait for a place in a bucket.
pub const SPARE_CONTACTS_MAX: usize = 8;
/// Contacts of one IP neighbourhood in one bucket.
pub const BUCKET_NEIGHBOURS_MAX: usize = 2;
/// Contacts of one IP neighbourhood in the whole table.
pub const TABLE_NEIGHBOURS_MAX: usize = 10;
/// Contacts that are compared at once.
const LANES: usize = 8;
/// The oldest contact of a full bucket is asked for a sign of life no more often than this.
pub const CHECK_MS_MIN: u64 = 5 * 60 * 1000;

/// Contacts with their distances, nearest first.
pub type Near<C> = SmallVec<[(u64, C); 48]>;

/// A contact, and the 32 bits of its point behind those that its bucket tells: the bits we share and the one in which
/// we differ. They order contacts without a look at the host's directory; what they leave open, it decides.
#[derive(Clone, Copy, Debug)]
struct Slot<C> {
    contact: C,
    bits: u32,
}

/// Where a bucket is among the slots: contacts that failed, then live ones, the longest unheard of first, then those that
/// wait.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    start: u16,
    len: u8,
    failed: u8,
    live: u8,
    /// Seconds of the last lookup into its range, and of the last check of its oldest contact.
    refreshed: u32,
    checked: u32,
}

const _: () = assert!(BUCKET_CONTACTS_MAX.is_multiple_of(LANES));
const _: () = assert!(BUCKETS * (BUCKET_CONTACTS_MAX + SPARE_CONTACTS_MAX) <= u16::MAX as usize);

impl Bucket {
    const fn known(&self) -> usize {
        self.failed as usize + self.live as usize
    }

    const fn all(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    const fn living(&self) -> Range<usize> {
        self.start as usize + self.failed as usize..self.start as usize + self.known()
    }

    /// Those that failed and the live ones.
    const fn places(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.known()
    }
}

/// What became of a contact that showed life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<C> {
    /// It has its place, as the youngest of its bucket.
    Kept,
    /// Its bucket is full: it waits. If `check` is there, that contact is the longest unheard of and should be asked
    /// for a sign of life.
    Waits {
        /// Whom to ask.
        check: Option<C>,
    },
    /// It is us, or its IP neighbourhood has its share already.
    Refused,
}

/// The contacts of one node, in one piece of memory: bucket after bucket, so that those of a neighbourhood, which most
/// questions are about, lie side by side. The farthest are last: half of all strangers come into the first bucket, a
/// quarter into the second, and little has to make way for them.
///
/// Invariant: each contact is in one bucket, the one of its distance, and there once; a bucket has at most `k`
/// failed and live ones, and at most [`SPARE_CONTACTS_MAX`] that wait. The deepest bucket
/// begins at the first slot, each other one where the next deeper ends.
#[derive(Clone, Debug)]
pub struct Table<C> {
    me: u64,
    k: u8,
    buckets: Vec<Bucket>,
    slots: Vec<Slot<C>>,
}

const fn seconds(now: Micros) -> u32 {
    (now.0 / 1_000_000) as u32
}

/// The bits of a point that a slot of bucket `index` keeps, as if they began the point.
const fn kept_bits(point: u64, index: usize) -> u32 {
    match point.checked_shl(index as u32 + 1) {
        Some(rest) => (rest >> 32) as u32,
        None => 0,
    }
}

impl<C: Contact> Table<C> {
    /// An empty table of the node at `me`, with `k` contacts in a bucket.
    ///
    /// # Panics
    /// If `k` is not in `1..=BUCKET_CONTACTS_MAX`.
    #[must_use]
    pub const fn new(me: u64, k: u8) -> Table<C> {
        assert!(k >= 1 && k as usize <= BUCKET_CONTACTS_MAX, "k is 1 to BUCKET_CONTACTS_MAX");
        Table { me, k, buckets: Vec::new(), slots: Vec::new() }
    }

    /// In which bucket `point` belongs; `None` for our own.
    #[must_use]
    pub const fn bucket(&self, point: u64) -> Option<usize> {
        match (self.me ^ point).leading_zeros() as usize {
            BUCKETS => None,
            shared => Some(shared),
        }
    }

    /// `contact` showed life: it becomes the youngest of its bucket, takes a free place or that of one that failed,
    /// or waits. O(k), and O(contacts) for one that comes in.
    pub fn seen(&mut self, now: Micros, keys: &impl Keys<C>, contact: C) -> Seen<C> {
        let point = keys.point(contact);
        let Some(index) = self.bucket(point) else {
            return Seen::Refused;
        };
        self.reach(index, now);
        let k = usize::from(self.k);
        let bucket = &mut self.buckets[index];
        let known = bucket.known();
        let slots = &mut self.slots[bucket.all()];
        let at = slots.iter().position(|own| own.contact == contact);
        match at {
            Some(at) if at < known => {
                slots[at..known].rotate_left(1);
                if at < bucket.failed as usize {
                    bucket.failed -= 1;
                    bucket.live += 1;
                }
                return Seen::Kept;
            }
            Some(at) => self.take_out(index, at),
            None => {}
        }
        if !self.diverse(keys, index, contact) {
            return Seen::Refused;
        }
        let slot = Slot { contact, bits: kept_bits(point, index) };
        let bucket = &mut self.buckets[index];
        if bucket.failed > 0 && known == k {
            let places = &mut self.slots[bucket.places()];
            places.rotate_left(1);
            places[known - 1] = slot;
            bucket.failed -= 1;
            bucket.live += 1;
            return Seen::Kept;
        }
        if known < k {
            bucket.live += 1;
            self.put_in(index, known, slot);
            return Seen::Kept;
        }
        if usize::from(bucket.len) == known + SPARE_CONTACTS_MAX {
            let waiting = &mut self.slots[bucket.all()][known..];
            waiting.rotate_left(1);
            waiting[SPARE_CONTACTS_MAX - 1] = slot;
        } else {
            self.put_in(index, usize::from(self.buckets[index].len), slot);
        }
        let bucket = &mut self.buckets[index];
        let due = seconds(now) - bucket.checked.min(seconds(now)) >= (CHECK_MS_MIN / 1000) as u32;
        if due {
            bucket.checked = seconds(now);
        }
        Seen::Waits { check: self.slots[bucket.living()].first().map(|own| own.contact).filter(|_| due) }
    }

    /// Makes buckets up to `index`.
    fn reach(&mut self, index: usize, now: Micros) {
        if index < self.buckets.len() {
            return;
        }
        let now = seconds(now);
        let empty = Bucket { start: 0, len: 0, failed: 0, live: 0, refreshed: now, checked: now };
        self.buckets.reserve_exact(index + 1 - self.buckets.len());
        self.buckets.resize(index + 1, empty);
    }

    /// Puts a slot at place `at` of a bucket; its numbers of failed and live ones are the caller's affair.
    fn put_in(&mut self, index: usize, at: usize, slot: Slot<C>) {
        if self.slots.len() == self.slots.capacity() {
            // A table grows to some hundred contacts and stays so: what is left unused counts in a large simulation.
            self.slots.reserve_exact((self.slots.len() / 8).max(16));
        }
        self.slots.insert(usize::from(self.buckets[index].start) + at, slot);
        self.buckets[index].len += 1;
        self.buckets[..index].iter_mut().for_each(|behind| behind.start += 1);
    }

    /// Takes out the slot at place `at` of a bucket; its numbers of failed and live ones are the caller's affair.
    fn take_out(&mut self, index: usize, at: usize) {
        self.slots.remove(usize::from(self.buckets[index].start) + at);
        self.buckets[index].len -= 1;
        self.buckets[..index].iter_mut().for_each(|behind| behind.start -= 1);
    }

    /// In which bucket `contact` is, and at which place of it.
    fn find(&self, keys: &impl Keys<C>, contact: C) -> Option<(usize, usize)> {
        let index = self.bucket(keys.point(contact))?;
        let slots = &self.slots[self.buckets.get(index)?.all()];
        Some((index, slots.iter().position(|own| own.contact == contact)?))
    }

    /// `contact` did not answer: the youngest that waits takes its place; if none does it is kept as failed, told to
    /// nobody, until it shows life or its place is wanted. So a broken network does not empty the table.
    pub fn failed(&mut self, keys: &impl Keys<C>, contact: C) {
        let Some((index, at)) = self.find(keys, contact) else {
            return;
        };
        let bucket = &mut self.buckets[index];
        let (failed, known) = (usize::from(bucket.failed), bucket.known());
        if at >= known {
            self.take_out(index, at);
        } else if usize::from(bucket.len) > known {
            if at < failed {
                bucket.failed -= 1;
            } else {
                bucket.live -= 1;
            }
            self.take_out(index, at);
            self.promote(keys, index);
        } else if at >= failed {
            bucket.failed += 1;
            bucket.live -= 1;
            self.slots[bucket.all()][failed..=at].rotate_right(1);
        }
    }

    /// The youngest contact that waits and may have a free place takes it.
    fn promote(&mut self, keys: &impl Keys<C>, index: usize) {
        loop {
            let bucket = self.buckets[index];
            let (known, last) = (bucket.known(), usize::from(bucket.len));
            if last <= known || known >= usize::from(self.k) {
                return;
            }
            let contact = self.slots[bucket.all()][last - 1].contact;
            if self.diverse(keys, index, contact) {
                self.slots[bucket.all()][known..].rotate_right(1);
                self.buckets[index].live += 1;
            } else {
                self.take_out(index, last - 1);
            }
        }
    }

    /// True if one more contact of its IP neighbourhood may be in the bucket and in the table.
    fn diverse(&self, keys: &impl Keys<C>, index: usize, contact: C) -> bool {
        let Some(neighbourhood) = keys.neighbourhood(contact) else {
            return true;
        };
        let count = |bucket: &Bucket| {
            let known = self.slots[bucket.places()].iter();
            known.filter(|own| keys.neighbourhood(own.contact) == Some(neighbourhood)).count()
        };
        count(&self.buckets[index]) < BUCKET_NEIGHBOURS_MAX
            && self.buckets.iter().map(count).sum::<usize>() < TABLE_NEIGHBOURS_MAX
    }

    /// The `n` live contacts nearest to `target`, nearest first, with their distances, without `except`.
    pub fn closest(&self, keys: &impl Keys<C>, target: u64, n: usize, except: Option<C>, out: &mut Near<C>) {
        let mut ranked = Nodes::new();
        self.rank(keys, target, n, except, &mut ranked);
        out.clear();
        out.extend(ranked.iter().map(|contact| (keys.point(*contact) ^ target, *contact)));
    }

    /// The `n` live contacts nearest to `target`, nearest first, without `except`. Goes to as few buckets as have them, and
    /// reads a contact's point only where two agree in all the bits that the table has. O(buckets + n k).
    pub(super) fn rank(
        &self,
        keys: &impl Keys<C>,
        target: u64,
        n: usize,
        except: Option<C>,
        out: &mut Nodes<C>,
    ) {
        out.clear();
        for index in self.by_distance(target) {
            if out.len() >= n {
                return;
            }
            self.rank_bucket(keys, index, target, n - out.len(), except, out);
        }
    }

    fn rank_bucket(
        &self,
        keys: &impl Keys<C>,
        index: usize,
        target: u64,
        n: usize,
        except: Option<C>,
        out: &mut Nodes<C>,
    ) {
        let live = &self.slots[self.buckets[index].living()];
        let Some(&first) = live.first() else { return };
        let place = kept_bits(target, index);
        // Distances in the kept bits. What fills the array up is nearer than nobody.
        let (mut contacts, mut distances) =
            ([first.contact; BUCKET_CONTACTS_MAX], [u32::MAX; BUCKET_CONTACTS_MAX]);
        let mut count = 0;
        for own in live.iter().filter(|own| Some(own.contact) != except) {
            (contacts[count], distances[count]) = (own.contact, own.bits ^ place);
            count += 1;
        }
        // Each one's place in the order is the number of those nearer. A sort would mispredict a branch for every second
        // comparison; this has none, and the compiler makes it a few vector operations a contact.
        let mut nearer = [0u32; BUCKET_CONTACTS_MAX];
        for distance in &distances[..count] {
            let all = nearer.as_chunks_mut::<LANES>().0.iter_mut().zip(distances.as_chunks::<LANES>().0);
            for (nearer, own) in all.take(count.div_ceil(LANES)) {
                for lane in 0..LANES {
                    nearer[lane] += u32::from(*distance < own[lane]);
                }
            }
        }
        let taken = n.min(count);
        let mut order = contacts;
        // Of two at one place, none would be at the next.
        if nearer[..count].iter().sum::<u32>() as usize * 2 == count * count.saturating_sub(1) {
            for (contact, nearer) in contacts.iter().zip(nearer).take(count) {
                order[nearer as usize] = *contact;
            }
        } else {
            order[..count].sort_unstable_by_key(|contact| (keys.point(*contact) ^ target, *contact));
        }
        out.extend_from_slice(&order[..taken]);
    }

    /// The buckets from the nearest to `target` to the farthest: all contacts of each are nearer than those of the next.
    ///
    /// Bucket `i` differs from us in bit `i`, deeper ones do not: where the target differs from us, bucket `i` is nearer
    /// than they are, elsewhere they are nearer.
    fn by_distance(&self, target: u64) -> impl Iterator<Item = usize> + use<C> {
        let differ = self.me ^ target;
        let made = match u64::MAX.checked_shr(self.buckets.len() as u32) {
            Some(rest) => !rest,
            None => u64::MAX,
        };
        let (mut nearer, mut farther) = (differ & made, !differ & made);
        iter::from_fn(move || {
            if nearer != 0 {
                let index = nearer.leading_zeros();
                nearer &= !(1 << (63 - index));
                return Some(index as usize);
            }
            let index = 63_u32.checked_sub(farther.trailing_zeros())?;
            farther &= farther - 1;
            Some(index as usize)
        })
    }

    /// Reads what [`Table::seen`] of a contact at `point` will, or with `told` what [`Table::rank`] to it will, one pointer
    /// further with each stage: see [`Protocol::warm`](crate::Protocol::warm).
    pub(super) fn warm(&self, point: u64, told: bool, stage: u8) -> usize {
        let shared = (self.me ^ point).leading_zeros() as usize;
        // A line of memory has 4 buckets, and 8 slots of small handles.
        match (stage, told) {
            (0, true) => {
                let read = self.buckets.get(shared..).unwrap_or_default().iter().step_by(4);
                read.fold(0, |read, bucket| read ^ usize::from(bucket.start))
            }
            (0, false) => self.buckets.get(shared).map_or(0, |bucket| usize::from(bucket.start)),
            (1, true) => {
                let (mut count, mut read) = (0, 0);
                for index in self.by_distance(point) {
                    let live = self.buckets[index].living();
                    count += live.len();
                    self.slots[live].iter().step_by(8).for_each(|slot| read ^= slot.bits as usize);
                    if count >= usize::from(self.k) {
                        break;
                    }
                }
                read
            }
            (1, false) => {
                let slots = self.buckets.get(shared).map_or(0..0, Bucket::all);
                self.slots[slots].iter().step_by(8).fold(0, |read, slot| read ^ slot.bits as usize)
            }
            _ => 0,
        }
    }

    /// The live contacts, by bucket from the farthest to the nearest.
    pub fn iter(&self) -> impl Iterator<Item = C> {
        self.buckets.iter().flat_map(|bucket| self.slots[bucket.living()].iter().map(|own| own.contact))
    }

    /// All contacts: live ones, those that failed and those that wait.
    pub(super) fn all(&self) -> impl Iterator<Item = C> {
        self.slots.iter().map(|own| own.contact)
    }

    /// How many live contacts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| usize::from(bucket.live)).sum()
    }

    /// True if there is no live contact.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many buckets there are, up to the deepest that ever had a contact.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.buckets.len()
    }

    /// How many live contacts a bucket has.
    #[must_use]
    pub fn live(&self, bucket: usize) -> usize {
        self.buckets.get(bucket).map_or(0, |bucket| usize::from(bucket.live))
    }

    /// A lookup for `target` goes through its bucket's range, which counts as a refresh.
    pub fn touch(&mut self, now: Micros, target: u64) {
        if let Some(bucket) = self.bucket(target).and_then(|index| self.buckets.get_mut(index)) {
            bucket.refreshed = seconds(now);
        }
    }

    /// A lookup goes through the ranges of the bucket `first` and all deeper ones.
    pub(super) fn touch_from(&mut self, now: Micros, first: usize) {
        let deep = self.buckets.iter_mut().skip(first);
        deep.for_each(|bucket| bucket.refreshed = seconds(now));
    }

    /// The bucket whose range was longest without a lookup, and when that was.
    #[must_use]
    pub fn stalest(&self) -> Option<(usize, Micros)> {
        let (index, bucket) = self.buckets.iter().enumerate().min_by_key(|(_, bucket)| bucket.refreshed)?;
        Some((index, Micros(u64::from(bucket.refreshed) * 1_000_000)))
    }

    /// A point in the range of `bucket`: the bits we share, one that differs, then those of `noise`.
    #[must_use]
    pub const fn point_in(&self, bucket: usize, noise: u64) -> u64 {
        let below = u64::MAX.checked_shr(bucket as u32 + 1);
        let below = match below {
            Some(mask) => mask,
            None => 0,
        };
        (self.me ^ (1 << (BUCKETS - 1 - bucket))) & !below | noise & below
    }
}

#[cfg(test)]
mod tests;
