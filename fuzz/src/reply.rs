//! A strict reader of replies: what a server sends must be whole RESP2 or RESP3 values, one after another.

/// Values nest no deeper; our own replies have a few levels.
const DEPTH_MAX: usize = 64;

/// Reads `bytes` as values, or says what is wrong and where.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let mut at = 0;
    while at < bytes.len() {
        at = value(bytes, at, 0).map_err(|(at, why)| {
            let near = &bytes[at.saturating_sub(40)..bytes.len().min(at + 40)];
            format!("at {at} of {}: {why}, near {:?}", bytes.len(), String::from_utf8_lossy(near))
        })?;
    }
    Ok(())
}

type Place = Result<usize, (usize, &'static str)>;

/// The end of the value at `at`.
fn value(bytes: &[u8], at: usize, depth: usize) -> Place {
    if depth > DEPTH_MAX {
        return Err((at, "values nest too deep"));
    }
    let Some(&kind) = bytes.get(at) else { return Err((at, "a value is missing")) };
    let Some(length) = bytes[at..].iter().position(|&byte| byte == b'\r') else {
        return Err((at, "a line does not end"));
    };
    let (line, end) = (&bytes[at + 1..at + length], at + length + 2);
    if bytes.get(end - 1) != Some(&b'\n') || line.contains(&b'\n') {
        return Err((at, "a line ends with something else"));
    }
    let number = || std::str::from_utf8(line).ok().and_then(|text| text.parse::<i64>().ok());
    match kind {
        b'+' | b'-' => Ok(end),
        b':' => number().map(|_| end).ok_or((at, "not an integer")),
        b'_' if line.is_empty() => Ok(end),
        b'#' if line == b"t" || line == b"f" => Ok(end),
        b',' => {
            let double = std::str::from_utf8(line).ok().and_then(|text| text.parse::<f64>().ok());
            double.map(|_| end).ok_or((at, "not a number"))
        }
        b'$' | b'=' | b'*' | b'%' | b'~' | b'>' => {
            let count = number().ok_or((at, "not a length"))?;
            let Ok(count) = usize::try_from(count) else {
                let is_null = count == -1 && matches!(kind, b'$' | b'*');
                return if is_null { Ok(end) } else { Err((at, "a negative length")) };
            };
            match kind {
                b'$' | b'=' => match bytes.get(end + count..end + count + 2) {
                    Some(b"\r\n") => Ok(end + count + 2),
                    _ => Err((at, "a byte string is cut")),
                },
                b'%' => (0..2 * count).try_fold(end, |at, _| value(bytes, at, depth + 1)),
                _ => (0..count).try_fold(end, |at, _| value(bytes, at, depth + 1)),
            }
        }
        _ => Err((at, "an unknown type")),
    }
}
