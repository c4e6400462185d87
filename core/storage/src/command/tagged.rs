//! A forwarded write with its number, which is done once however often it is sent.

use crate::command::{Command, Flags, Keys};
use crate::entry::{Args, next_command, put_command};
use crate::recorded::{Recorder, play};
use crate::store::sessions::{ANSWER_BYTES_MAX, Seen, Tag};
use crate::{Exec, Fault};
use alloc::vec::Vec;
use kernel::Rng;
use kernel::codec::Reader;

/// The id of a forwarded write: its arguments are its [`Tag`], and the command as in an entry's body.
pub const TAGGED: u16 = 8;

/// This family's rows.
pub const COMMANDS: &[Command] =
    &[Command::write(TAGGED, "archipel.tagged", 3, Keys::None, tagged).with(Flags::INTERNAL)];

/// Appends `command`, a write that does not wait, encoded as in an entry's body, with its tag.
pub fn put_tagged(body: &mut Vec<u8>, tag: &Tag, command: &[u8]) {
    let mut bytes = Vec::with_capacity(32);
    tag.encode(&mut bytes);
    put_command(body, TAGGED, &[&bytes, command]);
}

/// Runs the command unless its number was seen before; answers what the first run did.
fn tagged(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let tag = Tag::decode(args[0]).expect("a logged tag is one that this version wrote");
    match exec.store.sessions().look(&tag) {
        Seen::New => {}
        Seen::Gone(fault) => return Err(fault),
        Seen::Done(answer) => {
            play(&answer, exec.reply).expect("a recorded answer is whole");
            return Ok(());
        }
    }
    let mut inner = Args::new();
    let command = next_command(&mut Reader::new(args[1]), &mut inner)
        .ok()
        .and_then(|id| exec.registry.by_id(id))
        .expect("a logged tag stands before a command that this version wrote");
    let mut engine = exec.scripting.take();
    let mut recorder = Recorder::new(&mut *exec.reply, tag.resp3, ANSWER_BYTES_MAX);
    let mut once = Exec {
        store: &mut *exec.store,
        reply: &mut recorder,
        effects: &mut *exec.effects,
        registry: exec.registry,
        scripting: match &mut engine {
            Some(engine) => Some(&mut **engine),
            None => None,
        },
        rng: core::mem::replace(&mut exec.rng, Rng::new(0)),
        // One that waits could be served under the same number twice: it is not tagged, and here it may not wait.
        origin: if command.flags.has(Flags::BLOCKING) { crate::Origin::Transaction } else { exec.origin },
    };
    once.run(command, &inner);
    let answer = recorder.finish();
    exec.scripting = engine;
    let index = exec.store.applied();
    exec.store.sessions_mut().note(&tag, answer, index);
    Ok(())
}
