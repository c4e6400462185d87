//! Routes by table, and against a slow search over all of them.

use alloc::string::ToString;
use alloc::vec;

use proptest::prelude::*;

use super::*;
use kernel::Rng;

fn rule(host: &str, path: &str, methods: &[&str], fields: &[&str]) -> Rule {
    let path = match path.strip_prefix('=') {
        Some(exact) => PathRule::exact(exact),
        None => PathRule::prefix(path),
    };
    let field = |text: &&str| match text.split_once('=') {
        Some((name, value)) => FieldRule { name: name.into(), value: Some(value.into()) },
        None => FieldRule { name: (*text).into(), value: None },
    };
    Rule {
        host: HostRule::read(host).unwrap(),
        path: path.unwrap(),
        methods: methods.iter().map(|&method| method.into()).collect(),
        fields: fields.iter().map(field).collect(),
    }
}

fn found(routes: &Routes, host: &str, path: &str, method: &str, fields: &[(&str, &str)]) -> Option<u32> {
    let has = |rule: &FieldRule| {
        let value = fields.iter().find(|(name, _)| *name == &*rule.name).map(|(_, value)| *value);
        value.is_some_and(|value| rule.value.as_ref().is_none_or(|wanted| &**wanted == value))
    };
    routes.find(&Ask { host, path, method }, &has)
}

#[test]
fn the_most_specific_route_takes_a_request() {
    let routes = Routes::new(&[
        rule("*", "/", &[], &[]),                                // 0
        rule("shop.example.org", "/", &[], &[]),                 // 1
        rule("shop.example.org", "/api", &[], &[]),              // 2
        rule("shop.example.org", "/api/v2/", &[], &[]),          // 3
        rule("shop.example.org", "=/api/v2/health", &[], &[]),   // 4
        rule("shop.example.org", "/api", &["POST", "PUT"], &[]), // 5
        rule("shop.example.org", "/api", &[], &["x-beta=yes"]),  // 6
        rule("*.example.org", "/api", &[], &[]),                 // 7
        rule("*.eu.example.org", "/", &[], &[]),                 // 8
        rule("shop.example.org", "/api", &[], &[]),              // 9: behind its equal
        rule("[::1]", "/", &[], &[]),                            // 10
    ])
    .unwrap();
    #[rustfmt::skip] // columns
    let table: &[(&str, &str, &str, &[(&str, &str)], Option<u32>)] = &[
        // host                     path                    method  fields               route
        ("other.org",               "/x",                   "GET",  &[],                 Some(0)),
        ("",                        "/x",                   "GET",  &[],                 Some(0)),
        ("shop.example.org",        "/",                    "GET",  &[],                 Some(1)),
        ("SHOP.Example.ORG:8080",   "/x",                   "GET",  &[],                 Some(1)),
        ("shop.example.org.",       "/x?/api",              "GET",  &[],                 Some(1)),
        ("shop.example.org",        "/api",                 "GET",  &[],                 Some(2)),
        ("shop.example.org",        "/api?x=1",             "GET",  &[],                 Some(2)),
        ("shop.example.org",        "/api/",                "GET",  &[],                 Some(2)),
        ("shop.example.org",        "/apix",                "GET",  &[],                 Some(1)),
        ("shop.example.org",        "/API",                 "GET",  &[],                 Some(1)),
        ("shop.example.org",        "/api/v2",              "GET",  &[],                 Some(3)),
        ("shop.example.org",        "/api/v2/x/y",          "GET",  &[],                 Some(3)),
        ("shop.example.org",        "/api/v2/health",       "GET",  &[],                 Some(4)),
        ("shop.example.org",        "/api/v2/health/x",     "GET",  &[],                 Some(3)),
        ("shop.example.org",        "/api/x",               "PUT",  &[],                 Some(5)),
        ("shop.example.org",        "/api/x",               "put",  &[],                 Some(2)),
        ("shop.example.org",        "/api/x",               "GET",  &[("x-beta", "yes")], Some(6)),
        ("shop.example.org",        "/api/x",               "GET",  &[("x-beta", "no")], Some(2)),
        ("shop.example.org",        "/api/x",               "PUT",  &[("x-beta", "yes")], Some(5)),
        ("a.example.org",           "/api",                 "GET",  &[],                 Some(7)),
        ("a.b.example.org",         "/api",                 "GET",  &[],                 Some(7)),
        ("a.example.org",           "/",                    "GET",  &[],                 None), // its host's, or none
        ("example.org",             "/",                    "GET",  &[],                 Some(0)),
        ("xexample.org",            "/",                    "GET",  &[],                 Some(0)),
        ("a.eu.example.org",        "/api",                 "GET",  &[],                 Some(8)),
        ("[::1]:80",                "/",                    "GET",  &[],                 Some(10)),
        ("[::1]",                   "/",                    "GET",  &[],                 Some(10)),
        ("shop.example.org",        "*",                    "OPTIONS", &[],              None),
    ];
    for (host, path, method, fields, expected) in table {
        assert_eq!(
            found(&routes, host, path, method, fields),
            *expected,
            "{method} {host} {path} {fields:?}"
        );
    }
    let long = "a".repeat(HOST_BYTES_MAX + 1);
    assert_eq!(found(&routes, &long, "/", "GET", &[]), Some(0));
}

#[test]
fn a_path_can_be_no_prefix_in_the_middle_of_a_character() {
    // Paths of requests are ASCII; what is not does no harm.
    let routes = Routes::new(&[rule("*", "/ab", &[], &[])]).unwrap();
    assert_eq!(found(&routes, "", "/a\u{e9}", "GET", &[]), None);
}

