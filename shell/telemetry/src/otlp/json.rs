//! JSON as it is written here.

use std::fmt::Write;

use crate::Number;

/// A text between its quotes.
pub(super) fn text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // Text takes what is written to it.
            '\0'..=' ' if c != ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// All items between brackets.
pub(super) fn list<T>(
    items: impl IntoIterator<Item = T>,
    out: &mut String,
    mut each: impl FnMut(T, &mut String),
) {
    out.push('[');
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        each(item, out);
    }
    out.push(']');
}

/// A number that may have a fraction.
pub(super) fn real(x: f64, out: &mut String) {
    out.push_str(&match x {
        x if x.is_nan() => "\"NaN\"".to_owned(),
        x if x.is_infinite() => format!("\"{}Infinity\"", if x < 0.0 { "-" } else { "" }),
        x => x.to_string(),
    });
}

/// A number where one that may have a fraction is asked for.
pub(super) fn number(number: Number, out: &mut String) {
    match number {
        Number::Whole(n) => out.push_str(&n.to_string()),
        Number::Real(x) => real(x, out),
    }
}

/// A pair of a name and a text.
pub(super) fn text_attribute(name: &str, value: &str, out: &mut String) {
    out.push_str("{\"key\":");
    text(name, out);
    out.push_str(",\"value\":{\"stringValue\":");
    text(value, out);
    out.push_str("}}");
}

/// A pair of a name and a whole number.
pub(super) fn whole_attribute(name: &str, value: i64, out: &mut String) {
    out.push_str("{\"key\":");
    text(name, out);
    out.push_str(&format!(",\"value\":{{\"intValue\":\"{value}\"}}}}"));
}
