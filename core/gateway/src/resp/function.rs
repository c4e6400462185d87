//! FUNCTION: libraries of functions cannot be loaded yet, so there is never one to list, delete or flush.
//!
//! What only looks at functions or clears them answers as Redis does when there are none; tools that clear
//! a server do that. What would make or run one is refused.

use alloc::format;

use storage::{Fault, Reply};

use super::call::{Call, Done, is};
use super::table::{Row, Traits, help};

const WRITE: Traits = Traits::WRITE.and(Traits::NO_SCRIPT);

/// This family's rows.
pub(super) const ROWS: &[Row] = &[Row::container("function", "scripting", FUNCTION)
    .since("7.0.0")
    .about("Tells about function libraries: there are none.")];

const FUNCTION: &[Row] = &[
    Row::new("function|delete", 3, "scripting", delete)
        .with(WRITE)
        .since("7.0.0")
        .syntax("<library>")
        .about("Finds no library to delete."),
    Row::new("function|flush", -2, "scripting", flush)
        .with(WRITE)
        .since("7.0.0")
        .syntax("[ASYNC|SYNC]")
        .about("Deletes all libraries: there are none."),
    Row::new("function|kill", 2, "scripting", kill).since("7.0.0").about("Finds no running function."),
    Row::new("function|list", -2, "scripting", list)
        .since("7.0.0")
        .syntax("[LIBRARYNAME <pattern>] [WITHCODE]")
        .about("Lists the libraries: there are none."),
    Row::new("function|load", -3, "scripting", refuse)
        .with(WRITE)
        .since("7.0.0")
        .syntax("[REPLACE] <code>")
        .about("Is not offered."),
    Row::new("function|dump", 2, "scripting", refuse).since("7.0.0").about("Is not offered."),
    Row::new("function|restore", -3, "scripting", refuse)
        .with(WRITE)
        .since("7.0.0")
        .syntax("<payload> [FLUSH|APPEND|REPLACE]")
        .about("Is not offered."),
    Row::new("function|help", 2, "scripting", help).since("7.0.0"),
];

fn delete(_: &mut Call<'_>) -> Result<Done, Fault> {
    Err(Fault::Text("ERR Library not found"))
}

fn flush(call: &mut Call<'_>) -> Result<Done, Fault> {
    match *call.args {
        [] => call.ok(),
        [mode] if is(mode, "sync") || is(mode, "async") => call.ok(),
        _ => Err(Fault::Text("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")),
    }
}

fn kill(_: &mut Call<'_>) -> Result<Done, Fault> {
    Err(Fault::Text("NOTBUSY No scripts in execution right now."))
}

fn list(call: &mut Call<'_>) -> Result<Done, Fault> {
    let (mut code, mut name) = (false, false);
    let mut words = call.args.iter();
    while let Some(word) = words.next() {
        if !code && is(word, "withcode") {
            code = true;
        } else if !name && is(word, "libraryname") {
            name = true;
            words.next().ok_or(Fault::Text("ERR library name argument was not given"))?;
        } else {
            return Err(Fault::Said(format!("ERR Unknown argument {}", super::call::shown(word))));
        }
    }
    call.reply.array(0);
    Ok(Done::Answered)
}

fn refuse(call: &mut Call<'_>) -> Result<Done, Fault> {
    let name = call.row.last_word().to_ascii_uppercase();
    Err(Fault::Said(format!("ERR FUNCTION {name} is not offered by this server")))
}
