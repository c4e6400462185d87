//! The desired state itself, without what changes it.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use consensus::{Durability, Members, ReplicaId, Role};
use kernel::{ClusterId, GroupId, KeyspaceId, Millis, NodeId, TokenId, Version};
use placement::Partitions;
use storage::store::Policy;

use crate::mesh::Revision;
use crate::{NAME_BYTES_MAX, OperationId};

/// SHA-256 of a state's bytes: equal states, equal digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

/// The name of a zone, keyspace, user or actor.
///
/// Invariant: 1 to [`NAME_BYTES_MAX`] bytes, no control characters and no blanks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// `text` as a name; none if it is empty, too long, or has blanks or control characters.
    #[must_use]
    pub fn new(text: &str) -> Option<Name> {
        let sound = !text.is_empty()
            && text.len() <= NAME_BYTES_MAX
            && !text.chars().any(|letter| letter.is_control() || letter.is_whitespace());
        sound.then(|| Name(text.to_string()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a member is in its life. It goes forward only, except that who leaves may stay after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was let in and is not up to date yet; it gets no partitions.
    Joining,
    /// It keeps partitions.
    Active,
    /// Its partitions move away.
    Leaving,
    /// It is none any more and never will be again.
    Removed {
        /// Since when.
        at: Millis,
    },
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standing::Joining => "joining",
            Standing::Active => "active",
            Standing::Leaving => "leaving",
            Standing::Removed { .. } => "removed",
        })
    }
}

/// A node of the cluster, or one that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its replica of the control group.
    pub replica: ReplicaId,
    /// What burns down with it.
    pub zone: Name,
    /// Where it listens for links; 1 to [`crate::ADDRESSES_MAX`], none once it is removed.
    pub addresses: Vec<SocketAddr>,
    /// Where it is in its life.
    pub standing: Standing,
    /// What it does in the control group; `Gone` once it is removed.
    pub role: Role,
}

impl Member {
    /// Whether it may be talked to.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        !matches!(self.standing, Standing::Removed { .. })
    }
}

/// What lets one node in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinSecret {
    /// SHA-256 of the secret; who checks a newcomer's proof has the secret itself.
    pub hash: [u8; 32],
    /// From this moment on it lets nobody in.
    pub expires: Millis,
    /// Whom it has let in.
    pub used: Option<NodeId>,
}

/// How a keyspace's copies agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One leader for each partition: linearizable.
    Primary,
    /// Every copy takes writes and they are merged.
    Multi,
    /// Reads and writes at enough copies.
    Quorum,
}

/// Which copies answer reads that no client asked the leader for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The leader, who asks a majority: reads are linearizable, unless a client says READONLY.
    #[default]
    Leader,
    /// The leader, by its lease where it has one: as linearizable, while no member's clock runs more than twice as fast as
    /// another's.
    Lease,
    /// Any copy, for all clients.
    Any,
}

/// How a keyspace's copies are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which copies answer.
    pub from: ReadFrom,
    /// A copy that does not lead answers only if it knows that it is at most so far behind, in milliseconds; at any age
    /// if it is 0.
    pub stale_ms_max: u32,
}

impl Default for Reading {
    fn default() -> Reading {
        Reading { from: ReadFrom::Leader, stale_ms_max: crate::STALE_MS_MAX }
    }
}

/// What a keyspace's owner sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What it is called; unique.
    pub name: Name,
    /// How copies agree. Never changes.
    pub mode: Mode,
    /// Copies that are promised, as far as there are members; 1 to [`placement::solve::COPIES_MAX`].
    pub copies: u8,
    /// When a write counts.
    pub durability: Durability,
    /// How many partitions. Never changes.
    pub partitions: Partitions,
    /// Bytes that it may use on each node; 0 for no limit.
    pub memory: u64,
    /// What happens at that limit.
    pub eviction: Policy,
    /// How its copies are read. Anything but the default needs a cluster at version 3.
    pub reading: Reading,
}

impl Settings {
    /// The version that a cluster must be at for these settings.
    #[must_use]
    pub fn needs(&self) -> Version {
        if self.reading == Reading::default() { Version(2) } else { Version(3) }
    }
}

/// One copy of a partition. Its number is never given again, to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Who keeps it.
    pub node: NodeId,
    /// Its number in the partition's group.
    pub id: ReplicaId,
}

