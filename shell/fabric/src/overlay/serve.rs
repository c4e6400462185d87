//! A stream that a peer opened: its questions one after another, each answered before the next is read.

use std::time::Duration;

use futures::AsyncWriteExt;
use libp2p_identity::PeerId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::frames::Frames;
use super::streams::{Arrived, Spoken};

/// How long a stream may wait for the whole of its next question, and its answer for being taken.
const STREAM_SECONDS_MAX: u64 = 10;

/// A question that arrived. Dropping `reply` resets the stream.
#[derive(Debug)]
pub(super) struct Question {
    pub from: PeerId,
    /// In which protocol.
    pub spoken: Spoken,
    /// The message without its length.
    pub bytes: Vec<u8>,
    pub reply: oneshot::Sender<Reply>,
}

/// What becomes of a question.
#[derive(Debug)]
pub(super) enum Reply {
    /// These bytes, with their length before them.
    Answer(Vec<u8>),
    /// It was told and waits for none.
    Nothing,
}

/// Serves the stream until its peer closes it, breaks the protocol or is too slow. A full `host` holds it up.
pub(super) async fn serve(from: PeerId, mut arrived: Arrived, host: mpsc::Sender<Question>) {
    let (stream, spoken) = (&mut arrived.stream, arrived.spoken);
    let patience = Duration::from_secs(STREAM_SECONDS_MAX);
    let mut frames = Frames::default();
    loop {
        let bytes = match timeout(patience, frames.next(stream)).await {
            Ok(Ok(Some(bytes))) => bytes,
            Ok(Ok(None)) => {
                // The peer is done; whether it hears that we are too is its affair.
                let _ = timeout(patience, stream.close()).await;
                return;
            }
            Ok(Err(error)) => return tracing::debug!(peer = %from, %error, "a stream broke off"),
            Err(_) => return,
        };
        let (reply, answer) = oneshot::channel();
        if host.send(Question { from, spoken, bytes, reply }).await.is_err() {
            return;
        }
        match answer.await {
            Ok(Reply::Nothing) => {}
            Ok(Reply::Answer(bytes)) => {
                let written = timeout(patience, async {
                    stream.write_all(&bytes).await?;
                    stream.flush().await
                });
                if !matches!(written.await, Ok(Ok(()))) {
                    return;
                }
            }
            // Refused: the protocol has no word for that but a reset.
            Err(_) => return,
        }
    }
}
