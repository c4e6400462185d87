//! `archipel cluster backup`: asks nodes for their partitions, and keeps those of who leads them, with the entries behind.
//!
//! A round goes so: nodes are told to keep their log; each partition's checkpoint is held and read; then each keyspace is marked,
//! all its partitions at one moment ([`still`]); and the entries up to there, from where the backup before ends, are read
//! ([`entries`]). Writers wait for nothing of it but the mark.

mod entries;
mod party;
mod source;
mod still;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use server::backup::{Keep, Keyspace, Manifest, Origin, Point, Span, Writer};
use server::config::Loaded;
use server::kernel::{GroupId, Index, KeyspaceId, Millis};
use server::standstill::Still;

use self::entries::{Reservation, fetch, told_missing};
use self::party::Party;
use self::source::{Copy, ENDED, Source, Told};
use self::still::{Lines, Marked};
use self::told::{GivenUp, Made, advice, renews, warning};
pub use self::told::{described, marks, name};
use super::rounds;
use crate::exit::{Exit, Failure};
use crate::moment::now;

/// How often partitions that were written to for the first time are taken up before a keyspace is marked again.
const MARKS_MAX: u32 = 4;

/// Where a partition is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Choice {
    source: usize,
    copy: Copy,
}

/// What is asked for.
pub struct Wish {
    /// The directory of the backups.
    pub dir: PathBuf,
    /// Admin ports of other members.
    pub also: Vec<SocketAddr>,
    /// Again and again, so long after the beginning of the one before.
    pub every: Option<Duration>,
    /// How many are kept.
    pub keep: Keep,
    /// Each partition at a moment of its own.
    pub loose: bool,
}

/// What goes on from one round to the next.
struct Rounds<'a> {
    sources: Vec<Source>,
    reservation: Reservation,
    wish: &'a Wish,
    as_json: bool,
}

/// One round.
struct Round<'a> {
    party: &'a mut Party,
    writer: Writer,
    wish: &'a Wish,
    as_json: bool,
    ended: &'a dyn Fn() -> bool,
}

/// Where each partition ends, and what keyspaces that makes consistent.
struct Ends {
    /// Who is asked for its entries, and the last of them.
    points: BTreeMap<GroupId, (usize, Point)>,
    keyspaces: Vec<Keyspace>,
    until: Millis,
    skew_ms: u64,
}

/// Runs the verb.
pub fn run(loaded: &Loaded, as_json: bool, wish: &Wish) -> Result<Exit, Failure> {
    let password = server::password(&loaded.config).map(str::to_owned);
    let addresses = [loaded.config.admin_address()].into_iter().chain(wish.also.iter().copied());
    let sources: Vec<Source> =
        addresses.map(|address| Source { address, password: password.clone() }).collect();
    let reservation = Reservation::new(wish.every);
    let rounds = Rounds { sources, reservation, wish, as_json };
    let (mut behind, mut gaps) = (BTreeSet::new(), BTreeSet::new());
    let mut round = |ended: &dyn Fn() -> bool| {
        let made = rounds.back_up(ended)?;
        made.print(&wish.dir, as_json);
        let is_news = renews(&mut behind, made.behind());
        if is_news && !as_json {
            eprintln!("{}", advice(&behind));
        }
        let is_news = renews(&mut gaps, made.gaps);
        // A single backup has nothing kept for the next.
        if is_news && wish.every.is_some() && !as_json {
            eprintln!("{}", warning(&gaps));
        }
        // A node tells it once.
        if let Some(given_up) = made.given_up.filter(|_| !as_json) {
            eprintln!("{}", given_up.told());
        }
        Ok(())
    };
    match wish.every {
        Some(every) => rounds::run(every, as_json, &mut round),
        None => {
            round(&|| false)?;
            Ok(Exit::Holds)
        }
    }
}

