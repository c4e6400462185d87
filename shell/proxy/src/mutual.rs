//! TLS between the proxies of a cluster's nodes: each end shows a certificate for the node's own key, and the key decides.
//!
//! A certificate is a shape that others can read (an X.509-SVID with the node's [`NodeName`]), signed by its own key. What is
//! believed is not it but the key, which its holder proves in the handshake: that must be a member's of this cluster now, and the
//! name must be that key's. So there is no authority, no date and no chain. TLS 1.3 only, and nothing is resumed, since a
//! resumed connection skips the verifier and would outlive a removal (decision 0017).

mod certificate;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use kernel::{ClusterId, NodeId};
use mesh::spiffe::{NameError, NodeName};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct, DistinguishedName,
    Error, OtherError, PeerIncompatible, ServerConfig, SignatureScheme,
};
use thiserror::Error;
use webpki::EndEntityCert;

use crate::tls::{Inside, TlsError, provider, refused};

/// Who is a member of this node's cluster. It is asked when a handshake ends, and for its version in each turn.
pub trait Roster: fmt::Debug + Send + Sync {
    /// Grows with each change.
    fn version(&self) -> u64;
    /// Is this node one?
    fn contains(&self, node: NodeId) -> bool;
}

/// Who may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Allowed {
    /// Everybody.
    #[default]
    Anybody,
    /// The cluster's members, by their keys.
    Members,
    /// Of those only these.
    These(BTreeSet<NodeId>),
}

impl Allowed {
    /// Whether it takes a client that has proven to be this member, or none.
    #[must_use]
    pub fn takes(&self, member: Option<NodeId>) -> bool {
        match self {
            Allowed::Anybody => true,
            Allowed::Members => member.is_some(),
            Allowed::These(nodes) => member.is_some_and(|node| nodes.contains(&node)),
        }
    }
}

/// Why the other end is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum NotTaken {
    #[error("its certificate cannot be read")]
    Unreadable,
    #[error("it shows {0} certificates of authorities, and a node has none")]
    Chain(usize),
    #[error("its key is not one of Ed25519, so it is no node's")]
    Key,
    #[error("its certificate has {0} URIs, and a node's has one")]
    Names(usize),
    #[error("its certificate is made out to `{name}`: {error}")]
    Name { name: String, error: NameError },
    #[error("its certificate is made out to {0}, whose key is another")]
    Another(NodeName),
    #[error("it is of another cluster: {0}")]
    Cluster(NodeName),
    #[error("{0} is no member of the cluster, or not any more")]
    Stranger(NodeName),
    #[error("{0} is a member that may not come here")]
    NotAllowed(NodeName),
    #[error("{found} is not the node that registered the instance, which is {wanted}")]
    NotWanted { found: NodeName, wanted: NodeId },
}

impl From<NotTaken> for Error {
    fn from(reason: NotTaken) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
    }
}

/// Why the other end of a failed handshake was not taken, if that is why it failed.
pub(crate) fn not_taken<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a NotTaken> {
    let inner = match error.downcast_ref::<std::io::Error>() {
        Some(error) => error.get_ref()?.downcast_ref::<Error>()?,
        None => error.downcast_ref::<Error>()?,
    };
    match inner {
        Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => reason.downcast_ref(),
        _ => None,
    }
}

/// What a node proves to other nodes' proxies, and how it judges them. Shared by all plans of a process.
pub struct NodeTls {
    name: NodeName,
    /// The same as text.
    text: String,
    roster: Arc<dyn Roster>,
    shown: Arc<SingleCertAndKey>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for NodeTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No key is ever printed.
        f.debug_struct("NodeTls").field("name", &self.text).finish_non_exhaustive()
    }
}

impl NodeTls {
    /// Of the member `node` of `cluster`, whose key this is, among those in `roster`.
    ///
    /// # Errors
    /// [`TlsError::NodeKey`]: the key is not one of Ed25519, or not the node's.
    pub fn new(
        cluster: ClusterId,
        node: NodeId,
        key: Arc<dyn SigningKey>,
        roster: Arc<dyn Roster>,
    ) -> Result<NodeTls, TlsError> {
        let name = NodeName { cluster, node };
        let certificate = certificate::made(&name, &*key).ok_or(TlsError::NodeKey)?;
        let certified = CertifiedKey::new(vec![certificate], key);
        certified.keys_match().map_err(|_| TlsError::NodeKey)?;
        let shown = Arc::new(SingleCertAndKey::from(certified));
        // Members have what links have; nobody else speaks here.
        let provider = Arc::new(CryptoProvider {
            kx_groups: vec![rustls::crypto::ring::kx_group::X25519],
            ..CryptoProvider::clone(&provider())
        });
        Ok(NodeTls { name, text: name.to_string(), roster, shown, provider })
    }

