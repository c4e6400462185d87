//! What must hold at every moment: one history of states, nothing acknowledged lost, nothing done twice.

use std::collections::BTreeMap;

use control::{Digest, OperationId, State};
use kernel::Index;
use node::cluster::mind::{Answer, Ticket};

/// What was asked and is not done twice by itself: a second time it is refused.
#[derive(Clone, Debug)]
pub struct Asked {
    /// None if the mind drew it.
    pub id: Option<OperationId>,
    pub what: String,
    pub since: u64,
    pub answer: Option<Answer>,
}

#[derive(Default)]
pub struct Judge {
    /// The state at each index, the same everywhere.
    history: BTreeMap<u64, Digest>,
    pub asked: BTreeMap<Ticket, Asked>,
    pub newest: Option<(u64, State)>,
}

impl Judge {
    /// A node has applied everything up to `index`. If nobody was so far: the newest state before.
    pub fn applied(&mut self, index: Index, state: &State) -> Result<Option<State>, String> {
        if state.cluster().is_none() {
            return Ok(None);
        }
        let digest = state.digest();
        let known = *self.history.entry(index.0).or_insert(digest);
        if known != digest {
            return Err(format!("two states at index {index}"));
        }
        if self.newest.as_ref().is_some_and(|(newest, _)| *newest >= index.0) {
            return Ok(None);
        }
        Ok(self.newest.replace((index.0, state.clone())).map(|(_, before)| before))
    }

    pub fn answered(&mut self, ticket: Ticket, answer: Answer) -> Result<(), String> {
        let asked = self.asked.get_mut(&ticket).ok_or("an answer to nothing")?;
        if asked.answer.is_some() {
            return Err(format!("{ticket:?} was answered twice"));
        }
        if let Answer::Refused(text) = &answer
            && text.contains("exists already")
        {
            return Err(format!("{} was done twice: {text}", asked.what));
        }
        asked.answer = Some(answer);
        Ok(())
    }

    /// At the end: what was acknowledged is in the trail, what was said not to have happened is not.
    pub fn settle(&self, state: &State) -> Result<(), String> {
        for asked in self.asked.values() {
            let Some(id) = asked.id else { continue };
            let line = state.audit().iter().find(|line| line.id == id);
            match &asked.answer {
                None => return Err(format!("{} was never answered", asked.what)),
                Some(Answer::Done(_)) if line.is_none_or(|line| line.result.is_err()) => {
                    return Err(format!("{} was acknowledged and is lost", asked.what));
                }
                Some(Answer::NoLeader | Answer::Busy) if line.is_some() => {
                    return Err(format!("{} was said not to have happened", asked.what));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}
