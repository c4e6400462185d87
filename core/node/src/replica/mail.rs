//! Messages of groups between nodes: those of a turn to one peer share a frame.

use alloc::vec::Vec;

use consensus::ReplicaId;
use consensus::codec::{self, Message};
use consensus::group::Refusal;
use kernel::codec::{Reader, put_bytes};
use kernel::planted::{Bug, is};
use kernel::{GroupId, NodeId};

use crate::cluster::frames::is_of_mind;
use crate::cluster::{Lane, Outgoing, kind};
use crate::worker::Worker;

/// A frame with more is closed, and the next message begins another.
const FRAME_BYTES: usize = 64 * 1024;
/// A larger message goes by the bulk link, alone: frames of the control link are smaller.
const MESSAGE_BYTES_MAX: usize = 3 << 20;

impl Worker {
    /// Takes what a replica sends.
    pub(super) fn send_messages(&mut self, at: usize) {
        let partition = &mut self.partitions[at];
        let (Some(replica), Some(seat)) = (partition.group.replica_mut(), &partition.seat) else { return };
        let mut messages: Vec<Message> = Vec::new();
        replica.take_messages(&mut messages);
        let Some(cluster) = &mut self.cluster else { return };
        let mut bytes = Vec::new();
        for message in messages {
            // A member that the placement does not place yet is sent to again.
            let Some(&to) = seat.nodes.get(&message.to) else { continue };
            bytes.clear();
            codec::encode(&message, &mut bytes);
            if bytes.len() > MESSAGE_BYTES_MAX {
                let mut frame = alloc::vec![kind::CONSENSUS];
                put_bytes(&mut frame, &bytes);
                cluster.frames.push(Outgoing { to, lane: Lane::Bulk, bytes: frame });
                continue;
            }
            // The mind's frames are not lists: what is put behind their message is lost, and that with it.
            let open = cluster.frames.iter_mut().rev().find(|frame| frame.to == to).filter(|frame| {
                frame.lane == Lane::Control
                    && frame.bytes.first() == Some(&kind::CONSENSUS)
                    && (!is_of_mind(&frame.bytes) || is(Bug::MailBehindMind))
                    && frame.bytes.len() < FRAME_BYTES
            });
            let frame = match open {
                Some(frame) => frame,
                None => {
                    let fresh = Outgoing { to, lane: Lane::Control, bytes: alloc::vec![kind::CONSENSUS] };
                    cluster.frames.push(fresh);
                    cluster.frames.last_mut().expect("it was just pushed")
                }
            };
            put_bytes(&mut frame.bytes, &bytes);
        }
    }

    /// Takes a frame of messages.
    pub(crate) fn take_mail(&mut self, from: NodeId, frame: &[u8]) {
        let mut reader = Reader::new(frame);
        while !reader.is_empty() {
            let taken = reader.bytes().ok().and_then(|bytes| self.take_message(from, bytes));
            let Some(cluster) = &mut self.cluster else { return };
            match taken {
                Some(Taken::Accepted) => {}
                Some(Taken::Homeless) => cluster.dropped.homeless += 1,
                Some(Taken::Impostor) => cluster.dropped.impostor += 1,
                Some(Taken::Refused) => cluster.dropped.refused += 1,
                None => {
                    cluster.dropped.malformed += 1;
                    return;
                }
            }
        }
    }

    fn take_message(&mut self, from: NodeId, bytes: &[u8]) -> Option<Taken> {
        let (group, speaker) = sender(bytes)?;
        let found = self.cluster.as_ref()?.groups.get(&group).copied();
        let Some(at) = found else { return Some(Taken::Homeless) };
        let now = self.now;
        let partition = &mut self.partitions[at];
        let (Some(replica), Some(seat)) = (partition.group.replica_mut(), &partition.seat) else {
            return Some(Taken::Homeless);
        };
        // A link proves who is at its other end; a message only says whom it is from.
        if seat.nodes.get(&speaker) != Some(&from) {
            return Some(Taken::Impostor);
        }
        let taken: Result<(), Refusal> = replica.receive(now, bytes);
        self.make_busy(at);
        Some(if taken.is_ok() { Taken::Accepted } else { Taken::Refused })
    }
}

/// What became of a message.
enum Taken {
    Accepted,
    Homeless,
    Impostor,
    Refused,
}

/// Which group a message is for, and which replica says that it sent it.
fn sender(bytes: &[u8]) -> Option<(GroupId, ReplicaId)> {
    let mut reader = Reader::new(bytes);
    reader.u8().ok()?;
    let group = GroupId(reader.u32().ok()?);
    Some((group, ReplicaId::new(reader.varint().ok()?)?))
}
