//! Tables of the policies that hash: endpoints as members of `placement`'s Maglev and ring.

use alloc::vec::Vec;

use placement::maglev::SLOTS;
use placement::ring::Member as RingMember;
use placement::{Maglev, Ring};

use super::{Member, Policy};

/// Points of an endpoint on the ring for each unit of its weight.
const TOKENS: u16 = 64;
/// Most points of one endpoint.
const TOKENS_MAX: u16 = 4096;

/// An endpoint: its name decides its places, its place among the endpoints is what is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    name: [u8; 8],
    at: u32,
}

impl Slot {
    pub const fn at(self) -> usize {
        self.at as usize
    }
}

impl RingMember for Slot {
    fn name(&self) -> &[u8] {
        &self.name
    }
}

#[derive(Clone, Debug)]
pub(super) enum Table {
    Maglev(Maglev<Slot>),
    Ring(Ring<Slot>),
}

impl Table {
    pub fn new(policy: Policy, members: &[Member]) -> Table {
        let slot =
            |(at, member): (usize, &Member)| Slot { name: member.endpoint.name.to_be_bytes(), at: at as u32 };
        if policy == Policy::Maglev {
            let slots: Vec<Slot> = members.iter().enumerate().map(slot).collect();
            let table = Maglev::new(slots.into_iter().take(SLOTS as usize), SLOTS);
            return Table::Maglev(table.expect("the number of slots is prime and not exceeded"));
        }
        let tokens = |member: &Member| member.endpoint.weight.saturating_mul(TOKENS).min(TOKENS_MAX);
        Table::Ring(Ring::new(members.iter().enumerate().map(|one| (slot(one), tokens(one.1)))))
    }
}
