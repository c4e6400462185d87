//! Calls of gRPC by tonic to the service `test.Echo` of the scenarios: `tonic-client URL CALL…`.
//!
//! Each call prints one line, its name and what came of it; all are made on one channel, in their order. A status is printed
//! with its message and the trailer `x-why`. Exit code 1 if a call cannot be made at all.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// How long a call may take that says nothing of it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of the large message.
const LARGE: usize = 3_000_000;
/// Messages of streams, and calls at once.
const MANY: usize = 200;

/// Messages as bytes, without protocol buffers.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

type Client = Grpc<Channel>;

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

/// A client whose channel has room for one more call.
async fn ready(client: &Client) -> Result<Client, Status> {
    let mut client = client.clone();
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    Ok(client)
}

async fn unary(client: &Client, message: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut client = ready(client).await?;
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    Ok(client.unary(request, path("/test.Echo/Unary"), Raw).await?.into_inner())
}

/// All messages of a stream, with commas between.
async fn all(mut stream: Streaming<Vec<u8>>) -> Result<String, Status> {
    let mut list = Vec::new();
    while let Some(message) = stream.message().await? {
        list.push(text(&message));
    }
    Ok(list.join(","))
}

fn text(message: &[u8]) -> String {
    String::from_utf8_lossy(message).into_owned()
}

async fn large(client: &Client) -> Result<String, Status> {
    let message = vec![b'y'; LARGE];
    let answer = unary(client, message.clone()).await?;
    let is_same = answer.strip_prefix(b"unary ") == Some(&message[..]);
    Ok(if is_same { "as it was".to_owned() } else { format!("{} other bytes", answer.len()) })
}

async fn down(client: &Client) -> Result<String, Status> {
    let mut client = ready(client).await?;
    let request = Request::new(MANY.to_string().into_bytes());
    let stream = client.server_streaming(request, path("/test.Echo/Down"), Raw).await?.into_inner();
    all(stream).await
}

async fn up(client: &Client) -> Result<String, Status> {
    let mut client = ready(client).await?;
    let messages = tokio_stream::iter([b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
    let answer = client.client_streaming(Request::new(messages), path("/test.Echo/Up"), Raw).await?;
    Ok(text(&answer.into_inner()))
}

/// Each answer comes before the next question is asked.
async fn both(client: &Client) -> Result<String, Status> {
    let mut client = ready(client).await?;
    let (questions, receiver) = mpsc::channel(1);
    let ask = async |number: usize| {
        let gone = |_| Status::unknown("the call has ended");
        questions.send(number.to_string().into_bytes()).await.map_err(gone)
    };
    ask(0).await?;
    let request = Request::new(ReceiverStream::new(receiver));
    let mut answers = client.streaming(request, path("/test.Echo/Both"), Raw).await?.into_inner();
    let mut list = Vec::new();
    while let Some(answer) = answers.message().await? {
        list.push(text(&answer));
        if list.len() == 5 {
            break;
        }
        ask(list.len()).await?;
    }
    drop(questions);
    // What comes behind the last answer is the end.
    list.push(format!("end {:?}", answers.message().await?.is_none()));
    Ok(list.join(","))
}

async fn many(client: &Client) -> Result<String, Status> {
    let call = |number: usize| {
        let client = client.clone();
        tokio::spawn(async move {
            let answer = unary(&client, number.to_string().into_bytes()).await?;
            Ok::<_, Status>(answer == format!("unary {number}").into_bytes())
        })
    };
    let calls: Vec<_> = (0..MANY).map(call).collect();
    let mut right = 0;
    for call in calls {
        let answered = call.await.map_err(|error| Status::unknown(error.to_string()))?;
        right += usize::from(answered?);
    }
    Ok(format!("{right} right"))
}

async fn slow(client: &Client, deadline: Duration) -> Result<String, Status> {
    let mut client = ready(client).await?;
    let mut request = Request::new(Vec::new());
    request.set_timeout(deadline);
    let answer = client.unary(request, path("/test.Echo/Slow"), Raw).await?;
    Ok(text(&answer.into_inner()))
}

async fn call(client: &Client, name: &str) -> Result<Result<String, Status>> {
    Ok(match name {
        "unary" => unary(client, b"x".to_vec()).await.map(|answer| text(&answer)),
        "large" => large(client).await,
        "down" => down(client).await,
        "up" => up(client).await,
        "both" => both(client).await,
        "many" => many(client).await,
        "fail" => unary(client, b"fail".to_vec()).await.map(|answer| text(&answer)),
        // A deadline of its own, and one that only others have.
        "hurry" => slow(client, Duration::from_millis(500)).await,
        "slow" => slow(client, PATIENCE).await,
        _ => bail!("there is no call {name}"),
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let url = words.next().context("usage: tonic-client URL CALL…")?;
    let channel = Endpoint::from_shared(url)?.connect_timeout(PATIENCE).connect().await?;
    let client = Grpc::new(channel).max_decoding_message_size(usize::MAX);
    for name in words {
        match call(&client, &name).await? {
            Ok(answer) => println!("{name}: {answer}"),
            Err(status) => {
                let why = status.metadata().get("x-why").and_then(|why| why.to_str().ok());
                let why = why.map(|why| format!(", x-why {why}")).unwrap_or_default();
                println!("{name}: {:?}: {}{why}", status.code(), status.message());
            }
        }
    }
    Ok(())
}
