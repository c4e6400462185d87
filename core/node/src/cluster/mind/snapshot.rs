//! Checkpoints of the control group, and its snapshots: the encoded state, which is small, in parts on the bulk lane.
//!
//! Who is behind pulls a snapshot part by part from who offered it, checks it, and only then is it named to consensus. It
//! takes effect when the host has it durably.

use alloc::collections::VecDeque;

use consensus::codec::Descriptor;

use super::*;
use crate::cluster::frames::PART_BYTES_MAX;
use crate::cluster::thinking::pledge::{Promised, promised};

/// A checkpoint is made after so many entries.
const CHECKPOINT_ENTRIES: u64 = 256;
/// Or after so many bytes of them.
const CHECKPOINT_BYTES: usize = 4 * 1024 * 1024;
/// So many entries stay for members that are a little behind.
const KEPT_ENTRIES: u64 = 256;
/// Snapshots that are kept for those who fetch them.
const OFFERS_MAX: usize = 2;
/// A part that did not come is asked for again after this, in milliseconds.
const PULL_MS: u64 = 1_000;
/// So often; then the snapshot is given up.
const PULLS_MAX: u32 = 10;

/// What is on disk, offered and on its way.
pub(super) struct Keep {
    /// Up to here a checkpoint was asked for.
    asked: Index,
    /// Up to here one is durable.
    durable: Index,
    waiting: VecDeque<(Index, Purpose)>,
    entries: u64,
    bytes: usize,
    /// The host wants one.
    wanted: bool,
    offers: VecDeque<Offer>,
    generation: u64,
    incoming: Option<Incoming>,
    staged: Option<(Descriptor, State)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Checkpoint,
    Install,
}

struct Offer {
    descriptor: Descriptor,
    bytes: Vec<u8>,
}

struct Incoming {
    from: NodeId,
    descriptor: Descriptor,
    bytes: Vec<u8>,
    again: Micros,
    pulls: u32,
}

impl Keep {
    pub fn new(asked: Index, incarnation: u64) -> Keep {
        Keep {
            asked,
            durable: asked,
            waiting: VecDeque::new(),
            entries: 0,
            bytes: 0,
            wanted: false,
            offers: VecDeque::new(),
            // Snapshots of one life are told from those of others.
            generation: incarnation << 32,
            incoming: None,
            staged: None,
        }
    }

    pub fn deadline(&self) -> Option<Micros> {
        self.incoming.as_ref().map(|incoming| incoming.again)
    }

    /// Up to here a checkpoint is durable.
    pub const fn durable(&self) -> Index {
        self.durable
    }

    /// A checkpoint is to follow soon.
    pub const fn want(&mut self) {
        self.wanted = true;
    }

    /// An entry was applied.
    pub const fn grew(&mut self, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes;
    }
}

/// The beginning of the state's digest.
fn checksum(state: &State) -> u64 {
    u64::from_le_bytes(*state.digest().0.first_chunk().expect("a digest has 32 bytes"))
}

impl Mind {
    /// The node's log is to be given away: a checkpoint follows with the next [`Mind::finish`], if there is news.
    pub fn checkpoint(&mut self) {
        self.keep.want();
    }

    /// How far the checkpoints that were asked for reach.
    #[must_use]
    pub const fn checkpoint_asked(&self) -> Index {
        self.keep.asked
    }

    pub(super) fn keep_checkpoint(&mut self) {
        let due = self.keep.entries >= CHECKPOINT_ENTRIES || self.keep.bytes >= CHECKPOINT_BYTES;
        if !due && !self.keep.wanted || !self.keep.waiting.is_empty() {
            return;
        }
        // Before there is a state there is nothing to keep.
        let Some(mark) = self.replica.cut().filter(|_| self.state.cluster().is_some()) else { return };
        self.keep.wanted = false;
        if mark.index > self.keep.asked {
            let (state, promised) = (self.state.encode(), promised(&self.state));
            self.persist(mark, (state, promised), Purpose::Checkpoint);
        }
    }

    fn persist(&mut self, mark: Mark, (state, promised): (Vec<u8>, Promised), purpose: Purpose) {
        (self.keep.entries, self.keep.bytes, self.keep.asked) = (0, 0, mark.index);
        self.keep.waiting.push_back((mark.index, purpose));
        self.out.push(Effect::Persist { mark, state, promised });
    }

    /// The oldest [`Effect::Persist`] that was not answered, whose mark has this index, is durable.
    pub fn persisted(&mut self, now: Micros, index: Index) {
        self.now = now;
        let Some((_, purpose)) = self.keep.waiting.pop_front_if(|(waiting, _)| *waiting == index) else {
            return;
        };
        self.keep.durable = index;
        match purpose {
            Purpose::Checkpoint => self.replica.compact(Index(index.0.saturating_sub(KEPT_ENTRIES))),
            Purpose::Install => {
                if let Some((descriptor, state)) = self.keep.staged.take() {
                    self.applied_term = descriptor.mark.term;
                    self.replace(state);
                    self.replica.snapshot_installed(index);
                }
            }
        }
        self.show_durable(index);
    }

