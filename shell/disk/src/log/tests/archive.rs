//! The log for backups: what is kept for them, for how long, and what is read of it.

use kernel::codec::Reader;

use super::*;

const GROUP: GroupId = GroupId(1);
const KEEPER: Keeper = Keeper(5);
const BODY: [u8; 1000] = [7; 1000];

fn behind(index: u64) -> Positions {
    Positions::from([(GROUP, Index(index))])
}

/// All that is read in parts of so many bytes.
fn read(log: &Log, wanted: &Positions, bytes_max: usize) -> Vec<u8> {
    let (mut cursor, mut all) = (None, Vec::new());
    loop {
        let part = log.passage(wanted, cursor, bytes_max).expect("the log is sound");
        assert!(part.bytes.len() <= bytes_max);
        all.extend(part.bytes);
        match part.next {
            Some(next) => cursor = Some(next),
            None => return all,
        }
    }
}

/// Group, term, index and body of each entry; nothing else comes here.
fn entries(bytes: &[u8]) -> Vec<(u32, u64, u64, Vec<u8>)> {
    let (mut reader, mut found) = (Reader::new(bytes), Vec::new());
    while !reader.is_empty() {
        assert_eq!(reader.u8(), Ok(journal::passage::KIND_ENTRY));
        let (group, term, index) =
            (reader.u32().unwrap(), reader.varint().unwrap(), reader.varint().unwrap());
        assert_eq!((reader.u16(), reader.varint()), (Ok(1), Ok(index)), "semantics and time");
        found.push((group, term, index, reader.bytes().unwrap().to_vec()));
    }
    found
}

fn indexes(bytes: &[u8]) -> Vec<u64> {
    entries(bytes).into_iter().map(|it| it.2).collect()
}

/// Appends entries, which are synced and checkpointed, and says what the log took at most for backups only.
fn fill(opened: &Opened, range: std::ops::RangeInclusive<u64>) -> u64 {
    let (mut most, last) = (0, *range.end());
    for index in range {
        let end = append(&opened.log, index, &BODY).expect("writes go on");
        if index % 20 == 0 || index == last {
            wait_synced(opened, end);
            opened.log.checkpointed(GROUP, Index(index));
            most = most.max(opened.log.bytes().reserved);
        }
    }
    most
}

#[test]
fn what_is_kept_for_a_backup_is_read_after_checkpoints_and_then_goes() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    assert!(opened.log.reserve(KEEPER, Positions::new()).unwrap().is_empty());
    fill(&opened, 1..=300);
    let kept = opened.log.bytes();
    assert!(kept.reserved >= 3 * SEGMENT_BYTES && kept.needed <= 2 * SEGMENT_BYTES, "{kept:?}");
    assert_eq!(opened.log.lagging_group(), None, "no checkpoint would free it");
    for bytes_max in [1, 999, 1 << 20] {
        let found = entries(&read(&opened.log, &behind(0), bytes_max));
        let expected: Vec<_> = (1..=300).map(|index| (1, 1, index, BODY.to_vec())).collect();
        assert!(found == expected, "{bytes_max}");
    }
    assert_eq!(indexes(&read(&opened.log, &behind(250), 4096)), (251..=300).collect::<Vec<_>>());
    assert_eq!(read(&opened.log, &behind(300), 4096), []);
    assert_eq!(read(&opened.log, &Positions::from([(GroupId(2), Index(0))]), 4096), []);
    assert!(opened.log.reserve(KEEPER, behind(290)).unwrap().is_empty());
    assert!(opened.log.bytes().reserved <= SEGMENT_BYTES);
    assert_eq!(indexes(&read(&opened.log, &behind(290), 4096)), (291..=300).collect::<Vec<_>>());
    opened.log.release(KEEPER);
    assert_eq!(opened.log.bytes().reserved, 0);
}

#[test]
fn what_is_kept_for_backups_has_a_bound_and_its_keeper_is_told_what_went() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    opened.log.reserve(KEEPER, Positions::new()).unwrap();
    let most = fill(&opened, 1..=3000);
    assert!(most > OPTIONS.archived_bytes / 2 && most <= OPTIONS.archived_bytes, "{most} bytes");
    assert_eq!(opened.log.reserve(KEEPER, behind(3000)).unwrap(), BTreeSet::from([GROUP]));
    fill(&opened, 3001..=3100);
    assert_eq!(indexes(&read(&opened.log, &behind(3000), 4096)), (3001..=3100).collect::<Vec<_>>());
    assert!(opened.log.reserve(KEEPER, behind(3100)).unwrap().is_empty(), "that is told once");
}

