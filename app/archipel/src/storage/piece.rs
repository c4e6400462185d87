//! A key, or a part of one, on its way between servers and files; and its form as a line of JSON.
//!
//! A large collection travels in parts, each with the number it has in order; part 0 begins the key anew.

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// The types that travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One byte string.
    String,
    /// Byte strings in order.
    List,
    /// Different byte strings.
    Set,
    /// Pairs of field and value.
    Hash,
    /// Pairs of member and score.
    Zset,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::String, Kind::List, Kind::Set, Kind::Hash, Kind::Zset];

    /// As `TYPE` says it.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::Hash => "hash",
            Kind::Zset => "zset",
        }
    }

    /// From what `TYPE` says.
    pub fn from_word(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Whether elements come in pairs.
    pub const fn is_paired(self) -> bool {
        matches!(self, Kind::Hash | Kind::Zset)
    }
}

/// A key or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The keyspace.
    pub db: u16,
    /// The key.
    pub key: Vec<u8>,
    /// Its type.
    pub kind: Kind,
    /// Which part it is.
    pub part: u64,
    /// When the key expires, in milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
    /// One string; or elements; or the halves of pairs, one after the other.
    pub elements: Vec<Vec<u8>>,
}

impl Piece {
    /// Its line, without the line's end.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("db".into(), self.db.into());
        object.insert("key".into(), bytes(&self.key));
        object.insert("type".into(), self.kind.word().into());
        if self.part > 0 {
            object.insert("part".into(), self.part.into());
        }
        if let Some(at) = self.expires_at_ms {
            object.insert("expires_at_ms".into(), at.into());
        }
        object.insert("value".into(), self.value());
        Value::Object(object)
    }

    /// The elements as JSON: text, a list of texts, or a list of pairs.
    pub fn value(&self) -> Value {
        let elements = || self.elements.iter().map(|element| bytes(element));
        match self.kind {
            Kind::String => elements().next().unwrap_or(Value::Null),
            Kind::List | Kind::Set => elements().collect(),
            Kind::Hash | Kind::Zset => self
                .elements
                .chunks(2)
                .map(|pair| pair.iter().map(|half| bytes(half)).collect::<Value>())
                .collect(),
        }
    }

    /// Reads a line.
    pub fn from_json(line: &str) -> Result<Piece> {
        let value: Value = serde_json::from_str(line).context("this is not JSON")?;
        let Value::Object(object) = value else { bail!("this is not a JSON object") };
        let known = ["db", "key", "type", "part", "expires_at_ms", "value"];
        if let Some(name) = object.keys().find(|name| !known.contains(&name.as_str())) {
            bail!("`{name}` is unknown; known are {}", known.join(", "));
        }
        let field = |name: &str| object.get(name).with_context(|| format!("`{name}` is missing"));
        let number = |name: &str| match object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_u64().map(Some).with_context(|| format!("`{name}` is not a number")),
        };
        let word = field("type")?.as_str().context("`type` is not text")?;
        let kind = Kind::from_word(word).with_context(|| {
            format!("the type `{word}` is not offered; offered are string, list, set, hash and zset")
        })?;
        Ok(Piece {
            db: number("db")?.unwrap_or(0).try_into().context("`db` is too large")?,
            key: unbytes(field("key")?).context("`key`")?,
            kind,
            part: number("part")?.unwrap_or(0),
            expires_at_ms: number("expires_at_ms")?,
            elements: elements(kind, field("value")?).context("`value`")?,
        })
    }
}

fn elements(kind: Kind, value: &Value) -> Result<Vec<Vec<u8>>> {
    if kind == Kind::String {
        return Ok(vec![unbytes(value)?]);
    }
    let items = value.as_array().context("a list is needed")?;
    if items.is_empty() {
        bail!("it is empty; a key without elements does not exist");
    }
    if !kind.is_paired() {
        return items.iter().map(unbytes).collect();
    }
    let mut halves = Vec::with_capacity(2 * items.len());
    for item in items {
        match item.as_array().map(Vec::as_slice) {
            Some([first, second]) => halves.extend([unbytes(first)?, unbytes(second)?]),
            Some(_) | None => bail!("a list of pairs is needed"),
        }
    }
    Ok(halves)
}

/// Text as text; what is not UTF-8 as `{"base64": …}`.
pub fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

fn unbytes(value: &Value) -> Result<Vec<u8>> {
    if let Some(text) = value.as_str() {
        return Ok(text.as_bytes().to_vec());
    }
    let encoded =
        value.as_object().filter(|object| object.len() == 1).and_then(|object| object.get("base64"));
    let text = encoded.and_then(Value::as_str).context("text or {\"base64\": text} is needed")?;
    STANDARD.decode(text).context("this is not base64")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(kind: Kind, elements: &[&[u8]]) -> Piece {
        let elements = elements.iter().map(|element| element.to_vec()).collect();
        Piece { db: 3, key: b"k\xff".to_vec(), kind, part: 2, expires_at_ms: Some(9), elements }
    }

    #[test]
    fn every_type_survives_the_way_into_a_line_and_back() {
        #[rustfmt::skip] // columns
        let table = [
            piece(Kind::String, &[b"text"]),
            piece(Kind::String, &[b"\x00\xff"]),
            piece(Kind::String, &[b""]),
            piece(Kind::List,   &[b"a", b"a", b"\xfe"]),
            piece(Kind::Set,    &[b"a"]),
            piece(Kind::Hash,   &[b"f", b"\xff", b"g", b"v"]),
            piece(Kind::Zset,   &[b"m", b"-inf", b"n", b"1.5"]),
        ];
        for piece in table {
            let line = piece.to_json().to_string();
            assert_eq!(Piece::from_json(&line).unwrap(), piece, "{line}");
        }
    }

    #[test]
    fn wrong_lines_are_refused_with_the_reason() {
        #[rustfmt::skip] // columns
        let table = [
            ("x",                                                    "not JSON"),
            ("[]",                                                   "not a JSON object"),
            (r#"{"key":"k","type":"string"}"#,                       "`value` is missing"),
            (r#"{"key":"k","type":"stream","value":[]}"#,            "`stream` is not offered"),
            (r#"{"key":"k","type":"list","value":[]}"#,              "empty"),
            (r#"{"key":"k","type":"list","value":"a"}"#,             "a list is needed"),
            (r#"{"key":"k","type":"hash","value":["a"]}"#,           "pairs"),
            (r#"{"key":"k","type":"string","value":1}"#,             "base64"),
            (r#"{"key":"k","type":"string","value":{"base64":"?"}}"#,"not base64"),
            (r#"{"key":"k","type":"string","value":"","ttl":1}"#,    "`ttl` is unknown"),
            (r#"{"db":70000,"key":"k","type":"string","value":""}"#, "`db` is too large"),
        ];
        for (line, reason) in table {
            let error = format!("{:#}", Piece::from_json(line).unwrap_err());
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
