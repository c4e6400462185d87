//! Lists against a plain vector.

use alloc::vec;
use alloc::vec::Vec;

use kernel::codec::{DecodeError, Reader, put_varint};
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    PushBack(Vec<u8>),
    PushFront(Vec<u8>),
    PopBack,
    PopFront,
    Set(usize, Vec<u8>),
    Insert(Side, usize, Vec<u8>),
    Remove(i64, usize),
    Trim(usize, usize),
    Reload,
}

/// Few values, so that some are equal, in all sizes that are encoded differently.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![
        4 => 0usize..40,
        2 => prop::sample::select(vec![252, 253, 254, 255, 256]),
        2 => 1000usize..3000,
        1 => prop::sample::select(vec![8000, 8185, 8186, 8187, 20_000, 65_535, 65_536]),
    ];
    (len, 0u8..2).prop_map(|(len, byte)| vec![byte; len])
}

fn op() -> impl Strategy<Value = Op> {
    let side = prop_oneof![Just(Side::Before), Just(Side::After)];
    prop_oneof![
        8 => value().prop_map(Op::PushBack),
        8 => value().prop_map(Op::PushFront),
        3 => Just(Op::PopBack),
        3 => Just(Op::PopFront),
        3 => (any::<usize>(), value()).prop_map(|(i, v)| Op::Set(i, v)),
        4 => (side, any::<usize>(), value()).prop_map(|(s, i, v)| Op::Insert(s, i, v)),
        2 => (-3i64..3, any::<usize>()).prop_map(|(n, i)| Op::Remove(n, i)),
        1 => (0usize..6, 0usize..6).prop_map(|(a, b)| Op::Trim(a, b)),
        1 => (0usize..40, 0usize..40).prop_map(|(a, b)| Op::Trim(a, b)),
        1 => Just(Op::Reload),
    ]
}

fn reload(list: &List) -> List {
    let mut out = Vec::new();
    list.encode(&mut out);
    let mut reader = Reader::new(&out);
    let list = List::decode(&mut reader).expect("what was encoded can be decoded");
    assert!(reader.is_empty());
    list
}

fn remove(model: &mut Vec<Vec<u8>>, count: i64, value: &[u8]) -> usize {
    let mut hits: Vec<usize> = (0..model.len()).filter(|&i| model[i] == value).collect();
    let n = if count == 0 { hits.len() } else { hits.len().min(count.unsigned_abs() as usize) };
    let hits = if count < 0 { hits.split_off(hits.len() - n) } else { hits[..n].to_vec() };
    hits.iter().rev().for_each(|&i| drop(model.remove(i)));
    n
}

fn apply(list: &mut List, model: &mut Vec<Vec<u8>>, op: Op) {
    let len = model.len();
    match op {
        Op::PushBack(v) => {
            list.push_back(&v);
            model.push(v);
        }
        Op::PushFront(v) => {
            list.push_front(&v);
            model.insert(0, v);
        }
        Op::PopBack => assert_eq!(list.pop_back(<[u8]>::to_vec), model.pop()),
        Op::PopFront => {
            let first = (len > 0).then(|| model.remove(0));
            assert_eq!(list.pop_front(<[u8]>::to_vec), first);
        }
        Op::Set(i, v) => {
            let i = i % (len + 1);
            assert_eq!(list.set(i, &v), i < len);
            if i < len {
                model[i] = v;
            }
        }
        Op::Insert(side, i, v) => {
            let pivot = if len == 0 { b"none".to_vec() } else { model[i % len].clone() };
            let at = model.iter().position(|e| *e == pivot);
            assert_eq!(list.insert(side, &pivot, &v), at.is_some());
            if let Some(at) = at {
                model.insert(at + usize::from(side == Side::After), v);
            }
        }
        Op::Remove(count, i) => {
            let value = if len == 0 { b"none".to_vec() } else { model[i % len].clone() };
            assert_eq!(list.remove(count, &value), remove(model, count, &value));
        }
        Op::Trim(a, b) => {
            let end = len.saturating_sub(b);
            list.trim(a..end);
            model.truncate(end);
            model.drain(..a.min(end));
        }
        Op::Reload => *list = reload(list),
    }
}

