//! The entries that belong to a backup: up to where each partition is consistent with the others, from where the backup before
//! ends. Nodes are told beforehand to keep them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use server::backup::{BackupError, Gather, Group, History, Manifest, Point, Wanted, Writer};
use server::kernel::codec::put_varint;
use server::kernel::{GroupId, Index, Micros};

use super::party::{Absent, Party};
use super::source::{CONFLICT, ENDED, NEXT_HEADER, NOT_FOUND, Source};
use super::told::name;
use crate::admin::Line;

/// How long a node may take to read a part of its log.
const PART_MAX: Duration = Duration::from_secs(60);
/// Nodes keep what a single backup needs for so long, in seconds, if it does not say that it is done.
const SINGLE_SECONDS: u64 = 3600;
/// How much longer they keep what the next round needs than three rounds take, in seconds.
const LATE_SECONDS: u64 = 60;
/// The longest that anything is kept without being asked for again, in seconds.
const KEPT_SECONDS_MAX: u64 = 24 * 3600;

/// That nodes keep entries for this command.
pub(super) struct Reservation {
    name: u64,
    seconds: u64,
    is_single: bool,
}

/// What a node keeps of its log.
enum Kept {
    /// It does not know of that.
    Nothing,
    /// As much as it can, for others, and it promises no more. What it has can be read all the same: there may be gaps, and these
    /// are told.
    AsMuchAsForOthers,
    /// What it was asked for, but of these groups it had to give up what it had promised the last time.
    Behind { broken: BTreeSet<GroupId> },
}

/// What came of asking for entries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Partitions of which entries are missing that bring them to where they should be, each with a reason.
    pub missing: BTreeMap<GroupId, String>,
    /// Partitions whose entries do not go on where the backup before ends.
    pub gaps: BTreeSet<GroupId>,
}

impl Reservation {
    /// Under a name of its own, for a round each so often, or for one.
    pub fn new(every: Option<Duration>) -> Reservation {
        let life = |every: Duration| (every.as_secs() * 3 + LATE_SECONDS).min(KEPT_SECONDS_MAX);
        let seconds = every.map_or(SINGLE_SECONDS, life);
        Reservation { name: RandomState::new().hash_one(0u8), seconds, is_single: every.is_none() }
    }

    /// Has the nodes keep the entries that come next of all that they have, and those since the backup before, and notes in
    /// `party` which of them do, and who gave up what it was to keep for this round. Who runs a version that does not
    /// know of it keeps nothing.
    pub fn keep(&self, party: &mut Party, before: Option<&Manifest>) -> Result<()> {
        for at in 0..party.sources.len() {
            let after = |copy: &super::source::Copy| {
                // The entry itself is wanted, too: it shows that those behind it follow.
                let first = before.map_or(Index(copy.applied), |before| end(before, copy.group).0.index);
                (copy.group, Index(first.0.saturating_sub(1)))
            };
            let after: BTreeMap<GroupId, Index> = party.told[at].copies.iter().map(after).collect();
            match self.ask(&party.sources[at], self.seconds, &after) {
                Ok(Kept::Nothing) => {}
                Ok(Kept::AsMuchAsForOthers) => party.keeping[at] = true,
                Ok(Kept::Behind { mut broken }) => {
                    party.keeping[at] = true;
                    // What it has no more, because it was dropped or went to another member, is no loss.
                    broken.retain(|group| after.contains_key(group));
                    let address = party.sources[at].address;
                    party.given_up.extend((!broken.is_empty()).then_some((address, broken)));
                }
                Err(error) => party.lose(at, error)?,
            }
        }
        Ok(())
    }

    /// A single backup needs them no more.
    pub fn end(&self, party: &Party) {
        for (_, source) in party.here().filter(|_| self.is_single) {
            // Else it ends by itself, later.
            let _ = self.ask(source, 0, &BTreeMap::new());
        }
    }

