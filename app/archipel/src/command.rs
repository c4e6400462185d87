//! The command line: verbs on nouns.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::options::Options;

/// Many islands, one system: a distributed backend in one binary.
#[derive(Parser, Debug)]
#[command(
    name = "archipel",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  archipel                                  a node with everything on its defaults
  archipel --data-dir /var/lib/archipel     its files elsewhere
  archipel --port-offset 10                 a second node on this machine
  archipel node status                      what a running node does
  archipel doctor                           is this machine fit for it?

Exit codes: 0 it holds, 1 it fails, 2 usage, 3 not judged."
)]
pub struct Root {
    /// Flags of all verbs.
    #[command(flatten)]
    pub options: Options,
    /// The verb; without one, `node start`.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The nouns.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start a node, or ask a running one.
    #[command(subcommand)]
    Node(NodeCommand),
    /// The configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// What is done with a node.
#[derive(Subcommand, Clone, Debug)]
pub enum NodeCommand {
    /// Start a node and serve until SIGTERM or SIGINT.
    #[command(after_help = "\
Examples:
  archipel node start --data-dir /var/lib/archipel --config /etc/archipel.toml
  archipel node start --set redis.port=6380 --set log.format=json
  ARCHIPEL_REDIS__REQUIREPASS=secret archipel node start --set redis.bind=0.0.0.0

SIGTERM and SIGINT stop it: clients are answered, a checkpoint is written, the log is synced.
A second signal ends it at once; what was acknowledged is safe in the log.")]
    Start,
    /// Tell what the running node does.
    #[command(after_help = "\
Examples:
  archipel node status
  archipel node status --port-offset 10
  archipel node status --json | jq .commands")]
    Status,
}

/// What is done with the configuration.
#[derive(Subcommand, Clone, Debug)]
pub enum ConfigCommand {
    /// Say whether a configuration is right, and what it changes.
    #[command(after_help = "\
Examples:
  archipel config check archipel.toml
  archipel config check --config archipel.toml --set redis.bind=0.0.0.0")]
    Check {
        /// The file; the same as --config.
        file: Option<PathBuf>,
    },
    /// Print every setting with its meaning and default, as a file that can be edited.
    #[command(after_help = "\
Examples:
  archipel config reference > archipel.toml")]
    Reference,
}
