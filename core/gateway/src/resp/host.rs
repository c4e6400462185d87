//! What a session needs of the node it runs in.

use kernel::KeyspaceId;
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
    /// Notes that the connection watches `key`.
    fn watch(&mut self, db: KeyspaceId, key: &[u8]);
    /// Forgets all its watches.
    fn unwatch(&mut self);
    /// True if a watched key changed, or a write in flight may change it.
    fn watch_broken(&mut self) -> bool;
}