    fn ask(&self, source: &Source, seconds: u64, after: &BTreeMap<GroupId, Index>) -> Result<Kept> {
        let path = format!("/backup/keep?name={}&seconds={seconds}", self.name);
        let mut line = Line::new(source.address, source.password.clone());
        let said = line.ask(&path, &listed(after), PART_MAX).map_err(|error| Absent::new(&error))?;
        match said.code() {
            NOT_FOUND => return Ok(Kept::Nothing),
            CONFLICT => return Ok(Kept::AsMuchAsForOthers),
            _ => {}
        }
        let (body, _) = said.good(NEXT_HEADER)?;
        let broken = broken(&body).with_context(|| {
            format!("what {} says of the log that it keeps is not understood", source.address)
        })?;
        Ok(Kept::Behind { broken })
    }
}

/// The groups of which a node's answer says that something went.
fn broken(body: &[u8]) -> Option<BTreeSet<GroupId>> {
    let said: Value = serde_json::from_slice(body).ok()?;
    let group = |it: &Value| Some(GroupId(u32::try_from(it.as_u64()?).ok()?));
    said["broken"].as_array()?.iter().map(group).collect()
}

/// Where a backup's entries of a group end, and the time there; before all entries if it does not have the group.
fn end(manifest: &Manifest, group: GroupId) -> (Point, Micros) {
    let history = manifest.groups.iter().find(|it| it.group == group).and_then(|it| it.history.as_ref());
    let first = if manifest.origin.is_cluster { Point::FOUNDING } else { Point::BEGINNING };
    history.map_or((first, Micros(0)), History::end)
}

/// Whether it says of entries: a backup of an earlier version of the format does not.
const fn has_entries(manifest: &Manifest) -> bool {
    manifest.skew_ms.is_some()
}

/// What is asked for: each group, and behind which entry.
fn listed(after: &BTreeMap<GroupId, Index>) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, after.len() as u64);
    for (group, after) in after {
        out.extend(group.0.to_le_bytes());
        put_varint(&mut out, after.0);
    }
    out
}

/// What there is to gather of a group that is in the backup already, if it is to end at `to`; or what there is without that.
fn wanted(group: &Group, to: Point, before: Option<&Manifest>) -> Result<Wanted, History> {
    let history = group.history.as_ref().expect("a group comes with its checkpoint's time");
    let base = (Point { index: group.index, term: group.term }, history.time);
    let before = before.filter(|before| has_entries(before)).map(|before| end(before, group.group));
    // What ends behind the checkpoint was another group's of that number, or this one's leader lagged behind.
    let before = before.filter(|(before, _)| before.index <= base.0.index);
    if before.is_some_and(|(before, _)| before == to) {
        return Err(History { follows: true, ..History::at(base, to) });
    }
    if before.is_none() && base.0 == to {
        return Err(History::at(base, to));
    }
    Ok(Wanted { before, base, to })
}

/// Gathers what brings each group to its point, and what was between the backup before and now, from these nodes, each asked
/// first for what it is the best for.
pub(super) fn fetch(
    party: &mut Party,
    points: &BTreeMap<GroupId, (usize, Point)>,
    writer: &mut Writer,
    ended: &dyn Fn() -> bool,
) -> Result<Found> {
    let before = writer.before().cloned();
    let can_follow = before.as_ref().is_some_and(has_entries);
    let (mut all, mut found) = (BTreeMap::new(), Found::default());
    for (&id, &(_, to)) in points {
        let group = writer.group(id).expect("what has a point is in the backup");
        match wanted(group, to, before.as_ref()) {
            Ok(wanted) => drop(all.insert(id, wanted)),
            Err(history) => {
                found.gaps.extend((can_follow && !history.follows).then_some(id));
                writer.set_history(id, history);
            }
        }
    }
    let mut gather = Gather::new(all.clone());
    let mut reasons: BTreeMap<GroupId, String> = BTreeMap::new();
    // Whoever was chosen for a partition, and then each that has a copy of it.
    for is_second in [false, true] {
        for at in 0..party.sources.len() {
            if !party.keeping[at] {
                continue;
            }
            let mut asked = gather.lacks();
            // Who led it at the mark may have had nothing of it when the round began.
            let has = |group: &GroupId| {
                points[group].0 == at || party.told[at].copies.iter().any(|copy| copy.group == *group)
            };
            asked.retain(|group, _| (points[group].0 == at) != is_second && has(group));
            if asked.is_empty() {
                continue;
            }
            writer.again(&mut gather, &asked)?;
            if let Err(error) = read(&party.sources[at], &asked, (writer, &mut gather), ended) {
                ensure!(!ended(), ENDED);
                // That of our own disk is no node's, and another node would not help.
                if matches!(error.downcast_ref::<BackupError>(), Some(BackupError::File { .. })) {
                    return Err(error);
                }
                gather.breaks_off(&asked);
                let why = format!("{error:#}");
                if error.is::<Absent>() {
                    party.lose(at, error)?;
                }
                reasons.extend(asked.keys().map(|group| (*group, why.clone())));
            }
        }
    }
    settle((all, can_follow), gather, writer, (&mut found, reasons))?;
    Ok(found)
}

