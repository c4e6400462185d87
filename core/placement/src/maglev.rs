//! Maglev hashing: a table of slots that members take in turns, so that shares differ by at most one slot.
//!
//! Eisenbud et al. 2016, "Maglev: A fast and reliable software network load balancer", section 3.4. Looking
//! a key up is one load; a change of members moves a few more keys than a ring would.

use alloc::vec;
use alloc::vec::Vec;

use kernel::hash::KeyHasher;
use thiserror::Error;

use crate::ring::Member;

/// Slots of a table unless told otherwise: prime, as the paper's permutations need.
pub const SLOTS: u32 = 65_537;

const SEEDS: (u64, u64) = (0x4D61_676C, 0x6576_2016);

/// Why there is no such table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MaglevError {
    /// The permutations need a prime.
    #[error("a table has a prime number of slots, not {0}")]
    NotPrime(u32),
    /// Some would have no slot.
    #[error("{members} members do not fit into {slots} slots")]
    TooMany {
        /// How many.
        members: usize,
        /// How large the table is.
        slots: u32,
    },
}

/// A look-up table. It depends on the set of members alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maglev<M> {
    members: Vec<M>,
    table: Vec<u32>,
}

impl<M: Member> Maglev<M> {
    /// A table of `slots` slots over `members`. Expected O(slots · log slots).
    ///
    /// # Errors
    /// The number of slots is not prime, or below the number of members.
    pub fn new(members: impl IntoIterator<Item = M>, slots: u32) -> Result<Maglev<M>, MaglevError> {
        if !is_prime(slots) {
            return Err(MaglevError::NotPrime(slots));
        }
        let mut members: Vec<M> = members.into_iter().collect();
        members.sort_unstable();
        members.dedup();
        if members.len() > slots as usize {
            return Err(MaglevError::TooMany { members: members.len(), slots });
        }
        let table = populate(&members, slots);
        Ok(Maglev { members, table })
    }

    /// Who serves what hashes to `hash`; `None` without members.
    #[inline]
    #[must_use]
    pub fn pick(&self, hash: u64) -> Option<M> {
        let slots = self.table.len() as u64;
        if slots == 0 { None } else { Some(self.members[self.table[(hash % slots) as usize] as usize]) }
    }

    /// Its members, ascending.
    #[must_use]
    pub fn members(&self) -> &[M] {
        &self.members
    }
}

fn populate<M: Member>(members: &[M], slots: u32) -> Vec<u32> {
    if members.is_empty() {
        return Vec::new();
    }
    let (offsets, skips) = (KeyHasher::new(SEEDS.0), KeyHasher::new(SEEDS.1));
    let slots = u64::from(slots);
    let mut walks: Vec<(u64, u64)> = members
        .iter()
        .map(|member| (offsets.hash(member.name()) % slots, skips.hash(member.name()) % (slots - 1) + 1))
        .collect();
    let mut table = vec![u32::MAX; slots as usize];
    let mut left = slots;
    for turn in (0..members.len()).cycle() {
        let (place, skip) = &mut walks[turn];
        while table[*place as usize] != u32::MAX {
            *place = (*place + *skip) % slots;
        }
        table[*place as usize] = turn as u32;
        left -= 1;
        if left == 0 {
            break;
        }
    }
    table
}

const fn is_prime(n: u32) -> bool {
    if n < 2 {
        return false;
    }
    let mut divisor = 2_u32;
    while divisor as u64 * divisor as u64 <= n as u64 {
        if n.is_multiple_of(divisor) {
            return false;
        }
        divisor += 1;
    }
    true
}

const _: () = assert!(is_prime(SLOTS));

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::NodeId;
    use proptest::prelude::*;

    fn nodes(count: usize) -> Vec<NodeId> {
        (0..count).map(|number| NodeId([number as u8; 32])).collect()
    }

    #[test]
    fn a_table_needs_a_prime_and_room() {
        assert_eq!(Maglev::new(nodes(1), 8), Err(MaglevError::NotPrime(8)));
        assert_eq!(Maglev::new(nodes(1), 1), Err(MaglevError::NotPrime(1)));
        assert_eq!(Maglev::new(nodes(8), 7), Err(MaglevError::TooMany { members: 8, slots: 7 }));
        assert_eq!(Maglev::<NodeId>::new([], 7).unwrap().pick(3), None);
    }

    #[test]
    fn a_leave_moves_little_besides_what_the_leaver_had() {
        let before = Maglev::new(nodes(20), SLOTS).unwrap();
        let after = Maglev::new(nodes(19), SLOTS).unwrap();
        let gone = NodeId([19; 32]);
        let others = (0..u64::from(SLOTS)).filter(|&hash| before.pick(hash) != Some(gone));
        let moved = others.filter(|&hash| before.pick(hash) != after.pick(hash)).count();
        assert!(moved < SLOTS as usize / 20, "{moved} of {SLOTS}");
    }

    proptest! {
        #[test]
        fn shares_differ_by_at_most_one_slot(count in 1..40_usize) {
            let table = Maglev::new(nodes(count), 1009).unwrap();
            let mut shares = vec![0_usize; count];
            (0..1009).for_each(|hash| shares[usize::from(table.pick(hash).unwrap().0[0])] += 1);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert!(most - least <= 1);
        }
    }
}
