//! How a node becomes a member: a token that one member makes and one newcomer uses.
//!
//! The newcomer proves that it has the token's secret without sending it: an HMAC over keying material of the
//! very TLS connection that it asks on, so that nobody can carry the proof elsewhere. The key is the secret's hash,
//! which the cluster's state has: so a member can judge it that was started again since it made the token.

mod rendezvous;
mod token;

pub use kernel::{ClusterId, TokenId};
pub use rendezvous::{MEMBERS_MAX, Rendezvous};
pub use token::{Secret, Token, TokenError};

use kernel::codec::{DecodeError, Reader, put_bytes};
use kernel::{Millis, NodeId, Spoken, Version};
use ring::hmac;
use thiserror::Error;

/// Longest text that a newcomer sends with its request, in bytes: what the cluster must know of it.
pub const ABOUT_BYTES_MAX: usize = 2 * 1024;
/// Separates this HMAC from any other over the same secret.
const PROOF_DOMAIN: &[u8] = b"archipel join 2";

/// A newcomer's one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// Which token.
    pub token: TokenId,
    /// That it has the token's secret.
    pub proof: [u8; 32],
    /// What the cluster must know of it (its addresses, its zone), opaque here.
    pub about: Vec<u8>,
    /// What the newcomer speaks. Version 2 does not say it, and does not read it.
    pub spoken: Spoken,
}

/// What a newcomer speaks that does not say so.
const UNSAID: Spoken = Spoken::new(Version(1)..=Version(2)).expect("two comes after one");

impl JoinRequest {
    /// The request of `node`, which speaks `spoken`, with `token` on the connection that `binding` comes from.
    ///
    /// # Panics
    /// With more than [`ABOUT_BYTES_MAX`] about it.
    #[must_use]
    pub fn new(
        token: &Token,
        (node, spoken): (NodeId, Spoken),
        binding: &[u8; 32],
        about: Vec<u8>,
    ) -> JoinRequest {
        assert!(about.len() <= ABOUT_BYTES_MAX, "what a newcomer tells of itself is small");
        let tag = hmac::sign(&key(&token.secret.hash()), &proven(token.cluster, node, binding));
        let proof = tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes");
        JoinRequest { token: token.id(), proof, about, spoken }
    }

    /// Appends it as bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.token.0);
        out.extend(self.proof);
        put_bytes(out, &self.about);
        out.extend([self.spoken.newest().0, self.spoken.oldest().0]);
    }

    /// Reads it from bytes.
    ///
    /// # Errors
    /// [`DecodeError`]; nothing is allocated for what is too long.
    pub fn decode(bytes: &[u8]) -> Result<JoinRequest, DecodeError> {
        let mut reader = Reader::new(bytes);
        let (token, proof, about) = (TokenId(reader.array()?), reader.array()?, reader.bytes()?);
        if about.len() > ABOUT_BYTES_MAX {
            return Err(DecodeError::Overflow);
        }
        let about = about.to_vec();
        if reader.is_empty() {
            return Ok(JoinRequest { token, proof, about, spoken: UNSAID });
        }
        let (newest, oldest) = (Version(reader.u8()?), Version(reader.u8()?));
        let spoken = Spoken::new(oldest..=newest).ok_or(DecodeError::Invalid)?;
        Ok(JoinRequest { token, proof, about, spoken })
    }
}

fn key(hash: &[u8; 32]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, hash)
}

/// What the HMAC is over.
fn proven(cluster: ClusterId, node: NodeId, binding: &[u8; 32]) -> Vec<u8> {
    [PROOF_DOMAIN, &cluster.0, &node.0, binding].concat()
}

/// A request that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redeemed {
    /// Nobody has used the token.
    Now,
    /// The same node used it before, and did not hear the answer.
    Before,
}

/// Why a request to join is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No token has this id: it was never made in this cluster, was revoked, or expired long ago.
    #[error("this cluster has no such token; make a new one with `archipel cluster token`")]
    Unknown,
    /// It was made for a shorter time.
    #[error("the token expired; make a new one with `archipel cluster token`")]
    Expired,
    /// Another node joined with it.
    #[error("the token was used by another node; make one for each with `archipel cluster token`")]
    Used,
    /// The proof is not of this token's secret, this node and this connection.
    #[error("the proof of the token's secret is wrong")]
    Proof,
}

/// What a cluster keeps of a token: enough to let one node in before it expires, and not the secret.
///
/// Who has this can prove what the secret proves, so it is told to members only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// The cluster that the token is for.
    pub cluster: ClusterId,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// Until when.
    pub expires: Millis,
    /// Who has joined with it.
    pub used: Option<NodeId>,
}

