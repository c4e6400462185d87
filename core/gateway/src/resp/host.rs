//! What a session needs of the node it runs in.

use kernel::{ConnId, KeyspaceId, Micros};
use storage::{Command, Fault, Registry};
use wire::resp::Ahead;

use super::Io;
use super::cluster::ClusterView;
use super::config::Config;
use super::info::Process;
use super::users::Users;
use super::whole::{Order, Progress, Survey, Then};

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
    /// Different workers own the keys' partitions: they share no entry of the log that could hold both changes.
    Apart,
    /// The node is in a cluster: the keys' partitions agree for themselves.
    Clustered,
}

/// Whether two keyspaces can be exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swappable {
    /// They can.
    Yes,
    /// The node has several workers, which log for themselves.
    Apart,
    /// One of them has several partitions.
    Divided,
    /// The node is in a cluster: keyspaces have their copies at different nodes.
    Clustered,
}

/// What became of letting a client go that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblocked {
    /// It waits no more.
    Released,
    /// It did not wait.
    Idle,
    /// Another worker has it: the asking connection is answered, if it waits for that.
    Underway,
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
    /// Some of these commands, each with its first key, will be submitted next in `db`: what they need may be
    /// brought near.
    fn expect(&mut self, db: KeyspaceId, commands: &[Ahead<'_>]);
    /// Runs `command` in `db` and answers the connection, now or when it is as durable as promised.
    fn submit(&mut self, db: KeyspaceId, command: &'static Command, args: &[&[u8]]) -> Submitted;
    /// The same in a partition that the caller knows.
    fn submit_in(
        &mut self,
        db: KeyspaceId,
        partition: u16,
        command: &'static Command,
        args: &[&[u8]],
    ) -> Submitted;
    /// The cluster, as clients of `db` are told of it; `None`: the node is in none.
    fn cluster(&self, db: KeyspaceId) -> Option<ClusterView>;
    /// On the port of cluster clients: whether `command` may run here.
    ///
    /// # Errors
    /// `MOVED`, `CROSSSLOT` or `CLUSTERDOWN`: what to answer instead.
    fn steer(&mut self, db: KeyspaceId, command: &Command, args: &[&[u8]]) -> Result<(), Fault>;
    /// The same for what is known to belong to a partition; `writes` decides whether any copy would do.
    ///
    /// # Errors
    /// `MOVED` or `CLUSTERDOWN`.
    fn steer_to(&mut self, db: KeyspaceId, partition: u16, writes: bool) -> Result<(), Fault>;
    /// Runs `command` in every keyspace; answered once, when the last of them is done. With `except`, that
    /// keyspace is left out and nobody is answered.
    fn submit_everywhere(&mut self, command: &'static Command, args: &[&[u8]], except: Option<KeyspaceId>);
    /// Runs `command` in every keyspace but `except`, and says (true) when the other workers have done so.
    /// False: they are asked, and the session is to try again when it is resumed.
    fn spread(&mut self, command: &'static Command, args: &[&[u8]], except: KeyspaceId) -> bool;
    /// A command of the session's own begins.
    fn begin_command(&mut self);
    /// It is done: notes it in the statistics.
    fn count_command(&mut self, name: &'static str);
    /// Whether two keyspaces can be exchanged.
    fn swappable(&self, first: KeyspaceId, second: KeyspaceId) -> Swappable;
    /// Whether `db` has several partitions.
    fn is_divided(&self, db: KeyspaceId) -> bool;
    /// The partition of `db` in which a transaction would run `command`; `None` if it has but one, or the
    /// command names no key.
    ///
    /// # Errors
    /// Its keys are in several, or it concerns all of them.
    fn partition_of(&self, db: KeyspaceId, command: &Command, args: &[&[u8]]) -> Result<Option<u16>, Fault>;
    /// The partition of `db` that has all of `keys`; `None` if it has but one.
    ///
    /// # Errors
    /// They are in several.
    fn partition_of_keys(&self, db: KeyspaceId, keys: &[&[u8]]) -> Result<Option<u16>, Fault>;
    /// Exchanges two different keyspaces; answered `OK` when it is done.
    fn swap(&mut self, first: KeyspaceId, second: KeyspaceId);
    /// Whether commands that need memory are known to be refused in a partition of `db` now: another worker's
    /// is not known here.
    fn is_full(&self, db: KeyspaceId, partition: u16) -> bool;
    /// Copies or moves a key to another keyspace.
    fn transfer(&mut self, transfer: &Transfer<'_>) -> Transferred;

    /// Notes that the connection watches `keys`, which are all in one partition. Underway: another worker answers `OK`.
    fn watch(&mut self, db: KeyspaceId, keys: &[&[u8]]) -> Progress;
    /// Forgets all its watches.
    fn unwatch(&mut self);
    /// Whether a watched key changed, or a write in flight may change it. The worker that owns EXEC's partition
    /// of `db` judges its own keys when it comes to it; `None`: others are asked first, and the session is to
    /// try again when it is resumed.
    fn watch_broken(&mut self, db: KeyspaceId, partition: u16) -> Option<bool>;

    /// Adds the connection to the subscribers of `name`. It must not be one already.
    fn subscribe(&mut self, topic: Topic, name: &[u8]);
    /// Takes it out again.
    fn unsubscribe(&mut self, topic: Topic, name: &[u8]);
    /// Hands `payload` to the subscribers of `channel`; how many they are. `None`: the connection is
    /// answered when all workers have told theirs.
    fn publish(&mut self, channel: &[u8], payload: &[u8]) -> Option<usize>;

    /// True when what all other workers tell is at hand, until [`Host::end_survey`]. False: they are asked,
    /// and the session is to try again when it is resumed.
    fn begin_survey(&mut self) -> bool;
    /// What this worker tells, and what the others told if that is at hand. Clients without this one.
    fn survey(&self) -> Survey;
    /// Forgets what they told.
    fn end_survey(&mut self);
    /// Cuts another connection.
    fn kill(&mut self, id: ConnId);
    /// Lets another connection go that waits in a blocking command. With `answered`, this connection is
    /// answered if another worker has that one.
    fn unblock(&mut self, id: ConnId, release: Release, answered: bool) -> Unblocked;
    /// Tells all workers to do something; with `then`, this connection may be answered when all have.
    fn order(&mut self, order: Order, then: Option<Then>) -> Progress;
    /// What is held back now.
    fn paused(&self) -> Pause;
    /// Begins a command that is answered `OK` at `until`; until then the connection is blocked.
    fn sleep(&mut self, until: Micros);

    /// The live settings.
    fn config(&self) -> &Config;
    /// What is known of the process.
    fn process(&self) -> &Process;
    /// The users.
    fn users(&self) -> &Users;
    /// Asks something of the process.
    fn request(&mut self, request: Request);
}
