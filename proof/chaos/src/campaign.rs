//! What all campaigns share: where they work, how they end and what they report.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use thiserror::Error;

use crate::judge::Fault;
use crate::load::End;
use crate::process::{Program, StartError};

/// Why a campaign has no figures.
#[derive(Debug, Error)]
pub enum Failure {
    /// The node broke a promise.
    #[error("{0}")]
    Broken(String),
    /// This machine or user cannot judge it.
    #[error("not judged: {0}")]
    NotJudged(String),
    /// The world around the node.
    #[error("cannot {action}: {source}")]
    World {
        /// What was tried.
        action: String,
        /// The reason.
        source: io::Error,
    },
}

impl Failure {
    /// For `map_err`: names what was tried.
    pub fn world(action: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
        |source| Failure::World { action: action.into(), source }
    }

    /// For `map_err`: a node that must start or answer did not.
    pub fn broken<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Failure {
        move |error| Failure::Broken(format!("{what}: {error}"))
    }
}

/// What a campaign is told.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The `archipel` binary.
    pub binary: PathBuf,
    /// What decides commands and moments.
    pub seed: u64,
    /// How often.
    pub rounds: u64,
    /// `always` or `everysec`.
    pub durability: &'static str,
    /// Further words of the command, each after a space: what only this campaign is told.
    pub words: String,
}

/// A figure of a report.
pub type Figure = (&'static str, u64, &'static str);

/// How a campaign ended.
#[derive(Debug)]
pub struct Report {
    /// Its name.
    pub name: &'static str,
    /// As it was told.
    pub setting: Setting,
    /// Its figures, or why there are none.
    pub result: Result<Vec<Figure>, Failure>,
}

impl Report {
    /// 0 holds, 1 fails, 3 not judged.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.result {
            Ok(_) => 0,
            Err(Failure::Broken(_)) => 1,
            Err(Failure::NotJudged(_) | Failure::World { .. }) => 3,
        }
    }

    fn verdict(&self) -> &'static str {
        match self.exit_code() {
            0 => "holds",
            1 => "fails",
            _ => "not judged",
        }
    }

    /// The report for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let figures = self.result.iter().flatten();
        let figures: Vec<Value> =
            figures.map(|(name, value, unit)| json!({"name": name, "value": value, "unit": unit})).collect();
        json!({
            "schema": 1, "name": self.name, "seed": self.setting.seed, "verdict": self.verdict(),
            "params": {"rounds": self.setting.rounds, "durability": self.setting.durability},
            "figures": figures, "reason": self.result.as_ref().err().map(ToString::to_string),
        })
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let Setting { seed, rounds, durability, words, .. } = &self.setting;
        let mut text =
            format!("{} ({durability}, {rounds} rounds, seed {seed}): {}", self.name, self.verdict());
        match &self.result {
            Ok(figures) => {
                figures
                    .iter()
                    .for_each(|(name, value, unit)| text.push_str(&format!("\n  {name:<44} {value} {unit}")));
            }
            Err(failure) => {
                text.push_str(&format!("\n  {failure}\n  again with: cargo run --release -p chaos -- {} --rounds {rounds} --durability {durability} --seed {seed}{words}", self.name));
            }
        }
        text
    }
}

/// Where a campaign works. Kept, and named, when the node broke a promise.
pub struct Scratch {
    dir: Option<TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// A new folder.
    ///
    /// # Errors
    /// There can be none.
    pub fn new() -> Result<Scratch, Failure> {
        let dir = tempfile::Builder::new().prefix("archipel-chaos-").tempdir();
        let dir = dir.map_err(Failure::world("make a folder for the run"))?;
        let path = dir.path().to_owned();
        Ok(Scratch { dir: Some(dir), path })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The binary with a configuration file here.
    #[must_use]
    pub fn program(&self, setting: &Setting) -> Program {
        Program { binary: setting.binary.clone(), config: self.path.join("archipel.toml") }
    }

    /// Keeps the folder if `result` needs to be looked into.
    pub fn end<T>(mut self, result: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(Failure::Broken(what)) = result {
            let kept = self.dir.take().map(TempDir::keep).unwrap_or_default();
            return Err(Failure::Broken(format!("{what}\n  the data is kept in {}", kept.display())));
        }
        result
    }
}

/// The first end that a node which serves must not cause. A broken connection is fine if the node was ended.
pub fn judge_ends(ends: &[End], was_ended: bool) -> Result<(), Failure> {
    for end in ends {
        match end {
            End::Wrong(what) => return Err(Failure::Broken(what.clone())),
            End::Broken(error) if !was_ended => {
                return Err(Failure::Broken(format!("the node closed a connection: {error}")));
            }
            End::DiskFailed if !was_ended => {
                return Err(Failure::Broken("the node says that the disk failed".into()));
            }
            End::Stopped | End::Broken(_) | End::DiskFailed => {}
        }
    }
    Ok(())
}

/// A start that must succeed.
pub fn must_start(round: u64) -> impl FnOnce(StartError) -> Failure {
    move |error| match error {
        StartError::Unusable { .. } => Failure::NotJudged(error.to_string()),
        StartError::Ended { .. } | StartError::Silent { .. } => {
            Failure::Broken(format!("round {round}: the node does not start: {error}"))
        }
    }
}

/// A comparison that must succeed.
pub fn must_hold(round: u64) -> impl FnOnce(Fault) -> Failure {
    move |fault| Failure::Broken(format!("round {round}: {fault}"))
}
