//! The command line: verbs on nouns.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

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

It looks at limits, memory settings, the clock, the ports and the data directory, and measures how fast
the disk syncs. Exit code 1 if something must be mended, 3 if something could not be judged.")]
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

A member of a cluster is started again without flags of the cluster: its data directory knows. A token is made by
`archipel cluster token` at any member and lets one node in.

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
    /// What fails together with this node (`cluster.zone`).
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
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
        all.extend(self.zone.iter().map(|zone| flag("--zone", "cluster.zone", zone)));
        all
    }
}

/// What is done with a cluster.
#[derive(Subcommand, Clone, Debug)]
pub enum ClusterCommand {
    /// Print a token that lets one node in.
    #[command(after_help = "\
Examples:
  archipel cluster token
  archipel cluster token --expires 1h
  archipel node start --join \"$(archipel cluster token)\" --data-dir ./second --port-offset 10

It is used up by the first node that joins with it. The member that made it must be there; it may have been started
again meanwhile.")]
    Token {
        /// For how long, such as 90s, 10m or 24h.
        #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
        expires: Duration,
    },
    /// Tell how the cluster is: members, leaders, and what is being moved.
    #[command(after_help = "\
Examples:
  archipel cluster status
  archipel cluster status --port-offset 10
  archipel cluster status --json | jq '.members[] | select(.health != \"alive\")'

Exit code 1 if a partition has no leader or a member does not answer.")]
    Status,
    /// Print the members, one a line.
    #[command(after_help = "\
Examples:
  archipel cluster members
  archipel cluster members --json | jq -r '.members[].node'")]
    Members,
    /// Have this node's data moved to the other members, so that it can be removed.
    #[command(after_help = "\
Examples:
  archipel cluster leave --port-offset 20
  archipel cluster status                   shows what still moves
  archipel cluster remove 12D3KooWJbJ")]
    Leave,
    /// Remove a member for ever. It must have no data left: have it leave first.
    #[command(after_help = "\
Examples:
  archipel cluster remove 12D3KooWJbJ
  archipel cluster remove JbJ9

A node is named by the beginning of its id, as `archipel cluster members` prints it. Its key is never accepted
again; the machine joins anew with an empty data directory.")]
    Remove {
        /// The beginning of its id, with or without 12D3KooW.
        node: String,
    },
    /// Have another member lead a partition.
    #[command(after_help = "\
Examples:
  archipel cluster move-leader 0 0 12D3KooWJbJ
  archipel cluster move-leader 1 63 JbJ9")]
    MoveLeader {
        /// The number of the keyspace.
        keyspace: u16,
        /// The number of the partition, from 0.
        partition: u16,
        /// The beginning of the node's id, with or without 12D3KooW.
        node: String,
    },
    /// Make or change keyspaces while the cluster runs.
    #[command(subcommand)]
    Keyspace(KeyspaceCommand),
    /// Make, change and remove users, who may enter at every member.
    #[command(subcommand)]
    User(UserCommand),
    /// Print what was asked of the cluster lately: when, by whom, and what came of it.
    #[command(after_help = "\
Examples:
  archipel cluster audit
  archipel cluster audit --json | jq '.operations[] | select(.refused)'

Steps of moves are operations too: admin asks for what people ask for, and plan for what follows.")]
    Audit,
    /// Make a backup of a running node or cluster; what an earlier one in the directory has is not written again.
    #[command(after_help = "\
Examples:
  archipel cluster backup /backups/shop
  archipel cluster backup /backups/shop --also 127.0.0.1:7410 --also 127.0.0.1:7420
  archipel cluster backup /backups/shop --json | jq .number

Each partition is backed up as it was at exactly one entry of its log, so a keyspace of one partition, which is any of
Redis's databases, is consistent as a whole; of a divided keyspace each partition is, at its own entry, and a client that
writes to two partitions while the backup begins may find one write in it and not the other. From the partition's leader
the backup has all that was acknowledged when it began, unless that node was cut off and did not know it yet; from
another copy it may lack the last moments, and that is said.
A node backs up the partitions of which it has a copy: name the admin ports of other members with --also to take each
partition from its leader, or if this node has no copy of some; those of other machines are reached through a tunnel.
Users and settings are not part of it.

Exit code 1 if a partition is missing or the backup was interrupted: then there is no such backup.")]
    Backup {
        /// The directory of the backups; made if it is not there.
        dir: PathBuf,
        /// The admin port of another member.
        #[arg(long, value_name = "HOST:PORT")]
        also: Vec<SocketAddr>,
    },
    /// Make a new data directory out of a backup, or check one.
    #[command(after_help = "\
Examples:
  archipel cluster restore /backups/shop --data-dir ./new
  archipel cluster restore /backups/shop --list
  archipel cluster restore /backups/shop --verify --number 3
  archipel node start --data-dir ./new                  a node of its own
  archipel node start --data-dir ./new --cluster        the first member of a new cluster; others join it

The data directory must be empty or not there. What was backed up comes back with types, expiries, scripts and
keyspaces; keys that have expired since then expire. --verify reads every byte and restores nothing; damage is named by
file and place, with exit code 1.")]
    Restore {
        /// The directory of the backups.
        dir: PathBuf,
        /// Which of them; the last one without it.
        #[arg(long, value_name = "N")]
        number: Option<u64>,
        /// Print the backups.
        #[arg(long, conflicts_with_all = ["verify", "number"])]
        list: bool,
        /// Check everything and restore nothing.
        #[arg(long)]
        verify: bool,
    },
    /// Make a stopped member a cluster of its own, when the majority is lost for good.
    #[command(after_help = "\
Examples:
  archipel cluster recover --data-dir /var/lib/archipel --dry-run
  archipel cluster recover --data-dir /var/lib/archipel --confirm 9f1c8e0d52b7a64e3a91c0d7f4b2e685
  archipel node start --data-dir /var/lib/archipel
  archipel node start --join \"$(archipel cluster token)\" --data-dir ./new --port-offset 10

Only if more than half of the members that vote will never come back: else start them. Run it on the directory of a
stopped member; of several, on the one whose --dry-run shows the latest writes. Copy the directory first. What this member
has becomes the truth, with what it does not know to be agreed on; what others acknowledged without it is lost, and
partitions that it has no copy of begin empty. The cluster gets a new id and the other members are removed for ever: wipe
their directories and let them join anew.")]
    Recover {
        /// Show what is there and what may be lost, and change nothing.
        #[arg(long, conflicts_with = "confirm")]
        dry_run: bool,
        /// The id of the cluster that is given up, as --dry-run prints it.
        #[arg(long, value_name = "CLUSTER")]
        confirm: Option<String>,
        /// Although a majority of the other members seems to answer.
        #[arg(long)]
        even_if_others_answer: bool,
    },
    /// Run a throw-away cluster on this machine until Ctrl-C.
    #[command(after_help = "\
Examples:
  archipel cluster dev
  archipel cluster dev --nodes 5
  archipel cluster dev --dir ./playground   keeps the data

Each node is a process of its own: kill one with the command that is printed, see that nothing is lost, and start it
again with the other. What is started by hand is not stopped by Ctrl-C here.")]
    Dev {
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
        nodes: u16,
        /// Where the nodes keep their data; kept at the end. Without it, in a new directory that is removed.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// What is done with a keyspace of a cluster.
#[derive(Subcommand, Clone, Debug)]
pub enum KeyspaceCommand {
    /// Make a keyspace; its partitions are placed on the members at once.
    #[command(after_help = "\
Examples:
  archipel cluster keyspace create 20 --name orders
  archipel cluster keyspace create 21 --name cache --partitions 64 --durability everysec --memory 1073741824")]
    Create {
        /// Its number, for SELECT.
        id: u16,
        /// Into how many partitions its keys are divided; never changes.
        #[arg(long, value_name = "N")]
        partitions: Option<u16>,
        /// What it is.
        #[command(flatten)]
        settings: KeyspaceArgs,
    },
    /// Change a keyspace. Copies are made or removed one after the other, never below what is promised.
    #[command(after_help = "\
Examples:
  archipel cluster keyspace alter 0 --copies 5
  archipel cluster keyspace alter 3 --durability everysec
  archipel cluster status                   shows what still moves")]
    Alter {
        /// Its number.
        id: u16,
        /// What is to change.
        #[command(flatten)]
        settings: KeyspaceArgs,
    },
}

/// What can be set of a keyspace that exists; what is not said stays.
#[derive(Args, Clone, Debug, Default)]
pub struct KeyspaceArgs {
    /// What it is called.
    #[arg(long)]
    pub name: Option<String>,
    /// Copies of each partition, as far as there are members.
    #[arg(long, value_name = "N")]
    pub copies: Option<u8>,
    /// When a write counts: `always` once a majority has it on disk, or `everysec`.
    #[arg(long, value_name = "WHEN", value_parser = ["always", "everysec"])]
    pub durability: Option<String>,
    /// Bytes that it may use on each node; 0 for no limit.
    #[arg(long, value_name = "BYTES")]
    pub memory: Option<u64>,
    /// What happens at that limit: `noeviction`, `allkeys-lru` and so on, as in Redis.
    #[arg(long, value_name = "POLICY")]
    pub eviction: Option<String>,
}

/// What is done with a user of a cluster.
#[derive(Subcommand, Clone, Debug)]
pub enum UserCommand {
    /// Make a user, or give one another password, which is read from stdin. Who is in with the old one is cut.
    #[command(after_help = "\
Examples:
  archipel cluster user set ann < password.txt
  printf %s \"$PASSWORD\" | archipel cluster user set default

The first user closes the cluster: from then on everyone enters with a name and a password. The cluster keeps the
password's SHA-256 and never itself, so choose one that cannot be guessed. A member that is cut off or was away goes on
with the users that it knows until it hears of the others.")]
    Set {
        /// Their name; `default` is who gives none.
        name: String,
    },
    /// Remove a user. Who is in under that name is cut.
    Remove {
        /// Their name.
        name: String,
    },
    /// Print the names of the cluster's users.
    List,
}

/// A time such as `90s`, `10m` or `24h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write it as 90s, 10m or 24h".to_owned();
    let (digits, seconds) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    count.checked_mul(seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or_else(wrong)
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

Keys that change meanwhile are read as they were before or after. Large collections take several lines.
Bytes that are not UTF-8 are written as {\"base64\": \"...\"}.")]
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

/// What is done with the overlay.
#[derive(Subcommand, Clone, Debug)]
pub enum P2pCommand {
    /// Print the node's peer id and its addresses.
    #[command(after_help = "\
Examples:
  archipel node start --set p2p.enabled=true
  archipel p2p id")]
    Id,
    /// Print whom the node is connected to and what it knows.
    #[command(after_help = "\
Examples:
  archipel p2p peers
  archipel p2p peers --json | jq .contacts")]
    Peers,
    /// Measure a round trip to a connected peer.
    #[command(after_help = "\
Examples:
  archipel p2p ping 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")]
    Ping {
        /// The peer's id.
        peer: String,
    },
    /// Connect to a peer; one that serves the hash table becomes a contact.
    #[command(after_help = "\
Examples:
  archipel p2p connect /ip4/127.0.0.1/tcp/7412
  archipel p2p connect /ip4/192.0.2.7/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")]
    Connect {
        /// Where it is, and perhaps who.
        address: String,
    },
    /// Close the connections to a peer.
    #[command(after_help = "\
Examples:
  archipel p2p disconnect 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")]
    Disconnect {
        /// The peer's id.
        peer: String,
    },
    /// Find a peer, and the nodes nearest to its place.
    #[command(after_help = "\
Examples:
  archipel p2p find 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA

Exit code 1 if the peer itself is not found.")]
    Find {
        /// The peer's id.
        peer: String,
    },
    /// Print the value of a name.
    #[command(after_help = "\
Examples:
  archipel p2p get menu
  archipel p2p get /archipel/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/menu

Exit code 1 if no valid value is found.")]
    Get {
        /// A label of this node, /archipel/PEER/LABEL, or /pk/HASH.
        name: String,
    },
    /// Publish a value under a label of this node, signed with its key.
    #[command(after_help = "\
Examples:
  archipel p2p put menu 'soup of the day'
  archipel p2p put menu - < menu.json

The node sends it again twice a day while it runs. The name that others get it by is printed.")]
    Put {
        /// The label, or /pk/HASH for a public key.
        name: String,
        /// The value; `-` reads it from stdin.
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// Seconds after which it is not valid any more.
        #[arg(long, value_name = "N", default_value_t = 604_800, value_parser = clap::value_parser!(u64).range(1..))]
        lifetime_seconds: u64,
    },
    /// Let this node be found as a provider of content.
    #[command(after_help = "\
Examples:
  archipel p2p provide bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku
  archipel p2p provide 'a file by any name'")]
    Provide {
        /// A CID, or any text, whose SHA-256 is then the content's name.
        name: String,
    },
    /// Print who provides content.
    #[command(after_help = "\
Examples:
  archipel p2p providers bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku

Exit code 1 if nobody is found.")]
    Providers {
        /// A CID, or any text, whose SHA-256 is then the content's name.
        name: String,
    },
    /// Show each question of a lookup with its time, and how many leading bits the peer asked shares with the key.
    #[command(after_help = "\
Examples:
  archipel p2p trace menu
  archipel p2p trace --what node 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA
  archipel p2p trace --what providers 'a file by any name' --json")]
    Trace {
        /// What is looked for.
        name: String,
        /// As what it is looked for.
        #[arg(long, value_enum, default_value_t = TraceWhat::Value)]
        what: TraceWhat,
    },
}

/// What a traced lookup looks for.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum TraceWhat {
    /// The value of a name.
    Value,
    /// A peer.
    Node,
    /// The providers of content.
    Providers,
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
    use super::*;

    #[test]
    fn a_time_is_a_number_and_its_unit() {
        let table = [
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("24h", Some(86_400)),
            ("0s", None),
            ("10", None),
            ("m", None),
            ("", None),
            ("-1m", None),
            ("1\u{e9}", None),
            ("18446744073709551615h", None),
        ];
        for (text, expected) in table {
            assert_eq!(duration(text).ok(), expected.map(Duration::from_secs), "{text:?}");
        }
    }
}
