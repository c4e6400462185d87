// Peers of js-libp2p and rust-libp2p with Kademlia, nodes of ours with an overlay, and the records that all keep.
"use strict";
const assert = require("node:assert/strict");
const crypto = require("node:crypto");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const readline = require("node:readline");
const { execFile, spawn } = require("node:child_process");
const { pathToFileURL } = require("node:url");

// js-libp2p 3 was written for Node 22.
Promise.withResolvers ??= () => {
  const all = {};
  all.promise = new Promise((resolve, reject) => Object.assign(all, { resolve, reject }));
  return all;
};

const PATIENCE_MS = 60_000;
const SLOW_MS = 30_000;
const modules = process.env.NODE_PATH.split(":").find((dir) => fs.existsSync(path.join(dir, "libp2p")));
/** A module that only `import` can load; NODE_PATH is for `require` alone. */
const load = (name, file = "dist/src/index.js") => import(pathToFileURL(path.join(modules, name, file)).href);

const checks = [];
const ended = [];
process.on("exit", () => ended.forEach((end) => end()));

/** A varint of unsigned LEB128. */
function varint(number) {
  const bytes = [];
  let rest = BigInt(number);
  do {
    bytes.push(Number(rest & 0x7fn) | (rest > 0x7fn ? 0x80 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return Buffer.from(bytes);
}

const lengthed = (bytes) => Buffer.concat([varint(bytes.length), bytes]);
const SIGNED = Buffer.from("/archipel/");

/** The bytes of a signed record's name. */
const signedName = (publisher, label) => Buffer.concat([SIGNED, publisher, Buffer.from(label)]);

function signedBytes(name, sequence, expires, payload) {
  const purpose = Buffer.from("archipel signed record 1\0");
  return Buffer.concat([purpose, lengthed(name), varint(sequence), varint(expires), lengthed(payload)]);
}

/** A record's value as we write it, signed with an Ed25519 key of Node. */
function sign(privateKey, publisher, name, sequence, expires, payload) {
  const signature = crypto.sign(null, signedBytes(name, sequence, expires, payload), privateKey);
  return Buffer.concat([Buffer.from([1]), publisher, varint(sequence), varint(expires), signature, lengthed(payload)]);
}

/** Reads a record's value and checks it; throws what is wrong with it. */
function open(name, value) {
  let at = 0;
  const take = (n) => value.subarray(at, (at += n));
  const number = () => {
    let [result, shift] = [0n, 0n];
    for (;;) {
      const byte = BigInt(take(1)[0]);
      result |= (byte & 0x7fn) << shift;
      shift += 7n;
      if (byte < 0x80n) return result;
    }
  };
  assert.equal(take(1)[0], 1, "the version of a record");
  const publisher = Buffer.from(take(32));
  const [sequence, expires] = [number(), number()];
  const signature = take(64);
  const payload = Buffer.from(take(Number(number())));
  assert.deepEqual(Buffer.from(name).subarray(SIGNED.length, SIGNED.length + 32), publisher);
  const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), publisher]);
  const key = crypto.createPublicKey({ key: spki, format: "der", type: "spki" });
  assert.ok(crypto.verify(null, signedBytes(Buffer.from(name), sequence, expires, payload), key, signature));
  return { sequence, expires, payload };
}

/**
 * Starts a peer of js-libp2p with Kademlia, which serves it unless it is a client. One with `serve` has none: it says that it
 * serves and lets that have the streams.
 */
