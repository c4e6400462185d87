//! What registries say to each other, as bytes. Every count is checked against its limit before memory is taken, and no
//! bytes of a peer make anything here panic.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::NodeId;
use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};

use super::record::{
    CHECKS_MAX, Check, Health, Instance, META_MAX, NAME_BYTES_MAX, Node, OUTPUT_BYTES_MAX, TAGS_MAX, Weights,
};

/// Owners that one frame tells of, at most.
pub const OWNERS_MAX: usize = 4096;
/// Records of one frame, at most.
pub const ITEMS_MAX: usize = 16_384;

/// What a record is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// The owner itself.
    Node(Arc<Node>),
    /// An instance.
    Instance(Arc<Instance>),
}

/// A record as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Which write of its owner it was.
    pub sequence: u64,
    /// The instance's id; empty for the node.
    pub key: String,
    /// What was written; none is a removal.
    pub body: Option<Body>,
}

impl Item {
    /// How many bytes it takes, about.
    pub fn size(&self) -> usize {
        let mut out = Vec::new();
        put_item(self, &mut out);
        out.len()
    }
}

/// News of one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delta {
    /// Its life.
    pub incarnation: u64,
    /// What is in `items` begins behind this sequence,
    pub base: u64,
    /// and ends with this one.
    pub upto: u64,
    /// It is part of a whole copy, which tells of removals by what it lacks.
    pub whole: bool,
    /// It is the last part.
    pub is_last: bool,
    /// In the order of their sequences.
    pub items: Vec<Item>,
}

/// How much is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub owner: NodeId,
    pub incarnation: u64,
    pub have: u64,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// What the sender knows.
    Digest {
        /// It wants to be told what the receiver knows, if that is less.
        asks: bool,
        /// Of everybody that it knows.
        known: Vec<Known>,
    },
    /// News of one owner.
    Delta(NodeId, Delta),
}

const DIGEST: u8 = 0;
const QUESTION: u8 = 1;
const DELTA: u8 = 2;

const REMOVED: u8 = 0;
const NODE: u8 = 1;
const INSTANCE: u8 = 2;

impl Said {
    /// Behind what `out` has.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Said::Digest { asks, known } => {
                out.push(if *asks { QUESTION } else { DIGEST });
                put_varint(out, known.len() as u64);
                for one in known {
                    out.extend(one.owner.0);
                    put_varint(out, one.incarnation);
                    put_varint(out, one.have);
                }
            }
            Said::Delta(owner, delta) => {
                out.push(DELTA);
                out.extend(owner.0);
                put_varint(out, delta.incarnation);
                put_varint(out, delta.base);
                put_varint(out, delta.upto);
                out.push(u8::from(delta.whole) | u8::from(delta.is_last) << 1);
                put_varint(out, delta.items.len() as u64);
                delta.items.iter().for_each(|item| put_item(item, out));
            }
        }
    }

    /// # Errors
    /// [`DecodeError`]
    pub fn decode(bytes: &[u8]) -> Result<Said, DecodeError> {
        let mut reader = Reader::new(bytes);
        let said = match reader.u8()? {
            tag @ (DIGEST | QUESTION) => {
                let mut known = Vec::new();
                for _ in 0..bounded(&mut reader, OWNERS_MAX)? {
                    let owner = NodeId(reader.array()?);
                    known.push(Known { owner, incarnation: reader.varint()?, have: reader.varint()? });
                }
                Said::Digest { asks: tag == QUESTION, known }
            }
            DELTA => {
                let owner = NodeId(reader.array()?);
                let (incarnation, base, upto) = (reader.varint()?, reader.varint()?, reader.varint()?);
                let bits = reader.u8()?;
                if bits > 3 || base > upto {
                    return Err(DecodeError::Invalid);
                }
                let items = get_items(&mut reader, base, upto)?;
                let (whole, is_last) = (bits & 1 != 0, bits & 2 != 0);
                Said::Delta(owner, Delta { incarnation, base, upto, whole, is_last, items })
            }
            _ => return Err(DecodeError::Invalid),
        };
        if reader.is_empty() { Ok(said) } else { Err(DecodeError::Invalid) }
    }
}

fn bounded(reader: &mut Reader<'_>, max: usize) -> Result<usize, DecodeError> {
    match reader.len()? {
        count if count <= max => Ok(count),
        _ => Err(DecodeError::Overflow),
    }
}

