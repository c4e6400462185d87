//! Pops and moves that wait for an element.
//!
//! Such a command is logged like any write. If it finds nothing it says so in `effects.block` and the
//! leader keeps its client waiting; when one of the keys changed, the leader logs it again inside a
//! [`RETRY`], which is how replay knows that it was already waiting.

use alloc::boxed::Box;

use crate::apply::Block;
use crate::command::list::{Course, End, OtherType, PopMany, first_list, move_element};
use crate::command::{ALL_BUT_LAST, Command, Flags, Keys, TWO};
use crate::entry::{Args, next_command};
use crate::object::List;
use crate::object::extended::Extended;
use crate::{Exec, Fault, Origin};

/// The id of another try of a waiting client's command; its argument is that command as in an entry's
/// body.
pub const RETRY: u16 = 6;

const WAITS: Flags = Flags::BLOCKING.and(Flags::NO_SCRIPT);

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::write(RETRY, "archipel.retry", 2, Keys::None, retry).with(Flags::INTERNAL),
    Command::write(0x320, "blpop", -3, ALL_BUT_LAST, blpop).with(WAITS),
    Command::write(0x321, "brpop", -3, ALL_BUT_LAST, brpop).with(WAITS),
    Command::write(0x322, "blmove", 6, TWO, blmove).with(WAITS.and(Flags::DENY_OOM)),
    Command::write(0x323, "brpoplpush", 4, TWO, brpoplpush).with(WAITS.and(Flags::DENY_OOM)),
    Command::write(0x324, "blmpop", -5, Keys::Counted(2), blmpop).with(Flags::BLOCKING),
];

/// Runs the argument's command as that of a client which already waits.
fn retry(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    exec.origin = Origin::Retry;
    let mut inner = Args::new();
    let mut reader = kernel::codec::Reader::new(args[0]);
    let command = next_command(&mut reader, &mut inner).ok().and_then(|id| exec.registry.by_id(id));
    let command = command.expect("a logged retry holds a command that this version wrote");
    exec.run(command, &inner);
    Ok(())
}

/// The answer of a blocking command that may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Otherwise {
    /// Where a byte string was expected.
    Null,
    /// Where an array was expected.
    NullArray,
}

/// Lets the client wait for one of `keys`, for `timeout_ms` or for ever; where nobody may wait, in a
/// transaction or a script, answers `otherwise`.
pub(crate) fn wait(exec: &mut Exec<'_>, keys: &[&[u8]], timeout_ms: Option<u64>, otherwise: Otherwise) {
    match (exec.origin, otherwise) {
        (Origin::Direct | Origin::Retry, _) => {
            let keys = keys.iter().map(|&key| Box::from(key)).collect();
            // Redis 7.0 answers a timeout with a null array whatever the command.
            exec.effects.block = Some(Block { keys, timeout_ms, null_bulk: false });
        }
        (Origin::Transaction | Origin::Script, Otherwise::Null) => exec.reply.null(),
        (Origin::Transaction | Origin::Script, Otherwise::NullArray) => exec.reply.null_array(),
    }
}

/// Seconds as milliseconds, rounded up; `None` for 0, which is for ever.
pub(crate) fn timeout(argument: &[u8]) -> Result<Option<u64>, Fault> {
    let seconds =
        Extended::parse(argument).ok_or(Fault::Text("ERR timeout is not a float or out of range"))?.to_f64();
    let millis = libm::ceil(seconds * 1000.0);
    // What is too large for 64 bits becomes negative in Redis.
    if millis < 0.0 || millis >= i64::MAX as f64 {
        return Err(Fault::Text("ERR timeout is negative"));
    }
    Ok((millis > 0.0).then_some(millis as u64))
}

/// How a blocking command treats a key of another type: an error at first; once it waits, it waits on.
pub(crate) fn other_type(origin: Origin) -> OtherType {
    match origin {
        Origin::Direct | Origin::Transaction | Origin::Script => OtherType::Refuse,
        Origin::Retry => OtherType::PassOver,
    }
}

fn blpop(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    pop(exec, args, End::Front)
}

fn brpop(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    pop(exec, args, End::Back)
}

fn pop(exec: &mut Exec<'_>, args: &[&[u8]], end: End) -> Result<(), Fault> {
    let (last, keys) = args.split_last().expect("the arity has been checked");
    let timeout_ms = timeout(last)?;
    let Some(key) = first_list(exec.store, keys, other_type(exec.origin))? else {
        wait(exec, keys, timeout_ms, Otherwise::NullArray);
        return Ok(());
    };
    let Exec { store, reply, .. } = exec;
    if let Some(mut list) = store.edit::<List>(key)? {
        reply.array(2);
        reply.bulk(key);
        end.pop(&mut list, |element| reply.bulk(element));
    }
    Ok(())
}

fn blmpop(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let pop = PopMany::parse(&args[1..])?;
    let timeout_ms = timeout(args[0])?;
    if !pop.run(exec, other_type(exec.origin))? {
        wait(exec, pop.keys, timeout_ms, Otherwise::NullArray);
    }
    Ok(())
}

fn blmove(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let course = Course { from: End::parse(args[2])?, to: End::parse(args[3])? };
    move_or_wait(exec, args, course)
}

fn brpoplpush(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    move_or_wait(exec, args, Course { from: End::Back, to: End::Front })
}

fn move_or_wait(exec: &mut Exec<'_>, args: &[&[u8]], course: Course) -> Result<(), Fault> {
    let timeout_ms = timeout(args.last().expect("the arity has been checked"))?;
    // A target of another type ends the waiting with an error, a source of another type does not.
    let source = first_list(exec.store, &args[..1], other_type(exec.origin))?;
    match source {
        Some(source) => move_element(exec, source, args[1], course).map(|_| ()),
        None => {
            wait(exec, &args[..1], timeout_ms, Otherwise::Null);
            Ok(())
        }
    }
}
