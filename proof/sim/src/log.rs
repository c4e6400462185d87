//! The node's log on the simulated disk: the journal's machines with their host's duties.

use check::Found;
use consensus::Durability;
use journal::commit::{Need, SEGMENT_BYTES_MIN, State, Written};
use journal::record::{HEADER_BYTES, Header};
use journal::{Commit, Entry, Record, Recover, Recovered, Refusal, Refused, Salt};
use kernel::{GroupId, Index, Lsn, Micros, Rng, Term};
use node::{AppendError, LogSink};

use crate::disk::{Disk, Flight};

/// What the worker asked of the log, for the judge.
#[derive(Debug)]
pub enum Asked {
    /// It was written.
    Written {
        /// The group.
        group: GroupId,
        /// The entry.
        entry: check::Written,
    },
    /// It was refused.
    Refused {
        /// The group.
        group: GroupId,
        /// The commands.
        body: Vec<u8>,
    },
}

/// The log of one process.
pub struct Log {
    /// The group-commit machine.
    pub commit: Commit,
    /// Its disk.
    pub disk: Disk,
    /// The simulation's clock, set before each turn.
    pub now: u64,
    /// What was asked since the judge looked.
    pub asked: Vec<Asked>,
    buffer: Vec<u8>,
    flight: Option<(Flight, Lsn)>,
}

impl Log {
    /// Makes a new log on an empty disk.
    #[must_use]
    pub fn create(mut disk: Disk, salt: Salt) -> Log {
        let mut commit = Commit::new(SEGMENT_BYTES_MIN, State::fresh(salt));
        let need = commit.wants().expect("a fresh log wants its first segment");
        disk.make(need.id, need.bytes);
        commit.prepared(need);
        let mut log = Log::of(commit, disk);
        let written = log.commit.append(Micros(0), &[], journal::Durability::Always, &mut log.buffer);
        let written = written.expect("an empty batch fits a prepared segment");
        log.write(&written);
        log.sync_all();
        log
    }

    const fn of(commit: Commit, disk: Disk) -> Log {
        Log { commit, disk, now: 0, asked: Vec::new(), buffer: Vec::new(), flight: None }
    }

