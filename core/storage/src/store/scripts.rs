//! The scripts a partition remembers: a logged `EVALSHA` must find its body again on replay.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};
use sha1::{Digest as _, Sha1};

use crate::Fault;

/// Bytes of bodies that one partition remembers. Beyond it, bodies that only `EVAL` brought are
/// forgotten, oldest first; bodies that `SCRIPT LOAD` brought are kept, and more of them are refused.
pub const SCRIPT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What a body costs besides its bytes.
const SCRIPT_OVERHEAD_BYTES: usize = 64;

/// A script's name: the SHA-1 of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScriptId(pub [u8; 20]);

impl ScriptId {
    /// The name of `body`.
    #[must_use]
    pub fn of(body: &[u8]) -> ScriptId {
        ScriptId(Sha1::digest(body).into())
    }

    /// The name that a client spelled in 40 hexadecimal digits of any case.
    #[must_use]
    pub fn parse(hex: &[u8]) -> Option<ScriptId> {
        let digits: &[u8; 40] = hex.try_into().ok()?;
        let mut id = [0; 20];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = (high << 4 | low) as u8;
        }
        Some(ScriptId(id))
    }
}

impl core::fmt::Display for ScriptId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Who brought a body, which decides whether it may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// `EVAL`: remembered as a courtesy.
    Evaluated,
    /// `SCRIPT LOAD`: kept until `SCRIPT FLUSH`.
    Loaded,
}

#[derive(Debug)]
struct Remembered {
    body: Box<[u8]>,
    brought: Brought,
}

/// Bodies by name. Part of the state: checkpoints carry it through [`Scripts::encode`].
///
/// Invariant: `bytes` is the cost of all bodies and at most [`SCRIPT_BYTES_MAX`]; `evaluated` holds the
/// names of the bodies that may be forgotten, oldest first, each once.
#[derive(Debug, Default)]
pub struct Scripts {
    bodies: BTreeMap<ScriptId, Remembered>,
    evaluated: VecDeque<ScriptId>,
    bytes: usize,
    changed: bool,
}

impl Scripts {
    /// The body called `id`.
    #[must_use]
    pub fn get(&self, id: ScriptId) -> Option<&[u8]> {
        self.bodies.get(&id).map(|script| &*script.body)
    }

