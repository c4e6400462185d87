//! What goes wrong.

use node::Partition;

use super::World;

impl World<'_> {
    /// What is due: faults, mendings, starts.
    pub(super) fn happen(&mut self) -> Result<(), String> {
        let now = self.now;
        let due: Vec<usize> =
            self.starts.extract_if(.., |(at, _)| *at <= now).map(|(_, number)| number).collect();
        for number in due {
            self.start(number)?;
        }
        if self.mend.is_some_and(|at| at <= now) {
            self.mend = None;
            self.net.mend();
            self.trace.event(now, format_args!("the net is mended"));
        }
        if self.next_fault <= now
            && let Some(split) = self.plan.split.clone()
        {
            self.next_fault = u64::MAX;
            self.mend = Some(split.mend);
            self.cut_off(split.minority);
        }
        if self.next_fault <= now {
            self.next_fault = now + self.plan.fault_micros / 2 + self.faults.below(self.plan.fault_micros);
            self.fault();
        }
        let deaths: Vec<usize> = (0..self.machines.len())
            .filter(|&number| self.machines[number].life.is_none())
            .filter(|number| self.starts.iter().all(|(_, other)| other != number))
            .collect();
        for number in deaths {
            let soon = self.faults.chance(0.3);
            let down = if soon { 1_000 } else { 50_000 + self.faults.below(1_500_000) };
            self.starts.push((now + down, number));
        }
        Ok(())
    }

    fn fault(&mut self) {
        let number = self.faults.below(self.machines.len() as u64) as usize;
        let number = if self.faults.chance(0.5) { self.leader().unwrap_or(number) } else { number };
        let cut = self.faults.chance(self.plan.power_cut);
        match self.faults.below(16) {
            0..=2 => self.crash(number, cut),
            3 | 4 => self.machines[number].doomed = self.machines[number].life.is_some(),
            5 => self.crash_several(cut),
            6 | 7 => self.split(),
            8 => self.isolate(number),
            9 | 10 => self.deafen(number),
            11 | 12 => self.reset(number),
            13 => self.pause(number),
            14 => self.machines[number].slow_until = self.now + 200_000 + self.faults.below(1_500_000),
            _ => self.hand_over(),
        }
        if self.faults.chance(self.plan.moves) {
            self.add_replica();
        }
        if self.faults.chance(self.plan.full_disk) {
            self.machines[number].full_until = self.now + self.faults.below(1_000_000);
        }
    }

    /// The node that leads some group.
    fn leader(&mut self) -> Option<usize> {
        let leads = |number: &usize| {
            let life = self.machines[*number].life.as_ref();
            life.is_some_and(|life| life.worker.partitions().iter().any(Partition::leads))
        };
        let leaders: Vec<usize> = (0..self.machines.len()).filter(leads).collect();
        let at = self.faults.below(leaders.len().max(1) as u64) as usize;
        leaders.get(at).copied()
    }

    /// Power fails for all or most: nothing acknowledged may be gone when they are back.
    fn crash_several(&mut self, cut: bool) {
        for number in 0..self.machines.len() {
            if self.faults.chance(0.7) {
                self.crash(number, cut);
            }
        }
    }

    fn mend_later(&mut self) {
        let at = self.now + 100_000 + self.faults.below(2_500_000);
        self.mend = Some(self.mend.map_or(at, |mend| mend.max(at)));
    }

    /// The planned split: some nodes hear no other for a while, in half of the cases one that leads among them.
    fn cut_off(&mut self, nodes: usize) {
        let count = self.machines.len();
        let with_leader = self.faults.chance(0.5);
        let first = self.leader().filter(|_| with_leader);
        let first = first.unwrap_or(self.faults.below(count as u64) as usize);
        self.minority = (0..nodes).map(|next| (first + next) % count).collect();
        self.trace.event(self.now, format_args!("the net splits, {:?} are cut off", self.minority));
        for one in self.minority.clone() {
            for other in (0..count).filter(|other| !self.minority.contains(other)) {
                self.net.block(one, other);
                self.net.block(other, one);
            }
        }
    }

    fn split(&mut self) {
        let sides = self.faults.next_u64();
        let side = |number: usize| sides >> number & 1;
        let count = self.machines.len();
        self.trace.event(self.now, format_args!("the net splits, {:b}", sides & ((1 << count) - 1)));
        for from in 0..count {
            for to in (0..count).filter(|&to| side(to) != side(from)) {
                self.net.block(from, to);
            }
        }
        self.mend_later();
    }

    fn isolate(&mut self, number: usize) {
        self.trace.event(self.now, format_args!("node {number} is cut off"));
        for other in (0..self.machines.len()).filter(|&other| other != number) {
            self.net.block(number, other);
            self.net.block(other, number);
        }
        // Writers notice and go elsewhere, about when another leads; readers stay.
        for client in 0..self.clients.len() {
            let Some((_, conn)) = self.clients[client].conn.filter(|(node, _)| *node == number) else {
                continue;
            };
            if self.clients[client].only_reads() {
                continue;
            }
            if let Some(life) = &mut self.machines[number].life {
                life.worker.disconnect(conn);
                life.again = Some(self.now);
            }
            self.lose(client);
            self.clients[client].next = self.now + 500_000 + self.faults.below(700_000);
        }
        self.mend_later();
    }

    /// A node hears nobody, or nobody hears it, or only some do.
    fn deafen(&mut self, number: usize) {
        let (hears, some) = (self.faults.chance(0.5), self.faults.chance(0.5));
        self.trace.event(self.now, format_args!("node {number} hears: {hears}, only some are cut: {some}"));
        for other in (0..self.machines.len()).filter(|&other| other != number) {
            if some && self.faults.chance(0.5) {
                continue;
            }
            let (from, to) = if hears { (number, other) } else { (other, number) };
            self.net.block(from, to);
        }
        self.mend_later();
    }

    fn reset(&mut self, number: usize) {
        self.trace.event(self.now, format_args!("links of node {number} are reset"));
        for other in (0..self.machines.len()).filter(|&other| other != number) {
            if self.faults.chance(0.7) {
                self.net.reset(self.now, number, other);
            }
        }
    }

    fn pause(&mut self, number: usize) {
        let until = self.now + 100_000 + self.faults.below(2_500_000);
        self.trace.event(self.now, format_args!("node {number} is stopped until {until}"));
        self.machines[number].paused_until = until;
    }

    fn hand_over(&mut self) {
        let pick = self.faults.next_u64() as usize;
        let Some(number) = self.leader() else { return };
        let clock = self.machines[number].clock(self.now);
        let Some(life) = &mut self.machines[number].life else { return };
        let led = life.worker.partitions().iter().find(|partition| partition.leads());
        let Some(group) = led.map(Partition::group_id) else { return };
        let Some(replica) = life.worker.replica_mut(group) else { return };
        let voters: Vec<_> = replica.members().voters().iter().copied().collect();
        let to = voters[pick % voters.len()];
        let asked = replica.hand_over(clock, to).is_ok();
        life.again = Some(self.now);
        self.trace.event(self.now, format_args!("node {number} hands {group} over to {to}: {asked}"));
        self.outcome.handovers += u64::from(asked);
    }
}
