//! Messages on stderr, for people or for programs. A node whose stderr nobody reads any more goes on.

use std::io::IsTerminal;

use server::config::{Format, Level, Log};
use tracing::level_filters::LevelFilter;

/// From now on the process's messages go to stderr as `log` says.
pub fn init(log: &Log) {
    let level = match log.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    // It would tell of a stderr that is closed on that same stderr, and panic.
    let builder = builder.log_internal_errors(false);
    match log.format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
}
