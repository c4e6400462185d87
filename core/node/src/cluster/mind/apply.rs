//! Committed requests change the state, and the host is told what that means for this node.

use consensus::Body;
use control::codec::version_of;
use control::{Diff, Refused, Request};

use super::*;

impl Mind {
    /// Applies what is committed, in order. True if there was something.
    pub(super) fn apply(&mut self) -> bool {
        let mut any = false;
        while !self.outrun
            && let Some(committed) = self.replica.next_committed()
        {
            self.applied_term = committed.term;
            match committed.body {
                Body::Commands(entry) => {
                    self.keep.grew(entry.bytes());
                    let newer = version_of(entry.body()).is_some_and(|it| it > self.options.spoken.newest());
                    match Request::decode(entry.body()) {
                        // To leave it out would be to believe in a cluster that is none.
                        _ if newer => {
                            (self.outrun, self.dropped.unreadable) = (true, self.dropped.unreadable + 1);
                            return any;
                        }
                        Ok(request) => self.apply_request(&request),
                        // No version of these semantics writes such; all replicas leave it out.
                        Err(_) => self.dropped.unreadable += 1,
                    }
                }
                Body::Nothing | Body::Change(_) => self.keep.grew(0),
            }
            self.replica.applied(committed.index);
            self.lead.look_again();
            any = true;
        }
        any
    }

    fn apply_request(&mut self, request: &Request) {
        let result = self.state.apply(request);
        if matches!(request.operation, Operation::Raise { .. }) && result.is_ok() {
            // From now on the disk is to say so itself to an older binary.
            self.keep.want();
        }
        self.lead.applied(self.now, request.id, result.is_ok());
        self.answer(request.id, result.map_err(refusal));
    }

    /// Tells the host what is different for this node since it was last told.
    ///
    /// If a replica is to be stopped, nothing is told before a checkpoint has this state: a restart from an older one would
    /// begin the replica anew, under a number whose votes and entries are deleted.
    pub(super) fn show(&mut self) {
        if self.shown.version() == self.state.version() || self.showing.is_some() {
            return;
        }
        let diff = control::diff(&self.shown, &self.state, self.me);
        let stops = diff.stop.iter().any(|(group, _)| *group != CONTROL);
        let applied = self.replica.last_applied();
        if stops && applied > self.keep.durable() && !is(Bug::StopBeforeCheckpoint) {
            self.showing = Some((applied, self.state.clone()));
            self.keep.want();
        } else {
            self.tell(diff);
            self.shown = self.state.clone();
        }
    }

    /// A checkpoint has everything up to `index`.
    pub(super) fn show_durable(&mut self, index: Index) {
        if let Some((_, state)) = self.showing.take_if(|(at, _)| *at <= index) {
            self.tell(control::diff(&self.shown, &state, self.me));
            self.shown = state;
        }
    }

    /// Nothing is stopped that was not named; links are there before replicas need them and go a while after.
    fn tell(&mut self, diff: Diff) {
        for (group, replica) in diff.stop {
            if group == CONTROL {
                self.expel();
            } else {
                self.out.push(Effect::Stop { group, replica });
            }
        }
        self.out.extend(diff.keyspaces.into_iter().map(Effect::Keyspace));
        self.follow_members();
        // The control group is this machine's own.
        let of_partition = |(group, _): &(GroupId, Duty)| *group != CONTROL;
        let start = diff.start.into_iter().filter(of_partition);
        self.out.extend(start.map(|(group, duty)| Effect::Start { group, duty }));
        let change = diff.change.into_iter().filter(of_partition);
        self.out.extend(change.map(|(group, duty)| Effect::Change { group, duty }));
        self.out.extend(diff.users.into_iter().map(Effect::User));
        self.out.extend(diff.mesh.then_some(Effect::Mesh));
        self.reports.forget_others(&self.state);
    }

    /// A snapshot has taken the place of the state.
    pub(super) fn replace(&mut self, state: State) {
        self.state = state;
        self.lead.look_again();
        // What was asked may be in what was skipped.
        for id in self.asks.ids() {
            let line = self.state.audit().iter().find(|line| line.id == id);
            if let Some(result) = line.map(|line| line.result.clone()) {
                self.answer(id, result);
            }
        }
    }
}

fn refusal(refused: Refused) -> String {
    use alloc::string::ToString;
    refused.to_string()
}
