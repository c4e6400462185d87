//! Between the machine's messages over handles and the bytes of `/ipfs/kad/1.0.0`.

use kernel::Micros;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use p2p::Key;
use p2p::kad::{self, Nodes, Record, Refusal, Target};
use wire::kad::{Connection, Kind, Message, Outgoing, PeerOut, Peers, put_frame};

use super::directory::{Contact, Directory, OWN};

/// A message of the machine.
pub(super) type Said = kad::Message<Contact>;

/// What must be remembered of a question that was asked of us, to answer it.
#[derive(Clone, Debug)]
pub(super) struct Question {
    kind: Kind,
    key: Vec<u8>,
    /// PUT_VALUE is answered with what it brought.
    record: Option<Record>,
}

/// What a peer's message asks for.
#[derive(Debug)]
pub(super) enum Heard {
    /// It waits for an answer.
    Asked(Said, Question),
    /// It waits for none.
    Told(Said),
}

/// What a question is on the wire, with its length before it; `None` if links that carry names cannot ask it.
pub(super) fn question(directory: &Directory, now: Micros, said: &Said) -> Option<Vec<u8>> {
    let (kind, key, record) = match said {
        Said::FindNode(target) => (Kind::FindNode, target.name.as_ref()?, None),
        Said::GetValue(target) => (Kind::GetValue, target.name.as_ref()?, None),
        Said::GetProviders(target) => (Kind::GetProviders, target.name.as_ref()?, None),
        Said::AddProvider(target) => (Kind::AddProvider, target.name.as_ref()?, None),
        Said::Put(record) => (Kind::PutValue, &record.name, Some(record)),
        Said::Nodes(_) | Said::Value { .. } | Said::Stored(_) | Said::Providers { .. } => return None,
    };
    let providers: &[Contact] = if kind == Kind::AddProvider { &[OWN] } else { &[] };
    encode(directory, now, Lists { kind, key, record, closer: &[], providers })
}

/// The kind that the answer to a question has, and what was put, if it was that.
pub(super) fn awaited(said: &Said) -> Option<Kind> {
    match said {
        Said::FindNode(_) => Some(Kind::FindNode),
        Said::GetValue(_) => Some(Kind::GetValue),
        Said::GetProviders(_) => Some(Kind::GetProviders),
        Said::Put(_) => Some(Kind::PutValue),
        Said::AddProvider(_)
        | Said::Nodes(_)
        | Said::Value { .. }
        | Said::Stored(_)
        | Said::Providers { .. } => None,
    }
}

/// What a question is about.
pub(super) fn place(said: &Said) -> Key {
    match said {
        Said::FindNode(target)
        | Said::GetValue(target)
        | Said::GetProviders(target)
        | Said::AddProvider(target) => target.key,
        Said::Put(record) => record.key(),
        Said::Nodes(_) | Said::Value { .. } | Said::Stored(_) | Said::Providers { .. } => Key::default(),
    }
}

/// An answer on the wire; `None` for a refusal, for which the protocol has no word: the stream is reset.
pub(super) fn answer(
    directory: &Directory,
    now: Micros,
    question: &Question,
    said: &Said,
) -> Option<Vec<u8>> {
    let Question { kind, key, record } = question;
    let lists = |closer, providers| Lists { kind: *kind, key, record: None, closer, providers };
    match said {
        Said::Nodes(closer) => encode(directory, now, lists(closer, &[])),
        Said::Value { record, closer } => {
            encode(directory, now, Lists { record: record.as_deref(), ..lists(closer, &[]) })
        }
        Said::Providers { providers, closer } => encode(directory, now, lists(closer, providers)),
        Said::Stored(Ok(())) => encode(directory, now, Lists { record: record.as_ref(), ..lists(&[], &[]) }),
        Said::Stored(Err(_))
        | Said::FindNode(_)
        | Said::GetValue(_)
        | Said::GetProviders(_)
        | Said::AddProvider(_)
        | Said::Put(_) => None,
    }
}

struct Lists<'a> {
    kind: Kind,
    key: &'a [u8],
    record: Option<&'a Record>,
    closer: &'a [Contact],
    providers: &'a [Contact],
}

fn encode(directory: &Directory, now: Micros, lists: Lists<'_>) -> Option<Vec<u8>> {
    let peers = |contacts: &[Contact]| -> Vec<(Vec<u8>, &[Multiaddr], Connection)> {
        let known = contacts.iter().filter_map(|&contact| Some((contact, directory.get(contact)?)));
        let told = known.map(|(contact, peer)| {
            let here = peer.connections > 0 || contact == OWN;
            let connection = if here { Connection::Yes } else { Connection::No };
            (peer.id.to_bytes(), peer.addresses(), connection)
        });
        told.collect()
    };
    let (closer, providers) = (peers(lists.closer), peers(lists.providers));
    let (closer, providers) = (out(&closer), out(&providers));
    // js-libp2p refuses a record that does not say when it came.
    let received = rfc3339(now);
    let record = lists.record.map(|record| wire::kad::Record {
        key: &record.name,
        value: &record.value,
        received: received.as_bytes(),
        publisher: &[],
        ttl: record.ttl,
    });
    let message =
        Outgoing { kind: lists.kind, key: lists.key, record, closer: &closer, providers: &providers };
    let (mut bytes, mut framed) = (Vec::new(), Vec::new());
    message.encode(&mut bytes).ok()?;
    put_frame(&bytes, &mut framed);
    Some(framed)
}

