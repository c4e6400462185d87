//! Order, positions, syncs and refusals of a log without faults.

use journal::commit::{BATCH_BYTES_MAX, EVERYSEC_MICROS, Need, SEGMENT_BYTES_MIN, State};
use journal::record::BODY_BYTES_MAX;
use journal::{Commit, Durability, Refusal, Refused, SegmentId};
use kernel::{Lsn, Micros, Rng};

use crate::host::{Host, Owned, SALT, batch, originals, recover};

fn entry(index: u64, bytes: usize) -> Owned {
    Owned::Entry { group: 1, index, body: vec![7; bytes] }
}

#[test]
fn what_was_appended_reads_back_in_order() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let (mut host, mut next, mut all) = (Host::new(), [0; 4], Vec::new());
        for _ in 0..60 {
            let batch = batch(&mut rng, &mut next);
            host.append(&batch);
            all.extend(batch);
            if rng.chance(0.3) {
                host.sync();
                host.mark();
            }
        }
        let (found, records) = recover(&host.cache).expect("nothing was damaged");
        assert_eq!(originals(records), all, "seed {seed}");
        assert_eq!(found.state.end, host.commit.end(), "seed {seed}");
        assert_eq!(found.torn, None, "seed {seed}");
    }
}

#[test]
fn a_batch_larger_than_a_segment_gets_a_segment_of_its_own() {
    let mut host = Host::new();
    let records = [entry(1, 10), entry(2, 10 * SEGMENT_BYTES_MIN as usize), entry(3, 10)];
    records.iter().for_each(|record| {
        host.append(std::slice::from_ref(record));
    });
    assert_eq!(host.cache.len(), 2);
    assert!(host.cache[&SegmentId(2)].len() as u64 > 10 * SEGMENT_BYTES_MIN);
    assert_eq!(recover(&host.cache).expect("nothing was damaged").1, records);
}

#[test]
fn a_refusal_changes_nothing() {
    let mut commit = Commit::new(SEGMENT_BYTES_MIN, State::fresh(SALT));
    let mut buffer = Vec::new();
    let need = Need { id: SegmentId::FIRST, bytes: SEGMENT_BYTES_MIN };
    let small = [entry(1, 10)];
    let small = [small[0].record()];
    let mut append = |commit: &mut Commit, records: &[_]| {
        commit.append(Micros(0), records, Durability::Always, &mut buffer).map(|written| written.end)
    };
    assert_eq!(append(&mut commit, &small), Err(Refused::Unprepared(need)));
    commit.prepared(need);
    commit.set_full(true);
    assert_eq!(append(&mut commit, &small), Err(Refused::Full));
    assert_eq!((commit.end(), commit.sync_due()), (Lsn(0), None));
    commit.set_full(false);
    let end = append(&mut commit, &small).expect("there is space again");
    let huge = vec![0; BODY_BYTES_MAX + 1];
    let Owned::Entry { group, index, .. } = entry(2, 0) else { unreachable!() };
    let huge = Owned::Entry { group, index, body: huge };
    let refused = Refused::TooLarge { bytes: BODY_BYTES_MAX + 1, limit: BODY_BYTES_MAX };
    assert_eq!(append(&mut commit, &[huge.record()]), Err(refused));
    let most = Owned::Entry { group, index, body: vec![0; BODY_BYTES_MAX] };
    let most = [most.record(); 3];
    assert!(
        matches!(append(&mut commit, &most), Err(Refused::TooLarge { limit: BATCH_BYTES_MAX, .. })),
        "the sum of a batch is bounded too"
    );
    assert_eq!(commit.end(), end);
}

#[test]
fn a_failure_is_final() {
    let mut host = Host::new();
    let durable = host.commit.durable();
    host.append(&[entry(1, 10)]);
    let sync = host.commit.begin_sync().expect("a record waits");
    host.commit.fail();
    host.commit.synced(sync.end); // a write failed while the sync ran well
    assert_eq!(host.commit.durable(), durable);
    assert_eq!((host.commit.begin_sync(), host.commit.sync_due(), host.commit.wants()), (None, None, None));
    let record = entry(2, 10);
    let refused = host.commit.append(Micros(0), &[record.record()], Durability::Always, &mut Vec::new());
    assert_eq!(refused, Err(Refused::Poisoned));
}

