//! Requests and whole states as bytes: entries of the control group, and its snapshots.
//!
//! Both begin with the version of the format: a state with that of the cluster, a request with the oldest that has words
//! for it. States of all versions from [`Version::OLDEST`] to [`Version::NEWEST`] are read, and requests of all up to
//! [`Version::NEWEST`]. Every count is checked against its limit before memory is taken.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;

use consensus::{Durability, ReplicaId, Role};
use kernel::codec::{DecodeError, Reader, put_address, put_bytes, put_varint};
use kernel::{ClusterId, GroupId, KeyspaceId, Millis, NodeId, TokenId, Version};
use placement::Partitions;
use placement::solve::COPIES_MAX;
use sha2::{Digest as _, Sha256};
use storage::store::Policy;

use crate::operation::{OperationId, Request};
use crate::state::{
    Audit, Digest, JoinSecret, Keyspace, Member, Mode, Move, Name, Outcome, Partition, ReadFrom, Reading,
    Replica, Rights, Settings, Standing, State, User,
};
use crate::{
    ADDRESSES_MAX, AUDIT_MAX, AUDIT_TEXT_BYTES_MAX, KEYSPACES_MAX, MEMBERS_MAX, NAME_BYTES_MAX,
    PARTITIONS_MAX, REQUEST_BYTES_MAX, RIGHTS_KEYSPACES_MAX, SECRETS_MAX, TOMBSTONES_MAX, USERS_MAX,
};

mod mesh;
mod operation;
mod roster;
mod version;

pub use version::{FORMAT, version_of};
use version::{byte, known};

type Read<T> = Result<T, DecodeError>;

impl Request {
    /// Its bytes; an entry of the control group.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from([byte(self.operation.needs())]);
        out.extend(self.id.0);
        self.by.put(&mut out);
        put_varint(&mut out, self.at.0);
        self.operation.put(&mut out);
        out
    }

    /// Reads what [`Request::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are more than [`REQUEST_BYTES_MAX`], of a newer version, or no request.
    pub fn decode(bytes: &[u8]) -> Read<Request> {
        Request::decode_up_to(bytes, Version::NEWEST)
    }

    /// By a node whose newest version is `newest`. There is no oldest one: what needs no new words is written as the first
    /// version wrote it, by whoever writes it, for ever.
    fn decode_up_to(bytes: &[u8], newest: Version) -> Read<Request> {
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(DecodeError::Overflow);
        }
        let version = version_of(bytes).filter(|version| *version <= newest).ok_or(DecodeError::Invalid)?;
        let request = whole(bytes, version, |reader| {
            Ok(Request {
                id: OperationId(reader.array()?),
                by: Name::get(reader)?,
                at: Millis(reader.varint()?),
                operation: Coded::get(reader)?,
            })
        })?;
        // There is one encoding of each.
        if request.operation.needs() == version { Ok(request) } else { Err(DecodeError::Invalid) }
    }
}

impl State {
    /// Its bytes, as the cluster's version writes them; a snapshot of the control group. Equal states have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from([byte(self.speaks)]);
        self.cluster.put(&mut out);
        for number in [self.version, self.now.0, self.next_replica] {
            put_varint(&mut out, number);
        }
        put_map(&self.members, &mut out);
        put_map(&self.secrets, &mut out);
        put_map(&self.users, &mut out);
        put_varint(&mut out, self.audit.len() as u64);
        self.audit.iter().for_each(|line| line.put(&mut out));
        put_varint(&mut out, self.keyspaces.len() as u64);
        for (keyspace, space) in &self.keyspaces {
            keyspace.put(&mut out);
            space.settings.put(&mut out);
            space.settings.reading.put(&mut out);
            space.partitions.iter().for_each(|partition| partition.put(&mut out));
        }
        if self.speaks >= Version(4) {
            mesh::put_revisions(&self.revisions, &mut out);
        }
        out
    }

    /// Reads what [`State::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are of another version, or no state whose parts fit each other.
    pub fn decode(bytes: &[u8]) -> Read<State> {
        let speaks = known(bytes)?;
        let state = whole(bytes, speaks, |reader| {
            let cluster = Coded::get(reader)?;
            let (version, now, next_replica) = (reader.varint()?, reader.varint()?, reader.varint()?);
            let members = get_map(reader, MEMBERS_MAX + TOMBSTONES_MAX)?;
            let secrets = get_map(reader, SECRETS_MAX)?;
            let users = get_map(reader, USERS_MAX)?;
            let audit = VecDeque::from(get_list(reader, AUDIT_MAX)?);
            let keyspaces = get_keyspaces(reader)?;
            let revisions = if speaks >= Version(4) { mesh::get_revisions(reader)? } else { VecDeque::new() };
            let now = Millis(now);
            Ok(State {
                speaks,
                cluster,
                version,
                now,
                next_replica,
                members,
                secrets,
                keyspaces,
                users,
                audit,
                revisions,
            })
        })?;
        if state.is_sound() { Ok(state) } else { Err(DecodeError::Invalid) }
    }

    /// What replicas compare.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(Sha256::digest(self.encode()).into())
    }

    /// Whether what is named exists, and numbers were given.
    fn is_sound(&self) -> bool {
        let given = |replica: ReplicaId| replica.get() < self.next_replica;
        let known = |node: &NodeId| self.members.contains_key(node);
        let mut seen = BTreeSet::new();
        let mut once =
            |replica: Replica| known(&replica.node) && given(replica.id) && seen.insert(replica.id);
        let members = self.members.values().all(|member| given(member.replica));
        members
            && self.revisions.iter().all(|revision| revision.version <= self.version)
            && (1..=consensus::members::NUMBER_MAX).contains(&self.next_replica)
            && self.partitions().all(|(_, partition)| {
                let mut copies = partition.members().map(|(replica, _)| replica).chain(partition.released());
                copies.all(&mut once) && partition.wanted.iter().all(known)
            })
    }
}

