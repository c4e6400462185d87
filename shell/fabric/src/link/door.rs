//! Who may begin a handshake, and whose misdeeds are still news: the door of the port, as a machine.
//!
//! Handshakes cost a signature and some memory before anybody is known, so they are bounded: in number, in number
//! for each source, and in rate for each source. A source is an IPv4 address or an IPv6 /64, which one host owns.
//! Sources where members live have places of their own, so that strangers cannot take them all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kernel::Micros;

/// Handshakes of strangers' sources at once.
pub const HANDSHAKES_MAX: usize = 256;
/// Handshakes at once, beyond those, of sources where members live.
pub const HANDSHAKES_RESERVED: usize = 64;
/// Handshakes of one source at once.
pub const HANDSHAKES_PER_SOURCE_MAX: usize = 32;
/// Handshakes that a source may begin at one moment after a rest.
pub const BURST_MAX: u64 = 64;
/// Handshakes that a source may begin each second.
pub const HANDSHAKES_PER_SECOND: u64 = 16;
/// Sources that are remembered; of those without a handshake the one that is idle for longest is forgotten.
pub const SOURCES_MAX: usize = 4096;
/// One source's misdeeds are told once in this time, in milliseconds.
pub const WINDOW_MS: u64 = 60_000;
/// Misdeeds that are told in that time, of all sources.
pub const TOLD_PER_WINDOW_MAX: u32 = 64;

const _: () = assert!(SOURCES_MAX > HANDSHAKES_MAX + HANDSHAKES_RESERVED, "one is always idle");
/// What one handshake takes from a source's allowance, which grows by one a microsecond.
const COST: u64 = 1_000_000 / HANDSHAKES_PER_SECOND;

/// Where connections come from: what one host can have many of counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source([u8; 8]);

impl Source {
    /// The source that an address belongs to.
    #[must_use]
    pub fn of(address: IpAddr) -> Source {
        match address.to_canonical() {
            // `::/64` with a mark that no IPv6 address of a host has there.
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                Source([0, 0, 0, 0xFF, a, b, c, d])
            }
            IpAddr::V6(v6) => {
                Source(v6.octets().first_chunk::<8>().copied().expect("an IPv6 address has 16 bytes"))
            }
        }
    }
}

/// Whether a source is one where a member lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A member has an address there.
    Member,
    /// Nobody we know.
    Stranger,
}

/// Why a connection is closed as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// There are too many handshakes.
    Full,
    /// The source has too many.
    SourceFull,
    /// The source begins them too fast.
    TooFast,
}

#[derive(Debug)]
struct Entry {
    /// When it last did something.
    last: Micros,
    /// Its allowance, at most `BURST_MAX * COST`, as of `last`.
    allowance: u64,
    handshakes: usize,
    /// When a misdeed of it was last told, and those that were not told since.
    told: Option<Micros>,
    untold: u64,
}

/// The door.
#[derive(Debug, Default)]
pub struct Door {
    sources: BTreeMap<Source, Entry>,
    /// Those without a handshake, by when they last did something.
    idle: BTreeSet<(Micros, Source)>,
    handshakes: usize,
    /// Begin of the window in which [`Door::report`] counts, and how many were told in it.
    window: Micros,
    told: u32,
}

impl Door {
    /// A door that has seen nobody.
    #[must_use]
    pub fn new() -> Door {
        Door::default()
    }

    /// May a connection of `source` begin a handshake now? If so, [`Door::done`] follows when it has ended.
    ///
    /// # Errors
    /// [`Turned`]; the connection is closed without an answer.
    pub fn admit(&mut self, now: Micros, source: Source, standing: Standing) -> Result<(), Turned> {
        let room = match standing {
            Standing::Stranger => HANDSHAKES_MAX,
            Standing::Member => HANDSHAKES_MAX + HANDSHAKES_RESERVED,
        };
        self.touch(now, source, |entry, total| {
            if *total >= room {
                return Err(Turned::Full);
            }
            if entry.handshakes >= HANDSHAKES_PER_SOURCE_MAX {
                return Err(Turned::SourceFull);
            }
            entry.allowance = entry.allowance.checked_sub(COST).ok_or(Turned::TooFast)?;
            entry.handshakes += 1;
            *total += 1;
            Ok(())
        })
    }

    /// A handshake that was admitted has ended, well or not.
    pub fn done(&mut self, now: Micros, source: Source) {
        self.touch(now, source, |entry, total| {
            assert!(entry.handshakes > 0, "a handshake that ends was admitted");
            entry.handshakes -= 1;
            *total -= 1;
        });
    }

    /// A misdeed of `source`: `Some(n)` if it is to be told, `n` being how many of the source were not told before.
    pub fn report(&mut self, now: Micros, source: Source) -> Option<u64> {
        if now.since(self.window) >= WINDOW_MS * 1000 {
            self.window = now;
            self.told = 0;
        }
        let room = self.told < TOLD_PER_WINDOW_MAX;
        let news = self.touch(now, source, |entry, _| {
            let due = entry.told.is_none_or(|told| now.since(told) >= WINDOW_MS * 1000);
            if !due || !room {
                entry.untold += 1;
                return None;
            }
            entry.told = Some(now);
            Some(std::mem::take(&mut entry.untold))
        });
        self.told += u32::from(news.is_some());
        news
    }

    /// Handshakes under way.
    #[must_use]
    pub const fn handshakes(&self) -> usize {
        self.handshakes
    }

