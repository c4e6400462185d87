//! `cargo xtask test`: every test there is, after installing what they need.

use crate::acceptance::{self, Target};
use crate::packages::{self, run};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What to test.
#[derive(Args)]
pub struct TestArgs {
    /// Run only the acceptance scenarios, against a server that runs already; its data is deleted.
    #[arg(long, value_name = "HOST:PORT", env = "ARCHIPEL_AGAINST")]
    against: Option<String>,
    /// Run only the acceptance scenarios.
    #[arg(long)]
    acceptance: bool,
    /// Run only the scenarios whose path contains this.
    #[arg(long, value_name = "TEXT")]
    scenario: Option<String>,
    /// The node's binary. If not given: what cargo has built for its tests, or with `--acceptance` one in release mode.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Is this a CI machine, where a skip is a failure?
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// Where cargo puts what it builds.
pub fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// Installs what the tests and the build need, and nothing else.
pub fn setup(root: &Path) -> Result<()> {
    let clients = packages::install(&target_dir(root));
    judge_skips(&clients.missing)
}

/// Runs everything; an error if anything failed, or was skipped where that is a failure.
pub fn test(root: &Path, args: &TestArgs) -> Result<()> {
    let clients = packages::install(&target_dir(root));
    for missing in &clients.missing {
        println!("SKIP: {missing}");
    }
    let target = match &args.against {
        Some(address) => {
            let (host, port) = address.rsplit_once(':').context("--against wants HOST:PORT")?;
            Target::Running {
                host: host.to_owned(),
                port: port.parse().context("--against wants HOST:PORT")?,
            }
        }
        None => {
            if !args.acceptance {
                cargo_tests(root)?;
            }
            let binary = match &args.binary {
                Some(binary) => binary.clone(),
                None if args.acceptance => build(root)?,
                None => built_by_tests(root)?,
            };
            let is_wanted = |name: &&str| acceptance::is_wanted(name, args.scenario.as_deref());
            let mut programs = Vec::new();
            for one in [&KAD_PEER, &TONIC_CLIENT] {
                if one.scenarios.iter().any(is_wanted) {
                    programs.push((one.variable, one.build(root, Profile::Dev)?));
                }
            }
            Target::Node { binary, programs }
        }
    };
    let outcome = acceptance::run(root, &target, &clients, args.scenario.as_deref())?;
    let skips: Vec<String> = clients.missing.iter().chain(&outcome.skipped).cloned().collect();
    let judged = judge_skips(&skips);
    println!("{} passed, {} failed", outcome.passed, outcome.failed);
    if outcome.failed > 0 {
        bail!("{} acceptance checks failed; their output is above", outcome.failed);
    }
    if outcome.passed == 0 {
        bail!("no acceptance check ran");
    }
    judged
}

/// A skip is loud, and a failure where nobody reads the noise.
fn judge_skips(skips: &[String]) -> Result<()> {
    for skip in skips {
        println!("SKIPPED: {skip}");
    }
    if !skips.is_empty() && is_ci() {
        bail!("{} skipped, and CI=true makes a skip a failure", skips.len());
    }
    Ok(())
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    eprintln!("$ cargo {}", arguments.join(" "));
    run(Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into())).args(arguments).current_dir(root))
}

fn cargo_tests(root: &Path) -> Result<()> {
    let mut nextest = Command::new("cargo-nextest");
    nextest.args(["nextest", "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !nextest.status().is_ok_and(|status| status.success()) {
        return cargo(root, &["test", "--workspace"]);
    }
    cargo(root, &["nextest", "run", "--workspace", "--no-tests=pass"])?;
    // nextest does not know examples in documentation.
    cargo(root, &["test", "--workspace", "--doc"])
}

/// A program around another library that scenarios are played with. It is no part of the workspace: nothing of the library
/// is among the node's dependencies, and it is built when it is needed.
pub struct Program {
    /// Its folder below `acceptance`, and below that of the target.
    folder: &'static str,
    /// What is built there.
    name: &'static str,
    /// The variable that tells scenarios where it is.
    variable: &'static str,
    /// The scenarios that need it.
    scenarios: &'static [&'static str],
}

/// Peers of rust-libp2p with its Kademlia.
pub const KAD_PEER: Program = Program {
    folder: "libp2p-kad",
    name: "libp2p-kad-peer",
    variable: "LIBP2P_KAD_BIN",
    scenarios: &[
        "libp2p/hostile.cjs",
        "libp2p/mixed.cjs",
        "libp2p/rust.cjs",
        "libp2p/strangers.cjs",
        "long/libp2p/strangers.cjs",
    ],
};

/// A client of gRPC.
const TONIC_CLIENT: Program =
    Program { folder: "tonic", name: "tonic-client", variable: "TONIC_BIN", scenarios: &["proxy/tonic.py"] };

/// How such a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quickly; its ciphers are fast all the same.
    Dev,
    /// As the node is, to be compared with it.
    Release,
}

impl Program {
    /// Builds it; where it is.
    pub fn build(&self, root: &Path, profile: Profile) -> Result<PathBuf> {
        let target = target_dir(root).join("acceptance").join(self.folder);
        let home = target.to_string_lossy();
        let (words, dir): (&[&str], &str) = match profile {
            Profile::Dev => (&[], "debug"),
            Profile::Release => (&["--release"], "release"),
        };
        let manifest = format!("acceptance/{}/Cargo.toml", self.folder);
        let build = ["build", "--locked", "--manifest-path", &manifest, "--target-dir", &home];
        cargo(root, &[&build[..], words].concat())?;
        Ok(target.join(dir).join(self.name))
    }
}

/// The binary that the integration tests ran: quick enough for clients, it checks more than a release does, and a second build of
/// all there is would take longer than the scenarios.
fn built_by_tests(root: &Path) -> Result<PathBuf> {
    let binary = target_dir(root).join("debug/archipel");
    if !binary.is_file() {
        bail!("cargo's tests left no {}; give one with --binary", binary.display());
    }
    Ok(binary)
}

/// The release binary, built once.
pub fn build(root: &Path) -> Result<PathBuf> {
    cargo(root, &["build", "--release", "--package", "archipel"])?;
    Ok(target_dir(root).join("release/archipel"))
}
