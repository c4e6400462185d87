//! ACL: who is there. Users come from the configuration; each may do everything.

use alloc::string::String;
use alloc::vec::Vec;

use storage::{Fault, Reply};

use super::call::{Call, Done, shown};
use super::introspect::{self, CATEGORIES};
use super::table::{Row, Traits, help};
use super::users::Secret;

const ADMIN: Traits = Traits::ADMIN.and(Traits::NO_SCRIPT);

/// This family's rows.
pub(super) const ROWS: &[Row] =
    &[Row::container("acl", "server", ACL).since("6.0.0").about("Tells about users.")];

const ACL: &[Row] = &[
    Row::new("acl|whoami", 2, "server", whoami).since("6.0.0").about("The user of this connection."),
    Row::new("acl|users", 2, "server", users).with(ADMIN).since("6.0.0").about("The names of all users."),
    Row::new("acl|list", 2, "server", list).with(ADMIN).since("6.0.0").about("All users as ACL rules."),
    Row::new("acl|getuser", 3, "server", getuser)
        .with(ADMIN)
        .since("6.0.0")
        .syntax("<username>")
        .about("One user's rules."),
    Row::new("acl|cat", -2, "server", cat)
        .since("6.0.0")
        .syntax("[<category>]")
        .about("The categories, or the commands of one."),
    Row::new("acl|log", -2, "server", log)
        .with(ADMIN)
        .since("6.0.0")
        .syntax("[<count>|RESET]")
        .about("Denied commands: not kept."),
    Row::new("acl|setuser", -3, "server", refuse)
        .with(ADMIN)
        .since("6.0.0")
        .syntax("<username> [<rule> ...]")
        .about("Refused: users are set in the configuration."),
    Row::new("acl|deluser", -3, "server", refuse)
        .with(ADMIN)
        .since("6.0.0")
        .syntax("<username> [<username> ...]")
        .about("Refused: users are set in the configuration."),
    Row::new("acl|load", 2, "server", refuse).with(ADMIN).since("6.0.0").about("Refused."),
    Row::new("acl|save", 2, "server", refuse).with(ADMIN).since("6.0.0").about("Refused."),
    Row::new("acl|help", 2, "server", help).since("6.0.0"),
];

fn whoami(call: &mut Call<'_>) -> Result<Done, Fault> {
    call.reply.bulk(call.session.user.as_deref().unwrap_or_default());
    Ok(Done::Answered)
}

fn users(call: &mut Call<'_>) -> Result<Done, Fault> {
    let users = call.host.users();
    call.reply.array(users.iter().count());
    for (name, _) in users.iter() {
        call.reply.bulk(name);
    }
    Ok(Done::Answered)
}

fn hex(secret: &Secret) -> String {
    secret.shown().iter().map(|byte| alloc::format!("{byte:02x}")).collect()
}

fn list(call: &mut Call<'_>) -> Result<Done, Fault> {
    let users = call.host.users();
    call.reply.array(users.iter().count());
    for (name, secrets) in users.iter() {
        let mut line = alloc::format!("user {} on ", String::from_utf8_lossy(name));
        if secrets.is_empty() {
            line.push_str("nopass ");
        }
        for secret in secrets {
            line.push_str(&alloc::format!("#{} ", hex(secret)));
        }
        line.push_str("~* &* +@all");
        call.reply.bulk(line.as_bytes());
    }
    Ok(Done::Answered)
}

fn getuser(call: &mut Call<'_>) -> Result<Done, Fault> {
    let name = call.args[0];
    let Some((_, secrets)) = call.host.users().iter().find(|(other, _)| *other == name) else {
        call.reply.null();
        return Ok(Done::Answered);
    };
    let reply = &mut call.reply;
    reply.map(6);
    reply.bulk(b"flags");
    let flags: &[&str] = if secrets.is_empty() { &["on", "nopass"] } else { &["on"] };
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(secrets.len());
    secrets.iter().for_each(|secret| reply.bulk(hex(secret).as_bytes()));
    for (name, rule) in [("commands", "+@all"), ("keys", "~*"), ("channels", "&*")] {
        reply.bulk(name.as_bytes());
        reply.bulk(rule.as_bytes());
    }
    reply.bulk(b"selectors");
    reply.array(0);
    Ok(Done::Answered)
}

fn cat(call: &mut Call<'_>) -> Result<Done, Fault> {
    let names: Vec<&str> = match call.args {
        [] => CATEGORIES.to_vec(),
        [category] => {
            let Some(category) = CATEGORIES.iter().find(|name| super::call::is(category, name)) else {
                let text = alloc::format!("ERR Unknown category '{}'", shown(category));
                return Err(Fault::Said(text));
            };
            introspect::names_in(call.host.registry(), category)
        }
        _ => return Err(call.misplaced()),
    };
    call.reply.array(names.len());
    names.iter().for_each(|name| call.reply.bulk(name.as_bytes()));
    Ok(Done::Answered)
}

fn log(call: &mut Call<'_>) -> Result<Done, Fault> {
    match call.args {
        [word] if super::call::is(word, "reset") => return call.ok(),
        [] => {}
        [count] => drop(super::call::integer(count)?),
        _ => return Err(call.misplaced()),
    }
    call.reply.array(0);
    Ok(Done::Answered)
}

fn refuse(_: &mut Call<'_>) -> Result<Done, Fault> {
    Err(Fault::Text("ERR users cannot be changed by command; set them in the server's configuration"))
}
