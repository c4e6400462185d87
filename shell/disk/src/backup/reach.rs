//! Which backups lead to a moment: one to begin with, and those behind it whose entries are replayed.
//!
//! Each entry is stamped by its leader's clock, and a partition's time is the highest stamp so far. A moment has all entries
//! up to the first whose time is after it.

use std::collections::BTreeMap;

use kernel::{GroupId, KeyspaceId, Millis};

use super::history::TIME_UNKNOWN;
use super::{Archive, BackupError, History, Manifest, Point};

/// The way to a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The backup to begin with, then those whose entries are replayed, each directly behind the one before.
    pub chain: Vec<Manifest>,
    /// The moment, if it is one between backups; nothing if all of the first is wanted and no more.
    pub moment: Option<Millis>,
    /// The last moment of which the directory has everything, if that is before the wanted one.
    pub ends: Option<Millis>,
}

impl Reach {
    /// As the backup itself is.
    #[must_use]
    pub fn mark(manifest: Manifest) -> Reach {
        Reach { chain: vec![manifest], moment: None, ends: None }
    }

    /// The backup to begin with.
    #[must_use]
    pub fn base(&self) -> &Manifest {
        self.chain.first().expect("there is a first")
    }

    /// The groups, each with the backups that have entries of it to replay, oldest first, and those entries.
    #[must_use]
    pub fn histories(&self) -> BTreeMap<GroupId, Vec<(u64, &History)>> {
        let mut all: BTreeMap<GroupId, Vec<(u64, &History)>> = BTreeMap::new();
        for manifest in &self.chain {
            for group in &manifest.groups {
                // Also without any, it is there.
                let of_group = all.entry(group.group).or_default();
                of_group.extend(group.history.as_ref().map(|history| (manifest.number, history)));
            }
        }
        all
    }
}

impl Archive {
    /// The way to `moment`: from the newest backup that was begun by then and whose checkpoints have nothing from
    /// after it, by the entries of those behind. Backups of versions 1 and 2 have no entries: of them it is
    /// [`Archive::at`].
    ///
    /// # Errors
    /// [`BackupError::TooEarly`] if there is no backup before it, [`BackupError::Gap`] if entries up to it are not there, and
    /// as [`Archive::manifest`] for any backup that is needed, and any behind the moment.
    pub fn reach(&self, moment: Millis) -> Result<Reach, BackupError> {
        let (mut behind, mut first) = (Vec::new(), None);
        for number in self.numbers()?.into_iter().rev() {
            let manifest = self.manifest(Some(number))?;
            let is_new = manifest.skew_ms.is_some();
            let is_before =
                if is_new { begins_by(&manifest, moment) } else { manifest.until <= Some(moment) };
            if !is_before || manifest.until.is_none() {
                first = manifest.until.map(|_| number).or(first);
                behind.push(manifest);
                continue;
            }
            if !is_new {
                return Ok(Reach::mark(manifest));
            }
            behind.push(manifest);
            let ends = ends(&behind);
            behind.reverse();
            let chain = self.chain(behind, moment)?;
            return Ok(Reach { chain, moment: Some(moment), ends: Some(ends).filter(|ends| *ends < moment) });
        }
        Err(BackupError::TooEarly { dir: self.dir.clone(), first })
    }

    /// As many of these as have entries up to `moment`, if each goes on where the one before ends.
    fn chain(&self, mut all: Vec<Manifest>, moment: Millis) -> Result<Vec<Manifest>, BackupError> {
        let mut needed = 1;
        let divisions = |manifest: &Manifest| -> BTreeMap<KeyspaceId, u16> {
            manifest.keyspaces.iter().map(|it| (it.id, it.partitions)).collect()
        };
        for (at, pair) in all.windows(2).enumerate() {
            let (older, newer) = (&pair[0], &pair[1]);
            // Nothing behind it is from the moment or before it, whosever clock is asked, if that is known.
            let complete = older.complete_until().zip(older.measured_skew_ms());
            if complete.is_some_and(|(until, skew_ms)| until.0 > moment.0.saturating_add(skew_ms)) {
                break;
            }
            let gap = |group| BackupError::Gap {
                dir: self.dir.clone(),
                group,
                before: older.number,
                after: newer.number,
            };
            let ended: BTreeMap<GroupId, &History> = older.histories().collect();
            let goes_on: BTreeMap<GroupId, &History> = newer.histories().collect();
            // What has come behind the moment already needs no more, so a hole there harms nothing.
            let is_open = |history: &History| history.to_time.millis() <= moment;
            let mut is_needed = false;
            let (before, after) = (divisions(older), divisions(newer));
            for (&group, &history) in ended.iter().filter(|(_, history)| is_open(history)) {
                let is_divided_alike = before.get(&group.keyspace()) == after.get(&group.keyspace());
                let next = goes_on.get(&group).filter(|_| is_divided_alike).ok_or_else(|| gap(group))?;
                if !next.follows || next.from != history.to {
                    return Err(gap(group));
                }
                is_needed |= next.from < next.to;
            }
            // What came in between begins with nothing.
            for (&group, &history) in goes_on.iter().filter(|(group, _)| !ended.contains_key(group)) {
                if !history.follows || history.from > Point::FOUNDING.index {
                    return Err(gap(group));
                }
                is_needed = true;
            }
            if is_needed {
                needed = at + 2;
            }
        }
        all.truncate(needed);
        Ok(all)
    }
}

