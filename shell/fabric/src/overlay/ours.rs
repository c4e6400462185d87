//! Messages of our own protocols (`/archipel/{chord,walk,flood}/1`), between handles and bytes.

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use p2p::codec::{self, ADDRESS_BYTES_MAX, Head, MESSAGE_BYTES_MAX, PEER_ID_BYTES_MAX, Wire, put_peer};
use p2p::{chord, walk};
use wire::kad::put_frame;

use super::directory::{Contact, Directory, OWN};

/// The protocol of single messages.
pub(super) const SEND_PROTOCOL: &str = "/archipel/send/1";

/// Addresses that are told of one peer: so few that the longest list of peers fits a message, however long they are.
const TOLD_ADDRESSES_MAX: usize = 4;
/// Successors that a node of the overlay keeps.
pub(super) const SUCCESSORS: u8 = 8;
/// Most peers of an answer that is taken.
pub(super) const ANSWER_PEERS_MAX: usize = chord::RING_MAX + 1;
/// Most peers that a message tells of which nobody asked for: a walker's origin, and whom to compare rings with.
pub(super) const TOLD_PEERS_MAX: usize = 1;

const TOLD_PEER_BYTES_MAX: usize = PEER_ID_BYTES_MAX + 2 + TOLD_ADDRESSES_MAX * (ADDRESS_BYTES_MAX + 2);
const _: () = assert!((SUCCESSORS as usize + 1) * TOLD_PEER_BYTES_MAX + 64 <= MESSAGE_BYTES_MAX);
const _: () = assert!(chord::NEAR_MAX * TOLD_PEER_BYTES_MAX + 64 <= MESSAGE_BYTES_MAX);
const _: () = assert!(walk::NEIGHBOURS_MAX <= super::directory::PEERS_MAX);

/// A message with its head, and its length before it.
///
/// `None` if it is too long, which the limits above leave to no message of ours.
pub(super) fn encode<M: Wire<Contact>>(directory: &Directory, head: Head, message: &M) -> Option<Vec<u8>> {
    let (mut bytes, mut framed) = (Vec::new(), Vec::new());
    let encoded = codec::encode(head, message, &mut bytes, &mut |contact, out| {
        let peer = directory.get(*contact).expect("a handle that a machine holds is in the directory");
        let addresses = peer.addresses().iter().take(TOLD_ADDRESSES_MAX);
        put_peer(out, &peer.id.to_bytes(), addresses.map(AsRef::as_ref));
    });
    if let Err(error) = encoded {
        tracing::warn!(%error, "a message of the overlay was left out");
        return None;
    }
    put_frame(&bytes, &mut framed);
    Some(framed)
}

/// What a peer's bytes say; whom they tell of is known afterwards. `None` if they are no message, tell of what cannot be a
/// peer or of more than `most`, or the directory has no room for so many.
///
/// `most` is what a message of its kind has to tell: nobody else makes us remember whom it likes. Beyond it nobody more is
/// known afterwards.
pub(super) fn decode<M: Wire<Contact>>(
    directory: &mut Directory,
    bytes: &[u8],
    most: usize,
) -> Option<(Head, M)> {
    if !directory.has_room(most) {
        return None;
    }
    let (mut sound, mut told) = (true, 0);
    let decoded = codec::decode(bytes, &mut |peer| {
        told += 1;
        let id = PeerId::from_bytes(peer.id).ok().filter(|_| told <= most);
        let Some(contact) = id.and_then(|id| directory.know(id)) else {
            sound = false;
            return OWN;
        };
        if contact != OWN {
            let addresses = peer.addresses().filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok());
            addresses.for_each(|address| directory.hear(contact, address));
        }
        contact
    });
    decoded.ok().filter(|_| sound)
}

#[cfg(test)]
mod tests {
    use p2p::RequestId;
    use wire::kad::take_frame;

    use super::*;

    fn id(seed: u8) -> PeerId {
        let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
        bytes.extend([seed; 32]);
        PeerId::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn the_longest_lists_of_peers_fit_and_read_back_at_another_node() {
        let (mut ours, mut theirs) = (Directory::new(id(0), true), Directory::new(id(200), true));
        let long = "x".repeat(ADDRESS_BYTES_MAX - 9);
        let mut contacts = Vec::new();
        for seed in 1..=SUCCESSORS {
            let contact = ours.know(id(seed)).unwrap();
            for port in 0..10 {
                ours.hear(contact, format!("/dns4/{long}/tcp/{port}").parse().unwrap());
            }
            contacts.push(contact);
        }
        let message = chord::Message::Ring { predecessor: Some(contacts[0]), successors: contacts.clone() };
        let head = Head::Answer(RequestId(7));
        let framed = encode(&ours, head, &message).unwrap();
        let (bytes, _) = take_frame(&framed).unwrap().unwrap();
        let (read, told) = decode::<chord::Message<Contact>>(&mut theirs, bytes, ANSWER_PEERS_MAX).unwrap();
        assert_eq!(read, head);
        let chord::Message::Ring { successors, .. } = told else { panic!("{told:?}") };
        assert_eq!(successors.len(), contacts.len());
        for (own, their) in contacts.iter().zip(successors) {
            let their = theirs.get(their).unwrap();
            assert_eq!(their.id, ours.get(*own).unwrap().id);
            assert_eq!(their.addresses().len(), TOLD_ADDRESSES_MAX);
        }
    }

    #[test]
    fn bytes_that_name_no_peer_are_no_message() {
        let mut directory = Directory::new(id(0), true);
        let mut bytes = Vec::new();
        let message = chord::Message::NotMine { predecessor: Some(()) };
        let head = Head::Answer(RequestId(1));
        codec::encode(head, &message, &mut bytes, &mut |(), out| put_peer(out, b"nobody", [].into_iter()))
            .unwrap();
        assert_eq!(decode::<chord::Message<Contact>>(&mut directory, &bytes, 1), None);
        // Control: the same with a peer's id is one.
        bytes.clear();
        let whom = id(3).to_bytes();
        codec::encode(head, &message, &mut bytes, &mut |(), out| put_peer(out, &whom, [].into_iter()))
            .unwrap();
        assert!(decode::<chord::Message<Contact>>(&mut directory, &bytes, 1).is_some());
        assert_eq!(directory.len(), 2);
    }
    #[test]
    fn who_tells_of_more_peers_than_its_message_needs_makes_us_know_none() {
        let mut directory = Directory::new(id(0), true);
        let message = chord::Message::Ring { predecessor: Some(1u8), successors: vec![2, 3, 4] };
        let mut bytes = Vec::new();
        codec::encode(Head::Ask(RequestId(1)), &message, &mut bytes, &mut |seed, out| {
            put_peer(out, &id(*seed).to_bytes(), [].into_iter());
        })
        .unwrap();
        for (most, known) in [(0, 1), (1, 2), (3, 4)] {
            assert_eq!(decode::<chord::Message<Contact>>(&mut directory, &bytes, most), None);
            assert_eq!(directory.len(), known, "{most}");
        }
        // Control.
        assert!(decode::<chord::Message<Contact>>(&mut directory, &bytes, 4).is_some());
        assert_eq!(directory.len(), 5);
    }
}
