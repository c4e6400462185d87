//! `archipel cluster restore`: a new data directory out of backups, or a check of them.

use std::path::Path;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use server::backup::{Archive, Group, Manifest, Reach};
use server::config::Loaded;
use server::kernel::Millis;
use server::restore::{Reached, Rehearsed, Restored, rehearse, restore};

use super::backup::{described, marks, name};
use crate::exit::{Exit, Failure};
use crate::moment::utc_millis;

/// What is asked for.
pub struct Wish {
    /// Which backup.
    pub number: Option<u64>,
    /// Or else everything up to this moment.
    pub to: Option<Millis>,
    /// Of the backups before that moment the newest, as it is.
    pub consistent: bool,
    /// Only what there is.
    pub list: bool,
    /// Only whether it is sound.
    pub verify: bool,
}

/// Runs the verb.
pub fn run(loaded: &Loaded, as_json: bool, dir: &Path, wish: Wish) -> Result<Exit, Failure> {
    let mut archive = Archive::new(dir);
    if wish.list {
        return list(&archive, as_json);
    }
    let reach = match wish.to {
        Some(moment) if wish.consistent => Reach::mark(archive.at(moment)?),
        Some(moment) => archive.reach(moment)?,
        None => Reach::mark(archive.manifest(wish.number)?),
    };
    let bytes = reach.base().groups.iter().map(|group| group.bytes).sum();
    let bar = bar(as_json, bytes);
    let engine = server::engine_options(&loaded.config);
    if wish.verify {
        // Each byte first, so that damage is told as such and with its place.
        let mut chunks = 0;
        for group in &reach.base().groups {
            let verified = archive.verify(reach.base().number, group)?;
            chunks += verified.chunks;
            bar.inc(verified.bytes);
        }
        for (group, histories) in reach.histories() {
            for (number, history) in histories {
                archive.verify_history((number, group), history)?;
            }
        }
        // A new directory of this user's alone: there is data in it.
        let scratch = tempfile::Builder::new().prefix("archipel-verify-").tempdir();
        let scratch = scratch.context("no directory for temporary files")?;
        let mut progress = |bytes| {
            bar.inc_length(bytes);
            bar.inc(bytes);
        };
        let rehearsed = rehearse(&mut archive, &reach, scratch.path(), engine, &mut progress)?;
        bar.finish_and_clear();
        let done = Done::Verified(rehearsed);
        Told { reach: &reach, to: wish.to, done, chunks }.print(as_json);
        return Ok(Exit::Holds);
    }
    let target = &loaded.config.data_dir;
    let restored = restore(&mut archive, &reach, target, engine, &mut |bytes| bar.inc(bytes))?;
    bar.finish_and_clear();
    let chunks = reach.base().groups.iter().map(|group| group.chunks.len() as u64).sum();
    let done = Done::Restored(&restored);
    Told { reach: &reach, to: wish.to, done, chunks }.print(as_json);
    if !as_json {
        println!("start it with `archipel node start --data-dir {}`", target.display());
    }
    Ok(Exit::Holds)
}

/// What was done with a backup.
enum Done<'a> {
    /// It was read, and replayed into nothing.
    Verified(Rehearsed),
    /// There is a directory of it.
    Restored(&'a Restored),
}

/// That, and what backup it was.
struct Told<'a> {
    reach: &'a Reach,
    to: Option<Millis>,
    done: Done<'a>,
    chunks: u64,
}

