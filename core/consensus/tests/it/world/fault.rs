//! What goes wrong, and what the operator does in the middle of it.

use consensus::{ReplicaId, Role};

use super::{Happening, NODES_MAX, World};
use crate::disk::Disk;

impl World {
    pub(super) fn fault(&mut self) {
        if self.healing {
            return;
        }
        let pause = 50_000 + self.rng.below(350_000);
        self.after(pause, Happening::Fault);
        if self.now < self.calm_until {
            return;
        }
        self.deaf = None;
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let sleeper = self.leader().filter(|&leader| self.is_asleep(leader));
        if self.leases
            && self.rng.chance(0.5)
            && let Some(leader) = sleeper
        {
            self.stay_calm(4_000_000);
            self.cut_leader_off();
            // Its own membership is the last to notice.
            self.queue.retain(|_, next| !matches!(next, Happening::Rouse { node, .. } if *node == leader));
            return;
        }
        if self.leases && self.rng.chance(0.15) {
            return self.deafen_one();
        }
        match self.rng.below(16) {
            0..=2 => self.crash(node),
            3 => self.crash_leader(),
            4 => self.lose(node),
            5 | 6 => self.split(),
            7 => self.cut_leader_off(),
            8 => self.deafen(),
            9 => self.nodes[node].slow_until = self.now + 1_000_000,
            10 => self.nodes[node].full_until = self.now + 300_000,
            11 | 12 => self.pause(node),
            13 => self.hand_over(),
            _ => self.reshape(),
        }
        if self.rng.chance(0.3) {
            self.checkpoint(node);
        }
    }

    /// What was begun takes its time: nothing else goes wrong, and clients ask.
    fn stay_calm(&mut self, micros: u64) {
        self.blocked.clear();
        (self.calm_until, self.busy_until) = (self.now + micros, self.now + micros);
    }

    fn leader(&self) -> Option<usize> {
        let leads = |&node: &usize| self.nodes[node].live.as_ref().is_some_and(|live| live.replica.leads());
        let term = |&node: &usize| self.nodes[node].live.as_ref().map(|live| live.replica.term());
        (0..self.nodes.len()).filter(leads).max_by_key(term)
    }

    fn is_asleep(&self, node: usize) -> bool {
        self.nodes[node].live.as_ref().is_some_and(|live| live.replica.is_asleep())
    }

    /// A follower does not hear the leader any more and will ask to be elected; another still hears it, and refuses.
    fn deafen_one(&mut self) {
        let Some(leader) = self.leader() else { return };
        let Some(live) = &self.nodes[leader].live else { return };
        let id = self.nodes[leader].id;
        let voters = live.replica.members().voters();
        let followers: Vec<ReplicaId> = voters.iter().copied().filter(|&voter| voter != id).collect();
        if followers.len() != 2 || self.is_everysec() {
            return;
        }
        let turn = self.rng.below(2) as usize;
        let (deaf, loyal) = (followers[turn], followers[1 - turn]);
        self.stay_calm(2_500_000);
        self.deaf = Some((deaf, loyal));
        self.block(|from, to| (from, to) == (id, deaf) || (from, to) == (deaf, id));
    }

    /// `node` asks to be elected: who refuses, because it hears the leader, is restarted at once, and does not any more.
    pub(super) fn forget(&mut self, node: usize) {
        let own = self.nodes[node].id;
        let Some((_, loyal)) = self.deaf.take_if(|(deaf, _)| *deaf == own) else { return };
        let Some(node) = self.nodes.iter().position(|node| node.id == loyal) else { return };
        let Some(leader) = self.leader().map(|leader| self.nodes[leader].id) else { return };
        if !self.healing && leader != own && leader != loyal {
            self.outcome.forgotten += 1;
            self.crash_for(node, 100);
            self.block(|from, to| from == leader || to == leader);
        }
    }

    pub(super) fn crash(&mut self, node: usize) {
        let back = if self.rng.chance(0.3) { 500 } else { 20_000 + self.rng.below(1_200_000) };
        self.crash_for(node, back);
    }

    fn crash_for(&mut self, node: usize, back: u64) {
        let joined = self.nodes[node].disk.engine.is_some();
        let forgets = joined && self.is_everysec();
        if self.nodes[node].live.is_none() || forgets && self.another_is_ambiguous(node) {
            return;
        }
        self.outcome.crashes += 1;
        self.stop(node);
        let mut rng = self.rng.fork(self.now);
        self.nodes[node].disk.crash(&mut rng);
        self.nodes[node].disk.ambiguous |= forgets;
        self.after(back, Happening::Restart { node });
        self.suspect();
    }

    /// Of an `everysec` group only one forgets at a time: what a majority forgets is lost.
    fn another_is_ambiguous(&self, node: usize) -> bool {
        self.nodes.iter().enumerate().any(|(other, one)| other != node && one.disk.ambiguous)
    }

    fn crash_leader(&mut self) {
        if let Some(node) = self.leader() {
            self.crash(node);
        }
    }

