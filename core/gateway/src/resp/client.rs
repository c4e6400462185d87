//! CLIENT: the connection itself, and the others.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use kernel::{ConnId, KeyspaceId, Micros};
use storage::object::parse_canonical;
use storage::{Fault, Reply};

use super::Io;
use super::call::{Call, Done, Place, integer, is, shown};
use super::hello::check_name;
use super::host::{Pause, Release, Unblocked};
use super::server::{after, milliseconds};
use super::session::Session;
use super::table::{Row, Traits, help};
use super::whole::{Order, Then};

/// A connection as others see it.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its place in the node.
    pub id: ConnId,
    /// What `CLIENT ID` tells.
    pub number: u64,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// What it calls itself.
    pub name: Box<[u8]>,
    user: Box<[u8]>,
    created: Micros,
    active: Micros,
    db: KeyspaceId,
    channels: usize,
    patterns: usize,
    queued: Option<usize>,
    blocked: bool,
    closing: bool,
    no_evict: bool,
    resp3: bool,
    output: usize,
    command: &'static str,
    library: (Box<[u8]>, Box<[u8]>),
}

impl Session {
    /// This connection as others see it.
    #[must_use]
    pub fn client(&self, io: &Io) -> Client {
        Client {
            id: self.origin.id,
            number: self.origin.number,
            peer: self.origin.peer,
            name: self.name.clone(),
            user: self.user.clone().unwrap_or_default(),
            created: self.origin.at,
            active: self.active,
            db: self.db,
            channels: self.channels.len(),
            patterns: self.topics.len(),
            queued: self.transaction.as_ref().map(super::transaction::Transaction::len),
            blocked: io.blocked,
            closing: self.closing,
            no_evict: self.no_evict,
            resp3: io.resp3,
            output: io.held_bytes(),
            command: self.last_command,
            library: self.library.clone(),
        }
    }
}

impl Client {
    fn is_pubsub(&self) -> bool {
        self.channels + self.patterns > 0
    }

    fn flags(&self) -> String {
        let table = [
            ('P', self.is_pubsub()),
            ('x', self.queued.is_some()),
            ('b', self.blocked),
            ('c', self.closing),
            ('e', self.no_evict),
        ];
        let flags: String = table.iter().filter(|(_, set)| *set).map(|(flag, _)| *flag).collect();
        if flags.is_empty() { "N".into() } else { flags }
    }

    /// One line of `CLIENT LIST`, without its end. Figures that this server does not keep are left out.
    fn line(&self, now: Micros, local: &str) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        alloc::format!(
            "id={} addr={} laddr={local} fd={} name={} age={} idle={} flags={} db={} sub={} psub={} ssub=0 \
             multi={} qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 obl=0 oll=0 omem={} tot-mem={} events=r cmd={} \
             user={} redir=-1 resp={} lib-name={} lib-ver={}",
            self.number,
            self.peer,
            self.id.slot(),
            text(&self.name),
            now.since(self.created) / 1_000_000,
            now.since(self.active) / 1_000_000,
            self.flags(),
            self.db,
            self.channels,
            self.patterns,
            self.queued.map_or(-1, |queued| queued as i64),
            self.output,
            self.output,
            self.command,
            text(&self.user),
            if self.resp3 { 3 } else { 2 },
            text(&self.library.0),
            text(&self.library.1),
        )
    }
}

const OWN: Traits = Traits::NO_SCRIPT;
const ADMIN: Traits = Traits::ADMIN.and(Traits::NO_SCRIPT);

/// This family's rows.
pub(super) const ROWS: &[Row] = &[Row::container("client", "connection", CLIENT)
    .since("2.4.0")
    .about("Tells about connections and changes them.")];

const fn sub(name: &'static str, arity: i8, run: super::call::Run) -> Row {
    Row::new(name, arity, "connection", run)
}

