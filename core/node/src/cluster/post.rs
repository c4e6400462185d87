//! What nodes hand each other about commands, as bytes: one frame for each peer and turn.
//!
//! `frame := form, body`. A body of more than [`FRAME_BYTES_MAX`] goes in several frames. `body := varint life,
//! letter*`, where `life` is the sender's incarnation: numbers of connections begin anew with each, so what an earlier life
//! asked for is told apart from what this one asks. Connections are named by their number at their own node.
//!
//! Bytes of a peer are checked here and believed behind it: a length is never more than the bytes that are there, and
//! a command is one that a node would send.

use alloc::vec::Vec;

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};
use kernel::{KeyspaceId, NodeId};
use storage::command::generic::{EXEC, EXEC_READ, TICK};
use storage::command::keys::{SLOT_COUNT, SLOT_KEYS};
use storage::command::list_blocking::RETRY;
use storage::command::session::RENAME_KEYSPACES;
use storage::command::tagged::TAGGED;
use storage::entry::{Args, next_command};
use storage::store::sessions::WINDOW_MAX;
use storage::{Command, Flags, Registry};

/// Longest frame, its kind and form excluded. Links take frames of four times that.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Longest body, put together from frames. What is larger is refused to its client.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Keys of one WATCH.
pub const WATCH_KEYS_MAX: usize = 64 * 1024;

/// The frame is a whole body.
const WHOLE: u8 = 0;
/// The frame is a part of a body, and more follow.
const PART: u8 = 1;
/// The frame is the last part of a body.
const LAST: u8 = 2;

/// Whose command it is, as its own node names it, and the place of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The connection's number at its node; below 2^48.
    pub conn: u64,
    /// The command's place among those of the connection.
    pub sequence: u64,
    /// It is a part of a command on several partitions.
    pub part: Option<u16>,
}

/// Which try it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trail {
    /// Counts the tries of this command, modulo 256.
    pub attempt: u8,
    /// Counts how often the origin began anew with the partition: a node that refused one of a round refuses all that
    /// follow in it, so that they are not done before it.
    pub round: u64,
    /// The partition's epoch, as the origin knows it; 0 if it does not.
    pub epoch: u64,
}

/// A command for a partition that the addressee leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// Whose.
    pub caller: Caller,
    /// Which try.
    pub trail: Trail,
    /// The keyspace.
    pub db: KeyspaceId,
    /// The partition of it.
    pub partition: u16,
    /// The client speaks RESP3.
    pub resp3: bool,
    /// No other command of the connection is on its way.
    pub alone: bool,
    /// It is an EXEC that depends on keys which the connection watches at the addressee.
    pub watching: bool,
    /// A write's number among those of its origin for the partition, and the lowest that is still waited for.
    pub tag: Option<(u64, u64)>,
    /// As in an entry's body.
    pub encoded: &'a [u8],
}