impl Rounds<'_> {
    /// Makes one backup, of what those have who answer; if it is ended on the way there is none.
    fn back_up(&self, ended: &dyn Fn() -> bool) -> Result<Made> {
        let at = now();
        let mut party = Party::gather(&self.sources)?;
        let made = self.round(at, &mut party, ended);
        self.reservation.end(&party);
        made.map_err(|error| party.explained(error))
    }

    fn round(&self, at: Millis, party: &mut Party, ended: &dyn Fn() -> bool) -> Result<Made> {
        let dir = &self.wish.dir;
        let (origin, keyspaces) = agreed(party)?;
        let mut choices = choose(&party.told);
        whole((origin.is_cluster, &keyspaces), &choices)?;
        let writer = Writer::begin(dir, self.wish.keep)?;
        if let Some(before) = writer.before().filter(|before| before.origin != origin) {
            let whose = if before.origin.is_cluster { "another cluster" } else { "another node" };
            bail!("{} has backups of {whose}: give another directory", dir.display());
        }
        // Before anything is cut, so that nothing behind a checkpoint is lost.
        self.reservation.keep(party, writer.before())?;
        let mut round = Round { party, writer, wish: self.wish, as_json: self.as_json, ended };
        let until = round.take(&mut choices)?.max(at);
        let mut ends = round.mark(&keyspaces, &choices, until)?;
        let Round { party, mut writer, .. } = round;
        let found = fetch(party, &ends.points, &mut writer, ended)?;
        let is_divided = |id: KeyspaceId| ends.keyspaces.iter().any(|it| it.id == id && it.partitions > 1);
        ensure!(
            !found.missing.keys().any(|group| is_divided(group.keyspace())),
            "{}; `--loose` backs up each partition at its own moment",
            told_missing(&found.missing)
        );
        // One that is alone is as its checkpoint is, which was before the mark.
        let of_missing: BTreeSet<KeyspaceId> = found.missing.keys().map(|group| group.keyspace()).collect();
        ends.keyspaces.iter_mut().filter(|it| of_missing.contains(&it.id)).for_each(|it| it.mark = None);
        let (written, reused) = (writer.written, writer.reused);
        let given_up = writer.before().filter(|_| !party.given_up.is_empty());
        let given_up = given_up.map(|before| GivenUp {
            at: std::mem::take(&mut party.given_up),
            since: (before.number, before.at),
        });
        let span = Span { at, until: ends.until, skew_ms: ends.skew_ms };
        let manifest = writer.finish(span, origin, ends.keyspaces)?;
        let absent = std::mem::take(&mut party.absent);
        Ok(Made { manifest, written, reused, gaps: found.gaps, absent, given_up })
    }
}