const CLIENT: &[Row] = &[
    sub("client|caching", 3, caching)
        .with(OWN)
        .since("6.0.0")
        .syntax("(YES|NO)")
        .about("Refused: keys are not tracked."),
    sub("client|getname", 2, getname).with(OWN).since("2.6.9").about("The name of this connection."),
    sub("client|getredir", 2, |call| call.int(-1))
        .with(OWN)
        .since("6.0.0")
        .about("-1: keys are not tracked."),
    sub("client|id", 2, id).with(OWN).since("5.0.0").about("The number of this connection."),
    sub("client|info", 2, info).with(OWN).since("6.2.0").about("This connection, as in LIST."),
    sub("client|kill", -3, kill)
        .with(ADMIN.and(Traits::NODE))
        .since("2.4.0")
        .syntax("<ip:port> | <option> <value> [<option> <value> ...]")
        .about("Cuts connections by ID, TYPE, USER, ADDR, LADDR; SKIPME (YES|NO)."),
    sub("client|list", -2, list)
        .with(ADMIN.and(Traits::NODE))
        .since("2.4.0")
        .syntax("[TYPE (NORMAL|MASTER|REPLICA|PUBSUB)] [ID <id> [<id> ...]]")
        .about("All connections, or some."),
    sub("client|no-evict", 3, no_evict)
        .with(ADMIN)
        .since("7.0.0")
        .syntax("(ON|OFF)")
        .about("Accepted: connections are not evicted."),
    sub("client|no-touch", 3, no_touch)
        .with(OWN)
        .since("7.2.0")
        .syntax("(ON|OFF)")
        .about("OFF is accepted; ON is refused: reads count as use."),
    sub("client|pause", -3, pause)
        .with(ADMIN)
        .since("2.9.50")
        .syntax("<milliseconds> [WRITE|ALL]")
        .about("Holds back all commands, or those that write."),
    sub("client|reply", 3, reply)
        .with(OWN)
        .since("3.2.0")
        .syntax("(ON|OFF|SKIP)")
        .about("Whether this connection is answered."),
    sub("client|setinfo", 4, setinfo)
        .with(OWN)
        .since("7.2.0")
        .syntax("(LIB-NAME|LIB-VER) <text>")
        .about("Names the client's library."),
    sub("client|setname", 3, setname)
        .with(OWN)
        .since("2.6.9")
        .syntax("<name>")
        .about("Names this connection."),
    sub("client|tracking", -3, tracking)
        .with(OWN)
        .since("6.0.0")
        .syntax("(ON|OFF) [<option> ...]")
        .about("ON is refused: keys are not tracked."),
    sub("client|trackinginfo", 2, trackinginfo).with(OWN).since("6.2.0").about("Off: keys are not tracked."),
    sub("client|unblock", -3, unblock)
        .with(ADMIN.and(Traits::NODE))
        .since("5.0.0")
        .syntax("<id> [TIMEOUT|ERROR]")
        .about("Lets a connection go that waits in a blocking command."),
    sub("client|unpause", 2, unpause).with(ADMIN).since("6.2.0").about("Ends PAUSE."),
    sub("client|help", 2, help).since("5.0.0"),
];

fn id(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.int(call.session.origin.number as i64)
}

fn getname(call: &mut Call<'_>) -> Result<Done, Fault> {
    match &*call.session.name {
        [] => call.reply.null(),
        name => call.reply.bulk(name),
    }
    Ok(Done::Answered)
}

fn setname(call: &mut Call<'_>) -> Result<Done, Fault> {
    check_name(call.args[0])?;
    call.session.name = call.args[0].into();
    call.ok()
}

fn setinfo(call: &mut Call<'_>) -> Result<Done, Fault> {
    let (option, value) = (call.args[0], call.args[1]);
    let plain = value.iter().all(|byte| (b'!'..=b'~').contains(byte));
    if is(option, "lib-name") || is(option, "lib-ver") {
        if !plain {
            let text = alloc::format!(
                "ERR {} cannot contain spaces, newlines or special characters.",
                shown(option)
            );
            return Err(Fault::Said(text));
        }
        let library = &mut call.session.library;
        *(if is(option, "lib-name") { &mut library.0 } else { &mut library.1 }) = value.into();
        return call.ok();
    }
    Err(Fault::Said(alloc::format!("ERR Unrecognized option '{}'", shown(option))))
}

/// All connections of the node, this one included, by their numbers.
fn everyone(call: &mut Call<'_>) -> Vec<Client> {
    let mut clients = call.host.survey().clients;
    clients.push(call.session.client(call.host.io()));
    clients.sort_by_key(|client| client.number);
    clients
}