/// One thing that a node hands another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Letter<'a> {
    /// Run a command.
    Run(Run<'a>),
    /// Watch keys for a connection of the sender.
    Watch {
        /// Whose.
        caller: Caller,
        /// Which try.
        trail: Trail,
        /// The keyspace.
        db: KeyspaceId,
        /// The partition that has all of them.
        partition: u16,
        /// The keys.
        keys: Vec<&'a [u8]>,
    },
    /// A command's answer.
    Reply {
        /// Whose: a connection of the addressee.
        caller: Caller,
        /// The life of the addressee that asked.
        life: u64,
        /// Encoded as the client speaks.
        bytes: &'a [u8],
    },
    /// The command was not run: the sender does not lead the partition.
    Misdirected {
        /// Whose: a connection of the addressee.
        caller: Caller,
        /// The life of the addressee that asked.
        life: u64,
        /// Which try of it.
        attempt: u8,
        /// Who leads, as far as the sender knows.
        leader: Option<NodeId>,
        /// The partition's epoch, as the sender knows it.
        epoch: u64,
    },
    /// A connection of the sender watches nothing any more.
    Unwatch {
        /// Its number.
        conn: u64,
    },
    /// A connection of the sender is gone, or waits for nothing any more.
    Gone {
        /// Its number.
        conn: u64,
    },
    /// Let a connection of the sender go that waits.
    Unblock {
        /// Its number.
        conn: u64,
        /// With an error, and not as if its time had passed.
        error: bool,
        /// Whom to tell whether it did wait.
        joint: Option<u64>,
    },
    /// A part of a whole of the addressee is done.
    Done {
        /// The life of the addressee that asked.
        life: u64,
        /// The whole.
        joint: u64,
        /// Added to a whole that counts.
        count: i64,
    },
    /// Whether a key that a connection of the sender watches has changed.
    Ask {
        /// Its number.
        conn: u64,
    },
    /// The answer.
    Told {
        /// The life of the addressee that asked.
        life: u64,
        /// The connection's number.
        conn: u64,
        /// A key has changed, or may have.
        broken: bool,
    },
    /// Hand a message to your subscribers.
    Deliver {
        /// Its channel.
        channel: &'a [u8],
        /// It.
        payload: &'a [u8],
    },
    /// Writers of a partition that the sender leads wait from now on, or go on.
    Stalled {
        /// The keyspace.
        db: KeyspaceId,
        /// The partition of it.
        partition: u16,
        /// They wait.
        stalled: bool,
    },
    /// Where cluster clients reach the sender.
    Greeting {
        /// Its name or address; empty if it takes none.
        host: &'a str,
        /// Its port.
        port: u16,
        /// Where other nodes reach it.
        link_port: u16,
    },
}

const RUN: u8 = 1;
const WATCH: u8 = 2;
const REPLY: u8 = 3;
const MISDIRECTED: u8 = 4;
const UNWATCH: u8 = 5;
const GONE: u8 = 6;
const UNBLOCK: u8 = 7;
const DONE: u8 = 8;
const ASK: u8 = 9;
const TOLD: u8 = 10;
const DELIVER: u8 = 11;
const STALLED: u8 = 12;
const GREETING: u8 = 13;

/// Numbers of connections at their node have 48 bits.
const CONN_MAX: u64 = (1 << 48) - 1;
/// Longest name of a host, in bytes: that of DNS.
const HOST_BYTES_MAX: usize = 255;

fn put_caller(out: &mut Vec<u8>, caller: &Caller) {
    put_varint(out, caller.conn);
    put_varint(out, caller.sequence);
    put_varint(out, caller.part.map_or(0, |part| u64::from(part) + 1));
}

fn put_trail(out: &mut Vec<u8>, trail: &Trail) {
    out.push(trail.attempt);
    put_varint(out, trail.round);
    put_varint(out, trail.epoch);
}

fn put_partition(out: &mut Vec<u8>, db: KeyspaceId, partition: u16) {
    put_varint(out, db.0.into());
    put_varint(out, partition.into());
}

