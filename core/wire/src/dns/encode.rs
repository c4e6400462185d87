//! Responses to bytes.

use alloc::vec::Vec;

use super::name::suffixes;
use super::{Data, HEADER_BYTES, Kind, Name, Query, Rcode, Section, TCP_BYTES_MAX, UDP_BYTES_MAX};

const AUTHORITATIVE: u16 = 1 << 10;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_AVAILABLE: u16 = 1 << 7;
/// An OPT record without options.
const OPT_BYTES: usize = 11;
/// Names that are remembered as what later ones may point to; linear search, and more would not be short any more.
const TARGETS_MAX: usize = 32;
const CLASS_IN: u16 = 1;

/// A response that is being written. Records that do not fit are left out, and what follows them too.
#[derive(Debug)]
pub struct Response<'a> {
    out: &'a mut Vec<u8>,
    from: usize,
    bytes_max: usize,
    flags: u16,
    rcode: Rcode,
    counts: [u16; 3],
    section: Section,
    edns: bool,
    full: bool,
    /// Where names, or their ends, stand.
    targets: Vec<u16>,
}

impl<'a> Response<'a> {
    /// A response to `query` behind what `out` has, of at most `bytes_max`.
    ///
    /// # Panics
    /// If `bytes_max` is above [`TCP_BYTES_MAX`].
    #[must_use]
    pub fn new(query: &Query, rcode: Rcode, bytes_max: usize, out: &'a mut Vec<u8>) -> Response<'a> {
        assert!(bytes_max <= TCP_BYTES_MAX, "a message's length has two bytes");
        let from = out.len();
        out.extend_from_slice(&query.id.to_be_bytes());
        out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        let flags = 1 << 15 | u16::from(query.recursion) << 8 | u16::from(query.unchecked) << 4;
        let mut response = Response {
            out,
            from,
            bytes_max,
            flags,
            rcode,
            counts: [0; 3],
            section: Section::Answer,
            edns: query.edns.is_some(),
            full: false,
            targets: Vec::new(),
        };
        response.name(&query.name);
        response.put(&query.kind.0.to_be_bytes());
        response.put(&query.class.to_be_bytes());
        response
    }

    /// The response to a query that could not be read, whose id is known.
    pub fn refusal(id: u16, rcode: Rcode, out: &mut Vec<u8>) {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&(1 << 15 | rcode.number() & 0xF).to_be_bytes());
        out.extend_from_slice(&[0; 8]);
    }

    /// There is more than this has, and it is asked for over TCP.
    pub const fn truncated(&mut self) {
        self.flags |= TRUNCATED;
    }

    /// The zone is ours.
    pub const fn authoritative(&mut self) {
        self.flags |= AUTHORITATIVE;
    }

    /// We ask others for what we do not know.
    pub const fn recursion_available(&mut self) {
        self.flags |= RECURSION_AVAILABLE;
    }

    /// Adds a record. False if it did not fit: of answers, the client is told.
    ///
    /// # Panics
    /// If `section` is before that of an earlier record.
    pub fn record(&mut self, section: Section, name: &Name, ttl: u32, data: &Data<'_>) -> bool {
        assert!(section >= self.section, "sections are written in their order");
        self.section = section;
        if self.full {
            return false;
        }
        let (before, targets) = (self.out.len(), self.targets.len());
        self.name(name);
        self.put(&data.kind().0.to_be_bytes());
        self.put(&CLASS_IN.to_be_bytes());
        self.put(&ttl.to_be_bytes());
        let length_at = self.out.len();
        self.put(&[0, 0]);
        self.data(data);
        let length = self.out.len() - length_at - 2;
        let room = self.bytes_max.saturating_sub(if self.edns { OPT_BYTES } else { 0 });
        if self.out.len() - self.from > room {
            self.out.truncate(before);
            self.targets.truncate(targets);
            self.full = true;
            // What is additional was not asked for (RFC 2181, 9).
            if section != Section::Additional {
                self.flags |= TRUNCATED;
            }
            return false;
        }
        self.out[length_at..length_at + 2].copy_from_slice(&(length as u16).to_be_bytes());
        self.counts[section as usize] += 1;
        true
    }