    /// Reads the log back, handing out its records, and cleans up behind its end.
    ///
    /// # Errors
    /// The log refuses to be used; the disk is as it was.
    pub fn open(
        mut disk: Disk,
        visit: &mut dyn FnMut(Record<'_>),
    ) -> Result<(Log, Recovered), (Disk, Refusal)> {
        let found = match scan(&disk, visit) {
            Ok(found) => found,
            Err(refusal) => return Err((disk, refusal)),
        };
        let state = &found.state;
        for &id in found.discard.iter().rev() {
            if state.active.is_some() || id != state.next {
                disk.remove(id);
            }
        }
        if let (Some(active), Some(wipe)) = (state.active, found.wipe.clone()) {
            disk.wipe(active.id, wipe);
        }
        harden(&mut disk, state);
        let mut commit = Commit::new(SEGMENT_BYTES_MIN, found.state.clone());
        if found.state.active.is_none() {
            let need = Need { id: found.state.next, bytes: SEGMENT_BYTES_MIN };
            disk.make(need.id, need.bytes);
            commit.prepared(need);
        }
        Ok((Log::of(commit, disk), found))
    }

    /// Reads what is on a disk, and changes nothing.
    ///
    /// # Errors
    /// The log is refused.
    pub fn read(disk: &Disk, visit: &mut dyn FnMut(Record<'_>)) -> Result<(), Refusal> {
        scan(disk, visit).map(|_| ())
    }

    fn write(&mut self, written: &Written) {
        for write in written.seal.iter().chain([&written.batch]) {
            self.disk.write(write.segment, write.offset as usize, &self.buffer[write.bytes.clone()]);
        }
    }

    fn sync_all(&mut self) {
        if let Some(sync) = self.commit.begin_sync() {
            let flight = self.disk.begin_sync(&sync.segments);
            self.disk.end_sync(&flight);
            self.commit.synced(sync.end);
        }
    }

    /// Starts a sync if one is due. True if it did.
    pub fn start_sync(&mut self) -> bool {
        if self.commit.sync_due().is_none_or(|due| due.0 > self.now) {
            return false;
        }
        let Some(sync) = self.commit.begin_sync() else { return false };
        self.flight = Some((self.disk.begin_sync(&sync.segments), sync.end));
        true
    }

    /// The sync ended; what is durable now.
    pub fn finish_sync(&mut self) -> Lsn {
        if let Some((flight, end)) = self.flight.take() {
            self.disk.end_sync(&flight);
            self.commit.synced(end);
        }
        self.commit.durable()
    }

    /// The sync failed.
    pub fn fail_sync(&mut self, rng: &mut Rng) {
        if let Some((flight, _)) = self.flight.take() {
            self.disk.fail_sync(&flight, rng);
            self.commit.fail();
        }
    }

    /// What the log's threads do besides: the idle mark, the next segment, the retired ones.
    pub fn tend(&mut self) {
        if self.flight.is_none()
            && self.commit.sync_due().is_none()
            && let Some(written) = self.commit.mark(&mut self.buffer)
        {
            self.write(&written);
        }
        while let Some(id) = self.commit.retire() {
            self.disk.recycle(id, SEGMENT_BYTES_MIN);
        }
        if let Some(need) = self.commit.wants()
            && self.disk.prepare(need.id, need.bytes)
        {
            self.commit.prepared(need);
        }
        self.commit.set_full(self.disk.full);
    }
}

impl LogSink for Log {
    fn append(&mut self, records: &[Record<'_>], durability: Durability) -> Result<Lsn, AppendError> {
        let durability = match durability {
            Durability::Always => journal::Durability::Always,
            Durability::EverySec => journal::Durability::EverySec,
        };
        self.commit.set_full(self.disk.full);
        let result = loop {
            match self.commit.append(Micros(self.now), records, durability, &mut self.buffer) {
                Ok(written) => {
                    self.write(&written);
                    break Ok(written.end);
                }
                Err(Refused::Unprepared(need)) if self.disk.prepare(need.id, need.bytes) => {
                    self.commit.prepared(need);
                }
                Err(Refused::Unprepared(_) | Refused::Full) => break Err(AppendError::Full),
                Err(Refused::Poisoned) => break Err(AppendError::Failed),
                Err(Refused::TooLarge { .. }) => break Err(AppendError::TooLarge),
            }
        };
        for record in records {
            let Record::Entry(entry) = record else { continue };
            let &Entry { group, term, index, time, body, .. } = entry;
            let body = body.to_vec();
            self.asked.push(match result {
                Ok(end) => {
                    let entry = check::Written { index, term, time, body, end, at: self.now };
                    Asked::Written { group, entry }
                }
                Err(_) => Asked::Refused { group, body },
            });
        }
        result
    }
}

fn scan(disk: &Disk, visit: &mut dyn FnMut(Record<'_>)) -> Result<Recovered, Refusal> {
    let mut recover = Recover::new();
    for (id, bytes) in disk.segments() {
        recover.segment(id, bytes, &mut |_, record| visit(record))?;
    }
    Ok(recover.finish()?.expect("the disk has a log"))
}

/// Makes durable what the log does not state to be; written again first, because the cache may pass for
/// clean.
fn harden(disk: &mut Disk, state: &State) {
    let mut parts = Vec::new();
    for (id, bytes) in disk.segments() {
        let Ok(header) = Header::decode(id, &bytes[..HEADER_BYTES]) else { continue };
        let from = state.marked.0.saturating_sub(header.start.0);
        let to = state.end.0.saturating_sub(header.start.0).min(header.capacity);
        if from < to {
            parts.push((id, from as usize, bytes[from as usize..to as usize].to_vec()));
        }
    }
    let ids: Vec<_> = disk.segments().map(|(id, _)| id).collect();
    for (id, from, bytes) in parts {
        disk.write(id, from, &bytes);
    }
    let flight = disk.begin_sync(&ids);
    disk.end_sync(&flight);
}

/// An entry as recovery saw it.
#[must_use]
pub fn found(entry: &Entry<'_>) -> Found {
    let &Entry { index, term, time, body, .. } = entry;
    let (index, term): (Index, Term) = (index, term);
    Found { index, term, time, body: body.to_vec() }
}
