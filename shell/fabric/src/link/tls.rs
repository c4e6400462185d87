//! TLS 1.3 with raw public keys (RFC 7250): what each end must prove, and nothing else.
//!
//! No certificate, so no name, date or chain to misjudge: the key is the node. No session is ever resumed, since
//! a resumed one skips the verifier and would outlive a removal.

use std::sync::Arc;

use kernel::NodeId;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct, DistinguishedName,
    Error, PeerIncompatible, ServerConfig, SignatureScheme,
};

use super::Members;
use crate::identity::Identity;

/// What a member speaks to a member.
pub(crate) const ALPN_LINK: &[u8] = b"archipel/1";
/// What a newcomer speaks to a member: one request to join.
pub(crate) const ALPN_JOIN: &[u8] = b"archipel-join/1";
/// The label of the keying material that a request to join is bound to (RFC 5705, RFC 8446 section 7.5).
const BINDING_LABEL: &[u8] = b"EXPORTER-archipel-join";
/// An Ed25519 public key as `SubjectPublicKeyInfo` (RFC 8410, section 4) up to the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Link,
    Join,
}

/// This node's side of every handshake.
#[derive(Debug)]
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    members: Arc<Members>,
    link: Arc<ServerConfig>,
    join: Arc<ServerConfig>,
}

impl Tls {
    pub fn new(identity: &Identity, members: Arc<Members>) -> Tls {
        let provider = Arc::new(provider());
        let key = Arc::new(CertifiedKey::new(
            vec![CertificateDer::from(spki(identity.id()))],
            identity.signing_key(),
        ));
        let server = |who, alpn: &[u8]| {
            let verifier = Arc::new(Verifier { who, algorithms: provider.signature_verification_algorithms });
            let resolver = rustls::server::AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&key));
            let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("the provider has suites of TLS 1.3")
                .with_client_cert_verifier(verifier)
                .with_cert_resolver(Arc::new(resolver));
            config.alpn_protocols = vec![alpn.to_vec()];
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config.max_early_data_size = 0;
            Arc::new(config)
        };
        let link = server(Who::Member(Arc::clone(&members)), ALPN_LINK);
        let join = server(Who::Anybody, ALPN_JOIN);
        Tls { provider, key, members, link, join }
    }

    /// The settings for a client that offers these protocols, unless none of them is ours.
    pub fn server<'a>(
        &self,
        mut alpn: impl Iterator<Item = &'a [u8]>,
    ) -> Option<(Purpose, Arc<ServerConfig>)> {
        alpn.find_map(|name| match name {
            ALPN_LINK => Some((Purpose::Link, Arc::clone(&self.link))),
            ALPN_JOIN => Some((Purpose::Join, Arc::clone(&self.join))),
            _ => None,
        })
    }

    /// A connection to `node`, and to no other.
    pub fn client(&self, node: NodeId, purpose: Purpose) -> Result<Connection, Error> {
        let (who, alpn) = match purpose {
            Purpose::Link => (Who::Dialled(node, Arc::clone(&self.members)), ALPN_LINK),
            // A newcomer knows no members; the token names the introducer.
            Purpose::Join => (Who::Introducer(node), ALPN_JOIN),
        };
        let verifier =
            Arc::new(Verifier { who, algorithms: self.provider.signature_verification_algorithms });
        let resolver = rustls::client::AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.key));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config.enable_early_data = false;
        let name = ServerName::try_from("node.invalid").expect("it is a DNS name, and is not sent");
        ClientConnection::new(Arc::new(config), name).map(Connection::Client)
    }
}

/// The other end of a connection whose handshake is over.
pub(crate) fn peer_of(tls: &Connection) -> Option<NodeId> {
    tls.peer_certificates()?.first().and_then(|key| node_of(key))
}

/// What both ends of this connection, and nobody else, can derive.
pub(crate) fn binding_of(tls: &Connection) -> Option<[u8; 32]> {
    tls.export_keying_material([0; 32], BINDING_LABEL, None).ok()
}

fn provider() -> CryptoProvider {
    let all = rustls::crypto::ring::default_provider();
    CryptoProvider {
        cipher_suites: vec![
            rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            rustls::crypto::ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![rustls::crypto::ring::kx_group::X25519],
        ..all
    }
}

fn spki(node: NodeId) -> Vec<u8> {
    [&SPKI_PREFIX[..], &node.0].concat()
}

fn node_of(spki: &[u8]) -> Option<NodeId> {
    spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(NodeId)
}

/// Whose key is taken.
#[derive(Debug)]
enum Who {
    /// Any member's.
    Member(Arc<Members>),
    /// This node's, while it is a member.
    Dialled(NodeId, Arc<Members>),
    /// This node's.
    Introducer(NodeId),
    /// Anybody's who can prove it: what follows is one request, and that is judged.
    Anybody,
}

#[derive(Debug)]
struct Verifier {
    who: Who,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn judge(&self, key: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), Error> {
        let refused = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        let node = node_of(key).filter(|_| more.is_empty());
        let good = node.is_some_and(|node| match &self.who {
            Who::Member(members) => members.contains(node),
            Who::Dialled(dialled, members) => node == *dialled && members.contains(node),
            Who::Introducer(introducer) => node == *introducer,
            Who::Anybody => true,
        });
        if good { Ok(()) } else { Err(refused) }
    }

    fn judge_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
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
        self.judge_signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
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
        self.judge_signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
