//! Buckets: who stays, who goes, who is told.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::Key;

/// Contacts that are their own points; the low byte's upper half is their IP neighbourhood if that is asked for.
struct Points {
    neighbourhoods: bool,
}

impl Keys<u64> for Points {
    fn key(&self, contact: u64) -> Key {
        Key::from_words([contact, 0, 0, 0])
    }

    fn neighbourhood(&self, contact: u64) -> Option<u64> {
        self.neighbourhoods.then_some(contact >> 4 & 0xF)
    }
}

const PLAIN: Points = Points { neighbourhoods: false };
const NOW: Micros = Micros(1_000_000);
const FAR: u64 = 1 << 63;

fn closest(table: &Table<u64>, target: u64, n: usize) -> Vec<u64> {
    let mut near = Near::new();
    table.closest(&PLAIN, target, n, None, &mut near);
    near.iter().map(|(_, contact)| *contact).collect()
}

impl<C: Contact> Table<C> {
    /// Forgets `contact`, whatever it was.
    fn remove(&mut self, keys: &impl Keys<C>, contact: C) {
        let Some((index, at)) = self.find(keys, contact) else {
            return;
        };
        let bucket = &mut self.buckets[index];
        if at < usize::from(bucket.failed) {
            bucket.failed -= 1;
        } else if at < bucket.known() {
            bucket.live -= 1;
        }
        self.take_out(index, at);
        self.promote(keys, index);
    }
}

#[test]
fn a_full_bucket_keeps_who_lives_longest() {
    let mut table = Table::new(0, 3);
    let later = NOW.plus_millis(CHECK_MS_MIN);
    for contact in [1, 2, 3] {
        assert_eq!(table.seen(NOW, &PLAIN, FAR | contact), Seen::Kept);
    }
    assert_eq!(table.seen(NOW, &PLAIN, FAR | 1), Seen::Kept); // now 2 is the oldest
    assert_eq!(table.seen(NOW, &PLAIN, FAR | 4), Seen::Waits { check: None }); // checked lately
    assert_eq!(table.seen(later, &PLAIN, FAR | 5), Seen::Waits { check: Some(FAR | 2) });
    assert_eq!(table.seen(later, &PLAIN, FAR | 5), Seen::Waits { check: None }); // one check at a time
    assert_eq!(closest(&table, FAR, 9), [FAR | 1, FAR | 2, FAR | 3]);
    // The oldest answers and stays; then it fails, and the youngest that waits takes its place.
    assert_eq!(table.seen(later, &PLAIN, FAR | 2), Seen::Kept);
    table.failed(&PLAIN, FAR | 2);
    assert_eq!(closest(&table, FAR, 9), [FAR | 1, FAR | 3, FAR | 5]);
    // Nobody waits but 4; after that a failed one is kept, told to nobody, and comes back when it shows life.
    table.failed(&PLAIN, FAR | 1);
    table.failed(&PLAIN, FAR | 3);
    assert_eq!(closest(&table, FAR, 9), [FAR | 4, FAR | 5]);
    assert_eq!(table.seen(later, &PLAIN, FAR | 3), Seen::Kept);
    assert_eq!(closest(&table, FAR, 9), [FAR | 3, FAR | 4, FAR | 5]);
    // A new one takes the place of one that failed.
    table.failed(&PLAIN, FAR | 4);
    assert_eq!(table.seen(later, &PLAIN, FAR | 6), Seen::Kept);
    assert_eq!(closest(&table, FAR, 9), [FAR | 3, FAR | 5, FAR | 6]);
}

#[test]
fn a_node_does_not_know_itself() {
    let mut table = Table::new(7, 3);
    assert_eq!(table.seen(NOW, &PLAIN, 7), Seen::Refused);
    assert!(table.is_empty());
}

