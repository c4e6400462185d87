//! Which worker has which partition of a keyspace, and which partition has a key.
//!
//! Most keyspaces have one partition; they are found without a look at the key.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use kernel::planted::{Bug, is};
use kernel::{KeyspaceId, WorkerId};
use placement::{Partitions, Slot};

use crate::cluster::NOBODY;
use crate::partition::Partition;

/// Most partitions of one keyspace: each has a group and tables of its own, and a cursor of SCAN has 10 bits
/// for its number.
pub const PARTITIONS_MAX: u16 = 1024;

/// The worker, of so many, that has a partition of a keyspace: neighbours go to different workers.
#[must_use]
pub const fn owner(keyspace: KeyspaceId, partition: u16, workers: u16) -> WorkerId {
    WorkerId(((keyspace.0 as u32 + partition as u32) % workers as u32) as u16)
}

/// A partition of another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Its keyspace.
    pub keyspace: KeyspaceId,
    /// Its number there.
    pub partition: u16,
    /// Who has it.
    pub worker: WorkerId,
}

/// Where a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Here, at this place among the worker's own.
    Own(usize),
    /// At another worker.
    Other(WorkerId),
}

/// Where a keyspace is.
#[derive(Debug)]
pub(crate) enum Route {
    /// One partition.
    Whole(Place),
    /// Several.
    Spread(Spread),
}

/// A keyspace of several partitions.
#[derive(Debug)]
pub(crate) struct Spread {
    /// How keys are divided.
    pub partitions: Partitions,
    /// Where each is, by its number.
    pub places: Vec<Place>,
}

impl Route {
    fn new(places: Vec<Place>, recovered: bool) -> Route {
        match *places {
            [place] => Route::Whole(place),
            _ => Route::Spread(Spread::new(places, recovered)),
        }
    }
}

impl Spread {
    fn new(places: Vec<Place>, recovered: bool) -> Spread {
        let count = u16::try_from(places.len()).expect("a keyspace has at most 1024 partitions");
        let count = if recovered && is(Bug::OtherPartitionNumber) { count - 1 } else { count };
        let partitions = Partitions::new(count).expect("a keyspace has at least one partition");
        Spread { partitions, places }
    }

    /// The partition that has `key`.
    #[inline]
    pub fn of(&self, key: &[u8]) -> u16 {
        self.partitions.of(Slot::of(key))
    }
}

/// Where all keyspaces of the node are.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    all: Vec<Option<Route>>,
    /// Keyspaces that were dropped and in which sessions may still be: nobody has their partitions.
    dropped: BTreeSet<KeyspaceId>,
}

impl Routes {
    /// The routes to a worker's own partitions and to those of others.
    pub fn new(own: &[Partition], others: &[Elsewhere]) -> Routes {
        let recovered = own.iter().any(|partition| partition.store().applied().0 > 0);
        let mut all: BTreeMap<KeyspaceId, BTreeMap<u16, Place>> = BTreeMap::new();
        for (at, partition) in own.iter().enumerate() {
            let number = partition.group_id().partition();
            all.entry(partition.keyspace()).or_default().insert(number, Place::Own(at));
        }
        for &Elsewhere { keyspace, partition, worker } in others {
            all.entry(keyspace).or_default().insert(partition, Place::Other(worker));
        }
        let mut routes = Routes::default();
        for (keyspace, places) in all {
            let gapless = places.keys().copied().eq(0..places.len() as u16);
            assert!(gapless, "partitions are numbered from 0: {keyspace} has {places:?}");
            let places: Vec<Place> = places.into_values().collect();
            let at = usize::from(keyspace.0);
            if routes.all.len() <= at {
                routes.all.resize_with(at + 1, || None);
            }
            routes.all[at] = Some(Route::new(places, recovered));
        }
        routes
    }

    #[inline]
    pub fn get(&self, db: KeyspaceId) -> Option<&Route> {
        self.all.get(usize::from(db.0)).and_then(Option::as_ref)
    }

    /// Whether there is such a keyspace now.
    pub fn exists(&self, db: KeyspaceId) -> bool {
        self.get(db).is_some() && !self.is_dropped(db)
    }

    /// Whether there was one, which was dropped.
    pub fn is_dropped(&self, db: KeyspaceId) -> bool {
        self.dropped.contains(&db)
    }

    fn known(&self, db: KeyspaceId) -> &Route {
        self.get(db).expect("a session stays in keyspaces that exist")
    }

    /// The keyspace's partitions, if it has several.
    pub fn spread(&self, db: KeyspaceId) -> Option<&Spread> {
        match self.known(db) {
            Route::Whole(_) => None,
            Route::Spread(spread) => Some(spread),
        }
    }

    /// Where a partition of the keyspace is.
    pub fn place(&self, db: KeyspaceId, partition: u16) -> Place {
        match self.known(db) {
            Route::Whole(place) => *place,
            // One of a keyspace that was dropped and made anew with fewer: what is on its way there gets nowhere.
            Route::Spread(spread) => {
                spread.places.get(usize::from(partition)).copied().unwrap_or(Place::Other(NOBODY))
            }
        }
    }

    /// The same, if there is such a partition.
    pub fn find(&self, db: KeyspaceId, partition: u16) -> Option<Place> {
        match self.get(db)? {
            Route::Whole(place) => (partition == 0).then_some(*place),
            Route::Spread(spread) => spread.places.get(usize::from(partition)).copied(),
        }
    }

