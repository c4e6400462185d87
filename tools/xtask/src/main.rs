//! The project's own chores: `cargo xtask tidy`, `test`, `bench` and `fuzz`.

mod acceptance;
mod bench;
mod fuzz;
mod packages;
mod redis_suite;
mod server;
mod suite;
mod tidy;
mod trio;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The project's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check the rules that rustc, clippy and rustfmt do not know.
    Tidy,
    /// Install what building and testing need, by package name.
    Setup,
    /// Run every test there is; installs what they need first.
    Test(suite::TestArgs),
    /// Run the Tcl tests of Redis 7 against a node.
    RedisSuite(redis_suite::SuiteArgs),
    /// Measure speed and memory, and judge the figures against their bars.
    Bench(bench::BenchArgs),
    /// Feed arbitrary bytes to what reads bytes from outside, and look for panics and wrong answers.
    Fuzz(fuzz::FuzzArgs),
}

fn main() -> ExitCode {
    let outcome = match Args::parse().chore {
        Chore::Tidy => tidy::run(&root()).map(|()| ExitCode::SUCCESS),
        Chore::Setup => suite::setup(&root()).map(|()| ExitCode::SUCCESS),
        Chore::Bench(args) => bench::run(&root(), &args),
        Chore::Fuzz(args) => fuzz::fuzz(&root(), &args).map(|()| ExitCode::SUCCESS),
        Chore::RedisSuite(args) => redis_suite::suite(&root(), &args).map(|()| ExitCode::SUCCESS),
        Chore::Test(args) => suite::test(&root(), &args).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        let not_judged = error.downcast_ref::<bench::NotJudged>().is_some();
        if not_judged { ExitCode::from(3) } else { ExitCode::FAILURE }
    })
}

/// The root of the workspace: two folders above this crate.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).expect("xtask lives in tools/xtask").to_owned()
}
