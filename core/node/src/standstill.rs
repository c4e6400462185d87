//! A keyspace's partitions stand still for a moment, so that a backup of all of them can belong together.
//!
//! Under a ticket a leader says up to where it has proposed, and then proposes nothing until it is told to go on or the time
//! is over. Told to go on, it lets writers go at once, asks a majority whether it led all the while, and waits until what
//! it named is applied. If all leaders said so before the first of them was told to go on, then there is a moment at which
//! all stood still: whatever anybody had committed by then is within what was named, and all of that was proposed by then.
//! So what was acknowledged before something else was sent is never without it.
//!
//! This rests on no clock: whoever proposes breaks the holds whose time is over, and a broken one is not mended. Clients see
//! latency only. What a group says to itself (an entry of a new term, a change of members) is not held.

use alloc::vec::Vec;

use consensus::group::ReadId;
use kernel::planted::{Bug, is};
use kernel::{GroupId, Index, KeyspaceId, Micros, Term};
use thiserror::Error;

use crate::agreement::Agreement;
use crate::partition::{Partition, What};
use crate::worker::Worker;

/// Tickets under which one partition stands at once.
pub const TICKETS_MAX: usize = 4;
/// How long a partition stands still at most, in milliseconds, under however many tickets.
pub const STILL_MS_MAX: u64 = 2000;
/// Behind a standstill there is none for so many times as long: writers have two thirds of the time at least.
const GOES_ON_RATIO: u64 = 2;
/// How long it is remembered what became of a ticket that nobody has forgotten, in milliseconds.
const KEPT_MS: u64 = 10_000;

/// Up to where a partition had come when it began to stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Still {
    /// Which.
    pub group: GroupId,
    /// The last entry that was proposed; 0 if there is none.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// How far it was applied.
    pub applied: Index,
    /// The stamp of that.
    pub time: Micros,
}

/// Why a partition does not stand, or stands no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Moved {
    /// This node serves it no more.
    #[error("its leader changed")]
    NotLeader,
    /// It stood still a moment ago, or does so under this ticket.
    #[error("it stood still just now")]
    Busy,
    /// [`TICKETS_MAX`] others have asked for the same.
    #[error("too many others have it stand still")]
    TooMany,
    /// It was told to go on too late, or is not known any more.
    #[error("its leader was not told in time to go on")]
    Expired,
    /// It lost its leadership, and has it again.
    #[error("its leader was elected anew")]
    TermChanged,
    /// No majority said in time that it leads.
    #[error("no majority of its copies confirmed its leader")]
    NotConfirmed,
    /// Its state cannot be trusted.
    #[error("its data is damaged")]
    Damaged,
}

/// A ticket under which a partition stands, or stood.
#[derive(Debug)]
pub(crate) struct Stand {
    ticket: u64,
    still: Still,
    life: Life,
    /// It is forgotten by itself then.
    kept: Micros,
}

/// What has become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Nothing is proposed until then.
    Held(Micros),
    /// It was only asked how far it is, and is not held.
    Free,
    /// It goes on, and this round asks whether it led until it did; `again`: the round before was lost.
    Asked { round: ReadId, again: bool },
    /// It did; what was named may have to be applied yet.
    Confirmed,
    /// It did, and is applied, whoever leads now.
    Settled,
    /// Nothing can be said.
    Broken(Moved),
}

impl Worker {
    /// Which time it is, as far as this worker knows.
    #[must_use]
    pub const fn now(&self) -> Micros {
        self.now
    }

    /// Time has passed since the last turn.
    pub const fn tell_time(&mut self, now: Micros) {
        self.now = now;
    }

    /// All partitions of keyspace `db` that this worker serves, or none, propose nothing until [`Worker::go_on`] or `until`,
    /// which counts as [`STILL_MS_MAX`] from now at most. Without `until` they are not held, and only say how far they are.
    ///
    /// # Errors
    /// The first partition that cannot, and why; nothing is held then under this ticket.
    pub fn still(
        &mut self,
        now: Micros,
        ticket: u64,
        db: KeyspaceId,
        until: Option<Micros>,
    ) -> Result<Vec<Still>, (GroupId, Moved)> {
        self.now = now;
        let serves =
            |at: &usize| self.partitions[*at].serves() && self.partitions[*at].group_id.keyspace() == db;
        let led: Vec<usize> = (0..self.partitions.len()).filter(serves).collect();
        for &at in &led {
            // Whoever finds a hold whose time is over lets its writers go: nobody else may look again.
            self.wake_still(at);
            let partition = &mut self.partitions[at];
            partition.forget_old_stands(now);
            partition.may_stand(now, ticket, until.is_some()).map_err(|moved| (partition.group_id, moved))?;
        }
        Ok(led.into_iter().map(|at| self.partitions[at].stand(now, ticket, until)).collect())
    }