fn get_keyspaces(reader: &mut Reader<'_>) -> Read<BTreeMap<KeyspaceId, Keyspace>> {
    let (mut keyspaces, mut total) = (BTreeMap::new(), 0);
    for _ in 0..bounded(reader, KEYSPACES_MAX)? {
        let (keyspace, mut settings) = (KeyspaceId::get(reader)?, Settings::get(reader)?);
        settings.reading = Reading::get(reader)?;
        if keyspaces.last_key_value().is_some_and(|(last, _)| *last >= keyspace) {
            return Err(DecodeError::Invalid);
        }
        total += usize::from(settings.partitions.count());
        if total > PARTITIONS_MAX {
            return Err(DecodeError::Overflow);
        }
        // No more memory at once than the bytes can fill: a partition has at least one.
        let mut partitions = Vec::new();
        for _ in 0..settings.partitions.count() {
            partitions.push(Partition::get(reader)?);
        }
        keyspaces.insert(keyspace, Keyspace { settings, partitions });
    }
    Ok(keyspaces)
}

/// All of `bytes`, behind the byte of `version`.
fn whole<T>(bytes: &[u8], version: Version, read: impl FnOnce(&mut Reader<'_>) -> Read<T>) -> Read<T> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != byte(version) {
        return Err(DecodeError::Invalid);
    }
    let value = read(&mut reader)?;
    if reader.is_empty() { Ok(value) } else { Err(DecodeError::Invalid) }
}

/// A count of at most `max`.
fn bounded(reader: &mut Reader<'_>, max: usize) -> Read<usize> {
    match reader.len()? {
        count if count <= max => Ok(count),
        _ => Err(DecodeError::Overflow),
    }
}

fn put_list<T: Coded>(list: &[T], out: &mut Vec<u8>) {
    put_varint(out, list.len() as u64);
    list.iter().for_each(|it| it.put(out));
}

fn get_list<T: Coded>(reader: &mut Reader<'_>, max: usize) -> Read<Vec<T>> {
    (0..bounded(reader, max)?).map(|_| T::get(reader)).collect()
}

fn put_set<T: Coded>(set: &BTreeSet<T>, out: &mut Vec<u8>) {
    put_varint(out, set.len() as u64);
    set.iter().for_each(|it| it.put(out));
}

/// A set in its order, so that there is one encoding of each.
fn get_set<T: Coded + Ord>(reader: &mut Reader<'_>, max: usize) -> Read<BTreeSet<T>> {
    let list: Vec<T> = get_list(reader, max)?;
    if list.is_sorted_by(|one, next| one < next) {
        Ok(list.into_iter().collect())
    } else {
        Err(DecodeError::Invalid)
    }
}

fn put_map<K: Coded, V: Coded>(map: &BTreeMap<K, V>, out: &mut Vec<u8>) {
    put_varint(out, map.len() as u64);
    for (key, value) in map {
        key.put(out);
        value.put(out);
    }
}

fn get_map<K: Coded + Ord, V: Coded>(reader: &mut Reader<'_>, max: usize) -> Read<BTreeMap<K, V>> {
    let mut map = BTreeMap::new();
    for _ in 0..bounded(reader, max)? {
        let (key, value) = (K::get(reader)?, V::get(reader)?);
        if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(DecodeError::Invalid);
        }
        map.insert(key, value);
    }
    Ok(map)
}

/// What has one form in bytes.
trait Coded: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(reader: &mut Reader<'_>) -> Read<Self>;
}

