//! The log for backups: promises, positions and cursors as arbitrary bytes; and what is read of segments, sound and damaged,
//! from any cursor, in any windows and parts.
#![no_main]

use fuzz::Bytes;
use journal::ledger::{Ledger, put_positions, take_positions};
use journal::passage::{Broken, Passage, Step};
use journal::record::{Entry, Frame, Header, Record, Salt, Seed, SegmentId};
use journal::{Cursor, Positions};
use kernel::codec::Reader;
use kernel::{GroupId, Index, Lsn, Micros, Millis, Term};

const SALT: Salt = Salt(7);
const CAPACITY: usize = 1 << 16;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    match input.byte() % 3 {
        0 => raw(input.rest()),
        1 => sealed(&mut input),
        _ => Log::any(&mut input).check(&mut input),
    }
});

/// Arbitrary bytes: read back as they are written, or refused.
fn raw(bytes: &[u8]) {
    if let Ok(positions) = take_positions(&mut Reader::new(bytes)) {
        let mut again = Vec::new();
        put_positions(&mut again, &positions);
        assert_eq!(take_positions(&mut Reader::new(&again)), Ok(positions));
    }
    if let Some(cursor) = Cursor::decode(bytes) {
        assert_eq!(cursor.encode(), bytes);
    }
    assert!(Ledger::decode(Millis(0), bytes).is_err() || bytes.len() > 16);
}

/// Arbitrary bytes behind a sound checksum.
fn sealed(input: &mut Bytes<'_>) {
    let now = Millis(input.u64());
    let mut bytes = b"ARCHKEEP\x01\0\0\0".to_vec();
    bytes.extend_from_slice(input.rest());
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    if let Ok(ledger) = Ledger::decode(now, &bytes) {
        assert!(ledger.promises().count() <= 4);
        assert_eq!(Ledger::decode(now, &ledger.encode()), Ok(ledger));
    }
}

/// A few segments that follow each other.
struct Log {
    segments: Vec<(Header, Vec<u8>)>,
    synced: Lsn,
}

impl Log {
    fn any(input: &mut Bytes<'_>) -> Log {
        let (mut segments, mut start) = (Vec::new(), Lsn(0));
        let count = u64::from(input.byte() % 4) + 1;
        for id in 1..=count {
            let header =
                Header { salt: SALT, id: SegmentId(id), start, capacity: CAPACITY as u64, synced: start };
            let (mut bytes, seed) = (Vec::new(), Seed::new(SALT, header.id));
            header.encode(&mut bytes);
            for _ in 0..input.byte() % 12 {
                let frame = any_frame(input);
                if bytes.len() + frame.bytes() + 64 < CAPACITY {
                    frame.encode(seed, bytes.len() as u64, &mut bytes);
                }
            }
            if id < count {
                Frame::Seal.encode(seed, bytes.len() as u64, &mut bytes);
            }
            start = Lsn(start.0 + bytes.len() as u64);
            bytes.resize(CAPACITY, 0);
            segments.push((header, bytes));
        }
        Log { segments, synced: start }
    }

    fn check(mut self, input: &mut Bytes<'_>) {
        let groups = (0..3).map(|group| (GroupId(group), Index(u64::from(input.byte() % 16))));
        let wanted: Positions = groups.collect();
        let last = SegmentId(self.segments.len() as u64);
        let begin = Cursor::begin(SegmentId(1), last);
        let whole = self.read(&wanted, begin, &mut Bytes::new(&[])).expect("the log is sound");
        let parts = self.read(&wanted, begin, input).expect("the log is sound");
        assert_eq!(whole, parts, "cut anywhere is the same as whole");
        // From here on there is only an answer, and an end.
        let (segment, offset, within) = (SegmentId(input.u64()), input.u64(), input.u64());
        let bytes = Cursor { segment, offset, within, last: SegmentId(input.u64()) }.encode();
        if let Some(cursor) = Cursor::decode(&bytes) {
            let _ = self.read(&wanted, cursor, input);
        }
        let (which, at) = (usize::from(input.byte()) % self.segments.len(), input.u64() as usize % CAPACITY);
        self.segments[which].1[at] ^= input.byte();
        self.synced = Lsn(input.u64());
        let _ = self.read(&wanted, begin, input);
    }

    /// What is told from a cursor on, in parts and windows as `input` says: whole ones if it says nothing.
    fn read(&self, wanted: &Positions, mut cursor: Cursor, input: &mut Bytes<'_>) -> Result<Vec<u8>, Broken> {
        let mut all = Vec::new();
        loop {
            let bytes_max = if input.is_empty() { 1 << 20 } else { 1 + input.u64() as usize % 4096 };
            let mut passage = Passage::new(wanted, cursor, bytes_max);
            let step = self.part(&mut passage, input)?;
            let bytes = {
                cursor = passage.cursor();
                passage.into_bytes()
            };
            assert!(bytes.len() <= bytes_max);
            assert!(step == Step::End || !bytes.is_empty(), "a part that is full has something");
            all.extend(bytes);
            if step == Step::End {
                return Ok(all);
            }
        }
    }

    fn part(&self, passage: &mut Passage<'_>, input: &mut Bytes<'_>) -> Result<Step, Broken> {
        let mut least = 0;
        loop {
            let Cursor { segment, offset, .. } = passage.cursor();
            let of_cursor = self.segments.iter().find(|(header, _)| header.id == segment);
            let Some((header, bytes)) = of_cursor else { return Ok(Step::End) };
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let window = if input.is_empty() { CAPACITY } else { input.u64() as usize % 1024 };
            let to = from.saturating_add(window.max(least)).min(bytes.len());
            match passage.read(header, &bytes[from..to], self.synced)? {
                Step::Read { bytes } => {
                    assert!(bytes as u64 > to as u64 - passage.cursor().offset, "it has what it asks for");
                    least = bytes;
                }
                Step::Next => least = 0,
                step @ (Step::Full | Step::End) => return Ok(step),
            }
        }
    }
}

fn any_frame<'a>(input: &mut Bytes<'a>) -> Frame<'a> {
    let (group, index) = (GroupId(u32::from(input.byte() % 4)), Index(u64::from(input.byte() % 32)));
    match input.byte() % 6 {
        0 => Frame::Record(Record::Reset { group, index, term: Term(input.u64()) }),
        1 => Frame::Record(Record::Abandon { group }),
        2 => Frame::Record(Record::Committed { group, index }),
        _ => {
            let (term, semantics, time) = (Term(input.u64()), input.u64() as u16, Micros(input.u64()));
            Frame::Record(Record::Entry(Entry { group, term, index, semantics, time, body: input.piece() }))
        }
    }
}
