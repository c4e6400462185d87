//! Time: ticks, elections at timeouts of our own chance, and the sleep of groups that have nothing to do.
//!
//! Ticks follow `now`; a host that was stopped does not catch up on them, so it does not campaign the moment it returns.
//! A sleeping group ticks on no member and sends nothing. It is woken by a proposal, a read, a change, a message, or the
//! host, when its membership suspects a node: nobody else would notice that a sleeping leader is gone.

use kernel::{Index, Micros, Rng, Term};
use raft::{ProgressState, StateRole};

use super::receive::Refusal;
use super::{Config, Replica};
use crate::codec::Said;
use crate::members::ReplicaId;

/// Ticks that are made up for at once.
pub(super) const TICKS_AT_ONCE_MAX: u64 = 2;
/// Followers count their ticks apart: to one of them a leader's silence is longer than to another by at most so many. Whoever
/// campaigned earlier would ask some who still hold to the leader, for nothing.
const CLOCK_TICKS: usize = 2;
/// Election timeouts after which a snapshot transfer that nobody reports on is taken for failed.
const SNAPSHOT_TIMEOUTS: u64 = 30;

pub(super) struct Timing {
    ticked: Micros,
    /// The election timeout in ticks, drawn for this term, role and leader.
    timeout: usize,
    seen: (u64, StateRole, u64),
    /// How often it has tried to be elected since it last knew a leader.
    tries: u32,
    /// When it last asked whether it would be elected.
    asked: Micros,
    asleep: bool,
    quiet: u32,
    /// Ticks since the start, as far as they are counted.
    lived: usize,
}

impl Timing {
    pub fn new(now: Micros, config: &Config, rng: &mut Rng) -> Timing {
        let (timeout, seen) = (draw(config, rng, None), (0, StateRole::Follower, raft::INVALID_ID));
        Timing { ticked: now, timeout, seen, tries: 0, asked: now, asleep: false, quiet: 0, lived: 0 }
    }

    /// Something was done that the group must stay awake for.
    pub const fn keep_awake(&mut self) {
        self.quiet = 0;
    }
}

/// When one of a leader's followers campaigns once it is silent: its place among them, and how many they are.
type Place = (usize, usize);

/// The ticks of silence after which to campaign: from one election timeout up to two. Who has a place among followers has the
/// first half of its share of these, and the other half lies between it and the next.
fn draw(config: &Config, rng: &mut Rng, place: Option<Place>) -> usize {
    let ticks = config.election_ticks;
    let Some((at, followers)) = place else { return ticks + rng.below(ticks as u64) as usize };
    let within = rng.below(ticks as u64 / 2) as usize;
    (ticks + CLOCK_TICKS + (at * ticks + within) / followers).min(2 * ticks - 1)
}

impl Replica {
    /// When [`Replica::wake`] must be called next; `None` while the group sleeps.
    #[must_use]
    pub fn deadline(&self) -> Option<Micros> {
        let tick = (!self.timing.asleep).then(|| self.timing.ticked + self.config.tick);
        tick.into_iter().chain(self.reads_deadline()).min()
    }

    /// Lets everything due at `now` happen.
    pub fn wake(&mut self, now: Micros) {
        self.now = now;
        self.expire_reads();
        if self.timing.asleep {
            return;
        }
        let due = now.since(self.timing.ticked) / self.config.tick;
        if due > TICKS_AT_ONCE_MAX {
            self.timing.ticked = now;
        } else {
            self.timing.ticked = self.timing.ticked + due * self.config.tick;
        }
        for _ in 0..due.min(TICKS_AT_ONCE_MAX) {
            self.tick();
        }
    }

    /// Whether the group sleeps on this replica.
    #[must_use]
    pub const fn is_asleep(&self) -> bool {
        self.timing.asleep
    }

    /// Wakes the group: the host suspects the leader's node, or something is about to happen.
    pub fn rouse(&mut self, now: Micros) {
        self.now = now;
        self.awaken();
        self.collect();
    }

    pub(super) fn awaken(&mut self) {
        self.timing.quiet = 0;
        if !self.timing.asleep {
            return;
        }
        self.timing.asleep = false;
        self.timing.ticked = self.now;
        self.raw.raft.election_elapsed = 0;
        // Followers do not know yet; and the leader must hear a majority before it may be believed.
        self.raw.raft.ping();
    }

    pub(super) fn election_micros(&self) -> u64 {
        self.config.tick * self.config.election_ticks as u64
    }

    /// Whether an election timeout has passed since this replica's start, so that no lease holds any more that it may have
    /// granted in an earlier life. Counted in ticks, so that a clock that was set ahead does not count.
    pub(super) const fn has_waited(&self) -> bool {
        self.timing.lived >= self.config.election_ticks
    }

    /// Ticks since it last asked whether it would be elected.
    pub(super) const fn ticks_asking(&self) -> u64 {
        self.now.since(self.timing.asked) / self.config.tick
    }

