//! A value in bytes: what checkpoints and `DUMP` hold.
//!
//! One byte of type, then the type's own format. The numbers are final.

use alloc::boxed::Box;
use alloc::vec::Vec;

use kernel::codec::{DecodeError, Reader};
use kernel::hash::KeyHasher;
use kernel::limit::VALUE_BYTES_MAX;

use super::{Hash, List, Set, Type, Value, Zset};

const STRING: u8 = 1;
const LIST: u8 = 2;
const SET: u8 = 3;
const HASH: u8 = 4;
const ZSET: u8 = 5;

impl Value {
    /// Appends the value. An evicted one has no body here, and must be loaded first.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::Int(number) => {
                out.push(STRING);
                out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes());
            }
            Value::Bytes(bytes) => {
                out.push(STRING);
                out.extend_from_slice(bytes);
            }
            Value::Buffer(buffer) => {
                out.push(STRING);
                out.extend_from_slice(buffer);
            }
            Value::List(list) => {
                out.push(LIST);
                list.encode(out);
            }
            Value::Set(set) => {
                out.push(SET);
                set.encode(out);
            }
            Value::Hash(hash) => {
                out.push(HASH);
                hash.encode(out);
            }
            Value::Zset(zset) => {
                out.push(ZSET);
                zset.encode(out);
            }
            Value::Evicted(_) => unreachable!("an evicted value is loaded before it is encoded"),
        }
    }

    /// Reads the whole of `bytes` as [`Value::encode`] wrote them.
    ///
    /// # Errors
    /// The bytes are cut or are not a value; an empty container is none.
    pub fn decode(bytes: &[u8], hasher: &KeyHasher) -> Result<Value, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = match reader.u8()? {
            STRING if bytes.len() <= VALUE_BYTES_MAX + 1 => return Ok(Value::from_bytes(reader.rest())),
            LIST => Value::List(Box::new(List::decode(&mut reader)?)),
            SET => Value::Set(Box::new(Set::decode(&mut reader, hasher)?)),
            HASH => Value::Hash(Box::new(Hash::decode(&mut reader, hasher)?)),
            ZSET => Value::Zset(Box::new(Zset::decode(&mut reader, hasher)?)),
            _ => return Err(DecodeError::Invalid),
        };
        let empty = match &value {
            Value::List(list) => list.is_empty(),
            Value::Set(set) => set.is_empty(),
            Value::Hash(hash) => hash.is_empty(),
            Value::Zset(zset) => zset.is_empty(),
            Value::Int(_) | Value::Bytes(_) | Value::Buffer(_) | Value::Evicted(_) => false,
        };
        if empty || !reader.is_empty() { Err(DecodeError::Invalid) } else { Ok(value) }
    }

    /// The name `OBJECT ENCODING` answers; `None` if evicted.
    #[must_use]
    pub fn encoding(&self) -> Option<&'static str> {
        Some(match self {
            Value::Int(_) => "int",
            Value::Bytes(bytes) if bytes.len() <= EMBSTR_BYTES_MAX => "embstr",
            Value::Bytes(_) | Value::Buffer(_) => "raw",
            Value::List(list) => list.encoding(),
            Value::Set(set) => set.encoding(),
            Value::Hash(hash) => hash.encoding(),
            Value::Zset(zset) => zset.encoding(),
            Value::Evicted(_) => return None,
        })
    }
}

/// Longest string that Redis keeps in one piece with its object.
const EMBSTR_BYTES_MAX: usize = 44;

impl Type {
    /// The type of the value in `body`.
    #[must_use]
    pub fn of_body(body: &[u8]) -> Option<Type> {
        match *body.first()? {
            STRING => Some(Type::String),
            LIST => Some(Type::List),
            SET => Some(Type::Set),
            HASH => Some(Type::Hash),
            ZSET => Some(Type::Zset),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::Typed;

    fn hasher() -> KeyHasher {
        KeyHasher::new(5)
    }

    fn encoded(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        bytes
    }

    #[test]
    fn an_empty_container_is_not_a_value() {
        for value in [List::new().into_value(), Set::new().into_value(), Hash::new().into_value()] {
            assert!(Value::decode(&encoded(&value), &hasher()).is_err(), "{value:?}");
        }
        assert!(Value::decode(&encoded(&Zset::new().into_value()), &hasher()).is_err());
        assert!(Value::decode(&[STRING], &hasher()).is_ok());
        assert!(Value::decode(&[], &hasher()).is_err());
        assert!(Value::decode(&[99, 1], &hasher()).is_err());
    }

    proptest! {
        #[test]
        fn a_string_reads_back(bytes: Vec<u8>) {
            let value = Value::decode(&encoded(&Value::from_bytes(&bytes)), &hasher());
            let value = value.expect("it was just written");
            let mut scratch = itoa::Buffer::new();
            prop_assert_eq!(value.string(&mut scratch), Some(&bytes[..]));
        }

        #[test]
        fn a_list_reads_back_and_a_cut_or_an_addition_is_seen(elements in prop::collection::vec(".{0,40}", 1..50)) {
            let mut list = List::new();
            elements.iter().for_each(|element| list.push_back(element.as_bytes()));
            let bytes = encoded(&list.into_value());
            prop_assert_eq!(Type::of_body(&bytes), Some(Type::List));
            let value = Value::decode(&bytes, &hasher()).expect("it was just written");
            let list = List::of(&value).expect("it is a list");
            let read: Vec<&[u8]> = list.iter().collect();
            let written: Vec<&[u8]> = elements.iter().map(|element| element.as_bytes()).collect();
            prop_assert_eq!(read, written);
            prop_assert!(Value::decode(&bytes[..bytes.len() - 1], &hasher()).is_err());
            prop_assert!(Value::decode(&[&bytes[..], &[0]].concat(), &hasher()).is_err());
        }

        #[test]
        fn any_bytes_are_a_value_or_refused(kind in 0u8..8, bytes: Vec<u8>) {
            if let Ok(value) = Value::decode(&[&[kind], &bytes[..]].concat(), &hasher()) {
                // What is read is sound enough to be written again.
                prop_assert_eq!(Type::of_body(&encoded(&value)), Type::of_body(&[kind]));
            }
        }
    }
}
