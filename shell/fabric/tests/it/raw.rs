//! A client that is not bound by our code: it proves whatever key it likes, and says whatever it likes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use kernel::{NodeId, Version};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};

use crate::harness::{World, identity};

pub struct Raw {
    stream: TcpStream,
    pub tls: ClientConnection,
    /// What the node said, as plaintext.
    pub heard: Vec<u8>,
    pub closed: bool,
}

impl Raw {
    /// Begins a connection as the node whose seed is `seed`, speaking `alpn`.
    pub fn connect(address: SocketAddr, seed: u8, alpn: &[u8]) -> Raw {
        Raw::with(address, config(seed, alpn))
    }

    pub fn with(address: SocketAddr, config: ClientConfig) -> Raw {
        Raw::over(TcpStream::connect(address).unwrap(), config)
    }

    pub fn over(stream: TcpStream, config: ClientConfig) -> Raw {
        stream.set_nonblocking(true).unwrap();
        let name = ServerName::try_from("anybody.invalid").unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        Raw { stream, tls, heard: Vec::new(), closed: false }
    }

    /// Sends what TLS holds, as far as it goes.
    pub fn push(&mut self) {
        while self.tls.wants_write() && !self.closed {
            match self.tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.closed = true,
            }
        }
    }

    /// Moves bytes both ways, as far as they go.
    pub fn pump(&mut self) {
        self.push();
        while !self.closed {
            match self.tls.read_tls(&mut self.stream) {
                Ok(0) => self.closed = true,
                Ok(_) => {
                    self.closed |= self.tls.process_new_packets().is_err();
                    // The end of what has arrived is no error here.
                    let _ = self.tls.reader().read_to_end(&mut self.heard);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.closed = true,
            }
        }
    }

    pub fn say(&mut self, plaintext: &[u8]) {
        self.tls.writer().write_all(plaintext).unwrap();
    }

    /// Says it, and turns until the node has heard; reads nothing. The kernel takes its own time.
    pub fn speak(&mut self, world: &mut World, plaintext: &[u8]) {
        let before = world.nodes[0].meters().bytes_in.get();
        self.say(plaintext);
        self.push();
        world.until("it is heard", |nodes| nodes[0].meters().bytes_in.get() > before);
    }

    /// Shakes hands, and says hello on a lane.
    pub fn link(world: &mut World, seed: u8, lane: u8) -> Raw {
        let mut raw = Raw::connect(world.nodes[0].address, seed, b"archipel/1");
        let mut hello = vec![11, 0, 0, 0, 1, Version::NEWEST.0, lane];
        hello.extend(77u64.to_le_bytes());
        hello.push(Version::OLDEST.0);
        raw.say(&hello);
        for _ in 0..20_000 {
            raw.pump();
            if raw.heard.len() >= 15 {
                return raw;
            }
            assert!(!raw.closed, "it was closed: {:?}", world.nodes[0].meters());
            world.round();
        }
        panic!("it is not answered");
    }

    /// Turns of the world until the node closes this connection.
    pub fn until_closed(&mut self, world: &mut World) {
        for _ in 0..20_000 {
            self.pump();
            if self.closed {
                return;
            }
            world.round();
        }
        panic!("it is not closed");
    }
}

/// Settings that prove the key of `seed` and believe any server.
pub fn config(seed: u8, alpn: &[u8]) -> ClientConfig {
    let pkcs8_prefix = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];
    let spki_prefix = [48, 42, 48, 5, 6, 3, 43, 101, 112, 3, 33, 0];
    let pkcs8 = [&pkcs8_prefix[..], &[seed; 32]].concat();
    let NodeId(public) = identity(seed).id();
    let spki = CertificateDer::from([&spki_prefix[..], &public].concat());
    let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).unwrap();
    let key = Arc::new(CertifiedKey::new(vec![spki], key));
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(ring::default_provider())))
        .with_client_cert_resolver(Arc::new(rustls::client::AlwaysResolvesClientRawPublicKeys::new(key)));
    config.alpn_protocols = if alpn.is_empty() { Vec::new() } else { vec![alpn.to_vec()] };
    config
}

#[derive(Debug)]
struct Anybody(CryptoProvider);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _key: &CertificateDer<'_>,
        _more: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::HandshakeNotComplete)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
