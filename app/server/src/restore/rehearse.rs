//! Backups replayed into a place that is thrown away: whether their entries lead from each checkpoint to the next.
//!
//! A partition begins with its checkpoint in the backup before the first that is looked at, if that goes on where the other
//! ends; else with its own. Wherever replay comes to the entry of another backup's checkpoint, the checkpoint made there
//! must be that one to the byte. So two readings are held against each other that have nothing in common: what a member
//! had in its engine, and what its log says. What is behind the last checkpoint is replayed, and held against nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use disk::backup::{Archive, Group, History, Manifest, Reach};
use disk::engine::{Engine, EngineOptions, Swept};
use kernel::{GroupId, Index, KeyspaceId};
use node::Divisions;

use super::replay::{Checkpoint, Checkpoints, Player};
use super::{RestoreError, divided, stage, with_engine};

/// Entries that are removed of a partition that is done, in one go.
const SWEEP_ENTRIES: usize = 1 << 16;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rehearsed {
    /// Entries that were replayed.
    pub entries: u64,
    /// Checkpoints that came of an earlier one and the entries behind it.
    pub met: u64,
    /// Checkpoints that are as the backup before has them, as nothing was written in between.
    pub unchanged: u64,
    /// Checkpoints that nothing leads to: of a first backup, or behind a gap.
    pub alone: u64,
}

/// Replays what `reach` says in `scratch`, an empty directory that the caller removes. Takes as much space there as the largest
/// partition, or somewhat more. `progress` hears of bytes that were staged.
///
/// # Errors
/// [`RestoreError`]; [`RestoreError::Apart`] if a checkpoint is not what entries lead to.
pub fn rehearse(
    archive: &mut Archive,
    reach: &Reach,
    scratch: &Path,
    options: EngineOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Rehearsed, RestoreError> {
    let divisions = divided(reach)?;
    with_engine(scratch, options, |engine| take(engine, (archive, reach), &divisions, progress))
}

fn take(
    engine: &Arc<Engine>,
    (archive, reach): (&mut Archive, &Reach),
    divisions: &Divisions,
    progress: &mut dyn FnMut(u64),
) -> Result<Rehearsed, RestoreError> {
    let before = before(archive, reach.base());
    let base: BTreeMap<GroupId, &Group> = reach.base().groups.iter().map(|it| (it.group, it)).collect();
    let mut player = Player::new(reach.base().origin, reach.moment);
    let mut rehearsed = Rehearsed::default();
    for (group, mut histories) in reach.histories() {
        let base = base.get(&group).copied();
        let joint = base.zip(before.as_ref()).and_then(|(base, before)| joint(base, (before, reach.base())));
        // What is damaged there is no fault of this backup.
        let joint = joint.filter(|(earlier, (number, history))| {
            let whole = before.as_ref().is_some_and(|before| archive.verify(before.number, earlier).is_ok());
            whole && archive.verify_history((*number, group), history).is_ok()
        });
        let mut checkpoints = checkpoints(&reach.chain, group);
        let start = match (base, joint) {
            (Some(base), Some((earlier, history))) if earlier.index < base.index => {
                histories.insert(0, history);
                Some(earlier)
            }
            (Some(base), Some((earlier, _))) => {
                same(base, earlier, reach.base().number)?;
                rehearsed.unchanged += 1;
                checkpoints.remove(&base.index);
                Some(base)
            }
            (Some(base), None) => {
                rehearsed.alone += 1;
                checkpoints.remove(&base.index);
                Some(base)
            }
            (None, _) => None,
        };
        let begins = start.map_or(Index(0), |start| start.index);
        if histories.iter().all(|(_, history)| history.to <= begins) {
            // The bytes of its checkpoint are all there is.
            continue;
        }
        let mark = start.map(|start| stage(engine, archive, start, progress)).transpose()?;
        player.expect(checkpoints);
        player.play((engine, archive), (group, divisions.scope(group)), mark.as_ref(), &histories)?;
        engine.drop_group(group)?;
        while engine.sweep(SWEEP_ENTRIES)? == Swept::More {}
    }
    (rehearsed.entries, rehearsed.met) = player.tally();
    Ok(rehearsed)
}

/// The backup before this one; nothing if it cannot be read, which is no fault of this one.
fn before(archive: &Archive, base: &Manifest) -> Option<Manifest> {
    let numbers = archive.numbers().ok()?;
    let number = numbers.into_iter().rfind(|number| *number < base.number)?;
    archive.manifest(Some(number)).ok().filter(|before| before.origin == base.origin)
}

/// The same partition in the backup before, and what that has of its log, if its entries go on there.
fn joint<'a>(
    base: &Group,
    (before, of): (&'a Manifest, &Manifest),
) -> Option<(&'a Group, (u64, &'a History))> {
    let history = base.history.as_ref().filter(|history| history.follows)?;
    let earlier = before.groups.iter().find(|it| it.group == base.group)?;
    let its = earlier.history.as_ref().filter(|its| its.to == history.from)?;
    let division = |manifest: &Manifest, id: KeyspaceId| {
        manifest.keyspaces.iter().find(|it| it.id == id).map(|it| it.partitions)
    };
    let keyspace = base.group.keyspace();
    (division(before, keyspace) == division(of, keyspace)).then_some((earlier, (before.number, its)))
}

/// The checkpoints of a partition in these backups, by their entries.
fn checkpoints(chain: &[Manifest], group: GroupId) -> Checkpoints {
    let of = |manifest: &Manifest| {
        let found = manifest.groups.iter().find(|it| it.group == group)?;
        Some((found.index, Checkpoint { number: manifest.number, checksum: found.checksum }))
    };
    chain.iter().filter_map(of).collect()
}

/// Without an entry in between two checkpoints are one.
fn same(base: &Group, earlier: &Group, number: u64) -> Result<(), RestoreError> {
    let print = |it: &Group| (it.index, it.term, it.bytes, it.checksum);
    if print(base) == print(earlier) {
        return Ok(());
    }
    Err(RestoreError::Apart { group: base.group, index: base.index, number })
}
