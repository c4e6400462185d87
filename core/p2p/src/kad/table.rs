//! The routing table: k-buckets (Maymounkov & Mazières 2002, §2.2, §2.4, §4.1).
//!
//! Bucket `i` has the contacts that share exactly `i` leading bits with us. A contact leaves only when it failed and
//! another one waits for its place: nodes that were long alive are likely to stay, and a flood of new ones cannot
//! wash the table out.

use alloc::vec::Vec;

use kernel::Micros;
use smallvec::SmallVec;

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
/// The oldest contact of a full bucket is asked for a sign of life no more often than this.
pub const CHECK_MS_MIN: u64 = 5 * 60 * 1000;

/// Contacts with their distances, nearest first.
pub type Near<C> = SmallVec<[(u64, C); 48]>;

/// One bucket: contacts that failed, then live ones, the longest unheard of first, then those that wait.
#[derive(Clone, Debug)]
struct Bucket<C> {
    slots: Vec<C>,
    failed: u8,
    live: u8,
    /// Seconds of the last lookup into its range, and of the last check of its oldest contact.
    refreshed: u32,
    checked: u32,
}

impl<C: Contact> Bucket<C> {
    const fn new(now: u32) -> Bucket<C> {
        Bucket { slots: Vec::new(), failed: 0, live: 0, refreshed: now, checked: now }
    }

    fn live(&self) -> &[C] {
        &self.slots[self.failed as usize..self.known()]
    }

    const fn known(&self) -> usize {
        self.failed as usize + self.live as usize
    }