fn out<'a>(peers: &'a [(Vec<u8>, &'a [Multiaddr], Connection)]) -> Vec<PeerOut<'a, Multiaddr>> {
    peers
        .iter()
        .map(|(id, addresses, connection)| PeerOut { id, addresses, connection: *connection })
        .collect()
}

/// What a peer's message says, if it is one that a node is asked or told; `None` if not.
///
/// A provider counts only if it is the sender: nobody says of another what it provides.
pub(super) fn heard(directory: &mut Directory, from: PeerId, message: &Message<'_>) -> Option<Heard> {
    let question = Question { kind: message.kind, key: message.key.to_vec(), record: None };
    // The specification allows no empty key, and none is anybody's place.
    if message.key.is_empty() {
        return None;
    }
    let target = || Target::named(message.key);
    Some(match message.kind {
        Kind::FindNode => Heard::Asked(Said::FindNode(target()), question),
        Kind::GetValue => Heard::Asked(Said::GetValue(target()), question),
        Kind::GetProviders => Heard::Asked(Said::GetProviders(target()), question),
        Kind::PutValue => {
            let record = record(message).filter(|record| *record.name == *message.key)?;
            let question = Question { record: Some(record.clone()), ..question };
            Heard::Asked(Said::Put(record), question)
        }
        Kind::AddProvider => {
            let id = from.to_bytes();
            let own = message.providers.into_iter().find(|peer| peer.id == id)?;
            let contact = directory.know(from)?;
            own.addresses().filter_map(address).for_each(|address| directory.hear(contact, address));
            Heard::Told(Said::AddProvider(target()))
        }
        Kind::Ping => return None,
    })
}

/// What an answer says; `None` if it is none to a question of this kind.
pub(super) fn answered(directory: &mut Directory, kind: Kind, message: &Message<'_>) -> Option<Said> {
    if message.kind != kind {
        return None;
    }
    let record = record(message);
    let closer = nodes(directory, message.closer);
    Some(match kind {
        Kind::FindNode => Said::Nodes(closer),
        Kind::GetValue => Said::Value { record: record.map(Box::new), closer },
        Kind::GetProviders => {
            let providers = nodes(directory, message.providers).into_vec();
            Said::Providers { providers, closer: closer.into_vec() }
        }
        Kind::PutValue => Said::Stored(if record.is_some() { Ok(()) } else { Err(Refusal::Unsaid) }),
        Kind::AddProvider | Kind::Ping => return None,
    })
}

fn record(message: &Message<'_>) -> Option<Record> {
    let record = message.record?;
    Some(Record { ttl: record.ttl, ..Record::new(record.key, record.value) })
}

/// The handles of the peers that are told of, with their addresses; those that find no place are left out.
fn nodes(directory: &mut Directory, peers: Peers<'_>) -> Nodes<Contact> {
    let mut nodes = Nodes::new();
    for peer in peers {
        let Some(contact) = PeerId::from_bytes(peer.id).ok().and_then(|id| directory.know(id)) else {
            continue;
        };
        peer.addresses().filter_map(address).for_each(|address| directory.hear(contact, address));
        nodes.push(contact);
    }
    nodes
}

fn address(bytes: &[u8]) -> Option<Multiaddr> {
    Multiaddr::try_from(bytes.to_vec()).ok()
}

/// A moment as RFC 3339 writes it, in UTC with microseconds. Days to dates by Howard Hinnant, "chrono-compatible low-level
/// date algorithms", for years from 1970.
fn rfc3339(at: Micros) -> String {
    let (seconds, micros) = (at.0 / 1_000_000, at.0 % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months are counted from March, so that the leap day is the last of its year.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (era * 400 + year_of_era, month + 3),
        _ => (era * 400 + year_of_era + 1, month - 9),
    };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_rfc_3339_says() {
        #[rustfmt::skip] // columns
        let table = [
            (0,                     "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_001,   "2000-02-29T00:00:00.000001Z"),
            (951_868_799_999_999,   "2000-02-29T23:59:59.999999Z"),
            (951_868_800_000_000,   "2000-03-01T00:00:00.000000Z"),
            (1_709_164_800_000_000, "2024-02-29T00:00:00.000000Z"),
            (4_107_542_399_000_000, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ];
        for (micros, text) in table {
            assert_eq!(rfc3339(Micros(micros)), text);
        }
    }
}
