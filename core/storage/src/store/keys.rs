//! What the commands on keys and strings need of the store besides setting and removing.

use alloc::boxed::Box;
use alloc::vec::Vec;

use kernel::limit::KEY_BYTES_MAX;

use super::{Store, entry_bytes};
use crate::Fault;
use crate::object::{Value, parse_canonical};

/// The longest string that `APPEND` copies exactly instead of giving it room to grow.
const EXACT_BYTES_MAX: usize = 64;

impl Store {
    /// Changes the bytes of a string in place; made empty if the key does not exist. An expiry stays.
    ///
    /// # Errors
    /// [`Fault::WrongType`], [`Fault::KeyTooLong`]; or the engine cannot give an evicted body.
    pub fn edit_string<R>(&mut self, key: &[u8], edit: impl FnOnce(&mut Vec<u8>) -> R) -> Result<R, Fault> {
        let (hash, found) = self.locate(key);
        let slot = match found {
            Some(slot) => {
                self.load(slot)?;
                if self.entry(slot).value.string(&mut itoa::Buffer::new()).is_none() {
                    return Err(Fault::WrongType);
                }
                self.before_change(slot);
                slot
            }
            None => self.create(hash, key, Value::Bytes(Box::default()))?,
        };
        let value = &mut self.entry_mut(slot).value;
        let before = value.memory_bytes();
        let mut bytes = match core::mem::replace(value, Value::Int(0)) {
            Value::Int(number) => Vec::from(itoa::Buffer::new().format(number).as_bytes()),
            Value::Bytes(bytes) => bytes.into_vec(),
            Value::Buffer(buffer) => *buffer,
            _ => unreachable!("the type was checked above"),
        };
        let result = edit(&mut bytes);
        if bytes.len() <= EXACT_BYTES_MAX {
            bytes.shrink_to_fit();
        }
        *value = Value::Buffer(Box::new(bytes));
        let after = value.memory_bytes();
        self.memory = self.memory + after - before;
        self.touch(key);
        Ok(result)
    }

    /// Replaces the integer at `key` (0 if it does not exist) by what `next` makes of it, and answers
    /// that. An expiry stays.
    ///
    /// # Errors
    /// What `next` refuses; [`Fault::NotInteger`], [`Fault::WrongType`], [`Fault::KeyTooLong`]; or the
    /// engine cannot give an evicted body. Nothing is changed then.
    pub fn edit_integer(
        &mut self,
        key: &[u8],
        next: impl FnOnce(i64) -> Result<i64, Fault>,
    ) -> Result<i64, Fault> {
        let (hash, found) = self.locate(key);
        let Some(slot) = found else {
            let number = next(0)?;
            self.create(hash, key, Value::Int(number))?;
            self.touch(key);
            return Ok(number);
        };
        self.load(slot)?;
        let value = &self.entry(slot).value;
        let old = match value {
            Value::Int(number) => *number,
            other => {
                let mut scratch = itoa::Buffer::new();
                let bytes = other.string(&mut scratch).ok_or(Fault::WrongType)?;
                parse_canonical(bytes).ok_or(Fault::NotInteger)?
            }
        };
        let (number, before) = (next(old)?, value.memory_bytes());
        self.before_change(slot);
        self.entry_mut(slot).value = Value::Int(number);
        self.memory -= before;
        self.touch(key);
        Ok(number)
    }

    /// Loads what commands on `keys` will need into the processor's cache. One lookup after another waits for
    /// memory at every step; lookups in a row that do not depend on one another wait together. Changes nothing.
    ///
    /// Tells which of the first 64 keys have their bodies in the engine only, the first one in the lowest bit.
    pub fn bring_near<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> u64 {
        let (mut absent, mut read) = (0, 0u8);
        for (nth, key) in keys.enumerate() {
            let Some(slot) = self.table.find(self.table.hash(key), key) else { continue };
            match self.table.get(slot).map(|entry| &entry.value) {
                Some(Value::Bytes(bytes)) => read = read.wrapping_add(bytes.first().copied().unwrap_or(0)),
                Some(Value::Evicted(_)) if nth < 64 => absent |= 1 << nth,
                _ => {}
            }
        }
        core::hint::black_box(read);
        absent
    }

    /// Bytes that `key` and its value take in memory; `None` if it does not exist.
    pub fn usage(&mut self, key: &[u8]) -> Option<usize> {
        let slot = self.locate(key).1?;
        let entry = self.entry(slot);
        Some(entry_bytes(&entry.key, &entry.value))
    }

    /// Visits all live keys, in the order of [`Store::scan`].
    pub fn visit_all(&mut self, visit: &mut dyn FnMut(&[u8])) {
        let mut cursor = 0;
        loop {
            cursor = self.scan(cursor, VISIT_KEYS, &mut |key, _| visit(key));
            if cursor == 0 {
                return;
            }
        }
    }

    /// Seconds since `key` was last used; `None` if it does not exist. Does not count as a use.
    pub fn idle_seconds(&mut self, key: &[u8]) -> Option<u64> {
        let slot = self.locate(key).1?;
        Some(u64::from(self.idle_of(self.entry(slot))))
    }

    /// The LFU counter of `key`; `None` if it does not exist. Does not count as a use.
    pub fn use_count(&mut self, key: &[u8]) -> Option<u32> {
        let slot = self.locate(key).1?;
        Some(self.frequency(self.entry(slot)))
    }

    /// Notes a use of `key`, without a look at its value. False if it does not exist.
    pub fn use_key(&mut self, key: &[u8]) -> bool {
        let Some(slot) = self.seek(key) else { return false };
        self.accessed(slot);
        true
    }

    /// The value of `key`, loaded if it was evicted; not noted as used.
    ///
    /// # Errors
    /// When the engine cannot give an evicted body.
    pub fn peek(&mut self, key: &[u8]) -> Result<Option<&Value>, Fault> {
        let Some(slot) = self.seek(key) else { return Ok(None) };
        self.load(slot)?;
        Ok(Some(&self.entry(slot).value))
    }

    /// Makes `key` look as if it had been last used `seconds` ago. Nothing under LFU, as in Redis.
    pub fn set_idle_seconds(&mut self, key: &[u8], seconds: u64) {
        if let Some(slot) = self.locate(key).1.filter(|_| !self.policy.is_lfu()) {
            self.entry_mut(slot).clock = self.clock_before(seconds);
        }
    }

    /// Makes `key` look as if it had been used so often. Nothing but under LFU, as in Redis.
    pub fn set_use_count(&mut self, key: &[u8], count: u8) {
        if let Some(slot) = self.locate(key).1.filter(|_| self.policy.is_lfu()) {
            let clock = self.access_clock() & !0xFF | u32::from(count);
            self.entry_mut(slot).clock = clock;
        }
    }

    /// Refuses a key that is too long to be added, for commands that take before they put.
    ///
    /// # Errors
    /// [`Fault::KeyTooLong`].
    pub const fn check_key(&self, key: &[u8]) -> Result<(), Fault> {
        match key.len() {
            0..=KEY_BYTES_MAX => Ok(()),
            size => Err(Fault::KeyTooLong { size, limit: KEY_BYTES_MAX }),
        }
    }
}

/// Keys that [`Store::visit_all`] asks the table for at a time.
const VISIT_KEYS: usize = 1024;
