//! `archipel cluster`: asks a member through its admin port, recovers a stopped one, or runs a throw-away cluster.

mod backup;
mod dev;
mod member;
mod recover;
mod restore;
mod rounds;
mod settings;
mod status;

use serde_json::{Value, json};
use server::backup::Keep;
use server::kernel::Millis;

use crate::admin::{Answer, SECONDS_MAX, ask};
use crate::command::{ClusterCommand, UserCommand};
use crate::exit::{Exit, Failure};
use crate::moment;
use crate::options::Options;

/// How long a change may take: it goes through consensus, perhaps while a leader is elected.
const CHANGE_SECONDS_MAX: u64 = 30;

/// Runs the verb.
pub fn run(options: &Options, what: ClusterCommand) -> Result<Exit, Failure> {
    let loaded = options.load().map_err(Failure::usage)?;
    let address = loaded.config.admin_address();
    let get = || ask(address, "GET", "/cluster", SECONDS_MAX).and_then(Answer::good);
    let post = |path: &str| ask(address, "POST", path, CHANGE_SECONDS_MAX).and_then(Answer::good);
    match what {
        ClusterCommand::Token { expires } => {
            let token = post(&format!("/cluster/token?seconds={}", expires.as_secs()))?;
            let token = token.trim_end();
            if options.json {
                println!("{}", json!({"schema": 1, "token": token, "seconds": expires.as_secs()}));
            } else {
                println!("{token}");
                let seconds = expires.as_secs();
                eprintln!("it lets one node in within {seconds} s: archipel node start --join TOKEN");
            }
            Ok(Exit::Holds)
        }
        ClusterCommand::Status => {
            let (body, status) = parsed(get()?)?;
            if options.json {
                println!("{body}")
            } else {
                print!("{}", status::table(&status))
            }
            Ok(if status::is_well(&status) { Exit::Holds } else { Exit::Fails })
        }
        ClusterCommand::Members => {
            let (_, status) = parsed(get()?)?;
            if options.json {
                println!("{}", json!({"schema": 1, "members": status["members"]}));
            } else {
                print!("{}", status::members(&status));
            }
            Ok(Exit::Holds)
        }
        ClusterCommand::Leave => done(options, &post("/cluster/leave")?),
        ClusterCommand::Remove { node } => {
            let node = member::find(&parsed(get()?)?.1, &node).map_err(Failure::usage)?;
            done(options, &post(&format!("/cluster/remove?node={node}"))?)
        }
        ClusterCommand::MoveLeader { keyspace, partition, node } => {
            let node = member::find(&parsed(get()?)?.1, &node).map_err(Failure::usage)?;
            let path = format!("/cluster/move-leader?keyspace={keyspace}&partition={partition}&node={node}");
            done(options, &post(&path)?)
        }
        ClusterCommand::Keyspace(what) => {
            let status = || parsed(get()?).map(|(_, status)| status);
            done(options, &post(&settings::keyspace(&what, &status).map_err(Failure::usage)?)?)
        }
        ClusterCommand::User(what) => user(options, what, &get, &post),
        ClusterCommand::Audit => {
            audit(options, ask(address, "GET", "/cluster/audit", SECONDS_MAX).and_then(Answer::good)?)
        }
        ClusterCommand::Backup { dir, also, every, keep, loose } => {
            let keep = keep.map_or(Keep::All, Keep::Last);
            backup::run(&loaded, options.json, &backup::Wish { dir, also, every, keep, loose })
        }
        ClusterCommand::Restore { dir, number, to, consistent, list, verify } => {
            let to = to.as_deref().map(moment).transpose().map_err(Failure::usage)?;
            restore::run(&loaded, options.json, &dir, restore::Wish { number, to, consistent, list, verify })
        }
        ClusterCommand::Recover { dry_run, confirm, even_if_others_answer } => {
            recover::run(&loaded, options.json, recover::Wish { dry_run, confirm, even_if_others_answer })
        }
        ClusterCommand::Dev { nodes, dir } => dev::run(options, nodes, dir),
    }
}

fn user(
    options: &Options,
    what: UserCommand,
    get: &dyn Fn() -> anyhow::Result<String>,
    post: &dyn Fn(&str) -> anyhow::Result<String>,
) -> Result<Exit, Failure> {
    match what {
        UserCommand::Set { name } => {
            let name = settings::plain(&name).map_err(Failure::usage)?;
            let password = settings::password().map_err(Failure::usage)?;
            done(options, &post(&settings::user(name, &password)?)?)
        }
        UserCommand::Remove { name } => {
            let name = settings::plain(&name).map_err(Failure::usage)?;
            done(options, &post(&format!("/cluster/user/remove?name={name}"))?)
        }
        UserCommand::List => {
            let (_, status) = parsed(get()?)?;
            if options.json {
                println!("{}", json!({"schema": 1, "users": status["users"]}));
            } else {
                let users = status["users"].as_array().into_iter().flatten();
                users.filter_map(Value::as_str).for_each(|user| println!("{user}"));
            }
            Ok(Exit::Holds)
        }
    }
}

fn audit(options: &Options, body: String) -> Result<Exit, Failure> {
    let (body, audit) = parsed(body)?;
    if options.json {
        println!("{body}")
    } else {
        print!("{}", settings::trail(&audit))
    }
    Ok(Exit::Holds)
}

/// A moment as it was written.
fn moment(text: &str) -> anyhow::Result<Millis> {
    moment::parse(text, moment::now()).map_err(anyhow::Error::msg)
}

fn parsed(body: String) -> anyhow::Result<(String, Value)> {
    let value = serde_json::from_str(&body)?;
    Ok((body, value))
}

/// Prints what the node said of a change that was made.
fn done(options: &Options, said: &str) -> Result<Exit, Failure> {
    let said = said.trim_end();
    if options.json {
        println!("{}", json!({"schema": 1, "done": said}));
    } else {
        println!("{said}");
    }
    Ok(Exit::Holds)
}
