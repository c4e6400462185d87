//! What the tests need from outside, installed by package name: apt, then pip and npm below `target/`.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How to see that something is there, and the Debian package that brings it.
const PACKAGES: &[(&[&str], &str)] = &[
    (&["cc", "--version"], "build-essential"),
    (&["make", "--version"], "build-essential"),
    (&["redis-server", "--version"], "redis-server"),
    (&["redis-cli", "--version"], "redis-tools"),
    (&["redis-benchmark", "--version"], "redis-tools"),
    (&["python3", "-c", "import ensurepip, venv"], "python3-venv"),
    (&["curl", "--version"], "curl"),
    // It has no flag that it ends well after.
    (&["sh", "-c", "command -v wrk"], "wrk"),
    (&["node", "--version"], "nodejs"),
    (&["npm", "--version"], "npm"),
    (&["dig", "-v"], "bind9-dnsutils"),
    (&["haproxy", "-v"], "haproxy"),
    (&["nginx", "-v"], "nginx"),
    (&["victoria-metrics", "-version"], "victoria-metrics"),
    (&["prometheus", "--version"], "prometheus"),
    // A standby of PostgreSQL whose leader's lock is in our keys, and what patroni asks both with.
    (&["sh", "-c", "ls /usr/lib/postgresql/*/bin/postgres"], "postgresql"),
    (&["patroni", "--version"], "patroni"),
    (&["/usr/bin/python3", "-c", "import consul"], "python3-consul"),
    (&["/usr/bin/python3", "-c", "import psycopg2"], "python3-psycopg2"),
    (&["h2load", "--version"], "nghttp2-client"),
    (&["chromium", "--version"], "chromium"),
    // What faults on a cluster need: hosts of its own, and clocks that differ.
    (&["unshare", "--version"], "util-linux"),
    (&["ip", "-V"], "iproute2"),
    (&["nft", "--version"], "nftables"),
    (&["sh", "-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"], "libfaketime"),
];

/// What the scenarios in JavaScript use: a package, and which of its versions.
const NODE_MODULES: &[(&str, &str)] = &[
    ("ioredis", "5"),
    ("libp2p", "3"),
    ("@libp2p/crypto", "5"),
    ("@libp2p/identify", "4"),
    ("@libp2p/kad-dht", "16"),
    ("@libp2p/peer-id", "6"),
    ("@libp2p/ping", "3"),
    ("@libp2p/tcp", "11"),
    ("@chainsafe/libp2p-noise", "17"),
    ("@chainsafe/libp2p-yamux", "8"),
    ("@multiformats/multiaddr", "13"),
    ("multiformats", "14"),
];

/// The port that the Debian package's own service takes, and a node's default.
const REDIS_PORT: u16 = 6379;

/// Where the clients are.
pub struct Clients {
    /// The interpreter that has `redis`, `consul`, `grpc` and the others of its scenarios, if there is one.
    pub python: Option<PathBuf>,
    /// The folder that holds the packages of [`NODE_MODULES`], if there is one.
    pub node_modules: Option<PathBuf>,
    /// There is a redis-cli.
    pub redis_cli: bool,
    /// What could not be had, with the reason; each is a skip.
    pub missing: Vec<String>,
}

/// Installs what is missing. What cannot be installed is reported, not fatal: the caller decides.
pub fn install(target: &Path) -> Clients {
    let mut missing = Vec::new();
    if let Err(error) = debian() {
        missing.push(format!("{error:#}"));
    }
    let home = target.join("acceptance");
    let mut note = |what: &str, result: Result<PathBuf>| match result {
        Ok(path) => Some(path),
        Err(error) => {
            missing.push(format!("{what}: {error:#}"));
            None
        }
    };
    let python = note("redis-py", redis_py(&home));
    let node_modules = note("packages of npm", node_modules(&home));
    Clients { python, node_modules, redis_cli: works(&["redis-cli", "--version"]), missing }
}

fn debian() -> Result<()> {
    let mut wanted: Vec<&str> =
        PACKAGES.iter().filter(|(probe, _)| !works(probe)).map(|(_, name)| *name).collect();
    wanted.dedup();
    if wanted.is_empty() {
        return stop_service(false);
    }
    println!("installing {}", wanted.join(" "));
    apt(&["update", "-q"])?;
    let brings_service = wanted.contains(&"redis-server");
    apt(&[&["install", "-qy", "--no-install-recommends"], &wanted[..]].concat())?;
    stop_service(brings_service)
}

/// Installs one package if its program is not there.
pub fn ensure(program: &str, package: &str) -> Result<()> {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()));
    if found {
        return Ok(());
    }
    apt(&["update", "-q"])?;
    apt(&["install", "-qy", "--no-install-recommends", package])
}

/// Does this command run and succeed?
pub fn works(probe: &[&str]) -> bool {
    let mut command = Command::new(probe[0]);
    command.args(&probe[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn apt(arguments: &[&str]) -> Result<()> {
    run(as_root(&["apt-get"])?.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// A command that runs as root: itself if we are, by `sudo` if that asks no question.
fn as_root(words: &[&str]) -> Result<Command> {
    let id = Command::new("id").arg("-u").output()?;
    if id.stdout.trim_ascii() == b"0" {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        return Ok(command);
    }
    if !works(&["sudo", "-n", "true"]) {
        bail!("`{}` needs root, and sudo would ask for a password; run it yourself", words.join(" "));
    }
    let mut command = Command::new("sudo");
    command.arg("-n").args(words);
    Ok(command)
}

/// Debian starts redis-server when it installs it, on the port a node wants. We stop it if we brought it,
/// or on a CI machine; a service that the owner of the machine runs is left alone and named.
fn stop_service(ours: bool) -> Result<()> {
    let active = works(&["systemctl", "is-active", "--quiet", "redis-server"])
        || works(&["service", "redis-server", "status"]);
    if !active || !crate::server::ping(REDIS_PORT) {
        return Ok(());
    }
    if !ours && !crate::suite::is_ci() {
        println!(
            "note: the redis-server service holds port {REDIS_PORT}; `systemctl stop redis-server` frees it for a node"
        );
        return Ok(());
    }
    println!("stopping the redis-server service, which holds port {REDIS_PORT}");
    run(&mut as_root(&["service", "redis-server", "stop"])?)
}

fn redis_py(home: &Path) -> Result<PathBuf> {
    let venv = home.join("venv");
    let python = venv.join("bin/python");
    let probe = python.to_string_lossy().into_owned();
    if works(&[&probe, "-c", "import redis, consul, grpc, websockets, opentelemetry.proto"]) {
        return Ok(python);
    }
    std::fs::create_dir_all(home)?;
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(&python).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "redis>=5,<8",
        "python-consul2>=0.1.5,<0.2",
        "grpcio>=1.60,<2",
        "websockets>=15,<16",
        "opentelemetry-proto>=1.30,<2",
    ]))?;
    Ok(python)
}

fn node_modules(home: &Path) -> Result<PathBuf> {
    let modules = home.join("node_modules");
    if NODE_MODULES.iter().all(|(name, _)| modules.join(name).join("package.json").exists()) {
        return Ok(modules);
    }
    std::fs::create_dir_all(home)?;
    run(Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--silent", "--prefix"])
        .arg(home)
        .args(NODE_MODULES.iter().map(|(name, version)| format!("{name}@{version}"))))?;
    Ok(modules)
}

/// Runs a command without input; an error if it does not succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = format!(
        "{} {}",
        command.get_program().to_string_lossy(),
        command.get_args().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ")
    );
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("`{shown}` did not start"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}
