//! Snapshots on their way between nodes: who reads which lot when, who keeps it, and what happens if either end is lost.
//!
//! The receiver pulls: it names a cursor and a run, and the sender sends lots from there until so many bytes are not yet
//! said to be durable. What is durable survives both ends' restarts: a receiver that begins again asks its host how far it
//! is and pulls from there, under another run, so that nothing of an earlier one counts. A lot that is lost, or a link, is
//! pulled again after [`SILENCE_MICROS`]; a receiver that gets nowhere for [`GIVE_UP_MICROS`] gives up and says so, and
//! the group's leader begins anew, with what is staged still there.
//!
//! Bounds: [`RECEIVE_MAX`] transfers are received at a time, the others wait; [`SEND_MAX`] are sent. Each holds at most
//! [`WINDOW_BYTES`] and one lot. One lot is read at a time, in turn for all receivers, at [`Options::bytes_per_second`],
//! so that rebalancing leaves disk and links to clients.
//!
//! Cursors and contents are the host's; what they mean is its engine's business.

pub mod wire;

mod receive;
mod send;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use consensus::codec::Descriptor;
use kernel::codec::DecodeError;
use kernel::{GroupId, Micros, NodeId, Rng};

use receive::Receiving;
use send::Sending;
use wire::{Message, Run};

pub use wire::{CURSOR_BYTES_MAX, LOT_BYTES_MAX};

/// Transfers that are received at a time.
pub const RECEIVE_MAX: usize = 2;
/// Transfers that are sent at a time; who asks beyond them asks again.
pub const SEND_MAX: usize = 8;
/// Bytes of lots on their way that are not said to be durable.
pub const WINDOW_BYTES: usize = 1024 * 1024;
/// Bytes of a lot that the host is asked for; it may be one item longer, up to [`LOT_BYTES_MAX`].
pub const LOT_BYTES: usize = 256 * 1024;
/// A receiver that hears nothing for so long pulls again.
pub const SILENCE_MICROS: u64 = 2_000_000;
/// A receiver that gets nowhere for so long gives up, and a sender stops.
pub const GIVE_UP_MICROS: u64 = 60_000_000;
/// Lots that the host refuses before a receiver gives up.
pub const REFUSALS_MAX: u32 = 3;
/// A snapshot that nobody has pulled for so long is let go.
pub const OFFER_MICROS: u64 = 300_000_000;

/// How transfers are made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of lots that this node sends in a second, at least 1.
    pub bytes_per_second: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { bytes_per_second: 32 * 1024 * 1024 }
    }
}

/// What the host is asked to do with its engine, in this order. Each is answered by a [`Report`] with the same ticket, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Begin to stage the snapshot with this name, or go on with it if that is what is staged.
    Begin {
        /// The group.
        group: GroupId,
        /// Its name, the same for the same bytes.
        name: Vec<u8>,
        /// Comes back in the answer.
        ticket: u64,
    },
    /// Keep this lot behind what is staged.
    Stage {
        /// The group.
        group: GroupId,
        /// The lot.
        content: Vec<u8>,
        /// Its end's cursor; `None` at the end of the snapshot.
        next: Option<Vec<u8>>,
        /// Comes back in the answer.
        ticket: u64,
    },
    /// Compare all of it with its description and make it durable.
    Check {
        /// The group.
        group: GroupId,
        /// Its bytes.
        bytes: u64,
        /// Its checksum.
        checksum: u64,
        /// Comes back in the answer.
        ticket: u64,
    },
    /// Give up what is staged.
    Drop {
        /// The group.
        group: GroupId,
    },
    /// Read about [`LOT_BYTES`] of a snapshot that was offered.
    Read {
        /// The group.
        group: GroupId,
        /// Which.
        generation: u64,
        /// From here on; empty for the beginning.
        cursor: Vec<u8>,
        /// Comes back in the answer.
        ticket: u64,
    },
    /// Let a snapshot go. Others of the group may be read by others still.
    Release {
        /// The group.
        group: GroupId,
        /// Which.
        generation: u64,
    },
}

