//! Who may ask what of the port for Consul's clients: tokens, each with what it allows.
//!
//! As long as there is none, the port asks for none. Otherwise a request is judged by the token that it gives, which is looked
//! for where Consul looks: in the query, in `X-Consul-Token`, in `Authorization: Bearer`. What a token allows is said as by
//! Consul's rules `service_prefix` and `key_prefix`: to read or to write what has names with a prefix, of which the longest
//! counts. What has no name of its own, such as nodes, is read by whoever may read any service, and changed by whoever may change
//! all; sessions are for whoever has as much of any key. Who may not is answered 403 in Consul's words, also where Consul would show an
//! empty list; a list of several has what may be read. Tokens are made in the configuration; there is no API for it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::ops::Bound;

use sha2::{Digest, Sha256};

use super::{Method, Query, Refused, Request, Response, decoded, kv, txn};

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

/// What is allowed of things that have names: of those with some prefixes, and of all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    others: Access,
    prefixes: BTreeMap<String, Access>,
}

impl Rules {
    /// The same of all.
    #[must_use]
    pub const fn all(access: Access) -> Rules {
        Rules { others: access, prefixes: BTreeMap::new() }
    }

    /// The same, with another access to what begins with `prefix`.
    #[must_use]
    pub fn with(mut self, prefix: &str, access: Access) -> Rules {
        self.prefixes.insert(prefix.to_string(), access);
        self
    }

    /// What is allowed of `name`: what the longest of its prefixes says. O(rules).
    #[must_use]
    pub fn of(&self, name: &str) -> Access {
        // Whatever a name begins with stands before it or is it, and longer ones stand behind shorter ones.
        let mut before = self.prefixes.range::<str, _>((Bound::Unbounded, Bound::Included(name))).rev();
        let longest = before.find(|(prefix, _)| name.starts_with(prefix.as_str()));
        longest.map_or(self.others, |(_, access)| *access)
    }

    /// What is allowed of all names that begin with `prefix`.
    #[must_use]
    pub fn of_all(&self, prefix: &str) -> Access {
        let longer = self.prefixes.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let longer = longer.take_while(|(other, _)| other.starts_with(prefix)).map(|(_, access)| *access);
        longer.fold(self.of(prefix), Access::min)
    }

    /// The most that is allowed of any name.
    #[must_use]
    pub fn of_any(&self) -> Access {
        self.prefixes.values().copied().fold(self.others, Access::max)
    }
}

/// What a token allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Of the agent, the catalog, health and events, by the names of services.
    pub services: Rules,
    /// Of keys, and of sessions.
    pub keys: Rules,
}

/// Who asks, and what is allowed then.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    who: String,
    rights: Rights,
}

impl Grant {
    /// Everything, for everybody.
    #[must_use]
    pub fn all() -> Grant {
        let rights = Rights { services: Rules::all(Access::Write), keys: Rules::all(Access::Write) };
        Grant { who: "anonymous token".to_string(), rights }
    }

    /// What is allowed of keys.
    #[must_use]
    pub const fn keys(&self) -> &Rules {
        &self.rights.keys
    }

    /// Whether the service may be read.
    pub(super) fn reads(&self, service: &str) -> bool {
        self.rights.services.of(service) >= Access::Read
    }

    /// Refuses who may not read the service, or change it.
    pub(super) fn must(&self, access: Access, service: &str) -> Result<(), Refused> {
        self.compare(self.rights.services.of(service), access, "service", Some(service))
    }

    /// Refuses who may not change whatever service there is.
    pub(super) fn must_write_all(&self, resource: &str) -> Result<(), Refused> {
        self.compare(self.rights.services.of_all(""), Access::Write, resource, None)
    }

    fn compare(&self, has: Access, needs: Access, resource: &str, on: Option<&str>) -> Result<(), Refused> {
        if has >= needs {
            return Ok(());
        }
        let verb = if needs == Access::Write { "write" } else { "read" };
        let on = on.map(|name| format!(" on {name:?}")).unwrap_or_default();
        let who = &self.who;
        let why = format!("Permission denied: {who} lacks permission '{resource}:{verb}'{on}");
        Err(Refused { code: 403, why })
    }

    /// Judges a request by what it says of keys and events: their names are in it.
    fn judge(&self, request: &Request<'_>, need: Need) -> Result<(), Refused> {
        let has = match need.of {
            Things::Services => self.rights.services.of_any(),
            Things::Keys => self.rights.keys.of_any(),
        };
        self.compare(has, need.access, need.resource, None)?;
        if !kv::is_for_store(request.path, request.body) {
            return Ok(());
        }
        match need.resource {
            "event" if need.access == Access::Write => self.must_write_all("event"),
            "key" if request.path == kv::TRANSACTION => {
                txn::touched(request.body).into_iter().try_for_each(|(reach, key)| self.key(reach, &key))
            }
            // What is no key is refused when it is read.
            "key" => kv::touched(request).map_or(Ok(()), |(reach, key)| self.key(reach, &key)),
            _ => Ok(()),
        }
    }

