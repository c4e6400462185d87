//! The one hash of keys and members: rapidhash v3, seeded, the same on every machine.
//!
//! The seed is drawn once for each data directory, so that a client cannot prepare collisions, and is
//! then part of the data: the order of `SCAN` depends on it.

/// The seeded hash of a key. A value, so that machines get it handed in.
#[derive(Clone, Copy, Debug)]
pub struct KeyHasher {
    secrets: rapidhash::v3::RapidSecrets,
}

impl KeyHasher {
    /// The hasher decided by `seed`.
    #[must_use]
    pub fn new(seed: u64) -> KeyHasher {
        KeyHasher { secrets: rapidhash::v3::RapidSecrets::seed(seed) }
    }

    /// 64 well-mixed bits of `bytes`.
    #[inline]
    #[must_use]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        rapidhash::v3::rapidhash_v3_seeded(bytes, &self.secrets)
    }
}
