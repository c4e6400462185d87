//! `archipel config`.

use serde_json::json;
use server::config;

use crate::command::ConfigCommand;
use crate::exit::{Exit, Failure};
use crate::options::Options;

/// Runs the verb.
pub fn run(options: &Options, what: ConfigCommand) -> Result<Exit, Failure> {
    match what {
        ConfigCommand::Reference => {
            print!("{}", config::reference());
            Ok(Exit::Holds)
        }
        ConfigCommand::Check { file } => {
            let mut options = options.clone();
            options.config = file.or(options.config);
            check(&options)
        }
    }
}

/// What is wrong fails the check: unlike elsewhere, it is the answer and not a misuse.
fn check(options: &Options) -> Result<Exit, Failure> {
    let loaded = options.load().and_then(|loaded| {
        // Loading reads no certificates.
        server::proxy::check_files(&loaded)?;
        Ok(loaded)
    });
    if options.json {
        let answer = match &loaded {
            Ok(loaded) => {
                let set: Vec<_> = loaded
                    .origins
                    .iter()
                    .map(|(key, origin)| json!({"key": key, "origin": origin.to_string()}))
                    .collect();
                json!({"holds": true, "set": set})
            }
            Err(error) => json!({"holds": false, "error": error.to_string()}),
        };
        println!("{answer}");
        return Ok(if loaded.is_ok() { Exit::Holds } else { Exit::Fails });
    }
    let loaded = loaded?;
    for (key, origin) in &loaded.origins {
        println!("{key:<32} {origin}");
    }
    println!("the configuration is right; what is not listed has its default");
    Ok(Exit::Holds)
}
