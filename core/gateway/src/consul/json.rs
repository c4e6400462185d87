//! JSON as Consul's clients write and read it (RFC 8259): a small value, bounded in depth.
//!
//! Keys are found without regard to case and underscores, as in Consul, whose clients write `ServiceID`, `service_id` and
//! `serviceid`. Of a key that is there twice the first counts.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

/// How deep values lie in each other, at most.
pub const DEPTH_MAX: usize = 32;
/// Values of one text, at most.
pub const VALUES_MAX: usize = 65_536;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number without fraction.
    Int(i64),
    /// Another number, as it was written.
    Float(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object, in its order.
    Object(Vec<(String, Json)>),
}

/// A text that is no JSON, or too deep or too much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson {
    /// Where it is not, in bytes from the start.
    pub at: usize,
}

impl From<&str> for Json {
    fn from(text: &str) -> Json {
        Json::Text(text.to_string())
    }
}

impl From<&String> for Json {
    fn from(text: &String) -> Json {
        Json::Text(text.clone())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Json {
        Json::Text(text)
    }
}

impl From<bool> for Json {
    fn from(it: bool) -> Json {
        Json::Bool(it)
    }
}

impl From<u64> for Json {
    /// What is beyond the range of other people's integers is cut to it.
    fn from(number: u64) -> Json {
        Json::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Json {
    fn from(number: u32) -> Json {
        Json::Int(number.into())
    }
}

impl From<u16> for Json {
    fn from(number: u16) -> Json {
        Json::Int(number.into())
    }
}

impl From<Vec<Json>> for Json {
    fn from(list: Vec<Json>) -> Json {
        Json::List(list)
    }
}

impl From<&BTreeMap<String, String>> for Json {
    fn from(map: &BTreeMap<String, String>) -> Json {
        Json::Object(map.iter().map(|(key, value)| (key.clone(), value.into())).collect())
    }
}

impl From<&[String]> for Json {
    fn from(texts: &[String]) -> Json {
        Json::List(texts.iter().map(Json::from).collect())
    }
}

/// An object of these keys.
pub fn object<const N: usize>(pairs: [(&str, Json); N]) -> Json {
    Json::Object(pairs.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
}

fn is_same_key(left: &str, right: &str) -> bool {
    let plain =
        |key: &str| -> String { key.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect() };
    left == right || plain(left) == plain(right)
}

impl Json {
    /// What is under `key`, by the looser comparison of keys; not `null`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json> {
        let Json::Object(pairs) = self else { return None };
        let found = pairs.iter().find(|(name, _)| is_same_key(name, key)).map(|(_, value)| value);
        found.filter(|value| **value != Json::Null)
    }

    /// What is under exactly `key`.
    #[must_use]
    pub fn exactly(&self, key: &str) -> Option<&Json> {
        let Json::Object(pairs) = self else { return None };
        pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// A text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        if let Json::Text(text) = self { Some(text) } else { None }
    }

    /// A value from its text.
    ///
    /// # Errors
    /// [`NotJson`]
    pub fn parse(bytes: &[u8]) -> Result<Json, NotJson> {
        let mut parser = Parser { bytes, at: 0, values: 0 };
        let value = parser.value(0)?;
        parser.blank();
        if parser.at == bytes.len() { Ok(value) } else { Err(parser.wrong()) }
    }

    /// Its text, behind what `out` has.
    pub fn write(&self, out: &mut String) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(true) => out.push_str("true"),
            Json::Bool(false) => out.push_str("false"),
            Json::Int(number) => {
                // Writing to a text does not fail.
                let _ = write!(out, "{number}");
            }
            Json::Float(text) => out.push_str(text),
            Json::Text(text) => quote(text, out),
            Json::List(list) => {
                out.push('[');
                for (at, value) in list.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    value.write(out);
                }
                out.push(']');
            }
            Json::Object(pairs) => {
                out.push('{');
                for (at, (key, value)) in pairs.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    quote(key, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // A browser that is shown the text must not read it as a page.
            c if c < ' ' || matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') => {
                // Writing to a text does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    values: usize,
}

impl Parser<'_> {
    const fn wrong(&self) -> NotJson {
        NotJson { at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.wrong())
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, NotJson> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.wrong())
        }
    }

    fn value(&mut self, depth: usize) -> Result<Json, NotJson> {
        self.blank();
        self.values += 1;
        if depth >= DEPTH_MAX || self.values > VALUES_MAX {
            return Err(self.wrong());
        }
        match self.peek() {
            Some(b'n') => self.word("null", Json::Null),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'"') => self.text().map(Json::Text),
            Some(b'[') => self.list(depth),
            Some(b'{') => self.object(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) | None => Err(self.wrong()),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Json, NotJson> {
        self.expect(b'[')?;
        let mut list = Vec::new();
        self.blank();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::List(list));
        }
        loop {
            list.push(self.value(depth + 1)?);
            self.blank();
            match self.peek() {
                Some(b',') => self.at += 1,
                _ => {
                    self.expect(b']')?;
                    return Ok(Json::List(list));
                }
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, NotJson> {
        self.expect(b'{')?;
        let mut pairs = Vec::new();
        self.blank();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(pairs));
        }
        loop {
            self.blank();
            let key = self.text()?;
            self.blank();
            self.expect(b':')?;
            pairs.push((key, self.value(depth + 1)?));
            self.blank();
            match self.peek() {
                Some(b',') => self.at += 1,
                _ => {
                    self.expect(b'}')?;
                    return Ok(Json::Object(pairs));
                }
            }
        }
    }

