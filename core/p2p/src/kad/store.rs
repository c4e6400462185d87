//! What a node keeps for others: values and who provides a key, within bounds for all and for each sender.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Ordering;

use kernel::Micros;

use super::record::{Record, Refusal, Validator};
use crate::{Contact, Key};

/// Most values of a store.
pub const RECORDS_MAX: usize = 4096;
/// Most bytes of all names and values.
pub const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most values that one sender has in a store.
pub const SENDER_RECORDS_MAX: usize = 128;
/// Most bytes that one sender has in a store.
pub const SENDER_BYTES_MAX: usize = 512 * 1024;
/// Most keys with providers.
pub const PROVIDED_KEYS_MAX: usize = 4096;
/// Most providers of a key.
pub const PROVIDERS_MAX: usize = 20;
/// Most keys that one provider has in a store.
pub const SENDER_PROVIDED_MAX: usize = 256;
/// Longest life of a value or provider without being sent again.
pub const TTL_MS_MAX: u64 = 48 * 3600 * 1000;
/// Life of a value whose sender told none, and of a provider.
pub const TTL_MS_DEFAULT: u64 = 24 * 3600 * 1000;
/// A value that nobody sent for this long is sent to the nodes nearest to it.
pub const REPUBLISH_MS: u64 = 3600 * 1000;
/// The store is looked through for what has expired or is to be sent no more often than this.
pub const SWEEP_MS: u64 = 60 * 1000;

#[derive(Clone, Debug)]
struct Held<C> {
    record: Record,
    from: C,
    expires: Micros,
    /// When it was last sent to us, or by us to others.
    fresh: Micros,
}

#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    records: u16,
    provided: u16,
    bytes: u32,
}

/// The store of one node.
///
/// Invariant: the bounds above; `usage` and `bytes` are the sums over what is held.
///
/// When it is due is looked at with every message, so it comes first, beside what the machine has before it.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Store<C> {
    sweep: Option<Micros>,
    values: BTreeMap<Key, Held<C>>,
    providers: BTreeMap<Key, Vec<(C, Micros)>>,
    usage: BTreeMap<C, Usage>,
    bytes: usize,
}

impl<C> Default for Store<C> {
    fn default() -> Store<C> {
        Store {
            values: BTreeMap::new(),
            providers: BTreeMap::new(),
            usage: BTreeMap::new(),
            bytes: 0,
            sweep: None,
        }
    }
}

impl<C: Contact> Store<C> {
    /// Keeps `record` from `from`, if it is valid, not older than what is here, and within the bounds. The same
    /// value again lengthens its life. O(log records), and one check of its validity.
    ///
    /// # Errors
    /// [`Refusal`] with the reason; nothing has changed.
    pub fn put(
        &mut self,
        now: Micros,
        from: C,
        record: Record,
        valid: &impl Validator,
    ) -> Result<(), Refusal> {
        record.fits()?;
        let key = record.key();
        let held = self.values.get(&key).filter(|held| held.expires > now);
        let order = held.map(|held| valid.order(&record.name, &record.value, &held.record.value));
        if order == Some(Ordering::Less) {
            return Err(Refusal::Older);
        }
        valid.check(now, &record.name, &record.value)?;
        let ttl = match record.ttl {
            0 => TTL_MS_DEFAULT,
            seconds => (u64::from(seconds) * 1000).min(TTL_MS_MAX),
        };
        let expires = now.plus_millis(ttl);
        self.sweep.get_or_insert(now.plus_millis(SWEEP_MS));
        if let (Some(Ordering::Equal), Some(held)) = (order, self.values.get_mut(&key)) {
            held.expires = held.expires.max(expires);
            held.fresh = now;
            return Ok(());
        }
        self.make_room(&key, from, record.bytes())?;
        self.forget(&key);
        let usage = self.usage.entry(from).or_default();
        usage.records += 1;
        usage.bytes += record.bytes() as u32;
        self.bytes += record.bytes();
        self.values.insert(key, Held { record, from, expires, fresh: now });
        Ok(())
    }

    /// Whether a value of `bytes` from `from` fits in place of what `key` has.
    fn make_room(&self, key: &Key, from: C, bytes: usize) -> Result<(), Refusal> {
        let old = self.values.get(key);
        let (freed, count) = old.map_or((0, 0), |held| (held.record.bytes(), 1));
        if self.values.len() - count >= RECORDS_MAX || self.bytes - freed + bytes > RECORD_BYTES_MAX {
            return Err(Refusal::Full);
        }
        let usage = self.usage.get(&from).copied().unwrap_or_default();
        let (freed, count) = if old.is_some_and(|held| held.from == from) { (freed, count) } else { (0, 0) };
        let records = usize::from(usage.records) - count;
        if records >= SENDER_RECORDS_MAX || usage.bytes as usize - freed + bytes > SENDER_BYTES_MAX {
            return Err(Refusal::Share);
        }
        Ok(())
    }

