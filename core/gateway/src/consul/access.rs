//! Who may ask what of the port for Consul's clients: tokens, each with what it allows.
//!
//! As long as there is none, the port asks for none. Otherwise a request is judged by the token that it gives, which is looked
//! for where Consul looks: in the query, in `X-Consul-Token`, in `Authorization: Bearer`. What a token allows is coarser than
//! Consul's policies: to read or to write services, and keys. Who may not is answered 403 in Consul's words, also where Consul
//! would show an empty list. Tokens are made in the configuration; there is no API for it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};

use sha2::{Digest, Sha256};

use super::{Method, Query, Request, Response, decoded, kv};

/// What is allowed of some things, the least first: who may write may read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Nothing.
    #[default]
    None,
    /// To read.
    Read,
    /// To read and to change.
    Write,
}

/// What a token allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Of the agent, the catalog, health and events.
    pub services: Access,
    /// Of keys and sessions.
    pub keys: Access,
}

/// The fields of a request's head that may have its token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    /// `X-Consul-Token`.
    pub token: Option<&'a [u8]>,
    /// `Authorization`.
    pub authorization: Option<&'a [u8]>,
}

/// The tokens of a port. Kept as digests, so that how long a look-up takes says nothing of a secret.
#[derive(Clone, Default)]
pub struct Tokens {
    holders: BTreeMap<[u8; 32], (String, Rights)>,
    anonymous: Rights,
}

impl Tokens {
    /// None: everybody may do everything.
    #[must_use]
    pub fn open() -> Tokens {
        Tokens::default()
    }

    /// The same with one more. Of two with one secret the last counts.
    #[must_use]
    pub fn with(mut self, name: &str, secret: &str, rights: Rights) -> Tokens {
        self.holders.insert(digest(secret.as_bytes()), (name.to_string(), rights));
        self
    }

    /// The same, where who gives no token has these rights once there are tokens.
    #[must_use]
    pub fn with_anonymous(mut self, rights: Rights) -> Tokens {
        self.anonymous = rights;
        self
    }

    /// Whether `request` may be done. One look-up; nothing of its body but whether a transaction is of keys.
    ///
    /// # Errors
    /// The answer, if it may not.
    pub fn judge(&self, request: &Request<'_>, headers: Headers<'_>) -> Result<(), Response> {
        if self.holders.is_empty() {
            return Ok(());
        }
        let Some(need) = Need::of(request) else { return Ok(()) };
        let (who, rights) = match given(request.query, headers) {
            None => ("anonymous token".to_string(), self.anonymous),
            Some(secret) => match self.holders.get(&digest(&secret)) {
                Some((name, rights)) => (format!("token {name:?}"), *rights),
                None => return Err(Response::text(403, "ACL not found".to_string())),
            },
        };
        let has = match need.of {
            Things::Services => rights.services,
            Things::Keys => rights.keys,
        };
        if has >= need.access {
            return Ok(());
        }
        let Need { resource, access, .. } = need;
        let verb = if access == Access::Write { "write" } else { "read" };
        let why = format!("Permission denied: {who} lacks permission '{resource}:{verb}'");
        Err(Response::text(403, why))
    }
}

fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// The token of a request; an empty one is none.
fn given(query: &str, headers: Headers<'_>) -> Option<alloc::vec::Vec<u8>> {
    let some = |bytes: &[u8]| Some(bytes.trim_ascii()).filter(|it| !it.is_empty()).map(<[u8]>::to_vec);
    let in_query = Query::parse(query).and_then(|query| some(query.get("token")?.as_bytes()));
    let bearer = |field: &[u8]| {
        let (scheme, rest) = field.trim_ascii().split_first_chunk::<7>()?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest).and_then(some)
    };
    in_query.or_else(|| headers.token.and_then(some)).or_else(|| headers.authorization.and_then(bearer))
}

/// Of what a right is needed.
#[derive(Clone, Copy)]
enum Things {
    Services,
    Keys,
}

/// What a request needs.
struct Need {
    of: Things,
    access: Access,
    /// What Consul calls it.
    resource: &'static str,
}

