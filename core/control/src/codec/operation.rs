//! Operations as bytes.

use placement::solve::PARTITIONS_MAX;

use super::*;
use crate::VOTERS_MAX;
use crate::operation::{Operation, Step};

impl Coded for Operation {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Operation::CreateCluster { cluster, node, zone, addresses } => {
                out.push(0);
                cluster.put(out);
                put_node(*node, zone, addresses, out);
            }
            Operation::IssueToken { token, hash, expires } => {
                out.push(1);
                token.put(out);
                out.extend(hash);
                expires.put(out);
            }
            Operation::RevokeToken { token } => put_one(2, token, out),
            Operation::Admit { token, hash, node, zone, addresses } => {
                put_one(3, token, out);
                out.extend(hash);
                put_node(*node, zone, addresses, out);
            }
            Operation::Activate { node } => put_one(4, node, out),
            Operation::Leave { node } => put_one(5, node, out),
            Operation::Remove { node } => put_one(6, node, out),
            Operation::SetMember { node, zone, addresses } => {
                out.push(7);
                put_node(*node, zone, addresses, out);
            }
            Operation::SetVoters { voters } => {
                out.push(8);
                put_set(voters, out);
            }
            Operation::CreateKeyspace { keyspace, settings } => put_space((9, 18), *keyspace, settings, out),
            Operation::AlterKeyspace { keyspace, settings } => put_space((10, 19), *keyspace, settings, out),
            Operation::DropKeyspace { keyspace, name } => {
                put_one(11, keyspace, out);
                name.put(out);
            }
            Operation::Place { keyspace, version, wanted } => {
                put_one(12, keyspace, out);
                put_varint(out, *version);
                put_wanted(wanted, out);
            }
            Operation::Step { group, epoch, step } => {
                put_one(13, group, out);
                put_varint(out, *epoch);
                step.put(out);
            }
            Operation::MoveLeader { group, epoch, node } => {
                put_one(14, group, out);
                put_varint(out, *epoch);
                node.put(out);
            }
            Operation::SetUser { name, user } => {
                put_one(15, name, out);
                user.put(out);
            }
            Operation::RemoveUser { name } => put_one(16, name, out),
            Operation::Raise { to } => out.extend([17, to.0]),
            Operation::SetMesh { after, settings } => {
                put_one(20, after, out);
                settings.put(out);
            }
            Operation::RestoreMesh { after, to } => {
                put_one(21, after, out);
                put_varint(out, *to);
            }
        }
    }

    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(match reader.u8()? {
            0 => {
                let cluster = Coded::get(reader)?;
                let (node, zone, addresses) = get_node(reader)?;
                Operation::CreateCluster { cluster, node, zone, addresses }
            }
            1 => {
                let (token, hash) = (Coded::get(reader)?, reader.array()?);
                Operation::IssueToken { token, hash, expires: Coded::get(reader)? }
            }
            2 => Operation::RevokeToken { token: Coded::get(reader)? },
            3 => {
                let (token, hash) = (Coded::get(reader)?, reader.array()?);
                let (node, zone, addresses) = get_node(reader)?;
                Operation::Admit { token, hash, node, zone, addresses }
            }
            4 => Operation::Activate { node: Coded::get(reader)? },
            5 => Operation::Leave { node: Coded::get(reader)? },
            6 => Operation::Remove { node: Coded::get(reader)? },
            7 => {
                let (node, zone, addresses) = get_node(reader)?;
                Operation::SetMember { node, zone, addresses }
            }
            8 => Operation::SetVoters { voters: get_set(reader, VOTERS_MAX)? },
            9 => Operation::CreateKeyspace { keyspace: Coded::get(reader)?, settings: Coded::get(reader)? },
            10 => Operation::AlterKeyspace { keyspace: Coded::get(reader)?, settings: Coded::get(reader)? },
            11 => Operation::DropKeyspace { keyspace: Coded::get(reader)?, name: Coded::get(reader)? },
            12 => {
                let (keyspace, version) = (Coded::get(reader)?, reader.varint()?);
                Operation::Place { keyspace, version, wanted: get_wanted(reader)? }
            }
            13 => {
                let (group, epoch) = (Coded::get(reader)?, reader.varint()?);
                Operation::Step { group, epoch, step: Coded::get(reader)? }
            }
            14 => {
                let (group, epoch) = (Coded::get(reader)?, reader.varint()?);
                Operation::MoveLeader { group, epoch, node: Coded::get(reader)? }
            }
            15 => Operation::SetUser { name: Coded::get(reader)?, user: Coded::get(reader)? },
            16 => Operation::RemoveUser { name: Coded::get(reader)? },
            17 => match Version(reader.u8()?) {
                to if to >= Version(3) => Operation::Raise { to },
                _ => return Err(DecodeError::Invalid),
            },
            18 => Operation::CreateKeyspace { keyspace: Coded::get(reader)?, settings: get_read(reader)? },
            19 => Operation::AlterKeyspace { keyspace: Coded::get(reader)?, settings: get_read(reader)? },
            20 => Operation::SetMesh { after: Coded::get(reader)?, settings: Coded::get(reader)? },
            21 => Operation::RestoreMesh { after: Coded::get(reader)?, to: reader.varint()? },
            _ => return Err(DecodeError::Invalid),
        })
    }
}