    /// A member is behind the log.
    pub(super) fn make_snapshot(&mut self) {
        let Some(mark) = self.replica.cut().filter(|_| self.state.cluster().is_some()) else { return };
        if self.keep.offers.back().is_some_and(|offer| offer.descriptor.mark == mark) {
            return;
        }
        let bytes = self.state.encode();
        self.keep.generation += 1;
        let (generation, size) = (self.keep.generation, bytes.len() as u64);
        let descriptor = Descriptor { generation, size, checksum: checksum(&self.state), mark };
        if self.replica.offer_snapshot(&descriptor) {
            if self.keep.offers.len() >= OFFERS_MAX {
                self.keep.offers.pop_front();
            }
            self.keep.offers.push_back(Offer { descriptor, bytes });
        }
    }

    pub(super) fn serve_part(&mut self, from: NodeId, generation: u64, offset: u64) {
        let offer = self.keep.offers.iter().find(|offer| offer.descriptor.generation == generation);
        let rest = offer.and_then(|offer| offer.bytes.get(usize::try_from(offset).ok()?..));
        let said = match rest {
            Some(rest) if !rest.is_empty() => {
                let bytes = rest[..rest.len().min(PART_BYTES_MAX)].to_vec();
                Said::Part { generation, offset, bytes }
            }
            Some(_) | None => Said::NoPart { generation },
        };
        self.say(from, &said);
        let replica = self.nodes.iter().find(|(_, node)| **node == from).map(|(&replica, _)| replica);
        if let Some(replica) = replica {
            self.replica.snapshot_progressed(replica);
        }
    }

    /// Consensus wants a snapshot that a member has offered.
    pub(super) fn fetch(&mut self, from: ReplicaId, descriptor: Descriptor) {
        let node = self.nodes.get(&from).copied();
        let Some(from) = node.filter(|_| descriptor.size > 0 && descriptor.size <= STATE_BYTES_MAX) else {
            return self.replica.snapshot_refused(descriptor.generation);
        };
        let (bytes, again, pulls) = (Vec::new(), self.now, 0);
        self.keep.incoming = Some(Incoming { from, descriptor, bytes, again, pulls });
    }

    /// Asks for the next part, or once more for the last one.
    pub(super) fn pull_on(&mut self) {
        let now = self.now;
        let Some(incoming) = self.keep.incoming.as_mut().filter(|incoming| incoming.again <= now) else {
            return;
        };
        let generation = incoming.descriptor.generation;
        if incoming.pulls >= PULLS_MAX {
            self.keep.incoming = None;
            return self.replica.snapshot_refused(generation);
        }
        incoming.pulls += 1;
        incoming.again = now.plus_millis(PULL_MS);
        let (to, offset) = (incoming.from, incoming.bytes.len() as u64);
        self.say(to, &Said::Pull { generation, offset });
    }

    pub(super) fn take_part(&mut self, from: NodeId, generation: u64, offset: u64, bytes: &[u8]) {
        let now = self.now;
        let Some(incoming) = &mut self.keep.incoming else { return };
        let here = incoming.bytes.len() as u64;
        let fits = incoming.from == from
            && incoming.descriptor.generation == generation
            && offset == here
            && here + bytes.len() as u64 <= incoming.descriptor.size;
        if !fits {
            return;
        }
        incoming.bytes.extend_from_slice(bytes);
        (incoming.again, incoming.pulls) = (now, 0);
        if incoming.bytes.len() as u64 == incoming.descriptor.size {
            self.stage();
        }
    }

    fn stage(&mut self) {
        let Some(Incoming { descriptor, bytes, .. }) = self.keep.incoming.take() else { return };
        let generation = descriptor.generation;
        match State::decode(&bytes) {
            Ok(state)
                if checksum(&state) == descriptor.checksum
                    && readable(state.speaks(), self.options.spoken).is_ok() =>
            {
                self.keep.staged = Some((descriptor, state));
                if !self.replica.snapshot_staged(generation) {
                    self.keep.staged = None;
                }
            }
            Ok(_) | Err(_) => self.replica.snapshot_refused(generation),
        }
    }

    pub(super) fn lack_part(&mut self, from: NodeId, generation: u64) {
        let lacks =
            |incoming: &mut Incoming| incoming.from == from && incoming.descriptor.generation == generation;
        if self.keep.incoming.take_if(lacks).is_some() {
            self.replica.snapshot_refused(generation);
        }
    }

    /// Consensus has taken the snapshot that was staged: the host keeps it durably, then it takes effect.
    pub(super) fn install(&mut self, descriptor: &Descriptor) {
        let staged = self.keep.staged.as_ref().filter(|(staged, _)| staged == descriptor);
        let (_, state) = staged.expect("what is installed was staged, and nothing is staged meanwhile");
        let (state, promised) = (state.encode(), promised(state));
        self.persist(descriptor.mark.clone(), (state, promised), Purpose::Install);
    }
}
