//! What a node says when it serves: where it is and three things to try.

use std::io::IsTerminal;

use server::Server;
use server::config::{Format, Loaded};

/// Prints it on stderr; to programs it is one message like others.
pub fn print(loaded: &Loaded, server: &Server) {
    let data = &loaded.config.data_dir;
    let data = std::fs::canonicalize(data).unwrap_or_else(|_| data.clone());
    let (redis, admin) = (server.redis, server.admin_address);
    if loaded.config.log.format == Format::Json {
        let p2p = server.p2p.map(|address| address.to_string());
        let consul = server.services.as_ref().map(|services| services.consul.to_string());
        let dns = server.services.as_ref().map(|services| services.dns.to_string());
        let proxy = proxy(server);
        tracing::info!(%redis, %admin, p2p, consul, dns, proxy, data_dir = %data.display(), version = env!("CARGO_PKG_VERSION"), "serving");
        return;
    }
    let (bold, plain) = if std::io::stderr().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let security = match (loaded.config.redis.tls_cert.is_some(), loaded.config.needs_password()) {
        (false, false) => "",
        (true, false) => " (TLS)",
        (false, true) => " (password)",
        (true, true) => " (TLS, password)",
    };
    let cli = redis_cli(loaded, server);
    let offset = match loaded.config.port_offset.get() {
        0 => String::new(),
        offset => format!(" --port-offset {offset}"),
    };
    let p2p = server.p2p.map(|address| format!("  libp2p  {address}\n")).unwrap_or_default();
    let services = server
        .services
        .as_ref()
        .map(|services| format!("  consul  {}\n  dns     {}, UDP and TCP\n", services.consul, services.dns));
    let services = services.unwrap_or_default();
    let proxied: String =
        server.proxy().iter().map(|(name, address)| format!("  proxy   {address} ({name})\n")).collect();
    eprintln!(
        "\n{bold}archipel {version}{plain} is serving\n\n\
         \x20 Redis   {redis}{security}\n\
         \x20 admin   http://{admin}/health  /metrics  /status\n\
         {p2p}{services}{proxied}\
         \x20 data    {data}\n\n\
         Try:\n\
         \x20 {cli} set greeting hello\n\
         \x20 curl http://{admin}/status\n\
         \x20 archipel node status{offset}\n",
        version = env!("CARGO_PKG_VERSION"),
        data = data.display(),
    );
}

/// Where the proxy listens, as one text; `None` if it does not.
pub fn proxy(server: &Server) -> Option<String> {
    let listeners: Vec<String> =
        server.proxy().iter().map(|(name, address)| format!("{name}={address}")).collect();
    (!listeners.is_empty()).then(|| listeners.join(","))
}

fn redis_cli(loaded: &Loaded, server: &Server) -> String {
    let mut out = String::from("redis-cli");
    if !server.redis.ip().is_loopback() && !server.redis.ip().is_unspecified() {
        out.push_str(&format!(" -h {}", server.redis.ip()));
    }
    out.push_str(&format!(" -p {}", server.redis.port()));
    if loaded.config.redis.tls_cert.is_some() {
        out.push_str(" --tls --cacert CA.pem");
    }
    if loaded.config.needs_password() {
        out.push_str(" --askpass");
    }
    out
}
