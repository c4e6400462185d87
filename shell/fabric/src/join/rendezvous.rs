//! Where the members of a cluster are, as one of them tells through the overlay.
//!
//! It is the payload of a record that the member signs with its node key, under a label of its own. A newcomer looks for
//! that of the member that its token names, whom it trusts anyway, and may then ask any member that is in it. So nobody
//! else can send a newcomer into another cluster; joining still needs the token.

use std::net::SocketAddr;

use kernel::codec::{DecodeError, Reader, put_address, put_varint};
use kernel::{ClusterId, NodeId, PeerId};

use super::token::ADDRESSES_MAX;

/// Most members that are told of; any of them lets a newcomer in.
pub const MEMBERS_MAX: usize = 32;

const VERSION: u8 = 1;

/// The members of a cluster, each with where it listens for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendezvous {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// At most [`MEMBERS_MAX`] are written, with at most [`ADDRESSES_MAX`] addresses each.
    pub members: Vec<(NodeId, Vec<SocketAddr>)>,
}

impl Rendezvous {
    /// The name of the record that `member` publishes for `cluster`.
    #[must_use]
    pub fn name(cluster: ClusterId, member: NodeId) -> String {
        format!("/archipel/{}/cluster/{cluster}", PeerId(member))
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(self.cluster.0);
        let members = self.members.iter().take(MEMBERS_MAX);
        put_varint(&mut out, members.len() as u64);
        for (node, addresses) in members {
            out.extend(node.0);
            let addresses = addresses.iter().take(ADDRESSES_MAX);
            out.push(addresses.len() as u8);
            for address in addresses {
                put_address(&mut out, *address);
            }
        }
        out
    }

    /// Reads all of `bytes`.
    ///
    /// # Errors
    /// They are of another version, cut, or beyond a limit.
    pub fn decode(bytes: &[u8]) -> Result<Rendezvous, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(DecodeError::Invalid);
        }
        let (cluster, count) = (ClusterId(reader.array()?), reader.len()?);
        if count > MEMBERS_MAX {
            return Err(DecodeError::Overflow);
        }
        let members = (0..count).map(|_| member(&mut reader)).collect::<Result<_, _>>()?;
        if reader.rest().is_empty() { Ok(Rendezvous { cluster, members }) } else { Err(DecodeError::Invalid) }
    }
}

fn member(reader: &mut Reader<'_>) -> Result<(NodeId, Vec<SocketAddr>), DecodeError> {
    let (node, count) = (NodeId(reader.array()?), usize::from(reader.u8()?));
    if count > ADDRESSES_MAX {
        return Err(DecodeError::Overflow);
    }
    Ok((node, (0..count).map(|_| reader.address()).collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back_and_only_as_a_whole(
            cluster: [u8; 16],
            members in proptest::collection::vec(
                (any::<[u8; 32]>(), proptest::collection::vec(any::<(IpAddr, u16)>(), 0..=ADDRESSES_MAX)),
                0..=MEMBERS_MAX,
            ),
        ) {
            let members = members.into_iter().map(|(node, addresses)| {
                (NodeId(node), addresses.into_iter().map(SocketAddr::from).collect())
            });
            let told = Rendezvous { cluster: ClusterId(cluster), members: members.collect() };
            let mut bytes = told.encode();
            // A value of the overlay has 12 KiB.
            prop_assert!(bytes.len() <= 12 * 1024 - 256);
            prop_assert_eq!(Rendezvous::decode(&bytes), Ok(told));
            prop_assert!(Rendezvous::decode(&bytes[..bytes.len() - 1]).is_err());
            bytes.push(0);
            prop_assert!(Rendezvous::decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_one_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(told) = Rendezvous::decode(&bytes) {
                prop_assert_eq!(Rendezvous::decode(&told.encode()), Ok(told));
            }
        }
    }
}
