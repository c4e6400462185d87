//! What a worker keeps of one of its replicas, besides the replica itself.

use alloc::collections::BTreeMap;

use consensus::{Durability, ReplicaId};
use kernel::{Lsn, Micros, NodeId, Term};

use crate::cluster::{Past, Seating};
use crate::route::Place;

/// See the module's text.
pub(crate) struct Seat {
    pub replica: ReplicaId,
    /// Where the members are.
    pub nodes: BTreeMap<ReplicaId, NodeId>,
    pub epoch: u64,
    pub durability: Durability,
    /// How it begins once the host has made room; none afterwards.
    pub begins: Option<Past>,
    /// Whether the host has made room.
    pub ready: bool,
    /// The term in which it serves clients.
    pub serving: Option<Term>,
    /// The term of the last applied entry.
    pub applied_term: Term,
    /// Whether it is among those that have something to do.
    pub busy: bool,
    /// Whether it is among those that have written what is not synced, and the end of that.
    pub unsynced: bool,
    pub written: Lsn,
    /// When it is to be woken, as the timers have it.
    pub timer: Option<Micros>,
    /// When clients whose commands are not decided are told so; while it does not serve.
    pub undecided: Option<Micros>,
    /// What the routes say of it.
    pub place: Option<Place>,
}

impl Seat {
    pub fn new(seating: &Seating, begins: Option<Past>) -> Seat {
        let mut seat = Seat {
            replica: seating.replica,
            nodes: BTreeMap::new(),
            epoch: seating.epoch,
            durability: seating.durability,
            begins,
            ready: false,
            serving: None,
            applied_term: Term(0),
            busy: false,
            unsynced: false,
            written: Lsn(0),
            timer: None,
            undecided: None,
            place: None,
        };
        seat.sit(&seating.nodes);
        seat
    }

    /// Where the members are, as the placement has them. Who is not named any more is still known: its messages are
    /// judged by the group.
    pub fn sit(&mut self, nodes: &[(NodeId, ReplicaId)]) {
        self.nodes.extend(nodes.iter().map(|&(node, replica)| (replica, node)));
    }
}
