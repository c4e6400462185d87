//! Many keys at once: to a file, from a file, from a live Redis.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::client::Client;
use super::piece::Piece;
use super::sink::Sink;
use super::source::{self, Met};
use crate::exit::{Exit, Failure};
use crate::output::Stdout;

/// Longest line of a file, in bytes: the longest value in base64, and its key.
const LINE_BYTES_MAX: u64 = 800 << 20;

/// Writes keys as lines of JSON to `file`, or to stdout.
pub fn export(
    mut client: Client,
    db: Option<u16>,
    pattern: Option<&str>,
    file: Option<&Path>,
    as_json: bool,
) -> Result<Exit, Failure> {
    let mut target = Target::open(file)?;
    let keyspaces = chosen(&mut client, db)?;
    let bar = bar(keyspaces.iter().map(|(_, keys)| keys).sum(), "keys");
    let mut met = Met::default();
    for (db, _) in keyspaces {
        let found = source::read(&mut client, db, pattern.map(str::as_bytes), &mut |piece| {
            bar.inc(u64::from(piece.part == 0));
            target.line(&piece)
        })?;
        met.keys += found.keys;
        met.left_out += found.left_out;
    }
    bar.finish_and_clear();
    let to_stdout = target.part.is_none();
    target.finish()?;
    if as_json && !to_stdout {
        println!("{}", json!({"keys": met.keys, "left_out": met.left_out}));
    } else {
        eprintln!("{} keys exported", met.keys);
    }
    Ok(ended(met))
}

/// Puts the lines of a file into a node.
pub fn import_file(file: &Path, client: Client, as_json: bool) -> Result<Exit, Failure> {
    let from_stdin = file == Path::new("-");
    let opened: Box<dyn Read> = if from_stdin {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?)
    };
    let bytes =
        if from_stdin { 0 } else { std::fs::metadata(file).map(|data| data.len()).unwrap_or_default() };
    let bar = bar(bytes, "bytes");
    let mut lines = BufReader::new(opened);
    let mut sink = Sink::new(client);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let taken =
            (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).context("the file breaks off")?;
        if taken == 0 {
            break;
        }
        bar.inc(taken as u64);
        let place = || format!("{}:{number}", file.display());
        let text = std::str::from_utf8(&line).context("this is not UTF-8").with_context(place)?;
        if text.trim().is_empty() {
            continue;
        }
        sink.put(&Piece::from_json(text).with_context(place)?)?;
    }
    imported(sink, Met::default(), &bar, as_json)
}

/// Puts the keys of a live Redis into a node.
pub fn import_live(
    mut source: Client,
    db: Option<u16>,
    client: Client,
    as_json: bool,
) -> Result<Exit, Failure> {
    let keyspaces = chosen(&mut source, db)?;
    let bar = bar(keyspaces.iter().map(|(_, keys)| keys).sum(), "keys");
    let mut sink = Sink::new(client);
    let mut met = Met::default();
    for (db, _) in keyspaces {
        let found = source::read(&mut source, db, None, &mut |piece| {
            bar.inc(u64::from(piece.part == 0));
            sink.put(&piece)
        })?;
        met.left_out += found.left_out;
    }
    imported(sink, met, &bar, as_json)
}

fn imported(mut sink: Sink, met: Met, bar: &ProgressBar, as_json: bool) -> Result<Exit, Failure> {
    sink.flush()?;
    bar.finish_and_clear();
    if as_json {
        println!("{}", json!({"keys": sink.keys, "expired": sink.expired, "left_out": met.left_out}));
    } else {
        eprintln!("{} keys imported, {} had expired", sink.keys, sink.expired);
    }
    Ok(ended(met))
}

/// Not everything travelled: that must not look like success.
fn ended(met: Met) -> Exit {
    if met.left_out == 0 {
        return Exit::Holds;
    }
    eprintln!("archipel: {} keys of types that are not offered were left out", met.left_out);
    Exit::Fails
}

fn chosen(client: &mut Client, db: Option<u16>) -> Result<Vec<(u16, u64)>> {
    let mut keyspaces = source::keyspaces(client)?;
    keyspaces.retain(|(found, _)| db.is_none_or(|db| db == *found));
    Ok(keyspaces)
}

/// A bar on stderr, in a terminal only.
fn bar(total: u64, unit: &str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let figures =
        if unit == "bytes" { "{bytes}/{total_bytes} {bytes_per_sec}" } else { "{pos}/{len} keys {per_sec}" };
    let style = ProgressStyle::with_template(&format!("{{wide_bar}} {figures} {{eta}}"))
        .expect("the template is a constant that indicatif takes");
    ProgressBar::with_draw_target(Some(total), target).with_style(style)
}

/// Where an export goes. A file gets its name when it is complete.
struct Target {
    out: BufWriter<Box<dyn Write>>,
    part: Option<(PathBuf, PathBuf)>,
}

impl Target {
    fn open(file: Option<&Path>) -> Result<Target> {
        let Some(file) = file.filter(|file| *file != Path::new("-")) else {
            return Ok(Target { out: BufWriter::new(Box::new(Stdout)), part: None });
        };
        let Some(name) = file.file_name() else { bail!("{} is not a file", file.display()) };
        let mut part = name.to_owned();
        part.push(".part");
        let part = file.with_file_name(part);
        let opened = File::create(&part).with_context(|| format!("cannot write {}", part.display()))?;
        Ok(Target { out: BufWriter::new(Box::new(opened)), part: Some((part, file.to_owned())) })
    }

    fn line(&mut self, piece: &Piece) -> Result<()> {
        writeln!(self.out, "{}", piece.to_json()).context("the export cannot be written")
    }

    fn finish(mut self) -> Result<()> {
        self.out.flush().context("the export cannot be written")?;
        if let Some((part, file)) = self.part {
            File::open(&part)?.sync_all()?;
            std::fs::rename(&part, &file).with_context(|| format!("cannot name {}", file.display()))?;
        }
        Ok(())
    }
}
