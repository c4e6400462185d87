//! What the node tells a collector of OpenTelemetry (OTLP over HTTP, in JSON): spans of requests to the proxy, and the page of
//! `/metrics`.
//!
//! A thread of its own with two errands, each of which sends one request at a time and waits for its answer. While the
//! collector is away the queue of spans drops what does not fit, and a page of metrics is replaced by the next one: its sums
//! count from the start, so nothing is missing in them. What was answered badly is told in the log once a minute.

mod courier;
mod post;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use telemetry::otlp::{Export, Resource, metrics, traces};
use telemetry::trace::{BATCH_SPANS, SpanQueue};
use telemetry::{Counter, Exposition};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use self::courier::{Courier, Delivered};
use crate::admin::Admin;
use crate::config;
use crate::node::Node;
use crate::services::Services;

/// How long fewer spans than a batch may wait.
const GATHER: Duration = Duration::from_secs(1);
/// What is waited before a request is tried a second time, twice of that before the third, and so on.
const BACKOFF: Duration = Duration::from_secs(1);
/// How much of that at most.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How long a request may take with its answer.
const REQUEST: Duration = Duration::from_secs(10);
/// How long what is left may take when the node stops.
const LAST: Duration = Duration::from_secs(1);

/// How long things take.
#[derive(Clone, Copy, Debug)]
struct Pace {
    gather: Duration,
    backoff: Duration,
    backoff_max: Duration,
    request: Duration,
    last: Duration,
}

const PACE: Pace =
    Pace { gather: GATHER, backoff: BACKOFF, backoff_max: BACKOFF_MAX, request: REQUEST, last: LAST };

/// What became of one kind of what is sent. One thread counts.
#[derive(Debug, Default)]
pub struct SignalMeters {
    /// Taken by the collector.
    pub exported: Counter,
    /// Refused by it, of requests that it took otherwise.
    pub rejected: Counter,
    /// Given up here: a request was refused, or its time was over. Spans for which there was no room are counted by their queue.
    pub dropped: Counter,
}

/// What an exporter counts.
#[derive(Debug, Default)]
pub struct OtlpMeters {
    /// Spans.
    pub spans: SignalMeters,
    /// Points of metrics.
    pub points: SignalMeters,
    /// Requests that failed, each of several tries for itself.
    pub failures: Counter,
}

/// A kind of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Traces,
    Metrics,
}

/// What a node is called among others: its id as a member, its name where services are registered, or its host and port.
pub(crate) fn instance(node: &Node, services: Option<&Services>) -> String {
    let host = || format!("{}:{}", rustix::system::uname().nodename().to_string_lossy(), node.redis.port());
    let name = || services.map_or_else(host, |services| services.handle.node_name());
    node.desk.as_ref().map_or_else(name, |desk| desk.node.to_string())
}

/// Sends the proxy's spans and what the admin port tells to the collector.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn begin(
    collector: &config::otlp::Endpoint,
    config: &config::Otlp,
    instance: String,
    proxy: &proxy::Meters,
    meters: Arc<OtlpMeters>,
    admin: &Admin,
) -> io::Result<Exporter> {
    let spans = Arc::clone(&proxy.spans);
    Exporter::start(&Exporting { collector, config, instance, spans, meters }, admin.figures(), PACE)
}

/// What an exporter works with.
struct Exporting<'a> {
    collector: &'a config::otlp::Endpoint,
    config: &'a config::Otlp,
    instance: String,
    spans: Arc<SpanQueue>,
    meters: Arc<OtlpMeters>,
}

