//! What a session needs of the node it runs in.

use alloc::boxed::Box;
use alloc::vec::Vec;

use kernel::{ConnId, KeyspaceId, Micros};
use storage::{Command, Registry};

use super::Io;
use super::client::Client;
use super::config::Config;
use super::info::Facts;
use super::latency::Latency;
use super::slowlog::Slowlog;
use super::users::Users;

/// What a command that needs memory is told when there is none.
pub const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// What became of a command handed to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is answered, or will be.
    Accepted,
    /// It must be handed in again when the connection's earlier commands are answered.
    Later,
    /// It must be handed in again when what holds it back has ended: a pause of all clients, or a stall.
    Paused,
}

/// What a client subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A channel by its name.
    Channel,
    /// Every channel that matches a glob.
    Pattern,
}

/// Which commands `CLIENT PAUSE` holds back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pause {
    /// None.
    #[default]
    Off,
    /// Those that change data or publish.
    Writes,
    /// All.
    All,
}

/// What a client asks of the process around the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Write a checkpoint now.
    Checkpoint,
    /// Stop the node; with a checkpoint first if `save`.
    Stop {
        /// Whether the client wants everything saved. The log keeps what was acknowledged in any case.
        save: bool,
    },
}

/// How a blocked client is let go by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// As if its time had passed.
    Timeout,
    /// With the error `UNBLOCKED`.
    Error,
}

/// A key that goes from one keyspace to another.
#[derive(Clone, Copy, Debug)]
pub struct Transfer<'a> {
    /// Where the key is.
    pub from: KeyspaceId,
    /// Where it goes.
    pub to: KeyspaceId,
    /// The key.
    pub key: &'a [u8],
    /// Its name there.
    pub new_key: &'a [u8],
    /// A key of that name there is replaced.
    pub replace: bool,
    /// It is removed where it was (`MOVE`).
    pub remove: bool,
}

/// What became of a [`Transfer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transferred {
    /// It is under way and will be answered.
    Accepted,
    /// There is no such key, or the other one exists: nothing is done, answer 0.
    Refused,
    /// Another client's write to one of the keys is under way: try again.
    Later,
    /// This store cannot encode values for it.
    Unsupported,
}

/// The node as one session sees it, during one `feed`.
pub trait Host {
    /// The connection's output.
    fn io(&mut self) -> &mut Io;
    /// The time of this turn.
    fn now(&self) -> Micros;
    /// The store's commands.
    fn registry(&self) -> &Registry;
    /// Whether `db` exists.
    fn has_keyspace(&self, db: KeyspaceId) -> bool;
    /// Commands on some of `keys` in `db` will be submitted next: what they need may be brought near.
    fn expect(&mut self, db: KeyspaceId, keys: &[&[u8]]);
    /// Runs `command` in `db` and answers the connection, now or when it is as durable as promised.
    fn submit(&mut self, db: KeyspaceId, command: &'static Command, args: &[&[u8]]) -> Submitted;
    /// Runs `command` in every keyspace; answered once, when the last of them is done. With `except`, that
    /// keyspace is left out and nobody is answered.
    fn submit_everywhere(&mut self, command: &'static Command, args: &[&[u8]], except: Option<KeyspaceId>);
    /// Notes a command of the session's own in the statistics.
    fn count_command(&mut self);
    /// Exchanges two different keyspaces; answered `OK` when it is done.
    fn swap(&mut self, first: KeyspaceId, second: KeyspaceId);
    /// Whether commands that need memory are refused in `db` now.
    fn is_full(&self, db: KeyspaceId) -> bool;
    /// Copies or moves a key to another keyspace.
    fn transfer(&mut self, transfer: &Transfer<'_>) -> Transferred;

    /// Notes that the connection watches `key`.
    fn watch(&mut self, db: KeyspaceId, key: &[u8]);
    /// Forgets all its watches.
    fn unwatch(&mut self);
    /// True if a watched key changed, or a write in flight may change it.
    fn watch_broken(&mut self) -> bool;

    /// Adds the connection to the subscribers of `name`. It must not be one already.
    fn subscribe(&mut self, topic: Topic, name: &[u8]);
    /// Takes it out again.
    fn unsubscribe(&mut self, topic: Topic, name: &[u8]);
    /// Hands `payload` to the subscribers of `channel`; how many they are.
    fn publish(&mut self, channel: &[u8], payload: &[u8]) -> usize;
    /// How many would get a message on `channel` now.
    fn receivers(&self, channel: &[u8]) -> usize;
    /// Channels with subscribers that match `pattern`.
    fn channels(&self, pattern: &[u8]) -> Vec<Box<[u8]>>;
    /// Subscribers of a channel by name.
    fn subscribers(&self, channel: &[u8]) -> usize;
    /// Different patterns subscribed to.
    fn patterns(&self) -> usize;

    /// All other connections of the node.
    fn clients(&self) -> Vec<Client>;
    /// Cuts another connection.
    fn kill(&mut self, id: ConnId);
    /// Lets another connection go that waits in a blocking command; false if it does not wait.
    fn unblock(&mut self, id: ConnId, release: Release) -> bool;
    /// Holds back commands of all clients until `until`.
    fn pause(&mut self, pause: Pause, until: Micros);
    /// What is held back now.
    fn paused(&self) -> Pause;
    /// Begins a command that is answered `OK` at `until`; until then the connection is blocked.
    fn sleep(&mut self, until: Micros);

    /// The live settings.
    fn config(&mut self) -> &mut Config;
    /// A client changed settings: what the node does by them changes now.
    fn settings_changed(&mut self);
    /// The users.
    fn users(&self) -> &Users;
    /// What `INFO` tells.
    fn facts(&self) -> Facts;
    /// Sets the counters of `INFO` back to 0.
    fn reset_counters(&mut self);
    /// The slow log.
    fn slowlog(&mut self) -> &mut Slowlog;
    /// The latency monitor.
    fn latency(&mut self) -> &mut Latency;
    /// Asks something of the process.
    fn request(&mut self, request: Request);
}