    /// Ends it: the header is filled in. Returns its length.
    pub fn finish(mut self) -> usize {
        if self.edns {
            let payload = UDP_BYTES_MAX as u16;
            self.put(&[0]);
            self.put(&Kind::OPT.0.to_be_bytes());
            self.put(&payload.to_be_bytes());
            self.put(&[(self.rcode.number() >> 4) as u8, 0, 0, 0, 0, 0]);
            self.counts[2] += 1;
        }
        let flags = self.flags | self.rcode.number() & 0xF;
        let header = &mut self.out[self.from..self.from + HEADER_BYTES];
        header[2..4].copy_from_slice(&flags.to_be_bytes());
        for (at, count) in self.counts.iter().enumerate() {
            header[6 + at * 2..8 + at * 2].copy_from_slice(&count.to_be_bytes());
        }
        self.out.len() - self.from
    }

    fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A name, its longest known end as a pointer (RFC 1035, 4.1.4). Only ends of the very same bytes are shared, so that the
    /// case of the question comes back.
    fn name(&mut self, name: &Name) {
        // A name may not point into itself, where its end does not stand yet.
        let known = self.targets.len();
        for suffix in suffixes(name.bytes()) {
            if suffix.len() > 1
                && let Some(&target) =
                    self.targets[..known].iter().find(|&&target| self.stands_at(target, suffix))
            {
                self.put(&(0b1100_0000 << 8 | target).to_be_bytes());
                return;
            }
            if suffix.len() == 1 {
                self.put(&[0]);
                return;
            }
            let at = self.out.len() - self.from;
            if at < 1 << 14 && self.targets.len() < TARGETS_MAX {
                self.targets.push(at as u16);
            }
            let label = usize::from(suffix[0]) + 1;
            self.put(&suffix[..label]);
        }
    }

    /// Whether the name at `at` of the message is `suffix`. It was written here, so its pointers lead backwards.
    fn stands_at(&self, at: u16, mut suffix: &[u8]) -> bool {
        let message = &self.out[self.from..];
        let mut at = usize::from(at);
        loop {
            let length = message[at];
            if length & 0b1100_0000 != 0 {
                at = usize::from(length & 0b0011_1111) << 8 | usize::from(message[at + 1]);
                continue;
            }
            let label = usize::from(length) + 1;
            if suffix.get(..label) != message.get(at..at + label) {
                return false;
            }
            if length == 0 {
                return true;
            }
            suffix = &suffix[label..];
            at += label;
        }
    }

    fn data(&mut self, data: &Data<'_>) {
        match *data {
            Data::A(address) => self.put(&address),
            Data::Aaaa(address) => self.put(&address),
            Data::Srv { priority, weight, port, target } => {
                [priority, weight, port].iter().for_each(|number| self.put(&number.to_be_bytes()));
                // Not compressed (RFC 2782).
                self.put(target.bytes());
            }
            Data::Txt(texts) => {
                for text in texts {
                    let text = &text[..text.len().min(255)];
                    self.put(&[text.len() as u8]);
                    self.put(text);
                }
                if texts.is_empty() {
                    self.put(&[0]);
                }
            }
            Data::Ns(name) | Data::Cname(name) | Data::Ptr(name) => self.name(name),
            Data::Soa { server, mailbox, serial, negative_ttl } => {
                self.name(server);
                self.name(mailbox);
                // Nobody transfers this zone: refresh, retry and expiry are the usual ones.
                [serial, 3600, 600, 86_400, negative_ttl]
                    .iter()
                    .for_each(|number| self.put(&number.to_be_bytes()));
            }
        }
    }
}
