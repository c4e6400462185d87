//! TLS of the proxy: certificates by the name that a client asks for, read anew when their files change, and TLS to services.
//!
//! Names are those that the certificates are made out to. A client that names nobody is shown the first certificate; one
//! that names somebody for whom there is none is refused, because a certificate of another's would be refused by it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use kernel::NodeId;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use thiserror::Error;
use webpki::EndEntityCert;

use crate::mutual::{Allowed, NodeTls};

/// A file of certificates or a key, in bytes.
pub const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Certificates of a proxy.
pub const CERTIFICATES_MAX: usize = 1_000;

/// Why TLS cannot be offered.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read or is not PEM.
    #[error("cannot read {} as PEM: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: pem::Error,
    },
    /// It is too long to be one.
    #[error("{} has {bytes} bytes, the limit for certificates and keys is {PEM_BYTES_MAX}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The file has no certificate.
    #[error("{} has no certificate (a block that begins with -----BEGIN CERTIFICATE-----)", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// It is made out to nobody.
    #[error("the certificate in {} names no host (no DNS name among its subject's alternative names)", path.display())]
    NoName {
        /// The file.
        path: PathBuf,
    },
    /// What is in the files cannot be used, or not together.
    #[error("what is in {} cannot be used: {source}", path.display())]
    Refused {
        /// The certificate's file.
        path: PathBuf,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no certificate at all.
    #[error("TLS needs a certificate")]
    None,
    /// A node's key cannot prove that it is the node.
    #[error("the node's key is not one of Ed25519, or not that of its id")]
    NodeKey,
}

/// Where a certificate chain and its key are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PairFiles {
    /// The chain, the server's certificate first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Certificates by the names that they are made out to. Shared by all threads and listeners.
pub struct Keys {
    files: Vec<PairFiles>,
    held: RwLock<Held>,
}

struct Held {
    shown: Arc<Shown>,
    stamps: Vec<Option<Stamp>>,
}

/// What can be shown to clients.
struct Shown {
    exact: BTreeMap<String, Arc<CertifiedKey>>,
    /// By what follows the star, which begins with a dot.
    under: BTreeMap<String, Arc<CertifiedKey>>,
    first: Arc<CertifiedKey>,
}

/// By what a file is seen to be another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    bytes: u64,
    inode: u64,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No key is ever printed.
        f.debug_struct("Keys").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Keys {
    /// Those in these files, at most [`CERTIFICATES_MAX`] of them. Where two have one name, the first is shown.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn load(files: Vec<PairFiles>) -> Result<Keys, TlsError> {
        let stamps = stamps(&files);
        let shown = Arc::new(Shown::load(&files)?);
        Ok(Keys { files, held: RwLock::new(Held { shown, stamps }) })
    }

    /// Reads them again if a file is not what it was. Whether it was; clients that come from now on see it.
    ///
    /// # Errors
    /// [`TlsError`]: the last good ones stay. It is not said again before a file changes again.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        // Looked at first: what is written meanwhile is seen the next time.
        let now = stamps(&self.files);
        if self.held.read().unwrap_or_else(PoisonError::into_inner).stamps == now {
            return Ok(false);
        }
        let shown = Shown::load(&self.files);
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.stamps = now;
        held.shown = Arc::new(shown?);
        Ok(true)
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let shown = Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner).shown);
        let Some(name) = name else { return Some(Arc::clone(&shown.first)) };
        let name = name.to_ascii_lowercase();
        let under = || name.find('.').and_then(|dot| shown.under.get(&name[dot..]));
        shown.exact.get(&name).or_else(under).cloned()
    }
}

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

impl Shown {
    fn load(files: &[PairFiles]) -> Result<Shown, TlsError> {
        let (mut exact, mut under, mut first) = (BTreeMap::new(), BTreeMap::new(), None);
        for pair in files {
            let (key, names) = certified(pair)?;
            for name in names {
                match name.strip_prefix('*') {
                    Some(suffix) => under.entry(suffix.to_owned()).or_insert_with(|| Arc::clone(&key)),
                    None => exact.entry(name).or_insert_with(|| Arc::clone(&key)),
                };
            }
            first.get_or_insert(key);
        }
        Ok(Shown { exact, under, first: first.ok_or(TlsError::None)? })
    }
}

fn stamps(files: &[PairFiles]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let data = fs::metadata(path).ok()?;
        let modified = (data.mtime(), data.mtime_nsec());
        Some(Stamp { modified, bytes: data.len(), inode: data.ino() })
    };
    files.iter().flat_map(|pair| [stamp(&pair.cert), stamp(&pair.key)]).collect()
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

