//! Commands on keys of any type, and the node's own entries.

use crate::command::{ALL, Command, Flags, Keys, ONE};
use crate::{Exec, Fault};

/// The id of the node's own tick: it carries nothing but its entry's time.
pub const TICK: u16 = 1;
/// The id of a whole transaction: its arguments are the encoded commands, each as an entry's body.
pub const EXEC: u16 = 2;
/// The id of an answer given by the front-end: its argument is a whole encoded value.
pub const LITERAL: u16 = 3;
/// The id of a transaction that only reads.
pub const EXEC_READ: u16 = 4;

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::write(TICK, "archipel.tick", 1, Keys::None, tick).with(Flags::INTERNAL),
    Command::write(EXEC, "archipel.exec", -1, Keys::None, exec).with(Flags::INTERNAL),
    Command::read(LITERAL, "archipel.literal", 2, Keys::None, literal).with(Flags::INTERNAL),
    Command::read(EXEC_READ, "archipel.exec-read", -1, Keys::None, exec).with(Flags::INTERNAL),
    Command::write(0x200, "del", -2, ALL, del),
    Command::read(0x201, "exists", -2, ALL, exists).with(Flags::FAST),
    Command::read(0x202, "type", 2, ONE, kind).with(Flags::FAST),
    Command::read(0x203, "dbsize", 1, Keys::None, dbsize).with(Flags::FAST.and(Flags::KEYSPACE)),
    Command::write(0x204, "flushdb", -1, Keys::None, flushdb).with(Flags::KEYSPACE),
];

fn tick(exec: &mut Exec<'_>, _: &[&[u8]]) -> Result<(), Fault> {
    exec.reply.ok();
    Ok(())
}

/// Runs the commands of a transaction one after another and answers an array of their answers.
fn exec(exec: &mut Exec<'_>, bodies: &[&[u8]]) -> Result<(), Fault> {
    exec.origin = crate::Origin::Transaction;
    exec.reply.array(bodies.len());
    for body in bodies {
        let mut args = crate::entry::Args::new();
        let mut reader = kernel::codec::Reader::new(body);
        let command = crate::entry::next_command(&mut reader, &mut args)
            .ok()
            .and_then(|id| exec.registry.by_id(id))
            .expect("a logged transaction holds commands that this version wrote");
        exec.run(command, &args);
    }
    Ok(())
}

fn literal(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    exec.reply.raw(args[0]);
    Ok(())
}

fn del(exec: &mut Exec<'_>, keys: &[&[u8]]) -> Result<(), Fault> {
    let removed = keys.iter().filter(|key| exec.store.remove(key)).count();
    exec.reply.int(removed as i64);
    Ok(())
}

fn exists(exec: &mut Exec<'_>, keys: &[&[u8]]) -> Result<(), Fault> {
    let found = keys.iter().filter(|key| exec.store.exists(key)).count();
    exec.reply.int(found as i64);
    Ok(())
}

fn kind(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let kind = exec.store.kind(args[0]);
    exec.reply.simple(kind.map_or("none", crate::object::Type::name));
    Ok(())
}

fn dbsize(exec: &mut Exec<'_>, _: &[&[u8]]) -> Result<(), Fault> {
    exec.reply.int(exec.store.len() as i64);
    Ok(())
}

fn flushdb(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    match args {
        [] => {}
        [mode] if mode.eq_ignore_ascii_case(b"sync") || mode.eq_ignore_ascii_case(b"async") => {}
        _ => return Err(Fault::Syntax),
    }
    exec.store.flush();
    exec.reply.ok();
    Ok(())
}