impl Letter<'_> {
    /// Appends it to `out`.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            Letter::Run(run) => put_run(out, run),
            Letter::Watch { caller, trail, db, partition, keys } => {
                out.push(WATCH);
                put_caller(out, caller);
                put_trail(out, trail);
                put_partition(out, *db, *partition);
                put_varint(out, keys.len() as u64);
                keys.iter().for_each(|key| put_bytes(out, key));
            }
            Letter::Reply { caller, life, bytes } => {
                out.push(REPLY);
                put_caller(out, caller);
                put_varint(out, *life);
                put_bytes(out, bytes);
            }
            Letter::Misdirected { caller, life, attempt, leader, epoch } => {
                out.push(MISDIRECTED);
                put_caller(out, caller);
                put_varint(out, *life);
                out.push(*attempt);
                out.push(u8::from(leader.is_some()));
                out.extend_from_slice(leader.as_ref().map_or(&[][..], |leader| &leader.0));
                put_varint(out, *epoch);
            }
            Letter::Unwatch { conn } => put_number(out, UNWATCH, *conn),
            Letter::Gone { conn } => put_number(out, GONE, *conn),
            Letter::Ask { conn } => put_number(out, ASK, *conn),
            Letter::Unblock { conn, error, joint } => {
                put_number(out, UNBLOCK, *conn);
                out.push(u8::from(*error) | u8::from(joint.is_some()) << 1);
                put_varint(out, joint.unwrap_or(0));
            }
            Letter::Done { life, joint, count } => {
                put_number(out, DONE, *life);
                put_varint(out, *joint);
                out.extend_from_slice(&count.to_le_bytes());
            }
            Letter::Told { life, conn, broken } => {
                put_number(out, TOLD, *life);
                put_varint(out, *conn);
                out.push(u8::from(*broken));
            }
            Letter::Deliver { channel, payload } => {
                out.push(DELIVER);
                put_bytes(out, channel);
                put_bytes(out, payload);
            }
            Letter::Stalled { db, partition, stalled } => {
                out.push(STALLED);
                put_partition(out, *db, *partition);
                out.push(u8::from(*stalled));
            }
            Letter::Greeting { host, port, link_port } => {
                out.push(GREETING);
                put_bytes(out, host.as_bytes());
                put_varint(out, (*port).into());
                put_varint(out, (*link_port).into());
            }
        }
    }

    /// Reads the next letter.
    ///
    /// # Errors
    /// It is cut, over a limit, or none that a node would send.
    pub fn read<'a>(reader: &mut Reader<'a>, registry: &Registry) -> Result<Letter<'a>, DecodeError> {
        Ok(match reader.u8()? {
            RUN => Letter::Run(read_run(reader, registry)?),
            WATCH => {
                let (caller, trail) = (read_caller(reader)?, read_trail(reader)?);
                let (db, partition) = read_partition(reader)?;
                let keys = read_keys(reader)?;
                Letter::Watch { caller, trail, db, partition, keys }
            }
            REPLY => {
                let (caller, life) = (read_caller(reader)?, reader.varint()?);
                Letter::Reply { caller, life, bytes: reader.bytes()? }
            }
            MISDIRECTED => {
                let (caller, life, attempt) = (read_caller(reader)?, reader.varint()?, reader.u8()?);
                let leader = if flag(reader)? { Some(NodeId(reader.array()?)) } else { None };
                Letter::Misdirected { caller, life, attempt, leader, epoch: reader.varint()? }
            }
            UNWATCH => Letter::Unwatch { conn: read_conn(reader)? },
            GONE => Letter::Gone { conn: read_conn(reader)? },
            ASK => Letter::Ask { conn: read_conn(reader)? },
            UNBLOCK => {
                let (conn, bits, joint) = (read_conn(reader)?, reader.u8()?, reader.varint()?);
                if bits > 3 {
                    return Err(DecodeError::Invalid);
                }
                Letter::Unblock { conn, error: bits & 1 != 0, joint: (bits & 2 != 0).then_some(joint) }
            }
            DONE => {
                let (life, joint) = (reader.varint()?, reader.varint()?);
                Letter::Done { life, joint, count: i64::from_le_bytes(reader.array()?) }
            }
            TOLD => {
                let (life, conn) = (reader.varint()?, read_conn(reader)?);
                Letter::Told { life, conn, broken: flag(reader)? }
            }
            DELIVER => Letter::Deliver { channel: reader.bytes()?, payload: reader.bytes()? },
            STALLED => {
                let (db, partition) = read_partition(reader)?;
                Letter::Stalled { db, partition, stalled: flag(reader)? }
            }
            GREETING => {
                let host = core::str::from_utf8(reader.bytes()?).map_err(|_| DecodeError::Invalid)?;
                if host.len() > HOST_BYTES_MAX || host.bytes().any(|byte| !byte.is_ascii_graphic()) {
                    return Err(DecodeError::Invalid);
                }
                Letter::Greeting { host, port: read_u16(reader)?, link_port: read_u16(reader)? }
            }
            _ => return Err(DecodeError::Invalid),
        })
    }
}

fn put_number(out: &mut Vec<u8>, code: u8, number: u64) {
    out.push(code);
    put_varint(out, number);
}

