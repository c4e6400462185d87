//! Snapshots on their way: arbitrary bytes read back as they are written or are refused; whatever frames come, are lost,
//! changed or repeated, and whatever the hosts answer, both ends keep to their bounds and a snapshot that is here is whole.
#![no_main]

use std::collections::VecDeque;

use consensus::codec::Descriptor;
use consensus::{Mark, Members, ReplicaId};
use fuzz::Bytes;
use kernel::{GroupId, Index, Micros, NodeId, Term};
use node::cluster::transfer::{
    Effect, LOT_BYTES_MAX, Options, Report, Staged, Task, Transfers, WINDOW_BYTES, wire,
};

/// Most frames of the test net: what does not fit is lost.
const FRAMES_MAX: usize = 64;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    match input.byte() % 3 {
        0 => raw(input.rest()),
        _ => Pair::new().live(&mut input),
    }
});

fn raw(bytes: &[u8]) {
    let Ok((run, message)) = wire::decode(bytes) else { return };
    let mut again = Vec::new();
    wire::encode(run, &message, &mut again);
    assert_eq!(wire::decode(&again), Ok((run, message)));
}

fn id(node: usize) -> NodeId {
    NodeId([node as u8; 32])
}

/// The snapshot of a group: so many lots of one byte.
fn lots(group: GroupId) -> usize {
    group.0 as usize % 7
}

/// Two nodes, each with the other's frames and its own host's tasks.
struct Pair {
    now: Micros,
    ends: [Transfers; 2],
    frames: [VecDeque<Vec<u8>>; 2],
    tasks: [VecDeque<Task>; 2],
    /// Lots that each has staged, by group.
    staged: [[usize; 8]; 2],
}

impl Pair {
    fn new() -> Pair {
        let end = |chance| Transfers::new(Options { bytes_per_second: 1000 }, chance);
        Pair {
            now: Micros(0),
            ends: [end(1), end(2)],
            frames: Default::default(),
            tasks: Default::default(),
            staged: Default::default(),
        }
    }

    fn live(mut self, input: &mut Bytes<'_>) {
        let members = Members::new(ReplicaId::new(1), []).expect("a group has a voter");
        let mark = Mark { index: Index(1), term: Term(1), members };
        while !input.is_empty() {
            let at = usize::from(input.byte() % 2);
            let group = GroupId(u32::from(input.byte() % 8));
            let (now, other) = (self.now, id(1 - at));
            match input.byte() % 12 {
                0 => self.ends[at].offer(now, group, u64::from(input.byte() % 2)),
                1 => {
                    let (generation, mark) = (u64::from(input.byte() % 2), mark.clone());
                    let size = lots(group) as u64;
                    let descriptor = Descriptor { generation, size, checksum: 0, mark };
                    self.ends[at].fetch(now, group.0 as usize, group, other, &descriptor);
                }
                2 => self.ends[at].forget(now, group),
                3 => self.ends[at].peer_down(other),
                4 => self.ends[at].peer_up(now, other),
                5 => {
                    self.now = now + input.u64() % 70_000_000;
                    self.ends[at].wake(self.now);
                }
                6 => {
                    let _ = self.ends[at].take_frame(now, other, input.piece());
                }
                7 => drop(self.frames[at].pop_front()),
                8 => self.change(at, input),
                9 => self.frames[at].extend(self.frames[at].front().cloned()),
                10 => self.work(at, input),
                _ => {
                    if let Some(frame) = self.frames[at].pop_front() {
                        self.ends[at].take_frame(now, other, &frame).ok();
                    }
                }
            }
            self.act();
        }
    }

    /// Another byte in a frame.
    fn change(&mut self, at: usize, input: &mut Bytes<'_>) {
        if let Some(frame) = self.frames[at].front_mut() {
            let byte = input.u64() as usize % frame.len();
            frame[byte] ^= input.byte();
        }
    }

    /// A host does its next task, or fails to.
    fn work(&mut self, at: usize, input: &mut Bytes<'_>) {
        let Some(task) = self.tasks[at].pop_front() else { return };
        let fails = input.byte() % 8 == 0;
        let progress = |staged: usize, group: GroupId| {
            let cursor = (staged < lots(group)).then(|| vec![staged as u8]);
            Staged { cursor, bytes: staged as u64 }
        };
        let report = match task {
            Task::Begin { group, ticket, .. } => {
                let staged = progress(self.staged[at][group.0 as usize], group);
                Report::Staged { ticket, staged: (!fails).then_some(staged) }
            }
            Task::Stage { group, content, ticket, .. } => {
                assert!(content.len() <= LOT_BYTES_MAX);
                let staged = &mut self.staged[at][group.0 as usize];
                let whole = *staged >= lots(group);
                if !fails && !whole {
                    *staged += 1;
                }
                let staged = progress(*staged, group);
                Report::Staged { ticket, staged: (!fails && !whole).then_some(staged) }
            }
            Task::Check { group, ticket, .. } => {
                let whole = self.staged[at][group.0 as usize] == lots(group);
                Report::Checked { ticket, sound: whole && !fails }
            }
            Task::Drop { group } => {
                self.staged[at][group.0 as usize] = 0;
                return;
            }
            Task::Read { group, cursor, ticket, .. } => {
                let from = cursor.first().map_or(0, |from| usize::from(*from));
                let next = (from + 1 < lots(group)).then(|| vec![from as u8 + 1]);
                Report::Read { ticket, lot: (!fails && from < lots(group)).then(|| (vec![from as u8], next)) }
            }
            Task::Release { .. } => return,
        };
        self.ends[at].report(self.now, report);
    }

    fn act(&mut self) {
        for at in 0..2 {
            let mut effects = Vec::new();
            self.ends[at].take_effects(&mut effects);
            for effect in effects {
                match effect {
                    Effect::Send { to, bytes } => {
                        assert_eq!(to, id(1 - at), "there is nobody else");
                        assert!(bytes.len() <= WINDOW_BYTES);
                        if self.frames[1 - at].len() < FRAMES_MAX {
                            self.frames[1 - at].push_back(bytes);
                        }
                    }
                    Effect::Do(task) => self.tasks[at].push_back(task),
                    Effect::Fetched { group, here, .. } => {
                        let whole = self.staged[at][group.0 as usize] == lots(group);
                        assert!(whole || !here, "what is here is not whole");
                    }
                    Effect::Retract { .. } | Effect::Progressed { .. } => {}
                }
            }
            let reads = self.tasks[at].iter().filter(|task| matches!(task, Task::Read { .. })).count();
            assert!(reads <= 1, "one lot is read at a time");
        }
    }
}
