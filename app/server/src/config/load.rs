//! Layering: defaults, then the file, then variables, then flags; and where each value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::de::{DeTable, DeValue};

use super::section::{Field, Kind, List, Section, Value};
use super::{Config, check};

/// Longest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a variable's name begins with.
const PREFIX: &str = "ARCHIPEL_";

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere.
    Default,
    /// In a file.
    File {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// In a variable.
    Variable(String),
    /// By a flag, named with its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) | Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// Why a configuration is refused. All of these are the operator's to mend.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file is too long to be a configuration.
    #[error("{}: {bytes} bytes, the limit for a configuration is {FILE_BYTES_MAX}", path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// It is not TOML.
    #[error("{origin}: this is not TOML: {reason}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What the parser says.
        reason: String,
    },
    /// There is no such setting.
    #[error("{origin}: there is no setting `{key}`; known here: {known}")]
    Unknown {
        /// Where.
        origin: Origin,
        /// What was written.
        key: String,
        /// What could be meant.
        known: String,
    },
    /// The value is not allowed.
    #[error("{origin}: `{key}` is {found}; allowed is {allowed}")]
    NotAllowed {
        /// Where.
        origin: Origin,
        /// The setting.
        key: String,
        /// Its value as written.
        found: String,
        /// What it could be.
        allowed: String,
    },
    /// A table lacks what has no default.
    #[error("{origin}: `{key}` is missing; it has no default")]
    Missing {
        /// The table.
        origin: Origin,
        /// The setting.
        key: String,
    },
    /// Two tables of a list are the same thing.
    #[error("{origin}: `{key}` is {found} a second time; each may be configured once")]
    Twice {
        /// The second.
        origin: Origin,
        /// The setting.
        key: String,
        /// Its value.
        found: String,
    },
    /// The design has it, this version does not.
    #[error("{origin}: `{key}` is {found}, which this version does not offer yet; use {instead}")]
    NotOffered {
        /// Where.
        origin: Origin,
        /// The setting.
        key: String,
        /// Its value.
        found: String,
        /// What is offered.
        instead: String,
    },
    /// A service that is not there.
    #[error("{origin}: `{key}` names the service \"{found}\"; [[proxy.service]] has {known}")]
    NoService {
        /// Where.
        origin: Origin,
        /// The setting.
        key: String,
        /// The name.
        found: String,
        /// The names that there are.
        known: String,
    },
    /// Anyone could enter.
    #[error(
        "{origin}: `redis.bind` is {bind}, which others can reach, and no password is set; set `redis.requirepass` (ARCHIPEL_REDIS__REQUIREPASS) or [[redis.users]], or bind 127.0.0.1"
    )]
    Open {
        /// Where.
        origin: Origin,
        /// The address.
        bind: std::net::IpAddr,
    },
    /// Anyone could read and act.
    #[error(
        "{origin}: `admin.bind` is {bind}, which others can reach, and the admin port asks for no password; bind 127.0.0.1 and reach it from elsewhere by a tunnel such as ssh -L {port}:127.0.0.1:{port}"
    )]
    OpenAdmin {
        /// Where.
        origin: Origin,
        /// The address.
        bind: std::net::IpAddr,
        /// The port.
        port: u16,
    },
    /// Anyone could register.
    #[error(
        "{origin}: `consul.bind` is {bind}, which others can reach, and who gives no token may ask; set [[consul.tokens]] and `consul.anonymous = \"none\"`, or bind 127.0.0.1 and reach it from elsewhere by a tunnel such as ssh -L {port}:127.0.0.1:{port}"
    )]
    OpenConsul {
        /// Where.
        origin: Origin,
        /// The address.
        bind: std::net::IpAddr,
        /// The port.
        port: u16,
    },
    /// Files for TLS of the proxy.
    #[error("{origin}: `{key}`: {source}")]
    ProxyTls {
        /// Where.
        origin: Origin,
        /// The setting.
        key: String,
        /// The reason.
        source: proxy::TlsError,
    },
    /// What was drawn for the proxy and is kept with the data.
    #[error(
        "{origin}: `{key}` without `proxy.secret` takes the secret in {}: {source}; remove that file to have another drawn, which sends clients to other endpoints, or set `proxy.secret`",
        path.display()
    )]
    OwnSecret {
        /// Where.
        origin: Origin,
        /// The setting.
        key: String,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It has nobody to prove who it is to.
    #[error(
        "{origin}: `{key}` is true, and this node is no member of a cluster: it has no name to show and no members to meet; make it one with --cluster (`cluster.enabled`) or --join, or use `tls`"
    )]
    NoCluster {
        /// Where.
        origin: Origin,
        /// The setting.
        key: String,
    },
    /// One of two settings that need each other.
    #[error("{origin}: `{key}` is set and `{other}` is not; one needs the other")]
    Half {
        /// Where.
        origin: Origin,
        /// The one.
        key: String,
        /// The other.
        other: String,
    },
    /// A member of a cluster has one worker.
    #[error(
        "{origin}: `storage.workers` is {workers}, and a member of a cluster has one worker in this version; set `storage.workers = 1`, or start more nodes"
    )]
    Workers {
        /// Where.
        origin: Origin,
        /// How many.
        workers: u64,
    },
    /// Other members would not know where to connect.
    #[error(
        "{origin}: `cluster.bind` is {bind}, all addresses of this machine, and other members must know one; set `cluster.advertise` to the one that they reach"
    )]
    Nowhere {
        /// Where.
        origin: Origin,
        /// The address.
        bind: std::net::IpAddr,
    },
    /// The offset leads out of the range of ports.
    #[error("{origin}: `port_offset` {offset} makes `{key}` {port}; the highest port is 65535")]
    PortTooHigh {
        /// Where the offset was given.
        origin: Origin,
        /// The port's setting.
        key: String,
        /// The offset.
        offset: u64,
        /// The sum.
        port: u64,
    },
}