    /// The number of the partition that has `key`.
    pub fn partition(&self, db: KeyspaceId, key: &[u8]) -> u16 {
        match self.known(db) {
            Route::Whole(_) => 0,
            Route::Spread(spread) => spread.of(key),
        }
    }

    /// All partitions of all keyspaces that there are.
    pub fn all(&self) -> impl Iterator<Item = (KeyspaceId, u16, Place)> + '_ {
        let there = (0..).map(KeyspaceId).zip(&self.all).filter(|(db, _)| !self.is_dropped(*db));
        there.filter_map(|(db, route)| Some((db, route.as_ref()?))).flat_map(|(db, route)| {
            let places = match route {
                Route::Whole(place) => core::slice::from_ref(place),
                Route::Spread(spread) => &spread.places,
            };
            (0..).zip(places).map(move |(partition, &place)| (db, partition, place))
        })
    }

    /// Where the partition is that has `key`.
    #[inline]
    pub fn of_key(&self, db: KeyspaceId, key: &[u8]) -> Place {
        match self.known(db) {
            Route::Whole(place) => *place,
            Route::Spread(spread) => spread.places[usize::from(spread.of(key))],
        }
    }

    /// Where that partition is among the worker's own. A replicated one is its own while it leads.
    pub fn own(&self, db: KeyspaceId, partition: u16) -> Option<usize> {
        match self.get(db)? {
            &Route::Whole(Place::Own(at)) if partition == 0 => Some(at),
            Route::Whole(_) => None,
            Route::Spread(spread) => match spread.places.get(usize::from(partition))? {
                &Place::Own(at) => Some(at),
                Place::Other(_) => None,
            },
        }
    }

    /// Where that key's partition is among the worker's own.
    pub fn own_of_key(&self, db: KeyspaceId, key: &[u8]) -> Option<usize> {
        match self.of_key(db, key) {
            Place::Own(at) => Some(at),
            Place::Other(_) => None,
        }
    }

    /// The keyspace exists, with so many partitions; nobody is known to lead those that are new. One with another number
    /// was dropped and made anew.
    pub fn lay(&mut self, db: KeyspaceId, partitions: Partitions) {
        let at = usize::from(db.0);
        if self.all.len() <= at {
            self.all.resize_with(at + 1, || None);
        }
        let has = |route: &Route| match route {
            Route::Whole(_) => Partitions::ONE,
            Route::Spread(spread) => spread.partitions,
        };
        self.dropped.remove(&db);
        if self.all[at].as_ref().map(has) != Some(partitions) {
            let places = alloc::vec![Place::Other(NOBODY); usize::from(partitions.count())];
            self.all[at] = Some(Route::new(places, false));
        }
    }

    /// The keyspace is no more. Sessions may stay in it, and are told so.
    pub fn drop_keyspace(&mut self, db: KeyspaceId) {
        if self.get(db).is_some() {
            self.dropped.insert(db);
        }
    }

    /// Somebody else leads a partition, if there is such a one.
    pub fn set(&mut self, db: KeyspaceId, partition: u16, place: Place) {
        match self.all.get_mut(usize::from(db.0)) {
            Some(Some(Route::Whole(known))) if partition == 0 => *known = place,
            Some(Some(Route::Spread(spread))) => {
                if let Some(known) = spread.places.get_mut(usize::from(partition)) {
                    *known = place;
                }
            }
            Some(Some(Route::Whole(_)) | None) | None => {}
        }
    }

    /// Exchanges two keyspaces of one partition each.
    pub fn swap(&mut self, first: KeyspaceId, second: KeyspaceId) {
        self.all.swap(first.0.into(), second.0.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_partitions_have_different_owners() {
        #[rustfmt::skip] // columns
        let table = [
            // keyspace, partition, workers, owner
            (0, 0, 1, 0),
            (5, 0, 2, 1),
            (5, 1, 2, 0),
            (5, 7, 3, 0),
            (15, 1023, 16, 14),
            (65535, 65535, 3, 0),
        ];
        for (keyspace, partition, workers, expected) in table {
            let owner = owner(KeyspaceId(keyspace), partition, workers);
            assert_eq!(owner, WorkerId(expected), "{partition} of {keyspace} among {workers}");
        }
    }

    #[test]
    fn a_keyspace_of_one_partition_is_found_without_its_key() {
        let other = |keyspace, partition, worker| Elsewhere {
            keyspace: KeyspaceId(keyspace),
            partition,
            worker: WorkerId(worker),
        };
        let routes = Routes::new(&[], &[other(0, 0, 1), other(2, 1, 2), other(2, 0, 1)]);
        assert!(matches!(routes.get(KeyspaceId(0)), Some(Route::Whole(Place::Other(WorkerId(1))))));
        assert!(routes.get(KeyspaceId(1)).is_none());
        assert!(routes.get(KeyspaceId(9)).is_none());
        // `b` is in the lower half of the slots, `a` in the upper.
        assert_eq!(routes.of_key(KeyspaceId(2), b"b"), Place::Other(WorkerId(1)));
        assert_eq!(routes.of_key(KeyspaceId(2), b"a"), Place::Other(WorkerId(2)));
        assert_eq!(routes.of_key(KeyspaceId(2), b"b{a}"), Place::Other(WorkerId(2)));
    }

    #[test]
    #[should_panic(expected = "numbered from 0")]
    fn a_missing_partition_is_a_broken_invariant() {
        let place = |partition| Elsewhere { keyspace: KeyspaceId(0), partition, worker: WorkerId(1) };
        let _ = Routes::new(&[], &[place(0), place(2)]);
    }
}