macro_rules! arrays {
    ($($name:ident),*) => { $(impl Coded for $name {
        fn put(&self, out: &mut Vec<u8>) {
            out.extend(self.0);
        }
        fn get(reader: &mut Reader<'_>) -> Read<Self> {
            reader.array().map($name)
        }
    })* };
}
arrays!(NodeId, ClusterId, TokenId);

/// Enums without data: each value's byte, for ever.
macro_rules! tags {
    ($($name:ident { $($value:ident = $tag:literal),* })*) => { $(impl Coded for $name {
        fn put(&self, out: &mut Vec<u8>) {
            out.push(match self { $($name::$value => $tag,)* });
        }
        fn get(reader: &mut Reader<'_>) -> Read<Self> {
            match reader.u8()? {
                $($tag => Ok($name::$value),)*
                _ => Err(DecodeError::Invalid),
            }
        }
    })* };
}
tags! {
    Mode { Primary = 0, Multi = 1, Quorum = 2 }
    Durability { Always = 0, EverySec = 1 }
    Role { Voter = 0, Learner = 1, Gone = 2 }
    ReadFrom { Leader = 0, Any = 1, Lease = 2 }
    Policy {
        NoEviction = 0, AllKeysLru = 1, AllKeysLfu = 2, AllKeysRandom = 3, VolatileLru = 4, VolatileLfu = 5,
        VolatileRandom = 6, VolatileTtl = 7
    }
}

impl<T: Coded> Coded for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        self.iter().for_each(|it| it.put(out));
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        match reader.u8()? {
            0 => Ok(None),
            1 => T::get(reader).map(Some),
            _ => Err(DecodeError::Invalid),
        }
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_bytes(out, text.as_bytes());
}

fn get_text<'a>(reader: &mut Reader<'a>, max: usize) -> Read<&'a str> {
    let bytes = reader.bytes()?;
    if bytes.len() > max {
        return Err(DecodeError::Overflow);
    }
    core::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid)
}

impl Coded for Name {
    fn put(&self, out: &mut Vec<u8>) {
        put_text(self.as_str(), out);
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        Name::new(get_text(reader, NAME_BYTES_MAX)?).ok_or(DecodeError::Invalid)
    }
}

impl Coded for KeyspaceId {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.0.to_le_bytes());
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        reader.u16().map(KeyspaceId)
    }
}

impl Coded for GroupId {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.0.to_le_bytes());
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        reader.u32().map(GroupId)
    }
}

impl Coded for Millis {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0);
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        reader.varint().map(Millis)
    }
}

impl Coded for ReplicaId {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.get());
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        ReplicaId::new(reader.varint()?).ok_or(DecodeError::Invalid)
    }
}

impl Coded for SocketAddr {
    fn put(&self, out: &mut Vec<u8>) {
        put_address(out, *self);
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        reader.address()
    }
}

impl Coded for Standing {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Standing::Joining => out.push(0),
            Standing::Active => out.push(1),
            Standing::Leaving => out.push(2),
            Standing::Removed { at } => {
                out.push(3);
                at.put(out);
            }
        }
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(match reader.u8()? {
            0 => Standing::Joining,
            1 => Standing::Active,
            2 => Standing::Leaving,
            3 => Standing::Removed { at: Coded::get(reader)? },
            _ => return Err(DecodeError::Invalid),
        })
    }
}

impl Coded for Member {
    fn put(&self, out: &mut Vec<u8>) {
        self.replica.put(out);
        self.zone.put(out);
        put_list(&self.addresses, out);
        self.standing.put(out);
        self.role.put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(Member {
            replica: Coded::get(reader)?,
            zone: Coded::get(reader)?,
            addresses: get_list(reader, ADDRESSES_MAX)?,
            standing: Coded::get(reader)?,
            role: Coded::get(reader)?,
        })
    }
}

impl Coded for JoinSecret {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.hash);
        self.expires.put(out);
        self.used.put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(JoinSecret { hash: reader.array()?, expires: Coded::get(reader)?, used: Coded::get(reader)? })
    }
}

impl Coded for Reading {
    fn put(&self, out: &mut Vec<u8>) {
        self.from.put(out);
        out.extend(self.stale_ms_max.to_le_bytes());
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(Reading { from: Coded::get(reader)?, stale_ms_max: reader.u32()? })
    }
}

/// As version 2 writes them: without what came later, which follows where it is said.
impl Coded for Settings {
    fn put(&self, out: &mut Vec<u8>) {
        self.name.put(out);
        self.mode.put(out);
        out.push(self.copies);
        self.durability.put(out);
        out.extend(self.partitions.count().to_le_bytes());
        put_varint(out, self.memory);
        self.eviction.put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(Settings {
            name: Coded::get(reader)?,
            mode: Coded::get(reader)?,
            copies: reader.u8()?,
            durability: Coded::get(reader)?,
            partitions: Partitions::new(reader.u16()?).map_err(|_| DecodeError::Overflow)?,
            memory: reader.varint()?,
            eviction: Coded::get(reader)?,
            reading: Reading::default(),
        })
    }
}

