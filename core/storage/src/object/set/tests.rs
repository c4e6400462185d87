//! Sets against a plain vector, and what survives a scan and a checkpoint.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use kernel::Rng;
use proptest::prelude::*;

use super::ints::canonical_int;
use super::*;

fn hasher() -> KeyHasher {
    KeyHasher::new(7)
}

/// Member number `i`: integers of all widths, or also short and long strings.
fn member(i: u64, ints_only: bool) -> Vec<u8> {
    let mixed = Rng::new(i).next_u64();
    match mixed % 5 {
        0 => format!("{}", i as i16).into_bytes(),
        1 => format!("{}", -(i as i64) * 70_000).into_bytes(),
        2 => format!("{}", (mixed >> 1) as i64).into_bytes(),
        3 if !ints_only => format!("element:{i:012}").into_bytes(),
        4 if !ints_only => vec![b'x'; (i % 64) as usize],
        _ => format!("{i}").into_bytes(),
    }
}

fn reload(set: &Set) -> Set {
    let mut out = Vec::new();
    set.encode(&mut out);
    let mut reader = Reader::new(&out);
    let set = Set::decode(&mut reader, &KeyHasher::new(99)).expect("what was encoded can be decoded");
    assert!(reader.is_empty());
    set
}

fn order(set: &Set) -> Vec<Vec<u8>> {
    set.iter().map(|m| m.to_vec()).collect()
}

