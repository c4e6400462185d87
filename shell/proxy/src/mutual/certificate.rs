//! A node's certificate: X.509 (RFC 5280) around its key, in the shape of an X.509-SVID, signed by itself.
//!
//! Written here because it has one form: an end entity's with one URI, for Ed25519 (RFC 8410), valid for ever, since who is a
//! member is not a matter of dates. What of others' certificates is looked at says [`super::NodeTls::judge`].

use kernel::NodeId;
use mesh::spiffe::NodeName;
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::sign::SigningKey;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BITS: u8 = 0x03;
const OCTETS: u8 = 0x04;
const UTF8: u8 = 0x0C;
const UTC_TIME: u8 = 0x17;
const TIME: u8 = 0x18;

/// The algorithm Ed25519, without parameters (RFC 8410, 3).
const ED25519: [u8; 7] = [SEQUENCE, 5, 0x06, 3, 0x2B, 0x65, 0x70];
/// A public key of it as `SubjectPublicKeyInfo`, up to the key.
const SPKI_PREFIX: [u8; 12] = [SEQUENCE, 0x2A, SEQUENCE, 5, 0x06, 3, 0x2B, 0x65, 0x70, BITS, 0x21, 0];
/// The attribute `commonName`.
const COMMON_NAME: [u8; 5] = [0x06, 3, 0x55, 0x04, 0x03];
/// No certificate authority, critical; no key but for signing handshakes, critical; of servers and of clients.
const EXTENSIONS: [&[u8]; 3] = [
    &[SEQUENCE, 12, 0x06, 3, 0x55, 0x1D, 0x13, 0x01, 1, 0xFF, OCTETS, 2, SEQUENCE, 0],
    &[SEQUENCE, 14, 0x06, 3, 0x55, 0x1D, 0x0F, 0x01, 1, 0xFF, OCTETS, 4, BITS, 2, 7, 0x80],
    &[
        SEQUENCE, 29, 0x06, 3, 0x55, 0x1D, 0x25, OCTETS, 22, SEQUENCE, 20, 0x06, 8, 0x2B, 6, 1, 5, 5, 7, 3,
        1, 0x06, 8, 0x2B, 6, 1, 5, 5, 7, 3, 2,
    ],
];
/// The extension `subjectAltName`.
const NAMES: [u8; 5] = [0x06, 3, 0x55, 0x1D, 0x11];

/// A value of this kind that is these pieces.
fn value(kind: u8, pieces: &[&[u8]]) -> Vec<u8> {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut out = vec![kind];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        Ok(one) => out.extend([0x81, one]),
        Err(_) => {
            let two = u16::try_from(length).expect("a node's certificate has fewer than 64 KiB");
            out.push(0x82);
            out.extend(two.to_be_bytes());
        }
    }
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
    out
}

/// The certificate of this node, whose key this is; `None` if the key cannot sign so.
pub(super) fn made(name: &NodeName, key: &dyn SigningKey) -> Option<CertificateDer<'static>> {
    let signer = key.choose_scheme(&[SignatureScheme::ED25519])?;
    // Positive, and not 0.
    let mut serial = [0; 16];
    serial.copy_from_slice(&name.node.0[..16]);
    serial[0] = serial[0] & 0x3F | 0x40;
    // 64 letters, the most that the attribute may have.
    let common = value(SEQUENCE, &[&COMMON_NAME, &value(UTF8, &[name.node.to_string().as_bytes()])]);
    let subject = value(SEQUENCE, &[&value(SET, &[&common])]);
    // RFC 5280, 4.1.2.5: the last moment is that of certificates which never end.
    let valid =
        value(SEQUENCE, &[&value(UTC_TIME, &[b"200101000000Z"]), &value(TIME, &[b"99991231235959Z"])]);
    // [6] uniformResourceIdentifier.
    let uri = value(0x86, &[name.to_string().as_bytes()]);
    let names = value(SEQUENCE, &[&NAMES, &value(OCTETS, &[&value(SEQUENCE, &[&uri])])]);
    let [basic, usage, extended] = EXTENSIONS;
    let extensions = value(0xA3, &[&value(SEQUENCE, &[basic, usage, extended, &names])]);
    let version = value(0xA0, &[&value(INTEGER, &[&[2]])]);
    let serial = value(INTEGER, &[&serial]);
    let key = [&SPKI_PREFIX[..], &name.node.0].concat();
    let signed =
        value(SEQUENCE, &[&version, &serial, &ED25519, &subject, &valid, &subject, &key, &extensions]);
    let signature = signer.sign(&signed).ok()?;
    Some(CertificateDer::from(value(SEQUENCE, &[&signed, &ED25519, &value(BITS, &[&[0], &signature])])))
}

/// Whose key this is, if it can be a node's.
pub(super) fn node_of(spki: &[u8]) -> Option<NodeId> {
    spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(NodeId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_written_in_as_few_bytes_as_it_needs() {
        #[rustfmt::skip] // columns
        let table: [(usize, &[u8]); 5] = [
            (0,     &[OCTETS, 0]),
            (127,   &[OCTETS, 127]),
            (128,   &[OCTETS, 0x81, 128]),
            (255,   &[OCTETS, 0x81, 255]),
            (256,   &[OCTETS, 0x82, 1, 0]),
        ];
        for (length, expected) in table {
            let written = value(OCTETS, &[&vec![0; length]]);
            assert_eq!((&written[..expected.len()], written.len()), (expected, expected.len() + length));
        }
    }
}
