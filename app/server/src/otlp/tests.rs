//! The exporter against a collector that does as each test says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::Value;
use telemetry::trace::{SPANS_MAX, Span, SpanId, TraceId};

use super::*;
use crate::config::items::Item;
use crate::config::section::Value as _;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer that does not come before the gate is opened, and not then.
const HELD: &str = "held";
const TAKEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// One request that came.
struct Asked {
    head: String,
    body: Value,
}

impl Asked {
    fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    fn spans(&self) -> usize {
        self.body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().map_or(0, Vec::len)
    }
}

/// A collector: it answers requests for spans as the list says, and with success when that is used up; those for metrics
/// always so.
struct Fake {
    endpoint: config::otlp::Endpoint,
    asked: Receiver<Asked>,
    /// Ends the wait of a request that is answered with [`HELD`].
    gate: Sender<()>,
}

impl Fake {
    fn new(answers: &[&str]) -> Fake {
        let listener = listener();
        let endpoint = endpoint(&listener);
        let ((tell, asked), (gate, opened)) = (channel(), channel());
        let answers = Mutex::new(answers.iter().rev().map(|&one| one.to_owned()).collect());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if answer(&mut stream.unwrap(), &answers, &tell, &opened).is_none() {
                    return;
                }
            }
        });
        Fake { endpoint, asked, gate }
    }

    /// The next request for spans.
    fn traces(&self) -> Asked {
        self.next("/v1/traces")
    }

    fn next(&self, path: &str) -> Asked {
        loop {
            let asked = self.asked.recv_timeout(PATIENCE).unwrap();
            if asked.path().ends_with(path) {
                return asked;
            }
        }
    }
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn endpoint(listener: &TcpListener) -> config::otlp::Endpoint {
    config::otlp::Endpoint::read(&format!("http://{}/below", listener.local_addr().unwrap())).unwrap()
}

/// `None`: nobody asks any more what came.
fn answer(
    stream: &mut TcpStream,
    answers: &Mutex<Vec<String>>,
    tell: &Sender<Asked>,
    opened: &Receiver<()>,
) -> Option<()> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return Some(());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    let is_traces = head.contains("/v1/traces ");
    let text = if is_traces { answers.lock().unwrap().pop() } else { None };
    // What came is known before it is answered.
    tell.send(Asked { head, body: serde_json::from_slice(&body).unwrap() }).ok()?;
    match text.as_deref().unwrap_or(TAKEN) {
        HELD => opened.recv().ok(),
        text => stream.write_all(text.as_bytes()).ok(),
    }
}

/// An exporter with its ends.
struct World {
    exporter: Exporter,
    spans: Arc<SpanQueue>,
    meters: Arc<OtlpMeters>,
}

/// Waits are short, but for those that a test does not want to see.
fn pace() -> Pace {
    let ms = Duration::from_millis;
    Pace { gather: ms(5), backoff: ms(2), backoff_max: ms(10), request: PATIENCE, last: PATIENCE }
}

impl World {
    fn start(endpoint: &config::otlp::Endpoint, pace: Pace) -> World {
        let mut config = config::Otlp::default();
        assert!(config.headers.parse("authorization: Bearer hunter2"));
        let (spans, meters) = (Arc::<SpanQueue>::default(), Arc::<OtlpMeters>::default());
        let instance = "a-node".to_owned();
        let what = Exporting {
            collector: endpoint,
            config: &config,
            instance,
            spans: Arc::clone(&spans),
            meters: Arc::clone(&meters),
        };
        let page = async || {
            let mut page = Exposition::default();
            page.counter("a_total", "A.", 3u64);
            page.gauge("b", "B.", 0.5);
            page
        };
        World { exporter: Exporter::start(&what, page, pace).unwrap(), spans, meters }
    }

    fn put(&self, n: usize) {
        let span = |at: usize| Span {
            trace: TraceId::new([1; 16]).unwrap(),
            own: SpanId::new([1; 8]).unwrap(),
            parent: None,
            name: at.to_string(),
            start_nanos: 0,
            end_nanos: 1,
            attributes: Vec::new(),
            failed: false,
        };
        self.spans.put(&mut (0..n).map(span).collect());
    }

    /// Exported, rejected, dropped.
    fn counts(&self) -> [u64; 3] {
        let SignalMeters { exported, rejected, dropped } = &self.meters.spans;
        [exported.get(), rejected.get(), dropped.get()]
    }

    fn until(&self, counts: [u64; 3]) {
        let end = std::time::Instant::now() + PATIENCE;
        while self.counts() != counts {
            assert!(std::time::Instant::now() < end, "{:?} never come to {counts:?}", self.counts());
            std::thread::yield_now();
        }
    }
}

