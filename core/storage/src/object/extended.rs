//! Numbers with a 64-bit mantissa, as x86's `long double`: what `INCRBYFLOAT` calculates with.
//!
//! `0.1 + 0.2` is answered as `0.3`, which doubles cannot do. Written in integers, so that every
//! machine gets the same digits. Exponents are those of the x87 format; subnormals are rounded to zero.

use alloc::vec::Vec;

use super::number::{is_infinity, sign};

/// Digits after the point that are written, as in C's `%.17Lf`.
const DECIMALS: usize = 17;
/// Longest text that is read, in bytes; as in Redis.
const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;
/// Numbers of `2^EXPONENT_MAX` and above are infinite.
const EXPONENT_MAX: i32 = 16384;
/// Numbers below `2^EXPONENT_MIN` are zero.
const EXPONENT_MIN: i32 = -16382;

/// A number: `mantissa * 2^exponent`, or infinity.
///
/// Invariant: a finite mantissa is zero or has its highest bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extended {
    negative: bool,
    magnitude: Magnitude,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Magnitude {
    Infinite,
    Finite { mantissa: u64, exponent: i32 },
}

const ZERO: Magnitude = Magnitude::Finite { mantissa: 0, exponent: 0 };

impl Extended {
    /// The number that the whole of `bytes` spells, as C's `strtold` reads it; `None` also for a NaN
    /// and for what is too large or too small.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Extended> {
        if bytes.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (negative, rest) = sign(bytes);
        if is_infinity(rest) {
            return Some(Extended { negative, magnitude: Magnitude::Infinite });
        }
        let magnitude = match rest {
            [b'0', b'x' | b'X', digits @ ..] => hexadecimal(digits)?,
            digits => decimal(digits)?,
        };
        (magnitude != Magnitude::Infinite).then_some(Extended { negative, magnitude })
    }

    /// An integer, exactly.
    #[must_use]
    pub fn from_integer(value: i64) -> Extended {
        Extended { negative: value < 0, magnitude: normal(u128::from(value.unsigned_abs()), 0, false) }
    }

    /// False for infinities.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.magnitude != Magnitude::Infinite
    }

    /// The sum, rounded to nearest, ties to even; `None` if it is not a number or not finite.
    #[must_use]
    pub fn checked_add(self, other: Extended) -> Option<Extended> {
        let (
            Magnitude::Finite { mantissa: a, exponent: ea },
            Magnitude::Finite { mantissa: b, exponent: eb },
        ) = (self.magnitude, other.magnitude)
        else {
            return None;
        };
        if a == 0 || b == 0 {
            return Some(if a == 0 { other } else { self });
        }
        let ((big, eb_, neg_big), (small, es, neg_small)) = if (ea, a) >= (eb, b) {
            ((a, ea, self.negative), (b, eb, other.negative))
        } else {
            ((b, eb, other.negative), (a, ea, self.negative))
        };
        // The big one at the top but one bit, so that a carry fits; what falls off the small one is
        // remembered as a sticky bit far below the rounding position.
        let big = u128::from(big) << 63;
        let distance = (eb_ - es) as u32;
        let wide = u128::from(small) << 63;
        let (small, lost) = match distance {
            0..=126 => (wide >> distance, wide & ((1 << distance) - 1) != 0),
            _ => (0, true),
        };
        let exponent = eb_ - 63;
        let sum = match (neg_big == neg_small, lost) {
            (true, _) => big + small,
            (false, false) => big - small,
            // The true difference lies just below `big - small`.
            (false, true) => big - small - 1,
        };
        let magnitude = normal(sum, exponent, lost);
        let negative = neg_big && magnitude != ZERO;
        (magnitude != Magnitude::Infinite).then_some(Extended { negative, magnitude })
    }

    /// The nearest double.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        let value = match self.magnitude {
            Magnitude::Infinite => f64::INFINITY,
            Magnitude::Finite { mantissa, exponent } => libm::ldexp(mantissa as f64, exponent),
        };
        if self.negative { -value } else { value }
    }

    /// Appends the number as `%.17Lf` without trailing zeros: Redis's "human" format.
    pub fn write(&self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
        let start = out.len();
        let Magnitude::Finite { mantissa, exponent } = self.magnitude else {
            out.extend_from_slice(b"inf");
            return;
        };
        // The number times 10^17, rounded to an integer.
        let mut scaled = Natural::from(u128::from(mantissa));
        (0..DECIMALS).for_each(|_| scaled.multiply(10));
        match u32::try_from(exponent) {
            Ok(shift) => scaled.shift_left(shift),
            Err(_) => scaled.shift_right_rounding(exponent.unsigned_abs()),
        }
        let mut digits = scaled.into_digits();
        digits.resize(digits.len().max(DECIMALS + 1), b'0');
        digits.reverse();
        let point = digits.len() - DECIMALS;
        out.extend_from_slice(&digits[..point]);
        let used = digits[point..].iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
        if used > 0 {
            out.push(b'.');
            out.extend_from_slice(&digits[point..point + used]);
        }
        if out[start..] == *b"0" {
            out.truncate(start);
            // Redis turns a rounded "-0" into "0".
            if self.negative {
                out.pop();
            }
            out.push(b'0');
        }
    }
}

