//! What is registered: nodes, instances of services, and the checks that say how they are. Everything has a bound, which
//! is checked once, when it comes in.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

/// Longest name of a node or service, and longest id of an instance or check, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest address of a node or instance, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// Tags of one instance.
pub const TAGS_MAX: usize = 64;
/// Longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 255;
/// Pairs of metadata of one node or instance.
pub const META_MAX: usize = 64;
/// Longest key of a pair of metadata, in bytes.
pub const META_KEY_BYTES_MAX: usize = 128;
/// Longest value of a pair of metadata, in bytes.
pub const META_VALUE_BYTES_MAX: usize = 512;
/// Checks of one node or instance.
pub const CHECKS_MAX: usize = 16;
/// Longest notes of a check, in bytes; the rest is cut.
pub const NOTES_BYTES_MAX: usize = 512;
/// Longest output of a check, in bytes; the rest is cut.
pub const OUTPUT_BYTES_MAX: usize = 4096;
/// Largest weight.
pub const WEIGHT_MAX: u32 = 65_535;

/// How something is. The worst counts, so the order is from good to bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// It serves.
    Passing,
    /// It serves, and somebody should look at it.
    Warning,
    /// It is not to be used.
    #[default]
    Critical,
}

impl Health {
    /// The word that Consul has for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Health::Passing => "passing",
            Health::Warning => "warning",
            Health::Critical => "critical",
        }
    }

    /// What a word means.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Health> {
        match word {
            "passing" => Some(Health::Passing),
            "warning" => Some(Health::Warning),
            "critical" => Some(Health::Critical),
            _ => None,
        }
    }

    pub(super) const fn number(self) -> u8 {
        match self {
            Health::Passing => 0,
            Health::Warning => 1,
            Health::Critical => 2,
        }
    }

    pub(super) const fn of_number(number: u8) -> Option<Health> {
        match number {
            0 => Some(Health::Passing),
            1 => Some(Health::Warning),
            2 => Some(Health::Critical),
            _ => None,
        }
    }
}

/// What a check of a node or instance says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Its id, once on its node.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// How it is found out, such as `http` or `ttl`.
    pub kind: String,
    /// How it is.
    pub status: Health,
    /// What its owner wrote about it.
    pub notes: String,
    /// What it said last. Other nodes are told it when `status` changes, and not each time.
    pub output: String,
}

/// How often an instance is picked, by how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// When it is passing, 1 to [`WEIGHT_MAX`].
    pub passing: u32,
    /// When it is warning, 0 to [`WEIGHT_MAX`].
    pub warning: u32,
}

impl Default for Weights {
    fn default() -> Weights {
        Weights { passing: 1, warning: 1 }
    }
}

/// One instance of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// Its id, once on its node.
    pub id: String,
    /// The service that it is one of.
    pub service: String,
    /// Where it is; empty is the node's address.
    pub address: String,
    /// Its port; 0 is none.
    pub port: u16,
    /// What it is found by besides its name.
    pub tags: Vec<String>,
    /// What its owner says of it.
    pub meta: BTreeMap<String, String>,
    /// How often it is picked.
    pub weights: Weights,
    /// Its checks; without any it is passing as long as its node is.
    pub checks: Vec<Check>,
}

/// A node that has instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where it is, without a port.
    pub address: String,
    /// What fails together with it.
    pub zone: String,
    /// What its owner says of it.
    pub meta: BTreeMap<String, String>,
    /// Its checks, which count for all its instances.
    pub checks: Vec<Check>,
}

/// Why something is not registered: it is the caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Nothing is there where something must be.
    #[error("{what} is empty")]
    Empty {
        /// What.
        what: &'static str,
    },
    /// Too long.
    #[error("{what} has {bytes} bytes; at most {limit} are allowed")]
    TooLong {
        /// What.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// Too many.
    #[error("there are {count} {what}; at most {limit} are allowed")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A byte that would break a line or a message of somebody.
    #[error("{what} has a control character")]
    Control {
        /// What.
        what: &'static str,
    },
    /// Beyond its range.
    #[error("the weight {weight} is not one of {least} to {WEIGHT_MAX}")]
    Weight {
        /// The weight.
        weight: u32,
        /// The least allowed.
        least: u32,
    },
    /// Two checks of one id.
    #[error("the check {id:?} is there twice")]
    Twice {
        /// The id.
        id: String,
    },
}

