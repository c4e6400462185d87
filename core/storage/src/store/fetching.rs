//! Reading evicted bodies ahead of the commands that need them.
//!
//! The host is told which bodies to read, and brings them later. Until then the entry is marked; whatever
//! changes the entry takes the mark away, so that an old body never lands on a newer value.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kernel::Micros;
use kernel::planted::{Bug, is};

use super::Store;
use super::checkpoint::{ASKED, NEEDED};
use crate::object::Value;
use crate::object::table::{Key, Slot};

/// Bodies that were brought for one command only and are still in memory, at most: more leave although
/// something may still need them, and would then be read again.
const GUESTS_MAX: usize = 4096;

/// Bodies that stay for writes on their way, at most; the first of more may leave.
const NEEDED_MAX: usize = 4096;

/// Why a body does not fit its entry.
pub(super) const OTHER_TYPE: &str = "it has another type than the index says";

/// What is known of bodies that are not in memory.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    /// Some body has ever been left to the engine: before that, nothing need be looked for.
    pub evicts: bool,
    /// Bodies that the running command is told are unreadable, and why.
    pub failures: Vec<(Key, String)>,
    /// Brought for a command, and to leave after it.
    guests: Vec<Slot>,
    /// Needed by writes that are not applied.
    needed: VecDeque<Slot>,
}

/// What became of a body that was brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// It is in memory.
    Done,
    /// The entry has changed or gone since it was asked for: the body is of no use.
    Stale,
    /// It is not what the entry says.
    Unfit(&'static str),
}

/// What a command is answered whose key's body cannot be read.
#[must_use]
pub fn unreadable(key: &[u8], reason: &str) -> String {
    let key = String::from_utf8_lossy(key);
    format!("MISCONF the value of '{key}' cannot be read back from disk: {reason}")
}

impl Store {
    /// Whether any body may be in the engine only. False: nothing need be asked for.
    #[inline]
    #[must_use]
    pub const fn evicts(&self) -> bool {
        self.fetching.evicts
    }

    /// Whether the body of `key` is in the engine only, so that a command at `now` would wait for it.
    #[must_use]
    pub fn is_absent(&self, key: &[u8], now: Micros) -> bool {
        let Some(slot) = self.table.find(self.table.hash(key), key) else { return false };
        let entry = self.entry(slot);
        let due = entry.expire_at != 0 && entry.expire_at <= self.time.max(now).millis().0;
        matches!(entry.value, Value::Evicted(_)) && !due
    }

    /// A change that needs the body of `key` is on its way: the body stays until [`Store::all_applied`].
    pub fn use_soon(&mut self, key: &[u8]) {
        let Some(slot) = self.table.find(self.table.hash(key), key) else { return };
        let marks = &mut self.entry_mut(slot).marks;
        if *marks & NEEDED == 0 {
            *marks |= NEEDED;
            self.fetching.needed.push_back(slot);
            if self.fetching.needed.len() > NEEDED_MAX {
                self.release_needed(1);
            }
        }
    }

    /// No change is on its way any more.
    #[inline]
    pub fn all_applied(&mut self) {
        if !self.fetching.needed.is_empty() {
            self.release_needed(self.fetching.needed.len());
        }
    }

    fn release_needed(&mut self, count: usize) {
        for _ in 0..count {
            let Some(slot) = self.fetching.needed.pop_front() else { return };
            if let Some(entry) = self.table.get_mut(slot) {
                entry.marks &= !NEEDED;
            }
        }
    }

    /// Notes that the body of `key`, which is absent, is asked for. False if it was asked for already and has
    /// not changed since.
    pub fn ask(&mut self, key: &[u8]) -> bool {
        let Some(slot) = self.table.find(self.table.hash(key), key) else { return false };
        let entry = self.entry_mut(slot);
        let first = entry.marks & ASKED == 0;
        entry.marks |= ASKED;
        first
    }

