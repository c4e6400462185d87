//! Crashes, power cuts and recycled segments, seed by seed: nothing synced is lost, nothing comes back.

use std::collections::VecDeque;

use journal::record::is_blank;
use kernel::Rng;

use crate::host::{Host, Owned, batch, even_batch, originals, recover};

/// One life after another of the same log. Returns how often something was cut, to show that it happens.
fn lives(seed: u64) -> usize {
    let mut rng = Rng::new(seed);
    let (mut host, mut next) = (Host::new(), [0; 4]);
    let (mut all, mut cuts): (Vec<Owned>, usize) = (Vec::new(), 0);
    for life in 0..6 {
        let mut synced = all.len();
        for _ in 0..rng.below(40) {
            let draw = if seed < 750 { batch } else { even_batch };
            let batch = draw(&mut rng, &mut next);
            host.append(&batch);
            all.extend(batch);
            if rng.chance(0.2) {
                host.sync();
                synced = all.len();
            }
            if rng.chance(0.2) {
                host.mark();
            }
        }
        let killed = rng.chance(0.3);
        let disk = if killed { host.cache.clone() } else { host.power_cut(&mut rng) };
        let (reopened, records) = Host::reopen(disk, std::mem::take(&mut host.retired))
            .unwrap_or_else(|refusal| panic!("seed {seed}, life {life}: {refusal}"));
        let records = originals(records);
        assert!(records.len() >= synced, "seed {seed}, life {life}: synced records were lost");
        assert_eq!(records[..], all[..records.len()], "seed {seed}, life {life}: not a prefix");
        assert!(!killed || records.len() == all.len(), "seed {seed}, life {life}: a kill loses nothing");
        cuts += usize::from(records.len() < all.len());
        all = records;
        host = reopened;
    }
    cuts
}

#[test]
fn nothing_synced_is_lost_and_nothing_cut_comes_back_whatever_the_crash() {
    let cuts: usize = (0..1500).map(lives).sum();
    assert!(cuts > 1000, "the crashes cut too little to show anything: {cuts}");
}

#[test]
fn recycled_content_never_reads_back() {
    for seed in 0..50 {
        let mut rng = Rng::new(seed);
        let (mut host, mut next, mut all) = (Host::new(), [0; 4], Vec::new());
        for _ in 0..300 {
            let batch = batch(&mut rng, &mut next);
            host.append(&batch);
            all.extend(batch);
            host.sync();
            if rng.chance(0.2) {
                (0..4).for_each(|group| host.checkpoint(group, next[group as usize]));
            }
        }
        let (found, records) = recover(&host.cache).expect("nothing was damaged");
        let entries = |records: &[Owned]| -> Vec<Owned> {
            records.iter().filter(|record| matches!(record, Owned::Entry { .. })).cloned().collect()
        };
        let (kept, all) = (entries(&records), entries(&all));
        assert_eq!(kept[..], all[all.len() - kept.len()..], "seed {seed}");
        assert_eq!(found.state.end, host.commit.end(), "seed {seed}");
        assert_eq!(found.torn, None, "seed {seed}");
        let active = found.state.active.expect("the log is open");
        assert!(host.commit.active() == Some(active), "seed {seed}");
        if seed == 0 {
            let rest = &host.cache[&active.id][active.offset as usize..];
            assert!(!is_blank(rest), "the segment must be a recycled one for this to show anything");
        }
    }
}

#[test]
fn a_torn_batch_over_an_old_one_of_the_same_shape_ends_at_the_tear() {
    let mut torn = 0;
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let (mut host, mut all) = (Host::new(), Vec::new());
        // Equal batches, so that every old frame stands exactly where a new one belongs.
        for batch in 0..30 {
            let entry = |i| Owned::Entry { group: 1, index: batch * 20 + i, body: vec![batch as u8; 80] };
            let records: Vec<Owned> = (1..=20).map(entry).collect();
            if batch == 29 {
                host.sync();
            }
            host.append(&records);
            all.extend(records);
            if batch < 29 {
                host.sync();
                host.checkpoint(1, batch * 20 + 20);
            }
        }
        let (found, records) = recover(&host.power_cut(&mut rng)).expect("a torn tail is no damage");
        let first = all.iter().position(|record| Some(record) == records.first()).expect("one is kept");
        assert_eq!(records[..], all[first..first + records.len()], "seed {seed}");
        torn += usize::from(found.torn.is_some());
    }
    assert!(torn > 50, "too few tails were torn to show anything: {torn}");
}

#[test]
fn what_was_cut_does_not_line_up_behind_what_replaces_it() {
    let entry = |index: u64, byte: u8| Owned::Entry { group: 1, index, body: vec![byte; 100] };
    let mut host = Host::new();
    host.append(&[entry(1, b'a')]);
    host.sync();
    let lost = host.commit.active().expect("the log is open");
    host.append(&[entry(2, b'b')]);
    let behind = host.commit.active().expect("the log is open");
    host.append(&[entry(3, b'c')]);
    // The power cut loses the second batch but keeps the third.
    let mut disk = host.cache.clone();
    disk.get_mut(&lost.id).expect("it is written")[lost.offset as usize..behind.offset as usize].fill(0);
    let (mut host, records) = Host::reopen(disk, VecDeque::new()).expect("it was never synced");
    assert_eq!(records, [entry(1, b'a')]);
    // The next life writes a batch of the same shape and is cut right behind it.
    host.append(&[entry(2, b'B')]);
    assert_eq!(host.commit.active(), Some(behind), "the batch must be as long as the lost one");
    let mut disk = host.cache.clone();
    let tear = behind.offset as usize..;
    disk.get_mut(&lost.id).expect("it is written")[tear.clone()]
        .copy_from_slice(&host.durable[&lost.id][tear]);
    assert_eq!(recover(&disk).expect("a tail").1, [entry(1, b'a'), entry(2, b'B')]);
}

#[test]
fn a_vote_whose_copy_was_torn_outlives_its_segment() {
    let vote = |group| Owned::HardState { group, term: 7, vote: 1 };
    let entry = |index| Owned::Entry { group: 3, index, body: vec![1; 3000] };
    // Where the new segment is torn: in its header, before, within and behind its four copies.
    for kept in [10, 64, 80, 96, 110, 128, 160, 200] {
        let mut host = Host::new();
        host.append(&[vote(1), vote(2), vote(3)]);
        let mut index = 0;
        while host.cache.len() < 2 {
            host.sync();
            index += 1;
            host.append(&[entry(index)]);
        }
        let mut disk = host.cache.clone();
        disk.values_mut().last().expect("it was opened")[kept..].fill(0);
        let (mut host, _) = Host::reopen(disk, VecDeque::new()).expect("it was never synced");
        host.append(&[entry(index)]);
        host.sync();
        host.checkpoint(3, index);
        let (found, records) = recover(&host.cache).expect("sound");
        assert!(found.floors.contains_key(&kernel::GroupId(3)), "nothing was truncated");
        for group in 1..=3 {
            assert!(records.contains(&vote(group)), "torn at {kept}: the vote of group {group} is lost");
        }
    }
}
