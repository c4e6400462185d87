//! Bounds that more than one crate keeps. Each is checked before memory is taken.

/// Longest key of the store, in bytes. The storage engine refuses keys of 64 KiB and more, and its
/// keys carry our prefix, so the limit is below that.
pub const KEY_BYTES_MAX: usize = 60 * 1024;
/// Longest bulk argument a client may send, in bytes (Redis's `proto-max-bulk-len` default).
pub const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Most arguments of one command (Redis's multibulk limit).
pub const ARGUMENTS_MAX: usize = 1024 * 1024;
/// Longest inline command or protocol line, in bytes.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Largest string value, in bytes.
pub const VALUE_BYTES_MAX: usize = 512 * 1024 * 1024;
