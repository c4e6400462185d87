//! The flags that every verb takes, and the configuration they lead to.

use std::path::PathBuf;

use clap::Args;
use server::config::{ConfigError, Loaded, Sources};

/// Where the node is and how it is set.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where the node keeps its files (the setting `data_dir`).
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Added to every port; a multiple of 10 (the setting `port_offset`).
    #[arg(long, global = true, value_name = "N")]
    pub port_offset: Option<String>,
    /// The configuration file; `archipel config reference` prints one.
    #[arg(long, global = true, value_name = "FILE", env = "ARCHIPEL_CONFIG")]
    pub config: Option<PathBuf>,
    /// Any setting, such as `redis.port=6380`; may be given several times.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// One JSON object on stdout, or one a line.
    #[arg(long, global = true)]
    pub json: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE, such as redis.port=6380")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

impl Options {
    /// The configuration that flags, variables and the file give together.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        self.load_with(&[])
    }

    /// The same with more flags, each with its dashes, the setting and the value.
    pub fn load_with(&self, more: &[(String, String, String)]) -> Result<Loaded, ConfigError> {
        let named =
            [("--data-dir", "data_dir", &self.data_dir), ("--port-offset", "port_offset", &self.port_offset)];
        let mut flags: Vec<(String, String, String)> = self
            .set
            .iter()
            .map(|(key, value)| (format!("--set {key}"), key.clone(), value.clone()))
            .collect();
        for (flag, key, value) in named {
            if let Some(value) = value {
                flags.push((flag.to_owned(), key.to_owned(), value.clone()));
            }
        }
        flags.extend_from_slice(more);
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Loaded::load(&Sources { file: self.config.clone(), variables, flags })
    }
}
