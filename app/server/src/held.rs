//! What the engine holds of a replicated group besides its objects: which replica it is, and how far it had come. A group
//! of one has nothing there.

use disk::engine::Mark;
use kernel::codec::{DecodeError, Reader};
use kernel::{Index, Term};
use node::cluster::Holding;

/// As a mark has it.
pub(crate) fn standing(holding: &Holding) -> Vec<u8> {
    let mut out = Vec::new();
    holding.encode(&mut out);
    out
}

/// What a mark says; `None` of a group of one.
pub(crate) fn holding(mark: &Mark) -> Result<Option<Holding>, DecodeError> {
    if mark.standing.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader::new(&mark.standing);
    let holding = Holding::decode(&mut reader)?;
    if reader.is_empty() { Ok(Some(holding)) } else { Err(DecodeError::Invalid) }
}

/// The mark of a group without objects.
pub(crate) fn empty_mark(holding: &Holding, state: Vec<u8>) -> Mark {
    let (index, term) = holding.mark.as_ref().map_or((Index(0), Term(0)), |mark| (mark.index, mark.term));
    Mark { index, term, generation: 0, objects: 0, standing: standing(holding), state }
}

#[cfg(test)]
mod tests {
    use consensus::{Members, ReplicaId};

    use super::*;

    #[test]
    fn what_a_mark_holds_reads_back() {
        let replica = ReplicaId::new(3).unwrap();
        let first = consensus::Mark::first(Members::new([replica], []).unwrap());
        for mark in [None, Some(first)] {
            let one = Holding { replica, mark };
            let mut made = empty_mark(&one, b"state".to_vec());
            assert_eq!(holding(&made), Ok(Some(one.clone())));
            assert_eq!(made.index, one.mark.map_or(Index(0), |mark| mark.index));
            made.standing.push(0);
            assert_eq!(holding(&made), Err(DecodeError::Invalid));
            made.standing.clear();
            assert_eq!(holding(&made), Ok(None));
        }
    }
}
