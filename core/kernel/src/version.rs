//! Which formats a node speaks and a cluster uses: of what goes over links, of what is replicated, and of what is kept.
//!
//! One number stands for all of them. A node speaks the version that it was built for and the one before. A cluster is at
//! one version, which is part of its replicated state and only ever rises, once all members speak the next one; until then
//! everything is written as the version before wrote it. So members are exchanged one by one, and back.

use core::fmt;

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
    pub const NEWEST: Version = Version(3);
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// The newest.
    pub newest: Version,
    /// The oldest.
    pub oldest: Version,
}

impl Spoken {
    /// All that is known here.
    pub const ALL: Spoken = Spoken { newest: Version::NEWEST, oldest: Version::OLDEST };

    /// What is known here, but nothing newer than `newest`: an operator holds a cluster at it. `None` if that is not known.
    #[must_use]
    pub fn pinned(newest: Version) -> Option<Spoken> {
        let known = (Version::OLDEST..=Version::NEWEST).contains(&newest);
        known.then_some(Spoken { newest, oldest: Version::OLDEST })
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
    use super::*;

    fn spoken(oldest: u8, newest: u8) -> Spoken {
        Spoken { oldest: Version(oldest), newest: Version(newest) }
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
