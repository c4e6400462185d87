//! What sessions put into entries for themselves.

use crate::command::{Command, Flags, Keys};
use crate::object::parse_canonical;
use crate::{Exec, Fault};

/// The id of a message published within a transaction: channel, payload, and the number to answer.
pub const PUBLISH: u16 = 5;

/// This family's rows.
pub const COMMANDS: &[Command] =
    &[Command::read(PUBLISH, "archipel.publish", 4, Keys::None, publish).with(Flags::INTERNAL)];

/// The host delivers the message after the entry's earlier changes can be read.
fn publish(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    exec.effects.published.push((args[0].into(), args[1].into()));
    exec.reply.int(parse_canonical(args[2]).ok_or(Fault::NotInteger)?);
    Ok(())
}
