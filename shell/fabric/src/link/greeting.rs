//! What the first frames carry: which lane a connection is, and which life of the node speaks.

use kernel::codec::{DecodeError, Reader};

use super::Lane;

/// The version of the link protocol. Bytes behind what this version knows are ignored, so that a later one can say more.
const VERSION: u8 = 1;

/// The first frame of each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub lane: Lane,
    /// Drawn when the node's process started.
    pub incarnation: u64,
}

impl Hello {
    pub fn encode(self) -> Vec<u8> {
        let mut out = vec![VERSION, self.lane.index() as u8];
        out.extend(self.incarnation.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Hello, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? < VERSION {
            return Err(DecodeError::Invalid);
        }
        let lane = usize::from(reader.u8()?);
        let lane = *Lane::ALL.get(lane).ok_or(DecodeError::Invalid)?;
        Ok(Hello { lane, incarnation: reader.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_reads_back_and_a_later_version_may_say_more() {
        for lane in Lane::ALL {
            let hello = Hello { lane, incarnation: 0x0102_0304_0506_0708 };
            let mut bytes = hello.encode();
            assert_eq!(Hello::decode(&bytes), Ok(hello));
            for cut in 0..bytes.len() {
                assert_eq!(Hello::decode(&bytes[..cut]), Err(DecodeError::Short));
            }
            bytes[0] = 2;
            bytes.push(9);
            assert_eq!(Hello::decode(&bytes), Ok(hello));
        }
        assert_eq!(Hello::decode(&[0; 10]), Err(DecodeError::Invalid));
        assert_eq!(Hello::decode(&[1, 2, 0, 0, 0, 0, 0, 0, 0, 0]), Err(DecodeError::Invalid));
    }
}
