//! Traces (W3C Trace Context): which requests are recorded, what those behind the proxy are told, and the spans that come of it.
//!
//! A client's word is followed: what it says is recorded is, and what it says is not is not. Of those that say nothing, or
//! nothing that can be read, some begin a trace. Attributes are those of OpenTelemetry's conventions for HTTP; a query may have
//! secrets in it, and is not told.

use std::borrow::Cow;
use std::sync::Arc;

use httparse::Header;
use kernel::Rng;
use telemetry::trace::{Attribute, Span, SpanId, SpanQueue, TRACEPARENT_BYTES, TraceContext, TraceId};
use wire::http1::Trace;

use crate::access::Line;
use crate::plan::Telling;

/// The field that says which trace a request belongs to (W3C Trace Context, 3.2).
pub(crate) const TRACEPARENT: &str = "traceparent";
/// Spans of one thread that wait to be handed over.
const WAITING_MAX: usize = 256;
/// Longest text of a span, in bytes; the rest is cut off.
const TEXT_BYTES_MAX: usize = 1024;
/// Methods that are told by their names.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// A request's place in a trace that is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    trace: TraceId,
    /// None: the trace begins here.
    parent: Option<SpanId>,
    own: SpanId,
}

fn trace_id(rng: &mut Rng) -> TraceId {
    loop {
        let drawn = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
        if let Some(id) = TraceId::new(drawn.to_be_bytes()) {
            return id;
        }
    }
}

fn span_id(rng: &mut Rng) -> SpanId {
    loop {
        if let Some(id) = SpanId::new(rng.next_u64().to_be_bytes()) {
            return id;
        }
    }
}

/// Whether a request with these fields is recorded. One look if spans are made of none.
pub(crate) fn decided(rng: &mut Rng, telling: &Telling, fields: &[Header<'_>]) -> Option<Recorded> {
    let sample = telling.spans?.sample;
    let mut told = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(TRACEPARENT));
    let context = match (told.next(), told.next()) {
        (Some(one), None) => TraceContext::parse(one.value),
        // Of two nobody knows which one is meant.
        (Some(_), Some(_)) | (None, _) => None,
    };
    match context {
        Some(TraceContext { trace, parent, sampled: true }) => {
            Some(Recorded { trace, parent: Some(parent), own: span_id(rng) })
        }
        Some(TraceContext { sampled: false, .. }) => None,
        None if rng.below(u64::from(sample.max(1))) == 0 => {
            Some(Recorded { trace: trace_id(rng), parent: None, own: span_id(rng) })
        }
        None => None,
    }
}

/// What is said of its trace to who gets a request: that those behind are below the span that it is here. One that is not
/// recorded has a trace as its client says, or a new one.
pub(crate) fn onward<'a>(
    rng: &mut Rng,
    telling: &Telling,
    recorded: Option<Recorded>,
    room: &'a mut [u8; TRACEPARENT_BYTES],
) -> Trace<'a> {
    let (trace, parent) = match recorded {
        Some(recorded) => (recorded.trace, recorded.own),
        None if telling.trace => (trace_id(rng), span_id(rng)),
        None => return Trace::Kept,
    };
    // Without spans of ours it is for those behind us to record it.
    let sampled = recorded.is_some() || telling.spans.is_none();
    *room = TraceContext { trace, parent, sampled }.render();
    let text = std::str::from_utf8(room).expect("digits and dashes are text");
    match recorded {
        Some(Recorded { parent: Some(_), .. }) => Trace::Joined(text),
        Some(Recorded { parent: None, .. }) => Trace::Anew(text),
        None => Trace::Begun(text),
    }
}

/// Spans of one thread on their way to the others'.
pub(crate) struct Spans {
    waiting: Vec<Span>,
    queue: Arc<SpanQueue>,
}

impl Spans {
    pub fn new(queue: &Arc<SpanQueue>) -> Spans {
        Spans { waiting: Vec::new(), queue: Arc::clone(queue) }
    }

    pub fn note(&mut self, span: Span) {
        self.waiting.push(span);
        if self.waiting.len() >= WAITING_MAX {
            self.hand_over();
        }
    }

    /// Puts what waits into the queue; once a turn.
    pub fn hand_over(&mut self) {
        if !self.waiting.is_empty() {
            self.queue.put(&mut self.waiting);
        }
    }
}

/// What a line of the access log does not say.
#[derive(Clone, Copy)]
pub(crate) struct Ending {
    /// It came in TLS.
    pub is_secured: bool,
    /// Its client had a part of the response and did not get the rest.
    pub is_cut: bool,
}

/// The span of a request that has ended so.
pub(crate) fn span(recorded: Recorded, ending: Ending, line: &Line<'_>) -> Span {
    let end_nanos = line.now.0.saturating_mul(1000);
    let failed = ending.is_cut || line.status == 0 || line.status >= 500;
    Span {
        trace: recorded.trace,
        own: recorded.own,
        parent: recorded.parent,
        name: name(line),
        start_nanos: end_nanos.saturating_sub(line.micros.saturating_mul(1000)),
        end_nanos,
        attributes: attributes(ending, line),
        failed,
    }
}