fn put_run(out: &mut Vec<u8>, run: &Run<'_>) {
    out.push(RUN);
    put_caller(out, &run.caller);
    put_trail(out, &run.trail);
    put_partition(out, run.db, run.partition);
    let bits = [run.resp3, run.alone, run.watching, run.tag.is_some()];
    out.push((0..).zip(bits).map(|(at, bit)| u8::from(bit) << at).sum());
    if let Some((sequence, oldest)) = run.tag {
        put_varint(out, sequence);
        put_varint(out, sequence - oldest);
    }
    put_bytes(out, run.encoded);
}

fn read_run<'a>(reader: &mut Reader<'a>, registry: &Registry) -> Result<Run<'a>, DecodeError> {
    let (caller, trail) = (read_caller(reader)?, read_trail(reader)?);
    let (db, partition) = read_partition(reader)?;
    let bits = reader.u8()?;
    if bits > 15 {
        return Err(DecodeError::Invalid);
    }
    let tag = if bits & 8 == 0 {
        None
    } else {
        let (sequence, lag) = (reader.varint()?, reader.varint()?);
        if lag >= WINDOW_MAX || lag >= sequence {
            return Err(DecodeError::Invalid);
        }
        Some((sequence, sequence - lag))
    };
    let encoded = reader.bytes()?;
    let command = acceptable(encoded, registry)?;
    if tag.is_some() && (command.kind == storage::Kind::Read || command.flags.has(Flags::BLOCKING)) {
        return Err(DecodeError::Invalid);
    }
    let [resp3, alone, watching] = [1, 2, 4].map(|bit| bits & bit != 0);
    Ok(Run { caller, trail, db, partition, resp3, alone, watching, tag, encoded })
}

/// The one command of `encoded`, if it is one that a client may send, or a transaction of such.
fn acceptable(encoded: &[u8], registry: &Registry) -> Result<&'static Command, DecodeError> {
    let (mut reader, mut args) = (Reader::new(encoded), Args::new());
    let id = next_command(&mut reader, &mut args)?;
    let command = registry.by_id(id).ok_or(DecodeError::Invalid)?;
    let own = [EXEC, EXEC_READ, SLOT_KEYS, SLOT_COUNT].contains(&id);
    if !reader.is_empty() || command.flags.has(Flags::INTERNAL) && !own || !command.takes(args.len()) {
        return Err(DecodeError::Invalid);
    }
    if id == EXEC || id == EXEC_READ {
        for step in &args {
            let (mut reader, mut inner) = (Reader::new(step), Args::new());
            let step = next_command(&mut reader, &mut inner)?;
            let known = registry.by_id(step).ok_or(DecodeError::Invalid)?;
            let nested = [EXEC, EXEC_READ, RETRY, TAGGED, TICK, RENAME_KEYSPACES].contains(&step);
            // A transaction that only reads is never logged: a write in it would change one replica alone.
            let writes = id == EXEC_READ && known.kind == storage::Kind::Write;
            if nested || writes || !reader.is_empty() {
                return Err(DecodeError::Invalid);
            }
        }
    }
    Ok(command)
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Invalid),
    }
}

fn read_conn(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let conn = reader.varint()?;
    if conn > CONN_MAX { Err(DecodeError::Overflow) } else { Ok(conn) }
}

fn read_u16(reader: &mut Reader<'_>) -> Result<u16, DecodeError> {
    u16::try_from(reader.varint()?).map_err(|_| DecodeError::Overflow)
}

fn read_caller(reader: &mut Reader<'_>) -> Result<Caller, DecodeError> {
    let (conn, sequence, part) = (read_conn(reader)?, reader.varint()?, reader.varint()?);
    let part = match part.checked_sub(1) {
        None => None,
        Some(part) => Some(u16::try_from(part).map_err(|_| DecodeError::Overflow)?),
    };
    Ok(Caller { conn, sequence, part })
}

