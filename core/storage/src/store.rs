//! The state of one partition, and the only way to change it.
//!
//! Handlers see values through typed lookups and edit guards; the bookkeeping that every change owes
//! (expiry, dirty marks for the checkpoint, memory, watchers) happens in here and nowhere else.

pub mod checkpoint;
mod digest;
mod edit;
mod evict;
mod fetching;
mod graveyard;
mod keys;
pub(crate) mod long;
mod naming;
pub mod scripts;
pub mod sessions;

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use kernel::hash::KeyHasher;
use kernel::limit::KEY_BYTES_MAX;
use kernel::{Index, Micros, Millis, Rng};

use crate::Fault;
use crate::apply::Fetch;
use crate::object::table::{Entry, Key, Slot, Table};
use crate::object::{Type, Value};

pub use edit::{Edit, Typed};
pub use evict::Policy;
pub use fetching::{Installed, unreadable};
pub(crate) use graveyard::{PIECES_AT_ONCE_MAX, Pieces};
pub use long::{LongId, Went};
pub use naming::Naming;

/// What happens to a key's expiry when its value is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// The new value never expires.
    Clear,
    /// The old expiry, if any, stays.
    Keep,
    /// It expires at this moment.
    At(Millis),
}

/// What `INFO` tells of the use of a store. Not part of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Keys that a read asked for and found.
    pub hits: u64,
    /// Keys that a read asked for in vain.
    pub misses: u64,
    /// Keys whose time was over.
    pub expired: u64,
}

/// Whether the running command may change the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// An expired entry looks absent and is left alone.
    Read,
    /// An expired entry is removed when it is met.
    Write,
}

/// One partition's keys and values.
pub struct Store {
    pub(crate) table: Table,
    seed: u64,
    applied: Index,
    time: Micros,
    now: Millis,
    mode: Mode,
    observed_expiry: bool,
    expiry: BTreeSet<(u64, u64, Slot)>,
    memory: usize,
    generation: u32,
    interest: bool,
    touched: Vec<Key>,
    flushed: bool,
    pub(crate) checkpoint: checkpoint::Dirty,
    fetch: Option<Box<dyn Fetch>>,
    misses: u64,
    policy: Policy,
    sampling: Rng,
    admission: evict::Admission,
    fetching: fetching::Fetching,
    /// Where the search for bodies to evict goes on.
    hand: Slot,
    /// Entries it passed since the last one that may leave.
    barren: usize,
    damaged: Option<String>,
    scripts: scripts::Scripts,
    naming: Naming,
    sessions: sessions::Sessions,
    counts: Counts,
    graveyard: graveyard::Graveyard,
    pub(crate) scope: Option<crate::reach::Scope>,
    longs: long::Longs,
}

/// Expired keys that one entry removes at most, so that no turn stalls.
const REAP_MAX: usize = 256;

impl Store {
    /// An empty store. `seed` decides its order and its chance, and belongs to the data.
    #[must_use]
    pub fn new(seed: u64) -> Store {
        Store {
            table: Table::new(KeyHasher::new(seed)),
            seed,
            applied: Index(0),
            time: Micros(0),
            now: Millis(0),
            mode: Mode::Read,
            observed_expiry: false,
            expiry: BTreeSet::new(),
            memory: 0,
            generation: 0,
            interest: false,
            touched: Vec::new(),
            flushed: false,
            checkpoint: checkpoint::Dirty::default(),
            fetch: None,
            misses: 0,
            policy: Policy::NoEviction,
            sampling: Rng::new(seed),
            admission: evict::Admission::default(),
            fetching: fetching::Fetching::default(),
            hand: Slot(0),
            barren: 0,
            damaged: None,
            scripts: scripts::Scripts::default(),
            naming: Naming::default(),
            sessions: sessions::Sessions::default(),
            counts: Counts::default(),
            graveyard: graveyard::Graveyard::default(),
            scope: None,
            longs: long::Longs::default(),
        }
    }

    /// The seed it was made with.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// What orders keys and members. A copy of a few words.
    #[inline]
    #[must_use]
    pub fn hasher(&self) -> KeyHasher {
        self.table.hasher()
    }

    /// Hands in the reader of evicted bodies.
    pub fn set_fetch(&mut self, fetch: Box<dyn Fetch>) {
        self.fetch = Some(fetch);
    }

    /// The scripts it remembers. `FLUSHDB` leaves them alone.
    #[must_use]
    pub const fn scripts(&self) -> &scripts::Scripts {
        &self.scripts
    }

    /// The same, to change them: by a logged command, or to install a checkpoint's.
    pub const fn scripts_mut(&mut self) -> &mut scripts::Scripts {
        &mut self.scripts
    }

