//! The `archipel` command.

// Its macros take the place of the standard's in all that follows.
#[macro_use]
mod output;

mod admin;
mod cluster;
mod command;
mod config;
mod doctor;
mod exit;
mod lab;
mod mesh;
mod moment;
mod node;
mod options;
mod p2p;
mod storage;

use clap::Parser;

use command::{Command, Root, StartArgs};
use exit::Exit;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    abort_on_panic();
    let root = match Root::try_parse() {
        Ok(root) => root,
        Err(error) => {
            // Help and version are answers, the rest is a usage error; clap knows where each belongs.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Holds.into() };
        }
    };
    let result =
        match root.command.unwrap_or(Command::Node(command::NodeCommand::Start(StartArgs::default()))) {
            Command::Node(what) => node::run(&root.options, &what),
            Command::Cluster(what) => cluster::run(&root.options, what),
            Command::Storage(what) => storage::run(&root.options, what),
            Command::P2p(what) => p2p::run(&root.options, what),
            Command::Mesh(what) => mesh::run(&root.options, what),
            Command::Lab(what) => lab::run(&root.options, what),
            Command::Doctor => doctor::run(&root.options),
            Command::Config(what) => config::run(&root.options, what),
        };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) if failure.error.is::<output::Unheard>() => output::end(),
        Err(failure) => {
            eprintln!("archipel: {}", failure.text());
            failure.exit.into()
        }
    }
}

/// A broken invariant ends the process, also in builds whose panics would end their thread alone: the others would serve on.
fn abort_on_panic() {
    if cfg!(panic = "unwind") {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            told(info);
            std::process::abort();
        }));
    }
}
