//! Spans as an `ExportTraceServiceRequest`.

use super::{Export, Resource, json};
use crate::trace::{Attribute, Span};

/// `SPAN_KIND_SERVER`.
const SERVER: u32 = 2;
/// `STATUS_CODE_ERROR`.
const ERROR: u32 = 2;
/// The trace is sampled, and whether the parent was elsewhere is known.
const FLAGS: u32 = 0x101;
/// The parent was elsewhere.
const REMOTE: u32 = 0x200;

/// The request that sends these spans.
#[must_use]
pub fn traces(spans: &[Span], resource: &Resource) -> Export {
    let mut body = String::new();
    resource.write(["resourceSpans", "scopeSpans", "spans"], &mut body, |out| json::list(spans, out, span));
    Export { body, count: spans.len() as u64 }
}

fn span(span: &Span, out: &mut String) {
    let Span { trace, own, start_nanos, end_nanos, .. } = span;
    out.push_str(&format!("{{\"traceId\":\"{trace}\",\"spanId\":\"{own}\","));
    if let Some(parent) = span.parent {
        out.push_str(&format!("\"parentSpanId\":\"{parent}\","));
    }
    let flags = if span.parent.is_some() { FLAGS | REMOTE } else { FLAGS };
    out.push_str(&format!("\"flags\":{flags},\"kind\":{SERVER},\"name\":"));
    json::text(&span.name, out);
    out.push_str(&format!(",\"startTimeUnixNano\":\"{start_nanos}\",\"endTimeUnixNano\":\"{end_nanos}\""));
    out.push_str(",\"attributes\":");
    json::list(&span.attributes, out, |(name, value), out| match value {
        Attribute::Text(text) => json::text_attribute(name, text, out),
        Attribute::Whole(n) => json::whole_attribute(name, *n, out),
    });
    if span.failed {
        out.push_str(&format!(",\"status\":{{\"code\":{ERROR}}}"));
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::otlp::resource;
    use crate::trace::{SpanId, TraceId};

    #[test]
    fn spans_are_told_in_hexadecimal_with_numbers_of_64_bits_as_text() {
        let child = Span {
            trace: TraceId::new(*b"0123456789abcdef").unwrap(),
            own: SpanId::new([0, 1, 2, 3, 4, 5, 6, 0xFF]).unwrap(),
            parent: SpanId::new([0x10; 8]),
            name: "GET a\"".into(),
            start_nanos: 1_700_000_000_000_001_000,
            end_nanos: u64::MAX,
            attributes: vec![
                ("url.path", Attribute::Text("/\\".into())),
                ("http.response.status_code", Attribute::Whole(503)),
            ],
            failed: true,
        };
        let root = Span { parent: None, failed: false, attributes: Vec::new(), ..child.clone() };
        let Export { body, count } = traces(&[child, root], &resource());
        let whole: Json = serde_json::from_str(&body).unwrap();
        let expected = json!({
            "traceId": "30313233343536373839616263646566",
            "spanId": "00010203040506ff",
            "parentSpanId": "1010101010101010",
            "flags": 0x301,
            "kind": 2,
            "name": "GET a\"",
            "startTimeUnixNano": "1700000000000001000",
            "endTimeUnixNano": "18446744073709551615",
            "attributes": [
                { "key": "url.path", "value": { "stringValue": "/\\" } },
                { "key": "http.response.status_code", "value": { "intValue": "503" } },
            ],
            "status": { "code": 2 },
        });
        let scope = &whole["resourceSpans"][0]["scopeSpans"][0];
        assert_eq!((&scope["scope"]["name"], &scope["spans"][0]), (&json!("archipel"), &expected));
        let root = &scope["spans"][1];
        assert_eq!(
            (root.get("parentSpanId"), root.get("status"), &root["flags"]),
            (None, None, &json!(0x101))
        );
        assert_eq!(whole["resourceSpans"][0]["resource"]["attributes"].as_array().map(Vec::len), Some(3));
        assert_eq!(count, 2);
    }
}