fn read_trail(reader: &mut Reader<'_>) -> Result<Trail, DecodeError> {
    Ok(Trail { attempt: reader.u8()?, round: reader.varint()?, epoch: reader.varint()? })
}

fn read_partition(reader: &mut Reader<'_>) -> Result<(KeyspaceId, u16), DecodeError> {
    Ok((KeyspaceId(read_u16(reader)?), read_u16(reader)?))
}

fn read_keys<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a [u8]>, DecodeError> {
    let count = reader.len()?;
    // Each key takes a byte at least.
    if count == 0 || count > WATCH_KEYS_MAX || count > reader.rest().len() {
        return Err(DecodeError::Overflow);
    }
    (0..count).map(|_| reader.bytes()).collect()
}

/// Whether `bytes` are one whole answer as a partition encodes it; of one that is a part of a whole only the forms that
/// such have.
#[must_use]
pub fn is_reply(bytes: &[u8], part: bool) -> bool {
    let (mut at, mut left) = (0, 1u64);
    while left > 0 {
        let rest = &bytes[at..];
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { return false };
        let Some((kind, text)) = rest[..end].split_first() else { return false };
        at += end + 2;
        left -= 1;
        let number = || core::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
        match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' => {}
            b'$' | b'=' | b'!' if *kind == b'$' || !part => {
                let Some(length) = number() else { return false };
                let Ok(length) = usize::try_from(length) else {
                    if length == -1 { continue } else { return false }
                };
                let Some(end) =
                    at.checked_add(length).filter(|end| bytes.get(*end..*end + 2) == Some(b"\r\n"))
                else {
                    return false;
                };
                at = end + 2;
            }
            b'*' | b'~' | b'%' if *kind == b'*' || !part => {
                let Some(length) = number() else { return false };
                let Ok(length) = u64::try_from(length) else {
                    if length == -1 { continue } else { return false }
                };
                // Each element has bytes.
                if length > (bytes.len() - at) as u64 {
                    return false;
                }
                left += length * if *kind == b'%' { 2 } else { 1 };
            }
            _ => return false,
        }
    }
    at == bytes.len()
}

/// Calls `frame` with the frames of a body, which begin with `kind`.
pub fn frames(kind: u8, body: &[u8], mut frame: impl FnMut(Vec<u8>)) {
    let mut chunks = body.chunks(FRAME_BYTES_MAX).peekable();
    let whole = body.len() <= FRAME_BYTES_MAX;
    while let Some(chunk) = chunks.next() {
        let form = match (whole, chunks.peek().is_some()) {
            (true, _) => WHOLE,
            (false, true) => PART,
            (false, false) => LAST,
        };
        let mut bytes = Vec::with_capacity(chunk.len() + 2);
        bytes.extend_from_slice(&[kind, form]);
        bytes.extend_from_slice(chunk);
        frame(bytes);
    }
}

/// Puts bodies together again from one peer's frames.
#[derive(Debug, Default)]
pub struct Joiner(Vec<u8>);

impl Joiner {
    /// Takes a frame without its kind; hands on the body that is whole with it, if one is.
    ///
    /// # Errors
    /// It is none, or its body is longer than [`BODY_BYTES_MAX`]; what was put together is forgotten.
    pub fn take<'a>(&'a mut self, frame: &'a [u8]) -> Result<Option<Body<'a>>, DecodeError> {
        let (&form, bytes) = frame.split_first().ok_or(DecodeError::Short)?;
        if self.0.len() + bytes.len() > BODY_BYTES_MAX || form > LAST || form == WHOLE && !self.0.is_empty() {
            self.0 = Vec::new();
            return Err(DecodeError::Overflow);
        }
        if form == WHOLE {
            return Ok(Some(Body::Whole(bytes)));
        }
        self.0.extend_from_slice(bytes);
        Ok((form == LAST).then(|| Body::Joined(core::mem::take(&mut self.0))))
    }

    /// The frames that follow are those of another link: what is not whole never will be.
    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }
}

/// A whole body.
#[derive(Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// It came in one frame.
    Whole(&'a [u8]),
    /// It came in several.
    Joined(Vec<u8>),
}

