//! `redis://[user][:password]@host[:port][/db]`.

use anyhow::{Context, Result, bail};

use super::client::Login;

/// Where a live Redis is.
#[derive(Debug)]
pub struct RedisUrl {
    /// Host and port.
    pub address: String,
    /// Who we are there.
    pub login: Login,
    /// One keyspace, or all.
    pub db: Option<u16>,
}

impl RedisUrl {
    /// Reads `text`.
    pub fn parse(text: &str) -> Result<RedisUrl> {
        let wanted = "write it as redis://[user][:password]@host[:port][/db]";
        let Some(rest) = text.strip_prefix("redis://") else {
            bail!("{text:?} is no redis:// address; {wanted}")
        };
        let (place, db) = match rest.split_once('/') {
            None | Some((_, "")) => (rest.trim_end_matches('/'), None),
            Some((place, db)) => {
                let db = db
                    .parse()
                    .with_context(|| format!("{db:?} is not the number of a keyspace; {wanted}"))?;
                (place, Some(db))
            }
        };
        let (login, host) = match place.rsplit_once('@') {
            None => (Login::default(), place),
            Some((login, host)) => (Self::login(login)?, host),
        };
        if host.is_empty() {
            bail!("{text:?} names no host; {wanted}");
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { host.to_owned() } else { format!("{host}:6379") };
        Ok(RedisUrl { address, login, db })
    }

    fn login(text: &str) -> Result<Login> {
        let (user, password) = text.split_once(':').unwrap_or(("", text));
        let user = (!user.is_empty()).then(|| unescape(user)).transpose()?;
        Ok(Login { user, password: Some(unescape(password)?) })
    }
}

/// `%40` is `@`.
fn unescape(text: &str) -> Result<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(byte.context("a % in the address is not followed by two hexadecimal digits")?);
        rest = &tail[2..];
    }
    String::from_utf8(out).context("the address is not UTF-8 once its % are resolved")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        #[rustfmt::skip] // columns
        let table = [
            ("redis://h",                 Some(("h:6379",     None,      None,        None))),
            ("redis://h:1/",              Some(("h:1",        None,      None,        None))),
            ("redis://h:1/3",             Some(("h:1",        None,      None,        Some(3)))),
            ("redis://:pw@h:1",           Some(("h:1",        None,      Some("pw"),  None))),
            ("redis://ann:p%40w@[::1]:1", Some(("[::1]:1",    Some("ann"), Some("p@w"), None))),
            ("redis://h/x",               None),
            ("redis://:%4@h",             None),
            ("redis://",                  None),
            ("rediss://h",                None),
            ("h:6379",                    None),
        ];
        for (text, expected) in table {
            let found = RedisUrl::parse(text).ok();
            let found = found.as_ref().map(|url| {
                (url.address.as_str(), url.login.user.as_deref(), url.login.password.as_deref(), url.db)
            });
            assert_eq!(found, expected, "{text}");
        }
    }
}
