//! Settings with several of one kind: addresses of the overlay's peers, and the peers themselves.

use std::fmt::Display;
use std::str::FromStr;

use fabric::overlay::{Peer, Place};
use toml::de::DeValue;

use super::section::{Kind, Setting, Value};

/// What a setting may have several of.
pub trait Item: FromStr + Display + Clone {
    /// Most of one setting.
    const MOST: usize;
    /// What they are, and one of them.
    const EXAMPLE: &'static str;
}

impl Item for Place {
    const MOST: usize = 64;
    const EXAMPLE: &'static str = "addresses such as [\"/ip4/192.0.2.1/tcp/7402/p2p/12D3KooW…\"]";
}

impl Item for Peer {
    const MOST: usize = 1024;
    const EXAMPLE: &'static str = "peers such as [\"12D3KooW…\"]";
}

/// Several of one kind, at most [`Item::MOST`].
#[derive(Clone, Debug, PartialEq)]
pub struct Several<T>(Vec<T>);

/// Where peers of the overlay are, each as `/ip4/…/tcp/…`, perhaps with `/p2p/ID` behind it.
pub type Places = Several<Place>;

/// Peers of the overlay, each by its id.
pub type Peers = Several<Peer>;

impl<T> Default for Several<T> {
    fn default() -> Several<T> {
        Several(Vec::new())
    }
}

impl<T: Item> Several<T> {
    /// Themselves.
    #[must_use]
    pub fn get(&self) -> &[T] {
        &self.0
    }

    fn take<'a>(&mut self, texts: impl Iterator<Item = Option<&'a str>>) -> bool {
        let read: Option<Vec<T>> = texts.take(T::MOST + 1).map(|text| text?.parse().ok()).collect();
        let fits = read.filter(|items| items.len() <= T::MOST);
        fits.map(|items| self.0 = items).is_some()
    }
}

impl<T: Item> Setting for Several<T> {
    fn kind(&mut self) -> Kind<'_> {
        Kind::Value(self)
    }
}

impl<T: Item> Value for Several<T> {
    fn allowed(&self) -> String {
        format!("at most {} {}; in a variable or flag they have commas between them", T::MOST, T::EXAMPLE)
    }

    fn read(&mut self, value: &DeValue<'_>) -> bool {
        value.as_array().is_some_and(|items| self.take(items.iter().map(|item| item.get_ref().as_str())))
    }

    fn parse(&mut self, text: &str) -> bool {
        let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        self.take(texts.map(Some))
    }

    fn show(&self) -> Option<String> {
        let items = self.0.iter().map(|item| toml::Value::String(item.to_string()));
        Some(toml::Value::Array(items.collect()).to_string())
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
        let many = vec!["/ip4/192.0.2.1/tcp/1"; Place::MOST + 1].join(",");
        for text in ["192.0.2.1:1", "/ip4/192.0.2.1/tcp/1,x", many.as_str()] {
            assert!(!places.parse(text), "{text}");
        }
        assert_eq!(places.get().len(), 2);
        assert!(places.parse(""));
        assert_eq!(places.get(), []);
    }
}
