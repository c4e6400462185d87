//! Who the members are and which of them answer: links, liveness, and news of members for those who know less.

use control::Member;
use p2p::swim::{self, Input};

use super::*;

/// The link to who was removed lasts so much longer, in milliseconds.
const PARTING_MS: u64 = 2_000;

impl Mind {
    /// A link to a peer came up: what was on its way before is lost.
    pub fn peer_up(&mut self, now: Micros, peer: NodeId) {
        self.now = now;
        if !self.links.contains_key(&peer) {
            return;
        }
        self.up.insert(peer);
        let replica = self.nodes.iter().find(|(_, node)| **node == peer).map(|(&replica, _)| replica);
        if let Some(replica) = replica
            && !is(Bug::NameNotRepeated)
        {
            // It may have been told of a snapshot over the old link.
            self.replica.peer_returned(replica);
        }
        let version = self.known_version();
        self.say(peer, &Said::Hello { version });
        if self.leader() == Some(peer) {
            self.asks.leader_changed(now);
            self.reports.leader_changed(now);
        }
    }

    /// The link to a peer ended.
    pub fn peer_down(&mut self, now: Micros, peer: NodeId) {
        self.now = now;
        self.up.remove(&peer);
        self.spoken.remove(&peer);
        self.suspect(peer);
    }

    /// The version of what is known of the members.
    pub(super) fn known_version(&self) -> u64 {
        self.roster.as_ref().map_or(0, |roster| roster.version).max(self.state.version())
    }

    /// The members that this node believes in: the state's, unless a peer knew better.
    pub(super) fn members(&self) -> impl Iterator<Item = (NodeId, &Member)> + '_ {
        let newer = self.roster.as_ref().filter(|roster| roster.version > self.state.version());
        let members = newer.map_or(self.state.members(), |roster| &roster.members);
        members.iter().filter(|(_, member)| member.is_present()).map(|(&node, member)| (node, member))
    }

    /// Brings links, liveness and the group's acquaintances to the members. Who is none any more is told so, and its link
    /// lasts a little longer, so that it hears it.
    pub(super) fn follow_members(&mut self) {
        if self.roster.as_ref().is_some_and(|roster| roster.version <= self.state.version()) {
            self.roster = None;
        }
        let all: Vec<(NodeId, ReplicaId, Vec<SocketAddr>)> =
            self.members().map(|(node, it)| (node, it.replica, it.addresses.clone())).collect();
        let me = self.me;
        // The group may need who was removed until it has let it go.
        let (links, parting) = (&self.links, &self.parting);
        let now: BTreeMap<ReplicaId, NodeId> =
            all.iter().map(|&(node, replica, _)| (replica, node)).collect();
        self.nodes.retain(|_, node| links.contains_key(node) || parting.contains_key(node));
        self.nodes.extend(now);
        let mut links = BTreeMap::new();
        if all.iter().any(|&(node, ..)| node == me) {
            for (node, replica, addresses) in all.iter().filter(|(node, ..)| *node != me) {
                self.replica.introduce(*replica);
                if self.links.get(node) != Some(addresses) {
                    self.out.push(Effect::Link { node: *node, addresses: addresses.clone() });
                }
                links.insert(*node, addresses.clone());
            }
        }
        let version = self.known_version();
        for (gone, _) in core::mem::replace(&mut self.links, links) {
            if !self.links.contains_key(&gone) {
                // Who is removed itself closes its links too, and has nobody to see off.
                if self.up.contains(&gone) && all.iter().all(|&(node, ..)| node != gone) {
                    self.say(gone, &Said::Farewell { version });
                }
                self.parting.insert(gone, self.now.plus_millis(PARTING_MS));
            }
        }
        let links = &self.links;
        self.up.retain(|node| links.contains_key(node));
        self.spoken.retain(|node, _| links.contains_key(node));
        self.dead.retain(|node, _| links.contains_key(node));
        self.parting.retain(|node, _| !links.contains_key(node));
        self.listen(Input::Members(all.into_iter().map(|(node, ..)| node).collect()));
    }

    /// Closes links that have lasted long enough.
    pub(super) fn part(&mut self) {
        let now = self.now;
        let over = self.parting.extract_if(.., |_, until| *until <= now);
        self.out.extend(over.map(|(node, _)| Effect::Unlink { node }));
        if self.expelled.is_some_and(|at| at <= now) {
            self.expelled = Some(Micros(u64::MAX));
            self.out.push(Effect::Expelled);
        }
    }

    pub(super) fn hear(&mut self, from: NodeId, message: swim::Message) {
        self.listen(Input::Received { from, message });
    }

    fn listen(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.swim.step(self.now, input, &mut effects);
        self.heed(effects);
    }

    pub(super) fn heed(&mut self, effects: Vec<swim::Effect>) {
        for effect in effects {
            match effect {
                swim::Effect::Send { to, message } => {
                    let frame = frames::swim_frame(&message);
                    self.out.push(Effect::Send { to, lane: Lane::Control, frame });
                }
                swim::Effect::Changed { node, liveness } => self.think(node, liveness),
                swim::Effect::Incarnation(number) => self.out.push(Effect::Incarnation(number)),
            }
        }
    }

    fn think(&mut self, node: NodeId, liveness: Liveness) {
        match liveness {
            Liveness::Dead => _ = self.dead.entry(node).or_insert(self.now),
            Liveness::Suspect if is(Bug::DownAtOnce) => _ = self.dead.insert(node, Micros(0)),
            Liveness::Alive | Liveness::Suspect => _ = self.dead.remove(&node),
        }
        if liveness != Liveness::Alive {
            self.suspect(node);
        }
        self.lead.look_again();
        self.out.push(Effect::Liveness { node, liveness });
    }

    /// The control group may sleep under a leader that is gone: nobody else would notice.
    fn suspect(&mut self, node: NodeId) {
        if self.replica.is_asleep() && self.leader() == Some(node) {
            self.replica.rouse(self.now);
        }
    }

    /// Whether `node` is dead for so long that it is not to be counted on.
    pub(super) fn is_down(&self, node: NodeId) -> bool {
        let limit = self.options.down_ms * 1000;
        self.dead.get(&node).is_some_and(|&since| self.now.since(since) >= limit)
    }

    /// A peer says how much it knows; who knows less is told the members.
    pub(super) fn greet(&mut self, from: NodeId, version: u64) {
        if version >= self.known_version() {
            return;
        }
        let own = self.state.roster().filter(|own| own.version > version);
        let newer = self.roster.clone().filter(|roster| roster.version > self.state.version());
        if let Some(roster) = newer.or(own) {
            self.say(from, &Said::Roster(roster));
        }
    }

    /// A peer knows members that this node has not heard of, one of whom may lead the control group.
    pub(super) fn take_roster(&mut self, roster: Roster) {
        let own = self.roster.as_ref().map(|own| own.cluster).or(self.state.cluster());
        if own != Some(roster.cluster) || roster.version <= self.known_version() {
            return;
        }
        if !roster.members.contains_key(&self.me) {
            return self.expel();
        }
        self.roster = Some(roster);
        self.follow_members();
    }

    /// This node is none any more. The group may need its vote for that, so the host hears it a little later.
    pub(super) fn expel(&mut self) {
        self.expelled.get_or_insert(self.now.plus_millis(PARTING_MS));
    }
}
