//! Glob patterns as Redis matches them: `*`, `?`, `[a-z]`, `[^a]`, `\x`.
//!
//! Of a failed match only the last `*` is tried again, so that no pattern costs more than
//! O(pattern × text); the answer is the same as with trying all of them.

/// Whether letters match in both cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// `a` matches only `a`.
    Exact,
    /// `a` matches `a` and `A`.
    Ignored,
}

/// True if the whole of `text` fits `pattern`.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8], case: Case) -> bool {
    let (mut p, mut t) = (0, 0);
    // After the last star: where the pattern goes on, and the first byte the star does not cover.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
        } else if let Some(next) = step(&pattern[p..], text[t], case) {
            p += next;
            t += 1;
        } else if let Some((after_star, covered)) = retry {
            p = after_star;
            t = covered + 1;
            retry = Some((after_star, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Matches one byte against the pattern's first element, which is not `*`: the element's length.
fn step(pattern: &[u8], byte: u8, case: Case) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', ref class @ ..] => class_matches(class, byte, case).map(|length| length + 1),
        [b'\\', literal, ..] => same(literal, byte, case).then_some(2),
        [literal, ..] => same(literal, byte, case).then_some(1),
    }
}

/// Matches a class, given without its `[`: its length with the `]`. A class that is never closed ends
/// with the pattern.
fn class_matches(class: &[u8], byte: u8, case: Case) -> Option<usize> {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        match class[at..] {
            [b'\\', literal, ..] => {
                found |= same(literal, byte, Case::Exact);
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [] => break,
            [from, b'-', to, ..] => {
                let fold = |byte: u8| if case == Case::Ignored { byte.to_ascii_lowercase() } else { byte };
                let (from, to, byte) = (fold(from.min(to)), fold(from.max(to)), fold(byte));
                found |= from <= byte && byte <= to;
                at += 3;
            }
            [literal, ..] => {
                found |= same(literal, byte, case);
                at += 1;
            }
        }
    }
    (found != negated).then_some(at)
}

fn same(literal: u8, byte: u8, case: Case) -> bool {
    literal == byte || (case == Case::Ignored && literal.eq_ignore_ascii_case(&byte))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        #[rustfmt::skip] // columns
        let table = [
            ("*", "", true), ("*", "abc", true), ("", "", true), ("", "a", false), ("a", "", false),
            ("h?llo", "hello", true), ("h?llo", "hllo", false), ("h*llo", "heeello", true), ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false), ("h[^e]llo", "hallo", true), ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true), ("h[b-a]llo", "hallo", true), ("h[a-b]llo", "hcllo", false),
            ("\\*", "*", true), ("\\*", "a", false), ("a\\", "a\\", true), ("[abc", "b", true), ("[", "a", false),
            ("[^", "a", true), ("[]", "a", false), ("[\\]]", "]", true), ("a**b", "ab", true), ("*a*b", "xaxxb", true),
            ("*a*b", "xaxxbc", false), ("[a-]", "-", false), ("[a-]", "_", true), ("key:*:name", "key:12:name", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes(), Case::Exact),
                expected,
                "{pattern} {text}"
            );
        }
        assert!(matches(b"hE[A-C]*", b"HebLLO", Case::Ignored));
        assert!(!matches(b"hE*", b"HELLO", Case::Exact));
    }

    #[test]
    fn many_stars_are_no_exponential_work() {
        let pattern: Vec<u8> = b"a*".repeat(200);
        let mut text = b"a".repeat(5000);
        text.push(b'b');
        assert!(matches(&pattern, &text, Case::Exact));
        let pattern = [pattern.as_slice(), b"c"].concat();
        assert!(!matches(&pattern, &text, Case::Exact));
    }

    /// The definition, which tries every length for every star.
    fn defined(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], text) => text.is_empty(),
            ([b'*', rest @ ..], text) => (0..=text.len()).any(|skip| defined(rest, &text[skip..])),
            (_, []) => false,
            (pattern, [byte, text @ ..]) => {
                step(pattern, *byte, Case::Exact).is_some_and(|length| defined(&pattern[length..], text))
            }
        }
    }

    proptest! {
        #[test]
        fn trying_the_last_star_is_enough(pattern in "[ab*?\\[\\]\\\\^-]{0,9}", text in "[ab]{0,8}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text, Case::Exact), defined(pattern, text));
        }
    }
}
