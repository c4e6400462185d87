//! Who is known: peers by handle, with their place, their addresses and how they are connected.
//!
//! It is bounded: a peer that is not connected and that no machine holds gives its place to a new one.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_identity::PeerId;
use p2p::{Key, Keys};
use wire::kad::{ADDRESS_BYTES_MAX, ADDRESSES_MAX};

use super::tcp;

/// Most peers that are known at once.
pub(super) const PEERS_MAX: usize = 8192;

/// With so many known, those who can do without are forgotten: strangers that come and go say where they are, some kilobytes
/// each, and nobody would ever ask for it.
pub(super) const PEERS_KEPT_MAX: usize = 1024;

/// A handle of a peer: its place in the directory.
pub(super) type Contact = u32;
/// Our own handle.
pub(super) const OWN: Contact = 0;

/// What is known of one peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub id: PeerId,
    key: Key,
    /// The best first. Invariant: at most [`ADDRESSES_MAX`], each at most [`ADDRESS_BYTES_MAX`] long, each once.
    addresses: Vec<Multiaddr>,
    /// How many connections there are.
    pub connections: u32,
    /// Whether it serves Kademlia, as far as is known: one that was only told of may.
    pub serves: Option<bool>,
    /// Where its last connection came from or went to.
    seen_at: Option<IpAddr>,
}

/// The peers of one node.
///
/// Invariant: `by_id` has exactly those of `peers` that are there, at their places; [`OWN`] is always there.
#[derive(Debug)]
pub(super) struct Directory {
    peers: Vec<Option<Peer>>,
    free: Vec<Contact>,
    by_id: HashMap<PeerId, Contact>,
    /// Loopback addresses are of use: we listen on one ourselves.
    local: bool,
}

impl Directory {
    /// One that knows only ourselves.
    pub fn new(own: PeerId, local: bool) -> Directory {
        let mut directory = Directory { peers: Vec::new(), free: Vec::new(), by_id: HashMap::new(), local };
        let _own = directory.place(own);
        directory
    }

