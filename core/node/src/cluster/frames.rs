//! What nodes say to each other besides clients' commands, as bytes.
//!
//! A frame begins with its [`kind`]. Liveness and the desired state are written and read here. Every count is checked against its limit before memory is taken, and no bytes
//! of a peer make anything here panic.

use alloc::vec::Vec;

use consensus::ReplicaId;
use control::{CONTROL, OperationId, Request, Roster};
use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};
use kernel::{GroupId, NodeId, Term};
use p2p::swim;

use super::{Lane, kind};

/// Partitions that one frame reports on, at most.
pub const REPORTS_MAX: usize = 1024;
/// Learners of one partition that are reported on, at most.
pub const LEARNERS_MAX: usize = 4;
/// Bytes of a state that one frame carries, at most.
pub const PART_BYTES_MAX: usize = 256 * 1024;
/// [`Learner::done`] of one that has caught up.
pub const DONE: u16 = 1000;

/// What the leader of a partition sees of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The term in which it leads.
    pub term: Term,
    /// The epoch of the desired state that it compares with.
    pub epoch: u64,
    /// The group has, committed and not joint, the members that the desired state names at that epoch.
    pub settled: bool,
    /// How far those who learn have come; at most [`LEARNERS_MAX`].
    pub learners: Vec<Learner>,
}

/// How far a learner has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learner {
    /// Which.
    pub id: ReplicaId,
    /// Thousandths; [`DONE`] when it has what its group has.
    pub done: u16,
}

/// Why a member does not take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declined {
    /// It does not lead the control group; perhaps this one does.
    NotLeading(Option<NodeId>),
    /// It has too many.
    Busy,
}

/// What members say to each other about the desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// To the control group's leader: propose this. Who asks sees what came of it in the group's log.
    Ask(Request),
    /// The answer, if it was not taken: it is certain that this asking did nothing.
    Declined {
        /// Which request.
        id: OperationId,
        /// Why.
        because: Declined,
    },
    /// To the control group's leader: what leaders of partitions see; at most [`REPORTS_MAX`].
    Reports(Vec<(GroupId, Report)>),
    /// To the control group's leader: which epochs are these groups at? Asked by who leads them in these terms; at most
    /// [`REPORTS_MAX`].
    Whether(Vec<(GroupId, Term)>),
    /// The answer, true at a moment after it was asked.
    Confirmed(Vec<(GroupId, Term, u64)>),
    /// At the beginning of a link: what the sender knows is of this version.
    Hello {
        /// The version of its state or roster.
        version: u64,
    },
    /// To who knows less: the members.
    Roster(Roster),
    /// To who was removed.
    Farewell {
        /// The version of the state in which it is gone.
        version: u64,
    },
    /// Send bytes of this snapshot of the state.
    Pull {
        /// Which.
        generation: u64,
        /// From where.
        offset: u64,
    },
    /// Bytes of a snapshot of the state.
    Part {
        /// Which.
        generation: u64,
        /// Where they belong.
        offset: u64,
        /// 1 to [`PART_BYTES_MAX`].
        bytes: Vec<u8>,
    },
    /// There is no such snapshot any more.
    NoPart {
        /// Which.
        generation: u64,
    },
}

const ASK: u8 = 0;
const NOT_LEADING: u8 = 1;
const BUSY: u8 = 2;
const REPORTS: u8 = 3;
const HELLO: u8 = 4;
const ROSTER: u8 = 5;
const PULL: u8 = 6;
const PART: u8 = 7;
const NO_PART: u8 = 8;
const FAREWELL: u8 = 9;
const WHETHER: u8 = 10;
const CONFIRMED: u8 = 11;

