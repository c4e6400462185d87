//! The 16384 slots of Redis Cluster: a key's slot is CRC16 of the key, or of its hash tag.
//!
//! See the Redis Cluster specification, "Key distribution model" and "Hash tags".

use thiserror::Error;

/// A slot of the key space, below [`Slot::COUNT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// How many slots there are.
    pub const COUNT: u16 = 16384;

    /// The slot with `number`, if there is one.
    #[must_use]
    pub const fn new(number: u16) -> Option<Slot> {
        if number < Slot::COUNT { Some(Slot(number)) } else { None }
    }

    /// Where `key` is. O(length of what is hashed).
    #[inline]
    #[must_use]
    pub fn of(key: &[u8]) -> Slot {
        Slot(crc16(hashed_part(key)) % Slot::COUNT)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// What of a key decides its slot: what is between the first `{` and the first `}` behind it, unless that is
/// empty or not there; then the whole key.
#[must_use]
pub fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let tag = &key[open + 1..];
    match tag.iter().position(|&byte| byte == b'}') {
        Some(end) if end > 0 => &tag[..end],
        _ => key,
    }
}

/// Into how many partitions of neighbouring slots a keyspace is divided: 1 to [`Slot::COUNT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions(u16);

/// Why a number is not one of partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a keyspace has 1 to 16384 partitions, not {0}")]
pub struct PartitionsError(pub u16);

impl Partitions {
    /// One partition with all slots.
    pub const ONE: Partitions = Partitions(1);

    /// `count` partitions.
    ///
    /// # Errors
    /// There are none, or more than slots.
    pub const fn new(count: u16) -> Result<Partitions, PartitionsError> {
        if count == 0 || count > Slot::COUNT { Err(PartitionsError(count)) } else { Ok(Partitions(count)) }
    }

    /// How many.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.0
    }

    /// The partition that has `slot`: its number times the count, divided by the number of slots.
    #[inline]
    #[must_use]
    pub const fn of(self, slot: Slot) -> u16 {
        (slot.0 as u32 * self.0 as u32 / Slot::COUNT as u32) as u16
    }

    /// The slots of `partition`: the first, and the first behind them. Sizes differ by at most one.
    #[must_use]
    pub const fn slots(self, partition: u16) -> (u16, u16) {
        let count = self.0 as u32;
        let first = (partition as u32 * Slot::COUNT as u32).div_ceil(count);
        let end = ((partition as u32 + 1) * Slot::COUNT as u32).div_ceil(count);
        (first as u16, end as u16)
    }
}

/// CRC-16/XMODEM: polynomial 0x1021, no reflection, begins with 0.
const fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0_u16;
    let mut at = 0;
    while at < bytes.len() {
        crc = crc << 8 ^ TABLE[((crc >> 8) as u8 ^ bytes[at]) as usize];
        at += 1;
    }
    crc
}

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

// The check value of CRC-16/XMODEM in the catalogue of parametrised CRC algorithms.
const _: () = assert!(crc16(b"123456789") == 0x31C3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_slots_that_redis_gives_them() {
        #[rustfmt::skip] // columns
        let table: [(&[u8], u16); 6] = [
            (b"123456789",   0x31C3),
            (b"foo",         12182),
            (b"",            0),
            (b"{foo}bar",    12182),
            (b"x{foo}{bar}", 12182), // the first tag counts
            (b"somekey",     11058),
        ];
        for (key, slot) in table {
            assert_eq!(Slot::of(key).number(), slot, "{key:?}");
        }
    }

    #[test]
    fn an_empty_or_open_tag_is_no_tag() {
        for key in [b"{}foo".as_slice(), b"foo{", b"foo{bar", b"foo{}{bar}"] {
            assert_eq!(hashed_part(key), key);
        }
    }

    #[test]
    fn partitions_divide_the_slots_evenly_and_in_order() {
        for count in [1, 2, 3, 7, 64, 100, 1000, 16383, 16384] {
            let partitions = Partitions::new(count).unwrap();
            let mut next = 0;
            for partition in 0..count {
                let (first, end) = partitions.slots(partition);
                assert_eq!(first, next);
                assert!((Slot::COUNT / count..=Slot::COUNT.div_ceil(count)).contains(&(end - first)));
                for slot in first..end {
                    assert_eq!(partitions.of(Slot(slot)), partition);
                }
                next = end;
            }
            assert_eq!(next, Slot::COUNT);
        }
        assert_eq!(Partitions::new(0), Err(PartitionsError(0)));
        assert!(Partitions::new(16385).is_err());
    }
}
