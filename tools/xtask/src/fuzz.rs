//! `cargo xtask fuzz`: builds a fuzz target on stable Rust and runs it for a time.
//!
//! The coverage that libFuzzer steers by comes from flags of the stable compiler, so that no nightly and no
//! other tool is needed. There is no address sanitizer this way; our code is without `unsafe`.

use crate::packages::run;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use std::path::Path;
use std::process::Command;

/// What to fuzz, and for how long.
#[derive(Args)]
pub struct FuzzArgs {
    /// The target; all of them, one after another, if not given.
    target: Option<Target>,
    /// How long each target runs.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
}

/// A file of `fuzz/targets`.
#[derive(Clone, Copy, ValueEnum)]
enum Target {
    Resp,
    Record,
    Archive,
    Checkpoint,
    Config,
    Kad,
    Chord,
    Frame,
    Consensus,
    Parcel,
    Transfer,
    Cluster,
    Consul,
    Dns,
    Http1,
    Hello,
    Proxied,
}

impl Target {
    const ALL: &[Target] = &[
        Target::Resp,
        Target::Record,
        Target::Archive,
        Target::Checkpoint,
        Target::Config,
        Target::Kad,
        Target::Chord,
        Target::Frame,
        Target::Consensus,
        Target::Parcel,
        Target::Transfer,
        Target::Cluster,
        Target::Consul,
        Target::Dns,
        Target::Http1,
        Target::Hello,
        Target::Proxied,
    ];

    const fn name(self) -> &'static str {
        match self {
            Target::Resp => "resp",
            Target::Record => "record",
            Target::Archive => "archive",
            Target::Checkpoint => "checkpoint",
            Target::Config => "config",
            Target::Kad => "kad",
            Target::Chord => "chord",
            Target::Frame => "frame",
            Target::Consensus => "consensus",
            Target::Parcel => "parcel",
            Target::Transfer => "transfer",
            Target::Cluster => "cluster",
            Target::Consul => "consul",
            Target::Dns => "dns",
            Target::Http1 => "http1",
            Target::Hello => "hello",
            Target::Proxied => "proxied",
        }
    }
}

/// Where the compiler runs; build scripts must not be built with the flags below, so it is named.
const TRIPLE: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

/// Coverage counters, the table of their places and the operands of comparisons, for libFuzzer.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Ccodegen-units=1",
    "--cfg",
    "fuzzing",
];

/// Longest input, in bytes.
const INPUT_BYTES_MAX: usize = 8192;

/// One input takes no longer.
const INPUT_SECONDS_MAX: u64 = 20;

/// Builds and runs; an error at the first finding, whose input is kept.
pub fn fuzz(root: &Path, args: &FuzzArgs) -> Result<()> {
    let home = root.join("fuzz");
    let targets = args.target.map_or_else(|| Target::ALL.to_vec(), |target| vec![target]);
    for &target in &targets {
        build(&home, target)?;
    }
    for &target in &targets {
        let name = target.name();
        let (corpus, findings) = (home.join("corpus").join(name), home.join("findings").join(name));
        for dir in [&corpus, &findings] {
            std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        let mut command = Command::new(home.join("target").join(TRIPLE).join("release").join(name));
        command.arg(&corpus);
        let seeds = home.join("seeds").join(name);
        if seeds.is_dir() {
            command.arg(seeds);
        }
        let words = home.join("words").join(name);
        if words.is_file() {
            command.arg(format!("-dict={}", words.display()));
        }
        command.arg(format!("-max_total_time={}", args.minutes * 60));
        command.args([format!("-max_len={INPUT_BYTES_MAX}"), format!("-timeout={INPUT_SECONDS_MAX}")]);
        command.arg(format!("-artifact_prefix={}/", findings.display()));
        command.args(["-print_final_stats=1", "-rss_limit_mb=4096"]);
        run(&mut command).with_context(|| format!("{name} found something; see {}", findings.display()))?;
        println!("{name}: {} minutes without a finding", args.minutes);
    }
    Ok(())
}

fn build(home: &Path, target: Target) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--release", "--target", TRIPLE, "--bin", target.name()]);
    // Its own, whatever is set: these flags would build everything else anew.
    cargo.arg("--target-dir").arg(home.join("target"));
    run(cargo.current_dir(home).env("RUSTFLAGS", FLAGS.join(" ")))
}