    /// The membership notices, sooner or later, and wakes sleeping groups.
    fn suspect(&mut self) {
        for node in 0..self.nodes.len() {
            let (epoch, delay) = (self.nodes[node].epoch, 100_000 + self.rng.below(1_500_000));
            self.after(delay, Happening::Rouse { node, epoch });
        }
    }

    /// A disk loses what it had acknowledged, at most one at a time: what a majority loses is lost.
    fn lose(&mut self, node: usize) {
        let joined = self.nodes[node].disk.engine.is_some() && !self.small;
        if !joined || self.nodes[node].live.is_none() || self.nodes.iter().any(|node| node.disk.ambiguous) {
            return;
        }
        self.crash(node);
        let count = 1 + self.rng.below(12) as usize;
        if self.nodes[node].disk.lose_tail(count) {
            self.outcome.lossy += 1;
        }
    }

    fn block(&mut self, blocked: impl Fn(ReplicaId, ReplicaId) -> bool) {
        let ids: Vec<ReplicaId> = self.nodes.iter().map(|node| node.id).collect();
        for &from in &ids {
            for &to in &ids {
                if from != to && blocked(from, to) {
                    self.blocked.insert((from, to));
                }
            }
        }
        let calm = self.calm_until.saturating_sub(self.now);
        let mend = calm.max(100_000 + self.rng.below(1_500_000));
        self.after(mend, Happening::Mend);
        self.suspect();
    }

    fn split(&mut self) {
        let sides = self.rng.next_u64();
        self.block(|from, to| (sides >> (from.get() % 64) ^ sides >> (to.get() % 64)) & 1 == 1);
    }

    fn cut_leader_off(&mut self) {
        if let Some(node) = self.leader() {
            let id = self.nodes[node].id;
            self.block(|from, to| from == id || to == id);
        }
    }

    fn deafen(&mut self) {
        let pattern = self.rng.next_u64();
        self.block(|from, to| (pattern >> ((from.get() * 8 + to.get()) % 64)) & 3 == 3);
    }

    fn pause(&mut self, node: usize) {
        let node = if self.rng.chance(0.5) { self.leader().unwrap_or(node) } else { node };
        self.nodes[node].paused_until = self.now + 200_000 + self.rng.below(1_500_000);
        self.suspect();
    }

    fn hand_over(&mut self) {
        let Some(node) = self.leader() else { return };
        let clock = self.nodes[node].clock(self.now);
        let pick = self.rng.next_u64() as usize;
        let Some(live) = &mut self.nodes[node].live else { return };
        let voters: Vec<ReplicaId> = live.replica.members().voters().iter().copied().collect();
        if live.replica.hand_over(clock, voters[pick % voters.len()]).is_ok() {
            self.outcome.handovers += 1;
        }
        self.turn_soon(node);
    }

    /// Members come, go and change their roles, also several at once; not below three voters, unless it began so.
    fn reshape(&mut self) {
        let Some(node) = self.leader() else { return };
        if self.nodes.iter().any(|node| node.disk.ambiguous) {
            return;
        }
        let Some(live) = &self.nodes[node].live else { return };
        let members = live.replica.members().clone();
        let voters: Vec<ReplicaId> = members.voters().iter().copied().collect();
        let learners: Vec<ReplicaId> = members.learners().iter().copied().collect();
        let mut roles = Vec::new();
        let room = NODES_MAX - self.nodes.len();
        let least = if self.small { 1 } else { 3 };
        match self.rng.below(5) {
            // One or two voters are exchanged for new machines.
            0 | 1 if room >= 2 => {
                let count = (1 + self.rng.below(2) as usize).min(voters.len());
                let from = self.rng.next_u64() as usize;
                for at in 0..count {
                    roles.push((voters[(from + at) % voters.len()], Role::Gone));
                    roles.push((self.new_machine(), Role::Voter));
                }
            }
            2 if room >= 1 => roles.push((self.new_machine(), Role::Learner)),
            3 if !learners.is_empty() => roles.extend(learners.iter().map(|&id| (id, Role::Voter))),
            _ if voters.len() > least => {
                let role = if self.rng.chance(0.5) { Role::Gone } else { Role::Learner };
                let from = self.rng.next_u64() as usize;
                for at in 0..(voters.len() - least).min(2) {
                    roles.push((voters[(from + at) % voters.len()], role));
                }
            }
            _ => return,
        }
        let clock = self.nodes[node].clock(self.now);
        if let Some(live) = &mut self.nodes[node].live
            && live.replica.change(clock, &roles).is_ok()
        {
            self.outcome.changes += 1;
        }
        self.turn_soon(node);
    }

    fn new_machine(&mut self) -> ReplicaId {
        let highest = self.nodes.iter().map(|node| node.id.get()).max().unwrap_or(0);
        let id = ReplicaId::new(highest + 1).expect("small numbers");
        let node = self.add_node(id, Disk::new(None));
        self.begin(node);
        id
    }
}
