//! One number for the whole state, to compare replicas, replays and checkpoints.

use alloc::vec::Vec;

use kernel::codec::{put_bytes, put_varint};

use super::Store;
use crate::Fault;
use crate::object::Value;
use crate::object::table::Slot;

impl Store {
    /// A hash over all entries (key, value, expiry), whatever their order or place in memory, and over what
    /// forwarded writes were answered.
    ///
    /// Two stores with one seed that applied the same entries have the same digest, and another almost
    /// surely if they differ. O(bytes); evicted bodies are read back and stay evicted.
    ///
    /// # Errors
    /// When the engine cannot give an evicted body.
    pub fn digest(&self) -> Result<u64, Fault> {
        let (mut sum, mut bytes, mut result) = (0u64, Vec::new(), Ok(()));
        let hasher = self.hasher();
        self.table.scan(0, usize::MAX, &mut |_: Slot, entry| {
            bytes.clear();
            put_bytes(&mut bytes, &entry.key);
            put_varint(&mut bytes, entry.expire_at);
            match &entry.value {
                Value::Evicted(_) => match self.evicted_body(&entry.key) {
                    Ok(body) => bytes.extend_from_slice(&body),
                    Err(fault) => result = Err(fault),
                },
                value => value.encode(&mut bytes),
            }
            // A sum does not depend on the order; each term is well mixed.
            sum = sum.wrapping_add(hasher.hash(&bytes));
        });
        if self.sessions.origins() > 0 {
            bytes.clear();
            self.sessions.encode(&mut bytes);
            sum = sum.wrapping_add(hasher.hash(&bytes));
        }
        result.map(|()| sum)
    }

    fn evicted_body(&self, key: &[u8]) -> Result<Vec<u8>, Fault> {
        let fetch = self.fetch.as_ref().expect("only a store with a reader evicts");
        fetch.fetch(self.generation, key).map_err(Fault::Said)
    }
}

#[cfg(test)]
mod tests {
    use kernel::{Index, Micros, Millis};

    use alloc::vec;

    use super::*;
    use crate::store::Ttl;

    fn digest(sets: &[(&str, &str, Ttl)]) -> u64 {
        let mut store = Store::new(1);
        store.begin_entry(Index(1), Micros(1_000_000));
        for (key, value, ttl) in sets {
            let value = Value::from_bytes(value.as_bytes());
            store.set(key.as_bytes(), value, *ttl).expect("a short key is accepted");
        }
        store.digest().expect("nothing is evicted")
    }

    #[test]
    fn a_digest_depends_on_content_and_not_on_history() {
        let at = |millis| Ttl::At(Millis(millis));
        let base = digest(&[("a", "1", Ttl::Clear), ("b", "x", at(5000))]);
        #[rustfmt::skip] // columns
        let table = [
            (vec![("b", "x", at(5000)), ("a", "1", Ttl::Clear)],                       true),
            (vec![("a", "2", Ttl::Clear), ("b", "x", at(5000)), ("a", "1", Ttl::Keep)], true),
            (vec![("a", "1", Ttl::Clear), ("b", "x", at(5001))],                       false), // expiry
            (vec![("a", "1", Ttl::Clear), ("b", "y", at(5000))],                       false), // value
            (vec![("a", "1", Ttl::Clear), ("c", "x", at(5000))],                       false), // key
            (vec![("a", "1", Ttl::Clear)],                                             false),
        ];
        for (sets, same) in table {
            assert_eq!(digest(&sets) == base, same, "{sets:?}");
        }
    }
}
