//! What a session needs of the node it runs in.

use alloc::string::String;
use alloc::vec::Vec;

use kernel::{ConnId, KeyspaceId, Micros};
use storage::{Command, Registry};

use super::Io;

/// What became of a command handed to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is answered, or will be.
    Accepted,
    /// It must be handed in again when the connection's earlier commands are answered.
    Later,
}

/// The node as one session sees it, during one `feed`.
pub trait Host {
    /// The connection's output.
    fn io(&mut self) -> &mut Io;
    /// The store's commands.
    fn registry(&self) -> &Registry;
    /// Whether `db` exists.
    fn has_keyspace(&self, db: KeyspaceId) -> bool;
    /// Runs `command` in `db` and answers the connection, now or when it is as durable as promised.
    fn submit(&mut self, db: KeyspaceId, command: &'static Command, args: &[&[u8]]) -> Submitted;
    /// Runs a command that names no partition in every partition of every keyspace, and answers with
    /// the first one's answer (`FLUSHALL`, `SCRIPT LOAD`).
    fn submit_everywhere(&mut self, command: &'static Command, args: &[&[u8]]) -> Submitted;
    /// Notes that the connection watches `key`.
    fn watch(&mut self, db: KeyspaceId, key: &[u8]);
    /// Forgets all its watches.
    fn unwatch(&mut self);
    /// True if a watched key changed, or a write in flight may change it.
    fn watch_broken(&mut self) -> bool;
    /// Answers a session's own command that concerns the whole node (`INFO`, `CLIENT LIST`, `CONFIG` …).
    fn node(&mut self) -> &mut dyn NodeView;
}

/// The node's own affairs, as far as clients may ask.
pub trait NodeView {
    /// The host's clock.
    fn now(&self) -> Micros;
    /// Checks a user's password; the name is `default` where the client gave none.
    fn authenticate(&self, user: &str, password: &[u8]) -> bool;
    /// True if the node asks clients for a password.
    fn needs_password(&self) -> bool;
    /// The text of `INFO` for these sections (empty: the default ones).
    fn info(&self, sections: &[String]) -> String;
    /// Name and value of the settings whose name matches the glob `pattern`.
    fn config_get(&self, pattern: &[u8]) -> Vec<(String, String)>;
    /// Changes a setting while running.
    ///
    /// # Errors
    /// Why not, as the end of Redis's error sentence.
    fn config_set(&mut self, name: &str, value: &str) -> Result<(), String>;
    /// This connection's id.
    fn connection(&self) -> ConnId;
}