fn local(call: &mut Call<'_>) -> String {
    call.host.process().address.clone()
}

fn info(call: &mut Call<'_>) -> Result<Done, Fault> {
    let (now, local) = (call.host.now(), local(call));
    let line = call.session.client(call.host.io()).line(now, &local);
    call.reply.verbatim(&alloc::format!("{line}\n"));
    Ok(Done::Answered)
}

/// What kind of connection is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    PubSub,
    /// A master or replica: there is none.
    Replication,
}

impl Kind {
    fn read(word: &[u8]) -> Result<Kind, Fault> {
        match () {
            () if is(word, "normal") => Ok(Kind::Normal),
            () if is(word, "pubsub") => Ok(Kind::PubSub),
            () if is(word, "master") || is(word, "replica") || is(word, "slave") => Ok(Kind::Replication),
            () => Err(Fault::Said(alloc::format!("ERR Unknown client type '{}'", shown(word)))),
        }
    }

    fn is(self, client: &Client) -> bool {
        match self {
            Kind::Normal => !client.is_pubsub(),
            Kind::PubSub => client.is_pubsub(),
            Kind::Replication => false,
        }
    }
}

fn list(call: &mut Call<'_>) -> Result<Done, Fault> {
    let mut clients = match *call.args {
        [] => everyone(call),
        [option, kind] if is(option, "type") => {
            let kind = Kind::read(kind)?;
            everyone(call).into_iter().filter(|client| kind.is(client)).collect()
        }
        [option, ref ids @ ..] if is(option, "id") && !ids.is_empty() => {
            let ids: Option<Vec<i64>> = ids.iter().map(|id| parse_canonical(id)).collect();
            let ids = ids.ok_or(Fault::Text("ERR Invalid client ID"))?;
            everyone(call).into_iter().filter(|client| ids.contains(&(client.number as i64))).collect()
        }
        _ => return Err(Fault::Syntax),
    };
    clients.retain(|client| !client.closing);
    let (now, local) = (call.host.now(), local(call));
    let text: String = clients.iter().map(|client| client.line(now, &local) + "\n").collect();
    call.reply.verbatim(&text);
    Ok(Done::Answered)
}

/// Whom KILL means; every condition given must hold.
#[derive(Default)]
struct Doomed<'a> {
    number: Option<i64>,
    kind: Option<Kind>,
    user: Option<&'a [u8]>,
    peer: Option<&'a [u8]>,
    local: Option<&'a [u8]>,
    skip_me: bool,
}

