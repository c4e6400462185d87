//! LATENCY: the spikes that the host reported, by event.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;

use kernel::Micros;
use storage::{Fault, Reply};

use super::call::{Call, Done, shown};
use super::histogram::histogram;
use super::table::{Row, Traits, help};
use super::whole::{Order, Then};

/// Samples kept of one event.
const SAMPLES_MAX: usize = 160;

/// Spikes by event; events are named by the host (`command`, `log-sync`, …).
#[derive(Clone, Debug, Default)]
pub struct Latency {
    events: BTreeMap<&'static str, Event>,
}

#[derive(Clone, Debug, Default)]
struct Event {
    /// When (seconds) and how long (milliseconds), oldest first.
    samples: VecDeque<(u64, u64)>,
    worst: u64,
}

impl Latency {
    /// Notes that `event` took `millis`. Of one second only the worst sample is kept.
    pub fn push(&mut self, event: &'static str, at: Micros, millis: u64) {
        let event = self.events.entry(event).or_default();
        let second = at.0 / 1_000_000;
        event.worst = event.worst.max(millis);
        match event.samples.back_mut() {
            Some(last) if last.0 == second => last.1 = last.1.max(millis),
            _ => event.samples.push_back((second, millis)),
        }
        if event.samples.len() > SAMPLES_MAX {
            event.samples.pop_front();
        }
    }

    /// Takes in another worker's spikes.
    pub fn add(&mut self, other: Latency) {
        for (name, from) in other.events {
            let event = self.events.entry(name).or_default();
            event.worst = event.worst.max(from.worst);
            event.samples.extend(from.samples);
            event.samples.make_contiguous().sort_unstable();
            let beyond = event.samples.len().saturating_sub(SAMPLES_MAX);
            event.samples.drain(..beyond);
        }
    }

    /// Forgets the spikes of `names`, or of all events if there are none; of how many events.
    pub fn reset(&mut self, names: &[impl AsRef<[u8]>]) -> usize {
        let before = self.events.len();
        let named = |event: &str| names.iter().any(|name| name.as_ref() == event.as_bytes());
        self.events.retain(|event, _| !names.is_empty() && !named(event));
        before - self.events.len()
    }
}

const ADMIN: Traits = Traits::ADMIN.and(Traits::NO_SCRIPT);
const TELLS: Traits = ADMIN.and(Traits::NODE);

/// This family's rows.
pub(super) const ROWS: &[Row] =
    &[Row::container("latency", "server", LATENCY).since("2.8.13").about("Tells about latency spikes.")];

const LATENCY: &[Row] = &[
    Row::new("latency|doctor", 2, "server", doctor).with(TELLS).since("2.8.13").about("Advice on spikes."),
    Row::new("latency|graph", 3, "server", graph)
        .with(TELLS)
        .since("2.8.13")
        .syntax("<event>")
        .about("A graph of an event's spikes."),
    Row::new("latency|history", 3, "server", history)
        .with(TELLS)
        .since("2.8.13")
        .syntax("<event>")
        .about("When an event took how many milliseconds."),
    Row::new("latency|latest", 2, "server", latest)
        .with(TELLS)
        .since("2.8.13")
        .about("The latest spike of each event, and the worst."),
    Row::new("latency|reset", -2, "server", reset)
        .with(TELLS)
        .since("2.8.13")
        .syntax("[<event> ...]")
        .about("Forgets the spikes of events, or of all."),
    Row::new("latency|histogram", -2, "server", histogram)
        .with(TELLS)
        .since("7.0.0")
        .syntax("[<command> ...]")
        .about("How long commands took."),
    Row::new("latency|help", 2, "server", help).since("2.8.13"),
];

fn latest(call: &mut Call<'_>) -> Result<Done, Fault> {
    let events = call.host.survey().latency.events;
    call.reply.array(events.len());
    for (name, event) in &events {
        let (at, millis) = event.samples.back().copied().unwrap_or_default();
        call.reply.array(4);
        call.reply.bulk(name.as_bytes());
        [at, millis, event.worst].into_iter().for_each(|value| call.reply.int(value as i64));
    }
    Ok(Done::Answered)
}

fn history(call: &mut Call<'_>) -> Result<Done, Fault> {
    let wanted = call.args[0];
    let events = call.host.survey().latency.events;
    let event = events.iter().find(|(name, _)| name.as_bytes() == wanted).map(|(_, event)| event);
    call.reply.array(event.map_or(0, |event| event.samples.len()));
    for (at, millis) in event.into_iter().flat_map(|event| &event.samples) {
        call.reply.array(2);
        call.reply.int(*at as i64);
        call.reply.int(*millis as i64);
    }
    Ok(Done::Answered)
}

fn reset(call: &mut Call<'_>) -> Result<Done, Fault> {
    let gone = call.host.survey().latency.reset(call.args);
    let names = call.args.iter().map(|&name| name.into()).collect();
    call.order(Order::ResetLatency(names), Then::Int(gone as i64))
}

fn graph(call: &mut Call<'_>) -> Result<Done, Fault> {
    let wanted = call.args[0];
    let now = call.host.now().0 / 1_000_000;
    let events = call.host.survey().latency.events;
    let Some((name, event)) = events.iter().find(|(name, _)| name.as_bytes() == wanted) else {
        let text = alloc::format!("ERR No samples available for event '{}'", shown(wanted));
        return Err(Fault::Said(text));
    };
    let mut text = alloc::format!("{name} - worst {} ms of all time\n", event.worst);
    for (at, millis) in &event.samples {
        let width = (millis * 60 / event.worst.max(1)) as usize;
        let bar = "#".repeat(width.max(1));
        text.push_str(&alloc::format!("{:>8}s ago {millis:>8} ms {bar}\n", now.saturating_sub(*at)));
    }
    call.reply.verbatim(&text);
    Ok(Done::Answered)
}

fn doctor(call: &mut Call<'_>) -> Result<Done, Fault> {
    let events = call.host.survey().latency.events;
    let text = if call.host.config().latency_threshold_ms() == 0 {
        String::from(
            "Latency monitoring is disabled. CONFIG SET latency-monitor-threshold <milliseconds> enables it.\n",
        )
    } else if events.is_empty() {
        String::from("No spike was seen above latency-monitor-threshold.\n")
    } else {
        let mut text = String::from("Spikes seen:\n");
        for (name, event) in &events {
            let count = event.samples.len();
            text.push_str(&alloc::format!("{name}: {count} spikes, worst {} ms\n", event.worst));
        }
        text.push_str("SLOWLOG GET names slow commands; the disk's sync time bounds log-sync.\n");
        text
    };
    call.reply.verbatim(&text);
    Ok(Done::Answered)
}