impl Said {
    /// The whole frame.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let mut out = Vec::from([kind::CONTROL]);
        match self {
            Said::Ask(request) => {
                out.push(ASK);
                out.extend(request.encode());
            }
            Said::Declined { id, because: Declined::NotLeading(leader) } => {
                out.push(NOT_LEADING);
                out.extend(id.0);
                leader.iter().for_each(|leader| out.extend(leader.0));
            }
            Said::Declined { id, because: Declined::Busy } => {
                out.push(BUSY);
                out.extend(id.0);
            }
            Said::Reports(reports) => {
                assert!(reports.len() <= REPORTS_MAX, "a frame reports on few partitions");
                out.push(REPORTS);
                put_varint(&mut out, reports.len() as u64);
                reports.iter().for_each(|(group, report)| put_report(*group, report, &mut out));
            }
            Said::Whether(groups) => {
                assert!(groups.len() <= REPORTS_MAX, "a frame asks for few partitions");
                put_numbers(&mut out, WHETHER, &[groups.len() as u64]);
                for (group, term) in groups {
                    out.extend(group.0.to_le_bytes());
                    put_varint(&mut out, term.0);
                }
            }
            Said::Confirmed(groups) => {
                assert!(groups.len() <= REPORTS_MAX, "a frame answers for few partitions");
                put_numbers(&mut out, CONFIRMED, &[groups.len() as u64]);
                for (group, term, epoch) in groups {
                    out.extend(group.0.to_le_bytes());
                    put_varint(&mut out, term.0);
                    put_varint(&mut out, *epoch);
                }
            }
            Said::Hello { version } => put_numbers(&mut out, HELLO, &[*version]),
            Said::Roster(roster) => {
                out.push(ROSTER);
                out.extend(roster.encode());
            }
            Said::Farewell { version } => put_numbers(&mut out, FAREWELL, &[*version]),
            Said::Pull { generation, offset } => put_numbers(&mut out, PULL, &[*generation, *offset]),
            Said::Part { generation, offset, bytes } => {
                assert!(bytes.len() <= PART_BYTES_MAX, "a part of a snapshot is small");
                put_numbers(&mut out, PART, &[*generation, *offset]);
                put_bytes(&mut out, bytes);
            }
            Said::NoPart { generation } => put_numbers(&mut out, NO_PART, &[*generation]),
        }
        out
    }

    /// What a frame says, without its first byte, the kind.
    ///
    /// # Errors
    /// [`DecodeError`]; no memory is taken for what is not there or is too much.
    pub fn decode(bytes: &[u8]) -> Result<Said, DecodeError> {
        let mut reader = Reader::new(bytes);
        let said = match reader.u8()? {
            // The rest is theirs, to its end.
            ASK => return Request::decode(reader.rest()).map(Said::Ask),
            ROSTER => return Roster::decode(reader.rest()).map(Said::Roster),
            NOT_LEADING => {
                let id = OperationId(reader.array()?);
                let leader = if reader.is_empty() { None } else { Some(NodeId(reader.array()?)) };
                Said::Declined { id, because: Declined::NotLeading(leader) }
            }
            BUSY => Said::Declined { id: OperationId(reader.array()?), because: Declined::Busy },
            REPORTS => Said::Reports(
                (0..bounded(&mut reader, REPORTS_MAX)?)
                    .map(|_| get_report(&mut reader))
                    .collect::<Result<_, _>>()?,
            ),
            WHETHER => Said::Whether(
                (0..bounded(&mut reader, REPORTS_MAX)?)
                    .map(|_| Ok((GroupId(reader.u32()?), Term(reader.varint()?))))
                    .collect::<Result<_, DecodeError>>()?,
            ),
            CONFIRMED => Said::Confirmed(
                (0..bounded(&mut reader, REPORTS_MAX)?)
                    .map(|_| Ok((GroupId(reader.u32()?), Term(reader.varint()?), reader.varint()?)))
                    .collect::<Result<_, DecodeError>>()?,
            ),
            HELLO => Said::Hello { version: reader.varint()? },
            FAREWELL => Said::Farewell { version: reader.varint()? },
            PULL => Said::Pull { generation: reader.varint()?, offset: reader.varint()? },
            PART => {
                let (generation, offset, bytes) = (reader.varint()?, reader.varint()?, reader.bytes()?);
                if bytes.is_empty() || bytes.len() > PART_BYTES_MAX {
                    return Err(DecodeError::Overflow);
                }
                Said::Part { generation, offset, bytes: bytes.to_vec() }
            }
            NO_PART => Said::NoPart { generation: reader.varint()? },
            _ => return Err(DecodeError::Invalid),
        };
        if reader.is_empty() { Ok(said) } else { Err(DecodeError::Invalid) }
    }

    /// The connection that it takes.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self {
            Said::Pull { .. } | Said::Part { .. } | Said::NoPart { .. } => Lane::Bulk,
            Said::Ask(_)
            | Said::Declined { .. }
            | Said::Reports(_)
            | Said::Whether(_)
            | Said::Confirmed(_)
            | Said::Hello { .. }
            | Said::Roster(_)
            | Said::Farewell { .. } => Lane::Control,
        }
    }
}

