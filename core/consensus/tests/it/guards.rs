//! No message makes a replica panic, and each that would break the engine is refused by its own reason.

use consensus::codec::{Candidacy, Descriptor, Message, Said, encode};
use consensus::group::{Refusal, Standing};
use consensus::replay::{Restored, Tail};
use consensus::{Body, Config, Group, Incarnation, Logged, Mark, Members, Replica, ReplicaId};
use kernel::{GroupId, Index, Lsn, Micros, Rng, Term};

use crate::disk::first_members;

const GROUP: GroupId = GroupId(7);

fn id(number: u64) -> ReplicaId {
    ReplicaId::new(number).expect("not 0")
}

fn entry(index: u64, term: u64) -> Logged {
    Logged::new(Term(term), Index(index), 1, Micros(0), b"body")
}

/// Replica 2 of three, with entries 2 to 5 of term 3, of which all up to 3 are committed.
fn follower(tail: Tail) -> Replica {
    let mark = Mark { index: Index(3), term: Term(3), members: first_members(3) };
    let restored = Restored {
        hard: (Term(3), None),
        mark,
        base: (Index(1), Term(1)),
        entries: (2..6).map(|index| entry(index, 3)).collect(),
        committed: Index(3),
        tail,
        repair: None,
    };
    Replica::new(Config::new(GROUP, id(2), Incarnation(1), 9), Micros(0), restored)
}

/// The same, an election timeout after its start: no lease of an earlier life holds any more.
fn waited(tail: Tail) -> Replica {
    let mut replica = follower(tail);
    for tick in 1..=12 {
        replica.wake(Micros(tick * 50_000));
    }
    assert_eq!(replica.standing(), Standing::Follower(None), "it does not campaign with this seed");
    replica
}

const LATER: Micros = Micros(600_000);

fn from(sender: u64, term: u64, body: Said) -> Vec<u8> {
    let (from, to) = (id(sender), id(2));
    let message = Message { group: GROUP, from, incarnation: Incarnation(4), to, term: Term(term), body };
    let mut bytes = Vec::new();
    encode(&message, &mut bytes);
    bytes
}

fn append(prev: u64, prev_term: u64, entries: Vec<Logged>) -> Said {
    Said::Append { prev: Index(prev), prev_term: Term(prev_term), commit: Index(0), entries }
}

fn candidacy(last: u64, last_term: u64) -> Candidacy {
    let (commit, commit_term) = (Index(0), Term(0));
    Candidacy { last: Index(last), last_term: Term(last_term), commit, commit_term, handed_over: false }
}

fn snapshot(index: u64, term: u64, members: Members) -> Said {
    let mark = Mark { index: Index(index), term: Term(term), members };
    Said::Snapshot(Descriptor { generation: 1, size: 1, checksum: 1, mark })
}

