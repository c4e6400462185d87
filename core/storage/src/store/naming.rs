//! Which keyspace each keyspace's data belongs to since `SWAPDB`.
//!
//! Groups keep the data they began with; only their names change. Each exchange is logged whole, in one
//! entry of one group, so that a crash leaves all of it or nothing. Of all groups' namings the one with the
//! most exchanges holds.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kernel::KeyspaceId;
use kernel::codec::{DecodeError, Reader, put_varint};

/// The keyspaces that are not where they began, and how many exchanges led there.
///
/// Invariant: a permutation; only those that moved are in `homes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    swaps: u64,
    homes: BTreeMap<KeyspaceId, KeyspaceId>,
}

impl Naming {
    /// The keyspace in whose groups the data of `keyspace` is.
    #[must_use]
    pub fn home(&self, keyspace: KeyspaceId) -> KeyspaceId {
        self.homes.get(&keyspace).copied().unwrap_or(keyspace)
    }

    /// The keyspaces that are not where they began.
    pub fn moved(&self) -> impl Iterator<Item = KeyspaceId> + '_ {
        self.homes.keys().copied()
    }

    /// Exchanges so far.
    #[must_use]
    pub const fn swaps(&self) -> u64 {
        self.swaps
    }

    /// This naming after one more exchange.
    #[must_use]
    pub fn swapped(&self, first: KeyspaceId, second: KeyspaceId) -> Naming {
        let mut next = Naming { swaps: self.swaps + 1, homes: self.homes.clone() };
        for (keyspace, home) in [(first, self.home(second)), (second, self.home(first))] {
            if keyspace == home {
                next.homes.remove(&keyspace);
            } else {
                next.homes.insert(keyspace, home);
            }
        }
        next
    }

    /// Appends it to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.swaps);
        put_varint(out, self.homes.len() as u64);
        for (keyspace, home) in &self.homes {
            put_varint(out, u64::from(keyspace.0));
            put_varint(out, u64::from(home.0));
        }
    }

    /// Reads what [`Naming::encode`] wrote.
    ///
    /// # Errors
    /// It is cut, or no permutation.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Naming, DecodeError> {
        let swaps = reader.varint()?;
        let mut homes = BTreeMap::new();
        for _ in 0..reader.varint()? {
            let mut id = || u16::try_from(reader.varint()?).map_err(|_| DecodeError::Overflow);
            let (keyspace, home) = (KeyspaceId(id()?), KeyspaceId(id()?));
            if keyspace == home || homes.insert(keyspace, home).is_some() {
                return Err(DecodeError::Invalid);
            }
        }
        let mut taken: Vec<KeyspaceId> = homes.values().copied().collect();
        taken.sort_unstable();
        if homes.keys().ne(&taken) {
            return Err(DecodeError::Invalid);
        }
        Ok(Naming { swaps, homes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exchanges_permute_and_read_back(swaps in proptest::collection::vec((0u16..16, 0u16..16), 0..20)) {
            let (mut naming, mut model) = (Naming::default(), (0..16).collect::<Vec<u16>>());
            for &(a, b) in swaps.iter().filter(|(a, b)| a != b) {
                naming = naming.swapped(KeyspaceId(a), KeyspaceId(b));
                model.swap(usize::from(a), usize::from(b));
            }
            let homes: Vec<u16> = (0..16).map(|id| naming.home(KeyspaceId(id)).0).collect();
            prop_assert_eq!(homes, model);
            let mut bytes = Vec::new();
            naming.encode(&mut bytes);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(Naming::decode(&mut reader), Ok(naming));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_bytes_are_a_permutation_or_refused(bytes: Vec<u8>) {
            if let Ok(naming) = Naming::decode(&mut Reader::new(&bytes)) {
                let mut homes: Vec<KeyspaceId> = naming.homes.values().copied().collect();
                homes.sort_unstable();
                prop_assert!(naming.homes.keys().eq(&homes));
            }
        }
    }
}
