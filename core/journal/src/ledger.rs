//! The keepers of the log with their ends of life, as a file keeps them, so that a restart gives nothing away that was
//! promised; and the positions that a keeper sends.
//!
//! ```text
//! file      = "ARCHKEEP" | version u32 = 1 | keepers u8 | each: name u64, until u64 (ms), positions | CRC-32 of all before
//! positions = count varint | each: group u32, index varint
//! ```
//!
//! Integers are little-endian. A file that cannot be read is no reservation: then a backup has a gap, and names it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kernel::codec::{DecodeError, Reader, put_varint};
use kernel::planted::{Bug, is};
use kernel::{GroupId, Index, Millis};
use thiserror::Error;

use crate::reserve::{KEEPERS_MAX, Keeper, Positions, TooMany};

/// Most groups of which positions are taken.
pub const GROUPS_MAX: usize = 1 << 16;
/// Longest positions, in bytes: a count and as many groups as are taken, each with the longest index.
pub const POSITIONS_BYTES_MAX: usize = 3 + GROUPS_MAX * (4 + 10);
/// Longest that the log is kept for who does not ask again, in milliseconds: a day.
pub const LIFE_MS_MAX: u64 = 24 * 3600 * 1000;

const MAGIC: [u8; 8] = *b"ARCHKEEP";
const VERSION: u32 = 1;
/// The fewest bytes of a group's position.
const POSITION_BYTES_MIN: usize = 5;
const SUM_BYTES: usize = 4;

/// Why a file is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// The world's: it is damaged.
    #[error("it is damaged")]
    Damaged,
    /// A later version wrote it.
    #[error("it is of version {0} of its format, and this program reads version {VERSION}")]
    Version(u32),
}

impl From<DecodeError> for Unreadable {
    fn from(_: DecodeError) -> Unreadable {
        Unreadable::Damaged
    }
}

/// What one keeper was promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// It ends then, unless the keeper asks again.
    pub until: Millis,
    /// What it has already.
    pub after: Positions,
}

/// All promises.
///
/// Invariant: at most [`KEEPERS_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger(BTreeMap<Keeper, Promise>);

impl Ledger {
    /// Promises to keep what is behind `after` for `life_ms` milliseconds, but at most [`LIFE_MS_MAX`], in the place of
    /// what `keeper` was promised before.
    ///
    /// # Errors
    /// There are too many others.
    pub fn promise(
        &mut self,
        now: Millis,
        keeper: Keeper,
        life_ms: u64,
        after: Positions,
    ) -> Result<(), TooMany> {
        if self.0.len() >= KEEPERS_MAX && !self.0.contains_key(&keeper) {
            return Err(TooMany);
        }
        let until = Millis(now.0.saturating_add(life_ms.min(LIFE_MS_MAX)));
        self.0.insert(keeper, Promise { until, after });
        Ok(())
    }

    /// Drops the promises that have ended, and names whose they were.
    pub fn expire(&mut self, now: Millis) -> Vec<Keeper> {
        self.0.extract_if(.., |_, promise| promise.until <= now).map(|(keeper, _)| keeper).collect()
    }

    /// What is promised to whom.
    pub fn promises(&self) -> impl Iterator<Item = (Keeper, &Promise)> {
        self.0.iter().map(|(keeper, promise)| (*keeper, promise))
    }