    /// What this node is called.
    #[must_use]
    pub const fn name(&self) -> NodeName {
        self.name
    }

    pub(crate) fn version(&self) -> u64 {
        self.roster.version()
    }

    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.roster.contains(node)
    }

    /// How clients are met that must be members.
    pub(crate) fn server(
        self: &Arc<NodeTls>,
        allowed: &Allowed,
        inside: Inside,
    ) -> Result<ServerConfig, TlsError> {
        let verifier = Verifier { of: Arc::clone(self), wanted: Wanted::Allowed(allowed.clone()) };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(refused("the node's key".as_ref()))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::clone(&self.shown) as _);
        config.alpn_protocols = inside.names();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// The beginning of a connection to this member, or to any if nobody says to which.
    pub(crate) fn begin(
        self: &Arc<NodeTls>,
        node: Option<NodeId>,
        inside: Inside,
    ) -> Result<Connection, Error> {
        let wanted = node.map_or(Wanted::Allowed(Allowed::Members), Wanted::Node);
        let verifier = Verifier { of: Arc::clone(self), wanted };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(&self.shown) as _);
        config.alpn_protocols = inside.names();
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config.enable_early_data = false;
        let name = ServerName::try_from("node.invalid").expect("it is a DNS name, and is not sent");
        ClientConnection::new(Arc::new(config), name).map(Connection::Client)
    }

    /// Who has shown this certificate, whose key it has proven: a member now.
    pub(crate) fn judge(&self, shown: &[CertificateDer<'_>]) -> Result<NodeName, NotTaken> {
        let (first, more) = shown.split_first().ok_or(NotTaken::Unreadable)?;
        if !more.is_empty() {
            return Err(NotTaken::Chain(more.len()));
        }
        let certificate = EndEntityCert::try_from(first).map_err(|_| NotTaken::Unreadable)?;
        let key = certificate::node_of(&certificate.subject_public_key_info()).ok_or(NotTaken::Key)?;
        let mut names = certificate.valid_uri_names();
        let (Some(name), 0) = (names.next(), names.count()) else {
            return Err(NotTaken::Names(certificate.valid_uri_names().count()));
        };
        let name = NodeName::parse(name).map_err(|error| {
            let name = name.chars().take(100).flat_map(char::escape_default).collect();
            NotTaken::Name { name, error }
        })?;
        if name.node != key {
            return Err(NotTaken::Another(name));
        }
        if name.cluster != self.name.cluster {
            return Err(NotTaken::Cluster(name));
        }
        if self.contains(key) { Ok(name) } else { Err(NotTaken::Stranger(name)) }
    }

    /// What those behind this node are told of a client with this certificate, in the form of Envoy's
    /// `x-forwarded-client-cert`.
    pub(crate) fn told(&self, certificate: &CertificateDer<'_>, name: &str) -> String {
        let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
        let suite = suite.tls13().expect("it is a suite of TLS 1.3");
        let hash = suite.common.hash_provider.hash(certificate);
        let digits: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("By={};Hash={digits};URI={name}", self.text)
    }
}

/// Whom a handshake is for.
#[derive(Debug)]
enum Wanted {
    /// A member that may come.
    Allowed(Allowed),
    /// This node.
    Node(NodeId),
}

#[derive(Debug)]
struct Verifier {
    of: Arc<NodeTls>,
    wanted: Wanted,
}

impl Verifier {
    fn judge(&self, key: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), Error> {
        if !more.is_empty() {
            return Err(NotTaken::Chain(more.len()).into());
        }
        let name = self.of.judge(std::slice::from_ref(key))?;
        match &self.wanted {
            Wanted::Allowed(allowed) if allowed.takes(Some(name.node)) => Ok(()),
            Wanted::Allowed(_) => Err(NotTaken::NotAllowed(name).into()),
            Wanted::Node(wanted) if *wanted == name.node => Ok(()),
            Wanted::Node(wanted) => Err(NotTaken::NotWanted { found: name, wanted: *wanted }.into()),
        }
    }

    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.of.provider.signature_verification_algorithms
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(key, more).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, key, signed, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(key, more).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, key, signed, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::PrivatePkcs8KeyDer;

    use super::*;

    #[derive(Debug)]
    struct Everybody;

    impl Roster for Everybody {
        fn version(&self) -> u64 {
            0
        }

        fn contains(&self, node: NodeId) -> bool {
            node != NodeId([0; 32])
        }
    }

