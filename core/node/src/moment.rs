//! The moment at which a keyspace is backed up: whoever leads its partitions is asked to stand still, and when all of them do
//! all are told to go on.
//!
//! This is who asks, see [`crate::standstill`] for who is asked. One attempt, under one ticket: if it fails, all that was
//! held is left, and another may be tried under another ticket. It begins with a hold at each node, which the host sends.

use alloc::collections::BTreeSet;
use alloc::collections::btree_map::{BTreeMap, Entry};
use alloc::string::String;
use alloc::vec::Vec;

use kernel::planted::{Bug, is};
use kernel::{GroupId, Index, KeyspaceId, Millis};
use thiserror::Error;

use crate::standstill::Still;

/// What is to belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// How many partitions it has.
    pub partitions: u16,
    /// Up to where those that are named must have come at least.
    pub at_least: BTreeMap<GroupId, Index>,
}

/// What a node said, or why it did not, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It holds what it leads, and that is how far it has come.
    Held {
        /// Which node.
        source: usize,
        /// What it said.
        said: Result<Vec<Still>, String>,
    },
    /// It went on, and led these all the while.
    Confirmed {
        /// Which node.
        source: usize,
        /// What it said.
        said: Result<Vec<Still>, String>,
    },
}

/// What the host must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Have this node go on and confirm.
    Confirm(usize),
    /// Nobody is waited for any more at this node.
    Leave(usize),
    /// That is all: the keyspace's partitions belong together so.
    Done(Marked),
    /// That is all: there was no such moment.
    Fail(Failure),
}

/// Where a keyspace's partitions stood at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// When, by the clock of who asked.
    pub moment: Millis,
    /// Each partition of the keyspace, and which node led it.
    pub groups: BTreeMap<GroupId, (usize, Still)>,
}

/// Why there was no such moment.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// A node did not do what it was asked for.
    #[error("{why}")]
    Refused {
        /// Which.
        node: usize,
        /// Why, in its own words.
        why: String,
    },
    /// None of the nodes says that it leads a partition.
    #[error("nobody who was asked leads partition {}/{}", .group.keyspace(), .group.partition())]
    Missing {
        /// Which.
        group: GroupId,
    },
    /// Two of them say so.
    #[error("another node says too that it leads partition {}/{}", .group.keyspace(), .group.partition())]
    Twice {
        /// Which node was the second to say so.
        node: usize,
        /// Which partition.
        group: GroupId,
    },
    /// A partition is not of the keyspace as it was when the backup began, or not as far as it was then.
    #[error("partition {}/{} is not what it was when the backup began", .group.keyspace(), .group.partition())]
    Strange {
        /// Which node has it.
        node: usize,
        /// Which partition.
        group: GroupId,
    },
    /// A node did not confirm what it had said.
    #[error("it did not confirm what it had said")]
    Changed {
        /// Which.
        node: usize,
    },
}

impl Failure {
    /// The node that it lies with, if it lies with one.
    #[must_use]
    pub const fn node(&self) -> Option<usize> {
        match *self {
            Failure::Refused { node, .. }
            | Failure::Twice { node, .. }
            | Failure::Strange { node, .. }
            | Failure::Changed { node } => Some(node),
            Failure::Missing { .. } => None,
        }
    }
}

/// One attempt. See the module's text.
#[derive(Debug)]
pub struct Attempt {
    wanted: Wanted,
    sources: usize,
    /// Nodes of which it is not known whether they hold what they lead.
    holds: BTreeSet<usize>,
    /// Nodes that were told to go on and have not answered.
    confirms: BTreeSet<usize>,
    held: BTreeMap<GroupId, (usize, Still)>,
    failed: Option<Failure>,
    /// When all stood still.
    moment: Option<Millis>,
    over: bool,
}

impl Attempt {
    /// So many nodes, numbered from 0, are asked to hold what they lead of the keyspace.
    #[must_use]
    pub fn new(wanted: Wanted, sources: usize) -> Attempt {
        Attempt {
            wanted,
            sources,
            holds: (0..sources).collect(),
            confirms: BTreeSet::new(),
            held: BTreeMap::new(),
            failed: None,
            moment: None,
            over: false,
        }
    }

