//! What the first frames carry: which lane a connection is, and which life of the node speaks.

use kernel::codec::{DecodeError, Reader};
use kernel::{Spoken, Version};

use super::Lane;

/// The first frame of each side. Bytes behind what this version knows are ignored, so that a later one can say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub spoken: Spoken,
    pub lane: Lane,
    /// Drawn when the node's process started.
    pub incarnation: u64,
}

impl Hello {
    pub fn encode(self) -> Vec<u8> {
        let mut out = vec![self.spoken.newest().0, self.lane.index() as u8];
        out.extend(self.incarnation.to_le_bytes());
        out.push(self.spoken.oldest().0);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Hello, DecodeError> {
        let mut reader = Reader::new(bytes);
        let newest = reader.u8()?;
        let lane = usize::from(reader.u8()?);
        let lane = *Lane::ALL.get(lane).ok_or(DecodeError::Invalid)?;
        let incarnation = reader.u64()?;
        // Version 1 was the first, and did not say so.
        let oldest = if newest == 1 { 1 } else { reader.u8()? };
        let spoken = Spoken::new(Version(oldest)..=Version(newest)).ok_or(DecodeError::Invalid)?;
        Ok(Hello { spoken, lane, incarnation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_reads_back_and_a_later_version_may_say_more() {
        for lane in Lane::ALL {
            let hello = Hello { spoken: Spoken::ALL, lane, incarnation: 0x0102_0304_0506_0708 };
            let mut bytes = hello.encode();
            assert_eq!(Hello::decode(&bytes), Ok(hello));
            for cut in 0..bytes.len() {
                assert_eq!(Hello::decode(&bytes[..cut]), Err(DecodeError::Short));
            }
            bytes[0] += 1;
            bytes.push(9);
            let later = Spoken::new(Version::OLDEST..=Version(Version::NEWEST.0 + 1)).unwrap();
            assert_eq!(Hello::decode(&bytes), Ok(Hello { spoken: later, ..hello }));
        }
        // What version 1 says.
        let first = Hello::decode(&[1, 0, 7, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!((Some(first.spoken), first.incarnation), (Spoken::new(Version(1)..=Version(1)), 7));
        assert_eq!(Hello::decode(&[0; 11]), Err(DecodeError::Invalid));
        assert_eq!(Hello::decode(&[1, 2, 0, 0, 0, 0, 0, 0, 0, 0]), Err(DecodeError::Invalid));
        assert_eq!(Hello::decode(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]), Err(DecodeError::Invalid));
        assert_eq!(Hello::decode(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(DecodeError::Invalid));
    }
}