/// `value * 2^exponent` rounded to 64 bits; `sticky` says that a little more than `value` is meant.
fn normal(value: u128, exponent: i32, sticky: bool) -> Magnitude {
    if value == 0 {
        return ZERO;
    }
    let excess = 64 - value.leading_zeros() as i32;
    if excess <= 0 {
        let shift = -excess;
        return bounded((value << shift) as u64, exponent - shift);
    }
    let kept = (value >> excess) as u64;
    let rest = value & ((1 << excess) - 1);
    let half = 1u128 << (excess - 1);
    let up = rest > half || (rest == half && (sticky || kept & 1 == 1));
    match kept.checked_add(u64::from(up)) {
        Some(kept) => bounded(kept, exponent + excess),
        None => bounded(1 << 63, exponent + excess + 1),
    }
}

fn bounded(mantissa: u64, exponent: i32) -> Magnitude {
    match exponent + 64 {
        top if top > EXPONENT_MAX => Magnitude::Infinite,
        top if top <= EXPONENT_MIN => ZERO,
        _ => Magnitude::Finite { mantissa, exponent },
    }
}

/// Splits `digits[.digits][<mark>[±]digits]` into the digits, how many stand after the point, and the
/// exponent (bounded).
fn pieces(text: &[u8], mark: u8, digit: fn(&u8) -> bool) -> Option<(Vec<u8>, i32, i32)> {
    let end = text.iter().position(|byte| byte.to_ascii_lowercase() == mark).unwrap_or(text.len());
    let (mut digits, mut after) = (Vec::new(), None);
    for byte in &text[..end] {
        match byte {
            b'.' if after.is_none() => after = Some(0),
            byte if digit(byte) => {
                digits.push(*byte);
                after = after.map(|count| count + 1);
            }
            _ => return None,
        }
    }
    if digits.is_empty() {
        return None;
    }
    let mut exponent = 0i32;
    if end < text.len() {
        let (negative, power) = sign(&text[end + 1..]);
        if power.is_empty() || !power.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for byte in power {
            exponent = exponent.saturating_mul(10).saturating_add(i32::from(byte - b'0')).min(1_000_000);
        }
        exponent = if negative { -exponent } else { exponent };
    }
    Some((digits, after.unwrap_or(0), exponent))
}

fn decimal(text: &[u8]) -> Option<Magnitude> {
    let (digits, after, exponent) = pieces(text, b'e', u8::is_ascii_digit)?;
    let leading = digits.iter().take_while(|&&digit| digit == b'0').count();
    let digits = &digits[leading..];
    if digits.is_empty() {
        return Some(ZERO);
    }
    let power = exponent - after;
    let top = power + digits.len() as i32;
    if !(-4960..=4940).contains(&top) {
        return None;
    }
    let mut value = Natural::from(0);
    for digit in digits {
        value.multiply(10);
        value.add(u32::from(digit - b'0'));
    }
    let ten = |times: i32| {
        let mut natural = Natural::from(1);
        (0..times).for_each(|_| natural.multiply(10));
        natural
    };
    let magnitude = if power >= 0 {
        (0..power).for_each(|_| value.multiply(10));
        value.rounded(0)
    } else {
        value.divided(ten(-power))
    };
    (magnitude != ZERO).then_some(magnitude)
}

