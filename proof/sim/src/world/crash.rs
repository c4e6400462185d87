//! How a process ends, what that does to its disk, and how the next one begins.

use std::collections::BTreeMap;

use check::judge::Recovered;
use check::{Crash, Found, Violation};
use journal::Record;
use kernel::{GroupId, Term};
use node::{Partition, Recovery};
use script::LuaEngine;
use storage::Store;

use super::{World, start};
use crate::disk::Disk;
use crate::log::{Log, found};
use crate::plan::Ending;

impl World<'_> {
    /// Ends the process, harms the disk, and starts again.
    pub(super) fn end(&mut self, ending: Ending) -> Result<(), Violation> {
        self.check_digests()?;
        self.trace.event(self.now, format_args!("{ending:?}"));
        let crash = Crash {
            at: self.failed_at.map_or(self.now, |at| at.min(self.now)),
            lossy: self.failed_at.is_some() || ending != Ending::Kill,
            durable: self.node.log.commit.durable(),
            slowest_sync: self.slowest_sync,
        };
        for member in &mut self.node.members {
            member.checkpointer.end(&self.engine, &mut self.faults);
        }
        let stores = self.node.partitions().map(Partition::store);
        self.outcome.misses += stores.map(Store::misses).sum::<u64>();
        self.judge.crashed();
        self.clients.clear();
        (self.failed_at, self.slowest_sync) = (None, 0);
        let mut disk = self.node.log.disk.clone();
        match ending {
            Ending::Kill => disk.kill(&mut self.faults),
            Ending::Cut | Ending::Flip => disk.cut(&mut self.faults),
        }
        disk.full = false;
        let sound = disk.clone();
        if ending == Ending::Flip {
            let place = disk.flip(&mut self.faults);
            self.trace.event(self.now, format_args!("a bit flips at {place:?}"));
        }
        self.now += self.rng.below(self.plan.down_micros);
        let jump = self.plan.draw_skew(&mut self.rng);
        match self.restart(disk, &crash, jump) {
            Ok(()) => {}
            Err(Restart::Broken(violation)) => return Err(violation),
            Err(Restart::Refused(what)) if ending == Ending::Flip => {
                self.trace.event(self.now, format_args!("refused: {what}"));
                self.outcome.refusals += 1;
                self.restart(sound, &crash, jump).map_err(|restart| restart.violation())?;
            }
            Err(refused) => return Err(refused.violation()),
        }
        self.outcome.crashes += 1;
        Ok(())
    }

    fn restart(&mut self, disk: Disk, crash: &Crash, skew: i64) -> Result<(), Restart> {
        let mut scripts = LuaEngine::new();
        let divisions = self.plan.divisions();
        let mut stores = self.engine.load(self.plan.data_seed, &mut self.faults).map_err(Restart::Refused)?;
        for (&group, (store, _)) in &mut stores {
            store.set_fetch(self.engine.reader(group));
        }
        let mut recovery = Recovery::new(self.plan.data_seed, &mut scripts, stores, &divisions);
        let mut entries: BTreeMap<GroupId, Vec<Found>> = BTreeMap::new();
        let opened = Log::open(disk, &mut |record| {
            if let Record::Entry(entry) = &record {
                entries.entry(entry.group).or_default().push(found(entry));
            }
            recovery.record(record);
        });
        let (log, recovered) = opened.map_err(|(_, refusal)| Restart::Refused(refusal.to_string()))?;
        let (mut stores, replayed) =
            recovery.finish(&recovered.floors).map_err(|error| Restart::Refused(error.to_string()))?;
        self.trace
            .event(self.now, format_args!("recovered {replayed} up to {}, skew {skew}", recovered.state.end));
        for (db, part, _) in self.plan.all() {
            let group = GroupId::new(db, part);
            let fresh = || (Store::new(self.plan.data_seed).within(divisions.scope(group)), Term(1));
            let (store, _) = stores.entry(group).or_insert_with(fresh);
            let digest = store.digest().map_err(|fault| Restart::Refused(format!("{fault:?}")))?;
            let found = entries.remove(&group).unwrap_or_default();
            let from = Recovered {
                engine: self.engine.index(group),
                found: &found,
                end: recovered.state.end,
                applied: store.applied(),
                digest,
            };
            self.judge.recovered(group, crash, &from).map_err(Restart::Broken)?;
        }
        let seed = self.rng.next_u64();
        self.node = start(&self.plan, log, &self.engine, (stores, skew, seed));
        Ok(())
    }
}

/// Why a restart did not succeed.
enum Restart {
    Refused(String),
    Broken(Violation),
}

impl Restart {
    fn violation(self) -> Violation {
        match self {
            Restart::Refused(what) => Violation { rule: "an undamaged log is used", what },
            Restart::Broken(violation) => violation,
        }
    }
}
