//! The settings of all members' proxies: listeners, services and routes, in revisions.
//!
//! A part is text in the words of a node's configuration, of which only what others refer to is known here: what it says is
//! judged by who compiles it, at each node, since a newer node may know more words than an older one. So a word that is new
//! needs no new format, and a node that does not know it keeps what it had and says so. What is judged here is judged alike
//! on every replica: numbers, lengths, names, and that what is named is there.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use kernel::Millis;
use thiserror::Error;

use crate::state::Name;

/// Listeners of one revision.
pub const LISTENERS_MAX: usize = 64;
/// Services of one revision.
pub const SERVICES_MAX: usize = 4096;
/// Routes of one revision.
pub const ROUTES_MAX: usize = 4096;
/// Services that one part refers to.
pub const USES_MAX: usize = 256;
/// A part's name, in bytes: a route may be called by its host, path, methods and headers.
pub const PART_NAME_BYTES_MAX: usize = 1024;
/// One part's text, in bytes.
pub const PART_BYTES_MAX: usize = 16 * 1024;
/// All names and texts of one revision together, in bytes.
pub const MESH_BYTES_MAX: usize = 256 * 1024;
/// Revisions that are remembered, to go back to; the one in force is the last of them.
pub const REVISIONS_MAX: usize = 16;
/// All names and texts of all remembered revisions together, in bytes. Beyond that the oldest are forgotten, and the one in
/// force never.
pub const REVISIONS_BYTES_MAX: usize = 1024 * 1024;

/// A listener, a service or a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is called, and nothing else of its kind: 1 to [`PART_NAME_BYTES_MAX`] bytes, no control characters.
    pub name: String,
    /// The services that it refers to, at most [`USES_MAX`].
    pub uses: BTreeSet<String>,
    /// What it says: lines of settings, at most [`PART_BYTES_MAX`] bytes, no control characters but ends of lines.
    pub text: String,
}

impl Part {
    /// What of it is counted, in bytes.
    fn bytes(&self) -> usize {
        self.name.len() + self.text.len() + self.uses.iter().map(String::len).sum::<usize>()
    }
}

/// Which list a part is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Where a proxy listens.
    Listener,
    /// Where requests can go.
    Service,
    /// Which requests go where.
    Route,
}

impl Kind {
    /// Parts of the kind in one revision.
    #[must_use]
    pub const fn max(self) -> usize {
        match self {
            Kind::Listener => LISTENERS_MAX,
            Kind::Service => SERVICES_MAX,
            Kind::Route => ROUTES_MAX,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Listener => "listener",
            Kind::Service => "service",
            Kind::Route => "route",
        })
    }
}

/// What all members' proxies should do. The default is to do nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshSettings {
    /// Where they listen. If there is none, each node listens where its own file says.
    pub listeners: Vec<Part>,
    /// Where requests can go.
    pub services: Vec<Part>,
    /// Which requests go where; of two that are as specific the first takes a request.
    pub routes: Vec<Part>,
}

impl MeshSettings {
    /// Its lists.
    #[must_use]
    pub const fn lists(&self) -> [(Kind, &Vec<Part>); 3] {
        [(Kind::Listener, &self.listeners), (Kind::Service, &self.services), (Kind::Route, &self.routes)]
    }

    /// All names and texts together, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lists().into_iter().flat_map(|(_, parts)| parts).map(Part::bytes).sum()
    }

    /// Judges what is judged alike everywhere. O(bytes · log parts).
    ///
    /// # Errors
    /// [`Unsound`], the first that is found.
    pub fn check(&self) -> Result<(), Unsound> {
        let bytes = self.bytes();
        if bytes > MESH_BYTES_MAX {
            return Err(Unsound::Bytes { bytes });
        }
        let services: BTreeSet<&str> = self.services.iter().map(|part| part.name.as_str()).collect();
        for (kind, parts) in self.lists() {
            if parts.len() > kind.max() {
                return Err(Unsound::Many { kind, count: parts.len() });
            }
            let mut names = BTreeSet::new();
            for part in parts {
                check_part(kind, part)?;
                if !names.insert(part.name.as_str()) {
                    return Err(Unsound::Twice { kind, name: part.name.clone() });
                }
                if let Some(service) = part.uses.iter().find(|name| !services.contains(name.as_str())) {
                    let (name, service) = (part.name.clone(), service.clone());
                    return Err(Unsound::NoService { kind, name, service });
                }
            }
        }
        Ok(())
    }
}

