//! `archipel cluster restore`: a new data directory out of a backup, or a check of one.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use server::backup::{Archive, Group, Manifest, Reach};
use server::config::Loaded;
use server::kernel::Millis;
use server::restore::restore;

use super::backup::described;
use crate::exit::{Exit, Failure};
use crate::moment::utc_millis;

/// What is asked for.
pub struct Wish {
    /// Which backup.
    pub number: Option<u64>,
    /// Or else the newest that has nothing from after this moment.
    pub to: Option<Millis>,
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
    let manifest = match wish.to {
        Some(moment) => archive.at(moment)?,
        None => archive.manifest(wish.number)?,
    };
    let bytes = manifest.groups.iter().map(|group| group.bytes).sum();
    let bar = bar(as_json, bytes);
    if wish.verify {
        let mut chunks = 0;
        for group in &manifest.groups {
            let verified = archive.verify(manifest.number, group)?;
            chunks += verified.chunks;
            bar.inc(verified.bytes);
        }
        bar.finish_and_clear();
        let told = Told { manifest: &manifest, verb: "sound", chunks, to: wish.to };
        told.print(as_json);
        return Ok(Exit::Holds);
    }
    let (target, engine) = (&loaded.config.data_dir, server::engine_options(&loaded.config));
    let reach = Reach::mark(manifest);
    restore(&mut archive, &reach, target, engine, &mut |bytes| bar.inc(bytes))?;
    let manifest = reach.base();
    bar.finish_and_clear();
    let chunks = manifest.groups.iter().map(|group| group.chunks.len() as u64).sum();
    Told { manifest, verb: "restored", chunks, to: wish.to }.print(as_json);
    if !as_json {
        println!("start it with `archipel node start --data-dir {}`", target.display());
    }
    Ok(Exit::Holds)
}

/// What was done with a backup.
struct Told<'a> {
    manifest: &'a Manifest,
    verb: &'static str,
    chunks: u64,
    to: Option<Millis>,
}

impl Told<'_> {
    fn print(&self, as_json: bool) {
        let Manifest { number, groups, at, until, .. } = self.manifest;
        // How long before the wanted moment it was.
        let before = self.to.zip(*until).map(|(to, until)| to.0.saturating_sub(until.0));
        let objects: u64 = groups.iter().map(Group::objects).sum();
        let bytes: u64 = groups.iter().map(|group| group.bytes).sum();
        if as_json {
            let partitions: Vec<Value> = groups.iter().map(described).collect();
            println!(
                "{}",
                json!({"schema": 1, "number": number, "at_ms": at.0, "until_ms": until.map(|until| until.0),
                    "before_ms": before, "did": self.verb, "objects": objects, "bytes": bytes,
                    "chunks": self.chunks, "partitions": partitions})
            );
        } else {
            let (verb, count) = (self.verb, groups.len());
            println!("backup {number} is {verb}: {objects} keys in {count} partitions, {bytes} bytes");
            let from = utc_millis(*at);
            match until {
                Some(until) => println!(
                    "it has all that was acknowledged before {from} UTC and nothing from after {} UTC",
                    utc_millis(*until)
                ),
                None => println!("it was begun at {from} UTC, and does not say how late its partitions are"),
            }
            if let Some(millis) = before {
                println!(
                    "that is {}.{:03} s before the moment that was asked for",
                    millis / 1000,
                    millis % 1000
                );
            }
        }
    }
}

/// The backups of a directory, one a line; that there are none is a failure.
fn list(archive: &Archive, as_json: bool) -> Result<Exit, Failure> {
    let numbers = archive.numbers()?;
    if numbers.is_empty() {
        // Says so.
        archive.manifest(None)?;
    }
    for number in numbers {
        let Manifest { at, until, groups, .. } = archive.manifest(Some(number))?;
        let objects: u64 = groups.iter().map(Group::objects).sum();
        let bytes: u64 = groups.iter().map(|group| group.bytes).sum();
        if as_json {
            println!(
                "{}",
                json!({"schema": 1, "number": number, "at_ms": at.0, "until_ms": until.map(|until| until.0),
                    "objects": objects, "bytes": bytes})
            );
        } else {
            println!("{number}\t{} UTC\t{objects} keys\t{bytes} bytes", utc_millis(at));
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