/// Takes what was gathered, and finds out what was not; and what does not follow, if there is a backup that it
/// could follow.
fn settle(
    (all, can_follow): (BTreeMap<GroupId, Wanted>, bool),
    gather: Gather,
    writer: &mut Writer,
    (found, mut reasons): (&mut Found, BTreeMap<GroupId, String>),
) -> Result<()> {
    let missing = gather.missing();
    writer.gathered(gather)?;
    for (id, Wanted { base, to, .. }) in all {
        if !missing.contains(&id) {
            let history = writer.group(id).and_then(|group| group.history.as_ref());
            let is_gap = can_follow && history.is_some_and(|history| !history.follows);
            found.gaps.extend(is_gap.then_some(id));
            continue;
        }
        if can_follow {
            found.gaps.insert(id);
        }
        writer.set_history(id, History::at(base, base.0));
        if base.0 != to {
            let why =
                reasons.remove(&id).unwrap_or_else(|| "no node that was asked has them any more".to_owned());
            found.missing.insert(id, why);
        }
    }
    Ok(())
}

/// Reads a node's log once, from the first entry that is asked for to its end.
fn read(
    source: &Source,
    asked: &BTreeMap<GroupId, Index>,
    (writer, gather): (&mut Writer, &mut Gather),
    ended: &dyn Fn() -> bool,
) -> Result<()> {
    let mut line = Line::new(source.address, source.password.clone());
    let body = listed(asked);
    let mut cursor = Some(String::new());
    while let Some(at) = cursor {
        ensure!(!ended(), ENDED);
        let path = format!("/backup/entries?cursor={at}");
        // A node ends a connection after some minutes, and a part can be asked for twice.
        let said = line.ask(&path, &body, PART_MAX).or_else(|_| line.ask(&path, &body, PART_MAX));
        let said = said.map_err(|error| Absent::new(&error))?;
        let (bytes, next) = said.good(NEXT_HEADER)?;
        if next.as_ref() == Some(&at) {
            bail!("the node at {} does not get on with its log", source.address);
        }
        writer.gather(gather, &bytes)?;
        cursor = next;
    }
    Ok(())
}

/// What is told of entries that are missing.
pub(super) fn told_missing(missing: &BTreeMap<GroupId, String>) -> String {
    let (first, why) = missing.first_key_value().expect("something is missing");
    format!(
        "the entries that bring {} partitions to the moment of the others are missing, such as those of {}: {why}",
        missing.len(),
        name(*first)
    )
}

#[cfg(test)]
mod tests {
    use server::backup::Keyspace;
    use server::kernel::{KeyspaceId, Term};

    use super::*;

    fn point(index: u64) -> Point {
        Point { index: Index(index), term: Term(3) }
    }

    /// A partition whose checkpoint is at entry 10.
    fn group() -> Group {
        Group {
            group: GroupId::new(KeyspaceId(1), 0),
            index: Index(10),
            term: Term(3),
            leads: true,
            bytes: 0,
            checksum: 0,
            chunks: Vec::new(),
            history: Some(History::at((point(10), Micros(70)), point(10))),
        }
    }

