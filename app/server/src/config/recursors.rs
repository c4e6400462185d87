//! Servers of DNS that are asked, as a setting.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::places::{Item, Several};

/// Where they are unless it is said otherwise.
const PORT: u16 = 53;

/// A server of DNS: an address, with port 53 unless it has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recursor(pub SocketAddr);

/// The text names no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoServer;

/// Servers of DNS, in the order in which they are asked.
pub type Recursors = Several<Recursor>;

impl Item for Recursor {
    const MOST: usize = 4;
    const EXAMPLE: &'static str = "addresses such as [\"192.0.2.1\", \"[2001:db8::1]:5353\"]";
}

impl FromStr for Recursor {
    type Err = NoServer;

    fn from_str(text: &str) -> Result<Recursor, NoServer> {
        let alone = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, PORT));
        let place = text.parse().ok().or_else(alone).ok_or(NoServer)?;
        if place.port() == 0 || place.ip().is_unspecified() { Err(NoServer) } else { Ok(Recursor(place)) }
    }
}

impl fmt::Display for Recursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
