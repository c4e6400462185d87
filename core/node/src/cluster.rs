//! A node's part in a cluster: what its one worker is told of it, and what the host does for it.
//!
//! A clustered node has one worker. Its partitions are replicas that come and go while it runs; a place among them is
//! given to another replica only when the host has removed what was there. The host moves frames between nodes and does
//! [`Job`]s; everything that decides is in here.

pub(crate) mod arrive;
pub(crate) mod courier;
pub(crate) mod forward;
pub(crate) mod linked;

pub(crate) mod peers;
pub mod post;

pub(crate) mod seat;
pub(crate) mod thinking;
pub mod transfer;
pub(crate) mod view;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;

use consensus::codec::Descriptor;
use consensus::replay::Restored;
use consensus::{Durability, Incarnation, Logged, Mark, Members, ReplicaId};
use control::{ReadFrom, Reading};
use kernel::codec::{DecodeError, Reader, put_varint};
use kernel::{GroupId, Index, KeyspaceId, Lsn, Micros, NodeId, Rng, Term, WorkerId};
use placement::Partitions;
use storage::Store;
use storage::store::Policy;

use crate::cluster::courier::Post;
use crate::cluster::peers::Peers;

/// The first of the numbers that stand for other nodes: nodes have fewer workers.
pub const PEERS_FIRST: u16 = 0x4000;
/// Stands for whoever leads a partition while nobody is known to.
pub const NOBODY: WorkerId = WorkerId(u16::MAX);
/// What is answered when a command surely did not run, and will not.
pub const DOWN: &str =
    "CLUSTERDOWN no leader of this key's partition could be reached; the command was not run";
/// What is answered when nobody knows whether a command ran.
pub const UNKNOWN: &str = "UNKNOWN the leader of this key's partition changed or did not answer; whether the command was run is unknown";
/// What is answered to a command for a keyspace that was dropped: it was not run.
pub const DROPPED: &str = "ERR this keyspace was dropped; SELECT another one";
/// Clients that wait are answered so when their partition's leader changes; the text is Redis's.
pub const UNBLOCKED: &str =
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
/// How long commands whose fate is not decided wait for a leader, in milliseconds.
pub const UNDECIDED_MS_MAX: u64 = 5_000;

pub mod formation;
pub mod frames;
pub mod mind;

/// The first byte of a frame: what it is.
pub mod kind {
    /// Messages of groups.
    pub const CONSENSUS: u8 = 1;
    /// Membership.
    pub const SWIM: u8 = 2;
    /// Commands, answers and what else workers send each other.
    pub const PARCELS: u8 = 3;
    /// Requests to the control group, their answers, and reports.
    pub const CONTROL: u8 = 4;
    /// Parts of snapshots.
    pub const SNAPSHOT: u8 = 5;
    /// Which services there are. These are not the worker's: the host hands them to the registry.
    pub const SERVICES: u8 = 6;
    /// How far a member's proxy follows the cluster's settings. These are the host's, too.
    pub const MESH: u8 = 7;
}

/// Which of the two connections to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// What must not wait.
    Control,
    /// What is much.
    Bulk,
}

/// A frame for another node. Frames of one lane arrive in order, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Who gets it.
    pub to: NodeId,
    /// How.
    pub lane: Lane,
    /// A [`kind`] and what belongs to it.
    pub bytes: Vec<u8>,
}

/// What a clustered node begins with.
pub struct Start {
    /// Who it is.
    pub node: NodeId,
    /// Its life: durable, above every earlier one's.
    pub incarnation: Incarnation,
    /// Chance for stores. The same on all nodes: replicas draw the same from it.
    pub seed: u64,
    /// Chance for election timeouts: this node's own.
    pub chance: u64,
    /// What the disk has of partitions.
    pub kept: BTreeMap<GroupId, Kept>,
}

/// What the disk has of one replica.
pub struct Kept {
    /// Which it is.
    pub replica: ReplicaId,
    /// Its state, as the last checkpoint has it.
    pub store: Store,
    /// What its group knows of it.
    pub past: Past,
}

/// How far a replica had come.
#[derive(Debug)]
pub enum Past {
    /// It has a checkpoint and what the log says behind it.
    Restored(Box<Restored>),
    /// It was added and has nothing but a term and a vote yet.
    Joining {
        /// These.
        hard: (Term, Option<ReplicaId>),
    },
}

/// The chance of a group's store, which all its replicas share, out of [`Start::seed`].
#[must_use]
pub fn store_seed(seed: u64, group: GroupId) -> u64 {
    Rng::new(seed).fork(u64::from(group.0)).next_u64()
}