#[test]
fn what_is_no_host_and_no_path_is_refused() {
    for host in ["", "a b", "*a.org", "a..org", ".org", "*.", "a/b", "*.*.org", "*[::1]", "a:80"] {
        assert!(HostRule::read(host).is_err(), "{host:?}");
    }
    for path in ["", "a", "/a?b", "/a#b", "/a b", "/\u{e9}"] {
        assert!(PathRule::prefix(path).is_err(), "{path:?}");
        assert!(PathRule::exact(path).is_err(), "{path:?}");
    }
    assert!(PathRule::exact(&"/".repeat(PATH_BYTES_MAX + 1)).is_err());
    let many: Vec<Rule> = (1..=PREFIX_LENGTHS_MAX + 1)
        .map(|n| rule("*", &("/".to_string() + &"a".repeat(n)), &[], &[]))
        .collect();
    assert!(Routes::new(&many[1..]).is_ok());
    assert_eq!(Routes::new(&many).unwrap_err(), RuleError::Lengths);
}

#[test]
fn prefixes_are_replaced() {
    #[rustfmt::skip] // columns
    let table = [
        // path          prefix   by       new
        ("/api/x?y=1",   "/api",  "/v2",   "/v2/x?y=1"),
        ("/api",         "/api",  "/v2",   "/v2"),
        ("/api?y",       "/api",  "/v2",   "/v2?y"),
        ("/api",         "/api",  "/",     "/"),
        ("/api?y",       "/api",  "/",     "/?y"),
        ("/api/x",       "/api",  "/",     "/x"),
        ("/api/",        "/api",  "/",     "/"),
        ("/x",           "",      "/v2",   "/v2/x"),
        ("/x",           "",      "/v2/",  "/v2/x"),
    ];
    for (path, prefix, by, expected) in table {
        let (first, rest) = rewritten(path, prefix, by);
        assert_eq!(first.to_string() + rest, expected, "{path} {prefix} {by}");
    }
}

#[test]
fn a_split_divides_by_its_parts() {
    assert_eq!(Split::new(&[]), None);
    assert_eq!(Split::new(&[(1, 0)]), None);
    let (mut rng, mut counts) = (Rng::new(7), [0_u32; 3]);
    let split = Split::new(&[(0, 90), (1, 0), (2, 10)]).unwrap();
    (0..10_000).for_each(|_| counts[split.draw(&mut rng) as usize] += 1);
    assert_eq!(counts[1], 0);
    assert!((850..1150).contains(&counts[2]), "{counts:?}");
}

const HOSTS: [&str; 5] = ["*", "a.org", "*.a.org", "*.b.a.org", "b.a.org"];
const PATHS: [&str; 8] = ["/", "/x", "/x/y", "=/x", "=/x/y", "/xy", "=/", "/x/y/z"];

/// The same by looking at all.
fn slowly(rules: &[Rule], host: &str, path: &str, method: &str) -> Option<u32> {
    let rank = |rule: &Rule| match &rule.host {
        HostRule::Exact(name) => (&**name == host).then_some(1000),
        HostRule::Under(suffix) => host.ends_with(&**suffix).then_some(suffix.len()),
        HostRule::Any => Some(0),
    };
    let best = rules.iter().filter_map(rank).max()?;
    let mut fitting: Vec<(u32, &Rule)> =
        (0..).zip(rules).filter(|(_, rule)| rank(rule) == Some(best)).collect();
    fitting.retain(|(_, rule)| match &rule.path {
        PathRule::Exact(exact) => &**exact == path,
        PathRule::Prefix(prefix) => path == &**prefix || path.starts_with(&(prefix.to_string() + "/")),
    });
    fitting.retain(|(_, rule)| rule.methods.is_empty() || rule.methods.iter().any(|one| &**one == method));
    let key = |rule: &Rule| match &rule.path {
        PathRule::Exact(path) => (1, path.len(), rule.methods.len().min(1)),
        PathRule::Prefix(path) => (0, path.len(), rule.methods.len().min(1)),
    };
    fitting.into_iter().rev().max_by_key(|(_, rule)| key(rule)).map(|(number, _)| number)
}

proptest! {
    #[test]
    fn the_index_finds_what_a_look_at_all_finds(
        drawn in prop::collection::vec((0usize..5, 0usize..8, any::<bool>()), 0..20),
        host in 0usize..6,
        path in 0usize..8,
        get in any::<bool>(),
    ) {
        let methods = |only| if only { vec!["GET"] } else { vec![] };
        let rules: Vec<Rule> =
            drawn.iter().map(|&(host, path, only)| rule(HOSTS[host], PATHS[path], &methods(only), &[])).collect();
        let routes = Routes::new(&rules).unwrap();
        let host = ["a.org", "x.a.org", "y.b.a.org", "b.a.org", "c.org", ""][host];
        let path = ["/", "/x", "/x/y", "/x/yz", "/xy", "/x/y/z/w", "/z", "/x/"][path];
        let method = if get { "GET" } else { "POST" };
        prop_assert_eq!(found(&routes, host, path, method, &[]), slowly(&rules, host, path, method));
    }

    #[test]
    fn no_host_and_path_make_it_panic(host in "\\PC{0,40}", path in "\\PC{0,40}") {
        let routes = Routes::new(&[rule("*.a", "/x", &[], &[]), rule("*", "/", &[], &[])]).unwrap();
        let _ = found(&routes, &host, &path, "GET", &[]);
    }
}