    /// The names of the keyspaces, as far as this group was told.
    #[must_use]
    pub const fn naming(&self) -> &Naming {
        &self.naming
    }

    /// Takes new names, by a logged command.
    pub(crate) fn set_naming(&mut self, naming: Naming) {
        self.naming = naming;
    }

    /// How it was used since the start, or since they were last taken back.
    pub const fn counts_mut(&mut self) -> &mut Counts {
        &mut self.counts
    }

    /// The same, to read.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// The last entry applied.
    #[must_use]
    pub const fn applied(&self) -> Index {
        self.applied
    }

    /// The group's time: the highest stamp of any applied entry.
    #[must_use]
    pub const fn time(&self) -> Micros {
        self.time
    }

    /// The time of the running command.
    #[must_use]
    pub const fn now(&self) -> Millis {
        self.now
    }

    /// Counts the flushes: objects of older generations do not exist.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// Keys, those that expired but were not reaped yet included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.table.len()
    }

    /// True without keys.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Keys that have an expiry.
    #[must_use]
    pub fn expiring(&self) -> usize {
        self.expiry.len()
    }

    /// Estimated bytes of all entries in memory, and of what was removed and is not freed yet.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.memory + self.dead_bytes()
    }

    /// Why the state is not to be trusted any more, if a write could not read a body it needed.
    #[must_use]
    pub fn damaged(&self) -> Option<&str> {
        self.damaged.as_deref()
    }

    // --- the entry's frame ---------------------------------------------------------------------

    /// Starts applying entry `index`, stamped `time`: sets the clock and reaps what expired.
    pub fn begin_entry(&mut self, index: Index, time: Micros) {
        debug_assert!(index > self.applied, "entries are applied once, in order");
        self.let_pass();
        self.applied = index;
        self.time = self.time.max(time);
        self.now = self.time.millis();
        self.mode = Mode::Write;
        self.reap(REAP_MAX);
    }

    /// Goes on with the entry after reads in between.
    pub fn resume_entry(&mut self) {
        self.now = self.time.millis();
        self.mode = Mode::Write;
    }

    /// Ends it: from now on commands read.
    pub const fn end_entry(&mut self) {
        self.mode = Mode::Read;
    }

    /// Prepares for reads at the host's clock.
    pub fn begin_reads(&mut self, now: Micros) {
        self.let_pass();
        self.mode = Mode::Read;
        self.now = self.time.max(now).millis();
        self.observed_expiry = false;
    }

    /// True if a read since [`Store::begin_reads`] took a key for expired that no entry says is: its
    /// answer must wait until the time is logged, or the key could come back after a crash.
    #[must_use]
    pub const fn observed_unlogged_expiry(&self) -> bool {
        self.observed_expiry
    }

    /// When the next key expires, for the leader to log a tick.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Millis> {
        self.expiry.first().map(|&(at, _, _)| Millis(at))
    }

    fn reap(&mut self, most: usize) {
        for _ in 0..most {
            let Some(&(at, hash, slot)) = self.expiry.first() else { return };
            if at > self.now.0 {
                return;
            }
            self.remove_slot(hash, slot);
            self.counts.expired += 1;
        }
    }

    // --- watchers ------------------------------------------------------------------------------

    /// Whether changes must be noted for [`Store::take_touched`]: someone watches or waits.
    pub const fn set_interest(&mut self, interest: bool) {
        self.interest = interest;
    }

    /// True if [`Store::take_touched`] has something to say.
    #[inline]
    #[must_use]
    pub const fn has_touched(&self) -> bool {
        !self.touched.is_empty() || self.flushed
    }

    /// The keys changed since the last call, and whether everything was flushed.
    pub fn take_touched(&mut self, out: &mut Vec<Key>) -> bool {
        out.append(&mut self.touched);
        core::mem::take(&mut self.flushed)
    }

    fn touch(&mut self, key: &[u8]) {
        if self.interest {
            self.touched.push(Key::from_slice(key));
        }
    }

    // --- looking up ----------------------------------------------------------------------------

    /// The live entry of `key`: hash and slot. Expired ones are absent (and removed by writes).
    #[inline]
    pub(crate) fn locate(&mut self, key: &[u8]) -> (u64, Option<Slot>) {
        let hash = self.table.hash(key);
        let Some(slot) = self.table.find(hash, key) else { return (hash, None) };
        let expire_at = self.entry(slot).expire_at;
        if expire_at == 0 || expire_at > self.now.0 {
            return (hash, Some(slot));
        }
        match self.mode {
            Mode::Write => {
                self.remove_slot(hash, slot);
                self.counts.expired += 1;
            }
            Mode::Read => self.observed_expiry |= expire_at > self.time.millis().0,
        }
        (hash, None)
    }

    /// As [`Store::locate`], and counts what reads ask for.
    #[inline]
    pub(crate) fn seek(&mut self, key: &[u8]) -> Option<Slot> {
        let found = self.locate(key).1;
        if self.mode == Mode::Read {
            self.counts.hits += u64::from(found.is_some());
            self.counts.misses += u64::from(found.is_none());
        }
        found
    }

    #[inline]
    pub(crate) fn entry(&self, slot: Slot) -> &Entry {
        self.table.get(slot).expect("a located slot holds an entry")
    }

    #[inline]
    pub(crate) fn entry_mut(&mut self, slot: Slot) -> &mut Entry {
        self.table.get_mut(slot).expect("a located slot holds an entry")
    }

    /// True if `key` is still in the table although it has expired by `now` or by the logged time.
    #[must_use]
    pub fn is_due(&self, key: &[u8], now: Micros) -> bool {
        let slot = self.table.find(self.table.hash(key), key);
        let at = slot.map_or(0, |slot| self.entry(slot).expire_at);
        at != 0 && at <= self.time.max(now).millis().0
    }

    /// True if `key` exists.
    pub fn exists(&mut self, key: &[u8]) -> bool {
        self.locate(key).1.is_some()
    }

    /// The type of `key`'s value; does not load an evicted one.
    pub fn kind(&mut self, key: &[u8]) -> Option<Type> {
        let slot = self.seek(key)?;
        Some(self.entry(slot).value.kind())
    }

    /// The value of `key`, loaded if it was evicted, and noted as used.
    ///
    /// # Errors
    /// When the engine cannot give an evicted body.
    #[inline]
    pub fn value(&mut self, key: &[u8]) -> Result<Option<&Value>, Fault> {
        let Some(slot) = self.seek(key) else { return Ok(None) };
        self.load(slot)?;
        self.accessed(slot);
        Ok(Some(&self.entry(slot).value))
    }

    /// The value of `key` if it has type `T`.
    ///
    /// # Errors
    /// [`Fault::WrongType`]; or the engine cannot give an evicted body.
    #[inline]
    pub fn get<T: Typed>(&mut self, key: &[u8]) -> Result<Option<&T>, Fault> {
        match self.value(key)? {
            None => Ok(None),
            Some(value) => T::of(value).map(Some).ok_or(Fault::WrongType),
        }
    }

    /// The bytes of a string; integers are written into `scratch`.
    ///
    /// # Errors
    /// [`Fault::WrongType`]; or the engine cannot give an evicted body.
    #[inline]
    pub fn string<'a>(
        &'a mut self,
        key: &[u8],
        scratch: &'a mut itoa::Buffer,
    ) -> Result<Option<&'a [u8]>, Fault> {
        match self.value(key)? {
            None => Ok(None),
            Some(value) => value.string(scratch).map(Some).ok_or(Fault::WrongType),
        }
    }

    /// When `key` expires: `None` if it does not exist, `Some(None)` if it never does.
    pub fn expiry(&mut self, key: &[u8]) -> Option<Option<Millis>> {
        let slot = self.seek(key)?;
        let at = self.entry(slot).expire_at;
        Some((at != 0).then_some(Millis(at)))
    }

    /// Visits keys in hash order; see [`Table::scan`]. Expired entries are passed over.
    pub fn scan(&mut self, cursor: u64, count: usize, visit: &mut dyn FnMut(&[u8], Type)) -> u64 {
        let (now, logged) = (self.now.0, self.time.millis().0);
        let mut observed = false;
        let next = self.table.scan(cursor, count, &mut |_, entry| {
            if entry.expire_at == 0 || entry.expire_at > now {
                visit(&entry.key, entry.value.kind());
            } else {
                observed |= entry.expire_at > logged;
            }
        });
        self.observed_expiry |= observed;
        next
    }

    /// A random live key, for `RANDOMKEY` and sampling; a few tries, so expired keys may hide all.
    pub fn random_key(&mut self, rng: &mut Rng) -> Option<Key> {
        for _ in 0..100 {
            let slot = self.table.random(rng)?;
            let key = self.entry(slot).key.clone();
            if self.locate(&key).1.is_some() {
                return Some(key);
            }
        }
        None
    }

    // --- changing ------------------------------------------------------------------------------

    /// Sets `key` to `value`, whatever it was.
    ///
    /// # Errors
    /// [`Fault::KeyTooLong`].
    #[inline]
    pub fn set(&mut self, key: &[u8], value: Value, ttl: Ttl) -> Result<(), Fault> {
        let (hash, found) = self.locate(key);
        let added = value.memory_bytes();
        match found {
            Some(slot) => {
                self.before_change(slot);
                let entry = self.entry_mut(slot);
                let old = core::mem::replace(&mut entry.value, value);
                let removed = old.memory_bytes();
                self.memory = self.memory + added - removed;
                self.bury(old);
                self.grew(added.saturating_sub(removed));
                if ttl != Ttl::Keep {
                    self.set_expiry(hash, slot, ttl);
                }
            }
            None => {
                let slot = self.create(hash, key, value)?;
                self.set_expiry(hash, slot, ttl);
            }
        }
        self.touch(key);
        Ok(())
    }

    /// Removes `key`. Returns whether it existed.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let (hash, Some(slot)) = self.locate(key) else { return false };
        self.remove_slot(hash, slot);
        true
    }

    /// Takes `key`'s value (loaded) and expiry out, to be put elsewhere.
    ///
    /// # Errors
    /// When the engine cannot give an evicted body; nothing is removed then.
    pub fn take(&mut self, key: &[u8]) -> Result<Option<(Value, Ttl)>, Fault> {
        let (hash, Some(slot)) = self.locate(key) else { return Ok(None) };
        self.load(slot)?;
        let entry = self.detach_slot(hash, slot).expect("a located slot holds an entry");
        let ttl = if entry.expire_at == 0 { Ttl::Clear } else { Ttl::At(Millis(entry.expire_at)) };
        Ok(Some((entry.value, ttl)))
    }

    /// Gives `key` an expiry or takes it away. Returns false if `key` does not exist. A moment that has
    /// passed removes the key.
    pub fn expire(&mut self, key: &[u8], ttl: Ttl) -> bool {
        let (hash, Some(slot)) = self.locate(key) else { return false };
        match ttl {
            Ttl::At(at) if at <= self.now => {
                self.remove_slot(hash, slot);
            }
            ttl => {
                // The next cut writes the body too. If it cannot be read, the partition is damaged.
                let _ = self.load(slot);
                self.before_change(slot);
                self.set_expiry(hash, slot, ttl);
                self.touch(key);
            }
        }
        true
    }

    fn create(&mut self, hash: u64, key: &[u8], value: Value) -> Result<Slot, Fault> {
        if key.len() > KEY_BYTES_MAX {
            return Err(Fault::KeyTooLong { size: key.len(), limit: KEY_BYTES_MAX });
        }
        self.memory += entry_bytes(key, &value);
        let entry =
            Entry { key: Key::from_slice(key), value, expire_at: 0, clock: self.access_clock(), marks: 0 };
        let slot = self.table.insert(hash, entry);
        self.created(slot);
        if !self.longs.is_empty() {
            self.longs.appeared(self.generation, hash, key);
        }
        Ok(slot)
    }

    fn set_expiry(&mut self, hash: u64, slot: Slot, ttl: Ttl) {
        let at = match ttl {
            Ttl::Keep => return,
            Ttl::Clear => 0,
            Ttl::At(at) => at.0,
        };
        let entry = self.table.get_mut(slot).expect("a located slot holds an entry");
        let old = core::mem::replace(&mut entry.expire_at, at);
        if !self.longs.is_empty() {
            // Whether it is alive at an earlier moment, the new expiry does not tell.
            self.longs.gone(self.generation, (hash, &entry.key), old);
            self.longs.appeared(self.generation, hash, &entry.key);
        }
        if old != 0 {
            self.expiry.remove(&(old, hash, slot));
        }
        if at != 0 {
            self.expiry.insert((at, hash, slot));
        }
    }

    pub(crate) fn remove_slot(&mut self, hash: u64, slot: Slot) {
        if let Some(entry) = self.detach_slot(hash, slot) {
            self.bury(entry.value);
        }
    }

    fn detach_slot(&mut self, hash: u64, slot: Slot) -> Option<Entry> {
        self.before_removal(slot);
        let entry = self.table.remove(hash, slot)?;
        if entry.expire_at != 0 {
            self.expiry.remove(&(entry.expire_at, hash, slot));
        }
        self.memory -= entry_bytes(&entry.key, &entry.value);
        if !self.longs.is_empty() {
            self.longs.gone(self.generation, (hash, &entry.key), entry.expire_at);
        }
        self.touch(&entry.key);
        Some(entry)
    }
}

/// What an entry weighs against the memory budget.
pub(crate) fn entry_bytes(key: &[u8], value: &Value) -> usize {
    let spilled = if key.len() > 16 { key.len() } else { 0 };
    Table::ENTRY_BYTES + spilled + value.memory_bytes()
}
