//! Pops from sorted sets that wait for a member; see `list_blocking` for how waiting works.

use crate::command::list_blocking::{Otherwise, other_type, timeout, wait};
use crate::command::zset::{End, PopMany, first_zset};
use crate::command::{ALL_BUT_LAST, Command, Flags, Keys};
use crate::object::Zset;
use crate::{Exec, Fault};

const WAITS: Flags = Flags::BLOCKING.and(Flags::NO_SCRIPT).and(Flags::FAST);

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::write(0x660, "bzpopmin", -3, ALL_BUT_LAST, bzpopmin).with(WAITS),
    Command::write(0x661, "bzpopmax", -3, ALL_BUT_LAST, bzpopmax).with(WAITS),
    Command::write(0x662, "bzmpop", -5, Keys::Counted(2), bzmpop).with(Flags::BLOCKING),
];

fn bzpopmin(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    pop(exec, args, End::Min)
}

fn bzpopmax(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    pop(exec, args, End::Max)
}

fn pop(exec: &mut Exec<'_>, args: &[&[u8]], end: End) -> Result<(), Fault> {
    let (last, keys) = args.split_last().expect("the arity has been checked");
    let timeout_ms = timeout(last)?;
    let Some(key) = first_zset(exec.store, keys, other_type(exec.origin))? else {
        wait(exec, keys, timeout_ms, Otherwise::NullArray);
        return Ok(());
    };
    let Exec { store, reply, .. } = exec;
    if let Some(mut zset) = store.edit::<Zset>(key)? {
        reply.array(3);
        reply.bulk(key);
        end.take(&mut zset, 1, |member, score| {
            reply.bulk(member);
            reply.double(score.get());
        });
    }
    Ok(())
}

fn bzmpop(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let pop = PopMany::parse(&args[1..])?;
    let timeout_ms = timeout(args[0])?;
    if !pop.run(exec, other_type(exec.origin))? {
        wait(exec, pop.keys, timeout_ms, Otherwise::NullArray);
    }
    Ok(())
}