/// Their sequences grow, and lie where the frame says.
fn get_items(reader: &mut Reader<'_>, base: u64, upto: u64) -> Result<Vec<Item>, DecodeError> {
    let (mut items, mut last) = (Vec::new(), base);
    for _ in 0..bounded(reader, ITEMS_MAX)? {
        let item = get_item(reader)?;
        if item.sequence <= last || item.sequence > upto {
            return Err(DecodeError::Invalid);
        }
        last = item.sequence;
        items.push(item);
    }
    Ok(items)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn get_text(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let bytes = reader.bytes()?;
    if bytes.len() > OUTPUT_BYTES_MAX {
        return Err(DecodeError::Overflow);
    }
    core::str::from_utf8(bytes).map(String::from).map_err(|_| DecodeError::Invalid)
}

fn put_meta(out: &mut Vec<u8>, meta: &BTreeMap<String, String>) {
    put_varint(out, meta.len() as u64);
    for (key, value) in meta {
        put_text(out, key);
        put_text(out, value);
    }
}

fn get_meta(reader: &mut Reader<'_>) -> Result<BTreeMap<String, String>, DecodeError> {
    let count = bounded(reader, META_MAX)?;
    (0..count).map(|_| Ok((get_text(reader)?, get_text(reader)?))).collect()
}

fn put_checks(out: &mut Vec<u8>, checks: &[Check]) {
    put_varint(out, checks.len() as u64);
    for check in checks {
        for text in [&check.id, &check.name, &check.kind, &check.notes, &check.output] {
            put_text(out, text);
        }
        out.push(check.status.number());
    }
}

fn get_checks(reader: &mut Reader<'_>) -> Result<Vec<Check>, DecodeError> {
    let count = bounded(reader, CHECKS_MAX)?;
    let one = |_| {
        Ok(Check {
            id: get_text(reader)?,
            name: get_text(reader)?,
            kind: get_text(reader)?,
            notes: get_text(reader)?,
            output: get_text(reader)?,
            status: Health::of_number(reader.u8()?).ok_or(DecodeError::Invalid)?,
        })
    };
    (0..count).map(one).collect()
}

/// An instance in our own bytes, as gossip and the node's file have it.
pub(super) fn put_instance(out: &mut Vec<u8>, it: &Instance) {
    for text in [&it.id, &it.service, &it.address] {
        put_text(out, text);
    }
    out.extend(it.port.to_le_bytes());
    put_varint(out, u64::from(it.weights.passing));
    put_varint(out, u64::from(it.weights.warning));
    put_varint(out, it.tags.len() as u64);
    it.tags.iter().for_each(|tag| put_text(out, tag));
    put_meta(out, &it.meta);
    put_checks(out, &it.checks);
}

/// One that is within its bounds.
pub(super) fn get_instance(reader: &mut Reader<'_>) -> Result<Instance, DecodeError> {
    let weight = |number: u64| u32::try_from(number).map_err(|_| DecodeError::Overflow);
    let (id, service, address) = (get_text(reader)?, get_text(reader)?, get_text(reader)?);
    let port = reader.u16()?;
    let weights = Weights { passing: weight(reader.varint()?)?, warning: weight(reader.varint()?)? };
    let count = bounded(reader, TAGS_MAX)?;
    let tags = (0..count).map(|_| get_text(reader)).collect::<Result<_, _>>()?;
    let (meta, checks) = (get_meta(reader)?, get_checks(reader)?);
    let instance = Instance { id, service, address, port, tags, meta, weights, checks };
    instance.valid().map_err(|_| DecodeError::Invalid)?;
    Ok(instance)
}

fn get_node(reader: &mut Reader<'_>) -> Result<Node, DecodeError> {
    let (name, address, zone) = (get_text(reader)?, get_text(reader)?, get_text(reader)?);
    let node = Node { name, address, zone, meta: get_meta(reader)?, checks: get_checks(reader)? };
    node.valid().map_err(|_| DecodeError::Invalid)?;
    Ok(node)
}

fn put_item(item: &Item, out: &mut Vec<u8>) {
    put_varint(out, item.sequence);
    put_text(out, &item.key);
    match &item.body {
        None => out.push(REMOVED),
        Some(Body::Node(node)) => {
            out.push(NODE);
            for text in [&node.name, &node.address, &node.zone] {
                put_text(out, text);
            }
            put_meta(out, &node.meta);
            put_checks(out, &node.checks);
        }
        Some(Body::Instance(instance)) => {
            out.push(INSTANCE);
            put_instance(out, instance);
        }
    }
}

/// A key names what it is of.
fn get_item(reader: &mut Reader<'_>) -> Result<Item, DecodeError> {
    let (sequence, key) = (reader.varint()?, get_text(reader)?);
    if key.len() > NAME_BYTES_MAX {
        return Err(DecodeError::Overflow);
    }
    let body = match reader.u8()? {
        REMOVED => None,
        NODE if key.is_empty() => Some(Body::Node(Arc::new(get_node(reader)?))),
        INSTANCE => {
            let instance = get_instance(reader)?;
            if instance.id != key {
                return Err(DecodeError::Invalid);
            }
            Some(Body::Instance(Arc::new(instance)))
        }
        _ => return Err(DecodeError::Invalid),
    };
    Ok(Item { sequence, key, body })
}