    /// Takes what a node said at `now`. What was not asked for, or is told twice, counts for nothing.
    pub fn next(&mut self, now: Millis, heard: Heard) -> Vec<Act> {
        let mut acts = Vec::new();
        match heard {
            Heard::Held { source, said } => {
                if !self.holds.remove(&source) {
                    return acts;
                }
                match said {
                    Ok(stills) => stills.into_iter().for_each(|still| self.take(source, still)),
                    Err(why) => self.fail(Failure::Refused { node: source, why }),
                }
                if is(Bug::ConfirmBeforeAllHeld) && !self.holds.is_empty() {
                    self.confirm(&mut acts);
                }
                if self.holds.is_empty() {
                    self.all_held(now, &mut acts);
                }
            }
            Heard::Confirmed { source, said } => {
                if !self.confirms.remove(&source) {
                    return acts;
                }
                match said {
                    Ok(stills) => self.compare(source, &stills),
                    Err(why) => self.fail(Failure::Refused { node: source, why }),
                }
            }
        }
        self.settle(&mut acts);
        acts
    }

    /// The first reason counts: others mostly follow from it.
    fn fail(&mut self, failure: Failure) {
        self.failed.get_or_insert(failure);
    }

    fn take(&mut self, source: usize, still: Still) {
        let group = still.group;
        let is_its = group.keyspace() == self.wanted.keyspace && group.partition() < self.wanted.partitions;
        let is_far = self.wanted.at_least.get(&group).is_none_or(|&index| still.index >= index);
        if !is_its || !is_far {
            self.fail(Failure::Strange { node: source, group });
        } else if let Entry::Vacant(place) = self.held.entry(group) {
            place.insert((source, still));
        } else {
            self.fail(Failure::Twice { node: source, group });
        }
    }

    /// From here on there is no partition that could still propose something below what was said.
    fn all_held(&mut self, now: Millis, acts: &mut Vec<Act>) {
        let all = (0..self.wanted.partitions).map(|number| GroupId::new(self.wanted.keyspace, number));
        if let Some(group) = all.into_iter().find(|group| !self.held.contains_key(group)) {
            self.fail(Failure::Missing { group });
        }
        if self.failed.is_none() {
            self.moment = Some(now);
            self.confirm(acts);
        }
    }

    fn confirm(&mut self, acts: &mut Vec<Act>) {
        let sources: BTreeSet<usize> = self.held.values().map(|(source, _)| *source).collect();
        for source in sources {
            if self.confirms.insert(source) {
                acts.push(Act::Confirm(source));
            }
        }
    }

    fn compare(&mut self, source: usize, stills: &[Still]) {
        let told: BTreeMap<GroupId, Still> = stills.iter().map(|still| (still.group, *still)).collect();
        let its = self.held.iter().filter(|(_, (of, _))| *of == source);
        if !its.map(|(group, (_, still))| (*group, *still)).eq(told) {
            self.fail(Failure::Changed { node: source });
        }
    }

