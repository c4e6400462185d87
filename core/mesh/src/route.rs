//! Which route a request takes: by host, path, method and header fields.
//!
//! The order is that of specificity, so that it does not matter in which order routes were written: a host before a pattern
//! before any host, a longer pattern before a shorter one, an exact path before a prefix, a longer prefix before a shorter
//! one; then more conditions before fewer; then the first. A host that is known keeps its requests: what none of its routes
//! takes goes to no other host's. Prefixes end at segments: `/api` takes `/api` and `/api/x`, not `/apix`. Paths are compared
//! as they came: nothing is decoded and no dots are resolved, so what a route saw is what its service sees.
//!
//! A route is found in O(log hosts + prefix lengths of the host · log prefixes): not by how many routes there are.

mod explain;

pub use explain::Standing;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use kernel::Rng;
use kernel::planted::{Bug, is};
use thiserror::Error;

/// Longest name of a host, in bytes (RFC 1035, 2.3.4); longer ones are none.
pub const HOST_BYTES_MAX: usize = 255;
/// Longest path that a route can name, in bytes.
pub const PATH_BYTES_MAX: usize = 1024;
/// Different lengths of the prefixes of one host.
pub const PREFIX_LENGTHS_MAX: usize = 64;

/// Hosts that a route takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostRule {
    /// All, also requests without one.
    #[default]
    Any,
    /// This one; in lower case.
    Exact(Box<str>),
    /// All names that end with this, which begins with a dot: `*.example.org` is `.example.org`.
    Under(Box<str>),
}

/// Paths that a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRule {
    /// This one.
    Exact(Box<str>),
    /// This one and those below it. `/` is all.
    Prefix(Box<str>),
}

/// A header field that a request must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRule {
    /// Its name, in lower case.
    pub name: Box<str>,
    /// Its value, the bytes of it; `None`: any.
    pub value: Option<Box<str>>,
}

/// What a request must be to take a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its host.
    pub host: HostRule,
    /// Its path.
    pub path: PathRule,
    /// Its method, one of these; empty: any.
    pub methods: Vec<Box<str>>,
    /// Its fields, all of these.
    pub fields: Vec<FieldRule>,
}

/// Why a rule cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    /// No name of a host, nor a pattern of one.
    #[error("{0:?} is no host such as shop.example.org or *.example.org, of at most {HOST_BYTES_MAX} bytes")]
    Host(String),
    /// No path.
    #[error(
        "{0:?} is no path: it begins with a slash, has printable ASCII without ? and #, and at most {PATH_BYTES_MAX} bytes"
    )]
    Path(String),
    /// Prefixes of too many lengths.
    #[error("the routes of one host have prefixes of more than {PREFIX_LENGTHS_MAX} lengths")]
    Lengths,
}

impl HostRule {
    /// From `shop.example.org`, `*.example.org` or `*`.
    ///
    /// # Errors
    /// [`RuleError::Host`]
    pub fn read(text: &str) -> Result<HostRule, RuleError> {
        if text == "*" {
            return Ok(HostRule::Any);
        }
        let name = text.strip_prefix('*').unwrap_or(text);
        let label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let literal = name.starts_with('[') && name.ends_with(']');
        let bare = if name.len() < text.len() { name.strip_prefix('.') } else { Some(name) };
        let fits = literal || bare.is_some_and(|bare| bare.split('.').all(label));
        if !fits || name.len() > HOST_BYTES_MAX || literal && name.len() < text.len() {
            return Err(RuleError::Host(text.into()));
        }
        let lower = name.to_ascii_lowercase().into_boxed_str();
        Ok(if name.len() < text.len() { HostRule::Under(lower) } else { HostRule::Exact(lower) })
    }
}

impl PathRule {
    /// All paths that begin with `text`, up to a segment's end. A slash at the end means nothing.
    ///
    /// # Errors
    /// [`RuleError::Path`]
    pub fn prefix(text: &str) -> Result<PathRule, RuleError> {
        let path = checked(text)?;
        Ok(PathRule::Prefix(path.strip_suffix('/').unwrap_or(path).into()))
    }

    /// This path alone.
    ///
    /// # Errors
    /// [`RuleError::Path`]
    pub fn exact(text: &str) -> Result<PathRule, RuleError> {
        Ok(PathRule::Exact(checked(text)?.into()))
    }
}

