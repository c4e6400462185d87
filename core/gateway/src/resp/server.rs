//! Small commands: PING and ECHO, time, saving, stopping, roles.

use kernel::Micros;
use storage::{Fault, Reply};

use super::call::{Call, Done, integer, is};
use super::host::Request;
use super::table::{Row, Traits, help};

const SIMPLE: Traits = Traits::FAST.and(Traits::NOW);
const ADMIN: Traits = Traits::ADMIN.and(Traits::NO_SCRIPT);

/// This family's rows.
pub(super) const ROWS: &[Row] = &[
    Row::new("ping", -1, "connection", ping)
        .with(SIMPLE.and(Traits::SUBSCRIBED))
        .about("Answers PONG, or its argument."),
    Row::new("echo", 2, "connection", echo).with(SIMPLE).about("Answers its argument."),
    Row::new("time", 1, "server", time)
        .with(SIMPLE)
        .since("2.6.0")
        .about("Seconds since the epoch, and microseconds of the second."),
    Row::new("lastsave", 1, "server", lastsave)
        .with(Traits::ADMIN.and(Traits::FAST))
        .about("When the last checkpoint was finished."),
    Row::new("save", 1, "server", save).with(ADMIN.and(Traits::NO_MULTI)).about("Asks for a checkpoint."),
    Row::new("bgsave", -1, "server", bgsave).with(ADMIN).about("Asks for a checkpoint."),
    Row::new("bgrewriteaof", 1, "server", bgrewriteaof)
        .with(ADMIN)
        .about("Asks for a checkpoint, after which the log is truncated."),
    Row::new("shutdown", -1, "server", shutdown).with(ADMIN.and(Traits::NO_MULTI)).about("Stops the node."),
    Row::new("role", 1, "server", role)
        .with(Traits::ADMIN.and(Traits::FAST).and(Traits::NO_SCRIPT))
        .since("2.8.12")
        .about("The node's part in replication."),
    Row::new("replicaof", 3, "server", replicaof)
        .with(ADMIN)
        .since("5.0.0")
        .about("Only NO ONE: the node is no replica."),
    Row::new("slaveof", 3, "server", replicaof).with(ADMIN).about("As REPLICAOF."),
    Row::new("wait", 3, "generic", wait)
        .with(Traits::NO_SCRIPT)
        .since("3.0.0")
        .about("Replicas that have this connection's writes."),
    Row::container("module", "server", MODULE).since("4.0.0").about("Tells about modules."),
    Row::container("memory", "server", MEMORY)
        .with(Traits::PARTLY)
        .since("4.0.0")
        .about("Tells about memory."),
];

const MODULE: &[Row] = &[
    Row::new("module|list", 2, "server", module_list).with(ADMIN).since("4.0.0").about("Modules: none."),
    Row::new("module|load", -3, "server", no_module)
        .with(ADMIN)
        .since("4.0.0")
        .syntax("<path> [<arg> ...]")
        .about("Refused."),
    Row::new("module|loadex", -3, "server", no_module)
        .with(ADMIN)
        .since("7.0.0")
        .syntax("<path> [<option> ...]")
        .about("Refused."),
    Row::new("module|unload", 3, "server", no_module)
        .with(ADMIN)
        .since("4.0.0")
        .syntax("<name>")
        .about("Refused."),
    Row::new("module|help", 2, "server", help).since("5.0.0"),
];

const MEMORY: &[Row] = &[
    Row::new("memory|doctor", 2, "server", memory_doctor)
        .with(Traits::NODE)
        .since("4.0.0")
        .about("Advice on memory."),
    Row::new("memory|stats", 2, "server", memory_stats)
        .with(Traits::NODE)
        .since("4.0.0")
        .about("Figures on memory."),
    Row::new("memory|purge", 2, "server", |call| call.ok())
        .since("4.0.0")
        .about("Nothing to do: the allocator gives memory back by itself."),
    Row::new("memory|usage", -3, "server", |_| Ok(Done::Store))
        .with(Traits::PARTLY)
        .since("4.0.0")
        .syntax("<key> [SAMPLES <count>]")
        .about("Bytes that a key and its value take."),
    Row::new("memory|malloc-stats", 2, "server", malloc_stats)
        .since("4.0.0")
        .about("The allocator's own figures: not kept."),
    Row::new("memory|help", 2, "server", help).since("4.0.0"),
];

fn ping(call: &mut Call<'_>) -> Result<Done, Fault> {
    match *call.args {
        [] | [_] if call.session.subscribed => {
            call.reply.array(2);
            call.reply.bulk(b"pong");
            call.reply.bulk(call.args.first().copied().unwrap_or_default());
        }
        [] => call.reply.simple("PONG"),
        [text] => call.reply.bulk(text),
        _ => return Err(call.arity()),
    }
    Ok(Done::Answered)
}

fn echo(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.reply.bulk(call.args[0]);
    Ok(Done::Answered)
}

