//! What must hold, whatever the network, the disks and the clocks do.
//!
//! * Election safety: one leader a term.
//! * State machine safety: at each index all apply the same entry, in the same term, with the same members after it.
//! * Leader completeness: a leader's log has everything that was committed in an earlier term. (A candidate whose votes were
//!   long on their way may still come to lead a term that is over.)
//! * Log matching: what two logs say of one index and term, they say of all before.
//! * Linearizability: values are written once, so the order of the log is the order of writes; a read must return a write at
//!   or behind every write that was acknowledged, and every write that was read, before it was asked.

use std::collections::BTreeMap;

use consensus::{Members, Replica, ReplicaId};
use kernel::{Index, Term};

use crate::node::State;

/// What the group has agreed on, as the first to apply it saw it.
#[derive(Debug)]
struct Agreed {
    term: Term,
    /// The term in which the first to apply it was: it was committed in that one or before.
    known: Term,
    digest: u64,
    members: Members,
    by: ReplicaId,
}

/// The judge of one run.
#[derive(Default)]
pub struct Judge {
    agreed: BTreeMap<u64, Agreed>,
    leaders: BTreeMap<u64, ReplicaId>,
    /// The newest acknowledged or read write of each register, by its index.
    floors: BTreeMap<u8, u64>,
    pub acknowledged: u64,
    pub reads: u64,
    pub lease_reads: u64,
}

impl Judge {
    pub fn elected(&mut self, replica: &Replica) -> Result<(), String> {
        let (term, id) = (replica.term(), replica.id());
        let first = *self.leaders.entry(term.0).or_insert(id);
        if first != id {
            return Err(format!("{first:?} and {id:?} both lead in term {term}"));
        }
        let earlier = self.agreed.iter().rev().filter(|(_, agreed)| agreed.known < term);
        for (&index, agreed) in earlier.take(64) {
            match replica.term_at(Index(index)) {
                Some(own) if own == agreed.term => {}
                None if index <= replica.last_applied().0 => {}
                own => {
                    return Err(format!(
                        "{id:?} leads in term {term} with {own:?} at {index}, where {:?} applied term {}",
                        agreed.by, agreed.term
                    ));
                }
            }
        }
        Ok(())
    }

    /// `replica` is at `state`, after an entry or a snapshot.
    pub fn applied(&mut self, replica: &Replica, state: &State, term: Term) -> Result<(), String> {
        let index = state.applied;
        let by = replica.id();
        let agreed = self.agreed.entry(index).or_insert_with(|| Agreed {
            term,
            known: replica.term(),
            digest: state.digest,
            members: replica.members().clone(),
            by,
        });
        if (agreed.term, agreed.digest) != (term, state.digest) {
            return Err(format!(
                "{by:?} applied another entry at {index} (term {term}) than {:?} (term {})",
                agreed.by, agreed.term
            ));
        }
        if agreed.members != *replica.members() {
            return Err(format!(
                "after {index} the members are {:?} to {by:?} and {:?} to {:?}",
                replica.members(),
                agreed.members,
                agreed.by
            ));
        }
        if let Some(own) = replica.term_at(Index(index))
            && own != term
        {
            return Err(format!("{by:?} has term {own} at {index} in its log and applied term {term}"));
        }
        Ok(())
    }

    pub fn acknowledge(&mut self, register: u8, index: u64) {
        self.acknowledged += 1;
        self.raise(register, index);
    }

    fn raise(&mut self, register: u8, index: u64) {
        let floor = self.floors.entry(register).or_default();
        *floor = index.max(*floor);
    }

    /// What a read of `register` that is asked now must not be older than.
    pub fn floor(&self, register: u8) -> u64 {
        self.floors.get(&register).copied().unwrap_or(0)
    }

    pub fn answered(&mut self, by: ReplicaId, register: u8, floor: u64, state: &State) -> Result<(), String> {
        self.reads += 1;
        let (value, index) = state.registers.get(&register).copied().unwrap_or((0, 0));
        if index < floor {
            return Err(format!(
                "{by:?} answered a read of register {register} with {value}, written at {index}, \
                 although a write at {floor} was acknowledged or read before it was asked"
            ));
        }
        self.raise(register, index);
        Ok(())
    }

    /// The last index that anyone applied.
    pub fn last(&self) -> u64 {
        self.agreed.keys().next_back().copied().unwrap_or(0)
    }

    /// Compares all logs with each other.
    pub fn logs_match(&self, replicas: &[&Replica]) -> Result<(), String> {
        for (at, one) in replicas.iter().enumerate() {
            for other in &replicas[..at] {
                let mut matches = false;
                for index in (1..=one.last().min(other.last()).0).rev() {
                    let terms = (one.term_at(Index(index)), other.term_at(Index(index)));
                    let (Some(own), Some(theirs)) = terms else { break };
                    if matches && own != theirs {
                        return Err(format!(
                            "{:?} and {:?} agree above {index} and have terms {own} and {theirs} there",
                            one.id(),
                            other.id()
                        ));
                    }
                    matches |= own == theirs;
                }
            }
        }
        Ok(())
    }
}
