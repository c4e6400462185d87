//! The key space: 256 bits, as nodes and values are placed in it.

use core::fmt;

use sha2::{Digest, Sha256};

/// A place in the key space. A node's is the SHA-256 of its identity, a value's that of its name.
///
/// The order is the numeric one, most significant bit first.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u64; 4]);

impl Key {
    /// Bits of a key.
    pub const BITS: u32 = 256;

    /// The key with these bytes, most significant first.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Key {
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_be_bytes(*chunk);
        }
        Key(words)
    }

    /// The bytes, most significant first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *chunk = word.to_be_bytes();
        }
        bytes
    }

    /// The key with these words, most significant first.
    #[must_use]
    pub const fn from_words(words: [u64; 4]) -> Key {
        Key(words)
    }

    /// Where `name` has its place: its SHA-256.
    #[must_use]
    pub fn of(name: &[u8]) -> Key {
        Key::from_bytes(Sha256::digest(name).into())
    }

    /// The 64 most significant bits: its point on Chord's ring.
    #[inline]
    #[must_use]
    pub const fn point(self) -> u64 {
        self.0[0]
    }

    /// Kademlia's distance to `other`: XOR, read as a number.
    #[inline]
    #[must_use]
    pub const fn distance(self, other: Key) -> Key {
        let (a, b) = (self.0, other.0);
        Key([a[0] ^ b[0], a[1] ^ b[1], a[2] ^ b[2], a[3] ^ b[3]])
    }

    /// How many leading bits are 0: of a distance, how many bits are shared. 256 for zero.
    #[inline]
    #[must_use]
    pub const fn leading_zeros(self) -> u32 {
        let mut n = 0;
        while n < 4 {
            if self.0[n] != 0 {
                return n as u32 * 64 + self.0[n].leading_zeros();
            }
            n += 1;
        }
        Key::BITS
    }
}

impl fmt::Display for Key {
    /// All 64 digits, hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|word| write!(f, "{word:016x}"))
    }
}

impl fmt::Debug for Key {
    /// The first eight digits, which tell keys apart in traces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0[0] >> 32)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_read_back_in_order(a: [u8; 32], b: [u8; 32]) {
            prop_assert_eq!(Key::from_bytes(a).to_bytes(), a);
            prop_assert_eq!(Key::from_bytes(a).cmp(&Key::from_bytes(b)), a.cmp(&b));
        }

        #[test]
        fn distance_is_a_metric_with_one_point_at_each_distance(a: [u64; 4], b: [u64; 4], c: [u64; 4]) {
            let (a, b, c) = (Key::from_words(a), Key::from_words(b), Key::from_words(c));
            prop_assert_eq!(a.distance(b), b.distance(a));
            prop_assert_eq!(a.distance(a), Key::default());
            prop_assert_eq!(a.distance(b).distance(b), a);
            prop_assert_eq!(a.distance(b).distance(b.distance(c)), a.distance(c));
        }
    }

    #[test]
    fn shared_bits_are_counted_across_words() {
        #[rustfmt::skip] // columns
        let table = [
            ([0, 0, 0, 0],           256),
            ([1 << 63, 0, 0, 0],     0),
            ([1, 0, 0, 0],           63),
            ([0, 1 << 62, 0, 0],     65),
            ([0, 0, 0, 1],           255),
        ];
        for (words, zeros) in table {
            assert_eq!(Key::from_words(words).leading_zeros(), zeros, "{words:?}");
        }
    }

    #[test]
    fn a_name_has_its_place_by_sha256() {
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Key::of(b"abc").to_string(), digest);
    }
}