/// What is being changed about a partition's copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// `new` gets the data and does not count yet. Then `old` goes.
    Learning {
        /// The copy that is made.
        new: Replica,
        /// Whose copy it replaces; nobody's if there were too few.
        old: Option<NodeId>,
    },
    /// All others count, so `old` may go.
    Removing {
        /// Whose copy goes.
        old: NodeId,
    },
    /// `old` counts no more. Its group may need its vote until it has let it go, so it goes on until then.
    Releasing {
        /// The copy that goes.
        old: Replica,
    },
}

/// Who keeps a partition, and who should.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// The copies that count, the preferred leader first; none before it is placed.
    pub replicas: Vec<Replica>,
    /// Who should keep it, the preferred leader first.
    pub wanted: Vec<NodeId>,
    /// What is being changed.
    pub moving: Option<Move>,
    /// One more with each change of the above, except of `wanted` alone.
    pub epoch: u64,
    /// The first number and the count of the copies that the group began with.
    pub(crate) founders: (u64, u8),
}

impl Partition {
    /// The copy of `node` that counts.
    #[must_use]
    pub fn replica(&self, node: NodeId) -> Option<Replica> {
        self.replicas.iter().copied().find(|replica| replica.node == node)
    }

    /// All copies with their roles: members that the group should have now.
    pub fn members(&self) -> impl Iterator<Item = (Replica, Role)> + '_ {
        let learner = match self.moving {
            Some(Move::Learning { new, .. }) => Some((new, Role::Learner)),
            Some(Move::Removing { .. } | Move::Releasing { .. }) | None => None,
        };
        self.replicas.iter().map(|&replica| (replica, Role::Voter)).chain(learner)
    }

    /// The copy that is no member that the group should have, and goes on until the group has let it go.
    #[must_use]
    pub fn released(&self) -> Option<Replica> {
        match self.moving {
            Some(Move::Releasing { old }) => Some(old),
            Some(Move::Learning { .. } | Move::Removing { .. }) | None => None,
        }
    }

    /// The members that its group began with, the same on all of them; none before it is placed.
    #[must_use]
    pub fn founders(&self) -> Option<Members> {
        let (first, count) = self.founders;
        let ids = (first..first.saturating_add(u64::from(count))).filter_map(ReplicaId::new);
        Members::new(ids, []).ok()
    }

    /// Puts the wanted leader first, if it has a copy that counts.
    pub(crate) fn prefer(&mut self) {
        let leader = self.wanted.first();
        if let Some(at) = self.replicas.iter().position(|replica| Some(&replica.node) == leader) {
            self.replicas[..=at].rotate_right(1);
        }
    }
}

/// A keyspace and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyspace {
    /// What its owner sets.
    pub settings: Settings,
    /// Its partitions, as many as the settings say.
    pub partitions: Vec<Partition>,
}

/// What a user may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Read data.
    pub read: bool,
    /// Change data.
    pub write: bool,
    /// Change the cluster.
    pub admin: bool,
    /// Where reading and changing data is allowed; everywhere if none.
    pub keyspaces: Option<BTreeSet<KeyspaceId>>,
}

/// Somebody who logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// SHA-256 of the password.
    pub password: [u8; 32],
    /// What they may do.
    pub rights: Rights,
}

/// What an accepted request did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The state's version after it.
    pub version: u64,
    /// The replica that it made: a new member's in the control group, or a partition's new copy.
    pub replica: Option<ReplicaId>,
}

/// A line of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Which request.
    pub id: OperationId,
    /// Who asked.
    pub by: Name,
    /// When, by the clock of who proposed it, never before the line above.
    pub at: Millis,
    /// What was asked.
    pub what: String,
    /// What came of it; why it was refused.
    pub result: Result<Outcome, String>,
}

/// What the cluster should be.
///
/// Invariant: every member, replica and move names a known node, replica numbers are below the next one, and every
/// table is within its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub(crate) speaks: Version,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) version: u64,
    pub(crate) now: Millis,
    pub(crate) next_replica: u64,
    pub(crate) members: BTreeMap<NodeId, Member>,
    pub(crate) secrets: BTreeMap<TokenId, JoinSecret>,
    pub(crate) keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    pub(crate) users: BTreeMap<Name, User>,
    pub(crate) audit: VecDeque<Audit>,
    /// The last ones of the proxies' settings, the oldest first. Shared, since states are cloned and these are large.
    pub(crate) revisions: VecDeque<Arc<Revision>>,
}

impl Default for State {
    fn default() -> State {
        State::new()
    }
}

