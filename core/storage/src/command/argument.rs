//! Reading arguments that many commands share: integers with bounds, positions, scan options.

use core::ops::Range;

use crate::Fault;
use crate::object::glob::{self, Case};
use crate::object::parse_canonical;

/// A 64-bit integer.
#[inline]
pub(crate) fn integer(argument: &[u8]) -> Result<i64, Fault> {
    parse_canonical(argument).ok_or(Fault::NotInteger)
}

/// An integer of at least `least`; `refusal` is the answer to anything else.
#[inline]
pub(crate) fn at_least(least: i64, argument: &[u8], refusal: &'static str) -> Result<usize, Fault> {
    let number = parse_canonical(argument).filter(|&number| number >= least);
    number.and_then(|number| usize::try_from(number).ok()).ok_or(Fault::Text(refusal))
}

/// A count that may be 0.
#[inline]
pub(crate) fn count(argument: &[u8]) -> Result<usize, Fault> {
    let count = parse_canonical(argument).and_then(|count| usize::try_from(count).ok());
    count.ok_or(Fault::NotPositive)
}

/// A count whose sign means something; the lowest number has no opposite and is refused.
pub(crate) fn signed_count(argument: &[u8]) -> Result<i64, Fault> {
    match integer(argument)? {
        i64::MIN => Err(Fault::Text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        )),
        count => Ok(count),
    }
}

/// The place in a sequence of `len` that `index` means; negative ones count from the end.
#[inline]
pub(crate) fn place(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index + len as i64 } else { index };
    usize::try_from(index).ok().filter(|&index| index < len)
}

/// The places from `start` to `stop`, both included, in a sequence of `len`; empty if there are none.
#[inline]
pub(crate) fn places(start: i64, stop: i64, len: usize) -> Range<usize> {
    let from_front = |index: i64| if index < 0 { index + len as i64 } else { index };
    let start = from_front(start).max(0) as usize;
    match usize::try_from(from_front(stop)) {
        Ok(stop) if start <= stop && start < len => start..stop.min(len - 1) + 1,
        _ => 0..0,
    }
}

/// A part of a command's arguments.
pub(crate) type Arguments<'s, 'a> = &'s [&'a [u8]];

/// `numkeys key …` at the front of `arguments`: the keys, and what follows them.
pub(crate) fn counted_keys<'s, 'a>(
    arguments: Arguments<'s, 'a>,
) -> Result<(Arguments<'s, 'a>, Arguments<'s, 'a>), Fault> {
    let (count, rest) = arguments.split_first().ok_or(Fault::Syntax)?;
    let count = at_least(1, count, "ERR numkeys should be greater than 0")?;
    // Not even one argument after the keys is a syntax error, as in Redis.
    rest.split_at_checked(count).filter(|(_, rest)| !rest.is_empty()).ok_or(Fault::Syntax)
}

/// Elements that a scanning command visits unless told otherwise.
const SCAN_COUNT: usize = 10;

/// What `MATCH` and `COUNT` of a scanning command say.
pub(crate) struct ScanOptions<'a> {
    /// About how many elements to visit.
    pub count: usize,
    pattern: Option<&'a [u8]>,
}

/// What one `SCAN`, `SSCAN`, `HSCAN` or `ZSCAN` visits at most, whatever its `COUNT` says: that is a hint, and
/// others wait meanwhile.
pub(crate) const SCAN_COUNT_MAX: usize = 16_384;

impl<'a> ScanOptions<'a> {
    /// Reads the arguments that follow the cursor.
    pub(crate) fn parse(mut rest: &[&'a [u8]]) -> Result<ScanOptions<'a>, Fault> {
        let mut options = ScanOptions { count: SCAN_COUNT, pattern: None };
        while let [option, value, tail @ ..] = rest {
            rest = tail;
            if option.eq_ignore_ascii_case(b"count") {
                let count = integer(value)?;
                let count = usize::try_from(count).ok().filter(|&n| n > 0).ok_or(Fault::Syntax)?;
                options.count = count.min(SCAN_COUNT_MAX);
            } else if option.eq_ignore_ascii_case(b"match") {
                options.pattern = (*value != b"*").then_some(*value);
            } else {
                return Err(Fault::Syntax);
            }
        }
        if rest.is_empty() { Ok(options) } else { Err(Fault::Syntax) }
    }

    /// True if `name` fits the pattern.
    #[inline]
    pub(crate) fn wants(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name, Case::Exact))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_clamped_to_the_sequence() {
        #[rustfmt::skip] // columns
        let table = [
            // start     stop      len
            (0,          -1,       3, 0..3),
            (-2,         -1,       3, 1..3),
            (-100,       100,      3, 0..3),
            (1,          1,        3, 1..2),
            (2,          1,        3, 0..0),
            (3,          5,        3, 0..0),
            (0,          -4,       3, 0..0),
            (0,          -1,       0, 0..0),
            (i64::MIN,   i64::MAX, 3, 0..3),
            (i64::MAX,   i64::MIN, 3, 0..0),
        ];
        for (start, stop, len, expected) in table {
            assert_eq!(places(start, stop, len), expected, "{start} {stop} {len}");
        }
        assert_eq!(
            [0, 2, 3, -1, -3, -4, i64::MIN, i64::MAX].map(|index| place(index, 3)),
            [Some(0), Some(2), None, Some(2), Some(0), None, None, None],
        );
    }
}
