//! Commands that concern the connection itself, not the store.

use alloc::vec::Vec;

use kernel::KeyspaceId;
use storage::{Fault, Reply};
use wire::resp::Encoder;

use super::RespReply;
use super::host::{Host, Submitted};
use super::session::Session;
use super::transaction;

/// Runs a command that is not the store's; unknown ones are refused.
pub(super) fn run<H: Host>(session: &mut Session, name: &[u8], args: &[&[u8]], host: &mut H) -> Submitted {
    let name = name.to_ascii_lowercase();
    match (name.as_slice(), args) {
        (b"multi", []) => return transaction::multi(session, host),
        (b"exec", []) => return transaction::exec(session, host),
        (b"discard", []) => return transaction::discard(session, host),
        (b"watch", [_, ..]) => return transaction::watch(session, args, host),
        (b"unwatch", []) if session.transaction.is_none() => return transaction::unwatch(session, host),
        _ => {}
    }
    let mut encoded = Vec::new();
    let resp3 = host.io().resp3;
    let result = answer(session, &name, args, host, &mut RespReply(Encoder::new(&mut encoded, resp3)));
    if let Err(fault) = result {
        session.refuse(host, &fault);
    } else if let Some(transaction) = &mut session.transaction {
        transaction.push_literal(&encoded);
        session.answer(host, |reply| reply.simple("QUEUED"));
    } else {
        session.answer(host, |reply| reply.raw(&encoded));
    }
    Submitted::Accepted
}

fn answer<H: Host>(
    session: &mut Session,
    name: &[u8],
    args: &[&[u8]],
    host: &mut H,
    reply: &mut RespReply<'_>,
) -> Result<(), Fault> {
    match (name, args) {
        (b"ping", []) => reply.simple("PONG"),
        (b"ping", [text]) | (b"echo", [text]) => reply.bulk(text),
        (b"select", [index]) => {
            let index = core::str::from_utf8(index).ok().and_then(|text| text.parse::<u16>().ok());
            let index = index.ok_or(Fault::Text("ERR invalid DB index"))?;
            if !host.has_keyspace(KeyspaceId(index)) {
                return Err(Fault::Text("ERR DB index is out of range"));
            }
            session.db = KeyspaceId(index);
            reply.ok();
        }
        (b"quit", _) => {
            session.closing = true;
            reply.ok();
        }
        _ => return Err(Fault::Said(unknown(name, args))),
    }
    Ok(())
}

fn unknown(name: &[u8], args: &[&[u8]]) -> alloc::string::String {
    let shown =
        |bytes: &[u8]| alloc::string::String::from_utf8_lossy(&bytes[..bytes.len().min(128)]).into_owned();
    let args: alloc::string::String =
        args.iter().take(20).map(|arg| alloc::format!("'{}' ", shown(arg))).collect();
    alloc::format!("ERR unknown command '{}', with args beginning with: {args}", shown(name))
}
