//! The log as a backup asks for it: to be kept from one round to the next, and read.
//!
//! Both pages take positions as their body (see `disk::log::ledger`): for each group the last entry that is there already.
//! What is read is a stream (see `journal::passage`), cut anywhere; the next part begins where the answer's header says.

use std::sync::Arc;

use disk::log::ledger::{POSITIONS_BYTES_MAX, take_positions};
use disk::log::{Broken, Cursor, Keeper, PassageError, Positions};
use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use kernel::Millis;
use kernel::codec::Reader;
use serde_json::json;
use tokio::sync::Semaphore;

use super::{BYTES, NEXT_HEADER, Vault};
use crate::admin::answer::{JSON, Page, hex, page, unhex};
use crate::admin::cluster::{Attempt, Query, no};
use crate::housekeep::unix_millis;
use crate::keeping::{KeepError, Keeping};

/// Bytes of a part, at most.
const PART_BYTES_MAX: usize = 4 << 20;
/// Parts that are read at once, each with as much memory again or a whole entry's; more wait.
const READERS_MAX: usize = 2;

static READERS: Semaphore = Semaphore::const_new(READERS_MAX);

impl Vault<'_> {
    /// Keeps the log behind the positions for who asks, under the name that it drew, until it asks again or its time is over;
    /// who asks for no time is done. Tells of which groups something went although it was to be kept.
    pub(super) async fn keep(&self, query: &Query<'_>, body: Incoming) -> Attempt<Page> {
        let (keeper, seconds) = (Keeper(query.number("name")?), query.number::<u64>("seconds")?);
        let life_ms = seconds.saturating_mul(1000);
        let after = positions(body).await?;
        let keep = move |keeping: &Keeping| keeping.keep(Millis(unix_millis()), keeper, life_ms, after);
        let lost = self.waiting(keep).await?;
        let broken: Vec<u32> = lost.into_iter().map(|group| group.0).collect();
        Ok(page(StatusCode::OK, JSON, json!({ "schema": 1, "broken": broken }).to_string()))
    }

    /// A part of what the log has, synced, behind the positions.
    pub(super) async fn entries(&self, query: &Query<'_>, body: Incoming) -> Attempt<Page> {
        let cursor = match query.text("cursor") {
            Ok("") | Err(_) => None,
            Ok(text) => match unhex(text).and_then(|bytes| Cursor::decode(&bytes)) {
                Some(cursor) => Some(cursor),
                None => return no(StatusCode::BAD_REQUEST, "`cursor` is none that a node has told"),
            },
        };
        let after = positions(body).await?;
        let turn = READERS.acquire().await.expect("nobody closes it");
        let read = move |keeping: &Keeping| {
            // Until it is read, also when nobody waits for it any more.
            let _turn = turn;
            keeping.read(after, cursor, PART_BYTES_MAX)
        };
        let part = self.waiting(read).await?;
        let mut told = page(StatusCode::OK, BYTES, part.bytes);
        if let Some(next) = part.next {
            let next = HeaderValue::from_str(&hex(&next.encode())).expect("digits are allowed in a header");
            told.headers_mut().insert(NEXT_HEADER, next);
        }
        Ok(told)
    }

    /// On a thread that may wait for the disk.
    async fn waiting<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Keeping) -> Result<T, KeepError> + Send + 'static,
    ) -> Attempt<T> {
        let keeping = Arc::clone(&self.subject.keeping);
        match tokio::task::spawn_blocking(move || what(&keeping)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => no(status(&error), error.to_string()),
            Err(_) => no(StatusCode::INTERNAL_SERVER_ERROR, "the log gave up"),
        }
    }
}

/// The positions that are a request's body.
async fn positions(body: Incoming) -> Attempt<Positions> {
    let Ok(body) = Limited::new(body, POSITIONS_BYTES_MAX).collect().await else {
        let text = format!("the request's body breaks off, or has more than {POSITIONS_BYTES_MAX} bytes");
        return no(StatusCode::BAD_REQUEST, text);
    };
    let bytes = body.to_bytes();
    let mut reader = Reader::new(&bytes);
    match take_positions(&mut reader) {
        Ok(positions) if reader.is_empty() => Ok(positions),
        Ok(_) => no(StatusCode::BAD_REQUEST, "the request's body goes on behind the positions"),
        Err(error) => no(StatusCode::BAD_REQUEST, format!("the request's body is no positions: {error}")),
    }
}

/// Whose fault it is.
const fn status(error: &KeepError) -> StatusCode {
    match error {
        KeepError::TooMany(_) => StatusCode::CONFLICT,
        KeepError::Passage(PassageError::Gone { .. }) => StatusCode::GONE,
        KeepError::Passage(PassageError::Broken(Broken::Cursor)) => StatusCode::BAD_REQUEST,
        KeepError::Passage(PassageError::Broken(Broken::Damaged { .. }) | PassageError::File { .. }) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        KeepError::File { .. } | KeepError::Stops => StatusCode::SERVICE_UNAVAILABLE,
    }
}
