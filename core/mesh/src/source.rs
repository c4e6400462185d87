//! Whose a request is: the networks in which the proxies before us are, and the first address behind them that is in none.
//!
//! Each proxy adds whom it was asked by, so the list is to be believed from its right end for as long as who wrote is
//! trusted: the rightmost address that is not trusted is the client. What stands left of it the client may have written.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::net::IpAddr;

use kernel::planted::{Bug, is};
use thiserror::Error;

/// Why a text is no network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NetworkError {
    /// It is no address, perhaps with a length.
    #[error("`{0}` is no network such as 10.0.0.0/8")]
    NotOne(String),
    /// There are bits behind its length.
    #[error("`{0}` has bits behind its length: it is a host and no network")]
    Host(String),
}

/// A network: all addresses that begin with the same bits.
///
/// Invariant: `length` is at most the bits of the address, whose bits behind it are zero; no address is one of IPv4 in IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    /// Reads `10.0.0.0/8`, `2001:db8::/32`, or an address alone.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn read(text: &str) -> Result<Network, NetworkError> {
        let bad = || NetworkError::NotOne(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => bits,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|length| *length <= bits).ok_or_else(bad)?
            }
            Some(_) => return Err(bad()),
        };
        if address != address.to_canonical() {
            return Err(bad());
        }
        let network = Network { address, length };
        if address == network.masked() { Ok(network) } else { Err(NetworkError::Host(text.to_owned())) }
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(one)) => {
                let shift = 32 - u32::from(self.length);
                (network.to_bits() ^ one.to_bits()).checked_shr(shift).unwrap_or_default() == 0
            }
            (IpAddr::V6(network), IpAddr::V6(one)) => {
                let shift = 128 - u32::from(self.length);
                (network.to_bits() ^ one.to_bits()).checked_shr(shift).unwrap_or_default() == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Its first address.
    fn masked(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(one) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or_default();
                IpAddr::V4((one.to_bits() & mask).into())
            }
            IpAddr::V6(one) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or_default();
                IpAddr::V6((one.to_bits() & mask).into())
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Whether the address is in one of them.
#[must_use]
pub fn trusts(trusted: &[Network], address: IpAddr) -> bool {
    trusted.iter().any(|network| network.has(address))
}

/// Whose a request is that came from `peer`: `hops` are the addresses that it was forwarded for, the newest last; `None` is
/// one that is none (`unknown`, a name that hides it), and so says who is behind it.
///
/// O(hops × networks). Does not allocate.
pub fn client(trusted: &[Network], peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
    if !trusts(trusted, peer) {
        return peer;
    }
    let mut found = None;
    for hop in hops {
        found = match hop {
            // Nobody can say who is left of it.
            None => None,
            Some(address) if is(Bug::LeftmostBelieved) => found.or(Some(address)),
            Some(address) if !trusts(trusted, address) => Some(address),
            Some(address) => found.or(Some(address)),
        };
    }
    found.unwrap_or(peer).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_as_it_does() {
        #[rustfmt::skip] // columns
        let table = [
            // network          in it                                  not in it
            ("10.0.0.0/8",      vec!["10.0.0.0", "10.255.1.2"],        vec!["11.0.0.0", "::a00:1"]),
            ("192.0.2.7",       vec!["192.0.2.7", "::ffff:192.0.2.7"], vec!["192.0.2.6"]),
            ("0.0.0.0/0",       vec!["1.2.3.4", "255.255.255.255"],    vec!["::1"]),
            ("::/0",            vec!["::1", "2001:db8::1"],            vec!["1.2.3.4", "::ffff:1.2.3.4"]),
            ("2001:db8::/33",   vec!["2001:db8:7fff::1"],              vec!["2001:db8:8000::"]),
            ("::1/128",         vec!["::1"],                           vec!["::2"]),
        ];
        for (text, inside, outside) in table {
            let network = Network::read(text).unwrap();
            assert_eq!(Network::read(&network.to_string()), Ok(network));
            assert!(inside.iter().all(|one| network.has(one.parse().unwrap())), "{text}");
            assert!(!outside.iter().any(|one| network.has(one.parse().unwrap())), "{text}");
        }
        let bad = [
            "",
            "10",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "a/8",
            "::ffff:1.2.3.4",
        ];
        for text in bad {
            assert!(matches!(Network::read(text), Err(NetworkError::NotOne(_))), "{text}");
        }
        assert!(matches!(Network::read("10.0.0.1/8"), Err(NetworkError::Host(_))));
    }

    fn trusted() -> Vec<Network> {
        ["10.0.0.0/8", "fd00::/8"].map(|text| Network::read(text).unwrap()).to_vec()
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_is_the_client() {
        #[rustfmt::skip] // columns
        let table = [
            // who asks      was forwarded for                           whose it is
            ("192.0.2.1",    vec!["1.1.1.1"],                            "192.0.2.1"), // it is not trusted itself
            ("10.0.0.1",     vec![],                                     "10.0.0.1"),
            ("10.0.0.1",     vec!["1.1.1.1"],                            "1.1.1.1"),
            ("10.0.0.1",     vec!["1.1.1.1", "2.2.2.2"],                 "2.2.2.2"), // the first may be made up
            ("10.0.0.1",     vec!["1.1.1.1", "2.2.2.2", "10.0.0.2"],     "2.2.2.2"),
            ("10.0.0.1",     vec!["10.0.0.3", "10.0.0.2"],               "10.0.0.3"), // all are ours
            ("10.0.0.1",     vec!["1.1.1.1", "unknown", "10.0.0.2"],     "10.0.0.2"),
            ("10.0.0.1",     vec!["1.1.1.1", "unknown"],                 "10.0.0.1"),
            ("fd00::1",      vec!["::ffff:1.1.1.1", "::ffff:10.0.0.1"],  "1.1.1.1"),
        ];
        for (peer, hops, expected) in table {
            let hops = hops.into_iter().map(|hop| hop.parse().ok());
            let found = client(&trusted(), peer.parse().unwrap(), hops);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {expected}");
        }
    }

    proptest! {
        #[test]
        fn what_a_client_writes_to_the_left_changes_nothing(
            written in prop::collection::vec(any::<Option<[u8; 4]>>(), 0..6),
            client_is: [u8; 4],
            proxies in prop::collection::vec(any::<[u8; 3]>(), 0..4),
        ) {
            prop_assume!(client_is[0] != 10);
            let ours = proxies.iter().map(|[a, b, c]| Some(IpAddr::from([10, *a, *b, *c])));
            let written = written.into_iter().map(|one| one.map(IpAddr::from));
            let hops = written.chain([Some(IpAddr::from(client_is))]).chain(ours);
            let found = client(&trusted(), IpAddr::from([10, 0, 0, 1]), hops);
            prop_assert_eq!(found, IpAddr::from(client_is));
        }
    }
}
