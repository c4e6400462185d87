//! Sorted sets against a sorted vector, and what survives a scan and a checkpoint.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use kernel::Rng;
use proptest::prelude::*;

use super::*;

fn hasher() -> KeyHasher {
    KeyHasher::new(7)
}

fn score(value: f64) -> Score {
    Score::new(value).expect("tests use numbers")
}

/// Pairs in order, found by linear search.
#[derive(Default)]
struct Model(Vec<(Score, Vec<u8>)>);

impl Model {
    fn remove(&mut self, member: &[u8]) -> Option<Score> {
        let at = self.0.iter().position(|(_, m)| m == member)?;
        Some(self.0.remove(at).0)
    }

    fn insert(&mut self, member: &[u8], score: Score) -> Change {
        let old = self.0.iter().find(|(_, m)| m == member).map(|&(s, _)| s);
        if old == Some(score) {
            return Change::Unchanged;
        }
        self.remove(member);
        let at = self.0.partition_point(|(s, m)| (*s, &m[..]) < (score, member));
        self.0.insert(at, (score, member.to_vec()));
        if old.is_some() { Change::Updated } else { Change::Added }
    }

    fn pairs(&self) -> impl DoubleEndedIterator<Item = (&[u8], Score)> + ExactSizeIterator {
        self.0.iter().map(|(s, m)| (&m[..], *s))
    }
}

fn reload(set: &Zset) -> Zset {
    let mut out = Vec::new();
    set.encode(&mut out);
    let mut reader = Reader::new(&out);
    let set = Zset::decode(&mut reader, &KeyHasher::new(99)).expect("what was encoded can be decoded");
    assert!(reader.is_empty());
    set
}

fn scanned(set: &Zset) -> Vec<(Vec<u8>, u64)> {
    let (mut all, mut cursor) = (Vec::new(), 0);
    loop {
        cursor = set.scan(cursor, 7, |m, s| all.push((m.to_vec(), s.get().to_bits())));
        if cursor == 0 {
            return all;
        }
    }
}

fn check(set: &Zset, model: &Model) {
    assert_eq!(set.len(), model.0.len());
    assert!(set.iter().eq(model.pairs()));
    assert!(set.iter().rev().eq(model.pairs().rev()));
    for (rank, (s, m)) in model.0.iter().enumerate() {
        assert_eq!(set.score(m), Some(*s));
        assert_eq!(set.rank(m), Some(rank));
        assert_eq!(set.rev_rank(m), Some(model.0.len() - 1 - rank));
        assert_eq!(set.get_rank(rank), Some((&m[..], *s)));
    }
    assert_eq!(set.get_rank(model.0.len()), None);
    assert_eq!((set.rank(b"none"), set.score(b"none")), (None, None));
}

