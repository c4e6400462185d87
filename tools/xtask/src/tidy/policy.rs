//! What is allowed where: the tables behind the rules. To change the architecture, change this file.

/// The order inside `core/`: a crate may use only crates of a lower rank.
///
/// Planes share a rank, so they cannot use each other.
pub const CORE_ORDER: &[(&str, u8)] = &[
    ("kernel", 0),
    ("wire", 1),
    ("journal", 1),
    ("placement", 1),
    ("consensus", 1),
    ("p2p", 2),
    ("storage", 2),
    ("mesh", 2),
    ("events", 2),
    ("control", 3),
    ("script", 3),
    ("gateway", 4),
    ("node", 5),
];

/// Planes know no protocol, so `wire` is closed to them although its rank is lower.
pub const PLANES: &[&str] = &["p2p", "storage", "mesh", "events"];

/// The Lua engine runs values of the store, so of what lies below it, it sees only these.
pub const SCRIPT_SEES: &[&str] = &["kernel", "storage"];

/// What a crate of `core/` may use from outside: `no_std`, small, and without a clock or chance of its own.
pub const CORE_DEPENDENCIES: &[&str] = &[
    "crc32fast",
    "hashbrown",
    "httparse",
    "indexmap",
    "itoa",
    "libm",
    "memchr",
    "rapidhash",
    "ryu",
    "sha1",
    "sha2",
    "smallvec",
    "thiserror",
];

/// What one crate of `core/` may use besides.
pub const CORE_EXTRA: &[(&str, &str)] = &[("script", "mlua"), ("consensus", "raft"), ("consensus", "slog")];

/// Crates of `core/` that hold a foreign engine which needs `std`; `core/clippy.toml` bans the clock,
/// sockets and threads there instead.
pub const STD_IN_CORE: &[&str] = &["consensus", "script"];

/// What `core/clippy.toml` must ban, so that the exemption above costs nothing.
pub const CORE_BANS: &[&str] = &[
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::thread::spawn",
    "std::net::TcpStream::connect",
    "std::net::TcpListener::bind",
    "std::hash::RandomState::new",
];

/// Dependencies that one place alone may name, so that an engine can be replaced behind one door.
/// A place is `folder` or `folder/crate`; a name that ends with `*` is all that begin with it.
pub const OWNERS: &[(&str, &[&str])] = &[
    ("anyhow", &["app", "tools"]),
    ("fjall", &["shell/disk"]),
    ("h2", &["shell/proxy"]),
    ("libp2p*", &["shell/fabric"]),
    ("mlua", &["core/script"]),
    ("raft", &["core/consensus"]),
    ("ring", &["shell/fabric"]),
    ("rustls", &["shell/runtime", "shell/fabric", "shell/proxy", "app"]),
    ("slog", &["core/consensus"]),
    ("tokio", &["shell/fabric", "shell/proxy", "app"]),
];

/// Words that only one folder of a tree may use in code, where a crate is too wide a door: the word, the tree, the folder.
/// A word that ends with `*` is all that begin with it. Tests may use them anywhere.
pub const ROOMS: &[(&str, &str, &str)] = &[
    ("libp2p*", "", "shell/fabric/src/overlay"),
    // The overlay has an executor of its own (docs/decisions/0008); nothing else of the shell runs on one.
    ("tokio", "shell/fabric", "shell/fabric/src/overlay"),
    // Traits of sockets, for queues (docs/decisions/0012).
    ("tokio", "shell/proxy", "shell/proxy/src/h2"),
];

/// Crates that may contain `unsafe`, each with the reason.
pub const UNSAFE: &[(&str, &str)] = &[];

/// Lines of a file that are not tests.
pub const FILE_LINES_MAX: usize = 600;

/// Lines of a file with its tests.
pub const FILE_LINES_WITH_TESTS_MAX: usize = 900;
