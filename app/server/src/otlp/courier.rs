//! Who brings requests to the collector, counts what became of them, and says when to try again (OTLP 1.x, "Failures").

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use kernel::Rng;
use serde_json::Value;
use telemetry::otlp::Export;
use tokio::time::Instant;

use super::post::{self, Answer, Collector};
use super::{OtlpMeters, Pace, Signal, SignalMeters};
use crate::config::otlp::Endpoint;

/// A collector that asks for more time than this gets this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// How often something that is wrong is told in the log.
const TELL: Duration = Duration::from_secs(60);
/// How much of an answer is told, in bytes.
const TOLD_BYTES_MAX: usize = 256;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivered {
    /// It was taken, or refused for good.
    Done,
    /// It may be taken later, as the collector says after this time.
    Later { after: Option<Duration> },
}

/// Who brings them, for one thread.
pub(super) struct Courier {
    pub pace: Pace,
    collector: Collector,
    meters: Arc<OtlpMeters>,
    told: Cell<Option<Instant>>,
    rng: RefCell<Rng>,
}

impl Courier {
    pub fn new(
        endpoint: &Endpoint,
        fields: &[(String, String)],
        pace: Pace,
        meters: &Arc<OtlpMeters>,
    ) -> Courier {
        let seed = RandomState::new().hash_one(0u64);
        Courier {
            pace,
            collector: Collector::new(endpoint, fields),
            meters: Arc::clone(meters),
            told: Cell::default(),
            rng: RefCell::new(Rng::new(seed)),
        }
    }

    /// Brings one request, once.
    pub async fn deliver(&self, signal: Signal, export: &Export) -> Delivered {
        let path = match signal {
            Signal::Traces => "/v1/traces",
            Signal::Metrics => "/v1/metrics",
        };
        let request = post::post(&self.collector, path, export.body.as_bytes());
        let answer = match tokio::time::timeout(self.pace.request, request).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return self.failed(&error.to_string()),
            Err(_) => return self.failed("no answer in time"),
        };
        match answer.status {
            200..300 => {
                self.taken(signal, export, &answer);
                Delivered::Done
            }
            429 | 502 | 503 | 504 => {
                self.failed(&told(&answer));
                Delivered::Later { after: answer.retry_after.map(|after| after.min(RETRY_AFTER_MAX)) }
            }
            status => {
                self.meters.failures.increment();
                self.give_up(signal, export);
                if self.may_tell() {
                    let (count, body) = (export.count, text(&answer));
                    tracing::warn!(
                        status,
                        body,
                        count,
                        ?signal,
                        "the collector refuses what it is sent; it is dropped"
                    );
                }
                Delivered::Done
            }
        }
    }

    /// Nobody has this request and nobody gets it.
    pub fn give_up(&self, signal: Signal, export: &Export) {
        self.of(signal).dropped.add(export.count);
    }

    /// The waits between tries of one request.
    pub fn backoff(&self) -> Backoff<'_> {
        Backoff { courier: self, next: self.pace.backoff }
    }

    fn of(&self, signal: Signal) -> &SignalMeters {
        match signal {
            Signal::Traces => &self.meters.spans,
            Signal::Metrics => &self.meters.points,
        }
    }

    fn failed(&self, why: &str) -> Delivered {
        self.meters.failures.increment();
        if self.may_tell() {
            tracing::warn!(why, collector = %self.collector, "the collector does not take what it is sent; it is tried again");
        }
        Delivered::Later { after: None }
    }

    /// Counts what was taken, and what of it was not.
    fn taken(&self, signal: Signal, export: &Export, answer: &Answer) {
        let (rejected, why) = partial(signal, &answer.body);
        let rejected = rejected.min(export.count);
        self.of(signal).exported.add(export.count - rejected);
        self.of(signal).rejected.add(rejected);
        if (rejected > 0 || !why.is_empty()) && self.may_tell() {
            tracing::warn!(
                rejected,
                why,
                ?signal,
                "the collector has taken a part of what it was sent, or warns"
            );
        }
    }

    fn may_tell(&self) -> bool {
        let now = Instant::now();
        let may = self.told.get().is_none_or(|told| now.duration_since(told) >= TELL);
        if may {
            self.told.set(Some(now));
        }
        may
    }
}

/// How many of a request's parts its answer refuses, and why. An answer that is none says nothing.
fn partial(signal: Signal, body: &[u8]) -> (u64, String) {
    let key = match signal {
        Signal::Traces => "rejectedSpans",
        Signal::Metrics => "rejectedDataPoints",
    };
    let Ok(answer) = serde_json::from_slice::<Value>(body) else { return (0, String::new()) };
    let partial = &answer["partialSuccess"];
    // Numbers of 64 bits are text in proto3's JSON, and writers of it differ.
    let rejected = match &partial[key] {
        Value::Number(n) => n.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let why = partial["errorMessage"].as_str().unwrap_or_default();
    (rejected.unwrap_or(0), why.chars().take(TOLD_BYTES_MAX).collect())
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body[..answer.body.len().min(TOLD_BYTES_MAX)]).into_owned()
}

fn told(answer: &Answer) -> String {
    format!("status {}: {}", answer.status, text(answer))
}

/// The waits between tries of one request: each up to twice as long as the one before.
pub(super) struct Backoff<'a> {
    courier: &'a Courier,
    next: Duration,
}

impl Backoff<'_> {
    /// The wait before the next try; not less than the collector asks for.
    pub fn next(&mut self, after: Option<Duration>) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.courier.pace.backoff_max);
        let micros = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX);
        // Nodes whose collector comes back do not all come at once.
        let chance = self.courier.rng.borrow_mut().below(micros / 2 + 1);
        let wait = Duration::from_micros(micros - chance);
        after.map_or(wait, |after| after.max(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_was_refused_in_either_form() {
        #[rustfmt::skip] // columns
        let table = [
            (Signal::Traces,  r#"{}"#,                                                          0, ""),
            (Signal::Traces,  r#""#,                                                            0, ""),
            (Signal::Traces,  r#"{"partialSuccess":{}}"#,                                       0, ""),
            (Signal::Traces,  r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"x"}}"#, 3, "x"),
            (Signal::Traces,  r#"{"partialSuccess":{"rejectedSpans":3}}"#,                      3, ""),
            (Signal::Traces,  r#"{"partialSuccess":{"rejectedDataPoints":3}}"#,                 0, ""),
            (Signal::Traces,  r#"{"partialSuccess":{"rejectedSpans":-3}}"#,                     0, ""),
            (Signal::Metrics, r#"{"partialSuccess":{"rejectedDataPoints":"3"}}"#,               3, ""),
            (Signal::Metrics, r#"[1]"#,                                                         0, ""),
        ];
        for (signal, body, rejected, why) in table {
            assert_eq!(partial(signal, body.as_bytes()), (rejected, why.to_owned()), "{body}");
        }
    }

    #[test]
    fn waits_double_up_to_their_bound_and_are_never_less_than_was_asked_for() {
        let ms = Duration::from_millis;
        let pace = Pace { backoff: ms(100), backoff_max: ms(350), ..super::super::PACE };
        let courier = Courier::new(&Endpoint::default(), &[], pace, &Arc::default());
        let mut backoff = courier.backoff();
        for whole in [100, 200, 350, 350] {
            let wait = backoff.next(None);
            assert!((ms(whole) / 2..=ms(whole)).contains(&wait), "{wait:?} of {whole} ms");
        }
        assert_eq!(backoff.next(Some(ms(5_000))), ms(5_000));
        assert!(backoff.next(Some(ms(1))) >= ms(175));
    }
}
