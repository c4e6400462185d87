//! What a node is called between proxies: `spiffe://<cluster>/node/<node>`, a SPIFFE ID with the cluster as trust domain.
//!
//! Both ids are written in small hexadecimal digits, which the grammar of SPIFFE allows in a trust domain and in a path
//! (SPIFFE-ID, 2.1 and 2.2). Only that form is taken: a name has one spelling, so names can be compared as text by those
//! behind us. Other SPIFFE IDs, such as those of workloads, are somebody else's.

use core::fmt;

use kernel::{ClusterId, NodeId};
use thiserror::Error;

/// Longest SPIFFE ID, in bytes (SPIFFE-ID, 2.3).
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;
/// Longest trust domain, in bytes.
const TRUST_DOMAIN_BYTES_MAX: usize = 255;
const SCHEME: &str = "spiffe://";

/// The name of a node in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName {
    /// The trust domain.
    pub cluster: ClusterId,
    /// Whose key it is.
    pub node: NodeId,
}

/// Why a text is no name of a node.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// It is too long for any.
    #[error("it has {0} bytes, a SPIFFE ID has at most {SPIFFE_ID_BYTES_MAX}")]
    TooLong(usize),
    /// It is something else.
    #[error("it does not begin with `spiffe://`")]
    Scheme,
    /// It has what no SPIFFE ID has: a port, a user, a query, an empty segment, another character.
    #[error("it is no SPIFFE ID: {0}")]
    Grammar(&'static str),
    /// Its trust domain is none of a cluster.
    #[error("its trust domain is no cluster's id, which has 32 small hexadecimal digits")]
    Cluster,
    /// Its path names no node.
    #[error("its path is not `/node/` and a node's id, which has 64 small hexadecimal digits")]
    Node,
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/node/{}", self.cluster, self.node)
    }
}

impl NodeName {
    /// The node that `text` names.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn parse(text: &str) -> Result<NodeName, NameError> {
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        let rest = text.strip_prefix(SCHEME).ok_or(NameError::Scheme)?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        judge(domain, path)?;
        let cluster = bytes(domain).map(ClusterId).ok_or(NameError::Cluster)?;
        let node = path.strip_prefix("/node/").and_then(node_id).ok_or(NameError::Node)?;
        Ok(NodeName { cluster, node })
    }
}

/// Whether a trust domain and a path are such as SPIFFE IDs have.
fn judge(domain: &str, path: &str) -> Result<(), NameError> {
    let of_domain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    let of_path = |byte: u8| of_domain(byte) || byte.is_ascii_uppercase();
    if domain.is_empty() {
        return Err(NameError::Grammar("it has no trust domain"));
    }
    if domain.len() > TRUST_DOMAIN_BYTES_MAX {
        return Err(NameError::Grammar("its trust domain has more than 255 bytes"));
    }
    if !domain.bytes().all(of_domain) {
        return Err(NameError::Grammar("a trust domain has small letters, digits, `.`, `-` and `_` only"));
    }
    for segment in path.split('/').skip(1) {
        match segment {
            "" => return Err(NameError::Grammar("a segment of its path is empty")),
            "." | ".." => return Err(NameError::Grammar("its path has `.` or `..` as a segment")),
            _ if !segment.bytes().all(of_path) => {
                return Err(NameError::Grammar("a path has letters, digits, `.`, `-`, `_` and `/` only"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The node whose id is written so: 64 small hexadecimal digits.
#[must_use]
pub fn node_id(text: &str) -> Option<NodeId> {
    bytes(text).map(NodeId)
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
        let digit = |one: u8| match one {
            b'0'..=b'9' => Some(one - b'0'),
            b'a'..=b'f' => Some(one - b'a' + 10),
            _ => None,
        };
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::{String, ToString};

    use super::*;

    const CLUSTER: &str = "00112233445566778899aabbccddeeff";

    fn node() -> String {
        format!("{CLUSTER}{CLUSTER}")
    }

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let name =
            NodeName { cluster: ClusterId([0xAB; 16]), node: NodeId(core::array::from_fn(|at| at as u8)) };
        let text = name.to_string();
        assert_eq!(NodeName::parse(&text), Ok(name));
        assert!(text.starts_with("spiffe://abababababababababababababababab/node/000102"), "{text}");
        assert_eq!(text.len(), 9 + 32 + 6 + 64);
    }

    #[test]
    fn what_names_no_node_of_a_cluster_is_refused_and_says_why() {
        let grammar = |error: &NameError| matches!(error, NameError::Grammar(_));
        let good = format!("spiffe://{CLUSTER}/node/{}", node());
        assert!(NodeName::parse(&good).is_ok());
        #[rustfmt::skip] // columns
        let table: [(String, fn(&NameError) -> bool); 22] = [
            (String::new(),                                         |it| *it == NameError::Scheme),
            (good.replace("spiffe", "https"),                       |it| *it == NameError::Scheme),
            (good.replace("spiffe", "SPIFFE"),                      |it| *it == NameError::Scheme),
            (good.replace("://", ":/"),                             |it| *it == NameError::Scheme),
            (format!(" {good}"),                                    |it| *it == NameError::Scheme),
            ("spiffe://".to_string(),                               grammar),
            (format!("spiffe:///node/{}", node()),                  grammar),
            (format!("spiffe://{}/node/{}", "A".repeat(32), node()), grammar),
            (good.replace("/node", ":1/node"),                      grammar),
            (good.replace("://", "://me@"),                         grammar),
            (format!("{good}?a=b"),                                 grammar),
            (format!("{good}#a"),                                   grammar),
            (format!("{good}/"),                                    grammar),
            (good.replace("/node/", "//node/"),                     grammar),
            (good.replace("/node/", "/./node/"),                    grammar),
            (good.replace("/node/", "/../node/"),                   grammar),
            (good.replace("node/0", "node/%30"),                    grammar),
            ("spiffe://example.org/node/a".to_string(),             |it| *it == NameError::Cluster),
            (format!("spiffe://{CLUSTER}"),                         |it| *it == NameError::Node),
            (good.replace("/node/", "/Node/"),                      |it| *it == NameError::Node),
            (format!("{good}/more"),                                |it| *it == NameError::Node),
            (good.to_uppercase().replacen("SPIFFE", "spiffe", 1),   grammar),
        ];
        for (text, expected) in table {
            let error = NodeName::parse(&text).expect_err(&text);
            assert!(expected(&error), "{text}: {error}");
        }
        let long = format!("spiffe://{CLUSTER}/{}", "a".repeat(2048));
        assert_eq!(NodeName::parse(&long), Err(NameError::TooLong(long.len())));
        let wide = format!("spiffe://{}/node/{}", "a".repeat(256), node());
        assert!(matches!(NodeName::parse(&wide), Err(NameError::Grammar(_))));
    }

    #[test]
    fn an_id_has_its_digits_and_nothing_else() {
        let good = node();
        assert_eq!(node_id(&good).map(|id| id.to_string()), Some(good.clone()));
        for bad in [&good[1..], &format!("{good}0"), &good.to_uppercase(), &good.replace("00", "0g"), ""] {
            assert_eq!(node_id(bad), None, "{bad}");
        }
    }
}
