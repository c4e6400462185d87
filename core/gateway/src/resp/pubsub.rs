//! Channels: SUBSCRIBE and its kin, PUBLISH, PUBSUB.

use alloc::boxed::Box;
use alloc::vec::Vec;

use storage::command::session::PUBLISH;
use storage::object::glob::{Case, matches};
use storage::{Fault, Reply};
use wire::resp::Encoder;

use super::call::{Call, Done, Place};
use super::host::{Host, Topic};
use super::session::Session;
use super::table::{Row, Traits, help};

/// Output held for a client that does not read its messages; beyond it, the client is cut.
pub const PUBSUB_OUTPUT_BYTES_MAX: usize = 32 * 1024 * 1024;

const LISTEN: Traits = Traits::SUBSCRIBED.and(Traits::NO_MULTI).and(Traits::PUBSUB).and(Traits::NO_SCRIPT);

/// This family's rows.
pub(super) const ROWS: &[Row] = &[
    Row::new("publish", 3, "pubsub", publish)
        .with(Traits::PUBSUB.and(Traits::FAST).and(Traits::CHANGES))
        .since("2.0.0")
        .about("Sends a message to a channel's subscribers."),
    Row::new("subscribe", -2, "pubsub", |call| subscribe(call, Topic::Channel))
        .with(LISTEN)
        .since("2.0.0")
        .about("Listens to channels."),
    Row::new("psubscribe", -2, "pubsub", |call| subscribe(call, Topic::Pattern))
        .with(LISTEN)
        .since("2.0.0")
        .about("Listens to all channels that match patterns."),
    Row::new("unsubscribe", -1, "pubsub", |call| unsubscribe(call, Topic::Channel))
        .with(LISTEN)
        .since("2.0.0")
        .about("Stops listening to channels."),
    Row::new("punsubscribe", -1, "pubsub", |call| unsubscribe(call, Topic::Pattern))
        .with(LISTEN)
        .since("2.0.0")
        .about("Stops listening to patterns."),
    Row::container("pubsub", "pubsub", PUBSUB).since("2.8.0").about("Tells about channels."),
];

const PUBSUB: &[Row] = &[
    Row::new("pubsub|channels", -2, "pubsub", channels)
        .with(Traits::NODE)
        .since("2.8.0")
        .syntax("[<pattern>]")
        .about("Channels with subscribers, all or those that match a pattern."),
    Row::new("pubsub|numsub", -2, "pubsub", numsub)
        .with(Traits::NODE)
        .since("2.8.0")
        .syntax("[<channel> ...]")
        .about("Channels with the number of their subscribers, patterns not counted."),
    Row::new("pubsub|numpat", 2, "pubsub", numpat)
        .with(Traits::NODE)
        .since("2.8.0")
        .about("Patterns that are listened to."),
    Row::new("pubsub|shardchannels", -2, "pubsub", shard).since("7.0.0").about("Shard channels: none."),
    Row::new("pubsub|shardnumsub", -2, "pubsub", shardnumsub)
        .since("7.0.0")
        .syntax("[<channel> ...]")
        .about("Subscribers of shard channels: none."),
    Row::new("pubsub|help", 2, "pubsub", help).since("6.2.0"),
];

fn publish(call: &mut Call<'_>) -> Result<Done, Fault> {
    let (channel, payload) = (call.args[0], call.args[1]);
    if call.place == Place::Exec {
        // Delivered after the transaction's earlier writes can be read.
        let receivers = call.host.survey().receivers(channel);
        call.embed(PUBLISH, &[channel, payload, itoa::Buffer::new().format(receivers).as_bytes()]);
        return Ok(Done::Silent);
    }
    match call.host.publish(channel, payload) {
        Some(receivers) => call.int(receivers as i64),
        None => Ok(Done::Silent),
    }
}

impl Session {
    fn topics(&mut self, topic: Topic) -> &mut alloc::collections::BTreeSet<Box<[u8]>> {
        match topic {
            Topic::Channel => &mut self.channels,
            Topic::Pattern => &mut self.topics,
        }
    }