/// Where values may come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file; it must exist.
    pub file: Option<PathBuf>,
    /// Variables; others than `ARCHIPEL_` are passed over.
    pub variables: Vec<(String, String)>,
    /// Flags: with dashes, the setting, the value.
    pub flags: Vec<(String, String, String)>,
}

/// A configuration that was checked.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Itself.
    pub config: Config,
    /// Where each value that is not a default was given, by `section.key`; an item of a list by
    /// `section[n].key`.
    pub origins: BTreeMap<String, Origin>,
    /// The file, if there is one.
    pub file: Option<PathBuf>,
}

impl Loaded {
    /// Reads all sources and checks what they say together.
    ///
    /// # Errors
    /// [`ConfigError`], the first one met.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        match &sources.file {
            None => Loaded::layered(None, sources),
            Some(path) => Loaded::layered(Some((path, &read(path)?)), sources),
        }
    }

    /// The same, with the file's name and text at hand; reads no file.
    ///
    /// # Errors
    /// As [`Loaded::load`].
    pub fn layered(file: Option<(&Path, &str)>, sources: &Sources) -> Result<Loaded, ConfigError> {
        let mut loaded = Loaded {
            config: Config::default(),
            origins: BTreeMap::new(),
            file: file.map(|(path, _)| path.to_owned()),
        };
        if let Some((path, text)) = file {
            loaded.take_text(path, text)?;
        }
        loaded.take_variables(&sources.variables)?;
        for (flag, key, value) in &sources.flags {
            loaded.take_word(&Origin::Flag(flag.clone()), key, value)?;
        }
        check::check(&loaded)?;
        Ok(loaded)
    }

    /// What a text says by itself: nothing is checked that settings must mean together.
    pub(crate) fn said(path: &Path, text: &str) -> Result<Loaded, ConfigError> {
        let mut loaded = Loaded { config: Config::default(), origins: BTreeMap::new(), file: None };
        loaded.take_text(path, text)?;
        Ok(loaded)
    }

    /// Where `key` was given.
    #[must_use]
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    fn take_text(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let mut reader = Reader { path, text, breaks: breaks(text), origins: &mut self.origins };
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            origin: reader.origin(error.span().unwrap_or(0..0)),
            reason: error.message().replace('\n', "; "),
        })?;
        reader.section(&mut self.config, table.get_ref(), table.span(), "")
    }

    fn take_variables(&mut self, variables: &[(String, String)]) -> Result<(), ConfigError> {
        for (name, value) in variables {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let key = rest.to_lowercase().replace("__", ".");
            // Without a section it may be anybody's, such as what a cluster manager sets for a service of
            // our name; with one it is meant for us.
            let is_ours = key.contains('.') || find(&mut self.config, &key, &mut |_| ());
            if is_ours {
                self.take_word(&Origin::Variable(name.clone()), &key, value)?;
            }
        }
        Ok(())
    }

    fn take_word(&mut self, origin: &Origin, key: &str, text: &str) -> Result<(), ConfigError> {
        let mut refused = None;
        let found = find(&mut self.config, key, &mut |value| {
            if !value.parse(text) {
                refused = Some(not_allowed(origin, key, format!("{text:?}"), value));
            }
        });
        if !found {
            let known = known(&mut self.config).join(", ");
            return Err(ConfigError::Unknown { origin: origin.clone(), key: key.to_owned(), known });
        }
        if let Some(error) = refused {
            return Err(error);
        }
        self.origins.insert(key.to_owned(), origin.clone());
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(ConfigError::TooLong { path: path.to_owned(), bytes });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn not_allowed(origin: &Origin, key: &str, found: String, value: &dyn Value) -> ConfigError {
    let found = if value.is_secret() { "not printed here".to_owned() } else { found };
    ConfigError::NotAllowed { origin: origin.clone(), key: key.to_owned(), found, allowed: value.allowed() }
}

/// Calls `visit` with the value at `section.key`; false if there is none. Lists have no such name.
fn find(section: &mut dyn Section, key: &str, visit: &mut dyn FnMut(&mut dyn Value)) -> bool {
    let (head, rest) = key.split_once('.').map_or((key, None), |(head, rest)| (head, Some(rest)));
    let Some(field) = section.fields().into_iter().find(|field| field.name == head) else { return false };
    match (field.kind, rest) {
        (Kind::Value(value), None) => {
            visit(value);
            true
        }
        (Kind::Section(section), Some(rest)) => find(section, rest, visit),
        (Kind::Value(_), Some(_)) | (Kind::Section(_), None) | (Kind::List(_), _) => false,
    }
}

/// The names of all single values.
fn known(config: &mut Config) -> Vec<String> {
    fn walk(section: &mut dyn Section, prefix: &str, out: &mut Vec<String>) {
        for field in section.fields() {
            match field.kind {
                Kind::Value(_) => out.push(format!("{prefix}{}", field.name)),
                Kind::Section(section) => walk(section, &format!("{prefix}{}.", field.name), out),
                Kind::List(_) => {}
            }
        }
    }
    let mut out = Vec::new();
    walk(config, "", &mut out);
    out
}

/// Reads one file's tables.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    /// See [`breaks`].
    breaks: Vec<usize>,
    origins: &'a mut BTreeMap<String, Origin>,
}

