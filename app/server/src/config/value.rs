//! The types of single settings: what each takes and how it is written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use toml::de::DeValue;

use super::section::{Kind, Setting, Value};

/// A type that is its own text, in files as in variables.
macro_rules! setting {
    ($($kind:ty),*) => {
        $(impl Setting for $kind {
            fn kind(&mut self) -> Kind<'_> {
                Kind::Value(self)
            }
        })*
    };
}

pub(super) use setting;

setting!(bool, PathBuf, IpAddr, PortOffset, Secret, Name, Address);

impl<T: Value + Default> Setting for Option<T> {
    fn kind(&mut self) -> Kind<'_> {
        Kind::Value(self)
    }
}

/// What is not set takes what would be allowed if it were.
impl<T: Value + Default> Value for Option<T> {
    fn allowed(&self) -> String {
        T::default().allowed()
    }

    fn read(&mut self, value: &DeValue<'_>) -> bool {
        let mut fresh = T::default();
        let taken = fresh.read(value);
        if taken {
            *self = Some(fresh);
        }
        taken
    }

    fn parse(&mut self, text: &str) -> bool {
        let mut fresh = T::default();
        let taken = fresh.parse(text);
        if taken {
            *self = Some(fresh);
        }
        taken
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(Value::show)
    }

    fn is_secret(&self) -> bool {
        T::default().is_secret()
    }
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

impl Value for PathBuf {
    fn allowed(&self) -> String {
        "a path".to_owned()
    }

    fn read(&mut self, value: &DeValue<'_>) -> bool {
        value.as_str().is_some_and(|text| self.parse(text))
    }

    fn parse(&mut self, text: &str) -> bool {
        let fits = !text.is_empty() && !text.contains('\0');
        if fits {
            *self = PathBuf::from(text);
        }
        fits
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

impl Value for IpAddr {
    fn allowed(&self) -> String {
        "an IP address such as \"127.0.0.1\", \"0.0.0.0\" or \"::1\"".to_owned()
    }

    fn read(&mut self, value: &DeValue<'_>) -> bool {
        value.as_str().is_some_and(|text| self.parse(text))
    }

    fn parse(&mut self, text: &str) -> bool {
        text.parse().map(|address| *self = address).is_ok()
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

/// An address that others use, so one that is somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(IpAddr);

impl Address {
    /// Itself.
    #[must_use]
    pub const fn get(self) -> IpAddr {
        self.0
    }
}

impl Default for Address {
    fn default() -> Address {
        Address(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

impl Value for Address {
    fn allowed(&self) -> String {
        "an IP address such as \"10.0.0.7\", of one machine".to_owned()
    }

    fn read(&mut self, value: &DeValue<'_>) -> bool {
        value.as_str().is_some_and(|text| self.parse(text))
    }

    fn parse(&mut self, text: &str) -> bool {
        let fitting = text.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast());
        if let Some(ip) = fitting {
            self.0 = ip;
        }
        fitting.is_some()
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.0.to_string()))
    }
}

impl Value for bool {
    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn read(&mut self, value: &DeValue<'_>) -> bool {
        value.as_bool().map(|told| *self = told).is_some()
    }

    fn parse(&mut self, text: &str) -> bool {
        text.parse().map(|told| *self = told).is_ok()
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Number<MIN, MAX> {
    /// The number `n`.
    ///
    /// # Panics
    /// If it is out of bounds; for numbers from outside there is [`Value::parse`].
    #[must_use]
    pub(crate) const fn of(n: u64) -> Self {
        assert!(MIN <= n);
        assert!(n <= MAX);
        Number(n)
    }

    /// Itself.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    fn take(&mut self, n: Option<u64>) -> bool {
        let fitting = n.filter(|n| (MIN..=MAX).contains(n));
        if let Some(n) = fitting {
            self.0 = n;
        }
        fitting.is_some()
    }
}

impl<const MIN: u64, const MAX: u64> Setting for Number<MIN, MAX> {
    fn kind(&mut self) -> Kind<'_> {
        Kind::Value(self)
    }
}

impl<const MIN: u64, const MAX: u64> Value for Number<MIN, MAX> {
    fn allowed(&self) -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn read(&mut self, value: &DeValue<'_>) -> bool {
        self.take(integer(value))
    }

    fn parse(&mut self, text: &str) -> bool {
        self.take(text.parse().ok())
    }

    fn show(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

/// What is added to each port: a multiple of 10, because some ports are neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortOffset(u16);

impl PortOffset {
    /// Itself.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0 as u64
    }

    fn take(&mut self, n: Option<u64>) -> bool {
        let fitting = n.and_then(|n| u16::try_from(n).ok()).filter(|n| n % 10 == 0);
        if let Some(n) = fitting {
            self.0 = n;
        }
        fitting.is_some()
    }
}

impl Value for PortOffset {
    fn allowed(&self) -> String {
        "a multiple of 10, from 0 to 65530".to_owned()
    }

    fn read(&mut self, value: &DeValue<'_>) -> bool {
        self.take(integer(value))
    }

    fn parse(&mut self, text: &str) -> bool {
        self.take(text.parse().ok())
    }

    fn show(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

/// An amount of memory or disk space, from `MIN` to `MAX` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes<const MIN: u64, const MAX: u64>(u64);

/// The units of [`Bytes`], the largest first.
const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl<const MIN: u64, const MAX: u64> Bytes<MIN, MAX> {
    pub(crate) const fn of(n: u64) -> Self {
        assert!(MIN <= n);
        assert!(n <= MAX);
        Bytes(n)
    }

    /// How many.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    fn take(&mut self, n: Option<u64>) -> bool {
        let fitting = n.filter(|n| (MIN..=MAX).contains(n));
        if let Some(n) = fitting {
            self.0 = n;
        }
        fitting.is_some()
    }
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].trim();
    let (_, shift) = UNITS.iter().find(|(name, _)| *name == unit || unit.is_empty() && *name == "B")?;
    let n: u64 = digits.trim_end().parse().ok()?;
    n.checked_mul(1 << shift)
}

fn show_bytes(n: u64) -> String {
    let unit = UNITS.iter().find(|(_, shift)| n != 0 && n.is_multiple_of(1 << shift));
    unit.map_or_else(|| "0".to_owned(), |(name, shift)| format!("{}{name}", n >> shift))
}

impl<const MIN: u64, const MAX: u64> Setting for Bytes<MIN, MAX> {
    fn kind(&mut self) -> Kind<'_> {
        Kind::Value(self)
    }
}

impl<const MIN: u64, const MAX: u64> Value for Bytes<MIN, MAX> {
    fn allowed(&self) -> String {
        let (min, max) = (show_bytes(MIN), show_bytes(MAX));
        format!("bytes, or text with the unit KiB, MiB, GiB or TiB, from {min} to {max}")
    }

    fn read(&mut self, value: &DeValue<'_>) -> bool {
        let n = value.as_str().map_or_else(|| integer(value), bytes);
        self.take(n)
    }

    fn parse(&mut self, text: &str) -> bool {
        self.take(bytes(text))
    }

    fn show(&self) -> Option<String> {
        Some(if self.0 == 0 { "0".to_owned() } else { quoted(&show_bytes(self.0)) })
    }
}

/// Longest name or password, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// A password. It is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(crate) fn of(text: &str) -> Secret {
        Secret(text.to_owned())
    }

    /// The password itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Value for Secret {
    fn allowed(&self) -> String {
        format!("text of 1 to {TEXT_BYTES_MAX} bytes")
    }

    fn read(&mut self, value: &DeValue<'_>) -> bool {
        value.as_str().is_some_and(|text| self.parse(text))
    }

    fn parse(&mut self, text: &str) -> bool {
        let fits = (1..=TEXT_BYTES_MAX).contains(&text.len());
        if fits {
            text.clone_into(&mut self.0);
        }
        fits
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.0))
    }