/// What a checkpoint says of a replicated group besides its objects: which replica's they are, and its mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Whose disk this is. A replica that was removed and added again is another one.
    pub replica: ReplicaId,
    /// Index, term and members; none as long as a replica that was added has got nothing.
    pub mark: Option<Mark>,
}

impl Holding {
    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.replica.get());
        out.push(u8::from(self.mark.is_some()));
        if let Some(mark) = &self.mark {
            mark.encode(out);
        }
    }

    /// Reads what [`Holding::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if it is none.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Holding, DecodeError> {
        let replica = ReplicaId::new(reader.varint()?).ok_or(DecodeError::Invalid)?;
        let mark = match reader.u8()? {
            0 => None,
            1 => Some(Mark::decode(reader)?),
            _ => return Err(DecodeError::Invalid),
        };
        Ok(Holding { replica, mark })
    }
}

/// A replica that a node is to have.
#[derive(Clone, Debug)]
pub struct Seating {
    /// Of which group.
    pub group: GroupId,
    /// Its number there.
    pub replica: ReplicaId,
    /// The group's members and where they are, as the placement has them; itself among them.
    pub nodes: Vec<(NodeId, ReplicaId)>,
    /// The members that the group began with, if it is one of them; else it begins with nothing.
    pub founders: Option<Members>,
    /// The partition's epoch.
    pub epoch: u64,
    /// When its entries count.
    pub durability: Durability,
    /// Into how many partitions its keyspace is divided.
    pub partitions: Partitions,
    /// What happens at the memory budget.
    pub policy: Policy,
    /// Bytes of memory that its entries may take.
    pub memory: Option<usize>,
}

/// What the host must do for the cluster. What has no answer in [`Done`] needs none.
#[derive(Debug)]
pub enum Job {
    /// Have a link to a node.
    Link {
        /// Which.
        node: NodeId,
        /// Where it listens.
        addresses: Vec<SocketAddr>,
    },
    /// Have none any more.
    Unlink {
        /// To this one.
        node: NodeId,
    },
    /// A partition came: checkpoints of it begin.
    Added {
        /// Its place.
        at: usize,
        /// Its group.
        group: GroupId,
        /// What its checkpoints say of the group until they can say more.
        holding: Holding,
        /// The engine must forget what it has of the group, and hold this durably, before [`Done::Added`].
        fresh: bool,
    },
    /// A partition went: its data is to be deleted durably. Then [`Done::Removed`].
    Removed {
        /// Its place.
        at: usize,
        /// Its group.
        group: GroupId,
    },
    /// Checkpoint the control group. Then [`Done::ControlPersisted`].
    PersistControl {
        /// Its mark.
        holding: Holding,
        /// Its state.
        state: Vec<u8>,
    },
    /// Make a snapshot for followers and keep it. Then [`Done::Made`].
    MakeSnapshot {
        /// Of this partition.
        at: usize,
    },
    /// Get a leader's snapshot, keep it aside, durable and checked. Then [`Done::Fetched`].
    FetchSnapshot {
        /// For this partition.
        at: usize,
        /// Its group.
        group: GroupId,
        /// Who has it.
        from: NodeId,
        /// What it is.
        descriptor: Descriptor,
    },
    /// A step of a snapshot's transfer, in the order in which they are asked for. Then [`Done::Transferred`], if it has a
    /// ticket. Only if the worker moves snapshots; then there is no [`Job::FetchSnapshot`].
    Transfer(transfer::Task),
    /// Switch to a snapshot that was fetched, in one durable step, and load it. Then [`Done::Installed`].
    Install {
        /// In this partition.
        at: usize,
        /// Its group.
        group: GroupId,
        /// Which.
        descriptor: Descriptor,
        /// What checkpoints say of the group from now on.
        holding: Holding,
    },
    /// Read old entries from the node's log. Then [`Done::Entries`].
    ReadEntries {
        /// Of this partition.
        at: usize,
        /// Its group.
        group: GroupId,
        /// The first.
        first: Index,
        /// The last that is wanted; fewer will do.
        last: Index,
    },
    /// Keep this number: the next life's is above it.
    Incarnation(u64),
}