/// What the host did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Something is staged up to here: after [`Task::Begin`] and [`Task::Stage`].
    Staged {
        /// The task's.
        ticket: u64,
        /// How far; `None` if it was refused.
        staged: Option<Staged>,
    },
    /// After [`Task::Check`].
    Checked {
        /// The task's.
        ticket: u64,
        /// Whether it is what was described, and durable.
        sound: bool,
    },
    /// After [`Task::Read`].
    Read {
        /// The task's.
        ticket: u64,
        /// Content, and the cursor behind it unless it is the end; `None` if there is no such snapshot or place.
        lot: Option<(Vec<u8>, Option<Vec<u8>>)>,
    },
}

/// How far a snapshot is staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Where the next lot begins; `None` if all of it is there.
    pub cursor: Option<Vec<u8>>,
    /// Bytes that are there.
    pub bytes: u64,
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A frame's content for a peer, behind its kind, for the bulk lane.
    Send {
        /// The peer.
        to: NodeId,
        /// [`wire`].
        bytes: Vec<u8>,
    },
    /// For the host.
    Do(Task),
    /// A snapshot of this node is not held any more: the group must not offer it to others.
    Retract {
        /// The group.
        group: GroupId,
        /// Which.
        generation: u64,
    },
    /// A peer is getting on with a snapshot of this node.
    Progressed {
        /// The peer.
        to: NodeId,
        /// The group.
        group: GroupId,
    },
    /// A transfer that was begun by [`Transfers::fetch`] has ended.
    Fetched {
        /// The partition's place.
        at: usize,
        /// Its group.
        group: GroupId,
        /// The descriptor's generation.
        generation: u64,
        /// Whether the snapshot is here, checked and durable.
        here: bool,
    },
}

/// What a transfer does, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The group.
    pub group: GroupId,
    /// The other end.
    pub peer: NodeId,
    /// Which end this is.
    pub end: End,
    /// Bytes that are durable at the receiver, as far as is known here; of this run only, at the sender.
    pub bytes: u64,
    /// Of so many; 0 if unknown, at the sender.
    pub of: u64,
}

/// An end of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It gets the snapshot.
    Receiver,
    /// It has it.
    Sender,
}

/// All transfers of a node. See the module's text.
#[derive(Debug)]
pub struct Transfers {
    options: Options,
    rng: Rng,
    tickets: u64,
    receiving: BTreeMap<GroupId, Receiving>,
    sending: BTreeMap<(NodeId, GroupId), Sending>,
    offers: BTreeMap<GroupId, Offer>,
    /// The read that is under way: for whom, and its ticket.
    reading: Option<((NodeId, GroupId), u64)>,
    /// Who was read for last: the next in order is next.
    served: Option<(NodeId, GroupId)>,
    /// The next lot may be read from here on.
    free_at: Micros,
    effects: Vec<Effect>,
}

/// Snapshots of a group that this node's host holds.
#[derive(Debug)]
struct Offer {
    /// The last two.
    generations: [Option<u64>; 2],
    /// Offered or pulled then.
    last: Micros,
}

impl Transfers {
    /// None yet. `chance` tells runs apart: it must differ from life to life.
    ///
    /// # Panics
    /// If nothing may be sent at all.
    #[must_use]
    pub fn new(options: Options, chance: u64) -> Transfers {
        assert!(options.bytes_per_second > 0, "something can be sent");
        Transfers {
            options,
            rng: Rng::new(chance),
            tickets: 0,
            receiving: BTreeMap::new(),
            sending: BTreeMap::new(),
            offers: BTreeMap::new(),
            reading: None,
            served: None,
            free_at: Micros(0),
            effects: Vec::new(),
        }
    }

    /// The host holds a snapshot of `group` for whoever pulls it. It holds the last two of a group.
    pub fn offer(&mut self, now: Micros, group: GroupId, generation: u64) {
        let offer = self.offers.entry(group).or_insert(Offer { generations: [None; 2], last: now });
        offer.last = now;
        if !offer.generations.contains(&Some(generation)) {
            offer.generations = [offer.generations[1], Some(generation)];
        }
    }

