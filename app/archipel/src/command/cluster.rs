//! Verbs on a cluster, its keyspaces and its users.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use server::PARTITIONS_MAX;

/// What is done with a cluster.
#[derive(Subcommand, Clone, Debug)]
pub enum ClusterCommand {
    /// Print a token that lets one node in.
    #[command(after_help = "\
Examples:
  archipel cluster token
  archipel cluster token --expires 1h
  archipel node start --join \"$(archipel cluster token)\" --data-dir ./second --port-offset 10

It is used up by the first node that joins with it. The member that made it must be there; it may
have been started again meanwhile.")]
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

A node is named by the beginning of its id, as `archipel cluster members` prints it. Its key is
never accepted again; the machine joins anew with an empty data directory.")]
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
    /// Make, change or drop keyspaces while the cluster runs.
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
  archipel cluster backup /backups/shop --every 30s --keep 2880      a day, to half a minute

A keyspace is backed up as it was at one moment, whatever it is divided into: its leaders propose
nothing for a few milliseconds, while they say how far they are, so writers may wait so long, and
no command fails. A write that was sent after another was acknowledged is there only with that one.
The backup has all that was acknowledged when it began. With --loose each partition of a divided
keyspace is as it was at a moment of its own, and nobody waits.

A node backs up the partitions of which it has a copy: name the admin ports of other members with
--also, so that each partition's leader is asked; those of other machines are reached through a
tunnel. Without the leader of a keyspace of one partition it is taken from another copy, may lack
the last moments, and that is said. Users and settings are not part of it.

A member that gives no answer is named, and the backup is made of what the others have: it fails
only if a partition, or its entries, cannot be had from them.

With --every it goes on until Ctrl-C: each round is a backup of its own, which reads only partitions
that have changed, those as a whole, and writes what is new in them, and all entries of the log
since the round before: restore --to brings any moment in between back. Nodes keep their log from
one round to the next for it, storage.archived_log_bytes at most; beyond that, or if the command
does not come back within three rounds, the next backup is whole, but has a gap before it, which is
said. Idle partitions of a cluster are awake for some seconds after each round. A round that fails
is tried again, ten times in a row at most; a first round that fails ends the command.

Exit code 1 if a partition is missing, a divided keyspace could not be held at one moment, or the
backup was interrupted: then there is no such backup.")]
    Backup {
        /// The directory of the backups; made if it is not there.
        dir: PathBuf,
        /// The admin port of another member.
        #[arg(long, value_name = "HOST:PORT")]
        also: Vec<SocketAddr>,
        /// Make one again and again, this long after the beginning of the one before, such as 30s or 5m.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        every: Option<Duration>,
        /// Keep only so many of the last backups, and remove older ones.
        #[arg(long, value_name = "N")]
        keep: Option<NonZeroU32>,
        /// Each partition of a divided keyspace at a moment of its own.
        #[arg(long)]
        loose: bool,
    },
    /// Make a new data directory out of a backup, or check one.
    #[command(after_help = "\
Examples:
  archipel cluster restore /backups/shop --data-dir ./new
  archipel cluster restore /backups/shop --list
  archipel cluster restore /backups/shop --verify --number 3
  archipel cluster restore /backups/shop --to 2026-01-31T12:00:00Z --data-dir ./new
  archipel cluster restore /backups/shop --to \"10m ago\" --data-dir ./new
  archipel node start --data-dir ./new                  a node of its own
  archipel node start --data-dir ./new --cluster        the first member of a new cluster

The data directory must be empty or not there. What was backed up comes back with types, expiries,
scripts and keyspaces; keys that have expired since then expire. --to brings a moment back, to the
millisecond: the newest backup before it, and the entries of those behind it, up to the last that
was stamped by then, by the clock of each partition's leader; how far those clocks differed is said.
A moment in a gap between two backups is refused, and one behind the last is that backup. With
--consistent it is the newest backup before the moment, which is consistent over partitions, and it
is said how long before it was. Keyspaces that the node's configuration does not name are served as
they are divided in the backup. A keyspace with more partitions than a node serves is refused. It is
made in a directory beside it, .NAME.restoring, which goes if it fails; what is left of one that was
killed goes with the next to the same place.
--verify reads every byte, of entries too, and restores nothing; damage is named by file and place,
with exit code 1. It replays the entries, in the directory for temporary files (TMPDIR), from the
backup before if there is one: where they come to a checkpoint it must be what they make. What was
compared so is said; entries behind the last checkpoint are replayed, and compared with nothing.")]
    Restore {
        /// The directory of the backups.
        dir: PathBuf,
        /// Which of them; the last one without it.
        #[arg(long, value_name = "N")]
        number: Option<u64>,
        /// Everything up to this moment: 2026-01-31T12:00:00Z, seconds since 1970, or `10m ago`.
        #[arg(long, value_name = "TIME", conflicts_with = "number")]
        to: Option<String>,
        /// The newest backup with nothing from after that moment, as it is.
        #[arg(long, requires = "to")]
        consistent: bool,
        /// Print the backups.
        #[arg(long, conflicts_with_all = ["verify", "number", "to"])]
        list: bool,
        /// Read and replay everything, and restore nothing.
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

Only if more than half of the members that vote will never come back: else start them. Run it on the
directory of a stopped member; of several, on the one whose --dry-run shows the latest writes. Copy
the directory first. What this member has becomes the truth, with what it does not know to be agreed
on; what others acknowledged without it is lost, and partitions that it has no copy of begin empty.
The cluster gets a new id and the other members are removed for ever: wipe their directories and let
them join anew.")]
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

The nodes have a configuration and directories of their own, so --config, --set and --data-dir are
refused; the first has the ports at --port-offset, or the next that are free. Each node is a process
of its own: kill one with the command that is printed, see that nothing is lost, and start it again
with the other. What is started by hand is not stopped by Ctrl-C here.")]
    Dev {
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
        nodes: u16,
        /// Where the nodes keep their data; kept at the end. Without it, in a new directory that is removed.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

fn partitions_help() -> String {
    format!("Into how many partitions its keys are divided, 1 to {PARTITIONS_MAX}; never changes")
}

/// What is done with a keyspace of a cluster.
#[derive(Subcommand, Clone, Debug)]
pub enum KeyspaceCommand {
    /// Make a keyspace; its partitions are placed on the members at once.
    #[command(after_help = "\
Examples:
  archipel cluster keyspace create 20 --name orders
  archipel cluster keyspace create 21 --name cache --partitions 64 --memory 1073741824")]
    Create {
        /// Its number, for SELECT.
        id: u16,
        /// Into how many partitions its keys are divided.
        #[arg(long, value_name = "N", help = partitions_help())]
        partitions: Option<u16>,
        /// What it is.
        #[command(flatten)]
        settings: KeyspaceArgs,
    },
    /// Delete a keyspace and all its data, at all members.
    #[command(after_help = "\
Examples:
  archipel cluster keyspace drop orders                 says what would go
  archipel cluster keyspace drop orders --yes orders

There is no way back but a backup. Clients that are in it are told that it was dropped, and SELECT
of it is refused; clients that wait there, as with BLPOP, are answered -UNBLOCKED; what is on its
way at that moment may be answered and is gone. Its number can be given to another keyspace, which
begins empty. Keyspace 0, in which all clients begin, stays. The audit trail says who asked.")]
    Drop {
        /// Its name, as `archipel cluster status` shows it.
        name: String,
        /// Its name once more, to be sure.
        #[arg(long, value_name = "NAME")]
        yes: Option<String>,
    },
    /// Change a keyspace. Copies are made or removed one after the other, never below what is promised.
    #[command(after_help = "\
Examples:
  archipel cluster keyspace alter 0 --copies 5
  archipel cluster keyspace alter 3 --durability everysec
  archipel cluster keyspace alter 4 --reads any --stale-ms-max 2000
  archipel cluster keyspace alter 5 --reads lease
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
    /// Who answers reads: the `leader`, who asks a majority, so that they are linearizable unless a client says READONLY;
    /// the leader by its `lease`, which asks nobody and rests on clocks that run about as fast as each other; or `any` copy.
    #[arg(long, value_name = "WHO", value_parser = ["leader", "lease", "any"])]
    pub reads: Option<String>,
    /// How far behind a copy that answers reads may be, in milliseconds; 0 for any age.
    #[arg(long, value_name = "MS")]
    pub stale_ms_max: Option<u32>,
}

/// What is done with a user of a cluster.
#[derive(Subcommand, Clone, Debug)]
pub enum UserCommand {
    /// Make a user, or give one another password, which is read from stdin. Who is in with the old one is cut.
    #[command(after_help = "\
Examples:
  archipel cluster user set ann < password.txt
  printf %s \"$PASSWORD\" | archipel cluster user set default

The first user closes the cluster: from then on everyone enters with a name and a password. The
cluster keeps the password's SHA-256 and never itself, so choose one that cannot be guessed. A
member that is cut off or was away goes on with the users that it knows until it hears of the
others.")]
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
pub fn duration(text: &str) -> Result<Duration, String> {
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