impl Invitation {
    /// Of a token that nobody has used.
    #[must_use]
    pub fn of(token: &Token) -> Invitation {
        Invitation { cluster: token.cluster, hash: token.secret.hash(), expires: token.expires, used: None }
    }

    /// Whether `node`, whose connection has this `binding`, may join by it. Deterministic; time comes in.
    ///
    /// The proof is compared in constant time, and before anything is said about the token's state: who has no
    /// secret learns no more than that an id is known. Nothing is used up by it: that is the cluster's to say.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn redeem(
        &self,
        now: Millis,
        node: NodeId,
        request: &JoinRequest,
        binding: &[u8; 32],
    ) -> Result<Redeemed, Refusal> {
        hmac::verify(&key(&self.hash), &proven(self.cluster, node, binding), &request.proof)
            .map_err(|_| Refusal::Proof)?;
        match self.used {
            Some(user) if user == node => Ok(Redeemed::Before),
            Some(_) => Err(Refusal::Used),
            None if self.expires <= now => Err(Refusal::Expired),
            None => Ok(Redeemed::Now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([7; 32]);
    const BINDING: [u8; 32] = [9; 32];

    fn token(secret: u8, expires: u64) -> Token {
        Token {
            cluster: ClusterId([1; 16]),
            introducer: NodeId([2; 32]),
            addresses: vec!["127.0.0.1:7401".parse().unwrap()],
            secret: Secret([secret; 16]),
            expires: Millis(expires),
        }
    }

    #[test]
    fn a_token_lets_one_node_in_once_and_before_it_expires() {
        let good = token(5, 1000);
        let ask = |token: &Token, node| JoinRequest::new(token, (node, Spoken::ALL), &BINDING, Vec::new());
        let other = NodeId([8; 32]);
        let mut of_another_cluster = good.clone();
        of_another_cluster.cluster = ClusterId([3; 16]);
        let mut forged = ask(&good, NODE);
        forged.proof[31] ^= 1;
        #[rustfmt::skip] // columns
        let table = [
            // what is asked                    by      on           at     comes to
            (ask(&token(6, 1000), NODE),        NODE,   BINDING,     10,    Err(Refusal::Proof)),
            (forged,                            NODE,   BINDING,     10,    Err(Refusal::Proof)),
            (ask(&good, NODE),                  other,  BINDING,     10,    Err(Refusal::Proof)), // stolen in transit
            (ask(&good, NODE),                  NODE,   [8; 32],     10,    Err(Refusal::Proof)), // replayed on another connection
            (ask(&of_another_cluster, NODE),    NODE,   BINDING,     10,    Err(Refusal::Proof)),
            (ask(&good, NODE),                  NODE,   BINDING,     1000,  Err(Refusal::Expired)),
            (ask(&good, NODE),                  NODE,   BINDING,     999,   Ok(Redeemed::Now)),   // none of the above used it up
            (ask(&good, NODE),                  NODE,   BINDING,     2000,  Ok(Redeemed::Before)),
            (ask(&good, other),                 other,  BINDING,     999,   Err(Refusal::Used)),
        ];
        let mut invitation = Invitation::of(&good);
        for (row, (request, node, binding, now, expected)) in table.into_iter().enumerate() {
            let redeemed = invitation.redeem(Millis(now), node, &request, &binding);
            assert_eq!(redeemed, expected, "row {row}");
            if redeemed == Ok(Redeemed::Now) {
                invitation.used = Some(node);
            }
        }
    }

    #[test]
    fn a_request_reads_back_and_is_bounded() {
        let request = JoinRequest::new(&token(5, 1), (NODE, Spoken::ALL), &BINDING, vec![1, 2, 3]);
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        assert_eq!(JoinRequest::decode(&bytes), Ok(request.clone()));
        let said = bytes.len() - 2;
        for cut in (0..bytes.len()).filter(|cut| *cut != said) {
            assert_eq!(JoinRequest::decode(&bytes[..cut]), Err(DecodeError::Short));
        }
        // What version 2 writes; and what it writes, it reads of us too: it looks no further.
        let older = JoinRequest { spoken: UNSAID, ..request.clone() };
        assert_eq!(JoinRequest::decode(&bytes[..said]), Ok(older));
        let reversed = [&bytes[..said], &[2, 3]].concat();
        assert_eq!(JoinRequest::decode(&reversed), Err(DecodeError::Invalid));
        let mut long = Vec::new();
        JoinRequest { about: vec![0; ABOUT_BYTES_MAX + 1], ..request }.encode(&mut long);
        assert_eq!(JoinRequest::decode(&long), Err(DecodeError::Overflow));
    }
}