    fn forget(&mut self, key: &Key) {
        let Some(held) = self.values.remove(key) else {
            return;
        };
        self.bytes -= held.record.bytes();
        self.settle(held.from, |usage| {
            usage.records -= 1;
            usage.bytes -= held.record.bytes() as u32;
        });
    }

    fn settle(&mut self, sender: C, change: impl FnOnce(&mut Usage)) {
        let usage = self.usage.get_mut(&sender).expect("a sender of something held has an account");
        change(usage);
        if usage.records == 0 && usage.provided == 0 {
            self.usage.remove(&sender);
        }
    }

    /// The value of `key`, with the seconds it has left.
    #[must_use]
    pub fn get(&self, now: Micros, key: &Key) -> Option<Record> {
        let held = self.values.get(key).filter(|held| held.expires > now)?;
        let ttl = (held.expires.since(now) / 1_000_000).clamp(1, u64::from(u32::MAX)) as u32;
        Some(Record { ttl, ..held.record.clone() })
    }

    /// `provider` provides `key` for a day from now.
    ///
    /// # Errors
    /// [`Refusal::Full`] with too many keys or providers, [`Refusal::Share`] if the provider has its share.
    pub fn provide(&mut self, now: Micros, key: Key, provider: C) -> Result<(), Refusal> {
        let expires = now.plus_millis(TTL_MS_DEFAULT);
        let known = self.providers.get_mut(&key);
        if let Some((_, until)) = known.and_then(|known| known.iter_mut().find(|(own, _)| *own == provider)) {
            *until = expires;
            return Ok(());
        }
        let count = self.providers.get(&key).map_or(0, Vec::len);
        if count >= PROVIDERS_MAX || count == 0 && self.providers.len() >= PROVIDED_KEYS_MAX {
            return Err(Refusal::Full);
        }
        let usage = self.usage.get(&provider).copied().unwrap_or_default();
        if usize::from(usage.provided) >= SENDER_PROVIDED_MAX {
            return Err(Refusal::Share);
        }
        self.usage.entry(provider).or_default().provided += 1;
        self.providers.entry(key).or_default().push((provider, expires));
        self.sweep.get_or_insert(now.plus_millis(SWEEP_MS));
        Ok(())
    }

    /// Who provides `key`. At most [`PROVIDERS_MAX`].
    pub fn providers(&self, now: Micros, key: &Key) -> impl Iterator<Item = C> {
        let known = self.providers.get(key).into_iter().flatten();
        known.filter(move |(_, expires)| *expires > now).map(|(provider, _)| *provider)
    }

    /// When [`Store::sweep`] is due.
    #[must_use]
    pub const fn due(&self) -> Option<Micros> {
        self.sweep
    }

    /// Drops what has expired, and takes up to `most` values that nobody has sent for [`REPUBLISH_MS`]: they are to
    /// be sent on. O(records and providers).
    pub fn sweep(&mut self, now: Micros, most: usize, out: &mut Vec<Record>) {
        let gone: Vec<Key> =
            self.values.iter().filter(|(_, held)| held.expires <= now).map(|(key, _)| *key).collect();
        gone.iter().for_each(|key| self.forget(key));
        let mut left = Vec::new();
        self.providers.retain(|_, known| {
            known.retain(|(provider, expires)| {
                let stays = *expires > now;
                if !stays {
                    left.push(*provider);
                }
                stays
            });
            !known.is_empty()
        });
        left.into_iter().for_each(|provider| self.settle(provider, |usage| usage.provided -= 1));
        let old = self.values.values_mut().filter(|held| now.since(held.fresh) >= REPUBLISH_MS * 1000);
        for held in old.take(most) {
            // Fresh again: the paper's point is that one of its holders sends it an hour, not all of them.
            held.fresh = now;
            let ttl = (held.expires.since(now) / 1_000_000).max(1) as u32;
            out.push(Record { ttl, ..held.record.clone() });
        }
        let empty = self.values.is_empty() && self.providers.is_empty();
        self.sweep = (!empty).then(|| now.plus_millis(SWEEP_MS));
    }

    /// Everyone it has something from.
    pub(super) fn senders(&self) -> impl Iterator<Item = C> {
        self.usage.keys().copied()
    }

    /// How many values there are, and their bytes.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        (self.values.len(), self.bytes)
    }
}