#[test]
fn one_ip_neighbourhood_has_its_share_of_a_bucket_and_of_the_table() {
    let diverse = Points { neighbourhoods: true };
    let mut table = Table::new(0, 20);
    let of_bucket = |bucket: u32, n: u64| FAR >> bucket | n;
    for bucket in 0..8 {
        let kept = (0..16).filter(|&n| table.seen(NOW, &diverse, of_bucket(bucket, n)) == Seen::Kept).count();
        assert_eq!(kept, if bucket < 5 { BUCKET_NEIGHBOURS_MAX } else { 0 }, "bucket {bucket}");
    }
    assert_eq!(table.len(), TABLE_NEIGHBOURS_MAX);
    // Another neighbourhood has its own share, and a place that is left can be taken again.
    assert_eq!(table.seen(NOW, &diverse, of_bucket(7, 0x10)), Seen::Kept);
    table.remove(&diverse, of_bucket(0, 0));
    assert_eq!(table.seen(NOW, &diverse, of_bucket(7, 0)), Seen::Kept);
    // The same contacts where neighbourhoods are not known.
    let mut open = Table::new(0, 20);
    assert!((0..16).all(|n| open.seen(NOW, &PLAIN, of_bucket(0, n)) == Seen::Kept));
}

#[test]
fn a_point_of_a_bucket_is_in_its_range() {
    let me = 0xDEAD_BEEF_0123_4567;
    let table: Table<u64> = Table::new(me, 20);
    for bucket in 0..BUCKETS {
        for noise in [0, u64::MAX, 0x5555_5555_5555_5555] {
            assert_eq!(table.bucket(table.point_in(bucket, noise)), Some(bucket));
        }
    }
}

proptest! {
    /// Few bits, so that buckets are full, empty and all between.
    #[test]
    fn the_closest_are_those_that_a_search_through_all_finds(
        me in 0u64..256, steps in prop::collection::vec((0u64..256, 0u8..4), 0..300), target in 0u64..256, n in 1usize..20,
    ) {
        let place = |small: u64| small << 56;
        let mut table = Table::new(place(me), 4);
        let mut known: Vec<u64> = vec![];
        for (contact, what) in steps {
            let contact = place(contact);
            match what {
                0 => table.failed(&PLAIN, contact),
                1 => table.remove(&PLAIN, contact),
                _ => drop(table.seen(NOW, &PLAIN, contact)),
            }
            known.push(contact);
        }
        let mut live: Vec<u64> = table.iter().collect();
        prop_assert_eq!(live.len(), table.len());
        prop_assert!(live.iter().all(|contact| known.contains(contact)));
        live.sort_unstable();
        let count = live.len();
        live.dedup();
        prop_assert_eq!(live.len(), count, "each once");
        let mut end = 0;
        for (index, bucket) in table.buckets.iter().enumerate().rev() {
            prop_assert!(bucket.known() <= 4);
            prop_assert!(usize::from(bucket.len) <= bucket.known() + SPARE_CONTACTS_MAX);
            prop_assert_eq!(usize::from(bucket.start), end);
            end = bucket.all().end;
            let slots = &table.slots[bucket.all()];
            prop_assert!(slots.iter().all(|own| table.bucket(own.contact) == Some(index)));
            prop_assert!(slots.iter().all(|own| own.bits == kept_bits(own.contact, index)));
        }
        prop_assert_eq!(end, table.slots.len());
        live.sort_unstable_by_key(|contact| contact ^ place(target));
        live.truncate(n);
        prop_assert_eq!(closest(&table, place(target), n), live);
    }
}

proptest! {
    /// Points that agree in all bits that a table keeps of them, and points that do not: the order is of the whole points.
    #[test]
    fn the_order_is_that_of_whole_points_where_the_table_has_only_their_beginnings(
        me: u64,
        places in prop::collection::vec((0u32..40, any::<u64>(), 0u64..4), 1..80),
        (place, bits) in (0usize..80, 0u32..64),
        n in 1usize..24,
    ) {
        let mut table = Table::new(me, 32);
        let mut points: Vec<u64> = places
            .iter()
            .map(|&(shared, noise, low)| {
                let far = me ^ (FAR >> shared);
                // Some differ from each other in their last bits only.
                if noise & 1 == 0 { far ^ low } else { far ^ ((FAR >> shared) - 1) & noise }
            })
            .collect();
        for point in &points {
            table.seen(NOW, &PLAIN, *point);
        }
        let target = points[place % points.len()] ^ (1 << bits);
        points = table.iter().collect();
        points.sort_unstable_by_key(|point| point ^ target);
        points.truncate(n);
        prop_assert_eq!(closest(&table, target, n), points);
    }
}
