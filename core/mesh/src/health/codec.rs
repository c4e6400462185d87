//! What is registered at a node as a file keeps it, so that it is registered again when the node is started again.

use alloc::string::String;
use alloc::vec::Vec;

use kernel::Micros;
use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};

use super::{Agent, BODY_BYTES_MAX, Definition, HEADERS_MAX, How, NODE_CHECKS_MAX};
use crate::registry::{Check, Health, INSTANCES_MAX, Instance, Registry};

const FORMAT: u8 = 1;

const HTTP: u8 = 0;
const TCP: u8 = 1;
const GRPC: u8 = 2;
const TTL: u8 = 3;
const ALIAS: u8 = 4;

/// What a node had registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The life in which it was written.
    pub incarnation: u64,
    /// No index above this one was given out then.
    pub index: u64,
    /// The instances, with what their checks said last.
    pub instances: Vec<Instance>,
    /// The instances of checks, and the checks.
    pub checks: Vec<(String, Definition)>,
    /// The node is being maintained, for this reason.
    pub maintenance: Option<String>,
}

impl Saved {
    /// What `agent` has registered.
    #[must_use]
    pub fn of(agent: &Agent, incarnation: u64) -> Saved {
        let registry = agent.registry();
        let node = registry.node();
        let maintained = node.checks.iter().find(|check| check.id == super::NODE_MAINTENANCE);
        Saved {
            incarnation,
            index: registry.view().index(),
            instances: registry.instances().map(|it| (**it).clone()).collect(),
            checks: agent.checks().map(|(service, it)| (service.into(), it.clone())).collect(),
            maintenance: maintained.map(|check| check.notes.clone()),
        }
    }

    /// Registers it again. What its checks said last counts until they say something new. What is refused is left out.
    pub fn restore(self, now: Micros, agent: &mut Agent) {
        for instance in self.instances {
            let is_of = |(service, _): &&(String, Definition)| *service == instance.id;
            let mut checks: Vec<Definition> =
                self.checks.iter().filter(is_of).map(|(_, it)| it.clone()).collect();
            for definition in &mut checks {
                let said = |check: &&Check| check.id == definition.id;
                definition.status =
                    instance.checks.iter().find(said).map_or(Health::Critical, |it| it.status);
            }
            let is_maintained =
                instance.checks.iter().find(|check| check.id.starts_with(super::SERVICE_MAINTENANCE));
            let (id, reason) = (instance.id.clone(), is_maintained.map(|check| check.notes.clone()));
            if agent.register(now, instance, checks, true).is_ok()
                && let Some(reason) = reason
            {
                // It is registered.
                let _ = agent.maintain(now, &id, Some(&reason));
            }
        }
        for (service, definition) in self.checks {
            if service.is_empty() {
                // What was valid is valid.
                let _ = agent.add_check(now, "", definition);
            }
        }
        if let Some(reason) = self.maintenance {
            let _ = agent.maintain(now, "", Some(&reason));
        }
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from([FORMAT]);
        put_varint(&mut out, self.incarnation);
        put_varint(&mut out, self.index);
        put_varint(&mut out, self.instances.len() as u64);
        for instance in &self.instances {
            put_bytes(&mut out, &Registry::encode_instance(instance));
        }
        put_varint(&mut out, self.checks.len() as u64);
        for (service, definition) in &self.checks {
            text(&mut out, service);
            put_definition(&mut out, definition);
        }
        out.push(u8::from(self.maintenance.is_some()));
        self.maintenance.iter().for_each(|reason| text(&mut out, reason));
        out
    }

    /// # Errors
    /// [`DecodeError`]
    pub fn decode(bytes: &[u8]) -> Result<Saved, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != FORMAT {
            return Err(DecodeError::Invalid);
        }
        let (incarnation, index) = (reader.varint()?, reader.varint()?);
        let count = bounded(&mut reader, INSTANCES_MAX)?;
        let instances =
            (0..count).map(|_| Registry::decode_instance(reader.bytes()?)).collect::<Result<_, _>>()?;
        let count = bounded(&mut reader, NODE_CHECKS_MAX)?;
        let checks = (0..count)
            .map(|_| Ok((read_text(&mut reader)?, get_definition(&mut reader)?)))
            .collect::<Result<_, DecodeError>>()?;
        let maintenance = match reader.u8()? {
            0 => None,
            1 => Some(read_text(&mut reader)?),
            _ => return Err(DecodeError::Invalid),
        };
        if !reader.is_empty() {
            return Err(DecodeError::Invalid);
        }
        Ok(Saved { incarnation, index, instances, checks, maintenance })
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn read_text(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let bytes = reader.bytes()?;
    if bytes.len() > BODY_BYTES_MAX {
        return Err(DecodeError::Overflow);
    }
    core::str::from_utf8(bytes).map(String::from).map_err(|_| DecodeError::Invalid)
}

fn bounded(reader: &mut Reader<'_>, max: usize) -> Result<usize, DecodeError> {
    match reader.len()? {
        count if count <= max => Ok(count),
        _ => Err(DecodeError::Overflow),
    }
}

fn put_definition(out: &mut Vec<u8>, it: &Definition) {
    for words in [&it.id, &it.name, &it.notes] {
        text(out, words);
    }
    for number in [it.interval_ms, it.timeout_ms, u64::from(it.rise), u64::from(it.fall), it.deregister_ms] {
        put_varint(out, number);
    }
    match &it.how {
        How::Http { url, method, headers, body } => {
            out.push(HTTP);
            [url, method, body].into_iter().for_each(|words| text(out, words));
            put_varint(out, headers.len() as u64);
            for (name, value) in headers {
                text(out, name);
                text(out, value);
            }
        }
        How::Tcp { address } => {
            out.push(TCP);
            text(out, address);
        }
        How::Grpc { address } => {
            out.push(GRPC);
            text(out, address);
        }
        How::Ttl { ttl_ms } => {
            out.push(TTL);
            put_varint(out, *ttl_ms);
        }
        How::Alias { service } => {
            out.push(ALIAS);
            text(out, service);
        }
    }
}

fn get_definition(reader: &mut Reader<'_>) -> Result<Definition, DecodeError> {
    let run = |number: u64| u32::try_from(number).map_err(|_| DecodeError::Overflow);
    let (id, name, notes) = (read_text(reader)?, read_text(reader)?, read_text(reader)?);
    let (interval_ms, timeout_ms) = (reader.varint()?, reader.varint()?);
    let (rise, fall, deregister_ms) = (run(reader.varint()?)?, run(reader.varint()?)?, reader.varint()?);
    let how = match reader.u8()? {
        HTTP => {
            let (url, method, body) = (read_text(reader)?, read_text(reader)?, read_text(reader)?);
            let count = bounded(reader, HEADERS_MAX)?;
            let headers = (0..count)
                .map(|_| Ok((read_text(reader)?, read_text(reader)?)))
                .collect::<Result<_, DecodeError>>()?;
            How::Http { url, method, headers, body }
        }
        TCP => How::Tcp { address: read_text(reader)? },
        GRPC => How::Grpc { address: read_text(reader)? },
        TTL => How::Ttl { ttl_ms: reader.varint()? },
        ALIAS => How::Alias { service: read_text(reader)? },
        _ => return Err(DecodeError::Invalid),
    };
    let status = Health::Critical;
    let definition =
        Definition { id, name, notes, how, interval_ms, timeout_ms, rise, fall, deregister_ms, status };
    definition.valid().map_err(|_| DecodeError::Invalid)?;
    Ok(definition)
}
