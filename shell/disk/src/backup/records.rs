//! The bytes of entries on their way into a backup and in it, read as they come, cut anywhere.
//!
//! A node sends what its log has of several groups (little-endian):
//!
//! ```text
//! entry       (1): group u32 | term varint | index varint | semantics u16 | time varint (us) | length varint | body
//! begun anew  (2): group u32
//! taken back  (3): group u32 | index varint
//! ```
//!
//! A backup keeps the entries of one group without the kind and the group.

use kernel::codec::{DecodeError, Reader, put_varint};
use kernel::{GroupId, Index, Micros, Term};

const ENTRY: u8 = 1;
const BEGUN_ANEW: u8 = 2;
const TAKEN_BACK: u8 = 3;
/// Most bytes before a body: the kind, the group, four varints and the version.
const HEAD_BYTES_MAX: usize = 1 + 4 + 4 * 10 + 2;
/// Longest body of an entry, as the log's.
pub const BODY_BYTES_MAX: u64 = 1 << 30;

/// What an entry says before its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The leader's term when it was proposed.
    pub term: Term,
    /// Its position.
    pub index: Index,
    /// The version of `apply` that it is meant for; 0 is the group's own.
    pub semantics: u16,
    /// The group's time when it was proposed; 0 of the group's own.
    pub time: Micros,
    /// Bytes of its body; at most [`BODY_BYTES_MAX`].
    pub bytes: u64,
}

impl Head {
    /// Appends it as a backup keeps it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.term.0);
        put_varint(out, self.index.0);
        out.extend(self.semantics.to_le_bytes());
        put_varint(out, self.time.0);
        put_varint(out, self.bytes);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Head, DecodeError> {
        let (term, index, semantics) = (Term(reader.varint()?), Index(reader.varint()?), reader.u16()?);
        let (time, bytes) = (Micros(reader.varint()?), reader.varint()?);
        let sound = index > Index(0) && index < Index(u64::MAX) && bytes <= BODY_BYTES_MAX;
        if sound { Ok(Head { term, index, semantics, time, bytes }) } else { Err(DecodeError::Overflow) }
    }
}

/// Whose entries come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A node's: each says of which group it is.
    Node,
    /// A backup's, of this group.
    Backup(GroupId),
}

/// A part of what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// An entry begins.
    Entry(GroupId, Head),
    /// The next bytes of its body; none of an empty one.
    Body(&'a [u8], Rest),
    /// The group begins with what comes next, and what was before it was another's.
    Anew(GroupId),
    /// What comes next does not follow what was before it: a snapshot took its place, or was given up.
    TakenBack(GroupId),
}

/// Whether more of a body comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// More.
    More,
    /// Nothing: the entry is whole.
    Done,
}

/// Reads entries.
#[derive(Debug)]
pub struct Records {
    framing: Framing,
    /// The beginning of a record.
    head: Vec<u8>,
    /// Bytes of the running body that are to come, once an entry has begun.
    body: Option<u64>,
}

impl Records {
    /// Nothing has come yet.
    #[must_use]
    pub const fn new(framing: Framing) -> Records {
        Records { framing, head: Vec::new(), body: None }
    }

    /// Whether what came so far ends with a whole record.
    #[must_use]
    pub const fn is_between(&self) -> bool {
        self.head.is_empty() && self.body.is_none()
    }

