//! What commands write: data on stdout, talk on stderr. All of it goes through here: in this crate `println!` and its kin are
//! these.
//!
//! Who reads stdout may leave before the end, as `head` does. Then the program ends as others do, by SIGPIPE, which Rust's
//! runtime switches off (so that no server dies of a client that leaves) and whose absence the standard's `println!` answers
//! with a panic. Nobody has to listen to talk: the work goes on without.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

use signal_hook::consts::SIGPIPE;
use signal_hook::low_level::emulate_default_handler;
use thiserror::Error;

/// The exit code if the signal does not end the program: as a shell tells it.
const SIGPIPE_CODE: i32 = 128 + SIGPIPE;

macro_rules! println {
    ($($said:tt)*) => {
        $crate::output::say(::std::format_args!("{}\n", ::std::format_args!($($said)*)))
    };
}

macro_rules! print {
    ($($said:tt)*) => { $crate::output::say(::std::format_args!($($said)*)) };
}

macro_rules! eprintln {
    ($($said:tt)*) => {
        $crate::output::talk(::std::format_args!("{}\n", ::std::format_args!($($said)*)))
    };
}

macro_rules! eprint {
    ($($said:tt)*) => { $crate::output::talk(::std::format_args!($($said)*)) };
}

/// Nobody reads stdout any more.
#[derive(Debug, Error)]
#[error("nobody reads the output any more")]
pub struct Unheard;

/// Writes data to stdout. Does not return if that cannot be done: see [`say_or`] for who has something to put away.
pub fn say(said: Arguments<'_>) {
    match say_or(said) {
        Ok(()) => {}
        Err(error) if error.is::<Unheard>() => end(),
        Err(error) => {
            eprintln!("archipel: {error:#}");
            std::process::exit(1);
        }
    }
}

/// The same, but returns an error. The caller hands it on to `main`, which ends the program as [`say`] does.
///
/// # Errors
/// [`Unheard`], or that of a file that cannot be written.
pub fn say_or(said: Arguments<'_>) -> anyhow::Result<()> {
    match io::stdout().lock().write_fmt(said) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Unheard.into()),
        Err(error) => Err(anyhow::Error::from(error).context("the output cannot be written")),
    }
}

/// Writes talk to stderr, if it can be written.
pub fn talk(said: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(said);
}

/// Stdout for what is written in bytes. Ends the program once nobody reads it; other errors are the caller's.
pub struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        heard(io::stdout().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        heard(io::stdout().flush())
    }
}

fn heard<T>(done: io::Result<T>) -> io::Result<T> {
    match done {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => end(),
        done => done,
    }
}

/// Ends the program as SIGPIPE does: quietly, and whoever started it sees why.
pub fn end() -> ! {
    // Returns only if that signal is not known to it.
    let _ = emulate_default_handler(SIGPIPE);
    std::process::exit(SIGPIPE_CODE)
}
