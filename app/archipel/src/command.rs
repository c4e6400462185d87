//! The command line: verbs on nouns.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use server::kernel::ClusterId;

use crate::options::Options;

mod cluster;
mod p2p;

pub use cluster::{ClusterCommand, KeyspaceArgs, KeyspaceCommand, UserCommand, duration};
pub use p2p::{BroadcastVia, OverlayKind, P2pCommand, TraceWhat};

/// Help is not wider than this, however wide the terminal is.
const HELP_COLUMNS_MAX: usize = 100;

/// Many islands, one system: a distributed backend in one binary.
#[derive(Parser, Debug)]
#[command(
    name = "archipel",
    version,
    max_term_width = HELP_COLUMNS_MAX,
    after_help = "\
Examples:
  archipel                                  a node with everything on its defaults
  archipel --data-dir /var/lib/archipel     its files elsewhere
  archipel --port-offset 10                 a second node on this machine
  archipel node status                      what a running node does
  archipel doctor                           is this machine fit for it?
  archipel cluster dev                      three nodes that are one, to play with
  archipel lab list                         what it claims, and how each claim is checked

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
    /// Make a cluster of several nodes, look at it, and change who is in it.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Read and write keys of a running node, one by one or all of them.
    #[command(subcommand)]
    Storage(StorageCommand),
    /// The overlay that a running node takes part in: its peers, and the hash table among them.
    #[command(subcommand)]
    P2p(P2pCommand),
    /// The services that a running node knows, and registering them.
    #[command(subcommand)]
    Mesh(crate::mesh::MeshCommand),
    /// Claims about distributed systems, checked on this program's own code in virtual time.
    #[command(subcommand)]
    Lab(LabCommand),
    /// The configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Say whether this machine is fit for a node, with figures and advice.
    #[command(after_help = "\
Examples:
  archipel doctor
  archipel doctor --data-dir /var/lib/archipel --json

It looks at limits, memory settings, the clock, the ports and the data directory, and measures how
fast the disk syncs. Exit code 1 if something must be mended, 3 if something could not be judged.")]
    Doctor,
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
  archipel node start --cluster --zone a                the first member of a new cluster
  archipel node start --join TOKEN --zone b --port-offset 10
  archipel node start --find CLUSTER-ID --join TOKEN --set p2p.peers=/ip4/192.0.2.7/tcp/7402
  archipel node start --config new.toml --take-over     in the place of the one that runs

A member of a cluster is started again without flags of the cluster: its data directory knows. A
token is made by `archipel cluster token` at any member and lets one node in.

SIGTERM and SIGINT stop it: clients are answered, a checkpoint is written, the log is synced.
A second signal ends it at once; what was acknowledged is safe in the log.")]
    Start(StartArgs),
    /// Tell what the running node does.
    #[command(after_help = "\
Examples:
  archipel node status
  archipel node status --port-offset 10
  archipel node status --json | jq .commands")]
    Status,
}

/// How a node becomes a member of a cluster.
#[derive(Args, Clone, Debug, Default)]
pub struct StartArgs {
    /// Be a member of a cluster: the first of a new one, with the data of this node, if it is in none
    /// (`cluster.enabled`).
    #[arg(long)]
    pub cluster: bool,
    /// Join the cluster that this token is of; the data directory must be empty.
    #[arg(long, value_name = "TOKEN")]
    pub join: Option<String>,
    /// Look for the cluster with this id in the overlay (`p2p.enabled`, `p2p.peers`), and join where its members are now: the
    /// token says where they were. They publish it with `cluster.rendezvous`.
    #[arg(long, value_name = "CLUSTER-ID", requires = "join", value_parser = cluster_id)]
    pub find: Option<ClusterId>,
    /// What fails together with this node (`cluster.zone`).
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// Take the place of the node that runs on this data directory, if one does: it stops, and its proxy serves until this one
    /// does, so that no request is lost.
    #[arg(long, conflicts_with_all = ["join", "cluster"])]
    pub take_over: bool,
    /// Stop when stdin ends, as it does with the process that started this one.
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
}

impl StartArgs {
    /// The flags that are settings: with dashes, the setting, the value.
    pub fn settings(&self) -> Vec<(String, String, String)> {
        let flag = |flag: &str, key: &str, value: &str| (flag.to_owned(), key.to_owned(), value.to_owned());
        let mut all = Vec::new();
        if self.cluster {
            all.push(flag("--cluster", "cluster.enabled", "true"));
        }
        if self.join.is_some() {
            all.push(flag("--join", "cluster.enabled", "true"));
        }
        if self.find.is_some() {
            all.push(flag("--find", "p2p.enabled", "true"));
        }
        all.extend(self.zone.iter().map(|zone| flag("--zone", "cluster.zone", zone)));
        all
    }
}

