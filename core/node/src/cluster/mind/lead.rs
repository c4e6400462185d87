//! What the control group's leader does: it proposes requests, gives the group the members that the state names, and asks
//! for what is planned.

use alloc::collections::VecDeque;

use consensus::group::ChangeError;
use consensus::members::CHANGES_MAX;
use consensus::{Members, Role};
use control::plan::{self, View};
use control::{MEMBERS_MAX, Request};
use kernel::planted::{Bug, is};
use placement::solve::SolveError;

use super::*;
use crate::cluster::formation::{SELF, draw_id};
use crate::cluster::frames::DONE;

/// The plan is made anew after this, in milliseconds, if nothing was heard that asks for it earlier.
const PLAN_MS: u64 = 1_000;
/// A learner that lacks so few entries has caught up.
const BEHIND_MAX: u64 = 64;
/// Leadership that was handed over and not taken is handed over again after this, in milliseconds.
const HAND_OVER_MS: u64 = 2_000;

const _: () = assert!(MEMBERS_MAX <= consensus::members::MEMBERS_MAX);

/// What is kept while this node leads, and only then.
#[derive(Default)]
pub(super) struct Lead {
    leads: bool,
    /// Requests that are to be proposed.
    queue: VecDeque<Request>,
    /// Those in the queue or proposed and not applied.
    known: BTreeSet<OperationId>,
    /// Those that the plan asked for and that are not applied.
    planned: BTreeSet<OperationId>,
    /// Something happened that the plan may depend on.
    look: bool,
    plan_at: Micros,
    /// What was seen when the plan had nothing to ask for.
    content: Option<(u64, View)>,
    hand_over_at: Micros,
    trouble: Option<SolveError>,
}

/// Too many requests wait.
#[derive(Debug)]
pub(super) struct Full;

impl Lead {
    pub fn stands(&mut self, leads: bool) {
        if leads != self.leads {
            *self = Lead { leads, look: leads, ..Lead::default() };
        }
    }

    pub fn deadline(&self) -> Option<Micros> {
        self.leads.then_some(self.plan_at)
    }

    /// Why nothing can be placed.
    pub const fn trouble(&self) -> Option<SolveError> {
        self.trouble
    }

    pub const fn look_again(&mut self) {
        self.look = true;
    }

    /// Whether a turn would propose something.
    pub fn may_go_on(&self) -> bool {
        self.leads && !self.queue.is_empty()
    }

    pub fn enqueue(&mut self, request: Request) -> Result<(), Full> {
        if self.known.contains(&request.id) {
            return Ok(());
        }
        if self.queue.len() >= QUEUE_MAX {
            return Err(Full);
        }
        self.known.insert(request.id);
        self.queue.push_back(request);
        Ok(())
    }

    /// What is to be proposed next, as of `now`.
    pub fn first(&mut self, now: Micros) -> Option<&Request> {
        let first = self.queue.front_mut().filter(|_| self.leads)?;
        first.at = now.millis();
        Some(first)
    }

    /// The first of the queue is in the log.
    pub fn proposed(&mut self, id: OperationId) {
        if self.queue.front().is_some_and(|first| first.id == id) {
            self.queue.pop_front();
        }
    }

    pub fn applied(&mut self, now: Micros, id: OperationId, accepted: bool) {
        self.known.remove(&id);
        if self.planned.remove(&id) && !accepted {
            // What it was planned for has changed, or the plan is wrong: it is not asked in a row.
            self.plan_at = now.plus_millis(PLAN_MS);
        }
    }
}

/// What a group with `members` is to be asked for, so that it has those in `wanted`: empty if it has them. Nobody who is
/// [`Role::Gone`] is in `wanted`.
#[must_use]
pub fn roles(members: &Members, wanted: &BTreeMap<ReplicaId, Role>) -> Vec<(ReplicaId, Role)> {
    let is = |id: ReplicaId| match (members.voters().contains(&id), members.learners().contains(&id)) {
        (true, _) => Some(Role::Voter),
        (false, true) => Some(Role::Learner),
        (false, false) => None,
    };
    let other = wanted.iter().filter(|&(&id, &role)| is(id) != Some(role)).map(|(&id, &role)| (id, role));
    let gone = members.iter().filter(|id| !wanted.contains_key(id)).map(|id| (id, Role::Gone));
    // The lowest numbers first: numbers only grow, so none may be added behind a higher one.
    let mut roles: Vec<_> = gone.chain(other).collect();
    roles.sort_unstable_by_key(|&(id, _)| id);
    roles.truncate(CHANGES_MAX);
    roles
}

impl Mind {
    /// Whether this node leads and knows all that was decided before.
    fn is_in_charge(&self) -> bool {
        self.replica.leads() && self.applied_term == self.replica.term()
    }

    /// The members that the control group should have.
    fn wanted(&self) -> BTreeMap<ReplicaId, Role> {
        let present = self.state.members().values().filter(|member| member.is_present());
        present.map(|member| (member.replica, member.role)).collect()
    }

