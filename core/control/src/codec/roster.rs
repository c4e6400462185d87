//! Rosters, newcomers and welcomes as bytes, which are those of version 2.

use super::*;
use crate::roster::{Newcomer, Roster, Welcome};

/// Nothing of them has changed since.
const UNCHANGED: Version = Version(2);

impl Coded for Roster {
    fn put(&self, out: &mut Vec<u8>) {
        self.cluster.put(out);
        put_varint(out, self.version);
        put_map(&self.members, out);
    }
    fn get(reader: &mut Reader<'_>) -> Read<Self> {
        let (cluster, version) = (Coded::get(reader)?, reader.varint()?);
        let members: BTreeMap<NodeId, Member> = get_map(reader, MEMBERS_MAX)?;
        let mut seen = BTreeSet::new();
        if members.values().all(|member| member.is_present() && seen.insert(member.replica)) {
            Ok(Roster { cluster, version, members })
        } else {
            Err(DecodeError::Invalid)
        }
    }
}

impl Roster {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        versioned(self)
    }

    /// Reads what [`Roster::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if it is of another version, or no roster.
    pub fn decode(bytes: &[u8]) -> Read<Roster> {
        whole(bytes, UNCHANGED, Coded::get)
    }
}

impl Newcomer {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from([FORMAT]);
        self.zone.put(&mut out);
        put_list(&self.addresses, &mut out);
        out
    }

    /// Reads what [`Newcomer::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if it is of another version, or names no or too many addresses.
    pub fn decode(bytes: &[u8]) -> Read<Newcomer> {
        let newcomer = whole(bytes, UNCHANGED, |reader| {
            Ok(Newcomer { zone: Coded::get(reader)?, addresses: get_list(reader, ADDRESSES_MAX)? })
        })?;
        if newcomer.addresses.is_empty() { Err(DecodeError::Invalid) } else { Ok(newcomer) }
    }
}

impl Welcome {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from([FORMAT]);
        self.replica.put(&mut out);
        self.roster.put(&mut out);
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Read<Welcome> {
        whole(bytes, UNCHANGED, |reader| {
            Ok(Welcome { replica: Coded::get(reader)?, roster: Coded::get(reader)? })
        })
    }
}

fn versioned(value: &impl Coded) -> Vec<u8> {
    let mut out = Vec::from([FORMAT]);
    value.put(&mut out);
    out
}
