//! Arithmetic on the ring of 2^64 points.

/// How far it is from `from` to `to`, clockwise.
#[inline]
#[must_use]
pub const fn distance(from: u64, to: u64) -> u64 {
    to.wrapping_sub(from)
}

/// Is `point` strictly between `from` and `to`, clockwise? If they are one point: is it any other?
#[inline]
#[must_use]
pub const fn between(from: u64, point: u64, to: u64) -> bool {
    if from == to { point != from } else { point != from && distance(from, point) < distance(from, to) }
}

/// Does a node at `own` with its predecessor at `predecessor` own `point`: is it in `(predecessor, own]`?
#[inline]
#[must_use]
pub const fn owns(predecessor: u64, own: u64, point: u64) -> bool {
    point == own || between(predecessor, point, own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_wrap_around_the_end() {
        const END: u64 = u64::MAX;
        #[rustfmt::skip] // columns
        let table = [
            // from  point  to   between  owns
            (10,     15,    20,  true,    true),
            (10,     10,    20,  false,   false),
            (10,     20,    20,  false,   true),
            (10,     25,    20,  false,   false),
            (END-5,  2,     10,  true,    true),
            (END-5,  END,   10,  true,    true),
            (END-5,  11,    10,  false,   false),
            (END-5,  END-5, 10,  false,   false),
            (10,     11,    10,  true,    true), // a ring of one: everything
            (10,     10,    10,  false,   true),
        ];
        for (from, point, to, is_between, is_owned) in table {
            assert_eq!(between(from, point, to), is_between, "{from} {point} {to}");
            assert_eq!(owns(from, to, point), is_owned, "{from} {point} {to}");
        }
    }
}