#[test]
fn what_would_break_the_engine_is_refused_by_its_reason() {
    let others = Members::new([id(1), id(3)], []).expect("sound");
    #[rustfmt::skip] // columns
    let table = [
        // a wiped follower: the engine ends its process at `to_commit`
        (from(1, 4, Said::Heartbeat { commit: Index(6), read: None }), Err(Refusal::BeyondLog)),
        (from(1, 4, Said::Heartbeat { commit: Index(5), read: None }), Ok(())),
        // a term 0 matches whatever the log has not
        (from(1, 4, append(9, 0, vec![entry(10, 4)])), Err(Refusal::Inconsistent)),
        (from(1, 4, append(0, 3, vec![])),             Err(Refusal::Inconsistent)),
        // terms of entries go up, to the message's at most
        (from(1, 4, append(5, 3, vec![entry(6, 2)])),  Err(Refusal::Inconsistent)),
        (from(1, 4, append(5, 3, vec![entry(6, 5)])),  Err(Refusal::Inconsistent)),
        (from(1, 4, append(5, 3, vec![entry(6, 4)])),  Ok(())),
        (from(1, 4, append(9, 4, vec![])),             Ok(())), // the engine says where it differs
        // what is committed here was another entry
        (from(1, 4, append(2, 3, vec![entry(3, 4)])),  Err(Refusal::Diverged)),
        (from(1, 4, append(3, 2, vec![])),             Err(Refusal::Diverged)),
        (from(1, 4, append(4, 2, vec![])),             Ok(())), // not committed: the leader is right
        // answers that nobody asked for
        (from(1, 3, Said::Voted(consensus::codec::Ballot { granted: true, commit: Index(0), commit_term: Term(0) })),
            Err(Refusal::Unasked)),
        (from(1, 2, Said::Appended { index: Index(5), commit: Index(5) }), Err(Refusal::Stale)),
        // a higher term in them would make it forget its leader, whose lease it granted
        (from(1, 4, Said::Appended { index: Index(5), commit: Index(5) }), Err(Refusal::Unasked)),
        (from(1, 4, Said::Rejected { index: Index(5), hint: Index(4), hint_term: Term(3), commit: Index(4) }), Err(Refusal::Unasked)),
        (from(1, 4, Said::Heard { commit: Index(0), read: None }),         Err(Refusal::Unasked)),
        (from(1, 3, Said::SnapshotRefused { index: Index(5) }), Err(Refusal::Unasked)),
        // candidates
        (from(1, 4, Said::Vote(candidacy(5, 5))),      Err(Refusal::Inconsistent)),
        (from(1, 4, Said::Vote(candidacy(0, 2))),      Err(Refusal::Inconsistent)),
        (from(1, 4, Said::Vote(candidacy(5, 3))),      Ok(())),
        // snapshots
        (from(1, 4, snapshot(9, 5, first_members(3))), Err(Refusal::Inconsistent)),
        (from(1, 4, snapshot(9, 4, others)),           Err(Refusal::Inconsistent)),
        (from(1, 4, snapshot(3, 2, first_members(3))), Err(Refusal::Diverged)),
        (from(1, 4, snapshot(9, 4, first_members(3))), Ok(())),
        (from(1, 4, snapshot(2, 3, first_members(3))), Ok(())), // answered: it has that
        // strangers
        (from(4, 4, Said::TimeoutNow),                 Err(Refusal::NoMember)),
        (from(2, 4, Said::TimeoutNow),                 Err(Refusal::NoMember)),
        (vec![1, 7, 0, 0, 0, 1, 1, 2, 3, 64],          Err(Refusal::Forbidden)),
        (vec![1, 8, 0, 0, 0, 1, 1, 2, 3, 12],          Err(Refusal::OtherGroup)),
        (vec![1, 7, 0, 0, 0, 1, 1, 3, 3, 12],          Err(Refusal::OtherReplica)),
        (vec![9],                                      Err(Refusal::Malformed)),
    ];
    for (at, (bytes, expected)) in table.into_iter().enumerate() {
        let mut replica = waited(Tail::Certain);
        assert_eq!(replica.receive(LATER, &bytes), expected, "row {at}");
        if let Err(reason) = expected {
            assert_eq!(replica.refusals().count(reason), 1, "row {at}");
        }
    }
}

#[test]
fn an_earlier_life_of_a_peer_and_a_removed_peer_are_not_heard() {
    let mut replica = follower(Tail::Certain);
    let beat = |life: u64| {
        let (from, to, body) = (id(1), id(2), Said::Heartbeat { commit: Index(0), read: None });
        let mut bytes = Vec::new();
        let incarnation = Incarnation(life);
        encode(&Message { group: GROUP, from, incarnation, to, term: Term(4), body }, &mut bytes);
        bytes
    };
    assert_eq!(replica.receive(LATER, &beat(5)), Ok(()));
    assert_eq!(replica.receive(LATER, &beat(4)), Err(Refusal::Replaced));
    let members = Members::new([id(2), id(3)], []).expect("sound");
    let mark = Mark { index: Index(3), term: Term(3), members };
    let config = Config::new(GROUP, id(2), Incarnation(1), 9);
    let mut replica = Replica::new(config, Micros(0), Restored::first(mark));
    assert_eq!(replica.receive(LATER, &beat(9)), Err(Refusal::Removed));
}

