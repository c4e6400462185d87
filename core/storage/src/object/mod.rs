//! Typed values and the table that keeps them.

pub mod body;
pub mod extended;
pub mod glob;
pub mod hash;
pub mod list;
pub mod number;
pub mod set;
pub mod table;
pub mod zset;

use alloc::boxed::Box;
use alloc::vec::Vec;

pub use hash::Hash;
pub use list::List;
pub use set::Set;
pub use zset::Zset;

use crate::store::{Pieces, Typed};

/// A key's value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A string that is a canonical 64-bit integer.
    Int(i64),
    /// A string.
    Bytes(Box<[u8]>),
    /// A string that is being grown or patched in place (`APPEND`, `SETRANGE`, `SETBIT`).
    Buffer(Box<Vec<u8>>),
    /// A list.
    List(Box<List>),
    /// A set.
    Set(Box<Set>),
    /// A hash.
    Hash(Box<Hash>),
    /// A sorted set.
    Zset(Box<Zset>),
    /// Evicted: the engine has the body of this type.
    Evicted(Type),
}

/// The types clients can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// A byte string.
    String,
    /// A list.
    List,
    /// A set.
    Set,
    /// A hash.
    Hash,
    /// A sorted set.
    Zset,
}

impl Type {
    /// Its number in checkpoints. For ever.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Type::String => 1,
            Type::List => 2,
            Type::Set => 3,
            Type::Hash => 4,
            Type::Zset => 5,
        }
    }

    /// The type with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Type> {
        match code {
            1 => Some(Type::String),
            2 => Some(Type::List),
            3 => Some(Type::Set),
            4 => Some(Type::Hash),
            5 => Some(Type::Zset),
            _ => None,
        }
    }

    /// The name `TYPE` answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Type::String => "string",
            Type::List => "list",
            Type::Set => "set",
            Type::Hash => "hash",
            Type::Zset => "zset",
        }
    }
}

impl Value {
    /// The type clients see.
    #[must_use]
    pub fn kind(&self) -> Type {
        match self {
            Value::Int(_) | Value::Bytes(_) | Value::Buffer(_) => Type::String,
            Value::List(_) => Type::List,
            Value::Set(_) => Type::Set,
            Value::Hash(_) => Type::Hash,
            Value::Zset(_) => Type::Zset,
            Value::Evicted(kind) => *kind,
        }
    }

    /// Heap bytes it takes, the entry itself excluded. O(1).
    #[inline]
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Value::Int(_) | Value::Evicted(_) => 0,
            Value::Bytes(bytes) => bytes.len(),
            Value::Buffer(buffer) => size_of::<Vec<u8>>() + buffer.capacity(),
            Value::List(list) => list.memory_bytes(),
            Value::Set(set) => set.memory_bytes(),
            Value::Hash(hash) => hash.memory_bytes(),
            Value::Zset(zset) => zset.memory_bytes(),
        }
    }

    /// In how many pieces it is in memory, about: what it costs to free it. O(1).
    pub(crate) fn pieces(&self) -> usize {
        match self {
            Value::Int(_) | Value::Bytes(_) | Value::Buffer(_) | Value::Evicted(_) => 1,
            Value::List(list) => list.pieces(),
            Value::Set(set) => set.pieces(),
            Value::Hash(hash) => hash.pieces(),
            Value::Zset(zset) => zset.pieces(),
        }
    }

    /// Frees it piece by piece.
    pub(crate) fn into_pieces(self) -> Pieces {
        match self {
            Value::Int(_) | Value::Bytes(_) | Value::Buffer(_) | Value::Evicted(_) => {
                Box::new(core::iter::once(self).map(|value| value.memory_bytes()))
            }
            Value::List(list) => list.into_pieces(),
            Value::Set(set) => set.into_pieces(),
            Value::Hash(hash) => hash.into_pieces(),
            Value::Zset(zset) => zset.into_pieces(),
        }
    }

    /// The value of a string command's argument: canonical integers are kept as such.
    #[inline]
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Value {
        match parse_canonical(bytes) {
            Some(number) => Value::Int(number),
            None => Value::Bytes(Box::from(bytes)),
        }
    }

    /// The bytes of a string, integers written into `scratch`; `None` for other types.
    #[inline]
    #[must_use]
    pub fn string<'a>(&'a self, scratch: &'a mut itoa::Buffer) -> Option<&'a [u8]> {
        match self {
            Value::Int(number) => Some(scratch.format(*number).as_bytes()),
            Value::Bytes(bytes) => Some(bytes),
            Value::Buffer(buffer) => Some(buffer),
            Value::List(_) | Value::Set(_) | Value::Hash(_) | Value::Zset(_) | Value::Evicted(_) => None,
        }
    }
}

macro_rules! typed {
    ($($kind:ident),*) => {$(
        impl Typed for $kind {
            #[inline]
            fn of(value: &Value) -> Option<&Self> {
                if let Value::$kind(inner) = value { Some(inner) } else { None }
            }
            #[inline]
            fn of_mut(value: &mut Value) -> Option<&mut Self> {
                if let Value::$kind(inner) = value { Some(inner) } else { None }
            }
            fn into_value(self) -> Value {
                Value::$kind(Box::new(self))
            }
            #[inline]
            fn memory_bytes(&self) -> usize {
                $kind::memory_bytes(self)
            }
            #[inline]
            fn is_empty(&self) -> bool {
                $kind::is_empty(self)
            }
        }
    )*};
}

typed!(List, Set, Hash, Zset);

/// The integer whose only decimal spelling is `bytes`: no sign but `-`, no leading zeros.
#[inline]
#[must_use]
pub fn parse_canonical(bytes: &[u8]) -> Option<i64> {
    if bytes.is_empty() || bytes.len() > 20 {
        return None;
    }
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    let mut value = 0i64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(digit - b'0');
        value = value.checked_mul(10)?;
        value = if negative { value.checked_sub(digit)? } else { value.checked_add(digit)? };
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_have_one_spelling(value: i64) {
            let text = alloc::format!("{value}");
            prop_assert_eq!(parse_canonical(text.as_bytes()), Some(value));
        }

        #[test]
        fn what_parses_prints_the_same(bytes in "[-+ 0-9]{0,21}") {
            if let Some(value) = parse_canonical(bytes.as_bytes()) {
                prop_assert_eq!(alloc::format!("{value}"), bytes);
            }
        }
    }
}
