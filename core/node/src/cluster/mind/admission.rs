//! Newcomers: the host checks the proof of a token's secret, the cluster consumes the token, and the newcomer is told
//! whom it will talk to.

use control::{Newcomer, Request};
use kernel::TokenId;

use super::*;
use crate::cluster::formation::{SELF, draw_id};

/// A node that has proven to this one that it has a token's secret.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Which token.
    pub token: TokenId,
    /// SHA-256 of the secret that was proven.
    pub hash: [u8; 32],
    /// The newcomer, by the key that it has proven.
    pub node: NodeId,
    /// What it says of itself.
    pub newcomer: Newcomer,
}

impl Mind {
    /// Lets a newcomer in, if its token is good. The [`Effect::Answer`] is an [`Answer::Welcome`], or as with
    /// [`Mind::ask`]; a newcomer that did not hear it asks again and gets the same.
    pub fn admit(&mut self, now: Micros, ticket: Ticket, admission: Admission) {
        let Admission { token, hash, node, newcomer: Newcomer { zone, addresses } } = admission;
        let operation = Operation::Admit { token, hash, node, zone, addresses };
        let by = Name::new(SELF).expect("it is a name");
        let request = Request { id: draw_id(&mut self.rng), by, at: now.millis(), operation };
        self.begin(now, ticket, request, Some(node));
    }

    pub(super) fn welcome(&self, node: NodeId) -> Answer {
        let welcome = self.state.roster().and_then(|roster| Welcome::new(roster, node));
        match welcome {
            Some(welcome) => Answer::Welcome(welcome.encode()),
            // It was removed again before this was applied here.
            None => Answer::Refused(alloc::format!("node {node} is no member any more")),
        }
    }
}