    /// Makes room first for a few, then at once for a whole bucket: most are nearly empty or full.
    fn insert(&mut self, at: usize, contact: C, k: usize) {
        if self.slots.len() == self.slots.capacity() {
            let wanted = match self.slots.capacity() {
                0 => 4.min(k),
                some if some < k => k,
                some => some + SPARE_CONTACTS_MAX / 2,
            };
            self.slots.reserve_exact(wanted - self.slots.len());
        }
        self.slots.insert(at, contact);
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

/// The contacts of one node.
///
/// Invariant: each contact is in one bucket, the one of its distance, and there once; a bucket has at most `k`
/// failed and live ones, and at most [`SPARE_CONTACTS_MAX`] that wait.
#[derive(Clone, Debug)]
pub struct Table<C> {
    me: u64,
    k: u8,
    buckets: Vec<Bucket<C>>,
}

const fn seconds(now: Micros) -> u32 {
    (now.0 / 1_000_000) as u32
}

impl<C: Contact> Table<C> {
    /// An empty table of the node at `me`, with `k` contacts in a bucket.
    ///
    /// # Panics
    /// If `k` is not in `1..=BUCKET_CONTACTS_MAX`.
    #[must_use]
    pub const fn new(me: u64, k: u8) -> Table<C> {
        assert!(k >= 1 && k as usize <= BUCKET_CONTACTS_MAX, "k is 1 to BUCKET_CONTACTS_MAX");
        Table { me, k, buckets: Vec::new() }
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
    /// or waits. O(k), and O(contacts) for a new one whose IP neighbourhood is known.
    pub fn seen(&mut self, now: Micros, keys: &impl Keys<C>, contact: C) -> Seen<C> {
        let Some(index) = self.bucket(keys.point(contact)) else {
            return Seen::Refused;
        };
        if index >= self.buckets.len() {
            self.buckets.reserve_exact(index + 1 - self.buckets.len());
            self.buckets.resize_with(index + 1, || Bucket::new(seconds(now)));
        }
        let k = usize::from(self.k);
        let bucket = &mut self.buckets[index];
        let known = bucket.known();
        let at = bucket.slots.iter().position(|own| *own == contact);
        match at {
            Some(at) if at < known => {
                bucket.slots[at..known].rotate_left(1);
                if at < bucket.failed as usize {
                    bucket.failed -= 1;
                    bucket.live += 1;
                }
                return Seen::Kept;
            }
            Some(at) => drop(bucket.slots.remove(at)),
            None => {}
        }
        if !self.diverse(keys, index, contact) {
            return Seen::Refused;
        }
        let bucket = &mut self.buckets[index];
        if bucket.failed > 0 && known == k {
            bucket.slots[..known].rotate_left(1);
            bucket.slots[known - 1] = contact;
            bucket.failed -= 1;
            bucket.live += 1;
            return Seen::Kept;
        }
        if known < k {
            bucket.insert(known, contact, k);
            bucket.live += 1;
            return Seen::Kept;
        }
        if bucket.slots.len() == known + SPARE_CONTACTS_MAX {
            bucket.slots.remove(known);
        }
        let end = bucket.slots.len();
        bucket.insert(end, contact, k);
        let due = seconds(now) - bucket.checked.min(seconds(now)) >= (CHECK_MS_MIN / 1000) as u32;
        if due {
            bucket.checked = seconds(now);
        }
        Seen::Waits { check: bucket.live().first().copied().filter(|_| due) }
    }

    /// `contact` did not answer: the youngest that waits takes its place; if none does it is kept as failed, told to
    /// nobody, until it shows life or its place is wanted. So a broken network does not empty the table.
    pub fn failed(&mut self, keys: &impl Keys<C>, contact: C) {
        let Some(index) = self.bucket(keys.point(contact)) else {
            return;
        };
        let Some(bucket) = self.buckets.get_mut(index) else {
            return;
        };
        let Some(at) = bucket.slots.iter().position(|own| *own == contact) else {
            return;
        };
        let (failed, known) = (usize::from(bucket.failed), bucket.known());
        if at >= known {
            bucket.slots.remove(at);
        } else if bucket.slots.len() > known {
            bucket.slots.remove(at);
            if at < failed {
                bucket.failed -= 1;
            } else {
                bucket.live -= 1;
            }
            self.promote(keys, index);
        } else if at >= failed {
            bucket.slots[failed..=at].rotate_right(1);
            bucket.failed += 1;
            bucket.live -= 1;
        }
    }

    /// The youngest contact that waits and may have a free place takes it.
    fn promote(&mut self, keys: &impl Keys<C>, index: usize) {
        loop {
            let bucket = &mut self.buckets[index];
            let known = bucket.known();
            if bucket.slots.len() <= known || known >= usize::from(self.k) {
                return;
            }
            let Some(contact) = bucket.slots.pop() else {
                return;
            };
            if self.diverse(keys, index, contact) {
                let bucket = &mut self.buckets[index];
                bucket.slots.insert(known, contact);
                bucket.live += 1;
            }
        }
    }

    /// Forgets `contact`, whatever it was.
    pub fn remove(&mut self, keys: &impl Keys<C>, contact: C) {
        let Some(index) = self.bucket(keys.point(contact)) else {
            return;
        };
        let Some(bucket) = self.buckets.get_mut(index) else {
            return;
        };
        let Some(at) = bucket.slots.iter().position(|own| *own == contact) else {
            return;
        };
        let (failed, known) = (usize::from(bucket.failed), bucket.known());
        bucket.slots.remove(at);
        if at < failed {
            bucket.failed -= 1;
        } else if at < known {
            bucket.live -= 1;
        }
        self.promote(keys, index);
    }

    /// True if one more contact of its IP neighbourhood may be in the bucket and in the table.
    fn diverse(&self, keys: &impl Keys<C>, index: usize, contact: C) -> bool {
        let Some(neighbourhood) = keys.neighbourhood(contact) else {
            return true;
        };
        let count = |bucket: &Bucket<C>| {
            let known = bucket.slots[..bucket.known()].iter();
            known.filter(|own| keys.neighbourhood(**own) == Some(neighbourhood)).count()
        };
        count(&self.buckets[index]) < BUCKET_NEIGHBOURS_MAX
            && self.buckets.iter().map(count).sum::<usize>() < TABLE_NEIGHBOURS_MAX
    }

    /// The `n` live contacts nearest to `target`, nearest first, with their distances, without `except`.
    ///
    /// First the bucket of the target's own distance; then those deeper, which share as many bits with it as we do;
    /// then one shallower after another, each farther than all before. O(k log k) when the first has `n`.
    pub fn closest(&self, keys: &impl Keys<C>, target: u64, n: usize, except: Option<C>, out: &mut Near<C>) {
        out.clear();
        let last = self.buckets.len();
        let shared = self.bucket(target).unwrap_or(last).min(last);
        let mut take = |bucket: &Bucket<C>| {
            let told = bucket.live().iter().filter(|own| Some(**own) != except);
            out.extend(told.map(|own| (keys.point(*own) ^ target, *own)));
            out.len()
        };
        let enough = self.buckets.get(shared).is_some_and(|bucket| take(bucket) >= n)
            || self.buckets.get(shared + 1..).unwrap_or_default().iter().fold(0, |_, bucket| take(bucket))
                >= n;
        if !enough {
            for bucket in self.buckets[..shared].iter().rev() {
                if take(bucket) >= n {
                    break;
                }
            }
        }
        if out.len() > 2 * n {
            out.select_nth_unstable(n);
            out.truncate(n);
        }
        out.sort_unstable();
        out.truncate(n);
    }

    /// Reads what [`Table::seen`] of a contact at `point` will, one pointer further with each stage, and with `told` what
    /// [`Table::closest`] to it will: see [`Protocol::warm`](crate::Protocol::warm).
    pub(super) fn warm(&self, keys: &impl Keys<C>, point: u64, told: bool, stage: u8) -> u64 {
        let shared = (self.me ^ point).leading_zeros() as usize;
        let Some(bucket) = self.buckets.get(shared) else { return 0 };
        match stage {
            0 => u64::from(bucket.live),
            // A line of memory has 16 contacts.
            1 => bucket
                .slots
                .iter()
                .step_by(16)
                .fold(0, |read, contact| read ^ u64::from(*contact == bucket.slots[0])),
            _ if told => bucket.live().iter().fold(0, |read, contact| read ^ keys.point(*contact)),
            _ => 0,
        }
    }

    /// The live contacts, by bucket from the farthest to the nearest.
    pub fn iter(&self) -> impl Iterator<Item = C> {
        self.buckets.iter().flat_map(|bucket| bucket.live().iter().copied())
    }

    /// All contacts: live ones, those that failed and those that wait.
    pub(super) fn all(&self) -> impl Iterator<Item = C> {
        self.buckets.iter().flat_map(|bucket| bucket.slots.iter().copied())
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