fn check_part(kind: Kind, part: &Part) -> Result<(), Unsound> {
    let named = (1..=PART_NAME_BYTES_MAX).contains(&part.name.len());
    if !named || part.name.chars().any(char::is_control) {
        return Err(Unsound::Name { kind });
    }
    let control = |letter: char| letter.is_control() && letter != '\n';
    if part.text.len() > PART_BYTES_MAX || part.text.chars().any(control) {
        return Err(Unsound::Text { kind, name: part.name.clone() });
    }
    if part.uses.len() > USES_MAX {
        return Err(Unsound::Uses { kind, name: part.name.clone(), count: part.uses.len() });
    }
    Ok(())
}

impl fmt::Display for MeshSettings {
    /// How much there is, in a few words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [listeners, services, routes] = self.lists().map(|(_, parts)| parts.len());
        write!(f, "{listeners} listeners, {services} services, {routes} routes")
    }
}

/// Where the settings of a revision are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// They were given.
    Given,
    /// They are those of this earlier revision; 0 is what each node's file says.
    Revision(u64),
}

/// What the proxies should do since some moment.
///
/// Invariant: its settings are sound ([`MeshSettings::check`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Its number: the first is 1, and each is one above the one before.
    pub number: u64,
    /// The version of the state that it came with.
    pub version: u64,
    /// Who asked for it.
    pub by: Name,
    /// When.
    pub at: Millis,
    /// Where its settings are from.
    pub source: Source,
    /// The settings; none if each node does what its own file says.
    pub settings: Option<MeshSettings>,
}

impl Revision {
    /// All names and texts together, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.settings.as_ref().map_or(0, MeshSettings::bytes)
    }
}

/// Why settings of the proxies are none. All of these are for who asks to mend.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[rustfmt::skip] // one line for each text
pub enum Unsound {
    /// They are too long.
    #[error("the settings have {bytes} bytes, and {MESH_BYTES_MAX} are the limit: leave out what is not needed")]
    Bytes {
        /// How long.
        bytes: usize,
    },
    /// There are too many of a kind.
    #[error("the settings have {count} of the kind {kind}, and {} are the limit: leave out what is not needed", kind.max())]
    Many {
        /// Of which kind.
        kind: Kind,
        /// How many.
        count: usize,
    },
    /// A name is none.
    #[error("a {kind} has a name that is empty, longer than {PART_NAME_BYTES_MAX} bytes, or has control characters: give it another")]
    Name {
        /// Of which kind.
        kind: Kind,
    },
    /// A text is none.
    #[error("the {kind} {name} says more than {PART_BYTES_MAX} bytes, or has control characters: make it shorter")]
    Text {
        /// Of which kind.
        kind: Kind,
        /// Which.
        name: String,
    },
    /// A part refers to too much.
    #[error("the {kind} {name} refers to {count} services, and {USES_MAX} are the limit")]
    Uses {
        /// Of which kind.
        kind: Kind,
        /// Which.
        name: String,
        /// To how many.
        count: usize,
    },
    /// Two are called the same.
    #[error("two of the kind {kind} are called {name}: give one another name")]
    Twice {
        /// Of which kind.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// A part refers to what is not there.
    #[error("the {kind} {name} refers to the service {service}, which the settings do not have: add it, or name another")]
    NoService {
        /// Of which kind.
        kind: Kind,
        /// Which.
        name: String,
        /// To what.
        service: String,
    },
}