fn hexadecimal(text: &[u8]) -> Option<Magnitude> {
    let (digits, after, exponent) = pieces(text, b'p', u8::is_ascii_hexdigit)?;
    let mut value = Natural::from(0);
    for digit in &digits {
        value.multiply(16);
        value.add((*digit as char).to_digit(16).expect("a hexadecimal digit"));
    }
    if value.bits() == 0 {
        return Some(ZERO);
    }
    let magnitude = value.rounded(exponent - 4 * after);
    (magnitude != ZERO).then_some(magnitude)
}

/// A natural number of any size: 32-bit limbs, lowest first, no zero limb at the top.
struct Natural(Vec<u32>);

impl From<u128> for Natural {
    fn from(value: u128) -> Natural {
        let mut natural = Natural((0..4).map(|limb| (value >> (32 * limb)) as u32).collect());
        natural.trim();
        natural
    }
}

impl Natural {
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn bits(&self) -> u32 {
        self.0.last().map_or(0, |top| self.0.len() as u32 * 32 - top.leading_zeros())
    }

    fn bit(&self, at: u32) -> bool {
        self.0.get(at as usize / 32).is_some_and(|limb| limb >> (at % 32) & 1 == 1)
    }

    fn multiply(&mut self, by: u32) {
        let mut carry = 0u64;
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(by);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn add(&mut self, value: u32) {
        let mut carry = value;
        for limb in &mut self.0 {
            let (sum, over) = limb.overflowing_add(carry);
            *limb = sum;
            carry = u32::from(over);
        }
        if carry > 0 {
            self.0.push(carry);
        }
    }

    fn shift_left(&mut self, by: u32) {
        (0..by % 32).for_each(|_| self.multiply(2));
        if !self.0.is_empty() {
            self.0.splice(0..0, core::iter::repeat_n(0, by as usize / 32));
        }
    }

    /// Divides by `2^by`, to the nearest, ties to even.
    fn shift_right_rounding(&mut self, by: u32) {
        let half = by > 0 && self.bit(by - 1);
        let more = (0..by.saturating_sub(1).min(self.bits())).any(|at| self.bit(at));
        let kept = (0..self.bits().saturating_sub(by)).map(|at| self.bit(by + at));
        let mut limbs = alloc::vec![0u32; kept.len() / 32 + 1];
        for (at, bit) in kept.enumerate() {
            limbs[at / 32] |= u32::from(bit) << (at % 32);
        }
        *self = Natural(limbs);
        if half && (more || self.bit(0)) {
            self.add(1);
        }
        self.trim();
    }

    /// This times `2^exponent`, to 64 bits.
    fn rounded(&self, exponent: i32) -> Magnitude {
        let bits = self.bits();
        let low = bits.saturating_sub(127);
        let top = (low..bits).rev().fold(0u128, |top, at| top << 1 | u128::from(self.bit(at)));
        let sticky = (0..low).any(|at| self.bit(at));
        normal(top, exponent + low as i32, sticky)
    }

    /// This divided by `divisor`, to 64 bits; both are positive.
    fn divided(mut self, mut divisor: Natural) -> Magnitude {
        // Align the tops, then take 100 bits of the quotient.
        let shift = divisor.bits() as i32 - self.bits() as i32;
        if shift > 0 {
            self.shift_left(shift.unsigned_abs());
        } else {
            divisor.shift_left(shift.unsigned_abs());
        }
        let mut quotient = 0u128;
        for _ in 0..100 {
            quotient <<= 1;
            if self.subtract_if_not_less(&divisor) {
                quotient |= 1;
            }
            self.shift_left(1);
        }
        normal(quotient, -shift - 99, self.bits() > 0)
    }

    fn subtract_if_not_less(&mut self, other: &Natural) -> bool {
        let order =
            self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()));
        if order.is_lt() {
            return false;
        }
        let mut borrow = false;
        for (at, limb) in self.0.iter_mut().enumerate() {
            let (less, first) = limb.overflowing_sub(other.0.get(at).copied().unwrap_or(0));
            let (less, second) = less.overflowing_sub(u32::from(borrow));
            *limb = less;
            borrow = first || second;
        }
        self.trim();
        true
    }

    /// The decimal digits, lowest first.
    fn into_digits(mut self) -> Vec<u8> {
        let mut digits = Vec::new();
        while !self.0.is_empty() {
            let mut rest = 0u64;
            for limb in self.0.iter_mut().rev() {
                rest = rest << 32 | u64::from(*limb);
                *limb = (rest / 1_000_000_000) as u32;
                rest %= 1_000_000_000;
            }
            self.trim();
            for _ in 0..9 {
                digits.push(b'0' + (rest % 10) as u8);
                rest /= 10;
            }
        }
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        digits
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};

    use proptest::prelude::*;

    use super::*;

    /// 1, in units of the last place that is written.
    const ONE: i64 = 100_000_000_000_000_000;

    fn sum(a: &str, b: &str) -> Option<String> {
        let sum = Extended::parse(a.as_bytes())?.checked_add(Extended::parse(b.as_bytes())?)?;
        let mut text = Vec::new();
        sum.write(&mut text);
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    #[test]
    fn a_text_of_5_kib_is_too_long() {
        let mut text = alloc::vec![b'1'; TEXT_BYTES_MAX];
        text[1] = b'.';
        assert!(Extended::parse(&text).is_some());
        text.push(b'1');
        assert!(Extended::parse(&text).is_none());
    }

    #[test]
    fn sums_have_the_digits_of_a_long_double() {
        #[rustfmt::skip] // columns
        let table = [
            ("0.1", "0.2", Some("0.3")), ("1.23", "0", Some("1.23")), ("5.0e3", "2.0e2", Some("5200")),
            ("1.5", "-1.5", Some("0")), ("-0.1", "0", Some("-0.1")), ("1e-20", "0", Some("0")),
            ("-1e-20", "0", Some("0")), ("17179869184", "1.5", Some("17179869185.5")),
            ("1e19", "1", Some("10000000000000000001")), ("1e20", "1", Some("100000000000000000000")),
            ("0x10", "0x.8p1", Some("17")), ("3", "1e-18", Some("3")), ("inf", "1", None), ("1e4932", "9e4932", None),
            ("1e5000", "1", None), ("", "1", None), ("1x", "1", None), ("1e-5000", "1", None),
        ];
        for (a, b, expected) in table {
            assert_eq!(sum(a, b).as_deref(), expected, "{a} + {b}");
        }
    }

    proptest! {
        #[test]
        fn integers_add_exactly(a in -(1i64 << 60)..(1 << 60), b in -(1i64 << 60)..(1 << 60)) {
            prop_assert_eq!(sum(&a.to_string(), &b.to_string()), Some((a + b).to_string()));
            prop_assert_eq!(Extended::parse(a.to_string().as_bytes()), Some(Extended::from_integer(a)));
        }

        #[test]
        fn fractions_of_17_digits_add_exactly(a in -ONE..ONE, b in -ONE..ONE) {
            let total = a + b;
            let (whole, fraction) = (total.abs() / ONE, total.abs() % ONE);
            let expected = alloc::format!("{}{whole}.{fraction:017}", if total < 0 { "-" } else { "" });
            let expected = expected.trim_end_matches('0').trim_end_matches('.');
            let text = |n: i64| alloc::format!("{n}e-17");
            prop_assert_eq!(sum(&text(a), &text(b)), Some(String::from(expected)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in "[-+0-9.eExXpPinf ]{0,12}") {
            if let Some(number) = Extended::parse(bytes.as_bytes()) {
                number.write(&mut Vec::new());
            }
        }
    }
}