    pub fn get(&self, contact: Contact) -> Option<&Peer> {
        self.peers.get(contact as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, contact: Contact) -> Option<&mut Peer> {
        self.peers.get_mut(contact as usize)?.as_mut()
    }

    pub fn find(&self, id: &PeerId) -> Option<Contact> {
        self.by_id.get(id).copied()
    }

    /// How many are known, ourselves included.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// True if one more must wait for [`Directory::make_room`].
    pub fn is_full(&self) -> bool {
        self.free.is_empty() && self.peers.len() >= PEERS_MAX
    }

    /// True if it is time for [`Directory::make_room`].
    pub fn wants_room(&self) -> bool {
        self.by_id.len() > PEERS_KEPT_MAX
    }

    /// True if so many more can be known at once.
    pub fn has_room(&self, more: usize) -> bool {
        self.free.len() + PEERS_MAX.saturating_sub(self.peers.len()) >= more
    }

    /// True if so many are needed that what would hold one more on behalf of its sender is refused.
    pub fn is_crowded(&self) -> bool {
        self.by_id.len() >= PEERS_MAX / 4 * 3
    }

    /// The handle of `id`, which is made if it is new; `None` if the directory is full.
    pub fn know(&mut self, id: PeerId) -> Option<Contact> {
        match self.find(&id) {
            Some(contact) => Some(contact),
            None if self.is_full() => None,
            None => Some(self.place(id)),
        }
    }

    fn place(&mut self, id: PeerId) -> Contact {
        let peer = Peer {
            id,
            key: Key::of(&id.to_bytes()),
            addresses: Vec::new(),
            connections: 0,
            serves: None,
            seen_at: None,
        };
        let contact = self.free.pop().unwrap_or(self.peers.len() as Contact);
        match self.peers.get_mut(contact as usize) {
            Some(place) => *place = Some(peer),
            None => self.peers.push(Some(peer)),
        }
        self.by_id.insert(id, contact);
        contact
    }

    /// Forgets all that are not connected and not in `held`.
    pub fn make_room(&mut self, held: &HashSet<Contact>) {
        for (at, place) in self.peers.iter_mut().enumerate().skip(1) {
            let contact = at as Contact;
            if let Some(peer) = place.take_if(|peer| peer.connections == 0 && !held.contains(&contact)) {
                self.by_id.remove(&peer.id);
                self.free.push(contact);
            }
        }
    }

    /// Another one tells of an address of `contact`; it goes behind those that are known.
    pub fn hear(&mut self, contact: Contact, address: Multiaddr) {
        let useful = self.is_useful(&address);
        let Some(peer) = self.get_mut(contact).filter(|_| useful) else { return };
        let address = without_id(address);
        if peer.addresses.len() < ADDRESSES_MAX && !peer.addresses.contains(&address) {
            peer.addresses.push(address);
        }
    }

    /// `contact` itself says where it can be reached, which replaces what was heard. One that says nothing keeps what is
    /// known of it.
    pub fn told(&mut self, contact: Contact, addresses: Vec<Multiaddr>) {
        let mut useful: Vec<Multiaddr> = Vec::new();
        for address in addresses.into_iter().filter(|address| self.is_useful(address)).map(without_id) {
            if useful.len() < ADDRESSES_MAX && !useful.contains(&address) {
                useful.push(address);
            }
        }
        if let Some(peer) = self.get_mut(contact).filter(|_| !useful.is_empty()) {
            peer.addresses = useful;
        }
    }

    /// A connection to `contact` was made, to `address` if we dialled it.
    pub fn connected(&mut self, contact: Contact, dialled: Option<Multiaddr>, seen_at: Option<IpAddr>) {
        let Some(peer) = self.get_mut(contact) else { return };
        peer.connections += 1;
        peer.seen_at = seen_at.or(peer.seen_at);
        if let Some(address) = dialled.map(without_id) {
            // It has just been shown to be right.
            peer.addresses.retain(|own| *own != address);
            peer.addresses.insert(0, address);
            peer.addresses.truncate(ADDRESSES_MAX);
        }
    }

    /// All peers but ourselves.
    pub fn iter(&self) -> impl Iterator<Item = (Contact, &Peer)> {
        let all = self.peers.iter().enumerate().skip(1);
        all.filter_map(|(at, peer)| Some((at as Contact, peer.as_ref()?)))
    }

    fn is_useful(&self, address: &Multiaddr) -> bool {
        let loopback = match address.iter().next() {
            Some(Protocol::Ip4(ip)) => ip.is_loopback(),
            Some(Protocol::Ip6(ip)) => ip.to_canonical().is_loopback(),
            _ => false,
        };
        address.as_ref().len() <= ADDRESS_BYTES_MAX && (self.local || !loopback)
    }
}

impl Peer {
    /// Where it can be reached, the best first.
    pub fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    /// Those that we can dial.
    pub fn dialable(&self) -> Vec<Multiaddr> {
        let dialable = |address: &&Multiaddr| tcp::is_dialable(address);
        self.addresses.iter().filter(dialable).cloned().collect()
    }
}

/// The /24 of an IPv4 address, the /48 of an IPv6 one. `None` for those that are not public: they are of one machine or one
/// site, whose nodes are many for good reasons. An IPv4 address that a socket of IPv6 shows is the IPv4 address: as one of
/// IPv6 all of them would be one network.
pub(super) fn neighbourhood(ip: IpAddr) -> Option<u64> {
    match ip.to_canonical() {
        IpAddr::V4(ip) if ip.is_private() || ip.is_loopback() || ip.is_link_local() => None,
        IpAddr::V4(ip) => Some(u64::from(u32::from(ip) >> 8)),
        IpAddr::V6(ip) if ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() => None,
        IpAddr::V6(ip) => Some((u128::from(ip) >> 80) as u64 | 1 << 63),
    }
}

fn without_id(mut address: Multiaddr) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

impl Keys<Contact> for Directory {
    fn key(&self, contact: Contact) -> Key {
        self.get(contact).expect("a handle that a machine holds is in the directory").key
    }

