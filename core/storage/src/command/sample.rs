//! Random choices among numbered elements, for `SRANDMEMBER`, `HRANDFIELD` and their kind.
//!
//! Only the seeded generator and the number of elements decide, so that replicas choose the same.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use kernel::Rng;
use kernel::limit::ARGUMENTS_MAX;

use crate::Fault;

/// Most elements that a negative count may ask for: as many as a command may have arguments. Redis
/// has no limit, and a single short command could fill the memory.
const REPEATS_MAX: u64 = ARGUMENTS_MAX as u64;

/// The positions that a signed `count` asks for among `len` elements: that many different ones, or
/// with repetitions if it is negative. Elements come in their own order if all are wanted, else in
/// the order they are drawn.
pub(crate) fn choose(rng: &mut Rng, len: usize, count: i64) -> Result<Vec<usize>, Fault> {
    if len == 0 {
        return Ok(Vec::new());
    }
    if count < 0 {
        let repeats = count.unsigned_abs();
        if repeats > REPEATS_MAX {
            return Err(Fault::OutOfRange);
        }
        return Ok((0..repeats).map(|_| one(rng, len)).collect());
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(len);
    let all = || -> Vec<usize> { (0..len).collect() };
    Ok(if count == len {
        all()
    } else if count > len / 3 {
        // The front of a shuffle (Fisher and Yates).
        let mut places = all();
        (0..count).for_each(|at| places.swap(at, at + one(rng, len - at)));
        places.truncate(count);
        places
    } else {
        // Two of three draws are new, or more.
        let mut seen = BTreeSet::new();
        let mut places = Vec::with_capacity(count);
        while places.len() < count {
            let place = one(rng, len);
            if seen.insert(place) {
                places.push(place);
            }
        }
        places
    })
}

/// One of `len` positions; `len` is not 0.
#[inline]
pub(crate) fn one(rng: &mut Rng, len: usize) -> usize {
    rng.below(len as u64) as usize
}

#[cfg(test)]
mod tests {
    use kernel::Rng;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_positive_count_gives_different_positions(seed: u64, len in 0usize..500, count in 0i64..600) {
            let chosen = choose(&mut Rng::new(seed), len, count).expect("positive counts have no limit");
            prop_assert_eq!(chosen.len(), len.min(count as usize));
            prop_assert!(chosen.iter().all(|&place| place < len));
            prop_assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
        }

        #[test]
        fn a_negative_count_gives_that_many(seed: u64, len in 1usize..50, count in 1i64..200) {
            let chosen = choose(&mut Rng::new(seed), len, -count).expect("a small count");
            prop_assert_eq!(chosen.len(), count as usize);
            prop_assert!(chosen.iter().all(|&place| place < len));
        }
    }

    #[test]
    fn every_position_is_about_as_likely_as_another() {
        // 6,000 draws of 10 among 100 and of 40 among 100: each position comes 600 and 2,400 times, and
        // six standard deviations of a binomial distribution are 140 and 228.
        for (count, mean, most) in [(10, 600i64, 140), (40, 2400, 228)] {
            let mut rng = Rng::new(1);
            let mut times = [0i64; 100];
            for _ in 0..6000 {
                let chosen = choose(&mut rng, 100, count).expect("positive counts have no limit");
                chosen.into_iter().for_each(|place| times[place] += 1);
            }
            assert!(times.iter().all(|time| (time - mean).abs() < most), "{times:?}");
        }
    }

    #[test]
    fn a_boundless_answer_is_refused() {
        assert!(choose(&mut Rng::new(1), 3, -(ARGUMENTS_MAX as i64)).is_ok());
        assert_eq!(choose(&mut Rng::new(1), 3, -(ARGUMENTS_MAX as i64) - 1), Err(Fault::OutOfRange));
        assert_eq!(choose(&mut Rng::new(1), 3, i64::MIN), Err(Fault::OutOfRange));
    }
}
