//! Letting others in: tokens are made here, and what a newcomer asks is judged by what the cluster's state has of them.
//!
//! A token's secret is kept nowhere: the state has its hash, until when it is good, and who has used it. So it does not
//! matter how often the member that made it was started again meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use control::{Newcomer, Operation, State};
use fabric::join::{ClusterId, Invitation, JoinRequest, Refusal, Secret, Token};
use kernel::{Millis, NodeId, Spoken, Version};
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
}

/// Why a newcomer is not let in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unwelcome {
    /// The state has no such token; one that is behind may have it soon.
    #[error("{0}", Refusal::Unknown)]
    Unknown,
    /// They would not understand each other.
    #[error(
        "the cluster is at version {is} of its formats, and this node speaks {spoken}: use the archipel of the other members"
    )]
    Version {
        /// What the cluster is at.
        is: Version,
        /// What the newcomer speaks.
        spoken: Spoken,
    },
    /// It is refused.
    #[error("{0}")]
    Refused(String),
}

/// How a member lets others in.
#[derive(Debug)]
pub struct Introducer {
    cluster: ClusterId,
    node: NodeId,
    /// Where it listens now.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Introducer {
    /// Of the member `node` of `cluster`, which listens at `addresses`.
    #[must_use]
    pub fn new(cluster: ClusterId, node: NodeId, addresses: Vec<SocketAddr>) -> Introducer {
        Introducer { cluster, node, addresses }
    }

    /// Makes a token that lives for `life`, and what the cluster must be asked before it is given away.
    ///
    /// # Errors
    /// [`IssueError`]; there is no token then.
    pub fn issue(&self, now: Millis, life: Duration) -> Result<(Token, Operation), IssueError> {
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
        let (hash, expires) = (token.secret.hash(), token.expires);
        let ask = Operation::IssueToken { token: token.id(), hash, expires };
        Ok((token, ask))
    }

    /// Judges what `node` asks on the connection that `binding` comes from: what the cluster must be asked now, or why
    /// it is refused. `state` is the cluster's, as far as this member has it.
    ///
    /// # Errors
    /// The reason, as the newcomer is told.
    pub fn examine(
        &self,
        now: Millis,
        state: &State,
        (node, request, binding): (NodeId, &JoinRequest, &[u8; 32]),
    ) -> Result<Admission, Unwelcome> {
        let secret = state.secrets().get(&request.token).ok_or(Unwelcome::Unknown)?;
        let (cluster, hash) = (self.cluster, secret.hash);
        let invitation = Invitation { cluster, hash, expires: secret.expires, used: secret.used };
        let refused = |text: String| Unwelcome::Refused(text);
        invitation.redeem(now, node, request, binding).map_err(|refusal| refused(refusal.to_string()))?;
        let (is, spoken) = (state.speaks(), request.spoken);
        if Spoken::ALL.at(is).agree(spoken).is_none() || spoken.oldest() > is {
            return Err(Unwelcome::Version { is, spoken });
        }
        let newcomer = Newcomer::decode(&request.about)
            .map_err(|error| refused(format!("what it says of itself cannot be read: {error}")))?;
        Ok(Admission { token: request.token, hash, node, newcomer })
    }
}