    /// Sources that are remembered.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Changes the entry of `source`, which is made if there is none, and brings what depends on it up to date.
    fn touch<T>(
        &mut self,
        now: Micros,
        source: Source,
        change: impl FnOnce(&mut Entry, &mut usize) -> T,
    ) -> T {
        if !self.sources.contains_key(&source) && self.sources.len() >= SOURCES_MAX {
            let (_, oldest) = self.idle.pop_first().expect("more sources than handshakes, so one is idle");
            self.sources.remove(&oldest);
        }
        let full = BURST_MAX * COST;
        let entry = self.sources.entry(source).or_insert(Entry {
            last: now,
            allowance: full,
            handshakes: 0,
            told: None,
            untold: 0,
        });
        self.idle.remove(&(entry.last, source));
        entry.allowance = entry.allowance.saturating_add(now.since(entry.last)).min(full);
        entry.last = entry.last.max(now);
        let changed = change(entry, &mut self.handshakes);
        if entry.handshakes == 0 {
            self.idle.insert((entry.last, source));
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use kernel::Rng;

    use super::*;

    fn source(n: u32) -> Source {
        Source::of(IpAddr::from(n.to_be_bytes()))
    }

    const T0: Micros = Micros(1_000_000_000);

    #[test]
    fn a_host_is_one_source() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("0.0.0.0"), of("::1"));
    }

    #[test]
    fn a_source_begins_a_burst_and_then_its_rate() {
        let mut door = Door::new();
        let mut begin = |now: Micros| {
            let admitted = door.admit(now, source(1), Standing::Stranger);
            if admitted.is_ok() {
                door.done(now, source(1));
            }
            admitted
        };
        for _ in 0..BURST_MAX {
            assert_eq!(begin(T0), Ok(()));
        }
        assert_eq!(begin(T0), Err(Turned::TooFast));
        let second = T0.plus_millis(1000);
        for _ in 0..HANDSHAKES_PER_SECOND {
            assert_eq!(begin(second), Ok(()));
        }
        assert_eq!(begin(second), Err(Turned::TooFast));
        // A clock that goes back gives nothing.
        assert_eq!(begin(T0), Err(Turned::TooFast));
        assert_eq!(door.admit(second, source(2), Standing::Stranger), Ok(()));
    }

    #[test]
    fn handshakes_are_bounded_for_each_source_and_in_all_and_members_have_places() {
        let mut door = Door::new();
        for _ in 0..HANDSHAKES_PER_SOURCE_MAX {
            assert_eq!(door.admit(T0, source(1), Standing::Stranger), Ok(()));
        }
        assert_eq!(door.admit(T0, source(1), Standing::Stranger), Err(Turned::SourceFull));
        for n in HANDSHAKES_PER_SOURCE_MAX..HANDSHAKES_MAX {
            assert_eq!(door.admit(T0, source(100 + n as u32), Standing::Stranger), Ok(()));
        }
        assert_eq!(door.admit(T0, source(2), Standing::Stranger), Err(Turned::Full));
        for n in 0..HANDSHAKES_RESERVED {
            assert_eq!(door.admit(T0, source(9000 + n as u32), Standing::Member), Ok(()));
        }
        assert_eq!(door.admit(T0, source(2), Standing::Member), Err(Turned::Full));
        door.done(T0, source(9000));
        assert_eq!(door.admit(T0, source(2), Standing::Stranger), Err(Turned::Full));
        assert_eq!(door.admit(T0, source(2), Standing::Member), Ok(()));
        assert_eq!(door.handshakes(), HANDSHAKES_MAX + HANDSHAKES_RESERVED);
    }

    #[test]
    fn a_misdeed_is_told_once_for_each_source_and_window() {
        let mut door = Door::new();
        assert_eq!(door.report(T0, source(1)), Some(0));
        assert_eq!(door.report(T0, source(2)), Some(0));
        for _ in 0..5 {
            assert_eq!(door.report(T0.plus_millis(WINDOW_MS - 1), source(1)), None);
        }
        assert_eq!(door.report(T0.plus_millis(WINDOW_MS), source(1)), Some(5));
        assert_eq!(door.report(T0.plus_millis(WINDOW_MS), source(1)), None);
    }

    #[test]
    fn many_sources_do_not_fill_the_log() {
        let mut door = Door::new();
        let told = (0..2000).filter(|n| door.report(T0, source(*n)).is_some()).count();
        assert_eq!(told, TOLD_PER_WINDOW_MAX as usize);
        assert_eq!(door.report(T0.plus_millis(WINDOW_MS), source(1999)), Some(1));
    }

    #[test]
    fn whatever_comes_the_door_remembers_a_bounded_number_and_counts_right() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut door = Door::new();
            let mut open = Vec::new();
            let mut now = T0;
            for _ in 0..20_000 {
                now = now + rng.below(3000);
                let who = source(rng.below(20_000) as u32);
                match rng.below(3) {
                    0 => drop(door.report(now, who)),
                    1 if !open.is_empty() => {
                        let ended = open.swap_remove(rng.below(open.len() as u64) as usize);
                        door.done(now, ended);
                    }
                    _ => {
                        if door.admit(now, who, Standing::Stranger).is_ok() {
                            open.push(who);
                        }
                    }
                }
                assert_eq!(door.handshakes(), open.len(), "seed {seed}");
                assert!(door.sources() <= SOURCES_MAX, "seed {seed}");
            }
        }
    }
}
