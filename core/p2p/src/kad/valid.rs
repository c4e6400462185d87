//! The names that a node of ours keeps values under, each with its own proof.

use core::cmp::Ordering;

use kernel::Micros;
use sha2::{Digest, Sha256};

use super::record::{Refusal, SIGNED_PREFIX, Signed, Validator};

/// What the name of a public key's record begins with, in libp2p's Kademlia; the multihash of the key follows.
pub const PUBLIC_KEY_PREFIX: &[u8] = b"/pk/";
/// Multihash of SHA-256: its code and the digest's length.
const SHA2_256: &[u8] = &[0x12, 0x20];
/// Multihash that is the bytes themselves: its code; one byte of length follows.
const IDENTITY: u8 = 0x00;

/// Signed records under [`SIGNED_PREFIX`], and libp2p's public keys under [`PUBLIC_KEY_PREFIX`], which are right when they
/// are what their name is the hash of. Other names are refused: nobody could say which of two values counts.
#[derive(Clone, Copy, Debug)]
pub struct Namespaces<F>(pub Signed<F>);

impl<F: Fn(&[u8; 32], &[u8], &[u8; 64]) -> bool> Validator for Namespaces<F> {
    fn check(&self, now: Micros, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        if name.starts_with(SIGNED_PREFIX) {
            return self.0.check(now, name, value);
        }
        let multihash = name.strip_prefix(PUBLIC_KEY_PREFIX).ok_or(Refusal::Name)?;
        let holds = match (multihash.strip_prefix(SHA2_256), multihash) {
            (Some(digest), _) => digest == &Sha256::digest(value)[..],
            (None, [IDENTITY, length, inline @ ..]) => {
                usize::from(*length) == inline.len() && !inline.is_empty() && inline == value
            }
            (None, _) => return Err(Refusal::Name),
        };
        if holds { Ok(()) } else { Err(Refusal::Forged) }
    }

    fn order(&self, name: &[u8], a: &[u8], b: &[u8]) -> Ordering {
        if name.starts_with(SIGNED_PREFIX) { self.0.order(name, a, b) } else { a.cmp(b) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_kept_only_under_its_own_hash() {
        let valid = Namespaces(Signed(|_: &[u8; 32], _: &[u8], _: &[u8; 64]| true));
        let key: &[u8] = b"\x08\x01\x12\x20 a public key of libp2p";
        let name = |parts: &[&[u8]]| [&[PUBLIC_KEY_PREFIX], parts].concat().concat();
        let digest = Sha256::digest(key);
        let length = [key.len() as u8];
        #[rustfmt::skip] // columns
        let table = [
            (name(&[SHA2_256, &digest]),                 key,         Ok(())),
            (name(&[SHA2_256, &digest]),                 &key[1..],   Err(Refusal::Forged)),
            (name(&[SHA2_256, &digest[1..]]),            key,         Err(Refusal::Forged)),
            (name(&[&[IDENTITY], &length, key]),         key,         Ok(())),
            (name(&[&[IDENTITY], &length, key]),         &key[1..],   Err(Refusal::Forged)),
            (name(&[&[IDENTITY, 9], key]),               key,         Err(Refusal::Forged)),
            (name(&[&[IDENTITY, 0]]),                    b"",         Err(Refusal::Forged)),
            (name(&[&[0x13, 0x20], &digest]),            key,         Err(Refusal::Name)),
            (name(&[]),                                  key,         Err(Refusal::Name)),
            (b"/elsewhere/x".to_vec(),                   key,         Err(Refusal::Name)),
            (SIGNED_PREFIX.to_vec(),                     key,         Err(Refusal::Name)),
        ];
        for (name, value, expected) in table {
            assert_eq!(valid.check(Micros(1), &name, value), expected, "{name:?}");
        }
    }
}