/// Whether it was begun by `moment`, and no checkpoint of it has anything from after that. One that was begun
/// later lacks keyspaces that were dropped between, however old its checkpoints are.
fn begins_by(manifest: &Manifest, moment: Millis) -> bool {
    let is_by = |history: &History| history.time != TIME_UNKNOWN && history.time.millis() <= moment;
    manifest.at <= moment && manifest.histories().all(|(_, it)| is_by(it))
}

/// Up to when these backups, newest first, have everything: those that are not complete have at least what the
/// newest one has that is; or of each partition what is stamped before where its own entries end.
fn ends(backups: &[Manifest]) -> Millis {
    let oldest = backups.last().expect("there is one to begin with");
    let least = || oldest.histories().map(|(_, it)| it.to_time.millis()).min().unwrap_or(oldest.at);
    backups.iter().find_map(Manifest::complete_until).unwrap_or_else(least)
}

impl Manifest {
    /// What there is of each group's log.
    fn histories(&self) -> impl Iterator<Item = (GroupId, &History)> {
        self.groups.iter().filter_map(|group| Some((group.group, group.history.as_ref()?)))
    }

    /// It has everything that was acknowledged before this moment, by the clock of who made it. Nobody knows, if it
    /// has a copy that did not lead and was not brought to where its leader stood still.
    #[must_use]
    pub fn complete_until(&self) -> Option<Millis> {
        let is_marked = |id: KeyspaceId| self.keyspaces.iter().any(|it| it.id == id && it.mark.is_some());
        let is_complete = self.groups.iter().all(|it| it.leads || is_marked(it.group.keyspace()));
        let all_marked = self.keyspaces.iter().map(|keyspace| keyspace.mark).min().flatten();
        is_complete.then(|| all_marked.unwrap_or(self.at))
    }

