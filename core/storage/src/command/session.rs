//! What sessions put into entries for themselves.

use crate::command::{Command, Flags, Keys};
use crate::object::parse_canonical;
use crate::store::Naming;
use crate::{Exec, Fault};
use kernel::codec::Reader;

/// The id of a message published within a transaction: channel, payload, and the number to answer.
pub const PUBLISH: u16 = 5;

/// The id of an exchange of two keyspaces: the names as they are then.
pub const RENAME_KEYSPACES: u16 = 7;

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::read(PUBLISH, "archipel.publish", 4, Keys::None, publish).with(Flags::INTERNAL),
    Command::write(RENAME_KEYSPACES, "archipel.rename-keyspaces", 2, Keys::None, rename_keyspaces)
        .with(Flags::INTERNAL),
];

/// The host delivers the message after the entry's earlier changes can be read.
fn publish(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    exec.effects.published.push((args[0].into(), args[1].into()));
    exec.reply.int(parse_canonical(args[2]).ok_or(Fault::NotInteger)?);
    Ok(())
}

/// The names count for the node that reads them; no key changes.
fn rename_keyspaces(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let unknown = |_| Fault::Text("ERR names of keyspaces that this version cannot read");
    let naming = Naming::decode(&mut Reader::new(args[0])).map_err(unknown)?;
    exec.store.set_naming(naming);
    exec.reply.ok();
    Ok(())
}
