//! Hashes against a map, and what survives a scan and a checkpoint.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use kernel::Rng;
use proptest::prelude::*;

use super::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn hasher() -> KeyHasher {
    KeyHasher::new(7)
}

fn reload(hash: &Hash) -> Hash {
    let mut out = Vec::new();
    hash.encode(&mut out);
    let mut reader = Reader::new(&out);
    let hash = Hash::decode(&mut reader, &KeyHasher::new(99)).expect("what was encoded can be decoded");
    assert!(reader.is_empty());
    hash
}

fn order(hash: &Hash) -> Vec<(Vec<u8>, Vec<u8>)> {
    hash.iter().map(|(f, v)| (f.to_vec(), v.to_vec())).collect()
}

fn check(hash: &Hash, model: &Model) {
    let order = order(hash);
    assert_eq!(hash.len(), model.len());
    assert_eq!(&order.iter().cloned().collect::<Model>(), model);
    assert!(hash.keys().eq(order.iter().map(|(f, _)| &f[..])));
    assert!(hash.values().eq(order.iter().map(|(_, v)| &v[..])));
    for (i, (field, value)) in order.iter().enumerate() {
        assert_eq!(hash.get_index(i), Some((&field[..], &value[..])));
        assert_eq!(hash.get(field), Some(&value[..]));
        assert_eq!(hash.value_len(field), value.len());
    }
    assert_eq!(hash.get_index(order.len()), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_hash_is_a_map_and_its_order_is_its_history(
        ops in prop::collection::vec((0u8..6, 0u64..2000, 0usize..70), 1..1500), long: bool,
    ) {
        let (mut hash, mut twin, mut model) = (Hash::new(), Hash::new(), Model::new());
        for (step, (op, i, n)) in ops.into_iter().enumerate() {
            let field = match i % 3 {
                0 => format!("{i}").into_bytes(),
                1 => format!("field:{i:030}").into_bytes(),
                _ => vec![b'f'; (i / 3) as usize % 64],
            };
            if op == 0 {
                prop_assert_eq!(hash.remove(&field), model.remove(&field).is_some());
                twin.remove(&field);
            } else {
                let value = vec![b'v'; if long { n } else { n.min(64) }];
                prop_assert_eq!(hash.set(&field, &value, &hasher()), !model.contains_key(&field));
                twin.set(&field, &value, &hasher());
                model.insert(field, value);
            }
            if step % 100 == 0 {
                // The twin lives through checkpoints, with another hash seed, and must not differ.
                twin = reload(&twin);
                check(&hash, &model);
            }
        }
        check(&hash, &model);
        prop_assert_eq!(order(&hash), order(&twin));
        prop_assert_eq!(order(&hash), order(&reload(&hash)));
        prop_assert_eq!(hash.encoding(), reload(&hash).encoding());
    }

    #[test]
    fn what_stays_during_a_scan_is_returned(seed: u64, size in 0u64..1500, count in 1usize..40) {
        let mut rng = Rng::new(seed);
        let name = |i: u64| format!("f{i}").into_bytes();
        let mut hash = Hash::new();
        (0..size).for_each(|i| { hash.set(&name(i), b"v", &hasher()); });
        // Even ones stay; odd and new ones come and go between calls.
        let (mut seen, mut cursor) = (BTreeSet::new(), 0);
        loop {
            cursor = hash.scan(cursor, count, |f, _| { seen.insert(f.to_vec()); });
            if cursor == 0 { break; }
            for _ in 0..rng.below(30) {
                let other = name(rng.below(3000) | 1);
                if rng.chance(0.6) { hash.remove(&other); } else { hash.set(&other, b"w", &hasher()); }
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
        let _ = Hash::decode(&mut Reader::new(&all), &hasher());
    }
}

#[test]
fn the_encoding_is_the_one_redis_reports() {
    #[rustfmt::skip] // columns
    let table = [
        // fields  field bytes  value bytes  encoding
        (512,      8,           64,          "listpack"),
        (513,      8,           64,          "hashtable"),
        (1,        64,          64,          "listpack"),
        (1,        65,          1,           "hashtable"),
        (1,        1,           65,          "hashtable"),
    ];
    for (fields, width, value, expected) in table {
        let mut hash = Hash::new();
        for i in 0..fields {
            assert!(hash.set(format!("{i:0width$}").as_bytes(), &vec![b'v'; value], &hasher()));
        }
        assert_eq!(hash.encoding(), expected, "{fields} {width} {value}");
    }
}

#[test]
fn a_value_may_outgrow_the_packed_form() {
    let mut hash = Hash::new();
    assert!(hash.set(b"a", b"1", &hasher()));
    assert!(hash.set(b"b", b"2", &hasher()));
    assert!(!hash.set(b"a", &[b'x'; 65], &hasher()));
    assert_eq!(hash.encoding(), "hashtable");
    assert_eq!(order(&hash), vec![(b"a".to_vec(), vec![b'x'; 65]), (b"b".to_vec(), b"2".to_vec())]);
}

#[test]
fn bytes_that_no_version_wrote_are_refused() {
    #[rustfmt::skip] // columns
    let table: [(&[u8], DecodeError); 6] = [
        (&[],                                                     DecodeError::Short),
        (&[0, 0],                                                 DecodeError::Invalid),
        (&[TAG_PACKED, 2, 1, b'a', 0, 1, b'a', 0],                DecodeError::Invalid), // twice
        (&[TAG_LARGE, 2, 1, b'a', 0, 1, b'a', 0],                 DecodeError::Invalid), // twice
        (&[TAG_LARGE, 0xFF, 0xFF, 0xFF, 0x7F, 0],                 DecodeError::Short),
        (&[TAG_PACKED, 1, 1, b'a'],                               DecodeError::Short),   // no value
    ];
    for (bytes, expected) in table {
        assert_eq!(Hash::decode(&mut Reader::new(bytes), &hasher()).err(), Some(expected), "{bytes:?}");
    }
}

#[test]
fn memory_follows_the_values() {
    let mut hash = Hash::new();
    (0..1000).for_each(|i| assert!(hash.set(format!("f{i}").as_bytes(), &[0; 1000], &hasher())));
    let large = hash.memory_bytes();
    assert!(large > 1_000_000);
    (0..1000).for_each(|i| assert!(!hash.set(format!("f{i}").as_bytes(), b"", &hasher())));
    assert!(large - hash.memory_bytes() >= 1_000_000);
}

#[test]
fn a_hash_that_was_large_stays_so_through_a_checkpoint() {
    let name = |i: u32| format!("f{i}").into_bytes();
    let mut hash = Hash::new();
    (0..600).for_each(|i| assert!(hash.set(&name(i), b"v", &hasher())));
    (0..550).for_each(|i| assert!(hash.remove(&name(i))));
    let mut twin = reload(&hash);
    for i in (550..600).step_by(3) {
        assert_eq!((hash.remove(&name(i)), twin.remove(&name(i))), (true, true));
        assert_eq!(order(&hash), order(&twin));
    }
    assert_eq!((hash.encoding(), twin.encoding()), ("hashtable", "hashtable"));
}
