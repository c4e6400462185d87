//! Domain names.

use alloc::vec::Vec;
use core::fmt;
use core::hash::{Hash, Hasher};

use thiserror::Error;

/// A label's length.
pub const LABEL_BYTES_MAX: usize = 63;
/// A name's length on the wire, its root label included.
pub const NAME_BYTES_MAX: usize = 255;
/// Pointers that one name may follow: a message is short, and a name of more was made to keep us busy.
const POINTERS_MAX: usize = 16;
/// The two high bits of a pointer.
const POINTER: u8 = 0b1100_0000;

/// Why there is no such name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Cut, pointing forward or in a circle, or with a label type that nobody uses.
    #[error("the bytes are no domain name")]
    Malformed,
    /// A label is empty or too long.
    #[error("a label of {bytes} bytes, where 1 to {LABEL_BYTES_MAX} are allowed")]
    Label {
        /// Its length.
        bytes: usize,
    },
    /// All labels together are too long.
    #[error("a name of more than {NAME_BYTES_MAX} bytes")]
    TooLong,
}

/// A domain name, absolute. Equal without regard to the case of ASCII letters.
///
/// Invariant: labels of 1 to [`LABEL_BYTES_MAX`] bytes with their lengths, then a 0; [`NAME_BYTES_MAX`] bytes at most.
#[derive(Clone)]
pub struct Name(Vec<u8>);

impl Name {
    /// The root, which is empty.
    #[must_use]
    pub fn root() -> Name {
        Name(alloc::vec![0])
    }

    /// A name of these labels, the most special first.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn new<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Result<Name, NameError> {
        let mut bytes = Vec::new();
        for label in labels {
            push(&mut bytes, label)?;
        }
        bytes.push(0);
        if bytes.len() > NAME_BYTES_MAX { Err(NameError::TooLong) } else { Ok(Name(bytes)) }
    }

    /// A name from text: labels with dots between them, a last dot allowed. No escapes.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn from_text(text: &str) -> Result<Name, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() { Ok(Name::root()) } else { Name::new(text.split('.').map(str::as_bytes)) }
    }

    /// Its labels, the most special first.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        labels(&self.0)
    }

    /// Whether it is `zone` or below it.
    #[must_use]
    pub fn is_in(&self, zone: &Name) -> bool {
        suffixes(&self.0).any(|suffix| suffix.eq_ignore_ascii_case(&zone.0))
    }

    /// The labels in front of `zone`'s, if it is below it or the zone itself.
    #[must_use]
    pub fn below(&self, zone: &Name) -> Option<Vec<&[u8]>> {
        let more = self.labels().count().checked_sub(zone.labels().count())?;
        self.is_in(zone).then(|| self.labels().take(more).collect())
    }

    /// As it is on the wire, without pointers.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name at `at` of a message, and where what follows it begins. Pointers lead backwards only, so there is no circle.
    pub(super) fn read(message: &[u8], at: usize) -> Result<(Name, usize), NameError> {
        let (mut at, mut end, mut bytes) = (at, None, Vec::new());
        for _ in 0..=POINTERS_MAX {
            let start = at;
            loop {
                let &length = message.get(at).ok_or(NameError::Malformed)?;
                match length & POINTER {
                    0 => {}
                    POINTER => break,
                    _ => return Err(NameError::Malformed),
                }
                at += 1;
                if length == 0 {
                    bytes.push(0);
                    return Ok((Name(bytes), end.unwrap_or(at)));
                }
                let label = message.get(at..at + usize::from(length)).ok_or(NameError::Malformed)?;
                push(&mut bytes, label)?;
                at += label.len();
            }
            let low = *message.get(at + 1).ok_or(NameError::Malformed)?;
            end = end.or(Some(at + 2));
            let to = usize::from(message[at] & !POINTER) << 8 | usize::from(low);
            if to >= start {
                return Err(NameError::Malformed);
            }
            at = to;
        }
        Err(NameError::Malformed)
    }
}

fn push(bytes: &mut Vec<u8>, label: &[u8]) -> Result<(), NameError> {
    if label.is_empty() || label.len() > LABEL_BYTES_MAX {
        return Err(NameError::Label { bytes: label.len() });
    }
    // The root label must fit too.
    if bytes.len() + label.len() + 2 > NAME_BYTES_MAX {
        return Err(NameError::TooLong);
    }
    bytes.push(label.len() as u8);
    bytes.extend_from_slice(label);
    Ok(())
}

fn labels(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let (&length, rest) = bytes.split_first()?;
        if length == 0 {
            return None;
        }
        let (label, rest) = rest.split_at(usize::from(length));
        bytes = rest;
        Some(label)
    })
}

/// What is left of a name when labels are taken away from its front, the whole first and the root last.
pub(super) fn suffixes(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut left = Some(bytes);
    core::iter::from_fn(move || {
        let suffix = left?;
        let length = usize::from(suffix[0]);
        left = (length > 0).then(|| &suffix[length + 1..]);
        Some(suffix)
    })
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.iter().for_each(|byte| state.write_u8(byte.to_ascii_lowercase()));
    }
}

impl fmt::Display for Name {
    /// As in zone files: what is no letter, digit, `-` or `_` is escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in self.labels() {
            for &byte in label {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                        write!(f, "{}", char::from(byte))?
                    }
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        if self.0.len() == 1 { f.write_str(".") } else { Ok(()) }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
