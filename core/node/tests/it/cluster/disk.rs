//! A node's disk: the log's records, of which so many are synced, and what the engine holds of each group.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use consensus::codec::Descriptor;
use consensus::replay::Tail;
use consensus::{Durability, Logged};
use journal::record::{Entry, HardState, Record};
use kernel::{GroupId, Index, Lsn, Micros, Term};
use node::cluster::{Holding, Kept, Past, store_seed};
use node::{AppendError, LogSink, Replays};
use storage::Store;
use storage::store::checkpoint::{Body, Frame, Image, Images};

use super::world::SEED;

/// A record, owned.
#[derive(Clone, Debug)]
pub enum Kind {
    Entry { term: Term, index: Index, semantics: u16, time: Micros, body: Vec<u8> },
    HardState { term: Term, vote: Option<NonZeroU64> },
    Reset { index: Index, term: Term },
    Abandon,
    Committed { index: Index },
}

#[derive(Clone, Debug)]
pub struct Written {
    pub group: GroupId,
    pub kind: Kind,
}

impl Written {
    fn of(record: &Record<'_>) -> Written {
        let kind = match *record {
            Record::Entry(Entry { term, index, semantics, time, body, .. }) => {
                Kind::Entry { term, index, semantics, time, body: body.to_vec() }
            }
            Record::HardState(HardState { term, vote, .. }) => Kind::HardState { term, vote },
            Record::Reset { index, term, .. } => Kind::Reset { index, term },
            Record::Abandon { .. } => Kind::Abandon,
            Record::Committed { index, .. } => Kind::Committed { index },
        };
        Written { group: record.group(), kind }
    }

    fn record(&self) -> Record<'_> {
        let group = self.group;
        match self.kind {
            Kind::Entry { term, index, semantics, time, ref body } => {
                Record::Entry(Entry { group, term, index, semantics, time, body })
            }
            Kind::HardState { term, vote } => Record::HardState(HardState { group, term, vote }),
            Kind::Reset { index, term } => Record::Reset { group, index, term },
            Kind::Abandon => Record::Abandon { group },
            Kind::Committed { index } => Record::Committed { group, index },
        }
    }
}

/// A state as the engine holds it.
#[derive(Clone, Debug)]
pub struct Held {
    pub holding: Holding,
    pub frame: Option<Frame>,
    pub objects: BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)>,
}

impl Held {
    pub fn store(&self, group: GroupId) -> Store {
        let seed = store_seed(SEED, group);
        let Some(frame) = &self.frame else {
            let mut store = Store::new(seed);
            if let Some(mark) = &self.holding.mark {
                store.begin_entry(mark.index, Micros(0));
                store.end_entry();
            }
            return store;
        };
        let mut store = Store::restore(seed, frame).expect("a frame of this version");
        for (key, (head, body)) in &self.objects {
            store.restore_object(key, head, Body::Whole(body)).expect("an object of this version");
        }
        store
    }
}

#[derive(Default)]
pub struct Disk {
    pub log: Vec<Written>,
    pub synced: usize,
    pub full: bool,
    /// Up to where the log has given entries away.
    pub floors: BTreeMap<GroupId, Index>,
    pub engine: BTreeMap<GroupId, Held>,
    /// Snapshots: those made here, and those fetched and not installed.
    pub snapshots: BTreeMap<(GroupId, u64), Held>,
}

impl LogSink for Disk {
    fn append(&mut self, records: &[Record<'_>], _: Durability) -> Result<Lsn, AppendError> {
        if self.full {
            return Err(AppendError::Full);
        }
        self.log.extend(records.iter().map(Written::of));
        Ok(Lsn(self.log.len() as u64))
    }
}

impl Disk {
    /// What the process finds when it starts again. `tail` says whether the end of the log may be lost.
    pub fn recover(&self, tail: Tail) -> BTreeMap<GroupId, Kept> {
        let holdings = self.engine.iter().map(|(&group, image)| (group, image.holding.clone()));
        let mut replays = Replays::new(holdings);
        self.log.iter().for_each(|written| replays.record(written.record()));
        let found = replays.finish(tail).expect("the log is sound");
        let kept = found.into_iter().map(|(group, (replica, past))| {
            let store = self.engine[&group].store(group);
            if let Past::Restored(restored) = &past {
                assert_eq!(store.applied(), restored.mark.index, "a checkpoint is of its mark's index");
            }
            (group, Kept { replica, store, past })
        });
        kept.collect()
    }

    /// Takes over a cut.
    pub fn commit(&mut self, group: GroupId, holding: Holding, frame: Frame, images: &Images) {
        assert_eq!(Some(frame.index), holding.mark.as_ref().map(|mark| mark.index), "one cut of both");
        let image = self.engine.get_mut(&group).expect("a group is held from its beginning");
        if image.frame.as_ref().is_none_or(|old| old.generation != frame.generation) {
            image.objects.clear();
        }
        for one in images.iter() {
            match one {
                Image::Put { key, head, body } => {
                    image.objects.insert(key.to_vec(), (head.to_vec(), body.to_vec()));
                }
                Image::Delete { key } => _ = image.objects.remove(key),
            }
        }
        assert_eq!(image.objects.len() as u64, frame.objects, "a checkpoint has all objects");
        (image.holding, image.frame) = (holding, Some(frame));
    }

    /// Keeps what the engine has of a group as a snapshot.
    pub fn keep(&mut self, group: GroupId) -> Descriptor {
        let image = self.engine[&group].clone();
        let mark = image.holding.mark.clone().expect("it has something");
        let generation = self.snapshots.len() as u64 + 1;
        self.snapshots.insert((group, generation), image);
        Descriptor { generation, size: 1, checksum: 1, mark }
    }

    /// Old entries, as the log has them last.
    pub fn entries(&self, group: GroupId, first: Index, last: Index) -> Vec<Logged> {
        let mut found: BTreeMap<u64, Logged> = BTreeMap::new();
        for written in self.log.iter().filter(|written| written.group == group) {
            if let Kind::Entry { term, index, semantics, time, body } = &written.kind {
                found.retain(|&at, _| at < index.0);
                found.insert(index.0, Logged::new(*term, *index, *semantics, *time, body));
            }
        }
        let mut entries = Vec::new();
        if self.floors.get(&group).is_some_and(|floor| *floor >= first) {
            return entries;
        }
        for index in first.0..=last.0 {
            match found.remove(&index) {
                Some(entry) => entries.push(entry),
                None => break,
            }
        }
        entries
    }
}