#[test]
fn spans_and_metrics_reach_the_collector_with_the_fields_that_are_set() {
    let fake = Fake::new(&[]);
    let world = World::start(&fake.endpoint, pace());
    let metrics = fake.next("/v1/metrics");
    assert_eq!(metrics.path(), "/below/v1/metrics");
    for line in ["content-type: application/json", "authorization: Bearer hunter2"] {
        assert!(metrics.head.lines().any(|found| found == line), "{line} is not in {}", metrics.head);
    }
    let resource = &metrics.body["resourceMetrics"][0];
    assert_eq!(resource["resource"]["attributes"][1]["value"]["stringValue"], "a-node");
    assert_eq!(resource["scopeMetrics"][0]["metrics"][1]["name"], "b");
    world.put(2);
    assert_eq!(fake.traces().spans(), 2);
    world.until([2, 0, 0]);
    world.exporter.stop();
    assert_eq!(
        (world.meters.points.exported.get(), world.meters.failures.get()),
        (4, 0),
        "once more at the end"
    );
}

#[test]
fn what_may_be_taken_later_is_sent_again_and_what_is_refused_is_dropped() {
    let busy = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n";
    let late = "HTTP/1.1 429 Too Many Requests\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n";
    let bad = "HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad";
    let moved = "HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n";
    let early = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
    #[rustfmt::skip] // columns
    let table: [(&[&str], usize, [u64; 3]); 6] = [
        // answers                  requests  exported, rejected, dropped
        (&[busy, late, TAKEN],      3,        [2, 0, 0]),
        (&["", "HTTP/1.1 2", TAKEN], 3,       [2, 0, 0]), // it breaks off
        (&["no HTTP\r\n\r\n", TAKEN], 2,      [2, 0, 0]),
        (&[bad],                    1,        [0, 0, 2]),
        (&[moved],                  1,        [0, 0, 2]),
        (&[early],                  1,        [2, 0, 0]),
    ];
    for (answers, requests, counts) in table {
        let fake = Fake::new(answers);
        let world = World::start(&fake.endpoint, pace());
        world.put(2);
        for _ in 0..requests {
            assert_eq!(fake.traces().spans(), 2, "{answers:?}");
        }
        world.until(counts);
        // What was dropped is not sent again, and the next is.
        world.put(1);
        assert_eq!(fake.traces().spans(), 1, "{answers:?}");
        world.until([counts[0] + 1, counts[1], counts[2]]);
        let failures = world.meters.failures.get();
        assert_eq!(failures, requests as u64 - u64::from(counts[0] > 0), "{answers:?}");
        world.exporter.stop();
    }
}

#[test]
fn what_a_collector_takes_in_part_is_counted_and_not_sent_again() {
    let part = |n: &str| {
        let body = format!("{{\"partialSuccess\":{{\"rejectedSpans\":{n},\"errorMessage\":\"too old\"}}}}");
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    for (n, counts) in [("\"2\"", [3, 2, 0]), ("2", [3, 2, 0]), ("99", [0, 5, 0]), ("0", [5, 0, 0])] {
        let fake = Fake::new(&[&part(n)]);
        let world = World::start(&fake.endpoint, pace());
        world.put(5);
        assert_eq!(fake.traces().spans(), 5);
        world.until(counts);
        world.exporter.stop();
        assert_eq!(fake.asked.try_iter().filter(|asked| asked.spans() > 0).count(), 0, "{n}");
    }
}

#[test]
fn spans_are_bounded_while_the_collector_is_away_and_come_when_it_is_back() {
    let fake = Fake::new(&[HELD]);
    let world = World::start(&fake.endpoint, pace());
    world.put(1);
    assert_eq!(fake.traces().spans(), 1);
    // One batch is held, which is that of the first span.
    world.put(SPANS_MAX + 7);
    assert_eq!((world.spans.len(), world.spans.dropped()), (SPANS_MAX, 7));
    fake.gate.send(()).unwrap();
    let mut sent = vec![];
    while sent.iter().sum::<usize>() < SPANS_MAX + 1 {
        sent.push(fake.traces().spans());
    }
    assert_eq!((sent[0], sent[1], sent.len()), (1, BATCH_SPANS, 1 + SPANS_MAX / BATCH_SPANS));
    world.until([SPANS_MAX as u64 + 1, 0, 0]);
    world.exporter.stop();
    assert_eq!(world.spans.dropped(), 7);
}

#[test]
fn what_is_left_is_sent_when_the_node_stops_and_nobody_waits_for_a_collector_that_is_away() {
    let fake = Fake::new(&[]);
    // It would gather for longer than the test may take.
    let patient = Pace { gather: PATIENCE * 10, ..pace() };
    let world = World::start(&fake.endpoint, patient);
    fake.next("/v1/metrics");
    world.put(3);
    world.exporter.stop();
    assert_eq!(fake.traces().spans(), 3);
    fake.next("/v1/metrics");
    // It takes connections, and says nothing.
    let silent = listener();
    let world = World::start(&endpoint(&silent), Pace { last: Duration::from_millis(1), ..patient });
    world.put(3);
    world.exporter.stop();
}
