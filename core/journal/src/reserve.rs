//! Who needs the log longer than checkpoints do: each keeper names, for each group, the last entry that it has already.
//!
//! A reservation holds segments and nothing else. It can be given up at any time, for want of space: the keeper is told when
//! it asks next, and nobody else notices.

use alloc::collections::{BTreeMap, BTreeSet};

use kernel::{GroupId, Index};
use thiserror::Error;

/// Most keepers at once.
pub const KEEPERS_MAX: usize = 4;
/// Never reached by an entry: who has all up to here needs nothing.
pub const EVERYTHING: Index = Index(u64::MAX);

/// One who makes backups, by a number that it drew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Keeper(pub u64);

/// For each group the last entry that its reader has already. A group that is not named is read from its beginning.
pub type Positions = BTreeMap<GroupId, Index>;

/// A further keeper is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the log is kept for {KEEPERS_MAX} others already")]
pub struct TooMany;

/// The reservations of all keepers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reservations(BTreeMap<Keeper, Reserved>);

#[derive(Clone, Debug, Default)]
struct Reserved {
    /// What was given up is at [`EVERYTHING`].
    after: Positions,
    /// Groups of which something went although it was reserved, since the keeper asked last.
    broken: BTreeSet<GroupId>,
}

impl Reserved {
    /// Whether the keeper needs a segment whose entries of `group` go up to `last`.
    fn needs(&self, group: GroupId, last: Index) -> bool {
        last > self.after.get(&group).copied().unwrap_or_default()
    }
}

impl Reservations {
    /// Takes the place of what the keeper asked for before, and tells which groups it lost since then.
    pub fn set(&mut self, keeper: Keeper, after: Positions) -> Result<BTreeSet<GroupId>, TooMany> {
        if self.0.len() >= KEEPERS_MAX && !self.0.contains_key(&keeper) {
            return Err(TooMany);
        }
        let before = self.0.insert(keeper, Reserved { after, broken: BTreeSet::new() });
        Ok(before.map(|before| before.broken).unwrap_or_default())
    }

    /// The keeper needs nothing any more.
    pub fn remove(&mut self, keeper: Keeper) {
        self.0.remove(&keeper);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first group, of those with their last entries in a segment, that a keeper needs it for.
    pub fn need(&self, mut held: impl Iterator<Item = (GroupId, Index)>) -> Option<GroupId> {
        let needed = |(group, last): &(GroupId, Index)| self.0.values().any(|it| it.needs(*group, *last));
        held.find(needed).map(|(group, _)| group)
    }

    /// No keeper needs the segment with entries of `group` up to `last` any more, nor one behind it for that group.
    pub fn give_up(&mut self, group: GroupId, last: Index) {
        for reserved in self.0.values_mut().filter(|it| it.needs(group, last)) {
            reserved.after.insert(group, EVERYTHING);
            reserved.broken.insert(group);
        }
    }

    /// What the log has of `group` up to `last` goes. Should the group begin here again, it is kept from its beginning.
    pub fn forget(&mut self, group: GroupId, last: Index) {
        for reserved in self.0.values_mut() {
            if reserved.needs(group, last) {
                reserved.broken.insert(group);
            }
            reserved.after.remove(&group);
        }
    }
}
