//! `cargo xtask bench`: the promises about speed and memory, measured and judged against their bars.
//!
//! Wall-clock figures live here and never in a test. Peer and node run in turn, A B A B, on the machine
//! at hand, with the same promise about durability; a ratio is the median of the ratios of the pairs.
//! Exit codes: 0 every bar holds, 1 one does not, 2 usage, 3 not judged.

mod cluster;
mod etcd;
mod fabric;
mod kad;
mod larger;
mod load;
mod memory;
mod mesh;
mod process;
mod proxy;
mod redis;
mod report;

use crate::{packages, suite};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Above this load at the start, figures would be about the neighbours.
const LOAD_AVERAGE_MAX: f64 = 1.5;

/// What every bench can be told.
#[derive(Args, Clone)]
pub struct BenchArgs {
    #[command(subcommand)]
    bench: Bench,
    /// Print one JSON object on stdout, with the figures of every round.
    #[arg(long, global = true)]
    json: bool,
    /// Rounds; the medians are over them.
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=101))]
    rounds: Option<u32>,
    /// One round on a tenth of the work: shows that it runs, and judges nothing.
    #[arg(long, global = true)]
    quick: bool,
    /// Judge although the machine is busy.
    #[arg(long, global = true)]
    force: bool,
    /// Run only the works whose name contains this.
    #[arg(long, global = true, value_name = "TEXT")]
    work: Option<String>,
    /// The node's binary, or for `fabric` that of `bench/fabric`; built in release mode if not given.
    #[arg(long, global = true, value_name = "PATH")]
    binary: Option<PathBuf>,
}

#[derive(Subcommand, Clone, Copy)]
enum Bench {
    /// Speed and CPU per operation beside Debian's redis-server, with redis-benchmark.
    Redis,
    /// Memory for a million keys beside redis-server, and how fast a restarted node is back.
    Memory,
    /// Data that is larger than its keyspace's memory budget.
    Larger,
    /// What a link between nodes costs, beside libp2p-stream and plain TCP.
    Fabric,
    /// Puts and linearizable gets of a cluster of three beside etcd.
    Etcd,
    /// A cluster of three beside our own single node: speed and CPU, idle, and when a node goes.
    Cluster {
        /// How often a node that leads is killed; it is stopped a quarter as often. The promise is about 50.
        #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
        kills: u32,
    },
    /// CPU for each request and latency of the proxy beside HAProxy and nginx.
    Proxy,
    /// The mesh with slow, failing and dying endpoints, changes under load, thousands of services, and idle and slow clients.
    ///
    /// `--work overload` asks a service for three times what it can do. The service answers in the order in which requests
    /// come to it: what of that is important only the proxy knows.
    Mesh,
    /// Lookups in an overlay of fifty processes beside libp2p-kad: speed, CPU and memory.
    Kad,
}

/// What a bench needs to know.
struct Setting {
    binary: PathBuf,
    rounds: u32,
    quick: bool,
    work: Option<String>,
    /// Data goes below the build's folder: a `/tmp` in memory would make every sync free.
    scratch: PathBuf,
}

impl Setting {
    fn scratch(&self) -> Result<tempfile::TempDir> {
        Ok(tempfile::tempdir_in(&self.scratch)?)
    }
}

/// Why there is no verdict: the machine, not the code.
#[derive(Debug)]
pub struct NotJudged(String);

impl fmt::Display for NotJudged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not judged: {}", self.0)
    }
}

impl std::error::Error for NotJudged {}

/// Runs one bench and prints its report.
pub fn run(root: &Path, args: &BenchArgs) -> Result<ExitCode> {
    let binary = match &args.binary {
        Some(path) => path.clone(),
        None if matches!(args.bench, Bench::Fabric) => fabric::build(root)?,
        // Its programs are examples, and not the node's.
        None if matches!(args.bench, Bench::Kad) => PathBuf::new(),
        None => suite::build(root)?,
    };
    let needed = match args.bench {
        Bench::Redis | Bench::Memory => Some("redis-server"),
        Bench::Cluster { .. } => Some("redis-benchmark"),
        Bench::Larger | Bench::Fabric | Bench::Etcd | Bench::Proxy | Bench::Mesh | Bench::Kad => None,
    };
    if let Some(program) = needed.filter(|program| !packages::works(&[program, "--version"])) {
        bail!(NotJudged(format!("there is no {program}; `cargo xtask setup` installs it")));
    }
    let load = process::load_average()?;
    if load > LOAD_AVERAGE_MAX && !args.force && !args.quick {
        let why = format!(
            "the load average is {load:.2}, more than {LOAD_AVERAGE_MAX}; wait, or judge anyway with --force"
        );
        bail!(NotJudged(why));
    }
    let usual = if matches!(args.bench, Bench::Redis | Bench::Mesh) { 5 } else { 3 };
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { usual });
    let scratch = suite::target_dir(root).join("bench");
    std::fs::create_dir_all(&scratch)?;
    let setting = Setting { binary, rounds, quick: args.quick, work: args.work.clone(), scratch };
    let mut report = match args.bench {
        Bench::Redis => redis::run(&setting)?,
        Bench::Memory => memory::run(&setting)?,
        Bench::Larger => larger::run(&setting)?,
        Bench::Fabric => fabric::run(&setting)?,
        Bench::Etcd => etcd::run(root, &setting)?,
        Bench::Cluster { kills } => cluster::run(&setting, kills)?,
        Bench::Proxy => proxy::run(&setting)?,
        Bench::Mesh => mesh::run(&setting)?,
        Bench::Kad => kad::run(root, &setting)?,
    };
    report.load_average = load;
    report.quick = args.quick;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    if args.quick {
        bail!(NotJudged("--quick shows that the bench runs, its figures are too short to judge".into()));
    }
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