    /// Gives the group its members. A leader that is to vote no more hands over first.
    pub(super) fn steer(&mut self) {
        if !self.is_in_charge() || self.replica.members().is_joint() {
            return;
        }
        let wanted = self.wanted();
        let mut change = roles(self.replica.members(), &wanted);
        if is(Bug::RemovedStayInGroup) {
            change.retain(|&(_, role)| role != Role::Gone);
        }
        if change.is_empty() {
            return;
        }
        if wanted.get(&self.replica.id()) != Some(&Role::Voter) {
            return self.hand_over(&wanted);
        }
        match self.replica.change(self.now, &change) {
            // One at a time; it is tried again with the next turn.
            Ok(()) | Err(ChangeError::NotYet | ChangeError::NotLeading) => {}
            Err(ChangeError::Used(_) | ChangeError::Unsound) => self.lead.look = true,
        }
    }

    fn hand_over(&mut self, wanted: &BTreeMap<ReplicaId, Role>) {
        if self.now < self.lead.hand_over_at {
            return;
        }
        let votes = |id: &ReplicaId| {
            let alive = self.nodes.get(id).is_some_and(|node| !self.dead.contains_key(node));
            *id != self.replica.id() && wanted.get(id) == Some(&Role::Voter) && alive
        };
        let nearest =
            |id: &ReplicaId| self.replica.progress(*id).filter(|it| it.follows).map(|it| it.matched);
        let voters = self.replica.members().voters().iter().copied();
        let next = voters.filter(votes).filter_map(|id| nearest(&id).map(|matched| (matched, id))).max();
        if let Some((_, id)) = next
            && self.replica.hand_over(self.now, id).is_ok()
        {
            self.lead.hand_over_at = self.now.plus_millis(HAND_OVER_MS);
        }
    }

    /// This node is about to stop: if it leads the control group, another voter that follows it is to lead. Called once.
    pub fn resign(&mut self, now: Micros) {
        self.now = now;
        if self.replica.leads() {
            let wanted = self.wanted();
            self.hand_over(&wanted);
        }
    }

    /// Asks for what is planned, unless something that was planned is on its way.
    pub(super) fn plan(&mut self) {
        let now = self.now;
        if !self.is_in_charge() {
            // Until all is known that was decided before; a tick comes with the group's own timer.
            self.lead.plan_at = now.plus_millis(PLAN_MS);
            return;
        }
        let due = now >= self.lead.plan_at;
        if !self.lead.planned.is_empty() || !due && !self.lead.look {
            self.lead.plan_at = if due { now.plus_millis(PLAN_MS) } else { self.lead.plan_at };
            return;
        }
        self.lead.look = false;
        self.lead.plan_at = now.plus_millis(PLAN_MS);
        let view = self.view();
        let version = self.state.version();
        if self.lead.content.as_ref().is_some_and(|content| content.0 == version && content.1 == view) {
            return;
        }
        match plan::next(&self.state, &view) {
            Ok(planned) if planned.is_empty() => {
                (self.lead.content, self.lead.trouble) = (Some((version, view)), None);
            }
            Ok(planned) => planned.into_iter().for_each(|operation| self.propose(operation)),
            Err(error) => self.lead.trouble = Some(error),
        }
    }

    fn propose(&mut self, operation: Operation) {
        let (id, by) = (draw_id(&mut self.rng), Name::new(SELF).expect("it is a name"));
        let request = Request { id, by, at: self.now.millis(), operation };
        // If there is no room the plan comes back to it.
        if self.lead.enqueue(request).is_ok() {
            self.lead.planned.insert(id);
        }
    }

    /// What this node sees of the cluster, as the plan needs it.
    fn view(&self) -> View {
        let down = self.dead.keys().copied().filter(|&node| self.is_down(node)).collect();
        let last = self.replica.last().0;
        let level = |id: &ReplicaId| {
            let progress = self.replica.progress(*id);
            progress.is_some_and(|it| it.follows && it.matched.0 + BEHIND_MAX >= last)
        };
        let members = self.state.members().values().map(|member| member.replica);
        let mut caught_up: BTreeSet<ReplicaId> = members.filter(level).collect();
        let mut settled = BTreeSet::new();
        if !self.replica.members().is_joint() && roles(self.replica.members(), &self.wanted()).is_empty() {
            settled.insert(CONTROL);
        }
        for (group, partition) in self.state.partitions() {
            let Some(report) = self.reports.of(group) else { continue };
            let done = report.learners.iter().filter(|learner| learner.done == DONE);
            caught_up.extend(done.map(|learner| learner.id));
            if report.settled && (report.epoch == partition.epoch || is(Bug::StaleReportSettles)) {
                settled.insert(group);
            }
        }
        View { down, caught_up, settled, spoken: self.spoken_by_all() }
    }
}
