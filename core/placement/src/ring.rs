//! Consistent hashing: a ring of virtual nodes, and a ring with bounded loads.
//!
//! Karger et al. 1997, "Consistent hashing and random trees"; Mirrokni, Thorup & Zadimoghaddam 2018,
//! "Consistent hashing with bounded loads". Partitions of keyspaces are not placed by it (see
//! [`crate::solve`]): a ring balances worse and knows no zones. It needs no memory of what was, though.

use alloc::vec::Vec;

use kernel::hash::KeyHasher;

/// Part of the format of every ring: another seed would move all keys.
const SEED: u64 = 0x0A4C_41C3;

/// A place on the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point(pub u64);

impl Point {
    /// Where `key` is. The same on every machine.
    #[must_use]
    pub fn of(key: &[u8]) -> Point {
        Point(KeyHasher::new(SEED).hash(key))
    }
}

/// Something that has places on a ring.
pub trait Member: Copy + Ord {
    /// The bytes that its places are derived from; different members have different ones.
    fn name(&self) -> &[u8];
}

impl Member for kernel::NodeId {
    fn name(&self) -> &[u8] {
        &self.0
    }
}

/// A ring of members with some points (tokens, virtual nodes) each.
///
/// It depends on the set of members alone, not on the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring<M> {
    members: Vec<M>,
    /// Ascending; the second is a place among the members.
    points: Vec<(Point, u32)>,
}

impl<M: Member> Ring<M> {
    /// A ring of `members`, each with its number of tokens, which is its weight. A member that is named
    /// twice has the larger number. O(tokens · log tokens).
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = (M, u16)>) -> Ring<M> {
        let mut weighted: Vec<(M, u16)> = members.into_iter().collect();
        weighted.sort_unstable_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)));
        weighted.dedup_by_key(|(member, _)| *member);
        let hasher = KeyHasher::new(SEED);
        let mut points = Vec::with_capacity(weighted.iter().map(|(_, tokens)| usize::from(*tokens)).sum());
        let mut name = Vec::new();
        for (at, (member, tokens)) in weighted.iter().enumerate() {
            for token in 0..*tokens {
                name.clear();
                name.extend_from_slice(member.name());
                name.extend_from_slice(&token.to_le_bytes());
                points.push((Point(hasher.hash(&name)), at as u32));
            }
        }
        points.sort_unstable();
        Ring { members: weighted.into_iter().map(|(member, _)| member).collect(), points }
    }

    /// Its members, ascending.
    #[must_use]
    pub fn members(&self) -> &[M] {
        &self.members
    }

    /// The owner of `key`: the first point at or after it, so a point owns what is behind its predecessor up
    /// to and with itself. `None` on an empty ring. O(log points).
    #[must_use]
    pub fn owner(&self, key: Point) -> Option<M> {
        self.replicas(key, 1).next()
    }

    /// The members that keep `key`, owner first, each once; all members with tokens if fewer than `n`.
    ///
    /// O(log points) to find the owner, then one step for each point passed.
    pub fn replicas(&self, key: Point, n: usize) -> impl Iterator<Item = M> + '_ {
        let first = self.points.partition_point(|&(point, _)| point < key);
        let (before, after) = self.points.split_at(first);
        let mut seen: Vec<u32> = Vec::with_capacity(n.min(self.members.len()));
        let fresh = move |&(_, at): &(Point, u32)| {
            let new = !seen.contains(&at);
            if new {
                seen.push(at);
            }
            new.then(|| self.members[at as usize])
        };
        after.iter().chain(before).filter_map(fresh).take(n)
    }

    /// The first member from the owner of `key` on whose load is below `capacity`, see [`capacity`].
    /// `None` if all are full, which a capacity for one more than their total cannot meet.
    pub fn bounded(&self, key: Point, capacity: u64, load: impl Fn(M) -> u64) -> Option<M> {
        self.replicas(key, self.members.len()).find(|&member| load(member) < capacity)
    }

    /// The share of the ring that each member owns, in the order of [`Ring::members`]; they add up to 1.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        let mut shares = alloc::vec![0.0; self.members.len()];
        let Some(&(last, _)) = self.points.last() else { return shares };
        let mut previous = last;
        for &(point, at) in &self.points {
            let arc = if self.points.len() == 1 { u64::MAX } else { point.0.wrapping_sub(previous.0) };
            shares[at as usize] += arc as f64 / 18_446_744_073_709_551_616.0;
            previous = point;
        }
        shares
    }
}

