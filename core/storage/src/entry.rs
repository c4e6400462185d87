//! The body of a log entry: the commands of one turn for one partition, in order.
//!
//! `body := command*`, `command := varint id, varint argc, (varint len, bytes)*`. The first argument
//! is not the command's name: `id` is [`Command::id`](crate::Command), which never changes meaning.
//! The format is final: a log written by one version is read by all later ones.

use alloc::vec::Vec;

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};
use smallvec::SmallVec;

/// The arguments of one command, its name excluded. Eight fit without allocating.
pub type Args<'a> = SmallVec<[&'a [u8]; 8]>;

/// Appends one command to an entry's body.
#[inline]
pub fn put_command(body: &mut Vec<u8>, id: u16, args: &[&[u8]]) {
    let bytes: usize = args.iter().map(|arg| arg.len() + 3).sum();
    body.reserve(bytes + 8);
    put_varint(body, u64::from(id));
    put_varint(body, args.len() as u64);
    for arg in args {
        put_bytes(body, arg);
    }
}

/// Reads the next command: its id, and its arguments into `args`.
///
/// # Errors
/// A cut or unknown shape. Nothing larger than the body itself is allocated.
#[inline]
pub fn next_command<'a>(reader: &mut Reader<'a>, args: &mut Args<'a>) -> Result<u16, DecodeError> {
    let id = u16::try_from(reader.varint()?).map_err(|_| DecodeError::Overflow)?;
    let argc = reader.len()?;
    // Each argument takes at least its length byte.
    if argc > reader.rest().len() {
        return Err(DecodeError::Short);
    }
    args.clear();
    args.reserve(argc);
    for _ in 0..argc {
        args.push(reader.bytes()?);
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn commands_read_back_in_order(commands: Vec<(u16, Vec<Vec<u8>>)>) {
            let mut body = Vec::new();
            for (id, args) in &commands {
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                put_command(&mut body, *id, &args);
            }
            let mut reader = Reader::new(&body);
            for (id, args) in &commands {
                let mut read = Args::new();
                prop_assert_eq!(next_command(&mut reader, &mut read), Ok(*id));
                prop_assert_eq!(&read.to_vec(), args);
            }
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            let mut args = Args::new();
            while !reader.is_empty() && next_command(&mut reader, &mut args).is_ok() {}
        }
    }
}
