//! Laws of the wire format.

use consensus::codec::{
    Ballot, Candidacy, Descriptor, Message, PROPOSE_FORBIDDEN, READ_INDEX_FORBIDDEN, ReadContext, Said,
    Unreadable, decode, encode,
};
use consensus::{Change, Incarnation, Logged, Mark, Members, ReplicaId, Role};
use kernel::{GroupId, Index, Micros, Term};
use proptest::prelude::*;

fn id() -> impl Strategy<Value = ReplicaId> {
    (1u64..1 << 40).prop_filter_map("not 0", ReplicaId::new)
}

fn index() -> impl Strategy<Value = Index> {
    (0u64..1 << 50).prop_map(Index)
}

fn term() -> impl Strategy<Value = Term> {
    (0u64..1 << 50).prop_map(Term)
}

fn candidacy() -> impl Strategy<Value = Candidacy> {
    (index(), term(), index(), term(), any::<bool>()).prop_map(
        |(last, last_term, commit, commit_term, handed_over)| Candidacy {
            last,
            last_term,
            commit,
            commit_term,
            handed_over,
        },
    )
}

fn ballot() -> impl Strategy<Value = Ballot> {
    (any::<bool>(), index(), term()).prop_map(|(granted, commit, commit_term)| Ballot {
        granted,
        commit,
        commit_term,
    })
}

fn read() -> impl Strategy<Value = Option<ReadContext>> {
    proptest::option::of((id(), 0u64..1 << 50, any::<u64>()).prop_map(|(replica, life, sequence)| {
        ReadContext { replica, incarnation: Incarnation(life), sequence }
    }))
}

fn entries(prev: Index) -> impl Strategy<Value = Vec<Logged>> {
    let one = (term(), any::<u16>(), any::<u64>(), proptest::collection::vec(any::<u8>(), 0..40), id());
    proptest::collection::vec(one, 0..8).prop_map(move |all| {
        let entry =
            |(at, (term, semantics, time, body, id)): (usize, (Term, u16, u64, Vec<u8>, ReplicaId))| {
                let index = Index(prev.0 + 1 + at as u64);
                if semantics % 4 != 0 {
                    return Logged::new(term, index, semantics, Micros(time), &body);
                }
                let mut change = Vec::new();
                Change::Enter(vec![(id, Role::Learner)]).encode(&mut change);
                Logged::new(term, index, 0, Micros(0), if body.is_empty() { &[] } else { &change })
            };
        all.into_iter().enumerate().map(entry).collect()
    })
}

fn members() -> impl Strategy<Value = Members> {
    (proptest::collection::btree_set(1u64..1000, 1..9), 0usize..9).prop_filter_map(
        "at least a voter",
        |(numbers, learners)| {
            let ids: Vec<ReplicaId> = numbers.into_iter().filter_map(ReplicaId::new).collect();
            let (voters, learners) = ids.split_at(ids.len().saturating_sub(learners).max(1));
            Members::new(voters.iter().copied(), learners.iter().copied()).ok()
        },
    )
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    (any::<u64>(), any::<u64>(), any::<u64>(), 1u64..1 << 50, 1u64..1 << 50, members()).prop_map(
        |(generation, size, checksum, index, term, members)| Descriptor {
            generation,
            size,
            checksum,
            mark: Mark { index: Index(index), term: Term(term), members },
        },
    )
}

fn said() -> impl Strategy<Value = Said> {
    let append = (index(), term(), index()).prop_flat_map(|(prev, prev_term, commit)| {
        entries(prev).prop_map(move |entries| Said::Append { prev, prev_term, commit, entries })
    });
    let rejected = (index(), index(), term(), index())
        .prop_map(|(index, hint, hint_term, commit)| Said::Rejected { index, hint, hint_term, commit });
    prop_oneof![
        candidacy().prop_map(Said::PreVote),
        candidacy().prop_map(Said::Vote),
        ballot().prop_map(Said::PreVoted),
        ballot().prop_map(Said::Voted),
        append,
        (index(), index()).prop_map(|(index, commit)| Said::Appended { index, commit }),
        rejected,
        (index(), read()).prop_map(|(commit, read)| Said::Heartbeat { commit, read }),
        (index(), read()).prop_map(|(commit, read)| Said::Heard { commit, read }),
        descriptor().prop_map(Said::Snapshot),
        index().prop_map(|index| Said::SnapshotRefused { index }),
        Just(Said::TimeoutNow),
        index().prop_map(|commit| Said::Quiesce { commit }),
        Just(Said::Recover),
        (0u64..1 << 50, any::<u64>())
            .prop_map(|(life, number)| Said::HowFar { life: Incarnation(life), number }),
        (0u64..1 << 50, any::<u64>(), index()).prop_map(|(life, number, index)| Said::ThisFar {
            life: Incarnation(life),
            number,
            index
        }),
        (0u64..1 << 50, index()).prop_map(|(life, index)| Said::RecoverTo { life: Incarnation(life), index }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    (any::<u32>(), id(), 0u64..1 << 50, id(), 1u64..1 << 50, said()).prop_map(
        |(group, from, life, to, term, body)| Message {
            group: GroupId(group),
            from,
            incarnation: Incarnation(life),
            to,
            term: Term(term),
            body,
        },
    )
}

proptest! {
    #[test]
    fn what_is_encoded_reads_back(message in message()) {
        let mut bytes = Vec::new();
        encode(&message, &mut bytes);
        prop_assert_eq!(decode(&bytes), Ok(message));
    }

    #[test]
    fn what_is_cut_or_longer_is_refused(message in message(), cut in 1usize..9) {
        let mut bytes = Vec::new();
        encode(&message, &mut bytes);
        prop_assert!(decode(&bytes[..bytes.len().saturating_sub(cut)]).is_err());
        bytes.push(0);
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_a_message_that_reads_back_or_none(mut bytes: Vec<u8>, kind in 0u8..20) {
        let mut head = vec![1, 7, 0, 0, 0, 1, 1, 2, 3, kind];
        head.append(&mut bytes);
        if let Ok(message) = decode(&head) {
            let mut again = Vec::new();
            encode(&message, &mut again);
            prop_assert_eq!(decode(&again), Ok(message));
        }
    }
}

#[test]
fn versions_forbidden_requests_and_term_zero_are_refused_by_name() {
    let head = |version: u8, term: u8, kind: u8| decode(&[version, 7, 0, 0, 0, 1, 1, 2, term, kind]);
    assert!(head(1, 3, 12).is_ok());
    assert_eq!(head(2, 3, 12), Err(Unreadable::Version(2)));
    assert_eq!(head(1, 3, PROPOSE_FORBIDDEN), Err(Unreadable::Forbidden));
    assert_eq!(head(1, 3, READ_INDEX_FORBIDDEN), Err(Unreadable::Forbidden));
    assert!(matches!(head(1, 0, 12), Err(Unreadable::Malformed(_))));
    assert!(matches!(head(1, 3, 63), Err(Unreadable::Malformed(_))));
}

#[test]
fn no_memory_is_taken_for_entries_that_are_not_there() {
    // An append that promises 65,536 entries and has none.
    let bytes = [1, 7, 0, 0, 0, 1, 1, 2, 3, 5, 0, 0, 0, 0x80, 0x80, 0x04];
    assert!(matches!(decode(&bytes), Err(Unreadable::Malformed(_))));
}
