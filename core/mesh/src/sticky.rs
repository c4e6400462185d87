//! Names of endpoints for clients to keep: they say which endpoint is meant, and nothing of where it is.
//!
//! A name is SipHash-2-4 (Aumasson & Bernstein, INDOCRYPT 2012) of the service and the address, under a key that no client
//! knows. All who have the key give the same names, so a name holds at other nodes and after a restart.

use core::fmt::{self, Write};
use core::net::SocketAddr;

/// Digits of a name.
pub const NAME_DIGITS: usize = 16;

/// Who gives names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Names {
    key: (u64, u64),
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is a secret.
        f.write_str("Names")
    }
}

/// The name of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(u64);

impl Names {
    /// Those that this secret decides. It is as hard to guess as they are to forge.
    #[must_use]
    pub fn of(secret: &[u8]) -> Names {
        let half = |number| {
            let mut hash = Sip::new((0, number));
            secret.iter().for_each(|&byte| hash.byte(byte));
            hash.finish()
        };
        Names { key: (half(1), half(2)) }
    }

    /// What an endpoint of a service is called.
    #[must_use]
    pub fn name(&self, service: &str, address: SocketAddr) -> Name {
        let mut hash = Sip::new(self.key);
        write!(hash, "{service}\0{address}").expect("a hash takes what is written to it");
        Name(hash.finish())
    }
}

impl Name {
    /// The name that this text is; `None` if it is none.
    #[must_use]
    pub fn read(text: &[u8]) -> Option<Name> {
        let lower = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let text = core::str::from_utf8(text).ok()?;
        let is_one = text.len() == NAME_DIGITS && text.as_bytes().iter().all(lower);
        if is_one { u64::from_str_radix(text, 16).ok().map(Name) } else { None }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// SipHash-2-4 of bytes as they come.
struct Sip {
    v: [u64; 4],
    /// The word that is not whole, and how many bytes there were.
    word: u64,
    count: u64,
}

impl Sip {
    const fn new((k0, k1): (u64, u64)) -> Sip {
        let v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        Sip { v, word: 0, count: 0 }
    }

    fn byte(&mut self, byte: u8) {
        self.word |= u64::from(byte) << (8 * (self.count % 8));
        self.count += 1;
        if self.count.is_multiple_of(8) {
            self.take();
        }
    }

    fn take(&mut self) {
        let word = core::mem::take(&mut self.word);
        self.v[3] ^= word;
        self.round();
        self.round();
        self.v[0] ^= word;
    }

    const fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.v;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.v = [a, b, c, d];
    }

    fn finish(mut self) -> u64 {
        self.word |= (self.count & 0xFF) << 56;
        self.take();
        self.v[2] ^= 0xFF;
        (0..4).for_each(|_| self.round());
        self.v.iter().fold(0, |all, one| all ^ one)
    }
}

impl Write for Sip {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.byte(byte));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn the_hash_is_that_of_the_paper() {
        // Appendix A: the key 00 01 … 0f, and the bytes 00 01 … 0e. Then the reference's vectors for no byte and for eight.
        let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        for (length, expected) in
            [(15, 0xa129_ca61_49be_45e5), (0, 0x726f_db47_dd0e_0e31), (8, 0x93f5_f579_9a93_2462)]
        {
            let mut hash = Sip::new(key);
            (0..length).for_each(|byte| hash.byte(byte));
            assert_eq!(hash.finish(), expected, "{length}");
        }
    }

    #[test]
    fn names_tell_endpoints_services_and_secrets_apart() {
        let (one, other) = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let names = Names::of(b"secret");
        assert_eq!(names.name("shop", one), Names::of(b"secret").name("shop", one));
        assert_ne!(names.name("shop", one), names.name("shop", other));
        assert_ne!(names.name("shop", one), names.name("show", one));
        assert_ne!(names.name("shop", one), Names::of(b"secrex").name("shop", one));
        assert_ne!(Names::of(b""), Names::of(b"\0"));
        assert_eq!(format!("{names:?}"), "Names", "the key is not printed");
    }

    #[test]
    fn what_is_no_name_is_none() {
        for text in [
            "",
            "0123456789abcde",
            "0123456789abcdef0",
            "0123456789ABCDEF",
            "+123456789abcdef",
            "0123456789abcde\u{e9}",
        ] {
            assert_eq!(Name::read(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_read_as_it_is_written(port: u16, octets: [u8; 4]) {
            let name = Names::of(b"x").name("s", SocketAddr::from((octets, port)));
            prop_assert_eq!(Name::read(name.to_string().as_bytes()), Some(name));
        }
    }
}
