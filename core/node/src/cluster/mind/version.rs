//! The version that the cluster is at, and what its members speak.
//!
//! Peers say what they speak when a link to them begins. Whoever leads the control group raises the cluster once all
//! members were heard to speak a newer version; what needs that version is refused before.

use control::Refused;
use kernel::PeerId;

use super::*;

/// Refuses data of a cluster that this node does not understand any more.
pub(super) fn readable(wrote: Version, spoken: Spoken) -> Result<(), StartError> {
    if wrote > spoken.newest() { Err(StartError::Newer { wrote, spoken }) } else { Ok(()) }
}

impl Mind {
    /// A peer speaks this, as it said when the link to it began. Said before [`Mind::peer_up`].
    pub fn peer_speaks(&mut self, peer: NodeId, spoken: Spoken) {
        self.spoken.insert(peer, spoken);
        self.lead.look_again();
    }

    /// What this node speaks in its cluster: nothing that is older than what the cluster is at.
    #[must_use]
    pub fn spoken(&self) -> Spoken {
        self.options.spoken.at(self.state.speaks())
    }

    /// Whether the cluster has decided something in a version that this node does not speak. It knows nothing of what came
    /// after, and will not before it is started as one that does.
    #[must_use]
    pub const fn is_outrun(&self) -> bool {
        self.outrun
    }

    /// What a member is known to speak; `None` while no link to it is up.
    #[must_use]
    pub fn spoken_by(&self, node: NodeId) -> Option<Spoken> {
        if node == self.me { Some(self.spoken()) } else { self.spoken.get(&node).copied() }
    }

    /// The newest version that all members were heard to speak.
    pub(super) fn spoken_by_all(&self) -> Version {
        let present = self.state.members().iter().filter(|(_, member)| member.is_present());
        let newest = present.map(|(&node, _)| self.spoken_by(node).map_or(Version::OLDEST, Spoken::newest));
        newest.min().unwrap_or_default()
    }

    /// Why an operation cannot be asked for yet, if it cannot: who does not speak what it needs.
    pub(super) fn too_early(&self, operation: &Operation) -> Option<String> {
        use alloc::string::ToString;
        let (needs, is) = (operation.needs(), self.state.speaks());
        if needs <= is || self.state.cluster().is_none() {
            return None;
        }
        let present = self.state.members().iter().filter(|(_, member)| member.is_present());
        let behind: Vec<String> = present
            .filter_map(|(&node, _)| match self.spoken_by(node) {
                Some(spoken) if spoken.newest() >= needs => None,
                Some(spoken) => Some(alloc::format!("{} speaks {spoken}", PeerId(node))),
                None => Some(alloc::format!("{} is not linked and may speak less", PeerId(node))),
            })
            .collect();
        let who = if behind.is_empty() { "it is about to be raised".to_string() } else { behind.join(", ") };
        Some(alloc::format!("{}: {who}", Refused::NeedsVersion { needs, is }))
    }
}
