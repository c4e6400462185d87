//! `archipel node`: start one here, or ask a running one.

mod banner;
mod logs;
mod status;

use anyhow::Context;
use server::cluster::join::token;
use server::{Beginning, Joining, Server};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::command::{NodeCommand, StartArgs};
use crate::exit::{Exit, Failure};
use crate::options::Options;

/// Runs the verb.
pub fn run(options: &Options, what: &NodeCommand) -> Result<Exit, Failure> {
    match what {
        NodeCommand::Start(args) => start(options, args),
        NodeCommand::Status => {
            let loaded = options.load().map_err(Failure::usage)?;
            Ok(status::run(&loaded, options.json)?)
        }
    }
}

fn start(options: &Options, args: &StartArgs) -> Result<Exit, Failure> {
    let loaded = options.load_with(&args.settings()).map_err(Failure::usage)?;
    let join = args.join.as_deref().map(token).transpose().map_err(Failure::usage)?;
    let beginning = match join {
        Some(token) => Beginning::Join(Joining { token, find: args.find }),
        None if args.take_over => Beginning::TakeOver,
        None => Beginning::Usual,
    };
    logs::init(&loaded.config.log);
    // Before anything starts, so that no signal is lost.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("signals cannot be caught")?;
    let mut server = Server::start(&loaded, beginning, raise)?;
    banner::print(&loaded, &server);
    if args.until_stdin_ends {
        std::thread::spawn(|| {
            // Whatever it says: it ends with who started this.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            raise();
        });
    }
    while signals.forever().next() == Some(SIGHUP) {
        reload(options, args, &mut server);
    }
    tracing::info!("stopping; a second signal ends at once");
    let handle = signals.handle();
    let second = std::thread::spawn(move || {
        if signals.forever().any(|signal| signal != SIGHUP) {
            tracing::warn!("ended by a second signal; the log has what was acknowledged");
            std::process::exit(SECOND_SIGNAL);
        }
    });
    server.stop()?;
    handle.close();
    // It has returned or will never be scheduled again: the process ends.
    drop(second);
    tracing::info!("stopped");
    Ok(Exit::Holds)
}

/// Reads the configuration again. What cannot be followed changes nothing.
fn reload(options: &Options, args: &StartArgs, server: &mut Server) {
    let loaded = match options.load_with(&args.settings()) {
        Ok(loaded) => loaded,
        Err(error) => {
            server.reload_refused();
            tracing::error!(
                error = format!("{error:#}"),
                "the configuration is refused; the last good one stays"
            );
            return;
        }
    };
    match server.reload(&loaded) {
        Ok(others) => {
            let proxy = banner::proxy(server);
            tracing::info!(proxy, "the proxy follows the configuration that was read again");
            if others {
                tracing::warn!("other settings have changed too; they count from the next start");
            }
        }
        Err(error) => {
            server.reload_refused();
            tracing::error!(%error, "the configuration is refused; the last good one stays");
        }
    }
}

/// A client's wish to stop the node, or that of another process to have its place, is as good as an operator's.
fn raise() {
    if let Err(error) = signal_hook::low_level::raise(SIGTERM) {
        tracing::error!(%error, "the node was asked to stop and cannot");
    }
}

/// The exit code after a second signal, as a shell tells it for SIGINT.
const SECOND_SIGNAL: i32 = 130;
