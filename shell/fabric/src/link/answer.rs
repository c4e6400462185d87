//! Joining: our own request, and the answers to those of others.

use std::net::SocketAddr;

use kernel::Micros;

use super::Cause;
use super::connection::{Aim, Dial, Stage, State};
use super::event::{Event, JoinId};
use super::frame::{ANSWER_BYTES_MAX, Kind};
use super::links::Links;
use crate::join::Token;

/// Requests to join that wait for their answer at once.
pub const JOINS_MAX: usize = 16;

impl Links {
    /// Asks the introducer of `token`, at `address`, to let this node in; `about` tells of it.
    /// [`Event::Joined`] or [`Event::JoinFailed`] follows.
    ///
    /// # Panics
    /// With more than [`crate::join::ABOUT_BYTES_MAX`] about it.
    pub fn join(&mut self, now: Micros, token: &Token, address: SocketAddr, about: Vec<u8>) {
        assert!(about.len() <= crate::join::ABOUT_BYTES_MAX, "what a newcomer tells of itself is small");
        let introducer = token.introducer;
        let aim = Aim::Join(Box::new((token.clone(), about)));
        if self.dial(Dial { node: introducer, aim }, address, now).is_none() {
            self.events.push(Event::JoinFailed { introducer, cause: Cause::NoRoom });
        }
    }

    /// Answers a request to join, and closes its connection. False if it is gone.
    ///
    /// # Panics
    /// With an answer above [`ANSWER_BYTES_MAX`].
    pub fn answer(&mut self, id: JoinId, answer: &[u8]) -> bool {
        assert!(
            answer.len() <= ANSWER_BYTES_MAX,
            "the answer to a newcomer tells of all members and no more"
        );
        let Some(Some(conn)) = self.conns.get_mut(id.slot) else { return false };
        if conn.state.serial != id.serial || !matches!(conn.state.stage, Stage::Joining) {
            return false;
        }
        conn.state.queue(Kind::JoinAnswer, answer);
        conn.state.stage = Stage::Ending;
        self.mark(id.slot);
        true
    }

    pub(super) fn joining(&mut self, state: &mut State, event: Event, now: Micros) -> Result<(), Cause> {
        if self.slots(|conn| matches!(conn.state.stage, Stage::Joining)).count() >= JOINS_MAX {
            return Err(Cause::NoRoom);
        }
        self.release(&mut state.admitted, now);
        state.stage = Stage::Joining;
        state.watch.join(now);
        self.events.push(event);
        Ok(())
    }
}
