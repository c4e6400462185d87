//! DEBUG, where it is harmless.

use storage::object::glob::{Case, matches};
use storage::{Fault, Reply};

use super::call::{Call, Done, Place};
use super::server::after;
use super::table::{Row, Traits, help};

/// Longest DEBUG SLEEP.
const SLEEP_MS_MAX: u64 = 60_000;

const ADMIN: Traits = Traits::ADMIN.and(Traits::NO_SCRIPT);

/// This family's rows.
pub(super) const ROWS: &[Row] =
    &[Row::container("debug", "server", DEBUG).with(ADMIN).about("For tests; the harmless part of it.")];

const DEBUG: &[Row] = &[
    Row::new("debug|sleep", 3, "server", sleep)
        .with(ADMIN)
        .syntax("<seconds>")
        .about("Answers after that time. Other clients do not notice."),
    Row::new("debug|set-active-expire", 3, "server", accepted)
        .with(ADMIN)
        .syntax("<0|1>")
        .about("Accepted; expired keys are never seen in any case."),
    Row::new("debug|quicklist-packed-threshold", 3, "server", accepted)
        .with(ADMIN)
        .syntax("<bytes>")
        .about("Accepted; the store chooses its encodings itself."),
    Row::new("debug|stringmatch-len", 4, "server", stringmatch)
        .with(ADMIN)
        .syntax("<length> <pattern>")
        .about("Matches a pattern against that many letters a."),
    Row::new("debug|jmap", 2, "server", refuse).with(ADMIN).about("Refused."),
    Row::new("debug|object", 3, "server", refuse).with(ADMIN).syntax("<key>").about("Refused."),
    Row::new("debug|reload", -2, "server", refuse).with(ADMIN).about("Refused."),
    Row::new("debug|loadaof", 2, "server", refuse).with(ADMIN).about("Refused."),
    Row::new("debug|segfault", 2, "server", refuse).with(ADMIN).about("Refused."),
    Row::new("debug|change-repl-id", 2, "server", refuse).with(ADMIN).about("Refused."),
    Row::new("debug|help", 2, "server", help),
];

fn sleep(call: &mut Call<'_>) -> Result<Done, Fault> {
    let seconds = core::str::from_utf8(call.args[0]).ok().and_then(|text| text.parse::<f64>().ok());
    let seconds = seconds.filter(|seconds| seconds.is_finite()).ok_or(Fault::NotFloat)?;
    if call.place == Place::Exec {
        return Ok(Done::Silent);
    }
    let millis = ((seconds.max(0.0) * 1000.0) as u64).min(SLEEP_MS_MAX);
    let until = after(call, millis);
    call.host.sleep(until);
    Ok(Done::Silent)
}

fn accepted(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.ok()
}

fn stringmatch(call: &mut Call<'_>) -> Result<Done, Fault> {
    let length = super::call::integer(call.args[0])?;
    let length = usize::try_from(length).ok().filter(|&length| length <= 1 << 20).ok_or(Fault::OutOfRange)?;
    let text = alloc::vec![b'a'; length];
    call.reply.boolean(matches(call.args[1], &text, Case::Exact));
    Ok(Done::Answered)
}

fn refuse(call: &mut Call<'_>) -> Result<Done, Fault> {
    let sub = call.row.last_word().to_ascii_uppercase();
    Err(Fault::Said(alloc::format!("ERR DEBUG {sub} is not offered by this server")))
}
