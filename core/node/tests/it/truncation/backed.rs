//! Backups of these logs: each goes on where the one before ended, as long as the log was kept for it, and none is given what
//! a power cut may take.

use journal::ledger::{LIFE_MS_MAX, Ledger};
use journal::passage::{KIND_BEGUN, KIND_ENTRY, KIND_UNCERTAIN, Passage, Step};
use journal::record::Header;
use journal::{Cursor, Keeper, Positions};
use kernel::codec::Reader;
use kernel::{GroupId, Index, Millis};

use super::{Kept, World};

const KEEPER: Keeper = Keeper(7);
const NOW: Millis = Millis(1);

/// What the backups of all groups have.
#[derive(Clone)]
pub struct Backups {
    /// Up to which entry, by group.
    at: Vec<u64>,
    /// Groups whose log began anew behind a snapshot, or may have: another node would be asked.
    excused: Vec<bool>,
    /// The file of what was promised.
    file: Vec<u8>,
    /// How often a backup went on where the one before ended.
    pub joined: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Entry { index: u64, term: u64 },
    Begun,
    Uncertain,
}

impl Backups {
    pub fn new(groups: usize) -> Backups {
        let file = Ledger::default().encode();
        Backups { at: vec![1; groups], excused: vec![false; groups], file, joined: 0 }
    }

    /// A snapshot came, or will not.
    pub fn excuse(&mut self, group: usize) {
        self.excused[group] = true;
    }
}

impl World {
    /// Backs all groups up, and has the log kept for the next time.
    pub fn back_up(&mut self) {
        let Some(mut backups) = self.backups.take() else { return };
        let wanted: Positions = backups.positions();
        let events = self.stream(&wanted);
        for (group, events) in events.into_iter().enumerate() {
            let at = backups.at[group];
            self.only_durable(group, at, &events);
            let replica = &self.groups[group];
            if replica.reset.is_some() || replica.committed <= at {
                continue;
            }
            let to = (replica.committed, replica.log[replica.committed as usize - 1]);
            if let Some(terms) = gather(&events, at, to) {
                assert_eq!(
                    terms,
                    replica.log[at as usize..to.0 as usize],
                    "group {group} from {at} to {to:?}"
                );
                backups.at[group] = to.0;
                backups.excused[group] &= events.contains(&Event::Uncertain);
                backups.joined += 1;
            } else {
                assert!(
                    backups.excused[group],
                    "group {group}: what is behind {at} was given away: {events:?}"
                );
                backups.at[group] = replica.mark.0;
            }
        }
        let mut ledger = Ledger::default();
        ledger.promise(NOW, KEEPER, LIFE_MS_MAX, backups.positions()).expect("it is the only one");
        backups.file = ledger.encode();
        self.backups = Some(backups);
        self.keep();
    }

    /// Keeps what the file says.
    pub fn keep(&mut self) {
        let Some(backups) = &self.backups else { return };
        let ledger = Ledger::decode(NOW, &backups.file).expect("the file is sound");
        for (keeper, promise) in ledger.promises() {
            let lost = self.commit.reserve(keeper, promise.after.clone()).expect("it is the only one");
            assert!(lost.is_empty(), "nothing was given up: {lost:?}");
        }
    }

    /// A checkpoint of the group that is named would free something.
    pub fn names_who_is_behind(&self) {
        let Some(group) = self.commit.truncate().lagging() else { return };
        let replica = &self.groups[group.0 as usize];
        let most = replica.all.iter().map(|(_, kept)| match *kept {
            Kept::Entry { index, .. } | Kept::Reset { index, .. } | Kept::Committed { index } => index,
            Kept::Hard { .. } | Kept::Abandon => 0,
        });
        assert!(most.max() > Some(replica.mark.0), "group {group} is to be checkpointed for others' sake");
    }

    /// All that the log says of each group.
    fn stream(&mut self, wanted: &Positions) -> Vec<Vec<Event>> {
        let mut events = vec![Vec::new(); self.groups.len()];
        let first = self.commit.truncate().first_behind(wanted);
        let Some((first, last)) = first.zip(self.commit.active()) else { return events };
        let (mut cursor, mut bytes) = (Cursor::begin(first, last.id), Vec::new());
        loop {
            let mut passage = Passage::new(wanted, cursor, 1 + self.rng.below(5000) as usize);
            let step = self.part(&mut passage);
            cursor = passage.cursor();
            bytes.extend(passage.into_bytes());
            if step == Step::End {
                break;
            }
        }
        let mut reader = Reader::new(&bytes);
        while !reader.is_empty() {
            let (group, event) = event(&mut reader);
            events[group.0 as usize].push(event);
        }
        events
    }

    fn part(&self, passage: &mut Passage<'_>) -> Step {
        loop {
            let Cursor { segment, offset, .. } = passage.cursor();
            let file = self.files.get(&segment).expect("what is wanted is there");
            let header = Header::decode(segment, file).expect("the segment was opened");
            let step = passage.read(&header, &file[offset as usize..], self.commit.durable());
            match step.expect("nothing is damaged") {
                Step::Next => {}
                Step::Read { .. } => unreachable!("it had the whole segment"),
                step @ (Step::Full | Step::End) => return step,
            }
        }
    }

    /// What was told is the end of what the group's log durably has behind `at`.
    fn only_durable(&self, group: usize, at: u64, events: &[Event]) {
        let durable = self.groups[group].all.iter().filter(|(end, _)| *end <= self.commit.durable());
        let entries: Vec<Event> = durable
            .filter_map(|(_, kept)| match *kept {
                Kept::Entry { index, term } if index > at => Some(Event::Entry { index, term }),
                _ => None,
            })
            .collect();
        let is_entry = |event: &&Event| matches!(event, Event::Entry { .. });
        let told: Vec<Event> = events.iter().filter(is_entry).copied().collect();
        assert!(entries.ends_with(&told), "group {group} behind {at}: {told:?} of {entries:?}");
    }
}

impl Backups {
    fn positions(&self) -> Positions {
        self.at.iter().enumerate().map(|(group, at)| (GroupId(group as u32), Index(*at))).collect()
    }
}

fn event(reader: &mut Reader<'_>) -> (GroupId, Event) {
    let sound = "the stream is sound";
    let (kind, group) = (reader.u8().expect(sound), GroupId(reader.u32().expect(sound)));
    let mut varint = || reader.varint().expect(sound);
    let event = match kind {
        KIND_ENTRY => {
            let (term, index) = (varint(), varint());
            reader.u16().expect(sound);
            reader.varint().expect(sound);
            reader.bytes().expect(sound);
            Event::Entry { index, term }
        }
        KIND_BEGUN => Event::Begun,
        KIND_UNCERTAIN => {
            varint();
            Event::Uncertain
        }
        other => panic!("{sound}: there is no kind {other}"),
    };
    (group, event)
}

/// The terms behind `at`, if they lead to `to` without a hole.
fn gather(events: &[Event], at: u64, to: (u64, u64)) -> Option<Vec<u64>> {
    let mut terms = Vec::new();
    for event in events {
        match *event {
            Event::Entry { index, .. } if index <= at => terms.clear(),
            Event::Entry { index, term } if index - at - 1 <= terms.len() as u64 => {
                terms.truncate((index - at - 1) as usize);
                terms.push(term);
                if (index, term) == to {
                    return Some(terms);
                }
            }
            Event::Entry { .. } => {}
            Event::Begun | Event::Uncertain => terms.clear(),
        }
    }
    None
}
