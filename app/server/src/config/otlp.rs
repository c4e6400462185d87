//! The settings of what is sent to a collector.

use std::fmt;
use std::net::Ipv6Addr;

use toml::de::DeValue;

use super::items::{Item, One};
use super::section::{Kind, Setting, Value, section};
use super::value::{Number, setting};

/// The longest time between two pages of metrics, in milliseconds: a day.
const MS_MAX: u64 = 24 * 3600 * 1000;
/// The port of OTLP over HTTP, where it is not named.
const PORT: u16 = 4318;
/// Header fields that are added.
const FIELDS_MAX: usize = 16;
/// One of them, in bytes; tokens are long.
const FIELD_BYTES_MAX: usize = 8 * 1024;
/// Fields that the exporter writes itself.
const OWN_FIELDS: [&str; 6] =
    ["host", "content-length", "content-type", "transfer-encoding", "connection", "expect"];

section! {
    /// See [`super::Config::otlp`].
    pub struct Otlp {
        /// Where the collector is: below this URL, `/v1/traces` and `/v1/metrics` are asked. Without one nothing is sent, and the
        /// proxy makes no spans.
        endpoint: Option<One<Endpoint>> = None,
        /// How often metrics are sent, in milliseconds: all that `/metrics` has, under the same names.
        interval_ms: Number<100, MS_MAX> = Number::of(15_000),
        /// One of so many requests to the proxy that begin their own trace is recorded. Those that come with a `traceparent`
        /// are recorded as that says. SIGHUP has the node follow a change.
        sample: Number<1, 1_000_000_000> = Number::of(100),
        /// Further fields of the requests to the collector, such as `["authorization: Bearer TOKEN"]`. They are printed nowhere.
        headers: Fields = Fields::default(),
    }
}

/// Where a collector is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address, in brackets if it is one of IPv6.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What the paths begin with: empty, or from a slash on and without one at its end.
    pub prefix: String,
}

impl Default for Endpoint {
    fn default() -> Endpoint {
        Endpoint { host: "127.0.0.1".into(), port: PORT, prefix: String::new() }
    }
}

impl Item for Endpoint {
    const ALLOWED: &'static str = "a URL such as \"http://127.0.0.1:4318\", perhaps with a path, without a user or query; the node \
                                   speaks no TLS with collectors: instead of https run a collector beside the node, which sends on";
    const MAX: usize = 1;

    fn read(text: &str) -> Option<Endpoint> {
        let rest = text.strip_prefix("http://")?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        // An address of IPv6 has colons of its own.
        let named = authority.rfind(':').filter(|&at| !authority[at..].contains(']'));
        let (host, port) = match named {
            Some(at) => (&authority[..at], authority[at + 1..].parse().ok().filter(|&port| port > 0)?),
            None => (authority, PORT),
        };
        let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_host = match in_brackets {
            Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
            None => {
                (1..=253).contains(&host.len())
                    && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            }
        };
        let is_path = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
        (is_host && is_path).then(|| Endpoint {
            host: host.to_owned(),
            port,
            prefix: path.trim_end_matches('/').to_owned(),
        })
    }

    fn show(&self) -> String {
        format!("http://{}:{}{}", self.host, self.port, self.prefix)
    }
}

/// Header fields, each a name and a value. Nobody is shown them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// Themselves.
    #[must_use]
    pub fn expose(&self) -> &[(String, String)] {
        &self.0
    }

    fn take<'a>(&mut self, texts: impl Iterator<Item = Option<&'a str>>) -> bool {
        let read: Option<Vec<_>> = texts.take(FIELDS_MAX + 1).map(|text| field(text?)).collect();
        let fits = read.filter(|fields| fields.len() <= FIELDS_MAX);
        fits.map(|fields| self.0 = fields).is_some()
    }
}

/// The field that a line of a head would have.
fn field(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    let (name, value) = (name.trim(), value.trim());
    let is_ours = OWN_FIELDS.iter().any(|own| name.eq_ignore_ascii_case(own));
    let is_value = !value.is_empty() && value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let fits = text.len() <= FIELD_BYTES_MAX && wire::http1::is_token(name) && is_value && !is_ours;
    fits.then(|| (name.to_ascii_lowercase(), value.to_owned()))
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secret fields", self.0.len())
    }
}

setting!(Fields);

impl Value for Fields {
    fn allowed(&self) -> String {
        format!(
            "a list of at most {FIELDS_MAX} texts such as \"name: value\", of ASCII and each of at most {FIELD_BYTES_MAX} bytes, \
             without those of the request itself ({}); in a variable or flag they have line ends between them",
            OWN_FIELDS.join(", ")
        )
    }

    fn read(&mut self, value: &DeValue<'_>) -> bool {
        value.as_array().is_some_and(|items| self.take(items.iter().map(|item| item.get_ref().as_str())))
    }

    fn parse(&mut self, text: &str) -> bool {
        // Values may have commas.
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        self.take(lines.map(Some))
    }

    fn show(&self) -> Option<String> {
        let items = self.0.iter().map(|(name, value)| toml::Value::String(format!("{name}: {value}")));
        Some(toml::Value::Array(items.collect()).to_string())
    }

    fn is_secret(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_without_tls() {
        #[rustfmt::skip] // columns
        let table = [
            ("http://127.0.0.1:4318",      Some(("127.0.0.1", 4318, ""))),
            ("http://collector",           Some(("collector", 4318, ""))),
            ("http://collector/",          Some(("collector", 4318, ""))),
            ("http://a.b:80/otlp/v2/",     Some(("a.b", 80, "/otlp/v2"))),
            ("http://[::1]:1",             Some(("[::1]", 1, ""))),
            ("http://[::1]",               Some(("[::1]", 4318, ""))),
            ("https://127.0.0.1:4318",     None),
            ("127.0.0.1:4318",             None),
            ("http://",                    None),
            ("http://:4318",               None),
            ("http://a:0",                 None),
            ("http://a:99999",             None),
            ("http://a:x",                 None),
            ("http://u:p@a",               None),
            ("http://[::1",                None),
            ("http://::1",                 None),
            ("http://a?b",                 None),
            ("http://a/?b",                None),
            ("http://a/b#c",               None),
            ("http://a/b c",               None),
            ("http://a/\r\nx: y",          None),
        ];
        for (text, expected) in table {
            let found = Endpoint::read(text);
            let parts = found.as_ref().map(|one| (one.host.as_str(), one.port, one.prefix.as_str()));
            assert_eq!(parts, expected, "{text}");
            if let Some(found) = found {
                assert_eq!(Endpoint::read(&found.show()), Some(found), "{text}");
            }
        }
        assert_eq!(Endpoint::read(&Endpoint::default().show()), Some(Endpoint::default()));
    }

    #[test]
    fn fields_are_taken_whole_or_not_at_all() {
        let mut fields = Fields::default();
        assert!(fields.parse("Authorization: Bearer a,b:c\n x-scope : d "));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let both = [pair("authorization", "Bearer a,b:c"), pair("x-scope", "d")];
        assert_eq!(fields.expose(), both);
        let many = "a: b\n".repeat(FIELDS_MAX + 1);
        for text in
            ["a", "a:", ": b", "a b: c", "Host: a", "content-length: 1", "a: \u{7f}", "a: é", many.as_str()]
        {
            assert!(!fields.parse(text), "{text}");
        }
        assert_eq!(fields.expose(), both, "what is refused changes nothing");
        assert!(!format!("{fields:?}").contains("Bearer"));
        assert!(fields.parse("") && fields.expose().is_empty());
    }
}