#[test]
fn a_sync_is_due_at_once_or_within_the_second_and_one_runs_at_a_time() {
    let late = Micros(5 + EVERYSEC_MICROS);
    let vote = Owned::HardState { group: 1, term: 1, vote: 1 };
    let reset = Owned::Reset { group: 1, index: 1, term: 1 };
    let abandon = Owned::Abandon { group: 1 };
    #[rustfmt::skip] // columns
    let table = [
        // appended at 5 and 9                                                        due
        (vec![(entry(1, 1), Durability::EverySec), (entry(2, 1), Durability::EverySec)], late),
        (vec![(entry(1, 1), Durability::EverySec), (entry(2, 1), Durability::Always)],   Micros(9)),
        (vec![(entry(1, 1), Durability::Always), (entry(2, 1), Durability::EverySec)],   Micros(5)),
        (vec![(entry(1, 1), Durability::EverySec), (vote, Durability::EverySec)],        Micros(9)),
        (vec![(entry(1, 1), Durability::EverySec), (reset, Durability::EverySec)],       Micros(9)),
        (vec![(entry(1, 1), Durability::EverySec), (abandon, Durability::EverySec)],     late),
    ];
    for (appends, due) in table {
        let mut commit = Host::new().commit;
        for (at, (record, durability)) in [5, 9].into_iter().zip(&appends) {
            let mut buffer = Vec::new();
            commit.append(Micros(at), &[record.record()], *durability, &mut buffer).expect("there is room");
        }
        assert_eq!(commit.sync_due(), Some(due), "{appends:?}");
        let sync = commit.begin_sync().expect("records wait");
        let more = entry(3, 1);
        commit
            .append(Micros(10), &[more.record()], Durability::Always, &mut Vec::new())
            .expect("appends go on while a sync runs");
        assert_eq!((commit.sync_due(), commit.begin_sync()), (None, None));
        commit.synced(sync.end);
        assert_eq!((commit.durable(), commit.sync_due()), (sync.end, Some(Micros(10))));
    }
}

#[test]
fn a_quiet_log_says_that_it_is_complete() {
    let mut host = Host::new();
    host.append(&[entry(1, 10)]);
    assert!(!recover(&host.cache).expect("sound").0.is_complete());
    host.sync();
    host.mark();
    assert!(recover(&host.cache).expect("sound").0.is_complete());
    let end = host.commit.end();
    host.sync();
    host.mark();
    assert_eq!(host.commit.end(), end, "a mark needs no mark");
}

#[test]
fn a_missing_segment_is_named() {
    for missing in 1..=4 {
        let mut host = Host::new();
        (1..=24).for_each(|index| {
            host.append(&[entry(index, 3000)]);
        });
        assert_eq!(host.cache.len(), 5);
        host.cache.remove(&SegmentId(missing + 1));
        let refused = recover(&host.cache).expect_err("a segment is missing");
        assert_eq!(refused, Refusal::Missing { segment: SegmentId(missing + 1) });
    }
}

#[test]
fn truncated_segments_leave_votes_and_floors_behind() {
    let mut host = Host::new();
    let vote = Owned::HardState { group: 1, term: 4, vote: 2 };
    host.append(std::slice::from_ref(&vote));
    (1..=20).for_each(|index| {
        host.append(&[entry(index, 3000)]);
    });
    host.sync();
    host.checkpoint(1, 17);
    let (found, records) = recover(&host.cache).expect("sound");
    assert!(records.contains(&vote), "the vote outlives its segment");
    let first = records.iter().find_map(|record| match record {
        Owned::Entry { index, .. } => Some(*index),
        _ => None,
    });
    let floor = found.floors.values().next().map(|index| index.0);
    assert_eq!(first, floor.map(|floor| floor + 1), "entries go on where the floor ends");
    assert!(first > Some(1), "something was truncated");
}
