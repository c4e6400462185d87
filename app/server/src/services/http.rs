//! The port for Consul's clients: HTTP/1.1 around `gateway::consul`. Queries that wait hold their connection and nothing else.
//! Tokens are judged when a request has come whole, and not again while it waits.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fabric::join::Secret;
use gateway::consul::access::{Grant, Headers, Tokens};
use gateway::consul::{About, Answer, BODY_BYTES_MAX, Method, Request, Response, kv};
use http_body_util::{BodyExt, Full, Limited};
use hyper::StatusCode;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kernel::Rng;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Handle;

/// Clients at once; others wait.
const CLIENTS_MAX: usize = 8192;
/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long a client may take to send the head of its request.
const HEAD_SECONDS_MAX: u64 = 60;
/// How long a client may take to send a body.
const BODY_SECONDS_MAX: u64 = 30;
/// Waits are longer by chance by up to this part, so that those which began together do not end together.
const JITTER_PART: u64 = 16;

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const KNOWN_LEADER: HeaderName = HeaderName::from_static("x-consul-knownleader");
const LAST_CONTACT: HeaderName = HeaderName::from_static("x-consul-lastcontact");

type Page = hyper::Response<Full<Bytes>>;

/// What the port says of the node, and who may ask.
pub(super) struct Port {
    pub about: About,
    pub tokens: Tokens,
}

/// Accepts for ever.
pub(super) async fn accept(listener: TcpListener, handle: Handle, port: Port) {
    let (places, port) = (Arc::new(Semaphore::new(CLIENTS_MAX)), Arc::new(port));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (handle, port) = (handle.clone(), Arc::clone(&port));
                tokio::spawn(async move {
                    serve(stream, handle, port).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a client of Consul's port could not be accepted");
                // Out of descriptors: others must go first.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, handle: Handle, port: Arc<Port>) {
    // Small answers leave at once.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let (handle, port) = (handle.clone(), Arc::clone(&port));
        async move { Ok::<_, Infallible>(answer(&handle, &port, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEAD_SECONDS_MAX))
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // What a client does wrong is its own affair, and it was answered where that is possible.
    let _: io::Result<()> = connection.await.map_err(io::Error::other);
}

fn page(response: Response) -> Page {
    let Response { code, index, is_json, body } = response;
    let mut page = hyper::Response::new(Full::new(Bytes::from(body)));
    *page.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = if is_json { "application/json" } else { "text/plain; charset=utf-8" };
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(index) = index {
        page.headers_mut().insert(INDEX, HeaderValue::from(index));
        page.headers_mut().insert(KNOWN_LEADER, HeaderValue::from_static("true"));
        page.headers_mut().insert(LAST_CONTACT, HeaderValue::from_static("0"));
    }
    page
}

fn refused(code: u16, why: &str) -> Page {
    page(Response { code, index: None, is_json: false, body: why.as_bytes().to_vec() })
}

async fn answer(handle: &Handle, port: &Port, request: hyper::Request<Incoming>) -> Page {
    let method = match *request.method() {
        hyper::Method::GET | hyper::Method::HEAD => Method::Get,
        hyper::Method::PUT => Method::Put,
        hyper::Method::DELETE => Method::Delete,
        _ => Method::Other,
    };
    let (head, body) = request.into_parts();
    let uri = head.uri;
    let body = Limited::new(body, BODY_BYTES_MAX).collect();
    let body = match tokio::time::timeout(Duration::from_secs(BODY_SECONDS_MAX), body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return refused(413, "the body of the request is too large, or breaks off"),
        Err(_) => return refused(408, "the body of the request did not come in time"),
    };
    let field = |name: HeaderName| head.headers.get(name).map(HeaderValue::as_bytes);
    let headers = Headers { token: field(TOKEN), authorization: field(AUTHORIZATION) };
    let asked = Request { method, path: uri.path(), query: uri.query().unwrap_or_default(), body: &body };
    let grant = match port.tokens.judge(&asked, headers) {
        Ok(grant) => grant,
        Err(response) => return page(response),
    };
    if kv::is_for_store(uri.path(), &body) {
        return stored(handle, &port.about, &asked, &grant).await;
    }
    ask(handle, &port.about, &asked, &grant).await
}

/// Keys, sessions and events, which the store has.
async fn stored(handle: &Handle, about: &About, request: &Request<'_>, grant: &Grant) -> Page {
    let Some(store) = &handle.0.store else {
        return refused(501, "not offered here: keys and sessions while the Redis port asks for TLS");
    };
    let Some(random) = Secret::draw() else { return refused(500, "the system has no random bytes") };
    let node = handle.node_name();
    match kv::plan(request, &node, &about.datacenter, random.0) {
        Err(response) => page(response),
        Ok(task) => match store.ask(&task).await {
            Ok(reply) => page(task.answer(&task.seen_by(reply, grant.keys()))),
            // Whether a change was made is unknown; the words of the store say more where it has any.
            Err(error) => refused(500, &format!("the store did not answer: {error}")),
        },
    }
}

async fn ask(handle: &Handle, about: &About, request: &Request<'_>, grant: &Grant) -> Page {
    let mut waited = false;
    loop {
        let (answer, change) = handle.act_numbered(|agent, now| {
            let answer = gateway::consul::answer(agent, about, now, request, grant, waited);
            let index = match &answer {
                Answer::Wait { topic, .. } => agent.registry().view().index_of(topic),
                Answer::Now(_) => 0,
            };
            (answer, index, now.0)
        });
        match answer {
            (Answer::Now(response), ..) => {
                let is_change = request.method != Method::Get && response.code == 200;
                if is_change && !handle.kept(change).await {
                    return refused(503, "the node stops");
                }
                return page(response);
            }
            (Answer::Wait { topic, wait_ms }, index, moment) => {
                // Those who began to wait together do not ask again together.
                let chance = Rng::new(moment).fork(wait_ms).below(wait_ms / JITTER_PART + 1);
                if !handle.wait(topic, index, Duration::from_millis(wait_ms + chance)).await {
                    return refused(429, "too many queries wait");
                }
                // Either it has changed, or its time is up: it is answered in both cases.
                waited = true;
            }
        }
    }
}
