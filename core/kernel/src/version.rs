//! Which formats a node speaks and a cluster uses: of what goes over links, of what is replicated, and of what is kept.
//!
//! One number stands for all of them. A node speaks the version that it was built for and the one before. A cluster is at
//! one version, which is part of its replicated state and only ever rises, once all members speak the next one; until then
//! everything is written as the version before wrote it. So members are exchanged one by one, and back.

use core::fmt;
use core::ops::RangeInclusive;

/// A version of all formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u8);

impl Version {
    /// The newest that is known here. One more whenever a node that speaks the one before could not understand all that
    /// this one writes.
    ///
    /// | version | since then |
    /// |---|---|
    /// | 1 | links |
    /// | 2 | greetings name the versions that a node speaks |
    /// | 3 | clusters have a version; keyspaces say which copies are read and how far behind those may be |
    /// | 4 | the settings of the members' proxies are a part of the cluster's state |
    pub const NEWEST: Version = Version(4);
    /// The oldest that is spoken here.
    pub const OLDEST: Version = Version(Version::NEWEST.0 - 1);
}

impl Default for Version {
    /// The oldest: what nobody was heard to exceed.
    fn default() -> Version {
        Version::OLDEST
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The versions that a node speaks, those between the two included.
///
/// Invariant: `1 <= oldest <= newest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken {
    newest: Version,
    oldest: Version,
}

impl Spoken {
    /// All that is known here.
    pub const ALL: Spoken =
        Spoken::new(Version::OLDEST..=Version::NEWEST).expect("there is a version, and one before it");

    /// These versions; `None` if they are none, or from before the first. A peer may speak newer ones than are known here.
    #[must_use]
    pub const fn new(versions: RangeInclusive<Version>) -> Option<Spoken> {
        let (oldest, newest) = (*versions.start(), *versions.end());
        if oldest.0 == 0 || oldest.0 > newest.0 { None } else { Some(Spoken { newest, oldest }) }
    }

    /// The newest.
    #[must_use]
    pub const fn newest(self) -> Version {
        self.newest
    }

    /// The oldest.
    #[must_use]
    pub const fn oldest(self) -> Version {
        self.oldest
    }

    /// Whether what is written in `version` is understood.
    #[must_use]
    pub fn knows(self, version: Version) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }

    /// What is known here, but nothing newer than `newest`: an operator holds a cluster at it. `None` if that is not known.
    #[must_use]
    pub fn pinned(newest: Version) -> Option<Spoken> {
        Spoken::ALL.knows(newest).then_some(Spoken { newest, oldest: Version::OLDEST })
    }

    /// The same in a cluster at `version`, where nothing older will do.
    #[must_use]
    pub fn at(self, version: Version) -> Spoken {
        Spoken { oldest: self.oldest.max(version.min(self.newest)), ..self }
    }

    /// The version that two nodes speak with each other; `None` if none is known to both.
    #[must_use]
    pub fn agree(self, theirs: Spoken) -> Option<Version> {
        let newest = self.newest.min(theirs.newest);
        (newest >= self.oldest && newest >= theirs.oldest).then_some(newest)
    }
}

/// What was written in a version that is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    wrote: Version,
    spoken: Spoken,
}

impl Foreign {
    /// What was written in `wrote`, if a node that speaks `spoken` does not understand it.
    #[must_use]
    pub fn of(wrote: Version, spoken: Spoken) -> Option<Foreign> {
        (!spoken.knows(wrote)).then_some(Foreign { wrote, spoken })
    }
}

/// Says what to do: a cluster's version is left behind only one by one.
impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Foreign { wrote, spoken } = self;
        write!(f, "version {wrote} of the formats, and this archipel speaks {spoken}: ")?;
        if *wrote > spoken.newest {
            f.write_str("start it with a newer one, and without the setting `cluster.version`")
        } else {
            write!(f, "it is too old; begin with one that speaks {wrote}, and go on one version at a time")
        }
    }
}

impl core::error::Error for Foreign {}

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            write!(f, "version {}", self.newest)
        } else {
            write!(f, "versions {} to {}", self.oldest, self.newest)
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn spoken(oldest: u8, newest: u8) -> Spoken {
        Spoken::new(Version(oldest)..=Version(newest)).unwrap()
    }

    #[test]
    fn versions_that_are_none_are_not_spoken() {
        #[rustfmt::skip] // columns
        let table = [
            (1, 1, true), (1, 2, true), (2, u8::MAX, true),
            (0, 0, false), (0, 3, false), (3, 2, false), (u8::MAX, 1, false),
        ];
        for (oldest, newest, some) in table {
            let made = Spoken::new(Version(oldest)..=Version(newest));
            assert_eq!(made.is_some(), some, "{oldest} to {newest}");
            if let Some(made) = made {
                assert_eq!((made.oldest(), made.newest()), (Version(oldest), Version(newest)));
            }
        }
    }

    #[test]
    fn what_is_too_old_is_not_called_newer() {
        let here = spoken(4, 5);
        #[rustfmt::skip] // columns
        let table = [
            (3, Some("version 3 of the formats, and this archipel speaks versions 4 to 5: it is too old; \
                      begin with one that speaks 3, and go on one version at a time")),
            (4, None),
            (5, None),
            (6, Some("version 6 of the formats, and this archipel speaks versions 4 to 5: \
                      start it with a newer one, and without the setting `cluster.version`")),
        ];
        for (wrote, expected) in table {
            let foreign = Foreign::of(Version(wrote), here).map(|foreign| foreign.to_string());
            assert_eq!(foreign.as_deref(), expected, "{wrote}");
        }
    }

    #[test]
    fn nodes_one_version_apart_understand_each_other_and_no_others() {
        let Version(newest) = Version::NEWEST;
        let Version(oldest) = Version::OLDEST;
        #[rustfmt::skip] // columns
        let table = [
            // theirs                          agreed
            (spoken(oldest, newest),           Some(newest)),
            (spoken(oldest - 1, newest - 1),   Some(newest - 1)),
            (spoken(newest, newest + 1),       Some(newest)),
            (spoken(newest + 1, newest + 1),   None),             // it gave the rule up
            (spoken(newest + 1, newest + 2),   None),
            (spoken(oldest - 1, oldest - 1),   None),
            (spoken(1, u8::MAX),               Some(newest)),
        ];
        for (theirs, expected) in table {
            assert_eq!(Spoken::ALL.agree(theirs), expected.map(Version), "{theirs}");
            assert_eq!(theirs.agree(Spoken::ALL), expected.map(Version), "{theirs}");
        }
    }

    #[test]
    fn a_cluster_that_rose_leaves_those_behind_who_do_not_speak_its_version() {
        let before = Spoken::pinned(Version::OLDEST).unwrap();
        assert_eq!(before.agree(Spoken::ALL), Some(Version::OLDEST));
        assert_eq!(before.agree(Spoken::ALL.at(Version::OLDEST)), Some(Version::OLDEST));
        assert_eq!(before.agree(Spoken::ALL.at(Version::NEWEST)), None);
        assert_eq!(Spoken::ALL.at(Version::NEWEST).agree(Spoken::ALL), Some(Version::NEWEST));
        assert_eq!(
            before.at(Version::NEWEST),
            before.at(Version::OLDEST),
            "it cannot say more than it knows"
        );
        for unknown in [Version(Version::OLDEST.0 - 1), Version(Version::NEWEST.0 + 1)] {
            assert_eq!(Spoken::pinned(unknown), None);
        }
    }
}
