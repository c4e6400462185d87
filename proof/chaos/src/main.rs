//! The `chaos` command: one campaign of faults.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chaos::campaign::{Report, Setting};
use chaos::cluster::{self, discovery, rolling};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Faults on the real archipel binary, judged by what its clients were told.
///
/// Exit codes: 0 it holds, 1 it fails, 2 usage, 3 not judged.
#[derive(Parser)]
#[command(name = "chaos")]
struct Root {
    #[command(subcommand)]
    fault: Fault,
}

#[derive(Subcommand)]
enum Fault {
    /// kill -9 under load.
    Kill(Options),
    /// Cuts the power of a disk under load (ext4 on a loop device; needs root).
    PowerCut(Options),
    /// Fills the disk under load (tmpfs; needs root).
    FullDisk(Options),
    /// Flips one bit of a stopped node's files.
    BitFlip(Options),
    /// kill -9, SIGSTOP, cuts, loss and delay in a cluster on hosts of its own (network namespaces; needs root).
    Cluster(ClusterOptions),
    /// Restarts each node of a cluster in turn under load (network namespaces; needs root).
    Rolling(RollingOptions),
    /// Cuts a cluster in two while services are registered and found (network namespaces; needs root).
    Discovery(DiscoveryOptions),
}

#[derive(Args)]
struct Options {
    /// How often.
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// What decides commands and moments; a new one if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// When writes are acknowledged.
    #[arg(long, value_enum, default_value = "always")]
    durability: Durability,
    /// The binary; by default the one beside this program.
    #[arg(long, env = "ARCHIPEL_BINARY")]
    binary: Option<PathBuf>,
    /// The report as one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ClusterOptions {
    #[command(flatten)]
    common: Options,
    /// Nodes.
    #[arg(long, default_value_t = cluster::NODES as u64, value_parser = clap::value_parser!(u64).range(cluster::NODES_ALLOWED))]
    nodes: u64,
    /// One short fault a round.
    #[arg(long)]
    short: bool,
    /// Begin with this round of the seed.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    from: u64,
    /// Spoil the last round, so that the judge must find it.
    #[arg(long, value_enum)]
    plant: Option<Planted>,
}

#[derive(Args)]
struct RollingOptions {
    #[command(flatten)]
    common: Options,
    /// Nodes.
    #[arg(long, default_value_t = cluster::NODES as u64, value_parser = clap::value_parser!(u64).range(cluster::NODES_ALLOWED))]
    nodes: u64,
    /// What the cluster runs before: another version of the binary.
    #[arg(long)]
    old_binary: Option<PathBuf>,
}

#[derive(Args)]
struct DiscoveryOptions {
    #[command(flatten)]
    common: Options,
    /// Nodes.
    #[arg(long, default_value_t = cluster::NODES as u64, value_parser = clap::value_parser!(u64).range(cluster::NODES_ALLOWED))]
    nodes: u64,
    /// Let everything through the last cut, so that the judge must find it.
    #[arg(long)]
    leak: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Planted {
    /// A client claims a write that was never sent.
    Claim,
    /// All nodes' data is exchanged for an older copy.
    Rollback,
}

#[derive(Clone, Copy, ValueEnum)]
enum Durability {
    Always,
    Everysec,
}

type Campaign = Box<dyn FnOnce(&Setting, &mut dyn FnMut(&str)) -> Report>;

/// The campaign, what all campaigns are told, and the words that only this one is told.
fn chosen(fault: Fault) -> (Campaign, Options, String) {
    match fault {
        Fault::Kill(options) => (Box::new(chaos::kill::run), options, String::new()),
        Fault::PowerCut(options) => (Box::new(chaos::power_cut::run), options, String::new()),
        Fault::FullDisk(options) => (Box::new(chaos::full_disk::run), options, String::new()),
        Fault::BitFlip(options) => (Box::new(chaos::bit_flip::run), options, String::new()),
        Fault::Cluster(ClusterOptions { common, nodes, short, from, plant }) => {
            let words = format!(" --nodes {nodes} --from {from}{}", if short { " --short" } else { "" });
            let plant = plant.map(|plant| match plant {
                Planted::Claim => cluster::Plant::Claim,
                Planted::Rollback => cluster::Plant::Rollback,
            });
            let length = if short { cluster::Length::Short } else { cluster::Length::Full };
            let more = cluster::Options { nodes: nodes as usize, length, from, plant };
            let run = move |setting: &Setting, progress: &mut dyn FnMut(&str)| {
                cluster::run(setting, &more, progress)
            };
            (Box::new(run), common, words)
        }
        Fault::Rolling(RollingOptions { common, nodes, old_binary }) => {
            let old = old_binary.as_ref().map(|path| format!(" --old-binary {}", path.display()));
            let words = format!(" --nodes {nodes}{}", old.unwrap_or_default());
            let more = rolling::Options { nodes: nodes as usize, old_binary };
            let run = move |setting: &Setting, progress: &mut dyn FnMut(&str)| {
                rolling::run(setting, &more, progress)
            };
            (Box::new(run), common, words)
        }
        Fault::Discovery(DiscoveryOptions { common, nodes, leak }) => {
            let words = format!(" --nodes {nodes}{}", if leak { " --leak" } else { "" });
            let more = discovery::Options { nodes: nodes as usize, leak };
            let run = move |setting: &Setting, progress: &mut dyn FnMut(&str)| {
                discovery::run(setting, &more, progress)
            };
            (Box::new(run), common, words)
        }
    }
}

fn main() -> ExitCode {
    let (run, options, words) = chosen(Root::parse().fault);
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(|dir| dir.join("archipel")));
    let binary = options.binary.or(beside).unwrap_or_default();
    if !Path::is_file(&binary) {
        eprintln!(
            "chaos: there is no binary {}; build it with `cargo build --release -p archipel`, or name one with --binary",
            binary.display()
        );
        return ExitCode::from(2);
    }
    let durability = match options.durability {
        Durability::Always => "always",
        Durability::Everysec => "everysec",
    };
    let seed = options.seed.unwrap_or_else(|| u64::from(std::process::id()) * 1_000_003 % 1_000_000);
    eprintln!("seed {seed}");
    let setting = Setting { binary, seed, rounds: options.rounds, durability, words };
    let report = run(&setting, &mut |line| eprintln!("{line}"));
    if options.json {
        println!("{}", report.json());
    } else {
        println!("{}", report.text());
    }
    ExitCode::from(report.exit_code())
}
