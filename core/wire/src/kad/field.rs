//! Protobuf's fields: a tag, then a varint, eight bytes, a length with bytes, or four bytes.
//!
//! Groups (wire types 3 and 4) were never part of proto3 and are refused. Varints may be longer than they need be,
//! as in every protobuf parser.

use super::DecodeError;
use alloc::vec::Vec;
use kernel::codec::{Reader, put_varint};

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Fixed 32 or 64 bits, which no field of ours has.
    Fixed,
}

/// The next field: its number and value. `None` at the end.
pub(super) fn next<'a>(reader: &mut Reader<'a>) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
    if reader.is_empty() {
        return Ok(None);
    }
    let tag = u32::try_from(reader.varint()?).map_err(|_| DecodeError::Malformed)?;
    let number = tag >> 3;
    if number == 0 {
        return Err(DecodeError::Malformed);
    }
    let value = match tag & 7 {
        0 => Value::Number(reader.varint()?),
        1 => reader.take(8).map(|_| Value::Fixed)?,
        2 => Value::Bytes(reader.bytes()?),
        5 => reader.take(4).map(|_| Value::Fixed)?,
        _ => return Err(DecodeError::Malformed),
    };
    Ok(Some((number, value)))
}

impl<'a> Value<'a> {
    /// The bytes of a field that the schema says has bytes.
    pub(super) const fn bytes(self) -> Result<&'a [u8], DecodeError> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Number(_) | Value::Fixed => Err(DecodeError::Malformed),
        }
    }

    /// The number of a field that the schema says is a varint.
    pub(super) const fn number(self) -> Result<u64, DecodeError> {
        match self {
            Value::Number(number) => Ok(number),
            Value::Bytes(_) | Value::Fixed => Err(DecodeError::Malformed),
        }
    }
}

/// Appends a number; nothing if it is 0, as proto3 wants it.
pub(super) fn put_number(out: &mut Vec<u8>, field: u32, number: u64) {
    if number != 0 {
        put_varint(out, u64::from(field << 3));
        put_varint(out, number);
    }
}

/// Appends bytes, empty ones too: elements of a list are written whatever they hold.
pub(super) fn put_element(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field << 3 | 2));
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends bytes; nothing if they are empty.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_element(out, field, bytes);
    }
}

/// How many bytes a varint of `number` takes.
pub(super) const fn varint_len(number: u64) -> usize {
    match number {
        0 => 1,
        n => (70 - n.leading_zeros() as usize) / 7,
    }
}

/// How many bytes a field with `len` bytes takes, its tag and length included.
pub(super) const fn element_len(field: u32, len: usize) -> usize {
    varint_len((field << 3) as u64) + varint_len(len as u64) + len
}
