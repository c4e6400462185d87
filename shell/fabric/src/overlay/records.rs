//! Signed records: who signs ours, and whose signatures count.

use kernel::{Micros, NodeId};
use p2p::kad::{Envelope, Namespaces, Record, Signed};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};

/// The validator of the overlay.
pub(super) type Valid = Namespaces<fn(&[u8; 32], &[u8], &[u8; 64]) -> bool>;

/// What counts as a record: signed ones, and public keys.
pub(super) const VALID: Valid = Namespaces(Signed(verify));

fn verify(publisher: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, publisher).verify(message, signature).is_ok()
}

/// Signs in the node's name.
pub(super) struct Signer {
    pub id: NodeId,
    pair: Ed25519KeyPair,
}

impl Signer {
    /// The signer whose key has this seed.
    pub fn new(id: NodeId, seed: &[u8; 32]) -> Signer {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are an Ed25519 seed");
        Signer { id, pair }
    }

    /// `payload` as a record under `name`, one of ours, as its version of this moment.
    pub fn sign(&self, name: &[u8], now: Micros, expires: Micros, payload: &[u8]) -> Record {
        let message = Envelope::signed_bytes(name, now.0, expires, payload);
        let signature = self.pair.sign(&message);
        let signature = signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes");
        let mut value = Vec::new();
        Envelope { publisher: self.id.0, sequence: now.0, expires, payload, signature }.encode(&mut value);
        Record::new(name, &value)
    }
}

#[cfg(test)]
mod tests {
    use p2p::kad::{Refusal, Validator};

    use super::*;
    use crate::Identity;

    #[test]
    fn what_we_sign_counts_until_its_date_and_for_nobody_else() {
        let (own, other) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let signer = Signer::new(own.id(), own.seed());
        let name = Envelope::name(&own.id().0, b"label");
        let record = signer.sign(&name, Micros(5), Micros(100), b"payload");
        let check = |now, name: &[u8], value: &[u8]| VALID.check(Micros(now), name, value);
        assert_eq!(check(99, &name, &record.value), Ok(()));
        assert_eq!(check(100, &name, &record.value), Err(Refusal::Expired));
        let elsewhere = Envelope::name(&own.id().0, b"elsewhere");
        assert_eq!(check(99, &elsewhere, &record.value), Err(Refusal::Forged));
        let theirs = Envelope::name(&other.id().0, b"label");
        assert_eq!(check(99, &theirs, &record.value), Err(Refusal::Forged));
        let mut changed = record.value.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(check(99, &name, &changed), Err(Refusal::Forged));
        let later = signer.sign(&name, Micros(6), Micros(100), b"payload");
        assert!(VALID.order(&name, &later.value, &record.value).is_gt());
    }
}
