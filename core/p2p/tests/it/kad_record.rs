//! Signed records: what is valid, which version counts, and that a changed bit is seen.

use std::cmp::Ordering;

use kernel::Micros;
use p2p::kad::{Envelope, Record, Refusal, Validator};
use proptest::prelude::*;

use crate::kad_world::{VALID, record, sign};

fn ended(expires: Micros) -> Record {
    let publisher = [1; 32];
    let name = Envelope::name(&publisher, b"l");
    let signature = sign(&publisher, &Envelope::signed_bytes(&name, 1, expires, b"p"));
    let mut value = Vec::new();
    Envelope { publisher, sequence: 1, expires, payload: b"p", signature }.encode(&mut value);
    Record::new(&name, &value)
}

#[test]
fn what_is_not_the_publishers_own_and_current_is_refused() {
    let now = Micros(1000);
    let good = record(1, b"label", 5, b"payload");
    let other = record(2, b"label", 5, b"payload");
    let cut = Record::new(&good.name, &good.value[..good.value.len() - 1]);
    let longer = Record::new(&good.name, &[&good.value[..], b"x"].concat());
    #[rustfmt::skip] // columns
    let table = [
        (good.clone(),                                 Ok(())),
        (Record::new(&good.name, &other.value),        Err(Refusal::Forged)), // another's value
        (Record::new(&other.name, &good.value),        Err(Refusal::Forged)), // under another's name
        (Record::new(b"/archipel/short", &good.value), Err(Refusal::Name)),
        (Record::new(b"/ipns/x", &good.value),         Err(Refusal::Name)),
        (cut,                                          Err(Refusal::Forged)),
        (longer,                                       Err(Refusal::Forged)),
        (Record::new(&good.name, b""),                 Err(Refusal::Forged)),
        (ended(Micros(1001)),                          Ok(())),
        (ended(Micros(1000)),                          Err(Refusal::Expired)),
    ];
    for (record, expected) in table {
        assert_eq!(VALID.check(now, &record.name, &record.value), expected, "{record:?}");
    }
}

#[test]
fn the_higher_sequence_counts_and_ties_are_settled_everywhere_alike() {
    let of = |sequence, payload: &[u8]| record(1, b"l", sequence, payload).value;
    let (one, two, same) = (of(1, b"a"), of(2, b"a"), of(2, b"b"));
    let name = Envelope::name(&[1; 32], b"l");
    assert_eq!(VALID.order(&name, &one, &two), Ordering::Less);
    assert_eq!(VALID.order(&name, &two, &two), Ordering::Equal);
    assert_ne!(VALID.order(&name, &two, &same), Ordering::Equal);
    assert_eq!(VALID.order(&name, &two, &same), VALID.order(&name, &same, &two).reverse());
}

proptest! {
    #[test]
    fn an_envelope_reads_back_and_any_changed_bit_is_seen(
        publisher: u8, sequence: u64, payload: Vec<u8>, label: Vec<u8>, at: usize, bit in 0u8..8,
    ) {
        let good = record(publisher, &label, sequence, &payload);
        let read = Envelope::decode(&good.value).unwrap();
        prop_assert_eq!((read.sequence, read.payload), (sequence, &payload[..]));
        prop_assert_eq!(VALID.check(Micros(0), &good.name, &good.value), Ok(()));
        let mut value = good.value.to_vec();
        let at = at % value.len();
        value[at] ^= 1 << bit;
        prop_assert!(VALID.check(Micros(0), &good.name, &value).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_no_envelope_that_counts(value: Vec<u8>) {
        let name = Envelope::name(&[1; 32], b"l");
        prop_assert!(VALID.check(Micros(0), &name, &value).is_err());
    }
}