fn check_ranges(set: &Zset, model: &Model, rng: &mut Rng) {
    let mut bound = || score([-1e9, -2.0, -0.0, 0.0, 1.0, 2.5, 3.0, f64::INFINITY][rng.below(8) as usize]);
    let (a, b) = (bound(), bound());
    let of = |keep: &dyn Fn(Score) -> bool| model.0.iter().filter(|(s, _)| keep(*s)).count();
    use ScoreBound::{Excluded, Included};
    assert_eq!(set.ranks_by_score(Included(a), Included(b)).len(), of(&|s| s >= a && s <= b));
    assert_eq!(set.ranks_by_score(Excluded(a), Included(b)).len(), of(&|s| s > a && s <= b));
    assert_eq!(set.ranks_by_score(Included(a), Excluded(b)).len(), of(&|s| s >= a && s < b));
    assert_eq!(set.ranks_by_score(Excluded(a), Excluded(b)).len(), of(&|s| s > a && s < b));
    assert_eq!(set.ranks_by_score(Included(Score::MIN), Included(Score::MAX)), 0..model.0.len());
    let range = set.ranks_by_score(Included(a), Excluded(b));
    let expected = model.pairs().filter(|&(_, s)| s >= a && s < b);
    assert!(set.range(range.clone()).eq(expected));
    let (low, high) = (rng.below(400) as usize, rng.below(400) as usize);
    let end = high.min(model.0.len());
    assert!(set.range(low..high).rev().eq(model.pairs().take(end).skip(low).rev()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_sorted_set_is_sorted_and_ranked(
        ops in prop::collection::vec((0u8..16, 0u64..400, 0usize..8), 1..700), seed: u64,
    ) {
        let scores = [-2.0, -0.0, 0.0, 1.0, 2.5, 3.0, f64::INFINITY, f64::NEG_INFINITY];
        let mut rng = Rng::new(seed);
        let (mut set, mut twin, mut model) = (Zset::new(), Zset::new(), Model::default());
        for (step, (op, i, s)) in ops.into_iter().enumerate() {
            let member = if i % 2 == 0 { format!("m{i}").into_bytes() } else { vec![b'x'; i as usize % 64] };
            match op {
                0..3 => {
                    prop_assert_eq!(set.remove(&member), model.remove(&member));
                    twin.remove(&member);
                }
                3 => {
                    let popped = (!model.0.is_empty()).then(|| model.0.remove(0));
                    prop_assert_eq!(set.pop_min(|m, s| (s, m.to_vec())), popped);
                    twin.pop_min(|_, _| ());
                }
                4 => {
                    prop_assert_eq!(set.pop_max(|m, s| (s, m.to_vec())), model.0.pop());
                    twin.pop_max(|_, _| ());
                }
                5 if step % 8 == 0 => {
                    let (low, high) = (i as usize % 50, i as usize % 50 + s);
                    let removed = model.0.len().min(high) - model.0.len().min(low);
                    prop_assert_eq!(set.remove_ranks(low..high), removed);
                    twin.remove_ranks(low..high);
                    model.0.drain(low.min(model.0.len())..high.min(model.0.len()));
                }
                _ => {
                    let score = score(scores[s]);
                    prop_assert_eq!(set.insert(&member, score, &hasher()), model.insert(&member, score));
                    twin.insert(&member, score, &hasher());
                }
            }
            if step % 50 == 0 {
                // The twin lives through checkpoints, with another hash seed, and must not differ.
                twin = reload(&twin);
                check(&set, &model);
                check_ranges(&set, &model, &mut rng);
            }
        }
        check(&set, &model);
        prop_assert_eq!(scanned(&set), scanned(&twin));
        prop_assert_eq!(scanned(&set), scanned(&reload(&set)));
        prop_assert_eq!(set.encoding(), reload(&set).encoding());
    }

    #[test]
    fn a_range_by_member_is_that_of_a_sorted_vector(
        members in prop::collection::btree_set("[a-c]{0,5}", 0..300), a in "[a-c]{0,3}", b in "[a-c]{0,3}",
    ) {
        let mut set = Zset::new();
        members.iter().for_each(|m| { set.insert(m.as_bytes(), Score::default(), &hasher()); });
        use LexBound::{Excluded, Included, Max, Min};
        let (x, y) = (a.as_bytes(), b.as_bytes());
        let members: Vec<&[u8]> = members.iter().map(|m| m.as_bytes()).collect();
        let of = |keep: &dyn Fn(&[u8]) -> bool| members.iter().copied().filter(|m| keep(m)).collect::<Vec<_>>();
        let got = |min, max| set.range(set.ranks_by_lex(min, max)).map(|(m, _)| m).collect::<Vec<_>>();
        prop_assert_eq!(got(Included(x), Included(y)), of(&|m| m >= x && m <= y));
        prop_assert_eq!(got(Excluded(x), Excluded(y)), of(&|m| m > x && m < y));
        prop_assert_eq!(got(Min, Excluded(y)), of(&|m| m < y));
        prop_assert_eq!(got(Excluded(x), Max), of(&|m| m > x));
        prop_assert_eq!(got(Min, Max), of(&|_| true));
        prop_assert_eq!(got(Max, Min), of(&|_| false));
        prop_assert_eq!(got(Max, Max), of(&|_| false));
    }

    #[test]
    fn a_walk_from_both_ends_meets_once(n in 0usize..500, a in 0usize..300, turns: Vec<bool>) {
        let mut set = Zset::new();
        (0..n).for_each(|i| { set.insert(format!("{i:04}").as_bytes(), score(i as f64), &hasher()); });
        let (mut walk, mut expected) = (set.range(a..a + 300), a.min(n)..n.min(a + 300));
        for front in turns.into_iter().cycle().take(310) {
            let (x, y) =
                if front { (walk.next(), expected.next()) } else { (walk.next_back(), expected.next_back()) };
            prop_assert_eq!(x.map(|(_, s)| s.get()), y.map(|i| i as f64));
            prop_assert_eq!(walk.len(), expected.len());
        }
    }

    #[test]
    fn what_stays_during_a_scan_is_returned(seed: u64, size in 0u64..1000, count in 1usize..40) {
        let mut rng = Rng::new(seed);
        let name = |i: u64| format!("m{i}").into_bytes();
        let mut set = Zset::new();
        (0..size).for_each(|i| { set.insert(&name(i), score(i as f64), &hasher()); });
        // Even ones stay, with changing scores; odd and new ones come and go between calls.
        let (mut seen, mut cursor) = (BTreeSet::new(), 0);
        loop {
            cursor = set.scan(cursor, count, |m, _| { seen.insert(m.to_vec()); });
            if cursor == 0 { break; }
            for _ in 0..rng.below(30) {
                let other = name(rng.below(2000) | 1);
                if rng.chance(0.6) { set.remove(&other); } else { set.insert(&other, score(1.0), &hasher()); }
                let staying = name(rng.below(size) & !1);
                set.insert(&staying, score(rng.unit()), &hasher());
            }
        }
        for i in (0..size).step_by(2) {
            prop_assert!(seen.contains(&name(i)), "{} was there all the time", i);
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic(tag in 0u8..4, bytes: Vec<u8>) {
        let mut all = vec![tag];
        all.extend(bytes);
        let _ = Zset::decode(&mut Reader::new(&all), &hasher());
    }
}

#[test]
fn ranks_hold_in_a_tree_of_many_levels() {
    for order in ["up", "down", "mixed", "equal"] {
        let (mut rng, mut set, mut all) = (Rng::new(3), Zset::new(), BTreeSet::new());
        for i in 0..30_000u64 {
            let value = match order {
                "up" => i,
                "down" => 30_000 - i,
                "mixed" => rng.below(10_000),
                _ => 0,
            };
            let member = rng.next_u64().to_be_bytes();
            assert_eq!(set.insert(&member, score(value as f64), &hasher()), Change::Added);
            all.insert((value, member));
        }
        for (rank, (_, member)) in all.iter().enumerate() {
            assert_eq!(set.rank(member), Some(rank), "{order}");
        }
        // Most go again, in another order, so that nodes empty and merge.
        let mut kept: Vec<_> = all.into_iter().collect();
        for _ in 0..29_000 {
            let (_, member) = kept.remove(rng.below(kept.len() as u64) as usize);
            assert!(set.remove(&member).is_some());
        }
        assert!(
            set.iter()
                .map(|(m, s)| (s.get() as u64, m.to_vec()))
                .eq(kept.iter().map(|(v, m)| (*v, m.to_vec())))
        );
        for (rank, (_, member)) in kept.iter().enumerate() {
            assert_eq!(set.rank(member), Some(rank), "{order}");
        }
        assert!(set.memory_bytes() < 1000 * 400, "{order}: {}", set.memory_bytes());
        assert_eq!(set.remove_ranks(0..usize::MAX), 1000);
        assert!(set.is_empty());
        assert_eq!(set.insert(b"again", score(1.0), &hasher()), Change::Added);
    }
}

#[test]
fn zero_and_minus_zero_are_one_score() {
    let mut set = Zset::new();
    assert_eq!(set.insert(b"b", score(0.0), &hasher()), Change::Added);
    assert_eq!(set.insert(b"a", score(-0.0), &hasher()), Change::Added);
    assert_eq!(set.insert(b"b", score(-0.0), &hasher()), Change::Unchanged);
    assert_eq!(set.rank(b"a"), Some(0));
    assert!(set.score(b"b").is_some_and(|s| s.get().is_sign_positive()));
    assert!(reload(&set).score(b"a").is_some_and(|s| s.get().is_sign_positive()));
    let from = ScoreBound::Excluded(score(-0.0));
    assert_eq!(set.ranks_by_score(from, ScoreBound::Included(Score::MAX)), 2..2);
    assert!(Score::new(f64::NAN).is_none());
}

#[test]
fn the_encoding_is_the_one_redis_reports() {
    for (members, width, expected) in
        [(128, 64, "listpack"), (129, 8, "skiplist"), (1, 65, "skiplist"), (1, 64, "listpack")]
    {
        let mut set = Zset::new();
        for i in 0..members {
            set.insert(format!("{i:0width$}").as_bytes(), score(1.0), &hasher());
        }
        assert_eq!(set.encoding(), expected, "{members} {width}");
    }
}

#[test]
fn bytes_that_no_version_wrote_are_refused() {
    let record = |score: f64, member: &[u8]| {
        let mut out = score.to_le_bytes().to_vec();
        put_bytes(&mut out, member);
        out
    };
    let with = |tag: u8, len: u8, records: &[Vec<u8>]| [&[tag, len], &records.concat()[..]].concat();
    let (a, nan) = (record(1.0, b"a"), record(f64::NAN, b"n"));
    #[rustfmt::skip] // columns
    let table = [
        (vec![],                                        DecodeError::Short),
        (vec![0, 0],                                    DecodeError::Invalid),
        (with(TAG_PACKED, 1, core::slice::from_ref(&nan)), DecodeError::Invalid),
        (with(TAG_LARGE, 1, &[nan]),                    DecodeError::Invalid),
        (with(TAG_PACKED, 2, &[a.clone(), a.clone()]),  DecodeError::Invalid),
        (with(TAG_LARGE, 2, &[a.clone(), a.clone()]),   DecodeError::Invalid),
        (with(TAG_LARGE, 2, core::slice::from_ref(&a)), DecodeError::Short),
        (with(TAG_PACKED, 1, &[a[..9].to_vec()]),       DecodeError::Short),
    ];
    for (bytes, expected) in table {
        assert_eq!(Zset::decode(&mut Reader::new(&bytes), &hasher()).err(), Some(expected), "{bytes:?}");
    }
}

#[test]
fn a_set_that_was_large_stays_so_through_a_checkpoint() {
    let name = |i: u32| format!("m{i}").into_bytes();
    let mut set = Zset::new();
    (0..600).for_each(|i| assert_eq!(set.insert(&name(i), score(1.0), &hasher()), Change::Added));
    (0..550).for_each(|i| assert!(set.remove(&name(i)).is_some()));
    let mut twin = reload(&set);
    for i in (550..600).step_by(3) {
        assert_eq!((set.remove(&name(i)).is_some(), twin.remove(&name(i)).is_some()), (true, true));
        assert_eq!(scanned(&set), scanned(&twin));
    }
    assert_eq!((set.encoding(), twin.encoding()), ("skiplist", "skiplist"));
}