/// The frame of a message of liveness.
#[must_use]
pub fn swim_frame(message: &swim::Message) -> Vec<u8> {
    let mut out = Vec::from([kind::SWIM]);
    message.encode(&mut out);
    out
}

/// The frame of a message of consensus.
#[must_use]
pub fn consensus_frame(message: &consensus::codec::Message) -> Vec<u8> {
    let mut out = Vec::from([kind::CONSENSUS]);
    consensus::codec::encode(message, &mut out);
    out
}

/// For which group a message of consensus is, without reading the rest of it; `bytes` are without the kind.
#[must_use]
pub fn group_of(bytes: &[u8]) -> Option<GroupId> {
    let group = bytes.get(1..)?.first_chunk()?;
    Some(GroupId(u32::from_le_bytes(*group)))
}

/// Whether a frame is the mind's: of liveness, about the desired state, or a message of the control group, which has a frame
/// of its own. Frames of consensus that are not have messages of partitions' groups, each behind its length.
#[must_use]
pub fn is_of_mind(frame: &[u8]) -> bool {
    match frame.split_first() {
        Some((&kind::SWIM | &kind::CONTROL, _)) => true,
        Some((&kind::CONSENSUS, rest)) => group_of(rest) == Some(CONTROL),
        Some(_) | None => false,
    }
}

fn put_numbers(out: &mut Vec<u8>, tag: u8, numbers: &[u64]) {
    out.push(tag);
    numbers.iter().for_each(|&number| put_varint(out, number));
}

fn bounded(reader: &mut Reader<'_>, max: usize) -> Result<usize, DecodeError> {
    match reader.len()? {
        count if count <= max => Ok(count),
        _ => Err(DecodeError::Overflow),
    }
}

fn put_report(group: GroupId, report: &Report, out: &mut Vec<u8>) {
    assert!(report.learners.len() <= LEARNERS_MAX, "few learn at once");
    out.extend(group.0.to_le_bytes());
    put_varint(out, report.term.0);
    put_varint(out, report.epoch);
    out.push(u8::from(report.settled) << 7 | report.learners.len() as u8);
    for learner in &report.learners {
        put_varint(out, learner.id.get());
        out.extend(learner.done.to_le_bytes());
    }
}

fn get_report(reader: &mut Reader<'_>) -> Result<(GroupId, Report), DecodeError> {
    let group = GroupId(reader.u32()?);
    let (term, epoch, bits) = (Term(reader.varint()?), reader.varint()?, reader.u8()?);
    let (settled, count) = (bits & 0x80 != 0, usize::from(bits & 0x7F));
    if count > LEARNERS_MAX {
        return Err(DecodeError::Overflow);
    }
    let learners = (0..count).map(|_| get_learner(reader)).collect::<Result<_, _>>()?;
    Ok((group, Report { term, epoch, settled, learners }))
}