impl Round<'_> {
    /// Takes the checkpoints of these partitions: when the last was cut. What cannot be had from one that was chosen, because
    /// it gives no answer any more, is taken from another, which is the choice then.
    fn take(&mut self, choices: &mut BTreeMap<GroupId, Choice>) -> Result<Millis> {
        let bar = bar(self.as_json, choices.len() as u64);
        let mut until = Millis(0);
        for (&group, choice) in choices {
            bar.set_message(name(group));
            until = until.max(self.take_one(group, choice)?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(until)
    }

    fn take_one(&mut self, group: GroupId, choice: &mut Choice) -> Result<Millis> {
        loop {
            ensure!(!(self.ended)(), ENDED);
            let Choice { source, copy } = *choice;
            // Who leads has all there is; a backup before that has more has another group of that number.
            let before = if copy.leads { Index(0) } else { ends_at(self.writer.before(), group) };
            let after = Index(copy.applied).max(before);
            match self.party.sources[source].keep((copy, after), &mut self.writer, self.ended) {
                Ok(at) => return Ok(at),
                Err(error) => self.party.lose(source, error)?,
            }
            let others = choose(&self.party.told);
            let other = others.get(&group);
            *choice = *other.with_context(|| {
                format!("partition {} has no copy at a node that still answers", name(group))
            })?;
        }
    }

    /// Finds out where each partition is to end: all of a keyspace at one moment, or each at its checkpoint.
    fn mark(
        &mut self,
        keyspaces: &[Keyspace],
        choices: &BTreeMap<GroupId, Choice>,
        until: Millis,
    ) -> Result<Ends> {
        let mut ends = Ends { points: BTreeMap::new(), keyspaces: Vec::new(), until, skew_ms: 0 };
        let mut lines = Lines::new(self.party);
        let marked = keyspaces.iter().try_for_each(|it| self.mark_one(*it, choices, (&mut lines, &mut ends)));
        // Also to tell why there was no mark.
        for (source, why) in lines.lost() {
            self.party.is_gone(source, why);
        }
        marked.map(|()| ends)
    }

    fn mark_one(
        &mut self,
        keyspace: Keyspace,
        choices: &BTreeMap<GroupId, Choice>,
        (lines, ends): (&mut Lines, &mut Ends),
    ) -> Result<()> {
        let is_loose = keyspace.partitions > 1 && self.wish.loose;
        let marked = if is_loose { None } else { self.stand_still(lines, keyspace, &mut ends.until)? };
        ensure!(!(self.ended)(), ENDED);
        for (&group, choice) in choices.iter().filter(|(group, _)| group.keyspace() == keyspace.id) {
            let held = self.writer.group(group).context("each partition was taken")?;
            let own = (choice.source, Point { index: held.index, term: held.term });
            ends.points.insert(group, own);
        }
        let mark = marked.as_ref().map(|marked| marked.moment);
        ends.keyspaces.push(Keyspace { mark, ..keyspace });
        let Some(Marked { moment, skew_ms, groups }) = marked else { return Ok(()) };
        let taken = groups.into_iter().filter(|(group, _)| self.writer.group(*group).is_some());
        let point = |(source, it): (usize, Still)| (source, Point { index: it.index, term: it.term });
        ends.points.extend(taken.map(|(group, it)| (group, point(it))));
        (ends.until, ends.skew_ms) = (ends.until.max(moment), ends.skew_ms.max(skew_ms));
        Ok(())
    }

    /// The moment at which all partitions of a keyspace stood still; nothing if there was none and it has only one.
    /// Partitions that were empty when the round began, and are not any more, are taken, and then there must be
    /// another moment.
    fn stand_still(
        &mut self,
        lines: &mut Lines,
        keyspace: Keyspace,
        until: &mut Millis,
    ) -> Result<Option<Marked>> {
        for _ in 0..MARKS_MAX {
            let groups = (0..keyspace.partitions).map(|partition| GroupId::new(keyspace.id, partition));
            let held = groups.filter_map(|group| Some((group, self.writer.group(group)?.index)));
            let marked = match lines.mark(keyspace, &held.collect(), self.ended) {
                Ok(marked) => marked,
                // A partition alone is consistent with itself at any entry.
                Err(_) if keyspace.partitions == 1 => return Ok(None),
                Err(error) => return Err(error),
            };
            let is_new =
                |group: GroupId, index: Index| index > Index(0) && self.writer.group(group).is_none();
            let new = marked.groups.iter().filter(|(group, (_, it))| is_new(**group, it.index));
            let copy = |group, applied: Index| Copy { group, applied: applied.0, leads: true };
            let new = new.map(|(group, (source, it))| {
                (*group, Choice { source: *source, copy: copy(*group, it.index) })
            });
            let mut new: BTreeMap<GroupId, Choice> = new.collect();
            if new.is_empty() {
                return Ok(Some(marked));
            }
            *until = self.take(&mut new)?.max(*until);
        }
        bail!("keyspace {}: again and again a partition was written to for the first time", keyspace.id)
    }
}

/// Whose data it is, and the keyspaces, as the first who answered says: all must be of one cluster, and know of no more.
fn agreed(party: &Party) -> Result<(Origin, Vec<Keyspace>)> {
    let Party { sources, told, .. } = party;
    let first = told.first().context("somebody has answered")?;
    if let Some(strange) = told.iter().position(|other| other.origin != first.origin) {
        let (one, other) = (sources[0].address, sources[strange].address);
        bail!("the nodes at {one} and {other} are not of one cluster");
    }
    known_to_first(sources, told)?;
    Ok((first.origin, first.keyspaces.clone()))
}

/// Where the backup before has a partition: a follower's checkpoint is not to be older than that, so that its
/// entries follow.
fn ends_at(before: Option<&Manifest>, group: GroupId) -> Index {
    let group = before.and_then(|before| before.groups.iter().find(|it| it.group == group));
    group.map_or(Index(0), server::backup::Group::restores_to)
}

/// Refuses if the first node asked does not know of a keyspace that another knows: it may be long behind the others, and a
/// backup without that keyspace would be taken for whole.
fn known_to_first(sources: &[Source], told: &[Told]) -> Result<()> {
    let Some((first, others)) = told.split_first() else { return Ok(()) };
    let lacks = |other: &Told| other.keyspaces.iter().find(|it| !first.keyspaces.contains(it)).copied();
    let Some((at, lacking)) = others.iter().enumerate().find_map(|(at, other)| Some((at, lacks(other)?)))
    else {
        return Ok(());
    };
    bail!(
        "the node at {} knows keyspace {} as it is, and the node at {} does not: it was changed just now, or that node is \
         behind; ask again, or name another member first",
        sources[at + 1].address,
        lacking.id,
        sources[0].address
    )
}

/// Each partition from who leads it, or else from who has come furthest. Copies of what the first node asked did not know of
/// when it named its keyspaces were made since then, and are not in this backup.
fn choose(told: &[Told]) -> BTreeMap<GroupId, Choice> {
    let keyspaces = told.iter().take(1).flat_map(|first| &first.keyspaces);
    let partitions: BTreeMap<KeyspaceId, u16> = keyspaces.map(|it| (it.id, it.partitions)).collect();
    let is_known =
        |group: GroupId| partitions.get(&group.keyspace()).is_some_and(|count| group.partition() < *count);
    let mut choices: BTreeMap<GroupId, Choice> = BTreeMap::new();
    for (source, one) in told.iter().enumerate() {
        for &copy in one.copies.iter().filter(|copy| is_known(copy.group)) {
            let rank = |copy: &Copy| (copy.leads, copy.applied);
            match choices.get(&copy.group) {
                Some(known) if rank(&known.copy) >= rank(&copy) => {}
                Some(_) | None => drop(choices.insert(copy.group, Choice { source, copy })),
            }
        }
    }
    choices
}

/// Refuses unless every partition of a cluster is there.
fn whole((is_cluster, keyspaces): (bool, &[Keyspace]), choices: &BTreeMap<GroupId, Choice>) -> Result<()> {
    // A node of its own has all that it has.
    if !is_cluster {
        return Ok(());
    }
    let all = keyspaces
        .iter()
        .flat_map(|keyspace| (0..keyspace.partitions).map(|partition| GroupId::new(keyspace.id, partition)));
    let missing: BTreeSet<GroupId> = all.filter(|group| !choices.contains_key(group)).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    bail!(
        "{} partitions have no copy at the nodes that were asked, such as {}: name the admin ports of other members \
         with --also",
        missing.len(),
        name(*first)
    )
}

fn bar(as_json: bool, partitions: u64) -> ProgressBar {
    if as_json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(partitions);
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} partitions, {msg} ({elapsed})");
    bar.set_style(style.expect("the template is sound"));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(copies: &[(u16, u64, bool)]) -> Told {
        let copy = |&(partition, applied, leads): &(u16, u64, bool)| Copy {
            group: GroupId::new(KeyspaceId(1), partition),
            applied,
            leads,
        };
        Told {
            origin: Origin { id: [1; 16], is_cluster: true },
            keyspaces: vec![Keyspace { id: KeyspaceId(1), partitions: 3, mark: None }],
            copies: copies.iter().map(copy).collect(),
        }
    }

    #[test]
    fn each_partition_is_taken_from_its_leader_or_from_who_has_most() {
        let all = [
            told(&[(0, 9, true), (1, 5, false), (2, 7, false)]),
            told(&[(0, 10, false), (1, 4, true), (2, 8, false)]),
        ];
        let sources: Vec<usize> = choose(&all).values().map(|choice| choice.source).collect();
        assert_eq!(sources, [0, 1, 1]);
        let whole = |told: &[Told]| whole((told[0].origin.is_cluster, &told[0].keyspaces), &choose(told));
        assert!(whole(&all).is_ok());
        let few = [told(&[(0, 9, true)])];
        let error = whole(&few).unwrap_err().to_string();
        assert!(error.starts_with("2 partitions have no copy") && error.contains("1/1"), "{error}");
        let alone = [Told { origin: Origin { id: [1; 16], is_cluster: false }, ..told(&[(0, 9, true)]) }];
        assert!(whole(&alone).is_ok(), "a node of its own has all there is");
        let mut later = told(&[(0, 9, false)]);
        later.copies.push(Copy { group: GroupId::new(KeyspaceId(2), 0), applied: 1, leads: true });
        let grown = [told(&[(0, 9, true), (1, 5, true), (2, 7, true)]), later];
        assert!(choose(&grown).keys().all(|group| group.keyspace() == KeyspaceId(1)), "the second is newer");
        let source = || Source { address: "127.0.0.1:1".parse().unwrap(), password: None };
        assert!(known_to_first(&[source(), source()], &grown).is_ok());
        let mut ahead = told(&[(0, 9, true)]);
        ahead.keyspaces.push(Keyspace { id: KeyspaceId(2), partitions: 1, mark: None });
        let behind = [told(&[(0, 9, true)]), ahead];
        let error = known_to_first(&[source(), source()], &behind).unwrap_err().to_string();
        assert!(error.contains("knows keyspace") && error.contains('2'), "{error}");
    }
}
