//! Commands that concern more than one keyspace: SELECT, MOVE, COPY … DB, SWAPDB, FLUSHALL.

use kernel::KeyspaceId;
use storage::Fault;

use super::call::{Call, Done, Place, index, is};
use super::host::{Host, Swappable, Transfer, Transferred};
use super::table::{Row, Traits};

/// This family's rows.
pub(super) const ROWS: &[Row] = &[
    Row::new("select", 2, "connection", select)
        .with(Traits::FAST.and(Traits::NOW))
        .about("Chooses the keyspace."),
    Row::new("flushall", -1, "server", flushall)
        .with(Traits::WRITE.and(Traits::CHANGES))
        .about("Removes all keys of all keyspaces."),
    Row::new("move", 3, "generic", transfer_move)
        .with(Traits::WRITE.and(Traits::CHANGES).and(Traits::NO_MULTI).and(Traits::FAST))
        .about("Moves a key to another keyspace."),
    Row::new("copy", -3, "generic", copy)
        .with(Traits::WRITE.and(Traits::CHANGES).and(Traits::PARTLY))
        .since("6.2.0")
        .about("Copies a key."),
    Row::new("swapdb", 3, "server", swapdb)
        .with(Traits::WRITE.and(Traits::CHANGES).and(Traits::NO_MULTI).and(Traits::FAST))
        .since("4.0.0")
        .about("Exchanges two keyspaces."),
];

const OUT_OF_RANGE: Fault = Fault::Text("ERR DB index is out of range");

/// The keyspace that `index` names.
fn keyspace(host: &dyn Host, index: i32) -> Result<KeyspaceId, Fault> {
    let id = u16::try_from(index).map(KeyspaceId).map_err(|_| OUT_OF_RANGE)?;
    if host.has_keyspace(id) { Ok(id) } else { Err(OUT_OF_RANGE) }
}

const ONE_KEYSPACE: Fault = Fault::Text("ERR SELECT is not allowed in cluster mode");

fn select(call: &mut Call<'_>) -> Result<Done, Fault> {
    let index = index(call.args[0])?;
    if call.host.io().cluster {
        // Cluster clients know one keyspace, whatever its number is here.
        return if index == 0 { call.ok() } else { Err(ONE_KEYSPACE) };
    }
    call.session.db = keyspace(call.host, index)?;
    call.ok()
}

/// What cannot be part of a transaction is refused when it is queued: an entry belongs to one partition.
pub(super) fn check_queued(host: &dyn Host, row: &Row, args: &[&[u8]], db: KeyspaceId) -> Result<(), Fault> {
    if row.name == "select" && index(args[0]).is_ok_and(|index| index != i32::from(db.0)) {
        return Err(Fault::Text(
            "ERR SELECT of another database is not allowed inside a transaction: a transaction belongs to one",
        ));
    }
    if row.name == "flushall" && host.is_divided(db) {
        return Err(Fault::Text(
            "ERR FLUSHALL is not allowed inside a transaction of a database of several partitions",
        ));
    }
    if row.name == "flushall" && host.cluster(db).is_some() {
        return Err(Fault::Text("ERR FLUSHALL is not allowed inside a transaction in a cluster"));
    }
    Ok(())
}

fn flushall(call: &mut Call<'_>) -> Result<Done, Fault> {
    match call.args {
        [] => {}
        [mode] if is(mode, "sync") || is(mode, "async") => {}
        _ => return Err(Fault::Syntax),
    }
    let flushdb = call.host.registry().find(b"flushdb").expect("the store can be flushed");
    if call.host.io().cluster && call.place == Place::Direct {
        return Ok(Done::Stored(call.host.submit(call.session.db, flushdb, &[])));
    }
    if call.place == Place::Exec {
        // The transaction's own keyspace is flushed in its place within the entry.
        call.host.submit_everywhere(flushdb, &[], Some(call.session.db));
        call.embed(flushdb.id, &[]);
    } else {
        call.host.submit_everywhere(flushdb, &[], None);
    }
    Ok(Done::Silent)
}

