//! Members as people name them: by a beginning of their id.

use serde_json::Value;
use thiserror::Error;

/// What the id of every Ed25519 key begins with.
const COMMON: &str = "12D3KooW";
/// Letters that tell members apart in tables.
const SHORT_LETTERS: usize = 6;

/// Why text names no member.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MemberError {
    /// None begins so.
    #[error("no member's id begins with {0:?}; `archipel cluster members` prints them")]
    Unknown(String),
    /// Several do.
    #[error("the ids of {1} members begin with {0:?}; give more of it")]
    Ambiguous(String, usize),
}

/// The id of the one member whose id begins with `text`.
pub fn find(status: &Value, text: &str) -> Result<String, MemberError> {
    let wanted = text.strip_prefix(COMMON).unwrap_or(text);
    let ids = status["members"].as_array().into_iter().flatten().filter_map(|one| one["node"].as_str());
    let found: Vec<&str> =
        ids.filter(|id| id.strip_prefix(COMMON).unwrap_or(id).starts_with(wanted)).collect();
    match found[..] {
        [one] if !wanted.is_empty() => Ok(one.to_owned()),
        [] => Err(MemberError::Unknown(text.to_owned())),
        [..] => Err(MemberError::Ambiguous(text.to_owned(), found.len())),
    }
}

/// What tells a member apart in a table: [`find`] takes it back.
pub fn short(id: &str) -> &str {
    let rest = id.strip_prefix(COMMON).unwrap_or(id);
    rest.get(..SHORT_LETTERS).unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_named_by_any_beginning_that_is_its_own() {
        let ids = ["12D3KooWAbcdefgh", "12D3KooWAbxyzuvw", "12D3KooWQrstuvwx"];
        let members: Vec<Value> = ids.iter().map(|id| serde_json::json!({"node": id})).collect();
        let status = serde_json::json!({"members": members});
        let unknown = |text: &str| Err(MemberError::Unknown(text.to_owned()));
        let ambiguous = |text: &str, count| Err(MemberError::Ambiguous(text.to_owned(), count));
        let table = [
            ("12D3KooWQ", Ok(ids[2].to_owned())),
            ("Q", Ok(ids[2].to_owned())),
            ("Abx", Ok(ids[1].to_owned())),
            (short(ids[0]), Ok(ids[0].to_owned())),
            ("Ab", ambiguous("Ab", 2)),
            ("12D3KooW", ambiguous("12D3KooW", 3)),
            ("", ambiguous("", 3)),
            ("bc", unknown("bc")),
        ];
        for (text, expected) in table {
            assert_eq!(find(&status, text), expected, "{text:?}");
        }
    }
}