    /// Those that stand under `ticket` go on, and a majority of each is asked whether it was led from here all the while:
    /// [`Worker::settled`] says when that is known.
    ///
    /// # Errors
    /// The first partition that was not held all the while; the ticket is forgotten then.
    pub fn go_on(&mut self, now: Micros, ticket: u64) -> Result<(), (GroupId, Moved)> {
        self.now = now;
        let all = self.standing_by(ticket);
        for &at in &all {
            if let Err(moved) = self.partitions[at].may_go_on(now, ticket) {
                let group = self.partitions[at].group_id;
                self.forget_still(ticket);
                return Err((group, moved));
            }
        }
        for at in all {
            self.partitions[at].ask_majority(now, ticket);
            self.make_busy(at);
            self.unpark(at);
        }
        Ok(())
    }

    /// What was named under `ticket`, once it is certain that all of it is final and applied here; `None` until then. It is
    /// for who asks to see that this is all that was named: of a partition that is not here any more nothing is known.
    ///
    /// # Errors
    /// The first partition of which that will never be known.
    pub fn settled(&self, ticket: u64) -> Result<Option<Vec<Still>>, (GroupId, Moved)> {
        let mut all = Some(Vec::new());
        for partition in &self.partitions {
            let Some(stand) = partition.stands.iter().find(|stand| stand.ticket == ticket) else { continue };
            let is_settled = match stand.life {
                Life::Settled => true,
                Life::Confirmed => partition.store.applied() >= stand.still.index,
                Life::Held(_) | Life::Free | Life::Asked { .. } => false,
                Life::Broken(moved) => return Err((partition.group_id, moved)),
            };
            match &mut all {
                Some(settled) if is_settled => settled.push(stand.still),
                Some(_) | None => all = None,
            }
        }
        Ok(all)
    }

    /// Nobody asks about `ticket` any more: what it holds goes on.
    pub fn forget_still(&mut self, ticket: u64) {
        for at in self.standing_by(ticket) {
            let (now, partition) = (self.now, &mut self.partitions[at]);
            partition.stands.retain(|stand| stand.ticket != ticket);
            partition.settle_still(now);
            self.unpark(at);
        }
    }

    fn standing_by(&self, ticket: u64) -> Vec<usize> {
        let stands = |partition: &Partition| partition.stands.iter().any(|stand| stand.ticket == ticket);
        (0..self.partitions.len()).filter(|&at| stands(&self.partitions[at])).collect()
    }

    /// A round is answered, or lost, that may ask for a standstill.
    pub(crate) fn still_confirmed(&mut self, at: usize, id: ReadId, index: Option<Index>) {
        let now = self.now;
        let Partition { stands, group, .. } = &mut self.partitions[at];
        let mut asks_again = false;
        for stand in stands {
            let Life::Asked { round, again } = stand.life else { continue };
            if round != id {
                continue;
            }
            let replica = group
                .replica_mut()
                .filter(|replica| replica.term() == stand.still.term || is(Bug::StillOutlivesTerm));
            stand.life = match replica {
                Some(_) if index.is_some() => Life::Confirmed,
                Some(replica) if !again => match replica.confirm(now) {
                    Some(round) => Life::Asked { round, again: true },
                    None => Life::Broken(Moved::NotConfirmed),
                },
                Some(_) => Life::Broken(Moved::NotConfirmed),
                None => Life::Broken(Moved::TermChanged),
            };
            asks_again |= matches!(stand.life, Life::Asked { .. });
        }
        if asks_again {
            // It goes out when the turn ends.
            self.make_busy(at);
        }
    }

    /// A standstill whose time is over ends, and writers go on.
    pub(crate) fn wake_still(&mut self, at: usize) {
        let now = self.now;
        let partition = &mut self.partitions[at];
        if partition.still_since.is_some() && !partition.is_still(now) {
            self.unpark(at);
        }
    }
}

impl Partition {
    fn may_stand(&self, now: Micros, ticket: u64, held: bool) -> Result<(), Moved> {
        if self.store.damaged().is_some() {
            return Err(Moved::Damaged);
        }
        if self.stands.len() >= TICKETS_MAX {
            return Err(Moved::TooMany);
        }
        let is_known = self.stands.iter().any(|stand| stand.ticket == ticket);
        // A standstill that others began may be shared; the time for writers begins when it ends.
        let rests = held && self.still_since.is_none() && now < self.still_after;
        if is_known || rests { Err(Moved::Busy) } else { Ok(()) }
    }

    fn stand(&mut self, now: Micros, ticket: u64, until: Option<Micros>) -> Still {
        let index = self.group.last();
        let still = Still {
            group: self.group_id,
            index,
            // It serves since an entry of this term was applied; a group of one has had no other.
            term: if index == Index(0) { Term(0) } else { self.group.term() },
            applied: self.store.applied(),
            time: self.store.time(),
        };
        let life = match until {
            Some(until) => {
                let since = *self.still_since.get_or_insert(now);
                Life::Held(until.min(since.plus_millis(STILL_MS_MAX)))
            }
            None => Life::Free,
        };
        let kept = now.plus_millis(KEPT_MS + STILL_MS_MAX);
        self.stands.push(Stand { ticket, still, life, kept });
        still
    }

