//! A span: what a node did of a trace, from when to when.

use std::borrow::Cow;

use super::{SpanId, TraceId};

/// What is told of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// A text.
    Text(Cow<'static, str>),
    /// A whole number.
    Whole(i64),
}

/// One request that the node served. Who makes it bounds its texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub own: SpanId,
    /// The span of who asked; none: the trace begins here.
    pub parent: Option<SpanId>,
    /// What it is called among others of its kind.
    pub name: String,
    /// When it began, in nanoseconds since 1970.
    pub start_nanos: u64,
    /// When it ended, likewise.
    pub end_nanos: u64,
    /// What is told of it, by the names of OpenTelemetry's conventions.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// It came to nothing.
    pub failed: bool,
}
