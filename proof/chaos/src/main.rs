//! The `chaos` command: one campaign of faults.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chaos::campaign::{Report, Setting};
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

#[derive(Clone, Copy, ValueEnum)]
enum Durability {
    Always,
    Everysec,
}

type Campaign = fn(&Setting, &mut dyn FnMut(&str)) -> Report;

fn main() -> ExitCode {
    let root = Root::parse();
    let (run, options): (Campaign, _) = match root.fault {
        Fault::Kill(options) => (chaos::kill::run, options),
        Fault::PowerCut(options) => (chaos::power_cut::run, options),
        Fault::FullDisk(options) => (chaos::full_disk::run, options),
        Fault::BitFlip(options) => (chaos::bit_flip::run, options),
    };
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
    let setting = Setting { binary, seed, rounds: options.rounds, durability };
    let report = run(&setting, &mut |line| eprintln!("{line}"));
    if options.json {
        println!("{}", report.json());
    } else {
        println!("{}", report.text());
    }
    ExitCode::from(report.exit_code())
}