    fn may_go_on(&mut self, now: Micros, ticket: u64) -> Result<(), Moved> {
        self.is_still(now);
        let term = self.group.term();
        let Some(stand) = self.stands.iter().find(|stand| stand.ticket == ticket) else {
            return Err(Moved::Expired);
        };
        match stand.life {
            Life::Broken(moved) => Err(moved),
            _ if !self.serves() => Err(Moved::NotLeader),
            _ if self.replicated && stand.still.term != term && !is(Bug::StillOutlivesTerm) => {
                Err(Moved::TermChanged)
            }
            Life::Held(_) | Life::Free => Ok(()),
            Life::Asked { .. } | Life::Confirmed | Life::Settled => Err(Moved::Busy),
        }
    }

    fn ask_majority(&mut self, now: Micros, ticket: u64) {
        let Some(stand) = self.stands.iter_mut().find(|stand| stand.ticket == ticket) else { return };
        stand.life = match &mut self.group {
            // Its own disk is the majority, and nobody else leads ever.
            Agreement::Solo(_) => Life::Confirmed,
            Agreement::Replica(replica) => match replica.confirm(now) {
                Some(round) => Life::Asked { round, again: false },
                None => Life::Broken(Moved::NotConfirmed),
            },
            Agreement::Gone => Life::Broken(Moved::NotLeader),
        };
        self.settle_still(now);
    }

    /// Whether nothing may be proposed at `now`. A hold whose time is over is broken by this, before anything is proposed.
    pub(crate) fn is_still(&mut self, now: Micros) -> bool {
        if self.still_since.is_none() {
            return false;
        }
        for stand in &mut self.stands {
            if matches!(stand.life, Life::Held(until) if until <= now) {
                stand.life = Life::Broken(Moved::Expired);
            }
        }
        self.settle_still(now);
        self.still_since.is_some()
    }

    /// Whether it serves clients, and its group has not learnt of another leader since the last turn.
    fn serves(&self) -> bool {
        let deposed = self.group.replica().is_some_and(|replica| !replica.leads());
        self.leads && !self.is_gone() && !deposed
    }

    /// Whether what is open must not be proposed.
    pub(crate) fn stands_still(&mut self, now: Micros) -> bool {
        self.is_still(now) && !(is(Bug::GuestsProposeWhenStill) && self.has_guests())
    }

    /// The same; then it is asked again when the partition goes on.
    pub(crate) fn parks(&mut self, now: Micros) -> bool {
        let still = self.stands_still(now);
        self.parked |= still;
        still
    }

    fn has_guests(&self) -> bool {
        self.open.queued.iter().any(|item| matches!(item.what, What::GuestWrite(_)))
    }

    /// When the last hold ends, if there is one.
    pub(crate) fn still_until(&self) -> Option<Micros> {
        let until = |stand: &Stand| match stand.life {
            Life::Held(until) => Some(until),
            Life::Free | Life::Asked { .. } | Life::Confirmed | Life::Settled | Life::Broken(_) => None,
        };
        self.still_since.and_then(|_| self.stands.iter().filter_map(until).max())
    }

    /// It serves no more, and what it said is worth nothing, unless that is in the past for ever.
    pub(crate) fn break_stands(&mut self, now: Micros) {
        if is(Bug::StillOutlivesTerm) {
            return;
        }
        let (applied, replica) = (self.store.applied(), self.group.replica());
        let has = |Still { index, term, .. }: Still| {
            applied >= index && replica.and_then(|replica| replica.term_at(index)) == Some(term)
        };
        for stand in &mut self.stands {
            stand.life = match stand.life {
                Life::Broken(moved) => Life::Broken(moved),
                // Only what is committed is applied, and the log says whether it was this.
                Life::Settled => Life::Settled,
                Life::Confirmed if has(stand.still) => Life::Settled,
                Life::Held(_) | Life::Free | Life::Asked { .. } | Life::Confirmed => {
                    Life::Broken(Moved::NotLeader)
                }
            };
        }
        self.settle_still(now);
    }

    fn forget_old_stands(&mut self, now: Micros) {
        self.stands.retain(|stand| matches!(stand.life, Life::Held(_)) || stand.kept > now);
    }

    /// If nothing holds it any more, its standstill is over, and it is not to stand still again soon.
    fn settle_still(&mut self, now: Micros) {
        let held = self.stands.iter().any(|stand| matches!(stand.life, Life::Held(_)));
        if let Some(since) = self.still_since.take_if(|_| !held) {
            self.still_after = now + now.since(since) * GOES_ON_RATIO;
        }
    }
}