/// The thread that sends.
pub(crate) struct Exporter {
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Exporter {
    /// Starts it; `page` is asked for the metrics as they are then.
    fn start<P>(what: &Exporting<'_>, page: P, pace: Pace) -> io::Result<Exporter>
    where
        P: AsyncFn() -> Exposition + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let courier = Courier::new(what.collector, what.config.headers.expose(), pace, &what.meters);
        let resource = Resource {
            service: "archipel".to_owned(),
            instance: what.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let many = Arc::new(Notify::new());
        let bell = Arc::clone(&many);
        what.spans.on_batch(move || bell.notify_one());
        let traces = Traces { queue: Arc::clone(&what.spans), many, resource: resource.clone(), batch: None };
        let interval = Duration::from_millis(what.config.interval_ms.get());
        let pages = Pages { page, resource, interval, start_nanos: now_nanos() };
        let (end, ended) = oneshot::channel();
        let run = move || {
            runtime.block_on(run(courier, traces, pages, ended));
            // It may still look for the collector's address, for which nobody waits.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("otlp".into()).spawn(run)?;
        Ok(Exporter { end, thread })
    }

    /// Sends what is left, for which it has a second, and ends.
    pub fn stop(self) {
        drop(self.end);
        if self.thread.join().is_err() {
            tracing::error!("the thread that sends to the collector ended badly");
        }
    }
}

async fn run<P>(courier: Courier, mut traces: Traces, pages: Pages<P>, ended: oneshot::Receiver<()>)
where
    P: AsyncFn() -> Exposition,
{
    tokio::select! {
        () = traces.run(&courier) => {}
        () = pages.run(&courier) => {}
        _ = ended => {}
    }
    let last = async { tokio::join!(traces.last(&courier), pages.last(&courier)) };
    if tokio::time::timeout(courier.pace.last, last).await.is_err() {
        tracing::warn!("the collector has not taken all that was left for it");
    }
}

/// The errand of spans.
struct Traces {
    queue: Arc<SpanQueue>,
    /// A batch has come to wait.
    many: Arc<Notify>,
    resource: Resource,
    /// What is being sent. It stays until its fate is known.
    batch: Option<Export>,
}

impl Traces {
    async fn run(&mut self, courier: &Courier) {
        loop {
            if self.batch.is_none() && self.queue.len() < BATCH_SPANS {
                // Either way what is there then is sent.
                let _ = tokio::time::timeout(courier.pace.gather, self.many.notified()).await;
            }
            let Some(batch) = self.batch() else { continue };
            let mut backoff = courier.backoff();
            while let Delivered::Later { after } = courier.deliver(Signal::Traces, batch).await {
                tokio::time::sleep(backoff.next(after)).await;
            }
            self.batch = None;
        }
    }

    /// Each batch that is left, once.
    async fn last(&mut self, courier: &Courier) {
        while let Some(batch) = self.batch() {
            if courier.deliver(Signal::Traces, batch).await != Delivered::Done {
                return;
            }
            self.batch = None;
        }
    }

    /// What is to be sent, if there is anything.
    fn batch(&mut self) -> Option<&Export> {
        if self.batch.is_none() {
            let spans = self.queue.take();
            self.batch = (!spans.is_empty()).then(|| traces(&spans, &self.resource));
        }
        self.batch.as_ref()
    }
}

/// The errand of metrics.
struct Pages<P> {
    page: P,
    resource: Resource,
    interval: Duration,
    start_nanos: u64,
}

impl<P: AsyncFn() -> Exposition> Pages<P> {
    async fn run(&self, courier: &Courier) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (export, next) = (self.export().await, Instant::now() + self.interval);
            let mut backoff = courier.backoff();
            while let Delivered::Later { after } = courier.deliver(Signal::Metrics, &export).await {
                let wait = backoff.next(after);
                if Instant::now() + wait >= next {
                    courier.give_up(Signal::Metrics, &export);
                    // A collector that asked for time gets it.
                    tokio::time::sleep_until(Instant::now() + wait).await;
                    break;
                }
                tokio::time::sleep(wait).await;
            }
        }
    }

    async fn last(&self, courier: &Courier) {
        let export = self.export().await;
        // There is no other try, whatever comes of it.
        courier.deliver(Signal::Metrics, &export).await;
    }

    async fn export(&self) -> Export {
        let page = (self.page)().await;
        metrics(&page, &self.resource, self.start_nanos, now_nanos())
    }
}

fn now_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