fn pem(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Pem { path: path.to_owned(), source: pem::Error::Io(source) };
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    if bytes > PEM_BYTES_MAX {
        return Err(TlsError::TooLong { path: path.to_owned(), bytes });
    }
    fs::read(path).map_err(unreadable)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = pem(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let read = read.map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
    if read.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(read) }
}

pub(crate) fn refused<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    path: &Path,
) -> impl Fn(E) -> TlsError + '_ {
    |source| TlsError::Refused { path: path.to_owned(), source: source.into() }
}

fn private(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&pem(path)?)
        .map_err(|source| TlsError::Pem { path: path.to_owned(), source })
}

/// A certificate that can be shown, and the names in it.
fn certified(pair: &PairFiles) -> Result<(Arc<CertifiedKey>, Vec<String>), TlsError> {
    let chain = certificates(&pair.cert)?;
    let names: Vec<String> = EndEntityCert::try_from(&chain[0])
        .map_err(refused(&pair.cert))?
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect();
    if names.is_empty() {
        return Err(TlsError::NoName { path: pair.cert.clone() });
    }
    let key = CertifiedKey::from_der(chain, private(&pair.key)?, &provider()).map_err(refused(&pair.cert))?;
    Ok((Arc::new(key), names))
}

/// The tickets of all listeners: they outlive a configuration, so that clients resume behind a change of it.
fn tickets() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    static TICKETS: OnceLock<Arc<dyn ProducesTickets>> = OnceLock::new();
    if let Some(tickets) = TICKETS.get() {
        return Ok(Arc::clone(tickets));
    }
    let made = rustls::crypto::ring::Ticketer::new()?;
    Ok(Arc::clone(TICKETS.get_or_init(|| made)))
}

/// What is spoken inside TLS, as it is agreed on in the handshake (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// HTTP/1.1.
    Http1,
    /// HTTP/1.1 or HTTP/2.
    Http,
    /// HTTP/2.
    Http2,
    /// Nothing is agreed on.
    Any,
}

impl Inside {
    pub(crate) fn names(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Inside::Http1 => &[b"http/1.1"],
            Inside::Http => &[b"h2", b"http/1.1"],
            Inside::Http2 => &[b"h2"],
            Inside::Any => &[],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

/// TLS towards clients.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    met: Met,
}

/// Whom clients are shown, and who they must be.
#[derive(Clone, Debug)]
enum Met {
    /// Certificates by name.
    Named(Arc<Keys>),
    /// This node, and members of its cluster.
    Mutual(Arc<NodeTls>, Allowed, Inside),
}

impl ServerTls {
    /// TLS 1.2 and 1.3 with one of these certificates. With `client_ca` clients must show a certificate that one of the
    /// authorities in this file has signed; their sessions are not resumed, because that would not look at it again.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(keys: Arc<Keys>, client_ca: Option<&Path>, inside: Inside) -> Result<ServerTls, TlsError> {
        let path = || keys.files.first().map_or_else(PathBuf::new, |pair| pair.cert.clone());
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(refused(&path()))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider());
                builder.with_client_cert_verifier(verifier.build().map_err(refused(ca))?)
            }
        };
        let resolver = Arc::clone(&keys);
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = inside.names();
        if client_ca.is_none() {
            config.ticketer = tickets().map_err(refused(&path()))?;
        } else {
            config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(ServerTls { config: Arc::new(config), met: Met::Named(keys) })
    }
}

impl ServerTls {
    /// TLS 1.3 with members of this node's cluster, those that are allowed to come. Both ends prove their nodes' keys.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn mutual(node: &Arc<NodeTls>, allowed: Allowed, inside: Inside) -> Result<ServerTls, TlsError> {
        let config = Arc::new(node.server(&allowed, inside)?);
        Ok(ServerTls { config, met: Met::Mutual(Arc::clone(node), allowed, inside) })
    }

    /// The certificates that are shown, where clients are shown some by name.
    pub(crate) fn keys(&self) -> Option<&Arc<Keys>> {
        match &self.met {
            Met::Named(keys) => Some(keys),
            Met::Mutual(..) => None,
        }
    }

    /// The node whose cluster's members clients must be.
    pub(crate) fn node(&self) -> Option<&Arc<NodeTls>> {
        match &self.met {
            Met::Named(_) => None,
            Met::Mutual(node, ..) => Some(node),
        }
    }

    /// The beginning of a client's connection.
    pub(crate) fn begin(&self) -> Result<Connection, rustls::Error> {
        ServerConnection::new(Arc::clone(&self.config)).map(Connection::Server)
    }
}