fn check(list: &List, model: &[Vec<u8>]) {
    assert_eq!(list.len(), model.len());
    assert_eq!(list.is_empty(), model.is_empty());
    assert!(list.iter().eq(model.iter().map(Vec::as_slice)));
    assert!(list.iter().rev().eq(model.iter().rev().map(Vec::as_slice)));
    assert_eq!(list.front(), model.first().map(Vec::as_slice));
    assert_eq!(list.back(), model.last().map(Vec::as_slice));
    let bytes: usize = model.iter().map(Vec::len).sum();
    assert!(list.memory_bytes() >= bytes);
    assert!(list.memory_bytes() <= 3 * bytes + model.len() * 64 + 4 * 8192, "{}", list.memory_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_list_is_a_vector(ops in prop::collection::vec(op(), 1..150)) {
        let (mut list, mut model) = (List::new(), Vec::new());
        for op in ops {
            apply(&mut list, &mut model, op);
            check(&list, &model);
        }
    }

    #[test]
    fn any_part_of_a_list_is_that_part_of_a_vector(
        values in prop::collection::vec(value(), 0..60),
        a in 0usize..70, b in 0usize..70, turns: Vec<bool>,
    ) {
        let mut list = List::new();
        values.iter().for_each(|v| list.push_back(v));
        let end = b.min(values.len());
        let part = &values[a.min(end)..end];
        prop_assert!(list.range(a..b).eq(part.iter().map(Vec::as_slice)));
        prop_assert_eq!(list.get(a), values.get(a).map(Vec::as_slice));
        // From both ends at once, until they meet.
        let (mut walk, mut expected) = (list.range(a..b), part.iter());
        for front in turns {
            let (x, y) =
                if front { (walk.next(), expected.next()) } else { (walk.next_back(), expected.next_back()) };
            prop_assert_eq!(x, y.map(Vec::as_slice));
            prop_assert_eq!(walk.len(), expected.len());
        }
        let value = values.first().cloned().unwrap_or_default();
        let found: Vec<usize> = (a.min(end)..end).filter(|&i| values[i] == value).collect();
        prop_assert_eq!(list.positions(a..b, &value).collect::<Vec<_>>(), found.clone());
        prop_assert!(list.positions(a..b, &value).rev().eq(found.into_iter().rev()));
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes: Vec<u8>) {
        let _ = List::decode(&mut Reader::new(&bytes));
    }
}

#[test]
fn a_queue_keeps_its_order_and_its_memory_in_both_directions() {
    for backwards in [false, true] {
        let mut list = List::new();
        for i in 0..50_000u32 {
            if backwards {
                list.push_front(&i.to_le_bytes())
            } else {
                list.push_back(&i.to_le_bytes())
            }
            if i >= 100 {
                let read = |e: &[u8]| e.to_vec();
                let oldest = if backwards { list.pop_back(read) } else { list.pop_front(read) };
                assert_eq!(oldest, Some((i - 100).to_le_bytes().to_vec()));
            }
            assert!(list.memory_bytes() < 16 * 1024);
        }
    }
}

#[test]
fn a_list_pushed_at_both_ends_in_turn_keeps_its_order() {
    let mut list = List::new();
    for i in 0..5_000u32 {
        list.push_front(&i.to_le_bytes());
        list.push_back(&i.to_le_bytes());
    }
    let expected = (0..5_000u32).rev().chain(0..5_000).map(u32::to_le_bytes);
    assert!(list.iter().map(<[u8]>::to_vec).eq(expected.map(|e| e.to_vec())));
}

#[test]
fn a_false_length_takes_no_memory() {
    let mut out = Vec::new();
    put_varint(&mut out, u64::MAX);
    out.extend([1, b'a']);
    assert_eq!(List::decode(&mut Reader::new(&out)).err(), Some(DecodeError::Short));
}

#[test]
fn a_list_that_was_large_and_is_small_gives_its_memory_back() {
    let mut list = List::new();
    (0..100_000u32).for_each(|i| list.push_back(&i.to_le_bytes()));
    assert!(list.memory_bytes() > 500_000);
    list.trim(50_000..50_010);
    assert_eq!(list.len(), 10);
    while list.pop_front(|_| ()).is_some() {}
    assert!(list.memory_bytes() < 1024);
}

#[test]
fn what_edits_leave_free_is_bounded_and_counted_once() {
    let (mut list, mut model) = (List::new(), Vec::new());
    let ops = [
        Op::PushBack(vec![0; 252]),
        Op::PushFront(vec![0; 2368]),
        Op::Insert(Side::After, 0, vec![0; 1516]),
        Op::PushFront(Vec::new()),
        Op::Trim(3, 0),
        Op::PushBack(vec![0; 2678]),
        Op::Set(0, vec![0; 2315]),
        Op::Set(1, vec![0; 2315]),
    ];
    for op in ops {
        apply(&mut list, &mut model, op);
        check(&list, &model);
        assert!(list.memory_bytes() < 3 * 8192, "{}", list.memory_bytes());
    }
}
