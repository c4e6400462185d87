//! What a node begins with, and why it does not start as a member.

use control::Welcome;

use super::*;

/// What may differ from cluster to cluster.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Times of liveness; all members should have the same.
    pub swim: SwimOptions,
    /// See [`DOWN_MS`].
    pub down_ms: u64,
    /// Milliseconds between ticks of the control group; its elections begin after 12 to 24.
    pub tick_ms: u64,
    /// What this node speaks, whatever its cluster is at.
    pub spoken: Spoken,
}

impl Default for Options {
    fn default() -> Options {
        Options { swim: SwimOptions::default(), down_ms: DOWN_MS, tick_ms: 50, spoken: Spoken::ALL }
    }
}

/// What a node begins with.
#[derive(Debug)]
pub struct Start {
    /// Who it is.
    pub node: NodeId,
    /// Its life: durable, above every number of an earlier life, those of [`Effect::Incarnation`] among them.
    pub incarnation: u64,
    /// Its own chance.
    pub seed: u64,
    /// What may differ.
    pub options: Options,
    /// What it knows.
    pub begin: Begin,
}

/// What a node knows when it starts.
#[derive(Debug)]
pub enum Begin {
    /// It has a checkpoint of the control group; also right after [`super::formation::Formation::found`].
    Resume {
        /// That, and the log behind it.
        restored: Box<Restored>,
        /// The state in the checkpoint.
        state: Box<State>,
    },
    /// It was let in and has nothing yet.
    Join {
        /// What it was told.
        welcome: Welcome,
        /// The last term and vote in its log; `(Term(0), None)` the first time.
        hard: (Term, Option<ReplicaId>),
    },
}

/// Why a node does not start as a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StartError {
    /// The state is of a cluster without this node.
    #[error("this data is of a cluster that node {0} is no member of: was the node's key replaced?")]
    NotMember(NodeId),
    /// The cluster was raised since this node's version.
    #[error(
        "the cluster is at version {wrote}, and this node speaks {spoken}: start it with an archipel that speaks \
         {wrote}, and without the setting `cluster.version`"
    )]
    Newer {
        /// What the cluster is at.
        wrote: Version,
        /// What this node speaks.
        spoken: Spoken,
    },
    /// It was removed.
    #[error("node {0} was removed from its cluster: start it with an empty data directory and a new token")]
    Removed(NodeId),
}
