//! Moments as people write and read them: RFC 3339, seconds since 1970, or so long ago.
//!
//! Calendar arithmetic is Howard Hinnant's `civil_from_days` and `days_from_civil`, for days after 1970. There are no leap
//! seconds in it, as in all of Unix time.

use std::time::SystemTime;

use server::kernel::Millis;

use crate::command::duration;

/// Days before 1970 since the beginning of March of the year 0.
const DAYS_TO_1970: u64 = 719_468;
/// Days in 400 years.
const DAYS_OF_ERA: u64 = 146_097;
const MILLIS_OF_DAY: u64 = 86_400_000;
/// The last year that is written with four digits.
const YEAR_MAX: u64 = 9_999;

/// The moment by this machine's clock.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(since.as_millis() as u64)
}

/// As `2026-01-31 12:00:00`, in UTC.
pub fn utc(Millis(millis): Millis) -> String {
    let seconds = millis / 1000;
    let days = seconds / 86_400 + DAYS_TO_1970;
    let (era, day) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let day = day - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}")
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
    let mut date = date.split('-');
    let (year, month, day) = (fixed(date.next()?, 4)?, fixed(date.next()?, 2)?, fixed(date.next()?, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if date.next().is_some() || !(1970..=YEAR_MAX).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    let (clock, offset) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => time.split_at(at),
        None => return None,
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.split(':');
    let (hour, minute, second) =
        (fixed(clock.next()?, 2)?, fixed(clock.next()?, 2)?, fixed(clock.next()?, 2)?);
    if clock.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // March begins the year, so that the leap day ends it.
    let (year, shifted) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let days = era * DAYS_OF_ERA + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - DAYS_TO_1970;
    let at = days * MILLIS_OF_DAY + (hour * 3600 + minute * 60 + second) * 1000 + millis(fraction)?;
    if offset.eq_ignore_ascii_case("z") {
        return Some(at);
    }
    let (hours, minutes) = offset[1..].split_once(':')?;
    let (hours, minutes) = (fixed(hours, 2)?, fixed(minutes, 2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset_millis = (hours * 60 + minutes) * 60_000;
    // A place that is ahead has had its noon earlier.
    if offset.starts_with('+') { at.checked_sub(offset_millis) } else { at.checked_add(offset_millis) }
}

fn digits(text: &str) -> Option<u64> {
    let sound = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    sound.then(|| text.parse().ok())?
}

fn fixed(text: &str, length: usize) -> Option<u64> {
    digits(text).filter(|_| text.len() == length)
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