    fn before(groups: Vec<Group>, skew_ms: Option<u64>) -> Manifest {
        Manifest {
            number: 1,
            at: server::kernel::Millis(1),
            until: Some(server::kernel::Millis(2)),
            skew_ms,
            origin: server::backup::Origin { id: [0; 16], is_cluster: true },
            keyspaces: vec![Keyspace { id: KeyspaceId(1), partitions: 1, mark: None }],
            groups,
        }
    }

    #[test]
    fn entries_are_wanted_from_where_the_backup_before_ends() {
        let mut at_seven = group();
        at_seven.history = Some(History::at((point(7), Micros(50)), point(7)));
        let mut at_twelve = group();
        at_twelve.history = Some(History::at((point(12), Micros(90)), point(12)));
        let (seven, ten) = (before(vec![at_seven], Some(0)), before(vec![group()], Some(0)));
        let twelve = before(vec![at_twelve], Some(0));
        let (none, old) = (before(Vec::new(), Some(0)), before(vec![group()], None));
        let base = (point(10), Micros(70));
        let nothing = (Point::FOUNDING, Micros(0));
        #[rustfmt::skip] // columns
        let table = [
            // to  before         expected
            (10, None,         Err(false)),
            (10, Some(&seven), Ok(Some((point(7), Micros(50))))),
            (10, Some(&ten),   Err(true)),  // nothing has happened
            (10, Some(&none),  Ok(Some(nothing))), // it is new
            (10, Some(&old),   Err(false)),
            (12, None,         Ok(None)),
            (12, Some(&ten),   Ok(Some((point(10), Micros(70))))),
            (12, Some(&old),   Ok(None)),
            // It was of another group of that number.
            (10, Some(&twelve), Err(false)),
            (12, Some(&twelve), Ok(None)),
            (14, Some(&twelve), Ok(None)),
        ];
        for (row, (to, before, expected)) in table.into_iter().enumerate() {
            let found = wanted(&group(), point(to), before);
            let expected = match expected {
                Ok(before) => Ok(Wanted { before, base, to: point(to) }),
                Err(follows) => Err(History { follows, ..History::at(base, point(to)) }),
            };
            assert_eq!(found, expected, "row {row}");
        }
    }

    #[test]
    fn what_a_node_gave_up_is_understood_or_refused() {
        let groups = |numbers: &[u32]| Some(numbers.iter().map(|it| GroupId(*it)).collect());
        #[rustfmt::skip] // columns
        let table = [
            (r#"{"schema":1,"broken":[]}"#,           groups(&[])),
            (r#"{"schema":1,"broken":[65536,3]}"#,    groups(&[3, 65_536])),
            (r#"{"schema":1,"broken":[4294967296]}"#, None),
            (r#"{"schema":1,"broken":["3"]}"#,        None),
            (r#"{"schema":1}"#,                       None),
            ("kept",                                  None),
        ];
        for (said, expected) in table {
            assert_eq!(broken(said.as_bytes()), expected, "{said}");
        }
    }

    #[test]
    fn what_is_missing_is_told_with_a_partition_and_the_reason() {
        let group = |partition| GroupId::new(KeyspaceId(20), partition);
        let missing =
            BTreeMap::from([(group(3), "it was refused".to_owned()), (group(5), "else".to_owned())]);
        let told = told_missing(&missing);
        assert!(told.contains("bring 2 partitions"), "{told}");
        assert!(told.ends_with("such as those of 20/3: it was refused"), "{told}");
    }

    #[test]
    fn a_reservation_lasts_until_the_third_round_from_now_and_not_for_ever() {
        let of = |seconds| Reservation::new(Some(Duration::from_secs(seconds))).seconds;
        assert_eq!((of(1), of(30), of(1 << 40)), (63, 150, KEPT_SECONDS_MAX));
        assert_eq!(Reservation::new(None).seconds, SINGLE_SECONDS);
    }
}