    /// Of the address it was seen at, or else says.
    fn neighbourhood(&self, contact: Contact) -> Option<u64> {
        let peer = self.get(contact)?;
        let said = || peer.addresses.iter().find_map(tcp::ip);
        neighbourhood(peer.seen_at.or_else(said)?)
    }

    fn serves(&self, contact: Contact) -> bool {
        self.get(contact).is_some_and(|peer| peer.serves == Some(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seed: u16) -> PeerId {
        // The identity multihash of an Ed25519 key, made up.
        let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
        bytes.extend([0; 30]);
        bytes.extend(seed.to_be_bytes());
        PeerId::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn who_is_held_or_connected_stays_when_room_is_made() {
        let mut directory = Directory::new(id(0), true);
        for seed in 1..PEERS_MAX as u16 {
            assert_eq!(directory.know(id(seed)), Some(Contact::from(seed)));
        }
        assert!(directory.is_full());
        assert!(directory.wants_room());
        assert_eq!(directory.know(id(60_000)), None);
        // One that is known is found all the same.
        assert_eq!(directory.know(id(9)), Some(9));
        directory.connected(7, None, None);
        directory.make_room(&HashSet::from([OWN, 3]));
        assert_eq!(directory.len(), 3);
        assert!(!directory.wants_room());
        assert_eq!(
            [directory.find(&id(3)), directory.find(&id(7)), directory.find(&id(9))],
            [Some(3), Some(7), None]
        );
        let again = directory.know(id(60_000)).unwrap();
        assert!(![OWN, 3, 7].contains(&again));
        assert_eq!(directory.get(again).unwrap().id, id(60_000));
    }

    #[test]
    fn addresses_are_bounded_and_loopback_counts_only_on_loopback() {
        let address = |port: u16| -> Multiaddr { format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap() };
        let public: Multiaddr = "/ip4/8.8.8.8/tcp/1".parse().unwrap();
        for local in [true, false] {
            let mut directory = Directory::new(id(0), local);
            let contact = directory.know(id(1)).unwrap();
            (1..100).for_each(|port| directory.hear(contact, address(port)));
            directory.hear(contact, "/ip6/::ffff:127.0.0.1/tcp/1".parse().unwrap());
            directory.hear(contact, public.clone());
            let known = directory.get(contact).unwrap().addresses();
            assert_eq!(known.len(), if local { ADDRESSES_MAX } else { 1 });
            directory.connected(contact, Some(address(50)), None);
            let known = directory.get(contact).unwrap().addresses();
            assert_eq!(known[0], address(50));
            assert!(known.len() <= ADDRESSES_MAX);
            directory.told(contact, vec![public.clone(), public.clone()]);
            assert_eq!(directory.get(contact).unwrap().addresses(), std::slice::from_ref(&public));
        }
    }

    #[test]
    fn neighbours_are_of_one_public_network() {
        let mut directory = Directory::new(id(0), true);
        let contact = directory.know(id(1)).unwrap();
        let mut at = |ip: &str| {
            directory.connected(contact, None, ip.parse().ok());
            directory.neighbourhood(contact)
        };
        assert_eq!(at("8.8.8.8"), at("8.8.8.9"));
        assert_ne!(at("8.8.8.8"), at("8.8.9.8"));
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:2:2::1"));
        // As a socket of IPv6 shows them.
        assert_eq!(at("::ffff:8.8.8.8"), at("8.8.8.9"));
        assert_ne!(at("::ffff:8.8.8.8"), at("::ffff:8.8.9.8"));
        for own in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.1.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
        ] {
            assert_eq!(at(own), None, "{own}");
        }
    }
}
