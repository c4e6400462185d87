//! What a collector is sent: requests of OTLP 1.x as JSON, by the mapping of proto3 with OTLP's own rules for it: numbers of 64
//! bits are text, enumerations are numbers, ids are hexadecimal, absent fields are left out.

mod json;
mod metrics;
mod traces;

pub use metrics::metrics;
pub use traces::traces;

/// A request's body, and how many spans or points it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// JSON.
    pub body: String,
    /// Spans, or points of metrics.
    pub count: u64,
}

/// Who tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `service.name`.
    pub service: String,
    /// `service.instance.id`: which of those.
    pub instance: String,
    /// `service.version`.
    pub version: String,
}

impl Resource {
    /// Writes the request `whole` with what `all` writes in one scope, called `each`.
    fn write(&self, [whole, scopes, each]: [&str; 3], out: &mut String, all: impl FnOnce(&mut String)) {
        let attributes = [
            ("service.name", &self.service),
            ("service.instance.id", &self.instance),
            ("service.version", &self.version),
        ];
        out.push_str(&format!("{{\"{whole}\":[{{\"resource\":{{\"attributes\":"));
        json::list(attributes, out, |(name, value), out| json::text_attribute(name, value, out));
        out.push_str(&format!("}},\"{scopes}\":[{{\"scope\":{{\"name\":"));
        json::text(&self.service, out);
        out.push_str(",\"version\":");
        json::text(&self.version, out);
        out.push_str(&format!("}},\"{each}\":"));
        all(out);
        out.push_str("}]}]}");
    }
}

#[cfg(test)]
fn resource() -> Resource {
    Resource { service: "archipel".into(), instance: "a\"b".into(), version: "1.2".into() }
}
