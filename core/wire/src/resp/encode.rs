//! The reply encoder.

use alloc::vec::Vec;

/// Writes replies of one connection in its protocol version.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    resp3: bool,
}

impl<'a> Encoder<'a> {
    /// Appends to `out`.
    pub const fn new(out: &'a mut Vec<u8>, resp3: bool) -> Encoder<'a> {
        Encoder { out, resp3 }
    }

    /// True for RESP3.
    #[must_use]
    pub const fn resp3(&self) -> bool {
        self.resp3
    }

    #[inline]
    fn header(&mut self, sigil: u8, number: i64) {
        self.out.push(sigil);
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    fn line(&mut self, sigil: u8, text: &str) {
        self.out.push(sigil);
        // A line end in a status or error would desynchronise the client.
        self.out.extend(text.bytes().map(|byte| if byte == b'\r' || byte == b'\n' { b' ' } else { byte }));
        self.out.extend_from_slice(b"\r\n");
    }

    /// `+text`.
    #[inline]
    pub fn simple(&mut self, text: &str) {
        if text == "OK" {
            self.out.extend_from_slice(b"+OK\r\n");
        } else {
            self.line(b'+', text);
        }
    }

    /// `-text`; line ends become spaces.
    pub fn error(&mut self, text: &str) {
        self.line(b'-', text);
    }

    /// `:value`.
    #[inline]
    pub fn int(&mut self, value: i64) {
        self.header(b':', value);
    }

    /// `$length`, the bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 16);
        self.header(b'$', bytes.len() as i64);
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// `_`, or `$-1`.
    pub fn null(&mut self) {
        self.out.extend_from_slice(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// `_`, or `*-1`.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(if self.resp3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// `*len`.
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len as i64);
    }

    /// `%len`, or `*2·len`.
    pub fn map(&mut self, len: usize) {
        if self.resp3 { self.header(b'%', len as i64) } else { self.header(b'*', 2 * len as i64) }
    }

    /// `~len`, or `*len`.
    pub fn set(&mut self, len: usize) {
        self.header(if self.resp3 { b'~' } else { b'*' }, len as i64);
    }

    /// `>len`: an out-of-band message; in RESP2 an array.
    pub fn push(&mut self, len: usize) {
        self.header(if self.resp3 { b'>' } else { b'*' }, len as i64);
    }

    /// `,value`, or a bulk string.
    pub fn double(&mut self, value: f64) {
        let mut text = Vec::new();
        format_double(value, &mut text);
        if self.resp3 {
            self.out.push(b',');
            self.out.extend_from_slice(&text);
            self.out.extend_from_slice(b"\r\n");
        } else {
            self.bulk(&text);
        }
    }

    /// `#t` or `#f`, or `:1` or `:0`.
    pub fn boolean(&mut self, value: bool) {
        match (self.resp3, value) {
            (true, true) => self.out.extend_from_slice(b"#t\r\n"),
            (true, false) => self.out.extend_from_slice(b"#f\r\n"),
            (false, value) => self.int(i64::from(value)),
        }
    }

    /// Bytes that are a whole encoded value already.
    pub fn raw(&mut self, encoded: &[u8]) {
        self.out.extend_from_slice(encoded);
    }

    /// `=len` with format `txt`, or a bulk string.
    pub fn verbatim(&mut self, text: &str) {
        if self.resp3 {
            self.header(b'=', text.len() as i64 + 4);
            self.out.extend_from_slice(b"txt:");
            self.out.extend_from_slice(text.as_bytes());
            self.out.extend_from_slice(b"\r\n");
        } else {
            self.bulk(text.as_bytes());
        }
    }
}

/// A double as Redis 7 prints scores: integers plainly, others with the fewest digits of `%.17g` that
/// read back, `inf`, `-inf`, `nan`.
pub fn format_double(value: f64, out: &mut Vec<u8>) {
    if value.is_nan() {
        out.extend_from_slice(b"nan");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"inf" } else { b"-inf" });
    } else if value == 0.0 {
        out.extend_from_slice(if value.is_sign_negative() { b"-0" } else { b"0" });
    } else if value > -4_503_599_627_370_496.0
        && value < 4_503_599_627_370_496.0
        && value as i64 as f64 == value
    {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else {
        put_general(value, out);
    }
}

/// `%.17g`, exactly: the digits that `printf` gives, trailing zeros removed.
fn put_general(value: f64, out: &mut Vec<u8>) {
    let text = alloc::format!("{value:.16e}");
    let (digits, exponent) = text.split_once('e').expect("scientific notation has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent of a double is a small integer");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let all: Vec<u8> = digits.bytes().filter(|&byte| byte != b'.').collect();
    let kept = all.iter().rposition(|&byte| byte != b'0').map_or(1, |last| last + 1);
    let all = &all[..kept];
    out.extend_from_slice(sign.as_bytes());
    if !(-4..17).contains(&exponent) {
        out.push(all[0]);
        if all.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&all[1..]);
        }
        let mark = if exponent < 0 { '-' } else { '+' };
        out.extend(alloc::format!("e{mark}{:02}", exponent.abs()).bytes());
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + (-exponent - 1) as usize, b'0');
        out.extend_from_slice(all);
    } else {
        let whole = exponent as usize + 1;
        for place in 0..whole.max(all.len()) {
            if place == whole {
                out.push(b'.');
            }
            out.push(all.get(place).copied().unwrap_or(b'0'));
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use proptest::prelude::*;

    use super::*;

    fn shown(value: f64) -> String {
        let mut out = Vec::new();
        format_double(value, &mut out);
        String::from_utf8(out).expect("digits are text")
    }

    #[test]
    fn doubles_look_as_in_redis() {
        // What redis-server 7.0 answers to ZSCORE.
        let table = [
            (1.0, "1"),
            (-3.0, "-3"),
            (0.1, "0.10000000000000001"),
            (1.5, "1.5"),
            (3.3, "3.2999999999999998"),
            (1e300, "1.0000000000000001e+300"),
            (1e-7, "9.9999999999999995e-08"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (1e16, "10000000000000000"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (0.000_123, "0.00012300000000000001"),
        ];
        for (value, expected) in table {
            assert_eq!(shown(value), expected);
        }
    }

    proptest! {
        #[test]
        fn doubles_read_back(value: f64) {
            prop_assume!(value.is_finite());
            prop_assert_eq!(shown(value).parse::<f64>().expect("it is a number"), value);
        }
    }
}