fn get_learner(reader: &mut Reader<'_>) -> Result<Learner, DecodeError> {
    let id = ReplicaId::new(reader.varint()?).ok_or(DecodeError::Invalid)?;
    match reader.u16()? {
        done if done <= DONE => Ok(Learner { id, done }),
        _ => Err(DecodeError::Overflow),
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::vec;

    use consensus::Role;
    use control::{Member, Name, Operation, Standing};
    use kernel::{ClusterId, Millis};
    use proptest::prelude::*;

    use super::*;

    fn request() -> Request {
        let operation = Operation::Leave { node: NodeId([3; 32]) };
        Request { id: OperationId([1; 16]), by: Name::new("ann").unwrap(), at: Millis(9), operation }
    }

    fn roster() -> Roster {
        let member = Member {
            replica: ReplicaId::new(4).unwrap(),
            zone: Name::new("z").unwrap(),
            addresses: vec!["[::1]:7401".parse().unwrap()],
            standing: Standing::Leaving,
            role: Role::Voter,
        };
        Roster {
            cluster: ClusterId([2; 16]),
            version: 8,
            members: BTreeMap::from([(NodeId([5; 32]), member)]),
        }
    }

    fn reports() -> impl Strategy<Value = (GroupId, Report)> {
        let learner = (1_u64..1 << 40, 0..=DONE)
            .prop_map(|(id, done)| Learner { id: ReplicaId::new(id).unwrap(), done });
        let learners = proptest::collection::vec(learner, 0..=LEARNERS_MAX);
        (any::<u32>(), any::<u64>(), any::<u64>(), any::<bool>(), learners).prop_map(
            |(group, term, epoch, settled, learners)| {
                (GroupId(group), Report { term: Term(term), epoch, settled, learners })
            },
        )
    }

    fn said() -> impl Strategy<Value = Said> {
        let id = any::<[u8; 16]>().prop_map(OperationId);
        let because = prop_oneof![
            Just(Declined::Busy),
            Just(Declined::NotLeading(None)),
            any::<[u8; 32]>().prop_map(|node| Declined::NotLeading(Some(NodeId(node)))),
        ];
        let part = (any::<u64>(), any::<u64>(), proptest::collection::vec(any::<u8>(), 1..64));
        prop_oneof![
            Just(Said::Ask(request())),
            Just(Said::Roster(roster())),
            (id, because).prop_map(|(id, because)| Said::Declined { id, because }),
            proptest::collection::vec(reports(), 0..9).prop_map(Said::Reports),
            any::<u64>().prop_map(|version| Said::Hello { version }),
            (any::<u32>(), any::<u64>())
                .prop_map(|(it, term)| Said::Whether(vec![(GroupId(it), Term(term))])),
            (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(it, term, epoch)| Said::Confirmed(vec![(
                GroupId(it),
                Term(term),
                epoch
            )])),
            any::<u64>().prop_map(|version| Said::Farewell { version }),
            (any::<u64>(), any::<u64>()).prop_map(|(generation, offset)| Said::Pull { generation, offset }),
            part.prop_map(|(generation, offset, bytes)| Said::Part { generation, offset, bytes }),
            any::<u64>().prop_map(|generation| Said::NoPart { generation }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_shorter_or_longer(said in said(), cut: usize) {
            let frame = said.frame();
            prop_assert_eq!(frame[0], kind::CONTROL);
            prop_assert_eq!(Said::decode(&frame[1..]), Ok(said.clone()));
            let leader = matches!(said, Said::Declined { because: Declined::NotLeading(Some(_)), .. });
            let short = &frame[1..1 + cut % (frame.len() - 1)];
            // Without its last field it is another sound message.
            prop_assert!(Said::decode(short).is_err() || leader && short.len() == 17);
            let longer = [&frame[1..], &[0; 33]].concat();
            prop_assert!(Said::decode(&longer).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(tag in 0..13_u8, bytes: Vec<u8>) {
            let bytes = [&[tag], &bytes[..]].concat();
            if let Ok(said) = Said::decode(&bytes) {
                prop_assert_eq!(Said::decode(&said.frame()[1..]), Ok(said));
            }
        }
    }

    #[test]
    fn what_is_too_much_is_refused_before_memory_is_taken() {
        let mut many = vec![REPORTS];
        put_varint(&mut many, REPORTS_MAX as u64 + 1);
        assert_eq!(Said::decode(&many), Err(DecodeError::Overflow));
        let mut long = vec![PART, 0, 0];
        put_bytes(&mut long, &vec![7; PART_BYTES_MAX + 1]);
        assert_eq!(Said::decode(&long), Err(DecodeError::Overflow));
        assert_eq!(Said::decode(&[PART, 0, 0, 0]), Err(DecodeError::Overflow), "a part brings something");
    }

    #[test]
    fn the_group_of_a_message_of_consensus_is_seen_without_reading_it() {
        let message = consensus::codec::Message {
            group: GroupId(0x0102_0304),
            from: ReplicaId::new(1).unwrap(),
            incarnation: consensus::Incarnation(1),
            to: ReplicaId::new(2).unwrap(),
            term: Term(1),
            body: consensus::codec::Said::TimeoutNow,
        };
        let frame = consensus_frame(&message);
        assert_eq!((frame[0], group_of(&frame[1..])), (kind::CONSENSUS, Some(GroupId(0x0102_0304))));
        assert_eq!(group_of(&frame[1..5]), None);
    }
}
