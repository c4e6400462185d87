//! Traces through the proxy: which requests are recorded, what services are told of it, and what the spans say.

use std::io::Write;
use std::net::SocketAddr;

use mesh::route::Routes;
use proxy::{Plan, SpanPlan};
use telemetry::trace::{Attribute, SPANS_MAX, Span, SpanId, TraceContext, TraceId};

use crate::http2;
use crate::world::{Backend, World, nobody, plan, read_head, rule};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// One of so many is none, as far as a test lasts.
const RARE: u32 = u32::MAX;

/// A plan that records one of `sample`.
fn traced(endpoints: &[SocketAddr], sample: u32) -> Plan {
    let mut plan = plan(endpoints);
    plan.telling.spans = Some(SpanPlan { sample });
    plan.telling.trace = true;
    plan
}

fn get(fields: &str) -> String {
    format!("GET /x?y HTTP/1.1\r\nHost: a:80\r\n{fields}\r\n")
}

/// The values of a field in what a service has seen.
fn told(seen: &str, name: &str) -> Vec<String> {
    let fields = seen.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect()
}

/// The next span; it is handed over when the turn of its request ends.
fn next(world: &World) -> Span {
    world.until("there is a span", |meters| !meters.spans.is_empty());
    let mut spans = world.meters.spans.take();
    assert_eq!(spans.len(), 1, "{spans:?}");
    spans.remove(0)
}

fn said(span: &Span, wanted: &str) -> Option<String> {
    let found = span.attributes.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, value)| match value {
        Attribute::Text(text) => text.to_string(),
        Attribute::Whole(n) => n.to_string(),
    })
}

#[test]
fn a_service_is_told_of_the_span_here_where_there_is_one() {
    let client = |flags: &str| format!("00-{TRACE}-{PARENT}-{flags}");
    let valid = |flags: &str| format!("TraceParent: {}\r\nTraceState: a=b\r\n", client(flags));
    let twice = format!("{}{}", valid("01"), valid("01"));
    let later = format!("traceparent: 01-{TRACE}-{PARENT}-01-more\r\ntracestate: a=b\r\n");
    let (broken, absent) = ("traceparent: 00-x\r\ntracestate: a=b\r\n", "");
    #[rustfmt::skip] // columns
    let table = [
        // one of  fields            recorded  in the client's trace  goes on as it came  its state goes on
        (RARE,     &*valid("01"),    true,     true,                  false,              true),
        (1,        &*valid("01"),    true,     true,                  false,              true),
        (RARE,     &*later,          true,     true,                  false,              true),
        (1,        &*valid("00"),    false,    true,                  true,               true),
        (1,        broken,           true,     false,                 false,              false),
        (RARE,     broken,           false,    false,                 true,               true),
        (1,        &*twice,          true,     false,                 false,              false),
        (1,        absent,           true,     false,                 false,              false),
        (RARE,     absent,           false,    false,                 false,              false),
    ];
    for (sample, fields, recorded, is_clients, is_untouched, has_state) in table {
        let backend = Backend::answering(OK);
        let world = World::new(traced(&[backend.address], sample));
        assert_eq!(world.ask(&get(fields)).status, 200);
        let seen = backend.seen();
        let (parents, states) = (told(&seen, "traceparent"), told(&seen, "tracestate"));
        assert_eq!(parents.len(), 1, "{sample} {fields}: {seen}");
        assert_eq!(states.len(), usize::from(has_state), "{sample} {fields}: {seen}");
        let came = told(fields, "traceparent");
        assert_eq!(came.first() == parents.first(), is_untouched, "{sample} {fields}: {seen}");
        if recorded {
            let (span, onward) = (next(&world), TraceContext::parse(parents[0].as_bytes()).unwrap());
            assert_eq!((onward.trace, onward.parent, onward.sampled), (span.trace, span.own, true));
            assert_eq!(span.trace.to_string() == TRACE, is_clients, "{fields}");
            let parent = span.parent.map(|parent| parent.to_string());
            assert_eq!(parent.as_deref(), is_clients.then_some(PARENT), "{fields}");
        } else if came.is_empty() {
            assert!(parents[0].ends_with("-00"), "nobody records it: {seen}");
        }
        world.until("nothing is dropped", |meters| meters.spans.dropped() == 0 && meters.spans.is_empty());
    }
}

