//! Old entries of one group, read back while the log goes on: what a follower lacks that its leader does not hold in memory.

use std::io::{self, Read};

use journal::record::{Frame, HEADER_BYTES, Header, Seed};
use journal::{Entry, Record, SegmentId};
use kernel::{GroupId, Index, Micros, Term};

use super::Log;
use super::files::Name;

/// An entry that owns its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldEntry {
    /// The leader's term when it was proposed.
    pub term: Term,
    /// Its position in the group's log.
    pub index: Index,
    /// The version of `apply` that it is meant for.
    pub semantics: u16,
    /// The group's time when it was proposed.
    pub time: Micros,
    /// What it says.
    pub body: Vec<u8>,
}

/// The entries of one group from one index on, without a hole, as far as they were read.
struct Run {
    group: GroupId,
    first: Index,
    last: Index,
    entries: Vec<OldEntry>,
    bytes: usize,
    bytes_max: usize,
    /// What there is of it is not to be told from what is void.
    uncertain: bool,
}

impl Log {
    /// The entries of `group` from `first` to `last` as the log has them last, at most `bytes_max` bytes of bodies, but
    /// one entry in any case. Fewer, or none, if they are not there any more, or if the group's log was reset behind them:
    /// then it begins elsewhere.
    ///
    /// Reads the segments from the one with `first` on, each whole, and holds one at a time.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn entries(
        &self,
        group: GroupId,
        (first, last): (Index, Index),
        bytes_max: usize,
    ) -> io::Result<Vec<OldEntry>> {
        let mut run = Run { group, first, last, entries: Vec::new(), bytes: 0, bytes_max, uncertain: false };
        let (begin, end) = {
            let inner = self.shared.lock();
            let begin = inner.commit.truncate().first_with(group, first);
            (begin, inner.commit.active().map(|active| active.id))
        };
        let (Some(begin), Some(end)) = (begin, end) else { return Ok(Vec::new()) };
        let mut bytes = Vec::new();
        for id in (begin.0..=end.0).map(SegmentId) {
            bytes.clear();
            match self.shared.dir.open_file(Name::Segment(id)) {
                Ok(mut file) => file.read_to_end(&mut bytes)?,
                // It was given away meanwhile, and with it what was asked for.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            run.read(id, &bytes);
        }
        Ok(if run.uncertain { Vec::new() } else { run.entries })
    }
}

impl Run {
    /// Takes what a segment has of it, up to where no frame is.
    fn read(&mut self, id: SegmentId, bytes: &[u8]) {
        let Ok(header) = Header::decode(id, bytes) else { return };
        let (seed, mut offset) = (Seed::new(header.salt, id), HEADER_BYTES);
        while let Ok(frame) = Frame::decode(seed, offset as u64, bytes.get(offset..).unwrap_or_default()) {
            offset += frame.bytes();
            match frame {
                Frame::Record(Record::Entry(entry)) if entry.group == self.group => self.take(&entry),
                // The group begins here, and that is never taken back. What is before it was another one's.
                Frame::Record(Record::Reset { group, index: Index(0..=1), .. }) if group == self.group => {
                    self.entries.clear();
                    (self.bytes, self.uncertain) = (0, false);
                }
                Frame::Record(Record::Reset { group, .. } | Record::Abandon { group })
                    if group == self.group =>
                {
                    self.uncertain = true;
                }
                Frame::Record(_) | Frame::Mark(_) | Frame::Floor { .. } | Frame::Seal => {}
            }
        }
    }

    fn take(&mut self, entry: &Entry<'_>) {
        let next = self.first.0 + self.entries.len() as u64;
        // It takes the place of what was there, and voids what was behind.
        for void in
            self.entries.drain(self.entries.len().min(entry.index.0.saturating_sub(self.first.0) as usize)..)
        {
            self.bytes -= void.body.len();
        }
        // What has no beginning here is of a suffix that was replaced, or behind what was left out.
        if entry.index < self.first || entry.index > self.last || entry.index.0 > next {
            return;
        }
        if !self.entries.is_empty() && self.bytes + entry.body.len() > self.bytes_max {
            return;
        }
        self.bytes += entry.body.len();
        let Entry { term, index, semantics, time, body, .. } = *entry;
        self.entries.push(OldEntry { term, index, semantics, time, body: body.to_vec() });
    }
}