fn checked(text: &str) -> Result<&str, RuleError> {
    let printable = text.bytes().all(|b| (0x21..0x7F).contains(&b) && b != b'?' && b != b'#');
    if text.starts_with('/') && printable && text.len() <= PATH_BYTES_MAX {
        Ok(text)
    } else {
        Err(RuleError::Path(text.into()))
    }
}

/// A request, as far as routes ask.
pub struct Ask<'a> {
    /// The host, perhaps with a port; empty if there is none.
    pub host: &'a str,
    /// The path with its query.
    pub path: &'a str,
    /// The method.
    pub method: &'a str,
}

/// The routes, by number in the order in which they were given. Immutable.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    exact: BTreeMap<Box<str>, Paths>,
    /// Longest first.
    under: Vec<(Box<str>, Paths)>,
    any: Option<Paths>,
    /// As they were given.
    rules: Vec<Rule>,
}

/// A host's routes.
#[derive(Clone, Debug, Default)]
struct Paths {
    exact: BTreeMap<Box<str>, Vec<Candidate>>,
    prefixes: BTreeMap<Box<str>, Vec<Candidate>>,
    /// Lengths that prefixes have, the longest first.
    lengths: Vec<u16>,
}

/// A route of a path, with what it asks besides.
#[derive(Clone, Debug)]
struct Candidate {
    number: u32,
    methods: Vec<Box<str>>,
    fields: Vec<FieldRule>,
}

impl Routes {
    /// These routes. O(n log n).
    ///
    /// # Errors
    /// [`RuleError::Lengths`]
    pub fn new(rules: &[Rule]) -> Result<Routes, RuleError> {
        let mut routes = Routes { rules: rules.to_vec(), ..Routes::default() };
        for (number, rule) in (0..).zip(rules) {
            let paths = match &rule.host {
                HostRule::Any => routes.any.get_or_insert_default(),
                HostRule::Exact(name) => routes.exact.entry(name.clone()).or_default(),
                HostRule::Under(suffix) => {
                    let known = routes.under.iter().position(|(other, _)| other == suffix);
                    let at = known.unwrap_or_else(|| {
                        routes.under.push((suffix.clone(), Paths::default()));
                        routes.under.len() - 1
                    });
                    &mut routes.under[at].1
                }
            };
            paths.add(number, rule)?;
        }
        routes.under.sort_by(|one, other| other.0.len().cmp(&one.0.len()).then_with(|| one.0.cmp(&other.0)));
        Ok(routes)
    }

    /// The route that a request takes, by its number; `None`: none. `has` says whether the request has a field of this name
    /// with this value, or any.
    pub fn find(&self, ask: &Ask<'_>, has: &dyn Fn(&FieldRule) -> bool) -> Option<u32> {
        let mut room = [0; HOST_BYTES_MAX];
        let host = lower(bare(ask.host), &mut room);
        let path = ask.path.split_once('?').map_or(ask.path, |(path, _)| path);
        let paths = host.and_then(|host| self.of_host(host)).or(self.any.as_ref())?;
        paths.find(path, ask.method, has)
    }

    fn of_host(&self, host: &str) -> Option<&Paths> {
        if let Some(paths) = self.exact.get(host) {
            return Some(paths);
        }
        let fits = |suffix: &str| host.len() > suffix.len() && host.ends_with(suffix);
        self.under.iter().find(|(suffix, _)| fits(suffix)).map(|(_, paths)| paths)
    }
}

/// The host without its port and a dot at its end.
fn bare(host: &str) -> &str {
    let name = match host.rfind(':') {
        Some(at) if !host[at..].contains(']') => &host[..at],
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

fn lower<'a>(host: &str, room: &'a mut [u8; HOST_BYTES_MAX]) -> Option<&'a str> {
    let out = room.get_mut(..host.len())?;
    out.copy_from_slice(host.as_bytes());
    out.make_ascii_lowercase();
    core::str::from_utf8(out).ok()
}

