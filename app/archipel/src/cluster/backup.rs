//! `archipel cluster backup`: asks nodes for their partitions, and keeps those of who leads them, with the entries behind.
//!
//! A round goes so: nodes are told to keep their log; each partition's checkpoint is held and read; then each keyspace is marked,
//! all its partitions at one moment ([`still`]); and the entries up to there, from where the backup before ends, are read
//! ([`entries`]). Writers wait for nothing of it but the mark.

mod entries;
mod source;
mod still;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use server::backup::{Keep, Keyspace, Manifest, Point, Span, Writer};
use server::config::Loaded;
use server::kernel::{GroupId, Index, KeyspaceId, Millis};
use server::standstill::Still;

use self::entries::{Reservation, fetch, told_missing};
use self::source::{Copy, ENDED, Source, Told};
use self::still::{Lines, Marked};
use self::told::{Made, advice, renews, warning};
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
    /// For the marks; made anew in each round, as a node closes what is idle.
    lines: Lines,
    reservation: Reservation,
    wish: &'a Wish,
    as_json: bool,
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
    let lines = Lines::new(&sources);
    let reservation = Reservation::new(wish.every);
    let mut rounds = Rounds { sources, lines, reservation, wish, as_json };
    let (mut behind, mut gaps) = (BTreeSet::new(), BTreeSet::new());
    let mut round = |ended: &dyn Fn() -> bool| {
        let made = rounds.back_up(ended);
        rounds.reservation.end(&rounds.sources);
        let made = made?;
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
    /// Makes one backup; if it is ended on the way there is none.
    fn back_up(&mut self, ended: &dyn Fn() -> bool) -> Result<Made> {
        let at = now();
        let told = self.sources.iter().map(Source::begin).collect::<Result<Vec<Told>>>()?;
        let first = told.first().context("there is a first node")?;
        let dir = &self.wish.dir;
        if let Some(strange) = told.iter().position(|other| other.origin != first.origin) {
            let (one, other) = (self.sources[0].address, self.sources[strange].address);
            bail!("the nodes at {one} and {other} are not of one cluster");
        }
        known_to_first(&self.sources, &told)?;
        let choices = choose(&told);
        whole(first, &choices)?;
        let mut writer = Writer::begin(dir, self.wish.keep)?;
        if let Some(before) = writer.before().filter(|before| before.origin != first.origin) {
            let whose = if before.origin.is_cluster { "another cluster" } else { "another node" };
            bail!("{} has backups of {whose}: give another directory", dir.display());
        }
        // Before anything is cut, so that nothing behind a checkpoint is lost.
        let keeping = self.reservation.keep(&self.sources, &told, writer.before())?;
        let until = self.take(&choices, &mut writer, ended)?.max(at);
        self.lines = Lines::new(&self.sources);
        let mut ends = self.mark(first, &choices, (&mut writer, until), ended)?;
        let found = fetch((&self.sources, &told, &keeping), &ends.points, &mut writer, ended)?;
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
        let span = Span { at, until: ends.until, skew_ms: ends.skew_ms };
        let manifest = writer.finish(span, first.origin, ends.keyspaces)?;
        Ok(Made { manifest, written, reused, gaps: found.gaps })
    }

    /// Takes the checkpoints of these partitions: when the last was cut.
    fn take(
        &self,
        choices: &BTreeMap<GroupId, Choice>,
        writer: &mut Writer,
        ended: &dyn Fn() -> bool,
    ) -> Result<Millis> {
        let bar = bar(self.as_json, choices.len() as u64);
        let mut until = Millis(0);
        for Choice { source, copy } in choices.values() {
            ensure!(!ended(), ENDED);
            bar.set_message(name(copy.group));
            // Who leads has all there is; a backup before that has more has another group of that number.
            let before = if copy.leads { Index(0) } else { ends_at(writer.before(), copy.group) };
            let after = Index(copy.applied).max(before);
            until = until.max(self.sources[*source].keep((*copy, after), writer, ended)?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(until)
    }

    /// Finds out where each partition is to end: all of a keyspace at one moment, or each at its checkpoint.
    fn mark(
        &mut self,
        first: &Told,
        choices: &BTreeMap<GroupId, Choice>,
        (writer, until): (&mut Writer, Millis),
        ended: &dyn Fn() -> bool,
    ) -> Result<Ends> {
        let mut ends = Ends { points: BTreeMap::new(), keyspaces: Vec::new(), until, skew_ms: 0 };
        for keyspace in &first.keyspaces {
            let is_loose = keyspace.partitions > 1 && self.wish.loose;
            let marked =
                if is_loose { None } else { self.stand_still(*keyspace, writer, &mut ends.until, ended)? };
            ensure!(!ended(), ENDED);
            for (&group, choice) in choices.iter().filter(|(group, _)| group.keyspace() == keyspace.id) {
                let held = writer.group(group).context("each partition was taken")?;
                let own = (choice.source, Point { index: held.index, term: held.term });
                ends.points.insert(group, own);
            }
            let mark = marked.as_ref().map(|marked| marked.moment);
            ends.keyspaces.push(Keyspace { mark, ..*keyspace });
            let Some(Marked { moment, skew_ms, groups }) = marked else { continue };
            let taken = groups.into_iter().filter(|(group, _)| writer.group(*group).is_some());
            let point = |(source, it): (usize, Still)| (source, Point { index: it.index, term: it.term });
            ends.points.extend(taken.map(|(group, it)| (group, point(it))));
            (ends.until, ends.skew_ms) = (ends.until.max(moment), ends.skew_ms.max(skew_ms));
        }
        Ok(ends)
    }

    /// The moment at which all partitions of a keyspace stood still; nothing if there was none and it has only one.
    /// Partitions that were empty when the round began, and are not any more, are taken, and then there must be
    /// another moment.
    fn stand_still(
        &mut self,
        keyspace: Keyspace,
        writer: &mut Writer,
        until: &mut Millis,
        ended: &dyn Fn() -> bool,
    ) -> Result<Option<Marked>> {
        for _ in 0..MARKS_MAX {
            let groups = (0..keyspace.partitions).map(|partition| GroupId::new(keyspace.id, partition));
            let held = groups.filter_map(|group| Some((group, writer.group(group)?.index)));
            let marked = match self.lines.mark(keyspace, &held.collect(), ended) {
                Ok(marked) => marked,
                // A partition alone is consistent with itself at any entry.
                Err(_) if keyspace.partitions == 1 => return Ok(None),
                Err(error) => return Err(error),
            };
            let is_new = |group: GroupId, index: Index| index > Index(0) && writer.group(group).is_none();
            let new = marked.groups.iter().filter(|(group, (_, it))| is_new(**group, it.index));
            let copy = |group, applied: Index| Copy { group, applied: applied.0, leads: true };
            let new = new.map(|(group, (source, it))| {
                (*group, Choice { source: *source, copy: copy(*group, it.index) })
            });
            let new: BTreeMap<GroupId, Choice> = new.collect();
            if new.is_empty() {
                return Ok(Some(marked));
            }
            *until = self.take(&new, writer, ended)?.max(*until);
        }
        bail!("keyspace {}: again and again a partition was written to for the first time", keyspace.id)
    }
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
fn whole(told: &Told, choices: &BTreeMap<GroupId, Choice>) -> Result<()> {
    // A node of its own has all that it has.
    if !told.origin.is_cluster {
        return Ok(());
    }
    let all = told
        .keyspaces
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
    use server::backup::Origin;

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
        assert!(whole(&all[0], &choose(&all)).is_ok());
        let few = [told(&[(0, 9, true)])];
        let error = whole(&few[0], &choose(&few)).unwrap_err().to_string();
        assert!(error.starts_with("2 partitions have no copy") && error.contains("1/1"), "{error}");
        let alone = [Told { origin: Origin { id: [1; 16], is_cluster: false }, ..told(&[(0, 9, true)]) }];
        assert!(whole(&alone[0], &choose(&alone)).is_ok(), "a node of its own has all there is");
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