    /// The body of `key` could not be read: it may be asked for again. False if the entry has changed or gone
    /// since it was asked for, so that nothing is missing.
    pub fn give_up(&mut self, key: &[u8]) -> bool {
        let Some(slot) = self.table.find(self.table.hash(key), key) else { return false };
        let marks = &mut self.entry_mut(slot).marks;
        let asked = *marks & ASKED != 0;
        *marks &= !ASKED;
        asked
    }

    /// Takes the body of `key` that was asked for last. Call between commands, after [`Store::begin_reads`].
    pub fn install(&mut self, key: &[u8], value: Value) -> Installed {
        let Some(slot) = self.table.find(self.table.hash(key), key) else { return Installed::Stale };
        let entry = self.entry(slot);
        if entry.marks & ASKED == 0 {
            return Installed::Stale;
        }
        if entry.value.kind() != value.kind() {
            self.entry_mut(slot).marks &= !ASKED;
            return Installed::Unfit(OTHER_TYPE);
        }
        debug_assert!(
            matches!(entry.value, Value::Evicted(_)) || is(Bug::FetchedOverNewer),
            "what changes an entry takes its mark away"
        );
        self.put_body(slot, value);
        self.misses += 1;
        if !self.is_admitted(slot) {
            self.fetching.guests.push(slot);
        }
        Installed::Done
    }

    /// Evicted bodies that were read back since the start.
    #[must_use]
    pub const fn misses(&self) -> u64 {
        self.misses
    }

    /// Tells the next command that the bodies of `failures` cannot be read, so that it does not try itself.
    pub fn set_failures(&mut self, failures: Vec<(Key, String)>) {
        self.fetching.failures = failures;
    }

    /// Forgets them, after it.
    #[inline]
    pub fn forget_failures(&mut self) {
        self.fetching.failures.clear();
    }

    /// Bodies that are in memory for one command only.
    #[inline]
    #[must_use]
    pub const fn guests(&self) -> usize {
        self.fetching.guests.len()
    }