#[test]
fn on_a_full_disk_what_is_kept_for_backups_gives_way_to_writes() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    opened.log.reserve(KEEPER, Positions::new()).unwrap();
    *opened.faults.quota.lock().unwrap() =
        Some((dir.path().to_path_buf(), OPTIONS.reserve_bytes + 9 * SEGMENT_BYTES));
    let most = fill(&opened, 1..=2000);
    assert!(most > 3 * SEGMENT_BYTES, "{most} bytes: it was not kept as long as there was space");
    assert_eq!(opened.log.reserve(KEEPER, behind(2000)).unwrap(), BTreeSet::from([GROUP]));
    // Without checkpoints the same disk is too small: it is the reservation that gave way.
    let refused = (2001..=4000).map(|index| append(&opened.log, index, &BODY)).find(Result::is_err);
    assert!(matches!(refused, Some(Err(LogError::Full))), "{refused:?}");
}

#[test]
fn below_the_reserve_what_is_kept_for_backups_goes_before_writes_are_refused() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    opened.log.reserve(KEEPER, Positions::new()).unwrap();
    fill(&opened, 1..=300);
    // So that the preparer has nothing to do, and does not find out first.
    while opened.log.shared.lock().commit.wants().is_some() {
        std::thread::yield_now();
    }
    assert!(opened.log.bytes().reserved > 0);
    let append = |index, taken| {
        opened.faults.taken.store(taken, Ordering::SeqCst);
        // Space is looked at from time to time, and now.
        opened.log.shared.lock().space_check = Micros(0);
        append(&opened.log, index, b"x")
    };
    append(301, u64::MAX).expect("what is kept for backups goes first");
    assert_eq!(opened.log.bytes().reserved, 0);
    // Until it is gone, and spares too, nothing is refused.
    let settled = |inner: &Inner| inner.retired.is_empty() && inner.spares == 0 && !inner.is_removing;
    while !settled(&opened.log.shared.lock()) {
        opened.log.shared.prepare.notify_one();
        std::thread::yield_now();
    }
    assert_eq!(opened.log.bytes().leaving, 0);
    assert!(matches!(append(302, u64::MAX), Err(LogError::Full)), "then nothing is left to give");
    append(302, 0).expect("there is space again");
    assert_eq!(opened.log.reserve(KEEPER, behind(302)).unwrap(), BTreeSet::from([GROUP]));
}

#[test]
fn while_segments_are_on_their_way_out_writes_are_not_refused() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    opened.faults.taken.store(u64::MAX, Ordering::SeqCst);
    #[rustfmt::skip] // columns
    let table = [
        // is one removed  waits one  spares  did it fail  are writes refused
        (false,            false,     0,      false,       true),
        (true,             false,     0,      false,       false),
        (false,            true,      0,      false,       false),
        (false,            false,     1,      false,       false),
        (true,             true,      1,      true,        true),
    ];
    for (row, (is_removing, waits, spares, failed, refused)) in table.into_iter().enumerate() {
        // As long as it is held, the preparer changes nothing.
        let mut inner = opened.log.shared.lock();
        let now = Micros(1 << 40);
        (inner.is_removing, inner.spares, inner.space_check) = (is_removing, spares, Micros(0));
        inner.retired = waits.then_some(SegmentId(0)).into_iter().collect();
        inner.prepare_after = if failed { Micros(now.0 + 1) } else { Micros(0) };
        opened.log.shared.check_space(&mut inner, now);
        assert_eq!(inner.commit.is_full(), refused, "row {row}");
        (inner.is_removing, inner.spares, inner.retired) = (false, 0, Vec::new());
    }
}

