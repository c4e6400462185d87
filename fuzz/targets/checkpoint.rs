//! What the disk gives back: values, objects and frames of a checkpoint, payloads of RESTORE, bodies of log
//! entries. Arbitrary bytes are read or refused; what was read is written as what reads the same.
#![no_main]

use fuzz::Bytes;
use kernel::codec::{Reader, put_bytes, put_varint};
use kernel::hash::KeyHasher;
use kernel::{Index, Micros};
use std::collections::BTreeMap;
use storage::apply::{Machinery, NoScripts, apply_entry};
use storage::command::dump;
use storage::entry::{Args, next_command, put_command};
use storage::store::checkpoint::{Body, Frame, Image};
use storage::{Effects, Registry, Store, Value};

const SEED: u64 = 7;
/// Strings may be made long by one short command; the fuzzer is not to find that again and again.
const OFFSET_DIGITS_MAX: usize = 6;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    match input.byte() % 6 {
        0 => value(input.rest()),
        1 => payload(&mut input),
        2 => frame(&mut input),
        3 => objects(&mut input),
        4 => body(input.rest()),
        _ => commands(&mut input),
    }
});

fn value(bytes: &[u8]) {
    let hasher = KeyHasher::new(SEED);
    let Ok(value) = Value::decode(bytes, &hasher) else { return };
    let mut written = Vec::new();
    value.encode(&mut written);
    let again = Value::decode(&written, &hasher).expect("what was written reads back");
    let mut same = Vec::new();
    again.encode(&mut same);
    assert_eq!(written, same);
    assert_eq!(value.kind(), again.kind());
    assert_eq!(dump::value(&dump::payload(&value), &hasher).map(|value| value.kind()), Ok(value.kind()));
}

/// RESTORE with a sound or a foreign checksum.
fn payload(input: &mut Bytes<'_>) {
    let hasher = KeyHasher::new(SEED);
    if input.byte() % 4 == 0 {
        let _ = dump::value(input.rest(), &hasher);
        return;
    }
    let mut payload = b"ARCV\x01".to_vec();
    payload.extend_from_slice(input.rest());
    let sum = crc32fast::hash(&payload);
    payload.extend_from_slice(&sum.to_le_bytes());
    let _ = dump::value(&payload, &hasher);
}

fn frame(input: &mut Bytes<'_>) {
    let (index, generation, objects) = (Index(input.u64()), input.u64() as u32, input.u64());
    let frame = Frame { index, generation, objects, state: input.rest().to_vec() };
    let Ok(mut store) = Store::restore(SEED, &frame) else { return };
    store.begin_cut();
    let (again, images) = store.write_cut(usize::MAX / 2).expect("one call writes a whole cut");
    assert_eq!((again.index, again.generation, again.objects), (index, generation, 0));
    assert!(images.is_empty());
    let twice = Store::restore(SEED, &again).expect("what was written reads back");
    assert_eq!(twice.time(), store.time());
}

/// Objects come back and live on under commands; what the engine had and the next cut give that state.
fn objects(input: &mut Bytes<'_>) {
    let mut store = Store::new(SEED);
    let mut engine: BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)> = BTreeMap::new();
    for _ in 0..input.byte() % 8 {
        let (key, head, body) = (input.piece(), input.piece(), input.piece());
        if store.restore_object(key, head, Body::Whole(body)).is_ok() {
            engine.insert(key.to_vec(), (head.to_vec(), body.to_vec()));
        }
    }
    let Some(bytes) = written(input) else { return };
    let generation = store.generation();
    assert!(apply_body(&mut store, &bytes), "commands that exist are readable");
    store.begin_cut();
    let (frame, images) = store.write_cut(usize::MAX / 2).expect("one call writes a whole cut");
    if frame.generation != generation {
        engine.clear();
    }
    for image in images.iter() {
        match image {
            Image::Put { key, head, body } => {
                drop(engine.insert(key.to_vec(), (head.to_vec(), body.to_vec())))
            }
            Image::Delete { key } => drop(engine.remove(key)),
        }
    }
    let mut again = Store::restore(SEED, &frame).expect("what was written reads back");
    for (key, (head, body)) in &engine {
        again.restore_object(key, head, Body::Whole(body)).expect("what the engine has reads back");
    }
    assert_eq!((again.len(), again.digest()), (store.len(), store.digest()));
    assert_eq!(frame.objects, store.len() as u64);
}

