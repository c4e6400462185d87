//! Settings that are one text of a grammar of their own, or a list of such texts.

use toml::de::DeValue;

use super::section::{Kind, Setting, Value};
use super::value::quoted;

/// A text that stands for something.
pub trait Item: Sized {
    /// What is allowed, for one and for several.
    const ALLOWED: &'static str;
    /// Most in a list.
    const MAX: usize;
    /// What the text stands for.
    fn read(text: &str) -> Option<Self>;
    /// The text.
    fn show(&self) -> String;
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct One<T>(pub T);

/// Several of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Several<T>(pub Vec<T>);

impl<T> Default for Several<T> {
    fn default() -> Several<T> {
        Several(Vec::new())
    }
}

impl<T: Item> Setting for One<T> {
    fn kind(&mut self) -> Kind<'_> {
        Kind::Value(self)
    }
}

impl<T: Item> Value for One<T> {
    fn allowed(&self) -> String {
        T::ALLOWED.to_owned()
    }

    fn read(&mut self, value: &DeValue<'_>) -> bool {
        value.as_str().is_some_and(|text| self.parse(text))
    }

    fn parse(&mut self, text: &str) -> bool {
        T::read(text).map(|item| self.0 = item).is_some()
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.0.show()))
    }
}

impl<T: Item> Setting for Several<T> {
    fn kind(&mut self) -> Kind<'_> {
        Kind::Value(self)
    }
}

impl<T: Item> Several<T> {
    fn take<'a>(&mut self, texts: impl Iterator<Item = Option<&'a str>>) -> bool {
        let read: Option<Vec<T>> = texts.take(T::MAX + 1).map(|text| T::read(text?)).collect();
        let fits = read.filter(|items| items.len() <= T::MAX);
        fits.map(|items| self.0 = items).is_some()
    }
}

impl<T: Item> Value for Several<T> {
    fn allowed(&self) -> String {
        format!("a list of at most {} texts, each {}", T::MAX, T::ALLOWED)
    }

    fn read(&mut self, value: &DeValue<'_>) -> bool {
        match value.as_array() {
            Some(items) => self.take(items.iter().map(|item| item.get_ref().as_str())),
            None => value.as_str().is_some_and(|text| self.take([Some(text)].into_iter())),
        }
    }

    fn parse(&mut self, text: &str) -> bool {
        let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        self.take(texts.map(Some))
    }

    fn show(&self) -> Option<String> {
        let texts = self.0.iter().map(|item| toml::Value::String(item.show()));
        Some(toml::Value::Array(texts.collect()).to_string())
    }
}
