//! Whom a request was forwarded for, as the proxies before say: `X-Forwarded-For`, and `Forwarded` (RFC 7239).
//!
//! Nothing here is believed: who may say so is decided elsewhere. An element that names no address, hides it or is
//! malformed is `None`, so that nobody takes what stands before it for the next one.

use core::net::{IpAddr, SocketAddr};
use core::str;

use httparse::Header;

/// The field that the proxies before us keep. Only one is read: of the other they pass on what their clients made up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedBy {
    /// `X-Forwarded-For: 192.0.2.1, 10.0.0.1`.
    #[default]
    XForwardedFor,
    /// `Forwarded: for=192.0.2.1, for="[2001:db8::1]:4711";proto=https`.
    Forwarded,
}

/// The addresses in the fields of that name, the oldest first.
pub fn hops<'a>(by: ForwardedBy, headers: &'a [Header<'a>]) -> impl Iterator<Item = Option<IpAddr>> + 'a {
    let name = match by {
        ForwardedBy::XForwardedFor => "x-forwarded-for",
        ForwardedBy::Forwarded => "forwarded",
    };
    let fields = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    let elements = move |field: &Header<'a>| Elements {
        rest: Some(field.value),
        by: b',',
        // A client's quote that is not closed must not swallow what a proxy wrote behind it.
        quotes: by == ForwardedBy::Forwarded && is_closed(field.value),
    };
    fields.flat_map(elements).map(move |element| match by {
        ForwardedBy::XForwardedFor => node(element),
        ForwardedBy::Forwarded => for_of(element),
    })
}

/// What an element of `Forwarded` says of its `for`; one that says nothing of it names nobody.
fn for_of(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for pair in (Elements { rest: Some(element), by: b';', quotes: is_closed(element) }) {
        let (name, value) = pair.split_at(pair.iter().position(|&byte| byte == b'=')?);
        if name.trim_ascii().eq_ignore_ascii_case(b"for") {
            if found.is_some() {
                // Which of them would be meant?
                return None;
            }
            found = Some(node(&value[1..])?);
        }
    }
    found
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`, perhaps quoted.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text.trim_ascii()).ok()?;
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let bracketed = || text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|one| one.ip()));
    address
        .or_else(|| bracketed()?.parse().ok().filter(IpAddr::is_ipv6))
        .map(|one: IpAddr| one.to_canonical())
}

/// Parts of a value, divided by a byte; not within quotes if those count.
struct Elements<'a> {
    rest: Option<&'a [u8]>,
    by: u8,
    quotes: bool,
}

/// Whether each quote of a value has its end.
fn is_closed(value: &[u8]) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for &byte in value {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    !quoted
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let (mut quoted, mut escaped) = (false, false);
        for (at, &byte) in rest.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = self.quotes && !quoted,
                byte if byte == self.by && !quoted => {
                    self.rest = Some(&rest[at + 1..]);
                    return Some(&rest[..at]);
                }
                _ => {}
            }
        }
        self.rest = None;
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn found(by: ForwardedBy, values: &[&str]) -> Vec<Option<IpAddr>> {
        let name = match by {
            ForwardedBy::XForwardedFor => "X-Forwarded-For",
            ForwardedBy::Forwarded => "forwarded",
        };
        let mut headers = vec![Header { name: "x-other", value: b"9.9.9.9" }];
        headers.extend(values.iter().map(|value| Header { name, value: value.as_bytes() }));
        hops(by, &headers).collect()
    }

    #[test]
    fn addresses_are_read_in_their_order_and_what_is_none_is_none() {
        use ForwardedBy::{Forwarded, XForwardedFor};
        #[rustfmt::skip] // columns
        let table: [(ForwardedBy, &[&str], &[&str]); 15] = [
            // field        values                                                  addresses
            (XForwardedFor, &["1.1.1.1"],                                           &["1.1.1.1"]),
            (XForwardedFor, &["1.1.1.1, 2.2.2.2", "3.3.3.3"],                       &["1.1.1.1", "2.2.2.2", "3.3.3.3"]),
            (XForwardedFor, &["2001:db8::1,[2001:db8::2],[2001:db8::3]:80"],        &["2001:db8::1", "2001:db8::2", "2001:db8::3"]),
            (XForwardedFor, &["1.1.1.1:80, ::ffff:2.2.2.2, unknown"],               &["1.1.1.1", "2.2.2.2", "-"]),
            (XForwardedFor, &["", "1.1.1.1,,[2.2.2.2]"],                            &["-", "1.1.1.1", "-", "-"]),
            (XForwardedFor, &[],                                                    &[]),
            (Forwarded,     &["for=1.1.1.1;proto=https, For=\"2.2.2.2:80\""],       &["1.1.1.1", "2.2.2.2"]),
            (Forwarded,     &["for=\"[2001:db8::1]:4711\""],                        &["2001:db8::1"]),
            (Forwarded,     &["for=_hidden, for=unknown, proto=http"],              &["-", "-", "-"]),
            (Forwarded,     &["by=\"a,for=9.9.9.9\";for=1.1.1.1"],                  &["1.1.1.1"]), // a comma in quotes
            (Forwarded,     &["for=1.1.1.1;for=2.2.2.2"],                           &["-"]),
            (Forwarded,     &["for=\"\\, for=2.2.2.2"],                               &["-", "2.2.2.2"]), // it is not closed
            (Forwarded,     &["for=\", for=\"[2001:db8::1]\""],                    &["-", "2001:db8::1"]),
            (XForwardedFor, &["\", 1.1.1.1"],                                       &["-", "1.1.1.1"]),
            (Forwarded,     &["1.1.1.1"],                                           &["-"]),
        ];
        for (by, values, expected) in table {
            let expected: Vec<Option<IpAddr>> = expected.iter().map(|text| text.parse().ok()).collect();
            assert_eq!(found(by, values), expected, "{values:?}");
        }
    }
}