#[test]
fn without_spans_everything_goes_on_as_it_did() {
    for trace in [true, false] {
        let backend = Backend::answering(OK);
        let mut plan = plan(&[backend.address]);
        plan.telling.trace = trace;
        let world = World::new(plan);
        let field = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");
        assert_eq!(world.ask(&get(&field)).status, 200);
        assert_eq!(told(&backend.seen(), "traceparent"), [format!("00-{TRACE}-{PARENT}-01")]);
        assert_eq!(world.ask(&get("")).status, 200);
        let begun = told(&backend.seen(), "traceparent").into_iter().nth(1);
        assert_eq!(begun.map(|value| value.ends_with("-01")), trace.then_some(true));
        assert!(world.meters.spans.is_empty());
    }
}

#[test]
fn a_span_says_where_a_request_went_and_how_often() {
    let backend = Backend::answering(OK);
    let dead = nobody();
    let world = World::new(traced(&[dead, backend.address], 1));
    let mut asked = 0;
    let retried = loop {
        assert_eq!(world.ask(&get("")).status, 200);
        asked += 1;
        let span = next(&world);
        assert_eq!((&*span.name, span.failed), ("GET all", false));
        assert!(span.start_nanos <= span.end_nanos && span.start_nanos > 1_700_000_000_000_000_000);
        let expected = [
            ("url.path", "/x"),
            ("url.scheme", "http"),
            ("server.address", "a"),
            ("server.port", "80"),
            ("http.route", "all"),
            ("archipel.service", "one"),
            ("client.address", "127.0.0.1"),
            ("network.peer.address", "127.0.0.1"),
            ("network.peer.port", &*backend.address.port().to_string()),
            ("http.response.status_code", "200"),
        ];
        for (name, value) in expected {
            assert_eq!(said(&span, name).as_deref(), Some(value), "{name}");
        }
        // One of two in turn begins at the endpoint that is not there.
        match said(&span, "http.request.resend_count") {
            Some(count) => break count,
            None => assert!(asked < 3),
        }
    };
    assert_eq!((&*retried, world.meters.sum(|meters| meters.retries.get())), ("1", 1));
    // All tries of a request are below one span.
    assert_eq!(told(&backend.seen(), "traceparent").len(), asked);
}

#[test]
fn streams_of_http2_are_spans_as_others_are_and_so_are_calls_behind_them() {
    // It says what it was told of the trace.
    let (service, _) = http2::service(|request, mut respond| async move {
        let mut response = http::Response::new(());
        let told = request.headers().get_all("traceparent").iter().cloned().collect::<Vec<_>>();
        assert_eq!(told.len(), 1);
        response.headers_mut().insert("x-told", told[0].clone());
        respond.send_response(response, true).unwrap();
    });
    let mut plan = http2::http2_plan(service);
    plan.telling.spans = Some(SpanPlan { sample: 1 });
    let world = World::new(plan);
    let ask = |parent: Option<String>| {
        let mut request = http2::request(http::Method::GET, "/x?y");
        if let Some(parent) = parent {
            request.headers_mut().insert("traceparent", parent.parse().unwrap());
        }
        let (status, fields, _) = http2::within(async {
            let mut send = http2::connect(http2::address(&world)).await;
            http2::ask(&mut send, request).await.unwrap()
        });
        assert_eq!(status, 200);
        fields["x-told"].to_str().unwrap().to_owned()
    };
    let onward = TraceContext::parse(ask(Some(format!("00-{TRACE}-{PARENT}-01"))).as_bytes()).unwrap();
    let span = next(&world);
    assert_eq!((onward.trace, onward.parent, onward.sampled), (span.trace, span.own, true));
    assert_eq!(span.parent.map(|parent| parent.to_string()).as_deref(), Some(PARENT));
    assert_eq!(said(&span, "server.address").as_deref(), Some("a.example"));
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    assert_eq!(ask(Some(unsampled.clone())), unsampled);
    let begun = TraceContext::parse(ask(None).as_bytes()).unwrap();
    let span = next(&world);
    assert_eq!((begun.trace, begun.parent, span.parent), (span.trace, span.own, None));
}

