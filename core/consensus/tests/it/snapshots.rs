//! Snapshots whose names are lost on their way.

use consensus::codec::{self, Descriptor, Message, Said};
use consensus::group::Event;
use consensus::replay::Restored;
use consensus::{Config, Group, Incarnation, Mark, Replica, ReplicaId, Role};
use kernel::{GroupId, Index, Lsn, Micros, Term};

use crate::disk::first_members;

const TICK: u64 = 50_000;

/// A leader, its disk and its clock.
struct Leader {
    replica: Replica,
    end: u64,
    now: Micros,
}

impl Leader {
    /// Lets ticks pass, with a peer that has nothing, says so, and says in each that it is there; what the leader sends.
    fn pass(&mut self, ticks: u64, peer: ReplicaId) -> Vec<Message> {
        let mut sent = Vec::new();
        for _ in 0..ticks {
            self.now = self.now + TICK;
            self.replica.wake(self.now);
            if self.replica.leads() {
                self.hear(peer, Said::Heard { commit: Index(0), read: None });
            }
            let mut now = Vec::new();
            self.settle(&mut now);
            for message in &now {
                if let Said::Append { prev, .. } = message.body {
                    let (hint, hint_term, commit) = (Index(0), Term(0), Index(0));
                    self.hear(peer, Said::Rejected { index: prev, hint, hint_term, commit });
                }
            }
            self.settle(&mut now);
            sent.append(&mut now);
        }
        sent
    }

    fn hear(&mut self, from: ReplicaId, body: Said) {
        let (to, term, incarnation) = (self.replica.id(), self.replica.term(), Incarnation(1));
        let message = Message { group: GroupId(7), from, incarnation, to, term, body };
        let mut bytes = Vec::new();
        codec::encode(&message, &mut bytes);
        // Before it is a member its word does not count.
        let _ = self.replica.receive(self.now, &bytes);
    }

    fn settle(&mut self, sent: &mut Vec<Message>) {
        self.end += self.replica.writes().len() as u64;
        self.replica.wrote(Lsn(self.end));
        self.replica.synced(Lsn(self.end));
        self.replica.turn(self.now);
        while let Some(committed) = self.replica.next_committed() {
            self.replica.applied(committed.index);
        }
        while let Some(event) = self.replica.next_event() {
            if event == Event::MakeSnapshot {
                let mark = self.replica.cut().expect("it has applied something");
                self.replica.offer_snapshot(&Descriptor { generation: 1, size: 1, checksum: 1, mark });
            }
        }
        self.replica.take_messages(sent);
    }
}

fn named(sent: &[Message]) -> usize {
    sent.iter().filter(|message| matches!(message.body, Said::Snapshot(_))).count()
}

#[test]
fn a_snapshot_is_named_again_when_the_link_is_back() {
    let (one, two) = (ReplicaId::new(1).expect("not 0"), ReplicaId::new(2).expect("not 0"));
    let config = Config::new(GroupId(7), one, Incarnation(1), 3);
    let replica = Replica::new(config, Micros(0), Restored::first(Mark::first(first_members(1))));
    let mut leader = Leader { replica, end: 0, now: Micros(0) };
    leader.pass(60, two);
    assert!(leader.replica.leads(), "it is alone");
    leader.replica.change(leader.now, &[(two, Role::Learner)]).expect("it leads");
    assert_eq!(named(&leader.pass(20, two)), 1, "the new one gets a snapshot");
    assert_eq!(named(&leader.pass(60, two)), 0, "and is waited for while it may be fetching it");
    leader.replica.peer_returned(two);
    assert_eq!(named(&leader.pass(20, two)), 1, "until it may have missed that");
    leader.replica.peer_returned(one);
    assert_eq!(named(&leader.pass(20, two)), 0);
}

#[test]
fn a_voter_that_is_handed_leadership_again_is_told_again() {
    let (one, two) = (ReplicaId::new(1).expect("not 0"), ReplicaId::new(2).expect("not 0"));
    let config = Config::new(GroupId(7), one, Incarnation(1), 3);
    let replica = Replica::new(config, Micros(0), Restored::first(Mark::first(first_members(1))));
    let mut leader = Leader { replica, end: 0, now: Micros(0) };
    leader.pass(60, two);
    leader.replica.change(leader.now, &[(two, Role::Voter)]).expect("it leads");
    for _ in 0..20 {
        leader.pass(1, two);
        let index = leader.replica.last();
        leader.hear(two, Said::Appended { index, commit: index });
        leader.settle(&mut Vec::new());
    }
    assert_eq!((leader.replica.members().voters().len(), leader.replica.members().is_joint()), (2, false));
    let mut told = || {
        let mut sent = Vec::new();
        leader.replica.hand_over(leader.now, two).expect("it votes");
        leader.settle(&mut sent);
        sent.iter().filter(|message| matches!(message.body, Said::TimeoutNow)).count()
    };
    assert_eq!([told(), told()], [1, 1], "the first may be lost");
}