async function peer({ clientMode = false, serve } = {}) {
  const [{ createLibp2p }, { tcp }, { noise }, { yamux }, { identify }, { ping }, kad] = await Promise.all(
    ["libp2p", "@libp2p/tcp", "@chainsafe/libp2p-noise", "@chainsafe/libp2p-yamux", "@libp2p/identify",
      "@libp2p/ping", "@libp2p/kad-dht"].map((name) => load(name)),
  );
  const newest = (name, values) => {
    const ranks = values.map((value) => open(name, value).sequence);
    return ranks.indexOf(ranks.reduce((a, b) => (a > b ? a : b)));
  };
  const node = await createLibp2p({
    addresses: { listen: ["/ip4/127.0.0.1/tcp/0"] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    // All peers are on one host here, and it counts connections by host; and many of them share one process, so that
    // handshakes of each wait for those of all others.
    connectionManager: { inboundConnectionThreshold: 1000, dialTimeout: SLOW_MS, inboundUpgradeTimeout: SLOW_MS },
    services: {
      identify: identify(),
      ping: ping(),
      dht: serve ? () => undefined : kad.kadDHT({
        protocol: "/ipfs/kad/1.0.0",
        clientMode,
        allowQueryWithZeroPeers: true,
        networkDialTimeout: { minTimeout: SLOW_MS, maxTimeout: SLOW_MS },
        pingNewContactTimeout: { minTimeout: SLOW_MS, maxTimeout: SLOW_MS },
        peerInfoMapper: kad.passthroughMapper,
        validators: { archipel: async (name, value) => void open(name, value) },
        selectors: { archipel: newest },
      }),
    },
  });
  if (serve) await node.handle("/ipfs/kad/1.0.0", serve);
  return node;
}

/**
 * Starts peers of rust-libp2p, in a process of their own: their ids and addresses, and for each `ask`, which gives what it
 * answers to the words of a line.
 */
function rust(count = 1) {
  const child = spawn(process.env.LIBP2P_KAD_BIN, [String(count)], { stdio: ["pipe", "pipe", "inherit"] });
  ended.push(() => child.kill("SIGKILL"));
  const [peers, waiting] = [[], new Map()];
  let requests = 0;
  const ask = (number, words) =>
    new Promise((resolve, reject) => {
      waiting.set(String(++requests), { resolve, reject });
      child.stdin.write(`${requests} ${number} ${words.join(" ")}\n`);
    });
  // What it is still told when it is killed goes nowhere, and who waits is told.
  child.stdin.on("error", () => {});
  return new Promise((resolve, reject) => {
    child.on("exit", (code) => {
      const error = new Error(`the peers of rust-libp2p ended with ${code}`);
      [{ reject }, ...waiting.values()].forEach((one) => one.reject(error));
    });
    readline.createInterface({ input: child.stdout }).on("line", (line) => {
      const told = JSON.parse(line);
      if (told.request === undefined) {
        const { number, peer: id, address } = told;
        peers[number] = { id, address, ask: (...words) => ask(number, words) };
        if (peers.filter(Boolean).length === count) resolve({ peers, pid: child.pid, kill: () => child.kill("SIGKILL") });
        return;
      }
      const { resolve: answer, reject: refuse } = waiting.get(told.request);
      waiting.delete(told.request);
      if (told.error) refuse(new Error(told.error));
      else answer(told);
    });
  });
}

/** All events of a query, until `enough` is true of one; that one, or undefined. */
async function first(events, enough) {
  for await (const event of events) {
    if (enough(event)) return event;
  }
  return undefined;
}

/** Starts a node of ours with an overlay; `log` has what it logs. */
async function archipel(flags = []) {
  const dir = fs.mkdtempSync(path.join(process.env.SCRATCH || os.tmpdir(), "p2p-"));
  const set = ["log.format=json", "redis.port=0", "admin.port=0", "p2p.port=0", "p2p.enabled=true",
    "storage.segment_bytes=1MiB", "storage.pin_workers=false"].flatMap((pair) => ["--set", pair]);
  const child = spawn(process.env.ARCHIPEL_BIN, ["--data-dir", dir, ...set, ...flags],
    { stdio: ["ignore", "ignore", "pipe"] });
  ended.push(() => child.kill("SIGKILL"));
  const log = [];
  const serving = await new Promise((resolve, reject) => {
    readline.createInterface({ input: child.stderr }).on("line", (line) => {
      const message = JSON.parse(line);
      log.push(message);
      if (message.message === "serving") resolve(message);
    });
    child.on("exit", (code) => reject(new Error(`the node ended with ${code}: ${JSON.stringify(log.slice(-5))}`)));
  });
  const admin = serving.admin.split(":").pop();
  /** Runs a verb of `archipel p2p`: its exit code and the one object it printed, or what it said on stderr. */
  const p2p = (...words) =>
    new Promise((resolve) => {
      const args = ["p2p", ...words, "--json", "--set", `admin.port=${admin}`];
      execFile(process.env.ARCHIPEL_BIN, args, (error, stdout, stderr) => {
        resolve({ code: error ? error.code : 0, json: stdout ? JSON.parse(stdout) : undefined, stderr });
      });
    });
  const { peer: id, addresses } = (await p2p("id")).json;
  const kill = (signal = "SIGKILL") => child.kill(signal);
  return { id, address: `${addresses[0]}/p2p/${id}`, p2p, kill, log, pid: child.pid };
}

/** Waits for a condition that others bring about. */
async function until(condition, what) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await condition())) {
    assert.ok(Date.now() < end, `never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Registers a check: a sentence, and a function that throws if it is not true. */
function check(sentence, body) {
  checks.push({ sentence, body });
}

/** Runs the checks in order and ends the process. */
async function run() {
  let failed = 0;
  for (const { sentence, body } of checks) {
    try {
      await body();
      console.log(`ok - ${sentence}`);
    } catch (error) {
      failed += 1;
      console.log(`not ok - ${sentence}: ${String(error.stack).replaceAll("\n", " | ")}`);
    }
  }
  process.exit(failed ? 1 : 0);
}

/** Whether the program of `acceptance/libp2p-kad` was built for this run. */
const hasRust = Boolean(process.env.LIBP2P_KAD_BIN);

module.exports = {
  archipel, assert, check, crypto, ended, first, hasRust, load, open, peer, run, rust, sign, signedName, until,
};