    fn key(&self, reach: Reach, key: &str) -> Result<(), Refused> {
        let keys = &self.rights.keys;
        match reach {
            // Of a list it has what may be read.
            Reach::List => Ok(()),
            Reach::Read => self.compare(keys.of(key), Access::Read, "key", Some(key)),
            Reach::Write => self.compare(keys.of(key), Access::Write, "key", Some(key)),
            Reach::WriteTree => self.compare(keys.of_all(key), Access::Write, "key", Some(key)),
        }
    }
}

/// What is done with a key, or with those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Read,
    List,
    Write,
    WriteTree,
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
#[derive(Clone)]
pub struct Tokens {
    holders: BTreeMap<[u8; 32], Arc<Grant>>,
    anonymous: Arc<Grant>,
    /// What counts without tokens.
    all: Arc<Grant>,
    /// For what needs no right.
    nothing: Arc<Grant>,
}

impl Default for Tokens {
    fn default() -> Tokens {
        let nothing = Arc::<Grant>::default();
        let who = "anonymous token".to_string();
        let anonymous = Arc::new(Grant { who, rights: Rights::default() });
        let all = Arc::new(Grant::all());
        Tokens { holders: BTreeMap::new(), anonymous, all, nothing }
    }
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
        let grant = Grant { who: format!("token {name:?}"), rights };
        self.holders.insert(digest(secret.as_bytes()), Arc::new(grant));
        self
    }

    /// The same, where who gives no token has these rights once there are tokens.
    #[must_use]
    pub fn with_anonymous(mut self, rights: Rights) -> Tokens {
        self.anonymous = Arc::new(Grant { who: "anonymous token".to_string(), rights });
        self
    }

    /// What is allowed to whoever asks `request`. Of services it is not known yet which ones that touches: who answers it judges
    /// that, by what this returns. Keys are judged here, and what is listed of them is chosen by it.
    ///
    /// # Errors
    /// The answer, if it may not be done.
    pub fn judge(&self, request: &Request<'_>, headers: Headers<'_>) -> Result<Arc<Grant>, Response> {
        if self.holders.is_empty() {
            return Ok(Arc::clone(&self.all));
        }
        let Some(need) = Need::of(request) else { return Ok(Arc::clone(&self.nothing)) };
        let grant = match given(request.query, headers) {
            None => &self.anonymous,
            Some(secret) => match self.holders.get(&digest(&secret)) {
                Some(grant) => grant,
                None => return Err(Response::text(403, "ACL not found".to_string())),
            },
        };
        let judged = grant.judge(request, need);
        judged.map(|()| Arc::clone(grant)).map_err(|Refused { code, why }| Response::text(code, why))
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
#[derive(Clone, Copy)]
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

    const READ: Rights = Rights { services: Rules::all(Access::Read), keys: Rules::all(Access::Read) };
    const WRITE: Rights = Rights { services: Rules::all(Access::Write), keys: Rules::all(Access::Write) };

    fn tokens() -> Tokens {
        let keys = Rights { services: Rules::all(Access::None), keys: Rules::all(Access::Write) };
        Tokens::open().with("all", "w", WRITE).with("look", "r", READ).with("keys", "k", keys)
    }

    fn judged(tokens: &Tokens, method: Method, target: &str, body: &str, headers: Headers<'_>) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Request { method, path, query, body: body.as_bytes() };
        match tokens.judge(&request, headers) {
            Ok(_) => String::new(),
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

    #[test]
    fn the_longest_prefix_of_a_name_decides() {
        let rules = Rules::all(Access::None)
            .with("a/", Access::Write)
            .with("a/b", Access::Read)
            .with("a/bb", Access::None)
            .with("a/c/", Access::Write);
        #[rustfmt::skip] // columns
        let table = [
            // name     of it           of all that begin so
            ("",        Access::None,   Access::None),
            ("b",       Access::None,   Access::None),
            ("a",       Access::None,   Access::None),
            ("a/",      Access::Write,  Access::None),
            ("a/a",     Access::Write,  Access::Write),
            ("a/b",     Access::Read,   Access::None),
            ("a/ba",    Access::Read,   Access::Read),
            ("a/bb",    Access::None,   Access::None),
            ("a/bbc",   Access::None,   Access::None),
            ("a/bc",    Access::Read,   Access::Read),
            ("a/c",     Access::Write,  Access::Write),
            ("a/c/d",   Access::Write,  Access::Write),
            ("a/z",     Access::Write,  Access::Write),
        ];
        for (name, of, of_all) in table {
            assert_eq!((rules.of(name), rules.of_all(name)), (of, of_all), "{name:?}");
        }
        assert_eq!((rules.of_any(), Rules::all(Access::Read).of_any()), (Access::Write, Access::Read));
        // A rule for all names is the one that has no letter.
        assert_eq!(Rules::all(Access::None).with("", Access::Read).of("x"), Access::Read);
    }

    #[test]
    fn keys_are_judged_by_their_names() {
        let keys = Rules::all(Access::None).with("a/", Access::Write).with("a/r/", Access::Read);
        let tokens = Tokens::open().with("some", "s", Rights { services: Rules::all(Access::None), keys });
        let txn = |verb: &str, key: &str| {
            format!(r#"[{{"KV":{{"Verb":"get","Key":"a/x"}}}},{{"KV":{{"Verb":"{verb}","Key":"{key}"}}}}]"#)
        };
        #[rustfmt::skip] // columns
        let table = [
            (Method::Get,    "/v1/kv/a/x",               String::new(),          ""),
            (Method::Get,    "/v1/kv/a/r/x",             String::new(),          ""),
            (Method::Get,    "/v1/kv/b",                 String::new(),          "'key:read' on \"b\""),
            (Method::Get,    "/v1/kv/%62",               String::new(),          "'key:read' on \"b\""),
            (Method::Get,    "/v1/kv/a",                 String::new(),          "'key:read' on \"a\""),
            (Method::Get,    "/v1/kv/b?raw",             String::new(),          "'key:read' on \"b\""),
            // A list has what may be read.
            (Method::Get,    "/v1/kv/?recurse",          String::new(),          ""),
            (Method::Get,    "/v1/kv/?keys",             String::new(),          ""),
            (Method::Put,    "/v1/kv/a/x",               "v".into(),             ""),
            (Method::Put,    "/v1/kv/a/x?recurse",       "v".into(),             ""),
            (Method::Put,    "/v1/kv/a/r/x",             "v".into(),             "'key:write' on \"a/r/x\""),
            (Method::Put,    "/v1/kv/b?keys",            "v".into(),             "'key:write' on \"b\""),
            (Method::Delete, "/v1/kv/a/x",               String::new(),          ""),
            (Method::Delete, "/v1/kv/a/x?recurse",       String::new(),          ""),
            // Some below it may only be read.
            (Method::Delete, "/v1/kv/a/?recurse",        String::new(),          "'key:write' on \"a/\""),
            (Method::Delete, "/v1/kv/a/?keys&recurse=0", String::new(),          "'key:write' on \"a/\""),
            (Method::Delete, "/v1/kv/?recurse",          String::new(),          "'key:write' on \"\""),
            (Method::Other,  "/v1/kv/b",                 String::new(),          "'key:write' on \"b\""),
            (Method::Put,    "/v1/session/create",       String::new(),          ""),
            (Method::Put,    "/v1/txn",                  txn("set", "a/y"),      ""),
            (Method::Put,    "/v1/txn",                  txn("set", "a/r/y"),    "'key:write' on \"a/r/y\""),
            (Method::Put,    "/v1/txn",                  txn("get", "a/r/y"),    ""),
            (Method::Put,    "/v1/txn",                  txn("get", "b"),        "'key:read' on \"b\""),
            (Method::Put,    "/v1/txn",                  txn("check-index", "b"), "'key:read' on \"b\""),
            (Method::Put,    "/v1/txn",                  txn("get-tree", ""),    ""),
            (Method::Put,    "/v1/txn",                  txn("delete-tree", "a/"), "'key:write' on \"a/\""),
            (Method::Put,    "/v1/txn",                  txn("delete-tree", "a/x"), ""),
            (Method::Put,    "/v1/txn",                  txn("anything", "a/r/y"), "'key:write' on \"a/r/y\""),
            (Method::Get,    "/v1/catalog/services",     String::new(),          "'service:read'"),
            (Method::Put,    "/v1/event/fire/a",         String::new(),          "'event:write'"),
        ];
        let headers = Headers { token: Some(b"s"), authorization: None };
        for (method, target, body, expected) in table {
            let said = judged(&tokens, method, target, &body, headers);
            let holds = if expected.is_empty() { said.is_empty() } else { said.ends_with(expected) };
            assert!(holds, "{method:?} {target} {body}: {said:?} instead of {expected:?}");
        }
        // Events have no rules of their own: who may change all services may fire them.
        let services = Rules::all(Access::Write).with("db", Access::Read);
        let most = Tokens::open().with("most", "s", Rights { services, keys: Rules::default() });
        let said = judged(&most, Method::Put, "/v1/event/fire/a", "", headers);
        assert!(said.ends_with("'event:write'"), "{said}");
        assert_eq!(judged(&most, Method::Get, "/v1/event/list", "", headers), "");
    }
}
