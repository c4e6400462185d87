//! `filter=`: the common expressions of Consul's filters, on the JSON that is answered.
//!
//! `Selector == "value"`, `!=`, `"value" in Selector`, `not in`, `Selector contains "value"`, `not contains`, `is empty`,
//! `is not empty`, with `and`, `or`, `not` and parentheses. Not offered: `matches`, which needs regular expressions.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::json::Json;

/// Longest expression, in bytes.
pub const FILTER_BYTES_MAX: usize = 4096;
/// How deep parts lie in each other, at most.
const DEPTH_MAX: usize = 32;

/// Which of the answered things are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Expression);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression {
    Both(Box<Expression>, Box<Expression>),
    Either(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    Equal(Vec<String>, String),
    Has(Vec<String>, String),
    Empty(Vec<String>),
}

/// Why there is no such filter, for people.
pub type Reason = &'static str;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Open,
    Close,
    Equal,
    Unequal,
    Plain(Vec<String>),
    Quoted(String),
}

impl Filter {
    /// From its text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Filter, Reason> {
        if text.len() > FILTER_BYTES_MAX {
            return Err("the filter is too long");
        }
        let words = words(text)?;
        let mut parser = Parser { words: &words };
        let expression = parser.either(0)?;
        if parser.words.is_empty() {
            Ok(Filter(expression))
        } else {
            Err("the filter goes on behind its end")
        }
    }

    /// Whether `value` is wanted.
    #[must_use]
    pub fn wants(&self, value: &Json) -> bool {
        self.0.holds(value)
    }
}

/// What is under a path, by exact keys and without regard to case after that.
fn find<'a>(value: &'a Json, path: &[String]) -> Option<&'a Json> {
    path.iter().try_fold(value, |value, key| value.exactly(key).or_else(|| value.get(key)))
}

fn is_text(value: &Json, text: &str) -> bool {
    match value {
        Json::Text(it) => it == text,
        Json::Int(number) => text.parse() == Ok(*number),
        Json::Bool(it) => text.parse() == Ok(*it),
        Json::Float(it) => it == text,
        Json::Null | Json::List(_) | Json::Object(_) => false,
    }
}

impl Expression {
    fn holds(&self, value: &Json) -> bool {
        match self {
            Expression::Both(left, right) => left.holds(value) && right.holds(value),
            Expression::Either(left, right) => left.holds(value) || right.holds(value),
            Expression::Not(inner) => !inner.holds(value),
            // What is not there is equal to nothing.
            Expression::Equal(path, text) => find(value, path).is_some_and(|it| is_text(it, text)),
            Expression::Has(path, text) => match find(value, path) {
                Some(Json::List(list)) => list.iter().any(|it| is_text(it, text)),
                Some(Json::Object(pairs)) => pairs.iter().any(|(key, _)| key == text),
                Some(Json::Text(it)) => it.contains(text.as_str()),
                Some(_) | None => false,
            },
            Expression::Empty(path) => match find(value, path) {
                Some(Json::List(list)) => list.is_empty(),
                Some(Json::Object(pairs)) => pairs.is_empty(),
                Some(Json::Text(text)) => text.is_empty(),
                Some(Json::Null) | None => true,
                Some(Json::Bool(_) | Json::Int(_) | Json::Float(_)) => false,
            },
        }
    }
}

fn words(text: &str) -> Result<Vec<Word>, Reason> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, taken) = match first {
            '(' => (Word::Open, 1),
            ')' => (Word::Close, 1),
            '=' if rest.starts_with("==") => (Word::Equal, 2),
            '!' if rest.starts_with("!=") => (Word::Unequal, 2),
            '"' | '`' => quoted(rest, first)?,
            _ => selector(rest)?,
        };
        words.push(word);
        rest = rest[taken..].trim_start();
    }
    Ok(words)
}

fn quoted(text: &str, mark: char) -> Result<(Word, usize), Reason> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == mark => return Ok((Word::Quoted(value), at + 1)),
            '\\' if mark == '"' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    Err("a quoted value of the filter has no end")
}

/// `Service.Meta.version`, `Meta["a key"]`, or a plain value.
fn selector(text: &str) -> Result<(Word, usize), Reason> {
    let (mut path, mut part, mut at) = (Vec::new(), String::new(), 0);
    while let Some(c) = text[at..].chars().next() {
        match c {
            '.' => {
                path.push(core::mem::take(&mut part));
                at += 1;
            }
            '[' => {
                path.push(core::mem::take(&mut part));
                let inner = text[at + 1..].trim_start();
                let skipped = text.len() - inner.len();
                let (Word::Quoted(key), taken) = quoted(inner, '"')? else {
                    return Err("a key in brackets is quoted");
                };
                at = skipped + taken;
                if !text[at..].starts_with(']') || !inner.starts_with('"') {
                    return Err("a key in brackets is quoted and ends with `]`");
                }
                at += 1;
                part = key;
            }
            c if c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | ':') => {
                part.push(c);
                at += c.len_utf8();
            }
            _ => break,
        }
    }
    if at == 0 {
        return Err("the filter has a character that belongs nowhere");
    }
    path.push(part);
    Ok((Word::Plain(path), at))
}

struct Parser<'a> {
    words: &'a [Word],
}