    /// Scripts remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bodies.len()
    }

    /// True if none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bodies.is_empty()
    }

    /// What they weigh, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether anything changed since the last call: the next checkpoint must encode it again.
    pub const fn take_changed(&mut self) -> bool {
        core::mem::replace(&mut self.changed, false)
    }

    /// Remembers `body`, whose name is `id`. An evaluated body that does not fit is not remembered.
    ///
    /// # Errors
    /// A loaded body does not fit, even with all evaluated ones forgotten.
    pub fn insert(&mut self, id: ScriptId, body: &[u8], brought: Brought) -> Result<(), Fault> {
        if let Some(known) = self.bodies.get_mut(&id) {
            if known.brought == Brought::Evaluated && brought == Brought::Loaded {
                known.brought = Brought::Loaded;
                self.evaluated.retain(|other| *other != id);
                self.changed = true;
            }
            return Ok(());
        }
        let cost = body.len() + SCRIPT_OVERHEAD_BYTES;
        let pinned: usize = match brought {
            Brought::Evaluated => 0,
            Brought::Loaded => self.loaded_bytes(),
        };
        if pinned + cost > SCRIPT_BYTES_MAX {
            return match brought {
                Brought::Evaluated => Ok(()),
                Brought::Loaded => Err(Fault::Text(
                    "ERR the scripts of this database are over their limit of 32 MiB; run SCRIPT FLUSH, and \
                     pass what varies as ARGV instead of in the script's text",
                )),
            };
        }
        while self.bytes + cost > SCRIPT_BYTES_MAX {
            let Some(oldest) = self.evaluated.pop_front() else { return Ok(()) };
            let forgotten = self.bodies.remove(&oldest).expect("every evaluated name has a body");
            self.bytes -= forgotten.body.len() + SCRIPT_OVERHEAD_BYTES;
        }
        self.bytes += cost;
        self.changed = true;
        if brought == Brought::Evaluated {
            self.evaluated.push_back(id);
        }
        self.bodies.insert(id, Remembered { body: body.into(), brought });
        Ok(())
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        *self = Scripts { changed: true, ..Scripts::default() };
    }

    /// Appends all bodies: first the loaded ones, then the evaluated ones, oldest first.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let loaded = self.bodies.values().filter(|script| script.brought == Brought::Loaded);
        put_varint(out, (self.bodies.len() - self.evaluated.len()) as u64);
        loaded.for_each(|script| put_bytes(out, &script.body));
        put_varint(out, self.evaluated.len() as u64);
        for body in self.evaluated.iter().filter_map(|id| self.get(*id)) {
            put_bytes(out, body);
        }
    }

    /// Reads what [`Scripts::encode`] wrote; names are computed anew.
    ///
    /// # Errors
    /// The bytes are cut, or hold more than the limit allows.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Scripts, DecodeError> {
        let mut scripts = Scripts::default();
        for brought in [Brought::Loaded, Brought::Evaluated] {
            for _ in 0..reader.len()? {
                let body = reader.bytes()?;
                scripts.insert(ScriptId::of(body), body, brought).map_err(|_| DecodeError::Overflow)?;
            }
        }
        scripts.changed = false;
        Ok(scripts)
    }

    fn loaded_bytes(&self) -> usize {
        let evaluated = self.evaluated.iter().filter_map(|id| self.get(*id));
        self.bytes - evaluated.map(|body| body.len() + SCRIPT_OVERHEAD_BYTES).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_the_sha1_in_hexadecimal() {
        let id = ScriptId::of(b"return 1");
        let hex = alloc::format!("{id}");
        assert_eq!(hex, "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(ScriptId::parse(hex.to_ascii_uppercase().as_bytes()), Some(id));
        for bad in [&b"e0e1"[..], b"", b"z0e1f9fabfc9d4800c877a703b823ac0578ff8db", &[b'a'; 41]] {
            assert_eq!(ScriptId::parse(bad), None);
        }
    }

    #[test]
    fn evaluated_bodies_make_room_and_loaded_ones_stay() {
        let body = |n: u8| vec![n; SCRIPT_BYTES_MAX / 4];
        let mut scripts = Scripts::default();
        for (n, brought) in [(1, Brought::Evaluated), (2, Brought::Loaded), (3, Brought::Evaluated)] {
            scripts.insert(ScriptId::of(&body(n)), &body(n), brought).unwrap();
        }
        scripts.insert(ScriptId::of(&body(4)), &body(4), Brought::Loaded).unwrap();
        let known = |scripts: &Scripts| {
            (1..8).filter(|&n| scripts.get(ScriptId::of(&body(n))).is_some()).collect::<Vec<u8>>()
        };
        assert_eq!(known(&scripts), [2, 3, 4]);
        scripts.insert(ScriptId::of(&body(5)), &body(5), Brought::Loaded).unwrap();
        assert_eq!(known(&scripts), [2, 4, 5]);
        assert!(scripts.insert(ScriptId::of(&body(6)), &body(6), Brought::Loaded).is_err());
        scripts.insert(ScriptId::of(&body(7)), &body(7), Brought::Evaluated).unwrap();
        assert_eq!(known(&scripts), [2, 4, 5]);
        assert!(scripts.bytes() <= SCRIPT_BYTES_MAX);
        scripts.clear();
        assert_eq!((scripts.len(), scripts.bytes()), (0, 0));
        assert!(scripts.is_empty());
    }

    proptest! {
        #[test]
        fn scripts_read_back_with_their_order(bodies: Vec<(Vec<u8>, bool)>) {
            let mut scripts = Scripts::default();
            for (body, loaded) in &bodies {
                let brought = if *loaded { Brought::Loaded } else { Brought::Evaluated };
                scripts.insert(ScriptId::of(body), body, brought).unwrap();
            }
            let mut bytes = Vec::new();
            scripts.encode(&mut bytes);
            let read = Scripts::decode(&mut Reader::new(&bytes)).unwrap();
            prop_assert_eq!(&read.evaluated, &scripts.evaluated);
            prop_assert_eq!(read.bytes, scripts.bytes);
            for (body, _) in &bodies {
                prop_assert_eq!(read.get(ScriptId::of(body)), Some(&body[..]));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Scripts::decode(&mut Reader::new(&bytes));
        }
    }
}