/// An arbitrary body of an entry.
fn body(bytes: &[u8]) {
    let (mut reader, mut args) = (Reader::new(bytes), Args::new());
    let mut again = Vec::new();
    while !reader.is_empty() {
        let Ok(id) = next_command(&mut reader, &mut args) else { break };
        put_command(&mut again, id, &args);
        if grows(&args) {
            return;
        }
    }
    let (mut reader, mut read, mut written) = (Reader::new(&again), Args::new(), Vec::new());
    while !reader.is_empty() {
        let id = next_command(&mut reader, &mut read).expect("what was written reads back");
        put_command(&mut written, id, &read);
    }
    assert_eq!(again, written);
    twice(bytes);
}

/// Applies `bytes` to two stores: the same input gives the same verdict and the same state.
fn twice(bytes: &[u8]) {
    let run = || {
        let mut store = Store::new(SEED);
        let verdict = apply_body(&mut store, bytes);
        (verdict, store.digest().expect("nothing is evicted"), store.memory_bytes(), store)
    };
    let (first, second) = (run(), run());
    assert_eq!((first.0, first.1, first.2), (second.0, second.1, second.2));
    if first.0 {
        // A checkpoint of the state and the state are the same.
        let mut store = first.3;
        store.begin_cut();
        let (frame, images) = store.write_cut(usize::MAX / 2).expect("one call writes a whole cut");
        let mut again = Store::restore(SEED, &frame).expect("what was written reads back");
        for image in images.iter() {
            let Image::Put { key, head, body } = image else { panic!("a first cut deletes nothing") };
            again.restore_object(key, head, Body::Whole(body)).expect("an image reads back");
        }
        assert_eq!(again.digest(), store.digest());
        assert_eq!(again.len(), store.len());
    }
}

fn apply_body(store: &mut Store, bytes: &[u8]) -> bool {
    let (registry, mut effects) = (Registry::new(), Effects::default());
    let mut machinery = Machinery { registry: &registry, scripting: &mut NoScripts, effects: &mut effects };
    let index = store.applied().next();
    apply_entry(store, &mut machinery, index, Micros(1_700_000_000_000_000), bytes).is_ok()
}

/// Commands that exist, with arbitrary arguments.
fn commands(input: &mut Bytes<'_>) {
    if let Some(bytes) = written(input) {
        twice(&bytes);
    }
}

/// A body of commands that exist, some of them within a transaction; `None` if one would grow a string.
fn written(input: &mut Bytes<'_>) -> Option<Vec<u8>> {
    let registry = Registry::new();
    let all: Vec<_> = registry.iter().filter(|command| command.id >= 16).collect();
    let (mut body, mut steps): (Vec<u8>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
    while !input.is_empty() {
        let command = all[(usize::from(input.byte()) << 8 | usize::from(input.byte())) % all.len()];
        let least = usize::from(command.arity.unsigned_abs()) - 1;
        let extra = usize::from(input.byte() % 8);
        let count = if command.arity < 0 { least + extra } else { least };
        let args: Vec<&[u8]> = (0..count).map(|_| fuzz::word(input)).collect();
        if grows(&args) {
            return None;
        }
        let inside = extra == 7;
        let mut encoded = Vec::new();
        put_command(&mut encoded, command.id, &args);
        if inside { steps.push(encoded) } else { body.extend_from_slice(&encoded) }
    }
    if !steps.is_empty() {
        put_varint(&mut body, u64::from(storage::command::generic::EXEC));
        put_varint(&mut body, steps.len() as u64);
        steps.iter().for_each(|step| put_bytes(&mut body, step));
    }
    Some(body)
}

/// A number of many digits could be an offset behind which a string is filled up with zeros.
fn grows(args: &[&[u8]]) -> bool {
    let is_long = |arg: &&[u8]| {
        let digits = arg.iter().filter(|byte| byte.is_ascii_digit()).count();
        (OFFSET_DIGITS_MAX + 1..=10).contains(&digits) && arg.len() <= 12
    };
    args.iter().any(is_long)
}