fn name(line: &Line<'_>) -> String {
    let method = if METHODS.contains(&line.method) { line.method } else { "HTTP" };
    let route = cut(line.route);
    if route.is_empty() { method.to_owned() } else { format!("{method} {route}") }
}

fn attributes(ending: Ending, line: &Line<'_>) -> Vec<(&'static str, Attribute)> {
    let text = |text: &str| Attribute::Text(Cow::Owned(cut(text).to_owned()));
    let word = |word: &'static str| Attribute::Text(Cow::Borrowed(word));
    let mut all = Vec::with_capacity(16);
    match METHODS.iter().find(|method| **method == line.method) {
        Some(method) => all.push(("http.request.method", word(method))),
        // One that could not be read.
        None if line.method.is_empty() => all.push(("http.request.method", word("_OTHER"))),
        None => {
            all.push(("http.request.method", word("_OTHER")));
            all.push(("http.request.method_original", text(line.method)));
        }
    }
    all.push(("url.scheme", word(if ending.is_secured { "https" } else { "http" })));
    let path = line.path.split('?').next().unwrap_or_default();
    all.push(("url.path", text(if path.is_empty() { "/" } else { path })));
    let (host, port) = place(line.host);
    for (name, value) in
        [("server.address", host), ("http.route", line.route), ("archipel.service", line.service)]
    {
        if !value.is_empty() {
            all.push((name, text(value)));
        }
    }
    all.extend(port.map(|port| ("server.port", Attribute::Whole(port.into()))));
    all.push(("client.address", Attribute::Text(line.client.to_string().into())));
    if let Some(endpoint) = line.endpoint {
        all.push(("network.peer.address", Attribute::Text(endpoint.ip().to_string().into())));
        all.push(("network.peer.port", Attribute::Whole(endpoint.port().into())));
    }
    if line.status > 0 {
        all.push(("http.response.status_code", Attribute::Whole(line.status.into())));
    }
    if line.tries > 1 {
        all.push(("http.request.resend_count", Attribute::Whole((line.tries - 1).into())));
    }
    match (line.reason, line.status) {
        (Some(reason), _) => all.push(("error.type", word(reason))),
        (None, 0) => all.push(("error.type", word("abandoned"))),
        (None, 500..) => all.push(("error.type", Attribute::Text(line.status.to_string().into()))),
        (None, _) => {}
    }
    all
}

