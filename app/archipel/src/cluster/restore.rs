//! `archipel cluster restore`: a new data directory out of a backup, or a check of one.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use server::backup::{Archive, Group, Manifest};
use server::config::Loaded;
use server::restore::restore;

use super::backup::described;
use crate::exit::{Exit, Failure};

/// What is asked for.
pub struct Wish {
    /// Which backup.
    pub number: Option<u64>,
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
    let manifest = archive.manifest(wish.number)?;
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
        let told = Told { manifest: &manifest, verb: "sound", chunks };
        told.print(as_json);
        return Ok(Exit::Holds);
    }
    let (target, engine) = (&loaded.config.data_dir, server::engine_options(&loaded.config));
    restore(&mut archive, &manifest, target, engine, &mut |bytes| bar.inc(bytes))?;
    bar.finish_and_clear();
    let chunks = manifest.groups.iter().map(|group| group.chunks.len() as u64).sum();
    Told { manifest: &manifest, verb: "restored", chunks }.print(as_json);
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
}

impl Told<'_> {
    fn print(&self, as_json: bool) {
        let Manifest { number, groups, .. } = self.manifest;
        let objects: u64 = groups.iter().map(Group::objects).sum();
        let bytes: u64 = groups.iter().map(|group| group.bytes).sum();
        if as_json {
            let partitions: Vec<Value> = groups.iter().map(described).collect();
            println!(
                "{}",
                json!({"schema": 1, "number": number, "did": self.verb, "objects": objects, "bytes": bytes,
                    "chunks": self.chunks, "partitions": partitions})
            );
        } else {
            let (verb, count) = (self.verb, groups.len());
            println!("backup {number} is {verb}: {objects} keys in {count} partitions, {bytes} bytes");
        }
    }
}

/// The backups of a directory, one a line.
fn list(archive: &Archive, as_json: bool) -> Result<Exit, Failure> {
    for number in archive.numbers()? {
        let Manifest { at, groups, .. } = archive.manifest(Some(number))?;
        let objects: u64 = groups.iter().map(Group::objects).sum();
        let bytes: u64 = groups.iter().map(|group| group.bytes).sum();
        if as_json {
            println!("{}", json!({"number": number, "at_ms": at.0, "objects": objects, "bytes": bytes}));
        } else {
            println!("{number}\t{} ms since 1970\t{objects} keys\t{bytes} bytes", at.0);
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