    fn settle(&mut self, acts: &mut Vec<Act>) {
        if self.over || !self.holds.is_empty() || !self.confirms.is_empty() {
            return;
        }
        self.over = true;
        match (self.failed.take(), self.moment) {
            (None, Some(moment)) => {
                acts.push(Act::Done(Marked { moment, groups: core::mem::take(&mut self.held) }));
            }
            (Some(failure), _) => {
                acts.extend((0..self.sources).map(Act::Leave));
                acts.push(Act::Fail(failure));
            }
            (None, None) => unreachable!("without a failure all were held"),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use kernel::{Micros, Term};
    use proptest::prelude::*;

    use super::*;

    const KEYSPACE: KeyspaceId = KeyspaceId(9);

    fn group(number: u16) -> GroupId {
        GroupId::new(KEYSPACE, number)
    }

    fn still(number: u16) -> Still {
        let (index, applied) = (Index(u64::from(number) + 10), Index(5));
        Still { group: group(number), index, term: Term(2), applied, time: Micros(7) }
    }

    fn attempt(partitions: u16, sources: usize) -> Attempt {
        let at_least = [(group(0), Index(10))].into();
        Attempt::new(Wanted { keyspace: KEYSPACE, partitions, at_least }, sources)
    }

    fn held(source: usize, numbers: &[u16]) -> Heard {
        Heard::Held { source, said: Ok(numbers.iter().map(|&number| still(number)).collect()) }
    }

    fn confirmed(source: usize, numbers: &[u16]) -> Heard {
        Heard::Confirmed { source, said: Ok(numbers.iter().map(|&number| still(number)).collect()) }
    }

    #[test]
    fn nobody_goes_on_before_all_stand_still() {
        let mut attempt = attempt(3, 3);
        assert_eq!(attempt.next(Millis(1), held(1, &[0, 2])), []);
        assert_eq!(attempt.next(Millis(2), confirmed(1, &[0, 2])), [], "it was not asked");
        assert_eq!(attempt.next(Millis(3), held(2, &[])), []);
        assert_eq!(attempt.next(Millis(4), held(2, &[])), [], "once is enough");
        let acts = attempt.next(Millis(5), held(0, &[1]));
        assert_eq!(acts, [Act::Confirm(0), Act::Confirm(1)], "who leads nothing holds nothing");
        assert_eq!(attempt.next(Millis(6), confirmed(1, &[0, 2])), []);
        let groups = [(group(0), (1, still(0))), (group(1), (0, still(1))), (group(2), (1, still(2)))].into();
        let marked = Marked { moment: Millis(5), groups };
        assert_eq!(attempt.next(Millis(7), confirmed(0, &[1])), [Act::Done(marked)]);
        assert_eq!(attempt.next(Millis(8), confirmed(0, &[1])), []);
    }

    #[test]
    fn what_was_not_held_at_one_moment_is_no_mark() {
        let refused = |why: &str| Failure::Refused { node: 1, why: why.to_string() };
        let no = || Err("no".to_string());
        let early = Still { index: Index(9), ..still(0) };
        let other = Still { group: GroupId::new(KeyspaceId(8), 0), ..still(0) };
        let later = Still { term: Term(3), ..still(0) };
        #[rustfmt::skip] // columns
        let table: [(Result<Vec<Still>, String>, Result<Vec<Still>, String>, Failure); 9] = [
            // the second node holds,          and confirms,                   what comes of it
            (no(),                             Ok(vec![]),                     refused("no")),
            (Ok(vec![]),                       Ok(vec![]),                     Failure::Missing { group: group(0) }),
            (Ok(vec![still(0), still(1)]),     Ok(vec![]),                     Failure::Twice { node: 1, group: group(1) }),
            (Ok(vec![early]),                  Ok(vec![]),                     Failure::Strange { node: 1, group: group(0) }),
            (Ok(vec![still(0), still(2)]),     Ok(vec![]),                     Failure::Strange { node: 1, group: group(2) }),
            (Ok(vec![still(0), other]),        Ok(vec![]),                     Failure::Strange { node: 1, group: other.group }),
            (Ok(vec![still(0)]),               no(),                           refused("no")),
            (Ok(vec![still(0)]),               Ok(vec![]),                     Failure::Changed { node: 1 }),
            (Ok(vec![still(0)]),               Ok(vec![later]),                Failure::Changed { node: 1 }),
        ];
        for (holds, confirms, failure) in table {
            let mut attempt = attempt(2, 2);
            let mut acts = attempt.next(Millis(1), held(0, &[1]));
            acts.extend(attempt.next(Millis(2), Heard::Held { source: 1, said: holds.clone() }));
            if acts.contains(&Act::Confirm(1)) {
                acts.clear();
                acts.extend(attempt.next(Millis(3), Heard::Confirmed { source: 1, said: confirms }));
                assert_eq!(acts, [], "the other may be on its way");
                acts.extend(attempt.next(Millis(4), confirmed(0, &[1])));
            }
            assert_eq!(acts, [Act::Leave(0), Act::Leave(1), Act::Fail(failure)], "{holds:?}");
        }
    }

    proptest! {
        /// Whatever nodes say, and whenever: they are told to go on when each has been heard, and it ends once.
        #[test]
        fn each_attempt_ends_once_and_never_before_all_were_heard(
            leaders in proptest::collection::vec(0..4_usize, 1..6),
            order in proptest::collection::vec((0..4_usize, any::<bool>(), 0..8_u8), 0..60),
        ) {
            let partitions = leaders.len() as u16;
            let its = |source: usize| -> Vec<u16> {
                (0..partitions).filter(|&number| leaders[usize::from(number)] == source).collect()
            };
            let mut attempt = attempt(partitions, 4);
            let (mut heard, mut asked, mut ends) = (BTreeSet::new(), BTreeSet::new(), 0);
            let rest = (0..4).map(|source| (source, true, 1)).chain((0..4).map(|source| (source, false, 1)));
            for (source, hold, fate) in order.into_iter().chain(rest) {
                let said = match fate {
                    0 => Err("no".to_string()),
                    _ => Ok(its(source).into_iter().map(still).collect()),
                };
                if hold {
                    heard.insert(source);
                }
                let it = if hold { Heard::Held { source, said } } else { Heard::Confirmed { source, said } };
                for act in attempt.next(Millis(1), it) {
                    prop_assert_eq!(ends, 0, "it is over");
                    match act {
                        Act::Confirm(source) => {
                            prop_assert_eq!(heard.len(), 4, "one is not held yet");
                            prop_assert!(asked.insert(source));
                        }
                        Act::Leave(_) => {}
                        Act::Done(marked) => {
                            ends += 1;
                            prop_assert_eq!(marked.groups.len(), leaders.len());
                        }
                        Act::Fail(_) => ends += 1,
                    }
                }
            }
            prop_assert_eq!(ends, 1, "it ends");
        }
    }
}