/// A host's name and its port, if it says one.
fn place(host: &str) -> (&str, Option<u16>) {
    // Colons within brackets are an address's own.
    let with_port = host.rsplit_once(':').filter(|(name, _)| !name.contains(':') || name.ends_with(']'));
    match with_port.map(|(name, port)| (name, port.parse())) {
        Some((name, Ok(port))) => (name, Some(port)),
        Some((_, Err(_))) | None => (host, None),
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use kernel::Micros;

    use super::*;
    use crate::plan::SpanPlan;

    const TOLD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const NOT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn telling(trace: bool, sample: Option<u32>) -> Telling {
        Telling { trace, spans: sample.map(|sample| SpanPlan { sample }), ..Telling::default() }
    }

    fn decide(sample: Option<u32>, values: &[&str]) -> Option<Recorded> {
        let mut fields = vec![Header { name: "Accept", value: TOLD.as_bytes() }];
        fields.extend(values.iter().map(|value| Header { name: "TraceParent", value: value.as_bytes() }));
        decided(&mut Rng::new(7), &telling(true, sample), &fields)
    }

    #[test]
    fn a_client_decides_for_its_trace_and_others_are_drawn() {
        let rare = u32::MAX;
        #[rustfmt::skip] // columns
        let table: [(Option<u32>, &[&str], Option<bool>); 10] = [
            // one of     fields         recorded, below the client's span
            (None,        &[TOLD],       None),
            (None,        &[],           None),
            (Some(rare),  &[TOLD],       Some(true)),
            (Some(rare),  &[NOT],        None),
            (Some(rare),  &[],           None),
            (Some(rare),  &["00-x"],     None),
            (Some(1),     &[NOT],        None),
            (Some(1),     &[],           Some(false)),
            (Some(1),     &["00-x"],     Some(false)),
            (Some(1),     &[TOLD, TOLD], Some(false)),
        ];
        for (sample, values, expected) in table {
            let found = decide(sample, values);
            assert_eq!(found.map(|found| found.parent.is_some()), expected, "{sample:?} {values:?}");
        }
    }

    #[test]
    fn those_behind_are_told_of_the_span_here_or_that_nobody_records() {
        let mut room = [0; TRACEPARENT_BYTES];
        let mut told = |trace, sample, recorded| match onward(
            &mut Rng::new(7),
            &telling(trace, sample),
            recorded,
            &mut room,
        ) {
            Trace::Kept => ("kept", String::new()),
            Trace::Begun(text) => ("begun", text.to_owned()),
            Trace::Joined(text) => ("joined", text.to_owned()),
            Trace::Anew(text) => ("anew", text.to_owned()),
        };
        assert_eq!(told(false, Some(1), None), ("kept", String::new()));
        for (sample, flags) in [(None, "-01"), (Some(1), "-00")] {
            let (how, text) = told(true, sample, None);
            assert!(how == "begun" && text.ends_with(flags), "{how} {text}");
        }
        let joined = decide(Some(1), &[TOLD]).unwrap();
        let text = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", joined.own);
        assert_eq!(told(false, Some(1), Some(joined)), ("joined", text));
        let anew = decide(Some(1), &[]).unwrap();
        assert_eq!(told(false, Some(1), Some(anew)), ("anew", format!("00-{}-{}-01", anew.trace, anew.own)));
    }

    const LINE: Line<'_> = Line {
        now: Micros(1_000_005),
        client: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        member: None,
        method: "GET",
        host: "a:80",
        path: "/x?secret",
        route: "r",
        service: "s",
        endpoint: None,
        status: 200,
        micros: 5,
        tries: 1,
        reason: None,
    };

    fn made(line: &Line<'_>, is_cut: bool) -> Span {
        span(decide(Some(1), &[TOLD]).unwrap(), Ending { is_secured: false, is_cut }, line)
    }

    fn said(span: &Span, wanted: &str) -> Option<String> {
        let found = span.attributes.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| match value {
            Attribute::Text(text) => text.to_string(),
            Attribute::Whole(n) => n.to_string(),
        })
    }

    #[test]
    fn a_span_says_what_was_asked_and_what_came_of_it() {
        let endpoint = Some("[::1]:81".parse().unwrap());
        let retried = made(&Line { tries: 3, endpoint, ..LINE }, false);
        assert_eq!((retried.start_nanos, retried.end_nanos), (1_000_000_000, 1_000_005_000));
        assert_eq!((&*retried.name, retried.failed), ("GET r", false));
        let expected = [
            ("http.request.method", Some("GET")),
            ("url.scheme", Some("http")),
            ("url.path", Some("/x")),
            ("server.address", Some("a")),
            ("server.port", Some("80")),
            ("http.route", Some("r")),
            ("archipel.service", Some("s")),
            ("client.address", Some("127.0.0.1")),
            ("network.peer.address", Some("::1")),
            ("network.peer.port", Some("81")),
            ("http.response.status_code", Some("200")),
            ("http.request.resend_count", Some("2")),
            ("http.request.method_original", None),
            ("error.type", None),
        ];
        for (name, value) in expected {
            assert_eq!(said(&retried, name).as_deref(), value, "{name}");
        }
        let unread = made(&Line { method: "", host: "", path: "", route: "", service: "", ..LINE }, false);
        assert_eq!((&*unread.name, said(&unread, "server.address")), ("HTTP", None));
        let odd = made(&Line { method: "BREW", ..LINE }, false);
        assert_eq!((&*odd.name, said(&odd, "http.request.method").as_deref()), ("HTTP r", Some("_OTHER")));
        assert_eq!(said(&odd, "http.request.method_original").as_deref(), Some("BREW"));
    }

    #[test]
    fn what_failed_is_an_error_and_what_a_client_did_wrong_is_none() {
        #[rustfmt::skip] // columns
        let table = [
            // status  reason                cut    failed  error.type
            (200,      None,                 false, false,  None),
            (404,      None,                 false, false,  None),
            (404,      Some("no-route"),     false, false,  Some("no-route")),
            (500,      None,                 false, true,   Some("500")),
            (503,      Some("breaker-open"), false, true,   Some("breaker-open")),
            (200,      Some("timeout"),      true,  true,   Some("timeout")),
            (0,        None,                 false, true,   Some("abandoned")),
        ];
        for (status, reason, is_cut, failed, error) in table {
            let span = made(&Line { status, reason, ..LINE }, is_cut);
            assert_eq!(
                (span.failed, said(&span, "error.type").as_deref()),
                (failed, error),
                "{status} {reason:?}"
            );
        }
    }

    #[test]
    fn texts_are_bounded_and_hosts_taken_apart() {
        let long = format!("/{}", "é".repeat(TEXT_BYTES_MAX));
        let span = made(&Line { path: &long, ..LINE }, false);
        assert_eq!(said(&span, "url.path").map(|path| path.len()), Some(TEXT_BYTES_MAX - 1));
        #[rustfmt::skip] // columns
        let table = [
            ("a", ("a", None)), ("a:80", ("a", Some(80))), ("a:", ("a:", None)), ("a:99999", ("a:99999", None)),
            ("[::1]", ("[::1]", None)), ("[::1]:80", ("[::1]", Some(80))), ("::1", ("::1", None)), ("", ("", None)),
        ];
        for (host, expected) in table {
            assert_eq!(place(host), expected, "{host}");
        }
    }
}
