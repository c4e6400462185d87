//! Cutting a client's input into replies (RESP2 and the parts of RESP3 that a reply may contain).

/// The length of the first whole reply in `bytes`; `None` if it is not complete.
///
/// # Errors
/// A sentence, if the bytes are no reply.
pub fn first(bytes: &[u8]) -> Result<Option<usize>, String> {
    let mut at = 0;
    let mut left = 1u64;
    while left > 0 {
        let Some(end) = bytes[at..].windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let line = &bytes[at..at + end];
        at += end + 2;
        left -= 1;
        let (kind, rest) = line.split_first().ok_or("a reply begins with an empty line")?;
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' => {}
            b'$' | b'=' => {
                let length = number(rest)?;
                if length >= 0 {
                    at += length as usize + 2;
                    if bytes.len() < at {
                        return Ok(None);
                    }
                    if &bytes[at - 2..at] != b"\r\n" {
                        return Err("a bulk string does not end where it says".into());
                    }
                }
            }
            b'*' | b'~' => left += number(rest)?.max(0) as u64,
            b'%' => left += 2 * number(rest)?.max(0) as u64,
            other => return Err(format!("no reply begins with {:?}", char::from(*other))),
        }
    }
    Ok(Some(at))
}

fn number(digits: &[u8]) -> Result<i64, String> {
    let text = std::str::from_utf8(digits).map_err(|_| "a length is not text")?;
    text.parse().map_err(|_| format!("a length of {text:?}"))
}

/// Bytes as a person reads them, cut when long.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(120)];
    let more = if cut.len() < bytes.len() { "…" } else { "" };
    format!("{}{more}", cut.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_cut_where_they_end() {
        type Cut = Result<Option<usize>, ()>;
        let table: [(&[u8], Cut); 10] = [
            (b"", Ok(None)),
            (b"+OK\r\n:1\r\n", Ok(Some(5))),
            (b"$3\r\na\r\n\r\n", Ok(Some(9))),
            (b"$3\r\nab", Ok(None)),
            (b"$-1\r\n+OK\r\n", Ok(Some(5))),
            (b"*2\r\n:1\r\n*1\r\n$1\r\nx\r\n+", Ok(Some(19))),
            (b"*2\r\n:1\r\n", Ok(None)),
            (b"*-1\r\n", Ok(Some(5))),
            (b"$3\r\nabcde\r\n", Err(())),
            (b"hello\r\n", Err(())),
        ];
        for (bytes, expected) in table {
            assert_eq!(first(bytes).map_err(|_| ()), expected, "{}", shown(bytes));
        }
    }
}
