//! Places for things of one kind, whose keys are never taken for a later thing's.

/// A place and the life of what is in it. Fits the token of an event, two bits of which say what kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub at: u32,
    life: u32,
}

/// Bits of a life: it comes back only after so many things were in one place.
const LIFE_BITS: u32 = 30;

impl Key {
    pub const fn to_bits(self) -> usize {
        (self.life as usize) << 32 | self.at as usize
    }

    pub const fn from_bits(bits: usize) -> Key {
        Key { at: bits as u32, life: (bits >> 32) as u32 & ((1 << LIFE_BITS) - 1) }
    }
}

/// Things by key.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub const fn new() -> Slab<T> {
        Slab { places: Vec::new(), free: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// A key for the next thing. It must be filled, or given back by [`Slab::remove`].
    pub fn reserve(&mut self) -> Key {
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            u32::try_from(self.places.len() - 1).expect("connections are fewer than 2^32")
        });
        Key { at, life: self.places[at as usize].0 }
    }

    pub fn fill(&mut self, key: Key, thing: T) {
        self.places[key.at as usize].1 = Some(thing);
    }

    #[inline]
    pub fn get(&mut self, key: Key) -> Option<&mut T> {
        let (life, thing) = self.places.get_mut(key.at as usize)?;
        if *life == key.life { thing.as_mut() } else { None }
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        let (life, thing) = self.places.get_mut(key.at as usize)?;
        if *life != key.life {
            return None;
        }
        *life = (*life + 1) & ((1 << LIFE_BITS) - 1);
        self.free.push(key.at);
        thing.take()
    }

    pub fn keys(&self) -> Vec<Key> {
        let of = |(at, (life, thing)): (usize, &(u32, Option<T>))| {
            thing.as_ref().map(|_| Key { at: at as u32, life: *life })
        };
        self.places.iter().enumerate().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_one_thing_only() {
        let mut slab = Slab::new();
        let one = slab.reserve();
        slab.fill(one, 'a');
        assert_eq!(slab.remove(one), Some('a'));
        let other = slab.reserve();
        slab.fill(other, 'b');
        assert_eq!(other.at, one.at);
        assert_eq!((slab.get(one).copied(), slab.get(other).copied()), (None, Some('b')));
        assert_eq!(slab.remove(one), None);
        assert_eq!(slab.len(), 1);
        assert_eq!(Key::from_bits(other.to_bits()), other);
    }
}