impl Parser<'_> {
    fn take(&mut self) -> Option<&Word> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn is_next(&self, word: &str) -> bool {
        matches!(self.words.first(), Some(Word::Plain(path)) if path.len() == 1 && path[0] == word)
    }

    fn skip(&mut self, word: &str) -> bool {
        let is_next = self.is_next(word);
        if is_next {
            self.take();
        }
        is_next
    }

    fn either(&mut self, depth: usize) -> Result<Expression, Reason> {
        let mut left = self.both(depth)?;
        while self.skip("or") {
            left = Expression::Either(Box::new(left), Box::new(self.both(depth)?));
        }
        Ok(left)
    }

    fn both(&mut self, depth: usize) -> Result<Expression, Reason> {
        let mut left = self.one(depth)?;
        while self.skip("and") {
            left = Expression::Both(Box::new(left), Box::new(self.one(depth)?));
        }
        Ok(left)
    }

    fn one(&mut self, depth: usize) -> Result<Expression, Reason> {
        if depth >= DEPTH_MAX {
            return Err("the filter is too deep");
        }
        if self.skip("not") {
            return Ok(Expression::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.words.first() == Some(&Word::Open) {
            self.take();
            let inner = self.either(depth + 1)?;
            return if self.take() == Some(&Word::Close) {
                Ok(inner)
            } else {
                Err("a `)` of the filter is missing")
            };
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expression, Reason> {
        let first = self.take().cloned().ok_or("the filter ends too early")?;
        let is_quoted = matches!(first, Word::Quoted(_));
        if is_quoted || self.is_next("in") || (self.is_next("not") && self.is_second("in")) {
            let value = value(first)?;
            let is_not = self.skip("not");
            if !self.skip("in") {
                return Err("behind a value comes `in` or `not in`");
            }
            let has = Expression::Has(self.path()?, value);
            return Ok(if is_not { Expression::Not(Box::new(has)) } else { has });
        }
        let Word::Plain(path) = first else { return Err("a comparison begins with a selector") };
        if self.skip("is") {
            let is_not = self.skip("not");
            if !self.skip("empty") {
                return Err("behind `is` comes `empty` or `not empty`");
            }
            let empty = Expression::Empty(path);
            return Ok(if is_not { Expression::Not(Box::new(empty)) } else { empty });
        }
        let is_not = self.skip("not");
        if self.skip("contains") {
            let has = Expression::Has(path, self.value()?);
            return Ok(if is_not { Expression::Not(Box::new(has)) } else { has });
        }
        match self.take().cloned() {
            Some(Word::Equal) if !is_not => Ok(Expression::Equal(path, self.value()?)),
            Some(Word::Unequal) if !is_not => {
                Ok(Expression::Not(Box::new(Expression::Equal(path, self.value()?))))
            }
            Some(Word::Plain(word)) if word == ["matches".to_string()] => {
                Err("`matches` is not offered in filters")
            }
            Some(_) | None => Err("a selector is compared with ==, !=, in, contains or is empty"),
        }
    }

    fn is_second(&self, word: &str) -> bool {
        matches!(self.words.get(1), Some(Word::Plain(path)) if path.len() == 1 && path[0] == word)
    }

    fn path(&mut self) -> Result<Vec<String>, Reason> {
        match self.take() {
            Some(Word::Plain(path)) => Ok(path.clone()),
            Some(_) | None => Err("a selector is missing"),
        }
    }

    fn value(&mut self) -> Result<String, Reason> {
        self.take().cloned().ok_or("a value is missing").and_then(value)
    }
}

fn value(word: Word) -> Result<String, Reason> {
    match word {
        Word::Quoted(text) => Ok(text),
        Word::Plain(path) => Ok(path.join(".")),
        Word::Open | Word::Close | Word::Equal | Word::Unequal => Err("a value is missing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_what_the_expression_says() {
        let text = br#"{"Node":{"Node":"n1","Meta":{"a key":"v"}},"Service":{"Service":"web","Port":80,"Tags":["v1","blue"],"Meta":{}}}"#;
        let value = Json::parse(text).unwrap();
        #[rustfmt::skip] // columns
        let table = [
            (r#"Service.Service == "web""#,                         true),
            (r#"Service.Service == web"#,                           true),
            (r#"Service.Service != web"#,                           false),
            (r#"Service.Port == 80"#,                               true),
            (r#""v1" in Service.Tags"#,                             true),
            (r#"v2 in Service.Tags"#,                               false),
            (r#"v2 not in Service.Tags"#,                           true),
            (r#"Service.Tags contains "blue""#,                     true),
            (r#"Service.Tags not contains "blue""#,                 false),
            (r#"Service.Meta is empty"#,                            true),
            (r#"Service.Tags is not empty"#,                        true),
            (r#"Node.Meta["a key"] == v"#,                          true),
            (r#"Node.Meta contains "a key""#,                       true),
            (r#"Node.Meta.missing == v"#,                           false),
            (r#"Node.Meta.missing != v"#,                           true),
            (r#"Service.Port == 1 or Service.Port == 80"#,          true),
            (r#"Service.Port == 1 or Service.Port == 2 and v1 in Service.Tags"#, false),
            (r#"(Service.Port == 80 or Service.Port == 2) and not (v2 in Service.Tags)"#, true),
            (r#"not Service.Port == 80"#,                           false),
        ];
        for (text, expected) in table {
            assert_eq!(Filter::parse(text).map(|filter| filter.wants(&value)), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let deep = "(".repeat(DEPTH_MAX + 1);
        let long = "a".repeat(FILTER_BYTES_MAX + 1);
        for text in [
            "",
            "a",
            "a ==",
            "== b",
            "a == b c",
            "(a == b",
            "\"a",
            "a matches \"x\"",
            "a is b",
            "{",
            "a[b] == c",
            &deep,
            &long,
        ] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
    }
}
