//! Keyspaces are marked as a backup marks them: all leaders stand still at one moment, and then go on.
//!
//! Judged is what a mark must be: what anybody had applied of any partition when the last leader was heard to stand still is
//! within it, and its last entries are those that were committed.

use std::collections::BTreeMap;

use kernel::{GroupId, KeyspaceId, Micros, Millis};
use node::moment::{Act, Attempt, Heard, Wanted};

use super::{Phase, World};

/// How long leaders stand still if they are not told to go on, in milliseconds.
const HOLD_MS: u64 = 400;
/// How long a confirmation may take, in microseconds.
const CONFIRM_MICROS: u64 = 3_000_000;
/// Between two looks whether it is there, in microseconds.
const LOOK_MICROS: u64 = 2_000;
/// Between two marks, in microseconds, at least.
const PAUSE_MICROS: u64 = 50_000;

/// An attempt that is under way.
pub(super) struct Marking {
    attempt: Attempt,
    ticket: u64,
    db: KeyspaceId,
    held: bool,
    /// The longest way between who asks and a node.
    delay: u64,
    ways: BTreeMap<(u64, u64), Way>,
    sequence: u64,
    /// How far each group had been applied anywhere when the last node was heard to hold.
    floor: BTreeMap<GroupId, u64>,
}

enum Way {
    Hold(usize),
    Confirm(usize),
    /// It is looked whether it is settled, until then.
    Look(usize, u64),
    Leave(usize),
    Said(Heard),
}

impl Marking {
    fn send(&mut self, at: u64, way: Way) {
        self.sequence += 1;
        self.ways.insert((at, self.sequence), way);
    }

    pub(super) fn due(&self) -> Option<u64> {
        self.ways.first_key_value().map(|((at, _), _)| *at)
    }
}

impl World<'_> {
    /// What is due of marks.
    pub(super) fn mark(&mut self) -> Result<(), String> {
        let Some(mut marking) = self.marking.take() else {
            if self.marks_come() && self.now >= self.next_mark {
                self.begin_mark();
            }
            return Ok(());
        };
        while marking.due().is_some_and(|at| at <= self.now) {
            let Some((_, way)) = marking.ways.pop_first() else { break };
            self.arrive(&mut marking, way)?;
        }
        if marking.ways.is_empty() {
            self.next_mark = self.now + PAUSE_MICROS + self.marks.below(400_000);
        } else {
            self.marking = Some(marking);
        }
        Ok(())
    }

    /// Whether another mark is to be begun. Where clients compare the sides of a split nothing else is to happen.
    pub(super) fn marks_come(&self) -> bool {
        self.phase == Phase::Faulty && self.plan.split.is_none()
    }

    fn begin_mark(&mut self) {
        self.tickets += 1;
        let db = self.marks.below(self.plan.keyspaces.len() as u64) as u16;
        let (keyspace, partitions) = (KeyspaceId(db), self.plan.keyspaces[usize::from(db)]);
        let wanted = Wanted { keyspace, partitions, at_least: BTreeMap::new() };
        let delay = [1_000, 20_000, 150_000][self.marks.below(3) as usize];
        let mut marking = Marking {
            attempt: Attempt::new(wanted, self.machines.len()),
            ticket: self.tickets,
            db: keyspace,
            held: partitions > 1 || self.marks.chance(0.5),
            delay,
            ways: BTreeMap::new(),
            sequence: 0,
            floor: BTreeMap::new(),
        };
        for node in 0..self.machines.len() {
            let at = self.now + 1 + self.marks.below(delay);
            marking.send(at, Way::Hold(node));
        }
        self.marking = Some(marking);
    }

    fn arrive(&mut self, marking: &mut Marking, way: Way) -> Result<(), String> {
        let (now, ticket) = (self.now, marking.ticket);
        let later = now + 1 + self.marks.below(marking.delay);
        let node = match way {
            Way::Said(heard) => return self.hear_mark(marking, heard),
            Way::Hold(node) | Way::Confirm(node) | Way::Look(node, _) | Way::Leave(node) => node,
        };
        if self.machines[node].paused_until > now {
            let until = self.machines[node].paused_until;
            marking.send(until, way);
            return Ok(());
        }
        let clock: Micros = self.machines[node].clock(now);
        let Some(life) = &mut self.machines[node].life else {
            let said = Err("it does not run".to_owned());
            match way {
                Way::Hold(source) => marking.send(later, Way::Said(Heard::Held { source, said })),
                Way::Confirm(source) | Way::Look(source, _) => {
                    marking.send(later, Way::Said(Heard::Confirmed { source, said }));
                }
                Way::Leave(_) | Way::Said(_) => {}
            }
            return Ok(());
        };
        match way {
            Way::Hold(source) => {
                let until = marking.held.then(|| clock.plus_millis(HOLD_MS));
                let said = life.worker.still(clock, ticket, marking.db, until);
                let said = said.map_err(|(_, moved)| moved.to_string());
                marking.send(later, Way::Said(Heard::Held { source, said }));
            }
            Way::Confirm(source) => match life.worker.go_on(clock, ticket) {
                Ok(()) => marking.send(now + 1, Way::Look(source, now + CONFIRM_MICROS)),
                Err((_, moved)) => {
                    let said = Err(moved.to_string());
                    marking.send(later, Way::Said(Heard::Confirmed { source, said }));
                }
            },
            Way::Look(source, until) => {
                let said = match life.worker.settled(ticket) {
                    Ok(None) if now < until => {
                        marking.send(now + LOOK_MICROS, way);
                        return Ok(());
                    }
                    Ok(None) => Err("it took too long".to_owned()),
                    Ok(Some(stills)) => Ok(stills),
                    Err((_, moved)) => Err(moved.to_string()),
                };
                life.worker.forget_still(ticket);
                marking.send(later, Way::Said(Heard::Confirmed { source, said }));
            }
            Way::Leave(_) => life.worker.forget_still(ticket),
            Way::Said(_) => unreachable!("it was heard"),
        }
        life.again = Some(now);
        Ok(())
    }

    fn hear_mark(&mut self, marking: &mut Marking, heard: Heard) -> Result<(), String> {
        // Where nobody is held a partition goes on while the others are asked; it is alone then, and any entry will do.
        if marking.held && matches!(heard, Heard::Held { .. }) {
            let groups = self.seats.groups().into_iter().filter(|group| group.keyspace() == marking.db);
            marking.floor = groups.map(|group| (group, self.judge.highest(group))).collect();
        }
        for act in marking.attempt.next(Millis(self.now / 1000), heard) {
            let later = self.now + 1 + self.marks.below(marking.delay);
            match act {
                Act::Confirm(node) => marking.send(later, Way::Confirm(node)),
                Act::Leave(node) => marking.send(later, Way::Leave(node)),
                Act::Done(marked) => {
                    self.trace.event(self.now, format_args!("marked: {marked:?}"));
                    self.outcome.marks += 1;
                    for (group, (_, still)) in &marked.groups {
                        let floor = marking.floor.get(group).copied().unwrap_or_default();
                        if still.index.0 < floor {
                            return Err(format!("{group} was applied up to {floor} before {marked:?}"));
                        }
                        self.judge.marked(*group, still.index, still.term)?;
                    }
                }
                Act::Fail(failure) => {
                    self.trace.event(self.now, format_args!("not marked: {failure}"));
                    self.outcome.unmarked += 1;
                }
            }
        }
        Ok(())
    }
}