impl Coded for Replica {
    fn put(&self, out: &mut Vec<u8>) {
        self.node.put(out);
        self.id.put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(Replica { node: Coded::get(reader)?, id: Coded::get(reader)? })
    }
}

impl Coded for Move {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Move::Learning { new, old } => {
                out.push(0);
                new.put(out);
                old.put(out);
            }
            Move::Removing { old } => {
                out.push(1);
                old.put(out);
            }
            Move::Releasing { old } => {
                out.push(2);
                old.put(out);
            }
        }
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(match reader.u8()? {
            0 => Move::Learning { new: Coded::get(reader)?, old: Coded::get(reader)? },
            1 => Move::Removing { old: Coded::get(reader)? },
            2 => Move::Releasing { old: Coded::get(reader)? },
            _ => return Err(DecodeError::Invalid),
        })
    }
}

impl Coded for Partition {
    fn put(&self, out: &mut Vec<u8>) {
        put_list(&self.replicas, out);
        put_list(&self.wanted, out);
        self.moving.put(out);
        put_varint(out, self.epoch);
        put_varint(out, self.founders.0);
        out.push(self.founders.1);
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(Partition {
            // One more while a copy is exchanged.
            replicas: get_list(reader, COPIES_MAX + 1)?,
            wanted: get_list(reader, COPIES_MAX)?,
            moving: Coded::get(reader)?,
            epoch: reader.varint()?,
            founders: (reader.varint()?, reader.u8()?),
        })
    }
}

impl Coded for User {
    fn put(&self, out: &mut Vec<u8>) {
        let Rights { read, write, admin, keyspaces } = &self.rights;
        out.extend(self.password);
        let some = keyspaces.is_some();
        out.push(u8::from(*read) | u8::from(*write) << 1 | u8::from(*admin) << 2 | u8::from(some) << 3);
        keyspaces.iter().for_each(|set| put_set(set, out));
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        let (password, bits) = (reader.array()?, reader.u8()?);
        if bits >= 16 {
            return Err(DecodeError::Invalid);
        }
        let keyspaces = if bits & 8 != 0 { Some(get_set(reader, RIGHTS_KEYSPACES_MAX)?) } else { None };
        let rights = Rights { read: bits & 1 != 0, write: bits & 2 != 0, admin: bits & 4 != 0, keyspaces };
        Ok(User { password, rights })
    }
}

impl Coded for Audit {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.id.0);
        self.by.put(out);
        self.at.put(out);
        put_text(&self.what, out);
        match &self.result {
            Ok(Outcome { version, replica }) => {
                out.push(0);
                put_varint(out, *version);
                replica.put(out);
            }
            Err(text) => {
                out.push(1);
                put_text(text, out);
            }
        }
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        let text = |reader: &mut Reader<'_>| -> Read<String> {
            get_text(reader, AUDIT_TEXT_BYTES_MAX).map(ToString::to_string)
        };
        Ok(Audit {
            id: OperationId(reader.array()?),
            by: Coded::get(reader)?,
            at: Coded::get(reader)?,
            what: text(reader)?,
            result: match reader.u8()? {
                0 => Ok(Outcome { version: reader.varint()?, replica: Coded::get(reader)? }),
                1 => Err(text(reader)?),
                _ => return Err(DecodeError::Invalid),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Operation;

    #[test]
    fn a_request_is_read_by_all_versions_from_the_one_that_has_words_for_it() {
        let name = Name::new("x").unwrap();
        let request =
            |operation| Request { id: OperationId([3; 16]), by: name.clone(), at: Millis(9), operation };
        let ordinary = request(Operation::RemoveUser { name: name.clone() });
        let raise = |to| request(Operation::Raise { to: Version(to) });
        #[rustfmt::skip] // columns
        let table = [
            // what             read by a node of  taken
            (&ordinary,         2,                 true),
            (&ordinary,         3,                 true),
            (&ordinary,         4,                 true), // the next version: the one before goes on writing it
            (&ordinary,         200,               true),
            (&raise(3),         2,                 false),
            (&raise(3),         3,                 true),
            (&raise(3),         4,                 true), // an old log is read after the next rise
            (&raise(4),         3,                 false),
        ];
        for (request, newest, taken) in table {
            let expected = if taken { Ok(request.clone()) } else { Err(DecodeError::Invalid) };
            let read = Request::decode_up_to(&request.encode(), Version(newest));
            assert_eq!(read, expected, "{request:?} by {newest}");
        }
    }
}