    fn number(&mut self) -> Result<Json, NotJson> {
        let start = self.at;
        let digits = |parser: &mut Self| {
            let from = parser.at;
            while matches!(parser.peek(), Some(b'0'..=b'9')) {
                parser.at += 1;
            }
            if parser.at > from { Ok(from) } else { Err(parser.wrong()) }
        };
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let first = digits(self)?;
        if self.bytes[first] == b'0' && self.at > first + 1 {
            return Err(self.wrong());
        }
        let mut is_whole = true;
        if self.peek() == Some(b'.') {
            is_whole = false;
            self.at += 1;
            digits(self)?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            is_whole = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            digits(self)?;
        }
        let text = core::str::from_utf8(&self.bytes[start..self.at]).map_err(|_| NotJson { at: start })?;
        let whole = if is_whole { text.parse().ok().map(Json::Int) } else { None };
        Ok(whole.unwrap_or_else(|| Json::Float(text.to_string())))
    }

    fn text(&mut self) -> Result<String, NotJson> {
        self.expect(b'"')?;
        let mut text = String::new();
        loop {
            let start = self.at;
            while !matches!(self.peek(), Some(b'"' | b'\\' | 0..0x20) | None) {
                self.at += 1;
            }
            let plain = &self.bytes[start..self.at];
            text.push_str(core::str::from_utf8(plain).map_err(|_| NotJson { at: start })?);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    let c = self.escape()?;
                    text.push(c);
                }
                Some(_) | None => return Err(self.wrong()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, NotJson> {
        let c = self.peek().ok_or(self.wrong())?;
        self.at += 1;
        Ok(match c {
            b'"' | b'\\' | b'/' => char::from(c),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit()?;
                // Two halves of a pair, or one that stands alone, which is no character.
                let code = if (0xD800..0xDC00).contains(&first) && self.bytes[self.at..].starts_with(b"\\u") {
                    self.at += 2;
                    let second = self.unit()?;
                    if !(0xDC00..0xE000).contains(&second) {
                        return Err(self.wrong());
                    }
                    0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00)
                } else {
                    first
                };
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return Err(self.wrong()),
        })
    }

    fn unit(&mut self) -> Result<u32, NotJson> {
        let wrong = self.wrong();
        let digits = self.bytes.get(self.at..self.at + 4).ok_or(wrong)?;
        let digit = |unit: u32, byte: &u8| char::from(*byte).to_digit(16).map(|digit| unit << 4 | digit);
        let unit = digits.iter().try_fold(0, digit).ok_or(wrong)?;
        self.at += 4;
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::Bool),
            any::<i64>().prop_map(Json::Int),
            any::<String>().prop_map(Json::Text),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::List),
                proptest::collection::vec((any::<String>(), inner), 0..4).prop_map(Json::Object),
            ]
        })
    }

    fn shown(value: &Json) -> String {
        let mut out = String::new();
        value.write(&mut out);
        out
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in values()) {
            prop_assert_eq!(Json::parse(shown(&value).as_bytes()), Ok(value));
        }

        #[test]
        fn no_bytes_break_it(bytes: Vec<u8>) {
            let _ = Json::parse(&bytes);
        }
    }

    #[test]
    fn texts_are_read_as_the_standard_says() {
        #[rustfmt::skip] // columns
        let table = [
            (r#""a\u00e9\n\"\/""#,   Some(Json::from("aé\n\"/"))),
            (r#""\ud83d\ude00""#,    Some(Json::from("😀"))),
            (r#""\ud83d""#,          Some(Json::from("\u{fffd}"))),
            (r#""\ud83d\u0041""#,    None),
            (" [1 , -2.5e3,0] ",     Some(Json::List([Json::Int(1), Json::Float("-2.5e3".into()), Json::Int(0)].into()))),
            ("01",                   None),
            ("1.",                   None),
            ("-",                    None),
            ("[1,]",                 None),
            ("{\"a\":1,}",           None),
            ("{\"a\" 1}",            None),
            ("\"a\nb\"",             None),
            ("nul",                  None),
            ("",                     None),
            ("1 2",                  None),
            ("99999999999999999999", Some(Json::Float("99999999999999999999".into()))),
        ];
        for (text, expected) in table {
            assert_eq!(Json::parse(text.as_bytes()).ok(), expected, "{text}");
        }
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Json::parse(deep(DEPTH_MAX).as_bytes()).is_ok());
        assert!(Json::parse(deep(DEPTH_MAX + 1).as_bytes()).is_err());
        let many = format!("[{}1]", "1,".repeat(VALUES_MAX));
        assert!(Json::parse(many.as_bytes()).is_err());
    }

    #[test]
    fn keys_are_found_without_case_and_underscores_and_null_is_nothing() {
        let value = Json::parse(br#"{"Service_ID": "a", "port": null}"#).unwrap();
        assert_eq!(value.get("ServiceID").and_then(Json::text), Some("a"));
        assert_eq!(value.get("serviceid").and_then(Json::text), Some("a"));
        assert_eq!(value.get("Port"), None);
        assert_eq!(value.exactly("ServiceID"), None);
        assert_eq!(shown(&Json::from("<a>")), "\"\\u003ca\\u003e\"");
    }
}