fn check(set: &Set, model: &BTreeSet<Vec<u8>>) {
    assert_eq!(set.len(), model.len());
    let order = order(set);
    assert_eq!(&order.iter().cloned().collect::<BTreeSet<_>>(), model);
    for (i, member) in order.iter().enumerate() {
        assert_eq!(set.get_index(i).as_deref(), Some(&member[..]));
        assert!(set.contains(member));
    }
    assert!(set.get_index(order.len()).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_set_is_a_set_and_its_order_is_its_history(
        ops in prop::collection::vec((0u8..8, 0u64..700), 1..900), ints_only: bool,
    ) {
        let (mut set, mut twin, mut model) = (Set::new(), Set::new(), BTreeSet::new());
        for (step, (op, i)) in ops.into_iter().enumerate() {
            let m = member(i, ints_only);
            match op {
                0 => {
                    prop_assert_eq!(set.remove(&m), model.remove(&m));
                    twin.remove(&m);
                }
                1 if step % 3 == 0 => {
                    let index = i as usize % (set.len() + 1);
                    let taken = set.take_index(index, <[u8]>::to_vec);
                    prop_assert_eq!(twin.take_index(index, <[u8]>::to_vec), taken.clone());
                    prop_assert_eq!(taken.is_some(), index < model.len());
                    taken.map(|taken| model.remove(&taken));
                }
                _ => {
                    prop_assert_eq!(set.insert(&m, &hasher()), model.insert(m.clone()));
                    twin.insert(&m, &hasher());
                }
            }
            if step % 100 == 0 {
                // The twin lives through checkpoints, with another hash seed, and must not differ.
                twin = reload(&twin);
                check(&set, &model);
            }
        }
        check(&set, &model);
        prop_assert_eq!(order(&set), order(&twin));
        prop_assert_eq!(order(&set), order(&reload(&set)));
        prop_assert_eq!(set.encoding(), reload(&set).encoding());
    }

    #[test]
    fn what_stays_during_a_scan_is_returned(seed: u64, size in 0u64..1500, count in 1usize..40) {
        let mut rng = Rng::new(seed);
        let name = |i: u64| format!("m{i}").into_bytes();
        let mut set = Set::new();
        (0..size).for_each(|i| { set.insert(&name(i), &hasher()); });
        // Even ones stay; odd and new ones come and go between calls.
        let (mut seen, mut cursor) = (BTreeSet::new(), 0);
        loop {
            cursor = set.scan(cursor, count, |m| { seen.insert(m.to_vec()); });
            if cursor == 0 { break; }
            for _ in 0..rng.below(30) {
                let other = name(rng.below(3000) | 1);
                if rng.chance(0.6) { set.remove(&other); } else { set.insert(&other, &hasher()); }
            }
        }
        for i in (0..size).step_by(2) {
            prop_assert!(seen.contains(&name(i)), "{} was there all the time", i);
        }
    }

    #[test]
    fn only_printed_integers_are_integers(value: i64, text in "-?[0-9]{0,21}") {
        prop_assert_eq!(canonical_int(format!("{value}").as_bytes()), Some(value));
        let expected = text.parse::<i64>().ok().filter(|v| format!("{v}") == text);
        prop_assert_eq!(canonical_int(text.as_bytes()), expected);
    }

    #[test]
    fn no_bytes_make_decoding_panic(tag in 0u8..4, bytes: Vec<u8>) {
        let mut all = vec![tag];
        all.extend(bytes);
        let _ = Set::decode(&mut Reader::new(&all), &hasher());
    }
}

#[test]
fn the_encoding_is_the_one_redis_reports() {
    #[rustfmt::skip] // columns
    let table = [
        // members                         encoding
        (members(0..512, "{}"),            "intset"),
        (members(0..513, "{}"),            "hashtable"),
        (members(0..3, "a{}"),             "hashtable"),
        (vec![b"01".to_vec()],             "hashtable"),
        (vec![b"-0".to_vec()],             "hashtable"),
        (vec![b"+1".to_vec()],             "hashtable"),
        (vec![b"-9223372036854775808".to_vec()], "intset"),
        (vec![b"9223372036854775808".to_vec()],  "hashtable"),
    ];
    for (members, expected) in table {
        let mut set = Set::new();
        members.iter().for_each(|m| assert!(set.insert(m, &hasher())));
        assert_eq!(set.encoding(), expected, "{members:?}");
    }
}

fn members(range: core::ops::Range<u32>, pattern: &str) -> Vec<Vec<u8>> {
    range.map(|i| pattern.replace("{}", &format!("{i}")).into_bytes()).collect()
}

#[test]
fn bytes_that_no_version_wrote_are_refused() {
    #[rustfmt::skip] // columns
    let table: [(&[u8], DecodeError); 8] = [
        (&[],                                     DecodeError::Short),
        (&[9, 0],                                 DecodeError::Invalid),
        (&[TAG_INTS, 2, 4, 2],                    DecodeError::Invalid), // not ascending
        (&[TAG_INTS, 2, 4, 4],                    DecodeError::Invalid), // twice
        (&[TAG_PACKED, 2, 1, b'a', 1, b'a'],      DecodeError::Invalid), // twice
        (&[TAG_TABLE, 2, 1, b'a', 1, b'a'],       DecodeError::Invalid), // twice
        (&[TAG_TABLE, 0xFF, 0xFF, 0xFF, 0x7F, 0], DecodeError::Short),
        (&[TAG_PACKED, 1, 5, b'a'],               DecodeError::Short),
    ];
    for (bytes, expected) in table {
        assert_eq!(Set::decode(&mut Reader::new(bytes), &hasher()).err(), Some(expected), "{bytes:?}");
    }
}

#[test]
fn a_set_that_was_large_gives_its_memory_back() {
    let mut set = Set::new();
    (0..100_000u32).for_each(|i| assert!(set.insert(format!("m{i}").as_bytes(), &hasher())));
    let large = set.memory_bytes();
    (10..100_000u32).for_each(|i| assert!(set.remove(format!("m{i}").as_bytes())));
    assert!(set.memory_bytes() < large / 50, "{} of {large}", set.memory_bytes());
}

#[test]
fn a_set_that_was_large_stays_so_through_a_checkpoint() {
    let mut set = Set::new();
    members(0..600, "m{}").iter().for_each(|m| assert!(set.insert(m, &hasher())));
    members(0..550, "m{}").iter().for_each(|m| assert!(set.remove(m)));
    let mut twin = reload(&set);
    for m in members(550..600, "m{}").iter().step_by(3) {
        assert_eq!((set.remove(m), twin.remove(m)), (true, true));
        assert_eq!(order(&set), order(&twin));
    }
}

#[test]
fn a_set_of_integers_that_became_another_stays_so_through_a_checkpoint() {
    let mut set = Set::new();
    [&b"3"[..], b"1", b"x"].iter().for_each(|m| assert!(set.insert(m, &hasher())));
    assert!(set.remove(b"x"));
    let mut twin = reload(&set);
    assert_eq!((set.insert(b"2", &hasher()), twin.insert(b"2", &hasher())), (true, true));
    assert_eq!(order(&set), [b"1", b"3", b"2"]);
    assert_eq!(order(&set), order(&twin));
    assert_eq!((set.encoding(), twin.encoding()), ("hashtable", "hashtable"));
}