impl Coded for Step {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Step::Add { new, old } => {
                put_one(0, new, out);
                old.put(out);
            }
            Step::Drop { old } => put_one(1, old, out),
            Step::Promote => out.push(2),
            Step::Finish => out.push(3),
            Step::Abort => out.push(4),
            Step::Forget => out.push(5),
        }
    }

    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        Ok(match reader.u8()? {
            0 => Step::Add { new: Coded::get(reader)?, old: Coded::get(reader)? },
            1 => Step::Drop { old: Coded::get(reader)? },
            2 => Step::Promote,
            3 => Step::Finish,
            4 => Step::Abort,
            5 => Step::Forget,
            _ => return Err(DecodeError::Invalid),
        })
    }
}

/// Under the first tag as in version 2; under the second, with what version 3 knows, if that is needed.
fn put_space(tags: (u8, u8), keyspace: KeyspaceId, settings: &Settings, out: &mut Vec<u8>) {
    let later = settings.needs() >= Version(3);
    put_one(if later { tags.1 } else { tags.0 }, &keyspace, out);
    settings.put(out);
    if later {
        settings.reading.put(out);
    }
}

/// Settings of version 3.
fn get_read(reader: &mut Reader<'_>) -> Read<Settings> {
    let settings = Settings::get(reader)?;
    Ok(Settings { reading: Coded::get(reader)?, ..settings })
}

fn put_one(tag: u8, value: &impl Coded, out: &mut Vec<u8>) {
    out.push(tag);
    value.put(out);
}

fn put_node(node: NodeId, zone: &Name, addresses: &[SocketAddr], out: &mut Vec<u8>) {
    node.put(out);
    zone.put(out);
    put_list(addresses, out);
}

fn get_node(reader: &mut Reader<'_>) -> Read<(NodeId, Name, Vec<SocketAddr>)> {
    Ok((Coded::get(reader)?, Coded::get(reader)?, get_list(reader, ADDRESSES_MAX)?))
}

/// A placement names few nodes often: a table of them, then their places in it.
fn put_wanted(wanted: &[Vec<NodeId>], out: &mut Vec<u8>) {
    let nodes: BTreeSet<NodeId> = wanted.iter().flatten().copied().collect();
    let places: BTreeMap<NodeId, u64> = nodes.iter().copied().zip(0..).collect();
    put_set(&nodes, out);
    put_varint(out, wanted.len() as u64);
    for partition in wanted {
        put_varint(out, partition.len() as u64);
        partition.iter().filter_map(|node| places.get(node)).for_each(|&place| put_varint(out, place));
    }
}

fn get_wanted(reader: &mut Reader<'_>) -> Read<Vec<Vec<NodeId>>> {
    let nodes: Vec<NodeId> = get_set(reader, MEMBERS_MAX)?.into_iter().collect();
    let place = |reader: &mut Reader<'_>| nodes.get(reader.len()?).copied().ok_or(DecodeError::Invalid);
    (0..bounded(reader, PARTITIONS_MAX)?)
        .map(|_| (0..bounded(reader, COPIES_MAX)?).map(|_| place(reader)).collect())
        .collect()
}