    /// The file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.push(u8::try_from(self.0.len()).expect("there are few keepers"));
        for (keeper, promise) in &self.0 {
            out.extend_from_slice(&keeper.0.to_le_bytes());
            out.extend_from_slice(&promise.until.0.to_le_bytes());
            put_positions(&mut out, &promise.after);
        }
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// What a file says, with what has ended by now and was not expired. Nothing lives longer than it could if it were promised
    /// now, so that a clock that was set back keeps nothing for long.
    ///
    /// # Errors
    /// [`Unreadable`]; nothing is promised then.
    pub fn decode(now: Millis, bytes: &[u8]) -> Result<Ledger, Unreadable> {
        if is(Bug::ReservationForgottenAtStart) {
            return Ok(Ledger::default());
        }
        let (said, sum) = bytes.split_last_chunk::<SUM_BYTES>().ok_or(Unreadable::Damaged)?;
        let mut reader = Reader::new(said);
        if reader.array::<8>()? != MAGIC || crc32fast::hash(said) != u32::from_le_bytes(*sum) {
            return Err(Unreadable::Damaged);
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        let mut ledger = Ledger::default();
        for _ in 0..reader.u8()? {
            let (keeper, until) = (Keeper(reader.u64()?), Millis(reader.u64()?));
            let after = take_positions(&mut reader)?;
            let life_ms = until.0.saturating_sub(now.0);
            if ledger.0.contains_key(&keeper) || ledger.promise(now, keeper, life_ms, after).is_err() {
                return Err(Unreadable::Damaged);
            }
        }
        if !reader.is_empty() {
            return Err(Unreadable::Damaged);
        }
        Ok(ledger)
    }
}

/// Appends positions.
pub fn put_positions(out: &mut Vec<u8>, positions: &Positions) {
    put_varint(out, positions.len() as u64);
    for (group, index) in positions {
        out.extend_from_slice(&group.0.to_le_bytes());
        put_varint(out, index.0);
    }
}

/// The positions that `reader` has next.
///
/// # Errors
/// They are cut, more than [`GROUPS_MAX`], or name a group twice.
pub fn take_positions(reader: &mut Reader<'_>) -> Result<Positions, DecodeError> {
    let count = reader.len()?;
    if count > reader.rest().len() / POSITION_BYTES_MIN {
        return Err(DecodeError::Short);
    }
    if count > GROUPS_MAX {
        return Err(DecodeError::Overflow);
    }
    let mut positions = Positions::new();
    for _ in 0..count {
        let (group, index) = (GroupId(reader.u32()?), Index(reader.varint()?));
        if positions.insert(group, index).is_some() {
            return Err(DecodeError::Invalid);
        }
    }
    Ok(positions)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn positions() -> impl Strategy<Value = Positions> {
        proptest::collection::btree_map(any::<u32>().prop_map(GroupId), any::<u64>().prop_map(Index), 0..9)
    }

    proptest! {
        #[test]
        fn a_ledger_reads_back_and_what_has_ended_is_expired(
            kept in proptest::collection::btree_map(any::<u64>(), (0..2 * LIFE_MS_MAX, positions()), 0..=KEEPERS_MAX),
            passed in 0..2 * LIFE_MS_MAX,
        ) {
            let (begin, mut ledger) = (Millis(1 << 40), Ledger::default());
            for (keeper, (life_ms, after)) in &kept {
                ledger.promise(begin, Keeper(*keeper), *life_ms, after.clone()).unwrap();
            }
            let now = Millis(begin.0 + passed);
            let mut found = Ledger::decode(now, &ledger.encode()).unwrap();
            prop_assert_eq!(found.promises().count(), kept.len());
            found.expire(now);
            ledger.expire(now);
            prop_assert_eq!(&found, &ledger);
            for (_, promise) in found.promises() {
                prop_assert!(promise.until > now && promise.until.0 - begin.0 <= LIFE_MS_MAX);
            }
        }

        #[test]
        fn positions_read_back_and_a_cut_is_seen(positions in positions(), cut in 1usize..5) {
            let mut out = Vec::new();
            put_positions(&mut out, &positions);
            prop_assert_eq!(take_positions(&mut Reader::new(&out)), Ok(positions.clone()));
            let cut = out.len().saturating_sub(cut);
            let left = take_positions(&mut Reader::new(&out[..cut]));
            prop_assert!(left.is_err() || cut == 0);
        }
    }

    #[test]
    fn damage_is_seen_and_a_later_version_is_named() {
        let mut ledger = Ledger::default();
        let after = Positions::from([(GroupId(3), Index(500)), (GroupId(9), Index(0))]);
        ledger.promise(Millis(5), Keeper(77), 1000, after).unwrap();
        let good = ledger.encode();
        assert_eq!(Ledger::decode(Millis(5), &good), Ok(ledger));
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Ledger::decode(Millis(5), &bytes), Err(Unreadable::Damaged), "bit {bit}");
        }
        for length in 0..good.len() {
            assert_eq!(Ledger::decode(Millis(5), &good[..length]), Err(Unreadable::Damaged), "{length}");
        }
        let mut later = good[..good.len() - SUM_BYTES].to_vec();
        later[8] = 2;
        let sum = crc32fast::hash(&later);
        later.extend_from_slice(&sum.to_le_bytes());
        assert_eq!(Ledger::decode(Millis(5), &later), Err(Unreadable::Version(2)));
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nothing_for_long() {
        let mut ledger = Ledger::default();
        ledger.promise(Millis(1 << 50), Keeper(1), 1000, Positions::new()).unwrap();
        let found = Ledger::decode(Millis(100), &ledger.encode()).unwrap();
        let until: Vec<Millis> = found.promises().map(|(_, promise)| promise.until).collect();
        assert_eq!(until, [Millis(100 + LIFE_MS_MAX)]);
    }

    #[test]
    fn more_keepers_or_groups_than_are_allowed_are_refused() {
        let mut ledger = Ledger::default();
        for keeper in 0..KEEPERS_MAX as u64 {
            assert_eq!(ledger.promise(Millis(0), Keeper(keeper), 10, Positions::new()), Ok(()));
        }
        assert_eq!(ledger.promise(Millis(0), Keeper(99), 10, Positions::new()), Err(TooMany));
        assert_eq!(
            ledger.promise(Millis(0), Keeper(0), 20, Positions::new()),
            Ok(()),
            "who is there may renew"
        );
        assert_eq!(ledger.expire(Millis(10)), (1..KEEPERS_MAX as u64).map(Keeper).collect::<Vec<_>>());
        assert_eq!(ledger.promise(Millis(10), Keeper(99), 10, Positions::new()), Ok(()));
        // A count is judged by the bytes that follow before memory is taken for it.
        let mut huge = Vec::new();
        put_varint(&mut huge, 1 << 40);
        huge.extend_from_slice(&[1; 64]);
        assert_eq!(take_positions(&mut Reader::new(&huge)), Err(DecodeError::Short));
        let mut many = Vec::new();
        put_varint(&mut many, GROUPS_MAX as u64 + 1);
        many.resize(many.len() + (GROUPS_MAX + 1) * POSITION_BYTES_MIN, 0);
        assert_eq!(take_positions(&mut Reader::new(&many)), Err(DecodeError::Overflow));
        let twice = vec![2, 7, 0, 0, 0, 1, 7, 0, 0, 0, 2];
        assert_eq!(take_positions(&mut Reader::new(&twice)), Err(DecodeError::Invalid));
    }
}
