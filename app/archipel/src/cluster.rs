//! `archipel cluster`: asks a member through its admin port, recovers a stopped one, or runs a throw-away cluster.

mod backup;
mod dev;
mod member;
mod recover;
mod restore;
mod settings;
mod status;

use serde_json::{Value, json};

use crate::admin::{Answer, SECONDS_MAX, ask};
use crate::command::{ClusterCommand, UserCommand};
use crate::exit::{Exit, Failure};
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
            done(options, &post(&settings::keyspace(&what).map_err(Failure::usage)?)?)
        }
        ClusterCommand::User(what) => user(options, what, &get, &post),
        ClusterCommand::Audit => {
            let asked = ask(address, "GET", "/cluster/audit", SECONDS_MAX).and_then(Answer::good);
            let (body, audit) = parsed(asked?)?;
            if options.json {
                println!("{body}")
            } else {
                print!("{}", settings::trail(&audit))
            }
            Ok(Exit::Holds)
        }
        ClusterCommand::Backup { dir, also } => backup::run(&loaded, options.json, &dir, &also),
        ClusterCommand::Restore { dir, number, list, verify } => {
            restore::run(&loaded, options.json, &dir, restore::Wish { number, list, verify })
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
