//! The log: frames, headers and whole segments, arbitrary and mutated. Every place either reads back as
//! it would be written or is refused; the scan ends with a verdict.
#![no_main]

use fuzz::Bytes;
use journal::record::{Entry, Frame, HardState, Header, Record, Salt, Seed, SegmentId};
use journal::recover::{Recover, Recovered, Refusal};
use kernel::{GroupId, Index, Lsn, Micros, Term};
use std::num::NonZeroU64;

const SALT: Salt = Salt(7);

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    match input.byte() % 3 {
        0 => raw(input.rest()),
        1 => frame(&mut input),
        _ => log(&mut input),
    }
});

/// Arbitrary bytes as frame, header and segment.
fn raw(bytes: &[u8]) {
    let seed = Seed::new(SALT, SegmentId::FIRST);
    if let Ok(frame) = Frame::decode(seed, 64, bytes) {
        same(&frame, seed, 64);
    }
    let _ = Frame::decode_mark(seed, 64, bytes);
    if let Ok(header) = Header::decode(SegmentId::FIRST, bytes) {
        let mut again = Vec::new();
        header.encode(&mut again);
        assert_eq!(Header::decode(SegmentId::FIRST, &again), Ok(header));
    }
    let mut scan = Recover::new();
    if scan.segment(SegmentId::FIRST, bytes, &mut |_, _| ()).is_ok() {
        let _ = scan.finish();
    }
}

/// What reads as a frame is what would be written.
fn same(frame: &Frame<'_>, seed: Seed, offset: u64) {
    let mut again = Vec::new();
    frame.encode(seed, offset, &mut again);
    assert_eq!(again.len(), frame.bytes());
    assert_eq!(Frame::decode(seed, offset, &again), Ok(*frame));
}

/// Arbitrary fields behind a sound checksum: the checks after the checksum are reached.
fn frame(input: &mut Bytes<'_>) {
    let seed = Seed::new(SALT, SegmentId(input.u64()));
    let offset = input.u64() / 8 % (1 << 40) * 8;
    let written = any_frame(input);
    let mut bytes = Vec::new();
    written.encode(seed, offset, &mut bytes);
    assert_eq!(Frame::decode(seed, offset, &bytes), Ok(written));
    let at = usize::from(input.byte()) % bytes.len();
    let flip = input.byte();
    bytes[at] ^= flip;
    let read = Frame::decode(seed, offset, &bytes);
    assert_eq!(read.is_ok(), flip == 0, "one changed byte is always seen");
    if flip != 0 {
        assert!(Frame::decode(seed, offset ^ 8, &bytes).is_err(), "a frame is sound in one place only");
    }
}

fn any_frame<'a>(input: &mut Bytes<'a>) -> Frame<'a> {
    let group = GroupId(input.u64() as u32);
    match input.byte() % 8 {
        0 => Frame::Mark(Lsn(input.u64())),
        1 => Frame::Floor { group, index: Index(input.u64()) },
        2 => Frame::Seal,
        3 => Frame::Record(Record::HardState(HardState {
            group,
            term: Term(input.u64()),
            vote: NonZeroU64::new(input.u64()),
        })),
        4 => {
            let (index, term) = (Index(input.u64()), Term(input.u64()));
            Frame::Record(Record::Reset { group, index, term })
        }
        5 => Frame::Record(Record::Abandon { group }),
        6 => Frame::Record(Record::Committed { group, index: Index(input.u64()) }),
        _ => Frame::Record(Record::Entry(Entry {
            group,
            term: Term(input.u64()),
            index: Index(input.u64()),
            semantics: input.u64() as u16,
            time: Micros(input.u64()),
            body: input.piece(),
        })),
    }
}

/// A few segments of sound frames with arbitrary fields, then damaged or fed in any order.
fn log(input: &mut Bytes<'_>) {
    let mut segments: Vec<(SegmentId, Vec<u8>)> = Vec::new();
    let mut start = Lsn(input.u64() % (1 << 48));
    let mut id = SegmentId(input.u64() % (1 << 48));
    let honest = input.byte() % 2 == 0;
    for _ in 0..input.byte() % 4 + 1 {
        let capacity = if honest { 4096 } else { 1 + input.u64() % 8192 };
        let synced = if honest { Lsn(0) } else { Lsn(input.u64()) };
        let mut bytes = Vec::new();
        Header { salt: SALT, id, start, capacity, synced }.encode(&mut bytes);
        let seed = Seed::new(SALT, id);
        for _ in 0..input.byte() % 8 {
            any_frame(input).encode(seed, bytes.len() as u64, &mut bytes);
        }
        if input.byte() % 2 == 0 {
            Frame::Seal.encode(seed, bytes.len() as u64, &mut bytes);
        }
        if honest && bytes.len() < 4096 {
            bytes.resize(4096, 0);
        }
        start = Lsn(start.0 + bytes.len() as u64);
        segments.push((id, bytes));
        id = id.next();
    }
    while !input.is_empty() && !segments.is_empty() {
        let which = usize::from(input.byte()) % segments.len();
        match input.byte() % 4 {
            0 => segments.swap(0, which),
            1 => {
                let length = segments[which].1.len();
                segments[which].1.truncate(input.u64() as usize % (length + 1));
            }
            2 if segments.len() > 1 => drop(segments.remove(which)),
            _ => {
                let (at, flip) = (input.u64() as usize, input.byte());
                if let length @ 1.. = segments[which].1.len() {
                    segments[which].1[at % length] ^= flip;
                }
            }
        }
    }
    let Ok((found, records)) = scan(&segments) else { return };
    // Cleaned up as the scan says, the log reads back the same and ends in nothing.
    segments.retain(|(id, _)| !found.discard.contains(id));
    if let Some((active, wipe)) = found.state.active.zip(found.wipe) {
        let (_, bytes) =
            segments.iter_mut().find(|(id, _)| *id == active.id).expect("the active segment was fed");
        bytes[wipe.start as usize..wipe.end as usize].fill(0);
    }
    if found.state.active.is_some() {
        let (again, same) = scan(&segments).expect("a cleaned log is sound");
        assert_eq!(
            (again.torn, again.wipe, again.state.end),
            (found.torn.filter(|_| false), None, found.state.end)
        );
        assert_eq!(same, records);
    }
}

type Found = (Recovered, Vec<(Lsn, Vec<u8>)>);

fn scan(segments: &[(SegmentId, Vec<u8>)]) -> Result<Found, Refusal> {
    let mut scan = Recover::new();
    let mut records: Vec<(Lsn, Vec<u8>)> = Vec::new();
    for (id, bytes) in segments {
        scan.segment(*id, bytes, &mut |lsn, record| {
            assert!(
                records.last().is_none_or(|(last, _)| *last < lsn),
                "records come in the order of the log"
            );
            let mut copy = Vec::new();
            Frame::Record(record).encode(Seed::new(SALT, SegmentId::FIRST), 0, &mut copy);
            records.push((lsn, copy));
        })?;
    }
    let found = scan.finish()?.expect("at least one segment was fed");
    assert!(records.last().is_none_or(|(last, _)| *last < found.state.content));
    Ok((found, records))
}