    fn tick(&mut self) {
        self.timing.lived = self.timing.lived.saturating_add(1);
        if !self.leads() {
            let campaigning = matches!(self.raw.raft.state, StateRole::PreCandidate | StateRole::Candidate);
            if campaigning && self.timing.tries == 1 {
                // Two that campaign at the same moment divide the votes, and writes wait until one of them tries again.
                // There is no leader to be patient with, so its wait counts double. It does so once: where half a
                // timeout is too short for the answers, they arrive before the third try.
                self.raw.raft.election_elapsed += 1;
            }
            let campaigns = self.raw.raft.election_elapsed + 1 >= self.timing.timeout;
            if !campaigns {
                self.raw.tick();
            } else if self.recovering.is_none() && self.desk.is_clear() {
                // A replica whose log is not durable cannot ask for votes on it.
                self.raw.tick();
                self.timing.tries += 1;
                self.timing.asked = self.now;
                self.timing.timeout = draw(&self.config, &mut self.rng, None);
            }
        } else {
            self.raw.tick();
        }
        self.raw.mut_store().forget_unwanted();
        self.ask_recovery();
        self.watch_snapshots();
        self.leave_joint();
        self.renew_lease();
        self.collect();
        self.fall_asleep();
    }

    /// The engine draws timeouts from the system's chance; each is replaced before it can have an effect.
    pub(super) fn settle(&mut self) {
        let raft = &self.raw.raft;
        let seen = (raft.term, raft.state, raft.leader_id);
        if seen.2 != raft::INVALID_ID {
            self.timing.tries = 0;
        }
        if seen != self.timing.seen {
            // Who was told to stand asks for votes at once.
            let told = seen.1 == StateRole::Candidate && self.timing.seen.1 == StateRole::Follower;
            self.timing.tries += u32::from(told);
            self.timing.seen = seen;
            let place = self.place();
            self.timing.timeout = draw(&self.config, &mut self.rng, place);
        }
        self.raw.raft.set_randomized_election_timeout(self.timing.timeout);
    }

    /// Followers of one leader campaign in turn, so that no two of them divide the votes when it is gone: in the order of
    /// their numbers, which begins elsewhere in each group and term, so that one node does not come to lead everything. Who has
    /// too short a log to be elected leaves it to the next. Those that know other members than these may meet all the same,
    /// and wait by chance then.
    fn place(&self) -> Option<Place> {
        let leader = self.leader()?;
        let followers = || self.members.voters().iter().filter(|&&id| id != leader);
        let at = followers().position(|&id| id == self.config.id)? as u64;
        let count = followers().count();
        let begins = u64::from(self.config.group.0).wrapping_add(self.raw.raft.term);
        Some(((at.wrapping_add(begins) % count as u64) as usize, count))
    }

    fn fall_asleep(&mut self) {
        let Some(limit) = self.config.quiet_ticks else { return };
        if !self.leads() || !self.has_nothing_to_do() {
            self.timing.quiet = 0;
            return;
        }
        self.timing.quiet += 1;
        if self.timing.quiet < limit {
            return;
        }
        let (term, commit) = (self.term(), self.last());
        let others: Vec<ReplicaId> = self.members.iter().filter(|&id| id != self.config.id).collect();
        for to in others {
            self.say(to, term, Said::Quiesce { commit });
        }
        self.timing.asleep = true;
        self.end_lease();
    }

    fn has_nothing_to_do(&self) -> bool {
        let raft = &self.raw.raft;
        let last = raft.raft_log.last_index();
        let level = raft.raft_log.applied == last
            && raft.raft_log.committed == last
            && raft.commit_to_current_term()
            && raft.lead_transferee.is_none()
            && !self.members.is_joint()
            && !raft.has_pending_conf();
        level
            && self.desk.is_clear()
            && self.desk.reserved.is_none()
            && self.committed.is_empty()
            && self.reads.is_empty()
            && raft.prs().iter().all(|(&id, progress)| {
                id == raft.id
                    || progress.state == ProgressState::Replicate
                        && progress.matched == last
                        && progress.committed_index == last
            })
    }

    pub(super) fn take_quiesce(&mut self, from: ReplicaId, term: Term, commit: Index) -> Result<(), Refusal> {
        let raft = &self.raw.raft;
        let follows = raft.state == StateRole::Follower && raft.term == term.0 && self.leader() == Some(from);
        let level = self.last() == commit && raft.raft_log.committed == commit.0 && self.desk.is_clear();
        if !follows {
            return Err(Refusal::Stale);
        }
        if level && self.recovering.is_none() {
            self.timing.asleep = true;
        }
        Ok(())
    }

    /// Snapshots on their way to followers, of which nothing was heard for too long, are sent again.
    fn watch_snapshots(&mut self) {
        let limit = self.election_micros() * SNAPSHOT_TIMEOUTS;
        if !self.leads() {
            self.sending.clear();
            return;
        }
        let prs = self.raw.raft.prs();
        let mut late = Vec::new();
        for (&id, progress) in prs.iter() {
            let Some(peer) = ReplicaId::new(id) else { continue };
            if progress.state != ProgressState::Snapshot {
                self.sending.remove(&peer);
                continue;
            }
            let since = *self.sending.entry(peer).or_insert(self.now);
            if self.now.since(since) > limit {
                late.push(peer);
            }
        }
        for peer in late {
            self.snapshot_failed(peer);
        }
    }

    /// Bytes of a snapshot still flow to `peer`: the transfer is not given up yet.
    pub fn snapshot_progressed(&mut self, peer: ReplicaId) {
        if let Some(since) = self.sending.get_mut(&peer) {
            *since = self.now;
        }
    }
}