#[test]
fn a_recovering_replica_and_one_just_started_vote_for_nobody() {
    let vote = from(1, 4, Said::Vote(candidacy(5, 3)));
    assert_eq!(waited(Tail::Ambiguous).receive(LATER, &vote), Err(Refusal::Recovering));
    let mut replica = waited(Tail::Ambiguous);
    replica.end_recovery();
    assert_eq!(replica.receive(LATER, &vote), Ok(()));
    let handed = Candidacy { handed_over: true, ..candidacy(5, 3) };
    #[rustfmt::skip] // columns
    let table = [
        // what is said                                    woken so often  it is
        (Said::Vote(candidacy(5, 3)),                      0,              Err(Refusal::Leased)),
        (Said::PreVote(candidacy(5, 3)),                   0,              Err(Refusal::Leased)),
        (Said::Vote(candidacy(5, 3)),                      10,             Err(Refusal::Leased)),
        (Said::Vote(candidacy(5, 3)),                      11,             Ok(())),
        (Said::PreVote(candidacy(5, 3)),                   11,             Ok(())),
        (Said::Vote(handed),                               0,              Ok(())), // its leader gave up its lease
        (Said::Heartbeat { commit: Index(0), read: None }, 0,              Ok(())),
    ];
    for (said, wakes, expected) in table {
        let mut replica = follower(Tail::Certain);
        // The clock is set ahead by a day: that is two ticks, and not a thousand.
        let day = Micros(86_400_000_000);
        (1..=wakes).for_each(|wake| replica.wake(day + wake * 50_000));
        let text = format!("{said:?} after {wakes}");
        assert_eq!(replica.receive(day + wakes * 50_000, &from(1, 4, said)), expected, "{text}");
    }
}

/// Nobody else wakes a voter that fell asleep as soon as it was started.
#[test]
fn a_voter_that_sleeps_waits_from_when_it_is_asked() {
    let mut replica = follower(Tail::Certain);
    let now = Micros(10_000);
    assert_eq!(replica.receive(now, &from(1, 4, Said::Heartbeat { commit: Index(5), read: None })), Ok(()));
    let end = Lsn(replica.writes().len() as u64);
    replica.wrote(end);
    replica.synced(end);
    replica.turn(now);
    while let Some(committed) = replica.next_committed() {
        replica.applied(committed.index);
    }
    assert_eq!(replica.receive(now, &from(1, 4, Said::Quiesce { commit: Index(5) })), Ok(()));
    assert!(replica.is_asleep() && replica.deadline().is_none());
    let vote = from(3, 5, Said::PreVote(candidacy(5, 3)));
    assert_eq!(replica.receive(now, &vote), Err(Refusal::Leased));
    assert!(!replica.is_asleep(), "it would wait for ever");
}

/// A mark at no index could not be read back, and would be taken for the end of an earlier replica's log.
#[test]
fn a_replica_that_has_got_nothing_has_nothing_to_checkpoint() {
    let config = Config::new(GROUP, id(4), Incarnation(1), 9);
    let replica = Replica::joining(config, Micros(0), first_members(3), (Term(0), None));
    assert_eq!(replica.cut(), None);
    assert!(follower(Tail::Certain).cut().is_some());
}

/// Any sound message, with small numbers, so that they meet what the replica has.
fn any_said(rng: &mut Rng) -> Said {
    let mut small = |bound: u64| rng.below(bound);
    let (a, b, c, d) = (small(12), small(7), small(12), small(7));
    let granted = d.is_multiple_of(2);
    match small(17) {
        0 => Said::PreVote(Candidacy { commit: Index(c), commit_term: Term(d), ..candidacy(a, b) }),
        1 => Said::Vote(Candidacy { handed_over: granted, ..candidacy(a, b) }),
        2 => Said::PreVoted(consensus::codec::Ballot { granted, commit: Index(c), commit_term: Term(d) }),
        3 => Said::Voted(consensus::codec::Ballot { granted, commit: Index(c), commit_term: Term(d) }),
        4..=6 => {
            let entries = (0..small(4)).map(|at| entry(a + 1 + at, b + at / 2)).collect();
            Said::Append { prev: Index(a), prev_term: Term(b), commit: Index(c), entries }
        }
        7 => Said::Appended { index: Index(a), commit: Index(c) },
        8 => Said::Rejected { index: Index(a), hint: Index(c), hint_term: Term(d), commit: Index(b) },
        9 => Said::Heartbeat { commit: Index(c), read: None },
        10 => Said::Heard { commit: Index(c), read: None },
        11 => snapshot(a + 1, b + 1, first_members(3)),
        12 => Said::TimeoutNow,
        13 => Said::Quiesce { commit: Index(c) },
        14 => Said::HowFar { life: Incarnation(1), number: a },
        15 => Said::ThisFar { life: Incarnation(1), number: a, index: Index(c) },
        _ => Said::RecoverTo { life: Incarnation(1), index: Index(a) },
    }
}

