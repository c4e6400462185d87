//! Servers of DNS that are asked, as a setting.

use std::net::{IpAddr, SocketAddr};

use toml::de::DeValue;

use super::section::{Kind, Setting, Value};

/// Most servers.
const RECURSORS_MAX: usize = 4;
/// Where they are unless it is said otherwise.
const PORT: u16 = 53;

/// Servers of DNS, in the order in which they are asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recursors(Vec<SocketAddr>);

impl Recursors {
    /// Themselves.
    #[must_use]
    pub fn get(&self) -> &[SocketAddr] {
        &self.0
    }

    fn take<'a>(&mut self, texts: impl Iterator<Item = Option<&'a str>>) -> bool {
        let one = |text: &str| {
            let alone = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, PORT));
            let place = text.parse().ok().or_else(alone)?;
            Some(place).filter(|place: &SocketAddr| place.port() != 0 && !place.ip().is_unspecified())
        };
        let read: Option<Vec<SocketAddr>> =
            texts.take(RECURSORS_MAX + 1).map(|text| text.and_then(one)).collect();
        let fits = read.filter(|places| places.len() <= RECURSORS_MAX);
        fits.map(|places| self.0 = places).is_some()
    }
}

impl Setting for Recursors {
    fn kind(&mut self) -> Kind<'_> {
        Kind::Value(self)
    }
}

impl Value for Recursors {
    fn allowed(&self) -> String {
        format!(
            "at most {RECURSORS_MAX} addresses such as [\"192.0.2.1\", \"[2001:db8::1]:5353\"]; in a variable or flag they \
             have commas between them"
        )
    }

    fn read(&mut self, value: &DeValue<'_>) -> bool {
        value.as_array().is_some_and(|items| self.take(items.iter().map(|item| item.get_ref().as_str())))
    }

    fn parse(&mut self, text: &str) -> bool {
        let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        self.take(texts.map(Some))
    }

    fn show(&self) -> Option<String> {
        let places = self.0.iter().map(|place| toml::Value::String(place.to_string()));
        Some(toml::Value::Array(places.collect()).to_string())
    }
}
