//! Commands of Redis that are known and not offered: a client is told so, instead of "unknown command".

use alloc::format;

use storage::Fault;

use super::call::{Call, Done};
use super::table::{Row, Traits};

macro_rules! rows {
    ($($group:literal: $($name:literal)*;)*) => {
        /// One row for each.
        pub(super) const ROWS: &[Row] =
            &[$($(Row::new($name, -1, $group, refuse).with(Traits::UNOFFERED),)*)*];
    };
}

rows! {
    "stream": "xadd" "xack" "xautoclaim" "xclaim" "xdel" "xgroup" "xinfo" "xlen" "xpending" "xrange" "xread"
        "xreadgroup" "xrevrange" "xsetid" "xtrim";
    "geo": "geoadd" "geodist" "geohash" "geopos" "georadius" "georadius_ro" "georadiusbymember"
        "georadiusbymember_ro" "geosearch" "geosearchstore";
    "hyperloglog": "pfadd" "pfcount" "pfdebug" "pfmerge" "pfselftest";
    "scripting": "fcall" "fcall_ro";
    "pubsub": "spublish" "ssubscribe" "sunsubscribe";
    "server": "monitor" "sync" "psync" "replconf" "failover" "lolwut" "restore-asking";
    "generic": "migrate";
}

fn refuse(call: &mut Call<'_>) -> Result<Done, Fault> {
    let (name, group) = (call.row.name, call.row.group);
    Err(Fault::Said(format!("ERR the command '{name}' ({group}) is not offered by this server")))
}
