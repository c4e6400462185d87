//! The store's bounds, for all and for each sender.

use kernel::Micros;
use p2p::Key;
use p2p::kad::{
    PROVIDERS_MAX, RECORDS_MAX, Record, Refusal, SENDER_BYTES_MAX, SENDER_PROVIDED_MAX, SENDER_RECORDS_MAX,
    Store, TTL_MS_DEFAULT, TTL_MS_MAX, VALUE_BYTES_MAX,
};
use proptest::prelude::*;

use crate::kad_world::{VALID, record};

const NOW: Micros = Micros(1_000_000);
const HOUR: u64 = 3_600_000;

fn numbered(n: u64) -> Record {
    record(1, &n.to_be_bytes(), 1, b"v")
}

#[test]
fn one_sender_has_its_share_and_no_more() {
    let mut store = Store::default();
    let kept = (0..500).filter(|&n| store.put(NOW, 1u32, numbered(n), &VALID).is_ok()).count();
    assert_eq!(kept, SENDER_RECORDS_MAX);
    assert_eq!(store.put(NOW, 1, numbered(500), &VALID), Err(Refusal::Share));
    assert_eq!(store.put(NOW, 1, numbered(0), &VALID), Ok(())); // what it has it may send again
    assert_eq!(store.put(NOW, 2, numbered(500), &VALID), Ok(()));

    let mut store = Store::default();
    let large = |n: u64| record(1, &n.to_be_bytes(), 1, &[0; VALUE_BYTES_MAX - 200]);
    let kept = (0..100).filter(|&n| store.put(NOW, 1u32, large(n), &VALID).is_ok()).count();
    assert!(kept < SENDER_RECORDS_MAX);
    assert!(store.held().1 <= SENDER_BYTES_MAX);
    assert!(store.held().1 + VALUE_BYTES_MAX > SENDER_BYTES_MAX);
}

#[test]
fn all_senders_together_have_a_bound() {
    let mut store = Store::default();
    let kept =
        (0..10_000u64).filter(|&n| store.put(NOW, n as u32 / 100, numbered(n), &VALID).is_ok()).count();
    assert_eq!(kept, RECORDS_MAX);
    assert_eq!(store.put(NOW, 9999, numbered(10_000), &VALID), Err(Refusal::Full));
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut store = Store::default();
    let new = record(1, b"l", 5, b"new");
    store.put(NOW, 1u32, new.clone(), &VALID).unwrap();
    #[rustfmt::skip] // columns
    let table = [
        (record(1, b"l", 4, b"old"),                                   Refusal::Older),
        (Record::new(&new.name, b"nonsense"),                          Refusal::Older), // sorts before any version
        (Record::new(b"no such space", b"v"),                          Refusal::Name),
        (Record::new(&[b'n'; 1025], b"v"),                             Refusal::Name),
        (Record::new(&new.name, &[0; VALUE_BYTES_MAX + 1]),
            Refusal::TooLarge { bytes: VALUE_BYTES_MAX + 1 }),
    ];
    for (record, why) in table {
        assert_eq!(store.put(NOW, 2, record, &VALID), Err(why));
        assert_eq!(store.get(NOW, &new.key()).map(|held| held.value), Some(new.value.clone()));
        assert_eq!(store.held().0, 1);
    }
}

#[test]
fn a_life_is_bounded_whatever_the_sender_says() {
    #[rustfmt::skip] // columns
    let table = [
        // seconds told   lives, in milliseconds
        (0,               TTL_MS_DEFAULT),
        (60,              60_000),
        (u32::MAX,        TTL_MS_MAX),
    ];
    for (ttl, lives) in table {
        let mut store = Store::default();
        let record = Record { ttl, ..numbered(1) };
        store.put(NOW, 1u32, record.clone(), &VALID).unwrap();
        assert!(store.get(NOW.plus_millis(lives) - 1, &record.key()).is_some(), "{ttl}");
        let end = NOW.plus_millis(lives);
        assert!(store.get(end, &record.key()).is_none(), "{ttl}");
        store.sweep(end, 0, &mut Vec::new());
        assert_eq!(store.held(), (0, 0));
        assert_eq!(store.due(), None);
    }
}

#[test]
fn a_value_that_nobody_sent_for_an_hour_is_sent_on_once() {
    let mut store = Store::default();
    store.put(NOW, 1u32, numbered(1), &VALID).unwrap();
    let swept = |store: &mut Store<u32>, at: u64| {
        let mut out = Vec::new();
        store.sweep(NOW.plus_millis(at), 4, &mut out);
        out.len()
    };
    assert_eq!(swept(&mut store, HOUR - 1), 0);
    assert_eq!(swept(&mut store, HOUR), 1);
    assert_eq!(swept(&mut store, HOUR + 1), 0);
    // Somebody else sent it: not our turn.
    store.put(NOW.plus_millis(HOUR + HOUR / 2), 2, numbered(1), &VALID).unwrap();
    assert_eq!(swept(&mut store, 2 * HOUR + 1), 0);
    assert_eq!(swept(&mut store, 2 * HOUR + HOUR / 2), 1);
}

#[test]
fn providers_have_bounds_and_a_day() {
    let mut store = Store::default();
    let key = Key::of(b"k");
    for provider in 0..PROVIDERS_MAX as u32 {
        store.provide(NOW, key, provider).unwrap();
        store.provide(NOW, key, provider).unwrap(); // again is no more
    }
    assert_eq!(store.provide(NOW, key, 99), Err(Refusal::Full));
    assert_eq!(store.providers(NOW, &key).count(), PROVIDERS_MAX);
    assert_eq!(store.providers(NOW.plus_millis(TTL_MS_DEFAULT), &key).count(), 0);
    let kept = (0..1000u32).filter(|n| store.provide(NOW, Key::of(&n.to_be_bytes()), 500).is_ok()).count();
    assert_eq!(kept, SENDER_PROVIDED_MAX);
    assert_eq!(store.provide(NOW, Key::of(b"more"), 500), Err(Refusal::Share));
    store.sweep(NOW.plus_millis(TTL_MS_DEFAULT), 4, &mut Vec::new());
    assert_eq!(store.due(), None);
    assert_eq!(store.provide(NOW, Key::of(b"more"), 500), Ok(()));
}

proptest! {
    #[test]
    fn the_books_balance(
        steps in prop::collection::vec((0u8..12, 0u32..4, 0u64..4, 0usize..40, 0u64..30), 0..200),
    ) {
        let mut store = Store::default();
        let mut now = NOW;
        for (label, sender, sequence, size, hours) in steps {
            now = now.plus_millis(hours * HOUR / 4);
            if hours == 29 {
                store.sweep(now, 4, &mut Vec::new());
            }
            let _refused = store.put(now, sender, record(1, &[label], sequence, &vec![0; size]), &VALID);
            let _full = store.provide(now, Key::of(&[label]), sender);
        }
        // Whatever happened, at the end of all lives nothing is left, and no account was overdrawn on the way.
        store.sweep(now.plus_millis(TTL_MS_MAX), 0, &mut Vec::new());
        prop_assert_eq!(store.held(), (0, 0));
        prop_assert_eq!(store.due(), None);
    }
}