fn time(call: &mut Call<'_>) -> Result<Done, Fault> {
    let now = call.host.now().0;
    call.reply.array(2);
    for part in [now / 1_000_000, now % 1_000_000] {
        call.reply.bulk(itoa::Buffer::new().format(part).as_bytes());
    }
    Ok(Done::Answered)
}

fn lastsave(call: &mut Call<'_>) -> Result<Done, Fault> {
    let at = call.host.process().checkpoint_at;
    call.int((at.0 / 1_000_000) as i64)
}

/// What was acknowledged is in the log already, so nobody has to wait for the checkpoint.
fn save(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.host.request(Request::Checkpoint);
    call.ok()
}

fn bgsave(call: &mut Call<'_>) -> Result<Done, Fault> {
    match call.args {
        [] => {}
        [schedule] if is(schedule, "schedule") => {}
        _ => return Err(Fault::Syntax),
    }
    call.host.request(Request::Checkpoint);
    call.reply.simple("Background saving started");
    Ok(Done::Answered)
}

fn bgrewriteaof(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.host.request(Request::Checkpoint);
    call.reply.simple("Background append only file rewriting started");
    Ok(Done::Answered)
}

/// Answers nothing if it is accepted: the connection ends with the node.
fn shutdown(call: &mut Call<'_>) -> Result<Done, Fault> {
    let (mut save, mut abort, mut modifiers) = (None, false, false);
    for option in call.args {
        match () {
            () if is(option, "save") && save != Some(false) => save = Some(true),
            () if is(option, "nosave") && save != Some(true) => save = Some(false),
            () if is(option, "now") || is(option, "force") => modifiers = true,
            () if is(option, "abort") => abort = true,
            () => return Err(Fault::Syntax),
        }
    }
    if abort {
        let alone = save.is_none() && !modifiers;
        return Err(if alone { Fault::Text("ERR No shutdown in progress.") } else { Fault::Syntax });
    }
    call.host.request(Request::Stop { save: save.unwrap_or(true) });
    Ok(Done::Silent)
}

fn role(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.reply.array(3);
    call.reply.bulk(b"master");
    call.reply.int(0);
    call.reply.array(0);
    Ok(Done::Answered)
}

fn replicaof(call: &mut Call<'_>) -> Result<Done, Fault> {
    if is(call.args[0], "no") && is(call.args[1], "one") {
        return call.ok();
    }
    let port = integer(call.args[1]).ok().filter(|port| (0..=65535).contains(port));
    port.ok_or(Fault::Text("ERR Invalid master port"))?;
    Err(Fault::Text("ERR this server cannot replicate from another; import its data instead"))
}

/// There are no replicas; by the time it runs, this connection's writes are as durable as promised.
fn wait(call: &mut Call<'_>) -> Result<Done, Fault> {
    integer(call.args[0])?;
    milliseconds(call.args[1])?;
    call.int(0)
}

/// A timeout in milliseconds, as Redis reads it.
pub(super) fn milliseconds(word: &[u8]) -> Result<u64, Fault> {
    let millis = integer(word).map_err(|_| Fault::Text("ERR timeout is not an integer or out of range"))?;
    u64::try_from(millis).map_err(|_| Fault::Text("ERR timeout is negative"))
}

/// Now and `millis` from now.
pub(super) fn after(call: &mut Call<'_>, millis: u64) -> Micros {
    call.host.now().plus_millis(millis)
}

fn module_list(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.reply.array(0);
    Ok(Done::Answered)
}

fn no_module(_: &mut Call<'_>) -> Result<Done, Fault> {
    Err(Fault::Text("ERR MODULE command not allowed: this server has no modules"))
}

fn memory_doctor(call: &mut Call<'_>) -> Result<Done, Fault> {
    let facts = call.host.survey().facts;
    let (objects, budget) = (facts.object_bytes, call.host.config().maxmemory());
    let text = if budget > 0 && objects as u64 > budget / 10 * 9 {
        "The objects in memory are near the limit: values will be read back from disk more often, or be evicted. \
         Raise maxmemory, or spread the keys.\n"
    } else {
        "No problem is known.\n"
    };
    call.reply.verbatim(text);
    Ok(Done::Answered)
}

fn memory_stats(call: &mut Call<'_>) -> Result<Done, Fault> {
    let facts = call.host.survey().facts;
    let process = &facts.process;
    let keys: usize = facts.keyspaces.iter().map(|keyspace| keyspace.keys).sum();
    let figures = [
        ("peak.allocated", process.peak_bytes),
        ("total.allocated", process.used_bytes),
        ("dataset.bytes", facts.object_bytes as u64),
        ("keys.count", keys as u64),
        ("keys.bytes-per-key", (facts.object_bytes / keys.max(1)) as u64),
        ("allocator.resident", process.rss_bytes),
    ];
    call.reply.map(figures.len());
    for (name, value) in figures {
        call.reply.bulk(name.as_bytes());
        call.reply.int(value as i64);
    }
    Ok(Done::Answered)
}

fn malloc_stats(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.reply.verbatim("Stats not kept by this server; see MEMORY STATS and INFO memory\n");
    Ok(Done::Answered)
}