impl Need {
    /// Nothing for who leads, as in Consul. What is no known path needs what services need: a word that is not understood
    /// here must not open what is behind it.
    fn of(request: &Request<'_>) -> Option<Need> {
        let access = if request.method == Method::Get { Access::Read } else { Access::Write };
        let first = request.path.strip_prefix("/v1/").and_then(|rest| rest.split('/').next());
        let first = first.and_then(|first| decoded(first, false)).unwrap_or_default();
        let is_store = kv::is_for_store(request.path, request.body);
        let (of, resource) = match first.as_str() {
            "status" => return None,
            "kv" => (Things::Keys, "key"),
            "session" => (Things::Keys, "session"),
            "txn" if is_store => (Things::Keys, "key"),
            "event" => (Things::Services, "event"),
            "agent" => (Things::Services, "agent"),
            "acl" => (Things::Services, "acl"),
            _ => (Things::Services, "service"),
        };
        Some(Need { of, access, resource })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Rights = Rights { services: Access::Read, keys: Access::Read };
    const WRITE: Rights = Rights { services: Access::Write, keys: Access::Write };

    fn tokens() -> Tokens {
        let keys = Rights { services: Access::None, keys: Access::Write };
        Tokens::open().with("all", "w", WRITE).with("look", "r", READ).with("keys", "k", keys)
    }

    fn judged(tokens: &Tokens, method: Method, target: &str, body: &str, headers: Headers<'_>) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Request { method, path, query, body: body.as_bytes() };
        match tokens.judge(&request, headers) {
            Ok(()) => String::new(),
            Err(Response { code, body, .. }) => format!("{code} {}", String::from_utf8(body).unwrap()),
        }
    }

    #[test]
    fn a_token_allows_what_it_says_and_nothing_else() {
        let keys = r#"[{"KV":{"Verb":"get","Key":"a"}}]"#;
        let (read, write) = ("'service:read'", "'service:write'");
        #[rustfmt::skip] // columns
        let table: &[(Method, &str, &str, [&str; 4])] = &[
            // what is asked                                      all  look             keys             none
            (Method::Get,    "/v1/status/leader",         "",     ["", "",              "",              ""]),
            (Method::Get,    "/v1/catalog/services",      "",     ["", "",              read,            read]),
            (Method::Get,    "/v1/health/service/web",    "",     ["", "",              read,            read]),
            (Method::Get,    "/prometheus/targets",       "",     ["", "",              read,            read]),
            (Method::Get,    "/v1/agent/self",            "",     ["", "",              "'agent:read'",  "'agent:read'"]),
            (Method::Put,    "/v1/agent/service/register", "{}",  ["", "'agent:write'", "'agent:write'", "'agent:write'"]),
            (Method::Put,    "/v1/catalog/register",      "{}",   ["", write,           write,           write]),
            (Method::Put,    "/v1/event/fire/a",          "",     ["", "'event:write'", "'event:write'", "'event:write'"]),
            (Method::Get,    "/v1/kv/a",                  "",     ["", "",              "",              "'key:read'"]),
            (Method::Put,    "/v1/kv/a",                  "v",    ["", "'key:write'",   "",              "'key:write'"]),
            (Method::Delete, "/v1/kv/?recurse",           "",     ["", "'key:write'",   "",              "'key:write'"]),
            (Method::Put,    "/v1/session/create",        "",     ["", "'session:write'", "",            "'session:write'"]),
            (Method::Put,    "/v1/txn",                   keys,   ["", "'key:write'",   "",              "'key:write'"]),
            (Method::Put,    "/v1/txn",                   "[]",   ["", write,           write,           write]),
            (Method::Other,  "/v1/kv/a",                  "",     ["", "'key:write'",   "",              "'key:write'"]),
            (Method::Get,    "/v1/acl/tokens",            "",     ["", "",              "'acl:read'",    "'acl:read'"]),
            (Method::Get,    "/v1/%6bv/a",                "",     ["", "",              "",              "'key:read'"]),
            (Method::Put,    "/v1/%zz/status/",           "",     ["", write,           write,           write]),
            (Method::Get,    "/v1/status%2f../kv/a",      "",     ["", "",              read,            read]),
            (Method::Get,    "/",                         "",     ["", "",              read,            read]),
        ];
        let tokens = tokens();
        for (method, target, body, expected) in table {
            for (secret, expected) in ["w", "r", "k", ""].into_iter().zip(expected) {
                let headers = Headers { token: Some(secret.as_bytes()), authorization: None };
                let said = judged(&tokens, *method, target, body, headers);
                let holds = if expected.is_empty() {
                    said.is_empty()
                } else {
                    said.starts_with("403 Permission denied: ") && said.ends_with(expected)
                };
                assert!(holds, "{target} with {secret:?}: {said:?} instead of {expected:?}");
                let open = judged(&Tokens::open(), *method, target, body, headers);
                assert_eq!(open, "", "without tokens everything is allowed");
            }
        }
    }

    #[test]
    fn a_token_is_looked_for_where_consul_does_and_an_unknown_one_is_refused() {
        let tokens = tokens().with_anonymous(READ);
        let unknown = "403 ACL not found";
        let lacks = |who: &str| format!("403 Permission denied: {who} lacks permission 'key:write'");
        let (look, nobody) = (lacks("token \"look\""), lacks("anonymous token"));
        #[rustfmt::skip] // columns
        let table: &[(&str, Option<&str>, Option<&str>, &str)] = &[
            // query        X-Consul-Token  Authorization          what comes of it
            ("",            None,           None,                  &nobody),
            ("",            Some("w"),      None,                  ""),
            ("",            None,           Some("Bearer w"),      ""),
            ("",            None,           Some("bearer  w "),    ""),
            ("token=w",     None,           None,                  ""),
            ("token=%77",   None,           None,                  ""),
            ("token=w",     Some("r"),      Some("Bearer r"),      ""),
            ("token=r",     Some("w"),      Some("Bearer w"),      &look),
            ("",            Some("r"),      Some("Bearer w"),      &look),
            ("token=",      Some(""),       Some("Bearer w"),      ""),
            ("token=x",     Some("w"),      None,                  unknown),
            ("",            Some("ww"),     None,                  unknown),
            ("",            Some("\u{fffd}"), None,                unknown),
            ("",            None,           Some("Basic w"),       &nobody),
            ("",            None,           Some("Bearer"),        &nobody),
            ("",            None,           Some("Bearer "),       &nobody),
        ];
        for (query, token, authorization, expected) in table {
            let headers =
                Headers { token: token.map(str::as_bytes), authorization: authorization.map(str::as_bytes) };
            let said = judged(&tokens, Method::Put, &format!("/v1/kv/a?{query}"), "v", headers);
            assert_eq!(said, *expected, "{query:?} {token:?} {authorization:?}");
        }
        // Who gives none may do what is said of it, and an unknown token is not none.
        assert_eq!(judged(&tokens, Method::Get, "/v1/kv/a", "", Headers::default()), "");
        let wrong = Headers { token: Some(b"x"), authorization: None };
        assert_eq!(judged(&tokens, Method::Get, "/v1/kv/a", "", wrong), unknown);
    }
}
