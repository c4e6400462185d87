//! Moments as people write and read them: RFC 3339, seconds since 1970, or so long ago.
//!
//! The calendar is the crate `time`'s. It has no leap seconds, as all of Unix time has none.

use std::time::SystemTime;

use server::kernel::Millis;
use time::{Date, Month, OffsetDateTime, Time, UtcOffset};

use crate::command::duration;

/// The last year that is written with four digits.
const YEAR_MAX: i32 = 9_999;

/// The moment by this machine's clock.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(since.as_millis() as u64)
}

/// As `2026-01-31 12:00:00`, in UTC; a moment that no calendar has, as its seconds.
pub fn utc(Millis(millis): Millis) -> String {
    let seconds = millis / 1000;
    let at = i64::try_from(seconds).ok().and_then(|it| OffsetDateTime::from_unix_timestamp(it).ok());
    let Some(at) = at else { return format!("{seconds} s after 1970") };
    let (date, time) = (at.date(), at.time());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
}

/// The same with milliseconds.
pub fn utc_millis(at: Millis) -> String {
    format!("{}.{:03}", utc(at), at.0 % 1000)
}

/// What `text` says at `now`: `2026-01-31T12:00:00Z` with or without a fraction, also with an offset such as `+02:00` and a
/// blank instead of the `T`; seconds since 1970, with or without a fraction; or `90s ago`, `10m ago`, `24h ago`.
///
/// # Errors
/// How it should be written.
pub fn parse(text: &str, now: Millis) -> Result<Millis, String> {
    let wrong = || {
        format!(
            "{text:?} is no moment: write 2026-01-31T12:00:00Z, seconds since 1970, or for instance \"10m ago\""
        )
    };
    let text = text.trim();
    if let Some(ago) = text.strip_suffix(" ago") {
        let ago = duration(ago.trim()).map_err(|_| wrong())?;
        let ago = u64::try_from(ago.as_millis()).map_err(|_| wrong())?;
        return now.0.checked_sub(ago).map(Millis).ok_or_else(wrong);
    }
    let at = if text.contains('-') { rfc3339(text) } else { unix(text) };
    at.map(Millis).ok_or_else(wrong)
}

/// A number of seconds with perhaps a fraction.
fn unix(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    digits(seconds)?.checked_mul(1000)?.checked_add(millis(fraction)?)
}

fn rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = fields(date, '-', [4, 2, 2])?;
    let date = Date::from_calendar_date(i32::from(year), Month::try_from(small(month)?).ok()?, small(day)?);
    let date = date.ok().filter(|date| (1970..=YEAR_MAX).contains(&date.year()))?;
    let (clock, offset) = time.split_at(time.find(['Z', 'z', '+', '-'])?);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = fields(clock, ':', [2, 2, 2])?;
    let clock = Time::from_hms(small(hour)?, small(minute)?, small(second)?).ok()?;
    let offset = match offset {
        "Z" | "z" => UtcOffset::UTC,
        other => {
            // A place that is ahead has had its noon earlier.
            let sign = if other.starts_with('+') { 1 } else { -1 };
            let [hours, minutes] = fields(&other[1..], ':', [2, 2])?;
            if hours > 23 {
                return None;
            }
            let [hours, minutes] = [small(hours)?, small(minutes)?].map(|it| sign * it as i8);
            UtcOffset::from_hms(hours, minutes, 0).ok()?
        }
    };
    let at = u64::try_from(date.with_time(clock).assume_offset(offset).unix_timestamp()).ok()?;
    at.checked_mul(1000)?.checked_add(millis(fraction)?)
}

/// Exactly these fields, with so many digits each.
fn fields<const N: usize>(text: &str, between: char, lengths: [usize; N]) -> Option<[u16; N]> {
    let mut parts = text.split(between);
    let mut found = [0; N];
    for (field, length) in found.iter_mut().zip(lengths) {
        *field = u16::try_from(digits(parts.next().filter(|part| part.len() == length)?)?).ok()?;
    }
    parts.next().is_none().then_some(found)
}

fn small(field: u16) -> Option<u8> {
    u8::try_from(field).ok()
}

fn digits(text: &str) -> Option<u64> {
    let sound = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    sound.then(|| text.parse().ok())?
}

/// The milliseconds of the digits behind a point; what is finer is cut off, so that no moment is later than what was said.
fn millis(fraction: &str) -> Option<u64> {
    digits(fraction)?;
    let thousandths: String = fraction.chars().chain("00".chars()).take(3).collect();
    thousandths.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_in_utc_and_read_back() {
        let table = [
            (0, "1970-01-01 00:00:00"),
            (951_782_399_000, "2000-02-28 23:59:59"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_700_000_000_999, "2023-11-14 22:13:20"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
        ];
        for (millis, text) in table {
            assert_eq!(utc(Millis(millis)), text);
            assert_eq!(parse(&format!("{text}Z"), Millis(0)), Ok(Millis(millis / 1000 * 1000)));
        }
        assert_eq!(utc_millis(Millis(1_700_000_000_007)), "2023-11-14 22:13:20.007");
        assert_eq!(utc(Millis(253_402_300_800_000)), "253402300800 s after 1970");
        assert_eq!(utc(Millis(u64::MAX)), "18446744073709551 s after 1970");
        let mut rng = server::kernel::Rng::new(3);
        for _ in 0..10_000 {
            let at = Millis(rng.below(253_402_300_800_000));
            assert_eq!(parse(&format!("{}Z", utc_millis(at)), Millis(0)), Ok(at));
        }
    }

    #[test]
    fn a_moment_is_written_in_one_of_three_ways() {
        let now = Millis(1_700_000_100_000);
        #[rustfmt::skip] // columns
        let table = [
            ("2023-11-14T22:13:20Z",          Some(1_700_000_000_000)),
            ("2023-11-14t22:13:20.5z",        Some(1_700_000_000_500)),
            ("2023-11-14T22:13:20.0079Z",     Some(1_700_000_000_007)),
            ("2023-11-15T00:13:20+02:00",     Some(1_700_000_000_000)),
            ("2023-11-14T16:43:20-05:30",     Some(1_700_000_000_000)),
            ("1700000000",                    Some(1_700_000_000_000)),
            ("1700000000.25",                 Some(1_700_000_000_250)),
            ("100s ago",                      Some(1_700_000_000_000)),
            ("2m ago",                        Some(1_699_999_980_000)),
            ("2000-02-29T00:00:00Z",          Some(951_782_400_000)),
            ("2001-02-29T00:00:00Z",          None),
            ("2100-02-29T00:00:00Z",          None),
            ("2023-13-01T00:00:00Z",          None),
            ("2023-11-31T00:00:00Z",          None),
            ("2023-11-14T24:00:00Z",          None),
            ("2023-11-14T22:13:20",           None), // whose noon?
            ("2023-11-14",                    None),
            ("1969-12-31T23:59:59Z",          None),
            ("1970-01-01T00:00:00+01:00",     None),
            ("2023-11-14T22:13:20+2",         None),
            ("2023-11-14T22:13:60Z",          None),
            ("2023-11-14T22:13:20+24:00",     None),
            ("2023-11-14T22:13:20+24:60",     None),
            ("2023-11-14T22:13:20+99:99",     None),
            ("2023-11-14T22:13Z",             None),
            ("-5",                            None),
            ("1700000000.",                   None),
            ("18446744073709551615",          None),
            ("100 ago",                       None),
            ("999999999h ago",                None),
            ("",                              None),
            ("2023-11-14T22:13:20\u{e9}",     None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text, now).ok(), expected.map(Millis), "{text:?}");
        }
    }
}