fn text(what: &'static str, text: &str, limit: usize) -> Result<(), RecordError> {
    if text.len() > limit {
        return Err(RecordError::TooLong { what, bytes: text.len(), limit });
    }
    if text.chars().any(char::is_control) {
        return Err(RecordError::Control { what });
    }
    Ok(())
}

fn name(what: &'static str, it: &str) -> Result<(), RecordError> {
    if it.is_empty() {
        return Err(RecordError::Empty { what });
    }
    text(what, it, NAME_BYTES_MAX)
}

fn count(what: &'static str, count: usize, limit: usize) -> Result<(), RecordError> {
    if count > limit { Err(RecordError::TooMany { what, count, limit }) } else { Ok(()) }
}

fn meta(pairs: &BTreeMap<String, String>) -> Result<(), RecordError> {
    count("pairs of metadata", pairs.len(), META_MAX)?;
    for (key, value) in pairs {
        text("a key of the metadata", key, META_KEY_BYTES_MAX)?;
        if value.len() > META_VALUE_BYTES_MAX {
            let (what, bytes) = ("a value of the metadata", value.len());
            return Err(RecordError::TooLong { what, bytes, limit: META_VALUE_BYTES_MAX });
        }
    }
    Ok(())
}

fn checks(all: &[Check]) -> Result<(), RecordError> {
    count("checks", all.len(), CHECKS_MAX)?;
    for (at, check) in all.iter().enumerate() {
        check.valid()?;
        if all[..at].iter().any(|other| other.id == check.id) {
            return Err(RecordError::Twice { id: check.id.clone() });
        }
    }
    Ok(())
}

/// Cuts `text` to at most `bytes`, between two characters.
pub(super) fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
}

impl Check {
    /// Whether it is within its bounds.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn valid(&self) -> Result<(), RecordError> {
        name("the id of a check", &self.id)?;
        text("the name of a check", &self.name, NAME_BYTES_MAX)?;
        text("the kind of a check", &self.kind, NAME_BYTES_MAX)?;
        for (what, it, limit) in [
            ("the notes of a check", &self.notes, NOTES_BYTES_MAX),
            ("the output of a check", &self.output, OUTPUT_BYTES_MAX),
        ] {
            if it.len() > limit {
                return Err(RecordError::TooLong { what, bytes: it.len(), limit });
            }
        }
        Ok(())
    }

    /// Cuts what is for people to its bounds.
    pub fn cut(&mut self) {
        cut(&mut self.notes, NOTES_BYTES_MAX);
        cut(&mut self.output, OUTPUT_BYTES_MAX);
    }
}

impl Instance {
    /// Whether it is within its bounds.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn valid(&self) -> Result<(), RecordError> {
        name("the id of an instance", &self.id)?;
        name("the name of a service", &self.service)?;
        text("the address of an instance", &self.address, ADDRESS_BYTES_MAX)?;
        count("tags", self.tags.len(), TAGS_MAX)?;
        self.tags.iter().try_for_each(|tag| text("a tag", tag, TAG_BYTES_MAX))?;
        meta(&self.meta)?;
        let Weights { passing, warning } = self.weights;
        for (weight, least) in [(passing, 1), (warning, 0)] {
            if weight < least || weight > WEIGHT_MAX {
                return Err(RecordError::Weight { weight, least });
            }
        }
        checks(&self.checks)
    }
}

impl Node {
    /// Whether it is within its bounds.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn valid(&self) -> Result<(), RecordError> {
        name("the name of a node", &self.name)?;
        text("the address of a node", &self.address, ADDRESS_BYTES_MAX)?;
        text("the zone of a node", &self.zone, NAME_BYTES_MAX)?;
        meta(&self.meta)?;
        checks(&self.checks)
    }
}