impl PartialEq for ServerTls {
    fn eq(&self, other: &ServerTls) -> bool {
        match (&self.met, &other.met) {
            (Met::Mutual(node, allowed, inside), Met::Mutual(other, others, otherwise)) => {
                Arc::ptr_eq(node, other) && (allowed, inside) == (others, otherwise)
            }
            _ => Arc::ptr_eq(&self.config, &other.config),
        }
    }
}

impl Eq for ServerTls {}

/// TLS towards a service.
#[derive(Clone, Debug)]
pub struct ClientTls(Towards);

#[derive(Clone, Debug)]
enum Towards {
    /// Who is certified by an authority.
    Named(Named),
    /// Members of this node's cluster.
    Mutual(Arc<NodeTls>, Inside),
}

#[derive(Clone, Debug)]
struct Named {
    config: Arc<ClientConfig>,
    /// The same where HTTP/1.1 is to be spoken whatever the service is asked in otherwise.
    http1: Arc<ClientConfig>,
    /// The same where nothing is known of what is spoken, so nothing is agreed on.
    bytes: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// TLS 1.2 and 1.3 to servers whose certificate is made out to `name`, or else to their address, and signed by one of the
    /// authorities in `ca`. With `pair` we show one ourselves.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(
        ca: &Path,
        name: Option<ServerName<'static>>,
        pair: Option<&PairFiles>,
        inside: Inside,
    ) -> Result<ClientTls, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(refused(ca))?
            .with_root_certificates(roots(ca)?);
        let mut config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => builder
                .with_client_auth_cert(certificates(&pair.cert)?, private(&pair.key)?)
                .map_err(refused(&pair.cert))?,
        };
        config.alpn_protocols = inside.names();
        let config = Arc::new(config);
        let of = |other: Inside| {
            if other == inside {
                return Arc::clone(&config);
            }
            let mut otherwise = ClientConfig::clone(&config);
            otherwise.alpn_protocols = other.names();
            Arc::new(otherwise)
        };
        let (http1, bytes) = (of(Inside::Http1), of(Inside::Any));
        Ok(ClientTls(Towards::Named(Named { config, http1, bytes, name })))
    }

    /// TLS 1.3 to proxies of members of this node's cluster. Both ends prove their nodes' keys; where an endpoint's node is
    /// known it must be that one.
    #[must_use]
    pub fn mutual(node: &Arc<NodeTls>, inside: Inside) -> ClientTls {
        ClientTls(Towards::Mutual(Arc::clone(node), inside))
    }

    /// The node that members are shown, if it is for them.
    pub(crate) fn node(&self) -> Option<&Arc<NodeTls>> {
        match &self.0 {
            Towards::Named(_) => None,
            Towards::Mutual(node, _) => Some(node),
        }
    }

    /// The same, agreeing on HTTP/1.1 if this agrees on HTTP/2.
    pub(crate) fn for_http1(&self) -> ClientTls {
        self.otherwise(Inside::Http1, |named| &named.http1)
    }

    /// The same, agreeing on nothing.
    pub(crate) fn for_bytes(&self) -> ClientTls {
        self.otherwise(Inside::Any, |named| &named.bytes)
    }

    fn otherwise(&self, inside: Inside, config: fn(&Named) -> &Arc<ClientConfig>) -> ClientTls {
        ClientTls(match &self.0 {
            Towards::Named(named) => {
                Towards::Named(Named { config: Arc::clone(config(named)), ..named.clone() })
            }
            Towards::Mutual(node, _) => Towards::Mutual(Arc::clone(node), inside),
        })
    }

    /// The beginning of a connection to a server at this address, which may have to be this node.
    pub(crate) fn begin(&self, address: IpAddr, node: Option<NodeId>) -> Result<Connection, rustls::Error> {
        match &self.0 {
            Towards::Named(named) => {
                let name = named.name.clone().unwrap_or_else(|| ServerName::from(address));
                ClientConnection::new(Arc::clone(&named.config), name).map(Connection::Client)
            }
            Towards::Mutual(own, inside) => own.begin(node, *inside),
        }
    }
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &ClientTls) -> bool {
        match (&self.0, &other.0) {
            (Towards::Named(one), Towards::Named(other)) => Arc::ptr_eq(&one.config, &other.config),
            (Towards::Mutual(one, inside), Towards::Mutual(other, otherwise)) => {
                Arc::ptr_eq(one, other) && inside == otherwise
            }
            (Towards::Named(_), Towards::Mutual(..)) | (Towards::Mutual(..), Towards::Named(_)) => false,
        }
    }
}

impl Eq for ClientTls {}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // A system's list may have some that are too old to be read; those sign nothing then.
    let (added, _) = roots.add_parsable_certificates(certificates(path)?);
    if added == 0 { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(roots) }
}
