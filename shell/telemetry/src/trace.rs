//! Traces: which one a request belongs to, as a field `traceparent` says (W3C Trace Context, level 1), and the spans that a
//! node adds.

mod queue;
mod span;

use std::fmt;

pub use queue::{BATCH_SPANS, SPANS_MAX, SpanQueue};
pub use span::{Attribute, Span};

/// Bytes of a `traceparent` as it is written here.
pub const TRACEPARENT_BYTES: usize = 55;

/// Where the parts of a `traceparent` end; a dash stands there.
const DASHES: [usize; 3] = [2, 35, 52];

/// A trace. Not all of its bytes are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

/// A span within its trace. Not all of its bytes are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// The trace with these bytes; `None` if all are zero.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Option<TraceId> {
        (bytes != [0; 16]).then_some(TraceId(bytes))
    }
}

impl SpanId {
    /// The span with these bytes; `None` if all are zero.
    #[must_use]
    pub fn new(bytes: [u8; 8]) -> Option<SpanId> {
        (bytes != [0; 8]).then_some(SpanId(bytes))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span below which others are.
    pub parent: SpanId,
    /// It is recorded. Other flags are not known to version 00, and go no further.
    pub sampled: bool,
}

impl TraceContext {
    /// What the value of a field says; `None` if that is no `traceparent`.
    ///
    /// Version 00 is exactly [`TRACEPARENT_BYTES`] long. Later ones begin with the same, and a dash before what they add;
    /// `ff` is no version. Digits are in lower case, and no id is zero.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<TraceContext> {
        let (known, more) = value.split_at_checked(TRACEPARENT_BYTES)?;
        let [version] = bytes(&known[..2])?;
        let ends = match version {
            0 => more.is_empty(),
            0xFF => false,
            _ => more.first().is_none_or(|&byte| byte == b'-'),
        };
        if !ends || !DASHES.iter().all(|&at| known[at] == b'-') {
            return None;
        }
        let [flags] = bytes(&known[53..])?;
        Some(TraceContext {
            trace: TraceId::new(bytes(&known[3..35])?)?,
            parent: SpanId::new(bytes(&known[36..52])?)?,
            sampled: flags & 1 == 1,
        })
    }

    /// The same as a field says it, in version 00.
    #[must_use]
    pub fn render(&self) -> [u8; TRACEPARENT_BYTES] {
        let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
        digits(&self.trace.0, &mut out[3..35]);
        digits(&self.parent.0, &mut out[36..52]);
        out[54] += u8::from(self.sampled);
        out
    }
}

fn digits(bytes: &[u8], out: &mut [u8]) {
    for (byte, digits) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
        digits.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

/// What `N` pairs of digits say.
fn bytes<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let half = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = half(pair[0])? << 4 | half(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_field_is_taken_or_not_as_the_recommendation_says() {
        let (zeros, zero) = ("0".repeat(32), "0".repeat(16));
        #[rustfmt::skip] // columns
        let table = [
            // value                                              sampled, if it is one
            (format!("00-{TRACE}-{SPAN}-01"),                     Some(true)),
            (format!("00-{TRACE}-{SPAN}-00"),                     Some(false)),
            (format!("00-{TRACE}-{SPAN}-ff"),                     Some(true)),
            (format!("00-{TRACE}-{SPAN}-02"),                     Some(false)),
            (format!("00-{TRACE}-{SPAN}-01-"),                    None), // version 00 has no more
            (format!("00-{TRACE}-{SPAN}-01-more"),                None),
            (format!("00-{TRACE}-{SPAN}-1"),                      None),
            (format!("00-{TRACE}-{SPAN}"),                        None),
            (format!("01-{TRACE}-{SPAN}-01"),                     Some(true)),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-brings"), Some(true)),
            (format!("cc-{TRACE}-{SPAN}-01.what-the-future-brings"), None),
            (format!("cc-{TRACE}-{SPAN}-0"),                      None),
            (format!("ff-{TRACE}-{SPAN}-01"),                     None),
            (format!("0-{TRACE}-{SPAN}-001"),                     None),
            (format!("00-{zeros}-{SPAN}-01"),                     None),
            (format!("00-{TRACE}-{zero}-01"),                     None),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),    None),
            (format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),    None),
            (format!("0A-{TRACE}-{SPAN}-01"),                     None),
            (format!("00-{TRACE}-{SPAN}-0A"),                     None),
            (format!("00-{}g-{SPAN}-01", &TRACE[1..]),            None),
            (format!("00_{TRACE}-{SPAN}-01"),                     None),
            (format!("00-{TRACE}_{SPAN}-01"),                     None),
            (format!("00-{TRACE}-{SPAN}_01"),                     None),
            (format!(" 00-{TRACE}-{SPAN}-01"),                    None), // fields are trimmed before
            (format!("00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01"), None),
            (String::new(),                                       None),
        ];
        for (value, sampled) in table {
            let found = TraceContext::parse(value.as_bytes());
            assert_eq!(found.map(|context| context.sampled), sampled, "{value}");
            if let Some(TraceContext { trace, parent, .. }) = found {
                assert_eq!(
                    (trace.to_string(), parent.to_string()),
                    (TRACE.to_owned(), SPAN.to_owned()),
                    "{value}"
                );
            }
        }
    }

    fn context() -> impl Strategy<Value = TraceContext> {
        any::<([u8; 16], [u8; 8], bool)>().prop_filter_map("ids of zero", |(trace, parent, sampled)| {
            Some(TraceContext { trace: TraceId::new(trace)?, parent: SpanId::new(parent)?, sampled })
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(context in context()) {
            prop_assert_eq!(TraceContext::parse(&context.render()), Some(context));
        }

        #[test]
        fn no_bytes_are_taken_for_more_than_they_say(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            // It is all but never one, and must not panic.
            prop_assert!(TraceContext::parse(&value).is_none() || value.len() >= TRACEPARENT_BYTES);
        }

        #[test]
        fn a_damaged_one_is_none_or_says_what_stands_there(
            context in context(), at in 0..TRACEPARENT_BYTES, with in any::<u8>(),
        ) {
            let mut value = context.render();
            value[at] = with;
            if let Some(found) = TraceContext::parse(&value) {
                prop_assert_eq!(&found.render()[3..52], &value[3..52]);
                prop_assert!(value.is_ascii());
            }
        }

        #[test]
        fn what_is_cut_is_none(context in context(), length in 0..TRACEPARENT_BYTES) {
            prop_assert_eq!(TraceContext::parse(&context.render()[..length]), None);
        }
    }
}