    fn subscriptions(&self) -> usize {
        self.channels.len() + self.topics.len()
    }

    /// RESP2 clients with subscriptions are restricted; asked whenever either changes.
    fn settle_subscribed(&mut self, host: &mut (impl Host + ?Sized)) {
        self.subscribed = self.subscriptions() > 0 && !host.io().resp3;
    }

    /// Takes back all subscriptions without a word.
    pub(super) fn unsubscribe_all<H: Host + ?Sized>(&mut self, host: &mut H) {
        for channel in core::mem::take(&mut self.channels) {
            host.unsubscribe(Topic::Channel, &channel);
        }
        for pattern in core::mem::take(&mut self.topics) {
            host.unsubscribe(Topic::Pattern, &pattern);
        }
        self.subscribed = false;
    }
}

fn confirm(call: &mut Call<'_>, verb: &str, topic: Topic, name: Option<&[u8]>) {
    let prefix: &[u8] = if topic == Topic::Pattern { b"p" } else { b"" };
    let count = call.session.subscriptions() as i64;
    let mut push = call.host.io().push();
    push.push(3);
    push.bulk(&[prefix, verb.as_bytes()].concat());
    match name {
        Some(name) => push.bulk(name),
        None => push.null(),
    }
    push.int(count);
}

fn subscribe(call: &mut Call<'_>, topic: Topic) -> Result<Done, Fault> {
    for &name in call.args {
        if call.session.topics(topic).insert(name.into()) {
            call.host.subscribe(topic, name);
        }
        confirm(call, "subscribe", topic, Some(name));
    }
    call.session.settle_subscribed(call.host);
    Ok(Done::Silent)
}

fn unsubscribe(call: &mut Call<'_>, topic: Topic) -> Result<Done, Fault> {
    let all: Vec<Box<[u8]>> = match call.args {
        [] => call.session.topics(topic).iter().cloned().collect(),
        names => names.iter().map(|&name| name.into()).collect(),
    };
    for name in &all {
        if call.session.topics(topic).remove(name) {
            call.host.unsubscribe(topic, name);
        }
        confirm(call, "unsubscribe", topic, Some(name));
    }
    if all.is_empty() {
        confirm(call, "unsubscribe", topic, None);
    }
    call.session.settle_subscribed(call.host);
    Ok(Done::Silent)
}

fn channels(call: &mut Call<'_>) -> Result<Done, Fault> {
    let pattern = match call.args {
        [] => b"*",
        [pattern] => *pattern,
        _ => return Err(call.misplaced()),
    };
    let channels = call.host.survey().channels;
    let found = || channels.keys().filter(|channel| matches(pattern, channel, Case::Exact));
    call.reply.array(found().count());
    for channel in found() {
        call.reply.bulk(channel);
    }
    Ok(Done::Answered)
}

fn numsub(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.reply.array(2 * call.args.len());
    let channels = call.host.survey().channels;
    for &channel in call.args {
        let count = channels.get(channel).copied().unwrap_or_default();
        call.reply.bulk(channel);
        call.reply.int(count as i64);
    }
    Ok(Done::Answered)
}

fn numpat(call: &mut Call<'_>) -> Result<Done, Fault> {
    let patterns = call.host.survey().patterns.len();
    call.int(patterns as i64)
}

fn shard(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.reply.array(0);
    Ok(Done::Answered)
}

fn shardnumsub(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.reply.array(2 * call.args.len());
    for channel in call.args {
        call.reply.bulk(channel);
        call.reply.int(0);
    }
    Ok(Done::Answered)
}

/// Writes a message for one subscriber; `pattern` if it listens by one.
pub fn put_message(push: &mut Encoder<'_>, pattern: Option<&[u8]>, channel: &[u8], payload: &[u8]) {
    match pattern {
        None => {
            push.push(3);
            push.bulk(b"message");
        }
        Some(pattern) => {
            push.push(4);
            push.bulk(b"pmessage");
            push.bulk(pattern);
        }
    }
    push.bulk(channel);
    push.bulk(payload);
}
