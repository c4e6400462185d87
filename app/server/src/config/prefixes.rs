//! What is allowed of names by their prefixes.

use super::items::Item;
use super::section::Value;
use super::value::Access;

/// `web- read`: a prefix, and what is allowed of names that begin with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefixed {
    /// The prefix.
    pub prefix: String,
    /// What is allowed.
    pub access: Access,
}

impl Item for Prefixed {
    const ALLOWED: &'static str = "a prefix and what is allowed of names that begin with it (none, read, write), such as \"web- read\" or \"app/ write\"";
    const MAX: usize = 64;

    fn read(text: &str) -> Option<Prefixed> {
        let (prefix, word) = text.rsplit_once(' ')?;
        let mut access = Access::None;
        let prefix = prefix.trim_end().to_owned();
        access.parse(word).then_some(Prefixed { prefix, access })
    }

    fn show(&self) -> String {
        format!("{} {}", self.prefix, self.access.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_stands_before_what_is_allowed() {
        #[rustfmt::skip] // columns
        let table = [
            ("web- read",        Some(("web-", Access::Read))),
            ("a b/ write",       Some(("a b/", Access::Write))),
            ("a/  none",         Some(("a/", Access::None))),
            (" read",            Some(("", Access::Read))),
            ("web-",             None),
            ("read",             None),
            ("web- all",         None),
            ("web- read ",       None),
            ("",                 None),
        ];
        for (text, expected) in table {
            let read = Prefixed::read(text);
            let found = read.as_ref().map(|it| (it.prefix.as_str(), it.access));
            assert_eq!(found, expected, "{text:?}");
            assert!(read.is_none_or(|it| Prefixed::read(&it.show()) == Some(it)), "{text:?}");
        }
    }
}