/// Peers that follow no protocol at all: sound messages in any order, to a host that does its part.
#[test]
fn no_sequence_of_messages_makes_a_replica_panic() {
    for seed in 0..4000 {
        let mut rng = Rng::new(seed);
        let tail = if rng.chance(0.2) { Tail::Ambiguous } else { Tail::Certain };
        let mut replica = if rng.chance(0.7) { waited(tail) } else { follower(tail) };
        let (mut now, mut end, mut staged) = (LATER, 0, Vec::new());
        for _ in 0..60 {
            now = now + rng.below(120_000);
            let (sender, term) = (1 + 2 * rng.below(2), 1 + rng.below(7));
            let _ = replica.receive(now, &from(sender, term, any_said(&mut rng)));
            replica.wake(now);
            if rng.chance(0.7) {
                end += replica.writes().len() as u64;
                replica.wrote(Lsn(end));
            }
            if rng.chance(0.7) {
                replica.synced(Lsn(end));
            }
            if rng.chance(0.1) {
                replica.read(now);
            }
            replica.turn(now);
            while let Some(event) = replica.next_event() {
                match event {
                    consensus::group::Event::FetchSnapshot { descriptor, .. } => staged.push(descriptor),
                    consensus::group::Event::InstallSnapshot(descriptor) => {
                        replica.snapshot_installed(descriptor.mark.index);
                    }
                    _ => {}
                }
            }
            if let Some(descriptor) = staged.pop() {
                replica.snapshot_staged(descriptor.generation);
            }
            while let Some(committed) = replica.next_committed() {
                assert!(!matches!(committed.body, Body::Change(_)), "nobody proposed one");
                replica.applied(committed.index);
            }
            replica.take_messages(&mut Vec::new());
        }
    }
}

/// Two ask at one moment whether they would be elected: one of them gives way, and both are not told that they would be.
#[test]
fn of_two_that_ask_at_once_the_one_with_the_lower_number_gives_way() {
    let asks = |last: u64| Said::PreVote(candidacy(last, 3));
    #[rustfmt::skip] // columns
    let table = [
        // from  its last  ticks since ours  it is
        (1,      5,        0,                Err(Refusal::Rival)),
        (1,      4,        1,                Err(Refusal::Rival)),
        (1,      6,        0,                Ok(())), // only it can be elected
        (3,      5,        0,                Ok(())), // it goes before us
        (1,      5,        2,                Ok(())), // and may not have heard us
    ];
    for (sender, last, ticks, expected) in table {
        let mut replica = follower(Tail::Certain);
        let mut sent = Vec::new();
        let asked = (1..24).find(|tick| {
            replica.wake(Micros(tick * 50_000));
            replica.take_messages(&mut sent);
            sent.drain(..).any(|message| matches!(message.body, Said::PreVote(_)))
        });
        let asked = asked.expect("it asks in time");
        (1..=ticks).for_each(|tick| replica.wake(Micros((asked + tick) * 50_000)));
        let now = Micros((asked + ticks) * 50_000);
        let got = replica.receive(now, &from(sender, replica.term().0 + 1, asks(last)));
        assert_eq!(got, expected, "{sender} {last} {ticks}");
    }
}

/// The ticks at which it asks to be elected: replica 1 would vote for it, and has then voted for itself.
fn campaigns(replica: &mut Replica, ticks: core::ops::Range<u64>) -> Vec<u64> {
    let (mut sent, mut end) = (Vec::new(), 0);
    let granted =
        Said::PreVoted(consensus::codec::Ballot { granted: true, commit: Index(0), commit_term: Term(0) });
    let mut asks = |tick: &u64| {
        let now = Micros(tick * 50_000);
        replica.wake(now);
        replica.take_messages(&mut sent);
        let asked = sent.drain(..).any(|message| matches!(message.body, Said::PreVote(_)));
        if asked {
            let next = replica.term().0 + 1;
            assert_eq!(replica.receive(now, &from(1, next, granted.clone())), Ok(()));
            assert_eq!(replica.term(), Term(next));
        }
        end += replica.writes().len() as u64;
        replica.wrote(Lsn(end));
        replica.synced(Lsn(end));
        asked
    };
    ticks.filter(&mut asks).collect()
}

