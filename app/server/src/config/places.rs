//! Addresses of overlay peers, as a setting.

use fabric::overlay::{Peer, Place};
use toml::de::DeValue;

use super::section::{Kind, Setting, Value};

/// Most addresses of one setting.
const PLACES_MAX: usize = 64;

/// Where peers of the overlay are, each as `/ip4/…/tcp/…`, perhaps with `/p2p/ID` behind it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Places(Vec<Place>);

impl Places {
    /// Themselves.
    #[must_use]
    pub fn get(&self) -> &[Place] {
        &self.0
    }

    fn take<'a>(&mut self, texts: impl Iterator<Item = Option<&'a str>>) -> bool {
        let read: Option<Vec<Place>> = texts.take(PLACES_MAX + 1).map(|text| text?.parse().ok()).collect();
        let fits = read.filter(|places| places.len() <= PLACES_MAX);
        fits.map(|places| self.0 = places).is_some()
    }
}

impl Setting for Places {
    fn kind(&mut self) -> Kind<'_> {
        Kind::Value(self)
    }
}

impl Value for Places {
    fn allowed(&self) -> String {
        format!(
            "at most {PLACES_MAX} addresses such as [\"/ip4/192.0.2.1/tcp/7402/p2p/12D3KooW…\"]; in a variable or \
             flag they have commas between them"
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

/// Most peers of one setting.
const PEERS_MAX: usize = 1024;

/// Peers of the overlay, each by its id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peers(Vec<Peer>);

impl Peers {
    /// Themselves.
    #[must_use]
    pub fn get(&self) -> &[Peer] {
        &self.0
    }

    fn take<'a>(&mut self, texts: impl Iterator<Item = Option<&'a str>>) -> bool {
        let read: Option<Vec<Peer>> = texts.take(PEERS_MAX + 1).map(|text| text?.parse().ok()).collect();
        let fits = read.filter(|peers| peers.len() <= PEERS_MAX);
        fits.map(|peers| self.0 = peers).is_some()
    }
}

impl Setting for Peers {
    fn kind(&mut self) -> Kind<'_> {
        Kind::Value(self)
    }
}

impl Value for Peers {
    fn allowed(&self) -> String {
        format!(
            "at most {PEERS_MAX} peers such as [\"12D3KooW…\"]; in a variable or flag they have commas between them"
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
        let peers = self.0.iter().map(|peer| toml::Value::String(peer.to_string()));
        Some(toml::Value::Array(peers.collect()).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_from_text_and_shown_as_they_stand_in_a_file() {
        let mut places = Places::default();
        assert_eq!(places.show().as_deref(), Some("[]"));
        assert!(places.parse("/ip4/192.0.2.1/tcp/1, /ip6/::1/tcp/2"));
        assert_eq!(places.show().as_deref(), Some("[\"/ip4/192.0.2.1/tcp/1\", \"/ip6/::1/tcp/2\"]"));
        // A refused one leaves what there was.
        let many = vec!["/ip4/192.0.2.1/tcp/1"; PLACES_MAX + 1].join(",");
        for text in ["192.0.2.1:1", "/ip4/192.0.2.1/tcp/1,x", many.as_str()] {
            assert!(!places.parse(text), "{text}");
        }
        assert_eq!(places.get().len(), 2);
        assert!(places.parse(""));
        assert_eq!(places.get(), []);
    }
}