#[test]
fn what_the_proxy_answers_itself_is_a_span_too() {
    let backend = Backend::start(|stream, _| {
        let _ = read_head(stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal");
    });
    let mut plan = traced(&[backend.address], 1);
    plan.limits.head_ms = 50;
    plan.index = Routes::new(&[rule("*", "/x"), rule("*", "/away")]).unwrap();
    plan.routes.push(crate::world::route("away", 1));
    plan.services.push(crate::world::service("away", &[nobody()]));
    let world = World::new(plan);
    let parent = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");
    #[rustfmt::skip] // columns
    let table = [
        // request                                                       status  error.type         failed  in a trace
        (format!("GET /elsewhere HTTP/1.1\r\nHost: a\r\n{parent}\r\n"),    404,    "no-route",        false,  true),
        (format!("GET /away HTTP/1.1\r\nHost: a\r\n{parent}\r\n"),         502,    "connect-failed",  true,   true),
        ("GET / HTTP/1.1\r\nHost: a\"b\r\n\r\n".into(),                    400,    "malformed",       false,  false),
        ("GET /".into(),                                                   408,    "slow-request",    false,  false),
    ];
    for (text, status, reason, failed, is_clients) in table {
        assert_eq!(world.ask(&text).status, status, "{text}");
        let span = next(&world);
        assert_eq!(said(&span, "error.type").as_deref(), Some(reason));
        assert_eq!(said(&span, "http.response.status_code"), Some(status.to_string()));
        assert_eq!((span.failed, span.trace.to_string() == TRACE), (failed, is_clients), "{reason}");
    }
    let mut client = world.connect();
    client.send(get("").as_bytes());
    assert!(!client.whole_rest().1);
    let span = next(&world);
    assert_eq!((said(&span, "error.type").as_deref(), span.failed), (Some("endpoint-reset"), true));
    assert_eq!(said(&span, "http.response.status_code").as_deref(), Some("200"));
}

#[test]
fn a_request_whose_client_leaves_is_a_span_that_failed() {
    let (gone, left) = std::sync::mpsc::channel::<()>();
    let left = std::sync::Mutex::new(left);
    let backend = Backend::start(move |stream, _| {
        let _ = read_head(stream);
        let _ = left.lock().unwrap().recv();
    });
    let world = World::new(traced(&[backend.address], 1));
    let mut client = world.connect();
    client.send(get("").as_bytes());
    world.until("it is at the service", |_| backend.connections() == 1);
    client.reset();
    let span = next(&world);
    assert_eq!((said(&span, "error.type").as_deref(), span.failed), (Some("abandoned"), true));
    assert_eq!(said(&span, "http.response.status_code"), None);
    drop(gone);
}

#[test]
fn a_full_queue_holds_up_nobody_and_what_is_lost_is_counted() {
    let backend = Backend::answering(OK);
    let world = World::new(traced(&[backend.address], 1));
    let span = Span {
        trace: TraceId::new([1; 16]).unwrap(),
        own: SpanId::new([1; 8]).unwrap(),
        parent: None,
        name: String::new(),
        start_nanos: 0,
        end_nanos: 0,
        attributes: Vec::new(),
        failed: false,
    };
    world.meters.spans.put(&mut vec![span; SPANS_MAX]);
    for _ in 0..3 {
        assert_eq!(world.ask(&get("")).status, 200);
    }
    world.until("all three are lost", |meters| meters.spans.dropped() == 3);
    assert_eq!(world.meters.spans.len(), SPANS_MAX);
}

#[test]
fn connections_that_are_passed_through_are_no_spans() {
    let backend = Backend::answering(OK);
    let mut plan = traced(&[backend.address], 1);
    plan.listeners.push(crate::world::listener("raw", proxy::ListenerKind::Tcp { service: 0 }));
    let world = World::new(plan);
    let mut client = world.connect_to("raw");
    client.send(get("").as_bytes());
    assert_eq!(client.reply("GET").status, 200);
    drop(client);
    assert_eq!(told(&backend.seen(), "traceparent"), Vec::<String>::new());
    // One that comes behind it is the only one.
    assert_eq!(world.ask(&get("")).status, 200);
    next(&world);
}
