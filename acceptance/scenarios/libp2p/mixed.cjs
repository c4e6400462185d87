// Fifty peers of three kinds in one network: values are found while a fifth of the peers is killed.
"use strict";
const { fork } = require("node:child_process");
const { archipel, assert, check, crypto, ended, first, hasRust, load, open, peer, run, rust, sign, signedName, until } =
  require("libp2p.cjs");

const OURS = 20;
// Of js-libp2p: those of this process, and those of one that is killed.
const JS = 12;
const JS_KILLED = 3;
// Of rust-libp2p: so many in each process, of which one is killed.
const RUST = 3;
const RUST_PROCESSES = 5;
const VALUES = 24;
const GETS = 150;
// Contacts that each peer has before values are put: who knows a few only puts with those, who may be the ones that go.
const CONTACTS_MIN = 20;
// Those of js-libp2p take their time to try who is new.
const JS_CONTACTS_MIN = 8;
// Of all gets, in percent.
const FOUND_MIN = 99;
const GET_MS_MAX = 30_000;

/** Runs `work` for each number below `count`, a few at a time. */
async function each(count, work, atOnce = 8) {
  const results = new Array(count);
  let next = 0;
  const worker = async () => {
    for (let n = next++; n < count; n = next++) results[n] = await work(n);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return results;
}

/** Starts so many peers of js-libp2p that know the peer at `address`. */
async function javascript(count, address) {
  const { multiaddr } = await load("@multiformats/multiaddr");
  const all = await each(count, async () => {
    const one = await peer();
    await one.dial(multiaddr(address));
    return one;
  });
  await each(count, (n) => until(() => all[n].services.dht.routingTable.size > 0, "a peer of js-libp2p joined"));
  return all;
}

/** The same in a process of their own; gives how to kill it. */
async function javascriptElsewhere(count, address) {
  const child = fork(__filename, ["peers", count, address]);
  ended.push(() => child.kill("SIGKILL"));
  await new Promise((resolve, reject) => {
    child.on("message", resolve);
    child.on("exit", (code) => reject(new Error(`the peers of js-libp2p ended with ${code}`)));
  });
  return () => child.kill("SIGKILL");
}

const net = {};

async function join() {
  const firstOne = await archipel();
  const flags = ["--set", `p2p.peers=${firstOne.address}`];
  const others = await each(OURS - 1, () => archipel(flags), 4);
  net.ours = [firstOne, ...others];
  const processes = await each(RUST_PROCESSES, () => rust(RUST));
  net.rust = processes.flatMap((one) => one.peers);
  await each(net.rust.length, (n) => net.rust[n].ask("dial", firstOne.address));
  net.js = await javascript(JS, firstOne.address);
  const jsGoes = await javascriptElsewhere(JS_KILLED, firstOne.address);
  // All are there: each looks around until it knows enough of them.
  const key = () => crypto.randomBytes(32);
  await each(OURS, (n) => until(async () => {
    await net.ours[n].p2p("providers", key().toString("hex"));
    return (await net.ours[n].p2p("peers")).json.contacts >= CONTACTS_MIN;
  }, "a node of ours knows the others"));
  await each(net.rust.length, (n) => until(async () => {
    await net.rust[n].ask("providers", hex(key()));
    return (await net.rust[n].ask("contacts")).contacts >= CONTACTS_MIN;
  }, "a peer of rust-libp2p knows the others"));
  await each(JS, (n) => until(async () => {
    const { dht } = net.js[n].services;
    for await (const _ of dht.getClosestPeers(key()));
    return dht.routingTable.size >= JS_CONTACTS_MIN;
  }, "a peer of js-libp2p knows others"));
  // A fifth of each kind.
  const goes = net.ours.filter((_, n) => n % 5 === 4);
  net.killed = goes.length + JS_KILLED + RUST;
  net.kill = () => {
    goes.forEach((node) => node.kill());
    processes.at(-1).kill();
    jsGoes();
  };
  net.stays = {
    ours: net.ours.filter((node) => !goes.includes(node)),
    js: net.js,
    rust: net.rust.filter((one) => !processes.at(-1).peers.includes(one)),
  };
}

/** A signed value of a publisher who is none of the peers, and its name in words. */
async function signed(label, payload) {
  const { peerIdFromPublicKey } = await load("@libp2p/peer-id");
  const { publicKeyFromRaw } = await load("@libp2p/crypto", "dist/src/keys/index.js");
  const { publicKey, privateKey } = crypto.generateKeyPairSync("ed25519");
  const publisher = publicKey.export({ format: "der", type: "spki" }).subarray(-32);
  const bytes = signedName(publisher, label);
  const expires = (BigInt(Date.now()) + 3_600_000n) * 1000n;
  const value = sign(privateKey, publisher, bytes, 1, expires, Buffer.from(payload));
  return { text: `/archipel/${peerIdFromPublicKey(publicKeyFromRaw(publisher))}/${label}`, bytes, value, payload };
}

const hex = (bytes) => Buffer.from(bytes).toString("hex");

/** Puts a value by a peer of the kind whose turn it is; gives its name as each kind writes it. */
async function put(n) {
  const [label, payload] = [`value-${n}`, `payload ${n}`];
  if (n % 3 === 0) {
    const node = net.ours[n % OURS];
    const done = await node.p2p("put", label, payload);
    assert.equal(done.code, 0, done.stderr);
    const { peerIdFromString } = await load("@libp2p/peer-id");
    const bytes = signedName(Buffer.from(peerIdFromString(node.id).publicKey.raw), label);
    return { text: done.json.result.name, bytes, payload };
  }
  const value = await signed(label, payload);
  if (n % 3 === 1) {
    for await (const _ of net.js[n % JS].services.dht.put(value.bytes, value.value));
  } else {
    const done = await net.rust[n % net.rust.length].ask("put", hex(value.bytes), hex(value.value));
    assert.equal(done.stored, true);
  }
  return value;
}

/** Gets a value by a peer of one kind; why it was not found, or nothing. */
async function missing(n, value) {
  const { ours, js, rust } = net.stays;
  if (n % 3 === 0) {
    const got = await ours[n % ours.length].p2p("get", value.text);
    return got.json?.result?.value_hex === hex(value.payload) ? undefined : `ours: ${JSON.stringify(got)}`;
  }
  try {
    const found =
      n % 3 === 1
        ? (await first(
            js[n % js.length].services.dht.get(value.bytes, { signal: AbortSignal.timeout(GET_MS_MAX) }),
            (event) => event.name === "VALUE",
          ))?.value
        : Buffer.from((await rust[n % rust.length].ask("get", hex(value.bytes))).value ?? "", "hex");
    assert.equal(Buffer.from(open(value.bytes, found).payload).toString(), value.payload);
    return undefined;
  } catch (error) {
    return `${n % 3 === 1 ? "js" : "rust"}: ${error}`;
  }
}

if (process.argv[2] === "peers") {
  javascript(Number(process.argv[3]), process.argv[4]).then(() => process.send("joined"));
} else if (!process.env.ARCHIPEL_BIN || !hasRust) {
  console.log("skip - fifty peers: it needs nodes of ours and the peers of acceptance/libp2p-kad");
  process.exit(0);
} else {
  const kinds = `${OURS} nodes of ours, ${JS + JS_KILLED} of js-libp2p and ${RUST * RUST_PROCESSES} of rust-libp2p`;

  check(`${kinds} join one network and put values`, async () => {
    await join();
    net.values = await each(VALUES, put);
  });

  check(`they find ${FOUND_MIN} % of them while a fifth is killed`, async () => {
    assert.ok(net.killed * 5 >= OURS + JS + JS_KILLED + RUST * RUST_PROCESSES, `${net.killed} are killed`);
    // Three gets behind each other, one of each kind, are for one value. They begin before and end long after.
    const get = (n) => missing(n, net.values[Math.floor(n / 3) % VALUES]);
    const gets = each(GETS, get);
    net.kill();
    const failed = (await gets).filter(Boolean);
    const count = GETS - failed.length;
    console.log(`${count} of ${GETS} gets found`);
    assert.ok(count * 100 >= FOUND_MIN * GETS, `${count} of ${GETS} were found; ${failed.slice(0, 3).join("; ")}`);
    // Control: what nobody put is not found.
    assert.equal((await net.stays.ours[0].p2p("get", "no such value")).code, 1);
  });

  run();
}