impl Paths {
    fn add(&mut self, number: u32, rule: &Rule) -> Result<(), RuleError> {
        let candidate = Candidate { number, methods: rule.methods.clone(), fields: rule.fields.clone() };
        let candidates = match &rule.path {
            PathRule::Exact(path) => self.exact.entry(path.clone()).or_default(),
            PathRule::Prefix(path) => {
                let length = path.len() as u16;
                if let Err(at) = self.lengths.binary_search_by(|known| length.cmp(known)) {
                    if self.lengths.len() == PREFIX_LENGTHS_MAX {
                        return Err(RuleError::Lengths);
                    }
                    self.lengths.insert(at, length);
                }
                self.prefixes.entry(path.clone()).or_default()
            }
        };
        // Stable: of equals the first stays the first.
        candidates.push(candidate);
        candidates.sort_by_key(|one| core::cmp::Reverse(one.conditions()));
        Ok(())
    }

    fn find(&self, path: &str, method: &str, has: &dyn Fn(&FieldRule) -> bool) -> Option<u32> {
        let first = |candidates: &Vec<Candidate>| {
            candidates.iter().find(|one| one.takes(method, has)).map(|one| one.number)
        };
        if let Some(number) = self.exact.get(path).and_then(first) {
            return Some(number);
        }
        let ends = |&&length: &&u16| {
            let rest = path.as_bytes().get(usize::from(length)..);
            rest.is_some_and(|rest| rest.first().is_none_or(|&b| b == b'/' || is(Bug::PrefixEndsAnywhere)))
        };
        let found = |&length: &u16| {
            let prefix = path.get(..usize::from(length))?;
            self.prefixes.get(prefix).and_then(first)
        };
        if is(Bug::ShortPrefixFirst) {
            return self.lengths.iter().rev().filter(ends).find_map(found);
        }
        self.lengths.iter().filter(ends).find_map(found)
    }
}

impl Candidate {
    fn conditions(&self) -> (bool, usize) {
        (!self.methods.is_empty(), self.fields.len())
    }

    fn takes(&self, method: &str, has: &dyn Fn(&FieldRule) -> bool) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|one| &**one == method))
            && self.fields.iter().all(has)
    }
}

/// Services among which a route's requests are divided, each with its part.
///
/// Invariant: there is one at least, and the parts sum up to more than 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Each with the sum of its part and those before it.
    parts: Vec<(u32, u64)>,
}

impl Split {
    /// Services by number, with their parts; `None` without any part.
    #[must_use]
    pub fn new(parts: &[(u32, u32)]) -> Option<Split> {
        let mut sum = 0;
        let summed = parts.iter().filter(|(_, part)| *part > 0).map(|&(service, part)| {
            sum += u64::from(part);
            (service, sum)
        });
        let parts: Vec<_> = summed.collect();
        (!parts.is_empty()).then_some(Split { parts })
    }

    /// The service of one request. O(services of the route).
    pub fn draw(&self, rng: &mut Rng) -> u32 {
        let (first, _) = self.parts[0];
        let [.., (_, sum)] = self.parts[..] else { return first };
        if self.parts.len() == 1 {
            return first;
        }
        let drawn = rng.below(sum);
        self.parts.iter().find(|(_, upto)| drawn < *upto).map_or(first, |&(service, _)| service)
    }

    /// All of them, with their parts.
    pub fn parts(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let mut before = 0;
        self.parts.iter().map(move |&(service, upto)| (service, upto - core::mem::replace(&mut before, upto)))
    }

    /// All of them.
    pub fn services(&self) -> impl Iterator<Item = u32> + '_ {
        self.parts.iter().map(|&(service, _)| service)
    }
}

/// The path with its query behind the prefix is replaced: `/api/x?y` of prefix `/api` by `/v2` is `/v2`, `/x?y`. Both parts
/// together are the new path; the first is empty if it would double a slash or leave no path.
#[must_use]
pub fn rewritten<'a>(path: &'a str, prefix: &str, by: &'a str) -> (&'a str, &'a str) {
    let rest = path.strip_prefix(prefix).unwrap_or(path);
    let by = by.strip_suffix('/').unwrap_or(by);
    match (by.is_empty(), rest.starts_with('/')) {
        (true, false) => ("/", rest),
        (true, true) => ("", rest),
        (false, _) => (by, rest),
    }
}

#[cfg(test)]
mod tests;