impl<'a> Doomed<'a> {
    fn read(call: &Call<'a>) -> Result<Doomed<'a>, Fault> {
        let mut doomed = Doomed { skip_me: true, ..Doomed::default() };
        for pair in call.args.chunks(2) {
            let &[option, value] = pair else { return Err(Fault::Syntax) };
            match () {
                () if is(option, "id") => {
                    let number = parse_canonical(value).filter(|&number| number > 0);
                    doomed.number =
                        Some(number.ok_or(Fault::Text("ERR client-id should be greater than 0"))?);
                }
                () if is(option, "type") => doomed.kind = Some(Kind::read(value)?),
                () if is(option, "addr") => doomed.peer = Some(value),
                () if is(option, "laddr") => doomed.local = Some(value),
                () if is(option, "user") => {
                    if !call.host.users().exists(value) {
                        return Err(Fault::Said(alloc::format!("ERR No such user '{}'", shown(value))));
                    }
                    doomed.user = Some(value);
                }
                () if is(option, "skipme") && is(value, "yes") => doomed.skip_me = true,
                () if is(option, "skipme") && is(value, "no") => doomed.skip_me = false,
                () => return Err(Fault::Syntax),
            }
        }
        Ok(doomed)
    }

    fn is(&self, client: &Client, local: &str) -> bool {
        self.number.is_none_or(|number| number == client.number as i64)
            && self.kind.is_none_or(|kind| kind.is(client))
            && self.user.is_none_or(|user| user == &*client.user)
            && self.peer.is_none_or(|peer| peer == alloc::format!("{}", client.peer).as_bytes())
            && self.local.is_none_or(|wanted| wanted == local.as_bytes())
    }
}

fn kill(call: &mut Call<'_>) -> Result<Done, Fault> {
    let (doomed, old) = match *call.args {
        [peer] => (Doomed { peer: Some(peer), skip_me: false, ..Doomed::default() }, true),
        _ => (Doomed::read(call)?, false),
    };
    let local = local(call);
    let me = call.session.origin.id;
    let mut killed = 0;
    for client in everyone(call) {
        if !doomed.is(&client, &local) || doomed.skip_me && client.id == me {
            continue;
        }
        killed += 1;
        if client.id == me {
            // It is still told how many.
            call.session.closing = true;
        } else {
            call.host.kill(client.id);
        }
    }
    match (old, killed) {
        (true, 0) => Err(Fault::Text("ERR No such client")),
        (true, _) => call.ok(),
        (false, killed) => call.int(killed),
    }
}

fn pause(call: &mut Call<'_>) -> Result<Done, Fault> {
    let pause = match call.args {
        [_] => Pause::All,
        [_, mode] if is(mode, "all") => Pause::All,
        [_, mode] if is(mode, "write") => Pause::Writes,
        [_, _] => return Err(Fault::Text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(call.misplaced()),
    };
    let millis = milliseconds(call.args[0])?;
    let until = after(call, millis);
    call.order(Order::Pause(pause, until), Then::Ok)
}

fn unpause(call: &mut Call<'_>) -> Result<Done, Fault> {
    let now = call.host.now();
    call.order(Order::Pause(Pause::Off, now), Then::Ok)
}

fn reply(call: &mut Call<'_>) -> Result<Done, Fault> {
    let mode = call.args[0];
    let io = call.host.io();
    if is(mode, "on") {
        io.muted = false;
        return call.ok();
    }
    if is(mode, "off") {
        io.muted = true;
    } else if !is(mode, "skip") {
        return Err(Fault::Syntax);
    } else if !io.muted {
        io.skip_next();
    }
    Ok(Done::Silent)
}

fn on_or_off(word: &[u8]) -> Result<bool, Fault> {
    match () {
        () if is(word, "on") => Ok(true),
        () if is(word, "off") => Ok(false),
        () => Err(Fault::Syntax),
    }
}

fn no_evict(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.session.no_evict = on_or_off(call.args[0])?;
    call.ok()
}

fn no_touch(call: &mut Call<'_>) -> Result<Done, Fault> {
    if on_or_off(call.args[0])? {
        return Err(Fault::Text("ERR CLIENT NO-TOUCH ON is not offered by this server"));
    }
    call.ok()
}

fn unblock(call: &mut Call<'_>) -> Result<Done, Fault> {
    let release = match call.args {
        [_] => Release::Timeout,
        [_, reason] if is(reason, "timeout") => Release::Timeout,
        [_, reason] if is(reason, "error") => Release::Error,
        [_, _] => return Err(Fault::Text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
        _ => return Err(call.misplaced()),
    };
    let number = integer(call.args[0])?;
    let mut clients = call.host.survey().clients.into_iter();
    let Some(client) = clients.find(|client| client.number as i64 == number) else { return call.int(0) };
    match call.host.unblock(client.id, release, call.place == Place::Direct) {
        Unblocked::Released => call.int(1),
        Unblocked::Idle => call.int(0),
        Unblocked::Underway if call.place == Place::Direct => Ok(Done::Silent),
        // A transaction cannot wait for the other worker: as far as is known.
        Unblocked::Underway => call.int(i64::from(client.blocked)),
    }
}

fn tracking(call: &mut Call<'_>) -> Result<Done, Fault> {
    if on_or_off(call.args[0])? {
        return Err(Fault::Text("ERR CLIENT TRACKING is not offered by this server"));
    }
    call.ok()
}

fn caching(_: &mut Call<'_>) -> Result<Done, Fault> {
    Err(Fault::Text(
        "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
    ))
}

fn trackinginfo(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.reply.map(3);
    call.reply.bulk(b"flags");
    call.reply.set(1);
    call.reply.bulk(b"off");
    call.reply.bulk(b"redirect");
    call.reply.int(-1);
    call.reply.bulk(b"prefixes");
    call.reply.array(0);
    Ok(Done::Answered)
}
