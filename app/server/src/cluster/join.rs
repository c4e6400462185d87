//! Joining: what a newcomer asks with its token before it is anything, and what it is answered.
//!
//! The newcomer proves the token's secret on a connection that can do nothing else (`fabric::join`). What it is told
//! then, the members and its own number among them, is all that it needs to begin.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use control::{Newcomer, Welcome};
use fabric::Identity;
use fabric::join::{Token, TokenError};
use fabric::link::{Cause, Event, Members, Settings, Standalone};
use kernel::codec::DecodeError;
use kernel::{NodeId, PeerId, Spoken};
use runtime::Clock;
use thiserror::Error;

/// How long the introducer may take to answer, at one of its addresses.
const SECONDS_MAX: u64 = 20;
/// How long a turn of the newcomer's loop waits for the kernel.
const WAIT_MILLIS: u64 = 20;
/// Connections of a node that only joins.
const CONNECTIONS_MAX: usize = 4;
/// Longest reason of a refusal, in bytes.
const REASON_BYTES_MAX: usize = 1024;

/// Why a node did not become a member.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The text is no token.
    #[error("--join: {0}")]
    Token(#[from] TokenError),
    /// It is too late.
    #[error(
        "--join: the token expired {ago_seconds} s ago, by this machine's clock; make a new one with `archipel cluster token`"
    )]
    Expired {
        /// Since when.
        ago_seconds: u64,
    },
    /// It says of no address where its member is.
    #[error("--join: the token names no address; make a new one with `archipel cluster token`")]
    NoAddress,
    /// Nobody answered.
    #[error("--join: {}; is one of them running, and can this machine reach it?", shown(tried))]
    Silent {
        /// Who should have, where, and what came instead at the last address; in the order in which they were asked.
        tried: Vec<(PeerId, Vec<SocketAddr>, Cause)>,
    },
    /// It answered no.
    #[error("--join: the cluster refuses this node: {reason}")]
    Refused {
        /// In its own words.
        reason: String,
    },
    /// It answered something that this version cannot read.
    #[error("--join: the member's answer cannot be read ({0}); use the same version on all nodes")]
    Unreadable(#[from] DecodeError),
    /// The system has no event loop to give.
    #[error("--join: the connection cannot be watched: {0}")]
    Loop(#[from] std::io::Error),
}

fn shown(tried: &[(PeerId, Vec<SocketAddr>, Cause)]) -> String {
    let one = |(node, addresses, cause): &(PeerId, Vec<SocketAddr>, Cause)| {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("the member {node} does not answer at {}: {cause}", addresses.join(", "))
    };
    tried.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What a newcomer is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is a member now.
    Welcome(Welcome),
    /// It is not, for this reason.
    Refused(String),
}

/// The first byte of an answer.
const REFUSED: u8 = 0;
const WELCOME: u8 = 1;

impl Answer {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Answer::Refused(reason) => {
                let mut out = vec![REFUSED];
                let letters = reason.char_indices().take_while(|(at, _)| *at < REASON_BYTES_MAX - 4);
                out.extend(letters.map(|(_, letter)| letter).collect::<String>().as_bytes());
                out
            }
            Answer::Welcome(one) => welcome(&one.encode()),
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`DecodeError`]: it is of another version, or no answer.
    pub fn decode(bytes: &[u8]) -> Result<Answer, DecodeError> {
        match bytes.split_first() {
            Some((&WELCOME, rest)) => Ok(Answer::Welcome(Welcome::decode(rest)?)),
            Some((&REFUSED, rest)) => {
                let rest = &rest[..rest.len().min(REASON_BYTES_MAX)];
                // It is printed: nothing in it may steer a terminal.
                let text = String::from_utf8_lossy(rest);
                let plain = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
                Ok(Answer::Refused(plain.collect()))
            }
            Some(_) => Err(DecodeError::Invalid),
            None => Err(DecodeError::Short),
        }
    }
}

/// The answer that carries an encoded welcome.
pub(crate) fn welcome(encoded: &[u8]) -> Vec<u8> {
    [&[WELCOME], encoded].concat()
}

/// Reads a token that is worth being used.
///
/// # Errors
/// [`JoinError`]: it is none, or nobody can use it any more.
pub fn token(text: &str) -> Result<Token, JoinError> {
    let token: Token = text.parse()?;
    let now = Clock::new().now().millis();
    if token.expires <= now {
        return Err(JoinError::Expired { ago_seconds: (now.0 - token.expires.0) / 1000 });
    }
    if token.addresses.is_empty() {
        return Err(JoinError::NoAddress);
    }
    Ok(token)
}

/// Asks the token's member to let this node in, at one of its addresses after the other.
///
/// # Errors
/// [`JoinError`]: it is no member, or does not know whether it is. It may ask again with the same token.
pub fn join(
    identity: &Identity,
    spoken: Spoken,
    token: &Token,
    newcomer: &Newcomer,
) -> Result<Welcome, JoinError> {
    join_any((identity, spoken), token, &[], newcomer)
}

/// Asks the token's member, and then the `others`: members too, and where they were found. Any of them can judge the token.
///
/// # Errors
/// [`JoinError`]: it is no member, or does not know whether it is. It may ask again with the same token.
pub fn join_any(
    own: (&Identity, Spoken),
    token: &Token,
    others: &[(NodeId, Vec<SocketAddr>)],
    newcomer: &Newcomer,
) -> Result<Welcome, JoinError> {
    let about = newcomer.encode();
    let first = (token.introducer, token.addresses.clone());
    let mut tried = Vec::new();
    for (introducer, addresses) in std::iter::once(&first).chain(others) {
        let token = Token { introducer: *introducer, ..token.clone() };
        let mut last = Cause::Lost;
        for &address in addresses {
            match ask(own, &token, address, &about)? {
                Ok(Answer::Welcome(welcome)) => return Ok(welcome),
                Ok(Answer::Refused(reason)) => return Err(JoinError::Refused { reason }),
                Err(cause) => last = cause,
            }
        }
        if !addresses.is_empty() {
            tried.push((PeerId(*introducer), addresses.clone(), last));
        }
    }
    Err(JoinError::Silent { tried })
}

/// Asks at one address; what came of it, or why nothing did.
fn ask(
    (identity, spoken): (&Identity, Spoken),
    token: &Token,
    address: SocketAddr,
    about: &[u8],
) -> Result<Result<Answer, Cause>, JoinError> {
    let settings = Settings { incarnation: 0, seed: 0, spoken };
    let members = Arc::new(Members::default());
    let mut alone = Standalone::new(identity, &members, settings, CONNECTIONS_MAX, None)?;
    let mut clock = Clock::new();
    let begun = clock.now();
    alone.links.join(begun, token, address, about.to_vec());
    let mut events = Vec::new();
    loop {
        let now = alone.begin_turn(Duration::from_millis(WAIT_MILLIS), || clock.now(), &mut |_, _, _| ())?;
        alone.end_turn(now, &mut |_, _, _| ());
        alone.links.take_events(&mut events);
        for event in events.drain(..) {
            match event {
                Event::Joined { answer, .. } => return Ok(Ok(Answer::decode(&answer)?)),
                Event::JoinFailed { cause, .. } => return Ok(Err(cause)),
                Event::Up { .. } | Event::Down { .. } | Event::Room { .. } | Event::Joining { .. } => {}
            }
        }
        if now.since(begun) > SECONDS_MAX * 1_000_000 {
            return Ok(Err(Cause::Lost));
        }
    }
}