    /// A key of Ed25519 and whose it is.
    fn drawn() -> (NodeId, Arc<dyn SigningKey>) {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let node = NodeId(pair.public_key_raw().try_into().unwrap());
        let key = PrivatePkcs8KeyDer::from(pair.serialize_der());
        (node, rustls::crypto::ring::sign::any_eddsa_type(&key).unwrap())
    }

    fn node(cluster: u8) -> Arc<NodeTls> {
        let (node, key) = drawn();
        Arc::new(NodeTls::new(ClusterId([cluster; 16]), node, key, Arc::new(Everybody)).unwrap())
    }

    fn certificate(of: &NodeTls) -> CertificateDer<'static> {
        use rustls::client::ResolvesClientCert;
        let key = of.shown.resolve(&[], &[SignatureScheme::ED25519]).unwrap();
        key.cert[0].clone()
    }

    #[test]
    fn a_certificate_says_whose_it_is_and_others_can_read_it() {
        let (ours, other) = (node(1), node(1));
        let der = certificate(&other);
        assert_eq!(ours.judge(std::slice::from_ref(&der)), Ok(other.name()));
        // Signed by itself, as those see it who look (openssl, Envoy).
        let read = EndEntityCert::try_from(&der).unwrap();
        assert_eq!(read.subject(), read.issuer());
        let told = ours.told(&der, &other.text);
        let [by, hash, uri] = told.split(';').collect::<Vec<_>>()[..] else { panic!("{told}") };
        assert_eq!((by, uri), (&*format!("By={}", ours.text), &*format!("URI={}", other.text)));
        assert_eq!(hash.len(), "Hash=".len() + 64);
    }

    #[test]
    fn what_is_no_member_s_certificate_is_refused_and_says_why() {
        let ours = node(1);
        let made = |edit: fn(&mut rcgen::CertificateParams, &NodeName)| {
            let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
            let name = NodeName {
                cluster: ClusterId([1; 16]),
                node: NodeId(pair.public_key_raw().try_into().unwrap()),
            };
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            edit(&mut params, &name);
            ours.judge(&[params.self_signed(&pair).unwrap().der().clone()])
        };
        fn uri(params: &mut rcgen::CertificateParams, text: String) {
            params.subject_alt_names.push(rcgen::SanType::URI(text.try_into().unwrap()));
        }
        assert!(made(|params, name| uri(params, name.to_string())).is_ok());
        assert_eq!(made(|_, _| ()), Err(NotTaken::Names(0)));
        let twice = made(|params, name| [(), ()].iter().for_each(|()| uri(params, name.to_string())));
        assert_eq!(twice, Err(NotTaken::Names(2)));
        let another = made(|params, name| {
            uri(params, NodeName { node: NodeId([7; 32]), ..*name }.to_string());
        });
        assert!(matches!(another, Err(NotTaken::Another(_))), "{another:?}");
        let workload = made(|params, _| uri(params, "spiffe://example.org/web".into()));
        assert!(matches!(workload, Err(NotTaken::Name { .. })), "{workload:?}");
        let der = certificate(&node(2));
        assert!(matches!(ours.judge(&[der]), Err(NotTaken::Cluster(_))));
        let der = certificate(&node(1));
        assert_eq!(ours.judge(&[der.clone(), der]), Err(NotTaken::Chain(1)));
        assert_eq!(ours.judge(&[]), Err(NotTaken::Unreadable));
        assert_eq!(ours.judge(&[CertificateDer::from(vec![0x30, 0])]), Err(NotTaken::Unreadable));
        // Another kind of key is no node's.
        let pair = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        assert_eq!(ours.judge(&[params.self_signed(&pair).unwrap().der().clone()]), Err(NotTaken::Key));
    }

    #[test]
    fn a_key_that_is_not_the_node_s_makes_no_certificate() {
        let ((_, key), (other, _)) = (drawn(), drawn());
        let made = NodeTls::new(ClusterId([1; 16]), other, key, Arc::new(Everybody));
        assert!(matches!(made, Err(TlsError::NodeKey)));
    }

    #[test]
    fn who_may_come_is_told_by_the_key() {
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        #[rustfmt::skip] // columns
        let table = [
            (Allowed::Anybody,              None,    true),
            (Allowed::Anybody,              Some(a), true),
            (Allowed::Members,              None,    false),
            (Allowed::Members,              Some(a), true),
            (Allowed::These([a].into()),    Some(a), true),
            (Allowed::These([a].into()),    Some(b), false),
            (Allowed::These([a].into()),    None,    false),
            (Allowed::These([].into()),     Some(a), false),
        ];
        for (allowed, member, expected) in table {
            assert_eq!(allowed.takes(member), expected, "{allowed:?} {member:?}");
        }
    }
}
