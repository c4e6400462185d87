//! Editing a container in place: a guard that does the store's bookkeeping when it goes.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use super::Store;
use crate::Fault;
use crate::object::Value;
use crate::object::table::Slot;

/// A container type that is one variant of [`Value`].
pub trait Typed: Sized {
    /// The container in `value`, if it is of this type.
    fn of(value: &Value) -> Option<&Self>;
    /// The same, to change it.
    fn of_mut(value: &mut Value) -> Option<&mut Self>;
    /// The value with this container.
    fn into_value(self) -> Value;
    /// Bytes of memory it takes; O(1).
    fn memory_bytes(&self) -> usize;
    /// True without elements: such a key does not exist.
    fn is_empty(&self) -> bool;
}

/// Access to the container of one key. Reading through it costs nothing; the first change marks the
/// entry dirty; dropping it settles memory, watchers and the removal of an emptied key.
pub struct Edit<'s, T: Typed> {
    store: &'s mut Store,
    hash: u64,
    slot: Slot,
    before: usize,
    changed: bool,
    kind: PhantomData<T>,
}

impl<T: Typed> Edit<'_, T> {
    /// Says that the changes made through the guard so far changed nothing after all.
    pub const fn unchanged(&mut self) {
        self.changed = false;
    }
}

impl<T: Typed> Deref for Edit<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        T::of(&self.store.entry(self.slot).value).expect("an edited entry keeps its type")
    }
}

impl<T: Typed> DerefMut for Edit<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        if !self.changed {
            self.changed = true;
            self.store.before_change(self.slot);
        }
        T::of_mut(&mut self.store.entry_mut(self.slot).value).expect("an edited entry keeps its type")
    }
}

impl<T: Typed> Drop for Edit<'_, T> {
    fn drop(&mut self) {
        let (after, empty) = (T::memory_bytes(self), T::is_empty(self));
        self.store.memory = self.store.memory + after - self.before;
        self.store.grew(after.saturating_sub(self.before));
        if empty {
            self.store.remove_slot(self.hash, self.slot);
        } else if self.changed && self.store.interest {
            let key = self.store.entry(self.slot).key.clone();
            self.store.touched.push(key);
        }
    }
}

impl Store {
    /// The container of `key`, to edit; `None` if the key does not exist.
    ///
    /// # Errors
    /// [`Fault::WrongType`]; or the engine cannot give an evicted body.
    pub fn edit<T: Typed>(&mut self, key: &[u8]) -> Result<Option<Edit<'_, T>>, Fault> {
        let (hash, Some(slot)) = self.locate(key) else { return Ok(None) };
        self.guard(hash, slot).map(Some)
    }

    /// The container of `key`, to edit; made by `new` if the key does not exist. The caller must put
    /// something in: an empty container goes away with the guard.
    ///
    /// # Errors
    /// [`Fault::WrongType`], [`Fault::KeyTooLong`]; or the engine cannot give an evicted body.
    pub fn edit_or_new<T: Typed>(
        &mut self,
        key: &[u8],
        new: impl FnOnce() -> T,
    ) -> Result<Edit<'_, T>, Fault> {
        let (hash, found) = self.locate(key);
        let slot = match found {
            Some(slot) => slot,
            None => {
                let value = new().into_value();
                self.create(hash, key, value)?
            }
        };
        self.guard(hash, slot)
    }

    fn guard<T: Typed>(&mut self, hash: u64, slot: Slot) -> Result<Edit<'_, T>, Fault> {
        self.load(slot)?;
        self.accessed(slot);
        let container = T::of(&self.entry(slot).value).ok_or(Fault::WrongType)?;
        let before = container.memory_bytes();
        Ok(Edit { store: self, hash, slot, before, changed: false, kind: PhantomData })
    }
}