/// What the host did.
pub enum Done {
    /// See [`Job::Added`].
    Added {
        /// Its place.
        at: usize,
    },
    /// See [`Job::Removed`].
    Removed {
        /// Its place.
        at: usize,
    },
    /// See [`Job::PersistControl`].
    ControlPersisted {
        /// The mark's index.
        index: Index,
    },
    /// See [`Job::MakeSnapshot`].
    Made {
        /// Its place.
        at: usize,
        /// What it is; none if there is none, and it is asked for again when a follower needs it.
        descriptor: Option<Descriptor>,
    },
    /// See [`Job::FetchSnapshot`].
    Fetched {
        /// Its place.
        at: usize,
        /// Which.
        generation: u64,
        /// Whether it is here.
        here: bool,
    },
    /// See [`Job::Transfer`].
    Transferred(transfer::Report),
    /// See [`Job::Install`].
    Installed {
        /// Its place.
        at: usize,
        /// The state.
        store: Box<Store>,
    },
    /// See [`Job::ReadEntries`].
    Entries {
        /// Its place.
        at: usize,
        /// The last that was asked for.
        last: Index,
        /// Entries without a hole, from the first; none if they are gone: then followers get a snapshot.
        entries: Vec<Logged>,
    },
}

/// Frames that were not taken, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Not understood.
    pub malformed: u64,
    /// Of a kind that this version does not know.
    pub unknown: u64,
    /// For a group that has no replica here.
    pub homeless: u64,
    /// From a node that does not have the replica which it claims to speak for.
    pub impostor: u64,
    /// Refused by the replica.
    pub refused: u64,
    /// Committed entries that this version cannot read: each stopped its replica.
    pub unreadable: u64,
}

/// The first replica of a group, and what is to be durable of it. Its group may have been here before, if a keyspace was
/// dropped whose number another one has now: the log must say first that nothing of that counts.
#[derive(Debug)]
pub(crate) struct Opening {
    pub at: usize,
    pub group: GroupId,
    pub replica: ReplicaId,
    pub mark: Mark,
}

/// What a worker keeps of its cluster.
pub(crate) struct Cluster {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub seed: u64,
    pub chance: u64,
    pub kept: BTreeMap<GroupId, Kept>,
    pub peers: Peers,
    pub post: Post,
    /// Founders whose group is to begin in the log before the disk knows of them.
    pub openings: Vec<Opening>,
    /// What the host is asked once the log is synced up to there.
    pub opened: VecDeque<(Lsn, Job)>,
    /// Where each group's replica is.
    pub groups: BTreeMap<GroupId, usize>,
    /// Replicas that have something to do in this turn, each once.
    pub busy: Vec<usize>,
    /// Replicas that have written what is not synced, each once.
    pub unsynced: Vec<usize>,
    pub timers: BTreeSet<(Micros, usize)>,
    /// Places without a replica that the host has cleaned.
    pub vacant: Vec<usize>,
    /// How copies are read, once the cluster's version can tell how old they are.
    pub reading: BTreeMap<KeyspaceId, Reading>,
    /// Snapshots on their way, unless the host moves them.
    pub transfers: Option<Box<transfer::Transfers>>,
    pub frames: Vec<Outgoing>,
    pub jobs: Vec<Job>,
    pub dropped: Dropped,
    /// The node's part in the control group.
    pub thinking: Option<Box<thinking::Thinking>>,
}

impl Cluster {
    pub fn new(start: Start) -> Cluster {
        let Start { node, incarnation, seed, chance, kept } = start;
        Cluster {
            node,
            incarnation,
            seed,
            chance,
            kept,
            peers: Peers::default(),
            post: Post::default(),
            openings: Vec::new(),
            opened: VecDeque::new(),
            groups: BTreeMap::new(),
            busy: Vec::new(),
            unsynced: Vec::new(),
            timers: BTreeSet::new(),
            vacant: Vec::new(),
            reading: BTreeMap::new(),
            transfers: None,
            frames: Vec::new(),
            jobs: Vec::new(),
            dropped: Dropped::default(),
            thinking: None,
        }
    }

    /// Whether leaders of a keyspace's partitions answer reads by lease.
    pub fn uses_leases(&self, db: KeyspaceId) -> bool {
        self.reading.get(&db).is_some_and(|reading| reading.from == ReadFrom::Lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holding_reads_back() {
        let replica = ReplicaId::new(7).expect("a number");
        let members = Members::new([replica], []).expect("sound");
        for mark in [None, Some(Mark::first(members))] {
            let holding = Holding { replica, mark };
            let mut bytes = Vec::new();
            holding.encode(&mut bytes);
            assert_eq!(Holding::decode(&mut Reader::new(&bytes)), Ok(holding));
            assert!(Holding::decode(&mut Reader::new(&bytes[..bytes.len() - 1])).is_err());
        }
    }
}
