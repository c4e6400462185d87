//! How a node becomes a member: a token that one member makes and one newcomer uses.
//!
//! The newcomer proves that it has the token's secret without sending it: an HMAC over keying material of the
//! very TLS connection that it asks on, so that nobody can carry the proof elsewhere.

mod token;

pub use kernel::{ClusterId, TokenId};
pub use token::{Secret, Token, TokenError};

use std::collections::BTreeMap;

use kernel::codec::{DecodeError, Reader, put_bytes};
use kernel::{Millis, NodeId};
use ring::hmac;
use thiserror::Error;

/// Tokens that are open or remembered as used at once.
pub const TOKENS_MAX: usize = 256;
/// Longest text that a newcomer sends with its request, in bytes: what the cluster must know of it.
pub const ABOUT_BYTES_MAX: usize = 2 * 1024;
/// Separates this HMAC from any other over the same secret.
const PROOF_DOMAIN: &[u8] = b"archipel join 1";

/// A newcomer's one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// Which token.
    pub token: TokenId,
    /// That it has the token's secret.
    pub proof: [u8; 32],
    /// What the cluster must know of it (its addresses, its zone), opaque here.
    pub about: Vec<u8>,
}

impl JoinRequest {
    /// The request of `node` with `token` on the connection that `binding` comes from.
    ///
    /// # Panics
    /// With more than [`ABOUT_BYTES_MAX`] about it.
    #[must_use]
    pub fn new(token: &Token, node: NodeId, binding: &[u8; 32], about: Vec<u8>) -> JoinRequest {
        assert!(about.len() <= ABOUT_BYTES_MAX, "what a newcomer tells of itself is small");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &token.secret.0);
        let tag = hmac::sign(&key, &proven(token.cluster, node, binding));
        let proof = tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes");
        JoinRequest { token: token.id(), proof, about }
    }

    /// Appends it as bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.token.0);
        out.extend(self.proof);
        put_bytes(out, &self.about);
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
        Ok(JoinRequest { token, proof, about: about.to_vec() })
    }
}

/// What the HMAC is over.
fn proven(cluster: ClusterId, node: NodeId, binding: &[u8; 32]) -> Vec<u8> {
    [PROOF_DOMAIN, &cluster.0, &node.0, binding].concat()
}

/// A request that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redeemed {
    /// The token is used now.
    Now,
    /// The same node used it before, and did not hear the answer.
    Before,
}

/// Why a request to join is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No token has this id: it was never made here, was revoked, or expired long ago.
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

/// There are too many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("there are {TOKENS_MAX} tokens already; revoke one, or wait until one expires")]
pub struct TooManyTokens;

/// The tokens of a cluster: each lets one node in, before it expires. Deterministic; time comes in.
#[derive(Debug, Default)]
pub struct Registry {
    tokens: BTreeMap<TokenId, Entry>,
}

#[derive(Debug)]
struct Entry {
    cluster: ClusterId,
    secret: Secret,
    expires: Millis,
    used: Option<NodeId>,
}

impl Registry {
    /// No tokens.
    #[must_use]
    pub fn new() -> Registry {
        Registry::default()
    }

    /// From now on `token` lets one node in.
    ///
    /// # Errors
    /// [`TooManyTokens`]; expired ones make room first.
    pub fn open(&mut self, now: Millis, token: &Token) -> Result<(), TooManyTokens> {
        if self.tokens.len() >= TOKENS_MAX {
            self.tokens.retain(|_, entry| entry.expires > now);
        }
        if self.tokens.len() >= TOKENS_MAX {
            return Err(TooManyTokens);
        }
        let (cluster, secret) = (token.cluster, token.secret.clone());
        self.tokens.insert(token.id(), Entry { cluster, secret, expires: token.expires, used: None });
        Ok(())
    }

    /// SHA-256 of the secret of `token`, by which the cluster knows it; `None` if there is no such token here.
    #[must_use]
    pub fn hash(&self, token: TokenId) -> Option<[u8; 32]> {
        self.tokens.get(&token).map(|entry| entry.secret.hash())
    }

    /// Takes a token back. True if there was one.
    pub fn revoke(&mut self, token: TokenId) -> bool {
        self.tokens.remove(&token).is_some()
    }