#[test]
fn after_divided_votes_half_a_timeout_is_waited_for_once() {
    for seed in 0..200 {
        let mark = Mark { index: Index(1), term: Term(1), members: first_members(3) };
        let config = Config::new(GROUP, id(2), Incarnation(1), seed);
        let mut replica = Replica::new(config, Micros(0), Restored::first(mark));
        let mut began = 0;
        for _ in 0..3 {
            let tried = campaigns(&mut replica, began + 1..began + 100);
            let waits: Vec<u64> = tried.windows(2).map(|two| two[1] - two[0]).collect();
            assert!((12..24).contains(&(tried[0] - began)), "seed {seed}: {tried:?}");
            assert!((6..=12).contains(&waits[0]), "seed {seed}: {tried:?}");
            assert!(
                waits.len() > 1 && waits[1..].iter().all(|wait| (12..24).contains(wait)),
                "seed {seed}: {tried:?}"
            );
            // Then a leader is heard: the next silence is as the first.
            began += 99;
            let beat = Said::Heartbeat { commit: Index(0), read: None };
            let heard = replica.receive(Micros(began * 50_000), &from(1, replica.term().0, beat));
            assert_eq!(heard, Ok(()));
        }
    }
}

/// How two followers of a leader that fell silent went on.
#[derive(Debug, Default)]
struct Election {
    /// Who was elected, and after how many ticks of silence.
    elected: Option<(u64, u64)>,
    /// How often each of the two asked.
    asked: [u32; 2],
}

/// Replicas 2 and 3 of three, whose clocks are `skew` microseconds apart, once replica 1 leads and is not heard any more.
fn succession(seed: u64, lasts: [u64; 2], skew: u64) -> Election {
    let group = GroupId(seed as u32 / 2);
    let mut replicas = [2, 3].map(|number| {
        let (start, last) = if number == 2 { (0, lasts[0]) } else { (skew, lasts[1]) };
        let restored = Restored {
            hard: (Term(3), None),
            mark: Mark { index: Index(1), term: Term(1), members: first_members(3) },
            base: (Index(1), Term(1)),
            entries: (2..=last).map(|index| entry(index, 3)).collect(),
            committed: Index(1),
            tail: Tail::Certain,
            repair: None,
        };
        let config = Config::new(group, id(number), Incarnation(1), seed * 2 + number);
        Replica::new(config, Micros(start), restored)
    });
    let mut ends = [0; 2];
    let mut election = Election::default();
    // Their leader is heard for a timeout, so that none holds back for an earlier life.
    const SILENCE: u64 = 14 * 50_000;
    for at in (0..SILENCE + 40 * 50_000).step_by(5000) {
        let mut sent = Vec::new();
        for (index, replica) in replicas.iter_mut().enumerate() {
            if at <= SILENCE && at.is_multiple_of(100_000) {
                let beat = Said::Heartbeat { commit: Index(0), read: None };
                let to = id(2 + index as u64);
                let message = Message {
                    group,
                    from: id(1),
                    incarnation: Incarnation(4),
                    to,
                    term: Term(3),
                    body: beat,
                };
                let mut bytes = Vec::new();
                encode(&message, &mut bytes);
                assert_eq!(replica.receive(Micros(at), &bytes), Ok(()));
            }
            replica.wake(Micros(at));
            replica.turn(Micros(at));
            ends[index] += replica.writes().len() as u64;
            replica.wrote(Lsn(ends[index]));
            replica.synced(Lsn(ends[index]));
            replica.turn(Micros(at));
            if replica.standing() == Standing::Leader && election.elected.is_none() {
                election.elected = Some((2 + index as u64, (at - SILENCE) / 50_000));
            }
            replica.take_messages(&mut sent);
        }
        for message in sent.into_iter().filter(|message| message.to != id(1)) {
            let index = usize::from(message.from == id(3));
            election.asked[index] += u32::from(matches!(message.body, Said::PreVote(_)));
            let mut bytes = Vec::new();
            encode(&message, &mut bytes);
            let _ = replicas[1 - index].receive(Micros(at), &bytes);
        }
    }
    election
}

#[test]
fn followers_of_a_leader_that_is_gone_stand_in_turn() {
    let mut elected = [0; 2];
    for seed in 0..400 {
        let election = succession(seed, [5, 5], seed % 51 * 1000);
        let (who, after) = election.elected.expect("two of three elect one");
        assert!(after <= 18 && election.asked.iter().sum::<u32>() == 1, "seed {seed}: {election:?}");
        elected[usize::from(who == 3)] += 1;
    }
    assert!(elected.iter().all(|count| *count >= 100), "one node would lead nearly all: {elected:?}");
}

#[test]
fn who_cannot_be_elected_leaves_it_to_the_next() {
    for seed in 0..400 {
        let election = succession(seed, [6, 5], seed % 51 * 1000);
        let (who, after) = election.elected.expect("the one with all entries is elected");
        assert!(who == 2 && after <= 24, "seed {seed}: {election:?}");
    }
}