/// Where lines of `text` end. Looked for once: a place is told of each setting, and there may be tens of thousands.
fn breaks(text: &str) -> Vec<usize> {
    let bytes = text.bytes().enumerate();
    bytes.filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect()
}

impl Reader<'_> {
    fn origin(&self, span: Range<usize>) -> Origin {
        let line = self.breaks.partition_point(|at| *at < span.start) + 1;
        Origin::File { path: self.path.to_owned(), line }
    }

    /// The value as written, cut to its first line.
    fn written(&self, span: Range<usize>) -> String {
        let text = self.text.get(span).unwrap_or_default();
        text.lines().next().unwrap_or_default().chars().take(80).collect()
    }

    fn section(
        &mut self,
        section: &mut dyn Section,
        table: &DeTable<'_>,
        span: Range<usize>,
        prefix: &str,
    ) -> Result<(), ConfigError> {
        let required = section.required();
        let missing = required.iter().find(|name| !table.contains_key(**name));
        if let Some(name) = missing {
            return Err(ConfigError::Missing { origin: self.origin(span), key: format!("{prefix}{name}") });
        }
        let mut fields = section.fields();
        // In the order of the file, so that the first error is the first in reading.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let key = format!("{prefix}{}", name.get_ref());
            let Some(field) = fields.iter_mut().find(|field| field.name == name.get_ref().as_ref()) else {
                let known = fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ");
                return Err(ConfigError::Unknown { origin: self.origin(name.span()), key, known });
            };
            self.field(field, value.get_ref(), name.span(), value.span(), &key)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &mut Field<'_>,
        value: &DeValue<'_>,
        name: Range<usize>,
        span: Range<usize>,
        key: &str,
    ) -> Result<(), ConfigError> {
        match &mut field.kind {
            Kind::Value(setting) => {
                let origin = self.origin(name);
                if !setting.read(value) {
                    return Err(not_allowed(&origin, key, self.written(span), &**setting));
                }
                self.origins.insert(key.to_owned(), origin);
                Ok(())
            }
            Kind::Section(section) => match value.as_table() {
                Some(table) => self.section(&mut **section, table, span, &format!("{key}.")),
                None => Err(self.wrong_shape(key, name, span, format!("a table: [{key}]"))),
            },
            Kind::List(list) => self.list(&mut **list, value, name, span, key),
        }
    }

    fn list(
        &mut self,
        list: &mut dyn List,
        value: &DeValue<'_>,
        name: Range<usize>,
        span: Range<usize>,
        key: &str,
    ) -> Result<(), ConfigError> {
        let wanted = || format!("a list of tables: [[{key}]]");
        let Some(items) = value.as_array() else {
            return Err(self.wrong_shape(key, name, span, wanted()));
        };
        list.clear();
        for (at, item) in items.iter().enumerate() {
            let Some(table) = item.get_ref().as_table() else {
                return Err(self.wrong_shape(key, name, item.span(), wanted()));
            };
            self.origins.insert(format!("{key}[{at}]"), self.origin(item.span()));
            self.section(list.push(), table, item.span(), &format!("{key}[{at}]."))?;
        }
        Ok(())
    }

    fn wrong_shape(&self, key: &str, name: Range<usize>, span: Range<usize>, allowed: String) -> ConfigError {
        let found = self.written(span);
        ConfigError::NotAllowed { origin: self.origin(name), key: key.to_owned(), found, allowed }
    }
}