    /// Gets the snapshot that `descriptor` describes from a peer, for the partition at `at`. It ends with
    /// [`Effect::Fetched`], unless another one of the group is asked for or the group forgotten before.
    pub fn fetch(&mut self, now: Micros, at: usize, group: GroupId, from: NodeId, descriptor: &Descriptor) {
        self.cancel(group);
        self.receiving.insert(group, Receiving::new(now, at, from, descriptor));
        self.start_receiving(now);
    }

    /// The replica of `group` is gone from this node, and what the engine had of it.
    pub fn forget(&mut self, now: Micros, group: GroupId) {
        self.cancel(group);
        self.offers.remove(&group);
        self.sending.retain(|(_, other), _| *other != group);
        self.start_receiving(now);
    }

    /// A frame of a peer, without its kind.
    ///
    /// # Errors
    /// It cannot be read; nothing has changed.
    pub fn take_frame(&mut self, now: Micros, from: NodeId, bytes: &[u8]) -> Result<(), DecodeError> {
        let (run, message) = wire::decode(bytes)?;
        match message {
            Message::Pull(cursor) => self.pulled(now, from, run, cursor),
            Message::Lot { number, next, content } => self.lot(now, from, run, number, next, content),
            Message::Taken(lots) => self.taken(now, from, run, lots),
            Message::Gone => self.gone(now, from, run),
            Message::Stop => self.stopped(from, run),
        }
        Ok(())
    }

    /// The host answers.
    pub fn report(&mut self, now: Micros, report: Report) {
        match report {
            Report::Staged { ticket, staged } => self.staged(now, ticket, staged),
            Report::Checked { ticket, sound } => self.checked(now, ticket, sound),
            Report::Read { ticket, lot } => self.read(now, ticket, lot),
        }
    }

    /// There is a new link to `peer`: what was on the way may be lost, so it is pulled again at once.
    pub fn peer_up(&mut self, now: Micros, peer: NodeId) {
        self.sending.retain(|(to, _), _| *to != peer);
        self.pull_anew(now, peer);
    }

    /// There is no link to `peer` any more.
    pub fn peer_down(&mut self, peer: NodeId) {
        self.sending.retain(|(to, _), _| *to != peer);
    }

    /// When [`Transfers::wake`] must next be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Micros> {
        let receiving = self.receiving.values().filter_map(Receiving::deadline);
        let sending = self.sending.values().map(Sending::deadline);
        let offers = self.offers.values().map(|offer| offer.last + OFFER_MICROS);
        let read = (self.reading.is_none() && self.next_reader().is_some()).then_some(self.free_at);
        receiving.chain(sending).chain(offers).chain(read).min()
    }

    /// A deadline has come.
    pub fn wake(&mut self, now: Micros) {
        self.receivers_wake(now);
        self.senders_wake(now);
        let idle = |(group, offer): (&GroupId, &Offer)| (offer.last + OFFER_MICROS <= now).then_some(*group);
        let idle: Vec<GroupId> = self.offers.iter().filter_map(idle).collect();
        for group in idle {
            let offer = self.offers.remove(&group);
            let generations = offer.into_iter().flat_map(|offer| offer.generations).flatten();
            for generation in generations {
                self.effects.push(Effect::Retract { group, generation });
                self.effects.push(Effect::Do(Task::Release { group, generation }));
            }
        }
    }

    /// Moves what came out to the end of `out`.
    pub fn take_effects(&mut self, out: &mut Vec<Effect>) {
        out.append(&mut self.effects);
    }

    /// All transfers that are under way, or wait to be.
    pub fn progress(&self) -> impl Iterator<Item = Progress> + '_ {
        let receiving = self.receiving.iter().map(|(&group, receiving)| receiving.progress(group));
        let sending = self.sending.iter().map(|(&(peer, group), sending)| sending.progress(peer, group));
        receiving.chain(sending)
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    fn send(&mut self, to: NodeId, run: Run, message: &Message<'_>) {
        let mut bytes = Vec::new();
        wire::encode(run, message, &mut bytes);
        self.effects.push(Effect::Send { to, bytes });
    }
}