impl State {
    /// No cluster yet.
    #[must_use]
    pub const fn new() -> State {
        State {
            speaks: Version::OLDEST,
            cluster: None,
            version: 0,
            now: Millis(0),
            next_replica: 1,
            members: BTreeMap::new(),
            secrets: BTreeMap::new(),
            keyspaces: BTreeMap::new(),
            users: BTreeMap::new(),
            audit: VecDeque::new(),
            revisions: VecDeque::new(),
        }
    }

    /// No cluster yet; the one that is made of it begins at `version`.
    #[must_use]
    pub fn beginning_at(version: Version) -> State {
        State { speaks: version, ..State::new() }
    }

    /// The version that the cluster is at: of its formats, not of what it says. It never falls.
    #[must_use]
    pub const fn speaks(&self) -> Version {
        self.speaks
    }

    /// Which cluster, once it was made.
    #[must_use]
    pub const fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Requests that were accepted and changed something.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The group's time: that of the latest request.
    #[must_use]
    pub const fn now(&self) -> Millis {
        self.now
    }

    /// All members, removed ones too.
    #[must_use]
    pub const fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// The join secrets.
    #[must_use]
    pub const fn secrets(&self) -> &BTreeMap<TokenId, JoinSecret> {
        &self.secrets
    }

    /// The keyspaces and their partitions.
    #[must_use]
    pub const fn keyspaces(&self) -> &BTreeMap<KeyspaceId, Keyspace> {
        &self.keyspaces
    }

    /// The users.
    #[must_use]
    pub const fn users(&self) -> &BTreeMap<Name, User> {
        &self.users
    }

    /// The last [`crate::AUDIT_MAX`] requests, the oldest first.
    #[must_use]
    pub const fn audit(&self) -> &VecDeque<Audit> {
        &self.audit
    }

    /// The last revisions of the proxies' settings, at most [`crate::mesh::REVISIONS_MAX`], the oldest first.
    #[must_use]
    pub const fn revisions(&self) -> &VecDeque<Arc<Revision>> {
        &self.revisions
    }

    /// The revision in force; none as long as nothing was asked of the proxies.
    #[must_use]
    pub fn revision(&self) -> Option<&Arc<Revision>> {
        self.revisions.back()
    }

    /// The number of the revision in force; 0 if there is none.
    #[must_use]
    pub fn revision_number(&self) -> u64 {
        self.revision().map_or(0, |one| one.number)
    }

    /// The partition that this group keeps.
    #[must_use]
    pub fn partition(&self, group: GroupId) -> Option<&Partition> {
        self.keyspaces.get(&group.keyspace())?.partitions.get(usize::from(group.partition()))
    }

    /// All partitions with their groups.
    pub fn partitions(&self) -> impl Iterator<Item = (GroupId, &Partition)> + '_ {
        self.keyspaces.iter().flat_map(|(&keyspace, space)| {
            (0..).zip(&space.partitions).map(move |(at, partition)| (GroupId::new(keyspace, at), partition))
        })
    }

    /// Whether this number was given to a replica by now. One that was and is named nowhere is no more, for ever.
    #[must_use]
    pub const fn was_given(&self, replica: ReplicaId) -> bool {
        replica.get() < self.next_replica
    }

    /// Members that keep partitions.
    pub fn active(&self) -> impl Iterator<Item = (NodeId, &Member)> + '_ {
        self.members
            .iter()
            .filter(|(_, member)| member.standing == Standing::Active)
            .map(|(&node, it)| (node, it))
    }

    /// Who votes in the control group.
    #[must_use]
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.members.iter().filter(|(_, member)| member.role == Role::Voter).map(|(&node, _)| node).collect()
    }

    /// Copies of each partition of a keyspace that promises `copies`: as many as there are active members if those
    /// are fewer, and at least one.
    #[must_use]
    pub fn promised(&self, copies: u8) -> usize {
        usize::from(copies).min(self.active().count()).max(1)
    }

    /// Partitions of which `node` has a copy in any role, one that goes included.
    pub fn kept_by(&self, node: NodeId) -> impl Iterator<Item = (GroupId, &Partition)> + '_ {
        let keeps = move |it: &Partition| {
            let all = it.members().map(|(replica, _)| replica).chain(it.released());
            all.into_iter().any(|replica| replica.node == node)
        };
        self.partitions().filter(move |(_, it)| keeps(it))
    }
}
