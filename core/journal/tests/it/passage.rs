//! What a backup reads of the log is what the log was told of its groups, as far as it is synced, however it is cut.

use journal::passage::{Broken, KIND_BEGUN, KIND_ENTRY, KIND_UNCERTAIN, Step};
use journal::record::{HEADER_BYTES, Header};
use journal::{Cursor, Passage, Positions, SegmentId};
use kernel::codec::put_varint;
use kernel::{GroupId, Index, Rng};

use crate::host::{Host, Owned, batch};

/// One part of the stream, from windows of any size.
fn part(host: &Host, passage: &mut Passage<'_>, rng: &mut Rng) -> Result<Step, Broken> {
    let mut least = 1;
    loop {
        let Cursor { segment, offset, .. } = passage.cursor();
        let file = &host.cache[&segment];
        let header = Header::decode(segment, file).expect("it was opened");
        let from = (offset as usize).min(file.len());
        let to = (from + least.max(rng.below(5000) as usize)).min(file.len());
        match passage.read(&header, &file[from..to], host.commit.durable())? {
            Step::Read { bytes } => {
                let had = to as u64 - passage.cursor().offset;
                assert!(bytes as u64 > had, "it has what it asks for");
                least = bytes;
            }
            Step::Next => least = 1,
            step @ (Step::Full | Step::End) => return Ok(step),
        }
    }
}

fn stream(host: &Host, wanted: &Positions, rng: &mut Rng) -> Result<Vec<u8>, Broken> {
    let Some(first) = host.commit.truncate().first_behind(wanted) else { return Ok(Vec::new()) };
    let last = host.commit.active().expect("there is one").id;
    let (mut cursor, mut all) = (Cursor::begin(first, last), Vec::new());
    loop {
        let bytes_max = 1 + rng.below(3000) as usize;
        let mut passage = Passage::new(wanted, cursor, bytes_max);
        let step = part(host, &mut passage, rng)?;
        cursor = Cursor::decode(&passage.cursor().encode()).expect("it reads back");
        let bytes = passage.into_bytes();
        assert!(bytes.len() <= bytes_max, "a part keeps to its bound");
        all.extend(bytes);
        if step == Step::End {
            return Ok(all);
        }
    }
}

/// What the stream says of one record.
fn told(record: &Owned, wanted: &Positions, out: &mut Vec<u8>) {
    let after = |group: u32| wanted.get(&GroupId(group)).map(|after| after.0);
    let head = |kind: u8, group: u32, out: &mut Vec<u8>| {
        out.push(kind);
        out.extend(group.to_le_bytes());
    };
    match record {
        Owned::Entry { group, index, body } if after(*group).is_some_and(|after| *index > after) => {
            head(KIND_ENTRY, *group, out);
            put_varint(out, 1); // the term
            put_varint(out, *index);
            out.extend(1u16.to_le_bytes()); // the semantics
            put_varint(out, *index); // the time
            put_varint(out, body.len() as u64);
            out.extend(body);
        }
        Owned::Reset { group, index: 0..=1, .. } if after(*group).is_some() => head(KIND_BEGUN, *group, out),
        Owned::Reset { group, index, .. } if after(*group).is_some_and(|after| *index > after) => {
            head(KIND_UNCERTAIN, *group, out);
            put_varint(out, *index);
        }
        Owned::Abandon { group } if after(*group).is_some() => {
            head(KIND_UNCERTAIN, *group, out);
            put_varint(out, 0);
        }
        _ => {}
    }
}

#[test]
fn the_stream_says_what_the_log_was_told_as_far_as_it_is_synced() {
    let (mut long, mut unsynced) = (0, 0);
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let (mut host, mut next, mut all) = (Host::new(), [0; 4], Vec::new());
        for _ in 0..40 {
            let batch = batch(&mut rng, &mut next);
            let end = host.append(&batch);
            all.push((end, batch));
            if rng.chance(0.3) {
                host.sync();
                host.mark();
            }
        }
        let groups: Vec<GroupId> = (0..4).filter(|_| rng.chance(0.6)).map(GroupId).collect();
        let wanted: Positions = groups.into_iter().map(|group| (group, Index(rng.below(12)))).collect();
        let found = stream(&host, &wanted, &mut rng).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        let mut expected = Vec::new();
        for record in all.iter().filter(|(end, _)| *end <= host.commit.durable()).flat_map(|(_, batch)| batch)
        {
            told(record, &wanted, &mut expected);
        }
        // What is left out at the beginning was voided; `core/node` shows that nobody misses it.
        assert!(expected.ends_with(&found), "seed {seed}: {wanted:?}");
        long += u64::from(found.len() > 20_000);
        unsynced += u64::from(host.commit.durable() < host.commit.end() && !found.is_empty());
    }
    assert!(long > 20 && unsynced > 20, "too little happens: {long} {unsynced}");
}

#[test]
fn a_cursor_that_points_into_nothing_is_refused() {
    let mut host = Host::new();
    host.append(&[Owned::Entry { group: 1, index: 1, body: vec![7; 100] }]);
    host.sync();
    let wanted = Positions::from([(GroupId(1), Index(0))]);
    let begin = Cursor::begin(SegmentId(1), SegmentId(1));
    let mut rng = Rng::new(1);
    let mut read = |cursor| part(&host, &mut Passage::new(&wanted, cursor, 1000), &mut rng);
    assert_eq!(read(begin), Ok(Step::End));
    // At the mark, of which the stream says nothing; behind what is there; in the middle of a frame; far away.
    assert_eq!(read(Cursor { within: 1, ..begin }), Err(Broken::Cursor));
    assert_eq!(read(Cursor { offset: 8000, ..begin }), Err(Broken::Cursor));
    assert_eq!(read(Cursor { offset: u64::MAX - 7, ..begin }), Err(Broken::Cursor));
    let inside = Cursor { offset: HEADER_BYTES as u64 + 8, ..begin };
    assert!(matches!(read(inside), Err(Broken::Damaged { .. })));
}

#[test]
fn damage_below_what_is_synced_is_named() {
    let mut host = Host::new();
    for index in 1..=3 {
        host.append(&[Owned::Entry { group: 1, index, body: vec![7; 100] }]);
    }
    host.sync();
    let wanted = Positions::from([(GroupId(1), Index(0))]);
    let segment = SegmentId(1);
    let at = HEADER_BYTES + 100;
    host.cache.get_mut(&segment).expect("it is there")[at] ^= 1;
    let broken = stream(&host, &wanted, &mut Rng::new(1)).expect_err("a bit is flipped");
    assert!(matches!(broken, Broken::Damaged { segment: found, .. } if found == segment), "{broken}");
}

#[test]
fn only_a_cursor_is_one() {
    let cursor = Cursor { segment: SegmentId(3), offset: 640, within: 17, last: SegmentId(9) };
    let good = cursor.encode();
    assert_eq!(Cursor::decode(&good), Some(cursor));
    assert_eq!(Cursor::decode(&good[..31]), None);
    assert_eq!(Cursor::decode(&[&good[..], &[0]].concat()), None);
    let bad = [
        Cursor { segment: SegmentId(10), ..cursor },
        Cursor { offset: 641, ..cursor },
        Cursor { offset: 8, ..cursor },
        Cursor { last: SegmentId(u64::MAX), ..cursor },
    ];
    for cursor in bad {
        assert_eq!(Cursor::decode(&cursor.encode()), None, "{cursor:?}");
    }
}
