//! What the first frames carry: which lane a connection is, and which life of the node speaks.

use kernel::codec::{DecodeError, Reader};

use super::Lane;

/// The version of the link protocol, and of what goes over it, that this node speaks.
///
/// One more whenever a member that speaks the one before could not understand all that this one says. Members may be one
/// version apart, so that they are exchanged one by one: who speaks a version speaks the one before too.
pub const VERSION: u8 = 2;
/// The oldest version that this node speaks.
pub const OLDEST: u8 = VERSION - 1;

/// The version that two nodes speak with each other.
///
/// # Errors
/// They are too far apart: none of the versions is known to both.
pub const fn agree(theirs: Spoken) -> Result<u8, Spoken> {
    let newest = if theirs.newest < VERSION { theirs.newest } else { VERSION };
    if newest < OLDEST || newest < theirs.oldest { Err(theirs) } else { Ok(newest) }
}

/// The versions that a node speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// The newest.
    pub newest: u8,
    /// The oldest.
    pub oldest: u8,
}

/// The first frame of each side. Bytes behind what this version knows are ignored, so that a later one can say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub spoken: Spoken,
    pub lane: Lane,
    /// Drawn when the node's process started.
    pub incarnation: u64,
}

impl Hello {
    /// What this node says.
    pub const fn new(lane: Lane, incarnation: u64) -> Hello {
        Hello { spoken: Spoken { newest: VERSION, oldest: OLDEST }, lane, incarnation }
    }

    pub fn encode(self) -> Vec<u8> {
        let mut out = vec![self.spoken.newest, self.lane.index() as u8];
        out.extend(self.incarnation.to_le_bytes());
        out.push(self.spoken.oldest);
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
        if newest == 0 || oldest > newest {
            return Err(DecodeError::Invalid);
        }
        Ok(Hello { spoken: Spoken { newest, oldest }, lane, incarnation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_reads_back_and_a_later_version_may_say_more() {
        for lane in Lane::ALL {
            let hello = Hello::new(lane, 0x0102_0304_0506_0708);
            let mut bytes = hello.encode();
            assert_eq!(Hello::decode(&bytes), Ok(hello));
            for cut in 0..bytes.len() {
                assert_eq!(Hello::decode(&bytes[..cut]), Err(DecodeError::Short));
            }
            bytes[0] = VERSION + 1;
            bytes.push(9);
            let later = Spoken { newest: VERSION + 1, oldest: OLDEST };
            assert_eq!(Hello::decode(&bytes), Ok(Hello { spoken: later, ..hello }));
        }
        // What version 1 says.
        let first = Hello::decode(&[1, 0, 7, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!((first.spoken, first.incarnation), (Spoken { newest: 1, oldest: 1 }, 7));
        assert_eq!(Hello::decode(&[0; 11]), Err(DecodeError::Invalid));
        assert_eq!(Hello::decode(&[1, 2, 0, 0, 0, 0, 0, 0, 0, 0]), Err(DecodeError::Invalid));
        assert_eq!(Hello::decode(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]), Err(DecodeError::Invalid));
    }

    #[test]
    fn members_one_version_apart_understand_each_other_and_no_others() {
        #[rustfmt::skip] // columns
        let table = [
            // newest        oldest           agreed
            (VERSION,        OLDEST,          Some(VERSION)),
            (VERSION - 1,    VERSION - 1,     Some(VERSION - 1)),
            (VERSION + 1,    VERSION,         Some(VERSION)),
            (VERSION + 1,    VERSION + 1,     None),           // it gave the rule up
            (VERSION + 2,    VERSION + 1,     None),
            (VERSION - 2,    VERSION - 2,     None),
            (u8::MAX,        1,               Some(VERSION)),
        ];
        for (newest, oldest, expected) in table {
            assert_eq!(agree(Spoken { newest, oldest }).ok(), expected, "{oldest} to {newest}");
        }
    }
}