    /// Lets the bodies go that were brought for one command, but those that are `awaited`.
    pub fn let_guests_go(&mut self, awaited: impl Fn(&[u8]) -> bool) {
        let guests = core::mem::take(&mut self.fetching.guests);
        let surplus = guests.len().saturating_sub(GUESTS_MAX);
        for (nth, slot) in guests.into_iter().enumerate() {
            let Some(entry) = self.table.get(slot) else { continue };
            if nth >= surplus && awaited(&entry.key) {
                self.fetching.guests.push(slot);
            } else if self.is_evictable(slot) {
                self.evict_slot(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use kernel::Index;

    use super::*;
    use crate::store::Ttl;

    /// One key whose body is in the engine only, at second 1.
    fn evicted() -> Store {
        let mut store = Store::new(1);
        store.begin_entry(Index(1), Micros(1_000_000));
        store.set(b"k", old(), Ttl::Clear).expect("it is short");
        store.end_entry();
        cut(&mut store);
        store
    }

    fn cut(store: &mut Store) {
        store.begin_cut();
        assert!(store.write_cut(usize::MAX).is_some());
        store.cut_is_durable();
        while store.evict_bodies(usize::MAX, 10) > 0 {}
        assert!(store.is_absent(b"k", Micros(0)));
    }

    fn old() -> Value {
        Value::from_bytes(&[b'o'; 100])
    }

    fn write(store: &mut Store, act: impl FnOnce(&mut Store)) {
        store.begin_entry(Index(store.applied().0 + 1), Micros(2_000_000));
        act(store);
        store.end_entry();
    }

    fn set_new(store: &mut Store) {
        store.set(b"k", Value::from_bytes(&[b'n'; 100]), Ttl::Clear).expect("it is short");
    }

    /// What happens to an entry between the question and the body.
    type Between = fn(&mut Store);

    #[test]
    fn a_body_lands_only_on_the_entry_that_it_was_asked_for() {
        let nothing: Between = |_| {};
        let changed: Between = |store| write(store, set_new);
        let changed_and_evicted: Between = |store| {
            write(store, set_new);
            cut(store);
        };
        let removed: Between = |store| write(store, |store| assert!(store.remove(b"k")));
        let flushed: Between = |store| write(store, Store::flush);
        let made_again: Between = |store| {
            write(store, Store::flush);
            write(store, set_new);
            cut(store);
        };
        let given_up: Between = |store| assert!(store.give_up(b"k"));
        #[rustfmt::skip] // columns
        let table = [
            ("nothing",             nothing,             Installed::Done,  Some(b'o')),
            ("changed",             changed,             Installed::Stale, Some(b'n')),
            ("changed and evicted", changed_and_evicted, Installed::Stale, None),
            ("removed",             removed,             Installed::Stale, None),
            ("flushed",             flushed,             Installed::Stale, None),
            ("made again",          made_again,          Installed::Stale, None),
            ("given up",            given_up,            Installed::Stale, None),
        ];
        for (what, between, expected, first) in table {
            let mut store = evicted();
            assert!(store.ask(b"k"), "{what}");
            assert!(!store.ask(b"k"), "{what}: it is asked for once");
            between(&mut store);
            assert_eq!(store.install(b"k", old()), expected, "{what}");
            let mut scratch = itoa::Buffer::new();
            let absent = store.is_absent(b"k", Micros(0));
            let found = if absent { None } else { store.string(b"k", &mut scratch).expect("it is here") };
            assert_eq!(found.map(|bytes| bytes[0]), first, "{what}");
        }
    }

    #[test]
    fn a_body_of_another_type_is_refused() {
        let mut store = evicted();
        store.ask(b"k");
        let list = Value::List(alloc::boxed::Box::default());
        assert_eq!(store.install(b"k", list), Installed::Unfit(OTHER_TYPE));
        assert!(store.is_absent(b"k", Micros(0)));
        assert!(store.ask(b"k"), "it may be asked for again");
    }

    #[test]
    fn an_expired_key_is_not_waited_for() {
        let mut store = Store::new(1);
        write(&mut store, |store| {
            store.set(b"k", old(), Ttl::At(kernel::Millis(5_000))).expect("it is short");
        });
        cut(&mut store);
        assert!(store.is_absent(b"k", Micros(4_999_000)));
        assert!(!store.is_absent(b"k", Micros(5_000_000)));
    }

    #[test]
    fn a_known_failure_is_what_the_command_is_told() {
        let mut store = evicted();
        store.set_failures(vec![(Key::from_slice(b"k"), "it is torn".into())]);
        let fault = store.value(b"k").expect_err("it cannot be read");
        assert_eq!(format!("{fault}"), unreadable(b"k", "it is torn"));
        assert_eq!(store.damaged(), None, "a read harms nothing");
    }

    #[test]
    fn a_guest_leaves_when_nobody_waits_for_it() {
        let mut store = evicted();
        store.ask(b"k");
        // It was not used for an hour, and bodies have left at once.
        store.begin_reads(Micros(3_600_000_000));
        assert_eq!(store.install(b"k", old()), Installed::Done);
        assert_eq!(store.guests(), 1);
        store.let_guests_go(|key| key == b"k");
        assert!(!store.is_absent(b"k", Micros(0)));
        store.let_guests_go(|_| false);
        assert!(store.is_absent(b"k", Micros(0)));
        assert_eq!(store.guests(), 0);
    }

    #[test]
    fn a_body_that_a_write_on_its_way_needs_stays_until_it_is_applied() {
        let mut store = Store::new(1);
        write(&mut store, |store| {
            for key in [b"k", b"l"] {
                store.set(key, old(), Ttl::Clear).expect("it is short");
            }
        });
        store.begin_cut();
        assert!(store.write_cut(usize::MAX).is_some());
        store.cut_is_durable();
        store.use_soon(b"k");
        while store.evict_bodies(usize::MAX, 10) > 0 {}
        assert!(!store.is_absent(b"k", Micros(0)));
        assert!(store.is_absent(b"l", Micros(0)));
        store.all_applied();
        while store.evict_bodies(usize::MAX, 10) > 0 {}
        assert!(store.is_absent(b"k", Micros(0)));
    }
}