const SAME: Fault = Fault::Text("ERR source and destination objects are the same");

fn transfer_move(call: &mut Call<'_>) -> Result<Done, Fault> {
    if call.host.io().cluster {
        return Err(Fault::Text("ERR MOVE is not allowed in cluster mode"));
    }
    let key = call.args[0];
    let (from, to) = (call.session.db, keyspace(call.host, index(call.args[1])?)?);
    if from == to {
        return Err(SAME);
    }
    transfer(call, &Transfer { from, to, key, new_key: key, replace: false, remove: true })
}

/// Within one keyspace it is the store's.
fn copy(call: &mut Call<'_>) -> Result<Done, Fault> {
    let (key, new_key) = (call.args[0], call.args[1]);
    let (from, mut to, mut replace) = (call.session.db, call.session.db, false);
    let mut rest = &call.args[2..];
    while let [option, tail @ ..] = rest {
        rest = match tail {
            [_, ..] if is(option, "db") && call.host.io().cluster => {
                return Err(Fault::Text("ERR Copying to another database is not allowed in cluster mode"));
            }
            [index, tail @ ..] if is(option, "db") => {
                to = keyspace(call.host, super::call::index(index)?)?;
                tail
            }
            tail if is(option, "replace") => {
                replace = true;
                tail
            }
            _ => return Err(Fault::Syntax),
        };
    }
    if from != to {
        return transfer(call, &Transfer { from, to, key, new_key, replace, remove: false });
    }
    let args = [key, new_key, b"REPLACE"];
    let command = call.host.registry().find(b"copy").expect("the store can copy");
    let args = if replace { &args } else { &args[..2] };
    if call.host.io().cluster {
        call.host.steer(from, command, args)?;
    }
    Ok(Done::Stored(call.host.submit(from, command, args)))
}

fn transfer(call: &mut Call<'_>, transfer: &Transfer<'_>) -> Result<Done, Fault> {
    match call.host.transfer(transfer) {
        Transferred::Accepted => Ok(Done::Silent),
        Transferred::Refused => call.int(0),
        Transferred::Later => Ok(Done::Later),
        Transferred::Apart => Err(APART),
        Transferred::Clustered => Err(CLUSTERED),
        Transferred::Unsupported => Err(Fault::Text("ERR this server cannot move keys between databases")),
    }
}

/// Two databases of a cluster.
const CLUSTERED: Fault = Fault::Text(
    "ERR keys cannot go from one database to another in a cluster: their partitions agree for themselves, and a crash could leave the key in both or in none. Read it, write it there, and delete it here",
);

/// Two databases that different workers own.
const APART: Fault = Fault::Text(
    "ERR these databases belong to different workers of this node, which log for themselves: keys cannot go from one to the other. Choose numbers that differ by a multiple of `storage.workers`; of databases of several partitions, keys whose partitions belong to one worker",
);

fn swapdb(call: &mut Call<'_>) -> Result<Done, Fault> {
    if call.host.io().cluster {
        return Err(Fault::Text("ERR SWAPDB is not allowed in cluster mode"));
    }
    let first = index(call.args[0]).map_err(|_| Fault::Text("ERR invalid first DB index"))?;
    let second = index(call.args[1]).map_err(|_| Fault::Text("ERR invalid second DB index"))?;
    let (first, second) = (keyspace(call.host, first)?, keyspace(call.host, second)?);
    if first == second {
        return call.ok();
    }
    match call.host.swappable(first, second) {
        Swappable::Yes => {}
        Swappable::Apart => {
            return Err(Fault::Text("ERR SWAPDB is offered with one worker only (storage.workers = 1)"));
        }
        Swappable::Clustered => return Err(Fault::Text("ERR SWAPDB is not offered in a cluster")),
        Swappable::Divided => {
            return Err(Fault::Text("ERR SWAPDB is not offered for a database of several partitions"));
        }
    }
    call.host.swap(first, second);
    Ok(Done::Silent)
}
