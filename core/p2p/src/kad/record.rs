//! Records: what is stored under a name, and who may say what is valid.
//!
//! The core has no cryptography: a [`Validator`] is handed in. [`Signed`] is the one for our own records: the
//! publisher's key is part of the name, a sequence orders versions, a date ends them, and a host function checks
//! the signature over all of it.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

use kernel::Micros;
use kernel::codec::{Reader, put_bytes, put_varint};
use thiserror::Error;

use crate::Key;

/// Longest name of a record, in bytes.
pub const NAME_BYTES_MAX: usize = 1024;
/// Largest value of a record, in bytes: with its name and a full list of peers it fits a message of 16 KiB.
pub const VALUE_BYTES_MAX: usize = 12 * 1024;

/// A value under a name. Cheap to clone: an owner sends it to many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The name, whose SHA-256 is the key.
    pub name: Arc<[u8]>,
    /// The value.
    pub value: Arc<[u8]>,
    /// Seconds it has left to live; 0 leaves it to the one who stores it.
    pub ttl: u32,
}

impl Record {
    /// A record whose life the storing nodes decide.
    #[must_use]
    pub fn new(name: &[u8], value: &[u8]) -> Record {
        Record { name: name.into(), value: value.into(), ttl: 0 }
    }

    /// Where it belongs.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::of(&self.name)
    }

    /// Whether its name and value are within their limits.
    ///
    /// # Errors
    /// [`Refusal::Name`] or [`Refusal::TooLarge`].
    pub fn fits(&self) -> Result<(), Refusal> {
        match (self.name.len(), self.value.len()) {
            (name, _) if name > NAME_BYTES_MAX => Err(Refusal::Name),
            (_, bytes) if bytes > VALUE_BYTES_MAX => Err(Refusal::TooLarge { bytes }),
            _ => Ok(()),
        }
    }

    /// What it takes of a store's bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.name.len() + self.value.len()
    }
}

/// Why a record is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The name is not one that the validator knows, or is too long.
    #[error("the name is not valid")]
    Name,
    /// The value is not the publisher's.
    #[error("the signature does not hold")]
    Forged,
    /// Its date has passed.
    #[error("the record has expired")]
    Expired,
    /// A newer version is here: an old one was sent again.
    #[error("a newer version is known")]
    Older,
    /// The value is too large.
    #[error("a value of {bytes} bytes, where {VALUE_BYTES_MAX} are the most")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The store has as much as it may have.
    #[error("the store is full")]
    Full,
    /// This sender has stored as much as one may.
    #[error("the sender has its share")]
    Share,
    /// A peer refused it and did not say why, as links that have no word for it do.
    #[error("the peer refused it without a reason")]
    Unsaid,
}

/// Says which values a name may have, and which of two counts.
pub trait Validator {
    /// Whether `value` may be stored under `name` and told to others now.
    ///
    /// # Errors
    /// [`Refusal`] with the reason.
    fn check(&self, now: Micros, name: &[u8], value: &[u8]) -> Result<(), Refusal>;

    /// How the versions `a` and `b`, both valid, are ordered; the greater one counts.
    fn order(&self, name: &[u8], a: &[u8], b: &[u8]) -> Ordering;
}

/// What a signed record's name begins with; the publisher's 32 bytes follow, then a label.
pub const SIGNED_PREFIX: &[u8] = b"/archipel/";

/// A signed, sequenced value: what lies in the value of a record under a signed name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The publisher's Ed25519 public key.
    pub publisher: [u8; 32],
    /// The version; a publisher never uses one twice.
    pub sequence: u64,
    /// After this moment it is not valid any more.
    pub expires: Micros,
    /// What was published.
    pub payload: &'a [u8],
    /// Over [`Envelope::signed_bytes`].
    pub signature: [u8; 64],
}

const VERSION: u8 = 1;

impl<'a> Envelope<'a> {
    /// The name of `label` in `publisher`'s space.
    #[must_use]
    pub fn name(publisher: &[u8; 32], label: &[u8]) -> Vec<u8> {
        [SIGNED_PREFIX, publisher, label].concat()
    }

    /// The bytes that the publisher signs: purpose, name, sequence, date and payload, so that no part can be used
    /// elsewhere.
    #[must_use]
    pub fn signed_bytes(name: &[u8], sequence: u64, expires: Micros, payload: &[u8]) -> Vec<u8> {
        let mut out = b"archipel signed record 1\0".to_vec();
        put_bytes(&mut out, name);
        put_varint(&mut out, sequence);
        put_varint(&mut out, expires.0);
        put_bytes(&mut out, payload);
        out
    }

    /// Appends it as a record's value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.publisher);
        put_varint(out, self.sequence);
        put_varint(out, self.expires.0);
        out.extend_from_slice(&self.signature);
        put_bytes(out, self.payload);
    }

    /// Reads a value; `None` if it is not one in whole.
    #[must_use]
    pub fn decode(value: &'a [u8]) -> Option<Envelope<'a>> {
        let mut reader = Reader::new(value);
        if reader.u8().ok()? != VERSION {
            return None;
        }
        let publisher = reader.array().ok()?;
        let sequence = reader.varint().ok()?;
        let expires = Micros(reader.varint().ok()?);
        let signature = reader.array().ok()?;
        let payload = reader.bytes().ok()?;
        reader.is_empty().then_some(Envelope { publisher, sequence, expires, payload, signature })
    }
}

/// The validator of signed records: `verify(publisher, message, signature)` is the host's.
#[derive(Clone, Copy, Debug)]
pub struct Signed<F>(pub F);

impl<F: Fn(&[u8; 32], &[u8], &[u8; 64]) -> bool> Validator for Signed<F> {
    fn check(&self, now: Micros, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let rest = name.strip_prefix(SIGNED_PREFIX).ok_or(Refusal::Name)?;
        let (publisher, _label) = rest.split_first_chunk::<32>().ok_or(Refusal::Name)?;
        let envelope = Envelope::decode(value).ok_or(Refusal::Forged)?;
        if envelope.publisher != *publisher {
            return Err(Refusal::Forged);
        }
        // The date first: it is cheap, and an old record stays as forged or honest as it was.
        if envelope.expires <= now {
            return Err(Refusal::Expired);
        }
        let Envelope { sequence, expires, payload, signature, .. } = envelope;
        let signed = Envelope::signed_bytes(name, sequence, expires, payload);
        if (self.0)(publisher, &signed, &signature) { Ok(()) } else { Err(Refusal::Forged) }
    }

    fn order(&self, _name: &[u8], a: &[u8], b: &[u8]) -> Ordering {
        let rank = |value| Envelope::decode(value).map(|envelope| (envelope.sequence, envelope.expires));
        // Two values of one sequence are the publisher's fault; all nodes then settle on the same one.
        rank(a).cmp(&rank(b)).then_with(|| a.cmp(b))
    }
}