#[test]
fn only_what_is_synced_is_read() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    let (began_send, began) = channel();
    let (go, go_receive) = channel();
    *opened.faults.gate.lock().unwrap() = Some((began_send, go_receive));
    let first = append(&opened.log, 1, b"one").unwrap();
    began.recv_timeout(PATIENCE).unwrap();
    assert_eq!(read(&opened.log, &behind(0), 100), []);
    let second = append(&opened.log, 2, b"two").unwrap();
    go.send(()).unwrap();
    wait_synced(&opened, first);
    began.recv_timeout(PATIENCE).unwrap();
    assert_eq!(indexes(&read(&opened.log, &behind(0), 100)), [1]);
    go.send(()).unwrap();
    wait_synced(&opened, second);
    *opened.faults.gate.lock().unwrap() = None;
    assert_eq!(indexes(&read(&opened.log, &behind(0), 100)), [1, 2]);
}

#[test]
fn an_entry_longer_than_a_window_comes_in_parts() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    let long: Vec<u8> = (0..9_000_000u32).map(|at| (at % 251) as u8).collect();
    append(&opened.log, 1, b"before").unwrap();
    append(&opened.log, 2, &long).unwrap();
    let end = append(&opened.log, 3, b"behind").unwrap();
    wait_synced(&opened, end);
    let found = entries(&read(&opened.log, &behind(0), 1 << 20));
    let bodies: Vec<&[u8]> = found.iter().map(|it| &it.3[..]).collect();
    assert!(bodies == [b"before", &long[..], b"behind"]);
}

#[test]
fn what_was_given_away_meanwhile_is_said_to_be_gone() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    opened.log.reserve(KEEPER, Positions::new()).unwrap();
    fill(&opened, 1..=200);
    let part = opened.log.passage(&behind(0), None, 100).unwrap();
    let cursor = part.next.expect("there is more");
    opened.log.release(KEEPER);
    // Segments are recycled in the background.
    while count(dir.path(), "0001.log") > 0 {
        std::thread::yield_now();
    }
    let gone = opened.log.passage(&behind(0), Some(cursor), 100);
    assert!(matches!(gone, Err(PassageError::Gone { segment }) if segment == SegmentId::FIRST), "{gone:?}");
}

/// Several groups, whose suffixes are replaced and which begin anew, while they are read.
#[test]
fn what_counts_in_the_end_is_in_what_is_read_however_it_is_cut() {
    for seed in 0..20 {
        let mut rng = kernel::Rng::new(seed);
        let dir = TempDir::new().unwrap();
        let opened = open(dir.path());
        opened.log.reserve(KEEPER, Positions::new()).unwrap();
        // By group and index: the term.
        let mut model: [Vec<u64>; 3] = Default::default();
        let (mut term, mut end) = (1, Lsn(0));
        for _ in 0..300 {
            let group = rng.below(3) as usize;
            let log = &mut model[group];
            if rng.chance(0.05) {
                term += 1;
                log.truncate(log.len() - rng.below(log.len().min(10) as u64 + 1) as usize);
            }
            log.push(term);
            let body = vec![term as u8; rng.below(1500) as usize];
            let (index, term) = (Index(log.len() as u64), Term(term));
            let Record::Entry(entry) = entry(group as u32, index.0, &body) else { unreachable!() };
            let record = Record::Entry(Entry { term, ..entry });
            end = opened.log.append(&[record], Durability::Always).unwrap();
            if rng.chance(0.02) {
                wait_synced(&opened, end);
                opened.log.checkpointed(GroupId(group as u32), index);
            }
        }
        wait_synced(&opened, end);
        for _ in 0..10 {
            let after = [0; 3].map(|_| rng.below(40));
            let wanted = (0..3).map(|group| (GroupId(group), Index(after[group as usize]))).collect();
            let bytes = read(&opened.log, &wanted, 1 + rng.below(20_000) as usize);
            let mut found: [Vec<u64>; 3] = Default::default();
            for (group, term, index, _) in entries(&bytes) {
                let (group, at) = (group as usize, (index - 1) as usize);
                let known = &mut found[group];
                let from = after[group] as usize;
                known.truncate(at.saturating_sub(from));
                // What has no beginning here is of a suffix that was replaced.
                if known.len() + from == at {
                    known.push(term);
                }
            }
            for group in (0..3).filter(|group| model[*group].len() as u64 > after[*group]) {
                let expected = &model[group][after[group] as usize..];
                assert_eq!(found[group], expected, "seed {seed}, group {group} behind {after:?}");
            }
        }
    }
}
