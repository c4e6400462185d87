//! Entering and leaving: HELLO, AUTH, RESET, QUIT.

use alloc::vec::Vec;

use kernel::KeyspaceId;
use storage::{Fault, Reply};
use wire::resp::Encoder;

use super::RespReply;
use super::call::{Call, Done, integer, is, shown};
use super::table::{Row, Traits};
use super::users::DEFAULT_USER;

/// The version of Redis whose behaviour we offer; clients decide by it what they may use.
pub const REDIS_VERSION: &str = "7.0.15";

const ENTRY: Traits = Traits::NO_AUTH.and(Traits::NO_SCRIPT).and(Traits::FAST);

/// This family's rows.
pub(super) const ROWS: &[Row] = &[
    Row::new("hello", -1, "connection", hello)
        .with(ENTRY.and(Traits::NO_MULTI))
        .since("6.0.0")
        .about("Agrees on the protocol, and enters."),
    Row::new("auth", -2, "connection", auth).with(ENTRY).about("Enters with a password."),
    Row::new("reset", 1, "connection", reset)
        .with(ENTRY.and(Traits::SUBSCRIBED).and(Traits::UNQUEUED))
        .since("6.2.0")
        .about("Makes the connection as it was in the beginning."),
    Row::new("quit", -1, "connection", quit)
        .with(ENTRY.and(Traits::SUBSCRIBED).and(Traits::UNQUEUED).and(Traits::NOW))
        .about("Closes the connection."),
];

const WRONG: Fault = Fault::Text("WRONGPASS invalid username-password pair or user is disabled.");

/// What HELLO was asked.
struct Greeting<'a> {
    resp3: Option<bool>,
    credentials: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

fn greeting<'a>(args: &[&'a [u8]]) -> Result<Greeting<'a>, Fault> {
    let mut greeting = Greeting { resp3: None, credentials: None, name: None };
    let [version, options @ ..] = args else { return Ok(greeting) };
    let mut rest = options;
    let version = integer(version)
        .map_err(|_| Fault::Text("ERR Protocol version is not an integer or out of range"))?;
    greeting.resp3 = match version {
        2 => Some(false),
        3 => Some(true),
        _ => return Err(Fault::Text("NOPROTO unsupported protocol version")),
    };
    while let [option, tail @ ..] = rest {
        rest = match tail {
            [user, password, tail @ ..] if is(option, "auth") => {
                greeting.credentials = Some((user, password));
                tail
            }
            [name, tail @ ..] if is(option, "setname") => {
                greeting.name = Some(name);
                tail
            }
            _ => {
                let text = alloc::format!("ERR Syntax error in HELLO option '{}'", shown(option));
                return Err(Fault::Said(text));
            }
        };
    }
    Ok(greeting)
}

fn hello(call: &mut Call<'_>) -> Result<Done, Fault> {
    let greeting = greeting(call.args)?;
    if let Some(name) = greeting.name {
        check_name(name)?;
    }
    match greeting.credentials {
        Some((user, password)) => enter(call, user, password)?,
        None if call.session.user.is_none() => {
            return Err(Fault::Text(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> \
                 AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol \
                 version at the same time",
            ));
        }
        None => {}
    }
    if let Some(name) = greeting.name {
        call.session.name = name.into();
    }
    if let Some(resp3) = greeting.resp3 {
        call.host.io().resp3 = resp3;
    }
    let resp3 = call.host.io().resp3;
    let mut encoded = Vec::new();
    let mut reply = RespReply(Encoder::new(&mut encoded, resp3));
    reply.map(7);
    for (key, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.int(if resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.int(call.session.origin.number as i64);
    let mode = if call.host.io().cluster { "cluster" } else { "standalone" };
    for (key, value) in [("mode", mode), ("role", "master")] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    call.reply.raw(&encoded);
    Ok(Done::Answered)
}

fn auth(call: &mut Call<'_>) -> Result<Done, Fault> {
    let (user, password) = match *call.args {
        [password] => {
            if call.host.users().is_open() {
                return Err(Fault::Text(
                    "ERR AUTH <password> called without any password configured for the default user. Are you sure \
                     your configuration is correct?",
                ));
            }
            (DEFAULT_USER, password)
        }
        [user, password] => (user, password),
        _ => return Err(Fault::Syntax),
    };
    enter(call, user, password)?;
    call.ok()
}

fn enter(call: &mut Call<'_>, user: &[u8], password: &[u8]) -> Result<(), Fault> {
    if !call.host.users().admits(user, password) {
        return Err(WRONG);
    }
    call.session.user = Some(user.into());
    Ok(())
}

fn reset(call: &mut Call<'_>) -> Result<Done, Fault> {
    let open = call.host.users().is_open();
    let session = &mut *call.session;
    session.transaction = None;
    super::transaction::unwatch_all(session, call.host);
    session.unsubscribe_all(call.host);
    session.db = KeyspaceId(0);
    session.name = Default::default();
    session.no_evict = false;
    session.user = open.then(|| DEFAULT_USER.into());
    let io = call.host.io();
    (io.resp3, io.muted) = (false, false);
    call.reply.simple("RESET");
    Ok(Done::Answered)
}

fn quit(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.session.closing = true;
    call.ok()
}

/// Names go into space-separated lines.
pub(super) fn check_name(name: &[u8]) -> Result<(), Fault> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Ok(());
    }
    Err(Fault::Text("ERR Client names cannot contain spaces, newlines or special characters."))
}
