//! Numbers as Redis reads and writes them.
//!
//! Integers have one spelling ([`parse_canonical`]). Doubles are read as `strtod` reads the whole
//! argument (decimal, hexadecimal, `inf`) and written as `%.17g`. The numbers of `INCRBYFLOAT` have
//! the 64-bit mantissa of x86's long double, see [`extended`](super::extended).

use core::fmt::Write;

pub use super::parse_canonical as parse_integer;

/// A number's text, in place. The longest is `-2.2250738585072014e-308`.
#[derive(Clone, Debug, Default)]
pub struct Text {
    bytes: [u8; 32],
    len: usize,
}

impl Text {
    /// An empty text.
    #[must_use]
    pub const fn new() -> Text {
        Text { bytes: [0; 32], len: 0 }
    }

    /// `value` as C's `%.17g`: what RESP2 answers for a double.
    pub fn double(&mut self, value: f64) -> &[u8] {
        self.len = 0;
        if value.is_infinite() || value.is_nan() {
            self.put(if value.is_nan() { b"nan" } else { b"inf" }, value < 0.0);
            return &self.bytes[..self.len];
        }
        // One digit, a point, sixteen digits, `e` and the exponent: exactly rounded.
        let mut scientific = Text::new();
        write!(scientific, "{:.16e}", value.abs()).expect("a double has 17 digits and an exponent");
        let text = &scientific.bytes[..scientific.len];
        let split = text.iter().position(|&byte| byte == b'e').expect("the format has an exponent");
        let exponent = core::str::from_utf8(&text[split + 1..]).ok().and_then(|text| text.parse().ok());
        let exponent: i32 = exponent.expect("the format's exponent is a number");
        let mut digits = [b'0'; 17];
        digits[0] = text[0];
        digits[1..].copy_from_slice(&text[2..split]);
        let used = digits.iter().rposition(|&digit| digit != b'0').map_or(1, |last| last + 1);
        self.general(&digits[..used], exponent, value.is_sign_negative());
        &self.bytes[..self.len]
    }

    /// Writes significant `digits` with the first one worth `10^exponent`.
    fn general(&mut self, digits: &[u8], exponent: i32, negative: bool) {
        self.put(b"", negative);
        match usize::try_from(exponent) {
            Ok(whole) if exponent < 17 => {
                for place in 0..=whole.max(digits.len() - 1) {
                    if place == whole + 1 {
                        self.push(b".");
                    }
                    self.push(&[digits.get(place).copied().unwrap_or(b'0')]);
                }
            }
            Err(_) if exponent >= -4 => {
                self.push(b"0.");
                for _ in exponent + 1..0 {
                    self.push(b"0");
                }
                self.push(digits);
            }
            _ => {
                self.push(&digits[..1]);
                if digits.len() > 1 {
                    self.push(b".");
                    self.push(&digits[1..]);
                }
                let sign = if exponent < 0 { '-' } else { '+' };
                write!(self, "e{sign}{:02}", exponent.abs()).expect("a double's text is short");
            }
        }
    }

    fn put(&mut self, bytes: &[u8], negative: bool) {
        if negative {
            self.push(b"-");
        }
        self.push(bytes);
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        if self.len + text.len() > self.bytes.len() {
            return Err(core::fmt::Error);
        }
        self.push(text.as_bytes());
        Ok(())
    }
}

/// The double that the whole of `bytes` spells, as C's `strtod` reads it: no white space, not a NaN,
/// neither too large nor too small for a double.
#[must_use]
pub fn parse_float(bytes: &[u8]) -> Option<f64> {
    let (negative, rest) = sign(bytes);
    if is_infinity(rest) {
        return Some(if negative { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    let value = match rest {
        [b'0', b'x' | b'X', ..] => super::extended::Extended::parse(rest)?.to_f64(),
        // Rust's grammar is C's without the words, which start with a letter.
        [first, ..] if first.is_ascii_digit() || *first == b'.' => {
            core::str::from_utf8(rest).ok()?.parse().ok()?
        }
        _ => return None,
    };
    if value.is_infinite() || (value == 0.0 && !spells_zero(rest)) {
        return None;
    }
    Some(if negative { -value } else { value })
}

pub(super) fn sign(bytes: &[u8]) -> (bool, &[u8]) {
    match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    }
}

pub(super) fn is_infinity(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"infinity")
}

/// True if all digits before the exponent are zeros.
fn spells_zero(rest: &[u8]) -> bool {
    let mantissa = rest.split(|byte| matches!(byte, b'e' | b'E' | b'p' | b'P')).next().unwrap_or(rest);
    mantissa.iter().all(|byte| matches!(byte, b'0' | b'.' | b'x' | b'X'))
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn text(value: f64) -> String {
        String::from_utf8_lossy(Text::new().double(value)).into_owned()
    }

    #[test]
    fn doubles_are_written_with_17_digits_and_no_zeros() {
        #[rustfmt::skip] // columns
        let table = [
            (0.0, "0"), (-0.0, "-0"), (1.0, "1"), (0.1, "0.10000000000000001"), (-1.5, "-1.5"),
            (1e16, "10000000000000000"), (1e17, "1e+17"), (0.0001, "0.0001"), (123456.789, "123456.789"),
            (1e-5, "1.0000000000000001e-05"), (5e-324, "4.9406564584124654e-324"),
            (1.2345678901234568e17, "1.2345678901234568e+17"), (f64::MAX, "1.7976931348623157e+308"),
            (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf"), (17179869184.0, "17179869184"),
        ];
        for (value, expected) in table {
            assert_eq!(text(value), expected);
        }
    }

    #[test]
    fn doubles_are_read_as_strtod_reads_them() {
        #[rustfmt::skip] // columns
        let table = [
            ("1", Some(1.0)), ("+1.5", Some(1.5)), (".5", Some(0.5)), ("5.", Some(5.0)), ("-1e3", Some(-1000.0)),
            ("inf", Some(f64::INFINITY)), ("-Infinity", Some(f64::NEG_INFINITY)), ("+inf", Some(f64::INFINITY)),
            ("0x10", Some(16.0)), ("-0x1.8p1", Some(-3.0)), ("0e5", Some(0.0)), ("00", Some(0.0)),
            ("", None), (" 1", None), ("1 ", None), ("nan", None), ("1e400", None), ("1e-400", None), ("-", None),
            ("1e", None), ("e1", None), (".", None), ("1_0", None), ("0x", None), ("abc", None), ("--1", None),
        ];
        for (bytes, expected) in table {
            assert_eq!(parse_float(bytes.as_bytes()), expected, "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            prop_assert_eq!(parse_float(text(value).as_bytes()).map(f64::to_bits), Some(bits));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = parse_float(&bytes);
        }
    }
}