/// A cluster's id, as `archipel cluster status` prints it.
fn cluster_id(text: &str) -> Result<ClusterId, String> {
    let wrong = || {
        format!(
            "{text:?} is no cluster's id: it has 32 hexadecimal digits, as `archipel cluster status` prints it"
        )
    };
    let digits =
        Some(text).filter(|text| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let number = digits.and_then(|digits| u128::from_str_radix(digits, 16).ok()).ok_or_else(wrong)?;
    Ok(ClusterId(number.to_be_bytes()))
}

/// What is done with keys.
#[derive(Subcommand, Clone, Debug)]
pub enum StorageCommand {
    /// Print a key's value: a line for each element, pairs with a tab between them.
    #[command(after_help = "\
Examples:
  archipel storage get greeting
  archipel storage get --db 3 cart:7 --json

Exit code 1 if there is no such key.")]
    Get {
        /// The keyspace.
        #[arg(long, default_value_t = 0, value_name = "N")]
        db: u16,
        /// The key.
        key: String,
    },
    /// Set a key to a string.
    #[command(after_help = "\
Examples:
  archipel storage set greeting hello
  archipel storage set session:7 - --ttl-ms 60000 < session.bin")]
    Set {
        /// The keyspace.
        #[arg(long, default_value_t = 0, value_name = "N")]
        db: u16,
        /// The key.
        key: String,
        /// The value; `-` reads it from stdin.
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// Milliseconds after which it expires.
        #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
        ttl_ms: Option<u64>,
    },
    /// Delete keys and print how many there were.
    #[command(after_help = "\
Examples:
  archipel storage del greeting session:7")]
    Del {
        /// The keyspace.
        #[arg(long, default_value_t = 0, value_name = "N")]
        db: u16,
        /// The keys.
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Print keys, one a line, in no order.
    #[command(after_help = "\
Examples:
  archipel storage scan
  archipel storage scan --match 'session:*' --limit 10 --json")]
    Scan {
        /// The keyspace.
        #[arg(long, default_value_t = 0, value_name = "N")]
        db: u16,
        /// Only keys like this, as in Redis's SCAN.
        #[arg(long = "match", value_name = "PATTERN")]
        pattern: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
    /// Write keys with type, expiry and value to a file, one JSON object a line.
    #[command(after_help = "\
Examples:
  archipel storage export backup.ndjson
  archipel storage export --db 3 --match 'user:*' users.ndjson
  archipel storage export | gzip > backup.ndjson.gz

Keys that change meanwhile are read as they were before or after. Large collections take several
lines. Bytes that are not UTF-8 are written as {\"base64\": \"...\"}.")]
    Export {
        /// One keyspace; all without it.
        #[arg(long, value_name = "N")]
        db: Option<u16>,
        /// Only keys like this, as in Redis's SCAN.
        #[arg(long = "match", value_name = "PATTERN")]
        pattern: Option<String>,
        /// The file; stdout without one or with `-`.
        file: Option<PathBuf>,
    },
    /// Put the keys of a file, or of a live Redis, into the node. Keys that are there are replaced.
    #[command(after_help = "\
Examples:
  archipel storage import backup.ndjson
  gunzip < backup.ndjson.gz | archipel storage import -
  archipel storage import --from redis://127.0.0.1:6380
  archipel storage import --from redis://:password@old-server:6379/0

A live Redis is read with SCAN and reads by type; it needs no DUMP and is not changed.")]
    Import {
        /// The file; `-` is stdin.
        #[arg(required_unless_present = "from", conflicts_with = "from")]
        file: Option<PathBuf>,
        /// A live Redis: redis://[user][:password]@host[:port][/db]
        #[arg(long, value_name = "URL")]
        from: Option<String>,
    },
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

/// What is done with claims.
#[derive(Subcommand, Clone, Debug)]
pub enum LabCommand {
    /// Print every claim: what it says, and who said so.
    #[command(after_help = "\
Examples:
  archipel lab list
  archipel lab list --json | jq -r '.claims[].name'")]
    List,
    /// Measure a claim and its negative control, and judge both.
    #[command(after_help = "\
Examples:
  archipel lab run flood
  archipel lab run flood --nodes 100000 --degree 8 --seed 7 --json
  archipel lab run flood --svg flood.svg
  archipel lab run flood --help             the parameters of this claim

The same seed and parameters give the same figures and trace hash on every machine.
Exit codes: 0 it holds, 1 it fails, 2 usage, 3 not judged, because the control was not caught.")]
    Run {
        /// The claim's name, then its parameters.
        #[arg(required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
        #[arg(value_name = "NAME [--PARAMETER VALUE]")]
        words: Vec<String>,
    },
    /// Run every claim and write one page of HTML that needs nothing else.
    #[command(after_help = "\
Examples:
  archipel lab report --out lab.html
  archipel lab report --small --json")]
    Report {
        /// The file; stdout without one.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Decides everything that is drawn.
        #[arg(long, default_value_t = 1, value_name = "N")]
        seed: u64,
        /// In the size of a test: seconds instead of minutes.
        #[arg(long)]
        small: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// The lines of a verb's help and of those below it that would be broken where nobody meant it.
    fn ragged(of: &clap::Command, found: &mut Vec<String>) {
        let help = of.get_after_help().map(ToString::to_string).unwrap_or_default();
        let long = help.lines().filter(|line| line.chars().count() > HELP_COLUMNS_MAX);
        found.extend(long.map(|line| format!("{}: {line}", of.get_name())));
        of.get_subcommands().for_each(|verb| ragged(verb, found));
    }

    #[test]
    fn no_line_of_a_help_is_wrapped_on_a_wide_terminal() {
        let mut found = Vec::new();
        ragged(&Root::command(), &mut found);
        assert!(found.is_empty(), "{found:#?}");
        let wide = clap::Command::new("wide").after_help("x".repeat(HELP_COLUMNS_MAX + 1));
        ragged(&clap::Command::new("all").subcommand(wide), &mut found);
        assert_eq!(found.len(), 1);
    }
}
