//! What the workers of one node send each other between their turns.
//!
//! Parcels from one worker to another arrive in the order in which they were sent; nothing else is
//! promised of them, and none is lost while the process lives.

use alloc::boxed::Box;
use alloc::vec::Vec;

use gateway::resp::{Order, Release, Sequence, Survey, Transfer};
use kernel::{ConnId, KeyspaceId, WorkerId};
use storage::Command;
use storage::store::sessions::Tag;

/// The encoding that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2.
    Resp2,
    /// RESP3.
    Resp3,
}

/// What a client's own worker needs to know of an answer that comes from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// How to encode it.
    pub protocol: Protocol,
    /// It is only a part of the command's answer: that of this number.
    pub part: Option<u16>,
    /// Which life of another node asked; 0 on this node.
    pub life: u64,
    /// Which try of another node's command it is.
    pub attempt: u8,
}

impl Guest {
    /// For a worker of this node.
    #[must_use]
    pub const fn of(protocol: Protocol, part: Option<u16>) -> Guest {
        Guest { protocol, part, life: 0, attempt: 0 }
    }
}

/// A command of another worker's client, or a part of a command on several partitions, and the place that its
/// answer takes there.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The client.
    pub conn: ConnId,
    /// The command's place.
    pub sequence: Sequence,
    /// How to answer.
    pub guest: Guest,
}

/// A part of something that another worker waits for: its [`Parcel::Done`] names it.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Who waits.
    pub worker: WorkerId,
    /// Its number for the whole.
    pub joint: u64,
}

/// A command for a partition of the worker it is sent to.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who is answered.
    pub asker: Asker,
    /// In which keyspace it runs.
    pub db: KeyspaceId,
    /// In which partition of it.
    pub partition: u16,
    /// What.
    pub command: &'static Command,
    /// The command with its arguments, as in an entry's body.
    pub encoded: Vec<u8>,
    /// No other command of the connection is on its way.
    pub alone: bool,
    /// It is an EXEC that depends on keys which the connection watches at the worker it is sent to.
    pub watching: bool,
    /// A write of another node that may come again: it is done once under this tag.
    pub tag: Option<Tag>,
}

/// [`Transfer`], owned.
#[derive(Clone, Debug)]
pub struct Journey {
    /// Where the key is.
    pub from: KeyspaceId,
    /// Where it goes.
    pub to: KeyspaceId,
    /// The key.
    pub key: Box<[u8]>,
    /// Its name there.
    pub new_key: Box<[u8]>,
    /// A key of that name there is replaced.
    pub replace: bool,
    /// It is removed where it was.
    pub remove: bool,
}

impl Journey {
    pub(crate) fn of(transfer: &Transfer<'_>) -> Journey {
        let &Transfer { from, to, key, new_key, replace, remove } = transfer;
        Journey { from, to, key: key.into(), new_key: new_key.into(), replace, remove }
    }

    pub(crate) fn transfer(&self) -> Transfer<'_> {
        let Journey { from, to, key, new_key, replace, remove } = self;
        Transfer { from: *from, to: *to, key, new_key, replace: *replace, remove: *remove }
    }
}

/// What a worker is asked on behalf of a connection, which is held until it has told.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// Everything.
    Survey,
    /// Whether a key that the connection watches there changed.
    Watches,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug)]
pub enum Telling {
    /// Everything.
    Survey(Box<Survey>),
    /// Whether a watched key changed.
    Watches {
        /// It did, or may have.
        broken: bool,
    },
}

/// See the module's text.
#[derive(Clone, Debug)]
pub enum Parcel {
    /// Run a command.
    Request(Box<Request>),
    /// A command's answer.
    Reply {
        /// Whose.
        conn: ConnId,
        /// Its place.
        sequence: Sequence,
        /// What the asker said of it.
        guest: Guest,
        /// Encoded as the client speaks.
        bytes: Vec<u8>,
    },
    /// A connection watches keys from now on; answer `OK`.
    Watch {
        /// The connection.
        asker: Asker,
        /// Where they are.
        db: KeyspaceId,
        /// The keys.
        keys: Vec<Box<[u8]>>,
    },
    /// It watches nothing any more.
    Unwatch {
        /// The connection.
        conn: ConnId,
    },
    /// A connection that waits in a blocking command is gone.
    Gone {
        /// The connection.
        conn: ConnId,
    },
    /// Let a connection go that waits.
    Unblock {
        /// The connection.
        conn: ConnId,
        /// How.
        release: Release,
        /// Who is told whether it did wait (1 or 0).
        part: Option<Part>,
    },
    /// Copy or move a key.
    Transfer {
        /// Who is answered.
        asker: Asker,
        /// What.
        journey: Journey,
    },
    /// Run a command in all your keyspaces.
    Everywhere {
        /// Who is told when it is done.
        part: Option<Part>,
        /// What.
        command: &'static Command,
        /// The command with its arguments, as in an entry's body.
        encoded: Vec<u8>,
        /// Not in this one.
        except: Option<KeyspaceId>,
    },
    /// A part of a whole is done.
    Done {
        /// The whole.
        joint: u64,
        /// Added to a whole that counts.
        count: i64,
        /// The log refused it.
        error: Option<&'static str>,
    },
    /// Hand a message to your subscribers.
    Deliver {
        /// Who is told how many they are.
        part: Option<Part>,
        /// Its channel.
        channel: Box<[u8]>,
        /// It.
        payload: Box<[u8]>,
    },
    /// To worker 0, which brings orders into one order: have all workers follow this.
    Propose {
        /// Who is told, by each worker, that it is done.
        part: Option<Part>,
        /// What to do.
        order: Order,
    },
    /// From worker 0: follow this.
    Follow {
        /// Who is told that it is done.
        part: Option<Part>,
        /// What to do.
        order: Order,
    },
    /// Tell something.
    Ask {
        /// The connection that needs it.
        conn: ConnId,
        /// What.
        question: Question,
    },
    /// What was asked.
    Told {
        /// The connection that needs it.
        conn: ConnId,
        /// What there is to tell.
        telling: Telling,
    },
    /// Cut a connection of yours.
    Kill {
        /// The connection.
        conn: ConnId,
    },
    /// Writers of a partition of the sender wait from now on, or go on.
    Stalled {
        /// Its keyspace.
        db: KeyspaceId,
        /// Its number there.
        partition: u16,
        /// They wait.
        stalled: bool,
    },
}