/// What one of `members` may carry when `total` things are on the ring and none may have more than
/// `percent_over` per cent above the mean: rounded up, at least 1.
///
/// With c = 1 + percent/100, a join or leave moves O(1/(c-1)²) things (Mirrokni et al., theorem 1).
#[must_use]
pub const fn capacity(total: u64, members: usize, percent_over: u32) -> u64 {
    let members = if members == 0 { 1 } else { members as u128 };
    let wanted = total as u128 * (100 + percent_over as u128);
    let capacity = wanted.div_ceil(members * 100) as u64;
    if capacity == 0 { 1 } else { capacity }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::Rng;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Named([u8; 8]);

    impl Member for Named {
        fn name(&self) -> &[u8] {
            &self.0
        }
    }

    fn named(seed: u64, count: usize) -> Vec<Named> {
        let mut rng = Rng::new(seed);
        (0..count).map(|_| Named(rng.next_u64().to_be_bytes())).collect()
    }

    fn ring(members: &[Named], tokens: u16) -> Ring<Named> {
        Ring::new(members.iter().map(|&member| (member, tokens)))
    }

    #[test]
    fn a_point_owns_what_is_behind_its_predecessor_up_to_itself() {
        let ring = ring(&named(1, 3), 1);
        let points: Vec<(Point, Named)> =
            ring.points.iter().map(|&(point, at)| (point, ring.members[at as usize])).collect();
        #[rustfmt::skip] // columns
        let table = [
            (points[0].0,                    points[0].1),
            (Point(points[0].0.0 + 1),       points[1].1),
            (points[1].0,                    points[1].1),
            (points[2].0,                    points[2].1),
            (Point(points[2].0.0 + 1),       points[0].1), // around the end
            (Point(0),                       points[0].1),
        ];
        for (key, owner) in table {
            assert_eq!(ring.owner(key), Some(owner), "{key:?}");
        }
        assert_eq!(Ring::<Named>::new([]).owner(Point(7)), None);
    }

    #[test]
    fn a_key_stays_where_it_is_on_every_machine() {
        // Facts of this implementation: a change of the hash would move all keys of running services.
        let ring = Ring::new([b"alpha---", b"beta----", b"gamma---"].map(|name| (Named(*name), 64)));
        let owners: Vec<u8> = (0..12u8).map(|key| ring.owner(Point::of(&[key])).unwrap().0[0]).collect();
        assert_eq!(owners, b"gggbagaagaab");
    }

    #[test]
    fn one_token_each_gives_harmonic_imbalance_and_many_tokens_give_balance() {
        // E[max] / mean of k random arcs is H_k; with 256 tokens the figures were measured over many rings.
        #[rustfmt::skip] // columns
        let table = [
            (10,   1,   2.929, 4000),
            (100,  1,   5.187, 1000),
            (10,   256, 1.10,  200),
            (100,  256, 1.16,  60),
        ];
        for (k, tokens, expected, rings) in table {
            let worst = |seed| {
                let shares = ring(&named(seed, k), tokens).shares();
                shares.iter().fold(0.0, |max: f64, &share| max.max(share)) * k as f64
            };
            let mean = (0..rings).map(worst).sum::<f64>() / rings as f64;
            assert!((mean / expected - 1.0).abs() < 0.03, "k={k} tokens={tokens}: {mean} against {expected}");
        }
    }

    #[test]
    fn loads_stay_within_their_bound_and_the_walk_starts_at_the_owner() {
        let members = named(5, 10);
        let ring = ring(&members, 16);
        let mut loads = alloc::collections::BTreeMap::new();
        for number in 0..1000_u64 {
            let capacity = capacity(number + 1, members.len(), 25);
            let key = Point::of(&number.to_le_bytes());
            let picked = ring.bounded(key, capacity, |one| loads.get(&one).copied().unwrap_or(0));
            let picked = picked.expect("there is room for one more");
            let owner = ring.owner(key).unwrap();
            assert!(picked == owner || loads[&owner] >= capacity);
            *loads.entry(picked).or_insert(0) += 1;
            assert!(loads[&picked] <= capacity);
        }
        assert_eq!(ring.bounded(Point(0), 0, |_| 0), None);
    }

    #[test]
    fn capacity_is_the_mean_with_its_slack_rounded_up() {
        #[rustfmt::skip] // columns
        let table = [
            (0,   3, 25, 1),
            (1,   3, 25, 1),
            (100, 10, 25, 13),
            (100, 10, 0, 10),
            (7,   0, 0, 7),
            (u64::MAX, 1, 0, u64::MAX),
        ];
        for (total, members, over, expected) in table {
            assert_eq!(capacity(total, members, over), expected, "{total} {members} {over}");
        }
    }

    proptest! {
        #[test]
        fn replicas_are_distinct_and_a_join_moves_keys_to_the_joiner_only(
            seed: u64, count in 1..20_usize, tokens in 1..20_u16, n in 1..6_usize, key: u64,
        ) {
            let mut members = named(seed, count + 1);
            let joiner = members.pop().unwrap();
            let before = ring(&members, tokens);
            let replicas: Vec<Named> = before.replicas(Point(key), n).collect();
            let mut distinct = replicas.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), n.min(count));
            prop_assert_eq!(before.owner(Point(key)), replicas.first().copied());
            members.insert(count / 2, joiner);
            let after = ring(&members, tokens).owner(Point(key)).unwrap();
            prop_assert!(after == replicas[0] || after == joiner);
            prop_assert!((before.shares().iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }

        #[test]
        fn the_order_of_members_does_not_matter(seed: u64, count in 1..10_usize) {
            let members = named(seed, count);
            let mut turned = members.clone();
            turned.reverse();
            prop_assert_eq!(ring(&members, 8), ring(&turned, 8));
        }
    }
}
