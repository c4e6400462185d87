//! Configurations, right and wrong, from every source.

use proptest::prelude::*;

use super::*;

/// Name and value.
type Variables<'a> = &'a [(&'a str, &'a str)];
/// With dashes, setting, value.
type Flags<'a> = &'a [(&'a str, &'a str, &'a str)];

fn load(text: &str, variables: Variables<'_>, flags: Flags<'_>) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("archipel.toml");
    std::fs::write(&file, text).unwrap();
    Loaded::load(&Sources {
        file: Some(file),
        variables: variables.iter().map(|&(name, value)| (name.into(), value.into())).collect(),
        flags: flags.iter().map(|&(flag, key, value)| (flag.into(), key.into(), value.into())).collect(),
    })
}

fn config(text: &str) -> Config {
    load(text, &[], &[]).unwrap().config
}

/// The message without the directory.
fn error(text: &str) -> String {
    let message = load(text, &[], &[]).unwrap_err().to_string();
    match message.find("archipel.toml") {
        Some(at) => message[at..].to_owned(),
        None => message,
    }
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(config(""), Config::default());
}

#[test]
fn the_reference_is_the_default_and_is_the_committed_page() {
    let reference = reference();
    let read = config(&reference);
    assert_eq!(Config { keyspace: Vec::new(), ..read.clone() }, Config::default());
    assert_eq!(read.keyspaces(), Config::default().keyspaces());
    let page = include_str!("../../../../docs/archipel.toml");
    assert_eq!(page, reference, "write it anew: cargo run -- config reference > docs/archipel.toml");
}

#[test]
fn later_sources_win() {
    let text = "port_offset = 10\n[redis]\nport = 1\n";
    #[rustfmt::skip] // columns
    let table: [(Variables<'_>, Flags<'_>, u64, &str); 4] = [
        (&[],                                 &[],                                    1, "archipel.toml:3"),
        (&[("ARCHIPEL_REDIS__PORT", "2")],    &[],                                    2, "ARCHIPEL_REDIS__PORT"),
        (&[("ARCHIPEL_REDIS__PORT", "2")],    &[("--set redis.port", "redis.port", "3")], 3, "--set redis.port"),
        (&[("REDIS__PORT", "2"), ("ARCHIPEL_BIN", "/x")], &[],                        1, "archipel.toml:3"),
    ];
    for (variables, flags, port, origin) in table {
        let loaded = load(text, variables, flags).unwrap();
        assert_eq!(loaded.config.redis.port.get(), port, "{variables:?} {flags:?}");
        assert_eq!(loaded.config.redis_address().port(), port as u16 + 10);
        assert!(loaded.origin("redis.port").to_string().ends_with(origin), "{variables:?} {flags:?}");
    }
}

#[test]
fn every_value_can_be_written_in_the_ways_that_are_allowed() {
    assert_eq!(config("[storage]\ncache_bytes = 2097152").storage.cache_bytes.get(), 2 << 20);
    assert_eq!(config("[storage]\ncache_bytes = \"2MiB\"").storage.cache_bytes.get(), 2 << 20);
    assert_eq!(config("[storage]\ncache_bytes = \"2 GiB\"").storage.cache_bytes.get(), 2 << 30);
    assert_eq!(config("[redis]\nport = 0x10").redis.port.get(), 16);
    assert_eq!(config("[redis]\nbind = \"::1\"").redis.bind, "::1".parse::<IpAddr>().unwrap());
    let one = config("[[keyspace]]\nid = 3\nname = \"carts\"\neviction = \"allkeys-lru\"\nmemory = \"1MiB\"");
    let keyspaces = one.keyspaces();
    assert_eq!(keyspaces.len(), 16);
    assert_eq!(keyspaces[3].label(), "carts");
    assert_eq!(keyspaces[3].eviction, Eviction::AllkeysLru);
    assert_eq!(keyspaces[4].label(), "db4");
}

#[test]
fn a_member_says_where_it_is() {
    let one = config(
        "port_offset = 20\n[cluster]\nenabled = true\nbind = \"::\"\nadvertise = \"10.0.0.7\"\nzone = \"b\"",
    );
    assert_eq!(one.cluster_address(), "[::]:7421".parse().unwrap());
    assert_eq!(one.cluster.advertise.map(Address::get), Some("10.0.0.7".parse().unwrap()));
    assert_eq!(one.cluster.zone.as_str(), "b");
    // Without a cluster neither is asked for.
    config("[cluster]\nbind = \"0.0.0.0\"\n[storage]\nworkers = 2");
}

#[test]
fn a_proxy_is_planned_as_it_is_written() {
    let text = "[proxy]\nhead_ms = 7\n[[proxy.listener]]\nname = \"web\"\ntrusted = \"10.0.0.0/8\"\naccept_proxy = true\n\
                [[proxy.listener]]\nname = \"db\"\nport = 5432\nprotocol = \"tcp\"\nservice = \"two\"\n\
                [[proxy.service]]\nname = \"one\"\nendpoints = [\"127.0.0.1:1 3\", \"[::1]:2\"]\npolicy = \"least\"\n\
                [[proxy.service]]\nname = \"two\"\nendpoints = \"127.0.0.1:3\"\nsend_proxy = \"v1\"\npanic_percent = 50\n\
                adaptive = true\nrequests_min = 3\nrequests_max = 9\n\
                [[proxy.route]]\nservice = [\"one 90\", \"two 10\"]\nhost = \"*.Example.org\"\npath = \"/api/\"\n\
                rewrite = \"/v2\"\nmethods = [\"GET\"]\nheaders = \"X-Beta: yes\"\nrate = 5\ntry_ms = 9\n";
    let loaded = load(text, &[], &[]).unwrap();
    let plan = crate::proxy::plan(&loaded, loaded.config.proxy.workers.get()).unwrap();
    assert_eq!(plan.limits.head_ms, 7);
    assert_eq!(plan.listeners[1].kind, ::proxy::ListenerKind::Tcp { service: 1 });
    assert_eq!(plan.services[0].endpoints.iter().map(|one| one.weight).collect::<Vec<_>>(), [3, 1]);
    let sources = plan.listeners[0].sources.as_ref().unwrap();
    assert!(sources.accept_proxy && sources.trusted[0].has("10.1.2.3".parse().unwrap()));
    assert_eq!(plan.listeners[1].sources, None);
    assert_eq!(plan.services[1].send_proxy, Some(wire::proxied::ProxyVersion::V1));
    assert_eq!(plan.services[1].options.outliers.panic, mesh::outlier::Panic::UseAllBelow(50));
    assert_eq!(plan.services[0].options.adaptive, None);
    let learnt = plan.services[1].options.adaptive.unwrap();
    assert_eq!((learnt.least, learnt.most), (3, 9));
    let route = &plan.routes[0];
    assert_eq!(route.name, "*.example.org/api/ GET x-beta: yes");
    assert_eq!(route.rewrite, Some(("/api".to_owned(), "/v2".to_owned())));
    assert_eq!((route.split.services().collect::<Vec<_>>(), route.retry.try_ms), (vec![0, 1], 9));
    assert!(route.rate.is_some());
    let ask = mesh::route::Ask { host: "a.example.org", path: "/api/x", method: "GET" };
    assert_eq!(plan.index.find(&ask, &|rule| &*rule.name == "x-beta"), Some(0));
    assert_eq!(plan.index.find(&ask, &|_| false), None);
}

#[test]
fn spans_are_made_where_there_is_a_collector_and_its_secrets_are_never_shown() {
    let text =
        "[otlp]\nendpoint = \"http://a/b/\"\nheaders = [\"authorization: Bearer hunter2\"]\nsample = 7";
    let loaded = load(text, &[], &[]).unwrap();
    let told = |loaded: &Loaded| crate::proxy::plan(loaded, 1).unwrap().telling.spans;
    assert_eq!(told(&loaded), Some(::proxy::SpanPlan { sample: 7 }));
    assert_eq!(told(&load("[otlp]\nsample = 7", &[], &[]).unwrap()), None);
    assert!(!format!("{:?}", loaded.config).contains("hunter2"));
    let variables = [("ARCHIPEL_OTLP__ENDPOINT", "http://a"), ("ARCHIPEL_OTLP__HEADERS", "a: b\nc: d,e")];
    let config = load("", &variables, &[]).unwrap().config;
    assert_eq!(config.otlp.headers.expose().len(), 2);
    assert_eq!(config.otlp.endpoint.unwrap().0.port, 4318);
}

#[test]
fn port_zero_is_any_port_whatever_the_offset() {
    let config = config("port_offset = 10\n[redis]\nport = 0");
    assert_eq!(config.redis_address().port(), 0);
    assert_eq!(config.admin_address().port(), 7410);
}

#[test]
fn a_wrong_file_is_refused_with_line_key_and_what_is_allowed() {
    #[rustfmt::skip] // columns
    let table: &[(&str, &[&str])] = &[
        ("data_dir = ",                          &["archipel.toml:1", "not TOML"]),
        ("\n[redis]\nport = 1\nport = 2",        &["archipel.toml:4", "not TOML", "duplicate key"]),
        ("\ndatadir = \"x\"",                    &["archipel.toml:2", "`datadir`", "data_dir, port_offset"]),
        ("[redis]\n\nprot = 1",                  &["archipel.toml:3", "`redis.prot`", "bind, port"]),
        ("redis = 1",                            &["archipel.toml:1", "`redis` is 1", "a table: [redis]"]),
        ("keyspace = 1",                         &["`keyspace` is 1", "[[keyspace]]"]),
        ("[keyspace]\nid = 1",                   &["`keyspace`", "[[keyspace]]"]),
        ("data_dir = \"\"",                      &["`data_dir` is \"\"", "a path"]),
        ("port_offset = 5",                      &["`port_offset` is 5", "a multiple of 10"]),
        ("port_offset = -10",                    &["`port_offset` is -10", "a multiple of 10"]),
        ("port_offset = 60000",                  &["archipel.toml:1", "`redis.port` 66379", "65535"]),
        ("[log]\nlevel = \"loud\"",              &["archipel.toml:2", "`log.level` is \"loud\"", "\"error\", \"warn\""]),
        ("[log]\nformat = 1",                    &["`log.format` is 1", "\"text\", \"json\""]),
        ("[redis]\nport = 70000",                &["`redis.port` is 70000", "from 0 to 65535"]),
        ("[redis]\nport = \"6379\"",             &["`redis.port` is \"6379\"", "a whole number"]),
        ("[redis]\nbind = \"localhost\"",        &["`redis.bind` is \"localhost\"", "an IP address"]),
        ("[redis]\nclients_max = 0",             &["`redis.clients_max` is 0", "from 1 to"]),
        ("[redis]\nrequirepass = \"\"",          &["`redis.requirepass` is not printed here", "text of 1 to"]),
        ("[redis]\nbind = \"0.0.0.0\"",          &["archipel.toml:2", "0.0.0.0", "ARCHIPEL_REDIS__REQUIREPASS"]),
        ("[redis]\nbind = \"::\"",               &["::", "no password is set"]),
        ("[admin]\nbind = \"0.0.0.0\"",          &["archipel.toml:2", "admin.bind", "ssh -L"]),
        ("[dns]\ndomain = \"a..b\"",             &["archipel.toml:2", "dns.domain", "dots"]),
        ("[dns]\nrecursors = [\"dns\"]",         &["archipel.toml:2", "dns.recursors", "at most 4 addresses"]),
        ("[dns]\nrecursors = [\"1.1.1.1:0\"]",   &["archipel.toml:2", "dns.recursors"]),
        ("[dns]\nrecursors = [\"127.0.0.1:8600\"]", &["archipel.toml:2", "dns.recursors", "other than this node"]),
        ("[services]\nnode_name = \"a.b\"",      &["archipel.toml:2", "services.node_name", "dots"]),
        ("[redis]\ntls_cert = \"c.pem\"",        &["archipel.toml:2", "`redis.tls_cert` is set", "`redis.tls_key` is not"]),
        ("[redis]\ntls_key = \"c.pem\"",         &["`redis.tls_key` is set", "`redis.tls_cert` is not"]),
        ("[[redis.users]]\nname = \"a\"",        &["archipel.toml:1", "`redis.users[0].password` is missing"]),
        ("[[redis.users]]\nname = \"a b\"\npassword = \"x\"", &["archipel.toml:2", "`redis.users[0].name`"]),
        ("[[redis.users]]\nname = \"a\"\npassword = \"x\"\n[[redis.users]]\nname = \"a\"\npassword = \"y\"",
                                                 &["archipel.toml:5", "`redis.users[1].name`", "a second time"]),
        ("[redis]\nrequirepass = \"x\"\n[[redis.users]]\nname = \"default\"\npassword = \"x\"",
                                                 &["archipel.toml:4", "\"default\" a second time"]),
        ("[storage]\npin_workers = 1",           &["`storage.pin_workers` is 1", "true or false"]),
        ("[storage]\nworkers = 0",               &["archipel.toml:2", "`storage.workers` is 0", "from 1 to 16"]),
        ("[storage]\nsegment_bytes = \"1KiB\"",  &["`storage.segment_bytes` is \"1KiB\"", "from 16KiB to 1GiB"]),
        ("[storage]\nsegment_bytes = 20000",     &["`storage.segment_bytes`", "a multiple of 4096"]),
        ("[storage]\ncache_bytes = \"1MB\"",     &["`storage.cache_bytes` is \"1MB\"", "MiB"]),
        ("[storage]\ncache_bytes = \"99999999999TiB\"", &["`storage.cache_bytes`", "from 1MiB"]),
        ("[cluster]\nenabled = true\n[storage]\nworkers = 2", &["archipel.toml:4", "`storage.workers` is 2", "one worker"]),
        ("[cluster]\nenabled = true\nbind = \"0.0.0.0\"", &["archipel.toml:3", "`cluster.bind` is 0.0.0.0", "`cluster.advertise`"]),
        ("[cluster]\nadvertise = \"0.0.0.0\"",  &["`cluster.advertise` is \"0.0.0.0\"", "of one machine"]),
        ("[cluster]\nzone = \"a b\"",           &["archipel.toml:2", "`cluster.zone` is \"a b\""]),
        ("[[keyspace]]\nid = 1\ncopies = 0",    &["archipel.toml:3", "`keyspace[0].copies` is 0", "from 1 to 16"]),
        ("[[keyspace]]\nname = \"x\"",           &["archipel.toml:1", "`keyspace[0].id` is missing"]),
        ("[[keyspace]]\nid = 16",                &["archipel.toml:2", "`keyspace[0].id` is 16", "from 0 to 15"]),
        ("[[keyspace]]\nid = 1\n[[keyspace]]\nid = 1", &["archipel.toml:4", "`keyspace[1].id` is 1 a second time"]),
        ("[[keyspace]]\nid = 1\nname = \"x\"\n[[keyspace]]\nid = 2\nname = \"x\"",
                                                 &["archipel.toml:6", "`keyspace[1].name`", "a second time"]),
        ("[[keyspace]]\nid = 1\nmode = \"multi\"", &["archipel.toml:3", "`keyspace[0].mode` is \"multi\"", "not offer yet"]),
        ("[[keyspace]]\nid = 1\npartitions = 1025", &["archipel.toml:3", "`keyspace[0].partitions` is 1025", "from 1 to 1024"]),
        ("[[keyspace]]\nid = 1\ndurability = \"never\"", &["`keyspace[0].durability`", "\"always\", \"everysec\""]),
        ("[[keyspace]]\nid = 1\neviction = \"lru\"", &["`keyspace[0].eviction`", "\"allkeys-lru\""]),
        ("[otlp]\nendpoint = \"https://a:4318\"", &["archipel.toml:2", "`otlp.endpoint` is \"https://a:4318\"", "run a collector beside"]),
        ("[otlp]\nsample = 0",                    &["archipel.toml:2", "`otlp.sample` is 0", "from 1 to"]),
        ("[otlp]\ninterval_ms = 99",              &["archipel.toml:2", "`otlp.interval_ms` is 99", "from 100 to"]),
        ("[otlp]\nheaders = [\"hunter2\"]",       &["archipel.toml:2", "`otlp.headers` is not printed here", "name: value"]),
    ];
    refuses(table);
}

/// Each text is refused in words that have these parts.
fn refuses(table: &[(&str, &[&str])]) {
    for (text, parts) in table {
        let message = error(text);
        for part in *parts {
            assert!(message.contains(part), "{text:?}: {message:?} lacks {part:?}");
        }
    }
}

#[test]
fn tokens_that_cannot_be_are_refused_and_a_port_for_all_without_any() {
    #[rustfmt::skip] // columns
    let table: &[(&str, &[&str])] = &[
        ("[consul]\nbind = \"0.0.0.0\"",         &["archipel.toml:2", "consul.bind", "[[consul.tokens]]", "ssh -L"]),
        ("[consul]\nbind = \"0.0.0.0\"\nanonymous = \"read\"\n[[consul.tokens]]\nname = \"a\"\nsecret = \"x\"",
                                                 &["archipel.toml:2", "`consul.anonymous = \"none\"`"]),
        ("[[consul.tokens]]\nname = \"a\"",      &["archipel.toml:1", "`consul.tokens[0].secret` is missing"]),
        ("[[consul.tokens]]\nname = \"a\"\nsecret = \"x y\"", &["archipel.toml:3", "is not printed here", "without blanks"]),
        ("[[consul.tokens]]\nname = \"a\"\nsecret = \"x\"\nkeys = \"all\"",
                                                 &["archipel.toml:4", "`consul.tokens[0].keys`", "\"none\", \"read\", \"write\""]),
        ("[[consul.tokens]]\nname = \"a\"\nsecret = \"x\"\n[[consul.tokens]]\nname = \"a\"\nsecret = \"y\"",
                                                 &["archipel.toml:5", "`consul.tokens[1].name`", "a second time"]),
        ("[[consul.tokens]]\nname = \"a\"\nsecret = \"x\"\n[[consul.tokens]]\nname = \"b\"\nsecret = \"x\"",
                                                 &["archipel.toml:6", "`consul.tokens[1].secret` is that of \"a\" a second time"]),
        ("[[consul.tokens]]\nname = \"a\"\nsecret = \"x\"\nkey_prefix = [\"app/\"]",
                                                 &["archipel.toml:4", "`consul.tokens[0].key_prefix`", "\"app/ write\""]),
        ("[[consul.tokens]]\nname = \"a\"\nsecret = \"x\"\nservice_prefix = [\"web- read\", \"web- write\"]",
                                                 &["archipel.toml:4", "`consul.tokens[0].service_prefix` is \"web-\" a second time"]),
    ];
    refuses(table);
}

#[test]
fn a_token_for_some_services_allows_nothing_of_the_others_unless_it_says_so() {
    let token = "[[consul.tokens]]\nname = \"a\"\nsecret = \"x\"\n";
    #[rustfmt::skip] // columns
    let table = [
        ("",                                                        Access::Write),
        ("services = \"read\"",                                     Access::Read),
        ("service_prefix = \"web- write\"",                         Access::None),
        ("service_prefix = [\"web- write\"]\nservices = \"read\"", Access::Read),
        ("key_prefix = [\"app/ write\", \"app/own/ none\"]",        Access::Write),
    ];
    for (text, expected) in table {
        let config = config(&format!("{token}{text}"));
        assert_eq!(config.consul.tokens[0].of_services(), expected, "{text}");
    }
}

#[test]
fn a_proxy_that_cannot_be_is_refused_with_the_setting() {
    #[rustfmt::skip] // columns
    let table: &[(&str, &[&str])] = &[
        ("[[proxy.listener]]\nname = \"a\"\nmutual = true\ntls = true\n[[proxy.certificate]]\ncert = \"a\"\nkey = \"b\"",
            &["archipel.toml:3", "`proxy.listener[0].mutual` is true", "`tls`"]),
        ("[[proxy.listener]]\nname = \"a\"\nallow = \"members\"",
            &["archipel.toml:3", "`proxy.listener[0].allow`", "`proxy.listener[0].mutual`"]),
        ("[[proxy.listener]]\nname = \"a\"\nmutual = true\nallow = \"spiffe://example.org/web\"",
            &["archipel.toml:4", "`proxy.listener[0].allow`", "spiffe://CLUSTER/node/NODE"]),
        ("[[proxy.service]]\nname = \"a\"\nendpoints = \"127.0.0.1:1\"\nmutual = true\ntls_name = \"b\"",
            &["archipel.toml:5", "`proxy.service[0].tls_name`", "`proxy.service[0].tls`"]),
        ("[[proxy.listener]]\nname = \"a\"\naccept_proxy = true",
                                                 &["archipel.toml:3", "accept_proxy` is set", "trusted` is not"]),
        ("[[proxy.listener]]\nname = \"a\"\ntrusted = [\"10.0.0.1/8\"]",
                                                 &["archipel.toml:3", "trusted`", "a network or an address"]),
        ("[[proxy.listener]]\nname = \"a\"\nclient_field = \"forwarded\"",
                                                 &["archipel.toml:3", "client_field` is set", "trusted` is not"]),
        ("[[proxy.service]]\nname = \"a\"\nendpoints = \"127.0.0.1:1\"\nprotocol = \"http2\"\nsend_proxy = \"v2\"",
                                                 &["archipel.toml:5", "send_proxy` is v2", "requests of many clients"]),
        ("[[proxy.service]]\nname = \"a\"\nendpoints = \"127.0.0.1:1\"\nadaptive = true\nrequests_min = 5\nrequests_max = 4",
                                                 &["archipel.toml:5", "requests_min` is 5", "at most `requests_max`, which is 4"]),
        ("[[proxy.service]]\nname = \"a\"\nendpoints = \"127.0.0.1:1\"\nsticky_cookie = \"a b\"",
                                                 &["archipel.toml:4", "sticky_cookie`", "a cookie's name"]),
        ("[[proxy.service]]\nname = \"a\"\nendpoints = \"127.0.0.1:1\"\nsticky_ttl_s = 5",
                                                 &["archipel.toml:4", "sticky_ttl_s` is set", "sticky_cookie` is not"]),
        ("[[proxy.service]]\nname = \"a\"\nendpoints = \"127.0.0.1:1\"\n[[proxy.route]]\nservice = \"a\"\nmirror = \"b 5\"",
                                                 &["archipel.toml:6", "mirror` names the service \"b\"", "has a"]),
    ];
    for (text, parts) in table {
        let message = error(text);
        for part in *parts {
            assert!(message.contains(part), "{text:?}: {message:?} lacks {part:?}");
        }
    }
}

#[test]
fn wrong_variables_and_flags_are_named() {
    #[rustfmt::skip] // columns
    let table: [(Variables<'_>, Flags<'_>, &str); 5] = [
        (&[("ARCHIPEL_REDIS__PORT", "x")],     &[], "ARCHIPEL_REDIS__PORT: `redis.port` is \"x\"; allowed is"),
        (&[("ARCHIPEL_REDIS__PROT", "1")],     &[], "ARCHIPEL_REDIS__PROT: there is no setting `redis.prot`"),
        (&[("ARCHIPEL_PORT_OFFSET", "1")],     &[], "ARCHIPEL_PORT_OFFSET: `port_offset` is \"1\""),
        (&[], &[("--port-offset", "port_offset", "1")], "--port-offset: `port_offset` is \"1\"; allowed is a multiple"),
        (&[], &[("--set keyspace", "keyspace", "1")],   "--set keyspace: there is no setting `keyspace`"),
    ];
    for (variables, flags, expected) in table {
        let message = load("", variables, flags).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message:?}");
    }
}