    fn is_secret(&self) -> bool {
        true
    }
}

/// A name for people and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    pub(crate) fn of(text: &str) -> Name {
        Name(text.to_owned())
    }

    /// Itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Name {
    fn allowed(&self) -> String {
        "1 to 64 letters, digits, '-', '_' and '.'".to_owned()
    }

    fn read(&mut self, value: &DeValue<'_>) -> bool {
        value.as_str().is_some_and(|text| self.parse(text))
    }

    fn parse(&mut self, text: &str) -> bool {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if fits {
            text.clone_into(&mut self.0);
        }
        fits
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

/// Declares a choice of words.
macro_rules! words {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$of])* $variant,)*
        }

        impl $name {
            /// Every choice.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// As it is written.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }
        }

        impl Value for $name {
            fn allowed(&self) -> String {
                let words: Vec<String> = $name::ALL.iter().map(|one| quoted(one.word())).collect();
                words.join(", ")
            }

            fn read(&mut self, value: &DeValue<'_>) -> bool {
                value.as_str().is_some_and(|text| self.parse(text))
            }

            fn parse(&mut self, text: &str) -> bool {
                let found = $name::ALL.iter().find(|one| one.word() == text);
                if let Some(found) = found {
                    *self = *found;
                }
                found.is_some()
            }

            fn show(&self) -> Option<String> {
                Some(quoted(self.word()))
            }
        }

        setting!($name);
    };
}

pub(super) use words;

words! {
    /// How important a message is.
    pub enum Level {
        /// Something failed.
        Error = "error",
        /// Something may fail.
        Warn = "warn",
        /// What an operator wants to know.
        Info = "info",
        /// What a developer wants to know.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

words! {
    /// How messages are written.
    pub enum Format {
        /// For people.
        Text = "text",
        /// For programs.
        Json = "json",
    }
}

words! {
    /// What is allowed of something.
    #[derive(Default)]
    pub enum Access {
        /// Nothing.
        #[default]
        None = "none",
        /// To read it.
        Read = "read",
        /// To read and to change it.
        Write = "write",
    }
}

words! {
    /// When a write is answered.
    pub enum Durability {
        /// When it is on disk.
        Always = "always",
        /// When the operating system has it; the disk has it within a second.
        Everysec = "everysec",
    }
}

words! {
    /// Where a keyspace stands between consistency and availability.
    pub enum Mode {
        /// One order of all writes.
        Primary = "primary",
        /// Every primary takes writes; they converge.
        Multi = "multi",
        /// So many replicas must answer.
        Quorum = "quorum",
    }
}

words! {
    /// Which keys go when the memory is used up.
    pub enum Eviction {
        /// None.
        Noeviction = "noeviction",
        /// The least recently used.
        AllkeysLru = "allkeys-lru",
        /// The least often used.
        AllkeysLfu = "allkeys-lfu",
        /// Any.
        AllkeysRandom = "allkeys-random",
        /// Of those that expire, the least recently used.
        VolatileLru = "volatile-lru",
        /// Of those that expire, the least often used.
        VolatileLfu = "volatile-lfu",
        /// Of those that expire, any.
        VolatileRandom = "volatile-random",
        /// Of those that expire, the one that expires first.
        VolatileTtl = "volatile-ttl",
    }
}
