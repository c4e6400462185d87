//! Into how many partitions each keyspace's data is divided, and whether it may be another number now.
//!
//! The number decides where a key is looked for, so data that was written with one number cannot be served with
//! another. It is recorded beside the data: partitions that are still empty do not tell.

use alloc::collections::BTreeMap;

use kernel::{GroupId, Index, KeyspaceId};
use placement::Partitions;
use storage::reach::Scope;
use storage::store::Naming;
use thiserror::Error;

use crate::recover::Stores;

/// The number of partitions of each keyspace; one for those that are not named.
///
/// Invariant: only those with several are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Divisions(BTreeMap<KeyspaceId, Partitions>);

/// Why a keyspace is not served with the number that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DivisionError {
    /// It was written with another one.
    #[error(
        "keyspace {keyspace} was written with partitions = {recorded} and is configured with {configured}: its \
         keys would be looked for in the wrong places. Start it with partitions = {recorded}, write it out with \
         `archipel storage export`, and import that into a node with a new data directory"
    )]
    Written {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// What its data says.
        recorded: u16,
        /// What is asked for.
        configured: u16,
    },
    /// There is data of a partition that the record does not know.
    #[error(
        "there is data of partition {partition} of keyspace {keyspace}, but the data directory says that it has \
         {recorded}: restore the file `partitions` from a backup of the data directory"
    )]
    Beyond {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The partition.
        partition: u16,
        /// How many there should be.
        recorded: u16,
    },
}

impl Divisions {
    /// Notes the number of a keyspace.
    pub fn set(&mut self, keyspace: KeyspaceId, partitions: Partitions) {
        match partitions {
            Partitions::ONE => self.0.remove(&keyspace),
            several => self.0.insert(keyspace, several),
        };
    }

    /// The number of a keyspace.
    #[must_use]
    pub fn of(&self, keyspace: KeyspaceId) -> Partitions {
        self.0.get(&keyspace).copied().unwrap_or(Partitions::ONE)
    }

    /// The keyspaces with several partitions, in order.
    pub fn iter(&self) -> impl Iterator<Item = (KeyspaceId, Partitions)> + '_ {
        self.0.iter().map(|(&keyspace, &partitions)| (keyspace, partitions))
    }

    /// What part of its keyspace's data a group keeps.
    #[must_use]
    pub fn scope(&self, group: GroupId) -> Scope {
        Scope { partitions: self.of(group.keyspace()), own: group.partition() }
    }
}