#[test]
fn a_password_opens_the_way_to_other_addresses_and_is_never_shown() {
    let open = "[redis]\nbind = \"0.0.0.0\"\nrequirepass = \"hunter2\"";
    assert!(config(open).needs_password());
    assert!(!format!("{:?}", config(open)).contains("hunter2"));
    let user = "[redis]\nbind = \"0.0.0.0\"\n[[redis.users]]\nname = \"ann\"\npassword = \"hunter2\"";
    assert!(config(user).needs_password());
    assert!(!format!("{:?}", config(user)).contains("hunter2"));
    let token = "[consul]\nbind = \"0.0.0.0\"\n[[consul.tokens]]\nname = \"a\"\nsecret = \"hunter2\"";
    assert_eq!(config(token).consul.own_token().map(Secret::expose), Some("hunter2"));
    assert!(!format!("{:?}", config(token)).contains("hunter2"));
}

#[test]
fn a_file_that_is_missing_or_huge_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("absent.toml");
    let load = |file: &std::path::Path| {
        Loaded::load(&Sources { file: Some(file.to_owned()), ..Sources::default() }).unwrap_err().to_string()
    };
    assert!(load(&file).contains("absent.toml"));
    std::fs::write(&file, "#".repeat(2 << 20)).unwrap();
    assert!(load(&file).contains("the limit for a configuration is"));
}

proptest! {
    #[test]
    fn no_text_makes_loading_panic(text in "\\PC{0,200}") {
        let _ = load(&text, &[], &[]);
    }

    #[test]
    fn no_line_of_the_reference_that_is_damaged_makes_loading_panic(at in 0usize..6000, with in any::<char>()) {
        let mut text: Vec<char> = reference().chars().collect();
        let at = at % text.len();
        text[at] = with;
        let _ = load(&text.into_iter().collect::<String>(), &[], &[]);
    }
}
