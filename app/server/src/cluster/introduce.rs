//! Letting others in: the tokens that this member made, and whether what a newcomer asks is good.
//!
//! The secret of a token is kept here alone, in memory; the cluster knows its hash. So a newcomer must ask the member
//! that made its token, and a token is worth nothing once that member was started again.

use std::net::SocketAddr;
use std::time::Duration;

use control::{Newcomer, Operation};
use fabric::join::{ClusterId, JoinRequest, Registry, Secret, Token, TokenId, TooManyTokens};
use kernel::{Millis, NodeId};
use node::cluster::mind::Admission;
use thiserror::Error;

/// Longest life of a token, in seconds: a week.
pub const TOKEN_SECONDS_MAX: u64 = 7 * 24 * 3600;

/// Why no token is made.
#[derive(Debug, Error)]
pub enum IssueError {
    /// It would live too long, or not at all.
    #[error("a token lives 1 to {TOKEN_SECONDS_MAX} seconds")]
    Life,
    /// The system gave no random bytes.
    #[error("the system has no random bytes for a token")]
    NoRandom,
    /// There is no room.
    #[error(transparent)]
    TooMany(#[from] TooManyTokens),
}

/// The tokens of one member.
#[derive(Debug)]
pub struct Introducer {
    cluster: ClusterId,
    node: NodeId,
    addresses: Vec<SocketAddr>,
    registry: Registry,
}

impl Introducer {
    /// No tokens yet, of the member `node` of `cluster`, which listens at `addresses`.
    #[must_use]
    pub fn new(cluster: ClusterId, node: NodeId, addresses: Vec<SocketAddr>) -> Introducer {
        Introducer { cluster, node, addresses, registry: Registry::new() }
    }

    /// Makes a token that lives for `life`, and what the cluster must be asked before it is given away.
    ///
    /// # Errors
    /// [`IssueError`]; there is no token then.
    pub fn issue(&mut self, now: Millis, life: Duration) -> Result<(Token, Operation), IssueError> {
        if !(1..=TOKEN_SECONDS_MAX).contains(&life.as_secs()) {
            return Err(IssueError::Life);
        }
        let secret = Secret::draw().ok_or(IssueError::NoRandom)?;
        let token = Token {
            cluster: self.cluster,
            introducer: self.node,
            addresses: self.addresses.clone(),
            secret,
            expires: Millis(now.0 + life.as_secs() * 1000),
        };
        self.registry.open(now, &token)?;
        let (hash, expires) = (token.secret.hash(), token.expires);
        let ask = Operation::IssueToken { token: token.id(), hash, expires };
        Ok((token, ask))
    }

    /// A token that the cluster does not know after all.
    pub fn withdraw(&mut self, token: TokenId) {
        self.registry.revoke(token);
    }

    /// Judges what `node` asks on the connection that `binding` comes from: what the cluster must be asked now, or why
    /// it is refused.
    ///
    /// # Errors
    /// The reason, as the newcomer is told.
    pub fn examine(
        &mut self,
        now: Millis,
        node: NodeId,
        request: &JoinRequest,
        binding: &[u8; 32],
    ) -> Result<Admission, String> {
        self.registry.redeem(now, node, request, binding).map_err(|refusal| refusal.to_string())?;
        let newcomer = Newcomer::decode(&request.about)
            .map_err(|error| format!("what it says of itself cannot be read: {error}"))?;
        let hash = self.registry.hash(request.token).expect("a token that was redeemed is in the registry");
        Ok(Admission { token: request.token, hash, node, newcomer })
    }
}