/// What is to be recorded, so that the data in `stores`, which was written as `recorded` says, can be served as
/// `configured`, which names keyspaces as clients do. `durable` tells each group's last checkpoint.
///
/// A keyspace may change its number while it has no key and nothing of it would be replayed.
///
/// # Errors
/// [`DivisionError`]: a keyspace has data for another number.
pub fn divide(
    recorded: &Divisions,
    configured: &Divisions,
    naming: &Naming,
    stores: &Stores,
    durable: &BTreeMap<GroupId, Index>,
) -> Result<Divisions, DivisionError> {
    let holds = |group: GroupId| {
        let checkpoint = durable.get(&group).copied().unwrap_or_default();
        stores.get(&group).is_some_and(|(store, _)| !store.is_empty() || store.applied() > checkpoint)
    };
    for &group in stores.keys().filter(|group| holds(**group)) {
        let (keyspace, partition, known) =
            (group.keyspace(), group.partition(), recorded.of(group.keyspace()).count());
        if partition >= known {
            return Err(DivisionError::Beyond { keyspace, partition, recorded: known });
        }
    }
    let mut next = Divisions::default();
    let named = configured.0.keys().chain(recorded.0.keys()).copied().chain(naming.moved());
    for keyspace in stores.keys().map(|group| group.keyspace()).chain(named) {
        // Whose data is where since the last SWAPDB.
        let home = naming.home(keyspace);
        let (known, wanted) = (recorded.of(home), configured.of(keyspace));
        let written = (0..known.count()).any(|partition| holds(GroupId::new(home, partition)));
        if known != wanted && written {
            let (recorded, configured) = (known.count(), wanted.count());
            return Err(DivisionError::Written { keyspace, recorded, configured });
        }
        next.set(home, wanted);
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use kernel::{Micros, Term};
    use storage::Store;

    use super::*;

    fn divisions(all: &[(u16, u16)]) -> Divisions {
        let mut divisions = Divisions::default();
        for &(keyspace, count) in all {
            divisions.set(KeyspaceId(keyspace), Partitions::new(count).unwrap());
        }
        divisions
    }

    /// A group with one entry, checkpointed or not; `keys`: with a key.
    fn store(keys: bool) -> Store {
        let mut store = Store::new(1);
        store.begin_entry(Index(1), Micros(1));
        if keys {
            store.set(b"k", storage::Value::Int(1), storage::store::Ttl::Clear).unwrap();
        }
        store.end_entry();
        store
    }

    #[test]
    fn data_is_served_with_the_number_it_was_written_with() {
        #[derive(Clone, Copy, PartialEq)]
        enum Group {
            Key,
            Emptied,
            Replayed,
        }
        use Group::{Emptied, Key, Replayed};
        let written = |recorded, configured| {
            Err(DivisionError::Written { keyspace: KeyspaceId(3), recorded, configured })
        };
        let beyond =
            |partition, recorded| Err(DivisionError::Beyond { keyspace: KeyspaceId(3), partition, recorded });
        #[rustfmt::skip] // columns
        let table = [
            // recorded configured groups of keyspace 3          outcome
            (1,         1,         vec![],                       Ok(1)),
            (1,         8,         vec![],                       Ok(8)),
            (1,         1,         vec![(0, Key)],               Ok(1)),
            (8,         8,         vec![(0, Key), (7, Key)],     Ok(8)),
            (1,         8,         vec![(0, Key)],               written(1, 8)),
            (8,         1,         vec![(0, Key)],               written(8, 1)),
            // The only keys are in one of the partitions that both have.
            (8,         4,         vec![(2, Key)],               written(8, 4)),
            (1,         8,         vec![(0, Emptied)],           Ok(8)),
            (8,         4,         vec![(0, Emptied), (7, Emptied)], Ok(4)),
            // A replay with another number would not give the same.
            (1,         8,         vec![(0, Replayed)],          written(1, 8)),
            // The record is lost.
            (1,         8,         vec![(5, Key)],               beyond(5, 1)),
            (1,         1,         vec![(0, Key), (1, Key)],     beyond(1, 1)),
            // What an earlier number has left behind.
            (4,         4,         vec![(0, Key), (7, Emptied)], Ok(4)),
        ];
        for (recorded, configured, groups, expected) in table {
            let (mut stores, mut durable) = (Stores::new(), BTreeMap::new());
            for &(partition, group) in &groups {
                let id = GroupId::new(KeyspaceId(3), partition);
                stores.insert(id, (store(group == Key), Term(1)));
                if group != Replayed {
                    durable.insert(id, Index(1));
                }
            }
            let (recorded, configured) = (divisions(&[(3, recorded)]), divisions(&[(3, configured)]));
            let found = divide(&recorded, &configured, &Naming::default(), &stores, &durable);
            let count = found.map(|next| next.of(KeyspaceId(3)).count());
            assert_eq!(count, expected, "{recorded:?} {configured:?} {:?}", stores.keys());
        }
    }

    #[test]
    fn a_number_belongs_to_the_data_wherever_its_keyspace_is() {
        let naming = Naming::default().swapped(KeyspaceId(0), KeyspaceId(1));
        let mut stores = Stores::new();
        stores.insert(GroupId::new(KeyspaceId(1), 0), (store(true), Term(1)));
        // The data of group 1 is keyspace 0's now.
        let of = |keyspace| {
            let configured = divisions(&[(keyspace, 2)]);
            divide(&Divisions::default(), &configured, &naming, &stores, &BTreeMap::new())
        };
        assert!(matches!(of(0), Err(DivisionError::Written { keyspace: KeyspaceId(0), .. })));
        assert_eq!(of(1), Ok(divisions(&[(0, 2)])));
    }
}
