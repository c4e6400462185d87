//! Who is asked in a round. Of whom there is no answer, or none any more, is told with the backup: it is made of what the
//! others have, and fails only if something cannot be had from them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::{Result, anyhow, bail};
use server::kernel::GroupId;
use thiserror::Error;

use super::source::{Source, Told};

/// A node gives no answer, or none that is whole. Another one may have what it has.
#[derive(Debug, Error)]
#[error("{text}")]
pub(super) struct Absent {
    /// Why, in short.
    why: String,
    /// The same with where it was asked what, and what to do.
    text: String,
}

impl Absent {
    /// Because of this.
    pub fn new(error: &anyhow::Error) -> Absent {
        Absent { why: error.root_cause().to_string(), text: format!("{error:#}") }
    }
}

/// The nodes of a round.
///
/// Invariant: `sources`, `told` and `keeping` have the same length.
pub(super) struct Party {
    /// Those who answered when it began. They keep their places.
    pub sources: Vec<Source>,
    /// What each of them said; one that gives no answer any more has nothing.
    pub told: Vec<Told>,
    /// Whose log can be read.
    pub keeping: Vec<bool>,
    /// Who gave no answer, and why.
    pub absent: BTreeMap<SocketAddr, String>,
    /// Who gave up what it had promised to keep for this round, and of which partitions.
    pub given_up: BTreeMap<SocketAddr, BTreeSet<GroupId>>,
}

impl Party {
    /// Asks all of these what they have.
    ///
    /// # Errors
    /// None of them answers; or one answers, and refuses.
    pub fn gather(all: &[Source]) -> Result<Party> {
        let (mut sources, mut told, mut absent) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut texts = Vec::new();
        for source in all {
            match source.begin() {
                Ok(said) => {
                    sources.push(source.clone());
                    told.push(said);
                }
                Err(error) => {
                    let Absent { why, text } = error.downcast::<Absent>()?;
                    absent.insert(source.address, why);
                    texts.push(text);
                }
            }
        }
        if sources.is_empty() {
            bail!("{}", texts.join("; "));
        }
        let keeping = vec![false; sources.len()];
        Ok(Party { sources, told, keeping, absent, given_up: BTreeMap::new() })
    }

    /// This one gave no answer: it is asked for nothing any more.
    ///
    /// # Errors
    /// `error`, if it says something else.
    pub fn lose(&mut self, source: usize, error: anyhow::Error) -> Result<()> {
        let Absent { why, .. } = error.downcast::<Absent>()?;
        self.is_gone(source, why);
        Ok(())
    }

    /// This one is asked for nothing any more.
    pub fn is_gone(&mut self, source: usize, why: String) {
        self.absent.insert(self.sources[source].address, why);
        self.told[source].copies.clear();
        self.keeping[source] = false;
    }

    /// Those who are asked, each with its place.
    pub fn here(&self) -> impl Iterator<Item = (usize, &Source)> {
        let is_here = |source: &Source| !self.absent.contains_key(&source.address);
        self.sources.iter().enumerate().filter(move |(_, source)| is_here(source))
    }

    /// Why a round came to nothing, with who was missing.
    pub fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        if self.absent.is_empty() {
            return error;
        }
        anyhow!("{error:#}; no answer came from {}", listed(&self.absent))
    }
}

/// Each with the reason.
pub(super) fn listed(absent: &BTreeMap<SocketAddr, String>) -> String {
    let one = |(address, why): (&SocketAddr, &String)| format!("the node at {address} ({why})");
    absent.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use server::backup::Origin;
    use server::kernel::KeyspaceId;

    use super::super::source::Copy;
    use super::*;

    fn party(count: u16) -> Party {
        let source = |port: u16| Source { address: SocketAddr::from(([127, 0, 0, 1], port)), password: None };
        let copy = Copy { group: GroupId::new(KeyspaceId(1), 0), applied: 1, leads: false };
        let told = || Told {
            origin: Origin { id: [1; 16], is_cluster: true },
            keyspaces: Vec::new(),
            copies: vec![copy],
        };
        Party {
            sources: (1..=count).map(source).collect(),
            told: (0..count).map(|_| told()).collect(),
            keeping: vec![true; usize::from(count)],
            absent: BTreeMap::new(),
            given_up: BTreeMap::new(),
        }
    }

    #[test]
    fn who_gives_no_answer_is_asked_no_more_and_who_refuses_ends_the_round() {
        let mut party = party(3);
        let silent = anyhow!("connection refused").context("asked for a cut");
        // As it comes up, with what was tried around it.
        let silent = Err::<(), _>(anyhow::Error::from(Absent::new(&silent))).context("partition 1/0");
        party.lose(1, silent.unwrap_err()).unwrap();
        let here: Vec<usize> = party.here().map(|(at, _)| at).collect();
        assert_eq!((here, party.keeping.clone()), (vec![0, 2], vec![true, false, true]));
        assert!(party.told[1].copies.is_empty() && !party.told[2].copies.is_empty());
        let said = party.explained(anyhow!("nobody leads it")).to_string();
        assert_eq!(said, "nobody leads it; no answer came from the node at 127.0.0.1:2 (connection refused)");
        let refused = party.lose(0, anyhow!("it needs a password")).unwrap_err();
        assert_eq!(refused.to_string(), "it needs a password");
        assert_eq!(party.here().count(), 2);
    }
}