impl Told<'_> {
    fn print(&self, as_json: bool) {
        let base = self.reach.base();
        let bytes: u64 = base.groups.iter().map(|group| group.bytes).sum();
        // What is only looked at is told as its checkpoints are.
        let of_backup = || base.groups.iter().map(Group::objects).sum();
        let (verb, objects, partitions) = match &self.done {
            Done::Verified(_) => ("sound", of_backup(), base.groups.len()),
            Done::Restored(restored) => ("restored", restored.objects(), restored.groups.len()),
        };
        if as_json {
            self.print_json(objects, bytes);
            return;
        }
        let Manifest { number, at, until, .. } = base;
        println!("backup {number} is {verb}: {objects} keys in {partitions} partitions, {bytes} bytes");
        match (self.reach.moment, until) {
            (Some(moment), _) => self.print_moment(moment),
            (None, Some(until)) => match base.complete_until() {
                Some(all) => println!(
                    "it has all that was acknowledged before {} UTC and nothing from after {} UTC",
                    utc_millis(all),
                    utc_millis(*until)
                ),
                None => println!(
                    "it has nothing from after {} UTC; partitions were taken from copies that did not lead, \
                     and may lack the last moments",
                    utc_millis(*until)
                ),
            },
            (None, None) => println!(
                "it was begun at {} UTC, and does not say how late its partitions are",
                utc_millis(*at)
            ),
        }
        for keyspace in base.keyspaces.iter().filter(|it| it.partitions > 1 && self.reach.moment.is_none()) {
            let id = keyspace.id;
            match keyspace.mark {
                Some(mark) => println!(
                    "keyspace {id}: its {} partitions as they were together at {} UTC",
                    keyspace.partitions,
                    utc_millis(mark)
                ),
                None => println!(
                    "keyspace {id}: each of its {} partitions at a moment of its own",
                    keyspace.partitions
                ),
            }
        }
        if let Some(millis) = self.before() {
            println!("that is {}.{:03} s before the moment that was asked for", millis / 1000, millis % 1000);
        }
        if let Done::Verified(rehearsed) = &self.done {
            print_rehearsed(rehearsed);
        }
    }

    fn print_moment(&self, moment: Millis) {
        let last = self.reach.chain.last().map_or(0, |manifest| manifest.number);
        let differ = match self.skew_ms() {
            Some(skew_ms) => format!("these differed by at most {skew_ms} ms"),
            None => "how far these differ was not measured".to_owned(),
        };
        println!(
            "with the entries up to backup {last} each partition has all up to {} UTC by its leader's clock; \
             {differ}: of a divided keyspace a write within that of the moment may be there without one before \
             it (--consistent takes the newest backup before)",
            utc_millis(moment)
        );
        if let Some(ends) = self.reach.ends {
            println!("the backups end at {} UTC: what was written later is not there", utc_millis(ends));
        }
    }

    /// How far clocks differed at most, if that was measured in each backup.
    fn skew_ms(&self) -> Option<u64> {
        let mut chain = self.reach.chain.iter();
        chain.try_fold(0, |most, manifest| Some(manifest.measured_skew_ms()?.max(most)))
    }

    /// How long before the wanted moment a backup was that is taken as it is.
    fn before(&self) -> Option<u64> {
        let until = self.reach.base().until.filter(|_| self.reach.moment.is_none());
        self.to.zip(until).map(|(to, until)| to.0.saturating_sub(until.0))
    }

    fn print_json(&self, objects: u64, bytes: u64) {
        let base = self.reach.base();
        let (did, partitions, replayed): (&str, Vec<Value>, Option<Value>) = match &self.done {
            Done::Verified(Rehearsed { entries, met, unchanged, alone }) => {
                let replayed =
                    json!({"entries": entries, "met": met, "unchanged": unchanged, "alone": alone});
                ("sound", base.groups.iter().map(described).collect(), Some(replayed))
            }
            Done::Restored(restored) => ("restored", restored.groups.iter().map(reached).collect(), None),
        };
        println!(
            "{}",
            json!({"schema": 1, "number": base.number, "last": self.reach.chain.last().map(|it| it.number),
                "at_ms": base.at.0, "until_ms": base.until.map(|until| until.0), "before_ms": self.before(),
                "moment_ms": self.reach.moment.map(|moment| moment.0),
                "ends_ms": self.reach.ends.map(|ends| ends.0), "skew_ms": self.skew_ms(),
                "marks": marks(base),
                "did": did, "replayed": replayed, "objects": objects, "bytes": bytes, "chunks": self.chunks, "partitions": partitions})
        );
    }
}

/// What replay has shown, for people.
fn print_rehearsed(Rehearsed { entries, met, unchanged, alone }: &Rehearsed) {
    println!(
        "every byte was read, and its {entries} entries were replayed: {met} checkpoints are what an earlier one and the \
         entries behind it make, {unchanged} have not changed since the backup before, and {alone} have none before them"
    );
}

/// A partition that was restored, for scripts.
fn reached(it: &Reached) -> Value {
    json!({
        "keyspace": it.group.keyspace().0, "partition": it.group.partition(), "base": it.base.0, "index": it.index.0,
        "time_us": it.time.0, "objects": it.objects,
    })
}

/// The backups of a directory, one a line; that there are none is a failure.
fn list(archive: &Archive, as_json: bool) -> Result<Exit, Failure> {
    let numbers = archive.numbers()?;
    if numbers.is_empty() {
        // Says so.
        archive.manifest(None)?;
    }
    for number in numbers {
        let manifest = archive.manifest(Some(number))?;
        let Manifest { at, until, groups, .. } = &manifest;
        let objects: u64 = groups.iter().map(Group::objects).sum();
        let bytes: u64 = groups.iter().map(|group| group.bytes).sum();
        let broken = groups.iter().filter(|it| it.history.as_ref().is_none_or(|history| !history.follows));
        let gaps: Vec<String> = broken.map(|it| name(it.group)).collect();
        if as_json {
            println!(
                "{}",
                json!({"schema": 1, "number": number, "at_ms": at.0, "until_ms": until.map(|until| until.0),
                    "objects": objects, "bytes": bytes, "marks": marks(&manifest), "gaps": gaps})
            );
        } else {
            let follows = if gaps.is_empty() { "\tgoes on from the one before" } else { "" };
            println!("{number}\t{} UTC\t{objects} keys\t{bytes} bytes{follows}", utc_millis(*at));
        }
    }
    Ok(Exit::Holds)
}

fn bar(as_json: bool, bytes: u64) -> ProgressBar {
    if as_json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes);
    let style = ProgressStyle::with_template("{bar:24} {bytes}/{total_bytes} ({elapsed})");
    bar.set_style(style.expect("the template is sound"));
    bar
}