impl Body<'_> {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Body::Whole(bytes) => bytes,
            Body::Joined(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;
    use storage::entry::put_command;

    use super::*;

    fn caller() -> impl Strategy<Value = Caller> {
        (0..=CONN_MAX, any::<u64>(), any::<Option<u16>>()).prop_map(|(conn, sequence, part)| Caller {
            conn,
            sequence,
            part,
        })
    }

    fn trail() -> impl Strategy<Value = Trail> {
        any::<(u8, u64, u64)>().prop_map(|(attempt, round, epoch)| Trail { attempt, round, epoch })
    }

    fn command(words: &[&[u8]]) -> Vec<u8> {
        let mut encoded = Vec::new();
        let command = Registry::new().find(words[0]).expect("it exists");
        put_command(&mut encoded, command.id, &words[1..]);
        encoded
    }

    proptest! {
        #[test]
        fn letters_read_back(
            (caller, trail) in (caller(), trail()),
            (db, partition, life, conn) in (any::<u16>(), any::<u16>(), any::<u64>(), 0..=CONN_MAX),
            bytes: Vec<u8>, keys in prop::collection::vec(any::<Vec<u8>>(), 1..4),
            (flags, lag) in (any::<[bool; 4]>(), 0..WINDOW_MAX),
            (count, leader, joint) in (any::<i64>(), any::<Option<[u8; 32]>>(), any::<Option<u64>>()),
        ) {
            let registry = Registry::new();
            let encoded = command(&[b"set", b"k", &bytes]);
            let db = KeyspaceId(db);
            let [resp3, alone, watching, broken] = flags;
            let tag = broken.then_some((life.max(lag + 1), life.max(lag + 1) - lag));
            let run = Run {
                caller, trail, db, partition, resp3, alone, watching, tag, encoded: &encoded,
            };
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let leader = leader.map(NodeId);
            let letters = [
                Letter::Run(run),
                Letter::Watch { caller, trail, db, partition, keys },
                Letter::Reply { caller, life, bytes: &bytes },
                Letter::Misdirected { caller, life, attempt: trail.attempt, leader, epoch: trail.epoch },
                Letter::Unwatch { conn },
                Letter::Gone { conn },
                Letter::Unblock { conn, error: broken, joint },
                Letter::Done { life, joint: conn, count },
                Letter::Ask { conn },
                Letter::Told { life, conn, broken },
                Letter::Deliver { channel: &bytes, payload: &encoded },
                Letter::Stalled { db, partition, stalled: broken },
                Letter::Greeting { host: "a.example", port: partition, link_port: db.0 },
            ];
            let mut body = Vec::new();
            letters.iter().for_each(|letter| letter.put(&mut body));
            let mut reader = Reader::new(&body);
            for letter in &letters {
                let read = Letter::read(&mut reader, &registry);
                prop_assert_eq!(read.as_ref(), Ok(letter));
            }
            prop_assert!(reader.is_empty());
            // Cut anywhere, it ends in an error and not in a panic.
            let cut = usize::try_from(conn).unwrap_or(0) % body.len();
            let mut reader = Reader::new(&body[..cut]);
            while !reader.is_empty() && Letter::read(&mut reader, &registry).is_ok() {}
        }

        #[test]
        fn any_bytes_are_letters_or_refused(bytes: Vec<u8>, code in 0u8..16) {
            let registry = Registry::new();
            let bytes = [vec![code], bytes].concat();
            let mut reader = Reader::new(&bytes);
            while !reader.is_empty() && Letter::read(&mut reader, &registry).is_ok() {}
        }
    }

    #[test]
    fn a_body_comes_through_frames() {
        for bytes in [0, 1, FRAME_BYTES_MAX - 1, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, 3 * FRAME_BYTES_MAX] {
            let body: Vec<u8> = (0..bytes).map(|at| (at / 1000) as u8).collect();
            let (mut joiner, mut got) = (Joiner::default(), Vec::new());
            frames(3, &body, |frame| {
                assert_eq!(frame[0], 3);
                if let Some(body) = joiner.take(&frame[1..]).expect("it is one of ours") {
                    got.push(body.bytes().to_vec());
                }
            });
            let expected = if body.is_empty() { vec![] } else { vec![body] };
            assert!(got == expected, "{bytes}");
        }
    }

    #[test]
    fn commands_that_no_node_sends_are_refused() {
        let registry = Registry::new();
        let raw = |id: u16, args: &[&[u8]]| {
            let mut encoded = Vec::new();
            put_command(&mut encoded, id, args);
            encoded
        };
        let (set, get) = (command(&[b"set", b"k", b"v"]), command(&[b"get", b"k"]));
        #[rustfmt::skip] // columns
        let table = [
            (set.clone(),                               true),
            (command(&[b"set", b"k"]),                  false), // arity
            ([&set[..], &get[..]].concat(),             false), // two
            (raw(EXEC, &[&set, &get]),                  true),
            (raw(EXEC_READ, &[&get]),                   true),
            (raw(EXEC_READ, &[&set]),                   false),
            (raw(EXEC, &[&raw(EXEC, &[&set])]),         false),
            (raw(TICK, &[]),                            false),
            (raw(RETRY, &[&set]),                       false),
            (raw(TAGGED, &[b"", &set]),                 false),
            (raw(RENAME_KEYSPACES, &[b""]),             false),
            (raw(SLOT_COUNT, &[b"5"]),                  true),
            (raw(0xFFFF, &[]),                          false),
            (vec![],                                    false),
        ];
        for (encoded, accepted) in table {
            assert_eq!(acceptable(&encoded, &registry).is_ok(), accepted, "{encoded:?}");
        }
    }

    #[test]
    fn what_is_no_whole_answer_is_refused() {
        #[rustfmt::skip] // columns
        let table: &[(&str, bool, bool)] = &[
            // bytes                                    whole, as a part
            ("+OK\r\n",                                 true,  true),
            (":1\r\n",                                  true,  true),
            ("$1\r\na\r\n",                             true,  true),
            ("$-1\r\n",                                 true,  true),
            ("*2\r\n$2\r\n\r\n\r\n:1\r\n",              true,  true),
            ("*1\r\n*1\r\n_\r\n",                       true,  true),
            ("*-1\r\n",                                 true,  true),
            ("%1\r\n+a\r\n,1.5\r\n",                    true,  false),
            ("=5\r\ntxt:a\r\n",                         true,  false),
            ("%1\r\n+a\r\n",                            false, false),
            ("",                                        false, false),
            ("+OK",                                     false, false),
            ("+OK\r\n+OK\r\n",                          false, false),
            ("$2\r\na\r\n",                             false, false),
            ("$-2\r\n",                                 false, false),
            ("$9223372036854775807\r\na\r\n",           false, false),
            ("*9\r\n:1\r\n",                            false, false),
            ("*x\r\n",                                  false, false),
            (">1\r\n:1\r\n",                            false, false),
        ];
        for (bytes, whole, part) in table {
            assert_eq!(is_reply(bytes.as_bytes(), false), *whole, "{bytes:?}");
            assert_eq!(is_reply(bytes.as_bytes(), true), *part, "{bytes:?} as a part");
        }
    }

    #[test]
    fn a_body_over_the_limit_is_given_up_and_the_next_is_taken() {
        let mut joiner = Joiner::default();
        let part = [&[PART][..], &vec![7; FRAME_BYTES_MAX]].concat();
        for _ in 0..BODY_BYTES_MAX / FRAME_BYTES_MAX {
            assert_eq!(joiner.take(&part), Ok(None));
        }
        assert_eq!(joiner.take(&part), Err(DecodeError::Overflow));
        assert_eq!(joiner.take(&[WHOLE, 1]), Ok(Some(Body::Whole(&[1]))));
        assert_eq!(joiner.take(&[]), Err(DecodeError::Short));
        assert_eq!(joiner.take(&[9]), Err(DecodeError::Overflow));
    }
}