    /// How far clocks of nodes were found from that clock at most, in milliseconds: it is measured when a
    /// keyspace is marked, and else not known.
    #[must_use]
    pub fn measured_skew_ms(&self) -> Option<u64> {
        self.skew_ms.filter(|_| self.keyspaces.iter().any(|it| it.mark.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use kernel::{Index, Micros, Term};

    use super::super::{Block, Digest, Group, Keyspace, Origin};
    use super::*;

    /// A partition: its checkpoint and the time there, and where its entries begin and end, and the time there; without
    /// `follows` they begin at the checkpoint.
    struct Part(u16, (u64, u64), (bool, u64), (u64, u64));

    fn group(&Part(keyspace, (index, time), (follows, from), (to, to_time)): &Part) -> Group {
        let point = |index| Point { index: Index(index), term: Term(1) };
        let millis = |it: u64| Micros(it * 1000);
        let mut history = History::at((point(index), millis(time)), point(to));
        (history.follows, history.from, history.to_time) = (follows, Index(from), millis(to_time));
        if from < to {
            (history.entries, history.bytes) = (to - from, 9);
            history.blocks = vec![Block { digest: Digest([0; 32]), offset: 24, bytes: 9 }];
        }
        Group {
            group: GroupId::new(KeyspaceId(keyspace), 0),
            index: Index(index),
            term: Term(1),
            leads: true,
            bytes: 0,
            checksum: 0,
            chunks: Vec::new(),
            history: Some(history),
        }
    }

    /// A backup that was begun somewhat before `mark`, and marked then.
    fn manifest(number: u64, mark: u64, parts: &[Part]) -> Manifest {
        let mark = Millis(mark);
        let keyspaces: std::collections::BTreeSet<u16> = parts.iter().map(|part| part.0).collect();
        let keyspace = |id: u16| Keyspace { id: KeyspaceId(id), partitions: 1, mark: Some(mark) };
        Manifest {
            number,
            at: Millis(mark.0 - 5),
            until: Some(mark),
            skew_ms: Some(2),
            origin: Origin { id: [1; 16], is_cluster: true },
            keyspaces: keyspaces.into_iter().map(keyspace).collect(),
            groups: parts.iter().map(group).collect(),
        }
    }

    fn write(dir: &std::path::Path, manifest: &Manifest) {
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes).as_ref(), Ok(manifest));
        std::fs::write(dir.join(format!("manifest-{:06}", manifest.number)), bytes).unwrap();
    }

    /// A directory of backups, each marked at its moment.
    fn archive(dir: &std::path::Path, backups: &[(u64, Vec<Part>)]) -> Archive {
        for (number, (mark, parts)) in (1..).zip(backups) {
            write(dir, &manifest(number, *mark, parts));
        }
        Archive::new(dir)
    }

    /// The numbers of the chain and whether the directory ends before, or the error.
    fn told(archive: &Archive, moment: u64) -> Result<(Vec<u64>, Option<u64>), String> {
        let reach = archive.reach(Millis(moment)).map_err(|error| error.to_string())?;
        assert_eq!(reach.moment, Some(Millis(moment)));
        let numbers = reach.chain.iter().map(|manifest| manifest.number).collect();
        Ok((numbers, reach.ends.map(|ends| ends.0)))
    }

    #[test]
    fn a_moment_is_reached_from_the_newest_checkpoints_before_it_by_the_entries_of_those_behind() {
        let home = tempfile::tempdir().unwrap();
        // One keyspace is busy and the other rests.
        let backups = [
            (100, vec![Part(1, (10, 90), (false, 10), (12, 99)), Part(2, (3, 40), (false, 3), (3, 40))]),
            (200, vec![Part(1, (20, 190), (true, 12), (22, 199)), Part(2, (3, 40), (true, 3), (3, 40))]),
            (300, vec![Part(1, (30, 290), (true, 22), (32, 299)), Part(2, (5, 260), (true, 3), (5, 260))]),
        ];
        let archive = archive(home.path(), &backups);
        #[rustfmt::skip] // columns
        let table = [
            (89,  Err("number 1")),
            (90,  Err("number 1")),           // its checkpoints are as old, and it was begun later
            (95,  Ok((vec![1], None))),
            (97,  Ok((vec![1], None))),       // nothing that comes later is from before it
            (98,  Ok((vec![1], None))),       // a clock may be behind, but the busy one is over it
            (99,  Ok((vec![1, 2], None))),
            (150, Ok((vec![1, 2], None))),
            (189, Ok((vec![1, 2], None))),
            (190, Ok((vec![1, 2], None))),
            (195, Ok((vec![2], None))),
            (250, Ok((vec![2, 3], None))),
            (290, Ok((vec![2, 3], None))),
            (295, Ok((vec![3], None))),
            (300, Ok((vec![3], None))),
            (301, Ok((vec![3], Some(300)))),
        ];
        for (moment, expected) in table {
            match (told(&archive, moment), expected) {
                (Err(error), Err(part)) => assert!(error.contains(part), "{moment}: {error}"),
                (found, expected) => assert_eq!(found, expected.map_err(str::to_owned), "{moment}"),
            }
        }
    }

    #[test]
    fn a_moment_in_a_hole_is_refused_by_the_backups_around_it_and_one_beside_it_is_not() {
        let home = tempfile::tempdir().unwrap();
        let backups = [
            (100, vec![Part(1, (10, 90), (false, 10), (12, 99)), Part(2, (3, 40), (false, 3), (3, 40))]),
            // Of the first, entries are missing; the third is new.
            (
                200,
                vec![
                    Part(1, (20, 190), (false, 20), (22, 199)),
                    Part(2, (3, 40), (true, 3), (3, 40)),
                    Part(3, (4, 180), (true, 0), (4, 180)),
                ],
            ),
            // The second is gone.
            (300, vec![Part(1, (30, 290), (true, 22), (32, 299)), Part(3, (4, 180), (true, 4), (4, 180))]),
            // The third is another one of that number.
            (400, vec![Part(1, (40, 390), (true, 32), (42, 399)), Part(3, (4, 380), (false, 4), (4, 380))]),
            // Nobody knows how the fourth began.
            (
                500,
                vec![
                    Part(1, (50, 490), (true, 42), (52, 499)),
                    Part(3, (4, 380), (true, 4), (4, 380)),
                    Part(4, (7, 480), (false, 7), (7, 480)),
                ],
            ),
        ];
        let archive = archive(home.path(), &backups);
        #[rustfmt::skip] // columns
        let table = [
            (97,  Ok(vec![1])),
            (98,  Ok(vec![1, 2])), // the third may have begun by then
            (99,  Err("of partition 1/0")),
            (150, Err("between backup 1 and backup 2")),
            (190, Err("of partition 1/0")),
            (195, Ok(vec![2])),
            (250, Err("of partition 2/0")),
            (290, Err("of partition 2/0")),
            (295, Ok(vec![3])),
            (350, Err("of partition 3/0")),
            (390, Err("of partition 3/0")),
            (395, Ok(vec![4])),
            (450, Err("of partition 4/0")),
            (490, Err("of partition 4/0")),
            (495, Ok(vec![5])),
        ];
        for (moment, expected) in table {
            let found = told(&archive, moment).map(|(numbers, _)| numbers);
            match (found, expected) {
                (Err(error), Err(part)) => assert!(error.contains(part), "{moment}: {error}"),
                (found, expected) => assert_eq!(found, expected.map_err(str::to_owned), "{moment}"),
            }
        }
    }

    #[test]
    fn a_keyspace_that_was_dropped_is_not_silently_missing_before_that() {
        let home = tempfile::tempdir().unwrap();
        // Both rest; the second is dropped before the second backup is begun.
        let backups = [
            (100, vec![Part(1, (10, 90), (false, 10), (10, 90)), Part(2, (3, 40), (false, 3), (3, 40))]),
            (200, vec![Part(1, (11, 120), (true, 10), (11, 120))]),
        ];
        let archive = archive(home.path(), &backups);
        for moment in [120, 150, 194] {
            let error = told(&archive, moment).unwrap_err();
            assert!(error.contains("of partition 2/0"), "{moment}: {error}");
        }
        assert_eq!(told(&archive, 195), Ok((vec![2], None)));
    }

    #[test]
    fn what_was_divided_otherwise_meanwhile_goes_on_nowhere() {
        for (partitions, expected) in [(1, Ok((vec![1, 2], None))), (2, Err(()))] {
            let home = tempfile::tempdir().unwrap();
            // The number of the first partition is used again, and its entries seem to go on.
            write(home.path(), &manifest(1, 100, &[Part(1, (10, 90), (false, 10), (12, 99))]));
            let mut anew = manifest(2, 200, &[Part(1, (20, 190), (true, 12), (22, 199))]);
            anew.keyspaces[0].partitions = partitions;
            write(home.path(), &anew);
            let found = told(&Archive::new(home.path()), 150);
            let gap = |error: String| assert!(error.contains("between backup 1 and backup 2"), "{error}");
            assert_eq!(found.map_err(gap), expected, "{partitions}");
        }
    }

    #[test]
    fn a_copy_that_did_not_lead_and_clocks_that_were_not_compared_end_no_way_early() {
        let parts = [
            vec![Part(1, (10, 90), (false, 10), (10, 90)), Part(2, (3, 40), (false, 3), (3, 40))],
            vec![Part(1, (20, 190), (true, 10), (20, 190)), Part(2, (4, 92), (true, 3), (4, 92))],
        ];
        #[rustfmt::skip] // columns
        let table = [
            // leads  marked     complete   skew     the way to 96  to 300 ends
            (true,  [true, true],   Some(100), Some(2), vec![1],       Some(200)),
            (true,  [true, false],  Some(95),  Some(2), vec![1, 2],    Some(195)),
            (true,  [false, false], Some(95),  None,    vec![1, 2],    Some(195)),
            // The second comes from a follower.
            (false, [true, true],   Some(100), Some(2), vec![1],       Some(200)),
            (false, [true, false],  None,      Some(2), vec![1, 2],    Some(92)),
            (false, [false, false], None,      None,    vec![1, 2],    Some(92)),
        ];
        for (row, (leads, marked, complete, skew, chain, ends)) in table.into_iter().enumerate() {
            let home = tempfile::tempdir().unwrap();
            for (number, (mark, parts)) in (1..).zip([100, 200].into_iter().zip(&parts)) {
                let mut manifest = manifest(number, mark, parts);
                manifest.groups[1].leads = leads;
                for (keyspace, is_marked) in manifest.keyspaces.iter_mut().zip(marked) {
                    keyspace.mark = keyspace.mark.filter(|_| is_marked);
                }
                write(home.path(), &manifest);
            }
            let archive = Archive::new(home.path());
            let first = archive.manifest(Some(1)).unwrap();
            assert_eq!(first.complete_until(), complete.map(Millis), "row {row}");
            assert_eq!(first.measured_skew_ms(), skew, "row {row}");
            assert_eq!(told(&archive, 96).unwrap().0, chain, "row {row}");
            assert_eq!(told(&archive, 300), Ok((vec![2], ends)), "row {row}");
        }
    }
}
