//! A client of etcd's `etcdserverpb.KV` over gRPC with one request under way.
//!
//! The few fields that are needed are written and read by hand: `PutRequest { key = 1, value = 2 }`,
//! `RangeRequest { key = 1 }`, `RangeResponse { kvs = 2 }`, `KeyValue { value = 5 }`
//! (etcd v3.4, `api/etcdserverpb/rpc.proto` and `mvccpb/kv.proto`). A range is linearizable unless it asks not to be.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;

pub struct Client {
    sender: SendRequest<Bytes>,
    address: String,
}

impl Client {
    pub async fn connect(address: &str) -> Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        // It ends with the client; a request on a broken connection says why.
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(Client { sender, address: address.to_owned() })
    }

    pub async fn put(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let mut message = Vec::with_capacity(key.len() + value.len() + 8);
        field(&mut message, 1, key.as_bytes());
        field(&mut message, 2, value);
        self.call("Put", &message).await.map(drop)
    }

    pub async fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>> {
        let mut message = Vec::with_capacity(key.len() + 4);
        field(&mut message, 1, key.as_bytes());
        let answer = self.call("Range", &message).await?;
        let Some(pair) = find(&answer, 2)? else { return Ok(None) };
        Ok(Some(find(pair, 5)?.unwrap_or_default().to_vec()))
    }

    async fn call(&mut self, method: &str, message: &[u8]) -> Result<Vec<u8>> {
        let request = Request::post(format!("http://{}/etcdserverpb.KV/{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut frame = Vec::with_capacity(message.len() + 5);
        frame.push(0);
        frame.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
        frame.extend_from_slice(message);
        let mut ready = self.sender.clone().ready().await?;
        let (response, mut body) = ready.send_request(request, false)?;
        body.send_data(frame.into(), true)?;
        let response = response.await?;
        let refused = response.headers().get("grpc-status").cloned();
        let mut body = response.into_body();
        let mut answer = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            answer.extend_from_slice(&data);
        }
        let trailers = body.trailers().await?;
        let status = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status")).or(refused.as_ref());
        if status.is_none_or(|status| status != "0") {
            bail!("{method} was answered with grpc-status {status:?}");
        }
        answer.get(5..).map(<[u8]>::to_vec).with_context(|| format!("{method} was answered without a message"))
    }
}

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

/// The first length-delimited field `number` of a message.
fn find(mut message: &[u8], number: u64) -> Result<Option<&[u8]>> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => drop(varint(&mut message)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?)?;
                let (bytes, rest) = message.split_at_checked(length).context("a message is cut short")?;
                message = rest;
                if tag >> 3 == number {
                    return Ok(Some(bytes));
                }
            }
            kind => bail!("a field of wire type {kind} was not expected"),
        }
    }
    Ok(None)
}

fn varint(message: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first().context("a message is cut short")?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    bail!("a number is too long")
}
