//! Cookies, as far as a proxy has one of its own (RFC 6265).

use httparse::Header;

/// The value of the first cookie of this name that a client shows; names are told apart by case.
///
/// A client may show several of one name, set for other paths or by others; which of them it is, it does not say.
#[must_use]
pub fn cookie<'a>(headers: &[Header<'a>], name: &str) -> Option<&'a [u8]> {
    let of = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("cookie"));
    of.flat_map(|header| header.value.split(|&byte| byte == b';')).find_map(|pair| {
        let pair = pair.trim_ascii();
        let (found, value) = pair.split_at_checked(name.len())?;
        let value = value.strip_prefix(b"=")?;
        (found == name.as_bytes()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_name() {
        #[rustfmt::skip] // columns
        let table: [(&[&str], Option<&str>); 8] = [
            (&["a=1"],                 Some("1")),
            (&["b=2; a=1; c=3"],       Some("1")),
            (&["b=2", "a=1"],          Some("1")),
            (&["a=1;a=2"],             Some("1")),
            (&["a="],                  Some("")),
            (&["aa=1; A=2; a"],        None),
            (&["b=a=1"],               None),
            (&[],                      None),
        ];
        for (values, expected) in table {
            let mut headers = alloc::vec![Header { name: "x", value: b"a=9" }];
            headers.extend(values.iter().map(|value| Header { name: "Cookie", value: value.as_bytes() }));
            assert_eq!(cookie(&headers, "a"), expected.map(str::as_bytes), "{values:?}");
        }
    }
}