    /// Takes the next bytes and hands out what they have.
    ///
    /// # Errors
    /// They are no entries; or what `out` says.
    pub fn take<E: From<DecodeError>>(
        &mut self,
        mut bytes: &[u8],
        out: &mut dyn FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            if let Some(left) = self.body {
                let now = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let (piece, after) = bytes.split_at(now);
                bytes = after;
                if left == now as u64 {
                    self.body = None;
                    out(Piece::Body(piece, Rest::Done))?;
                    continue;
                }
                self.body = Some(left - now as u64);
                return if piece.is_empty() { Ok(()) } else { out(Piece::Body(piece, Rest::More)) };
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let had = self.head.len();
            let now = bytes.len().min(HEAD_BYTES_MAX - had);
            self.head.extend_from_slice(&bytes[..now]);
            let mut reader = Reader::new(&self.head);
            let decoded = decode(self.framing, &mut reader);
            let read = self.head.len() - reader.rest().len();
            let piece = match decoded {
                Ok(piece) => piece,
                Err(DecodeError::Short) if self.head.len() < HEAD_BYTES_MAX => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            bytes = &bytes[read - had..];
            self.head.clear();
            if let Piece::Entry(_, head) = piece {
                self.body = Some(head.bytes);
            }
            out(piece)?;
        }
    }
}

fn decode(framing: Framing, reader: &mut Reader<'_>) -> Result<Piece<'static>, DecodeError> {
    let Framing::Backup(group) = framing else {
        let (kind, group) = (reader.u8()?, GroupId(reader.u32()?));
        return match kind {
            ENTRY => Ok(Piece::Entry(group, Head::decode(reader)?)),
            BEGUN_ANEW => Ok(Piece::Anew(group)),
            TAKEN_BACK => reader.varint().map(|_| Piece::TakenBack(group)),
            _ => Err(DecodeError::Invalid),
        };
    };
    Ok(Piece::Entry(group, Head::decode(reader)?))
}

#[cfg(test)]
pub(super) mod tests {
    use kernel::Rng;

    use super::*;

    /// An entry as a node sends it.
    pub fn sent(group: GroupId, head: Head, body: &[u8], out: &mut Vec<u8>) {
        out.push(ENTRY);
        out.extend(group.0.to_le_bytes());
        Head { bytes: body.len() as u64, ..head }.encode(out);
        out.extend_from_slice(body);
    }

    /// That a group begins anew, or does not go on.
    pub fn anew(group: GroupId, taken_back: Option<Index>, out: &mut Vec<u8>) {
        out.push(if taken_back.is_some() { TAKEN_BACK } else { BEGUN_ANEW });
        out.extend(group.0.to_le_bytes());
        taken_back.iter().for_each(|index| put_varint(out, index.0));
    }

    fn head(index: u64, semantics: u16) -> Head {
        Head { term: Term(1 << 40), index: Index(index), semantics, time: Micros(u64::MAX), bytes: 0 }
    }

    /// What is read of `bytes` that come in these parts: whole bodies.
    fn read(parts: &[&[u8]]) -> Result<Vec<(GroupId, Option<Head>, Vec<u8>)>, DecodeError> {
        let (mut records, mut found) = (Records::new(Framing::Node), Vec::new());
        for part in parts {
            records.take(part, &mut |piece| -> Result<(), DecodeError> {
                match piece {
                    Piece::Entry(group, head) => found.push((group, Some(head), Vec::new())),
                    Piece::Anew(group) | Piece::TakenBack(group) => found.push((group, None, Vec::new())),
                    Piece::Body(bytes, _) => {
                        found.last_mut().expect("a head came before").2.extend_from_slice(bytes);
                    }
                }
                Ok(())
            })?;
        }
        assert!(records.is_between());
        Ok(found)
    }

    #[test]
    fn entries_read_back_however_their_bytes_are_cut() {
        let mut bytes = Vec::new();
        sent(GroupId(7), head(1, 1), b"", &mut bytes);
        anew(GroupId(8), None, &mut bytes);
        sent(GroupId(8), head(u64::MAX - 1, u16::MAX), &[3; 1000], &mut bytes);
        anew(GroupId(8), Some(Index(1 << 63)), &mut bytes);
        sent(GroupId(9), head(2, 0), b"x", &mut bytes);
        let whole = read(&[&bytes]).unwrap();
        assert_eq!(whole.len(), 5);
        assert_eq!(whole[2].1.unwrap().bytes, 1000);
        assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()).unwrap(), whole);
        let mut rng = Rng::new(5);
        for _ in 0..200 {
            let (one, other) = bytes.split_at(rng.below(bytes.len() as u64) as usize);
            let (two, three) = other.split_at(rng.below(other.len() as u64) as usize);
            assert_eq!(read(&[one, two, three]).unwrap(), whole);
        }
        let mut records = Records::new(Framing::Node);
        let mut none = |_: Piece<'_>| -> Result<(), DecodeError> { Ok(()) };
        records.take(&bytes[..bytes.len() - 1], &mut none).unwrap();
        assert!(!records.is_between(), "a body breaks off");
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let entry = |head: Head| {
            let mut out = vec![ENTRY, 0, 0, 0, 0];
            head.encode(&mut out);
            out
        };
        let table = [
            vec![9, 0, 0, 0, 0],
            entry(head(0, 1)),
            entry(head(u64::MAX, 1)),
            entry(Head { bytes: BODY_BYTES_MAX + 1, ..head(1, 1) }),
            [vec![ENTRY, 0, 0, 0, 0], vec![0xff; 60]].concat(),
        ];
        for (row, bytes) in table.iter().enumerate() {
            assert!(read(&[bytes]).is_err(), "row {row}");
        }
    }
}
