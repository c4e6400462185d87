//! The host of one mind: it appends, syncs, persists, and keeps what it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use consensus::Mark;
use control::CONTROL;
use kernel::{GroupId, Index, Micros, NodeId, Spoken};
use node::cluster::Lane;
use node::cluster::mind::{Answer, Effect, Mind, Ticket};
use p2p::swim::Liveness;

use super::disk::Disk;
use super::groups::Duties;

/// A process that runs.
pub struct Live {
    pub mind: Mind,
    pub duties: Duties,
    pub links: BTreeMap<NodeId, Vec<SocketAddr>>,
    pub syncing: bool,
    pub wake_at: Option<u64>,
    pub expelled: bool,
    pub shown: Index,
}

/// A machine with a disk and a clock of its own.
pub struct Host {
    pub id: NodeId,
    /// What its binary speaks, from its next life on.
    pub spoken: Spoken,
    pub disk: Disk,
    pub live: Option<Live>,
    /// Counts starts and stops: what was meant for an earlier life is void.
    pub epoch: u64,
    /// The clock runs so many thousandths as fast as time.
    pub rate: u64,
    pub offset: u64,
    pub paused_until: u64,
    pub full_until: u64,
    /// It was removed, and does not come back.
    pub retired: bool,
    /// Replicas that were deleted here: none comes back.
    pub deleted: BTreeSet<(GroupId, u64)>,
    pub liveness: Vec<(u64, NodeId, Liveness)>,
}

/// What a turn leaves for the world to do.
#[derive(Default)]
pub struct Done {
    pub frames: Vec<(NodeId, Lane, Vec<u8>)>,
    pub persist: Vec<(Mark, Vec<u8>)>,
    pub answers: Vec<(Ticket, Answer)>,
    pub started: Vec<GroupId>,
}

impl Host {
    /// The time on its clock.
    pub fn clock(&self, now: u64) -> Micros {
        Micros(self.offset + now * self.rate / 1000)
    }

    /// When its clock shows `at`.
    pub fn when(&self, at: Micros) -> u64 {
        (at.0.saturating_sub(self.offset) * 1000).div_ceil(self.rate)
    }

    /// One turn: the log, then the effects.
    pub fn turn(&mut self, now: u64) -> Result<Done, String> {
        let clock = self.clock(now);
        let mut done = Done::default();
        let Some(live) = &mut self.live else { return Ok(done) };
        let records = live.mind.records(clock);
        if !records.is_empty() {
            if now < self.full_until {
                live.mind.refused(clock);
            } else {
                let end = self.disk.append(records);
                live.mind.wrote(clock, end);
            }
        }
        let mut effects = Vec::new();
        live.mind.finish(clock, &mut effects);
        for effect in effects {
            self.perform(now, effect, &mut done)?;
        }
        Ok(done)
    }

    fn perform(&mut self, now: u64, effect: Effect, done: &mut Done) -> Result<(), String> {
        let Some(live) = &mut self.live else { return Ok(()) };
        match effect {
            Effect::Send { to, lane, frame } => done.frames.push((to, lane, frame)),
            Effect::Stop { group, replica } => {
                let had = live.duties.remove(&group);
                if had.is_none_or(|duty| duty.replica != replica) {
                    return Err(format!("{:?} stops a replica of {group} that it does not have", self.id));
                }
                self.deleted.insert((group, replica.get()));
            }
            Effect::Start { group, duty } => {
                if group == CONTROL || live.duties.contains_key(&group) {
                    return Err(format!("{:?} starts a second replica of {group}", self.id));
                }
                if self.deleted.contains(&(group, duty.replica.get())) {
                    return Err(format!("{:?} starts a replica of {group} that was deleted", self.id));
                }
                check_links(live, group, &duty)?;
                live.duties.insert(group, duty);
                done.started.push(group);
            }
            Effect::Change { group, duty } => {
                check_links(live, group, &duty)?;
                let had = live.duties.insert(group, duty);
                if had.is_none_or(|had| had.replica != live.duties[&group].replica) {
                    return Err(format!("{:?} changes what it does not have in {group}", self.id));
                }
            }
            Effect::Link { node, addresses } => _ = live.links.insert(node, addresses),
            Effect::Unlink { node } => _ = live.links.remove(&node),
            Effect::Liveness { node, liveness } => self.liveness.push((now, node, liveness)),
            Effect::Persist { mark, state, .. } => done.persist.push((mark, state)),
            Effect::Incarnation(number) => self.disk.incarnation = self.disk.incarnation.max(number),
            Effect::Answer { ticket, answer } => done.answers.push((ticket, answer)),
            Effect::Expelled => live.expelled = true,
            Effect::Keyspace(_) | Effect::User(_) | Effect::Mesh => {}
        }
        Ok(())
    }
}

/// Replicas need links to the other members before they talk.
fn check_links(live: &Live, group: GroupId, duty: &control::Duty) -> Result<(), String> {
    let me = live.mind.node();
    let lacking = duty.members.iter().find(|(node, ..)| *node != me && !live.links.contains_key(node));
    lacking.map_or(Ok(()), |(node, ..)| Err(format!("no link to {node:?}, a member of {group}")))
}
