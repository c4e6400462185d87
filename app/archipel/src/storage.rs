//! `archipel storage`: keys of a running node, one by one or all of them.

mod client;
mod piece;
mod sink;
mod source;
mod tls;
mod transfer;
mod url;

use std::io::{Read, Write};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use server::config::Loaded;

use crate::command::StorageCommand;
use crate::exit::{Exit, Failure};
use crate::options::Options;
use crate::output::Stdout;

use client::{Client, Login, Reply};
use piece::{Kind, bytes};

/// Runs the verb.
pub fn run(options: &Options, what: StorageCommand) -> Result<Exit, Failure> {
    let loaded = options.load().map_err(Failure::usage)?;
    let connect = || node(&loaded);
    match what {
        StorageCommand::Get { db, key } => get(connect()?, db, &key, options.json),
        StorageCommand::Set { db, key, value, ttl_ms } => {
            set(connect()?, db, &key, value, ttl_ms, options.json)
        }
        StorageCommand::Del { db, keys } => del(connect()?, db, &keys, options.json),
        StorageCommand::Scan { db, pattern, limit } => {
            scan(connect()?, db, pattern.as_deref(), limit, options.json)
        }
        StorageCommand::Export { db, pattern, file } => {
            transfer::export(connect()?, db, pattern.as_deref(), file.as_deref(), options.json)
        }
        StorageCommand::Import { file, from } => match (from, file) {
            (Some(url), None) => {
                let url = url::RedisUrl::parse(&url).map_err(Failure::usage)?;
                let plain = |stream| Ok(Box::new(stream) as Box<dyn client::Stream>);
                let source = Client::connect(&url.address, &url.login, plain)?;
                transfer::import_live(source, url.db, connect()?, options.json)
            }
            (None, Some(file)) => transfer::import_file(&file, connect()?, options.json),
            (Some(_), Some(_)) | (None, None) => {
                Err(Failure::usage(anyhow::anyhow!("give either a file or --from redis://HOST:PORT")))
            }
        },
    }
}

/// A connection to the node that this configuration describes.
fn node(loaded: &Loaded) -> Result<Client> {
    let redis = &loaded.config.redis;
    let login = match (&redis.requirepass, redis.users.first()) {
        (Some(password), _) => Login { user: None, password: Some(password.expose().to_owned()) },
        (None, Some(user)) => Login {
            user: Some(user.name.as_str().to_owned()),
            password: Some(user.password.expose().to_owned()),
        },
        (None, None) => Login::default(),
    };
    let address = client::reachable(loaded.config.redis_address());
    Client::connect(&address, &login, |stream| match &redis.tls_cert {
        Some(cert) => tls::wrap(stream, cert),
        None => Ok(Box::new(stream)),
    })
}

fn select(client: &mut Client, db: u16) -> Result<()> {
    client.call(&[b"SELECT", db.to_string().as_bytes()]).map(drop)
}

fn get(mut client: Client, db: u16, key: &str, as_json: bool) -> Result<Exit, Failure> {
    select(&mut client, db)?;
    let Reply::Simple(word) = client.call(&[b"TYPE", key.as_bytes()])? else {
        return Err(anyhow::anyhow!("TYPE was not answered with a word").into());
    };
    if word == "none" {
        if as_json {
            println!("{}", json!({"key": key, "found": false}));
        } else {
            eprintln!("archipel: keyspace {db} has no key {key:?}");
        }
        return Ok(Exit::Fails);
    }
    if Kind::from_word(&word).is_none() {
        return Err(anyhow::anyhow!("{key:?} is a {word}, which is not offered here").into());
    }
    let mut out = Stdout;
    let found = source::read_key(&mut client, db, key.as_bytes(), &mut |piece| {
        if as_json {
            return Ok(writeln!(out, "{}", piece.to_json())?);
        }
        let step = if piece.kind.is_paired() { 2 } else { 1 };
        for element in piece.elements.chunks(step) {
            out.write_all(&element.join(b"\t".as_slice()))?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })?;
    Ok(if found { Exit::Holds } else { Exit::Fails })
}

fn set(
    mut client: Client,
    db: u16,
    key: &str,
    value: String,
    ttl_ms: Option<u64>,
    as_json: bool,
) -> Result<Exit, Failure> {
    let mut value = value.into_bytes();
    if value == b"-" {
        value.clear();
        std::io::stdin().lock().read_to_end(&mut value).context("the value cannot be read from stdin")?;
    }
    select(&mut client, db)?;
    let ttl = ttl_ms.map(|ttl| ttl.to_string());
    let mut words: Vec<&[u8]> = vec![b"SET", key.as_bytes(), &value];
    words.extend(ttl.iter().flat_map(|ttl| [b"PX".as_slice(), ttl.as_bytes()]));
    client.call(&words)?;
    say(as_json, json!({"key": key, "set": true}), "OK");
    Ok(Exit::Holds)
}

fn del(mut client: Client, db: u16, keys: &[String], as_json: bool) -> Result<Exit, Failure> {
    select(&mut client, db)?;
    let mut words: Vec<&[u8]> = vec![b"DEL"];
    words.extend(keys.iter().map(String::as_bytes));
    let Reply::Int(deleted) = client.call(&words)? else {
        return Err(anyhow::anyhow!("DEL was not answered with a number").into());
    };
    say(as_json, json!({"deleted": deleted}), &deleted.to_string());
    Ok(Exit::Holds)
}

fn scan(
    mut client: Client,
    db: u16,
    pattern: Option<&str>,
    limit: Option<u64>,
    as_json: bool,
) -> Result<Exit, Failure> {
    select(&mut client, db)?;
    let mut out = Stdout;
    let mut left = limit.unwrap_or(u64::MAX);
    let mut cursor = b"0".to_vec();
    while left > 0 {
        let mut words: Vec<&[u8]> = vec![b"SCAN", &cursor, b"COUNT", b"1000"];
        words.extend(pattern.iter().flat_map(|pattern| [b"MATCH".as_slice(), pattern.as_bytes()]));
        let (next, keys) = source::page(client.call(&words)?)?;
        for key in keys.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            if as_json {
                writeln!(out, "{}", json!({"key": bytes(key)}))?;
            } else {
                out.write_all(key)?;
                out.write_all(b"\n")?;
            }
            left -= 1;
        }
        cursor = next;
        if cursor == b"0" {
            break;
        }
    }
    Ok(Exit::Holds)
}

/// One answer on stdout.
fn say(as_json: bool, object: Value, text: &str) {
    if as_json {
        println!("{object}");
    } else {
        println!("{text}");
    }
}
