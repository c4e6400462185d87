//! One flipped bit, or a cut: refused below the highest mark, cut above it.

use journal::record::Invalid;
use journal::{Refusal, SegmentId};
use kernel::Rng;
use proptest::prelude::*;

use crate::host::{Host, Owned, Segments, batch, pieces, recover};

/// A log of a few segments, some of it synced, the tail not.
fn log(seed: u64) -> Segments {
    let mut rng = Rng::new(seed);
    let (mut host, mut next) = (Host::new(), [0; 4]);
    let synced_until = rng.below(40);
    for step in 0..40 {
        host.append(&batch(&mut rng, &mut next));
        if step < synced_until && rng.chance(0.4) {
            host.sync();
        }
        if rng.chance(0.2) {
            host.mark();
        }
    }
    host.cache
}

fn read(disk: &Segments) -> Vec<Owned> {
    recover(disk).expect("nothing was damaged").1
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_flipped_bit_is_refused_below_a_mark_and_cut_above(
        seed in 0u64..64, piece: prop::sample::Index, at: prop::sample::Index, bit in 0u8..8,
    ) {
        let mut disk = log(seed);
        let (all, pieces) = (read(&disk), pieces(&disk));
        let hit = piece.index(pieces.len());
        let place = pieces[hit];
        let stated = pieces.iter().enumerate().filter(|(i, _)| *i != hit).map(|(_, p)| p.states).max();
        let at = place.offset + at.index(place.bytes);
        disk.get_mut(&place.segment).expect("it was read")[at] ^= 1 << bit;
        let below = stated > Some(place.lsn) || hit == 0;
        match recover(&disk) {
            Ok((found, records)) => {
                prop_assert!(!below, "damage at {place:?} was cut, yet {stated:?} was synced");
                let before = pieces[..hit].iter().filter(|piece| piece.is_record).count();
                prop_assert_eq!(&records[..], &all[..before]);
                let torn = found.torn.expect("the place is told");
                prop_assert_eq!((torn.segment, torn.offset), (place.segment, place.offset as u64));
            }
            Err(Refusal::Corruption { segment, offset, .. }) => {
                prop_assert!(below, "a tail at {place:?} was refused, yet only {stated:?} was synced");
                prop_assert_eq!((segment, offset), (place.segment, place.offset as u64));
            }
            Err(refusal) => prop_assert!(false, "{refusal}"),
        }
    }

    #[test]
    fn any_bytes_behind_a_header_are_judged_without_a_panic(
        seed in 0u64..64, noise: Vec<u8>, at: prop::sample::Index,
    ) {
        let mut disk = log(seed);
        let all = read(&disk);
        let last = *disk.keys().next_back().expect("a log has a segment");
        let file = disk.get_mut(&last).expect("it was listed");
        file.truncate(at.index(file.len()));
        file.extend(noise);
        // Either answer may be right; what is read before the noise is a prefix.
        if let Ok((_, records)) = recover(&disk) {
            prop_assert!(records.len() <= all.len() && records[..] == all[..records.len()]);
        }
    }

    #[test]
    fn a_cut_at_any_byte_leaves_a_prefix(seed in 0u64..64, at: prop::sample::Index, noise: bool) {
        let mut disk = log(seed);
        let (all, pieces) = (read(&disk), pieces(&disk));
        let end = pieces.last().map_or(0, |last| last.lsn + last.bytes as u64);
        let cut = at.index(end as usize) as u64;
        let mut rng = Rng::new(cut);
        let start = |id: SegmentId| pieces.iter().find(|piece| piece.segment == id).map(|piece| piece.lsn);
        for (id, bytes) in &mut disk {
            let from = cut.saturating_sub(start(*id).unwrap_or(0)) as usize;
            let rest = bytes.get_mut(from..).unwrap_or_default();
            rest.fill_with(|| if noise { rng.next_u64() as u8 } else { 0 });
        }
        match recover(&disk) {
            Ok((_, records)) => {
                let whole = |piece: &&crate::host::Piece| piece.is_record && piece.lsn + piece.bytes as u64 <= cut;
                let before = pieces.iter().filter(whole).count();
                // Zeros that replace zeros cut nothing, so a frame's padding may survive the cut.
                prop_assert!(records.len() == before || records.len() == before + 1);
                prop_assert_eq!(&records[..], &all[..records.len()]);
            }
            Err(Refusal::Corruption { offset: 0, segment, .. }) => {
                prop_assert_eq!(segment, SegmentId::FIRST, "only the first header is always durable");
                prop_assert!(cut < 64);
            }
            Err(refusal) => prop_assert!(false, "{refusal}"),
        }
    }
}

#[test]
fn lost_bytes_in_the_middle_are_refused_too() {
    let mut host = Host::new();
    let body = vec![1; 500];
    for index in 1..=4 {
        host.append(&[Owned::Entry { group: 1, index, body: body.clone() }]);
        host.sync();
    }
    let place = pieces(&host.cache).into_iter().filter(|piece| piece.is_record).nth(1).expect("four records");
    let file = host.cache.get_mut(&place.segment).expect("it was written");
    file[place.offset..place.offset + place.bytes].fill(0);
    match recover(&host.cache) {
        Err(Refusal::Corruption { offset, reason, .. }) => {
            assert_eq!((offset, reason), (place.offset as u64, Invalid::Blank));
        }
        other => panic!("{other:?}"),
    }
}