    /// Uses a token for `node`, whose connection has this `binding`.
    ///
    /// The proof is compared in constant time, and before anything is said about the token's state: who has no
    /// secret learns no more than that an id is known. A wrong proof does not use the token up.
    ///
    /// # Errors
    /// [`Refusal`]; the registry is as before.
    pub fn redeem(
        &mut self,
        now: Millis,
        node: NodeId,
        request: &JoinRequest,
        binding: &[u8; 32],
    ) -> Result<Redeemed, Refusal> {
        let entry = self.tokens.get_mut(&request.token).ok_or(Refusal::Unknown)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &entry.secret.0);
        hmac::verify(&key, &proven(entry.cluster, node, binding), &request.proof)
            .map_err(|_| Refusal::Proof)?;
        match entry.used {
            Some(user) if user == node => Ok(Redeemed::Before),
            Some(_) => Err(Refusal::Used),
            None if entry.expires <= now => Err(Refusal::Expired),
            None => {
                entry.used = Some(node);
                Ok(Redeemed::Now)
            }
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

    fn registry(tokens: &[&Token]) -> Registry {
        let mut registry = Registry::new();
        for token in tokens {
            registry.open(Millis(0), token).unwrap();
        }
        registry
    }

    #[test]
    fn a_token_lets_one_node_in_once_and_before_it_expires() {
        let good = token(5, 1000);
        let ask = |token: &Token, node| JoinRequest::new(token, node, &BINDING, Vec::new());
        let other = NodeId([8; 32]);
        let mut of_another_cluster = good.clone();
        of_another_cluster.cluster = ClusterId([3; 16]);
        let mut forged = ask(&good, NODE);
        forged.proof[31] ^= 1;
        #[rustfmt::skip] // columns
        let table = [
            // what is asked                    by      on           at     comes to
            (ask(&token(6, 1000), NODE),        NODE,   BINDING,     10,    Err(Refusal::Unknown)),
            (forged,                            NODE,   BINDING,     10,    Err(Refusal::Proof)),
            (ask(&good, NODE),                  other,  BINDING,     10,    Err(Refusal::Proof)), // stolen in transit
            (ask(&good, NODE),                  NODE,   [8; 32],     10,    Err(Refusal::Proof)), // replayed on another connection
            (ask(&of_another_cluster, NODE),    NODE,   BINDING,     10,    Err(Refusal::Proof)),
            (ask(&good, NODE),                  NODE,   BINDING,     1000,  Err(Refusal::Expired)),
            (ask(&good, NODE),                  NODE,   BINDING,     999,   Ok(Redeemed::Now)),   // none of the above used it up
            (ask(&good, NODE),                  NODE,   BINDING,     2000,  Ok(Redeemed::Before)),
            (ask(&good, other),                 other,  BINDING,     999,   Err(Refusal::Used)),
        ];
        let mut registry = registry(&[&good]);
        assert_eq!(registry.hash(good.id()), Some(good.secret.hash()));
        assert_eq!(registry.hash(token(6, 1000).id()), None);
        for (row, (request, node, binding, now, expected)) in table.into_iter().enumerate() {
            assert_eq!(registry.redeem(Millis(now), node, &request, &binding), expected, "row {row}");
        }
        assert!(registry.revoke(good.id()));
        assert!(!registry.revoke(good.id()));
        let again = ask(&good, NODE);
        assert_eq!(registry.redeem(Millis(10), NODE, &again, &BINDING), Err(Refusal::Unknown));
    }

    #[test]
    fn tokens_are_bounded_and_expired_ones_make_room() {
        let mut registry = Registry::new();
        for n in 0..TOKENS_MAX {
            let mut one = token(0, if n == 0 { 10 } else { 1000 });
            one.secret.0[..8].copy_from_slice(&n.to_le_bytes());
            registry.open(Millis(0), &one).unwrap();
        }
        assert_eq!(registry.open(Millis(9), &token(200, 1000)), Err(TooManyTokens));
        assert_eq!(registry.open(Millis(10), &token(200, 1000)), Ok(()));
        assert_eq!(registry.open(Millis(10), &token(201, 1000)), Err(TooManyTokens));
    }

    #[test]
    fn a_request_reads_back_and_is_bounded() {
        let request = JoinRequest::new(&token(5, 1), NODE, &BINDING, vec![1, 2, 3]);
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        assert_eq!(JoinRequest::decode(&bytes), Ok(request.clone()));
        for cut in 0..bytes.len() {
            assert_eq!(JoinRequest::decode(&bytes[..cut]), Err(DecodeError::Short));
        }
        let mut long = Vec::new();
        JoinRequest { about: vec![0; ABOUT_BYTES_MAX + 1], ..request }.encode(&mut long);
        assert_eq!(JoinRequest::decode(&long), Err(DecodeError::Overflow));
    }
}
